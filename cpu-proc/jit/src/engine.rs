//! The engine: from one block to the next.

use crate::emit::Features;
use crate::fp::{Held, Mode, wants};
use crate::lower::{Context, Entry, Site, compile, gains};
use crate::memory::{CodeMemory, MemoryError};
use crate::runtime::Frame;
use crate::thunks::{BUDGET, EVENT, JUMPS, LOOKUP, Thunks};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::ir::MAX_INSNS;
use reprise_arm::state::Cpu;
use reprise_arm::translate::BlockMode;
use reprise_interp::cache::{Cache, Code, CodePtr, Fetch};
use reprise_interp::exec::{Next, Run};
use std::ptr::NonNull;

/// Bytes of code memory.
const CODE_BYTES: usize = 96 << 20;
/// How often a block is interpreted before it is compiled.
const THRESHOLD: u32 = 10;
/// Most compiled forms at a time.
const MAX_BODIES: usize = 1 << 20;
/// Most host bytes that a block can take.
const BLOCK_BYTES: usize = 1 << 20;

/// A compiled form of a block.
struct Body {
    code: CodePtr,
    entry: u64,
    /// What it takes for granted; what it looks at itself it does not.
    expects: Entry,
    sites: [Site; 2],
    /// What each exit is linked to.
    to: [Option<u32>; 2],
    /// The exits that are linked to it.
    incoming: Vec<(u32, usize)>,
}

/// Most compiled forms of one block.
const FORMS: usize = 4;
/// The same for those that know FPSCR: registers that they hold differ.
const KNOWING_FORMS: usize = 8;

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

/// No page has this number, with whatever mode: no mode has the number 15.
const NO_JUMP: Jump = Jump { pc: 0, page: u32::MAX, entry: 0 };

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

// SAFETY: the pointers in it lead to blocks of the cache, which moves between threads together with it.
unsafe impl Send for Compiler {}

