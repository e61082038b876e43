//! The SP804's saved state.

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
    pub(crate) counters: [CounterV1; 2],
}

/// One timer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CounterV1 {
    /// Its clock in Hz.
    pub(crate) hz: u64,
    /// The load register, which is the background load register too.
    pub(crate) load: u32,
    pub(crate) ctrl: u32,
    pub(crate) ris: bool,
    /// The counter's value at tick `base` of its clock.
    pub(crate) value: u32,
    pub(crate) base: u64,
    /// It came to zero in one-shot mode.
    pub(crate) halted: bool,
}

impl StateV1 {
    pub(crate) fn new(now: VTime, cfg: &Config) -> Self {
        let counter = |hz| CounterV1 {
            hz,
            load: 0,
            ctrl: ctrl::RESET,
            ris: false,
            value: u32::MAX,
            base: now.ticks(hz),
            halted: false,
        };
        Self { counters: [counter(cfg.clock_hz.0), counter(cfg.clock_hz.1)] }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        for (c, hz) in self.counters.iter().zip([cfg.clock_hz.0, cfg.clock_hz.1]) {
            RestoreError::check(c.hz == hz || c.hz == cfg.refclk_hz, "a clock that the config does not have")?;
            RestoreError::check(c.ctrl & !ctrl::MASK == 0, "TimerControl")?;
            RestoreError::check(c.base <= VTime(u64::MAX).ticks(c.hz), "a time after the end of time")?;
        }
        Ok(())
    }
}
