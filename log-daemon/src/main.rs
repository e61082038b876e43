//! The log daemon of a machine: it sees every message of every channel, writes the recording, or replays one.

mod collect;
mod convert;
mod record;
mod replay;
mod signals;
mod verify;

use std::process::ExitCode;

use anyhow::{Result, bail};
use reprise_channel::jitter;
use reprise_child::Child;
use reprise_child::control::{FromChild, Mode, Ready, Start};
use reprise_child::sandbox::{Stage, enter};

fn main() -> ExitCode {
    reprise_child::run("log-daemon", body)
}

/// One of the two jobs.
enum Job {
    Record(Box<record::Recorder>),
    Replay(Box<replay::Replayer>),
}

fn body(child: Child) -> Result<()> {
    let policy = child.policy();
    let Start::Log(start) = child.start else { bail!("the start message is not for the log daemon") };
    if let Some(seed) = start.common.jitter {
        jitter::enable(seed);
    }
    let mut job = match start.common.mode {
        Mode::Plain => bail!("a plain run has no log daemon"),
        Mode::Record => Job::Record(Box::new(record::Recorder::new(&start)?)),
        Mode::Verify | Mode::Absent => Job::Replay(Box::new(replay::Replayer::new(&start)?)),
    };
    enter(Stage::Attached, &policy)?;
    // The second stage allows no new threads.
    let signals = signals::listen(child.control.try_clone()?)?;
    enter(Stage::Loaded, &policy)?;
    child.control.send(&FromChild::Ready(Ready::default()))?;
    signals.wait_go()?;
    let finished = match &mut job {
        Job::Record(r) => r.run(&signals, &child.control)?,
        Job::Replay(r) => r.run(&signals, &child.control)?,
    };
    child.control.send(&FromChild::LogFinished(finished))?;
    signals.wait_exit()
}
