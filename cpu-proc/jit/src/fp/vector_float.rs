//! Floating-point lanes of Advanced SIMD, under the standard FPSCR value: to nearest, default NaN, flush-to-zero.
//!
//! Registers: 0 n, 1 m, 5 d, 3 the product, 2 the result; 4, 6 and 7 are for the proofs. A doubleword is loaded twice, so that the
//! high lanes prove the same as the low ones.
//!
//! # Proofs
//! Twice the bit pattern is the magnitude without its sign. Adding a constant puts the lanes that are fine at the upper end of the signed
//! numbers, so the least of several such terms stands for all. On the hot path: for operands, zero or an exponent of at least 4; for
//! results and products, an exponent from 2 to 254. What fails is looked at exactly out of line.

use dynasmrt::DynamicLabel;
use reprise_arm::fp::simd_helpers::Misc;

use super::prim::{and_k, konst, scalar, select, splat};
use super::{Ctx, Table, check_ixc, load_d};
use crate::emit::{Emitter, ext, mxcsr};

/// Added to twice an operand: zero becomes the greatest number.
const OPERAND: u64 = 0x7fff_ffff;
/// Added to twice a result: infinities and NaNs become the least numbers.
const RESULT: u64 = 0x8100_0000;
/// The least number that is fine, for both.
const FINE: u64 = 0x8300_0000;
/// The same for operands, exactly: the smallest normal number.
const NORMAL: u64 = 0x80ff_ffff;
/// All bits but the sign.
const ABS: u64 = 0x7fff_ffff;

const N: u8 = 0;
const M: u8 = 1;
const R: u8 = 2;
const P: u8 = 3;
const D: u8 = 5;

/// `x = v` in all lanes.
fn lanes_k(e: &mut Emitter, x: u8, v: u64) {
    konst(e, x, splat(2, v));
}

/// Loads a register; a doubleword fills both halves.
fn load(e: &mut Emitter, c: &Ctx, x: u8, r: u32) {
    if c.q {
        x!(e; movups Rx(x), [rbp + ext(2 * r)]);
    } else if e.features.sse41 {
        x!(e; movddup Rx(x), [rbp + ext(2 * r)]);
    } else {
        load_d(e, x, r);
        x!(e; punpcklqdq Rx(x), Rx(x));
    }
}

/// `4 = 2 * x + k`.
fn term(e: &mut Emitter, x: u8, k: u64) {
    if e.features.avx2 {
        let l = e.constant(splat(2, k));
        x!(e; vpaddd xmm4, Rx(x), Rx(x) ; vpaddd xmm4, xmm4, [=>l]);
    } else {
        x!(e; movdqa xmm4, Rx(x) ; paddd xmm4, xmm4);
        lanes_k(e, 7, k);
        x!(e; paddd xmm4, xmm7);
    }
}

/// Collects in 6: the least term, or without SSE4.1 a mask of lanes that are not fine.
struct Proof {
    empty: bool,
}

impl Proof {
    fn new() -> Self {
        Self { empty: true }
    }

    fn add(&mut self, e: &mut Emitter, x: u8, k: u64) {
        term(e, x, k);
        let first = std::mem::replace(&mut self.empty, false);
        match (e.features.sse41, first) {
            (true, true) => x!(e; movdqa xmm6, xmm4),
            (true, false) => x!(e; pminsd xmm6, xmm4),
            (false, _) => {
                lanes_k(e, 7, FINE);
                x!(e; pcmpgtd xmm7, xmm4);
                if first {
                    x!(e; movdqa xmm6, xmm7);
                } else {
                    x!(e; por xmm6, xmm7);
                }
            }
        }
    }

    fn operand(&mut self, e: &mut Emitter, x: u8) {
        self.add(e, x, OPERAND);
    }

    fn result(&mut self, e: &mut Emitter, x: u8) {
        self.add(e, x, RESULT);
    }

    /// Leaves the mask of bad lanes in 6.
    fn mask(self, e: &mut Emitter) {
        if e.features.sse41 {
            lanes_k(e, 7, FINE);
            x!(e; pcmpgtd xmm7, xmm6 ; movdqa xmm6, xmm7);
        }
    }

