//! Operands: every interesting exponent with every interesting fraction, of either sign, and random ones.

use crate::{Input, Op};

/// Splitmix64.
pub struct Rng(pub u64);

impl Rng {
    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// The values of a format with `e` exponent and `f` fraction bits. `few` leaves most of them out, for triples.
pub fn values(e: u32, f: u32, few: bool) -> Vec<u64> {
    let (max, bias, frac) = ((1u64 << e) - 1, (1u64 << (e - 1)) - 1, (1u64 << f) - 1);
    let near = u64::from(f);
    let mut exps = vec![0, 1, bias - 1, bias, bias + 1, max - 1, max];
    let mut fracs = vec![0, 1, 1 << (f - 1), frac];
    if !few {
        exps.extend([
            2,
            3,
            near,
            near + 1,
            bias / 2,
            bias - near - 1,
            bias.saturating_sub(near + 2).max(1),
            bias - 2,
            bias + 2,
        ]);
        exps.extend([
            bias + near - 1,
            bias + near,
            bias + near + 1,
            (bias + 30).min(max - 1),
            (bias + 31).min(max - 1),
            (bias + 32).min(max - 1),
            max - 2,
        ]);
        fracs.extend([
            2,
            3,
            frac - 1,
            frac ^ 1 << (f - 1),
            1 << (f - 1) | 1,
            frac / 3,
            1 << (f / 2),
            (1 << (f / 2)) - 1,
            frac << (f / 2) & frac,
        ]);
    }
    exps.sort_unstable();
    exps.dedup();
    let mut out = Vec::new();
    for sign in [0, 1 << (e + f)] {
        for &x in &exps {
            out.extend(fracs.iter().map(|m| sign | x << f | m));
        }
    }
    out
}

/// Integers at the edges of what significands hold, for conversions.
fn integers() -> Vec<u64> {
    let mut out = Vec::new();
    for bit in 0..32 {
        for near in [-2i64, -1, 0, 1, 2] {
            let v = (1i64 << bit) + near;
            out.extend([v as u32, (-v) as u32].map(u64::from));
        }
    }
    out.extend([
        0,
        u64::from(u32::MAX),
        0x00ff_ffff,
        0x0100_0001,
        0x8000_0000,
        0x7fff_ff80,
        0x7fff_ffbf,
        0x7fff_ffc0,
        0xffff_ff7f,
        0xffff_ff80,
    ]);
    out
}

/// FPSCR number `n`: rounding mode, DN, FZ in turn, and now and then AHP or flags that are set already.
fn control(n: u64, half: bool) -> u32 {
    let ixc = if n / 16 % 2 == 1 { 0x10 } else { 0 };
    let ahp = if half && n / 32 % 3 == 2 { 1 << 26 } else { 0 };
    ((n % 16) as u32) << 22 | ixc | ahp
}

/// All vectors for `op`: `times` times with other control bits each time, then `random` random ones.
pub fn vectors(op: Op, double: bool, times: u64, random: u64) -> Vec<Input> {
    let (e, f) = match (op, double) {
        (Op::FromHalf, _) => (5, 10),
        (_, false) => (8, 23),
        (_, true) => (11, 52),
    };
    let half = matches!(op, Op::ToHalf | Op::FromHalf);
    let list = match op {
        Op::FromInt { .. } => integers(),
        _ => values(e, f, op.operands() == 3),
    };
    let mut out = Vec::new();
    let mut n = 0u64;
    let mut put = |x| {
        // A stride that is odd goes round all modes, however long the lists are.
        (0..times).for_each(|t| out.push(Input { x, fpscr: control((n + t) * 7 + n / 16, half) }));
        n += 1;
    };
    match op.operands() {
        1 if op == Op::FromHalf => (0..0x1_0000).for_each(|a| put([a, 0, 0])),
        1 => list.iter().for_each(|&a| (0..8).for_each(|_| put([a, 0, 0]))),
        2 => list.iter().for_each(|&a| list.iter().for_each(|&b| put([a, b, 0]))),
        _ => list.iter().for_each(|&a| list.iter().for_each(|&b| list.iter().for_each(|&c| put([a, b, c])))),
    }
    let mut rng = Rng(u64::from(e) << 32 | f as u64);
    for n in 0..random {
        let mut x = [0; 3].map(|_: u64| rng.bits() & if double { !0 } else { 0xffff_ffff });
        if n % 2 == 0 && matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Fma | Op::Fms) {
            // Exponents close to each other, so that sums cancel.
            let top = (1u64 << e) - 1;
            let exp = x[0] >> f & top;
            x[1] = x[1] & !(top << f) | (exp + n % 5).saturating_sub(2).min(top) << f;
        }
        out.push(Input { x, fpscr: control(rng.bits(), half) });
    }
    out
}
