//! What a case is: memory layout, initial state, outcome.

use std::fmt;

/// First address of everything; also where our RAM begins.
pub const RAM: u32 = 0x8000_0000;
/// Size of RAM.
pub const RAM_SIZE: u32 = 0x10_0000;
/// Our exception vectors; privileged only.
pub const VECTORS: u32 = 0x8000_8000;
/// Code: read-only and executable. The next case goes after the last one, so that no oracle has to forget translations often.
pub const CODE: u32 = 0x8001_0000;
/// Size of the code window.
pub const CODE_SIZE: u32 = 0x4_0000;
/// Data: readable and writable, not executable. The pages before and after it are unmapped.
pub const DATA: u32 = 0x8006_0000;
/// Size of the data window.
pub const DATA_SIZE: u32 = 0x2000;
/// Bytes of the code window that a case has for itself.
pub const SLOT: usize = 64;
/// What the code window holds where no case runs: literal loads see it.
pub const FILLER: [u8; SLOT] = {
    let mut out = [0; SLOT];
    let mut i = 0;
    while i < SLOT {
        out[i] = (i as u8).wrapping_mul(37) ^ 0xa5;
        i += 1;
    }
    out
};
/// Longest case, in instructions.
pub const MAX_LEN: usize = 12;

/// Instruction set of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 32-bit ARM.
    A32,
    /// Thumb, 16 and 32 bits wide.
    T32,
}

/// The registers that a program in User mode sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// r0-r15; r15 is the address of the next instruction.
    pub regs: [u32; 16],
    /// CPSR: N, Z, C, V, Q, IT, GE, E and T count, the rest is User mode's.
    pub cpsr: u32,
    /// D0-D31.
    pub d: [u64; 32],
    /// FPSCR.
    pub fpscr: u32,
}

/// CPSR bits that are compared.
pub const CPSR_MASK: u32 = 0xf80f_0220 | 0x0600_fc00;

/// A case, complete.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which instruction set.
    pub isa: Isa,
    /// The instructions: A32 words, or T16 and T32 (first halfword on top).
    pub code: Vec<u32>,
    /// Width of each instruction, 2 or 4.
    pub width: Vec<u8>,
    /// Where it starts.
    pub at: u32,
    /// Initial registers.
    pub state: State,
    /// Seed of the data window's contents.
    pub data_seed: u64,
    /// It has branches within itself: how many instructions run depends on what it computes.
    pub loops: bool,
    /// What the generator meant the instructions to be, for messages.
    pub names: Vec<String>,
}

impl Case {
    /// The code as bytes in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (w, n) in self.code.iter().zip(&self.width) {
            match (self.isa, n) {
                (Isa::A32, _) => out.extend_from_slice(&w.to_le_bytes()),
                (Isa::T32, 2) => out.extend_from_slice(&(*w as u16).to_le_bytes()),
                (Isa::T32, _) => {
                    out.extend_from_slice(&((w >> 16) as u16).to_le_bytes());
                    out.extend_from_slice(&(*w as u16).to_le_bytes());
                }
            }
        }
        out
    }

    /// Bytes of code.
    pub fn len(&self) -> u32 {
        self.width.iter().map(|w| u32::from(*w)).sum()
    }

    /// No code at all.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// Fills the data window.
    pub fn data(&self, out: &mut [u8]) {
        let mut x = self.data_seed | 1;
        for chunk in out.chunks_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            chunk.copy_from_slice(&x.to_le_bytes()[..chunk.len()]);
        }
    }

    /// The instruction that starts at `pc`, if one does.
    pub fn index_at(&self, pc: u32) -> Option<usize> {
        let mut at = self.at;
        for (i, n) in self.width.iter().enumerate() {
            if at == pc {
                return Some(i);
            }
            at = at.wrapping_add(u32::from(*n));
        }
        None
    }
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All instructions ran (or that many of a loop).
    Done,
    /// Undefined instruction.
    Undefined,
    /// Supervisor call.
    Svc,
    /// Data abort at an address; the kind says alignment or mapping.
    DataAbort {
        /// Faulting address.
        addr: u32,
        /// Alignment fault, not a mapping fault.
        alignment: bool,
    },
    /// Prefetch abort: the address can't be executed, or BKPT.
    PrefetchAbort,
    /// Something else; a text says what.
    Other(&'static str),
}

/// What came out of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The registers then. After a fault, r15 is the faulting instruction (SVC: the one after it).
    pub state: State,
    /// The data window then.
    pub data: Vec<u8>,
    /// Instructions that ran, the vectors' included; 0 where that is not known.
    pub retired: u64,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.regs.iter().enumerate() {
            write!(f, "r{i}={r:08x}{}", if i % 8 == 7 { "\n" } else { " " })?;
        }
        writeln!(f, "cpsr={:08x} fpscr={:08x}", self.cpsr, self.fpscr)?;
        for (i, d) in self.d.iter().enumerate() {
            write!(f, "d{i}={d:016x}{}", if i % 4 == 3 { "\n" } else { " " })?;
        }
        Ok(())
    }
}
