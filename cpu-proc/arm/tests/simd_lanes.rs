//! Advanced SIMD lanes against a second, slow formulation: every lane as an unbounded integer, straight from the manual's pseudo-code
//! (ARM DDI 0406C A8.8), and tables of the estimates checked by floating-point arithmetic.

use reprise_arm::fp::Fpscr;
use reprise_arm::fp::{simd, simdf};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A vector with many extreme bytes.
    fn vector(&mut self) -> u64 {
        const EDGE: [u64; 8] = [0, 0xff, 0x7f, 0x80, 0x01, 0x81, 0xfe, 0x40];
        match self.next() >> 62 {
            0 => self.next(),
            1 => (0..8).fold(0, |v, _| v << 8 | EDGE[(self.next() >> 61) as usize]),
            2 => {
                let b = EDGE[(self.next() >> 61) as usize];
                (0..8).fold(0, |v, i| v << 8 | if i % 2 == 0 { b } else { EDGE[(self.next() >> 61) as usize] })
            }
            _ => [0, u64::MAX, 1 << 63, i64::MAX as u64][(self.next() >> 62) as usize],
        }
    }

    /// A vector of small shift amounts of either sign.
    fn shifts(&mut self) -> u64 {
        (0..8).fold(0, |v, _| v << 8 | ((self.next() >> 40) as i64 % 70 - 35) as u64 & 0xff)
    }
}

/// The lanes of vectors as unbounded integers.
fn lanes(e: u32, unsigned: bool, v: &[u64]) -> Vec<i128> {
    let mut out = Vec::new();
    for d in v {
        for i in 0..64 / e {
            let x = (u128::from(*d) >> (i * e)) & ((1u128 << e) - 1);
            out.push(if unsigned || x >> (e - 1) == 0 { x as i128 } else { x as i128 - (1i128 << e) });
        }
    }
    out
}

/// Lanes back to doublewords, cut to size.
fn pack(e: u32, lanes: &[i128]) -> Vec<u64> {
    let per = (64 / e) as usize;
    lanes
        .chunks(per)
        .map(|c| {
            c.iter()
                .enumerate()
                .fold(0u64, |v, (i, x)| v | (((*x as u128) & ((1u128 << e) - 1)) << (i as u32 * e)) as u64)
        })
        .collect()
}

/// Saturates lanes; true if any changed.
fn saturate(e: u32, unsigned: bool, lanes: &mut [i128]) -> bool {
    let (lo, hi) = if unsigned { (0, (1i128 << e) - 1) } else { (-(1i128 << (e - 1)), (1i128 << (e - 1)) - 1) };
    let mut any = false;
    for x in lanes {
        any |= *x < lo || *x > hi;
        *x = (*x).clamp(lo, hi);
    }
    any
}

fn zip_with(a: &[i128], b: &[i128], f: impl Fn(i128, i128) -> i128) -> Vec<i128> {
    a.iter().zip(b).map(|(x, y)| f(*x, *y)).collect()
}

/// `x * 2^sh`, rounded to nearest (ties up) if asked.
fn shift(x: i128, sh: i128, round: bool) -> i128 {
    if sh >= 0 {
        // Far enough to saturate any lane, near enough to stay inside 128 bits.
        return x * (1i128 << sh.min(if x.unsigned_abs() < 1 << 33 { 90 } else { 62 }));
    }
    let n = (-sh).min(120);
    (x + if round { 1i128 << (n - 1) } else { 0 }).div_euclid(1i128 << n)
}

macro_rules! sizes {
    ($rng:ident, $n:ident, $m:ident, $e:ident, $body:block; $($size:literal)*) => {
        $({ const $e: u32 = $size; for _ in 0..2000 { let ($n, $m) = ($rng.vector(), $rng.vector()); $body } })*
    };
}

