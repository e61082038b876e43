//! The real guest on a Cortex-A9 with its private timers, snoop control unit and PL310, all four cores of it: recorded once and replayed.

use reprise_tests::{LONG_GUARD, Rig, Run, exit};
use xtask::console::Console;

#[test]
fn four_cores_boot_work_and_replay() {
    let rig = Rig::new();
    let (recording, report) = (rig.path("a9"), rig.path("a9.json"));
    let mut c = rig.linux_a9("console=ttyAMA0");
    c.args(["--cpus", "4"]).arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    for command in
        ["nproc", "for i in 1 2 3 4; do echo $((i * 111)) & done; wait", "cat /proc/interrupts", "poweroff -f"]
    {
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
        "Calibrating local timer... ",
        "armv7_cortex_a9 PMU driver, 7 counters available",
        "smp: Brought up 1 node, 4 CPUs",
        "\r\n4\r\n",
        "\r\n444\r\n",
        "reboot: Power down",
    ] {
        assert!(text.contains(what), "{what:?} is not in {text}");
    }
    let twd = text.lines().find(|l| l.trim_end().ends_with(" twd")).expect("the private timer's interrupts");
    let ticks: Vec<u64> = twd.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(ticks.len() >= 4 && ticks[..4].iter().all(|n| *n > 0), "every core's private timer ticks: {twd}");
    rig.replay(&run.recording, &[]).exact(&run);
}
