//! The watchdog (SP805), as ARM DDI 0270 (the TRM) describes it.
//!
//! The counter counts from the load value to zero and takes one count more to reload, so the interval is load + 1 counts. At the first zero
//! it interrupts; at the next one, if the interrupt still stands and the reset is enabled, it drives its reset output until it is reset itself.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{ctrl, output, reg, shadow};
pub use state::{State, StateV1};

export_device!(Sp805);

/// What unlocks the registers (TRM 3.3.7).
const UNLOCK: u32 = 0x1acc_e551;

/// The watchdog's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// WDOGCLK in Hz, 1 to 1 000 000 000.
    pub clock_hz: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { clock_hz: 32_768 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if (1..=1_000_000_000).contains(&self.clock_hz) {
            return Ok(());
        }
        Err(ConfigError::new(format!("clock_hz: {} is not in 1..=1000000000", self.clock_hz)))
    }
}

/// The device.
#[derive(Debug)]
pub struct Sp805 {
    hz: u64,
    s: StateV1,
}

impl Device for Sp805 {
    const KIND: &'static str = "sp805";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { hz: cfg.clock_hz, s: StateV1::new() })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        if !spec::is_shadow_read(event) {
            self.advance(now);
        }
        match event {
            Event::Reset => self.s = StateV1::new(),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(now, bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Line { .. }
            | Event::Timer(_)
            | Event::DmaDone { .. }
            | Event::Host { .. }
            | Event::Popped { .. } => {}
        }
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        cfg.check().map_err(|e| RestoreError(e.message))?;
        s.check(cfg)?;
        Ok(Self { hz: cfg.clock_hz, s })
    }
}

impl Sp805 {
    fn read(&self, word: u64) -> u32 {
        match word {
            reg::LOAD => self.s.load,
            reg::VALUE => self.s.value,
            reg::CONTROL => self.s.ctrl,
            reg::RIS => u32::from(self.s.ris),
            reg::MIS => u32::from(self.active()),
            reg::LOCK => u32::from(self.s.locked),
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32) {
        match word {
            reg::LOCK => self.s.locked = value != UNLOCK,
            _ if self.s.locked => {}
            reg::LOAD => {
                self.s.load = value;
                self.reload(now);
            }
            reg::CONTROL => {
                let starts = !self.runs() && value & ctrl::INTEN != 0;
                self.s.ctrl = value & ctrl::MASK;
                if starts {
                    self.reload(now);
                }
            }
            reg::INTCLR => {
                self.s.ris = false;
                self.reload(now);
            }
            _ => {}
        }
    }

    fn active(&self) -> bool {
        self.s.ris && self.runs()
    }

    /// The counter runs while its interrupt is enabled (TRM 3.3.3).
    fn runs(&self) -> bool {
        self.s.ctrl & ctrl::INTEN != 0
    }

    fn reload(&mut self, now: VTime) {
        self.s.value = self.s.load;
        self.s.base = now.ticks(self.hz);
    }

    /// Lets the counter count up to now.
    fn advance(&mut self, now: VTime) {
        let counts = now.ticks(self.hz).saturating_sub(self.s.base);
        if !self.runs() || counts == 0 {
            return;
        }
        self.s.base += counts;
        let (to_zero, interval) = (u64::from(self.s.value), u64::from(self.s.load) + 1);
        if counts < to_zero || self.s.value == 0 && counts < interval {
            self.s.value = if self.s.value == 0 { interval - counts } else { to_zero - counts } as u32;
            return;
        }
        let first = if self.s.value == 0 { interval } else { to_zero };
        let over = counts - first;
        self.s.value = ((interval - over % interval) % interval) as u32;
        let zeros = 1 + over / interval;
        // A zero while the interrupt stands from an earlier one resets the board.
        self.s.reset |= self.s.ctrl & ctrl::RESEN != 0 && (self.s.ris || zeros > 1);
        self.s.ris = true;
    }

    /// When the next zero changes something.
    fn deadline(&self) -> Option<VTime> {
        let matters = !self.s.ris || self.s.ctrl & ctrl::RESEN != 0 && !self.s.reset;
        let to_zero = if self.s.value == 0 { u64::from(self.s.load) + 1 } else { self.s.value.into() };
        (self.runs() && matters).then(|| VTime::of_tick(self.s.base.saturating_add(to_zero), self.hz))
    }

    fn show(&self, fx: &mut Effects<'_>) {
        fx.publish(shadow::LOAD, self.s.load.into());
        fx.publish(shadow::CONTROL, self.s.ctrl.into());
        fx.publish(shadow::LOCK, self.s.locked.into());
        fx.line(output::IRQ, self.active());
        fx.line(output::RESET, self.s.reset);
        fx.timer(0, self.deadline());
    }
}

#[cfg(test)]
mod tests;
