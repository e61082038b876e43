//! System functions: what [`crate::ir::Op::Sys`] calls, and the memory and bus that they and the engines' slow paths see.

use crate::bus::{After, At, Bus, GuestRam, RamWrite};
use crate::cp14::DSCR_UDCCDIS;
use crate::cp15::{self, SysReg};
use crate::ir::{HelperId, MemKind, Size, SysHelper};
use crate::mmu::{Abort, Access, MemType, Phys, View};
use crate::psci::Conduit;
use crate::psr::{BANK_USR, Mode, PSR_F, PSR_I};
use crate::state::Cpu;

/// An exception that is raised instead of completing the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// Undefined instruction.
    Undef,
    /// Data abort.
    Abort(Abort),
}

impl From<Abort> for Trap {
    fn from(a: Abort) -> Self {
        Trap::Abort(a)
    }
}

/// A system function: `f(cpu, ctx, R[a], R[b], imm)`.
pub type SysFn = fn(&mut Cpu, &mut SysCtx<'_>, u32, u32, u32) -> Result<u32, Trap>;

/// Memory and bus, and what happened to them since the engine looked last.
///
/// Whoever calls a function of this keeps `cpu.icount` at the instructions retired before the current one and `cpu.regs[15]` at its address.
pub struct SysCtx<'a> {
    /// Guest RAM.
    pub ram: &'a GuestRam,
    /// Everything else.
    pub bus: &'a mut dyn Bus,
    /// Leave the engine right after this instruction.
    pub exit: bool,
    /// What a block depends on changed, or an interrupt may be taken: look up the next instruction anew.
    pub context: bool,
    /// The current instruction has made an MMIO access.
    pub mmio: bool,
    /// Stores into pages with translated code, and what devices wrote.
    pub code_writes: Vec<RamWrite>,
}

/// Up to two pieces of an access: it crosses a page at most once.
struct Pieces {
    first: Phys,
    second: Option<Phys>,
    /// Bytes in the first piece.
    split: u32,
}

impl<'a> SysCtx<'a> {
    /// A context in which nothing has happened yet.
    pub fn new(ram: &'a GuestRam, bus: &'a mut dyn Bus) -> Self {
        Self { ram, bus, exit: false, context: false, mmio: false, code_writes: Vec::new() }
    }

    /// Something happened that the engine must look at before the next instruction.
    #[inline]
    pub fn diverts(&self) -> bool {
        self.exit || self.context || !self.code_writes.is_empty()
    }

    /// Checks alignment (ARM DDI 0406C A3.2.1) and translates both ends of an access before anything is touched.
    fn pieces(&mut self, cpu: &mut Cpu, va: u32, kind: MemKind, write: bool) -> Result<Pieces, Abort> {
        let len = kind.bytes();
        let natural = 1 << if kind.align == 0 { kind.natural } else { kind.align };
        let unaligned = va & (natural - 1) != 0;
        if unaligned && (kind.align != 0 || cpu.alignment_checked()) {
            return Err(Abort::alignment(va, write));
        }
        self.span(cpu, va, len, kind.user, write, unaligned)
    }

    /// Translates `va..va+len`, at most one page crossing.
    fn span(
        &mut self,
        cpu: &mut Cpu,
        va: u32,
        len: u32,
        user: bool,
        write: bool,
        unaligned: bool,
    ) -> Result<Pieces, Abort> {
        let (access, view) =
            (if write { Access::Write } else { Access::Read }, if user { View::User } else { View::Current });
        let first = cpu.translate(self.ram, va, access, view)?;
        let split = (0x1000 - (va & 0xfff)).min(len);
        let second =
            if split < len { Some(cpu.translate(self.ram, va.wrapping_add(split), access, view)?) } else { None };
        let strict = |p: &Phys| p.mem != MemType::Normal;
        if unaligned && (strict(&first) || second.as_ref().is_some_and(strict)) {
            return Err(Abort::alignment(va, write));
        }
        Ok(Pieces { first, second, split })
    }

    /// Loads as `kind` says, zero-extended to 64 bits; sign extension is up to the caller. Little-endian.
    ///
    /// # Errors
    /// The abort to take; nothing has changed then (but devices may have seen a part of the access).
    pub fn load(&mut self, cpu: &mut Cpu, va: u32, kind: MemKind) -> Result<u64, Abort> {
        let p = self.pieces(cpu, va, kind, false)?;
        self.read_pieces(cpu, va, kind.bytes(), &p)
    }

