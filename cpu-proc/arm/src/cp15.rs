//! The system control coprocessor CP15 of Cortex-A15 (ARM DDI 0406C B4, TRM DDI 0438 chapter 4) and Cortex-A9 (TRM DDI 0388 chapter 4).

use crate::bus::{Bus, GuestRam};
use crate::cp14;
use crate::mmu::{
    Access, Reach, SCTLR_A, SCTLR_AFE, SCTLR_EE, SCTLR_M, SCTLR_TRE, SCTLR_UWXN, SCTLR_WXN, TTBCR_A1, TTBCR_EAE,
};
use crate::models::Model;
use crate::pmu::{EVENT_CID_WRITE, EVENT_TTBR_WRITE, Pmu, PmuReg};
use crate::state::Cpu;
use crate::timer::TimerReg;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// State of CP15 and CP14. Registers that are banked by the Security Extensions are arrays: index 0 is Secure, 1 Non-secure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cp15 {
    /// Index of the bank in use: 0 unless SCR.NS is set and the mode isn't Monitor. Derived, kept by `Cpu::update_context`.
    pub bank: usize,
    /// SCTLR.
    pub sctlr: [u32; 2],
    /// ACTLR.
    pub actlr: u32,
    /// CPACR.
    pub cpacr: u32,
    /// SCR.
    pub scr: u32,
    /// SDER.
    pub sder: u32,
    /// NSACR.
    pub nsacr: u32,
    /// TTBR0 (64 bits wide, for long descriptors).
    pub ttbr0: [u64; 2],
    /// TTBR1.
    pub ttbr1: [u64; 2],
    /// TTBCR.
    pub ttbcr: [u32; 2],
    /// DACR.
    pub dacr: [u32; 2],
    /// DFSR.
    pub dfsr: [u32; 2],
    /// IFSR.
    pub ifsr: [u32; 2],
    /// ADFSR.
    pub adfsr: [u32; 2],
    /// AIFSR.
    pub aifsr: [u32; 2],
    /// DFAR.
    pub dfar: [u32; 2],
    /// IFAR.
    pub ifar: [u32; 2],
    /// PAR (64 bits wide, for long descriptors).
    pub par: [u64; 2],
    /// PRRR, and MAIR0 in the long-descriptor format.
    pub prrr: [u32; 2],
    /// NMRR, and MAIR1 in the long-descriptor format.
    pub nmrr: [u32; 2],
    /// AMAIR0, AMAIR1.
    pub amair: [[u32; 2]; 2],
    /// VBAR.
    pub vbar: [u32; 2],
    /// MVBAR.
    pub mvbar: u32,
    /// FCSEIDR: RAZ/WI without the FCSE, kept for its banked place.
    pub fcseidr: [u32; 2],
    /// CONTEXTIDR; bits 7:0 are the ASID.
    pub contextidr: [u32; 2],
    /// TPIDRURW.
    pub tpidrurw: [u32; 2],
    /// TPIDRURO.
    pub tpidruro: [u32; 2],
    /// TPIDRPRW.
    pub tpidrprw: [u32; 2],
    /// CSSELR.
    pub csselr: [u32; 2],
    /// L2 control, L2 extended control.
    pub l2ctlr: u32,
    /// L2ECTLR.
    pub l2ectlr: u32,
    /// TEECR (CP14, ThumbEE: trivial).
    pub teecr: u32,
    /// TEEHBR.
    pub teehbr: u32,
    /// Performance monitors.
    pub pmu: Pmu,
    /// CP14 debug registers.
    pub debug: crate::cp14::Debug,
    /// Registers that only Cortex-A9 has.
    pub a9: a9::Regs,
}

/// SCR of a core without the Security Extensions: NS, and FW, AW, SCD: it masks its interrupts itself, and SMC is UNDEFINED.
const SCR_WITHOUT_SECURITY: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 7;
/// NSACR likewise: nothing is kept from it (cp10, cp11, NS_L2ERR, NS_SMP).
const NSACR_WITHOUT_SECURITY: u32 = 1 << 10 | 1 << 11 | 1 << 17 | 1 << 18;

impl Cp15 {
    /// Values out of reset.
    pub fn reset(model: &Model) -> Self {
        let sctlr = model.sctlr_reset | if model.vinithi { 1 << 13 } else { 0 };
        Cp15 {
            bank: 0,
            sctlr: [sctlr; 2],
            actlr: model.actlr_reset,
            cpacr: 0,
            scr: if model.security { 0 } else { SCR_WITHOUT_SECURITY },
            sder: 0,
            nsacr: if model.security { 0 } else { NSACR_WITHOUT_SECURITY },
            ttbr0: [0; 2],
            ttbr1: [0; 2],
            ttbcr: [0; 2],
            dacr: [0; 2],
            dfsr: [0; 2],
            ifsr: [0; 2],
            adfsr: [0; 2],
            aifsr: [0; 2],
            dfar: [0; 2],
            ifar: [0; 2],
            par: [0; 2],
            prrr: [0x0009_8aa4; 2],
            nmrr: [0x44e0_48e0; 2],
            amair: [[0; 2]; 2],
            vbar: [0; 2],
            mvbar: 0,
            fcseidr: [0; 2],
            contextidr: [0; 2],
            tpidrurw: [0; 2],
            tpidruro: [0; 2],
            tpidrprw: [0; 2],
            csselr: [0; 2],
            l2ctlr: model.l2ctlr,
            l2ectlr: 0,
            teecr: 0,
            teehbr: 0,
            pmu: Pmu::reset(model),
            debug: crate::cp14::Debug::default(),
            a9: a9::Regs::default(),
        }
    }

