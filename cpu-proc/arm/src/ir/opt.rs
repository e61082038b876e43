//! Linear passes over a block's micro-ops: constant folding forward, then dead flags and dead writes backward, then compaction.
//!
//! What is observable, and so never removed: guest registers and flags before each micro-op that may fault or leave (a fault restarts
//! the instruction), after each instruction that holds one (an MMIO access may stop right behind it), and at the end of the block.
//! Temporaries are dead at the end of their instruction.

use super::{Block, FIRST_TEMP, Op, PC_SLOT, SINK, Uop, ZERO};

const N: u8 = 8;
const Z: u8 = 4;
const C: u8 = 2;
const V: u8 = 1;
const NZCV: u8 = 15;
/// r0-r14.
const GUEST: u64 = (1 << PC_SLOT) - 1;

/// What a micro-op reads and writes. Flags are a mask: N 8, Z 4, C 2, V 1.
pub struct Effects {
    /// Slots read.
    pub uses: u64,
    /// Slots written for sure.
    pub defs: u64,
    /// Flags read.
    pub fuse: u8,
    /// Flags written for sure.
    pub fdef: u8,
    /// May fault or leave, or does what isn't listed here.
    pub barrier: bool,
    /// Does nothing else, so it may go if nobody wants its results.
    pub pure: bool,
}

/// The flags that a condition reads.
fn cond_flags(cond: u8) -> u8 {
    [Z, C, N, V, C | Z, N | V, N | Z | V, 0][usize::from(cond >> 1 & 7)]
}

/// What `u` reads and writes.
pub fn effects(u: &Uop) -> Effects {
    use Op::*;
    // Masked: `HelperK` has constants in `a` and `b`.
    let (d, a, b) = (1u64 << (u.d & 63), 1u64 << (u.a & 63), 1u64 << (u.b & 63));
    let value = |uses: u64, fuse: u8, fdef: u8| Effects { uses, defs: d, fuse, fdef, barrier: false, pure: true };
    let flags = |uses: u64, fdef: u8| Effects { uses, defs: 0, fuse: 0, fdef, barrier: false, pure: true };
    let other = |uses: u64, defs: u64| Effects { uses, defs, fuse: 0, fdef: 0, barrier: true, pure: false };
    let end = |uses: u64| Effects { uses: uses | GUEST, defs: 0, fuse: NZCV, fdef: 0, barrier: false, pure: false };
    match u.op {
        Nop => Effects { uses: 0, defs: 0, fuse: 0, fdef: 0, barrier: false, pure: true },
        MovImm | ExtGet => value(0, 0, 0),
        Mov | Mvn | AddImm | RsbImm | AndImm | OrrImm | EorImm | LslImm | LsrImm | AsrImm | RorImm | Clz | Rbit
        | Rev | Rev16 | Revsh | Sxtb | Sxth | Ubfx | Sbfx => value(a, 0, 0),
        Add | AddLsl | Sub | And | Orr | OrrLsl | Eor | Bic | Lsl | Lsr | Asr | Ror | Mul | Udiv | Sdiv | Bfi => {
            value(a | b, 0, 0)
        }
        Adc | Sbc => value(a | b, C, 0),
        Rrx => value(a, C, 0),
        AddS | SubS => value(a | b, 0, NZCV),
        AddSImm | SubSImm => value(a, 0, NZCV),
        AdcS | SbcS => value(a | b, C, NZCV),
        // Amount 0 keeps C, so it is read and written.
        ShiftC => value(a | b, C, C),
        Cmp => flags(a | b, NZCV),
        CmpImm => flags(a, NZCV),
        Tst | SetNz64 => flags(a | b, N | Z),
        TstImm | SetNz => flags(a, N | Z),
        SetC => flags(0, C),
        SetCBit => flags(a, C),
        Umull | Smull => Effects { uses: a | b, defs: d | 1 << u.imm, fuse: 0, fdef: 0, barrier: false, pure: true },
        ExtSet => Effects { uses: a, defs: 0, fuse: 0, fdef: 0, barrier: false, pure: false },
        Ld32 | Ld16 | Ld16s | Ld8 | Ld8s => other(a, d),
        Ld32R | Ld16R | Ld16sR | Ld8R | Ld8sR => other(a | b, d),
        St32 | St16 | St8 => other(a | d, 0),
        St32R | St16R | St8R => other(a | b | d, 0),
        LdX => other(a, d),
        StX => other(a | b | d, 0),
        Ldm => other(a, u64::from(u.imm)),
        Stm => other(a | u64::from(u.imm), 0),
        LdmExt | StmExt => other(a, 0),
        NeedFp => other(GUEST, 0),
        Ldrex => other(a, d),
        Strex => other(a | 1 << (u.imm & 63) | 1 << (u.imm >> 8 & 63), d),
        Helper | Sys => Effects { uses: a | b | GUEST, defs: d, fuse: NZCV, fdef: 0, barrier: true, pure: false },
        HelperK => Effects { uses: GUEST, defs: d, fuse: NZCV, fdef: 0, barrier: true, pure: false },
        Clrex | SetIt => Effects { uses: 0, defs: 0, fuse: 0, fdef: 0, barrier: false, pure: false },
        SkipUnless => Effects { uses: 0, defs: 0, fuse: cond_flags(u.d), fdef: 0, barrier: false, pure: false },
        JumpIfZero | JumpIfNotZero | JumpReg | JumpRegSame => end(a),
        Jump | JumpIf | Leave | LeavePc | Undef | Svc | Smc | Bkpt | Wfi | Wfe | Stop => end(0),
    }
}

