//! The ring protocol, generic over the memory it runs in, so that the very code that runs a machine is model-checked.
//!
//! A ring is a row of slots, an arena, and three cursors: the producer's and those of up to two readers (*peer* and *tap*). Cursors
//! only grow; slot `n` lies at `n % capacity`, and its first word is `n` once it is filled. The producer fills a slot, publishes
//! it by storing that word with Release, and then its cursor. A reader that is awake watches the slot itself, which spares both
//! sides the traffic for the cursor's cache line; before it sleeps, it looks at the cursor. It copies the slot and frees it by
//! storing its own cursor with Release. The producer reuses a slot, and the arena bytes of it, when both readers are past it.
//!
//! Sleeping is a Dekker handshake. A waiter stores *the cursor value that it waits for* into its own wake word, makes a SeqCst
//! fence, loads the cursor again, and sleeps on the cursor's low half. Whoever moves a cursor makes a SeqCst fence and loads the
//! wake word. One of the two sees the other, so no wake is lost, and nobody who is awake costs a system call. A producer may put
//! the fence off for a while and make one for many slots (*post*, *settle*).
//!
//! A tap reads along in every ring of a machine, and the kernel watches 128 words at once: so it sleeps not on cursors, but on one *bell* of
//! each producer, a count that the producer raises whenever it wakes the tap.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Problem;

/// Value of a wake word whose owner is awake.
pub const AWAKE: u64 = u64::MAX;
/// First word of a slot that was never filled. Whoever makes a ring writes it to every slot.
pub const UNFILLED: u64 = u64::MAX;

/// A 64-bit word that several processes share.
pub trait Word {
    /// Atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// Atomic store.
    fn store(&self, value: u64, order: Ordering);
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
}

/// A futex that a sleeper watches: a word of a space, and the value of its low half for which to sleep.
pub type Watch<'a, S> = (&'a S, usize, u32);

/// Shared memory as the protocol sees it: numbered words, a fence, sleep and wake.
///
/// The constants are the protocol's safety nets. The models override one at a time and must then fail, which shows that they
/// would notice if the code lost it.
pub trait Space: Clone {
    /// The word type.
    type Word: Word;
    /// Words in a slot.
    const SLOT_WORDS: usize = 8;
    /// How a cursor is published.
    const PUBLISH: Ordering = Ordering::Release;
    /// Whether the producer waits for the tap before it reuses a slot.
    const TAP_GATES: bool = true;
    /// Whether the producer waits for the readers before it reuses arena bytes.
    const ARENA_GATES: bool = true;
    /// Whether the producer raises the count of its bell before it wakes the tap.
    const RAISES_BELL: bool = true;

    /// `len` words from number `start`.
    ///
    /// # Panics
    /// If they are not all inside the space: layouts are checked when a segment is attached.
    fn words(&self, start: usize, len: usize) -> &[Self::Word];

    /// One word.
    #[inline(always)]
    fn word(&self, index: usize) -> &Self::Word {
        &self.words(index, 1)[0]
    }

    /// A SeqCst fence.
    fn fence();

    /// Wakes all who sleep on the low half of a word.
    fn wake(&self, index: usize);

    /// Sleeps until one of the watched words has another value or is woken, or the time is up. May return early.
    fn sleep(watches: &[Watch<'_, Self>], extra: Option<(&AtomicU32, u32)>, limit: Option<Duration>);

    /// Hints that the line of this word will be written soon.
    #[inline(always)]
    fn prefetch(&self, _index: usize) {}
}

/// Where the parts of one ring lie: numbers of words in its space.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Producer's cursor, owned by the producer.
    pub produced: usize,
    /// Peer's cursor, owned by the peer.
    pub peer: usize,
    /// Tap's cursor, owned by the tap, if the ring has one.
    pub tap: Option<usize>,
    /// Wake word of a peer that waits for the producer.
    pub peer_wake: usize,
    /// Wake word of a tap that waits for the producer.
    pub tap_wake: usize,
    /// Wake word of a producer that waits for the peer.
    pub space_peer_wake: usize,
    /// Wake word of a producer that waits for the tap.
    pub space_tap_wake: usize,
    /// How often the producer has woken the tap. Owned by the producer.
    pub tap_bell: usize,
    /// First word of the slots.
    pub slots: usize,
    /// Number of slots, a power of two.
    pub capacity: u64,
    /// First word of the arena.
    pub arena: usize,
    /// Size of the arena in bytes, a multiple of 8.
    pub arena_bytes: u64,
}

/// One of the two readers of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process at the other end.
    Peer,
    /// The log daemon.
    Tap,
}

