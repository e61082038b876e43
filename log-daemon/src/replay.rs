//! Replaying: deliver the journal to cpu-proc, stand in for the devices or compare them, and check every message against the recording.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use reprise_channel::{
    Abort, DaemonControl, DevicePort, Event, Interest, JournalEntry, Position, Role, SpinPolicy, TapPort, wait_many,
};
use reprise_child::Control;
use reprise_child::control::{FromChild, LogConsole, LogFinished, LogStart, Mode, RecordedEnd};
use reprise_recording::{Chunk, Chunks, Message, Recording, Status, journal, message};

use crate::convert;
use crate::signals::Signals;
use crate::transfer::{Images, unpack};
use crate::verify::{Difference, Expected};

/// Script entries that are read ahead of what the ring has room for.
const AHEAD: usize = 4096;
/// How long the daemon looks for work before it sleeps, in the devices' place: cpu-proc may wait for it.
const SPIN: Duration = Duration::from_micros(200);
/// Messages that gather in a ring before the daemon is woken, with devices alongside.
const BATCH: u64 = 1024;

/// One journal entry on its way to cpu-proc.
struct ScriptEntry {
    at: Position,
    entry: JournalEntry,
    bytes: Vec<u8>,
}

enum Ends {
    /// Devices alongside.
    Taps(Vec<TapPort>),
    /// In the devices' place.
    Devices(Vec<DevicePort>),
}

/// The output of a device, in a replay without devices.
struct Console {
    channel: usize,
    file: Option<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

/// The replaying side of the daemon.
pub(crate) struct Replayer {
    recording: Recording,
    control: DaemonControl,
    ends: Ends,
    names: Vec<String>,
    console: Option<Console>,
    screens: Vec<Console>,
    script: VecDeque<ScriptEntry>,
    expected: Vec<Expected>,
    images: Images,
    end: LogFinished,
    events: u64,
    read_all: bool,
    saw_end: bool,
    broken: bool,
}

impl Replayer {
    /// Attaches everything and opens the recording.
    pub(crate) fn new(start: &LogStart) -> Result<Self> {
        let recording = Recording::open(Path::new(&start.dir_path)).context("opening the recording")?;
        let control = DaemonControl::attach(&start.control_segment).context("attaching the control segment")?;
        let at = |name: &str| format!("attaching channel {name:?}");
        let ends = if start.common.mode == Mode::Verify {
            let taps = start.channels.iter().map(|c| TapPort::attach(&c.segment).with_context(|| at(&c.name)));
            Ends::Taps(taps.collect::<Result<_>>()?)
        } else {
            let ports = start
                .channels
                .iter()
                .map(|c| DevicePort::attach(&c.segment, Role::DaemonAsDevice).with_context(|| at(&c.name)));
            Ends::Devices(ports.collect::<Result<_>>()?)
        };
        let console = |c: LogConsole| {
            // SAFETY: the supervisor made this descriptor for this process and names it once; nothing else here owns it.
            let file = Some(File::from(unsafe { OwnedFd::from_raw_fd(c.output) }));
            Console { channel: usize::from(c.channel), file, hash: blake3::Hasher::new(), bytes: 0 }
        };
        Ok(Self {
            recording,
            control,
            ends,
            names: start.channels.iter().map(|c| c.name.clone()).collect(),
            console: start.console.map(console),
            screens: start.screens.iter().copied().map(console).collect(),
            script: VecDeque::new(),
            expected: start.channels.iter().map(|_| Expected::default()).collect(),
            images: Images::new(&start.disks)?,
            end: LogFinished::default(),
            events: 0,
            read_all: false,
            saw_end: false,
            broken: false,
        })
    }

