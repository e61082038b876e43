//! What the PL031 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register, primecell_ids};

use crate::Pl031;

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const DR: u64 = 0x00;
    pub(crate) const MR: u64 = 0x04;
    pub(crate) const LR: u64 = 0x08;
    pub(crate) const CR: u64 = 0x0c;
    pub(crate) const IMSC: u64 = 0x10;
    pub(crate) const RIS: u64 = 0x14;
    pub(crate) const MIS: u64 = 0x18;
    pub(crate) const ICR: u64 = 0x1c;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const MR: u16 = 0;
    pub(crate) const LR: u16 = 1;
    pub(crate) const IMSC: u16 = 2;
}

/// Output pins.
pub(crate) mod output {
    pub(crate) const IRQ: u32 = 0;
}

/// Ports.
pub(crate) mod port {
    /// The date: 8 bytes, Unix time in seconds, little-endian.
    pub(crate) const DATE: u32 = 0;
}

pub(crate) fn spec() -> PluginSpec {
    PluginSpec::new(Pl031::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            Register::ro("RTCDR", reg::DR, 0, "DDI 0224 3.3.1"),
            Register::rw("RTCMR", reg::MR, 0, "DDI 0224 3.3.2").shadow(shadow::MR),
            Register::rw("RTCLR", reg::LR, 0, "DDI 0224 3.3.3").shadow(shadow::LR),
            // The clock runs; a write that starts it changes nothing.
            Register::rw("RTCCR", reg::CR, 1, "DDI 0224 3.3.4").constant().posted(&[]),
            Register::rw("RTCIMSC", reg::IMSC, 0, "DDI 0224 3.3.5").shadow(shadow::IMSC),
            Register::ro("RTCRIS", reg::RIS, 0, "DDI 0224 3.3.6"),
            Register::ro("RTCMIS", reg::MIS, 0, "DDI 0224 3.3.7"),
            Register::wo("RTCICR", reg::ICR, "DDI 0224 3.3.8"),
        ])
        .registers(primecell_ids("RTC", [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0224 3.3.9"))
        .shadows(&[("RTCMR", 0), ("RTCLR", 0), ("RTCIMSC", 0)])
        .outputs(&["irq"])
        .port("date", Direction::In)
        .timers(1)
}
