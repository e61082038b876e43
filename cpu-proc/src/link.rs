//! One device as cpu-proc knows it: its channel, its register policy, its shadows and timers.

use std::collections::VecDeque;

use reprise_channel::{Request, burst, fold};
use reprise_device::VTime;
use reprise_device::spec::{self, PluginSpec, WritePolicy};

use crate::port::{Effect, Incoming, Port, PortError};

/// Most bytes of host input that wait here for admission: the frames for all buffers of a network card (1024 of 2 KiB) and as much again. More is a hostile
/// peer.
const MAX_OFFERED: usize = 4 << 20;

/// A write that was posted and may still change a shadow.
const NONE: u64 = u64::MAX;

/// What consuming one message did, for the board to carry on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumed {
    /// A pin changed.
    Line(u32, bool),
    /// The set of deadlines changed.
    Deadline,
    /// A shadow or a queue changed: nobody else needs to know.
    Shadow,
    /// A transfer is to be made: its tag, and ranges and data in the encoding of [`reprise_device::dma`].
    Dma(u32, Vec<u8>),
    /// A reply's value; an acknowledgement has none.
    Answer(Option<u64>),
    /// The device is gone.
    Gone,
    /// The device has done what no sound one does: what that was.
    Broken(String),
}

/// A device at the other end of a channel.
pub struct Link<P> {
    /// Name in the machine file.
    pub name: String,
    /// The channel.
    pub port: P,
    policy: Vec<RegPolicy>,
    shadows: Vec<u64>,
    /// For each shadow, the last posted write that may change it and has not been waited for.
    barrier: Vec<u64>,
    queues: Vec<Queue>,
    /// Some queue was read since the device was last told.
    popped: bool,
    burst: Burst,
    /// Armed timers, by id.
    timers: Vec<(u32, u64)>,
    /// Requests sent.
    pub requests: u64,
    /// Effects consumed.
    pub effects: u64,
    /// Rolling hash of the consumed effects.
    pub hash: u64,
    /// The last request may still cause effects that were not consumed: it was posted.
    pub outstanding: Option<u64>,
    /// Whether a backend can offer input.
    pub has_backend: bool,
    offers: VecDeque<(u64, Vec<u8>)>,
    offered: usize,
    /// The device is gone: it gets no requests, and what it says is passed over.
    gone: bool,
}

/// What cpu-proc holds of a queue.
#[derive(Debug)]
struct Queue {
    values: VecDeque<u32>,
    depth: usize,
    /// Values taken that the device does not know of.
    taken: u32,
}

/// Posted writes to a FIFO that are gathered, to be sent as one message. Which ones are together is a function of the guest's execution alone:
/// a row of writes to one register, in which nothing else reached the device, no later than [`BURST_INSNS`] after the first, and at most
/// [`burst::MAX_STORES`]. When they are sent is not.
#[derive(Debug, Default)]
struct Burst {
    offset: u64,
    size: u8,
    may_change: u64,
    /// Guest time of the first and of the last.
    first: u64,
    last: u64,
    /// See [`Link::burst_end`].
    end: u64,
    stores: usize,
    /// As [`burst`] says; empty if there is none.
    data: Vec<u8>,
}

/// Instructions after which a burst ends. To change it makes old recordings diverge.
const BURST_INSNS: u64 = 512;

/// Where and when a posted write is.
#[derive(Debug, Clone, Copy)]
pub struct Store {
    /// Register offset.
    pub offset: u64,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// Guest time.
    pub vtime: u64,
    /// Instructions retired before it.
    pub icount: u64,
}

/// How a register is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// Ask the device.
    Sync,
    /// The device publishes the value under this index.
    Shadow(u8),
    /// It never changes.
    Const(u64),
    /// It counts the ticks of a clock of this many Hz.
    Clock(u64),
    /// Take the first value of this queue; ask if there is none.
    Queue(u8),
}

/// How accesses to one register are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegPolicy {
    /// Reads.
    pub read: ReadPolicy,
    /// Writes: `None` waits for the device, `Some(mask)` does not, and may change the shadows in the mask.
    pub posted: Option<u64>,
    /// The register is a shadow, and a write of the value that it has does nothing: it is left out.
    pub stored: bool,
    /// Posted writes are gathered.
    pub fifo: bool,
    /// The access sizes for which this holds, as the sum of 1, 2, 4 and 8.
    pub sizes: u8,
}

/// Most shadows that one device may have: a posted write names them by bit.
pub const MAX_SHADOWS: usize = 64;

/// Largest register window that gets a policy table; what lies behind it is synchronous.
const MAX_POLICY_WINDOW: u64 = 1 << 20;

