//! `cargo xtask coverage isa`: what the tests and the real guest reach of the instruction tables.

use crate::guest::{self, Guest};
use crate::{demo, install, paths};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to look at.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum What {
    /// The lines of the instruction tables.
    Isa,
}

/// How.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Random cases.
    #[arg(long, default_value_t = 200_000)]
    cases: u64,
    /// Take the counts of the last run as they are.
    #[arg(long)]
    reuse: bool,
    /// Write the table to docs/coverage/isa.md instead of the terminal.
    #[arg(long)]
    write: bool,
}

/// Counts, then prints the table.
///
/// # Errors
/// A run that fails, or a line that no test reaches.
pub fn coverage(What::Isa: What, options: &Options) -> Result<()> {
    let dir = paths::target_dir().join("coverage");
    fs::create_dir_all(&dir)?;
    let [random, direct, boot] = ["random", "direct", "boot"].map(|n| dir.join(n));
    if !options.reuse {
        count_random(&random, options.cases)?;
        count_direct(&direct)?;
        count_boot(&boot)?;
    }
    let mut c = install::cargo();
    c.args(["run", "--quiet", "--release", "-p", "cpu-proc", "--example", "isa_coverage", "--"]);
    let out = c.args([&random, &direct, &boot]).output().context("starting cargo")?;
    if options.write && !out.stdout.is_empty() {
        let page = paths::root().join("docs/coverage/isa.md");
        fs::write(&page, &out.stdout).with_context(|| format!("writing {}", page.display()))?;
        println!("wrote {}", page.display());
    } else {
        print!("{}", String::from_utf8_lossy(&out.stdout));
    }
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// The oracle's random programs.
fn count_random(to: &Path, cases: u64) -> Result<()> {
    let mut c = install::cargo();
    c.args(["run", "--release", "-p", "reprise-oracle", "--", "--cases", &cases.to_string(), "--coverage"]).arg(to);
    run(&mut c, "the random tests")
}

/// The tests of single lines.
fn count_direct(to: &Path) -> Result<()> {
    // The test appends.
    if to.exists() {
        fs::remove_file(to)?;
    }
    let mut c = install::cargo();
    c.args(["test", "-p", "reprise-interp", "--test", "lines", "zz_coverage"]).env("REPRISE_ISA_COVERAGE", to);
    run(&mut c, "the direct tests")
}

/// A boot to the shell, in one process.
fn count_boot(to: &Path) -> Result<()> {
    let guest: Guest = guest::ensure(&guest::default_dir(), false)?;
    let prefix = install::stage()?;
    let plugins: PathBuf = prefix.join("lib/reprise/plugins");
    let mut c = install::cargo();
    c.args(["run", "--release", "-p", "cpu-proc", "--example", "local_boot", "--"]);
    c.arg(paths::root().join("configs/machines/vexpress.ron")).arg(plugins);
    for (flag, path) in [("--kernel", &guest.kernel), ("--dtb", &guest.dtb), ("--initrd", &guest.initrd)] {
        c.arg(flag).arg(path);
    }
    c.args(["--append", demo::APPEND, "--until", "GUEST READY", "--stop-at", "8000000000", "--coverage"]).arg(to);
    run(&mut c, "the boot")
}

fn run(c: &mut Command, what: &str) -> Result<()> {
    let status = c.status().with_context(|| format!("starting {what}"))?;
    ensure!(status.success(), "{what} failed ({status})");
    Ok(())
}
