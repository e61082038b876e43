//! One life of a machine: from its segments and processes to its end.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reprise_channel::segment::segment_name;
use reprise_channel::{ChannelConfig, ChannelSegment, CloseReason, ControlConfig, ControlSegment};
use reprise_child::control::{
    BackendStart, Blame, BootMemory, Common, CpuChannel, CpuFinished, CpuStart, DeviceStart, DeviceState, EndReason,
    Engine, FromChild, LogChannel, LogConsole, LogDisk, LogFinished, LogStart, Mode, PluginSwap, PortEnd, Ready, Start,
    StopReason, ToChild, Totals, Way,
};
use reprise_child::operator::Command;
use reprise_child::syscall_name;
use reprise_device::spec::PluginSpec;
use reprise_machine::lookup::Layout;
use reprise_machine::{Backend, Device, Dma, Limits, Machine, Pins, Spans, Wire};

use crate::children::{Descriptors, Running, own_cpu_seconds};
use crate::disks::OpenDisk;
use crate::display::Listener;
use crate::failure::Failure;
use crate::images::{BootImage, guest_ram};
use crate::keeper::Keeper;
use crate::leftovers::MachineLock;
use crate::line::Line;
use crate::net::{self, Net};
use crate::operator::Operators;
use crate::outcome::{Outcome, Recovery};
use crate::plugins::PluginFile;
use crate::record::NewRecording;
use crate::signals::EndSignals;
use crate::terminal::{self, ChildConsole, GuestConsole, Request, Terminal, say};

/// How long all children together may take to get ready.
const START_TIME: Duration = Duration::from_secs(60);
/// How long a device may take to save its state, and log-daemon to write what is left.
const FINISH_TIME: Duration = Duration::from_secs(60);
/// How long a child may take to exit once it is told to.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// Bytes of the arenas of a channel whose device may use DMA, at least: the longest transfer, and common ones beside it.
const DMA_ARENA: u32 = 2 << 20;
/// Most slots in a ring of a device without a host side, and bytes of its arenas: it has registers and lines, and no data to speak of. All pages of a
/// segment are allocated before the guest starts, so that large rings cost every start some milliseconds.
const QUIET_SLOTS: u32 = 1024;
const QUIET_ARENA: u32 = 64 << 10;

/// The most notes of the children that are shown.
const MAX_NOTES: usize = 200;

/// What is done with the log.
#[derive(Debug)]
pub(crate) enum Log {
    /// Nothing.
    None,
    /// A new recording.
    Record(NewRecording),
    /// A replay of this recording.
    Replay {
        /// Its directory, absolute.
        dir: PathBuf,
        /// The plugins' specs in it, in the machine's order.
        specs: Vec<Vec<u8>>,
        /// The ID registers in it.
        id_registers: Vec<(String, u64)>,
    },
}

/// A plugin that was swapped into a device.
#[derive(Clone, Debug)]
pub(crate) struct LaterPlugin {
    /// The first request that it serves.
    pub(crate) request: u64,
    /// None: from there on the device is gone.
    pub(crate) plugin: Option<Rc<PluginFile>>,
    /// The device's configuration from there on, if it is another.
    pub(crate) config: Option<String>,
}

/// Everything that a session needs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Mode,
    pub(crate) engine: Engine,
    pub(crate) perf_map: bool,
    pub(crate) machine: Machine,
    /// Places in the machine file; none in a replay.
    pub(crate) spans: Option<Spans>,
    pub(crate) uuid: String,
    pub(crate) boot: BootImage,
    /// The devices' plugins, in the machine's order; empty in mode `Absent`.
    pub(crate) plugins: Vec<Rc<PluginFile>>,
    /// In a replay: for each device, the plugins that were swapped in, and the first requests that they serve.
    pub(crate) swaps: Vec<Vec<LaterPlugin>>,
    /// The devices' disks, in the machine's order.
    pub(crate) disks: Vec<Option<OpenDisk>>,
    /// The devices' networks, in the machine's order; empty in a replay.
    pub(crate) nets: Vec<Option<Net>>,
    /// The devices whose cables are out from the beginning.
    pub(crate) unplugged: Vec<usize>,
    /// Where viewers connect to the screen.
    pub(crate) listener: Option<Listener>,
    /// Where the picture goes that the screen shows at the end.
    pub(crate) screendump: Option<PathBuf>,
    /// The devices' lines; none in a replay.
    pub(crate) lines: Vec<Line>,
    pub(crate) log: Log,
    /// What devices read from guest memory is recorded with its bytes.
    pub(crate) log_dma_reads: bool,
    pub(crate) stop_at: Option<u64>,
    pub(crate) jitter: Option<u64>,
    pub(crate) layout: Layout,
}

#[path = "operations.rs"]
mod operations;
#[path = "revival.rs"]
mod revival;
#[path = "wedge.rs"]
mod wedge;

#[path = "people.rs"]
mod people;

/// Which child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Cpu,
    Log,
    Device(usize),
    /// With a device's new plugin, until it serves.
    Standby(usize),
    /// It has made way for another, or failed to take over.
    Retired,
    /// The network of the device with this index.
    Net(usize),
    /// The screens.
    Display,
}

/// What went wrong with a child.
#[derive(Debug)]
struct Trouble {
    role: Option<Role>,
    text: String,
    blame: Blame,
}

