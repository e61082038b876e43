//! The process itself: started as the supervisor starts it, driven through its channel as cpu-proc drives it.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, compile, inheritable, packets, spawn, wait};
use reprise_backends::stream;
use reprise_channel::segment::segment_name;
use reprise_channel::{Abort, ChannelConfig, ChannelSegment, CpuPort, Event, Request, Sent, TapPort};
use reprise_child::control::{
    BackendStart, Blame, Common, DeviceStart, DeviceState, FromChild, Mode, Ready, Start, ToChild, Way,
};
use reprise_child::{Peer, pair};
use reprise_device::spec::PluginSpec;

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const LCRH: u64 = 0x2c;
const CR: u64 = 0x30;
const IMSC: u64 = 0x38;

/// The plugin's shared object, which the dev-dependency has built beside the tests.
fn pl011() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.parent().unwrap().join("libplugin_pl011.so")
}

/// The supervisor's end of a console's output.
struct Shown {
    socket: File,
    position: u64,
    ahead: Vec<u8>,
}

impl Read for Shown {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut packet = [0; stream::HEADER + stream::PIECE];
        while self.ahead.is_empty() {
            let n = self.socket.read(&mut packet)?;
            if n == 0 {
                return Ok(0);
            }
            let new = stream::new_part(&packet[..n], self.position).expect("no gap, nothing twice");
            assert_eq!(new.len() + stream::HEADER, n, "nothing twice");
            self.position += new.len() as u64;
            self.ahead.extend(new);
        }
        let n = buf.len().min(self.ahead.len());
        buf[..n].copy_from_slice(&self.ahead[..n]);
        self.ahead.drain(..n);
        Ok(n)
    }
}

/// The supervisor's end of a console's input.
struct Keys {
    socket: File,
    position: u64,
}

impl Write for Keys {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let piece = &data[..data.len().min(stream::PIECE)];
        self.socket.write_all(&stream::packet(self.position, piece))?;
        self.position += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A device-proc with the other ends of all that it holds.
struct Rig {
    child: Child,
    peer: Peer,
    // Before the segment: a port is gone before its channel is.
    cpu: CpuPort,
    tap: Option<TapPort>,
    segment: ChannelSegment,
    spec: PluginSpec,
    output: Option<Shown>,
    input: Option<Keys>,
    now: u64,
    /// Side messages.
    offers: Vec<u8>,
    effects: Vec<String>,
}

struct Setup<'a> {
    plugin: &'a Path,
    kind: &'a str,
    config: &'a str,
    tap: bool,
    rtc: bool,
    jitter: Option<u64>,
}

impl<'a> Setup<'a> {
    fn pl011(path: &'a Path) -> Self {
        Self { plugin: path, kind: "pl011", config: "()", tap: false, rtc: false, jitter: None }
    }