    /// Stores the low bytes of `value` as `kind` says.
    ///
    /// # Errors
    /// The abort to take; RAM is unchanged then.
    pub fn store(&mut self, cpu: &mut Cpu, va: u32, kind: MemKind, value: u64) -> Result<(), Abort> {
        let p = self.pieces(cpu, va, kind, true)?;
        self.write_pieces(cpu, va, kind.bytes(), &p, value)
    }

    fn read_pieces(&mut self, cpu: &Cpu, va: u32, len: u32, p: &Pieces) -> Result<u64, Abort> {
        let lo = self.read_phys(cpu, va, p.first, p.split)?;
        let Some(second) = p.second else { return Ok(lo) };
        let hi = self.read_phys(cpu, va.wrapping_add(p.split), second, len - p.split)?;
        Ok(lo | hi << (8 * p.split))
    }

    fn write_pieces(&mut self, cpu: &Cpu, va: u32, len: u32, p: &Pieces, value: u64) -> Result<(), Abort> {
        self.write_phys(cpu, va, p.first, p.split, value)?;
        let Some(second) = p.second else { return Ok(()) };
        self.write_phys(cpu, va.wrapping_add(p.split), second, len - p.split, value >> (8 * p.split))
    }

    /// What an access to the bus wants from the engine.
    #[inline]
    fn noticed(&mut self, after: After) {
        self.exit |= after.exit;
        self.mmio = true;
        if after.wrote {
            self.bus.take_dma_writes(self.ram, &mut self.code_writes);
        }
    }

    fn read_phys(&mut self, cpu: &Cpu, va: u32, p: Phys, len: u32) -> Result<u64, Abort> {
        if !p.host.is_null() {
            let mut buf = [0u8; 8];
            // SAFETY: `Phys::host` is valid to the end of its page, and `len` ends there at the latest.
            unsafe { std::ptr::copy_nonoverlapping(p.host, buf.as_mut_ptr(), len as usize) };
            return Ok(u64::from_le_bytes(buf));
        }
        let step = bus_step(p.pa, len);
        let (mut value, mut done) = (0, 0);
        while done < len {
            let (v, after) = self
                .bus
                .read(
                    At { icount: cpu.icount, pc: cpu.regs[15], secure: cpu.is_secure() },
                    p.pa + u64::from(done),
                    step as u8,
                )
                .map_err(|_| Abort::external(va, false))?;
            self.noticed(after);
            value |= (v & mask(step)) << (8 * done);
            done += step;
        }
        Ok(value)
    }

    fn write_phys(&mut self, cpu: &Cpu, va: u32, p: Phys, len: u32, value: u64) -> Result<(), Abort> {
        if !p.host.is_null() {
            let buf = value.to_le_bytes();
            // SAFETY: as in `read_phys`; guest RAM is never borrowed.
            unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), p.host, len as usize) };
            if p.code {
                self.code_writes.push((p.pa, len));
            }
            return Ok(());
        }
        let (step, mut done) = (bus_step(p.pa, len), 0);
        while done < len {
            let v = value >> (8 * done) & mask(step);
            let after = self
                .bus
                .write(
                    At { icount: cpu.icount, pc: cpu.regs[15], secure: cpu.is_secure() },
                    p.pa + u64::from(done),
                    step as u8,
                    v,
                )
                .map_err(|_| Abort::external(va, true))?;
            self.noticed(after);
            done += step;
        }
        Ok(())
    }

    /// Loads `out.len()` (at most 64) consecutive words; word alignment is required, and both ends are probed first.
    ///
    /// # Errors
    /// The abort to take.
    pub fn load_words(&mut self, cpu: &mut Cpu, va: u32, out: &mut [u32]) -> Result<(), Abort> {
        let p = self.words_span(cpu, va, out.len(), false, false)?;
        for (i, w) in out.iter_mut().enumerate() {
            let (at, phys) = word_at(&p, va, i);
            *w = self.read_phys(cpu, at, phys, 4)? as u32;
        }
        Ok(())
    }

    /// Stores consecutive words; as [`Self::load_words`].
    ///
    /// # Errors
    /// The abort to take.
    pub fn store_words(&mut self, cpu: &mut Cpu, va: u32, words: &[u32]) -> Result<(), Abort> {
        let p = self.words_span(cpu, va, words.len(), false, true)?;
        for (i, w) in words.iter().enumerate() {
            let (at, phys) = word_at(&p, va, i);
            self.write_phys(cpu, at, phys, 4, u64::from(*w))?;
        }
        Ok(())
    }

    fn words_span(&mut self, cpu: &mut Cpu, va: u32, n: usize, user: bool, write: bool) -> Result<Pieces, Abort> {
        assert!((1..=64).contains(&n), "1 to 64 words in one access");
        if va & 3 != 0 {
            return Err(Abort::alignment(va, write));
        }
        self.span(cpu, va, 4 * n as u32, user, write, false)
    }

    /// Load-exclusive: loads and tags the address (ARM DDI 0406C A3.4.1). Natural alignment is required.
    ///
    /// # Errors
    /// The abort to take; the monitor is unchanged then.
    pub fn load_exclusive(&mut self, cpu: &mut Cpu, va: u32, size: Size) -> Result<u64, Abort> {
        let p = self.pieces(cpu, va, MemKind::new(size).aligned(size as u8), false)?;
        let value = self.read_pieces(cpu, va, 1 << size as u32, &p)?;
        cpu.excl = crate::state::Exclusive { valid: true, addr: p.first.pa, size: 1 << size as u8 };
        Ok(value)
    }

    /// Store-exclusive: stores if the monitor holds exactly this address and size, and opens it. The address is translated and checked
    /// whether or not the store will pass, as in the manual's pseudocode (`ExclusiveMonitorsPass`, A8.8.212).
    ///
    /// # Errors
    /// The abort to take; the monitor is unchanged then.
    pub fn store_exclusive(&mut self, cpu: &mut Cpu, va: u32, size: Size, value: u64) -> Result<bool, Abort> {
        let p = self.pieces(cpu, va, MemKind::new(size).aligned(size as u8), true)?;
        let e = cpu.excl;
        let pass = e.valid && e.addr == p.first.pa && e.size == 1 << size as u8;
        if pass {
            self.write_pieces(cpu, va, 1 << size as u32, &p, value)?;
        }
        cpu.excl.valid = false;
        Ok(pass)
    }
}

