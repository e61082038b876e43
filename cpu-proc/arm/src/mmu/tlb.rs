//! The TLB: flat sparse tables for each translation context, and exact lists of what is in them.

use super::walk::{Leaf, Rights, Size};
use super::{Access, MemType, Phys};
use crate::bus::GuestRam;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

/// 4 KiB pages in the 32-bit address space.
const PAGES: usize = 1 << 20;
/// 1 MiB regions in it.
const REGIONS: usize = 1 << 12;
/// Contexts that the TLB holds at once, for each core of the machine. Each reserves 28 MiB of address space, of which only what is filled is ever touched.
pub const CONTEXTS: usize = 64;
/// Most cores whose entries one TLB can tell apart.
pub const MAX_CORES: usize = 4;
/// Entries of the first-guess index from key to slot.
const GUESSES: usize = 256;
/// Store paths to one physical page that are listed before stale ones are looked for.
const MAX_WRITERS: usize = 64;
/// `cur` when the current context has no slot (nothing was filled yet, or the MMU is off).
const NONE: usize = usize::MAX;

/// What the fast path reads while the current context has no slot: all zero, never written. Atomics only so that it lies in `.bss`.
static EMPTY: [AtomicU64; TABLE] = [const { AtomicU64::new(0) }; TABLE];

/// Words of a context's fast tables: loads, stores, then half-words for instruction fetches.
const TABLE: usize = 2 * PAGES + PAGES / 2;
/// Bytes from a context's load table to its store table.
pub const WRITE_TABLE: usize = 8 * PAGES;
/// Bytes from a context's load table to its fetch table.
pub const EXEC_TABLE: usize = 16 * PAGES;

/// Whose entries a maintenance operation removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One core's: what the operations without "Inner Shareable" do.
    Core(u8),
    /// Those of every core.
    All,
}

impl Reach {
    fn covers(self, key: Key) -> bool {
        match self {
            Reach::Core(n) => key.core() == n,
            Reach::All => true,
        }
    }
}

/// What translations are tagged with. Everything that can change without the guest invalidating its TLB is in it: core, ASID, privilege, DACR
/// and security state (ARM DDI 0406C B3.9.1, B3.9.3), and SCTLR.A, under which nothing goes into the fast tables. TTBR0/TTBR1 are not:
/// an entry lives, as in the architecture, until the guest invalidates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(core: u8, on: bool, ns: bool, user: bool, strict: bool, asid: u32, dacr: u32) -> Key {
        if !on {
            return Key(0);
        }
        let bits = 1 << 44 | u64::from(strict) << 43 | u64::from(ns) << 42 | u64::from(user) << 41;
        Key(u64::from(core & 3) << 45 | bits | u64::from(asid & 0xff) << 32 | u64::from(dacr))
    }

    fn core(self) -> u8 {
        (self.0 >> 45) as u8 & 3
    }

    fn asid(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff
    }

    fn strict(self) -> bool {
        self.0 >> 43 & 1 != 0
    }

    fn guess(self) -> usize {
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % GUESSES
    }
}

// One TLB entry in a word; 0 is no entry.
const E_PAGE: u64 = (1 << 28) - 1;
const E_R: u64 = 1 << 28;
const E_W: u64 = 1 << 29;
const E_X: u64 = 1 << 30;
const E_VALID: u64 = 1 << 31;
const E_MEM_SHIFT: u32 = 32;
const E_GLOBAL: u64 = 1 << 34;
const E_SIZE_SHIFT: u32 = 35;
const E_SIZE: u64 = 7;
/// An instruction fetch has used the entry, so engines may have derived something from it.
const E_FETCHED: u64 = 1 << 38;

/// What a 1 MiB region of a slot holds, so that a flush can skip most of them.
const HAS_ANY: u8 = 8;
const HAS_GLOBAL: u8 = 1;
const HAS_BIG: u8 = 2;
const HAS_SUPER: u8 = 4;
const HAS_DOUBLE: u8 = 16;
const HAS_GIB: u8 = 32;

