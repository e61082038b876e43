//! The [`Device`] trait, the events that drive a device and the effects it has.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::glue::{Outputs, Sink};
use crate::spec::PluginSpec;

/// Guest time in nanoseconds since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct VTime(pub u64);

impl VTime {
    /// The instant `ns` nanoseconds later; saturates at the end of time, where no deadline is ever reached.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How many whole ticks of a clock of `hz` lie between time 0 and here (rounded down, truncated to 64 bits).
    #[must_use]
    pub fn ticks(self, hz: u64) -> u64 {
        (u128::from(self.0) * u128::from(hz) / 1_000_000_000) as u64
    }

    /// The first instant at which [`VTime::ticks`] of `hz` is at least `ticks`; saturates.
    ///
    /// # Panics
    /// If `hz` is 0.
    #[must_use]
    pub fn of_tick(ticks: u64, hz: u64) -> Self {
        assert!(hz > 0, "a clock of 0 Hz has no ticks");
        Self(u64::try_from((u128::from(ticks) * 1_000_000_000).div_ceil(u128::from(hz))).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for VTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// What happens to a device. All but a posted write are synchronous: the CPU waits until the device is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The board's reset line: the device goes back to the state that [`Device::new`] made.
    Reset,
    /// The CPU reads a register. The device must call [`Effects::reply`] once, with this tag, before it returns.
    Read {
        /// Names this access in the reply.
        tag: u64,
        /// Byte offset in the device's window.
        offset: u64,
        /// Bytes: 1, 2, 4 or 8; `offset` is a multiple of it.
        size: u8,
    },
    /// The CPU writes a register. The host acknowledges it; whether it is posted is said by the [`PluginSpec`].
    Write {
        /// Names this access.
        tag: u64,
        /// Byte offset in the device's window.
        offset: u64,
        /// Bytes: 1, 2, 4 or 8; `offset` is a multiple of it.
        size: u8,
        /// The data, in the low `size` bytes; the rest is 0.
        value: u64,
    },
    /// An input pin changed.
    Line {
        /// Index into [`PluginSpec::inputs`].
        pin: u32,
        /// Its new level.
        level: bool,
    },
    /// A timer that [`Effects::arm`] set has come; it is no longer armed.
    Timer(
        /// The timer's number, below [`PluginSpec::timers`].
        u32,
    ),
    /// A DMA transfer is complete.
    DmaDone {
        /// The tag given to [`Effects::dma`].
        tag: u64,
        /// The bytes of all read ranges, one after the other.
        data: &'a [u8],
    },
    /// Bytes from the outside: a key, a packet. Never more than [`Effects::host_want`] asked for.
    Host {
        /// Index into [`PluginSpec::ports`].
        port: u32,
        /// The bytes.
        data: &'a [u8],
    },
    /// The CPU has taken values from a queue. The SDK has removed them from what it knows of the queue; the device makes it so
    /// in its own state, and may queue more.
    Popped {
        /// Index into [`PluginSpec::queues`].
        queue: u16,
        /// How many, at least 1.
        count: u32,
    },
}

/// A range of guest physical addresses to read by DMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DmaRange {
    /// First guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

/// Bytes to write to guest RAM by DMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaWrite<'a> {
    /// First guest physical address.
    pub addr: u64,
    /// The bytes.
    pub data: DmaData<'a>,
}

/// Where the bytes of a [`DmaWrite`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaData<'a> {
    /// From the device.
    Bytes(&'a [u8]),
    /// From a disk, as it is at this moment. They need not be copied through the device, and a recording can name the disk's image instead of
    /// holding them.
    Disk {
        /// Index into [`PluginSpec::disks`].
        disk: u32,
        /// First byte on the disk.
        offset: u64,
        /// How many.
        len: u64,
    },
}

impl DmaData<'_> {
    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty write is as good as any")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(data) => data.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }
}

/// What a device does to the world, in the order of the calls.
///
/// Levels, shadows, timers and wants that are set to what they already are make no event, so a device may simply state all of
/// them after each step. An index that the device's [`PluginSpec`] does not have panics: it is a bug of the device, which the host
/// reports as a fault.
pub struct Effects<'a> {
    pub(crate) sink: &'a mut dyn Sink,
    pub(crate) outputs: &'a mut Outputs,
    /// This step is that of host input, which uses up what was wanted: wants are passed on even if they are the same as before.
    pub(crate) restate_wants: bool,
}

