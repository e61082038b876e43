//! The static description of a device: what its registers are and how cpu-proc may access them.
//!
//! A spec comes from a plugin, through its device process, so whoever uses one first calls [`PluginSpec::check`].

use serde::{Deserialize, Serialize};

use crate::device::VTime;

/// The limits of a spec.
pub mod limits {
    /// Bytes in a kind, version, register, pin, port or shadow name.
    pub const NAME: usize = 64;
    /// Bytes in the name of a manual's section.
    pub const SECTION: usize = 128;
    /// Registers.
    pub const REGISTERS: usize = 4096;
    /// Shadows.
    pub const SHADOWS: usize = 64;
    /// Pins in each direction.
    pub const PINS: usize = 256;
    /// Ports.
    pub const PORTS: usize = 16;
    /// Timers.
    pub const TIMERS: u32 = 64;
    /// Disks.
    pub const DISKS: usize = 8;
    /// Queues.
    pub const QUEUES: usize = 16;
    /// Values in one queue.
    pub const QUEUE_DEPTH: u32 = 4096;
    /// Bytes of address space.
    pub const WINDOW: u64 = 1 << 30;
    /// The fastest clock that a register can count, in Hz.
    pub const CLOCK_HZ: u64 = 10_000_000_000;
}

/// Which accesses have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Reads and writes.
    ReadWrite,
    /// Reads; a write does nothing.
    ReadOnly,
    /// Writes; a read gives 0.
    WriteOnly,
}

/// How a read is answered. What is said here and what the device itself answers to [`Event::Read`](crate::Event::Read) are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadPolicy {
    /// The device is asked, and the CPU waits.
    Sync,
    /// cpu-proc answers with the last published value of this shadow (index into [`PluginSpec::shadows`]), after the device is past every
    /// posted write that names it.
    Shadow(u16),
    /// Always this value.
    Const(u64),
    /// A free-running counter: the number of whole ticks of `hz` since guest time 0, truncated to the size of the access. cpu-proc
    /// works it out with [`VTime::ticks`].
    Clock {
        /// Ticks a second.
        hz: u64,
    },
    /// A read takes the first value of this queue (index into [`PluginSpec::queues`]). The device fills it ahead with
    /// [`Effects::queue`](crate::Effects::queue), so cpu-proc answers by itself; what was taken is told with
    /// [`Event::Popped`](crate::Event::Popped), at the latest when the queue is empty and before anything else reaches the device. The device is
    /// asked when the queue is empty.
    Queue(u16),
}

/// How a write is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WritePolicy {
    /// The CPU waits until the device has acknowledged it.
    Sync,
    /// The CPU goes on at once. Such a write lowers no line, arms and disarms no timer, and changes no queue.
    Posted {
        /// The shadows that it may change.
        shadows: Vec<u16>,
    },
    /// As [`Self::Sync`], for a register that is read as a shadow and keeps what is written: to write the value that the shadow already has
    /// does nothing at all, so cpu-proc leaves such a write out.
    Stored,
    /// As [`Self::Posted`], for a register that drivers write many times in a row: a data FIFO. cpu-proc sends what is written within a short
    /// time together. The device sees each write by itself, at its own time, and in order with everything else.
    Fifo {
        /// The shadows that it may change.
        shadows: Vec<u16>,
    },
}

impl WritePolicy {
    /// The shadows that a write for which the CPU does not wait may change; none if it waits.
    #[must_use]
    pub fn posted(&self) -> Option<&[u16]> {
        match self {
            Self::Posted { shadows } | Self::Fifo { shadows } => Some(shadows),
            Self::Sync | Self::Stored => None,
        }
    }
}

