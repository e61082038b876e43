//! Floating-point arithmetic against independent implementations: rustc_apfloat in all rounding modes with flags, the host's FPU in
//! round-to-nearest, and vectors checked by hand against the manual's pseudo-code (ARM DDI 0406C A2.7).

use reprise_arm::fp::soft::{self, Double, Format, Half, Relation, Single};
use reprise_arm::fp::{Fpscr, Rounding, ops};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd, ieee};

/// A small deterministic generator (xorshift64*).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    /// A finite value of a format, with exponents and fractions that meet often.
    fn finite<T: Format>(&mut self) -> u64 {
        let sign = if self.below(2) == 0 { 0 } else { T::SIGN };
        let bias = T::BIAS as u64;
        let exp = match self.below(8) {
            0 => 0,
            1 => 1 + self.below(3),
            2 => T::EMAX - 1 - self.below(3),
            3 => bias + self.below(3 * u64::from(T::F)) - u64::from(T::F),
            4 => bias / 2 + self.below(u64::from(T::F)),
            5 => bias + self.below(4),
            _ => self.below(T::EMAX),
        };
        let frac = match self.below(6) {
            0 => 0,
            1 => T::FRAC,
            2 => self.next() & T::FRAC & !(T::FRAC >> 4),
            3 => 1 << self.below(u64::from(T::F)),
            _ => self.next() & T::FRAC,
        };
        sign | exp.min(T::EMAX - 1) << T::F | frac
    }
}

const MODES: [(Rounding, Round); 4] = [
    (Rounding::Nearest, Round::NearestTiesToEven),
    (Rounding::Up, Round::TowardPositive),
    (Rounding::Down, Round::TowardNegative),
    (Rounding::Zero, Round::TowardZero),
];

fn flags(st: Status) -> u32 {
    let bit = |s, f| if st.contains(s) { f } else { 0 };
    bit(Status::INVALID_OP, Fpscr::IOC)
        | bit(Status::DIV_BY_ZERO, Fpscr::DZC)
        | bit(Status::OVERFLOW, Fpscr::OFC)
        | bit(Status::UNDERFLOW, Fpscr::UFC)
        | bit(Status::INEXACT, Fpscr::IXC)
}

/// Compares result and flags. The other side's NaN sign differs, it judges tininess after rounding (that shows in the smallest normal,
/// inexact: UFC is left to the vectors below) and calls an overflow that rounds to the greatest number inexact only (so is OFC).
fn agree<T: Format>(what: &str, args: &[u64], mode: Rounding, ours: (u64, u32), bits: u128, st: Status) {
    let context =
        || format!("{what} {args:x?} {mode:?}: ours {:x} flags {:x}, apfloat {bits:x} {st:?}", ours.0, ours.1);
    let nan = |v: u64| v & !T::SIGN > T::INF;
    if nan(bits as u64) {
        assert!(ours.0 == T::NAN, "{}", context());
    } else {
        assert!(ours.0 == bits as u64, "{}", context());
    }
    let ignore = match bits as u64 & !T::SIGN {
        m if m == 1 << T::F && st.contains(Status::INEXACT) => Fpscr::UFC,
        m if m == T::INF - 1 && st.contains(Status::INEXACT) => Fpscr::OFC,
        _ => 0,
    };
    assert_eq!(ours.1 & !ignore, flags(st) & !ignore, "{}", context());
}

fn run(mode: Rounding, f: impl FnOnce(&mut Fpscr) -> u64) -> (u64, u32) {
    let mut s = Fpscr(0).with_rounding(mode);
    let r = f(&mut s);
    (r, s.0 & Fpscr::FLAGS)
}

