//! Signals that ask for the machine's end, as something to poll.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// A descriptor that gets readable with each SIGINT, SIGTERM or SIGHUP.
#[derive(Debug)]
pub(crate) struct EndSignals {
    pipe: UnixStream,
}

impl EndSignals {
    /// Catches them from here on.
    pub(crate) fn new() -> io::Result<Self> {
        let (pipe, write) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe })
    }

    /// How many came since the last call.
    pub(crate) fn take(&mut self) -> usize {
        let mut buffer = [0; 64];
        // An error is: nothing there, or interrupted by the next one, which makes the descriptor readable again.
        self.pipe.read(&mut buffer).unwrap_or_default()
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