/// What a producer has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Whose cursor.
    pub side: Side,
    /// The value that it must reach.
    pub until: u64,
}

/// Outcome of [`Producer::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Published with this number.
    Done(u64),
    /// No room.
    Blocked(Blocked),
}

/// Wakes the owner of a wake word when the cursor reached what it waits for.
#[derive(Clone, Debug)]
struct Waker {
    /// The last value for which a wake was made: a sleeper for the same value is awake by now or will see the cursor.
    woken: u64,
}

impl Waker {
    const fn new() -> Self {
        Self { woken: AWAKE }
    }

    /// Whether the owner of the wake word is to be woken: once for each value that it waits for.
    #[inline(always)]
    fn due<S: Space>(&mut self, space: &S, wake_word: usize, cursor: u64) -> bool {
        let wanted = space.word(wake_word).load(Ordering::Relaxed);
        let due = cursor >= wanted && wanted != self.woken;
        if due {
            self.woken = wanted;
        }
        due
    }
}

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer<S> {
    space: S,
    at: Ring,
    /// Number of the next slot.
    next: u64,
    /// Last seen cursors.
    peer: u64,
    tap: u64,
    /// Slots below this number are free to write.
    limit: u64,
    /// Arena bytes ever handed out, gaps at the wrap included. The byte `n` lies at `n % arena_bytes`.
    head: u64,
    /// Slots with arena bytes that may still be read: their number, and `head` before they were allocated.
    held: VecDeque<(u64, u64)>,
    wake_peer: Waker,
    wake_tap: Waker,
    /// Slots were posted since the last fence: a reader may have gone to sleep without seeing them.
    unsettled: bool,
}

impl<S: Space> Producer<S> {
    /// The writing end; goes on from the cursors in the space.
    ///
    /// # Errors
    /// If the cursors found there make no sense.
    pub fn new(space: S, at: Ring) -> Result<Self, Problem> {
        let next = space.word(at.produced).load(Ordering::Acquire);
        let oldest = next.saturating_sub(at.capacity);
        let mut producer = Self {
            space,
            next,
            peer: oldest,
            tap: oldest,
            limit: 0,
            head: 0,
            held: VecDeque::new(),
            wake_peer: Waker::new(),
            wake_tap: Waker::new(),
            unsettled: false,
            at,
        };
        producer.reload()?;
        if producer.freed() < next {
            // Slots of an earlier owner are still being read, and where their bytes lie is not known here: the arena counts as
            // full until the last of them is free.
            producer.head = producer.at.arena_bytes;
            producer.held.push_back((next - 1, 0));
        }
        Ok(producer)
    }

    /// The writing end after the death of its owner, at any instruction: what was published stays, what was half written is forgotten. `extent` says where in
    /// the arena a slot's bytes are, and how many there are.
    ///
    /// # Errors
    /// If the cursors found there make no sense.
    pub fn succeed(space: S, at: Ring, extent: impl Fn(&[u64]) -> (u64, u64)) -> Result<Self, Problem> {
        let cursor = space.word(at.produced).load(Ordering::Acquire);
        let slot = at.slots + ((cursor & (at.capacity - 1)) as usize) * S::SLOT_WORDS;
        // A slot counts from its own number on; the cursor follows.
        if space.word(slot).load(Ordering::Acquire) == cursor {
            space.word(at.produced).store(cursor + 1, S::PUBLISH);
        }
        let mut producer = Self::new(space, at)?;
        producer.find_held(extent);
        // Who was to be woken for the last slot may not have been.
        producer.space.wake(producer.at.produced);
        producer.ring_tap();
        Ok(producer)
    }