    /// Replays until the supervisor says that nothing more will come.
    pub(crate) fn run(&mut self, signals: &Signals, control: &Control) -> Result<LogFinished> {
        let recording = Recording::open(self.recording.dir())?;
        let mut chunks = recording.chunks();
        let mut idle_since = Instant::now();
        loop {
            let finish = signals.finish().is_some();
            self.read_ahead(&mut chunks)?;
            let mut busy = self.deliver()?;
            match self.channels() {
                Ok(any) => busy |= any,
                Err(d) => self.report(&d, control)?,
            }
            if finish && !busy {
                return self.finish(&chunks);
            }
            if busy {
                idle_since = Instant::now();
            } else {
                self.wait(signals, idle_since)?;
            }
        }
    }

    /// Reads chunks until enough of the journal is at hand.
    fn read_ahead(&mut self, chunks: &mut Chunks<'_>) -> Result<()> {
        while !self.read_all && self.script.len() < AHEAD {
            match chunks.next() {
                Some(Ok(chunk)) => self.add(chunk)?,
                Some(Err(e)) => {
                    self.end.failure = Some(format!("{e}"));
                    self.at_end(chunks)?;
                }
                None => self.at_end(chunks)?,
            }
        }
        Ok(())
    }

    /// The recording has no more whole chunks.
    fn at_end(&mut self, chunks: &Chunks<'_>) -> Result<()> {
        self.read_all = true;
        for e in &mut self.expected {
            e.complete = true;
        }
        match chunks.status() {
            Status::Complete(e) => {
                self.end.recorded = Some(RecordedEnd {
                    icount: e.icount,
                    state_hash: e.state_hash,
                    device_hash: e.device_hash,
                    console_hash: e.console_hash,
                    console_bytes: e.console_bytes,
                });
            }
            Status::Corrupt(f) => {
                self.end.failure.get_or_insert(f.to_string());
            }
            Status::Truncated { .. } | Status::Live { .. } => self.end.cut = true,
        }
        if !self.saw_end {
            self.end.cut = true;
            let at = self.script.back().map_or(Position::default(), |e| e.at);
            self.script.push_back(ScriptEntry { at, entry: JournalEntry::Cut, bytes: Vec::new() });
        }
        Ok(())
    }

    /// Takes a chunk apart.
    fn add(&mut self, mut chunk: Chunk) -> Result<()> {
        self.end.chunks += 1;
        for e in &chunk.journal {
            let ring = convert::script(e);
            let mut entry = JournalEntry::parse(&ring).map_err(|p| anyhow!("journal entry {}: {p}", e.seq))?;
            let mut bytes = Vec::new();
            if e.kind == journal::HOST {
                let m = host_request(&chunk, e.channel, e.a).with_context(|| {
                    format!(
                        "journal entry {} admits host input with request {}, which its chunk does not hold",
                        e.seq, e.a
                    )
                })?;
                bytes = m.payload().to_vec();
                entry = JournalEntry::Host {
                    channel: e.channel,
                    request: e.a,
                    data: (0, bytes.len() as u64),
                    port: m.offset,
                };
            }
            self.saw_end |= e.kind == journal::END_HASH;
            self.events += u64::from(!matches!(e.kind, journal::PROGRESS | journal::MARK));
            self.script.push_back(ScriptEntry { at: ring.position(), entry, bytes });
        }
        for (c, records) in std::mem::take(&mut chunk.channels) {
            self.events += (records.requests.len() + records.effects.len()) as u64;
            let Some(e) = self.expected.get_mut(usize::from(c)) else {
                bail!("the recording holds channel {c}, which its machine does not have")
            };
            e.add(records);
        }
        self.output();
        Ok(())
    }

    /// In the devices' place: the bytes of console and screens go where their devices would have sent them.
    fn output(&mut self) {
        for to in self.console.iter_mut().chain(&mut self.screens) {
            let Some(expected) = self.expected.get_mut(to.channel) else { continue };
            for o in expected.output.drain(..) {
                to.hash.update(&o.data);
                to.bytes += o.data.len() as u64;
                // What the device put out on its other ports was shown to nobody here.
                if let Some(f) = to.file.as_mut().filter(|_| o.port == 0) {
                    if f.write_all(&o.data).is_err() {
                        // A closed terminal does not end a replay.
                        to.file = None;
                    }
                }
            }
        }
    }

