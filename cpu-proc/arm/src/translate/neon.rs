//! Advanced SIMDv2 (ARM DDI 0406C A7.4 and A7.7): semantic functions of `isa/neon.decode`.
//!
//! Data processing is one helper an instruction ([`crate::fp::simd_helpers`]). Element and structure accesses are loads and stores through
//! temporaries, and helpers that sort the elements.

use super::Builder;
use super::vfp::set_words;
use crate::decode::{
    Operand, Reg, Simd, SimdAll, SimdBy, SimdCvtFixed, SimdDup, SimdImm, SimdLane, SimdMulti, SimdShift, SimdTbl,
};
use crate::fp::simd::expand_imm;
use crate::fp::simd_helpers::{Misc, Same, Shape, list, pack};
use crate::ir::{HelperId, MemKind, Op, SINK, Size};

pub use super::vfp::Dt;

/// A D register, or with `q` the quadword that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NReg {
    /// D register number, 0-31.
    pub n: u32,
    /// Quadword.
    pub q: bool,
}

impl Operand for NReg {
    fn asm(&self, out: &mut String) {
        if self.q {
            out.push_str(&format!("q{}", self.n / 2));
        } else {
            out.push_str(&format!("d{}", self.n));
        }
    }
}

/// The register in field `v` with extra bit `x`.
pub fn nr(q: u32, x: u32, v: u32) -> NReg {
    NReg { n: x << 4 | v, q: q != 0 }
}

/// A scalar operand: lane of 16 or 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar {
    /// D register number.
    pub n: u32,
    /// Lane.
    pub lane: u32,
    /// Lanes have 32 bits.
    pub word: bool,
}

impl Operand for Scalar {
    fn asm(&self, out: &mut String) {
        out.push_str(&format!("d{}[{}]", self.n, self.lane));
    }
}

/// The scalar that M:Vm names for lane size `z` (1 or 2).
pub fn scalar(z: u32, x: u32, v: u32) -> Scalar {
    if z == 1 { Scalar { n: v & 7, lane: x << 1 | v >> 3, word: false } } else { Scalar { n: v, lane: x, word: true } }
}

/// No odd register field in a quadword operation.
pub fn even(q: u32, fields: u32) -> bool {
    q & fields & 1 == 0
}

/// Bitwise operations have no data type.
pub const BITS: Dt = Dt("8");
/// Single-precision lanes.
pub const F32: Dt = Dt("f32");

/// Data type of size `z`: signed, unsigned or sign-agnostic (`kind` 0, 1, 2).
pub fn dt(kind: u32, z: u32) -> Dt {
    const NAMES: [[&str; 4]; 3] =
        [["s8", "s16", "s32", "s64"], ["u8", "u16", "u32", "u64"], ["i8", "i16", "i32", "i64"]];
    Dt(NAMES[kind as usize % 3][z as usize & 3])
}

/// Data type of a shift: the size is in `l:imm6`.
pub fn sdt(kind: u32, l: u32, imm6: u32) -> Dt {
    dt(kind, shift_size(l << 6 | imm6))
}

/// The lane size that `L:imm6` says, as log2 of bytes; not 0000xxx.
fn shift_size(imm7: u32) -> u32 {
    if imm7 >> 6 != 0 { 3 } else { 28u32.saturating_sub(imm7.leading_zeros()) }
}

/// Direction of an immediate shift: how its amount is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir {
    /// Left: amount - size.
    Left,
    /// Right: 2 * size - amount.
    Right,
}

impl Same {
    /// The helper for signed (`u` 0) or unsigned (`u` 1) lanes of size `z`; the unsigned row follows the signed one.
    pub fn su(self, u: u32, z: u32) -> HelperId {
        HelperId(self.id(z).0 + 4 * u as u16)
    }
}

impl Shape {
    /// The helper for signed (`u` 0) or unsigned (`u` 1) lanes of size `z`.
    pub fn su(self, u: u32, z: u32) -> HelperId {
        HelperId(self.id(z).0 + 4 * u as u16)
    }

