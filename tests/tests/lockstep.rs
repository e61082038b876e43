//! The compiled engine beside the interpreter on real guests: not one instruction differs.

use reprise_tests::{GUARD, LONG_GUARD, Rig, exit, slow};
use xtask::console::Console;

#[test]
fn linux_begins_alike_on_both_engines() {
    let rig = Rig::new();
    let report = rig.path("lockstep.json");
    // The long run passes the decompressor and most of the kernel's start.
    let stop = if slow() { "3000000000" } else { "30000000" };
    let mut c = rig.linux("");
    c.args(["--engine", "lockstep", "--stop-at", stop]).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.close_input();
    let ended = console.wait(LONG_GUARD).expect("it stops");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}\n{}", ended.stderr, ended.text());
    let report = xtask::demo::report(&report).expect("a report");
    assert_eq!(report["instructions"].as_u64(), stop.parse().ok(), "it gets that far");
}

#[test]
fn hello_is_recorded_in_lockstep_and_replays_on_the_interpreter() {
    let rig = Rig::new();
    let (recording, report) = (rig.path("hello"), rig.path("hello.json"));
    let mut c = rig.hello();
    c.arg(format!("--record={}", recording.display())).args(["--engine", "lockstep"]).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("hello is ready");
    console.send("echo\nq").expect("type");
    let ended = console.wait(GUARD).expect("hello ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    let report = xtask::demo::report(&report).expect("a report");
    let replay = rig.replay(&recording, &["--engine", "interp"]).ended(exit::OK);
    assert_eq!(replay.report["verdict"], "exact");
    assert_eq!(replay.report["state_hash"], report["state_hash"]);
}
