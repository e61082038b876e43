//! Pure helpers of the integer instruction set.

use crate::ir::{Helper, HelperId};
use crate::state::{Cpu, Flags};

macro_rules! helpers {
    ($($name:ident = $index:literal, $f:ident;)*) => {
        /// Names of the helpers of group 0.
        pub mod id {
            use super::HelperId;
            $(
                #[doc = concat!("`", stringify!($f), "`.")]
                pub const $name: HelperId = HelperId::new(0, $index);
            )*
        }
        /// Group 0 of [`crate::ir::HELPERS`].
        pub const HELPERS: &[Helper] = &[$(Helper { name: stringify!($f), f: $f }),*];
    };
}

helpers! {
    ADD_Q = 0, add_q;
    LESS_U = 1, less_u;
    SMM_CARRY = 2, smm_carry;
    DUAL_ADD = 3, dual_add;
    SXTB16 = 4, sxtb16;
    ADD16 = 5, add16;
    SSAT = 6, ssat;
    USAT = 7, usat;
    SSAT16 = 8, ssat16;
    USAT16 = 9, usat16;
    Q_ADD = 10, q_add;
    PARALLEL = 11, parallel;
    SEL = 12, sel;
    USAD8 = 13, usad8;
    MSR_FLAGS = 14, msr_flags;
    MRS_CPSR = 15, mrs_cpsr;
    SEV = 16, sev;
}

/// `a + b`, Q on signed overflow.
fn add_q(cpu: &mut Cpu, a: u32, b: u32, _: u32) -> u32 {
    let (v, o) = (a as i32).overflowing_add(b as i32);
    cpu.q |= u32::from(o);
    v as u32
}

/// `a < b`, unsigned.
fn less_u(_: &mut Cpu, a: u32, b: u32, _: u32) -> u32 {
    u32::from(a < b)
}

/// What the low word of SMMLA, SMMLS adds to the high word: `k` bit 0 subtracts `lo` from 0, bit 1 rounds.
fn smm_carry(_: &mut Cpu, lo: u32, _: u32, k: u32) -> u32 {
    let low = if k & 1 != 0 { -i64::from(lo) } else { i64::from(lo) };
    let round = if k & 2 != 0 { 0x8000_0000 } else { 0 };
    ((low + round) >> 32) as u32
}

/// SMLAD: `a + b + regs[c]` in unbounded arithmetic; Q if it does not fit (A8.8.176).
fn dual_add(cpu: &mut Cpu, a: u32, b: u32, c: u32) -> u32 {
    let sum = i64::from(a as i32) + i64::from(b as i32) + i64::from(cpu.regs[c as usize & 15] as i32);
    cpu.q |= u32::from(i32::try_from(sum).is_err());
    sum as u32
}

/// Bytes 0 and 2, sign-extended to halves.
fn sxtb16(_: &mut Cpu, a: u32, _: u32, _: u32) -> u32 {
    (a as i8 as u16 as u32) | ((a >> 16) as i8 as u16 as u32) << 16
}

/// Halves added apart.
fn add16(_: &mut Cpu, a: u32, b: u32, _: u32) -> u32 {
    (a.wrapping_add(b) & 0xffff) | ((a >> 16).wrapping_add(b >> 16) << 16)
}

fn signed_sat(cpu: &mut Cpu, v: i64, bits: u32) -> i64 {
    let (lo, hi) = (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1);
    let r = v.clamp(lo, hi);
    cpu.q |= u32::from(r != v);
    r
}

fn unsigned_sat(cpu: &mut Cpu, v: i64, bits: u32) -> i64 {
    let r = v.clamp(0, (1i64 << bits) - 1);
    cpu.q |= u32::from(r != v);
    r
}

/// SSAT to `bits` (1-32).
fn ssat(cpu: &mut Cpu, a: u32, _: u32, bits: u32) -> u32 {
    signed_sat(cpu, i64::from(a as i32), bits) as u32
}

/// USAT to `bits` (0-31).
fn usat(cpu: &mut Cpu, a: u32, _: u32, bits: u32) -> u32 {
    unsigned_sat(cpu, i64::from(a as i32), bits) as u32
}

/// SSAT16 to `bits` (1-16).
fn ssat16(cpu: &mut Cpu, a: u32, _: u32, bits: u32) -> u32 {
    let lo = signed_sat(cpu, i64::from(a as i16), bits) as u32 & 0xffff;
    lo | (signed_sat(cpu, i64::from((a >> 16) as i16), bits) as u32) << 16
}

