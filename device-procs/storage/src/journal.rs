//! What was written since the last checkpoint, in memory that outlives the process.
//!
//! The journal holds 4 KiB blocks in *slots*. What is written goes to slots of the *open* part, a block to one slot however often it is written.
//! [`Journal::seal`] closes that part under the number of a saved state and begins a new one; [`Journal::release`] folds sealed parts into the
//! image. A new process keeps what was sealed for the state that it starts from and forgets the rest, so of the open part nothing but the data is
//! in the shared memory: the table that says what lies where is written by `seal`.
//!
//! Of two superblocks the valid one with the higher version counts. Writing one is what makes a part sealed, or folded: a process that dies before has
//! done nothing, and one that dies after has done all of it. Folding again what was folded changes nothing.
//!
//! Layout of the memfd, little-endian:
//!
//! | offset | what |
//! |---|---|
//! | 0, 2048 | the superblocks |
//! | 4096 | the table: 32 bytes for each slot, rounded up to 4 KiB |
//! | then | the slots, 4 KiB each |
//! | then | a bit for each block of the disk that is no longer as in the image, folded parts only |

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::base::{BLOCK, Base};
use crate::bits;
use crate::crash;
use crate::error::{Action, StorageError};
use crate::file::DiskFile;
use crate::memory::Shared;

/// Bytes of a table entry.
const ENTRY: usize = 32;
/// Where the second superblock lies, and how long one is at most.
const SUPER: usize = 2048;
const TABLE_AT: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"reprisej");
/// The most sealed parts that wait for their release.
const MAX_SEALED: usize = 8;
/// The fewest and the most slots of a journal.
pub const SLOTS: std::ops::RangeInclusive<u32> = 16..=1 << 20;
/// A journal of 64 MiB.
pub const DEFAULT_SLOTS: u32 = 16 << 10;

fn table_end(slots: u32) -> u64 {
    (TABLE_AT as u64 + u64::from(slots) * ENTRY as u64).next_multiple_of(BLOCK)
}

/// Bytes before the bits of changed blocks.
pub(crate) fn bits_at(slots: u32) -> u64 {
    table_end(slots) + u64::from(slots) * BLOCK
}

/// Bytes of a journal's memfd, for a disk of `disk` bytes and with so many slots of 4 KiB.
pub fn journal_size(disk: u64, slots: u32) -> u64 {
    bits_at(slots) + (bits::words(disk.div_ceil(BLOCK)) as u64 * 8).next_multiple_of(BLOCK)
}

/// The journal's memory, before anything in it is looked at.
#[derive(Debug)]
pub(crate) struct Memory {
    main: Shared,
    /// The bits; taken by whoever keeps them.
    pub(crate) changed: Option<Shared>,
    slots: u32,
}

impl Memory {
    /// Maps it; not possible in the sandbox.
    pub(crate) fn map(file: &DiskFile, slots: u32) -> Result<Self, StorageError> {
        let size = file.size().map_err(file.failed(Action::Size, 0))?;
        let main = bits_at(slots);
        if !SLOTS.contains(&slots) || size <= main || size % BLOCK != 0 {
            let what = format!("{slots} slots in {size} bytes are impossible");
            return Err(StorageError::Journal { name: file.name().to_owned(), what });
        }
        Ok(Self { main: Shared::map(file, 0, main)?, changed: Some(Shared::map(file, main, size - main)?), slots })
    }
}

/// Spreads block numbers.
#[derive(Debug, Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers");
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(n ^ 0x243f_6a88_85a3_08d3).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

type Index = HashMap<u64, u32, BuildHasherDefault<BlockHasher>>;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// The part that it belongs to; 0: none.
    epoch: u64,
    /// The block that it holds, or the first one that was discarded.
    block: u64,
    /// So many blocks were discarded; 0: it holds data.
    discarded: u32,
}

