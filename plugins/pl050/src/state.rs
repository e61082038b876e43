//! The PL050's saved state, with that of the device at its other end.

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::event::Events;
use crate::keyboard::Keyboard;
use crate::mouse::Mouse;
use crate::spec::{CLKDIV_MASK, cr};
use crate::{Config, Model};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// What goes on on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wire {
    /// Nothing.
    Idle,
    /// The device sends a byte, which arrives at this time.
    ToHost(u8, VTime),
    /// The host sends a byte, which arrives at this time.
    ToDevice(u8, VTime),
}

impl Wire {
    /// When what is on the wire arrives.
    pub(crate) fn until(self) -> Option<VTime> {
        match self {
            Self::Idle => None,
            Self::ToHost(_, at) | Self::ToDevice(_, at) => Some(at),
        }
    }
}

/// What is at the other end of the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ps2 {
    /// A keyboard.
    Keyboard(Keyboard),
    /// A mouse.
    Mouse(Mouse),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) cr: u8,
    pub(crate) clkdiv: u8,
    /// The byte in the receive register; it stays there after it was read.
    pub(crate) rx: u8,
    /// It was not read yet.
    pub(crate) rx_full: bool,
    /// Its parity bit.
    pub(crate) parity: bool,
    /// A byte to be sent that is not on the wire yet.
    pub(crate) tx: Option<u8>,
    pub(crate) wire: Wire,
    pub(crate) device: Ps2,
    pub(crate) events: Events,
}

impl StateV1 {
    /// Controller and device after power-on.
    pub(crate) fn new(cfg: &Config) -> Self {
        let device = match cfg.device {
            Model::Keyboard => Ps2::Keyboard(Keyboard::new()),
            Model::Mouse => Ps2::Mouse(Mouse::new()),
        };
        Self {
            cr: 0,
            clkdiv: 0,
            rx: 0,
            rx_full: false,
            parity: false,
            tx: None,
            wire: Wire::Idle,
            device,
            events: Events::default(),
        }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        RestoreError::check(self.cr & !cr::MASK == 0, "KMICR")?;
        RestoreError::check(self.clkdiv & !CLKDIV_MASK == 0, "KMICLKDIV")?;
        RestoreError::check(!matches!(self.wire, Wire::ToDevice(..)) || self.tx.is_none(), "two bytes to be sent")?;
        self.events.check()?;
        match &self.device {
            Ps2::Keyboard(k) => {
                RestoreError::check(cfg.device == Model::Keyboard, "a keyboard where the config has a mouse")?;
                k.check()
            }
            Ps2::Mouse(m) => {
                RestoreError::check(cfg.device == Model::Mouse, "a mouse where the config has a keyboard")?;
                m.check()
            }
        }
    }
}
