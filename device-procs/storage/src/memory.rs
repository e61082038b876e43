//! Memory that outlives the process.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use crate::error::{Action, StorageError};
use crate::file::DiskFile;

/// Words of a part of a memfd, mapped for writing. One process has it at a time.
pub(crate) struct Shared {
    start: NonNull<u64>,
    words: usize,
}

// SAFETY: it is owned memory, reached through `&` and `&mut` alone.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} words)", self.words)
    }
}

impl Shared {
    /// Maps a part of the file; both numbers are in bytes and multiples of the page size. Not possible in the sandbox any more.
    pub(crate) fn map(file: &DiskFile, offset: u64, bytes: u64) -> Result<Self, StorageError> {
        let failed = |e| file.failed(Action::Map, offset)(e);
        let size = file.size().map_err(failed)?;
        if bytes == 0 || offset.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(failed(std::io::Error::other("the file is too short")));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the file is as long as that, and sealed against getting shorter.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes as usize,
                protection,
                libc::MAP_SHARED,
                file.file().as_raw_fd(),
                offset as i64,
            )
        };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() as *mut libc::c_void != libc::MAP_FAILED => {
                Ok(Self { start, words: (bytes / 8) as usize })
            }
            _ => Err(failed(std::io::Error::last_os_error())),
        }
    }

    /// How many there are.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// As bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long, and lives as long as `self`; nobody else writes to it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.words * 8) }
    }

    /// As bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.words * 8) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is this mapping, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}

/// Words that outlive the process, or that don't.
#[derive(Debug)]
pub(crate) enum Words {
    /// They don't.
    Own(Vec<u64>),
    /// They do.
    Shared(Shared),
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Self::Own(words) => words,
            // SAFETY: as in `bytes`; a mapping is aligned to a page.
            Self::Shared(s) => unsafe { std::slice::from_raw_parts(s.start.as_ptr(), s.words) },
        }
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Own(words) => words,
            // SAFETY: as in `bytes_mut`; a mapping is aligned to a page.
            Self::Shared(s) => unsafe { std::slice::from_raw_parts_mut(s.start.as_ptr(), s.words) },
        }
    }
}
