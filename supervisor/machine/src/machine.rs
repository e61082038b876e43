//! The resolved machine: what the processes and the recording see.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A whole machine, resolved and checked. Addresses are guest physical, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What the machine is called in messages and recordings.
    pub name: String,
    /// The processor.
    pub cpu: Cpu,
    /// Guest RAM.
    pub memory: Memory,
    /// How guest time runs.
    pub clock: Clock,
    /// The interrupt controller.
    pub gic: Gic,
    /// The level 2 cache, if it has a controller of its own.
    #[serde(default)]
    pub l2: Option<L2Cache>,
    /// What is loaded before the first instruction.
    pub boot: Boot,
    /// The devices, in the file's order; a channel's number is the index of its device here.
    pub devices: Vec<Device>,
    /// Ranges without any device where a read gives zero and a write is lost. An access that hits nothing at all is an external abort.
    pub bus: Vec<BusRange>,
    /// Bounds on what the processes use.
    pub limits: Limits,
}

/// Which processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuModel {
    /// ARM Cortex-A15 MPCore, r0p0 as to its identification registers.
    #[serde(rename = "cortex-a15")]
    CortexA15,
    /// ARM Cortex-A9 MPCore, r0p0 as to its identification registers. Its private peripherals (snoop control unit, global timer, private
    /// timers and watchdogs) lie at periphbase.
    #[serde(rename = "cortex-a9")]
    CortexA9,
}

impl std::fmt::Display for CpuModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CortexA15 => "cortex-a15",
            Self::CortexA9 => "cortex-a9",
        })
    }
}

/// The processor of a [`Machine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Its model.
    pub model: CpuModel,
    /// How many cores, 1 to 4.
    pub count: u32,
    /// How many instructions a core runs before the next one's turn comes, 256 to 1_048_576; 0 with a single core.
    #[serde(default)]
    pub quantum: u32,
    /// PERIPHBASE: where the private peripherals lie (Cortex-A15 TRM 2.2, signal PERIPHBASE), a multiple of 32 KiB.
    pub periphbase: u64,
    /// In Hz: on Cortex-A15 the frequency of the generic timer's counter (CNTFRQ), on Cortex-A9 that of PERIPHCLK, which clocks the private and
    /// global timers.
    pub timer_hz: u32,
    /// Shared peripheral interrupt of core 0's performance monitors; the other cores have the numbers that follow. `None`: not connected.
    #[serde(default)]
    pub pmu_spi: Option<u32>,
    /// Private peripheral interrupt of each core's performance monitors instead: 0 to 15, interrupt id 16 + n.
    #[serde(default)]
    pub pmu_ppi: Option<u32>,
    /// The Security Extensions are there, in the cores and in the GIC. Without them the cores are what is Non-secure with them.
    #[serde(default = "yes")]
    pub security: bool,
    /// The machine has firmware that switches cores and the machine on and off (ARM DEN 0022), called by this instruction. The cores other than
    /// the first are off at the start then.
    #[serde(default)]
    pub psci: Option<Psci>,
}

fn yes() -> bool {
    true
}

/// The instruction that calls the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Psci {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// A level 2 cache with an L2C-310 controller (PL310). Caches change nothing here; their controller is what software sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L2Cache {
    /// First address of the controller's 4 KiB, a multiple of 4 KiB.
    pub at: u64,
    /// Bytes of a way: 16 KiB to 512 KiB, a power of two.
    pub way_size: u64,
    /// Ways: 8 or 16.
    pub ways: u32,
}

/// Size of the L2C-310's register range.
pub(crate) const L2_SIZE: u64 = 0x1000;

/// Where the private peripherals of Cortex-A9 lie, from periphbase: what they are called, offset, size (TRM DDI 0407, table 1-3).
pub(crate) const A9_PRIVATE: [(&str, u64, u64); 3] =
    [("the SCU", 0, 0x100), ("the global timer", 0x200, 0x100), ("the private timers", 0x600, 0x100)];

