//! Translated blocks: where they are found, what links them, and what throws them away. Shared by the engines.

use crate::lower::{XUop, lower};
use reprise_arm::bus::{Bus, GuestRam, RamWrite};
use reprise_arm::decode::is_wide;
use reprise_arm::ir::{Block, MAX_INSNS};
use reprise_arm::mmu::{Abort, Access, View};
use reprise_arm::state::Cpu;
use reprise_arm::translate::{BlockMode, translate};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

/// Entries of the jump cache.
const JUMPS: usize = 1 << 14;
/// Blocks after which everything is thrown away and built anew: bounds the memory of the cache.
const MAX_BLOCKS: usize = 128 << 10;
/// Stores beside the code of a page after which its blocks are dropped, so that the page can be written at full speed again. Doubles each time.
const FIRST_PATIENCE: u32 = 256;

/// A way out of a block.
pub struct Exit {
    /// The block there, once it has been found in the same page (the interpreter's link).
    pub(crate) to: Cell<Option<CodePtr>>,
    /// Its virtual address.
    pub target: u32,
}

/// What an engine that compiles to host code keeps with a block.
#[derive(Default)]
pub struct Native {
    /// How often the block was interpreted.
    pub heat: Cell<u32>,
    /// It can't be compiled.
    pub hopeless: Cell<bool>,
    /// Numbers of the engine's compiled forms of it; the first one can be entered from anywhere.
    pub bodies: RefCell<Vec<u32>>,
}

/// A block ready to run.
pub struct Code {
    pub(crate) uops: Box<[XUop]>,
    /// Instructions.
    pub n: i64,
    /// Known ways out.
    pub exits: [Exit; 2],
    /// The micro-ops and where they come from.
    pub block: Block,
    /// What a compiling engine knows of it.
    pub native: Native,
    /// Thrown away: it may still be running, but nothing finds it any more.
    dead: Cell<bool>,
    /// May be linked and put in the jump cache: it lies in one page and is in the cache.
    linkable: bool,
    key: Key,
}

impl Code {
    /// Number of the physical page that holds the block.
    pub fn page(&self) -> u32 {
        (self.key.pa >> 12) as u32
    }

    /// The packed [`BlockMode`] that the block was made for.
    pub fn mode(&self) -> u32 {
        self.key.mode
    }

    /// It can be entered from anywhere that its page and mode are checked: it lies in one page and nothing has thrown it away.
    pub fn is_linkable(&self) -> bool {
        self.linkable && !self.dead.get()
    }
}

/// A block of the cache. It stays valid until the cache frees its graveyard, which happens between runs only.
pub type CodePtr = NonNull<Code>;

/// What identifies a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pa: u64,
    /// Physical address of the second half of a first instruction that crosses the page, else 0.
    pa2: u64,
    va: u32,
    mode: u32,
}

#[derive(Clone, Copy)]
struct Jump {
    pc: u32,
    key: u64,
    code: Option<CodePtr>,
}

const NO_JUMP: Jump = Jump { pc: 0, key: 0, code: None };

/// What is known of a physical page with code in it.
#[derive(Default)]
struct Page {
    codes: Vec<CodePtr>,
    /// Which 64-byte pieces hold code.
    granules: u64,
    /// Stores beside the code since the last block was made.
    writes: u32,
    patience: u32,
}

/// A fast hash for keys that are no attack surface: collisions only cost time.
#[derive(Default)]
pub(crate) struct FastHash(u64);

