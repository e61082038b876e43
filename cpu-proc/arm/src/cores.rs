//! Several cores on one timeline. One core runs at a time; the cores take turns in fixed order.
//!
//! A turn ends when it has retired its quantum of instructions, with WFI, or with a WFE that found no event; a core that waits is passed over, and so is
//! one that the firmware has switched off.
//! All of that is a function of the instructions executed and of the interrupt lines, never of the host's timing, so a recording needs nothing
//! about it: positions stay unique on the one timeline.
//!
//! What the cores share moves with the turn: the timeline (instruction count, epoch, idle) and the TLB with the engine's code-page protection.

use crate::mmu::MAX_CORES;
use crate::state::Cpu;
use crate::statehash::{hash_cpu, hash_power, hash_turn, register_hash};

/// The cores of a machine, and whose turn it is.
#[derive(Debug)]
pub struct Cores {
    cpus: Vec<Cpu>,
    current: usize,
    quantum: u64,
    /// `icount` at which the present turn ends; never with a single core.
    end: u64,
}

impl From<Cpu> for Cores {
    /// A machine with one core, whose turn never ends.
    fn from(cpu: Cpu) -> Self {
        Cores { cpus: vec![cpu], current: 0, quantum: 0, end: u64::MAX }
    }
}

impl Cores {
    /// The cores of a machine, in the order of their numbers; the first one has the first turn. `quantum` is the length of a turn in
    /// instructions; it must be long against a guest's loop of LDREX and STREX, as the end of a turn opens the core's exclusive monitor.
    ///
    /// # Panics
    /// If there are none or more than [`MAX_CORES`], if one's number (MPIDR) is not its place, or if the quantum is 0.
    pub fn new(mut cpus: Vec<Cpu>, quantum: u64) -> Self {
        assert!((1..=MAX_CORES).contains(&cpus.len()), "a machine has 1 to {MAX_CORES} cores");
        assert!(cpus.iter().enumerate().all(|(i, c)| usize::from(c.core()) == i), "cores stand in order");
        assert!(quantum > 0, "a turn has at least one instruction");
        if cpus.len() == 1 {
            return Cores::from(cpus.pop().expect("one core"));
        }
        cpus.iter_mut().for_each(|c| c.shares = true);
        let n = cpus.len();
        cpus[0].mmu.set_cores(n);
        Cores { cpus, current: 0, quantum, end: quantum }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// The number of the core whose turn it is.
    #[inline]
    pub fn current(&self) -> usize {
        self.current
    }

    /// The core whose turn it is.
    #[inline]
    pub fn cpu(&self) -> &Cpu {
        &self.cpus[self.current]
    }

    /// The core whose turn it is.
    #[inline]
    pub fn cpu_mut(&mut self) -> &mut Cpu {
        &mut self.cpus[self.current]
    }

    /// All of them, in order. Only the one whose turn it is knows how far the machine has come.
    pub fn all(&self) -> &[Cpu] {
        &self.cpus
    }

    /// All of them, to set them up before the first instruction.
    pub fn all_mut(&mut self) -> &mut [Cpu] {
        &mut self.cpus
    }

    /// `icount` at which the present turn ends, `u64::MAX` with a single core.
    #[inline]
    pub fn turn_end(&self) -> u64 {
        self.end
    }

    /// Instructions that are left of the turn; 0 when the next core's has not begun yet.
    pub fn turn_left(&self) -> u64 {
        self.end.saturating_sub(self.cpu().icount)
    }

    /// The present turn is over (a WFE). Who is next shows in [`Cores::next_turn`].
    pub fn end_turn(&mut self) {
        self.end = self.cpu().icount;
    }

    /// Lets the turn go on, or gives it to the next core in order that is on and does not wait; that may be the same one again. `interrupted(n)`
    /// says whether an interrupt line into core n is up, which ends its wait, masked or not (ARM DDI 0406C B1.8.14). False if there is none.
    pub fn next_turn(&mut self, interrupted: impl Fn(usize) -> bool) -> bool {
        let ready = |c| self.is_ready(c, &interrupted);
        let on = self.cpu().icount < self.end && ready(self.current);
        let n = self.cpus.len();
        let next = if on { Some(self.current) } else { (1..=n).map(|k| (self.current + k) % n).find(|&c| ready(c)) };
        let Some(next) = next else { return false };
        self.cpus[next].waiting = false;
        if !on {
            self.pass_to(next);
        }
        true
    }

    /// Whether no core is on and can go on: what [`Self::next_turn`] would find, and nothing else happens.
    pub fn all_wait(&self, interrupted: impl Fn(usize) -> bool) -> bool {
        !(0..self.cpus.len()).any(|c| self.is_ready(c, &interrupted))
    }

    fn is_ready(&self, c: usize, interrupted: impl Fn(usize) -> bool) -> bool {
        !self.cpus[c].off && (!self.cpus[c].waiting || interrupted(c))
    }

    /// Begins a turn of core `next`.
    fn pass_to(&mut self, next: usize) {
        if next != self.current {
            self.broadcast();
            let (from, to) = pair(&mut self.cpus, self.current, next);
            // Allowed at any time (ARM DDI 0406C A3.4.1); without it the monitor would have to see the others' stores.
            from.excl.valid = false;
            std::mem::swap(&mut from.mmu, &mut to.mmu);
            from.cp15.pmu.settle(from.icount);
            to.set_timeline(from.timeline());
            to.update_context();
            self.current = next;
        }
        self.end = self.cpu().icount.saturating_add(self.quantum);
    }

    /// Gives the other cores the event of a SEV in this turn.
    fn broadcast(&mut self) {
        if std::mem::take(&mut self.cpu_mut().sev) {
            let current = self.current;
            self.cpus.iter_mut().enumerate().filter(|(i, _)| *i != current).for_each(|(_, c)| c.event = true);
        }
    }

    /// The hash in anchors: [`register_hash`] of a single core; with several, one over all of them and the turn (`docs/state-hash.md`).
    pub fn register_hash(&self) -> u64 {
        if let [cpu] = &self.cpus[..] {
            return register_hash(cpu);
        }
        let turn = [self.current as u64, self.turn_left()];
        let cores = self.cpus.iter().flat_map(|c| [u64::from(c.waiting) | u64::from(c.off) << 1, register_hash(c)]);
        turn.into_iter().chain(cores).fold(0xcbf2_9ce4_8422_2325, |h: u64, v| {
            let h = (h ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^ h >> 32
        })
    }

    /// Feeds the cores' blocks to `sink`, then, if there are several, the turn's block, then, where there is firmware, the power block: see
    /// `docs/state-hash.md`.
    pub fn hash(&mut self, sink: &mut dyn FnMut(&[u8])) {
        let now = self.cpu().timeline();
        let event = self.cpu().sev;
        for (i, cpu) in self.cpus.iter_mut().enumerate() {
            if i != self.current {
                cpu.set_timeline(now);
                cpu.event |= event;
            }
            hash_cpu(cpu, sink);
        }
        if self.cpus.len() > 1 {
            hash_turn(self.cpus.len(), self.current, self.turn_left(), sink);
        }
        if self.cpus.iter().any(|c| c.firmware.is_some()) {
            hash_power(&self.cpus, sink);
        }
    }
}

/// Two different cores at once.
fn pair(cpus: &mut [Cpu], a: usize, b: usize) -> (&mut Cpu, &mut Cpu) {
    let (low, high) = cpus.split_at_mut(a.max(b));
    if a < b { (&mut low[a], &mut high[0]) } else { (&mut high[0], &mut low[b]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;
    use crate::pmu::PmuReg;

    fn cores(n: u32, quantum: u64) -> Cores {
        let cpu = |i| Cpu::new(Model::cortex_a15(i, n, 0x2c00_0000, 24_000_000));
        Cores::new((0..n).map(cpu).collect(), quantum)
    }

    fn retire(c: &mut Cores, n: u64) {
        c.cpu_mut().icount += n;
    }

    fn quiet(_: usize) -> bool {
        false
    }

    #[test]
    fn turns_go_round_and_end_exactly() {
        let mut c = cores(3, 100);
        let mut seen = Vec::new();
        for _ in 0..7 {
            assert!(c.next_turn(quiet));
            assert_eq!(c.turn_left(), 100);
            seen.push(c.current());
            retire(&mut c, 99);
            assert!(c.next_turn(quiet));
            assert_eq!((c.current(), c.turn_left()), (*seen.last().unwrap(), 1), "not yet");
            retire(&mut c, 1);
        }
        assert_eq!(seen, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(c.cpu().icount, 700, "one timeline");
    }

    #[test]
    fn a_single_core_has_one_endless_turn() {
        let mut c = cores(1, 100);
        retire(&mut c, 1 << 40);
        assert!(c.next_turn(quiet));
        assert_eq!(c.turn_end(), u64::MAX);
        assert!(!c.cpu().shares && !c.cpu_mut().wait_for_event(), "WFE goes on");
        c.cpu_mut().waiting = true;
        assert!(!c.next_turn(quiet) && c.cpu().waiting);
        assert!(c.next_turn(|n| n == 0) && !c.cpu().waiting);
    }

    #[test]
    fn who_waits_is_passed_over_until_an_interrupt() {
        let mut c = cores(4, 100);
        c.all_mut()[1].waiting = true;
        c.all_mut()[2].waiting = true;
        retire(&mut c, 100);
        assert!(c.next_turn(|n| n == 2));
        assert_eq!(c.current(), 2, "core 1 sleeps on, core 2 was woken");
        assert!(!c.all()[2].waiting && c.all()[1].waiting);
        retire(&mut c, 3);
        c.cpu_mut().waiting = true;
        assert!(c.next_turn(quiet));
        assert_eq!((c.current(), c.turn_left()), (3, 100), "WFI gives the rest of the turn up");
        for i in [0, 3] {
            c.all_mut()[i].waiting = true;
        }
        assert!(!c.next_turn(quiet), "all wait");
        assert_eq!(c.current(), 3);
        assert!(c.next_turn(|n| n == 3), "the core itself, again");
        assert_eq!((c.current(), c.cpu().icount), (3, 103));
    }

    #[test]
    fn the_position_moves_with_the_turn() {
        let mut c = cores(2, 100);
        let cpu = c.cpu_mut();
        (cpu.icount, cpu.epoch, cpu.epoch_start) = (100, 7, 60);
        cpu.note_warp();
        let pos = cpu.pos();
        assert!(c.next_turn(quiet));
        assert_eq!((c.current(), c.cpu().pos()), (1, pos));
        assert_eq!((pos.epoch, pos.count, pos.idle), (7, 40, 1));
    }

    #[test]
    fn the_monitor_opens_at_a_switch_only() {
        let mut c = cores(2, 100);
        let tag = crate::state::Exclusive { valid: true, addr: 0x8000_0000, size: 4 };
        c.all_mut()[1].waiting = true;
        c.cpu_mut().excl = tag;
        retire(&mut c, 100);
        assert!(c.next_turn(quiet));
        assert!(c.current() == 0 && c.cpu().excl.valid, "nobody else ran");
        retire(&mut c, 100);
        c.all_mut()[1].waiting = false;
        assert!(c.next_turn(quiet));
        assert!(c.current() == 1 && !c.all()[0].excl.valid);
    }

    #[test]
    fn events_reach_all_cores_and_wfe_ends_a_turn() {
        let mut c = cores(3, 100);
        c.cpu_mut().send_event();
        assert!(!c.cpu_mut().wait_for_event(), "its own event");
        retire(&mut c, 10);
        assert!(c.cpu_mut().wait_for_event());
        assert!(c.cpu_mut().take_yield() && !c.cpu_mut().take_yield());
        c.end_turn();
        assert!(c.next_turn(quiet));
        assert_eq!((c.current(), c.turn_left()), (1, 100));
        assert!(c.all()[1].event && c.all()[2].event && !c.all()[0].event, "it took its own already");
        assert!(!c.cpu_mut().wait_for_event(), "SEV came first");
        assert!(c.cpu_mut().wait_for_event());
    }

    #[test]
    fn counters_count_the_core_s_own_instructions() {
        let mut c = cores(2, 100);
        let model = c.cpu().model.clone();
        for cpu in c.all_mut() {
            cpu.cp15.pmu.write(&model, 0, PmuReg::CntenSet, 1 << 31);
            cpu.cp15.pmu.write(&model, 0, PmuReg::Cr, 1);
        }
        let mut ran = [0; 2];
        for n in [100, 100, 30, 100, 100] {
            ran[c.current()] += n;
            retire(&mut c, u64::from(n));
            c.end_turn();
            c.next_turn(quiet);
        }
        let now = c.cpu().icount;
        let current = c.current();
        assert_eq!(c.cpu_mut().cp15.pmu.read(&model, now, PmuReg::Ccntr), ran[current]);
        let before = c.register_hash();
        c.hash(&mut |_| {});
        assert_eq!(c.all()[1 - current].cp15.pmu.ccntr, ran[1 - current], "a hash changes no counter");
        assert_eq!(c.register_hash(), before);
    }

    #[test]
    fn hashes_cover_all_cores_and_the_turn() {
        let bytes = |c: &mut Cores| {
            let mut out = Vec::new();
            c.hash(&mut |b| out.extend_from_slice(b));
            out
        };
        let mut base = cores(2, 100);
        let (hash, reg) = (bytes(&mut base), base.register_hash());
        assert_eq!(hash.len(), 2 * 1006 + 20, "docs/state-hash.md names the sizes");
        type Change = fn(&mut Cores);
        let changes: [(&str, Change); 4] = [
            ("a register of the other core", |c| c.all_mut()[1].regs[3] = 1),
            ("the other core waits", |c| c.all_mut()[1].waiting = true),
            ("the quantum's rest", |c| c.end_turn()),
            ("whose turn it is", |c| c.pass_to(1)),
        ];
        for (what, change) in changes {
            let mut other = cores(2, 100);
            change(&mut other);
            assert_ne!(bytes(&mut other), hash, "{what}");
            assert_ne!(other.register_hash(), reg, "{what}");
        }
        let mut sent = cores(2, 100);
        sent.cpu_mut().send_event();
        let mut passed = cores(2, 100);
        passed.all_mut().iter_mut().for_each(|c| c.event = true);
        assert_eq!(bytes(&mut sent), bytes(&mut passed), "an event under way has arrived");
    }
}
