//! Moves, arithmetic, logic, shifts, multiplication.

use super::Lower;
use crate::flags::{Carry, FlagState, NzRecipe, Recipe, at};
use crate::regs::{EAX, ECX, Loc, loc};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::ir::{Op, Uop};

/// Two-operand host instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alu {
    Add,
    Sub,
    And,
    Or,
    Xor,
    Adc,
    Sbb,
}

macro_rules! alu {
    ($a:expr, $op:expr, $($args:tt)*) => {
        match $op {
            Alu::Add => dynasm!($a ; .arch x64 ; add $($args)*),
            Alu::Sub => dynasm!($a ; .arch x64 ; sub $($args)*),
            Alu::And => dynasm!($a ; .arch x64 ; and $($args)*),
            Alu::Or => dynasm!($a ; .arch x64 ; or $($args)*),
            Alu::Xor => dynasm!($a ; .arch x64 ; xor $($args)*),
            Alu::Adc => dynasm!($a ; .arch x64 ; adc $($args)*),
            Alu::Sbb => dynasm!($a ; .arch x64 ; sbb $($args)*),
        }
    };
}

impl Alu {
    fn commutes(self) -> bool {
        !matches!(self, Alu::Sub | Alu::Sbb)
    }
}

impl Lower<'_> {
    /// Host register `r` op= slot `b`.
    fn alu_to(&mut self, op: Alu, r: u8, b: u8) {
        match loc(b) {
            Loc::R(h) => alu!(self.e.asm, op, Rd(r), Rd(h)),
            Loc::M(m) => alu!(self.e.asm, op, Rd(r), [rbp + m]),
            Loc::Zero => alu!(self.e.asm, op, Rd(r), 0),
        }
    }

    /// `d = R[a] op R[b]`. EFLAGS are those of the operation. The caller has seen to the guest's flags.
    fn alu3(&mut self, op: Alu, d: u8, a: u8, b: u8) {
        match loc(d) {
            Loc::R(h) if d == a => self.alu_to(op, h, b),
            Loc::R(h) if d == b && op.commutes() => self.alu_to(op, h, a),
            Loc::R(h) if d != b => {
                self.e.load(h, a);
                self.alu_to(op, h, b);
            }
            Loc::M(m) if d == a && matches!(loc(b), Loc::R(_)) => {
                let r = self.e.read(b, EAX);
                alu!(self.e.asm, op, [rbp + m], Rd(r));
            }
            _ => {
                self.e.load(EAX, a);
                self.alu_to(op, EAX, b);
                self.e.store(d, EAX);
            }
        }
    }

    /// `d = R[a] op imm`.
    fn alu_imm(&mut self, op: Alu, d: u8, a: u8, imm: u32) {
        match loc(d) {
            Loc::R(h) => {
                self.e.load(h, a);
                alu!(self.e.asm, op, Rd(h), imm as i32);
            }
            Loc::M(m) if d == a => alu!(self.e.asm, op, DWORD[rbp + m], imm as i32),
            _ => {
                self.e.load(EAX, a);
                alu!(self.e.asm, op, eax, imm as i32);
                self.e.store(d, EAX);
            }
        }
    }

    /// An operation without flags that spoils EFLAGS.
    fn plain3(&mut self, op: Alu, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.alu3(op, u.d, u.a, u.b);
    }

    fn plain_imm(&mut self, op: Alu, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.alu_imm(op, u.d, u.a, u.imm);
    }

    /// `d = R[a] + R[b] * 2^shift`, shift 0-3, by LEA: EFLAGS stay.
    fn lea(&mut self, d: u8, a: u8, b: u8, shift: u32) {
        let (x, y) = (self.e.read(a, EAX), self.e.read(b, ECX));
        let r = if let Loc::R(h) = loc(d) { h } else { EAX };
        let e = &mut self.e.asm;
        match shift {
            0 => dynasm!(e ; .arch x64 ; lea Rd(r), [Rq(x) + Rq(y)]),
            1 => dynasm!(e ; .arch x64 ; lea Rd(r), [Rq(x) + 2 * Rq(y)]),
            2 => dynasm!(e ; .arch x64 ; lea Rd(r), [Rq(x) + 4 * Rq(y)]),
            _ => dynasm!(e ; .arch x64 ; lea Rd(r), [Rq(x) + 8 * Rq(y)]),
        }
        self.e.store(d, r);
    }

    /// The host register in which to compute `d` from `a`, holding `a`: that of `d`, or `eax`. `b` is read later and must not be overwritten.
    fn target(&mut self, d: u8, a: u8, b: Option<u8>) -> u8 {
        let r = match loc(d) {
            Loc::R(h) if b != Some(d) => h,
            _ => EAX,
        };
        self.e.load(r, a);
        r
    }

    /// A shift by a constant or by `cl`, without flags.
    fn shift_imm(&mut self, u: &Uop) {
        self.writes(u.d);
        if u.imm == 0 {
            let r = self.e.read(u.a, EAX);
            return self.e.store(u.d, r);
        }
        if u.op == Op::LslImm && u.imm <= 3 && u.a != u.d {
            // Keeps EFLAGS.
            let (x, r) = (self.e.read(u.a, EAX), if let Loc::R(h) = loc(u.d) { h } else { EAX });
            match u.imm {
                1 => dynasm!(self.e.asm ; .arch x64 ; lea Rd(r), [Rq(x) + Rq(x)]),
                2 => dynasm!(self.e.asm ; .arch x64 ; lea Rd(r), [4 * Rq(x)]),
                _ => dynasm!(self.e.asm ; .arch x64 ; lea Rd(r), [8 * Rq(x)]),
            }
            return self.e.store(u.d, r);
        }
        self.clobber();
        let r = self.target(u.d, u.a, None);
        let n = u.imm as i8;
        match u.op {
            Op::LslImm => dynasm!(self.e.asm ; .arch x64 ; shl Rd(r), n),
            Op::LsrImm => dynasm!(self.e.asm ; .arch x64 ; shr Rd(r), n),
            Op::AsrImm => dynasm!(self.e.asm ; .arch x64 ; sar Rd(r), n),
            _ => dynasm!(self.e.asm ; .arch x64 ; ror Rd(r), n),
        }
        self.e.store(u.d, r);
    }

    /// A shift by the low byte of a register. Amounts from 32 on are done in 64 bits, where 32 to 63 come out right, and larger ones are cut to 63.
    fn shift_reg(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.e.load(ECX, u.b);
        if u.op == Op::Ror {
            self.e.load(EAX, u.a);
            dynasm!(self.e.asm ; .arch x64 ; ror eax, cl);
            return self.e.store(u.d, EAX);
        }
        let fits = self.e.label();
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64 ; movzx ecx, cl ; cmp ecx, 63 ; jbe =>fits ; mov ecx, 63 ; =>fits);
        match u.op {
            Op::Lsl => dynasm!(self.e.asm ; .arch x64 ; shl rax, cl ; mov eax, eax),
            Op::Lsr => dynasm!(self.e.asm ; .arch x64 ; shr rax, cl),
            _ => dynasm!(self.e.asm ; .arch x64 ; movsxd rax, eax ; sar rax, cl ; mov eax, eax),
        }
        self.e.store(u.d, EAX);
    }

    /// A shift by a register whose carry is wanted.
    fn shift_carry(&mut self, u: &Uop) {
        // C may stay as it is, so memory holds it; the rest goes there as well.
        self.f.save(&mut self.e);
        self.f = FlagState::MEMORY;
        self.writes(u.d);
        let (f, done) = (at(), self.e.label());
        self.e.load(ECX, u.b);
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64 ; and ecx, 0xff ; je =>done);
        let fits = self.e.label();
        match u.imm {
            // In 64 bits the carry of amounts up to 33 comes out right, and beyond that it is 0 for LSL and LSR and the sign for ASR.
            0 => {
                dynasm!(self.e.asm ; .arch x64 ; cmp ecx, 33 ; jbe =>fits ; mov ecx, 33 ; =>fits
                    ; shl rax, cl ; bt rax, 32 ; setc BYTE [BYTE rbp + f + 2] ; mov eax, eax)
            }
            1 => {
                dynasm!(self.e.asm ; .arch x64 ; cmp ecx, 33 ; jbe =>fits ; mov ecx, 33 ; =>fits
                    ; shr rax, cl ; setc BYTE [BYTE rbp + f + 2])
            }
            2 => {
                dynasm!(self.e.asm ; .arch x64 ; cmp ecx, 33 ; jbe =>fits ; mov ecx, 33 ; =>fits
                    ; movsxd rax, eax ; sar rax, cl ; setc BYTE [BYTE rbp + f + 2] ; mov eax, eax)
            }
            _ => dynasm!(self.e.asm ; .arch x64 ; =>fits ; ror eax, cl ; bt eax, 31 ; setc BYTE [BYTE rbp + f + 2]),
        }
        self.e.place(done);
        self.e.store(u.d, EAX);
    }

    fn mul(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        let (a, b) = if u.d == u.b { (u.b, u.a) } else { (u.a, u.b) };
        let r = self.target(u.d, a, if u.d == a { None } else { Some(b) });
        match loc(b) {
            Loc::R(h) => dynasm!(self.e.asm ; .arch x64 ; imul Rd(r), Rd(h)),
            Loc::M(m) => dynasm!(self.e.asm ; .arch x64 ; imul Rd(r), [rbp + m]),
            Loc::Zero => dynasm!(self.e.asm ; .arch x64 ; mov Rd(r), 0),
        }
        self.e.store(u.d, r);
    }

    fn mul_long(&mut self, u: &Uop) {
        self.writes(u.d);
        self.writes(u.imm as u8);
        self.clobber();
        self.e.load(EAX, u.a);
        self.e.load(ECX, u.b);
        if u.op == Op::Smull {
            dynasm!(self.e.asm ; .arch x64 ; movsxd rax, eax ; movsxd rcx, ecx);
        }
        dynasm!(self.e.asm ; .arch x64 ; imul rax, rcx ; mov ecx, eax ; shr rax, 32);
        self.e.store(u.d, ECX);
        self.e.store(u.imm as u8, EAX);
    }

    /// Division; by 0 gives 0, and the one signed overflow wraps. `rdx` is kept in `rcx`'s slot of the stack-free kind: xmm0.
    fn div(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        let (zero, done) = (self.e.label(), self.e.label());
        self.e.load(EAX, u.a);
        self.e.load(ECX, u.b);
        dynasm!(self.e.asm ; .arch x64 ; test ecx, ecx ; je =>zero ; movq xmm0, rdx);
        if u.op == Op::Sdiv {
            // In 64 bits -2^31 / -1 does not overflow.
            dynasm!(self.e.asm ; .arch x64 ; movsxd rax, eax ; movsxd rcx, ecx ; cqo ; idiv rcx ; mov eax, eax);
        } else {
            dynasm!(self.e.asm ; .arch x64 ; xor edx, edx ; div ecx);
        }
        dynasm!(self.e.asm ; .arch x64 ; movq rdx, xmm0 ; =>done);
        self.e.cold(move |e| dynasm!(e.asm ; .arch x64 ; =>zero ; xor eax, eax ; jmp =>done));
        self.e.store(u.d, EAX);
    }

    fn rbit(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64 ; bswap eax);
        for (shift, mask) in [(4i8, 0x0f0f_0f0fu32), (2, 0x3333_3333), (1, 0x5555_5555)] {
            dynasm!(self.e.asm ; .arch x64
                ; mov ecx, eax ; shr eax, shift ; and ecx, mask as i32 ; and eax, mask as i32 ; shl ecx, shift ; or eax, ecx);
        }
        self.e.store(u.d, EAX);
    }

    fn clz(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.e.load(EAX, u.a);
        // BSR of 2 * x + 1 needs no case for 0: 32 - index.
        dynasm!(self.e.asm ; .arch x64 ; lea rax, [rax + rax + 1] ; bsr rax, rax ; xor eax, 63 ; sub eax, 31);
        self.e.store(u.d, EAX);
    }

    /// Moves of bytes and halves.
    fn extend(&mut self, u: &Uop) {
        self.writes(u.d);
        let r = if let Loc::R(h) = loc(u.d) { h } else { EAX };
        match u.op {
            Op::Sxtb | Op::Sxth => {
                let a = self.e.read(u.a, EAX);
                if u.op == Op::Sxtb {
                    dynasm!(self.e.asm ; .arch x64 ; movsx Rd(r), Rb(a));
                } else {
                    dynasm!(self.e.asm ; .arch x64 ; movsx Rd(r), Rw(a));
                }
            }
            Op::Rev => {
                self.e.load(r, u.a);
                dynasm!(self.e.asm ; .arch x64 ; bswap Rd(r));
            }
            Op::Rev16 => {
                self.clobber();
                self.e.load(r, u.a);
                dynasm!(self.e.asm ; .arch x64 ; bswap Rd(r) ; rol Rd(r), 16);
            }
            _ => {
                self.clobber();
                self.e.load(r, u.a);
                dynasm!(self.e.asm ; .arch x64 ; bswap Rd(r) ; sar Rd(r), 16);
            }
        }
        self.e.store(u.d, r);
    }

    fn ubfx(&mut self, u: &Uop) {
        self.writes(u.d);
        let r = if let Loc::R(h) = loc(u.d) { h } else { EAX };
        let a = self.e.read(u.a, EAX);
        match (u.imm, u.aux) {
            (0, 0xff) => dynasm!(self.e.asm ; .arch x64 ; movzx Rd(r), Rb(a)),
            (0, 0xffff) => dynasm!(self.e.asm ; .arch x64 ; movzx Rd(r), Rw(a)),
            _ => {
                self.clobber();
                self.e.load(r, u.a);
                if u.imm != 0 {
                    dynasm!(self.e.asm ; .arch x64 ; shr Rd(r), u.imm as i8);
                }
                if u.aux != u32::MAX >> u.imm {
                    dynasm!(self.e.asm ; .arch x64 ; and Rd(r), u.aux as i32);
                }
            }
        }
        self.e.store(u.d, r);
    }

    fn sbfx(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        let r = self.target(u.d, u.a, None);
        let (left, right) = ((32 - u.imm - u.aux) as i8, (32 - u.aux) as i8);
        if left != 0 {
            dynasm!(self.e.asm ; .arch x64 ; shl Rd(r), left);
        }
        if right != 0 {
            dynasm!(self.e.asm ; .arch x64 ; sar Rd(r), right);
        }
        self.e.store(u.d, r);
    }

    fn bfi(&mut self, u: &Uop) {
        self.writes(u.d);
        self.clobber();
        self.e.load(ECX, u.b);
        if u.imm != 0 {
            dynasm!(self.e.asm ; .arch x64 ; shl ecx, u.imm as i8);
        }
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64 ; and ecx, u.aux as i32 ; and eax, !u.aux as i32 ; or eax, ecx);
        self.e.store(u.d, EAX);
    }

    fn rrx(&mut self, i: usize, u: &Uop) {
        self.writes(u.d);
        self.carry_in(i, Carry::Direct);
        // MOV keeps the carry.
        let r = self.target(u.d, u.a, None);
        dynasm!(self.e.asm ; .arch x64 ; rcr Rd(r), 1);
        self.e.store(u.d, r);
    }

    // ----- flags -----

    fn adds(&mut self, u: &Uop) {
        let recipe = match (u.d == u.a, u.d == u.b) {
            (false, false) => Some(Recipe::Add(u.a, u.b)),
            (true, false) => Some(Recipe::AddReg(u.d, u.b)),
            (false, true) => Some(Recipe::AddReg(u.d, u.a)),
            _ => None,
        };
        self.alu3(Alu::Add, u.d, u.a, u.b);
        self.set_all(Carry::Direct, recipe);
    }

    fn adds_imm(&mut self, u: &Uop) {
        self.alu_imm(Alu::Add, u.d, u.a, u.imm);
        self.set_all(Carry::Direct, Some(Recipe::AddImm(u.d, u.imm)).filter(|_| u.d != reprise_arm::ir::SINK));
    }

    fn subs(&mut self, u: &Uop) {
        let recipe = match (u.d == u.a, u.d == u.b) {
            (false, false) => Some(Recipe::Cmp(u.a, u.b)),
            (true, false) => Some(Recipe::SubReg(u.d, u.b)),
            _ => None,
        };
        self.alu3(Alu::Sub, u.d, u.a, u.b);
        self.set_all(Carry::Borrow, recipe);
    }

    fn subs_imm(&mut self, u: &Uop) {
        self.alu_imm(Alu::Sub, u.d, u.a, u.imm);
        let recipe = if u.d == u.a { Recipe::SubImm(u.d, u.imm) } else { Recipe::CmpImm(u.a, u.imm) };
        self.set_all(Carry::Borrow, Some(recipe));
    }

    fn with_carry(&mut self, i: usize, u: &Uop, op: Alu, flags: bool) {
        let carry = if op == Alu::Adc { Carry::Direct } else { Carry::Borrow };
        if !flags {
            self.writes(u.d);
        }
        self.carry_in(i, carry);
        self.alu3(op, u.d, u.a, u.b);
        if flags {
            self.set_all(carry, None);
        }
    }

    /// N and Z are those of `r`; nothing is tested before somebody asks.
    fn test(&mut self, i: usize, r: NzRecipe) {
        self.before_nz(i);
        self.f.mem_nz = false;
        self.f.nz = Some(r);
    }

    fn set_nz64(&mut self, i: usize, u: &Uop) {
        self.before_nz(i);
        self.clobber();
        self.e.load(ECX, u.b);
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64 ; shl rcx, 32 ; or rcx, rax);
        self.set_nz();
    }

    /// C alone, in memory. `value` emits it to CF, or is a constant.
    fn set_c(&mut self, u: &Uop) {
        // What the recipe says of V (and N, Z) goes to memory first; the new C is written over it.
        self.f.save(&mut self.e);
        self.f.full = None;
        let f = at();
        if u.op == Op::SetC {
            if let Some(h) = &mut self.f.host {
                h.cv = None;
            }
            return dynasm!(self.e.asm ; .arch x64 ; mov BYTE [BYTE rbp + f + 2], u.imm as i8);
        }
        self.f.host = None;
        let r = self.e.read(u.a, EAX);
        dynasm!(self.e.asm ; .arch x64 ; bt Rd(r), u.imm as i8 ; setc BYTE [BYTE rbp + f + 2]);
    }

    /// `ecx` = the result of `u`, if it is an operation of two operands without flags; false if not. Spoils EFLAGS and `eax`.
    pub(super) fn compute(&mut self, u: &Uop) -> bool {
        let (op, imm) = match u.op {
            Op::Add => (Alu::Add, false),
            Op::Sub => (Alu::Sub, false),
            Op::And => (Alu::And, false),
            Op::Orr => (Alu::Or, false),
            Op::Eor => (Alu::Xor, false),
            Op::AndImm => (Alu::And, true),
            Op::OrrImm => (Alu::Or, true),
            Op::EorImm => (Alu::Xor, true),
            Op::Bic => {
                self.clobber();
                self.e.load(ECX, u.b);
                dynasm!(self.e.asm ; .arch x64 ; not ecx);
                self.alu_to(Alu::And, ECX, u.a);
                return true;
            }
            Op::RsbImm => {
                self.clobber();
                dynasm!(self.e.asm ; .arch x64 ; mov ecx, u.imm as i32);
                self.alu_to(Alu::Sub, ECX, u.a);
                return true;
            }
            _ => return false,
        };
        self.clobber();
        self.e.load(ECX, u.a);
        if imm {
            alu!(self.e.asm, op, ecx, u.imm as i32);
        } else {
            self.alu_to(op, ECX, u.b);
        }
        true
    }

    /// The operations of this module; false if `u` is none of them.
    #[allow(clippy::too_many_lines)]
    pub(super) fn alu(&mut self, i: usize, u: &Uop) -> bool {
        match u.op {
            Op::Nop => {}
            Op::MovImm => {
                self.writes(u.d);
                self.e.store_imm(u.d, u.imm);
            }
            Op::Mov => {
                self.writes(u.d);
                let r = self.target(u.d, u.a, None);
                self.e.store(u.d, r);
            }
            Op::Mvn => {
                self.writes(u.d);
                let r = self.target(u.d, u.a, None);
                dynasm!(self.e.asm ; .arch x64 ; not Rd(r));
                self.e.store(u.d, r);
            }
            Op::Add if u.d == u.a => self.plain3(Alu::Add, u),
            Op::Add => {
                self.writes(u.d);
                self.lea(u.d, u.a, u.b, 0);
            }
            Op::AddImm => {
                self.writes(u.d);
                match loc(u.d) {
                    Loc::R(h) => self.e.lea_imm(h, u.a, u.imm),
                    _ => {
                        self.clobber();
                        self.alu_imm(Alu::Add, u.d, u.a, u.imm);
                    }
                }
            }
            Op::AddLsl if u.imm <= 3 => {
                self.writes(u.d);
                self.lea(u.d, u.a, u.b, u.imm);
            }
            Op::AddLsl | Op::OrrLsl => {
                self.writes(u.d);
                self.clobber();
                self.e.load(EAX, u.b);
                if u.imm != 0 {
                    dynasm!(self.e.asm ; .arch x64 ; shl eax, u.imm as i8);
                }
                self.alu_to(if u.op == Op::AddLsl { Alu::Add } else { Alu::Or }, EAX, u.a);
                self.e.store(u.d, EAX);
            }
            Op::Sub => self.plain3(Alu::Sub, u),
            Op::RsbImm => {
                self.writes(u.d);
                self.clobber();
                if u.imm == 0 {
                    let r = self.target(u.d, u.a, None);
                    dynasm!(self.e.asm ; .arch x64 ; neg Rd(r));
                    self.e.store(u.d, r);
                } else {
                    dynasm!(self.e.asm ; .arch x64 ; mov eax, u.imm as i32);
                    self.alu_to(Alu::Sub, EAX, u.a);
                    self.e.store(u.d, EAX);
                }
            }
            Op::Adc => self.with_carry(i, u, Alu::Adc, false),
            Op::Sbc => self.with_carry(i, u, Alu::Sbb, false),
            Op::And => self.plain3(Alu::And, u),
            Op::AndImm => match (u.imm, loc(u.d), loc(u.a)) {
                (0xff, Loc::R(h), Loc::R(a)) => {
                    self.writes(u.d);
                    dynasm!(self.e.asm ; .arch x64 ; movzx Rd(h), Rb(a));
                }
                (0xffff, Loc::R(h), Loc::R(a)) => {
                    self.writes(u.d);
                    dynasm!(self.e.asm ; .arch x64 ; movzx Rd(h), Rw(a));
                }
                _ => self.plain_imm(Alu::And, u),
            },
            Op::Orr => self.plain3(Alu::Or, u),
            Op::OrrImm => self.plain_imm(Alu::Or, u),
            Op::Eor => self.plain3(Alu::Xor, u),
            Op::EorImm => self.plain_imm(Alu::Xor, u),
            Op::Bic => {
                self.writes(u.d);
                self.clobber();
                self.e.load(EAX, u.b);
                dynasm!(self.e.asm ; .arch x64 ; not eax);
                self.alu_to(Alu::And, EAX, u.a);
                self.e.store(u.d, EAX);
            }
            Op::AddS => self.adds(u),
            Op::AddSImm => self.adds_imm(u),
            Op::SubS => self.subs(u),
            Op::SubSImm => self.subs_imm(u),
            Op::AdcS => self.with_carry(i, u, Alu::Adc, true),
            Op::SbcS => self.with_carry(i, u, Alu::Sbb, true),
            // Nothing is compared before somebody asks.
            Op::Cmp => self.f = FlagState::later(Recipe::Cmp(u.a, u.b)),
            Op::CmpImm => self.f = FlagState::later(Recipe::CmpImm(u.a, u.imm)),
            Op::Tst => self.test(i, NzRecipe::And(u.a, u.b)),
            Op::TstImm => self.test(i, NzRecipe::AndImm(u.a, u.imm)),
            Op::SetNz => self.test(i, NzRecipe::Of(u.a)),
            Op::SetC | Op::SetCBit => self.set_c(u),
            Op::SetNz64 => self.set_nz64(i, u),
            Op::LslImm | Op::LsrImm | Op::AsrImm | Op::RorImm => self.shift_imm(u),
            Op::Rrx => self.rrx(i, u),
            Op::Lsl | Op::Lsr | Op::Asr | Op::Ror => self.shift_reg(u),
            Op::ShiftC => self.shift_carry(u),
            Op::Mul => self.mul(u),
            Op::Umull | Op::Smull => self.mul_long(u),
            Op::Udiv | Op::Sdiv => self.div(u),
            Op::Clz => self.clz(u),
            Op::Rbit => self.rbit(u),
            Op::Rev | Op::Rev16 | Op::Revsh | Op::Sxtb | Op::Sxth => self.extend(u),
            Op::Ubfx => self.ubfx(u),
            Op::Sbfx => self.sbfx(u),
            Op::Bfi => self.bfi(u),
            _ => return false,
        }
        true
    }
}
