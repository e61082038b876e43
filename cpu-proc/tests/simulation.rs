//! The run loop against a toy engine and a toy device whose asynchronous effects come late by a seeded, random amount: whatever the
//! timing of the recording and of the replay, the execution is the same.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use cpu_proc::board::{Board, Connection, Region, Target, Wire};
use cpu_proc::clock::{Clock, IdleMode};
use cpu_proc::journal::{Entry, Journal, Script, What};
use cpu_proc::link::{Link, ReadPolicy, RegPolicy};
use cpu_proc::port::{Effect, Incoming, Port, PortError};
use cpu_proc::runner::{Divergence, Host, Mode, Order, Outcome, Policy, Runner};
use reprise_arm::bus::{At, Bus, GuestRam};
use reprise_arm::cores::Cores;
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::gic::{Gic, GicConfig};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_channel::{EndReason, Event, Request, burst, content_checksum, fold};

const DEVICE: u64 = 0x1000_0000;
const DEVICES: u64 = 3;
const GIC_DIST: u64 = 0x2c00_1000;
const GIC_CPU: u64 = 0x2c00_2000;

/// A pure toy device: register 0 synchronous, 4 a shadow, 8 posted (may change the shadow and the line), 12 clears the line, 16 arms, 20 a FIFO: as 8.
#[derive(Default)]
struct Toy {
    state: u64,
    shadow: u64,
    line: bool,
    /// Stores of the longest burst.
    longest: usize,
}

impl Toy {
    fn step(&mut self, vtime: u64, r: Request<'_>) -> Vec<Event<'static>> {
        let mut out = Vec::new();
        self.state = fold(self.state, vtime);
        match r {
            Request::Reset => {
                *self = Self { longest: self.longest, ..Self::default() };
                out.push(Event::Ack);
            }
            Request::Read { .. } => out.push(Event::Reply { value: self.state & 0xffff_ffff }),
            Request::Burst { offset, size, data } => {
                assert!(burst::is_sound(size, data) && data.len() > 8, "one store is a write");
                self.longest = self.longest.max(data.len() / 8);
                for (vtime, value) in burst::stores(vtime, data) {
                    let value = value.into();
                    out.extend(self.step(vtime, Request::Write { offset, size, value, posted: true }));
                }
            }
            Request::Write { offset: 8 | 20, value, posted, .. } => {
                assert!(posted);
                self.state = fold(self.state, value);
                if self.state & 3 == 0 {
                    self.shadow = self.state >> 40;
                    out.push(Event::Publish { reg: 0, value: self.shadow });
                }
                if self.state & 7 == 1 && !self.line {
                    self.line = true;
                    out.push(Event::SetLine { pin: 0, level: true });
                }
            }
            Request::Write { offset: 4, value, .. } => {
                if self.shadow != value {
                    self.shadow = value;
                    out.push(Event::Publish { reg: 0, value });
                }
                out.push(Event::Ack);
            }
            Request::Write { offset: 12, .. } => {
                if self.line {
                    self.line = false;
                    out.push(Event::SetLine { pin: 0, level: false });
                }
                out.push(Event::Ack);
            }
            Request::Write { offset: 16, .. } => {
                out.push(Event::Arm { id: 0, vtime: vtime + 1 + (self.state & 0x3ff) });
                out.push(Event::Ack);
            }
            Request::Timer { .. } | Request::Host { .. } => {
                self.state = fold(self.state, r.data().iter().fold(7, |h, b| fold(h, u64::from(*b))));
                if !self.line && self.state & 1 == 0 {
                    self.line = true;
                    out.push(Event::SetLine { pin: 0, level: true });
                }
                out.push(Event::Ack);
            }
            _ => out.push(Event::Ack),
        }
        out
    }
}

/// A channel in this process: each message arrives after a random number of looks.
struct LatePort {
    toy: Toy,
    sent: u64,
    queue: VecDeque<(u32, Incoming)>,
    done_in: u32,
    rng: u64,
    offers: bool,
}

impl LatePort {
    fn random(&mut self, n: u64) -> u64 {
        self.rng = fold(self.rng, 0x1234_5678_9abc_def1);
        (self.rng >> 20) % n
    }

