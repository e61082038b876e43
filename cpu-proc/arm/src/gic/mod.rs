//! The interrupt controller: GICv2 with the Security Extensions (ARM IHI 0048B), as the Cortex-A15 MPCore integrates it
//! (TRM DDI 0438 chapter 8). Pure: levels in, levels out, and registers.
//!
//! An interrupt's pending state is `latch | level` if it is level-sensitive, `latch` if it is edge-triggered. Of the interrupts that
//! are enabled, pending, not active and targeted at a core, the one with the lowest priority value (then the lowest ID) is the core's
//! candidate; it is signalled when its priority beats the mask and its group priority beats the running priority. Active priorities
//! are kept as the architecture's own APR bitmaps, so the running priority needs no stack.

mod cpuif;
mod dist;
pub mod regs;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Most cores that a GICv2 serves.
pub const MAX_CPUS: usize = 8;
/// Interrupt ID that says: nothing (or nothing for you) pending.
pub const SPURIOUS: u32 = 1023;
/// Interrupt ID that says: a Group 1 interrupt is pending, which this Secure read does not acknowledge.
pub const SPURIOUS_GROUP1: u32 = 1022;

/// What distinguishes one implementation from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GicConfig {
    /// Cores, 1-8.
    pub cpus: usize,
    /// Shared peripheral interrupts, a multiple of 32, at most 960 (IDs 32 and up).
    pub spis: usize,
    /// Implemented priority bits, 4-8.
    pub priority_bits: u32,
    /// GICD_IIDR.
    pub dist_iidr: u32,
    /// GICC_IIDR.
    pub cpu_iidr: u32,
    /// The version of the architecture: 1 has no GICC_AIAR, GICC_AEOIR, GICC_AHPPIR, GICC_DIR, no active priority and pending SGI registers and
    /// no EOImode; ICPIDR2 names it.
    pub version: u32,
    /// Which of IDs 0-31 are edge-triggered; that can't be changed.
    pub private_edge: u32,
    /// The Security Extensions are there. Without them there is one view of every register, which with them is the Secure one (IHI 0048B 3.9).
    pub security: bool,
}

impl GicConfig {
    /// The Cortex-A15 MPCore's (TRM DDI 0438 8.2, 8.3): 5 priority bits; the number of SPIs is a choice of the chip, 160 on the
    /// CoreTile.
    pub fn cortex_a15(cpus: usize, spis: usize) -> GicConfig {
        GicConfig {
            cpus,
            spis,
            priority_bits: 5,
            dist_iidr: 0x0000_043b,
            cpu_iidr: 0x0002_043b,
            version: 2,
            private_edge: 0xffff,
            security: true,
        }
    }

    /// The Cortex-A9 MPCore's (TRM DDI 0407 chapter 3), a GICv1: 5 priority bits, at most 224 SPIs. The global timer, private timer and
    /// watchdog (IDs 27, 29, 30) are edge-triggered.
    pub fn cortex_a9(cpus: usize, spis: usize) -> GicConfig {
        GicConfig {
            cpus,
            spis,
            priority_bits: 5,
            dist_iidr: 0x0102_043b,
            cpu_iidr: 0x3901_243b,
            version: 1,
            private_edge: 0x6800_ffff,
            security: true,
        }
    }

    /// The lowest GICC_BPR: with it every implemented priority bit takes part in preemption.
    fn min_bpr(&self) -> u8 {
        7u8.saturating_sub(self.priority_bits as u8)
    }
}

/// A property of every interrupt, one bit each; IDs 0-31 are banked by core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    /// IDs 0-31 of each core.
    pub banked: Vec<u32>,
    /// IDs 32 and up.
    pub shared: Vec<u32>,
}

impl Bits {
    fn new(cfg: &GicConfig, banked: u32) -> Bits {
        Bits { banked: vec![banked; cfg.cpus], shared: vec![0; cfg.spis / 32] }
    }

