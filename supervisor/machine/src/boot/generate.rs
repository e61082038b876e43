//! The device tree of a machine, made from its description, for boards that have no tree of their own. What it looks like is in the kernel's
//! `Documentation/devicetree/bindings`; its `compatible` is that of the board without any platform code (`arch/arm/mach-virt`).
//!
//! Memory, command line and initial RAM disk are not in it: [`super::plan`] puts them into every tree.

use super::fdt::Node;
use super::{BootError, Part, error};
use crate::machine::{Backend, CpuModel, Device, LineTarget, Machine, Pin, Psci};

const GIC: u32 = 1;
const APB_CLOCK: u32 = 2;
const GPIO: u32 = 3;
/// The first core's phandle; the others follow.
const CORE: u32 = 0x10;

/// First cell of an interrupt: shared, private to a core.
const SPI: u32 = 0;
const PPI: u32 = 1;
/// Third cell: active high, level-sensitive. A private interrupt also says for which cores, from bit 8 up.
const LEVEL_HIGH: u32 = 4;
/// The generic timer's private interrupts, from the first PPI: Secure and Non-secure physical, virtual, hypervisor (Cortex-A15 TRM 8.2.1).
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];
/// The power key's pin, and its code (`input-event-codes.h`).
const POWER_PIN: u32 = 3;
const KEY_POWER: u32 = 116;
/// What clocks the peripherals, in Hz.
const APB_HZ: u32 = 24_000_000;

/// How a plugin's device stands in a tree.
struct Binding {
    /// The plugin's name, or the beginning of it if it ends with a hyphen.
    plugin: &'static str,
    node: &'static str,
    compatible: &'static [&'static str],
    /// Output pins that are interrupts, in the binding's order.
    pins: &'static [&'static str],
    /// Names of the clocks, all of which are the one that there is.
    clocks: &'static [&'static str],
}

const BINDINGS: &[Binding] = &[
    Binding {
        plugin: "pl011",
        node: "serial",
        compatible: &["arm,pl011", "arm,primecell"],
        pins: &["irq"],
        clocks: &["uartclk", "apb_pclk"],
    },
    Binding {
        plugin: "pl031",
        node: "rtc",
        compatible: &["arm,pl031", "arm,primecell"],
        pins: &["irq"],
        clocks: &["apb_pclk"],
    },
    Binding {
        plugin: "pl061",
        node: "gpio",
        compatible: &["arm,pl061", "arm,primecell"],
        pins: &["irq"],
        clocks: &["apb_pclk"],
    },
    Binding {
        plugin: "sp804",
        node: "timer",
        compatible: &["arm,sp804", "arm,primecell"],
        pins: &["irq"],
        clocks: &["timer0clk", "timer1clk", "apb_pclk"],
    },
    Binding {
        plugin: "sp805",
        node: "watchdog",
        compatible: &["arm,sp805", "arm,primecell"],
        pins: &["irq"],
        clocks: &["wdog_clk", "apb_pclk"],
    },
    Binding { plugin: "cfi-flash", node: "flash", compatible: &["cfi-flash"], pins: &[], clocks: &[] },
    Binding { plugin: "virtio-", node: "virtio", compatible: &["virtio,mmio"], pins: &["irq"], clocks: &[] },
];

fn binding(device: &Device) -> Option<&'static Binding> {
    BINDINGS.iter().find(|b| match b.plugin.ends_with('-') {
        true => device.plugin.starts_with(b.plugin),
        false => device.plugin == b.plugin,
    })
}

/// Why no tree can be made that shows all of a machine; none if one can.
pub(crate) fn unbound(machine: &Machine) -> Option<String> {
    if machine.cpu.model != CpuModel::CortexA15 {
        return Some("none is made for its CPU".into());
    }
    let device = machine.devices.iter().find(|d| binding(d).is_none())?;
    Some(format!("none is made for plugin \"{}\"", device.plugin))
}

/// Makes the device tree of a machine. A device whose plugin has no binding here is left out.
///
/// # Errors
/// The machine's CPU is not one that a tree can be made for.
pub fn generate(machine: &Machine) -> Result<Vec<u8>, BootError> {
    if machine.cpu.model != CpuModel::CortexA15 {
        return error(Part::Dtb, "no device tree can be made for this CPU", "give the board's with --dtb");
    }
    let mut root = Node::new("")
        .cells_of("#address-cells", &[2])
        .cells_of("#size-cells", &[2])
        .strings("compatible", &["linux,dummy-virt"])
        .strings("model", &["linux,dummy-virt"])
        .cells_of("interrupt-parent", &[GIC])
        .child(chosen(machine))
        .child(aliases(machine))
        .child(cpus(machine));
    if let Some(psci) = machine.cpu.psci {
        root = root.child(firmware(psci));
    }
    root = root.child(timer(machine)).child(clock()).child(gic(machine));
    if let Some(pmu) = pmu(machine) {
        root = root.child(pmu);
    }
    for device in &machine.devices {
        if let Some(binding) = binding(device) {
            let node = peripheral(device, binding);
            let first = power_key(machine).is_some_and(|d| d.name == device.name);
            root = root.child(if first { node.cells_of("phandle", &[GPIO]) } else { node });
        }
    }
    if power_key(machine).is_some() {
        let key = Node::new("poweroff")
            .strings("label", &["GPIO Key Poweroff"])
            .cells_of("linux,code", &[KEY_POWER])
            .cells_of("gpios", &[GPIO, POWER_PIN, 0]);
        root = root.child(Node::new("gpio-keys").strings("compatible", &["gpio-keys"]).child(key));
    }
    root.blob()
}

