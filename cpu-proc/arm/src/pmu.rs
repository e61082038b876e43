//! Performance monitors (ARM DDI 0406C chapter C12): every cycle is one retired instruction, so all counts are exact and the same in
//! every run.
//!
//! Three events are counted: software increment (0x00), instruction retired (0x08; Cortex-A9 has it not and counts instructions that come
//! out of the renaming stage, 0x68) and CPU cycle (0x11); PMCEID0 says so. A counter of any other event stands still. Overflow sets its flag in PMOVSR when the registers are next looked at; the overflow
//! interrupt is [`Pmu::interrupt`].

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
        let n = icount - self.synced;
        self.synced = icount;
        if self.pmcr & PMCR_E == 0 || n == 0 {
            return;
        }
        if self.cnten >> 31 != 0 {
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
            let counts = self.counts(i);
            if self.cnten >> i & 1 != 0 && counts {
                let sum = u64::from(self.evcntr[i]) + n;
                self.evcntr[i] = sum as u32;
                self.ovs |= u32::from(sum >> 32 != 0) << i;
            }
        }
    }

    /// Registers out of reset.
    pub fn reset(model: &Model) -> Pmu {
        Pmu { instructions: model.pmu_instructions, ..Pmu::default() }
    }

    /// Event counter `i` counts instructions or cycles, which are the same here.
    fn counts(&self, i: usize) -> bool {
        let event = self.evtyper[i] & 0xff;
        event == EVENT_CYCLE || event == self.instructions
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
    pub fn write(&mut self, _model: &Model, icount: u64, reg: PmuReg, value: u32) {
        self.sync(icount);
        match reg {
            PmuReg::Cr => self.write_control(value),
            PmuReg::CntenSet => self.cnten |= value & IMPLEMENTED,
            PmuReg::CntenClr => self.cnten &= !value,
            PmuReg::OvsClr => self.ovs &= !value,
            PmuReg::OvsSet => self.ovs |= value & IMPLEMENTED,
            PmuReg::Swinc => self.increment(value),
            PmuReg::Selr => self.selr = value & 0x1f,
            PmuReg::Ccntr => self.ccntr = value,
            PmuReg::EvTyper if self.selr == SEL_CYCLE => self.evtyper[COUNTERS] = value & 0xf800_0000,
            PmuReg::EvTyper => {
                if let Some(i) = self.selected() {
                    self.evtyper[i] = value & 0xf800_00ff;
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

    fn increment(&mut self, mask: u32) {
        for i in 0..COUNTERS {
            let on = self.pmcr & PMCR_E != 0 && self.cnten & mask & 1 << i != 0;
            if on && self.evtyper[i] & 0xff == EVENT_SWINC {
                let (sum, over) = self.evcntr[i].overflowing_add(1);
                self.evcntr[i] = sum;
                self.ovs |= u32::from(over) << i;
            }
        }
    }

    /// The registers as a read at `icount` would find them; this one is left as it is.
    pub fn at(&self, icount: u64) -> Pmu {
        let mut copy = self.clone();
        copy.sync(icount);
        copy
    }

    /// Level of the overflow interrupt at `icount`.
    pub fn interrupt(&self, icount: u64) -> bool {
        self.pmcr & PMCR_E != 0 && self.at(icount).ovs & self.inten != 0
    }

    /// `icount` at which the next counter with its interrupt enabled overflows; `None` if none will.
    pub fn next_overflow(&self) -> Option<u64> {
        if self.pmcr & PMCR_E == 0 {
            return None;
        }
        let on = self.cnten & self.inten & !self.ovs;
        let mut next = None;
        if on >> 31 != 0 {
            let left = (1 << 32) - u64::from(self.ccntr);
            let left = if self.pmcr & PMCR_D != 0 { left * 64 - u64::from(self.fraction) } else { left };
            next = Some(left);
        }
        for i in 0..COUNTERS {
            let counts = self.counts(i);
            if on >> i & 1 != 0 && counts {
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
