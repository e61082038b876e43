//! What the core sees of the machine around it: guest RAM and the MMIO bus.

/// The instant of an access: how many instructions had retired before the one that makes it, and guest time in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Instructions retired before the accessing one.
    pub icount: u64,
    /// Guest PC of the accessing instruction, for messages.
    pub pc: u32,
    /// The core makes the access in Secure state. (The NS bits of translation tables are not looked at: they matter to memory
    /// that is split between the two states, which no machine here has.)
    pub secure: bool,
}

/// The bus answered with an error: the core takes a synchronous external abort (ARM DDI 0406C B3.12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusFault;

/// What an engine must do after an MMIO access has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct After {
    /// Leave the engine right after the accessing instruction: a line, a deadline or the run state changed.
    pub exit: bool,
    /// Devices wrote to RAM; [`Bus::take_dma_writes`] says where.
    pub wrote: bool,
}

/// Bytes of RAM that were written: (physical address, length), within one page.
pub type RamWrite = (u64, u32);

/// The MMIO bus. Every access that does not hit RAM comes here, in program order, one call an access.
pub trait Bus {
    /// Reads `size` (1, 2, 4 or 8) bytes at physical address `pa`, which is aligned to `size`.
    ///
    /// # Errors
    /// [`BusFault`] where nothing answers.
    fn read(&mut self, at: At, pa: u64, size: u8) -> Result<(u64, After), BusFault>;

    /// Writes the low `size` bytes of `value` at `pa`.
    ///
    /// # Errors
    /// [`BusFault`] where nothing answers.
    fn write(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<After, BusFault>;

    /// Adds to `out` what devices have written to `ram` since this was last asked. Engines ask when they begin to run and when an access says so
    /// ([`After::wrote`]), as they keep translations of code.
    fn take_dma_writes(&mut self, _ram: &GuestRam, _out: &mut Vec<RamWrite>) {}

    /// Guest time in ns when `icount` instructions have retired (the generic timer's counter is read through this).
    fn vtime(&self, icount: u64) -> u64;

    /// The interrupt lines into the core, as the GIC drives them now: (IRQ, FIQ).
    fn lines(&self) -> (bool, bool);
}

/// A second range of physical addresses at which a part of RAM is seen; whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamAlias {
    /// First physical address.
    pub at: u64,
    /// Size in bytes.
    pub size: u64,
    /// The byte of RAM that is seen at its beginning.
    pub offset: u64,
}

/// Guest RAM: one contiguous range of physical addresses backed by one mapping of this process, and aliases of it.
///
/// Whatever is derived from physical addresses (translated code, its protection, exclusive monitors, the log of stores) is derived from those of RAM itself:
/// translation gives no others ([`GuestRam::canonical`]).
///
/// The mapping outlives every use; cpu-proc makes it once and never unmaps it.
#[derive(Debug, Clone, Copy)]
pub struct GuestRam {
    host: *mut u8,
    base: u64,
    size: u64,
    aliases: &'static [RamAlias],
}

impl GuestRam {
    /// Describes RAM of `size` bytes at guest physical `base`, mapped at `host`.
    ///
    /// # Safety
    /// `host` must be valid for reads and writes of `size` bytes for as long as any copy of the value is used, and nothing else in
    /// this process may hold references into it.
    pub unsafe fn new(host: *mut u8, base: u64, size: u64) -> Self {
        assert!(base % 4096 == 0 && size % 4096 == 0 && size > 0, "RAM is whole pages");
        Self { host, base, size, aliases: &[] }
    }

    /// The same RAM with these aliases. They last as long as the process, as RAM does.
    ///
    /// # Panics
    /// If one is not whole pages, shows more than there is of RAM, or lies over RAM.
    #[must_use]
    pub fn with_aliases(mut self, aliases: &[RamAlias]) -> Self {
        for a in aliases {
            assert!((a.at | a.size | a.offset) % 4096 == 0, "an alias of RAM is whole pages");
            assert!(
                a.offset.checked_add(a.size).is_some_and(|end| end <= self.size),
                "an alias shows what is there of RAM"
            );
            assert!(a.at + a.size <= self.base || a.at >= self.base + self.size, "an alias does not lie over RAM");
        }
        self.aliases = Vec::leak(aliases.to_vec());
        self
    }

    /// The aliases.
    pub fn aliases(&self) -> &'static [RamAlias] {
        self.aliases
    }

    /// The address in RAM itself of what is seen at `pa`; `pa` if that is no alias.
    #[inline]
    pub fn canonical(&self, pa: u64) -> u64 {
        let seen = self.aliases.iter().find(|a| pa >= a.at && pa - a.at < a.size);
        seen.map_or(pa, |a| self.base + a.offset + (pa - a.at))
    }

    /// First guest physical address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Host address of the byte at `pa`, if `pa..pa+len` lies in RAM, or in one alias of it.
    #[inline]
    pub fn host(&self, pa: u64, len: u64) -> Option<*mut u8> {
        let pa = match self.aliases.iter().find(|a| pa >= a.at && pa - a.at < a.size) {
            Some(a) if len > a.size - (pa - a.at) => return None,
            Some(a) => self.base + a.offset + (pa - a.at),
            None => pa,
        };
        let off = pa.checked_sub(self.base)?;
        if off < self.size && len <= self.size - off {
            // SAFETY: off..off+len lies inside the mapping that `new` was promised.
            Some(unsafe { self.host.add(off as usize) })
        } else {
            None
        }
    }

    /// Copies bytes out of RAM; `None` if the range leaves RAM.
    pub fn read(&self, pa: u64, out: &mut [u8]) -> Option<()> {
        let p = self.host(pa, out.len() as u64)?;
        // SAFETY: `host` checked the range; `out` is ours and guest RAM is never borrowed.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr(), out.len()) };
        Some(())
    }

    /// Copies bytes into RAM; `None` if the range leaves RAM.
    pub fn write(&self, pa: u64, data: &[u8]) -> Option<()> {
        let p = self.host(pa, data.len() as u64)?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), p, data.len()) };
        Some(())
    }
}