    /// Looks where the bytes lie that an earlier owner wrote and a reader may still read. In a replay that can be long, as cpu-proc takes an effect no earlier
    /// than it did when it was recorded: to have no room until then would hold the device up, and in the end the guest.
    fn find_held(&mut self, extent: impl Fn(&[u64]) -> (u64, u64)) {
        let size = self.at.arena_bytes;
        (self.head, self.held) = (0, VecDeque::new());
        for seq in self.freed()..self.next {
            let words = self.space.words(self.slot_word(seq), S::SLOT_WORDS);
            let (off, len) = extent(&words.iter().map(|w| w.load(Ordering::Relaxed)).collect::<Vec<_>>());
            // What no producer writes takes its reader ill; here it must only do no harm.
            let len = len.next_multiple_of(8).min(size);
            if len == 0 {
                continue;
            }
            let start = self.head + (off % size + size - self.head % size) % size;
            let tail = if self.held.is_empty() { start } else { self.head };
            self.held.push_back((seq, tail));
            self.head = start + len;
        }
    }

    /// Number of slots published so far, which is the number of the next one.
    #[inline]
    pub fn produced(&self) -> u64 {
        self.next
    }

    /// The arena's size in bytes.
    #[inline]
    pub fn arena_bytes(&self) -> u64 {
        self.at.arena_bytes
    }

    /// The space it writes to.
    pub fn space(&self) -> &S {
        &self.space
    }

    /// The ring's layout.
    pub fn ring(&self) -> &Ring {
        &self.at
    }

    /// Every slot below is free in the eyes of both readers, as far as was last seen.
    #[inline]
    fn freed(&self) -> u64 {
        if self.at.tap.is_some() && S::TAP_GATES { self.peer.min(self.tap) } else { self.peer }
    }

    fn load_cursor(&self, word: usize, was: u64, cursor: &'static str) -> Result<u64, Problem> {
        let is = self.space.word(word).load(Ordering::Acquire);
        if is < was {
            return Err(Problem::Backwards { cursor, was, is });
        }
        if is > self.next {
            return Err(Problem::Beyond { cursor, is, limit: self.next });
        }
        Ok(is)
    }

    /// Loads the readers' cursors.
    fn reload(&mut self) -> Result<(), Problem> {
        self.peer = self.load_cursor(self.at.peer, self.peer, "peer")?;
        if let Some(tap) = self.at.tap {
            self.tap = self.load_cursor(tap, self.tap, "tap")?;
        }
        self.limit = self.freed() + self.at.capacity;
        let freed = self.freed();
        while self.held.front().is_some_and(|&(seq, _)| seq < freed) {
            self.held.pop_front();
        }
        Ok(())
    }

    /// The peer's cursor: every slot below it was taken, and released, by the peer.
    ///
    /// # Errors
    /// If the cursor makes no sense.
    #[inline]
    pub fn peer_passed(&mut self) -> Result<u64, Problem> {
        self.peer = self.load_cursor(self.at.peer, self.peer, "peer")?;
        Ok(self.peer)
    }

    /// The peer's cursor as last seen.
    pub fn peer_seen(&self) -> u64 {
        self.peer
    }

    fn blocked(&self, until: u64) -> Blocked {
        // The tap is named only when the peer is past: a producer waits for one cursor at a time.
        Blocked { side: if self.peer < until { Side::Peer } else { Side::Tap }, until }
    }

    /// Where in the arena `need` bytes fit, counted like `head`, with the slots below `freed` out of the way.
    fn fit(&self, need: u64) -> Option<u64> {
        let size = self.at.arena_bytes;
        let at = self.head % size;
        let start = if at + need > size { self.head + (size - at) } else { self.head };
        let free = match self.held.front() {
            Some(&(_, tail)) if S::ARENA_GATES => start + need - tail <= size,
            _ => true,
        };
        free.then_some(start)
    }

    /// The cursor value from which `need` bytes fit.
    fn fits_from(&self, need: u64) -> u64 {
        let size = self.at.arena_bytes;
        let at = self.head % size;
        let end = self.head + need + if at + need > size { size - at } else { 0 };
        let later = self.held.iter().zip(self.held.iter().skip(1));
        for (&(seq, _), &(_, tail)) in later {
            if end - tail <= size {
                return seq + 1;
            }
        }
        self.held.back().map_or(self.next, |&(seq, _)| seq + 1)
    }

