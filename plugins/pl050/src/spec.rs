//! What the PL050 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register, primecell_ids};

use crate::Pl050;

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const CR: u64 = 0x00;
    pub(crate) const STAT: u64 = 0x04;
    pub(crate) const DATA: u64 = 0x08;
    pub(crate) const CLKDIV: u64 = 0x0c;
    pub(crate) const IIR: u64 = 0x10;
}

/// KMICR (TRM 3.3.1).
pub(crate) mod cr {
    /// Forces the clock line low.
    pub(crate) const FKMIC: u8 = 1;
    /// Forces the data line low.
    pub(crate) const FKMID: u8 = 1 << 1;
    pub(crate) const EN: u8 = 1 << 2;
    pub(crate) const TXINTREN: u8 = 1 << 3;
    pub(crate) const RXINTREN: u8 = 1 << 4;
    /// The bits that exist.
    pub(crate) const MASK: u8 = 0x3f;
}

/// KMISTAT (TRM 3.3.2).
pub(crate) mod stat {
    /// Level of the data line.
    pub(crate) const KMID: u8 = 1;
    /// Level of the clock line.
    pub(crate) const KMIC: u8 = 1 << 1;
    /// Parity bit of the last byte.
    pub(crate) const RXPARITY: u8 = 1 << 2;
    pub(crate) const RXBUSY: u8 = 1 << 3;
    pub(crate) const RXFULL: u8 = 1 << 4;
    pub(crate) const TXBUSY: u8 = 1 << 5;
    pub(crate) const TXEMPTY: u8 = 1 << 6;
    /// Nothing goes on.
    pub(crate) const RESET: u8 = TXEMPTY | KMIC | KMID;
}

/// KMIIR (TRM 3.3.5).
pub(crate) mod iir {
    pub(crate) const RX: u8 = 1;
    pub(crate) const TX: u8 = 1 << 1;
}

/// Bits of KMICLKDIV (TRM 3.3.4).
pub(crate) const CLKDIV_MASK: u8 = 0xf;

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const CR: u16 = 0;
    pub(crate) const STAT: u16 = 1;
    pub(crate) const CLKDIV: u16 = 2;
    pub(crate) const IIR: u16 = 3;
}

/// Output pins.
pub(crate) mod output {
    /// KMIINTR: either of the two interrupts.
    pub(crate) const IRQ: u32 = 0;
}

/// Ports.
pub(crate) mod port {
    /// What is typed and moved, and the LEDs: events of 8 bytes, see the crate's page.
    pub(crate) const EVENTS: u32 = 0;
}

/// Timers.
pub(crate) mod timer {
    /// The byte on the wire has arrived.
    pub(crate) const WIRE: u32 = 0;
    /// The keyboard repeats a key, or the mouse takes its next sample.
    pub(crate) const DEVICE: u32 = 1;
}

pub(crate) fn spec() -> PluginSpec {
    let stat = u64::from(stat::RESET);
    PluginSpec::new(Pl050::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            Register::rw("KMICR", reg::CR, 0, "DDI 0143 3.3.1").sizes(7).shadow(shadow::CR).stored(),
            Register::ro("KMISTAT", reg::STAT, stat, "DDI 0143 3.3.2").sizes(7).shadow(shadow::STAT),
            // A read takes the byte, a write sends one.
            Register::rw("KMIDATA", reg::DATA, 0, "DDI 0143 3.3.3").sizes(7),
            Register::rw("KMICLKDIV", reg::CLKDIV, 0, "DDI 0143 3.3.4").sizes(7).shadow(shadow::CLKDIV).stored(),
            Register::ro("KMIIR", reg::IIR, 0, "DDI 0143 3.3.5").sizes(7).shadow(shadow::IIR),
        ])
        .registers(primecell_ids("KMI", [0x50, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0143 3.3.6"))
        .shadows(&[("KMICR", 0), ("KMISTAT", stat), ("KMICLKDIV", 0), ("KMIIR", 0)])
        .outputs(&["irq"])
        .port("events", Direction::Both)
        .timers(2)
}
