//! The messages of the control socket.
//!
//! | when | supervisor -> child | child -> supervisor |
//! |---|---|---|
//! | after the spawn | [`ToChild::Start`] | |
//! | attached, sandboxed, plugin loaded | | [`FromChild::Ready`] |
//! | all children are ready | [`ToChild::Go`] | |
//! | the machine is to end | [`ToChild::Stop`] to cpu-proc | |
//! | the CPU has stopped, for whatever reason | | [`FromChild::Finished`] from cpu-proc |
//! | after that | [`ToChild::Save`] to each device-proc | [`FromChild::State`] |
//! | after that | [`ToChild::Finish`] to log-daemon, with the devices' hashes | [`FromChild::LogFinished`] |
//! | last | [`ToChild::Exit`] to all; they exit with 0 | |
//!
//! The order of the starts: the device-procs; cpu-proc once all of them are ready, as its start message carries the plugins' specs;
//! log-daemon once cpu-proc is ready, as the manifest holds what cpu-proc says of itself. Nobody makes a message on a channel before `Go`.
//! A child whose control socket closes ends itself at once: its supervisor is gone.
//!
//! File descriptors are inherited; a message names them by number ([`Fd`]).

use std::net::SocketAddrV4;

use reprise_machine::boot::InitialRegs;
use reprise_machine::{DiskFormat, Machine, Wire};
use serde::{Deserialize, Serialize};

/// An inherited file descriptor's number.
pub type Fd = i32;

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToChild {
    /// The first message: what the child is to be.
    Start(Box<Start>),
    /// Everyone is ready: run.
    Go,
    /// cpu-proc: end the run at the next position that suits, finish the journal, send [`FromChild::Finished`]. May come more than once.
    /// log-daemon and device-procs don't get it.
    Stop(StopReason),
    /// device-proc: the guest runs no more; work off what is in the request ring, then send [`FromChild::State`].
    Save,
    /// log-daemon: no more messages will come; write what is left and the final record, then send [`FromChild::LogFinished`].
    Finish(Totals),
    /// Exit with 0.
    Exit,
    /// device-proc: stop between two requests, leave everything in the estate, send [`FromChild::Yielded`], and wait for `Resume` or `Exit`.
    Yield,
    /// device-proc that has yielded, or cpu-proc that has paused: go on as if nothing had been.
    Resume,
    /// cpu-proc: stop between two instructions, send [`FromChild::Paused`], and wait for `Resume` or `Stop`.
    Pause,
    /// device-proc: send [`FromChild::Described`], with the state as it is between two requests.
    Describe,
    /// device-proc: send [`FromChild::Counters`].
    Count,
    /// backend-proc of a network: forward what comes in at the socket that comes with this message ([`crate::Peer::send_with`]) to the guest, then send
    /// [`FromChild::Forwarded`].
    Forward {
        /// The socket's protocol.
        protocol: NetProtocol,
        /// Where to: an address in the guest's network.
        to: SocketAddrV4,
    },
    /// device-proc with a network: plug or pull its cable.
    Link {
        /// Whether it is plugged in.
        up: bool,
    },
    /// cpu-proc: a device is about to be gone; its channel will say when.
    Doomed,
    /// log-daemon, mode `Record`: a device's plugin takes the place of another. To be said before the new one serves, and the guest goes on when
    /// [`FromChild::SwapNoted`] has come. To be said again to a daemon that takes the place of one that died before it answered.
    Swapped(SwapNote),
    /// backend-proc with a display: a screen is something else now. Comes only when the one before was answered with [`FromChild::Shown`].
    Screen {
        /// Its number in [`DisplayStart::screens`].
        screen: u16,
        /// As [`DisplayStart::screens`] has it.
        described: Vec<u8>,
    },
    /// backend-proc with a display: answer with what a screen shows, [`FromChild::Shot`].
    Shoot {
        /// Its number.
        screen: u16,
    },
}

/// Bytes of a device's estate: the memory in which its process leaves what a successor needs. Most of it is never touched.
pub const ESTATE_BYTES: u64 = 4096 + (192 << 20);