fn against_apfloat<T: Format + ops::Host, A: Float>(count: u32, seed: u64) {
    let mut rng = Rng(seed);
    for _ in 0..count {
        let (a, b, z) = (rng.finite::<T>(), rng.finite::<T>(), rng.finite::<T>());
        let (x, y, w) = (A::from_bits(a.into()), A::from_bits(b.into()), A::from_bits(z.into()));
        for (mode, round) in MODES {
            let two = |what, ours: (u64, u32), theirs: StatusAnd<A>| {
                agree::<T>(what, &[a, b, z], mode, ours, theirs.value.to_bits(), theirs.status);
            };
            two("add", run(mode, |s| soft::add::<T>(a, b, s)), x.add_r(y, round));
            two("sub", run(mode, |s| soft::sub::<T>(a, b, s)), x.sub_r(y, round));
            two("mul", run(mode, |s| soft::mul::<T>(a, b, s)), x.mul_r(y, round));
            two("div", run(mode, |s| soft::div::<T>(a, b, s)), x.div_r(y, round));
            two("fma", run(mode, |s| soft::fma::<T>(z, a, b, s)), x.mul_add_r(y, w, round));
        }
    }
}

#[test]
fn single_arithmetic_agrees_with_apfloat() {
    against_apfloat::<Single, ieee::Single>(60_000, 1);
}

#[test]
fn double_arithmetic_agrees_with_apfloat() {
    against_apfloat::<Double, ieee::Double>(60_000, 2);
}

#[test]
fn conversions_agree_with_apfloat() {
    let mut rng = Rng(3);
    for _ in 0..100_000 {
        let (d, s, i) = (rng.finite::<Double>(), rng.finite::<Single>(), rng.next() as i32);
        let mut lossy = false;
        for (mode, round) in MODES {
            let r: StatusAnd<ieee::Single> = ieee::Double::from_bits(d.into()).convert_r(round, &mut lossy);
            let ours = run(mode, |f| soft::convert::<Double, Single>(d, f));
            agree::<Single>("d->s", &[d], mode, ours, r.value.to_bits(), r.status);
            let r: StatusAnd<ieee::Half> = ieee::Single::from_bits(s.into()).convert_r(round, &mut lossy);
            let ours = run(mode, |f| soft::convert::<Single, Half>(s, f));
            agree::<Half>("s->h", &[s], mode, ours, r.value.to_bits(), r.status);
            for (bits, unsigned) in [(32, false), (32, true), (16, false), (16, true)] {
                integer(d, bits, unsigned, mode, round);
            }
            let r = ieee::Single::from_i128_r(i.into(), round);
            let ours = run(mode, |f| soft::from_fixed::<Single>(i as i64 as u64, 0, false, mode, f));
            agree::<Single>("i->s", &[i as u64], mode, ours, r.value.to_bits(), r.status);
            let r = ieee::Single::from_u128_r((i as u32).into(), round);
            let ours = run(mode, |f| soft::from_fixed::<Single>(u64::from(i as u32), 0, true, mode, f));
            agree::<Single>("u->s", &[i as u64], mode, ours, r.value.to_bits(), r.status);
        }
        let wide: StatusAnd<ieee::Double> = ieee::Single::from_bits(s.into()).convert(&mut lossy);
        let ours = run(Rounding::Nearest, |f| soft::convert::<Single, Double>(s, f));
        assert_eq!(ours, (wide.value.to_bits() as u64, 0));
    }
}

fn integer(d: u64, bits: u32, unsigned: bool, mode: Rounding, round: Round) {
    let mut exact = false;
    let x = ieee::Double::from_bits(d.into());
    let (value, st) = if unsigned {
        let r = x.to_u128_r(bits as usize, round, &mut exact);
        (r.value as u64, r.status)
    } else {
        let r = x.to_i128_r(bits as usize, round, &mut exact);
        (r.value as u64, r.status)
    };
    let ours = run(mode, |f| soft::to_fixed::<Double>(d, bits, 0, unsigned, mode, f));
    assert_eq!(ours, (value, flags(st)), "{d:x} to {bits} bits, unsigned {unsigned}, {mode:?}");
}

