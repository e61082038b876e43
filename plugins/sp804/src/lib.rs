//! The dual timer (SP804), as ARM DDI 0271 (the TRM) describes it.
//!
//! A counter is brought up to date whenever something happens to the device, and by nothing else. The interval of a periodic timer is its load value in counts (TRM 3.3.1 gives load = interval x clock / prescaler), so the counter shows the load
//! value where silicon may show zero for part of a count. A device timer is armed only where an interrupt can come of it.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{ctrl, reg};
pub use state::{CounterV1, State, StateV1};

export_device!(Sp804);

/// The timer's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Clock of each timer in Hz while its `refclk` pin is low, 1 to 1 000 000 000.
    pub clock_hz: (u64, u64),
    /// Clock of both timers in Hz while their `refclk` pins are high.
    pub refclk_hz: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { clock_hz: (1_000_000, 1_000_000), refclk_hz: 32_768 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        for hz in [self.clock_hz.0, self.clock_hz.1, self.refclk_hz] {
            if !(1..=1_000_000_000).contains(&hz) {
                return Err(ConfigError::new(format!("a clock of {hz} Hz is not in 1..=1000000000")));
            }
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Sp804 {
    cfg: Config,
    s: StateV1,
}

impl Device for Sp804 {
    const KIND: &'static str = "sp804";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(VTime(0), cfg) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        self.s.counters.iter_mut().for_each(|c| c.advance(now));
        match event {
            Event::Reset => self.s = StateV1::new(now, &self.cfg),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(now, bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Line { pin, level } => self.select_clock(now, pin as usize, level),
            Event::Timer(_) | Event::DmaDone { .. } | Event::Host { .. } | Event::Popped { .. } => {}
        }
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        cfg.check().map_err(|e| RestoreError(e.message))?;
        s.check(cfg)?;
        Ok(Self { cfg: cfg.clone(), s })
    }
}

impl Sp804 {
    /// The counter and the register in it that a word offset names.
    fn split(word: u64) -> Option<(usize, u64)> {
        (word < 0x40).then_some(((word >> 5) as usize, word & 0x1f))
    }

    fn read(&self, word: u64) -> u32 {
        let Some((i, r)) = Self::split(word) else { return 0 };
        let c = &self.s.counters[i];
        match r {
            reg::LOAD | reg::BGLOAD => c.load,
            reg::VALUE => c.value,
            reg::CONTROL => c.ctrl,
            reg::RIS => u32::from(c.ris),
            reg::MIS => u32::from(c.active()),
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32) {
        let Some((i, r)) = Self::split(word) else { return };
        let c = &mut self.s.counters[i];
        match r {
            reg::LOAD => {
                c.load = value;
                c.set(now, value);
            }
            // The background load is taken at the end of the current count (TRM 3.3.7).
            reg::BGLOAD => c.load = value,
            reg::CONTROL => c.control(now, value & ctrl::MASK),
            reg::INTCLR => c.ris = false,
            _ => {}
        }
    }

    fn select_clock(&mut self, now: VTime, i: usize, refclk: bool) {
        let c = &mut self.s.counters[i];
        c.hz = match (refclk, i) {
            (true, _) => self.cfg.refclk_hz,
            (false, 0) => self.cfg.clock_hz.0,
            (false, _) => self.cfg.clock_hz.1,
        };
        c.base = now.ticks(c.hz);
    }

    fn show(&self, fx: &mut Effects<'_>) {
        let active = [self.s.counters[0].active(), self.s.counters[1].active()];
        fx.line(spec::output::IRQ, active[0] || active[1]);
        for (i, c) in self.s.counters.iter().enumerate() {
            fx.line(spec::output::IRQ1 + i as u32, active[i]);
            fx.timer(i as u32, c.deadline());
        }
    }
}

/// How a counter goes on at zero (TRM 2.2).
enum Mode {
    OneShot,
    Periodic,
    FreeRunning,
}

impl CounterV1 {
    fn mode(&self) -> Mode {
        match (self.ctrl & ctrl::ONE_SHOT != 0, self.ctrl & ctrl::PERIODIC != 0) {
            (true, _) => Mode::OneShot,
            (false, true) => Mode::Periodic,
            (false, false) => Mode::FreeRunning,
        }
    }

    fn truncate(&self, value: u32) -> u32 {
        if self.ctrl & ctrl::WIDE != 0 { value } else { value & 0xffff }
    }

    fn active(&self) -> bool {
        self.ris && self.ctrl & ctrl::INT != 0
    }

    fn runs(&self) -> bool {
        self.ctrl & ctrl::ENABLE != 0 && !self.halted
    }

    /// Clock ticks of one count: 1, 16 or 256 (TRM 3.3.3; the reserved selection acts as 256).
    fn ticks_per_count(&self) -> u64 {
        [1, 16, 256, 256][(self.ctrl >> 2 & 3) as usize]
    }

    /// Counts between two zeros. A periodic counter with a load value of 0 comes to zero at each count.
    fn interval(&self) -> u64 {
        match self.mode() {
            Mode::Periodic => u64::from(self.truncate(self.load)).max(1),
            _ => u64::from(self.truncate(u32::MAX)) + 1,
        }
    }

    /// Counts from `value` to the next zero.
    fn to_zero(&self) -> u64 {
        if self.value == 0 { self.interval() } else { self.value.into() }
    }

    /// Lets the counter count up to now.
    fn advance(&mut self, now: VTime) {
        let counts = now.ticks(self.hz).saturating_sub(self.base) / self.ticks_per_count();
        if !self.runs() || counts == 0 {
            return;
        }
        self.base += counts * self.ticks_per_count();
        let to_zero = self.to_zero();
        if counts < to_zero {
            self.value = (to_zero - counts) as u32;
            return;
        }
        let (over, interval) = ((counts - to_zero) % self.interval(), self.interval());
        self.value = match self.mode() {
            Mode::OneShot => 0,
            Mode::Periodic if self.truncate(self.load) == 0 => 0,
            Mode::Periodic => (interval - over) as u32,
            Mode::FreeRunning => ((interval - over) % interval) as u32,
        };
        self.at_zero();
    }

    /// The counter has come to zero, perhaps more than once.
    fn at_zero(&mut self) {
        self.ris = true;
        self.halted = matches!(self.mode(), Mode::OneShot);
    }

    /// Sets the counter (TRM 3.3.1). A zero interrupts at once.
    fn set(&mut self, now: VTime, value: u32) {
        self.value = self.truncate(value);
        self.base = now.ticks(self.hz);
        self.halted = false;
        if self.value == 0 && self.runs() {
            self.at_zero();
        }
    }

    /// Writes the control register (TRM 3.3.3). Leaving one-shot mode lets a halted counter go on (TRM 2.2).
    fn control(&mut self, now: VTime, value: u32) {
        self.ctrl = value;
        self.value = self.truncate(self.value);
        self.base = now.ticks(self.hz);
        self.halted &= matches!(self.mode(), Mode::OneShot);
    }

    /// When a device timer must go off: at the next zero, if that changes the interrupt output.
    fn deadline(&self) -> Option<VTime> {
        let wanted = self.runs() && self.ctrl & ctrl::INT != 0 && !self.ris;
        let tick = self.base.saturating_add(self.to_zero() * self.ticks_per_count());
        wanted.then(|| VTime::of_tick(tick, self.hz))
    }
}

#[cfg(test)]
mod tests;
