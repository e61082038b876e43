//! VFPv4 (ARM DDI 0406C A7.5 to A7.9): semantic functions of `isa/vfp.decode`.
//!
//! Arithmetic goes to the helpers in [`crate::fp::vfp_helpers`]; moves, loads and stores are micro-ops.
//!
//! # Short vectors
//! Cortex-A15 and A9 have no short vectors (MVFR0 bits 27:24 are 0). FPSCR.LEN and STRIDE can still be written, and while either is not 0 every
//! instruction that a vector core would have run as a vector (all but compares, conversions, moves to and from core registers, loads
//! and stores) takes UNDEF, so that an emulation could step in (ARM DDI 0406C appendix K.5.3). That state is part of the block key.

use super::Builder;
use crate::decode::{Operand, Reg, Vfp1, Vfp3, VfpAcross, VfpCmp, VfpFix, VfpImm, VfpMem, VfpMove2, VfpMulti, VfpSys};
use crate::fp::simd_helpers::Misc;
use crate::fp::vfp_helpers::{SYS_WRITE_FPEXC, SYS_WRITE_FPSCR, Vfp};
use crate::ir::{Op, SINK};

/// A single or double precision register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FReg {
    /// Number: 0-31.
    pub n: u32,
    /// Double precision.
    pub dp: bool,
}

impl Operand for FReg {
    fn asm(&self, out: &mut String) {
        out.push(if self.dp { 'd' } else { 's' });
        out.push_str(&self.n.to_string());
    }
}

/// The register that `v` and the extra bit `x` name, in double precision if `dp`.
pub fn fr(dp: u32, x: u32, v: u32) -> FReg {
    if dp != 0 { FReg { n: x << 4 | v, dp: true } } else { FReg { n: v << 1 | x, dp: false } }
}

/// A data type suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dt(pub &'static str);

impl Operand for Dt {
    fn asm(&self, out: &mut String) {
        out.push_str(self.0);
    }
}

/// f32 or f64.
pub fn fdt(dp: u32) -> Dt {
    Dt(if dp != 0 { "f64" } else { "f32" })
}

/// The types of VCVT from an integer, signed if `o`.
pub fn from_int_dt(dp: u32, o: u32) -> Dt {
    Dt(match (dp, o) {
        (0, 0) => "f32.u32",
        (0, _) => "f32.s32",
        (_, 0) => "f64.u32",
        _ => "f64.s32",
    })
}

/// The types of VCVT to an integer, signed if `o`.
pub fn to_int_dt(dp: u32, o: u32) -> Dt {
    Dt(match (dp, o) {
        (0, 0) => "u32.f32",
        (0, _) => "s32.f32",
        (_, 0) => "u32.f64",
        _ => "s32.f64",
    })
}

impl Builder {
    /// Whether these registers may be used: D16 to D31 can be disabled. Emits UNDEF if not.
    fn need_d(&mut self, regs: &[FReg]) -> bool {
        let ok = self.mode().d32_enabled || regs.iter().all(|r| !r.dp || r.n < 16);
        if !ok {
            self.undef();
        }
        ok
    }

    /// The checks of an instruction that is scalar on this core and a vector one on cores with short vectors.
    fn need_scalar(&mut self, regs: &[FReg]) -> bool {
        if !self.need_vfp() {
            return false;
        }
        if self.mode().vfp_vectors {
            self.undef();
            return false;
        }
        self.need_d(regs)
    }
}

/// Word number of the low half of a register in the extension register file.
fn word(r: FReg) -> u32 {
    if r.dp { 2 * r.n } else { r.n }
}

/// Three-operand arithmetic; the helper named is the single-precision one, its neighbour is the double-precision one.
pub fn vfp3(b: &mut Builder, a: &Vfp3) {
    let fused = matches!(a.op, Vfp::FmaS | Vfp::FmsS | Vfp::FnmaS | Vfp::FnmsS);
    if fused && !b.need_extended() {
        return;
    }
    if b.need_scalar(&[a.d, a.n, a.m]) {
        b.helper_k(a.op.id(a.d.dp.into()), SINK, a.d.n, a.n.n as u8, a.m.n as u8);
    }
}

