//! The x86-64 engine: compiles hot blocks of micro-ops to host code.
#![cfg(target_arch = "x86_64")]

pub mod emit;
pub mod fp;
