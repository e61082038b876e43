//! The SP805's saved state.

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::spec::ctrl;

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) load: u32,
    pub(crate) ctrl: u32,
    pub(crate) ris: bool,
    pub(crate) locked: bool,
    /// The reset output.
    pub(crate) reset: bool,
    /// The counter's value at tick `base` of its clock.
    pub(crate) value: u32,
    pub(crate) base: u64,
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self { load: u32::MAX, ctrl: 0, ris: false, locked: false, reset: false, value: u32::MAX, base: 0 }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        RestoreError::check(self.ctrl & !ctrl::MASK == 0, "WdogControl")?;
        RestoreError::check(self.base <= VTime(u64::MAX).ticks(cfg.clock_hz), "a time after the end of time")
    }
}
