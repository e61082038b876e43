//! Guest RAM: a sealed memfd that this process alone maps (DESIGN law 3).

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_arm::bus::{GuestRam, RamAlias};

/// The largest RAM a machine may ask for: 32-bit guests address no more without LPAE.
pub const MAX_RAM: u64 = 3 << 30;

/// Nobody may change the size, or add seals.
const SEALS: SealFlag = SealFlag::F_SEAL_GROW.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_SEAL);

fn check(base: u64, size: u64) -> Result<()> {
    if size == 0 || size > MAX_RAM || size % 4096 != 0 || base % 4096 != 0 {
        bail!("RAM of {size:#x} bytes at {base:#x}: give a multiple of 4 KiB up to {MAX_RAM:#x} bytes");
    }
    Ok(())
}

/// Guest RAM and the file behind it.
pub struct Ram {
    fd: OwnedFd,
    view: GuestRam,
}

impl Ram {
    /// Makes `size` zeroed bytes of RAM at guest physical `base`.
    pub fn new(base: u64, size: u64) -> Result<Self> {
        check(base, size)?;
        let name = CString::new("reprise-ram").expect("no NUL in a literal");
        let fd = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .context("making the memfd for guest RAM")?;
        nix::unistd::ftruncate(&fd, size as i64).with_context(|| format!("sizing guest RAM to {size:#x} bytes"))?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).context("sealing guest RAM")?;
        Self::of(fd, base, size)
    }

    /// Takes over a memfd of `size` bytes that can neither grow nor shrink.
    pub fn of(fd: OwnedFd, base: u64, size: u64) -> Result<Self> {
        check(base, size)?;
        let seals = SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS).context("guest RAM is no memfd")?);
        let length = nix::sys::stat::fstat(&fd).context("guest RAM")?.st_size;
        if !seals.contains(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK) || length != size as i64 {
            bail!(
                "the file for guest RAM has {length:#x} bytes and seals {seals:?}; it must have {size:#x} and be sealed in size"
            );
        }
        // SAFETY: a fresh shared mapping of a file that can't shrink; it is never unmapped, so it is valid for the process's life.
        let host = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if host == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping guest RAM");
        }
        // SAFETY: transparent huge pages are only advice; the range is the mapping made above.
        unsafe { libc::madvise(host, size as usize, libc::MADV_HUGEPAGE) };
        // SAFETY: the mapping is valid for reads and writes of `size` bytes for ever, and only `GuestRam` touches it.
        let view = unsafe { GuestRam::new(host.cast(), base, size) };
        Ok(Self { fd, view })
    }

    /// The same RAM, seen at other addresses too.
    #[must_use]
    pub fn with_aliases(mut self, aliases: &[RamAlias]) -> Self {
        self.view = self.view.with_aliases(aliases);
        self
    }

    /// The view that engines use.
    pub fn view(&self) -> &GuestRam {
        &self.view
    }

    /// Feeds each piece of [`PIECE`] bytes that holds anything but zeros to `sink`, with its offset, in address order. Pages that were never
    /// touched stay so: the same bytes give the same pieces, however they came to be there.
    pub fn for_each_piece(&self, sink: &mut dyn FnMut(u64, &[u8])) -> Result<()> {
        let mut piece = vec![0u8; PIECE];
        // The touched stretch that the walk is in: the kernel walks all of it to find its end, so it is asked once.
        let mut stretch = self.stretch(0)?;
        while let Some((data, _)) = stretch {
            let start = data / PIECE as u64 * PIECE as u64;
            let end = self.view.size().min(start + PIECE as u64);
            piece.fill(0);
            while let Some((from, to)) = stretch.filter(|s| s.0 < end) {
                let part = &mut piece[(from - start) as usize..(to.min(end) - start) as usize];
                self.view.read(self.view.base() + from, part).expect("inside RAM");
                stretch = if to > end { Some((end, to)) } else { self.stretch(to)? };
            }
            let piece = &piece[..(end - start) as usize];
            if piece.iter().any(|&b| b != 0) {
                sink(start, piece);
            }
        }
        Ok(())
    }

    /// The first touched stretch that ends after `at`.
    fn stretch(&self, at: u64) -> Result<Option<(u64, u64)>> {
        let Some(from) = self.seek(at, libc::SEEK_DATA)? else { return Ok(None) };
        Ok(Some((from, self.seek(from, libc::SEEK_HOLE)?.unwrap_or(self.view.size()))))
    }

    /// `lseek` for data or a hole; `None` when there is none to the end of RAM.
    fn seek(&self, at: u64, whence: i32) -> Result<Option<u64>> {
        // SAFETY: lseek on our own descriptor has no memory effects.
        let r = unsafe { libc::lseek(self.fd.as_raw_fd(), at as i64, whence) };
        if r >= 0 {
            return Ok(Some(r as u64));
        }
        let e = std::io::Error::last_os_error();
        if e.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(e).context("looking for touched guest RAM") }
    }
}

/// Bytes of a piece that a hash of RAM takes in or leaves out.
pub const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_zeros_are_left_out_touched_or_not() {
        let ram = Ram::new(0x8000_0000, 1 << 20).unwrap();
        ram.view().write(0x8000_5001, b"hello").unwrap();
        ram.view().write(0x800f_fffe, b"ok").unwrap();
        ram.view().write(0x8003_0000, &[0; 5]).unwrap();
        let mut got = Vec::new();
        ram.for_each_piece(&mut |at, bytes| got.push((at, bytes.to_vec()))).unwrap();
        let (mut first, mut last) = (vec![0u8; PIECE], vec![0u8; PIECE]);
        first[0x5001..0x5006].copy_from_slice(b"hello");
        last[0xfffe..].copy_from_slice(b"ok");
        assert!(got == [(0, first), (0xf0000, last)]);
        assert!(got[0].1.len() == PIECE && ram.seek(0x1_0000, libc::SEEK_DATA).unwrap() == Some(0x3_0000));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Ram::new(0, 0).is_err());
        assert!(Ram::new(0, 4097).is_err());
        assert!(Ram::new(1, 4096).is_err());
        assert!(Ram::new(0, MAX_RAM + 4096).is_err());
    }
}
