//! Status registers, exceptions, hints, barriers, coprocessors 14 and 15 (ARM DDI 0406C B9.3, A5.2.11, A5.6, A5.7).

use super::Builder;
use super::helpers;
use super::mem::Indexing;
use crate::cp15::SysReg;
use crate::decode::{CoMem, CoReg, CoReg2, Cps, Hint, Imm, Mrs, MsrImm, MsrReg, Nothing, Operand, SetEnd, Swap};
use crate::ir::{Op, SINK};
use crate::sysop::id;

/// A field mask of MSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// The SPSR, not the CPSR.
    pub spsr: bool,
    /// The bytes: bit 3 is bits 31:24 and so on.
    pub mask: u32,
}

/// From the R bit and the mask.
pub fn fields(r: u32, mask: u32) -> Fields {
    Fields { spsr: r != 0, mask }
}

impl Operand for Fields {
    fn asm(&self, out: &mut String) {
        out.push_str(if self.spsr { "spsr_" } else { "cpsr_" });
        for (bit, c) in [(3, 'f'), (2, 's'), (1, 'x'), (0, 'c')] {
            if self.mask >> bit & 1 == 1 {
                out.push(c);
            }
        }
    }
}

fn msr(b: &mut Builder, f: Fields, src: u8) {
    if f.mask == 0 {
        return b.unpredictable();
    }
    if f.spsr {
        return b.sys(id::MSR_SPSR, SINK, src, SINK, f.mask);
    }
    // Flags and GE alone change nothing that a block depends on.
    if f.mask & 3 == 0 {
        return b.helper(helpers::id::MSR_FLAGS, SINK, src, src, f.mask);
    }
    b.sys(id::MSR_CPSR, SINK, src, SINK, f.mask);
}

/// MSR of a constant.
pub fn msr_imm(b: &mut Builder, x: &MsrImm) {
    let t = b.imm(x.imm.value);
    msr(b, x.to, t);
}

/// MSR of a register.
pub fn msr_reg(b: &mut Builder, x: &MsrReg) {
    if x.rn.0 == 15 {
        return b.unpredictable();
    }
    msr(b, x.to, x.rn.0);
}

/// MRS.
pub fn mrs(b: &mut Builder, x: &Mrs) {
    if x.rd.0 == 15 {
        return b.unpredictable();
    }
    if x.spsr {
        b.sys(id::MRS_SPSR, x.rd.0, SINK, SINK, 0);
    } else {
        b.helper(helpers::id::MRS_CPSR, x.rd.0, SINK, SINK, 0);
    }
}

/// CPS: `imm` as the system function wants it.
pub fn cps(b: &mut Builder, x: &Cps) {
    let (imod, m) = (x.imod, u32::from(x.m));
    if imod == 1 || imod & 2 != 0 && x.aif == 0 || imod & 2 == 0 && x.aif != 0 || b.in_it() {
        return b.unpredictable();
    }
    b.sys(id::CPS, SINK, SINK, SINK, x.mode | m << 5 | imod << 6 | x.aif << 8);
}

/// SETEND.
pub fn setend(b: &mut Builder, x: &SetEnd) {
    if b.in_it() {
        return b.unpredictable();
    }
    b.sys(id::SETEND, SINK, SINK, SINK, x.big.into());
    b.leave();
}

/// SVC.
pub fn svc(b: &mut Builder, _x: &Imm) {
    b.end_with(Op::Svc);
}

/// SMC. Whether it is UNDEFINED depends on state that no block key holds, so the engine asks.
pub fn smc(b: &mut Builder, _x: &Imm) {
    if !b.mode().privileged {
        return b.undef();
    }
    b.end_with(Op::Smc);
}

/// HVC: there is no Hyp mode, but there may be firmware that it calls. User mode can't.
pub fn hvc(b: &mut Builder, _x: &Imm) {
    if !b.mode().privileged {
        return b.undef();
    }
    b.sys(id::HVC, SINK, SINK, SINK, 0);
}

/// UDF.
pub fn udf(b: &mut Builder, _x: &Imm) {
    b.undef();
}

