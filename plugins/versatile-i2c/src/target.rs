//! What can be on the bus.

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::edid;

/// Registers of a target: 256 bytes. The first byte of a write says which comes next, and each byte goes on to the one after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    at: u8,
    /// The next byte written is the pointer.
    first: bool,
}

impl Pointer {
    fn new() -> Self {
        Self { at: 0, first: false }
    }

    /// A transfer begins.
    fn start(&mut self, read: bool) {
        self.first = !read;
    }

    /// A byte was written: where it goes, or `None` if it was the pointer.
    fn write(&mut self, byte: u8) -> Option<u8> {
        if std::mem::take(&mut self.first) {
            self.at = byte;
            return None;
        }
        Some(self.next())
    }

    fn next(&mut self) -> u8 {
        let at = self.at;
        self.at = at.wrapping_add(1);
        at
    }
}

/// Registers of the SiI9022's transmitter programming interface (Silicon Image SiI-PR-1032).
mod tpi {
    pub(super) const SYSTEM_CONTROL: u8 = 0x1a;
    /// Bit of it: the host wants the display data channel.
    pub(super) const REQUEST: u8 = 1 << 2;
    /// Bit of it: it may have it; the host writes it back to be connected.
    pub(super) const GRANT: u8 = 1 << 1;
    /// Identification, revision, and revision of the interface.
    pub(super) const ID: [(u8, u8); 3] = [(0x1b, 0xb0), (0x1c, 0x02), (0x1d, 0x03)];
    pub(super) const INTERRUPT_STATUS: u8 = 0x3d;
    /// Bits of it: a monitor was plugged in or out, its termination has changed.
    pub(super) const EVENTS: u8 = 3;
    /// Bits of it: a monitor is there, it is terminated.
    pub(super) const MONITOR: u8 = 3 << 2;
}

/// The address of a monitor's EDID on its display data channel.
pub(crate) const DDC: u8 = 0x50;

/// The state of a target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Target {
    /// 256 bytes that hold what is written.
    Registers {
        /// Where the next byte goes.
        pointer: Pointer,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// An EDID in a read-only memory.
    Edid {
        /// Which byte is next.
        pointer: Pointer,
    },
    /// A SiI9022 DVI transmitter.
    Sii9022 {
        /// Which register is next.
        pointer: Pointer,
        /// Its registers.
        bytes: Vec<u8>,
        /// The display data channel is connected to the bus.
        bypass: bool,
        /// Which byte of the monitor's EDID is next.
        ddc: Pointer,
    },
}

impl Target {
    pub(crate) fn registers() -> Self {
        Self::Registers { pointer: Pointer::new(), bytes: vec![0; 256] }
    }

    pub(crate) fn edid() -> Self {
        Self::Edid { pointer: Pointer::new() }
    }

    pub(crate) fn sii9022(monitor: bool) -> Self {
        let mut bytes = vec![0; 256];
        for (at, value) in tpi::ID {
            bytes[usize::from(at)] = value;
        }
        if monitor {
            bytes[usize::from(tpi::INTERRUPT_STATUS)] = tpi::EVENTS | tpi::MONITOR;
        }
        Self::Sii9022 { pointer: Pointer::new(), bytes, bypass: false, ddc: Pointer::new() }
    }

    /// Checks the state of a target that is like `new` when it is new.
    pub(crate) fn check(&self, new: &Self) -> Result<(), RestoreError> {
        let kind = std::mem::discriminant(self) == std::mem::discriminant(new);
        RestoreError::check(kind, "another target than the config's")?;
        let size = |bytes: &[u8]| RestoreError::check(bytes.len() == 256, "a target with another size");
        match self {
            Self::Registers { bytes, .. } => size(bytes),
            Self::Edid { .. } => Ok(()),
            Self::Sii9022 { bytes, .. } => {
                size(bytes)?;
                let id = tpi::ID.iter().all(|&(at, value)| bytes[usize::from(at)] == value);
                RestoreError::check(id, "a transmitter with another identification")
            }
        }
    }

    /// Whether a display data channel is connected to the bus by it.
    pub(crate) fn bypasses(&self) -> bool {
        matches!(self, Self::Sii9022 { bypass: true, .. })
    }

    /// A transfer begins. `ddc`: with what is on the display data channel behind it.
    pub(crate) fn start(&mut self, ddc: bool, read: bool) {
        match self {
            Self::Sii9022 { ddc: pointer, .. } if ddc => pointer.start(read),
            Self::Registers { pointer, .. } | Self::Edid { pointer } | Self::Sii9022 { pointer, .. } => {
                pointer.start(read);
            }
        }
    }

    /// A byte is written; whether it is acknowledged.
    pub(crate) fn write(&mut self, ddc: bool, byte: u8) -> bool {
        match self {
            Self::Registers { pointer, bytes } => {
                if let Some(at) = pointer.write(byte) {
                    bytes[usize::from(at)] = byte;
                }
                true
            }
            // A monitor's memory can't be written.
            Self::Edid { pointer } => pointer.write(byte).is_none(),
            Self::Sii9022 { ddc: pointer, .. } if ddc => pointer.write(byte).is_none(),
            Self::Sii9022 { pointer, bytes, bypass, .. } => {
                if let Some(at) = pointer.write(byte) {
                    let register = &mut bytes[usize::from(at)];
                    match at {
                        tpi::SYSTEM_CONTROL => {
                            let requested = byte & tpi::REQUEST != 0;
                            *bypass = requested && byte & tpi::GRANT != 0;
                            *register = byte & !tpi::GRANT | u8::from(requested) * tpi::GRANT;
                        }
                        tpi::INTERRUPT_STATUS => *register &= !(byte & tpi::EVENTS),
                        _ if tpi::ID.iter().any(|id| id.0 == at) => {}
                        _ => *register = byte,
                    }
                }
                true
            }
        }
    }

    /// The next byte. `edid`: of the monitor that the config gives this target.
    pub(crate) fn read(&mut self, ddc: bool, edid: &[u8]) -> u8 {
        // A monitor with one block gives it twice, as its memory has half the size.
        let of = |at: u8| edid.get(usize::from(at) % edid.len().max(edid::BLOCK)).copied().unwrap_or(0xff);
        match self {
            Self::Edid { pointer } => of(pointer.next()),
            Self::Sii9022 { ddc: pointer, .. } if ddc => of(pointer.next()),
            Self::Registers { pointer, bytes } | Self::Sii9022 { pointer, bytes, .. } => {
                bytes[usize::from(pointer.next())]
            }
        }
    }
}