/// A running machine.
struct Session<'a> {
    setup: &'a Setup,
    terminal: &'a mut Terminal,
    signals: &'a mut EndSignals,
    children: Vec<(Role, Running)>,
    /// What the children have said, by their place in `children`.
    ready: Vec<Option<Ready>>,
    states: Vec<Option<DeviceState>>,
    channels: Vec<ChannelSegment>,
    control: Option<ControlSegment>,
    /// The wires of networks; kept, as they outlive the processes at their ends.
    links: Vec<Option<net::Link>>,
    /// What people see and do.
    people: people::People,
    guest: GuestConsole,
    /// The other lines of devices, and those of further ports.
    lines: Vec<Line>,
    /// The guest's ends of the console, for processes that are yet to come.
    console: ChildConsole,
    /// The plugins in service.
    plugins: Vec<Rc<PluginFile>>,
    /// The configurations in force.
    configs: Vec<String>,
    /// The specs that the machine was built with.
    specs: Vec<Vec<u8>>,
    estates: Vec<revival::Estate>,
    /// What is known of processes that have died and have, or will have, successors.
    deaths: BTreeMap<Role, revival::Deaths>,
    /// How long each of them was missed.
    recoveries: Vec<Recovery>,
    swap: revival::Swap,
    watch: wedge::Watch,
    operators: Option<Operators>,
    /// What operators have asked for.
    asked: VecDeque<(u64, Result<Command, String>)>,
    questions: operations::Questions,
    /// When this life of the machine began.
    began: Instant,
    /// All children have been told to go.
    running: bool,
    /// The devices have been asked for their states.
    saving: bool,
    /// CPU time of processes that had successors.
    past_cpu_seconds: f64,
    cpu_finished: Option<CpuFinished>,
    log_finished: Option<LogFinished>,
    trouble: Option<Trouble>,
    diverged: Option<String>,
    log_failure: Option<String>,
    keeper: Keeper,
    /// How often the user has asked for the end.
    ends: usize,
    /// Children may exit.
    leaving: bool,
    /// Notes that were shown.
    notes: usize,
}

/// Runs a machine from its start to its end. Of the setup its disks and networks are left, as the machine has left them.
///
/// # Errors
/// It did not get to its first instruction.
pub(crate) fn run(setup: &mut Setup, terminal: &mut Terminal, signals: &mut EndSignals) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let lines = std::mem::take(&mut setup.lines);
    let setup = &*setup;
    let cpu_before = own_cpu_seconds();
    let segments: Vec<String> = (0..=setup.machine.devices.len()).map(|n| segment_name(&setup.uuid, n)).collect();
    // Declared before the session, so that it goes after the segments.
    let lock = MachineLock::create(&setup.uuid, &segments)?;
    let console = (setup.mode == Mode::Verify || !setup.mode.is_replay()) && setup.console().is_some();
    let input = console && !setup.mode.is_replay();
    let (guest, theirs) = terminal::console(input, setup.mode.has_devices()).context("the console")?;
    let mut session = Session::new(setup, terminal, signals, guest, theirs);
    session.lines = lines;
    session.operators =
        Operators::listen(&lock.socket()).inspect_err(|e| tracing::debug!("no socket for vmctl: {e:#}")).ok();
    session.start(&segments)?;
    session.go()?;
    session.run_to_end()?;
    let device_states = session.save_devices()?;
    session.last_picture();
    let totals = session.totals(device_states.as_deref());
    session.finish_log(&totals)?;
    session.leave()?;
    let mut outcome = session.outcome(device_states.is_some().then_some(totals));
    outcome.wall_seconds = began.elapsed().as_secs_f64();
    outcome.cpu_seconds += own_cpu_seconds() - cpu_before;
    Ok(outcome)
}

impl Setup {
    /// The device that has the console.
    fn console(&self) -> Option<usize> {
        self.machine.devices.iter().position(|d| d.backend == Backend::Console)
    }

    /// What every start message has. Each process gets a seed of its own.
    fn common(&self, name: &str, number: usize) -> Common {
        Common {
            name: name.to_owned(),
            log_filter: std::env::var("REPRISE_LOG").unwrap_or_else(|_| "warn".into()),
            jitter: self.jitter.map(|seed| (seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1),
            mode: self.mode,
        }
    }

    fn program(&self, name: &str) -> Result<PathBuf, Failure> {
        let places = self.layout.child(name);
        places.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
            let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            anyhow::anyhow!("there is no program {name}; build or install it: looked for {}", looked.join(", ")).into()
        })
    }

    /// Does the device's backend offer input by itself?
    fn backend_offers(&self, device: usize) -> bool {
        let backend = self.machine.devices[device].backend;
        let offers = match backend {
            Backend::Console | Backend::Serial | Backend::Rtc | Backend::Random | Backend::Net => true,
            Backend::Keyboard | Backend::Mouse | Backend::PowerKey => true,
            Backend::None | Backend::Null | Backend::Display => false,
        };
        offers && !self.mode.is_replay()
    }
}

/// Who has something for the supervisor.
#[derive(Default)]
struct Woken {
    stdin: bool,
    /// Children that said something or died, by number. There are many, and few that do: to ask each costs more than the console's bytes.
    children: Vec<usize>,
}

impl<'a> Session<'a> {
    fn new(
        setup: &'a Setup,
        terminal: &'a mut Terminal,
        signals: &'a mut EndSignals,
        guest: GuestConsole,
        console: ChildConsole,
    ) -> Self {
        Self {
            setup,
            terminal,
            signals,
            children: Vec::new(),
            ready: Vec::new(),
            states: Vec::new(),
            channels: Vec::new(),
            control: None,
            links: Vec::new(),
            people: people::People::default(),
            guest,
            console,
            lines: Vec::new(),
            plugins: setup.plugins.clone(),
            configs: setup.machine.devices.iter().map(|d| d.config.clone()).collect(),
            specs: Vec::new(),
            estates: Vec::new(),
            deaths: BTreeMap::new(),
            recoveries: Vec::new(),
            swap: revival::Swap::default(),
            watch: wedge::Watch::default(),
            operators: None,
            asked: VecDeque::new(),
            questions: operations::Questions::default(),
            began: Instant::now(),
            running: false,
            saving: false,
            past_cpu_seconds: 0.0,
            cpu_finished: None,
            log_finished: None,
            trouble: None,
            diverged: None,
            log_failure: None,
            keeper: Keeper::default(),
            ends: 0,
            leaving: false,
            notes: 0,
        }
    }