/// VSQRT.
pub fn vsqrt(b: &mut Builder, a: &Vfp1) {
    if b.need_scalar(&[a.d, a.m]) {
        b.helper_k(Vfp::SqrtS.id(a.d.dp.into()), SINK, a.d.n, a.m.n as u8, 0);
    }
}

/// Moves `m` to `d` and applies `op` with `imm` to the word that holds the sign.
fn copy(b: &mut Builder, d: FReg, m: FReg, op: Option<(Op, u32)>) {
    let words = if d.dp { 2 } else { 1 };
    for i in 0..words {
        let mut t = b.t_imm(Op::ExtGet, 0, word(m) + i);
        if let (Some((op, imm)), true) = (op, i + 1 == words) {
            t = b.t_imm(op, t, imm);
        }
        b.op_imm(Op::ExtSet, SINK, t, word(d) + i);
    }
}

/// VMOV (register).
pub fn vmov_reg(b: &mut Builder, a: &Vfp1) {
    if b.need_scalar(&[a.d, a.m]) {
        copy(b, a.d, a.m, None);
    }
}

/// VABS.
pub fn vabs(b: &mut Builder, a: &Vfp1) {
    if b.need_scalar(&[a.d, a.m]) {
        copy(b, a.d, a.m, Some((Op::AndImm, 0x7fff_ffff)));
    }
}

/// VNEG.
pub fn vneg(b: &mut Builder, a: &Vfp1) {
    if b.need_scalar(&[a.d, a.m]) {
        copy(b, a.d, a.m, Some((Op::EorImm, 0x8000_0000)));
    }
}

/// VMOV (immediate).
pub fn vmov_imm(b: &mut Builder, a: &VfpImm) {
    if !b.need_scalar(&[a.d]) {
        return;
    }
    if a.d.dp {
        let v = crate::fp::simd::vfp_imm_double(a.imm);
        set_words(b, word(a.d), &[v as u32, (v >> 32) as u32]);
    } else {
        set_words(b, word(a.d), &[crate::fp::simd::vfp_imm_single(a.imm)]);
    }
}

/// Puts constants in consecutive words of the extension register file.
pub(super) fn set_words(b: &mut Builder, first: u32, words: &[u32]) {
    let mut last: Option<(u32, u8)> = None;
    for (i, &w) in words.iter().enumerate() {
        let t = match last {
            Some((v, t)) if v == w => t,
            _ => b.imm(w),
        };
        last = Some((w, t));
        b.op_imm(Op::ExtSet, SINK, t, first + i as u32);
    }
}

/// VCMP, VCMPE, with a register or with zero.
pub fn vcmp(b: &mut Builder, a: &VfpCmp) {
    if b.need_vfp() && b.need_d(&[a.d, a.m]) {
        let op = match (a.zero, a.signal) {
            (false, false) => Vfp::CmpS,
            (false, true) => Vfp::CmpeS,
            (true, false) => Vfp::CmpZeroS,
            (true, true) => Vfp::CmpeZeroS,
        };
        b.helper_k(op.id(a.d.dp.into()), SINK, a.d.n, a.m.n as u8, 0);
    }
}

/// Conversions with a helper of their own.
pub fn vcvt(b: &mut Builder, a: &VfpAcross) {
    if b.need_vfp() && b.need_d(&[a.d, a.m]) {
        b.helper_k(a.op.id(a.off), SINK, a.d.n, a.m.n as u8, 0);
    }
}

/// VCVT between floating point and fixed point, in one register.
pub fn vcvt_fixed(b: &mut Builder, a: &VfpFix) {
    if !b.need_vfp() || !b.need_d(&[a.d]) {
        return;
    }
    let bits = if a.word { 32 } else { 16 };
    let Some(frac) = 32u32.min(bits).checked_sub(a.imm) else { return b.unpredictable() };
    let base = if a.to_fixed { Vfp::FixToS16S } else { Vfp::FixFromS16S };
    let off = u32::from(a.unsigned) << 2 | u32::from(a.word) << 1 | u32::from(a.d.dp);
    b.helper_k(base.id(off), SINK, a.d.n, frac as u8, 0);
}

/// The base of a load or store: r15 reads as the aligned PC.
fn base(b: &mut Builder, rn: Reg) -> u8 {
    if rn.0 == 15 { b.imm(b.pc_aligned()) } else { rn.0 }
}

