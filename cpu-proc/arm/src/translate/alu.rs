//! Data processing (ARM DDI 0406C A5.2.1-A5.2.3, A6.3.1, A6.3.11).

use super::Builder;
use crate::decode::{DpImm, DpReg, DpRsr, Operand, Reg};
use crate::ir::{Op, SINK};
use crate::sysop::id;

/// A data-processing operation; the first sixteen are numbered as in A32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Alu {
    And,
    Eor,
    Sub,
    Rsb,
    Add,
    Adc,
    Sbc,
    Rsc,
    Tst,
    Teq,
    Cmp,
    Cmn,
    Orr,
    Mov,
    Bic,
    Mvn,
    Orn,
}

impl Alu {
    /// The operation with A32 number `n` (0-15).
    pub fn a32(n: u32) -> Self {
        use Alu::*;
        [And, Eor, Sub, Rsb, Add, Adc, Sbc, Rsc, Tst, Teq, Cmp, Cmn, Orr, Mov, Bic, Mvn][n as usize & 15]
    }

    /// Sets flags from the result and the shifter's carry rather than from the adder.
    fn logical(self) -> bool {
        use Alu::*;
        matches!(self, And | Eor | Tst | Teq | Orr | Mov | Bic | Mvn | Orn)
    }

    /// Only sets flags.
    fn compares(self) -> bool {
        matches!(self, Alu::Tst | Alu::Teq | Alu::Cmp | Alu::Cmn)
    }
}

impl Operand for Alu {
    fn asm(&self, out: &mut String) {
        out.push_str(&format!("{self:?}").to_lowercase());
    }
}

/// A constant operand with the carry that its expansion makes, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Const {
    /// The value.
    pub value: u32,
    /// The shifter's carry out; `None` leaves C alone.
    pub carry: Option<bool>,
}

impl Operand for Const {
    fn asm(&self, out: &mut String) {
        out.push_str(&self.value.to_string());
    }
}

/// ARMExpandImm_C (A5.2.4).
pub fn a32_const(imm12: u32) -> Const {
    let rot = (imm12 >> 8 & 15) * 2;
    let value = (imm12 & 0xff).rotate_right(rot);
    Const { value, carry: (rot != 0).then_some(value >> 31 == 1) }
}

/// ThumbExpandImm_C (A6.3.2).
pub fn t32_const(imm12: u32) -> Const {
    let b = imm12 & 0xff;
    if imm12 >> 10 == 0 {
        let value = match imm12 >> 8 & 3 {
            0 => b,
            1 => b << 16 | b,
            2 => b << 24 | b << 8,
            _ => b << 24 | b << 16 | b << 8 | b,
        };
        Const { value, carry: None }
    } else {
        let value = (imm12 & 0x7f | 0x80).rotate_right(imm12 >> 7 & 31);
        Const { value, carry: Some(value >> 31 == 1) }
    }
}

/// A plain constant.
pub fn plain(value: u32) -> Const {
    Const { value, carry: None }
}

/// A shift by a constant (A8.4.3 DecodeImmShift).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// Left by 0-31.
    Lsl(u32),
    /// Right by 1-32.
    Lsr(u32),
    /// Arithmetic right by 1-32.
    Asr(u32),
    /// Rotate right by 1-31.
    Ror(u32),
    /// Rotate right by one through C.
    Rrx,
}

/// DecodeImmShift.
pub fn shift(kind: u32, imm5: u32) -> Shift {
    match (kind & 3, imm5) {
        (0, n) => Shift::Lsl(n),
        (1, n) => Shift::Lsr(if n == 0 { 32 } else { n }),
        (2, n) => Shift::Asr(if n == 0 { 32 } else { n }),
        (_, 0) => Shift::Rrx,
        (_, n) => Shift::Ror(n),
    }
}

impl Operand for Shift {
    fn asm(&self, out: &mut String) {
        match self {
            Shift::Lsl(0) => {}
            Shift::Rrx => out.push_str(", rrx"),
            Shift::Lsl(n) | Shift::Lsr(n) | Shift::Asr(n) | Shift::Ror(n) => {
                let name = &format!("{self:?}").to_lowercase()[..3];
                out.push_str(&format!(", {name} #{n}"));
            }
        }
    }
}

/// A shift by a register, as the type field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShiftKind(pub u32);

impl Operand for ShiftKind {
    fn asm(&self, out: &mut String) {
        out.push_str(["lsl", "lsr", "asr", "ror"][self.0 as usize & 3]);
    }
}

/// Emits `d = R[a] shifted`.
fn emit_shift(b: &mut Builder, sh: Shift, d: u8, a: u8) {
    match sh {
        Shift::Lsl(0) => b.mov(d, a),
        Shift::Lsl(n) => b.op_imm(Op::LslImm, d, a, n),
        Shift::Lsr(32) => b.mov_imm(d, 0),
        Shift::Lsr(n) => b.op_imm(Op::LsrImm, d, a, n),
        Shift::Asr(n) => b.op_imm(Op::AsrImm, d, a, n.min(31)),
        Shift::Ror(n) => b.op_imm(Op::RorImm, d, a, n),
        Shift::Rrx => b.op3(Op::Rrx, d, a, 0),
    }
}

