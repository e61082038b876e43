//! The control segment of a machine: journal, script and status.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::channel::Life;
use crate::entry::{Entry, EntryKind, JournalEntry, Position};
use crate::error::{ChannelError, CloseReason, Problem, RingName};
use crate::jitter;
use crate::layout::{ControlConfig, attach_control, close, create_control};
use crate::ring::{Blocked, Producer, Push, Reader, Side, Space};
use crate::segment::{Region, Role, Segment, SegmentError, unlink};
use crate::wait::{Abort, Interest, SpinPolicy, Waited, wait_one};

/// A control segment as its maker, the supervisor, holds it. Dropping it removes its name.
#[derive(Debug)]
pub struct ControlSegment {
    name: String,
    segment: Segment,
    futexes: Vec<usize>,
    status: usize,
    regions: Vec<Region>,
}

impl ControlSegment {
    /// Makes a control segment.
    ///
    /// # Errors
    /// If the sizes are out of range, the name is taken, or there is no room in shared memory.
    pub fn create(name: &str, config: &ControlConfig) -> Result<Self, SegmentError> {
        let (segment, layout) = create_control(name, config)?;
        let futexes = layout.links(layout.cpu_state, Vec::new()).futexes;
        Ok(Self { name: name.to_owned(), segment, futexes, status: layout.status, regions: layout.regions })
    }

    /// The segment's name, for the processes that attach it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which pages belong to whom.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Ends the rings: every wait on them returns [`Problem::Closed`].
    pub fn close(&self, reason: CloseReason) {
        close(&self.segment, &self.futexes, reason as u32);
    }

    /// What cpu-proc last said about its progress.
    #[must_use]
    pub fn status(&self) -> Status {
        read_status(&self.segment, self.status)
    }
}

impl Drop for ControlSegment {
    fn drop(&mut self) {
        // The next start sweeps what stays: there is nobody left to tell.
        drop(unlink(&self.name));
    }
}

/// cpu-proc's progress, for people and for watchdogs. The fields are stored one by one, so they may be of different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Grows while cpu-proc lives, also while the guest idles.
    pub heartbeat: u64,
    /// Retired instructions.
    pub icount: u64,
    /// Guest time in ns.
    pub vtime: u64,
    /// The position's epoch.
    pub epoch: u64,
    /// Number of the active channel, or `u64::MAX`.
    pub active: u64,
    /// What cpu-proc is doing: a number that it defines.
    pub phase: u64,
}

const STATUS_WORDS: usize = 6;

fn read_status(segment: &Segment, first: usize) -> Status {
    let word = |index: usize| segment.word(first + index).load(Ordering::Relaxed);
    Status { heartbeat: word(0), icount: word(1), vtime: word(2), epoch: word(3), active: word(4), phase: word(5) }
}

/// Writes the status page.
#[derive(Debug)]
pub struct StatusWriter {
    segment: Segment,
    first: usize,
}