    /// Starts the process up to its answer to the start message.
    fn start(&self) -> (Child, Peer, ChannelSegment, FromChild, File, File) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let machine = format!("devtest{}", std::process::id());
        let name = segment_name(&machine, NUMBER.fetch_add(1, Ordering::SeqCst));
        let segment = ChannelSegment::create(&name, &ChannelConfig::new(0, "uart0", self.tap)).unwrap();
        let ((input_write, input_read), (output_read, output_write)) = (packets(), packets());
        let plugin = inheritable(File::open(self.plugin).unwrap());
        let (input, output) = (inheritable(input_read), inheritable(output_write));
        let backend = if self.rtc {
            BackendStart::Rtc { date: Some(1_700_000_000) }
        } else {
            BackendStart::Console { input: Some(input.as_raw_fd()), output: output.as_raw_fd() }
        };
        let (mut peer, theirs) = pair().unwrap();
        let child = spawn(&inheritable(theirs));
        let common = Common { name: "uart0".into(), log_filter: "warn".into(), jitter: self.jitter, mode: Mode::Plain };
        let start = DeviceStart {
            common,
            channel: 0,
            segment: name,
            plugin: plugin.as_raw_fd(),
            plugin_file: self.plugin.display().to_string(),
            kind: self.kind.into(),
            window: 0x1000,
            config: self.config.into(),
            backend,
            ends: Vec::new(),
            disk: None,
            estate: None,
            way: Way::Fresh,
            swaps: Vec::new(),
        };
        peer.send(&ToChild::Start(Box::new(Start::Device(start)))).unwrap();
        let answer = peer.receive_until(Instant::now() + LONG).unwrap();
        (child, peer, segment, answer, File::from(output_read), File::from(input_write))
    }

    fn rig(&self) -> Rig {
        let (child, peer, segment, answer, output, input) = self.start();
        let FromChild::Ready(Ready { spec, plugin, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(plugin.unwrap().kind, self.kind);
        let spec = PluginSpec::from_bytes(&spec).unwrap();
        spec.check().unwrap();
        let cpu = CpuPort::attach(segment.name()).unwrap();
        let tap = self.tap.then(|| TapPort::attach(segment.name()).unwrap());
        peer.send(&ToChild::Go).unwrap();
        let input = Some(Keys { socket: input, position: 0 });
        let output = Some(Shown { socket: output, position: 0, ahead: Vec::new() });
        Rig { child, peer, cpu, tap, segment, spec, output, input, now: 0, offers: Vec::new(), effects: Vec::new() }
    }
}

impl Rig {
    fn send(&mut self, request: &Request<'_>) -> u64 {
        self.now += 100;
        loop {
            match self.cpu.send(self.now, request, &Abort::after(LONG)).unwrap() {
                Sent::Done(seq) => return seq,
                Sent::EventPending => self.take_events(),
                Sent::Ended(how) => panic!("{how:?}"),
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(message) = self.cpu.try_event().unwrap() {
            match message.event {
                Event::HostOffer { data, .. } => self.offers.extend_from_slice(data),
                Event::HostOut { .. } => {}
                event => self.effects.push(format!("{event:?}")),
            }
        }
    }

    /// A synchronous request: its answer.
    fn ask(&mut self, request: &Request<'_>) -> u64 {
        let seq = self.send(request);
        loop {
            let message = self.cpu.wait_event(&Abort::after(LONG)).unwrap().expect("an answer in time");
            assert!(!message.event.is_effect() || message.cause == seq || self.effects.len() < 10_000);
            match message.event {
                Event::Reply { value } => return value,
                Event::Ack => return 0,
                Event::HostOffer { data, .. } => self.offers.extend_from_slice(data),
                Event::HostOut { .. } => {}
                event => self.effects.push(format!("{event:?}")),
            }
        }
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.ask(&Request::Read { offset, size: 4 })
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.ask(&Request::Write { offset, size: 4, value, posted: false });
    }

    fn post(&mut self, offset: u64, value: u64) {
        self.send(&Request::Write { offset, size: 4, value, posted: true });
    }

    /// As a driver sets the UART up.
    fn start_uart(&mut self) {
        self.ask(&Request::Reset);
        self.write(LCRH, 0x70);
        self.write(CR, 0x301);
        self.ask(&Request::Timer { id: 1 });
        self.now += 1_000_000;
        self.ask(&Request::Timer { id: 1 });
    }

    /// Waits for offered input.
    fn offered(&mut self, bytes: usize) -> Vec<u8> {
        let until = Instant::now() + LONG;
        while self.offers.len() < bytes {
            assert!(Instant::now() < until, "{} of {bytes} bytes were offered", self.offers.len());
            if let Some(message) = self.cpu.wait_event(&Abort::after(Duration::from_millis(50))).unwrap() {
                if let Event::HostOffer { data, .. } = message.event {
                    self.offers.extend_from_slice(data);
                }
            }
        }
        std::mem::take(&mut self.offers)
    }

    fn receive(&mut self) -> FromChild {
        self.peer.receive_until(Instant::now() + LONG).unwrap()
    }

    fn save(&mut self) -> DeviceState {
        self.peer.send(&ToChild::Save).unwrap();
        match self.receive() {
            FromChild::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    fn exit(mut self) {
        self.peer.send(&ToChild::Exit).unwrap();
        assert!(self.wait().success());
    }

    /// The output that the log daemon gets.
    fn on_record(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        let tap = self.tap.as_mut().unwrap();
        while let Some(message) = tap.next_event().unwrap() {
            if let Event::HostOut { port: 0, data } = message.event {
                seen.extend_from_slice(data);
            }
        }
        seen
    }

    fn read_output(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        self.output.as_mut().unwrap().read_exact(&mut got).unwrap();
        got
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn output_goes_out_in_order_and_the_state_is_saved() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    assert_eq!(rig.spec.posted(DR, 4), Some(&[1][..]));
    let text: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    for &byte in &text {
        rig.post(DR, byte.into());
    }
    assert_eq!(rig.read(FR), 0x90);
    assert_eq!(rig.read_output(text.len()), text);
    let state = rig.save();
    assert_eq!(state.output_bytes, 20_000);
    assert_eq!(state.output_hash, *blake3::hash(&text).as_bytes());
    assert!(!state.state.is_empty());
    rig.exit();
}

#[test]
fn effects_come_before_the_answer_and_posted_writes_have_none() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    rig.effects.clear();
    rig.write(IMSC, 0x20);
    assert_eq!(rig.effects, ["Publish { reg: 9, value: 32 }"]);
    rig.post(DR, 65);
    rig.effects.clear();
    assert_eq!(rig.read(IMSC), 0x20);
    assert_eq!(rig.effects, ["Publish { reg: 1, value: 32 }", "SetLine { pin: 0, level: true }"]);
    rig.exit();
}

#[test]
fn input_is_offered_as_much_as_the_device_wants() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    let text: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 253) as u8).collect();
    let mut writer = rig.input.take().unwrap();
    let all = text.clone();
    let thread = std::thread::spawn(move || writer.write_all(&all).unwrap());
    let mut got = Vec::new();
    // The UART's line takes 3840 characters: no more is offered before they are delivered.
    let mut first = rig.offered(3840);
    std::thread::sleep(Duration::from_millis(20));
    rig.read(FR);
    assert_eq!((first.len(), rig.offers.len()), (3840, 0));
    while got.len() < text.len() {
        rig.ask(&Request::Host { port: 0, data: &first });
        while rig.read(FR) & 0x10 == 0 {
            got.push(rig.read(DR) as u8);
        }
        first = if got.len() < text.len() { rig.offered(1) } else { Vec::new() };
    }
    assert!(got == text);
    thread.join().unwrap();
    rig.exit();
}

#[test]
fn a_sleeping_device_hears_its_input_and_its_end() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    for key in [b'a', b'b', b'c'] {
        std::thread::sleep(Duration::from_millis(30));
        rig.input.as_mut().unwrap().write_all(&[key]).unwrap();
        assert_eq!(rig.offered(1), [key]);
    }
    rig.input = None;
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(rig.read(FR), 0x90, "the end of the input is not the end of the device");
    rig.exit();
}

#[test]
fn the_tap_sees_all_output_before_the_state() {
    let path = pl011();
    let mut rig = Setup { tap: true, ..Setup::pl011(&path) }.rig();
    rig.start_uart();
    let text = b"what the guest says is on the record\n".repeat(100);
    for &byte in &text {
        rig.post(DR, byte.into());
    }
    rig.read(FR);
    rig.save();
    assert!(rig.on_record() == text);
    assert_eq!(rig.read_output(text.len()), text);
    rig.exit();
}

/// The CPU process sends what its guest said last, and leaves before the device has looked: in a recording nothing of that may be missing.
#[test]
fn what_the_device_still_holds_when_its_peer_leaves_is_on_the_record() {
    let path = pl011();
    for bytes in [1, 3, 20, 200] {
        for round in 0..20 {
            let mut rig = Setup { tap: true, ..Setup::pl011(&path) }.rig();
            rig.start_uart();
            let text: Vec<u8> = (0..bytes).map(|i| b'a' + i % 26).collect();
            for &byte in &text {
                rig.post(DR, byte.into());
            }
            // From before the first byte was looked at to after the last.
            std::thread::sleep(Duration::from_micros(round * 10));
            rig.segment.close(reprise_channel::CloseReason::Stop);
            let state = rig.save();
            assert_eq!((state.output_bytes, rig.on_record()), (text.len() as u64, text));
            rig.exit();
        }
    }
}

#[test]
fn a_reader_that_does_not_read_stops_nothing() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    let text: Vec<u8> = (0..400_000u32).map(|i| (i % 249) as u8).collect();
    for &byte in &text {
        rig.post(DR, byte.into());
    }
    assert_eq!(rig.read(FR), 0x90);
    let thread = {
        let mut output = rig.output.take().unwrap();
        let n = text.len();
        std::thread::spawn(move || {
            let mut got = vec![0; n];
            output.read_exact(&mut got).unwrap();
            got
        })
    };
    rig.save();
    assert!(thread.join().unwrap() == text);
    rig.exit();
}

