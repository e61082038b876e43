//! The host's random bytes, for devices that give a guest entropy.

use std::os::fd::RawFd;

use crate::{Backend, Input};

/// Bytes at once: the kernel gives so many without being interrupted (getrandom(2)).
const PIECE: usize = 256;

/// Gives random bytes whenever a device wants some.
#[derive(Debug)]
pub struct Random {
    offers: bool,
}

impl Random {
    /// Gives bytes if `offers`; else none, as in a replay, where the recording has them.
    #[must_use]
    pub fn new(offers: bool) -> Self {
        Self { offers }
    }
}

impl Backend for Random {
    fn input_fd(&self) -> Option<RawFd> {
        None
    }

    fn output_fd(&self) -> Option<RawFd> {
        None
    }

    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input {
        if !self.offers {
            return Input::End;
        }
        let start = buffer.len();
        buffer.resize(start + room.min(PIECE), 0);
        let piece = &mut buffer[start..];
        // SAFETY: the slice is valid for writes of its length during the call.
        let n = unsafe { libc::getrandom(piece.as_mut_ptr().cast(), piece.len(), 0) };
        let n = usize::try_from(n).unwrap_or(0);
        buffer.truncate(start + n);
        if n > 0 { Input::Bytes(n) } else { Input::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_differ_and_are_never_more_than_wanted() {
        let mut random = Random::new(true);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert_eq!(random.read(0, &mut a), Input::Nothing);
        assert_eq!(random.read(32, &mut a), Input::Bytes(32));
        assert_eq!(random.read(10_000, &mut b), Input::Bytes(PIECE));
        assert_ne!(a, b[..32]);
        assert_eq!(Random::new(false).read(32, &mut a), Input::End);
    }
}
