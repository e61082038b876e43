//! The general-purpose input/output (PL061), as ARM DDI 0190 (the TRM) describes it: eight pins and one interrupt.
//!
//! Each pin has an input (`gpio0` to `gpio7`), which another device or the host drives, and an output (`out0` to `out7`), which shows what this
//! device drives. Where nobody drives a pin it has the level of `pull`. The alternate function of GPIOAFSEL is connected to nothing, so a
//! pin that is given to it is an input.
//!
//! The host changes inputs through port 0: pairs of bytes, pin and level. A change waits until the one before it has stood for `hold_ms`
//! of guest time, so that a key that is pressed and released in one breath is long enough down for a driver that debounces it.
//!
//! Not modelled: the integration test registers (0x600 to 0x614), which read as zero.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{output, port, reg, shadow};
pub use state::{Key, State, StateV1};

export_device!(Pl061);

/// Changes that can wait: twice what is asked for at a time.
const KEYS: usize = 32;

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Levels of pins that nobody drives, a bit for each.
    pub pull: u8,
    /// How long a change that the host makes stands at least before its next one, in ms of guest time; 0 to 10 000.
    pub hold_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { pull: 0, hold_ms: 100 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if self.hold_ms <= 10_000 {
            return Ok(());
        }
        Err(ConfigError::new(format!("hold_ms: {} is not in 0..=10000", self.hold_ms)))
    }
}

/// The device.
#[derive(Debug)]
pub struct Pl061 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl061 {
    const KIND: &'static str = "pl061";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(cfg.pull) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(self.cfg.pull),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value.into()));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(bus::word(offset), bus::write_lanes(offset, size, value) as u8);
            }
            Event::Line { pin, level } => self.drive(pin as u8, level),
            Event::Host { data, .. } => self.host(now, data),
            Event::Timer(_) => self.press(now),
            Event::DmaDone { .. } | Event::Popped { .. } => {}
        }
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        cfg.check().map_err(|e| RestoreError(e.message))?;
        s.check()?;
        Ok(Self { cfg: cfg.clone(), s })
    }
}

/// The mask of an access to GPIODATA (TRM 3.3.1).
fn mask(word: u64) -> u8 {
    (word >> 2) as u8
}

impl Pl061 {
    fn read(&self, word: u64) -> u8 {
        match word {
            0..reg::DATA_END => self.pins() & mask(word),
            reg::DIR => self.s.dir,
            reg::IS => self.s.is,
            reg::IBE => self.s.ibe,
            reg::IEV => self.s.iev,
            reg::IE => self.s.ie,
            reg::RIS => self.raw(),
            reg::MIS => self.raw() & self.s.ie,
            reg::AFSEL => self.s.afsel,
            _ => 0,
        }
    }

    fn write(&mut self, word: u64, value: u8) {
        let before = self.pins();
        match word {
            0..reg::DATA_END => self.s.data = self.s.data & !mask(word) | value & mask(word),
            reg::DIR => self.s.dir = value,
            reg::IS => {
                self.s.is = value;
                self.s.edges &= !value;
            }
            reg::IBE => self.s.ibe = value,
            reg::IEV => self.s.iev = value,
            reg::IE => self.s.ie = value,
            reg::IC => self.s.edges &= !value,
            reg::AFSEL => self.s.afsel = value,
            _ => {}
        }
        self.detect(before);
    }

    /// The pins that this device drives.
    fn driven(&self) -> u8 {
        self.s.dir & !self.s.afsel
    }

    /// The levels at the pins.
    fn pins(&self) -> u8 {
        self.s.data & self.driven() | self.s.external & !self.driven()
    }

    /// Takes note of the edges between `before` and now (TRM 2.2.3).
    fn detect(&mut self, before: u8) {
        let now = self.pins();
        let (rising, falling) = (now & !before, before & !now);
        let wanted = (rising | falling) & self.s.ibe | rising & self.s.iev | falling & !self.s.iev;
        self.s.edges |= wanted & !self.s.is;
    }

    /// GPIORIS: edges that were detected, and pins that have the level to be detected.
    fn raw(&self) -> u8 {
        self.s.edges | !(self.pins() ^ self.s.iev) & self.s.is
    }

    /// The outside gives a pin a level.
    fn drive(&mut self, pin: u8, level: bool) {
        let before = self.pins();
        self.s.external = self.s.external & !(1 << pin) | u8::from(level) << pin;
        self.detect(before);
    }

    /// Host input: pairs of pin and level. A pin that is not there is left out.
    fn host(&mut self, now: VTime, data: &[u8]) {
        for &byte in data {
            match self.s.half.take() {
                None => self.s.half = Some(byte),
                Some(pin) if pin < 8 && self.s.keys.len() < KEYS => {
                    self.s.keys.push_back(Key { pin, level: byte != 0 })
                }
                Some(_) => {}
            }
        }
        if self.s.held.is_none() {
            self.press(now);
        }
    }

    /// The change before has stood long enough: makes the next one.
    fn press(&mut self, now: VTime) {
        self.s.held = None;
        while let Some(key) = self.s.keys.pop_front() {
            self.drive(key.pin, key.level);
            if self.cfg.hold_ms > 0 {
                self.s.held = Some(now.after(u64::from(self.cfg.hold_ms) * 1_000_000));
                break;
            }
        }
    }

    fn show(&self, fx: &mut Effects<'_>) {
        let raw = self.raw();
        for (index, value) in [
            (shadow::DATA, self.pins()),
            (shadow::DIR, self.s.dir),
            (shadow::IS, self.s.is),
            (shadow::IBE, self.s.ibe),
            (shadow::IEV, self.s.iev),
            (shadow::IE, self.s.ie),
            (shadow::RIS, raw),
            (shadow::MIS, raw & self.s.ie),
            (shadow::AFSEL, self.s.afsel),
        ] {
            fx.publish(index, value.into());
        }
        fx.line(output::IRQ, raw & self.s.ie != 0);
        // A pin that this device does not drive shows its pull, not what drives it from outside: that is the outside's business.
        let levels = self.s.data & self.driven() | self.cfg.pull & !self.driven();
        for pin in 0..8 {
            fx.line(output::OUT0 + pin, levels >> pin & 1 != 0);
        }
        fx.timer(0, self.s.held);
        // Asked for in large steps, which keeps the number of offers small.
        let want = if self.s.keys.len() <= KEYS / 2 { KEYS as u64 - u64::from(self.s.half.is_some()) } else { 0 };
        fx.host_want(port::KEYS, want);
    }
}

#[cfg(test)]
mod tests;
