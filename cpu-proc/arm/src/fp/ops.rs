//! [`super::soft`] with a short cut through the host's FPU.
//!
//! Under round-to-nearest the host's IEEE operation gives the architected bits when the operands are zero or normal and the result
//! is normal and not the smallest normal (tininess is judged before rounding) or an exact zero. FZ, DN and AHP have no part in such
//! an operation, and the only flag it can raise is IXC: the short cut is taken when IXC is set already or the result is proven
//! exact. Rust's `f32` and `f64` operators are IEEE 754 in the default environment on every host, so this changes nothing that a
//! recording could see.

use super::fpscr::{Fpscr, Rounding};
use super::soft::{self, Double, Format, Relation, Single};

pub use super::soft::{abs, max, min, neg};

/// A format that the host computes in.
pub trait Host: Format {
    /// Host sum.
    fn h_add(a: u64, b: u64) -> u64;
    /// Is `r`, the rounded sum of `a` and `b`, exact?
    fn h_sum_exact(a: u64, b: u64, r: u64) -> bool;
    /// Host product.
    fn h_mul(a: u64, b: u64) -> u64;
    /// Host quotient.
    fn h_div(a: u64, b: u64) -> u64;
    /// Host square root.
    fn h_sqrt(a: u64) -> u64;
    /// Host fused `z + a * b`.
    fn h_fma(z: u64, a: u64, b: u64) -> u64;
    /// Host comparison.
    fn h_compare(a: u64, b: u64) -> Relation;
    /// The value as a double, exactly.
    fn h_value(a: u64) -> f64;
    /// The nearest host value to an integer, and whether it is exact.
    fn h_from_int(i: i64) -> (u64, bool);
}

macro_rules! host {
    ($t:ty, $f:ty, $b:ty) => {
        impl Host for $t {
            #[inline(always)]
            fn h_add(a: u64, b: u64) -> u64 {
                (<$f>::from_bits(a as $b) + <$f>::from_bits(b as $b)).to_bits() as u64
            }
            #[inline(always)]
            fn h_sum_exact(a: u64, b: u64, r: u64) -> bool {
                // Knuth's two-sum: the rounding error of an addition is itself representable.
                let (a, b, r) = (<$f>::from_bits(a as $b), <$f>::from_bits(b as $b), <$f>::from_bits(r as $b));
                let bb = r - a;
                (a - (r - bb)) + (b - bb) == 0.0
            }
            #[inline(always)]
            fn h_mul(a: u64, b: u64) -> u64 {
                (<$f>::from_bits(a as $b) * <$f>::from_bits(b as $b)).to_bits() as u64
            }
            #[inline(always)]
            fn h_div(a: u64, b: u64) -> u64 {
                (<$f>::from_bits(a as $b) / <$f>::from_bits(b as $b)).to_bits() as u64
            }
            #[inline(always)]
            fn h_sqrt(a: u64) -> u64 {
                <$f>::from_bits(a as $b).sqrt().to_bits() as u64
            }
            #[inline(always)]
            fn h_fma(z: u64, a: u64, b: u64) -> u64 {
                <$f>::from_bits(a as $b).mul_add(<$f>::from_bits(b as $b), <$f>::from_bits(z as $b)).to_bits() as u64
            }
            #[inline(always)]
            fn h_compare(a: u64, b: u64) -> Relation {
                match <$f>::from_bits(a as $b).partial_cmp(&<$f>::from_bits(b as $b)) {
                    Some(std::cmp::Ordering::Less) => Relation::Less,
                    Some(std::cmp::Ordering::Equal) => Relation::Equal,
                    Some(std::cmp::Ordering::Greater) => Relation::Greater,
                    None => Relation::Unordered,
                }
            }
            #[inline(always)]
            fn h_value(a: u64) -> f64 {
                <$f>::from_bits(a as $b).into()
            }
            #[inline(always)]
            fn h_from_int(i: i64) -> (u64, bool) {
                let f = i as $f;
                (f.to_bits() as u64, f64::from(f) as i64 == i)
            }
        }
    };
}
host!(Single, f32, u32);
host!(Double, f64, u64);

/// Zero or normal.
#[inline(always)]
fn plain<T: Format>(a: u64) -> bool {
    (a >> T::F & T::EMAX).wrapping_sub(1) < T::EMAX - 1 || a & (T::SIGN - 1) == 0
}

/// Zero.
#[inline(always)]
fn is_zero<T: Format>(a: u64) -> bool {
    a & (T::SIGN - 1) == 0
}

/// Normal, finite and beyond doubt about tininess.
#[inline(always)]
fn sure<T: Format>(r: u64) -> bool {
    let m = r & (T::SIGN - 1);
    m > 1 << T::F && m < T::INF
}

#[inline(always)]
fn nearest(s: &Fpscr) -> bool {
    s.0 & Fpscr::RMODE == 0
}

#[inline(always)]
fn nearest_inexact(s: &Fpscr) -> bool {
    s.0 & (Fpscr::RMODE | Fpscr::IXC) == Fpscr::IXC
}

