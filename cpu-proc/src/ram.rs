//! Guest RAM: a sealed memfd that this process alone maps (DESIGN law 3).

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_arm::bus::GuestRam;

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

    /// The view that engines use.
    pub fn view(&self) -> &GuestRam {
        &self.view
    }

    /// Feeds every byte of RAM, in address order, to `sink`. Pages that were never touched are fed as zeros without being touched.
    pub fn for_each_chunk(&self, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let size = self.view.size() as i64;
        let mut at = 0i64;
        let mut buf = vec![0u8; 1 << 20];
        while at < size {
            let data = match seek(&self.fd, at, libc::SEEK_DATA)? {
                Some(d) => d,
                None => size,
            };
            let mut hole = (data - at) as usize;
            while hole > 0 {
                let n = hole.min(ZEROS.len());
                sink(&ZEROS[..n]);
                hole -= n;
            }
            at = data;
            if at >= size {
                break;
            }
            let end = seek(&self.fd, at, libc::SEEK_HOLE)?.unwrap_or(size).min(size);
            while at < end {
                let n = ((end - at) as usize).min(buf.len());
                self.view.read(self.view.base() + at as u64, &mut buf[..n]).expect("inside RAM");
                sink(&buf[..n]);
                at += n as i64;
            }
        }
        Ok(())
    }
}

/// `lseek` for data or a hole; `None` when there is none to the end of the file.
fn seek(fd: &OwnedFd, at: i64, whence: i32) -> Result<Option<i64>> {
    // SAFETY: lseek on our own descriptor has no memory effects.
    let r = unsafe { libc::lseek(fd.as_raw_fd(), at, whence) };
    if r >= 0 {
        return Ok(Some(r));
    }
    let e = std::io::Error::last_os_error();
    if e.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(e).context("looking for touched guest RAM") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_pages_hash_as_zeros_and_touched_ones_as_they_are() {
        let ram = Ram::new(0x8000_0000, 1 << 20).unwrap();
        ram.view().write(0x8000_5001, b"hello").unwrap();
        ram.view().write(0x800f_fffe, b"ok").unwrap();
        let mut all = Vec::new();
        ram.for_each_chunk(&mut |b| all.extend_from_slice(b)).unwrap();
        let mut want = vec![0u8; 1 << 20];
        want[0x5001..0x5006].copy_from_slice(b"hello");
        want[0xffffe..].copy_from_slice(b"ok");
        assert!(all == want);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(Ram::new(0, 0).is_err());
        assert!(Ram::new(0, 4097).is_err());
        assert!(Ram::new(1, 4096).is_err());
        assert!(Ram::new(0, MAX_RAM + 4096).is_err());
    }
}
