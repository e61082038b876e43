//! The Advanced SIMD data-processing instructions as helpers of the micro-op machine: one function per operation and lane size.
//!
//! All take constants. `imm` packs D register numbers, `d | n << 8 | m << 16`; `a` is the number of doublewords (1, or 2 for a
//! quadword operation); `b` is a shift amount, a lane or what the row says. Rows have four entries, for lanes of 8, 16, 32 and 64 bits;
//! floating-point rows and others without a lane size are in tables of their own. Results are unused.

use super::fpscr::Fpscr;
use super::{simd, simdf};
use crate::ir::{Helper, HelperId};
use crate::state::Cpu;

/// Packs register numbers for `imm`.
pub fn pack(d: u32, n: u32, m: u32) -> u32 {
    d | n << 8 | m << 16
}

fn regs(i: u32) -> (u32, u32, u32) {
    (i & 0xff, i >> 8 & 0xff, i >> 16 & 0xff)
}

// ---- shapes: how a value function meets the registers ------------------------------------------------------------------------

#[inline(always)]
fn two(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    for k in 0..a {
        let r = f(c.vd(n + k), c.vd(m + k));
        c.set_vd(d + k, r);
    }
    0
}

#[inline(always)]
fn two_sat(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    c.with_fpscr(|c, s| {
        for k in 0..a {
            let r = f(c.vd(n + k), c.vd(m + k), s);
            c.set_vd(d + k, r);
        }
    });
    0
}

#[inline(always)]
fn three(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64, u64) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    for k in 0..a {
        let r = f(c.vd(d + k), c.vd(n + k), c.vd(m + k));
        c.set_vd(d + k, r);
    }
    0
}

#[inline(always)]
fn one(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64) -> u64) -> u32 {
    two(c, i, a, 0, |_, m| f(m))
}

#[inline(always)]
fn one_sat(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, &mut Fpscr) -> u64) -> u32 {
    two_sat(c, i, a, 0, |_, m, s| f(m, s))
}

#[inline(always)]
fn accumulate(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64) -> u64) -> u32 {
    three(c, i, a, 0, |d, _, m| f(d, m))
}

#[inline(always)]
fn shift(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u32) -> u64) -> u32 {
    one(c, i, a, 0, |m| f(m, b))
}

#[inline(always)]
fn shift_sat(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u32, &mut Fpscr) -> u64) -> u32 {
    one_sat(c, i, a, 0, |m, s| f(m, b, s))
}

#[inline(always)]
fn shift_into(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64, u32) -> u64) -> u32 {
    accumulate(c, i, a, 0, |d, m| f(d, m, b))
}

#[inline(always)]
fn narrow_shift(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn([u64; 2], u32) -> u64) -> u32 {
    let (d, _, m) = regs(i);
    let r = f(c.vq(m), b);
    c.set_vd(d, r);
    0
}

#[inline(always)]
fn narrow_shift_sat(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn([u64; 2], u32, &mut Fpscr) -> u64) -> u32 {
    let (d, _, m) = regs(i);
    c.with_fpscr(|c, s| {
        let r = f(c.vq(m), b, s);
        c.set_vd(d, r);
    });
    0
}

#[inline(always)]
fn narrow_two(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn([u64; 2], [u64; 2]) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    let r = f(c.vq(n), c.vq(m));
    c.set_vd(d, r);
    0
}

#[inline(always)]
fn long_shift(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn(u64, u32) -> [u64; 2]) -> u32 {
    let (d, _, m) = regs(i);
    let r = f(c.vd(m), b);
    c.set_vq(d, r);
    0
}

#[inline(always)]
fn long(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn(u64, u64) -> [u64; 2]) -> u32 {
    let (d, n, m) = regs(i);
    let r = f(c.vd(n), c.vd(m));
    c.set_vq(d, r);
    0
}

#[inline(always)]
fn long_sat(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn(u64, u64, &mut Fpscr) -> [u64; 2]) -> u32 {
    let (d, n, m) = regs(i);
    c.with_fpscr(|c, s| {
        let r = f(c.vd(n), c.vd(m), s);
        c.set_vq(d, r);
    });
    0
}

