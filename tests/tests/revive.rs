//! Device processes that are killed while the machine runs: nobody notices, neither the guest nor its recording.

use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_tests::process::{Child, children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, slow};
use std::process::Command;
use std::time::Duration;
use xtask::console::Console;

/// The device processes of a machine.
fn devices(supervisor: u32) -> Vec<Child> {
    children(supervisor).into_iter().filter(|c| c.name == "device-proc").collect()
}

/// Runs a machine to its end while device processes are killed at random moments, `most` of them; gives how many were.
fn disturbed(rig: &Rig, name: &str, mut c: Command, seed: u64, most: usize) -> (Run, usize) {
    let (recording, report) = (rig.path(name), rig.path(&format!("{name}.json")));
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.close_input();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut kills = 0;
    let pid = console.pid();
    while kills < most && reprise_tests::process::alive(pid) {
        std::thread::sleep(Duration::from_micros(random.random_range(0..200_000)));
        let all = devices(pid);
        if all.len() < 4 {
            // It starts, or ends.
            continue;
        }
        let victim = &all[random.random_range(0..all.len())];
        // It may be gone by itself by now.
        if nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim.pid as i32), Signal::SIGKILL).is_ok() {
            kills += 1;
        }
    }
    let ended = console.wait(LONG_GUARD).expect("the machine ends");
    let report = xtask::demo::report(&report).unwrap_or_default();
    (Run { recording, ended, report }, kills)
}

/// A console's text without the kernel's time stamps.
fn timeless(run: &Run) -> Vec<String> {
    let line = |l: &str| match l.split_once("] ") {
        Some((time, rest)) if time.starts_with('[') => rest.to_owned(),
        _ => l.to_owned(),
    };
    run.ended.text().lines().map(line).collect()
}

#[test]
fn killed_devices_change_nothing_in_a_boot() {
    let rig = Rig::new();
    let (calm, _) = disturbed(&rig, "calm", rig.linux("run=none"), 0, 0);
    let calm = calm.ended(exit::OK);
    for seed in 1..=if slow() { 10 } else { 1 } {
        let (run, kills) = disturbed(&rig, &format!("shaken{seed}"), rig.linux("run=none"), seed, 20);
        let run = run.ended(exit::OK);
        assert!(kills >= 5, "only {kills} processes were killed");
        // What a posted write does is seen a little earlier or later, so the times differ.
        assert_eq!(timeless(&run), timeless(&calm), "seed {seed}: the console shows something else");
        rig.replay(&run.recording, &[]).exact(&run);
        rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    }
}

/// Whether a process has entered its sandbox, as it does before it says that it is ready.
fn sandboxed(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|l| l.strip_prefix("Seccomp:").is_some_and(|v| v.trim() == "2"))
}

/// However often and fast a network's process is killed, it comes back: that it was killed says nothing against it.
#[test]
fn a_networks_process_comes_back_as_often_as_it_is_killed() {
    let rig = Rig::new();
    let mut c = rig.linux("");
    c.args(["--net", "eth0=user"]);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    let supervisor = console.pid();
    for n in 0..12 {
        let mut found = None;
        wait_for(&format!("backend-proc number {n}"), LONG_GUARD, || {
            found = children(supervisor).into_iter().find(|c| c.name == "backend-proc" && sandboxed(c.pid));
            found.is_some()
        });
        std::thread::sleep(Duration::from_millis(50));
        let pid = found.expect("waited for").pid;
        signal(pid, Signal::SIGKILL);
        wait_for("its end", GUARD, || !reprise_tests::process::alive(pid));
    }
    console.send("poweroff -f\n").expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    assert!(ended.status.success() && !ended.stderr.contains("without a network"), "{}", ended.stderr);
}

/// What the guest's console was given and what it has said survive its process, to the byte.
#[test]
fn a_console_that_dies_between_keys_loses_none() {
    let rig = Rig::new();
    let (recording, report) = (rig.path("keys"), rig.path("keys.json"));
    let mut c = rig.hello();
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    for key in ["h", "i", "z"] {
        for victim in devices(console.pid()) {
            signal(victim.pid, Signal::SIGKILL);
        }
        console.send(key).expect("type");
        console.expect(key, GUARD).expect("echoed");
    }
    // Two hundred long lines, and a death or two among them.
    console.send("l").expect("type");
    for _ in 0..6 {
        for victim in devices(console.pid()) {
            // It may be gone by itself, if the machine is.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim.pid as i32), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(7));
    }
    console.send("q").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    rig.replay(&run.recording, &[]).exact(&run);
}

/// Two hundred long lines, the plugin of the console replaced among them, again and again: each line comes once and whole. A plugin that is none, one of another kind
/// and one that can't take over leave the old one in service.
#[test]
fn a_plugin_is_replaced_while_the_console_talks() {
    let rig = Rig::new();
    let (recording, report) = (rig.path("swaps"), rig.path("swaps.json"));
    let mut c = rig.hello();
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    let plugins = reprise_tests::prefix().join("lib/reprise/plugins");
    let pl011 = plugins.join("libplugin_pl011.so").display().to_string();
    let other = plugins.join("libplugin_pl061.so").display().to_string();
    let none = rig.path("none.so");
    std::fs::write(&none, "no shared object").expect("written");
    for round in 0..3 {
        console.send("l").expect("type");
        let swapped = rig.vmctl(&["swap", "uart0", &pl011]);
        assert_eq!(swapped["answer"], "swapped", "round {round}: {swapped}");
        for (bad, why) in [(&other, "not a \"pl011\""), (&none.display().to_string(), "no plugin that can be loaded")] {
            let failed = rig.vmctl(&["swap", "uart0", bad]);
            let error = failed["error"].as_str().unwrap_or_default();
            assert!(failed["answer"] == "failed" && error.contains("keeps its plugin"), "{why}: {failed}");
        }
        console.expect("line 199", GUARD).expect("the last line");
    }
    let status = rig.vmctl(&["status"]);
    let uart = status["devices"].as_array().and_then(|all| all.iter().find(|d| d["name"] == "uart0")).expect("uart0");
    assert_eq!((&uart["restarts"], &uart["plugin"]), (&0.into(), &"pl011".into()), "{status}");
    console.send("q").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    let text = run.ended.text();
    for n in 0..200 {
        let line = format!("line {n}: sphinx of black quartz, judge my vow 0123456789 ABCDEFGHIJKLMNOP\r\n");
        assert_eq!(text.matches(&line).count(), 3, "line {n}");
    }
    assert!(vmctl_list(&rig).is_empty(), "no machine is left");
    let opened = reprise_recording::Recording::open(&run.recording).expect("readable");
    assert_eq!(opened.swaps().expect("readable").len(), 3, "each swap is in the recording");
    // Alongside, the device changes its plugin at the same requests; the state at the end is that of the last.
    let replay = rig.replay(&run.recording, &[]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

fn vmctl_list(rig: &Rig) -> String {
    String::from_utf8_lossy(&rig.output(rig.program("vmctl").arg("list")).stdout).into_owned()
}