#[test]
fn plain_and_halving_arithmetic() {
    let mut rng = Rng(11);
    sizes!(rng, n, m, E, {
        for u in [false, true] {
            let (a, b) = (lanes(E, u, &[n]), lanes(E, u, &[m]));
            let want = |f: fn(i128, i128) -> i128| pack(E, &zip_with(&a, &b, f))[0];
            macro_rules! eq {
                ($f:ident $(, $g:literal)*; $w:expr) => {
                    let got = if u { simd::$f::<E, true $(, $g)*>(n, m) } else { simd::$f::<E, false $(, $g)*>(n, m) };
                    assert_eq!(got, want($w), "{} E={E} u={u} {n:x} {m:x}", stringify!($f));
                };
            }
            eq!(hadd, false; |x, y| (x + y).div_euclid(2));
            eq!(hadd, true; |x, y| (x + y + 1).div_euclid(2));
            eq!(hsub; |x, y| (x - y).div_euclid(2));
            eq!(cgt; |x, y| -i128::from(x > y));
            eq!(cge; |x, y| -i128::from(x >= y));
            eq!(max; |x, y| x.max(y));
            eq!(min; |x, y| x.min(y));
            eq!(abd; |x, y| (x - y).abs());
        }
        let (a, b) = (lanes(E, true, &[n]), lanes(E, true, &[m]));
        let want = |f: fn(i128, i128) -> i128| pack(E, &zip_with(&a, &b, f))[0];
        assert_eq!(simd::add::<E>(n, m), want(|x, y| x + y));
        assert_eq!(simd::sub::<E>(n, m), want(|x, y| x - y));
        assert_eq!(simd::mul::<E>(n, m), want(|x, y| x * y));
        assert_eq!(simd::ceq::<E>(n, m), want(|x, y| -i128::from(x == y)));
        assert_eq!(simd::tst::<E>(n, m), want(|x, y| -i128::from(x & y != 0)));
    }; 8 16 32);
}

#[test]
fn saturating_arithmetic_sets_qc() {
    let mut rng = Rng(12);
    sizes!(rng, n, m, E, {
        for u in [false, true] {
            let (a, b) = (lanes(E, u, &[n]), lanes(E, u, &[m]));
            let check = |f: fn(i128, i128) -> i128, got: u64, s: Fpscr| {
                let mut want = zip_with(&a, &b, f);
                let q = saturate(E, u, &mut want);
                assert_eq!((got, s.0), (pack(E, &want)[0], if q { Fpscr::QC } else { 0 }), "E={E} u={u} {n:x} {m:x}");
            };
            let mut s = Fpscr(0);
            let got = if u { simd::qadd::<E, true>(n, m, &mut s) } else { simd::qadd::<E, false>(n, m, &mut s) };
            check(|x, y| x + y, got, s);
            let mut s = Fpscr(0);
            let got = if u { simd::qsub::<E, true>(n, m, &mut s) } else { simd::qsub::<E, false>(n, m, &mut s) };
            check(|x, y| x - y, got, s);
        }
    }; 8 16 32 64);
}

#[test]
fn shifts_by_register_and_immediate() {
    let mut rng = Rng(13);
    sizes!(rng, n, m, E, {
        let k = rng.shifts();
        let by = |v: u64| lanes(E, true, &[v]).iter().map(|x| i128::from(*x as u8 as i8)).collect::<Vec<_>>();
        for (u, round) in [(false, false), (true, false), (false, true), (true, true)] {
            for amounts in [k, m] {
                let exact = zip_with(&lanes(E, u, &[n]), &by(amounts), |x, sh| shift(x, sh, round));
                let got = match (u, round) {
                    (false, false) => simd::shl_reg::<E, false, false>(n, amounts),
                    (true, false) => simd::shl_reg::<E, true, false>(n, amounts),
                    (false, true) => simd::shl_reg::<E, false, true>(n, amounts),
                    (true, true) => simd::shl_reg::<E, true, true>(n, amounts),
                };
                // 63 is left to the test below, as the reference can't hold every value shifted so far.
                let close = E == 64 && by(amounts)[0] == 63;
                // A plain left shift by the lane size or more gives 0; the reference has capped it, so it may not.
                let plain = zip_with(&exact, &by(amounts), |x, sh| if sh >= E.into() { 0 } else { x });
                assert!(close || got == pack(E, &plain)[0], "shl E={E} u={u} r={round} {n:x} {amounts:x}");
                let mut want = exact;
                let q = saturate(E, u, &mut want);
                let mut s = Fpscr(0);
                let got = match (u, round) {
                    (false, false) => simd::qshl_reg::<E, false, false>(n, amounts, &mut s),
                    (true, false) => simd::qshl_reg::<E, true, false>(n, amounts, &mut s),
                    (false, true) => simd::qshl_reg::<E, false, true>(n, amounts, &mut s),
                    (true, true) => simd::qshl_reg::<E, true, true>(n, amounts, &mut s),
                };
                if !close {
                    assert_eq!((got, s.0 != 0), (pack(E, &want)[0], q), "qshl E={E} u={u} r={round} {n:x} {amounts:x}");
                }
            }
        }
        let amount = 1 + (rng.next() >> 40) as u32 % E;
        for u in [false, true] {
            for round in [false, true] {
                let want: Vec<i128> = lanes(E, u, &[n]).iter().map(|x| shift(*x, -i128::from(amount), round)).collect();
                let got = match (u, round) {
                    (false, false) => simd::shr::<E, false, false>(n, amount),
                    (true, false) => simd::shr::<E, true, false>(n, amount),
                    (false, true) => simd::shr::<E, false, true>(n, amount),
                    (true, true) => simd::shr::<E, true, true>(n, amount),
                };
                assert_eq!(got, pack(E, &want)[0], "shr E={E} u={u} r={round} {n:x} #{amount}");
            }
        }
        let ones = |k: u32| (1i128 << k) - 1;
        let (d, v) = (lanes(E, true, &[m]), lanes(E, true, &[n]));
        let sri = zip_with(&d, &v, |d, x| (d & !(ones(E) >> amount)) | x >> amount);
        assert_eq!(simd::sri::<E>(m, n, amount), pack(E, &sri)[0]);
        let left = amount - 1;
        let sli = zip_with(&d, &v, |d, x| d & ones(left) | x << left);
        assert_eq!(simd::sli::<E>(m, n, left), pack(E, &sli)[0]);
        let mut s = Fpscr(0);
        let mut want: Vec<i128> = lanes(E, false, &[n]).iter().map(|x| x << left.min(62)).collect();
        let q = saturate(E, true, &mut want);
        if left < 63 {
            assert_eq!((simd::qshlu::<E>(n, left, &mut s), s.0 != 0), (pack(E, &want)[0], q));
        }
    }; 8 16 32 64);
}