/// How a device's process begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// With a new device, at the machine's start.
    #[default]
    Fresh,
    /// With what a dead process has left, at once; when it serves it says [`FromChild::Took`].
    Successor,
    /// In the place of a device that can't come back: takes up what its processes have left, says [`FromChild::Yielded`] with the number of the first request that finds
    /// no device, and at `Go` says so to cpu-proc and answers for good.
    Gone {
        /// The plugin is loaded once more, and repeats what the last processes did since the last checkpoint; else nobody knows the end of the output.
        plugin: bool,
    },
    /// With what a process leaves that has yielded, when told to `Go`; then it says [`FromChild::Took`], and serves at the next `Go`.
    Standby,
}

/// A plugin that takes over in a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSwap {
    /// The number of the first request that it serves.
    pub request: u64,
    /// The plugin, as [`DeviceStart::plugin`]; none: from that request on the device is gone.
    pub plugin: Option<Fd>,
    /// The file that the bytes are from, for messages.
    pub plugin_file: String,
    /// The device's configuration from there on; none: it keeps the one that it has.
    pub config: Option<String>,
}

/// What only the supervisor knows at the end; for the recording's final record. In mode `Absent` all of it is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// BLAKE3 of the devices' saved states; zero if a device could not be asked.
    pub device_hash: [u8; 32],
    /// BLAKE3 of the console's output.
    pub console_hash: [u8; 32],
    /// Bytes of the console's output.
    pub console_bytes: u64,
}

/// A plugin that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapNote {
    /// The device's channel.
    pub channel: u16,
    /// Number of the first request that the new plugin serves.
    pub request: u64,
    /// BLAKE3 of the new library, which lies in the recording's `inputs/`. Zeros: there is none, the device is gone.
    pub hash: [u8; 32],
    /// What the file was called.
    pub name: String,
    /// The version that the plugin gives itself.
    pub version: String,
    /// The device's configuration from there on; none: it keeps the one that it has.
    pub config: Option<String>,
}

/// Why the supervisor ends a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The user asked for it: a signal, `Ctrl-a x`.
    User,
    /// Another child has died; its channel will not answer any more.
    ChildDied,
    /// The recording can't go on (a full disk), or the replay has diverged: the daemon said so.
    Log,
    /// An operator has reset the machine: it ends as at the guest's own reboot.
    Reset,
    /// An operator has switched the machine off: it ends as if the guest had done it.
    Poweroff,
}

/// What a child is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Start {
    /// cpu-proc.
    Cpu(CpuStart),
    /// device-proc.
    Device(DeviceStart),
    /// log-daemon.
    Log(LogStart),
    /// backend-proc.
    BackendProc(BackendProcStart),
}

impl Start {
    /// What every start message has.
    pub fn common(&self) -> &Common {
        match self {
            Self::Cpu(s) => &s.common,
            Self::Device(s) => &s.common,
            Self::Log(s) => &s.common,
            Self::BackendProc(s) => &s.common,
        }
    }
}

/// What every start message has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// The process's name in messages: `cpu`, `log`, or the device's name.
    pub name: String,
    /// The filter for `tracing`, as `RUST_LOG` has it.
    pub log_filter: String,
    /// Tests: random delays in the process, from this seed (the supervisor gives every process one of its own).
    pub jitter: Option<u64>,
    /// What the machine is run for.
    pub mode: Mode,
}

/// What a machine is run for; see "Modes" in the design page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// No log at all; there is no log-daemon.
    Plain,
    /// Tapped and written.
    Record,
    /// Replay, devices alongside and compared.
    Verify,
    /// Replay, log-daemon in the devices' place; there are no device-procs.
    Absent,
}

impl Mode {
    /// Does a log-daemon take part?
    pub fn has_log(self) -> bool {
        self != Self::Plain
    }

    /// Do device-procs take part?
    pub fn has_devices(self) -> bool {
        self != Self::Absent
    }

    /// Does the log decide what happens?
    pub fn is_replay(self) -> bool {
        matches!(self, Self::Verify | Self::Absent)
    }
}

/// Which CPU engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// The micro-op interpreter.
    #[default]
    Interp,
    /// Two engines, compared after every few instructions.
    Lockstep,
    /// The compiler to host code; x86-64 hosts only.
    Jit,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interp => f.write_str("interp"),
            Self::Lockstep => f.write_str("lockstep"),
            Self::Jit => f.write_str("jit"),
        }
    }
}

