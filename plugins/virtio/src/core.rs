//! Transport and queues of a device, without what makes it one kind or another: registers, and the transfers that move chains along.

use reprise_device::device::{DmaData, DmaRange, DmaWrite};
use reprise_device::dma::{MAX_BYTES, MAX_RANGES};
use reprise_device::{Effects, RestoreError};
use serde::{Deserialize, Serialize};

use crate::chain::{Buf, Chain, DESC, Stop, ranges};
use crate::queue::{Answer, Data, Job, Next, Queue};
use crate::regs::{IRQ, interrupt, reg, shadow, status};
use crate::{Bad, Class, Shape, feature};

/// Ranges and bytes of each direction of a transfer that chains may take; the rest is for the rings.
const CHAIN_RANGES: usize = MAX_RANGES - 8;
const CHAIN_BYTES: u64 = MAX_BYTES - 16 * 1024;

/// The transfer that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Transfer {
    /// The available ring from its next entry on, and the beginning of the descriptor table.
    Rings { queue: u32, slots: u16, descs: u16 },
    /// The whole descriptor table, as some chain leads beyond what was read.
    Descs { queue: u32 },
    /// The indirect tables of the first so many chains that have one.
    Tables { queue: u32, chains: u32 },
    /// Readable bytes, answers, used ring.
    Move(Move),
}

