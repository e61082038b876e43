//! Performance monitors (ARM DDI 0406C chapter C12): every cycle is one retired instruction, so all counts are exact and the same in
//! every run.
//!
//! The events that are functions of the instructions executed are counted, and PMCEID0 lists them: software increment (0x00),
//! instruction retired (0x08; Cortex-A9 has it not and counts instructions that come out of the renaming stage, 0x68), exception taken and
//! returned from (0x09, 0x0a), writes of CONTEXTIDR (0x0b) and of the TTBRs (0x1c), CPU and bus cycles (0x11, 0x1d). A counter of any
//! other event stands still.
//!
//! Counters that run with the instructions are brought up to date when somebody looks, and before a change of privilege or security state
//! if one of them has a filter (PMXEVTYPER bits 31:28). [`Pmu::next_overflow`] is exact as long as that state stays; where it changes
//! and an overflow interrupt may follow, [`crate::state::Cpu::leave`] makes the run loop ask again.

use crate::models::Model;
use serde::{Deserialize, Serialize};

const PMCR_E: u32 = 1 << 0;
const PMCR_P: u32 = 1 << 1;
const PMCR_C: u32 = 1 << 2;
const PMCR_D: u32 = 1 << 3;
/// E, D, X, DP can be written; P and C are commands.
const PMCR_WRITABLE: u32 = 0b11_1001;
const EVENT_SWINC: u32 = 0x00;
const EVENT_CYCLE: u32 = 0x11;
const EVENT_BUS_CYCLE: u32 = 0x1d;
/// Exception taken: of any kind, interrupts included.
pub const EVENT_EXC_TAKEN: u32 = 0x09;
/// Exception return.
pub const EVENT_EXC_RETURN: u32 = 0x0a;
/// Write of CONTEXTIDR.
pub const EVENT_CID_WRITE: u32 = 0x0b;
/// Write of TTBR0, TTBR1 or TTBCR.
pub const EVENT_TTBR_WRITE: u32 = 0x1c;
/// PMXEVTYPER bits that filter, without the Virtualization Extensions: P, U, NSK, NSU.
const FILTERS: u32 = 0xf000_0000;
/// Event counters of Cortex-A15 and Cortex-A9.
const COUNTERS: usize = 6;
/// PMSELR value that names the cycle counter.
const SEL_CYCLE: u32 = 31;

/// Performance monitor registers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pmu {
    /// PMCR: the writable bits (E, D, X, DP).
    pub pmcr: u32,
    /// PMCNTENSET/CLR.
    pub cnten: u32,
    /// PMOVSR.
    pub ovs: u32,
    /// PMSELR.
    pub selr: u32,
    /// PMUSERENR.
    pub userenr: u32,
    /// PMINTENSET/CLR.
    pub inten: u32,
    /// PMXEVTYPER of each event counter, the cycle counter's filter last.
    pub evtyper: [u32; COUNTERS + 1],
    /// Event counters at `synced`.
    pub evcntr: [u32; COUNTERS],
    /// Cycle counter at `synced`.
    pub ccntr: u32,
    /// Instructions towards the next count while PMCR.D divides by 64.
    pub fraction: u32,
    /// `icount` up to which the counters are right.
    pub synced: u64,
    /// The core's event that counts instructions (configuration).
    pub instructions: u32,
    /// The state whose instructions are executed, kept by `Cpu::update_context`.
    pub level: Level,
}

/// The privilege and security state that instructions are executed in: counters can be told to leave some out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Level {
    /// PL0.
    pub user: bool,
    /// Non-secure state.
    pub nonsecure: bool,
}

/// The registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the manual's, without the PM prefix")]
pub enum PmuReg {
    Cr,
    CntenSet,
    CntenClr,
    OvsClr,
    OvsSet,
    Swinc,
    Selr,
    Ccntr,
    EvTyper,
    EvCntr,
    IntenSet,
    IntenClr,
}

/// Counters that exist: the six event counters and the cycle counter.
const IMPLEMENTED: u32 = 1 << 31 | 0x3f;

