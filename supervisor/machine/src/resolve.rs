//! From the file to the machine, and the rules that a machine keeps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ron::value::RawValue;
use serde::Deserialize;

use crate::file::{
    BootFile, DeviceFile, DiskFile, File, ImageFile, LimitsFile, LinuxFile, PinFile, SizeFile, TargetFile,
};
use crate::machine::{
    Alias, Backend, Boot, BusRange, Clock, ClockMode, Cpu, CpuModel, Device, Disk, DiskFormat, Dma, GIC_DIST_SIZE, Gic,
    ImageBoot, L2_SIZE, L2Cache, Limits, Line, LineTarget, LinuxBoot, Machine, Memory, Pin, Pins, Restart, Wire,
    WireTarget,
};
use crate::source::{ConfigError, Source};

/// The end of the physical address space that the machine can have so far.
const SPACE: u64 = 1 << 32;
/// What RAM, its aliases and their offsets are aligned to.
const RAM_ALIGN: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;
/// The most devices of one machine: each is a process.
const MAX_DEVICES: usize = 64;
/// The most ranges of other kinds, and lines of a device.
const MAX_RANGES: usize = 256;
/// The longest kernel command line (COMMAND_LINE_SIZE of the ARM kernel) with its final zero.
const MAX_APPEND: usize = 1024;

/// The most cores of a machine: a cluster of the CPUs here has no more.
const MAX_CORES: u32 = 4;
/// How long a core's turn may be: long against a loop of exclusive accesses, short against what guests wait for.
const QUANTA: std::ops::RangeInclusive<u32> = 256..=1 << 20;
/// How long it is unless the machine file says otherwise: 33 us at 1 ns an instruction. Each end of a turn costs an engine about a microsecond, as
/// it must come at its exact instruction.
const QUANTUM: u32 = 32_768;

/// What the command line changes in a machine file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--cpus`: the number of cores.
    pub cpus: Option<u32>,
    /// The length of a core's turn, in instructions; for experiments.
    pub quantum: Option<u32>,
    /// `--memory`, as [`parse_size`] gives it.
    pub memory: Option<u64>,
    /// `--kernel`.
    pub kernel: Option<PathBuf>,
    /// `--dtb`.
    pub dtb: Option<PathBuf>,
    /// `--initrd`.
    pub initrd: Option<PathBuf>,
    /// `--append`: replaces the file's command line.
    pub append: Option<String>,
    /// `--disk`, as [`parse_disk`] gives it: a device's name and its disk. Replaces the file's.
    pub disks: Vec<(String, Disk)>,
    /// `--display` asks for a screen: displays keep the panels that the file gives them. Without it the board is as its own device tree says.
    pub display: bool,
    /// `--clock`.
    pub clock: Option<ClockMode>,
    /// The clock's mode if neither the command line nor the file names one; none = warp.
    pub default_clock: Option<ClockMode>,
}

/// A machine and where its parts stand in the file.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The machine.
    pub machine: Machine,
    /// Places for errors that only show later: a missing image, an unknown pin, what a plugin says to its config.
    pub spans: Spans,
}

/// A part of the machine file that can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Name,
    CpuCount,
    Quantum,
    Release,
    Periphbase,
    TimerHz,
    PmuSpi,
    Psci,
    MemoryBase,
    MemorySize,
    Alias(usize),
    NsPerInsn,
    GicDist,
    GicCpu,
    Spis,
    Interfaces,
    L2,
    Kernel,
    Dtb,
    Initrd,
    Append,
    Image,
    ImageAddress,
    Devices,
    DeviceName(usize),
    DevicePlugin(usize),
    DeviceAt(usize),
    DeviceSize(usize),
    DeviceConfig(usize),
    DeviceBackend(usize),
    DeviceDma(usize),
    DeviceRestart(usize),
    DeviceDisk(usize),
    DevicePanel(usize),
    DeviceLine(usize, usize),
    DeviceTarget(usize, usize),
    Bus(usize),
    Limits,
}

/// A rule that a machine breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) what: String,
    pub(crate) fix: String,
}

fn problem<T>(place: Place, what: impl Into<String>, fix: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { place, what: what.into(), fix: fix.into() })
}

/// Where the parts of a machine stand in its file.
#[derive(Clone, Debug)]
pub struct Spans {
    source: Source,
    at: HashMap<Place, usize>,
    given: HashMap<Place, &'static str>,
}

impl Spans {
    pub(crate) fn error(&self, place: Place, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        match self.given.get(&place) {
            Some(flag) => ConfigError { file: flag.into(), line: 0, column: 0, what: what.into(), fix: fix.into() },
            None => self.source.error(self.at.get(&place).copied().unwrap_or(0), what, fix),
        }
    }

    /// The kernel (or the bare-metal image) is no good.
    pub fn kernel(&self, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(self.kernel_place(), what, fix)
    }

    /// A bare-metal machine has an image for a kernel.
    fn kernel_place(&self) -> Place {
        let image = self.at.contains_key(&Place::Image) || self.given.contains_key(&Place::Image);
        if image { Place::Image } else { Place::Kernel }
    }

    /// The device tree is no good.
    pub fn dtb(&self, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(Place::Dtb, what, fix)
    }

    /// The initial RAM disk is no good.
    pub fn initrd(&self, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(Place::Initrd, what, fix)
    }

    /// The memory is no good (too small for the images).
    pub fn memory(&self, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(Place::MemorySize, what, fix)
    }

    /// A device's plugin is no good.
    pub fn plugin(&self, device: usize, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(Place::DevicePlugin(device), what, fix)
    }

