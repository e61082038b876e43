//! From the machine description to a board and a core.

use anyhow::{Context, Result, anyhow, bail};
use reprise_arm::bus::{GuestRam, RamAlias};
use reprise_arm::cores::Cores;
use reprise_arm::gic::{Gic, GicConfig};
use reprise_arm::l2c310::{L2Config, L2c310};
use reprise_arm::mmu::MAX_CORES;
use reprise_arm::models::Model;
use reprise_arm::mpcore::MpCore;
use reprise_arm::psci::Conduit;
use reprise_arm::state::Cpu;
use reprise_device::spec::PluginSpec;
use reprise_machine::boot::InitialRegs;
use reprise_machine::{BusRange, ClockMode, CpuModel, Machine, Psci, Wire as MachineWire, WireTarget};

use crate::board::{Board, Connection, DmaAccess, Region, Target, Wire, Words};
use crate::clock::{Clock, IdleMode};
use crate::link::{Link, policy_table};
use crate::port::Port;

/// Where the machine's RAM is seen once more.
pub fn aliases(machine: &Machine) -> Vec<RamAlias> {
    let alias = |a: &reprise_machine::Alias| RamAlias { at: a.at, size: a.size, offset: a.offset };
    machine.memory.aliases.iter().map(alias).collect()
}

/// The cores that a machine describes, out of reset, with the registers that its boot gives them: `first` for core 0, `others` for the rest.
pub fn cores(machine: &Machine, first: &InitialRegs, others: &InitialRegs) -> Result<Cores> {
    let count = machine.cpu.count;
    let periphbase = u32::try_from(machine.cpu.periphbase).map_err(|_| anyhow!("periphbase lies above 4 GiB"))?;
    let core = |n| {
        let model = match machine.cpu.model {
            CpuModel::CortexA15 => Model::cortex_a15(n, count, periphbase, machine.cpu.timer_hz),
            CpuModel::CortexA9 => Model::cortex_a9(n, count, periphbase),
        };
        let mut cpu = Cpu::new(if machine.cpu.security { model } else { model.without_security() });
        cpu.firmware = machine.cpu.psci.map(conduit);
        // The firmware gives the guest one core, which switches the others on.
        cpu.off = cpu.firmware.is_some() && n > 0;
        enter_guest(&mut cpu, if n == 0 { first } else { others });
        cpu
    };
    if !(1..=MAX_CORES as u32).contains(&count) || count > 1 && machine.cpu.quantum == 0 {
        bail!(
            "machine {:?} has {count} cores in turns of {} instructions; 1 to {MAX_CORES} are possible",
            machine.name,
            machine.cpu.quantum
        );
    }
    Ok(match count {
        1 => Cores::from(core(0)),
        _ => Cores::new((0..count).map(core).collect(), machine.cpu.quantum.into()),
    })
}

fn conduit(psci: Psci) -> Conduit {
    match psci {
        Psci::Hvc => Conduit::Hvc,
        Psci::Smc => Conduit::Smc,
    }
}

/// Sets the registers that the boot protocol asks for.
fn enter_guest(cpu: &mut Cpu, regs: &InitialRegs) {
    cpu.set_cpsr(regs.cpsr);
    cpu.regs[..3].copy_from_slice(&regs.r);
    cpu.regs[15] = regs.pc;
    if !regs.secure {
        cpu.cp15.scr |= 1;
    }
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
pub fn board<P: Port>(
    machine: &Machine,
    ram: &GuestRam,
    wires: &[MachineWire],
    devices: Vec<Attached<P>>,
) -> Result<Board<P>> {
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
        let depths: Vec<u32> = a.spec.queues.iter().map(|q| q.depth).collect();
        links.push(Link::new(d.name.clone(), a.port, policy, shadows, a.host_input).with_queues(&depths));
    }
    let wires = wires.iter().map(connection).collect();
    let (interfaces, spis) = (machine.gic.interfaces as usize, machine.gic.spis as usize);
    let gic = match machine.cpu.model {
        CpuModel::CortexA15 => GicConfig::cortex_a15(interfaces, spis),
        CpuModel::CortexA9 => GicConfig::cortex_a9(interfaces, spis),
    };
    let gic = GicConfig { security: machine.cpu.security, ..gic };
    let mut board = Board::new(clock, Gic::new(gic), links, regions(machine)?, wires);
    let private = || MpCore::new(machine.cpu.count as usize, machine.cpu.timer_hz);
    board.mpcore = (machine.cpu.model == CpuModel::CortexA9).then(private);
    let l2 = machine.l2.as_ref();
    board.l2 = l2.map(|l2| L2c310::new(L2Config { way_size: l2.way_size as u32, ways: l2.ways }));
    board.pmu_spi = machine.cpu.pmu_spi;
    board.pmu_ppi = machine.cpu.pmu_ppi.map(|n| 16 + n);
    let on_bus = |at: u64| machine.bus.iter().any(|b| at >= b.at && at - b.at < b.size);
    board.sockets = machine.devices.iter().map(|d| on_bus(d.at)).collect();
    board.words = machine.bus.iter().filter(|b| !b.words.is_empty()).map(words).collect();
    let grants: Vec<_> = machine.devices.iter().map(|d| d.dma.ranges(&machine.memory)).collect();
    board.dma = grants.iter().any(|g| !g.is_empty()).then_some(DmaAccess { ram: *ram, grants });
    Ok(board)
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

fn words(b: &BusRange) -> Words {
    Words { at: b.at, every: b.every.unwrap_or(b.size), words: b.words.clone() }
}

/// The address map: devices, the GIC and the core's other peripherals, and what the bus ranges leave between them.
fn regions(machine: &Machine) -> Result<Vec<Region>> {
    let mut map: Vec<Region> = machine
        .devices
        .iter()
        .enumerate()
        .map(|(i, d)| Region { start: d.at, size: d.size, target: Target::Device(i) })
        .collect();
    for ((start, size), target) in [(machine.gic_dist(), Target::GicDist), (machine.gic_cpu(), Target::GicCpu)] {
        map.push(Region { start, size, target });
    }
    for (_, start, size) in machine.private() {
        let offset = u32::try_from(start - machine.cpu.periphbase).context("a private peripheral")?;
        map.push(Region { start, size, target: Target::Private(offset) });
    }
    map.extend(machine.l2().map(|(start, size)| Region { start, size, target: Target::L2 }));
    map.sort_by_key(|r| r.start);
    let mut holes = Vec::new();
    let mut patterns = 0;
    for range in &machine.bus {
        let target = if range.words.is_empty() { Target::Zero } else { Target::Words(patterns) };
        patterns += usize::from(!range.words.is_empty());
        let (mut at, end) = (range.at, range.at + range.size);
        for r in map.iter().filter(|r| r.start < end && r.start + r.size > range.at) {
            if r.start > at {
                holes.push(Region { start: at, size: r.start - at, target });
            }
            at = at.max(r.start + r.size);
        }
        if at < end {
            holes.push(Region { start: at, size: end - at, target });
        }
    }
    map.extend(holes);
    Ok(map)
}
