//! Ends of blocks, skips, and what goes through the engine.

use super::{Join, Lower, Stub};
use crate::emit::slot;
use crate::flags::{Copies, FlagState, at};
use crate::regs::{EAX, ECX, Loc, loc};
use crate::thunks::{EXIT0, JUMPS, LOOKUP};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::fp::vfp_helpers::Vfp;
use reprise_arm::ir::opt::effects;
use reprise_arm::ir::{FIRST_TEMP, MemKind, Op, PC_SLOT, Size, Uop};
use reprise_arm::mmu::EXEC_TABLE;
use reprise_arm::state::{Cpu, HostState};
use reprise_arm::translate::helpers::id::{ADD_Q, LESS_U, MRS_CPSR, MSR_FLAGS};

impl Lower<'_> {
    /// Lowers one micro-op.
    pub(super) fn uop(&mut self, i: usize, u: &Uop) {
        if self.alu(i, u) || self.mem(i, u) || self.system(i, u) {
            return;
        }
        match u.op {
            Op::SkipUnless => self.skip(i, u),
            Op::Jump => self.exit_to(u.imm as usize),
            Op::JumpIf => self.jump_if(u),
            Op::JumpIfZero | Op::JumpIfNotZero => self.jump_if_zero(u),
            Op::JumpReg | Op::JumpRegSame => self.jump_reg(u),
            Op::Helper if u.aux == u32::from(MRS_CPSR.0) => self.read_cpsr(u),
            Op::Helper if u.aux == u32::from(MSR_FLAGS.0) => self.stepped(i),
            Op::Helper | Op::HelperK => self.helper(u),
            Op::SetIt => {
                let it = std::mem::offset_of!(Cpu, it) as i32;
                dynasm!(self.e.asm ; .arch x64 ; mov BYTE [rbp + it], u.imm as i8);
            }
            Op::Clrex => {
                let valid = (std::mem::offset_of!(Cpu, excl)
                    + std::mem::offset_of!(reprise_arm::state::Exclusive, valid)) as i32;
                dynasm!(self.e.asm ; .arch x64 ; mov BYTE [rbp + valid], 0);
            }
            Op::Leave | Op::LeavePc | Op::Undef | Op::Svc | Op::Smc | Op::Bkpt | Op::Wfi | Op::Wfe | Op::Stop => {
                self.resumed(i)
            }
            _ => self.stepped(i),
        }
    }

    /// The interpreter runs the rest of the block.
    fn resumed(&mut self, i: usize) {
        self.f.save(&mut self.e);
        let resume = self.resume;
        dynasm!(self.e.asm ; .arch x64 ; mov eax, i as i32 ; jmp =>resume);
    }

    // ----- skips -----

    fn skip(&mut self, i: usize, u: &Uop) {
        // What is under a condition makes no copies, and changes no recipe.
        (self.now, self.copies) = (None, Copies::default());
        let end = i + 1 + u.imm as usize;
        let body = &self.cx.block.uops[i + 1..end];
        let writes_flags = body.iter().any(|b| !keeps_flags(b));
        let spoils = writes_flags
            || body.iter().any(|b| {
                let e = effects(b);
                let more = if matches!(b.op, Op::LdX | Op::Ldrex) { 1 << b.b } else { 0 };
                (0..64u8).any(|s| (e.defs | more) >> s & 1 == 1 && self.f.depends_on(s))
            });
        if !self.f.saved() && (spoils || !self.f.recoverable()) {
            self.f.save(&mut self.e);
        }
        if let Some((last, first)) = body.split_last() {
            let (last, first) = (*last, first.to_vec());
            if moves(&last, &first) && !self.joins.iter().any(|j| j.at < end) {
                self.done = end;
                for (k, f) in first.iter().enumerate() {
                    self.hold(f);
                    self.uop(i + 1 + k, f);
                }
                return self.conditional_move(u.d, &last);
            }
        }
        let label = self.e.label();
        self.jump_cond(u.d, false, label);
        self.joins.push(Join { at: end, label, state: self.f, writes_flags });
    }

    /// `b` if `cond` holds, without a branch: most such conditions depend on data, so a branch would be mispredicted often.
    fn conditional_move(&mut self, cond: u8, b: &Uop) {
        self.writes(b.d);
        let computed = self.compute(b);
        let cc = self.host_cond(cond);
        let s = match (b.op, loc(b.a)) {
            _ if computed => ECX,
            (Op::Mov, Loc::R(h)) => h,
            (Op::MovImm, _) => {
                dynasm!(self.e.asm ; .arch x64 ; mov ecx, b.imm as i32);
                ECX
            }
            (Op::Mov, _) => {
                self.e.load(ECX, b.a);
                ECX
            }
            _ => {
                self.e.lea_imm(ECX, b.a, b.imm);
                ECX
            }
        };
        let d = self.e.read(b.d, EAX);
        self.cmov(cc, d, s);
        self.e.store(b.d, d);
    }

    // ----- known exits -----

    /// The label of exit `k`'s way to the engine, with the flags where they are now.
    fn stub(&mut self, k: usize) -> DynamicLabel {
        if let Some(s) = self.stubs[k] {
            return s.save;
        }
        let (stub, exit, mut f) =
            (Stub { save: self.e.label(), second: self.e.label(), leave: self.e.label() }, self.exit, self.f);
        self.stubs[k] = Some(stub);
        self.sites[k].saved = f.saved();
        // Operands that are temporaries mean nothing to another block.
        let shared =
            f.full.filter(|r| !f.mem_nz && !f.mem_cv && f.nz.is_none() && !(FIRST_TEMP..64).any(|s| r.uses(s)));
        self.sites[k].flags = shared;
        (self.sites[k].fpscr, self.sites[k].held) = (self.e.fpscr, self.e.held);
        let reason = (EXIT0 + k as u32 | self.cx.body << 4) as i32;
        self.e.cold(move |e| {
            e.place(stub.save);
            f.save(e);
            dynasm!(e.asm ; .arch x64 ; jmp =>stub.leave ; =>stub.second ; =>stub.leave ; mov eax, reason ; jmp =>exit);
        });
        stub.save
    }

    fn same_page(&self, k: usize) -> bool {
        let target = self.cx.block.exits[k].expect("a known exit");
        target >> 12 == self.cx.block.pc >> 12
    }

    /// Goes out by exit `k`.
    fn exit_to(&mut self, k: usize) {
        let guarded = !self.same_page(k);
        if guarded {
            self.clobber();
        }
        let stub = self.stub(k);
        if guarded {
            let target = self.cx.block.exits[k].expect("a known exit");
            let entry = EXEC_TABLE as i32 + 4 * (target >> 12) as i32;
            dynasm!(self.e.asm ; .arch x64 ; cmp DWORD [rbx + entry], DWORD -1);
            self.sites[k].guard = self.e.asm.offset().0 as u32 - 4;
            // Not by the stub: its jump may be led to the very block that the guard keeps out.
            let (miss, leave, mut f) = (self.e.label(), self.stubs[k].expect("just made").leave, self.f);
            self.e.cold(move |e| {
                e.place(miss);
                f.save(e);
                dynasm!(e.asm ; .arch x64 ; jmp =>leave);
            });
            dynasm!(self.e.asm ; .arch x64 ; jne =>miss);
        }
        dynasm!(self.e.asm ; .arch x64 ; jmp =>stub);
        self.sites[k].jump = self.e.asm.offset().0 as u32 - 4;
    }

    /// EFLAGS decide: jumps by exit 0 or falls to exit 1. `branch` emits the conditional jump, and `true` means to jump if exit 0 is wanted.
    fn two_exits(&mut self, branch: impl FnOnce(&mut Self, bool, DynamicLabel)) {
        if self.same_page(0) {
            let stub = self.stub(0);
            branch(self, true, stub);
            self.sites[0].jump = self.e.asm.offset().0 as u32 - 4;
            self.exit_to(1);
        } else {
            let other = self.e.label();
            branch(self, false, other);
            let f = self.f;
            self.exit_to(0);
            self.f = f;
            self.e.place(other);
            self.exit_to(1);
        }
    }

    fn jump_if(&mut self, u: &Uop) {
        let cc = self.host_cond(u.d);
        self.two_exits(|l, want, to| l.jcc(if want { cc } else { cc ^ 1 }, to));
    }

    fn jump_if_zero(&mut self, u: &Uop) {
        self.clobber();
        let zero = u.op == Op::JumpIfZero;
        match loc(u.a) {
            Loc::R(h) => dynasm!(self.e.asm ; .arch x64 ; test Rd(h), Rd(h)),
            Loc::M(m) => dynasm!(self.e.asm ; .arch x64 ; cmp DWORD [rbp + m], 0),
            Loc::Zero => dynasm!(self.e.asm ; .arch x64 ; xor eax, eax),
        }
        self.two_exits(|l, want, to| {
            if want == zero {
                dynasm!(l.e.asm ; .arch x64 ; je =>to);
            } else {
                dynasm!(l.e.asm ; .arch x64 ; jne =>to);
            }
        });
    }

    // ----- computed targets -----

    /// Goes to `R[a]` through the table of jump targets. Entries hold the address with T in bit 0, the physical page with the mode's number, and the
    /// host address.
    fn jump_reg(&mut self, u: &Uop) {
        self.f.save(&mut self.e);
        let (miss, miss2, exit) = (self.e.label(), self.e.label(), self.exit);
        self.e.load(EAX, u.a);
        let thumb = self.cx.thumb;
        if u.op == Op::JumpReg {
            let t = std::mem::offset_of!(Cpu, t) as i32;
            dynasm!(self.e.asm ; .arch x64 ; mov ecx, eax ; and ecx, 1 ; mov BYTE [rbp + t], cl);
        } else if thumb {
            dynasm!(self.e.asm ; .arch x64 ; or eax, 1);
        } else {
            dynasm!(self.e.asm ; .arch x64 ; and eax, -4);
        }
        let jumps = (std::mem::offset_of!(Cpu, host) + std::mem::offset_of!(HostState, jumps)) as i32;
        let mode = self.cx.mode as i32;
        let exec = EXEC_TABLE as i32;
        let mask = (JUMPS as i32 - 1) << 2;
        dynasm!(self.e.asm ; .arch x64
            ; mov ecx, eax
            ; shr ecx, 14
            ; xor ecx, eax
            ; and ecx, mask
            ; shl ecx, 2
            ; add rcx, [rbp + jumps]
            ; cmp [rcx], eax
            ; jne =>miss
            ; shr eax, 12
            ; mov eax, [rbx + 4 * rax + exec]
            ; add eax, mode
            ; cmp eax, [rcx + 4]
            ; jne =>miss2
            ; jmp QWORD [rcx + 8]
        );
        let pc = slot(PC_SLOT);
        self.e.cold(move |e| {
            dynasm!(e.asm ; .arch x64
                ; =>miss2
                ; mov eax, [rcx]
                ; =>miss
                ; mov ecx, eax
                ; and ecx, 1
                ; lea ecx, [rcx * 2 - 4]
                ; and eax, ecx
                ; mov [rbp + pc], eax
                ; mov eax, LOOKUP as i32
                ; jmp =>exit);
        });
    }

    // ----- helpers -----

    fn helper(&mut self, u: &Uop) {
        if u.op == Op::HelperK && u.aux == u32::from(Vfp::FlagsFromFpscr.id(0).0) {
            return self.flags_from_fpscr();
        }
        if self.integer_helper(u) {
            return;
        }
        // The helpers that are left neither read nor write the flags; the guest's registers they may.
        self.writes(u.d);
        self.clobber();
        let inline = if u.op == Op::HelperK {
            crate::fp::lower(&mut self.e, u, call_helper)
        } else {
            self.e.load(EAX, u.a);
            crate::fp::lower_value(&mut self.e, u)
        };
        if !inline {
            call_helper(&mut self.e, u);
        } else if u.op == Op::HelperK {
            self.e.store(u.d, EAX);
        }
    }

    /// Helpers of the integer core that are a few host instructions; false if `u` is none of them.
    fn integer_helper(&mut self, u: &Uop) -> bool {
        if u.op != Op::Helper || ![ADD_Q, LESS_U].map(|h| u32::from(h.0)).contains(&u.aux) {
            return false;
        }
        self.writes(u.d);
        self.clobber();
        if u.aux == u32::from(ADD_Q.0) {
            let q = std::mem::offset_of!(Cpu, q) as i32;
            self.e.load(EAX, u.a);
            self.e.add_to(EAX, u.b);
            let (over, back) = (self.e.label(), self.e.label());
            dynasm!(self.e.asm ; .arch x64 ; jo =>over ; =>back);
            self.e.cold(move |e| dynasm!(e.asm ; .arch x64 ; =>over ; mov DWORD [rbp + q], 1 ; jmp =>back));
        } else {
            self.e.cmp(u.a, u.b);
            dynasm!(self.e.asm ; .arch x64 ; setb al ; movzx eax, al);
        }
        self.e.store(u.d, EAX);
        true
    }

    /// VMRS APSR_nzcv, FPSCR.
    fn flags_from_fpscr(&mut self) {
        let (f, fpscr) = (at(), crate::emit::fpscr());
        self.f = FlagState::MEMORY;
        dynasm!(self.e.asm ; .arch x64
            ; mov eax, [rbp + fpscr]
            ; mov ecx, eax
            ; shr ecx, 24
            ; mov [BYTE rbp + f + 1], cl
            ; shr eax, 28
            ; mov ecx, eax
            ; and ecx, 1
            ; mov [BYTE rbp + f], cl
            ; shr eax, 1
            ; and eax, 1
            ; mov [BYTE rbp + f + 2], al
        );
    }
}

