//! What was taken from the rings and is in no chunk yet, in memory that outlives the process.
//!
//! A cursor is committed only when what lies before it is in the recording or here, so a daemon that is killed at any moment loses nothing: the next one
//! finds here what the last one had taken, and in the rings what it had not.
//!
//! The memory is a memfd of the supervisor. Its first page holds a magic number, a generation, and how many items there ever were; the rest is two halves, of which the generation's lowest
//! bit names the one in use. A half is its number of bytes and then items, each in it completely before the number grows. When a chunk was written, what
//! it left over is laid into the other half, behind a *base* that says how far things had come, and the generation grows.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use reprise_child::control::STAGING_PROGRESS;
use reprise_recording::{Entry, Message, Position, Swap};

use crate::collect::{Base, ChannelBase};

const MAGIC: u64 = u64::from_le_bytes(*b"RpStage1");
const PAGE: usize = 4096;
/// Bytes before the items of a half.
const HEAD: usize = 8;

/// One thing that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A journal entry.
    Journal(Entry),
    /// A request.
    Request(u16, Message),
    /// An effect: the number of its event, the checksum of its content, and the message as it is recorded.
    Effect(u16, u64, u64, Message),
    /// Bytes for the backend: the number of their event, and the port.
    Output(u16, u64, u64, Vec<u8>),
    /// Another event of this number.
    Side(u16, u64),
    /// A plugin was swapped.
    Swap(Swap),
}

mod tag {
    pub(super) const BASE: u64 = 1;
    pub(super) const JOURNAL: u64 = 2;
    pub(super) const REQUEST: u64 = 3;
    pub(super) const EFFECT: u64 = 4;
    pub(super) const OUTPUT: u64 = 5;
    pub(super) const SIDE: u64 = 6;
    pub(super) const SWAP: u64 = 7;
}

/// Builds one item: words, then bytes padded to a multiple of 8. The first word is the whole length, the tag and the channel.
struct Build<'a>(&'a mut Vec<u8>);

impl<'a> Build<'a> {
    fn new(out: &'a mut Vec<u8>, tag: u64, channel: u16) -> Self {
        out.clear();
        let mut build = Self(out);
        build.words(&[tag << 32 | u64::from(channel) << 48]);
        build
    }

    fn words(&mut self, words: &[u64]) {
        words.iter().for_each(|w| self.0.extend_from_slice(&w.to_le_bytes()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.words(&[bytes.len() as u64]);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn message(&mut self, m: &Message) {
        let small = u64::from(m.kind) | u64::from(m.size) << 8 | u64::from(m.flags) << 16 | u64::from(m.arg) << 32;
        self.words(&[m.number, m.cause, m.vtime, small, m.offset, m.value, u64::from_le_bytes(m.inline)]);
        self.bytes(&m.data);
    }

    /// Notes the length.
    fn end(self) {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_le_bytes());
    }
}

impl Item {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Journal(e) => {
                let Position { epoch, count, idle } = e.at;
                let mut b = Build::new(out, tag::JOURNAL, e.channel);
                b.words(&[e.seq, epoch, count, u64::from(idle) | u64::from(e.kind) << 32, e.a, e.b, e.c, e.d]);
                b.end();
            }
            Self::Request(channel, m) => {
                let mut b = Build::new(out, tag::REQUEST, *channel);
                b.message(m);
                b.end();
            }
            Self::Effect(channel, seq, checksum, m) => {
                let mut b = Build::new(out, tag::EFFECT, *channel);
                b.words(&[*seq, *checksum]);
                b.message(m);
                b.end();
            }
            Self::Output(channel, seq, port, data) => {
                let mut b = Build::new(out, tag::OUTPUT, *channel);
                b.words(&[*seq, *port]);
                b.bytes(data);
                b.end();
            }
            Self::Side(channel, seq) => {
                let mut b = Build::new(out, tag::SIDE, *channel);
                b.words(&[*seq]);
                b.end();
            }
            Self::Swap(s) => {
                let mut b = Build::new(out, tag::SWAP, s.channel);
                b.words(&[s.request]);
                b.bytes(&s.hash);
                b.bytes(s.name.as_bytes());
                b.bytes(s.version.as_bytes());
                b.words(&[u64::from(s.config.is_some())]);
                b.bytes(s.config.as_deref().unwrap_or_default().as_bytes());
                b.end();
            }
        }
    }
}

