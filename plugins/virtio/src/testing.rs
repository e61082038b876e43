//! A guest's memory and a driver in it, for the tests of the devices: every transfer is carried out at once, as cpu-proc does it.

use std::collections::VecDeque;

use reprise_device::host::{Effect, Instance, MemoryDisk, Plugin};
use reprise_device::{Device, Event, VTime};

use crate::regs::{CONFIG, reg, status};

/// Where RAM begins.
pub const BASE: u64 = 0x8000_0000;
/// Bytes of RAM.
pub const SIZE: usize = 8 << 20;

/// A descriptor: address, length, whether the device writes it.
pub type Piece = (u64, u32, bool);

/// A queue as its driver sees it.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// Entries.
    pub size: u16,
    /// The descriptor table.
    pub desc: u64,
    /// The available ring.
    pub avail: u64,
    /// The used ring.
    pub used: u64,
    /// The next free descriptor; they are taken in turn.
    next: u16,
    /// Entries of the used ring that were seen.
    seen: u16,
}

/// The machine round a device.
#[derive(Debug)]
pub struct Rig {
    /// The device.
    pub device: Instance,
    /// Its disk.
    pub disk: MemoryDisk,
    /// RAM, from [`BASE`] on.
    pub ram: Vec<u8>,
    /// The interrupt line.
    pub line: bool,
    /// Transfers so far.
    pub transfers: u64,
    /// What went out, by port.
    pub out: Vec<(u32, Vec<u8>)>,
    /// An address that is not RAM, as cpu-proc would say before it ends the machine.
    pub outside: Option<(u64, u64)>,
    /// The queues that were set up.
    pub rings: Vec<Ring>,
    /// Where free RAM begins.
    pub free: u64,
}

impl Rig {
    /// A device that has been reset.
    ///
    /// # Panics
    /// If the config is wrong.
    #[must_use]
    pub fn new<D: Device>(config: &str, disk: Vec<u8>) -> Self {
        let device = Plugin::of::<D>().create(config).expect("a good config");
        let disk = MemoryDisk { data: disk, read_only: false, flushes: 0 };
        let (ram, out, rings) = (vec![0; SIZE], Vec::new(), Vec::new());
        let mut rig =
            Self { device, disk, ram, line: false, transfers: 0, out, outside: None, rings, free: BASE + 0x1000 };
        rig.step(Event::Reset);
        rig
    }

    /// Hands the device an event and carries out its transfers; what it replied.
    ///
    /// # Panics
    /// If the device faults.
    pub fn step(&mut self, event: Event<'_>) -> u64 {
        let mut todo = VecDeque::new();
        let mut reply = self.one(event, &mut todo);
        let mut transfers = 0;
        while let Some((tag, data)) = todo.pop_front() {
            transfers += 1;
            assert!(transfers < 65_536, "transfers don't end");
            reply = self.one(Event::DmaDone { tag, data: &data }, &mut todo).max(reply);
        }
        reply
    }