#[test]
fn roots_are_rounded_exactly() {
    let mut rng = Rng(4);
    for _ in 0..100_000 {
        let x = rng.finite::<Double>() & !Double::SIGN;
        let (r, f) = run(Rounding::Nearest, |s| soft::sqrt::<Double>(x, s));
        assert_eq!(r, f64::from_bits(x).sqrt().to_bits(), "sqrt({x:x})");
        let (down, df) = run(Rounding::Down, |s| soft::sqrt::<Double>(x, s));
        let (zero, _) = run(Rounding::Zero, |s| soft::sqrt::<Double>(x, s));
        let (up, uf) = run(Rounding::Up, |s| soft::sqrt::<Double>(x, s));
        assert_eq!((down, df, f), (zero, uf, df));
        let exact = f & Fpscr::IXC == 0;
        assert!(if exact { up == down && r == up } else { up == down + 1 && (r == up || r == down) }, "sqrt({x:x})");
        let s = rng.finite::<Single>() & !Single::SIGN;
        let (r, _) = run(Rounding::Nearest, |f| soft::sqrt::<Single>(s, f));
        assert_eq!(r, u64::from(f32::from_bits(s as u32).sqrt().to_bits()));
    }
}

/// The short cuts through the host's FPU against the integer arithmetic, over all control bits and both states of IXC.
fn short_cuts<T: ops::Host>(seed: u64) {
    let mut rng = Rng(seed);
    for _ in 0..200_000 {
        let mut v = [0; 3].map(|_| rng.finite::<T>());
        if rng.below(16) == 0 {
            v[0] = T::INF | rng.next() & (T::SIGN | T::FRAC);
        }
        let [a, b, z] = v;
        let base = (rng.next() as u32) & (Fpscr::RMODE | Fpscr::FZ | Fpscr::DN | Fpscr::IXC);
        let base = if rng.below(2) == 0 { base & !Fpscr::RMODE } else { base };
        let check = |what: &str, f: &dyn Fn(&mut Fpscr) -> u64, g: &dyn Fn(&mut Fpscr) -> u64| {
            let (mut s, mut t) = (Fpscr(base), Fpscr(base));
            let (r, q) = (f(&mut s), g(&mut t));
            assert_eq!((r, s), (q, t), "{what} {a:x} {b:x} {z:x} under {base:08x}");
        };
        check("add", &|s| ops::add::<T>(a, b, s), &|s| soft::add::<T>(a, b, s));
        check("sub", &|s| ops::sub::<T>(a, b, s), &|s| soft::sub::<T>(a, b, s));
        check("mul", &|s| ops::mul::<T>(a, b, s), &|s| soft::mul::<T>(a, b, s));
        check("div", &|s| ops::div::<T>(a, b, s), &|s| soft::div::<T>(a, b, s));
        check("sqrt", &|s| ops::sqrt::<T>(a, s), &|s| soft::sqrt::<T>(a, s));
        check("fma", &|s| ops::fma::<T>(z, a, b, s), &|s| soft::fma::<T>(z, a, b, s));
        for signal in [false, true] {
            check("compare", &|s| ops::compare::<T>(a, b, signal, s) as u64, &|s| {
                soft::compare::<T>(a, b, signal, s) as u64
            });
        }
        for (unsigned, mode) in [(false, Rounding::Zero), (true, Rounding::Zero), (false, Rounding::Up)] {
            check("to_int", &|s| ops::to_int::<T>(a, unsigned, mode, s), &|s| {
                soft::to_fixed::<T>(a, 32, 0, unsigned, mode, s)
            });
        }
    }
}

#[test]
fn short_cuts_change_nothing_in_single() {
    short_cuts::<Single>(5);
}

#[test]
fn short_cuts_change_nothing_in_double() {
    short_cuts::<Double>(6);
}

