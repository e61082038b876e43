//! IEEE 754 arithmetic in integers, as the manual's pseudo-code defines it (ARM DDI 0406C A2.7.6 to A2.7.15).
//!
//! Values are bit patterns in the low bits of a `u64`. Tininess is detected before rounding; NaN operands follow `FPProcessNaNs`.
//! This is the reference; the engines call [`super::ops`], which must agree with it bit for bit. The functions are kept out of line:
//! they are what remains when the short cuts don't apply.

use super::fpscr::{Fpscr, Rounding};

/// A binary interchange format.
pub trait Format: Copy {
    /// Exponent bits.
    const E: u32;
    /// Fraction bits.
    const F: u32;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::E + Self::F);
    /// The exponent field's greatest value.
    const EMAX: u64 = (1 << Self::E) - 1;
    /// The fraction field.
    const FRAC: u64 = (1 << Self::F) - 1;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::E - 1)) - 1;
    /// Plus infinity.
    const INF: u64 = Self::EMAX << Self::F;
    /// The bit that makes a NaN quiet.
    const QUIET: u64 = 1 << (Self::F - 1);
    /// The default NaN (`FPDefaultNaN`).
    const NAN: u64 = Self::INF | Self::QUIET;
    /// All bits of the format.
    const ALL: u64 = Self::SIGN | (Self::SIGN - 1);
    /// Half precision: flush-to-zero does not apply, the alternative format does.
    const HALF: bool = Self::E == 5;
}

/// binary16.
#[derive(Debug, Clone, Copy)]
pub struct Half;
/// binary32.
#[derive(Debug, Clone, Copy)]
pub struct Single;
/// binary64.
#[derive(Debug, Clone, Copy)]
pub struct Double;

impl Format for Half {
    const E: u32 = 5;
    const F: u32 = 10;
}
impl Format for Single {
    const E: u32 = 8;
    const F: u32 = 23;
}
impl Format for Double {
    const E: u32 = 11;
    const F: u32 = 52;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Zero,
    Finite,
    Inf,
    Quiet,
    Signalling,
}

/// An unpacked operand: if finite, `mant * 2^(exp - 63)` with bit 63 of `mant` set.
#[derive(Debug, Clone, Copy)]
struct Num {
    class: Class,
    sign: bool,
    exp: i32,
    mant: u64,
}

impl Num {
    fn zero(self) -> bool {
        self.class == Class::Zero
    }
    fn inf(self) -> bool {
        self.class == Class::Inf
    }
    fn nan(self) -> bool {
        matches!(self.class, Class::Quiet | Class::Signalling)
    }
}

/// `FPUnpack`: flushes a denormal operand under FZ and raises IDC for it.
fn unpack<T: Format>(x: u64, s: &mut Fpscr) -> Num {
    let sign = x & T::SIGN != 0;
    let e = x >> T::F & T::EMAX;
    let frac = x & T::FRAC;
    let num = |class, exp, mant| Num { class, sign, exp, mant };
    if e == 0 {
        if frac == 0 {
            return num(Class::Zero, 0, 0);
        }
        if s.fz() && !T::HALF {
            s.raise(Fpscr::IDC);
            return num(Class::Zero, 0, 0);
        }
        let lz = frac.leading_zeros() as i32;
        return num(Class::Finite, 63 - lz + 1 - T::BIAS - T::F as i32, frac << lz);
    }
    if e == T::EMAX && !(T::HALF && s.ahp()) {
        return match frac {
            0 => num(Class::Inf, 0, 0),
            f if f & T::QUIET != 0 => num(Class::Quiet, 0, 0),
            _ => num(Class::Signalling, 0, 0),
        };
    }
    num(Class::Finite, e as i32 - T::BIAS, (frac | 1 << T::F) << (63 - T::F))
}

fn zero<T: Format>(sign: bool) -> u64 {
    if sign { T::SIGN } else { 0 }
}

fn inf<T: Format>(sign: bool) -> u64 {
    zero::<T>(sign) | T::INF
}

