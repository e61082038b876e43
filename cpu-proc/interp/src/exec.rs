//! Running blocks: what surrounds the loop (`dispatch`), and the slow paths that it calls.
//!
//! # What the unsafe code relies on
//! `lower` has verified each block: slots, skips, exits and helpers are in range and the last operation ends the block. So the loop indexes
//! without checks. `cpu` is valid and exclusively ours while a [`Run`] lives; all accesses to it go through one raw pointer, from which slow paths
//! borrow for the length of a call. Fast-table entries lead to host memory of a whole guest page, which outlives the run; guest memory is
//! only ever copied.

mod dispatch;

use crate::cache::{Cache, Code, CodePtr, Fetch};
use crate::lower::{X, XUop};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::count::{End, commit_epoch};
use reprise_arm::engine::StopReason;
use reprise_arm::ir::{MemKind, Op, PC_SLOT, SYS_FNS, Uop};
use reprise_arm::mmu::Abort;
use reprise_arm::psci::Conduit;
use reprise_arm::state::{Cpu, Exclusive};
use reprise_arm::sysop::{SysCtx, Trap};
use std::ptr::NonNull;

/// Taken from the remaining budget to keep the loop from entering another block.
const HOLD: i64 = 1 << 60;

/// How far the loop goes.
pub(crate) const CHAIN: u8 = 0;
/// To the end of the block.
pub(crate) const BLOCK: u8 = 1;
/// One operation, and on to where the loop must be left if it asks for that.
pub(crate) const STEP: u8 = 2;

/// How the loop was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The PC is set; look up the block there, and link it to this exit.
    Lookup(Option<(CodePtr, usize)>),
    /// Something happened: an exception was taken, a system instruction executed, a stop requested.
    Event,
    /// A single operation was executed and nothing happened.
    Stepped,
}

/// One call of the engine.
pub struct Run<'a> {
    cache: &'a mut Cache,
    cpu: *mut Cpu,
    ctx: SysCtx<'a>,
    /// `icount` at which the budget ends.
    end: u64,
    /// Guest physical minus host address of RAM.
    ram_delta: u64,
    /// The instruction that made an MMIO access, until it has retired.
    pending: Option<u64>,
    /// The block that runs, for slow paths.
    cur: *const Code,
    /// Behind the operation that called a slow path; where to go on after it.
    ip: *const XUop,
    /// Budget left after the running block, less [`HOLD`] while diverted.
    remaining: i64,
    /// The rest of an instruction after which the loop must be left.
    rest: Vec<XUop>,
    /// The number of that instruction in its block, while `rest` runs.
    diverted: Option<usize>,
}

/// The way on after a slow path: `None` if an exception was taken.
type Slow<T> = Option<T>;

impl<'a> Run<'a> {
    /// A run of `cpu` up to the instruction count `end`.
    pub fn new(cache: &'a mut Cache, cpu: &mut Cpu, ram: &'a GuestRam, bus: &'a mut dyn Bus, end: u64) -> Self {
        let host = ram.host(ram.base(), 1).map_or(0, |p| p as u64);
        Self {
            cache,
            cpu,
            ctx: SysCtx::new(ram, bus),
            end,
            ram_delta: ram.base().wrapping_sub(host),
            pending: None,
            cur: std::ptr::null(),
            ip: std::ptr::null(),
            remaining: 0,
            rest: Vec::with_capacity(64),
            diverted: None,
        }
    }

    /// The CPU, for code outside the loop.
    #[inline]
    pub fn cpu(&mut self) -> &mut Cpu {
        // SAFETY: see the module's text; no other borrow is alive.
        unsafe { &mut *self.cpu }
    }

    /// Instructions left in the budget.
    pub fn left(&mut self) -> u64 {
        self.end - self.cpu().icount
    }

    /// An interrupt line into the core is up. It stays so while nothing asks to leave the engine.
    pub fn lines(&self) -> bool {
        let (irq, fiq) = self.ctx.bus.lines();
        irq || fiq
    }

    /// Guest physical minus host address of RAM.
    pub fn ram_delta(&self) -> u64 {
        self.ram_delta
    }

    /// Instructions retired.
    pub fn icount(&mut self) -> u64 {
        self.cpu().icount
    }

