//! The tests that every plugin must pass, whatever language it is written in.
//!
//! The suite works on a [`Plugin`] and makes its own event sequences from the device's spec, with a seeded generator, so a failure
//! names the seed and the step that show it again. What it checks:
//!
//! - the same config gives the same spec, the same events the same effects;
//! - save -> restore -> save gives equal bytes, and a device restored in mid-sequence goes on exactly as the one that was saved;
//! - a reset gives the state, shadows, lines and timers of a new device that is reset at the same time;
//! - a read is answered exactly once, a posted write does only what its register declares (checked by [`Instance::step`]);
//! - what cpu-proc would answer by itself (shadow, constant, clock) is what the device answers, and such a read changes nothing;
//! - a write that cpu-proc would leave out, of the value that a register stores, does nothing;
//! - no event, config or state, however senseless, makes the device panic.

use std::fmt;

use crate::device::{Device, Event, VTime};
use crate::host::{Effect, Fault, Instance, MemoryDisk, Plugin};
use crate::spec::{Direction, Framing, PluginSpec, ReadPolicy, WritePolicy, truncate};

/// Checks a Rust device with the usual amount of work.
///
/// # Panics
/// With a report, if the device does not conform.
pub fn check<D: Device>(config: &str) {
    Suite::new(&Plugin::of::<D>(), config).check();
}

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The plugin's kind.
    pub kind: String,
    /// Seed of the sequence; `None` outside a sequence.
    pub seed: Option<u64>,
    /// What was expected and what happened.
    pub what: String,
    /// The last events of the sequence, oldest first.
    pub trail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {} does not conform", self.kind)?;
        if let Some(seed) = self.seed {
            write!(f, " (seed {seed})")?;
        }
        write!(f, ": {}", self.what)?;
        self.trail.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl std::error::Error for Failure {}

/// How much was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Events handed to devices in sequences.
    pub events: u64,
    /// Effects that came back.
    pub effects: u64,
    /// Sequences that were cut by a save and a restore.
    pub cuts: u64,
    /// Reads compared with what cpu-proc would answer.
    pub reads: u64,
    /// Senseless states that were refused.
    pub refused: u64,
}

/// A conformance run of one plugin with one config.
#[derive(Debug, Clone)]
pub struct Suite<'a> {
    plugin: &'a Plugin,
    config: &'a str,
    seeds: u64,
    steps: usize,
    values: &'a [u64],
}

impl<'a> Suite<'a> {
    /// The usual amount of work: 24 sequences of 400 events.
    #[must_use]
    pub fn new(plugin: &'a Plugin, config: &'a str) -> Self {
        Self { plugin, config, seeds: 24, steps: 400, values: &[] }
    }

    /// Sets the number of sequences.
    #[must_use]
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Sets the number of events in a sequence.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Values that are written more often than chance would: unlock codes, commands.
    #[must_use]
    pub fn values(mut self, values: &'a [u64]) -> Self {
        self.values = values;
        self
    }