#[test]
fn the_farthest_shift_of_doublewords() {
    let q = |n: u64, unsigned: bool| {
        let mut s = Fpscr(0);
        let r = if unsigned {
            simd::qshl_reg::<64, true, false>(n, 63, &mut s)
        } else {
            simd::qshl_reg::<64, false, false>(n, 63, &mut s)
        };
        (r, s.0 != 0)
    };
    assert_eq!(simd::shl_reg::<64, false, false>(3, 63), 1 << 63);
    assert_eq!(q(0, false), (0, false));
    assert_eq!(q(1, true), (1 << 63, false));
    assert_eq!(q(2, true), (u64::MAX, true));
    assert_eq!(q(1, false), (i64::MAX as u64, true));
    assert_eq!(q(u64::MAX, false), (1 << 63, false));
    assert_eq!(q(u64::MAX - 1, false), (1 << 63, true));
    assert_eq!(q(1 << 63, false), (1 << 63, true));
}

#[test]
fn widening_and_narrowing() {
    let mut rng = Rng(14);
    sizes!(rng, n, m, E, {
        let d = [rng.vector(), rng.vector()];
        let q = [rng.vector(), rng.vector()];
        for u in [false, true] {
            let (a, b) = (lanes(E, u, &[n]), lanes(E, u, &[m]));
            let acc = lanes(2 * E, u, &d);
            let two = |f: fn(i128, i128) -> i128| pack(2 * E, &zip_with(&a, &b, f));
            let three = |f: fn(i128, i128) -> i128, g: fn(i128, i128) -> i128| {
                pack(2 * E, &zip_with(&acc, &zip_with(&a, &b, f), g))
            };
            macro_rules! pick { ($f:ident ( $($x:expr),* )) => { if u { simd::$f::<E, true>($($x),*) } else { simd::$f::<E, false>($($x),*) } }; }
            assert_eq!(pick!(addl(n, m)).to_vec(), two(|x, y| x + y));
            assert_eq!(pick!(subl(n, m)).to_vec(), two(|x, y| x - y));
            assert_eq!(pick!(abdl(n, m)).to_vec(), two(|x, y| (x - y).abs()));
            assert_eq!(pick!(mull(n, m)).to_vec(), two(|x, y| x * y));
            assert_eq!(pick!(abal(d, n, m)).to_vec(), three(|x, y| (x - y).abs(), |d, p| d + p));
            assert_eq!(pick!(mlal(d, n, m)).to_vec(), three(|x, y| x * y, |d, p| d + p));
            assert_eq!(pick!(mlsl(d, n, m)).to_vec(), three(|x, y| x * y, |d, p| d - p));
            assert_eq!(pick!(addw(d, m)).to_vec(), pack(2 * E, &zip_with(&acc, &b, |x, y| x + y)));
            assert_eq!(pick!(subw(d, m)).to_vec(), pack(2 * E, &zip_with(&acc, &b, |x, y| x - y)));
            let pairs: Vec<i128> = a.chunks(2).map(|p| p[0] + p[1]).collect();
            assert_eq!(pick!(paddl(n)), pack(2 * E, &pairs)[0]);
            let sums = zip_with(&lanes(2 * E, u, &[m]), &pairs, |x, y| x + y);
            assert_eq!(pick!(padal(m, n)), pack(2 * E, &sums)[0]);
        }
        let amount = (rng.next() >> 40) as u32 % (E + 1);
        for (su, du) in [(false, false), (true, true), (false, true)] {
            for round in [false, true] {
                let mut want: Vec<i128> =
                    lanes(2 * E, su, &q).iter().map(|x| if amount == 0 { *x } else { shift(*x, -i128::from(amount), round) }).collect();
                let sat = saturate(E, du, &mut want);
                let mut s = Fpscr(0);
                let got = match (su, du, round) {
                    (false, false, false) => simd::qshrn::<E, false, false, false>(q, amount, &mut s),
                    (true, true, false) => simd::qshrn::<E, true, true, false>(q, amount, &mut s),
                    (_, _, false) => simd::qshrn::<E, false, true, false>(q, amount, &mut s),
                    (false, false, _) => simd::qshrn::<E, false, false, true>(q, amount, &mut s),
                    (true, true, _) => simd::qshrn::<E, true, true, true>(q, amount, &mut s),
                    _ => simd::qshrn::<E, false, true, true>(q, amount, &mut s),
                };
                assert_eq!((got, s.0 != 0), (pack(E, &want)[0], sat), "qshrn E={E} {q:x?} #{amount}");
            }
        }
        let high = |f: fn(i128, i128) -> i128, r: i128| {
            let v = zip_with(&lanes(2 * E, true, &d), &lanes(2 * E, true, &q), f);
            pack(E, &v.iter().map(|x| (x + r) >> E).collect::<Vec<_>>())[0]
        };
        assert_eq!(simd::addhn::<E, false>(d, q), high(|x, y| x + y, 0));
        assert_eq!(simd::addhn::<E, true>(d, q), high(|x, y| x + y, 1 << (E - 1)));
        assert_eq!(simd::subhn::<E, false>(d, q), high(|x, y| x - y, 0));
        assert_eq!(simd::subhn::<E, true>(d, q), high(|x, y| x - y, 1 << (E - 1)));
        assert_eq!(simd::movn::<E>(q), pack(E, &lanes(2 * E, true, &q))[0]);
    }; 8 16 32);
}

