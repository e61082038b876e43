//! A recording daemon that is killed again and again: nobody notices, and the recording holds everything, once.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_channel::{
    ChannelConfig, ChannelSegment, ControlConfig, ControlSegment, CpuControl, CpuPort, DevicePort, JournalEntry,
    Position, Request, Role, content_checksum, fold,
};
use reprise_child::control::{Common, DiskImage, DiskMode, DiskStart, LogChannel, LogDisk, Mode};
use reprise_device::dma::{self, Origin};
use reprise_recording::dma::{DIGEST, REFERENCES};
use reprise_recording::{ChannelRecords, Medium, Message, Output, Recording, Status, verify};

use super::*;

const CHANNELS: usize = 2;
const DISK: usize = 1 << 20;

/// What the daemon said.
#[derive(Default)]
struct Said(std::cell::RefCell<Vec<FromChild>>);

impl Tell for Said {
    fn tell(&self, what: FromChild) -> Result<()> {
        self.0.borrow_mut().push(what);
        Ok(())
    }
}

/// One channel's ends, and what went through it.
struct Line {
    _segment: ChannelSegment,
    cpu: CpuPort,
    device: DevicePort,
    /// Requests that the device has taken and not answered.
    hash: u64,
    all: ChannelRecords,
}

/// A machine of which only the daemon is real.
struct Rig {
    dir: tempfile::TempDir,
    control_segment: ControlSegment,
    control: CpuControl,
    lines: Vec<Line>,
    staging: OwnedFd,
    disk: fs::File,
    journal: Vec<Entry>,
    icount: u64,
    rng: SmallRng,
    said: Said,
    deaths: u32,
    /// Most records of a chunk.
    limit: usize,
}

fn name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("reprise-test-rec-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn bytes(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (n * 31 + i * 7 + (i >> 8)) as u8).collect()
}

fn disk_bytes(offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    crate::transfer::tests::image(offset, &mut data);
    data
}

impl Line {
    fn new(number: u16, name: &str) -> Self {
        let config = ChannelConfig {
            request_slots: 16,
            event_slots: 16,
            request_arena: 64 << 10,
            event_arena: 64 << 10,
            ..ChannelConfig::new(number, name, true)
        };
        let segment = ChannelSegment::create(&self::name(), &config).unwrap();
        let cpu = CpuPort::attach(segment.name()).unwrap();
        let device = DevicePort::attach(segment.name(), Role::Device).unwrap();
        Self { _segment: segment, cpu, device, hash: 0, all: ChannelRecords::default() }
    }

    /// cpu-proc asks something, if there is room.
    fn ask(&mut self, now: u64, rng: &mut SmallRng) {
        let data = bytes(now, rng.random_range(0..3000));
        let request = match rng.random_range(0..5) {
            0 => Request::Write { offset: 4, size: 4, value: now & 0xff, posted: true },
            1 => Request::DmaDone { tag: 3, data: &data },
            2 => Request::Host { port: 0, data: &data },
            _ => Request::Read { offset: 8, size: 4 },
        };
        if let Some(number) = self.cpu.try_send(now, &request).unwrap() {
            let slot = request.to_slot(now);
            let arena = if slot.arena_len == 0 { &[][..] } else { request.data() };
            self.all.requests.push(convert::message(&slot, arena, number));
        }
    }

