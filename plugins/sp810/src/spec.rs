//! What the SP810 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register, primecell_ids};

use crate::{Config, Sp810};

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const CTRL: u64 = 0x00;
    pub(crate) const PEREN0: u64 = 0x24;
    pub(crate) const PERDIS0: u64 = 0x28;
    pub(crate) const PERCLKEN0: u64 = 0x2c;
    pub(crate) const PERSTAT0: u64 = 0x30;
    pub(crate) const PEREN1: u64 = 0x34;
    pub(crate) const PERDIS1: u64 = 0x38;
    pub(crate) const PERCLKEN1: u64 = 0x3c;
    pub(crate) const PERSTAT1: u64 = 0x40;
}

/// SCCTRL (TRM 3.3.1).
pub(crate) mod sysctl {
    /// Mode, remap, timer and watchdog controls; the status bits 6:3 and 9 cannot be written.
    pub(crate) const WRITABLE: u32 = 0x00ff_8107;
    /// Doze mode.
    pub(crate) const RESET: u32 = 1;
    /// Bit that selects TIMCLK for timer 0; the other timers' follow two bits apart.
    pub(crate) const TIMER0_SELECT: u32 = 15;
}

/// Registers that only hold what was written: name, offset, bits, section.
pub(crate) const STORED: [(&str, u64, u32, &str); 8] = [
    ("SCSYSSTAT", 0x04, 0, "DDI 0254 3.3.2"),
    ("SCIMCTRL", 0x08, 0x8f, "DDI 0254 3.3.3"),
    ("SCIMSTAT", 0x0c, 1, "DDI 0254 3.3.4"),
    ("SCXTALCTRL", 0x10, 0x7_fffb, "DDI 0254 3.3.5"),
    ("SCPLLCTRL", 0x14, 0x0fff_fffb, "DDI 0254 3.3.6"),
    ("SCPLLFCTRL", 0x18, u32::MAX, "DDI 0254 3.3.7"),
    ("SCPERCTRL0", 0x1c, u32::MAX, "DDI 0254 3.3.8"),
    ("SCPERCTRL1", 0x20, u32::MAX, "DDI 0254 3.3.9"),
];

/// Index of the first stored register's shadow: SCCTRL and the two clock enables come before.
const FIRST_STORED: u16 = 3;

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let ctrl = u64::from(sysctl::RESET) | 1 << 3;
    let enable = |name, offset, shadow: u16| Register::wo(name, offset, "DDI 0254 3.3.10").posted(&[shadow]);
    let clocks = |name, offset, shadow: u16| Register::ro(name, offset, 0, "DDI 0254 3.3.11").shadow(shadow);
    let stored = STORED.iter().enumerate().map(|(i, &(name, offset, _, section))| {
        let shadow = FIRST_STORED + i as u16;
        Register::rw(name, offset, 0, section).shadow(shadow).posted(&[shadow])
    });
    let sysid = |(i, &id): (usize, &u8)| {
        Register::ro(&format!("SCSYSID{i}"), 0xee0 + 4 * i as u64, id.into(), "DDI 0254 3.3.12").constant()
    };
    let mut shadows = vec![("SCCTRL", ctrl), ("SCPERCLKEN0", 0), ("SCPERCLKEN1", 0)];
    shadows.extend(STORED.iter().map(|r| (r.0, 0)));
    PluginSpec::new(Sp810::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([Register::rw("SCCTRL", reg::CTRL, ctrl, "DDI 0254 3.3.1").shadow(0)])
        .registers([
            enable("SCPEREN0", reg::PEREN0, 1),
            enable("SCPERDIS0", reg::PERDIS0, 1),
            enable("SCPEREN1", reg::PEREN1, 2),
            enable("SCPERDIS1", reg::PERDIS1, 2),
            clocks("SCPERCLKEN0", reg::PERCLKEN0, 1),
            clocks("SCPERSTAT0", reg::PERSTAT0, 1),
            clocks("SCPERCLKEN1", reg::PERCLKEN1, 2),
            clocks("SCPERSTAT1", reg::PERSTAT1, 2),
        ])
        .registers(stored)
        .registers(cfg.sysid.iter().enumerate().map(sysid))
        .registers(primecell_ids("SC", [0x10, 0x18, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0254 3.3.13"))
        .shadows(&shadows)
        .outputs(&["refclk0", "refclk1", "refclk2", "refclk3"])
}
