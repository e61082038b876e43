//! The lockstep engine: it runs one engine, checks every step of it with another, and stops at the first instruction after which the two
//! differ.
//!
//! The *subject* runs on the real core, RAM and bus for a short run whose length is drawn from a seed, so that it executes whole blocks as
//! well as stops inside them. Its bus accesses are taped. The *reference* then runs the same instructions on a core and RAM of its own, with
//! the tape for a bus. After each run everything that a guest can see is compared: the core's state, the accesses, and the pages that the
//! reference stored to; now and then all of RAM. So the reference is a run behind, and when something differs both can be taken back to
//! the state before the run and run again, one instruction more each time (`locate`).
//!
//! What this can't see: a difference that both engines share (they have one translator; Unicorn and qemu-arm judge that), and what the TLB
//! holds, beyond its effects.

mod locate;
mod ram;
mod report;
mod tape;

use ram::Shadow;
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::state::Cpu;
use reprise_arm::statehash::{CpuState, hash_cpu};
use tape::{Playback, Tap, Tape};

/// How a [`Lockstep`] goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Where the lengths of the runs come from. The guest sees none of it.
    pub seed: u64,
    /// Most instructions in one run.
    pub longest: u64,
    /// Instructions between two comparisons of all RAM. Pages that the reference stored to are compared after each run.
    pub all_ram_every: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { seed: 1, longest: 2000, all_ram_every: 4 << 20 }
    }
}

/// Two engines in lockstep; see the crate's text.
pub struct Lockstep<S, R> {
    pub(crate) subject: S,
    pub(crate) reference: R,
    config: Config,
    rng: u64,
    twin: Option<Twin>,
    /// RAM was changed from outside.
    resync: bool,
    tape: Tape,
    since_all: u64,
    bytes: [Vec<u8>; 2],
    mismatch: Option<String>,
    runs: u64,
}

/// The reference's machine.
pub(crate) struct Twin {
    pub(crate) cpu: Cpu,
    pub(crate) ram: Shadow,
}

/// How two machines differ after a run.
pub(crate) enum Difference {
    /// In the core's state, the accesses made, or a page that the reference stored to.
    Run,
    /// At this physical address, in a page that the reference has not stored to in this run.
    Elsewhere(u64),
}

/// A run of the subject, as far as it is known when something differs.
pub(crate) struct Finding {
    /// The core before the run.
    pub(crate) before: CpuState,
    /// What the subject was told.
    pub(crate) budget: Budget,
    /// The core after the subject's run.
    pub(crate) after: CpuState,
    /// Instructions that it retired.
    pub(crate) retired: u64,
}

impl<S: Engine, R: Engine> Lockstep<S, R> {
    /// Checks `subject` with `reference`.
    ///
    /// # Panics
    /// If a length in `config` is 0.
    pub fn new(subject: S, reference: R, config: Config) -> Self {
        assert!(config.longest > 0 && config.all_ram_every > 0, "runs have a length");
        Self {
            subject,
            reference,
            config,
            rng: config.seed.wrapping_mul(2).wrapping_add(1),
            twin: None,
            resync: false,
            tape: Tape::default(),
            since_all: 0,
            bytes: Default::default(),
            mismatch: None,
            runs: 0,
        }
    }

    /// Runs compared so far.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    fn random(&mut self) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// The next run's budget, at most `left` instructions: mostly long ones, many short ones, some that end where the subject likes.
    fn budget(&mut self, left: u64) -> Budget {
        let r = self.random();
        let longest = match r % 8 {
            0 | 1 => 1 + r / 8 % 8,
            2 | 3 => 64,
            _ => self.config.longest,
        };
        let n = (1 + self.random() % longest).min(left);
        if self.random() % 4 == 0 { Budget { limit: left.min(n + 64), enough: n } } else { Budget::exactly(n) }
    }

    /// Gives the twin what was changed from outside since the last run.
    fn follow(&mut self, cpu: &Cpu, ram: &GuestRam) -> Result<(), String> {
        match &mut self.twin {
            None => {
                let shadow = Shadow::copy_of(ram)
                    .map_err(|e| format!("lockstep needs as much memory again as the guest has: {e}"))?;
                self.twin = Some(Twin { cpu: cpu.clone(), ram: shadow });
                self.reference.flush();
            }
            Some(twin) => {
                if std::mem::take(&mut self.resync) {
                    twin.ram.take_over(ram);
                }
                if twin.cpu.model != cpu.model || twin.cpu.save() != cpu.save() {
                    // Another core's turn, or a change from outside. The twin keeps its TLB: it has the same history as the subject's.
                    let mut copy = cpu.clone();
                    std::mem::swap(&mut copy.mmu, &mut twin.cpu.mmu);
                    twin.cpu = copy;
                    twin.cpu.update_context();
                }
            }
        }
        self.resync = false;
        Ok(())
    }