fn invalid<T: Format>(s: &mut Fpscr) -> u64 {
    s.raise(Fpscr::IOC);
    T::NAN
}

/// `FPProcessNaN`.
fn nan<T: Format>(n: Num, x: u64, s: &mut Fpscr) -> u64 {
    if n.class == Class::Signalling {
        s.raise(Fpscr::IOC);
    }
    if s.dn() { T::NAN } else { x & T::ALL | T::QUIET }
}

/// `FPProcessNaNs` and `FPProcessNaNs3`: the first signalling NaN, else the first quiet one.
fn nans<T: Format>(ops: &[(Num, u64)], s: &mut Fpscr) -> Option<u64> {
    let of = |c| ops.iter().find(|(n, _)| n.class == c);
    let (n, x) = of(Class::Signalling).or_else(|| of(Class::Quiet))?;
    Some(nan::<T>(*n, *x, s))
}

/// Does rounding go up, when `rem` / 2^64 is cut off an integer whose lowest bit is `odd`?
fn rounds_up(mode: Rounding, sign: bool, odd: bool, rem: u64) -> bool {
    match mode {
        Rounding::Nearest => rem > 1 << 63 || rem == 1 << 63 && odd,
        Rounding::Up => rem != 0 && !sign,
        Rounding::Down => rem != 0 && sign,
        Rounding::Zero => false,
    }
}

/// Cuts `shift` bits off `mant`: the integer part and the rest as a fraction of 2^64, its lowest bit sticky.
fn cut(mant: u64, shift: u32) -> (u64, u64) {
    match shift {
        0 => (mant, 0),
        1..=63 => (mant >> shift, mant << (64 - shift)),
        64 => (0, mant),
        _ => (0, (mant != 0) as u64),
    }
}

/// `FPRound`: rounds `mant * 2^(exp - 63)` (bit 63 of `mant` set, bit 0 sticky) into the format.
fn round<T: Format>(sign: bool, exp: i32, mant: u64, s: &mut Fpscr) -> u64 {
    let min_exp = 1 - T::BIAS;
    if exp < min_exp && s.fz() && !T::HALF {
        s.raise(Fpscr::UFC);
        return zero::<T>(sign);
    }
    let biased = (exp - min_exp + 1).max(0);
    let shift = 63 - T::F + (min_exp - exp).max(0) as u32;
    let (int, rem) = cut(mant, shift);
    if biased == 0 && rem != 0 {
        s.raise(Fpscr::UFC);
    }
    let mode = s.rounding();
    let int = int + rounds_up(mode, sign, int & 1 != 0, rem) as u64;
    // A carry out of the fraction steps the exponent by itself, from denormal to normal too.
    let out = if biased as u64 > T::EMAX + 1 {
        u64::MAX
    } else {
        ((biased - 1).max(0) as u64).wrapping_shl(T::F).saturating_add(int)
    };
    if T::HALF && s.ahp() {
        if out >= T::SIGN {
            s.raise(Fpscr::IOC);
            return zero::<T>(sign) | (T::SIGN - 1);
        }
    } else if out >= T::INF {
        s.raise(Fpscr::OFC | Fpscr::IXC);
        let to_inf = match mode {
            Rounding::Nearest => true,
            Rounding::Up => !sign,
            Rounding::Down => sign,
            Rounding::Zero => false,
        };
        return zero::<T>(sign) | if to_inf { T::INF } else { T::INF - 1 };
    }
    if rem != 0 {
        s.raise(Fpscr::IXC);
    }
    zero::<T>(sign) | out
}

/// As [`round`], from 128 bits that need not be normalised: the value is `mant * 2^(exp - 127)`, `mant` not zero.
fn round_wide<T: Format>(sign: bool, exp: i32, mant: u128, s: &mut Fpscr) -> u64 {
    let lz = mant.leading_zeros();
    let m = mant << lz;
    let sticky = (m as u64 != 0) as u64;
    round::<T>(sign, exp - lz as i32, (m >> 64) as u64 | sticky, s)
}

