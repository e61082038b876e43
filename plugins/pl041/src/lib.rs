//! The audio CODEC interface (PL041 AACI; ARM DDI 0173, the TRM) with nothing on its AC-link: identification, control registers that hold
//! what is written, and an idle status. No sample is taken or given, no codec answers, and the interrupt stays low.

mod spec;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::{Deserialize, Serialize};

export_device!(Pl041);

/// The device's place in a machine file: there is nothing to choose.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first: the registers that hold what is written, in the order of the spec's shadows.
    V1(Vec<u32>),
}

/// A register that holds what is written.
#[derive(Debug)]
struct Stored {
    offset: u64,
    bits: u32,
    value: u32,
}

/// The device.
#[derive(Debug)]
pub struct Pl041 {
    registers: Vec<Stored>,
}

impl Device for Pl041 {
    const KIND: &'static str = "pl041";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(_: &Config) -> Result<Self, ConfigError> {
        let registers = spec::stored().into_iter().map(|(_, offset, bits)| Stored { offset, bits, value: 0 }).collect();
        Ok(Self { registers })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.registers.iter_mut().for_each(|r| r.value = 0),
            Event::Read { tag, offset, size } => {
                let word = bus::word(offset);
                let value = self.registers.iter().find(|r| r.offset == word).map_or(0, |r| r.value);
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                if let Some(r) = self.registers.iter_mut().find(|r| r.offset == bus::word(offset)) {
                    r.value = bus::write_lanes(offset, size, value) & r.bits;
                }
            }
            Event::Line { .. }
            | Event::Timer(_)
            | Event::DmaDone { .. }
            | Event::Popped { .. }
            | Event::Host { .. } => {}
        }
        for (i, r) in self.registers.iter().enumerate() {
            fx.publish(i as u16, r.value.into());
        }
    }

    fn save(&self) -> State {
        State::V1(self.registers.iter().map(|r| r.value).collect())
    }

    fn restore(cfg: &Config, State::V1(values): State) -> Result<Self, RestoreError> {
        let mut new = Self::new(cfg).map_err(|e| RestoreError(e.message))?;
        RestoreError::check(values.len() == new.registers.len(), "another number of registers")?;
        for (r, value) in new.registers.iter_mut().zip(values) {
            RestoreError::check(value & !r.bits == 0, "a bit that there is not")?;
            r.value = value;
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use reprise_device::conformance::Suite;
    use reprise_device::host::{Effect, Plugin};

    use super::*;

    #[test]
    fn conforms() {
        Suite::new(&Plugin::of::<Pl041>(), "()").check();
    }

    #[test]
    fn it_is_idle_and_keeps_what_is_written() {
        let mut device = Plugin::of::<Pl041>().create("()").unwrap();
        let mut step = |event| {
            let mut replied = None;
            let mut effect = |e: Effect<'_>| {
                if let Effect::Reply { value, .. } = e {
                    replied = Some(value);
                }
            };
            device.step(VTime(0), event, &mut effect).unwrap();
            replied
        };
        let mut read = |offset| step(Event::Read { tag: 0, offset, size: 4 });
        let id = (0..4).fold(0, |id, i| id | read(0xfe0 + 4 * i).unwrap() << (8 * i));
        assert_eq!(id, 0x0004_1041);
        for n in 0..4 {
            assert_eq!((read(0x14 * n + 0x08), read(0x14 * n + 0x0c)), (Some(0xb), Some(0)), "channel {n}");
        }
        step(Event::Write { tag: 0, offset: 0x78, size: 4, value: 0xffff_ffff });
        step(Event::Write { tag: 0, offset: 0x90, size: 4, value: 1 });
        assert_eq!(step(Event::Read { tag: 0, offset: 0x78, size: 4 }), Some(0x7ff));
        step(Event::Reset);
        assert_eq!(step(Event::Read { tag: 0, offset: 0x78, size: 4 }), Some(0));
    }

    #[test]
    fn wrong_configs_are_refused() {
        assert!(Plugin::of::<Pl041>().create("(codec: true)").is_err());
    }
}
