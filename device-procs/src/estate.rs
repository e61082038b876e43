//! What a device's process leaves to its successor: memory that outlives it.
//!
//! The memory is a memfd that the supervisor holds and gives to each process of the device in turn. It has the device's last saved state, every request
//! since, and exact books of what went out, so that a successor of a process that was killed at any instruction repeats nothing and leaves nothing out.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4096 | the books: words, each named below |
//! | then 2 times | a saved state, and the requests since; generation *g* has the pair *g* mod 2 |
//!
//! Whatever must change together changes with the store of one word: a new generation with `GENERATION`, a request with the length of its log, an event
//! with the ring's own slot. Before an event is put into the ring, the books say what will be true behind it (the *intent*), so a successor looks whether the ring
//! has the event and knows which of the two holds. An event offers input on one port at most, so an intent has that port and its new count, not those of all ports.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail, ensure};
use reprise_channel::Slot;
use reprise_child::control::ESTATE_BYTES;
use reprise_device::spec::limits;

/// "RpEstate", little-endian.
const MAGIC: u64 = u64::from_le_bytes(*b"RpEstate");
const BOOKS: usize = 4096;
/// Most bytes of a saved state with what belongs to it.
const STATE: usize = 80 << 20;
/// Bytes for the requests since.
const LOG: usize = (ESTATE_BYTES as usize - BOOKS) / 2 - STATE;
/// A checkpoint is due when so many bytes of requests are logged: what is left has room for the longest request.
const LOG_DUE: usize = LOG - (4 << 20);
/// A checkpoint is due after so many requests: what a successor has to repeat.
const REQUESTS_DUE: u64 = 1 << 16;
/// Most bytes of input on their way from the backend to the ring.
pub(crate) const MAX_INPUT: usize = 2048;

// Words of the books.
const HEAD: usize = 0;
const GENERATION: usize = 1;
/// Two: the length of the saved state of generations of either parity.
const STATE_LEN: usize = 2;
/// Two: the length of their logs.
const LOG_LEN: usize = 4;
/// Two: the requests in them.
const LOG_COUNT: usize = 6;
/// The first request that finds no device, plus one; 0: the device is there.
const GONE_AT: usize = 26;
/// The event for which there is an intent, or all ones.
const INTENT: usize = 8;
/// [`Counts`] as they are, and as they will be behind that event.
const NOW: usize = 9;
const THEN: usize = 16;
/// The port on which that event offers input, plus one; 0: none.
const THEN_PORT: usize = 21;
/// Input offered on that port behind it.
const THEN_OFFERED: usize = 22;
/// Number of the last request in the log, plus one.
const LOGGED_REQUESTS: usize = 25;
/// One for each port: input offered.
const OFFERED: usize = 32;
/// One for each port: bytes of output that the outside has taken.
const WRITTEN: usize = OFFERED + PORTS;
/// The most ports that a device has.
const PORTS: usize = limits::PORTS;
/// The input that is kept is one word of [`Counts`]: its length, and from this bit on its port.
const KEPT_PORT: u32 = 32;
/// Input begins at this byte of the books.
const INPUT_AT: usize = 2048;

const NONE: u64 = u64::MAX;

/// Counts that change with an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Effects emitted.
    pub(crate) effects: u64,
    /// Bytes of output that the recording has.
    pub(crate) logged: u64,
    /// Input that was read from a port's host end and not offered yet, as [`Estate::keep_input`] says it; 0: none.
    pub(crate) input: u64,
    /// Number of the last request that was answered, plus one.
    pub(crate) answered: u64,
    /// It was said that the device is gone: 1, else 0.
    pub(crate) gone: u64,
}

/// Input that an event offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Where.
    pub(crate) port: u32,
    /// All that was offered there, with it: bytes, or packets.
    pub(crate) total: u64,
}

/// The memory.
pub(crate) struct Estate {
    start: *mut u8,
    counts: Counts,
}

