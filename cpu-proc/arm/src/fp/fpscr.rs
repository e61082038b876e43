//! The floating-point status and control register (ARM DDI 0406C B4.1.58).

/// How a result is rounded: FPSCR.RMode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Towards plus infinity.
    Up,
    /// Towards minus infinity.
    Down,
    /// Towards zero.
    Zero,
}

/// FPSCR as the arithmetic sees it: control bits in, cumulative flags out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fpscr(pub u32);

impl Fpscr {
    /// Cumulative flag: invalid operation.
    pub const IOC: u32 = 1 << 0;
    /// Cumulative flag: division by zero.
    pub const DZC: u32 = 1 << 1;
    /// Cumulative flag: overflow.
    pub const OFC: u32 = 1 << 2;
    /// Cumulative flag: underflow.
    pub const UFC: u32 = 1 << 3;
    /// Cumulative flag: inexact.
    pub const IXC: u32 = 1 << 4;
    /// Cumulative flag: a denormal operand was flushed to zero.
    pub const IDC: u32 = 1 << 7;
    /// All cumulative floating-point flags.
    pub const FLAGS: u32 = 0x9f;
    /// Vector length minus one. Cortex-A15 keeps the field but has no short vectors (see `translate::vfp`).
    pub const LEN: u32 = 7 << 16;
    /// Vector stride.
    pub const STRIDE: u32 = 3 << 20;
    /// Rounding mode field.
    pub const RMODE: u32 = 3 << 22;
    /// Flush-to-zero.
    pub const FZ: u32 = 1 << 24;
    /// Default NaN.
    pub const DN: u32 = 1 << 25;
    /// Alternative half-precision.
    pub const AHP: u32 = 1 << 26;
    /// Cumulative saturation of Advanced SIMD.
    pub const QC: u32 = 1 << 27;
    /// The comparison flags N, Z, C, V.
    pub const NZCV: u32 = 0xf << 28;
    /// Bits that a write can change on Cortex-A15. The trap-enable bits read as zero: A15 traps no floating-point exception
    /// (Cortex-A15 TRM 10.2.2).
    pub const WRITABLE: u32 =
        Self::NZCV | Self::QC | Self::AHP | Self::DN | Self::FZ | Self::RMODE | Self::STRIDE | Self::LEN | Self::FLAGS;

    /// The value that Advanced SIMD computes under: default NaN, flush-to-zero, round to nearest, AHP as set
    /// (`StandardFPSCRValue`, A2.7.5). The flags come along: they say nothing about results, and a set IXC opens the short cuts of
    /// [`super::ops`].
    #[inline]
    pub fn standard(self) -> Self {
        Self(self.0 & (Self::AHP | Self::FLAGS) | Self::DN | Self::FZ)
    }

    /// Adds the flags and QC of `other`.
    #[inline]
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0 & (Self::FLAGS | Self::QC);
    }

    /// Sets the cumulative bits `bits`.
    #[inline]
    pub fn raise(&mut self, bits: u32) {
        self.0 |= bits;
    }

    /// Flush-to-zero is on.
    #[inline]
    pub fn fz(self) -> bool {
        self.0 & Self::FZ != 0
    }

    /// Default NaN is on.
    #[inline]
    pub fn dn(self) -> bool {
        self.0 & Self::DN != 0
    }

    /// Alternative half-precision is on.
    #[inline]
    pub fn ahp(self) -> bool {
        self.0 & Self::AHP != 0
    }

    /// The rounding mode.
    #[inline]
    pub fn rounding(self) -> Rounding {
        match self.0 >> 22 & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Up,
            2 => Rounding::Down,
            _ => Rounding::Zero,
        }
    }

    /// The same register with another rounding mode.
    #[inline]
    pub fn with_rounding(self, r: Rounding) -> Self {
        let field = match r {
            Rounding::Nearest => 0,
            Rounding::Up => 1,
            Rounding::Down => 2,
            Rounding::Zero => 3,
        };
        Self(self.0 & !Self::RMODE | field << 22)
    }
}
