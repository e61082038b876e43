//! Integer, saturating and polynomial lanes of Advanced SIMD (ARM DDI 0406C A8.8, "V..." instructions), on 64-bit vectors.
//!
//! Lane `i` of a vector with `E`-bit lanes is bits `i*E .. i*E+E`. `U` says that lanes are unsigned. A quadword instruction applies
//! a function to both halves; long ones return two doublewords, narrow ones take two.

use super::fpscr::Fpscr;

/// The low `E` bits.
#[inline(always)]
pub const fn mask<const E: u32>() -> u64 {
    u64::MAX >> (64 - E)
}

/// Lane `i`, zero-extended.
#[inline(always)]
pub fn lane<const E: u32>(v: u64, i: u32) -> u64 {
    v >> (i * E) & mask::<E>()
}

/// Lane `i` as a number: lanes are at most 64 bits, so `i128` holds every intermediate result.
#[inline(always)]
fn num<const E: u32, const U: bool>(v: u64, i: u32) -> i128 {
    widen::<E, U>(lane::<E>(v, i))
}

#[inline(always)]
fn widen<const E: u32, const U: bool>(x: u64) -> i128 {
    if U { x as i128 } else { ((x << (64 - E)) as i64 >> (64 - E)) as i128 }
}

/// Lane `i` of 32 bits or fewer as a number.
#[inline(always)]
fn small<const E: u32, const U: bool>(v: u64, i: u32) -> i64 {
    let x = lane::<E>(v, i);
    if U { x as i64 } else { (x << (64 - E)) as i64 >> (64 - E) }
}

/// Builds a vector from its lanes.
#[inline(always)]
pub fn build<const E: u32>(mut f: impl FnMut(u32) -> u64) -> u64 {
    let mut out = 0;
    for i in 0..64 / E {
        out |= (f(i) & mask::<E>()) << (i * E);
    }
    out
}

/// Clamps to `E` bits and raises QC if that changed the value.
#[inline(always)]
fn sat<const E: u32, const U: bool>(x: i128, s: &mut Fpscr) -> u64 {
    let (lo, hi) = if U { (0, (1i128 << E) - 1) } else { (-(1i128 << (E - 1)), (1i128 << (E - 1)) - 1) };
    let y = x.clamp(lo, hi);
    if y != x {
        s.raise(Fpscr::QC);
    }
    y as u64
}

/// As [`sat`] for values that fit 64 bits, lanes of 32 bits or fewer.
#[inline(always)]
fn sat_small<const E: u32, const U: bool>(x: i64, s: &mut Fpscr) -> u64 {
    let (lo, hi) = if U { (0, mask::<E>() as i64) } else { (-(1i64 << (E - 1)), (1i64 << (E - 1)) - 1) };
    let y = x.clamp(lo, hi);
    s.0 |= u32::from(y != x) * Fpscr::QC;
    y as u64
}

/// Copies an `E`-bit value into every lane.
#[inline]
pub fn dup<const E: u32>(x: u64) -> u64 {
    build::<E>(|_| x)
}

/// VADD.
#[inline]
pub fn add<const E: u32>(n: u64, m: u64) -> u64 {
    build::<E>(|i| lane::<E>(n, i).wrapping_add(lane::<E>(m, i)))
}

/// VSUB.
#[inline]
pub fn sub<const E: u32>(n: u64, m: u64) -> u64 {
    build::<E>(|i| lane::<E>(n, i).wrapping_sub(lane::<E>(m, i)))
}

/// VMUL.
#[inline]
pub fn mul<const E: u32>(n: u64, m: u64) -> u64 {
    build::<E>(|i| lane::<E>(n, i).wrapping_mul(lane::<E>(m, i)))
}

/// VMLA.
#[inline]
pub fn mla<const E: u32>(d: u64, n: u64, m: u64) -> u64 {
    add::<E>(d, mul::<E>(n, m))
}

