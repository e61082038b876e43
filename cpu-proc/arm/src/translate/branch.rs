//! Branches (ARM DDI 0406C A5.5, A6.3.4, A6.2.6).

use super::Builder;
use crate::decode::{Branch, BranchReg, Cbz, CondBranch, ItBlock, Operand, TableBranch};
use crate::ir::{Hint, MemKind, Op, Size};

/// A branch offset from the PC value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rel(pub i32);

impl Operand for Rel {
    fn asm(&self, out: &mut String) {
        out.push_str(&format!("pc{:+}", self.0));
    }
}

/// The low `bits` bits of `v`, sign-extended.
pub fn sext(v: u32, bits: u32) -> i32 {
    (v << (32 - bits)) as i32 >> (32 - bits)
}

/// A32 B, BL: imm24 words.
pub fn rel24(imm: u32) -> Rel {
    Rel(sext(imm, 24) << 2)
}

/// A32 BLX: imm24 words and a halfword.
pub fn rel24h(imm: u32, h: u32) -> Rel {
    Rel((sext(imm, 24) << 2) + ((h as i32) << 1))
}

/// T32 B, BL, BLX: S, I1, I2 from S, J1, J2, and 21 bits (imm10:imm11).
pub fn rel_t32(s: u32, j1: u32, j2: u32, imm21: u32) -> Rel {
    let (i1, i2) = (!(j1 ^ s) & 1, !(j2 ^ s) & 1);
    Rel(sext((s << 23 | i1 << 22 | i2 << 21 | imm21) << 1, 25))
}

/// T32 conditional B: S:J2:J1:imm6:imm11.
pub fn rel_t32_cond(s: u32, j1: u32, j2: u32, imm17: u32) -> Rel {
    Rel(sext((s << 19 | j2 << 18 | j1 << 17 | imm17) << 1, 21))
}

/// T16: `imm` of `bits` bits, in halfwords.
pub fn rel_t16(imm: u32, bits: u32) -> Rel {
    Rel(sext(imm, bits) << 1)
}

/// A condition for assembler output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cond(pub u8);

impl Operand for Cond {
    fn asm(&self, out: &mut String) {
        out.push_str(crate::decode::cond_suffix(self.0));
    }
}

fn target(b: &Builder, rel: Rel) -> u32 {
    b.pc_value().wrapping_add(rel.0 as u32) & if b.mode().thumb { !1 } else { !3 }
}

/// LR = return address, with the Thumb bit.
fn link(b: &mut Builder) {
    let next = b.next_pc() | u32::from(b.mode().thumb);
    b.mov_imm(14, next);
}

/// B and BL. In an IT block it must be the last instruction.
pub fn branch(b: &mut Builder, x: &Branch) {
    if b.in_it_not_last() {
        return b.unpredictable();
    }
    let to = target(b, x.rel);
    if x.link {
        link(b);
    }
    b.branch(to);
}

/// BLX to a constant address: changes the instruction set.
pub fn branch_exchange(b: &mut Builder, x: &Branch) {
    if b.in_it_not_last() {
        return b.unpredictable();
    }
    let thumb = !b.mode().thumb;
    let pc = if thumb { b.pc_value() } else { b.pc_aligned() };
    let to = pc.wrapping_add(x.rel.0 as u32) & if thumb { !1 } else { !3 } | u32::from(thumb);
    let t = b.imm(to);
    link(b);
    b.bx(t, Hint::Call);
}

/// Conditional B of Thumb; not in an IT block.
pub fn branch_cond(b: &mut Builder, x: &CondBranch) {
    if b.in_it() {
        return b.unpredictable();
    }
    let to = target(b, x.rel);
    b.branch_if(Op::JumpIf, x.cond.0, 0, to);
}

/// CBZ, CBNZ.
pub fn compare_branch(b: &mut Builder, x: &Cbz) {
    if b.in_it() {
        return b.unpredictable();
    }
    let to = target(b, x.rel);
    b.branch_if(if x.nonzero { Op::JumpIfNotZero } else { Op::JumpIfZero }, 0, x.rn.0, to);
}

/// BX, BLX of a register. BXJ is BX: the Jazelle extension is trivial (A2.9).
pub fn branch_reg(b: &mut Builder, x: &BranchReg) {
    if b.in_it_not_last() || x.link && x.rm.0 == 15 {
        return b.unpredictable();
    }
    let to = if x.link {
        let t = b.temp();
        b.mov(t, x.rm.0);
        link(b);
        t
    } else {
        b.reg(x.rm)
    };
    let hint = match (x.link, x.rm.0) {
        (true, _) => Hint::Call,
        (_, 14) => Hint::Return,
        _ => Hint::None,
    };
    b.bx(to, hint);
}

/// TBB, TBH.
pub fn table_branch(b: &mut Builder, x: &TableBranch) {
    if b.in_it_not_last() || x.rm.0 == 13 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    let n = if x.rn.0 == 15 { b.imm(b.pc_value()) } else { x.rn.0 };
    let t = b.temp();
    let (size, shift) = if x.half { (Size::Half, 1) } else { (Size::Byte, 0) };
    b.load_indexed(MemKind::new(size), t, n, x.rm.0, shift);
    let pc = b.imm(b.pc_value());
    let to = b.temp();
    b.emit(Op::AddLsl, to, pc, t, 1, 0);
    b.branch_reg(to, Hint::None);
}

/// IT.
pub fn it(b: &mut Builder, x: &ItBlock) {
    if b.in_it() || x.firstcond == 15 || x.firstcond == 14 && x.mask.count_ones() != 1 {
        return b.unpredictable();
    }
    b.start_it((x.firstcond << 4 | x.mask) as u8);
}
