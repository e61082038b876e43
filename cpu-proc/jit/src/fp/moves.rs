//! Bitwise operations, permutations, table look-ups, and elements.

use reprise_arm::fp::simd_helpers::{Misc, list};
use reprise_arm::ir::Uop;

use super::prim::{and_k, dup, dup_eax, konst, pack, pack_high, select, splat, xor_k};
use super::vector_int::{one, two};
use super::{Ctx, Table, load_d, load_q, store_d, store_q};
use crate::emit::{Emitter, ext};

/// VORR; with the same operand twice it is VMOV.
fn orr(e: &mut Emitter, c: &Ctx) -> bool {
    if c.n == c.m { one(e, c, |_| ()) } else { two(e, c, |e| x!(e; por xmm0, xmm1)) }
}

/// VBSL, VBIT, VBIF: `mask`, `yes` and `no` are register numbers.
fn choose(e: &mut Emitter, c: &Ctx, mask: u32, yes: u32, no: u32) -> bool {
    if !c.aligned() {
        return false;
    }
    c.load(e, 0, yes);
    c.load(e, 1, no);
    c.load(e, 2, mask);
    select(e, 2, 0, 1);
    c.store(e, 0, c.d);
    true
}

/// VCNT: bits of pairs, of nibbles, of bytes.
fn cnt(e: &mut Emitter) {
    x!(e; movdqa xmm1, xmm0 ; psrlw xmm1, 1);
    and_k(e, 1, splat(0, 0x55));
    x!(e; psubb xmm0, xmm1 ; movdqa xmm1, xmm0 ; psrlw xmm1, 2);
    konst(e, 7, splat(0, 0x33));
    x!(e; pand xmm0, xmm7 ; pand xmm1, xmm7 ; paddb xmm0, xmm1 ; movdqa xmm1, xmm0 ; psrlw xmm1, 4 ; paddb xmm0, xmm1);
    and_k(e, 0, splat(0, 0x0f));
}

/// VREV: bytes of halves, then halves by the shuffle `order`.
fn rev(e: &mut Emitter, c: &Ctx, bytes: bool, order: Option<u8>) -> bool {
    one(e, c, |e| {
        if bytes {
            x!(e; movdqa xmm1, xmm0 ; psrlw xmm0, 8 ; psllw xmm1, 8 ; por xmm0, xmm1);
        }
        if let Some(o) = order {
            x!(e; pshuflw xmm0, xmm0, o as i8 ; pshufhw xmm0, xmm0, o as i8);
        }
    })
}

/// The exchange within pairs.
const SWAP: Option<u8> = Some(0b10_11_00_01);
/// The exchange of all four.
const MIRROR: Option<u8> = Some(0b00_01_10_11);

/// Loads d and m, and after `f` stores the new m from 1 and the new d from 0 (last: it wins if they are the same).
fn both(e: &mut Emitter, c: &Ctx, f: impl FnOnce(&mut Emitter)) -> bool {
    if !c.aligned() {
        return false;
    }
    c.load(e, 0, c.d);
    c.load(e, 1, c.m);
    f(e);
    c.store(e, 1, c.m);
    c.store(e, 0, c.d);
    true
}

fn trn(e: &mut Emitter, c: &Ctx, z: u32) -> bool {
    both(e, c, |e| {
        let bits = 8 << z;
        // 2: even lanes of m, moved up; 3: odd lanes of d, moved down.
        x!(e; movdqa xmm2, xmm1 ; movdqa xmm3, xmm0);
        lanes!(e, z + 1; .. psllw pslld psllq; xmm2, bits);
        lanes!(e, z + 1; .. psrlw psrld psrlq; xmm3, bits);
        konst(e, 7, splat(z + 1, u64::MAX >> (64 - (8 << z))));
        x!(e; pand xmm0, xmm7 ; por xmm0, xmm2 ; pandn xmm7, xmm1 ; por xmm3, xmm7 ; movdqa xmm1, xmm3);
    })
}

