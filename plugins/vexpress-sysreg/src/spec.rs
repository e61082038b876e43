//! What the system registers look like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register};

use crate::{Config, Sysreg};

/// Register offsets (DUI 0447 table 4-3).
pub(crate) mod reg {
    pub(crate) const LED: u64 = 0x08;
    pub(crate) const LOCK: u64 = 0x20;
    pub(crate) const FLAGS: u64 = 0x30;
    pub(crate) const FLAGSCLR: u64 = 0x34;
    pub(crate) const NVFLAGS: u64 = 0x38;
    pub(crate) const NVFLAGSCLR: u64 = 0x3c;
    pub(crate) const MCI: u64 = 0x48;
    pub(crate) const FLASH: u64 = 0x4c;
    pub(crate) const CFGSW: u64 = 0x58;
    pub(crate) const MISC: u64 = 0x60;
    pub(crate) const DMA: u64 = 0x64;
    pub(crate) const CFGDATA: u64 = 0xa0;
    pub(crate) const CFGCTRL: u64 = 0xa4;
    pub(crate) const CFGSTAT: u64 = 0xa8;
}

/// SYS_MISC (DUI 0447 4.3.11).
pub(crate) mod misc {
    /// The master site is in site 2. Read-only.
    pub(crate) const MASTER_SITE_2: u32 = 1 << 14;
    pub(crate) const WRITABLE: u32 = !MASTER_SITE_2;
}

/// SYS_CFGCTRL (DUI 0447 4.3.16).
pub(crate) mod cfgctrl {
    pub(crate) const START: u32 = 1 << 31;
    pub(crate) const WRITE: u32 = 1 << 30;
    /// DCC 29:26, function 25:20, site 17:16, position 15:12, device 11:0.
    pub(crate) const ADDRESS: u32 = 0x3ff3_ffff;
}

/// SYS_CFGSTAT (DUI 0447 4.3.17).
pub(crate) mod cfgstat {
    pub(crate) const COMPLETE: u32 = 1;
    pub(crate) const ERROR: u32 = 2;
}

/// Functions of SYS_CFGCTRL (DUI 0447 table 4-19).
pub(crate) mod function {
    pub(crate) const OSC: u32 = 1;
    pub(crate) const VOLT: u32 = 2;
    pub(crate) const AMP: u32 = 3;
    pub(crate) const TEMP: u32 = 4;
    pub(crate) const RESET: u32 = 5;
    pub(crate) const SCC: u32 = 6;
    pub(crate) const MUXFPGA: u32 = 7;
    pub(crate) const SHUTDOWN: u32 = 8;
    pub(crate) const REBOOT: u32 = 9;
    pub(crate) const DVIMODE: u32 = 11;
    pub(crate) const POWER: u32 = 12;
    pub(crate) const ENERGY: u32 = 13;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const LED: u16 = 0;
    pub(crate) const LOCK: u16 = 1;
    pub(crate) const FLAGS: u16 = 2;
    pub(crate) const NVFLAGS: u16 = 3;
    pub(crate) const MCI: u16 = 4;
    pub(crate) const FLASH: u16 = 5;
    pub(crate) const CFGSW: u16 = 6;
    pub(crate) const MISC: u16 = 7;
    pub(crate) const DMA: u16 = 8;
    pub(crate) const CFGDATA: u16 = 9;
    pub(crate) const CFGCTRL: u16 = 10;
    pub(crate) const CFGSTAT: u16 = 11;
}

/// Input pins, from the memory card's slot; the other one is `card_protected`.
pub(crate) mod input {
    pub(crate) const CARD_PRESENT: u32 = 0;
}

/// Output pins.
pub(crate) mod output {
    pub(crate) const POWEROFF: u32 = 0;
    pub(crate) const RESET: u32 = 1;
}

/// SYS_LOCK after reset: locked.
const LOCKED: u64 = 1 << 16;

