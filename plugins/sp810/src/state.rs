//! The SP810's saved state.

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::spec::{STORED, sysctl};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    /// SCCTRL without its status bits.
    pub(crate) ctrl: u32,
    /// The two sets of peripheral clocks.
    pub(crate) clocks: [u32; 2],
    /// The other registers, in the order of the spec's table.
    pub(crate) stored: [u32; STORED.len()],
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self { ctrl: sysctl::RESET, clocks: [0; 2], stored: [0; STORED.len()] }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(self.ctrl & !sysctl::WRITABLE == 0, "SCCTRL")?;
        let fits = self.stored.iter().zip(STORED).all(|(value, (_, _, bits, _))| value & !bits == 0);
        RestoreError::check(fits, "bits that do not exist")
    }
}
