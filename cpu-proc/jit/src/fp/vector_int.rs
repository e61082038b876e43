//! Integer lanes: operations on registers of one shape (rows of [`Same`]).

use reprise_arm::fp::simd_helpers::Same;

use super::prim::{
    abs, add, ceq, cgt, extreme, konst, mul, neg, pack, qc_if_any, qc_unless_equal, scalar, shr, sign, splat, sub,
    xor_k,
};
use super::{Ctx, Table};
use crate::emit::Emitter;

/// `d = f(n, m)`: n in 0, m in 1, result in 0.
pub(super) fn two(e: &mut Emitter, c: &Ctx, f: impl FnOnce(&mut Emitter)) -> bool {
    if !c.aligned() {
        return false;
    }
    c.load(e, 0, c.n);
    c.load(e, 1, c.m);
    f(e);
    c.store(e, 0, c.d);
    true
}

/// `d = f(m)`: m and the result in 0.
pub(super) fn one(e: &mut Emitter, c: &Ctx, f: impl FnOnce(&mut Emitter)) -> bool {
    if !c.aligned() {
        return false;
    }
    c.load(e, 0, c.m);
    f(e);
    c.store(e, 0, c.d);
    true
}

/// `d = d + f(n, m)`, or minus.
fn accumulate(e: &mut Emitter, c: &Ctx, z: u32, minus: bool, f: impl FnOnce(&mut Emitter)) -> bool {
    two(e, c, |e| {
        f(e);
        into(e, c, z, minus);
    })
}

/// `0 = d + 0`, or minus.
fn into(e: &mut Emitter, c: &Ctx, z: u32, minus: bool) {
    c.load(e, 2, c.d);
    if minus {
        sub(e, z, 2, 0);
        x!(e; movdqa xmm0, xmm2);
    } else {
        add(e, z, 0, 2);
    }
}

/// As [`two`], the second operand a scalar.
fn by(e: &mut Emitter, c: &Ctx, f: impl FnOnce(&mut Emitter)) -> bool {
    if c.q && (c.d | c.n) & 1 != 0 {
        return false;
    }
    c.load(e, 0, c.n);
    scalar(e, 1, c.m, c.b);
    f(e);
    c.store(e, 0, c.d);
    true
}

/// Pairs of n and then of m, each joined by `f` on 0 and 1.
fn pairwise(e: &mut Emitter, c: &Ctx, z: u32, f: impl FnOnce(&mut Emitter)) -> bool {
    if c.q {
        return false;
    }
    two(e, c, |e| {
        x!(e; punpcklqdq xmm0, xmm1 ; movdqa xmm1, xmm0);
        lanes!(e, z + 1; .. psrlw psrld psrlq; xmm1, 8 << z);
        f(e);
        pack(e, z, 0, 0);
    })
}

/// VHADD and VRHADD: what both have, and half of what one has.
fn hadd(e: &mut Emitter, z: u32, unsigned: bool, round: bool) {
    if round && unsigned && z < 2 {
        return lanes!(e, z + 1; pavgb pavgw; xmm0, xmm1);
    }
    x!(e; movdqa xmm2, xmm0 ; pxor xmm2, xmm1);
    shr(e, z, unsigned, 2, 1);
    if round {
        x!(e; por xmm0, xmm1);
        sub(e, z, 0, 2);
    } else {
        x!(e; pand xmm0, xmm1);
        add(e, z, 0, 2);
    }
}

/// VHSUB.
fn hsub(e: &mut Emitter, z: u32, unsigned: bool) {
    x!(e; movdqa xmm2, xmm0 ; pxor xmm2, xmm1);
    shr(e, z, unsigned, 2, 1);
    x!(e; pandn xmm0, xmm1);
    sub(e, z, 2, 0);
    x!(e; movdqa xmm0, xmm2);
}

/// VQADD and VQSUB. Saturated and wrapped results differ where QC is due.
fn qadd(e: &mut Emitter, z: u32, unsigned: bool, minus: bool) {
    if z >= 2 {
        return qadd_wide(e, z, unsigned, minus);
    }
    x!(e; movdqa xmm2, xmm0);
    match (minus, unsigned) {
        (false, false) => {
            add(e, z, 2, 1);
            lanes!(e, z + 1; paddsb paddsw; xmm0, xmm1);
        }
        (false, true) => {
            add(e, z, 2, 1);
            lanes!(e, z + 1; paddusb paddusw; xmm0, xmm1);
        }
        (true, false) => {
            sub(e, z, 2, 1);
            lanes!(e, z + 1; psubsb psubsw; xmm0, xmm1);
        }
        (true, true) => {
            sub(e, z, 2, 1);
            lanes!(e, z + 1; psubusb psubusw; xmm0, xmm1);
        }
    }
    qc_unless_equal(e, 2, 0);
}