impl Effects<'_> {
    /// Answers the read named `tag`. Exactly once in the step of that read.
    pub fn reply(&mut self, tag: u64, value: u64) {
        self.sink.reply(tag, value);
    }

    /// Drives output pin `pin` (index into [`PluginSpec::outputs`]).
    pub fn line(&mut self, pin: u32, level: bool) {
        if std::mem::replace(&mut self.outputs.lines[pin as usize], level) != level {
            self.sink.line(pin, level);
        }
    }

    /// Drives output pin `pin` high and low again: two edges at one instant.
    pub fn pulse(&mut self, pin: u32) {
        self.line(pin, true);
        self.line(pin, false);
    }

    /// Sets timer `id` (below [`PluginSpec::timers`]) to go off once, at the first position whose guest time is at least `at`. An earlier
    /// setting is replaced. Not allowed in a posted write.
    pub fn arm(&mut self, id: u32, at: VTime) {
        if self.outputs.timers[id as usize].replace(at) != Some(at) {
            self.sink.arm(id, at);
        }
    }

    /// Stops timer `id`. Not allowed in a posted write.
    pub fn disarm(&mut self, id: u32) {
        if self.outputs.timers[id as usize].take().is_some() {
            self.sink.disarm(id);
        }
    }

    /// Sets or stops timer `id`.
    pub fn timer(&mut self, id: u32, at: Option<VTime>) {
        match at {
            Some(at) => self.arm(id, at),
            None => self.disarm(id),
        }
    }

    /// Asks for a DMA transfer: all `writes` are applied, and all `reads` taken, at one position. [`Event::DmaDone`] follows with `tag`,
    /// which is below 2^32.
    pub fn dma(&mut self, tag: u64, reads: &[DmaRange], writes: &[DmaWrite<'_>]) {
        self.sink.dma(tag, reads, writes);
    }

    /// States the value of shadow register `shadow` (index into [`PluginSpec::shadows`]): what a read of it gives from now on.
    pub fn publish(&mut self, shadow: u16, value: u64) {
        if std::mem::replace(&mut self.outputs.shadows[shadow as usize], value) != value {
            self.sink.publish(shadow, value);
        }
    }

    /// Sends bytes to the outside. `port` is an index into [`PluginSpec::ports`].
    pub fn host_out(&mut self, port: u32, data: &[u8]) {
        assert!((port as usize) < self.outputs.wants.len(), "host_out: no port {port}");
        if !data.is_empty() {
            self.sink.host_out(port, data);
        }
    }

    /// Appends values to queue `queue` (index into [`PluginSpec::queues`]), for reads of its register. Not in the step of such a read, nor in that of a posted
    /// write.
    ///
    /// # Panics
    /// If the queue would hold more than its depth.
    pub fn queue(&mut self, queue: u16, values: &[u32]) {
        if values.is_empty() {
            return;
        }
        let (held, depth) = &mut self.outputs.queues[usize::from(queue)];
        assert!(held.len() + values.len() <= *depth as usize, "queue {queue} holds at most {depth} values");
        held.extend(values);
        self.sink.queue(queue, values);
    }

    /// How many values of queue `queue` were not taken yet, as far as the device was told.
    #[must_use]
    pub fn queued(&self, queue: u16) -> usize {
        self.outputs.queues[usize::from(queue)].0.len()
    }

    /// Throws away what queue `queue` holds.
    pub fn queue_clear(&mut self, queue: u16) {
        let held = &mut self.outputs.queues[usize::from(queue)].0;
        if !held.is_empty() {
            held.clear();
            self.sink.queue_clear(queue);
        }
    }

    /// The size of disk `disk` (index into [`PluginSpec::disks`]) in bytes, a multiple of 512; `None` if there is no medium. It does not change while the
    /// machine runs.
    ///
    /// A disk is part of the device's state that lives outside of it: what it holds depends on the image at the machine's start and on what the device wrote.
    #[must_use]
    pub fn disk_len(&self, disk: u32) -> Option<u64> {
        self.sink.disk_len(disk)
    }

    /// Whether disk `disk` can't be written.
    #[must_use]
    pub fn disk_read_only(&self, disk: u32) -> bool {
        self.sink.disk_read_only(disk)
    }

    /// Reads from a disk. A range outside of the disk is a fault of the device.
    pub fn disk_read(&mut self, disk: u32, offset: u64, buffer: &mut [u8]) {
        self.sink.disk_read(disk, offset, buffer);
    }

    /// Writes to a disk. A range outside of the disk, or a disk that can't be written, is a fault of the device.
    pub fn disk_write(&mut self, disk: u32, offset: u64, data: &[u8]) {
        self.sink.disk_write(disk, offset, data);
    }

    /// Makes a range of a disk read as zeros. The same rules as for a write.
    pub fn disk_discard(&mut self, disk: u32, offset: u64, len: u64) {
        self.sink.disk_discard(disk, offset, len);
    }

    /// What was written to a disk is to survive a crash of the host.
    pub fn disk_flush(&mut self, disk: u32) {
        self.sink.disk_flush(disk);
    }

    /// States how many more bytes (packets, on a port of packets) of host input the device can take on `port` after this step. The host never sends
    /// more, counting what is on its way.
    pub fn host_want(&mut self, port: u32, bytes: u64) {
        if std::mem::replace(&mut self.outputs.wants[port as usize], bytes) != bytes || self.restate_wants {
            self.sink.host_want(port, bytes);
        }
    }
}

