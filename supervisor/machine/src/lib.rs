//! The machine description: a RON file that names the CPU, the memory, every device and how it is wired, and the boot
//! images. This crate reads it strictly, checks it, and lays the boot images out in memory. It touches no process, clock or
//! terminal; who calls it reads the files.
//!
//! The way of a machine file:
//!
//! 1. [`lookup::candidates`] says where a `--config` may lie.
//! 2. [`Source::new`] takes its text, [`resolve`] makes a [`Machine`] and a [`Spans`] of it. Every error is a [`ConfigError`] that
//!    prints `file:line:column: what; what to do`.
//! 3. [`Machine::wire`] binds the pin names to the plugins' pins, once the plugins have said what pins they have.
//! 4. [`boot::plan`] turns kernel, device tree and initrd (or a bare-metal image) into memory contents and initial registers.
//!
//! A [`Machine`] is plain data: it goes to the CPU process in its start message and, as RON, into a recording's manifest.

pub mod boot;
mod dup;
mod file;
pub mod lookup;
mod machine;
mod resolve;
mod set;
mod source;

pub use machine::{
    Alias, Backend, Boot, BusRange, Clock, ClockMode, Cpu, CpuModel, Device, Disk, DiskFormat, Dma, Gic, ImageBoot,
    Limits, Line, LineTarget, LinuxBoot, Machine, Memory, Panel, PanelTiming, Pin, Pins, Psci, Restart, Wire,
    WireTarget,
};
pub use resolve::{Overrides, Resolved, Spans, parse_disk, parse_size, resolve};
pub use set::{Assignment, parse_set};
pub use source::{ConfigError, Source};
