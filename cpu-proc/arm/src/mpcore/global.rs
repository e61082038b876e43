//! The global timer (TRM DDI 0407 chapter 4.4): one 64-bit counter that all cores share, and a comparator for each.
//!
//! As from r2p0 of the core on, a comparator's event comes while the counter is *at or above* the compare value, not only when it equals it:
//! an event that software clears while that holds is there again at once.

use serde::{Deserialize, Serialize};

const COUNTER: u32 = 0x00;
const CONTROL: u32 = 0x08;
const STATUS: u32 = 0x0c;
const COMPARE: u32 = 0x10;
const INCREMENT: u32 = 0x18;

const ENABLE: u32 = 1 << 0;
const COMPARE_ENABLE: u32 = 1 << 1;
const IRQ_ENABLE: u32 = 1 << 2;
const AUTO_INCREMENT: u32 = 1 << 3;
/// Enable and prescaler are one for all cores; the other bits are banked.
const SHARED: u32 = 0xff01;

/// One core's comparator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compare {
    /// This core's bits of the control register: comparator enable, interrupt enable, auto-increment.
    pub control: u32,
    /// Comparator value.
    pub value: u64,
    /// Auto-increment register.
    pub increment: u32,
    /// The event flag.
    pub event: bool,
}

/// Global timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Global {
    /// The shared bits of the control register: enable, prescaler in bits 15:8.
    pub control: u32,
    /// The counter at tick `at`.
    pub counter: u64,
    /// Tick of the counter's last step, or at which it was set or started.
    pub at: u64,
    /// Comparators, by core.
    pub compare: Vec<Compare>,
}

impl Global {
    pub(super) fn reset(cpus: usize) -> Global {
        Global { control: 0, counter: 0, at: 0, compare: vec![Compare::default(); cpus] }
    }

    pub(super) fn runs(&self) -> bool {
        self.control & ENABLE != 0
    }

    fn period(&self) -> u64 {
        u64::from(self.control >> 8 & 0xff) + 1
    }

    pub(super) fn advance(&mut self, tick: u64) {
        if !self.runs() {
            return;
        }
        let steps = (tick - self.at) / self.period();
        self.at += steps * self.period();
        self.counter = self.counter.wrapping_add(steps);
        let now = self.counter;
        self.compare.iter_mut().for_each(|c| c.check(now));
    }

    pub(super) fn line(&self, cpu: usize) -> bool {
        let c = &self.compare[cpu];
        c.event && c.control & IRQ_ENABLE != 0
    }

    /// Ticks at which comparators reach their values, where that raises a line.
    pub(super) fn deadline(&self) -> Option<u64> {
        const ARMED: u32 = COMPARE_ENABLE | IRQ_ENABLE;
        let tick = |c: &Compare| {
            let armed = self.runs() && c.control & ARMED == ARMED && !c.event;
            let steps = c.value.checked_sub(self.counter).filter(|_| armed)?;
            self.at.checked_add(steps.checked_mul(self.period())?)
        };
        self.compare.iter().filter_map(tick).min()
    }

    pub(super) fn read(&self, cpu: usize, offset: u32) -> u32 {
        let c = &self.compare[cpu];
        match offset {
            COUNTER => self.counter as u32,
            0x04 => (self.counter >> 32) as u32,
            CONTROL => self.control | c.control,
            STATUS => u32::from(c.event),
            COMPARE => c.value as u32,
            0x14 => (c.value >> 32) as u32,
            INCREMENT => c.increment,
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, cpu: usize, tick: u64, offset: u32, value: u32) {
        let c = &mut self.compare[cpu];
        match offset {
            COUNTER | 0x04 => {
                half(&mut self.counter, offset & 4 != 0, value);
                self.at = tick;
            }
            CONTROL => {
                c.control = value & (COMPARE_ENABLE | IRQ_ENABLE | AUTO_INCREMENT);
                if (self.control ^ value) & SHARED != 0 {
                    self.at = tick;
                }
                self.control = value & SHARED;
            }
            STATUS if value & 1 != 0 => c.event = false,
            COMPARE | 0x14 => half(&mut c.value, offset & 4 != 0, value),
            INCREMENT => c.increment = value,
            _ => {}
        }
        self.advance(tick);
    }
}

impl Compare {
    /// The event, if the counter has come to `now`; with auto-increment the value goes on to beyond it.
    fn check(&mut self, now: u64) {
        if self.control & COMPARE_ENABLE == 0 || now < self.value {
            return;
        }
        self.event = true;
        if self.control & AUTO_INCREMENT != 0 && self.increment != 0 {
            let step = u64::from(self.increment);
            let times = (now - self.value) / step + 1;
            self.value = self.value.wrapping_add(times.wrapping_mul(step));
        }
    }
}

/// Writes one half of a 64-bit register.
fn half(register: &mut u64, high: bool, value: u32) {
    let shift = if high { 32 } else { 0 };
    *register = *register & !(0xffff_ffff << shift) | u64::from(value) << shift;
}