/// The start of cpu-proc.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuStart {
    /// What every process gets.
    pub common: Common,
    /// The machine. `devices[n]` is channel n; RAM's base and size, GIC, timer, bus ranges, clock and limits (anchor interval, reply
    /// timeout) stand here.
    pub machine: Machine,
    /// Which engine.
    pub engine: Engine,
    /// The compiling engine is to write a map of its code for `perf`.
    pub perf_map: bool,
    /// Guest RAM: a memfd of `machine.memory.size` bytes, all zero, sealed against changes of its size.
    pub ram: Fd,
    /// What lies in RAM at the start.
    pub boot: BootMemory,
    /// Initial registers of core 0; all others are zero.
    pub regs: InitialRegs,
    /// Those of the other cores.
    pub secondary: InitialRegs,
    /// The segment with the status page, journal and script ring; of these only the status page is used in mode `Plain`.
    pub control_segment: Option<String>,
    /// The channels, one for each device, in the order of `machine.devices`.
    pub channels: Vec<CpuChannel>,
    /// Where the devices' output pins lead.
    pub wires: Vec<Wire>,
    /// Stop before the first instruction that would make more than this many retired ones; none = run on.
    pub stop_at: Option<u64>,
}

/// A channel as cpu-proc needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuChannel {
    /// The device's name.
    pub name: String,
    /// The channel's segment.
    pub segment: String,
    /// The plugin's spec (`PluginSpec::to_bytes`): register policies, pins, shadows.
    pub spec: Vec<u8>,
    /// The device's host side may offer input on its own, so the event ring wants polling. Always false in a replay.
    pub host_input: bool,
}

/// The contents of RAM at the start. All other RAM is zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMemory {
    /// A sealed memfd with the bytes.
    pub fd: Fd,
    /// What goes where.
    pub loads: Vec<BootLoad>,
}

/// One piece of [`BootMemory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootLoad {
    /// Guest physical address, inside RAM.
    pub at: u64,
    /// Where the bytes begin in the memfd.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// The start of a device-proc.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStart {
    /// What every process gets. `common.name` is the device's name.
    pub common: Common,
    /// The number of its channel: the device's index in the machine.
    pub channel: u16,
    /// The channel's segment.
    pub segment: String,
    /// The plugin: a sealed memfd with the library's bytes, to be loaded as `/proc/self/fd/N`.
    pub plugin: Fd,
    /// The file that the bytes are from, for messages.
    pub plugin_file: String,
    /// The kind that the plugin must say it is: the plugin's name in the machine file.
    pub kind: String,
    /// Size of the device's register range: the plugin's window must not be larger.
    pub window: u64,
    /// The device's configuration, RON text.
    pub config: String,
    /// Its host side: what its port 0 is joined to.
    pub backend: BackendStart,
    /// What further ports are joined to; none in a replay, where the log has their input.
    pub ends: Vec<PortEnd>,
    /// The disk that lies in it.
    pub disk: Option<DiskStart>,
    /// A sealed memfd of [`ESTATE_BYTES`] bytes, all zero at the machine's start; none: a killed process has no successor.
    pub estate: Option<Fd>,
    /// How it begins.
    pub way: Way,
    /// In a replay: the plugins that were swapped in, in order.
    pub swaps: Vec<PluginSwap>,
}

/// The host side of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendStart {
    /// None.
    None,
    /// Output is thrown away.
    Null,
    /// The console.
    Console {
        /// Bytes from the user; none in a replay, where the log has them.
        input: Option<Fd>,
        /// Bytes to the user. A closed or full one never stops the device for good.
        output: Fd,
    },
    /// Packets, such as Ethernet frames.
    Packets {
        /// Where each read and each write is one; none in a replay, where the log has them, and if there is no network.
        fd: Option<Fd>,
    },
    /// Host input once, at `Go`: the date.
    Rtc {
        /// Seconds since 1970, 32 bits; none in a replay, where the log has it.
        date: Option<u32>,
    },
    /// Host input whenever the device asks: random bytes.
    Random {
        /// False in a replay, where the log has them.
        offers: bool,
    },
}

/// The host's end of a port besides port 0, which takes and gives bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortEnd {
    /// The port's name in the plugin's spec.
    pub port: String,
    /// Bytes from outside, in packets that say where they stand, as those of [`BackendStart::Console`].
    pub input: Fd,
    /// Bytes to the outside, likewise.
    pub output: Fd,
}

