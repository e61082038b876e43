//! The project's chores: `cargo xtask help`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use xtask::{guest, hello};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, demonstrates and measures Reprise")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the Linux test guest out of Debian's packages (cached).
    Guest {
        /// Folder to make it in.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Add kbench, the CPU benchmark; needs an ARM cross compiler.
        #[arg(long)]
        bench: bool,
        /// Print the paths of kernel, device tree and initramfs, one a line.
        #[arg(long)]
        print: bool,
    },
    /// Assemble the bare-metal guest into configs/images (needs an ARM cross compiler).
    Hello,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Guest { out, bench, print } => {
            let g = guest::ensure(&out.unwrap_or_else(guest::default_dir), bench)?;
            if print {
                println!("{}\n{}\n{}", g.kernel.display(), g.dtb.display(), g.initrd.display());
            } else {
                println!("guest ready in {}", g.dir.display());
            }
            Ok(())
        }
        Command::Hello => hello::build(&hello::image()),
    }
}