/// Where word `i` of a run lies.
fn word_at(p: &Pieces, va: u32, i: usize) -> (u32, Phys) {
    let off = 4 * i as u32;
    let (base, off_in) = match p.second {
        Some(second) if off >= p.split => (second, off - p.split),
        _ => (p.first, off),
    };
    let host = if base.host.is_null() { base.host } else { base.host.wrapping_add(off_in as usize) };
    (va.wrapping_add(off), Phys { pa: base.pa + u64::from(off_in), host, ..base })
}

/// Bytes a bus access, so that each is aligned and at most a word.
fn bus_step(pa: u64, len: u32) -> u32 {
    let fits = |s: u32| pa % u64::from(s) == 0 && len % s == 0;
    if fits(4) {
        4
    } else if fits(2) {
        2
    } else {
        1
    }
}

fn mask(bytes: u32) -> u64 {
    (1u64 << (8 * bytes)) - 1
}

macro_rules! sys_fns {
    ($($name:ident = $index:literal, $f:ident;)*) => {
        /// Names of the system functions of group 0.
        pub mod id {
            use super::HelperId;
            $(
                #[doc = concat!("`", stringify!($f), "`.")]
                pub const $name: HelperId = HelperId::new(0, $index);
            )*
        }
        /// System functions of the integer core: group 0 of [`crate::ir::SYS_FNS`].
        pub static SYS_FNS: &[SysHelper] = &[$(SysHelper { name: stringify!($f), f: $f }),*];
    };
}

sys_fns! {
    EXCEPTION_RETURN = 0, exception_return;
    MSR_CPSR = 1, msr_cpsr;
    MSR_SPSR = 2, msr_spsr;
    CPS = 3, cps;
    SETEND = 4, setend;
    SRS = 5, srs;
    RFE = 6, rfe;
    MRC = 7, mrc;
    MCR = 8, mcr;
    MCRR = 9, mcrr;
    LDM_USER = 10, ldm_user;
    STM_USER = 11, stm_user;
    MRS_SPSR = 12, mrs_spsr;
    SWP = 13, swp;
    CO_MEM = 14, co_mem;
    HVC = 15, hvc;
}

/// What of the CPU state selects blocks, or lets an interrupt in.
fn sensitive(cpu: &Cpu) -> (Mode, bool, bool) {
    (cpu.mode, cpu.e, cpu.t)
}

/// After a CPSR write: notes whether the next instruction must be looked up anew.
fn after_psr(cpu: &Cpu, ctx: &mut SysCtx<'_>, before: (Mode, bool, bool)) {
    if sensitive(cpu) != before {
        ctx.context = true;
    } else if !cpu.i || !cpu.f {
        let (irq, fiq) = ctx.bus.lines();
        ctx.context |= cpu.pending_interrupt(irq, fiq).is_some();
    }
}

