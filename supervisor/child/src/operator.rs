//! What an operator's program (`vmctl`) and the supervisor of a running machine say to each other.
//!
//! The supervisor listens on a `SOCK_SEQPACKET` Unix socket beside the machine's lock file, called `<machine uuid>.sock`, which only its user can open. A [`Command`] is one
//! packet, a JSON value. An [`Answer`] is a JSON value too; one that is longer than a packet comes in several, of which all but the last have [`MAX_PACKET`] bytes.
//! Commands are answered in order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Most bytes of a packet.
pub const MAX_PACKET: usize = 32 << 10;
/// Most bytes of an answer.
pub const MAX_ANSWER: usize = 16 << 20;
/// What a machine's socket is called behind its uuid.
pub const SUFFIX: &str = ".sock";

/// What is asked of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// How is it?
    Status,
    /// Replace a device's plugin while the guest runs.
    Swap {
        /// The device's name.
        device: String,
        /// The new plugin, an absolute path.
        plugin: PathBuf,
        /// The device's new configuration, RON text as in a machine file; none: it keeps the one that it has.
        #[serde(default)]
        config: Option<String>,
    },
    /// Write what a screen shows to a file.
    Screendump {
        /// The file, an absolute path; it becomes a PNG.
        file: PathBuf,
        /// The display's name; none = the first one.
        device: Option<String>,
    },
    /// Press keys, one chord after the other, and let them go.
    SendKey {
        /// The codes of each chord's keys (`linux/input-event-codes.h`), in the order in which they are pressed.
        keys: Vec<Vec<u16>>,
    },
    /// Stop between two instructions, until [`Command::Resume`]: guest time stands still.
    Pause,
    /// Go on after [`Command::Pause`].
    Resume,
    /// Reset the machine, as the board's reset does: it starts anew, its disks as the guest left them. A recording ends here, as at the guest's own reboot, and the new start is another one.
    Reset,
    /// Press the power key, which asks the guest; without one, or with `force`, end the machine as if the guest had switched it off.
    Poweroff {
        /// Don't ask the guest.
        #[serde(default)]
        force: bool,
    },
    /// What a device's state is.
    DeviceState {
        /// The device's name.
        device: String,
    },
    /// The networks.
    Net,
    /// Plug or pull a network's cable.
    NetLink {
        /// The device's name.
        device: String,
        /// Whether it is plugged in.
        up: bool,
    },
    /// Forward one more port of this host to the guest, as `hostfwd=` of `--net` says it.
    NetForward {
        /// The device's name.
        device: String,
        /// Such as `tcp:127.0.0.1:2222-:22`.
        forward: String,
    },
    /// The disks.
    Disk,
    /// End it, as `Ctrl-a x` does.
    Quit,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Command::Status`].
    Status(Status),
    /// To [`Command::Swap`].
    Swapped {
        /// The first request that the new plugin serves.
        request: u64,
        /// How long the device answered nothing, in microseconds.
        pause_us: u64,
        /// The new plugin's version.
        version: String,
    },
    /// To [`Command::Pause`]: where it stands.
    Paused {
        /// Instructions retired.
        instructions: u64,
        /// Guest time in ns.
        guest_ns: u64,
    },
    /// To [`Command::Poweroff`]: the guest was asked; what it does is its own affair.
    Asked {
        /// By what.
        by: String,
    },
    /// To [`Command::DeviceState`].
    DeviceState(DeviceStateTree),
    /// To [`Command::Net`].
    Net {
        /// The devices that have a network, or could have one.
        networks: Vec<NetStatus>,
    },
    /// To [`Command::Disk`].
    Disk {
        /// The devices that have a disk.
        disks: Vec<DiskStatus>,
    },
    /// It is done, or will be.
    Done,
    /// It can't be done; nothing has changed.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name in the machine file.
    pub machine: String,
    /// Its uuid.
    pub uuid: String,
    /// The supervisor's process.
    pub pid: u32,
    /// `plain`, `record`, `verify` or `absent`.
    pub mode: String,
    /// The engine.
    pub engine: String,
    /// `running`, `pausing`, `paused` or `ending`.
    pub state: String,
    /// The cores' model, such as `cortex-a15`.
    pub cpu: String,
    /// How many cores.
    pub cores: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// `warp` or `realtime`.
    pub clock: String,
    /// Wall time since it began to run, in ms.
    pub wall_ms: u64,
    /// Instructions retired, as of late (some 400 000 instructions ago).
    pub instructions: Option<u64>,
    /// Guest time in ns, likewise.
    pub guest_ns: Option<u64>,
    /// The process of the CPU.
    pub cpu_pid: Option<i32>,
    /// The log's process.
    pub log_pid: Option<i32>,
    /// Successors that the log's process had.
    pub log_restarts: u64,
    /// The recording, if there is one.
    pub recording: Option<String>,
    /// Bytes of its segments so far.
    pub log_bytes: Option<u64>,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its plugin's kind.
    pub plugin: String,
    /// Its plugin's version.
    pub version: String,
    /// First address of its registers.
    pub at: u64,
    /// Size of their range.
    pub size: u64,
    /// Its host side.
    pub backend: String,
    /// The names of further ports that lead outside.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Its process; none in a replay without devices.
    pub pid: Option<i32>,
    /// Processes of it that died and had a successor.
    pub restarts: u64,
    /// It could not come back: the guest finds nothing in its place.
    #[serde(default)]
    pub gone: bool,
    /// Requests that the CPU has sent.
    pub sent: u64,
    /// Requests that the device has completed.
    pub completed: u64,
}

/// A device's state, as its plugin describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStateTree {
    /// The device.
    pub device: String,
    /// Its plugin's kind.
    pub plugin: String,
    /// Its plugin's version.
    pub version: String,
    /// The number of the next request that it will serve.
    pub request: u64,
    /// Bytes of the saved state.
    pub bytes: u64,
    /// BLAKE3 of the saved state, in hexadecimal digits.
    pub hash: String,
    /// The fields by name; none if the plugin does not describe its state.
    pub state: Option<serde_json::Value>,
}

/// How a network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStatus {
    /// The device.
    pub device: String,
    /// `user`, `tap` or `none`.
    pub kind: String,
    /// The cable is plugged in.
    pub up: bool,
    /// Ports of this host that lead to the guest.
    pub forwards: Vec<String>,
    /// What went over it since the device's process began.
    pub counters: Vec<(String, u64)>,
}

/// How a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The device.
    pub device: String,
    /// The image, then what it is based on.
    pub files: Vec<String>,
    /// `raw` or `qcow2`.
    pub format: String,
    /// `writable`, `snapshot` or `read-only`.
    pub mode: String,
    /// Bytes that the guest sees.
    pub size: u64,
    /// Bytes of the host's disk that the files take.
    pub allocated: u64,
    /// What was done with it since the device's process began.
    pub counters: Vec<(String, u64)>,
}