impl Transfer {
    fn queue(&self) -> usize {
        match self {
            Self::Rings { queue, .. } | Self::Descs { queue } | Self::Tables { queue, .. } => *queue as usize,
            Self::Move(m) => m.queue as usize,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Move {
    queue: u32,
    /// Bytes read of which jobs.
    reads: Vec<(u32, u64)>,
    /// Bytes written to which jobs.
    writes: Vec<(u32, u64)>,
    /// How many of the first jobs are used with it.
    used: u32,
}

/// What a kind of device may ask about the agreement with the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// The features that the driver takes.
    pub features: u64,
    /// Whether the interface is that of section 4.2.4.
    pub legacy: bool,
}

/// Transport and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core<T> {
    legacy: bool,
    status: u32,
    interrupts: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    features: u64,
    queue_sel: u32,
    page_size: u32,
    queues: Vec<Queue<T>>,
    /// Its tag and the length of what it reads.
    transfer: Option<(u32, u64, Transfer)>,
    next_tag: u32,
}

impl<T> Core<T> {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            legacy: shape.legacy,
            status: 0,
            interrupts: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            features: 0,
            queue_sel: 0,
            page_size: 0,
            queues: shape.queues.iter().map(|&max| Queue::new(max)).collect(),
            transfer: None,
            next_tag: 0,
        }
    }

    /// What was agreed with the driver.
    #[must_use]
    pub fn side(&self) -> Side {
        Side { features: self.features, legacy: self.legacy }
    }

    /// Whether the driver drives the device.
    #[must_use]
    pub fn live(&self) -> bool {
        // Legacy drivers use queues before they say DRIVER_OK (3.1.2).
        let (must, may_not) = (
            if self.legacy { status::DRIVER } else { status::DRIVER_OK | status::FEATURES_OK },
            status::NEEDS_RESET | status::FAILED,
        );
        self.status & must == must && self.status & may_not == 0
    }

    /// The chains of a queue that wait for the outside, oldest first.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn held(&self, queue: usize) -> std::collections::vec_deque::Iter<'_, Job<T>> {
        self.queues[queue].held.iter()
    }

    /// Finishes the oldest chain that waits.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn finish(&mut self, queue: usize, answer: Answer) {
        let q = &mut self.queues[queue];
        if let Some(mut job) = q.held.pop_front() {
            debug_assert!(answer.parts.iter().all(|p| p.at + p.data.len() <= job.writable()));
            job.answer = Some(answer);
            q.jobs.push_back(job);
        }
    }

    /// Each thing that happens outside may lead to as many chains as a queue has entries, and no more.
    pub(crate) fn outside_event(&mut self) {
        self.queues.iter_mut().for_each(|q| q.pulled = 0);
    }

    /// The configuration has changed by itself: a driver that is there is told (2.4, 4.2.2).
    pub(crate) fn config_changed(&mut self) {
        if self.live() {
            self.interrupts |= interrupt::CONFIG;
        }
    }

    /// The driver did what none may do: nothing goes on until it resets the device (2.1.2).
    pub(crate) fn fail(&mut self) {
        self.transfer = None;
        self.queues.iter_mut().for_each(Queue::stop);
        let told = self.status & status::DRIVER_OK != 0 && !self.legacy;
        self.status |= if self.legacy { status::FAILED } else { status::NEEDS_RESET };
        if told {
            self.interrupts |= interrupt::CONFIG;
        }
    }

    /// What a control register holds.
    pub(crate) fn read_register(&self, offset: u64, offered: u64) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            reg::DEVICE_FEATURES => half(offered, self.device_features_sel),
            reg::QUEUE_NUM_MAX => queue.map_or(0, |q| q.max.into()),
            reg::QUEUE_READY if !self.legacy => queue.map_or(0, |q| q.ready.into()),
            reg::QUEUE_PFN if self.legacy => queue.map_or(0, |q| q.pfn),
            reg::INTERRUPT_STATUS => self.interrupts,
            reg::STATUS => self.status,
            _ => 0,
        }
    }

    /// The driver writes a control register; true if that resets the device.
    pub(crate) fn write_register(&mut self, offset: u64, value: u32, offered: u64) -> Result<bool, Bad> {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::DRIVER_FEATURES => self.take_features(value, offered),
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::GUEST_PAGE_SIZE if self.legacy => self.page_size = value,
            reg::QUEUE_NOTIFY => {
                if let Some(q) = self.queues.get_mut(value as usize) {
                    q.kicked |= q.ready;
                }
            }
            reg::INTERRUPT_ACK => self.interrupts &= !value,
            reg::STATUS if value == 0 => {
                let sizes: Vec<u16> = self.queues.iter().map(|q| q.max).collect();
                let shape = Shape { legacy: self.legacy, indirect: false, queues: sizes };
                *self = Self { next_tag: self.next_tag, ..Self::new(&shape) };
                return Ok(true);
            }
            reg::STATUS => self.write_status(value, offered),
            reg::QUEUE_READY if !self.legacy => self.write_ready(value)?,
            reg::QUEUE_PFN if self.legacy => self.write_pfn(value)?,
            _ => self.set_up_queue(offset, value),
        }
        Ok(false)
    }

    fn take_features(&mut self, value: u32, offered: u64) {
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        // 2.2.1: not after FEATURES_OK.
        if self.status & status::FEATURES_OK == 0 {
            self.features = self.features & !(0xffff_ffff << shift) | u64::from(value) << shift;
        }
        if self.legacy {
            // There is no FEATURES_OK with which to say no.
            self.features &= offered;
        }
    }

    fn write_status(&mut self, value: u32, offered: u64) {
        let known = status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK | status::FAILED;
        let before = self.status;
        self.status |= value & known;
        let agreed = self.features & !offered == 0 && self.features & feature::VERSION_1 != 0;
        // 2.2.2: the device refuses features by not setting the bit.
        if value & status::FEATURES_OK != 0 && agreed && !self.legacy {
            self.status |= status::FEATURES_OK;
        }
        if !before & self.status & status::DRIVER_OK != 0 {
            self.queues.iter_mut().for_each(|q| q.kicked |= q.ready);
        }
    }

    fn write_ready(&mut self, value: u32) -> Result<(), Bad> {
        let (Some(q), n) = (self.queues.get_mut(self.queue_sel as usize), self.queue_sel as usize) else {
            return Ok(());
        };
        if value & 1 != 0 {
            return if q.ready { Ok(()) } else { q.start() };
        }
        q.stop();
        self.forget_transfer_of(n);
        Ok(())
    }

    fn write_pfn(&mut self, value: u32) -> Result<(), Bad> {
        let (page, n) = (self.page_size, self.queue_sel as usize);
        let Some(q) = self.queues.get_mut(n) else { return Ok(()) };
        q.stop();
        q.pfn = value;
        if value != 0 {
            q.lay_out(page)?;
            q.start()?;
        }
        self.forget_transfer_of(n);
        Ok(())
    }

    fn forget_transfer_of(&mut self, queue: usize) {
        self.transfer.take_if(|(_, _, t)| t.queue() == queue);
    }

    /// Registers that say where a queue is; not while it is in use (4.2.2.2).
    fn set_up_queue(&mut self, offset: u64, value: u32) {
        let Some(q) = self.queues.get_mut(self.queue_sel as usize).filter(|q| !q.ready) else { return };
        let place = match offset & !7 {
            reg::QUEUE_DESC => &mut q.desc,
            reg::QUEUE_DRIVER => &mut q.avail,
            reg::QUEUE_DEVICE => &mut q.used,
            _ => {
                match offset {
                    reg::QUEUE_NUM => q.num = value,
                    reg::QUEUE_ALIGN if self.legacy => q.align = value,
                    _ => {}
                }
                return;
            }
        };
        if !self.legacy && offset & 3 == 0 {
            let shift = 8 * (offset & 4);
            *place = *place & !(0xffff_ffff << shift) | u64::from(value) << shift;
        }
    }

    /// States what the world can see of the transport.
    pub(crate) fn show(&self, fx: &mut Effects<'_>) {
        fx.publish(shadow::INTERRUPT_STATUS, self.interrupts.into());
        fx.publish(shadow::STATUS, self.status.into());
        fx.line(IRQ, self.interrupts != 0);
    }

    fn event_idx(&self) -> bool {
        self.features & feature::EVENT_IDX != 0
    }

    /// Starts a transfer that only reads.
    fn start(&mut self, transfer: Transfer, reads: &[DmaRange], fx: &mut Effects<'_>) {
        fx.dma(self.next_tag.into(), reads, &[]);
        self.begin(reads, transfer);
    }

    /// Notes a transfer that was asked for with the next tag.
    fn begin(&mut self, reads: &[DmaRange], transfer: Transfer) {
        self.transfer = Some((self.next_tag, reads.iter().map(|r| r.len).sum(), transfer));
        self.next_tag = self.next_tag.wrapping_add(1);
    }
}

