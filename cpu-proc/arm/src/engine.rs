//! The interface between the run loop and an execution engine (interpreter, JIT, KVM).

use crate::bus::{Bus, GuestRam};
use crate::state::Cpu;

/// Why an engine came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The budget is used up exactly.
    Budget,
    /// An MMIO access or a system-register write asked to leave ([`crate::bus::After::exit`], timer or interrupt state changed).
    Exit,
    /// The core retired WFI (or WFE with no event) and has nothing to do until an interrupt or event.
    Wait,
    /// The core can't go on (for instance it keeps faulting on its own vectors); a text for the user is in [`Cpu::halt`].
    Halt,
}

/// An execution engine. All guest-visible state is in [`Cpu`] and guest RAM; an engine holds caches only.
pub trait Engine {
    /// Name for reports: `interp`, `jit`.
    fn name(&self) -> &'static str;

    /// Runs until exactly `budget` more instructions have retired, or something else stops it earlier.
    /// `cpu.pos` and `cpu.icount` are exact on return. Pending interrupts are taken on entry, before the first instruction.
    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: u64) -> StopReason;

    /// Forgets every cache: RAM or CPU state was changed from outside.
    fn flush(&mut self);
}
