//! What the log daemon is made of. The program is `log-daemon`; tools use [`transfer`] and [`verify`] to compare what a device does with what was recorded.

mod collect;
pub mod convert;
mod record;
mod replay;
mod signals;
mod staging;
pub mod transfer;
pub mod verify;

use anyhow::{Result, bail};
use reprise_channel::jitter;
use reprise_child::Child;
use reprise_child::control::{FromChild, Mode, Ready, Start};
use reprise_child::sandbox::{Stage, enter};

/// One of the two jobs.
enum Job {
    Record(Box<record::Recorder>),
    Replay(Box<replay::Replayer>),
}

/// The process, from its start message to its end.
///
/// # Errors
/// What the supervisor is to be told.
pub fn body(child: Child) -> Result<()> {
    let policy = child.policy();
    let Start::Log(start) = child.start else { bail!("the start message is not for the log daemon") };
    if let Some(seed) = start.common.jitter {
        jitter::enable(seed);
    }
    // Never dropped: a daemon that fails does not tell the other ends that it left, as the next one takes its place.
    let job: &'static mut Job = Box::leak(Box::new(match start.common.mode {
        Mode::Plain => bail!("a plain run has no log daemon"),
        Mode::Record => Job::Record(Box::new(record::Recorder::new(&start)?)),
        Mode::Verify | Mode::Absent => Job::Replay(Box::new(replay::Replayer::new(&start)?)),
    }));
    enter(Stage::Attached, &policy)?;
    // The second stage allows no new threads.
    let signals = signals::listen(child.control.try_clone()?)?;
    enter(Stage::Loaded, &policy)?;
    child.control.send(&FromChild::Ready(Ready::default()))?;
    signals.wait_go()?;
    let finished = match job {
        Job::Record(r) => r.run(&signals, &child.control)?,
        Job::Replay(r) => r.run(&signals, &child.control)?,
    };
    child.control.send(&FromChild::LogFinished(finished))?;
    signals.wait_exit()
}

/// Fuzz entry: reads `bytes` as what a dead daemon left in its staging memory.
pub fn fuzz_staging(bytes: &[u8]) {
    let _unused = staging::parse(bytes);
}
