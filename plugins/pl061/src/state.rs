//! The PL061's saved state.

use std::collections::VecDeque;

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::KEYS;

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(StateV1),
}

/// A change of an input pin that the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub(crate) pin: u8,
    pub(crate) level: bool,
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) data: u8,
    pub(crate) dir: u8,
    pub(crate) is: u8,
    pub(crate) ibe: u8,
    pub(crate) iev: u8,
    pub(crate) ie: u8,
    pub(crate) afsel: u8,
    /// Edges that were detected and not yet cleared.
    pub(crate) edges: u8,
    /// Levels that the outside gives the pins.
    pub(crate) external: u8,
    /// Changes that the host has asked for and that wait for their turn.
    pub(crate) keys: VecDeque<Key>,
    /// The first byte of a change whose second one has not come.
    pub(crate) half: Option<u8>,
    /// No change by the host before this time.
    pub(crate) held: Option<VTime>,
}

impl StateV1 {
    pub(crate) fn new(pull: u8) -> Self {
        Self {
            data: 0,
            dir: 0,
            is: 0,
            ibe: 0,
            iev: 0,
            ie: 0,
            afsel: 0,
            edges: 0,
            external: pull,
            keys: VecDeque::new(),
            half: None,
            held: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(self.keys.len() <= KEYS, "more changes than were asked for")?;
        RestoreError::check(self.keys.iter().all(|k| k.pin < 8), "a pin above 7")?;
        RestoreError::check(self.keys.is_empty() || self.held.is_some(), "changes that wait for nothing")?;
        RestoreError::check(self.edges & self.is == 0, "an edge of a pin that detects levels")
    }
}
