//! Where the guest's flags are while compiled code runs, and how they get to memory.
//!
//! A setter leaves them in EFLAGS. They go to memory only if something else needs EFLAGS before they are dead and they can't be computed again:
//! a *recipe* says how, as long as its operands keep their values. Cold code, which is left through exceptions and stops, follows the recipe.

use crate::emit::Emitter;
use crate::regs::{EAX, Loc, loc};
use dynasmrt::{DynasmApi, dynasm};
use reprise_arm::ir::{Op, PC_SLOT, Uop};
use reprise_arm::state::{Cpu, HostState};

/// N and Z in a mask of flags.
pub const NZ: u8 = 12;
/// C and V in a mask of flags.
pub const CV: u8 = 3;

/// Offset from `rbp` of the byte that holds V; N and Z are in the next one, C in the one behind.
pub fn at() -> i8 {
    const { (std::mem::offset_of!(Cpu, host) + std::mem::offset_of!(HostState, nzcv)) as i8 }
}

/// What the host's carry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// The guest's C.
    Direct,
    /// The opposite: a borrow.
    Borrow,
}

/// How to set EFLAGS to all four flags again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// `R[a] - R[b]`.
    Cmp(u8, u8),
    /// `R[a] - imm`.
    CmpImm(u8, u32),
    /// `(R[a] + k) - R[b]`: the first operand was changed.
    CmpSum(u8, u32, u8),
    /// `(R[a] + k) - imm`.
    CmpSumImm(u8, u32, u32),
    /// `(R[d] + imm) - imm`: the operand was overwritten by the result.
    SubImm(u8, u32),
    /// `(R[d] - imm) + imm`.
    AddImm(u8, u32),
    /// `R[a] + R[b]`.
    Add(u8, u8),
    /// `(R[d] + R[b]) - R[b]`.
    SubReg(u8, u8),
    /// `(R[d] - R[b]) + R[b]`.
    AddReg(u8, u8),
}

/// How to set SF and ZF again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NzRecipe {
    /// Of `R[a]`.
    Of(u8),
    /// Of `R[a] & R[b]`.
    And(u8, u8),
    /// Of `R[a] & imm`.
    AndImm(u8, u32),
}

impl Recipe {
    /// Whether `s` is one of its operands.
    pub fn uses(self, s: u8) -> bool {
        match self {
            Recipe::Cmp(a, b)
            | Recipe::CmpSum(a, _, b)
            | Recipe::Add(a, b)
            | Recipe::SubReg(a, b)
            | Recipe::AddReg(a, b) => a == s || b == s,
            Recipe::CmpImm(a, _) | Recipe::CmpSumImm(a, ..) | Recipe::SubImm(a, _) | Recipe::AddImm(a, _) => a == s,
        }
    }

    /// The same flags when `k` has been added to `R[d]`, if there is a way.
    pub fn after_sum(self, d: u8, k: u32) -> Option<Recipe> {
        Some(match self {
            r if !r.uses(d) => r,
            Recipe::Cmp(a, b) if b != d => Recipe::CmpSum(a, k.wrapping_neg(), b),
            Recipe::CmpSum(a, sum, b) if b != d => Recipe::CmpSum(a, sum.wrapping_sub(k), b),
            Recipe::CmpImm(a, imm) => Recipe::CmpSumImm(a, k.wrapping_neg(), imm),
            Recipe::CmpSumImm(a, sum, imm) => Recipe::CmpSumImm(a, sum.wrapping_sub(k), imm),
            _ => return None,
        })
    }

    /// The same flags by way of `copy`, which is equal to `R[d]`, if there is a way.
    pub fn by_copy(self, d: u8, copy: u8) -> Option<Recipe> {
        let other = |s: u8| if s == d { copy } else { s };
        Some(match self {
            Recipe::Cmp(a, b) => Recipe::Cmp(other(a), other(b)),
            Recipe::CmpSum(a, k, b) => Recipe::CmpSum(other(a), k, other(b)),
            Recipe::CmpImm(a, imm) => Recipe::CmpImm(other(a), imm),
            Recipe::CmpSumImm(a, k, imm) => Recipe::CmpSumImm(other(a), k, imm),
            _ => return None,
        })
    }