    fn start(&mut self, segments: &[String]) -> Result<(), Failure> {
        let setup = self.setup;
        let limits = &setup.machine.limits;
        let tap = matches!(setup.mode, Mode::Record | Mode::Verify);
        for (i, device) in setup.machine.devices.iter().enumerate() {
            let config = channel_config(i as u16, device, limits, tap);
            self.channels.push(ChannelSegment::create(&segments[i], &config).context("a channel")?);
            self.people.lay(device.backend, setup.mode).context("a device's wire")?;
        }
        // Without a log only its status page is used.
        let name = segments.last().expect("one more than devices");
        self.control = Some(ControlSegment::create(name, &ControlConfig::default()).context("the control segment")?);
        let deadline = Instant::now() + START_TIME;
        if setup.mode.has_devices() {
            for i in 0..setup.machine.devices.len() {
                self.estates.push(revival::Estate::new()?);
                self.open_net(i)?;
                let child = self.launch_device(i, Way::Fresh)?;
                self.adopt(Role::Device(i), child);
            }
            self.until_ready(deadline)?;
        }
        let specs = self.specs()?;
        self.specs.clone_from(&specs);
        let wires = self.wires(&specs)?;
        self.start_cpu(&specs, wires)?;
        if setup.listener.is_some() {
            self.start_display()?;
        }
        self.until_ready(deadline)?;
        if setup.mode.has_log() {
            self.start_log(&specs)?;
            self.until_ready(deadline)?;
        }
        Ok(())
    }

    /// Does the device's host side offer input by itself, on any port? Not so in a replay, where there are no lines.
    fn host_input(&self, device: usize) -> bool {
        self.setup.backend_offers(device)
            || self.lines.iter().any(|line| line.device == device && line.port.is_some() && line.has_input())
    }

    fn launch(&self, program: &str, name: &str, descriptors: Descriptors, start: Start) -> Result<Running, Failure> {
        let child = Running::spawn(&self.setup.program(program)?, name, descriptors)?;
        child.start(start).context("the start message")?;
        Ok(child)
    }

    fn adopt(&mut self, role: Role, child: Running) {
        self.children.push((role, child));
        self.ready.push(None);
        self.states.push(None);
    }

    /// Lays a device's wire to its network, if it has one.
    fn open_net(&mut self, i: usize) -> Result<(), Failure> {
        let setup = self.setup;
        let Some(net) = setup.nets.get(i).and_then(Option::as_ref) else {
            self.links.push(None);
            return Ok(());
        };
        self.links.push(Some(net.connect().context("the network's wire")?));
        if matches!(net, Net::User(_)) {
            let child = self.launch_net(i)?;
            self.adopt(Role::Net(i), child);
        }
        Ok(())
    }

    /// Starts a process for a device's network in user mode.
    fn launch_net(&self, i: usize) -> Result<Running, Failure> {
        let setup = self.setup;
        let (Some(Net::User(user)), Some(link)) = (&setup.nets[i], &self.links[i]) else {
            unreachable!("only a network in user mode has a process")
        };
        let common = setup.common(&format!("{} net", setup.machine.devices[i].name), usize::MAX - i);
        Ok(user.start(link, &setup.program(net::PROGRAM)?, common)?)
    }

    /// Starts a process for a device.
    fn launch_device(&self, i: usize, way: Way) -> Result<Running, Failure> {
        let setup = self.setup;
        let (device, plugin, console) = (&setup.machine.devices[i], &self.plugins[i], &self.console);
        let mut descriptors = Descriptors::default();
        let plugin_fd = descriptors.add(plugin.as_fd()).context("dup")?;
        let estate = descriptors.add(self.estate_fd(i)).context("dup")?;
        let mut swaps = Vec::new();
        for LaterPlugin { request, plugin, config } in setup.swaps.get(i).into_iter().flatten() {
            let fd = plugin.as_ref().map(|p| descriptors.add(p.as_fd())).transpose().context("dup")?;
            let plugin_file = plugin.as_ref().map_or_else(String::new, |p| p.origin.clone());
            swaps.push(PluginSwap { request: *request, plugin: fd, plugin_file, config: config.clone() });
        }
        let offers = setup.backend_offers(i);
        let backend = match device.backend {
            Backend::None => BackendStart::None,
            Backend::Null => BackendStart::Null,
            Backend::Display | Backend::Keyboard | Backend::Mouse | Backend::PowerKey => {
                self.people.backend(i, &mut descriptors).context("dup")?
            }
            Backend::Rtc => BackendStart::Rtc { date: offers.then(seconds_since_1970) },
            Backend::Random => BackendStart::Random { offers },
            Backend::Net => BackendStart::Packets {
                fd: match &self.links[i] {
                    Some(link) => Some(descriptors.add(link.device()).context("dup")?),
                    None => None,
                },
            },
            Backend::Serial => match self.lines.iter().find(|line| line.device == i && line.port.is_none()) {
                Some(line) => BackendStart::Console {
                    input: Some(descriptors.add(line.device().0).context("dup")?),
                    output: descriptors.add(line.device().1).context("dup")?,
                },
                None => BackendStart::Null,
            },
            Backend::Console => BackendStart::Console {
                input: match console.input.as_ref().filter(|_| offers) {
                    Some(fd) => Some(descriptors.add(fd.as_fd()).context("dup")?),
                    None => None,
                },
                output: descriptors.add(console.output.as_fd()).context("dup")?,
            },
        };
        let mut ends = Vec::new();
        for line in self.lines.iter().filter(|line| line.device == i) {
            let Some(port) = &line.port else { continue };
            let (input, output) = line.device();
            let (input, output) = (descriptors.add(input).context("dup")?, descriptors.add(output).context("dup")?);
            ends.push(PortEnd { port: port.clone(), input, output });
        }
        let start = Start::Device(DeviceStart {
            common: setup.common(&device.name, i + 2),
            channel: i as u16,
            segment: self.channels[i].name().to_owned(),
            plugin: plugin_fd,
            plugin_file: plugin.origin.clone(),
            kind: device.plugin.clone(),
            window: device.size,
            config: self.configs[i].clone(),
            backend,
            ends,
            disk: setup.disks[i].as_ref().map(|disk| disk.start(&mut descriptors)).transpose()?,
            estate: Some(estate),
            way,
            swaps,
        });
        self.launch("device-proc", &device.name, descriptors, start)
    }

