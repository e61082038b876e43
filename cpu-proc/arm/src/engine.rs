//! The interface between the run loop and an execution engine (interpreter, JIT, KVM).

use crate::bus::{Bus, GuestRam};
use crate::state::Cpu;

/// Why an engine came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The budget is used up: exactly, or [`Budget::enough`] is reached within a block.
    Budget,
    /// An MMIO access or a system-register write asked to leave ([`crate::bus::After::exit`], timer or interrupt state changed), or a WFE
    /// ended the core's turn ([`Cpu::wait_for_event`]).
    Exit,
    /// The core retired WFI and has nothing to do until an interrupt or event.
    Wait,
    /// The core can't go on (for instance it keeps faulting on its own vectors); a text for the user is in [`Cpu::halt`].
    Halt,
}

/// How far an engine may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Instructions that must not be exceeded; the engine stops at exactly this many.
    pub limit: u64,
    /// Instructions after which the caller would like to have control back. The engine may stop a block short of it, or go on to the end of a
    /// block: nothing happens at that place unless it is written down, so it need not be the same in every run. It is always a place where
    /// an exact stop could be: never right behind an exception that retired nothing.
    pub enough: u64,
}

impl Budget {
    /// Exactly `n` instructions.
    pub fn exactly(n: u64) -> Self {
        Self { limit: n, enough: n }
    }
}

/// An execution engine. All guest-visible state is in [`Cpu`] and guest RAM; an engine holds caches only.
pub trait Engine {
    /// Name for reports: `interp`, `jit`.
    fn name(&self) -> &'static str;

    /// Runs until exactly `budget.limit` more instructions have retired, or about `budget.enough`, or something else stops it earlier.
    /// `cpu.pos` and `cpu.icount` are exact on return. Pending interrupts are taken on entry, before the first instruction.
    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason;

    /// What an engine that checks another one has found wrong with it; the run has ended with [`StopReason::Halt`] then.
    fn mismatch(&self) -> Option<&str> {
        None
    }

    /// Figures about the engine's work so far, by name, for reports; none of them has a part in the execution.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Forgets every cache: RAM or CPU state was changed from outside.
    fn flush(&mut self);
}

impl<E: Engine + ?Sized> Engine for Box<E> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        (**self).run(cpu, ram, bus, budget)
    }

    fn mismatch(&self) -> Option<&str> {
        (**self).mismatch()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        (**self).figures()
    }

    fn flush(&mut self) {
        (**self).flush();
    }
}