/// Emits C = carry out of the shift of `R[a]`; nothing for LSL #0.
fn emit_carry(b: &mut Builder, sh: Shift, a: u8) {
    let bit = match sh {
        Shift::Lsl(0) => return,
        Shift::Lsl(n) => 32 - n,
        Shift::Lsr(n) | Shift::Asr(n) | Shift::Ror(n) => n - 1,
        Shift::Rrx => 0,
    };
    b.op_imm(Op::SetCBit, SINK, a, bit);
}

/// A slot with `R[rm]` shifted; no flags.
pub fn shifted(b: &mut Builder, rm: Reg, sh: Shift) -> u8 {
    let a = b.reg(rm);
    if sh == Shift::Lsl(0) {
        return a;
    }
    let t = b.temp();
    emit_shift(b, sh, t, a);
    t
}

/// Data processing with a constant.
pub fn dp_imm(b: &mut Builder, x: &DpImm) {
    use Alu::*;
    if returns(x.s, x.op, x.rd) {
        let (n, o) = (b.reg(x.rn), b.imm(x.imm.value));
        return exception_return(b, x.op, n, o);
    }
    let n = if matches!(x.op, Mov | Mvn) { SINK } else { b.reg(x.rn) };
    let (v, s) = (x.imm.value, x.s);
    if let (true, true, Some(c)) = (s, x.op.logical(), x.imm.carry) {
        b.op_imm(Op::SetC, SINK, 0, c.into());
    }
    let d = if x.op.compares() { SINK } else { b.dest(x.rd) };
    match x.op {
        And => b.op_imm(Op::AndImm, d, n, v),
        Bic => b.op_imm(Op::AndImm, d, n, !v),
        Orr => b.op_imm(Op::OrrImm, d, n, v),
        Orn => b.op_imm(Op::OrrImm, d, n, !v),
        Eor => b.op_imm(Op::EorImm, d, n, v),
        Mov => b.mov_imm(d, v),
        Mvn => b.mov_imm(d, !v),
        Add if s => b.op_imm(Op::AddSImm, d, n, v),
        Add => b.op_imm(Op::AddImm, d, n, v),
        Sub if s => b.op_imm(Op::SubSImm, d, n, v),
        Sub => b.op_imm(Op::AddImm, d, n, v.wrapping_neg()),
        Rsb if !s => b.op_imm(Op::RsbImm, d, n, v),
        Tst => b.op_imm(Op::TstImm, SINK, n, v),
        Cmp => b.op_imm(Op::CmpImm, SINK, n, v),
        Cmn => b.op_imm(Op::AddSImm, SINK, n, v),
        Teq => {
            let t = b.t_imm(Op::EorImm, n, v);
            b.op3(Op::SetNz, SINK, t, 0);
        }
        Rsb | Adc | Sbc | Rsc => {
            let o = b.imm(v);
            arith(b, x.op, s, d, n, o);
        }
    }
    conclude(b, x.op, s, x.rd, d);
}

/// Data processing with a register shifted by a constant.
pub fn dp_reg(b: &mut Builder, x: &DpReg) {
    use Alu::*;
    if returns(x.s, x.op, x.rd) {
        let n = b.reg(x.rn);
        let o = shifted(b, x.rm, x.sh);
        return exception_return(b, x.op, n, o);
    }
    let d = if x.op.compares() { SINK } else { b.dest(x.rd) };
    match (x.op, x.sh) {
        (Add, Shift::Lsl(k)) if k != 0 && !x.s => {
            let (n, m) = (b.reg(x.rn), b.reg(x.rm));
            b.emit(Op::AddLsl, d, n, m, k, 0);
        }
        (Orr, Shift::Lsl(k)) if k != 0 && !x.s => {
            let (n, m) = (b.reg(x.rn), b.reg(x.rm));
            b.emit(Op::OrrLsl, d, n, m, k, 0);
        }
        (Mov, sh) => {
            let m = b.reg(x.rm);
            if x.s {
                // The carry comes from the unshifted value, which `d` may replace; RRX reads C before it changes.
                let t = b.temp();
                emit_shift(b, sh, t, m);
                emit_carry(b, sh, m);
                b.mov(d, t);
            } else {
                emit_shift(b, sh, d, m);
            }
        }
        _ => {
            let m = b.reg(x.rm);
            let o = shifted(b, x.rm, x.sh);
            if x.s && x.op.logical() {
                emit_carry(b, x.sh, m);
            }
            let n = if x.op == Mvn { SINK } else { b.reg(x.rn) };
            register_op(b, x.op, x.s, d, n, o);
        }
    }
    conclude(b, x.op, x.s, x.rd, d);
}