#[inline(always)]
fn long_acc(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn([u64; 2], u64, u64) -> [u64; 2]) -> u32 {
    let (d, n, m) = regs(i);
    let r = f(c.vq(d), c.vd(n), c.vd(m));
    c.set_vq(d, r);
    0
}

#[inline(always)]
fn long_acc_sat(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn([u64; 2], u64, u64, &mut Fpscr) -> [u64; 2]) -> u32 {
    let (d, n, m) = regs(i);
    c.with_fpscr(|c, s| {
        let r = f(c.vq(d), c.vd(n), c.vd(m), s);
        c.set_vq(d, r);
    });
    0
}

#[inline(always)]
fn wide(c: &mut Cpu, i: u32, _: u32, _: u32, f: impl Fn([u64; 2], u64) -> [u64; 2]) -> u32 {
    let (d, n, m) = regs(i);
    let r = f(c.vq(n), c.vd(m));
    c.set_vq(d, r);
    0
}

/// The scalar operand copied into all lanes: `b` is the lane number, bit 7 says 32-bit lanes (else 16).
#[inline(always)]
fn scalar(c: &Cpu, m: u32, b: u32) -> u64 {
    let v = c.vd(m);
    if b & 0x80 != 0 {
        simd::dup::<32>(simd::lane::<32>(v, b & 1))
    } else {
        simd::dup::<16>(simd::lane::<16>(v, b & 3))
    }
}

#[inline(always)]
fn by_two(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64) -> u64) -> u32 {
    let x = scalar(c, regs(i).2, b);
    two(c, i, a, 0, |n, _| f(n, x))
}

#[inline(always)]
fn by_two_sat(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u32 {
    let x = scalar(c, regs(i).2, b);
    two_sat(c, i, a, 0, |n, _, s| f(n, x, s))
}

#[inline(always)]
fn by_three(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64, u64) -> u64) -> u32 {
    let x = scalar(c, regs(i).2, b);
    three(c, i, a, 0, |d, n, _| f(d, n, x))
}

#[inline(always)]
fn by_long(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn(u64, u64) -> [u64; 2]) -> u32 {
    let x = scalar(c, regs(i).2, b);
    long(c, i, 1, 0, |n, _| f(n, x))
}

#[inline(always)]
fn by_long_sat(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn(u64, u64, &mut Fpscr) -> [u64; 2]) -> u32 {
    let x = scalar(c, regs(i).2, b);
    long_sat(c, i, 1, 0, |n, _, s| f(n, x, s))
}

#[inline(always)]
fn by_long_acc(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn([u64; 2], u64, u64) -> [u64; 2]) -> u32 {
    let x = scalar(c, regs(i).2, b);
    long_acc(c, i, 1, 0, |d, n, _| f(d, n, x))
}

#[inline(always)]
fn by_long_acc_sat(c: &mut Cpu, i: u32, _: u32, b: u32, f: impl Fn([u64; 2], u64, u64, &mut Fpscr) -> [u64; 2]) -> u32 {
    let x = scalar(c, regs(i).2, b);
    long_acc_sat(c, i, 1, 0, |d, n, _, s| f(d, n, x, s))
}

// ---- permutations -------------------------------------------------------------------------------------------------------------

// The result for d = m is UNKNOWN; here it is d's, as on the emulators we compare with.

fn trn<const E: u32>(c: &mut Cpu, i: u32, a: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    for k in 0..a {
        let (x, y) = simd::trn::<E>(c.vd(d + k), c.vd(m + k));
        c.set_vd(m + k, y);
        c.set_vd(d + k, x);
    }
    0
}

fn uzp<const E: u32>(c: &mut Cpu, i: u32, a: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    if a == 1 {
        let (x, y) = simd::uzp::<E, 1>([c.vd(d)], [c.vd(m)]);
        c.set_vd(m, y[0]);
        c.set_vd(d, x[0]);
    } else {
        let (x, y) = simd::uzp::<E, 2>(c.vq(d), c.vq(m));
        c.set_vq(m, y);
        c.set_vq(d, x);
    }
    0
}

