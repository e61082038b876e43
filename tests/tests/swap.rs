//! Newer plugins that take the place of older ones under load: no byte is lost, and replays are exact. The newer ones (`tests/plugins`) lay out their state in another way, and
//! read the older.

use nix::sys::signal::Signal;
use reprise_tests::process::{alive, children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, newer_plugin};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use xtask::console::Console;

/// Starts a recording, with a prompt at its end.
fn start(rig: &Rig, mut c: Command) -> Console {
    c.arg(format!("--record={}", rig.path("r").display())).arg("--report").arg(rig.path("r.json"));
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.expect("# ", LONG_GUARD).expect("a prompt");
    console
}

/// Replaces a plugin; the first request that the new one serves, and the pause in microseconds.
fn swap(rig: &Rig, device: &str, plugin: &Path) -> (u64, u64) {
    let answer = rig.vmctl(&["swap", device, &plugin.display().to_string()]);
    assert_eq!((&answer["answer"], &answer["version"]), (&Value::from("swapped"), &Value::from("2")), "{answer}");
    let number = |key: &str| answer[key].as_u64().unwrap_or_else(|| panic!("no {key} in {answer}"));
    (number("request"), number("pause_us"))
}

/// Ends the machine; both kinds of replay are exact, with so many swaps.
fn finish(rig: &Rig, mut console: Console, swaps: usize) -> Run {
    console.send("poweroff -f\n").expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&rig.path("r.json")).expect("a report");
    let run = Run { recording: rig.path("r"), ended, report }.ended(exit::OK);
    let recording = reprise_recording::Recording::open(&run.recording).expect("readable");
    assert_eq!(recording.swaps().expect("readable").len(), swaps, "each swap is in the recording");
    let replay = rig.replay(&run.recording, &[]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    run
}

/// What stands between two marks in a text, for the nth time.
fn between<'a>(text: &'a str, from: &str, to: &str, n: usize) -> &'a str {
    text.split(from)
        .nth(n)
        .unwrap_or_else(|| panic!("{from} comes {n} times"))
        .split(to)
        .next()
        .expect("the first part")
}

#[test]
fn a_newer_uart_takes_over_in_the_middle_of_300_kilobytes() {
    let rig = Rig::new();
    let newer = newer_plugin("pl011");
    let mut console = start(&rig, rig.linux(""));
    let (mut pauses, mut requests) = (Vec::new(), BTreeSet::new());
    let show = "/bench/run console; ";
    // Once left alone, then four times, as it takes less time than three swaps.
    for (times, swaps) in [(1, 0), (4, 3)] {
        console.send(format!("{}echo ALL''DONE\n", show.repeat(times))).expect("typed");
        console.expect("CONSOLE-BEGIN", LONG_GUARD).expect("it begins");
        for n in 0..swaps {
            console.expect(&format!("line {} ", 1000 * (n + 1)), LONG_GUARD).expect("it goes on");
            let (request, pause) = swap(&rig, "uart0", &newer);
            pauses.push(pause);
            requests.insert(request);
        }
        console.expect("ALLDONE", LONG_GUARD).expect("it ends");
        console.expect("# ", LONG_GUARD).expect("a prompt");
    }
    // Between two that begin with the same request nothing was asked, and a recording holds one of them.
    assert!(requests.len() >= 2, "in the middle: {requests:?}");
    // The older plugin does not know the newer state: it is refused, and the newer one goes on.
    let older = reprise_tests::prefix().join("lib/reprise/plugins/libplugin_pl011.so");
    let refused = rig.vmctl(&["swap", "uart0", &older.display().to_string()]);
    let error = refused["error"].as_str().unwrap_or_default();
    assert!(refused["answer"] == "failed" && error.contains("uart0 keeps its plugin"), "{refused}");
    let run = finish(&rig, console, requests.len());
    let text = run.ended.text();
    let shown = |n| between(&text, "CONSOLE-BEGIN\r\n", "CONSOLE-END", n);
    assert_eq!(shown(1).replace('\r', "").len(), 300 << 10, "300 KB and no less");
    assert!((2..=5).all(|n| shown(n) == shown(1)), "no byte is lost, doubled or changed");
    println!("pauses of uart0 in us: {pauses:?}");
}