/// 32 and 64 bits: overflow as a mask from the sign bits of operands and result.
pub(super) fn qadd_wide(e: &mut Emitter, z: u32, unsigned: bool, minus: bool) {
    x!(e; movdqa xmm2, xmm0);
    if minus {
        sub(e, z, 2, 1)
    } else {
        add(e, z, 2, 1)
    }
    match (unsigned, minus) {
        (false, _) => {
            // Addition overflows where the result's sign is neither operand's; subtraction where n's sign is neither m's nor the result's.
            x!(e; movdqa xmm3, xmm0 ; pxor xmm3, xmm2 ; movdqa xmm4, xmm1);
            if minus {
                x!(e; pxor xmm4, xmm0);
            } else {
                x!(e; pxor xmm4, xmm2);
            }
            x!(e; pand xmm3, xmm4);
            sign(e, z, 3);
            // The greatest or least number, by n's sign.
            sign(e, z, 0);
            xor_k(e, 0, splat(z, u64::MAX >> 1 >> (64 - (8 << z))));
            x!(e; movdqa xmm4, xmm3);
            super::prim::select(e, 4, 0, 2);
        }
        (true, false) => {
            // Carry out: both tops, or one and none in the sum.
            x!(e; movdqa xmm3, xmm0 ; pand xmm3, xmm1 ; por xmm0, xmm1 ; movdqa xmm4, xmm2 ; pandn xmm4, xmm0 ; por xmm3, xmm4);
            sign(e, z, 3);
            x!(e; movdqa xmm0, xmm2 ; por xmm0, xmm3);
        }
        (true, true) => {
            // Borrow: only m's top, or equal tops and a result with it.
            x!(e; movdqa xmm3, xmm0 ; pandn xmm3, xmm1 ; pxor xmm0, xmm1 ; pandn xmm0, xmm2 ; por xmm3, xmm0);
            sign(e, z, 3);
            x!(e; movdqa xmm0, xmm3 ; pandn xmm0, xmm2);
        }
    }
    qc_if_any(e, 3);
}

/// `0 = 0 >= 1`.
fn cge(e: &mut Emitter, z: u32, unsigned: bool) {
    cgt(e, z, unsigned, 1, 0);
    konst(e, 0, u128::MAX);
    x!(e; pxor xmm0, xmm1);
}

/// `0 = |0 - 1|`.
fn abd(e: &mut Emitter, z: u32, unsigned: bool) {
    if unsigned && z < 2 {
        x!(e; movdqa xmm2, xmm0);
        lanes!(e, z + 1; psubusb psubusw; xmm0, xmm1);
        lanes!(e, z + 1; psubusb psubusw; xmm1, xmm2);
        x!(e; por xmm0, xmm1);
        return;
    }
    x!(e; movdqa xmm2, xmm0 ; movdqa xmm3, xmm1);
    extreme(e, z, unsigned, true, 0, 1);
    extreme(e, z, unsigned, false, 2, 3);
    sub(e, z, 0, 2);
}

/// VQDMULH and VQRDMULH, 16 bits: only -1 * -1 overflows, and wraps to the least number.
fn qdmulh(e: &mut Emitter, round: bool) {
    if round {
        x!(e; pmulhrsw xmm0, xmm1);
    } else {
        x!(e; movdqa xmm2, xmm0 ; pmulhw xmm0, xmm1 ; pmullw xmm2, xmm1 ; paddw xmm0, xmm0 ; psrlw xmm2, 15 ; por xmm0, xmm2);
    }
    konst(e, 2, splat(1, 0x8000));
    x!(e; pcmpeqw xmm2, xmm0 ; pxor xmm0, xmm2);
    qc_if_any(e, 2);
}