/// Shifts right, or-ing what is lost into bit 0.
fn jam(x: u128, n: u32) -> u128 {
    match n {
        0 => x,
        1..=127 => x >> n | (x << (128 - n) != 0) as u128,
        _ => (x != 0) as u128,
    }
}

/// Adds two finite values `m * 2^(e - 127)` whose bit 127 is clear; `None` for an exact zero.
fn sum(a: (bool, i32, u128), b: (bool, i32, u128)) -> Option<(bool, i32, u128)> {
    let exp = a.1.max(b.1);
    let x = jam(a.2, (exp - a.1) as u32);
    let y = jam(b.2, (exp - b.1) as u32);
    let (sign, m) = if a.0 == b.0 {
        (a.0, x + y)
    } else if x >= y {
        (a.0, x - y)
    } else {
        (b.0, y - x)
    };
    (m != 0).then_some((sign, exp, m))
}

/// A finite number or zero for [`sum`].
fn term(n: Num) -> (bool, i32, u128) {
    if n.zero() { (n.sign, i32::MIN / 4, 0) } else { (n.sign, n.exp + 1, (n.mant as u128) << 63) }
}

fn finish_sum<T: Format>(r: Option<(bool, i32, u128)>, s: &mut Fpscr) -> u64 {
    match r {
        Some((sign, exp, m)) => round_wide::<T>(sign, exp, m, s),
        None => zero::<T>(s.rounding() == Rounding::Down),
    }
}

fn add_sub<T: Format>(a: u64, b: u64, negate: bool, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    let mut y = unpack::<T>(b, s);
    if let Some(r) = nans::<T>(&[(x, a), (y, b)], s) {
        return r;
    }
    y.sign ^= negate;
    match (x.inf(), y.inf()) {
        (true, true) if x.sign != y.sign => invalid::<T>(s),
        (true, _) => inf::<T>(x.sign),
        (_, true) => inf::<T>(y.sign),
        _ if x.zero() && y.zero() && x.sign == y.sign => zero::<T>(x.sign),
        _ => finish_sum::<T>(sum(term(x), term(y)), s),
    }
}

/// `FPAdd`.
#[inline(never)]
pub fn add<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    add_sub::<T>(a, b, false, s)
}

/// `FPSub`.
#[inline(never)]
pub fn sub<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    add_sub::<T>(a, b, true, s)
}

/// `FPMul`.
#[inline(never)]
pub fn mul<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    let y = unpack::<T>(b, s);
    if let Some(r) = nans::<T>(&[(x, a), (y, b)], s) {
        return r;
    }
    let sign = x.sign != y.sign;
    if x.inf() && y.zero() || x.zero() && y.inf() {
        invalid::<T>(s)
    } else if x.inf() || y.inf() {
        inf::<T>(sign)
    } else if x.zero() || y.zero() {
        zero::<T>(sign)
    } else {
        round_wide::<T>(sign, x.exp + y.exp + 1, x.mant as u128 * y.mant as u128, s)
    }
}

/// `FPDiv`.
#[inline(never)]
pub fn div<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    let y = unpack::<T>(b, s);
    if let Some(r) = nans::<T>(&[(x, a), (y, b)], s) {
        return r;
    }
    let sign = x.sign != y.sign;
    if x.inf() && y.inf() || x.zero() && y.zero() {
        return invalid::<T>(s);
    }
    if x.inf() || y.zero() {
        if !x.inf() {
            s.raise(Fpscr::DZC);
        }
        return inf::<T>(sign);
    }
    if x.zero() || y.inf() {
        return zero::<T>(sign);
    }
    let num = (x.mant as u128) << 63;
    let q = num / y.mant as u128;
    let sticky = (num % y.mant as u128 != 0) as u128;
    round_wide::<T>(sign, x.exp - y.exp, q << 64 | sticky, s)
}