    /// Hands journal entries to cpu-proc as far as there is room.
    fn deliver(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some(e) = self.script.front() {
            match self.control.script.try_push(e.at, &e.entry, &e.bytes) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) if e.is_end() => break,
                Err(e) => return Err(e).context("the script ring"),
            }
            self.script.pop_front();
            any = true;
        }
        Ok(any)
    }

    /// Works off what the channels hold.
    fn channels(&mut self) -> Result<bool, Difference> {
        let mut any = false;
        match &mut self.ends {
            Ends::Taps(taps) => {
                for (c, tap) in taps.iter_mut().enumerate() {
                    any |= tapped(c, tap, &mut self.expected[c], self.broken)?;
                }
            }
            Ends::Devices(ports) => {
                for (c, port) in ports.iter_mut().enumerate() {
                    any |= stand_in(c, port, &mut self.expected[c], &mut self.images, self.broken)?;
                }
            }
        }
        Ok(any)
    }

    /// The first difference goes to the supervisor, which ends the replay; from then on the rings are only drained.
    fn report(&mut self, d: &Difference, control: &Control) -> Result<()> {
        self.broken = true;
        let name = self.names.get(d.channel).map_or("?", String::as_str);
        let text = format!(
            "diverged on channel {name:?}, {}\n  expected (recorded): {}\n  actual (replayed):   {}",
            d.what, d.expected, d.actual
        );
        if self.end.divergence.is_none() {
            self.end.divergence = Some(text.clone());
            control.send(&FromChild::Diverged { text })?;
        }
        Ok(())
    }

    fn wait(&self, signals: &Signals, idle_since: Instant) -> Result<()> {
        let mut interests: Vec<Interest<'_>> = Vec::new();
        if !self.script.is_empty() {
            interests.push(self.control.script.on_room());
        }
        let (limit, more) = match &self.ends {
            Ends::Taps(taps) => {
                for t in taps {
                    interests.push(t.on_requests(BATCH));
                    interests.push(t.on_events(BATCH));
                }
                (Duration::from_millis(100), BATCH)
            }
            Ends::Devices(ports) => {
                if idle_since.elapsed() < SPIN {
                    std::thread::yield_now();
                    return Ok(());
                }
                for (p, e) in ports.iter().zip(&self.expected) {
                    interests.push(p.on_request());
                    if !e.effects.is_empty() {
                        interests.push(p.on_room());
                    }
                }
                (Duration::from_millis(100), 1)
            }
        };
        let abort = Abort::after(limit).or_rung(&signals.bell);
        if wait_many(&interests, &SpinPolicy::SLEEP, &abort).is_err() {
            // A channel has ended: its machine is ending. Look round now and then until the supervisor says so.
            std::thread::sleep(Duration::from_millis(more.min(5)));
        }
        Ok(())
    }

    fn finish(&mut self, chunks: &Chunks<'_>) -> Result<LogFinished> {
        let _ = chunks;
        let mut end = std::mem::take(&mut self.end);
        end.events = self.events;
        end.bytes = self.recording.segment_bytes()?.iter().sum::<u64>() + self.recording.index_bytes();
        if let Some(c) = &self.console {
            end.console_bytes = c.bytes;
            end.console_hash = *c.hash.finalize().as_bytes();
        }
        Ok(end)
    }
}

/// The request that carries a host input.
fn host_request(chunk: &Chunk, channel: u16, number: u64) -> Option<&Message> {
    chunk.channels.get(&channel)?.requests.iter().find(|m| m.number == number && m.kind == message::HOST)
}