    /// A device's plugin refuses its configuration. `line` and `column` count from 1 inside the configuration's own text, as a
    /// RON error of it says; none for a fault of the configuration as a whole.
    pub fn config(&self, device: usize, position: Option<(usize, usize)>, what: impl Into<String>) -> ConfigError {
        let mut error = self.error(Place::DeviceConfig(device), what, "see the plugin's page for what it takes");
        if let (Some((line, column)), 1..) = (position, error.line) {
            error.column = if line <= 1 { error.column + column.saturating_sub(1) } else { column };
            error.line += line.saturating_sub(1);
        }
        error
    }

    /// A device's disk is no good.
    pub fn disk(&self, device: usize, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        self.error(Place::DeviceDisk(device), what, fix)
    }

    /// The place of a boot error.
    pub fn boot(&self, error: &crate::boot::BootError) -> ConfigError {
        use crate::boot::Part;
        let place = match error.part {
            Part::Kernel => self.kernel_place(),
            Part::Dtb => Place::Dtb,
            Part::Initrd => Place::Initrd,
            Part::Append => Place::Append,
            Part::Memory => Place::MemorySize,
        };
        self.error(place, error.what.clone(), error.fix.clone())
    }
}

/// Reads a size: a number of bytes (decimal or 0x...), or one with the suffix K, M or G for KiB, MiB, GiB.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    // "512MiB" is a way to write "512M".
    let short = text.strip_suffix("iB").filter(|t| t.ends_with(['K', 'M', 'G'])).unwrap_or(text);
    let (digits, shift) = match short.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&short[..at], 10),
        Some((at, 'M' | 'm')) => (&short[..at], 20),
        Some((at, 'G' | 'g')) => (&short[..at], 30),
        _ => (short, 0),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse::<u64>(),
    };
    let number = number.map_err(|_| format!("`{text}` is no size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// Reads `NAME=FILE[,format=raw|qcow2][,snapshot=on|off][,readonly]`: a device's name and its disk. A comma in the file's name is written twice.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_disk(text: &str) -> Result<(String, Disk), String> {
    let Some((name, rest)) = text.split_once('=') else {
        return Err("it names no file: write NAME=FILE, NAME being the device's name in the machine file".into());
    };
    let rest = rest.replace(",,", "\0");
    let mut parts = rest.split(',');
    let file = parts.next().unwrap_or("").replace('\0', ",");
    if file.is_empty() {
        return Err(format!("it names no file: write {name}=FILE"));
    }
    let mut disk = Disk { file: file.into(), format: None, snapshot: false, readonly: false };
    for part in parts {
        match part {
            "format=raw" => disk.format = Some(DiskFormat::Raw),
            "format=qcow2" => disk.format = Some(DiskFormat::Qcow2),
            "snapshot=on" | "snapshot" => disk.snapshot = true,
            "snapshot=off" => disk.snapshot = false,
            "readonly=on" | "readonly" => disk.readonly = true,
            "readonly=off" => disk.readonly = false,
            other => {
                return Err(format!(
                    "`{}` is no option of a disk: they are format=raw|qcow2, snapshot=on|off and readonly; a comma in a file's name is \
                     written twice",
                    other.replace('\0', ",")
                ));
            }
        }
    }
    Ok((name.to_owned(), disk))
}

/// Makes the machine that a file describes. Relative paths in it are taken from the file's folder, those of `overrides` as they are.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn resolve(source: Source, overrides: &Overrides) -> Result<Resolved, ConfigError> {
    crate::dup::check(&source)?;
    let mut reader = Reader { source: &source, at: HashMap::new(), given: HashMap::new(), generate: false };
    let file: File<'_> = source.parse()?;
    let machine = reader.machine(&file, overrides)?;
    let Reader { at, given, .. } = reader;
    let spans = Spans { source: source.clone(), at, given };
    check(&machine).map_err(|p| spans.error(p.place, p.what, p.fix))?;
    Ok(Resolved { machine, spans })
}

/// Reads the parts of the file and notes where they stand.
struct Reader<'a> {
    source: &'a Source,
    at: HashMap<Place, usize>,
    given: HashMap<Place, &'static str>,
    /// The device tree is made because nobody has said anything else, so it must be complete.
    generate: bool,
}