    fn done(self, e: &mut Emitter, bad: DynamicLabel) {
        if e.features.sse41 {
            lanes_k(e, 7, FINE);
            x!(e; pcmpgtd xmm7, xmm6);
            jump_if_any(e, 7, bad);
        } else {
            jump_if_any(e, 6, bad);
        }
    }
}

fn jump_if_any(e: &mut Emitter, x: u8, to: DynamicLabel) {
    x!(e; movmskps eax, Rx(x) ; test eax, eax ; jnz =>to);
}

// ---- exact looks, out of line: bad lanes are collected in 6 -------------------------------------------------------------------

/// A denormal operand is bad.
fn exact_operand(e: &mut Emitter, x: u8) {
    term(e, x, OPERAND);
    lanes_k(e, 7, NORMAL);
    x!(e; pcmpgtd xmm7, xmm4 ; por xmm6, xmm7);
}

/// An infinite or undefined result is bad.
fn exact_finite(e: &mut Emitter, x: u8) {
    lanes_k(e, 7, 0x7f80_0000);
    x!(e; movdqa xmm4, Rx(x) ; pand xmm4, xmm7 ; pcmpeqd xmm4, xmm7 ; por xmm6, xmm4);
}

/// A product is bad up to the smallest normal number, but for a zero with a zero factor.
fn exact_product(e: &mut Emitter, x: u8) {
    term(e, x, OPERAND);
    lanes_k(e, 7, NORMAL + 1);
    x!(e; pcmpgtd xmm7, xmm4 ; por xmm6, xmm7);
    // 4: zero product; 7: either factor is zero.
    x!(e; movdqa xmm4, xmm0 ; pslld xmm4, 1 ; pxor xmm7, xmm7 ; pcmpeqd xmm7, xmm4 ; movdqa xmm4, xmm1 ; pslld xmm4, 1);
    // The factors are still needed by nobody but their next load: 0 is free from here on.
    x!(e; pxor xmm0, xmm0 ; pcmpeqd xmm4, xmm0 ; por xmm7, xmm4);
    x!(e; movdqa xmm4, Rx(x) ; pslld xmm4, 1 ; pcmpeqd xmm4, xmm0 ; pandn xmm7, xmm4 ; por xmm6, xmm7);
}

// ---- arithmetic ---------------------------------------------------------------------------------------------------------------

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Mla,
    Mls,
    Fma,
    Fms,
    /// |n - m|.
    Abd,
    /// 2 - n * m.
    Recps,
    /// (3 - n * m) / 2.
    Rsqrts,
}

impl Kind {
    fn accumulates(self) -> bool {
        matches!(self, Self::Mla | Self::Mls | Self::Fma | Self::Fms)
    }

    /// A product of its own is rounded.
    fn product(self) -> bool {
        matches!(self, Self::Mla | Self::Mls | Self::Recps | Self::Rsqrts)
    }
}

/// Where n and m come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Registers,
    /// m is a scalar.
    Scalar,
    /// Pairs: the even lanes, the odd lanes.
    Pairs,
}

/// Loads n and m (not d). Says whether they are surely the same.
fn operands(e: &mut Emitter, c: &Ctx, from: Source) -> bool {
    match from {
        Source::Registers => {
            load(e, c, N, c.n);
            if c.n == c.m {
                x!(e; movaps xmm1, xmm0);
                return true;
            }
            load(e, c, M, c.m);
        }
        Source::Scalar => {
            load(e, c, N, c.n);
            scalar(e, M, c.m, c.b);
        }
        Source::Pairs => {
            load_d(e, N, c.n);
            load_d(e, M, c.m);
            x!(e; punpckldq xmm0, xmm1 ; movaps xmm1, xmm0 ; punpcklqdq xmm0, xmm0 ; punpckhqdq xmm1, xmm1);
        }
    }
    false
}

/// The accumulator, or the constant in its place.
fn accumulator(e: &mut Emitter, c: &Ctx, kind: Kind) {
    match kind {
        Kind::Recps => lanes_k(e, D, 0x4000_0000),
        Kind::Rsqrts => lanes_k(e, D, 0x4040_0000),
        _ if kind.accumulates() => load(e, c, D, c.d),
        _ => {}
    }
}

