//! What the SP805 looks like from outside.

use reprise_device::spec::{PluginSpec, Register, primecell_ids};
use reprise_device::{Device, Event, bus};

use crate::Sp805;

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const LOAD: u64 = 0x000;
    pub(crate) const VALUE: u64 = 0x004;
    pub(crate) const CONTROL: u64 = 0x008;
    pub(crate) const INTCLR: u64 = 0x00c;
    pub(crate) const RIS: u64 = 0x010;
    pub(crate) const MIS: u64 = 0x014;
    pub(crate) const LOCK: u64 = 0xc00;
}

/// Bits of the control register (TRM 3.3.3).
pub(crate) mod ctrl {
    pub(crate) const INTEN: u32 = 1;
    pub(crate) const RESEN: u32 = 2;
    pub(crate) const MASK: u32 = 3;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const LOAD: u16 = 0;
    pub(crate) const CONTROL: u16 = 1;
    pub(crate) const LOCK: u16 = 2;
}

/// Output pins.
pub(crate) mod output {
    pub(crate) const IRQ: u32 = 0;
    pub(crate) const RESET: u32 = 1;
}

/// Whether cpu-proc could have answered the access by itself: such a read leaves no trace in the state.
pub(crate) fn is_shadow_read(event: Event<'_>) -> bool {
    matches!(event, Event::Read { offset, .. } if matches!(bus::word(offset), reg::LOAD | reg::CONTROL | reg::LOCK))
}

pub(crate) fn spec() -> PluginSpec {
    PluginSpec::new(Sp805::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            Register::rw("WdogLoad", reg::LOAD, 0xffff_ffff, "DDI 0270 3.3.1").shadow(shadow::LOAD),
            Register::ro("WdogValue", reg::VALUE, 0xffff_ffff, "DDI 0270 3.3.2"),
            Register::rw("WdogControl", reg::CONTROL, 0, "DDI 0270 3.3.3").shadow(shadow::CONTROL),
            Register::wo("WdogIntClr", reg::INTCLR, "DDI 0270 3.3.4"),
            Register::ro("WdogRIS", reg::RIS, 0, "DDI 0270 3.3.5"),
            Register::ro("WdogMIS", reg::MIS, 0, "DDI 0270 3.3.6"),
            Register::rw("WdogLock", reg::LOCK, 0, "DDI 0270 3.3.7").shadow(shadow::LOCK).posted(&[shadow::LOCK]),
        ])
        .registers(primecell_ids("Wdog", [0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0270 3.3.8"))
        .shadows(&[("WdogLoad", 0xffff_ffff), ("WdogControl", 0), ("WdogLock", 0)])
        .outputs(&["irq", "reset"])
        .timers(1)
}
