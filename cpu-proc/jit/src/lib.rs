//! The x86-64 engine: an [`Engine`] that compiles hot blocks of micro-ops to host code.
//!
//! It stands on the interpreter's crate: the cache finds, makes and throws away blocks for both; cold blocks, single operations that have no lowering, and what is
//! left of an instruction at a stop are interpreted. So there is one definition of faults, stops and counts.
//!
//! | module | what |
//! |---|---|
//! | `lower` | micro-ops to host code |
//! | `fp` | VFP and Advanced SIMD inline |
//! | `flags`, `regs`, `emit` | where the guest's flags and registers are, and the assembler |
//! | `thunks`, `runtime` | the seam between compiled code and Rust |
//! | `memory` | memory that is never writable and executable at once |
#![cfg(target_arch = "x86_64")]
// The assembler's macro converts register numbers whatever type they have.
#![allow(clippy::useless_conversion)]

pub mod emit;
mod engine;
pub mod flags;
pub mod fp;
pub mod lower;
pub mod memory;
mod perf;
pub mod regs;
mod runtime;
pub mod thunks;

pub use engine::{Jit, Stats};
