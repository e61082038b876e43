//! Guest time as a function of retired instructions (docs/design.md, "Time and position").

/// How guest time passes while the core is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleMode {
    /// Jump to the next deadline at once.
    Warp,
    /// Follow the host's clock.
    Realtime,
}

/// `vtime = icount * num / den + warp`, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    num: u64,
    den: u64,
    warp: u64,
}

impl Clock {
    /// A clock that gives every instruction `num / den` ns; both must be positive.
    pub fn new(num: u64, den: u64) -> Self {
        assert!(num > 0 && den > 0, "ns_per_insn is a positive rational");
        Self { num, den, warp: 0 }
    }

    /// Guest time in ns once `icount` instructions have retired.
    #[inline]
    pub fn vtime(&self, icount: u64) -> u64 {
        if self.num == 1 && self.den == 1 {
            return icount + self.warp;
        }
        (u128::from(icount) * u128::from(self.num) / u128::from(self.den)) as u64 + self.warp
    }

    /// The smallest instruction count at which [`Clock::vtime`] is at least `vtime`.
    pub fn icount_at(&self, vtime: u64) -> u64 {
        let run = vtime.saturating_sub(self.warp);
        let n = (u128::from(run) * u128::from(self.den)).div_ceil(u128::from(self.num));
        u64::try_from(n).unwrap_or(u64::MAX)
    }

    /// Lets `ns` pass without an instruction.
    pub fn add_warp(&mut self, ns: u64) {
        self.warp = self.warp.checked_add(ns).expect("guest time fits 64 bits");
    }

    /// All time that passed without an instruction, in ns.
    pub fn warped(&self) -> u64 {
        self.warp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icount_at_is_the_first_count_that_reaches_the_time() {
        for (num, den) in [(1, 1), (1, 3), (3, 1), (7, 5), (5, 7)] {
            let mut c = Clock::new(num, den);
            c.add_warp(11);
            for t in 0..200 {
                let n = c.icount_at(t);
                assert!(c.vtime(n) >= t, "{num}/{den} at {t}");
                assert!(n == 0 || c.vtime(n - 1) < t, "{num}/{den} at {t} is the first");
            }
        }
    }
}