/// One register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its name in the manual.
    pub name: String,
    /// Byte offset in the window.
    pub offset: u64,
    /// The access sizes for which the policies hold: the sum of 1, 2, 4 and 8. A smaller access reads and writes the low bytes. Any other
    /// access to the register's bytes is [`ReadPolicy::Sync`] or [`WritePolicy::Sync`].
    pub sizes: u8,
    /// Value after reset, as a read gives it.
    pub reset: u64,
    /// Which accesses have a meaning.
    pub access: Access,
    /// How reads are answered.
    pub read: ReadPolicy,
    /// How writes are done.
    pub write: WritePolicy,
    /// Where the manual describes it.
    pub section: String,
}

impl Register {
    /// A 32-bit register, to be accessed whole; synchronous until said otherwise.
    fn of(access: Access, name: &str, offset: u64, reset: u64, section: &str) -> Self {
        Self {
            name: name.into(),
            offset,
            sizes: 4,
            reset,
            access,
            read: ReadPolicy::Sync,
            write: WritePolicy::Sync,
            section: section.into(),
        }
    }

    /// A readable and writable register.
    #[must_use]
    pub fn rw(name: &str, offset: u64, reset: u64, section: &str) -> Self {
        Self::of(Access::ReadWrite, name, offset, reset, section)
    }

    /// A read-only register; writes to it are posted, as they do nothing.
    #[must_use]
    pub fn ro(name: &str, offset: u64, reset: u64, section: &str) -> Self {
        Self::of(Access::ReadOnly, name, offset, reset, section).posted(&[])
    }

    /// A write-only register; reads give 0.
    #[must_use]
    pub fn wo(name: &str, offset: u64, section: &str) -> Self {
        Self::of(Access::WriteOnly, name, offset, 0, section).constant()
    }

    /// Sets the access sizes (sum of 1, 2, 4, 8).
    #[must_use]
    pub fn sizes(mut self, sizes: u8) -> Self {
        self.sizes = sizes;
        self
    }

    /// Reads come from shadow `index`.
    #[must_use]
    pub fn shadow(mut self, index: u16) -> Self {
        self.read = ReadPolicy::Shadow(index);
        self
    }

    /// Reads always give the reset value.
    #[must_use]
    pub fn constant(mut self) -> Self {
        self.read = ReadPolicy::Const(self.reset);
        self
    }

    /// Reads count a clock of `hz`.
    #[must_use]
    pub fn clock(mut self, hz: u64) -> Self {
        self.read = ReadPolicy::Clock { hz };
        self
    }

    /// Reads take the first value of queue `index`.
    #[must_use]
    pub fn queue(mut self, index: u16) -> Self {
        self.read = ReadPolicy::Queue(index);
        self
    }

    /// Writes are posted and may change `shadows`.
    #[must_use]
    pub fn posted(mut self, shadows: &[u16]) -> Self {
        self.write = WritePolicy::Posted { shadows: shadows.to_vec() };
        self
    }

    /// Writes are posted, several at a time, and may change `shadows`.
    #[must_use]
    pub fn fifo(mut self, shadows: &[u16]) -> Self {
        self.write = WritePolicy::Fifo { shadows: shadows.to_vec() };
        self
    }

    /// A write of the value that the register's shadow already has does nothing at all.
    #[must_use]
    pub fn stored(mut self) -> Self {
        self.write = WritePolicy::Stored;
        self
    }

    /// Bytes that the register covers: its widest access.
    #[must_use]
    pub fn span(&self) -> u64 {
        1 << (7 - (self.sizes & 0xf).leading_zeros().min(7))
    }

    /// Whether the policies hold for accesses of `size` bytes.
    #[must_use]
    pub fn takes(&self, size: u8) -> bool {
        matches!(size, 1 | 2 | 4 | 8) && self.sizes & size != 0
    }
}

/// The eight identification registers at the end of a 4 KiB PrimeCell: bytes at 0xfe0, 0xfe4 ... 0xffc. `kind` prefixes their names.
#[must_use]
pub fn primecell_ids(kind: &str, ids: [u8; 8], section: &str) -> Vec<Register> {
    let one = |(i, &id): (usize, &u8)| {
        let name = if i < 4 { format!("{kind}PeriphID{i}") } else { format!("{kind}PCellID{}", i - 4) };
        Register::ro(&name, 0xfe0 + 4 * i as u64, id.into(), section).sizes(7).constant()
    };
    ids.iter().enumerate().map(one).collect()
}

