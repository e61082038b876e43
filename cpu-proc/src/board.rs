//! The machine round the core: address map, GIC, devices, lines between them. The engines' [`Bus`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam, RamWrite};
use reprise_arm::gic::Gic;
use reprise_arm::l2c310::L2c310;
use reprise_arm::mpcore::MpCore;
use reprise_arm::statehash;

use reprise_channel::{Request, fold};

use reprise_device::dma;
use reprise_device::spec::truncate;

use crate::clock::Clock;
use crate::link::{Consumed, Link, ReadPolicy, Store};
use crate::port::{Port, PortError};

/// What lies at a range of physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The GIC's distributor.
    GicDist,
    /// The GIC's CPU interface.
    GicCpu,
    /// Private peripherals of Cortex-A9; the range begins at this offset from PERIPHBASE.
    Private(u32),
    /// The level 2 cache's controller.
    L2,
    /// A device, by index.
    Device(usize),
    /// The bus answers with zero and ignores writes: where the real board has nothing, or a device that has no plugin yet.
    Zero,
    /// Likewise, but some words read as constants: an index in [`Board::words`].
    Words(usize),
}

/// Words of an address range that nothing but the bus answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// First physical address of the range.
    pub at: u64,
    /// After so many bytes the words stand again.
    pub every: u64,
    /// (offset, value); all other words are zero.
    pub words: Vec<(u64, u32)>,
}

impl Words {
    /// What a load of `size` bytes at `pa` finds.
    fn read(&self, pa: u64, size: u8) -> u64 {
        let offset = (pa - self.at) % self.every;
        let word = |at| self.words.iter().find(|(o, _)| *o == at).map_or(0, |(_, v)| u64::from(*v));
        let low = word(offset & !3) >> (8 * (offset & 3));
        if size > 4 { low | word((offset + 4) % self.every) << 32 } else { low }
    }
}

/// One entry of the address map.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// First physical address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// What answers.
    pub target: Target,
}

impl Region {
    #[inline]
    fn holds(&self, pa: u64) -> bool {
        pa.wrapping_sub(self.start) < self.size
    }
}

/// Where a device's output pin leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Shared peripheral interrupt, numbered from 0 (GIC ID 32).
    Spi(u32),
    /// Switches the machine off.
    PowerOff,
    /// Resets the machine.
    Reset,
    /// An input pin of another device.
    Pin {
        /// The device.
        device: usize,
        /// Its input pin.
        pin: u32,
    },
}

/// A wire from a device's output pin.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The driving device.
    pub device: usize,
    /// Its output pin.
    pub pin: u32,
    /// The other end.
    pub to: Wire,
    /// Level now.
    pub level: bool,
}

/// Why the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The guest switched it off.
    Off,
    /// The guest asked for a reset.
    Reset,
}

/// Number of recent accesses kept for the report of a divergence.
const TRAIL: usize = 32;

/// One access, kept for the report of a divergence.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// When and by which instruction.
    pub at: At,
    /// By which core.
    pub core: usize,
    /// Physical address.
    pub pa: u64,
    /// Bytes.
    pub size: u8,
    /// A write.
    pub write: bool,
    /// Data.
    pub value: u64,
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dir, n, core) = (if self.write { "write" } else { "read " }, self.at.icount, self.core);
        write!(
            f,
            "instruction {n} of core {core} at {:#010x}: {dir}{} {:#010x} = {:#x}",
            self.at.pc, self.size, self.pa, self.value
        )
    }
}

/// Most messages that one request may entail before the board takes the devices for stuck: lines between devices that oscillate, transfers that
/// lead to transfers.
const MAX_HOPS: u32 = 1 << 16;

/// What an effect entails for a device, to be delivered when the present request is answered.
#[derive(Debug)]
enum FollowUp {
    /// An input pin changed.
    Line { device: usize, pin: u32, level: bool },
    /// A transfer is done; what was read.
    DmaDone { device: usize, tag: u32, data: Vec<u8> },
}