/// VQABS and VQNEG: only the least number overflows, and wraps to itself.
fn saturated(e: &mut Emitter, z: u32, f: impl FnOnce(&mut Emitter)) {
    f(e);
    konst(e, 2, splat(z, 0x80 << ((8 << z) - 8)));
    ceq(e, z, 2, 0);
    x!(e; pxor xmm0, xmm2);
    qc_if_any(e, 2);
}

/// VPADDL: sums of pairs, twice as wide; `z` is the narrow size.
fn paddl(e: &mut Emitter, z: u32, unsigned: bool) {
    match (z, unsigned) {
        (0, true) => x!(e; movdqa xmm1, xmm0 ; psllw xmm0, 8 ; psrlw xmm0, 8 ; psrlw xmm1, 8 ; paddw xmm0, xmm1),
        (0, false) => x!(e; movdqa xmm1, xmm0 ; psllw xmm0, 8 ; psraw xmm0, 8 ; psraw xmm1, 8 ; paddw xmm0, xmm1),
        (1, true) => x!(e; movdqa xmm1, xmm0 ; pslld xmm0, 16 ; psrld xmm0, 16 ; psrld xmm1, 16 ; paddd xmm0, xmm1),
        (1, false) => x!(e; movdqa xmm1, xmm0 ; pslld xmm0, 16 ; psrad xmm0, 16 ; psrad xmm1, 16 ; paddd xmm0, xmm1),
        (_, true) => x!(e; movdqa xmm1, xmm0 ; psllq xmm0, 32 ; psrlq xmm0, 32 ; psrlq xmm1, 32 ; paddq xmm0, xmm1),
        (_, false) => {
            x!(e; movdqa xmm1, xmm0 ; psllq xmm0, 32);
            shr(e, 3, false, 0, 32);
            shr(e, 3, false, 1, 32);
            x!(e; paddq xmm0, xmm1);
        }
    }
}

fn signedness(
    t: &mut Table,
    signed: Same,
    unsigned: Same,
    f: fn(&mut Emitter, &Ctx, u32, bool) -> bool,
    sizes: std::ops::Range<u32>,
) {
    for z in sizes {
        t.put(signed.id(z), move |e, c| f(e, c, z, false));
        t.put(unsigned.id(z), move |e, c| f(e, c, z, true));
    }
}

fn sizes(t: &mut Table, row: Same, sizes: std::ops::Range<u32>, f: fn(&mut Emitter, &Ctx, u32) -> bool) {
    for z in sizes {
        t.put(row.id(z), move |e, c| f(e, c, z));
    }
}

pub(super) fn register(t: &mut Table) {
    arithmetic(t);
    comparisons(t);
    scalars(t);
}

fn arithmetic(t: &mut Table) {
    use Same::*;
    sizes(t, Add, 0..4, |e, c, z| two(e, c, |e| add(e, z, 0, 1)));
    sizes(t, Sub, 0..4, |e, c, z| two(e, c, |e| sub(e, z, 0, 1)));
    sizes(t, Mul, 0..3, |e, c, z| two(e, c, |e| mul(e, z, 0, 1)));
    sizes(t, Mla, 0..3, |e, c, z| accumulate(e, c, z, false, |e| mul(e, z, 0, 1)));
    sizes(t, Mls, 0..3, |e, c, z| accumulate(e, c, z, true, |e| mul(e, z, 0, 1)));
    signedness(t, HaddS, HaddU, |e, c, z, u| two(e, c, |e| hadd(e, z, u, false)), 0..3);
    signedness(t, RhaddS, RhaddU, |e, c, z, u| two(e, c, |e| hadd(e, z, u, true)), 0..3);
    signedness(t, HsubS, HsubU, |e, c, z, u| two(e, c, |e| hsub(e, z, u)), 0..3);
    signedness(t, QaddS, QaddU, |e, c, z, u| two(e, c, |e| qadd(e, z, u, false)), 0..4);
    signedness(t, QsubS, QsubU, |e, c, z, u| two(e, c, |e| qadd(e, z, u, true)), 0..4);
    signedness(t, AbdS, AbdU, |e, c, z, u| two(e, c, |e| abd(e, z, u)), 0..3);
    signedness(t, AbaS, AbaU, |e, c, z, u| accumulate(e, c, z, false, |e| abd(e, z, u)), 0..3);
    sizes(t, Padd, 0..3, |e, c, z| pairwise(e, c, z, |e| add(e, z, 0, 1)));
    signedness(t, PaddlS, PaddlU, |e, c, z, u| one(e, c, |e| paddl(e, z, u)), 0..3);
    signedness(
        t,
        PadalS,
        PadalU,
        |e, c, z, u| {
            one(e, c, |e| {
                paddl(e, z, u);
                into(e, c, z + 1, false);
            })
        },
        0..3,
    );
    sizes(t, Abs, 0..3, |e, c, z| one(e, c, |e| abs(e, z, 0)));
    sizes(t, Neg, 0..3, |e, c, z| one(e, c, |e| neg(e, z, 0)));
    sizes(t, Qabs, 0..3, |e, c, z| one(e, c, |e| saturated(e, z, |e| abs(e, z, 0))));
    sizes(t, Qneg, 0..3, |e, c, z| one(e, c, |e| saturated(e, z, |e| neg(e, z, 0))));
    t.put(Qdmulh.id(1), |e, c| two(e, c, |e| qdmulh(e, false)));
    t.put(Qrdmulh.id(1), |e, c| e.features.sse41 && two(e, c, |e| qdmulh(e, true)));
}