/// A value that the device publishes and cpu-proc keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// What it is, usually a register's name.
    pub name: String,
    /// Its value until the device publishes another.
    pub reset: u64,
}

/// Which way bytes go through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the outside to the device.
    In,
    /// From the device to the outside.
    Out,
    /// Both.
    Both,
}

/// What goes through a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Framing {
    /// A stream of bytes: pieces may be joined and cut on the way. Wants are counted in bytes.
    #[default]
    Bytes,
    /// Packets: each [`Event::Host`](crate::Event::Host) and each [`Effects::host_out`](crate::Effects::host_out) is one. Wants are counted in packets.
    Packets,
}

/// A connection to a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Which way bytes go.
    pub direction: Direction,
    /// Whether the borders between messages matter.
    pub framing: Framing,
}

/// Values that the device has ready for a register whose reads take one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// What it is, usually a register's name.
    pub name: String,
    /// Most values that it holds.
    pub depth: u32,
}

/// Describes one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSpec {
    /// [`Device::KIND`](crate::Device::KIND).
    pub kind: String,
    /// The plugin's version.
    pub version: String,
    /// Bytes of address space that it decodes; a multiple of 4.
    pub window: u64,
    /// Its registers, by ascending offset. An access that none of them takes is synchronous.
    pub registers: Vec<Register>,
    /// The shadows, in the order of their indices.
    pub shadows: Vec<Shadow>,
    /// Names of the input pins, in the order of their indices.
    pub inputs: Vec<String>,
    /// Names of the output pins, in the order of their indices.
    pub outputs: Vec<String>,
    /// The ports, in the order of their indices.
    pub ports: Vec<Port>,
    /// How many timers it may arm.
    pub timers: u32,
    /// The queues, in the order of their indices.
    pub queues: Vec<Queue>,
    /// Names of the disks that it can have, in the order of their indices.
    pub disks: Vec<String>,
}

/// The first byte of an encoded spec of this version. Earlier ones begin with the length of the kind, which is never 0.
const ENCODED: u8 = 0;
/// The second byte.
const ENCODING: u8 = 2;

/// A spec as it was encoded up to plugin ABI 1.
#[derive(Deserialize)]
struct SpecV1 {
    kind: String,
    version: String,
    window: u64,
    registers: Vec<Register>,
    shadows: Vec<Shadow>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    ports: Vec<(String, Direction)>,
    timers: u32,
}

impl From<SpecV1> for PluginSpec {
    fn from(old: SpecV1) -> Self {
        let SpecV1 { kind, version, window, registers, shadows, inputs, outputs, ports, timers } = old;
        let port = |(name, direction)| Port { name, direction, framing: Framing::Bytes };
        let ports = ports.into_iter().map(port).collect();
        let (queues, disks) = (Vec::new(), Vec::new());
        Self { kind, version, window, registers, shadows, inputs, outputs, ports, timers, queues, disks }
    }
}

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin spec of {kind:?}: {what}")]
pub struct SpecError {
    /// The plugin's kind as it gives it, cut to a sane length.
    pub kind: String,
    /// What is wrong.
    pub what: String,
}

impl PluginSpec {
    /// An empty spec.
    #[must_use]
    pub fn new(kind: &str, version: &str, window: u64) -> Self {
        Self {
            kind: kind.into(),
            version: version.into(),
            window,
            registers: Vec::new(),
            shadows: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            ports: Vec::new(),
            timers: 0,
            queues: Vec::new(),
            disks: Vec::new(),
        }
    }

