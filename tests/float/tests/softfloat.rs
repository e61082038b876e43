//! Every operation, rounding mode and flag: the helpers and the engines against SoftFloat. `REPRISE_SLOW` takes every pair with every mode.

use reprise_arm::engine::Engine;
use reprise_arm::fp::fpscr::{Fpscr, Rounding};
use reprise_arm::fp::ops;
use reprise_arm::fp::soft::{self, Double, Half, Relation, Single};
use reprise_float::expect::expect;
use reprise_float::guest::Guest;
use reprise_float::operands::vectors;
use reprise_float::{Input, Op};

const FLAGS: u32 = 0x9f;

fn slow() -> bool {
    std::env::var_os("REPRISE_SLOW").is_some()
}

fn inputs(op: Op, double: bool) -> Vec<Input> {
    vectors(op, double, if slow() { 32 } else { 1 }, if slow() { 1_000_000 } else { 20_000 })
}

/// A path through the helpers: result and FPSCR after it.
type Path = fn(Op, bool, &Input) -> (u64, u32);

// The formatter moves the inner macro further to the right each time.
#[rustfmt::skip]
macro_rules! path {
    ($name:ident, $m:ident) => {
        fn $name(op: Op, double: bool, i: &Input) -> (u64, u32) {
            let mut s = Fpscr(i.fpscr);
            let [a, b, c] = i.x;
            macro_rules! both {
                ($f:ident ( $arg:tt )) => {
                    if double { $m::$f::<Double> $arg } else { $m::$f::<Single> $arg }
                };
            }
            let sign = if double { 1 << 63 } else { 1 << 31 };
            let nzcv = |r: Relation| u64::from(r.nzcv());
            let r = match op {
                Op::Add => both!(add((a, b, &mut s))),
                Op::Sub => both!(sub((a, b, &mut s))),
                Op::Mul => both!(mul((a, b, &mut s))),
                Op::Div => both!(div((a, b, &mut s))),
                Op::Sqrt => both!(sqrt((a, &mut s))),
                Op::Fma => both!(fma((c, a, b, &mut s))),
                Op::Fms => both!(fma((c, a ^ sign, b, &mut s))),
                Op::Cmp => nzcv(both!(compare((a, b, false, &mut s)))),
                Op::Cmpe => nzcv(both!(compare((a, b, true, &mut s)))),
                _ => $m::other(op, double, a, &mut s),
            };
            (r, s.0)
        }
    };
}

/// What has different names in the two.
mod reference {
    use super::*;
    pub(crate) use soft::{add, compare, div, fma, mul, sqrt, sub};

    pub(crate) fn other(op: Op, double: bool, a: u64, s: &mut Fpscr) -> u64 {
        match (op, double) {
            (Op::Convert, true) => soft::convert::<Double, Single>(a, s),
            (Op::Convert, false) => soft::convert::<Single, Double>(a, s),
            (Op::ToHalf, _) => soft::convert::<Single, Half>(a, s),
            (Op::FromHalf, _) => soft::convert::<Half, Single>(a, s),
            (Op::ToInt { unsigned, chop }, _) => {
                let mode = if chop { Rounding::Zero } else { s.rounding() };
                let r = if double {
                    soft::to_fixed::<Double>(a, 32, 0, unsigned, mode, s)
                } else {
                    soft::to_fixed::<Single>(a, 32, 0, unsigned, mode, s)
                };
                r & 0xffff_ffff
            }
            (Op::FromInt { unsigned }, _) => {
                let (a, mode) = (extended(a, unsigned), s.rounding());
                if double {
                    soft::from_fixed::<Double>(a, 0, unsigned, mode, s)
                } else {
                    soft::from_fixed::<Single>(a, 0, unsigned, mode, s)
                }
            }
            _ => unreachable!("done before"),
        }
    }
}

mod fast {
    use super::*;
    pub(crate) use ops::{add, compare, div, fma, mul, sqrt, sub};

    pub(crate) fn other(op: Op, double: bool, a: u64, s: &mut Fpscr) -> u64 {
        match (op, double) {
            (Op::Convert, true) => ops::double_to_single(a, s),
            (Op::Convert, false) => ops::single_to_double(a, s),
            (Op::ToInt { unsigned, chop }, _) => {
                let mode = if chop { Rounding::Zero } else { s.rounding() };
                let r = if double {
                    ops::to_int::<Double>(a, unsigned, mode, s)
                } else {
                    ops::to_int::<Single>(a, unsigned, mode, s)
                };
                r & 0xffff_ffff
            }
            (Op::FromInt { unsigned }, _) => {
                let (a, mode) = (extended(a, unsigned), s.rounding());
                if double {
                    ops::from_int::<Double>(a, unsigned, mode, s)
                } else {
                    ops::from_int::<Single>(a, unsigned, mode, s)
                }
            }
            _ => reference::other(op, double, a, s),
        }
    }
}

