//! Processor modes and the bits of the program status registers (ARM DDI 0406C B1.3).

use serde::{Deserialize, Serialize};

/// CPSR bit: asynchronous abort mask.
pub const PSR_A: u32 = 1 << 8;
/// CPSR bit: IRQ mask.
pub const PSR_I: u32 = 1 << 7;
/// CPSR bit: FIQ mask.
pub const PSR_F: u32 = 1 << 6;
/// CPSR bit: Thumb state.
pub const PSR_T: u32 = 1 << 5;
/// CPSR bit: big-endian data.
pub const PSR_E: u32 = 1 << 9;
/// CPSR bit: Jazelle state.
pub const PSR_J: u32 = 1 << 24;
/// CPSR bit: sticky saturation.
pub const PSR_Q: u32 = 1 << 27;
/// CPSR bits: GE\[3:0\].
pub const PSR_GE: u32 = 0xf << 16;
/// CPSR bits: IT\[1:0\] and IT\[7:2\].
pub const PSR_IT: u32 = 0x0600_fc00;
/// CPSR bits: N, Z, C, V.
pub const PSR_NZCV: u32 = 0xf000_0000;
/// CPSR bits: the mode field.
pub const PSR_M: u32 = 0x1f;

/// A processor mode, valued as in CPSR.M (ARM DDI 0406C table B1-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Mode {
    /// User, the only unprivileged mode.
    Usr = 0x10,
    /// FIQ.
    Fiq = 0x11,
    /// IRQ.
    Irq = 0x12,
    /// Supervisor.
    Svc = 0x13,
    /// Monitor (Security Extensions).
    Mon = 0x16,
    /// Abort.
    Abt = 0x17,
    /// Hyp (Virtualization Extensions); has a slot in the register banks, but is never entered.
    Hyp = 0x1a,
    /// Undefined.
    Und = 0x1b,
    /// System: privileged, with User's registers.
    Sys = 0x1f,
}

/// Number of sp/lr/spsr banks.
pub const BANKS: usize = 8;
/// Bank of User and System mode.
pub const BANK_USR: usize = 0;
/// Bank of FIQ mode.
pub const BANK_FIQ: usize = 5;

impl Mode {
    /// The mode that the low five bits of a PSR name; `None` for a reserved encoding.
    pub const fn from_bits(bits: u32) -> Option<Mode> {
        Some(match bits & PSR_M {
            0x10 => Mode::Usr,
            0x11 => Mode::Fiq,
            0x12 => Mode::Irq,
            0x13 => Mode::Svc,
            0x16 => Mode::Mon,
            0x17 => Mode::Abt,
            0x1a => Mode::Hyp,
            0x1b => Mode::Und,
            0x1f => Mode::Sys,
            _ => return None,
        })
    }

    /// All but User are privileged (PL1 or higher).
    #[inline]
    pub const fn is_privileged(self) -> bool {
        !matches!(self, Mode::Usr)
    }

    /// Which bank holds this mode's sp, lr and spsr: User/System 0, Svc 1, Abt 2, Und 3, Irq 4, Fiq 5, Mon 6, Hyp 7.
    #[inline]
    pub const fn bank(self) -> usize {
        match self {
            Mode::Usr | Mode::Sys => BANK_USR,
            Mode::Svc => 1,
            Mode::Abt => 2,
            Mode::Und => 3,
            Mode::Irq => 4,
            Mode::Fiq => BANK_FIQ,
            Mode::Mon => 6,
            Mode::Hyp => 7,
        }
    }

    /// User and System have no SPSR.
    #[inline]
    pub const fn has_spsr(self) -> bool {
        !matches!(self, Mode::Usr | Mode::Sys)
    }
}