    /// Checks for room for a slot and `len` arena bytes, and returns where these go.
    #[inline]
    fn room(&mut self, len: u64) -> Result<Result<u64, Blocked>, Problem> {
        if self.next >= self.limit {
            self.reload()?;
            if self.next >= self.limit {
                return Ok(Err(self.blocked(self.next - self.at.capacity + 1)));
            }
        }
        if len == 0 {
            return Ok(Ok(0));
        }
        self.arena_room(len)
    }

    #[cold]
    fn arena_room(&mut self, len: u64) -> Result<Result<u64, Blocked>, Problem> {
        let need = len.next_multiple_of(8);
        if need > self.at.arena_bytes {
            return Err(Problem::TooLong { len, max: self.at.arena_bytes });
        }
        if let Some(start) = self.fit(need) {
            return Ok(Ok(start));
        }
        self.reload()?;
        Ok(match self.fit(need) {
            Some(start) => Ok(start),
            None => Err(self.blocked(self.fits_from(need))),
        })
    }

    fn fill_arena(&mut self, start: u64, bytes: &[u8]) -> u64 {
        let off = start % self.at.arena_bytes;
        let words = self.space.words(self.at.arena + (off / 8) as usize, bytes.len().div_ceil(8));
        for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.held.push_back((self.next, self.head));
        self.head = start + (bytes.len() as u64).next_multiple_of(8);
        off
    }

    /// Publishes one slot if there is room. Word 0 of `slot` becomes its number. `bytes` go to the arena, and `place` is
    /// called with their offset to note it in the slot; it is not called without bytes.
    ///
    /// # Errors
    /// If a reader's cursor makes no sense, or the bytes never fit.
    #[inline]
    pub fn push(
        &mut self,
        slot: &mut [u64],
        bytes: &[u8],
        place: impl FnOnce(&mut [u64], u64),
    ) -> Result<Push, Problem> {
        let push = self.publish(slot, bytes, place)?;
        self.settle();
        Ok(push)
    }

    /// As [`Self::push`] without the fence, which waits for the slot's cache lines to come over from the readers' cores. A reader that is awake sees
    /// the slot, and one that has gone to sleep is woken; one that is about to sleep may miss it, so a [`Self::settle`] must follow before long, and
    /// before anything is waited for.
    ///
    /// # Errors
    /// As [`Self::push`].
    #[inline]
    pub fn post(
        &mut self,
        slot: &mut [u64],
        bytes: &[u8],
        place: impl FnOnce(&mut [u64], u64),
    ) -> Result<Push, Problem> {
        let push = self.publish(slot, bytes, place)?;
        self.notify();
        Ok(push)
    }

    #[inline]
    fn publish(
        &mut self,
        slot: &mut [u64],
        bytes: &[u8],
        place: impl FnOnce(&mut [u64], u64),
    ) -> Result<Push, Problem> {
        let start = match self.room(bytes.len() as u64)? {
            Ok(start) => start,
            Err(blocked) => return Ok(Push::Blocked(blocked)),
        };
        slot[0] = self.next;
        if !bytes.is_empty() {
            let off = self.fill_arena(start, bytes);
            place(slot, off);
        }
        let first = self.slot_word(self.next);
        let words = self.space.words(first, S::SLOT_WORDS);
        for (word, &value) in words.iter().zip(slot.iter()).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        let seq = self.next;
        words[0].store(seq, S::PUBLISH);
        self.next += 1;
        self.space.word(self.at.produced).store(self.next, S::PUBLISH);
        self.unsettled = true;
        self.space.prefetch(self.slot_word(self.next + 2));
        Ok(Push::Done(seq))
    }

    #[inline]
    fn notify(&mut self) {
        if self.wake_peer.due(&self.space, self.at.peer_wake, self.next) {
            self.space.wake(self.at.produced);
        }
        if self.at.tap.is_some() && self.wake_tap.due(&self.space, self.at.tap_wake, self.next) {
            self.ring_tap();
        }
    }

    /// Wakes a tap that sleeps. With the count raised, one that is about to sleep does not.
    #[cold]
    fn ring_tap(&self) {
        let bell = self.space.word(self.at.tap_bell);
        if S::RAISES_BELL {
            bell.store(bell.load(Ordering::Relaxed).wrapping_add(1), S::PUBLISH);
        }
        self.space.wake(self.at.tap_bell);
    }

    /// Makes sure that no reader sleeps although it wants what was posted.
    #[inline]
    pub fn settle(&mut self) {
        if self.unsettled {
            self.unsettled = false;
            S::fence();
            self.notify();
        }
    }

