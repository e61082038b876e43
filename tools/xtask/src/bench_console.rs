//! `cargo xtask bench console`: a guest that shows 300 KB on its console, on Reprise, recording, and on QEMU, in alternation.

use crate::console::Console;
use crate::demo::{APPEND, linux_args};
use crate::{bench_qemu, guest, install, paths};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keeps a hung machine from hanging the benchmark; nothing is measured by it.
const GUARD: Duration = Duration::from_secs(600);
/// Kilobytes that the guest writes.
const KILOBYTES: f64 = 307.2;

/// Compares and prints; `qemu` says whether QEMU runs too.
///
/// # Errors
/// A run fails, or QEMU is neither there nor to be had.
pub fn bench(rounds: u32, qemu: bool) -> Result<()> {
    let qemu = if qemu { Some(bench_qemu::qemu()?) } else { None };
    let supervisor = install::stage()?.join("bin/supervisor");
    let guest = guest::ensure(&guest::default_dir(), false)?;
    let recording = paths::target_dir().join("bench/recording");
    let append = format!("{APPEND} run=console");
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        if recording.exists() {
            fs::remove_dir_all(&recording)?;
        }
        let mut c = Command::new(&supervisor);
        c.args(linux_args(&guest, &append)).args(["--clock", "warp"]);
        c.arg(format!("--record={}", recording.display()));
        let ours = run(&mut c).context("Reprise")?;
        let Some(qemu) = &qemu else {
            println!("recording: {:.0} KB/s", KILOBYTES / ours);
            continue;
        };
        let mut c = Command::new(qemu);
        c.args("-M vexpress-a15 -cpu cortex-a15 -smp 1 -m 512 -nic none -no-reboot".split(' '));
        c.args("-display none -monitor none -serial stdio".split(' '));
        c.arg("-kernel").arg(&guest.kernel).arg("-dtb").arg(&guest.dtb).arg("-initrd").arg(&guest.initrd);
        c.arg("-append").arg(&append);
        let theirs = run(&mut c).context("QEMU")?;
        println!(
            "recording: {:.0} KB/s, QEMU: {:.0} KB/s, {:.2} times as fast",
            KILOBYTES / ours,
            KILOBYTES / theirs,
            theirs / ours
        );
        ratios.push(theirs / ours);
    }
    ratios.sort_by(f64::total_cmp);
    if let Some(median) = ratios.get(ratios.len() / 2) {
        println!("median: {median:.2} times as fast");
    }
    Ok(())
}

/// Seconds on the wall from the first byte to the last.
fn run(command: &mut Command) -> Result<f64> {
    let mut console = Console::start(command, false)?;
    console.expect("CONSOLE-BEGIN", GUARD)?;
    let start = Instant::now();
    console.expect("CONSOLE-END", GUARD)?;
    let seconds = start.elapsed().as_secs_f64();
    let ended = console.wait(GUARD)?;
    ensure!(ended.status.success(), "it ended with {}:\n{}", ended.status, ended.stderr);
    Ok(seconds)
}