/// RAM as devices may use it.
#[derive(Debug)]
pub struct DmaAccess {
    /// The whole of it.
    pub ram: GuestRam,
    /// For each device, the ranges that it may read and write: (first address, bytes).
    pub grants: Vec<Vec<(u64, u64)>>,
}

/// The machine round the core.
pub struct Board<P> {
    /// Guest time.
    pub clock: Clock,
    /// SPI of the first core's performance monitors, if they are connected; the other cores' follow.
    pub pmu_spi: Option<u32>,
    /// Or the private interrupt that each core has for them: an interrupt id, 16 to 31.
    pub pmu_ppi: Option<u32>,
    /// Level of their lines, a bit a core.
    pmu_lines: u8,
    /// The interrupt controller.
    pub gic: Gic,
    /// The core whose turn it is: it makes the accesses, and [`Bus::lines`] are its lines. The run loop keeps it.
    pub core: usize,
    /// The private peripherals of Cortex-A9, where the machine has them.
    pub mpcore: Option<MpCore>,
    /// The level 2 cache's controller, where it has one.
    pub l2: Option<L2c310>,
    /// What [`Target::Words`] names.
    pub words: Vec<Words>,
    /// Devices, in the order of the machine file.
    pub links: Vec<Link<P>>,
    map: Vec<Region>,
    /// For a page, by [`recent_slot`], the region that was last found there.
    recent: [u16; RECENT],
    wires: Vec<Connection>,
    queued: VecDeque<FollowUp>,
    /// For each device, whether the bus answers at its addresses once it is gone: reads give zero, writes are lost. Else an access is an external
    /// abort.
    pub sockets: Vec<bool>,
    /// How many devices are about to be gone: their channels want looking at.
    pub doomed: Arc<AtomicU32>,
    /// What the user is to know of devices.
    pub notes: Vec<String>,
    /// RAM, where some device may use it.
    pub dma: Option<DmaAccess>,
    /// What devices wrote to RAM since the engine asked last.
    dma_writes: Vec<RamWrite>,
    /// Set when the guest switched the machine off or reset it.
    pub power: Option<Power>,
    /// The first channel that failed inside an access; the run loop ends the machine.
    pub error: Option<PortError>,
    /// Rolling hash of the accesses that were served in this process (GIC, shadows, holes).
    pub local_hash: u64,
    /// Leave the engine after every MMIO access: a replay has something to do at the start of the next epoch.
    pub exit_always: bool,
    deadline_changed: bool,
    /// The nearest device timer: (guest time, device, id). Kept, as the run loop asks far more often than timers change.
    nearest: Option<(u64, usize, u32)>,
    /// When the private peripherals' lines change next by themselves. Kept likewise: only a write changes it.
    private_due: Option<u64>,
    /// Requests sent and effects consumed so far, on all channels.
    pub traffic: u64,
    /// Leave the engine when there were so many: a recording wants a progress mark before there are too many for a chunk.
    pub leave_at: u64,
    /// The device that was used last: only its process spins.
    active: usize,
    /// The device for which writes to its FIFO are gathered, if any is.
    gathering: Option<usize>,
    /// MMIO accesses so far.
    pub accesses: u64,
    trail: VecDeque<Access>,
}

/// Entries of [`Board::recent`], a power of two.
const RECENT: usize = 32;

/// Where [`Board::recent`] has the page of an address.
#[inline]
fn recent_slot(pa: u64) -> usize {
    // Boards put devices at multiples of large powers of two: all bits have a say.
    ((pa >> 12) as u32).wrapping_mul(0x9e37_79b1) as usize >> (32 - RECENT.trailing_zeros())
}

