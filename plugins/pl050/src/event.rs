//! The events of the host port, in the terms of Linux's evdev (`linux/input-event-codes.h`).

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

/// Bytes of an event: type (u16), code (u16) and value (i32), little-endian.
pub(crate) const SIZE: usize = 8;

/// Event types.
pub(crate) mod ev {
    pub(crate) const SYN: u16 = 0;
    pub(crate) const KEY: u16 = 1;
    pub(crate) const REL: u16 = 2;
    pub(crate) const LED: u16 = 0x11;
}

/// Codes of LEDs.
pub(crate) mod led {
    pub(crate) const NUM: u16 = 0;
    pub(crate) const CAPS: u16 = 1;
    pub(crate) const SCROLL: u16 = 2;
}

/// Codes of relative axes.
pub(crate) mod rel {
    pub(crate) const X: u16 = 0;
    pub(crate) const Y: u16 = 1;
    pub(crate) const WHEEL: u16 = 8;
}

/// Codes of the mouse's buttons; side and extra follow.
pub(crate) mod btn {
    pub(crate) const LEFT: u16 = 0x110;
    pub(crate) const EXTRA: u16 = 0x114;
}

/// Codes of keys that mean something to the keyboard itself.
pub(crate) mod key {
    pub(crate) const LEFT_CTRL: u16 = 29;
    pub(crate) const LEFT_SHIFT: u16 = 42;
    pub(crate) const RIGHT_SHIFT: u16 = 54;
    pub(crate) const LEFT_ALT: u16 = 56;
    pub(crate) const RIGHT_CTRL: u16 = 97;
    pub(crate) const SYSRQ: u16 = 99;
    pub(crate) const RIGHT_ALT: u16 = 100;
    pub(crate) const PAUSE: u16 = 119;
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputEvent {
    pub(crate) kind: u16,
    pub(crate) code: u16,
    pub(crate) value: i32,
}

impl InputEvent {
    /// As the port's bytes.
    pub(crate) fn bytes(self) -> [u8; SIZE] {
        let ([t0, t1], [c0, c1]) = (self.kind.to_le_bytes(), self.code.to_le_bytes());
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [t0, t1, c0, c1, v0, v1, v2, v3]
    }
}

/// Cuts the port's bytes into events, however they come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Events {
    /// The beginning of an event.
    part: Vec<u8>,
}

impl Events {
    /// Takes bytes, and hands each whole event to `take`.
    pub(crate) fn feed(&mut self, data: &[u8], mut take: impl FnMut(InputEvent)) {
        for &byte in data {
            self.part.push(byte);
            if let Ok([t0, t1, c0, c1, v @ ..]) = <[u8; SIZE]>::try_from(self.part.as_slice()) {
                self.part.clear();
                take(InputEvent {
                    kind: u16::from_le_bytes([t0, t1]),
                    code: u16::from_le_bytes([c0, c1]),
                    value: i32::from_le_bytes(v),
                });
            }
        }
    }

    /// Bytes that `events` more events take, with what has come of the next one.
    pub(crate) fn bytes(&self, events: usize) -> u64 {
        (events * SIZE).saturating_sub(self.part.len()) as u64
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(self.part.len() < SIZE, "the beginning of an event is longer than one")
    }
}