/// A device gets another configuration with a plugin: it has it from that request on, its successors have it, and so have replays. One that the plugin refuses changes nothing.
#[test]
fn a_device_gets_another_configuration() {
    let rig = Rig::new();
    let plugin = reprise_tests::prefix().join("lib/reprise/plugins/libplugin_pl011.so").display().to_string();
    let mut console = start(&rig, rig.linux(""));
    let refused = rig.vmctl(&["swap", "uart0", &plugin, "--config", "(clock_hz: 0)"]);
    let error = refused["error"].as_str().unwrap_or_default();
    assert!(refused["answer"] == "failed" && error.contains("clock_hz: 0 is not in 1..=1000000000"), "{refused}");
    // A slower clock: what is typed is reported after a longer silence on the line.
    for (round, config) in [(0, Some("(clock_hz: 1200000)")), (1, None), (2, Some("(clock_hz: 2400000)"))] {
        let with = config.map_or(vec![], |c| vec!["--config", c]);
        let swapped = rig.vmctl(&[&["swap", "uart0", &plugin], &with[..]].concat());
        assert_eq!(swapped["answer"], "swapped", "{swapped}");
        for half in 0..2 {
            console.send(format!("echo r''ound {round} {half}\n")).expect("typed");
            console.expect(&format!("round {round} {half}"), GUARD).expect("the shell answers");
            console.expect("# ", GUARD).expect("a prompt");
            // Its successor has the same.
            let uart = || children(console.pid()).into_iter().find(|c| c.command.starts_with("device-proc [uart0]"));
            let old = uart().expect("it runs").pid;
            signal(old, Signal::SIGKILL);
            wait_for("a successor", GUARD, || uart().is_some_and(|c| c.pid != old && alive(c.pid)));
        }
    }
    let run = finish(&rig, console, 3);
    let recording = reprise_recording::Recording::open(&run.recording).expect("readable");
    let configs: Vec<_> = recording.swaps().expect("readable").into_iter().map(|s| s.config).collect();
    assert_eq!(configs, [Some("(clock_hz: 1200000)".into()), None, Some("(clock_hz: 2400000)".into())]);
}

#[test]
fn a_newer_disk_takes_over_in_the_middle_of_a_copy() {
    let rig = Rig::new();
    let newer = newer_plugin("virtio-blk");
    let image = rig.path("disk.img");
    std::fs::write(&image, vec![0x5a; 16 << 20]).expect("written");
    let mut c = rig.linux_virtio("");
    c.arg("--disk").arg(format!("blk0={},format=raw,snapshot=on", image.display()));
    let mut console = start(&rig, c);
    console.send("/bench/run disk-rw; echo WORK''DONE rc=$?\n").expect("typed");
    let (mut pauses, mut requests) = (Vec::new(), BTreeSet::new());
    while !String::from_utf8_lossy(&console.output()).contains("WORKDONE") && pauses.len() < 40 {
        let (request, pause) = swap(&rig, "blk0", &newer);
        pauses.push(pause);
        requests.insert(request);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    console.expect("WORKDONE rc=0", LONG_GUARD).expect("it is done");
    assert!(requests.len() >= 3, "the work is long enough: {requests:?}");
    let run = finish(&rig, console, requests.len());
    let text = run.ended.text();
    let sums: Vec<&str> = text.lines().filter_map(|l| Some(l.trim().split_once("  m/")?.0)).collect();
    assert!(
        sums.len() == 4 && sums.iter().all(|s| *s == sums[0]),
        "the copy is whole, and is so after the disk was unmounted: {text}"
    );
    println!("pauses of blk0 in us: {pauses:?}");
}