/// USAT16 to `bits` (0-15).
fn usat16(cpu: &mut Cpu, a: u32, _: u32, bits: u32) -> u32 {
    let lo = unsigned_sat(cpu, i64::from(a as i16), bits) as u32;
    lo | (unsigned_sat(cpu, i64::from((a >> 16) as i16), bits) as u32) << 16
}

/// `a` is rm, `b` is rn; `op` bit 0 subtracts, bit 1 doubles rn first.
fn q_add(cpu: &mut Cpu, a: u32, b: u32, op: u32) -> u32 {
    let (m, mut n) = (i64::from(a as i32), i64::from(b as i32));
    if op & 2 != 0 {
        n = signed_sat(cpu, 2 * n, 32);
    }
    signed_sat(cpu, if op & 1 != 0 { m - n } else { m + n }, 32) as u32
}

/// One lane of a parallel operation of `bits` bits; gives the lane and whether GE is set for it.
fn lane(kind: u32, sub: bool, a: u32, b: u32, bits: u32) -> (u32, bool) {
    let signed = kind < 4;
    let ext = |v: u32| if signed { i64::from((v << (32 - bits)) as i32 >> (32 - bits)) } else { i64::from(v) };
    let (x, y) = (ext(a), ext(b));
    let r = if sub { x - y } else { x + y };
    let ge = if signed || sub { r >= 0 } else { r >> bits != 0 };
    let v = match kind & 3 {
        1 => r,
        2 if signed => r.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        2 => r.clamp(0, (1 << bits) - 1),
        _ => r >> 1,
    };
    (v as u32 & ((1 << bits) - 1), ge)
}

/// Parallel addition and subtraction: `op` is kind (5:3) and operation (2:0) as in `media::Par`.
fn parallel(cpu: &mut Cpu, a: u32, b: u32, op: u32) -> u32 {
    let (kind, op) = (op >> 3, op & 7);
    let (mut out, mut ge) = (0, 0);
    if op & 4 != 0 {
        for i in 0..4 {
            let (v, g) = lane(kind, op == 7, a >> (8 * i) & 0xff, b >> (8 * i) & 0xff, 8);
            out |= v << (8 * i);
            ge |= u32::from(g) << i;
        }
    } else {
        // ASX and SAX exchange the halves of the second operand.
        let b = if op == 1 || op == 2 { b.rotate_right(16) } else { b };
        let subs = [op == 1 || op == 3, op == 2 || op == 3];
        for (i, sub) in subs.into_iter().enumerate() {
            let (v, g) = lane(kind, sub, a >> (16 * i) & 0xffff, b >> (16 * i) & 0xffff, 16);
            out |= v << (16 * i);
            ge |= if g { 3 << (2 * i) } else { 0 };
        }
    }
    if kind & 3 == 1 {
        cpu.ge = ge;
    }
    out
}

/// Bytes of `a` where GE is set, of `b` elsewhere.
fn sel(cpu: &mut Cpu, a: u32, b: u32, _: u32) -> u32 {
    let mask = (0..4).fold(0u32, |m, i| if cpu.ge >> i & 1 != 0 { m | 0xff << (8 * i) } else { m });
    a & mask | b & !mask
}

/// Sum of absolute differences of bytes.
fn usad8(_: &mut Cpu, a: u32, b: u32, _: u32) -> u32 {
    a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(x, y)| u32::from(x.abs_diff(y))).sum()
}

/// The flag and GE bytes of an MSR: `fields` bit 3 NZCVQ, bit 2 GE, bit 4 NZCV alone.
fn msr_flags(cpu: &mut Cpu, a: u32, _: u32, fields: u32) -> u32 {
    if fields & 8 != 0 {
        cpu.flags = Flags::from_psr(a);
        cpu.q = a >> 27 & 1;
    }
    if fields & 16 != 0 {
        cpu.flags = Flags::from_psr(a);
    }
    if fields & 4 != 0 {
        cpu.ge = a >> 16 & 15;
    }
    0
}

/// What MRS shows of the CPSR.
fn mrs_cpsr(cpu: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    cpu.mrs_cpsr()
}

/// SEV: sets the event registers.
fn sev(cpu: &mut Cpu, _: u32, _: u32, _: u32) -> u32 {
    cpu.send_event();
    0
}
