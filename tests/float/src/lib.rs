//! VFP and Advanced SIMD arithmetic against Berkeley SoftFloat 3, on operands chosen as Berkeley TestFloat chooses them.
//!
//! SoftFloat computes; what ARM adds to IEEE 754 stands in [`expect`]: which NaN comes out, flush-to-zero, saturating conversions. SoftFloat is told to
//! detect tininess before rounding, as ARM does.

pub mod expect;
pub mod guest;
pub mod operands;

/// An operation of the instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// The root of a.
    Sqrt,
    /// c + a * b, rounded once.
    Fma,
    /// c - a * b, rounded once.
    Fms,
    /// Comparison that only signalling NaNs are invalid for; the result is NZCV.
    Cmp,
    /// Comparison that every NaN is invalid for.
    Cmpe,
    /// To the other of single and double precision.
    Convert,
    /// To a 32-bit integer.
    ToInt {
        /// Without a sign.
        unsigned: bool,
        /// Rounds towards zero, whatever FPSCR says.
        chop: bool,
    },
    /// From a 32-bit integer.
    FromInt {
        /// Without a sign.
        unsigned: bool,
    },
    /// Single to half precision.
    ToHalf,
    /// Half to single precision.
    FromHalf,
}

impl Op {
    /// How many operands it takes.
    pub fn operands(self) -> usize {
        match self {
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Cmp | Op::Cmpe => 2,
            Op::Fma | Op::Fms => 3,
            _ => 1,
        }
    }

    /// All operations on a format.
    pub fn all(double: bool) -> Vec<Op> {
        use Op::*;
        let mut ops = vec![Add, Sub, Mul, Div, Sqrt, Fma, Fms, Cmp, Cmpe, Convert];
        for unsigned in [false, true] {
            ops.extend([ToInt { unsigned, chop: false }, ToInt { unsigned, chop: true }, FromInt { unsigned }]);
        }
        if !double {
            ops.extend([ToHalf, FromHalf]);
        }
        ops
    }
}

/// One vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Bit patterns; single precision in the low half.
    pub x: [u64; 3],
    /// Control bits, cumulative flags clear or set.
    pub fpscr: u32,
}