#[test]
fn the_clock_gets_its_date_after_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let toy = compile(dir.path(), Path::new("sdk/tests/c/toy.c"), "libtoy.so");
    let mut rig = Setup { plugin: &toy, kind: "c-toy", config: "()", tap: false, rtc: true, jitter: None }.rig();
    assert_eq!(rig.read(0), 0x43);
    rig.ask(&Request::Reset);
    let date = u64::from_le_bytes(rig.offered(8)[..8].try_into().unwrap());
    assert!((1_700_000_000..1_700_001_000).contains(&date), "{date}");
    rig.exit();
}

#[test]
fn wrong_configs_and_plugins_are_blamed() {
    let path = pl011();
    let dir = tempfile::tempdir().unwrap();
    let fatal = |setup: Setup<'_>| {
        let (mut child, _peer, _segment, answer, ..) = setup.start();
        assert!(!wait(&mut child).success());
        match answer {
            FromChild::Fatal { text, blame } => (text, blame),
            other => panic!("{other:?}"),
        }
    };
    let (text, blame) = fatal(Setup { config: "(\n  fifo: 16,\n  speed: 9600)", ..Setup::pl011(&path) });
    assert!(text.contains("speed") && matches!(blame, Blame::Config(3, _)), "{text} {blame:?}");
    let (text, blame) = fatal(Setup { kind: "sp804", ..Setup::pl011(&path) });
    assert!(text.contains("\"pl011\", not a \"sp804\"") && blame == Blame::Plugin, "{text} {blame:?}");
    let noise = dir.path().join("noise.so");
    std::fs::write(&noise, vec![0x5a; 1 << 20]).unwrap();
    let (text, blame) = fatal(Setup::pl011(&noise));
    assert!(text.contains("noise.so") && blame == Blame::Plugin, "{text} {blame:?}");
}