    fn one(&mut self, event: Event<'_>, todo: &mut VecDeque<(u64, Vec<u8>)>) -> u64 {
        let Self { device, disk, ram, line, transfers, out, outside, .. } = self;
        let mut reply = 0;
        let mut place = |addr: u64, len: u64| {
            let at = addr.checked_sub(BASE).filter(|at| at.checked_add(len).is_some_and(|end| end <= SIZE as u64));
            if at.is_none() {
                outside.get_or_insert((addr, len));
            }
            at.map(|at| at as usize..(at + len) as usize)
        };
        let mut take = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => reply = value,
            Effect::Line { level, .. } => *line = level,
            Effect::HostOut { port, data } => out.push((port, data.to_vec())),
            Effect::Dma { tag, reads, writes } => {
                *transfers += 1;
                let (mut data, mut good) = (Vec::new(), true);
                for r in reads {
                    match place(r.addr, r.len) {
                        Some(range) => data.extend_from_slice(&ram[range]),
                        None => good = false,
                    }
                }
                for w in writes {
                    match place(w.addr, w.data.len() as u64) {
                        Some(range) if good => ram[range].copy_from_slice(w.data),
                        _ => good = false,
                    }
                }
                if good {
                    todo.push_back((tag, data));
                }
            }
            _ => {}
        };
        device.step_with(VTime(0), event, disk, &mut take).expect("a device that works");
        reply
    }

    /// Reads a control register.
    pub fn read(&mut self, offset: u64) -> u32 {
        self.step(Event::Read { tag: 0, offset, size: 4 }) as u32
    }

    /// Writes a control register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.step(Event::Write { tag: 0, offset, size: 4, value: value.into() });
    }

    /// Reads from the device-specific configuration.
    pub fn config(&mut self, at: u64, size: u8) -> u64 {
        self.step(Event::Read { tag: 0, offset: CONFIG + at, size })
    }

    /// The features that the device offers.
    pub fn offered(&mut self) -> u64 {
        [0, 1].into_iter().fold(0, |all, i| {
            self.write(reg::DEVICE_FEATURES_SEL, i);
            all | u64::from(self.read(reg::DEVICE_FEATURES)) << (32 * i)
        })
    }

    /// Brings the device up to DRIVER_OK with the features of `mask` that it offers and queues of these sizes.
    ///
    /// # Panics
    /// If the device refuses.
    pub fn bring_up(&mut self, mask: u64, sizes: &[u16]) -> u64 {
        self.write(reg::STATUS, 0);
        self.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let features = self.offered() & mask;
        for i in [0, 1] {
            self.write(reg::DRIVER_FEATURES_SEL, i);
            self.write(reg::DRIVER_FEATURES, (features >> (32 * i)) as u32);
        }
        self.write(reg::STATUS, status::FEATURES_OK);
        assert!(self.read(reg::STATUS) & status::FEATURES_OK != 0, "it refuses features that it offers");
        self.rings.clear();
        for (n, &size) in sizes.iter().enumerate() {
            let ring = self.ring(size);
            self.write(reg::QUEUE_SEL, n as u32);
            self.write(reg::QUEUE_NUM, size.into());
            for (offset, addr) in
                [(reg::QUEUE_DESC, ring.desc), (reg::QUEUE_DRIVER, ring.avail), (reg::QUEUE_DEVICE, ring.used)]
            {
                self.write(offset, addr as u32);
                self.write(offset + 4, (addr >> 32) as u32);
            }
            self.write(reg::QUEUE_READY, 1);
            assert_eq!(self.read(reg::QUEUE_READY), 1);
        }
        self.write(reg::STATUS, status::DRIVER_OK);
        features
    }

    /// Makes room for a queue, in the legacy layout, which is as good as any.
    pub fn ring(&mut self, size: u16) -> Ring {
        let n = u64::from(size);
        let desc = self.alloc((16 * n + 6 + 2 * n + 0x2000 + 8 * n) as usize, 4096);
        let avail = desc + 16 * n;
        let used = (avail + 6 + 2 * n).next_multiple_of(4096);
        let ring = Ring { size, desc, avail, used, next: 0, seen: 0 };
        let (from, to) = ((desc - BASE) as usize, (used - BASE) as usize + 8 * usize::from(size) + 6);
        self.ram[from..to].fill(0);
        self.rings.push(ring);
        ring
    }

    /// A piece of free RAM.
    ///
    /// # Panics
    /// If there is none any more.
    pub fn alloc(&mut self, len: usize, align: u64) -> u64 {
        let at = self.free.next_multiple_of(align);
        self.free = at + len as u64;
        assert!(self.free <= BASE + SIZE as u64, "RAM is full");
        at
    }

    /// Writes to RAM.
    pub fn poke(&mut self, addr: u64, data: &[u8]) {
        let at = (addr - BASE) as usize;
        self.ram[at..at + data.len()].copy_from_slice(data);
    }

    /// Reads from RAM.
    #[must_use]
    pub fn peek(&self, addr: u64, len: usize) -> &[u8] {
        let at = (addr - BASE) as usize;
        &self.ram[at..at + len]
    }

    fn peek16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.peek(addr, 2).try_into().expect("2 bytes"))
    }

    /// Makes a chain available, without a notification; its head.
    pub fn add(&mut self, queue: usize, pieces: &[Piece]) -> u16 {
        let ring = self.rings[queue];
        let slot = |i: u16| (ring.next + i) % ring.size;
        for (i, &(addr, len, write)) in pieces.iter().enumerate() {
            let i = i as u16;
            let more = u16::from(usize::from(i) + 1 < pieces.len());
            let desc = descriptor(addr, len, more | u16::from(write) << 1, slot(i + 1));
            self.poke(ring.desc + 16 * u64::from(slot(i)), &desc);
        }
        self.rings[queue].next = slot(pieces.len() as u16);
        self.publish(queue, slot(0))
    }

    /// Makes a chain available whose descriptors are in a table of their own.
    pub fn add_indirect(&mut self, queue: usize, pieces: &[Piece]) -> u16 {
        let table = self.alloc(16 * pieces.len(), 16);
        for (i, &(addr, len, write)) in pieces.iter().enumerate() {
            let more = u16::from(i + 1 < pieces.len());
            let desc = descriptor(addr, len, more | u16::from(write) << 1, i as u16 + 1);
            self.poke(table + 16 * i as u64, &desc);
        }
        let ring = self.rings[queue];
        let head = ring.next;
        self.poke(ring.desc + 16 * u64::from(head), &descriptor(table, 16 * pieces.len() as u32, 4, 0));
        self.rings[queue].next = (head + 1) % ring.size;
        self.publish(queue, head)
    }

    fn publish(&mut self, queue: usize, head: u16) -> u16 {
        let ring = self.rings[queue];
        let index = self.peek16(ring.avail + 2);
        self.poke(ring.avail + 4 + 2 * u64::from(index % ring.size), &head.to_le_bytes());
        self.poke(ring.avail + 2, &index.wrapping_add(1).to_le_bytes());
        head
    }

    /// Notifies the device, whatever it said of notifications.
    pub fn kick(&mut self, queue: usize) {
        self.write(reg::QUEUE_NOTIFY, queue as u32);
    }

    /// The chains that the device has used since the last call: heads and lengths. Asks for an interrupt at the next one.
    pub fn used(&mut self, queue: usize) -> Vec<(u32, u32)> {
        let ring = self.rings[queue];
        let index = self.peek16(ring.used + 2);
        let mut out = Vec::new();
        let mut seen = ring.seen;
        while seen != index {
            let at = ring.used + 4 + 8 * u64::from(seen % ring.size);
            let word = |i: u64| u32::from_le_bytes(self.peek(at + i, 4).try_into().expect("4 bytes"));
            out.push((word(0), word(4)));
            seen = seen.wrapping_add(1);
        }
        self.rings[queue].seen = seen;
        self.poke(ring.avail + 4 + 2 * u64::from(ring.size), &seen.to_le_bytes());
        out
    }

    /// What the driver would look at before it notifies: `avail_event`.
    #[must_use]
    pub fn avail_event(&self, queue: usize) -> u16 {
        let ring = self.rings[queue];
        self.peek16(ring.used + 4 + 8 * u64::from(ring.size))
    }

    /// Acknowledges all interrupts; what they were.
    pub fn acknowledge(&mut self) -> u32 {
        let pending = self.read(reg::INTERRUPT_STATUS);
        self.write(reg::INTERRUPT_ACK, pending);
        pending
    }

    /// Whether the device says that the driver did wrong.
    pub fn needs_reset(&mut self) -> bool {
        self.read(reg::STATUS) & status::NEEDS_RESET != 0
    }
}

