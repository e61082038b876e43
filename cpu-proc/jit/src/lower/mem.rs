//! Loads and stores.
//!
//! The hot path of an access is: compute the address, look up its page in the flat table, see that the entry is there and the address aligned, access. An unaligned
//! address inside one page goes out of line and comes back; everything else is stepped.

use super::Lower;
use crate::emit::{Emitter, ext};
use crate::regs::{EAX, ECX, Loc, loc};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::ir::{MemKind, Op, Size, Uop};
use reprise_arm::mmu::WRITE_TABLE;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Read,
    Write,
}

impl Table {
    fn offset(self) -> i32 {
        match self {
            Table::Read => 0,
            Table::Write => WRITE_TABLE as i32,
        }
    }
}

/// What is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Ld32,
    Ld16,
    Ld16s,
    Ld8,
    Ld8s,
    St32,
    St16,
    St8,
}

impl Move {
    fn of(op: Op) -> Option<(Move, bool)> {
        Some(match op {
            Op::Ld32 => (Move::Ld32, false),
            Op::Ld16 => (Move::Ld16, false),
            Op::Ld16s => (Move::Ld16s, false),
            Op::Ld8 => (Move::Ld8, false),
            Op::Ld8s => (Move::Ld8s, false),
            Op::Ld32R => (Move::Ld32, true),
            Op::Ld16R => (Move::Ld16, true),
            Op::Ld16sR => (Move::Ld16s, true),
            Op::Ld8R => (Move::Ld8, true),
            Op::Ld8sR => (Move::Ld8s, true),
            Op::St32 => (Move::St32, false),
            Op::St16 => (Move::St16, false),
            Op::St8 => (Move::St8, false),
            Op::St32R => (Move::St32, true),
            Op::St16R => (Move::St16, true),
            Op::St8R => (Move::St8, true),
            _ => return None,
        })
    }

    fn is_store(self) -> bool {
        matches!(self, Move::St32 | Move::St16 | Move::St8)
    }

    fn bytes(self) -> i32 {
        match self {
            Move::Ld32 | Move::St32 => 4,
            Move::Ld16 | Move::Ld16s | Move::St16 => 2,
            Move::Ld8 | Move::Ld8s | Move::St8 => 1,
        }
    }
}

/// Jumps to `slow` unless `bytes` bytes at `va` lie in one page; `rcx` is the page's addend, still or again.
fn in_one_page(e: &mut Emitter, table: Table, va: u8, bytes: i32, slow: DynamicLabel) {
    let t = table.offset();
    dynasm!(e.asm ; .arch x64
        ; lea ecx, [Rq(va) + (bytes - 1)]
        ; xor ecx, Rd(va)
        ; test ecx, 0xfffff000u32 as i32
        ; jne =>slow
        ; mov ecx, Rd(va)
        ; shr ecx, 12
        ; mov rcx, [rbx + 8 * rcx + t]);
}