impl Hasher for FastHash {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u32(&mut self, v: u32) {
        self.write_u64(v.into());
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(5) ^ v).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<FastHash>>;

/// Where a block came from.
pub enum Fetch {
    /// From the cache.
    Cached(CodePtr),
    /// Its first instruction crosses a page: it is looked up through both pages each time.
    Straddles(CodePtr),
}

/// The block cache.
pub struct Cache {
    map: Map<Key, CodePtr>,
    pages: Map<u64, Page>,
    /// The jump cache of the core that runs.
    jumps: Box<[Jump]>,
    core: usize,
    /// Those of the other cores, by number: they run the same code in contexts of their own and would only throw each other's entries out.
    others: Vec<Box<[Jump]>>,
    grave: Vec<CodePtr>,
    /// How much of the graveyard the engine has seen.
    seen: usize,
    live: usize,
    /// Everything must go before the next run.
    stale: bool,
    /// Empty; kept for its memory.
    writes: Vec<RamWrite>,
    /// Blocks made since the start.
    pub(crate) made: u64,
}

// SAFETY: the pointers lead to blocks that the cache owns; it moves between threads as a whole.
unsafe impl Send for Cache {}

impl Default for Cache {
    fn default() -> Self {
        Self {
            map: Map::default(),
            pages: Map::default(),
            jumps: vec![NO_JUMP; JUMPS].into_boxed_slice(),
            core: 0,
            others: Vec::new(),
            grave: Vec::new(),
            seen: 0,
            live: 0,
            stale: true,
            writes: Vec::new(),
            made: 0,
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.drop_all();
        self.bury();
    }
}

/// Slot of the jump cache for an address.
#[inline(always)]
fn jump_slot(pc: u32) -> usize {
    ((pc >> 1) ^ (pc >> 15)) as usize & (JUMPS - 1)
}

/// The jump cache's key: translation context and block mode.
#[inline(always)]
pub(crate) fn jump_key(context: u32, mode: u32) -> u64 {
    u64::from(context) << 32 | u64::from(mode)
}

impl Cache {
    /// Called when no block is running: frees what was thrown away, and starts anew if asked to. True if everything went.
    pub fn adopt(&mut self, cpu: &mut Cpu) -> bool {
        let all = self.stale || self.live > MAX_BLOCKS;
        if all {
            self.drop_all();
            cpu.mmu.unprotect_all();
            self.stale = false;
        }
        self.bury();
        if self.core != usize::from(cpu.core()) {
            self.turn_to(cpu.core().into());
        }
        all
    }

    /// Brings the jump cache of another core.
    fn turn_to(&mut self, core: usize) {
        while self.others.len() <= core.max(self.core) {
            self.others.push(Box::default());
        }
        std::mem::swap(&mut self.jumps, &mut self.others[self.core]);
        std::mem::swap(&mut self.jumps, &mut self.others[core]);
        if self.jumps.is_empty() {
            self.jumps = vec![NO_JUMP; JUMPS].into_boxed_slice();
        }
        self.core = core;
    }

    /// The next block that was thrown away since the last call of [`Self::adopt`], each once.
    pub fn next_dead(&mut self) -> Option<CodePtr> {
        let c = self.grave.get(self.seen).copied();
        self.seen += usize::from(c.is_some());
        c
    }

    /// Blocks made since the start.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Forgets everything at the next [`Self::adopt`].
    pub fn flush(&mut self) {
        self.stale = true;
    }

    fn drop_all(&mut self) {
        self.jumps.fill(NO_JUMP);
        self.others.clear();
        self.grave.extend(self.map.drain().map(|(_, c)| c));
        self.pages.clear();
        self.live = 0;
    }

    fn bury(&mut self) {
        self.seen = 0;
        for c in self.grave.drain(..) {
            // SAFETY: made by Box::leak in `insert`, taken out of every table when it went to the graveyard, and no block runs now.
            drop(unsafe { Box::from_raw(c.as_ptr()) });
        }
    }

    /// The block at `pc` if the jump cache knows it.
    #[inline(always)]
    pub(crate) fn jump(&self, pc: u32, key: u64) -> Option<CodePtr> {
        // SAFETY: `jump_slot` is below the length.
        let j = unsafe { self.jumps.get_unchecked(jump_slot(pc)) };
        if j.pc == pc && j.key == key { j.code } else { None }
    }

    /// Finds or makes the block at the CPU's PC.
    ///
    /// # Errors
    /// The prefetch abort to take.
    pub fn find(&mut self, cpu: &mut Cpu, ram: &GuestRam) -> Result<Fetch, Abort> {
        let (pc, mode) = (cpu.regs[15], BlockMode::of(cpu));
        let jkey = jump_key(cpu.mmu.context_id(), mode.pack());
        if let Some(c) = self.jump(pc, jkey) {
            return Ok(Fetch::Cached(c));
        }
        let (bytes, key) = fetch(cpu, ram, pc, mode)?;
        let code = match self.map.get(&key) {
            Some(c) => *c,
            None => self.insert(cpu, make(mode, bytes.all(), key, MAX_INSNS)),
        };
        if key.pa2 != 0 {
            return Ok(Fetch::Straddles(code));
        }
        // The context's id may have been renewed by the fetch.
        let jkey = jump_key(cpu.mmu.context_id(), mode.pack());
        self.jumps[jump_slot(pc)] = Jump { pc, key: jkey, code: Some(code) };
        Ok(Fetch::Cached(code))
    }

