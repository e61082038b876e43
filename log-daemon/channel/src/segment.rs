//! Segments: named shared memory, mapped so that each process can write only the pages it owns. The only module that knows
//! `shared_memory` and the futex system calls.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::errno::Errno;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use crate::ring::{Space, Watch};

/// What a process is to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Creates, closes and unlinks segments; owns their header page.
    Supervisor,
    /// cpu-proc.
    Cpu,
    /// device-proc.
    Device,
    /// The log daemon as tap, or at the control segment.
    Daemon,
    /// The log daemon in the device's place (replay without devices): owns the device's pages and its own.
    DaemonAsDevice,
}

impl Role {
    /// Whether this role may write pages of `owner`.
    #[must_use]
    pub fn owns(self, owner: Role) -> bool {
        self == owner || (self == Self::DaemonAsDevice && matches!(owner, Self::Device | Self::Daemon))
    }
}

/// A segment could not be made or attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The name is not of the form `reprise-...`.
    #[error("segment name {0:?} is not of the form reprise-[a-z0-9-]+, at most 64 characters")]
    Name(String),
    /// A segment of that name exists.
    #[error("segment {0} exists already: is a machine with the same uuid running?")]
    Exists(String),
    /// The system refused.
    #[error("segment {name}: {what} failed: {error}")]
    System {
        /// The segment's name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        error: Errno,
    },
    /// There is not enough shared memory.
    #[error("segment {name}: {bytes} bytes do not fit into /dev/shm: make it larger, or the machine's rings smaller")]
    NoSpace {
        /// The segment's name.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// It is no segment of this version, or of another kind.
    #[error("segment {name}: {why}")]
    Format {
        /// The segment's name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A size of the configuration is out of range.
    #[error("ring sizes out of range: {0}")]
    Config(&'static str),
    /// The cursors in it make no sense.
    #[error(transparent)]
    Channel(#[from] crate::ChannelError),
}

impl SegmentError {
    fn system(name: &str, what: &'static str, error: Errno) -> Self {
        Self::System { name: name.to_owned(), what, error }
    }

    fn shmem(name: &str, what: &'static str, error: &ShmemError) -> Self {
        match *error {
            ShmemError::MappingIdExists => Self::Exists(name.to_owned()),
            ShmemError::MapCreateFailed(code) | ShmemError::MapOpenFailed(code) | ShmemError::UnknownOsError(code) => {
                Self::system(name, what, Errno::from_raw(code as i32))
            }
            _ => Self::system(name, what, Errno::EINVAL),
        }
    }
}

/// Types that may lie in a segment.
///
/// # Safety
/// Every bit pattern is a value, there is no padding, no pointer and no reference, and a peer that changes the bytes at any
/// time breaks nothing: either the type is atomic, or it is only ever copied word by word through atomics.
pub unsafe trait SharedMem {}

// SAFETY: atomic, and any bits are a value.
unsafe impl SharedMem for AtomicU64 {}
// SAFETY: atomic, and any bits are a value.
unsafe impl SharedMem for AtomicU32 {}
// SAFETY: plain integers without padding (zerocopy derives check it), only copied through atomic words.
unsafe impl SharedMem for crate::Slot {}
// SAFETY: plain integers without padding (zerocopy derives check it), only copied through atomic words.
unsafe impl SharedMem for crate::Entry {}

/// Pages of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Who writes them.
    pub owner: Role,
    /// Offset in bytes, a multiple of the page size.
    pub start: usize,
    /// Length in bytes, a multiple of the page size.
    pub len: usize,
}

/// A mapping that unmaps itself.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping lives as long as the value, and is only accessed through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of a mapping that this value owns alone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Mapping {
    /// Maps the pages of `shmem` a second time, so that the descriptor, which could map them writable again, can go.
    fn keep(shmem: &Shmem, name: &str) -> Result<Self, SegmentError> {
        let (base, len) = (shmem.as_ptr(), shmem.len());
        // SAFETY: base is the start of a shared mapping of len bytes. With an old size of 0, mremap leaves it and makes another
        // mapping of the same pages at a free address.
        let twin = unsafe { libc::mremap(base.cast(), 0, len, libc::MREMAP_MAYMOVE) };
        match NonNull::new(twin.cast::<u8>()) {
            Some(base) if twin != libc::MAP_FAILED => Ok(Self { base, len }),
            _ => Err(SegmentError::system(name, "mremap", Errno::last())),
        }
    }
}

/// A mapped segment. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct Segment {
    mapping: Arc<Mapping>,
    /// Start and number of words of the mapping, here to spare the hot path an indirection.
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: `words` points into the mapping, which the value keeps alive, and is only accessed through atomics.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// The host's page size in bytes.
#[must_use]
pub fn page_size() -> usize {
    // SAFETY: sysconf reads a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// The name of segment `number` of a machine.
#[must_use]
pub fn segment_name(machine: &str, number: usize) -> String {
    format!("reprise-{machine}-{number}")
}

fn check_name(name: &str) -> Result<(), SegmentError> {
    let good = name.len() <= 64
        && name.strip_prefix("reprise-").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    if good { Ok(()) } else { Err(SegmentError::Name(name.to_owned())) }
}

/// Removes the name of a segment. Processes that have it attached keep it. Returns whether there was one.
///
/// # Errors
/// If the name is not one of a segment, or the system refuses.
pub fn unlink(name: &str) -> Result<bool, SegmentError> {
    check_name(name)?;
    match nix::sys::mman::shm_unlink(name) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(SegmentError::system(name, "shm_unlink", error)),
    }
}

impl Segment {
    /// Makes a zeroed segment with mode 0600, all pages allocated and writable. It stays until [`unlink`].
    ///
    /// # Errors
    /// If it exists, or there is no room for it.
    pub fn create(name: &str, bytes: usize) -> Result<Self, SegmentError> {
        check_name(name)?;
        let mut shmem = ShmemConf::new()
            .os_id(name)
            .size(bytes)
            .create()
            .map_err(|error| SegmentError::shmem(name, "creating it", &error))?;
        let made = allocate(name, bytes).and_then(|()| Mapping::keep(&shmem, name));
        // From here on the name is the caller's to remove, unless making it failed.
        shmem.set_owner(made.is_err());
        Ok(Self::of(made?))
    }

    /// Maps an existing segment, all pages writable until [`Self::protect`].
    ///
    /// # Errors
    /// If there is none.
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        check_name(name)?;
        let mut shmem =
            ShmemConf::new().os_id(name).open().map_err(|error| SegmentError::shmem(name, "attaching it", &error))?;
        shmem.set_owner(false);
        if shmem.len() < page_size() || shmem.len() % page_size() != 0 {
            return Err(SegmentError::Format { name: name.to_owned(), why: "its size is no number of pages" });
        }
        Ok(Self::of(Mapping::keep(&shmem, name)?))
    }

    fn of(mapping: Mapping) -> Self {
        let (words, count) = (mapping.base.cast(), mapping.len / size_of::<AtomicU64>());
        Self { mapping: Arc::new(mapping), words, count }
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.mapping.len
    }

    /// Makes every page read-only that `role` does not own.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// If a region lies outside the segment.
    pub fn protect(&self, name: &str, regions: &[Region], role: Role) -> Result<(), SegmentError> {
        for region in regions.iter().filter(|region| !role.owns(region.owner)) {
            let end = region.start.checked_add(region.len);
            assert!(end.is_some_and(|end| end <= self.bytes()), "region outside its segment");
            // SAFETY: the range was just checked to lie in the mapping; nothing holds a plain reference into it.
            let result = unsafe {
                libc::mprotect(self.mapping.base.as_ptr().add(region.start).cast(), region.len, libc::PROT_READ)
            };
            Errno::result(result).map_err(|error| SegmentError::system(name, "mprotect", error))?;
        }
        Ok(())
    }

    /// `len` values of a shared type from byte offset `start`.
    ///
    /// # Panics
    /// If they do not lie inside the segment, aligned.
    #[inline]
    #[must_use]
    pub fn view<T: SharedMem>(&self, start: usize, len: usize) -> &[std::cell::UnsafeCell<T>] {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(start));
        assert!(end.is_some_and(|end| end <= self.bytes()) && start % align_of::<T>() == 0, "view outside its segment");
        // SAFETY: inside the mapping, aligned (the base is page-aligned), any bits are a value, and UnsafeCell allows for changes.
        unsafe { std::slice::from_raw_parts(self.mapping.base.as_ptr().add(start).cast(), len) }
    }
}