/// The policy table of a plugin's spec: one entry for each aligned word of the window, up to the last one with a register. Others are synchronous.
///
/// # Errors
/// A text for the user if the spec has more shadows than a link can keep.
pub fn policy_table(spec: &PluginSpec) -> Result<Vec<RegPolicy>, String> {
    if spec.shadows.len() > MAX_SHADOWS {
        return Err(format!(
            "plugin {:?} has {} shadow registers; at most {MAX_SHADOWS} are possible",
            spec.kind,
            spec.shadows.len()
        ));
    }
    // Up to the last register: a flash or a frame buffer has a large window and few of them.
    let end = spec.registers.iter().map(|r| r.offset.saturating_add(4)).max().unwrap_or(0);
    let words = end.min(spec.window).min(MAX_POLICY_WINDOW).div_ceil(4) as usize;
    let mut table = vec![RegPolicy::SYNC; words];
    for r in &spec.registers {
        let Some(entry) = table.get_mut((r.offset / 4) as usize).filter(|_| r.offset % 4 == 0) else { continue };
        let read = match r.read {
            spec::ReadPolicy::Sync => ReadPolicy::Sync,
            spec::ReadPolicy::Shadow(i) => ReadPolicy::Shadow(i as u8),
            spec::ReadPolicy::Const(v) => ReadPolicy::Const(v),
            spec::ReadPolicy::Clock { hz } => ReadPolicy::Clock(hz),
            spec::ReadPolicy::Queue(i) => ReadPolicy::Queue(i as u8),
        };
        let posted = r.write.posted().map(|shadows| shadows.iter().fold(0, |m, &s| m | 1 << s));
        let (stored, fifo) = (r.write == WritePolicy::Stored, matches!(r.write, WritePolicy::Fifo { .. }));
        *entry = RegPolicy { read, posted, stored, fifo, sizes: r.sizes };
    }
    Ok(table)
}

impl RegPolicy {
    /// What holds for an offset that the spec does not name.
    pub const SYNC: Self = Self { read: ReadPolicy::Sync, posted: None, stored: false, fifo: false, sizes: 15 };
}

impl<P: Port> Link<P> {
    /// A link to a device that was not reset yet. `policy` has one entry for each aligned word of the window from offset 0; offsets past
    /// its end are synchronous. `shadows` are the shadow registers' values before the reset, at most [`MAX_SHADOWS`].
    pub fn new(name: String, port: P, policy: Vec<RegPolicy>, shadows: Vec<u64>, has_backend: bool) -> Self {
        assert!(shadows.len() <= MAX_SHADOWS, "a posted write names shadows by bit");
        for p in &policy {
            assert!(
                !matches!(p.read, ReadPolicy::Shadow(i) if usize::from(i) >= shadows.len()),
                "{name}: a shadow out of range"
            );
        }
        Self {
            name,
            port,
            policy,
            barrier: vec![NONE; shadows.len()],
            shadows,
            queues: Vec::new(),
            popped: false,
            burst: Burst::default(),
            timers: Vec::new(),
            requests: 0,
            effects: 0,
            hash: 0,
            outstanding: None,
            has_backend,
            offers: VecDeque::new(),
            offered: 0,
            gone: false,
        }
    }

    /// Whether the device is gone.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// The device is gone: nothing of it is left here.
    pub fn bury(&mut self) {
        self.gone = true;
        self.timers.clear();
        self.shadows.fill(0);
        self.barrier.fill(NONE);
        for queue in &mut self.queues {
            queue.values.clear();
            queue.taken = 0;
        }
        self.popped = false;
        self.burst.data.clear();
        self.outstanding = None;
        self.offers.clear();
        self.offered = 0;
    }

    /// Gives the link queues of these depths.
    pub fn with_queues(mut self, depths: &[u32]) -> Self {
        let queue = |&d: &u32| Queue { values: VecDeque::new(), depth: d as usize, taken: 0 };
        self.queues = depths.iter().map(queue).collect();
        self
    }

    /// Takes the first value of a queue, if it has one.
    #[inline]
    pub fn pop(&mut self, queue: u8) -> Option<u32> {
        let q = self.queues.get_mut(usize::from(queue))?;
        let value = q.values.pop_front()?;
        q.taken += 1;
        self.popped = true;
        Some(value)
    }

    /// Whether a queue has run empty by reads that the device does not know of.
    #[inline]
    pub fn ran_empty(&self, queue: u8) -> bool {
        self.queues.get(usize::from(queue)).is_some_and(|q| q.values.is_empty() && q.taken > 0)
    }

