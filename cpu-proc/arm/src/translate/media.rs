//! Packing, extension, bit fields, saturation, parallel arithmetic (ARM DDI 0406C A5.4, A4.4.4, A4.4.6, A4.4.7).

use super::Builder;
use super::alu::{Shift, shifted};
use super::helpers::id;
use crate::decode::{BitField, BitRev, Extend, Operand, Pack, Parallel, QAdd, Sat, Three, Unary};
use crate::ir::Op;

/// An operation of one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Clz,
    Rbit,
    Rev,
    Rev16,
    Revsh,
}

impl Operand for UnaryOp {
    fn asm(&self, out: &mut String) {
        out.push_str(&format!("{self:?}").to_lowercase());
    }
}

/// CLZ, RBIT, REV, REV16, REVSH.
pub fn unary(b: &mut Builder, x: &Unary) {
    if x.rd.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    let op = match x.op {
        UnaryOp::Clz => Op::Clz,
        UnaryOp::Rbit => Op::Rbit,
        UnaryOp::Rev => Op::Rev,
        UnaryOp::Rev16 => Op::Rev16,
        UnaryOp::Revsh => Op::Revsh,
    };
    b.op3(op, x.rd.0, x.rm.0, 0);
}

/// The T32 forms, which name the operand twice.
pub fn unary_twice(b: &mut Builder, x: &BitRev) {
    if x.rm != x.rm2 {
        return b.unpredictable();
    }
    unary(b, &Unary { op: x.op, rd: x.rd, rm: x.rm });
}

/// What an extension takes: byte, halfword, or two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtKind {
    /// SXTB, UXTB.
    Byte,
    /// SXTH, UXTH.
    Half,
    /// SXTB16, UXTB16.
    Byte16,
}

impl Operand for ExtKind {
    fn asm(&self, out: &mut String) {
        out.push_str(match self {
            ExtKind::Byte => "b",
            ExtKind::Half => "h",
            ExtKind::Byte16 => "b16",
        });
    }
}

/// Whether an extension is unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign(pub u32);

impl Operand for Sign {
    fn asm(&self, out: &mut String) {
        out.push(if self.0 != 0 { 'u' } else { 's' });
    }
}

/// A rotation by bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rot(pub u32);

impl Operand for Rot {
    fn asm(&self, out: &mut String) {
        if self.0 != 0 {
            out.push_str(&format!(", ror #{}", 8 * self.0));
        }
    }
}

/// SXTB and so on; `rn` 15 means without addition.
pub fn extend(b: &mut Builder, x: &Extend) {
    if x.rd.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    let m = if x.rot.0 == 0 { x.rm.0 } else { b.t_imm(Op::RorImm, x.rm.0, 8 * x.rot.0) };
    let unsigned = x.unsigned.0 != 0;
    let add = x.rn.0 != 15;
    let d = if add { b.temp() } else { x.rd.0 };
    match (x.kind, unsigned) {
        (ExtKind::Byte, false) => b.op3(Op::Sxtb, d, m, 0),
        (ExtKind::Byte, true) => b.op_imm(Op::AndImm, d, m, 0xff),
        (ExtKind::Half, false) => b.op3(Op::Sxth, d, m, 0),
        (ExtKind::Half, true) => b.op_imm(Op::AndImm, d, m, 0xffff),
        (ExtKind::Byte16, false) => b.helper(id::SXTB16, d, m, m, 0),
        (ExtKind::Byte16, true) => b.op_imm(Op::AndImm, d, m, 0x00ff_00ff),
    }
    if add && x.kind == ExtKind::Byte16 {
        b.helper(id::ADD16, x.rd.0, x.rn.0, d, 0);
    } else if add {
        b.op3(Op::Add, x.rd.0, x.rn.0, d);
    }
}

/// PKHBT (shift is LSL), PKHTB (shift is ASR).
pub fn pack(b: &mut Builder, x: &Pack) {
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    let o = shifted(b, x.rm, x.sh);
    if x.tb {
        b.emit(Op::Bfi, x.rd.0, x.rn.0, o, 0, 0xffff);
    } else {
        b.emit(Op::Bfi, x.rd.0, o, x.rn.0, 0, 0xffff);
    }
}

/// What is done to a bit field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FieldOp {
    Sbfx,
    Ubfx,
    Bfi,
}

/// SBFX, UBFX (`top` is width - 1) and BFI, BFC (`top` is the msb; `rn` 15 is BFC).
pub fn bit_field(b: &mut Builder, x: &BitField) {
    let (lsb, top) = (x.lsb, x.top);
    if x.rd.0 == 15 {
        return b.unpredictable();
    }
    match x.op {
        FieldOp::Bfi => {
            if top < lsb {
                return b.unpredictable();
            }
            let mask = (u32::MAX >> (31 - (top - lsb))) << lsb;
            if x.rn.0 == 15 {
                b.op_imm(Op::AndImm, x.rd.0, x.rd.0, !mask);
            } else {
                b.emit(Op::Bfi, x.rd.0, x.rd.0, x.rn.0, lsb, mask);
            }
        }
        _ if lsb + top > 31 || x.rn.0 == 15 => b.unpredictable(),
        FieldOp::Ubfx => b.emit(Op::Ubfx, x.rd.0, x.rn.0, 0, lsb, u32::MAX >> (31 - top)),
        FieldOp::Sbfx => b.emit(Op::Sbfx, x.rd.0, x.rn.0, 0, lsb, top + 1),
    }
}