impl StatusWriter {
    /// Replaces the status.
    pub fn set(&self, status: &Status) {
        let &Status { heartbeat, icount, vtime, epoch, active, phase } = status;
        let values: [u64; STATUS_WORDS] = [heartbeat, icount, vtime, epoch, active, phase];
        for (word, value) in self.segment.words(self.first, STATUS_WORDS).iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Reads the status page.
#[derive(Debug)]
pub struct StatusReader {
    segment: Segment,
    first: usize,
}

impl StatusReader {
    /// What cpu-proc last wrote.
    #[must_use]
    pub fn get(&self) -> Status {
        read_status(&self.segment, self.first)
    }
}

/// cpu-proc's ends of the control segment.
#[derive(Debug)]
pub struct CpuControl {
    /// To the log daemon.
    pub journal: JournalWriter,
    /// From the log daemon, in replay.
    pub script: ScriptReader,
    /// To whoever looks.
    pub status: StatusWriter,
}

impl CpuControl {
    /// Attaches cpu-proc.
    ///
    /// # Errors
    /// If there is no such segment, or it makes no sense.
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        let (segment, layout) = attach_control(name, Role::Cpu)?;
        let life = Arc::new(Life::new(segment.clone(), layout.links(layout.cpu_state, vec![layout.daemon_state])));
        let status = StatusWriter { segment: segment.clone(), first: layout.status };
        status.set(&Status { active: u64::MAX, ..Status::default() });
        let journal = JournalWriter(Outbox::new(&segment, &life, layout.journal, RingName::Journal)?);
        let script = ScriptReader(EntryInbox::new(&segment, &life, layout.script, RingName::Script)?);
        Ok(Self { journal, script, status })
    }
}

/// The log daemon's ends of the control segment.
#[derive(Debug)]
pub struct DaemonControl {
    /// From cpu-proc.
    pub journal: JournalReader,
    /// To cpu-proc, in replay.
    pub script: ScriptWriter,
    /// cpu-proc's progress.
    pub status: StatusReader,
}

impl DaemonControl {
    /// Attaches the log daemon.
    ///
    /// # Errors
    /// If there is no such segment, or it makes no sense.
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        let (segment, layout) = attach_control(name, Role::Daemon)?;
        let life = Arc::new(Life::new(segment.clone(), layout.links(layout.daemon_state, vec![layout.cpu_state])));
        let status = StatusReader { segment: segment.clone(), first: layout.status };
        let journal = JournalReader(EntryInbox::new(&segment, &life, layout.journal, RingName::Journal)?);
        let script = ScriptWriter(Outbox::new(&segment, &life, layout.script, RingName::Script)?);
        Ok(Self { journal, script, status })
    }
}

/// The writing end of an entry ring.
#[derive(Debug)]
struct Outbox {
    ring: Producer<Segment>,
    name: RingName,
    /// Shared by the two ends of one process: it leaves the segment when both are gone.
    life: Arc<Life>,
}

impl Outbox {
    fn new(segment: &Segment, life: &Arc<Life>, ring: crate::ring::Ring, name: RingName) -> Result<Self, SegmentError> {
        let ring = Producer::new(segment.clone(), ring).map_err(|problem| life.fail(name, problem))?;
        Ok(Self { ring, name, life: life.clone() })
    }

    fn try_push(&mut self, at: Position, entry: &JournalEntry, bytes: &[u8]) -> Result<Push, ChannelError> {
        self.life.check()?;
        jitter::point();
        let mut entry = entry.to_entry(at);
        if entry.kind == EntryKind::Host as u8 {
            entry.d = bytes.len() as u64;
        }
        let pushed = self.ring.push(&mut entry.to_words(), bytes, |words, off| words[6] = off);
        pushed.map_err(|problem| self.life.fail(self.name, problem))
    }

    fn push(
        &mut self,
        at: Position,
        entry: &JournalEntry,
        bytes: &[u8],
        abort: &Abort<'_>,
    ) -> Result<Option<u64>, ChannelError> {
        loop {
            let blocked = match self.try_push(at, entry, bytes)? {
                Push::Done(seq) => return Ok(Some(seq)),
                Push::Blocked(blocked) => blocked,
            };
            let interest = self.life.interest(self.ring.target(blocked, self.life.closed()), self.name);
            let kick = || self.ring.kick(blocked.side);
            if wait_one(interest, &SpinPolicy::SLEEP, None, abort, kick)? != Waited::Ready {
                return Ok(None);
            }
        }
    }
}

/// The reading end of an entry ring.
#[derive(Debug)]
struct EntryInbox {
    reader: Reader<Segment>,
    entry: Entry,
    bytes: Vec<u8>,
    held: bool,
    name: RingName,
    life: Arc<Life>,
}

/// An entry as a reader took it.
#[derive(Clone, Copy, Debug)]
pub struct EntryMsg<'a> {
    /// Its number in its ring.
    pub seq: u64,
    /// Its position.
    pub at: Position,
    /// What it says.
    pub entry: JournalEntry,
    /// The entry, as copied.
    pub raw: &'a Entry,
    /// Script ring: the bytes of a `Host` entry, as copied; else empty.
    pub bytes: &'a [u8],
}