    /// This row or, for unsigned lanes, the row that follows it.
    pub fn pick(self, u: u32) -> Self {
        use Shape::*;
        match (self, u) {
            (_, 0) => self,
            (ShrS, _) => ShrU,
            (RshrS, _) => RshrU,
            (SraS, _) => SraU,
            (RsraS, _) => RsraU,
            (QshlS, _) => QshlU,
            (QshrnS, _) => QshrnU,
            (QrshrnS, _) => QrshrnU,
            (ShllS, _) => ShllU,
            _ => self,
        }
    }
}

impl Builder {
    /// The checks of an Advanced SIMD instruction that uses these registers.
    fn need_neon(&mut self, regs: &[NReg]) -> bool {
        if !self.need_simd() {
            return false;
        }
        let ok = self.mode().d32_enabled || regs.iter().all(|r| r.n + u32::from(r.q) < 16);
        if !ok {
            self.undef();
        }
        ok
    }
}

/// Doublewords of a register.
fn count(r: NReg) -> u8 {
    1 + u8::from(r.q)
}

/// Data processing with a helper for it all.
pub fn simd(b: &mut Builder, a: &Simd) {
    let fused = a.h == Misc::FFma.id(0) || a.h == Misc::FFms.id(0);
    if fused && !b.need_extended() {
        return;
    }
    if b.need_neon(&[a.d, a.n, a.m]) {
        b.helper_k(a.h, SINK, pack(a.d.n, a.n.n, a.m.n), count(a.d), a.b as u8);
    }
}

/// Data processing with a scalar operand.
pub fn simd_by(b: &mut Builder, a: &SimdBy) {
    if b.need_neon(&[a.d, a.n, NReg { n: a.m.n, q: false }]) {
        let lane = a.m.lane | u32::from(a.m.word) << 7;
        b.helper_k(a.h, SINK, pack(a.d.n, a.n.n, a.m.n), count(a.d), lane as u8);
    }
}

/// Shifts by an immediate.
pub fn simd_shift(b: &mut Builder, a: &SimdShift) {
    if !b.need_neon(&[a.d, a.m]) {
        return;
    }
    let size = shift_size(a.imm);
    let bits = 8 << size;
    // L:imm6 counts from the lane's width up (left) or from twice the width down (right); 64-bit lanes take imm6 as it is.
    let imm = if size == 3 { (a.imm & 63) + 64 } else { a.imm };
    let amount = match a.dir {
        Dir::Left => imm - bits,
        Dir::Right => 2 * bits - imm,
    };
    b.helper_k(a.row.id(size), SINK, pack(a.d.n, 0, a.m.n), count(a.d), amount as u8);
}

/// VCVT between floating point and fixed point.
pub fn simd_cvt_fixed(b: &mut Builder, a: &SimdCvtFixed) {
    if b.need_neon(&[a.d, a.m]) {
        b.helper_k(a.h, SINK, pack(a.d.n, 0, a.m.n), count(a.d), a.imm as u8);
    }
}

/// VMOV, VMVN, VORR, VBIC (immediate).
pub fn simd_imm(b: &mut Builder, a: &SimdImm) {
    if !b.need_neon(&[a.d]) {
        return;
    }
    let Some(v) = expand_imm(a.op, a.cmode, a.imm) else { return b.undef() };
    let first = 2 * a.d.n;
    let words = 2 * u32::from(count(a.d));
    let logic = a.cmode & 1 != 0 && a.cmode < 12;
    if logic {
        for i in 0..words {
            let w = (v >> (32 * (i & 1))) as u32;
            let t = b.t_imm(Op::ExtGet, 0, first + i);
            let r = if a.op { b.t_imm(Op::AndImm, t, !w) } else { b.t_imm(Op::OrrImm, t, w) };
            b.op_imm(Op::ExtSet, SINK, r, first + i);
        }
        return;
    }
    // op selects VMVN, but for cmode 1110 it selects the 64-bit form of VMOV, which the expansion has dealt with.
    let v = if a.op && a.cmode != 14 { !v } else { v };
    let all = [v as u32, (v >> 32) as u32, v as u32, (v >> 32) as u32];
    set_words(b, first, &all[..words as usize]);
}

