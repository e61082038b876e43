//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use reprise_child::operator::Command;

/// Talks to a running machine.
#[derive(Parser)]
#[command(name = "vmctl", version, about)]
pub(crate) struct Cli {
    /// Which machine: the first characters of its uuid, or its name. Not needed if only one runs.
    #[arg(long, global = true)]
    pub(crate) machine: Option<String>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// The machines that run.
    List,
    /// How a machine and its devices are.
    Status,
    /// The same, live: instructions a second, requests and queues by device, the log's growth.
    Top(TopOptions),
    /// Stop the machine between two instructions: guest time stands still, and the guest does not notice.
    Pause,
    /// Let a paused machine go on.
    Resume,
    /// Reset the machine, as the board's reset does: it starts anew, its disks as the guest left them, and a recording goes on in a new one.
    Reset,
    /// Press the board's power key, which asks the guest; a board without one is switched off.
    Poweroff {
        /// Switch the machine off without asking the guest.
        #[arg(long)]
        force: bool,
    },
    /// Replace a device's plugin while the guest runs. If the new one fails to load, to restore the state or to answer, the old one stays.
    Swap {
        /// The device's name.
        device: String,
        /// The new plugin, a shared object.
        plugin: PathBuf,
        /// The device's configuration from then on, RON as in a machine file, such as '(fifo: 16)'. Without it the device keeps the one that it has.
        #[arg(long, value_name = "RON")]
        config: Option<String>,
    },
    /// The state of a device, as its plugin describes it. Nothing of the running machine changes.
    DeviceState {
        /// The device's name.
        device: String,
    },
    /// Networks: what goes over them, their cables and forwards.
    Net {
        #[command(subcommand)]
        what: Option<NetWhat>,
    },
    /// Disks: their images, and what is done with them.
    Disk,
    /// Write what a screen shows to a PNG file.
    Screendump {
        /// The file.
        file: PathBuf,
        /// The display's name [default: the first one].
        device: Option<String>,
    },
    /// Press keys and let them go: each argument a key or several that are held together, such as `a`, `f1`, `ctrl-alt-delete`, `power`.
    SendKey {
        /// The keys.
        #[arg(required_unless_present = "text")]
        keys: Vec<String>,
        /// Type this text, as on a US keyboard; after the keys, if there are any.
        #[arg(long, allow_hyphen_values = true)]
        text: Option<String>,
    },
    /// End the machine, as Ctrl-a x does; a recording is completed.
    Quit,
    /// Make manual pages or completions.
    #[command(hide = true)]
    Generate(reprise_manual::Generate),
}

#[derive(Subcommand)]
pub(crate) enum NetWhat {
    /// The networks, their cables, forwards and counters.
    List,
    /// Pull a cable: nothing comes in, what goes out is lost, and the guest's driver sees it.
    Down {
        /// The device's name.
        device: String,
    },
    /// Plug it in again.
    Up {
        /// The device's name.
        device: String,
    },
    /// Forward one more port of this host to the guest.
    Forward {
        /// The device's name.
        device: String,
        /// Such as tcp:127.0.0.1:2222-:22.
        forward: String,
    },
}

#[derive(Args)]
pub(crate) struct TopOptions {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Look twice, print once, and end. So it is too with --json.
    #[arg(long)]
    pub(crate) once: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| (0.05..=3600.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("`{text}` is no time from 0.05 to 3600 s"))
}

impl What {
    /// What the machine is asked for.
    ///
    /// # Errors
    /// A file that is not there.
    pub(crate) fn command(&self) -> Result<Command> {
        Ok(match self {
            Self::List | Self::Status | Self::Top(_) | Self::Generate(_) => Command::Status,
            Self::Pause => Command::Pause,
            Self::Resume => Command::Resume,
            Self::Reset => Command::Reset,
            Self::Poweroff { force } => Command::Poweroff { force: *force },
            Self::Swap { device, plugin, config } => {
                let plugin = std::fs::canonicalize(plugin).with_context(|| plugin.display().to_string())?;
                Command::Swap { device: device.clone(), plugin, config: config.clone() }
            }
            Self::DeviceState { device } => Command::DeviceState { device: device.clone() },
            Self::Net { what } => match what {
                None | Some(NetWhat::List) => Command::Net,
                Some(NetWhat::Down { device }) => Command::NetLink { device: device.clone(), up: false },
                Some(NetWhat::Up { device }) => Command::NetLink { device: device.clone(), up: true },
                Some(NetWhat::Forward { device, forward }) => {
                    Command::NetForward { device: device.clone(), forward: forward.clone() }
                }
            },
            Self::Disk => Command::Disk,
            Self::Screendump { file, device } => {
                Command::Screendump { file: std::path::absolute(file)?, device: device.clone() }
            }
            Self::SendKey { keys, text } => {
                Command::SendKey { keys: chords(keys, text.as_deref().unwrap_or_default())? }
            }
            Self::Quit => Command::Quit,
        })
    }
}

/// The codes of keys by their names, then of those that type a text.
fn chords(names: &[String], text: &str) -> Result<Vec<Vec<u16>>> {
    let named = names.iter().map(|keys| {
        reprise_display::keys::named(keys).map_err(|name| {
            anyhow::anyhow!(
                "`{name}` in `{keys}` is no key; keys are a to z, 0 to 9, f1 to f12, enter, ctrl, alt, shift, up, ..."
            )
        })
    });
    let mut all = named.collect::<Result<Vec<_>>>()?;
    let typed =
        reprise_display::keys::text(text).map_err(|c| anyhow::anyhow!("no key of a US keyboard makes `{c}`"))?;
    all.extend(typed);
    Ok(all)
}
