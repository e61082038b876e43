//! What must come out, by SoftFloat and the manual's rules on top of it (ARM DDI 0406C A2.7).

use crate::{Input, Op};
use softfloat_sys::*;

const IOC: u32 = 1;
const DZC: u32 = 2;
const OFC: u32 = 4;
const UFC: u32 = 8;
const IXC: u32 = 16;
const IDC: u32 = 128;
const AHP: u32 = 1 << 26;
const DN: u32 = 1 << 25;
const FZ: u32 = 1 << 24;

/// Exponent and fraction bits of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    e: u32,
    f: u32,
}

const HALF: Shape = Shape { e: 5, f: 10 };
const SINGLE: Shape = Shape { e: 8, f: 23 };
const DOUBLE: Shape = Shape { e: 11, f: 52 };

impl Shape {
    fn sign(self) -> u64 {
        1 << (self.e + self.f)
    }
    fn inf(self) -> u64 {
        ((1 << self.e) - 1) << self.f
    }
    fn quiet(self) -> u64 {
        1 << (self.f - 1)
    }
    fn default_nan(self) -> u64 {
        self.inf() | self.quiet()
    }
    fn is_nan(self, x: u64) -> bool {
        x & (self.sign() - 1) > self.inf()
    }
    fn is_snan(self, x: u64) -> bool {
        self.is_nan(x) && x & self.quiet() == 0
    }
    fn is_zero(self, x: u64) -> bool {
        x & (self.sign() - 1) == 0
    }
    fn is_denormal(self, x: u64) -> bool {
        !self.is_zero(x) && x & self.inf() == 0
    }
    fn is_inf(self, x: u64) -> bool {
        x & (self.sign() - 1) == self.inf()
    }
}

/// FPSCR.RMode as SoftFloat names it.
fn rounding(fpscr: u32) -> u8 {
    match fpscr >> 22 & 3 {
        0 => softfloat_round_near_even,
        1 => softfloat_round_max,
        2 => softfloat_round_min,
        _ => softfloat_round_minMag,
    }
}

/// Calls SoftFloat and gives its flags as FPSCR's.
fn soft<T>(mode: u8, f: impl FnOnce() -> T) -> (T, u32) {
    // SAFETY: these set and read variables of this thread.
    unsafe {
        softfloat_detectTininess_write_helper(softfloat_tininess_beforeRounding);
        softfloat_roundingMode_write_helper(mode);
        softfloat_exceptionFlags_write_helper(0);
    }
    let r = f();
    // SAFETY: as above.
    let flags = unsafe { softfloat_exceptionFlags_read_helper() };
    let map = [
        (softfloat_flag_invalid, IOC),
        (softfloat_flag_infinite, DZC),
        (softfloat_flag_overflow, OFC),
        (softfloat_flag_underflow, UFC),
        (softfloat_flag_inexact, IXC),
    ];
    (r, map.iter().filter(|(s, _)| flags & s != 0).map(|(_, a)| a).sum())
}

fn s32(x: u64) -> float32_t {
    float32_t { v: x as u32 }
}

fn s64(x: u64) -> float64_t {
    float64_t { v: x }
}

/// The arithmetic itself, with operands that are no NaNs.
fn arithmetic(op: Op, double: bool, x: [u64; 3]) -> u64 {
    // SAFETY: functions of their arguments and of this thread's variables.
    unsafe {
        if double {
            let (a, b, c) = (s64(x[0]), s64(x[1]), s64(x[2]));
            return match op {
                Op::Add => f64_add(a, b).v,
                Op::Sub => f64_sub(a, b).v,
                Op::Mul => f64_mul(a, b).v,
                Op::Div => f64_div(a, b).v,
                Op::Sqrt => f64_sqrt(a).v,
                Op::Convert => f64_to_f32(a).v.into(),
                _ => f64_mulAdd(a, b, c).v,
            };
        }
        let (a, b, c) = (s32(x[0]), s32(x[1]), s32(x[2]));
        match op {
            Op::Add => f32_add(a, b).v.into(),
            Op::Sub => f32_sub(a, b).v.into(),
            Op::Mul => f32_mul(a, b).v.into(),
            Op::Div => f32_div(a, b).v.into(),
            Op::Sqrt => f32_sqrt(a).v.into(),
            Op::Convert => f32_to_f64(a).v,
            Op::ToHalf => f32_to_f16(a).v.into(),
            Op::FromHalf => f16_to_f32(float16_t { v: x[0] as u16 }).v.into(),
            _ => f32_mulAdd(a, b, c).v.into(),
        }
    }
}

