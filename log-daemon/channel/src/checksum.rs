//! The checksum of what was consumed. It is part of the recording format, so a change needs a new format version.
//!
//! State `h` starts as [`CHECKSUM_SEED`]; each 64-bit word `w` folds in as `h = (rotl(h, 23) ^ w) * 0x9E3779B97F4A7C15` (mod
//! 2^64), and the result is `h ^ (h >> 32)`. Every step is a bijection of `h` and of `w`, so a change of any single word always
//! changes the result. It detects accidents and peers that rewrite slots; it is not a cryptographic hash.

use crate::message::Slot;

/// Initial state of every checksum.
pub const CHECKSUM_SEED: u64 = 0x5245_5052_4953_4531;

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds one word into a checksum state.
#[inline]
#[must_use]
pub const fn fold(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

/// A running checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl Checksum {
    /// The empty checksum.
    #[must_use]
    pub const fn new() -> Self {
        Self(CHECKSUM_SEED)
    }

    /// Continues from a state saved with [`Self::state`].
    #[must_use]
    pub const fn from_state(state: u64) -> Self {
        Self(state)
    }

    /// The state, for saving.
    #[must_use]
    pub const fn state(self) -> u64 {
        self.0
    }

    /// Folds in one word.
    #[inline]
    pub const fn word(&mut self, word: u64) {
        self.0 = fold(self.0, word);
    }

    /// Folds in bytes: their length as a word, then little-endian words, the last one padded with zeros.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// The checksum of what was folded in so far.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Checksum of a message's content: the words of the slot at offsets 8 (`cause`), 16 (`vtime`), 24 (`kind`, `size`, `flags`,
/// `arg`), 32 (`offset`), 40 (`value`) and 56 (`inline`), then the arena bytes as [`Checksum::bytes`].
///
/// `seq` and `arena_off` are left out on purpose: side messages, whose number depends on host timing, move both.
#[inline]
#[must_use]
pub fn content_checksum(slot: &Slot, arena: &[u8]) -> u64 {
    let words = slot.to_words();
    let mut sum = Checksum::new();
    for index in [1, 2, 3, 4, 5, 7] {
        sum.word(words[index]);
    }
    sum.bytes(arena);
    sum.finish()
}
