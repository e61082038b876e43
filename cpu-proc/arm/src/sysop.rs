//! System functions: what [`crate::ir::Op::Sys`] calls, and what they get to see.

use crate::ir::SysHelper;
use crate::state::Cpu;

/// What a system function gets besides the CPU.
pub struct SysCtx {
    /// Set by the function: leave the engine's loop after this instruction.
    pub exit: bool,
}

/// An exception that a system function raises instead of completing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// Undefined instruction.
    Undef,
}

/// A system function: `f(cpu, ctx, R[a], R[b], imm)`.
pub type SysFn = fn(&mut Cpu, &mut SysCtx, u32, u32, u32) -> Result<u32, Trap>;

/// System functions of the integer core.
pub static SYS_FNS: &[SysHelper] = &[];