fn zip<const E: u32>(c: &mut Cpu, i: u32, a: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    if a == 1 {
        let (x, y) = simd::zip::<E, 1>([c.vd(d)], [c.vd(m)]);
        c.set_vd(m, y[0]);
        c.set_vd(d, x[0]);
    } else {
        let (x, y) = simd::zip::<E, 2>(c.vq(d), c.vq(m));
        c.set_vq(m, y);
        c.set_vq(d, x);
    }
    0
}

/// VDUP (scalar): lane `b` of `m` into every lane of `d`.
fn dup<const E: u32>(c: &mut Cpu, i: u32, a: u32, b: u32) -> u32 {
    let (d, _, m) = regs(i);
    let x = simd::dup::<E>(simd::lane::<E>(c.vd(m), b));
    for k in 0..a {
        c.set_vd(d + k, x);
    }
    0
}

/// VEXT: `b` is the byte offset into `m:n`.
fn ext(c: &mut Cpu, i: u32, a: u32, b: u32) -> u32 {
    let (d, n, m) = regs(i);
    if a == 1 {
        let r = simd::ext(c.vd(n), c.vd(m), b);
        c.set_vd(d, r);
    } else {
        let v = [c.vd(n), c.vd(n + 1), c.vd(m), c.vd(m + 1)];
        let (w, byte) = ((b / 8) as usize & 1, b & 7);
        c.set_vq(d, [simd::ext(v[w], v[w + 1], byte), simd::ext(v[w + 1], v[w + 2], byte)]);
    }
    0
}

/// VTBL and VTBX (`X`): `a` table registers from `n` on.
fn tbl<const X: bool>(c: &mut Cpu, i: u32, a: u32, _: u32) -> u32 {
    let (d, n, m) = regs(i);
    let table: [u64; 4] = std::array::from_fn(|k| c.vd(n + k as u32));
    let r = simd::tbl(&table[..a as usize], c.vd(m), if X { c.vd(d) } else { 0 });
    c.set_vd(d, r);
    0
}

fn swp(c: &mut Cpu, i: u32, a: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    for k in 0..a {
        let (x, y) = (c.vd(d + k), c.vd(m + k));
        c.set_vd(d + k, y);
        c.set_vd(m + k, x);
    }
    0
}

// ---- floating-point shapes ----------------------------------------------------------------------------------------------------

#[inline(always)]
fn f_two(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    c.with_standard(|c, s| {
        for k in 0..a {
            let r = f(c.vd(n + k), c.vd(m + k), s);
            c.set_vd(d + k, r);
        }
    });
    0
}

#[inline(always)]
fn f_three(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, u64, u64, &mut Fpscr) -> u64) -> u32 {
    let (d, n, m) = regs(i);
    c.with_standard(|c, s| {
        for k in 0..a {
            let r = f(c.vd(d + k), c.vd(n + k), c.vd(m + k), s);
            c.set_vd(d + k, r);
        }
    });
    0
}

#[inline(always)]
fn f_one(c: &mut Cpu, i: u32, a: u32, _: u32, f: impl Fn(u64, &mut Fpscr) -> u64) -> u32 {
    f_two(c, i, a, 0, |_, m, s| f(m, s))
}

#[inline(always)]
fn f_by_two(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64, &mut Fpscr) -> u64) -> u32 {
    let x = scalar(c, regs(i).2, b);
    f_two(c, i, a, 0, |n, _, s| f(n, x, s))
}

#[inline(always)]
fn f_by_three(c: &mut Cpu, i: u32, a: u32, b: u32, f: impl Fn(u64, u64, u64, &mut Fpscr) -> u64) -> u32 {
    let x = scalar(c, regs(i).2, b);
    f_three(c, i, a, 0, |d, n, _, s| f(d, n, x, s))
}

fn cvt_fixed<const TO: bool, const U: bool>(c: &mut Cpu, i: u32, a: u32, b: u32) -> u32 {
    f_one(c, i, a, 0, |m, s| if TO { simdf::to_fixed(m, b, U, s) } else { simdf::from_fixed(m, b, U, s) })
}

