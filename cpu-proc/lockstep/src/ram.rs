//! The reference's RAM: a private mapping as large as the guest's, of which only what the guest has touched takes memory.

use reprise_arm::bus::GuestRam;
use reprise_arm::mmu::PageBytes;
use std::io;

const PAGE: usize = 0x1000;

/// A copy of guest RAM.
pub(crate) struct Shadow {
    view: GuestRam,
    host: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to the value alone and is not bound to a thread.
unsafe impl Send for Shadow {}

impl Shadow {
    /// Copies RAM.
    ///
    /// # Errors
    /// The mapping can't be made.
    pub(crate) fn copy_of(ram: &GuestRam) -> io::Result<Self> {
        let len = usize::try_from(ram.size()).map_err(io::Error::other)?;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing that exists.
        let host = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if host == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is valid until `drop`, and nothing but this view touches it.
        let view = unsafe { GuestRam::new(host.cast(), ram.base(), ram.size()) }.with_aliases(ram.aliases());
        let shadow = Self { view, host: host.cast(), len };
        shadow.take_over(ram);
        Ok(shadow)
    }

    /// The copy as an engine sees it.
    pub(crate) fn view(&self) -> &GuestRam {
        &self.view
    }

    /// Makes this the same as `ram`.
    pub(crate) fn take_over(&self, ram: &GuestRam) {
        for pa in resident(ram) {
            if self.page_difference(ram, pa).is_some() {
                copy_page(ram, &self.view, pa);
            }
        }
    }

    /// Makes `ram` the same as this.
    pub(crate) fn give_back(&self, ram: &GuestRam) {
        for pa in resident(ram) {
            if self.page_difference(ram, pa).is_some() {
                copy_page(&self.view, ram, pa);
            }
        }
    }

    /// The first physical address at which `ram` is another.
    pub(crate) fn first_difference(&self, ram: &GuestRam) -> Option<u64> {
        resident(ram).find_map(|pa| self.page_difference(ram, pa))
    }

    /// The first address at which the page at `pa` differs.
    pub(crate) fn page_difference(&self, ram: &GuestRam, pa: u64) -> Option<u64> {
        let (a, b) = (ram.host(pa, PAGE as u64)?, self.view.host(pa, PAGE as u64)?);
        // SAFETY: both are whole pages of their RAM, and nothing stores to either while they are compared.
        let (a, b) = unsafe { (std::slice::from_raw_parts(a, PAGE), std::slice::from_raw_parts(b, PAGE)) };
        if a == b {
            return None;
        }
        a.iter().zip(b).position(|(x, y)| x != y).map(|i| pa + i as u64)
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // SAFETY: made by `copy_of` with this length; whoever used the view borrowed this value or is gone with the engine.
        unsafe { libc::munmap(self.host.cast(), self.len) };
    }
}

fn copy_page(from: &GuestRam, to: &GuestRam, pa: u64) {
    let mut bytes = [0; PAGE];
    from.read(pa, &mut bytes).expect("a page of RAM");
    to.write(pa, &bytes).expect("a page of RAM");
}

/// Puts pages back to what they held.
pub(crate) fn undo(ram: &GuestRam, pages: &[(u64, Box<PageBytes>)]) {
    for (pa, bytes) in pages {
        ram.write(*pa, &bytes[..]).expect("a page of RAM");
    }
}

/// The pages of `ram` that may hold something other than zeros. Asking the kernel keeps untouched pages untouched; where it does not say, all
/// are looked at.
fn resident(ram: &GuestRam) -> impl Iterator<Item = u64> {
    let (base, len) = (ram.base(), ram.size() as usize);
    let mut map = vec![1u8; len / PAGE];
    if let Some(host) = ram.host(base, ram.size()) {
        // SAFETY: `map` has a byte for each page of the range, which is mapped. On failure it is left as it is, or the ones written so far
        // are right.
        let r = unsafe { libc::mincore(host.cast(), len, map.as_mut_ptr()) };
        if r != 0 {
            map.fill(1);
        }
    }
    map.into_iter().enumerate().filter(|(_, m)| m & 1 != 0).map(move |(i, _)| base + (i * PAGE) as u64)
}