/// A device's disk: descriptors of files that the supervisor has opened, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStart {
    /// What messages call the disk: the device's name.
    pub name: String,
    /// The image, then the files that it is based on, each based on the next. All but the first are open for reading only.
    pub images: Vec<DiskImage>,
    /// What may be done with it.
    pub mode: DiskMode,
    /// Mode `Snapshot`: a memfd as long as the disk, rounded up to 4 KiB; all zero at the machine's start.
    pub overlay: Option<Fd>,
    /// For what was written since the last checkpoint. None: writes go to their place at once, and a killed process can't be restarted.
    pub journal: Option<DiskJournal>,
}

/// A disk's journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskJournal {
    /// A memfd as long as `reprise_storage::journal_size` says, sealed against changes of its size; all zero at the machine's start. It outlives the
    /// process.
    pub fd: Fd,
    /// How many blocks of 4 KiB it holds.
    pub slots: u32,
}

impl DiskStart {
    /// All descriptors; true: it is written to.
    pub fn files(&self) -> Vec<(Fd, bool)> {
        let image = |(i, image): (usize, &DiskImage)| (image.fd, i == 0 && self.mode == DiskMode::Writable);
        let images = self.images.iter().enumerate().map(image);
        // The journal is mapped.
        images.chain(self.overlay.map(|fd| (fd, true))).collect()
    }
}

/// One file of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// The open file.
    pub fd: Fd,
    /// What messages call it.
    pub name: String,
    /// Its format.
    pub format: DiskFormat,
}

/// What may be done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskMode {
    /// Writes go to the image.
    Writable,
    /// No writes.
    ReadOnly,
    /// Writes go to memory; the image stays as it is.
    Snapshot,
}

/// The start of a backend-proc: what a device's host side does that a device-proc may not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendProcStart {
    /// What every process gets. `common.name` is the device's name with what this process is for it, such as `eth0 net`.
    pub common: Common,
    /// What it is to be.
    pub role: BackendRole,
}

/// What a backend-proc is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendRole {
    /// A network in user mode.
    Net(NetStart),
    /// The machine's screens.
    Display(DisplayStart),
}

/// The start of the process that shows the machine's screens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayStart {
    /// Where viewers connect, a listening socket that never blocks; none = it only takes pictures.
    pub listener: Option<Fd>,
    /// The screens as their devices have described them (`reprise_device::screen`). Viewers see the first one that shows something.
    pub screens: Vec<Vec<u8>>,
    /// Guest memory: a descriptor that can only be read.
    pub ram: Fd,
    /// Its first address.
    pub ram_base: u64,
    /// Its size in bytes.
    pub ram_size: u64,
    /// What viewers' users do is passed on; not so in a replay.
    pub input: bool,
    /// What viewers show as the title.
    pub title: String,
}

/// Which of a machine's devices takes what people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InputTarget {
    /// The keyboards.
    Keyboard,
    /// The mice.
    Mouse,
    /// The power key.
    PowerKey,
}

/// The start of a network in user mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStart {
    /// One end of a `SOCK_SEQPACKET` pair, one Ethernet frame a message. The other end is the device's.
    pub frames: Fd,
    /// What the guest reaches.
    pub reach: NetReach,
    /// Who answers the guest's DNS queries.
    pub resolver: Option<SocketAddrV4>,
    /// The forwards.
    pub forwards: Vec<NetForward>,
    /// From this come TCP's first sequence numbers.
    pub seed: u64,
}

/// Which destinations a guest reaches, besides this host's loopback by the gateway's address, and the name server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetReach {
    /// None.
    #[default]
    Loopback,
    /// All that the host reaches.
    All,
}

/// What comes in at a port of the host goes on to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetForward {
    /// TCP or UDP.
    pub protocol: NetProtocol,
    /// A socket of that protocol, bound, and listening if it is TCP; never blocking.
    pub socket: Fd,
    /// Where to: an address in the guest's network.
    pub to: SocketAddrV4,
}

