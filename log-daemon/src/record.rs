//! Recording: drain the rings in batches, write causally closed chunks.
//!
//! The daemon may be killed at any moment. What it takes from a ring goes to the staging memory before the ring's cursor passes it, and leaves it when
//! the chunk that holds it is written. So the next daemon finds everything, once: see [`Recorder::resume`].

use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reprise_channel::{Abort, DaemonControl, EndReason, Event, Interest, SpinPolicy, TapPort, wait_many};
use reprise_child::Control;
use reprise_child::control::{FromChild, LogFinished, LogStart, SwapNote, Totals};
use reprise_recording::{
    Chunk, DirMedium, End, Entry, MAX_CHUNK_RECORDS, Resumed, Swap, Writer, WriterOptions, journal,
};

use crate::collect::{Base, Collector};
use crate::convert;
use crate::signals::Signals;
use crate::staging::{Item, Staging};
use crate::transfer::{Images, hash_read, pack};

/// A chunk is written when this much time has passed since the last one: what a `kill -9` of the machine can cost.
const CHUNK_EVERY: Duration = Duration::from_secs(1);
/// A chunk is written when this many bytes of memory wait for one.
const CHUNK_BYTES: usize = 4 << 20;
/// More than this without a progress mark means that cpu-proc does not make any. With staging memory its size is the limit.
const MOST_PENDING: usize = 256 << 20;
/// Messages that gather in a ring before the daemon is woken; it must not steal a core for each one.
const BATCH: u64 = 1024;
/// After so many messages at once the daemon does not wait to be woken, but comes again after [`NAP`].
const BUSY: u64 = 128;
/// Short enough that no ring of the usual size fills in it.
const NAP: Duration = Duration::from_micros(300);

/// Where a test may kill the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// An item is copied to the staging memory and does not count yet.
    Copied,
    /// It counts; the ring's cursor has not passed it.
    Staged,
    /// Some cursors are committed.
    Committed,
    /// A chunk is taken from what waits.
    Cut,
    /// It is in the recording.
    Written,
    /// What it left is laid into the other half of the staging memory.
    Prepared,
    /// That half counts.
    Switched,
    /// The final record is written.
    Finished,
}

/// What a test puts there: true kills the daemon.
type Fuse = Box<dyn FnMut(Point) -> bool + Send>;

/// Where the messages to the supervisor go.
pub(crate) trait Tell {
    /// Says something.
    fn tell(&self, what: FromChild) -> Result<()>;
}

impl Tell for Control {
    fn tell(&self, what: FromChild) -> Result<()> {
        Ok(self.send(&what)?)
    }
}

/// The recording side of the daemon.
pub(crate) struct Recorder {
    control: DaemonControl,
    taps: Vec<TapPort>,
    collector: Collector,
    staging: Option<Staging>,
    /// Taken from a ring, when the staging memory was full.
    waiting: Option<Item>,
    images: Images,
    dma_reads: bool,
    writer: Option<Writer<DirMedium>>,
    /// The recording has its end already.
    complete: bool,
    chunks: u64,
    bytes: u64,
    failure: Option<String>,
    last_chunk: Instant,
    /// Taken since the last wait.
    lately: u64,
    end: Option<(Entry, Option<Entry>)>,
    fuse: Option<Fuse>,
}

impl Recorder {
    /// Attaches everything and opens the recording, whose manifest the supervisor has written, and which an earlier daemon may have begun.
    pub(crate) fn new(start: &LogStart) -> Result<Self> {
        Self::build(start, None, MAX_CHUNK_RECORDS)
    }

    /// `limit`: most records of a chunk.
    fn build(start: &LogStart, fuse: Option<Fuse>, limit: usize) -> Result<Self> {
        let control = DaemonControl::attach(&start.control_segment).context("attaching the control segment")?;
        let taps = start
            .channels
            .iter()
            .map(|c| TapPort::attach(&c.segment).with_context(|| format!("attaching channel {:?}", c.name)))
            .collect::<Result<Vec<_>>>()?;
        let (writer, resumed) =
            Writer::resume(Path::new(&start.dir_path), WriterOptions::default()).context("opening the recording")?;
        let mut recorder = Self {
            control,
            collector: Collector::new(taps.len()).limited(limit),
            taps,
            staging: None,
            waiting: None,
            images: Images::new(&start.disks)?,
            dma_reads: start.log_dma_reads,
            chunks: writer.chunks(),
            bytes: writer.bytes(),
            writer: Some(writer),
            complete: resumed.complete,
            failure: None,
            last_chunk: Instant::now(),
            lately: 0,
            end: None,
            fuse,
        };
        // SAFETY: the supervisor made this descriptor for this process and names it once; nothing else here owns it.
        let staging = start.staging.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        recorder.resume(staging.as_ref(), resumed)?;
        Ok(recorder)
    }