#[test]
fn doubling_multiplications() {
    let mut rng = Rng(15);
    sizes!(rng, n, m, E, {
        let (a, b) = (lanes(E, false, &[n]), lanes(E, false, &[m]));
        for round in [0, 1i128 << (E - 1)] {
            let mut want: Vec<i128> = zip_with(&a, &b, |x, y| 2 * x * y).iter().map(|p| (p + round) >> E).collect();
            let q = saturate(E, false, &mut want);
            let mut s = Fpscr(0);
            let got =
                if round == 0 { simd::qdmulh::<E, false>(n, m, &mut s) } else { simd::qdmulh::<E, true>(n, m, &mut s) };
            assert_eq!((got, s.0 != 0), (pack(E, &want)[0], q));
        }
        let d = [rng.vector(), rng.vector()];
        let mut product = zip_with(&a, &b, |x, y| 2 * x * y);
        let q1 = saturate(2 * E, false, &mut product);
        let mut s = Fpscr(0);
        assert_eq!((simd::qdmull::<E>(n, m, &mut s).to_vec(), s.0 != 0), (pack(2 * E, &product), q1));
        let mut sum = zip_with(&lanes(2 * E, false, &d), &product, |x, y| x + y);
        let q2 = saturate(2 * E, false, &mut sum);
        let mut s = Fpscr(0);
        assert_eq!((simd::qdmlal::<E>(d, n, m, &mut s).to_vec(), s.0 != 0), (pack(2 * E, &sum), q1 | q2));
        let mut difference = zip_with(&lanes(2 * E, false, &d), &product, |x, y| x - y);
        let q2 = saturate(2 * E, false, &mut difference);
        let mut s = Fpscr(0);
        assert_eq!((simd::qdmlsl::<E>(d, n, m, &mut s).to_vec(), s.0 != 0), (pack(2 * E, &difference), q1 | q2));
    }; 16 32);
}