/// VLDR.
pub fn vldr(b: &mut Builder, a: &VfpMem) {
    if b.need_vfp() && b.need_d(&[a.d]) {
        let base = base(b, a.rn);
        b.load_ext(word(a.d), if a.d.dp { 2 } else { 1 }, base, offset(a), a.d.dp);
    }
}

/// VSTR.
pub fn vstr(b: &mut Builder, a: &VfpMem) {
    if b.need_vfp() && b.need_d(&[a.d]) {
        if a.rn.0 == 15 && b.mode().thumb {
            return b.unpredictable();
        }
        let base = base(b, a.rn);
        b.store_ext(word(a.d), if a.d.dp { 2 } else { 1 }, base, offset(a), a.d.dp);
    }
}

fn offset(a: &VfpMem) -> u32 {
    if a.add { a.imm * 4 } else { (a.imm * 4).wrapping_neg() }
}

/// VLDM, VSTM, VPUSH, VPOP, and the FLDMX and FSTMX forms with an odd count.
fn multiple(b: &mut Builder, a: &VfpMulti, load: bool) {
    if !b.need_vfp() {
        return;
    }
    let regs = if a.d.dp { a.imm / 2 } else { a.imm };
    let last = a.d.n + regs;
    let wrong_pc = a.rn.0 == 15 && (a.wback || b.mode().thumb);
    if regs == 0 || last > 32 || a.d.dp && regs > 16 || wrong_pc {
        return b.unpredictable();
    }
    if !b.need_d(&[FReg { n: last - 1, dp: a.d.dp }]) {
        return;
    }
    let bytes = a.imm * 4;
    let off = if a.down { bytes.wrapping_neg() } else { 0 };
    let words = if a.d.dp { 2 * regs } else { regs };
    let rn = base(b, a.rn);
    if load {
        b.load_ext(word(a.d), words as u8, rn, off, a.d.dp);
    } else {
        b.store_ext(word(a.d), words as u8, rn, off, a.d.dp);
    }
    if a.wback {
        b.op_imm(Op::AddImm, rn, rn, if a.down { off } else { bytes });
    }
}

/// VLDM, VPOP.
pub fn vldm(b: &mut Builder, a: &VfpMulti) {
    multiple(b, a, true);
}

/// VSTM, VPUSH.
pub fn vstm(b: &mut Builder, a: &VfpMulti) {
    multiple(b, a, false);
}

/// VMOV between two core registers and two singles or a double.
pub fn vmov2(b: &mut Builder, a: &VfpMove2) {
    if !b.need_vfp() || !b.need_d(&[a.m]) {
        return;
    }
    let (t, t2) = (a.rt.0, a.rt2.0);
    if t == 15 || t2 == 15 || a.to_core && t == t2 || !a.m.dp && a.m.n == 31 {
        return b.unpredictable();
    }
    let w = word(a.m);
    if a.to_core {
        b.op_imm(Op::ExtGet, t, 0, w);
        b.op_imm(Op::ExtGet, t2, 0, w + 1);
    } else {
        b.op_imm(Op::ExtSet, SINK, t, w);
        b.op_imm(Op::ExtSet, SINK, t2, w + 1);
    }
}

/// VMOV between a core register and a single.
pub fn vmov_core_single(b: &mut Builder, a: &VfpSys) {
    if !b.need_vfp() {
        return;
    }
    if a.rt.0 == 15 {
        return b.unpredictable();
    }
    if a.to_core {
        b.op_imm(Op::ExtGet, a.rt.0, 0, a.reg);
    } else {
        b.op_imm(Op::ExtSet, SINK, a.rt.0, a.reg);
    }
}

/// VMOV from a core register to a lane: `reg` is `d | lane << 8 | size << 16`.
pub fn vmov_to_lane(b: &mut Builder, a: &VfpSys) {
    let Some((d, lane, size)) = lane_checks(b, a) else { return };
    if size == 2 {
        b.op_imm(Op::ExtSet, SINK, a.rt.0, 2 * d + lane);
    } else {
        b.helper(Misc::SetElement.id(0), SINK, a.rt.0, a.rt.0, a.reg & 0xff_ffff);
    }
}

