//! The saved state.

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::spec::{KEPT, int};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateV1 {
    /// The registers of [`KEPT`].
    pub(crate) kept: [u32; KEPT.len()],
    pub(crate) mask: u8,
    /// Interrupts that have come until `seen`, or were set.
    pub(crate) raw: u8,
    /// Up to here (included) the frame's events were looked at.
    pub(crate) seen: VTime,
    /// When the first frame began, since the controller was switched on or its timing changed.
    pub(crate) began: VTime,
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self { kept: [0; KEPT.len()], mask: 0, raw: 0, seen: VTime(0), began: VTime(0) }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let Self { kept, mask, raw, seen, began } = self;
        RestoreError::check(kept.iter().zip(KEPT).all(|(value, k)| value & !k.2 == 0), "a register")?;
        RestoreError::check((mask | raw) & !int::MASK == 0, "an interrupt")?;
        RestoreError::check(began <= seen, "a frame that begins in the future")
    }
}
