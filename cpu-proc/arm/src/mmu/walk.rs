//! The short-descriptor translation table walk (ARM DDI 0406C B3.5, `TranslationTableWalkSD` in B3.19.6).
//!
//! A walk knows nothing of the TLB and has no side effect. It yields a [`Leaf`] with the rights of both privilege levels, and so
//! does the long-descriptor walk in `long.rs`.

use super::attr::Attr;
use super::fault::{Abort, FaultKind};
use super::{Access, MemType};
use crate::bus::GuestRam;
use crate::cp15::Cp15;

/// SCTLR.M: MMU on.
pub const SCTLR_M: u32 = 1 << 0;
/// SCTLR.A: alignment checks on.
pub const SCTLR_A: u32 = 1 << 1;
/// SCTLR.WXN: writable implies execute-never.
pub const SCTLR_WXN: u32 = 1 << 19;
/// SCTLR.UWXN: writable by User implies execute-never for PL1.
pub const SCTLR_UWXN: u32 = 1 << 20;
/// SCTLR.EE: big-endian translation tables (and data after exception entry).
pub const SCTLR_EE: u32 = 1 << 25;
/// SCTLR.TRE: TEX remap.
pub const SCTLR_TRE: u32 = 1 << 28;
/// SCTLR.AFE: AP\[0\] is the access flag.
pub const SCTLR_AFE: u32 = 1 << 29;

/// How much of the address space one descriptor maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// 4 KiB.
    Small = 0,
    /// 64 KiB.
    Large = 1,
    /// 1 MiB.
    Section = 2,
    /// 16 MiB.
    Super = 3,
    /// 2 MiB: a block of the second level of long descriptors.
    Double = 4,
    /// 1 GiB: a block of the first level of long descriptors.
    Gib = 5,
}

impl Size {
    /// Every size, at the place of its number.
    pub const ALL: [Size; 6] = [Size::Small, Size::Large, Size::Section, Size::Super, Size::Double, Size::Gib];

    /// log2 of the size in bytes.
    pub const fn shift(self) -> u32 {
        match self {
            Size::Small => 12,
            Size::Large => 16,
            Size::Section => 20,
            Size::Super => 24,
            Size::Double => 21,
            Size::Gib => 30,
        }
    }
}

/// Rights of one privilege level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// May load.
    pub r: bool,
    /// May store.
    pub w: bool,
    /// May fetch instructions.
    pub x: bool,
}

impl Rights {
    /// All of them.
    pub const ALL: Rights = Rights { r: true, w: true, x: true };

    /// Whether `access` is among them.
    pub fn allow(self, access: Access) -> bool {
        match access {
            Access::Read => self.r,
            Access::Write => self.w,
            Access::Exec => self.x,
        }
    }
}

/// Result of a walk: one descriptor that maps the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of `va`.
    pub pa: u64,
    /// Extent of the mapping.
    pub size: Size,
    /// Level of the descriptor: 1 or 2, in the long format up to 3.
    pub level: u8,
    /// Domain; 0 in the long format, which has none.
    pub domain: u8,
    /// Not restricted to one ASID.
    pub global: bool,
    /// Attributes.
    pub attr: Attr,
    /// User's rights, as the descriptor gives them to a client of its domain.
    pub user: Rights,
    /// PL1's rights.
    pub privileged: Rights,
}

/// The registers that control translation in one security state.
#[derive(Debug, Clone, Copy)]
pub struct Regime {
    /// SCTLR.
    pub sctlr: u32,
    /// TTBR0.
    pub ttbr0: u64,
    /// TTBR1.
    pub ttbr1: u64,
    /// TTBCR.
    pub ttbcr: u32,
    /// DACR.
    pub dacr: u32,
    /// PRRR, in the long format MAIR0.
    pub prrr: u32,
    /// NMRR, in the long format MAIR1.
    pub nmrr: u32,
}

impl Regime {
    /// The regime of the Secure (`bank` 0) or Non-secure (1) state.
    pub fn of(c: &Cp15, bank: usize) -> Regime {
        Regime {
            sctlr: c.sctlr[bank],
            ttbr0: c.ttbr0[bank],
            ttbr1: c.ttbr1[bank],
            ttbcr: c.ttbcr[bank],
            dacr: c.dacr[bank],
            prrr: c.prrr[bank],
            nmrr: c.nmrr[bank],
        }
    }