/// VMOV from a lane to a core register, bit 24 of `reg`: zero-extend.
pub fn vmov_from_lane(b: &mut Builder, a: &VfpSys) {
    let Some((d, lane, size)) = lane_checks(b, a) else { return };
    let t = a.rt.0;
    if size == 2 {
        return b.op_imm(Op::ExtGet, t, 0, 2 * d + lane);
    }
    let (at, bits) = (lane << (size + 3), 8 << size);
    let w = b.t_imm(Op::ExtGet, 0, 2 * d + at / 32);
    if a.reg >> 24 & 1 != 0 {
        b.emit(Op::Ubfx, t, w, 0, at % 32, u32::MAX >> (32 - bits));
    } else {
        b.emit(Op::Sbfx, t, w, 0, at % 32, bits);
    }
}

/// The checks of the lane moves: lanes below a word belong to Advanced SIMD.
fn lane_checks(b: &mut Builder, a: &VfpSys) -> Option<(u32, u32, u32)> {
    let (d, lane, size) = (a.reg & 0xff, a.reg >> 8 & 0xff, a.reg >> 16 & 0xff);
    let enabled = if size == 2 { b.need_vfp() } else { b.need_simd() };
    if !enabled || !b.need_d(&[FReg { n: d, dp: true }]) {
        return None;
    }
    if a.rt.0 == 15 {
        b.unpredictable();
        return None;
    }
    Some((d, lane, size))
}

/// The lane that opc1:opc2 (four bits) name, packed with the D register for [`vmov_to_lane`].
pub fn lane(d: u32, opc: u32) -> u32 {
    let (size, lane) = match opc {
        8..=15 => (0, opc & 7),
        _ if opc & 1 != 0 => (1, opc >> 1 & 3),
        _ => (2, opc >> 2 & 1),
    };
    d | lane << 8 | size << 16
}

/// VDUP from a core register: `reg` is `d | doublewords << 8 | size << 16`.
pub fn vdup_core(b: &mut Builder, a: &VfpSys) {
    let (d, count) = (a.reg & 0xff, a.reg >> 8 & 0xff);
    if !b.need_simd() || !b.need_d(&[FReg { n: d + count - 1, dp: true }]) {
        return;
    }
    if a.rt.0 == 15 {
        return b.unpredictable();
    }
    b.helper(Misc::DupCore.id(0), SINK, a.rt.0, a.rt.0, a.reg);
}

/// VMRS.
pub fn vmrs(b: &mut Builder, a: &VfpSys) {
    if a.reg == 1 {
        if !b.need_vfp() {
            return;
        }
        return if a.rt.0 == 15 {
            b.helper_k(Vfp::FlagsFromFpscr.id(0), SINK, 0, 0, 0);
        } else {
            b.helper_k(Vfp::ReadFpscr.id(0), a.rt.0, 0, 0, 0);
        };
    }
    if !system_access(b) {
        return;
    }
    if a.rt.0 == 15 {
        return b.unpredictable();
    }
    let id = match a.reg {
        0 => Vfp::ReadFpsid,
        6 => Vfp::ReadMvfr1,
        7 => Vfp::ReadMvfr0,
        8 => Vfp::ReadFpexc,
        _ => return b.unknown(),
    };
    b.helper_k(id.id(0), a.rt.0, 0, 0, 0);
}

/// VMSR.
pub fn vmsr(b: &mut Builder, a: &VfpSys) {
    let id = match a.reg {
        1 => {
            if !b.need_vfp() {
                return;
            }
            SYS_WRITE_FPSCR
        }
        _ if !system_access(b) => return,
        // Writes to the ID register are ignored (B4.1.60).
        0 => return,
        8 => SYS_WRITE_FPEXC,
        _ => return b.unknown(),
    };
    if a.rt.0 == 15 {
        return b.unpredictable();
    }
    b.sys(id, SINK, a.rt.0, a.rt.0, 0);
    b.leave();
}

/// FPSID, MVFRn and FPEXC: PL1 only, whatever FPEXC.EN says.
fn system_access(b: &mut Builder) -> bool {
    if !b.need_vfp_access() {
        return false;
    }
    let ok = b.mode().privileged;
    if !ok {
        b.undef();
    }
    ok
}
