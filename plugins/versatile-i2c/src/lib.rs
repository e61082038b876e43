//! The two-wire interface of ARM's Versatile boards ("arm,versatile-i2c"; ARM DUI 0225, 4.10): two open-drain lines, which software moves bit
//! by bit, and the I2C targets at their other end.
//!
//! `targets` lists these; an address that none of them has is not acknowledged. Where they differ from silicon:
//!
//! - `sii9022` (DVI transmitter): its TPI registers hold what is written, whether or not TPI mode was chosen, and nothing follows from
//!   them but the display data channel: requested in register 0x1a, granted at once, and connected when the grant is written back.
//!   Then the monitor's EDID is at 0x50. Its interrupt is not connected, as on the boards.
//! - `registers`: 256 bytes that hold what is written.
//! - `edid`: a monitor's EDID that is on the bus itself.
//!
//! No target stretches the clock. All writes are posted: a driver waits only where it reads a line.

mod bus;
mod edid;
mod spec;
mod state;
mod target;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus as apb, export_device};
use serde::Deserialize;

pub use bus::Bus;
use bus::Targets;
use spec::{line, reg, shadow};
pub use state::{State, StateV1};
pub use target::{Pointer, Target};

export_device!(VersatileI2c);

/// The most targets on a bus.
const MOST: usize = 16;

/// A monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Monitor {
    /// 1024x768 at 60 Hz.
    #[default]
    Builtin,
    /// None is plugged in.
    None,
    /// One with this EDID: 256 or 512 hexadecimal digits, with white space between them at will.
    Hex(String),
}

/// A target in the machine file. Addresses have 7 bits, 0x08 to 0x77.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TargetConfig {
    /// A DVI transmitter.
    Sii9022 {
        /// Its address.
        at: u8,
        /// What is plugged in.
        #[serde(default)]
        monitor: Monitor,
    },
    /// Registers without a function.
    Registers {
        /// Their address.
        at: u8,
    },
    /// A monitor's EDID.
    Edid {
        /// Its address.
        at: u8,
        /// Which one.
        #[serde(default)]
        monitor: Monitor,
    },
}

/// The device's place in a machine file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is on the bus, e.g. `[sii9022(at: 0x39)]`; at most 16.
    pub targets: Vec<TargetConfig>,
}

/// A target of the config: where it is, and what it is when it is new.
#[derive(Debug)]
struct Place {
    at: u8,
    target: Target,
    /// The EDID of its monitor; empty if there is none.
    edid: Vec<u8>,
}

type Places = Vec<Place>;

impl Config {
    fn places(&self) -> Result<Places, ConfigError> {
        if self.targets.len() > MOST {
            return Err(ConfigError::new(format!("targets: {} are more than {MOST}", self.targets.len())));
        }
        let mut places = Places::new();
        for config in &self.targets {
            let place = config.place().map_err(ConfigError::new)?;
            if !(0x08..0x78).contains(&place.at) {
                return Err(ConfigError::new(format!("targets: the address {:#x} is not in 0x08..=0x77", place.at)));
            }
            if places.iter().any(|p| p.at == place.at) {
                return Err(ConfigError::new(format!("targets: there are two at {:#x}", place.at)));
            }
            places.push(place);
        }
        Ok(places)
    }
}

impl TargetConfig {
    fn place(&self) -> Result<Place, String> {
        let (at, target, monitor) = match self {
            Self::Sii9022 { at, monitor } => (*at, Target::sii9022(*monitor != Monitor::None), monitor),
            Self::Registers { at } => (*at, Target::registers(), &Monitor::None),
            Self::Edid { at, monitor } => (*at, Target::edid(), monitor),
        };
        let edid = match monitor {
            Monitor::Builtin => edid::builtin().to_vec(),
            Monitor::None => Vec::new(),
            Monitor::Hex(digits) => edid::parse(digits)?,
        };
        Ok(Place { at, target, edid })
    }
}

/// The device.
#[derive(Debug)]
pub struct VersatileI2c {
    places: Places,
    s: StateV1,
}

impl Device for VersatileI2c {
    const KIND: &'static str = "versatile-i2c";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        let places = cfg.places()?;
        let s = StateV1::new(&places);
        Ok(Self { places, s })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(&self.places),
            Event::Read { tag, offset, size } => {
                let value = if apb::word(offset) == reg::CONTROL { self.lines() } else { 0 };
                fx.reply(tag, apb::read_lanes(offset, size, value.into()));
            }
            Event::Write { offset, size, value, .. } => {
                let value = apb::write_lanes(offset, size, value) as u8 & line::ALL;
                let driven = u8::from(self.s.bus.scl()) * line::SCL | u8::from(self.s.bus.released()) * line::SDA;
                match apb::word(offset) {
                    reg::CONTROL => self.drive(driven | value),
                    reg::CONTROLC => self.drive(driven & !value),
                    _ => {}
                }
            }
            Event::Line { .. }
            | Event::Timer(_)
            | Event::DmaDone { .. }
            | Event::Popped { .. }
            | Event::Host { .. } => {}
        }
        fx.publish(shadow::CONTROL, self.lines().into());
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        let places = cfg.places().map_err(|e| RestoreError(e.message))?;
        s.check(&places)?;
        Ok(Self { places, s })
    }
}

impl VersatileI2c {
    /// The levels of the lines.
    fn lines(&self) -> u8 {
        u8::from(self.s.bus.scl()) * line::SCL | u8::from(self.s.bus.sda()) * line::SDA
    }

    fn drive(&mut self, lines: u8) {
        let StateV1 { bus, targets, selected } = &mut self.s;
        let mut chain = Chain { places: &self.places, targets, selected };
        bus.drive(lines & line::SCL != 0, lines & line::SDA != 0, &mut chain);
    }
}

/// All targets, and the one of the transfer.
struct Chain<'a> {
    places: &'a Places,
    targets: &'a mut Vec<Target>,
    selected: &'a mut Option<(u8, bool)>,
}

impl Targets for Chain<'_> {
    fn select(&mut self, address: u8, read: bool) -> bool {
        let own = self.places.iter().position(|p| p.at == address).map(|i| (i as u8, false));
        let monitor = |(t, p): (&Target, &Place)| t.bypasses() && !p.edid.is_empty();
        let behind = || self.targets.iter().zip(self.places).position(monitor).map(|i| (i as u8, true));
        *self.selected = own.or_else(|| if address == target::DDC { behind() } else { None });
        match *self.selected {
            Some((i, ddc)) => self.targets[usize::from(i)].start(ddc, read),
            None => return false,
        }
        true
    }

    fn write(&mut self, byte: u8) -> bool {
        self.selected.is_some_and(|(i, ddc)| self.targets[usize::from(i)].write(ddc, byte))
    }

    fn read(&mut self) -> u8 {
        let Some((i, ddc)) = *self.selected else { return 0xff };
        self.targets[usize::from(i)].read(ddc, &self.places[usize::from(i)].edid)
    }
}

#[cfg(test)]
mod tests;