impl<P: Port> Board<P> {
    /// A board whose devices were not reset yet. Regions must not overlap.
    pub fn new(clock: Clock, gic: Gic, links: Vec<Link<P>>, mut map: Vec<Region>, wires: Vec<Connection>) -> Self {
        map.sort_by_key(|r| r.start);
        for w in map.windows(2) {
            assert!(w[0].start + w[0].size <= w[1].start, "regions at {:#x} and {:#x} overlap", w[0].start, w[1].start);
        }
        assert!(map.len() <= 1 << 16, "{} regions", map.len());
        Self {
            clock,
            pmu_spi: None,
            pmu_ppi: None,
            pmu_lines: 0,
            gic,
            core: 0,
            mpcore: None,
            l2: None,
            words: Vec::new(),
            links,
            map,
            recent: [0; RECENT],
            wires,
            queued: VecDeque::new(),
            sockets: Vec::new(),
            doomed: Arc::default(),
            notes: Vec::new(),
            dma: None,
            dma_writes: Vec::new(),
            power: None,
            error: None,
            local_hash: 0,
            exit_always: false,
            deadline_changed: false,
            nearest: None,
            private_due: None,
            traffic: 0,
            leave_at: u64::MAX,
            active: 0,
            gathering: None,
            accesses: 0,
            trail: VecDeque::with_capacity(TRAIL),
        }
    }

    /// Feeds what the board itself holds, when `icount` instructions have retired, to `sink`: the GIC and the core's private peripherals, in the
    /// layout of `docs/state-hash.md`.
    pub fn hash(&self, icount: u64, sink: &mut dyn FnMut(&[u8])) {
        statehash::hash_gic(self.gic.state(), sink);
        if let Some(m) = &self.mpcore {
            statehash::hash_mpcore(&m.at(self.clock.vtime(icount)), sink);
        }
        if let Some(l2) = &self.l2 {
            statehash::hash_l2(l2.state(), sink);
        }
    }

    /// The last accesses, oldest first.
    pub fn trail(&self) -> impl Iterator<Item = &Access> {
        self.trail.iter()
    }

    /// The region at an address.
    #[inline]
    fn find(&mut self, pa: u64) -> Option<Region> {
        let slot = recent_slot(pa);
        let known = self.map.get(usize::from(self.recent[slot])).filter(|r| r.holds(pa));
        let r = *match known {
            Some(r) => r,
            None => {
                // A driver goes back and forth between a few devices: a search each time is a chain of mispredicted branches.
                let i = self.map.partition_point(|r| r.start <= pa).checked_sub(1)?;
                let r = self.map.get(i).filter(|r| r.holds(pa))?;
                self.recent[slot] = i as u16;
                r
            }
        };
        match r.target {
            Target::Device(d) if self.links[d].is_gone() => {
                self.sockets.get(d).is_some_and(|bus| *bus).then_some(Region { target: Target::Zero, ..r })
            }
            _ => Some(r),
        }
    }

    /// Sets the line of core `n`'s performance monitors, if they are connected.
    pub fn drive_pmu(&mut self, n: usize, level: bool) {
        if (self.pmu_lines >> n & 1 != 0) != level {
            self.pmu_lines ^= 1 << n;
            match (self.pmu_ppi, self.pmu_spi) {
                (Some(id), _) => self.gic.set_ppi(n, id, level),
                (None, Some(first)) => self.gic.set_spi(first + n as u32, level),
                (None, None) => {}
            }
        }
    }

    /// The performance monitors can interrupt.
    pub fn pmu_connected(&self) -> bool {
        self.pmu_spi.is_some() || self.pmu_ppi.is_some()
    }

    /// Resets every device, in order.
    pub fn reset_devices(&mut self) -> Result<(), PortError> {
        let now = self.clock.vtime(0);
        for i in 0..self.links.len() {
            self.request(i, now, Request::Reset)?;
        }
        Ok(())
    }

    /// Sends a synchronous request and consumes the device's effects up to the answer; then delivers what it did to other devices.
    pub fn request(&mut self, device: usize, vtime: u64, request: Request<'_>) -> Result<Option<u64>, PortError> {
        let answer = self.request_one(device, vtime, request)?;
        self.deliver_queued(vtime)?;
        Ok(answer)
    }