    fn start_cpu(&mut self, specs: &[Vec<u8>], wires: Vec<Wire>) -> Result<(), Failure> {
        let setup = self.setup;
        let mut descriptors = Descriptors::default();
        let ram = guest_ram(setup.machine.memory.size)?;
        self.people.keep_ram(ram.as_fd()).context("a way to look at guest memory")?;
        let ram = descriptors.add(ram.as_fd()).context("dup")?;
        let boot =
            BootMemory { fd: descriptors.add(setup.boot.as_fd()).context("dup")?, loads: setup.boot.loads.clone() };
        let channel = |(i, spec): (usize, &Vec<u8>)| CpuChannel {
            name: setup.machine.devices[i].name.clone(),
            segment: self.channels[i].name().to_owned(),
            spec: spec.clone(),
            host_input: self.host_input(i),
        };
        let start = Start::Cpu(CpuStart {
            common: setup.common("cpu", 0),
            machine: setup.machine.clone(),
            engine: setup.engine,
            perf_map: setup.perf_map,
            ram,
            boot,
            regs: setup.boot.regs,
            secondary: setup.boot.secondary,
            control_segment: self.control.as_ref().map(|c| c.name().to_owned()),
            channels: specs.iter().enumerate().map(channel).collect(),
            wires,
            stop_at: setup.stop_at,
        });
        let child = self.launch("cpu-proc", "cpu", descriptors, start)?;
        self.adopt(Role::Cpu, child);
        Ok(())
    }

    fn start_log(&mut self, specs: &[Vec<u8>]) -> Result<(), Failure> {
        let setup = self.setup;
        let cpu = self.ready_of(Role::Cpu).cloned().unwrap_or_default();
        match &setup.log {
            Log::Record(new) => {
                let devices: Vec<Ready> =
                    (0..setup.machine.devices.len()).filter_map(|i| self.ready_of(Role::Device(i)).cloned()).collect();
                new.write_manifest(&setup.machine, &setup.uuid, setup.engine, &cpu, &devices)?;
            }
            Log::Replay { id_registers, .. } => same_cpu(id_registers, &cpu.id_registers)?,
            Log::None => unreachable!("a mode with a log has one"),
        }
        let (descriptors, start) = self.log_start(specs)?;
        let child = self.launch("log-daemon", "log", descriptors, start)?;
        self.adopt(Role::Log, child);
        Ok(())
    }

    /// What a log-daemon needs, the first one or one that takes the place of another.
    fn log_start(&mut self, specs: &[Vec<u8>]) -> Result<(Descriptors, Start), Failure> {
        let (setup, output) = (self.setup, &self.console.output);
        let dir = match &setup.log {
            Log::Record(new) => &new.dir,
            Log::Replay { dir, .. } => dir,
            Log::None => unreachable!("a mode with a log has one"),
        };
        let mut descriptors = Descriptors::default();
        let console = match setup.console().filter(|_| setup.mode == Mode::Absent) {
            Some(i) => Some(LogConsole { channel: i as u16, output: descriptors.add(output.as_fd()).context("dup")? }),
            None => None,
        };
        let screens = match setup.mode {
            Mode::Absent => self.people.log_screens(&mut descriptors).context("dup")?,
            _ => Vec::new(),
        };
        let mut disks = Vec::new();
        for (i, disk) in setup.disks.iter().enumerate() {
            // With devices alongside nothing is made of the images.
            let Some(disk) = disk.as_ref().filter(|_| setup.mode != Mode::Verify) else { continue };
            disks.push(LogDisk { channel: i as u16, disk: 0, start: disk.start_to_read(&mut descriptors)? });
        }
        let staging = match setup.mode {
            Mode::Record => {
                let fd = self.keeper.staging().context("the recording's staging memory")?;
                Some(descriptors.add(fd).context("dup")?)
            }
            _ => None,
        };
        let channel = |(i, spec): (usize, &Vec<u8>)| LogChannel {
            name: setup.machine.devices[i].name.clone(),
            segment: self.channels[i].name().to_owned(),
            spec: spec.clone(),
        };
        let start = Start::Log(LogStart {
            common: setup.common("log", 1),
            dir_path: dir.to_str().context("the recording's path is no UTF-8 text")?.to_owned(),
            control_segment: self.control.as_ref().map(|c| c.name().to_owned()).unwrap_or_default(),
            channels: specs.iter().enumerate().map(channel).collect(),
            console,
            screens,
            disks,
            staging,
            log_dma_reads: setup.log_dma_reads,
        });
        Ok((descriptors, start))
    }

    /// Starts another log-daemon in the place of the one that died.
    fn replace_log(&mut self) -> Result<(), Failure> {
        let Some(i) = self.place(Role::Log) else { return Ok(()) };
        // A device may be without a process just now, so nobody is asked.
        let specs = self.specs.clone();
        let (descriptors, start) = self.log_start(&specs)?;
        let child = self.launch("log-daemon", "log", descriptors, start)?;
        self.children[i].1 = child;
        self.ready[i] = None;
        self.keeper.revived += 1;
        Ok(())
    }