/// SSAT, USAT.
pub fn saturate(b: &mut Builder, x: &Sat) {
    if x.rd.0 == 15 || x.rn.0 == 15 {
        return b.unpredictable();
    }
    let o = match x.sh {
        Shift::Asr(32) => b.t_imm(Op::AsrImm, x.rn.0, 31),
        sh => shifted(b, x.rn, sh),
    };
    b.helper(if x.unsigned { id::USAT } else { id::SSAT }, x.rd.0, o, o, x.to);
}

/// SSAT16, USAT16.
pub fn saturate16(b: &mut Builder, x: &Sat) {
    if x.rd.0 == 15 || x.rn.0 == 15 {
        return b.unpredictable();
    }
    b.helper(if x.unsigned { id::USAT16 } else { id::SSAT16 }, x.rd.0, x.rn.0, x.rn.0, x.to);
}

/// QADD, QSUB, QDADD, QDSUB.
pub fn q_add(b: &mut Builder, x: &QAdd) {
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    b.helper(id::Q_ADD, x.rd.0, x.rm.0, x.rn.0, x.op.0);
}

/// Names of the saturating additions by their operation field.
impl Operand for QAddOp {
    fn asm(&self, out: &mut String) {
        out.push_str(["qadd", "qsub", "qdadd", "qdsub"][self.0 as usize & 3]);
    }
}

/// The operation of QADD and its kin, for assembler output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QAddOp(pub u32);

/// A parallel operation: kind (1 S, 2 Q, 3 SH, 5 U, 6 UQ, 7 UH as in A32) and operation (0 ADD16, 1 ASX, 2 SAX, 3 SUB16, 4 ADD8, 7 SUB8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Par {
    /// Kind.
    pub kind: u32,
    /// Operation.
    pub op: u32,
}

impl Operand for Par {
    fn asm(&self, out: &mut String) {
        out.push_str(["?", "s", "q", "sh", "?", "u", "uq", "uh"][self.kind as usize & 7]);
        out.push_str(["add16", "asx", "sax", "sub16", "add8", "?", "?", "sub8"][self.op as usize & 7]);
    }
}

/// From the A32 fields.
pub fn par_a32(kind: u32, op: u32) -> Par {
    Par { kind, op }
}

/// From the T32 fields (A6.3.13, A6.3.14): prefix S 0, Q 1, SH 2, U 4, UQ 5, UH 6; operation ADD8 0, ADD16 1, ASX 2, SUB8 4, SUB16 5, SAX 6.
pub fn par_t32(prefix: u32, op: u32) -> Par {
    Par { kind: prefix + 1, op: [4, 0, 1, 0, 7, 3, 2, 0][op as usize & 7] }
}

/// Parallel addition and subtraction.
pub fn parallel(b: &mut Builder, x: &Parallel) {
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    b.helper(id::PARALLEL, x.rd.0, x.rn.0, x.rm.0, x.par.kind << 3 | x.par.op);
}

/// SEL.
pub fn sel(b: &mut Builder, x: &Three) {
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    b.helper(id::SEL, x.rd.0, x.rn.0, x.rm.0, 0);
}

/// USAD8 (`ra` 15), USADA8.
pub fn usad8(b: &mut Builder, x: &Three) {
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 {
        return b.unpredictable();
    }
    let d = if x.ra.0 == 15 { x.rd.0 } else { b.temp() };
    b.helper(id::USAD8, d, x.rn.0, x.rm.0, 0);
    if x.ra.0 != 15 {
        b.op3(Op::Add, x.rd.0, d, x.ra.0);
    }
}

/// Nothing.
pub fn nop(_b: &mut Builder, _x: &crate::decode::Nothing) {}

/// MOVT.
pub fn movt(b: &mut Builder, x: &crate::decode::Imm16) {
    if x.rd.0 == 15 {
        return b.unpredictable();
    }
    let t = b.t_imm(Op::AndImm, x.rd.0, 0xffff);
    b.op_imm(Op::OrrImm, x.rd.0, t, x.imm << 16);
}

/// MOVW.
pub fn movw(b: &mut Builder, x: &crate::decode::Imm16) {
    if x.rd.0 == 15 {
        return b.unpredictable();
    }
    b.mov_imm(x.rd.0, x.imm);
}

/// ADR, and ADD/SUB of a 12-bit constant: a base of r15 is aligned.
pub fn add_wide(b: &mut Builder, x: &crate::decode::AddWide) {
    let d = b.dest(x.rd);
    if x.rn.0 == 15 {
        let v = b.pc_aligned().wrapping_add(x.off as u32);
        b.mov_imm(d, v);
    } else {
        b.op_imm(Op::AddImm, d, x.rn.0, x.off as u32);
    }
    b.finish(x.rd, d);
}

/// T32 ADDW, SUBW, ADR.
pub fn add_wide_t(b: &mut Builder, x: &crate::decode::AddWide) {
    if x.rd.0 == 15 { b.unpredictable() } else { add_wide(b, x) }
}
