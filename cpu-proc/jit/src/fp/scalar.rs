//! VFP arithmetic and comparisons.

use dynasmrt::DynamicLabel;
use reprise_arm::fp::fpscr::Fpscr;
use reprise_arm::fp::vfp_helpers::Vfp;

use super::{Ctx, Table, check_vfp};
use crate::emit::{Emitter, ext, fpscr};

/// Assembles the single- or double-precision instruction.
macro_rules! fp {
    ($e:expr, $p:expr; $s:ident / $d:ident $($t:tt)*) => {
        if $p.dp { x!($e; $d $($t)*) } else { x!($e; $s $($t)*) }
    };
}

/// A precision.
#[derive(Clone, Copy)]
pub(super) struct Prec {
    /// Double.
    pub(super) dp: bool,
}

/// When a zero result is exact.
#[derive(Clone, Copy)]
pub(super) enum Zero {
    /// Always: sums.
    Always,
    /// When one of these registers is zero: products and the like. The two may be the same.
    If(u32, u32),
}

impl Prec {
    /// Offset of register `n` from `rbp`.
    pub(super) fn at(self, n: u32) -> i32 {
        ext(if self.dp { 2 * n } else { n })
    }

    pub(super) fn load(self, e: &mut Emitter, x: u8, n: u32) {
        fp!(e, self; movss / movsd Rx(x), [rbp + self.at(n)]);
    }

    pub(super) fn store(self, e: &mut Emitter, x: u8, n: u32) {
        fp!(e, self; movss / movsd [rbp + self.at(n)], Rx(x));
    }

    /// Jumps to `bad` unless the exponent of `x` is neither of the two lowest nor of the two highest: adding one to its upper bits makes
    /// both pairs small.
    pub(super) fn sure(self, e: &mut Emitter, x: u8, bad: DynamicLabel) {
        if self.dp {
            x!(e; pextrw eax, Rx(x), 3 ; add eax, 0x20 ; test eax, 0x7fc0 ; jz =>bad);
        } else {
            x!(e; movd eax, Rx(x) ; add eax, 0x0100_0000 ; test eax, 0x7e00_0000 ; jz =>bad);
        }
    }

    /// Jumps to `bad` if `x` is zero, denormal or has the lowest exponent of normal numbers.
    fn big(self, e: &mut Emitter, x: u8, bad: DynamicLabel) {
        if self.dp {
            x!(e; pextrw eax, Rx(x), 3 ; test eax, 0x7fe0 ; jz =>bad);
        } else {
            x!(e; movd eax, Rx(x) ; test eax, 0x7f00_0000 ; jz =>bad);
        }
    }

    /// Jumps to `no` if register `n` is a denormal that FPSCR has flushed to zero.
    pub(super) fn operand(self, e: &mut Emitter, n: u32, no: DynamicLabel) {
        let (low, back) = (e.label(), e.label());
        let at = self.at(n);
        if self.dp {
            x!(e; test DWORD [rbp + at + 4], 0x7ff0_0000 ; jz =>low);
        } else {
            x!(e; test DWORD [rbp + at], 0x7f80_0000 ; jz =>low);
        }
        e.place(back);
        e.cold(move |e| {
            e.place(low);
            x!(e; test BYTE [rbp + fpscr() + 3], (Fpscr::FZ >> 24) as i8 ; jz =>back);
            self.jump_zero_reg(e, n, back);
            x!(e; jmp =>no);
        });
    }

    /// [`Self::operand`] of two registers.
    fn operands(self, e: &mut Emitter, n: u32, m: u32, no: DynamicLabel) {
        self.operand(e, n, no);
        if m != n {
            self.operand(e, m, no);
        }
    }

    /// Jumps to `yes` if register `n` is a zero.
    fn jump_zero_reg(self, e: &mut Emitter, n: u32, yes: DynamicLabel) {
        if self.dp {
            x!(e; mov rax, [rbp + self.at(n)] ; add rax, rax ; jz =>yes);
        } else {
            x!(e; mov eax, [rbp + self.at(n)] ; add eax, eax ; jz =>yes);
        }
    }

    /// Jumps to `yes` if `x` is an exact zero.
    fn jump_exact_zero(self, e: &mut Emitter, x: u8, zero: Zero, yes: DynamicLabel) {
        let no = e.label();
        let first = if matches!(zero, Zero::Always) { yes } else { no };
        if self.dp {
            x!(e; movq rax, Rx(x) ; add rax, rax);
        } else {
            x!(e; movd eax, Rx(x) ; add eax, eax);
        }
        match zero {
            Zero::Always => x!(e; jz =>first),
            Zero::If(n, m) => {
                x!(e; jnz =>no);
                self.jump_zero_reg(e, n, yes);
                if m != n {
                    self.jump_zero_reg(e, m, yes);
                }
            }
        }
        e.place(no);
    }

