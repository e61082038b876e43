//! Where the slots of the micro-ops live.

use crate::emit::{Emitter, slot};
use dynasmrt::{DynasmApi, dynasm};
use reprise_arm::ir::{FIRST_TEMP, SINK, ZERO};

/// Scratch registers.
pub const EAX: u8 = 0;
/// See [`EAX`].
pub const ECX: u8 = 1;

/// Slots with a host register of their own: r0-r5, r12, sp, lr and the first temporary. (Code names r6 as often as r12, but r12 in hotter loops: a boot takes 7 % less with it.)
pub const PINNED: [(u8, u8); 10] =
    [(0, 6), (1, 7), (2, 8), (3, 9), (4, 10), (5, 11), (12, 12), (13, 13), (14, 14), (FIRST_TEMP, 2)];

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loc {
    /// In this host register.
    R(u8),
    /// At this offset from `rbp`.
    M(i32),
    /// It is always 0.
    Zero,
}

/// Where slot `s` is.
pub fn loc(s: u8) -> Loc {
    match s {
        0..=5 => Loc::R(s + 6),
        12..=14 => Loc::R(s),
        FIRST_TEMP => Loc::R(2),
        ZERO => Loc::Zero,
        _ => Loc::M(slot(s)),
    }
}

impl Emitter {
    /// Host register `r` = slot `s`. EFLAGS stay.
    pub fn load(&mut self, r: u8, s: u8) {
        match loc(s) {
            Loc::R(h) if h == r => {}
            Loc::M(_) if r == EAX && self.eax == Some((self.asm.offset().0, s)) => {}
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; mov Rd(r), Rd(h)),
            Loc::M(m) if m < 128 => dynasm!(self.asm ; .arch x64 ; mov Rd(r), [BYTE rbp + m as i8]),
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; mov Rd(r), [rbp + m]),
            Loc::Zero => dynasm!(self.asm ; .arch x64 ; mov Rd(r), 0),
        }
    }

    /// A host register that holds slot `s`: its own, or `scratch`. EFLAGS stay.
    pub fn read(&mut self, s: u8, scratch: u8) -> u8 {
        if let Loc::R(h) = loc(s) {
            return h;
        }
        self.load(scratch, s);
        scratch
    }

    /// Slot `s` = host register `r`. EFLAGS stay.
    pub fn store(&mut self, s: u8, r: u8) {
        match loc(s) {
            Loc::R(h) if h == r => {}
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; mov Rd(h), Rd(r)),
            Loc::M(_) if s == SINK => {}
            Loc::M(m) if m < 128 => dynasm!(self.asm ; .arch x64 ; mov [BYTE rbp + m as i8], Rd(r)),
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; mov [rbp + m], Rd(r)),
            Loc::Zero => panic!("nothing writes the zero slot"),
        }
        if r == EAX && matches!(loc(s), Loc::M(_)) && s != SINK {
            self.eax = Some((self.asm.offset().0, s));
        }
    }

    /// Slot `s` = `imm`. EFLAGS stay.
    pub fn store_imm(&mut self, s: u8, imm: u32) {
        match loc(s) {
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; mov Rd(h), imm as i32),
            Loc::M(_) if s == SINK => {}
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; mov DWORD [rbp + m], imm as i32),
            Loc::Zero => panic!("nothing writes the zero slot"),
        }
    }

    /// EFLAGS of `R[a] - R[b]`; spoils `eax`.
    pub fn cmp(&mut self, a: u8, b: u8) {
        match (loc(a), loc(b)) {
            (Loc::M(m), Loc::R(h)) => dynasm!(self.asm ; .arch x64 ; cmp [rbp + m], Rd(h)),
            (_, Loc::Zero) => self.cmp_imm(a, 0),
            (_, Loc::R(h)) => {
                let r = self.read(a, EAX);
                dynasm!(self.asm ; .arch x64 ; cmp Rd(r), Rd(h));
            }
            (_, Loc::M(m)) => {
                let r = self.read(a, EAX);
                dynasm!(self.asm ; .arch x64 ; cmp Rd(r), [rbp + m]);
            }
        }
    }

    /// EFLAGS of `R[a] - imm`; spoils `eax`.
    pub fn cmp_imm(&mut self, a: u8, imm: u32) {
        match loc(a) {
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; cmp DWORD [rbp + m], imm as i32),
            _ => {
                let r = self.read(a, EAX);
                dynasm!(self.asm ; .arch x64 ; cmp Rd(r), imm as i32);
            }
        }
    }

    /// Host register `r` = `R[a] + imm`. EFLAGS stay.
    pub fn lea_imm(&mut self, r: u8, a: u8, imm: u32) {
        match loc(a) {
            _ if imm == 0 => self.load(r, a),
            Loc::R(h) if i8::try_from(imm as i32).is_ok() => {
                dynasm!(self.asm ; .arch x64 ; lea Rd(r), [BYTE Rq(h) + imm as i8])
            }
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; lea Rd(r), [Rq(h) + imm as i32]),
            Loc::Zero => dynasm!(self.asm ; .arch x64 ; mov Rd(r), imm as i32),
            Loc::M(m) => {
                dynasm!(self.asm ; .arch x64 ; mov Rd(r), [rbp + m] ; lea Rd(r), [Rq(r) + imm as i32]);
            }
        }
    }

    /// Host register `r` -= slot `s`.
    pub fn sub_from(&mut self, r: u8, s: u8) {
        match loc(s) {
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; sub Rd(r), Rd(h)),
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; sub Rd(r), [rbp + m]),
            Loc::Zero => dynasm!(self.asm ; .arch x64 ; sub Rd(r), 0),
        }
    }

    /// Host register `r` += slot `s`.
    pub fn add_to(&mut self, r: u8, s: u8) {
        match loc(s) {
            Loc::R(h) => dynasm!(self.asm ; .arch x64 ; add Rd(r), Rd(h)),
            Loc::M(m) => dynasm!(self.asm ; .arch x64 ; add Rd(r), [rbp + m]),
            Loc::Zero => dynasm!(self.asm ; .arch x64 ; add Rd(r), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_function_agree() {
        for (s, r) in PINNED {
            assert_eq!(loc(s), Loc::R(r));
        }
        assert_eq!((0..64).filter(|s| matches!(loc(*s), Loc::R(_))).count(), PINNED.len());
    }
}