    #[inline]
    fn focus(&mut self, device: usize) {
        if self.active != device {
            self.links[self.active].port.rest();
            self.active = device;
        }
    }

    /// Makes sure that no device sleeps over a posted write. Only the device in focus can have one that is unsettled.
    #[inline]
    pub fn settle_posts(&mut self) {
        if let Some(l) = self.links.get_mut(self.active) {
            l.port.settle();
        }
    }

    /// The core idles: no device need spin.
    pub fn rest(&mut self) {
        if let Some(l) = self.links.get_mut(self.active) {
            l.port.rest();
        }
    }

    fn request_one(&mut self, device: usize, vtime: u64, request: Request<'_>) -> Result<Option<u64>, PortError> {
        if self.links[device].is_gone() {
            return Ok(None);
        }
        self.focus(device);
        self.tell_pending(device, vtime)?;
        self.ask(device, vtime, request)
    }

    /// Tells a device what the core has written to its FIFO and which values of its queues it has taken, before anything else reaches it.
    #[inline]
    fn tell_pending(&mut self, device: usize, vtime: u64) -> Result<(), PortError> {
        if self.links[device].has_burst() {
            self.send_burst(device)?;
        }
        if self.links[device].has_popped() {
            while let Some((queue, count)) = self.links[device].take_popped().filter(|_| !self.links[device].is_gone())
            {
                self.ask(device, vtime, Request::Popped { queue, count })?;
            }
        }
        Ok(())
    }

    /// Sends the writes that were gathered for a device.
    fn send_burst(&mut self, device: usize) -> Result<(), PortError> {
        self.gathering = None;
        // Only the device in focus is sure to be woken for a posted write.
        self.focus(device);
        self.traffic += 1;
        self.links[device].send_burst()
    }