/// A sealed part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sealed {
    epoch: u64,
    generation: u64,
    /// How many slots it has, and a checksum over their entries.
    entries: u32,
    crc: u32,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Journal {
    name: String,
    memory: Shared,
    /// Where the slots' data begins.
    data_at: usize,
    /// Bytes of the disk.
    size: u64,
    slots: Vec<Slot>,
    free: usize,
    /// Where to look for a free slot.
    cursor: usize,
    /// Slots of the open part.
    open: usize,
    open_epoch: u64,
    sealed: VecDeque<Sealed>,
    /// The slot that holds a block's newest data.
    index: Index,
    /// Blocks without newest data that read as zeros, whatever is below.
    zero: Vec<u64>,
    any_zero: bool,
    /// The slot of the last discard, if it is of the open part.
    last_discard: Option<usize>,
    version: u64,
    /// The last generation that was sealed, and the last that was released.
    generation: u64,
    released: u64,
    /// The guest wants what is open to be durable.
    flush: bool,
    /// What was sealed up to this generation is to be durable.
    sync_at: Option<u64>,
    /// Slots to be folded, by block.
    folding: Vec<(u64, usize)>,
}

impl Journal {
    /// A new journal, in memory that is all zero.
    pub(crate) fn create(name: &str, memory: Memory, size: u64) -> Result<Self, StorageError> {
        let mut journal = Self::empty(name, memory, size);
        if journal.memory.bytes()[..TABLE_AT].iter().any(|&b| b != 0) {
            return Err(journal.damaged("it is not empty at the machine's start"));
        }
        journal.write_super()?;
        Ok(journal)
    }

    /// The journal of a process that has died, as it was when generation `generation` was sealed. What belongs to it is to be folded.
    pub(crate) fn recover(name: &str, memory: Memory, size: u64, generation: u64) -> Result<Self, StorageError> {
        let mut journal = Self::empty(name, memory, size);
        journal.generation = generation;
        let supers = [0, SUPER].map(|at| journal.read_super(at));
        let newest = supers.into_iter().flatten().max_by_key(|s| s.version);
        let Some(newest) = newest else {
            // The process died before it had written the first one, which is the second superblock.
            if journal.memory.bytes()[..SUPER].iter().any(|&b| b != 0) {
                return Err(journal.damaged("no superblock is whole"));
            }
            journal.write_super()?;
            return Ok(journal);
        };
        if newest.size != size || newest.slots as usize != journal.slots.len() {
            return Err(journal.damaged("it is another disk's"));
        }
        if newest.released > generation {
            return Err(journal.damaged("it is further than the saved state"));
        }
        journal.version = newest.version;
        journal.released = newest.released;
        // The table may hold entries of the open part, of a seal that was not completed.
        journal.open_epoch = newest.open_epoch + 1;
        for sealed in newest.sealed.into_iter().filter(|s| s.generation <= generation) {
            journal.adopt(sealed)?;
        }
        journal.write_super()?;
        Ok(journal)
    }

    fn empty(name: &str, memory: Memory, size: u64) -> Self {
        let slots = memory.slots as usize;
        Self {
            name: name.to_owned(),
            memory: memory.main,
            data_at: table_end(memory.slots) as usize,
            size,
            slots: vec![Slot::default(); slots],
            free: slots,
            cursor: 0,
            open: 0,
            open_epoch: 1,
            sealed: VecDeque::with_capacity(MAX_SEALED),
            // Twice as much as is needed, so that it never grows.
            index: Index::with_capacity_and_hasher(2 * slots, BuildHasherDefault::default()),
            zero: vec![0; bits::words(size.div_ceil(BLOCK))],
            any_zero: false,
            last_discard: None,
            version: 0,
            generation: 0,
            released: 0,
            flush: false,
            sync_at: None,
            folding: Vec::with_capacity(slots),
        }
    }

    fn damaged(&self, what: &str) -> StorageError {
        StorageError::Journal { name: self.name.clone(), what: what.to_owned() }
    }

    fn data(&self, slot: usize) -> Range<usize> {
        let at = self.data_at + slot * BLOCK as usize;
        at..at + BLOCK as usize
    }

