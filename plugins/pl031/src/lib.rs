//! The real-time clock (PL031), as ARM DDI 0224 (the TRM) describes it.
//!
//! It counts seconds of guest time. The date that it starts from is a number of the machine file, or comes from the host: then the clock
//! asks for 8 bytes on its port after a reset (Unix time in seconds, little-endian), which are recorded like all host input. A real board's
//! clock has a battery, so this one has always been running: RTCCR reads 1.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{output, reg, shadow};
pub use state::{State, StateV1};

export_device!(Pl031);

/// Where the date comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// Unix time in seconds at guest time 0.
    Fixed(u32),
    /// The host, as the first input on port 0 after a reset. Until then the clock shows the time since the machine's start.
    #[default]
    Host,
}

/// The clock's place in a machine file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `fixed(1700000000)` or `host`.
    pub base: Base,
}

/// Bytes of a date.
const DATE: usize = 8;

/// The device.
#[derive(Debug)]
pub struct Pl031 {
    base: Base,
    s: StateV1,
}

impl Device for Pl031 {
    const KIND: &'static str = "pl031";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        Ok(Self { base: cfg.base, s: StateV1::new(VTime(0), cfg.base) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(now, self.base),
            Event::Read { tag, offset, size } => {
                let word = bus::word(offset);
                if matches!(word, reg::RIS | reg::MIS) {
                    self.advance(now);
                }
                fx.reply(tag, bus::read_lanes(offset, size, self.read(now, word)));
            }
            Event::Write { offset, size, value, .. } => {
                self.advance(now);
                self.write(now, bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Host { data, .. } => {
                self.advance(now);
                self.date(now, data);
            }
            Event::Timer(_) => self.advance(now),
            Event::Line { .. } | Event::DmaDone { .. } | Event::Popped { .. } => {}
        }
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        s.check()?;
        Ok(Self { base: cfg.base, s })
    }
}

/// Whole seconds of guest time.
fn seconds(now: VTime) -> u64 {
    now.0 / 1_000_000_000
}

impl Pl031 {
    /// The counter: seconds since 1970, modulo 2^32.
    fn count(&self, now: VTime) -> u32 {
        self.s.offset.wrapping_add(seconds(now) as u32)
    }

    fn read(&self, now: VTime, word: u64) -> u32 {
        match word {
            reg::DR => self.count(now),
            reg::MR => self.s.matches,
            reg::LR => self.s.load,
            reg::IMSC => u32::from(self.s.imsc),
            reg::RIS => u32::from(self.s.ris),
            reg::MIS => u32::from(self.s.ris && self.s.imsc),
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32) {
        match word {
            reg::MR => {
                self.s.matches = value;
                self.rematch(now);
            }
            reg::LR => {
                self.s.load = value;
                self.set(now, value);
                // The guest knows better than the host.
                self.s.wants_date = false;
            }
            reg::IMSC => self.s.imsc = value & 1 != 0,
            reg::ICR if value & 1 != 0 => self.s.ris = false,
            _ => {}
        }
    }

    /// Makes the counter show `date` now.
    fn set(&mut self, now: VTime, date: u32) {
        self.s.offset = date.wrapping_sub(seconds(now) as u32);
        self.rematch(now);
    }

    /// Works out the second of guest time at which the counter next equals the match register; that may be this one.
    fn rematch(&mut self, now: VTime) {
        let ahead = self.s.matches.wrapping_sub(self.count(now));
        self.s.match_at = seconds(now) + u64::from(ahead);
        self.advance(now);
    }

    /// Takes note of a match that has come (TRM 2.3). The next one is 2^32 seconds later.
    fn advance(&mut self, now: VTime) {
        if seconds(now) >= self.s.match_at {
            self.s.ris = true;
            self.s.match_at += ((seconds(now) - self.s.match_at) / (1 << 32) + 1) << 32;
        }
    }

    /// Host input: the date, perhaps in pieces.
    fn date(&mut self, now: VTime, data: &[u8]) {
        if !self.s.wants_date {
            return;
        }
        let missing = DATE - self.s.date.len();
        self.s.date.extend(data.iter().take(missing));
        if let Ok(bytes) = <[u8; DATE]>::try_from(self.s.date.as_slice()) {
            self.set(now, u64::from_le_bytes(bytes) as u32);
            self.s.wants_date = false;
        }
    }

    fn show(&self, fx: &mut Effects<'_>) {
        fx.publish(shadow::MR, self.s.matches.into());
        fx.publish(shadow::LR, self.s.load.into());
        fx.publish(shadow::IMSC, self.s.imsc.into());
        fx.line(output::IRQ, self.s.ris && self.s.imsc);
        let wanted = self.s.imsc && !self.s.ris;
        fx.timer(0, wanted.then(|| VTime(self.s.match_at.saturating_mul(1_000_000_000))));
        let missing = if self.s.wants_date { DATE - self.s.date.len() } else { 0 };
        fx.host_want(spec::port::DATE, missing as u64);
    }
}

#[cfg(test)]
mod tests;