/// A descriptor's bytes.
#[must_use]
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut d = addr.to_le_bytes().to_vec();
    d.extend_from_slice(&len.to_le_bytes());
    d.extend_from_slice(&flags.to_le_bytes());
    d.extend_from_slice(&next.to_le_bytes());
    d
}

/// SplitMix64, for seeded hostility.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// What a malicious driver does with the bytes of `script`: it fills rings and buffers with what they say and notifies. Addresses are mostly in RAM, as the
/// machine ends otherwise. True if the device took something of it for a request.
///
/// # Panics
/// If the device panics, breaks its spec or does not come to an end.
pub fn hostile<D: Device>(config: &str, queues: &[u16], script: &[u8]) -> bool {
    let mut rig = Rig::new::<D>(config, vec![0x5a; 64 << 10]);
    let mut bytes = script.iter().copied();
    let mut next = move || bytes.next();
    let Some(mask) = next() else { return false };
    let features =
        if mask & 1 != 0 { u64::MAX } else { 1 << 32 | u64::from(mask & 2) << 28 | u64::from(mask & 4) << 26 };
    rig.bring_up(features, queues);
    let arena = rig.alloc(0x10000, 4096);
    let mut worked = false;
    while let Some(op) = next() {
        let mut byte = || next().unwrap_or(0);
        let n = usize::from(op >> 4) % queues.len();
        let ring = rig.rings[n];
        match op % 8 {
            // A chain as a driver makes it.
            0 | 1 => {
                let at = u16::from(byte()) % ring.size;
                let (shape, count) = (byte(), 1 + u16::from(byte()) % ring.size.min(5));
                for i in 0..count {
                    let len = [1, 16, 20, 512, 1024, 12, 26, 4096][usize::from(byte() % 8)];
                    let flags = u16::from(i + 1 < count) | u16::from(i >= u16::from(shape % 5)) << 1;
                    let addr = arena + u64::from(byte()) * 0x40;
                    rig.poke(
                        ring.desc + 16 * u64::from((at + i) % ring.size),
                        &descriptor(addr, len, flags, (at + i + 1) % ring.size),
                    );
                }
                rig.publish(n, at);
            }
            // A descriptor as none makes it.
            2 => {
                let at = u64::from(byte()) % u64::from(ring.size);
                let (addr, len) = (arena + u64::from(byte()) * 0x91, u32::from(byte()) << (byte() % 10));
                let desc = descriptor(addr, len, u16::from(byte() & 7), u16::from(byte()) % (ring.size + 1));
                rig.poke(ring.desc + 16 * at, &desc);
            }
            // A head, and the index behind it.
            3 => {
                rig.publish(n, u16::from(byte()) % (ring.size + 1));
            }
            // Anything into the rings or the arena.
            4 => {
                let base = [ring.avail, ring.used, arena, arena][usize::from(byte() % 4)];
                let data: Vec<u8> = (0..byte() % 32).map(|_| byte()).collect();
                let at = base + u64::from(byte()) * 0x91 % 0x600;
                rig.poke(at, &data);
            }
            5 | 6 => {
                rig.kick(n);
                worked |= !rig.used(n).is_empty();
            }
            _ => {
                let data: Vec<u8> = (0..byte()).map(|_| byte()).collect();
                for port in 0..rig.device.spec().ports.len() as u32 {
                    if rig.device.want(port) > 0 {
                        let packets =
                            rig.device.spec().ports[port as usize].framing == reprise_device::spec::Framing::Packets;
                        let most = if packets { data.len() } else { data.len().min(rig.device.want(port) as usize) };
                        if most > 0 {
                            rig.step(Event::Host { port, data: &data[..most] });
                        }
                    }
                }
                worked |= (0..queues.len()).any(|n| !rig.used(n).is_empty());
            }
        }
        if rig.outside.is_some() {
            // The machine has ended.
            return worked;
        }
        if rig.needs_reset() {
            rig.free = BASE + 0x1000;
            rig.bring_up(features, queues);
            rig.alloc(0x10000, 4096);
        }
    }
    worked
}