    /// SCTLR of the current security state.
    #[inline]
    pub fn sctlr(&self) -> u32 {
        self.sctlr[self.bank]
    }

    /// SCR.NS.
    #[inline]
    pub fn scr_ns(&self) -> bool {
        self.scr & 1 != 0
    }

    /// TTBCR.EAE of a bank: translation tables in the long-descriptor format.
    #[inline]
    pub fn long_descriptors(&self, bank: usize) -> bool {
        self.ttbcr[bank] & TTBCR_EAE != 0
    }

    /// The ASID of a bank (ARM DDI 0406C B3.9.1): of CONTEXTIDR, or of the TTBR that TTBCR.A1 names in the long-descriptor format.
    #[inline]
    pub fn asid(&self, bank: usize) -> u32 {
        let ttbcr = self.ttbcr[bank];
        if ttbcr & TTBCR_EAE == 0 {
            return self.contextidr[bank] & 0xff;
        }
        let ttbr = if ttbcr & TTBCR_A1 != 0 { self.ttbr1[bank] } else { self.ttbr0[bank] };
        (ttbr >> 48) as u32 & 0xff
    }

    /// CPACR, and NSACR in Non-secure state, give access to coprocessor `cp` (0-13).
    #[inline]
    pub fn cp_allowed(&self, cp: u32, privileged: bool, secure: bool) -> bool {
        let field = self.cpacr >> (2 * cp) & 3;
        (field == 3 || field == 1 && privileged) && (secure || self.nsacr >> cp & 1 != 0)
    }
}

/// One register access, as the instruction encodes it: MRC/MCR (`wide` false) or MRRC/MCRR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysReg(pub u32);

impl SysReg {
    /// An MRC/MCR encoding of coprocessor `cp` (14 or 15).
    pub const fn new(cp: u32, opc1: u32, crn: u32, crm: u32, opc2: u32) -> SysReg {
        SysReg(cp << 16 | opc1 << 11 | crn << 7 | crm << 3 | opc2)
    }

    /// An MRRC/MCRR encoding of coprocessor `cp` (14 or 15).
    pub const fn wide(cp: u32, opc1: u32, crm: u32) -> SysReg {
        SysReg(1 << 20 | cp << 16 | opc1 << 11 | crm << 3)
    }

    /// MRRC/MCRR.
    pub const fn is_wide(self) -> bool {
        self.0 >> 20 & 1 != 0
    }

    /// Size of the space that [`SysReg::slot`] maps into.
    const SPACE: usize = 1 << 16;

    /// A dense number for the encoding, given that the coprocessor is 14 or 15.
    fn slot(self) -> usize {
        ((self.0 & 0x3fff) | (self.0 >> 16 & 1) << 14 | (self.0 >> 20 & 1) << 15) as usize
    }

    /// opc1 = 0, CRn = c0, CRm = c2-c7 of CP15.
    fn is_cpuid_space(self) -> bool {
        !self.is_wide() && self.0 >> 16 == 15 && self.0 >> 7 & 0x7f == 0 && matches!(self.0 >> 3 & 0xf, 2..=7)
    }
}

impl std::fmt::Display for SysReg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (cp, opc1, crm) = (self.0 >> 16 & 0xf, self.0 >> 11 & 7, self.0 >> 3 & 0xf);
        if self.is_wide() {
            write!(f, "p{cp}, {opc1}, c{crm}")
        } else {
            write!(f, "p{cp}, {opc1}, c{}, c{crm}, {}", self.0 >> 7 & 0xf, self.0 & 7)
        }
    }
}

/// The access is UNDEFINED here (no such register, or no right to it): take the Undefined Instruction exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undefined;

/// What the engine must do after the access has retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SysAfter {
    /// Leave the engine after this instruction: a timer, an interrupt line or `halt` changed.
    pub exit: bool,
    /// Translation, endianness or privilege state changed: the next instruction must be looked up anew.
    pub context: bool,
}

// ---- the table --------------------------------------------------------------------------------------------------------------------

/// Who may access a register, and how. PL1 is any privileged mode; every other access is UNDEFINED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// PL1 reads.
    Pl1Ro,
    /// PL1 reads and writes.
    Pl1Rw,
    /// PL1 writes.
    Pl1Wo,
    /// Secure PL1 reads and writes.
    SecRw,
    /// Secure PL1 reads and writes, Non-secure PL1 reads.
    SecRwNsRo,
    /// Everyone reads and writes.
    AllRw,
    /// Everyone writes, while SCTLR.CP15BEN is set.
    Barrier,
    /// User reads, PL1 reads and writes.
    UserRo,
    /// PL1, and User while PMUSERENR.EN is set: read.
    PmuRo,
    /// PL1, and User while PMUSERENR.EN is set: read and write.
    PmuRw,
    /// PL1, and User while PMUSERENR.EN is set: write.
    PmuWo,
    /// Secure PL1 writes; PL1 reads, User too while CNTKCTL lets it read a counter.
    CntFrq,
    /// PL1 reads, User too while CNTKCTL.PL0PCTEN is set.
    CntPct,
    /// PL1 reads, User too while CNTKCTL.PL0VCTEN is set.
    CntVct,
    /// PL1, and User while CNTKCTL.PL0PTEN is set.
    CntP,
    /// PL1, and User while CNTKCTL.PL0VTEN is set.
    CntV,
    /// PL1, and User while DBGDSCR.UDCCdis is clear: read.
    DbgRo,
    /// PL1, and User while DBGDSCR.UDCCdis is clear: read and write.
    DbgRw,
}

