//! Multiplication and division (ARM DDI 0406C A4.4.3, A4.4.5).

use super::Builder;
use super::helpers::id;
use crate::decode::{DualMul, HalfMul, Mul, MulLong, Operand};
use crate::ir::{Op, SINK};

/// A multiplication with a 32-bit result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MulOp {
    Mul,
    Mla,
    Mls,
    Sdiv,
    Udiv,
    Smmul,
    Smmla,
    Smmls,
}

/// A multiplication with a 64-bit result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LongOp {
    Umull,
    Umlal,
    Smull,
    Smlal,
    Umaal,
}

/// A dual 16-bit multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DualOp {
    Smlad,
    Smlsd,
    Smlald,
    Smlsld,
}

/// A 16-bit multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HalfOp {
    Smla,
    Smlaw,
    Smulw,
    Smlal,
    Smul,
}

macro_rules! lower_case {
    ($($t:ty),*) => {$(
        impl Operand for $t {
            fn asm(&self, out: &mut String) {
                out.push_str(&format!("{self:?}").to_lowercase());
            }
        }
    )*};
}
lower_case!(MulOp, LongOp, DualOp, HalfOp);

/// MUL, MLA, MLS, SDIV, UDIV, SMMUL, SMMLA, SMMLS (the last three round if `round`).
pub fn mul(b: &mut Builder, x: &Mul) {
    if matches!(x.op, MulOp::Sdiv | MulOp::Udiv) && !b.need_extended() {
        return;
    }
    let adds = matches!(x.op, MulOp::Mla | MulOp::Mls | MulOp::Smmla | MulOp::Smmls);
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 || adds && x.ra.0 == 15 {
        return b.unpredictable();
    }
    let (d, n, m, a) = (x.rd.0, x.rn.0, x.rm.0, x.ra.0);
    match x.op {
        MulOp::Mul => b.op3(Op::Mul, d, n, m),
        MulOp::Sdiv => b.op3(Op::Sdiv, d, n, m),
        MulOp::Udiv => b.op3(Op::Udiv, d, n, m),
        MulOp::Mla => {
            let t = b.t3(Op::Mul, n, m);
            b.op3(Op::Add, d, t, a);
        }
        MulOp::Mls => {
            let t = b.t3(Op::Mul, n, m);
            b.op3(Op::Sub, d, a, t);
        }
        MulOp::Smmul | MulOp::Smmla | MulOp::Smmls => most_significant(b, x),
    }
    if x.s {
        b.op3(Op::SetNz, SINK, d, 0);
    }
}

/// The high word of `(ra << 32) +- rn * rm (+ 0x80000000)`.
fn most_significant(b: &mut Builder, x: &Mul) {
    let (lo, hi) = (b.temp(), b.temp());
    b.emit(Op::Smull, lo, x.rn.0, x.rm.0, hi.into(), 0);
    // In 64 bits the accumulator only meets the high word; the low word is 0 +- lo, and rounding adds to it.
    let acc = if x.op == MulOp::Smmul { b.imm(0) } else { x.ra.0 };
    let sub = x.op == MulOp::Smmls;
    let k = u32::from(sub) | u32::from(x.round) << 1;
    let low = b.temp();
    // A temporary carries the carry of the low half, so that flags stay as they are.
    b.helper(id::SMM_CARRY, low, lo, lo, k);
    let t = b.t3(if sub { Op::Sub } else { Op::Add }, acc, hi);
    b.op3(Op::Add, x.rd.0, t, low);
}

/// UMULL, UMLAL, SMULL, SMLAL, UMAAL.
pub fn mul_long(b: &mut Builder, x: &MulLong) {
    if [x.lo, x.hi, x.rn, x.rm].iter().any(|r| r.0 == 15) || x.lo == x.hi {
        return b.unpredictable();
    }
    let signed = matches!(x.op, LongOp::Smull | LongOp::Smlal);
    let op = if signed { Op::Smull } else { Op::Umull };
    if matches!(x.op, LongOp::Umull | LongOp::Smull) {
        b.emit(op, x.lo.0, x.rn.0, x.rm.0, x.hi.0.into(), 0);
    } else {
        let (lo, hi) = (b.temp(), b.temp());
        b.emit(op, lo, x.rn.0, x.rm.0, hi.into(), 0);
        if x.op == LongOp::Umaal {
            let zero = b.imm(0);
            add64(b, (lo, hi), (lo, hi), (x.lo.0, zero));
            add64(b, (x.lo.0, x.hi.0), (lo, hi), (x.hi.0, zero));
        } else {
            add64(b, (x.lo.0, x.hi.0), (lo, hi), (x.lo.0, x.hi.0));
        }
    }
    if x.s {
        b.op3(Op::SetNz64, SINK, x.lo.0, x.hi.0);
    }
}

