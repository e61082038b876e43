//! The real guest on a Cortex-A9 with its private timers, snoop control unit and PL310: recorded once and replayed. With all its cores: `smp.rs`.

use reprise_tests::{LONG_GUARD, Rig, Run, exit};
use xtask::console::Console;

#[test]
fn it_boots_finds_its_own_peripherals_and_replays() {
    let rig = Rig::new();
    let (recording, report) = (rig.path("a9"), rig.path("a9.json"));
    let mut c = rig.linux_a9("console=ttyAMA0 maxcpus=1");
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    for command in ["echo $((6 * 7))", "cat /proc/cpuinfo /proc/interrupts", "poweroff -f"] {
        console.expect("# ", LONG_GUARD).expect("a prompt");
        console.send(format!("{command}\n")).expect("typed");
    }
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    let text = run.ended.text();
    for what in [
        "ARMv7 Processor [410fc090]",
        "Machine model: V2P-CA9",
        "L2C-310 cache controller enabled, 8 ways, 512 kB",
        "Calibrating local timer... 99.",
        "VFP support v0.3: implementor 41 architecture 3 part 30 variant 9 rev 0",
        "armv7_cortex_a9 PMU driver, 7 counters available",
        "\r\n42\r\n",
        "half thumb fastmult vfp edsp thumbee neon vfpv3 tls vfpd32",
        "reboot: Power down",
    ] {
        assert!(text.contains(what), "{what:?} is not in {text}");
    }
    let twd = text.lines().find(|l| l.trim_end().ends_with(" twd")).expect("the private timer's interrupts");
    let ticks = twd.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    assert!(ticks.is_some_and(|n| n > 10), "the private timer ticks: {twd}");
    let replay = rig.replay(&run.recording, &[]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
}