impl Who {
    fn allows(self, cpu: &Cpu, write: bool) -> bool {
        let pl1 = cpu.is_privileged();
        let cntkctl = |bit: u32| pl1 || cpu.timer.cntkctl >> bit & 1 != 0;
        let pmu = || pl1 || cpu.cp15.pmu.userenr & 1 != 0;
        let dbg = || pl1 || cpu.cp15.debug.dscr & cp14::DSCR_UDCCDIS == 0;
        match self {
            Who::Pl1Ro => pl1 && !write,
            Who::Pl1Rw => pl1,
            Who::Pl1Wo => pl1 && write,
            Who::SecRw => pl1 && cpu.is_secure(),
            Who::SecRwNsRo => pl1 && (!write || cpu.is_secure()),
            Who::AllRw => true,
            Who::Barrier => write && cpu.cp15.sctlr() & SCTLR_CP15BEN != 0,
            Who::UserRo => pl1 || !write,
            Who::PmuRo => pmu() && !write,
            Who::PmuRw => pmu(),
            Who::PmuWo => pmu() && write,
            Who::CntFrq if write => pl1 && cpu.is_secure(),
            Who::CntFrq => cntkctl(0) || cntkctl(1),
            Who::CntPct => !write && cntkctl(0),
            Who::CntVct => !write && cntkctl(1),
            Who::CntP => cntkctl(9),
            Who::CntV => cntkctl(8),
            Who::DbgRo => dbg() && !write,
            Who::DbgRw => dbg(),
        }
    }
}

/// What stands behind a register.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A value of the CPU model.
    Value(fn(&Model) -> u32),
    /// A word of state and the bits of it that can be written.
    Field(fn(&mut Cp15) -> &mut u32, u32),
    /// As `Field`; a write selects another translation context.
    Context(fn(&mut Cp15) -> &mut u32, u32),
    /// As `Field`; a write that changes it invalidates the TLB.
    Regime(fn(&mut Cp15) -> &mut u32, u32),
    /// 64 bits of state and its writable bits; MRC and MCR see the low half and zero the high one.
    Field64(fn(&mut Cp15) -> &mut u64, u64),
    /// TTBR0 or TTBR1: as `Field64`; in the long-descriptor format a write may change the ASID.
    Ttbr(fn(&mut Cp15) -> &mut u64, u64),
    /// PRRR and MAIR0: as `Regime`; PRRR has reserved bits.
    Prrr,
    /// Reads as zero, ignores writes.
    Zero,
    /// An operation without effect here: caches and branch predictors are invisible, barriers are implied.
    Nop,
    /// An instruction barrier.
    Isb,
    /// TLB maintenance.
    Tlb(TlbOp),
    /// Address translation: access, User's rights, translate as Non-secure.
    Ats(Access, bool, bool),
    /// SCTLR.
    Sctlr,
    /// ACTLR: which bits there are is the core's business.
    Actlr,
    /// TTBCR.
    Ttbcr,
    /// SCR.
    Scr,
    /// CCSIDR, selected by CSSELR.
    Ccsidr,
    /// ISR: the interrupt lines.
    Isr,
    /// Performance monitors.
    Pmu(PmuReg),
    /// Generic timer.
    Timer(TimerReg),
    /// CP14 debug.
    Debug(cp14::DebugReg),
}

/// TLB maintenance operations. Those of the separate instruction and data TLBs do the same on one unified TLB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlbOp {
    /// Everything.
    All,
    /// One address of one ASID, and global entries of that address.
    Mva,
    /// One ASID.
    Asid,
    /// One address of every ASID.
    MvaAll,
    /// `All`, on every core: the Inner Shareable forms reach them all.
    AllIs,
    /// `Mva`, on every core.
    MvaIs,
    /// `Asid`, on every core.
    AsidIs,
    /// `MvaAll`, on every core.
    MvaAllIs,
}

impl TlbOp {
    /// Does it, with the operand that was written.
    fn perform(self, cpu: &mut Cpu, value: u32) {
        let own = Reach::Core(cpu.core());
        match self {
            TlbOp::All => cpu.mmu.flush_all(own),
            TlbOp::AllIs => cpu.mmu.flush_all(Reach::All),
            TlbOp::Mva => cpu.mmu.flush_va(own, value, value & 0xff),
            TlbOp::MvaIs => cpu.mmu.flush_va(Reach::All, value, value & 0xff),
            TlbOp::Asid => cpu.mmu.flush_asid(own, value & 0xff),
            TlbOp::AsidIs => cpu.mmu.flush_asid(Reach::All, value & 0xff),
            TlbOp::MvaAll => cpu.mmu.flush_va_all(own, value),
            TlbOp::MvaAllIs => cpu.mmu.flush_va_all(Reach::All, value),
        }
    }
}

/// One register.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The manual's name.
    pub name: &'static str,
    /// Encoding.
    pub reg: SysReg,
    /// Access rights.
    pub who: Who,
    /// Behaviour.
    pub kind: Kind,
}

/// A line of the table for MRC/MCR.
pub(crate) const fn line(name: &'static str, e: (u32, u32, u32, u32, u32), who: Who, kind: Kind) -> Line {
    Line { name, reg: SysReg::new(e.0, e.1, e.2, e.3, e.4), who, kind }
}

/// A line of the table for MRRC/MCRR.
pub(crate) const fn wide(name: &'static str, e: (u32, u32, u32), who: Who, kind: Kind) -> Line {
    Line { name, reg: SysReg::wide(e.0, e.1, e.2), who, kind }
}