/// `FPSqrt`.
#[inline(never)]
pub fn sqrt<T: Format>(a: u64, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    if x.nan() {
        return nan::<T>(x, a, s);
    }
    if x.zero() {
        return zero::<T>(x.sign);
    }
    if x.sign {
        return invalid::<T>(s);
    }
    if x.inf() {
        return inf::<T>(false);
    }
    let radicand = (x.mant as u128) << (63 + (x.exp & 1));
    let root = radicand.isqrt();
    let sticky = (root * root != radicand) as u64;
    // The root has 64 bits, more than the format needs plus two, so its lowest may serve as the sticky bit.
    round::<T>(false, x.exp >> 1, root as u64 | sticky, s)
}

/// `FPMulAdd`: `addend + a * b` with one rounding.
#[inline(never)]
pub fn fma<T: Format>(addend: u64, a: u64, b: u64, s: &mut Fpscr) -> u64 {
    let z = unpack::<T>(addend, s);
    let x = unpack::<T>(a, s);
    let y = unpack::<T>(b, s);
    let inf_zero = x.inf() && y.zero() || x.zero() && y.inf();
    let from_nan = nans::<T>(&[(z, addend), (x, a), (y, b)], s);
    if z.class == Class::Quiet && inf_zero {
        return invalid::<T>(s);
    }
    if let Some(r) = from_nan {
        return r;
    }
    let sign = x.sign != y.sign;
    let pinf = x.inf() || y.inf();
    let pzero = x.zero() || y.zero();
    if inf_zero || z.inf() && pinf && z.sign != sign {
        invalid::<T>(s)
    } else if z.inf() {
        inf::<T>(z.sign)
    } else if pinf {
        inf::<T>(sign)
    } else if z.zero() && pzero && z.sign == sign {
        zero::<T>(sign)
    } else {
        let product = if pzero {
            (sign, i32::MIN / 4, 0)
        } else {
            // 64 x 64 bits with at least 22 zeros below: halving keeps bit 127 clear and loses nothing.
            (sign, x.exp + y.exp + 2, (x.mant as u128 * y.mant as u128) >> 1)
        };
        finish_sum::<T>(sum(term(z), product), s)
    }
}

/// `FPAbs`.
#[inline]
pub fn abs<T: Format>(a: u64) -> u64 {
    a & !T::SIGN
}

/// `FPNeg`.
#[inline]
pub fn neg<T: Format>(a: u64) -> u64 {
    a ^ T::SIGN
}

/// How two operands relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// a < b
    Less,
    /// a = b
    Equal,
    /// a > b
    Greater,
    /// One is a NaN.
    Unordered,
}

impl Relation {
    /// N, Z, C, V in bits 31 to 28 (`FPCompare`).
    #[inline]
    pub fn nzcv(self) -> u32 {
        match self {
            Self::Less => 0x8 << 28,
            Self::Equal => 0x6 << 28,
            Self::Greater => 0x2 << 28,
            Self::Unordered => 0x3 << 28,
        }
    }
}

/// `FPCompare`: `signal` makes quiet NaNs raise IOC too.
#[inline(never)]
pub fn compare<T: Format>(a: u64, b: u64, signal: bool, s: &mut Fpscr) -> Relation {
    let x = unpack::<T>(a, s);
    let y = unpack::<T>(b, s);
    if x.nan() || y.nan() {
        if signal || x.class == Class::Signalling || y.class == Class::Signalling {
            s.raise(Fpscr::IOC);
        }
        return Relation::Unordered;
    }
    let key = |n: Num, v: u64| {
        let m = if n.zero() { 0 } else { (v & (T::SIGN - 1)) as i64 };
        if n.sign { -m } else { m }
    };
    match key(x, a).cmp(&key(y, b)) {
        std::cmp::Ordering::Less => Relation::Less,
        std::cmp::Ordering::Equal => Relation::Equal,
        std::cmp::Ordering::Greater => Relation::Greater,
    }
}

