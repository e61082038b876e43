//! Version 2 of the virtio block device, for tests: it counts the writes of its registers, and saves that in front of the rest of its state. It reads the state of
//! version 1.

use plugin_virtio_blk::{Blk, Config, Task};
use reprise_device::spec::PluginSpec;
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, export_device};
use reprise_virtio::{Core, State as Older, Virtio};
use serde::{Deserialize, Serialize};

export_device!(BlkV2);

/// The device.
#[derive(Debug)]
pub struct BlkV2 {
    disk: Virtio<Blk>,
    writes: u64,
}

/// The saved state; a variant for each version of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum State {
    /// As version 1 of the plugin saves it.
    V1(Box<Core<Task>>, bool),
    /// With the counter.
    V2 {
        /// Writes of registers.
        writes: u64,
        /// The device.
        disk: Older<Blk>,
    },
}

impl Device for BlkV2 {
    const KIND: &'static str = <Virtio<Blk> as Device>::KIND;
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> PluginSpec {
        PluginSpec { version: "2".into(), ..Virtio::<Blk>::spec(cfg) }
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        Ok(Self { disk: Virtio::new(cfg)?, writes: 0 })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.writes = 0,
            Event::Write { .. } => self.writes += 1,
            _ => {}
        }
        self.disk.step(now, event, fx);
    }

    fn save(&self) -> State {
        State::V2 { writes: self.writes, disk: self.disk.save() }
    }

    fn restore(cfg: &Config, state: State) -> Result<Self, RestoreError> {
        let (writes, disk) = match state {
            State::V1(core, kind) => (0, Older::V1(core, kind)),
            State::V2 { writes, disk } => (writes, disk),
        };
        Ok(Self { disk: Virtio::restore(cfg, disk)?, writes })
    }
}
