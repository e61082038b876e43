//! Private timer and watchdog (TRM DDI 0407 chapter 4.1 to 4.3): 32-bit counters that count down.

use serde::{Deserialize, Serialize};

const LOAD: u32 = 0x00;
const COUNTER: u32 = 0x04;
const CONTROL: u32 = 0x08;
const STATUS: u32 = 0x0c;
const RESET_STATUS: u32 = 0x10;
const DISABLE: u32 = 0x14;

const ENABLE: u32 = 1 << 0;
const AUTO_RELOAD: u32 = 1 << 1;
const IRQ_ENABLE: u32 = 1 << 2;
const WATCHDOG_MODE: u32 = 1 << 3;
/// What takes the watchdog out of watchdog mode, one after the other.
const KEYS: [u32; 2] = [0x1234_5678, 0x8765_4321];

/// A counter that counts down every PRESCALER + 1 ticks of PERIPHCLK. It reaches zero after as many steps as its value says, stays there for one
/// step, and goes on from the load value if it reloads itself: its period is LOAD + 1 steps. A counter that is enabled at zero and doesn't reload
/// does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Down {
    /// Load register.
    pub load: u32,
    /// The counter at tick `at`.
    pub value: u32,
    /// Control register: enable, auto reload, interrupt enable, (watchdog mode,) prescaler in bits 15:8.
    pub control: u32,
    /// The event flag: zero was reached.
    pub event: bool,
    /// Tick of the counter's last step, or at which it was set or started.
    pub at: u64,
}

impl Down {
    pub(super) fn runs(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Ticks a step.
    fn period(&self) -> u64 {
        u64::from(self.control >> 8 & 0xff) + 1
    }

    fn cycle(&self) -> u64 {
        u64::from(self.load) + 1
    }

    /// Steps until zero is reached next.
    fn to_zero(self) -> Option<u64> {
        match self.value {
            0 => (self.control & AUTO_RELOAD != 0).then(|| self.cycle()),
            v => Some(v.into()),
        }
    }

    pub(super) fn advance(&mut self, tick: u64) {
        if !self.runs() {
            return;
        }
        let steps = (tick - self.at) / self.period();
        self.at += steps * self.period();
        match self.to_zero() {
            Some(zero) if steps >= zero => {
                self.event = true;
                let past = (steps - zero) % self.cycle();
                let reloads = self.control & AUTO_RELOAD != 0;
                self.value = if reloads && past > 0 { (self.cycle() - past) as u32 } else { 0 };
            }
            Some(_) if self.value > 0 => self.value -= steps as u32,
            // From zero the next value is the reloaded one.
            Some(_) if steps > 0 => self.value = (self.cycle() - steps) as u32,
            _ => {}
        }
    }

    /// Tick at which zero is reached next, while it counts.
    fn next_zero(&self) -> Option<u64> {
        if !self.runs() {
            return None;
        }
        self.at.checked_add(self.to_zero()?.checked_mul(self.period())?)
    }

    pub(super) fn line(&self) -> bool {
        self.event && self.control & IRQ_ENABLE != 0
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        if self.control & IRQ_ENABLE == 0 || self.event { None } else { self.next_zero() }
    }

    fn set(&mut self, tick: u64, value: u32) {
        (self.value, self.at) = (value, tick);
    }

    /// A new prescaler or a start begins a new step.
    fn set_control(&mut self, tick: u64, value: u32) {
        let changed = (self.control ^ value) & (ENABLE | 0xff00) != 0;
        self.control = value;
        if changed {
            self.at = tick;
        }
    }

    pub(super) fn read(&self, offset: u32) -> u32 {
        match offset {
            LOAD => self.load,
            COUNTER => self.value,
            CONTROL => self.control,
            STATUS => u32::from(self.event),
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, tick: u64, offset: u32, value: u32) {
        match offset {
            LOAD => {
                self.load = value;
                self.set(tick, value);
            }
            COUNTER => self.set(tick, value),
            CONTROL => self.set_control(tick, value & 0xff07),
            STATUS if value & 1 != 0 => self.event = false,
            _ => {}
        }
    }
}

/// A watchdog: in timer mode a second private timer, in watchdog mode what resets the machine when it reaches zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watchdog {
    /// The counter; bit 3 of its control register is the watchdog mode.
    pub down: Down,
    /// Watchdog Reset Status Register: it asked for a reset.
    pub reset_status: bool,
    /// The first of the two keys that end the watchdog mode was just written.
    pub unlocking: bool,
}

impl Watchdog {
    fn guards(&self) -> bool {
        self.down.control & WATCHDOG_MODE != 0
    }

    pub(super) fn advance(&mut self, tick: u64) {
        self.down.advance(tick);
        if self.guards() && self.down.event {
            self.down.event = false;
            self.reset_status = true;
        }
    }

    pub(super) fn line(&self) -> bool {
        !self.guards() && self.down.line()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        if self.guards() { self.down.next_zero() } else { self.down.deadline() }
    }

    pub(super) fn read(&self, offset: u32) -> u32 {
        match offset {
            RESET_STATUS => u32::from(self.reset_status),
            _ => self.down.read(offset),
        }
    }

    pub(super) fn write(&mut self, tick: u64, offset: u32, value: u32) {
        let unlocking = std::mem::take(&mut self.unlocking);
        match offset {
            // In watchdog mode the load register alone refreshes the counter, and the mode can't be left this way.
            COUNTER if self.guards() => {}
            CONTROL => {
                if value & WATCHDOG_MODE != 0 && !self.guards() {
                    // What timer mode left must not look like a watchdog that ran out.
                    self.down.event = false;
                }
                self.down.set_control(tick, value & 0xff0f | self.down.control & WATCHDOG_MODE);
            }
            RESET_STATUS if value & 1 != 0 => self.reset_status = false,
            DISABLE if value == KEYS[0] => self.unlocking = true,
            DISABLE if unlocking && value == KEYS[1] => self.down.control &= !WATCHDOG_MODE,
            _ => self.down.write(tick, offset, value),
        }
    }
}
