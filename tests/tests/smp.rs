//! Machines with several cores: they work, and a replay is the same to the instruction, whatever the host's timing and the engine.

use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, guest};
use std::process::Command;
use std::time::Duration;
use xtask::console::Console;

/// The bare-metal guest on `cpus` cores.
fn bare(rig: &Rig, cpus: &str) -> Command {
    let mut c = rig.supervisor();
    c.args(["--config", "machines/smp.ron", "--clock", "warp", "--cpus", cpus]);
    c
}

/// Records `command`; `session` is the user.
fn record(rig: &Rig, name: &str, mut command: Command, session: impl FnOnce(&mut Console)) -> Run {
    let (recording, report) = (rig.path(name), rig.path(&format!("{name}.json")));
    command.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut command, false).expect("start");
    session(&mut console);
    let ended = console.wait(LONG_GUARD).expect("it ends");
    let report = xtask::demo::report(&report).expect("a report");
    Run { recording, ended, report }.ended(exit::OK)
}

/// Keys at odd times: while the other cores are at work, asleep, or just woken.
fn keys(console: &mut Console) {
    console.expect("READY", GUARD).expect("ready");
    for (i, key) in "abcdefgh".bytes().enumerate() {
        console.send([key]).expect("type");
        std::thread::sleep(Duration::from_millis(i as u64 % 4 * 2));
    }
    console.send("q").expect("type");
}

#[test]
fn cores_count_together_and_talk_to_each_other() {
    let rig = Rig::new();
    for (cpus, sums) in [
        ("1", "cores 1 atomic 5000 locked 2000"),
        ("2", "cores 2 atomic 10000 locked 4000"),
        ("4", "cores 4 atomic 20000 locked 8000"),
    ] {
        let run = record(&rig, &format!("n{cpus}"), bare(&rig, cpus), |console| {
            console.expect("READY", GUARD).expect("ready");
            console.send("q").expect("type");
        });
        let text = run.ended.text();
        assert!(text.contains(sums), "{text}");
        let tokens = vec!["50"; cpus.parse().unwrap()].join(" ");
        assert!(text.contains(&format!("tokens {tokens} cycles")), "{text}");
    }
}

#[test]
fn replays_are_exact_under_any_timing_and_engine() {
    let rig = Rig::new();
    for cpus in ["2", "3", "4"] {
        let run = record(&rig, &format!("n{cpus}"), bare(&rig, cpus), keys);
        assert_eq!(run.ended.text().matches("key ").count(), 8, "{}", run.ended.text());
        let verified = rig.replay(&run.recording, &[]).exact(&run);
        assert_eq!(verified.report["device_hash"], run.report["device_hash"]);
        rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
        for seed in ["1", "2", "3"] {
            rig.replay(&run.recording, &["--jitter", seed]).exact(&run);
            rig.replay(&run.recording, &["--cpu-only", "--jitter", seed]).exact(&run);
        }
        #[cfg(target_arch = "x86_64")]
        for engine in ["jit", "lockstep"] {
            rig.replay(&run.recording, &["--cpu-only", "--engine", engine]).exact(&run);
        }
    }
}

#[test]
fn jitter_while_recording_changes_no_replay() {
    let rig = Rig::new();
    for seed in ["1", "2", "3"] {
        let mut c = bare(&rig, "2");
        c.args(["--jitter", seed]);
        #[cfg(target_arch = "x86_64")]
        c.args(["--engine", "jit"]);
        let run = record(&rig, &format!("r{seed}"), c, keys);
        rig.replay(&run.recording, &[]).exact(&run);
        rig.replay(&run.recording, &["--cpu-only", "--jitter", seed]).exact(&run);
    }
}

#[test]
fn a_length_of_the_turns_is_part_of_the_machine() {
    let rig = Rig::new();
    let original = std::fs::read_to_string(reprise_tests::prefix().join("share/reprise/configs/machines/smp.ron"));
    let image = reprise_tests::prefix().join("share/reprise/configs/images/smp.elf");
    let text = original.expect("installed").replace("../images/smp.elf", &image.display().to_string());
    let mut orders = std::collections::BTreeSet::new();
    for quantum in ["256", "1000", "8192"] {
        let config = rig.path(&format!("{quantum}.ron"));
        std::fs::write(&config, text.replace("count: 2", &format!("count: 2, quantum: {quantum}"))).expect("written");
        let mut c = rig.supervisor();
        c.arg("--config").arg(&config).args(["--clock", "warp"]);
        let run = record(&rig, &format!("q{quantum}"), c, keys);
        assert!(run.ended.text().contains("cores 2 atomic 10000 locked 4000"), "{}", run.ended.text());
        orders.insert(run.ended.text().lines().find(|l| l.contains("order")).map(str::to_owned));
        // The replay needs no flag: the recording knows.
        rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    }
    assert_eq!(orders.len(), 3, "the cores ran in another order each time: {orders:?}");
}

/// Debian's kernel on several cores: `nproc` and its own view of them.
fn linux(machine: &str, dtb: &str, cpus: &str, timer: &str) {
    let (rig, guest) = (Rig::new(), guest());
    let mut c = rig.supervisor();
    c.args(["--config", machine, "--cpus", cpus, "--clock", "warp", "--append", "console=ttyAMA0 quiet"]);
    for (flag, path) in [("--kernel", &guest.kernel), ("--dtb", &guest.dir.join(dtb)), ("--initrd", &guest.initrd)] {
        c.arg(flag).arg(path);
    }
    #[cfg(target_arch = "x86_64")]
    c.args(["--engine", "jit"]);
    let run = record(&rig, "boot", c, |console| {
        console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
        for command in
            ["nproc", "cat /proc/interrupts", "echo all $( (nproc & nproc & nproc; wait) | tr -d '\\n')", "poweroff -f"]
        {
            console.expect("# ", LONG_GUARD).expect("a prompt");
            console.send(format!("{command}\n")).expect("typed");
        }
    });
    let text = run.ended.text();
    assert!(text.contains(&format!("\r\n{cpus}\r\n")), "nproc: {text}");
    assert!(text.contains(&format!("\r\nall {cpus}{cpus}{cpus}\r\n")), "processes on all cores: {text}");
    let ticks = text.lines().find(|l| l.contains("GIC") && l.trim_end().ends_with(timer));
    let ticks = ticks.unwrap_or_else(|| panic!("no {timer}: {text}"));
    let counts: Vec<u64> = ticks.split_whitespace().skip(1).map_while(|w| w.parse().ok()).collect();
    assert_eq!(counts.len().to_string(), cpus, "{ticks}");
    assert!(counts.iter().all(|n| *n > 10), "every core has its own tick: {ticks}");
    assert!(text.contains("reboot: Power down"), "{text}");
    rig.replay(&run.recording, &["--jitter", "1"]).exact(&run);
    #[cfg(target_arch = "x86_64")]
    rig.replay(&run.recording, &["--cpu-only", "--engine", "jit", "--jitter", "2"]).exact(&run);
}

#[test]
fn debian_on_two_cortex_a15() {
    linux("machines/vexpress.ron", "vexpress-v2p-ca15-tc1.dtb", "2", "arch_timer");
}

#[test]
fn debian_on_four_cortex_a9() {
    linux("machines/vexpress-a9.ron", "vexpress-v2p-ca9.dtb", "4", "twd");
}
