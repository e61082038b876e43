//! VFP arithmetic and comparisons.

use dynasmrt::DynamicLabel;
use reprise_arm::fp::vfp_helpers::Vfp;

use super::exact::{self, Operand};
use super::{Ctx, Mode, Table, check_fz, check_vfp};
use crate::emit::{Emitter, ext, fpscr};

/// A precision.
#[derive(Clone, Copy, PartialEq, Eq)]
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
        ext(self.word(n))
    }

    pub(super) fn load(self, e: &mut Emitter, x: u8, n: u32) {
        if let Some(k) = self.held(e, n) {
            x!(e; movaps Rx(x), Rx(k));
        } else {
            fp!(e, self; movss / movsd Rx(x), [rbp + self.at(n)]);
        }
    }

    /// The host register that holds register `n`.
    pub(super) fn held(self, e: &Emitter, n: u32) -> Option<u8> {
        e.held.find(self.word(n), self.dp)
    }

    /// First extension word of register `n`.
    pub(super) fn word(self, n: u32) -> u32 {
        if self.dp { 2 * n } else { n }
    }

    /// Register `n` has been written in memory.
    pub(super) fn forget(self, e: &mut Emitter, n: u32) {
        e.held.forget(self.word(n), 1 + u32::from(self.dp));
    }

    /// Stores a result, which under flush-to-zero is never denormal, and keeps a copy.
    pub(super) fn store(self, e: &mut Emitter, x: u8, n: u32) {
        fp!(e, self; movss / movsd [rbp + self.at(n)], Rx(x));
        let k = e.held.hold(self.word(n), self.dp, e.fpscr == Some(Mode::Flush));
        x!(e; movaps Rx(k), Rx(x));
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

    /// Jumps to `yes` if register `n` is a zero.
    pub(super) fn jump_zero_reg(self, e: &mut Emitter, n: u32, yes: DynamicLabel) {
        if self.dp {
            x!(e; mov rax, [rbp + self.at(n)] ; add rax, rax ; jz =>yes);
        } else {
            x!(e; mov eax, [rbp + self.at(n)] ; add eax, eax ; jz =>yes);
        }
    }

    /// Jumps to `yes` if `x` is an exact zero.
    pub(super) fn jump_exact_zero(self, e: &mut Emitter, x: u8, zero: Zero, yes: DynamicLabel) {
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
        self.forget(e, n);
    }
}

/// A proof that the result is exact, while IXC is clear: computes it anew, and jumps if it may not be.
pub(super) type Proof = Box<dyn FnOnce(&mut Emitter, DynamicLabel)>;

/// What to do where the checks of FPSCR and of operands fail.
pub(super) struct Slow {
    /// Where [`check_vfp`] jumps to, and the place behind it; none where FPSCR is known.
    check: Option<(DynamicLabel, DynamicLabel)>,
    /// What must not be denormal under flush-to-zero.
    operands: Vec<Operand>,
    /// Calls the helper.
    pub(super) call: DynamicLabel,
}

impl Slow {
    /// Checks FPSCR, or where it is known to flush to zero, the operands. Nothing but the operands in memory may be needed behind it.
    pub(super) fn check(e: &mut Emitter, p: Prec, operands: &[u32]) -> Self {
        let operands: Vec<Operand> = operands.iter().map(|n| (p, *n)).collect();
        let call = e.label();
        let check = match e.fpscr {
            Some(mode) => {
                if mode == Mode::Flush {
                    exact::normal(e, &operands, call);
                }
                None
            }
            None => {
                let (entry, hot) = (e.label(), e.label());
                check_vfp(e, entry);
                e.place(hot);
                Some((entry, hot))
            }
        };
        Self { check, operands, call }
    }

    /// The place behind the check of FPSCR, if there is one.
    pub(super) fn hot(&self) -> Option<DynamicLabel> {
        self.check.map(|c| c.1)
    }

    /// Out of line: the second look where FPSCR is not known. What `proof` emits runs to nearest, without flush-to-zero and with IXC clear, and ends
    /// with a jump.
    pub(super) fn look(self, e: &mut Emitter, proof: impl FnOnce(&mut Emitter, DynamicLabel)) {
        if let Some((entry, hot)) = self.check {
            e.place(entry);
            exact::look(e, &self.operands, hot, self.call);
            proof(e, self.call);
        }
    }
}

