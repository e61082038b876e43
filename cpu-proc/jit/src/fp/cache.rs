//! Results of VFP instructions that are still in host registers.
//!
//! Every result is stored; the next instruction that wants it need not wait for the store. What is here is therefore only a copy: it can be
//! forgotten at any time, and a call (which loses all of xmm) reloads it from memory.

use crate::emit::{Emitter, ext};

/// First host register.
const FIRST: u8 = 8;
/// How many. Each is a load after each call out of line.
const COUNT: usize = 6;

/// A scalar register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scalar {
    /// First extension word.
    word: u32,
    dp: bool,
}

/// Which scalars xmm8 and up hold, as well as memory does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    scalars: [Option<Scalar>; COUNT],
    next: usize,
}

impl Held {
    /// The host register with a scalar.
    pub(super) fn find(&self, word: u32, dp: bool) -> Option<u8> {
        let i = self.scalars.iter().position(|s| *s == Some(Scalar { word, dp }))?;
        Some(FIRST + i as u8)
    }

    /// The scalar has been stored: a host register for its copy.
    pub(super) fn hold(&mut self, word: u32, dp: bool) -> u8 {
        self.forget(word, 1 + u32::from(dp));
        let i = self.scalars.iter().position(Option::is_none).unwrap_or(self.next);
        self.next = (i + 1) % COUNT;
        self.scalars[i] = Some(Scalar { word, dp });
        FIRST + i as u8
    }

    /// `count` extension words from `word` on have changed in memory.
    pub fn forget(&mut self, word: u32, count: u32) {
        for s in &mut self.scalars {
            if s.is_some_and(|s| s.word < word + count && word < s.word + 1 + u32::from(s.dp)) {
                *s = None;
            }
        }
    }

    /// All of xmm is lost.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Emits loads of all.
    pub fn reload(&self, e: &mut Emitter) {
        for (i, s) in self.scalars.iter().enumerate() {
            let x = FIRST + i as u8;
            match s {
                Some(Scalar { word, dp: true }) => x!(e; movsd Rx(x), [rbp + ext(*word)]),
                Some(Scalar { word, dp: false }) => x!(e; movss Rx(x), [rbp + ext(*word)]),
                None => {}
            }
        }
    }
}