/// log2 of the size of what an entry maps.
fn shift_of(entry: u64) -> u32 {
    Size::ALL[(entry >> E_SIZE_SHIFT & E_SIZE) as usize].shift()
}

/// The entry of `page` is part of a mapping that maps `va` too.
fn same_mapping(va: u32, page: u32, entry: u64) -> bool {
    let shift = shift_of(entry);
    u64::from(page) << 12 >> shift == u64::from(va) >> shift
}

#[derive(Debug)]
struct Slot {
    key: Key,
    id: u32,
    used: u64,
    /// The fast tables, one behind the other, so that an engine needs one pointer: host minus virtual address for loads, the same for
    /// stores (0 for the slow path), and for fetches, 32 bits each, the number of the physical page plus 1 (0 if none was made yet).
    table: Box<[u64]>,
    entry: Box<[u64]>,
    region: Box<[u8]>,
    /// Pages that have an entry; some may be stale or twice in it.
    filled: Vec<u32>,
    live: usize,
}

impl Slot {
    fn new(key: Key, id: u32) -> Slot {
        let table = |words| vec![0u64; words].into_boxed_slice();
        Slot {
            key,
            id,
            used: 0,
            table: table(TABLE),
            entry: table(PAGES),
            region: vec![0; REGIONS].into_boxed_slice(),
            filled: Vec::new(),
            live: 0,
        }
    }

    fn set_read(&mut self, page: usize, addend: u64) {
        self.table[page] = addend;
    }

    fn set_write(&mut self, page: usize, addend: u64) {
        self.table[PAGES + page] = addend;
    }

    fn write(&self, page: usize) -> u64 {
        self.table[PAGES + page]
    }

