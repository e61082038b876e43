//! The memory management unit: translation and its TLB.

mod fault;

pub use fault::{Abort, FaultKind};

use crate::bus::GuestRam;
use crate::state::Cpu;

/// What an access wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Load.
    Read,
    /// Store (also the first half of an atomic read-write).
    Write,
    /// Instruction fetch.
    Exec,
}

/// With whose rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Those of the current mode.
    Current,
    /// User's: LDRT and its kin.
    User,
}

/// Memory type of a mapping (ARM DDI 0406C A3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemType {
    /// Strongly-ordered: every access must be aligned.
    StronglyOrdered,
    /// Device: every access must be aligned.
    Device,
    /// Normal: unaligned accesses are allowed where the instruction and SCTLR.A allow them.
    Normal,
}

/// Where a virtual address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phys {
    /// Physical address of the accessed byte.
    pub pa: u64,
    /// Host address of the accessed byte, valid to the end of its 4 KiB page; null outside RAM (MMIO).
    pub host: *mut u8,
    /// Memory type; anything but Normal requires alignment.
    pub mem: MemType,
    /// Access::Write to a page that holds translated code: tell the engine's code cache, which then calls
    /// [`Mmu::unprotect_code_page`] or leaves it protected.
    pub code: bool,
}

/// TLB and translation state of one core.
#[derive(Debug, Clone)]
pub struct Mmu {
    id: u32,
}

impl Mmu {
    /// An empty TLB.
    pub(crate) fn new() -> Mmu {
        Mmu { id: 0 }
    }

    /// Fast path: host address minus virtual address of `va`'s 4 KiB page if loads from all of it may go straight to host memory at any
    /// alignment; 0 means the slow path, [`Cpu::translate`].
    #[inline]
    pub fn read_addend(&self, va: u32) -> u64 {
        let _ = va;
        0
    }

    /// As [`Mmu::read_addend`], for stores.
    #[inline]
    pub fn write_addend(&self, va: u32) -> u64 {
        let _ = va;
        0
    }

    /// Key for whatever an engine derives from virtual addresses of instructions. Two equal ids mean that every exec translation seen
    /// under the id still holds; the id of an address space comes back with it unless something was invalidated meanwhile.
    #[inline]
    pub fn context_id(&self) -> u32 {
        self.id
    }

    /// Takes write access to the physical page of `pa` out of every fast table and keeps it out: it holds translated code.
    pub fn protect_code_page(&mut self, pa: u64) {
        let _ = pa;
    }

    /// The page of `pa` holds no translated code any more.
    pub fn unprotect_code_page(&mut self, pa: u64) {
        let _ = pa;
    }
}

impl Cpu {
    /// Translates one access of the page that holds `va` (slow path: walks, checks rights, fills the TLB). An access that crosses a page
    /// needs one call per page; the caller checks alignment against `mem` and SCTLR.A.
    ///
    /// # Errors
    /// The abort to take.
    pub fn translate(&mut self, ram: &GuestRam, va: u32, access: Access, view: View) -> Result<Phys, Abort> {
        let _ = (access, view);
        let pa = u64::from(va);
        Ok(Phys {
            pa,
            host: ram.host(pa, 1).unwrap_or(std::ptr::null_mut()),
            mem: MemType::StronglyOrdered,
            code: false,
        })
    }

    /// Selects the TLB view after a change of privilege, security state or translation registers.
    pub fn update_context(&mut self) {
        self.cp15.bank = usize::from(!self.is_secure());
    }
}
