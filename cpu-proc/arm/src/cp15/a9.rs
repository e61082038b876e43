//! Where the system registers of Cortex-A9 differ (TRM DDI 0388 chapter 4): what it has of its own, and what came with Cortex-A15.

use super::Kind::{Field, Zero};
use super::Who::{Pl1Ro, Pl1Rw, SecRwNsRo};
use super::{Line, SysReg, line};
use serde::{Deserialize, Serialize};

/// State of the registers that only Cortex-A9 has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Regs {
    /// Power control register (TRM 4.3.24): clock gating can be asked for; nothing follows.
    pub power: u32,
    /// Diagnostic register: work-arounds of errata set bits in it. The manual doesn't describe it; it reads back what was written.
    pub diagnostic: u32,
    /// TLB lockdown register (TRM 4.3.19).
    pub tlb_lockdown: u32,
}

/// Cortex-A9's own registers. A lockdown entry reads as invalid: the TLB here has no fixed entries. The preload engine is left out, as
/// the TRM allows; PLEIDR says so.
#[rustfmt::skip]
pub const LINES: &[Line] = &[
    line("TLB lockdown", (15, 0, 10, 0, 0), SecRwNsRo, Field(|c| &mut c.a9.tlb_lockdown, 0x3000_0001)),
    line("PLEIDR", (15, 0, 11, 0, 0), Pl1Ro, Zero),
    line("Power control", (15, 0, 15, 0, 0), SecRwNsRo, Field(|c| &mut c.a9.power, 0x0000_0701)),
    line("Diagnostic", (15, 0, 15, 0, 1), SecRwNsRo, Field(|c| &mut c.a9.diagnostic, !0)),
    line("NEON busy", (15, 0, 15, 1, 0), Pl1Ro, Zero),
    line("TLB entry to read", (15, 5, 15, 4, 2), Pl1Rw, Zero),
    line("TLB entry to write", (15, 5, 15, 4, 4), Pl1Rw, Zero),
    line("TLB entry VA", (15, 5, 15, 5, 2), Pl1Rw, Zero),
    line("TLB entry PA", (15, 5, 15, 6, 2), Pl1Rw, Zero),
    line("TLB entry attributes", (15, 5, 15, 7, 2), Pl1Rw, Zero),
];

/// Registers of Cortex-A15 that Cortex-A9 hasn't: the generic timer, long descriptors, PMUv2, its L2 cache, and in CP14 all but the
/// baseline registers (DBGDIDR version 0b0100; ARM DDI 0406C C11.2.1).
pub(super) fn lacks(reg: SysReg) -> bool {
    let (cp, opc1, crn, crm, opc2) =
        (reg.0 >> 16 & 0xf, reg.0 >> 11 & 7, reg.0 >> 7 & 0xf, reg.0 >> 3 & 0xf, reg.0 & 7);
    match (cp, reg.is_wide()) {
        (14, true) => true,
        (14, false) => opc1 == 0 && !matches!((crn, crm, opc2), (0, 0 | 1 | 5, 0) | (1 | 2, 0, 0)),
        (_, true) => true,
        (_, false) => matches!(
            (opc1, crn, crm, opc2),
            (0, 14, ..) | (0, 9, 12, 6 | 7) | (0, 9, 14, 3) | (0, 10, 3, _) | (1, 9 | 15, ..)
        ),
    }
}