    /// Loads register `n` with its sign flipped.
    fn load_negated(self, e: &mut Emitter, x: u8, n: u32) {
        if self.dp {
            x!(e; mov rax, [rbp + self.at(n)] ; btc rax, 63 ; movq Rx(x), rax);
        } else {
            x!(e; mov eax, [rbp + self.at(n)] ; xor eax, i32::MIN ; movd Rx(x), eax);
        }
    }

    /// Stores `x` with its sign flipped.
    fn store_negated(self, e: &mut Emitter, x: u8, n: u32) {
        if self.dp {
            x!(e; movq rax, Rx(x) ; btc rax, 63 ; mov [rbp + self.at(n)], rax);
        } else {
            x!(e; movd eax, Rx(x) ; xor eax, i32::MIN ; mov [rbp + self.at(n)], eax);
        }
    }
}

/// The end of an operation with its result in `x`: stores it when it is sure or an exact zero, and else calls the helper. `slow` goes
/// straight to the helper.
pub(super) fn finish(
    e: &mut Emitter,
    c: &Ctx,
    p: Prec,
    x: u8,
    zero: Zero,
    slow: DynamicLabel,
    store: impl FnOnce(&mut Emitter),
) {
    let (odd, good, done) = (e.label(), e.label(), e.label());
    p.sure(e, x, odd);
    e.place(good);
    store(e);
    e.place(done);
    let c = *c;
    e.cold(move |e| {
        e.place(odd);
        p.jump_exact_zero(e, x, zero, good);
        e.place(slow);
        c.helper(e, done);
    });
}