/// Even lanes of 0 and 1 to 0, odd ones to 1.
fn unzip(e: &mut Emitter, z: u32) {
    x!(e; movdqa xmm2, xmm0 ; movdqa xmm3, xmm1);
    pack(e, z, 0, 1);
    pack_high(e, z, 2, 3);
    x!(e; movdqa xmm1, xmm2);
}

/// The same for doublewords: even lanes to 0, odd ones to 1.
fn unzip_d(e: &mut Emitter, z: u32) {
    x!(e; punpcklqdq xmm0, xmm1 ; movdqa xmm1, xmm0);
    unzip(e, z);
}

/// Interleaves the low halves of 0 and 1 in 0, the high halves in 1.
fn zip(e: &mut Emitter, z: u32, q: bool) {
    x!(e; movdqa xmm2, xmm0);
    lanes!(e, z; punpcklbw punpcklwd punpckldq; xmm0, xmm1);
    if q {
        lanes!(e, z; punpckhbw punpckhwd punpckhdq; xmm2, xmm1);
        x!(e; movdqa xmm1, xmm2);
    } else {
        x!(e; pshufd xmm1, xmm0, 0xeeu8 as i8);
    }
}

fn vdup(e: &mut Emitter, c: &Ctx, z: u32) -> bool {
    dup(e, 0, z, c.m, c.b);
    c.store(e, 0, c.d);
    true
}

fn vext(e: &mut Emitter, c: &Ctx) -> bool {
    two(e, c, |e| {
        let down = c.b as i8;
        if c.q {
            x!(e; psrldq xmm0, down ; pslldq xmm1, 16 - down ; por xmm0, xmm1);
        } else {
            x!(e; punpcklqdq xmm0, xmm1 ; psrldq xmm0, down);
        }
    })
}

/// VTBL and VTBX through PSHUFB, which gives 0 for an index with its top bit set.
fn tbl(e: &mut Emitter, c: &Ctx, extend: bool) -> bool {
    if !e.features.sse41 {
        return false;
    }
    let len = u32::from(c.u.a);
    load_d(e, 0, c.m);
    table(e, 1, c.n, len.min(2));
    // Beyond the table saturates to at least 0x80; a table of one doubleword is there twice.
    x!(e; movdqa xmm2, xmm0);
    konst(e, 7, splat(0, if len == 1 { 0x78 } else { 0x70 }));
    x!(e; paddusb xmm2, xmm7 ; pshufb xmm1, xmm2);
    if len > 2 {
        table(e, 3, c.n + 2, len - 2);
        konst(e, 7, splat(0, 16));
        x!(e; movdqa xmm2, xmm0 ; psubb xmm2, xmm7);
        konst(e, 7, splat(0, if len == 3 { 0x78 } else { 0x70 }));
        x!(e; paddusb xmm2, xmm7 ; pshufb xmm3, xmm2 ; por xmm1, xmm3);
    }
    if extend {
        konst(e, 7, splat(0, (8 * len).into()));
        load_d(e, 3, c.d);
        x!(e; pmaxub xmm7, xmm0 ; pcmpeqb xmm7, xmm0 ; pand xmm3, xmm7 ; por xmm1, xmm3);
    }
    store_d(e, 1, c.d);
    true
}

/// One doubleword twice, or two.
fn table(e: &mut Emitter, x: u8, n: u32, len: u32) {
    if len == 1 {
        x!(e; movddup Rx(x), [rbp + ext(2 * n)]);
    } else {
        load_q(e, x, n);
    }
}

// ---- elements and structures --------------------------------------------------------------------------------------------------