impl EntryInbox {
    fn new(segment: &Segment, life: &Arc<Life>, ring: crate::ring::Ring, name: RingName) -> Result<Self, SegmentError> {
        let reader = Reader::new(segment.clone(), ring, Side::Peer).map_err(|problem| life.fail(name, problem))?;
        Ok(Self { reader, entry: Entry::default(), bytes: Vec::new(), held: false, name, life: life.clone() })
    }

    fn copy(&mut self) -> Result<bool, Problem> {
        let mut words = [0; 8];
        if !self.reader.read(&mut words)? {
            return Ok(false);
        }
        self.entry = Entry::from_words(words);
        self.bytes.clear();
        let Entry { seq, kind, c, d, .. } = self.entry;
        if kind == EntryKind::Host as u8 && self.name == RingName::Script && d != 0 {
            self.reader.read_arena(seq, c, d, &mut self.bytes)?;
        }
        Ok(true)
    }

    fn fetch(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        if !self.held {
            self.held = self.copy().map_err(|problem| self.life.fail(self.name, problem))?;
        }
        Ok(self.held)
    }

    fn view(&self) -> Result<EntryMsg<'_>, ChannelError> {
        let entry = JournalEntry::parse(&self.entry).map_err(|problem| self.life.fail(self.name, problem))?;
        let (seq, at) = (self.entry.seq, self.entry.position());
        Ok(EntryMsg { seq, at, entry, raw: &self.entry, bytes: &self.bytes })
    }

    fn taken(&self) -> u64 {
        self.reader.taken() - u64::from(self.held)
    }

    fn peek(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        if !self.fetch()? {
            return Ok(None);
        }
        self.view().map(Some)
    }

    fn take(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        if !self.fetch()? {
            return Ok(None);
        }
        jitter::point();
        self.held = false;
        self.view().map(Some)
    }

    fn release(&mut self, upto: u64) -> Result<(), ChannelError> {
        self.life.check()?;
        jitter::point();
        let misuse = Problem::Misuse("committed an entry that was not taken");
        let result = if upto > self.taken() { Err(misuse) } else { self.reader.release(upto) };
        result.map_err(|problem| self.life.fail(self.name, problem))
    }

    fn interest(&self, more: u64) -> Interest<'_> {
        let more = more.max(1) - u64::from(self.held);
        self.life.interest(self.reader.target(more, self.life.closed()), self.name)
    }
}

/// cpu-proc's end of the journal ring.
#[derive(Debug)]
pub struct JournalWriter(Outbox);

impl JournalWriter {
    /// Number of entries written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.ring.produced()
    }

    /// Writes an entry; waits for room if there is none. None if the wait was given up, and the entry not written.
    ///
    /// # Errors
    /// If the ring was closed, or the daemon wrote nonsense or left.
    #[inline]
    pub fn push(&mut self, at: Position, entry: &JournalEntry, abort: &Abort<'_>) -> Result<Option<u64>, ChannelError> {
        self.0.push(at, entry, &[], abort)
    }
}

/// The log daemon's end of the journal ring.
#[derive(Debug)]
pub struct JournalReader(EntryInbox);

impl JournalReader {
    /// Number of entries taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.taken()
    }

    /// The next entry without taking it.
    ///
    /// # Errors
    /// If cpu-proc wrote nonsense.
    pub fn peek(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        self.0.peek()
    }

    /// Takes the next entry, if there is one. It stays occupied until committed.
    ///
    /// # Errors
    /// If cpu-proc wrote nonsense.
    pub fn try_next(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        self.0.take()
    }

    /// Commits every entry numbered below `upto`: it is safe elsewhere, and its slot may be reused.
    ///
    /// # Errors
    /// [`Problem::Misuse`] if it was not taken yet.
    pub fn commit(&mut self, upto: u64) -> Result<(), ChannelError> {
        self.0.release(upto)
    }

    /// Whether cpu-proc is blocked until entries are committed.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.0.reader.pressed()
    }

    /// For [`wait_many`](crate::wait_many): there are `more` entries (at least 1) to take, or cpu-proc is blocked.
    #[must_use]
    pub fn on_entries(&self, more: u64) -> Interest<'_> {
        self.0.interest(more)
    }
}

