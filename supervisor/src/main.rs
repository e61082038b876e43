//! `supervisor`: reads a machine, starts its processes, watches them, records and replays.

mod children;
mod cli;
mod disk_record;
mod disks;
mod display;
mod failure;
mod images;
mod keeper;
mod leftovers;
mod line;
mod net;
mod operator;
mod outcome;
mod plugins;
mod record;
mod replay;
mod run;
mod sender;
mod session;
mod signals;
mod stream;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("REPRISE_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(terminal::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    terminal::restore_on_panic();
    if let Err(e) = children::reserve_numbers() {
        terminal::say(&format!("no file descriptors: {e}"));
        return ExitCode::from(failure::code::INTERNAL);
    }
    let result = match &cli.command {
        Some(cli::Command::Replay(args)) => replay::main(args),
        Some(cli::Command::Generate(generate)) => generate
            .run(cli::Cli::command())
            .map(|()| failure::code::OK)
            .map_err(|e| failure::Failure::from(anyhow::anyhow!("{}: {e}", generate.dir.display()))),
        None => run::main(&cli.run),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            terminal::say(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
