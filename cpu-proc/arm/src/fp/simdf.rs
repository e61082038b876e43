//! Floating-point lanes of Advanced SIMD: two singles in a doubleword, computed under the standard FPSCR value, and the reciprocal
//! estimates, bit-exact (ARM DDI 0406C A2.7.7, "Reciprocal estimate").
//!
//! The `Fpscr` argument is the *standard* value ([`Fpscr::standard`]); the caller merges its flags back.

use super::fpscr::{Fpscr, Rounding};
use super::ops;
use super::soft::{self, Format, Half, Relation, Single};

const TWO: u64 = 0x4000_0000;
const THREE: u64 = 0x4040_0000;

/// Applies `f` to both lanes.
#[inline(always)]
pub fn map1(m: u64, s: &mut Fpscr, f: impl Fn(u64, &mut Fpscr) -> u64) -> u64 {
    let lo = f(m & 0xffff_ffff, s);
    f(m >> 32, s) << 32 | lo & 0xffff_ffff
}

/// Applies `f` to both lanes of two vectors.
#[inline(always)]
pub fn map2(n: u64, m: u64, s: &mut Fpscr, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u64 {
    let lo = f(n & 0xffff_ffff, m & 0xffff_ffff, s);
    f(n >> 32, m >> 32, s) << 32 | lo & 0xffff_ffff
}

/// Applies `f` to both lanes of three vectors.
#[inline(always)]
pub fn map3(d: u64, n: u64, m: u64, s: &mut Fpscr, f: impl Fn(u64, u64, u64, &mut Fpscr) -> u64) -> u64 {
    let lo = f(d & 0xffff_ffff, n & 0xffff_ffff, m & 0xffff_ffff, s);
    f(d >> 32, n >> 32, m >> 32, s) << 32 | lo & 0xffff_ffff
}

/// VADD.F32.
pub fn add(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, ops::add::<Single>)
}

/// VSUB.F32.
pub fn sub(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, ops::sub::<Single>)
}

/// VMUL.F32.
pub fn mul(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, ops::mul::<Single>)
}

/// VMLA.F32: rounded twice.
pub fn mla(d: u64, n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map3(d, n, m, s, |d, n, m, s| {
        let p = ops::mul::<Single>(n, m, s);
        ops::add::<Single>(d, p, s)
    })
}

/// VMLS.F32: rounded twice.
pub fn mls(d: u64, n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map3(d, n, m, s, |d, n, m, s| {
        let p = ops::mul::<Single>(n, m, s);
        ops::add::<Single>(d, p ^ Single::SIGN, s)
    })
}

/// VFMA.F32.
pub fn fma(d: u64, n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map3(d, n, m, s, ops::fma::<Single>)
}

/// VFMS.F32.
pub fn fms(d: u64, n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map3(d, n, m, s, |d, n, m, s| ops::fma::<Single>(d, n ^ Single::SIGN, m, s))
}

/// VABD.F32.
pub fn abd(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |n, m, s| ops::sub::<Single>(n, m, s) & !Single::SIGN)
}

/// VMAX.F32.
pub fn max(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, soft::max::<Single>)
}

/// VMIN.F32.
pub fn min(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, soft::min::<Single>)
}

/// Joins the lanes of each operand by `f`.
#[inline(always)]
fn pairs(n: u64, m: u64, s: &mut Fpscr, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u64 {
    let lo = f(n & 0xffff_ffff, n >> 32, s);
    f(m & 0xffff_ffff, m >> 32, s) << 32 | lo & 0xffff_ffff
}

/// VPADD.F32.
pub fn padd(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    pairs(n, m, s, ops::add::<Single>)
}

/// VPMAX.F32.
pub fn pmax(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    pairs(n, m, s, soft::max::<Single>)
}

/// VPMIN.F32.
pub fn pmin(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    pairs(n, m, s, soft::min::<Single>)
}

fn all(c: bool) -> u64 {
    if c { 0xffff_ffff } else { 0 }
}

/// VCEQ.F32: only signalling NaNs raise IOC.
pub fn ceq(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |n, m, s| all(ops::compare::<Single>(n, m, false, s) == Relation::Equal))
}