/// `d = x + y` in 64 bits (low, high) without touching flags; `d` may overlap either.
fn add64(b: &mut Builder, d: (u8, u8), x: (u8, u8), y: (u8, u8)) {
    let (lo, hi) = (b.t3(Op::Add, x.0, y.0), b.t3(Op::Add, x.1, y.1));
    let carry = b.temp();
    b.helper(id::LESS_U, carry, lo, x.0, 0);
    b.op3(Op::Add, d.1, hi, carry);
    b.mov(d.0, lo);
}

/// SMLAxy, SMLAWy, SMULWy, SMLALxy, SMULxy. In the table: `d` high and `a` low of SMLALxy.
pub fn half_mul(b: &mut Builder, x: &HalfMul) {
    let adds = matches!(x.op, HalfOp::Smla | HalfOp::Smlaw | HalfOp::Smlal);
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 || adds && x.ra.0 == 15 || x.op == HalfOp::Smlal && x.rd == x.ra {
        return b.unpredictable();
    }
    let m = half(b, x.rm.0, x.y);
    let wide = matches!(x.op, HalfOp::Smlaw | HalfOp::Smulw);
    let n = if wide { x.rn.0 } else { half(b, x.rn.0, x.x) };
    let (p, hi) = (b.temp(), b.temp());
    if matches!(x.op, HalfOp::Smul | HalfOp::Smla) {
        // The product of two halves fits a word.
        b.op3(Op::Mul, p, n, m);
    } else {
        b.emit(Op::Smull, p, n, m, hi.into(), 0);
    }
    if wide {
        // Bits 47:16 of the 48-bit product.
        b.op_imm(Op::LsrImm, p, p, 16);
        b.emit(Op::OrrLsl, p, p, hi, 16, 0);
    }
    match x.op {
        HalfOp::Smul | HalfOp::Smulw => b.mov(x.rd.0, p),
        HalfOp::Smla | HalfOp::Smlaw => b.helper(id::ADD_Q, x.rd.0, p, x.ra.0, 0),
        HalfOp::Smlal => add64(b, (x.ra.0, x.rd.0), (p, hi), (x.ra.0, x.rd.0)),
    }
}

/// The top or bottom half of a slot, sign-extended.
fn half(b: &mut Builder, r: u8, top: bool) -> u8 {
    if top { b.t_imm(Op::AsrImm, r, 16) } else { b.t3(Op::Sxth, r, 0) }
}

/// SMLAD, SMUAD, SMLSD, SMUSD and the long forms (`rd` high, `ra` low). `ra` 15 means no accumulator in the short forms.
pub fn dual_mul(b: &mut Builder, x: &DualMul) {
    let long = matches!(x.op, DualOp::Smlald | DualOp::Smlsld);
    if x.rd.0 == 15 || x.rn.0 == 15 || x.rm.0 == 15 || long && (x.ra.0 == 15 || x.rd == x.ra) {
        return b.unpredictable();
    }
    let m = if x.swap { b.t_imm(Op::RorImm, x.rm.0, 16) } else { x.rm.0 };
    let (n0, n1) = (half(b, x.rn.0, false), half(b, x.rn.0, true));
    let (m0, m1) = (half(b, m, false), half(b, m, true));
    let (p0, p1) = (b.t3(Op::Mul, n0, m0), b.t3(Op::Mul, n1, m1));
    match x.op {
        DualOp::Smlad => {
            // Only the sum of two products or the accumulation can overflow, and each sets Q.
            let sum = if x.ra.0 == 15 { x.rd.0 } else { b.temp() };
            if x.ra.0 == 15 {
                b.helper(id::ADD_Q, sum, p0, p1, 0);
            } else {
                b.helper(id::DUAL_ADD, sum, p0, p1, x.ra.0.into());
                b.mov(x.rd.0, sum);
            }
        }
        DualOp::Smlsd if x.ra.0 == 15 => b.op3(Op::Sub, x.rd.0, p0, p1),
        DualOp::Smlsd => {
            let t = b.t3(Op::Sub, p0, p1);
            b.helper(id::ADD_Q, x.rd.0, t, x.ra.0, 0);
        }
        DualOp::Smlald | DualOp::Smlsld => {
            let p1 = if x.op == DualOp::Smlsld { b.t_imm(Op::RsbImm, p1, 0) } else { p1 };
            let (h0, h1) = (b.t_imm(Op::AsrImm, p0, 31), b.temp());
            // -p1 of -0x8000 * -0x8000 does not overflow: the product is 0x40000000 at most.
            b.op_imm(Op::AsrImm, h1, p1, 31);
            let (lo, hi) = (b.temp(), b.temp());
            add64(b, (lo, hi), (p0, h0), (p1, h1));
            add64(b, (x.ra.0, x.rd.0), (lo, hi), (x.ra.0, x.rd.0));
        }
    }
}

/// T16 MUL: flags are set outside IT blocks.
pub fn mul_s(b: &mut Builder, x: &Mul) {
    let s = !b.in_it();
    mul(b, &Mul { s, ..*x });
}
