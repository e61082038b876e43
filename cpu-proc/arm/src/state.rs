//! Architectural state of one core.
//!
//! [`Cpu`] holds everything that a guest can see of its core, and the TLB. An engine keeps nothing architectural of its own: at each
//! call into this crate `regs[15]`, `icount` and `it` must be those of the instruction that is being executed.

use crate::cp15::Cp15;
use crate::mmu::Mmu;
use crate::models::Model;
use crate::psci::Conduit;
use crate::psr::*;
use crate::timer::Timers;
use serde::{Deserialize, Serialize};

/// A place in the execution: see `docs/design.md`, "Time and position".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Retired instructions that made an MMIO access.
    pub epoch: u64,
    /// Instructions retired since the epoch began.
    pub count: u64,
    /// Warps of guest time since the last retired instruction.
    pub idle: u32,
}

/// How far the machine has come: one timeline, which moves from core to core with the turn ([`crate::cores::Cores`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeline {
    /// [`Cpu::icount`].
    pub icount: u64,
    /// [`Cpu::epoch_start`].
    pub epoch_start: u64,
    /// [`Cpu::epoch`].
    pub epoch: u64,
    /// [`Cpu::idle`].
    pub idle: u32,
    /// [`Cpu::idle_at`].
    pub idle_at: u64,
}

/// How many slots the operand space of micro-ops has: r0-r15, then block-local temporaries ([`crate::ir`]).
pub const REG_SPACE: usize = 64;

/// The condition flags, each in a word of its own so that micro-ops can set them without packing (a JIT and the interpreter share this).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flags {
    /// N is bit 31.
    pub n: u32,
    /// Z is set iff this is 0.
    pub z: u32,
    /// C is bit 0; the other bits are 0.
    pub c: u32,
    /// V is bit 31.
    pub v: u32,
}

impl Flags {
    /// The flags from bits 31:28 of a PSR value.
    pub fn from_psr(psr: u32) -> Self {
        Self { n: psr, z: !psr & 1 << 30, c: psr >> 29 & 1, v: psr << 3 }
    }

    /// The flags as bits 31:28 of a PSR value, all other bits 0.
    pub fn to_psr(self) -> u32 {
        self.n & 1 << 31 | u32::from(self.z == 0) << 30 | (self.c & 1) << 29 | (self.v >> 31) << 28
    }
}

/// Registers of the modes that are not current (ARM DDI 0406C B1.3.1). The slot of the current mode is stale.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Banked {
    /// r8-r12 of every mode but FIQ.
    pub usr_r8_r12: [u32; 5],
    /// r8-r12 of FIQ mode.
    pub fiq_r8_r12: [u32; 5],
    /// sp by [`Mode::bank`].
    pub sp: [u32; BANKS],
    /// lr by [`Mode::bank`].
    pub lr: [u32; BANKS],
    /// spsr by [`Mode::bank`]; slot 0 (User) is unused and 0. The current mode's SPSR lives here too.
    pub spsr: [u32; BANKS],
}

/// The local exclusive monitor (ARM DDI 0406C A3.4.1): open, or exclusive for one tagged range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exclusive {
    /// True after a load-exclusive, until a store-exclusive, CLREX, exception entry or return clears it.
    pub valid: bool,
    /// Physical address that was tagged.
    pub addr: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub size: u8,
}

/// FPEXC.EN: VFP and Advanced SIMD instructions run (ARM DDI 0406C B4.1.57).
pub const FPEXC_EN: u32 = 1 << 30;

/// An encoding that this CPU does not have and that took UNDEF; kept so that it can be named once in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndefNote {
    /// Address of the instruction.
    pub pc: u32,
    /// Its encoding; a 32-bit Thumb one with the first halfword on top.
    pub opcode: u32,
    /// Thumb state.
    pub thumb: bool,
}

/// How many different encodings [`Cpu::note_undef`] keeps.
pub const MAX_UNDEF_NOTES: usize = 64;

