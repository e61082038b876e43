//! What the device knows of a virtqueue (VIRTIO 1.2, 2.7).

use std::collections::VecDeque;

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::chain::{Buf, Chain, MAX_CHAIN, sum};
use crate::{Bad, MAX_SIZE};

/// Entries of the available ring that are read ahead at first, and descriptors.
const SLOTS: u16 = 16;
const DESCS: u16 = 64;

/// What is written to a chain, from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A range of a disk.
    Disk {
        /// Which.
        disk: u32,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Data {
    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty part is as good as any")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(b) => b.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }
}

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where in the chain's writable bytes.
    pub at: u64,
    /// What.
    pub data: Data,
}

/// How a chain is finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What is written to it.
    pub parts: Vec<Part>,
    /// What the used ring says was written, in bytes.
    pub len: u32,
    /// The chain behind it belongs to the same message: the driver sees both at once.
    pub joined: bool,
}

/// What becomes of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is finished so.
    Done(Answer),
    /// It waits for [`Core::finish`](crate::Core::finish).
    Hold,
}

/// A chain that the device has taken from the available ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job<T> {
    pub(crate) head: u16,
    pub(crate) reads: Vec<Buf>,
    pub(crate) writes: Vec<Buf>,
    /// What is to be read, and how much of that has been taken.
    pub(crate) wanted: u64,
    pub(crate) taken: u64,
    /// How much of the answer has been written.
    pub(crate) sent: u64,
    pub(crate) answer: Option<Answer>,
    /// What the kind of device keeps of it.
    pub task: T,
}

impl<T: Default> Job<T> {
    pub(crate) fn new(chain: Chain) -> Self {
        let Chain { head, reads, writes, .. } = chain;
        Self { head, reads, writes, wanted: 0, taken: 0, sent: 0, answer: None, task: T::default() }
    }
}

impl<T> Job<T> {
    /// Bytes that the device may read.
    #[must_use]
    pub fn readable(&self) -> u64 {
        sum(&self.reads)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable(&self) -> u64 {
        sum(&self.writes)
    }

    /// Pieces of memory that the device may write.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.writes.len()
    }

    /// How many bytes were taken before those of the present call of [`Class::take`](crate::Class::take).
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    fn check(&self, size: u16) -> bool {
        let bufs = self.reads.iter().chain(&self.writes);
        let room = self.writable();
        let fits = |p: &Part| p.at.checked_add(p.data.len()).is_some_and(|end| end <= room);
        self.head < size
            && self.reads.len() + self.writes.len() <= MAX_CHAIN
            && bufs.clone().all(|b| b.len > 0 && b.addr.checked_add(b.len.into()).is_some())
            && self.readable() + room <= u64::from(u32::MAX)
            && self.wanted <= self.readable()
            && self.taken <= self.wanted
            && self.answer.as_ref().is_none_or(|a| {
                self.taken == self.wanted
                    && a.parts.iter().all(fits)
                    && self.sent <= a.parts.iter().map(|p| p.data.len()).sum()
            })
    }
}

/// A virtqueue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue<T> {
    /// Most entries.
    pub(crate) max: u16,
    pub(crate) ready: bool,
    /// As the driver set them; checked when the queue becomes ready.
    pub(crate) num: u32,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    /// Legacy: QueueAlign and QueuePFN.
    pub(crate) align: u32,
    pub(crate) pfn: u32,
    /// The next entry of the available ring to take, and of the used ring to fill.
    pub(crate) next_avail: u16,
    pub(crate) next_used: u16,
    /// The last `avail_event` that was written.
    pub(crate) told: u16,
    /// There may be something in the available ring.
    pub(crate) kicked: bool,
    /// Chains taken since something last happened outside.
    pub(crate) pulled: u32,
    /// How many entries and descriptors are read ahead.
    pub(crate) slots: u16,
    pub(crate) descs: u16,
    /// Heads whose descriptors are not at hand.
    pub(crate) heads: Vec<u16>,
    /// Chains whose tables are not at hand; with those behind them, as they stay in order.
    pub(crate) chains: VecDeque<Chain>,
    /// Chains that are being read or answered.
    pub(crate) jobs: VecDeque<Job<T>>,
    /// Chains that wait for the outside.
    pub(crate) held: VecDeque<Job<T>>,
}

