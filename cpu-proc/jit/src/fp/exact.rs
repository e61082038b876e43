//! The second look of VFP operations, out of line: at operands under flush-to-zero, and while IXC is clear at whether the result is exact, so
//! that no flag is due. Programs that compute with integers in floating point may never set IXC.

use dynasmrt::DynamicLabel;
use reprise_arm::fp::fpscr::Fpscr;

use super::scalar::Prec;
use crate::emit::{Emitter, fpscr};

/// An operand that flush-to-zero may touch: its precision and register.
pub(super) type Operand = (Prec, u32);

/// Jumps to `no` if a register is denormal.
fn check_denormal(e: &mut Emitter, (p, n): Operand, no: DynamicLabel) {
    let (fine, at) = (e.label(), p.at(n));
    if p.dp {
        x!(e; test DWORD [rbp + at + 4], 0x7ff0_0000 ; jnz =>fine ; mov rax, [rbp + at] ; add rax, rax ; jnz =>no);
    } else {
        x!(e; mov eax, [rbp + at] ; test eax, 0x7f80_0000 ; jnz =>fine ; add eax, eax ; jnz =>no);
    }
    e.place(fine);
}

/// Where FPSCR is known to flush to zero: jumps to `call`, out of line, if an operand is denormal. Those that are known not to be have no look.
pub(super) fn normal(e: &mut Emitter, operands: &[Operand], call: DynamicLabel) {
    for (i, &(p, n)) in operands.iter().enumerate() {
        if operands[..i].contains(&(p, n)) || e.held.is_normal(p.word(n), p.dp) {
            continue;
        }
        let (small, fine, at) = (e.label(), e.label(), p.at(n));
        if p.dp {
            x!(e; test DWORD [rbp + at + 4], 0x7ff0_0000 ; jz =>small);
        } else {
            x!(e; test DWORD [rbp + at], 0x7f80_0000 ; jz =>small);
        }
        e.place(fine);
        e.cold(move |e| {
            e.place(small);
            p.jump_zero_reg(e, n, fine);
            x!(e; jmp =>call);
        });
    }
}

/// The second look at operands under flush-to-zero: to `hot` if none is denormal, else to `no`.
pub(super) fn flushing(e: &mut Emitter, operands: &[Operand], hot: DynamicLabel, no: DynamicLabel) {
    for (i, o) in operands.iter().enumerate() {
        if !operands[..i].contains(o) {
            check_denormal(e, *o, no);
        }
    }
    x!(e; jmp =>hot);
}

/// The second look where [`super::check_vfp`] failed: to `hot` under flush-to-zero with IXC set and no denormal operand, to `no` in other rounding
/// modes. What follows runs to nearest, without flush-to-zero, and with IXC clear.
pub(super) fn look(e: &mut Emitter, operands: &[Operand], hot: DynamicLabel, no: DynamicLabel) {
    let proof = e.label();
    x!(e; mov eax, [rbp + fpscr()] ; test eax, Fpscr::RMODE as i32 ; jnz =>no);
    x!(e; test eax, Fpscr::FZ as i32 ; jz =>proof ; test eax, Fpscr::IXC as i32 ; jz =>no);
    flushing(e, operands, hot, no);
    e.place(proof);
}

/// Flips the sign of `x`.
pub(super) fn negate(e: &mut Emitter, p: Prec, x: u8) {
    if p.dp {
        x!(e; movq rax, Rx(x) ; btc rax, 63 ; movq Rx(x), rax);
    } else {
        x!(e; movd eax, Rx(x) ; xor eax, i32::MIN ; movd Rx(x), eax);
    }
}

/// Jumps to `no` unless `r`, a finite `a + b`, is exact: Knuth's two-sum gives the error. Clobbers `a`, `b`, 4 and 5.
pub(super) fn sum(e: &mut Emitter, p: Prec, r: u8, a: u8, b: u8, no: DynamicLabel) {
    x!(e; movaps xmm4, Rx(r) ; movaps xmm5, Rx(r));
    fp!(e, p; subss / subsd xmm4, Rx(a));
    fp!(e, p; subss / subsd xmm5, xmm4);
    fp!(e, p; subss / subsd Rx(a), xmm5);
    fp!(e, p; subss / subsd Rx(b), xmm4);
    fp!(e, p; addss / addsd Rx(a), Rx(b));
    x!(e; xorps xmm4, xmm4);
    equal(e, p, a, 4, no);
}

/// Jumps to `no` unless `a` and `b` are equal.
pub(super) fn equal(e: &mut Emitter, p: Prec, a: u8, b: u8, no: DynamicLabel) {
    fp!(e, p; ucomiss / ucomisd Rx(a), Rx(b));
    x!(e; jne =>no ; jp =>no);
}

/// Jumps to `no` unless the product of `a` and `b` fits the format: enough zeros below the significands.
pub(super) fn product(e: &mut Emitter, p: Prec, a: u8, b: u8, no: DynamicLabel) {
    if p.dp {
        x!(e; movq rax, Rx(a) ; bts rax, 52 ; bsf rax, rax ; movq rcx, Rx(b) ; bts rcx, 52 ; bsf rcx, rcx);
        x!(e; add eax, ecx ; cmp eax, 52 ; jbe =>no);
    } else {
        x!(e; movd eax, Rx(a) ; bts eax, 23 ; bsf eax, eax ; movd ecx, Rx(b) ; bts ecx, 23 ; bsf ecx, ecx);
        x!(e; add eax, ecx ; cmp eax, 23 ; jbe =>no);
    }
}