impl Base {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut b = Build::new(out, tag::BASE, 0);
        b.words(&[self.chunks, self.records, self.journal, self.channels.len() as u64]);
        for c in &self.channels {
            b.words(&[c.requests, c.events, c.effects, c.requests_done, c.effects_done, c.hash]);
        }
        b.end();
    }
}

/// Takes an item apart.
struct Parse<'a>(&'a [u8]);

impl Parse<'_> {
    fn word(&mut self) -> Result<u64> {
        let (word, rest) = self.0.split_first_chunk().context("an item that ends early")?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }

    fn words<const N: usize>(&mut self) -> Result<[u64; N]> {
        let mut words = [0; N];
        for w in &mut words {
            *w = self.word()?;
        }
        Ok(words)
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.word()?)?;
        let padded = len.checked_next_multiple_of(8).context("an impossible length")?;
        let (bytes, rest) = self.0.split_at_checked(padded).context("an item that ends early")?;
        self.0 = rest;
        Ok(bytes[..len].to_vec())
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).context("a name")
    }

    fn message(&mut self) -> Result<Message> {
        let [number, cause, vtime, small, offset, value, inline] = self.words()?;
        Ok(Message {
            number,
            cause,
            vtime,
            kind: small as u8,
            size: (small >> 8) as u8,
            flags: (small >> 16) as u16,
            arg: (small >> 32) as u32,
            offset,
            value,
            inline: inline.to_le_bytes(),
            data: self.bytes()?,
        })
    }

    fn base(&mut self) -> Result<Base> {
        let [chunks, records, journal, n] = self.words()?;
        ensure!(n <= 1 << 16, "more channels than a machine can have");
        let mut channels = Vec::new();
        for _ in 0..n {
            let [requests, events, effects, requests_done, effects_done, hash] = self.words()?;
            channels.push(ChannelBase { requests, events, effects, requests_done, effects_done, hash });
        }
        Ok(Base { chunks, records, journal, channels })
    }

    fn item(&mut self, tag: u64, channel: u16) -> Result<Item> {
        Ok(match tag {
            tag::JOURNAL => {
                let [seq, epoch, count, small, a, b, c, d] = self.words()?;
                let at = Position { epoch, count, idle: small as u32 };
                Item::Journal(Entry { seq, at, kind: (small >> 32) as u8, channel, a, b, c, d })
            }
            tag::REQUEST => Item::Request(channel, self.message()?),
            tag::EFFECT => {
                let [seq, checksum] = self.words()?;
                Item::Effect(channel, seq, checksum, self.message()?)
            }
            tag::OUTPUT => {
                let [seq, port] = self.words()?;
                Item::Output(channel, seq, port, self.bytes()?)
            }
            tag::SIDE => Item::Side(channel, self.word()?),
            tag::SWAP => {
                let request = self.word()?;
                let hash = self.bytes()?.try_into().ok().context("a hash of another length")?;
                let (name, version) = (self.text()?, self.text()?);
                let given = self.word()? == 1;
                let config = Some(self.text()?).filter(|_| given);
                Item::Swap(Swap { channel, request, hash, name, version, config })
            }
            _ => bail!("an item of an unknown kind"),
        })
    }
}

/// All items of a half. The first is the base, if there is anything.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<Option<(Base, Vec<Item>)>> {
    let (mut base, mut items) = (None, Vec::new());
    while !bytes.is_empty() {
        let first = Parse(bytes).word()?;
        let (len, tag, channel) = (first as u32 as usize, first >> 32 & 0xffff, (first >> 48) as u16);
        ensure!(len >= 8 && len % 8 == 0, "an item of an impossible length");
        let (item, rest) = bytes.split_at_checked(len).context("an item that ends early")?;
        bytes = rest;
        let mut p = Parse(&item[8..]);
        match (tag, &base) {
            (tag::BASE, None) => base = Some(p.base()?),
            (_, Some(_)) => items.push(p.item(tag, channel)?),
            _ => bail!("items without a base"),
        }
        ensure!(p.0.is_empty(), "an item with something behind its end");
    }
    Ok(base.map(|b| (b, items)))
}