/// `PC = a; CPSR = SPSR`. UNDEF in User and System mode, which have no SPSR (UNPREDICTABLE, B9.3.20).
fn exception_return(cpu: &mut Cpu, _: &mut SysCtx<'_>, a: u32, _: u32, _: u32) -> Result<u32, Trap> {
    if !cpu.mode.has_spsr() {
        return Err(Trap::Undef);
    }
    let spsr = cpu.spsr();
    cpu.exception_return(a, spsr);
    Ok(0)
}

/// `CPSR = a` in the fields of `imm`.
fn msr_cpsr(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, _: u32, fields: u32) -> Result<u32, Trap> {
    let before = sensitive(cpu);
    cpu.write_cpsr(a, fields, false);
    after_psr(cpu, ctx, before);
    Ok(0)
}

/// `SPSR = a` in the fields of `imm`.
fn msr_spsr(cpu: &mut Cpu, _: &mut SysCtx<'_>, a: u32, _: u32, fields: u32) -> Result<u32, Trap> {
    if !cpu.mode.has_spsr() {
        return Err(Trap::Undef);
    }
    cpu.write_spsr(a, fields);
    Ok(0)
}

/// SPSR, UNDEF where there is none.
fn mrs_spsr(cpu: &mut Cpu, _: &mut SysCtx<'_>, _: u32, _: u32, _: u32) -> Result<u32, Trap> {
    if cpu.mode.has_spsr() { Ok(cpu.spsr()) } else { Err(Trap::Undef) }
}

/// CPS: `imm` holds imod (bits 7:6), M (5), mode (4:0), A I F (10:8). A NOP in User mode (B9.3.2).
fn cps(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, _: u32, _: u32, imm: u32) -> Result<u32, Trap> {
    if !cpu.is_privileged() {
        return Ok(0);
    }
    let before = sensitive(cpu);
    let (masks, mut psr) = (imm >> 8 & 7, cpu.cpsr());
    let bits = (masks & 4) << 6 | if masks & 2 != 0 { PSR_I } else { 0 } | if masks & 1 != 0 { PSR_F } else { 0 };
    match imm >> 6 & 3 {
        2 => psr &= !bits,
        3 => psr |= bits,
        _ => {}
    }
    if imm & 0x20 != 0 {
        psr = psr & !0x1f | imm & 0x1f;
    }
    cpu.write_cpsr(psr, 3, false);
    after_psr(cpu, ctx, before);
    Ok(0)
}

/// SETEND: E = imm.
fn setend(cpu: &mut Cpu, _: &mut SysCtx<'_>, _: u32, _: u32, imm: u32) -> Result<u32, Trap> {
    cpu.e = imm != 0;
    Ok(0)
}

/// SRS: stores LR and SPSR on the stack of another mode. `imm`: mode (4:0), offset of the first word (15:8, signed), writeback (16), amount to add
/// to the base (31:24, signed).
fn srs(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, _: u32, _: u32, imm: u32) -> Result<u32, Trap> {
    let Some(mode) = Mode::from_bits(imm) else { return Err(Trap::Undef) };
    let allowed = mode != Mode::Hyp && (mode != Mode::Mon || cpu.is_secure());
    if !cpu.mode.has_spsr() || !allowed {
        return Err(Trap::Undef);
    }
    let base = cpu.reg_of(mode, 13);
    let at = base.wrapping_add((imm >> 8) as i8 as u32);
    let swap = |v: u32| if cpu.e { v.swap_bytes() } else { v };
    let words = [swap(cpu.regs[14]), swap(cpu.spsr())];
    ctx.store_words(cpu, at, &words)?;
    if imm >> 16 & 1 != 0 {
        cpu.set_reg_of(mode, 13, base.wrapping_add((imm >> 24) as i8 as u32));
    }
    Ok(0)
}

/// RFE: loads PC and CPSR from `a`; if `imm` is not 0, register `imm - 1` becomes `b` first.
fn rfe(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, b: u32, imm: u32) -> Result<u32, Trap> {
    if !cpu.is_privileged() {
        return Err(Trap::Undef);
    }
    let mut words = [0; 2];
    ctx.load_words(cpu, a, &mut words)?;
    let [pc, psr] = words.map(|w| if cpu.e { w.swap_bytes() } else { w });
    if imm != 0 {
        cpu.regs[imm as usize - 1] = b;
    }
    cpu.exception_return(pc, psr);
    Ok(0)
}

/// MRC and MRRC: `imm` is the register (23:0) and the slot of the high word (31:24).
fn mrc(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, _: u32, _: u32, imm: u32) -> Result<u32, Trap> {
    let v = cp15::read(cpu, ctx.ram, ctx.bus, SysReg(imm & 0xff_ffff)).map_err(|_| Trap::Undef)?;
    cpu.regs[(imm >> 24) as usize & 63] = (v >> 32) as u32;
    Ok(v as u32)
}

