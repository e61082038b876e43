//! Code that all blocks share: the way in, the ways out, and calls into the engine.

use crate::emit::{Emitter, Features};
use crate::memory::CodeMemory;
use crate::regs::PINNED;
use crate::runtime;
use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::state::{Cpu, HostState};

/// Entries of the table of jump targets, 16 bytes each.
pub const JUMPS: usize = 1 << 14;

/// Reasons to leave compiled code: a known exit (this one and the next).
pub const EXIT0: u32 = 0;
/// The target of a jump is not in the table; the PC is set.
pub const LOOKUP: u32 = 2;
/// The block does not fit into the budget.
pub const BUDGET: u32 = 3;
/// The interpreter has left; the frame says how.
pub const EVENT: u32 = 4;

/// Host addresses.
#[derive(Debug, Clone, Copy)]
pub struct Thunks {
    /// `extern "C" fn(cpu, code, budget)`.
    pub enter: u64,
    /// Left by `jmp` with the reason in `eax`, the block in `rcx`.
    pub exit: u64,
    /// Called with the micro-op's index in `eax`, the block in `rcx`.
    pub step: u64,
    /// Jumped to with the same.
    pub resume: u64,
    /// Called with the micro-op in `rax` and `ecx`.
    pub helper: u64,
}

fn host(field: usize) -> i32 {
    (std::mem::offset_of!(Cpu, host) + field) as i32
}

fn save_pinned(e: &mut Emitter) {
    for (s, r) in PINNED {
        let m = crate::emit::slot(s);
        dynasm!(e.asm ; .arch x64 ; mov [rbp + m], Rd(r));
    }
}

/// The guest's registers, and the table pointer.
fn load_pinned(e: &mut Emitter) {
    for (s, r) in PINNED {
        let m = crate::emit::slot(s);
        dynasm!(e.asm ; .arch x64 ; mov Rd(r), [rbp + m]);
    }
    let mmu = std::mem::offset_of!(Cpu, mmu) as i32;
    dynasm!(e.asm ; .arch x64 ; mov rbx, [rbp + mmu]);
}

impl Thunks {
    /// Emits them at the start of `memory`.
    pub fn emit(memory: &mut CodeMemory) -> Thunks {
        let base = memory.next() as u64;
        let mut e = Emitter::new(base as usize, Features::none());
        let frame = host(std::mem::offset_of!(HostState, frame));
        let mut starts = [0u64; 5];
        let here = |e: &Emitter| base + e.asm.offset().0 as u64;

        starts[0] = here(&e);
        dynasm!(e.asm ; .arch x64
            ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15 ; sub rsp, 8
            ; mov rbp, rdi ; mov rax, rsi ; mov r15, rdx);
        load_pinned(&mut e);
        dynasm!(e.asm ; .arch x64 ; jmp rax);

        let (out, left) = (e.label(), e.label());
        starts[1] = here(&e);
        save_pinned(&mut e);
        let (reason, from, budget) = (
            host(std::mem::offset_of!(HostState, reason)),
            host(std::mem::offset_of!(HostState, from)),
            host(std::mem::offset_of!(HostState, left)),
        );
        dynasm!(e.asm ; .arch x64
            ; =>out
            ; mov [rbp + from], rcx
            ; mov [rbp + budget], r15
            ; mov [rbp + reason], eax
            ; add rsp, 8 ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbp ; pop rbx ; ret);

        starts[2] = here(&e);
        save_pinned(&mut e);
        dynasm!(e.asm ; .arch x64
            ; mov rdi, [rbp + frame] ; mov rsi, rcx ; mov edx, eax ; mov rcx, r15
            ; sub rsp, 8
            ; mov rax, QWORD runtime::step as *const () as i64
            ; call rax
            ; add rsp, 8
            ; test eax, eax
            ; jne =>left);
        load_pinned(&mut e);
        dynasm!(e.asm ; .arch x64 ; ret ; =>left ; add rsp, 8 ; mov eax, EVENT as i32 ; jmp =>out);

        starts[3] = here(&e);
        save_pinned(&mut e);
        dynasm!(e.asm ; .arch x64
            ; mov rdi, [rbp + frame] ; mov rsi, rcx ; mov edx, eax ; mov rcx, r15
            ; mov rax, QWORD runtime::resume as *const () as i64
            ; call rax
            ; mov eax, EVENT as i32
            ; jmp =>out);

        starts[4] = here(&e);
        save_pinned(&mut e);
        dynasm!(e.asm ; .arch x64
            ; mov rdi, rbp ; mov rsi, rax ; mov edx, ecx
            ; sub rsp, 8
            ; mov rax, QWORD runtime::helper as *const () as i64
            ; call rax
            ; add rsp, 8);
        load_pinned(&mut e);
        dynasm!(e.asm ; .arch x64 ; ret);

        memory.push(&e.asm.take().expect("all labels are placed"));
        let [enter, exit, step, resume, helper] = starts;
        Thunks { enter, exit, step, resume, helper }
    }
}