    /// Stores bytes in the shared memory. It fails only where a test lets the process die.
    #[inline]
    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let whole = crash::store(bytes.len());
        self.memory.bytes_mut()[at..at + whole].copy_from_slice(&bytes[..whole]);
        crash::check(whole < bytes.len()).map_err(|e| self.damaged(&e.to_string()))
    }

    /// How many blocks can be written that are not in the open part yet.
    pub(crate) fn room(&self) -> u64 {
        self.free as u64
    }

    /// A checkpoint should be taken soon.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.flush || self.open * 4 >= self.slots.len()
    }

    /// The blocks that a range of bytes touches.
    fn blocks(&self, offset: u64, len: u64) -> Range<u64> {
        offset / BLOCK..(offset + len).div_ceil(BLOCK)
    }

    /// Fails unless there is room for so many slots.
    fn reserve(&self, slots: u64) -> Result<(), StorageError> {
        if slots > self.free as u64 {
            return Err(StorageError::JournalFull { name: self.name.clone() });
        }
        Ok(())
    }

    /// Where the newest contents of a block lie in the journal.
    #[inline]
    fn find(&self, block: u64) -> Option<usize> {
        self.index.get(&block).map(|&slot| slot as usize)
    }

    /// Reads; the range lies on the disk.
    pub(crate) fn read(&self, base: &mut Base, mut buf: &mut [u8], mut offset: u64) -> Result<(), StorageError> {
        if self.index.is_empty() && !self.any_zero {
            return base.read(buf, offset);
        }
        while !buf.is_empty() {
            let block = offset / BLOCK;
            let within = (offset % BLOCK) as usize;
            let slot = self.find(block);
            let below = slot.is_none() && !self.is_zero(block);
            let len = match below {
                true => self.run_below(block, offset + buf.len() as u64) - within,
                false => BLOCK as usize - within,
            };
            let (piece, rest) = buf.split_at_mut(len.min(buf.len()));
            match slot {
                Some(slot) => {
                    let from = self.data(slot).start + within;
                    piece.copy_from_slice(&self.memory.bytes()[from..from + piece.len()]);
                }
                None if below => base.read(piece, offset)?,
                None => piece.fill(0),
            }
            offset += piece.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    #[inline]
    fn is_zero(&self, block: u64) -> bool {
        self.any_zero && bits::has(&self.zero, block)
    }

    /// Bytes of the blocks from `first` on, up to a byte, that the journal does not hold; the first is one of them.
    fn run_below(&self, first: u64, end: u64) -> usize {
        let end = end.div_ceil(BLOCK);
        let held = |b: &u64| self.index.contains_key(b) || self.is_zero(*b);
        let last = (first + 1..end).find(held).unwrap_or(end);
        ((last - first) * BLOCK) as usize
    }

    /// Writes; the range lies on the disk and is not empty.
    pub(crate) fn write(&mut self, base: &mut Base, mut offset: u64, mut data: &[u8]) -> Result<(), StorageError> {
        let blocks = self.blocks(offset, data.len() as u64);
        if blocks.end - blocks.start > self.free as u64 {
            let new = blocks.clone().filter(|b| self.find(*b).is_none_or(|s| self.slots[s].epoch != self.open_epoch));
            self.reserve(new.count() as u64)?;
        }
        for block in blocks.clone() {
            let within = (offset % BLOCK) as usize;
            let room = (self.size - block * BLOCK).min(BLOCK) as usize;
            let (piece, rest) = data.split_at(data.len().min(room - within));
            let slot = self.slot_for(base, block, piece.len() == room)?;
            self.put(self.data(slot).start + within, piece)?;
            offset += piece.len() as u64;
            data = rest;
        }
        if self.any_zero {
            bits::clear(&mut self.zero, blocks.start, blocks.end - blocks.start);
        }
        Ok(())
    }

    /// The slot of the open part for a block. Unless all of it is about to be written, it holds what the block holds.
    #[inline]
    fn slot_for(&mut self, base: &mut Base, block: u64, whole: bool) -> Result<usize, StorageError> {
        let old = self.find(block);
        if let Some(slot) = old.filter(|&s| self.slots[s].epoch == self.open_epoch) {
            return Ok(slot);
        }
        let slot = self.find_free();
        if !whole {
            self.fill(base, block, old, slot)?;
        }
        self.take(slot, Slot { epoch: self.open_epoch, block, discarded: 0 });
        self.index.insert(block, slot as u32);
        Ok(slot)
    }

    /// Fills a slot with what a block holds.
    fn fill(&mut self, base: &mut Base, block: u64, old: Option<usize>, slot: usize) -> Result<(), StorageError> {
        let to = self.data(slot);
        match old {
            Some(old) => {
                let from = self.data(old);
                self.memory.bytes_mut().copy_within(from, to.start);
            }
            None if self.is_zero(block) => self.memory.bytes_mut()[to].fill(0),
            None => {
                let at = block * BLOCK;
                let (there, beyond) = self.memory.bytes_mut()[to].split_at_mut((self.size - at).min(BLOCK) as usize);
                base.read(there, at)?;
                beyond.fill(0);
            }
        }
        Ok(())
    }

    /// A free slot; there is one. They are taken in turn, so that what is written in sequence lies in sequence.
    #[inline]
    fn find_free(&mut self) -> usize {
        assert!(self.free > 0, "the caller has made sure of it");
        while self.slots[self.cursor].epoch != 0 {
            self.cursor = (self.cursor + 1) % self.slots.len();
        }
        self.cursor
    }

    fn take(&mut self, slot: usize, use_: Slot) {
        self.slots[slot] = use_;
        self.free -= 1;
        self.open += 1;
    }

    /// Makes a range read as zeros; it lies on the disk and is not empty.
    pub(crate) fn discard(&mut self, base: &mut Base, offset: u64, len: u64) -> Result<(), StorageError> {
        let end = offset + len;
        let first = offset.div_ceil(BLOCK);
        let last = if end == self.size { end.div_ceil(BLOCK) } else { end / BLOCK };
        // Two blocks that are discarded in part, and a slot that says what was discarded.
        self.reserve(3)?;
        let zeros = [0; BLOCK as usize];
        if first >= last {
            let middle = (offset / BLOCK + 1) * BLOCK;
            for (from, to) in [(offset, end.min(middle)), (middle, end)].into_iter().filter(|(from, to)| from < to) {
                self.write(base, from, &zeros[..(to - from) as usize])?;
            }
            return Ok(());
        }
        if offset % BLOCK != 0 {
            self.write(base, offset, &zeros[..(first * BLOCK - offset) as usize])?;
        }
        if last * BLOCK < end {
            self.write(base, last * BLOCK, &zeros[..(end - last * BLOCK) as usize])?;
        }
        self.forget(first..last);
        self.note_discard(first, last);
        bits::set(&mut self.zero, first, last - first);
        self.any_zero = true;
        Ok(())
    }

    /// Data of these blocks is not wanted any more. What was sealed stays, as it belongs to a state that may be asked for.
    fn forget(&mut self, blocks: Range<u64>) {
        let Self { index, slots, free, open, open_epoch, .. } = self;
        let mut free_slot = |slot: u32| {
            if slots[slot as usize].epoch == *open_epoch {
                slots[slot as usize] = Slot::default();
                *free += 1;
                *open -= 1;
            }
        };
        if blocks.end - blocks.start <= index.len() as u64 {
            blocks.filter_map(|b| index.remove(&b)).for_each(free_slot);
        } else {
            index.retain(|block, slot| {
                let stays = !blocks.contains(block);
                if !stays {
                    free_slot(*slot);
                }
                stays
            });
        }
    }

    fn note_discard(&mut self, first: u64, last: u64) {
        if let Some(slot) = self.last_discard {
            let before = &mut self.slots[slot];
            let end = before.block + u64::from(before.discarded);
            if (before.block..=end).contains(&first) {
                before.discarded = (last.max(end) - before.block) as u32;
                return;
            }
        }
        let slot = self.find_free();
        self.take(slot, Slot { epoch: self.open_epoch, block: first, discarded: (last - first) as u32 });
        self.last_discard = Some(slot);
    }

    /// The guest wants durable data. True if a checkpoint or a release must come first.
    pub(crate) fn flush(&mut self) -> bool {
        self.flush |= self.open > 0;
        if let Some(last) = self.sealed.back().filter(|_| self.open == 0) {
            self.sync_at = Some(last.generation);
        }
        self.open > 0 || !self.sealed.is_empty()
    }

    /// Closes the open part: it is what was written up to the saved state of this number.
    pub(crate) fn seal(&mut self, generation: u64) -> Result<(), StorageError> {
        if generation <= self.generation {
            return Err(self.damaged("the numbers of checkpoints do not rise"));
        }
        if self.open == 0 {
            self.generation = generation;
            return Ok(());
        }
        if self.sealed.len() == MAX_SEALED {
            return Err(StorageError::JournalFull { name: self.name.clone() });
        }
        let mut sealed = Sealed { epoch: self.open_epoch, generation, ..Sealed::default() };
        let mut crc = crc32fast::Hasher::new();
        for slot in 0..self.slots.len() {
            if self.slots[slot].epoch == self.open_epoch {
                let entry = self.encode(slot);
                crc.update(&entry);
                sealed.entries += 1;
                self.put(TABLE_AT + slot * ENTRY, &entry)?;
            }
        }
        sealed.crc = crc.finalize();
        self.sealed.push_back(sealed);
        self.open_epoch += 1;
        self.write_super()?;
        self.open = 0;
        self.last_discard = None;
        self.generation = generation;
        if std::mem::take(&mut self.flush) {
            self.sync_at = Some(generation);
        }
        Ok(())
    }

    /// A slot's entry of the table.
    fn encode(&self, slot: usize) -> [u8; ENTRY] {
        let Slot { epoch, block, discarded } = self.slots[slot];
        let data = if discarded == 0 { crc32fast::hash(&self.memory.bytes()[self.data(slot)]) } else { 0 };
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&epoch.to_le_bytes());
        entry[8..16].copy_from_slice(&block.to_le_bytes());
        entry[16..20].copy_from_slice(&discarded.to_le_bytes());
        entry[20..24].copy_from_slice(&data.to_le_bytes());
        let crc = crc32fast::hash(&entry[..24]);
        entry[24..28].copy_from_slice(&crc.to_le_bytes());
        entry
    }

    /// Takes a sealed part over from the process that has died.
    fn adopt(&mut self, sealed: Sealed) -> Result<(), StorageError> {
        let blocks = self.size.div_ceil(BLOCK);
        let (mut crc, mut entries) = (crc32fast::Hasher::new(), 0);
        for slot in 0..self.slots.len() {
            let at = TABLE_AT + slot * ENTRY;
            let entry: [u8; ENTRY] = self.memory.bytes()[at..at + ENTRY].try_into().expect("as long as that");
            let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            // An entry that is not whole is one of a seal that was not completed; too few of this one show below.
            if word(0) != sealed.epoch || crc32fast::hash(&entry[..24]).to_le_bytes() != entry[24..28] {
                continue;
            }
            crc.update(&entry);
            entries += 1;
            self.slots[slot] = Slot { epoch: word(0), block: word(8), discarded: word(16) as u32 };
            self.free -= 1;
            let Slot { block, discarded, .. } = self.slots[slot];
            if block.checked_add(u64::from(discarded.max(1))).is_none_or(|end| end > blocks) {
                return Err(self.damaged("it names blocks that the disk does not have"));
            }
            if self.encode(slot) != entry {
                return Err(self.damaged("a block's checksum is wrong"));
            }
        }
        if entries != sealed.entries || crc.finalize() != sealed.crc {
            return Err(self.damaged("its table is not what was sealed"));
        }
        self.sealed.push_back(sealed);
        Ok(())
    }

    /// Folds what was sealed up to a generation into the image, and frees its space. If it fails, it may be tried again.
    pub(crate) fn release(&mut self, base: &mut Base, generation: u64) -> Result<(), StorageError> {
        while let Some(sealed) = self.sealed.front().copied().filter(|s| s.generation <= generation) {
            self.fold(base, sealed.epoch)?;
            base.settle()?;
            if self.sync_at.is_some_and(|at| at <= sealed.generation) {
                base.sync()?;
                self.sync_at = None;
            }
            self.sealed.pop_front();
            self.released = sealed.generation;
            self.write_super()?;
            self.free_epoch(sealed.epoch);
        }
        Ok(())
    }

    /// Writes a part to its place. Within one a block has data if it was written after it was discarded.
    fn fold(&mut self, base: &mut Base, epoch: u64) -> Result<(), StorageError> {
        self.folding.clear();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.epoch == epoch) {
            if slot.discarded == 0 {
                self.folding.push((slot.block, number));
                continue;
            }
            let at = slot.block * BLOCK;
            base.zero(at, (u64::from(slot.discarded) * BLOCK).min(self.size - at))?;
        }
        self.folding.sort_unstable();
        let next = |a: &(u64, usize), b: &(u64, usize)| (a.0 + 1, a.1 + 1) == *b;
        for run in self.folding.chunk_by(next) {
            let (block, slot) = run[0];
            let at = block * BLOCK;
            let len = (run.len() as u64 * BLOCK).min(self.size - at) as usize;
            let from = self.data(slot).start;
            base.write(&self.memory.bytes()[from..from + len], at)?;
        }
        Ok(())
    }

    fn free_epoch(&mut self, epoch: u64) {
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, s)| s.epoch == epoch) {
            if slot.discarded == 0 && self.index.get(&slot.block) == Some(&(number as u32)) {
                self.index.remove(&slot.block);
            }
            *slot = Slot::default();
            self.free += 1;
        }
        // An empty journal begins again with memory that was used already.
        if self.free == self.slots.len() {
            self.cursor = 0;
        }
    }

    /// Nothing of the journal is left to be folded.
    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0 && self.sealed.is_empty()
    }

    /// There is something that was not sealed.
    pub(crate) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// The last generation that was sealed.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// A superblock, decoded.
