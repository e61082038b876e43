//! Shifts by an immediate, and operations that widen or narrow (rows of [`Shape`]); `z` is the size of the narrow lanes.

use reprise_arm::fp::simd_helpers::{Misc, Shape};

use super::prim::{
    abs, add, and_k, extend, konst, mul, pack, qc_if_any, qc_unless_equal, rshr, scalar, shl, shr, sign, splat, sub,
    xor_k,
};
use super::vector_int::{one, qadd_wide};
use super::{Ctx, Table, load_d, load_q, store_d, store_q};
use crate::emit::Emitter;

/// Bits of a lane.
fn width(z: u32) -> u32 {
    8 << z
}

/// All ones in a lane.
fn full(z: u32) -> u64 {
    u64::MAX >> (64 - width(z))
}

/// Right shift of `x`, rounded or not.
fn right(e: &mut Emitter, z: u32, unsigned: bool, round: bool, x: u8, n: u32) {
    if round { rshr(e, z, unsigned, x, n) } else { shr(e, z, unsigned, x, n) }
}

fn vshr(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, round: bool) -> bool {
    one(e, c, |e| right(e, z, unsigned, round, 0, c.b))
}

fn vsra(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, round: bool) -> bool {
    one(e, c, |e| {
        right(e, z, unsigned, round, 0, c.b);
        c.load(e, 1, c.d);
        add(e, z, 0, 1);
    })
}

fn vsri(e: &mut Emitter, c: &Ctx, z: u32) -> bool {
    one(e, c, |e| {
        let moved = full(z).checked_shr(c.b).filter(|_| c.b < width(z)).unwrap_or(0);
        shr(e, z, true, 0, c.b);
        c.load(e, 1, c.d);
        and_k(e, 1, splat(z, !moved));
        x!(e; por xmm0, xmm1);
    })
}

fn vsli(e: &mut Emitter, c: &Ctx, z: u32) -> bool {
    one(e, c, |e| {
        shl(e, z, 0, c.b);
        c.load(e, 1, c.d);
        and_k(e, 1, splat(z, (1 << c.b) - 1));
        x!(e; por xmm0, xmm1);
    })
}

/// VQSHL, VQSHLU: saturates where shifting back does not restore the value. `from_signed` with an unsigned result is VQSHLU.
fn vqshl(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, from_signed: bool) -> bool {
    if z == 0 || z == 3 {
        return false;
    }
    one(e, c, |e| {
        x!(e; movdqa xmm1, xmm0 ; movdqa xmm2, xmm0 ; movdqa xmm3, xmm0);
        sign(e, z, 3);
        if from_signed {
            // Negative numbers become zero, and set QC.
            x!(e; pandn xmm3, xmm0 ; movdqa xmm2, xmm3 ; movdqa xmm0, xmm3);
        }
        shl(e, z, 0, c.b);
        x!(e; movdqa xmm4, xmm0);
        if c.b != 0 {
            shr(e, z, unsigned, 4, c.b);
        }
        lanes!(e, z; pcmpeqw pcmpeqd; xmm4, xmm2);
        // 4: fits. What does not takes the limit.
        konst(e, 5, u128::MAX);
        x!(e; pxor xmm5, xmm4 ; pand xmm0, xmm4);
        if unsigned {
            x!(e; por xmm0, xmm5);
        } else {
            xor_k(e, 3, splat(z, full(z) >> 1));
            x!(e; pand xmm3, xmm5 ; por xmm0, xmm3);
        }
        if from_signed {
            sign(e, z, 1);
            x!(e; por xmm5, xmm1);
        }
        qc_if_any(e, 5);
    })
}

/// VSHRN, VRSHRN.
fn vshrn(e: &mut Emitter, c: &Ctx, z: u32, round: bool) -> bool {
    load_q(e, 0, c.m);
    if round {
        konst(e, 1, splat(z + 1, 1 << (c.b - 1)));
        add(e, z + 1, 0, 1);
    }
    shr(e, z + 1, true, 0, c.b);
    pack(e, z, 0, 0);
    store_d(e, 0, c.d);
    true
}

