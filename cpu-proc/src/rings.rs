//! [`Journal`] and [`Script`] over the control segment's rings.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reprise_arm::state::Position;
use reprise_channel::{Abort, Doorbell, EntryMsg, JournalEntry, JournalWriter, Position as RingPosition, ScriptReader};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::journal::{Anchor, Entry, Journal, Mark, Script, What};

/// How long the log daemon may take to make room or to deliver.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);

fn ring_position(p: Position) -> RingPosition {
    RingPosition { epoch: p.epoch, count: p.count, idle: p.idle }
}

fn channel(device: usize) -> u16 {
    u16::try_from(device).expect("a machine has fewer than 2^16 devices")
}

/// The journal ring.
pub struct RingJournal(pub JournalWriter);

impl RingJournal {
    fn push(&mut self, at: RingPosition, e: &JournalEntry) -> Result<()> {
        match self.0.push(at, e, &Abort::after(DAEMON_TIMEOUT)).context("the journal")? {
            Some(_) => Ok(()),
            None => bail!("the log daemon took no journal entry for {} s", DAEMON_TIMEOUT.as_secs()),
        }
    }
}

impl Journal for RingJournal {
    fn put(&mut self, entry: &Entry) -> Result<()> {
        let at = ring_position(entry.pos);
        match &entry.what {
            What::Consumed { device, effect, check } => {
                self.push(at, &JournalEntry::Consumed { channel: channel(*device), effect: *effect, checksum: *check })
            }
            What::Host { device, request, .. } => self
                .push(at, &JournalEntry::Host { channel: channel(*device), request: *request, data: (0, 0), port: 0 }),
            What::Warp { ns } => self.push(at, &JournalEntry::Warp { ns: *ns }),
            What::Anchor(a) => {
                let Anchor { icount, pc, cpsr, regs, io } = *a;
                self.push(at, &JournalEntry::Anchor { pc, cpsr, registers: regs, icount, consumed: io })
            }
            What::Progress { icount, vtime, marks } => {
                self.push(at, &JournalEntry::Progress { icount: *icount, vtime: *vtime, marks: marks.len() as u64 })?;
                for (device, m) in marks.iter().enumerate() {
                    let Mark { requests, effects, hash } = *m;
                    let mark =
                        JournalEntry::Mark { channel: channel(device), requests, effects, consumed: hash, local: 0 };
                    self.push(at, &mark)?;
                }
                Ok(())
            }
            What::End { reason, icount, vtime, state_hash } => {
                self.push(at, &JournalEntry::End { reason: *reason, icount: *icount, vtime: *vtime })?;
                self.push(at, &JournalEntry::EndHash { state_hash: *state_hash })
            }
        }
    }
}

/// The script ring.
pub struct RingScript<'a> {
    ring: ScriptReader,
    stop: &'a AtomicBool,
    bell: &'a Doorbell,
}

/// The user stopped the machine while it waited for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

impl<'a> RingScript<'a> {
    /// Reads from `ring`; `bell` rings when `stop` is set.
    pub fn new(ring: ScriptReader, stop: &'a AtomicBool, bell: &'a Doorbell) -> Self {
        Self { ring, stop, bell }
    }

    /// Takes the next entry and makes `f` of it.
    fn take<T>(&mut self, f: impl FnOnce(&EntryMsg<'_>) -> T) -> Result<T> {
        let deadline = Instant::now() + DAEMON_TIMEOUT;
        // The bell rings for other things than a stop, too.
        while self.ring.wait_peek(&Abort::at(deadline).or_rung(self.bell)).context("the recorded journal")?.is_none() {
            if self.stop.load(Ordering::SeqCst) {
                return Err(Stopped.into());
            }
            if Instant::now() >= deadline {
                bail!("the log daemon delivered no entry for {} s", DAEMON_TIMEOUT.as_secs());
            }
        }
        let m = self.ring.try_next().context("the recorded journal")?.expect("seen above");
        Ok(f(&m))
    }

    fn marks(&mut self, n: u64) -> Result<Vec<Mark>> {
        let mut marks = Vec::new();
        for i in 0..n {
            let (device, mark) = self
                .take(|m| match m.entry {
                    JournalEntry::Mark { channel, requests, effects, consumed, .. } => {
                        Some((u64::from(channel), Mark { requests, effects, hash: consumed }))
                    }
                    _ => None,
                })?
                .context("the recorded journal has a progress entry with marks missing")?;
            if device != i {
                bail!("the recorded journal has mark {i} of a progress entry for channel {device}");
            }
            marks.push(mark);
        }
        Ok(marks)
    }
}

impl Script for RingScript<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        let (at, entry, data) = self.take(|m| (m.at, m.entry, m.bytes.to_vec()))?;
        let pos = Position { epoch: at.epoch, count: at.count, idle: at.idle };
        let what = match entry {
            JournalEntry::Consumed { channel, effect, checksum } => {
                What::Consumed { device: usize::from(channel), effect, check: checksum }
            }
            JournalEntry::Host { channel, request, port, .. } => {
                What::Host { device: usize::from(channel), request, port, data }
            }
            JournalEntry::Warp { ns } => What::Warp { ns },
            JournalEntry::Anchor { pc, cpsr, registers, icount, consumed } => {
                What::Anchor(Anchor { icount, pc, cpsr, regs: registers, io: consumed })
            }
            JournalEntry::Progress { icount, vtime, marks } => {
                What::Progress { icount, vtime, marks: self.marks(marks)? }
            }
            JournalEntry::End { reason, icount, vtime } => {
                let state_hash = self
                    .take(|m| match m.entry {
                        JournalEntry::EndHash { state_hash } => Some(state_hash),
                        _ => None,
                    })?
                    .context("the recorded journal has an end without its state hash")?;
                What::End { reason, icount, vtime, state_hash }
            }
            JournalEntry::Cut => return Ok(None),
            JournalEntry::Mark { .. } | JournalEntry::EndHash { .. } => {
                bail!("the recorded journal has a {:?} entry out of place", entry.kind())
            }
        };
        Ok(Some(Entry { pos, what }))
    }
}