    /// The new daemon is ready: it is told what the old one was.
    fn brief_log(&mut self) {
        self.send(Role::Log, &ToChild::Go);
        for swap in self.keeper.swaps.clone() {
            self.send(Role::Log, &ToChild::Swapped(swap));
        }
        if let Some(totals) = self.keeper.totals.clone() {
            self.send(Role::Log, &ToChild::Finish(totals));
        }
    }

    /// The plugins' specs, checked. In a replay they must be those of the recording.
    fn specs(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let devices = 0..self.setup.machine.devices.len();
        let now: Vec<Vec<u8>> = devices.filter_map(|i| Some(self.ready_of(Role::Device(i))?.spec.clone())).collect();
        match &self.setup.log {
            Log::Replay { specs, .. } if self.setup.mode.has_devices() && *specs != now => Err(Failure::recording(
                "the plugins in the recording don't describe themselves as its manifest says; see `reprise-log verify`",
            )),
            Log::Replay { specs, .. } => Ok(specs.clone()),
            _ => Ok(now),
        }
    }

    fn wires(&self, specs: &[Vec<u8>]) -> Result<Vec<Wire>, Failure> {
        let bad = |text: String| match self.setup.spans {
            Some(_) => Failure::config(text),
            None => Failure::recording(text),
        };
        let mut pins = Vec::new();
        for (bytes, device) in specs.iter().zip(&self.setup.machine.devices) {
            let spec = PluginSpec::from_bytes(bytes).map_err(|e| bad(format!("{}: {e}", device.name)))?;
            spec.check().map_err(|e| bad(format!("{}: {e}", device.name)))?;
            pins.push(Pins { outputs: spec.outputs, inputs: spec.inputs });
        }
        self.setup.machine.wire(&pins, self.setup.spans.as_ref()).map_err(bad)
    }

    fn place(&self, role: Role) -> Option<usize> {
        self.children.iter().position(|(r, _)| *r == role)
    }

    fn ready_of(&self, role: Role) -> Option<&Ready> {
        self.ready[self.place(role)?].as_ref()
    }

    fn alive(&self, role: Role) -> bool {
        self.place(role).is_some_and(|i| self.children[i].1.exit().is_none())
    }

    fn send(&mut self, role: Role, message: &ToChild) {
        if let Some(i) = self.place(role) {
            if let Err(e) = self.children[i].1.send(message) {
                self.trouble(Some(role), format!("{}: {e}", self.children[i].1.name), Blame::Other);
            }
        }
    }

    /// Waits until every child that was started is ready.
    fn until_ready(&mut self, deadline: Instant) -> Result<(), Failure> {
        while self.ready.iter().any(Option::is_none) {
            self.step(Some(deadline))?;
            if let Some(trouble) = self.trouble.take() {
                return Err(self.start_failure(trouble));
            }
            if self.ends > 0 {
                return Err(Failure::ended("ended while the machine was starting"));
            }
            if Instant::now() >= deadline {
                let waiting =
                    self.ready.iter().position(Option::is_none).map_or("", |i| self.children[i].1.name.as_str());
                return Err(Failure::child(format!("{waiting} did not get ready in {} s", START_TIME.as_secs())));
            }
        }
        Ok(())
    }

    /// A child that doesn't get ready may be the machine file's fault.
    fn start_failure(&self, trouble: Trouble) -> Failure {
        let Trouble { role, text, blame } = trouble;
        match (role, blame, &self.setup.spans) {
            (Some(Role::Device(i)), Blame::Config(line, column), Some(spans)) => {
                let at = (line > 0).then_some((line as usize, column as usize));
                spans.config(i, at, text).into()
            }
            (Some(Role::Device(i)), Blame::Plugin, Some(spans)) => {
                spans.plugin(i, text, "build or install the plugin again").into()
            }
            (_, Blame::Port, _) => Failure::usage(format!("--serial: {text}")),
            (_, Blame::Config(..) | Blame::Plugin, None) => Failure::recording(text),
            _ => Failure::child(text),
        }
    }

    fn go(&mut self) -> Result<(), Failure> {
        for line in &mut self.lines {
            line.begin().map_err(|e| Failure::usage(format!("--serial {}=...: {e}", line.name())))?;
        }
        for (_, child) in &self.children {
            child.send(&ToChild::Go).context("the go message")?;
        }
        self.running = true;
        self.keeper.running = self.setup.mode == Mode::Record;
        let setup = self.setup;
        setup.unplugged.iter().for_each(|&device| self.pull(device));
        Ok(())
    }

    /// Runs until the CPU has said how it ended, or can't.
    fn run_to_end(&mut self) -> Result<(), Failure> {
        let mut stop_by: Option<Instant> = None;
        let mut told = None;
        let patience =
            Duration::from_millis(u64::from(self.setup.machine.limits.reply_timeout_ms)) + Duration::from_secs(10);
        while self.cpu_finished.is_none() && self.alive(Role::Cpu) {
            self.step(stop_by)?;
            self.serve_operators();
            let reason = self.stop_reason();
            if let Some(reason) = reason.filter(|_| reason != told) {
                told = Some(reason);
                stop_by.get_or_insert_with(|| Instant::now() + patience);
                self.send(Role::Cpu, &ToChild::Stop(reason));
            }
            if self.ends > 1 {
                self.trouble(None, "ended by force, at the user's second request".into(), Blame::Other);
                break;
            }
            if stop_by.is_some_and(|by| Instant::now() >= by) && self.cpu_finished.is_none() {
                self.trouble(
                    Some(Role::Cpu),
                    format!("cpu did not stop within {} s", patience.as_secs()),
                    Blame::Other,
                );
                break;
            }
        }
        if let Some(cpu) = self.cpu_finished.as_ref().filter(|c| c.reason == EndReason::Channel) {
            let text = cpu.text.clone();
            self.trouble(None, text, Blame::Other);
        }
        Ok(())
    }

