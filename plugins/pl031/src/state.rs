//! The PL031's saved state.

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::{Base, DATE, seconds};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    /// The counter at guest time 0, modulo 2^32.
    pub(crate) offset: u32,
    pub(crate) matches: u32,
    pub(crate) load: u32,
    pub(crate) imsc: bool,
    pub(crate) ris: bool,
    /// Second of guest time of the next match.
    pub(crate) match_at: u64,
    /// The date from the host has not come.
    pub(crate) wants_date: bool,
    /// What has come of it.
    pub(crate) date: Vec<u8>,
}

impl StateV1 {
    /// A clock that was just reset. The match register is 0, which is no match before it is written or the counter comes round.
    pub(crate) fn new(now: VTime, base: Base) -> Self {
        let offset = match base {
            Base::Fixed(date) => date,
            Base::Host => 0,
        };
        let ahead = 0u32.wrapping_sub(offset.wrapping_add(seconds(now) as u32));
        Self {
            offset,
            matches: 0,
            load: 0,
            imsc: false,
            ris: false,
            match_at: seconds(now) + if ahead == 0 { 1 << 32 } else { ahead.into() },
            wants_date: base == Base::Host,
            date: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(self.match_at <= seconds(VTime(u64::MAX)) + (2 << 32), "a match after the end of time")?;
        RestoreError::check(self.date.len() < DATE || !self.wants_date, "a date that is there and still wanted")?;
        RestoreError::check(self.date.len() <= DATE, "a date that is too long")
    }
}