    /// Runs everything.
    ///
    /// # Panics
    /// With a report, if the plugin does not conform.
    pub fn check(&self) -> Report {
        match self.run() {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// Runs everything.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn run(&self) -> Result<Report, Failure> {
        let mut report = Report::default();
        self.specs_are_stable()?;
        self.configs_never_panic()?;
        for seed in 0..self.seeds {
            let run = Run { suite: self, seed, report: &mut report, trail: Vec::new() };
            run.all()?;
        }
        Ok(report)
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, Failure> {
        Err(Failure { kind: self.plugin.kind().into(), seed: None, what: what.into(), trail: Vec::new() })
    }

    fn create(&self) -> Result<Instance, Failure> {
        self.plugin.create(self.config).or_else(|e| self.fail(format!("it refuses its config: {e}")))
    }

    fn specs_are_stable(&self) -> Result<(), Failure> {
        let (a, b) = (self.create()?, self.create()?);
        if a.spec() != b.spec() {
            return self.fail("the same config gave two different specs");
        }
        let restored = a.save().map_err(|e| e.to_string()).and_then(|state| {
            self.plugin.restore(self.config, &state).map_err(|e| format!("a new device's state is refused: {e}"))
        });
        match restored {
            Ok(c) if c.spec() == a.spec() => Ok(()),
            Ok(_) => self.fail("a restored device has another spec"),
            Err(e) => self.fail(e),
        }
    }

    /// Senseless configs are refused or taken, but never end the process.
    fn configs_never_panic(&self) -> Result<(), Failure> {
        let mut rng = Rng(0xc0ff_ee00);
        for text in ["", ")", "(", "((((((((", "\u{0}", "(no_such_key_at_all: 1)", "(\"", "[1, 2", "\u{fffd}"] {
            drop(self.plugin.create(text));
        }
        for _ in 0..200 {
            let bytes: Vec<_> = (0..rng.below(60)).map(|_| rng.below(128) as u8).collect();
            match self.plugin.create(&String::from_utf8_lossy(&bytes)) {
                Err(e) if e.to_string().contains("panicked") => {
                    return self.fail(format!("config {:?}: {e}", String::from_utf8_lossy(&bytes)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An event that owns its data.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    now: VTime,
    event: OwnedEvent,
    effects: Vec<OwnedEffect>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnedEvent {
    Plain(Event<'static>),
    DmaDone(u64, Vec<u8>),
    Host(u32, Vec<u8>),
}

impl OwnedEvent {
    fn as_event(&self) -> Event<'_> {
        match self {
            Self::Plain(e) => *e,
            Self::DmaDone(tag, data) => Event::DmaDone { tag: *tag, data },
            Self::Host(port, data) => Event::Host { port: *port, data },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum OwnedEffect {
    Plain(Effect<'static>),
    Dma(u64, u64, Vec<(u64, Vec<u8>)>),
    HostOut(u32, Vec<u8>),
    Queue(u16, Vec<u32>),
}

impl OwnedEffect {
    fn of(effect: Effect<'_>) -> Self {
        match effect {
            Effect::Dma { tag, reads, writes } => Self::Dma(
                tag,
                reads.iter().map(|r| r.len).sum(),
                writes.iter().map(|w| (w.addr, w.data.to_vec())).collect(),
            ),
            Effect::HostOut { port, data } => Self::HostOut(port, data.to_vec()),
            Effect::Reply { tag, value } => Self::Plain(Effect::Reply { tag, value }),
            Effect::Line { pin, level } => Self::Plain(Effect::Line { pin, level }),
            Effect::Arm { id, at } => Self::Plain(Effect::Arm { id, at }),
            Effect::Disarm { id } => Self::Plain(Effect::Disarm { id }),
            Effect::Publish { shadow, value } => Self::Plain(Effect::Publish { shadow, value }),
            Effect::HostWant { port, bytes } => Self::Plain(Effect::HostWant { port, bytes }),
            Effect::Queue { queue, values } => Self::Queue(queue, values.to_vec()),
            Effect::QueueClear { queue } => Self::Plain(Effect::QueueClear { queue }),
        }
    }
}

/// What the rest of the machine knows of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    shadows: Vec<u64>,
    lines: Vec<bool>,
    timers: Vec<Option<VTime>>,
    wants: Vec<u64>,
    /// How many values each queue holds, and its depth.
    queues: Vec<(usize, usize)>,
    dma: Vec<(u64, u64)>,
    packets: Vec<bool>,
    reads: Vec<(u64, u16)>,
}

impl Model {
    fn new(spec: &PluginSpec) -> Self {
        Self {
            shadows: spec.shadows.iter().map(|s| s.reset).collect(),
            lines: vec![false; spec.outputs.len()],
            timers: vec![None; spec.timers as usize],
            wants: vec![0; spec.ports.len()],
            queues: spec.queues.iter().map(|q| (0, q.depth as usize)).collect(),
            dma: Vec::new(),
            packets: spec.ports.iter().map(|p| p.framing == Framing::Packets).collect(),
            reads: spec.registers.iter().filter_map(|r| Some((r.offset, queue_of(r.read)?))).collect(),
        }
    }

    fn before(&mut self, event: &OwnedEvent) {
        match event {
            OwnedEvent::Plain(Event::Timer(id)) => self.timers[*id as usize] = None,
            OwnedEvent::DmaDone(tag, _) => self.dma.retain(|d| d.0 != *tag),
            OwnedEvent::Host(port, data) => {
                let i = *port as usize;
                self.wants[i] -= if self.packets[i] { 1 } else { data.len() as u64 };
            }
            OwnedEvent::Plain(Event::Popped { queue, count }) => self.queues[usize::from(*queue)].0 -= *count as usize,
            OwnedEvent::Plain(Event::Read { offset, size: 4, .. }) => {
                if let Some(&(_, queue)) = self.reads.iter().find(|r| r.0 == *offset) {
                    let held = &mut self.queues[usize::from(queue)].0;
                    *held = held.saturating_sub(1);
                }
            }
            OwnedEvent::Plain(Event::Reset) => self.dma.clear(),
            OwnedEvent::Plain(_) => {}
        }
    }

    fn after(&mut self, effects: &[OwnedEffect]) {
        for effect in effects {
            match effect {
                OwnedEffect::Plain(Effect::Line { pin, level }) => self.lines[*pin as usize] = *level,
                OwnedEffect::Plain(Effect::Arm { id, at }) => self.timers[*id as usize] = Some(*at),
                OwnedEffect::Plain(Effect::Disarm { id }) => self.timers[*id as usize] = None,
                OwnedEffect::Plain(Effect::Publish { shadow, value }) => self.shadows[*shadow as usize] = *value,
                OwnedEffect::Plain(Effect::HostWant { port, bytes }) => self.wants[*port as usize] = *bytes,
                OwnedEffect::Dma(tag, len, _) => self.dma.push((*tag, *len)),
                OwnedEffect::Queue(queue, values) => {
                    let (held, depth) = &mut self.queues[usize::from(*queue)];
                    *held += values.len();
                    assert!(*held <= *depth, "queue {queue} holds {held} values, its depth is {depth}");
                }
                OwnedEffect::Plain(Effect::QueueClear { queue }) => self.queues[usize::from(*queue)].0 = 0,
                OwnedEffect::Plain(_) | OwnedEffect::HostOut(..) => {}
            }
        }
    }

    /// The timer that is due first, by the guest time `until`.
    fn due(&self, until: VTime) -> Option<(VTime, u32)> {
        let armed = self.timers.iter().enumerate().filter_map(|(id, at)| at.map(|at| (at, id as u32)));
        armed.min().filter(|&(at, _)| at <= until)
    }
}

fn queue_of(read: ReadPolicy) -> Option<u16> {
    match read {
        ReadPolicy::Queue(i) => Some(i),
        _ => None,
    }
}

/// A device and the disk behind it.
struct World {
    device: Instance,
    disk: MemoryDisk,
}

impl World {
    fn spec(&self) -> &PluginSpec {
        self.device.spec()
    }

    /// The device's whole state, with what is on its disk.
    fn save(&self) -> Result<(Vec<u8>, MemoryDisk), Fault> {
        Ok((self.device.save()?, self.disk.clone()))
    }
}

/// One seeded sequence and what is checked on it.
struct Run<'s, 'a> {
    suite: &'s Suite<'a>,
    seed: u64,
    report: &'s mut Report,
    trail: Vec<String>,
}

impl Run<'_, '_> {
    fn all(mut self) -> Result<(), Failure> {
        let (script, last) = self.record()?;
        self.repeats(&script)?;
        self.cuts(&script)?;
        self.resets(&script, last)?;
        self.trail.clear();
        self.hostile_events()?;
        self.hostile_states(&script)
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, Failure> {
        let trail = self.trail[self.trail.len().saturating_sub(12)..].to_vec();
        Err(Failure { kind: self.suite.plugin.kind().into(), seed: Some(self.seed), what: what.into(), trail })
    }

    fn create(&self) -> Result<World, Failure> {
        let device = self.suite.create()?;
        let mut rng = Rng(self.seed ^ 0xd15c);
        // Small, so that a device that is led by random numbers meets its end.
        let size = if device.spec().disks.is_empty() { 0 } else { 512 * (8 + rng.below(120)) };
        let data = (0..size).map(|_| rng.next() as u8).collect();
        Ok(World { device, disk: MemoryDisk { data, read_only: self.seed % 5 == 4, flushes: 0 } })
    }

    fn step(&mut self, world: &mut World, now: VTime, event: Event<'_>) -> Result<Vec<OwnedEffect>, Failure> {
        let mut effects = Vec::new();
        let World { device, disk } = world;
        let result = device.step_with(now, event, disk, &mut |e| effects.push(OwnedEffect::of(e)));
        self.trail.push(format!("{now} {event:x?} -> {effects:x?}"));
        self.report.events += 1;
        self.report.effects += effects.len() as u64;
        match result {
            Ok(()) => Ok(effects),
            Err(e) => self.fail(e.to_string()),
        }
    }

    fn save(&self, device: &World) -> Result<(Vec<u8>, MemoryDisk), Failure> {
        device.save().or_else(|e| self.fail(e.to_string()))
    }

    fn restore(&self, (state, disk): &(Vec<u8>, MemoryDisk)) -> Result<World, Failure> {
        let made = self.suite.plugin.restore(self.suite.config, state);
        let device = made.or_else(|e| self.fail(format!("it refuses a state that it saved: {e}")))?;
        Ok(World { device, disk: disk.clone() })
    }

    /// Makes the sequence by running it.
    fn record(&mut self) -> Result<(Vec<Step>, VTime), Failure> {
        let mut device = self.create()?;
        let spec = device.spec().clone();
        let mut model = Model::new(&spec);
        let mut rng = Rng(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let mut now = VTime(0);
        let mut script = Vec::new();
        for i in 0..self.suite.steps {
            let event;
            (now, event) = match i {
                0 => (now, OwnedEvent::Plain(Event::Reset)),
                _ => next_event(&mut rng, &spec, &model, now, self.suite.values, i as u64),
            };
            model.before(&event);
            let effects = self.step(&mut device, now, event.as_event())?;
            model.after(&effects);
            self.wants_agree(&device, &model)?;
            if i % 5 == 0 {
                self.local_answers(&device, &spec, &model, now)?;
            }
            script.push(Step { now, event, effects });
        }
        Ok((script, now))
    }

    fn wants_agree(&self, device: &World, model: &Model) -> Result<(), Failure> {
        for (port, &bytes) in model.wants.iter().enumerate() {
            let says = device.device.want(port as u32);
            if says != bytes {
                return self.fail(format!("it wants {says} bytes on port {port}, but its effects said {bytes}"));
            }
        }
        Ok(())
    }

    /// Compares what cpu-proc answers by itself with the device's own answers, on a copy of the device.
    fn local_answers(&mut self, device: &World, spec: &PluginSpec, model: &Model, now: VTime) -> Result<(), Failure> {
        let state = self.save(device)?;
        let mut copy = self.restore(&state)?;
        if self.save(&copy)? != state {
            return self.fail("saving, restoring and saving gave other bytes");
        }
        for r in &spec.registers {
            for size in [1, 2, 4, 8].into_iter().filter(|&s| r.takes(s)) {
                let expected = match r.read {
                    ReadPolicy::Sync | ReadPolicy::Queue(_) => continue,
                    ReadPolicy::Shadow(i) => truncate(model.shadows[usize::from(i)], size),
                    local => local.value(now, size).expect("a constant or a clock"),
                };
                let event = Event::Read { tag: 1, offset: r.offset, size };
                let effects = self.step(&mut copy, now, event)?;
                self.report.reads += 1;
                if effects != [OwnedEffect::Plain(Effect::Reply { tag: 1, value: expected })] {
                    return self.fail(format!(
                        "{} at {:#x} ({size} bytes): cpu-proc would answer {expected:#x} ({:?}), the device does {effects:x?}",
                        r.name, r.offset, r.read
                    ));
                }
            }
        }
        self.stored_again(&mut copy, spec, model, now)?;
        if self.save(&copy)? != state {
            return self.fail("accesses that cpu-proc carries out by itself changed the state");
        }
        Ok(())
    }

    /// Writes to each register that stores what is written the value that it has: cpu-proc would leave that out.
    fn stored_again(
        &mut self,
        device: &mut World,
        spec: &PluginSpec,
        model: &Model,
        now: VTime,
    ) -> Result<(), Failure> {
        for r in spec.registers.iter().filter(|r| r.write == WritePolicy::Stored) {
            let ReadPolicy::Shadow(i) = r.read else { continue };
            let value = model.shadows[usize::from(i)];
            for size in [1, 2, 4, 8].into_iter().filter(|&s| r.takes(s) && truncate(value, s) == value) {
                let effects = self.step(device, now, Event::Write { tag: 1, offset: r.offset, size, value })?;
                if !effects.is_empty() {
                    return self.fail(format!(
                        "{} at {:#x}: cpu-proc would leave out the write of {value:#x}, which it holds, the device does {effects:x?}",
                        r.name, r.offset
                    ));
                }
            }
        }
        Ok(())
    }

    fn go_on(&mut self, device: &mut World, steps: &[Step], how: &str) -> Result<(), Failure> {
        for (i, s) in steps.iter().enumerate() {
            let effects = self.step(device, s.now, s.event.as_event())?;
            if effects != s.effects {
                return self
                    .fail(format!("{how}: event {i} had the effects {effects:x?}, before it had {:x?}", s.effects));
            }
        }
        Ok(())
    }

    fn repeats(&mut self, script: &[Step]) -> Result<(), Failure> {
        let mut device = self.create()?;
        self.go_on(&mut device, script, "the same events again")
    }

    fn cuts(&mut self, script: &[Step]) -> Result<(), Failure> {
        let mut rng = Rng(self.seed ^ 0xcccc);
        for _ in 0..3 {
            let cut = rng.below(script.len() as u64) as usize;
            let mut device = self.create()?;
            self.go_on(&mut device, &script[..cut], "before the cut")?;
            let mut restored = self.restore(&self.save(&device)?)?;
            self.go_on(&mut restored, &script[cut..], &format!("restored after event {cut}"))?;
            self.go_on(&mut device, &script[cut..], &format!("saved after event {cut}"))?;
            if self.save(&device)? != self.save(&restored)? {
                return self.fail(format!("restored after event {cut}, it ends in another state"));
            }
            self.report.cuts += 1;
        }
        Ok(())
    }

    /// A reset at the end of the sequence, against a reset of a new device at the same time.
    fn resets(&mut self, script: &[Step], now: VTime) -> Result<(), Failure> {
        let mut used = self.create()?;
        let mut new = self.create()?;
        let mut models = [Model::new(used.spec()), Model::new(used.spec())];
        for s in script {
            models[0].before(&s.event);
            models[0].after(&s.effects);
            self.step(&mut used, s.now, s.event.as_event())?;
        }
        for (device, model) in [&mut used, &mut new].into_iter().zip(&mut models) {
            model.before(&OwnedEvent::Plain(Event::Reset));
            model.after(&self.step(device, now, Event::Reset)?);
        }
        if models[0] != models[1] {
            return self.fail(format!("after a reset it shows {:x?}, a new device shows {:x?}", models[0], models[1]));
        }
        // The disks keep what was written to them.
        let (a, b) = (self.save(&used)?.0, self.save(&new)?.0);
        if a != b {
            return self.fail(format!("after a reset its state is {a:x?}, that of a new device is {b:x?}"));
        }
        Ok(())
    }

    fn hostile_events(&mut self) -> Result<(), Failure> {
        let mut device = self.create()?;
        let mut rng = Rng(self.seed ^ 0xbad);
        self.bombard(&mut device, &mut rng, 300)
    }

    fn bombard(&mut self, device: &mut World, rng: &mut Rng, events: u64) -> Result<(), Failure> {
        let window = device.spec().window;
        let mut now = VTime(rng.odd());
        for tag in 0..events {
            now = now.after(rng.odd() >> rng.below(64));
            let data: Vec<_> = (0..rng.below(9000) * u64::from(rng.chance(10))).map(|_| rng.next() as u8).collect();
            let offset = if rng.chance(80) { rng.below(window) } else { rng.odd() };
            let size = rng.pick(&[1, 2, 4, 4, 4, 8, 0, 3, 255]);
            let event = match rng.below(10) {
                9 => Event::Popped { queue: rng.below(3) as u16, count: rng.odd() as u32 },
                0 => Event::Reset,
                1 | 2 => Event::Read { tag, offset, size },
                3 | 4 => Event::Write { tag, offset, size, value: truncate(rng.odd(), size) },
                5 => Event::Line { pin: rng.odd() as u32, level: rng.chance(50) },
                6 => Event::Timer((rng.below(4) as u32).wrapping_mul(rng.odd() as u32 | 1)),
                7 => Event::DmaDone { tag: rng.odd(), data: &data },
                _ => Event::Host { port: rng.below(3) as u32, data: &data },
            };
            self.step(device, now, event)?;
        }
        Ok(())
    }

    /// Restores from bytes that no device saved: refused, or a device that works.
    fn hostile_states(&mut self, script: &[Step]) -> Result<(), Failure> {
        let mut rng = Rng(self.seed ^ 0x57a7e);
        let mut device = self.create()?;
        self.go_on(&mut device, &script[..script.len() / 2], "before saving")?;
        let good = self.save(&device)?;
        for round in 0..40 {
            let mut state = good.0.clone();
            match round % 4 {
                0 => state.truncate(rng.below(good.0.len() as u64 + 1) as usize),
                1 => state = (0..rng.below(200)).map(|_| rng.next() as u8).collect(),
                _ => (0..=rng.below(3)).for_each(|_| {
                    let i = rng.below(state.len() as u64) as usize;
                    state[i] = rng.odd() as u8;
                }),
            }
            match self.suite.plugin.restore(self.suite.config, &state) {
                Err(e) if e.to_string().contains("panicked") => return self.fail(format!("state {state:x?}: {e}")),
                Err(_) => self.report.refused += 1,
                Ok(device) => {
                    let mut device = World { device, disk: good.1.clone() };
                    self.trail = vec![format!("restored from {state:x?}")];
                    // A state that contradicts what was published may break the spec's rules, which its host stops; a panic is a bug.
                    self.bombard(&mut device, &mut rng, 40)
                        .or_else(|f| if f.what.contains("panicked") { Err(f) } else { Ok(()) })?;
                }
            }
        }
        Ok(())
    }
}

/// The next event of a sequence, as a machine could send it.
fn next_event(
    rng: &mut Rng,
    spec: &PluginSpec,
    model: &Model,
    now: VTime,
    values: &[u64],
    tag: u64,
) -> (VTime, OwnedEvent) {
    let later =
        if rng.chance(6) { model.due(VTime(u64::MAX)).map_or(now, |(at, _)| at) } else { now.after(rng.pause()) };
    if let Some((at, id)) = model.due(later) {
        return (at.max(now), OwnedEvent::Plain(Event::Timer(id)));
    }
    let event = match rng.below(100) {
        0..=29 => read_event(rng, spec, tag),
        30..=79 => write_event(rng, spec, values, tag),
        80..=84 if !spec.inputs.is_empty() => {
            OwnedEvent::Plain(Event::Line { pin: rng.below(spec.inputs.len() as u64) as u32, level: rng.chance(50) })
        }
        85..=92 => host_event(rng, spec, model).unwrap_or_else(|| read_event(rng, spec, tag)),
        93..=97 if !model.dma.is_empty() => {
            let (tag, len) = model.dma[0];
            OwnedEvent::DmaDone(tag, (0..len).map(|_| rng.next() as u8).collect())
        }
        98 => OwnedEvent::Plain(Event::Reset),
        _ if model.queues.iter().any(|q| q.0 > 0) => {
            let full: Vec<usize> = (0..model.queues.len()).filter(|&i| model.queues[i].0 > 0).collect();
            let i = rng.pick(&full);
            let count = 1 + rng.below(model.queues[i].0 as u64) as u32;
            OwnedEvent::Plain(Event::Popped { queue: i as u16, count })
        }
        _ => read_event(rng, spec, tag),
    };
    (later, event)
}

/// An access to a register of the spec, in one of the sizes that it takes; now and then any other.
fn place(rng: &mut Rng, spec: &PluginSpec) -> (u64, u8) {
    if spec.registers.is_empty() || rng.chance(8) {
        let size = rng.pick(&[1u8, 2, 4, 8]);
        let slots = (spec.window / u64::from(size)).max(1);
        return (rng.below(slots) * u64::from(size), size);
    }
    let r = &spec.registers[rng.below(spec.registers.len() as u64) as usize];
    let sizes: Vec<u8> = [1, 2, 4, 8].into_iter().filter(|&s| r.takes(s)).collect();
    (r.offset, rng.pick(&sizes))
}

fn read_event(rng: &mut Rng, spec: &PluginSpec, tag: u64) -> OwnedEvent {
    let (offset, size) = place(rng, spec);
    OwnedEvent::Plain(Event::Read { tag, offset, size })
}

fn write_event(rng: &mut Rng, spec: &PluginSpec, values: &[u64], tag: u64) -> OwnedEvent {
    let (offset, size) = place(rng, spec);
    let value = if !values.is_empty() && rng.chance(25) { rng.pick(values) } else { rng.odd() };
    OwnedEvent::Plain(Event::Write { tag, offset, size, value: truncate(value, size) })
}

fn host_event(rng: &mut Rng, spec: &PluginSpec, model: &Model) -> Option<OwnedEvent> {
    let open = |&i: &usize| model.wants[i] > 0 && spec.ports[i].direction != Direction::Out;
    let ports: Vec<usize> = (0..spec.ports.len()).filter(open).collect();
    if ports.is_empty() {
        return None;
    }
    let port = rng.pick(&ports);
    if spec.ports[port].framing == Framing::Packets {
        let any = rng.below(1600);
        let len = rng.pick(&[14, 42, 60, 64, 1500, 1514, any]);
        return Some(OwnedEvent::Host(port as u32, (0..len).map(|_| rng.next() as u8).collect()));
    }
    let most = model.wants[port].min(5000);
    let len = if rng.chance(20) { most } else { 1 + rng.below(most.min(40)) };
    Some(OwnedEvent::Host(port as u32, (0..len).map(|_| rng.next() as u8).collect()))
}

/// SplitMix64: small, seeded, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, 0 if `n` is 0.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number of the kind that finds faults: small, one bit, all ones, or anything.
    fn odd(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(4),
            1 => self.below(256),
            2 => 1 << self.below(64),
            3 => u64::MAX >> self.below(64),
            4 => self.next() & 0xffff_ffff,
            _ => self.next(),
        }
    }

    /// Nanoseconds between two events: mostly none or few, now and then much.
    fn pause(&mut self) -> u64 {
        match self.below(10) {
            0..=3 => 0,
            4..=6 => self.below(1_000),
            7 => self.below(100_000),
            8 => self.below(1_000_000_000),
            _ => self.below(100_000_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::device::{ConfigError, DmaData, DmaWrite, Effects, RestoreError};
    use crate::host::Disks;
    use crate::spec::Register;

    /// A counter with one writable register, and a choice of faults.
    struct Toy {
        cfg: ToyConfig,
        value: u32,
        kept: u32,
        hidden: u32,
    }

    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct ToyConfig {
        fault: String,
    }

    #[derive(Serialize, Deserialize)]
    enum ToyState {
        V1(u32, u32, u32),
    }

    impl Device for Toy {
        const KIND: &'static str = "toy";
        type Config = ToyConfig;
        type State = ToyState;

        fn spec(_: &ToyConfig) -> PluginSpec {
            PluginSpec::new("toy", "1.0", 0x1000)
                .registers([
                    Register::rw("VALUE", 0, 0, "1").shadow(0).posted(&[0]),
                    Register::ro("SQUARE", 4, 0, "2"),
                    Register::ro("OTHER", 8, 0, "3").shadow(1),
                    Register::rw("KEPT", 12, 0, "4").shadow(2).stored(),
                ])
                .shadows(&[("VALUE", 0), ("OTHER", 0), ("KEPT", 0)])
                .outputs(&["irq"])
        }

        fn new(cfg: &ToyConfig) -> Result<Self, ConfigError> {
            Ok(Self { cfg: cfg.clone(), value: 0, kept: 0, hidden: 0 })
        }

        fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
            let fault = self.cfg.fault.as_str();
            match event {
                Event::Reset => {
                    (self.value, self.kept) = (0, 0);
                    if fault != "reset" {
                        self.hidden = 0;
                    }
                }
                Event::Read { tag, offset, .. } => {
                    let side_effect = fault == "side-effect" && offset == 0;
                    self.hidden = self.hidden.wrapping_add(u32::from(side_effect));
                    match offset {
                        0 => fx.reply(tag, self.value.into()),
                        4 if fault == "silent" => {}
                        12 => fx.reply(tag, self.kept.into()),
                        4 => fx.reply(tag, self.value.wrapping_mul(self.value.wrapping_add(self.hidden)).into()),
                        _ => fx.reply(tag, 0),
                    }
                    if offset == 4 && fault == "twice" {
                        fx.reply(tag, 0);
                    }
                }
                Event::Write { offset: 0, value, size: 4, .. } => {
                    self.value = value as u32;
                    self.hidden = self.hidden.wrapping_add(u32::from(fault == "forgets" || fault == "reset"));
                    assert!(fault != "panic" || value != 1, "the value is 1");
                    if fault != "stale" {
                        fx.publish(0, self.value.into());
                    }
                    match fault {
                        "undeclared" => fx.publish(1, self.value.into()),
                        "lowers" => fx.pulse(0),
                        "pin" => fx.line(1, true),
                        _ => {}
                    }
                }
                Event::Write { offset: 12, value, size: 4, .. } => {
                    if fault == "again" {
                        fx.pulse(0);
                    }
                    self.kept = value as u32;
                    fx.publish(2, self.kept.into());
                }
                _ => {}
            }
        }

        fn save(&self) -> ToyState {
            ToyState::V1(self.value, self.kept, if self.cfg.fault == "forgets" { 0 } else { self.hidden })
        }

        fn restore(cfg: &ToyConfig, ToyState::V1(value, kept, hidden): ToyState) -> Result<Self, RestoreError> {
            assert!(cfg.fault != "restore" || value < 1 << 31, "too large");
            RestoreError::check(hidden == 0 || !cfg.fault.is_empty(), "hidden")?;
            Ok(Self { cfg: cfg.clone(), value, kept, hidden })
        }
    }

    /// A tape: it reads blocks of its disk into a queue, or by DMA into RAM, and writes what it is sent in packets.
    struct Tape {
        cfg: ToyConfig,
        block: u32,
        held: u32,
    }

    impl Tape {
        fn fill(&mut self, fx: &mut Effects<'_>) {
            let blocks = (fx.disk_len(0).unwrap_or(0) / 512) as u32;
            if self.held > 0 || blocks == 0 {
                return;
            }
            let mut bytes = [0; 64];
            fx.disk_read(0, u64::from(self.block % blocks) * 512, &mut bytes);
            let words: Vec<u32> =
                bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes"))).collect();
            fx.queue(0, &words);
            self.held = 16;
        }
    }

    impl Device for Tape {
        const KIND: &'static str = "tape";
        type Config = ToyConfig;
        type State = (u32, u32);

        fn spec(_: &ToyConfig) -> PluginSpec {
            PluginSpec::new("tape", "1.0", 0x1000)
                .registers([
                    Register::rw("BLOCK", 0, 0, "1").shadow(0),
                    Register::ro("DATA", 4, 0, "2").queue(0),
                    Register::wo("COMMAND", 8, "3"),
                    Register::ro("LEFT", 12, 0, "4").shadow(1),
                ])
                .shadows(&[("BLOCK", 0), ("LEFT", 0)])
                .queue("DATA", 16)
                .disk("reel")
                .packets("wire", Direction::Both)
        }

        fn new(cfg: &ToyConfig) -> Result<Self, ConfigError> {
            Ok(Self { cfg: cfg.clone(), block: 0, held: 0 })
        }

        fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
            let fault = &*self.cfg.fault.clone();
            let writable = !fx.disk_read_only(0) && fx.disk_len(0).is_some();
            match event {
                Event::Reset => (self.block, self.held) = (0, 0),
                Event::Read { tag, offset: 0, .. } => fx.reply(tag, self.block.into()),
                Event::Read { tag, offset: 12, .. } => fx.reply(tag, self.held.into()),
                Event::Read { tag, offset, .. } => {
                    if fault == "late" && offset == 4 {
                        fx.queue(0, &[1]);
                    }
                    fx.reply(tag, 0);
                }
                Event::Write { offset: 0, value, .. } => self.block = value as u32,
                Event::Write { offset: 8, value: 1, .. } => self.fill(fx),
                Event::Write { offset: 8, value: 2, .. } => {
                    let beyond = if fault == "beyond" { 1 << 40 } else { 0 };
                    let data = DmaData::Disk { disk: 0, offset: beyond, len: 512 };
                    fx.dma(1, &[], &[DmaWrite { addr: 0x8000_0000, data }]);
                }
                Event::Write { offset: 8, value: 3, .. } => {
                    fx.queue_clear(0);
                    self.held = 0;
                }
                Event::Write { offset: 8, value: 4, .. } if writable => fx.disk_discard(0, 512, 1024),
                Event::Host { data, .. } if writable => {
                    fx.disk_write(0, 0, &data[..data.len().min(512)]);
                    fx.disk_flush(0);
                }
                Event::Popped { count, .. } => {
                    self.held -= if fault == "forgets" { 0 } else { count };
                    if self.held == 0 {
                        self.block = self.block.wrapping_add(1);
                        self.fill(fx);
                    }
                }
                _ => {}
            }
            if fault == "overfull" && self.held > 0 {
                fx.queue(0, &[7]);
            }
            fx.publish(0, self.block.into());
            fx.publish(1, self.held.into());
            fx.host_want(0, 2);
        }

        fn save(&self) -> (u32, u32) {
            (self.block, self.held)
        }

        fn restore(cfg: &ToyConfig, (block, held): (u32, u32)) -> Result<Self, RestoreError> {
            RestoreError::check(held <= 16, "it holds more than a block")?;
            Ok(Self { cfg: cfg.clone(), block, held })
        }
    }

    #[test]
    fn a_device_with_a_disk_and_a_queue_conforms() {
        let report = Suite::new(&Plugin::of::<Tape>(), "()").values(&[1, 2, 3, 4]).check();
        assert!(report.events > 10_000 && report.cuts == 72, "{report:?}");
    }

    #[test]
    fn faults_with_disks_and_queues_are_found() {
        let finds = |fault: &str, word: &str| {
            let config = format!("(fault: {fault:?})");
            let plugin = Plugin::of::<Tape>();
            let failure = Suite::new(&plugin, &config).values(&[1, 2, 3, 4]).run().expect_err(fault).to_string();
            assert!(failure.contains(word), "{fault}: {failure}");
        };
        finds("late", "in a read of it");
        finds("beyond", "of disk 0, which has");
        finds("overfull", "holds at most 16 values");
    }

    #[test]
    fn a_disk_is_read_into_dma_with_its_origin() {
        struct Untouched(MemoryDisk);
        impl Disks for Untouched {
            fn size(&self, disk: u32) -> Option<u64> {
                self.0.size(disk)
            }
            fn read_only(&self, disk: u32) -> bool {
                self.0.read_only(disk)
            }
            fn read(&mut self, disk: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
                self.0.read(disk, offset, buffer)
            }
            fn write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), String> {
                Err("no room".into())
            }
            fn discard(&mut self, _: u32, _: u64, _: u64) -> Result<(), String> {
                Err("no room".into())
            }
            fn flush(&mut self, _: u32) -> Result<(), String> {
                Ok(())
            }
            fn unchanged(&self, _: u32, _: u64, _: u64) -> bool {
                true
            }
        }
        let mut disk = Untouched(MemoryDisk { data: vec![0xa5; 1024], read_only: false, flushes: 0 });
        let mut tape = Plugin::of::<Tape>().create("()").unwrap();
        let mut seen = Vec::new();
        let start = Event::Write { tag: 0, offset: 8, size: 4, value: 2 };
        tape.step_with(VTime(0), start, &mut disk, &mut |e| {
            if let Effect::Dma { writes, .. } = e {
                seen.extend(writes.iter().map(|w| (w.addr, w.data.to_vec(), w.origin)));
            }
        })
        .unwrap();
        let origin = Some(crate::dma::Origin { disk: 0, offset: 0 });
        assert_eq!(seen, [(0x8000_0000, vec![0xa5; 512], origin)]);
        // The host's trouble is no matter of the guest's: the device stops.
        let packet = Event::Host { port: 0, data: &[1; 60] };
        let fault = tape.step_with(VTime(0), packet, &mut disk, &mut |_| {}).unwrap_err();
        assert!(fault.0.contains("no room"), "{fault}");
    }

    #[test]
    fn a_good_device_conforms() {
        let report = Suite::new(&Plugin::of::<Toy>(), "()").check();
        assert!(
            report.events > 10_000 && report.cuts == 72 && report.reads > 1000 && report.refused > 100,
            "{report:?}"
        );
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let finds = |fault: &str, word: &str| {
            let config = format!("(fault: {fault:?})");
            let failure = Suite::new(&Plugin::of::<Toy>(), &config).run().expect_err(fault).to_string();
            assert!(failure.contains(word), "{fault}: {failure}");
        };
        finds("reset", "after a reset");
        finds("side-effect", "changed the state");
        finds("silent", "no reply");
        finds("twice", "nobody waits for");
        finds("forgets", "restored after event");
        finds("panic", "the value is 1");
        finds("stale", "would answer");
        finds("undeclared", "does not declare");
        finds("lowers", "lowers a line");
        finds("pin", "panicked");
        finds("again", "which it holds");
        finds("restore", "too large");
    }

    #[test]
    fn config_errors_have_a_place() {
        let e = Plugin::of::<Toy>().create("(\n  fault: 7,\n)").unwrap_err();
        assert!(matches!(&e, crate::host::MakeError::Config(c) if c.at == (2, 9)), "{e:?}");
        let e = Plugin::of::<Toy>().create("(fualt: \"\")").unwrap_err().to_string();
        assert!(e.contains("fualt") && e.contains("toy"), "{e}");
        let e = Plugin::of::<Toy>().create("(fault: \"\", fault: \"\")").unwrap_err().to_string();
        assert!(e.contains("fault"), "{e}");
    }

    #[test]
    fn a_dead_device_stays_dead() {
        let mut toy = Plugin::of::<Toy>().create("(fault: \"panic\")").unwrap();
        let write = Event::Write { tag: 0, offset: 0, size: 4, value: 1 };
        let fault = toy.step(VTime(0), write, &mut |_| {}).unwrap_err();
        assert!(fault.0.contains("the value is 1"), "{fault}");
        assert_eq!(toy.step(VTime(0), Event::Reset, &mut |_| {}).unwrap_err(), fault);
        assert_eq!(toy.save().unwrap_err(), fault);
    }
}