    /// The same flags after a write of `d` that `u` is about to do, if there is a way. `copies`: slots that are equal.
    pub fn after(self, u: &Uop, d: u8, copies: &Copies) -> Option<Recipe> {
        if !self.uses(d) {
            return Some(self);
        }
        if u.op == Op::AddImm && u.d == u.a {
            return self.after_sum(d, u.imm);
        }
        self.by_copy(d, copies.of(d)?)
    }

    /// Sets EFLAGS; spoils `eax`.
    pub fn emit(self, e: &mut Emitter) -> Carry {
        match self {
            Recipe::Cmp(a, b) => {
                e.cmp(a, b);
                Carry::Borrow
            }
            Recipe::CmpImm(a, imm) => {
                e.cmp_imm(a, imm);
                Carry::Borrow
            }
            Recipe::CmpSum(a, k, b) => {
                e.lea_imm(EAX, a, k);
                match loc(b) {
                    Loc::R(h) => dynasm!(e.asm ; .arch x64 ; cmp eax, Rd(h)),
                    Loc::M(m) => dynasm!(e.asm ; .arch x64 ; cmp eax, [rbp + m]),
                    Loc::Zero => dynasm!(e.asm ; .arch x64 ; cmp eax, 0),
                }
                Carry::Borrow
            }
            Recipe::CmpSumImm(a, k, imm) => {
                e.lea_imm(EAX, a, k);
                dynasm!(e.asm ; .arch x64 ; cmp eax, imm as i32);
                Carry::Borrow
            }
            Recipe::SubImm(d, imm) => {
                e.lea_imm(EAX, d, imm);
                dynasm!(e.asm ; .arch x64 ; cmp eax, imm as i32);
                Carry::Borrow
            }
            Recipe::AddImm(d, imm) => {
                e.lea_imm(EAX, d, imm.wrapping_neg());
                dynasm!(e.asm ; .arch x64 ; add eax, imm as i32);
                Carry::Direct
            }
            Recipe::Add(a, b) => {
                e.load(EAX, a);
                e.add_to(EAX, b);
                Carry::Direct
            }
            Recipe::SubReg(d, b) => {
                e.load(EAX, d);
                e.add_to(EAX, b);
                e.sub_from(EAX, b);
                Carry::Borrow
            }
            Recipe::AddReg(d, b) => {
                e.load(EAX, d);
                e.sub_from(EAX, b);
                e.add_to(EAX, b);
                Carry::Direct
            }
        }
    }
}

/// Which of the guest's registers are copies of others. One copy of each is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Copies([Option<u8>; 16]);

impl Copies {
    /// A register that is equal to `R[s]`.
    fn of(&self, s: u8) -> Option<u8> {
        self.0.get(usize::from(s)).copied().flatten()
    }

    /// Micro-op `u` has been executed; it wrote the slots of `defs`.
    pub fn after(&mut self, u: &Uop, defs: u64) {
        for (s, copy) in self.0.iter_mut().enumerate() {
            let gone = |s: u8| defs >> s & 1 == 1;
            *copy = copy.filter(|c| !gone(*c) && !gone(s as u8));
        }
        if u.op == Op::Mov && u.d != u.a && u.a.max(u.d) < PC_SLOT {
            self.0[usize::from(u.a)] = Some(u.d);
        }
    }
}

impl NzRecipe {
    fn uses(self, s: u8) -> bool {
        match self {
            NzRecipe::And(a, b) => a == s || b == s,
            NzRecipe::Of(a) | NzRecipe::AndImm(a, _) => a == s,
        }
    }

