//! Vector primitives that SSE2 lacks, or has for some lane sizes only. `z` is the lane size as log2 of bytes. Registers 4 to 7 are theirs;
//! operands are in 0 to 3.

use reprise_arm::fp::fpscr::Fpscr;

use crate::emit::{Emitter, ext, fpscr};

/// A lane's value in all lanes.
pub(super) fn splat(z: u32, v: u64) -> u128 {
    let bits = 8 << z;
    (0..128 / bits).fold(0, |r, i| r | (u128::from(v) & (u128::MAX >> (128 - bits))) << (i * bits))
}

/// `x = v`.
pub(super) fn konst(e: &mut Emitter, x: u8, v: u128) {
    match v {
        0 => x!(e; pxor Rx(x), Rx(x)),
        u128::MAX => x!(e; pcmpeqd Rx(x), Rx(x)),
        _ => {
            let l = e.constant(v);
            x!(e; movups Rx(x), [=>l]);
        }
    }
}

/// `x &= v`.
pub(super) fn and_k(e: &mut Emitter, x: u8, v: u128) {
    konst(e, 7, v);
    x!(e; pand Rx(x), xmm7);
}

/// `x ^= v`.
pub(super) fn xor_k(e: &mut Emitter, x: u8, v: u128) {
    konst(e, 7, v);
    x!(e; pxor Rx(x), xmm7);
}

pub(super) fn add(e: &mut Emitter, z: u32, a: u8, b: u8) {
    lanes!(e, z; paddb paddw paddd paddq; Rx(a), Rx(b));
}

pub(super) fn sub(e: &mut Emitter, z: u32, a: u8, b: u8) {
    lanes!(e, z; psubb psubw psubd psubq; Rx(a), Rx(b));
}

/// `a = a == b`, 8 to 32 bits.
pub(super) fn ceq(e: &mut Emitter, z: u32, a: u8, b: u8) {
    lanes!(e, z; pcmpeqb pcmpeqw pcmpeqd; Rx(a), Rx(b));
}

/// `a = a > b`, 8 to 32 bits; unsigned changes `b` too.
pub(super) fn cgt(e: &mut Emitter, z: u32, unsigned: bool, a: u8, b: u8) {
    if unsigned {
        konst(e, 7, splat(z, 0x80 << ((8 << z) - 8)));
        x!(e; pxor Rx(a), xmm7);
        if b != a {
            x!(e; pxor Rx(b), xmm7);
        }
    }
    lanes!(e, z; pcmpgtb pcmpgtw pcmpgtd; Rx(a), Rx(b));
}

/// `x <<= n` (16 to 64 bits by nature, bytes with a mask).
pub(super) fn shl(e: &mut Emitter, z: u32, x: u8, n: u32) {
    let k = n as i8;
    if z == 0 {
        x!(e; psllw Rx(x), k);
        and_k(e, x, splat(0, 0xff << n & 0xff));
    } else {
        lanes!(e, z; .. psllw pslld psllq; Rx(x), k);
    }
}

/// `x >>= n`, 1 to the lane's width.
pub(super) fn shr(e: &mut Emitter, z: u32, unsigned: bool, x: u8, n: u32) {
    let k = n as i8;
    match (z, unsigned) {
        (0, true) => {
            x!(e; psrlw Rx(x), k);
            and_k(e, x, splat(0, 0xff >> n));
        }
        (0, false) if n == 8 => sign(e, 0, x),
        (0, false) => {
            x!(e; psrlw Rx(x), k);
            and_k(e, x, splat(0, 0xff >> n));
            konst(e, 7, splat(0, 0x80 >> n));
            x!(e; pxor Rx(x), xmm7 ; psubb Rx(x), xmm7);
        }
        (_, true) => lanes!(e, z; .. psrlw psrld psrlq; Rx(x), k),
        (3, false) => {
            let up = 64 - n as i8;
            x!(e; movdqa xmm7, Rx(x) ; psrad xmm7, 31 ; pshufd xmm7, xmm7, 0xf5u8 as i8);
            x!(e; psrlq Rx(x), k ; psllq xmm7, up ; por Rx(x), xmm7);
        }
        (_, false) => lanes!(e, z; psraw psrad; Rx(x), k),
    }
}

/// `x >>= n` to nearest, halves up: the last bit shifted out is added.
pub(super) fn rshr(e: &mut Emitter, z: u32, unsigned: bool, x: u8, n: u32) {
    let bits = 8 << z;
    x!(e; movdqa xmm5, Rx(x));
    if z == 0 {
        x!(e; psrlw xmm5, (n - 1) as i8);
        and_k(e, 5, splat(0, 1));
    } else {
        shl(e, z, 5, bits - n);
        shr(e, z, true, 5, bits - 1);
    }
    shr(e, z, unsigned, x, n);
    add(e, z, x, 5);
}