fn min_max<T: Format>(a: u64, b: u64, max: bool, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    let y = unpack::<T>(b, s);
    if let Some(r) = nans::<T>(&[(x, a), (y, b)], s) {
        return r;
    }
    if x.zero() && y.zero() {
        return zero::<T>(if max { x.sign && y.sign } else { x.sign || y.sign });
    }
    let a_greater = compare::<T>(a, b, false, s) == Relation::Greater;
    let (n, v) = if a_greater == max { (x, a) } else { (y, b) };
    if n.zero() { zero::<T>(n.sign) } else { v & T::ALL }
}

/// `FPMax`.
pub fn max<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    min_max::<T>(a, b, true, s)
}

/// `FPMin`.
pub fn min<T: Format>(a: u64, b: u64, s: &mut Fpscr) -> u64 {
    min_max::<T>(a, b, false, s)
}

/// `FPSingleToDouble`, `FPDoubleToSingle`, `FPHalfToSingle`, `FPSingleToHalf`: from format `A` to format `B`.
#[inline(never)]
pub fn convert<A: Format, B: Format>(a: u64, s: &mut Fpscr) -> u64 {
    let x = unpack::<A>(a, s);
    let alternative = B::HALF && s.ahp();
    match x.class {
        Class::Quiet | Class::Signalling => {
            if x.class == Class::Signalling || alternative {
                s.raise(Fpscr::IOC);
            }
            if alternative {
                return zero::<B>(x.sign);
            }
            if s.dn() {
                return B::NAN;
            }
            let frac = a & A::FRAC;
            let frac = if B::F >= A::F {
                frac << (B::F.wrapping_sub(A::F) & 63)
            } else {
                frac >> (A::F.wrapping_sub(B::F) & 63)
            };
            inf::<B>(x.sign) | B::QUIET | frac
        }
        Class::Inf if alternative => {
            s.raise(Fpscr::IOC);
            zero::<B>(x.sign) | (B::SIGN - 1)
        }
        Class::Inf => inf::<B>(x.sign),
        Class::Zero => zero::<B>(x.sign),
        Class::Finite => round::<B>(x.sign, x.exp, x.mant, s),
    }
}

/// `FPToFixed`: to a `bits`-wide (16 or 32) integer with `frac` fraction bits; signed results are sign-extended to 64 bits.
#[inline(never)]
pub fn to_fixed<T: Format>(a: u64, bits: u32, frac: u32, unsigned: bool, mode: Rounding, s: &mut Fpscr) -> u64 {
    let x = unpack::<T>(a, s);
    if x.nan() {
        s.raise(Fpscr::IOC);
        return 0;
    }
    // Magnitude saturated far beyond any result.
    const HUGE: i128 = 1 << 100;
    let (int, rem) = match x.class {
        Class::Inf => (HUGE, 0),
        Class::Zero => (0, 0),
        _ => match 63 - (x.exp + frac as i32) {
            sh if sh < 0 => (HUGE, 0),
            sh => {
                let (int, rem) = cut(x.mant, sh as u32);
                (int as i128 + rounds_up(mode, x.sign, int & 1 != 0, rem) as i128, rem)
            }
        },
    };
    let value = if x.sign { -int } else { int };
    let (lo, hi) =
        if unsigned { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) };
    let out = value.clamp(lo, hi);
    if out != value {
        s.raise(Fpscr::IOC);
    } else if rem != 0 {
        s.raise(Fpscr::IXC);
    }
    out as u64
}

/// `FixedToFP`: from an integer with `frac` fraction bits, already extended to 64 bits according to `unsigned`.
#[inline(never)]
pub fn from_fixed<T: Format>(a: u64, frac: u32, unsigned: bool, mode: Rounding, s: &mut Fpscr) -> u64 {
    if a == 0 {
        return 0;
    }
    let sign = !unsigned && (a as i64) < 0;
    let m = if sign { a.wrapping_neg() } else { a };
    let lz = m.leading_zeros();
    let mut with = s.with_rounding(mode);
    let out = round::<T>(sign, 63 - lz as i32 - frac as i32, m << lz, &mut with);
    s.merge(with);
    out
}
