//! What an operator's program (`vmctl`) and the supervisor of a running machine say to each other.
//!
//! The supervisor listens on a `SOCK_SEQPACKET` Unix socket beside the machine's lock file, called `<machine uuid>.sock`, which only its user can open. Each packet is one JSON
//! value: a [`Command`] from the operator, an [`Answer`] to it. Commands are answered in order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Most bytes of a packet.
pub const MAX_PACKET: usize = 64 << 10;
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
    /// `plain`, `record`, `verify` or `absent`.
    pub mode: String,
    /// The engine.
    pub engine: String,
    /// Instructions retired, as of late; none if nobody notes that (mode `plain`).
    pub instructions: Option<u64>,
    /// Guest time in ns, likewise.
    pub guest_ns: Option<u64>,
    /// The recording, if there is one.
    pub recording: Option<String>,
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
    /// Its process; none in a replay without devices.
    pub pid: Option<i32>,
    /// Processes of it that died and had a successor.
    pub restarts: u64,
    /// Requests that the CPU has sent.
    pub sent: u64,
    /// Requests that the device has completed.
    pub completed: u64,
}