    /// Whether the device is to be told of reads of its queues before anything else reaches it.
    #[inline]
    pub fn has_popped(&self) -> bool {
        self.popped
    }

    /// The next queue of whose reads the device is to be told, and how many they were.
    pub fn take_popped(&mut self) -> Option<(u32, u32)> {
        let next = self.queues.iter_mut().enumerate().find(|(_, q)| q.taken > 0);
        let told = next.map(|(i, q)| (i as u32, std::mem::take(&mut q.taken)));
        self.popped &= told.is_some();
        told
    }

    /// Posted writes are gathered, and not sent yet.
    #[inline]
    pub fn has_burst(&self) -> bool {
        !self.burst.data.is_empty()
    }

    /// They may change this shadow.
    #[inline]
    pub fn burst_changes(&self, shadow: u8) -> bool {
        self.has_burst() && self.burst.may_change >> shadow & 1 == 1
    }

    /// From this instruction count on they are not to be added to, and may be sent.
    #[inline]
    pub fn burst_end(&self) -> u64 {
        self.burst.end
    }

    /// Adds a posted write to those gathered. False if it does not belong to them: another register or size, too late, or too many.
    #[inline]
    pub fn gather(&mut self, at: &Store, value: u64) -> bool {
        let b = &mut self.burst;
        let fits = (b.offset, b.size) == (at.offset, at.size) && at.icount < b.end && b.stores < burst::MAX_STORES;
        let since = at.vtime.wrapping_sub(b.last);
        if !fits || since > u64::from(u32::MAX) || b.data.is_empty() {
            return false;
        }
        burst::push(&mut b.data, since as u32, value as u32);
        (b.last, b.stores) = (at.vtime, b.stores + 1);
        true
    }