/// SYS_MISC after reset.
pub(crate) fn misc_reset(cfg: &Config) -> u32 {
    if cfg.master_site == 2 { misc::MASTER_SITE_2 } else { 0 }
}

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let ro = |name, offset, reset: u64, section| Register::ro(name, offset, reset, section).sizes(7);
    let rw = |name, offset, reset: u64, shadow: u16, section| {
        Register::rw(name, offset, reset, section).sizes(7).shadow(shadow).posted(&[shadow])
    };
    let clear = |name, offset, shadow: u16, section| Register::wo(name, offset, section).sizes(7).posted(&[shadow]);
    let (cfgsw, misc) = (u64::from(cfg.cfgsw), u64::from(misc_reset(cfg)));
    PluginSpec::new(Sysreg::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            ro("SYS_ID", 0x00, cfg.id.into(), "DUI 0447 4.3.1").constant(),
            ro("SYS_SW", 0x04, cfg.switches.into(), "DUI 0447 4.3.2").constant(),
            rw("SYS_LED", reg::LED, 0, shadow::LED, "DUI 0447 4.3.3"),
            rw("SYS_LOCK", reg::LOCK, LOCKED, shadow::LOCK, "DUI 0225 4.1.3"),
            ro("SYS_100HZ", 0x24, 0, "DUI 0447 4.3.4").clock(100),
            // One register to read, and two addresses that set and clear its bits.
            rw("SYS_FLAGS", reg::FLAGS, 0, shadow::FLAGS, "DUI 0447 4.3.5"),
            clear("SYS_FLAGSCLR", reg::FLAGSCLR, shadow::FLAGS, "DUI 0447 4.3.5"),
            rw("SYS_NVFLAGS", reg::NVFLAGS, 0, shadow::NVFLAGS, "DUI 0447 4.3.5"),
            clear("SYS_NVFLAGSCLR", reg::NVFLAGSCLR, shadow::NVFLAGS, "DUI 0447 4.3.5"),
            ro("SYS_MCI", reg::MCI, 0, "DUI 0447 4.3.6").shadow(shadow::MCI),
            rw("SYS_FLASH", reg::FLASH, 0, shadow::FLASH, "DUI 0447 4.3.7"),
            rw("SYS_CFGSW", reg::CFGSW, cfgsw, shadow::CFGSW, "DUI 0447 4.3.8"),
            ro("SYS_24MHZ", 0x5c, 0, "DUI 0447 4.3.10").clock(24_000_000),
            rw("SYS_MISC", reg::MISC, misc, shadow::MISC, "DUI 0447 4.3.11"),
            rw("SYS_DMA", reg::DMA, 0, shadow::DMA, "DUI 0447 4.3.12"),
            ro("SYS_PROCID0", 0x84, cfg.procid.0.into(), "DUI 0447 4.3.13").constant(),
            ro("SYS_PROCID1", 0x88, cfg.procid.1.into(), "DUI 0447 4.3.14").constant(),
            rw("SYS_CFGDATA", reg::CFGDATA, 0, shadow::CFGDATA, "DUI 0447 4.3.15"),
            Register::rw("SYS_CFGCTRL", reg::CFGCTRL, 0, "DUI 0447 4.3.16").sizes(7).shadow(shadow::CFGCTRL),
            rw("SYS_CFGSTAT", reg::CFGSTAT, 0, shadow::CFGSTAT, "DUI 0447 4.3.17"),
        ])
        .shadows(&[
            ("SYS_LED", 0),
            ("SYS_LOCK", LOCKED),
            ("SYS_FLAGS", 0),
            ("SYS_NVFLAGS", 0),
            ("SYS_MCI", 0),
            ("SYS_FLASH", 0),
            ("SYS_CFGSW", cfgsw),
            ("SYS_MISC", misc),
            ("SYS_DMA", 0),
            ("SYS_CFGDATA", 0),
            ("SYS_CFGCTRL", 0),
            ("SYS_CFGSTAT", 0),
        ])
        .inputs(&["card_present", "card_protected"])
        .outputs(&["poweroff", "reset"])
}