/// VCGE.F32: any NaN raises IOC.
pub fn cge(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |n, m, s| all(matches!(ops::compare::<Single>(n, m, true, s), Relation::Equal | Relation::Greater)))
}

/// VCGT.F32: any NaN raises IOC.
pub fn cgt(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |n, m, s| all(ops::compare::<Single>(n, m, true, s) == Relation::Greater))
}

/// VCGT.F32 #0.
pub fn cgt0(m: u64, s: &mut Fpscr) -> u64 {
    cgt(m, 0, s)
}

/// VCGE.F32 #0.
pub fn cge0(m: u64, s: &mut Fpscr) -> u64 {
    cge(m, 0, s)
}

/// VCEQ.F32 #0.
pub fn ceq0(m: u64, s: &mut Fpscr) -> u64 {
    ceq(m, 0, s)
}

/// VCLE.F32 #0.
pub fn cle0(m: u64, s: &mut Fpscr) -> u64 {
    cge(0, m, s)
}

/// VCLT.F32 #0.
pub fn clt0(m: u64, s: &mut Fpscr) -> u64 {
    cgt(0, m, s)
}

const ABS: u64 = 0x7fff_ffff_7fff_ffff;

/// VACGE.F32.
pub fn acge(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    cge(n & ABS, m & ABS, s)
}

/// VACGT.F32.
pub fn acgt(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    cgt(n & ABS, m & ABS, s)
}

/// VABS.F32.
pub fn abs(m: u64) -> u64 {
    m & ABS
}

/// VNEG.F32.
pub fn neg(m: u64) -> u64 {
    m ^ !ABS
}

/// The class of an operand of the estimate and step functions, after flushing.
fn flushed(x: u64, s: &mut Fpscr) -> u64 {
    if x & 0x7f80_0000 == 0 && x & 0x7f_ffff != 0 {
        s.raise(Fpscr::IDC);
        return x & Single::SIGN;
    }
    x
}

fn is_nan(x: u64) -> bool {
    x & !Single::SIGN > Single::INF
}

/// A NaN operand under default NaN.
fn process_nan(x: u64, s: &mut Fpscr) -> u64 {
    if x & Single::QUIET == 0 {
        s.raise(Fpscr::IOC);
    }
    Single::NAN
}

/// Is one operand infinite and the other zero?
fn inf_by_zero(a: u64, b: u64) -> bool {
    let (a, b) = (a & !Single::SIGN, b & !Single::SIGN);
    a == Single::INF && b == 0 || a == 0 && b == Single::INF
}

/// VRECPS: `2 - a * b` (`FPRecipStep`, two roundings).
pub fn recps(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |a, b, s| {
        if is_nan(a) || is_nan(b) {
            return soft::mul::<Single>(a, b, s);
        }
        let (a, b) = (flushed(a, s), flushed(b, s));
        let p = if inf_by_zero(a, b) { 0 } else { ops::mul::<Single>(a, b, s) };
        ops::sub::<Single>(TWO, p, s)
    })
}

/// VRSQRTS: `(3 - a * b) / 2` (`FPRSqrtStep`).
pub fn rsqrts(n: u64, m: u64, s: &mut Fpscr) -> u64 {
    map2(n, m, s, |a, b, s| {
        if is_nan(a) || is_nan(b) {
            return soft::mul::<Single>(a, b, s);
        }
        let (a, b) = (flushed(a, s), flushed(b, s));
        let p = if inf_by_zero(a, b) { 0 } else { ops::mul::<Single>(a, b, s) };
        // Halving is exact: the difference is zero, infinite or at least an ulp of 3.
        let d = ops::sub::<Single>(THREE, p, s);
        let e = d & Single::INF;
        if e == 0 || e == Single::INF { d } else { d - (1 << Single::F) }
    })
}

/// 256 times the reciprocal estimate of `q/512` for `q` in 256..=511 (`recip_estimate`).
fn recip_256(q: u64) -> u64 {
    ((1 << 19) / (2 * q + 1)).div_ceil(2)
}

