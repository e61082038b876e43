//! The system controller (SP810), as ARM DDI 0254 (the TRM) describes it.
//!
//! Mode changes take effect at once, and clock, PLL and crystal controls are stored without a further effect. What the board uses is the
//! choice of clock for four timers: each `refclk` output is high while its timer counts REFCLK, low while it counts TIMCLK.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{STORED, reg, sysctl};
pub use state::{State, StateV1};

export_device!(Sp810);

/// The system controller's place in a machine file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// SCSYSID0 to SCSYSID3: bytes that name the board's controller.
    pub sysid: [u8; 4],
}

/// The device.
#[derive(Debug)]
pub struct Sp810 {
    s: StateV1,
}

impl Device for Sp810 {
    const KIND: &'static str = "sp810";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg)
    }

    fn new(_: &Config) -> Result<Self, ConfigError> {
        Ok(Self { s: StateV1::new() })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(bus::word(offset), bus::write_lanes(offset, size, value));
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

    fn restore(_: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        s.check()?;
        Ok(Self { s })
    }
}

impl Sp810 {
    fn read(&self, word: u64) -> u32 {
        match word {
            reg::CTRL => self.ctrl(),
            reg::PEREN0 | reg::PERDIS0 | reg::PEREN1 | reg::PERDIS1 => 0,
            reg::PERCLKEN0 | reg::PERSTAT0 => self.s.clocks[0],
            reg::PERCLKEN1 | reg::PERSTAT1 => self.s.clocks[1],
            _ => STORED.iter().position(|r| r.1 == word).map_or(0, |i| self.s.stored[i]),
        }
    }

    fn write(&mut self, word: u64, value: u32) {
        match word {
            reg::CTRL => self.s.ctrl = value & sysctl::WRITABLE,
            reg::PEREN0 => self.s.clocks[0] |= value,
            reg::PERDIS0 => self.s.clocks[0] &= !value,
            reg::PEREN1 => self.s.clocks[1] |= value,
            reg::PERDIS1 => self.s.clocks[1] &= !value,
            _ => {
                if let Some(i) = STORED.iter().position(|r| r.1 == word) {
                    self.s.stored[i] = value & STORED[i].2;
                }
            }
        }
    }

    /// SCCTRL with its status bits: the mode that was asked for is the mode (TRM 3.3.1), and the remap control is obeyed.
    fn ctrl(&self) -> u32 {
        let ctrl = self.s.ctrl;
        // Modes are coded 1xx normal, 01x slow, 001 doze, 000 sleep; the status shows the leading one.
        let status = match ctrl & 7 {
            0 => 0,
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
        ctrl | status << 3 | (ctrl >> 8 & 1) << 9
    }

    fn show(&self, fx: &mut Effects<'_>) {
        let mut shadows = vec![self.ctrl(), self.s.clocks[0], self.s.clocks[1]];
        shadows.extend(self.s.stored);
        for (i, value) in shadows.into_iter().enumerate() {
            fx.publish(i as u16, value.into());
        }
        for timer in 0..4 {
            fx.line(timer, self.s.ctrl >> (sysctl::TIMER0_SELECT + 2 * timer) & 1 == 0);
        }
    }
}

#[cfg(test)]
mod tests;
