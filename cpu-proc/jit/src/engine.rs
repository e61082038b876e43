//! The engine: from one block to the next.

use crate::emit::Features;
use crate::lower::{Context, compile};
use crate::memory::{CodeMemory, MemoryError};
use crate::runtime::Frame;
use crate::thunks::{BUDGET, EVENT, EXIT0, JUMPS, LOOKUP, Thunks};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::state::Cpu;
use reprise_arm::translate::BlockMode;
use reprise_interp::cache::{Cache, Code, CodePtr, Fetch};
use reprise_interp::exec::{Next, Run};
use std::ptr::NonNull;

/// Bytes of code memory.
const CODE_BYTES: usize = 96 << 20;
/// How often a block is interpreted before it is compiled.
const THRESHOLD: u32 = 24;
/// Most host bytes that a block can take.
const BLOCK_BYTES: usize = 256 << 10;

/// An entry of the table of jump targets, as compiled code reads it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Jump {
    /// Address, T in bit 0.
    pc: u32,
    /// Physical page + 1, the mode's number in bits 31:28.
    page: u32,
    entry: u64,
}

/// The address is odd in the ARM state that it names, so nothing jumps to it.
const NO_JUMP: Jump = Jump { pc: 2, page: 0, entry: 0 };

/// What the engine has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks translated to micro-ops.
    pub translated: u64,
    /// Blocks compiled.
    pub compiled: u64,
    /// Bytes of host code in memory.
    pub code_bytes: u64,
    /// Times that everything was thrown away.
    pub flushes: u64,
    /// Ways in to compiled code.
    pub entries: u64,
}

/// The engine. It holds code and nothing that a guest could see.
pub struct Jit {
    cache: Cache,
    x: Compiler,
}

/// All but the cache, which a run borrows.
struct Compiler {
    memory: CodeMemory,
    thunks: Thunks,
    jumps: Box<[Jump]>,
    /// The packed modes that have numbers.
    modes: Vec<u32>,
    features: Features,
    threshold: u32,
    start: u32,
    /// Throw everything away at the next opportunity.
    full: bool,
    stats: Stats,
    perf: Option<crate::perf::PerfMap>,
}

/// Where the loop goes on.
enum Way {
    /// Look up the PC; link this exit to what is found.
    Find(Option<(CodePtr, usize)>),
    /// Something happened.
    Event,
    /// A block did not fit into the budget.
    Budget,
}

impl Jit {
    /// An engine with empty caches.
    ///
    /// # Errors
    /// The host gives no memory for code.
    pub fn new() -> Result<Self, MemoryError> {
        Self::with(Features::detect(), THRESHOLD)
    }

    /// An engine that uses only `features` and compiles a block when it has been interpreted `threshold` times.
    ///
    /// # Errors
    /// As for [`Jit::new`].
    pub fn with(features: Features, threshold: u32) -> Result<Self, MemoryError> {
        let mut memory = CodeMemory::new(CODE_BYTES)?;
        let thunks = Thunks::emit(&mut memory);
        let start = memory.offset();
        let x = Compiler {
            memory,
            thunks,
            jumps: vec![NO_JUMP; JUMPS].into_boxed_slice(),
            modes: Vec::new(),
            features,
            threshold,
            start,
            full: false,
            stats: Stats::default(),
            perf: None,
        };
        Ok(Self { cache: Cache::default(), x })
    }

    /// Writes a map of compiled blocks for `perf` to its usual place, `/tmp/perf-PID.map`.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn map_for_perf(&mut self) -> std::io::Result<()> {
        self.x.perf = Some(crate::perf::PerfMap::new()?);
        Ok(())
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        Stats { translated: self.cache.made(), code_bytes: self.x.memory.used() as u64, ..self.x.stats }
    }
}

impl Engine for Jit {
    fn name(&self) -> &'static str {
        "jit"
    }

    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        self.x.collect(&mut self.cache);
        if self.cache.adopt(cpu) {
            self.x.reset();
        }
        let (start, soft) = (cpu.icount, budget.enough < budget.limit);
        let end = cpu.icount + budget.limit.min(budget.enough).min(1 << 56);
        let run = Run::new(&mut self.cache, cpu, ram, bus, end);
        let mut frame = Frame { run, next: Next::Event };
        self.x.drive(&mut frame, start, soft)
    }

    fn flush(&mut self) {
        self.cache.flush();
    }
}

impl Compiler {
    /// The cache has thrown every block away.
    fn reset(&mut self) {
        self.memory.truncate(self.start);
        self.jumps.fill(NO_JUMP);
        self.modes.clear();
        self.full = false;
        self.stats.flushes += 1;
    }