/// Runs all passes.
pub fn optimize(block: &mut Block) {
    fold(block);
    let keep = sweep(block);
    if keep.iter().any(|k| !k) {
        compact(block, &keep);
    }
}

/// Constants known in the slots.
struct Known([Option<u32>; 64]);

impl Known {
    fn get(&self, s: u8) -> Option<u32> {
        self.0[usize::from(s & 63)]
    }

    fn forget(&mut self, mut slots: u64) {
        while slots != 0 {
            self.0[slots.trailing_zeros() as usize] = None;
            slots &= slots - 1;
        }
    }
}

/// Replaces operations on known values by what they give.
fn fold(block: &mut Block) {
    let mut known = Known([None; 64]);
    let mut joins: Vec<usize> = Vec::new();
    for i in 0..block.uops.len() {
        if joins.contains(&i) {
            known = Known([None; 64]);
        }
        let u = &mut block.uops[i];
        if u.op == Op::SkipUnless {
            joins.push(i + 1 + u.imm as usize);
            continue;
        }
        simplify(u, &known);
        let e = effects(u);
        if matches!(u.op, Op::Helper | Op::HelperK | Op::Sys) {
            // They may write any register.
            known = Known([None; 64]);
        }
        // `Ldrex` and `LdX` of a doubleword write `b` too.
        known.forget(e.defs | if matches!(u.op, Op::LdX | Op::Ldrex) { 1 << u.b } else { 0 });
        if u.op == Op::MovImm && u.d < ZERO {
            known.0[usize::from(u.d)] = Some(u.imm);
        }
    }
}

/// One micro-op with what is known of its operands.
fn simplify(u: &mut Uop, known: &Known) {
    use Op::*;
    let (ka, kb) = (known.get(u.a), known.get(u.b));
    let mov = |u: &mut Uop, v: u32| *u = Uop { op: MovImm, d: u.d, a: 0, b: 0, imm: v, aux: 0 };
    match (u.op, ka, kb) {
        (Mov, Some(x), _) => mov(u, x),
        (Mvn, Some(x), _) => mov(u, !x),
        (AddImm, Some(x), _) => mov(u, x.wrapping_add(u.imm)),
        (RsbImm, Some(x), _) => mov(u, u.imm.wrapping_sub(x)),
        (AndImm, Some(x), _) => mov(u, x & u.imm),
        (OrrImm, Some(x), _) => mov(u, x | u.imm),
        (EorImm, Some(x), _) => mov(u, x ^ u.imm),
        (LslImm, Some(x), _) => mov(u, x << u.imm),
        (LsrImm, Some(x), _) => mov(u, x >> u.imm),
        (Add, Some(x), Some(y)) => mov(u, x.wrapping_add(y)),
        (Add, _, Some(y)) => (u.op, u.b, u.imm) = (AddImm, 0, y),
        (Add, Some(x), _) => (u.op, u.a, u.b, u.imm) = (AddImm, u.b, 0, x),
        (Sub, _, Some(y)) => (u.op, u.b, u.imm) = (AddImm, 0, y.wrapping_neg()),
        (Sub, Some(x), _) => (u.op, u.a, u.b, u.imm) = (RsbImm, u.b, 0, x),
        (AddLsl, _, Some(y)) => (u.op, u.b, u.imm) = (AddImm, 0, y << u.imm),
        (And, _, Some(y)) => (u.op, u.b, u.imm) = (AndImm, 0, y),
        (Orr, _, Some(y)) => (u.op, u.b, u.imm) = (OrrImm, 0, y),
        (Eor, _, Some(y)) => (u.op, u.b, u.imm) = (EorImm, 0, y),
        (AddS, _, Some(y)) => (u.op, u.b, u.imm) = (AddSImm, 0, y),
        (SubS, _, Some(y)) => (u.op, u.b, u.imm) = (SubSImm, 0, y),
        (Cmp, _, Some(y)) => (u.op, u.b, u.imm) = (CmpImm, 0, y),
        (Tst, _, Some(y)) => (u.op, u.b, u.imm) = (TstImm, 0, y),
        // An absolute address: a base that is always 0.
        (Ld32 | Ld16 | Ld16s | Ld8 | Ld8s | St32 | St16 | St8 | LdX | StX, Some(x), _) => {
            (u.a, u.imm) = (ZERO, u.imm.wrapping_add(x));
        }
        _ => {}
    }
}

