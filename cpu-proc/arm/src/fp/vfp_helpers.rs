//! The VFP instructions as helpers of the micro-op machine: one function per operation and size.
//!
//! All take constants: `imm` is the destination register, `a` and `b` the operands; S numbers for single, D numbers for double
//! precision. The result word is unused (0) unless a helper says otherwise.

use super::fpscr::{Fpscr, Rounding};
use super::ops::{self, Host};
use super::soft::{self, Double, Half, Single};
use crate::ir::{Helper, HelperId, SysHelper};
use crate::state::{Cpu, FPEXC_EN, Flags};
use crate::sysop::{SysCtx, Trap};

/// The helper group of VFP in [`crate::ir::HELPERS`].
pub const GROUP: u8 = 1;

/// A precision: how its registers are read and written.
trait Width: Host {
    fn get(c: &Cpu, n: u32) -> u64;
    fn set(c: &mut Cpu, n: u32, v: u64);
}

impl Width for Single {
    #[inline(always)]
    fn get(c: &Cpu, n: u32) -> u64 {
        c.vs(n)
    }
    #[inline(always)]
    fn set(c: &mut Cpu, n: u32, v: u64) {
        c.set_vs(n, v);
    }
}

impl Width for Double {
    #[inline(always)]
    fn get(c: &Cpu, n: u32) -> u64 {
        c.vd(n)
    }
    #[inline(always)]
    fn set(c: &mut Cpu, n: u32, v: u64) {
        c.set_vd(n, v);
    }
}

/// `d = f(n, m)`.
#[inline(always)]
fn two<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32, f: impl FnOnce(u64, u64, &mut Fpscr) -> u64) -> u32 {
    let mut s = Fpscr(c.fpscr);
    let r = f(T::get(c, n), T::get(c, m), &mut s);
    c.fpscr = s.0;
    T::set(c, d, r);
    0
}

/// `d = f(d, n, m)`.
#[inline(always)]
fn three<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32, f: impl FnOnce(u64, u64, u64, &mut Fpscr) -> u64) -> u32 {
    let old = T::get(c, d);
    two::<T>(c, d, n, m, |n, m, s| f(old, n, m, s))
}

fn add<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    two::<T>(c, d, n, m, ops::add::<T>)
}

fn sub<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    two::<T>(c, d, n, m, ops::sub::<T>)
}

fn mul<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    two::<T>(c, d, n, m, ops::mul::<T>)
}

fn nmul<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    two::<T>(c, d, n, m, |n, m, s| ops::mul::<T>(n, m, s) ^ T::SIGN)
}

fn div<T: Width>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    two::<T>(c, d, n, m, ops::div::<T>)
}

/// VMLA and its kin: `(NEG_D ? -d : d) + (NEG_P ? -(n*m) : n*m)`, rounded twice.
fn mla<T: Width, const NEG_D: bool, const NEG_P: bool>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    three::<T>(c, d, n, m, |d, n, m, s| {
        let p = ops::mul::<T>(n, m, s) ^ if NEG_P { T::SIGN } else { 0 };
        ops::add::<T>(d ^ if NEG_D { T::SIGN } else { 0 }, p, s)
    })
}

/// VFMA and its kin: `(NEG_D ? -d : d) + (NEG_N ? -n : n) * m`, rounded once.
fn fma<T: Width, const NEG_D: bool, const NEG_N: bool>(c: &mut Cpu, d: u32, n: u32, m: u32) -> u32 {
    three::<T>(c, d, n, m, |d, n, m, s| {
        ops::fma::<T>(d ^ if NEG_D { T::SIGN } else { 0 }, n ^ if NEG_N { T::SIGN } else { 0 }, m, s)
    })
}

/// `d = sqrt(a)`.
fn sqrt<T: Width>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let r = ops::sqrt::<T>(T::get(c, a), s);
        T::set(c, d, r);
    });
    0
}

/// Compares `d` with `a` (with zero if `ZERO`) into FPSCR.NZCV.
fn cmp<T: Width, const ZERO: bool, const SIGNAL: bool>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    let m = if ZERO { 0 } else { T::get(c, a) };
    c.with_fpscr(|c, s| {
        let r = ops::compare::<T>(T::get(c, d), m, SIGNAL, s);
        s.0 = s.0 & !Fpscr::NZCV | r.nzcv();
    });
    0
}