impl<'a> Reader<'a> {
    fn get<T: Deserialize<'a>>(&mut self, place: Place, raw: &'a RawValue) -> Result<T, ConfigError> {
        self.at.insert(place, self.source.offset(raw));
        self.source.value(raw)
    }

    fn opt<T: Deserialize<'a>>(
        &mut self,
        place: Place,
        raw: Option<&'a RawValue>,
        default: T,
    ) -> Result<T, ConfigError> {
        raw.map_or(Ok(default), |raw| self.get(place, raw))
    }

    fn size(&mut self, place: Place, raw: &'a RawValue) -> Result<u64, ConfigError> {
        match self.get(place, raw) {
            Ok(SizeFile::Bytes(n)) => Ok(n),
            Ok(SizeFile::Text(text)) => parse_size(&text).map_err(|what| {
                self.source.error(self.at[&place], what, "write it as \"512M\" or as a number of bytes")
            }),
            Err(_) => Err(self.source.error(
                self.at[&place],
                "this is no size",
                "write it as \"512M\" or as a number of bytes",
            )),
        }
    }

    fn path(&mut self, place: Place, raw: &'a RawValue) -> Result<PathBuf, ConfigError> {
        let path: crate::file::PathText = self.get(place, raw)?;
        Ok(self.source.path().parent().unwrap_or(Path::new("")).join(path))
    }

    fn machine(&mut self, file: &File<'a>, over: &Overrides) -> Result<Machine, ConfigError> {
        let quantum = self.opt(Place::Quantum, file.cpu.quantum, QUANTUM)?;
        let mut cpu = Cpu {
            model: self.source.value::<CpuModel>(file.cpu.model).or_else(|_| self.model(file.cpu.model))?,
            count: self.opt(Place::CpuCount, file.cpu.count, 1)?,
            quantum: 0,
            periphbase: self.get(Place::Periphbase, file.cpu.periphbase)?,
            timer_hz: self.opt(Place::TimerHz, file.cpu.timer_hz, 62_500_000)?,
            pmu_spi: file.cpu.pmu_spi.map(|raw| self.get(Place::PmuSpi, raw)).transpose()?,
            pmu_ppi: file.cpu.pmu_ppi.map(|raw| self.get(Place::PmuSpi, raw)).transpose()?,
            security: self.opt(Place::Psci, file.cpu.security, true)?,
            psci: file.cpu.psci.map(|raw| self.get(Place::Psci, raw)).transpose()?,
        };
        if let Some(count) = over.cpus {
            cpu.count = count;
            self.given.insert(Place::CpuCount, "--cpus");
        }
        if cpu.count > 1 {
            cpu.quantum = over.quantum.unwrap_or(quantum);
        }
        let mut memory = Memory {
            base: self.get(Place::MemoryBase, file.memory.base)?,
            size: self.size(Place::MemorySize, file.memory.size)?,
            aliases: Vec::new(),
        };
        if let Some(size) = over.memory {
            memory.size = size;
            self.given.insert(Place::MemorySize, "--memory");
        }
        for (i, alias) in file.memory.aliases.iter().enumerate() {
            let size = self.size(Place::Alias(i), alias.size)?;
            let offset = self.opt(Place::Alias(i), alias.offset, 0)?;
            memory.aliases.push(Alias { at: self.get(Place::Alias(i), alias.at)?, size, offset });
        }
        let gic = Gic {
            cpu_size: self.opt(Place::GicCpu, file.gic.cpu_size, 0x2000)?,
            cpu: self.get(Place::GicCpu, file.gic.cpu)?,
            dist: self.get(Place::GicDist, file.gic.dist)?,
            spis: self.get(Place::Spis, file.gic.spis)?,
            interfaces: self.opt(Place::Interfaces, file.gic.interfaces, cpu.count)?,
        };
        let l2 = match &file.l2 {
            Some(l2) => Some(L2Cache {
                way_size: self.size(Place::L2, l2.way_size)?,
                ways: self.opt(Place::L2, l2.ways, 8)?,
                at: self.get(Place::L2, l2.at)?,
            }),
            None => None,
        };
        let mut bus = Vec::new();
        for (i, range) in file.bus.iter().enumerate() {
            let size = self.size(Place::Bus(i), range.size)?;
            let words = self.opt(Place::Bus(i), range.words, Vec::new())?;
            let every = range.every.map(|raw| self.get(Place::Bus(i), raw)).transpose()?;
            bus.push(BusRange { at: self.get(Place::Bus(i), range.at)?, size, words, every });
        }
        let mut devices = Vec::new();
        for (i, device) in file.devices.iter().enumerate() {
            devices.push(self.device(i, device)?);
        }
        self.given_disks(&mut devices, over)?;
        if !over.display {
            devices.iter_mut().for_each(|d| d.panel = None);
        }
        let released = cpu.count > 1 && cpu.psci.is_none();
        let machine = Machine {
            name: self.get(Place::Name, file.name)?,
            cpu,
            memory,
            clock: self.clock(file, over)?,
            gic,
            l2,
            boot: match self.source.value(file.boot)? {
                BootFile::Linux(linux) => Boot::Linux(self.linux(file.boot, &linux, over, released)?),
                BootFile::Image(image) => Boot::Image(self.image(&image, over)?),
            },
            devices,
            bus,
            limits: match &file.limits {
                Some(limits) => self.limits(limits)?,
                None => Limits::default(),
            },
        };
        match crate::boot::unbound(&machine).filter(|_| self.generate) {
            None => Ok(machine),
            Some(why) => Err(self.source.error(
                self.source.offset(file.boot),
                format!("the machine has no device tree, and {why}"),
                "name one with --dtb FILE, or here; or write `dtb: generated` for one without what it can't show",
            )),
        }
    }

    /// Puts the command line's disks into their devices.
    fn given_disks(&mut self, devices: &mut [Device], over: &Overrides) -> Result<(), ConfigError> {
        for (n, (name, disk)) in over.disks.iter().enumerate() {
            let wrong =
                |what: String, fix: String| Err(ConfigError { file: "--disk".into(), line: 0, column: 0, what, fix });
            if over.disks[..n].iter().any(|(other, _)| other == name) {
                return wrong(format!("\"{name}\" is given two disks"), "leave one of them out".into());
            }
            let Some(i) = devices.iter().position(|d| d.name == *name) else {
                let names: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
                let what = format!("the machine has no device \"{name}\"");
                return wrong(what, format!("its devices are: {}", names.join(", ")));
            };
            devices[i].disk = Some(disk.clone());
            self.given.insert(Place::DeviceDisk(i), "--disk");
        }
        Ok(())
    }

    /// `model` is text in the file, for its hyphen.
    fn model(&self, raw: &'a RawValue) -> Result<CpuModel, ConfigError> {
        let name: String = self.source.value(raw)?;
        match name.as_str() {
            "cortex-a15" => Ok(CpuModel::CortexA15),
            "cortex-a9" => Ok(CpuModel::CortexA9),
            _ => Err(self.source.error(
                self.source.offset(raw),
                format!("there is no CPU model \"{name}\""),
                "it is one of: \"cortex-a15\", \"cortex-a9\"",
            )),
        }
    }

    fn clock(&mut self, file: &File<'a>, over: &Overrides) -> Result<Clock, ConfigError> {
        let mut clock = Clock { mode: over.default_clock.unwrap_or(ClockMode::Warp), ns_per_insn: (1, 1) };
        if let Some(written) = &file.clock {
            if let Some(raw) = written.mode {
                clock.mode = self.source.value(raw)?;
            }
            clock.ns_per_insn = self.opt(Place::NsPerInsn, written.ns_per_insn, clock.ns_per_insn)?;
        }
        clock.mode = over.clock.unwrap_or(clock.mode);
        Ok(clock)
    }

    /// An image's path from the command line, else from the file.
    fn image_path(
        &mut self,
        place: Place,
        flag: &'static str,
        given: Option<&PathBuf>,
        raw: Option<&'a RawValue>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        if let Some(path) = given {
            self.given.insert(place, flag);
            return Ok(Some(path.clone()));
        }
        raw.map(|raw| self.path(place, raw)).transpose()
    }

    fn linux(
        &mut self,
        boot: &'a RawValue,
        file: &LinuxFile<'a>,
        over: &Overrides,
        released: bool,
    ) -> Result<LinuxBoot, ConfigError> {
        self.at.insert(Place::Release, self.source.offset(boot));
        let release = file.release.map(|raw| self.get(Place::Release, raw)).transpose()?;
        let kernel = self.image_path(Place::Kernel, "--kernel", over.kernel.as_ref(), file.kernel)?;
        let generated = file.dtb.is_some_and(|raw| raw.get_ron().trim() == "generated");
        let dtb = self.image_path(Place::Dtb, "--dtb", over.dtb.as_ref(), file.dtb.filter(|_| !generated))?;
        self.generate = dtb.is_none() && !generated;
        self.at.entry(Place::Dtb).or_insert(self.source.offset(file.dtb.unwrap_or(boot)));
        let initrd = self.image_path(Place::Initrd, "--initrd", over.initrd.as_ref(), file.initrd)?;
        let append = match &over.append {
            Some(text) => {
                self.given.insert(Place::Append, "--append");
                text.clone()
            }
            None => self.opt(Place::Append, file.append, String::new())?,
        };
        let missing = || {
            let at = self.source.offset(boot);
            self.source.error(at, "the machine has no kernel", "name one with --kernel FILE, or here")
        };
        Ok(LinuxBoot {
            kernel: kernel.ok_or_else(missing)?,
            dtb,
            initrd,
            append,
            machine_id: self.opt(Place::Kernel, file.machine_id, u32::MAX)?,
            release: release.filter(|_| released),
        })
    }

    fn image(&mut self, file: &ImageFile<'a>, over: &Overrides) -> Result<ImageBoot, ConfigError> {
        let path = self.image_path(Place::Image, "--kernel", over.kernel.as_ref(), Some(file.file))?;
        for (given, flag) in
            [(over.dtb.is_some(), "--dtb"), (over.initrd.is_some(), "--initrd"), (over.append.is_some(), "--append")]
        {
            if given {
                let what = "this machine boots a bare-metal image".to_owned();
                return Err(ConfigError {
                    file: flag.into(),
                    line: 0,
                    column: 0,
                    what,
                    fix: "leave the option out".into(),
                });
            }
        }
        Ok(ImageBoot {
            file: path.expect("the file names one"),
            load: file.load.map(|raw| self.get(Place::ImageAddress, raw)).transpose()?,
            entry: file.entry.map(|raw| self.get(Place::ImageAddress, raw)).transpose()?,
        })
    }

    fn device(&mut self, i: usize, file: &DeviceFile<'a>) -> Result<Device, ConfigError> {
        let mut lines = Vec::new();
        for (j, (pin, to)) in file.lines.0.iter().enumerate() {
            let pin = match self.get(Place::DeviceLine(i, j), pin) {
                Ok(pin) => resolve_pin(pin),
                Err(_) => {
                    let at = self.at[&Place::DeviceLine(i, j)];
                    let fix = "a pin is a name such as \"irq\", or a number";
                    return Err(self.source.error(at, "this is no pin", fix));
                }
            };
            let to = match self.get(Place::DeviceTarget(i, j), to)? {
                TargetFile::Spi(n) => LineTarget::Spi(n),
                TargetFile::Poweroff => LineTarget::Poweroff,
                TargetFile::Reset => LineTarget::Reset,
                TargetFile::Device(name, pin) => LineTarget::Device(name, resolve_pin(pin)),
            };
            lines.push(Line { pin, to });
        }
        if let Some(config) = file.config {
            self.at.insert(Place::DeviceConfig(i), self.source.offset(config));
        }
        let device = Device {
            name: self.get(Place::DeviceName(i), file.name)?,
            plugin: self.get(Place::DevicePlugin(i), file.plugin)?,
            at: self.get(Place::DeviceAt(i), file.at)?,
            size: self.size(Place::DeviceSize(i), file.size)?,
            config: file.config.map_or("()", |c| c.trim().get_ron()).to_owned(),
            lines,
            backend: self.opt(Place::DeviceBackend(i), file.backend, Backend::None)?,
            dma: self.opt(Place::DeviceDma(i), file.dma, Dma::None)?,
            restart: self.opt(Place::DeviceRestart(i), file.restart, Restart::Always)?,
            disk: file.disk.map(|raw| self.disk(i, raw)).transpose()?,
            panel: file.panel.map(|raw| self.get(Place::DevicePanel(i), raw)).transpose()?,
        };
        if file.config.is_none() {
            let at = self.at[&Place::DeviceName(i)];
            self.at.insert(Place::DeviceConfig(i), at);
        }
        Ok(device)
    }

    fn disk(&mut self, i: usize, raw: &'a RawValue) -> Result<Disk, ConfigError> {
        let disk: DiskFile<'a> = self.get(Place::DeviceDisk(i), raw)?;
        Ok(Disk {
            format: disk.format.map(|raw| self.source.value(raw)).transpose()?,
            snapshot: disk.snapshot,
            readonly: disk.readonly,
            // Last, as the place is to be the name's.
            file: self.path(Place::DeviceDisk(i), disk.file)?,
        })
    }

    fn limits(&mut self, file: &LimitsFile<'a>) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        if let Some(first) =
            [file.request_slots, file.event_slots, file.arena, file.reply_timeout_ms, file.anchor_every]
                .into_iter()
                .flatten()
                .next()
        {
            self.at.insert(Place::Limits, self.source.offset(first));
        }
        let arena = match file.arena {
            Some(raw) => u32::try_from(self.size(Place::Limits, raw)?).unwrap_or(u32::MAX),
            None => default.arena,
        };
        Ok(Limits {
            request_slots: self.opt(Place::Limits, file.request_slots, default.request_slots)?,
            event_slots: self.opt(Place::Limits, file.event_slots, default.event_slots)?,
            arena,
            reply_timeout_ms: self.opt(Place::Limits, file.reply_timeout_ms, default.reply_timeout_ms)?,
            anchor_every: self.opt(Place::Limits, file.anchor_every, default.anchor_every)?,
        })
    }
}