    /// Goes on where an earlier daemon was killed.
    ///
    /// The staging memory says how many chunks there were when it was last tidied up, and holds all that was taken since. If the recording has more,
    /// the daemon died after writing them: the same are cut again, and those that are there thrown away. All that the rings hold from
    /// their cursors on and that is staged is skipped by its number.
    fn resume(&mut self, staging: Option<&OwnedFd>, resumed: Resumed) -> Result<()> {
        if resumed.cut_off > 0 {
            tracing::debug!("{} bytes of a chunk that was not written to its end are cut off", resumed.cut_off);
        }
        let Some(fd) = staging else {
            return if self.chunks == 0 {
                Ok(())
            } else {
                bail!("the recording has begun, and there is no staging memory")
            };
        };
        let (staging, left) = Staging::map(fd)?;
        self.staging = Some(staging);
        let Some((base, items)) = left else {
            return if self.chunks == 0 {
                self.tidy()
            } else {
                bail!("the recording has begun, and the staging memory is empty")
            };
        };
        if base.channels.len() != self.taps.len() {
            bail!("the staging memory is of another machine");
        }
        let before = base.chunks;
        items.iter().for_each(|item| self.note_end(item));
        self.collector = Collector::resume(base, items).limited(self.collector.limit);
        if let Some(last) = &resumed.last {
            last.journal.iter().for_each(|e| self.note_end(&Item::Journal(*e)));
        }
        match self.chunks.checked_sub(before) {
            Some(0) => Ok(()),
            Some(1) if self.complete => Ok(()),
            Some(written) => {
                let again = self.collector.cut().map_err(|e| anyhow::anyhow!("{e}"))?;
                let last = resumed.last.map(|c| Chunk { seq: 0, ..c });
                let written = usize::try_from(written)?;
                if again.get(written - 1) != last.as_ref() {
                    bail!("the recording's last chunk is not what the staging memory holds");
                }
                for chunk in &again[written..] {
                    self.append(chunk).context("writing the recording")?;
                }
                self.tidy()
            }
            None => bail!("the recording has {} chunks, the staging memory says {before}", self.chunks),
        }
    }

    /// Whether the daemon is killed here: in a test.
    fn at(&mut self, point: Point) -> Result<()> {
        if self.fuse.as_mut().is_some_and(|fuse| fuse(point)) {
            bail!("killed at {point:?}");
        }
        Ok(())
    }

    /// Drops from the staging memory what is in chunks.
    fn tidy(&mut self) -> Result<()> {
        let base: Base = self.collector.base(self.chunks);
        let Some(staging) = &mut self.staging else { return Ok(()) };
        // What was staged fits, as it did before.
        if !staging.prepare(&base, self.collector.waiting().iter()) {
            bail!("what waits for a chunk does not fit into the staging memory");
        }
        self.at(Point::Prepared)?;
        if let Some(staging) = &mut self.staging {
            staging.switch();
        }
        self.at(Point::Switched)
    }

    /// Records until the supervisor says that nothing more will come.
    pub(crate) fn run(&mut self, signals: &Signals, control: &Control) -> Result<LogFinished> {
        loop {
            let finish = signals.finish();
            self.note_swaps(signals, control)?;
            self.turn(finish.is_some(), control)?;
            if let Some(totals) = finish {
                return self.finish(&totals, control);
            }
            self.wait(signals)?;
        }
    }

    /// Takes what there is, and writes it if it is time to.
    fn turn(&mut self, last: bool, control: &dyn Tell) -> Result<()> {
        loop {
            let all = self.drain()?;
            self.write_if_due(last || !all, control)?;
            if all {
                return Ok(());
            }
            if self.waiting.as_ref().is_some_and(|_| !self.collector.can_cut()) && self.full()? {
                let limit = self.staging.as_ref().map_or(0, Staging::capacity);
                self.fail(format!("{limit} bytes wait for a progress mark of the CPU process"), control)?;
            }
        }
    }

    /// Whether even what waits for the staging memory has no room in it. If it has, it is in there now.
    fn full(&mut self) -> Result<bool> {
        match self.waiting.take() {
            Some(item) => Ok(!self.stage(item)?),
            None => Ok(false),
        }
    }

    fn note_swaps(&mut self, signals: &Signals, control: &dyn Tell) -> Result<()> {
        for s in signals.swaps() {
            let SwapNote { channel, request, hash, name, version, config } = s;
            let swap = Swap { channel, request, hash, name, version, config };
            while !self.stage(Item::Swap(swap.clone()))? {
                self.turn(true, control)?;
            }
            control.tell(FromChild::SwapNoted { channel, request })?;
        }
        Ok(())
    }

