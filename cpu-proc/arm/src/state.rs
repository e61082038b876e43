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

/// How many slots the operand space of micro-ops has: r0-r15, then block-local temporaries ([`crate::ir`]).
pub const REG_SPACE: usize = 64;

/// The condition flags, each in a word of its own so that micro-ops can set them without packing (a JIT and the interpreter share this).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flags {
    /// N is bit 31.
    pub n: u32,
    /// Z is set iff this is 0.
    pub z: u32,
    /// C is bit 0; the other bits are 0.
    pub c: u32,
    /// V is bit 31.
    pub v: u32,
}

impl Flags {
    /// The flags from bits 31:28 of a PSR value.
    pub fn from_psr(psr: u32) -> Self {
        Self { n: psr, z: !psr & 1 << 30, c: psr >> 29 & 1, v: psr << 3 }
    }

    /// The flags as bits 31:28 of a PSR value, all other bits 0.
    pub fn to_psr(self) -> u32 {
        self.n & 1 << 31 | u32::from(self.z == 0) << 30 | (self.c & 1) << 29 | (self.v >> 31) << 28
    }
}

/// State of one core. Grows with the architecture; every field is part of the state hash unless its comment says cache.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// r0-r15 of the current mode. r15 is the address of the next instruction to execute (no +8/+4).
    /// Slots 16 and up are the temporaries of the block that runs: cache, no part of the architectural state.
    pub regs: [u32; REG_SPACE],
    /// N, Z, C and V.
    pub flags: Flags,
    /// The extension registers as words: S0-S31 are 0-31, Dn is words 2n (low) and 2n+1.
    pub ext: [u32; 64],
    /// Instructions retired since reset.
    pub icount: u64,
    /// `icount` at which the current epoch began.
    pub epoch_start: u64,
    /// Current epoch.
    pub epoch: u64,
    /// Why the core can't go on, for the user.
    pub halt: Option<String>,
}