/// `x = x < 0 ? -1 : 0`.
pub(super) fn sign(e: &mut Emitter, z: u32, x: u8) {
    match z {
        0 => x!(e; pxor xmm7, xmm7 ; pcmpgtb xmm7, Rx(x) ; movdqa Rx(x), xmm7),
        1 => x!(e; psraw Rx(x), 15),
        2 => x!(e; psrad Rx(x), 31),
        _ => x!(e; psrad Rx(x), 31 ; pshufd Rx(x), Rx(x), 0xf5u8 as i8),
    }
}

/// `x = |x|`, wrapping.
pub(super) fn abs(e: &mut Emitter, z: u32, x: u8) {
    x!(e; movdqa xmm5, Rx(x));
    sign(e, z, 5);
    x!(e; pxor Rx(x), xmm5);
    sub(e, z, x, 5);
}

/// `x = -x`, through `xmm5`.
pub(super) fn neg(e: &mut Emitter, z: u32, x: u8) {
    x!(e; pxor xmm5, xmm5);
    sub(e, z, 5, x);
    x!(e; movdqa Rx(x), xmm5);
}

/// `a = mask ? a : b`; clobbers the mask.
pub(super) fn select(e: &mut Emitter, mask: u8, a: u8, b: u8) {
    x!(e; pand Rx(a), Rx(mask) ; pandn Rx(mask), Rx(b) ; por Rx(a), Rx(mask));
}

/// `a = max(a, b)` or `min`, 8 to 32 bits.
pub(super) fn extreme(e: &mut Emitter, z: u32, unsigned: bool, max: bool, a: u8, b: u8) {
    let sse41 = e.features.sse41;
    match (z, unsigned, max) {
        (0, true, true) => x!(e; pmaxub Rx(a), Rx(b)),
        (0, true, false) => x!(e; pminub Rx(a), Rx(b)),
        (1, false, true) => x!(e; pmaxsw Rx(a), Rx(b)),
        (1, false, false) => x!(e; pminsw Rx(a), Rx(b)),
        (0, false, true) if sse41 => x!(e; pmaxsb Rx(a), Rx(b)),
        (0, false, false) if sse41 => x!(e; pminsb Rx(a), Rx(b)),
        (1, true, true) if sse41 => x!(e; pmaxuw Rx(a), Rx(b)),
        (1, true, false) if sse41 => x!(e; pminuw Rx(a), Rx(b)),
        (2, false, true) if sse41 => x!(e; pmaxsd Rx(a), Rx(b)),
        (2, false, false) if sse41 => x!(e; pminsd Rx(a), Rx(b)),
        (2, true, true) if sse41 => x!(e; pmaxud Rx(a), Rx(b)),
        (2, true, false) if sse41 => x!(e; pminud Rx(a), Rx(b)),
        _ => {
            let (p, q) = if max { (a, b) } else { (b, a) };
            x!(e; movdqa xmm4, Rx(p) ; movdqa xmm5, Rx(q));
            cgt(e, z, unsigned, 4, 5);
            select(e, 4, a, b);
        }
    }
}

/// `a *= b`, 8 to 32 bits; clobbers `b`.
pub(super) fn mul(e: &mut Emitter, z: u32, a: u8, b: u8) {
    match z {
        0 => {
            x!(e
                ; movdqa xmm4, Rx(a) ; pmullw xmm4, Rx(b) ; psllw xmm4, 8 ; psrlw xmm4, 8
                ; psrlw Rx(a), 8 ; psrlw Rx(b), 8 ; pmullw Rx(a), Rx(b) ; psllw Rx(a), 8 ; por Rx(a), xmm4
            );
        }
        1 => x!(e; pmullw Rx(a), Rx(b)),
        _ if e.features.sse41 => x!(e; pmulld Rx(a), Rx(b)),
        _ => {
            x!(e
                ; movdqa xmm4, Rx(a) ; pmuludq xmm4, Rx(b) ; psrlq Rx(a), 32 ; psrlq Rx(b), 32 ; pmuludq Rx(a), Rx(b)
                ; pshufd xmm4, xmm4, 8 ; pshufd xmm5, Rx(a), 8 ; punpckldq xmm4, xmm5 ; movdqa Rx(a), xmm4
            );
        }
    }
}

