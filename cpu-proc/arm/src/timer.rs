//! The generic timer (ARM DDI 0406C chapter B8): a counter that is a pure function of guest time, and its per-core timers.

use crate::models::Model;
use serde::{Deserialize, Serialize};

/// One timer: CNTx_CTL and CNTx_CVAL; TVAL is a view of CVAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timer {
    /// CTL bits 1:0: ENABLE, IMASK. ISTATUS is computed.
    pub ctl: u32,
    /// Compare value.
    pub cval: u64,
}

/// Generic timer state of one core.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timers {
    /// Real frequency of the counter in Hz (configuration).
    pub hz: u32,
    /// CNTFRQ as software wrote it.
    pub cntfrq: u32,
    /// CNTKCTL.
    pub cntkctl: u32,
    /// Physical timers: Secure, Non-secure.
    pub phys: [Timer; 2],
    /// Virtual timer.
    pub virt: Timer,
}

impl Timers {
    /// Values out of reset.
    pub fn reset(model: &Model) -> Self {
        Timers { hz: model.cntfrq, cntfrq: model.cntfrq, ..Timers::default() }
    }
}