/// What compiled code keeps beside the registers of the core it runs. Nothing in it outlives a run.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct HostState {
    /// The flags as the host gives them: byte 0 is V (0 or 1), byte 1 has N in bit 7 and Z in bit 6, byte 2 is C (0 or 1). The rest is anything.
    /// Bytes, because a read of all four right after writes of single ones would stall the host.
    pub nzcv: [u8; 4],
    /// Why compiled code was left.
    pub reason: u32,
    /// 1 if an interrupt line into the core is up.
    pub lines: u32,
    /// Where compiled code looks at the host's floating-point flags.
    pub mxcsr: u32,
    /// Guest physical minus host address of RAM.
    pub ram_delta: u64,
    /// Address of the table of jump targets.
    pub jumps: u64,
    /// Address of the engine's frame.
    pub frame: u64,
    /// The block that was left.
    pub from: u64,
    /// Budget left when it was left.
    pub left: i64,
}

impl HostState {
    /// Takes flags in.
    #[inline]
    pub fn pack(&mut self, f: Flags) {
        let (n, z) = ((f.n >> 31) as u8, u8::from(f.z == 0));
        self.nzcv = [(f.v >> 31) as u8, n << 7 | z << 6, f.c as u8, 0];
    }

    /// The flags.
    #[inline]
    pub fn unpack(&self) -> Flags {
        let [v, nz, c, _] = self.nzcv.map(u32::from);
        Flags { n: nz << 24, z: !nz & 1 << 6, c: c & 1, v: v << 31 }
    }
}

/// State of one core. Every field is part of the state hash unless its comment says cache or bookkeeping.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Cpu {
    /// Where an engine that compiles to host code keeps what its code needs at hand (cache). First, so that short offsets reach it and the registers.
    pub host: HostState,
    /// r0-r15 of the current mode. r15 is the address of the next instruction to execute (no +8/+4).
    /// Slots 16 and up are the temporaries of the block that runs: cache, no part of the architectural state.
    pub regs: [u32; REG_SPACE],
    /// N, Z, C and V.
    pub flags: Flags,
    /// CPSR.Q, 0 or 1.
    pub q: u32,
    /// CPSR.GE, bits 3:0.
    pub ge: u32,
    /// CPSR.T: Thumb state.
    pub t: bool,
    /// CPSR.IT, the eight bits in architectural order (0 outside an IT block).
    pub it: u8,
    /// CPSR.E: big-endian data accesses.
    pub e: bool,
    /// CPSR.J.
    pub j: bool,
    /// CPSR.A: asynchronous aborts masked.
    pub a: bool,
    /// CPSR.I: IRQ masked.
    pub i: bool,
    /// CPSR.F: FIQ masked.
    pub f: bool,
    /// Current mode. Change it with [`Cpu::set_mode`] only: registers are banked and the TLB view depends on it.
    pub mode: Mode,
    /// The extension registers as words: S0-S31 are 0-31, Dn is words 2n (low) and 2n+1.
    pub ext: [u32; 64],
    /// FPSCR, all of it.
    pub fpscr: u32,
    /// FPEXC; [`FPEXC_EN`] is its only bit.
    pub fpexc: u32,
    /// Instructions retired since reset, by all cores of the machine. This and the four fields below are the [`Timeline`]: they are right in
    /// the core whose turn it is.
    pub icount: u64,
    /// `icount` at which the current epoch began.
    pub epoch_start: u64,
    /// Current epoch.
    pub epoch: u64,
    /// Warps taken at `idle_at`; [`Cpu::pos`] makes the position's `idle` of it.
    pub idle: u32,
    /// `icount` at which `idle` was counted.
    pub idle_at: u64,
    /// Local exclusive monitor.
    pub excl: Exclusive,
    /// The event register that SEV sets and WFE consumes.
    pub event: bool,
    /// The core has retired WFI (or WFE without an event) and waits.
    pub waiting: bool,
    /// Registers of the other modes.
    pub banked: Banked,
    /// System control coprocessor, and the debug registers of CP14.
    pub cp15: Cp15,
    /// Generic timer.
    pub timer: Timers,
    /// ID registers and other fixed properties (configuration: not part of the state hash).
    pub model: Model,
    /// MMU and TLB (a cache).
    pub mmu: Mmu,
    /// Why the core can't go on, for the user.
    pub halt: Option<String>,
    /// Bookkeeping: encodings that took UNDEF because we don't have them.
    pub undef_notes: Vec<UndefNote>,
    /// Bookkeeping: `icount` of the last synchronous exception, to see a core that only faults.
    pub fault_at: u64,
    /// Bookkeeping: synchronous exceptions taken at `fault_at` without an instruction in between.
    pub fault_run: u32,
    /// Configuration: other cores wait for their turn, so a WFE without an event ends this one's.
    pub shares: bool,
    /// Bookkeeping: a WFE has ended this core's turn; [`Cpu::take_yield`].
    pub yielded: bool,
    /// Bookkeeping: what the run loop has to look at changed outside a memory access or system instruction; the engine leaves with
    /// [`crate::engine::StopReason::Exit`] before the next instruction ([`Cpu::take_leave`]).
    pub leave: bool,
    /// SEV was executed in this turn; the other cores' event registers are set at its end. They can't look at them before.
    pub sev: bool,
    /// Configuration: the instruction that calls the machine's firmware, if it has one ([`crate::psci`]).
    pub firmware: Option<Conduit>,
    /// Bookkeeping: the firmware was called and has not answered yet ([`crate::cores::Cores::answer_call`]).
    pub called: bool,
    /// The firmware has the core switched off: it has no turn until it is switched on, by a reset.
    pub off: bool,
}

