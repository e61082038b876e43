//! The SD card under the kernel's own driver.

use nix::sys::signal::Signal;
use reprise_tests::process::{children, signal};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, md5};
use std::path::Path;
use std::process::Command;
use xtask::console::Console;

/// A machine with a card in its slot.
fn with_card(mut c: Command, image: &Path, options: &str) -> Command {
    c.arg("--disk").arg(format!("sd0={}{options}", image.display()));
    c
}

fn replays(rig: &Rig, run: &Run) {
    rig.replay(&run.recording, &[]).exact(run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(run);
}

#[test]
fn a_card_reads_as_on_the_host_and_replays_exactly() {
    let rig = Rig::new();
    // 17 MiB and a little: what the card's registers can say is a little less.
    let image = rig.image("card.img", (17 << 20) + 512);
    let run = rig.record("read", with_card(rig.linux_virtio("run=sd"), &image, ",readonly"));
    let text = run.ended.text();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|l| *l == "RUN sd BEGIN").expect("it ran") + 1;
    assert_eq!(lines[at..at + 3], ["34816", "1", "SD"], "sectors, read-only, type: {text}");
    let seen = std::fs::read(&image).expect("readable")[..17 << 20].to_vec();
    let cut = rig.path("cut.img");
    std::fs::write(&cut, seen).expect("written");
    assert!(text.contains(&md5(&cut)), "{text}");
    replays(&rig, &run);
    for seed in ["1", "2"] {
        rig.replay(&run.recording, &["--jitter", seed]).exact(&run);
    }
}

#[test]
fn a_file_system_on_a_card_is_written_and_read_back() {
    let rig = Rig::new();
    let image = rig.image("card.img", 16 << 20);
    let before = md5(&image);
    let run = rig.record("snapshot", with_card(rig.linux_virtio("run=sd-rw"), &image, ",snapshot=on"));
    assert_eq!(md5(&image), before, "a snapshot leaves the image alone");
    let text = run.ended.text();
    let sums: Vec<&str> = text.lines().filter_map(|l| l.trim().strip_suffix("m/f")).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "the same before and after: {text}");
    assert!(text.lines().any(|l| l.trim() == "0"), "what was erased is zero: {text}");
    replays(&rig, &run);
    // On the board with a Cortex-A9, and in the image itself.
    let run = rig.record("keep", with_card(rig.linux_a9_virtio("console=ttyAMA0 quiet run=sd-rw"), &image, ""));
    assert_ne!(md5(&image), before);
    let blank = 1048576..1048576 + 65536;
    let written = std::fs::read(&image).expect("readable");
    assert!(written[blank].iter().all(|b| *b == 0), "what was erased is zero on the host");
    rig.replay(&run.recording, &["--cpu-only", "--jitter", "3"]).exact(&run);
}

#[test]
fn a_large_card_is_seen_whole() {
    let rig = Rig::new();
    let image = rig.path("large.img");
    std::fs::File::create(&image).expect("made").set_len(3 << 30).expect("a sparse file");
    let mut c = with_card(rig.linux_virtio(""), &image, ",snapshot=on");
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.send("modprobe armmmci; sleep 1; echo size=$(cat /sys/block/mmcblk0/size)\n").expect("typed");
    console.expect("size=6291456", GUARD).expect("its size");
    console
        .send("yes | dd of=/dev/mmcblk0 bs=512 seek=6291455 count=1 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches\n")
        .expect("typed");
    console
        .send("echo last=$(dd if=/dev/mmcblk0 bs=512 skip=6291455 2>/dev/null | head -c 3 | tr '\\n' .)\n")
        .expect("typed");
    console.expect("last=y.y", GUARD).expect("its last block");
    console.send("poweroff -f\n").expect("typed");
    assert_eq!(console.wait(LONG_GUARD).expect("it powers off").status.code(), Some(exit::OK));
}

#[test]
fn an_empty_slot_has_no_card() {
    let rig = Rig::new();
    let run = rig.record("empty", rig.linux_virtio("run=sd-none"));
    let text = run.ended.text();
    assert!(text.contains("mmc0") && text.lines().any(|l| l.trim() == "0"), "a controller without a card: {text}");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// The card's process is killed again and again while the guest copies.
#[test]
fn a_card_that_dies_during_a_copy_loses_nothing() {
    let rig = Rig::new();
    let image = rig.image("card.img", 16 << 20);
    let calm = rig.record("calm", with_card(rig.linux_virtio("run=sd-rw"), &image, ",snapshot=on"));
    let (recording, report) = (rig.path("shaken"), rig.path("shaken.json"));
    let mut c = with_card(rig.linux_virtio("run=sd-rw"), &image, ",snapshot=on");
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.close_input();
    console.expect("RUN sd-rw BEGIN", LONG_GUARD).expect("the copy begins");
    let mut kills = 0;
    // Five deaths in a row without any progress between them would be the end of it.
    while kills < 4 && reprise_tests::process::alive(console.pid()) {
        let card = children(console.pid()).into_iter().find(|c| c.name == "device-proc" && c.command.contains("[sd0]"));
        if let Some(card) = card {
            signal(card.pid, Signal::SIGKILL);
            kills += 1;
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let run = Run { recording, ended, report: xtask::demo::report(&report).expect("a report") }.ended(exit::OK);
    assert!(kills >= 2, "only {kills} deaths");
    let sums = |run: &Run| -> Vec<String> {
        let text = run.ended.text();
        text.lines()
            .map(str::trim)
            .filter(|l| l.ends_with("m/f") || l.ends_with("m/g") || l.ends_with('-'))
            .map(str::to_owned)
            .collect()
    };
    // The sum of the whole card depends on times in the file system's headers.
    assert_eq!(sums(&run)[..4], sums(&calm)[..4]);
    replays(&rig, &run);
}