const CONTEXTIDR: SysReg = SysReg::new(15, 0, 13, 0, 1);
const SCTLR_CP15BEN: u32 = 1 << 5;
/// SCTLR bits that decide what a walk yields.
const SCTLR_WALK: u32 = SCTLR_M | SCTLR_WXN | SCTLR_UWXN | SCTLR_EE | SCTLR_TRE | SCTLR_AFE;
/// TTBCR bits that can be written in the short format: N, PD0, PD1.
const TTBCR_SHORT: u32 = 0x37;
/// TTBCR bits that can be written in the long format: EAE, A1, and for each TTBR SH, ORGN, IRGN, EPD and the size field.
const TTBCR_LONG: u32 = 0xbfc7_3f87;
/// PRRR bits that can be written: NOS, NS, DS, TR.
const PRRR_WRITABLE: u32 = 0xff0f_ffff;

macro_rules! banked {
    ($field:ident) => {
        |c| &mut c.$field[c.bank]
    };
}

use Kind::*;
use TlbOp::*;
use Who::*;

/// Every CP15 register and operation: name, (coprocessor, opc1, CRn, CRm, opc2), rights, behaviour. Those of CP14 are in [`cp14`].
#[rustfmt::skip]
pub const LINES: &[Line] = &[
    // Identification (ARM DDI 0406C B4.1, TRM DDI 0438 table 4-2).
    line("MIDR", (15, 0, 0, 0, 0), Pl1Ro, Value(|m| m.midr)),
    line("CTR", (15, 0, 0, 0, 1), Pl1Ro, Value(|m| m.ctr)),
    line("TCMTR", (15, 0, 0, 0, 2), Pl1Ro, Zero),
    line("TLBTR", (15, 0, 0, 0, 3), Pl1Ro, Zero),
    line("MIDR alias", (15, 0, 0, 0, 4), Pl1Ro, Value(|m| m.midr)),
    line("MPIDR", (15, 0, 0, 0, 5), Pl1Ro, Value(|m| m.mpidr)),
    line("REVIDR", (15, 0, 0, 0, 6), Pl1Ro, Zero),
    line("MIDR alias", (15, 0, 0, 0, 7), Pl1Ro, Value(|m| m.midr)),
    line("ID_PFR0", (15, 0, 0, 1, 0), Pl1Ro, Value(|m| m.id_pfr[0])),
    line("ID_PFR1", (15, 0, 0, 1, 1), Pl1Ro, Value(|m| m.id_pfr[1])),
    line("ID_DFR0", (15, 0, 0, 1, 2), Pl1Ro, Value(|m| m.id_dfr0)),
    line("ID_AFR0", (15, 0, 0, 1, 3), Pl1Ro, Zero),
    line("ID_MMFR0", (15, 0, 0, 1, 4), Pl1Ro, Value(|m| m.id_mmfr[0])),
    line("ID_MMFR1", (15, 0, 0, 1, 5), Pl1Ro, Value(|m| m.id_mmfr[1])),
    line("ID_MMFR2", (15, 0, 0, 1, 6), Pl1Ro, Value(|m| m.id_mmfr[2])),
    line("ID_MMFR3", (15, 0, 0, 1, 7), Pl1Ro, Value(|m| m.id_mmfr[3])),
    line("ID_ISAR0", (15, 0, 0, 2, 0), Pl1Ro, Value(|m| m.id_isar[0])),
    line("ID_ISAR1", (15, 0, 0, 2, 1), Pl1Ro, Value(|m| m.id_isar[1])),
    line("ID_ISAR2", (15, 0, 0, 2, 2), Pl1Ro, Value(|m| m.id_isar[2])),
    line("ID_ISAR3", (15, 0, 0, 2, 3), Pl1Ro, Value(|m| m.id_isar[3])),
    line("ID_ISAR4", (15, 0, 0, 2, 4), Pl1Ro, Value(|m| m.id_isar[4])),
    line("ID_ISAR5", (15, 0, 0, 2, 5), Pl1Ro, Value(|m| m.id_isar[5])),
    line("CCSIDR", (15, 1, 0, 0, 0), Pl1Ro, Ccsidr),
    line("CLIDR", (15, 1, 0, 0, 1), Pl1Ro, Value(|m| m.clidr)),
    line("AIDR", (15, 1, 0, 0, 7), Pl1Ro, Zero),
    line("CSSELR", (15, 2, 0, 0, 0), Pl1Rw, Field(banked!(csselr), 0xf)),
    // System control.
    line("SCTLR", (15, 0, 1, 0, 0), Pl1Rw, Sctlr),
    line("ACTLR", (15, 0, 1, 0, 1), Pl1Rw, Actlr),
    line("CPACR", (15, 0, 1, 0, 2), Pl1Rw, Context(|c| &mut c.cpacr, 0xc0f0_0000)),
    line("SCR", (15, 0, 1, 1, 0), SecRw, Scr),
    line("SDER", (15, 0, 1, 1, 1), SecRw, Field(|c| &mut c.sder, 3)),
    line("NSACR", (15, 0, 1, 1, 2), SecRwNsRo, Field(|c| &mut c.nsacr, 0x0017_8c00)),
    // Translation.
    line("TTBR0", (15, 0, 2, 0, 0), Pl1Rw, Ttbr(banked!(ttbr0), 0xffff_ffff)),
    line("TTBR1", (15, 0, 2, 0, 1), Pl1Rw, Ttbr(banked!(ttbr1), 0xffff_ffff)),
    line("TTBCR", (15, 0, 2, 0, 2), Pl1Rw, Ttbcr),
    line("DACR", (15, 0, 3, 0, 0), Pl1Rw, Context(banked!(dacr), !0)),
    wide("TTBR0", (15, 0, 2), Pl1Rw, Ttbr(banked!(ttbr0), 0x00ff_00ff_ffff_ffff)),
    wide("TTBR1", (15, 1, 2), Pl1Rw, Ttbr(banked!(ttbr1), 0x00ff_00ff_ffff_ffff)),
    // Faults.
    line("DFSR", (15, 0, 5, 0, 0), Pl1Rw, Field(banked!(dfsr), 0x3eff)),
    line("IFSR", (15, 0, 5, 0, 1), Pl1Rw, Field(banked!(ifsr), 0x163f)),
    line("ADFSR", (15, 0, 5, 1, 0), Pl1Rw, Field(banked!(adfsr), !0)),
    line("AIFSR", (15, 0, 5, 1, 1), Pl1Rw, Field(banked!(aifsr), !0)),
    line("DFAR", (15, 0, 6, 0, 0), Pl1Rw, Field(banked!(dfar), !0)),
    line("IFAR", (15, 0, 6, 0, 2), Pl1Rw, Field(banked!(ifar), !0)),
    // Caches, branch predictors, barriers.
    line("WFI of ARMv6", (15, 0, 7, 0, 4), Pl1Wo, Nop),
    line("ICIALLUIS", (15, 0, 7, 1, 0), Pl1Wo, Isb),
    line("BPIALLIS", (15, 0, 7, 1, 6), Pl1Wo, Nop),
    line("PAR", (15, 0, 7, 4, 0), Pl1Rw, Field64(banked!(par), 0xffff_ffff)),
    wide("PAR", (15, 0, 7), Pl1Rw, Field64(banked!(par), !0)),
    line("ICIALLU", (15, 0, 7, 5, 0), Pl1Wo, Isb),
    line("ICIMVAU", (15, 0, 7, 5, 1), Pl1Wo, Isb),
    line("CP15ISB", (15, 0, 7, 5, 4), Barrier, Isb),
    line("BPIALL", (15, 0, 7, 5, 6), Pl1Wo, Nop),
    line("BPIMVA", (15, 0, 7, 5, 7), Pl1Wo, Nop),
    line("DCIMVAC", (15, 0, 7, 6, 1), Pl1Wo, Nop),
    line("DCISW", (15, 0, 7, 6, 2), Pl1Wo, Nop),
    line("ATS1CPR", (15, 0, 7, 8, 0), Pl1Wo, Ats(Access::Read, false, false)),
    line("ATS1CPW", (15, 0, 7, 8, 1), Pl1Wo, Ats(Access::Write, false, false)),
    line("ATS1CUR", (15, 0, 7, 8, 2), Pl1Wo, Ats(Access::Read, true, false)),
    line("ATS1CUW", (15, 0, 7, 8, 3), Pl1Wo, Ats(Access::Write, true, false)),
    line("ATS12NSOPR", (15, 0, 7, 8, 4), SecRw, Ats(Access::Read, false, true)),
    line("ATS12NSOPW", (15, 0, 7, 8, 5), SecRw, Ats(Access::Write, false, true)),
    line("ATS12NSOUR", (15, 0, 7, 8, 6), SecRw, Ats(Access::Read, true, true)),
    line("ATS12NSOUW", (15, 0, 7, 8, 7), SecRw, Ats(Access::Write, true, true)),
    line("DCCMVAC", (15, 0, 7, 10, 1), Pl1Wo, Nop),
    line("DCCSW", (15, 0, 7, 10, 2), Pl1Wo, Nop),
    line("CP15DSB", (15, 0, 7, 10, 4), Barrier, Nop),
    line("CP15DMB", (15, 0, 7, 10, 5), Barrier, Nop),
    line("DCCMVAU", (15, 0, 7, 11, 1), Pl1Wo, Nop),
    line("Prefetch of ARMv6", (15, 0, 7, 13, 1), Pl1Wo, Nop),
    line("DCCIMVAC", (15, 0, 7, 14, 1), Pl1Wo, Nop),
    line("DCCISW", (15, 0, 7, 14, 2), Pl1Wo, Nop),
    // TLB maintenance.
    line("TLBIALLIS", (15, 0, 8, 3, 0), Pl1Wo, Tlb(AllIs)),
    line("TLBIMVAIS", (15, 0, 8, 3, 1), Pl1Wo, Tlb(MvaIs)),
    line("TLBIASIDIS", (15, 0, 8, 3, 2), Pl1Wo, Tlb(AsidIs)),
    line("TLBIMVAAIS", (15, 0, 8, 3, 3), Pl1Wo, Tlb(MvaAllIs)),
    line("ITLBIALL", (15, 0, 8, 5, 0), Pl1Wo, Tlb(All)),
    line("ITLBIMVA", (15, 0, 8, 5, 1), Pl1Wo, Tlb(Mva)),
    line("ITLBIASID", (15, 0, 8, 5, 2), Pl1Wo, Tlb(Asid)),
    line("DTLBIALL", (15, 0, 8, 6, 0), Pl1Wo, Tlb(All)),
    line("DTLBIMVA", (15, 0, 8, 6, 1), Pl1Wo, Tlb(Mva)),
    line("DTLBIASID", (15, 0, 8, 6, 2), Pl1Wo, Tlb(Asid)),
    line("TLBIALL", (15, 0, 8, 7, 0), Pl1Wo, Tlb(All)),
    line("TLBIMVA", (15, 0, 8, 7, 1), Pl1Wo, Tlb(Mva)),
    line("TLBIASID", (15, 0, 8, 7, 2), Pl1Wo, Tlb(Asid)),
    line("TLBIMVAA", (15, 0, 8, 7, 3), Pl1Wo, Tlb(MvaAll)),
    // Performance monitors (chapter C12).
    line("PMCR", (15, 0, 9, 12, 0), PmuRw, Pmu(PmuReg::Cr)),
    line("PMCNTENSET", (15, 0, 9, 12, 1), PmuRw, Pmu(PmuReg::CntenSet)),
    line("PMCNTENCLR", (15, 0, 9, 12, 2), PmuRw, Pmu(PmuReg::CntenClr)),
    line("PMOVSR", (15, 0, 9, 12, 3), PmuRw, Pmu(PmuReg::OvsClr)),
    line("PMSWINC", (15, 0, 9, 12, 4), PmuWo, Pmu(PmuReg::Swinc)),
    line("PMSELR", (15, 0, 9, 12, 5), PmuRw, Pmu(PmuReg::Selr)),
    line("PMCEID0", (15, 0, 9, 12, 6), PmuRo, Value(|m| m.pmceid0)),
    line("PMCEID1", (15, 0, 9, 12, 7), PmuRo, Zero),
    line("PMCCNTR", (15, 0, 9, 13, 0), PmuRw, Pmu(PmuReg::Ccntr)),
    line("PMXEVTYPER", (15, 0, 9, 13, 1), PmuRw, Pmu(PmuReg::EvTyper)),
    line("PMXEVCNTR", (15, 0, 9, 13, 2), PmuRw, Pmu(PmuReg::EvCntr)),
    line("PMUSERENR", (15, 0, 9, 14, 0), UserRo, Field(|c| &mut c.pmu.userenr, 1)),
    line("PMINTENSET", (15, 0, 9, 14, 1), Pl1Rw, Pmu(PmuReg::IntenSet)),
    line("PMINTENCLR", (15, 0, 9, 14, 2), Pl1Rw, Pmu(PmuReg::IntenClr)),
    line("PMOVSSET", (15, 0, 9, 14, 3), Pl1Rw, Pmu(PmuReg::OvsSet)),
    line("L2CTLR", (15, 1, 9, 0, 2), Pl1Rw, Field(|c| &mut c.l2ctlr, 0x0020_1fff)),
    line("L2ECTLR", (15, 1, 9, 0, 3), Pl1Rw, Field(|c| &mut c.l2ectlr, 0x6000_0000)),
    // Memory attributes.
    line("PRRR, MAIR0", (15, 0, 10, 2, 0), Pl1Rw, Prrr),
    line("NMRR, MAIR1", (15, 0, 10, 2, 1), Pl1Rw, Regime(banked!(nmrr), !0)),
    line("AMAIR0", (15, 0, 10, 3, 0), Pl1Rw, Field(|c| &mut c.amair[c.bank][0], !0)),
    line("AMAIR1", (15, 0, 10, 3, 1), Pl1Rw, Field(|c| &mut c.amair[c.bank][1], !0)),
    // Vectors, security.
    line("VBAR", (15, 0, 12, 0, 0), Pl1Rw, Field(banked!(vbar), 0xffff_ffe0)),
    line("MVBAR", (15, 0, 12, 0, 1), SecRw, Field(|c| &mut c.mvbar, 0xffff_ffe0)),
    line("ISR", (15, 0, 12, 1, 0), Pl1Ro, Isr),
    // Process, context and thread.
    line("FCSEIDR", (15, 0, 13, 0, 0), Pl1Rw, Field(banked!(fcseidr), 0)),
    line("CONTEXTIDR", (15, 0, 13, 0, 1), Pl1Rw, Context(banked!(contextidr), !0)),
    line("TPIDRURW", (15, 0, 13, 0, 2), AllRw, Field(banked!(tpidrurw), !0)),
    line("TPIDRURO", (15, 0, 13, 0, 3), UserRo, Field(banked!(tpidruro), !0)),
    line("TPIDRPRW", (15, 0, 13, 0, 4), Pl1Rw, Field(banked!(tpidrprw), !0)),
    // Generic timer (chapter B8).
    line("CNTFRQ", (15, 0, 14, 0, 0), CntFrq, Timer(TimerReg::Frq)),
    line("CNTKCTL", (15, 0, 14, 1, 0), Pl1Rw, Timer(TimerReg::Kctl)),
    line("CNTP_TVAL", (15, 0, 14, 2, 0), CntP, Timer(TimerReg::PhysTval)),
    line("CNTP_CTL", (15, 0, 14, 2, 1), CntP, Timer(TimerReg::PhysCtl)),
    line("CNTV_TVAL", (15, 0, 14, 3, 0), CntV, Timer(TimerReg::VirtTval)),
    line("CNTV_CTL", (15, 0, 14, 3, 1), CntV, Timer(TimerReg::VirtCtl)),
    wide("CNTPCT", (15, 0, 14), CntPct, Timer(TimerReg::Count)),
    wide("CNTVCT", (15, 1, 14), CntVct, Timer(TimerReg::Count)),
    wide("CNTP_CVAL", (15, 2, 14), CntP, Timer(TimerReg::PhysCval)),
    wide("CNTV_CVAL", (15, 3, 14), CntV, Timer(TimerReg::VirtCval)),
    // Cortex-A15's own (TRM DDI 0438 table 4-16).
    line("L2ACTLR", (15, 1, 15, 0, 0), Pl1Rw, Zero),
    line("L2PFR", (15, 1, 15, 0, 3), Pl1Rw, Zero),
    line("ACTLR2", (15, 1, 15, 0, 4), Pl1Rw, Zero),
    line("CBAR", (15, 4, 15, 0, 0), Pl1Ro, Value(|m| m.cbar)),
    wide("CPUMERRSR", (15, 0, 15), Pl1Rw, Zero),
    wide("L2MERRSR", (15, 1, 15), Pl1Rw, Zero),
];

