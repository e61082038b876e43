//! What operating systems do all the time, inline: interrupt masks, thread registers, exclusives. All else of its kind is stepped.

use super::Lower;
use super::mem::Table;
use crate::flags::at;
use crate::regs::{EAX, ECX};
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::cp15::{Cp15, SysReg};
use reprise_arm::ir::{MemKind, Op, Size, Uop};
use reprise_arm::state::{Cpu, Exclusive, FPEXC_EN, HostState};
use reprise_arm::sysop::id::{CPS, MRC, MSR_CPSR};
use std::mem::offset_of;

fn host(field: usize) -> i8 {
    (offset_of!(Cpu, host) + field) as i8
}

fn cpu(field: usize) -> i32 {
    field as i32
}

fn excl(field: usize) -> i32 {
    (offset_of!(Cpu, excl) + field) as i32
}

impl Lower<'_> {
    /// The operations of this module; false if `u` is none of them.
    pub(super) fn system(&mut self, i: usize, u: &Uop) -> bool {
        match u.op {
            Op::Sys if u.aux == u32::from(MRC.0) => self.thread_register(u),
            Op::Sys if u.aux == u32::from(CPS.0) => self.mask_interrupts(u),
            Op::Sys if u.aux == u32::from(MSR_CPSR.0) && u.imm == 1 => {
                self.restore_mask(i, u);
                true
            }
            Op::Ldrex | Op::Strex => self.exclusive(i, u),
            Op::NeedFp => {
                self.need_fp(i);
                true
            }
            _ => false,
        }
    }

    /// MRC of a software thread ID register (ARM DDI 0406C B4.1.149 to B4.1.151).
    fn thread_register(&mut self, u: &Uop) -> bool {
        let reg = |opc2| SysReg::new(15, 0, 13, 0, opc2).0;
        let field = match u.imm & 0xff_ffff {
            r if r == reg(2) => offset_of!(Cp15, tpidrurw),
            r if r == reg(3) => offset_of!(Cp15, tpidruro),
            r if r == reg(4) && self.cx.privileged => offset_of!(Cp15, tpidrprw),
            _ => return false,
        };
        let (bank, field) = (offset_of!(Cpu, cp15) + offset_of!(Cp15, bank), offset_of!(Cpu, cp15) + field);
        self.writes(u.d);
        dynasm!(self.e.asm ; .arch x64 ; mov rax, [rbp + bank as i32] ; mov eax, [rbp + 4 * rax + field as i32]);
        self.e.store(u.d, EAX);
        true
    }

    /// CPSID i. (CPSIE may let an interrupt in.)
    fn mask_interrupts(&mut self, u: &Uop) -> bool {
        let disable_i = 3 << 6 | 2 << 8;
        if u.imm & !0x1f != disable_i {
            return false;
        }
        if self.cx.privileged {
            let i = cpu(offset_of!(Cpu, i));
            dynasm!(self.e.asm ; .arch x64 ; mov BYTE [rbp + i], 1);
        }
        true
    }

    /// MSR CPSR_c that changes I alone, and lets no interrupt in.
    fn restore_mask(&mut self, i: usize, u: &Uop) {
        let (slow, back) = (self.e.label(), self.e.label());
        self.cold_step(i, slow, back);
        let (mode, mask_i, mask_f) = (cpu(offset_of!(Cpu, mode)), cpu(offset_of!(Cpu, i)), cpu(offset_of!(Cpu, f)));
        let lines = host(offset_of!(HostState, lines));
        if !self.cx.privileged {
            dynasm!(self.e.asm ; .arch x64 ; jmp =>slow ; =>back);
            return;
        }
        let set = self.e.label();
        self.e.load(EAX, u.a);
        dynasm!(self.e.asm ; .arch x64
            ; mov ecx, eax
            ; and ecx, 0x1f
            ; cmp cl, [rbp + mode]
            ; jne =>slow
            ; mov ecx, eax
            ; shr ecx, 6
            ; and ecx, 1
            ; cmp cl, [rbp + mask_f]
            ; jne =>slow
            ; shr eax, 7
            ; and eax, 1
            ; jne =>set
            ; cmp DWORD [BYTE rbp + lines], 0
            ; jne =>slow
            ; =>set
            ; mov [rbp + mask_i], al
            ; =>back
        );
    }

    /// FPEXC.EN. What is known of FPSCR was found out with EN set ([`crate::fp::expect`]).
    fn need_fp(&mut self, i: usize) {
        if self.e.fpscr.is_some() {
            return;
        }
        let (off, back) = (self.e.label(), self.e.label());
        self.cold_step(i, off, back);
        let fpexc = cpu(offset_of!(Cpu, fpexc));
        dynasm!(self.e.asm ; .arch x64 ; test DWORD [rbp + fpexc], FPEXC_EN as i32 ; jz =>off ; =>back);
    }

    /// MRS of the CPSR.
    pub(super) fn read_cpsr(&mut self, u: &Uop) {
        self.writes(u.d);
        self.f.save(&mut self.e);
        self.f.host = None;
        let f = at();
        dynasm!(self.e.asm ; .arch x64
            ; movzx eax, BYTE [BYTE rbp + f + 1] ; and eax, 0xc0 ; shl eax, 24
            ; movzx ecx, BYTE [BYTE rbp + f + 2] ; shl ecx, 29 ; or eax, ecx
            ; movzx ecx, BYTE [BYTE rbp + f] ; shl ecx, 28 ; or eax, ecx
            ; mov ecx, [rbp + cpu(offset_of!(Cpu, q))] ; shl ecx, 27 ; or eax, ecx
            ; mov ecx, [rbp + cpu(offset_of!(Cpu, ge))] ; and ecx, 15 ; shl ecx, 16 ; or eax, ecx
            ; movzx ecx, BYTE [rbp + cpu(offset_of!(Cpu, mode))] ; or eax, ecx
        );
        for (field, bit) in
            [(offset_of!(Cpu, e), 9i8), (offset_of!(Cpu, a), 8), (offset_of!(Cpu, i), 7), (offset_of!(Cpu, f), 6)]
        {
            dynasm!(self.e.asm ; .arch x64 ; movzx ecx, BYTE [rbp + field as i32] ; shl ecx, bit ; or eax, ecx);
        }
        self.e.store(u.d, EAX);
    }

    /// LDREX and STREX of up to a word (ARM DDI 0406C A3.4.1): the monitor holds a physical address.
    fn exclusive(&mut self, i: usize, u: &Uop) -> bool {
        let size = MemKind::unpack(u.aux).size;
        if size == Size::Dword {
            return false;
        }
        let bytes = 1 << size as i32;
        let (slow, back) = (self.e.label(), self.e.label());
        self.cold_step(i, slow, back);
        self.loads(i, &[u.d]);
        let (valid, addr, len) =
            (excl(offset_of!(Exclusive, valid)), excl(offset_of!(Exclusive, addr)), excl(offset_of!(Exclusive, size)));
        let delta = host(offset_of!(HostState, ram_delta));
        let load = u.op == Op::Ldrex;
        self.e.lea_imm(EAX, u.a, if load { u.imm } else { 0 });
        self.lookup(if load { Table::Read } else { Table::Write }, EAX, slow);
        if bytes > 1 {
            dynasm!(self.e.asm ; .arch x64 ; test al, (bytes - 1) as i8 ; jne =>slow);
        }
        dynasm!(self.e.asm ; .arch x64 ; add rcx, rax ; mov rax, rcx ; add rax, [BYTE rbp + delta]);
        if load {
            dynasm!(self.e.asm ; .arch x64 ; mov [rbp + addr], rax ; mov BYTE [rbp + valid], 1 ; mov BYTE [rbp + len], bytes as i8);
            match size {
                Size::Byte => dynasm!(self.e.asm ; .arch x64 ; movzx eax, BYTE [rcx]),
                Size::Half => dynasm!(self.e.asm ; .arch x64 ; movzx eax, WORD [rcx]),
                _ => dynasm!(self.e.asm ; .arch x64 ; mov eax, [rcx]),
            }
            self.e.store(u.d, EAX);
        } else {
            let fail = self.e.label();
            // Flags of the comparisons decide; the monitor is open afterwards in any case.
            dynasm!(self.e.asm ; .arch x64
                ; cmp rax, [rbp + addr]
                ; jne =>fail
                ; cmp BYTE [rbp + valid], 0
                ; je =>fail
                ; cmp BYTE [rbp + len], bytes as i8
                ; jne =>fail
            );
            self.e.load(EAX, (u.imm & 63) as u8);
            match size {
                Size::Byte => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], al),
                Size::Half => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], ax),
                _ => dynasm!(self.e.asm ; .arch x64 ; mov [rcx], eax),
            }
            let done = self.e.label();
            dynasm!(self.e.asm ; .arch x64 ; xor ecx, ecx ; =>done ; mov BYTE [rbp + valid], 0);
            self.e.cold(move |e| dynasm!(e.asm ; .arch x64 ; =>fail ; mov ecx, 1 ; jmp =>done));
            self.e.store(u.d, ECX);
        }
        self.e.place(back);
        true
    }
}