fn resolve_pin(pin: PinFile) -> Pin {
    match pin {
        PinFile::Number(n) => Pin::Number(n),
        PinFile::Name(name) => Pin::Name(name),
    }
}

/// The rules, for a machine from a file and for one from a recording alike.
pub(crate) fn check(m: &Machine) -> Result<(), Problem> {
    check_scalars(m)?;
    check_memory(m)?;
    check_gic(m)?;
    check_l2(m)?;
    check_limits(&m.limits)?;
    check_boot(m)?;
    if m.devices.len() > MAX_DEVICES {
        return problem(
            Place::Devices,
            format!("the machine has {} devices", m.devices.len()),
            format!("at most {MAX_DEVICES}: each is a process"),
        );
    }
    for (i, device) in m.devices.iter().enumerate() {
        check_device(m, i, device)?;
    }
    check_overlaps(m)?;
    check_pmu(m)?;
    check_targets(m)
}

fn check_scalars(m: &Machine) -> Result<(), Problem> {
    if m.name.is_empty() || m.name.len() > 64 || m.name.chars().any(char::is_control) {
        return problem(Place::Name, "this is no name for a machine", "give it 1 to 64 printable characters");
    }
    if !(1..=MAX_CORES).contains(&m.cpu.count) {
        let what = format!("the machine has {} cores", m.cpu.count);
        return problem(Place::CpuCount, what, format!("give 1 to {MAX_CORES}"));
    }
    let turn = m.cpu.quantum;
    if (m.cpu.count == 1) != (turn == 0) || turn != 0 && !QUANTA.contains(&turn) {
        let fix = format!("give {} to {} with several cores, none with one", QUANTA.start(), QUANTA.end());
        return problem(Place::Quantum, format!("a core's turn has {turn} instructions"), fix);
    }
    if !(1_000..=1_000_000_000).contains(&m.cpu.timer_hz) {
        return problem(
            Place::TimerHz,
            format!("the timer runs at {} Hz", m.cpu.timer_hz),
            "give 1_000 to 1_000_000_000",
        );
    }
    let (num, den) = m.clock.ns_per_insn;
    if !(1..=1_000_000).contains(&num) || !(1..=1_000_000).contains(&den) {
        return problem(
            Place::NsPerInsn,
            format!("an instruction takes {num}/{den} ns"),
            "give two numbers of 1 to 1_000_000, such as (1, 1)",
        );
    }
    Ok(())
}