    fn set_exec(&mut self, page: usize, value: u32) {
        let (word, shift) = (2 * PAGES + page / 2, 32 * (page % 2));
        self.table[word] = self.table[word] & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    /// Takes out the entry of `page`; true if an instruction fetch had used it.
    fn drop_page(&mut self, page: usize) -> bool {
        let e = self.entry[page];
        if e == 0 {
            return false;
        }
        self.entry[page] = 0;
        self.set_read(page, 0);
        self.set_write(page, 0);
        self.set_exec(page, 0);
        self.live -= 1;
        e & E_FETCHED != 0
    }

    /// Takes out every entry that `doomed` picks; true if an instruction fetch had used one.
    fn sweep(&mut self, doomed: impl Fn(u64) -> bool) -> bool {
        self.sweep_pages(|_, e| doomed(e))
    }

    /// As [`Slot::sweep`], by page number and entry.
    fn sweep_pages(&mut self, doomed: impl Fn(u32, u64) -> bool) -> bool {
        let mut fetched = false;
        let mut filled = std::mem::take(&mut self.filled);
        filled.retain(|&p| {
            let e = self.entry[p as usize];
            if e != 0 && doomed(p, e) {
                fetched |= self.drop_page(p as usize);
            }
            self.entry[p as usize] != 0
        });
        self.filled = filled;
        if self.live == 0 {
            self.region.fill(0);
        }
        fetched
    }

    /// Removes what maps `va`, whatever its size; global entries always, others if `own`. True if a fetch had used one.
    fn drop_va(&mut self, va: u32, own: bool) -> bool {
        let region = self.region[(va >> 20) as usize];
        if region & if own { HAS_ANY } else { HAS_GLOBAL } == 0 {
            return false;
        }
        let mut fetched = false;
        let page = (va >> 12) as usize;
        if own || self.entry[page] & E_GLOBAL != 0 {
            fetched |= self.drop_page(page);
        }
        if region & HAS_GIB != 0 {
            // Too many pages to look at each: go through the list.
            return fetched | self.sweep_pages(|p, e| same_mapping(va, p, e) && (own || e & E_GLOBAL != 0));
        }
        let shift = match region {
            r if r & HAS_SUPER != 0 => 24,
            r if r & HAS_DOUBLE != 0 => 21,
            r if r & HAS_BIG != 0 => 20,
            _ => return fetched,
        };
        let first = (va >> shift << (shift - 12)) as usize;
        for p in first..first + (1 << (shift - 12)) {
            let e = self.entry[p];
            if e != 0 && same_mapping(va, p as u32, e) && (own || e & E_GLOBAL != 0) {
                fetched |= self.drop_page(p);
            }
        }
        fetched
    }

    fn add(&mut self, va: u32, entry: u64) {
        let page = (va >> 12) as usize;
        if self.entry[page] == 0 {
            if self.filled.len() >= 2 * self.live + 1024 {
                self.compact();
            }
            self.filled.push(page as u32);
            self.live += 1;
        }
        self.entry[page] = entry;
        let region = &mut self.region[(va >> 20) as usize];
        *region |= HAS_ANY;
        if entry & E_GLOBAL != 0 {
            *region |= HAS_GLOBAL;
        }
        let shift = shift_of(entry);
        let flag = match shift {
            12 => return,
            // A section is found from any address inside it: its region has at least this entry.
            16 | 20 => HAS_BIG,
            21 => HAS_DOUBLE,
            24 => HAS_SUPER,
            _ => HAS_GIB,
        };
        let flags = self.region[(va >> 20) as usize] & HAS_GLOBAL | HAS_ANY | flag;
        let span = shift.max(20);
        let first = (va >> span << (span - 20)) as usize;
        self.region[first..first + (1 << (span - 20))].iter_mut().for_each(|r| *r |= flags);
    }

    /// Forgets stale and doubled members of `filled`.
    fn compact(&mut self) {
        let mut filled = std::mem::take(&mut self.filled);
        filled.sort_unstable();
        filled.dedup();
        filled.retain(|&p| self.entry[p as usize] != 0);
        self.filled = filled;
    }
}

/// TLB and code-page protection. Several cores share one, which moves to the core whose turn it is; their entries are told apart by the key. A cache: nothing in it is architectural state that a program could not see change at will
/// of the implementation, but it is a pure function of the instructions executed, so it is the same in every run.
#[repr(C)]
pub struct Mmu {
    /// Tables of the current context, or [`EMPTY`]. First, so that compiled code finds it.
    cur_table: *const u64,
    cur: usize,
    cur_id: u32,
    cur_key: Key,
    next_id: u32,
    clock: u64,
    /// Most slots.
    contexts: usize,
    guess: Box<[u8; GUESSES]>,
    slots: Vec<Slot>,
    /// One bit per physical 4 KiB page that holds translated code.
    code: Vec<u64>,
    /// By physical page: the (slot, virtual page) pairs that may have a store path to it. Never iterated over.
    writers: HashMap<u32, Vec<(u8, u32)>>,
    /// For engines that check others: what was stored to.
    stored: Option<StoreLog>,
}

/// One page of RAM.
pub type PageBytes = [u8; 0x1000];

/// The pages of RAM that were stored to since the log began, each with what it held before.
#[derive(Default)]
struct StoreLog {
    pages: Vec<(u64, Box<PageBytes>)>,
}

// SAFETY: the two pointers lead into boxes that `slots` owns (they move with it, their contents don't) or to a static.
unsafe impl Send for Mmu {}

impl std::fmt::Debug for Mmu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let live: Vec<_> = self.slots.iter().map(|s| s.live).collect();
        f.debug_struct("Mmu").field("cur", &self.cur).field("id", &self.cur_id).field("entries", &live).finish()
    }
}

/// A copy of a core starts with an empty TLB; its code-page protection belongs to the engine of the original.
impl Clone for Mmu {
    fn clone(&self) -> Self {
        let mut mmu = Mmu::new();
        mmu.next_id = self.next_id;
        mmu.contexts = self.contexts;
        mmu.select(self.cur_key);
        mmu
    }
}