    /// Whether the engine may stop here of its own accord: not right behind an exception that retired nothing. Such a place has the same
    /// position as the one before the exception, which is where a replay would stop.
    pub fn may_stop(&mut self) -> bool {
        let cpu = self.cpu();
        cpu.fault_at != cpu.icount
    }

    /// Takes a pending interrupt and looks whether the core can run at all.
    pub fn attend(&mut self) -> Option<StopReason> {
        let (irq, fiq) = self.ctx.bus.lines();
        let cpu = self.cpu();
        if let Some(which) = cpu.pending_interrupt(irq, fiq) {
            cpu.take_interrupt(which);
        }
        if cpu.waiting {
            if !Cpu::wakes(irq, fiq) {
                return Some(StopReason::Wait);
            }
            cpu.waiting = false;
        }
        if cpu.halt.is_some() {
            return Some(StopReason::Halt);
        }
        cpu.take_leave().then_some(StopReason::Exit)
    }

    /// The request to leave the engine, if there is one.
    pub fn take_exit(&mut self) -> bool {
        self.ctx.context = false;
        std::mem::take(&mut self.ctx.exit)
    }

    /// The block at the PC; `None` if a prefetch abort was taken instead.
    pub fn find(&mut self) -> Option<Fetch> {
        // SAFETY: as in `cpu`, which would borrow all of self.
        let cpu = unsafe { &mut *self.cpu };
        match self.cache.find(cpu, self.ctx.ram) {
            Ok(f) => Some(f),
            Err(abort) => {
                cpu.take_prefetch_abort(abort);
                cpu.icount += End::PrefetchAbort.retired();
                None
            }
        }
    }

    /// Whether the whole block fits into what is left.
    pub fn fits(&self, code: CodePtr, left: u64) -> bool {
        // SAFETY: a block of the cache.
        unsafe { code.as_ref() }.n as u64 <= left
    }

    pub(crate) fn link(&self, from: CodePtr, slot: usize, to: CodePtr) {
        self.cache.link(from, slot, to);
    }

    /// Runs at most `left` instructions at the PC as a block of their own.
    pub fn exec_some(&mut self, left: u64) -> Next {
        // SAFETY: as in `cpu`.
        let cpu = unsafe { &mut *self.cpu };
        match self.cache.make_short(cpu, self.ctx.ram, left.min(64) as usize) {
            Ok(code) => match self.exec(NonNull::from(&*code)) {
                Next::Lookup(_) => Next::Lookup(None),
                event => event,
            },
            Err(abort) => {
                cpu.take_prefetch_abort(abort);
                Next::Event
            }
        }
    }

    // ----- where we are -----

    /// The number of the instruction that the operation before `ip` belongs to.
    fn insn_at(&self, ip: *const XUop) -> usize {
        if let Some(i) = self.diverted {
            return i;
        }
        // SAFETY: `cur` is the running block, and `ip` points behind one of its operations.
        let (code, at) = unsafe { (&*self.cur, ip.offset_from((*self.cur).uops.as_ptr()) as usize - 1) };
        code.block.insn_of[at].into()
    }

    /// Budget left after the running block, as if nothing held it.
    fn after_block(&self) -> i64 {
        if self.diverted.is_some() { self.remaining + HOLD } else { self.remaining }
    }

    /// `icount` when instruction `i` of the running block is next.
    fn icount_before(&self, i: usize) -> u64 {
        // SAFETY: `cur` is the running block.
        let n = unsafe { (*self.cur).n };
        self.end - (self.after_block() + n - i as i64) as u64
    }

    /// Makes `icount` and the PC those of the instruction that the operation before `ip` belongs to.
    fn sync(&mut self, ip: *const XUop) -> usize {
        let i = self.insn_at(ip);
        let icount = self.icount_before(i);
        self.settle(icount);
        // SAFETY: `cur` is the running block.
        let block = unsafe { &(*self.cur).block };
        let pc = block.pc.wrapping_add(block.insns[i].offset.into());
        let cpu = self.cpu();
        cpu.icount = icount;
        cpu.regs[15] = pc;
        i
    }

    /// Begins the epoch of an MMIO instruction that has retired by `icount`.
    fn settle(&mut self, icount: u64) {
        if let Some(at) = self.pending {
            if at < icount {
                self.pending = None;
                commit_epoch(self.cpu(), at);
            }
        }
    }

    /// Ends the loop with `icount` at the end of the running block.
    fn finish(&mut self) {
        let icount = self.end - self.after_block() as u64;
        self.settle(icount);
        self.cpu().icount = icount;
        self.diverted = None;
    }