/// SetElement and DupCore, their value in `eax`.
pub(super) fn lower_value(e: &mut Emitter, u: &Uop) -> bool {
    let (d, l, z) = (u.imm & 0xff, u.imm >> 8 & 0xff, u.imm >> 16 & 0xff);
    if u.aux == u32::from(Misc::SetElement.id(0).0) {
        let at = ext(2 * d) + (l << z) as i32;
        match z {
            0 => x!(e; mov [rbp + at], al),
            1 => x!(e; mov [rbp + at], ax),
            _ => x!(e; mov [rbp + at], eax),
        }
        return true;
    }
    if u.aux == u32::from(Misc::DupCore.id(0).0) && (l == 1 || l == 2) {
        dup_eax(e, 0, z);
        if l == 2 {
            store_q(e, 0, d)
        } else {
            store_d(e, 0, d)
        }
        return true;
    }
    false
}

/// What a structure access packs: first register, step, rows; elements and lane size.
fn structure(c: &Ctx) -> (u32, u32, u32, u32, u32) {
    (c.d, c.n, c.m, c.u.a.into(), c.b)
}

fn deinterleave(e: &mut Emitter, c: &Ctx) -> bool {
    let (d, step, rows, elements, z) = structure(c);
    let raw = |k| list(d, step, rows, elements, k);
    match elements {
        2 => {
            for row in 0..rows {
                load_d(e, 0, raw(2 * row));
                load_d(e, 1, raw(2 * row + 1));
                unzip_d(e, z);
                store_d(e, 0, d + row);
                store_d(e, 1, d + row + step);
            }
            true
        }
        3 => e.features.sse41 && three(e, d, step, z),
        _ => {
            load_d(e, 0, raw(0));
            load_d(e, 2, raw(1));
            load_d(e, 1, raw(2));
            load_d(e, 3, raw(3));
            x!(e; punpcklqdq xmm0, xmm2 ; punpcklqdq xmm1, xmm3);
            // Twice: elements 0 and 2 apart from 1 and 3, and then all.
            unzip(e, z);
            unzip(e, z);
            for (x, k) in [(0, 0), (1, 2)] {
                store_d(e, x, d + k * step);
                x!(e; psrldq Rx(x), 8);
                store_d(e, x, d + (k + 1) * step);
            }
            true
        }
    }
}

/// Structures of three: each register gathers bytes from 16 and from 8.
fn three(e: &mut Emitter, d: u32, step: u32, z: u32) -> bool {
    load_d(e, 0, d);
    load_d(e, 1, d + step);
    load_d(e, 2, d + 2 * step);
    x!(e; punpcklqdq xmm0, xmm1);
    for k in 0..3 {
        let (mut low, mut high) = (u128::MAX, u128::MAX);
        for byte in 0..8 {
            let from = ((byte >> z) * 3 + k) * (1 << z) + (byte & ((1 << z) - 1));
            let (mask, from) = if from < 16 { (&mut low, from) } else { (&mut high, from - 16) };
            *mask = *mask & !(0xff << (8 * byte)) | u128::from(from) << (8 * byte);
        }
        konst(e, 3, low);
        konst(e, 4, high);
        x!(e; movdqa xmm5, xmm0 ; movdqa xmm6, xmm2 ; pshufb xmm5, xmm3 ; pshufb xmm6, xmm4 ; por xmm5, xmm6);
        store_d(e, 5, d + k * step);
    }
    true
}

/// One word of interleaved structures, in `eax`.
fn interleaved_word(e: &mut Emitter, c: &Ctx) -> bool {
    let (d, step, _, elements, z) = structure(c);
    let (per_word, per) = (4 >> z, 8 >> z);
    let place = |j: u32| {
        let at = (c.u.imm >> 24) * per_word + j;
        let (k, l) = (at % elements, at / elements);
        ext(2 * (d + l / per + k * step)) + ((l % per) << z) as i32
    };
    if z == 2 {
        x!(e; mov eax, [rbp + place(0)]);
        return true;
    }
    for j in (0..per_word).rev() {
        let to_ecx = j + 1 < per_word;
        match (z, to_ecx) {
            (0, false) => x!(e; movzx eax, BYTE [rbp + place(j)]),
            (0, true) => x!(e; movzx ecx, BYTE [rbp + place(j)] ; shl eax, 8 ; or eax, ecx),
            (_, false) => x!(e; movzx eax, WORD [rbp + place(j)]),
            (_, true) => x!(e; movzx ecx, WORD [rbp + place(j)] ; shl eax, 16 ; or eax, ecx),
        }
    }
    true
}

