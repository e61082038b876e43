//! The micro-op interpreter: an [`Engine`] that runs cold code, the last instructions before an exact stop, and serves as the JIT's twin in tests.
//!
//! `cache` finds and makes blocks, `lower` specialises micro-ops for the loop, `exec` runs them (its loop is `exec/dispatch`), and this file joins them: interrupts, stops,
//! and the way from one block to the next.

pub mod cache;
pub mod exec;
mod lower;

use cache::{Cache, CodePtr, Fetch};
use exec::{Next, Run};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::ir::MAX_INSNS;
use reprise_arm::state::Cpu;

/// The interpreter. It holds translated blocks and nothing that a guest could see.
#[derive(Default)]
pub struct Interp {
    cache: Cache,
}

impl Interp {
    /// An interpreter with empty caches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Blocks translated since the start, for statistics.
    pub fn blocks_made(&self) -> u64 {
        self.cache.made
    }
}

impl Engine for Interp {
    fn name(&self) -> &'static str {
        "interp"
    }

    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        self.cache.adopt(cpu);
        self.cache.take_dma_writes(cpu, ram, bus);
        // No run gets this far; the loop counts in 64 signed bits and needs the top ones.
        let (start, soft) = (cpu.icount, budget.enough < budget.limit);
        let end = cpu.icount + budget.limit.min(budget.enough).min(1 << 56);
        let mut run = Run::new(&mut self.cache, cpu, ram, bus, end);
        let mut link: Option<(CodePtr, usize)> = None;
        let mut look = true;
        loop {
            if std::mem::take(&mut look) {
                if let Some(stop) = run.attend() {
                    return stop;
                }
            }
            let left = run.left();
            // A stop of our own choice comes before the next instruction is fetched: in a replay nothing may stop here, or an interrupt may come first,
            // and then the fetch must not have filled the TLB.
            if left == 0 || soft && left < MAX_INSNS as u64 && run.icount() > start && run.may_stop() {
                return StopReason::Budget;
            }
            let Some(code) = run.find() else {
                look = true;
                link = None;
                continue;
            };
            let next = match code {
                Fetch::Cached(code) if run.fits(code, left) => {
                    if let Some((from, slot)) = link.take() {
                        run.link(from, slot, code);
                    }
                    run.exec(code)
                }
                Fetch::Straddles(code) if run.fits(code, left) => run.exec(code),
                _ => run.exec_some(left),
            };
            link = None;
            match next {
                Next::Lookup(from) => link = from,
                Next::Stepped => unreachable!("whole blocks run"),
                Next::Event => {
                    look = true;
                    if run.take_exit() {
                        return StopReason::Exit;
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        self.cache.flush();
    }
}
