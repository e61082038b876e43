//! The long-descriptor translation table walk of the Large Physical Address Extension (ARM DDI 0406C B3.6, `TranslationTableWalkLD`
//! in B3.19.6): three levels of 64-bit descriptors, 40-bit physical addresses, no domains.
//!
//! NS and NSTable bits are ignored, as everywhere in this core, and so is the contiguous hint.

use super::Access;
use super::attr::Attr;
use super::fault::FaultKind;
use super::walk::{Leaf, Regime, Rights, SCTLR_EE, Size};
use crate::bus::GuestRam;

/// TTBCR.EAE: long descriptors.
pub const TTBCR_EAE: u32 = 1 << 31;
/// TTBCR.A1: TTBR1 holds the ASID.
pub const TTBCR_A1: u32 = 1 << 22;
/// TTBCR.EPD0 and EPD1: no walks through TTBR0, TTBR1.
const TTBCR_EPD: [u32; 2] = [1 << 7, 1 << 23];

/// Output and table addresses: bits 39:12.
const ADDRESS: u64 = 0xff_ffff_f000;
const PXN: u64 = 1 << 53;
const XN: u64 = 1 << 54;
const TABLE_PXN: u64 = 1 << 59;
const TABLE_XN: u64 = 1 << 60;
const TABLE_NO_USER: u64 = 1 << 61;
const TABLE_READ_ONLY: u64 = 1 << 62;
const AP_USER: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const AF: u64 = 1 << 10;
const NG: u64 = 1 << 11;

/// Where a walk begins: the first table and the level of its descriptors, and how many bits of the address are beyond what it maps.
struct Start {
    table: u64,
    level: u8,
    unused: u32,
}

impl Regime {
    /// This regime has long descriptors.
    pub fn is_long(&self) -> bool {
        self.ttbcr & TTBCR_EAE != 0
    }

    /// The table for `va` by TTBCR.T0SZ and T1SZ (B3.6.4); `None` if neither TTBR serves it or its walks are disabled.
    fn long_start(&self, va: u32) -> Option<Start> {
        let (t0, t1) = (self.ttbcr & 7, self.ttbcr >> 16 & 7);
        let low = t0 == 0 || va >> (32 - t0) == 0;
        let high = t1 > 0 && !va >> (32 - t1) == 0 || t1 == 0 && !low;
        let (ttbr, size, epd) = match (high, low) {
            (true, _) => (self.ttbr1, t1, TTBCR_EPD[1]),
            (_, true) => (self.ttbr0, t0, TTBCR_EPD[0]),
            _ => return None,
        };
        if self.ttbcr & epd != 0 {
            return None;
        }
        let level = if size < 2 { 1 } else { 2 };
        // The lowest bit of the base address; those below are UNPREDICTABLE if set, ignored here.
        let lowest = 9 * u32::from(level) - size - 4;
        Some(Start { table: ttbr & 0xff_ffff_ffff & !((1 << lowest) - 1), level, unused: size })
    }

    /// The walk proper. Long descriptors have no domains: an error names domain 0.
    pub(super) fn walk_long(&self, ram: &GuestRam, va: u32) -> Result<Leaf, (FaultKind, u8)> {
        let start = self.long_start(va).ok_or((FaultKind::Translation(1), 0))?;
        let (mut table, mut above) = (start.table, 0);
        // The first table's index leaves out the bits that T0SZ or T1SZ takes away.
        let mut index = u64::from(va) & (0xffff_ffff >> start.unused);
        for level in start.level..=3 {
            let shift = 39 - 9 * u32::from(level);
            let d = self.long_descriptor(ram, table | index >> shift << 3, level)?;
            match d & 3 {
                3 if level < 3 => {
                    table = d & ADDRESS;
                    above |= d;
                    index = u64::from(va) & ((1 << shift) - 1);
                }
                3 => return self.long_leaf(va, d, above, level),
                1 if level < 3 => return self.long_leaf(va, d, above, level),
                _ => return Err((FaultKind::Translation(level), 0)),
            }
        }
        unreachable!("level 3 ends every walk")
    }

    fn long_descriptor(&self, ram: &GuestRam, pa: u64, level: u8) -> Result<u64, (FaultKind, u8)> {
        let mut bytes = [0; 8];
        ram.read(pa, &mut bytes).ok_or((FaultKind::WalkExternal(level), 0))?;
        Ok(if self.sctlr & SCTLR_EE != 0 { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    /// The leaf of a block or page descriptor; `above` has the restrictions of all table descriptors on the way (B3.6.1).
    fn long_leaf(&self, va: u32, d: u64, above: u64, level: u8) -> Result<Leaf, (FaultKind, u8)> {
        if d & AF == 0 {
            return Err((FaultKind::AccessFlag(level), 0));
        }
        let size = match level {
            1 => Size::Gib,
            2 => Size::Double,
            _ => Size::Small,
        };
        let low = (1u64 << size.shift()) - 1;
        let user = d & AP_USER != 0 && above & TABLE_NO_USER == 0;
        let write = d & AP_READ_ONLY == 0 && above & TABLE_READ_ONLY == 0;
        let xn = d & XN != 0 || above & TABLE_XN != 0;
        let pxn = d & PXN != 0 || above & TABLE_PXN != 0;
        let (user, privileged) = self.execute_rights((user, user && write, true, write), xn, pxn);
        Ok(Leaf {
            pa: d & ADDRESS & !low | u64::from(va) & low,
            size,
            level,
            domain: 0,
            global: d & NG == 0,
            attr: self.long_attr(d),
            user,
            privileged,
        })
    }

    /// AttrIndx through MAIR0 and MAIR1 (which share their places with PRRR and NMRR), and SH.
    fn long_attr(&self, d: u64) -> Attr {
        let n = d >> 2 & 7;
        let mair = if n < 4 { self.prrr } else { self.nmrr };
        Attr::long((mair >> (8 * (n & 3))) as u8, (d >> 8 & 3) as u8)
    }

    /// Rights of an access in long format: there is no domain to ask.
    pub(super) fn long_rights(leaf: &Leaf, access: Access, user: bool) -> Result<Rights, FaultKind> {
        let rights = if user { leaf.user } else { leaf.privileged };
        if rights.allow(access) { Ok(rights) } else { Err(FaultKind::Permission(leaf.level)) }
    }
}