/// Data processing with a register shifted by a register. None of the registers may be r15.
pub fn dp_rsr(b: &mut Builder, x: &DpRsr) {
    let uses_n = !matches!(x.op, Alu::Mov | Alu::Mvn);
    if x.rd.0 == 15 && !x.op.compares() || x.rm.0 == 15 || x.rs.0 == 15 || uses_n && x.rn.0 == 15 {
        return b.unpredictable();
    }
    let o = b.temp();
    if x.s && x.op.logical() {
        b.emit(Op::ShiftC, o, x.rm.0, x.rs.0, x.kind.0, 0);
    } else {
        let op = [Op::Lsl, Op::Lsr, Op::Asr, Op::Ror][x.kind.0 as usize & 3];
        b.op3(op, o, x.rm.0, x.rs.0);
    }
    let d = if x.op.compares() { SINK } else { x.rd.0 };
    register_op(b, x.op, x.s, d, x.rn.0, o);
    conclude(b, x.op, x.s, x.rd, d);
}

/// `d = n op o`, with adder flags if `s`; logical flags are up to [`conclude`].
fn register_op(b: &mut Builder, op: Alu, s: bool, d: u8, n: u8, o: u8) {
    use Alu::*;
    match op {
        And => b.op3(Op::And, d, n, o),
        Eor => b.op3(Op::Eor, d, n, o),
        Orr => b.op3(Op::Orr, d, n, o),
        Bic => b.op3(Op::Bic, d, n, o),
        Mov => b.mov(d, o),
        Mvn => b.op3(Op::Mvn, d, o, 0),
        Orn => {
            let t = b.t3(Op::Mvn, o, 0);
            b.op3(Op::Orr, d, n, t);
        }
        Tst => b.op3(Op::Tst, SINK, n, o),
        Teq => {
            let t = b.t3(Op::Eor, n, o);
            b.op3(Op::SetNz, SINK, t, 0);
        }
        Cmp => b.op3(Op::Cmp, SINK, n, o),
        Cmn => b.op3(Op::AddS, SINK, n, o),
        _ => arith(b, op, s, d, n, o),
    }
}

fn arith(b: &mut Builder, op: Alu, s: bool, d: u8, n: u8, o: u8) {
    let (plain, flags, x, y) = match op {
        Alu::Add => (Op::Add, Op::AddS, n, o),
        Alu::Sub => (Op::Sub, Op::SubS, n, o),
        Alu::Rsb => (Op::Sub, Op::SubS, o, n),
        Alu::Adc => (Op::Adc, Op::AdcS, n, o),
        Alu::Sbc => (Op::Sbc, Op::SbcS, n, o),
        _ => (Op::Sbc, Op::SbcS, o, n),
    };
    b.op3(if s { flags } else { plain }, d, x, y);
}

/// N and Z of logical results, and the branch if the result goes to the PC.
fn conclude(b: &mut Builder, op: Alu, s: bool, rd: Reg, d: u8) {
    if op.compares() {
        return;
    }
    if s && op.logical() {
        b.op3(Op::SetNz, SINK, d, 0);
    }
    b.finish(rd, d);
}

/// Whether this is an exception return: flags set and the result goes to the PC (B9.3.20).
fn returns(s: bool, op: Alu, rd: Reg) -> bool {
    s && rd.0 == 15 && !op.compares()
}

/// `PC = n op o; CPSR = SPSR`.
fn exception_return(b: &mut Builder, op: Alu, n: u8, o: u8) {
    let t = b.temp();
    register_op(b, op, false, t, n, o);
    b.sys(id::EXCEPTION_RETURN, SINK, t, SINK, 0);
    b.leave_pc();
}

/// T16 forms: flags are set outside IT blocks.
pub fn dp_imm_s(b: &mut Builder, x: &DpImm) {
    let s = !b.in_it();
    dp_imm(b, &DpImm { s, ..*x });
}

/// As [`dp_imm_s`].
pub fn dp_reg_s(b: &mut Builder, x: &DpReg) {
    let s = !b.in_it();
    dp_reg(b, &DpReg { s, ..*x });
}

/// As [`dp_imm_s`].
pub fn dp_rsr_s(b: &mut Builder, x: &DpRsr) {
    let s = !b.in_it();
    dp_rsr(b, &DpRsr { s, ..*x });
}

/// T32 forms: r15 is no destination there.
pub fn dp_imm_t(b: &mut Builder, x: &DpImm) {
    if x.rd.0 == 15 { b.unpredictable() } else { dp_imm(b, x) }
}

/// As [`dp_imm_t`].
pub fn dp_reg_t(b: &mut Builder, x: &DpReg) {
    if x.rd.0 == 15 { b.unpredictable() } else { dp_reg(b, x) }
}
