//! Segments: who may write what, names, and futexes on pages that a sleeper can only read.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{config, fresh_name, small_channel, small_control};
use reprise_channel::ring::Space;
use reprise_channel::segment::{segment_name, unlink};
use reprise_channel::{
    Abort, ChannelConfig, ChannelSegment, ControlConfig, ControlSegment, CpuPort, DevicePort, Event, Role, Segment,
    SegmentError, TapPort,
};

/// Set in a child process: what to do there instead of running tests.
const CHILD: &str = "REPRISE_CHANNEL_TEST_CHILD";

/// Starts this test binary again, running only the test named `test`, with `job` in its environment.
fn child(test: &str, job: &str) -> std::process::Child {
    let exe = std::env::current_exe().unwrap();
    Command::new(exe).args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, job).spawn().unwrap()
}

fn job() -> Option<String> {
    std::env::var(CHILD).ok()
}

#[test]
fn each_role_writes_its_own_pages_and_no_others() {
    if let Some(job) = job() {
        let [name, role, start, len] = job.split(' ').collect::<Vec<_>>()[..] else { panic!("{job}") };
        let role = [Role::Cpu, Role::Device, Role::Daemon, Role::DaemonAsDevice][role.parse::<usize>().unwrap()];
        let raw = Segment::attach(name).unwrap();
        let channel = std::fs::metadata(format!("/dev/shm/{name}")).unwrap();
        assert_eq!(channel.len() as usize, raw.bytes());
        let regions = [reprise_channel::segment::Region {
            owner: Role::Cpu,
            start: start.parse().unwrap(),
            len: len.parse().unwrap(),
        }];
        raw.protect(name, &regions, role).unwrap();
        let word = raw.word(regions[0].start / 8 + 100);
        word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        return;
    }
    let channel = small_channel(true);
    let region = channel.regions().iter().find(|region| region.owner == Role::Cpu).unwrap();
    for role in 0..4 {
        let job = format!("{} {role} {} {}", channel.name(), region.start, region.len);
        let status = child("each_role_writes_its_own_pages_and_no_others", &job).wait().unwrap();
        use std::os::unix::process::ExitStatusExt;
        let expected = if role == 0 { None } else { Some(11) };
        assert_eq!(status.signal(), expected, "role {role} writes a page of cpu-proc");
    }
}

#[test]
fn regions_cover_the_segment_and_have_the_right_owners() {
    let channel = small_channel(true);
    let mut end = 0;
    for region in channel.regions() {
        assert_eq!(region.start, end);
        end += region.len;
    }
    assert_eq!(end, Segment::attach(channel.name()).unwrap().bytes());
    let owners = channel.regions().iter().map(|region| region.owner).collect::<Vec<_>>();
    use Role::{Cpu, Daemon, Device, Supervisor};
    assert_eq!(owners, [Supervisor, Cpu, Cpu, Cpu, Device, Device, Device, Daemon]);
    assert!(Role::DaemonAsDevice.owns(Device) && Role::DaemonAsDevice.owns(Daemon) && !Role::DaemonAsDevice.owns(Cpu));
}

/// The mapping that a port keeps has no descriptor behind it that could map it writable again.
#[test]
fn no_descriptor_stays_open() {
    let channel = small_channel(true);
    let _ports = (
        CpuPort::attach(channel.name()).unwrap(),
        DevicePort::attach(channel.name(), Role::Device).unwrap(),
        TapPort::attach(channel.name()).unwrap(),
    );
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().contains(channel.name()))
        .count();
    assert_eq!(open, 0);
}

