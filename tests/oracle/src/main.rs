//! Runs cases by hand: long runs, one instruction, one case again.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use reprise_arm::coverage;
use reprise_oracle::generate::Choice;
use reprise_oracle::ours::Which;
use reprise_oracle::run::{Session, run_parallel};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Compares our engines with Unicorn on random instructions")]
struct Cli {
    /// Seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cases.
    #[arg(long, default_value_t = 200_000)]
    cases: u64,
    /// Show this case only.
    #[arg(long)]
    case: Option<u64>,
    /// Only table lines whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Percentage of random words among the instructions.
    #[arg(long, default_value_t = 5)]
    wild: u32,
    /// Cases of one instruction.
    #[arg(long)]
    single: bool,
    /// The engines; the first one decides what counts as comparable.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "interp")]
    engine: Vec<Which>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Also list encodings that the oracle executes and our tables don't have, and lines that were UNPREDICTABLE.
    #[arg(long)]
    missing: bool,
    /// Write how often each table line was translated to this file.
    #[arg(long)]
    coverage: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let choice = Choice { only: cli.only, wild: cli.wild, single: cli.single };
    if let Some(n) = cli.case {
        println!("{}", Session::new(cli.seed, choice, &cli.engine)?.show(n)?);
        return Ok(());
    }
    if cli.coverage.is_some() {
        coverage::start();
    }
    let report = run_parallel(cli.seed, &choice, &cli.engine, cli.cases, cli.threads)?;
    report.failures.iter().for_each(|f| println!("{f}"));
    if cli.missing {
        report.missing.iter().for_each(|(k, n)| println!("missing {k}: {n}"));
        report.unpredictable.iter().for_each(|(k, n)| println!("unpredictable {k}: {n}"));
    }
    if let Some(file) = &cli.coverage {
        std::fs::write(file, coverage::report()).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("{}", report.summary());
    ensure!(report.failed == 0, "{} cases differ", report.failed);
    Ok(())
}