/// Guest RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// First address, a multiple of 64 KiB.
    pub base: u64,
    /// Size, a multiple of 64 KiB; base + size lies within 4 GiB.
    pub size: u64,
    /// Other windows onto the same RAM.
    pub aliases: Vec<Alias>,
}

/// A window that shows a part of RAM at another address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// First address of the window, a multiple of 64 KiB.
    pub at: u64,
    /// Its size, a multiple of 64 KiB.
    pub size: u64,
    /// Where in RAM it begins, counted from the RAM's base; a multiple of 64 KiB.
    pub offset: u64,
}

/// What guest time does while the CPU idles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockMode {
    /// Jump to the next deadline at once.
    Warp,
    /// Sleep until it, and never run ahead of the wall clock.
    Realtime,
}

/// How guest time runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// What happens in idle time.
    pub mode: ClockMode,
    /// Guest nanoseconds that one instruction takes, as (numerator, denominator), both 1..=1_000_000.
    pub ns_per_insn: (u32, u32),
}

/// The GICv2, placed relative to `periphbase`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gic {
    /// Offset of the distributor's 4 KiB from periphbase.
    pub dist: u64,
    /// Offset of the CPU interface from periphbase.
    pub cpu: u64,
    /// Size of the CPU interface: 0x2000 on Cortex-A15.
    pub cpu_size: u64,
    /// Shared peripheral interrupts, a multiple of 32 up to 960. SPI n has the interrupt id 32 + n.
    pub spis: u32,
    /// CPU interfaces, 1 to 8: at least the machine's cores, more where the board has cores that this machine leaves out. A GIC with one
    /// interface has no target registers, which a kernel whose device tree names several cores needs.
    pub interfaces: u32,
}

/// Size of the GICv2 distributor's register range.
pub(crate) const GIC_DIST_SIZE: u64 = 0x1000;

impl Machine {
    /// Where the GIC's distributor lies: (address, size).
    pub fn gic_dist(&self) -> (u64, u64) {
        (self.cpu.periphbase + self.gic.dist, GIC_DIST_SIZE)
    }

    /// Where the GIC's CPU interface lies: (address, size).
    pub fn gic_cpu(&self) -> (u64, u64) {
        (self.cpu.periphbase + self.gic.cpu, self.gic.cpu_size)
    }

    /// Where the core's other private peripherals lie: (what they are called, address, size). They are the three that Cortex-A9 has.
    pub fn private(&self) -> impl Iterator<Item = (&'static str, u64, u64)> + '_ {
        let there = self.cpu.model == CpuModel::CortexA9;
        A9_PRIVATE.into_iter().filter(move |_| there).map(|(name, at, size)| (name, self.cpu.periphbase + at, size))
    }

    /// Where the level 2 cache's controller lies: (address, size).
    pub fn l2(&self) -> Option<(u64, u64)> {
        self.l2.as_ref().map(|l2| (l2.at, L2_SIZE))
    }

    /// The index of the device that has this name.
    pub fn device_index(&self, name: &str) -> Option<usize> {
        self.devices.iter().position(|d| d.name == name)
    }

    /// The machine as RON text, as it stands in a recording's manifest. [`Machine::from_text`] reads it back.
    pub fn to_text(&self) -> String {
        ron::ser::to_string_pretty(self, ron::ser::PrettyConfig::default()).expect("a machine is plain data")
    }

    /// Reads what [`Machine::to_text`] wrote.
    ///
    /// # Errors
    /// What is wrong and where, if the text was not made by `to_text` of a valid machine: the same rules hold as for a machine file.
    pub fn from_text(text: &str) -> Result<Self, String> {
        // A value may have become optional since the text was written.
        let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        let machine: Self =
            options.from_str(text).map_err(|e| format!("machine description, {}: {}", e.span.start, e.code))?;
        crate::resolve::check(&machine).map_err(|p| format!("machine description: {}; {}", p.what, p.fix))?;
        Ok(machine)
    }
}

/// What is in memory and where the CPU starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// A Linux kernel by the ARM boot protocol.
    Linux(LinuxBoot),
    /// A bare-metal image.
    Image(ImageBoot),
}