#[test]
fn permutations_by_lane_number() {
    let mut rng = Rng(16);
    sizes!(rng, n, m, E, {
        let (a, b) = (lanes(E, true, &[n]), lanes(E, true, &[m]));
        let interleaved: Vec<i128> = a.iter().zip(&b).flat_map(|(x, y)| [*x, *y]).collect();
        let z = pack(E, &interleaved);
        assert_eq!(simd::zip::<E, 1>([n], [m]), ([z[0]], [z[1]]));
        assert_eq!(simd::uzp::<E, 1>([z[0]], [z[1]]), ([n], [m]));
        let (p, q) = ([n, rng.vector()], [m, rng.vector()]);
        let (x, y) = simd::zip::<E, 2>(p, q);
        let wide: Vec<i128> =
            lanes(E, true, &p).iter().zip(&lanes(E, true, &q)).flat_map(|(x, y)| [*x, *y]).collect();
        assert_eq!([x, y].concat(), pack(E, &wide));
        assert_eq!(simd::uzp::<E, 2>(x, y), (p, q));
        let (t, v) = simd::trn::<E>(n, m);
        let mut tl = a.clone();
        let mut vl = b.clone();
        for i in (0..a.len()).step_by(2) {
            std::mem::swap(&mut tl[i + 1], &mut vl[i]);
        }
        assert_eq!((t, v), (pack(E, &tl)[0], pack(E, &vl)[0]));
        let mut back = a.clone();
        back.reverse();
        assert_eq!(simd::rev::<E, 64>(n), pack(E, &back)[0]);
        let joined: Vec<i128> = a.chunks(2).chain(b.chunks(2)).map(|c| c[0] + c[1]).collect();
        assert_eq!(simd::padd::<E>(n, m), pack(E, &joined)[0]);
    }; 8 16 32);
    let bytes = |v: u64| v.to_le_bytes();
    for _ in 0..2000 {
        let (n, m) = (rng.vector(), rng.vector());
        for k in 0..8 {
            let both = [bytes(n), bytes(m)].concat();
            assert_eq!(bytes(simd::ext(n, m, k)), both[k as usize..k as usize + 8]);
        }
        let table = [rng.next(), rng.next(), rng.next()];
        let flat: Vec<u8> = table.iter().flat_map(|t| bytes(*t)).collect();
        let index = m & 0x1f1f_1f1f_1f1f_1f1f;
        let want =
            |fall: [u8; 8]| std::array::from_fn(|i| flat.get(usize::from(bytes(index)[i])).copied().unwrap_or(fall[i]));
        assert_eq!(bytes(simd::tbl(&table, index, 0)), want([0; 8]));
        assert_eq!(bytes(simd::tbl(&table, index, n)), want(bytes(n)));
    }
}

#[test]
fn counts_and_signs() {
    let mut rng = Rng(17);
    sizes!(rng, n, _m, E, {
        let (s, u) = (lanes(E, false, &[n]), lanes(E, true, &[n]));
        let each = |v: &[i128], f: &dyn Fn(i128) -> i128| pack(E, &v.iter().map(|x| f(*x)).collect::<Vec<_>>())[0];
        let bit = |x: i128, i: u32| x >> i & 1;
        assert_eq!(simd::clz::<E>(n), each(&u, &|x| (0..E).rev().take_while(|i| bit(x, *i) == 0).count() as i128));
        let cls = |x: i128| (0..E - 1).rev().take_while(|i| bit(x, *i) == bit(x, E - 1)).count() as i128;
        assert_eq!(simd::cls::<E>(n), each(&u, &cls));
        assert_eq!(simd::abs::<E>(n), each(&s, &|x| x.abs()));
        assert_eq!(simd::neg::<E>(n), each(&s, &|x| -x));
        let mut want: Vec<i128> = s.iter().map(|x| x.abs()).collect();
        let q = saturate(E, false, &mut want);
        let mut f = Fpscr(0);
        assert_eq!((simd::qabs::<E>(n, &mut f), f.0 != 0), (pack(E, &want)[0], q));
        let mut want: Vec<i128> = s.iter().map(|x| -x).collect();
        let q = saturate(E, false, &mut want);
        let mut f = Fpscr(0);
        assert_eq!((simd::qneg::<E>(n, &mut f), f.0 != 0), (pack(E, &want)[0], q));
    }; 8 16 32);
    assert_eq!(simd::cnt(0xff80_0103_0007_00aa), 0x0801_0102_0003_0004);
}