/// The result and the flags that it raises. Comparisons give NZCV in bits 31:28.
pub fn expect(op: Op, double: bool, input: &Input) -> (u64, u32) {
    let from = match (op, double) {
        (Op::FromHalf, _) => HALF,
        (_, true) => DOUBLE,
        _ => SINGLE,
    };
    let to = match (op, double) {
        (Op::Convert, false) => DOUBLE,
        (Op::Convert, true) | (Op::FromHalf, _) => SINGLE,
        (Op::ToHalf, _) => HALF,
        _ => from,
    };
    if let Op::FromInt { unsigned } = op {
        return from_int(double, unsigned, input);
    }
    let (mut x, mut flags) = (input.x, 0);
    if op == Op::Fms {
        x[0] ^= from.sign();
    }
    // Operands are flushed as they are unpacked; a NaN among the others does not matter (FPUnpack).
    if input.fpscr & FZ != 0 && from != HALF {
        for v in x.iter_mut().take(op.operands()) {
            if from.is_denormal(*v) {
                flags |= IDC;
                *v &= from.sign();
            }
        }
    }
    match op {
        Op::Cmp | Op::Cmpe => compare(op, double, from, x, flags),
        Op::ToInt { unsigned, chop } => {
            let mode = if chop { softfloat_round_minMag } else { rounding(input.fpscr) };
            to_int(double, unsigned, from, x[0], mode, flags)
        }
        Op::ToHalf | Op::FromHalf if input.fpscr & AHP != 0 => alternative(op, x[0], input.fpscr, flags),
        _ => compute(op, double, (from, to), x, input.fpscr, flags),
    }
}

fn compute(op: Op, double: bool, (from, to): (Shape, Shape), x: [u64; 3], fpscr: u32, mut flags: u32) -> (u64, u32) {
    let order: &[u64] = match op {
        Op::Fma | Op::Fms => &[x[2], x[0], x[1]],
        _ => &x[..op.operands()],
    };
    let product_invalid = matches!(op, Op::Fma | Op::Fms)
        && (from.is_inf(x[0]) && from.is_zero(x[1]) || from.is_zero(x[0]) && from.is_inf(x[1]));
    // FPMulAdd: a quiet NaN as addend does not hide that the product is invalid.
    if product_invalid && from.is_nan(x[2]) && !from.is_snan(x[2]) {
        return (to.default_nan(), flags | IOC);
    }
    let nan = order.iter().find(|v| from.is_snan(**v)).or_else(|| order.iter().find(|v| from.is_nan(**v)));
    if let Some(&v) = nan {
        if from.is_snan(v) {
            flags |= IOC;
        }
        return (if fpscr & DN != 0 { to.default_nan() } else { converted_nan(from, to, v) }, flags);
    }
    let mode = rounding(fpscr);
    let (r, raised) = soft(mode, || arithmetic(op, double, x));
    if to.is_nan(r) {
        return (to.default_nan(), flags | IOC);
    }
    if fpscr & FZ != 0 && to != HALF {
        // Tiny before rounding: what truncation gives is below the smallest normal number, and is not an exact zero.
        let (cut, exact) = soft(softfloat_round_minMag, || arithmetic(op, double, x));
        let tiny = cut & to.inf() == 0 && !(to.is_zero(cut) && exact & IXC == 0);
        if tiny {
            return (cut & to.sign(), flags | UFC);
        }
    }
    (r, flags | raised)
}

/// A NaN as a result: quiet, its fraction cut or filled up at the low end (FPProcessNaN, FPConvertNaN).
fn converted_nan(from: Shape, to: Shape, v: u64) -> u64 {
    let sign = if v & from.sign() != 0 { to.sign() } else { 0 };
    let frac = v & ((1 << from.f) - 1);
    let frac = if to.f >= from.f { frac << (to.f - from.f) } else { frac >> (from.f - to.f) };
    sign | to.inf() | to.quiet() | frac
}

