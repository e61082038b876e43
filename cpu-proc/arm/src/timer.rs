//! The generic timer (ARM DDI 0406C chapter B8): a counter that is a pure function of guest time, and its per-core timers.
//!
//! Guest time is in ns. The counter at `t` is `floor(t * hz / 10^9)`, in 128-bit arithmetic, so nothing drifts; the first ns at which it
//! reaches a value is the ceiling of the inverse.

use crate::models::Model;
use serde::{Deserialize, Serialize};

/// PPI of the Secure physical timer, as a GIC interrupt ID.
pub const PPI_SECURE_PHYS: u32 = 29;
/// PPI of the Non-secure physical timer.
pub const PPI_NONSECURE_PHYS: u32 = 30;
/// PPI of the virtual timer.
pub const PPI_VIRT: u32 = 27;
/// PPI of the Hyp timer, which does not exist here: its line stays low.
pub const PPI_HYP: u32 = 26;

const NS_PER_S: u128 = 1_000_000_000;
const CTL_ENABLE: u32 = 1;
const CTL_IMASK: u32 = 2;
const CTL_ISTATUS: u32 = 4;

/// Whole ticks of a clock of `hz` Hz in `ns`, counted from guest time 0.
pub(crate) fn ticks(hz: u32, ns: u64) -> u64 {
    (u128::from(ns) * u128::from(hz) / NS_PER_S) as u64
}

/// The first ns at which [`ticks`] is at least `count`; `None` if guest time can't get there. `hz` is not 0.
pub(crate) fn first_ns(hz: u32, count: u64) -> Option<u64> {
    u64::try_from((u128::from(count) * NS_PER_S).div_ceil(u128::from(hz))).ok()
}

/// One timer: CNTx_CTL and CNTx_CVAL; TVAL is a view of CVAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timer {
    /// CTL bits 1:0: ENABLE, IMASK. ISTATUS is computed.
    pub ctl: u32,
    /// Compare value.
    pub cval: u64,
}

/// Generic timer state of one core.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timers {
    /// Real frequency of the counter in Hz (configuration); 0 means that there is no generic timer: the counter stands at 0.
    pub hz: u32,
    /// CNTFRQ as software wrote it.
    pub cntfrq: u32,
    /// CNTKCTL.
    pub cntkctl: u32,
    /// Physical timers: Secure, Non-secure.
    pub phys: [Timer; 2],
    /// Virtual timer.
    pub virt: Timer,
}

/// The registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the manual's, without the CNT prefix")]
pub enum TimerReg {
    Frq,
    Kctl,
    Count,
    PhysTval,
    PhysCtl,
    PhysCval,
    VirtTval,
    VirtCtl,
    VirtCval,
}

/// Levels of the timers' outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimerLines {
    /// There is a generic timer at all. Without one the PPIs are not its business: Cortex-A9 has other timers on them.
    pub present: bool,
    /// Secure physical timer, [`PPI_SECURE_PHYS`].
    pub secure_phys: bool,
    /// Non-secure physical timer, [`PPI_NONSECURE_PHYS`].
    pub nonsecure_phys: bool,
    /// Virtual timer, [`PPI_VIRT`].
    pub virt: bool,
}

impl TimerLines {
    /// (PPI, level) of each output.
    pub fn ppis(self) -> impl Iterator<Item = (u32, bool)> {
        let all =
            [(PPI_SECURE_PHYS, self.secure_phys), (PPI_NONSECURE_PHYS, self.nonsecure_phys), (PPI_VIRT, self.virt)];
        all.into_iter().filter(move |_| self.present)
    }
}

impl Timer {
    fn met(&self, count: u64) -> bool {
        self.ctl & CTL_ENABLE != 0 && count >= self.cval
    }

    fn line(&self, count: u64) -> bool {
        self.met(count) && self.ctl & CTL_IMASK == 0
    }

    fn control(&self, count: u64) -> u32 {
        self.ctl | if self.met(count) { CTL_ISTATUS } else { 0 }
    }
}

