//! The `virt` board, whose device tree is made from its description and whose firmware is the machine itself: Debian's kernel and a bare-metal
//! guest, recorded and replayed.

use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, guest};
use std::fs;
use std::path::Path;
use std::process::Command;
use xtask::console::Console;

/// The board with this kernel.
fn virt(rig: &Rig, kernel: &Path, cpus: &str) -> Command {
    let mut c = rig.supervisor();
    c.args(["--config", "machines/virt.ron", "--clock", "warp", "--cpus", cpus, "--kernel"]).arg(kernel);
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

/// Boots Debian's kernel and types the commands.
fn linux(rig: &Rig, cpus: &str, more: &[&str], commands: &[&str]) -> Run {
    let mut c = virt(rig, &guest().kernel, cpus);
    c.arg("--initrd").arg(&guest().initrd).args(more);
    record(rig, "linux", c, |console| {
        console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
        for command in commands {
            console.expect("# ", LONG_GUARD).expect("a prompt");
            console.send(format!("{command}\n")).expect("typed");
        }
    })
}

fn replays(rig: &Rig, run: &Run) {
    let with_devices = rig.replay(&run.recording, &["--jitter", "1"]).exact(run);
    assert_eq!(with_devices.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only", "--jitter", "2"]).exact(run);
}

#[test]
fn debian_finds_the_board_in_its_tree_and_powers_off() {
    let rig = Rig::new();
    // No command line at all: the console is the tree's stdout-path.
    let run = linux(&rig, "1", &[], &["echo $((6 * 7))", "cat /proc/interrupts", "poweroff -f"]);
    let text = run.ended.text();
    for what in [
        "Machine model: linux,dummy-virt",
        "psci: PSCIv1.0 detected in firmware.",
        "arch_timer: cp15 timer(s) running at 62.50MHz (virt).",
        "enabled with armv7_cortex_a15 PMU driver, 7 counters available",
        "rtc-pl031 9010000.rtc: setting system clock to",
        "\r\n42\r\n",
        "reboot: Power down",
    ] {
        assert!(text.contains(what), "{what:?} is not in {text}");
    }
    assert!(run.ended.stderr.contains("the guest powered off"), "{}", run.ended.stderr);
    replays(&rig, &run);
}

#[test]
fn two_cores_go_on_and_off_and_the_machine_restarts() {
    let rig = Rig::new();
    let online = "/sys/devices/system/cpu/cpu1/online";
    let commands = [
        "nproc".to_owned(),
        format!("echo 0 > {online}; echo now $(nproc)"),
        format!("echo 1 > {online}; echo then $(nproc)"),
        "cat /proc/interrupts".to_owned(),
        "reboot -f".to_owned(),
    ];
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let run = linux(&rig, "2", &["--append", "console=ttyAMA0 quiet"], &commands);
    let text = run.ended.text();
    for what in ["\r\n2\r\n", "\r\nnow 1\r\n", "\r\nthen 2\r\n", "reboot: Restarting system"] {
        assert!(text.contains(what), "{what:?} is not in {text}");
    }
    let ticks = text.lines().find(|l| l.trim_end().ends_with("arch_timer")).expect("the timer's interrupts");
    let counts: Vec<u64> = ticks.split_whitespace().skip(1).map_while(|w| w.parse().ok()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|n| *n > 10), "both cores have a tick: {ticks}");
    assert!(run.ended.stderr.contains("the guest rebooted"), "{}", run.ended.stderr);
    replays(&rig, &run);
}

#[test]
fn all_cores_and_all_the_memory() {
    let rig = Rig::new();
    let run = linux(
        &rig,
        "4",
        &["--memory", "3G", "--append", "console=ttyAMA0 quiet"],
        &["nproc", "grep MemTotal /proc/meminfo", "poweroff -f"],
    );
    let text = run.ended.text();
    assert!(text.contains("\r\n4\r\n"), "{text}");
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).expect("the memory");
    let kib: u64 = total.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kib > 2_900_000, "{kib} KiB");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// What the firmware answers a machine with so many cores, in the order of the program.
fn expected(cpus: u32) -> Vec<String> {
    let mut lines: Vec<String> = [
        "r0 00000000",
        "device tree edfe0dd0",
        "version 00010000",
        "migrate 00000002",
        "features on 00000000",
        "features on64 ffffffff",
        "unknown ffffffff",
        "slot magic 74726976",
        "slot version 00000002",
        "slot device 00000000",
    ]
    .map(str::to_owned)
    .into();
    match cpus {
        1 => lines.extend(["core 1 fffffffe", "on fffffffe"].map(str::to_owned)),
        _ => {
            for context in [2, 1] {
                lines.extend(["core 1 00000001", "on 00000000", "on again fffffffc"].map(str::to_owned));
                lines.push(format!("context 0000000{context}"));
                lines.extend(["mpidr 80000001", "cpsr 600001d3", "tpidr 00000000"].map(str::to_owned));
            }
        }
    }
    lines.extend(["no such core fffffffe", "READY 00000000"].map(str::to_owned));
    lines
}