    /// Word `w` (IDs 32w to 32w+31) as core `cpu` sees it; 0 beyond the last.
    fn word(&self, cpu: usize, w: usize) -> u32 {
        if w == 0 { self.banked[cpu] } else { self.shared.get(w - 1).copied().unwrap_or(0) }
    }

    fn word_mut(&mut self, cpu: usize, w: usize) -> Option<&mut u32> {
        if w == 0 { self.banked.get_mut(cpu) } else { self.shared.get_mut(w - 1) }
    }

    fn get(&self, cpu: usize, id: u32) -> bool {
        self.word(cpu, id as usize / 32) >> (id % 32) & 1 != 0
    }

    fn set(&mut self, cpu: usize, id: u32, on: bool) {
        if let Some(w) = self.word_mut(cpu, id as usize / 32) {
            *w = *w & !(1 << (id % 32)) | u32::from(on) << (id % 32);
        }
    }
}

/// Registers of one CPU interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuIf {
    /// GICC_CTLR, Secure view.
    pub ctlr: u32,
    /// GICC_PMR, Secure view.
    pub pmr: u8,
    /// GICC_BPR, Secure copy.
    pub bpr: u8,
    /// GICC_ABPR: the Non-secure copy of GICC_BPR.
    pub abpr: u8,
    /// Active priorities of Group 0: bit n is group priority n << 3 (with all of 8 priority bits: see [`Gic::level`]).
    pub apr: [u32; 4],
    /// Active priorities of Group 1.
    pub nsapr: [u32; 4],
}

/// Everything that changes: the part of the controller that is saved and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GicState {
    /// GICD_CTLR, Secure view: EnableGrp0, EnableGrp1.
    pub ctlr: u32,
    /// GICD_ISENABLER.
    pub enabled: Bits,
    /// Pending by software or by an edge.
    pub latch: Bits,
    /// GICD_ISACTIVER.
    pub active: Bits,
    /// Input levels.
    pub level: Bits,
    /// Edge-triggered.
    pub edge: Bits,
    /// Group 1.
    pub group1: Bits,
    /// Priorities of IDs 0-31, by core.
    pub priority_banked: Vec<[u8; 32]>,
    /// Priorities of the SPIs.
    pub priority_shared: Vec<u8>,
    /// Target lists of the SPIs.
    pub target: Vec<u8>,
    /// Pending SGIs: source cores, by target core and SGI.
    pub sgi: Vec<[u8; 16]>,
    /// CPU interfaces.
    pub cpu: Vec<CpuIf>,
}

/// What a core is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    id: u32,
    priority: u8,
    group1: bool,
}

/// The controller.
#[derive(Debug, Clone)]
pub struct Gic {
    cfg: GicConfig,
    s: GicState,
    /// Cache of the outputs: (IRQ, FIQ) by core.
    out: Vec<(bool, bool)>,
}

/// A saved state that does not fit the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the saved interrupt controller state does not fit {cpus} cores and {spis} SPIs: it was saved from another machine"
)]
pub struct GicMismatch {
    cpus: usize,
    spis: usize,
}

impl Gic {
    /// A controller out of reset: everything disabled, all interrupts in Group 0.
    ///
    /// # Panics
    /// If the configuration is outside the limits that [`GicConfig`] names.
    pub fn new(cfg: GicConfig) -> Gic {
        assert!((1..=MAX_CPUS).contains(&cfg.cpus), "1 to 8 cores");
        assert!(cfg.spis % 32 == 0 && cfg.spis <= 960, "SPIs come in blocks of 32, at most 960");
        assert!((4..=8).contains(&cfg.priority_bits), "4 to 8 priority bits");
        let min_bpr = cfg.min_bpr();
        let cpu = CpuIf { ctlr: 0, pmr: 0, bpr: min_bpr, abpr: min_bpr + 1, apr: [0; 4], nsapr: [0; 4] };
        let s = GicState {
            ctlr: 0,
            // SGIs are always enabled and edge-triggered.
            enabled: Bits::new(&cfg, 0xffff),
            latch: Bits::new(&cfg, 0),
            active: Bits::new(&cfg, 0),
            level: Bits::new(&cfg, 0),
            edge: Bits::new(&cfg, cfg.private_edge),
            group1: Bits::new(&cfg, 0),
            priority_banked: vec![[0; 32]; cfg.cpus],
            priority_shared: vec![0; cfg.spis],
            target: vec![0; cfg.spis],
            sgi: vec![[0; 16]; cfg.cpus],
            cpu: vec![cpu; cfg.cpus],
        };
        let out = vec![(false, false); cfg.cpus];
        Gic { cfg, s, out }
    }