    /// One run of both.
    fn step(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> Result<StopReason, String> {
        let before = cpu.save();
        self.tape.clear(bus.lines());
        let reason = self.subject.run(cpu, ram, &mut Tap::new(bus, &mut self.tape), budget);
        let retired = cpu.icount.wrapping_sub(before.icount());
        if retired > budget.limit {
            return Err(format!(
                "lockstep: {} ran {retired} instructions at {:#010x}, past its limit of {}",
                self.subject.name(),
                before.pc(),
                budget.limit
            ));
        }
        let twin = self.twin.as_mut().expect("made by `follow`");
        twin.cpu.mmu.log_stores();
        let mut play = Playback::new(&self.tape, bus);
        self.reference.run(&mut twin.cpu, twin.ram.view(), &mut play, Budget::exactly(retired));
        self.runs += 1;
        let mut same = same_run(&mut self.bytes, cpu, ram, twin, &play);
        if !same && reason != StopReason::Budget && retired < budget.limit {
            // The subject has stopped at something that retires nothing, an exception for instance: the reference has yet to do it.
            let rest = Budget::exactly(budget.limit - retired);
            self.reference.run(&mut twin.cpu, twin.ram.view(), &mut play, rest);
            same = same_run(&mut self.bytes, cpu, ram, twin, &play);
        }
        let wrong = play.wrong();
        let mut difference = (!same).then_some(Difference::Run);
        self.since_all += retired;
        if difference.is_none() && self.since_all >= self.config.all_ram_every {
            self.since_all = 0;
            difference = twin.ram.first_difference(ram).map(Difference::Elsewhere);
        }
        match difference {
            None => Ok(reason),
            Some(d) => {
                let finding = Finding { before, budget, after: cpu.save(), retired };
                Err(self.locate(cpu, ram, bus, &finding, d, wrong))
            }
        }
    }

    /// Compares all RAM now; the caller has reached the end of what it wanted to check.
    ///
    /// # Errors
    /// The text of the difference, which [`Engine::mismatch`] gives from then on as well.
    pub fn check_ram(&mut self, ram: &GuestRam) -> Result<(), String> {
        let Some(twin) = &self.twin else { return Ok(()) };
        match twin.ram.first_difference(ram) {
            None => Ok(()),
            Some(pa) => {
                let text = report::elsewhere(self.subject.name(), self.reference.name(), pa, ram, &twin.ram, None);
                self.mismatch = Some(text.clone());
                Err(text)
            }
        }
    }
}

/// Whether subject and reference have come to the same state in the same way.
pub(crate) fn same_run(bytes: &mut [Vec<u8>; 2], cpu: &Cpu, ram: &GuestRam, twin: &Twin, play: &Playback<'_>) -> bool {
    let [a, b] = bytes;
    state_bytes(cpu, a);
    state_bytes(&twin.cpu, b);
    a == b && play.wrong().is_none() && play.finished() && {
        let stored = twin.cpu.mmu.stored_pages();
        stored.iter().all(|(pa, _)| twin.ram.page_difference(ram, *pa).is_none())
    }
}

/// All that a guest can see of its core, and what decides whether it can go on.
pub(crate) fn state_bytes(cpu: &Cpu, out: &mut Vec<u8>) {
    out.clear();
    hash_cpu(cpu, &mut |b| out.extend_from_slice(b));
    out.push(u8::from(cpu.halt.is_some()));
    out.extend_from_slice(&cpu.epoch_start.to_le_bytes());
    // A count of faults in a row means something only while nothing retires.
    let run = if cpu.fault_at == cpu.icount { cpu.fault_run } else { 0 };
    out.extend_from_slice(&run.to_le_bytes());
}

impl<S: Engine, R: Engine> Engine for Lockstep<S, R> {
    fn name(&self) -> &'static str {
        "lockstep"
    }

    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        if self.mismatch.is_some() {
            return StopReason::Halt;
        }
        let (start, want) = (cpu.icount, budget.limit.min(budget.enough));
        let mut outcome = self.follow(cpu, ram).map(|()| StopReason::Budget);
        while outcome == Ok(StopReason::Budget) {
            let left = budget.limit - (cpu.icount - start);
            let next = self.budget(left);
            outcome = self.step(cpu, ram, bus, next);
            if outcome.is_ok() && cpu.icount - start >= want {
                break;
            }
        }
        outcome.unwrap_or_else(|text| {
            cpu.halt = Some(text.clone());
            self.mismatch = Some(text);
            StopReason::Halt
        })
    }

    fn mismatch(&self) -> Option<&str> {
        self.mismatch.as_deref()
    }

    fn flush(&mut self) {
        self.subject.flush();
        self.reference.flush();
        self.resync = true;
    }
}