/// Reserved encodings of the CPUID scheme read as zero (ARM DDI 0406C B7.1).
const CPUID_RESERVED: Line = line("CPUID reserved", (15, 0, 0, 0, 0), Pl1Ro, Zero);

/// All tables, in order.
pub fn lines() -> impl Iterator<Item = &'static Line> {
    LINES.iter().chain(cp14::LINES).chain(a9::LINES)
}

/// Line number plus one by encoding: 0 is no register.
static INDEX: LazyLock<Box<[u16]>> = LazyLock::new(|| {
    let mut index = vec![0u16; SysReg::SPACE].into_boxed_slice();
    for (i, l) in lines().enumerate() {
        assert!(index[l.reg.slot()] == 0, "{} is twice in the table", l.name);
        index[l.reg.slot()] = i as u16 + 1;
    }
    index
});

/// The register that an encoding names on a core of this model.
pub fn find(model: &Model, reg: SysReg) -> Option<&'static Line> {
    const CP14: usize = LINES.len();
    const A9: usize = CP14 + cp14::LINES.len();
    match INDEX[reg.slot()] as usize {
        0 if reg.is_cpuid_space() => Some(&CPUID_RESERVED),
        0 => None,
        n if n > A9 => Some(&a9::LINES[n - 1 - A9]).filter(|_| model.is_a9()),
        _ if model.is_a9() && a9::lacks(reg) => None,
        n if n > CP14 => Some(&cp14::LINES[n - 1 - CP14]),
        n => Some(&LINES[n - 1]),
    }
}