    /// A block of at most `max` instructions at the CPU's PC, outside the cache.
    ///
    /// # Errors
    /// The prefetch abort to take.
    pub(crate) fn make_short(&mut self, cpu: &mut Cpu, ram: &GuestRam, max: usize) -> Result<Box<Code>, Abort> {
        let (pc, mode) = (cpu.regs[15], BlockMode::of(cpu));
        let (bytes, key) = fetch(cpu, ram, pc, mode)?;
        let mut code = make(mode, bytes.all(), key, max);
        code.linkable = false;
        Ok(code)
    }

    fn insert(&mut self, cpu: &mut Cpu, code: Box<Code>) -> CodePtr {
        let key = code.key;
        let (len, first) = (u64::from(code.block.len), key.pa);
        let code = NonNull::from(Box::leak(code));
        self.map.insert(key, code);
        self.live += 1;
        self.made += 1;
        // A straddling block is one instruction: two bytes at the end of a page, two at the start of another.
        let pieces = if key.pa2 == 0 { [(first, len), (0, 0)] } else { [(first, 2), (key.pa2, 2)] };
        for (pa, len) in pieces.into_iter().filter(|p| p.1 != 0) {
            cpu.mmu.protect_code_page(pa);
            let page =
                self.pages.entry(pa >> 12).or_insert_with(|| Page { patience: FIRST_PATIENCE, ..Page::default() });
            page.codes.push(code);
            page.granules |= granules(pa, len);
            page.writes = 0;
        }
        code
    }

    /// Joins exit `slot` of `from` to `to` if both lie in one page: the translation that holds for one holds for the other.
    pub(crate) fn link(&self, from: CodePtr, slot: usize, to: CodePtr) {
        // SAFETY: both are blocks of the cache, or `from` is a short one that still lives; the graveyard keeps dead ones until the run ends.
        let (f, t) = unsafe { (from.as_ref(), to.as_ref()) };
        let same =
            f.key.pa >> 12 == t.key.pa >> 12 && f.key.va >> 12 == t.key.va >> 12 && f.key.mode >> 8 == t.key.mode >> 8;
        if same && f.linkable && t.linkable && !f.dead.get() && !t.dead.get() && f.exits[slot].target == t.block.pc {
            f.exits[slot].to.set(Some(to));
        }
    }

    /// Before a run: throws away what devices have overwritten since the last one.
    pub fn take_dma_writes(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus) {
        let mut writes = std::mem::take(&mut self.writes);
        bus.take_dma_writes(ram, &mut writes);
        if !writes.is_empty() {
            self.written(cpu, &mut writes);
        }
        self.writes = writes;
    }

    /// RAM was written where code may be: throws away what is overlapped. True if anything was.
    pub(crate) fn written(&mut self, cpu: &mut Cpu, writes: &mut Vec<RamWrite>) -> bool {
        let mut any = false;
        for (pa, len) in writes.drain(..) {
            any |= self.written_one(cpu, pa, len.into());
        }
        any
    }

    fn written_one(&mut self, cpu: &mut Cpu, pa: u64, len: u64) -> bool {
        let Some(page) = self.pages.get_mut(&(pa >> 12)) else {
            cpu.mmu.unprotect_code_page(pa);
            return false;
        };
        page.writes += 1;
        let tired = page.writes >= page.patience;
        if !tired && page.granules & granules(pa, len) == 0 {
            return false;
        }
        let hit = |c: &CodePtr| {
            // SAFETY: blocks in a page's list live.
            let c = unsafe { c.as_ref() };
            tired || c.key.pa2 != 0 || pa < c.key.pa + u64::from(c.block.len) && c.key.pa < pa + len
        };
        let (gone, kept): (Vec<CodePtr>, Vec<CodePtr>) = page.codes.drain(..).partition(hit);
        page.codes = kept;
        page.granules = 0;
        for c in &page.codes {
            // SAFETY: as above.
            let c = unsafe { c.as_ref() };
            page.granules |= granules(c.key.pa, c.block.len.into());
            for e in &c.exits {
                if e.to.get().is_some_and(|t| gone.contains(&t)) {
                    e.to.set(None);
                }
            }
        }
        if tired {
            page.writes = 0;
            page.patience = page.patience.saturating_mul(2);
        }
        if page.codes.is_empty() {
            cpu.mmu.unprotect_code_page(pa);
        }
        let any = !gone.is_empty();
        self.kill(gone);
        any
    }

