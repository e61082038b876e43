//! The architectural state as bytes (`docs/state-hash.md`): for the state hash, for anchors, and to save and restore a core.
//!
//! The layout is written once, as a sequence of calls on a [`Sink`]; every struct is taken apart exhaustively, so a new field doesn't
//! compile before somebody has decided where it belongs.

use crate::cp14::Debug;
use crate::cp15::Cp15;
use crate::cp15::a9::Regs;
use crate::gic::{Bits, CpuIf, GicState};
use crate::l2c310::L2State;
use crate::mmu::Reach;
use crate::mpcore::{Compare, Down, Global, MpCoreState, Scu, Watchdog};
use crate::pmu::Pmu;
use crate::psr::BANKS;
use crate::psr::Mode;
use crate::state::{Banked, Cpu, Exclusive};
use crate::timer::{Timer, Timers};
use serde::{Deserialize, Serialize};

/// Version of the layout: the first four bytes of a CPU's and of a GIC's block.
pub const LAYOUT_VERSION: u32 = 3;

/// Puts words into a byte sink, little-endian.
struct Sink<'a>(&'a mut dyn FnMut(&[u8]));

impl Sink<'_> {
    fn u8(&mut self, v: u8) {
        (self.0)(&[v]);
    }

    fn flag(&mut self, v: bool) {
        self.u8(u8::from(v));
    }

    fn u32(&mut self, v: u32) {
        (self.0)(&v.to_le_bytes());
    }

    fn u64(&mut self, v: u64) {
        (self.0)(&v.to_le_bytes());
    }

    fn u32s(&mut self, v: &[u32]) {
        v.iter().for_each(|&w| self.u32(w));
    }

    fn u64s(&mut self, v: &[u64]) {
        v.iter().for_each(|&w| self.u64(w));
    }
}

/// Feeds the architectural state of a core to `sink`, in the layout of `docs/state-hash.md`. Two cores give the same bytes exactly if no
/// program running on them could tell them apart, whatever engine runs them.
pub fn hash_cpu(cpu: &Cpu, sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    s.u32(LAYOUT_VERSION);
    let pos = cpu.pos();
    s.u64(pos.epoch);
    s.u64(pos.count);
    s.u32(pos.idle);
    s.u64(cpu.icount);
    core_registers(cpu, &mut s);
    s.u32s(&cpu.ext);
    s.u32(cpu.fpscr);
    s.u32(cpu.fpexc);
    let Exclusive { valid, addr, size } = cpu.excl;
    s.flag(valid);
    // What an open monitor was last tagged with can't be seen.
    s.u64(if valid { addr } else { 0 });
    s.u8(if valid { size } else { 0 });
    s.flag(cpu.event);
    s.flag(cpu.waiting);
    cp15(&cpu.cp15, cpu.icount, &mut s);
    timers(&cpu.timer, &mut s);
}

/// r0-r15, CPSR, then each mode's own registers whichever mode is current.
fn core_registers(cpu: &Cpu, s: &mut Sink<'_>) {
    s.u32s(&cpu.regs[..16]);
    s.u32(cpu.cpsr());
    for n in 8..13 {
        s.u32(cpu.reg_of(Mode::Usr, n));
    }
    for n in 8..13 {
        s.u32(cpu.reg_of(Mode::Fiq, n));
    }
    for bank in 0..BANKS {
        let (sp, lr, spsr) = cpu.bank_of(bank);
        s.u32s(&[sp, lr, spsr]);
    }
}

