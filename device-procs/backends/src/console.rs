//! A console: bytes to one descriptor and from another.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::{Backend, Input, Output};

/// Bytes written at once. A pipe that says it is ready takes as many without blocking (POSIX: `PIPE_BUF`), so the descriptors may be in
/// blocking mode: a terminal is shared with other processes, whose mode this is too.
const PIECE: usize = 4096;
/// Bytes of the written part after which the buffer is moved down.
const COMPACT: usize = 64 << 10;

/// A console on two descriptors.
#[derive(Debug)]
pub struct Console {
    input: Option<OwnedFd>,
    /// None once the reader is gone.
    output: Option<OwnedFd>,
    buffer: Vec<u8>,
    written: usize,
}

impl Console {
    /// A console that reads `input`, if there is one, and writes `output`.
    #[must_use]
    pub fn new(input: Option<OwnedFd>, output: OwnedFd) -> Self {
        Self { input, output: Some(output), buffer: Vec::new(), written: 0 }
    }

    /// Writes one piece; what to do next.
    fn write_piece(&mut self) -> Result<(), Errno> {
        let Some(output) = &self.output else {
            self.written = self.buffer.len();
            return Ok(());
        };
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO)? == 0 {
            return Err(Errno::EAGAIN);
        }
        let end = self.buffer.len().min(self.written + PIECE);
        self.written += write(output, &self.buffer[self.written..end])?;
        Ok(())
    }
}

impl Backend for Console {
    fn input_fd(&self) -> Option<RawFd> {
        self.input.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn output_fd(&self) -> Option<RawFd> {
        self.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input {
        let Some(input) = &self.input else { return Input::End };
        if room == 0 {
            return Input::Nothing;
        }
        let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR)) {
            return Input::Nothing;
        }
        let start = buffer.len();
        buffer.resize(start + room.min(PIECE), 0);
        let result = read(input, &mut buffer[start..]);
        buffer.truncate(start + result.unwrap_or(0));
        match result {
            Ok(n) if n > 0 => Input::Bytes(n),
            Err(Errno::EAGAIN | Errno::EINTR) => Input::Nothing,
            // The end of a file or pipe, or a terminal that hung up.
            _ => {
                self.input = None;
                Input::End
            }
        }
    }

    fn write(&mut self, data: &[u8]) -> Output {
        self.buffer.extend_from_slice(data);
        self.flush()
    }

    fn flush(&mut self) -> Output {
        while self.written < self.buffer.len() {
            match self.write_piece() {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if self.written >= COMPACT {
                        self.buffer.drain(..self.written);
                        self.written = 0;
                    }
                    return Output::Blocked;
                }
                // Nobody reads any more: from here on output goes nowhere, and the machine runs on.
                Err(_) => self.output = None,
            }
        }
        self.buffer.clear();
        self.written = 0;
        Output::Done
    }

    fn pending(&self) -> usize {
        self.buffer.len() - self.written
    }

    fn unwritten(&self) -> &[u8] {
        &self.buffer[self.written..]
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe().unwrap()
    }

    #[test]
    fn a_full_pipe_blocks_and_goes_on() {
        let (reader, writer) = pipe();
        let mut console = Console::new(None, writer);
        let data: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        assert_eq!(console.write(&data), Output::Blocked);
        assert!(console.pending() > 0);
        let mut reader = std::fs::File::from(reader);
        let mut got = Vec::new();
        let mut piece = [0; 10_000];
        while console.flush() == Output::Blocked {
            let n = reader.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..n]);
        }
        assert_eq!(console.pending(), 0);
        drop(console);
        reader.read_to_end(&mut got).unwrap();
        assert!(got == data);
    }

    #[test]
    fn input_comes_in_pieces_of_the_room_and_ends() {
        let (reader, writer) = pipe();
        let (_sink, output) = pipe();
        let mut console = Console::new(Some(reader), output);
        let mut buffer = Vec::new();
        assert_eq!(console.read(10, &mut buffer), Input::Nothing);
        let mut writer = std::fs::File::from(writer);
        writer.write_all(b"hello").unwrap();
        assert_eq!(console.read(0, &mut buffer), Input::Nothing);
        assert_eq!(console.read(3, &mut buffer), Input::Bytes(3));
        assert_eq!(console.read(3, &mut buffer), Input::Bytes(2));
        assert_eq!(buffer, b"hello");
        drop(writer);
        assert_eq!(console.read(3, &mut buffer), Input::End);
        assert_eq!(console.input_fd(), None);
        assert_eq!(console.read(3, &mut buffer), Input::End);
    }

    #[test]
    fn output_that_nobody_reads_is_dropped() {
        let (reader, writer) = pipe();
        let mut console = Console::new(None, writer);
        drop(reader);
        assert_eq!(console.write(b"lost"), Output::Done);
        assert_eq!(console.output_fd(), None);
        assert_eq!(console.write(b"lost too"), Output::Done);
        assert_eq!(console.pending(), 0);
    }
}