/// Allocates all pages of a new segment, so that a full /dev/shm is an error here and no SIGBUS later.
fn allocate(name: &str, bytes: usize) -> Result<(), SegmentError> {
    use nix::fcntl::OFlag;
    let fd = nix::sys::mman::shm_open(name, OFlag::O_RDWR, nix::sys::stat::Mode::empty())
        .map_err(|error| SegmentError::system(name, "shm_open", error))?;
    let len = i64::try_from(bytes).map_err(|_| SegmentError::Config("segment too large"))?;
    match nix::fcntl::posix_fallocate(fd, 0, len) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::ENOMEM) => Err(SegmentError::NoSpace { name: name.to_owned(), bytes }),
        Err(error) => Err(SegmentError::system(name, "allocating its pages", error)),
    }
}

impl Space for Segment {
    type Word = AtomicU64;

    #[inline(always)]
    fn words(&self, start: usize, len: usize) -> &[AtomicU64] {
        assert!(start <= self.count && len <= self.count - start, "words outside their segment");
        // SAFETY: inside the mapping by the check above and aligned; atomics may be changed by others at any time, and atomic loads
        // of pages mapped read-only are allowed.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().add(start), len) }
    }

    #[inline(always)]
    fn fence() {
        fence(Ordering::SeqCst);
    }