    /// Ends the loop at instruction `i`, which does not retire, for an exception.
    fn abandon(&mut self, i: usize, end: End) {
        let icount = self.icount_before(i);
        self.settle(icount);
        // The instruction itself begins no epoch.
        self.pending = None;
        // SAFETY: `cur` is the running block.
        let block = unsafe { &(*self.cur).block };
        let (pc, it) = (block.pc.wrapping_add(block.insns[i].offset.into()), block.insns[i].it);
        let cpu = self.cpu();
        cpu.icount = icount + end.retired();
        cpu.regs[15] = pc;
        cpu.it = it;
        // What it stored before it failed stays stored.
        self.drop_overwritten();
        self.ctx.mmio = false;
        self.diverted = None;
    }

    #[cold]
    #[inline(never)]
    fn data_abort(&mut self, i: usize, abort: Abort) {
        self.abandon(i, End::DataAbort);
        self.cpu().take_data_abort(abort);
    }

    #[cold]
    #[inline(never)]
    fn undefined(&mut self, i: usize, encoding: u32) {
        self.abandon(i, End::Undefined);
        // SAFETY: `cur` is the running block.
        let block = unsafe { &(*self.cur).block };
        let cpu = self.cpu();
        if block.unknown.contains(&(cpu.regs[15], encoding)) {
            cpu.note_undef(cpu.regs[15], encoding, cpu.t);
        }
        cpu.take_undef();
    }

    /// After an access or a system function of instruction `i`: notes the epoch, and diverts if the loop must be left after this
    /// instruction. Gives where to go on.
    fn settle_access(&mut self, i: usize, ip: *const XUop) -> *const XUop {
        if std::mem::take(&mut self.ctx.mmio) {
            self.pending = Some(self.icount_before(i));
        }
        if !self.ctx.diverts() {
            return ip;
        }
        let mut stop = self.ctx.exit || self.ctx.context;
        stop |= self.drop_overwritten();
        if stop && self.diverted.is_none() { self.divert(i, ip) } else { ip }
    }

    /// Throws away translations of code that was written to. True if there were any.
    fn drop_overwritten(&mut self) -> bool {
        if self.ctx.code_writes.is_empty() {
            return false;
        }
        let mut writes = std::mem::take(&mut self.ctx.code_writes);
        // SAFETY: as in `cpu`.
        let any = self.cache.written(unsafe { &mut *self.cpu }, &mut writes);
        self.ctx.code_writes = writes;
        any
    }

    /// Lets the rest of instruction `i` run from a copy that stops behind it, or ends the block without going on to another.
    fn divert(&mut self, i: usize, ip: *const XUop) -> *const XUop {
        // SAFETY: `cur` is the running block and `ip` points into its operations, or just behind the last one.
        let (code, at) = unsafe { (&*self.cur, ip.offset_from((*self.cur).uops.as_ptr()) as usize) };
        let next = code.block.insns.get(i + 1);
        let to = next.map_or(code.uops.len(), |n| usize::from(n.first));
        self.rest.clear();
        self.rest.extend_from_slice(&code.uops[at..to]);
        let stop = Uop { op: Op::Stop, d: 0, a: 0, b: 0, imm: i as u32 + 1, aux: 0 };
        self.rest.push(XUop::new(stop));
        self.diverted = Some(i);
        self.remaining -= HOLD;
        self.rest.as_ptr()
    }

    // ----- slow paths -----