fn cp15(c: &Cp15, icount: u64, s: &mut Sink<'_>) {
    let Cp15 {
        bank: _, // derived
        sctlr,
        actlr,
        cpacr,
        scr,
        sder,
        nsacr,
        ttbr0,
        ttbr1,
        ttbcr,
        dacr,
        dfsr,
        ifsr,
        adfsr,
        aifsr,
        dfar,
        ifar,
        par,
        prrr,
        nmrr,
        amair,
        vbar,
        mvbar,
        fcseidr,
        contextidr,
        tpidrurw,
        tpidruro,
        tpidrprw,
        csselr,
        l2ctlr,
        l2ectlr,
        teecr,
        teehbr,
        pmu: monitors,
        debug: dbg,
        a9: own,
    } = c;
    s.u32s(sctlr);
    s.u32s(&[*actlr, *cpacr, *scr, *sder, *nsacr]);
    s.u64s(ttbr0);
    s.u64s(ttbr1);
    for pair in [ttbcr, dacr, dfsr, ifsr, adfsr, aifsr, dfar, ifar] {
        s.u32s(pair);
    }
    s.u64s(par);
    s.u32s(prrr);
    s.u32s(nmrr);
    s.u32s(&amair[0]);
    s.u32s(&amair[1]);
    s.u32s(vbar);
    s.u32(*mvbar);
    for pair in [fcseidr, contextidr, tpidrurw, tpidruro, tpidrprw, csselr] {
        s.u32s(pair);
    }
    s.u32s(&[*l2ctlr, *l2ectlr, *teecr, *teehbr]);
    pmu(monitors, icount, s);
    debug(dbg, s);
    let Regs { power, diagnostic, tlb_lockdown } = own;
    s.u32s(&[*power, *diagnostic, *tlb_lockdown]);
}

/// The counters as they stand at `icount`, not as they stood when somebody last looked.
fn pmu(p: &Pmu, icount: u64, s: &mut Sink<'_>) {
    let Pmu {
        pmcr,
        cnten,
        ovs,
        selr,
        userenr,
        inten,
        evtyper,
        evcntr,
        ccntr,
        fraction,
        synced: _,
        instructions: _,
        level: _,
    } = p.at(icount);
    s.u32s(&[pmcr, cnten, ovs, selr, userenr, inten]);
    s.u32s(&evtyper);
    s.u32s(&evcntr);
    s.u32s(&[ccntr, fraction]);
}

fn debug(d: &Debug, s: &mut Sink<'_>) {
    let Debug { dscr, vcr, bvr, bcr, bxvr, wvr, wcr, os_lock, os_dlock, claim, prcr } = d;
    s.u32s(&[*dscr, *vcr]);
    s.u32s(bvr);
    s.u32s(bcr);
    s.u32s(bxvr);
    s.u32s(wvr);
    s.u32s(wcr);
    s.flag(*os_lock);
    s.flag(*os_dlock);
    s.u32s(&[*claim, *prcr]);
}

fn timers(t: &Timers, s: &mut Sink<'_>) {
    let Timers { hz: _, cntfrq, cntkctl, phys, virt } = t; // hz: configuration
    s.u32s(&[*cntfrq, *cntkctl]);
    for Timer { ctl, cval } in [&phys[0], &phys[1], virt] {
        s.u32(*ctl);
        s.u64(*cval);
    }
}

/// Feeds the state of the interrupt controller to `sink`, in the layout of `docs/state-hash.md`.
pub fn hash_gic(gic: &GicState, sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    let GicState {
        ctlr,
        enabled,
        latch,
        active,
        level,
        edge,
        group1,
        priority_banked,
        priority_shared,
        target,
        sgi,
        cpu,
    } = gic;
    s.u32(LAYOUT_VERSION);
    s.u32(cpu.len() as u32);
    s.u32(target.len() as u32);
    s.u32(*ctlr);
    for Bits { banked, shared } in [enabled, latch, active, level, edge, group1] {
        s.u32s(banked);
        s.u32s(shared);
    }
    priority_banked.iter().for_each(|p| (s.0)(p));
    (s.0)(priority_shared);
    (s.0)(target);
    sgi.iter().for_each(|p| (s.0)(p));
    for CpuIf { ctlr, pmr, bpr, abpr, apr, nsapr } in cpu {
        s.u32(*ctlr);
        (s.0)(&[*pmr, *bpr, *abpr]);
        s.u32s(apr);
        s.u32s(nsapr);
    }
}

