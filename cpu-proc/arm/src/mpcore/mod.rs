//! The private memory region of Cortex-A9 MPCore (TRM DDI 0407): snoop control unit, global timer, private timers and watchdogs. The interrupt
//! controller, which lies there too, is [`crate::gic`].
//!
//! Pure: guest time in, interrupt levels and registers out. Every counter is a function of guest time and of what software wrote, so
//! nothing of it needs a log. PERIPHCLK clocks them all; its frequency is a property of the machine.

mod global;
mod private;
mod scu;
#[cfg(test)]
mod tests;

pub use global::{Compare, Global};
pub use private::{Down, Watchdog};
pub use scu::Scu;

use crate::timer::{first_ns, ticks};
use serde::{Deserialize, Serialize};

/// PPI of the global timer's comparator, as a GIC interrupt ID (TRM 3.1.2).
pub const PPI_GLOBAL: u32 = 27;
/// PPI of the private timer.
pub const PPI_PRIVATE: u32 = 29;
/// PPI of the watchdog in timer mode.
pub const PPI_WATCHDOG: u32 = 30;

/// The register blocks, as (offset from PERIPHBASE, size); TRM table 1-3. The interrupt controller's lie at 0x100 and 0x1000.
pub const BLOCKS: [(u32, u32); 3] = [(SCU, 0x100), (GLOBAL, 0x100), (PRIVATE, 0x100)];
const SCU: u32 = 0x000;
const GLOBAL: u32 = 0x200;
const PRIVATE: u32 = 0x600;
const WATCHDOG: u32 = 0x620;

/// Everything that changes: what is saved and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MpCoreState {
    /// Snoop control unit.
    pub scu: Scu,
    /// Global timer.
    pub global: Global,
    /// Private timers, by core.
    pub timers: Vec<Down>,
    /// Watchdogs, by core.
    pub watchdogs: Vec<Watchdog>,
}

/// The peripherals.
#[derive(Debug, Clone)]
pub struct MpCore {
    hz: u32,
    s: MpCoreState,
}

/// A saved state that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the saved private peripherals are those of another number of cores than {cpus}: they were saved from another machine"
)]
pub struct MpCoreMismatch {
    cpus: usize,
}

impl MpCore {
    /// The peripherals of `cpus` cores (1-4) out of reset, clocked with `hz` Hz (PERIPHCLK, not 0).
    pub fn new(cpus: usize, hz: u32) -> MpCore {
        assert!((1..=4).contains(&cpus) && hz > 0, "a Cortex-A9 cluster has 1 to 4 cores and a clock");
        let s = MpCoreState {
            scu: Scu::reset(cpus),
            global: Global::reset(cpus),
            timers: vec![Down::default(); cpus],
            watchdogs: vec![Watchdog::default(); cpus],
        };
        MpCore { hz, s }
    }

    /// How many cores there are.
    pub fn cpus(&self) -> usize {
        self.s.timers.len()
    }

    /// Brings the counters up to guest time `now` (ns), which never goes back.
    pub fn advance(&mut self, now: u64) {
        let tick = ticks(self.hz, now);
        self.s.global.advance(tick);
        self.s.timers.iter_mut().for_each(|t| t.advance(tick));
        self.s.watchdogs.iter_mut().for_each(|w| w.advance(tick));
    }

    /// Levels of core `cpu`'s interrupts, as of the last [`MpCore::advance`] or access.
    pub fn lines(&self, cpu: usize) -> [(u32, bool); 3] {
        [
            (PPI_GLOBAL, self.s.global.line(cpu)),
            (PPI_PRIVATE, self.s.timers[cpu].line()),
            (PPI_WATCHDOG, self.s.watchdogs[cpu].line()),
        ]
    }

    /// A watchdog has run out and asks for a reset of the machine.
    pub fn reset_request(&self) -> bool {
        self.s.watchdogs.iter().any(|w| w.reset_status)
    }

    /// The next guest time (ns) at which a line rises, or a reset is asked for, by itself.
    pub fn deadline(&self) -> Option<u64> {
        let timers = self.s.timers.iter().filter_map(Down::deadline);
        let dogs = self.s.watchdogs.iter().filter_map(Watchdog::deadline);
        let tick = timers.chain(dogs).chain(self.s.global.deadline()).min()?;
        first_ns(self.hz, tick)
    }

