//! The system control coprocessor CP15 of Cortex-A15 (ARM DDI 0406C B4, TRM DDI 0438 chapter 4).

use crate::bus::{Bus, GuestRam};
use crate::models::Model;
use crate::state::Cpu;
use serde::{Deserialize, Serialize};

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
    /// PRRR.
    pub prrr: [u32; 2],
    /// NMRR.
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
    /// Performance monitors.
    pub pmu: Pmu,
    /// CP14 debug registers.
    pub debug: crate::cp14::Debug,
}

/// Performance monitor registers (ARM DDI 0406C chapter C12).
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
    pub evtyper: [u32; 7],
    /// Event counters. None of the countable events is modelled, so they stand still.
    pub evcntr: [u32; 6],
    /// Cycle counter: value at `base` while it runs, the value while it stands.
    pub ccnt: u64,
    /// `icount` when `ccnt` was noted.
    pub base: u64,
}

impl Cp15 {
    /// Values out of reset.
    pub fn reset(model: &Model) -> Self {
        let sctlr = model.sctlr_reset | if model.vinithi { 1 << 13 } else { 0 };
        Cp15 {
            bank: 0,
            sctlr: [sctlr; 2],
            actlr: model.actlr_reset,
            cpacr: 0,
            scr: 0,
            sder: 0,
            nsacr: 0,
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
            pmu: Pmu::default(),
            debug: crate::cp14::Debug::default(),
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

/// MRC and MRRC (the value's upper half is 0 for MRC). `cpu.icount` counts the instructions before this one.
///
/// # Errors
/// [`Undefined`] if the access is UNDEFINED in the current state.
pub fn read(cpu: &mut Cpu, _ram: &GuestRam, bus: &mut dyn Bus, reg: SysReg) -> Result<u64, Undefined> {
    let _ = (bus, cpu, reg);
    Err(Undefined)
}

/// MCR and MCRR. `cpu.icount` counts the instructions before this one.
///
/// # Errors
/// [`Undefined`] if the access is UNDEFINED in the current state.
pub fn write(
    cpu: &mut Cpu,
    _ram: &GuestRam,
    bus: &mut dyn Bus,
    reg: SysReg,
    value: u64,
) -> Result<SysAfter, Undefined> {
    let _ = (bus, cpu, reg, value);
    Err(Undefined)
}
