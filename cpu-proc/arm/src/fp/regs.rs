//! The extension register file as S, D and Q registers (ARM DDI 0406C A2.6.2).
//!
//! Numbers come from decoded instructions and are in range by construction; masking keeps a bounds check out of every access.

use super::fpscr::Fpscr;
use crate::state::Cpu;

impl Cpu {
    /// S register `n`, zero-extended.
    #[inline(always)]
    pub fn vs(&self, n: u32) -> u64 {
        u64::from(self.ext[n as usize & 63])
    }

    /// Sets S register `n` to the low word of `v`.
    #[inline(always)]
    pub fn set_vs(&mut self, n: u32, v: u64) {
        self.ext[n as usize & 63] = v as u32;
    }

    /// D register `n`.
    #[inline(always)]
    pub fn vd(&self, n: u32) -> u64 {
        let i = n as usize & 31;
        u64::from(self.ext[2 * i]) | u64::from(self.ext[2 * i + 1]) << 32
    }

    /// Sets D register `n`.
    #[inline(always)]
    pub fn set_vd(&mut self, n: u32, v: u64) {
        let i = n as usize & 31;
        self.ext[2 * i] = v as u32;
        self.ext[2 * i + 1] = (v >> 32) as u32;
    }

    /// D registers `n` and `n + 1`.
    #[inline(always)]
    pub fn vq(&self, n: u32) -> [u64; 2] {
        [self.vd(n), self.vd(n + 1)]
    }

    /// Sets D registers `n` and `n + 1`.
    #[inline(always)]
    pub fn set_vq(&mut self, n: u32, v: [u64; 2]) {
        self.set_vd(n, v[0]);
        self.set_vd(n + 1, v[1]);
    }

    /// Computes under the FPSCR.
    #[inline(always)]
    pub fn with_fpscr<R>(&mut self, f: impl FnOnce(&mut Self, &mut Fpscr) -> R) -> R {
        let mut s = Fpscr(self.fpscr);
        let r = f(self, &mut s);
        self.fpscr = s.0;
        r
    }

    /// Computes under the standard FPSCR value and merges the flags back.
    #[inline(always)]
    pub fn with_standard<R>(&mut self, f: impl FnOnce(&mut Self, &mut Fpscr) -> R) -> R {
        let mut s = Fpscr(self.fpscr).standard();
        let r = f(self, &mut s);
        self.fpscr |= s.0 & (Fpscr::FLAGS | Fpscr::QC);
        r
    }
}