fn extended(a: u64, unsigned: bool) -> u64 {
    if unsigned { a & 0xffff_ffff } else { a as i32 as i64 as u64 }
}

path!(by_reference, reference);
path!(by_fast, fast);

fn check(name: &str, op: Op, double: bool, i: &Input, got: (u64, u32)) {
    let (want, raised) = expect(op, double, i);
    let want = (want, i.fpscr & FLAGS | raised);
    let got = (got.0, got.1 & FLAGS);
    let format = if double { "double" } else { "single" };
    assert_eq!(
        got, want,
        "{name} {op:?} {format} {:x?} FPSCR {:#x}: got {:#x} flags {:#x}, SoftFloat {:#x} flags {:#x}",
        i.x, i.fpscr, got.0, got.1, want.0, want.1
    );
}

fn helpers(double: bool) {
    for op in Op::all(double) {
        for i in inputs(op, double) {
            for (name, path) in [("soft", by_reference as Path), ("ops", by_fast)] {
                check(name, op, double, &i, path(op, double, &i));
            }
        }
    }
}

#[test]
fn the_helpers_agree_in_single_precision() {
    helpers(false);
}

#[test]
fn the_helpers_agree_in_double_precision() {
    helpers(true);
}

fn engines() -> Vec<(&'static str, Box<dyn Engine>)> {
    let mut all: Vec<(&'static str, Box<dyn Engine>)> = vec![("interp", Box::new(reprise_interp::Interp::new()))];
    #[cfg(target_arch = "x86_64")]
    {
        use reprise_jit::{Jit, emit::Features};
        for (name, features) in [("jit", Features::detect()), ("jit without AVX2", Features::none())] {
            all.push((name, Box::new(Jit::with(features, 0).expect("memory for code"))));
        }
    }
    all
}

fn in_engines(double: bool) {
    for op in Op::all(double) {
        let inputs = inputs(op, double);
        for (name, engine) in engines() {
            let results = Guest::new(engine, op, double).run(&inputs);
            for (i, (value, fpscr)) in inputs.iter().zip(results) {
                let wide = match op {
                    Op::Convert => !double,
                    Op::ToInt { .. } => false,
                    _ => double,
                };
                let value = match op {
                    Op::Cmp | Op::Cmpe => u64::from(fpscr & 0xf000_0000),
                    Op::ToHalf => value & 0xffff,
                    _ if wide => value,
                    _ => value & 0xffff_ffff,
                };
                check(name, op, double, i, (value, fpscr));
            }
        }
    }
}

#[test]
fn the_engines_agree_in_single_precision() {
    in_engines(false);
}

#[test]
fn the_engines_agree_in_double_precision() {
    in_engines(true);
}

/// Advanced SIMD computes with default NaN, flush-to-zero and round to nearest, whatever FPSCR says (A2.7.5).
#[test]
fn the_engines_agree_in_vectors() {
    // vadd, vsub, vmul, vfma, vfms .f32 d2, d0, d1
    let table = [
        (Op::Add, 0xf200_2d01),
        (Op::Sub, 0xf220_2d01),
        (Op::Mul, 0xf300_2d11),
        (Op::Fma, 0xf200_2c11),
        (Op::Fms, 0xf220_2c11),
    ];
    for (op, instruction) in table {
        let inputs = inputs(op, false);
        // Neighbours share a vector: lane 0 of one, lane 1 of the next.
        let pairs: Vec<Input> = inputs
            .windows(2)
            .map(|w| Input { x: [0, 1, 2].map(|k| w[0].x[k] | w[1].x[k] << 32), fpscr: w[0].fpscr })
            .collect();
        for (name, engine) in engines() {
            for ((w, i), got) in inputs.windows(2).zip(&pairs).zip(Guest::with(engine, instruction).run(&pairs)) {
                let standard = |i: &Input| Input { x: i.x, fpscr: 3 << 24 };
                let ((lo, a), (hi, b)) = (expect(op, false, &standard(&w[0])), expect(op, false, &standard(&w[1])));
                let want = (lo | hi << 32, i.fpscr & FLAGS | a | b);
                assert_eq!((got.0, got.1 & FLAGS), want, "{name} {op:?} vector {:x?} FPSCR {:#x}", i.x, i.fpscr);
            }
        }
    }
}

/// The vectors reach every flag in every mode: without that, agreement would mean little.
#[test]
fn the_vectors_raise_every_flag_in_every_mode() {
    for double in [false, true] {
        let mut seen = [0; 16];
        for op in Op::all(double) {
            for i in inputs(op, double) {
                seen[(i.fpscr >> 22 & 15) as usize] |= expect(op, double, &i).1;
            }
        }
        for (mode, flags) in seen.iter().enumerate() {
            let want = if mode & 4 != 0 { FLAGS } else { FLAGS & !0x80 };
            assert_eq!(flags & FLAGS, want, "RMode {}, FZ and DN {}", mode & 3, mode >> 2);
        }
    }
}
