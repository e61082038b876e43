//! Devices that can't come back, and processes that live and do nothing.

use nix::sys::signal::Signal;
use reprise_tests::process::{alive, children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, prefix};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use xtask::console::Console;

/// A machine file of the staged build in which a line is another.
fn machine(rig: &Rig, name: &str, from: &str, to: &str) -> PathBuf {
    let text = fs::read_to_string(prefix().join("share/reprise/configs/machines").join(name)).expect("installed");
    assert_eq!(text.matches(from).count(), 1, "{name} has {from} once");
    // Its images lie beside the folder that it is in.
    let images = prefix().join("share/reprise/configs/images");
    let path = rig.path(name);
    fs::write(&path, text.replace(from, to).replace("../images", &images.display().to_string())).expect("written");
    path
}

/// Starts a recording of the machine in this file.
fn start(rig: &Rig, mut c: Command) -> Console {
    c.arg(format!("--record={}", rig.path("r").display())).arg("--report").arg(rig.path("r.json"));
    Console::start(&mut c, false).expect("start")
}

fn hello(rig: &Rig, machine: &PathBuf) -> Command {
    let mut c = rig.supervisor();
    c.arg("--config").arg(machine).args(["--clock", "warp"]);
    c
}

/// The number of the process with this command line.
fn process(console: &Console, command: &str) -> Option<u32> {
    children(console.pid()).iter().find(|c| c.command.starts_with(command) && alive(c.pid)).map(|c| c.pid)
}

/// Sends a signal to a process, and waits until there is another in its place.
fn replaced_after(console: &Console, command: &str, what: Signal) {
    let mut old = 0;
    wait_for(command, GUARD, || {
        old = process(console, command).unwrap_or(0);
        old != 0
    });
    signal(old, what);
    wait_for("another in its place", GUARD, || process(console, command).is_some_and(|new| new != old));
}

