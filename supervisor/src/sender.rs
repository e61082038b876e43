//! Input on its way to a device's process: packets that say where in the stream they stand (see [`reprise_backends::stream`]), as the process may be
//! killed and have a successor at any time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::write;
use reprise_backends::stream;

/// Input that is kept to be sent again: more than a process can have taken without having noted it.
const RECENT: usize = 16 << 10;

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
