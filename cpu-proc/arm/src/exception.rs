//! Exception entry and return (ARM DDI 0406C B1.8, B1.9).

use crate::cp15::Cp15;
use crate::mmu::{Abort, FaultKind};
use crate::psr::*;
use crate::state::Cpu;

/// Synchronous exceptions in a row, with no instruction retired between them, after which the core is declared stuck.
const MAX_FAULT_RUN: u32 = 16;

/// SCTLR.V: high vectors.
const SCTLR_V: u32 = 1 << 13;
/// SCTLR.VE: interrupt vectors come from the interrupt controller (none here does).
const SCTLR_EE: u32 = 1 << 25;
/// SCTLR.TE: exceptions are taken in Thumb state.
const SCTLR_TE: u32 = 1 << 30;
/// SCR bits that route exceptions to Monitor mode.
const SCR_IRQ: u32 = 1 << 1;
const SCR_FIQ: u32 = 1 << 2;
const SCR_EA: u32 = 1 << 3;
const SCR_FW: u32 = 1 << 4;
const SCR_AW: u32 = 1 << 5;
const SCR_SCD: u32 = 1 << 7;

/// Vector offsets.
const VEC_UNDEF: u32 = 0x04;
const VEC_SVC: u32 = 0x08;
const VEC_PABT: u32 = 0x0c;
const VEC_DABT: u32 = 0x10;
const VEC_IRQ: u32 = 0x18;
const VEC_FIQ: u32 = 0x1c;

/// An interrupt that the core takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// IRQ.
    Irq,
    /// FIQ.
    Fiq,
}

/// How an exception is entered.
struct Entry {
    mode: Mode,
    vector: u32,
    lr: u32,
    /// CPSR.A is set.
    mask_a: bool,
    /// CPSR.F is set.
    mask_f: bool,
}

impl Cpu {
    /// Takes the Undefined Instruction exception; `regs[15]` is the undefined instruction (B1.9.3).
    pub fn take_undef(&mut self) {
        let lr = self.regs[15].wrapping_add(if self.t { 2 } else { 4 });
        self.note_fault("undefined instruction");
        self.enter(Entry { mode: Mode::Und, vector: VEC_UNDEF, lr, mask_a: false, mask_f: false });
    }

    /// Takes the Supervisor Call exception; SVC has retired and `regs[15]` and `it` are the next instruction's (B1.9.4).
    pub fn take_svc(&mut self) {
        let lr = self.regs[15];
        self.enter(Entry { mode: Mode::Svc, vector: VEC_SVC, lr, mask_a: false, mask_f: false });
    }

    /// SMC of the current state is UNDEFINED: User mode, or SCR.SCD in Non-secure state (B1.9.5, SMC in B9.3.14).
    pub fn smc_undefined(&self) -> bool {
        !self.is_privileged() || !self.is_secure() && self.cp15.scr & SCR_SCD != 0
    }

    /// Takes the Secure Monitor Call exception; SMC has retired and `regs[15]` and `it` are the next instruction's (B1.9.5).
    pub fn take_smc(&mut self) {
        let lr = self.regs[15];
        self.enter(Entry { mode: Mode::Mon, vector: VEC_SVC, lr, mask_a: true, mask_f: true });
    }

    /// Takes a Prefetch Abort; `regs[15]` is the instruction that could not be fetched, or the BKPT (B1.9.7).
    pub fn take_prefetch_abort(&mut self, abort: Abort) {
        let lr = self.regs[15].wrapping_add(4);
        let monitor = self.ea_to_monitor(abort.kind);
        let bank = if monitor { 0 } else { self.cp15.bank };
        self.cp15.ifsr[bank] = abort.ifsr();
        self.cp15.ifar[bank] = abort.va;
        self.note_fault("prefetch abort");
        let mode = if monitor { Mode::Mon } else { Mode::Abt };
        let mask_a = monitor || self.may_mask_a();
        self.enter(Entry { mode, vector: VEC_PABT, lr, mask_a, mask_f: monitor });
    }

    /// Takes a synchronous Data Abort; `regs[15]` is the aborting instruction, whose registers are unchanged (B1.9.8).
    pub fn take_data_abort(&mut self, abort: Abort) {
        let lr = self.regs[15].wrapping_add(8);
        let monitor = self.ea_to_monitor(abort.kind);
        let bank = if monitor { 0 } else { self.cp15.bank };
        self.cp15.dfsr[bank] = abort.dfsr();
        self.cp15.dfar[bank] = abort.va;
        self.note_fault("data abort");
        let mode = if monitor { Mode::Mon } else { Mode::Abt };
        let mask_a = monitor || self.may_mask_a();
        self.enter(Entry { mode, vector: VEC_DABT, lr, mask_a, mask_f: monitor });
    }