    /// Sets SF and ZF; spoils `eax`.
    pub fn emit(self, e: &mut Emitter) {
        match self {
            NzRecipe::Of(a) => match loc(a) {
                Loc::R(r) => dynasm!(e.asm ; .arch x64 ; test Rd(r), Rd(r)),
                Loc::M(m) => dynasm!(e.asm ; .arch x64 ; cmp DWORD [rbp + m], 0),
                Loc::Zero => dynasm!(e.asm ; .arch x64 ; xor eax, eax),
            },
            NzRecipe::And(a, b) => {
                let a = e.read(a, EAX);
                match loc(b) {
                    Loc::R(r) => dynasm!(e.asm ; .arch x64 ; test Rd(a), Rd(r)),
                    Loc::M(m) => dynasm!(e.asm ; .arch x64 ; test [rbp + m], Rd(a)),
                    Loc::Zero => dynasm!(e.asm ; .arch x64 ; xor eax, eax),
                }
            }
            NzRecipe::AndImm(a, imm) => match loc(a) {
                Loc::R(r) => dynasm!(e.asm ; .arch x64 ; test Rd(r), imm as i32),
                Loc::M(m) => dynasm!(e.asm ; .arch x64 ; test DWORD [rbp + m], imm as i32),
                Loc::Zero => dynasm!(e.asm ; .arch x64 ; xor eax, eax),
            },
        }
    }
}

/// What EFLAGS hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHost {
    /// N and Z.
    pub nz: bool,
    /// C and V.
    pub cv: Option<Carry>,
}

/// Where the flags are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagState {
    /// N and Z are in memory (or dead).
    pub mem_nz: bool,
    /// C and V are in memory (or dead).
    pub mem_cv: bool,
    /// What EFLAGS hold.
    pub host: Option<InHost>,
    /// How to get all (N and Z only if `nz` is not there).
    pub full: Option<Recipe>,
    /// How to get N and Z.
    pub nz: Option<NzRecipe>,
}

fn store_cv(e: &mut Emitter, carry: Carry) {
    let f = at();
    dynasm!(e.asm ; .arch x64 ; seto BYTE [BYTE rbp + f]);
    match carry {
        Carry::Direct => dynasm!(e.asm ; .arch x64 ; setc BYTE [BYTE rbp + f + 2]),
        Carry::Borrow => dynasm!(e.asm ; .arch x64 ; setnc BYTE [BYTE rbp + f + 2]),
    }
}

fn store_nz(e: &mut Emitter) {
    let f = at();
    dynasm!(e.asm ; .arch x64 ; lahf ; mov BYTE [BYTE rbp + f + 1], ah);
}

fn store_all(e: &mut Emitter, carry: Carry) {
    let f = at();
    dynasm!(e.asm ; .arch x64 ; lahf ; seto al ; mov WORD [BYTE rbp + f], ax);
    match carry {
        Carry::Direct => dynasm!(e.asm ; .arch x64 ; setc BYTE [BYTE rbp + f + 2]),
        Carry::Borrow => dynasm!(e.asm ; .arch x64 ; setnc BYTE [BYTE rbp + f + 2]),
    }
}

impl FlagState {
    /// All in memory.
    pub const MEMORY: FlagState = FlagState { mem_nz: true, mem_cv: true, host: None, full: None, nz: None };

    /// After an operation that set all flags in EFLAGS.
    pub fn set(carry: Carry, full: Option<Recipe>) -> Self {
        Self { mem_nz: false, mem_cv: false, host: Some(InHost { nz: true, cv: Some(carry) }), full, nz: None }
    }

    /// After a comparison that is yet to be made.
    pub fn later(full: Recipe) -> Self {
        Self { mem_nz: false, mem_cv: false, host: None, full: Some(full), nz: None }
    }

    /// Everything is in memory or dead.
    pub fn saved(&self) -> bool {
        self.mem_nz && self.mem_cv
    }