/// A protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The start of log-daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogStart {
    /// What every process gets; the mode is never `Plain`.
    pub common: Common,
    /// The recording's directory, absolute. In mode `Record` it holds manifest, inputs and an empty folder of segments.
    pub dir_path: String,
    /// The segment with journal and script ring.
    pub control_segment: String,
    /// The channels, in the order of the machine's devices.
    pub channels: Vec<LogChannel>,
    /// Mode `Absent`: where the console's output goes.
    pub console: Option<LogConsole>,
    /// Mode `Absent`: where the output of displays goes, which describes their screens.
    pub screens: Vec<LogConsole>,
    /// Images of the devices' disks, for reading: as they were at the machine's start in mode `Absent`, as they are in mode `Record`. One
    /// that is missing there makes the recording larger.
    pub disks: Vec<LogDisk>,
    /// Mode `Record`: a memfd of [`STAGING_BYTES`], sealed against changes of its size and all zero at the machine's start, that outlives the process:
    /// one that is killed and started again goes on from it. None: a killed daemon can't be replaced.
    pub staging: Option<Fd>,
    /// Mode `Record`: what devices read from guest memory is recorded with its bytes, not as a hash.
    pub log_dma_reads: bool,
}

/// Size of [`LogStart::staging`]. Pages that were never used take no memory.
pub const STAGING_BYTES: u64 = 96 << 20;
/// Where in it a number stands (u64, little-endian) that grows with everything that a daemon takes.
pub const STAGING_PROGRESS: u64 = 16;

/// A disk as log-daemon needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDisk {
    /// The device's channel.
    pub channel: u16,
    /// Which disk of it.
    pub disk: u32,
    /// Its files, mode `ReadOnly`.
    pub start: DiskStart,
}

/// A channel as log-daemon needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChannel {
    /// The device's name.
    pub name: String,
    /// The channel's segment.
    pub segment: String,
    /// The plugin's spec (`PluginSpec::to_bytes`).
    pub spec: Vec<u8>,
}

/// Where log-daemon writes a device's replayed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConsole {
    /// The device's channel.
    pub channel: u16,
    /// Where it goes.
    pub output: Fd,
}

/// What a child says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromChild {
    /// A sandboxed child made a system call that it may not make; it dies of it. Sent from the signal handler, so it stands first and holds
    /// nothing but numbers.
    Violation {
        /// The system call's number.
        syscall: u32,
    },
    /// Attached, sandboxed, loaded.
    Ready(Ready),
    /// cpu-proc: the CPU has stopped and the journal is complete.
    Finished(CpuFinished),
    /// device-proc: the answer to `Save`.
    State(DeviceState),
    /// log-daemon: the answer to `Finish`.
    LogFinished(LogFinished),
    /// cpu-proc or log-daemon, in a replay: it does not go as the log says. cpu-proc sends `Finished` all the same; the first one counts.
    Diverged {
        /// Expected, actual, position, the last events: what the user is to see.
        text: String,
    },
    /// log-daemon, mode `Record`: the recording can't go on (a full disk). The supervisor stops the machine and then says `Finish`, as always.
    LogFailed {
        /// Why, and what to do.
        text: String,
    },
    /// Something that the user should see once, such as an instruction that is not implemented.
    Note {
        /// One line.
        text: String,
    },
    /// The child can't go on and exits. The machine ends.
    Fatal {
        /// Why, and what to do.
        text: String,
        /// Whose fault it is.
        blame: Blame,
    },
    /// device-proc: the answer to `Yield`: it is at rest, and this is the number of the next request.
    Yielded {
        /// The next request.
        request: u64,
    },
    /// cpu-proc: the answer to `Pause`: it is at rest here, between two instructions.
    Paused {
        /// Instructions retired.
        icount: u64,
        /// Guest time, ns.
        vtime: u64,
    },
    /// device-proc: the answer to `Describe`.
    Described(Description),
    /// backend-proc: the answer to `Forward`.
    Forwarded,
    /// device-proc: the answer to `Count`.
    Counters {
        /// What its backend and its disks have done since the process began, by name.
        counters: Vec<(String, u64)>,
    },
    /// device-proc started as [`Way::Standby`]: it has the state, and can serve. Started as [`Way::Successor`]: it serves.
    Took,
    /// backend-proc with a display: the answer to `Screen`.
    Shown,
    /// backend-proc with a display: the answer to `Shoot`.
    Shot {
        /// A PNG file, or why there is none.
        shot: Result<Vec<u8>, String>,
    },
    /// backend-proc with a display: somebody has done something.
    Input {
        /// For whom.
        to: InputTarget,
        /// Events of 8 bytes as the devices' ports take them (`docs/devices.md`, "Input of people").
        events: Vec<u8>,
    },
    /// log-daemon: the answer to `Swapped`.
    SwapNoted {
        /// The device's channel.
        channel: u16,
        /// Number of the first request that the new plugin serves.
        request: u64,
    },
}