#[test]
fn names_modes_and_unlinking() {
    let name = fresh_name();
    let channel = ChannelSegment::create(&name, &config(true)).unwrap();
    let path = format!("/dev/shm/{name}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(ChannelSegment::create(&name, &config(true)), Err(SegmentError::Exists(_))));
    assert!(std::fs::exists(&path).unwrap(), "a refused name is left alone");
    let cpu = CpuPort::attach(&name).unwrap();
    drop(cpu);
    assert!(std::fs::exists(&path).unwrap(), "only the maker removes the name");
    let cpu = CpuPort::attach(&name).unwrap();
    drop(channel);
    assert!(!std::fs::exists(&path).unwrap());
    assert!(!unlink(&name).unwrap());
    assert!(matches!(CpuPort::attach(&name), Err(SegmentError::System { .. })));
    assert_eq!(cpu.name(), "uart0", "who has it attached keeps it");
    for bad in ["", "reprise-", "other-1", "reprise-../x", "reprise-A", &format!("reprise-{}", "x".repeat(60))] {
        assert!(matches!(Segment::attach(bad), Err(SegmentError::Name(_))), "{bad}");
        assert!(matches!(unlink(bad), Err(SegmentError::Name(_))), "{bad}");
    }
    assert_eq!(segment_name("0123abcd", 4), "reprise-0123abcd-4");
}

#[test]
fn sizes_out_of_range_are_refused() {
    let good = config(false);
    let refused =
        |config: &ChannelConfig| matches!(ChannelSegment::create(&fresh_name(), config), Err(SegmentError::Config(_)));
    assert!(refused(&ChannelConfig { request_slots: 0, ..good.clone() }));
    assert!(refused(&ChannelConfig { event_slots: 3, ..good.clone() }));
    assert!(refused(&ChannelConfig { event_slots: 1 << 17, ..good.clone() }));
    assert!(refused(&ChannelConfig { request_arena: 0, ..good.clone() }));
    assert!(refused(&ChannelConfig { event_arena: 100, ..good.clone() }));
    assert!(refused(&ChannelConfig { event_arena: 1 << 30, ..good }));
    let control = ControlConfig { journal_slots: 5, ..ControlConfig::default() };
    assert!(matches!(ControlSegment::create(&fresh_name(), &control), Err(SegmentError::Config(_))));
}

#[test]
fn segments_of_another_kind_are_refused() {
    let (channel, control) = (small_channel(false), small_control());
    assert!(matches!(CpuPort::attach(control.name()), Err(SegmentError::Format { .. })));
    assert!(matches!(reprise_channel::CpuControl::attach(channel.name()), Err(SegmentError::Format { .. })));
    assert!(matches!(TapPort::attach(channel.name()), Err(SegmentError::Channel(_))), "made without a tap");
    assert!(matches!(DevicePort::attach(channel.name(), Role::Cpu), Err(SegmentError::Config(_))));
    let name = fresh_name();
    let _blank = Segment::create(&name, 1 << 16).unwrap();
    assert!(matches!(CpuPort::attach(&name), Err(SegmentError::Format { .. })));
    assert!(unlink(&name).unwrap());
    let name = fresh_name();
    std::fs::write(format!("/dev/shm/{name}"), b"short").unwrap();
    assert!(matches!(CpuPort::attach(&name), Err(SegmentError::Format { .. })));
    assert!(unlink(&name).unwrap());
}

/// A name longer than its place is cut at a character.
#[test]
fn long_names_are_cut() {
    let long = "ä".repeat(40);
    let channel = ChannelSegment::create(&fresh_name(), &ChannelConfig::new(1, &long, false)).unwrap();
    assert_eq!(CpuPort::attach(channel.name()).unwrap().name(), "ä".repeat(32));
}

/// cpu-proc sleeps on the device's cursor, a word of a page that it can only read; another process wakes it.
#[test]
fn a_sleeper_on_a_read_only_page_is_woken_by_another_process() {
    if let Some(name) = job() {
        let mut device = DevicePort::attach(&name, Role::Device).unwrap();
        device.next_request(&Abort::NEVER).unwrap().unwrap();
        // Long enough for cpu-proc to be asleep for sure, and far longer than any slice of its sleep would take to end.
        std::thread::sleep(Duration::from_millis(30));
        device.emit(0, &Event::Ack, &Abort::NEVER).unwrap();
        device.complete().unwrap();
        // cpu-proc goes first, so that it is the wake that ends its wait, and not the end of this process.
        while device.next_request(&Abort::NEVER).is_ok() {}
        return;
    }
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    cpu.set_spin(reprise_channel::SpinPolicy::SLEEP);
    let mut device = child("a_sleeper_on_a_read_only_page_is_woken_by_another_process", channel.name());
    cpu.try_send(0, &reprise_channel::Request::Reset).unwrap().unwrap();
    assert_eq!(cpu.wait_event(&Abort::NEVER).unwrap().unwrap().event, Event::Ack);
    drop(cpu);
    assert!(device.wait().unwrap().success());
}

/// A futex wait on a page mapped read-only is refused by no kernel that we run on: the system call itself sleeps and is woken.
#[test]
fn the_system_call_sleeps_on_a_read_only_page() {
    let channel = small_channel(false);
    let map = |role| {
        let raw = Segment::attach(channel.name()).unwrap();
        raw.protect(channel.name(), channel.regions(), role).unwrap();
        raw
    };
    let region = channel.regions().iter().find(|region| region.owner == Role::Device).unwrap();
    let word = region.start / 8 + 200;
    let (reader, writer) = (map(Role::Cpu), map(Role::Device));
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut sleeps = 0;
            while reader.word(word).load(Ordering::Acquire) == 0 {
                Segment::sleep(&[(&reader, word, 0)], None, Some(Duration::from_secs(20)));
                sleeps += 1;
            }
            sleeps
        });
        std::thread::sleep(Duration::from_millis(20));
        writer.word(word).store(1, Ordering::Release);
        writer.wake(word);
        // Were the call refused, the fallback would have looked round every 200 us.
        assert!(sleeper.join().unwrap() <= 3, "the sleep ended without a wake");
    });
}