/// VDUP (scalar).
pub fn simd_dup(b: &mut Builder, a: &SimdDup) {
    if b.need_neon(&[a.d, a.m]) {
        let size = a.imm.trailing_zeros();
        let lane = a.imm >> (size + 1);
        b.helper_k(Misc::Dup8.id(size), SINK, pack(a.d.n, 0, a.m.n), count(a.d), lane as u8);
    }
}

/// VTBL, VTBX.
pub fn simd_tbl(b: &mut Builder, a: &SimdTbl) {
    if a.n.n + a.len > 32 {
        if b.need_simd() {
            b.unpredictable();
        }
        return;
    }
    let last = NReg { n: a.n.n + a.len - 1, q: false };
    if b.need_neon(&[a.d, last, a.m]) {
        let op = if a.ext { Misc::Tbx } else { Misc::Tbl };
        b.helper_k(op.id(0), SINK, pack(a.d.n, a.n.n, a.m.n), a.len as u8, 0);
    }
}

// ---- element and structure accesses -------------------------------------------------------------------------------------------

/// Registers of a structure access: `rows` structures' registers side by side, `elements` in a structure, `step` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape4 {
    elements: u32,
    rows: u32,
    step: u32,
}

/// The register pattern of type field `k`; `None` if undefined.
fn multi(k: u32) -> Option<Shape4> {
    let (elements, rows, step) = match k {
        0b0111 => (1, 1, 1),
        0b1010 => (1, 2, 1),
        0b0110 => (1, 3, 1),
        0b0010 => (1, 4, 1),
        0b1000 => (2, 1, 1),
        0b1001 => (2, 1, 2),
        0b0011 => (2, 2, 2),
        0b0100 => (3, 1, 1),
        0b0101 => (3, 1, 2),
        0b0000 => (4, 1, 1),
        0b0001 => (4, 1, 2),
        _ => return None,
    };
    Some(Shape4 { elements, rows, step })
}

/// Whether type `k`, size `z` and alignment `a` are defined for multiple structures.
pub fn multi_ok(k: u32, z: u32, a: u32) -> bool {
    let Some(s) = multi(k) else { return false };
    let size_ok = s.elements == 1 || z != 3;
    let align_ok = match k {
        0b0100..=0b0111 => a & 2 == 0,
        0b1000..=0b1010 => a != 3,
        _ => true,
    };
    size_ok && align_ok
}

/// Where a lane access goes: lane number, register step, required alignment as log2 of bytes (0: none).
fn lane_of(k: u32, z: u32, ia: u32) -> Option<(u32, u32, u8)> {
    let lane = ia >> (z + 1);
    let step = if z > 0 && ia >> z & 1 != 0 { 2 } else { 1 };
    let low = ia & ((1 << z) - 1) | if z == 0 { ia & 1 } else { 0 };
    let align = match (k, z) {
        (0, 0) if ia & 1 == 0 => 0,
        (0, 1) if ia & 2 == 0 => (ia & 1) as u8,
        (0, 2) if ia & 4 == 0 && ia & 3 == 0 => 0,
        (0, 2) if ia & 4 == 0 && ia & 3 == 3 => 2,
        (1, 0 | 1) if low & 1 != 0 => z as u8 + 1,
        (1, 0 | 1) => 0,
        (1, 2) if ia & 2 == 0 => 3 * (ia & 1) as u8,
        (2, _) if low == 0 => 0,
        (3, 0 | 1) if low & 1 != 0 => z as u8 + 2,
        (3, 0 | 1) => 0,
        (3, 2) if low != 3 => [0, 3, 4][low as usize],
        _ => return None,
    };
    Some((lane, if k == 0 { 1 } else { step }, align))
}

/// Whether a lane access is defined.
pub fn lane_ok(k: u32, z: u32, ia: u32) -> bool {
    lane_of(k, z, ia).is_some()
}

/// Required alignment of an access to all lanes, as log2 of bytes; `None` if undefined.
fn all_align(k: u32, z: u32, a: u32) -> Option<u8> {
    match (k, z, a) {
        (0, 3, _) | (0, 0, 1) | (1, 3, _) | (2, 3, _) | (2, _, 1) | (3, 3, 0) => None,
        (_, _, 0) => Some(0),
        (0, ..) => Some(z as u8),
        (1, ..) => Some(z as u8 + 1),
        (_, 3, _) => Some(4),
        (_, 2, _) => Some(3),
        _ => Some(z as u8 + 2),
    }
}