fn cvt_from_half(c: &mut Cpu, i: u32, _: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    c.with_standard(|c, s| {
        let r = simdf::from_half(c.vd(m), s);
        c.set_vq(d, r);
    });
    0
}

fn cvt_to_half(c: &mut Cpu, i: u32, _: u32, _: u32) -> u32 {
    let (d, _, m) = regs(i);
    c.with_standard(|c, s| {
        let r = simdf::to_half(c.vq(m), s);
        c.set_vd(d, r);
    });
    0
}

// ---- element and structure access ---------------------------------------------------------------------------------------------

/// Lane `l` of `size` (log2 of bytes) of D register `d` as a word.
fn element(c: &Cpu, d: u32, l: u32, size: u32) -> u32 {
    let v = c.vd(d) >> (l << (size + 3));
    v as u32 & u32::MAX >> (32 - (8 << size))
}

/// Writes an element: the value in `R[a]`, `imm` = `d | lane << 8 | size << 16`.
fn set_element(c: &mut Cpu, value: u32, _: u32, imm: u32) -> u32 {
    let (d, l, size) = regs(imm);
    let (shift, mask) = (l << (size + 3), u64::from(u32::MAX >> (32 - (8 << size))));
    let v = c.vd(d) & !(mask << shift) | (u64::from(value) & mask) << shift;
    c.set_vd(d, v);
    0
}

/// Copies `R[a]` to every lane: `imm` = `d | count << 8 | size << 16`, count doublewords.
fn dup_core(c: &mut Cpu, value: u32, _: u32, imm: u32) -> u32 {
    let (d, count, size) = regs(imm);
    let v = match size {
        0 => simd::dup::<8>(u64::from(value)),
        1 => simd::dup::<16>(u64::from(value)),
        _ => simd::dup::<32>(u64::from(value)),
    };
    for k in 0..count {
        c.set_vd(d + k, v);
    }
    0
}

/// Sorts raw memory data into structures (VLD2 to VLD4, after the doublewords were loaded in memory order). `imm` packs the first
/// register, the step between the registers of one structure and the number of registers in one row (1, or 2 for VLD2 with four
/// registers); `a` is the number of elements in a structure, `b` the size as log2 of bytes.
///
/// The memory order of registers is that of [`list`].
fn deinterleave(c: &mut Cpu, imm: u32, a: u32, b: u32) -> u32 {
    let (d, step, rows) = regs(imm);
    let count = (rows * a) as usize;
    let mut raw = [0u64; 4];
    for (k, r) in raw.iter_mut().enumerate().take(count) {
        *r = c.vd(list(d, step, rows, a, k as u32));
    }
    let per = 8 >> b;
    for row in 0..rows {
        for e in 0..a {
            let mut v = 0;
            for l in 0..per {
                let at = (row * per + l) * a + e;
                let x = raw[(at / per) as usize & 3] >> ((at % per) << (b + 3)) & u64::MAX >> (64 - (8 << b));
                v |= x << (l << (b + 3));
            }
            c.set_vd(d + row + e * step, v);
        }
    }
    0
}

/// The `k`-th register of a structure list when its doublewords are taken in ascending order of register use.
pub fn list(d: u32, step: u32, rows: u32, elements: u32, k: u32) -> u32 {
    // Any fixed bijection does, as the registers are only a place to keep the raw data.
    d + k / elements % rows + k % elements * step
}

/// One word of what VST2 to VST4 store: `imm` = `d | step << 8 | rows << 16 | word << 24`, `a` elements in a structure, `b` the size.
fn interleaved_word(c: &mut Cpu, imm: u32, a: u32, b: u32) -> u32 {
    let (d, step, rows) = regs(imm);
    let _ = rows;
    let per_word = 4 >> b;
    let per = 8 >> b;
    let mut v = 0;
    for j in 0..per_word {
        let at = (imm >> 24) * per_word + j;
        let (e, l) = (at % a, at / a);
        v |= element(c, d + l / per + e * step, l % per, b) << (j << (b + 3));
    }
    v
}

// ---- tables -------------------------------------------------------------------------------------------------------------------

fn absent(_: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    unreachable!("no instruction has this lane size")
}