impl Timers {
    /// Values out of reset.
    pub fn reset(model: &Model) -> Self {
        Timers { hz: model.cntfrq, cntfrq: model.cntfrq, ..Timers::default() }
    }

    /// The counter at guest time `ns` (CNTPCT; CNTVCT is the same, as there is no offset without the Virtualization Extensions).
    pub fn count(&self, ns: u64) -> u64 {
        ticks(self.hz, ns)
    }

    /// The first ns at which the counter is at least `count`; `None` if guest time can't get there.
    pub fn ns_of(&self, count: u64) -> Option<u64> {
        if self.hz == 0 {
            return (count == 0).then_some(0);
        }
        first_ns(self.hz, count)
    }

    /// Output levels at guest time `ns`.
    pub fn lines(&self, ns: u64) -> TimerLines {
        let count = self.count(ns);
        TimerLines {
            present: self.hz != 0,
            secure_phys: self.phys[0].line(count),
            nonsecure_phys: self.phys[1].line(count),
            virt: self.virt.line(count),
        }
    }

    /// The next guest time, later than `ns`, at which an output rises by itself.
    pub fn deadline(&self, ns: u64) -> Option<u64> {
        let count = self.count(ns);
        let armed = |t: &&Timer| t.ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE && t.cval > count;
        [&self.phys[0], &self.phys[1], &self.virt].into_iter().filter(armed).filter_map(|t| self.ns_of(t.cval)).min()
    }

    /// The next guest time, later than `ns`, at which the event stream (CNTKCTL.EVNTEN, EVNTDIR, EVNTI; B8.1.5) wakes a core from WFE.
    pub fn event_deadline(&self, ns: u64) -> Option<u64> {
        if self.cntkctl & 1 << 2 == 0 {
            return None;
        }
        let bit = self.cntkctl >> 4 & 0xf;
        let (half, period) = (1u64 << bit, 2u64 << bit);
        let edge = if self.cntkctl & 1 << 3 == 0 { half } else { 0 };
        let count = self.count(ns);
        let past = count.wrapping_sub(edge) & (period - 1);
        self.ns_of(count.checked_add(period - past)?)
    }

    /// MRC/MRRC at guest time `now`; `bank` 0 is Secure.
    pub fn read(&self, reg: TimerReg, bank: usize, now: u64) -> u64 {
        let count = self.count(now);
        let tval = |t: &Timer| t.cval.wrapping_sub(count) & 0xffff_ffff;
        let (phys, virt) = (&self.phys[bank], &self.virt);
        match reg {
            TimerReg::Frq => u64::from(self.cntfrq),
            TimerReg::Kctl => u64::from(self.cntkctl),
            TimerReg::Count => count,
            TimerReg::PhysTval => tval(phys),
            TimerReg::PhysCtl => u64::from(phys.control(count)),
            TimerReg::PhysCval => phys.cval,
            TimerReg::VirtTval => tval(virt),
            TimerReg::VirtCtl => u64::from(virt.control(count)),
            TimerReg::VirtCval => virt.cval,
        }
    }