/// 256 times the estimate of the reciprocal square root (`recip_sqrt_estimate`): `top` has 7 bits below its leading one, `low`
/// says that the operand lies in [0.25, 0.5), else [0.5, 1).
fn rsqrt_256(top: u64, low: bool) -> u64 {
    // s = floor(256/sqrt(v) + 1/2) is the greatest s with (2s-1)^2 v <= 2^18; v = (2q+1)/1024 or (2q+1)/512.
    let bound = if low { 1u64 << 28 } else { 1 << 27 } / (2 * top + 1);
    bound.isqrt().div_ceil(2)
}

/// VRECPE.F32.
pub fn recpe(m: u64, s: &mut Fpscr) -> u64 {
    map1(m, s, |x, s| {
        if is_nan(x) {
            return process_nan(x, s);
        }
        let x = flushed(x, s);
        let (sign, mag) = (x & Single::SIGN, x & !Single::SIGN);
        let exp = mag >> Single::F;
        if mag == Single::INF {
            sign
        } else if mag == 0 {
            s.raise(Fpscr::DZC);
            sign | Single::INF
        } else if exp >= 253 {
            s.raise(Fpscr::UFC);
            sign
        } else {
            let est = recip_256(0x100 | (mag >> 15 & 0xff));
            sign | (253 - exp) << Single::F | (est & 0xff) << 15
        }
    })
}

/// VRECPE.U32.
pub fn recpe_u32(m: u64) -> u64 {
    map1(m, &mut Fpscr(0), |x, _| if x >> 31 == 0 { 0xffff_ffff } else { recip_256(x >> 23) << 23 })
}

/// VRSQRTE.F32.
pub fn rsqrte(m: u64, s: &mut Fpscr) -> u64 {
    map1(m, s, |x, s| {
        if is_nan(x) {
            return process_nan(x, s);
        }
        let x = flushed(x, s);
        let mag = x & !Single::SIGN;
        if mag == 0 {
            s.raise(Fpscr::DZC);
            return x | Single::INF;
        }
        if x & Single::SIGN != 0 {
            s.raise(Fpscr::IOC);
            return Single::NAN;
        }
        if mag == Single::INF {
            return 0;
        }
        let exp = mag >> Single::F;
        let est = rsqrt_256(0x80 | (mag >> 16 & 0x7f), exp & 1 != 0);
        ((380 - exp) / 2) << Single::F | (est & 0xff) << 15
    })
}

/// VRSQRTE.U32.
pub fn rsqrte_u32(m: u64) -> u64 {
    map1(m, &mut Fpscr(0), |x, _| match x >> 30 {
        0 => 0xffff_ffff,
        1 => rsqrt_256(x >> 23, true) << 23,
        _ => rsqrt_256(x >> 24, false) << 23,
    })
}

/// VCVT.S32/U32.F32, with `frac` fraction bits: towards zero.
pub fn to_fixed(m: u64, frac: u32, unsigned: bool, s: &mut Fpscr) -> u64 {
    map1(m, s, |x, s| {
        if frac == 0 {
            ops::to_int::<Single>(x, unsigned, Rounding::Zero, s)
        } else {
            soft::to_fixed::<Single>(x, 32, frac, unsigned, Rounding::Zero, s)
        }
    })
}

/// VCVT.F32.S32/U32, with `frac` fraction bits: to nearest.
pub fn from_fixed(m: u64, frac: u32, unsigned: bool, s: &mut Fpscr) -> u64 {
    map1(m, s, |x, s| {
        let x = if unsigned { x } else { x as i32 as i64 as u64 };
        soft::from_fixed::<Single>(x, frac, unsigned, Rounding::Nearest, s)
    })
}

/// VCVT.F32.F16: four halves to four singles.
pub fn from_half(m: u64, s: &mut Fpscr) -> [u64; 2] {
    let mut one = |i: u32| soft::convert::<Half, Single>(m >> (16 * i) & 0xffff, s);
    let (a, b, c, d) = (one(0), one(1), one(2), one(3));
    [b << 32 | a, d << 32 | c]
}

/// VCVT.F16.F32: four singles to four halves.
pub fn to_half(m: [u64; 2], s: &mut Fpscr) -> u64 {
    let mut one = |v: u64| soft::convert::<Single, Half>(v & 0xffff_ffff, s);
    one(m[0]) | one(m[0] >> 32) << 16 | one(m[1]) << 32 | one(m[1] >> 32) << 48
}