/// MCR.
fn mcr(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, _: u32, imm: u32) -> Result<u32, Trap> {
    write_cp(cpu, ctx, SysReg(imm), a.into())
}

/// MCRR.
fn mcrr(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, b: u32, imm: u32) -> Result<u32, Trap> {
    write_cp(cpu, ctx, SysReg(imm), u64::from(b) << 32 | u64::from(a))
}

fn write_cp(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, reg: SysReg, value: u64) -> Result<u32, Trap> {
    let after = cp15::write(cpu, ctx.ram, ctx.bus, reg, value).map_err(|_| Trap::Undef)?;
    ctx.exit |= after.exit;
    ctx.context |= after.context;
    Ok(0)
}

/// SCTLR.SW: SWP and SWPB are there.
const SCTLR_SW: u32 = 1 << 10;

/// SWP, SWPB (ARM DDI 0406C A8.8.229): loads from `a`, stores `b` there. `imm` 1: a byte.
fn swp(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, b: u32, byte: u32) -> Result<u32, Trap> {
    if cpu.cp15.sctlr() & SCTLR_SW == 0 {
        return Err(Trap::Undef);
    }
    let size = if byte != 0 { Size::Byte } else { Size::Word };
    let kind = MemKind::new(size).aligned(size as u8);
    let swap = |v: u32| if cpu.e && byte == 0 { v.swap_bytes() } else { v };
    let stored = swap(b);
    // Rights and alignment of the store come first, so that a location that can't be written is not read either.
    ctx.pieces(cpu, a, kind, true)?;
    let old = ctx.load(cpu, a, kind)? as u32;
    ctx.store(cpu, a, kind, stored.into())?;
    Ok(if cpu.e && byte == 0 { old.swap_bytes() } else { old })
}

/// LDC to DBGDTRTXint, STC of DBGDTRRXint: nobody is at the other end, so what is loaded is lost and what is stored is 0. `a` is the base,
/// `b` the signed step; `imm`: before the access (bit 0), writeback (1), load (2), base register (11:8).
fn co_mem(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, b: u32, imm: u32) -> Result<u32, Trap> {
    if !cpu.is_privileged() && cpu.cp15.debug.dscr & DSCR_UDCCDIS != 0 {
        return Err(Trap::Undef);
    }
    let at = if imm & 1 != 0 { a.wrapping_add(b) } else { a };
    if imm & 4 != 0 {
        ctx.load_words(cpu, at, &mut [0])?;
    } else {
        ctx.store_words(cpu, at, &[0])?;
    }
    if imm & 2 != 0 {
        cpu.regs[(imm >> 8 & 15) as usize] = a.wrapping_add(b);
    }
    Ok(0)
}

/// HVC: a call of the firmware, where the machine has one that is called so; there is no Hyp mode.
fn hvc(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, _: u32, _: u32, _: u32) -> Result<u32, Trap> {
    if !cpu.calls_firmware(Conduit::Hvc) {
        return Err(Trap::Undef);
    }
    cpu.call_firmware();
    ctx.exit = true;
    Ok(0)
}

/// LDM of User registers: the words from `a` on go to the registers of the list `imm` as User mode sees them.
fn ldm_user(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, _: u32, list: u32) -> Result<u32, Trap> {
    if !cpu.mode.has_spsr() {
        return Err(Trap::Undef);
    }
    let mut words = [0u32; 16];
    let n = list.count_ones() as usize;
    ctx.load_words(cpu, a, &mut words[..n])?;
    for (r, w) in (0..15).filter(|r| list >> r & 1 == 1).zip(words) {
        let w = if cpu.e { w.swap_bytes() } else { w };
        cpu.set_reg_of(Mode::Usr, r, w);
    }
    debug_assert!(Mode::Usr.bank() == BANK_USR);
    Ok(0)
}

/// STM of User registers; `b` is what r15 stores.
fn stm_user(cpu: &mut Cpu, ctx: &mut SysCtx<'_>, a: u32, b: u32, list: u32) -> Result<u32, Trap> {
    if !cpu.mode.has_spsr() {
        return Err(Trap::Undef);
    }
    let words: Vec<u32> = (0..16)
        .filter(|r| list >> r & 1 == 1)
        .map(|r| if r == 15 { b } else { cpu.reg_of(Mode::Usr, r) })
        .map(|w| if cpu.e { w.swap_bytes() } else { w })
        .collect();
    ctx.store_words(cpu, a, &words)?;
    Ok(0)
}