impl Pmu {
    /// Makes the stored counters those at `icount`, as a read there would find them.
    pub fn settle(&mut self, icount: u64) {
        self.sync(icount);
    }

    /// Brings the counters up to `icount`.
    fn sync(&mut self, icount: u64) {
        // An instruction that changes the level has been counted already while it executes: `retiring`.
        let n = icount.saturating_sub(self.synced);
        self.synced = self.synced.max(icount);
        if self.pmcr & PMCR_E == 0 || n == 0 {
            return;
        }
        if self.runs(COUNTERS) {
            let steps = if self.pmcr & PMCR_D != 0 {
                let total = u64::from(self.fraction) + n;
                self.fraction = (total % 64) as u32;
                total / 64
            } else {
                n
            };
            let sum = u64::from(self.ccntr) + steps;
            self.ccntr = sum as u32;
            self.ovs |= u32::from(sum >> 32 != 0) << 31;
        }
        for i in 0..COUNTERS {
            if self.runs(i) && self.counts(i) {
                self.add(i, n);
            }
        }
    }

    fn add(&mut self, i: usize, n: u64) {
        let sum = u64::from(self.evcntr[i]) + n;
        self.evcntr[i] = sum as u32;
        self.ovs |= u32::from(sum >> 32 != 0) << i;
    }

    /// Counter `i`, [`COUNTERS`] for the cycle counter, is enabled and does not leave the present state out (C12.8.12).
    fn runs(&self, i: usize) -> bool {
        let (enable, filter) = (if i == COUNTERS { 31 } else { i }, self.evtyper[i]);
        let bit = |n: u32| filter >> n & 1 != 0;
        let (out, nonsecure) = if self.level.user { (bit(30), bit(28)) } else { (bit(31), bit(29)) };
        self.cnten >> enable & 1 != 0 && !(out ^ (self.level.nonsecure && nonsecure))
    }

    /// A counter that is enabled has a filter.
    fn filtered(&self) -> bool {
        let on = |i: usize| self.cnten >> (if i == COUNTERS { 31 } else { i }) & 1 != 0;
        (0..=COUNTERS).any(|i| self.evtyper[i] & FILTERS != 0 && on(i))
    }

    /// The state changes; `icount` counts the instructions executed in the old one. True if an overflow interrupt may now come at another
    /// place than it looked before.
    #[inline]
    pub fn set_level(&mut self, icount: u64, level: Level) -> bool {
        if self.pmcr & PMCR_E == 0 || self.level == level {
            self.level = level;
            return false;
        }
        self.change_level(icount, level)
    }

    /// The instruction after `icount` others may change the state, and belongs to the old one.
    #[inline]
    pub fn retiring(&mut self, icount: u64) {
        if self.pmcr & PMCR_E != 0 && self.filtered() {
            self.sync(icount + 1);
        }
    }

    #[cold]
    fn change_level(&mut self, icount: u64, level: Level) -> bool {
        let filtered = self.filtered();
        if filtered {
            self.sync(icount);
        }
        self.level = level;
        filtered && self.cnten & self.inten != 0
    }

    /// Counts one event of a kind that does not go with the instructions. True if that has raised the overflow interrupt.
    #[inline]
    pub fn event(&mut self, event: u32) -> bool {
        self.pmcr & PMCR_E != 0 && self.count_event(event, !0)
    }

    fn count_event(&mut self, event: u32, counters: u32) -> bool {
        let before = self.ovs;
        for i in (0..COUNTERS).filter(|i| counters >> i & 1 != 0) {
            if self.runs(i) && self.evtyper[i] & 0xff == event {
                self.add(i, 1);
            }
        }
        self.ovs & !before & self.inten != 0
    }

    /// Registers out of reset.
    pub fn reset(model: &Model) -> Pmu {
        Pmu { instructions: model.pmu_instructions, ..Pmu::default() }
    }

    /// Event counter `i` counts instructions or cycles, which are the same here.
    fn counts(&self, i: usize) -> bool {
        let event = self.evtyper[i] & 0xff;
        event == EVENT_CYCLE || event == EVENT_BUS_CYCLE || event == self.instructions
    }