    /// What is not in memory can be computed again.
    pub fn recoverable(&self) -> bool {
        (self.mem_cv || self.full.is_some()) && (self.mem_nz || self.nz.is_some() || self.full.is_some())
    }

    /// Flags outside `need` are dead.
    pub fn forget(&mut self, need: u8) {
        if need & NZ == 0 {
            self.mem_nz = true;
            self.nz = None;
        }
        if need & CV == 0 {
            self.mem_cv = true;
        }
        if need & NZ == 0 && need & CV == 0 {
            self.full = None;
        }
    }

    /// Puts everything in memory; spoils `eax`, and EFLAGS unless they hold what is to be saved.
    pub fn save(&mut self, e: &mut Emitter) {
        if self.saved() {
            return;
        }
        let all_from_full = !self.mem_cv && !self.mem_nz && self.nz.is_none();
        if all_from_full {
            match self.host {
                Some(InHost { nz: true, cv: Some(c) }) => store_all(e, c),
                _ => {
                    let c = self.full.expect("a recipe for what is in neither place").emit(e);
                    store_all(e, c);
                    self.host = Some(InHost { nz: true, cv: Some(c) });
                }
            }
        } else {
            // First what EFLAGS hold, then what must be computed.
            let mut nz_done = self.mem_nz;
            let mut host = self.host;
            if !nz_done && host.is_some_and(|h| h.nz) {
                store_nz(e);
                nz_done = true;
            }
            if !self.mem_cv {
                match host.and_then(|h| h.cv) {
                    Some(c) => store_cv(e, c),
                    None => {
                        let c = self.full.expect("a recipe for C and V").emit(e);
                        store_cv(e, c);
                        // N and Z in memory may be those of a later operation.
                        host = Some(InHost { nz: self.nz.is_none() && !self.mem_nz, cv: Some(c) });
                    }
                }
            }
            if !nz_done {
                let mut cv = None;
                match self.nz {
                    Some(r) => r.emit(e),
                    None if host.is_some_and(|h| h.nz) => cv = host.and_then(|h| h.cv),
                    None => cv = Some(self.full.expect("a recipe for N and Z").emit(e)),
                }
                store_nz(e);
                host = Some(InHost { nz: true, cv });
            }
            self.host = host;
        }
        self.mem_nz = true;
        self.mem_cv = true;
    }

    /// Called before EFLAGS are lost.
    pub fn clobber(&mut self, e: &mut Emitter) {
        if self.host.is_some() {
            if !self.recoverable() {
                self.save(e);
            }
            self.host = None;
        }
    }

    /// Called before slot `d` is written by `u`.
    pub fn will_write(&mut self, e: &mut Emitter, d: u8, u: &Uop, copies: &Copies) {
        let full = self.full.is_some_and(|r| r.uses(d));
        let nz = self.nz.is_some_and(|r| r.uses(d));
        if full && !nz {
            // From here on, that is behind the write, the recipe is another one.
            if let Some(r) = self.full.and_then(|r| r.after(u, d, copies)) {
                self.full = Some(r);
                return;
            }
        }
        if full || nz {
            self.save(e);
            if full {
                self.full = None;
            }
            if nz {
                self.nz = None;
            }
        }
    }

    /// Whether a write of `d` spoils a recipe.
    pub fn depends_on(&self, d: u8) -> bool {
        self.full.is_some_and(|r| r.uses(d)) || self.nz.is_some_and(|r| r.uses(d))
    }

    /// What both ways to a join agree on.
    pub fn meet(self, o: Self) -> Self {
        let m = Self {
            mem_nz: self.mem_nz && o.mem_nz,
            mem_cv: self.mem_cv && o.mem_cv,
            host: if self.host == o.host { self.host } else { None },
            full: if self.full == o.full { self.full } else { None },
            nz: if self.nz == o.nz { self.nz } else { None },
        };
        assert!(m.recoverable(), "flags survive a join");
        m
    }
}