impl Mmu {
    /// An empty TLB.
    pub(crate) fn new() -> Mmu {
        Mmu {
            cur_table: EMPTY.as_ptr().cast(),
            cur: NONE,
            cur_id: 0,
            cur_key: Key(0),
            next_id: 1,
            clock: 0,
            contexts: CONTEXTS,
            guess: Box::new([0; GUESSES]),
            slots: Vec::new(),
            code: Vec::new(),
            writers: HashMap::new(),
            stored: None,
        }
    }

    /// Makes room for the contexts of so many cores.
    ///
    /// # Panics
    /// If there are none or more than [`MAX_CORES`].
    pub fn set_cores(&mut self, cores: usize) {
        assert!((1..=MAX_CORES).contains(&cores), "a TLB serves 1 to {MAX_CORES} cores");
        self.contexts = CONTEXTS * cores;
    }

    /// Reserves the address space of every context now, for a process that will not be allowed to map memory later.
    pub fn preallocate(&mut self) {
        while self.slots.len() < self.contexts {
            let id = self.fresh_id();
            self.slots.push(Slot::new(Key(u64::MAX), id));
        }
    }

    /// Fast path: host address minus virtual address of `va`'s 4 KiB page if loads from all of it may go straight to host memory at any
    /// alignment; 0 means the slow path, [`crate::state::Cpu::translate`].
    #[inline]
    pub fn read_addend(&self, va: u32) -> u64 {
        // SAFETY: `cur_table` leads to `TABLE` words that live as long as self; va >> 12 is less than 2^20.
        unsafe { *self.cur_table.add((va >> 12) as usize) }
    }

    /// As [`Mmu::read_addend`], for stores.
    #[inline]
    pub fn write_addend(&self, va: u32) -> u64 {
        // SAFETY: as in `read_addend`.
        unsafe { *self.cur_table.add(PAGES + (va >> 12) as usize) }
    }

    /// The current fast tables, loads and stores, of 2^20 words each; they change with every switch of context.
    #[inline]
    pub fn fast_tables(&self) -> (*const u64, *const u64) {
        // SAFETY: the store table follows the load table in the same allocation.
        (self.cur_table, unsafe { self.cur_table.add(PAGES) })
    }

    /// Number of the physical page, plus 1, from which the current context may fetch instructions at `va`; 0 if no fetch has asked yet.
    #[inline]
    pub fn exec_page(&self, va: u32) -> u32 {
        // SAFETY: as in `read_addend`; the fetch table begins behind the two others and has 2^20 half-words.
        unsafe { *self.cur_table.add(2 * PAGES).cast::<u32>().add((va >> 12) as usize) }
    }

    /// Key for whatever an engine derives from virtual addresses of instructions. Two equal ids mean that every exec translation seen
    /// under the id still holds; the id of an address space comes back with it unless something was invalidated meanwhile.
    #[inline]
    pub fn context_id(&self) -> u32 {
        self.cur_id
    }

