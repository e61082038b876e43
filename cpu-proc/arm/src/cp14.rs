//! The debug registers of CP14 (ARM DDI 0406C chapter C11), as far as software that runs on the core looks at them, and the trivial
//! ThumbEE and Jazelle registers.

use crate::cp15::{Kind, Line, Who, line, wide};
use serde::{Deserialize, Serialize};

/// DBGDSCR.UDCCdis: User may not use the debug communication channel.
pub const DSCR_UDCCDIS: u32 = 1 << 12;
/// DBGDSCR bits that software can write through DBGDSCRext: INTdis, UDCCdis, HDBGen (ignored), MDBGen, MOE.
const DSCR_WRITABLE: u32 = 0x0000_983c;
/// The key that sets the OS Lock.
const OSLAR_KEY: u32 = 0xc5ac_ce55;
/// DBGOSLSR: OS Lock implemented without save/restore mechanism (OSLM = 0b10), 32-bit key.
const OSLSR_MODEL: u32 = 1 << 3;
/// DBGPRSR: powered up.
const PRSR_PU: u32 = 1;
/// DBGAUTHSTATUS: invasive debug of both security states implemented and disabled; non-invasive debug enabled, as the performance
/// monitors count in both.
const AUTHSTATUS: u32 = 0xee;

/// State of the CP14 debug registers. Breakpoints and watchpoints can be read back but never match: self-hosted hardware breakpoints are
/// not modelled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Debug {
    /// DBGDSCR: the bits that software can write.
    pub dscr: u32,
    /// DBGVCR.
    pub vcr: u32,
    /// DBGBVR0-5.
    pub bvr: [u32; 6],
    /// DBGBCR0-5.
    pub bcr: [u32; 6],
    /// DBGBXVR of the two context-aware breakpoints, 4 and 5.
    pub bxvr: [u32; 2],
    /// DBGWVR0-3.
    pub wvr: [u32; 4],
    /// DBGWCR0-3.
    pub wcr: [u32; 4],
    /// OS Lock is set.
    pub os_lock: bool,
    /// OS Double Lock is set.
    pub os_dlock: bool,
    /// DBGCLAIMSET/CLR.
    pub claim: u32,
    /// DBGPRCR.
    pub prcr: u32,
}

/// The debug registers with behaviour of their own; the number selects one of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the manual's, without the DBG prefix")]
pub enum DebugReg {
    DscrInt,
    DscrExt,
    Vcr,
    Bvr(usize),
    Bcr(usize),
    Bxvr(usize),
    Wvr(usize),
    Wcr(usize),
    Oslar,
    Oslsr,
    Osdlr,
    Prcr,
    Prsr,
    ClaimSet,
    ClaimClr,
    AuthStatus,
}

impl Debug {
    /// MRC.
    pub fn read(&self, reg: DebugReg) -> u32 {
        match reg {
            DebugReg::DscrInt | DebugReg::DscrExt => self.dscr,
            DebugReg::Vcr => self.vcr,
            DebugReg::Bvr(n) => self.bvr[n],
            DebugReg::Bcr(n) => self.bcr[n],
            DebugReg::Bxvr(n) => self.bxvr[n],
            DebugReg::Wvr(n) => self.wvr[n],
            DebugReg::Wcr(n) => self.wcr[n],
            DebugReg::Oslar => 0,
            DebugReg::Oslsr => OSLSR_MODEL | u32::from(self.os_lock) << 1,
            DebugReg::Osdlr => u32::from(self.os_dlock),
            DebugReg::Prcr => self.prcr,
            DebugReg::Prsr => PRSR_PU | u32::from(self.os_lock) << 5 | u32::from(self.os_dlock) << 6,
            DebugReg::ClaimSet => 0xff,
            DebugReg::ClaimClr => self.claim,
            DebugReg::AuthStatus => AUTHSTATUS,
        }
    }

    /// MCR. Read-only registers ignore writes.
    pub fn write(&mut self, reg: DebugReg, value: u32) {
        match reg {
            DebugReg::DscrExt => self.dscr = value & DSCR_WRITABLE,
            DebugReg::Vcr => self.vcr = value & 0xfe00_ffdf,
            DebugReg::Bvr(n) => self.bvr[n] = value,
            DebugReg::Bcr(n) => self.bcr[n] = value & 0x1fff_e1e7,
            DebugReg::Bxvr(n) => self.bxvr[n] = value & 0xff,
            DebugReg::Wvr(n) => self.wvr[n] = value & !3,
            DebugReg::Wcr(n) => self.wcr[n] = value & 0x1f1f_ffff,
            DebugReg::Oslar => self.os_lock = value == OSLAR_KEY,
            DebugReg::Osdlr => self.os_dlock = value & 1 != 0,
            DebugReg::Prcr => self.prcr = value & 1,
            DebugReg::ClaimSet => self.claim |= value & 0xff,
            DebugReg::ClaimClr => self.claim &= !(value & 0xff),
            DebugReg::DscrInt | DebugReg::Oslsr | DebugReg::Prsr | DebugReg::AuthStatus => {}
        }
    }
}

use DebugReg::*;
use Kind::{Debug as Dbg, Field, Value, Zero};
use Who::{DbgRo, DbgRw, Pl1Ro, Pl1Rw, Pl1Wo, UserRo};

