//! What the PL061 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register, primecell_ids};

use crate::{Config, Pl061};

/// Register offsets (TRM table 3-1). GPIODATA fills 0x000 to 0x3ff: bits 9:2 of the address are the mask of an access.
pub(crate) mod reg {
    pub(crate) const DATA_END: u64 = 0x400;
    /// GPIODATA with all pins in the mask.
    pub(crate) const DATA: u64 = 0x3fc;
    pub(crate) const DIR: u64 = 0x400;
    pub(crate) const IS: u64 = 0x404;
    pub(crate) const IBE: u64 = 0x408;
    pub(crate) const IEV: u64 = 0x40c;
    pub(crate) const IE: u64 = 0x410;
    pub(crate) const RIS: u64 = 0x414;
    pub(crate) const MIS: u64 = 0x418;
    pub(crate) const IC: u64 = 0x41c;
    pub(crate) const AFSEL: u64 = 0x420;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const DATA: u16 = 0;
    pub(crate) const DIR: u16 = 1;
    pub(crate) const IS: u16 = 2;
    pub(crate) const IBE: u16 = 3;
    pub(crate) const IEV: u16 = 4;
    pub(crate) const IE: u16 = 5;
    pub(crate) const RIS: u16 = 6;
    pub(crate) const MIS: u16 = 7;
    pub(crate) const AFSEL: u16 = 8;
}

/// Output pins: the interrupt, then the eight pins as this device drives them.
pub(crate) mod output {
    pub(crate) const IRQ: u32 = 0;
    pub(crate) const OUT0: u32 = 1;
}

/// Ports.
pub(crate) mod port {
    /// Changes of input pins: pairs of bytes, the pin (0 to 7) and its level (0 or 1).
    pub(crate) const KEYS: u32 = 0;
}

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let rw =
        |name, offset, shadow: u16, section| Register::rw(name, offset, 0, section).sizes(7).shadow(shadow).stored();
    let pull = u64::from(cfg.pull);
    PluginSpec::new(Pl061::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            // The other masks' addresses are synchronous. A write can lower an output.
            Register::rw("GPIODATA", reg::DATA, pull, "DDI 0190 3.3.1").sizes(7).shadow(shadow::DATA),
            rw("GPIODIR", reg::DIR, shadow::DIR, "DDI 0190 3.3.2"),
            rw("GPIOIS", reg::IS, shadow::IS, "DDI 0190 3.3.3"),
            rw("GPIOIBE", reg::IBE, shadow::IBE, "DDI 0190 3.3.4"),
            rw("GPIOIEV", reg::IEV, shadow::IEV, "DDI 0190 3.3.5"),
            rw("GPIOIE", reg::IE, shadow::IE, "DDI 0190 3.3.6"),
            Register::ro("GPIORIS", reg::RIS, 0, "DDI 0190 3.3.7").sizes(7).shadow(shadow::RIS),
            Register::ro("GPIOMIS", reg::MIS, 0, "DDI 0190 3.3.8").sizes(7).shadow(shadow::MIS),
            Register::wo("GPIOIC", reg::IC, "DDI 0190 3.3.9").sizes(7),
            rw("GPIOAFSEL", reg::AFSEL, shadow::AFSEL, "DDI 0190 3.3.10"),
        ])
        .registers(primecell_ids("GPIO", [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0190 3.3.11"))
        .shadows(&[
            ("GPIODATA", pull),
            ("GPIODIR", 0),
            ("GPIOIS", 0),
            ("GPIOIBE", 0),
            ("GPIOIEV", 0),
            ("GPIOIE", 0),
            ("GPIORIS", 0),
            ("GPIOMIS", 0),
            ("GPIOAFSEL", 0),
        ])
        .inputs(&["gpio0", "gpio1", "gpio2", "gpio3", "gpio4", "gpio5", "gpio6", "gpio7"])
        .outputs(&["irq", "out0", "out1", "out2", "out3", "out4", "out5", "out6", "out7"])
        .port("keys", Direction::In)
        .timers(1)
}