    /// Translates `va` for `access` with User's or PL1's rights: walk, then domain, then permissions.
    ///
    /// # Errors
    /// The fault, with its level and domain.
    pub fn translate(&self, ram: &GuestRam, va: u32, access: Access, user: bool) -> Result<(Leaf, Rights), Abort> {
        if self.sctlr & SCTLR_M == 0 {
            return Ok((self.flat(va, access), Rights::ALL));
        }
        let write = access == Access::Write;
        let walk = if self.is_long() { self.walk_long(ram, va) } else { self.walk_short(ram, va) };
        let leaf = walk.map_err(|(kind, domain)| Abort { kind, va, domain, write })?;
        let fault = |kind| Abort { kind, va, domain: leaf.domain, write };
        if self.is_long() {
            let rights = Regime::long_rights(&leaf, access, user).map_err(fault)?;
            return Ok((leaf, rights));
        }
        let rights = match self.dacr >> (2 * leaf.domain) & 3 {
            3 => Rights::ALL,
            1 if user => leaf.user,
            1 => leaf.privileged,
            // 0b10 is reserved, UNPREDICTABLE: no access.
            _ => return Err(fault(FaultKind::Domain(leaf.level))),
        };
        if rights.allow(access) { Ok((leaf, rights)) } else { Err(fault(FaultKind::Permission(leaf.level))) }
    }

    /// MMU off: identity, data Strongly-ordered, instructions Normal (B3.2.1).
    fn flat(&self, va: u32, access: Access) -> Leaf {
        let mut attr = Attr::STRONGLY_ORDERED;
        if access == Access::Exec {
            attr.mem = MemType::Normal;
        }
        Leaf {
            pa: u64::from(va),
            size: Size::Small,
            level: 1,
            domain: 0,
            global: true,
            attr,
            user: Rights::ALL,
            privileged: Rights::ALL,
        }
    }