    /// The spec as bytes: how it travels between processes and stands in a recording's manifest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![ENCODED, ENCODING]).expect("a spec that postcard can encode")
    }

    /// Reads [`Self::to_bytes`], of this version and of earlier ones. Does not [`check`](Self::check).
    ///
    /// # Errors
    /// The bytes are no spec, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SpecError> {
        let fail = |what: String| SpecError { kind: "?".into(), what };
        match bytes {
            [ENCODED, ENCODING, rest @ ..] => postcard::from_bytes(rest).map_err(|e| fail(e.to_string())),
            [ENCODED, other, ..] => {
                Err(fail(format!("it is encoded in version {other}, this program knows up to {ENCODING}")))
            }
            old => postcard::from_bytes::<SpecV1>(old).map(Into::into).map_err(|e| fail(e.to_string())),
        }
    }

    /// Adds registers; they may come in any order.
    #[must_use]
    pub fn registers(mut self, registers: impl IntoIterator<Item = Register>) -> Self {
        self.registers.extend(registers);
        self.registers.sort_by_key(|r| r.offset);
        self
    }

    /// Adds the next shadows: names and reset values.
    #[must_use]
    pub fn shadows(mut self, shadows: &[(&str, u64)]) -> Self {
        self.shadows.extend(shadows.iter().map(|&(name, reset)| Shadow { name: name.into(), reset }));
        self
    }

    /// Adds the next input pins.
    #[must_use]
    pub fn inputs(mut self, names: &[&str]) -> Self {
        self.inputs.extend(names.iter().map(|&n| n.into()));
        self
    }

    /// Adds the next output pins.
    #[must_use]
    pub fn outputs(mut self, names: &[&str]) -> Self {
        self.outputs.extend(names.iter().map(|&n| n.into()));
        self
    }

    /// Adds the next port, a stream of bytes.
    #[must_use]
    pub fn port(mut self, name: &str, direction: Direction) -> Self {
        self.ports.push(Port { name: name.into(), direction, framing: Framing::Bytes });
        self
    }

    /// Adds the next port, of packets.
    #[must_use]
    pub fn packets(mut self, name: &str, direction: Direction) -> Self {
        self.ports.push(Port { name: name.into(), direction, framing: Framing::Packets });
        self
    }

    /// Adds the next queue.
    #[must_use]
    pub fn queue(mut self, name: &str, depth: u32) -> Self {
        self.queues.push(Queue { name: name.into(), depth });
        self
    }

    /// Adds the next disk.
    #[must_use]
    pub fn disk(mut self, name: &str) -> Self {
        self.disks.push(name.into());
        self
    }

    /// Sets the number of timers.
    #[must_use]
    pub fn timers(mut self, timers: u32) -> Self {
        self.timers = timers;
        self
    }

    /// The register whose bytes hold `offset`.
    #[must_use]
    pub fn register_at(&self, offset: u64) -> Option<&Register> {
        let i = self.registers.partition_point(|r| r.offset <= offset).checked_sub(1)?;
        self.registers.get(i).filter(|r| offset - r.offset < r.span())
    }

    /// How a read of `size` bytes at `offset` is answered. Values are truncated to `size` bytes ([`truncate`]).
    #[must_use]
    pub fn read_policy(&self, offset: u64, size: u8) -> ReadPolicy {
        self.register_at(offset).filter(|r| r.offset == offset && r.takes(size)).map_or(ReadPolicy::Sync, |r| r.read)
    }

    /// The shadows that a posted write of `size` bytes at `offset` may change; `None` if the write is synchronous.
    #[must_use]
    pub fn posted(&self, offset: u64, size: u8) -> Option<&[u16]> {
        self.register_at(offset).filter(|r| r.offset == offset && r.takes(size))?.write.posted()
    }

    /// Whether any write can be posted that may have effects, or the device has ports: only such a channel makes events while
    /// cpu-proc does not wait on it.
    #[must_use]
    pub fn speaks_unasked(&self) -> bool {
        let posts = |r: &Register| r.access != Access::ReadOnly && r.write.posted().is_some();
        !self.ports.is_empty() || self.registers.iter().any(posts)
    }

    /// Index of the output pin called `name`.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<u32> {
        self.outputs.iter().position(|n| n == name).map(|i| i as u32)
    }

    /// Index of the input pin called `name`.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<u32> {
        self.inputs.iter().position(|n| n == name).map(|i| i as u32)
    }

    /// Checks every limit and cross-reference.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_inner().map_err(|what| SpecError { kind: self.kind.chars().take(limits::NAME).collect(), what })
    }

    fn check_inner(&self) -> Result<(), String> {
        name("kind", &self.kind)?;
        name("version", &self.version)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure(self.kind.chars().all(plain), || "a kind is made of lower-case letters, digits and dashes".into())?;
        ensure(self.window >= 4 && self.window <= limits::WINDOW && self.window % 4 == 0, || {
            format!("the window of {} bytes is not a multiple of 4 in 4..={}", self.window, limits::WINDOW)
        })?;
        at_most("registers", self.registers.len(), limits::REGISTERS)?;
        at_most("shadows", self.shadows.len(), limits::SHADOWS)?;
        at_most("input pins", self.inputs.len(), limits::PINS)?;
        at_most("output pins", self.outputs.len(), limits::PINS)?;
        at_most("ports", self.ports.len(), limits::PORTS)?;
        at_most("timers", self.timers as usize, limits::TIMERS as usize)?;
        at_most("queues", self.queues.len(), limits::QUEUES)?;
        at_most("disks", self.disks.len(), limits::DISKS)?;
        unique("queue", self.queues.iter().map(|q| q.name.as_str()))?;
        unique("disk", self.disks.iter().map(String::as_str))?;
        for q in &self.queues {
            ensure((1..=limits::QUEUE_DEPTH).contains(&q.depth), || {
                format!("queue {:?} of {} values, 1 to {} are allowed", q.name, q.depth, limits::QUEUE_DEPTH)
            })?;
        }
        unique("shadow", self.shadows.iter().map(|s| s.name.as_str()))?;
        unique("input pin", self.inputs.iter().map(String::as_str))?;
        unique("output pin", self.outputs.iter().map(String::as_str))?;
        unique("port", self.ports.iter().map(|p| p.name.as_str()))?;
        unique("register", self.registers.iter().map(|r| r.name.as_str()))?;
        let mut end = 0;
        for r in &self.registers {
            self.check_register(r).map_err(|e| format!("register {:?}: {e}", r.name))?;
            ensure(r.offset >= end, || {
                format!(
                    "register {:?} at {:#x} is not above the one before it, which ends at {end:#x}",
                    r.name, r.offset
                )
            })?;
            end = r.offset + r.span();
        }
        Ok(())
    }

    fn check_register(&self, r: &Register) -> Result<(), String> {
        ensure(r.section.len() <= limits::SECTION, || format!("its section has more than {} bytes", limits::SECTION))?;
        ensure(r.sizes != 0 && r.sizes & !0xf == 0, || {
            format!("access sizes {:#x} are no sum of 1, 2, 4 and 8", r.sizes)
        })?;
        ensure(r.offset % r.span() == 0, || format!("offset {:#x} is not aligned to {} bytes", r.offset, r.span()))?;
        ensure(r.offset < self.window && r.span() <= self.window - r.offset, || "it lies outside the window".into())?;
        let fits = |v: u64| v == truncate(v, r.span() as u8);
        ensure(fits(r.reset), || format!("its reset value {:#x} does not fit", r.reset))?;
        let shadow = |i: u16| match self.shadows.get(usize::from(i)) {
            Some(s) => Ok(s),
            None => Err(format!("shadow {i} of {}", self.shadows.len())),
        };
        match r.read {
            ReadPolicy::Shadow(i) => {
                ensure(shadow(i)?.reset == r.reset, || format!("its reset value differs from that of shadow {i}"))?;
            }
            ReadPolicy::Const(v) => ensure(v == r.reset, || "a constant differs from its reset value".into())?,
            ReadPolicy::Clock { hz } => {
                ensure((1..=limits::CLOCK_HZ).contains(&hz), || format!("a clock of {hz} Hz"))?;
                ensure(r.access == Access::ReadOnly, || "a clock that can be written".into())?;
            }
            ReadPolicy::Queue(i) => {
                at_most("queues before it", usize::from(i) + 1, self.queues.len())?;
                ensure(r.sizes == 4, || "a queue whose values are not read as 32 bits".into())?;
                let one = self.registers.iter().filter(|o| o.read == r.read).count() == 1;
                ensure(one, || format!("another register reads queue {i} too"))?;
            }
            ReadPolicy::Sync => {}
        }
        if r.write == WritePolicy::Stored {
            ensure(matches!(r.read, ReadPolicy::Shadow(_)) && r.access == Access::ReadWrite, || {
                "it stores what is written, but is not read as a shadow".into()
            })?;
        }
        if let Some(shadows) = r.write.posted() {
            at_most("shadows of a posted write", shadows.len(), limits::SHADOWS)?;
            shadows.iter().try_for_each(|&i| shadow(i).map(drop))?;
            ensure(r.access != Access::ReadOnly || shadows.is_empty(), || {
                "a read-only register that changes shadows".into()
            })?;
        }
        Ok(())
    }
}