    #[inline(always)]
    fn slot_word(&self, seq: u64) -> usize {
        self.at.slots + ((seq & (self.at.capacity - 1)) as usize) * S::SLOT_WORDS
    }

    /// The cursor word and the own wake word to wait with for a reader.
    #[inline]
    pub fn wait_words(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Peer => (self.at.peer, self.at.space_peer_wake),
            Side::Tap => (self.at.tap.unwrap_or(self.at.peer), self.at.space_tap_wake),
        }
    }

    /// What a wait for room looks at.
    pub fn target(&self, blocked: Blocked, closed: Option<usize>) -> Target<'_, S> {
        let (cursor, wake) = self.wait_words(blocked.side);
        let value = blocked.until;
        Target { space: &self.space, cursor, wake, value, slot: None, pressure: None, bell: None, closed }
    }

    /// Wakes a reader that sleeps for a fuller ring, because this producer waits for it. To be called with the own wake word
    /// set and a fence made.
    pub fn kick(&self, side: Side) {
        let theirs = if side == Side::Tap { self.at.tap_wake } else { self.at.peer_wake };
        if self.space.word(theirs).load(Ordering::Relaxed) == AWAKE {
            return;
        }
        match side {
            Side::Peer => self.space.wake(self.at.space_peer_wake),
            Side::Tap => self.ring_tap(),
        }
    }
}

/// A reading end of a ring.
#[derive(Debug)]
pub struct Reader<S> {
    space: S,
    at: Ring,
    side: Side,
    /// Number of the next slot to copy.
    next: u64,
    /// Own cursor as published.
    released: u64,
    /// Producer's cursor as last seen.
    seen: u64,
    waker: Waker,
}

impl<S: Space> Reader<S> {
    /// A reading end; goes on from its cursor in the space.
    ///
    /// # Errors
    /// If the cursors found there make no sense.
    pub fn new(space: S, at: Ring, side: Side) -> Result<Self, Problem> {
        let word = match (side, at.tap) {
            (Side::Peer, _) => at.peer,
            (Side::Tap, Some(tap)) => tap,
            (Side::Tap, None) => return Err(Problem::Misuse("this ring was made without a tap")),
        };
        let released = space.word(word).load(Ordering::Acquire);
        let mut reader = Self { space, at, side, next: released, released, seen: released, waker: Waker::new() };
        reader.reload()?;
        Ok(reader)
    }

