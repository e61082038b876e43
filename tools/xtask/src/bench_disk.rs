//! `cargo xtask bench disk` and `sd`: one guest that reads a disk from end to end and in small pieces, or an SD card, on Reprise and on QEMU, in alternation.
//!
//! Both have the same kernel, initramfs and image behind a virtio-mmio device, or in the card's slot. What is measured is the CPU time of the whole process tree, which other
//! load on the host changes less than it changes the time on the wall; that is printed beside it.

use crate::console::Console;
use crate::demo::{APPEND, linux_args};
use crate::guest::{self, Guest};
use crate::{bench_qemu, cputime, install, paths};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keeps a hung machine from hanging the benchmark; nothing is measured by it.
const GUARD: Duration = Duration::from_secs(600);
/// What is read, and from what. The first piece of work brings the image into the host's page cache.
struct Case {
    /// Bytes of the image.
    size: usize,
    /// What is run.
    work: &'static [&'static str],
    /// The device's name in the machine file.
    device: &'static str,
    /// QEMU's interface of the drive, and its options for the device.
    interface: &'static str,
    qemu: &'static [&'static str],
}

const DISK: Case = Case {
    size: 64 << 20,
    work: &["disk", "disk-seq", "disk-4k"],
    device: "blk0",
    interface: "none",
    qemu: &["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-blk-device,drive=d,serial=bench"],
};

const CARD: Case =
    Case { size: 16 << 20, work: &["sd", "sd-seq", "sd-write"], device: "sd0", interface: "sd", qemu: &[] };
/// 4 KiB pieces that `disk-4k` reads.
const PIECES: f64 = 4096.0;

/// One run: CPU time and time on the wall of each piece of work, in seconds.
type Run = Vec<(f64, f64)>;

/// Compares and prints: a disk, or an SD card.
///
/// # Errors
/// A run fails, or QEMU is neither there nor to be had.
pub fn bench(rounds: u32, record: bool, card: bool) -> Result<()> {
    let case = if card { CARD } else { DISK };
    let qemu = bench_qemu::qemu()?;
    let supervisor = install::stage()?.join("bin/supervisor");
    let guest = guest::ensure(&guest::default_dir(), false)?;
    let guest = Guest { initrd: guest.virtio_initrd.clone(), ..guest };
    let dir = paths::target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let image = dir.join("disk.img");
    fs::write(&image, content(case.size))?;
    let append = format!("{APPEND} run={}", case.work.join(","));
    let reprise = || {
        let mut c = Command::new(&supervisor);
        c.args(linux_args(&guest, &append)).args(["--clock", "warp"]);
        c.arg("--disk").arg(format!("{}={},format=raw,snapshot=on", case.device, image.display()));
        if record {
            let recording = dir.join("disk-recording");
            let _ = fs::remove_dir_all(&recording);
            c.arg(format!("--record={}", recording.display()));
        }
        c
    };
    let other = || {
        let mut c = Command::new(&qemu);
        c.args("-M vexpress-a15 -cpu cortex-a15 -smp 1 -m 512 -nic none -no-reboot".split(' '));
        c.args("-display none -monitor none -serial stdio".split(' '));
        c.arg("-kernel").arg(&guest.kernel).arg("-dtb").arg(&guest.dtb).arg("-initrd").arg(&guest.initrd);
        c.arg("-append").arg(&append);
        c.arg("-drive").arg(format!("if={},id=d,format=raw,snapshot=on,file={}", case.interface, image.display()));
        c.args(case.qemu);
        c
    };
    let mut runs: [Vec<Run>; 2] = Default::default();
    for n in 0..rounds {
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let mut command = if which == 0 { reprise() } else { other() };
            eprintln!("bench: round {} of {rounds}: {}", n + 1, ["reprise", "qemu"][which]);
            runs[which].push(run(&mut command, case.work).with_context(|| ["reprise", "qemu"][which])?);
        }
    }
    report(&runs, case.work);
    if record {
        let bytes = log_bytes(&dir.join("disk-recording"))?;
        println!("recording: {bytes} bytes, {:.3} % of the image's", bytes as f64 / case.size as f64 * 100.0);
    }
    Ok(())
}

/// Bytes of a recording without what it was given: kernel, plugins and the like.
fn log_bytes(recording: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(recording)? {
        let entry = entry?;
        bytes += match entry.metadata()? {
            meta if meta.is_file() => meta.len(),
            _ if entry.file_name() == "inputs" => 0,
            _ => log_bytes(&entry.path())?,
        };
    }
    Ok(bytes)
}

/// The image: every 4 KiB block differs, and none can be compressed much.
fn content(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&(state >> 16).to_le_bytes());
    }
    data
}

fn run(command: &mut Command, work: &[&str]) -> Result<Run> {
    let mut console = Console::start(command, false)?;
    console.close_input();
    let pid = console.pid();
    let mut run = Run::new();
    for name in work {
        console.expect(&format!("RUN {name} BEGIN"), GUARD)?;
        let (cpu, wall) = (cputime::of_tree(pid)?, Instant::now());
        console.expect(&format!("RUN {name} END rc=0"), GUARD)?;
        run.push((cputime::of_tree(pid)? - cpu, wall.elapsed().as_secs_f64()));
    }
    let ended = console.wait(GUARD)?;
    ensure!(ended.status.success(), "it ended with {}:\n{}", ended.status, ended.stderr);
    Ok(run)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(runs: &[Vec<Run>; 2], work: &[&str]) {
    println!("{:<12}{:>14}{:>14}{:>14}{:>14}", "", "reprise cpu s", "qemu cpu s", "reprise s", "qemu s");
    for (i, name) in work.iter().enumerate() {
        let of =
            |which: usize, wall: bool| median(runs[which].iter().map(|r| if wall { r[i].1 } else { r[i].0 }).collect());
        let all = [of(0, false), of(1, false), of(0, true), of(1, true)];
        print!("{name:<12}");
        all.iter().for_each(|v| print!("{v:>14.3}"));
        if *name == "disk-4k" {
            print!("   {:.0} and {:.0} reads of 4 KiB a CPU second", PIECES / all[0], PIECES / all[1]);
        }
        if *name == "sd-seq" {
            print!("   16 MiB; QEMU's CPU time is {:.2} of ours", all[1] / all[0]);
        }
        println!();
    }
}