    /// The selected event counter.
    fn selected(&self) -> Option<usize> {
        (self.selr < COUNTERS as u32).then_some(self.selr as usize)
    }

    /// MRC. `icount` counts the instructions before this one.
    pub fn read(&mut self, model: &Model, icount: u64, reg: PmuReg) -> u32 {
        self.sync(icount);
        match reg {
            PmuReg::Cr => model.pmcr | self.pmcr,
            PmuReg::CntenSet | PmuReg::CntenClr => self.cnten,
            PmuReg::OvsClr | PmuReg::OvsSet => self.ovs,
            PmuReg::Swinc => 0,
            PmuReg::Selr => self.selr,
            PmuReg::Ccntr => self.ccntr,
            PmuReg::EvTyper if self.selr == SEL_CYCLE => self.evtyper[COUNTERS],
            PmuReg::EvTyper => self.selected().map_or(0, |i| self.evtyper[i]),
            PmuReg::EvCntr => self.selected().map_or(0, |i| self.evcntr[i]),
            PmuReg::IntenSet | PmuReg::IntenClr => self.inten,
        }
    }

    /// MCR. `icount` counts the instructions before this one.
    pub fn write(&mut self, model: &Model, icount: u64, reg: PmuReg, value: u32) {
        self.sync(icount);
        // PMUv2 has filters; Cortex-A9 has PMUv1.
        let filters = if model.extended() { FILTERS } else { 0 };
        match reg {
            PmuReg::Cr => self.write_control(value),
            PmuReg::CntenSet => self.cnten |= value & IMPLEMENTED,
            PmuReg::CntenClr => self.cnten &= !value,
            PmuReg::OvsClr => self.ovs &= !value,
            PmuReg::OvsSet => self.ovs |= value & IMPLEMENTED,
            PmuReg::Swinc if self.pmcr & PMCR_E != 0 => {
                self.count_event(EVENT_SWINC, value);
            }
            PmuReg::Swinc => {}
            PmuReg::Selr => self.selr = value & 0x1f,
            PmuReg::Ccntr => self.ccntr = value,
            PmuReg::EvTyper if self.selr == SEL_CYCLE => self.evtyper[COUNTERS] = value & filters,
            PmuReg::EvTyper => {
                if let Some(i) = self.selected() {
                    self.evtyper[i] = value & (filters | 0xff);
                }
            }
            PmuReg::EvCntr => {
                if let Some(i) = self.selected() {
                    self.evcntr[i] = value;
                }
            }
            PmuReg::IntenSet => self.inten |= value & IMPLEMENTED,
            PmuReg::IntenClr => self.inten &= !value,
        }
    }

    fn write_control(&mut self, value: u32) {
        self.pmcr = value & PMCR_WRITABLE;
        if value & PMCR_P != 0 {
            self.evcntr = [0; COUNTERS];
        }
        if value & PMCR_C != 0 {
            self.ccntr = 0;
            self.fraction = 0;
        }
    }

    /// The registers as a read at `icount` would find them; this one is left as it is.
    pub fn at(&self, icount: u64) -> Pmu {
        let mut copy = self.clone();
        copy.sync(icount);
        copy
    }

    /// A counter with its interrupt enabled counts something, in some state.
    #[inline]
    pub fn may_interrupt(&self) -> bool {
        self.pmcr & PMCR_E != 0 && self.cnten & self.inten != 0
    }

    /// Level of the overflow interrupt at `icount`.
    pub fn interrupt(&self, icount: u64) -> bool {
        self.pmcr & PMCR_E != 0 && self.inten != 0 && self.at(icount).ovs & self.inten != 0
    }