    /// Sends writes that were gathered, if there are any: nothing is added to them any more.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn end_burst(&mut self) -> Result<(), PortError> {
        self.gathering().map_or(Ok(()), |device| self.send_burst(device))
    }

    /// The device for which writes are gathered.
    pub fn gathering(&self) -> Option<usize> {
        self.gathering.filter(|device| self.links[*device].has_burst())
    }

    /// The instruction count from which on writes that were gathered may be sent.
    #[inline]
    pub fn burst_end(&self) -> Option<u64> {
        self.gathering().map(|device| self.links[device].burst_end())
    }

    /// A posted write to a FIFO.
    fn gather(&mut self, device: usize, at: &Store, value: u64, may_change: u64) -> Result<(), PortError> {
        if self.links[device].has_popped() {
            self.catch_up(device, at.vtime)?;
        } else if self.links[device].gather(at, value) {
            return Ok(());
        }
        self.end_burst()?;
        if !self.links[device].is_gone() {
            self.traffic += 1;
            self.gathering = Some(device);
            self.links[device].begin_burst(at, value, may_change);
        }
        Ok(())
    }

    /// As before each request: tells a device what the core has written to its FIFO and taken of its queues, so that the next request's number is known.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn catch_up(&mut self, device: usize, vtime: u64) -> Result<(), PortError> {
        if self.links[device].has_popped() || self.links[device].has_burst() {
            self.focus(device);
            self.tell_pending(device, vtime)?;
            self.deliver_queued(vtime)?;
        }
        Ok(())
    }

    /// One request and its answer.
    fn ask(&mut self, device: usize, vtime: u64, request: Request<'_>) -> Result<Option<u64>, PortError> {
        let seq = self.links[device].send(vtime, request, 0)?;
        self.traffic += 1;
        loop {
            match self.take_effect(device, seq)? {
                None => self.links[device].port.wait()?,
                Some((Consumed::Answer(v), _)) => {
                    self.links[device].settle(seq);
                    return Ok(v);
                }
                Some((c, _)) => self.carry_on(device, c)?,
            }
            if self.links[device].is_gone() {
                // An answer may come, and stays where it is.
                return Ok(None);
            }
        }
    }

    /// Takes a device's next effect whose cause is at most `max_cause`, if it is there. The caller carries on with what it did.
    ///
    /// # Errors
    /// As [`Link::take_effect`].
    #[inline]
    pub fn take_effect(&mut self, device: usize, max_cause: u64) -> Result<Option<(Consumed, u64)>, PortError> {
        let taken = self.links[device].take_effect(max_cause)?;
        self.traffic += u64::from(taken.is_some());
        Ok(taken)
    }

    /// Carries an effect's consequences from a device's link to the rest of the board.
    ///
    /// # Errors
    /// A transfer that the device may not make.
    pub fn carry_on(&mut self, device: usize, c: Consumed) -> Result<(), PortError> {
        match c {
            Consumed::Gone => {
                // Those that are still to come stand in the others' channels.
                let _ = self.doomed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                self.unplug(device);
            }
            Consumed::Broken(what) => self.expel(device, &what),
            Consumed::Line(pin, level) => self.drive(device, pin, level),
            Consumed::Dma(tag, data) => match self.transfer(device, tag, &data) {
                Err(PortError::Bad { what, .. }) => self.expel(device, &what),
                other => other?,
            },
            Consumed::Deadline => {
                self.deadline_changed = true;
                self.find_nearest();
            }
            Consumed::Shadow | Consumed::Answer(_) => {}
        }
        Ok(())
    }

    /// A device is gone: its lines are low, its timers never fire, nothing reaches it, and its addresses are as where there is nothing.
    fn unplug(&mut self, device: usize) {
        if self.links[device].is_gone() {
            return;
        }
        self.links[device].bury();
        let high = |w: &&Connection| w.device == device && w.level;
        let pins: Vec<u32> = self.wires.iter().filter(high).map(|w| w.pin).collect();
        for pin in pins {
            self.drive(device, pin, false);
        }
        self.deadline_changed = true;
        self.find_nearest();
    }

    /// The same for a device that is not to be trusted any more. What it did is part of every replay, so this is too.
    fn expel(&mut self, device: usize, what: &str) {
        let name = &self.links[device].name;
        self.notes.push(format!("{name}: {what}. The guest finds nothing in its place from now on"));
        self.unplug(device);
    }

    /// Makes a transfer between a device and RAM, all of it at this position.
    fn transfer(&mut self, device: usize, tag: u32, bytes: &[u8]) -> Result<(), PortError> {
        let bad = |links: &[Link<P>], what: String| PortError::Bad { channel: links[device].name.clone(), what };
        let request = dma::decode(bytes).map_err(|e| bad(&self.links, e.to_string()))?;
        let Some(access) = &self.dma else {
            return Err(bad(&self.links, "it asks for DMA, which its machine does not grant".into()));
        };
        let grants = access.grants.get(device).map_or(&[][..], Vec::as_slice);
        let granted = |addr: u64, len: u64| {
            grants.iter().any(|&(at, size)| addr >= at && addr - at <= size && len <= size - (addr - at))
        };
        let ranges = request.reads.iter().map(|r| ("read", r.addr, r.len));
        let writes = request.writes.iter().map(|w| ("write", w.addr, w.data.len() as u64));
        for (what, addr, len) in ranges.chain(writes) {
            if len > 0 && (!granted(addr, len) || access.ram.host(addr, len).is_none()) {
                let what = format!("DMA {what} of {len} bytes at {addr:#x}: its machine does not grant that");
                return Err(bad(&self.links, what));
            }
        }
        let total: u64 = request.reads.iter().map(|r| r.len).sum();
        let mut data = vec![0; total as usize];
        let mut rest = data.as_mut_slice();
        for r in &request.reads {
            let (head, tail) = rest.split_at_mut(r.len as usize);
            let _ = access.ram.read(r.addr, head);
            rest = tail;
        }
        for w in &request.writes {
            let _ = access.ram.write(w.addr, w.data);
            note_write(&mut self.dma_writes, access.ram.canonical(w.addr), w.data.len() as u64);
        }
        self.queued.push_back(FollowUp::DmaDone { device, tag, data });
        Ok(())
    }

    fn drive(&mut self, device: usize, pin: u32, level: bool) {
        for i in 0..self.wires.len() {
            let w = self.wires[i];
            if w.device != device || w.pin != pin || w.level == level {
                continue;
            }
            self.wires[i].level = level;
            match w.to {
                Wire::Spi(n) => {
                    let any = self.wires.iter().any(|x| x.to == w.to && x.level);
                    self.gic.set_spi(n, any);
                }
                Wire::PowerOff if level => self.power = Some(Power::Off),
                Wire::Reset if level => self.power = Some(Power::Reset),
                Wire::PowerOff | Wire::Reset => {}
                Wire::Pin { device, pin } => self.queued.push_back(FollowUp::Line { device, pin, level }),
            }
        }
    }

    /// Delivers what effects entail for devices: line changes, finished transfers.
    #[inline]
    pub fn deliver_queued(&mut self, vtime: u64) -> Result<(), PortError> {
        let mut hops = 0;
        while let Some(next) = self.queued.pop_front() {
            hops += 1;
            let (device, request) = match &next {
                FollowUp::Line { device, pin, level } => (*device, Request::Line { pin: *pin, level: *level }),
                FollowUp::DmaDone { device, tag, data } => (*device, Request::DmaDone { tag: *tag, data }),
            };
            if hops > MAX_HOPS {
                let channel = self.links[device].name.clone();
                let what = "lines between devices oscillate, or transfers don't end".into();
                return Err(PortError::Bad { channel, what });
            }
            self.request_one(device, vtime, request)?;
        }
        Ok(())
    }

    /// The nearest device timer: (guest time, device, id).
    #[inline]
    pub fn deadline(&self) -> Option<(u64, usize, u32)> {
        self.nearest
    }

    fn find_nearest(&mut self) {
        self.nearest = self.links.iter().enumerate().filter_map(|(i, l)| l.deadline().map(|(t, id)| (t, i, id))).min();
    }

    /// Guest time of the next thing that happens by itself: a device's timer or one of the private peripherals.
    pub fn next_deadline(&self) -> Option<u64> {
        let device = self.nearest.map(|d| d.0);
        device.into_iter().chain(self.private_due).min()
    }

    /// Brings the outputs of the private peripherals up to `now` if something is due.
    #[inline]
    fn drive_private(&mut self, now: u64) {
        if self.private_due.is_some_and(|due| due <= now) {
            self.update_private(now);
        }
    }

    fn update_private(&mut self, now: u64) {
        let Some(m) = &mut self.mpcore else { return };
        m.advance(now);
        for core in 0..m.cpus() {
            for (ppi, level) in m.lines(core) {
                self.gic.set_ppi(core, ppi, level);
            }
        }
        if m.reset_request() {
            self.power.get_or_insert(Power::Reset);
        }
        self.private_due = m.deadline();
    }

    /// The core's private peripherals are accessed: the run loop must look at their deadlines anew after a write.
    fn private_write(&mut self, at: At, offset: u32, size: u8, value: u64) {
        let now = self.clock.vtime(at.icount);
        if let Some(m) = &mut self.mpcore {
            m.write(self.core, at.secure, now, offset, size, value);
        }
        self.update_private(now);
        self.deadline_changed = true;
    }

    fn private_read(&mut self, at: At, offset: u32, size: u8) -> u64 {
        let now = self.clock.vtime(at.icount);
        let core = self.core;
        self.mpcore.as_mut().map_or(0, |m| m.read(core, at.secure, now, offset, size))
    }

    /// Reads the cache controller, whose registers are words; a doubleword is two of them.
    fn l2_read(&self, offset: u32, size: u8) -> u64 {
        let word = |at| self.l2.as_ref().map_or(0, |l2| u64::from(l2.read(at)));
        match size {
            8 => word(offset) | word(offset + 4) << 32,
            _ => word(offset & !3) >> ((offset & 3) * 8),
        }
    }

    /// Writes the cache controller. A narrow write sets the rest of its register to zero.
    fn l2_write(&mut self, secure: bool, offset: u32, size: u8, value: u64) {
        let Some(l2) = &mut self.l2 else { return };
        let shift = (offset & 3) * 8;
        match size {
            8 => {
                l2.write(secure, offset, value as u32);
                l2.write(secure, offset + 4, (value >> 32) as u32);
            }
            4 => l2.write(secure, offset, value as u32),
            _ => l2.write(secure, offset & !3, (value as u32 & ((1 << (8 * u32::from(size))) - 1)) << shift),
        }
    }

    /// Timer outputs of the private peripherals, then every device timer that is due at `now`, earliest first.
    pub fn fire_due(&mut self, now: u64) -> Result<(), PortError> {
        self.drive_private(now);
        let mut fired = 0;
        while let Some((t, device, id)) = self.deadline() {
            if t > now {
                break;
            }
            fired += 1;
            if fired > 10_000 {
                let channel = self.links[device].name.clone();
                return Err(PortError::Bad {
                    channel,
                    what: "its timer is due again and again at one position".into(),
                });
            }
            self.links[device].take_timer(id);
            self.find_nearest();
            self.request(device, now, Request::Timer { id })?;
        }
        Ok(())
    }

    /// Consumes everything that request `seq` and those before it caused, before a shadow that it may have changed is read.
    fn settle(&mut self, device: usize, seq: u64, vtime: u64) -> Result<(), PortError> {
        if self.links[device].is_gone() {
            return Ok(());
        }
        self.links[device].port.wait_passed(seq)?;
        while let Some((c, _)) = self.take_effect(device, seq)? {
            self.carry_on(device, c)?;
        }
        self.links[device].settle(seq);
        self.deliver_queued(vtime)
    }

    fn device_read(&mut self, at: At, device: usize, offset: u64, size: u8) -> Result<u64, PortError> {
        let vtime = self.clock.vtime(at.icount);
        match self.links[device].policy(offset, size).read {
            ReadPolicy::Const(v) => Ok(v),
            ReadPolicy::Clock(hz) => Ok(Link::<P>::clock_value(hz, vtime)),
            ReadPolicy::Queue(i) => {
                let Some(value) = self.links[device].pop(i) else {
                    return Ok(self.request(device, vtime, Request::Read { offset, size })?.unwrap_or(0));
                };
                if self.links[device].ran_empty(i) {
                    self.catch_up(device, vtime)?;
                }
                Ok(value.into())
            }
            ReadPolicy::Shadow(i) => {
                if self.links[device].has_popped() || self.links[device].burst_changes(i) {
                    self.catch_up(device, vtime)?;
                }
                if self.links[device].is_gone() {
                    return Ok(0);
                }
                let (value, wait_for) = self.links[device].shadow(i);
                let Some(seq) = wait_for else { return Ok(value) };
                self.settle(device, seq, vtime)?;
                Ok(self.links[device].shadow(i).0)
            }
            ReadPolicy::Sync => Ok(self.request(device, vtime, Request::Read { offset, size })?.unwrap_or(0)),
        }
    }

    fn device_write(&mut self, at: At, device: usize, offset: u64, size: u8, value: u64) -> Result<(), PortError> {
        let policy = self.links[device].policy(offset, size);
        if self.links[device].holds(policy, truncate(value, size)) {
            return Ok(());
        }
        let vtime = self.clock.vtime(at.icount);
        self.focus(device);
        match policy.posted {
            Some(mask) if policy.fifo && size <= 4 => {
                let at = Store { offset, size, vtime, icount: at.icount };
                self.gather(device, &at, truncate(value, size), mask)
            }
            Some(mask) => {
                self.catch_up(device, vtime)?;
                if self.links[device].is_gone() {
                    return Ok(());
                }
                self.traffic += 1;
                self.links[device].send(vtime, Request::Write { offset, size, value, posted: true }, mask).map(drop)
            }
            None => self.request(device, vtime, Request::Write { offset, size, value, posted: false }).map(drop),
        }
    }

    fn note(&mut self, a: Access, local: bool) {
        self.accesses += 1;
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        self.trail.push_back(a);
        if local {
            self.local_hash =
                fold(fold(self.local_hash, a.pa << 8 | u64::from(a.size) << 1 | u64::from(a.write)), a.value);
        }
    }

    /// What the engine must know after an access: it leaves when anything that the run loop or the core acts upon has changed.
    fn after(&mut self, lines: (bool, bool)) -> After {
        let changed = std::mem::take(&mut self.deadline_changed);
        let wrote = !self.dma_writes.is_empty();
        After {
            wrote,
            exit: self.exit_always
                || self.traffic >= self.leave_at
                || changed
                || wrote
                || self.power.is_some()
                || self.error.is_some()
                || self.gic.lines(self.core) != lines,
        }
    }
}

