//! VFP conversions.

use dynasmrt::DynamicLabel;
use reprise_arm::fp::vfp_helpers::Vfp;

use super::scalar::{Flush, Prec, Slow, Zero};
use super::{Ctx, Table, exact};
use crate::emit::{Emitter, ext};

const SINGLE: Prec = Prec { dp: false };
const DOUBLE: Prec = Prec { dp: true };

/// Always exact, but for NaNs and denormals under flush-to-zero.
fn single_to_double(e: &mut Emitter, c: &Ctx) -> bool {
    let (odd, good, done) = (e.label(), e.label(), e.label());
    let a = c.u.a.into();
    let flush = Flush::check(e, &[(SINGLE, a)]);
    SINGLE.load(e, 1, a);
    x!(e; cvtss2sd xmm0, xmm1);
    DOUBLE.sure(e, 0, odd);
    e.place(good);
    DOUBLE.store(e, 0, c.u.imm);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        e.place(odd);
        DOUBLE.jump_exact_zero(e, 0, Zero::Always, good);
        e.place(flush.call);
        c.helper(e, done);
        flush.look(e);
    });
    true
}

fn double_to_single(e: &mut Emitter, c: &Ctx) -> bool {
    let a = u32::from(c.u.a);
    let slow = Slow::check(e, DOUBLE, &[a]);
    DOUBLE.load(e, 1, a);
    x!(e; cvtsd2ss xmm0, xmm1);
    let (odd, good, done) = (e.label(), e.label(), e.label());
    SINGLE.sure(e, 0, odd);
    e.place(good);
    SINGLE.store(e, 0, c.u.imm);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        e.place(odd);
        // A zero is exact if the double is one.
        DOUBLE.jump_zero_reg(e, a, good);
        e.place(slow.call);
        c.helper(e, done);
        slow.look(e, |e, call| {
            DOUBLE.load(e, 1, a);
            x!(e; cvtsd2ss xmm0, xmm1 ; cvtss2sd xmm2, xmm0);
            exact::equal(e, DOUBLE, 1, 2, call);
            SINGLE.sure(e, 0, odd);
            x!(e; jmp =>good);
        });
    });
    true
}

/// To a 32-bit integer, by way of one of 64 bits: what does not fit (or is no number) goes to the helper.
fn to_int(e: &mut Emitter, c: &Ctx, p: Prec, unsigned: bool, truncate: bool) -> bool {
    let (store, done) = (e.label(), e.label());
    let slow = Slow::check(e, p, &[c.u.a.into()]);
    let a = c.u.a.into();
    let convert = move |e: &mut Emitter| {
        p.load(e, 0, a);
        match (p.dp, truncate) {
            (false, false) => x!(e; cvtss2si rax, xmm0),
            (false, true) => x!(e; cvttss2si rax, xmm0),
            (true, false) => x!(e; cvtsd2si rax, xmm0),
            (true, true) => x!(e; cvttsd2si rax, xmm0),
        }
    };
    convert(e);
    e.place(store);
    fits(e, unsigned, slow.call);
    x!(e; mov [rbp + ext(c.u.imm)], eax);
    SINGLE.forget(e, c.u.imm);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        e.place(slow.call);
        c.helper(e, done);
        slow.look(e, |e, call| {
            convert(e);
            if p.dp {
                x!(e; cvtsi2sd xmm1, rax);
            } else {
                x!(e; cvtsi2ss xmm1, rax);
            }
            exact::equal(e, p, 0, 1, call);
            x!(e; jmp =>store);
        });
    });
    true
}

/// Jumps to `no` unless `rax` is a 32-bit number.
fn fits(e: &mut Emitter, unsigned: bool, no: DynamicLabel) {
    if unsigned {
        x!(e; mov ecx, eax);
    } else {
        x!(e; movsxd rcx, eax);
    }
    x!(e; cmp rcx, rax ; jne =>no);
}

/// From a 32-bit integer; exact in double precision, and in single precision up to 24 bits.
fn from_int(e: &mut Emitter, c: &Ctx, p: Prec, unsigned: bool) -> bool {
    let done = e.label();
    let at = ext(c.u.a.into());
    let slow = (!p.dp).then(|| Slow::check(e, p, &[]));
    // The conversion keeps the upper part of its destination: break the dependency.
    x!(e; xorps xmm0, xmm0);
    match (unsigned, p.dp) {
        (false, false) => x!(e; cvtsi2ss xmm0, DWORD [rbp + at]),
        (false, true) => x!(e; cvtsi2sd xmm0, DWORD [rbp + at]),
        (true, false) => x!(e; mov eax, [rbp + at] ; cvtsi2ss xmm0, rax),
        (true, true) => x!(e; mov eax, [rbp + at] ; cvtsi2sd xmm0, rax),
    }
    p.store(e, 0, c.u.imm);
    e.place(done);
    if let Some(slow) = slow {
        small_or_helper(e, c, (at, unsigned), slow, done);
    }
    true
}