impl Lower<'_> {
    /// Load `i` will write `slots`. The flags that are dead behind it need not be kept: what can leave has its own copy out of line.
    pub(super) fn loads(&mut self, i: usize, slots: &[u8]) {
        self.f.forget(self.need[i + 1]);
        slots.iter().for_each(|s| self.writes(*s));
        self.clobber();
    }

    /// The address of a plain access: a pinned register, or `eax`. Spoils `ecx`; EFLAGS are lost already.
    fn address(&mut self, u: &Uop, indexed: bool) -> u8 {
        if !indexed {
            return self.base(u.a, u.imm);
        }
        let (x, y) = (self.e.read(u.a, EAX), self.e.read(u.b, ECX));
        let e = &mut self.e.asm;
        match u.imm {
            0 => dynasm!(e ; .arch x64 ; lea eax, [Rq(x) + Rq(y)]),
            1 => dynasm!(e ; .arch x64 ; lea eax, [Rq(x) + 2 * Rq(y)]),
            2 => dynasm!(e ; .arch x64 ; lea eax, [Rq(x) + 4 * Rq(y)]),
            3 => dynasm!(e ; .arch x64 ; lea eax, [Rq(x) + 8 * Rq(y)]),
            n => {
                self.e.load(ECX, u.b);
                dynasm!(self.e.asm ; .arch x64 ; shl ecx, n as i8);
                let x = self.e.read(u.a, EAX);
                dynasm!(self.e.asm ; .arch x64 ; lea eax, [Rq(x) + rcx]);
            }
        }
        EAX
    }

    /// `rcx` = addend of the page of `va`; jumps to `slow` if there is none.
    pub(super) fn lookup(&mut self, table: Table, va: u8, slow: DynamicLabel) {
        dynasm!(self.e.asm ; .arch x64 ; mov ecx, Rd(va) ; shr ecx, 12);
        match table {
            Table::Read => dynasm!(self.e.asm ; .arch x64 ; mov rcx, [rbx + 8 * rcx]),
            Table::Write => dynasm!(self.e.asm ; .arch x64 ; mov rcx, [rbx + 8 * rcx + WRITE_TABLE as i32]),
        }
        dynasm!(self.e.asm ; .arch x64 ; test rcx, rcx ; je =>slow);
    }

    /// A single plain access.
    fn access(&mut self, i: usize, u: &Uop, what: Move, indexed: bool) {
        let (slow, back) = (self.e.label(), self.e.label());
        self.cold_step(i, slow, back);
        if !what.is_store() {
            self.loads(i, &[u.d]);
        }
        let va = self.address(u, indexed);
        let table = if what.is_store() { Table::Write } else { Table::Read };
        self.lookup(table, va, slow);
        let fast = self.e.label();
        let bytes = what.bytes();
        if bytes > 1 {
            let odd = self.e.label();
            dynasm!(self.e.asm ; .arch x64 ; test Rb(va), (bytes - 1) as i8 ; jne =>odd ; =>fast);
            self.e.cold(move |e| {
                e.place(odd);
                in_one_page(e, table, va, bytes, slow);
                dynasm!(e.asm ; .arch x64 ; jmp =>fast);
            });
        }
        self.move_word(what, u.d, va);
        self.e.place(back);
    }

    /// The access itself: host address is `rcx + va`.
    fn move_word(&mut self, what: Move, d: u8, va: u8) {
        if what.is_store() {
            // `eax` may hold the address, `rcx` the addend: what is in memory comes through xmm0... unless the two can be joined first.
            let s = match loc(d) {
                Loc::R(h) => h,
                _ => {
                    dynasm!(self.e.asm ; .arch x64 ; add rcx, Rq(va));
                    self.e.load(EAX, d);
                    match what {
                        Move::St32 => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], eax),
                        Move::St16 => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], ax),
                        _ => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], al),
                    }
                    return;
                }
            };
            return match what {
                Move::St32 => dynasm!(self.e.asm ; .arch x64 ; mov [rcx + Rq(va)], Rd(s)),
                Move::St16 => dynasm!(self.e.asm ; .arch x64 ; mov [rcx + Rq(va)], Rw(s)),
                _ => dynasm!(self.e.asm ; .arch x64 ; mov [rcx + Rq(va)], Rb(s)),
            };
        }
        let r = if let Loc::R(h) = loc(d) { h } else { EAX };
        match what {
            Move::Ld32 => dynasm!(self.e.asm ; .arch x64 ; mov Rd(r), [rcx + Rq(va)]),
            Move::Ld16 => dynasm!(self.e.asm ; .arch x64 ; movzx Rd(r), WORD [rcx + Rq(va)]),
            Move::Ld16s => dynasm!(self.e.asm ; .arch x64 ; movsx Rd(r), WORD [rcx + Rq(va)]),
            Move::Ld8 => dynasm!(self.e.asm ; .arch x64 ; movzx Rd(r), BYTE [rcx + Rq(va)]),
            _ => dynasm!(self.e.asm ; .arch x64 ; movsx Rd(r), BYTE [rcx + Rq(va)]),
        }
        self.e.store(d, r);
    }

    /// The address `R[a] + off`: a pinned register, or `eax`.
    fn base(&mut self, a: u8, off: u32) -> u8 {
        if let (Loc::R(h), 0) = (loc(a), off) {
            return h;
        }
        self.e.lea_imm(EAX, a, off);
        EAX
    }

    /// Host address of `words` aligned words at `R[a] + off` in `rcx`, all in one page; jumps to `slow` otherwise. Spoils `eax`.
    fn run_of_words(&mut self, table: Table, a: u8, off: u32, words: i32, slow: DynamicLabel) {
        if words <= 2 {
            let va = self.word_or_two(table, a, off, words, slow);
            dynasm!(self.e.asm ; .arch x64 ; add rcx, Rq(va));
            return;
        }
        self.e.lea_imm(EAX, a, off);
        self.lookup(table, EAX, slow);
        let last = 0x1000 - 4 * words;
        dynasm!(self.e.asm ; .arch x64 ; add rcx, rax ; test al, 3 ; jne =>slow ; and eax, 0xfff ; cmp eax, last ; ja =>slow);
    }

    /// The same for one or two words, with the host address in `rcx` and the register that this gives together.
    fn word_or_two(&mut self, table: Table, a: u8, off: u32, words: i32, slow: DynamicLabel) -> u8 {
        let va = self.base(a, off);
        self.lookup(table, va, slow);
        if words == 1 {
            dynasm!(self.e.asm ; .arch x64 ; test Rb(va), 3 ; jne =>slow);
            return va;
        }
        // A doubleword is usually aligned, and then it lies in one page.
        let (odd, fast) = (self.e.label(), self.e.label());
        dynasm!(self.e.asm ; .arch x64 ; test Rb(va), 7 ; jne =>odd ; =>fast);
        self.e.cold(move |e| {
            dynasm!(e.asm ; .arch x64 ; =>odd ; test Rb(va), 3 ; jne =>slow);
            in_one_page(e, table, va, 8, slow);
            dynasm!(e.asm ; .arch x64 ; jmp =>fast);
        });
        va
    }

    /// LDRD and STRD, and the doublewords of element accesses.
    fn double(&mut self, i: usize, u: &Uop, kind: MemKind) {
        let load = u.op == Op::LdX;
        let (slow, back) = (self.e.label(), self.e.label());
        self.cold_step(i, slow, back);
        if load {
            self.loads(i, &[u.d, u.b]);
        }
        self.e.lea_imm(EAX, u.a, u.imm);
        self.lookup(if load { Table::Read } else { Table::Write }, EAX, slow);
        dynasm!(self.e.asm ; .arch x64 ; add rcx, rax);
        let mask = kind.required_mask() as i8;
        if mask as u8 > 7 {
            dynasm!(self.e.asm ; .arch x64 ; test al, mask ; jne =>slow);
        }
        let (odd, whole) = (self.e.label(), self.e.label());
        dynasm!(self.e.asm ; .arch x64 ; test al, 7 ; jne =>odd ; =>whole);
        self.e.cold(move |e| {
            dynasm!(e.asm ; .arch x64 ; =>odd ; test al, mask ; jne =>slow ; and eax, 0xfff ; cmp eax, 0xff8 ; ja =>slow ; jmp =>whole);
        });
        if load {
            dynasm!(self.e.asm ; .arch x64 ; mov eax, [rcx]);
            self.e.store(u.d, EAX);
            dynasm!(self.e.asm ; .arch x64 ; mov eax, [rcx + 4]);
            self.e.store(u.b, EAX);
        } else {
            let s = self.e.read(u.d, EAX);
            dynasm!(self.e.asm ; .arch x64 ; mov [rcx], Rd(s));
            let s = self.e.read(u.b, EAX);
            dynasm!(self.e.asm ; .arch x64 ; mov [rcx + 4], Rd(s));
        }
        self.e.place(back);
    }

    /// LDM and STM.
    fn multiple(&mut self, i: usize, u: &Uop) {
        let load = u.op == Op::Ldm;
        let list: Vec<u8> = (0..16u8).filter(|r| u.imm >> r & 1 == 1).collect();
        let (slow, back) = (self.e.label(), self.e.label());
        self.cold_step(i, slow, back);
        if load {
            self.loads(i, &list);
        }
        self.run_of_words(if load { Table::Read } else { Table::Write }, u.a, u.aux, list.len() as i32, slow);
        let mut k = 0;
        while k < list.len() {
            let (r, at) = (list[k], 4 * k as i32);
            // Two neighbours that live in memory go together.
            let pair = list.get(k + 1).is_some_and(|n| *n == r + 1 && matches!(loc(*n), Loc::M(_)));
            match (loc(r), load) {
                (Loc::M(m), true) if pair => dynasm!(self.e.asm ; .arch x64 ; mov rax, [rcx + at] ; mov [rbp + m], rax),
                (Loc::M(m), false) if pair => {
                    dynasm!(self.e.asm ; .arch x64 ; mov rax, [rbp + m] ; mov [rcx + at], rax)
                }
                (Loc::R(h), true) => dynasm!(self.e.asm ; .arch x64 ; mov Rd(h), [rcx + at]),
                (Loc::R(h), false) => dynasm!(self.e.asm ; .arch x64 ; mov [rcx + at], Rd(h)),
                (_, true) => {
                    dynasm!(self.e.asm ; .arch x64 ; mov eax, [rcx + at]);
                    self.e.store(r, EAX);
                }
                (_, false) => {
                    self.e.load(EAX, r);
                    dynasm!(self.e.asm ; .arch x64 ; mov [rcx + at], eax);
                }
            }
            k += if pair && matches!(loc(r), Loc::M(_)) { 2 } else { 1 };
        }
        self.e.place(back);
    }

    /// VLDR, VLDM, VSTR, VSTM.
    fn extension(&mut self, i: usize, u: &Uop) {
        let load = u.op == Op::LdmExt;
        let (slow, back) = (self.e.label(), self.e.label());
        let scalar = crate::fp::wants::transferred(u);
        // The copy of what is loaded must be known before the way that reloads it.
        let copy = match scalar {
            Some(s) if load => Some(self.e.held.hold(s.word, s.dp, false)),
            Some(s) => self.e.held.find(s.word, s.dp),
            None => None,
        };
        if load && copy.is_none() {
            self.e.held.forget(u.imm, u.b.into());
        }
        self.cold_step(i, slow, back);
        let (table, words) = (if load { Table::Read } else { Table::Write }, i32::from(u.b));
        if let Some(x) = copy {
            let va = self.word_or_two(table, u.a, u.aux, words, slow);
            self.transfer((x, ext(u.imm)), va, words == 2, load);
            return self.e.place(back);
        }
        self.run_of_words(table, u.a, u.aux, words, slow);
        let mut k = 0;
        while k < words {
            let (m, at) = (ext(u.imm + k as u32), 4 * k);
            let e = &mut self.e.asm;
            k += match (words - k, load) {
                (4.., true) => {
                    dynasm!(e ; .arch x64 ; movups xmm0, [rcx + at] ; movups [rbp + m], xmm0);
                    4
                }
                (4.., false) => {
                    dynasm!(e ; .arch x64 ; movups xmm0, [rbp + m] ; movups [rcx + at], xmm0);
                    4
                }
                (2.., true) => {
                    dynasm!(e ; .arch x64 ; mov rax, [rcx + at] ; mov [rbp + m], rax);
                    2
                }
                (2.., false) => {
                    dynasm!(e ; .arch x64 ; mov rax, [rbp + m] ; mov [rcx + at], rax);
                    2
                }
                (_, true) => {
                    dynasm!(e ; .arch x64 ; mov eax, [rcx + at] ; mov [rbp + m], eax);
                    1
                }
                (_, false) => {
                    dynasm!(e ; .arch x64 ; mov eax, [rbp + m] ; mov [rcx + at], eax);
                    1
                }
            };
        }
        self.e.place(back);
    }

    /// VLDR into a register that `x` is to hold, too, or VSTR of one that it holds; the host address is `rcx + va`.
    fn transfer(&mut self, (x, m): (u8, i32), va: u8, dp: bool, load: bool) {
        let e = &mut self.e.asm;
        match (dp, load) {
            (true, true) => dynasm!(e ; .arch x64 ; movsd Rx(x), [rcx + Rq(va)] ; movsd [rbp + m], Rx(x)),
            (false, true) => dynasm!(e ; .arch x64 ; movss Rx(x), [rcx + Rq(va)] ; movss [rbp + m], Rx(x)),
            (true, false) => dynasm!(e ; .arch x64 ; movsd [rcx + Rq(va)], Rx(x)),
            (false, false) => dynasm!(e ; .arch x64 ; movss [rcx + Rq(va)], Rx(x)),
        }
    }

    /// The operations of this module; false if `u` is none of them.
    pub(super) fn mem(&mut self, i: usize, u: &Uop) -> bool {
        if let Some((what, indexed)) = Move::of(u.op) {
            self.access(i, u, what, indexed);
            return true;
        }
        match u.op {
            Op::LdX | Op::StX => {
                let kind = MemKind::unpack(u.aux);
                if kind.size != Size::Dword || kind.user {
                    return false;
                }
                self.double(i, u, kind);
            }
            Op::Ldm | Op::Stm => self.multiple(i, u),
            Op::LdmExt | Op::StmExt => self.extension(i, u),
            Op::ExtGet => {
                self.writes(u.d);
                let m = ext(u.imm);
                let r = if let Loc::R(h) = loc(u.d) { h } else { EAX };
                dynasm!(self.e.asm ; .arch x64 ; mov Rd(r), [rbp + m]);
                self.e.store(u.d, r);
            }
            Op::ExtSet => {
                let r = self.e.read(u.a, EAX);
                let m = ext(u.imm);
                dynasm!(self.e.asm ; .arch x64 ; mov [rbp + m], Rd(r));
            }
            _ => return false,
        }
        true
    }
}