    /// Why the machine should stop, the gravest reason first.
    fn stop_reason(&self) -> Option<StopReason> {
        if self.trouble.is_some() {
            Some(StopReason::ChildDied)
        } else if self.diverged.is_some() || self.log_failure.is_some() {
            Some(StopReason::Log)
        } else if self.ends > 0 {
            Some(StopReason::User)
        } else {
            self.questions.end
        }
    }

    /// The devices' states, if all can be asked.
    fn save_devices(&mut self) -> Result<Option<Vec<DeviceState>>, Failure> {
        if self.trouble.is_some() || !self.setup.mode.has_devices() {
            return Ok(None);
        }
        let devices = self.setup.machine.devices.len();
        self.saving = true;
        for i in 0..devices {
            self.send(Role::Device(i), &ToChild::Save);
        }
        let deadline = Instant::now() + FINISH_TIME;
        let missing = |s: &Self| (0..devices).find(|&i| s.place(Role::Device(i)).is_none_or(|p| s.states[p].is_none()));
        while let Some(i) = missing(self) {
            if self.trouble.is_some() {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let name = &self.setup.machine.devices[i].name;
                let text = format!("{name} did not save its state in {} s", FINISH_TIME.as_secs());
                self.trouble(Some(Role::Device(i)), text, Blame::Other);
                return Ok(None);
            }
            self.step(Some(deadline))?;
        }
        self.saving = false;
        Ok((0..devices).map(|i| self.states[self.place(Role::Device(i))?].clone()).collect())
    }