/// The low `size` bytes of `value`.
#[must_use]
pub fn truncate(value: u64, size: u8) -> u64 {
    if size >= 8 { value } else { value & ((1 << (u32::from(size) * 8)) - 1) }
}

impl ReadPolicy {
    /// What a read of `size` bytes gives, if that needs nothing but the time.
    #[must_use]
    pub fn value(self, now: VTime, size: u8) -> Option<u64> {
        match self {
            Self::Const(v) => Some(truncate(v, size)),
            Self::Clock { hz } => Some(truncate(now.ticks(hz), size)),
            Self::Sync | Self::Shadow(_) | Self::Queue(_) => None,
        }
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn at_most(what: &str, n: usize, limit: usize) -> Result<(), String> {
    ensure(n <= limit, || format!("{n} {what}, at most {limit} are allowed"))
}

fn name(what: &str, s: &str) -> Result<(), String> {
    let good = !s.is_empty() && s.len() <= limits::NAME && s.chars().all(|c| c.is_ascii_graphic());
    ensure(good, || {
        format!(
            "{what} {:?} is not 1..={} printable ASCII characters",
            s.chars().take(80).collect::<String>(),
            limits::NAME
        )
    })
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for n in names {
        name(what, n)?;
        ensure(seen.insert(n), || format!("two of {what} {n:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> PluginSpec {
        PluginSpec::new("toy", "1.0", 0x1000)
            .registers([
                Register::rw("B", 8, 0, "2").shadow(0).posted(&[0]),
                Register::ro("A", 0, 7, "1").constant(),
                Register::ro("C", 16, 0, "3").clock(24_000_000).sizes(12),
            ])
            .shadows(&[("B", 0)])
            .outputs(&["irq"])
            .port("console", Direction::Both)
            .timers(1)
    }

    #[test]
    fn a_good_spec_passes_and_survives_serialisation() {
        let spec = good();
        spec.check().unwrap();
        let text = ron::to_string(&spec).unwrap();
        assert_eq!(ron::from_str::<PluginSpec>(&text).unwrap(), spec);
        let full = spec.queue("DATA", 16).disk("card").packets("wire", Direction::Both);
        assert_eq!(PluginSpec::from_bytes(&full.to_bytes()).unwrap(), full);
    }

    #[test]
    fn a_spec_in_the_first_encoding_is_read() {
        let s = good();
        let ports: Vec<_> = s.ports.iter().map(|p| (&p.name, p.direction)).collect();
        let head = (&s.kind, &s.version, s.window, &s.registers, &s.shadows);
        let old = postcard::to_stdvec(&(head, &s.inputs, &s.outputs, ports, s.timers)).unwrap();
        assert_eq!(PluginSpec::from_bytes(&old).unwrap(), s);
        let later = PluginSpec::from_bytes(&[0, 3, 7]).unwrap_err().to_string();
        assert!(later.contains("version 3"), "{later}");
        assert!(PluginSpec::from_bytes(&[]).is_err());
    }

    #[test]
    fn policies_hold_for_the_declared_accesses_only() {
        let spec = good();
        assert_eq!(spec.read_policy(0, 4), ReadPolicy::Const(7));
        assert_eq!(spec.read_policy(0, 1), ReadPolicy::Sync);
        assert_eq!(spec.read_policy(4, 4), ReadPolicy::Sync);
        assert_eq!(spec.read_policy(8, 4), ReadPolicy::Shadow(0));
        assert_eq!(spec.read_policy(16, 8).value(VTime(1_000_000_000), 8), Some(24_000_000));
        assert_eq!(spec.read_policy(20, 4), ReadPolicy::Sync, "the upper half of an 8-byte register");
        assert_eq!(spec.posted(8, 4), Some(&[0][..]));
        assert_eq!(spec.posted(8, 2), None);
        assert_eq!(spec.register_at(23).unwrap().name, "C");
        assert_eq!(spec.register_at(24), None);
        assert_eq!(spec.register_at(u64::MAX), None);
    }

    #[test]
    fn each_fault_of_a_spec_is_named() {
        let refuse = |change: &dyn Fn(&mut PluginSpec), word: &str| {
            let mut s = good();
            change(&mut s);
            let e = s.check().unwrap_err().to_string();
            assert!(e.contains(word), "{e:?} does not say {word:?}");
        };
        refuse(&|s| s.kind = "Toy".into(), "lower-case");
        refuse(&|s| s.kind = "x".repeat(65), "kind");
        refuse(&|s| s.version = String::new(), "version");
        refuse(&|s| s.window = 0, "window");
        refuse(&|s| s.window = 1 << 40, "window");
        refuse(&|s| s.window = 8, "outside");
        refuse(&|s| s.timers = 65, "timers");
        refuse(&|s| s.registers.swap(0, 1), "not above");
        refuse(&|s| s.registers[1].offset = 2, "aligned");
        refuse(&|s| s.registers[1].offset = u64::MAX - 3, "outside");
        refuse(&|s| s.registers[0].sizes = 0, "sizes");
        refuse(&|s| s.registers[0].sizes = 16, "sizes");
        refuse(&|s| s.registers[0].reset = 1 << 32, "fit");
        refuse(&|s| s.registers[0].read = ReadPolicy::Const(6), "constant");
        refuse(&|s| s.registers[1].read = ReadPolicy::Shadow(1), "shadow 1 of 1");
        refuse(&|s| s.registers[1].write = WritePolicy::Posted { shadows: vec![9] }, "shadow 9");
        refuse(&|s| s.registers[2].read = ReadPolicy::Clock { hz: 0 }, "0 Hz");
        refuse(&|s| s.registers[1].name = "A".into(), "two of");
        refuse(&|s| s.shadows = (0..65).map(|i| Shadow { name: i.to_string(), reset: 0 }).collect(), "at most 64");
        refuse(&|s| s.registers[0].read = ReadPolicy::Queue(0), "queues");
        refuse(&|s| s.queues.push(Queue { name: "Q".into(), depth: 0 }), "queue");
        refuse(&|s| s.disks = vec!["d".into(), "d".into()], "two of");
        refuse(&|s| s.outputs.push("irq".into()), "two of");
        refuse(&|s| s.outputs.push("a b".into()), "printable");
    }
}
