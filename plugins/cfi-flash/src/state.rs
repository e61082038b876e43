//! The saved state: what each chip was told, and what is in the flash beyond its disk.

use std::collections::{BTreeMap, BTreeSet};

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::spec::{BUFFER_WORDS, status};
use crate::{Config, PAGE, VOLATILE_PAGES};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// What a read of a chip shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub enum View {
    #[default]
    Array,
    Status,
    Id,
    Query,
}

/// What a chip waits for. Addresses are bytes of the chip.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Waits {
    /// A command.
    #[default]
    Command,
    /// The word to be programmed.
    Word,
    /// The confirmation that this block is to be erased.
    Erase,
    /// What is to be done with a block's lock.
    Lock,
    /// How many words the buffer gets, for this block.
    Count(u64),
    /// So many more words for the buffer.
    Data(u64, u8),
    /// The confirmation that the buffer is to be programmed.
    Buffer,
}

/// One chip.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chip {
    pub(crate) view: View,
    pub(crate) waits: Waits,
    pub(crate) status: u8,
    /// The write buffer: byte addresses and words.
    pub(crate) buffer: Vec<(u64, u16)>,
    /// Locked blocks.
    pub(crate) locked: BTreeSet<u32>,
    /// Of these, those that stay locked until the next reset.
    pub(crate) down: BTreeSet<u32>,
}

/// Version 1.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) chips: Vec<Chip>,
    /// What was programmed beyond the end of the disk, by page; other bytes there are erased.
    pub(crate) pages: BTreeMap<u32, Vec<u8>>,
}

impl Chip {
    fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        let size = cfg.chip_size();
        let good = self.status & !(status::READY | status::CLEARABLE) == 0 && self.status & status::READY != 0;
        RestoreError::check(good, "the status register")?;
        RestoreError::check(self.buffer.len() <= BUFFER_WORDS, "the write buffer")?;
        let inside = |at: &u64| *at < size && at % 2 == 0;
        RestoreError::check(self.buffer.iter().all(|(at, _)| inside(at)), "an address in the write buffer")?;
        let possible = match &self.waits {
            Waits::Count(at) => inside(at),
            Waits::Data(at, left) => inside(at) && usize::from(*left) + self.buffer.len() <= BUFFER_WORDS && *left > 0,
            _ => true,
        };
        RestoreError::check(possible, "a command's state")?;
        let blocks = (size / crate::spec::BLOCK) as u32;
        RestoreError::check(self.locked.iter().all(|b| *b < blocks), "a locked block")?;
        RestoreError::check(self.down.is_subset(&self.locked), "a block that is locked down and not locked")
    }
}

impl StateV1 {
    pub(crate) fn new(cfg: &Config) -> Self {
        let chip = Chip { status: status::READY, ..Chip::default() };
        Self { chips: vec![chip; cfg.chips as usize], pages: BTreeMap::new() }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        RestoreError::check(self.chips.len() == cfg.chips as usize, "another number of chips")?;
        self.chips.iter().try_for_each(|c| c.check(cfg))?;
        let pages = cfg.size / PAGE;
        RestoreError::check(self.pages.len() <= VOLATILE_PAGES, "more than a flash without a disk keeps")?;
        let whole = |(n, page): (&u32, &Vec<u8>)| u64::from(*n) < pages && page.len() as u64 == PAGE;
        RestoreError::check(self.pages.iter().all(whole), "a page of another size")
    }
}