    #[cold]
    #[inline(never)]
    fn slow_load(&mut self, va: u32, kind: MemKind) -> Slow<u64> {
        let i = self.sync(self.ip);
        // SAFETY: as in `cpu`.
        match self.ctx.load(unsafe { &mut *self.cpu }, va, kind) {
            Ok(v) => {
                self.ip = self.settle_access(i, self.ip);
                Some(v)
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn slow_store(&mut self, va: u32, kind: MemKind, value: u64) -> Slow<()> {
        let i = self.sync(self.ip);
        // SAFETY: as in `cpu`.
        match self.ctx.store(unsafe { &mut *self.cpu }, va, kind, value) {
            Ok(()) => {
                self.ip = self.settle_access(i, self.ip);
                Some(())
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    /// Loads `n` words into `out`.
    #[cold]
    #[inline(never)]
    fn slow_load_words(&mut self, va: u32, n: usize, out: &mut [u32; 64]) -> Slow<()> {
        let i = self.sync(self.ip);
        // SAFETY: as in `cpu`.
        match self.ctx.load_words(unsafe { &mut *self.cpu }, va, &mut out[..n]) {
            Ok(()) => {
                self.ip = self.settle_access(i, self.ip);
                Some(())
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    /// Stores words.
    #[cold]
    #[inline(never)]
    fn slow_store_words(&mut self, va: u32, words: &[u32]) -> Slow<()> {
        let i = self.sync(self.ip);
        // SAFETY: as in `cpu`.
        match self.ctx.store_words(unsafe { &mut *self.cpu }, va, words) {
            Ok(()) => {
                self.ip = self.settle_access(i, self.ip);
                Some(())
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    #[inline(never)]
    fn load_exclusive(&mut self, va: u32, u: &XUop) -> Slow<u64> {
        let size = MemKind::unpack(u.aux).size;
        let bytes = 1 << size as u32;
        // SAFETY: as in `cpu`.
        let cpu = unsafe { &mut *self.cpu };
        let e = cpu.mmu.read_addend(va);
        if e != 0 && va & (bytes - 1) == 0 {
            let host = e.wrapping_add(va.into());
            let mut buf = [0u8; 8];
            // SAFETY: a fast-table entry covers its whole page, and the access is aligned.
            unsafe { std::ptr::copy_nonoverlapping(host as *const u8, buf.as_mut_ptr(), bytes as usize) };
            cpu.excl = Exclusive { valid: true, addr: host.wrapping_add(self.ram_delta), size: bytes as u8 };
            return Some(u64::from_le_bytes(buf));
        }
        let i = self.sync(self.ip);
        match self.ctx.load_exclusive(cpu, va, size) {
            Ok(v) => {
                self.ip = self.settle_access(i, self.ip);
                Some(v)
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    #[inline(never)]
    fn store_exclusive(&mut self, va: u32, u: &XUop) -> Slow<u32> {
        let size = MemKind::unpack(u.aux).size;
        let bytes = 1 << size as u32;
        // SAFETY: as in `cpu`.
        let cpu = unsafe { &mut *self.cpu };
        let (lo, hi) = (cpu.regs[(u.imm & 63) as usize], cpu.regs[(u.imm >> 8 & 63) as usize]);
        let value = u64::from(lo) | u64::from(hi) << 32;
        let e = cpu.mmu.write_addend(va);
        if e != 0 && va & (bytes - 1) == 0 {
            let host = e.wrapping_add(va.into());
            let m = std::mem::replace(&mut cpu.excl.valid, false);
            let pass = m && cpu.excl.addr == host.wrapping_add(self.ram_delta) && u32::from(cpu.excl.size) == bytes;
            if pass {
                let buf = value.to_le_bytes();
                // SAFETY: as in `load_exclusive`.
                unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), host as *mut u8, bytes as usize) };
            }
            return Some(u32::from(!pass));
        }
        let i = self.sync(self.ip);
        match self.ctx.store_exclusive(cpu, va, size, value) {
            Ok(pass) => {
                self.ip = self.settle_access(i, self.ip);
                Some(u32::from(!pass))
            }
            Err(abort) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    /// A floating-point instruction while FPEXC.EN is clear.
    #[cold]
    #[inline(never)]
    fn fp_is_off(&mut self, u: &XUop) -> Slow<()> {
        let i = self.sync(self.ip);
        self.undefined(i, u.imm);
        None
    }

    /// Calls a system function.
    #[inline(never)]
    fn system(&mut self, u: &XUop) -> Slow<u32> {
        let f = SYS_FNS[u.aux as usize >> 8][u.aux as usize & 0xff].f;
        // SAFETY: as in `cpu`.
        let cpu = unsafe { &mut *self.cpu };
        // Before `sync`, which sets the PC: an operand may be the PC slot.
        let (a, b) = (cpu.regs[usize::from(u.a & 63)], cpu.regs[usize::from(u.b & 63)]);
        let i = self.sync(self.ip);
        match f(cpu, &mut self.ctx, a, b, u.imm) {
            Ok(v) => {
                self.ip = self.settle_access(i, self.ip);
                Some(v)
            }
            Err(Trap::Undef) => {
                self.undefined(i, u.imm);
                None
            }
            Err(Trap::Abort(abort)) => {
                self.data_abort(i, abort);
                None
            }
        }
    }

    /// The operations that end a block with an exception or a wait. `ip` points behind `u`.
    #[cold]
    #[inline(never)]
    fn special(&mut self, ip: *const XUop, u: &XUop) -> Next {
        let i = self.insn_at(ip);
        match u.op {
            X::Svc => {
                self.finish();
                let cpu = self.cpu();
                cpu.regs[15] = u.imm;
                cpu.take_svc();
            }
            X::Smc if self.cpu().calls_firmware(Conduit::Smc) => {
                self.finish();
                let cpu = self.cpu();
                cpu.regs[15] = u.imm;
                cpu.call_firmware();
                self.ctx.exit = true;
            }
            X::Smc if self.cpu().smc_undefined() => self.undefined(i, 0),
            X::Smc => {
                self.finish();
                let cpu = self.cpu();
                cpu.regs[15] = u.imm;
                cpu.take_smc();
            }
            X::Bkpt => {
                self.abandon(i, End::Breakpoint);
                let cpu = self.cpu();
                cpu.take_prefetch_abort(Abort::bkpt(cpu.regs[15]));
            }
            X::Wfi | X::Wfe => {
                self.finish();
                let cpu = self.cpu();
                cpu.regs[15] = u.imm;
                if u.op == X::Wfi {
                    cpu.waiting = true;
                } else if cpu.wait_for_event() {
                    self.ctx.exit = true;
                }
            }
            X::Stop => {
                // SAFETY: `cur` is the running block.
                let (block, n) = unsafe { (&(*self.cur).block, (*self.cur).n) };
                let next = u.imm as usize;
                let (pc, it) = (block.pc.wrapping_add(block.insns[next].offset.into()), block.insns[next].it);
                self.remaining += n - next as i64;
                self.finish();
                let cpu = self.cpu();
                cpu.regs[15] = pc;
                cpu.it = it;
            }
            _ => self.undefined(i, u.imm),
        }
        Next::Event
    }

    // ----- the loop -----

    /// Runs from the start of `code` until something must be looked at. `cpu.icount` is that before the block, which fits into the budget.
    pub(crate) fn exec(&mut self, code: CodePtr) -> Next {
        // SAFETY: the module's text says what the loop relies on.
        unsafe { self.exec_loop::<CHAIN>(code, 0, None) }
    }

    // ----- for engines that compile -----

    /// The block cache.
    pub fn cache(&mut self) -> &mut Cache {
        self.cache
    }

    /// Throws every block away. No block is running.
    pub fn restart(&mut self) {
        self.cache.flush();
        // SAFETY: as in `cpu`.
        self.cache.adopt(unsafe { &mut *self.cpu });
    }

    /// Runs `code`, which fits into the budget, to its end.
    pub fn exec_block(&mut self, code: CodePtr) -> Next {
        // SAFETY: the module's text says what the loop relies on.
        unsafe { self.exec_loop::<BLOCK>(code, 0, None) }
    }

    /// Executes micro-op `at` of `code` alone; `remaining` is the budget left after the block. If the operation asks to leave, goes on to where
    /// that can be done and says how the loop was left.
    pub fn step(&mut self, code: CodePtr, at: usize, remaining: i64) -> Next {
        // SAFETY: the module's text says what the loop relies on; `at` is an operation of the block.
        unsafe {
            assert!(at < code.as_ref().uops.len(), "an operation of the block");
            self.exec_loop::<STEP>(code, at, Some(remaining))
        }
    }

    /// Runs `code` from micro-op `at` to its end.
    pub fn resume(&mut self, code: CodePtr, at: usize, remaining: i64) -> Next {
        // SAFETY: as in `step`.
        unsafe {
            assert!(at < code.as_ref().uops.len(), "an operation of the block");
            self.exec_loop::<BLOCK>(code, at, Some(remaining))
        }
    }

    /// Compiled code came to a way out of `code` with the PC at `pc`: settles the counts. `remaining` is the budget left after the block.
    pub fn leave(&mut self, code: CodePtr, pc: u32, remaining: i64) {
        self.cur = code.as_ptr();
        self.remaining = remaining;
        self.diverted = None;
        self.cpu().regs[15] = pc;
        self.finish();
    }
}

const _: () = assert!(PC_SLOT == 15, "LDM loads the PC to slot 15");