impl<T: Serialize + for<'a> Deserialize<'a> + Clone + std::fmt::Debug + Default + PartialEq> Core<T> {
    /// Starts the next transfer, if one is needed and none is under way.
    pub(crate) fn advance<C: Class<Task = T>>(&mut self, class: &mut C, fx: &mut Effects<'_>) -> Result<(), Bad> {
        if self.transfer.is_some() {
            return Ok(());
        }
        class.settle(self, fx)?;
        if !self.live() {
            return Ok(());
        }
        for n in 0..self.queues.len() {
            let q = &self.queues[n];
            if !q.ready {
                continue;
            }
            if q.chains.iter().any(|c| c.table.is_some()) {
                self.start_tables(n, fx);
            } else if q.jobs.is_empty() && q.kicked {
                self.start_rings(n, fx);
            } else if !q.jobs.is_empty() || self.event_idx() && q.told != q.next_avail {
                self.start_move(n, fx);
            }
            if self.transfer.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn start_rings(&mut self, n: usize, fx: &mut Effects<'_>) {
        let q = &self.queues[n];
        let (size, slots, descs) = (q.size(), q.slots.min(q.size()), q.descs.min(q.size()));
        let mut reads = vec![DmaRange { addr: q.avail, len: 4 }];
        let first = q.next_avail % size;
        let before_end = slots.min(size - first);
        for (at, count) in [(first, before_end), (0, slots - before_end)] {
            reads.push(DmaRange { addr: q.avail + 4 + 2 * u64::from(at), len: 2 * u64::from(count) });
        }
        reads.push(DmaRange { addr: q.desc, len: DESC as u64 * u64::from(descs) });
        reads.retain(|r| r.len > 0);
        self.start(Transfer::Rings { queue: n as u32, slots, descs }, &reads, fx);
    }

    fn start_tables(&mut self, n: usize, fx: &mut Effects<'_>) {
        let (mut reads, mut bytes) = (Vec::new(), 0);
        for table in self.queues[n].chains.iter().filter_map(|c| c.table) {
            bytes += u64::from(table.len);
            if reads.len() >= CHAIN_RANGES || bytes > CHAIN_BYTES {
                break;
            }
            reads.push(DmaRange { addr: table.addr, len: table.len.into() });
        }
        self.start(Transfer::Tables { queue: n as u32, chains: reads.len() as u32 }, &reads, fx);
    }

    /// A transfer that reads and writes as much as there is, and uses what is finished by it.
    fn start_move(&mut self, n: usize, fx: &mut Effects<'_>) {
        let q = &self.queues[n];
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let mut made = Move { queue: n as u32, reads: Vec::new(), writes: Vec::new(), used: 0 };
        let mut room = Room::new();
        for (i, job) in q.jobs.iter().enumerate() {
            let left = job.wanted - job.taken;
            let got = room.fill(&job.reads, job.taken, left, &mut |addr, _, len| reads.push(DmaRange { addr, len }));
            if got > 0 {
                made.reads.push((i as u32, got));
            }
            if got < left {
                break;
            }
        }
        let mut room = Room::new();
        for (i, job) in q.jobs.iter().enumerate() {
            let Some(answer) = &job.answer else { break };
            let (got, whole) = put(job, answer, &mut room, &mut writes);
            if got > 0 {
                made.writes.push((i as u32, got));
            }
            if !whole {
                break;
            }
            if !answer.joined {
                made.used = i as u32 + 1;
            }
        }
        let elements: Vec<u8> = (q.jobs.iter().take(made.used as usize))
            .flat_map(|job| [u32::from(job.head), job.answer.as_ref().map_or(0, |a| a.len)])
            .flat_map(u32::to_le_bytes)
            .collect();
        let first = q.next_used % q.size();
        let before_end = elements.len().min(8 * usize::from(q.size() - first));
        let index = [[0, 0], q.next_used.wrapping_add(made.used as u16).to_le_bytes()].concat();
        if made.used > 0 {
            let (head, tail) = elements.split_at(before_end);
            for (at, data) in [(4 + 8 * u64::from(first), head), (4, tail), (0, &index)] {
                writes.push(DmaWrite { addr: q.used + at, data: DmaData::Bytes(data) });
            }
        }
        let event = q.next_avail.to_le_bytes();
        if self.event_idx() && q.told != q.next_avail {
            writes.push(DmaWrite { addr: q.event_at(), data: DmaData::Bytes(&event) });
        }
        reads.push(DmaRange { addr: q.avail, len: 4 });
        if self.event_idx() {
            reads.push(DmaRange { addr: q.used_event_at(), len: 2 });
        }
        writes.retain(|w| w.data.len() > 0);
        let tag = self.next_tag;
        fx.dma(tag.into(), &reads, &writes);
        self.begin(&reads, Transfer::Move(made));
    }

    /// A transfer is done.
    pub(crate) fn done<C: Class<Task = T>>(
        &mut self,
        tag: u64,
        data: &[u8],
        class: &mut C,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        // One that was forgotten meanwhile is none of the device's business any more.
        let Some((_, len, transfer)) = self.transfer.take_if(|t| u64::from(t.0) == tag) else { return Ok(()) };
        if len != data.len() as u64 {
            return Err(Bad("a transfer of another length"));
        }
        let n = transfer.queue();
        match transfer {
            Transfer::Rings { slots, descs, .. } => {
                let (ring, table) = data.split_at(4 + 2 * usize::from(slots));
                self.pull(n, ring, slots)?;
                self.follow(n, table, descs >= self.queues[n].size(), class, fx)
            }
            Transfer::Descs { .. } => self.follow(n, data, true, class, fx),
            Transfer::Tables { chains, .. } => self.follow_tables(n, data, chains, class, fx),
            Transfer::Move(made) => self.moved(n, &made, data, class, fx),
        }
    }

    /// Takes the heads of new chains out of the available ring.
    fn pull(&mut self, n: usize, ring: &[u8], slots: u16) -> Result<(), Bad> {
        let q = &mut self.queues[n];
        let (index, entries) = (word(ring, 2), &ring[4..]);
        let new = index.wrapping_sub(q.next_avail);
        if new > q.size() {
            return Err(Bad("an index of the available ring that jumps"));
        }
        let count = new.min(slots);
        q.heads = (0..count).map(|i| word(entries, 2 * usize::from(i))).collect();
        q.next_avail = q.next_avail.wrapping_add(count);
        q.kicked = new > count;
        if q.kicked {
            q.slots = (2 * q.slots).min(q.size());
        }
        q.pulled += u32::from(count);
        // The CPU stands still while this goes on, so only what the device itself writes can make more of it.
        if q.outstanding() > q.size().into() || q.pulled > u32::from(q.size()) {
            return Err(Bad("more chains than the queue has entries"));
        }
        Ok(())
    }

    /// Follows the chains at the heads that were pulled.
    fn follow<C: Class<Task = T>>(
        &mut self,
        n: usize,
        table: &[u8],
        whole: bool,
        class: &mut C,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        let indirect = self.features & feature::INDIRECT_DESC != 0;
        let q = &mut self.queues[n];
        let heads = std::mem::take(&mut q.heads);
        let mut chains = Vec::with_capacity(heads.len());
        for &head in &heads {
            match Chain::follow(table, q.size(), head, indirect) {
                Ok(chain) => chains.push(chain),
                Err(Stop::Bad(bad)) => return Err(bad),
                Err(Stop::Beyond) if whole => return Err(Bad("a descriptor that the queue does not have")),
                Err(Stop::Beyond) => {
                    q.descs = (2 * q.descs).min(q.size());
                    q.heads = heads;
                    let read = DmaRange { addr: q.desc, len: DESC as u64 * u64::from(q.size()) };
                    self.start(Transfer::Descs { queue: n as u32 }, &[read], fx);
                    return Ok(());
                }
            }
        }
        q.chains.extend(chains);
        self.admit(n, class, fx)
    }

    fn follow_tables<C: Class<Task = T>>(
        &mut self,
        n: usize,
        data: &[u8],
        count: u32,
        class: &mut C,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        let mut rest = data;
        let with_table = self.queues[n].chains.iter_mut().filter(|c| c.table.is_some()).take(count as usize);
        for chain in with_table {
            let len = chain.table.map_or(0, |t| t.len as usize);
            let Some((table, tail)) = rest.split_at_checked(len) else { return Err(Bad("a table of another length")) };
            rest = tail;
            *chain = std::mem::take(chain).follow_table(table).map_err(|stop| match stop {
                Stop::Bad(bad) => bad,
                Stop::Beyond => Bad("a descriptor that the indirect table does not have"),
            })?;
        }
        self.admit(n, class, fx)
    }

    /// Hands chains that are known as a whole to the kind of device, in order.
    fn admit<C: Class<Task = T>>(&mut self, n: usize, class: &mut C, fx: &mut Effects<'_>) -> Result<(), Bad> {
        while self.queues[n].chains.front().is_some_and(|c| c.table.is_none()) {
            let chain = self.queues[n].chains.pop_front().expect("there is one");
            let mut job = Job::new(chain);
            job.wanted = class.admit(n, &job)?.min(job.readable());
            self.queues[n].jobs.push_back(job);
        }
        self.answer(n, class, fx)
    }

    /// Answers the chains of which all is at hand.
    fn answer<C: Class<Task = T>>(&mut self, n: usize, class: &mut C, fx: &mut Effects<'_>) -> Result<(), Bad> {
        let side = self.side();
        let q = &mut self.queues[n];
        let mut i = 0;
        while let Some(job) = q.jobs.get_mut(i) {
            i += 1;
            if job.answer.is_some() || job.taken < job.wanted {
                continue;
            }
            match class.answer(n, job, side, fx)? {
                Next::Done(answer) => job.answer = Some(answer),
                Next::Hold => {
                    i -= 1;
                    let job = q.jobs.remove(i).expect("it is there");
                    q.held.push_back(job);
                }
            }
        }
        Ok(())
    }

    fn moved<C: Class<Task = T>>(
        &mut self,
        n: usize,
        made: &Move,
        data: &[u8],
        class: &mut C,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad> {
        let (side, event_idx) = (self.side(), self.event_idx());
        let q = &mut self.queues[n];
        let mut rest = data;
        for &(i, len) in &made.reads {
            let short = Bad("a transfer of another length");
            let (piece, tail) = rest.split_at_checked(len as usize).ok_or(short)?;
            let job = q.jobs.get_mut(i as usize).ok_or(short)?;
            class.take(n, job, piece, side, fx)?;
            job.taken += len;
            rest = tail;
        }
        for &(i, len) in &made.writes {
            q.jobs[i as usize].sent += len;
        }
        q.jobs.drain(..made.used as usize);
        let (old, new) = (q.next_used, q.next_used.wrapping_add(made.used as u16));
        q.next_used = new;
        q.told = q.next_avail;
        let (flags, index) = (word(rest, 0), word(rest, 2));
        // 2.7.7.2: whether the driver wants to hear of it.
        let wanted = if event_idx {
            new.wrapping_sub(word(rest, 4)).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            flags & 1 == 0
        };
        q.kicked |= index != q.next_avail;
        if made.used > 0 && wanted {
            self.interrupts |= interrupt::USED;
        }
        self.answer(n, class, fx)
    }

    pub(crate) fn check(&self, shape: &Shape) -> Result<(), RestoreError> {
        let check = RestoreError::check;
        check(self.legacy == shape.legacy, "another interface")?;
        check(self.queues.len() == shape.queues.len(), "another number of queues")?;
        self.queues.iter().zip(&shape.queues).try_for_each(|(q, &max)| q.check(max))?;
        let Some((_, len, transfer)) = &self.transfer else { return Ok(()) };
        let fits = self.queues.get(transfer.queue()).is_some_and(|q| q.ready && transfer_fits(q, transfer, *len));
        check(fits, "a transfer")
    }
}

/// Whether a transfer of `len` read bytes can be under way.
fn transfer_fits<T>(q: &Queue<T>, transfer: &Transfer, len: u64) -> bool {
    let size = q.size();
    match transfer {
        Transfer::Rings { slots, descs, .. } => {
            *slots <= size && *descs <= size && len == 4 + 2 * u64::from(*slots) + DESC as u64 * u64::from(*descs)
        }
        Transfer::Descs { .. } => len == DESC as u64 * u64::from(size),
        Transfer::Tables { chains, .. } => {
            let tables = q.chains.iter().filter_map(|c| c.table).take(*chains as usize);
            *chains > 0 && len == tables.map(|t| u64::from(t.len)).sum()
        }
        Transfer::Move(m) => {
            let job = |i: u32| q.jobs.get(i as usize);
            let read: u64 = m.reads.iter().map(|r| r.1.min(u64::from(u32::MAX))).sum();
            let ascending = |l: &[(u32, u64)]| l.windows(2).all(|w| w[0].0 < w[1].0);
            let written = |&(i, n): &(u32, u64)| {
                job(i).is_some_and(|j| {
                    let whole = j.answer.as_ref().map_or(0, |a| a.parts.iter().map(|p| p.data.len()).sum());
                    n <= whole - j.sent
                })
            };
            m.used as usize <= q.jobs.len()
                && ascending(&m.reads)
                && ascending(&m.writes)
                && m.reads.iter().all(|&(i, n)| job(i).is_some_and(|j| n <= j.wanted - j.taken))
                && m.writes.iter().all(written)
                && (len == read + 4 || len == read + 6)
        }
    }
}

/// What is left of a transfer's limits.
struct Room {
    ranges: usize,
    bytes: u64,
}

impl Room {
    fn new() -> Self {
        Self { ranges: CHAIN_RANGES, bytes: CHAIN_BYTES }
    }

    /// Gives the ranges of `len` bytes from byte `at` of `bufs` to `each` (address, how many bytes came before it, bytes), as far as there is room;
    /// how many bytes that were.
    fn fill(&mut self, bufs: &[Buf], at: u64, len: u64, each: &mut dyn FnMut(u64, u64, u64)) -> u64 {
        let mut got = 0;
        for (addr, n) in ranges(bufs, at, len.min(self.bytes)) {
            if self.ranges == 0 {
                break;
            }
            each(addr, got, n);
            self.ranges -= 1;
            got += n;
        }
        self.bytes -= got;
        got
    }
}

/// Adds what was not written yet of a job's answer to `writes`; how much, and whether that is all.
fn put<'a, T>(job: &Job<T>, answer: &'a Answer, room: &mut Room, writes: &mut Vec<DmaWrite<'a>>) -> (u64, bool) {
    let (mut skip, mut total) = (job.sent, 0);
    for part in &answer.parts {
        let from = skip.min(part.data.len());
        skip -= from;
        let left = part.data.len() - from;
        let got = room.fill(&job.writes, part.at + from, left, &mut |addr, before, len| {
            let data = match &part.data {
                Data::Bytes(b) => DmaData::Bytes(&b[(from + before) as usize..(from + before + len) as usize]),
                &Data::Disk { disk, offset, .. } => DmaData::Disk { disk, offset: offset + from + before, len },
            };
            writes.push(DmaWrite { addr, data });
        });
        total += got;
        if got < left {
            return (total, false);
        }
    }
    (total, true)
}

fn half(bits: u64, which: u32) -> u32 {
    match which {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

/// Two bytes; 0 where there are none.
fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}
