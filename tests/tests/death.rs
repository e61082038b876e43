//! Processes that die, and ends that are asked for: always clean, nothing left behind.

use nix::sys::signal::Signal;
use reprise_tests::process::{alive, children, segments, signal, wait_for};
use reprise_tests::{GUARD, Rig, exit};
use std::fs;
use std::path::Path;
use xtask::console::Console;

/// A recording hello that waits for keys.
fn waiting(rig: &Rig, name: &str) -> Console {
    let mut c = rig.hello();
    c.arg(format!("--record={}", rig.path(name).display())).arg("--report").arg(rig.path(&format!("{name}.json")));
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    console.send("ab").expect("type");
    console.expect("busy ", GUARD).expect("busy");
    console
}

/// Segments of the machines whose lock files lie in this rig's runtime folder.
fn own_segments(rig: &Rig) -> Vec<String> {
    let uuids: Vec<String> = locks(rig);
    segments().into_iter().filter(|s| uuids.iter().any(|u| s.contains(u.as_str()))).collect()
}

fn locks(rig: &Rig) -> Vec<String> {
    let dir = rig.path("run/reprise");
    let Ok(d) = fs::read_dir(dir) else { return Vec::new() };
    d.flatten().filter_map(|e| e.file_name().to_string_lossy().strip_suffix(".lock").map(str::to_owned)).collect()
}

/// The recording is good as far as it goes.
fn readable(rig: &Rig, recording: &Path) {
    let out = rig.output(rig.program("reprise-log").arg("info").arg(recording));
    assert!(out.status.success(), "the recording is readable: {}", String::from_utf8_lossy(&out.stderr));
    let run = rig.replay(recording, &["--cpu-only"]).ended(exit::OK);
    assert!(run.report["instructions"].as_u64().is_some());
}

#[test]
fn each_process_is_its_own_and_gone_at_the_end() {
    let rig = Rig::new();
    let mut console = waiting(&rig, "r");
    let kids = children(console.pid());
    let count = |n: &str| kids.iter().filter(|k| k.name == n).count();
    assert_eq!((count("cpu-proc"), count("log-daemon"), count("device-proc")), (1, 1, 2), "{kids:?}");
    assert!(!own_segments(&rig).is_empty(), "channels live in shared memory");
    let uuids = locks(&rig);
    console.send("q").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    assert!(kids.iter().all(|k| !alive(k.pid)), "no child is left");
    assert!(segments().iter().all(|s| uuids.iter().all(|u| !s.contains(u.as_str()))), "no segment is left");
    assert!(locks(&rig).is_empty(), "no lock file is left");
}

#[test]
fn a_killed_child_ends_the_machine_with_a_message() {
    // The death of a device's process or a log-daemon is nobody's business: see also `daemon.rs`.
    let victim = "cpu-proc";
    let rig = Rig::new();
    let console = waiting(&rig, "r");
    let kids = children(console.pid());
    let child = kids.iter().rev().find(|k| k.name == victim).unwrap_or_else(|| panic!("{victim} runs: {kids:?}"));
    signal(child.pid, Signal::SIGKILL);
    let ended = console.wait(GUARD).expect("the machine ends");
    assert_eq!(ended.status.code(), Some(exit::CHILD), "{victim}: {}", ended.stderr);
    assert!(ended.stderr.contains("died") || ended.stderr.contains("killed"), "{victim}: {}", ended.stderr);
    assert!(kids.iter().all(|k| !alive(k.pid)), "{victim}: no child is left");
    assert!(own_segments(&rig).is_empty(), "{victim}: no segment is left");
    readable(&rig, &rig.path("r"));
}

#[test]
fn a_killed_supervisor_takes_its_children_along() {
    let rig = Rig::new();
    let console = waiting(&rig, "r");
    let kids = children(console.pid());
    let uuids = locks(&rig);
    assert!(!kids.is_empty() && !uuids.is_empty());
    signal(console.pid(), Signal::SIGKILL);
    wait_for("the children to go", GUARD, || kids.iter().all(|k| !alive(k.pid)));
    drop(console);
    // The next start sweeps what the dead one left.
    let run = rig.record_hello("next", "q");
    assert_eq!(run.field("verdict"), "recorded");
    assert!(
        segments().iter().all(|s| uuids.iter().all(|u| !s.contains(u.as_str()))),
        "no segment is left after the next start"
    );
    assert!(locks(&rig).is_empty(), "no lock file is left after the next start");
    readable(&rig, &rig.path("r"));
}

#[test]
fn signals_end_the_machine_cleanly() {
    for s in [Signal::SIGTERM, Signal::SIGINT] {
        let rig = Rig::new();
        let console = waiting(&rig, "r");
        let kids = children(console.pid());
        signal(console.pid(), s);
        let ended = console.wait(GUARD).expect("the machine ends");
        assert_eq!(ended.status.code(), Some(exit::OK), "{s}: {}", ended.stderr);
        assert!(kids.iter().all(|k| !alive(k.pid)), "{s}: no child is left");
        let report = xtask::demo::report(&rig.path("r.json")).expect("a report");
        assert_eq!(report["verdict"], "recorded");
        let run = rig.replay(&rig.path("r"), &[]).ended(exit::OK);
        assert_eq!(run.report["instructions"], report["instructions"], "{s}: the recording is complete");
        assert_eq!(run.report["state_hash"], report["state_hash"], "{s}");
        assert_eq!(run.ended.stdout, ended.stdout, "{s}");
    }
}

#[test]
fn a_running_recording_is_readable() {
    let rig = Rig::new();
    let mut console = waiting(&rig, "r");
    let out = rig.output(rig.program("reprise-log").arg("info").arg(rig.path("r")));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    console.send("q").expect("type");
    assert_eq!(console.wait(GUARD).expect("ends").status.code(), Some(exit::OK));
}