    fn tick(&mut self) {
        self.done_in = self.done_in.saturating_sub(1);
        if let Some(m) = self.queue.front_mut() {
            m.0 = m.0.saturating_sub(1);
        }
        if self.offers && self.random(400) == 0 {
            let data = vec![self.random(256) as u8; 1 + self.random(3) as usize];
            self.queue.push_back((0, Incoming::Offer { port: 0, data }));
        }
        if self.random(50) == 0 {
            self.queue.push_back((0, Incoming::Side));
        }
    }
}

impl Port for LatePort {
    fn send(&mut self, vtime: u64, request: Request<'_>) -> Result<u64, PortError> {
        let cause = self.sent;
        self.sent += 1;
        let mut late = 0;
        for e in self.toy.step(vtime, request) {
            let delay = if request.is_synchronous() { self.random(3) } else { self.random(200) } as u32;
            let effect = match e {
                Event::Reply { value } => Effect::Reply { value },
                Event::Ack => Effect::Ack,
                Event::SetLine { pin, level } => Effect::Line { pin, level },
                Event::Publish { reg, value } => Effect::Publish { shadow: reg as u32, value },
                Event::Arm { id, vtime } => Effect::Arm { id, vtime },
                _ => unreachable!("the toy has no other effects"),
            };
            late += delay;
            self.queue.push_back((
                delay,
                Incoming::Effect { cause, effect, check: content_checksum(&e.to_slot(cause), &[]) },
            ));
        }
        self.done_in = self.done_in.max(late);
        Ok(cause)
    }

    fn next_if(&mut self, accept: &mut dyn FnMut(&Incoming) -> bool) -> Result<Option<Incoming>, PortError> {
        self.tick();
        match self.queue.front() {
            Some((0, m)) if accept(m) => Ok(self.queue.pop_front().map(|m| m.1)),
            _ => Ok(None),
        }
    }

    fn wait(&mut self) -> Result<(), PortError> {
        self.tick();
        Ok(())
    }

    fn passed(&mut self, _: u64) -> Result<bool, PortError> {
        self.tick();
        Ok(self.done_in == 0 && self.queue.is_empty())
    }

    fn wait_passed(&mut self, _: u64) -> Result<(), PortError> {
        while let Some(m) = self.queue.iter_mut().find(|m| m.0 > 0) {
            m.0 = 0;
        }
        self.done_in = 0;
        Ok(())
    }
}

/// An engine whose instructions are a hash chain over r0, with MMIO, interrupts and WFI now and then.
struct ToyEngine;

impl ToyEngine {
    fn state(cpu: &Cpu) -> u64 {
        u64::from(cpu.regs[0]) << 32 | u64::from(cpu.regs[1])
    }

    fn put(cpu: &mut Cpu, v: u64) {
        cpu.regs[0] = (v >> 32) as u32;
        cpu.regs[1] = v as u32;
    }