    /// The configuration.
    pub fn config(&self) -> &GicConfig {
        &self.cfg
    }

    /// Drives SPI `n` (interrupt ID 32 + n). Numbers that don't exist are ignored.
    pub fn set_spi(&mut self, n: u32, level: bool) {
        if (n as usize) < self.cfg.spis {
            self.set_input(0, 32 + n, level);
        }
    }

    /// Drives private interrupt `id` (16-31) of core `cpu`.
    pub fn set_ppi(&mut self, cpu: usize, id: u32, level: bool) {
        assert!((16..32).contains(&id) && cpu < self.cfg.cpus, "no PPI {id} on core {cpu}");
        self.set_input(cpu, id, level);
    }

    fn set_input(&mut self, cpu: usize, id: u32, level: bool) {
        let was = self.s.level.get(cpu, id);
        if was == level {
            return;
        }
        self.s.level.set(cpu, id, level);
        if level && self.s.edge.get(cpu, id) {
            self.s.latch.set(cpu, id, true);
        }
        self.update();
    }

    /// The lines into core `cpu`: (IRQ, FIQ).
    #[inline]
    pub fn lines(&self, cpu: usize) -> (bool, bool) {
        self.out[cpu]
    }

    /// The state, for checkpoints and hashes.
    pub fn save(&self) -> GicState {
        self.s.clone()
    }