/// Whether an access to all lanes is defined.
pub fn all_ok(k: u32, z: u32, a: u32) -> bool {
    all_align(k, z, a).is_some()
}

/// Adds to the base register after the access: the transfer size (`rm` = sp), a register, or nothing (`rm` = pc).
fn writeback(b: &mut Builder, rn: Reg, rm: Reg, bytes: u32) {
    match rm.0 {
        15 => {}
        13 => b.op_imm(Op::AddImm, rn.0, rn.0, bytes),
        m => b.op3(Op::Add, rn.0, rn.0, m),
    }
}

/// The kind of access to an element of size `z`, with required alignment `align` (log2 of bytes, 0: none).
fn element_kind(z: u32, align: u8) -> MemKind {
    let size = match z {
        0 => Size::Byte,
        1 => Size::Half,
        _ => Size::Word,
    };
    MemKind::new(size).aligned(align)
}

/// The checks that all structure accesses share; `last` is the highest register.
fn structure_checks(b: &mut Builder, last: u32, rn: Reg) -> bool {
    if !b.need_simd() {
        return false;
    }
    if last > 31 || rn.0 == 15 {
        b.unpredictable();
        return false;
    }
    b.need_neon(&[NReg { n: last, q: false }])
}

/// VLD1 to VLD4 and VST1 to VST4 of multiple structures.
pub fn simd_multi(b: &mut Builder, a: &SimdMulti) {
    let s = multi(a.kind).expect("the table line checks the type");
    let last = a.d + s.rows - 1 + (s.elements - 1) * s.step;
    if !structure_checks(b, last, a.rn) {
        return;
    }
    let align = if a.align == 0 { 0 } else { a.align as u8 + 2 };
    let base = a.rn.0;
    let regs = s.rows * s.elements;
    if b.mode().big_endian {
        multi_by_element(b, a, s, align);
    } else if a.load {
        for k in 0..regs {
            let (lo, hi) = (b.temp(), b.temp());
            let kind = MemKind::new(Size::Dword).aligned(if k == 0 { align } else { 0 }).elements(a.size as u8);
            b.emit(Op::LdX, lo, base, hi, 8 * k, kind.pack());
            let w = 2 * list(a.d, s.step, s.rows, s.elements, k);
            b.op_imm(Op::ExtSet, SINK, lo, w);
            b.op_imm(Op::ExtSet, SINK, hi, w + 1);
        }
        if s.elements > 1 {
            b.helper_k(Misc::Deinterleave.id(0), SINK, pack(a.d, s.step, s.rows), s.elements as u8, a.size as u8);
        }
    } else {
        for k in 0..regs {
            let (lo, hi) = (memory_word(b, a, s, 2 * k), memory_word(b, a, s, 2 * k + 1));
            let kind = MemKind::new(Size::Dword).aligned(if k == 0 { align } else { 0 }).elements(a.size as u8);
            b.emit(Op::StX, lo, base, hi, 8 * k, kind.pack());
        }
    }
    writeback(b, a.rn, a.rm, 8 * regs);
}

/// A temporary with word `k` of what a structure store writes.
fn memory_word(b: &mut Builder, a: &SimdMulti, s: Shape4, k: u32) -> u8 {
    if s.elements == 1 {
        return b.t_imm(Op::ExtGet, 0, 2 * a.d + k);
    }
    let t = b.temp();
    let imm = pack(a.d, s.step, s.rows) | k << 24;
    b.helper_k(Misc::InterleavedWord.id(0), t, imm, s.elements as u8, a.size as u8);
    t
}

/// Multiple structures element by element: big-endian data, where each element is swapped by itself.
fn multi_by_element(b: &mut Builder, a: &SimdMulti, s: Shape4, align: u8) {
    let (value, other) = (b.temp(), b.temp());
    let per = 8 >> a.size;
    let mut off = 0;
    for row in 0..s.rows {
        for lane in 0..per {
            for e in 0..s.elements {
                let d = a.d + row + e * s.step;
                let align = if off == 0 { align } else { 0 };
                if a.size == 3 {
                    double_element(b, a, d, off, align, value, other);
                } else if a.load {
                    load_element(b, value, a.rn.0, off, d, lane, a.size, align);
                } else {
                    store_element(b, a.rn.0, off, d, lane, a.size, align);
                }
                off += 1 << a.size;
            }
        }
    }
}