fn single_to_double(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let r = ops::single_to_double(c.vs(a), s);
        c.set_vd(d, r);
    });
    0
}

fn double_to_single(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let r = ops::double_to_single(c.vd(a), s);
        c.set_vs(d, r);
    });
    0
}

/// VCVTB, VCVTT from half: the half of `a` that `TOP` names.
fn half_to_single<const TOP: bool>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let h = if TOP { c.vs(a) >> 16 } else { c.vs(a) & 0xffff };
        let r = soft::convert::<Half, Single>(h, s);
        c.set_vs(d, r);
    });
    0
}

/// VCVTB, VCVTT to half: into the half of `d` that `TOP` names.
fn single_to_half<const TOP: bool>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let h = soft::convert::<Single, Half>(c.vs(a), s);
        let old = c.vs(d);
        c.set_vs(d, if TOP { old & 0xffff | h << 16 } else { old & 0xffff_0000 | h });
    });
    0
}

/// S register `d` = `a` as an integer, towards zero if `RZ`, else as FPSCR says.
fn to_int<T: Width, const U: bool, const RZ: bool>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let mode = if RZ { Rounding::Zero } else { s.rounding() };
        let r = ops::to_int::<T>(T::get(c, a), U, mode, s);
        c.set_vs(d, r);
    });
    0
}

/// `d` = S register `a` as an integer.
fn from_int<T: Width, const U: bool>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let x = extend(c.vs(a), 32, U);
        let r = ops::from_int::<T>(x, U, s.rounding(), s);
        T::set(c, d, r);
    });
    0
}

fn extend(x: u64, bits: u32, unsigned: bool) -> u64 {
    let up = 64 - bits;
    if unsigned { x << up >> up } else { ((x << up) as i64 >> up) as u64 }
}

/// `d = FPToFixed(d)`: `a` fraction bits, `BITS` wide, towards zero, extended to the register.
fn to_fixed<T: Width, const U: bool, const BITS: u32>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let r = soft::to_fixed::<T>(T::get(c, d), BITS, a, U, Rounding::Zero, s);
        T::set(c, d, r);
    });
    0
}

/// `d = FixedToFP(d)`: `a` fraction bits, the low `BITS` bits, to nearest.
fn from_fixed<T: Width, const U: bool, const BITS: u32>(c: &mut Cpu, d: u32, a: u32, _: u32) -> u32 {
    c.with_fpscr(|c, s| {
        let x = extend(T::get(c, d), BITS, U);
        let r = soft::from_fixed::<T>(x, a, U, Rounding::Nearest, s);
        T::set(c, d, r);
    });
    0
}

/// VMRS APSR_nzcv, FPSCR.
fn flags_from_fpscr(c: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    c.flags = Flags::from_psr(c.fpscr);
    0
}

/// VMRS Rt, FPSCR: returns it.
fn read_fpscr(c: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    c.fpscr
}

/// VMRS Rt, FPEXC: returns it.
fn read_fpexc(c: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    c.fpexc
}

/// VMSR FPSCR, `R[a]`. LEN and STRIDE select the block, so the block ends after it.
fn write_fpscr(c: &mut Cpu, _: &mut SysCtx<'_>, a: u32, _: u32, _: u32) -> Result<u32, Trap> {
    c.fpscr = a & Fpscr::WRITABLE;
    Ok(0)
}

/// VMSR FPEXC, `R[a]`: only EN exists, as there is neither a subarchitecture nor a trapped exception (Cortex-A15 TRM 10.3.6).
fn write_fpexc(c: &mut Cpu, _: &mut SysCtx<'_>, a: u32, _: u32, _: u32) -> Result<u32, Trap> {
    c.fpexc = a & FPEXC_EN;
    Ok(0)
}

/// Group 1 of [`crate::ir::SYS_FNS`].
pub static SYS_FNS: &[SysHelper] =
    &[SysHelper { name: "vmsr.fpscr", f: write_fpscr }, SysHelper { name: "vmsr.fpexc", f: write_fpexc }];
/// VMSR FPSCR.
pub const SYS_WRITE_FPSCR: HelperId = HelperId::new(GROUP, 0);
/// VMSR FPEXC.
pub const SYS_WRITE_FPEXC: HelperId = HelperId::new(GROUP, 1);