#[test]
fn short_cuts_of_conversions_change_nothing() {
    let mut rng = Rng(7);
    for _ in 0..200_000 {
        let (d, w) = (rng.finite::<Double>(), rng.finite::<Single>());
        let i = (rng.next() as u32) >> rng.below(32);
        let base = (rng.next() as u32) & (Fpscr::RMODE | Fpscr::FZ | Fpscr::DN | Fpscr::IXC);
        let (mut s, mut t) = (Fpscr(base), Fpscr(base));
        assert_eq!(ops::double_to_single(d, &mut s), soft::convert::<Double, Single>(d, &mut t), "{d:x} {base:x}");
        assert_eq!(ops::single_to_double(w, &mut s), soft::convert::<Single, Double>(w, &mut t), "{w:x} {base:x}");
        for unsigned in [false, true] {
            let x = if unsigned { u64::from(i) } else { i as i32 as i64 as u64 };
            let mode = s.rounding();
            let ours = ops::from_int::<Double>(x, unsigned, mode, &mut s);
            assert_eq!(ours, soft::from_fixed::<Double>(x, 0, unsigned, mode, &mut t));
        }
        assert_eq!(s, t);
    }
}

// ---- vectors by hand ----------------------------------------------------------------------------------------------------------

const ONE: u64 = 0x3f80_0000;
const MIN_NORMAL: u64 = 0x0080_0000;
const MAX: u64 = 0x7f7f_ffff;
const INF: u64 = 0x7f80_0000;
const QNAN: u64 = 0x7fc0_0000;
const NEG: u64 = 0x8000_0000;

fn under(control: u32, f: impl FnOnce(&mut Fpscr) -> u64) -> (u64, u32) {
    let mut s = Fpscr(control);
    let r = f(&mut s);
    (r, s.0 & Fpscr::FLAGS)
}

#[test]
fn nan_operands_follow_process_nans() {
    let (q1, q2, s1, s2) = (0x7fc0_0001, 0xffc0_0002, 0x7f80_0003, 0xff80_0004);
    let add = |a, b, c| under(c, |s| soft::add::<Single>(a, b, s));
    // A quiet NaN goes through; the first one wins; a signalling one wins over a quiet one and is made quiet.
    assert_eq!(add(q1, q2, 0), (q1, 0));
    assert_eq!(add(ONE, q2, 0), (q2, 0));
    assert_eq!(add(q1, s2, 0), (0xffc0_0004, Fpscr::IOC));
    assert_eq!(add(s1, s2, 0), (0x7fc0_0003, Fpscr::IOC));
    assert_eq!(add(q2, q1, Fpscr::DN), (QNAN, 0));
    assert_eq!(add(s2, ONE, Fpscr::DN), (QNAN, Fpscr::IOC));
    // FPSub does not negate a NaN operand.
    assert_eq!(under(0, |s| soft::sub::<Single>(ONE, q1, s)), (q1, 0));
    // FPMulAdd: the addend comes first; infinity times zero beats a quiet addend only.
    let fma = |z, a, b| under(0, |s| soft::fma::<Single>(z, a, b, s));
    assert_eq!(fma(q1, q2, ONE), (q1, 0));
    assert_eq!(fma(q1, INF, 0), (QNAN, Fpscr::IOC));
    assert_eq!(fma(s1, INF, 0), (0x7fc0_0003, Fpscr::IOC));
    assert_eq!(fma(ONE, q2, s1), (0x7fc0_0003, Fpscr::IOC));
    // Between formats the payload keeps its top bits.
    assert_eq!(under(0, |s| soft::convert::<Single, Double>(s1, s)), (0x7ff8_0000_6000_0000, Fpscr::IOC));
    assert_eq!(under(0, |s| soft::convert::<Double, Single>(0xfff8_0000_6000_0000, s)), (0xffc0_0003, 0));
    // Invalid operations give the default NaN, which is positive.
    assert_eq!(add(INF, INF | NEG, 0), (QNAN, Fpscr::IOC));
    assert_eq!(under(0, |s| soft::mul::<Single>(0, INF | NEG, s)), (QNAN, Fpscr::IOC));
    assert_eq!(under(0, |s| soft::div::<Single>(0, NEG, s)), (QNAN, Fpscr::IOC));
    assert_eq!(under(0, |s| soft::sqrt::<Single>(ONE | NEG, s)), (QNAN, Fpscr::IOC));
}

