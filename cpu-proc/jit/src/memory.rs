//! Memory for compiled code: one memfd, mapped twice, writable in one place and executable in another, so that no page is ever both.

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// Why there is no memory for compiled code.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make memory for compiled code ({what}): {errno}; run with the interpreter (--engine interp) or allow executable memfds"
)]
pub struct MemoryError {
    what: &'static str,
    errno: nix::errno::Errno,
}

/// The two views.
pub struct CodeMemory {
    write: NonNull<u8>,
    exec: NonNull<u8>,
    size: usize,
    used: usize,
}

// SAFETY: the mappings belong to the value alone.
unsafe impl Send for CodeMemory {}

impl CodeMemory {
    /// `size` bytes (whole pages).
    ///
    /// # Errors
    /// The host refuses a memfd or a mapping.
    pub fn new(size: usize) -> Result<Self, MemoryError> {
        let error = |what| move |errno| MemoryError { what, errno };
        let fd = memfd_create("reprise-code", MFdFlags::MFD_CLOEXEC).map_err(error("memfd"))?;
        ftruncate(&fd, size as i64).map_err(error("size"))?;
        let len = NonZeroUsize::new(size).expect("code memory is not empty");
        let map = |prot| {
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, &fd, 0) }
        };
        let write = map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).map_err(error("writable view"))?.cast();
        let exec = map(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC).map_err(error("executable view"))?.cast();
        Ok(Self { write, exec, size, used: 0 })
    }

    /// Host address at which the next code will run.
    pub fn next(&self) -> usize {
        self.exec.as_ptr() as usize + self.used
    }

    /// Host address of `offset` in the executable view.
    pub fn address(&self, offset: u32) -> u64 {
        self.exec.as_ptr() as u64 + u64::from(offset)
    }

    /// Offset of the next code.
    pub fn offset(&self) -> u32 {
        self.used as u32
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether `len` more bytes fit.
    pub fn has_room(&self, len: usize) -> bool {
        self.size - self.used >= len + 16
    }

    /// Appends code that was assembled for [`Self::next`].
    pub fn push(&mut self, code: &[u8]) {
        assert!(self.has_room(code.len()), "the caller asks for room first");
        // SAFETY: the range lies in the writable view, which is only reached through self.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().add(self.used), code.len()) };
        self.used = (self.used + code.len()).next_multiple_of(16);
    }

    /// Forgets all code behind `offset`.
    pub fn truncate(&mut self, offset: u32) {
        assert!(offset as usize <= self.used, "there is that much");
        self.used = offset as usize;
    }

    /// Writes a 32-bit constant at `offset`.
    pub fn patch(&mut self, offset: u32, value: u32) {
        assert!(offset as usize + 4 <= self.used, "inside the code");
        // SAFETY: as in `push`. The code does not run now: one thread compiles and runs.
        unsafe { self.write.as_ptr().add(offset as usize).cast::<u32>().write_unaligned(value) };
    }

    /// Leads the 32-bit displacement at `site` to `target`.
    pub fn patch_jump(&mut self, site: u32, target: u32) {
        self.patch(site, target.wrapping_sub(site + 4));
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for view in [self.write, self.exec] {
            // SAFETY: mapped in `new` with this size; nothing runs there any more.
            let _ = unsafe { munmap(view.cast(), self.size) };
        }
    }
}
