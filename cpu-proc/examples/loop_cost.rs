//! What the run loop costs by itself: an engine that retires its budget at once, a board whose ten channels are real segments with nobody
//! at the other end.
//!
//! `loop_cost [SLICES]` prints ns of CPU time for each look at the channels, and how long a slice is while nothing is expected.

use std::time::Duration;

use anyhow::{Context, Result};
use cpu_proc::board::{Board, Region, Target};
use cpu_proc::channel_port::ChannelPort;
use cpu_proc::clock::Clock;
use cpu_proc::journal::{Entry, Journal};
use cpu_proc::link::Link;
use cpu_proc::runner::{Host, Mode, Order, Policy, Runner};
use nix::time::{ClockId, clock_gettime};
use reprise_arm::bus::{Bus, GuestRam};
use reprise_arm::cores::Cores;
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::gic::{Gic, GicConfig};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_channel::{ChannelConfig, ChannelSegment, CpuPort};

const DEVICES: u16 = 10;

/// Retires everything that it is given, and counts how often.
struct Nothing {
    slices: u64,
}

impl Engine for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn run(&mut self, cpu: &mut Cpu, _: &GuestRam, _: &mut dyn Bus, budget: Budget) -> StopReason {
        cpu.icount += budget.limit.min(budget.enough);
        self.slices += 1;
        StopReason::Budget
    }

    fn flush(&mut self) {}
}

struct Nobody;

impl<P> Host<P> for Nobody {
    fn look(&mut self, _: &Cores, _: u64) -> Result<Order> {
        Ok(Order::Run)
    }

    fn sleep(&mut self, _: &Board<P>, _: Option<Duration>) -> Result<()> {
        Ok(())
    }
}

/// A journal that goes nowhere.
struct Nowhere;

impl Journal for Nowhere {
    fn put(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }
}

/// CPU time of this process: other work on the host is not in it.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

fn main() -> Result<()> {
    let slices: u64 = std::env::args().nth(1).map_or(Ok(5_000_000), |s| s.parse()).context("SLICES is a number")?;
    let mut segments = Vec::new();
    let mut links = Vec::new();
    let mut map = Vec::new();
    for id in 0..DEVICES {
        let name = format!("reprise-loop-cost-{}-{id}", std::process::id());
        let config = ChannelConfig {
            id,
            name: name.clone(),
            request_slots: 1024,
            event_slots: 1024,
            request_arena: 65536,
            event_arena: 65536,
            tap: true,
        };
        segments.push(ChannelSegment::create(&name, &config)?);
        let port = ChannelPort::new(CpuPort::attach(&name)?, Duration::from_secs(1), false);
        // Four of ten have a backend, as on the Versatile Express.
        links.push(Link::new(name, port, Vec::new(), Vec::new(), id < 4));
        map.push(Region { start: u64::from(id) << 16, size: 1 << 16, target: Target::Device(id.into()) });
    }
    let mut ram = vec![0u8; 4096];
    // SAFETY: the vector outlives the view, and nobody touches RAM.
    let view = unsafe { GuestRam::new(ram.as_mut_ptr(), 0, 4096) };
    for (name, mode) in [("not recording", Mode::Plain), ("recording", Mode::Record(&mut Nowhere))] {
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 24_000_000));
        // A tick that does not come.
        (cpu.timer.virt.ctl, cpu.timer.virt.cval) = (1, u64::MAX / 2);
        let mut cores = Cores::from(cpu);
        let gic = Gic::new(GicConfig::cortex_a15(1, 32));
        let mut board = Board::new(Clock::new(1, 1), gic, std::mem::take(&mut links), map.clone(), Vec::new());
        let mut engine = Nothing { slices: 0 };
        let policy = Policy::default();
        let stop_at = Some(slices * policy.long_slice);
        let mut host = Nobody;
        let policy = Policy { stop_at, ..policy };
        let started = cpu_time()?;
        Runner::new(&mut cores, &view, &mut engine, &mut board, &mut host, mode, policy).run()?;
        let ns = (cpu_time()? - started).as_nanos() as f64 / engine.slices as f64;
        let length = cores.cpu().icount / engine.slices;
        println!("{name}: {ns:.1} ns for a look; a slice is {length} instructions");
        links = board.links;
    }
    Ok(())
}