fn comparisons(t: &mut Table) {
    use Same::*;
    signedness(t, CgtS, CgtU, |e, c, z, u| two(e, c, |e| cgt(e, z, u, 0, 1)), 0..3);
    signedness(t, CgeS, CgeU, |e, c, z, u| two(e, c, |e| cge(e, z, u)), 0..3);
    sizes(t, Ceq, 0..3, |e, c, z| two(e, c, |e| ceq(e, z, 0, 1)));
    sizes(t, Tst, 0..3, |e, c, z| {
        two(e, c, |e| {
            x!(e; pand xmm0, xmm1 ; pxor xmm1, xmm1);
            ceq(e, z, 0, 1);
            xor_k(e, 0, u128::MAX);
        })
    });
    signedness(t, MaxS, MaxU, |e, c, z, u| two(e, c, |e| extreme(e, z, u, true, 0, 1)), 0..3);
    signedness(t, MinS, MinU, |e, c, z, u| two(e, c, |e| extreme(e, z, u, false, 0, 1)), 0..3);
    signedness(t, PmaxS, PmaxU, |e, c, z, u| pairwise(e, c, z, |e| extreme(e, z, u, true, 0, 1)), 0..3);
    signedness(t, PminS, PminU, |e, c, z, u| pairwise(e, c, z, |e| extreme(e, z, u, false, 0, 1)), 0..3);
    sizes(t, Ceq0, 0..3, |e, c, z| with_zero(e, c, |e| ceq(e, z, 0, 1)));
    sizes(t, Cgt0, 0..3, |e, c, z| with_zero(e, c, |e| cgt(e, z, false, 0, 1)));
    sizes(t, Cge0, 0..3, |e, c, z| with_zero(e, c, |e| cge(e, z, false)));
    sizes(t, Clt0, 0..3, |e, c, z| {
        with_zero(e, c, |e| {
            cgt(e, z, false, 1, 0);
            x!(e; movdqa xmm0, xmm1);
        })
    });
    sizes(t, Cle0, 0..3, |e, c, z| {
        with_zero(e, c, |e| {
            cgt(e, z, false, 0, 1);
            xor_k(e, 0, u128::MAX);
        })
    });
}

/// `d = f(m, 0)`.
fn with_zero(e: &mut Emitter, c: &Ctx, f: impl FnOnce(&mut Emitter)) -> bool {
    one(e, c, |e| {
        konst(e, 1, 0);
        f(e);
    })
}

fn scalars(t: &mut Table) {
    use Same::*;
    sizes(t, MulBy, 1..3, |e, c, z| by(e, c, |e| mul(e, z, 0, 1)));
    sizes(t, MlaBy, 1..3, |e, c, z| {
        by(e, c, |e| {
            mul(e, z, 0, 1);
            into(e, c, z, false);
        })
    });
    sizes(t, MlsBy, 1..3, |e, c, z| {
        by(e, c, |e| {
            mul(e, z, 0, 1);
            into(e, c, z, true);
        })
    });
    t.put(QdmulhBy.id(1), |e, c| by(e, c, |e| qdmulh(e, false)));
    t.put(QrdmulhBy.id(1), |e, c| e.features.sse41 && by(e, c, |e| qdmulh(e, true)));
}
