//! Output on its way from a device's process: packets that say where in the stream they stand (see [`reprise_backends::stream`]), as the process may be
//! killed and have a successor at any time.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use reprise_backends::stream;

/// A pair of packet sockets, neither of which blocks: ours, and that of the device's process.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Output of a device.
#[derive(Debug)]
pub(crate) struct Drain {
    source: Option<File>,
    /// Bytes that have come.
    seen: u64,
    buffer: Vec<u8>,
}

impl Drain {
    /// From this socket, which must not block.
    pub(crate) fn new(source: OwnedFd) -> Self {
        Self { source: Some(source.into()), seen: 0, buffer: vec![0; stream::HEADER + stream::PIECE] }
    }

    /// The descriptor that it comes from, if it is open.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// The next piece, without what was seen before; none if nothing is there. A piece may be empty.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let source = self.source.as_mut()?;
        match source.read(&mut self.buffer) {
            Ok(0) => self.source = None,
            Ok(n) => {
                let data = stream::new_part(&self.buffer[..n], self.seen).unwrap_or_default();
                self.seen += data.len() as u64;
                return Some(data);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.source = None,
        }
        None
    }
}