/// Finds dead flags and writes: gives which micro-ops to keep, and weakens those whose flags nobody reads.
fn sweep(block: &mut Block) -> Vec<bool> {
    let n = block.uops.len();
    let mut may_leave = vec![false; block.insns.len()];
    for (u, i) in block.uops.iter().zip(&block.insn_of) {
        may_leave[usize::from(*i)] |= effects(u).barrier;
    }
    let mut keep = vec![true; n];
    // What is wanted before micro-op i: slots and flags.
    let mut want = vec![(GUEST, NZCV); n + 1];
    for i in (0..n).rev() {
        let (mut slots, mut flags) = want[i + 1];
        let insn = block.insn_of[i];
        if i + 1 == n || block.insn_of[i + 1] != insn {
            slots &= GUEST;
            if may_leave[usize::from(insn)] {
                (slots, flags) = (slots | GUEST, NZCV);
            }
        }
        let u = &mut block.uops[i];
        if u.op == Op::SkipUnless {
            let (s, f) = want[(i + 1 + u.imm as usize).min(n)];
            (slots, flags) = (slots | s, flags | f);
        }
        let mut e = effects(u);
        if e.fdef & flags == 0 && e.fdef != 0 && weaken(u) {
            e = effects(u);
        }
        if e.pure && e.defs & slots & !(1 << SINK) == 0 && e.fdef & flags == 0 {
            keep[i] = false;
            want[i] = (slots, flags);
            continue;
        }
        slots = slots & !e.defs | e.uses;
        flags = flags & !e.fdef | e.fuse;
        if e.barrier {
            (slots, flags) = (slots | GUEST, NZCV);
        }
        want[i] = (slots, flags);
    }
    keep
}

/// Takes the flags from a micro-op that also has a result.
fn weaken(u: &mut Uop) -> bool {
    match u.op {
        Op::AddS => u.op = Op::Add,
        Op::SubS => u.op = Op::Sub,
        Op::AdcS => u.op = Op::Adc,
        Op::SbcS => u.op = Op::Sbc,
        Op::AddSImm => u.op = Op::AddImm,
        Op::SubSImm => (u.op, u.imm) = (Op::AddImm, u.imm.wrapping_neg()),
        _ => return false,
    }
    true
}

/// Takes out what is not kept and renumbers.
fn compact(block: &mut Block, keep: &[bool]) {
    // New index of each old one; of a removed micro-op, that of the next kept one.
    let mut index = Vec::with_capacity(keep.len() + 1);
    let mut next = 0;
    for k in keep {
        index.push(next);
        next += usize::from(*k);
    }
    index.push(next);
    for (i, u) in block.uops.iter_mut().enumerate().filter(|(_, u)| u.op == Op::SkipUnless) {
        u.imm = (index[i + 1 + u.imm as usize] - index[i] - 1) as u32;
    }
    for insn in &mut block.insns {
        insn.first = index[usize::from(insn.first)] as u16;
    }
    let mut k = keep.iter();
    block.uops.retain(|_| *k.next().expect("as long"));
    let mut k = keep.iter();
    block.insn_of.retain(|_| *k.next().expect("as long"));
}

const _: () = assert!(FIRST_TEMP == 16 && ZERO == 62 && SINK == 63);