impl<T> Queue<T> {
    pub(crate) fn new(max: u16) -> Self {
        Self {
            max,
            ready: false,
            num: 0,
            desc: 0,
            avail: 0,
            used: 0,
            align: 4096,
            pfn: 0,
            next_avail: 0,
            next_used: 0,
            told: 0,
            kicked: false,
            pulled: 0,
            slots: SLOTS,
            descs: DESCS,
            heads: Vec::new(),
            chains: VecDeque::new(),
            jobs: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    /// Entries, once it is ready.
    pub(crate) fn size(&self) -> u16 {
        self.num as u16
    }

    /// Takes the queue into use.
    pub(crate) fn start(&mut self) -> Result<(), Bad> {
        let checked = self.num > 0
            && self.num <= self.max.into()
            && self.num.is_power_of_two()
            && self.desc % 16 == 0
            && self.avail % 2 == 0
            && self.used % 4 == 0
            && [self.desc, self.avail, self.used].iter().all(|a| a.checked_add(0x1_0000).is_some());
        if !checked {
            return Err(Bad("a queue of an impossible size or place"));
        }
        self.ready = true;
        self.kicked = true;
        (self.next_avail, self.next_used, self.told) = (0, 0, 0);
        Ok(())
    }

    /// Takes it out of use; it remembers what the driver set.
    pub(crate) fn stop(&mut self) {
        let Self { max, num, desc, avail, used, align, .. } = *self;
        *self = Self { num, desc, avail, used, align, ..Self::new(max) };
    }

    /// Where the legacy layout puts the three parts (4.2.4.1 with 2.7.2).
    pub(crate) fn lay_out(&mut self, page: u32) -> Result<(), Bad> {
        let align = u64::from(self.align);
        if !align.is_power_of_two() || align < 4 || self.num > self.max.into() {
            return Err(Bad("a queue of an impossible size or alignment"));
        }
        let n = u64::from(self.num);
        self.desc = u64::from(self.pfn) * u64::from(page);
        self.avail = self.desc + 16 * n;
        let end = (self.avail + 6 + 2 * n).checked_next_multiple_of(align);
        self.used = end.ok_or(Bad("a queue beyond the end of memory"))?;
        Ok(())
    }

    /// Where `avail_event` is.
    pub(crate) fn event_at(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size())
    }

    /// Where `used_event` is.
    pub(crate) fn used_event_at(&self) -> u64 {
        self.avail + 4 + 2 * u64::from(self.size())
    }

    /// Chains that the device has and has not used.
    pub(crate) fn outstanding(&self) -> usize {
        self.heads.len() + self.chains.len() + self.jobs.len() + self.held.len()
    }

    pub(crate) fn check(&self, max: u16) -> Result<(), RestoreError> {
        let check = RestoreError::check;
        check(self.max == max, "the size of a queue")?;
        check(
            self.slots <= MAX_SIZE && self.descs <= MAX_SIZE && self.slots > 0 && self.descs > 0,
            "what is read ahead",
        )?;
        if !self.ready {
            return check(self.outstanding() == 0, "chains of a queue that is not in use");
        }
        check(self.clone_setup().start().is_ok(), "a queue's place")?;
        check(self.outstanding() <= self.size().into(), "more chains than entries")?;
        let known = |c: &Chain| c.head < self.size() && c.reads.len() + c.writes.len() <= MAX_CHAIN && chain_fits(c);
        check(self.heads.iter().all(|&h| h < self.size()), "a head")?;
        check(self.chains.iter().all(known), "a chain")?;
        check(self.jobs.iter().chain(&self.held).all(|j| j.check(self.size())), "a chain at work")?;
        check(self.held.iter().all(|j| j.answer.is_none() && j.taken == j.wanted), "a chain that waits")
    }

    fn clone_setup(&self) -> Self {
        let Self { max, num, desc, avail, used, .. } = *self;
        Self { num, desc, avail, used, ..Self::new(max) }
    }
}

/// A chain whose table has not been looked at.
fn chain_fits(c: &Chain) -> bool {
    let bufs = c.reads.iter().chain(&c.writes);
    bufs.clone().all(|b| b.len > 0 && b.addr.checked_add(b.len.into()).is_some())
        && c.table.is_none_or(|t| {
            t.len > 0
                && t.len as usize <= MAX_CHAIN * 16
                && t.len % 16 == 0
                && t.addr.checked_add(t.len.into()).is_some()
        })
}