/// Notes a written range, cut where pages end.
fn note_write(writes: &mut Vec<RamWrite>, addr: u64, len: u64) {
    let (mut at, end) = (addr, addr + len);
    while at < end {
        let next = ((at | 0xfff) + 1).min(end);
        writes.push((at, (next - at) as u32));
        at = next;
    }
}

impl<P: Port> Bus for Board<P> {
    fn read(&mut self, at: At, pa: u64, size: u8) -> Result<(u64, After), BusFault> {
        let r = self.find(pa).ok_or(BusFault)?;
        let lines = self.gic.lines(self.core);
        let offset = pa - r.start;
        let mask = if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
        let value = match r.target {
            Target::Zero => 0,
            Target::Words(i) => self.words[i].read(pa, size),
            Target::GicDist => u64::from(self.gic.dist_read(self.core, at.secure, offset as u32, size)),
            Target::GicCpu => u64::from(self.gic.cpu_read(self.core, at.secure, offset as u32, size)),
            Target::Private(base) => self.private_read(at, base + offset as u32, size),
            Target::L2 => self.l2_read(offset as u32, size),
            Target::Device(d) => self.device_read(at, d, offset, size).unwrap_or_else(|e| {
                self.error.get_or_insert(e);
                0
            }),
        } & mask;
        self.note(
            Access { at, core: self.core, pa, size, write: false, value },
            !matches!(r.target, Target::Device(_)),
        );
        Ok((value, self.after(lines)))
    }

