//! VLD1 to VLD4 and VST1 of whole registers, which the translator makes of doublewords in temporaries: as one run of bytes between memory and
//! the extension registers.
//!
//! One look at the page instead of up to four; and a register that is loaded in one piece is not split over stores that a load of it
//! would have to wait for.

use super::Lower;
use super::mem::Table;
use crate::emit::ext;
use crate::regs::EAX;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::ir::{FIRST_TEMP, MemKind, Op, Size, Uop, ZERO};

/// Doublewords that go together.
pub(super) struct Structure {
    load: bool,
    base: u8,
    offset: u32,
    /// Address bits that must be 0.
    mask: u32,
    /// First extension word of each doubleword.
    words: Vec<u32>,
}

fn temporary(s: u8) -> bool {
    (FIRST_TEMP..ZERO).contains(&s)
}

/// The doubleword that three micro-ops move: the access and its extension word.
fn doubleword(u: &[Uop]) -> Option<(Uop, u32)> {
    let [x, y, z] = u else { return None };
    let (access, lo, hi) = if x.op == Op::LdX { (x, y, z) } else { (z, x, y) };
    let kind = MemKind::unpack(access.aux);
    let (slots, op) = match access.op {
        Op::LdX => ((lo.a, hi.a), Op::ExtSet),
        Op::StX => ((lo.d, hi.d), Op::ExtGet),
        _ => return None,
    };
    let fits = kind.size == Size::Dword && !kind.user && access.d != access.b && slots == (access.d, access.b);
    let moves = lo.op == op && hi.op == op && hi.imm == lo.imm + 1;
    let temporaries = temporary(access.d) && temporary(access.b) && access.a != access.d && access.a != access.b;
    (fits && moves && temporaries).then_some((*access, lo.imm))
}

impl Structure {
    /// What the micro-ops begin with, and how many they are. `uops` is what is left of one instruction, without the end of a skip inside.
    pub(super) fn find(uops: &[Uop]) -> Option<(Self, usize)> {
        let (first, word) = doubleword(uops.get(..3)?)?;
        let mask = MemKind::unpack(first.aux).required_mask();
        let mut s = Self { load: first.op == Op::LdX, base: first.a, offset: first.imm, mask, words: vec![word] };
        while let Some((next, word)) = uops.get(3 * s.words.len()..3 * s.words.len() + 3).and_then(doubleword) {
            let follows = next.imm == s.offset.wrapping_add(8 * s.words.len() as u32);
            let plain = MemKind::unpack(next.aux).required_mask() == 0;
            if next.op != first.op || next.a != s.base || !follows || !plain {
                break;
            }
            s.words.push(word);
        }
        let n = 3 * s.words.len();
        let used = uops[n..].iter().any(|u| temporary(u.a) || temporary(u.b) || temporary(u.d));
        (!used).then_some((s, n))
    }
}

impl Lower<'_> {
    /// Lowers micro-ops `i..i + n`, which are `s`. Out of line the interpreter executes them one by one: each piece has its own abort.
    pub(super) fn structure(&mut self, i: usize, n: usize, s: &Structure) {
        self.clobber();
        let (slow, back) = (self.e.label(), self.e.label());
        let (mut f, step) = (self.f, self.step);
        self.e.cold(move |e| {
            e.place(slow);
            f.save(e);
            for k in i..i + n {
                dynasm!(e.asm ; .arch x64 ; mov eax, k as i32 ; call =>step);
            }
            dynasm!(e.asm ; .arch x64 ; jmp =>back);
        });
        self.e.lea_imm(EAX, s.base, s.offset);
        self.lookup(if s.load { Table::Read } else { Table::Write }, EAX, slow);
        dynasm!(self.e.asm ; .arch x64 ; add rcx, rax);
        if s.mask != 0 {
            dynasm!(self.e.asm ; .arch x64 ; test eax, s.mask as i32 ; jne =>slow);
        }
        let last = 0x1000 - 8 * s.words.len() as i32;
        dynasm!(self.e.asm ; .arch x64 ; and eax, 0xfff ; cmp eax, last ; ja =>slow);
        let mut k = 0;
        while k < s.words.len() {
            let (m, at) = (ext(s.words[k]), 8 * k as i32);
            let pair = s.words.get(k + 1).is_some_and(|w| *w == s.words[k] + 2);
            let e = &mut self.e.asm;
            match (pair, s.load) {
                (true, true) => dynasm!(e ; .arch x64 ; movups xmm0, [rcx + at] ; movups [rbp + m], xmm0),
                (true, false) => dynasm!(e ; .arch x64 ; movups xmm0, [rbp + m] ; movups [rcx + at], xmm0),
                (false, true) => dynasm!(e ; .arch x64 ; mov rax, [rcx + at] ; mov [rbp + m], rax),
                (false, false) => dynasm!(e ; .arch x64 ; mov rax, [rbp + m] ; mov [rcx + at], rax),
            }
            k += if pair { 2 } else { 1 };
        }
        self.e.place(back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u(op: Op, d: u8, a: u8, b: u8, imm: u32, aux: u32) -> Uop {
        Uop { op, d, a, b, imm, aux }
    }

    fn load(k: u32, base: u8, off: u32, word: u32) -> [Uop; 3] {
        let (lo, hi) = (FIRST_TEMP + 2 * k as u8, FIRST_TEMP + 1 + 2 * k as u8);
        let kind = MemKind::new(Size::Dword).aligned(if k == 0 { 3 } else { 0 }).pack();
        [u(Op::LdX, lo, base, hi, off, kind), u(Op::ExtSet, 0, lo, 0, word, 0), u(Op::ExtSet, 0, hi, 0, word + 1, 0)]
    }

    #[test]
    fn doublewords_go_together_while_they_follow_one_another() {
        let three: Vec<Uop> = (0..3).flat_map(|k| load(k, 4, 8 * k, 10 + 2 * k)).collect();
        let (s, n) = Structure::find(&three).expect("a structure");
        assert_eq!((n, s.words.as_slice(), s.mask, s.base, s.load), (9, &[10, 12, 14][..], 7, 4, true));
        let apart: Vec<Uop> = [load(0, 4, 0, 10), load(1, 4, 16, 12)].concat();
        assert_eq!(Structure::find(&apart).map(|(_, n)| n), None, "what is left uses temporaries");
        let other: Vec<Uop> = [load(0, 4, 0, 10), load(1, 5, 8, 12)].concat();
        assert_eq!(Structure::find(&other).map(|(_, n)| n), None);
        assert!(Structure::find(&three[..2]).is_none());
        assert!(Structure::find(&three[1..]).is_none());
    }

    #[test]
    fn core_registers_take_no_part() {
        let mut ldrd = load(0, 4, 0, 10);
        (ldrd[0].d, ldrd[1].a) = (2, 2);
        assert!(Structure::find(&ldrd).is_none());
    }
}