/// Why a device could not be made from its config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What is wrong and what to do.
    pub message: String,
    /// Line and column in the config's text, from 1; (0, 0) if the text as a whole is meant.
    pub at: (u32, u32),
}

impl ConfigError {
    /// An error about the config as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: (0, 0) }
    }
}

/// Why a device could not be restored from a saved state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);

impl RestoreError {
    /// `Ok` if `holds`, else an error that says `what` is impossible.
    ///
    /// # Errors
    /// If `holds` is false.
    pub fn check(holds: bool, what: &str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self(format!("impossible state: {what}"))) }
    }
}

/// A device: a pure step function. See the [crate's page](crate) for the rules.
pub trait Device: Sized + 'static {
    /// The plugin's name, as in a machine file: lower-case letters, digits and dashes.
    const KIND: &'static str;
    /// The `config` value of the machine file. Use `#[serde(default, deny_unknown_fields)]`.
    type Config: DeserializeOwned;
    /// The saved state: an enum with one variant for each version of it, so that a newer plugin can still restore an older state. It
    /// must not depend on the order of anything that has no order.
    type State: Serialize + DeserializeOwned;

    /// Describes the device made from `cfg`. Must depend on nothing else.
    fn spec(cfg: &Self::Config) -> PluginSpec;

    /// Makes the device as it is before its first [`Event::Reset`].
    ///
    /// # Errors
    /// If `cfg` holds a value that makes no sense.
    fn new(cfg: &Self::Config) -> Result<Self, ConfigError>;

    /// Takes one event at guest time `now`, which never runs backwards.
    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>);

    /// The whole state. What [`Effects`] remembers (levels, shadows, timers, wants) is saved beside it.
    fn save(&self) -> Self::State;

    /// Makes a device with that state. Any decodable value can come: check it.
    ///
    /// # Errors
    /// If `state` is impossible for a device made from `cfg`.
    fn restore(cfg: &Self::Config, state: Self::State) -> Result<Self, RestoreError>;
}

#[cfg(test)]
mod tests {
    use super::VTime;

    #[test]
    fn ticks_and_their_instants_agree() {
        for hz in [1, 100, 32_768, 1_000_000, 24_000_000, 999_999_937] {
            for tick in [0, 1, 2, 3, 77, 1_000_003, 1 << 40] {
                let at = VTime::of_tick(tick, hz);
                if at.0 == u64::MAX {
                    continue;
                }
                assert!(at.ticks(hz) >= tick);
                assert!(tick == 0 || VTime(at.0 - 1).ticks(hz) < tick, "{tick} of {hz} Hz");
            }
        }
        assert_eq!(VTime::of_tick(u64::MAX, 1), VTime(u64::MAX));
    }
}