    fn write(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<After, BusFault> {
        let r = self.find(pa).ok_or(BusFault)?;
        let lines = self.gic.lines(self.core);
        let offset = pa - r.start;
        match r.target {
            Target::Zero | Target::Words(_) => {}
            Target::GicDist => self.gic.dist_write(self.core, at.secure, offset as u32, size, value as u32),
            Target::GicCpu => self.gic.cpu_write(self.core, at.secure, offset as u32, size, value as u32),
            Target::Private(base) => self.private_write(at, base + offset as u32, size, value),
            Target::L2 => self.l2_write(at.secure, offset as u32, size, value),
            Target::Device(d) => {
                if let Err(e) = self.device_write(at, d, offset, size, value) {
                    self.error.get_or_insert(e);
                }
            }
        }
        self.note(Access { at, core: self.core, pa, size, write: true, value }, !matches!(r.target, Target::Device(_)));
        Ok(self.after(lines))
    }

    fn take_dma_writes(&mut self, _: &GuestRam, out: &mut Vec<RamWrite>) {
        out.append(&mut self.dma_writes);
    }

    #[inline]
    fn vtime(&self, icount: u64) -> u64 {
        self.clock.vtime(icount)
    }

    #[inline]
    fn lines(&self) -> (bool, bool) {
        self.gic.lines(self.core)
    }
}
