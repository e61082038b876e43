//! From the machine description to a board and a core.

use anyhow::{Result, anyhow, bail};
use reprise_arm::gic::{Gic, GicConfig};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_device::spec::PluginSpec;
use reprise_machine::{ClockMode, CpuModel, Machine, Wire as MachineWire, WireTarget};

use crate::board::{Board, Connection, Region, Target, Wire};
use crate::clock::{Clock, IdleMode};
use crate::link::{Link, policy_table};
use crate::port::Port;

/// The core that a machine describes, out of reset.
pub fn core(machine: &Machine) -> Result<Cpu> {
    if machine.cpu.count != 1 {
        bail!("machine {:?} has {} cores; 1 is possible so far", machine.name, machine.cpu.count);
    }
    let periphbase = u32::try_from(machine.cpu.periphbase).map_err(|_| anyhow!("periphbase lies above 4 GiB"))?;
    Ok(match machine.cpu.model {
        CpuModel::CortexA15 => Cpu::new(Model::cortex_a15(0, 1, periphbase, machine.cpu.timer_hz)),
    })
}

/// What an idle core does with time.
pub fn idle_mode(machine: &Machine) -> IdleMode {
    match machine.clock.mode {
        ClockMode::Warp => IdleMode::Warp,
        ClockMode::Realtime => IdleMode::Realtime,
    }
}

/// One device's end for [`board`]: its channel, its plugin's spec, and whether its backend may offer input.
pub struct Attached<P> {
    /// The channel.
    pub port: P,
    /// From the plugin; checked here.
    pub spec: PluginSpec,
    /// The event ring must be polled for offers.
    pub host_input: bool,
}

/// The board that a machine describes, with its devices in the order of the description.
pub fn board<P: Port>(machine: &Machine, wires: &[MachineWire], devices: Vec<Attached<P>>) -> Result<Board<P>> {
    if devices.len() != machine.devices.len() {
        bail!(
            "machine {:?} has {} devices, but {} channels were given",
            machine.name,
            machine.devices.len(),
            devices.len()
        );
    }
    let (num, den) = machine.clock.ns_per_insn;
    let clock = Clock::new(u64::from(num), u64::from(den));
    let mut links = Vec::new();
    for (d, a) in machine.devices.iter().zip(devices) {
        a.spec.check().map_err(|e| anyhow!("device {:?}: {e}", d.name))?;
        let policy = policy_table(&a.spec).map_err(|e| anyhow!("device {:?}: {e}", d.name))?;
        let shadows = a.spec.shadows.iter().map(|s| s.reset).collect();
        links.push(Link::new(d.name.clone(), a.port, policy, shadows, a.host_input));
    }
    let wires = wires.iter().map(connection).collect();
    let gic = GicConfig::cortex_a15(machine.gic.interfaces as usize, machine.gic.spis as usize);
    Ok(Board::new(clock, Gic::new(gic), links, regions(machine), wires))
}

fn connection(w: &MachineWire) -> Connection {
    let to = match w.to {
        WireTarget::Spi(n) => Wire::Spi(n),
        WireTarget::Poweroff => Wire::PowerOff,
        WireTarget::Reset => Wire::Reset,
        WireTarget::Device { device, pin } => Wire::Pin { device: usize::from(device), pin: u32::from(pin) },
    };
    Connection { device: usize::from(w.device), pin: u32::from(w.pin), to, level: false }
}

/// The address map: devices and the GIC, and zeros in what the bus ranges leave between them.
fn regions(machine: &Machine) -> Vec<Region> {
    let mut map: Vec<Region> = machine
        .devices
        .iter()
        .enumerate()
        .map(|(i, d)| Region { start: d.at, size: d.size, target: Target::Device(i) })
        .collect();
    for ((start, size), target) in [(machine.gic_dist(), Target::GicDist), (machine.gic_cpu(), Target::GicCpu)] {
        map.push(Region { start, size, target });
    }
    map.sort_by_key(|r| r.start);
    let mut holes = Vec::new();
    for range in &machine.bus {
        let (mut at, end) = (range.at, range.at + range.size);
        for r in map.iter().filter(|r| r.start < end && r.start + r.size > range.at) {
            if r.start > at {
                holes.push(Region { start: at, size: r.start - at, target: Target::Zero });
            }
            at = at.max(r.start + r.size);
        }
        if at < end {
            holes.push(Region { start: at, size: end - at, target: Target::Zero });
        }
    }
    map.extend(holes);
    map
}
