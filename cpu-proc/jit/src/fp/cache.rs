//! Results of VFP instructions, and what VLDR loaded, that are still in host registers.
//!
//! Every one is in memory, too; the next instruction that wants it need not wait for the store. What is here is therefore only a copy: it can be
//! forgotten at any time, and a call (which loses all of xmm) reloads it from memory. Copies go from block to block ([`crate::lower::Entry`]).

use crate::emit::{Emitter, ext};

/// First host register.
const FIRST: u8 = 8;
/// How many. Each is a load after each call out of line.
const COUNT: usize = 8;

/// A scalar register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar {
    /// First extension word.
    pub word: u32,
    /// Double precision.
    pub dp: bool,
}

impl Scalar {
    /// How many extension words it has.
    pub fn words(self) -> u32 {
        1 + u32::from(self.dp)
    }

    /// Whether it has one of `count` extension words from `word` on.
    pub fn overlaps(self, word: u32, count: u32) -> bool {
        self.word < word + count && word < self.word + self.words()
    }
}

/// A scalar that a host register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copied {
    of: Scalar,
    /// It is not denormal. Known under flush-to-zero only, where it matters.
    normal: bool,
}

/// Which scalars xmm8 and up hold, as well as memory does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    copies: [Option<Copied>; COUNT],
    next: usize,
}

impl Held {
    fn index(&self, of: Scalar) -> Option<usize> {
        self.copies.iter().position(|c| c.is_some_and(|c| c.of == of))
    }

    /// The host register with a scalar.
    pub fn find(&self, word: u32, dp: bool) -> Option<u8> {
        Some(FIRST + self.index(Scalar { word, dp })? as u8)
    }

    /// A scalar is held and not denormal.
    pub(super) fn is_normal(&self, word: u32, dp: bool) -> bool {
        self.copies.iter().flatten().any(|c| c.of == Scalar { word, dp } && c.normal)
    }

    /// The scalar has been stored: a host register for its copy, the same as before if there is one.
    pub fn hold(&mut self, word: u32, dp: bool, normal: bool) -> u8 {
        let of = Scalar { word, dp };
        let before = self.index(of);
        self.forget(word, of.words());
        let i = before.or_else(|| self.copies.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.next = (self.next + 1) % COUNT;
            self.next
        });
        self.copies[i] = Some(Copied { of, normal });
        FIRST + i as u8
    }

    /// `count` extension words from `word` on have changed in memory.
    pub fn forget(&mut self, word: u32, count: u32) {
        self.keep(|s| !s.overlaps(word, count));
    }

    /// Forgets what `wanted` does not name.
    pub fn keep(&mut self, wanted: impl Fn(Scalar) -> bool) {
        for c in &mut self.copies {
            *c = c.filter(|c| wanted(c.of));
        }
    }

    /// All of xmm is lost.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The same for a block that follows: where the next copy goes is its own affair.
    pub fn for_next(self) -> Self {
        Self { next: 0, ..self }
    }

    /// Whether all that `other` holds is held here too, in the same host registers.
    pub fn covers(&self, other: &Self) -> bool {
        let fits = |(mine, theirs): (&Option<Copied>, &Option<Copied>)| match (mine, theirs) {
            (_, None) => true,
            (Some(m), Some(t)) => m.of == t.of && (m.normal || !t.normal),
            (None, Some(_)) => false,
        };
        self.copies.iter().zip(&other.copies).all(fits)
    }

    /// How many are held.
    pub fn count(&self) -> usize {
        self.copies.iter().flatten().count()
    }

    /// Emits loads of all.
    pub fn reload(&self, e: &mut Emitter) {
        for (i, c) in self.copies.iter().enumerate() {
            let x = FIRST + i as u8;
            match c {
                Some(Copied { of: Scalar { word, dp: true }, .. }) => x!(e; movsd Rx(x), [rbp + ext(*word)]),
                Some(Copied { of: Scalar { word, dp: false }, .. }) => x!(e; movss Rx(x), [rbp + ext(*word)]),
                None => {}
            }
        }
    }
}