// ---- accesses ---------------------------------------------------------------------------------------------------------------------

/// MRC and MRRC (the value's upper half is 0 for MRC). `cpu.icount` counts the instructions before this one.
///
/// # Errors
/// [`Undefined`] if the access is UNDEFINED in the current state.
pub fn read(cpu: &mut Cpu, _ram: &GuestRam, bus: &mut dyn Bus, reg: SysReg) -> Result<u64, Undefined> {
    let line = find(&cpu.model, reg).ok_or(Undefined)?;
    if !line.who.allows(cpu, false) {
        return Err(Undefined);
    }
    let value = match line.kind {
        Value(f) => f(&cpu.model),
        Field(f, _) | Context(f, _) | Regime(f, _) => *f(&mut cpu.cp15),
        Field64(f, _) | Ttbr(f, _) => return Ok(*f(&mut cpu.cp15) & if reg.is_wide() { !0 } else { 0xffff_ffff }),
        Prrr => cpu.cp15.prrr[cpu.cp15.bank],
        Zero => 0,
        Sctlr => cpu.cp15.sctlr(),
        Actlr => cpu.cp15.actlr,
        Ttbcr => cpu.cp15.ttbcr[cpu.cp15.bank],
        Scr => cpu.cp15.scr,
        Ccsidr => *cpu.model.ccsidr.get(cpu.cp15.csselr[cpu.cp15.bank] as usize).unwrap_or(&0),
        Isr => {
            let (irq, fiq) = bus.lines();
            u32::from(irq) << 7 | u32::from(fiq) << 6
        }
        Pmu(r) => cpu.cp15.pmu.read(&cpu.model, cpu.icount, r),
        Timer(r) => {
            let now = bus.vtime(cpu.icount);
            return Ok(cpu.timer.read(r, cpu.cp15.bank, now));
        }
        Debug(r) => cpu.cp15.debug.read(r),
        Nop | Isb | Tlb(_) | Ats(..) => return Err(Undefined),
    };
    Ok(u64::from(value))
}