    fn wake(&self, index: usize) {
        crate::jitter::point();
        futex_wake(self.low_half(index));
    }

    fn sleep(watches: &[Watch<'_, Self>], extra: Option<(&AtomicU32, u32)>, limit: Option<Duration>) {
        let mut futexes = [FutexWaitv::default(); FUTEX_WAITV_MAX];
        let words = watches.iter().map(|&(space, index, value)| (space.low_half(index), value));
        let mut count = 0;
        // What does not fit goes unwatched: the caller then gives a short limit.
        for (place, (word, value)) in futexes.iter_mut().zip(extra.into_iter().chain(words)) {
            *place = FutexWaitv::new(word, value);
            count += 1;
        }
        if count == 0 {
            return std::thread::sleep(limit.unwrap_or_default());
        }
        futex_wait(&futexes[..count], limit.unwrap_or(Duration::from_secs(1)));
    }

    #[inline(always)]
    fn prefetch(&self, index: usize) {
        if index < self.count {
            let word = self.words.as_ptr().wrapping_add(index);
            // The intrinsic turns into a prefetch for reading unless the build asks for a newer CPU; every x86-64 CPU either knows
            // the instruction or skips it.
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint, of an address inside the mapping.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = word;
        }
    }
}

impl Segment {
    /// The futex of a word: its low half, which on a little-endian host lies first.
    fn low_half(&self, index: usize) -> &AtomicU32 {
        let word: *const AtomicU64 = &self.words(index, 1)[0];
        // SAFETY: the first four bytes of a live, aligned word. They are only handed to the kernel.
        unsafe { &*word.cast::<AtomicU32>() }
    }
}

/// The kernel's `struct futex_waitv`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct FutexWaitv {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

/// The most futexes that the kernel waits for at once.
const FUTEX_WAITV_MAX: usize = 128;
const FUTEX2_SIZE_U32: u32 = 2;

impl FutexWaitv {
    fn new(word: &AtomicU32, value: u32) -> Self {
        let uaddr = std::ptr::from_ref(word) as u64;
        Self { val: u64::from(value), uaddr, flags: FUTEX2_SIZE_U32, reserved: 0 }
    }
}

/// Wakes all sleepers on a word of this process's own memory.
pub(crate) fn wake_local(word: &AtomicU32) {
    futex_wake(word);
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE only uses the address, of a live word, as a key. Shared, as sleepers are other processes.
    unsafe { libc::syscall(libc::SYS_futex, std::ptr::from_ref(word), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps until one of the words changes or is woken, or `limit` is over. May return early, for any reason: callers loop.
fn futex_wait(futexes: &[FutexWaitv], limit: Duration) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanos = now.tv_nsec as u64 + u64::from(limit.subsec_nanos());
    now.tv_sec += (limit.as_secs().min(1 << 30) + nanos / 1_000_000_000) as libc::time_t;
    now.tv_nsec = (nanos % 1_000_000_000) as _;
    // SAFETY: the array and the time outlive the call; the addresses in it are of live words.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            futexes.as_ptr(),
            futexes.len() as u32,
            0_u32,
            &raw const now,
            libc::CLOCK_MONOTONIC,
        )
    };
    if result < 0 && !matches!(Errno::last(), Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT) {
        // A kernel before 5.16, or a filter that does not know the call: look round often instead.
        std::thread::sleep(limit.min(Duration::from_micros(200)));
    }
}