    /// `icount` at which the next counter with its interrupt enabled overflows, if the present privilege and security state stays that long;
    /// `None` if none will. Call [`Pmu::settle`] first: what has overflowed since the registers were looked at last overflows no more.
    pub fn next_overflow(&self) -> Option<u64> {
        if self.pmcr & PMCR_E == 0 {
            return None;
        }
        let on = self.inten & !self.ovs;
        let mut next = None;
        if on >> 31 != 0 && self.runs(COUNTERS) {
            let left = (1 << 32) - u64::from(self.ccntr);
            let left = if self.pmcr & PMCR_D != 0 { left * 64 - u64::from(self.fraction) } else { left };
            next = Some(left);
        }
        for i in 0..COUNTERS {
            if on >> i & 1 != 0 && self.runs(i) && self.counts(i) {
                let left = (1 << 32) - u64::from(self.evcntr[i]);
                next = Some(next.map_or(left, |n: u64| n.min(left)));
            }
        }
        next.map(|n| self.synced + n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::cortex_a15(0, 1, 0, 1)
    }

    #[test]
    fn cycles_are_instructions_and_overflow() {
        let (m, mut p) = (model(), Pmu::reset(&model()));
        p.write(&m, 100, PmuReg::CntenSet, 1 << 31);
        p.write(&m, 100, PmuReg::Cr, PMCR_E | PMCR_C);
        assert_eq!(p.read(&m, 150, PmuReg::Ccntr), 50);
        p.write(&m, 150, PmuReg::Ccntr, 0xffff_fffe);
        p.write(&m, 150, PmuReg::IntenSet, 1 << 31);
        assert_eq!(p.next_overflow(), Some(152));
        assert!(!p.interrupt(151));
        assert!(p.interrupt(152));
        assert_eq!(p.read(&m, 153, PmuReg::OvsClr), 1 << 31);
        p.write(&m, 153, PmuReg::OvsClr, 1 << 31);
        assert!(!p.interrupt(154));
    }

    #[test]
    fn divider_keeps_its_fraction() {
        let (m, mut p) = (model(), Pmu::reset(&model()));
        p.write(&m, 0, PmuReg::CntenSet, 1 << 31);
        p.write(&m, 0, PmuReg::Cr, PMCR_E | PMCR_D);
        assert_eq!(p.read(&m, 63, PmuReg::Ccntr), 0);
        assert_eq!(p.read(&m, 64, PmuReg::Ccntr), 1);
        assert_eq!(p.read(&m, 129, PmuReg::Ccntr), 2);
    }

    #[test]
    fn event_counters() {
        let (m, mut p) = (model(), Pmu::reset(&model()));
        for (i, event) in [(0, 0x08), (1, EVENT_SWINC), (2, 0x68)] {
            p.write(&m, 0, PmuReg::Selr, i);
            p.write(&m, 0, PmuReg::EvTyper, event);
        }
        p.write(&m, 0, PmuReg::CntenSet, 7);
        p.write(&m, 0, PmuReg::Cr, PMCR_E);
        p.write(&m, 10, PmuReg::Swinc, 7);
        let mut value = |sel| {
            p.write(&m, 20, PmuReg::Selr, sel);
            p.read(&m, 20, PmuReg::EvCntr)
        };
        assert_eq!([value(0), value(1), value(2), value(9)], [20, 1, 0, 0]);
        assert_eq!(p.read(&m, 20, PmuReg::Cr) >> 11 & 0x1f, 6, "PMCR.N");
    }

    /// Filters (C12.8.12): P and U leave a privilege level out, NSK and NSU turn that round in Non-secure state.
    #[test]
    fn filters() {
        let m = model();
        let levels = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(user, nonsecure)| Level { user, nonsecure });
        // Filter bits 31:28, and how many of 10 instructions in each of the levels are counted.
        let table = [
            (0b0000, [10, 10, 10, 10]),
            (0b1000, [0, 10, 0, 10]),
            (0b0100, [10, 0, 10, 0]),
            (0b1010, [0, 10, 10, 10]),
            (0b0010, [10, 10, 0, 10]),
            (0b0101, [10, 0, 10, 10]),
            (0b1111, [0, 0, 10, 10]),
        ];
        for (filter, expect) in table {
            let mut p = Pmu::reset(&m);
            for (sel, event) in [(0, 0x08), (1, EVENT_EXC_TAKEN), (SEL_CYCLE, 0)] {
                p.write(&m, 0, PmuReg::Selr, sel);
                p.write(&m, 0, PmuReg::EvTyper, filter << 28 | event);
            }
            p.write(&m, 0, PmuReg::CntenSet, 1 << 31 | 3);
            p.write(&m, 0, PmuReg::Cr, PMCR_E);
            for (i, level) in levels.into_iter().enumerate() {
                p.set_level(10 * i as u64, level);
                let before = p.at(10 * i as u64);
                p.event(EVENT_EXC_TAKEN);
                let after = p.at(10 * i as u64 + 10);
                let counted = [after.evcntr[0] - before.evcntr[0], after.ccntr - before.ccntr];
                assert_eq!(counted, [expect[i]; 2], "filter {filter:04b} {level:?}");
                assert_eq!(after.evcntr[1] - before.evcntr[1], expect[i] / 10, "filter {filter:04b} {level:?}");
            }
        }
    }

