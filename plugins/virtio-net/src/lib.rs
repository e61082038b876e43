//! The virtio network device (VIRTIO 1.2, 5.1): one pair of queues, mergeable receive buffers, no offloads, so every packet on its port is a whole Ethernet
//! frame without a frame check sequence.

use std::collections::VecDeque;

use reprise_device::spec::{Direction, PluginSpec};
use reprise_device::{ConfigError, Effects, RestoreError, export_device};
use reprise_virtio::{Answer, Bad, Class, Core, Data, Job, Next, Part, Shape, Side, Virtio};
use serde::{Deserialize, Serialize};

export_device!(Virtio<Net>);

/// Feature bits (5.1.3).
mod feature {
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
}

/// The queues, and the ports.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const WIRE: u32 = 0;
/// The port on which it hears of its cable.
const CABLE: u32 = 1;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// A tag of IEEE 802.1Q.
const TAG: usize = 4;
/// Most packets that are wanted at a time.
const PACKETS: u64 = 64;

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version 1 of the transport's registers, for kernels older than 2014.
    pub legacy: bool,
    /// The address, six bytes in hexadecimal with colons between them.
    pub mac: String,
    /// Most bytes of a packet behind the Ethernet header, 68 to 65535.
    pub mtu: u16,
    /// Whether the link is up.
    pub link: bool,
    /// Most entries of a queue, a power of two up to 1024.
    pub queue_size: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { legacy: false, mac: "52:54:00:12:34:56".into(), mtu: 1500, link: true, queue_size: 256 }
    }
}

impl Config {
    fn mac(&self) -> Result<[u8; 6], ConfigError> {
        let fail = || ConfigError::new(format!("mac: {:?} is not an address such as \"52:54:00:12:34:56\"", self.mac));
        let bytes: Option<Vec<u8>> = (self.mac.split(':'))
            .map(|b| u8::from_str_radix(b, 16).ok().filter(|_| b.len() == 2 && !b.starts_with('+')))
            .collect();
        let mac: [u8; 6] = bytes.and_then(|b| b.try_into().ok()).ok_or_else(fail)?;
        if mac[0] & 1 != 0 {
            return Err(ConfigError::new(format!("mac: {} is the address of a group", self.mac)));
        }
        Ok(mac)
    }
}

/// The state besides queues.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Frames that have come and wait for buffers.
    frames: VecDeque<Vec<u8>>,
}

/// The device.
#[derive(Debug)]
pub struct Net {
    cfg: Config,
    mac: [u8; 6],
    s: State,
    /// The cable is plugged in.
    plugged: bool,
}

/// Bytes before a frame (5.1.6): without `num_buffers` only in the legacy interface, if buffers are not merged (5.1.6.1).
fn header(side: Side) -> usize {
    if side.legacy && side.features & feature::MRG_RXBUF == 0 { 10 } else { 12 }
}

impl Net {
    /// Whether the link is up (5.1.4, `status`).
    fn link(&self) -> bool {
        self.cfg.link && self.plugged
    }

    /// The longest frame.
    fn longest(&self) -> usize {
        usize::from(self.cfg.mtu) + ETHERNET + TAG
    }