    /// The device answers what it has room for.
    fn answer(&mut self, rng: &mut SmallRng) {
        // Only as much as there is room for: every step of a device ends with it having said everything.
        while self.device.effects_emitted() < self.cpu.effects_taken() + 6 {
            let Some(m) = self.device.try_request().unwrap() else { return };
            let (cause, synchronous) = (m.seq, m.request.is_synchronous());
            let offset = rng.random_range(0..DISK as u64 - 8192) & !511;
            let mut data = disk_bytes(offset, rng.random_range(1..8192));
            let lies = rng.random_ratio(1, 8);
            data[0] ^= u8::from(lies);
            let write = dma::Write { addr: 0x8000_0000, data: &data, origin: Some(Origin { disk: 0, offset }) };
            let transfer = dma::encode(1, &[], &[write]).unwrap();
            let text = bytes(cause, rng.random_range(1..200));
            let events = [
                Event::HostOut { port: u64::from(text.len() > 150), data: &text },
                Event::HostOffer { port: 0, data: b"offer" },
                Event::Publish { reg: 1, value: cause },
                Event::Dma { tag: 1, data: &transfer },
            ];
            let answer = Event::Reply { value: cause };
            let chosen: Vec<_> =
                events.iter().filter(|_| rng.random_bool(0.4)).chain(synchronous.then_some(&answer)).collect();
            for event in chosen {
                self.emit(cause, event);
            }
            self.device.complete().unwrap();
        }
    }

    fn emit(&mut self, cause: u64, event: &Event<'_>) {
        let number = self.device.effects_emitted();
        if self.device.try_emit(cause, event).unwrap().is_none() {
            // No room for it: a device would wait. Here it says less, which is as good.
            return;
        }
        if let Event::HostOut { port, data } = *event {
            match self.all.output.last_mut() {
                Some(last) if last.port == port => last.data.extend_from_slice(data),
                _ => self.all.output.push(Output { port, data: data.to_vec() }),
            }
        } else if event.is_effect() {
            let slot = event.to_slot(cause);
            let arena = if slot.arena_len == 0 { &[][..] } else { event.data() };
            self.all.effects.push(convert::message(&slot, arena, number));
        }
    }

    /// cpu-proc takes what there is, or some of it.
    fn consume(&mut self, most: usize) {
        for _ in 0..most {
            let Some(m) = self.cpu.try_event().unwrap() else { return };
            if m.effect.is_some() {
                self.hash = fold(self.hash, content_checksum(m.slot, m.arena));
            }
        }
    }
}