/// Destination and operands.
fn regs(c: &Ctx) -> (u32, u32, u32) {
    (c.u.imm, c.u.a.into(), c.u.b.into())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Two {
    Add,
    Sub,
    Mul,
    Nmul,
    Div,
}

fn two(e: &mut Emitter, c: &Ctx, p: Prec, op: Two) -> bool {
    let (d, n, m) = regs(c);
    let slow = e.label();
    check_vfp(e, slow);
    p.operands(e, n, m, slow);
    p.load(e, 0, n);
    let at = p.at(m);
    match op {
        Two::Add => fp!(e, p; addss / addsd xmm0, [rbp + at]),
        Two::Sub => fp!(e, p; subss / subsd xmm0, [rbp + at]),
        Two::Mul | Two::Nmul => fp!(e, p; mulss / mulsd xmm0, [rbp + at]),
        Two::Div => fp!(e, p; divss / divsd xmm0, [rbp + at]),
    }
    let zero = match op {
        Two::Add | Two::Sub => Zero::Always,
        Two::Mul | Two::Nmul => Zero::If(n, m),
        Two::Div => Zero::If(n, n),
    };
    finish(e, c, p, 0, zero, slow, |e| if op == Two::Nmul { p.store_negated(e, 0, d) } else { p.store(e, 0, d) });
    true
}

/// VMLA and its kin, rounded twice: the product must be sure or an exact zero, and then the sum.
fn mla(e: &mut Emitter, c: &Ctx, p: Prec, neg_d: bool, neg_p: bool) -> bool {
    let (d, n, m) = regs(c);
    let (slow, odd, sum) = (e.label(), e.label(), e.label());
    check_vfp(e, slow);
    p.operands(e, n, m, slow);
    if d != n && d != m {
        p.operand(e, d, slow);
    }
    p.load(e, 1, n);
    fp!(e, p; mulss / mulsd xmm1, [rbp + p.at(m)]);
    // An infinite or undefined product shows in the sum.
    p.big(e, 1, odd);
    e.place(sum);
    let at = p.at(d);
    let r = match (neg_d, neg_p) {
        (false, false) => {
            fp!(e, p; addss / addsd xmm1, [rbp + at]);
            1
        }
        (true, false) => {
            fp!(e, p; subss / subsd xmm1, [rbp + at]);
            1
        }
        (false, true) => {
            p.load(e, 0, d);
            fp!(e, p; subss / subsd xmm0, xmm1);
            0
        }
        (true, true) => {
            p.load_negated(e, 0, d);
            fp!(e, p; subss / subsd xmm0, xmm1);
            0
        }
    };
    finish(e, c, p, r, Zero::Always, slow, |e| p.store(e, r, d));
    e.cold(move |e| {
        e.place(odd);
        p.jump_exact_zero(e, 1, Zero::If(n, m), sum);
        x!(e; jmp =>slow);
    });
    true
}

/// VFMA and its kin, rounded once. A zero is exact for sure only when the product is.
fn fma(e: &mut Emitter, c: &Ctx, p: Prec, neg_d: bool, neg_n: bool) -> bool {
    if !e.features.fma {
        return false;
    }
    let (d, n, m) = regs(c);
    let slow = e.label();
    check_vfp(e, slow);
    p.operands(e, n, m, slow);
    if d != n && d != m {
        p.operand(e, d, slow);
    }
    p.load(e, 0, d);
    p.load(e, 1, n);
    let at = p.at(m);
    match (neg_d, neg_n) {
        (false, false) => fp!(e, p; vfmadd231ss / vfmadd231sd xmm0, xmm1, [rbp + at]),
        (false, true) => fp!(e, p; vfnmadd231ss / vfnmadd231sd xmm0, xmm1, [rbp + at]),
        (true, true) => fp!(e, p; vfnmsub231ss / vfnmsub231sd xmm0, xmm1, [rbp + at]),
        (true, false) => fp!(e, p; vfmsub231ss / vfmsub231sd xmm0, xmm1, [rbp + at]),
    }
    finish(e, c, p, 0, Zero::If(n, m), slow, |e| p.store(e, 0, d));
    true
}

fn sqrt(e: &mut Emitter, c: &Ctx, p: Prec) -> bool {
    let (d, a, _) = regs(c);
    let slow = e.label();
    check_vfp(e, slow);
    p.operand(e, a, slow);
    p.load(e, 0, a);
    fp!(e, p; sqrtss / sqrtsd xmm0, xmm0);
    finish(e, c, p, 0, Zero::Always, slow, |e| p.store(e, 0, d));
    true
}

/// VCMP and VCMPE: they differ only for NaNs, which go to the helper.
fn cmp(e: &mut Emitter, c: &Ctx, p: Prec, zero: bool) -> bool {
    let (d, a, _) = regs(c);
    let (slow, done) = (e.label(), e.label());
    p.operand(e, d, slow);
    if !zero && a != d {
        p.operand(e, a, slow);
    }
    p.load(e, 0, d);
    if zero {
        x!(e; xorps xmm1, xmm1);
        fp!(e, p; ucomiss / ucomisd xmm0, xmm1);
    } else {
        fp!(e, p; ucomiss / ucomisd xmm0, [rbp + p.at(a)]);
    }
    // N, Z, C, V: 2 greater, 6 equal, 8 less.
    x!(e
        ; jp =>slow
        ; mov eax, 0x2000_0000
        ; mov ecx, 0x6000_0000
        ; cmove eax, ecx
        ; mov ecx, i32::MIN
        ; cmovb eax, ecx
        ; mov ecx, [rbp + fpscr()]
        ; and ecx, 0x0fff_ffff
        ; or eax, ecx
        ; mov [rbp + fpscr()], eax
    );
    e.place(done);
    c.helper_at(e, slow, done);
    true
}

impl Table {
    /// The single-precision helper `v` and its double-precision neighbour.
    pub(super) fn vfp(&mut self, v: Vfp, f: fn(&mut Emitter, &Ctx, Prec) -> bool) {
        for dp in [false, true] {
            self.put(v.id(dp.into()), move |e, c| f(e, c, Prec { dp }));
        }
    }
}

pub(super) fn register(t: &mut Table) {
    t.vfp(Vfp::AddS, |e, c, p| two(e, c, p, Two::Add));
    t.vfp(Vfp::SubS, |e, c, p| two(e, c, p, Two::Sub));
    t.vfp(Vfp::MulS, |e, c, p| two(e, c, p, Two::Mul));
    t.vfp(Vfp::NmulS, |e, c, p| two(e, c, p, Two::Nmul));
    t.vfp(Vfp::DivS, |e, c, p| two(e, c, p, Two::Div));
    t.vfp(Vfp::MlaS, |e, c, p| mla(e, c, p, false, false));
    t.vfp(Vfp::MlsS, |e, c, p| mla(e, c, p, false, true));
    t.vfp(Vfp::NmlaS, |e, c, p| mla(e, c, p, true, true));
    t.vfp(Vfp::NmlsS, |e, c, p| mla(e, c, p, true, false));
    t.vfp(Vfp::FmaS, |e, c, p| fma(e, c, p, false, false));
    t.vfp(Vfp::FmsS, |e, c, p| fma(e, c, p, false, true));
    t.vfp(Vfp::FnmaS, |e, c, p| fma(e, c, p, true, true));
    t.vfp(Vfp::FnmsS, |e, c, p| fma(e, c, p, true, false));
    t.vfp(Vfp::SqrtS, sqrt);
    t.vfp(Vfp::CmpS, |e, c, p| cmp(e, c, p, false));
    t.vfp(Vfp::CmpeS, |e, c, p| cmp(e, c, p, false));
    t.vfp(Vfp::CmpZeroS, |e, c, p| cmp(e, c, p, true));
    t.vfp(Vfp::CmpeZeroS, |e, c, p| cmp(e, c, p, true));
}