/// VQSHRN and its kin, VQMOVN with shift 0; 8 and 16 bits. `su`, `du`: source and destination are unsigned.
fn vqshrn(e: &mut Emitter, c: &Ctx, z: u32, su: bool, du: bool, round: bool) -> bool {
    if z == 1 && du && !e.features.sse41 {
        return false;
    }
    load_q(e, 0, c.m);
    if c.b != 0 {
        right(e, z + 1, su, round, 0, c.b);
    }
    x!(e; movdqa xmm1, xmm0);
    if su {
        // The packing takes signed numbers: large ones are cut first.
        if e.features.sse41 {
            konst(e, 2, splat(z + 1, full(z)));
            lanes!(e, z + 1; pminuw pminud; xmm0, xmm2);
        } else {
            konst(e, 2, splat(1, 0xff));
            x!(e; movdqa xmm3, xmm0 ; psubusw xmm3, xmm2 ; psubw xmm0, xmm3);
        }
    }
    match (z, du) {
        (0, false) => x!(e; packsswb xmm0, xmm0),
        (0, true) => x!(e; packuswb xmm0, xmm0),
        (_, false) => x!(e; packssdw xmm0, xmm0),
        (_, true) => x!(e; packusdw xmm0, xmm0),
    }
    store_d(e, 0, c.d);
    extend(e, z, du, 0);
    qc_unless_equal(e, 1, 0);
    true
}

/// VSHLL, VMOVL.
fn vshll(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool) -> bool {
    load_d(e, 0, c.m);
    extend(e, z, unsigned, 0);
    if c.b != 0 {
        shl(e, z + 1, 0, c.b);
    }
    store_q(e, 0, c.d);
    true
}

/// The operands of a long operation, extended, in 0 and 1.
fn long_operands(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool) {
    load_d(e, 0, c.n);
    load_d(e, 1, c.m);
    extend(e, z, unsigned, 0);
    extend(e, z, unsigned, 1);
}

/// Register 0 += register 1, or -= if `minus`.
fn add_or_sub(e: &mut Emitter, z: u32, minus: bool) {
    if minus { sub(e, z, 0, 1) } else { add(e, z, 0, 1) }
}

/// VADDL, VSUBL.
fn addl(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, minus: bool) -> bool {
    long_operands(e, c, z, unsigned);
    add_or_sub(e, z + 1, minus);
    store_q(e, 0, c.d);
    true
}

/// VADDW, VSUBW.
fn addw(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, minus: bool) -> bool {
    load_d(e, 1, c.m);
    extend(e, z, unsigned, 1);
    load_q(e, 0, c.n);
    add_or_sub(e, z + 1, minus);
    store_q(e, 0, c.d);
    true
}

/// VADDHN, VSUBHN and the rounded forms.
fn addhn(e: &mut Emitter, c: &Ctx, z: u32, round: bool, minus: bool) -> bool {
    load_q(e, 0, c.n);
    load_q(e, 1, c.m);
    add_or_sub(e, z + 1, minus);
    if round {
        konst(e, 1, splat(z + 1, 1 << (width(z) - 1)));
        add(e, z + 1, 0, 1);
    }
    shr(e, z + 1, true, 0, width(z));
    pack(e, z, 0, 0);
    store_d(e, 0, c.d);
    true
}

/// VABDL, VABAL: the difference fits the wide lane.
fn abdl(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, accumulate: bool) -> bool {
    long_operands(e, c, z, unsigned);
    sub(e, z + 1, 0, 1);
    abs(e, z + 1, 0);
    if accumulate {
        load_q(e, 1, c.d);
        add(e, z + 1, 0, 1);
    }
    store_q(e, 0, c.d);
    true
}

/// What happens to a long product.
#[derive(Clone, Copy)]
enum Then {
    Store,
    Add,
    Sub,
}

/// The long product of the low halves of 0 and 1, in 0.
fn product(e: &mut Emitter, z: u32, unsigned: bool) {
    match (z, unsigned) {
        (0, _) => {
            extend(e, 0, unsigned, 0);
            extend(e, 0, unsigned, 1);
            mul(e, 1, 0, 1);
        }
        (1, true) => x!(e; movdqa xmm2, xmm0 ; pmullw xmm0, xmm1 ; pmulhuw xmm2, xmm1 ; punpcklwd xmm0, xmm2),
        (1, false) => x!(e; movdqa xmm2, xmm0 ; pmullw xmm0, xmm1 ; pmulhw xmm2, xmm1 ; punpcklwd xmm0, xmm2),
        _ => {
            x!(e; pshufd xmm0, xmm0, 0x50 ; pshufd xmm1, xmm1, 0x50);
            if unsigned {
                x!(e; pmuludq xmm0, xmm1);
            } else if e.features.sse41 {
                x!(e; pmuldq xmm0, xmm1);
            } else {
                // A negative operand counts 2^32 too much: take the other one from the high half.
                x!(e
                    ; movdqa xmm2, xmm0 ; psrad xmm2, 31 ; pand xmm2, xmm1
                    ; movdqa xmm3, xmm1 ; psrad xmm3, 31 ; pand xmm3, xmm0
                    ; paddd xmm2, xmm3 ; psllq xmm2, 32 ; pmuludq xmm0, xmm1 ; psubq xmm0, xmm2
                );
            }
        }
    }
}