    /// The hashes over the devices' states. `device_hash` is BLAKE3 over, for each device in the machine's order: the length of its name (u64,
    /// little-endian), its name, the length of its state (likewise), its state.
    fn totals(&self, states: Option<&[DeviceState]>) -> Totals {
        let Some(states) = states else { return Totals::default() };
        let mut hasher = blake3::Hasher::new();
        for (device, state) in self.setup.machine.devices.iter().zip(states) {
            for part in [device.name.as_bytes(), &state.state] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        let console = self.setup.console().map(|i| &states[i]);
        // Zeros: nobody knows.
        let lost = self.setup.console().is_some_and(|i| self.is_bare(i));
        Totals {
            device_hash: *hasher.finalize().as_bytes(),
            console_hash: if lost { [0; 32] } else { console.map_or(*blake3::hash(b"").as_bytes(), |c| c.output_hash) },
            console_bytes: console.map_or(0, |c| c.output_bytes),
        }
    }

    fn finish_log(&mut self, totals: &Totals) -> Result<(), Failure> {
        self.keeper.totals = Some(totals.clone());
        self.send(Role::Log, &ToChild::Finish(totals.clone()));
        let deadline = Instant::now() + FINISH_TIME;
        while (self.alive(Role::Log) || self.keeper.due.is_some()) && self.log_finished.is_none() {
            if Instant::now() >= deadline {
                self.trouble(
                    Some(Role::Log),
                    format!("log did not finish in {} s", FINISH_TIME.as_secs()),
                    Blame::Other,
                );
                break;
            }
            self.step(Some(deadline))?;
        }
        Ok(())
    }

    /// Keeps what the screen shows at the end, if that was asked for.
    fn last_picture(&mut self) {
        if let Some(file) = self.setup.screendump.as_ref().filter(|_| self.trouble.is_none()) {
            if let Err(why) = self.screendump(None, file) {
                self.note(&format!("--screendump: {why}"));
            }
        }
    }

    /// Sends all children home, and takes the last of the console's output.
    fn leave(&mut self) -> Result<(), Failure> {
        self.leaving = true;
        for (_, child) in &self.children {
            if let Err(e) = child.send(&ToChild::Exit) {
                tracing::debug!("{}: {e}", child.name);
            }
        }
        let deadline = Instant::now() + EXIT_TIME;
        while self.children.iter().any(|(_, c)| c.exit().is_none()) && Instant::now() < deadline {
            self.step(Some(deadline))?;
        }
        for (_, child) in &mut self.children {
            if child.exit().is_none() {
                tracing::warn!("{} does not exit; killed", child.name);
                child.kill();
            }
        }
        while self.guest.read_output() {}
        self.lines.iter_mut().for_each(Line::finish);
        Ok(())
    }

    fn outcome(&mut self, totals: Option<Totals>) -> Outcome {
        let log = self.log_finished.take();
        let console = match (&totals, &log) {
            (Some(t), _) => Some((t.console_hash, t.console_bytes)),
            (None, Some(_)) if self.setup.mode == Mode::Absent && self.setup.console().is_none() => {
                Some((*blake3::hash(b"").as_bytes(), 0))
            }
            (None, Some(l)) if self.setup.mode == Mode::Absent => Some((l.console_hash, l.console_bytes)),
            _ => None,
        };
        Outcome {
            mode: self.setup.mode,
            engine: self.setup.engine,
            cpu: self.cpu_finished.take(),
            device_hash: totals.map(|t| t.device_hash),
            console,
            diverged: self.diverged.take(),
            log_failure: self.log_failure.take(),
            casualty: self.trouble.take().map(|t| t.text),
            recording: match &self.setup.log {
                Log::None => None,
                Log::Record(NewRecording { dir, .. }) | Log::Replay { dir, .. } => Some(dir.display().to_string()),
            },
            log,
            ended_by_user: self.ends > 0,
            recoveries: std::mem::take(&mut self.recoveries),
            asked: self.questions.end,
            unplugged: self.questions.unplugged(),
            wall_seconds: 0.0,
            cpu_seconds: self.past_cpu_seconds
                + self.keeper.cpu_seconds
                + self.children.iter().filter_map(|(_, c)| Some(c.exit()?.cpu_seconds)).sum::<f64>(),
        }
    }

    /// Notes the first thing that goes wrong, and wakes whoever waits for the child.
    fn trouble(&mut self, role: Option<Role>, text: String, blame: Blame) {
        if self.trouble.is_some() || self.leaving {
            tracing::debug!("then: {text}");
            return;
        }
        match role {
            Some(Role::Device(i)) => self.channels[i].close(CloseReason::PeerDied),
            _ => self.channels.iter().for_each(|c| c.close(CloseReason::PeerDied)),
        }
        if let Some(control) = self.control.as_ref().filter(|_| !matches!(role, Some(Role::Device(_)))) {
            control.close(CloseReason::PeerDied);
        }
        self.trouble = Some(Trouble { role, text, blame });
    }

    /// Waits for anything to happen, until the deadline at most, and deals with it.
    fn step(&mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        let soonest =
            deadline.into_iter().chain(self.keeper.due).chain(self.next_successor()).chain(self.next_look()).min();
        let woken = self.wait(soonest).context("poll")?;
        if self.keeper.due.take_if(|due| *due <= Instant::now()).is_some() {
            self.replace_log()?;
        }
        self.start_successors()?;
        self.look_for_wedged();
        self.ends += self.signals.take();
        if woken.stdin && self.terminal.read_input().contains(&Request::Quit) {
            self.ends += 1;
        }
        if self.terminal.has_pending() || self.terminal.exhausted() || self.guest.repeats() {
            self.guest.write_input(self.terminal);
        }
        self.people.serve();
        self.tell_display();
        if let Some(operators) = &mut self.operators {
            while let Some(command) = operators.next() {
                self.asked.push_back(command);
            }
        }
        // Some pieces at once, but not so many that the children are not heard.
        (0..64).take_while(|_| self.guest.read_output()).for_each(drop);
        self.lines.iter_mut().for_each(Line::work);
        for i in woken.children {
            // What a child said before it died is there once it is known to be dead.
            let died = self.children[i].1.reap();
            // One that never stops talking must not keep the others from being heard.
            for _ in 0..if died { usize::MAX } else { 64 } {
                let Some(message) = self.children[i].1.receive() else { break };
                self.message(i, message);
            }
            if died {
                self.death(i);
            }
        }
        self.forget_retired();
        Ok(())
    }

    /// Returns who has something.
    fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut add = |fd: BorrowedFd<'_>, flags| {
            // SAFETY: the descriptors belong to `self`, which is borrowed for the whole call.
            fds.push(PollFd::new(unsafe { BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&fd)) }, flags));
        };
        let reads = self.terminal.wants_input(self.guest.input().is_some());
        if reads {
            add(stdin.as_fd(), PollFlags::POLLIN);
        }
        if let Some(fd) = self.guest.input().filter(|_| self.terminal.has_pending() || self.guest.repeats()) {
            add(fd, PollFlags::POLLOUT);
        }
        if let Some((fd, flags)) = self.guest.output() {
            // SAFETY: the descriptor is stdout or belongs to `self`, which is borrowed for the whole call.
            add(unsafe { BorrowedFd::borrow_raw(fd) }, flags);
        }
        for (fd, flags) in self.operators.iter().flat_map(Operators::descriptors) {
            add(fd, flags);
        }
        for (fd, flags) in self.lines.iter().flat_map(Line::descriptors) {
            // SAFETY: the descriptor belongs to `self`, which is borrowed for the whole call.
            add(unsafe { BorrowedFd::borrow_raw(fd) }, flags);
        }
        for (fd, flags) in self.people.descriptors() {
            add(fd, flags);
        }
        let mut owners = Vec::new();
        for (i, (_, child)) in self.children.iter().enumerate() {
            for fd in child.descriptors() {
                add(fd, PollFlags::POLLIN);
                owners.push(i);
            }
        }
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Woken::default()),
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let first = fds.len() - owners.len();
        let mut children: Vec<usize> =
            owners.iter().zip(&fds[first..]).filter(|(_, fd)| ready(fd)).map(|(&i, _)| i).collect();
        children.dedup();
        Ok(Woken { stdin: reads && ready(&fds[1]), children })
    }

    fn message(&mut self, i: usize, message: FromChild) {
        let role = self.children[i].0;
        match (role, message) {
            (_, FromChild::Ready(ready)) if self.ready[i].is_none() => {
                self.ready[i] = Some(ready);
                if role == Role::Log && self.keeper.running {
                    self.brief_log();
                }
                if !matches!(role, Role::Device(_)) || !self.running {
                    self.recovered(role);
                }
            }
            (Role::Log, FromChild::SwapNoted { channel, request }) => {
                self.keeper.swaps.retain(|s| (s.channel, s.request) != (channel, request));
                self.buried(channel.into());
            }
            (Role::Log, FromChild::Fatal { text, .. }) if self.keeper.running => {
                self.keeper.words = Some(printable(&text));
            }
            (Role::Cpu, FromChild::Finished(finished)) => drop(self.cpu_finished.get_or_insert(finished)),
            (Role::Cpu, FromChild::Paused { icount, vtime }) => self.questions.rests(icount, vtime),
            (Role::Net(_), FromChild::Forwarded) => self.questions.forwarded = true,
            (Role::Device(_), FromChild::Described(d)) => self.questions.description = Some(d),
            (Role::Device(_), FromChild::Counters { counters }) => self.questions.counters = Some(counters),
            (Role::Device(_), FromChild::State(state)) => self.states[i] = Some(state),
            (Role::Device(_), FromChild::Took) => self.recovered(role),
            (Role::Device(_) | Role::Net(_), FromChild::Fatal { text, .. }) if self.may_succeed(role) => {
                self.last_words(role, printable(&text));
            }
            (Role::Device(device), FromChild::Yielded { request }) if self.is_gone(device) => {
                self.bury(device, request)
            }
            (Role::Device(_), FromChild::Yielded { request }) => self.swap.yielded = Some(request),
            (Role::Standby(_), FromChild::Took) => self.swap.took = true,
            (Role::Standby(_), FromChild::Fatal { text, blame }) => self.standby_failed(printable(&text), blame),
            (Role::Retired, _) => {}
            (Role::Display, FromChild::Shown) => self.people.shown(),
            (Role::Display, FromChild::Shot { shot }) => self.people.shot(shot),
            (Role::Display, FromChild::Input { to, events }) => drop(self.people.act(to, &events)),
            // What goes wrong with a display costs the display alone.
            (Role::Display, FromChild::Fatal { text, .. }) => self.note(&text),
            (Role::Display, FromChild::Violation { syscall }) => {
                let syscall = syscall_name(syscall.into());
                self.note(&format!("display made a system call that its sandbox forbids: {syscall}"));
            }
            (Role::Log, FromChild::LogFinished(finished)) => self.log_finished = Some(finished),
            (Role::Cpu | Role::Log, FromChild::Diverged { text }) => drop(self.diverged.get_or_insert(text)),
            (Role::Log, FromChild::LogFailed { text }) => drop(self.log_failure.get_or_insert(text)),
            (_, FromChild::Note { text }) => self.note(&text),
            (_, FromChild::Violation { syscall }) => {
                let text = format!(
                    "{} made a system call that its sandbox forbids: {}",
                    self.children[i].1.name,
                    syscall_name(syscall.into())
                );
                if self.may_succeed(role) {
                    self.last_words(role, text);
                } else {
                    self.trouble(Some(role), text, Blame::Other);
                }
            }
            (_, FromChild::Fatal { text, blame }) => {
                let text = format!("{}: {}", self.children[i].1.name, printable(&text));
                self.trouble(Some(role), text, blame);
            }
            (_, other) => {
                let kind = format!("{other:?}").chars().take(40).collect::<String>();
                let text = format!("{} sent a message that is not its own to send: {kind}", self.children[i].1.name);
                self.trouble(Some(role), text, Blame::Other);
            }
        }
    }

    /// Shows a child's note, but no endless list of them.
    fn note(&mut self, text: &str) {
        self.notes += 1;
        match self.notes {
            ..MAX_NOTES => say(&printable(text)),
            MAX_NOTES => say("more notes are not shown"),
            _ => {}
        }
    }

    fn death(&mut self, i: usize) {
        let (role, child) = &self.children[i];
        let (role, Some(exit)) = (*role, child.exit()) else { return };
        // One that gives up while the machine starts has a reason that the user is to see.
        let starts = self.setup.mode == Mode::Record && !self.running && exit.killed();
        let replace =
            role == Role::Log && (self.keeper.running || starts) && !self.leaving && self.log_finished.is_none();
        if replace && self.trouble.is_none() && self.log_failure.is_none() {
            let words = self.keeper.words.take();
            tracing::debug!("log {exit}: {words:?}");
            self.missed(Role::Log);
            if self.keeper.died(exit.cpu_seconds) {
                return;
            }
            let why = words.map_or_else(String::new, |w| format!(": {w}"));
            let text = format!("the process of log {exit} again and again{why}");
            self.trouble(Some(Role::Log), text, Blame::Other);
            return;
        }
        // It may have said why already, which then stands.
        let text = format!("the process of {} {exit} unexpectedly", child.name);
        match role {
            _ if self.leaving && exit.success() => {}
            Role::Retired => {}
            Role::Display => self.display_died(i, &exit.to_string()),
            Role::Standby(_) => self.standby_failed(format!("its process {exit}"), Blame::Other),
            Role::Device(_) | Role::Net(_) if self.plan_successor(role) => {}
            Role::Device(device) if self.give_up(device, &text) => {}
            Role::Net(device) if self.may_succeed(role) => {
                let why = self.deaths.get_mut(&role).and_then(|d| d.words.take()).unwrap_or(text);
                let name = &self.setup.machine.devices[device].name;
                say(&format!("{why}, again and again: {name} is without a network from now on, the machine goes on"));
            }
            _ => {
                let text = self.deaths.get_mut(&role).and_then(|d| d.words.take()).unwrap_or(text);
                self.trouble(Some(role), text, Blame::Other);
            }
        }
    }
}