    /// Takes something, to where it is safe. False if there is no room for it: then it waits for the next time.
    fn stage(&mut self, item: Item) -> Result<bool> {
        self.lately += 1;
        // After a failure nothing is kept.
        if self.writer.is_none() {
            self.collector.take(item);
            return Ok(true);
        }
        if let Some(staging) = &mut self.staging {
            if !staging.put(&item) {
                self.waiting = Some(item);
                return Ok(false);
            }
            self.at(Point::Copied)?;
            if let Some(staging) = &mut self.staging {
                staging.publish();
            }
            self.at(Point::Staged)?;
        }
        self.note_end(&item);
        self.collector.take(item);
        Ok(true)
    }

    fn note_end(&mut self, item: &Item) {
        match item {
            Item::Journal(e) if e.kind == journal::END => self.end = Some((*e, None)),
            Item::Journal(e) if e.kind == journal::END_HASH => {
                if let Some(end) = &mut self.end {
                    end.1 = Some(*e);
                }
            }
            _ => {}
        }
    }

    /// Copies everything that is in the rings, and frees it there. The journal goes first: what its marks name is in the rings by then. False if
    /// not all of it had room.
    fn drain(&mut self) -> Result<bool> {
        let mut room = match self.waiting.take() {
            Some(item) => self.stage(item)?,
            None => true,
        };
        while room {
            let Some(m) = self.control.journal.try_next().context("the journal")? else { break };
            // An earlier daemon took it, and died before it could say so.
            if m.seq < self.collector.taken() {
                continue;
            }
            let e = convert::record(m.raw);
            room = self.stage(Item::Journal(e))?;
        }
        self.control.journal.commit(self.collector.taken()).context("the journal")?;
        self.at(Point::Committed)?;
        for c in 0..self.taps.len() {
            // A poisoned channel ends its machine through cpu-proc; the daemon keeps what came before.
            while room {
                let Some(item) = self.next_request(c) else { break };
                room = self.stage(item)?;
            }
            while room {
                let Some(item) = self.next_event(c) else { break };
                room = self.stage(item)?;
            }
            let (requests, events) = (self.collector.channel(c).requests, self.collector.channel(c).events);
            // Nothing to free where the channel has failed.
            let _ = self.taps[c].commit_requests(requests).and_then(|()| self.taps[c].commit_events(events));
            self.at(Point::Committed)?;
        }
        Ok(room)
    }

    /// The next request of a channel that no daemon has taken yet.
    fn next_request(&mut self, c: usize) -> Option<Item> {
        let taken = self.collector.channel(c).requests;
        loop {
            let m = self.taps[c].next_request().ok()??;
            if m.seq >= taken {
                let message = convert::message(m.slot, m.arena, m.seq);
                return Some(Item::Request(c as u16, if self.dma_reads { message } else { hash_read(message) }));
            }
        }
    }

    /// The next event of a channel that no daemon has taken yet. Effects are numbered here, as the tap's own count begins anew with each daemon.
    fn next_event(&mut self, c: usize) -> Option<Item> {
        let (taken, number) = (self.collector.channel(c).events, self.collector.channel(c).effects);
        let channel = c as u16;
        loop {
            let m = self.taps[c].next_event().ok()??;
            if m.seq < taken {
                continue;
            }
            return Some(match (m.effect, m.event) {
                (Some(_), _) => {
                    let (seq, checksum) = (m.seq, m.checksum());
                    let message = convert::message(m.slot, m.arena, number);
                    let images = &mut self.images;
                    let packed = pack(message, |from, bytes| images.same(channel, from, bytes));
                    Item::Effect(channel, seq, checksum, packed)
                }
                (None, Event::HostOut { port, data }) => Item::Output(channel, m.seq, port, data.to_vec()),
                (None, _) => Item::Side(channel, m.seq),
            });
        }
    }

    /// The CPU process has written the last entry of the journal.
    fn ended(&self) -> bool {
        self.end.as_ref().is_some_and(|(_, hash)| hash.is_some())
    }