#[test]
fn zeros_have_the_right_sign() {
    let add = |a, b, c| under(c, |s| soft::add::<Single>(a, b, s)).0;
    let down = Fpscr(0).with_rounding(Rounding::Down).0;
    assert_eq!(add(0, NEG, 0), 0);
    assert_eq!(add(NEG, NEG, 0), NEG);
    assert_eq!(add(ONE, ONE | NEG, 0), 0);
    assert_eq!(add(ONE, ONE | NEG, down), NEG);
    assert_eq!(add(0, NEG, down), NEG);
    assert_eq!(under(0, |s| soft::sqrt::<Single>(NEG, s)), (NEG, 0));
    assert_eq!(under(0, |s| soft::fma::<Single>(NEG, 0, ONE, s)), (0, 0));
    assert_eq!(under(0, |s| soft::div::<Single>(ONE | NEG, 0, s)), (INF | NEG, Fpscr::DZC));
    assert_eq!(under(0, |s| soft::max::<Single>(NEG, 0, s)), (0, 0));
    assert_eq!(under(0, |s| soft::min::<Single>(0, NEG, s)), (NEG, 0));
}

#[test]
fn tininess_is_judged_before_rounding() {
    // (1 - 2^-24) * 2^-126 lies below the smallest normal and rounds up to it: underflow all the same.
    let r = under(0, |s| soft::mul::<Single>(MIN_NORMAL, 0x3f7f_ffff, s));
    assert_eq!(r, (MIN_NORMAL, Fpscr::UFC | Fpscr::IXC));
    // The short cut must not take that for a normal result, whatever IXC says.
    let r = under(Fpscr::IXC, |s| ops::mul::<Single>(MIN_NORMAL, 0x3f7f_ffff, s));
    assert_eq!(r, (MIN_NORMAL, Fpscr::UFC | Fpscr::IXC));
    let r = under(Fpscr::IXC, |s| ops::mul::<Double>(0x0010_0000_0000_0000, 0x3fef_ffff_ffff_ffff, s));
    assert_eq!(r, (0x0010_0000_0000_0000, Fpscr::UFC | Fpscr::IXC));
    // An exact denormal raises nothing.
    assert_eq!(under(0, |s| soft::mul::<Single>(MIN_NORMAL, 0x3f00_0000, s)), (0x0040_0000, 0));
}

#[test]
fn flush_to_zero_flushes_operands_and_results() {
    let fz = Fpscr::FZ;
    assert_eq!(under(fz, |s| soft::add::<Single>(1, ONE, s)), (ONE, Fpscr::IDC));
    assert_eq!(under(fz, |s| soft::add::<Single>(NEG | 1, NEG, s)), (NEG, Fpscr::IDC));
    // A tiny result gives a zero of its sign and UFC alone, exact or not.
    assert_eq!(under(fz, |s| soft::mul::<Single>(MIN_NORMAL | NEG, 0x3f00_0000, s)), (NEG, Fpscr::UFC));
    assert_eq!(under(fz, |s| soft::mul::<Single>(MIN_NORMAL, 0x3f7f_ffff, s)), (0, Fpscr::UFC));
    assert_eq!(under(fz, |s| soft::convert::<Double, Single>(0x3800_0000_0000_0000, s)), (0, Fpscr::UFC));
    // Division by a flushed denormal is division by zero.
    assert_eq!(under(fz, |s| soft::div::<Single>(ONE, 1, s)), (INF, Fpscr::IDC | Fpscr::DZC));
    // Half precision is exempt.
    assert_eq!(under(fz, |s| soft::convert::<Half, Single>(1, s)), (0x3380_0000, 0));
    assert_eq!(under(fz, |s| soft::convert::<Single, Half>(0x3380_0000, s)), (1, 0));
    let mut s = Fpscr(fz);
    assert_eq!(soft::compare::<Single>(1, NEG | 7, false, &mut s), Relation::Equal);
    assert_eq!(s.0 & Fpscr::FLAGS, Fpscr::IDC);
}