    fn access(cpu: &mut Cpu, bus: &mut dyn Bus, pa: u64, write: Option<u64>) -> bool {
        let at = At { icount: cpu.icount, pc: cpu.regs[15], secure: cpu.is_secure() };
        let after = match write {
            Some(v) => bus.write(at, pa, 4, v & 0xffff_ffff).expect("mapped"),
            None => {
                let (v, after) = bus.read(at, pa, 4).expect("mapped");
                Self::put(cpu, fold(Self::state(cpu), v));
                after
            }
        };
        cpu.begin_epoch();
        after.exit
    }
}

impl ToyEngine {
    /// Takes the GIC's interrupt and ends it, as one instruction with two accesses.
    fn acknowledge(cpu: &mut Cpu, bus: &mut dyn Bus) -> bool {
        let at = At { icount: cpu.icount, pc: cpu.regs[15], secure: cpu.is_secure() };
        let (id, taken) = bus.read(at, GIC_CPU + 0xc, 4).expect("mapped");
        let ended = bus.write(at, GIC_CPU + 0x10, 4, id).expect("mapped");
        Self::put(cpu, fold(Self::state(cpu), id));
        cpu.begin_epoch();
        taken.exit || ended.exit
    }
}

impl Engine for ToyEngine {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn run(&mut self, cpu: &mut Cpu, _: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        let budget = budget.limit.min(budget.enough);
        let end = cpu.icount + budget;
        while cpu.icount < end {
            // An interrupt is taken once and masks itself until the handler, here any access to offset 12, has cleared the line.
            if bus.lines().0 && !cpu.i {
                cpu.i = true;
                let s = fold(Self::state(cpu), 99);
                Self::put(cpu, s);
            }
            cpu.regs[15] = cpu.regs[15].wrapping_add(4);
            let s = fold(Self::state(cpu), 1);
            Self::put(cpu, s);
            let device = DEVICE + (s >> 8) % DEVICES * 0x1000;
            let exit = match s >> 32 & 0x3f {
                0 => Self::access(cpu, bus, device, None),
                1 => Self::access(cpu, bus, device + 4, None),
                2..=6 => Self::access(cpu, bus, device + 8, Some(s)),
                7 => {
                    cpu.i = false;
                    Self::access(cpu, bus, device + 12, Some(s))
                }
                8 => Self::access(cpu, bus, device + 16, Some(s)),
                9 if bus.lines().0 => Self::access(cpu, bus, device + 12, Some(s)),
                // Several cores: software interrupts to the others, their acknowledgement and end.
                10 if cpu.shares => Self::access(cpu, bus, GIC_DIST + 0xf00, Some(1 << 24 | s & 15)),
                11..=13 if cpu.shares && bus.lines().0 => Self::acknowledge(cpu, bus),
                14..=25 => Self::access(cpu, bus, DEVICE + 20, Some(s)),
                _ => false,
            };
            cpu.icount += 1;
            if exit {
                return StopReason::Exit;
            }
            if s >> 32 & 0x3f > 25 {
                // Hints, which make no access.
                match s >> 40 & 0x3ff {
                    5 => {
                        cpu.waiting = true;
                        return StopReason::Wait;
                    }
                    6..=9 => cpu.send_event(),
                    10..=20 if cpu.wait_for_event() => return StopReason::Exit,
                    _ => {}
                }
            }
        }
        StopReason::Budget
    }

    fn flush(&mut self) {}
}

struct NoHost {
    sleeps: u32,
}

impl<P> Host<P> for NoHost {
    fn look(&mut self, _: &Cores, _: u64) -> Result<Order> {
        Ok(if self.sleeps > 100_000 { Order::End(EndReason::Stopped) } else { Order::Run })
    }

    fn sleep(&mut self, _: &Board<P>, _: Option<Duration>) -> Result<()> {
        self.sleeps += 1;
        Ok(())
    }
}

#[derive(Default)]
struct Log(Vec<Entry>);

impl Journal for Log {
    fn put(&mut self, e: &Entry) -> Result<()> {
        self.0.push(e.clone());
        Ok(())
    }
}

struct Follow(VecDeque<Entry>);

impl Script for Follow {
    fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self.0.pop_front())
    }
}