    /// The interrupt to take now, given the lines into the core; FIQ goes first (B1.8.4).
    #[inline]
    pub fn pending_interrupt(&self, irq: bool, fiq: bool) -> Option<Interrupt> {
        if fiq && !self.f {
            Some(Interrupt::Fiq)
        } else if irq && !self.i {
            Some(Interrupt::Irq)
        } else {
            None
        }
    }

    /// Takes an interrupt; `regs[15]` and `it` are those of the instruction that would have run next (B1.9.10, B1.9.12).
    pub fn take_interrupt(&mut self, which: Interrupt) {
        let lr = self.regs[15].wrapping_add(4);
        self.waiting = false;
        let (bit, own, vector) = match which {
            Interrupt::Irq => (SCR_IRQ, Mode::Irq, VEC_IRQ),
            Interrupt::Fiq => (SCR_FIQ, Mode::Fiq, VEC_FIQ),
        };
        let monitor = self.cp15.scr & bit != 0;
        let mode = if monitor { Mode::Mon } else { own };
        let mask_a = monitor || self.may_mask_a();
        let mask_f = monitor || which == Interrupt::Fiq && (self.is_secure() || self.cp15.scr & SCR_FW != 0);
        self.enter(Entry { mode, vector, lr, mask_a, mask_f });
    }

    /// WFI wakes for an interrupt whether or not CPSR masks it (B1.8.14).
    #[inline]
    pub fn wakes(irq: bool, fiq: bool) -> bool {
        irq || fiq
    }

    /// Exception return to `pc` with `spsr` (SUBS PC, LR; LDM ^ with PC; RFE): restores the CPSR as far as the current mode may, clears
    /// the exclusive monitor and aligns the PC to the new instruction set (B1.9.13; CPSRWriteByInstr). In Jazelle state, which this
    /// core implements trivially, execution goes on in ARM state.
    pub fn exception_return(&mut self, pc: u32, spsr: u32) {
        self.write_cpsr(spsr, 0xf, true);
        self.excl.valid = false;
        if self.j && !self.t {
            self.j = false;
        }
        self.regs[15] = pc & if self.t { !1 } else { !3 };
    }

    /// External aborts go to Monitor mode when SCR.EA says so.
    fn ea_to_monitor(&self, kind: FaultKind) -> bool {
        self.cp15.scr & SCR_EA != 0 && matches!(kind, FaultKind::External | FaultKind::WalkExternal(_))
    }

    /// Entry from this state may set CPSR.A.
    fn may_mask_a(&self) -> bool {
        self.is_secure() || self.cp15.scr & SCR_AW != 0
    }

    /// Base of the vectors for an exception that is taken to `mode` in the security state that holds after entry.
    fn vector_base(cp15: &Cp15, mode: Mode) -> u32 {
        if mode == Mode::Mon {
            cp15.mvbar
        } else if cp15.sctlr() & SCTLR_V != 0 {
            0xffff_0000
        } else {
            cp15.vbar[cp15.bank]
        }
    }

    /// The common part of every entry: SPSR, mode, masks, IT, T, E, vector.
    fn enter(&mut self, e: Entry) {
        let spsr = self.cpsr();
        if self.mode == Mode::Mon {
            // Any exception from Monitor mode makes the new state Secure (B1.8.1).
            self.cp15.scr &= !1;
        }
        self.set_mode(e.mode);
        self.banked.spsr[e.mode.bank()] = spsr;
        self.regs[14] = e.lr;
        self.it = 0;
        self.j = false;
        self.i = true;
        self.a |= e.mask_a;
        self.f |= e.mask_f;
        let sctlr = self.cp15.sctlr();
        self.t = sctlr & SCTLR_TE != 0;
        self.e = sctlr & SCTLR_EE != 0;
        self.excl.valid = false;
        self.regs[15] = Self::vector_base(&self.cp15, e.mode).wrapping_add(e.vector);
    }

    /// Counts synchronous exceptions that follow each other with nothing retired in between. An exception vector that itself faults
    /// comes back to the same place for ever; without this an engine would never return.
    fn note_fault(&mut self, what: &str) {
        if self.fault_at != self.icount {
            self.fault_at = self.icount;
            self.fault_run = 0;
        }
        self.fault_run += 1;
        if self.fault_run > MAX_FAULT_RUN && self.halt.is_none() {
            self.halt = Some(format!(
                "the guest's exception vector faults itself: {what} at {:#010x} (CPSR {:#010x}, lr {:#010x}, IFSR {:#x} IFAR {:#010x}, \
                 DFSR {:#x} DFAR {:#010x}) after {} instructions",
                self.regs[15],
                self.cpsr(),
                self.regs[14],
                self.cp15.ifsr[self.cp15.bank],
                self.cp15.ifar[self.cp15.bank],
                self.cp15.dfsr[self.cp15.bank],
                self.cp15.dfar[self.cp15.bank],
                self.icount,
            ));
        }
    }
}