/// VMLS.
#[inline]
pub fn mls<const E: u32>(d: u64, n: u64, m: u64) -> u64 {
    sub::<E>(d, mul::<E>(n, m))
}

/// VABA.
#[inline]
pub fn aba<const E: u32, const U: bool>(d: u64, n: u64, m: u64) -> u64 {
    add::<E>(d, abd::<E, U>(n, m))
}

/// VSRA #n, or VRSRA when `R` (1 <= n <= E).
#[inline]
pub fn sra<const E: u32, const U: bool, const R: bool>(d: u64, m: u64, n: u32) -> u64 {
    add::<E>(d, shr::<E, U, R>(m, n))
}

/// VHADD, or VRHADD when `R`.
#[inline]
pub fn hadd<const E: u32, const U: bool, const R: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| ((small::<E, U>(n, i) + small::<E, U>(m, i) + R as i64) >> 1) as u64)
}

/// VHSUB.
#[inline]
pub fn hsub<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| ((small::<E, U>(n, i) - small::<E, U>(m, i)) >> 1) as u64)
}

/// VQADD.
#[inline]
pub fn qadd<const E: u32, const U: bool>(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    if E == 64 {
        return sat::<E, U>(num::<E, U>(n, 0) + num::<E, U>(m, 0), s);
    }
    build::<E>(|i| sat_small::<E, U>(small::<E, U>(n, i) + small::<E, U>(m, i), s))
}

/// VQSUB.
#[inline]
pub fn qsub<const E: u32, const U: bool>(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    if E == 64 {
        return sat::<E, U>(num::<E, U>(n, 0) - num::<E, U>(m, 0), s);
    }
    build::<E>(|i| sat_small::<E, U>(small::<E, U>(n, i) - small::<E, U>(m, i), s))
}

#[inline(always)]
fn flag(c: bool) -> u64 {
    if c { u64::MAX } else { 0 }
}

/// VCGT (register).
#[inline]
pub fn cgt<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| flag(small::<E, U>(n, i) > small::<E, U>(m, i)))
}

/// VCGE (register).
#[inline]
pub fn cge<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| flag(small::<E, U>(n, i) >= small::<E, U>(m, i)))
}

/// VCEQ (register).
#[inline]
pub fn ceq<const E: u32>(n: u64, m: u64) -> u64 {
    build::<E>(|i| flag(lane::<E>(n, i) == lane::<E>(m, i)))
}

/// VCGT #0.
#[inline]
pub fn cgt0<const E: u32>(m: u64) -> u64 {
    cgt::<E, false>(m, 0)
}

/// VCGE #0.
#[inline]
pub fn cge0<const E: u32>(m: u64) -> u64 {
    cge::<E, false>(m, 0)
}

/// VCEQ #0.
#[inline]
pub fn ceq0<const E: u32>(m: u64) -> u64 {
    ceq::<E>(m, 0)
}

/// VCLE #0.
#[inline]
pub fn cle0<const E: u32>(m: u64) -> u64 {
    cge::<E, false>(0, m)
}

/// VCLT #0.
#[inline]
pub fn clt0<const E: u32>(m: u64) -> u64 {
    cgt::<E, false>(0, m)
}

/// VTST.
#[inline]
pub fn tst<const E: u32>(n: u64, m: u64) -> u64 {
    build::<E>(|i| flag(lane::<E>(n & m, i) != 0))
}

/// VMAX.
#[inline]
pub fn max<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| small::<E, U>(n, i).max(small::<E, U>(m, i)) as u64)
}

/// VMIN.
#[inline]
pub fn min<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| small::<E, U>(n, i).min(small::<E, U>(m, i)) as u64)
}

/// VABD.
#[inline]
pub fn abd<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| (small::<E, U>(n, i) - small::<E, U>(m, i)).unsigned_abs())
}

/// The pairs of the two vectors, one after the other, each joined by `f`.
#[inline(always)]
fn pairs<const E: u32>(n: u64, m: u64, f: impl Fn(u64, u32) -> u64) -> u64 {
    let half = 32 / E;
    build::<E>(|i| if i < half { f(n, 2 * i) } else { f(m, 2 * (i - half)) })
}