#[test]
fn overflow_follows_the_rounding_mode() {
    let big =
        |mode, sign: u64| under(Fpscr(0).with_rounding(mode).0, |s| soft::add::<Single>(MAX | sign, MAX | sign, s));
    let f = Fpscr::OFC | Fpscr::IXC;
    assert_eq!(big(Rounding::Nearest, 0), (INF, f));
    assert_eq!(big(Rounding::Up, 0), (INF, f));
    assert_eq!(big(Rounding::Up, NEG), (MAX | NEG, f));
    assert_eq!(big(Rounding::Down, 0), (MAX, f));
    assert_eq!(big(Rounding::Down, NEG), (INF | NEG, f));
    assert_eq!(big(Rounding::Zero, NEG), (MAX | NEG, f));
}

#[test]
fn alternative_half_precision_has_no_infinity() {
    let ahp = Fpscr::AHP;
    assert_eq!(under(ahp, |s| soft::convert::<Half, Single>(0x7c00, s)), (0x4780_0000, 0));
    assert_eq!(under(ahp, |s| soft::convert::<Single, Half>(0x4780_0000, s)), (0x7c00, 0));
    assert_eq!(under(ahp, |s| soft::convert::<Single, Half>(0x47ff_e000, s)), (0x7fff, 0));
    // Out of range and infinity saturate with IOC (and no IXC); a NaN becomes a zero of its sign.
    assert_eq!(under(ahp, |s| soft::convert::<Single, Half>(0x4800_0000, s)), (0x7fff, Fpscr::IOC));
    assert_eq!(under(ahp, |s| soft::convert::<Single, Half>(INF | NEG, s)), (0xffff, Fpscr::IOC));
    assert_eq!(under(ahp, |s| soft::convert::<Single, Half>(QNAN | NEG, s)), (0x8000, Fpscr::IOC));
    assert_eq!(under(0, |s| soft::convert::<Single, Half>(QNAN | NEG, s)), (0xfe00, 0));
}

#[test]
fn fixed_point_saturates_with_invalid() {
    let to =
        |a, bits, frac, unsigned| under(0, |s| soft::to_fixed::<Single>(a, bits, frac, unsigned, Rounding::Zero, s));
    assert_eq!(to(ONE, 16, 15, false), (0x7fff, Fpscr::IOC));
    assert_eq!(to(ONE | NEG, 16, 15, false), (0x8000u16 as i16 as u64, 0));
    assert_eq!(to(ONE | NEG, 32, 0, true), (0, Fpscr::IOC));
    assert_eq!(to(0xbf00_0000, 32, 0, true), (0, Fpscr::IXC));
    assert_eq!(to(QNAN, 32, 0, false), (0, Fpscr::IOC));
    assert_eq!(to(INF, 32, 0, true), (0xffff_ffff, Fpscr::IOC));
    assert_eq!(to(0x3fc0_0000, 32, 1, false), (3, 0));
    let from = under(0, |s| soft::from_fixed::<Single>(-3i64 as u64, 1, false, Rounding::Nearest, s));
    assert_eq!(from, (0xbfc0_0000, 0));
}

#[test]
fn comparisons_set_the_flags_of_the_manual() {
    let cmp = |a, b, signal| {
        let mut s = Fpscr(0);
        (soft::compare::<Single>(a, b, signal, &mut s).nzcv() >> 28, s.0)
    };
    assert_eq!(cmp(ONE, ONE, false), (0b0110, 0));
    assert_eq!(cmp(0, NEG, false), (0b0110, 0));
    assert_eq!(cmp(NEG | ONE, ONE, false), (0b1000, 0));
    assert_eq!(cmp(ONE, 0, false), (0b0010, 0));
    assert_eq!(cmp(ONE, QNAN, false), (0b0011, 0));
    assert_eq!(cmp(ONE, QNAN, true), (0b0011, Fpscr::IOC));
    assert_eq!(cmp(0x7f80_0001, ONE, false), (0b0011, Fpscr::IOC));
}
