//! `cargo xtask bench`: measures, in alternation where two things are compared, and prints ratios.

use crate::console::{Console, Ended};
use crate::demo::{APPEND, linux_args, report};
use crate::guest::{self, Guest};
use crate::{install, paths};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const GUARD: Duration = Duration::from_secs(1800);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Round trips and posted writes of a channel between two processes.
    Channel,
    /// CPU time of a boot to GUEST READY and power-off, with and without recording.
    Boot,
    /// Replay time over recording time.
    Replay,
    /// Console output, `cat` of 300 KB, on Reprise, recording, and on QEMU, in alternation.
    Console,
    /// The same guest work on Reprise, recording, and on QEMU, in alternation; see the options below.
    Qemu,
    /// A guest that reads a disk, on Reprise (recording; not recording with `--plain`) and on QEMU, in alternation.
    Disk,
    /// The same with an SD card.
    Sd,
}

/// Measures; `rounds` is how often each thing is run.
///
/// # Errors
/// A run fails.
pub fn bench(what: What, rounds: u32) -> Result<()> {
    if what == What::Channel {
        let status = install::cargo()
            .args(["run", "--release", "-p", "reprise-channel", "--example", "bench_channel"])
            .status()?;
        ensure!(status.success(), "the channel benchmark failed");
        return Ok(());
    }
    let prefix = install::stage()?;
    let guest = guest::ensure(&guest::default_dir(), false)?;
    let dir = paths::target_dir().join("bench");
    fs::create_dir_all(&dir)?;
    let rig = Rig { supervisor: prefix.join("bin/supervisor"), guest, dir };
    match what {
        What::Boot => rig.boot(rounds),
        What::Replay => rig.replay(rounds),
        What::Channel | What::Console | What::Qemu | What::Disk | What::Sd => Ok(()),
    }
}

/// A staged build and a guest.
struct Rig {
    supervisor: PathBuf,
    guest: Guest,
    dir: PathBuf,
}

/// One measured run.
struct Run {
    wall: f64,
    cpu: f64,
    instructions: f64,
    log_bytes: f64,
}

impl Rig {
    fn run(&self, record: bool, append: &str) -> Result<(Run, Ended)> {
        let file = self.dir.join("report.json");
        let recording = self.dir.join("recording");
        if recording.exists() {
            fs::remove_dir_all(&recording)?;
        }
        let mut c = Command::new(&self.supervisor);
        c.args(linux_args(&self.guest, append)).args(["--clock", "warp", "--report"]).arg(&file);
        if record {
            c.arg(format!("--record={}", recording.display()));
        }
        measured(&mut c, &file)
    }

    fn boot(&self, rounds: u32) -> Result<()> {
        let append = format!("{APPEND} run=none");
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            // The order changes from round to round, so that neither always runs on a warmer machine.
            let plain_first = round % 2 == 1;
            let (first, _) = self.run(!plain_first, &append)?;
            let (second, _) = self.run(plain_first, &append)?;
            let (plain, recorded) = if plain_first { (first, second) } else { (second, first) };
            print_run("plain   ", &plain);
            print_run("recorded", &recorded);
            println!(
                "  wall {:.3}, CPU {:.3} of the plain run; log {} bytes",
                recorded.wall / plain.wall,
                recorded.cpu / plain.cpu,
                recorded.log_bytes
            );
            ratios.push(recorded.wall / plain.wall);
        }
        println!("recording's cost in wall time: {}", spread(&mut ratios));
        Ok(())
    }

    fn replay(&self, rounds: u32) -> Result<()> {
        let (mut verified, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (recorded, _) = self.run(true, &format!("{APPEND} run=none"))?;
            print_run("recorded", &recorded);
            for (cpu_only, name, ratios) in [(false, "verified", &mut verified), (true, "cpu-only", &mut alone)] {
                let file = self.dir.join("replay.json");
                let mut c = Command::new(&self.supervisor);
                c.arg("replay").arg(self.dir.join("recording")).arg("--report").arg(&file);
                if cpu_only {
                    c.arg("--cpu-only");
                }
                let (run, _) = measured(&mut c, &file)?;
                print_run(name, &run);
                ratios.push(run.wall / recorded.wall);
            }
        }
        println!("replay over recording, wall: verified {}, cpu-only {}", spread(&mut verified), spread(&mut alone));
        Ok(())
    }
}

fn measured(c: &mut Command, file: &Path) -> Result<(Run, Ended)> {
    let mut console = Console::start(c, false)?;
    console.close_input();
    let ended = console.wait(GUARD)?;
    ensure!(ended.status.success(), "{c:?} ended with {}:\n{}", ended.status, ended.stderr);
    let r = report(file)?;
    let number = |k: &str| r[k].as_f64().with_context(|| format!("the report has no {k}"));
    let run = Run {
        wall: number("wall_seconds")?,
        cpu: number("cpu_seconds")?,
        instructions: number("instructions")?,
        log_bytes: r["log_bytes"].as_f64().unwrap_or(0.0),
    };
    Ok((run, ended))
}

fn print_run(name: &str, r: &Run) {
    println!(
        "{name}: {:.2} s wall, {:.2} s CPU, {:.0} M instructions, {:.1} MIPS",
        r.wall,
        r.cpu,
        r.instructions / 1e6,
        r.instructions / 1e6 / r.wall
    );
}

/// Median and extremes.
fn spread(v: &mut [f64]) -> String {
    v.sort_by(f64::total_cmp);
    match v {
        [] => "nothing measured".into(),
        [.., _] => format!("{:.3} (median of {}; {:.3} to {:.3})", v[v.len() / 2], v.len(), v[0], v[v.len() - 1]),
    }
}
