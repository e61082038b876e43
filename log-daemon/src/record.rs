//! Recording: drain the rings in batches, write causally closed chunks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reprise_channel::{Abort, DaemonControl, EndReason, Event, Interest, SpinPolicy, TapPort, wait_many};
use reprise_child::Control;
use reprise_child::control::{FromChild, LogFinished, LogStart, Totals};
use reprise_recording::{DirMedium, End, Entry, Manifest, Writer, WriterOptions, journal};

use crate::collect::Collector;
use crate::convert;
use crate::signals::Signals;

/// A chunk is written when this much time has passed since the last one: what a `kill -9` can cost.
const CHUNK_EVERY: Duration = Duration::from_secs(1);
/// A chunk is written when this many bytes of memory wait for one.
const CHUNK_BYTES: usize = 4 << 20;
/// More than this without a progress mark means that cpu-proc does not make any.
const MOST_PENDING: usize = 256 << 20;
/// Messages that gather in a ring before the daemon is woken; it must not steal a core for each one.
const BATCH: u64 = 1024;

/// The recording side of the daemon.
pub(crate) struct Recorder {
    control: DaemonControl,
    taps: Vec<TapPort>,
    collector: Collector,
    writer: Option<Writer<DirMedium>>,
    chunks: u64,
    bytes: u64,
    failure: Option<String>,
    last_chunk: Instant,
    end: Option<(Entry, Option<Entry>)>,
}

impl Recorder {
    /// Attaches everything and opens the recording, whose manifest the supervisor has written.
    pub(crate) fn new(start: &LogStart) -> Result<Self> {
        let control = DaemonControl::attach(&start.control_segment).context("attaching the control segment")?;
        let taps = start
            .channels
            .iter()
            .map(|c| TapPort::attach(&c.segment).with_context(|| format!("attaching channel {:?}", c.name)))
            .collect::<Result<Vec<_>>>()?;
        let dir = Path::new(&start.dir_path);
        let manifest = std::fs::read(dir.join(reprise_recording::MANIFEST_FILE))
            .context("reading the new recording's manifest")?;
        let manifest = Manifest::parse(&manifest).context("the new recording's manifest")?;
        let writer = Writer::begin(DirMedium::adopt(dir), &manifest, WriterOptions::default())
            .context("opening the recording")?;
        Ok(Self {
            control,
            collector: Collector::new(taps.len()),
            taps,
            chunks: 0,
            bytes: writer.bytes(),
            writer: Some(writer),
            failure: None,
            last_chunk: Instant::now(),
            end: None,
        })
    }

    /// Records until the supervisor says that nothing more will come.
    pub(crate) fn run(&mut self, signals: &Signals, control: &Control) -> Result<LogFinished> {
        loop {
            let finish = signals.finish();
            self.drain()?;
            self.write_if_due(finish.is_some(), control)?;
            if let Some(totals) = finish {
                return self.finish(&totals, control);
            }
            self.wait(signals)?;
        }
    }

    /// Copies everything that is in the rings, and frees it there. The journal goes first: what its marks name is in the rings by then.
    fn drain(&mut self) -> Result<()> {
        let journal = &mut self.control.journal;
        while let Some(m) = journal.try_next().context("the journal")? {
            let e = convert::record(m.raw);
            match e.kind {
                journal::END => self.end = Some((e, None)),
                journal::END_HASH => {
                    if let Some(end) = &mut self.end {
                        end.1 = Some(e);
                    }
                }
                _ => {}
            }
            self.collector.journal(e);
        }
        journal.commit(journal.taken()).context("the journal")?;
        for (c, tap) in self.taps.iter_mut().enumerate() {
            // A poisoned channel ends its machine through cpu-proc; the daemon keeps what came before.
            while let Ok(Some(m)) = tap.next_request() {
                self.collector.request(c, convert::message(m.slot, m.arena, m.seq));
            }
            while let Ok(Some(m)) = tap.next_event() {
                match (m.effect, m.event) {
                    (Some(number), _) => self.collector.effect(c, convert::message(m.slot, m.arena, number)),
                    (None, Event::HostOut { port, data }) => self.collector.output(c, port, data),
                    (None, _) => {}
                }
            }
            // Nothing to free where the channel has failed.
            let _ = tap.commit();
        }
        Ok(())
    }

    fn write_if_due(&mut self, last: bool, control: &Control) -> Result<()> {
        let pending = self.collector.pending_bytes();
        if pending > MOST_PENDING {
            self.fail(format!("{pending} bytes wait for a progress mark of the CPU process"), control)?;
            self.collector = Collector::new(self.taps.len());
        }
        if !last && self.last_chunk.elapsed() < CHUNK_EVERY && pending < CHUNK_BYTES || !self.collector.can_cut() {
            return Ok(());
        }
        self.last_chunk = Instant::now();
        let chunk = match self.collector.cut() {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(()),
            Err(e) => return self.fail(e.to_string(), control),
        };
        let Some(w) = &mut self.writer else { return Ok(()) };
        if let Err(e) = w.append(&chunk) {
            return self.fail(format!("writing the recording: {e}"), control);
        }
        (self.chunks, self.bytes) = (w.chunks(), w.bytes());
        Ok(())
    }

    /// The recording ends here; what was written stays good. The rings are still drained, so that nobody hangs.
    fn fail(&mut self, text: String, control: &Control) -> Result<()> {
        self.writer = None;
        if self.failure.is_none() {
            control.send(&FromChild::LogFailed { text: text.clone() })?;
            self.failure = Some(text);
        }
        Ok(())
    }

    fn wait(&mut self, signals: &Signals) -> Result<()> {
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

    fn finish(&mut self, totals: &Totals, control: &Control) -> Result<LogFinished> {
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