fn lines(run: &Run) -> Vec<String> {
    run.ended.text().lines().map(|l| l.trim_end().to_owned()).collect()
}

#[test]
fn a_bare_metal_guest_asks_the_firmware() {
    let rig = Rig::new();
    let keys = |end: &'static str| {
        move |console: &mut Console| {
            console.expect("READY", GUARD).expect("ready");
            console.send("xs").expect("typed");
            console.expect("ticks", GUARD).expect("it wakes");
            console.send(end).expect("typed");
        }
    };
    let engines = if cfg!(target_arch = "x86_64") { &["interp", "jit", "lockstep"][..] } else { &["interp"] };
    for engine in engines {
        let mut c = virt(&rig, &xtask::hello::psci_image(), "2");
        c.args(["--engine", engine]);
        let run = record(&rig, engine, c, keys("q"));
        let said = lines(&run);
        assert_eq!(said[..expected(2).len()], expected(2), "{engine}");
        assert_eq!(said[expected(2).len()..][..2], ["key 00000078", "suspended 00000000"], "{engine}");
        let ticks = said[expected(2).len() + 2].strip_prefix("ticks ").expect("how long it slept");
        assert!(
            u32::from_str_radix(ticks, 16).is_ok_and(|n| n >= 62_500),
            "{engine}: at least the millisecond: {ticks}"
        );
        replays(&rig, &run);
    }
    let run = record(&rig, "one", virt(&rig, &xtask::hello::psci_image(), "1"), keys("r"));
    assert_eq!(lines(&run)[..expected(1).len()], expected(1));
    assert!(run.ended.stderr.contains("the guest rebooted"), "{}", run.ended.stderr);
    replays(&rig, &run);
}

#[test]
fn code_without_a_header_is_a_kernel_too() {
    let rig = Rig::new();
    let elf = fs::read(xtask::hello::psci_image()).expect("the image");
    let (_, code) = xtask::hello::segment(&elf).expect("ELF");
    let flat = rig.path("flat");
    fs::write(&flat, code).expect("written");
    let run = record(&rig, "flat-run", virt(&rig, &flat, "2"), |console| {
        console.expect("READY", GUARD).expect("ready");
        console.send("q").expect("typed");
    });
    assert_eq!(lines(&run)[..expected(2).len()], expected(2), "it runs wherever it is put");
}

#[test]
fn the_embedded_image_is_what_the_source_says() {
    let rig = Rig::new();
    let out = rig.path("psci.elf");
    xtask::hello::build_psci(&out).expect("it assembles");
    let (made, kept) = (fs::read(out).expect("made"), fs::read(xtask::hello::psci_image()).expect("kept"));
    let segment = |elf| xtask::hello::segment(elf).map(|(at, bytes)| (at, bytes.to_vec())).expect("ELF");
    assert_eq!(segment(&made), segment(&kept), "run `cargo xtask hello`");
}

#[test]
fn the_tree_can_be_looked_at() {
    let rig = Rig::new();
    let dump = |name: &str| {
        let mut c = virt(&rig, &xtask::hello::psci_image(), "2");
        let out = rig.output(c.arg("--dump-dtb").arg(rig.path(name)));
        assert_eq!(out.status.code(), Some(exit::OK), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stdout.is_empty(), "nothing runs");
        fs::read(rig.path(name)).expect("written")
    };
    let text = String::from_utf8(dump("virt.dts")).expect("text");
    for what in ["/dts-v1/;", "cpu@1 {", "enable-method = \"psci\";", "stdout-path = \"/serial@9000000\";"] {
        assert!(text.contains(what), "{what} is not in {text}");
    }
    let blob = dump("virt.dtb");
    assert_eq!(blob[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    assert_eq!(u32::from_be_bytes(blob[4..8].try_into().expect("four")) as usize, blob.len());
    let mut c = rig.hello();
    let out = rig.output(c.arg("--dump-dtb").arg(rig.path("none.dtb")));
    assert_eq!(out.status.code(), Some(exit::USAGE), "a bare-metal machine has no tree");
}

/// A device tree of a board with more cores than the machine has: a kernel takes what there is, without `maxcpus`.
#[test]
fn a_given_tree_is_cut_down_to_the_cores_that_there_are() {
    let rig = Rig::new();
    let mut c = rig.supervisor();
    c.args(["--config", "machines/vexpress.ron", "--clock", "warp", "--append", "console=ttyAMA0"]);
    for (flag, path) in [("--kernel", &guest().kernel), ("--dtb", &guest().dtb), ("--initrd", &guest().initrd)] {
        c.arg(flag).arg(path);
    }
    let run = record(&rig, "one", c, |console| {
        console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
        for command in ["cat /sys/devices/system/cpu/possible", "poweroff -f"] {
            console.expect("# ", LONG_GUARD).expect("a prompt");
            console.send(format!("{command}\n")).expect("typed");
        }
    });
    let text = run.ended.text();
    assert!(text.contains("\r\n0\r\n"), "one core is possible: {text}");
    assert!(text.contains("armv7_cortex_a15 PMU driver"), "the performance monitors work: {text}");
    assert!(!text.contains("failed to come online"), "{text}");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}