/// Devices alongside: compares what both ends say.
fn tapped(c: usize, tap: &mut TapPort, expected: &mut Expected, broken: bool) -> Result<bool, Difference> {
    let mut any = false;
    let mut result = Ok(());
    while let Ok(Some(m)) = tap.next_request() {
        any = true;
        if !broken && result.is_ok() {
            result = expected.request(c, convert::message(m.slot, m.arena, m.seq)).map(drop);
        }
    }
    while let Ok(Some(m)) = tap.next_event() {
        any = true;
        if let (Some(number), false, true) = (m.effect, broken, result.is_ok()) {
            result = expected.effect(c, convert::message(m.slot, m.arena, number)).map(drop);
        }
    }
    // Nothing to free where the channel has failed.
    let _ = tap.commit();
    result.map(|()| any)
}

/// In a device's place: sends the recorded effects as far ahead as the ring allows, and checks the requests.
fn stand_in(
    c: usize,
    port: &mut DevicePort,
    expected: &mut Expected,
    images: &mut Images,
    broken: bool,
) -> Result<bool, Difference> {
    let mut any = false;
    while let Some(m) = expected.effects.front_mut() {
        let impossible = |m: &Message, actual: String| {
            let expected = crate::verify::show(m);
            Difference { channel: c, what: format!("effect {}", m.number), expected, actual }
        };
        if m.flags != 0 {
            *m = unpack(m, |from, to| images.read(c as u16, from, to)).map_err(|why| impossible(m, why))?;
        }
        let slot = convert::slot(m);
        let Ok(event) = Event::parse(&slot, &m.data) else {
            return Err(impossible(m, "no effect that a device can have".into()));
        };
        match port.try_emit(m.cause, &event) {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
        any = true;
        expected.seen_effects += 1;
        expected.effects.pop_front();
    }
    // A request is done when its effects are in the ring: no further than the effects that are still to be sent.
    let limit = expected.effects.front().map_or(u64::MAX, |m| m.cause);
    while port.requests_taken() < limit {
        let Ok(Some(m)) = port.try_request() else { break };
        any = true;
        let checked = match broken {
            true => Ok(()),
            false => expected.request(c, convert::message(m.slot, m.arena, m.seq)).map(drop),
        };
        // Also one that is not what was recorded: cpu-proc, which is told to stop, waits for the last one that it has sent.
        let completed = port.complete();
        checked?;
        if completed.is_err() {
            break;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use reprise_channel::{ChannelConfig, ChannelSegment, CpuPort, Request};
    use reprise_recording::ChannelRecords;

    use super::*;

    /// cpu-proc waits for the last request that it has sent, though the replay is over.
    #[test]
    fn a_request_that_differs_is_done_all_the_same() {
        let name = format!("reprise-test-{}-differs", std::process::id());
        let channel = ChannelSegment::create(&name, &ChannelConfig::new(0, "uart0", false)).unwrap();
        let mut cpu = CpuPort::attach(channel.name()).unwrap();
        let mut port = DevicePort::attach(channel.name(), Role::DaemonAsDevice).unwrap();
        let mut images = Images::new(&[]).unwrap();
        let mut send = |value| cpu.try_send(0, &Request::Write { offset: 0, size: 4, value, posted: true }).unwrap();
        assert_eq!((send(u64::from(b'a')), send(u64::from(b'b'))), (Some(0), Some(1)));
        let sent = |port: &mut DevicePort| {
            let m = port.try_request().unwrap().expect("it was sent");
            convert::message(m.slot, m.arena, m.seq)
        };
        let first = sent(&mut port);
        port.complete().unwrap();
        let mut expected = Expected::default();
        expected.add(ChannelRecords {
            requests: vec![Message { number: 1, value: u64::from(b'c'), ..first }],
            ..ChannelRecords::default()
        });
        let differs = stand_in(0, &mut port, &mut expected, &mut images, false);
        assert!(differs.is_err_and(|d| d.what.contains("request 1")));
        assert!(cpu.device_passed(1).unwrap());
    }
}