fn compute(e: &mut Emitter, kind: Kind) {
    let avx = e.features.avx2;
    match kind {
        Kind::Add if avx => x!(e; vaddps xmm2, xmm0, xmm1),
        Kind::Add => x!(e; movaps xmm2, xmm0 ; addps xmm2, xmm1),
        Kind::Sub | Kind::Abd if avx => x!(e; vsubps xmm2, xmm0, xmm1),
        Kind::Sub | Kind::Abd => x!(e; movaps xmm2, xmm0 ; subps xmm2, xmm1),
        Kind::Mul if avx => x!(e; vmulps xmm2, xmm0, xmm1),
        Kind::Mul => x!(e; movaps xmm2, xmm0 ; mulps xmm2, xmm1),
        Kind::Mla if avx => x!(e; vmulps xmm3, xmm0, xmm1 ; vaddps xmm2, xmm5, xmm3),
        Kind::Mla => x!(e; movaps xmm3, xmm0 ; mulps xmm3, xmm1 ; movaps xmm2, xmm5 ; addps xmm2, xmm3),
        Kind::Fma => x!(e; movaps xmm2, xmm5 ; vfmadd231ps xmm2, xmm0, xmm1),
        Kind::Fms => x!(e; movaps xmm2, xmm5 ; vfnmadd231ps xmm2, xmm0, xmm1),
        _ if avx => x!(e; vmulps xmm3, xmm0, xmm1 ; vsubps xmm2, xmm5, xmm3),
        _ => x!(e; movaps xmm3, xmm0 ; mulps xmm3, xmm1 ; movaps xmm2, xmm5 ; subps xmm2, xmm3),
    }
}

fn arith(e: &mut Emitter, c: &Ctx, kind: Kind, from: Source) -> bool {
    let fused = matches!(kind, Kind::Fma | Kind::Fms);
    let odd_regs = c.q && (c.d | c.n | if from == Source::Scalar { 0 } else { c.m }) & 1 != 0;
    if odd_regs || fused && !e.features.fma || from == Source::Pairs && c.q {
        return false;
    }
    let (slow, odd, good, done) = (e.label(), e.label(), e.label(), e.label());
    watch_inexact(e);
    let same = operands(e, c, from);
    accumulator(e, c, kind);
    compute(e, kind);
    let mut proof = Proof::new();
    proof.operand(e, N);
    if !same {
        proof.operand(e, M);
    }
    if kind.accumulates() {
        proof.operand(e, D);
    }
    if kind.product() {
        proof.result(e, P);
    }
    proof.result(e, R);
    proof.done(e, odd);
    e.place(good);
    need_exact(e, slow);
    match kind {
        Kind::Abd => and_k(e, R, splat(2, ABS)),
        Kind::Rsqrts => {
            lanes_k(e, 7, 0x3f00_0000);
            x!(e; mulps xmm2, xmm7);
        }
        _ => {}
    }
    c.store(e, R, c.d);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        e.place(odd);
        exact(e, kind);
        x!(e; movmskps eax, xmm6 ; test eax, eax ; jz =>good);
        e.place(slow);
        c.helper(e, done);
    });
    true
}

/// While IXC is clear an inexact result must go to the helper. The host's own sticky flag tells: it is cleared here, out of line, and looked at by
/// [`need_exact`]. Nothing else relies on it.
fn watch_inexact(e: &mut Emitter) {
    if e.fpscr.is_some() {
        return;
    }
    let (clear, back) = (e.label(), e.label());
    check_ixc(e, clear);
    e.place(back);
    e.cold(move |e| {
        let l = e.constant(0x1f80);
        e.place(clear);
        x!(e; ldmxcsr [=>l] ; jmp =>back);
    });
}

/// Jumps to `no` if IXC is clear and something since [`watch_inexact`] was inexact.
fn need_exact(e: &mut Emitter, no: DynamicLabel) {
    if e.fpscr.is_some() {
        return;
    }
    let (look, back) = (e.label(), e.label());
    check_ixc(e, look);
    e.place(back);
    e.cold(move |e| {
        let at = mxcsr();
        e.place(look);
        x!(e; stmxcsr [rbp + at] ; test BYTE [rbp + at], 0x20 ; jz =>back ; jmp =>no);
    });
}