macro_rules! entry {
    ($shape:ident $f:ident [$($g:literal)*] _) => { absent };
    ($shape:ident $f:ident [$($g:literal)*] $e:literal) => { |c, i, a, b| $shape(c, i, a, b, simd::$f::<$e $(, $g)*>) };
}

macro_rules! rows {
    ($(#[$doc:meta])* $rows:ident, $table:ident, $group:literal; $($row:ident = $shape:ident $f:ident $g:tt $a:tt $b:tt $c:tt $d:tt;)*) => {
        $(#[$doc])*
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $rows { $($row),* }

        impl $rows {
            /// The helper for lanes of `8 << size` bits.
            pub const fn id(self, size: u32) -> HelperId {
                HelperId::new($group, self as u8 * 4 + size as u8)
            }
        }

        /// The helpers of the rows, four a row.
        pub static $table: &[Helper] = &[$(
            Helper { name: concat!("simd.", stringify!($row), ".8"), f: entry!($shape $f $g $a) },
            Helper { name: concat!("simd.", stringify!($row), ".16"), f: entry!($shape $f $g $b) },
            Helper { name: concat!("simd.", stringify!($row), ".32"), f: entry!($shape $f $g $c) },
            Helper { name: concat!("simd.", stringify!($row), ".64"), f: entry!($shape $f $g $d) },
        )*];
    };
}

rows! {
    /// Operations on registers of one shape. S and U: signed and unsigned lanes.
    Same, SAME_HELPERS, 2;
    Add = two add [] 8 16 32 64;
    Sub = two sub [] 8 16 32 64;
    Mul = two mul [] 8 16 32 _;
    Mla = three mla [] 8 16 32 _;
    Mls = three mls [] 8 16 32 _;
    HaddS = two hadd [false false] 8 16 32 _;
    HaddU = two hadd [true false] 8 16 32 _;
    RhaddS = two hadd [false true] 8 16 32 _;
    RhaddU = two hadd [true true] 8 16 32 _;
    HsubS = two hsub [false] 8 16 32 _;
    HsubU = two hsub [true] 8 16 32 _;
    QaddS = two_sat qadd [false] 8 16 32 64;
    QaddU = two_sat qadd [true] 8 16 32 64;
    QsubS = two_sat qsub [false] 8 16 32 64;
    QsubU = two_sat qsub [true] 8 16 32 64;
    CgtS = two cgt [false] 8 16 32 _;
    CgtU = two cgt [true] 8 16 32 _;
    CgeS = two cge [false] 8 16 32 _;
    CgeU = two cge [true] 8 16 32 _;
    Ceq = two ceq [] 8 16 32 _;
    Tst = two tst [] 8 16 32 _;
    MaxS = two max [false] 8 16 32 _;
    MaxU = two max [true] 8 16 32 _;
    MinS = two min [false] 8 16 32 _;
    MinU = two min [true] 8 16 32 _;
    AbdS = two abd [false] 8 16 32 _;
    AbdU = two abd [true] 8 16 32 _;
    AbaS = three aba [false] 8 16 32 _;
    AbaU = three aba [true] 8 16 32 _;
    Padd = two padd [] 8 16 32 _;
    PmaxS = two pmax [false] 8 16 32 _;
    PmaxU = two pmax [true] 8 16 32 _;
    PminS = two pmin [false] 8 16 32 _;
    PminU = two pmin [true] 8 16 32 _;
    Qdmulh = two_sat qdmulh [false] _ 16 32 _;
    Qrdmulh = two_sat qdmulh [true] _ 16 32 _;
    // The shifted operand is m in the encoding: the translator swaps n and m.
    ShlS = two shl_reg [false false] 8 16 32 64;
    ShlU = two shl_reg [true false] 8 16 32 64;
    RshlS = two shl_reg [false true] 8 16 32 64;
    RshlU = two shl_reg [true true] 8 16 32 64;
    QshlS = two_sat qshl_reg [false false] 8 16 32 64;
    QshlU = two_sat qshl_reg [true false] 8 16 32 64;
    QrshlS = two_sat qshl_reg [false true] 8 16 32 64;
    QrshlU = two_sat qshl_reg [true true] 8 16 32 64;
    PaddlS = one paddl [false] 8 16 32 _;
    PaddlU = one paddl [true] 8 16 32 _;
    PadalS = accumulate padal [false] 8 16 32 _;
    PadalU = accumulate padal [true] 8 16 32 _;
    Cls = one cls [] 8 16 32 _;
    Clz = one clz [] 8 16 32 _;
    Abs = one abs [] 8 16 32 _;
    Neg = one neg [] 8 16 32 _;
    Qabs = one_sat qabs [] 8 16 32 _;
    Qneg = one_sat qneg [] 8 16 32 _;
    Cgt0 = one cgt0 [] 8 16 32 _;
    Cge0 = one cge0 [] 8 16 32 _;
    Ceq0 = one ceq0 [] 8 16 32 _;
    Cle0 = one cle0 [] 8 16 32 _;
    Clt0 = one clt0 [] 8 16 32 _;
    MulBy = by_two mul [] _ 16 32 _;
    MlaBy = by_three mla [] _ 16 32 _;
    MlsBy = by_three mls [] _ 16 32 _;
    QdmulhBy = by_two_sat qdmulh [false] _ 16 32 _;
    QrdmulhBy = by_two_sat qdmulh [true] _ 16 32 _;
}

rows! {
    /// Shifts by an immediate, and operations that widen or narrow; the size is that of the narrow lanes.
    Shape, SHAPE_HELPERS, 3;
    ShrS = shift shr [false false] 8 16 32 64;
    ShrU = shift shr [true false] 8 16 32 64;
    RshrS = shift shr [false true] 8 16 32 64;
    RshrU = shift shr [true true] 8 16 32 64;
    SraS = shift_into sra [false false] 8 16 32 64;
    SraU = shift_into sra [true false] 8 16 32 64;
    RsraS = shift_into sra [false true] 8 16 32 64;
    RsraU = shift_into sra [true true] 8 16 32 64;
    Sri = shift_into sri [] 8 16 32 64;
    Shl = shift shl [] 8 16 32 64;
    Sli = shift_into sli [] 8 16 32 64;
    QshlS = shift_sat qshl [false] 8 16 32 64;
    QshlU = shift_sat qshl [true] 8 16 32 64;
    Qshlu = shift_sat qshlu [] 8 16 32 64;
    Shrn = narrow_shift shrn [false] 8 16 32 _;
    Rshrn = narrow_shift shrn [true] 8 16 32 _;
    QshrnS = narrow_shift_sat qshrn [false false false] 8 16 32 _;
    QshrnU = narrow_shift_sat qshrn [true true false] 8 16 32 _;
    Qshrun = narrow_shift_sat qshrn [false true false] 8 16 32 _;
    QrshrnS = narrow_shift_sat qshrn [false false true] 8 16 32 _;
    QrshrnU = narrow_shift_sat qshrn [true true true] 8 16 32 _;
    Qrshrun = narrow_shift_sat qshrn [false true true] 8 16 32 _;
    ShllS = long_shift shll [false] 8 16 32 _;
    ShllU = long_shift shll [true] 8 16 32 _;
    AddlS = long addl [false] 8 16 32 _;
    AddlU = long addl [true] 8 16 32 _;
    SublS = long subl [false] 8 16 32 _;
    SublU = long subl [true] 8 16 32 _;
    AddwS = wide addw [false] 8 16 32 _;
    AddwU = wide addw [true] 8 16 32 _;
    SubwS = wide subw [false] 8 16 32 _;
    SubwU = wide subw [true] 8 16 32 _;
    Addhn = narrow_two addhn [false] 8 16 32 _;
    Raddhn = narrow_two addhn [true] 8 16 32 _;
    Subhn = narrow_two subhn [false] 8 16 32 _;
    Rsubhn = narrow_two subhn [true] 8 16 32 _;
    AbdlS = long abdl [false] 8 16 32 _;
    AbdlU = long abdl [true] 8 16 32 _;
    AbalS = long_acc abal [false] 8 16 32 _;
    AbalU = long_acc abal [true] 8 16 32 _;
    MullS = long mull [false] 8 16 32 _;
    MullU = long mull [true] 8 16 32 _;
    MlalS = long_acc mlal [false] 8 16 32 _;
    MlalU = long_acc mlal [true] 8 16 32 _;
    MlslS = long_acc mlsl [false] 8 16 32 _;
    MlslU = long_acc mlsl [true] 8 16 32 _;
    Qdmull = long_sat qdmull [] _ 16 32 _;
    Qdmlal = long_acc_sat qdmlal [] _ 16 32 _;
    Qdmlsl = long_acc_sat qdmlsl [] _ 16 32 _;
    MullByS = by_long mull [false] _ 16 32 _;
    MullByU = by_long mull [true] _ 16 32 _;
    MlalByS = by_long_acc mlal [false] _ 16 32 _;
    MlalByU = by_long_acc mlal [true] _ 16 32 _;
    MlslByS = by_long_acc mlsl [false] _ 16 32 _;
    MlslByU = by_long_acc mlsl [true] _ 16 32 _;
    QdmullBy = by_long_sat qdmull [] _ 16 32 _;
    QdmlalBy = by_long_acc_sat qdmlal [] _ 16 32 _;
    QdmlslBy = by_long_acc_sat qdmlsl [] _ 16 32 _;
}

macro_rules! singles {
    ($($id:ident = $f:expr;)*) => {
        /// Operations without a row of lane sizes: bitwise, permutations, polynomial, floating point, elements.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Misc { $($id),* }

        impl Misc {
            /// The helper; `offset` steps to a neighbour (a greater lane size, where the names say so).
            pub const fn id(self, offset: u32) -> HelperId {
                HelperId::new(4, self as u8 + offset as u8)
            }
        }

        /// The helpers of [`Misc`].
        pub static MISC_HELPERS: &[Helper] = &[$(Helper { name: concat!("simd.", stringify!($id)), f: $f }),*];
    };
}

singles! {
    And = |c, i, a, b| two(c, i, a, b, |n, m| n & m);
    Bic = |c, i, a, b| two(c, i, a, b, |n, m| n & !m);
    Orr = |c, i, a, b| two(c, i, a, b, |n, m| n | m);
    Orn = |c, i, a, b| two(c, i, a, b, |n, m| n | !m);
    Eor = |c, i, a, b| two(c, i, a, b, |n, m| n ^ m);
    Bsl = |c, i, a, b| three(c, i, a, b, |d, n, m| n & d | m & !d);
    Bit = |c, i, a, b| three(c, i, a, b, |d, n, m| n & m | d & !m);
    Bif = |c, i, a, b| three(c, i, a, b, |d, n, m| d & m | n & !m);
    Mvn = |c, i, a, b| one(c, i, a, b, |m| !m);
    Pmul = |c, i, a, b| two(c, i, a, b, simd::pmul);
    Pmull = |c, i, a, b| long(c, i, a, b, simd::pmull);
    Cnt = |c, i, a, b| one(c, i, a, b, simd::cnt);
    Rev64At8 = |c, i, a, b| one(c, i, a, b, simd::rev::<8, 64>);
    Rev64At16 = |c, i, a, b| one(c, i, a, b, simd::rev::<16, 64>);
    Rev64At32 = |c, i, a, b| one(c, i, a, b, simd::rev::<32, 64>);
    Rev32At8 = |c, i, a, b| one(c, i, a, b, simd::rev::<8, 32>);
    Rev32At16 = |c, i, a, b| one(c, i, a, b, simd::rev::<16, 32>);
    Rev16At8 = |c, i, a, b| one(c, i, a, b, simd::rev::<8, 16>);
    Trn8 = trn::<8>; Trn16 = trn::<16>; Trn32 = trn::<32>;
    Uzp8 = uzp::<8>; Uzp16 = uzp::<16>; Uzp32 = uzp::<32>;
    Zip8 = zip::<8>; Zip16 = zip::<16>; Zip32 = zip::<32>;
    Dup8 = dup::<8>; Dup16 = dup::<16>; Dup32 = dup::<32>;
    Movn8 = |c, i, a, b| narrow_shift(c, i, a, b, |m, _| simd::movn::<8>(m));
    Movn16 = |c, i, a, b| narrow_shift(c, i, a, b, |m, _| simd::movn::<16>(m));
    Movn32 = |c, i, a, b| narrow_shift(c, i, a, b, |m, _| simd::movn::<32>(m));
    Swp = swp;
    Ext = ext;
    Tbl = tbl::<false>;
    Tbx = tbl::<true>;
    FAdd = |c, i, a, b| f_two(c, i, a, b, simdf::add);
    FSub = |c, i, a, b| f_two(c, i, a, b, simdf::sub);
    FMul = |c, i, a, b| f_two(c, i, a, b, simdf::mul);
    FMla = |c, i, a, b| f_three(c, i, a, b, simdf::mla);
    FMls = |c, i, a, b| f_three(c, i, a, b, simdf::mls);
    FFma = |c, i, a, b| f_three(c, i, a, b, simdf::fma);
    FFms = |c, i, a, b| f_three(c, i, a, b, simdf::fms);
    FAbd = |c, i, a, b| f_two(c, i, a, b, simdf::abd);
    FMax = |c, i, a, b| f_two(c, i, a, b, simdf::max);
    FMin = |c, i, a, b| f_two(c, i, a, b, simdf::min);
    FPadd = |c, i, a, b| f_two(c, i, a, b, simdf::padd);
    FPmax = |c, i, a, b| f_two(c, i, a, b, simdf::pmax);
    FPmin = |c, i, a, b| f_two(c, i, a, b, simdf::pmin);
    FCeq = |c, i, a, b| f_two(c, i, a, b, simdf::ceq);
    FCge = |c, i, a, b| f_two(c, i, a, b, simdf::cge);
    FCgt = |c, i, a, b| f_two(c, i, a, b, simdf::cgt);
    FAcge = |c, i, a, b| f_two(c, i, a, b, simdf::acge);
    FAcgt = |c, i, a, b| f_two(c, i, a, b, simdf::acgt);
    FRecps = |c, i, a, b| f_two(c, i, a, b, simdf::recps);
    FRsqrts = |c, i, a, b| f_two(c, i, a, b, simdf::rsqrts);
    FCgt0 = |c, i, a, b| f_one(c, i, a, b, simdf::cgt0);
    FCge0 = |c, i, a, b| f_one(c, i, a, b, simdf::cge0);
    FCeq0 = |c, i, a, b| f_one(c, i, a, b, simdf::ceq0);
    FCle0 = |c, i, a, b| f_one(c, i, a, b, simdf::cle0);
    FClt0 = |c, i, a, b| f_one(c, i, a, b, simdf::clt0);
    FAbs = |c, i, a, b| one(c, i, a, b, simdf::abs);
    FNeg = |c, i, a, b| one(c, i, a, b, simdf::neg);
    FRecpe = |c, i, a, b| f_one(c, i, a, b, simdf::recpe);
    FRsqrte = |c, i, a, b| f_one(c, i, a, b, simdf::rsqrte);
    RecpeU32 = |c, i, a, b| one(c, i, a, b, simdf::recpe_u32);
    RsqrteU32 = |c, i, a, b| one(c, i, a, b, simdf::rsqrte_u32);
    FMulBy = |c, i, a, b| f_by_two(c, i, a, b, simdf::mul);
    FMlaBy = |c, i, a, b| f_by_three(c, i, a, b, simdf::mla);
    FMlsBy = |c, i, a, b| f_by_three(c, i, a, b, simdf::mls);
    CvtFromS32 = cvt_fixed::<false, false>;
    CvtFromU32 = cvt_fixed::<false, true>;
    CvtToS32 = cvt_fixed::<true, false>;
    CvtToU32 = cvt_fixed::<true, true>;
    CvtFromHalf = cvt_from_half;
    CvtToHalf = cvt_to_half;
    SetElement = set_element;
    DupCore = dup_core;
    Deinterleave = deinterleave;
    InterleavedWord = interleaved_word;
}
