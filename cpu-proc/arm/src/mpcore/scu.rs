//! The snoop control unit's registers (TRM DDI 0407 chapter 2). Coherency itself is a matter of course here.

use serde::{Deserialize, Serialize};

const CONTROL: u32 = 0x00;
const CONFIG: u32 = 0x04;
/// CPU Power Status: a byte for each core.
pub(super) const POWER: u32 = 0x08;
const FILTER_START: u32 = 0x40;
const FILTER_END: u32 = 0x44;
const ACCESS: u32 = 0x50;
const NS_ACCESS: u32 = 0x54;

/// Snoop control unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scu {
    /// SCU Control Register.
    pub control: u32,
    /// SCU CPU Power Status Register.
    pub power: u32,
    /// Filtering Start and End Address Registers.
    pub filter: [u32; 2],
    /// SCU Access Control Register: which cores may write these registers.
    pub access: u32,
    /// SCU Non-secure Access Control Register: which cores may in Non-secure state use these registers (bits 3:0), their private timers (7:4), the
    /// global timer (11:8).
    pub ns_access: u32,
    /// How many cores there are (configuration).
    pub cpus: u32,
}

impl Scu {
    pub(super) fn reset(cpus: usize) -> Scu {
        Scu { control: 0, power: 0, filter: [0; 2], access: 0xf, ns_access: 0, cpus: cpus as u32 }
    }

    /// Tag RAMs of 32 KiB caches, every core in SMP mode (which the SCU would learn from the cores), and the number of cores.
    fn config(&self) -> u32 {
        let n = self.cpus;
        let tags = (0..n).fold(0, |v, i| v | 1 << (2 * i));
        tags << 8 | ((1 << n) - 1) << 4 | (n - 1)
    }

    /// Power states that a core can be in: the byte's two low bits.
    fn power_mask(&self) -> u32 {
        (0..self.cpus).fold(0, |v, i| v | 3 << (8 * i))
    }

    /// Core `cpu` may use its private timers (`private`) or the global timer.
    pub(super) fn allows(&self, cpu: usize, secure: bool, private: bool) -> bool {
        secure || self.ns_access >> (cpu + if private { 4 } else { 8 }) & 1 != 0
    }

    pub(super) fn read(&self, offset: u32) -> u32 {
        match offset {
            CONTROL => self.control,
            CONFIG => self.config(),
            POWER => self.power,
            FILTER_START => self.filter[0],
            FILTER_END => self.filter[1],
            ACCESS => self.access,
            NS_ACCESS => self.ns_access,
            // Invalidate All Registers in Secure State and the reserved ones.
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, cpu: usize, secure: bool, offset: u32, value: u32) {
        let allowed = self.access >> cpu & 1 != 0 && (secure || self.ns_access >> cpu & 1 != 0);
        if !allowed {
            return;
        }
        match offset {
            // Enable, address filtering, parity, speculative linefills, all to port 0, standby of SCU and interrupt controller.
            CONTROL => self.control = value & 0x7f,
            POWER => self.power = value & self.power_mask(),
            FILTER_START => self.filter[0] = value & 0xfff0_0000,
            FILTER_END => self.filter[1] = value & 0xfff0_0000,
            ACCESS => self.access = value & 0xf,
            NS_ACCESS if secure => self.ns_access = value & 0xfff,
            _ => {}
        }
    }
}