/// The memory, mapped.
#[derive(Debug)]
pub(crate) struct Staging {
    start: NonNull<u8>,
    len: usize,
    generation: u64,
    /// Bytes of items in the half in use.
    used: usize,
    /// The item that was copied last and does not count yet.
    copied: usize,
    scratch: Vec<u8>,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Staging {}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: start and len are those of a mapping that this value owns.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// What a dead daemon has left: what its last chunk reaches, and what came since.
type Left = (Base, Vec<Item>);

impl Staging {
    /// Maps the memory, and gives what an earlier daemon left in it. Not possible in the sandbox any more.
    pub(crate) fn map(fd: &OwnedFd) -> Result<(Self, Option<Left>)> {
        let len = usize::try_from(nix::sys::stat::fstat(fd).context("fstat")?.st_size)?;
        ensure!(len >= 3 * PAGE && len % PAGE == 0, "the staging memory has an impossible size");
        // SAFETY: a new shared mapping of a file that is sealed against getting shorter.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        let start = NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED);
        let start = start.ok_or_else(std::io::Error::last_os_error).context("mapping the staging memory")?;
        let mut staging = Self { start, len, generation: 0, used: 0, copied: 0, scratch: Vec::new() };
        match staging.word(0).load(Ordering::Acquire) {
            0 => staging.word(0).store(MAGIC, Ordering::Release),
            MAGIC => {}
            _ => bail!("the staging memory is of another build"),
        }
        staging.generation = staging.word(1).load(Ordering::Acquire);
        staging.used = staging.word(staging.half(0) / 8).load(Ordering::Acquire) as usize;
        ensure!(staging.used <= staging.capacity(), "the staging memory says that it holds more than it can");
        let left = parse(staging.items()).context("the staging memory")?;
        Ok((staging, left))
    }

