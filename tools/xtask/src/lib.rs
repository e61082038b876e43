//! What the project's chores are made of; the whole-machine tests use it too.

pub mod bench;
pub mod bench_console;
pub mod bench_disk;
pub mod bench_qemu;
pub mod chart;
pub mod console;
pub mod coverage;
pub mod cpio;
pub mod cputime;
pub mod demo;
pub mod guest;
pub mod hello;
pub mod install;
pub mod paths;
pub mod process;
pub mod suite;
pub mod torture;