    #[test]
    fn overflow_under_a_filter() {
        let (m, mut p) = (model(), Pmu::reset(&model()));
        let (user, kernel) = (Level { user: true, nonsecure: false }, Level::default());
        p.write(&m, 0, PmuReg::EvTyper, 1 << 31 | 0x08); // counter 0, not PL1
        p.write(&m, 0, PmuReg::EvCntr, 0xffff_fff0);
        p.write(&m, 0, PmuReg::CntenSet, 1);
        p.write(&m, 0, PmuReg::IntenSet, 1);
        p.write(&m, 0, PmuReg::Cr, PMCR_E);
        assert_eq!(p.next_overflow(), None, "nothing is counted here");
        assert!(p.set_level(100, user), "the run loop must look again");
        assert_eq!(p.next_overflow(), Some(116));
        assert!(p.set_level(110, kernel));
        assert!(!p.interrupt(1000));
        p.set_level(1000, user);
        assert_eq!(p.next_overflow(), Some(1006));
        assert!(!p.interrupt(1005) && p.interrupt(1006));
        // Without the interrupt nobody needs to look.
        p.write(&m, 1006, PmuReg::IntenClr, 1);
        assert!(!p.set_level(1007, kernel));
    }

    #[test]
    fn events_that_overflow() {
        let (m, mut p) = (model(), Pmu::reset(&model()));
        p.write(&m, 0, PmuReg::EvTyper, EVENT_CID_WRITE);
        p.write(&m, 0, PmuReg::EvCntr, u32::MAX);
        p.write(&m, 0, PmuReg::CntenSet, 1);
        assert!(!p.event(EVENT_CID_WRITE), "PMCR.E is clear");
        p.write(&m, 0, PmuReg::Cr, PMCR_E);
        p.write(&m, 0, PmuReg::IntenSet, 1);
        assert!(!p.event(EVENT_TTBR_WRITE));
        assert!(p.event(EVENT_CID_WRITE) && p.interrupt(0));
        assert!(!p.event(EVENT_CID_WRITE), "raised already");
        assert_eq!(p.read(&m, 0, PmuReg::EvCntr), 1);
    }

    #[test]
    fn a9_counts_instructions_by_its_own_event() {
        let m = Model::cortex_a9(0, 1, 0);
        let mut p = Pmu::reset(&m);
        for (i, event) in [(0, 0x68), (1, 0x08), (2, EVENT_CYCLE)] {
            p.write(&m, 0, PmuReg::Selr, i);
            p.write(&m, 0, PmuReg::EvTyper, event);
        }
        p.write(&m, 0, PmuReg::CntenSet, 7);
        p.write(&m, 0, PmuReg::Cr, PMCR_E);
        let mut value = |sel| {
            p.write(&m, 30, PmuReg::Selr, sel);
            p.read(&m, 30, PmuReg::EvCntr)
        };
        assert_eq!([value(0), value(1), value(2)], [30, 0, 30]);
        assert_eq!(p.read(&m, 30, PmuReg::Cr), 0x4109_3001);
    }
}
