//! The virtio console device (VIRTIO 1.2, 5.3): a console on port 0, and further ports with names, each of them a port of the plugin. The console has no
//! size of its own.

use std::collections::{BTreeSet, VecDeque};

use reprise_device::spec::{Direction, PluginSpec};
use reprise_device::{ConfigError, Effects, RestoreError, export_device};
use reprise_virtio::{Answer, Bad, Class, Core, Data, Job, Next, Part, Shape, Side, Virtio};
use serde::{Deserialize, Serialize};

export_device!(Virtio<Console>);

/// Feature bits (5.3.3).
mod feature {
    pub(super) const MULTIPORT: u64 = 1 << 1;
    pub(super) const EMERG_WRITE: u64 = 1 << 2;
}

/// Events of control messages (5.3.6.2).
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const DEVICE_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// Control queues (5.3.2): to the driver, and from it.
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
/// Bytes of a control message without a name.
const MESSAGE: u64 = 8;
/// Ports besides the console.
const MAX_PORTS: usize = 15;
/// Control messages that may wait for buffers.
const MAX_MESSAGES: usize = 256;
/// Most bytes that are wanted on a port at a time.
const MOST: u64 = 4096;
/// Where `emerg_wr` is in the configuration (5.3.4).
const EMERG_WR: u64 = 8;

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version 1 of the transport's registers, for kernels older than 2014.
    pub legacy: bool,
    /// Names of the ports besides the console, up to 15. Under Linux they are `/dev/virtio-ports/NAME`.
    pub ports: Vec<String>,
    /// Most entries of a queue, a power of two up to 1024.
    pub queue_size: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { legacy: false, ports: Vec::new(), queue_size: 128 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if self.ports.len() > MAX_PORTS {
            return Err(ConfigError::new(format!(
                "ports: {} names, at most {MAX_PORTS} are allowed",
                self.ports.len()
            )));
        }
        let mut seen = BTreeSet::from(["console"]);
        for name in &self.ports {
            let good = (1..=60).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
            if !good || !seen.insert(name) {
                let what = "is not 1 to 60 printable characters without a slash, or is there already";
                return Err(ConfigError::new(format!("ports: the name {name:?} {what}")));
            }
        }
        Ok(())
    }

    /// The names of the ports besides the console; none if they are wrong, as the spec is asked for before that is said.
    fn names(&self) -> &[String] {
        if self.check().is_ok() { &self.ports } else { &[] }
    }
}

/// Which port a data queue belongs to, and whether it leads to the driver (5.3.2).
fn port_of(queue: usize) -> Option<(usize, bool)> {
    let port = match queue {
        0 | 1 => 0,
        CONTROL_IN | CONTROL_OUT => return None,
        _ => (queue - 2) / 2,
    };
    Some((port, queue % 2 == 0))
}

fn receive_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 + 2 * port }
}

/// The state besides queues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Control messages that wait for buffers.
    messages: VecDeque<Vec<u8>>,
    /// Which ports a program of the guest has open.
    open: Vec<bool>,
    /// What has come for each port and waits for buffers.
    input: Vec<VecDeque<u8>>,
}

/// The device.
#[derive(Debug)]
pub struct Console {
    names: Vec<String>,
    s: State,
}

impl Console {
    fn ports(&self) -> usize {
        1 + self.names.len()
    }

    fn fresh(ports: usize) -> State {
        State { messages: VecDeque::new(), open: vec![false; ports], input: vec![VecDeque::new(); ports] }
    }

    fn say(&mut self, port: usize, event: u16, value: u16, name: &str) -> Result<(), Bad> {
        let mut m = (port as u32).to_le_bytes().to_vec();
        m.extend(event.to_le_bytes());
        m.extend(value.to_le_bytes());
        m.extend_from_slice(name.as_bytes());
        self.s.messages.push_back(m);
        if self.s.messages.len() > MAX_MESSAGES { Err(Bad("control messages that nobody takes")) } else { Ok(()) }
    }

