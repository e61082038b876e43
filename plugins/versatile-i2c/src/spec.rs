//! What the two-wire interface looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register};

use crate::VersatileI2c;

/// Register offsets.
pub(crate) mod reg {
    /// Read: the lines; write: lets the lines go that have a 1.
    pub(crate) const CONTROL: u64 = 0x00;
    /// Write: pulls the lines low that have a 1.
    pub(crate) const CONTROLC: u64 = 0x04;
}

/// Bits of both registers.
pub(crate) mod line {
    pub(crate) const SCL: u8 = 1;
    pub(crate) const SDA: u8 = 1 << 1;
    pub(crate) const ALL: u8 = SCL | SDA;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const CONTROL: u16 = 0;
}

pub(crate) fn spec() -> PluginSpec {
    let both = u64::from(line::ALL);
    PluginSpec::new(VersatileI2c::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            Register::rw("SB_CONTROL", reg::CONTROL, both, "DUI 0225 4.10")
                .sizes(7)
                .shadow(shadow::CONTROL)
                .posted(&[shadow::CONTROL]),
            Register::wo("SB_CONTROLC", reg::CONTROLC, "DUI 0225 4.10").sizes(7).posted(&[shadow::CONTROL]),
        ])
        .shadows(&[("SB_CONTROL", both)])
}