#[test]
fn a_plugin_that_breaks_its_spec_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), Path::new("tests/c/crasher.c"), "libcrasher.so");
    let setup = Setup { plugin: &path, kind: "crasher", config: "()", tap: false, rtc: false, jitter: None };
    let mut rig = setup.rig();
    assert_eq!(rig.read(0), 7);
    rig.send(&Request::Write { offset: 0, size: 4, value: 1, posted: false });
    match rig.receive() {
        FromChild::Fatal { text, blame: Blame::Plugin } => assert!(text.contains("output pin 3 of 0"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.wait().code(), Some(70));
    let message = rig.cpu.wait_event(&Abort::after(LONG)).unwrap().unwrap();
    assert!(matches!(message.event, Event::Fault { code: 1, .. }), "{:?}", message.event);
}

#[test]
fn a_plugin_in_its_sandbox_can_open_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), Path::new("tests/c/crasher.c"), "libcrasher.so");
    let mut rig = Setup { plugin: &path, kind: "crasher", config: "()", tap: false, rtc: false, jitter: None }.rig();
    rig.send(&Request::Write { offset: 0, size: 4, value: 3, posted: false });
    assert!(matches!(rig.receive(), FromChild::Violation { .. }));
    assert_eq!(rig.wait().code(), Some(159));
    assert!(!Path::new("/tmp/reprise-must-not-exist").exists());
    let mut rig = Setup { plugin: &path, kind: "crasher", config: "()", tap: false, rtc: false, jitter: None }.rig();
    rig.send(&Request::Write { offset: 0, size: 4, value: 2, posted: false });
    assert!(!rig.wait().success(), "a wild write ends the process");
}