fn board(seed: u64, offers: bool, cores: u32) -> Board<LatePort> {
    let policy = vec![
        RegPolicy::SYNC,
        RegPolicy { read: ReadPolicy::Shadow(0), posted: None, stored: true, fifo: false, sizes: 4 },
        RegPolicy { read: ReadPolicy::Sync, posted: Some(1), stored: false, fifo: false, sizes: 4 },
        RegPolicy::SYNC,
        RegPolicy::SYNC,
        RegPolicy { read: ReadPolicy::Sync, posted: Some(1), stored: false, fifo: true, sizes: 4 },
    ];
    let links = (0..DEVICES)
        .map(|i| {
            let port = LatePort {
                toy: Toy::default(),
                sent: 0,
                queue: VecDeque::new(),
                done_in: 0,
                rng: seed * 7 + i,
                offers,
            };
            Link::new(format!("toy{i}"), port, policy.clone(), vec![0], offers)
        })
        .collect();
    let map = (0..DEVICES as usize)
        .map(|i| Region { start: DEVICE + i as u64 * 0x1000, size: 0x1000, target: Target::Device(i) })
        .chain([(GIC_DIST, Target::GicDist), (GIC_CPU, Target::GicCpu)].map(|(start, target)| Region {
            start,
            size: 0x1000,
            target,
        }))
        .collect();
    let wires = (0..DEVICES as usize)
        .map(|device| Connection { device, pin: 0, to: Wire::Spi(device as u32), level: false })
        .collect();
    let mut gic = Gic::new(GicConfig::cortex_a15(cores as usize, 32));
    // Enable the distributor, the interfaces and the first SPIs, with the lowest mask; SPI n goes to core n.
    gic.dist_write(0, true, 0, 4, 1);
    gic.dist_write(0, true, 0x104, 4, 0xffff_ffff);
    for core in 0..cores {
        gic.cpu_write(core as usize, true, 0, 4, 1);
        gic.cpu_write(core as usize, true, 4, 4, 0xff);
    }
    for i in 0..32 {
        gic.dist_write(0, true, 0x820 + i, 1, 1 << (i % cores));
    }
    Board::new(Clock::new(1, 1), gic, links, map, wires)
}

struct Run {
    outcome: Outcome,
    regs: u64,
    hashes: Vec<u64>,
    /// What the devices came to.
    toys: Vec<u64>,
    longest: usize,
}

/// One core runs alone, several share the machine in turns.
fn execute_on(cores: u32, seed: u64, offers: bool, mode: Mode<'_>, limit: u64) -> Result<Run> {
    let mut ram = vec![0u8; 4096];
    // SAFETY: the vector outlives the view, and the toy engine does not touch RAM.
    let view = unsafe { GuestRam::new(ram.as_mut_ptr(), 0, 4096) };
    let core = |n| {
        let mut cpu = Cpu::new(Model::cortex_a15(n, cores, 0x2c00_0000, 24_000_000));
        cpu.regs[0] = n;
        cpu
    };
    let mut b = board(seed, offers, cores);
    let mut cores = Cores::new((0..cores).map(core).collect(), 300);
    let policy = Policy {
        idle: IdleMode::Warp,
        anchor_every: 5_000,
        slice: 64,
        long_slice: 256,
        control_every: 1000,
        messages_per_progress: 20,
        stop_at: Some(limit),
        jitter: Some(seed),
    };
    let (mut engine, mut host) = (ToyEngine, NoHost { sleeps: 0 });
    let mut r = Runner::new(&mut cores, &view, &mut engine, &mut b, &mut host, mode, policy);
    r.power_on()?;
    let outcome = r.run()?;
    r.put_end(&outcome, [1; 32])?;
    let toys = b.links.iter().map(|l| l.port.toy.state).collect();
    let longest = b.links[0].port.toy.longest;
    Ok(Run { outcome, regs: cores.register_hash(), hashes: b.links.iter().map(|l| l.hash).collect(), toys, longest })
}

fn execute(seed: u64, offers: bool, mode: Mode<'_>, limit: u64) -> Result<Run> {
    execute_on(1, seed, offers, mode, limit)
}

fn record_on(cores: u32, seed: u64) -> (Run, Vec<Entry>) {
    let mut log = Log::default();
    let run = execute_on(cores, seed, true, Mode::Record(&mut log), 60_000).expect("records");
    (run, log.0)
}

fn record(seed: u64) -> (Run, Vec<Entry>) {
    record_on(1, seed)
}