/// It has ended well, and both kinds of replay are exact.
fn check(rig: &Rig, console: Console) -> Run {
    let ended = console.wait(LONG_GUARD).expect("the machine ends");
    let report = xtask::demo::report(&rig.path("r.json")).expect("a report");
    let run = Run { recording: rig.path("r"), ended, report }.ended(exit::OK);
    let replay = rig.replay(&run.recording, &[]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    run
}

/// Linux at its prompt, on a board whose keyboard does not come back.
fn linux_with_a_mortal_keyboard(rig: &Rig) -> Console {
    let keyboard = r#"name: "keyboard", plugin: "pl050","#;
    let file = machine(rig, "vexpress.ron", keyboard, &format!("{keyboard} restart: never,"));
    let mut c = rig.supervisor();
    let mut args = xtask::demo::linux_args(reprise_tests::guest(), xtask::demo::APPEND);
    args[1] = file.display().to_string();
    c.args(args).args(["--clock", "warp"]);
    let mut console = start(rig, c);
    console.expect("# ", LONG_GUARD).expect("Linux boots");
    console
}

/// Kills the keyboard's process; the machine is without it from then on.
fn keyboard_dies(console: &Console) {
    signal(process(console, "device-proc [keyboard]").expect("it runs"), Signal::SIGKILL);
    wait_for("a word", GUARD, || console.messages().contains("the guest finds nothing in the place of keyboard"));
}

#[test]
fn a_device_that_may_not_come_back_is_unplugged_from_a_running_linux() {
    let rig = Rig::new();
    let mut console = linux_with_a_mortal_keyboard(&rig);
    // KMIPERIPHID0 (ARM DDI 0143, 3.3.6).
    console.send("devmem 0x1c060fe0\n").expect("typed");
    console.expect("0x00000050", GUARD).expect("the keyboard's interface is there");
    console.expect("# ", GUARD).expect("a prompt");
    keyboard_dies(&console);
    let status = rig.vmctl(&["status"]);
    let all = status["devices"].as_array().expect("devices");
    let gone: Vec<_> = all.iter().filter(|d| d["gone"] == true).map(|d| d["name"].clone()).collect();
    assert_eq!(gone, ["keyboard"], "{status}");
    console.send("devmem 0x1c060fe0; devmem 0x1c060000 8 0x10; devmem 0x1c060000\n").expect("typed");
    for _ in 0..2 {
        console.expect("0x00000000", GUARD).expect("the bus answers in its place");
    }
    let swapped = rig.vmctl(&[
        "swap",
        "keyboard",
        &prefix().join("lib/reprise/plugins/libplugin_pl050.so").display().to_string(),
    ]);
    assert!(swapped["error"].as_str().is_some_and(|e| e.contains("keyboard is gone")), "{swapped}");
    console.send("poweroff -f\n").expect("typed");
    check(&rig, console);
}

/// In a replay a device comes back however often its process is killed, whatever the machine file says, and is gone where it was gone when it was recorded.
#[test]
fn a_death_in_a_replay_is_none_of_the_recorded_ones() {
    let rig = Rig::new();
    let mut console = linux_with_a_mortal_keyboard(&rig);
    // Each with much to do behind it, so that a replay can be stopped there.
    let work = "devmem 0x1c060fe0; for i in $(seq 25); do /bench/run hash; done; echo d''one\n";
    console.send(work).expect("typed");
    console.expect("0x00000050", GUARD).expect("the keyboard's interface is there");
    console.expect("done", GUARD).expect("the work is done");
    console.expect("# ", GUARD).expect("a prompt");
    keyboard_dies(&console);
    console.send(work).expect("typed");
    console.expect("0x00000000", GUARD).expect("the bus answers in its place");
    console.expect("done", GUARD).expect("the work is done");
    console.send("poweroff -f\n").expect("typed");
    let run = check(&rig, console);

    let report = rig.path("killed.json");
    let mut c = rig.supervisor();
    c.arg("replay").arg(&run.recording).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    for value in ["0x00000050", "0x00000000"] {
        console.expect(value, LONG_GUARD).expect("it gets there");
        assert_eq!(rig.vmctl(&["pause"])["answer"], "paused");
        for _ in 0..2 {
            replaced_after(&console, "device-proc [keyboard]", Signal::SIGKILL);
        }
        assert_eq!(rig.vmctl(&["resume"])["answer"], "done");
    }
    let ended = console.wait(LONG_GUARD).expect("it ends");
    let report = xtask::demo::report(&report).expect("a report");
    let replay = Run { recording: run.recording.clone(), ended, report }.exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
}

#[test]
fn without_a_bus_behind_it_a_device_that_is_gone_is_an_external_abort() {
    let rig = Rig::new();
    let sysreg = r#"name: "sysreg", plugin: "vexpress-sysreg","#;
    let file = machine(&rig, "hello.ron", sysreg, &format!("{sysreg} restart: limit(2, 3600),"));
    let mut console = start(&rig, hello(&rig, &file));
    console.expect("READY", GUARD).expect("ready");
    for _ in 0..2 {
        // Each of them gets something done between.
        console.send("m").expect("typed");
        console.expect("counter hash", GUARD).expect("it answers");
        replaced_after(&console, "device-proc [sysreg]", Signal::SIGKILL);
    }
    console.send("m").expect("typed");
    console.expect("counter hash", GUARD).expect("it answers");
    assert!(!console.messages().contains("finds nothing"), "{}", console.messages());
    signal(process(&console, "device-proc [sysreg]").expect("it runs"), Signal::SIGKILL);
    wait_for("a word", GUARD, || console.messages().contains("3 deaths within 3600 s, 2 are allowed"));
    // What stands in for it may be killed, too.
    replaced_after(&console, "device-proc [sysreg]", Signal::SIGKILL);
    // The counter that `m` reads runs on until the CPU knows.
    wait_for("the abort that nobody expects", GUARD, || {
        let _ = console.send("m");
        String::from_utf8_lossy(&console.output()).contains("PANIC")
    });
    signal(console.pid(), Signal::SIGTERM);
    check(&rig, console);
}

#[test]
fn what_is_stopped_with_work_waiting_is_replaced() {
    let rig = Rig::new();
    let mut console = start(&rig, rig.hello());
    console.expect("READY", GUARD).expect("ready");
    for victim in ["device-proc [uart0]", "log-daemon [log]"] {
        let old = process(&console, victim).expect("it runs");
        signal(old, Signal::SIGSTOP);
        // Both of them have something to do.
        console.send("l").expect("typed");
        wait_for("another in its place", GUARD, || process(&console, victim).is_some_and(|new| new != old));
        console.expect("line 199", GUARD).expect("the machine goes on");
    }
    console.send("q").expect("typed");
    let run = check(&rig, console);
    let names: Vec<_> =
        run.report["recoveries"].as_array().expect("a list").iter().map(|r| r["process"].clone()).collect();
    for name in ["uart0", "log"] {
        assert!(names.iter().any(|n| n == name), "{name} was missed for a while: {names:?}");
    }
}

#[test]
fn a_process_that_dies_while_the_machine_starts_is_replaced() {
    for victim in ["log-daemon [log]", "device-proc [uart0]"] {
        let rig = Rig::new();
        let mut console = start(&rig, rig.hello());
        let mut found = None;
        while found.is_none() && alive(console.pid()) {
            found = process(&console, victim);
        }
        signal(found.expect("it starts"), Signal::SIGKILL);
        console.expect("READY", GUARD).unwrap_or_else(|e| panic!("{victim}: {e:#}"));
        console.send("lq").expect("typed");
        check(&rig, console);
    }
}