macro_rules! table {
    ($($id:ident = $f:expr;)*) => {
        /// What a VFP helper does; the number is its place in [`HELPERS`].
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Vfp { $($id),* }

        /// The VFP helpers.
        pub static HELPERS: &[Helper] = &[$(Helper { name: concat!("vfp.", stringify!($id)), f: $f }),*];
    };
}

table! {
    AddS = add::<Single>; AddD = add::<Double>;
    SubS = sub::<Single>; SubD = sub::<Double>;
    MulS = mul::<Single>; MulD = mul::<Double>;
    NmulS = nmul::<Single>; NmulD = nmul::<Double>;
    DivS = div::<Single>; DivD = div::<Double>;
    MlaS = mla::<Single, false, false>; MlaD = mla::<Double, false, false>;
    MlsS = mla::<Single, false, true>; MlsD = mla::<Double, false, true>;
    NmlaS = mla::<Single, true, true>; NmlaD = mla::<Double, true, true>;
    NmlsS = mla::<Single, true, false>; NmlsD = mla::<Double, true, false>;
    FmaS = fma::<Single, false, false>; FmaD = fma::<Double, false, false>;
    FmsS = fma::<Single, false, true>; FmsD = fma::<Double, false, true>;
    FnmaS = fma::<Single, true, true>; FnmaD = fma::<Double, true, true>;
    FnmsS = fma::<Single, true, false>; FnmsD = fma::<Double, true, false>;
    SqrtS = sqrt::<Single>; SqrtD = sqrt::<Double>;
    CmpS = cmp::<Single, false, false>; CmpD = cmp::<Double, false, false>;
    CmpeS = cmp::<Single, false, true>; CmpeD = cmp::<Double, false, true>;
    CmpZeroS = cmp::<Single, true, false>; CmpZeroD = cmp::<Double, true, false>;
    CmpeZeroS = cmp::<Single, true, true>; CmpeZeroD = cmp::<Double, true, true>;
    SingleToDouble = single_to_double; DoubleToSingle = double_to_single;
    HalfBottomToSingle = half_to_single::<false>; HalfTopToSingle = half_to_single::<true>;
    SingleToHalfBottom = single_to_half::<false>; SingleToHalfTop = single_to_half::<true>;
    ToS32S = to_int::<Single, false, false>; ToS32D = to_int::<Double, false, false>;
    ToS32RzS = to_int::<Single, false, true>; ToS32RzD = to_int::<Double, false, true>;
    ToU32S = to_int::<Single, true, false>; ToU32D = to_int::<Double, true, false>;
    ToU32RzS = to_int::<Single, true, true>; ToU32RzD = to_int::<Double, true, true>;
    FromS32S = from_int::<Single, false>; FromS32D = from_int::<Double, false>;
    FromU32S = from_int::<Single, true>; FromU32D = from_int::<Double, true>;
    FixToS16S = to_fixed::<Single, false, 16>; FixToS16D = to_fixed::<Double, false, 16>;
    FixToS32S = to_fixed::<Single, false, 32>; FixToS32D = to_fixed::<Double, false, 32>;
    FixToU16S = to_fixed::<Single, true, 16>; FixToU16D = to_fixed::<Double, true, 16>;
    FixToU32S = to_fixed::<Single, true, 32>; FixToU32D = to_fixed::<Double, true, 32>;
    FixFromS16S = from_fixed::<Single, false, 16>; FixFromS16D = from_fixed::<Double, false, 16>;
    FixFromS32S = from_fixed::<Single, false, 32>; FixFromS32D = from_fixed::<Double, false, 32>;
    FixFromU16S = from_fixed::<Single, true, 16>; FixFromU16D = from_fixed::<Double, true, 16>;
    FixFromU32S = from_fixed::<Single, true, 32>; FixFromU32D = from_fixed::<Double, true, 32>;
    FlagsFromFpscr = flags_from_fpscr; ReadFpscr = read_fpscr; ReadFpexc = read_fpexc; ReadFpsid = |c, _, _, _| c.model.fpsid; ReadMvfr0 = |c, _, _, _| c.model.mvfr[0]; ReadMvfr1 = |c, _, _, _| c.model.mvfr[1];
}

impl Vfp {
    /// The helper's name for micro-ops; `offset` steps to a neighbour (1: the double-precision form of a single one).
    pub const fn id(self, offset: u32) -> HelperId {
        HelperId::new(GROUP, self as u8 + offset as u8)
    }
}