    /// Puts a frame into as many buffers as it takes; `Ok(false)` if there are too few yet.
    fn receive(&self, frame: &[u8], core: &mut Core<Vec<u8>>) -> bool {
        let side = core.side();
        let merges = side.features & feature::MRG_RXBUF != 0;
        let total = header(side) + frame.len();
        let (mut sizes, mut room) = (Vec::new(), 0);
        for buffer in core.held(RECEIVE).map(|j| j.writable() as usize) {
            sizes.push(buffer);
            room += buffer;
            if room >= total || !merges {
                break;
            }
        }
        if room < total {
            // One buffer that is too small for it will not grow: the frame is lost, as on a card whose FIFO runs over.
            return !merges && !sizes.is_empty();
        }
        let mut bytes = vec![0; header(side)];
        if bytes.len() == 12 {
            bytes[10..].copy_from_slice(&(sizes.len() as u16).to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        let mut rest = bytes.as_slice();
        for (i, &size) in sizes.iter().enumerate() {
            let (head, tail) = rest.split_at(size.min(rest.len()));
            rest = tail;
            let parts = vec![Part { at: 0, data: Data::Bytes(head.to_vec()) }];
            core.finish(RECEIVE, Answer { parts, len: head.len() as u32, joined: i + 1 < sizes.len() });
        }
        true
    }

    /// How many of the longest frames the buffers that wait can take for sure.
    fn capacity(&self, core: &Core<Vec<u8>>) -> u64 {
        let side = core.side();
        let need = header(side) + self.longest();
        if side.features & feature::MRG_RXBUF == 0 {
            return (core.held(RECEIVE).count() as u64).min(PACKETS);
        }
        let (mut count, mut room) = (0, 0);
        for buffer in core.held(RECEIVE) {
            room += buffer.writable() as usize;
            if room >= need {
                (count, room) = (count + 1, 0);
            }
            if count == PACKETS {
                break;
            }
        }
        count
    }
}

impl Class for Net {
    const KIND: &'static str = "virtio-net";
    const ID: u32 = 1;
    const CHANGES: bool = true;
    type Config = Config;
    /// What has come of a frame that is sent.
    type Task = Vec<u8>;
    type State = State;

    fn shape(cfg: &Config) -> Shape {
        Shape { legacy: cfg.legacy, indirect: true, queues: vec![cfg.queue_size; 2] }
    }

    fn extend(_: &Config, spec: PluginSpec) -> PluginSpec {
        spec.packets("wire", Direction::Both).port("cable", Direction::In)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        if cfg.mtu < 68 {
            return Err(ConfigError::new(format!("mtu: {} is less than 68", cfg.mtu)));
        }
        Ok(Self { cfg: cfg.clone(), mac: cfg.mac()?, s: State::default(), plugged: true })
    }

    fn features(&self, _: &Effects<'_>) -> u64 {
        feature::MTU | feature::MAC | feature::MRG_RXBUF | feature::STATUS
    }

    fn config(&self, _: u64, _: &Effects<'_>) -> Vec<u8> {
        let mut c = self.mac.to_vec();
        c.extend(u16::from(self.link()).to_le_bytes());
        c.extend(1u16.to_le_bytes());
        c.extend(self.cfg.mtu.to_le_bytes());
        c
    }

    fn reset(&mut self) {
        self.s = State::default();
    }

    fn admit(&mut self, queue: usize, job: &Job<Vec<u8>>) -> Result<u64, Bad> {
        match queue {
            RECEIVE if job.writable() == 0 => Err(Bad("a receive buffer without room")),
            TRANSMIT if job.readable() < 10 => Err(Bad("a packet without a header")),
            // What is too long is not looked at.
            TRANSMIT if job.readable() <= (12 + self.longest()) as u64 => Ok(job.readable()),
            _ => Ok(0),
        }
    }

    fn take(
        &mut self,
        _: usize,
        job: &mut Job<Vec<u8>>,
        piece: &[u8],
        _: Side,
        _: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        job.task.extend_from_slice(piece);
        Ok(())
    }

    fn answer(&mut self, queue: usize, job: &mut Job<Vec<u8>>, side: Side, fx: &mut Effects<'_>) -> Result<Next, Bad> {
        if queue == RECEIVE {
            return Ok(Next::Hold);
        }
        let frame = job.task.get(header(side)..).unwrap_or(&[]);
        if (ETHERNET..=self.longest()).contains(&frame.len()) && self.link() {
            fx.host_out(WIRE, frame);
        }
        job.task = Vec::new();
        Ok(Next::Done(Answer::default()))
    }

    fn host(&mut self, port: u32, data: &[u8]) {
        if port == CABLE {
            self.plugged = data.last().map_or(self.plugged, |&byte| byte != 0);
        } else if (ETHERNET..=self.longest()).contains(&data.len()) && (self.s.frames.len() as u64) < PACKETS {
            self.s.frames.push_back(data.to_vec());
        }
    }

    fn settle(&mut self, core: &mut Core<Vec<u8>>, fx: &mut Effects<'_>) -> Result<(), Bad> {
        if !core.live() {
            self.s.frames.clear();
        }
        while let Some(frame) = self.s.frames.pop_front() {
            if !self.receive(&frame, core) {
                self.s.frames.push_front(frame);
                break;
            }
        }
        let free = self.capacity(core).saturating_sub(self.s.frames.len() as u64);
        fx.host_want(WIRE, if self.link() { free } else { 0 });
        // It always has an ear for its cable.
        fx.host_want(CABLE, 1);
        Ok(())
    }

    fn cable(&self) -> bool {
        self.plugged
    }

    fn set_cable(&mut self, plugged: bool) {
        self.plugged = plugged;
    }

    fn save(&self) -> State {
        self.s.clone()
    }

    fn restore(&mut self, s: State) -> Result<(), RestoreError> {
        RestoreError::check(s.frames.len() as u64 <= PACKETS, "more frames than it wants")?;
        RestoreError::check(s.frames.iter().all(|f| f.len() <= self.longest()), "a frame that is too long")?;
        self.s = s;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