/// Feeds what several cores have in common to `sink`, in the layout of `docs/state-hash.md`: how many there are, whose turn it is, and how many
/// instructions are left of it.
pub fn hash_turn(cores: usize, current: usize, left: u64, sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    s.u32(LAYOUT_VERSION);
    s.u32(cores as u32);
    s.u32(current as u32);
    s.u64(left);
}

/// Feeds what the firmware knows to `sink`, in the layout of `docs/state-hash.md`: which cores it has switched off.
pub fn hash_power(cpus: &[Cpu], sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    s.u32(LAYOUT_VERSION);
    s.u32(cpus.len() as u32);
    cpus.iter().for_each(|c| s.flag(c.off));
}

/// Feeds the private peripherals of Cortex-A9 to `sink`, in the layout of `docs/state-hash.md`; `state` is [`MpCore::at`] the final position.
///
/// [`MpCore::at`]: crate::mpcore::MpCore::at
pub fn hash_mpcore(state: &MpCoreState, sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    let MpCoreState { scu, global, timers, watchdogs } = state;
    s.u32(LAYOUT_VERSION);
    s.u32(timers.len() as u32);
    let Scu { control, power, filter, access, ns_access, cpus: _ } = scu; // cpus: configuration
    s.u32s(&[*control, *power, filter[0], filter[1], *access, *ns_access]);
    let Global { control, counter, at, compare } = global;
    s.u32(*control);
    s.u64s(&[*counter, *at]);
    for Compare { control, value, increment, event } in compare {
        s.u32(*control);
        s.u64(*value);
        s.u32(*increment);
        s.flag(*event);
    }
    let mut down = |Down { load, value, control, event, at }: &Down| {
        s.u32s(&[*load, *value, *control]);
        s.flag(*event);
        s.u64(*at);
    };
    timers.iter().for_each(&mut down);
    watchdogs.iter().for_each(|w| down(&w.down));
    for Watchdog { down: _, reset_status, unlocking } in watchdogs {
        s.flag(*reset_status);
        s.flag(*unlocking);
    }
}

/// Feeds the level 2 cache controller to `sink`, in the layout of `docs/state-hash.md`.
pub fn hash_l2(state: &L2State, sink: &mut dyn FnMut(&[u8])) {
    let mut s = Sink(sink);
    let L2State { control, aux, latency, event, int_mask, lockdown, lock_line, filter, debug, prefetch, power } = state;
    s.u32s(&[LAYOUT_VERSION, *control, *aux]);
    s.u32s(latency);
    s.u32s(event);
    s.u32(*int_mask);
    s.u32s(lockdown);
    s.u32(*lock_line);
    s.u32s(filter);
    s.u32s(&[*debug, *prefetch, *power]);
}

/// The hash in anchors: cheap, not cryptographic, and over registers only: r0-r15, CPSR, every bank's sp, lr and spsr, the extension
/// registers, FPSCR, and the registers that say which address space runs. What goes in, and the mixing, are part of the recording format.
pub fn register_hash(cpu: &Cpu) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    let mut mix = |v: u32| {
        h = (h ^ u64::from(v)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= h >> 32;
    };
    core_registers(cpu, &mut Sink(&mut |b| mix(u32::from_le_bytes(b.try_into().expect("words only")))));
    cpu.ext.iter().for_each(|&w| mix(w));
    mix(cpu.fpscr);
    let c = &cpu.cp15;
    let b = c.bank;
    for v in
        [c.sctlr[b], c.ttbr0[b] as u32, c.ttbr1[b] as u32, c.dacr[b], c.contextidr[b], c.tpidrprw[b], c.tpidruro[b]]
    {
        mix(v);
    }
    h
}

/// A core at rest, for checkpoints. The TLB is not in it: whoever takes a checkpoint flushes the TLB at that position, in the run that goes
/// on too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    regs: [u32; 16],
    cpsr: u32,
    banked: Banked,
    ext: Vec<u32>,
    fpscr: u32,
    fpexc: u32,
    icount: u64,
    epoch_start: u64,
    epoch: u64,
    idle: u32,
    idle_at: u64,
    excl: Exclusive,
    event: bool,
    waiting: bool,
    cp15: Cp15,
    timer: Timers,
    halt: Option<String>,
    fault_at: u64,
    fault_run: u32,
    sev: bool,
    off: bool,
}

