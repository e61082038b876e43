//! The system registers' saved state.

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::spec::{cfgctrl, misc, misc_reset};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// Version 1. Registers are named as in the manual, without their prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) led: u32,
    /// What was last written to SYS_LOCK.
    pub(crate) lock: u32,
    pub(crate) flags: u32,
    pub(crate) nvflags: u32,
    pub(crate) mci: u32,
    pub(crate) flash: u32,
    pub(crate) cfgsw: u32,
    pub(crate) misc: u32,
    pub(crate) dma: u32,
    pub(crate) cfgdata: u32,
    pub(crate) cfgctrl: u32,
    pub(crate) cfgstat: u32,
    /// What the microcontroller knows: address in SYS_CFGCTRL and value, sorted.
    pub(crate) values: Vec<(u32, u32)>,
    pub(crate) poweroff: bool,
    pub(crate) reset: bool,
}

impl StateV1 {
    pub(crate) fn new(cfg: &Config) -> Self {
        Self {
            led: 0,
            lock: 0,
            flags: 0,
            nvflags: 0,
            mci: 0,
            flash: 0,
            cfgsw: cfg.cfgsw.into(),
            misc: misc_reset(cfg),
            dma: 0,
            cfgdata: 0,
            cfgctrl: 0,
            cfgstat: 0,
            values: cfg.values(),
            poweroff: false,
            reset: false,
        }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        let fits = |value: u32, bits: u32, what| RestoreError::check(value & !bits == 0, what);
        fits(self.led, 0xff, "SYS_LED")?;
        fits(self.lock, 0xffff, "SYS_LOCK")?;
        fits(self.mci, 3, "SYS_MCI")?;
        fits(self.flash, 1, "SYS_FLASH")?;
        fits(self.cfgsw, 0xff, "SYS_CFGSW")?;
        fits(self.cfgctrl, !cfgctrl::START, "SYS_CFGCTRL")?;
        fits(self.cfgstat, 3, "SYS_CFGSTAT")?;
        RestoreError::check(self.misc & !misc::WRITABLE == misc_reset(cfg), "SYS_MISC")?;
        let same = self.values.iter().map(|v| v.0).eq(cfg.values().into_iter().map(|v| v.0));
        RestoreError::check(same, "the boards differ from those of the config")
    }
}