    /// MCR/MCRR at guest time `now`; `bank` 0 is Secure. Lines and deadline may have changed after it.
    pub fn write(&mut self, reg: TimerReg, bank: usize, now: u64, value: u64) {
        // TVAL is a signed 32-bit distance from now.
        let tval = self.count(now).wrapping_add(i64::from(value as i32) as u64);
        let ctl = value as u32 & (CTL_ENABLE | CTL_IMASK);
        let phys = &mut self.phys[bank];
        match reg {
            TimerReg::Frq => self.cntfrq = value as u32,
            TimerReg::Kctl => self.cntkctl = value as u32 & 0x3ff,
            TimerReg::Count => {}
            TimerReg::PhysTval => phys.cval = tval,
            TimerReg::PhysCtl => phys.ctl = ctl,
            TimerReg::PhysCval => phys.cval = value,
            TimerReg::VirtTval => self.virt.cval = tval,
            TimerReg::VirtCtl => self.virt.ctl = ctl,
            TimerReg::VirtCval => self.virt.cval = value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timers(hz: u32) -> Timers {
        Timers { hz, cntfrq: hz, ..Timers::default() }
    }

    #[test]
    fn counter_and_inverse_are_exact() {
        for hz in [1, 24_000_000, 62_500_000, 1_000_000_000, 19_200_001, u32::MAX] {
            let t = timers(hz);
            for ns in [0, 1, 15, 16, 999_999_999, 1_000_000_000, 123_456_789_012_345, u64::MAX / 5] {
                let c = t.count(ns);
                let first = t.ns_of(c).unwrap();
                assert!(first <= ns && t.count(first) >= c, "{hz} {ns}");
                assert!(first == 0 || t.count(first - 1) < c, "{hz} {ns}: not the first");
            }
        }
        assert_eq!(timers(1).ns_of(u64::MAX), None);
        assert_eq!(timers(0).count(1 << 40), 0);
    }

    #[test]
    fn fires_at_the_deadline_and_not_before() {
        let mut t = timers(62_500_000);
        t.write(TimerReg::VirtTval, 0, 1_000_003, 100);
        assert_eq!(t.deadline(1_000_003), None, "not enabled");
        t.write(TimerReg::VirtCtl, 0, 1_000_003, 1);
        let d = t.deadline(1_000_003).unwrap();
        assert_eq!(d, 16 * (1_000_003 / 16 + 100));
        assert!(!t.lines(d - 1).virt && t.lines(d).virt);
        assert_eq!(t.read(TimerReg::VirtCtl, 0, d - 1), 1);
        assert_eq!(t.read(TimerReg::VirtCtl, 0, d), 5);
        assert_eq!(t.read(TimerReg::VirtTval, 0, d + 16), 0xffff_ffff);
        assert_eq!(t.deadline(d), None, "risen already");
        t.write(TimerReg::VirtCtl, 0, d, 3);
        assert!(!t.lines(d).virt, "masked");
        assert_eq!(t.read(TimerReg::VirtCtl, 0, d), 7);
        t.write(TimerReg::VirtTval, 0, d, u64::from(-5i32 as u32));
        t.write(TimerReg::VirtCtl, 0, d, 1);
        assert!(t.lines(d).virt, "a negative distance is in the past");
    }

    #[test]
    fn physical_timer_is_banked() {
        let mut t = timers(1_000_000);
        t.write(TimerReg::PhysCval, 0, 0, 10);
        t.write(TimerReg::PhysCtl, 0, 0, 1);
        t.write(TimerReg::PhysCval, 1, 0, 5);
        t.write(TimerReg::PhysCtl, 1, 0, 1);
        assert_eq!(t.deadline(0), Some(5_000));
        assert_eq!(t.deadline(5_000), Some(10_000));
        let l = t.lines(5_000);
        assert!(l.nonsecure_phys && !l.secure_phys && !l.virt);
        assert_eq!(t.read(TimerReg::PhysCval, 0, 0), 10);
    }

    #[test]
    fn no_timer_drives_no_ppi() {
        assert_eq!(timers(0).lines(5).ppis().count(), 0);
        assert!(timers(1).lines(5).ppis().map(|p| p.0).eq([29, 30, 27]));
    }

    #[test]
    fn event_stream_edges() {
        let mut t = timers(1_000_000_000);
        assert_eq!(t.event_deadline(0), None);
        t.cntkctl = 1 << 2 | 3 << 4; // rising edges of bit 3: 8, 24, 40...
        assert_eq!([0, 7, 8, 23, 24].map(|n| t.event_deadline(n).unwrap()), [8, 8, 24, 24, 40]);
        t.cntkctl |= 1 << 3; // falling edges: 16, 32...
        assert_eq!([0, 8, 16].map(|n| t.event_deadline(n).unwrap()), [16, 16, 32]);
    }
}