    /// Begins to gather, with this write; none is gathered.
    pub fn begin_burst(&mut self, at: &Store, value: u64, may_change: u64) {
        let b = &mut self.burst;
        assert!(b.data.is_empty(), "what was gathered is sent first");
        burst::push(&mut b.data, 0, value as u32);
        (b.offset, b.size, b.may_change, b.stores) = (at.offset, at.size, may_change, 1);
        (b.first, b.last, b.end) = (at.vtime, at.vtime, at.icount + BURST_INSNS);
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_burst(&mut self) -> Result<(), PortError> {
        let mut b = std::mem::take(&mut self.burst);
        let request = match b.stores {
            1 => {
                let value = burst::stores(0, &b.data).map(|(_, v)| v).sum::<u32>().into();
                Request::Write { offset: b.offset, size: b.size, value, posted: true }
            }
            _ => Request::Burst { offset: b.offset, size: b.size, data: &b.data },
        };
        let sent = self.send(b.first, request, b.may_change);
        b.data.clear();
        // Keeps the memory.
        self.burst = b;
        sent.map(drop)
    }

    /// The policy for an access of `size` bytes at `offset`. Only whole, aligned words may go the short ways.
    #[inline]
    pub fn policy(&self, offset: u64, size: u8) -> RegPolicy {
        match self.policy.get((offset >> 2) as usize) {
            Some(p) if offset & 3 == 0 && p.sizes & size != 0 => *p,
            _ => RegPolicy::SYNC,
        }
    }

    /// The nearest armed timer: (guest time, id).
    pub fn deadline(&self) -> Option<(u64, u32)> {
        self.timers.iter().map(|&(id, t)| (t, id)).min()
    }

    /// Removes a timer that is about to fire.
    pub fn take_timer(&mut self, id: u32) {
        self.timers.retain(|t| t.0 != id);
    }

    /// Whether messages may arrive that no request of ours is waiting for.
    #[inline]
    pub fn must_poll(&self) -> bool {
        (self.outstanding.is_some() || self.has_backend) && !self.gone
    }

    /// Sends a request and keeps the books. A posted write that may change shadows raises their barriers.
    pub fn send(&mut self, vtime: u64, request: Request<'_>, may_change: u64) -> Result<u64, PortError> {
        let seq = self.port.send(vtime, request)?;
        assert_eq!(seq, self.requests, "requests are numbered without gaps");
        self.requests += 1;
        if !request.is_synchronous() {
            self.outstanding = Some(seq);
            for (i, b) in self.barrier.iter_mut().enumerate() {
                if may_change >> i & 1 == 1 {
                    *b = seq;
                }
            }
        }
        Ok(seq)
    }

    /// Applies one effect to this link's own state.
    fn apply(&mut self, cause: u64, effect: Effect, check: u64) -> Consumed {
        self.effects += 1;
        self.hash = fold(self.hash, check);
        if cause >= self.requests && effect != Effect::Gone {
            return Consumed::Broken(format!("an effect names request {cause}, but only {} were sent", self.requests));
        }
        match effect {
            Effect::Gone => Consumed::Gone,
            Effect::Line { pin, level } => Consumed::Line(pin, level),
            Effect::Publish { shadow, value } => {
                let Some(slot) = self.shadows.get_mut(shadow as usize) else {
                    return Consumed::Broken(format!("it publishes shadow {shadow}, which its spec does not have"));
                };
                *slot = value;
                Consumed::Shadow
            }
            Effect::Arm { id, vtime } => {
                self.take_timer(id);
                if self.timers.len() >= 64 {
                    return Consumed::Broken("it armed more than 64 timers".into());
                }
                self.timers.push((id, vtime));
                Consumed::Deadline
            }
            Effect::Disarm { id } => {
                self.take_timer(id);
                Consumed::Deadline
            }
            Effect::Dma { tag, data } => Consumed::Dma(tag, data),
            Effect::Queue { queue, values } => {
                let Some(q) = self.queues.get_mut(queue as usize) else {
                    return Consumed::Broken(format!("it fills queue {queue}, which its spec does not have"));
                };
                if q.values.len() + values.len() > q.depth {
                    return Consumed::Broken(format!("it fills queue {queue} with more than {} values", q.depth));
                }
                q.values.extend(values);
                Consumed::Shadow
            }
            Effect::QueueClear { queue } => {
                let Some(q) = self.queues.get_mut(queue as usize) else {
                    return Consumed::Broken(format!("it clears queue {queue}, which its spec does not have"));
                };
                q.values.clear();
                Consumed::Shadow
            }
            Effect::Reply { value } => Consumed::Answer(Some(value)),
            Effect::Ack => Consumed::Answer(None),
        }
    }

    /// Takes the next effect whose cause is at most `max_cause`, if it is there. Offers and side messages in front of it are dealt with.
    pub fn take_effect(&mut self, max_cause: u64) -> Result<Option<(Consumed, u64)>, PortError> {
        loop {
            let mut accept = |m: &Incoming| !matches!(m, Incoming::Effect { cause, .. } if *cause > max_cause);
            match self.port.next_if(&mut accept)? {
                None => return Ok(None),
                Some(Incoming::Effect { cause, effect, check }) => {
                    return Ok(Some((self.apply(cause, effect, check), check)));
                }
                Some(Incoming::Offer { .. }) if self.gone => {}
                Some(Incoming::Offer { port, data }) => {
                    self.offered += data.len();
                    if self.offered > MAX_OFFERED {
                        return Err(self.bad(format!("more than {MAX_OFFERED} bytes of host input wait for admission")));
                    }
                    self.offers.push_back((port, data));
                }
                Some(Incoming::Side) => {}
                Some(Incoming::Fault(text)) => return Err(self.bad(format!("the device failed: {text}"))),
            }
        }
    }

    /// The next host input that waits for admission.
    pub fn take_offer(&mut self) -> Option<(u64, Vec<u8>)> {
        let o = self.offers.pop_front()?;
        self.offered -= o.1.len();
        Some(o)
    }

    /// Whether host input waits for admission.
    pub fn has_offer(&self) -> bool {
        !self.offers.is_empty()
    }

    /// The value of a shadow and the posted write that must be waited for before it may be used.
    #[inline]
    pub fn shadow(&self, i: u8) -> (u64, Option<u64>) {
        let b = self.barrier[usize::from(i)];
        (self.shadows[usize::from(i)], (b != NONE).then_some(b))
    }

    /// Whether a write of `value` under this policy changes nothing. That is so only if no posted write is under way that may change the
    /// register: which writes are left out must depend on the guest alone, and barriers do.
    #[inline]
    pub fn holds(&self, policy: RegPolicy, value: u64) -> bool {
        let ReadPolicy::Shadow(i) = policy.read else { return false };
        policy.stored && self.shadow(i) == (value, None)
    }

    /// No posted write up to `seq` can change a shadow any more.
    pub fn settle(&mut self, seq: u64) {
        for b in &mut self.barrier {
            if *b != NONE && *b <= seq {
                *b = NONE;
            }
        }
        if self.outstanding.is_some_and(|o| o <= seq) {
            self.outstanding = None;
        }
    }

    /// The value of a clock register at a guest time.
    pub fn clock_value(hz: u64, vtime: u64) -> u64 {
        VTime(vtime).ticks(hz)
    }

    fn bad(&self, what: String) -> PortError {
        PortError::Bad { channel: self.name.clone(), what }
    }
}