/// A Linux boot. A path is as the machine file or the command line gave it, relative ones already joined to the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinuxBoot {
    /// The kernel: a zImage, an ELF file, or code.
    pub kernel: PathBuf,
    /// The device tree blob; none = the tree is made from this description.
    pub dtb: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; replaces the device tree's `bootargs`.
    pub append: String,
    /// Register r1 at entry: the machine number of boards without a device tree, 0xffffffff for none.
    pub machine_id: u32,
    /// Where the cores other than the first find the address to start at, once the kernel has written it there and wakes them: a device's
    /// register, a multiple of 4. None with a single core, or where firmware does it (`cpu.psci`).
    #[serde(default)]
    pub release: Option<u64>,
}

/// A bare-metal boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBoot {
    /// An ELF file, or raw bytes.
    pub file: PathBuf,
    /// Where raw bytes go; none = the RAM's base. An ELF file says it itself.
    pub load: Option<u64>,
    /// The first instruction's address, bit 0 set for Thumb; none = the ELF's entry, or where the raw bytes begin.
    pub entry: Option<u64>,
}

/// One device: one plugin in one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name in this machine: `[a-z0-9_-]`, at most 32 characters.
    pub name: String,
    /// The plugin's name: `pl011` is found as `libplugin_pl011.so`.
    pub plugin: String,
    /// First address of its registers, a multiple of 4.
    pub at: u64,
    /// Size of its registers' range, a multiple of 4.
    pub size: u64,
    /// Its configuration: RON text, the plugin's business.
    pub config: String,
    /// Where its output pins lead.
    pub lines: Vec<Line>,
    /// The host side of it.
    pub backend: Backend,
    /// Which guest memory it may read and write by message.
    pub dma: Dma,
    /// What becomes of it when its process dies.
    #[serde(default)]
    pub restart: Restart,
    /// The disk that lies in it; none is an empty slot, or a device that takes none.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// The panel at it, if it is a display: the device tree gets it.
    #[serde(default)]
    pub panel: Option<Panel>,
}

/// A panel at a display: what the kernel's driver takes the screen's size and timing from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

/// How a panel is driven: VESA's timing at 60 Hz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelTiming {
    /// Pixels a second.
    pub clock_hz: u32,
    /// Front porch, synchronisation and back porch of a line, in pixels.
    pub horizontal: [u32; 3],
    /// Front porch, synchronisation and back porch of a frame, in lines.
    pub vertical: [u32; 3],
}

impl Panel {
    /// Its timing; none if there is no such panel.
    #[must_use]
    pub fn timing(self) -> Option<PanelTiming> {
        let (clock_hz, horizontal, vertical) = match (self.width, self.height) {
            (640, 480) => (25_175_000, [16, 96, 48], [10, 2, 33]),
            (800, 600) => (40_000_000, [40, 128, 88], [1, 4, 23]),
            (1024, 768) => (65_000_000, [24, 136, 160], [3, 6, 29]),
            _ => return None,
        };
        Some(PanelTiming { clock_hz, horizontal, vertical })
    }
}

/// What becomes of a device whose process dies. One that can't come back is as unplugged to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Another process takes its place, unless it dies five times without completing a request.
    #[default]
    Always,
    /// It is gone.
    Never,
    /// As `Always`, but it is gone too when more than so many have died within so many seconds; 1 to 1000, and 1 to 86400.
    Limit(u32, u32),
}

/// A disk: an image file of the host, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The image.
    pub file: PathBuf,
    /// Its format; none = found out.
    pub format: Option<DiskFormat>,
    /// What the guest writes goes to memory and is gone at the end; the image stays as it is.
    pub snapshot: bool,
    /// The guest can't write.
    pub readonly: bool,
}

/// How an image file holds a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

/// Where an output pin leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The device's output pin.
    pub pin: Pin,
    /// What it drives.
    pub to: LineTarget,
}

/// A pin by its name in the plugin's spec, or by its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// By name.
    Name(String),
    /// By number.
    Number(u16),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(n) => write!(f, "\"{n}\""),
            Self::Number(n) => write!(f, "{n}"),
        }
    }
}

