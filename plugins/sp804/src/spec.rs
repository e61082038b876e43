//! What the SP804 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register, primecell_ids};

use crate::Sp804;

/// Register offsets in each timer, the second of which begins at 0x20 (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const LOAD: u64 = 0x00;
    pub(crate) const VALUE: u64 = 0x04;
    pub(crate) const CONTROL: u64 = 0x08;
    pub(crate) const INTCLR: u64 = 0x0c;
    pub(crate) const RIS: u64 = 0x10;
    pub(crate) const MIS: u64 = 0x14;
    pub(crate) const BGLOAD: u64 = 0x18;
}

/// Bits of the control register (TRM 3.3.3).
pub(crate) mod ctrl {
    pub(crate) const ONE_SHOT: u32 = 1;
    pub(crate) const WIDE: u32 = 1 << 1;
    pub(crate) const INT: u32 = 1 << 5;
    pub(crate) const PERIODIC: u32 = 1 << 6;
    pub(crate) const ENABLE: u32 = 1 << 7;
    pub(crate) const MASK: u32 = 0xef;
    /// Interrupt enabled, all else off.
    pub(crate) const RESET: u32 = 0x20;
}

/// Output pins (TRM A.2).
pub(crate) mod output {
    /// Either timer.
    pub(crate) const IRQ: u32 = 0;
    /// The first timer; the second's pin follows.
    pub(crate) const IRQ1: u32 = 1;
}

pub(crate) fn spec() -> PluginSpec {
    let timer = |n: u64| {
        let name = |what: &str| format!("Timer{n}{what}");
        let at = |offset| 0x20 * (n - 1) + offset;
        [
            Register::rw(&name("Load"), at(reg::LOAD), 0, "DDI 0271 3.3.1").sizes(7),
            Register::ro(&name("Value"), at(reg::VALUE), 0xffff_ffff, "DDI 0271 3.3.2").sizes(4),
            Register::rw(&name("Control"), at(reg::CONTROL), ctrl::RESET.into(), "DDI 0271 3.3.3").sizes(7),
            Register::wo(&name("IntClr"), at(reg::INTCLR), "DDI 0271 3.3.4").sizes(7),
            Register::ro(&name("RIS"), at(reg::RIS), 0, "DDI 0271 3.3.5").sizes(7),
            Register::ro(&name("MIS"), at(reg::MIS), 0, "DDI 0271 3.3.6").sizes(7),
            Register::rw(&name("BGLoad"), at(reg::BGLOAD), 0, "DDI 0271 3.3.7").sizes(7),
        ]
    };
    PluginSpec::new(Sp804::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers(timer(1))
        .registers(timer(2))
        .registers(primecell_ids("Timer", [0x04, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0271 3.3.8"))
        .inputs(&["refclk1", "refclk2"])
        .outputs(&["irq", "irq1", "irq2"])
        .timers(2)
}