/// Adds the product in 0 to d or so, and stores.
fn multiplied(e: &mut Emitter, c: &Ctx, z: u32, then: Then) -> bool {
    match then {
        Then::Store => store_q(e, 0, c.d),
        Then::Add => {
            load_q(e, 1, c.d);
            add(e, z + 1, 0, 1);
            store_q(e, 0, c.d);
        }
        Then::Sub => {
            load_q(e, 1, c.d);
            sub(e, z + 1, 1, 0);
            store_q(e, 1, c.d);
        }
    }
    true
}

/// VMULL, VMLAL, VMLSL.
fn mull(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, then: Then) -> bool {
    load_d(e, 0, c.n);
    load_d(e, 1, c.m);
    product(e, z, unsigned);
    multiplied(e, c, z, then)
}

/// The same by a scalar.
fn mull_by(e: &mut Emitter, c: &Ctx, z: u32, unsigned: bool, then: Then) -> bool {
    load_d(e, 0, c.n);
    scalar(e, 1, c.m, c.b);
    product(e, z, unsigned);
    multiplied(e, c, z, then)
}

/// VQDMULL, VQDMLAL, VQDMLSL, 16 bits: only -1 * -1 overflows when doubled, to the least number.
fn qdmull(e: &mut Emitter, c: &Ctx, by: bool, then: Then) -> bool {
    load_d(e, 0, c.n);
    if by {
        scalar(e, 1, c.m, c.b)
    } else {
        load_d(e, 1, c.m)
    }
    product(e, 1, false);
    x!(e; paddd xmm0, xmm0);
    konst(e, 2, splat(2, 0x8000_0000));
    x!(e; pcmpeqd xmm2, xmm0 ; pxor xmm0, xmm2);
    qc_if_any(e, 2);
    if !matches!(then, Then::Store) {
        x!(e; movdqa xmm1, xmm0);
        load_q(e, 0, c.d);
        qadd_wide(e, 2, false, matches!(then, Then::Sub));
    }
    store_q(e, 0, c.d);
    true
}

/// VMOVN.
fn movn(e: &mut Emitter, c: &Ctx, z: u32) -> bool {
    load_q(e, 0, c.m);
    pack(e, z, 0, 0);
    store_d(e, 0, c.d);
    true
}

impl Table {
    fn shape(&mut self, row: Shape, sizes: std::ops::Range<u32>, f: fn(&mut Emitter, &Ctx, u32) -> bool) {
        for z in sizes {
            self.put(row.id(z), move |e, c| f(e, c, z));
        }
    }
}

pub(super) fn register(t: &mut Table) {
    shifts(t);
    narrowing(t);
    widening(t);
    products(t);
}

fn shifts(t: &mut Table) {
    use Shape::*;
    t.shape(ShrS, 0..4, |e, c, z| vshr(e, c, z, false, false));
    t.shape(ShrU, 0..4, |e, c, z| vshr(e, c, z, true, false));
    t.shape(RshrS, 0..4, |e, c, z| vshr(e, c, z, false, true));
    t.shape(RshrU, 0..4, |e, c, z| vshr(e, c, z, true, true));
    t.shape(SraS, 0..4, |e, c, z| vsra(e, c, z, false, false));
    t.shape(SraU, 0..4, |e, c, z| vsra(e, c, z, true, false));
    t.shape(RsraS, 0..4, |e, c, z| vsra(e, c, z, false, true));
    t.shape(RsraU, 0..4, |e, c, z| vsra(e, c, z, true, true));
    t.shape(Sri, 0..4, vsri);
    t.shape(Shl, 0..4, |e, c, z| one(e, c, |e| shl(e, z, 0, c.b)));
    t.shape(Sli, 0..4, vsli);
    t.shape(QshlS, 1..3, |e, c, z| vqshl(e, c, z, false, false));
    t.shape(QshlU, 1..3, |e, c, z| vqshl(e, c, z, true, false));
    t.shape(Qshlu, 1..3, |e, c, z| vqshl(e, c, z, true, true));
}