    /// An aligned word of the mapping.
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len / 8, "a word outside the staging memory");
        // SAFETY: inside the mapping and aligned, as its start is; nothing else refers to it.
        unsafe { &*self.start.as_ptr().cast::<AtomicU64>().add(index) }
    }

    /// Where the half in use begins, or the one that is `next` generations away.
    fn half(&self, next: u64) -> usize {
        let size = (self.len / PAGE - 1) / 2 * PAGE;
        PAGE + (self.generation + next) as usize % 2 * size
    }

    /// How many bytes of items a half takes.
    pub(crate) fn capacity(&self) -> usize {
        (self.len / PAGE - 1) / 2 * PAGE - HEAD
    }

    fn items(&self) -> &[u8] {
        // SAFETY: inside the mapping, as `used` was checked; nobody writes there while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.half(0) + HEAD), self.used) }
    }

    /// Copies the scratch buffer behind what is in a half; false if there is no room.
    fn copy(&self, half: usize, used: usize) -> bool {
        if self.scratch.len() > self.capacity() - used {
            return false;
        }
        // SAFETY: it fits into the half, which lies in the mapping; the source is memory of this process.
        unsafe {
            let to = self.start.as_ptr().add(half + HEAD + used);
            std::ptr::copy_nonoverlapping(self.scratch.as_ptr(), to, self.scratch.len());
        }
        true
    }

    /// Copies an item behind the others, where it does not count yet. False if there is no room.
    pub(crate) fn put(&mut self, item: &Item) -> bool {
        item.encode(&mut self.scratch);
        let fits = self.copy(self.half(0), self.used);
        self.copied = if fits { self.scratch.len() } else { 0 };
        fits
    }

    /// Lets the item count that was copied last.
    pub(crate) fn publish(&mut self) {
        self.used += std::mem::take(&mut self.copied);
        self.word(self.half(0) / 8).store(self.used as u64, Ordering::Release);
        let progress = self.word(STAGING_PROGRESS as usize / 8);
        progress.store(progress.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Lays `base` and `left` into the other half, where they don't count yet. False if there is no room.
    pub(crate) fn prepare<'a>(&mut self, base: &Base, left: impl Iterator<Item = &'a Item>) -> bool {
        let half = self.half(1);
        base.encode(&mut self.scratch);
        if !self.copy(half, 0) {
            return false;
        }
        let mut used = self.scratch.len();
        for item in left {
            item.encode(&mut self.scratch);
            if !self.copy(half, used) {
                return false;
            }
            used += self.scratch.len();
        }
        self.word(half / 8).store(used as u64, Ordering::Release);
        true
    }

    /// Makes the other half the one in use.
    pub(crate) fn switch(&mut self) {
        self.generation += 1;
        self.used = self.word(self.half(0) / 8).load(Ordering::Acquire) as usize;
        self.word(1).store(self.generation, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    pub(crate) fn memory(bytes: usize) -> OwnedFd {
        let fd = memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, bytes as i64).unwrap();
        fd
    }

    fn items() -> Vec<Item> {
        let m = Message { number: 5, cause: 4, kind: 0x87, flags: 2, data: vec![1; 13], ..Message::default() };
        let swap = Swap {
            channel: 2,
            request: 9,
            hash: [3; 32],
            name: "a.so".into(),
            version: "2".into(),
            config: Some("()".into()),
        };
        let at = Position { epoch: 1, count: 2, idle: 3 };
        vec![
            Item::Journal(Entry { seq: 7, at, kind: 5, channel: 3, a: 1, b: 2, c: 3, d: u64::MAX }),
            Item::Request(1, m.clone()),
            Item::Effect(65535, 8, 99, m),
            Item::Output(0, 11, 0, b"hello".to_vec()),
            Item::Side(3, 12),
            Item::Swap(swap),
        ]
    }

    #[test]
    fn what_is_published_outlives_the_process() {
        let fd = memory(9 * PAGE);
        let (mut s, left) = Staging::map(&fd).unwrap();
        assert_eq!(left, None);
        let base =
            Base { chunks: 3, records: 4, journal: 7, channels: vec![ChannelBase { hash: 9, ..Default::default() }] };
        assert!(s.prepare(&base, [].iter()));
        s.switch();
        for item in &items() {
            assert!(s.put(item));
            // Copied again after a death in between: it counts once.
            assert!(s.put(item));
            s.publish();
        }
        assert!(s.put(&items()[0]), "and one that never counts");
        drop(s);
        let (mut s, left) = Staging::map(&fd).unwrap();
        assert_eq!(left, Some((base.clone(), items())));
        // Prepared, and dead before the switch: the old half stands.
        assert!(s.prepare(&Base { chunks: 4, ..base.clone() }, items()[2..].iter()));
        drop(s);
        let (mut s, left) = Staging::map(&fd).unwrap();
        assert_eq!(left, Some((base.clone(), items())));
        assert!(s.prepare(&Base { chunks: 4, ..base.clone() }, items()[2..].iter()));
        s.switch();
        drop(s);
        assert_eq!(Staging::map(&fd).unwrap().1, Some((Base { chunks: 4, ..base }, items()[2..].to_vec())));
    }

    #[test]
    fn a_full_one_says_so() {
        let (mut s, _) = Staging::map(&memory(3 * PAGE)).unwrap();
        let item = Item::Output(0, 0, 0, vec![0; 1000]);
        assert!(s.prepare(&Base::default(), [].iter()));
        s.switch();
        let mut n = 0;
        while s.put(&item) {
            s.publish();
            n += 1;
        }
        assert_eq!(n, 3);
        assert!(s.put(&Item::Side(0, 1)), "a smaller one still fits");
        assert!(!s.prepare(&Base::default(), vec![item; 4].iter()));
    }

    #[test]
    fn damaged_memory_is_an_error() {
        let mut bytes = Vec::new();
        let mut one = Vec::new();
        Base { channels: vec![ChannelBase::default(); 2], ..Base::default() }.encode(&mut one);
        bytes.extend_from_slice(&one);
        for item in items() {
            item.encode(&mut one);
            bytes.extend_from_slice(&one);
        }
        assert_eq!(parse(&bytes).unwrap().unwrap().1, items());
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[i] ^= 1 << bit;
                // An error, or other items; never a panic.
                drop(parse(&bad));
            }
            drop(parse(&bytes[..i]));
        }
        assert!(parse(&bytes[one.len()..]).is_err());
    }
}