pub(super) fn register(t: &mut Table) {
    bitwise(t);
    permutations(t);
    t.put(Misc::Deinterleave.id(0), deinterleave);
    t.put(Misc::InterleavedWord.id(0), interleaved_word);
}

fn bitwise(t: &mut Table) {
    t.put(Misc::And.id(0), |e, c| two(e, c, |e| x!(e; pand xmm0, xmm1)));
    t.put(Misc::Bic.id(0), |e, c| two(e, c, |e| x!(e; pandn xmm1, xmm0 ; movdqa xmm0, xmm1)));
    t.put(Misc::Orr.id(0), orr);
    t.put(Misc::Orn.id(0), |e, c| {
        two(e, c, |e| {
            xor_k(e, 1, u128::MAX);
            x!(e; por xmm0, xmm1);
        })
    });
    t.put(Misc::Eor.id(0), |e, c| two(e, c, |e| x!(e; pxor xmm0, xmm1)));
    t.put(Misc::Bsl.id(0), |e, c| choose(e, c, c.d, c.n, c.m));
    t.put(Misc::Bit.id(0), |e, c| choose(e, c, c.m, c.n, c.d));
    t.put(Misc::Bif.id(0), |e, c| choose(e, c, c.m, c.d, c.n));
    t.put(Misc::Mvn.id(0), |e, c| one(e, c, |e| xor_k(e, 0, u128::MAX)));
    t.put(Misc::Cnt.id(0), |e, c| one(e, c, cnt));
    t.put(Misc::FAbs.id(0), |e, c| one(e, c, |e| and_k(e, 0, splat(2, 0x7fff_ffff))));
    t.put(Misc::FNeg.id(0), |e, c| one(e, c, |e| xor_k(e, 0, splat(2, 0x8000_0000))));
}

fn permutations(t: &mut Table) {
    t.put(Misc::Rev64At8.id(0), |e, c| rev(e, c, true, MIRROR));
    t.put(Misc::Rev64At16.id(0), |e, c| rev(e, c, false, MIRROR));
    t.put(Misc::Rev64At32.id(0), |e, c| one(e, c, |e| x!(e; pshufd xmm0, xmm0, 0xb1u8 as i8)));
    t.put(Misc::Rev32At8.id(0), |e, c| rev(e, c, true, SWAP));
    t.put(Misc::Rev32At16.id(0), |e, c| rev(e, c, false, SWAP));
    t.put(Misc::Rev16At8.id(0), |e, c| rev(e, c, true, None));
    for z in 0..3 {
        t.put(Misc::Trn8.id(z), move |e, c| trn(e, c, z));
        t.put(Misc::Uzp8.id(z), move |e, c| both(e, c, |e| if c.q { unzip(e, z) } else { unzip_d(e, z) }));
        t.put(Misc::Zip8.id(z), move |e, c| both(e, c, |e| zip(e, z, c.q)));
        t.put(Misc::Dup8.id(z), move |e, c| vdup(e, c, z));
    }
    t.put(Misc::Swp.id(0), |e, c| both(e, c, |e| x!(e; movdqa xmm2, xmm0 ; movdqa xmm0, xmm1 ; movdqa xmm1, xmm2)));
    t.put(Misc::Ext.id(0), vext);
    t.put(Misc::Tbl.id(0), |e, c| tbl(e, c, false));
    t.put(Misc::Tbx.id(0), |e, c| tbl(e, c, true));
}