fn replays_under_any_timing(cores: u32) {
    for seed in 1..20 {
        let (run, entries) = record_on(cores, seed);
        assert!(entries.iter().any(|e| matches!(e.what, What::Host { .. })), "seed {seed}: no host input");
        let consumed = entries.iter().filter(|e| matches!(e.what, What::Consumed { .. })).count();
        assert!(run.longest > 3, "seed {seed}: no burst");
        assert!(consumed > 10, "seed {seed}: only {consumed} asynchronous effects: the test shows nothing");
        for other in [seed, seed + 100, seed + 200] {
            let mut script = Follow(entries.clone().into());
            let again = execute_on(cores, other, false, Mode::Replay(&mut script), u64::MAX)
                .unwrap_or_else(|e| panic!("{cores} cores, seed {seed}/{other}: {e:#}"));
            assert_eq!(
                (again.outcome.icount, again.outcome.pos, again.regs),
                (run.outcome.icount, run.outcome.pos, run.regs),
                "{cores} cores, seed {seed}/{other}"
            );
            assert_eq!((again.hashes, again.outcome.reason), (run.hashes.clone(), EndReason::Limit));
            assert_eq!((again.toys, again.longest), (run.toys.clone(), run.longest));
            assert_eq!(again.outcome.recorded_hash, Some([1; 32]));
        }
    }
}

#[test]
fn a_recording_replays_under_any_timing() {
    replays_under_any_timing(1);
}

/// The turns lie where they lay, whatever the slices and the timing of effects.
#[test]
fn a_recording_of_several_cores_replays_under_any_timing() {
    replays_under_any_timing(2);
    replays_under_any_timing(4);
}

#[test]
fn two_recordings_with_other_timing_differ_so_the_test_above_means_something() {
    let (a, _) = record(1);
    let (b, _) = record(2);
    assert_ne!(a.regs, b.regs);
}

#[test]
fn a_changed_entry_is_a_divergence() {
    let (_, entries) = record(3);
    let mut tried = 0;
    for (i, e) in entries.iter().enumerate() {
        let mut changed = entries.clone();
        match &mut changed[i].what {
            What::Consumed { check, .. } => *check ^= 1,
            What::Anchor(a) => a.regs ^= 1,
            What::Progress { icount, .. } => *icount += 1,
            _ => continue,
        }
        let at = e.pos;
        let error =
            execute(9, false, Mode::Replay(&mut Follow(changed.into())), u64::MAX).map(drop).expect_err("diverges");
        let d = error.downcast_ref::<Divergence>().unwrap_or_else(|| panic!("not a divergence: {error:#}"));
        assert_eq!(d.pos, at, "it is found where it is");
        tried += 1;
        if tried == 60 {
            break;
        }
    }
    assert!(tried > 30);
}

#[test]
fn a_recording_that_was_cut_replays_to_its_last_progress_mark() {
    let (_, mut entries) = record(4);
    let marks: Vec<usize> = (0..entries.len()).filter(|&i| matches!(entries[i].what, What::Progress { .. })).collect();
    let cut = marks[marks.len() / 2];
    entries.truncate(cut + 1);
    let last = entries[cut].clone();
    let run = execute(8, false, Mode::Replay(&mut Follow(entries.into())), u64::MAX).expect("replays");
    assert!(run.outcome.cut);
    assert_eq!(run.outcome.pos, last.pos);
}

#[test]
fn a_write_of_what_a_register_stores_is_left_out_unless_a_posted_write_may_change_it() {
    let mut b = board(1, false, 1);
    let at = At { icount: 1, pc: 0, secure: true };
    let write = |b: &mut Board<LatePort>, offset: u64, value: u64| {
        b.write(at, DEVICE + offset, 4, value).expect("mapped");
        assert!(b.error.is_none());
        b.links[0].requests
    };
    assert_eq!(write(&mut b, 4, 5), 1, "another value");
    assert_eq!(write(&mut b, 4, 5), 1, "the same value");
    assert_eq!(b.read(at, DEVICE + 4, 4).expect("mapped").0, 5);
    assert_eq!(write(&mut b, 8, 1), 2, "posted; it may change the register");
    assert_eq!(write(&mut b, 4, 5), 3, "so this one is sent");
    assert_eq!(write(&mut b, 4, 5), 3, "and this one is not");
    assert_eq!(write(&mut b, 4, 6), 4);
}
