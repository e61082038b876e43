//! The host's date, for real-time clocks.

use std::os::fd::RawFd;
use std::time::Instant;

use crate::{Backend, Input};

/// Bytes of a date: Unix time in seconds, little-endian.
const DATE: usize = 8;

/// Gives the date whenever a device wants all of one.
#[derive(Debug)]
pub struct Rtc {
    /// The date at `since`; none in a replay, where the recording has it.
    date: Option<u64>,
    since: Instant,
}

impl Rtc {
    /// A clock that shows `date` now, in Unix time.
    #[must_use]
    pub fn new(date: Option<u64>) -> Self {
        Self { date, since: Instant::now() }
    }
}

impl Backend for Rtc {
    fn input_fd(&self) -> Option<RawFd> {
        None
    }

    fn output_fd(&self) -> Option<RawFd> {
        None
    }

    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input {
        let Some(date) = self.date else { return Input::End };
        if room < DATE {
            return Input::Nothing;
        }
        buffer.extend_from_slice(&(date + self.since.elapsed().as_secs()).to_le_bytes());
        Input::Bytes(DATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_given_whole_or_not_at_all() {
        let mut rtc = Rtc::new(Some(1_700_000_000));
        let mut buffer = Vec::new();
        assert_eq!(rtc.read(7, &mut buffer), Input::Nothing);
        assert_eq!(rtc.read(100, &mut buffer), Input::Bytes(8));
        let date = u64::from_le_bytes(buffer.as_slice().try_into().unwrap());
        assert!((1_700_000_000..1_700_001_000).contains(&date));
        assert_eq!(Rtc::new(None).read(8, &mut buffer), Input::End);
    }
}
