//! The virtio entropy device (VIRTIO 1.2, 5.4). Its bytes come in on its port, so they are recorded, and a replay has the same.

use reprise_device::spec::{Direction, PluginSpec};
use reprise_device::{ConfigError, Effects, RestoreError, export_device};
use reprise_virtio::{Answer, Bad, Class, Core, Data, Job, Next, Part, Shape, Side, Virtio};
use serde::Deserialize;

export_device!(Virtio<Rng>);

/// The only queue, and the port.
const REQUESTS: usize = 0;
const SOURCE: u32 = 0;
/// Most bytes that are wanted at a time.
const MOST: u64 = 4096;

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version 1 of the transport's registers, for kernels older than 2014.
    pub legacy: bool,
    /// Most entries of the queue, a power of two up to 1024.
    pub queue_size: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { legacy: false, queue_size: 64 }
    }
}

/// The device.
#[derive(Debug)]
pub struct Rng {
    /// What has come and was not given to the driver.
    bytes: Vec<u8>,
}

impl Class for Rng {
    const KIND: &'static str = "virtio-rng";
    const ID: u32 = 4;
    type Config = Config;
    type Task = ();
    type State = Vec<u8>;

    fn shape(cfg: &Config) -> Shape {
        Shape { legacy: cfg.legacy, indirect: true, queues: vec![cfg.queue_size] }
    }

    fn extend(_: &Config, spec: PluginSpec) -> PluginSpec {
        spec.port("source", Direction::In)
    }

    fn new(_: &Config) -> Result<Self, ConfigError> {
        Ok(Self { bytes: Vec::new() })
    }

    fn features(&self, _: &Effects<'_>) -> u64 {
        0
    }

    fn config(&self, _: u64, _: &Effects<'_>) -> Vec<u8> {
        Vec::new()
    }

    fn reset(&mut self) {
        self.bytes.clear();
    }

    fn admit(&mut self, _: usize, job: &Job<()>) -> Result<u64, Bad> {
        if job.writable() == 0 { Err(Bad("a buffer without room")) } else { Ok(0) }
    }

    fn take(&mut self, _: usize, _: &mut Job<()>, _: &[u8], _: Side, _: &mut Effects<'_>) -> Result<(), Bad> {
        Ok(())
    }

    fn answer(&mut self, _: usize, _: &mut Job<()>, _: Side, _: &mut Effects<'_>) -> Result<Next, Bad> {
        Ok(Next::Hold)
    }

    fn host(&mut self, _: u32, data: &[u8]) {
        let room = (MOST as usize).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
    }

    fn settle(&mut self, core: &mut Core<()>, fx: &mut Effects<'_>) -> Result<(), Bad> {
        while let Some(room) = core.held(REQUESTS).next().map(Job::writable) {
            let n = (room as usize).min(self.bytes.len());
            if n == 0 {
                break;
            }
            let data = Data::Bytes(self.bytes.drain(..n).collect());
            core.finish(REQUESTS, Answer { parts: vec![Part { at: 0, data }], len: n as u32, joined: false });
        }
        let wanted: u64 = core.held(REQUESTS).map(Job::writable).sum();
        if wanted == 0 {
            // Nobody waits: what is left would be stale by the time somebody does.
            self.bytes.clear();
        }
        fx.host_want(SOURCE, wanted.min(MOST) - self.bytes.len() as u64);
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    fn restore(&mut self, bytes: Vec<u8>) -> Result<(), RestoreError> {
        RestoreError::check(bytes.len() as u64 <= MOST, "more bytes than it wants")?;
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
