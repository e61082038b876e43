//! The virtio block device (VIRTIO 1.2, 5.2): reads, writes, flushes, discards, fills with zeros, tells its ID.
//!
//! What is read goes from the disk to guest memory without passing through the device. A device without a medium is there, with a capacity of 0.

mod spec;

use reprise_device::spec::PluginSpec;
use reprise_device::{ConfigError, Effects, RestoreError, export_device};
use reprise_virtio::{Answer, Bad, Class, Data, Job, Next, Part, Shape, Side, Virtio};
use serde::{Deserialize, Serialize};

use spec::{
    HEADER, ID, MAX_QUEUE, MAX_RANGES, MAX_SECTORS, RANGE, SECTOR, UNMAP, WRITEBACK, feature, outcome, request,
};

export_device!(Virtio<Blk>);

/// The only disk.
const DISK: u32 = 0;

/// The disk's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version 1 of the transport's registers, for kernels older than 2014.
    pub legacy: bool,
    /// The disk's ID, up to 20 bytes of ASCII.
    pub serial: String,
    /// Bytes of a logical block: a power of two from 512 to 65536.
    pub blk_size: u32,
    /// Bytes of a physical block: a power of two from `blk_size` up.
    pub physical_block: u32,
    /// Preferred bytes of a request, a multiple of `blk_size`; 0 for none.
    pub opt_io_size: u32,
    /// Most buffers of a request's data, 1 to 1022.
    pub seg_max: u32,
    /// Most entries of a queue, a power of two up to 256.
    pub queue_size: u16,
    /// Queues, 1 to 8.
    pub queues: u16,
    /// Whether a request may have a table of descriptors of its own.
    pub indirect: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            legacy: false,
            serial: String::new(),
            blk_size: 512,
            physical_block: 512,
            opt_io_size: 0,
            seg_max: 254,
            queue_size: 256,
            queues: 1,
            indirect: true,
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        let fail = |what: String| Err(ConfigError::new(what));
        if self.serial.len() > ID || !self.serial.is_ascii() {
            return fail(format!("serial: {:?} is not up to {ID} bytes of ASCII", self.serial));
        }
        if !self.blk_size.is_power_of_two() || !(512..=65_536).contains(&self.blk_size) {
            return fail(format!("blk_size: {} is not a power of two in 512..=65536", self.blk_size));
        }
        let times = self.physical_block / self.blk_size;
        if !self.physical_block.is_power_of_two() || !(1..=1 << 15).contains(&times) {
            return fail(format!("physical_block: {} is not blk_size times a power of two", self.physical_block));
        }
        if self.opt_io_size % self.blk_size != 0 {
            return fail(format!("opt_io_size: {} is not a multiple of blk_size", self.opt_io_size));
        }
        if !(1..=1022).contains(&self.seg_max) {
            return fail(format!("seg_max: {} is not in 1..=1022", self.seg_max));
        }
        if self.queue_size > MAX_QUEUE {
            return fail(format!("queue_size: {} is more than {MAX_QUEUE}", self.queue_size));
        }
        if !(1..=8).contains(&self.queues) {
            return fail(format!("queues: {} is not in 1..=8", self.queues));
        }
        Ok(())
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Type, reserved and sector, as far as they have come.
    header: Vec<u8>,
    /// What has come of a list of ranges.
    ranges: Vec<u8>,
    /// The data can't be written.
    failed: bool,
}

/// The device.
#[derive(Debug)]
pub struct Blk {
    cfg: Config,
    /// What is written need not be on the medium before a flush (5.2.4, `writeback`).
    writeback: bool,
}

/// A request's fixed part.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u32,
    sector: u64,
}

impl Header {
    fn of(task: &Task) -> Option<Self> {
        let b: &[u8; HEADER as usize] = task.header.as_slice().try_into().ok()?;
        let (kind, sector) = (b[0..4].try_into().expect("4 bytes"), b[8..16].try_into().expect("8 bytes"));
        Some(Self { kind: u32::from_le_bytes(kind), sector: u64::from_le_bytes(sector) })
    }
}

