//! Architectural state of one core.

/// A place in the execution: see `docs/design.md`, "Time and position".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Position {
    /// Retired instructions that made an MMIO access.
    pub epoch: u64,
    /// Instructions retired since the epoch began.
    pub count: u64,
    /// Warps of guest time since the last retired instruction.
    pub idle: u32,
}

/// State of one core. Grows with the architecture; every field is part of the state hash unless its comment says cache.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// r0-r15 of the current mode. r15 is the address of the next instruction to execute (no +8/+4).
    pub regs: [u32; 16],
    /// Instructions retired since reset.
    pub icount: u64,
    /// `icount` at which the current epoch began.
    pub epoch_start: u64,
    /// Current epoch.
    pub epoch: u64,
    /// Why the core can't go on, for the user.
    pub halt: Option<String>,
}