    fn drive(&mut self, frame: &mut Frame<'_>, start: u64, soft: bool) -> StopReason {
        let mut way = Way::Event;
        loop {
            let mut link = match way {
                Way::Event => {
                    if let Some(stop) = frame.run.attend() {
                        return stop;
                    }
                    None
                }
                Way::Find(link) => link,
                Way::Budget => None,
            };
            self.collect(frame.run.cache());
            if self.full {
                frame.run.restart();
                self.reset();
                link = None;
            }
            let left = frame.run.left();
            if left == 0 {
                return StopReason::Budget;
            }
            let known = if link.is_none() { self.known(frame.run.cpu()) } else { None };
            way = match known {
                Some(entry) => self.enter(frame, entry, left),
                None => self.slow(frame, link, left),
            };
            if let Way::Budget = way {
                if soft && frame.run.icount() > start {
                    return StopReason::Budget;
                }
                let left = frame.run.left();
                if left == 0 {
                    return StopReason::Budget;
                }
                way = after(frame.run.exec_some(left));
            }
            if let Way::Event = way {
                if frame.run.take_exit() {
                    return StopReason::Exit;
                }
            }
        }
    }

    /// Compiled code for the PC, if the table knows it.
    fn known(&self, cpu: &Cpu) -> Option<u64> {
        if cpu.it != 0 {
            return None;
        }
        let pc = cpu.regs[15] | u32::from(cpu.t);
        let j = &self.jumps[jump_slot(pc)];
        if j.pc != pc || j.page & 0x0fff_ffff != cpu.mmu.exec_page(pc) {
            return None;
        }
        let mode = BlockMode::of(cpu).pack() & !0x1ff;
        (self.modes[(j.page >> 28) as usize] == mode).then_some(j.entry)
    }

    /// The block at the PC: finds or makes it, compiles it if it is hot, and runs it either way.
    fn slow(&mut self, frame: &mut Frame<'_>, link: Option<(CodePtr, usize)>, left: u64) -> Way {
        let Some(found) = frame.run.find() else { return Way::Event };
        let (Fetch::Cached(code) | Fetch::Straddles(code)) = found;
        if !frame.run.fits(code, left) {
            return Way::Budget;
        }
        if let Fetch::Cached(_) = found {
            // SAFETY: a block of the cache; only cells are changed.
            let c = unsafe { code.as_ref() };
            let mut entry = c.native.entry.get();
            if entry == 0 {
                let heat = c.native.heat.get() + 1;
                c.native.heat.set(heat);
                if heat > self.threshold {
                    entry = self.compile(code).unwrap_or(0);
                }
            }
            if entry != 0 {
                self.remember(c, entry);
                if let Some((from, slot)) = link {
                    self.link(from, slot, code);
                }
                return self.enter(frame, entry, left);
            }
        }
        after(frame.run.exec_block(code))
    }

    /// Runs compiled code.
    fn enter(&mut self, frame: &mut Frame<'_>, entry: u64, left: u64) -> Way {
        self.stats.entries += 1;
        let at = std::ptr::from_mut(frame) as u64;
        let cpu = std::ptr::from_mut(frame.run.cpu());
        // SAFETY: `enter` is code of ours with this signature. While it runs, it and what it calls are the only ones to use the core and
        // the frame, through these pointers.
        let host = unsafe {
            (*cpu).host.jumps = self.jumps.as_ptr() as u64;
            (*cpu).host.frame = at;
            let flags = (*cpu).flags;
            (*cpu).host.pack(flags);
            let enter: extern "C" fn(*mut Cpu, u64, u64) = std::mem::transmute(self.thunks.enter);
            enter(cpu, entry, left);
            (*cpu).host
        };
        if host.reason == EVENT {
            return after(frame.next);
        }
        frame.run.cpu().flags = host.unpack();
        let from = NonNull::new(host.from as *mut Code).expect("compiled code names its block");
        // SAFETY: blocks live until the next `adopt`.
        let code = unsafe { from.as_ref() };
        match host.reason {
            LOOKUP => {
                let pc = frame.run.cpu().regs[15];
                frame.run.leave(from, pc, host.left);
                Way::Find(None)
            }
            BUDGET => {
                // Nothing of the block has run.
                frame.run.leave(from, code.block.pc, host.left + code.n);
                Way::Budget
            }
            slot => {
                let slot = (slot - EXIT0) as usize;
                frame.run.leave(from, code.exits[slot].target, host.left);
                Way::Find(Some((from, slot)))
            }
        }
    }