impl Cpu {
    /// A core of the given model, just out of reset (ARM DDI 0406C B1.9.1): Secure Supervisor mode, interrupts masked, PC at the
    /// reset vector, MMU off. Registers that the architecture leaves UNKNOWN are 0.
    pub fn new(model: Model) -> Self {
        let mut cpu = Cpu {
            regs: [0; REG_SPACE],
            host: HostState::default(),
            flags: Flags::from_psr(0),
            q: 0,
            ge: 0,
            t: false,
            it: 0,
            e: false,
            j: false,
            a: true,
            i: true,
            f: true,
            mode: Mode::Svc,
            ext: [0; 64],
            fpscr: 0,
            fpexc: 0,
            icount: 0,
            epoch_start: 0,
            epoch: 0,
            idle: 0,
            idle_at: 0,
            excl: Exclusive::default(),
            event: false,
            waiting: false,
            banked: Banked::default(),
            cp15: Cp15::reset(&model),
            timer: Timers::reset(&model),
            model,
            mmu: Mmu::new(),
            halt: None,
            undef_notes: Vec::new(),
            fault_at: u64::MAX,
            fault_run: 0,
            shares: false,
            yielded: false,
            leave: false,
            sev: false,
            firmware: None,
            called: false,
            off: false,
        };
        cpu.update_context();
        cpu
    }

    /// Where the execution stands. In the middle of an instruction that has begun an epoch, the count is 0 already.
    pub fn pos(&self) -> Position {
        let idle = if self.idle_at == self.icount { self.idle } else { 0 };
        Position { epoch: self.epoch, count: self.icount.saturating_sub(self.epoch_start), idle }
    }

    /// Number of the core in its cluster (MPIDR affinity level 0), 0-3.
    #[inline]
    pub fn core(&self) -> u8 {
        (self.model.mpidr & 3) as u8
    }

    /// How far the machine has come, as of this core's last turn.
    pub fn timeline(&self) -> Timeline {
        let &Cpu { icount, epoch_start, epoch, idle, idle_at, .. } = self;
        Timeline { icount, epoch_start, epoch, idle, idle_at }
    }

    /// Takes over how far the machine has come. The instructions in between are not this core's: its counters stand still over them.
    pub fn set_timeline(&mut self, t: Timeline) {
        self.cp15.pmu.settle(self.icount);
        (self.icount, self.epoch_start, self.epoch) = (t.icount, t.epoch_start, t.epoch);
        (self.idle, self.idle_at) = (t.idle, t.idle_at);
        self.cp15.pmu.synced = t.icount;
    }

    /// WFE (ARM DDI 0406C B1.8.13), once it has retired: takes the event. It never waits, as the architecture lets it complete at any time; but
    /// where other cores share the machine, a WFE that found no event ends the core's turn. True then: the engine must leave.
    pub fn wait_for_event(&mut self) -> bool {
        let found = std::mem::take(&mut self.event);
        self.yielded = self.shares && !found;
        self.yielded
    }

    /// Whether a WFE has ended the turn since this was asked last.
    pub fn take_yield(&mut self) -> bool {
        std::mem::take(&mut self.yielded)
    }