impl CpuState {
    /// Instructions retired since reset.
    pub fn icount(&self) -> u64 {
        self.icount
    }

    /// Address of the next instruction.
    pub fn pc(&self) -> u32 {
        self.regs[15]
    }
}

/// A saved core that can't be taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The PSR names no mode that this core has.
    #[error("the saved CPSR {0:#010x} names no processor mode: the checkpoint is damaged")]
    Mode(u32),
    /// Not 64 words of extension registers.
    #[error("the saved extension registers are {0} words, not 64: the checkpoint is damaged")]
    Ext(usize),
    /// The position is before its own epoch.
    #[error(
        "the saved position is impossible ({icount} instructions, epoch begun at {epoch_start}): the checkpoint is damaged"
    )]
    Position {
        /// Instructions retired.
        icount: u64,
        /// Where the epoch began.
        epoch_start: u64,
    },
}

impl Cpu {
    /// The core's state as a value.
    pub fn save(&self) -> CpuState {
        let Cpu {
            regs,
            host: _,  // cache
            flags: _, // in the CPSR, like the next ten
            q: _,
            ge: _,
            t: _,
            it: _,
            e: _,
            j: _,
            a: _,
            i: _,
            f: _,
            mode: _,
            ext,
            fpscr,
            fpexc,
            icount,
            epoch_start,
            epoch,
            idle,
            idle_at,
            excl,
            event,
            waiting,
            banked: _, // below: the current mode's slots are stale
            cp15,
            timer,
            model: _, // configuration
            mmu: _,   // cache
            halt,
            undef_notes: _, // bookkeeping of this process
            fault_at,
            fault_run,
            shares: _,  // configuration
            yielded: _, // bookkeeping within a step of the run loop
            leave: _,   // likewise
            sev,
            firmware: _, // configuration
            called: _,   // bookkeeping within a step of the run loop
            off,
        } = self;
        let mut r = [0; 16];
        r.copy_from_slice(&regs[..16]);
        CpuState {
            regs: r,
            cpsr: self.cpsr(),
            banked: self.all_banks(),
            ext: ext.to_vec(),
            fpscr: *fpscr,
            fpexc: *fpexc,
            icount: *icount,
            epoch_start: *epoch_start,
            epoch: *epoch,
            idle: *idle,
            idle_at: *idle_at,
            excl: *excl,
            event: *event,
            waiting: *waiting,
            cp15: cp15.clone(),
            timer: timer.clone(),
            halt: halt.clone(),
            fault_at: *fault_at,
            fault_run: *fault_run,
            sev: *sev,
            off: *off,
        }
    }

    /// Banked registers with the current mode's slots filled in.
    fn all_banks(&self) -> Banked {
        let mut b = Banked::default();
        for bank in 0..BANKS {
            (b.sp[bank], b.lr[bank], b.spsr[bank]) = self.bank_of(bank);
        }
        for n in 8..13 {
            b.usr_r8_r12[n - 8] = self.reg_of(Mode::Usr, n);
            b.fiq_r8_r12[n - 8] = self.reg_of(Mode::Fiq, n);
        }
        b
    }