/// Out of line: goes back if the mode and a small number at `at` allow it, and else calls the helper.
fn small_or_helper(e: &mut Emitter, c: &Ctx, (at, unsigned): (i32, bool), slow: Slow, done: DynamicLabel) {
    let c = c.after(e);
    e.cold(move |e| {
        let Some(hot) = slow.hot() else { return };
        let call = slow.call;
        slow.look(e, |e, _| {
            x!(e; mov eax, [rbp + at]);
            if !unsigned {
                x!(e; add eax, 0x80_0000);
            }
            x!(e; cmp eax, 0x100_0000 ; jbe =>hot);
        });
        e.place(call);
        c.helper(e, done);
    });
}

/// Bits of 2 to the power of `n` as a double.
fn power(n: i32) -> u64 {
    ((1023 + n) as u64) << 52
}

/// VCVT to fixed point, 32 bits: scaling by a power of two is exact in double precision.
fn to_fixed(e: &mut Emitter, c: &Ctx, p: Prec, unsigned: bool) -> bool {
    let done = e.label();
    let slow = Slow::check(e, p, &[c.u.imm]);
    let at = p.at(c.u.imm);
    if p.dp {
        x!(e; movsd xmm0, [rbp + at]);
    } else {
        x!(e; cvtss2sd xmm0, [rbp + at]);
    }
    let k = e.constant(power(c.u.a.into()).into());
    x!(e; mulsd xmm0, [=>k] ; cvttsd2si rax, xmm0);
    fits(e, unsigned, slow.call);
    if p.dp {
        // The result fills the register: rcx is eax, extended.
        x!(e; mov [rbp + at], rcx);
    } else {
        x!(e; mov [rbp + at], eax);
    }
    p.forget(e, c.u.imm);
    e.place(done);
    let c = c.after(e);
    e.cold(move |e| {
        let call = slow.call;
        slow.look(e, |e, call| x!(e; jmp =>call));
        e.place(call);
        c.helper(e, done);
    });
    true
}

/// VCVT from fixed point, 32 bits, always to nearest: one rounding in the conversion, and exact scaling.
fn from_fixed(e: &mut Emitter, c: &Ctx, p: Prec, unsigned: bool) -> bool {
    let done = e.label();
    let at = p.at(c.u.imm);
    let slow = (!p.dp).then(|| Slow::check(e, p, &[]));
    if unsigned {
        x!(e; mov eax, [rbp + at]);
    } else {
        x!(e; movsxd rax, DWORD [rbp + at]);
    }
    let k = power(-i32::from(c.u.a));
    x!(e; xorps xmm0, xmm0);
    if p.dp {
        let k = e.constant(k.into());
        x!(e; cvtsi2sd xmm0, rax ; mulsd xmm0, [=>k]);
    } else {
        let k = e.constant(u128::from((f64::from_bits(k) as f32).to_bits()));
        x!(e; cvtsi2ss xmm0, rax ; mulss xmm0, [=>k]);
    }
    p.store(e, 0, c.u.imm);
    e.place(done);
    if let Some(slow) = slow {
        small_or_helper(e, c, (at, unsigned), slow, done);
    }
    true
}

pub(super) fn register(t: &mut Table) {
    t.put(Vfp::SingleToDouble.id(0), single_to_double);
    t.put(Vfp::DoubleToSingle.id(0), double_to_single);
    t.vfp(Vfp::ToS32S, |e, c, p| to_int(e, c, p, false, false));
    t.vfp(Vfp::ToS32RzS, |e, c, p| to_int(e, c, p, false, true));
    t.vfp(Vfp::ToU32S, |e, c, p| to_int(e, c, p, true, false));
    t.vfp(Vfp::ToU32RzS, |e, c, p| to_int(e, c, p, true, true));
    t.vfp(Vfp::FromS32S, |e, c, p| from_int(e, c, p, false));
    t.vfp(Vfp::FromU32S, |e, c, p| from_int(e, c, p, true));
    t.vfp(Vfp::FixToS32S, |e, c, p| to_fixed(e, c, p, false));
    t.vfp(Vfp::FixToU32S, |e, c, p| to_fixed(e, c, p, true));
    t.vfp(Vfp::FixFromS32S, |e, c, p| from_fixed(e, c, p, false));
    t.vfp(Vfp::FixFromU32S, |e, c, p| from_fixed(e, c, p, true));
}