/// Trailing zeros of the significand, counting the hidden bit.
#[inline(always)]
fn spare<T: Format>(a: u64) -> u32 {
    (a & T::FRAC | 1 << T::F).trailing_zeros()
}

/// `FPAdd`.
#[inline]
pub fn add<T: Host>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    if nearest(s) && plain::<T>(a) && plain::<T>(b) {
        let r = T::h_add(a, b);
        // A zero sum of plain operands is exact.
        if sure::<T>(r) || is_zero::<T>(r) {
            if s.0 & Fpscr::IXC == 0 && !T::h_sum_exact(a, b, r) {
                s.raise(Fpscr::IXC);
            }
            return r;
        }
    }
    soft::add::<T>(a, b, s)
}

/// `FPSub`.
#[inline]
pub fn sub<T: Host>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    if nearest(s) && plain::<T>(a) && plain::<T>(b) {
        return add::<T>(a, b ^ T::SIGN, s);
    }
    soft::sub::<T>(a, b, s)
}

/// `FPMul`.
#[inline]
pub fn mul<T: Host>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    if nearest(s) && plain::<T>(a) && plain::<T>(b) {
        let r = T::h_mul(a, b);
        let zero = is_zero::<T>(a) || is_zero::<T>(b);
        // The product of the significands fits the format if enough zeros are below them.
        if zero || sure::<T>(r) && (s.0 & Fpscr::IXC != 0 || spare::<T>(a) + spare::<T>(b) > T::F) {
            return r;
        }
    }
    soft::mul::<T>(a, b, s)
}

/// `FPDiv`.
#[inline]
pub fn div<T: Host>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    if nearest_inexact(s) && plain::<T>(a) && plain::<T>(b) && !is_zero::<T>(b) {
        let r = T::h_div(a, b);
        if sure::<T>(r) || is_zero::<T>(a) {
            return r;
        }
    }
    soft::div::<T>(a, b, s)
}

/// `FPSqrt`.
#[inline]
pub fn sqrt<T: Host>(a: u64, s: &mut Fpscr) -> u64 {
    if nearest_inexact(s) && plain::<T>(a) && a & T::SIGN == 0 {
        // Never tiny: the root of the smallest normal is large.
        return T::h_sqrt(a);
    }
    soft::sqrt::<T>(a, s)
}

/// `FPMulAdd`: `addend + a * b` with one rounding.
#[inline]
pub fn fma<T: Host>(addend: u64, a: u64, b: u64, s: &mut Fpscr) -> u64 {
    if nearest_inexact(s) && plain::<T>(addend) && plain::<T>(a) && plain::<T>(b) {
        let r = T::h_fma(addend, a, b);
        if sure::<T>(r) {
            return r;
        }
    }
    soft::fma::<T>(addend, a, b, s)
}

/// `FPCompare`.
#[inline]
pub fn compare<T: Host>(a: u64, b: u64, signal: bool, s: &mut Fpscr) -> Relation {
    if plain::<T>(a) && plain::<T>(b) {
        return T::h_compare(a, b);
    }
    soft::compare::<T>(a, b, signal, s)
}

/// `FPSingleToDouble`.
#[inline]
pub fn single_to_double(a: u64, s: &mut Fpscr) -> u64 {
    if plain::<Single>(a) {
        return (f32::from_bits(a as u32) as f64).to_bits();
    }
    soft::convert::<Single, Double>(a, s)
}

/// `FPDoubleToSingle`.
#[inline]
pub fn double_to_single(a: u64, s: &mut Fpscr) -> u64 {
    if nearest_inexact(s) && plain::<Double>(a) {
        let r = (f64::from_bits(a) as f32).to_bits() as u64;
        if sure::<Single>(r) {
            return r;
        }
    }
    soft::convert::<Double, Single>(a, s)
}

/// `FPToFixed` without fraction bits to a 32-bit integer.
#[inline]
pub fn to_int<T: Host>(a: u64, unsigned: bool, mode: Rounding, s: &mut Fpscr) -> u64 {
    if mode == Rounding::Zero && plain::<T>(a) {
        // Cutting off is what `as` does; only values in range get there.
        let v = T::h_value(a);
        let (lo, hi) = if unsigned { (-1.0, 4_294_967_296.0) } else { (-2_147_483_649.0, 2_147_483_648.0) };
        if v > lo && v < hi {
            let i = v as i64;
            if i as f64 != v {
                s.raise(Fpscr::IXC);
            }
            return i as u64;
        }
    }
    soft::to_fixed::<T>(a, 32, 0, unsigned, mode, s)
}

/// `FixedToFP` of a 32-bit integer (extended to 64 bits) without fraction bits.
#[inline]
pub fn from_int<T: Host>(a: u64, unsigned: bool, mode: Rounding, s: &mut Fpscr) -> u64 {
    // Every 32-bit integer is a double.
    if T::F == 52 || mode == Rounding::Nearest {
        let (r, exact) = T::h_from_int(a as i64);
        if !exact {
            s.raise(Fpscr::IXC);
        }
        return r;
    }
    soft::from_fixed::<T>(a, 0, unsigned, mode, s)
}