    /// Takes over a saved state; model and configuration stay. The TLB is empty afterwards.
    ///
    /// # Errors
    /// If the state is damaged; the core is unchanged then.
    pub fn restore(&mut self, state: CpuState) -> Result<(), RestoreError> {
        let CpuState {
            regs,
            cpsr,
            banked,
            ext,
            fpscr,
            fpexc,
            icount,
            epoch_start,
            epoch,
            idle,
            idle_at,
            excl,
            event,
            waiting,
            cp15,
            timer,
            halt,
            fault_at,
            fault_run,
            sev,
            off,
        } = state;
        let mode = Mode::from_bits(cpsr).ok_or(RestoreError::Mode(cpsr))?;
        let ext: [u32; 64] = ext.try_into().map_err(|v: Vec<u32>| RestoreError::Ext(v.len()))?;
        // The instruction that began an epoch may be the one that retires next.
        if epoch_start > icount {
            return Err(RestoreError::Position { icount, epoch_start });
        }
        self.mode = mode;
        self.set_cpsr(cpsr);
        self.regs[..16].copy_from_slice(&regs);
        (self.banked, self.ext, self.fpscr, self.fpexc) = (banked, ext, fpscr, fpexc);
        (self.icount, self.epoch_start, self.epoch, self.idle, self.idle_at) =
            (icount, epoch_start, epoch, idle, idle_at);
        (self.excl, self.event, self.waiting) = (excl, event, waiting);
        (self.cp15, self.timer, self.halt) = (cp15, timer, halt);
        (self.fault_at, self.fault_run, self.sev, self.yielded) = (fault_at, fault_run, sev, false);
        (self.leave, self.called, self.off) = (false, false, off);
        self.mmu.flush_all(Reach::All);
        self.update_context();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gic::{Gic, GicConfig};
    use crate::models::Model;

    fn cpu() -> Cpu {
        let mut c = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 24_000_000));
        for (i, r) in c.regs.iter_mut().enumerate() {
            *r = i as u32 * 0x101;
        }
        c.set_mode(Mode::Fiq);
        for i in 8..15 {
            c.regs[i] = 0xf00 + i as u32;
        }
        c.set_mode(Mode::Irq);
        c.set_cpsr(0x6000_0192 | 0x0600_0400);
        c.set_spsr(0x1234_5678);
        c.icount = 1000;
        c.epoch_start = 990;
        c.epoch = 3;
        c
    }

    fn bytes(c: &Cpu) -> Vec<u8> {
        let mut out = Vec::new();
        hash_cpu(c, &mut |b| out.extend_from_slice(b));
        out
    }

    #[test]
    fn documented_offsets() {
        let c = cpu();
        let b = bytes(&c);
        let word = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), LAYOUT_VERSION);
        assert_eq!((word(4), word(12), word(20), word(24)), (3, 10, 0, 1000));
        assert_eq!(word(32 + 4 * 5), 5 * 0x101, "r5");
        assert_eq!(word(96), c.cpsr());
        assert_eq!(word(100), 8 * 0x101, "User's r8");
        assert_eq!(word(120), 0xf08, "FIQ's r8");
        assert_eq!(word(140 + 5 * 12), 0xf0d, "FIQ's sp");
        assert_eq!(word(140 + 4 * 12 + 8), 0x1234_5678, "IRQ's spsr");
        assert_eq!(b.len(), 1006, "docs/state-hash.md names the size");
    }

    #[test]
    fn mode_does_not_hide_registers() {
        let c = cpu();
        for mode in [Mode::Svc, Mode::Fiq, Mode::Usr] {
            let mut other = c.clone();
            other.set_mode(mode);
            let (a, mut b) = (bytes(&c), bytes(&other));
            b[32..100].copy_from_slice(&a[32..100]);
            assert!(a == b, "banks look the same from {mode:?}");
        }
    }

    #[test]
    fn every_register_counts() {
        let c = cpu();
        let (base, reg) = (bytes(&c), register_hash(&c));
        type Change = fn(&mut Cpu);
        let changes: [(&str, Change); 8] = [
            ("r7", |c| c.regs[7] ^= 1),
            ("flags", |c| c.flags.c ^= 1),
            ("IT", |c| c.it ^= 4),
            ("svc sp", |c| c.banked.sp[1] ^= 1),
            ("d31", |c| c.ext[63] ^= 1),
            ("fpscr", |c| c.fpscr ^= 1 << 22),
            ("dacr", |c| c.cp15.dacr[0] ^= 1),
            ("fiq r9", |c| c.banked.fiq_r8_r12[1] ^= 1),
        ];
        for (name, f) in changes {
            let mut d = c.clone();
            f(&mut d);
            assert_ne!(bytes(&d), base, "{name}");
            assert_ne!(register_hash(&d), reg, "{name}");
        }
        let mut d = c.clone();
        d.regs[20] = 77;
        d.banked.sp[4] = 77;
        d.flags.n |= 1;
        assert_eq!(bytes(&d), base, "temporaries, stale slots and spare flag bits are no state");
        assert_eq!(register_hash(&d), reg);
        d.cp15.pmu.cnten ^= 1;
        assert_ne!(bytes(&d), base);
    }

    #[test]
    fn counters_hash_the_same_whenever_they_were_read() {
        let mut c = cpu();
        let m = c.model.clone();
        c.cp15.pmu.write(&m, 1000, crate::pmu::PmuReg::CntenSet, 1 << 31);
        c.cp15.pmu.write(&m, 1000, crate::pmu::PmuReg::Cr, 1);
        c.icount = 2000;
        let unread = bytes(&c);
        c.cp15.pmu.read(&m, 1500, crate::pmu::PmuReg::Ccntr);
        assert_eq!(bytes(&c), unread);
    }

    #[test]
    fn save_restore_save() {
        let c = cpu();
        let saved = c.save();
        let mut d = Cpu::new(c.model.clone());
        d.restore(saved.clone()).unwrap();
        assert_eq!(d.save(), saved);
        assert_eq!(bytes(&d), bytes(&c));
        d.set_mode(Mode::Usr);
        assert_eq!(d.regs[13], c.reg_of(Mode::Usr, 13));
        let bad = CpuState { cpsr: 0, ..saved.clone() };
        assert_eq!(d.restore(bad), Err(RestoreError::Mode(0)));
        assert!(d.restore(CpuState { ext: vec![], ..saved.clone() }).is_err());
        assert!(d.restore(CpuState { icount: 5, epoch_start: 6, ..saved }).is_err());
    }

    #[test]
    fn gic_layout() {
        let mut g = Gic::new(GicConfig::cortex_a15(1, 160));
        let hash = |g: &Gic| {
            let mut out = Vec::new();
            hash_gic(g.state(), &mut |b| out.extend_from_slice(b));
            out
        };
        let a = hash(&g);
        assert_eq!(a.len(), 16 + 6 * 24 + 32 + 160 + 160 + 16 + 4 + 3 + 32);
        g.set_spi(3, true);
        assert_ne!(hash(&g), a);
    }

    #[test]
    fn private_peripherals_and_cache_controller_layout() {
        use crate::l2c310::{L2Config, L2c310};
        use crate::mpcore::MpCore;
        let bytes = |p: &MpCore, now| {
            let mut out = Vec::new();
            hash_mpcore(&p.at(now), &mut |b| out.extend_from_slice(b));
            out
        };
        let mut p = MpCore::new(2, 100_000_000);
        assert_eq!(bytes(&p, 0).len(), 8 + 24 + 20 + 2 * 17 + 4 * 21 + 2 * 2, "docs/state-hash.md names the size");
        // A private timer and the global timer that run, with prescalers.
        p.write(1, true, 1_000, 0x600, 4, 1_000_000);
        p.write(1, true, 1_000, 0x608, 4, 0x0303);
        p.write(0, true, 1_000, 0x208, 4, 0x0201);
        let unread = bytes(&p, 98_765);
        p.read(0, true, 50_005, 0x200, 4);
        assert_eq!(bytes(&p, 98_765), unread, "the same whenever they were read");
        assert_ne!(bytes(&p, 98_775), unread, "a part of a step counts");
        let mut c = L2c310::new(L2Config { way_size: 65536, ways: 8 });
        let l2 = |c: &L2c310| {
            let mut out = Vec::new();
            hash_l2(c.state(), &mut |b| out.extend_from_slice(b));
            out
        };
        let before = l2(&c);
        assert_eq!(before.len(), 124, "docs/state-hash.md names the size");
        c.write(true, 0x100, 1);
        assert_ne!(l2(&c), before);
    }
}