    /// Takes blocks out of every table.
    fn kill(&mut self, gone: Vec<CodePtr>) {
        for c in gone {
            // SAFETY: it lived until now and goes to the graveyard, which keeps it.
            let code = unsafe { c.as_ref() };
            if code.dead.replace(true) {
                continue;
            }
            for e in &code.exits {
                e.to.set(None);
            }
            self.map.remove(&code.key);
            let slot = jump_slot(code.block.pc);
            for jumps in self.others.iter_mut().chain([&mut self.jumps]) {
                if let Some(j) = jumps.get_mut(slot).filter(|j| j.code == Some(c)) {
                    *j = NO_JUMP;
                }
            }
            if code.key.pa2 != 0 {
                for pa in [code.key.pa, code.key.pa2] {
                    if let Some(p) = self.pages.get_mut(&(pa >> 12)) {
                        p.codes.retain(|x| *x != c);
                    }
                }
            }
            self.live -= 1;
            self.grave.push(c);
        }
    }
}

/// The 64-byte pieces of its page that `len` bytes at `pa` touch.
fn granules(pa: u64, len: u64) -> u64 {
    let (first, last) = ((pa & 0xfff) >> 6, ((pa & 0xfff) + len.max(1) - 1).min(0xfff) >> 6);
    (u64::MAX >> (63 - (last - first))) << first
}

/// Instruction bytes of one block.
struct Bytes {
    bytes: [u8; 4 * MAX_INSNS],
    len: usize,
}

impl Bytes {
    fn all(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads the instruction bytes at `pc`, up to the end of the page or of the longest block.
fn fetch(cpu: &mut Cpu, ram: &GuestRam, pc: u32, mode: BlockMode) -> Result<(Bytes, Key), Abort> {
    let phys = cpu.translate(ram, pc, Access::Exec, View::Current)?;
    if phys.host.is_null() {
        return Err(Abort::external(pc, false));
    }
    let len = (0x1000 - (pc as usize & 0xfff)).min(4 * MAX_INSNS);
    let mut bytes = Bytes { bytes: [0; 4 * MAX_INSNS], len };
    // SAFETY: `host` is valid to the end of its page, and `len` fits; guest RAM is copied, never borrowed.
    unsafe { std::ptr::copy_nonoverlapping(phys.host, bytes.bytes.as_mut_ptr(), len) };
    let mut key = Key { pa: phys.pa, pa2: 0, va: pc, mode: mode.pack() };
    if mode.thumb && len == 2 && is_wide(u16::from_le_bytes([bytes.bytes[0], bytes.bytes[1]])) {
        let second = pc.wrapping_add(2);
        let p2 = cpu.translate(ram, second, Access::Exec, View::Current)?;
        if p2.host.is_null() {
            return Err(Abort::external(second, false));
        }
        bytes.len = 4;
        // SAFETY: as above; two bytes at the start of a page.
        unsafe { std::ptr::copy_nonoverlapping(p2.host, bytes.bytes[2..].as_mut_ptr(), 2) };
        key.pa2 = p2.pa;
    }
    Ok((bytes, key))
}

fn make(mode: BlockMode, bytes: &[u8], key: Key, max: usize) -> Box<Code> {
    let block = translate(mode, key.va, bytes, max).expect("at least one whole instruction was fetched");
    let uops = lower(&block);
    let exit = |i: usize| Exit { to: Cell::new(None), target: block.exits[i].unwrap_or(0) };
    Box::new(Code {
        uops,
        n: block.insns.len() as i64,
        exits: [exit(0), exit(1)],
        dead: Cell::new(false),
        linkable: key.pa2 == 0,
        key,
        block,
        native: Native::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_cover_what_is_touched() {
        assert_eq!(granules(0x1000, 4), 1);
        assert_eq!(granules(0x103c, 8), 3);
        assert_eq!(granules(0x1fff, 1), 1 << 63);
        assert_eq!(granules(0x1000, 0x1000), u64::MAX);
        assert_eq!(granules(0x1fc0, 0x100), 1 << 63, "ends at the page");
    }

    #[test]
    fn neighbouring_addresses_have_jump_slots_of_their_own() {
        let slots: std::collections::HashSet<usize> = (0..4096).map(|i| jump_slot(0xc010_0000 + 4 * i)).collect();
        assert_eq!(slots.len(), 4096);
        assert!(slots.iter().all(|s| *s < JUMPS));
    }
}
