//! The wires of an I2C bus (NXP UM10204, 3.1), as the targets on it see them: start, stop, bits and acknowledgements.
//!
//! A bit counts when the clock rises; a target changes the data line only while the clock is low.

use serde::{Deserialize, Serialize};

/// What the targets do.
pub(crate) trait Targets {
    /// A transfer begins with this 7-bit address, to be read from or written to: whether there is a target that acknowledges it.
    fn select(&mut self, address: u8, read: bool) -> bool;
    /// The selected target is sent a byte; whether it acknowledges it.
    fn write(&mut self, byte: u8) -> bool;
    /// The next byte of the selected target.
    fn read(&mut self) -> u8;
}

/// What the bits on the wire are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Nothing for anybody here, up to the next start.
    Idle,
    /// Bits of a byte from the controller; the address if it is the first one.
    Receive { address: bool, byte: u8, bits: u8 },
    /// A target acknowledges; if `read`, it is to send next.
    Acknowledge { read: bool },
    /// Bits of a byte from the target; the top one is on the wire.
    Send { byte: u8, bits: u8 },
    /// The controller acknowledges, or not.
    Answer { more: bool },
}

/// The wires.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bus {
    scl: bool,
    /// The controller lets the data line go.
    sda: bool,
    /// A target pulls the data line low.
    pulled: bool,
    phase: Phase,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self { scl: true, sda: true, pulled: false, phase: Phase::Idle }
    }

    /// Whether such a state can be.
    pub(crate) fn possible(&self) -> bool {
        match self.phase {
            Phase::Receive { bits, .. } => bits <= 8,
            Phase::Send { bits, .. } => bits < 8,
            _ => true,
        }
    }

    /// Level of the clock line.
    pub(crate) fn scl(&self) -> bool {
        self.scl
    }

    /// Level of the data line.
    pub(crate) fn sda(&self) -> bool {
        self.sda && !self.pulled
    }

    /// Whether the controller lets the data line go.
    pub(crate) fn released(&self) -> bool {
        self.sda
    }

    /// The controller drives both lines. If both change at once, the data line changes while the clock is low.
    pub(crate) fn drive(&mut self, scl: bool, sda: bool, targets: &mut impl Targets) {
        if self.scl && !scl {
            self.scl = false;
            self.fall(targets);
        }
        let before = self.sda();
        self.sda = sda;
        if self.scl && before != self.sda() {
            self.phase = if before { Phase::Receive { address: true, byte: 0, bits: 0 } } else { Phase::Idle };
        }
        if !self.scl && scl {
            self.scl = true;
            self.rise();
        }
    }

    /// The clock rises: a bit.
    fn rise(&mut self) {
        let bit = self.sda();
        match &mut self.phase {
            Phase::Receive { byte, bits, .. } if *bits < 8 => {
                *byte = *byte << 1 | u8::from(bit);
                *bits += 1;
            }
            Phase::Answer { more } => *more = !bit,
            _ => {}
        }
    }

    /// The clock falls: targets change the data line.
    fn fall(&mut self, targets: &mut impl Targets) {
        (self.phase, self.pulled) = match self.phase {
            Phase::Receive { address, byte, bits: 8 } => {
                let read = address && byte & 1 != 0;
                let taken = if address { targets.select(byte >> 1, read) } else { targets.write(byte) };
                if taken { (Phase::Acknowledge { read }, true) } else { (Phase::Idle, false) }
            }
            Phase::Acknowledge { read: false } => (Phase::Receive { address: false, byte: 0, bits: 0 }, false),
            Phase::Acknowledge { read: true } | Phase::Answer { more: true } => Self::send(targets.read(), 0),
            Phase::Send { byte, bits } if bits < 7 => Self::send(byte << 1, bits + 1),
            Phase::Send { .. } => (Phase::Answer { more: false }, false),
            Phase::Answer { more: false } | Phase::Idle => (Phase::Idle, false),
            same @ Phase::Receive { .. } => (same, false),
        };
    }

    /// Puts the top bit of `byte` on the wire.
    fn send(byte: u8, bits: u8) -> (Phase, bool) {
        (Phase::Send { byte, bits }, byte & 0x80 == 0)
    }
}
