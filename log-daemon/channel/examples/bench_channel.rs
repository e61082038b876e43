//! What a channel costs between two real processes: `cargo xtask bench channel`, or
//! `cargo run --release -p reprise-channel --example bench_channel [--json]`.
//!
//! The parent is cpu-proc; it starts itself again as the device and, for the tapped figures, as the log daemon.

use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use reprise_channel::{
    Abort, ChannelConfig, ChannelSegment, CloseReason, CpuPort, DevicePort, Event, Request, Role, Sent, SpinPolicy,
    TapPort, wait_many,
};

/// One measured figure, in ns.
struct Figure {
    name: &'static str,
    tap: bool,
    median: f64,
    p99: f64,
    /// What issue and design ask for, in ns; none if it is only reported.
    goal: Option<f64>,
}

const SPIN: SpinPolicy = SpinPolicy { limit: Duration::from_millis(50), only_active: false };
const READ: Request<'static> = Request::Read { offset: 0x18, size: 4 };
const POST: Request<'static> = Request::Write { offset: 0, size: 4, value: 65, posted: true };

fn main() -> ExitCode {
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["device", name, spin] => device(name, if spin == "spin" { SPIN } else { SpinPolicy::SLEEP }),
        ["tap", name] => tap(name),
        [] => return report(false),
        ["--json"] => return report(true),
        _ => {
            eprintln!("usage: bench_channel [--json]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The device's process: answers until the channel is closed.
fn device(name: &str, spin: SpinPolicy) {
    let mut port = DevicePort::attach(name, Role::Device).expect("attach as device");
    port.set_spin(spin);
    loop {
        let Ok(message) = port.next_request(&Abort::NEVER) else { return };
        let Some(message) = message else { continue };
        let (seq, synchronous) = (message.seq, message.request.is_synchronous());
        if synchronous && port.emit(seq, &Event::Reply { value: 0x90 }, &Abort::NEVER).is_err() {
            return;
        }
        if port.complete().is_err() {
            return;
        }
    }
}

/// The log daemon's process: drains in batches until the channel is closed.
fn tap(name: &str) {
    let mut port = TapPort::attach(name).expect("attach as tap");
    let mut sum = 0_u64;
    loop {
        while let Ok(Some(message)) = port.next_request() {
            sum = sum.wrapping_add(message.checksum());
        }
        while let Ok(Some(message)) = port.next_event() {
            sum = sum.wrapping_add(message.checksum());
        }
        port.commit().expect("commit");
        let abort = Abort::after(Duration::from_millis(20));
        if wait_many(&[port.on_requests(1024), port.on_events(1024)], &SpinPolicy::SLEEP, &abort).is_err() {
            std::hint::black_box(sum);
            return;
        }
    }
}

/// A channel with its other processes running; ends them when dropped.
struct Bed {
    channel: ChannelSegment,
    children: Vec<Child>,
}

impl Bed {
    fn new(tap: bool, spin: &str) -> (Self, CpuPort) {
        let name = format!("reprise-bench-{}-{}", std::process::id(), u8::from(tap));
        let config = ChannelConfig::new(0, "bench", tap);
        let channel = ChannelSegment::create(&name, &config).expect("create a channel");
        let mut cpu = CpuPort::attach(&name).expect("attach as cpu");
        let mut children = vec![start(&["device", &name, spin])];
        if tap {
            children.push(start(&["tap", &name]));
        }
        cpu.set_spin(if spin == "spin" { SPIN } else { SpinPolicy::SLEEP });
        // All are there once the first answer is.
        round_trip(&mut cpu);
        (Self { channel, children }, cpu)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.channel.close(CloseReason::Stop);
        for child in &mut self.children {
            drop(child.wait());
        }
    }
}

fn start(args: &[&str]) -> Child {
    let exe = std::env::current_exe().expect("own path");
    Command::new(exe).args(args).spawn().expect("start a process")
}

fn send(cpu: &mut CpuPort, request: &Request<'_>) -> u64 {
    match cpu.send(0, request, &Abort::NEVER).expect("send") {
        Sent::Done(seq) => seq,
        other => panic!("not sent: {other:?}"),
    }
}

fn round_trip(cpu: &mut CpuPort) {
    let seq = send(cpu, &READ);
    let reply = cpu.wait_event(&Abort::NEVER).expect("wait").expect("a reply");
    assert_eq!(reply.cause, seq);
}

/// No figure takes longer, so that a loaded machine gives a worse figure and no endless run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Up to `samples` samples, after a tenth as many to warm up.
fn sample(samples: usize, mut measure: impl FnMut() -> f64) -> (f64, f64) {
    let start = Instant::now();
    let patient = || start.elapsed() < PATIENCE;
    for _ in (0..samples / 10).take_while(|_| patient()) {
        measure();
    }
    let first = measure();
    quantiles(std::iter::once(first).chain((1..samples).take_while(|_| patient()).map(|_| measure())).collect())
}

fn quantiles(mut samples: Vec<f64>) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 2], samples[samples.len() * 99 / 100])
}

/// Round trips, `pause` apart.
fn round_trips(cpu: &mut CpuPort, samples: usize, pause: Duration) -> (f64, f64) {
    let measure = |cpu: &mut CpuPort| {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let start = Instant::now();
        round_trip(cpu);
        start.elapsed().as_nanos() as f64
    };
    sample(samples, || measure(cpu))
}

/// Posted writes to a device that is awake, in bursts that fit into the ring, so that no sample holds back-pressure.
fn posted(cpu: &mut CpuPort, samples: usize) -> (f64, f64) {
    const BURST: u32 = 256;
    let measure = |cpu: &mut CpuPort| {
        let start = Instant::now();
        for _ in 0..BURST {
            send(cpu, &POST);
        }
        let time = start.elapsed().as_nanos() as f64 / f64::from(BURST);
        round_trip(cpu);
        time
    };
    sample(samples, || measure(cpu))
}

fn measure() -> Vec<Figure> {
    let mut figures = Vec::new();
    for tap in [false, true] {
        let mut add = |name, goal, (median, p99)| figures.push(Figure { name, tap, median, p99, goal });
        {
            let (_bed, mut cpu) = Bed::new(tap, "spin");
            add("round trip, both spinning", Some(1000.0), round_trips(&mut cpu, 200_000, Duration::ZERO));
            add("posted write, device awake", Some(60.0), posted(&mut cpu, 4000));
        }
        let (_bed, mut cpu) = Bed::new(tap, "sleep");
        let pause = Duration::from_micros(200);
        add("round trip, both asleep", None, round_trips(&mut cpu, 5_000, pause));
    }
    figures
}

fn report(json: bool) -> ExitCode {
    let figures = measure();
    if json {
        let lines = figures.iter().map(|Figure { name, tap, median, p99, goal }| {
            let goal = goal.map_or("null".to_owned(), |goal| goal.to_string());
            format!(r#"{{"name":"{name}","tap":{tap},"median_ns":{median:.1},"p99_ns":{p99:.1},"goal_ns":{goal}}}"#)
        });
        println!("[{}]", lines.collect::<Vec<_>>().join(",\n "));
    } else {
        println!("{:<32} {:>5} {:>12} {:>12} {:>10}", "", "tap", "median", "p99", "goal");
        for Figure { name, tap, median, p99, goal } in &figures {
            let goal = goal.map_or("-".to_owned(), |goal| format!("{goal:.0} ns"));
            let tap = if *tap { "yes" } else { "no" };
            println!("{name:<32} {tap:>5} {median:>9.1} ns {p99:>9.1} ns {goal:>10}");
        }
    }
    ExitCode::SUCCESS
}
