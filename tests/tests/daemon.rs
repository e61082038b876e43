//! A log-daemon that is killed is replaced: the machine does not notice, and the recording has no gap.

use nix::sys::signal::Signal;
use reprise_tests::process::{alive, children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit};
use std::process::Command;
use xtask::console::Console;

/// The process number of the machine's log-daemon.
fn daemon(console: &Console) -> Option<u32> {
    children(console.pid()).iter().find(|c| c.name == "log-daemon" && alive(c.pid)).map(|c| c.pid)
}

/// Kills the log-daemon, and waits for the next one.
fn kill(console: &Console) {
    let mut old = 0;
    wait_for("a log-daemon", GUARD, || {
        old = daemon(console).unwrap_or(0);
        old != 0
    });
    signal(old, Signal::SIGKILL);
    wait_for("another log-daemon", GUARD, || daemon(console).is_some_and(|new| new != old));
}

fn started(rig: &Rig, mut c: Command) -> Console {
    c.arg(format!("--record={}", rig.path("r").display())).arg("--report").arg(rig.path("r.json"));
    Console::start(&mut c, false).expect("start")
}

/// The recording is whole, and both kinds of replay are exact.
fn check(rig: &Rig, console: Console) {
    let ended = console.wait(LONG_GUARD).expect("the machine ends");
    let report = xtask::demo::report(&rig.path("r.json")).expect("a report");
    let run = Run { recording: rig.path("r"), ended, report }.ended(exit::OK);
    assert_eq!(run.field("verdict"), "recorded");
    assert!(!run.ended.stderr.contains("log"), "nobody notices: {}", run.ended.stderr);
    let out = rig.output(rig.program("reprise-log").arg("verify").arg(&run.recording));
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    let replay = rig.replay(&run.recording, &[]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
}

#[test]
fn killed_while_a_guest_talks_nothing_is_missing() {
    let rig = Rig::new();
    let mut console = started(&rig, rig.hello());
    console.expect("READY", GUARD).expect("hello is ready");
    for keys in ["abl", "bl", "mlw", "lb", "lll"] {
        console.send(keys).expect("type");
        kill(&console);
    }
    console.send("lq").expect("type");
    check(&rig, console);
}

#[test]
fn killed_ten_times_during_a_boot_the_replay_is_exact() {
    let rig = Rig::new();
    let mut console = started(&rig, rig.linux(""));
    // From its very start.
    for _ in 0..10 {
        kill(&console);
        // Let it take something, or not, before the next death.
        std::thread::sleep(std::time::Duration::from_millis(70));
    }
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.expect("# ", LONG_GUARD).expect("a prompt");
    kill(&console);
    console.send("echo $((6 * 7)); poweroff -f\n").expect("typed");
    check(&rig, console);
}