/// Every CP14 register, in the style of [`crate::cp15::LINES`].
#[rustfmt::skip]
pub const LINES: &[Line] = &[
    line("DBGDIDR", (14, 0, 0, 0, 0), DbgRo, Value(|m| m.dbgdidr)),
    line("DBGDSCRint", (14, 0, 0, 1, 0), DbgRo, Dbg(DscrInt)),
    line("DBGDTRRXint/TXint", (14, 0, 0, 5, 0), DbgRw, Zero),
    line("DBGWFAR", (14, 0, 0, 6, 0), Pl1Rw, Zero),
    line("DBGVCR", (14, 0, 0, 7, 0), Pl1Rw, Dbg(Vcr)),
    line("DBGDTRRXext", (14, 0, 0, 0, 2), Pl1Rw, Zero),
    line("DBGDSCRext", (14, 0, 0, 2, 2), Pl1Rw, Dbg(DscrExt)),
    line("DBGDTRTXext", (14, 0, 0, 3, 2), Pl1Rw, Zero),
    line("DBGOSECCR", (14, 0, 0, 6, 2), Pl1Rw, Zero),
    line("DBGBVR0", (14, 0, 0, 0, 4), Pl1Rw, Dbg(Bvr(0))),
    line("DBGBVR1", (14, 0, 0, 1, 4), Pl1Rw, Dbg(Bvr(1))),
    line("DBGBVR2", (14, 0, 0, 2, 4), Pl1Rw, Dbg(Bvr(2))),
    line("DBGBVR3", (14, 0, 0, 3, 4), Pl1Rw, Dbg(Bvr(3))),
    line("DBGBVR4", (14, 0, 0, 4, 4), Pl1Rw, Dbg(Bvr(4))),
    line("DBGBVR5", (14, 0, 0, 5, 4), Pl1Rw, Dbg(Bvr(5))),
    line("DBGBCR0", (14, 0, 0, 0, 5), Pl1Rw, Dbg(Bcr(0))),
    line("DBGBCR1", (14, 0, 0, 1, 5), Pl1Rw, Dbg(Bcr(1))),
    line("DBGBCR2", (14, 0, 0, 2, 5), Pl1Rw, Dbg(Bcr(2))),
    line("DBGBCR3", (14, 0, 0, 3, 5), Pl1Rw, Dbg(Bcr(3))),
    line("DBGBCR4", (14, 0, 0, 4, 5), Pl1Rw, Dbg(Bcr(4))),
    line("DBGBCR5", (14, 0, 0, 5, 5), Pl1Rw, Dbg(Bcr(5))),
    line("DBGWVR0", (14, 0, 0, 0, 6), Pl1Rw, Dbg(Wvr(0))),
    line("DBGWVR1", (14, 0, 0, 1, 6), Pl1Rw, Dbg(Wvr(1))),
    line("DBGWVR2", (14, 0, 0, 2, 6), Pl1Rw, Dbg(Wvr(2))),
    line("DBGWVR3", (14, 0, 0, 3, 6), Pl1Rw, Dbg(Wvr(3))),
    line("DBGWCR0", (14, 0, 0, 0, 7), Pl1Rw, Dbg(Wcr(0))),
    line("DBGWCR1", (14, 0, 0, 1, 7), Pl1Rw, Dbg(Wcr(1))),
    line("DBGWCR2", (14, 0, 0, 2, 7), Pl1Rw, Dbg(Wcr(2))),
    line("DBGWCR3", (14, 0, 0, 3, 7), Pl1Rw, Dbg(Wcr(3))),
    line("DBGDRAR", (14, 0, 1, 0, 0), DbgRo, Zero),
    wide("DBGDRAR", (14, 0, 1), DbgRo, Zero),
    line("DBGBXVR4", (14, 0, 1, 4, 1), Pl1Rw, Dbg(Bxvr(0))),
    line("DBGBXVR5", (14, 0, 1, 5, 1), Pl1Rw, Dbg(Bxvr(1))),
    line("DBGOSLAR", (14, 0, 1, 0, 4), Pl1Wo, Dbg(Oslar)),
    line("DBGOSLSR", (14, 0, 1, 1, 4), Pl1Ro, Dbg(Oslsr)),
    line("DBGOSDLR", (14, 0, 1, 3, 4), Pl1Rw, Dbg(Osdlr)),
    line("DBGPRCR", (14, 0, 1, 4, 4), Pl1Rw, Dbg(Prcr)),
    line("DBGPRSR", (14, 0, 1, 5, 4), Pl1Ro, Dbg(Prsr)),
    line("DBGDSAR", (14, 0, 2, 0, 0), DbgRo, Zero),
    wide("DBGDSAR", (14, 0, 2), DbgRo, Zero),
    line("DBGITCTRL", (14, 0, 7, 0, 4), Pl1Rw, Zero),
    line("DBGCLAIMSET", (14, 0, 7, 8, 6), Pl1Rw, Dbg(ClaimSet)),
    line("DBGCLAIMCLR", (14, 0, 7, 9, 6), Pl1Rw, Dbg(ClaimClr)),
    line("DBGAUTHSTATUS", (14, 0, 7, 14, 6), Pl1Ro, Dbg(AuthStatus)),
    line("DBGDEVID2", (14, 0, 7, 0, 7), Pl1Ro, Zero),
    line("DBGDEVID1", (14, 0, 7, 1, 7), Pl1Ro, Zero),
    line("DBGDEVID", (14, 0, 7, 2, 7), Pl1Ro, Zero),
    // ThumbEE (chapter A9, registers in B4.1.151) and the trivial Jazelle implementation (B1.19.5).
    line("TEECR", (14, 6, 0, 0, 0), UserRo, Field(|c| &mut c.teecr, 1)),
    line("TEEHBR", (14, 6, 1, 0, 0), Pl1Rw, Field(|c| &mut c.teehbr, !3)),
    line("JIDR", (14, 7, 0, 0, 0), UserRo, Zero),
    line("JOSCR", (14, 7, 1, 0, 0), Pl1Rw, Zero),
    line("JMCR", (14, 7, 2, 0, 0), Pl1Rw, Zero),
];