/// Whose fault it is that a child can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blame {
    /// Nobody's that the machine file names.
    Other,
    /// The device's plugin: it doesn't load, or is of another ABI version.
    Plugin,
    /// The device's configuration, at this (line, column) of its own text, from 1; (0, 0) for all of it.
    Config(u32, u32),
    /// That of whoever wants a port to lead out: the device has none of that name.
    Port,
}

/// What a child says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// device-proc: the plugin's spec (`PluginSpec::to_bytes`); else empty.
    pub spec: Vec<u8>,
    /// device-proc: what the plugin says of itself.
    pub plugin: Option<PluginInfo>,
    /// cpu-proc: the ID registers that the guest sees, by their architectural names.
    pub id_registers: Vec<(String, u64)>,
}

/// What a plugin says of itself besides its spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// ABI version.
    pub abi: u32,
    /// Kind, such as `pl011`.
    pub kind: String,
    /// The plugin's own version.
    pub version: String,
}

/// Why the CPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// A power-off line rose.
    Poweroff,
    /// A reset line rose.
    Reset,
    /// The supervisor said `Stop`.
    Stopped,
    /// `stop_at` was reached.
    StopAt,
    /// Replay: the log ends here.
    LogEnd,
    /// Replay: it diverged.
    Diverged,
    /// A channel broke: a device died, answered nonsense or not at all.
    Channel,
    /// The core can never go on, such as one whose exception vectors fault themselves; the text says why.
    Dead,
}

/// How the CPU ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFinished {
    /// Why.
    pub reason: EndReason,
    /// More about it, for the user; empty if there is no more to say.
    pub text: String,
    /// (epoch, count, idle).
    pub position: (u64, u64, u32),
    /// Instructions retired.
    pub icount: u64,
    /// Guest time, ns.
    pub vtime: u64,
    /// BLAKE3 over RAM and the architectural CPU state.
    pub state_hash: [u8; 32],
    /// What the recording says of this same end, if this is a replay that reached it.
    pub expected_hash: Option<[u8; 32]>,
    /// What the engine says of its work, by name.
    pub figures: Vec<(String, u64)>,
}

/// A device at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// The plugin's state.
    pub state: Vec<u8>,
    /// Bytes that the device gave to its host side.
    pub output_bytes: u64,
    /// BLAKE3 of them.
    pub output_hash: [u8; 32],
}

/// A device's state, readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The number of the next request.
    pub request: u64,
    /// Bytes of the saved state.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub hash: [u8; 32],
    /// JSON text; none if the plugin does not describe its state.
    pub text: Option<String>,
}

/// The end that a recording holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEnd {
    /// Instructions retired.
    pub icount: u64,
    /// BLAKE3 over RAM and the architectural CPU state.
    pub state_hash: [u8; 32],
    /// See [`Totals`].
    pub device_hash: [u8; 32],
    /// See [`Totals`].
    pub console_hash: [u8; 32],
    /// See [`Totals`].
    pub console_bytes: u64,
}

/// How the log ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFinished {
    /// Chunks written or read.
    pub chunks: u64,
    /// Bytes of segments and index.
    pub bytes: u64,
    /// Messages and journal entries written or compared.
    pub events: u64,
    /// Replay: what did not match, for the user; none = all of it matched.
    pub divergence: Option<String>,
    /// Record: why the recording could not be written to its end (a full disk); what was written stays good.
    pub failure: Option<String>,
    /// Replay: the recording was cut off (killed), and this replays up to its last whole chunk.
    pub cut: bool,
    /// Replay: what the recording's final record says, if it has one.
    pub recorded: Option<RecordedEnd>,
    /// Mode `Absent`: bytes of the console's output.
    pub console_bytes: u64,
    /// Mode `Absent`: BLAKE3 of them.
    pub console_hash: [u8; 32],
}