    /// A control message of the driver.
    fn hear(&mut self, message: &[u8]) -> Result<(), Bad> {
        let word = |i: usize| u16::from_le_bytes([message[i], message[i + 1]]);
        let port = u32::from_le_bytes(message[0..4].try_into().expect("4 bytes")) as usize;
        let (event, value) = (word(4), word(6));
        match event {
            event::DEVICE_READY if value == 1 => {
                (0..self.ports()).try_for_each(|port| self.say(port, event::DEVICE_ADD, 1, ""))
            }
            event::PORT_READY if value == 1 && port < self.ports() => {
                match port.checked_sub(1) {
                    None => self.say(0, event::CONSOLE_PORT, 1, "")?,
                    Some(i) => {
                        let name = self.names[i].clone();
                        self.say(port, event::PORT_NAME, 1, &name)?;
                    }
                }
                // The host's side is always there.
                self.say(port, event::PORT_OPEN, 1, "")
            }
            event::PORT_OPEN if port < self.ports() => {
                self.s.open[port] = value != 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Class for Console {
    const KIND: &'static str = "virtio-console";
    const ID: u32 = 3;
    type Config = Config;
    /// What has come of a control message.
    type Task = Vec<u8>;
    type State = State;

    fn shape(cfg: &Config) -> Shape {
        Shape { legacy: cfg.legacy, indirect: true, queues: vec![cfg.queue_size; 4 + 2 * cfg.names().len()] }
    }

    fn extend(cfg: &Config, spec: PluginSpec) -> PluginSpec {
        let spec = spec.port("console", Direction::Both);
        cfg.names().iter().fold(spec, |spec, name| spec.port(name, Direction::Both))
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { names: cfg.ports.clone(), s: Self::fresh(1 + cfg.ports.len()) })
    }

    fn features(&self, _: &Effects<'_>) -> u64 {
        feature::MULTIPORT | feature::EMERG_WRITE
    }

    fn config(&self, _: u64, _: &Effects<'_>) -> Vec<u8> {
        let mut c = vec![0; 4]; // columns and rows: not offered
        c.extend((self.ports() as u32).to_le_bytes());
        c.extend([0; 4]);
        c
    }

    fn write_config(&mut self, offset: u64, _: u8, value: u64, fx: &mut Effects<'_>) {
        if offset == EMERG_WR {
            fx.host_out(0, &[value as u8]);
        }
    }

    fn reset(&mut self) {
        self.s = Self::fresh(self.ports());
    }

    fn admit(&mut self, queue: usize, job: &Job<Vec<u8>>) -> Result<u64, Bad> {
        let inwards = queue % 2 == 0;
        if inwards {
            return if job.writable() == 0 { Err(Bad("a buffer without room")) } else { Ok(0) };
        }
        if queue == CONTROL_OUT {
            return if job.readable() < MESSAGE { Err(Bad("half a control message")) } else { Ok(MESSAGE) };
        }
        Ok(job.readable())
    }

    fn take(
        &mut self,
        queue: usize,
        job: &mut Job<Vec<u8>>,
        piece: &[u8],
        _: Side,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        match port_of(queue) {
            Some((port, _)) => fx.host_out(port as u32, piece),
            None => job.task.extend_from_slice(piece),
        }
        Ok(())
    }

    fn answer(&mut self, queue: usize, job: &mut Job<Vec<u8>>, _: Side, _: &mut Effects<'_>) -> Result<Next, Bad> {
        if queue % 2 == 0 {
            return Ok(Next::Hold);
        }
        if queue == CONTROL_OUT {
            let message = std::mem::take(&mut job.task);
            if message.len() as u64 != MESSAGE {
                return Err(Bad("half a control message"));
            }
            self.hear(&message)?;
        }
        Ok(Next::Done(Answer::default()))
    }

    fn host(&mut self, port: u32, data: &[u8]) {
        if let Some(input) = self.s.input.get_mut(port as usize) {
            let room = (MOST as usize).saturating_sub(input.len());
            input.extend(&data[..data.len().min(room)]);
        }
    }

    fn settle(&mut self, core: &mut Core<Vec<u8>>, fx: &mut Effects<'_>) -> Result<(), Bad> {
        if !core.live() {
            self.s = Self::fresh(self.ports());
        }
        while !self.s.messages.is_empty() {
            let Some(room) = core.held(CONTROL_IN).next().map(Job::writable) else { break };
            let message = self.s.messages.pop_front().expect("there is one");
            if room < message.len() as u64 {
                return Err(Bad("a buffer too small for a control message"));
            }
            finish(core, CONTROL_IN, message);
        }
        let multiport = core.side().features & feature::MULTIPORT != 0;
        for (port, input) in self.s.input.iter_mut().enumerate() {
            let queue = receive_queue(port);
            while let Some(room) = core.held(queue).next().map(Job::writable).filter(|_| !input.is_empty()) {
                let n = (room as usize).min(input.len());
                finish(core, queue, input.drain(..n).collect());
            }
            let waiting: u64 = core.held(queue).map(Job::writable).sum();
            let wanted = if !multiport || self.s.open[port] { waiting.min(MOST) } else { 0 };
            fx.host_want(port as u32, wanted.saturating_sub(input.len() as u64));
        }
        Ok(())
    }

    fn save(&self) -> State {
        self.s.clone()
    }

    fn restore(&mut self, s: State) -> Result<(), RestoreError> {
        let check = RestoreError::check;
        check(s.open.len() == self.ports() && s.input.len() == self.ports(), "another number of ports")?;
        check(s.input.iter().all(|i| i.len() as u64 <= MOST), "more input than it wants")?;
        let message = |m: &Vec<u8>| (MESSAGE as usize..=MESSAGE as usize + 60).contains(&m.len());
        check(s.messages.len() <= MAX_MESSAGES && s.messages.iter().all(message), "a control message")?;
        self.s = s;
        Ok(())
    }
}

fn finish(core: &mut Core<Vec<u8>>, queue: usize, bytes: Vec<u8>) {
    let len = bytes.len() as u32;
    core.finish(queue, Answer { parts: vec![Part { at: 0, data: Data::Bytes(bytes) }], len, joined: false });
}

#[cfg(test)]
mod tests;