fn check_memory(m: &Machine) -> Result<(), Problem> {
    let Memory { base, size, aliases } = &m.memory;
    if *size == 0 || size % RAM_ALIGN != 0 {
        return problem(
            Place::MemorySize,
            format!("RAM of {size} bytes is impossible"),
            "give a multiple of 64 KiB, at least one",
        );
    }
    if base % RAM_ALIGN != 0 {
        return problem(Place::MemoryBase, format!("RAM can't begin at {base:#x}"), "give a multiple of 64 KiB");
    }
    if base.checked_add(*size).is_none_or(|end| end > SPACE) {
        let room = SPACE.saturating_sub(*base) >> 20;
        return problem(
            Place::MemorySize,
            format!("RAM of {} MiB at {base:#x} ends beyond 4 GiB", size >> 20),
            format!("at most {room} MiB fit there"),
        );
    }
    if aliases.len() > MAX_RANGES {
        return problem(Place::Alias(MAX_RANGES), "there are too many aliases", format!("at most {MAX_RANGES}"));
    }
    for (i, a) in aliases.iter().enumerate() {
        if a.size == 0
            || (a.size | a.at | a.offset) % RAM_ALIGN != 0
            || a.at.checked_add(a.size).is_none_or(|end| end > SPACE)
        {
            return problem(
                Place::Alias(i),
                format!("an alias of {:#x} bytes at {:#x} is impossible", a.size, a.at),
                "give multiples of 64 KiB below 4 GiB",
            );
        }
        if a.offset.checked_add(a.size).is_none_or(|end| end > *size) {
            return problem(
                Place::Alias(i),
                format!("the alias at {:#x} shows more than there is of RAM", a.at),
                format!("offset + size is at most {size:#x}"),
            );
        }
    }
    Ok(())
}