/// The exact look at what [`compute`] made. A sum that is zero or has the lowest exponent is exact; a denormal one is flushed.
fn exact(e: &mut Emitter, kind: Kind) {
    x!(e; pxor xmm6, xmm6);
    exact_operand(e, N);
    exact_operand(e, M);
    exact_operand(e, R);
    exact_finite(e, R);
    if kind.accumulates() {
        exact_operand(e, D);
    }
    if kind.product() {
        exact_product(e, P);
    } else if matches!(kind, Kind::Mul | Kind::Fma | Kind::Fms) {
        exact_product(e, R);
    }
}

// ---- maximum, minimum, comparisons --------------------------------------------------------------------------------------------

/// VMAX, VMIN: the host takes the second of two zeros; here +0 is greater than -0.
fn extreme(e: &mut Emitter, c: &Ctx, max: bool, from: Source) -> bool {
    if !c.aligned() || from == Source::Pairs && c.q {
        return false;
    }
    let (slow, done) = (e.label(), e.label());
    operands(e, c, from);
    ordered(e, true, slow);
    x!(e; movaps xmm2, xmm0 ; movaps xmm3, xmm0 ; movaps xmm4, xmm0 ; cmpeqps xmm4, xmm1);
    // Equal: of ±0 the sign bits decide; all else is the same in both.
    if max {
        x!(e; maxps xmm2, xmm1 ; andps xmm3, xmm1);
    } else {
        x!(e; minps xmm2, xmm1 ; orps xmm3, xmm1);
    }
    select(e, 4, 3, 2);
    c.store(e, 3, c.d);
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

/// Jumps to `bad` for a denormal or a NaN in n and, if `two`, in m.
fn ordered(e: &mut Emitter, two: bool, bad: DynamicLabel) {
    let mut proof = Proof::new();
    proof.operand(e, N);
    if two {
        proof.operand(e, M);
    }
    proof.mask(e);
    let other = if two { M } else { N };
    x!(e; movaps xmm7, xmm0 ; cmpunordps xmm7, Rx(other) ; orps xmm7, xmm6);
    jump_if_any(e, 7, bad);
}

/// A comparison: equal, or at least, or greater.
#[derive(Clone, Copy)]
enum Relation {
    Eq,
    Ge,
    Gt,
}

/// `b` relates to `a` turned round: n >= m is m <= n.
fn relate(e: &mut Emitter, r: Relation, n: u8, m: u8) {
    match r {
        Relation::Eq => x!(e; cmpeqps Rx(m), Rx(n)),
        Relation::Ge => x!(e; cmpleps Rx(m), Rx(n)),
        Relation::Gt => x!(e; cmpltps Rx(m), Rx(n)),
    }
}

/// VCEQ, VCGE, VCGT, and of magnitudes VACGE, VACGT.
fn compare(e: &mut Emitter, c: &Ctx, r: Relation, magnitude: bool) -> bool {
    if !c.aligned() {
        return false;
    }
    let (slow, done) = (e.label(), e.label());
    operands(e, c, Source::Registers);
    ordered(e, true, slow);
    if magnitude {
        and_k(e, N, splat(2, ABS));
        and_k(e, M, splat(2, ABS));
    }
    relate(e, r, N, M);
    c.store(e, M, c.d);
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

/// Comparisons with zero; `turned`: zero is the first operand.
fn compare_zero(e: &mut Emitter, c: &Ctx, r: Relation, turned: bool) -> bool {
    if !c.aligned() {
        return false;
    }
    let (slow, done) = (e.label(), e.label());
    load(e, c, N, c.m);
    ordered(e, false, slow);
    x!(e; xorps xmm1, xmm1);
    let out = if turned {
        relate(e, r, M, N);
        N
    } else {
        relate(e, r, N, M);
        M
    };
    c.store(e, out, c.d);
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

// ---- conversions --------------------------------------------------------------------------------------------------------------

/// To integers, `b` fraction bits, towards zero. What the host can't represent is the least number there; unsigned numbers from 2^31 on
/// take the helper as well.
fn to_int(e: &mut Emitter, c: &Ctx, unsigned: bool) -> bool {
    if !c.aligned() {
        return false;
    }
    let (slow, done) = (e.label(), e.label());
    check_ixc(e, slow);
    load(e, c, N, c.m);
    let mut proof = Proof::new();
    proof.operand(e, N);
    proof.mask(e);
    if c.b != 0 {
        lanes_k(e, 7, u64::from(127 + c.b) << 23);
        x!(e; mulps xmm0, xmm7);
    }
    x!(e; cvttps2dq xmm0, xmm0);
    if unsigned {
        x!(e; orps xmm6, xmm0);
    } else {
        lanes_k(e, 7, 0x8000_0000);
        x!(e; pcmpeqd xmm7, xmm0 ; orps xmm6, xmm7);
    }
    jump_if_any(e, 6, slow);
    c.store(e, N, c.d);
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

/// From integers, `b` fraction bits: scaling is exact. Unsigned numbers from 2^31 on take the helper.
fn from_int(e: &mut Emitter, c: &Ctx, unsigned: bool) -> bool {
    if !c.aligned() {
        return false;
    }
    let (slow, done) = (e.label(), e.label());
    check_ixc(e, slow);
    load(e, c, N, c.m);
    if unsigned {
        jump_if_any(e, N, slow);
    }
    x!(e; cvtdq2ps xmm0, xmm0);
    if c.b != 0 {
        lanes_k(e, 7, u64::from(127 - c.b) << 23);
        x!(e; mulps xmm0, xmm7);
    }
    c.store(e, N, c.d);
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

pub(super) fn register(t: &mut Table) {
    use Source::{Pairs, Registers, Scalar};
    for (id, kind, from) in [
        (Misc::FAdd, Kind::Add, Registers),
        (Misc::FSub, Kind::Sub, Registers),
        (Misc::FMul, Kind::Mul, Registers),
        (Misc::FMla, Kind::Mla, Registers),
        (Misc::FMls, Kind::Mls, Registers),
        (Misc::FFma, Kind::Fma, Registers),
        (Misc::FFms, Kind::Fms, Registers),
        (Misc::FAbd, Kind::Abd, Registers),
        (Misc::FPadd, Kind::Add, Pairs),
        (Misc::FRecps, Kind::Recps, Registers),
        (Misc::FRsqrts, Kind::Rsqrts, Registers),
        (Misc::FMulBy, Kind::Mul, Scalar),
        (Misc::FMlaBy, Kind::Mla, Scalar),
        (Misc::FMlsBy, Kind::Mls, Scalar),
    ] {
        t.put(id.id(0), move |e, c| arith(e, c, kind, from));
    }
    t.put(Misc::FMax.id(0), |e, c| extreme(e, c, true, Registers));
    t.put(Misc::FMin.id(0), |e, c| extreme(e, c, false, Registers));
    t.put(Misc::FPmax.id(0), |e, c| extreme(e, c, true, Pairs));
    t.put(Misc::FPmin.id(0), |e, c| extreme(e, c, false, Pairs));
    t.put(Misc::FCeq.id(0), |e, c| compare(e, c, Relation::Eq, false));
    t.put(Misc::FCge.id(0), |e, c| compare(e, c, Relation::Ge, false));
    t.put(Misc::FCgt.id(0), |e, c| compare(e, c, Relation::Gt, false));
    t.put(Misc::FAcge.id(0), |e, c| compare(e, c, Relation::Ge, true));
    t.put(Misc::FAcgt.id(0), |e, c| compare(e, c, Relation::Gt, true));
    t.put(Misc::FCeq0.id(0), |e, c| compare_zero(e, c, Relation::Eq, false));
    t.put(Misc::FCge0.id(0), |e, c| compare_zero(e, c, Relation::Ge, false));
    t.put(Misc::FCgt0.id(0), |e, c| compare_zero(e, c, Relation::Gt, false));
    t.put(Misc::FCle0.id(0), |e, c| compare_zero(e, c, Relation::Ge, true));
    t.put(Misc::FClt0.id(0), |e, c| compare_zero(e, c, Relation::Gt, true));
    t.put(Misc::CvtToS32.id(0), |e, c| to_int(e, c, false));
    t.put(Misc::CvtToU32.id(0), |e, c| to_int(e, c, true));
    t.put(Misc::CvtFromS32.id(0), |e, c| from_int(e, c, false));
    t.put(Misc::CvtFromU32.id(0), |e, c| from_int(e, c, true));
}