/// VPADD.
#[inline]
pub fn padd<const E: u32>(n: u64, m: u64) -> u64 {
    pairs::<E>(n, m, |v, i| lane::<E>(v, i).wrapping_add(lane::<E>(v, i + 1)))
}

/// VPMAX.
#[inline]
pub fn pmax<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    pairs::<E>(n, m, |v, i| small::<E, U>(v, i).max(small::<E, U>(v, i + 1)) as u64)
}

/// VPMIN.
#[inline]
pub fn pmin<const E: u32, const U: bool>(n: u64, m: u64) -> u64 {
    pairs::<E>(n, m, |v, i| small::<E, U>(v, i).min(small::<E, U>(v, i + 1)) as u64)
}

/// VQDMULH, or VQRDMULH when `R`.
#[inline]
pub fn qdmulh<const E: u32, const R: bool>(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    build::<E>(|i| {
        let p = 2 * num::<E, false>(n, i) * num::<E, false>(m, i) + if R { 1 << (E - 1) } else { 0 };
        sat::<E, false>(p >> E, s)
    })
}

/// VMUL.P8: carry-less product, low halves.
#[inline]
pub fn pmul(n: u64, m: u64) -> u64 {
    build::<8>(|i| clmul8(lane::<8>(n, i), lane::<8>(m, i)))
}

#[inline(always)]
fn clmul8(a: u64, b: u64) -> u64 {
    (0..8).fold(0, |r, i| if b >> i & 1 != 0 { r ^ a << i } else { r })
}

/// `x * 2^sh`, rounded if `R`. `sh` is a register shift amount, -128 to 127; exact, as `i128` has room for 64 bits shifted by 63, and
/// further left shifts are cut at a place that still saturates.
#[inline(always)]
fn shifted<const E: u32, const R: bool>(x: i128, sh: i32) -> i128 {
    if sh >= 0 {
        // E = 64: 64 + 63 bits would overflow; a shift of 62 already leaves any 64-bit range unless the value is zero or the
        // exact shift is below 64 (handled by the callers that truncate).
        x << sh.min(62)
    } else {
        let n = -sh;
        if n > 66 { if R || x >= 0 { 0 } else { -1 } } else { (x + if R { 1i128 << (n - 1) } else { 0 }) >> n }
    }
}

/// As [`shifted`] for lanes of 32 bits or fewer (`sh` < 32).
#[inline(always)]
fn shifted_small<const R: bool>(x: i64, sh: i32) -> i64 {
    if sh >= 0 {
        x << sh
    } else {
        // Beyond 40 every bit of the lane and of the rounding constant is gone.
        let n = (-sh).min(40);
        (x + if R { 1i64 << (n - 1) } else { 0 }) >> n
    }
}

/// VSHL (register), or VRSHL when `R`: the shift is the signed low byte of the lane of `m`.
#[inline]
pub fn shl_reg<const E: u32, const U: bool, const R: bool>(n: u64, m: u64) -> u64 {
    build::<E>(|i| {
        let sh = lane::<E>(m, i) as i8 as i32;
        if sh >= E as i32 {
            0
        } else if sh >= 0 {
            lane::<E>(n, i) << sh
        } else {
            shift_lane::<E, U, R>(n, i, sh)
        }
    })
}

/// Lane `i` shifted, `sh` < E.
#[inline(always)]
fn shift_lane<const E: u32, const U: bool, const R: bool>(v: u64, i: u32, sh: i32) -> u64 {
    if E == 64 {
        shifted::<E, R>(num::<E, U>(v, i), sh) as u64
    } else {
        shifted_small::<R>(small::<E, U>(v, i), sh) as u64
    }
}

/// VQSHL (register), or VQRSHL when `R`.
#[inline]
pub fn qshl_reg<const E: u32, const U: bool, const R: bool>(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    build::<E>(|i| qshl_one::<E, U, R>(num::<E, U>(n, i), lane::<E>(m, i) as i8 as i32, s))
}

