//!
//! A *case* is a short run of random instructions with random registers and memory, all of it a function of a seed and a number, so a
//! failure is reproduced with `cargo run --release -p reprise-oracle -- --seed S --case N`.

pub mod case;
pub mod compare;
pub mod generate;
pub mod ours;
pub mod qemu;
pub mod run;
pub mod unicorn;