/// One big-endian 64-bit element.
fn double_element(b: &mut Builder, a: &SimdMulti, d: u32, off: u32, align: u8, lo: u8, hi: u8) {
    let kind = MemKind::new(Size::Dword).aligned(align).pack();
    let (first, second) = (2 * d + 1, 2 * d);
    if a.load {
        b.emit(Op::LdX, lo, a.rn.0, hi, off, kind);
        for (t, w) in [(lo, first), (hi, second)] {
            b.op3(Op::Rev, t, t, 0);
            b.op_imm(Op::ExtSet, SINK, t, w);
        }
    } else {
        for (t, w) in [(lo, first), (hi, second)] {
            b.op_imm(Op::ExtGet, t, 0, w);
            b.op3(Op::Rev, t, t, 0);
        }
        b.emit(Op::StX, lo, a.rn.0, hi, off, kind);
    }
}

/// Loads one element to a lane.
#[allow(clippy::too_many_arguments)]
fn load_element(b: &mut Builder, t: u8, base: u8, off: u32, d: u32, lane: u32, z: u32, align: u8) {
    b.load(element_kind(z, align), t, base, off);
    put_element(b, t, d, lane, z);
}

/// Writes a lane from a slot.
fn put_element(b: &mut Builder, t: u8, d: u32, lane: u32, z: u32) {
    if z == 2 {
        b.op_imm(Op::ExtSet, SINK, t, 2 * d + lane);
    } else {
        b.helper(Misc::SetElement.id(0), SINK, t, t, pack(d, lane, z));
    }
}

/// Stores one lane.
fn store_element(b: &mut Builder, base: u8, off: u32, d: u32, lane: u32, z: u32, align: u8) {
    // A structure can have 32 elements, more than there are temporaries.
    let mark = b.mark();
    let at = lane << (z + 3);
    let mut t = b.t_imm(Op::ExtGet, 0, 2 * d + at / 32);
    if z < 2 && at % 32 != 0 {
        t = b.t_imm(Op::LsrImm, t, at % 32);
    }
    b.store(element_kind(z, align), t, base, off);
    b.release(mark);
}

/// A structure to or from one lane.
pub fn simd_lane(b: &mut Builder, a: &SimdLane) {
    let (lane, step, align) = lane_of(a.n - 1, a.size, a.ia).expect("the table line checks it");
    if !structure_checks(b, a.d + (a.n - 1) * step, a.rn) {
        return;
    }
    for e in 0..a.n {
        let (d, off) = (a.d + e * step, e << a.size);
        let align = if e == 0 { align } else { 0 };
        if a.load {
            let t = b.temp();
            load_element(b, t, a.rn.0, off, d, lane, a.size, align);
        } else {
            store_element(b, a.rn.0, off, d, lane, a.size, align);
        }
    }
    writeback(b, a.rn, a.rm, a.n << a.size);
}

/// A structure to all lanes.
pub fn simd_all(b: &mut Builder, a: &SimdAll) {
    let align = all_align(a.n - 1, a.size, a.align.into()).expect("the table line checks it");
    let step = if a.two && a.n > 1 { 2 } else { 1 };
    let regs = if a.two && a.n == 1 { 2 } else { 1 };
    if !structure_checks(b, a.d + (a.n - 1) * step + regs - 1, a.rn) {
        return;
    }
    // Size 3 is VLD4 of words with 16-byte alignment.
    let size = a.size.min(2);
    for e in 0..a.n {
        let t = b.temp();
        b.load(element_kind(size, if e == 0 { align } else { 0 }), t, a.rn.0, e << size);
        b.helper(Misc::DupCore.id(0), SINK, t, t, pack(a.d + e * step, regs, size));
    }
    writeback(b, a.rn, a.rm, a.n << size);
}