impl Rig {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<Line> = (0..CHANNELS).map(|c| Line::new(c as u16, ["disk0", "uart0"][c])).collect();
        let config = ControlConfig { journal_slots: 64, script_slots: 8, script_arena: 256 };
        let control_segment = ControlSegment::create(&name(), &config).unwrap();
        let control = CpuControl::attach(control_segment.name()).unwrap();
        let manifest = reprise_recording::testing::manifest(&[(0, "disk0"), (1, "uart0")]);
        DirMedium::new(dir.path()).begin(manifest.to_text().unwrap().as_bytes()).unwrap();
        let mut disk = tempfile::tempfile().unwrap();
        disk.write_all(&disk_bytes(0, DISK)).unwrap();
        let staging = crate::staging::tests::memory(2 << 20);
        let rng = SmallRng::seed_from_u64(seed);
        let (journal, said) = (Vec::new(), Said::default());
        let (icount, deaths, limit) = (0, 0, MAX_CHUNK_RECORDS);
        Self { dir, control_segment, control, lines, staging, disk, journal, icount, rng, said, deaths, limit }
    }

    fn start(&self) -> LogStart {
        let dup = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap().into_raw_fd();
        let channel = |l: &Line| LogChannel {
            name: l.cpu.name().to_owned(),
            segment: l._segment.name().to_owned(),
            spec: Vec::new(),
        };
        let image =
            DiskImage { fd: dup(self.disk.as_fd()), name: "image".into(), format: reprise_machine::DiskFormat::Raw };
        let start = DiskStart {
            name: "disk0".into(),
            images: vec![image],
            mode: DiskMode::ReadOnly,
            overlay: None,
            journal: None,
        };
        LogStart {
            common: Common { name: "log".into(), log_filter: "warn".into(), jitter: None, mode: Mode::Record },
            dir_path: self.dir.path().to_str().unwrap().to_owned(),
            control_segment: self.control_segment.name().to_owned(),
            channels: self.lines.iter().map(channel).collect(),
            console: None,
            screens: Vec::new(),
            disks: vec![LogDisk { channel: 0, disk: 0, start }],
            staging: Some(dup(self.staging.as_fd())),
            log_dma_reads: false,
        }
    }

    /// A daemon that lives; those before it may have died while they started. Half of all daemons die at some time.
    fn daemon(&mut self, mortal: bool) -> Recorder {
        loop {
            let start = self.start();
            match Recorder::build(&start, self.fuse(mortal), self.limit) {
                Ok(recorder) => return recorder,
                Err(e) => self.died(&e),
            }
        }
    }

    fn fuse(&mut self, mortal: bool) -> Option<Fuse> {
        let mut left = if mortal { self.rng.random_range(0..150) } else { return None };
        Some(Box::new(move |_| {
            left -= 1;
            left < 0
        }))
    }

    /// A daemon was killed. If it was in the middle of writing a chunk, part of it may be there.
    fn died(&mut self, e: &anyhow::Error) {
        let text = format!("{e:#}");
        assert!(text.starts_with("killed at"), "{text}");
        self.deaths += 1;
        if text.contains("Written") && self.rng.random_bool(0.7) {
            let recording = Recording::open(self.dir.path()).unwrap();
            let (index, _) = recording.index().unwrap();
            let last = index.last().unwrap();
            let keep = last.offset + self.rng.random_range(0..last.bytes);
            let path = self.dir.path().join(format!("segments/{:08}.seg", last.segment));
            fs::File::options().write(true).open(path).unwrap().set_len(keep).unwrap();
        }
    }

    /// Lets the daemon work once; it may die, and be replaced.
    fn turn(&mut self, recorder: &mut Option<Recorder>, mortal: bool) {
        let last = self.rng.random_ratio(1, 3);
        let mut r = match recorder.take() {
            Some(r) => r,
            None => self.daemon(mortal),
        };
        match r.turn(last, &self.said) {
            Ok(()) => *recorder = Some(r),
            Err(e) => self.died(&e),
        }
    }

    fn push(&mut self, entry: JournalEntry) {
        let at = Position { epoch: self.icount, count: 0, idle: 0 };
        let number = self.control.journal.push(at, &entry, &Abort::NEVER).unwrap().expect("there is room");
        let mut ring = entry.to_entry(at);
        ring.seq = number;
        self.journal.push(convert::record(&ring));
    }

    fn progress(&mut self) {
        self.push(JournalEntry::Progress { icount: self.icount, vtime: self.icount, marks: CHANNELS as u64 });
        for c in 0..CHANNELS {
            let l = &self.lines[c];
            let (requests, effects, consumed) = (l.cpu.requests_sent(), l.cpu.effects_taken(), l.hash);
            self.push(JournalEntry::Mark { channel: c as u16, requests, effects, consumed, local: 0 });
        }
    }

    /// One step of the machine.
    fn step(&mut self) {
        self.icount += 1;
        for l in &mut self.lines {
            if self.rng.random_bool(0.6) {
                l.ask(self.icount, &mut self.rng);
            }
            if self.rng.random_bool(0.6) {
                l.answer(&mut self.rng);
            }
            if self.rng.random_bool(0.6) {
                l.consume(self.rng.random_range(1..8));
            }
        }
        if self.rng.random_ratio(1, 4) {
            self.push(JournalEntry::Warp { ns: self.icount });
        }
        if self.rng.random_ratio(1, 6) {
            self.progress();
        }
    }

    /// Everything is at rest, and the end is journaled.
    fn end(&mut self, recorder: &mut Option<Recorder>) {
        for _ in 0..20 {
            self.turn(recorder, true);
            for l in &mut self.lines {
                l.answer(&mut self.rng);
                l.consume(usize::MAX);
            }
        }
        self.progress();
        self.push(JournalEntry::End { reason: EndReason::PowerOff, icount: self.icount, vtime: self.icount });
        self.push(JournalEntry::EndHash { state_hash: [7; 32] });
        // Devices that lag behind the CPU still have something to say, when a chunk is long due.
        for _ in 0..3 {
            let mut r = recorder.take().unwrap_or_else(|| self.daemon(false));
            r.last_chunk = Instant::now().checked_sub(2 * super::CHUNK_EVERY).unwrap_or(r.last_chunk);
            match r.turn(false, &self.said) {
                Ok(()) => *recorder = Some(r),
                Err(e) => self.died(&e),
            }
            for l in self.lines.iter_mut().filter(|l| !l.all.requests.is_empty()) {
                let cause = l.all.requests.len() as u64 - 1;
                l.emit(cause, &Event::HostOut { port: 0, data: b"late" });
            }
        }
    }

    /// Says `Finish`, to as many daemons as it takes.
    fn finish(&mut self, recorder: Option<Recorder>) -> LogFinished {
        let totals = Totals { device_hash: [1; 32], console_hash: [2; 32], console_bytes: 3 };
        let mut recorder = recorder;
        loop {
            let mut r = match recorder.take() {
                Some(r) => r,
                None => self.daemon(self.deaths < 1000),
            };
            let done = r.turn(true, &self.said).and_then(|()| r.finish(&totals, &self.said));
            match done {
                Ok(finished) => return finished,
                Err(e) => self.died(&e),
            }
        }
    }

    /// The recording holds what went through the rings. Gives how many of its messages are references to a disk, and how many are hashes.
    fn check(&self, finished: &LogFinished) -> (usize, usize) {
        assert!(self.said.0.borrow().is_empty(), "{:?}", self.said.0.borrow());
        let report = verify(self.dir.path()).unwrap();
        assert!(report.is_good(), "{report:?}");
        let recording = Recording::open(self.dir.path()).unwrap();
        let chunks: Vec<_> = recording.chunks().map(Result::unwrap).collect();
        assert_eq!(finished.chunks, chunks.len() as u64);
        assert_eq!(finished.bytes, recording.segment_bytes().unwrap().iter().sum::<u64>() + recording.index_bytes());
        let Status::Complete(end) = recording.status().unwrap() else { panic!("not complete") };
        assert_eq!((end.icount, end.state_hash, end.console_bytes), (self.icount, [7; 32], 3));
        let journal: Vec<Entry> = chunks.iter().flat_map(|c| c.journal.clone()).collect();
        assert!(journal == self.journal, "the journal");
        let (mut references, mut digests, mut records) = (0, 0, 0);
        for (c, line) in self.lines.iter().enumerate() {
            let of = |f: &dyn Fn(&ChannelRecords) -> Vec<Message>| -> Vec<Message> {
                chunks.iter().filter_map(|k| k.channels.get(&(c as u16))).flat_map(f).collect()
            };
            let (requests, effects) = (of(&|r| r.requests.clone()), of(&|r| r.effects.clone()));
            records += requests.len() + effects.len();
            digests += requests.iter().filter(|m| m.flags & DIGEST != 0).count();
            references += effects.iter().filter(|m| m.flags & REFERENCES != 0).count();
            let want: Vec<Message> = line.all.requests.iter().cloned().map(hash_read).collect();
            assert!(requests == want, "requests of channel {c}");
            let unpacked = |m: &Message| {
                crate::transfer::unpack(m, |from, to| {
                    to.copy_from_slice(&disk_bytes(from.offset, to.len()));
                    Ok(())
                })
            };
            let effects: Vec<Message> = effects.iter().map(unpacked).collect::<Result<_, _>>().unwrap();
            assert!(effects == line.all.effects, "effects of channel {c}");
            let mut output: Vec<Output> = Vec::new();
            for o in chunks.iter().filter_map(|k| k.channels.get(&(c as u16))).flat_map(|r| &r.output) {
                match output.last_mut() {
                    Some(last) if last.port == o.port => last.data.extend_from_slice(&o.data),
                    _ => output.push(o.clone()),
                }
            }
            assert!(output == line.all.output, "output of channel {c}");
        }
        let entries = self.journal.iter().filter(|e| !matches!(e.kind, journal::PROGRESS | journal::MARK)).count();
        assert_eq!(finished.events, (records + entries) as u64);
        (references, digests)
    }
}

