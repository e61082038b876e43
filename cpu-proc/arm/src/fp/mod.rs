//! Floating point and Advanced SIMD as pure functions over bit patterns: what VFPv4 and Advanced SIMDv2 compute, apart from where the
//! operands come from.
//!
//! - [`soft`]: IEEE 754 in integer arithmetic, written from the manual's pseudo-code (ARM DDI 0406C A2.7). It is the definition.
//! - [`ops`]: the same functions with a short cut through the host's FPU where that provably gives the same bits and flags.
//! - [`simd`]: integer and polynomial lanes. [`simdf`]: floating-point lanes and estimates.
//!
//! Nothing here depends on the host: a recording made on one machine replays on any other.

pub mod fpscr;
pub mod ops;
pub mod regs;
pub mod simd;
pub mod simd_helpers;
pub mod simdf;
pub mod soft;
pub mod vfp_helpers;

pub use fpscr::{Fpscr, Rounding};
pub use soft::{Double, Format, Half, Single};
