//! The CPU process as a library: clock, RAM, board, run loop. The binary puts them behind channels and a sandbox.

pub mod assemble;
pub mod board;
pub mod channel_port;
pub mod clock;
pub mod journal;
pub mod link;
pub mod local;
pub mod outside;
pub mod port;
pub mod ram;
pub mod rings;
pub mod runner;