fn narrowing(t: &mut Table) {
    use Shape::*;
    t.shape(Shrn, 0..3, |e, c, z| vshrn(e, c, z, false));
    t.shape(Rshrn, 0..3, |e, c, z| vshrn(e, c, z, true));
    t.shape(QshrnS, 0..2, |e, c, z| vqshrn(e, c, z, false, false, false));
    t.shape(QshrnU, 0..2, |e, c, z| vqshrn(e, c, z, true, true, false));
    t.shape(Qshrun, 0..2, |e, c, z| vqshrn(e, c, z, false, true, false));
    t.shape(QrshrnS, 0..2, |e, c, z| vqshrn(e, c, z, false, false, true));
    t.shape(QrshrnU, 0..2, |e, c, z| vqshrn(e, c, z, true, true, true));
    t.shape(Qrshrun, 0..2, |e, c, z| vqshrn(e, c, z, false, true, true));
    t.shape(Addhn, 0..3, |e, c, z| addhn(e, c, z, false, false));
    t.shape(Raddhn, 0..3, |e, c, z| addhn(e, c, z, true, false));
    t.shape(Subhn, 0..3, |e, c, z| addhn(e, c, z, false, true));
    t.shape(Rsubhn, 0..3, |e, c, z| addhn(e, c, z, true, true));
    for z in 0..3 {
        t.put(Misc::Movn8.id(z), move |e, c| movn(e, c, z));
    }
}

fn widening(t: &mut Table) {
    use Shape::*;
    t.shape(ShllS, 0..3, |e, c, z| vshll(e, c, z, false));
    t.shape(ShllU, 0..3, |e, c, z| vshll(e, c, z, true));
    t.shape(AddlS, 0..3, |e, c, z| addl(e, c, z, false, false));
    t.shape(AddlU, 0..3, |e, c, z| addl(e, c, z, true, false));
    t.shape(SublS, 0..3, |e, c, z| addl(e, c, z, false, true));
    t.shape(SublU, 0..3, |e, c, z| addl(e, c, z, true, true));
    t.shape(AddwS, 0..3, |e, c, z| addw(e, c, z, false, false));
    t.shape(AddwU, 0..3, |e, c, z| addw(e, c, z, true, false));
    t.shape(SubwS, 0..3, |e, c, z| addw(e, c, z, false, true));
    t.shape(SubwU, 0..3, |e, c, z| addw(e, c, z, true, true));
    t.shape(AbdlS, 0..3, |e, c, z| abdl(e, c, z, false, false));
    t.shape(AbdlU, 0..3, |e, c, z| abdl(e, c, z, true, false));
    t.shape(AbalS, 0..3, |e, c, z| abdl(e, c, z, false, true));
    t.shape(AbalU, 0..3, |e, c, z| abdl(e, c, z, true, true));
}

fn products(t: &mut Table) {
    use Shape::*;
    t.shape(MullS, 0..3, |e, c, z| mull(e, c, z, false, Then::Store));
    t.shape(MullU, 0..3, |e, c, z| mull(e, c, z, true, Then::Store));
    t.shape(MlalS, 0..3, |e, c, z| mull(e, c, z, false, Then::Add));
    t.shape(MlalU, 0..3, |e, c, z| mull(e, c, z, true, Then::Add));
    t.shape(MlslS, 0..3, |e, c, z| mull(e, c, z, false, Then::Sub));
    t.shape(MlslU, 0..3, |e, c, z| mull(e, c, z, true, Then::Sub));
    t.shape(MullByS, 1..3, |e, c, z| mull_by(e, c, z, false, Then::Store));
    t.shape(MullByU, 1..3, |e, c, z| mull_by(e, c, z, true, Then::Store));
    t.shape(MlalByS, 1..3, |e, c, z| mull_by(e, c, z, false, Then::Add));
    t.shape(MlalByU, 1..3, |e, c, z| mull_by(e, c, z, true, Then::Add));
    t.shape(MlslByS, 1..3, |e, c, z| mull_by(e, c, z, false, Then::Sub));
    t.shape(MlslByU, 1..3, |e, c, z| mull_by(e, c, z, true, Then::Sub));
    t.shape(Qdmull, 1..2, |e, c, _| qdmull(e, c, false, Then::Store));
    t.shape(Qdmlal, 1..2, |e, c, _| qdmull(e, c, false, Then::Add));
    t.shape(Qdmlsl, 1..2, |e, c, _| qdmull(e, c, false, Then::Sub));
    t.shape(QdmullBy, 1..2, |e, c, _| qdmull(e, c, true, Then::Store));
    t.shape(QdmlalBy, 1..2, |e, c, _| qdmull(e, c, true, Then::Add));
    t.shape(QdmlslBy, 1..2, |e, c, _| qdmull(e, c, true, Then::Sub));
}