/// One saturating shift.
#[inline(always)]
fn qshl_one<const E: u32, const U: bool, const R: bool>(x: i128, sh: i32, s: &mut Fpscr) -> u64 {
    if sh >= E as i32 {
        // Past the lane: zero stays zero, all else saturates.
        let far = x.signum() << E;
        return sat::<E, U>(far, s);
    }
    if E < 64 {
        return sat_small::<E, U>(shifted_small::<R>(x as i64, sh), s);
    }
    // For 63 the value may need 127 bits: two steps keep it inside i128 without changing what saturates.
    if sh == 63 {
        let y = x << 62;
        let big = 1i128 << 100;
        return sat::<E, U>(if y.unsigned_abs() >= big as u128 { y.signum() * big } else { y << 1 }, s);
    }
    sat::<E, U>(shifted::<E, R>(x, sh), s)
}

/// VSHR #n, or VRSHR when `R` (1 <= n <= E).
#[inline]
pub fn shr<const E: u32, const U: bool, const R: bool>(m: u64, n: u32) -> u64 {
    build::<E>(|i| shift_lane::<E, U, R>(m, i, -(n as i32)))
}

/// VSHL #n (0 <= n < E).
#[inline]
pub fn shl<const E: u32>(m: u64, n: u32) -> u64 {
    build::<E>(|i| lane::<E>(m, i) << n)
}

/// VSRI #n (1 <= n <= E): inserts `m >> n` into `d`.
#[inline]
pub fn sri<const E: u32>(d: u64, m: u64, n: u32) -> u64 {
    let keep = if n >= E { mask::<E>() } else { !(mask::<E>() >> n) & mask::<E>() };
    build::<E>(|i| lane::<E>(d, i) & keep | if n >= E { 0 } else { lane::<E>(m, i) >> n })
}

/// VSLI #n (0 <= n < E): inserts `m << n` into `d`.
#[inline]
pub fn sli<const E: u32>(d: u64, m: u64, n: u32) -> u64 {
    build::<E>(|i| lane::<E>(d, i) & ((1 << n) - 1) | lane::<E>(m, i) << n)
}

/// VQSHL #n.
#[inline]
pub fn qshl<const E: u32, const U: bool>(m: u64, n: u32, s: &mut Fpscr) -> u64 {
    build::<E>(|i| qshl_one::<E, U, false>(num::<E, U>(m, i), n as i32, s))
}

/// VQSHLU #n: signed in, unsigned out.
#[inline]
pub fn qshlu<const E: u32>(m: u64, n: u32, s: &mut Fpscr) -> u64 {
    build::<E>(|i| qshl_one::<E, true, false>(num::<E, false>(m, i), n as i32, s))
}

/// Lane `i` of a quadword that is given as two doublewords.
#[inline(always)]
fn qlane<const E: u32>(v: [u64; 2], i: u32) -> u64 {
    let per = 64 / E;
    lane::<E>(v[(i / per) as usize], i % per)
}