/// The GPIO whose pin 3 is the power key: the first one, where there is any, as everybody expects of a board of this kind.
fn power_key(machine: &Machine) -> Option<&Device> {
    machine.devices.iter().find(|d| d.plugin == "pl061")
}

fn node_name(device: &Device, binding: &Binding) -> String {
    format!("{}@{:x}", binding.node, device.at)
}

/// The serial ports, that with the console first.
fn serials(machine: &Machine) -> Vec<String> {
    let mut all: Vec<&Device> = machine.devices.iter().filter(|d| d.plugin == "pl011").collect();
    all.sort_by_key(|d| d.backend != Backend::Console);
    all.iter().filter_map(|d| Some(format!("/{}", node_name(d, binding(d)?)))).collect()
}

fn chosen(machine: &Machine) -> Node {
    match serials(machine).first() {
        Some(serial) => Node::new("chosen").strings("stdout-path", &[serial]),
        None => Node::new("chosen"),
    }
}

fn aliases(machine: &Machine) -> Node {
    let serials = serials(machine);
    serials.iter().enumerate().fold(Node::new("aliases"), |n, (i, path)| n.strings(&format!("serial{i}"), &[path]))
}

fn cpus(machine: &Machine) -> Node {
    let cpus = Node::new("cpus").cells_of("#address-cells", &[1]).cells_of("#size-cells", &[0]);
    (0..machine.cpu.count).fold(cpus, |cpus, n| {
        let cpu = Node::new(format!("cpu@{n:x}"))
            .strings("device_type", &["cpu"])
            .strings("compatible", &["arm,cortex-a15"])
            .cells_of("reg", &[n])
            .cells_of("phandle", &[CORE + n]);
        cpus.child(match machine.cpu.psci {
            Some(_) => cpu.strings("enable-method", &["psci"]),
            None => cpu,
        })
    })
}

fn firmware(psci: Psci) -> Node {
    let method = match psci {
        Psci::Hvc => "hvc",
        Psci::Smc => "smc",
    };
    Node::new("psci").strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"]).strings("method", &[method])
}

/// Third cell of an interrupt that each core has for itself.
fn private(machine: &Machine) -> u32 {
    ((1 << machine.cpu.count) - 1) << 8 | LEVEL_HIGH
}

fn timer(machine: &Machine) -> Node {
    let interrupts: Vec<u32> = TIMER_PPIS.iter().flat_map(|n| [PPI, *n, private(machine)]).collect();
    Node::new("timer")
        .strings("compatible", &["arm,armv7-timer"])
        .cells_of("interrupts", &interrupts)
        // It counts on in WFI.
        .flag("always-on")
}

fn clock() -> Node {
    Node::new("apb-pclk")
        .strings("compatible", &["fixed-clock"])
        .cells_of("#clock-cells", &[0])
        .cells_of("clock-frequency", &[APB_HZ])
        .strings("clock-output-names", &["clk24mhz"])
        .cells_of("phandle", &[APB_CLOCK])
}

fn gic(machine: &Machine) -> Node {
    Node::new(format!("interrupt-controller@{:x}", machine.gic_dist().0))
        .strings("compatible", &["arm,cortex-a15-gic"])
        .cells_of("#interrupt-cells", &[3])
        .cells_of("#address-cells", &[0])
        .flag("interrupt-controller")
        .reg(&[machine.gic_dist(), machine.gic_cpu()])
        .cells_of("phandle", &[GIC])
}

fn pmu(machine: &Machine) -> Option<Node> {
    let pmu = Node::new("pmu").strings("compatible", &["arm,cortex-a15-pmu"]);
    let cores = 0..machine.cpu.count;
    if let Some(n) = machine.cpu.pmu_ppi {
        return Some(pmu.cells_of("interrupts", &[PPI, n, private(machine)]));
    }
    let first = machine.cpu.pmu_spi?;
    let interrupts: Vec<u32> = cores.clone().flat_map(|n| [SPI, first + n, LEVEL_HIGH]).collect();
    let affinity: Vec<u32> = cores.map(|n| CORE + n).collect();
    Some(pmu.cells_of("interrupts", &interrupts).cells_of("interrupt-affinity", &affinity))
}

fn peripheral(device: &Device, binding: &Binding) -> Node {
    let mut node = Node::new(node_name(device, binding)).strings("compatible", binding.compatible);
    node = node.reg(&[(device.at, device.size)]);
    let spi = |(i, pin): (usize, &&str)| {
        let this = |p: &Pin| match p {
            Pin::Name(name) => name == pin,
            Pin::Number(n) => usize::from(*n) == i,
        };
        device.lines.iter().find_map(|l| match l.to {
            LineTarget::Spi(n) if this(&l.pin) => Some([SPI, n, LEVEL_HIGH]),
            _ => None,
        })
    };
    let interrupts: Vec<u32> = binding.pins.iter().enumerate().filter_map(spi).flatten().collect();
    if !interrupts.is_empty() {
        node = node.cells_of("interrupts", &interrupts);
    }
    if !binding.clocks.is_empty() {
        let clocks = vec![APB_CLOCK; binding.clocks.len()];
        node = node.cells_of("clocks", &clocks).strings("clock-names", binding.clocks);
    }
    match binding.node {
        // The guest sees no caches that could be out of date.
        "virtio" => node.flag("dma-coherent"),
        // Two chips of 16 data lines, as the plugin has them unless it is told otherwise.
        "flash" => node.cells_of("bank-width", &[4]),
        "gpio" => node.flag("gpio-controller").cells_of("#gpio-cells", &[2]),
        _ => node,
    }
}