    /// The state, to look at.
    pub fn state(&self) -> &GicState {
        &self.s
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// If it was saved from a controller of another shape.
    pub fn restore(&mut self, state: GicState) -> Result<(), GicMismatch> {
        let (cpus, spis) = (self.cfg.cpus, self.cfg.spis);
        if !state.fits(cpus, spis) {
            return Err(GicMismatch { cpus, spis });
        }
        self.s = state;
        self.update();
        Ok(())
    }

    /// Whether an access from this security state has the Secure view.
    fn view(&self, secure: bool) -> bool {
        secure || !self.cfg.security
    }

    // ---- priorities -----------------------------------------------------------------------------------------------------------------

    /// Bits of a priority that exist.
    fn priority_mask(&self) -> u8 {
        (0xff00u32 >> self.cfg.priority_bits) as u8
    }

    fn priority(&self, cpu: usize, id: u32) -> u8 {
        match id {
            0..32 => self.s.priority_banked[cpu][id as usize],
            _ => self.s.priority_shared.get(id as usize - 32).copied().unwrap_or(0),
        }
    }

    /// The part of a priority that decides about preemption (IHI 0048B 3.3.3). Group 1 uses GICC_ABPR, whose field is one bit wider for the
    /// same value, unless GICC_CTLR.CBPR makes it share GICC_BPR.
    fn group_priority(&self, cpu: usize, priority: u8, group1: bool) -> u8 {
        let c = &self.s.cpu[cpu];
        let shift = if group1 && c.ctlr & regs::CTLR_CBPR == 0 { u32::from(c.abpr) } else { u32::from(c.bpr) + 1 };
        (u32::from(priority) >> shift << shift) as u8
    }

    /// Bit number of a group priority in the APRs: there is one bit for each of the 2^(priority_bits) levels, at most 128.
    fn level(&self, group_priority: u8) -> usize {
        usize::from(group_priority) >> (8 - self.cfg.priority_bits.min(7))
    }

    /// Priority of what the core is handling, 0x100 if nothing.
    fn running(&self, cpu: usize) -> u32 {
        let c = &self.s.cpu[cpu];
        (0..4).find(|&w| c.apr[w] | c.nsapr[w] != 0).map_or(0x100, |w| {
            let level = w as u32 * 32 + (c.apr[w] | c.nsapr[w]).trailing_zeros();
            level << (8 - self.cfg.priority_bits.min(7))
        })
    }

    // ---- delivery -------------------------------------------------------------------------------------------------------------------

    /// Pending state of a word of interrupts, before masks.
    fn pending_word(&self, cpu: usize, w: usize) -> u32 {
        let s = &self.s;
        s.latch.word(cpu, w) | s.level.word(cpu, w) & !s.edge.word(cpu, w)
    }

    /// An SPI goes to `cpu`. With a single core there are no target lists (IHI 0048B 4.3.12).
    fn targets(&self, cpu: usize, id: u32) -> bool {
        id < 32 || self.cfg.cpus == 1 || self.s.target[id as usize - 32] >> cpu & 1 != 0
    }

    /// The highest-priority pending interrupt of a core whose group the Distributor forwards.
    fn candidate(&self, cpu: usize) -> Option<Candidate> {
        let s = &self.s;
        let groups = s.ctlr & 3;
        if groups == 0 {
            return None;
        }
        let mut best: Option<Candidate> = None;
        for w in 0..=s.enabled.shared.len() {
            let group1 = s.group1.word(cpu, w);
            let forwarded = if groups & 1 != 0 { !group1 } else { 0 } | if groups & 2 != 0 { group1 } else { 0 };
            let mut set = self.pending_word(cpu, w) & s.enabled.word(cpu, w) & !s.active.word(cpu, w) & forwarded;
            while set != 0 {
                let id = w as u32 * 32 + set.trailing_zeros();
                set &= set - 1;
                let priority = self.priority(cpu, id);
                if self.targets(cpu, id) && best.is_none_or(|b| priority < b.priority) {
                    best = Some(Candidate { id, priority, group1: s.group1.get(cpu, id) });
                }
            }
        }
        best
    }

    /// The candidate, if the CPU interface signals it: group enabled, priority above the mask, and above what runs.
    fn signalled(&self, cpu: usize) -> Option<Candidate> {
        let best = self.candidate(cpu)?;
        let c = &self.s.cpu[cpu];
        let enable = if best.group1 { regs::CTLR_GRP1 } else { regs::CTLR_GRP0 };
        let group = self.group_priority(cpu, best.priority, best.group1);
        let wins = c.ctlr & enable != 0 && best.priority < c.pmr && u32::from(group) < self.running(cpu);
        wins.then_some(best)
    }

    /// Recomputes the outputs; called after every change.
    fn update(&mut self) {
        for cpu in 0..self.cfg.cpus {
            let fiq_on = self.s.cpu[cpu].ctlr & regs::CTLR_FIQEN != 0;
            self.out[cpu] = match self.signalled(cpu) {
                None => (false, false),
                Some(c) if !c.group1 && fiq_on => (false, true),
                Some(_) => (true, false),
            };
        }
    }
}

impl GicState {
    /// Whether every table has the size that so many cores and SPIs ask for.
    fn fits(&self, cpus: usize, spis: usize) -> bool {
        let GicState {
            ctlr: _,
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
        } = self;
        let bits = [enabled, latch, active, level, edge, group1];
        bits.iter().all(|b| b.banked.len() == cpus && b.shared.len() == spis / 32)
            && priority_banked.len() == cpus
            && priority_shared.len() == spis
            && target.len() == spis
            && sgi.len() == cpus
            && cpu.len() == cpus
    }
}
