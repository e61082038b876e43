//! Tests: where the process may die. A fuse counts the stores to files and to the journal; the one it blows at is done in part, and all later
//! ones fail. Outside of tests there is nothing of it.

use std::io;

pub(crate) use imp::*;

/// An error, if the process died.
#[inline(always)]
pub(crate) fn check(dead: bool) -> io::Result<()> {
    if dead { Err(io::Error::other("the process was killed")) } else { Ok(()) }
}

#[cfg(not(test))]
mod imp {
    /// How much of a write to a file is done.
    #[inline(always)]
    pub(crate) fn file_write(_: u64, len: usize) -> usize {
        len
    }

    /// How much of a store to memory is done.
    #[inline(always)]
    pub(crate) fn store(len: usize) -> usize {
        len
    }
}

#[cfg(test)]
mod imp {
    use std::cell::Cell;

    thread_local! {
        /// Stores until the fuse blows, and a number that says how much of the last one is done.
        static FUSE: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }

    /// Sets the fuse; `None` takes it out.
    pub(crate) fn set_fuse(fuse: Option<(u64, u64)>) {
        FUSE.set(fuse);
    }

    /// It has blown.
    pub(crate) fn is_dead() -> bool {
        FUSE.get().is_some_and(|(left, _)| left == 0)
    }

    /// The part of a store that is done, unless all of it is.
    fn burn() -> Option<u64> {
        let (left, part) = FUSE.get()?;
        if left == 0 {
            return Some(0);
        }
        FUSE.set(Some((left - 1, part)));
        (left == 1).then_some(part)
    }

    /// A killed process's write to a file may end at any page of it.
    pub(crate) fn file_write(offset: u64, len: usize) -> usize {
        let Some(part) = burn() else { return len };
        if part == 0 {
            return 0;
        }
        let end = (offset + part % (len as u64 + 1)) & !0xfff;
        end.saturating_sub(offset) as usize
    }

    pub(crate) fn store(len: usize) -> usize {
        burn().map_or(len, |part| (part % (len as u64 + 1)) as usize)
    }
}