    fn fresh_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).expect("fewer than 2^32 translation contexts in one run");
        id
    }

    fn find(&mut self, key: Key) -> usize {
        let guess = usize::from(self.guess[key.guess()]);
        if self.slots.get(guess).is_some_and(|s| s.key == key) {
            return guess;
        }
        match self.slots.iter().position(|s| s.key == key) {
            Some(i) => {
                self.guess[key.guess()] = i as u8;
                i
            }
            None => NONE,
        }
    }

    /// Makes the context of `key` current. No table is made before something is to be filled in.
    #[inline]
    pub(crate) fn select(&mut self, key: Key) {
        if key == self.cur_key {
            return;
        }
        self.cur_key = key;
        self.cur = if key == Key(0) { NONE } else { self.find(key) };
        self.clock += 1;
        if self.cur != NONE {
            self.slots[self.cur].used = self.clock;
        } else if key != Key(0) {
            self.cur_id = self.fresh_id();
        }
        self.load_current();
    }

    /// Points the fast path at the current slot.
    fn load_current(&mut self) {
        match self.slots.get(self.cur) {
            Some(s) => {
                self.cur_table = s.table.as_ptr();
                self.cur_id = s.id;
            }
            None => {
                self.cur_table = EMPTY.as_ptr().cast();
                if self.cur_key == Key(0) {
                    // MMU off: the identity map never goes stale.
                    self.cur_id = 0;
                }
            }
        }
    }

    /// The slot for `key`, made if need be: a fresh one, or the least recently used one, flushed.
    fn slot_for(&mut self, key: Key) -> usize {
        let found = if key == self.cur_key { self.cur } else { self.find(key) };
        if found != NONE {
            return found;
        }
        let id = if key == self.cur_key { self.cur_id } else { self.fresh_id() };
        let i = match self.slots.iter().position(|s| s.key == Key(u64::MAX)) {
            Some(free) => free,
            None if self.slots.len() < self.contexts => {
                self.slots.push(Slot::new(key, id));
                self.slots.len() - 1
            }
            None => self.evict(),
        };
        self.clock += 1;
        let slot = &mut self.slots[i];
        slot.key = key;
        slot.id = id;
        slot.used = self.clock;
        if key == self.cur_key {
            self.cur = i;
            self.load_current();
        }
        i
    }

    fn evict(&mut self) -> usize {
        let cur = self.cur;
        let (i, slot) = self
            .slots
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| *i != cur)
            .min_by_key(|(_, s)| s.used)
            .expect("more than one context");
        slot.sweep(|_| true);
        i
    }

    /// What the TLB says about an access: `Some` if it holds an entry that allows it.
    #[inline]
    pub(crate) fn lookup(&mut self, ram: &GuestRam, key: Key, va: u32, access: Access) -> Option<Phys> {
        let i = if key == self.cur_key { self.cur } else { self.find(key) };
        let slot = self.slots.get_mut(i)?;
        let page = (va >> 12) as usize;
        let e = slot.entry[page];
        let need = match access {
            Access::Read => E_R,
            Access::Write => E_W,
            Access::Exec => E_X,
        };
        if e & need == 0 {
            return None;
        }
        if access == Access::Exec {
            slot.entry[page] = e | E_FETCHED;
        }
        Some(self.use_entry(ram, i, va, e, access))
    }

    /// Puts a translation into the TLB and serves the access with it.
    pub(crate) fn fill(
        &mut self,
        ram: &GuestRam,
        key: Key,
        va: u32,
        access: Access,
        leaf: &Leaf,
        rights: Rights,
    ) -> Phys {
        let i = self.slot_for(key);
        let mem = match leaf.attr.mem {
            MemType::StronglyOrdered => 0,
            MemType::Device => 1,
            MemType::Normal => 2,
        };
        let flag = |on, bit| if on { bit } else { 0 };
        let old = self.slots[i].entry[(va >> 12) as usize];
        let e = ram.canonical(leaf.pa) >> 12 & E_PAGE
            | flag(rights.r, E_R)
            | flag(rights.w, E_W)
            | flag(rights.x, E_X)
            | E_VALID
            | mem << E_MEM_SHIFT
            | flag(leaf.global, E_GLOBAL)
            | (leaf.size as u64) << E_SIZE_SHIFT
            | flag(access == Access::Exec, E_FETCHED);
        if old != 0 && old & E_FETCHED != 0 && old & (E_PAGE | E_X) != e & (E_PAGE | E_X) {
            // The guest changed a live mapping and a walk noticed: whatever was derived from the old one is stale.
            self.slots[i].drop_page((va >> 12) as usize);
            self.renew(i);
        }
        let slot = &mut self.slots[i];
        slot.set_read((va >> 12) as usize, 0);
        slot.set_write((va >> 12) as usize, 0);
        slot.set_exec((va >> 12) as usize, 0);
        slot.add(va, e | slot.entry[(va >> 12) as usize] & E_FETCHED);
        self.use_entry(ram, i, va, e, access)
    }

    /// Serves an access with a TLB entry that allows it, and opens the fast path for the next one.
    fn use_entry(&mut self, ram: &GuestRam, i: usize, va: u32, e: u64, access: Access) -> Phys {
        let pa = (e & E_PAGE) << 12 | u64::from(va & 0xfff);
        let mem = match e >> E_MEM_SHIFT & 3 {
            0 => MemType::StronglyOrdered,
            1 => MemType::Device,
            _ => MemType::Normal,
        };
        let code = access == Access::Write && self.is_code_page(pa);
        let host = ram.host(pa, 1).unwrap_or(std::ptr::null_mut());
        let slot = &mut self.slots[i];
        if access == Access::Exec && !host.is_null() {
            slot.set_exec((va >> 12) as usize, (e & E_PAGE) as u32 + 1);
        }
        if !host.is_null() && mem == MemType::Normal && !slot.key.strict() {
            let addend = (host as u64).wrapping_sub(u64::from(va));
            match access {
                Access::Write if !code => {
                    slot.set_write((va >> 12) as usize, addend);
                    self.note_writer(i, va >> 12, (pa >> 12) as u32);
                }
                Access::Read => slot.set_read((va >> 12) as usize, addend),
                _ => {}
            }
        }
        Phys { pa, host, mem, code }
    }

    // ---- maintenance (ARM DDI 0406C B3.10) ----------------------------------------------------------------------------------------

    /// Gives slot `i` a new id.
    fn renew(&mut self, i: usize) {
        let id = self.fresh_id();
        self.slots[i].id = id;
        if i == self.cur {
            self.cur_id = id;
        }
    }

    /// TLBIALL: everything.
    pub fn flush_all(&mut self, reach: Reach) {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            if slot.live > 0 && reach.covers(slot.key) && slot.sweep(|_| true) {
                self.renew(i);
            }
        }
    }

    /// TLBIASID: entries of one ASID that are not global.
    pub fn flush_asid(&mut self, reach: Reach, asid: u32) {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            let hit = slot.live > 0 && reach.covers(slot.key) && slot.key.asid() == asid & 0xff;
            if hit && slot.sweep(|e| e & E_GLOBAL == 0) {
                self.renew(i);
            }
        }
    }

    /// TLBIMVA: what maps `va` for one ASID, and global entries that map it.
    pub fn flush_va(&mut self, reach: Reach, va: u32, asid: u32) {
        self.flush_va_where(reach, va, |key| key.asid() == asid & 0xff);
    }

    /// TLBIMVAA: what maps `va`, for all ASIDs.
    pub fn flush_va_all(&mut self, reach: Reach, va: u32) {
        self.flush_va_where(reach, va, |_| true);
    }

    fn flush_va_where(&mut self, reach: Reach, va: u32, own: impl Fn(Key) -> bool) {
        for i in 0..self.slots.len() {
            let slot = &mut self.slots[i];
            let own = own(slot.key);
            if slot.live > 0 && reach.covers(slot.key) && slot.drop_va(va, own) {
                self.renew(i);
            }
        }
    }

    // ---- pages with translated code -------------------------------------------------------------------------------------------------

    pub(crate) fn is_code_page(&self, pa: u64) -> bool {
        let page = (pa >> 12) as usize;
        self.code.get(page / 64).is_some_and(|w| w >> (page % 64) & 1 != 0)
    }

    /// Takes write access to the physical page of `pa` out of every fast table and keeps it out: it holds translated code. Stores to it
    /// take the slow path, which says so in [`Phys::code`].
    pub fn protect_code_page(&mut self, pa: u64) {
        assert!(pa < 1 << 40, "a physical address has 40 bits");
        if self.is_code_page(pa) {
            return;
        }
        let page = (pa >> 12) as usize;
        if self.code.len() <= page / 64 {
            self.code.resize(page / 64 + 1, 0);
        }
        self.code[page / 64] |= 1 << (page % 64);
        self.drop_writers(page as u32);
    }

    /// Takes every store path to physical page `page` away.
    fn drop_writers(&mut self, page: u32) {
        for (i, p) in self.writers.remove(&page).unwrap_or_default() {
            let slot = &mut self.slots[usize::from(i)];
            if slot.entry[p as usize] & E_PAGE == u64::from(page) {
                slot.set_write(p as usize, 0);
            }
        }
    }

    /// Remembers that slot `i` has a store path from virtual page `from` to physical page `to`.
    fn note_writer(&mut self, i: usize, from: u32, to: u32) {
        let list = self.writers.entry(to).or_default();
        if list.contains(&(i as u8, from)) {
            return;
        }
        if list.len() >= MAX_WRITERS {
            let slots = &self.slots;
            list.retain(|&(i, p)| {
                let slot = &slots[usize::from(i)];
                slot.write(p as usize) != 0 && slot.entry[p as usize] & E_PAGE == u64::from(to)
            });
        }
        list.push((i as u8, from));
    }

    /// The page of `pa` holds no translated code any more.
    pub fn unprotect_code_page(&mut self, pa: u64) {
        let page = (pa >> 12) as usize;
        if let Some(w) = self.code.get_mut(page / 64) {
            *w &= !(1 << (page % 64));
        }
    }

    // ---- what was stored to ---------------------------------------------------------------------------------------------------------

    /// Begins a log of the RAM pages that are stored to, or begins it anew: from here on the first store to a page goes through
    /// [`crate::state::Cpu::translate`], which notes the page and keeps a copy of it. For engines that compare or undo; what the guest sees is
    /// the same.
    pub fn log_stores(&mut self) {
        match self.stored.take() {
            Some(log) => log.pages.iter().for_each(|(pa, _)| self.drop_writers((pa >> 12) as u32)),
            None => self.slots.iter_mut().for_each(|s| s.table[PAGES..2 * PAGES].fill(0)),
        }
        self.stored = Some(StoreLog::default());
    }

    /// The physical page addresses stored to since [`Mmu::log_stores`], each with what the page held then. More may be listed than was
    /// written, never less.
    pub fn stored_pages(&self) -> &[(u64, Box<PageBytes>)] {
        self.stored.as_ref().map_or(&[], |log| &log.pages)
    }

    /// Notes that a store to `p`, a translation for [`Access::Write`], may follow.
    #[inline]
    pub(crate) fn note_store(&mut self, p: &Phys) {
        if let Some(log) = &mut self.stored {
            let pa = p.pa & !0xfff;
            if p.host.is_null() || log.pages.iter().any(|(known, _)| *known == pa) {
                return;
            }
            let mut copy = Box::new([0; 0x1000]);
            // SAFETY: `Phys::host` lies in a whole page of guest RAM, which is only ever copied.
            unsafe {
                let start = p.host.sub((p.pa & 0xfff) as usize);
                std::ptr::copy_nonoverlapping(start, copy.as_mut_ptr(), 0x1000);
            }
            log.pages.push((pa, copy));
        }
    }

    /// Unprotects every page: the engine has thrown all translated code away.
    pub fn unprotect_all(&mut self) {
        self.code.clear();
    }

    /// Entries that are filled now, over all contexts (for statistics and tests).
    pub fn entries(&self) -> usize {
        self.slots.iter().map(|s| s.live).sum()
    }
}

const _: () = assert!(Size::ALL.len() <= E_SIZE as usize + 1 && CONTEXTS * MAX_CORES <= GUESSES);