fn compare(op: Op, double: bool, from: Shape, x: [u64; 3], mut flags: u32) -> (u64, u32) {
    let [a, b, _] = x;
    if from.is_nan(a) || from.is_nan(b) {
        if op == Op::Cmpe || from.is_snan(a) || from.is_snan(b) {
            flags |= IOC;
        }
        return (0x3 << 28, flags);
    }
    // SAFETY: functions of their arguments.
    let (eq, lt) = unsafe {
        if double {
            (f64_eq(s64(a), s64(b)), f64_lt_quiet(s64(a), s64(b)))
        } else {
            (f32_eq(s32(a), s32(b)), f32_lt_quiet(s32(a), s32(b)))
        }
    };
    let nzcv = match (eq, lt) {
        (true, _) => 0x6,
        (_, true) => 0x8,
        _ => 0x2,
    };
    (nzcv << 28, flags)
}

/// FPToFixed saturates; NaNs give 0.
fn to_int(double: bool, unsigned: bool, from: Shape, x: u64, mode: u8, flags: u32) -> (u64, u32) {
    // SAFETY: functions of their arguments and of this thread's variables.
    let (r, raised) = soft(mode, || unsafe {
        match (double, unsigned) {
            (true, true) => f64_to_ui32(s64(x), mode, true) as u32,
            (true, false) => f64_to_i32(s64(x), mode, true) as u32,
            (false, true) => f32_to_ui32(s32(x), mode, true) as u32,
            (false, false) => f32_to_i32(s32(x), mode, true) as u32,
        }
    });
    if raised & IOC == 0 {
        return (r.into(), flags | raised);
    }
    let negative = x & from.sign() != 0;
    let r = match (from.is_nan(x), negative, unsigned) {
        (true, ..) => 0,
        (_, true, true) => 0,
        (_, true, false) => 0x8000_0000,
        (_, false, true) => 0xffff_ffff,
        (_, false, false) => 0x7fff_ffff,
    };
    (r, flags | IOC)
}

fn from_int(double: bool, unsigned: bool, input: &Input) -> (u64, u32) {
    let v = input.x[0] as u32;
    // SAFETY: as in `to_int`.
    soft(rounding(input.fpscr), || unsafe {
        match (double, unsigned) {
            (true, true) => ui32_to_f64(v).v,
            (true, false) => i32_to_f64(v as i32).v,
            (false, true) => ui32_to_f32(v).v.into(),
            (false, false) => i32_to_f32(v as i32).v.into(),
        }
    })
}

/// Conversions with FPSCR.AHP set: the alternative half-precision format has no infinities and NaNs, and one more binade instead.
fn alternative(op: Op, x: u64, fpscr: u32, flags: u32) -> (u64, u32) {
    if op == Op::FromHalf {
        // Its values are those of the IEEE format, but the greatest exponent is a number like others.
        if x >> HALF.f & 31 != 31 {
            return (arithmetic(op, false, [x, 0, 0]), flags);
        }
        let value = (1.0 + (x & 0x3ff) as f32 / 1024.0) * 65536.0;
        let sign = if x & HALF.sign() != 0 { SINGLE.sign() } else { 0 };
        return (u64::from(value.to_bits()) | sign, flags);
    }
    let sign = if x & SINGLE.sign() != 0 { HALF.sign() } else { 0 };
    if SINGLE.is_nan(x) {
        return (sign, flags | IOC);
    }
    if SINGLE.is_inf(x) {
        return (sign | 0x7fff, flags | IOC);
    }
    // Halving the value brings the top binade into the IEEE format's range; there rounding is the same, as no exponent is special.
    let magnitude = x & (SINGLE.sign() - 1);
    if magnitude >= 0x4700_0000 {
        let (half, raised) = soft(rounding(fpscr), || arithmetic(op, false, [x - (1 << SINGLE.f), 0, 0]));
        if half & 0x7fff >= 0x7c00 || raised & OFC != 0 {
            return (sign | 0x7fff, flags | IOC);
        }
        return (half + (1 << HALF.f), flags | raised);
    }
    let (r, raised) = soft(rounding(fpscr), || arithmetic(op, false, [x, 0, 0]));
    (r, flags | raised)
}