/// SWP, SWPB: UNDEFINED while SCTLR.SW is clear, which no block key holds.
pub fn swp(b: &mut Builder, x: &Swap) {
    if [x.rt.0, x.rt2.0, x.rn.0].contains(&15) || x.rn == x.rt || x.rn == x.rt2 {
        return b.unpredictable();
    }
    b.sys(id::SWP, x.rt.0, x.rn.0, x.rt2.0, x.byte.into());
}

/// What this CPU does not have: banked MRS and MSR, ERET (Virtualization Extensions), ThumbEE state, other coprocessors and their operations.
pub fn absent(b: &mut Builder, _x: &Nothing) {
    b.undef();
}

/// LEAVEX: ThumbEE state is never entered, so there is nothing to leave (ARM DDI 0406C A9.3.1).
pub fn leavex(_b: &mut Builder, _x: &Nothing) {}

/// LDC to DBGDTRTXint and STC of DBGDTRRXint.
pub fn co_mem(b: &mut Builder, x: &CoMem) {
    let (index, writeback) = (x.off.mode != Indexing::Post, x.off.mode != Indexing::Offset);
    if x.rn.0 == 15 && (writeback || !x.load) {
        return b.unpredictable();
    }
    let base = if x.rn.0 == 15 { b.imm(b.pc_aligned()) } else { x.rn.0 };
    let flags = u32::from(index) | u32::from(writeback) << 1 | u32::from(x.load) << 2;
    let step = b.imm(x.off.off as u32);
    b.sys(id::CO_MEM, SINK, base, step, flags | u32::from(x.rn.0) << 8);
}

/// BKPT.
pub fn bkpt(b: &mut Builder, _x: &Imm) {
    b.end_with(Op::Bkpt);
}

/// NOP, YIELD, WFE, WFI, SEV, DBG.
pub fn hint(b: &mut Builder, x: &Hint) {
    match x.op {
        2 => b.end_with(Op::Wfe),
        3 => b.end_with(Op::Wfi),
        4 => b.helper(helpers::id::SEV, SINK, SINK, SINK, 0),
        _ => {}
    }
}

/// DSB, DMB, ISB: accesses are in program order and translations are looked up as the registers stand, so there is nothing to wait for.
pub fn barrier(_b: &mut Builder, _x: &Imm) {}

/// CLREX.
pub fn clrex(b: &mut Builder, _x: &Nothing) {
    b.op3(Op::Clrex, SINK, 0, 0);
}

/// SUBS PC, LR, #imm of T32; ERET is the same with 0.
pub fn subs_pc_lr(b: &mut Builder, x: &Imm) {
    if b.in_it_not_last() {
        return b.unpredictable();
    }
    let t = b.t_imm(Op::AddImm, 14, x.imm.wrapping_neg());
    b.sys(id::EXCEPTION_RETURN, SINK, t, SINK, 0);
    b.leave_pc();
}

/// MRC, MCR of coprocessors 14 and 15. MRC to r15 sets the flags.
pub fn coreg(b: &mut Builder, x: &CoReg) {
    let reg = SysReg::new(x.cp, x.opc1, x.crn, x.crm, x.opc2).0;
    let dead = u32::from(SINK) << 24;
    match (x.load, x.rt.0) {
        (true, 15) => {
            let t = b.temp();
            b.sys(id::MRC, t, SINK, SINK, reg | dead);
            b.helper(helpers::id::MSR_FLAGS, SINK, t, t, 16);
        }
        (true, t) => b.sys(id::MRC, t, SINK, SINK, reg | dead),
        (false, 15) => b.unpredictable(),
        (false, t) => b.sys(id::MCR, SINK, t, SINK, reg),
    }
}

/// MRRC, MCRR of coprocessors 14 and 15.
pub fn coreg2(b: &mut Builder, x: &CoReg2) {
    if x.rt.0 == 15 || x.rt2.0 == 15 || x.load && x.rt == x.rt2 {
        return b.unpredictable();
    }
    let reg = SysReg::wide(x.cp, x.opc1, x.crm).0;
    if x.load {
        let hi = b.temp();
        b.sys(id::MRC, x.rt.0, SINK, SINK, reg | u32::from(hi) << 24);
        b.mov(x.rt2.0, hi);
    } else {
        b.sys(id::MCRR, SINK, x.rt.0, x.rt2.0, reg);
    }
}