    /// Reads one descriptor; the bus does not serve table walks, so a table outside RAM is an external abort.
    fn descriptor(&self, ram: &GuestRam, pa: u64, level: u8, domain: u8) -> Result<u32, (FaultKind, u8)> {
        let mut bytes = [0; 4];
        ram.read(pa, &mut bytes).ok_or((FaultKind::WalkExternal(level), domain))?;
        Ok(if self.sctlr & SCTLR_EE != 0 { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Address of the first-level descriptor, `None` if TTBCR.PD0/PD1 forbids the walk (B3.5.4).
    fn level1(&self, va: u32) -> Option<u64> {
        let n = self.ttbcr & 7;
        if n != 0 && va >> (32 - n) != 0 {
            let base = self.ttbr1 as u32 & !0x3fff;
            return (self.ttbcr & 1 << 5 == 0).then_some(u64::from(base | va >> 20 << 2));
        }
        let base = self.ttbr0 as u32 & !((1 << (14 - n)) - 1);
        (self.ttbcr & 1 << 4 == 0).then_some(u64::from(base | va >> 20 << 2))
    }

    /// The walk proper. An error carries the domain where it is known.
    fn walk_short(&self, ram: &GuestRam, va: u32) -> Result<Leaf, (FaultKind, u8)> {
        let at = self.level1(va).ok_or((FaultKind::Translation(1), 0))?;
        let l1 = self.descriptor(ram, at, 1, 0)?;
        let domain = (l1 >> 5 & 0xf) as u8;
        match l1 & 3 {
            0 => Err((FaultKind::Translation(1), 0)),
            1 => {
                let table = u64::from(l1 & !0x3ff);
                let l2 = self.descriptor(ram, table | u64::from(va >> 12 & 0xff) << 2, 2, domain)?;
                self.page(va, l2, domain, l1 & 1 << 2 != 0)
            }
            _ => self.section(va, l1, domain),
        }
    }

    fn section(&self, va: u32, d: u32, domain: u8) -> Result<Leaf, (FaultKind, u8)> {
        let (size, base, domain) = if d & 1 << 18 != 0 {
            let high = u64::from(d >> 20 & 0xf) << 32 | u64::from(d >> 5 & 0xf) << 36;
            (Size::Super, u64::from(d & 0xff00_0000) | high, 0)
        } else {
            (Size::Section, u64::from(d & 0xfff0_0000), domain)
        };
        let ap = d >> 10 & 3 | (d >> 15 & 1) << 2;
        let bits =
            Bits { ap, xn: d & 1 << 4 != 0, pxn: d & 1 != 0, tex: d >> 12 & 7, s: d & 1 << 16 != 0, ng: d >> 17 };
        self.leaf(va, d, base, size, domain, bits)
    }

    fn page(&self, va: u32, d: u32, domain: u8, pxn: bool) -> Result<Leaf, (FaultKind, u8)> {
        let (size, base, xn, tex) = match d & 3 {
            0 => return Err((FaultKind::Translation(2), domain)),
            1 => (Size::Large, d & 0xffff_0000, d & 1 << 15 != 0, d >> 12 & 7),
            _ => (Size::Small, d & 0xffff_f000, d & 1 != 0, d >> 6 & 7),
        };
        let ap = d >> 4 & 3 | (d >> 9 & 1) << 2;
        let bits = Bits { ap, xn, pxn, tex, s: d & 1 << 10 != 0, ng: d >> 11 };
        self.leaf(va, d, u64::from(base), size, domain, bits)
    }

    /// What sections and pages have in common: access flag, rights, attributes.
    fn leaf(&self, va: u32, d: u32, base: u64, size: Size, domain: u8, b: Bits) -> Result<Leaf, (FaultKind, u8)> {
        let level = if size.shift() < Size::Section.shift() { 2 } else { 1 };
        if self.sctlr & SCTLR_AFE != 0 && b.ap & 1 == 0 {
            return Err((FaultKind::AccessFlag(level), domain));
        }
        let (user, privileged) = self.rights(b.ap, b.xn, b.pxn);
        let (c, bb) = (d & 8 != 0, d & 4 != 0);
        let attr = if self.sctlr & SCTLR_TRE != 0 {
            Attr::remapped(b.tex, c, bb, b.s, self.prrr, self.nmrr)
        } else {
            Attr::plain(b.tex, c, bb, b.s)
        };
        let pa = base | u64::from(va & ((1 << size.shift()) - 1));
        Ok(Leaf { pa, size, level, domain, global: b.ng & 1 == 0, attr, user, privileged })
    }

    /// Rights from AP, XN, PXN, AFE, WXN and UWXN (B3.7.1, B3.7.2). AP 0b100 without AFE is reserved: no access.
    fn rights(&self, ap: u32, xn: bool, pxn: bool) -> (Rights, Rights) {
        let access = if self.sctlr & SCTLR_AFE != 0 {
            let user = ap & 2 != 0;
            let write = ap & 4 == 0;
            (user, user && write, true, write)
        } else {
            match ap {
                1 => (false, false, true, true),
                2 => (true, false, true, true),
                3 => (true, true, true, true),
                5 => (false, false, true, false),
                6 | 7 => (true, false, true, false),
                _ => (false, false, false, false),
            }
        };
        self.execute_rights(access, xn, pxn)
    }

    /// Adds to (User may read, User may write, PL1 may read, PL1 may write) who may execute: XN, PXN, WXN and UWXN.
    pub(super) fn execute_rights(
        &self,
        (ur, uw, pr, pw): (bool, bool, bool, bool),
        xn: bool,
        pxn: bool,
    ) -> (Rights, Rights) {
        let wxn = self.sctlr & SCTLR_WXN != 0;
        let uwxn = self.sctlr & SCTLR_UWXN != 0;
        let user_never = xn || wxn && uw;
        let never = xn || pxn || wxn && pw || uwxn && uw;
        (Rights { r: ur, w: uw, x: ur && !user_never }, Rights { r: pr, w: pw, x: pr && !never })
    }
}

/// Fields that sit at different places in the four kinds of descriptor.
struct Bits {
    ap: u32,
    xn: bool,
    pxn: bool,
    tex: u32,
    s: bool,
    /// nG in bit 0; the higher bits are to be ignored.
    ng: u32,
}