/// The sizes of a device's channel.
fn channel_config(id: u16, device: &Device, limits: &Limits, tap: bool) -> ChannelConfig {
    let host_side = device.disk.is_some() || !matches!(device.backend, Backend::None | Backend::Null | Backend::Rtc);
    let (slots, arena) = match (&device.dma, host_side) {
        (Dma::None, false) => (QUIET_SLOTS, limits.arena.min(QUIET_ARENA)),
        (Dma::None, true) => (u32::MAX, limits.arena),
        _ => (u32::MAX, limits.arena.max(DMA_ARENA)),
    };
    ChannelConfig {
        request_slots: limits.request_slots.min(slots),
        event_slots: limits.event_slots.min(slots),
        request_arena: arena,
        event_arena: arena,
        ..ChannelConfig::new(id, &device.name, tap)
    }
}

/// A child's words may come from a plugin: no control characters reach the terminal, and not too many.
fn printable(text: &str) -> String {
    text.chars().take(16 << 10).filter(|c| !c.is_control() || *c == '\n').collect()
}

fn seconds_since_1970() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32)
}

/// The replaying CPU must be the recorded one.
fn same_cpu(recorded: &[(String, u64)], now: &[(String, u64)]) -> Result<(), Failure> {
    for (name, value) in recorded {
        if let Some((_, other)) = now.iter().find(|(n, v)| n == name && v != value) {
            return Err(Failure::recording(format!(
                "the recording's CPU has {name} = {value:#x}, this engine's {other:#x}"
            )));
        }
    }
    Ok(())
}

/// The layout around this executable.
pub(crate) fn layout() -> Result<Layout, Failure> {
    let exe = std::env::current_exe().context("where is this program?")?;
    Ok(Layout::of(Path::new(&exe)))
}