    /// Whether the engine must leave before the next instruction. Engines ask wherever they look for interrupts: after every exception, system
    /// instruction and context change.
    #[inline]
    pub fn take_leave(&mut self) -> bool {
        std::mem::take(&mut self.leave)
    }

    /// Level of the performance monitors' interrupt now, or, of a core whose turn it is not, as its last turn ended.
    pub fn pmu_interrupt(&mut self) -> bool {
        self.cp15.pmu.settle(self.icount);
        self.cp15.pmu.interrupt(self.icount)
    }

    /// SEV (ARM DDI 0406C A8.8.157): an event for this core and all others.
    pub fn send_event(&mut self) {
        self.event = true;
        self.sev = true;
    }

    /// Counts one warp of guest time at this position.
    pub fn note_warp(&mut self) {
        if self.idle_at != self.icount {
            self.idle_at = self.icount;
            self.idle = 0;
        }
        self.idle = self.idle.checked_add(1).expect("fewer than 2^32 warps at one position");
    }

    /// Begins an epoch with the instruction that retires next; call it before `icount` counts that instruction.
    ///
    /// Kept here so that the rule stands in one place: the accessing instruction is number 0 of its epoch.
    #[inline]
    pub fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.epoch_start = self.icount + 1;
    }

    /// Current mode is privileged.
    #[inline]
    pub fn is_privileged(&self) -> bool {
        self.mode.is_privileged()
    }

    /// The core is in Secure state: Monitor mode, or SCR.NS = 0 (ARM DDI 0406C B1.5.1).
    #[inline]
    pub fn is_secure(&self) -> bool {
        self.mode == Mode::Mon || !self.cp15.scr_ns()
    }

    /// Remembers an encoding that took UNDEF only because this CPU model lacks it. Bounded, one entry per encoding.
    pub fn note_undef(&mut self, pc: u32, opcode: u32, thumb: bool) {
        let known = self.undef_notes.iter().any(|n| n.opcode == opcode && n.thumb == thumb);
        if !known && self.undef_notes.len() < MAX_UNDEF_NOTES {
            self.undef_notes.push(UndefNote { pc, opcode, thumb });
        }
    }

    // ---- program status -------------------------------------------------------------------------------------------------------

    /// The CPSR as a whole, J, IT and T included (an MRS shows those as zero: see [`Cpu::mrs_cpsr`]).
    pub fn cpsr(&self) -> u32 {
        let it = u32::from(self.it);
        self.flags.to_psr()
            | self.q << 27
            | (it & 3) << 25
            | u32::from(self.j) << 24
            | (self.ge & 0xf) << 16
            | (it >> 2) << 10
            | u32::from(self.e) << 9
            | u32::from(self.a) << 8
            | u32::from(self.i) << 7
            | u32::from(self.f) << 6
            | u32::from(self.t) << 5
            | self.mode as u32
    }

    /// What MRS reads from the CPSR: execution state bits are zero, and User mode sees the application fields only
    /// (ARM DDI 0406C B9.3.8, and A8.8.109: the rest is UNKNOWN at PL0, shown here as it is).
    pub fn mrs_cpsr(&self) -> u32 {
        self.cpsr() & !(PSR_IT | PSR_J | PSR_T)
    }

    /// Replaces the CPSR without any check: reset, restore, debugger. A reserved mode leaves the mode as it is.
    pub fn set_cpsr(&mut self, value: u32) {
        self.set_cpsr_state(value);
        if let Some(mode) = Mode::from_bits(value) {
            self.set_mode(mode);
        }
    }

    /// Everything in the CPSR but the mode.
    fn set_cpsr_state(&mut self, value: u32) {
        self.flags = Flags::from_psr(value);
        self.q = value >> 27 & 1;
        self.ge = value >> 16 & 0xf;
        self.it = (value >> 25 & 3 | (value >> 10 & 0x3f) << 2) as u8;
        self.j = value & PSR_J != 0;
        self.e = value & PSR_E != 0;
        self.a = value & PSR_A != 0;
        self.i = value & PSR_I != 0;
        self.f = value & PSR_F != 0;
        self.t = value & PSR_T != 0;
    }

    /// `CPSRWriteByInstr` (ARM DDI 0406C B1.3.3): MSR (`ret` false) and exception returns (`ret` true).
    ///
    /// `fields` is the byte mask, bit 3 for bits 31:24 and so on. User mode changes the application fields only. F can be cleared but
    /// not set when SCTLR.NMFI is set. In Non-secure state SCR.AW and SCR.FW guard A and F. A mode change that is UNPREDICTABLE
    /// (reserved mode, Hyp, Monitor from Non-secure state) leaves the mode as it is.
    pub fn write_cpsr(&mut self, value: u32, fields: u32, ret: bool) {
        self.cp15.pmu.retiring(self.icount);
        let privileged = self.is_privileged();
        let secure = self.is_secure();
        let mut mask = 0;
        if fields & 8 != 0 {
            mask |= PSR_NZCV | PSR_Q | if ret { 0x0700_0000 } else { 0 };
        }
        if fields & 4 != 0 {
            mask |= PSR_GE;
        }
        if fields & 2 != 0 {
            mask |= PSR_E | if ret { 0xfc00 } else { 0 };
            if privileged && (secure || self.cp15.scr & 1 << 5 != 0) {
                mask |= PSR_A;
            }
        }
        let mut mode = None;
        if fields & 1 != 0 {
            mask |= if ret { PSR_T } else { 0 };
            if privileged {
                mask |= PSR_I;
                let nmfi = self.cp15.sctlr() & 1 << 27 != 0;
                if (!nmfi || value & PSR_F == 0) && (secure || self.cp15.scr & 1 << 4 != 0) {
                    mask |= PSR_F;
                }
                mode = self.allowed_mode(value, secure);
            }
        }
        self.set_cpsr_state(self.cpsr() & !mask | value & mask);
        if let Some(mode) = mode {
            self.set_mode(mode);
        }
    }

    /// The mode that a CPSR write may switch to, `None` where the architecture says UNPREDICTABLE.
    fn allowed_mode(&self, value: u32, secure: bool) -> Option<Mode> {
        match Mode::from_bits(value)? {
            Mode::Hyp => None,
            Mode::Mon if !secure => None,
            mode => Some(mode),
        }
    }

    /// The current mode's SPSR; User and System have none: reading it is UNPREDICTABLE, 0 here.
    pub fn spsr(&self) -> u32 {
        if self.mode.has_spsr() { self.banked.spsr[self.mode.bank()] } else { 0 }
    }

    /// Sets the current mode's SPSR whole; ignored in User and System mode.
    pub fn set_spsr(&mut self, value: u32) {
        if self.mode.has_spsr() {
            self.banked.spsr[self.mode.bank()] = value;
        }
    }

    /// `SPSRWriteByInstr` (ARM DDI 0406C B1.3.3): MSR to the SPSR; `fields` as in [`Cpu::write_cpsr`].
    pub fn write_spsr(&mut self, value: u32, fields: u32) {
        let mask = if fields & 8 != 0 { 0xff00_0000 } else { 0 }
            | if fields & 4 != 0 { 0x000f_0000 } else { 0 }
            | if fields & 2 != 0 { 0x0000_ff00 } else { 0 }
            | if fields & 1 != 0 { 0x0000_00ff } else { 0 };
        self.set_spsr(self.spsr() & !mask | value & mask);
    }

    // ---- modes and banks ------------------------------------------------------------------------------------------------------

    /// Switches to `mode`: swaps banked registers and selects the TLB view. SPSRs and the rest of the CPSR are untouched.
    pub fn set_mode(&mut self, mode: Mode) {
        let old = self.mode;
        if old == mode {
            return;
        }
        if old.bank() != mode.bank() {
            self.swap_banks(old, mode);
        }
        self.mode = mode;
        if old.is_privileged() != mode.is_privileged() || old == Mode::Mon || mode == Mode::Mon {
            self.update_context();
        }
    }

    fn swap_banks(&mut self, old: Mode, new: Mode) {
        let b = &mut self.banked;
        b.sp[old.bank()] = self.regs[13];
        b.lr[old.bank()] = self.regs[14];
        self.regs[13] = b.sp[new.bank()];
        self.regs[14] = b.lr[new.bank()];
        if (old == Mode::Fiq) != (new == Mode::Fiq) {
            let (save, load) =
                if old == Mode::Fiq { (&mut b.fiq_r8_r12, &b.usr_r8_r12) } else { (&mut b.usr_r8_r12, &b.fiq_r8_r12) };
            let (cur, next) = (&mut self.regs[8..13], *load);
            save.copy_from_slice(cur);
            cur.copy_from_slice(&next);
        }
    }

    /// Register `n` (0-14) as `mode` sees it, whatever the current mode is (LDM/STM `^`, SRS, debugger).
    pub fn reg_of(&self, mode: Mode, n: usize) -> u32 {
        let cur = self.mode;
        match n {
            13 if mode.bank() != cur.bank() => self.banked.sp[mode.bank()],
            14 if mode.bank() != cur.bank() => self.banked.lr[mode.bank()],
            8..=12 if (mode == Mode::Fiq) != (cur == Mode::Fiq) => {
                if mode == Mode::Fiq {
                    self.banked.fiq_r8_r12[n - 8]
                } else {
                    self.banked.usr_r8_r12[n - 8]
                }
            }
            _ => self.regs[n],
        }
    }

    /// Sets register `n` (0-14) as `mode` sees it.
    pub fn set_reg_of(&mut self, mode: Mode, n: usize, value: u32) {
        let cur = self.mode;
        match n {
            13 if mode.bank() != cur.bank() => self.banked.sp[mode.bank()] = value,
            14 if mode.bank() != cur.bank() => self.banked.lr[mode.bank()] = value,
            8..=12 if (mode == Mode::Fiq) != (cur == Mode::Fiq) => {
                let bank = if mode == Mode::Fiq { &mut self.banked.fiq_r8_r12 } else { &mut self.banked.usr_r8_r12 };
                bank[n - 8] = value;
            }
            _ => self.regs[n] = value,
        }
    }

    /// sp, lr and spsr of a bank, current or not.
    pub fn bank_of(&self, bank: usize) -> (u32, u32, u32) {
        if bank == self.mode.bank() {
            (self.regs[13], self.regs[14], self.banked.spsr[bank])
        } else {
            (self.banked.sp[bank], self.banked.lr[bank], self.banked.spsr[bank])
        }
    }

    // ---- VFP and Advanced SIMD registers ----------------------------------------------------------------------------------------

    /// S register `n`, 0-31.
    #[inline]
    pub fn sreg(&self, n: usize) -> u32 {
        self.ext[n]
    }

    /// Sets S register `n`, 0-31.
    #[inline]
    pub fn set_sreg(&mut self, n: usize, value: u32) {
        self.ext[n] = value;
    }

    /// D register `n`, 0-31.
    #[inline]
    pub fn dreg(&self, n: usize) -> u64 {
        u64::from(self.ext[2 * n]) | u64::from(self.ext[2 * n + 1]) << 32
    }

    /// Sets D register `n`, 0-31.
    #[inline]
    pub fn set_dreg(&mut self, n: usize, value: u64) {
        self.ext[2 * n] = value as u32;
        self.ext[2 * n + 1] = (value >> 32) as u32;
    }

    /// Q register `n`, 0-15.
    #[inline]
    pub fn qreg(&self, n: usize) -> u128 {
        u128::from(self.dreg(2 * n)) | u128::from(self.dreg(2 * n + 1)) << 64
    }

    /// Sets Q register `n`, 0-15.
    #[inline]
    pub fn set_qreg(&mut self, n: usize, value: u128) {
        self.set_dreg(2 * n, value as u64);
        self.set_dreg(2 * n + 1, (value >> 64) as u64);
    }

    /// CPACR (and NSACR in Non-secure state) lets the current mode use the VFP and Advanced SIMD coprocessors 10 and 11
    /// (ARM DDI 0406C B1.11.1).
    #[inline]
    pub fn cp10_allowed(&self) -> bool {
        self.cp15.cp_allowed(10, self.is_privileged(), self.is_secure())
    }

    /// VFP instructions other than VMRS/VMSR of the system registers execute: access allowed and FPEXC.EN set.
    #[inline]
    pub fn vfp_enabled(&self) -> bool {
        self.fpexc & FPEXC_EN != 0 && self.cp10_allowed()
    }

    /// Advanced SIMD instructions execute: as VFP, and CPACR.ASEDIS clear.
    #[inline]
    pub fn neon_enabled(&self) -> bool {
        self.vfp_enabled() && self.cp15.cpacr & 1 << 31 == 0
    }
}
