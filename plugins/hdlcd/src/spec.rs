//! What the HDLCD looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register};

use crate::Hdlcd;

/// Register offsets (DUI 0604 4.3).
pub(crate) mod reg {
    pub(crate) const VERSION: u64 = 0x000;
    pub(crate) const INT_RAWSTAT: u64 = 0x010;
    pub(crate) const INT_CLEAR: u64 = 0x014;
    pub(crate) const INT_MASK: u64 = 0x018;
    pub(crate) const INT_STATUS: u64 = 0x01c;
    pub(crate) const FB_BASE: u64 = 0x100;
    pub(crate) const COMMAND: u64 = 0x230;
}

/// VERSION: the product, revision 0.
pub(crate) const VERSION: u32 = 0x1cdc_0000;

/// Interrupts (DUI 0604 4.3.2).
pub(crate) mod int {
    /// The last byte of a picture was read.
    pub(crate) const DMA_END: u8 = 1;
    /// A frame begins.
    pub(crate) const VSYNC: u8 = 1 << 2;
    /// All that exist: bus error and underrun besides, which come only if software sets them.
    pub(crate) const MASK: u8 = 0xf;
}

/// COMMAND: the controller works.
pub(crate) const ENABLE: u32 = 1;

/// A register that holds what was written: name, offset, the bits that exist.
pub(crate) type Kept = (&'static str, u64, u32);

/// Those registers, in the order in which [`crate::StateV1`] has their values.
pub(crate) const KEPT: [Kept; 19] = [
    ("FB_BASE", reg::FB_BASE, 0xffff_fff8),
    ("FB_LINE_LENGTH", 0x104, 0xffff_ffff),
    ("FB_LINE_COUNT", 0x108, 0xfff),
    ("FB_LINE_PITCH", 0x10c, 0xffff_ffff),
    ("BUS_OPTIONS", 0x110, 0xf1f),
    ("V_SYNC", 0x200, 0xfff),
    ("V_BACK_PORCH", 0x204, 0xfff),
    ("V_DATA", 0x208, 0xfff),
    ("V_FRONT_PORCH", 0x20c, 0xfff),
    ("H_SYNC", 0x210, 0xfff),
    ("H_BACK_PORCH", 0x214, 0xfff),
    ("H_DATA", 0x218, 0xfff),
    ("H_FRONT_PORCH", 0x21c, 0xfff),
    ("POLARITIES", 0x220, 0x1f),
    ("COMMAND", reg::COMMAND, 0x1),
    ("PIXEL_FORMAT", 0x240, 0x8000_0018),
    ("RED_SELECT", 0x244, 0x00ff_0f1f),
    ("GREEN_SELECT", 0x248, 0x00ff_0f1f),
    ("BLUE_SELECT", 0x24c, 0x00ff_0f1f),
];

/// Places in [`KEPT`].
pub(crate) mod kept {
    pub(crate) const BASE: usize = 0;
    pub(crate) const PITCH: usize = 3;
    /// V_SYNC; back porch, data and front porch follow, then the same of a line.
    pub(crate) const V_SYNC: usize = 5;
    pub(crate) const V_DATA: usize = 7;
    pub(crate) const H_SYNC: usize = 9;
    pub(crate) const H_DATA: usize = 11;
    pub(crate) const H_FRONT: usize = 12;
    pub(crate) const COMMAND: usize = 14;
    pub(crate) const FORMAT: usize = 15;
    pub(crate) const RED: usize = 16;
}

/// Index of INT_MASK's shadow; those of [`KEPT`] come before it.
pub(crate) const MASK_SHADOW: u16 = KEPT.len() as u16;

/// The output pin.
pub(crate) const IRQ: u32 = 0;
/// The port for what the screen is: messages as [`reprise_device::screen`] has them.
pub(crate) const SCREEN: u32 = 0;
/// The timer: an interrupt that is not masked is due.
pub(crate) const FRAME: u32 = 0;

pub(crate) fn spec() -> PluginSpec {
    let register = |(i, (name, offset, _)): (usize, &Kept)| {
        Register::rw(name, *offset, 0, "DUI 0604 4.3").shadow(i as u16).stored()
    };
    let shadows: Vec<(&str, u64)> = KEPT.iter().map(|(name, ..)| (*name, 0)).chain([("INT_MASK", 0)]).collect();
    PluginSpec::new(Hdlcd::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            Register::ro("VERSION", reg::VERSION, VERSION.into(), "DUI 0604 4.3.1").constant(),
            // They depend on the time.
            Register::rw("INT_RAWSTAT", reg::INT_RAWSTAT, 0, "DUI 0604 4.3.2"),
            Register::wo("INT_CLEAR", reg::INT_CLEAR, "DUI 0604 4.3.2"),
            Register::rw("INT_MASK", reg::INT_MASK, 0, "DUI 0604 4.3.2").shadow(MASK_SHADOW).stored(),
            Register::ro("INT_STATUS", reg::INT_STATUS, 0, "DUI 0604 4.3.2"),
        ])
        .registers(KEPT.iter().enumerate().map(register))
        .shadows(&shadows)
        .outputs(&["irq"])
        .port("screen", Direction::Out)
        .timers(1)
}
