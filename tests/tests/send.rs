//! Recordings that leave this machine: packed with all that they need; and devices that are run alone on what was recorded for them.

use reprise_tests::{LONG_GUARD, Rig, Run, exit, prefix};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use xtask::console::Console;

fn reprise_log(rig: &Rig, args: &[&str]) -> Output {
    rig.output(rig.program("reprise-log").args(args))
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_packed_recording_replays_as_it_is() {
    let rig = Rig::new();
    let run = rig.record_hello("hello", "hiq");
    let file = rig.path("hello.reprise");
    // By its name, into the working folder.
    let out = reprise_log(&rig, &["pack", text(&run.recording)]);
    assert_eq!(out.status.code(), Some(exit::OK), "{}", said(&out));
    let again = reprise_log(&rig, &["pack", text(&run.recording)]);
    assert!(!again.status.success() && said(&again).contains("hello.reprise"), "{}", said(&again));
    fs::remove_dir_all(&run.recording).expect("gone");
    rig.replay(&file, &[]).exact(&run);
    rig.replay(&file, &["--cpu-only"]).exact(&run);
    let left: Vec<PathBuf> =
        fs::read_dir(rig.path("recordings")).expect("a folder").map(|e| e.expect("one").path()).collect();
    assert!(left.iter().all(|p| !text(p).contains("unpacked")), "{left:?}");
    let out = reprise_log(&rig, &["unpack", text(&file), text(&rig.path("out"))]);
    assert_eq!(out.status.code(), Some(exit::OK), "{}", said(&out));
    rig.replay(&rig.path("out"), &[]).exact(&run);
    // One that was cut short in sending is no recording.
    let bytes = fs::read(&file).expect("readable");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("written");
    rig.replay(&file, &[]).ended(exit::RECORDING);
    let out = reprise_log(&rig, &["unpack", text(&file), text(&rig.path("cut"))]);
    assert_eq!(out.status.code(), Some(exit::RECORDING), "{}", said(&out));
}

/// A disk that is read and written by the kernel's own driver, in a recording that only names its image.
fn record(rig: &Rig, name: &str, image: &Path, more: &[&str]) -> Run {
    let (recording, report) = (rig.path(name), rig.path(&format!("{name}.json")));
    let mut c = rig.linux_virtio("run=disk-rw");
    c.arg("--disk").arg(format!("blk0={},snapshot=on", image.display())).args(["--store-disks", "0"]).args(more);
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.close_input();
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    Run { recording, ended, report: xtask::demo::report(&report).expect("a report") }.ended(exit::OK)
}

#[test]
fn a_disk_goes_along_and_its_device_runs_alone() {
    let rig = Rig::new();
    let image = rig.path("disk.img");
    let contents: Vec<u8> = (0..16_u32 << 20).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    fs::write(&image, &contents).expect("written");
    let run = record(&rig, "run", &image, &["--log-dma-reads"]);
    let plugins = prefix().join("lib/reprise/plugins");
    let (blk, net) = (plugins.join("libplugin_virtio_blk.so"), plugins.join("libplugin_virtio_net.so"));
    let alone = |args: &[&str], code: i32| {
        let mut all = vec!["replay-device", text(&run.recording), "blk0"];
        all.extend(args);
        let out = reprise_log(&rig, &all);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", said(&out));
        said(&out)
    };
    alone(&[], exit::OK);
    alone(&["--plugin", text(&blk)], exit::OK);
    // A plugin of another kind answers otherwise from the first register on.
    assert!(alone(&["--plugin", text(&net)], exit::DIVERGED).contains("recorded:"));
    let moved = rig.path("moved.img");
    fs::rename(&image, &moved).expect("moved");
    alone(&["--disk", text(&moved)], exit::OK);
    // One sector that the guest read is another now: another disk, and that is said.
    let other = rig.path("other.img");
    fs::write(&other, vec![0; contents.len()]).expect("written");
    assert!(alone(&["--disk", text(&other)], exit::USAGE).contains("does not hold what the disk of blk0 did"));
    // Packing needs the disk, and takes no other.
    let out = reprise_log(&rig, &["pack", text(&run.recording)]);
    assert!(!out.status.success() && said(&out).contains("--disk blk0=FILE"), "{}", said(&out));
    let wrong = format!("blk0={}", other.display());
    let out = reprise_log(&rig, &["pack", text(&run.recording), "--disk", &wrong]);
    assert!(!out.status.success() && said(&out).contains("does not hold what was recorded"), "{}", said(&out));
    let right = format!("blk0={}", moved.display());
    let file = rig.path("sent.reprise");
    let out = reprise_log(&rig, &["pack", text(&run.recording), "--disk", &right, "-o", text(&file)]);
    assert_eq!(out.status.code(), Some(exit::OK), "{}", said(&out));
    fs::remove_file(&moved).expect("gone");
    fs::remove_dir_all(&run.recording).expect("gone");
    rig.replay(&file, &[]).exact(&run);
    rig.replay(&file, &["--cpu-only"]).exact(&run);
    let out = reprise_log(&rig, &["unpack", text(&file), text(&run.recording)]);
    assert_eq!(out.status.code(), Some(exit::OK), "{}", said(&out));
    alone(&[], exit::OK);
    // Without the bytes that it read from memory the device can't run alone.
    fs::write(&image, &contents).expect("written");
    let plain = record(&rig, "plain", &image, &[]);
    let out = reprise_log(&rig, &["replay-device", text(&plain.recording), "blk0"]);
    assert_eq!(out.status.code(), Some(exit::USAGE), "{}", said(&out));
    assert!(said(&out).contains("--log-dma-reads"), "{}", said(&out));
}
