//! The memory management unit: translation and its TLB (ARM DDI 0406C chapter B3).
//!
//! `walk` turns an address into a mapping by reading the guest's tables, `tlb` remembers mappings in flat tables that engines index
//! directly, `fault` codes what went wrong, and this file joins them.

mod attr;
mod fault;
mod long;
#[cfg(test)]
mod tests;
mod tlb;
mod walk;

pub use attr::Attr;
pub use fault::{Abort, FaultKind};
pub use long::{TTBCR_A1, TTBCR_EAE};
pub use tlb::{CONTEXTS, EXEC_TABLE, MAX_CORES, Mmu, PageBytes, Reach, WRITE_TABLE};
pub use walk::{Leaf, Regime, Rights, SCTLR_A, SCTLR_AFE, SCTLR_EE, SCTLR_M, SCTLR_TRE, SCTLR_UWXN, SCTLR_WXN, Size};

use crate::bus::GuestRam;
use crate::pmu::Level;
use crate::state::Cpu;
use tlb::Key;

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
    /// Physical address of the accessed byte; of RAM that was reached by an alias, its own.
    pub pa: u64,
    /// Host address of the accessed byte, valid to the end of its 4 KiB page; null outside RAM (MMIO).
    pub host: *mut u8,
    /// Memory type; anything but Normal requires alignment.
    pub mem: MemType,
    /// Access::Write to a page that holds translated code: tell the engine's code cache, which then calls
    /// [`Mmu::unprotect_code_page`] or leaves it protected.
    pub code: bool,
}

impl Cpu {
    /// Translates one access of the page that holds `va` (slow path: walks, checks rights, fills the TLB). An access that crosses a page
    /// needs one call per page; the caller checks alignment against `mem` and SCTLR.A ([`Cpu::alignment_checked`]).
    ///
    /// # Errors
    /// The abort to take.
    pub fn translate(&mut self, ram: &GuestRam, va: u32, access: Access, view: View) -> Result<Phys, Abort> {
        let phys = self.translate_unlogged(ram, va, access, view)?;
        if access == Access::Write {
            self.mmu.note_store(&phys);
        }
        Ok(phys)
    }

    fn translate_unlogged(&mut self, ram: &GuestRam, va: u32, access: Access, view: View) -> Result<Phys, Abort> {
        let user = view == View::User || !self.is_privileged();
        let sctlr = self.cp15.sctlr();
        if sctlr & SCTLR_M == 0 {
            return Ok(self.flat(ram, va, access));
        }
        let key = self.key(user);
        if let Some(phys) = self.mmu.lookup(ram, key, va, access) {
            return Ok(phys);
        }
        let (leaf, rights) = Regime::of(&self.cp15, self.cp15.bank).translate(ram, va, access, user)?;
        Ok(self.mmu.fill(ram, key, va, access, &leaf, rights))
    }

    /// MMU off: no TLB, no rights.
    fn flat(&self, ram: &GuestRam, va: u32, access: Access) -> Phys {
        let pa = ram.canonical(va.into());
        let mem = if access == Access::Exec { MemType::Normal } else { MemType::StronglyOrdered };
        let code = access == Access::Write && self.mmu.is_code_page(pa);
        Phys { pa, host: ram.host(pa, 1).unwrap_or(std::ptr::null_mut()), mem, code }
    }

    /// Physical address of `va` as the current mode would load from it, without touching the TLB: for debuggers and messages.
    pub fn peek_address(&self, ram: &GuestRam, va: u32) -> Option<u64> {
        let regime = Regime::of(&self.cp15, self.cp15.bank);
        regime.translate(ram, va, Access::Read, false).ok().map(|(leaf, _)| ram.canonical(leaf.pa))
    }

    /// SCTLR.A: every unaligned load or store takes an alignment fault.
    #[inline]
    pub fn alignment_checked(&self) -> bool {
        self.cp15.sctlr() & SCTLR_A != 0
    }

    /// Selects the TLB view after a change of privilege, security state or translation registers. Flushes nothing.
    pub fn update_context(&mut self) {
        let (user, nonsecure) = (!self.is_privileged(), !self.is_secure());
        self.leave |= self.cp15.pmu.set_level(self.icount, Level { user, nonsecure });
        self.cp15.bank = usize::from(nonsecure);
        let key = self.key(user);
        self.mmu.select(key);
    }

    fn key(&self, user: bool) -> Key {
        let c = &self.cp15;
        let b = c.bank;
        let sctlr = c.sctlr[b];
        // Long descriptors have no domains, so DACR selects nothing there.
        let dacr = if c.ttbcr[b] & TTBCR_EAE != 0 { 0 } else { c.dacr[b] };
        let (on, strict) = (sctlr & SCTLR_M != 0, sctlr & SCTLR_A != 0);
        Key::new(self.core(), on, b == 1, user, strict, c.asid(b), dacr)
    }

    /// The address translation operations ATS1C* and ATS12NSO* (ARM DDI 0406C B4.2.4): translates `va` with the rights of User or PL1
    /// in the security state of `bank`, and yields the value of PAR, of 64 bits where the regime has long descriptors. The TLB is not
    /// involved.
    pub fn address_translation(&self, ram: &GuestRam, va: u32, access: Access, user: bool, bank: usize) -> u64 {
        let regime = Regime::of(&self.cp15, bank);
        match regime.translate(ram, va, access, user) {
            Ok((leaf, _)) if regime.is_long() => leaf.pa & !0xfff | leaf.attr.long_par_bits() | 1 << 11,
            Err(abort) if regime.is_long() => abort.long_par(),
            other => u64::from(short_par(other.map(|(leaf, _)| leaf))),
        }
    }
}

/// PAR in its 32-bit format (B4.1.112).
fn short_par(result: Result<Leaf, Abort>) -> u32 {
    match result {
        Ok(leaf) if leaf.size == Size::Super => {
            (leaf.pa as u32 & 0xff00_0000) | (leaf.pa >> 32 << 16) as u32 | leaf.attr.par_bits() | 2
        }
        Ok(leaf) => leaf.pa as u32 & !0xfff | leaf.attr.par_bits(),
        Err(abort) => {
            let fsr = abort.dfsr();
            (fsr & 0xf) << 1 | (fsr >> 10 & 1) << 5 | (fsr >> 12 & 1) << 6 | 1
        }
    }
}