fn check_gic(m: &Machine) -> Result<(), Problem> {
    if m.cpu.periphbase % 0x8000 != 0 || m.cpu.periphbase >= SPACE {
        return problem(
            Place::Periphbase,
            format!("PERIPHBASE can't be {:#x}", m.cpu.periphbase),
            "give a multiple of 32 KiB below 4 GiB",
        );
    }
    let Gic { dist, cpu, cpu_size, spis, interfaces } = &m.gic;
    let fits = |at: u64, size: u64| at % 0x100 == 0 && at < 0x10_0000 && m.cpu.periphbase + at + size <= SPACE;
    let cpu_fits = (0x100..=0x2_0000).contains(cpu_size) && cpu_size % 0x100 == 0 && fits(*cpu, *cpu_size);
    if !fits(*dist, GIC_DIST_SIZE) || !cpu_fits {
        return problem(
            if cpu_fits { Place::GicDist } else { Place::GicCpu },
            "the GIC can't lie there",
            "give offsets from periphbase, multiples of 0x100 below 1 MiB, as the CPU's manual names them",
        );
    }
    if *spis == 0 || spis % 32 != 0 || *spis > 960 {
        return problem(
            Place::Spis,
            format!("a GIC with {spis} SPIs is impossible"),
            "give a multiple of 32, up to 960",
        );
    }
    if *interfaces < m.cpu.count || *interfaces > 8 {
        return problem(
            Place::Interfaces,
            format!("a GIC with {interfaces} CPU interfaces is impossible here"),
            format!("give a number from the {} of the machine's cores to 8", m.cpu.count),
        );
    }
    Ok(())
}

fn check_l2(m: &Machine) -> Result<(), Problem> {
    let Some(L2Cache { at, way_size, ways }) = &m.l2 else { return Ok(()) };
    let bad = if at % PAGE != 0 || at.checked_add(L2_SIZE).is_none_or(|end| end > SPACE) {
        "its registers lie at a multiple of 4 KiB below 4 GiB"
    } else if !way_size.is_power_of_two() || !(16 << 10..=512 << 10).contains(way_size) {
        "a way has 16 KiB to 512 KiB, a power of two"
    } else if !matches!(ways, 8 | 16) {
        "it has 8 or 16 ways"
    } else {
        return Ok(());
    };
    problem(Place::L2, "there is no such L2 cache", bad)
}

fn check_limits(l: &Limits) -> Result<(), Problem> {
    let slots = |n: u32| n.is_power_of_two() && (16..=65536).contains(&n);
    let bad = if !slots(l.request_slots) || !slots(l.event_slots) {
        "request_slots and event_slots are powers of two, 16 to 65536"
    } else if !l.arena.is_power_of_two() || !(4 << 10..=64 << 20).contains(&l.arena) {
        "arena is a power of two, 4 KiB to 64 MiB"
    } else if !(100..=3_600_000).contains(&l.reply_timeout_ms) {
        "reply_timeout_ms is 100 to 3_600_000"
    } else if !(1_000..=10_000_000).contains(&l.anchor_every) {
        "anchor_every is 1_000 to 10_000_000 instructions"
    } else {
        return Ok(());
    };
    problem(Place::Limits, "a limit is out of its range", bad)
}

fn check_boot(m: &Machine) -> Result<(), Problem> {
    match &m.boot {
        Boot::Linux(linux) if linux.append.len() >= MAX_APPEND || linux.append.contains('\0') => problem(
            Place::Append,
            "the kernel can't take this command line",
            format!("at most {} bytes, no zero byte", MAX_APPEND - 1),
        ),
        Boot::Linux(LinuxBoot { release: None, .. }) if m.cpu.count > 1 && m.cpu.psci.is_none() => problem(
            Place::Release,
            "the boot does not say where further cores find the address to start at",
            "give `release: ADDRESS`, such as that of SYS_FLAGS on a Versatile Express, or `cpu.psci`, or one core",
        ),
        Boot::Linux(LinuxBoot { release: Some(_), .. }) if m.cpu.psci.is_some() => {
            problem(Place::Release, "the cores are released by firmware", "leave out either `release` or `cpu.psci`")
        }
        Boot::Linux(LinuxBoot { release: Some(at), .. })
            if at % 4 != 0 || *at >= SPACE || (m.memory.base..m.memory.base + m.memory.size).contains(at) =>
        {
            problem(
                Place::Release,
                format!("cores can't be released at {at:#x}"),
                "give the address of a device's register",
            )
        }
        Boot::Image(image) if image.load.is_some_and(|at| at >= SPACE) || image.entry.is_some_and(|at| at >= SPACE) => {
            problem(Place::ImageAddress, "the address is beyond 4 GiB", "give one inside RAM")
        }
        _ => Ok(()),
    }
}