/// All but the cache, which a run borrows.
struct Compiler {
    memory: CodeMemory,
    thunks: Thunks,
    jumps: Box<[Jump]>,
    bodies: Vec<Body>,
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
    Find(Option<(u32, usize)>),
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
            bodies: Vec::new(),
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
        self.cache.take_dma_writes(cpu, ram, bus);
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

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let s = self.stats();
        vec![
            ("blocks_translated", s.translated),
            ("blocks_compiled", s.compiled),
            ("code_bytes", s.code_bytes),
            ("cache_flushes", s.flushes),
            ("entries", s.entries),
        ]
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
        self.bodies.clear();
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
            // A stop of our own choice comes before the next instruction is fetched, as in the interpreter.
            let here = soft && left < MAX_INSNS as u64 && frame.run.icount() > start && frame.run.may_stop();
            if left == 0 || here {
                return StopReason::Budget;
            }
            let known = if link.is_none() { self.known(frame.run.cpu()) } else { None };
            way = match known {
                Some(entry) => self.enter(frame, entry, left),
                None => self.slow(frame, link, left),
            };
            if let Way::Budget = way {
                if soft && frame.run.icount() > start && frame.run.may_stop() {
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
    fn slow(&mut self, frame: &mut Frame<'_>, link: Option<(u32, usize)>, left: u64) -> Way {
        let Some(found) = frame.run.find() else { return Way::Event };
        let (Fetch::Cached(code) | Fetch::Straddles(code)) = found;
        if !frame.run.fits(code, left) {
            return Way::Budget;
        }
        if let Fetch::Cached(_) = found {
            // SAFETY: a block of the cache; only cells are changed.
            let c = unsafe { code.as_ref() };
            let mut body = c.native.bodies.borrow().first().copied();
            if body.is_none() && !c.native.hopeless.get() {
                let heat = c.native.heat.get().saturating_add(1);
                c.native.heat.set(heat);
                if heat > self.threshold {
                    body = self.compile_first(code, frame.run.cpu().fpscr);
                }
            }
            if let Some(body) = body {
                let entry = self.bodies[body as usize].entry;
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
        let (lines, ram_delta) = (frame.run.lines(), frame.run.ram_delta());
        let cpu = std::ptr::from_mut(frame.run.cpu());
        // SAFETY: `enter` is code of ours with this signature. While it runs, it and what it calls are the only ones to use the core and
        // the frame, through these pointers.
        let host = unsafe {
            (*cpu).host.jumps = self.jumps.as_ptr() as u64;
            (*cpu).host.frame = at;
            (*cpu).host.lines = lines.into();
            (*cpu).host.ram_delta = ram_delta;
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
            exit => {
                let (body, slot) = (exit >> 4, (exit & 15) as usize);
                frame.run.leave(from, code.exits[slot].target, host.left);
                Way::Find(Some((body, slot)))
            }
        }
    }

    /// Compiles the form of a block that is entered from anywhere, for programs that run with FPSCR as it is now; `None` if there is no room.
    fn compile_first(&mut self, at: CodePtr, fpscr: u32) -> Option<u32> {
        let general = self.compile(at, Entry::default(), None)?;
        // SAFETY: a block of the cache.
        let code = unsafe { at.as_ref() };
        let mode = Mode::of(fpscr).filter(|_| wants::looks_at_fpscr(&code.block));
        let Some(mode) = mode else { return Some(general) };
        let otherwise = self.bodies[general as usize].entry;
        let body = self.compile(at, Entry { fpscr: Some(mode), ..Entry::default() }, Some(otherwise));
        code.native.bodies.borrow_mut().reverse();
        body.or(Some(general))
    }

    /// Compiles a form of a block that takes `entry` for granted, or looks at FPSCR and goes to `otherwise` if that is not so; `None` if there is no
    /// room.
    fn compile(&mut self, at: CodePtr, entry: Entry, otherwise: Option<u64>) -> Option<u32> {
        // SAFETY: a block of the cache.
        let code = unsafe { at.as_ref() };
        if !self.memory.has_room(BLOCK_BYTES) || self.bodies.len() >= MAX_BODIES {
            self.full = true;
            return None;
        }
        let mode = self.number(code.mode())?;
        let (base, body) = (self.memory.offset(), self.bodies.len() as u32);
        let out = compile(Context {
            block: &code.block,
            code: at.as_ptr() as u64,
            thumb: code.mode() & 1 << 8 != 0,
            privileged: code.mode() & 1 << 10 != 0,
            mode: mode << 28,
            body,
            entry,
            otherwise,
            thunks: &self.thunks,
            base: self.memory.next(),
            features: self.features,
        });
        if out.bytes.len() > BLOCK_BYTES {
            // It stays with the interpreter.
            code.native.hopeless.set(true);
            return None;
        }
        let expects = if otherwise.is_some() { Entry::default() } else { entry };
        let entry = self.memory.address(base);
        self.memory.push(&out.bytes);
        let shift = |o: u32| if o == 0 { 0 } else { o + base };
        let sites = out.sites.map(|s| Site {
            jump: shift(s.jump),
            stub: shift(s.stub),
            second: shift(s.second),
            leave: shift(s.leave),
            guard: shift(s.guard),
            ..s
        });
        self.bodies.push(Body { code: at, entry, expects, sites, to: [None; 2], incoming: Vec::new() });
        code.native.bodies.borrow_mut().push(body);
        self.stats.compiled += 1;
        if let Some(p) = &mut self.perf {
            p.add(entry, out.bytes.len(), &code.block);
        }
        Some(body)
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

    /// Joins exit `slot` of the form `from` to a form of `to`.
    fn link(&mut self, from: u32, slot: usize, to: CodePtr) {
        let f = &self.bodies[from as usize];
        let site = f.sites[slot];
        // SAFETY: blocks live until the next `adopt`, and the form of a dead one is not named any more by then.
        let (source, target) = unsafe { (f.code.as_ref(), to.as_ref()) };
        let fits = source.is_linkable()
            && target.is_linkable()
            && source.mode() >> 8 == target.mode() >> 8
            && source.exits[slot].target == target.block.pc
            && site.jump != 0;
        if !fits || site.guard == 0 && source.page() != target.page() {
            return;
        }
        let Some(main) = target.native.bodies.borrow().first().copied() else { return };
        let page = target.page();
        let special = self.form(to, &site);
        self.unlink(from, slot);
        let body = special.unwrap_or(main);
        let to = &self.bodies[body as usize];
        let entry = (to.entry - self.memory.address(0)) as u32;
        let at = if site.saved || to.expects.flags.is_some() { site.jump } else { site.second };
        self.memory.patch_jump(at, entry);
        if site.guard != 0 {
            self.memory.patch(site.guard, page + 1);
        }
        self.bodies[from as usize].to[slot] = Some(body);
        self.bodies[body as usize].incoming.push((from, slot));
    }

    /// The form of a block that takes for granted what is so at an exit, made if it is worth it.
    fn form(&mut self, code: CodePtr, site: &Site) -> Option<u32> {
        // SAFETY: a block of the cache.
        let c = unsafe { code.as_ref() };
        let forms = c.native.bodies.borrow().clone();
        let looks = wants::looks_at_fpscr(&c.block);
        if looks && site.fpscr.is_none() {
            // By the form that looks at FPSCR: a loop must not stay for ever in the general one, into which it came when IXC was clear.
            return None;
        }
        let fpscr = site.fpscr.filter(|_| looks);
        let wanted = Entry {
            flags: site.flags.filter(|r| gains(&c.block, *r)),
            fpscr,
            held: if fpscr.is_some() { wants::of(&c.block, &site.held) } else { Held::default() },
        };
        if wanted == Entry::default() {
            return None;
        }
        let expects = |b: &u32| self.bodies[*b as usize].expects;
        if let Some(b) = forms.iter().find(|b| expects(b) == wanted) {
            return Some(*b);
        }
        let most = if fpscr.is_some() { KNOWING_FORMS } else { FORMS };
        if forms.len() < most && !c.native.hopeless.get() {
            return self.compile(code, wanted, None);
        }
        // One that takes less for granted.
        let fits = |e: &Entry| e.flags == wanted.flags && e.fpscr == wanted.fpscr && wanted.held.covers(&e.held);
        forms.iter().copied().filter(|b| fits(&expects(b))).max_by_key(|b| expects(b).held.count())
    }

    /// Leads exit `slot` of `from` back to the engine.
    fn unlink(&mut self, from: u32, slot: usize) {
        let f = &mut self.bodies[from as usize];
        let Some(to) = f.to[slot].take() else { return };
        let site = f.sites[slot];
        self.memory.patch_jump(site.jump, site.stub);
        self.memory.patch_jump(site.second, site.leave);
        self.bodies[to as usize].incoming.retain(|l| *l != (from, slot));
    }

    /// Takes blocks that the cache has thrown away out of compiled code. To be called before the cache frees them.
    fn collect(&mut self, cache: &mut Cache) {
        while let Some(dead) = cache.next_dead() {
            // SAFETY: the graveyard keeps it.
            let code = unsafe { dead.as_ref() };
            for body in code.native.bodies.take() {
                for (from, slot) in std::mem::take(&mut self.bodies[body as usize].incoming) {
                    self.unlink(from, slot);
                }
                self.unlink(body, 0);
                self.unlink(body, 1);
                let entry = self.bodies[body as usize].entry;
                let j = &mut self.jumps[jump_slot(code.block.pc | code.mode() >> 8 & 1)];
                if j.entry == entry {
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