    /// Compiles a block; `None` if there is no room.
    fn compile(&mut self, at: CodePtr) -> Option<u64> {
        // SAFETY: a block of the cache.
        let code = unsafe { at.as_ref() };
        if !self.memory.has_room(BLOCK_BYTES) {
            self.full = true;
            return None;
        }
        let mode = self.number(code.mode())?;
        let base = self.memory.offset();
        let out = compile(Context {
            block: &code.block,
            code: at.as_ptr() as u64,
            thumb: code.mode() & 1 << 8 != 0,
            mode: mode << 28,
            thunks: &self.thunks,
            base: self.memory.next(),
            features: self.features,
        });
        let entry = self.memory.address(base);
        self.memory.push(&out.bytes);
        for (site, cell) in out.sites.into_iter().zip(&code.native.sites) {
            let shift = |o: u32| if o == 0 { 0 } else { o + base };
            let mut s = site;
            (s.jump, s.stub, s.guard) = (shift(s.jump), shift(s.stub), shift(s.guard));
            cell.set(s);
        }
        code.native.entry.set(entry);
        self.stats.compiled += 1;
        if let Some(p) = &mut self.perf {
            p.add(entry, out.bytes.len(), &code.block);
        }
        Some(entry)
    }

    /// The number of a mode (without IT) in the table of jump targets.
    fn number(&mut self, mode: u32) -> Option<u32> {
        let mode = mode & !0x1ff;
        if let Some(i) = self.modes.iter().position(|m| *m == mode) {
            return Some(i as u32);
        }
        if self.modes.len() >= 15 {
            self.full = true;
            return None;
        }
        self.modes.push(mode);
        Some(self.modes.len() as u32 - 1)
    }

    /// Puts a block in the table of jump targets.
    fn remember(&mut self, code: &Code, entry: u64) {
        if !code.is_linkable() || code.mode() & 0xff != 0 {
            return;
        }
        let Some(mode) = self.number(code.mode()) else { return };
        let pc = code.block.pc | code.mode() >> 8 & 1;
        self.jumps[jump_slot(pc)] = Jump { pc, page: (code.page() + 1).wrapping_add(mode << 28), entry };
    }

    /// Joins exit `slot` of `from` to `to`.
    fn link(&mut self, from: CodePtr, slot: usize, to: CodePtr) {
        // SAFETY: blocks live until the next `adopt`.
        let (f, t) = unsafe { (from.as_ref(), to.as_ref()) };
        let (site, entry) = (f.native.sites[slot].get(), t.native.entry.get());
        let fits = f.is_linkable()
            && t.is_linkable()
            && f.mode() >> 8 == t.mode() >> 8
            && f.exits[slot].target == t.block.pc
            && site.jump != 0
            && entry != 0
            && f.native.entry.get() != 0;
        if !fits || site.guard == 0 && f.page() != t.page() {
            return;
        }
        let target = (entry - self.memory.address(0)) as u32;
        self.memory.patch_jump(site.jump, target);
        if site.guard != 0 {
            self.memory.patch(site.guard, t.page() + 1);
        }
        if let Some(old) = f.native.to[slot].replace(Some(to)) {
            // SAFETY: a link is taken away before the block at its end is freed.
            unsafe { old.as_ref() }.native.incoming.borrow_mut().retain(|l| *l != (from, slot));
        }
        t.native.incoming.borrow_mut().push((from, slot));
    }

    /// Takes blocks that the cache has thrown away out of compiled code. To be called before the cache frees them.
    fn collect(&mut self, cache: &mut Cache) {
        while let Some(dead) = cache.next_dead() {
            // SAFETY: the graveyard keeps it, and what it is linked with is alive or in the graveyard too: a block's links go here, before it is freed.
            unsafe {
                let code = dead.as_ref();
                for (from, slot) in code.native.incoming.take() {
                    let n = &from.as_ref().native;
                    n.to[slot].set(None);
                    let site = n.sites[slot].get();
                    self.memory.patch_jump(site.jump, site.stub);
                }
                for (slot, to) in code.native.to.iter().enumerate() {
                    if let Some(to) = to.take() {
                        to.as_ref().native.incoming.borrow_mut().retain(|l| *l != (dead, slot));
                    }
                }
                let pc = code.block.pc | code.mode() >> 8 & 1;
                let j = &mut self.jumps[jump_slot(pc)];
                if j.entry == code.native.entry.get() {
                    *j = NO_JUMP;
                }
            }
        }
    }
}

/// Slot of the table of jump targets; compiled code computes the same.
fn jump_slot(pc: u32) -> usize {
    ((pc >> 14 ^ pc) >> 2) as usize & (JUMPS - 1)
}

fn after(next: Next) -> Way {
    match next {
        Next::Lookup(_) => Way::Find(None),
        Next::Event => Way::Event,
        Next::Stepped => unreachable!("only single operations step"),
    }
}