macro_rules! width_dispatch {
    ($(#[$doc:meta])* $name:ident, $body:ident $(, $g:ident)*) => {
        $(#[$doc])*
        #[inline]
        pub fn $name<const E: u32 $(, const $g: bool)*>(m: [u64; 2], n: u32) -> u64 {
            match E {
                8 => $body::<8, 16 $(, $g)*>(m, n),
                16 => $body::<16, 32 $(, $g)*>(m, n),
                _ => $body::<32, 64 $(, $g)*>(m, n),
            }
        }
    };
}

fn shrn_at<const E: u32, const W: u32, const R: bool>(m: [u64; 2], n: u32) -> u64 {
    build::<E>(|i| {
        let x = qlane::<W>(m, i);
        if W == 64 {
            shifted::<W, R>(x as i128, -(n as i32)) as u64
        } else {
            shifted_small::<R>(x as i64, -(n as i32)) as u64
        }
    })
}
width_dispatch! {
    /// VSHRN #n, or VRSHRN when `R`; `E` is the width of the narrow lanes.
    shrn, shrn_at, R
}

/// Narrows with saturation: `SU` signed source, `DU` unsigned destination.
fn qshrn_at<const E: u32, const W: u32, const SU: bool, const DU: bool, const R: bool>(
    m: [u64; 2],
    n: u32,
    s: &mut Fpscr,
) -> u64 {
    build::<E>(|i| {
        if W < 64 {
            let x = widen::<W, SU>(qlane::<W>(m, i)) as i64;
            return sat_small::<E, DU>(if n == 0 { x } else { shifted_small::<R>(x, -(n as i32)) }, s);
        }
        let x = widen::<W, SU>(qlane::<W>(m, i));
        sat::<E, DU>(if n == 0 { x } else { shifted::<W, R>(x, -(n as i32)) }, s)
    })
}

/// VQSHRN, VQSHRUN and (when `R`) VQRSHRN, VQRSHRUN #n; with `n` = 0 VQMOVN and VQMOVUN. `SU`: the wide lanes are unsigned;
/// `DU`: the narrow ones are. `E` is the narrow width.
#[inline]
pub fn qshrn<const E: u32, const SU: bool, const DU: bool, const R: bool>(m: [u64; 2], n: u32, s: &mut Fpscr) -> u64 {
    match E {
        8 => qshrn_at::<8, 16, SU, DU, R>(m, n, s),
        16 => qshrn_at::<16, 32, SU, DU, R>(m, n, s),
        _ => qshrn_at::<32, 64, SU, DU, R>(m, n, s),
    }
}

/// VMOVN: the low halves; `E` is the narrow width.
#[inline]
pub fn movn<const E: u32>(m: [u64; 2]) -> u64 {
    narrow::<E>(m, |x| x)
}

/// Maps the wide lanes to narrow ones.
#[inline(always)]
fn narrow<const E: u32>(m: [u64; 2], f: impl Fn(u64) -> u64) -> u64 {
    let half = 32 / E;
    build::<E>(|i| {
        let v = m[(i / half) as usize] >> (i % half * 2 * E);
        f(if E == 32 { v } else { v & ((1 << (2 * E)) - 1) })
    })
}

/// Makes two vectors with lanes of 2`E` bits from a function of the `E`-bit lane number.
#[inline(always)]
fn long<const E: u32>(f: impl Fn(u32) -> u64) -> [u64; 2] {
    let half = 32 / E;
    let m = if E == 32 { u64::MAX } else { (1 << (2 * E)) - 1 };
    let part = |base: u32| (0..half).fold(0, |r, i| r | (f(base + i) & m) << (i * 2 * E));
    [part(0), part(half)]
}

/// Adds the wide lanes of two quadwords.
#[inline(always)]
fn wide2<const E: u32>(a: [u64; 2], b: [u64; 2], f: impl Fn(u64, u64) -> u64) -> [u64; 2] {
    let half = 32 / E;
    let m = if E == 32 { u64::MAX } else { (1 << (2 * E)) - 1 };
    let part = |h: usize| {
        (0..half).fold(0, |r, i| {
            let sh = i * 2 * E;
            r | (f(a[h] >> sh & m, b[h] >> sh & m) & m) << sh
        })
    };
    [part(0), part(1)]
}

/// VMOVL, VSHLL #n.
#[inline]
pub fn shll<const E: u32, const U: bool>(m: u64, n: u32) -> [u64; 2] {
    long::<E>(|i| (small::<E, U>(m, i) as u64) << n)
}

/// VADDL.
#[inline]
pub fn addl<const E: u32, const U: bool>(n: u64, m: u64) -> [u64; 2] {
    long::<E>(|i| (small::<E, U>(n, i) + small::<E, U>(m, i)) as u64)
}

/// VSUBL.
#[inline]
pub fn subl<const E: u32, const U: bool>(n: u64, m: u64) -> [u64; 2] {
    long::<E>(|i| (small::<E, U>(n, i) - small::<E, U>(m, i)) as u64)
}

/// VADDW.
#[inline]
pub fn addw<const E: u32, const U: bool>(n: [u64; 2], m: u64) -> [u64; 2] {
    wide2::<E>(n, shll::<E, U>(m, 0), u64::wrapping_add)
}

/// VSUBW.
#[inline]
pub fn subw<const E: u32, const U: bool>(n: [u64; 2], m: u64) -> [u64; 2] {
    wide2::<E>(n, shll::<E, U>(m, 0), u64::wrapping_sub)
}

/// VADDHN, or VRADDHN when `R`; `E` is the narrow width.
#[inline]
pub fn addhn<const E: u32, const R: bool>(n: [u64; 2], m: [u64; 2]) -> u64 {
    let round = if R { 1 << (E - 1) } else { 0 };
    narrow::<E>(wide2::<E>(n, m, |a, b| a.wrapping_add(b).wrapping_add(round)), |x| x >> E)
}

/// VSUBHN, or VRSUBHN when `R`.
#[inline]
pub fn subhn<const E: u32, const R: bool>(n: [u64; 2], m: [u64; 2]) -> u64 {
    let round = if R { 1 << (E - 1) } else { 0 };
    narrow::<E>(wide2::<E>(n, m, |a, b| a.wrapping_sub(b).wrapping_add(round)), |x| x >> E)
}

/// VABDL.
#[inline]
pub fn abdl<const E: u32, const U: bool>(n: u64, m: u64) -> [u64; 2] {
    long::<E>(|i| (small::<E, U>(n, i) - small::<E, U>(m, i)).unsigned_abs())
}

/// VABAL.
#[inline]
pub fn abal<const E: u32, const U: bool>(d: [u64; 2], n: u64, m: u64) -> [u64; 2] {
    wide2::<E>(d, abdl::<E, U>(n, m), u64::wrapping_add)
}

/// VMULL.
#[inline]
pub fn mull<const E: u32, const U: bool>(n: u64, m: u64) -> [u64; 2] {
    long::<E>(|i| (small::<E, U>(n, i) as u64).wrapping_mul(small::<E, U>(m, i) as u64))
}

/// VMLAL.
#[inline]
pub fn mlal<const E: u32, const U: bool>(d: [u64; 2], n: u64, m: u64) -> [u64; 2] {
    wide2::<E>(d, mull::<E, U>(n, m), u64::wrapping_add)
}

/// VMLSL.
#[inline]
pub fn mlsl<const E: u32, const U: bool>(d: [u64; 2], n: u64, m: u64) -> [u64; 2] {
    wide2::<E>(d, mull::<E, U>(n, m), u64::wrapping_sub)
}

/// VMULL.P8.
#[inline]
pub fn pmull(n: u64, m: u64) -> [u64; 2] {
    long::<8>(|i| clmul8(lane::<8>(n, i), lane::<8>(m, i)))
}

fn qdmull_at<const E: u32, const W: u32>(n: u64, m: u64, s: &mut Fpscr) -> [u64; 2] {
    let mut part =
        |base: u32| build::<W>(|i| sat::<W, false>(2 * num::<E, false>(n, base + i) * num::<E, false>(m, base + i), s));
    [part(0), part(64 / W)]
}

/// VQDMULL; `E` is 16 or 32.
#[inline]
pub fn qdmull<const E: u32>(n: u64, m: u64, s: &mut Fpscr) -> [u64; 2] {
    if E == 16 { qdmull_at::<16, 32>(n, m, s) } else { qdmull_at::<32, 64>(n, m, s) }
}

/// VQDMLAL: two saturations, of the product and of the sum.
#[inline]
pub fn qdmlal<const E: u32>(d: [u64; 2], n: u64, m: u64, s: &mut Fpscr) -> [u64; 2] {
    let p = qdmull::<E>(n, m, s);
    if E == 16 {
        [qadd::<32, false>(d[0], p[0], s), qadd::<32, false>(d[1], p[1], s)]
    } else {
        [qadd::<64, false>(d[0], p[0], s), qadd::<64, false>(d[1], p[1], s)]
    }
}

/// VQDMLSL.
#[inline]
pub fn qdmlsl<const E: u32>(d: [u64; 2], n: u64, m: u64, s: &mut Fpscr) -> [u64; 2] {
    let p = qdmull::<E>(n, m, s);
    if E == 16 {
        [qsub::<32, false>(d[0], p[0], s), qsub::<32, false>(d[1], p[1], s)]
    } else {
        [qsub::<64, false>(d[0], p[0], s), qsub::<64, false>(d[1], p[1], s)]
    }
}

/// VREV: reverses the `E`-bit lanes inside each `G`-bit group.
#[inline]
pub fn rev<const E: u32, const G: u32>(m: u64) -> u64 {
    let flip = G / E - 1;
    build::<E>(|i| lane::<E>(m, i ^ flip))
}

/// VPADDL: `E` is the narrow width.
#[inline]
pub fn paddl<const E: u32, const U: bool>(m: u64) -> u64 {
    padal::<E, U>(0, m)
}

/// VPADAL.
#[inline]
pub fn padal<const E: u32, const U: bool>(d: u64, m: u64) -> u64 {
    let w = 2 * E;
    let wm = if E == 32 { u64::MAX } else { (1 << w) - 1 };
    (0..32 / E).fold(0, |r, i| {
        let p = small::<E, U>(m, 2 * i) + small::<E, U>(m, 2 * i + 1);
        r | ((d >> (i * w)).wrapping_add(p as u64) & wm) << (i * w)
    })
}

/// VCLS: leading sign bits less one.
#[inline]
pub fn cls<const E: u32>(m: u64) -> u64 {
    build::<E>(|i| {
        let x = small::<E, false>(m, i);
        ((x ^ x >> 63) as u64).leading_zeros() as u64 - (64 - E as u64) - 1
    })
}

/// VCLZ.
#[inline]
pub fn clz<const E: u32>(m: u64) -> u64 {
    build::<E>(|i| lane::<E>(m, i).leading_zeros() as u64 - (64 - E as u64))
}

/// VCNT.8.
#[inline]
pub fn cnt(m: u64) -> u64 {
    build::<8>(|i| lane::<8>(m, i).count_ones() as u64)
}

/// VABS (integer).
#[inline]
pub fn abs<const E: u32>(m: u64) -> u64 {
    build::<E>(|i| small::<E, false>(m, i).unsigned_abs())
}

/// VNEG (integer).
#[inline]
pub fn neg<const E: u32>(m: u64) -> u64 {
    build::<E>(|i| lane::<E>(m, i).wrapping_neg())
}

/// VQABS.
#[inline]
pub fn qabs<const E: u32>(m: u64, s: &mut Fpscr) -> u64 {
    build::<E>(|i| sat::<E, false>(num::<E, false>(m, i).abs(), s))
}

/// VQNEG.
#[inline]
pub fn qneg<const E: u32>(m: u64, s: &mut Fpscr) -> u64 {
    build::<E>(|i| sat::<E, false>(-num::<E, false>(m, i), s))
}

/// VTRN on one pair of doublewords: the new (d, m).
#[inline]
pub fn trn<const E: u32>(d: u64, m: u64) -> (u64, u64) {
    let nd = build::<E>(|i| if i & 1 == 0 { lane::<E>(d, i) } else { lane::<E>(m, i - 1) });
    let nm = build::<E>(|i| if i & 1 == 0 { lane::<E>(d, i + 1) } else { lane::<E>(m, i) });
    (nd, nm)
}

/// Spreads the `E`-bit lanes of a word to twice their distance.
#[inline(always)]
fn spread<const E: u32>(x: u64) -> u64 {
    let mut x = x & 0xffff_ffff;
    if E <= 16 {
        x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    }
    if E <= 8 {
        x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    }
    x
}

/// The inverse of [`spread`]: the even lanes, together.
#[inline(always)]
fn gather<const E: u32>(mut x: u64) -> u64 {
    if E <= 8 {
        x &= 0x00ff_00ff_00ff_00ff;
        x |= x >> 8;
    }
    if E <= 16 {
        x &= 0x0000_ffff_0000_ffff;
        x |= x >> 16;
    }
    x & 0xffff_ffff
}

/// VUZP over vectors of `N` (1 or 2) doublewords: the new (d, m).
#[inline]
pub fn uzp<const E: u32, const N: usize>(d: [u64; N], m: [u64; N]) -> ([u64; N], [u64; N]) {
    let all = |i: usize| if i < N { d[i] } else { m[i - N] };
    let take = |odd: u32| {
        let half = |i: usize| gather::<E>(all(i) >> (odd * E));
        std::array::from_fn(|w| half(2 * w) | half(2 * w + 1) << 32)
    };
    (take(0), take(1))
}

/// VZIP over vectors of `N` (1 or 2) doublewords: the new (d, m).
#[inline]
pub fn zip<const E: u32, const N: usize>(d: [u64; N], m: [u64; N]) -> ([u64; N], [u64; N]) {
    // Word w of the 2N results takes the w-th half-doubleword of each operand.
    let word = |w: usize| {
        let (x, y) = (d[w / 2] >> (32 * (w & 1)), m[w / 2] >> (32 * (w & 1)));
        spread::<E>(x) | spread::<E>(y) << E
    };
    (std::array::from_fn(word), std::array::from_fn(|w| word(w + N)))
}

/// VEXT: the doubleword at byte offset `byte` (0 to 7) of `hi:lo`.
#[inline]
pub fn ext(lo: u64, hi: u64, byte: u32) -> u64 {
    if byte == 0 { lo } else { lo >> (8 * byte) | hi << (64 - 8 * byte) }
}

/// VTBL (`fallback` zero) and VTBX (`fallback` the old destination): looks bytes up in a table of doublewords.
#[inline]
pub fn tbl(table: &[u64], index: u64, fallback: u64) -> u64 {
    build::<8>(|i| {
        let x = lane::<8>(index, i);
        match table.get((x / 8) as usize) {
            Some(&t) => lane::<8>(t, x as u32 & 7),
            None => lane::<8>(fallback, i),
        }
    })
}

/// `AdvSIMDExpandImm` (A7.4.6): `None` where the manual says UNDEFINED.
pub fn expand_imm(op: bool, cmode: u32, imm8: u32) -> Option<u64> {
    let v = imm8 as u64;
    Some(match cmode >> 1 {
        n @ 0..=3 => dup::<32>(v << (8 * n)),
        n @ 4..=5 => dup::<16>(v << (8 * (n - 4))),
        6 if cmode & 1 == 0 => dup::<32>(v << 8 | 0xff),
        6 => dup::<32>(v << 16 | 0xffff),
        _ => match (cmode & 1, op) {
            (0, false) => dup::<8>(v),
            (0, true) => build::<8>(|i| flag(v >> i & 1 != 0)),
            (_, false) => dup::<32>(vfp_imm_single(imm8) as u64),
            _ => return None,
        },
    })
}

/// `VFPExpandImm` for single precision.
pub fn vfp_imm_single(imm8: u32) -> u32 {
    let b = imm8 >> 6 & 1;
    (imm8 & 0x80) << 24 | (b ^ 1) << 30 | (b * 0x1f) << 25 | (imm8 & 0x3f) << 19
}

/// `VFPExpandImm` for double precision.
pub fn vfp_imm_double(imm8: u32) -> u64 {
    let v = imm8 as u64;
    let b = v >> 6 & 1;
    (v & 0x80) << 56 | (b ^ 1) << 62 | (b * 0xff) << 54 | (v & 0x3f) << 48
}