/// Extends the lanes of the low half of `x` to twice their size.
pub(super) fn extend(e: &mut Emitter, z: u32, unsigned: bool, x: u8) {
    match (z, unsigned) {
        (0, false) => x!(e; punpcklbw Rx(x), Rx(x) ; psraw Rx(x), 8),
        (1, false) => x!(e; punpcklwd Rx(x), Rx(x) ; psrad Rx(x), 16),
        (_, false) => x!(e; movdqa xmm4, Rx(x) ; psrad xmm4, 31 ; punpckldq Rx(x), xmm4),
        (_, true) => {
            x!(e; pxor xmm4, xmm4);
            lanes!(e, z; punpcklbw punpcklwd punpckldq; Rx(x), xmm4);
        }
    }
}

/// Packs the low halves of the wide lanes of `lo` and `hi` into `lo`; `z` is the narrow size. `hi` may be `lo`; it is clobbered.
pub(super) fn pack(e: &mut Emitter, z: u32, lo: u8, hi: u8) {
    match z {
        0 => {
            konst(e, 7, splat(1, 0xff));
            x!(e; pand Rx(lo), xmm7);
            if hi != lo {
                x!(e; pand Rx(hi), xmm7);
            }
            x!(e; packuswb Rx(lo), Rx(hi));
        }
        1 => {
            x!(e; pslld Rx(lo), 16 ; psrad Rx(lo), 16);
            if hi != lo {
                x!(e; pslld Rx(hi), 16 ; psrad Rx(hi), 16);
            }
            x!(e; packssdw Rx(lo), Rx(hi));
        }
        _ => x!(e; shufps Rx(lo), Rx(hi), 0x88u8 as i8),
    }
}

/// Packs the high halves of the wide lanes of `lo` and `hi` into `lo`; clobbers `hi`, which must be another register.
pub(super) fn pack_high(e: &mut Emitter, z: u32, lo: u8, hi: u8) {
    match z {
        0 => x!(e; psrlw Rx(lo), 8 ; psrlw Rx(hi), 8 ; packuswb Rx(lo), Rx(hi)),
        1 => x!(e; psrad Rx(lo), 16 ; psrad Rx(hi), 16 ; packssdw Rx(lo), Rx(hi)),
        _ => x!(e; shufps Rx(lo), Rx(hi), 0xddu8 as i8),
    }
}

/// Sets QC, out of line, if any bit of `x`'s bytes' signs is set; lanes must be all ones or zero.
pub(super) fn qc_if_any(e: &mut Emitter, x: u8) {
    x!(e; pmovmskb eax, Rx(x) ; test eax, eax);
    qc(e);
}

/// Sets QC, out of line, unless `a` and `b` are the same; clobbers `a`.
pub(super) fn qc_unless_equal(e: &mut Emitter, a: u8, b: u8) {
    x!(e; pcmpeqb Rx(a), Rx(b) ; pmovmskb eax, Rx(a) ; cmp eax, 0xffff);
    qc(e);
}

fn qc(e: &mut Emitter) {
    let (set, back) = (e.label(), e.label());
    x!(e; jne =>set);
    e.place(back);
    e.cold(move |e| {
        e.place(set);
        x!(e; or DWORD [rbp + fpscr()], Fpscr::QC as i32 ; jmp =>back);
    });
}

/// The lane `b` of D register `m` in all lanes, for operations by a scalar: bit 7 says 32-bit lanes, else 16.
pub(super) fn scalar(e: &mut Emitter, x: u8, m: u32, b: u32) {
    if b & 0x80 != 0 { dup(e, x, 2, m, b & 1) } else { dup(e, x, 1, m, b & 3) }
}

/// Lane `l` of D register `m` in all lanes.
pub(super) fn dup(e: &mut Emitter, x: u8, z: u32, m: u32, l: u32) {
    let at = ext(2 * m) + (l << z) as i32;
    if e.features.avx2 {
        match z {
            0 => x!(e; vpbroadcastb Rx(x), BYTE [rbp + at]),
            1 => x!(e; vpbroadcastw Rx(x), WORD [rbp + at]),
            _ => x!(e; vpbroadcastd Rx(x), DWORD [rbp + at]),
        }
        return;
    }
    match z {
        0 => x!(e; movzx eax, BYTE [rbp + at]),
        1 => x!(e; movzx eax, WORD [rbp + at]),
        _ => x!(e; mov eax, [rbp + at]),
    }
    dup_eax(e, x, z);
}

/// The low lane of `eax` in all lanes.
pub(super) fn dup_eax(e: &mut Emitter, x: u8, z: u32) {
    x!(e; movd Rx(x), eax);
    if z == 0 {
        x!(e; punpcklbw Rx(x), Rx(x));
    }
    if z < 2 {
        x!(e; pshuflw Rx(x), Rx(x), 0);
    }
    x!(e; pshufd Rx(x), Rx(x), 0);
}
