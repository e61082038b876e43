//! Memory faults and their status codes (ARM DDI 0406C B3.12, B3.13).

/// What went wrong. The number is the translation level: 1 (section) or 2 (page), in the long format 1 to 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Unaligned access where alignment is required.
    Alignment,
    /// No mapping.
    Translation(u8),
    /// Access flag clear, with SCTLR.AFE set or in the long format.
    AccessFlag(u8),
    /// Domain without access.
    Domain(u8),
    /// The mapping forbids it.
    Permission(u8),
    /// The bus refused a read of the translation table.
    WalkExternal(u8),
    /// The bus refused the access itself (synchronous).
    External,
    /// BKPT instruction (prefetch abort only).
    Debug,
}

/// A data or prefetch abort to take: [`crate::state::Cpu::take_data_abort`], [`crate::state::Cpu::take_prefetch_abort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// Cause.
    pub kind: FaultKind,
    /// Faulting virtual address.
    pub va: u32,
    /// Domain of the mapping, where it is known; else 0.
    pub domain: u8,
    /// The access was a write (or a cache maintenance operation).
    pub write: bool,
}

impl Abort {
    /// An alignment fault at `va`.
    pub fn alignment(va: u32, write: bool) -> Abort {
        Abort { kind: FaultKind::Alignment, va, domain: 0, write }
    }

    /// A synchronous external abort at `va`: [`crate::bus::BusFault`].
    pub fn external(va: u32, write: bool) -> Abort {
        Abort { kind: FaultKind::External, va, domain: 0, write }
    }

    /// BKPT (ARM DDI 0406C A8.8.24): a debug event taken as a prefetch abort; IFAR is UNKNOWN, the instruction's address here.
    pub fn bkpt(pc: u32) -> Abort {
        Abort { kind: FaultKind::Debug, va: pc, domain: 0, write: false }
    }
}

/// FS[4:0] of the short-descriptor format (table B3-23).
impl FaultKind {
    fn short_fs(self) -> u32 {
        match self {
            FaultKind::Alignment => 0b00001,
            FaultKind::Debug => 0b00010,
            FaultKind::AccessFlag(1) => 0b00011,
            FaultKind::AccessFlag(_) => 0b00110,
            FaultKind::Translation(1) => 0b00101,
            FaultKind::Translation(_) => 0b00111,
            FaultKind::External => 0b01000,
            FaultKind::Domain(1) => 0b01001,
            FaultKind::Domain(_) => 0b01011,
            FaultKind::WalkExternal(1) => 0b01100,
            FaultKind::WalkExternal(_) => 0b01110,
            FaultKind::Permission(1) => 0b01101,
            FaultKind::Permission(_) => 0b01111,
        }
    }

    /// STATUS[5:0] of the long-descriptor format (table B3-24). Domain faults do not exist there.
    fn long_status(self) -> u32 {
        match self {
            FaultKind::Translation(n) => 0b000100 | u32::from(n),
            FaultKind::AccessFlag(n) => 0b001000 | u32::from(n),
            FaultKind::Permission(n) | FaultKind::Domain(n) => 0b001100 | u32::from(n),
            FaultKind::External => 0b010000,
            FaultKind::WalkExternal(n) => 0b010100 | u32::from(n),
            FaultKind::Alignment => 0b100001,
            FaultKind::Debug => 0b100010,
        }
    }
}

/// FSR.LPAE: the status is in the long-descriptor format.
const FSR_LPAE: u32 = 1 << 9;

impl Abort {
    /// DFSR in the short-descriptor format (B4.1.52): FS, Domain, WnR.
    ///
    /// The domain field is filled in where the architecture defines it (domain faults, translation faults at level 2, access flag
    /// faults at level 2) and for permission faults, where it is deprecated but what cores do.
    pub fn dfsr(&self) -> u32 {
        let fs = self.kind.short_fs();
        (fs & 0xf) | (fs >> 4) << 10 | u32::from(self.domain & 0xf) << 4 | u32::from(self.write) << 11
    }

    /// DFSR in the format of the translation regime that the abort is taken to: `long` if its TTBCR.EAE is set.
    pub fn dfsr_as(&self, long: bool) -> u32 {
        if long { self.kind.long_status() | FSR_LPAE | u32::from(self.write) << 11 } else { self.dfsr() }
    }

    /// IFSR, as [`Abort::dfsr_as`].
    pub fn ifsr_as(&self, long: bool) -> u32 {
        if long { self.kind.long_status() | FSR_LPAE } else { self.ifsr() }
    }

    /// The 64-bit PAR of a failed address translation (B4.1.112): F, FS, LPAE.
    pub fn long_par(&self) -> u64 {
        u64::from(self.kind.long_status()) << 1 | 1 << 11 | 1
    }

    /// IFSR in the short-descriptor format (B4.1.96): FS only.
    pub fn ifsr(&self) -> u32 {
        let fs = self.kind.short_fs();
        (fs & 0xf) | (fs >> 4) << 10
    }
}