/// What an output pin drives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineTarget {
    /// Shared peripheral interrupt n (interrupt id 32 + n).
    Spi(u32),
    /// A rising edge powers the machine off.
    Poweroff,
    /// A rising edge resets the machine.
    Reset,
    /// An input pin of another device.
    Device(String, Pin),
}

/// The host side of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// None: the device neither takes host input nor makes host output.
    #[default]
    None,
    /// The machine's console; at most one device has it.
    Console,
    /// Output is thrown away, input never comes.
    Null,
    /// The date at start, as host input.
    Rtc,
    /// As many of the host's random bytes as the device asks for, as host input.
    Random,
    /// A network: which one, the command line says.
    Net,
    /// A screen: who shows it, the command line says.
    Display,
    /// Keys that people press, for the guest's keyboard.
    Keyboard,
    /// What people do with a mouse.
    Mouse,
    /// The power key, at pin 3 of a GPIO.
    PowerKey,
    /// A serial line: where it leads, the command line says.
    Serial,
}

/// A device's grant of guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dma {
    /// None at all: a DMA request ends the device's channel.
    #[default]
    None,
    /// All RAM.
    Ram,
    /// These ranges of RAM.
    Ranges(Vec<DmaRange>),
}

/// A range of RAM that a device may read and write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmaRange {
    /// First address.
    pub at: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Dma {
    /// The granted ranges, of a machine with that RAM and its aliases.
    #[must_use]
    pub fn ranges(&self, memory: &Memory) -> Vec<(u64, u64)> {
        match self {
            Self::None => Vec::new(),
            Self::Ram => {
                let aliases = memory.aliases.iter().map(|a| (a.at, a.size));
                std::iter::once((memory.base, memory.size)).chain(aliases).collect()
            }
            Self::Ranges(list) => list.iter().map(|r| (r.at, r.size)).collect(),
        }
    }
}

/// A range of addresses without any device, whose words read as zero or as constants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusRange {
    /// First address, a multiple of 4 KiB.
    pub at: u64,
    /// Size, a multiple of 4 KiB. A device inside the range goes before it.
    pub size: u64,
    /// Words that don't read as zero: (offset, a multiple of 4; value).
    #[serde(default)]
    pub words: Vec<(u64, u32)>,
    /// `words` stand again after so many bytes, a power of two from 4 up; none = they stand once, from the range's start on.
    #[serde(default)]
    pub every: Option<u64>,
}

/// Bounds on what the processes use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Slots of a channel's request ring, a power of two, 16..=65536.
    pub request_slots: u32,
    /// Slots of a channel's event ring, a power of two, 16..=65536.
    pub event_slots: u32,
    /// Bytes of each of a channel's two arenas, a power of two, 4 KiB..=64 MiB.
    pub arena: u32,
    /// How long a device may take to answer, in milliseconds of wall time, before its machine is ended: 100..=3_600_000.
    pub reply_timeout_ms: u32,
    /// Instructions between two register anchors of a recording: 1_000..=10_000_000.
    pub anchor_every: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_slots: 4096,
            event_slots: 4096,
            arena: 256 << 10,
            reply_timeout_ms: 10_000,
            anchor_every: 10_000_000,
        }
    }
}

/// The pins that a plugin's spec names, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Output pins.
    pub outputs: Vec<String>,
    /// Input pins.
    pub inputs: Vec<String>,
}

/// An output pin of a device and what it drives, all by number: what the CPU process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// The driving device's index in [`Machine::devices`].
    pub device: u16,
    /// Its output pin.
    pub pin: u16,
    /// What the pin drives.
    pub to: WireTarget,
}

/// See [`LineTarget`]; here by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireTarget {
    /// Shared peripheral interrupt n.
    Spi(u32),
    /// Power-off on a rising edge.
    Poweroff,
    /// Reset on a rising edge.
    Reset,
    /// An input pin of another device.
    Device {
        /// Its index in [`Machine::devices`].
        device: u16,
        /// Its input pin.
        pin: u16,
    },
}
