//! `vmctl`: talks to running machines.

mod cli;
mod client;
mod show;
mod top;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser};
use reprise_child::operator::{Answer, Command};

use crate::cli::{Cli, What};

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vmctl: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let command = match &cli.what {
        What::List => return list(cli.json),
        What::Generate(generate) => return Ok(generate.run(Cli::command())?),
        What::Top(options) => return top::run(&client::find(cli.machine.as_deref())?, options, cli.json),
        what => what.command()?,
    };
    let answer = client::ask(&client::find(cli.machine.as_deref())?, &command)?;
    if cli.json {
        println!("{}", serde_json::to_string(&answer)?);
    }
    match answer {
        Answer::Failed { error } => bail!("{error}"),
        _ if cli.json => Ok(()),
        answer => {
            print!("{}", show::answer(&answer));
            Ok(())
        }
    }
}

/// The machines that run; one JSON value a line.
fn list(json: bool) -> Result<()> {
    for socket in client::sockets() {
        match client::ask(&socket, &Command::Status) {
            Ok(answer) if json => println!("{}", serde_json::to_string(&answer)?),
            Ok(Answer::Status(s)) => println!("{}  {}  {}  {}", s.uuid, s.machine, s.mode, s.state),
            // It has just ended.
            _ => {}
        }
    }
    Ok(())
}
