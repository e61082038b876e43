//! The virtio devices under the kernel's own drivers.

use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, md5};
use std::path::Path;
use xtask::console::Console;

/// Records what `run=work` does with `image` on the disk.
fn record(rig: &Rig, name: &str, work: &str, image: &Path, options: &str) -> Run {
    let mut c = rig.linux_virtio(&format!("run={work}"));
    c.arg("--disk").arg(format!("blk0={}{options}", image.display()));
    rig.record(name, c)
}

#[test]
fn a_disk_reads_as_on_the_host_and_replays_exactly() {
    let rig = Rig::new();
    let image = rig.image("disk.img", 16 << 20);
    let run = record(&rig, "read", "disk", &image, ",readonly");
    let text = run.ended.text();
    assert!(text.contains("32768"), "its size in sectors: {text}");
    assert!(text.contains(&md5(&image)), "{text}");
    rig.replay(&run.recording, &[]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    for seed in ["1", "2"] {
        rig.replay(&run.recording, &["--jitter", seed]).exact(&run);
    }
}

#[test]
fn a_file_system_is_written_and_read_back() {
    let rig = Rig::new();
    let image = rig.image("disk.img", 16 << 20);
    let before = md5(&image);
    let run = record(&rig, "write", "disk-rw", &image, ",snapshot=on");
    assert_eq!(md5(&image), before, "a snapshot leaves the image alone");
    let text = run.ended.text();
    let sums: Vec<&str> = text.lines().filter_map(|l| l.trim().strip_suffix("m/f")).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "the same before and after: {text}");
    rig.replay(&run.recording, &[]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only", "--jitter", "3"]).exact(&run);
    // The same with the image itself: what the guest reads at the end is what the host finds.
    let run = record(&rig, "keep", "disk-rw", &image, "");
    let text = run.ended.text();
    assert!(text.contains(&md5(&image)), "{text}");
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

#[test]
fn a_machine_without_a_medium_has_an_empty_disk() {
    let rig = Rig::new();
    let mut c = rig.linux_virtio("");
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.send("modprobe virtio_mmio; modprobe virtio_blk; echo size=$(cat /sys/block/vda/size)\n").expect("typed");
    console.expect("size=0", GUARD).expect("an empty disk");
    console.send("poweroff -f\n").expect("typed");
    assert_eq!(console.wait(LONG_GUARD).expect("it powers off").status.code(), Some(exit::OK));
}