fn check_device(m: &Machine, i: usize, d: &Device) -> Result<(), Problem> {
    let word = |s: &str| {
        !s.is_empty()
            && s.len() <= 32
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if !word(&d.name) {
        return problem(
            Place::DeviceName(i),
            format!("\"{}\" is no device name", d.name),
            "use a-z, 0-9, - and _, at most 32 characters",
        );
    }
    if !word(&d.plugin) {
        return problem(
            Place::DevicePlugin(i),
            format!("\"{}\" is no plugin name", d.plugin),
            "use a-z, 0-9, - and _, such as \"pl011\"",
        );
    }
    if m.devices[..i].iter().any(|other| other.name == d.name) {
        return problem(Place::DeviceName(i), format!("two devices are called \"{}\"", d.name), "rename one");
    }
    if d.size == 0 || d.size % 4 != 0 || d.size > SPACE {
        return problem(
            Place::DeviceSize(i),
            format!("registers of {:#x} bytes are impossible", d.size),
            "give a multiple of 4, such as 0x1000",
        );
    }
    if d.at % 4 != 0 || d.at.checked_add(d.size).is_none_or(|end| end > SPACE) {
        return problem(
            Place::DeviceAt(i),
            format!("registers can't lie at {:#x}", d.at),
            "give a multiple of 4, so that they end below 4 GiB",
        );
    }
    if d.backend == Backend::Console {
        if let Some(other) = m.devices[..i].iter().find(|o| o.backend == Backend::Console) {
            let what = format!("\"{}\" has the console already", other.name);
            return problem(Place::DeviceBackend(i), what, "give one of the two `backend: null`");
        }
    }
    if let Dma::Ranges(list) = &d.dma {
        let (base, size) = (m.memory.base, m.memory.size);
        let inside = |at: u64, n: u64| n > 0 && at >= base && at.checked_add(n).is_some_and(|end| end <= base + size);
        if let Some(r) = list.iter().find(|r| !inside(r.at, r.size)) {
            return problem(
                Place::DeviceDma(i),
                format!("{:#x} bytes at {:#x} are no RAM", r.size, r.at),
                format!("grant what lies in {base:#x}..{:#x}, or all of it with `dma: ram`", base + size),
            );
        }
        if list.len() > MAX_RANGES {
            return problem(Place::DeviceDma(i), "the device has too many ranges", format!("at most {MAX_RANGES}"));
        }
    }
    if let Restart::Limit(deaths, seconds) = d.restart {
        if !(1..=1000).contains(&deaths) || !(1..=86_400).contains(&seconds) {
            let what = format!("the device can't be restarted up to {deaths} times in {seconds} s");
            let fix = "give 1 to 1000 deaths within 1 to 86400 seconds, or `never`";
            return problem(Place::DeviceRestart(i), what, fix);
        }
    }
    if d.disk.as_ref().is_some_and(|disk| disk.snapshot && disk.readonly) {
        let fix = "leave one of the two out: on a disk that can't be written there is nothing to be kept apart";
        return problem(Place::DeviceDisk(i), "the disk is read-only and has `snapshot`", fix);
    }
    if let Some(panel) = d.panel.filter(|panel| panel.timing().is_none()) {
        let what = format!("there is no panel of {} x {} pixels", panel.width, panel.height);
        return problem(Place::DevicePanel(i), what, "give one of 640 x 480, 800 x 600, 1024 x 768");
    }
    if d.panel.is_some() && d.backend != Backend::Display {
        return problem(
            Place::DevicePanel(i),
            "the device is no display",
            "give it `backend: display`, or leave `panel` out",
        );
    }
    if d.lines.len() > MAX_RANGES {
        return problem(Place::DeviceName(i), "the device has too many lines", format!("at most {MAX_RANGES}"));
    }
    Ok(())
}

/// RAM, its aliases, the GIC, the core's other peripherals and the devices lie apart. `bus` ranges may lie under all of these but RAM, as they
/// come last.
fn check_overlaps(m: &Machine) -> Result<(), Problem> {
    let mut ranges = vec![("RAM".to_owned(), m.memory.base, m.memory.size, Place::MemoryBase)];
    ranges.extend(
        m.memory.aliases.iter().enumerate().map(|(i, a)| (format!("RAM alias {i}"), a.at, a.size, Place::Alias(i))),
    );
    let rams = ranges.len();
    let (dist, dist_size) = m.gic_dist();
    let (cpu, cpu_size) = m.gic_cpu();
    ranges.push(("the GIC distributor".to_owned(), dist, dist_size, Place::GicDist));
    ranges.push(("the GIC CPU interface".to_owned(), cpu, cpu_size, Place::GicCpu));
    ranges.extend(m.private().map(|(name, at, size)| (name.to_owned(), at, size, Place::Periphbase)));
    ranges.extend(m.l2().map(|(at, size)| ("the L2 cache controller".to_owned(), at, size, Place::L2)));
    ranges.extend(
        m.devices.iter().enumerate().map(|(i, d)| (format!("\"{}\"", d.name), d.at, d.size, Place::DeviceAt(i))),
    );
    overlap(&ranges)?;
    if m.bus.len() > MAX_RANGES {
        return problem(Place::Bus(MAX_RANGES), "there are too many bus ranges", format!("at most {MAX_RANGES}"));
    }
    ranges.truncate(rams);
    for (i, b) in m.bus.iter().enumerate() {
        if b.size == 0 || (b.size | b.at) % PAGE != 0 || b.at.checked_add(b.size).is_none_or(|end| end > SPACE) {
            return problem(
                Place::Bus(i),
                format!("a bus range of {:#x} bytes at {:#x} is impossible", b.size, b.at),
                "give multiples of 4 KiB below 4 GiB",
            );
        }
        check_words(b, i)?;
        ranges.push(("this bus range".to_owned(), b.at, b.size, Place::Bus(i)));
    }
    overlap(&ranges)
}

fn check_words(b: &BusRange, i: usize) -> Result<(), Problem> {
    let period = b.every.unwrap_or(b.size);
    if period < 4 || period > b.size || b.every.is_some_and(|n| !n.is_power_of_two()) {
        let fix = "give a power of two, from 4 up to the range's size";
        return problem(Place::Bus(i), format!("words can't stand every {period:#x} bytes"), fix);
    }
    let out = |(at, _): &(u64, u32)| at % 4 != 0 || *at >= period;
    if b.words.len() > MAX_RANGES || b.words.iter().any(out) {
        let fix = format!("give at most {MAX_RANGES} pairs (OFFSET, VALUE), offsets multiples of 4 below {period:#x}");
        return problem(Place::Bus(i), "a word of this range is impossible", fix);
    }
    let twice = |j: usize| b.words[..j].iter().any(|(at, _)| *at == b.words[j].0);
    match (0..b.words.len()).find(|j| twice(*j)) {
        Some(j) => problem(Place::Bus(i), format!("the word at {:#x} is given twice", b.words[j].0), "remove one"),
        None => Ok(()),
    }
}

fn overlap(ranges: &[(String, u64, u64, Place)]) -> Result<(), Problem> {
    for (i, (name, at, size, place)) in ranges.iter().enumerate() {
        for (other, other_at, other_size, _) in &ranges[..i] {
            if at < &(other_at + other_size) && other_at < &(at + size) {
                let last = other_at + other_size - 1;
                return problem(
                    *place,
                    format!("{name} at {at:#x} overlaps {other} ({other_at:#x}..={last:#x})"),
                    "move or shrink one of them",
                );
            }
        }
    }
    Ok(())
}

/// The performance monitors' interrupts exist, and no device drives one of them.
fn check_pmu(m: &Machine) -> Result<(), Problem> {
    if let Some(n) = m.cpu.pmu_ppi {
        let taken = if m.cpu.model == CpuModel::CortexA15 { [10, 11, 13, 14, 16] } else { [11, 13, 14, 16, 16] };
        if n > 15 || taken.contains(&n) {
            let fix = "give one from 0 to 15 that none of the core's timers has, such as 7";
            return problem(Place::PmuSpi, format!("the performance monitors can't have PPI {n}"), fix);
        }
        if m.cpu.pmu_spi.is_some() {
            return problem(Place::PmuSpi, "the performance monitors have two interrupts", "give one of the two");
        }
    }
    let Some(first) = m.cpu.pmu_spi else { return Ok(()) };
    let own = u64::from(first)..u64::from(first) + u64::from(m.cpu.count);
    if own.end > u64::from(m.gic.spis) {
        let fix = format!("the GIC has {} SPIs, and each core takes one", m.gic.spis);
        return problem(Place::PmuSpi, format!("there is no SPI {}", own.end - 1), fix);
    }
    let taken = m
        .devices
        .iter()
        .find(|d| d.lines.iter().any(|l| matches!(l.to, LineTarget::Spi(n) if own.contains(&u64::from(n)))));
    match taken {
        Some(d) => problem(
            Place::PmuSpi,
            format!("device \"{}\" drives an interrupt of the performance monitors", d.name),
            "give them interrupts of their own, as the board's device tree does",
        ),
        None => Ok(()),
    }
}

fn check_targets(m: &Machine) -> Result<(), Problem> {
    for (i, device) in m.devices.iter().enumerate() {
        for (j, line) in device.lines.iter().enumerate() {
            match &line.to {
                LineTarget::Spi(n) if *n >= m.gic.spis => {
                    let fix = format!("the GIC has {} SPIs: 0 to {}", m.gic.spis, m.gic.spis - 1);
                    return problem(Place::DeviceTarget(i, j), format!("there is no SPI {n}"), fix);
                }
                LineTarget::Device(name, _) if m.device_index(name).is_none() => {
                    return problem(
                        Place::DeviceTarget(i, j),
                        format!("there is no device \"{name}\""),
                        format!("the devices are: {}", names(m)),
                    );
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn names(m: &Machine) -> String {
    m.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl Machine {
    /// Binds every line to pin numbers. `pins[i]` are the pins of device i.
    ///
    /// # Errors
    /// A pin that a plugin doesn't have, or two lines from one pin, with its place in the file if `spans` are given (a machine from a recording has none).
    pub fn wire(&self, pins: &[Pins], spans: Option<&Spans>) -> Result<Vec<Wire>, String> {
        self.wires(pins).map_err(|p| match spans {
            Some(spans) => spans.error(p.place, p.what, p.fix).to_string(),
            None => format!("{}; {}", p.what, p.fix),
        })
    }

    fn wires(&self, pins: &[Pins]) -> Result<Vec<Wire>, Problem> {
        assert_eq!(pins.len(), self.devices.len(), "every device has pins");
        let mut wires: Vec<Wire> = Vec::new();
        for (i, device) in self.devices.iter().enumerate() {
            for (j, line) in device.lines.iter().enumerate() {
                let pin = number(&line.pin, &pins[i].outputs, &device.name, "output", Place::DeviceLine(i, j))?;
                let to = match &line.to {
                    LineTarget::Spi(n) => WireTarget::Spi(*n),
                    LineTarget::Poweroff => WireTarget::Poweroff,
                    LineTarget::Reset => WireTarget::Reset,
                    LineTarget::Device(name, input) => {
                        let other = self.device_index(name).expect("checked");
                        let pin = number(input, &pins[other].inputs, name, "input", Place::DeviceTarget(i, j))?;
                        WireTarget::Device { device: other as u16, pin }
                    }
                };
                let wire = Wire { device: i as u16, pin, to };
                if wires.contains(&wire) {
                    return problem(
                        Place::DeviceLine(i, j),
                        format!("pin {} is wired twice to the same place", line.pin),
                        "remove one of the two",
                    );
                }
                wires.push(wire);
            }
        }
        Ok(wires)
    }
}

/// The number of a pin.
fn number(pin: &Pin, names: &[String], device: &str, kind: &str, place: Place) -> Result<u16, Problem> {
    let found = match pin {
        Pin::Name(name) => names.iter().position(|n| n == name),
        Pin::Number(n) => Some(usize::from(*n)).filter(|n| *n < names.len()),
    };
    match found {
        Some(n) => Ok(n as u16),
        None if names.is_empty() => problem(place, format!("\"{device}\" has no {kind} pins"), "remove the line"),
        None => problem(
            place,
            format!("\"{device}\" has no {kind} pin {pin}"),
            format!("its {kind} pins are: {}", names.join(", ")),
        ),
    }
}