#[derive(Debug, Default)]
struct Super {
    version: u64,
    slots: u64,
    size: u64,
    open_epoch: u64,
    released: u64,
    sealed: Vec<Sealed>,
}

impl Journal {
    /// Writes the next superblock, in the place of the one before the last.
    fn write_super(&mut self) -> Result<(), StorageError> {
        let mut bytes = Vec::with_capacity(SUPER);
        let mut word = |n: u64| bytes.extend_from_slice(&n.to_le_bytes());
        let version = self.version + 1;
        let slots = self.slots.len() as u64;
        [MAGIC, version, slots, self.size, self.open_epoch, self.released].into_iter().for_each(&mut word);
        word(self.sealed.len() as u64);
        for s in &self.sealed {
            [s.epoch, s.generation, u64::from(s.crc) << 32 | u64::from(s.entries)].into_iter().for_each(&mut word);
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        // A process that is killed has made its stores in the order in which the compiler put them.
        compiler_fence(Ordering::SeqCst);
        self.put((version % 2) as usize * SUPER, &bytes)?;
        compiler_fence(Ordering::SeqCst);
        self.version = version;
        Ok(())
    }

    /// A superblock, if it is whole.
    fn read_super(&self, at: usize) -> Option<Super> {
        let bytes = &self.memory.bytes()[at..at + SUPER];
        let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
        let sealed = word(6);
        if word(0) != MAGIC || sealed > MAX_SEALED as u64 {
            return None;
        }
        let end = (7 + 3 * sealed as usize) * 8;
        if crc32fast::hash(&bytes[..end]).to_le_bytes() != bytes[end..end + 4] {
            return None;
        }
        let part = |i: usize| {
            let last = word(9 + 3 * i);
            Sealed {
                epoch: word(7 + 3 * i),
                generation: word(8 + 3 * i),
                entries: last as u32,
                crc: (last >> 32) as u32,
            }
        };
        let sealed = (0..sealed as usize).map(part).collect();
        Some(Super { version: word(1), slots: word(2), size: word(3), open_epoch: word(4), released: word(5), sealed })
    }
}
