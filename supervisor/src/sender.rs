//! Input on its way to a device's process: packets that say where in the stream they stand (see [`reprise_backends::stream`]), as the process may be
//! killed and have a successor at any time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::write;
use reprise_backends::stream;

/// Input that may be on its way in the socket; Linux takes twice as much (socket(7), SO_SNDBUF).
const IN_SOCKET: usize = 32 << 10;
/// Input that is kept to be sent again: more than a process can have taken without having noted it, and what is in the socket then. The next process finds that behind a gap,
/// and drops it.
const RECENT: usize = 4 * IN_SOCKET;

/// Our end of a device's input.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    socket: Option<OwnedFd>,
    /// Bytes that were sent, and the last of them: a new process may want them again.
    sent: u64,
    recent: VecDeque<u8>,
    /// Packets with them that are to be sent again.
    again: VecDeque<Vec<u8>>,
}

impl Sender {
    /// Sends over a packet socket in non-blocking mode; without one, nothing.
    pub(crate) fn new(socket: Option<OwnedFd>) -> Self {
        if let Some(Err(e)) = socket.as_ref().map(|s| setsockopt(s, sockopt::SndBuf, &IN_SOCKET)) {
            tracing::debug!("a socket for input: {e}");
        }
        Self { socket, ..Self::default() }
    }

    /// The socket, if it is open.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// A new process serves the device: it gets the last of the input once more.
    pub(crate) fn repeat(&mut self) {
        let start = self.sent - self.recent.len() as u64;
        let bytes = self.recent.make_contiguous();
        let packet = |(i, piece): (usize, &[u8])| stream::packet(start + (i * stream::PIECE) as u64, piece);
        self.again = bytes.chunks(stream::PIECE).enumerate().map(packet).collect();
    }

    /// Is there input to be sent once more?
    pub(crate) fn repeats(&self) -> bool {
        self.socket.is_some() && !self.again.is_empty()
    }

    /// Sends what waits, as far as the process takes it.
    pub(crate) fn send(&mut self, pending: &mut VecDeque<u8>) {
        while let Some(socket) = &self.socket {
            let (bytes, _) = pending.as_slices();
            let fresh = &bytes[..bytes.len().min(stream::PIECE)];
            let result = match self.again.front() {
                Some(packet) => write(socket, packet),
                None if fresh.is_empty() => return,
                None => write(socket, &stream::packet(self.sent, fresh)),
            };
            match result {
                Ok(_) if self.again.pop_front().is_some() => {}
                Ok(_) => {
                    let n = fresh.len();
                    self.sent += n as u64;
                    self.recent.extend(pending.drain(..n));
                    let old = self.recent.len().saturating_sub(RECENT);
                    self.recent.drain(..old);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.socket = None,
            }
        }
    }

    /// No more input will come.
    pub(crate) fn close(&mut self) {
        self.socket = None;
    }
}

#[cfg(test)]
mod tests {
    use reprise_backends::{Backend as _, Input, Stream};

    use super::*;
    use crate::stream::pair;

    /// The process is killed with a full socket and a packet in its hands, again and again.
    #[test]
    fn a_new_process_gets_all_that_the_dead_one_left() {
        let all: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let (ours, theirs) = pair().unwrap();
        let mut pending: VecDeque<u8> = all.iter().copied().collect();
        let mut sender = Sender::new(Some(ours));
        let mut got = Vec::new();
        for round in 0.. {
            let mut process = Stream::new(Some(theirs.try_clone().unwrap()), pair().unwrap().0);
            process.resume(got.len() as u64, 0);
            // So much it notes.
            let until = all.len().min(got.len() + 1 + round * 1003);
            while got.len() < until {
                sender.send(&mut pending);
                if !matches!(process.read(until - got.len(), &mut got), Input::Bytes(_)) {
                    assert!(sender.repeats() || !pending.is_empty(), "what is behind {} never comes", got.len());
                }
            }
            if until == all.len() {
                break;
            }
            sender.send(&mut pending);
            sender.repeat();
        }
        assert!(got == all);
    }
}
