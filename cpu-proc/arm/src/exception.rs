//! Exception entry and return (ARM DDI 0406C B1.8, B1.9).

use crate::cp15::Cp15;
use crate::mmu::{Abort, FaultKind};
use crate::pmu::{EVENT_EXC_RETURN, EVENT_EXC_TAKEN};
use crate::psr::*;
use crate::state::Cpu;

/// Synchronous exceptions in a row, with no instruction retired between them, after which the core is declared stuck.
const MAX_FAULT_RUN: u32 = 16;

/// SCTLR.V: high vectors.
const SCTLR_V: u32 = 1 << 13;
/// SCTLR.EE: big-endian data after exception entry.
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
        self.cp15.ifsr[bank] = abort.ifsr_as(self.cp15.long_descriptors(bank));
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
        self.cp15.dfsr[bank] = abort.dfsr_as(self.cp15.long_descriptors(bank));
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
    /// the exclusive monitor and aligns the PC to the new instruction set (B1.9.13; CPSRWriteByInstr). Jazelle and ThumbEE state are not
    /// entered: execution goes on in ARM or Thumb state.
    pub fn exception_return(&mut self, pc: u32, spsr: u32) {
        self.leave |= self.cp15.pmu.event(EVENT_EXC_RETURN);
        self.write_cpsr(spsr, 0xf, true);
        self.excl.valid = false;
        self.j = false;
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
        self.leave |= self.cp15.pmu.event(EVENT_EXC_TAKEN);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    const PC: u32 = 0x8000_1000;

    fn cpu(mode: Mode, thumb: bool) -> Cpu {
        let mut c = Cpu::new(Model::cortex_a15(0, 1, 0, 1));
        c.cp15.vbar[0] = 0x1_0000;
        c.cp15.mvbar = 0x2_0000;
        c.set_cpsr(0x2000_0000 | mode as u32);
        c.t = thumb;
        c.regs[15] = PC;
        c
    }

    /// Table B1-7 (preferred return address offsets) and B1.9: mode, vector, LR offset ARM and Thumb, A and F masked.
    #[test]
    fn entry() {
        type Take = fn(&mut Cpu);
        let table: [(Take, Mode, u32, u32, u32, bool, bool); 6] = [
            (|c| c.take_undef(), Mode::Und, 0x04, 4, 2, false, false),
            (|c| c.take_svc(), Mode::Svc, 0x08, 0, 0, false, false),
            (|c| c.take_prefetch_abort(Abort::bkpt(PC)), Mode::Abt, 0x0c, 4, 4, true, false),
            (|c| c.take_data_abort(Abort::alignment(3, true)), Mode::Abt, 0x10, 8, 8, true, false),
            (|c| c.take_interrupt(Interrupt::Irq), Mode::Irq, 0x18, 4, 4, true, false),
            (|c| c.take_interrupt(Interrupt::Fiq), Mode::Fiq, 0x1c, 4, 4, true, true),
        ];
        for (take, mode, vector, arm, thumb_offset, a, f) in table {
            for thumb in [false, true] {
                let mut c = cpu(Mode::Usr, thumb);
                c.it = if thumb { 0x6c } else { 0 };
                c.e = true;
                c.excl.valid = true;
                let before = c.cpsr();
                take(&mut c);
                assert_eq!((c.mode, c.regs[15]), (mode, 0x1_0000 + vector));
                assert_eq!(c.regs[14], PC + if thumb { thumb_offset } else { arm }, "{mode:?} thumb {thumb}");
                assert_eq!(c.spsr(), before, "IT and T are saved");
                assert!(c.i && c.a == a && c.f == f && !c.t && c.it == 0 && !c.e && !c.excl.valid);
                assert_eq!(c.flags.c & 1, 1, "flags stay");
            }
        }
    }

    #[test]
    fn sctlr_decides_about_vectors_and_state() {
        let mut c = cpu(Mode::Usr, false);
        c.cp15.sctlr[0] |= SCTLR_V | SCTLR_TE | SCTLR_EE;
        c.take_svc();
        assert_eq!((c.regs[15], c.t, c.e), (0xffff_0008, true, true));
    }

    #[test]
    fn monitor() {
        let mut c = cpu(Mode::Svc, false);
        c.take_smc();
        assert_eq!((c.mode, c.regs[15], c.regs[14]), (Mode::Mon, 0x2_0008, PC));
        assert!(c.a && c.i && c.f);
        c.cp15.scr = 1 | SCR_FIQ | SCR_EA;
        assert!(c.is_secure(), "Monitor mode is always Secure");
        c.set_mode(Mode::Svc);
        c.update_context();
        c.f = false;
        c.take_interrupt(Interrupt::Fiq);
        assert_eq!((c.mode, c.regs[15]), (Mode::Mon, 0x2_001c));
        c.set_mode(Mode::Svc);
        c.take_data_abort(Abort::external(0x55, false));
        assert_eq!((c.mode, c.cp15.dfar[0], c.cp15.dfsr[0]), (Mode::Mon, 0x55, 8));
        c.take_undef();
        assert_eq!(c.cp15.scr & 1, 0, "an exception in Monitor mode clears NS");
        assert_eq!(c.mode, Mode::Und);
        let mut c = cpu(Mode::Usr, false);
        assert!(c.smc_undefined());
        c.set_mode(Mode::Svc);
        assert!(!c.smc_undefined());
    }

    #[test]
    fn fault_registers() {
        let mut c = cpu(Mode::Svc, false);
        c.take_data_abort(Abort { kind: FaultKind::Permission(2), va: 0xdead_0000, domain: 3, write: true });
        assert_eq!((c.cp15.dfsr[0], c.cp15.dfar[0]), (0x83f, 0xdead_0000));
        c.take_prefetch_abort(Abort { kind: FaultKind::Translation(1), va: 0xbeef_0000, domain: 0, write: false });
        assert_eq!((c.cp15.ifsr[0], c.cp15.ifar[0]), (5, 0xbeef_0000));
        assert_eq!(c.cp15.dfar[0], 0xdead_0000);
    }

    #[test]
    fn banks() {
        let mut c = cpu(Mode::Usr, false);
        let modes = [Mode::Usr, Mode::Fiq, Mode::Irq, Mode::Svc, Mode::Abt, Mode::Und, Mode::Mon];
        for (i, &m) in modes.iter().enumerate() {
            c.set_mode(m);
            for n in 8..15 {
                c.regs[n] = 0x100 * i as u32 + n as u32;
            }
            c.set_spsr(0x9000 + i as u32);
        }
        for (i, &m) in modes.iter().enumerate() {
            let own = 0x100 * i as u32;
            let expect = |c: &mut Cpu, read: fn(&Cpu, Mode, usize) -> u32| {
                assert_eq!((read(c, m, 13), read(c, m, 14)), (own + 13, own + 14), "{m:?}");
                // r8-r12 are FIQ's own, and shared by all others: the last one that wrote was Monitor mode.
                let r8 = if m == Mode::Fiq { own + 8 } else { 0x608 };
                assert_eq!(read(c, m, 8), r8, "{m:?}");
            };
            expect(&mut c, |c, m, n| c.reg_of(m, n));
            c.set_mode(m);
            expect(&mut c, |c, _, n| c.regs[n]);
            expect(&mut c, |c, m, n| c.reg_of(m, n));
            assert_eq!(c.spsr(), if m == Mode::Usr { 0 } else { 0x9000 + i as u32 });
        }
        c.set_mode(Mode::Fiq);
        c.set_reg_of(Mode::Usr, 10, 1);
        c.set_reg_of(Mode::Sys, 13, 2);
        c.set_reg_of(Mode::Fiq, 9, 3);
        c.set_reg_of(Mode::Irq, 14, 4);
        assert_eq!(c.regs[9], 3);
        c.set_mode(Mode::Sys);
        assert_eq!((c.regs[10], c.regs[13]), (1, 2));
        assert_eq!(c.reg_of(Mode::Irq, 14), 4);
    }

    #[test]
    fn return_restores_what_the_mode_may() {
        let mut c = cpu(Mode::Usr, true);
        c.it = 0x6c;
        let before = c.cpsr();
        c.take_interrupt(Interrupt::Irq);
        let (pc, spsr) = (c.regs[14] - 4, c.spsr());
        c.exception_return(pc, spsr);
        assert_eq!((c.cpsr(), c.regs[15]), (before, PC));
        // User mode has no way up: only the application bits and the execution state change.
        c.exception_return(0x8000_2003, 0xf000_01d3);
        assert_eq!((c.mode, c.i, c.f, c.t), (Mode::Usr, false, false, false));
        assert_eq!((c.flags.to_psr(), c.regs[15]), (0xf000_0000, 0x8000_2000));
        let mut c = cpu(Mode::Svc, false);
        c.exception_return(PC + 3, 0x30);
        assert_eq!((c.mode, c.t, c.regs[15]), (Mode::Usr, true, PC + 2));
        let mut c = cpu(Mode::Svc, false);
        c.exception_return(PC, 0x2000_0000);
        assert_eq!(c.mode, Mode::Svc, "a reserved mode is not entered");
    }

    #[test]
    fn psr_writes() {
        let mut c = cpu(Mode::Svc, false);
        c.write_cpsr(0xffff_ffff, 8, false);
        assert_eq!(c.cpsr(), 0xf800_0013);
        c.write_cpsr(0x0000_01d1, 3, false);
        assert_eq!(c.cpsr(), 0xf800_01d1, "c and x fields: masks and mode, not T");
        c.write_cpsr(0x000a_0000, 4, false);
        assert_eq!(c.ge, 0xa);
        c.write_cpsr(0x0000_0010, 1, false);
        c.write_cpsr(0x0000_01d3, 15, false);
        assert_eq!((c.mode, c.i, c.a), (Mode::Usr, false, true), "User changes flags only; A stays as it was");
        let mut c = cpu(Mode::Svc, false);
        c.set_cpsr(0x0600_fc33);
        assert_eq!((c.it, c.t), (0xff, true));
        assert_eq!(c.mrs_cpsr(), 0x13);
        c.write_spsr(0xaabb_ccdd, 0b1010);
        assert_eq!(c.spsr(), 0xaa00_cc00);
        // Non-secure state: SCR.AW and SCR.FW guard A and F, and Monitor mode is out of reach.
        c.cp15.scr = 1;
        c.update_context();
        c.write_cpsr(0x1d6, 3, false);
        assert_eq!((c.a, c.f, c.i, c.mode), (false, false, true, Mode::Svc));
        c.cp15.scr = 1 | SCR_FW | SCR_AW;
        c.write_cpsr(0x1d3, 3, false);
        assert!(c.a && c.f);
    }

    #[test]
    fn interrupts() {
        let mut c = cpu(Mode::Usr, false);
        assert_eq!(c.pending_interrupt(false, false), None);
        assert_eq!(c.pending_interrupt(true, true), Some(Interrupt::Fiq));
        c.f = true;
        assert_eq!(c.pending_interrupt(true, true), Some(Interrupt::Irq));
        c.i = true;
        assert_eq!(c.pending_interrupt(true, true), None);
        assert!(Cpu::wakes(true, false) && Cpu::wakes(false, true), "WFI wakes on masked interrupts");
    }

    #[test]
    fn a_vector_that_faults_halts() {
        let mut c = cpu(Mode::Svc, false);
        for _ in 0..MAX_FAULT_RUN {
            c.take_undef();
            assert!(c.halt.is_none());
            c.icount += 1;
        }
        for _ in 0..=MAX_FAULT_RUN {
            let va = c.regs[15];
            c.take_prefetch_abort(Abort { kind: FaultKind::Translation(1), va, domain: 0, write: false });
        }
        let text = c.halt.expect("nothing retired between the faults");
        assert!(text.contains("0x0001000c"), "{text}");
    }
}