/// Whether a conditional instruction of these micro-ops can be done by computing all and moving the result if the condition holds: it has one result, and what
/// comes before it goes to temporaries.
fn moves(last: &Uop, first: &[Uop]) -> bool {
    use Op::*;
    let simple = matches!(
        last.op,
        Mov | MovImm | AddImm | Add | Sub | And | Orr | Eor | AndImm | OrrImm | EorImm | Bic | RsbImm
    );
    let temps = |u: &Uop| {
        matches!(u.op, Mov | MovImm | Mvn | LslImm | LsrImm | AsrImm | RorImm | AddImm | Sxtb | Sxth | Ubfx | Sbfx)
            && (FIRST_TEMP..62).contains(&u.d)
    };
    simple && last.d < PC_SLOT && first.len() <= 2 && first.iter().all(temps)
}

/// The lowering of `u` neither changes flags nor has to put them in memory.
fn keeps_flags(u: &Uop) -> bool {
    let stepped = match u.op {
        Op::Sys | Op::Helper | Op::HelperK | Op::Ldrex | Op::Strex => true,
        Op::LdX | Op::StX => {
            let kind = MemKind::unpack(u.aux);
            kind.size != Size::Dword || kind.user
        }
        op => op.ends_block(),
    };
    !stepped && effects(u).fdef == 0
}

/// Emits a call of the helper of `u`.
fn call_helper(e: &mut crate::emit::Emitter, u: &Uop) {
    let thunk = e.helper;
    // The micro-op itself is the argument: two words and a bit, in registers.
    let low = u64::from(u.op as u8)
        | u64::from(u.d) << 8
        | u64::from(u.a) << 16
        | u64::from(u.b) << 24
        | u64::from(u.imm) << 32;
    dynasm!(e.asm ; .arch x64 ; mov rax, QWORD low as i64 ; mov ecx, u.aux as i32 ; call extern thunk as usize);
}