/// The first byte of `len` bytes from `sector` on, if they are whole sectors of the disk.
fn place(sector: u64, len: u64, fx: &Effects<'_>) -> Option<u64> {
    let size = fx.disk_len(DISK)?;
    let at = sector.checked_mul(SECTOR)?;
    (len % SECTOR == 0 && at.checked_add(len)? <= size).then_some(at)
}

fn writable(fx: &Effects<'_>) -> bool {
    fx.disk_len(DISK).is_some() && !fx.disk_read_only(DISK)
}

impl Class for Blk {
    const KIND: &'static str = "virtio-blk";
    const ID: u32 = 2;
    type Config = Config;
    type Task = Task;
    type State = bool;

    fn shape(cfg: &Config) -> Shape {
        let queues = vec![cfg.queue_size; cfg.queues.clamp(1, 8).into()];
        Shape { legacy: cfg.legacy, indirect: cfg.indirect, queues }
    }

    fn extend(_: &Config, spec: PluginSpec) -> PluginSpec {
        spec.disk("disk")
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), writeback: true })
    }

    fn features(&self, fx: &Effects<'_>) -> u64 {
        let mut all = feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY | feature::FLUSH | feature::CONFIG_WCE;
        if self.cfg.queues > 1 {
            all |= feature::MQ;
        }
        if fx.disk_len(DISK).is_some() && fx.disk_read_only(DISK) {
            all | feature::RO
        } else {
            all | feature::DISCARD | feature::WRITE_ZEROES
        }
    }

    fn config(&self, features: u64, fx: &Effects<'_>) -> Vec<u8> {
        let block = self.cfg.blk_size;
        let blocks = fx.disk_len(DISK).unwrap_or(0) / u64::from(block);
        let per_block = u64::from(block) / SECTOR;
        let exponent = (self.cfg.physical_block / block).trailing_zeros() as u8;
        let writeback = features & feature::CONFIG_WCE == 0 || self.writeback;
        let mut c = Vec::with_capacity(60);
        c.extend((blocks * per_block).to_le_bytes());
        c.extend(0u32.to_le_bytes()); // size_max: not offered
        c.extend(self.cfg.seg_max.to_le_bytes());
        c.extend([0; 4]); // geometry: not offered
        c.extend(block.to_le_bytes());
        c.extend([exponent, 0]);
        c.extend(1u16.to_le_bytes()); // min_io_size, in blocks
        c.extend((self.cfg.opt_io_size / block).to_le_bytes());
        c.extend([writeback.into(), 0]);
        c.extend(self.cfg.queues.to_le_bytes());
        for value in [MAX_SECTORS, MAX_RANGES, per_block as u32, MAX_SECTORS, MAX_RANGES] {
            c.extend(value.to_le_bytes());
        }
        c.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
        c
    }

    fn write_config(&mut self, offset: u64, _: u8, value: u64, _: &mut Effects<'_>) {
        if offset == WRITEBACK {
            self.writeback = value & 1 != 0;
        }
    }

    fn reset(&mut self) {
        self.writeback = true;
    }

    fn admit(&mut self, _: usize, job: &Job<Task>) -> Result<u64, Bad> {
        if job.readable() < HEADER || job.writable() == 0 {
            return Err(Bad("a request without a header or without room for its status"));
        }
        Ok(job.readable())
    }

    fn take(&mut self, _: usize, job: &mut Job<Task>, piece: &[u8], _: Side, fx: &mut Effects<'_>) -> Result<(), Bad> {
        let missing = (HEADER as usize - job.task.header.len()).min(piece.len());
        let (head, data) = piece.split_at(missing);
        job.task.header.extend_from_slice(head);
        let Some(header) = Header::of(&job.task) else { return Ok(()) };
        if data.is_empty() {
            return Ok(());
        }
        match header.kind {
            request::OUT => {
                // All of it fits, or none of it is written.
                match place(header.sector, job.readable() - HEADER, fx) {
                    Some(at) if writable(fx) => {
                        let done = (job.taken() + missing as u64) - HEADER;
                        fx.disk_write(DISK, at + done, data);
                    }
                    _ => job.task.failed = true,
                }
            }
            request::DISCARD | request::WRITE_ZEROES => {
                if job.readable() - HEADER > RANGE * u64::from(MAX_RANGES) {
                    job.task.failed = true;
                } else {
                    job.task.ranges.extend_from_slice(data);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self, _: usize, job: &mut Job<Task>, side: Side, fx: &mut Effects<'_>) -> Result<Next, Bad> {
        let Some(header) = Header::of(&job.task) else { return Err(Bad("a request without a header")) };
        // The status is the last byte of the chain; data is what lies before it.
        let room = job.writable() - 1;
        let mut parts = Vec::new();
        let status = match header.kind {
            request::IN => match place(header.sector, room, fx) {
                Some(offset) => {
                    parts.push(Part { at: 0, data: Data::Disk { disk: DISK, offset, len: room } });
                    outcome::OK
                }
                None => outcome::IOERR,
            },
            request::OUT => {
                let good =
                    !job.task.failed && place(header.sector, job.readable() - HEADER, fx).is_some() && writable(fx);
                if good && (side.features & feature::FLUSH == 0 || !self.writeback) {
                    fx.disk_flush(DISK);
                }
                if good { outcome::OK } else { outcome::IOERR }
            }
            request::FLUSH => {
                if fx.disk_len(DISK).is_some() {
                    fx.disk_flush(DISK);
                    outcome::OK
                } else {
                    outcome::IOERR
                }
            }
            request::GET_ID => {
                let mut id = self.cfg.serial.clone().into_bytes();
                id.resize(ID.min(room as usize), 0);
                parts.push(Part { at: 0, data: Data::Bytes(id) });
                outcome::OK
            }
            request::DISCARD | request::WRITE_ZEROES => clear(&header, &job.task, fx),
            _ => outcome::UNSUPP,
        };
        parts.push(Part { at: room, data: Data::Bytes(vec![status]) });
        Ok(Next::Done(Answer { parts, len: job.writable() as u32, joined: false }))
    }

    fn save(&self) -> bool {
        self.writeback
    }

    fn restore(&mut self, writeback: bool) -> Result<(), RestoreError> {
        self.writeback = writeback;
        Ok(())
    }
}

/// Discards ranges or fills them with zeros, which is the same here: all of them, or none if one is wrong (5.2.6.2).
fn clear(header: &Header, task: &Task, fx: &mut Effects<'_>) -> u8 {
    let list = &task.ranges;
    if task.failed || !writable(fx) || list.is_empty() || list.len() % RANGE as usize != 0 {
        return outcome::IOERR;
    }
    let mut places = Vec::with_capacity(list.len() / RANGE as usize);
    for r in list.chunks_exact(RANGE as usize) {
        let sector = u64::from_le_bytes(r[0..8].try_into().expect("8 bytes"));
        let [sectors, flags] = [8, 12].map(|i| u32::from_le_bytes(r[i..i + 4].try_into().expect("4 bytes")));
        let allowed = if header.kind == request::WRITE_ZEROES { UNMAP } else { 0 };
        if flags & !allowed != 0 {
            return outcome::UNSUPP;
        }
        let len = u64::from(sectors) * SECTOR;
        match place(sector, len, fx) {
            Some(at) if sectors <= MAX_SECTORS => places.push((at, len)),
            _ => return outcome::IOERR,
        }
    }
    places.iter().filter(|p| p.1 > 0).for_each(|&(at, len)| fx.disk_discard(DISK, at, len));
    outcome::OK
}

#[cfg(test)]
mod tests;