fn simulate(seed: u64, steps: u32, mortal: bool) -> u32 {
    simulate_in(Rig::new(seed), steps, mortal)
}

fn simulate_in(mut rig: Rig, steps: u32, mortal: bool) -> u32 {
    let mut recorder = None;
    for _ in 0..steps {
        rig.step();
        // The journal ring must not run full: nobody else runs in this process.
        while rig.control.journal.written() - rig.journal_committed(recorder.as_ref()) > 40
            || rig.rng.random_ratio(1, 3)
        {
            rig.turn(&mut recorder, mortal);
        }
    }
    rig.end(&mut recorder);
    let finished = rig.finish(recorder);
    let (references, digests) = rig.check(&finished);
    assert!(references > 0 && digests > 0, "the simulation says too little");
    rig.deaths
}

impl Rig {
    fn journal_committed(&self, recorder: Option<&Recorder>) -> u64 {
        recorder.map_or(0, |r| r.control.journal.taken())
    }
}

#[test]
fn without_deaths_everything_is_recorded() {
    assert_eq!(simulate(1, 400, false), 0);
}

#[test]
fn killed_anywhere_again_and_again_nothing_is_lost_or_doubled() {
    let deaths: u32 = (0..60).map(|seed| simulate(100 + seed, 150, true)).sum();
    assert!(deaths > 300, "{deaths} deaths only");
}