/// MCR and MCRR. `cpu.icount` counts the instructions before this one.
///
/// # Errors
/// [`Undefined`] if the access is UNDEFINED in the current state.
pub fn write(cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, reg: SysReg, value: u64) -> Result<SysAfter, Undefined> {
    let line = find(&cpu.model, reg).ok_or(Undefined)?;
    if !line.who.allows(cpu, true) {
        return Err(Undefined);
    }
    let word = value as u32;
    match line.kind {
        Value(_) | Ccsidr | Isr => return Err(Undefined),
        Field(f, mask) => merge(f(&mut cpu.cp15), word, mask),
        Field64(f, mask) => *f(&mut cpu.cp15) = value & mask,
        Ttbr(f, mask) => {
            *f(&mut cpu.cp15) = value & mask;
            let long = cpu.cp15.long_descriptors(cpu.cp15.bank);
            if long {
                cpu.update_context();
            }
            return Ok(SysAfter { context: long, exit: cpu.cp15.pmu.event(EVENT_TTBR_WRITE) });
        }
        Context(f, mask) => {
            merge(f(&mut cpu.cp15), word, mask);
            cpu.update_context();
            let exit = reg == CONTEXTIDR && cpu.cp15.pmu.event(EVENT_CID_WRITE);
            return Ok(SysAfter { context: true, exit });
        }
        Regime(f, mask) => {
            let field = f(&mut cpu.cp15);
            let old = *field;
            merge(field, word, mask);
            return Ok(regime_changed(cpu, old, old & !mask | word & mask));
        }
        Prrr => {
            let b = cpu.cp15.bank;
            let mask = if cpu.cp15.long_descriptors(b) { !0 } else { PRRR_WRITABLE };
            let old = std::mem::replace(&mut cpu.cp15.prrr[b], word & mask);
            return Ok(regime_changed(cpu, old, word & mask));
        }
        Zero | Nop => {}
        Isb => return Ok(SysAfter { context: true, exit: false }),
        Tlb(op) => {
            op.perform(cpu, word);
            return Ok(SysAfter { context: true, exit: false });
        }
        Ats(access, user, ns) => {
            let bank = if ns { 1 } else { cpu.cp15.bank };
            cpu.cp15.par[cpu.cp15.bank] = cpu.address_translation(ram, word, access, user, bank);
        }
        Sctlr => return Ok(write_sctlr(cpu, word)),
        Actlr => merge(&mut cpu.cp15.actlr, word, cpu.model.actlr_writable),
        Ttbcr => return Ok(write_ttbcr(cpu, word)),
        Scr => {
            cpu.cp15.scr = word & 0xff;
            cpu.update_context();
            return Ok(SysAfter { context: true, exit: true });
        }
        Pmu(r) => {
            cpu.cp15.pmu.write(&cpu.model, cpu.icount, r, word);
            // The overflow interrupt, or the place of the next one, may have changed.
            return Ok(SysAfter { exit: !matches!(r, PmuReg::Selr), context: false });
        }
        Timer(r) => {
            let now = bus.vtime(cpu.icount);
            cpu.timer.write(r, cpu.cp15.bank, now, value);
            return Ok(SysAfter { exit: true, context: false });
        }
        Debug(r) => cpu.cp15.debug.write(r, word),
    }
    Ok(SysAfter::default())
}