/// The end of an operation with its result in `x`: stores it when it is sure or an exact zero, and else calls the helper.
fn finish(
    e: &mut Emitter,
    c: &Ctx,
    (p, x, zero): (Prec, u8, Zero),
    (slow, proof): (Slow, Option<Proof>),
    store: impl FnOnce(&mut Emitter),
) {
    let (odd, good, done) = (e.label(), e.label(), e.label());
    p.sure(e, x, odd);
    e.place(good);
    store(e);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        e.place(odd);
        p.jump_exact_zero(e, x, zero, good);
        e.place(slow.call);
        c.helper(e, done);
        slow.look(e, |e, call| {
            if let Some(proof) = proof {
                proof(e, call);
                p.sure(e, x, odd);
                x!(e; jmp =>good);
            } else {
                x!(e; jmp =>call);
            }
        });
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

impl Two {
    /// `0 = n op m`.
    fn compute(self, e: &mut Emitter, p: Prec, n: u32, m: u32) {
        p.load(e, 0, n);
        match self {
            Two::Add => fp_of!(e, p, m; addss / addsd xmm0),
            Two::Sub => fp_of!(e, p, m; subss / subsd xmm0),
            Two::Mul | Two::Nmul => fp_of!(e, p, m; mulss / mulsd xmm0),
            Two::Div => fp_of!(e, p, m; divss / divsd xmm0),
        }
    }

    /// Computes, and jumps to `no` unless the result is exact (should it be finite and not tiny).
    fn prove(self, e: &mut Emitter, p: Prec, n: u32, m: u32, no: DynamicLabel) {
        self.compute(e, p, n, m);
        p.load(e, 1, n);
        p.load(e, 2, m);
        match self {
            Two::Add => exact::sum(e, p, 0, 1, 2, no),
            Two::Sub => {
                exact::negate(e, p, 2);
                exact::sum(e, p, 0, 1, 2, no);
            }
            Two::Mul | Two::Nmul => {
                let zero = e.label();
                p.jump_exact_zero(e, 0, Zero::If(n, m), zero);
                exact::product(e, p, 1, 2, no);
                e.place(zero);
            }
            Two::Div => {
                let zero = e.label();
                p.jump_exact_zero(e, 0, Zero::If(n, n), zero);
                exact::product(e, p, 0, 2, no);
                fp!(e, p; mulss / mulsd xmm2, xmm0);
                exact::equal(e, p, 2, 1, no);
                e.place(zero);
            }
        }
    }
}

fn two(e: &mut Emitter, c: &Ctx, p: Prec, op: Two) -> bool {
    let (d, n, m) = regs(c);
    let proof: Proof = Box::new(move |e, no| op.prove(e, p, n, m, no));
    let slow = Slow::check(e, p, &[n, m]);
    op.compute(e, p, n, m);
    let zero = match op {
        Two::Add | Two::Sub => Zero::Always,
        Two::Mul | Two::Nmul => Zero::If(n, m),
        Two::Div => Zero::If(n, n),
    };
    finish(e, c, (p, 0, zero), (slow, Some(proof)), |e| {
        if op == Two::Nmul { p.store_negated(e, 0, d) } else { p.store(e, 0, d) }
    });
    true
}

/// VMLA and its kin, rounded twice: the product must be sure or an exact zero, and then the sum.
fn mla(e: &mut Emitter, c: &Ctx, p: Prec, neg_d: bool, neg_p: bool) -> bool {
    let (d, n, m) = regs(c);
    let (odd, sum) = (e.label(), e.label());
    let r = if neg_p { 0 } else { 1 };
    let proof: Proof = Box::new(move |e, no| prove_mla(e, p, r, [d, n, m], [neg_d, neg_p], no));
    let slow = Slow::check(e, p, &[d, n, m]);
    let call = slow.call;
    p.load(e, 1, n);
    fp_of!(e, p, m; mulss / mulsd xmm1);
    // An infinite or undefined product shows in the sum.
    p.big(e, 1, odd);
    e.place(sum);
    match (neg_d, neg_p) {
        (false, false) => fp_of!(e, p, d; addss / addsd xmm1),
        (true, false) => fp_of!(e, p, d; subss / subsd xmm1),
        (_, true) => {
            if neg_d {
                p.load_negated(e, 0, d);
            } else {
                p.load(e, 0, d);
            }
            fp!(e, p; subss / subsd xmm0, xmm1);
        }
    }
    finish(e, c, (p, r, Zero::Always), (slow, Some(proof)), |e| p.store(e, r, d));
    e.cold(move |e| {
        e.place(odd);
        p.jump_exact_zero(e, 1, Zero::If(n, m), sum);
        x!(e; jmp =>call);
    });
    true
}

/// Computes VMLA or so into `r`, and jumps to `no` unless product and sum are exact.
fn prove_mla(e: &mut Emitter, p: Prec, r: u8, [d, n, m]: [u32; 3], [neg_d, neg_p]: [bool; 2], no: DynamicLabel) {
    let add = e.label();
    p.load(e, 2, n);
    p.load(e, 3, m);
    x!(e; movaps xmm6, xmm2);
    fp!(e, p; mulss / mulsd xmm6, xmm3);
    p.jump_exact_zero(e, 6, Zero::If(n, m), add);
    p.big(e, 6, no);
    exact::product(e, p, 2, 3, no);
    e.place(add);
    if neg_p {
        exact::negate(e, p, 6);
    }
    p.load(e, 2, d);
    if neg_d {
        exact::negate(e, p, 2);
    }
    x!(e; movaps Rx(r), xmm6);
    fp!(e, p; addss / addsd Rx(r), xmm2);
    exact::sum(e, p, r, 6, 2, no);
}

/// VFMA and its kin, rounded once. A zero is exact for sure only when the product is.
fn fma(e: &mut Emitter, c: &Ctx, p: Prec, neg_d: bool, neg_n: bool) -> bool {
    if !e.features.fma {
        return false;
    }
    let (d, n, m) = regs(c);
    let slow = Slow::check(e, p, &[d, n, m]);
    p.load(e, 0, d);
    p.load(e, 1, n);
    match (neg_d, neg_n) {
        (false, false) => fp_of!(e, p, m; vfmadd231ss / vfmadd231sd xmm0, xmm1),
        (false, true) => fp_of!(e, p, m; vfnmadd231ss / vfnmadd231sd xmm0, xmm1),
        (true, true) => fp_of!(e, p, m; vfnmsub231ss / vfnmsub231sd xmm0, xmm1),
        (true, false) => fp_of!(e, p, m; vfmsub231ss / vfmsub231sd xmm0, xmm1),
    }
    finish(e, c, (p, 0, Zero::If(n, m)), (slow, None), |e| p.store(e, 0, d));
    true
}

fn sqrt(e: &mut Emitter, c: &Ctx, p: Prec) -> bool {
    let (d, a, _) = regs(c);
    let proof: Proof = Box::new(move |e, no| {
        p.load(e, 1, a);
        fp!(e, p; sqrtss / sqrtsd xmm0, xmm1);
        x!(e; movaps xmm2, xmm0);
        exact::product(e, p, 0, 0, no);
        fp!(e, p; mulss / mulsd xmm2, xmm0);
        exact::equal(e, p, 2, 1, no);
    });
    let slow = Slow::check(e, p, &[a]);
    p.load(e, 0, a);
    fp!(e, p; sqrtss / sqrtsd xmm0, xmm0);
    finish(e, c, (p, 0, Zero::Always), (slow, Some(proof)), |e| p.store(e, 0, d));
    true
}

/// VCMP and VCMPE: they differ only for NaNs, which go to the helper.
fn cmp(e: &mut Emitter, c: &Ctx, p: Prec, zero: bool) -> bool {
    let (d, a, _) = regs(c);
    let done = e.label();
    let flush = Flush::check(e, &[(p, d), (p, if zero { d } else { a })]);
    let call = flush.call;
    p.load(e, 0, d);
    if zero {
        x!(e; xorps xmm1, xmm1);
        fp!(e, p; ucomiss / ucomisd xmm0, xmm1);
    } else {
        fp_of!(e, p, a; ucomiss / ucomisd xmm0);
    }
    // N, Z, C, V: 2 greater, 6 equal, 8 less.
    x!(e
        ; jp =>call
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
    let c = c.after(e);
    e.cold(move |e| {
        flush.look(e);
        e.place(call);
        c.helper(e, done);
    });
    true
}

/// The same for operations that care for flush-to-zero alone.
pub(super) struct Flush {
    /// Where [`check_fz`] jumps to, and the place behind it; none where FPSCR is known.
    check: Option<(DynamicLabel, DynamicLabel)>,
    operands: Vec<Operand>,
    /// Calls the helper.
    pub(super) call: DynamicLabel,
}

impl Flush {
    /// Checks FPSCR, or where it is known to flush to zero, the operands.
    pub(super) fn check(e: &mut Emitter, operands: &[Operand]) -> Self {
        let call = e.label();
        let check = match e.fpscr {
            Some(mode) => {
                if mode == Mode::Flush {
                    exact::normal(e, operands, call);
                }
                None
            }
            None => {
                let (entry, hot) = (e.label(), e.label());
                check_fz(e, entry);
                e.place(hot);
                Some((entry, hot))
            }
        };
        Self { check, operands: operands.to_vec(), call }
    }

    /// Out of line: the look at the operands where FPSCR is not known.
    pub(super) fn look(self, e: &mut Emitter) {
        if let Some((entry, hot)) = self.check {
            e.place(entry);
            exact::flushing(e, &self.operands, hot, self.call);
        }
    }
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