    /// The reading end after the death of its owner: what was not released is read again.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn succeed(space: S, at: Ring, side: Side) -> Result<Self, Problem> {
        let reader = Self::new(space, at, side)?;
        // Who was to be woken for the last release may not have been.
        let cursor = match (side, reader.at.tap) {
            (Side::Tap, Some(tap)) => tap,
            _ => reader.at.peer,
        };
        reader.space.wake(cursor);
        Ok(reader)
    }

    /// Number of slots copied so far.
    #[inline]
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// Number of slots released so far: the published cursor.
    #[inline]
    pub fn released(&self) -> u64 {
        self.released
    }

    /// The ring's layout.
    pub fn ring(&self) -> &Ring {
        &self.at
    }

    /// The space it reads from.
    pub fn space(&self) -> &S {
        &self.space
    }

    #[inline]
    fn reload(&mut self) -> Result<(), Problem> {
        let is = self.space.word(self.at.produced).load(Ordering::Acquire);
        if is == self.seen {
            return Ok(());
        }
        if is < self.seen {
            return Err(Problem::Backwards { cursor: "producer", was: self.seen, is });
        }
        // It may lag behind slots that were taken by their number alone, so that it is below `released`.
        if is > self.released + self.at.capacity {
            return Err(Problem::Beyond { cursor: "producer", is, limit: self.released + self.at.capacity });
        }
        self.seen = is;
        Ok(())
    }

    #[inline(always)]
    fn slot_word(&self) -> usize {
        self.at.slots + ((self.next & (self.at.capacity - 1)) as usize) * S::SLOT_WORDS
    }

    /// Whether the next slot is filled, going by the slot alone.
    #[inline(always)]
    pub fn poll(&self) -> bool {
        self.space.word(self.slot_word()).load(Ordering::Acquire) == self.next
    }

    /// Whether the next slot is filled, going by the producer's cursor.
    ///
    /// # Errors
    /// If the producer's cursor makes no sense.
    pub fn available(&mut self) -> Result<bool, Problem> {
        self.reload()?;
        Ok(self.seen > self.next)
    }

    /// Copies the next slot, if there is one. It stays occupied until released.
    ///
    /// # Errors
    /// If the producer's cursor or the slot's number makes no sense.
    #[inline]
    pub fn read(&mut self, slot: &mut [u64]) -> Result<bool, Problem> {
        let words = self.space.words(self.slot_word(), S::SLOT_WORDS);
        let mut number = words[0].load(Ordering::Acquire);
        if number != self.next {
            if !self.available()? {
                return Ok(false);
            }
            // The cursor says that it is filled, and what came before the cursor is visible by now.
            number = self.space.word(self.slot_word()).load(Ordering::Acquire);
            if number != self.next {
                return Err(Problem::Sequence { expected: self.next, found: number });
            }
        }
        let words = self.space.words(self.slot_word(), S::SLOT_WORDS);
        slot[0] = number;
        for (value, word) in slot.iter_mut().zip(words).skip(1) {
            *value = word.load(Ordering::Relaxed);
        }
        self.next += 1;
        Ok(true)
    }

    /// Copies arena bytes that slot `seq` names.
    ///
    /// # Errors
    /// If they do not lie in the arena, or not at a multiple of 8.
    pub fn read_arena(&self, seq: u64, off: u64, len: u64, to: &mut Vec<u8>) -> Result<(), Problem> {
        let arena = self.at.arena_bytes;
        to.clear();
        if off % 8 != 0 || off > arena || len > arena - off {
            return Err(Problem::ArenaRange { seq, off, len, arena });
        }
        let words = self.space.words(self.at.arena + (off / 8) as usize, len.div_ceil(8) as usize);
        to.reserve(words.len() * 8);
        for word in words {
            to.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        to.truncate(len as usize);
        Ok(())
    }

    /// Frees every slot below `upto`, which must have been copied.
    ///
    /// # Errors
    /// [`Problem::Misuse`] if it was not, or is below what was freed before.
    #[inline]
    pub fn release(&mut self, upto: u64) -> Result<(), Problem> {
        if upto < self.released || upto > self.next {
            return Err(Problem::Misuse("released slots that were not read, or twice"));
        }
        if upto == self.released {
            return Ok(());
        }
        self.released = upto;
        let (own, wake) = self.own_words();
        self.space.word(own).store(upto, S::PUBLISH);
        S::fence();
        if self.waker.due(&self.space, wake, upto) {
            self.space.wake(own);
        }
        Ok(())
    }

    #[inline]
    fn own_words(&self) -> (usize, usize) {
        match self.side {
            Side::Peer => (self.at.peer, self.at.space_peer_wake),
            Side::Tap => (self.at.tap.unwrap_or(self.at.peer), self.at.space_tap_wake),
        }
    }

    /// The producer's cursor word and the own wake word to wait with for slots.
    #[inline]
    pub fn wait_words(&self) -> (usize, usize) {
        (self.at.produced, if self.side == Side::Tap { self.at.tap_wake } else { self.at.peer_wake })
    }

    /// What a wait for `more` slots beyond those copied looks at. It also ends when the producer is blocked by this reader.
    pub fn target(&self, more: u64, closed: Option<usize>) -> Target<'_, S> {
        let (cursor, wake) = self.wait_words();
        let value = (self.next + more).min(self.released + self.at.capacity);
        let slot = (more == 1).then(|| (self.slot_word(), self.next));
        // Who waits for the very next slot and holds none has nothing to release.
        let pressure = (more > 1 || self.released < self.next).then(|| (self.own_words().1, self.released));
        let bell = (self.side == Side::Tap).then_some(self.at.tap_bell);
        Target { space: &self.space, cursor, wake, value, slot, pressure, bell, closed }
    }

    /// Whether the producer waits for this reader to release slots, and it could.
    pub fn pressed(&self) -> bool {
        let (_, wake) = self.own_words();
        self.space.word(wake).load(Ordering::Relaxed) != AWAKE
            && self.space.word(self.at.produced).load(Ordering::Acquire) > self.released
    }
}