/// The log daemon's end of the script ring.
#[derive(Debug)]
pub struct ScriptWriter(Outbox);

impl ScriptWriter {
    /// Number of entries written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.ring.produced()
    }

    /// Writes an entry if there is room. `bytes` are those of a `Host` entry, whose `data` is filled in here; else empty.
    ///
    /// # Errors
    /// If cpu-proc wrote nonsense, or the bytes are longer than the arena.
    pub fn try_push(&mut self, at: Position, entry: &JournalEntry, bytes: &[u8]) -> Result<Option<u64>, ChannelError> {
        self.check_bytes(entry, bytes)?;
        Ok(match self.0.try_push(at, entry, bytes)? {
            Push::Done(seq) => Some(seq),
            Push::Blocked(_) => None,
        })
    }

    /// Writes an entry; waits for room if there is none. None if the wait was given up, and the entry not written.
    ///
    /// # Errors
    /// If the ring was closed, cpu-proc wrote nonsense or left, or the bytes are longer than the arena.
    pub fn push(
        &mut self,
        at: Position,
        entry: &JournalEntry,
        bytes: &[u8],
        abort: &Abort<'_>,
    ) -> Result<Option<u64>, ChannelError> {
        self.check_bytes(entry, bytes)?;
        self.0.push(at, entry, bytes, abort)
    }

    fn check_bytes(&self, entry: &JournalEntry, bytes: &[u8]) -> Result<(), ChannelError> {
        if bytes.is_empty() || entry.kind() == EntryKind::Host {
            return Ok(());
        }
        Err(self.0.life.fail(RingName::Script, Problem::Misuse("only a Host entry carries bytes")))
    }

    /// For [`wait_many`](crate::wait_many): cpu-proc took another entry since [`Self::try_push`] last looked.
    #[must_use]
    pub fn on_room(&self) -> Interest<'_> {
        let until = self.0.ring.peer_seen() + 1;
        let target = self.0.ring.target(Blocked { side: Side::Peer, until }, self.0.life.closed());
        self.0.life.interest(target, RingName::Script)
    }
}

/// cpu-proc's end of the script ring.
#[derive(Debug)]
pub struct ScriptReader(EntryInbox);

impl ScriptReader {
    /// Number of entries taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.taken()
    }

    /// The next entry without taking it, if it is there.
    ///
    /// # Errors
    /// If the daemon wrote nonsense.
    pub fn peek(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        self.0.peek()
    }

    /// Takes the next entry, if it is there.
    ///
    /// # Errors
    /// If the daemon wrote nonsense.
    pub fn try_next(&mut self) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        if !self.0.fetch()? {
            return Ok(None);
        }
        self.0.held = false;
        // The copy is made, so the slot is free.
        self.0.release(self.0.reader.taken())?;
        self.0.view().map(Some)
    }

    /// Waits for the next entry, without taking it. None if the wait was given up.
    ///
    /// # Errors
    /// If the ring was closed, or the daemon wrote nonsense or left.
    pub fn wait_peek(&mut self, abort: &Abort<'_>) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        while !self.0.fetch()? {
            if wait_one(self.0.interest(1), &SpinPolicy::SLEEP, None, abort, || {})? != Waited::Ready {
                return Ok(None);
            }
        }
        self.0.peek()
    }

    /// Takes the next entry; waits for it. None if the wait was given up.
    ///
    /// # Errors
    /// If the ring was closed, or the daemon wrote nonsense or left.
    pub fn wait_next(&mut self, abort: &Abort<'_>) -> Result<Option<EntryMsg<'_>>, ChannelError> {
        if self.wait_peek(abort)?.is_none() {
            return Ok(None);
        }
        self.try_next()
    }

    /// For [`wait_many`](crate::wait_many): there is an entry to take.
    #[must_use]
    pub fn on_entry(&self) -> Interest<'_> {
        self.0.interest(1)
    }
}
