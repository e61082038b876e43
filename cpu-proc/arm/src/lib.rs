//! The ARMv7-A architecture as pure code: decoding, micro-ops, CPU state, MMU, system registers, GICv2 and timers.
//!
//! Nothing in this crate knows a clock, a thread, a file or a process (DESIGN law 2). Engines (`reprise-interp`, later the JIT) execute
//! what it describes; `cpu-proc` gives it RAM and a bus.

pub mod bus;
pub mod cores;
pub mod count;
pub mod coverage;
pub mod cp14;
pub mod cp15;
pub mod decode;
pub mod engine;
pub mod exception;
pub mod fp;
pub mod gic;
pub mod ir;
pub mod l2c310;
pub mod mmu;
pub mod models;
pub mod mpcore;
pub mod pmu;
pub mod psci;
pub mod psr;
pub mod state;
pub mod statehash;
pub mod sysop;
pub mod timer;
pub mod translate;
