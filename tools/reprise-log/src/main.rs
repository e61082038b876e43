//! `reprise-log`: looks at Reprise recordings.
//!
//! Exit codes: 0 all is well, 1 the system refused something, 2 wrong usage, 4 bad recording, 5 a device did something else than was recorded.

mod check;
mod device;
mod dump;
mod info;
mod pack;
mod show;
mod stat;
mod survey;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use reprise_recording::{Error, Recording, resolve};
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Looks at Reprise recordings.
#[derive(Parser, Debug)]
#[command(name = "reprise-log", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// What was recorded, how long it ran, how it ended
    Info(Which),
    /// Every record, in order
    Dump(DumpArgs),
    /// Check every byte; name the place of the first fault
    Verify(Which),
    /// Where the bytes go: streams, registers, compression, anchors
    Stat(Which),
    /// Run one device's plugin alone on what was recorded for it, and show the first difference to what it did then
    ReplayDevice(device::DeviceArgs),
    /// Make one file of a recording that needs nothing else, its disks included: to send away, and to replay as it is
    Pack(pack::PackArgs),
    /// Make a directory of a packed recording, and check every byte
    Unpack(pack::UnpackArgs),
    /// Make manual pages or completions
    #[command(hide = true)]
    Generate(reprise_manual::Generate),
}

/// Which recording, and how to show it.
#[derive(Args, Debug)]
struct Which {
    /// The recording: a directory, or a name in the recordings' folder ($REPRISE_DIR, else the XDG data folder). Default: the latest
    dir: Option<PathBuf>,
    /// Write JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct DumpArgs {
    #[command(flatten)]
    which: Which,
    /// Only this stream: `journal`, `final`, a channel (`uart0`), or one stream of it (`uart0.requests`, `uart0.effects`, `uart0.output`)
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// The first chunk to show
    #[arg(long, value_name = "CHUNK", default_value_t = 0)]
    from: u64,
    /// The last chunk to show
    #[arg(long, value_name = "CHUNK", default_value_t = u64::MAX)]
    to: u64,
}

/// Exit code of a bad recording.
const BAD_RECORDING: u8 = 4;
/// Exit code of a device that did something else.
const DIFFERENT: u8 = 5;
/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// What the user asked for can't be: not the recording's fault.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run(&cli, &mut out).and_then(|good| Ok(out.flush().map(|()| good)?));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) if matches!(cli.what, What::ReplayDevice(_)) => ExitCode::from(DIFFERENT),
        Ok(false) => ExitCode::from(BAD_RECORDING),
        Err(e) => {
            // What is still in the buffer would only fail again.
            let _parts = out.into_parts();
            report(&e)
        }
    }
}

/// True if the recording is good as far as it was looked at.
fn run(cli: &Cli, out: &mut dyn Write) -> Result<bool> {
    match &cli.what {
        What::Info(w) => info::run(&open(w)?, w.json, out),
        What::Stat(w) => stat::run(&open(w)?, w.json, out),
        What::Verify(w) => check::run(&resolve(w.dir.as_deref())?, w.json, out),
        What::ReplayDevice(d) => device::run(&Recording::open(&resolve(Some(&d.dir))?)?, d, out),
        What::Generate(generate) => {
            generate.run(Cli::command())?;
            Ok(true)
        }
        What::Pack(p) => pack::run(p, out),
        What::Unpack(u) => pack::unpack_run(u, out),
        What::Dump(d) => dump::run(&open(&d.which)?, d, out),
    }
}

fn open(which: &Which) -> Result<Recording> {
    Ok(Recording::open(&resolve(which.dir.as_deref())?)?)
}

/// Says what went wrong on stderr and finds the exit code.
fn report(e: &anyhow::Error) -> ExitCode {
    // `reprise-log dump | head` is no error.
    if e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let _nowhere_to_say_it = writeln!(io::stderr(), "reprise-log: {e:#}");
    match e.downcast_ref::<Error>() {
        Some(e) if e.is_bad_recording() || matches!(e, Error::NoLatest { .. }) => ExitCode::from(BAD_RECORDING),
        _ if e.is::<Usage>() => ExitCode::from(USAGE),
        _ => ExitCode::FAILURE,
    }
}