/// Chunks that hold next to nothing: most of what lies between two progress marks is in several.
#[test]
fn killed_between_the_pieces_of_a_flood_nothing_is_lost_or_doubled() {
    let deaths: u32 = (0..40).map(|seed| simulate_in(Rig { limit: 6, ..Rig::new(500 + seed) }, 150, true)).sum();
    assert!(deaths > 200, "{deaths} deaths only");
}

#[test]
fn dead_at_each_point() {
    let mut short = (0, 0);
    for n in 0..120 {
        let mut rig = Rig::new(n);
        let mut recorder = None;
        (0..20).for_each(|_| rig.step_quietly(&mut recorder));
        let mut left = n as i64;
        let fuse: Fuse = Box::new(move |_| {
            left -= 1;
            left == -1
        });
        let mut r = recorder.unwrap_or_else(|| rig.daemon(false));
        r.fuse = Some(fuse);
        recorder = match r.turn(true, &rig.said) {
            Ok(()) => Some(r),
            Err(e) => {
                drop(r);
                rig.died(&e);
                None
            }
        };
        rig.end(&mut recorder);
        let finished = rig.finish(recorder);
        let (references, digests) = rig.check(&finished);
        short = (short.0 + references, short.1 + digests);
    }
    assert!(short.0 > 100 && short.1 > 100, "the simulation says too little: {short:?}");
}

impl Rig {
    /// A step, with an immortal daemon that works now and then.
    fn step_quietly(&mut self, recorder: &mut Option<Recorder>) {
        self.step();
        while self.control.journal.written() - self.journal_committed(recorder.as_ref()) > 40
            || self.rng.random_ratio(1, 5)
        {
            self.turn(recorder, false);
        }
    }
}

#[test]
fn another_machines_memory_is_refused() {
    let mut rig = Rig::new(5);
    let mut recorder = None;
    (0..10).for_each(|_| rig.step());
    rig.progress();
    for _ in 0..20 {
        rig.turn(&mut recorder, false);
    }
    drop(recorder);
    rig.staging = crate::staging::tests::memory(2 << 20);
    let e = Recorder::new(&rig.start()).err().expect("refused");
    assert!(e.to_string().contains("staging memory is empty"), "{e:#}");
}
