//! The host side of a device: where its output goes and where its input comes from.
//!
//! A backend never blocks and starts nothing: its owner waits on [`Backend::input_fd`] and [`Backend::output_fd`] and calls it when one of them
//! is ready. Everything is done with descriptors that were inherited, so it works in a sandbox.

mod packets;
mod random;
mod rtc;
pub mod stream;

use std::fmt::Debug;
use std::os::fd::RawFd;

pub use packets::Packets;
pub use random::Random;
pub use rtc::Rtc;
pub use stream::Stream;

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// So many bytes were added to the buffer.
    Bytes(usize),
    /// Nothing now; ask again when [`Backend::input_fd`] is ready, or when the device wants other amounts.
    Nothing,
    /// Nothing will ever come again.
    End,
}

/// How output stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// All of it is written.
    Done,
    /// Some of it waits until [`Backend::output_fd`] is ready.
    Blocked,
}

/// The host side of a device.
pub trait Backend: Debug {
    /// What is ready to read when there is input; none if there never will be, or it comes without waiting.
    fn input_fd(&self) -> Option<RawFd>;

    /// What is ready to write when blocked output can go on.
    fn output_fd(&self) -> Option<RawFd>;

    /// Adds at most `room` bytes of input to `buffer`; never waits.
    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input;

    /// Takes output and writes what it can without waiting; without an outside it is thrown away.
    fn write(&mut self, _data: &[u8]) -> Output {
        Output::Done
    }

    /// Writes what is left of earlier output, without waiting.
    fn flush(&mut self) -> Output {
        Output::Done
    }

    /// Bytes of output that are not written yet.
    fn pending(&self) -> usize {
        0
    }

    /// Those bytes, where they must not be lost with the process.
    fn unwritten(&self) -> &[u8] {
        &[]
    }

    /// Earlier processes have taken so many bytes of input, and the next byte written stands at that position of the output. Comes first, if at all.
    fn resume(&mut self, _input: u64, _output: u64) {}

    /// What it has done so far, by name, for people.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Plugs or pulls the cable, where there is one: while it is pulled nothing comes in and what goes out is lost.
    fn set_link(&mut self, _up: bool) {}

    /// So many bytes of output were written by an earlier process: the next one written comes behind them.
    fn skip(&mut self, _bytes: u64) {}
}

/// No input; output is thrown away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

impl Backend for Null {
    fn input_fd(&self) -> Option<RawFd> {
        None
    }

    fn output_fd(&self) -> Option<RawFd> {
        None
    }

    fn read(&mut self, _: usize, _: &mut Vec<u8>) -> Input {
        Input::End
    }
}