fn merge(field: &mut u32, value: u32, mask: u32) {
    *field = *field & !mask | value & mask;
}

/// After a change of something that every entry of the TLB was made with.
fn regime_changed(cpu: &mut Cpu, old: u32, new: u32) -> SysAfter {
    if old != new {
        cpu.mmu.flush_all(Reach::Core(cpu.core()));
        cpu.update_context();
    }
    SysAfter { context: old != new, exit: false }
}

/// SCTLR.A selects tables (`mmu::tlb::Key`), the bits that walks look at empty them, all others only have to be seen by the next instruction.
fn write_sctlr(cpu: &mut Cpu, value: u32) -> SysAfter {
    let bank = cpu.cp15.bank;
    let old = cpu.cp15.sctlr[bank];
    let writable = cpu.model.sctlr_writable;
    let new = old & !writable | value & writable;
    cpu.cp15.sctlr[bank] = new;
    if (old ^ new) & SCTLR_WALK != 0 {
        cpu.mmu.flush_all(Reach::Core(cpu.core()));
    }
    if (old ^ new) & (SCTLR_WALK | SCTLR_A) != 0 {
        cpu.update_context();
    }
    SysAfter { context: old != new, exit: false }
}

/// TTBCR, whose format EAE selects (ARM DDI 0406C B4.1.153); a core without LPAE has no EAE.
fn write_ttbcr(cpu: &mut Cpu, value: u32) -> SysAfter {
    let bank = cpu.cp15.bank;
    let old = cpu.cp15.ttbcr[bank];
    let long = value & TTBCR_EAE != 0 && cpu.model.has_lpae();
    let new = value & if long { TTBCR_LONG } else { TTBCR_SHORT };
    cpu.cp15.ttbcr[bank] = new;
    let exit = cpu.cp15.pmu.event(EVENT_TTBR_WRITE);
    SysAfter { exit, ..regime_changed(cpu, old, new) }
}

/// The table of all system registers as a page of documentation.
pub fn coverage() -> String {
    let mut out = String::from(
        "# System registers\n\nGenerated from the tables in `cpu-proc/arm/src/cp15.rs`, `cp15/a9.rs` and `cp14.rs`; a test keeps it up to date.\n\
         An encoding that is not listed is UNDEFINED. The last column names the cores that have the register.\n\n\
         | register | encoding | access | behaviour | cores |\n|---|---|---|---|---|\n",
    );
    for l in lines() {
        let behaviour = match l.kind {
            Value(_) => "constant of the CPU model",
            Field(..) | Field64(..) | Actlr => "state",
            Ttbr(..) => "state; may hold the ASID",
            Context(..) => "state; selects a translation context",
            Regime(..) | Prrr | Ttbcr | Sctlr => "state; a change invalidates the TLB where it must",
            Zero => "reads as zero, writes ignored",
            Nop => "accepted, nothing to do",
            Isb => "ends a block",
            Tlb(_) => "TLB maintenance",
            Ats(..) => "translates into PAR",
            Scr => "state; switches security state",
            Ccsidr => "selected by CSSELR",
            Isr => "interrupt lines",
            Pmu(_) => "performance monitors",
            Timer(_) => "generic timer",
            Debug(_) => "debug register",
        };
        let cores = match (a9::LINES.iter().any(|o| o.reg == l.reg), a9::lacks(l.reg)) {
            (true, _) => "A9",
            (false, true) => "A15",
            (false, false) => "both",
        };
        out.push_str(&format!("| {} | {} | {:?} | {behaviour} | {cores} |\n", l.name, l.reg, l.who));
    }
    out
}

pub mod a9;
#[cfg(test)]
mod tests;