impl Estate {
    /// Maps the memory; not possible in the sandbox any more.
    pub(crate) fn map(fd: &OwnedFd) -> anyhow::Result<Self> {
        let size = nix::sys::stat::fstat(fd).context("the estate")?.st_size;
        ensure!(size as u64 == ESTATE_BYTES, "the estate has {size} bytes instead of {ESTATE_BYTES}");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice; the supervisor has sealed the file's size. It is never unmapped.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), ESTATE_BYTES as usize, protection, flags, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping the estate");
        }
        Ok(Self { start: start.cast(), counts: Counts::default() })
    }

    fn word(&self, n: usize) -> &AtomicU64 {
        assert!(n < INPUT_AT / 8, "the books have {} words", INPUT_AT / 8);
        // SAFETY: it lies in the mapping, which is aligned to a page and lives for ever; words are only used as atomics.
        unsafe { &*self.start.cast::<AtomicU64>().add(n) }
    }

    fn get(&self, n: usize) -> u64 {
        self.word(n).load(Ordering::Acquire)
    }

    /// Everything stored before is there for a successor that sees this.
    fn set(&self, n: usize, value: u64) {
        self.word(n).store(value, Ordering::Release);
    }

    /// `len` bytes of the parts that are used as bytes.
    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at >= INPUT_AT && at.checked_add(len).is_some_and(|end| end <= ESTATE_BYTES as usize), "inside");
        // SAFETY: it lies in the mapping; nobody else writes there while this process serves.
        unsafe { std::slice::from_raw_parts(self.start.add(at), len) }
    }

    fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at >= INPUT_AT && at.checked_add(len).is_some_and(|end| end <= ESTATE_BYTES as usize), "inside");
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }

    /// Where the state of a generation lies, and its log.
    fn places(generation: u64) -> (usize, usize) {
        let state = BOOKS + (generation % 2) as usize * (STATE + LOG);
        (state, state + STATE)
    }

    /// Opens the books as the first process of the device.
    pub(crate) fn begin(&mut self) {
        for word in 0..INPUT_AT / 8 {
            self.set(word, 0);
        }
        self.set(INTENT, NONE);
        self.set(HEAD, MAGIC);
    }

    /// Takes the books over. `events` is how many events are in the ring.
    pub(crate) fn take_over(&mut self, events: u64) -> anyhow::Result<()> {
        if self.get(HEAD) != MAGIC {
            // Its first process did not get as far as its first request.
            self.begin();
        }
        let intent = self.get(INTENT);
        if intent != NONE && events > intent {
            self.store_counts(NOW, self.load_counts(THEN));
            if let Some(port) = self.get(THEN_PORT).checked_sub(1) {
                ensure!(port < PORTS as u64, "the estate's books are damaged");
                // If this process is killed before the intent is gone, the next one does it again: it is the count, not what it grew by.
                self.set(OFFERED + port as usize, self.get(THEN_OFFERED));
            }
        }
        self.set(INTENT, NONE);
        self.counts = self.load_counts(NOW);
        let (port, len) = self.kept();
        ensure!(len <= MAX_INPUT && port < PORTS, "the estate's books are damaged");
        Ok(())
    }

    fn load_counts(&self, at: usize) -> Counts {
        let [effects, logged, input, answered, gone] = [0, 1, 2, 3, 4].map(|i| self.get(at + i));
        Counts { effects, logged, input, answered, gone }
    }

    fn store_counts(&self, at: usize, c: Counts) {
        for (i, value) in [c.effects, c.logged, c.input, c.answered, c.gone].into_iter().enumerate() {
            self.word(at + i).store(value, Ordering::Relaxed);
        }
    }

    /// What is true now.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Event `number` is about to go into the ring; behind it, `then` is true, and so much was offered.
    #[inline]
    pub(crate) fn intend(&mut self, number: u64, then: Counts, offer: Option<Offer>) {
        self.store_counts(THEN, then);
        let port = match offer {
            Some(offer) => {
                self.word(THEN_OFFERED).store(offer.total, Ordering::Relaxed);
                u64::from(offer.port) + 1
            }
            None => 0,
        };
        self.word(THEN_PORT).store(port, Ordering::Relaxed);
        self.set(INTENT, number);
    }

    /// It is in the ring.
    #[inline]
    pub(crate) fn done(&mut self, then: Counts, offer: Option<Offer>) {
        self.store_counts(NOW, then);
        if let Some(Offer { port, total }) = offer {
            self.word(OFFERED + Self::index(port)).store(total, Ordering::Relaxed);
        }
        self.set(INTENT, NONE);
        self.counts = then;
    }

    fn index(port: u32) -> usize {
        assert!((port as usize) < PORTS, "a device has at most {PORTS} ports");
        port as usize
    }

    /// Input offered on a port: bytes, or packets.
    pub(crate) fn offered(&self, port: u32) -> u64 {
        self.get(OFFERED + Self::index(port))
    }

    /// Keeps input of a port that was read until it is offered.
    pub(crate) fn keep_input(&mut self, port: u32, input: &[u8]) {
        self.bytes_mut(INPUT_AT, input.len()).copy_from_slice(input);
        self.counts.input = (Self::index(port) as u64) << KEPT_PORT | input.len() as u64;
        self.set(NOW + 2, self.counts.input);
    }

    /// Port and length of what is kept.
    fn kept(&self) -> (usize, usize) {
        let input = self.counts.input;
        ((input >> KEPT_PORT) as usize, (input & ((1 << KEPT_PORT) - 1)) as usize)
    }

    /// Input that was read and not offered, and its port.
    pub(crate) fn input(&self) -> Option<(u32, Vec<u8>)> {
        let (port, len) = self.kept();
        (len > 0).then(|| (port as u32, self.bytes(INPUT_AT, len).to_vec()))
    }

    /// Bytes of a port's output that the outside has taken.
    pub(crate) fn written(&self, port: u32) -> u64 {
        self.get(WRITTEN + Self::index(port))
    }

    pub(crate) fn set_written(&self, port: u32, bytes: u64) {
        self.set(WRITTEN + Self::index(port), bytes);
    }

    /// Whether this request was logged already, by a process that did not complete it.
    #[inline]
    pub(crate) fn has_request(&self, number: u64) -> bool {
        number < self.get(LOGGED_REQUESTS)
    }

    /// Logs a request before the device sees it.
    #[inline]
    pub(crate) fn log(&mut self, slot: &Slot, arena: &[u8]) {
        let generation = self.get(GENERATION);
        let parity = (generation % 2) as usize;
        let (used, (_, log)) = (self.get(LOG_LEN + parity) as usize, Self::places(generation));
        let padded = arena.len().next_multiple_of(8);
        assert!(used + 64 + padded <= LOG, "a checkpoint comes before the log is full");
        let to = self.bytes_mut(log + used, 64 + arena.len());
        for (to, word) in to.chunks_exact_mut(8).zip(slot.to_words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        to[64..].copy_from_slice(arena);
        self.set(LOG_COUNT + parity, self.get(LOG_COUNT + parity) + 1);
        self.set(LOG_LEN + parity, (used + 64 + padded) as u64);
        self.set(LOGGED_REQUESTS, slot.seq + 1);
    }

    /// The first request that finds no device.
    pub(crate) fn gone_at(&self) -> Option<u64> {
        self.get(GONE_AT).checked_sub(1)
    }

    pub(crate) fn set_gone_at(&self, request: u64) {
        self.set(GONE_AT, request + 1);
    }

    /// A checkpoint is due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let parity = (self.get(GENERATION) % 2) as usize;
        self.get(LOG_COUNT + parity) >= REQUESTS_DUE || self.get(LOG_LEN + parity) as usize >= LOG_DUE
    }

    /// The present generation; 0 is the device as it was made.
    pub(crate) fn generation(&self) -> u64 {
        self.get(GENERATION)
    }

    /// Begins the next generation with this state.
    pub(crate) fn save(&mut self, state: &[u8]) -> anyhow::Result<u64> {
        if state.len() > STATE {
            bail!("a state of {} bytes is too large to be kept; at most {STATE} are", state.len());
        }
        let next = self.get(GENERATION) + 1;
        let parity = (next % 2) as usize;
        let (at, _) = Self::places(next);
        self.bytes_mut(at, state.len()).copy_from_slice(state);
        self.set(STATE_LEN + parity, state.len() as u64);
        self.set(LOG_LEN + parity, 0);
        self.set(LOG_COUNT + parity, 0);
        self.set(GENERATION, next);
        Ok(next)
    }

    /// The saved state; none in generation 0.
    pub(crate) fn saved(&self) -> anyhow::Result<Option<&[u8]>> {
        let generation = self.get(GENERATION);
        let len = self.get(STATE_LEN + (generation % 2) as usize) as usize;
        ensure!(len <= STATE, "the estate's books are damaged");
        Ok((generation > 0).then(|| self.bytes(Self::places(generation).0, len)))
    }

    /// The requests since, oldest first, with their arena bytes.
    pub(crate) fn requests(&self) -> anyhow::Result<Vec<(Slot, Vec<u8>)>> {
        let generation = self.get(GENERATION);
        let len = self.get(LOG_LEN + (generation % 2) as usize) as usize;
        ensure!(len <= LOG, "the estate's books are damaged");
        let mut rest = self.bytes(Self::places(generation).1, len);
        let mut list = Vec::new();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_checked(64).context("the estate's log is damaged")?;
            let mut words = [0; 8];
            for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            }
            let slot = Slot::from_words(words);
            let arena = slot.arena_len as usize;
            let (bytes, tail) =
                tail.split_at_checked(arena.next_multiple_of(8)).context("the estate's log is damaged")?;
            list.push((slot, bytes[..arena].to_vec()));
            rest = tail;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn memory() -> OwnedFd {
        let name = CString::new("estate").unwrap();
        let fd = nix::sys::memfd::memfd_create(name.as_c_str(), nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, ESTATE_BYTES as i64).unwrap();
        fd
    }

    fn slot(seq: u64, arena: &[u8]) -> Slot {
        Slot { seq, kind: 7, arena_len: arena.len() as u32, ..Slot::default() }
    }

    #[test]
    fn a_successor_finds_state_and_requests() {
        let fd = memory();
        let mut first = Estate::map(&fd).unwrap();
        first.begin();
        first.log(&slot(0, b""), b"");
        first.log(&slot(1, b"twelve bytes"), b"twelve bytes");
        let mut second = Estate::map(&fd).unwrap();
        second.take_over(0).unwrap();
        assert_eq!(second.saved().unwrap(), None);
        let requests = second.requests().unwrap();
        assert_eq!(requests, [(slot(0, b""), vec![]), (slot(1, b"twelve bytes"), b"twelve bytes".to_vec())]);
        assert!(second.has_request(1) && !second.has_request(2));
        assert_eq!(second.save(b"state").unwrap(), 1);
        second.log(&slot(2, b""), b"");
        let mut third = Estate::map(&fd).unwrap();
        third.take_over(0).unwrap();
        assert_eq!(third.saved().unwrap(), Some(&b"state"[..]));
        assert_eq!(third.requests().unwrap(), [(slot(2, b""), vec![])]);
    }

    #[test]
    fn an_intent_holds_if_its_event_is_in_the_ring() {
        let fd = memory();
        let mut first = Estate::map(&fd).unwrap();
        first.begin();
        let then = Counts { effects: 1, logged: 7, ..Counts::default() };
        first.intend(5, then, None);
        let mut killed_before = Estate::map(&fd).unwrap();
        killed_before.take_over(5).unwrap();
        assert_eq!(killed_before.counts(), Counts::default());
        first.intend(5, then, None);
        let mut killed_behind = Estate::map(&fd).unwrap();
        killed_behind.take_over(6).unwrap();
        assert_eq!(killed_behind.counts(), then);
        // Settled for good: the next event says nothing of the last one.
        let mut again = Estate::map(&fd).unwrap();
        again.take_over(9).unwrap();
        assert_eq!(again.counts(), then);
    }

    #[test]
    fn input_is_kept_until_it_is_offered() {
        let fd = memory();
        let mut first = Estate::map(&fd).unwrap();
        first.begin();
        first.keep_input(15, b"keys");
        let mut second = Estate::map(&fd).unwrap();
        second.take_over(0).unwrap();
        assert_eq!(second.input(), Some((15, b"keys".to_vec())));
        let then = Counts { input: 0, ..second.counts() };
        let offer = Some(Offer { port: 15, total: 4 });
        second.intend(0, then, offer);
        second.done(then, offer);
        assert_eq!((second.input(), second.offered(15)), (None, 4));
        second.keep_input(0, b"more");
        let mut third = Estate::map(&fd).unwrap();
        third.take_over(1).unwrap();
        assert_eq!((third.input(), third.offered(15)), (Some((0, b"more".to_vec())), 4));
    }

    /// What the books say of each port: input offered, output written.
    fn ports(e: &Estate) -> Vec<(u64, u64)> {
        (0..PORTS as u32).map(|port| (e.offered(port), e.written(port))).collect()
    }

    #[test]
    fn each_port_has_its_own_counts() {
        let fd = memory();
        let mut first = Estate::map(&fd).unwrap();
        first.begin();
        let mut expected = vec![(0, 0); PORTS];
        for port in 0..PORTS as u32 {
            let (offered, written) = (100 + u64::from(port), 1000 + u64::from(port));
            let offer = Some(Offer { port, total: offered });
            first.intend(u64::from(port), Counts::default(), offer);
            first.done(Counts::default(), offer);
            first.set_written(port, written);
            expected[port as usize] = (offered, written);
            assert_eq!(ports(&first), expected);
        }
        let then = Counts { effects: 1, ..Counts::default() };
        first.intend(16, then, None);
        first.done(then, None);
        let mut second = Estate::map(&fd).unwrap();
        second.take_over(17).unwrap();
        assert_eq!((second.counts(), ports(&second)), (then, expected));
    }

    /// The process is killed between any two stores of an offer on one port and an effect behind it; each time the books say what the ring has.
    #[test]
    fn an_offer_counts_from_its_event_on_wherever_the_process_is_killed() {
        for (events, offered, input) in [(3, 7, Some((2, b"abc".to_vec()))), (4, 10, None)] {
            let fd = memory();
            let mut first = Estate::map(&fd).unwrap();
            first.begin();
            let counts = Counts { effects: 2, ..Counts::default() };
            let offer = Some(Offer { port: 2, total: 7 });
            first.intend(2, counts, offer);
            first.done(counts, offer);
            first.keep_input(2, b"abc");
            first.intend(3, counts, Some(Offer { port: 2, total: 10 }));
            // Each successor is killed in its turn: before it has settled the intent, or behind that.
            for _ in 0..2 {
                let mut next = Estate::map(&fd).unwrap();
                next.take_over(events).unwrap();
                assert_eq!((next.offered(2), next.input(), next.counts().effects), (offered, input.clone(), 2));
                assert!((0..PORTS as u32).all(|port| port == 2 || next.offered(port) == 0));
            }
            // An effect's intent says nothing of ports, whatever the last one said.
            let mut next = Estate::map(&fd).unwrap();
            next.take_over(events).unwrap();
            let then = Counts { effects: 3, ..next.counts() };
            next.intend(events, then, None);
            let mut last = Estate::map(&fd).unwrap();
            last.take_over(events + 1).unwrap();
            assert_eq!((last.offered(2), last.input(), last.counts().effects), (offered, input, 3));
        }
    }

    #[test]
    fn an_offer_half_noted_is_noted_again() {
        let fd = memory();
        let mut first = Estate::map(&fd).unwrap();
        first.begin();
        first.keep_input(1, b"x");
        let offer = Offer { port: 1, total: 1 };
        first.intend(0, Counts::default(), Some(offer));
        // `done` and `take_over` store the counts one by one, and the intent goes last: killed in between, they leave any of them new.
        for word in [NOW, NOW + 2, OFFERED + 1] {
            let new = if word == OFFERED + 1 { 1 } else { 0 };
            first.set(word, new);
            let mut next = Estate::map(&fd).unwrap();
            next.take_over(1).unwrap();
            assert_eq!((next.offered(1), next.input(), next.counts()), (1, None, Counts::default()));
            first.set(INTENT, 0);
        }
    }

    #[test]
    fn damaged_books_are_refused() {
        let fd = memory();
        let mut e = Estate::map(&fd).unwrap();
        e.begin();
        e.set(LOG_LEN, u64::MAX);
        assert!(e.requests().is_err());
        e.set(LOG_LEN, 40);
        assert!(e.requests().is_err());
        e.set(GENERATION, 1);
        e.set(STATE_LEN + 1, u64::MAX);
        assert!(e.saved().is_err());
        for input in [u64::MAX, MAX_INPUT as u64 + 1, (PORTS as u64) << KEPT_PORT] {
            e.set(NOW + 2, input);
            assert!(e.take_over(0).is_err());
        }
        e.set(NOW + 2, 0);
        e.set(THEN_PORT, PORTS as u64 + 1);
        e.set(INTENT, 0);
        assert!(e.take_over(1).is_err());
    }
}
