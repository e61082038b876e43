//! A console whose bytes come from the supervisor and go to it, in packets that say where in the stream they stand.
//!
//! Each packet is the position of its first byte (u64, little-endian) and up to [`PIECE`] bytes. The process may be killed between taking or giving a packet and
//! noting that in its estate, so packets may come twice: whoever takes one drops the bytes that it has, and a reader that finds a gap waits for the packet that closes
//! it, as the supervisor sends what it sent last once more to each new process.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::{Backend, Input, Output};

/// Most bytes of the stream in one packet.
pub const PIECE: usize = 4096;
/// Bytes before them.
pub const HEADER: usize = 8;
/// Bytes of the written part after which the buffer is moved down.
const COMPACT: usize = 64 << 10;

/// Cuts off what was seen of a packet of a stream that has come to `position`: the part that is new, if the packet has the next byte.
#[must_use]
pub fn new_part(packet: &[u8], position: u64) -> Option<&[u8]> {
    let (head, data) = packet.split_at_checked(HEADER)?;
    let at = u64::from_le_bytes(head.try_into().expect("8 bytes"));
    data.get(usize::try_from(position.checked_sub(at)?).ok()?..).filter(|new| !new.is_empty())
}

/// A packet of the bytes at `position`.
#[must_use]
pub fn packet(position: u64, data: &[u8]) -> Vec<u8> {
    [&position.to_le_bytes(), data].concat()
}

/// A console at the ends of two packet sockets.
#[derive(Debug)]
pub struct Stream {
    input: Option<OwnedFd>,
    /// None once the supervisor does not take output any more.
    output: Option<OwnedFd>,
    /// Position of the next byte of input.
    in_at: u64,
    /// Input that was read and is yet to be given.
    ahead: VecDeque<u8>,
    /// Position of the buffer's first byte in the output.
    out_at: u64,
    buffer: Vec<u8>,
    written: usize,
}

impl Stream {
    /// A console that reads `input`, if there is one, and writes `output`. Both must be in non-blocking mode.
    #[must_use]
    pub fn new(input: Option<OwnedFd>, output: OwnedFd) -> Self {
        let (ahead, buffer) = (VecDeque::new(), Vec::new());
        Self { input, output: Some(output), in_at: 0, ahead, out_at: 0, buffer, written: 0 }
    }

    fn write_piece(&mut self) -> Result<(), Errno> {
        let Some(output) = &self.output else {
            self.written = self.buffer.len();
            return Ok(());
        };
        let end = self.buffer.len().min(self.written + PIECE);
        let position = self.out_at + self.written as u64;
        write(output, &packet(position, &self.buffer[self.written..end]))?;
        self.written = end;
        Ok(())
    }

    /// Takes packets until one has something new; false at the end of the stream.
    fn take_packet(&mut self) -> Result<bool, Errno> {
        let mut packet = [0; HEADER + PIECE];
        while let Some(input) = &self.input {
            // A blocking read would hold the device up; whoever made the socket may have forgotten its mode.
            if poll(&mut [PollFd::new(input.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? == 0 {
                return Ok(true);
            }
            let n = read(input, &mut packet)?;
            if n == 0 {
                return Ok(false);
            }
            let position = self.in_at + self.ahead.len() as u64;
            if let Some(new) = new_part(&packet[..n], position) {
                self.ahead.extend(new);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Backend for Stream {
    fn input_fd(&self) -> Option<RawFd> {
        self.input.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn output_fd(&self) -> Option<RawFd> {
        self.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input {
        if room == 0 {
            return Input::Nothing;
        }
        let open = match self.ahead.is_empty() {
            true => self.take_packet(),
            false => Ok(true),
        };
        let n = room.min(self.ahead.len());
        buffer.extend(self.ahead.drain(..n));
        self.in_at += n as u64;
        match open {
            _ if n > 0 => Input::Bytes(n),
            Ok(true) | Err(Errno::EAGAIN | Errno::EINTR) => Input::Nothing,
            Ok(false) | Err(_) => {
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
                        self.out_at += self.written as u64;
                        self.written = 0;
                    }
                    return Output::Blocked;
                }
                // Nobody takes it any more: from here on output goes nowhere, and the machine runs on.
                Err(_) => self.output = None,
            }
        }
        self.out_at += self.buffer.len() as u64;
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

    fn resume(&mut self, input: u64, output: u64) {
        assert!(self.buffer.is_empty() && self.ahead.is_empty(), "nothing was read or written yet");
        (self.in_at, self.out_at) = (input, output);
    }

    fn skip(&mut self, bytes: u64) {
        assert!(self.buffer.is_empty(), "what an earlier process has written comes first");
        self.out_at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    #[test]
    fn bytes_that_come_twice_count_once() {
        let (ours, theirs) = pair();
        let mut console = Stream::new(Some(theirs), pair().0);
        console.resume(3, 0);
        // A gap, then what closes it and goes beyond.
        for (at, data) in [(5, &b"fg"[..]), (0, b"abcde"), (0, b"abcdefg")] {
            write(&ours, &packet(at, data)).unwrap();
        }
        let mut got = Vec::new();
        assert_eq!(console.read(1, &mut got), Input::Bytes(1));
        assert_eq!(console.read(99, &mut got), Input::Bytes(1));
        assert_eq!(console.read(99, &mut got), Input::Bytes(2));
        assert_eq!(got, b"defg");
        assert_eq!(console.read(99, &mut got), Input::Nothing);
        write(&ours, b"short").unwrap();
        assert_eq!(console.read(99, &mut got), Input::Nothing);
        drop(ours);
        assert_eq!(console.read(99, &mut got), Input::End);
    }

    #[test]
    fn output_says_where_it_stands() {
        let (ours, theirs) = pair();
        let mut console = Stream::new(None, theirs);
        assert_eq!(console.write(b"one "), Output::Done);
        console.skip(10);
        assert_eq!(console.write(b"two"), Output::Done);
        let mut buffer = [0; 100];
        let n = read(&ours, &mut buffer).unwrap();
        assert_eq!(new_part(&buffer[..n], 1), Some(&b"ne "[..]));
        assert_eq!(new_part(&buffer[..n], 4), None);
        let n = read(&ours, &mut buffer).unwrap();
        assert_eq!(new_part(&buffer[..n], 14), Some(&b"two"[..]));
        assert_eq!(new_part(&buffer[..n], 13), None, "a gap");
        // A reader that is slow is waited for, one that is gone is not.
        while console.write(&[b'x'; PIECE]) == Output::Done {}
        assert!(console.pending() > 0);
        drop(ours);
        assert_eq!(console.flush(), Output::Done);
    }
}