#[test]
fn polynomials_multiply_without_carries() {
    // (x^7 + x + 1) * (x + 1) = x^8 + x^7 + x^2 + 1
    assert_eq!(simd::pmull(0x83, 0x03), [0x185, 0]);
    assert_eq!(simd::pmul(0x83, 0x03), 0x85);
    assert_eq!(simd::pmull(0xff << 56, 0xff << 56), [0, 0x5555 << 48]);
}

#[test]
fn modified_immediates() {
    let imm = simd::expand_imm;
    assert_eq!(imm(false, 0b0000, 0xab), Some(0x0000_00ab_0000_00ab));
    assert_eq!(imm(false, 0b0110, 0xab), Some(0xab00_0000_ab00_0000));
    assert_eq!(imm(false, 0b1010, 0xab), Some(0xab00_ab00_ab00_ab00));
    assert_eq!(imm(false, 0b1100, 0xab), Some(0x0000_abff_0000_abff));
    assert_eq!(imm(false, 0b1101, 0xab), Some(0x00ab_ffff_00ab_ffff));
    assert_eq!(imm(false, 0b1110, 0xab), Some(0xabab_abab_abab_abab));
    assert_eq!(imm(true, 0b1110, 0xa5), Some(0xff00_ff00_00ff_00ff));
    assert_eq!(imm(false, 0b1111, 0x70), Some(0x3f80_0000_3f80_0000));
    assert_eq!(imm(true, 0b1111, 0x70), None);
    assert_eq!(simd::vfp_imm_double(0xf0), 0xbff0_0000_0000_0000);
    assert_eq!(simd::vfp_imm_double(0x00), 2.0f64.to_bits());
    assert_eq!(simd::vfp_imm_single(0x3f), 31.0f32.to_bits());
}

/// `recip_estimate` and `recip_sqrt_estimate` as the manual writes them, in floating point.
#[test]
fn estimates_follow_the_manual() {
    for i in 0..1u64 << 23 {
        // Every distinct table index, at both ends of its range.
        if i & 0x3fff != 0 && i & 0x3fff != 0x3fff {
            continue;
        }
        let x = 0x8000_0000 | i << 8;
        let a = x as f64 / 4_294_967_296.0;
        let q = (a * 512.0).floor();
        let s = (256.0 / ((q + 0.5) / 512.0) + 0.5).floor();
        assert_eq!(simdf::recpe_u32(x), 0xffff_ffff_0000_0000 | (s as u64) << 23, "recpe {x:x}");
        for x in [x, x >> 1] {
            let a = x as f64 / 4_294_967_296.0;
            let r = if a < 0.5 {
                1.0 / (((a * 512.0).floor() + 0.5) / 512.0).sqrt()
            } else {
                1.0 / (((a * 256.0).floor() + 0.5) / 256.0).sqrt()
            };
            let s = (256.0 * r + 0.5).floor() as u64;
            assert_eq!(simdf::rsqrte_u32(x) as u32, (s << 23) as u32, "rsqrte {x:x}");
        }
    }
    let mut s = Fpscr(0).standard();
    assert_eq!(simdf::recpe(0x3f80_0000_4000_0000, &mut s), 0x3f7f_8000_3eff_8000);
    assert_eq!(s.0 & Fpscr::FLAGS, 0);
    assert_eq!(simdf::recpe(0x7f00_0000_0000_0001, &mut s), 0x0000_0000_7f80_0000);
    assert_eq!(s.0 & Fpscr::FLAGS, Fpscr::DZC | Fpscr::UFC | Fpscr::IDC);
    let mut s = Fpscr(0).standard();
    assert_eq!(simdf::rsqrte(0xbf80_0000_8000_0000, &mut s), 0x7fc0_0000_ff80_0000);
    assert_eq!(s.0 & Fpscr::FLAGS, Fpscr::DZC | Fpscr::IOC);
    // The step functions give their constant for infinity times zero.
    let mut s = Fpscr(0).standard();
    assert_eq!(simdf::recps(0x7f80_0000_3f80_0000, 0x0000_0000_3f80_0000, &mut s), 0x4000_0000_3f80_0000);
    assert_eq!(simdf::rsqrts(0x7f80_0000_3f80_0000, 0x0000_0000_3f80_0000, &mut s), 0x3fc0_0000_3f80_0000);
    assert_eq!(s.0 & Fpscr::FLAGS, 0);
}