/// A cursor, the value that somebody waits for it to reach, and the wake word in which he says so.
#[derive(Debug)]
pub struct Target<'a, S> {
    /// The space.
    pub space: &'a S,
    /// The cursor's word.
    pub cursor: usize,
    /// The waiter's wake word.
    pub wake: usize,
    /// The value to reach.
    pub value: u64,
    /// A reader that waits for a single slot: its first word, and the value that this gets.
    pub slot: Option<(usize, u64)>,
    /// A word of the producer that is not [`AWAKE`] while it waits for this reader, and the reader's published cursor: the
    /// wait also ends when the producer is blocked and the reader could free something.
    pub pressure: Option<(usize, u64)>,
    /// A word that counts the wakes of this waiter: it sleeps on that instead of on the others.
    pub bell: Option<usize>,
    /// A word of the space that is 0 as long as waiting makes sense.
    pub closed: Option<usize>,
}

impl<S> Clone for Target<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Target<'_, S> {}

impl<S: Space> Target<'_, S> {
    /// Whether the wait is over, as seen by one who is awake. Cheaper than [`Self::ready`] for both sides.
    #[inline(always)]
    pub fn poll(&self) -> bool {
        match self.slot {
            Some((word, number)) => self.space.word(word).load(Ordering::Acquire) == number,
            None => self.ready().is_ok(),
        }
    }

    /// Whether the wait is over; otherwise the values of the cursor and of the pressure word that were seen.
    #[inline]
    pub fn ready(&self) -> Result<(), (u64, u64)> {
        let pressure = self.pressure.map_or(AWAKE, |(word, _)| self.space.word(word).load(Ordering::Relaxed));
        let is = self.space.word(self.cursor).load(Ordering::Acquire);
        let pressed = pressure != AWAKE && self.pressure.is_some_and(|(_, released)| is > released);
        if is >= self.value || pressed { Ok(()) } else { Err((is, pressure)) }
    }

    /// How many words a sleep for it watches.
    pub fn watches(&self) -> usize {
        match self.bell {
            Some(_) => 1,
            None => 1 + usize::from(self.closed.is_some()) + usize::from(self.pressure.is_some()),
        }
    }

    /// Adds the words that a sleep for it watches; false if the wait is over.
    fn watch<'a>(&'a self, watches: &mut Vec<Watch<'a, S>>) -> bool {
        // Before the cursor: whoever moves that afterwards raises the count, and the sleep does not begin.
        let bell = self.bell.map(|word| (self.space, word, self.space.word(word).load(Ordering::Acquire) as u32));
        let Err((cursor, pressure)) = self.ready() else { return false };
        if let Some(bell) = bell {
            watches.push(bell);
            return true;
        }
        watches.push((self.space, self.cursor, cursor as u32));
        watches.extend(self.closed.map(|word| (self.space, word, 0)));
        watches.extend(self.pressure.map(|(word, _)| (self.space, word, pressure as u32)));
        true
    }
}

/// The most words that one wait can watch, beside one that is the process's own.
pub const MAX_WATCHES: usize = 127;

/// Sleeps until one of the targets is ready.
///
/// `armed` runs once after the wake words are set. `check` runs before each sleep: it returns how long that may last, or an error that ends the wait.
///
/// # Errors
/// What `check` returned.
pub fn sleep_until<S: Space, E>(
    targets: &[Target<'_, S>],
    extra: Option<(&AtomicU32, u32)>,
    armed: impl FnOnce(),
    mut check: impl FnMut() -> Result<Option<Duration>, E>,
) -> Result<(), E> {
    for target in targets {
        target.space.word(target.wake).store(target.value, Ordering::Relaxed);
    }
    S::fence();
    armed();
    let mut watches: Vec<Watch<'_, S>> = Vec::with_capacity(targets.iter().map(Target::watches).sum());
    let result = 'wait: loop {
        watches.clear();
        for target in targets {
            if !target.watch(&mut watches) {
                break 'wait Ok(());
            }
        }
        match check() {
            Ok(limit) => S::sleep(&watches, extra, limit),
            Err(error) => break Err(error),
        }
    };
    for target in targets {
        target.space.word(target.wake).store(AWAKE, Ordering::Relaxed);
    }
    result
}