    fn write_if_due(&mut self, last: bool, control: &dyn Tell) -> Result<()> {
        let pending = self.collector.pending_bytes();
        if pending > MOST_PENDING {
            self.fail(format!("{pending} bytes wait for a progress mark of the CPU process"), control)?;
        }
        let due = self.last_chunk.elapsed() >= CHUNK_EVERY || pending >= CHUNK_BYTES;
        // What devices still write when the CPU has ended belongs to the last chunk: the journal closes no other.
        if !last && (!due || self.ended()) || !self.collector.can_cut() {
            return Ok(());
        }
        self.last_chunk = Instant::now();
        // More than once if one chunk can't hold it all.
        while self.collector.can_cut() {
            let chunks = match self.collector.cut() {
                Ok(chunks) => chunks,
                Err(e) => return self.fail(e.to_string(), control),
            };
            self.at(Point::Cut)?;
            if self.writer.is_none() {
                continue;
            }
            for chunk in &chunks {
                if let Err(e) = self.append(chunk) {
                    return self.fail(format!("writing the recording: {e}"), control);
                }
                self.at(Point::Written)?;
            }
            self.tidy()?;
        }
        Ok(())
    }

    /// Writes a chunk.
    fn append(&mut self, chunk: &Chunk) -> Result<(), reprise_recording::Error> {
        if let Some(w) = &mut self.writer {
            w.append(chunk)?;
            (self.chunks, self.bytes) = (w.chunks(), w.bytes());
        }
        Ok(())
    }

    /// The recording ends here; what was written stays good. The rings are still drained, so that nobody hangs.
    fn fail(&mut self, text: String, control: &dyn Tell) -> Result<()> {
        self.writer = None;
        if let Some(item) = self.waiting.take() {
            self.collector.take(item);
        }
        let base = self.collector.base(self.chunks);
        self.collector = Collector::resume(base, Vec::new());
        if self.failure.is_none() {
            control.tell(FromChild::LogFailed { text: text.clone() })?;
            self.failure = Some(text);
        }
        Ok(())
    }

    fn wait(&mut self, signals: &Signals) -> Result<()> {
        if std::mem::take(&mut self.lately) >= BUSY {
            // More is coming. To arm a word of each ring and be woken costs more than all that is taken.
            std::thread::sleep(NAP);
            return Ok(());
        }
        let mut interests: Vec<Interest<'_>> = vec![self.control.journal.on_entries(BATCH)];
        for t in &self.taps {
            interests.push(t.on_requests(BATCH));
            interests.push(t.on_events(BATCH));
        }
        let abort = Abort::after(CHUNK_EVERY).or_rung(&signals.bell);
        if wait_many(&interests, &SpinPolicy::SLEEP, &abort).is_err() {
            // A channel was closed: its machine is ending. Look round now and then until the supervisor says so.
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn finish(&mut self, totals: &Totals, control: &dyn Tell) -> Result<LogFinished> {
        if let Some(writer) = self.writer.take_if(|_| self.complete) {
            // An earlier daemon wrote the final record and died before it could say so.
            self.bytes = writer.close().context("writing the index")?;
        }
        let left = self.collector.output_bytes();
        if left > 0 && self.ended() && self.writer.is_some() {
            self.fail(format!("{left} bytes of output came when the last chunk was written"), control)?;
        }
        if let (Some((end, Some(hash))), Some(writer)) = (self.end.take(), self.writer.take()) {
            let mut state_hash = [0; 32];
            for (out, word) in state_hash.chunks_exact_mut(8).zip([hash.a, hash.b, hash.c, hash.d]) {
                out.copy_from_slice(&word.to_le_bytes());
            }
            let record = End {
                reason: end.a as u32,
                detail: reason_text(end.a).into(),
                at: end.at,
                icount: end.b,
                vtime: end.c,
                state_hash,
                device_hash: totals.device_hash,
                console_hash: totals.console_hash,
                console_bytes: totals.console_bytes,
            };
            self.chunks += 1;
            match writer.finish(&record) {
                Ok(bytes) => self.bytes = bytes,
                Err(e) => self.fail(format!("writing the recording's end: {e}"), control)?,
            }
            self.at(Point::Finished)?;
        }
        Ok(LogFinished {
            chunks: self.chunks,
            bytes: self.bytes,
            events: self.collector.records(),
            failure: self.failure.take(),
            ..LogFinished::default()
        })
    }
}

/// Why a run ended, for people.
fn reason_text(reason: u64) -> &'static str {
    match u8::try_from(reason).ok().and_then(|r| EndReason::try_from(r).ok()) {
        Some(EndReason::PowerOff) => "the guest powered off",
        Some(EndReason::Reboot) => "the guest asked for a reset",
        Some(EndReason::Stopped) => "stopped by the user",
        Some(EndReason::Limit) => "the instruction limit was reached",
        Some(EndReason::Dead) => "the guest can never run again",
        Some(EndReason::DeviceFault) => "a device failed",
        Some(EndReason::Panic) => "the guest reported a panic",
        Some(EndReason::Internal) | None => "an internal condition",
    }
}

#[cfg(test)]
mod tests;
