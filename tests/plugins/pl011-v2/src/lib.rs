//! Version 2 of the PL011, for tests: it counts what it sends, and saves that in front of the UART's own state. It reads the state of version 1.

use plugin_pl011::{Config, Pl011, State as Older, StateV1};
use reprise_device::spec::PluginSpec;
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, export_device};
use serde::{Deserialize, Serialize};

export_device!(Pl011V2);

/// Offset of the data register (ARM DDI 0183, 3.3.1).
const DR: u64 = 0;

/// The device.
#[derive(Debug)]
pub struct Pl011V2 {
    uart: Pl011,
    sent: u64,
}

/// The saved state; a variant for each version of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum State {
    /// As version 1 of the plugin saves it.
    V1(Box<StateV1>),
    /// With the counter.
    V2 {
        /// Characters written to the data register.
        sent: u64,
        /// The UART.
        uart: Box<StateV1>,
    },
}

impl Device for Pl011V2 {
    const KIND: &'static str = Pl011::KIND;
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> PluginSpec {
        PluginSpec { version: "2".into(), ..Pl011::spec(cfg) }
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        Ok(Self { uart: Pl011::new(cfg)?, sent: 0 })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.sent = 0,
            Event::Write { offset: DR, .. } => self.sent += 1,
            _ => {}
        }
        self.uart.step(now, event, fx);
    }

    fn save(&self) -> State {
        let Older::V1(uart) = self.uart.save();
        State::V2 { sent: self.sent, uart }
    }

    fn restore(cfg: &Config, state: State) -> Result<Self, RestoreError> {
        let (sent, uart) = match state {
            State::V1(uart) => (0, uart),
            State::V2 { sent, uart } => (sent, uart),
        };
        Ok(Self { uart: Pl011::restore(cfg, Older::V1(uart))?, sent })
    }
}