#[test]
fn it_ends_with_its_channel_and_with_its_supervisor() {
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    rig.post(DR, 0x21);
    rig.read(FR);
    rig.segment.close(reprise_channel::CloseReason::Stop);
    let state = rig.save();
    assert_eq!(state.output_bytes, 1);
    rig.exit();
    let mut rig = Setup::pl011(&pl011()).rig();
    rig.start_uart();
    let (mut other, _theirs) = pair().unwrap();
    std::mem::swap(&mut rig.peer, &mut other);
    drop(other);
    assert_eq!(rig.wait().code(), Some(1));
}

/// What a driver that echoes its input does, and all effects of it.
fn echo_session(jitter: Option<u64>) -> (Vec<String>, u64, DeviceState) {
    let path = pl011();
    let mut rig = Setup { jitter, ..Setup::pl011(&path) }.rig();
    rig.start_uart();
    rig.write(IMSC, 0x70);
    for round in 0..8u64 {
        rig.ask(&Request::Host { port: 0, data: &[round as u8; 20] });
        while rig.read(FR) & 0x10 == 0 {
            let c = rig.read(DR);
            rig.post(DR, c);
            if c % 3 == 0 {
                rig.write(0x44, 0x20);
            }
        }
    }
    let last = rig.read(FR);
    let (effects, state) = (std::mem::take(&mut rig.effects), rig.save());
    rig.exit();
    (effects, last, state)
}

#[test]
fn delays_change_nothing() {
    let expected = echo_session(None);
    assert!(expected.0.len() > 100 && expected.2.output_bytes == 160, "{}", expected.0.len());
    for seed in [1, 2] {
        assert!(echo_session(Some(seed)) == expected, "seed {seed}");
    }
}

#[test]
fn dma_requests_travel_in_the_sdks_layout() {
    let dir = tempfile::tempdir().unwrap();
    let toy = compile(dir.path(), Path::new("sdk/tests/c/toy.c"), "libtoy.so");
    let mut rig = Setup { plugin: &toy, kind: "c-toy", config: "()", tap: false, rtc: false, jitter: None }.rig();
    rig.ask(&Request::Reset);
    rig.effects.clear();
    rig.write(0x18, 0x100);
    let asked =
        reprise_device::dma::encode(1, &[reprise_device::device::DmaRange { addr: 0x100, len: 8 }], &[]).unwrap();
    assert_eq!(rig.effects, [format!("{:?}", Event::Dma { tag: 1, data: &asked })]);
    rig.effects.clear();
    rig.ask(&Request::DmaDone { tag: 1, data: b"12345678" });
    let write = [reprise_device::dma::Write { addr: 0x108, data: b"12345678", origin: None }];
    let asked = reprise_device::dma::encode(2, &[], &write).unwrap();
    assert_eq!(rig.effects, [format!("{:?}", Event::Dma { tag: 2, data: &asked })]);
    rig.ask(&Request::DmaDone { tag: 2, data: b"" });
    assert_eq!(rig.read(0x18), 1);
    rig.exit();
}
