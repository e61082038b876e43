//! The saved state of the interface, its bus and what is on it.

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::Places;
use crate::bus::Bus;
use crate::target::Target;

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) bus: Bus,
    /// In the config's order.
    pub(crate) targets: Vec<Target>,
    /// The target of the transfer, and whether it is with what is on the display data channel behind it.
    pub(crate) selected: Option<(u8, bool)>,
}

impl StateV1 {
    pub(crate) fn new(places: &Places) -> Self {
        Self { bus: Bus::new(), targets: places.iter().map(|p| p.target.clone()).collect(), selected: None }
    }

    pub(crate) fn check(&self, places: &Places) -> Result<(), RestoreError> {
        RestoreError::check(self.bus.possible(), "more bits than a byte has")?;
        RestoreError::check(self.targets.len() == places.len(), "another number of targets")?;
        self.targets.iter().zip(places).try_for_each(|(t, p)| t.check(&p.target))?;
        let exists = self.selected.is_none_or(|(i, _)| usize::from(i) < self.targets.len());
        RestoreError::check(exists, "a target that there is not")
    }
}
