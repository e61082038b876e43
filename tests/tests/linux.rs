//! The real guest: an unmodified Debian kernel, recorded once, and what replays make of it.

use reprise_tests::{LONG_GUARD, Rig, Run, exit, slow};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use xtask::console::Console;

/// Boots, asks the guest for its own view of the world, powers off. Recorded once for all tests of this file.
fn recorded() -> &'static (Rig, Run) {
    static RUN: OnceLock<(Rig, Run)> = OnceLock::new();
    RUN.get_or_init(|| {
        let rig = Rig::new();
        let recording = rig.path("boot");
        let report = rig.path("boot.json");
        let mut c = rig.linux("");
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
        for command in ["/bench/run view", "echo $((6 * 7))", "poweroff -f"] {
            console.expect("# ", LONG_GUARD).expect("a prompt");
            console.send(format!("{command}\n")).expect("typed");
        }
        let ended = console.wait(LONG_GUARD).expect("it powers off");
        let report = xtask::demo::report(&report).expect("a report");
        (rig, Run { recording, ended, report }.ended(exit::OK))
    })
}

#[test]
fn it_boots_to_a_shell_that_works() {
    let (_, run) = recorded();
    let text = run.ended.text();
    assert!(text.contains("GUEST READY 6.") || text.contains("GUEST READY "), "{text}");
    assert!(text.contains("\r\n42\r\n"), "the shell computes: {text}");
    assert!(text.contains("uart-pl011") && text.contains("arch_timer"), "the drivers have bound: {text}");
    assert!(text.contains("reboot: Power down"), "{text}");
    assert_eq!(run.field("verdict"), "recorded");
}

#[test]
fn the_replay_with_devices_is_exact() {
    let (rig, run) = recorded();
    let replay = rig.replay(&run.recording, &[]).exact(run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
}

#[test]
fn the_replay_without_devices_is_exact() {
    let (rig, run) = recorded();
    // The guest's own view - date, uptime, interrupt counts, random numbers - is part of the console that `exact` compares.
    rig.replay(&run.recording, &["--cpu-only"]).exact(run);
}

/// The engines are one machine: what the default one has recorded, the interpreter replays, and the reverse.
#[test]
fn a_recording_of_one_engine_replays_in_the_other() {
    let (rig, run) = recorded();
    rig.replay(&run.recording, &["--cpu-only", "--engine", "interp"]).exact(run);

    let rig = Rig::new();
    let (recording, report) = (rig.path("interp"), rig.path("interp.json"));
    let mut c = rig.linux("run=none");
    c.args(["--engine", "interp"]).arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let ended = Console::start(&mut c, false).and_then(|c| c.wait(LONG_GUARD)).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    assert_eq!(run.field("engine"), "interp");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// The kernel with long descriptors: boots to the same shell, and its replay is exact.
#[test]
fn the_lpae_kernel_boots_and_replays_exactly() {
    let rig = Rig::new();
    let report = rig.path("lpae.json");
    let mut c = rig.linux_lpae("");
    c.arg(format!("--record={}", rig.path("lpae").display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    for command in ["uname -r; grep -o lpae /proc/cpuinfo", "poweroff -f"] {
        console.expect("# ", LONG_GUARD).expect("a prompt");
        console.send(format!("{command}\n")).expect("typed");
    }
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording: rig.path("lpae"), ended, report }.ended(exit::OK);
    let text = run.ended.text();
    assert!(text.contains("-lpae\r\nlpae\r\n"), "it is that kernel, and it knows its CPU: {text}");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// Something that keeps both cores busy until it is dropped.
struct Load(Vec<std::process::Child>);

impl Load {
    fn start() -> Self {
        let spin =
            || Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().expect("a shell");
        Self((0..3).map(|_| spin()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for c in &mut self.0 {
            let _ = c.kill();
            let _ = c.wait();
        }
    }
}

/// How far the cut boots go: well into the kernel, with timers, interrupts and the UART at work. The first two thousand million instructions
/// are the zImage's decompressor, where nothing of that happens.
const CUT: &str = "2600000000";

#[test]
fn load_and_jitter_change_no_replay_of_a_cut_boot() {
    let rig = Rig::new();
    let record = |name: &str, extra: &[&str]| {
        let report = rig.path(&format!("{name}.json"));
        let mut c = rig.linux("");
        c.arg(format!("--record={}", rig.path(name).display()))
            .args(["--stop-at", CUT])
            .args(extra)
            .arg("--report")
            .arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.close_input();
        let ended = console.wait(LONG_GUARD).expect("it stops");
        Run { recording: rig.path(name), ended, report: xtask::demo::report(&report).expect("a report") }
            .ended(exit::OK)
    };
    let calm = record("calm", &[]);
    assert_eq!(calm.report["instructions"].as_u64(), CUT.parse().ok(), "it stops at that very instruction");
    let _load = Load::start();
    rig.replay(&calm.recording, &["--jitter", "1"]).exact(&calm);
    // Without input, a second recording is the same machine again: the log holds nothing that the host's timing decides.
    let shaken = record("shaken", &["--jitter", "2"]);
    assert_eq!(shaken.report["instructions"], calm.report["instructions"]);
    rig.replay(&shaken.recording, &["--cpu-only", "--jitter", "3"]).exact(&shaken);
}

#[test]
fn twenty_full_replays_under_load_and_jitter() {
    if !slow() {
        return;
    }
    let (rig, run) = recorded();
    let _load = Load::start();
    for seed in 1..=20 {
        let seed = seed.to_string();
        let args: &[&str] = if seed.len() % 2 == 0 { &["--jitter", &seed, "--cpu-only"] } else { &["--jitter", &seed] };
        rig.replay(&run.recording, args).exact(run);
    }
}

#[test]
fn a_key_during_boot_is_in_the_replay() {
    let rig = Rig::new();
    let report = rig.path("typed.json");
    let mut c = rig.linux("");
    c.arg(format!("--record={}", rig.path("typed").display()))
        .args(["--stop-at", "3600000000", "--report"])
        .arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.send("hello from the host\n").expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it stops");
    let run = Run { recording: rig.path("typed"), ended, report: xtask::demo::report(&report).expect("a report") }
        .ended(exit::OK);
    assert!(run.ended.text().contains("hello from the host"), "the guest's terminal echoes it: {}", run.ended.text());
    rig.replay(&run.recording, &[]).exact(&run);
}
