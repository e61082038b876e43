//! The project's chores: `cargo xtask help`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use xtask::{bench, bench_console, bench_disk, bench_qemu, coverage, demo, guest, hello, install, suite, torture};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, demonstrates and measures Reprise")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything a user runs, in release mode.
    Build,
    /// Build, and put programs, plugins and configurations where they find each other.
    Install {
        /// Folder to install into [default: ~/.local].
        #[arg(long)]
        prefix: Option<PathBuf>,
    },
    /// Make the manual pages.
    Man {
        /// Folder to make them in [default: target/man].
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Make the completions for bash, zsh and fish.
    Completions {
        /// Folder to make them in [default: target/completions].
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Boot Linux, type into its console, record it, replay it, and print the verdict.
    Demo,
    /// Run every check and test; ends with a count.
    Test {
        /// Add the long versions.
        #[arg(long)]
        slow: bool,
    },
    /// Compare the engines with Unicorn on random instructions, for as long as you like.
    Oracle {
        /// How many cases.
        #[arg(long, default_value_t = 10_000_000)]
        cases: u64,
        /// Where they come from; another seed, other cases.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The engines, separated by commas: `interp`, `jit`, `jit-plain` (without AVX2).
        #[arg(long, default_value = "interp,jit,jit-plain")]
        engine: String,
    },
    /// Kill a machine's processes at random moments while Linux works with a disk and a network, and look whether anybody notices.
    Torture(torture::Options),
    /// Check formatting and lints.
    Lint,
    /// What CI runs: the same as `test`.
    Ci,
    /// Measure.
    Bench {
        /// What to measure.
        what: bench::What,
        /// How often [default: 3, for qemu 5].
        #[arg(long)]
        rounds: Option<u32>,
        #[command(flatten)]
        qemu: bench_qemu::Options,
    },
    /// Say what the tests and the real guest reach.
    Coverage {
        /// Of what.
        what: coverage::What,
        /// How.
        #[command(flatten)]
        options: coverage::Options,
    },
    /// Make the Linux test guest out of Debian's packages (cached).
    Guest {
        /// Folder to make it in [default: target/guest].
        #[arg(long)]
        out: Option<PathBuf>,
        /// Add kbench, the CPU benchmark; needs an ARM cross compiler.
        #[arg(long)]
        bench: bool,
        /// Add zImage-lpae, the kernel that uses long translation descriptors.
        #[arg(long)]
        lpae: bool,
        /// Print the paths of kernel, device tree and initramfs, one a line.
        #[arg(long)]
        print: bool,
    },
    /// Assemble the bare-metal guest and the oracle's harness, which the repository carries as images (needs an ARM cross compiler).
    Hello,
}

/// Builds the programs, and lets them make their manual pages or completions.
fn made(what: install::Manual, out: Option<PathBuf>) -> Result<()> {
    let dir = out.unwrap_or_else(|| what.default_dir());
    install::build_programs()?;
    what.make(&dir)?;
    println!("made in {}", dir.display());
    Ok(())
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Build => install::build(),
        Command::Install { prefix } => {
            let home = || {
                std::env::var_os("HOME")
                    .map(|h| PathBuf::from(h).join(".local"))
                    .context("no HOME: say where with --prefix")
            };
            let prefix = prefix.map_or_else(home, Ok)?;
            install::build()?;
            install::install(&prefix)?;
            println!("installed in {}; the programs are in {}", prefix.display(), prefix.join("bin").display());
            Ok(())
        }
        Command::Man { out } => made(install::Manual::Pages, out),
        Command::Completions { out } => made(install::Manual::Completions, out),
        Command::Demo => demo::demo(),
        Command::Test { slow } => suite::test(slow),
        Command::Oracle { cases, seed, engine } => suite::oracle_run(cases, seed, &engine),
        Command::Torture(options) => torture::torture(&options),
        Command::Lint => suite::lint(),
        Command::Ci => suite::test(false),
        Command::Bench { what: bench::What::Qemu, rounds, qemu } => bench_qemu::bench(&qemu, rounds.unwrap_or(5)),
        Command::Bench { what: bench::What::Console, rounds, qemu } => {
            bench_console::bench(rounds.unwrap_or(3), !qemu.no_qemu)
        }
        Command::Bench { what: bench::What::Disk, rounds, qemu } => {
            bench_disk::bench(rounds.unwrap_or(3), !qemu.plain, false)
        }
        Command::Bench { what: bench::What::Sd, rounds, qemu } => {
            bench_disk::bench(rounds.unwrap_or(3), !qemu.plain, true)
        }
        Command::Bench { what, rounds, .. } => bench::bench(what, rounds.unwrap_or(3)),
        Command::Coverage { what, options } => coverage::coverage(what, &options),
        Command::Guest { out, bench, lpae, print } => {
            let dir = out.unwrap_or_else(guest::default_dir);
            let mut g = guest::ensure(&dir, bench)?;
            if lpae {
                g = guest::ensure_lpae(&dir)?;
            }
            if print {
                let kernel = g.kernel_lpae.as_ref().filter(|_| lpae).unwrap_or(&g.kernel);
                println!("{}\n{}\n{}", kernel.display(), g.dtb.display(), g.initrd.display());
            } else {
                println!("guest ready in {}", g.dir.display());
            }
            Ok(())
        }
        Command::Hello => hello::build_all(),
    }
}