    /// Reads at `offset` from PERIPHBASE (in one of [`BLOCKS`], aligned to `size`, 1, 2, 4 or 8) as core `cpu` does at guest time `now`.
    pub fn read(&mut self, cpu: usize, secure: bool, now: u64, offset: u32, size: u8) -> u64 {
        self.advance(now);
        if size == 8 {
            return u64::from(self.word(cpu, secure, offset)) | u64::from(self.word(cpu, secure, offset + 4)) << 32;
        }
        let mask = if size >= 4 { !0 } else { (1 << (8 * u32::from(size))) - 1 };
        u64::from(self.word(cpu, secure, offset & !3) >> ((offset & 3) * 8) & mask)
    }

    fn word(&self, cpu: usize, secure: bool, offset: u32) -> u32 {
        match offset {
            SCU..0x100 => self.s.scu.read(offset),
            _ if !self.s.scu.allows(cpu, secure, offset >= PRIVATE) => 0,
            GLOBAL..0x300 => self.s.global.read(cpu, offset - GLOBAL),
            PRIVATE..WATCHDOG => self.s.timers[cpu].read(offset - PRIVATE),
            WATCHDOG..0x700 => self.s.watchdogs[cpu].read(offset - WATCHDOG),
            _ => 0,
        }
    }

    /// Writes at `offset` from PERIPHBASE, as [`MpCore::read`] reads. Lines and deadline may have changed after it. A narrow write sets the rest of
    /// its register to zero, but for the byte-wise power status.
    pub fn write(&mut self, cpu: usize, secure: bool, now: u64, offset: u32, size: u8, value: u64) {
        self.advance(now);
        let tick = ticks(self.hz, now);
        if size == 8 {
            self.put(cpu, secure, tick, offset, value as u32);
            return self.put(cpu, secure, tick, offset + 4, (value >> 32) as u32);
        }
        let shift = (offset & 3) * 8;
        let mask = if size >= 4 { !0 } else { ((1 << (8 * u32::from(size))) - 1) << shift };
        let keep = if offset & !3 == scu::POWER { self.s.scu.read(scu::POWER) & !mask } else { 0 };
        self.put(cpu, secure, tick, offset & !3, keep | (value as u32) << shift & mask);
    }

    fn put(&mut self, cpu: usize, secure: bool, tick: u64, offset: u32, value: u32) {
        match offset {
            SCU..0x100 => self.s.scu.write(cpu, secure, offset, value),
            _ if !self.s.scu.allows(cpu, secure, offset >= PRIVATE) => {}
            GLOBAL..0x300 => self.s.global.write(cpu, tick, offset - GLOBAL, value),
            PRIVATE..WATCHDOG => self.s.timers[cpu].write(tick, offset - PRIVATE, value),
            WATCHDOG..0x700 => self.s.watchdogs[cpu].write(tick, offset - WATCHDOG, value),
            _ => {}
        }
    }

    /// The state as a read at guest time `now` would find it, for the state hash: the same whenever the counters were looked at before. Ticks
    /// since a counter's last step stand in place of absolute times.
    pub fn at(&self, now: u64) -> MpCoreState {
        let mut copy = self.clone();
        copy.advance(now);
        let tick = ticks(self.hz, now);
        copy.s.global.at = if copy.s.global.runs() { tick - copy.s.global.at } else { 0 };
        for d in copy.s.timers.iter_mut().chain(copy.s.watchdogs.iter_mut().map(|w| &mut w.down)) {
            d.at = if d.runs() { tick - d.at } else { 0 };
        }
        copy.s
    }

    /// The state, for checkpoints.
    pub fn save(&self) -> MpCoreState {
        self.s.clone()
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// If it was saved from another number of cores.
    pub fn restore(&mut self, state: MpCoreState) -> Result<(), MpCoreMismatch> {
        let cpus = self.cpus();
        let fits = [state.timers.len(), state.watchdogs.len(), state.global.compare.len()].iter().all(|n| *n == cpus);
        if !fits {
            return Err(MpCoreMismatch { cpus });
        }
        self.s = state;
        Ok(())
    }
}
