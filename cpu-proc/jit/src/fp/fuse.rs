//! Moves between extension registers and of constants into them, made of micro-ops on single words, as moves of whole registers.
//!
//! Besides being shorter, this keeps the host's store buffer happy: a load of 8 or 16 bytes that were just stored in smaller pieces stalls.

use reprise_arm::ir::{FIRST_TEMP, Op, Uop, ZERO};

use super::Mode;
use super::prim::konst;
use crate::emit::{Emitter, ext};

/// What becomes of one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word {
    to: u32,
    /// Copied from this word, `(x & and) ^ eor`; else the constant `eor`.
    from: Option<u32>,
    and: u32,
    eor: u32,
    /// Index behind the last micro-op.
    end: usize,
}

/// Reads micro-ops and keeps what temporaries hold.
struct Reader<'a> {
    uops: &'a [Uop],
    at: usize,
    constants: Vec<(u8, u32)>,
}

fn temporary(s: u8) -> bool {
    (FIRST_TEMP..ZERO).contains(&s)
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Uop> {
        let u = *self.uops.get(self.at)?;
        self.at += 1;
        Some(u)
    }

    /// The next word that is written, if the micro-ops say so.
    fn word(&mut self) -> Option<Word> {
        let u = self.next()?;
        match u.op {
            Op::MovImm if temporary(u.d) => {
                self.constants.retain(|(t, _)| *t != u.d);
                self.constants.push((u.d, u.imm));
                self.word()
            }
            Op::ExtSet => {
                let (_, v) = *self.constants.iter().find(|(t, _)| *t == u.a)?;
                Some(Word { to: u.imm, from: None, and: 0, eor: v, end: self.at })
            }
            Op::ExtGet if temporary(u.d) => self.copy(u.imm, u.d),
            _ => None,
        }
    }

    /// The rest of a copy of word `from`, which is in temporary `t`.
    fn copy(&mut self, from: u32, t: u8) -> Option<Word> {
        let mut u = self.next()?;
        let (mut and, mut eor, mut t) = (u32::MAX, 0, t);
        if u.op != Op::ExtSet {
            (and, eor) = match u.op {
                Op::AndImm => (u.imm, 0),
                Op::EorImm => (u32::MAX, u.imm),
                Op::OrrImm => (!u.imm, u.imm),
                _ => return None,
            };
            if u.a != t || !temporary(u.d) {
                return None;
            }
            t = u.d;
            u = self.next()?;
        }
        (u.op == Op::ExtSet && u.a == t).then_some(Word { to: u.imm, from: Some(from), and, eor, end: self.at })
    }
}

/// Whether `next`, the `i`-th word of a move that begins with `first`, can go along with it.
fn continues(first: &Word, next: &Word, i: u32) -> bool {
    next.to == first.to + i && next.from == first.from.map(|w| w + i)
}

/// Words that move together.
pub struct Moves {
    words: Vec<Word>,
    /// How many micro-ops they are.
    pub len: usize,
}

impl Moves {
    /// What the micro-ops begin with, if it is the move of two or four words that belong together.
    ///
    /// `uops` is what is left of one instruction: temporaries are dead behind it, and no skip may end inside.
    pub fn find(uops: &[Uop]) -> Option<Self> {
        if !matches!(uops.first()?.op, Op::ExtGet | Op::MovImm) {
            return None;
        }
        let mut reader = Reader { uops, at: 0, constants: Vec::new() };
        let mut words: Vec<Word> = Vec::new();
        while words.len() < 4 {
            let Some(w) = reader.word() else { break };
            if words.first().is_some_and(|f| !continues(f, &w, words.len() as u32)) {
                break;
            }
            words.push(w);
        }
        words.truncate(if words.len() == 3 { 2 } else { words.len() });
        let (first, count) = (words.first()?, words.len() as u32);
        let len = words.last()?.end;
        // A value that is used again, in this instruction, would be missed.
        let used = uops[len..].iter().any(|u| temporary(u.a) || temporary(u.b) || temporary(u.d));
        // A copy to where later words come from does not read all before it writes.
        let overlaps = first.from.is_some_and(|f| first.to > f && first.to < f + count);
        (count > 1 && !used && !overlaps).then_some(Self { words, len })
    }

    /// Emits them. Spoils rax, rcx, xmm0, xmm1 and EFLAGS.
    pub fn emit(&self, e: &mut Emitter) {
        let (to, count) = (self.words[0].to, self.words.len() as u32);
        if count == 2 && to % 2 == 0 && self.words[0].from.is_none() {
            return constant(e, to, self.words[0].eor, self.words[1].eor);
        }
        emit(e, &self.words);
        e.held.forget(to, count);
    }
}

/// A constant in a D register, and in a host register.
fn constant(e: &mut Emitter, to: u32, low: u32, high: u32) {
    let normal = e.fpscr == Some(Mode::Flush) && (high & 0x7ff0_0000 != 0 || high << 1 | low == 0);
    let k = e.held.hold(to, true, normal);
    konst(e, k, u128::from(high) << 32 | u128::from(low));
    x!(e; movsd [rbp + ext(to)], Rx(k));
}

/// Emits the move of two or four words.
fn emit(e: &mut Emitter, words: &[Word]) {
    let join = |f: fn(&Word) -> u32| words.iter().rev().fold(0u128, |r, w| r << 32 | u128::from(f(w)));
    let (and, eor) = (join(|w| w.and), join(|w| w.eor));
    let to = ext(words[0].to);
    match (words.len(), words[0].from) {
        (2, None) => {
            let v = eor as u64;
            if let Ok(short) = i32::try_from(v as i64) {
                x!(e; mov QWORD [rbp + to], short);
            } else {
                x!(e; mov rax, QWORD v as i64 ; mov [rbp + to], rax);
            }
        }
        (2, Some(from)) => {
            x!(e; mov rax, [rbp + ext(from)]);
            match (and as u64, eor as u64) {
                (u64::MAX, 0) => {}
                (u64::MAX, 0x8000_0000_0000_0000) => x!(e; btc rax, 63),
                (0x7fff_ffff_ffff_ffff, 0) => x!(e; btr rax, 63),
                (a, x) => {
                    x!(e; mov rcx, QWORD a as i64 ; and rax, rcx ; mov rcx, QWORD x as i64 ; xor rax, rcx);
                }
            }
            x!(e; mov [rbp + to], rax);
        }
        (_, None) => {
            konst(e, 0, eor);
            x!(e; movups [rbp + to], xmm0);
        }
        (_, Some(from)) => {
            x!(e; movups xmm0, [rbp + ext(from)]);
            if and != u128::MAX {
                konst(e, 1, and);
                x!(e; pand xmm0, xmm1);
            }
            if eor != 0 {
                konst(e, 1, eor);
                x!(e; pxor xmm0, xmm1);
            }
            x!(e; movups [rbp + to], xmm0);
        }
    }
}
