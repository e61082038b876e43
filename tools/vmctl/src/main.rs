//! `vmctl`: talks to running machines.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{read, write};
use reprise_child::operator::{Answer, Command, MAX_PACKET, SUFFIX, Status};

/// Talks to a running machine.
#[derive(Parser)]
#[command(name = "vmctl", version, about)]
struct Cli {
    /// Which machine: the first characters of its uuid, or its name. Not needed if only one runs.
    #[arg(long, global = true)]
    machine: Option<String>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The machines that run.
    List,
    /// How a machine and its devices are.
    Status,
    /// Replace a device's plugin while the guest runs. If the new one fails to load, to restore the state or to answer, the old one stays.
    Swap {
        /// The device's name.
        device: String,
        /// The new plugin, a shared object.
        plugin: PathBuf,
    },
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
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vmctl: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if matches!(cli.what, What::List) {
        for socket in sockets() {
            match ask(&socket, &Command::Status) {
                Ok(answer) if cli.json => println!("{}", serde_json::to_string(&answer)?),
                Ok(Answer::Status(s)) => println!("{}  {}  {}", s.uuid, s.machine, s.mode),
                // It has just ended.
                _ => {}
            }
        }
        return Ok(());
    }
    let command = match &cli.what {
        What::List | What::Status => Command::Status,
        What::Swap { device, plugin } => {
            let plugin = std::fs::canonicalize(plugin).with_context(|| plugin.display().to_string())?;
            Command::Swap { device: device.clone(), plugin }
        }
        What::Screendump { file, device } => {
            Command::Screendump { file: std::path::absolute(file)?, device: device.clone() }
        }
        What::SendKey { keys, text } => Command::SendKey { keys: chords(keys, text.as_deref().unwrap_or_default())? },
        What::Quit => Command::Quit,
    };
    let answer = ask(&find(cli.machine.as_deref())?, &command)?;
    if cli.json {
        println!("{}", serde_json::to_string(&answer)?);
    }
    match answer {
        Answer::Failed { error } => bail!("{error}"),
        _ if cli.json => {}
        Answer::Status(status) => show(&status),
        Answer::Swapped { request, pause_us, version } => {
            println!("version {version} serves from request {request} on; the device rested for {pause_us} us");
        }
        Answer::Done => {}
    }
    Ok(())
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

fn show(s: &Status) {
    println!("{} ({}), mode {}, engine {}", s.machine, s.uuid, s.mode, s.engine);
    if let (Some(n), Some(ns)) = (s.instructions, s.guest_ns) {
        println!("{n} instructions, {}.{:03} s of guest time", ns / 1_000_000_000, ns / 1_000_000 % 1000);
    }
    if let Some(recording) = &s.recording {
        println!("recording: {recording}");
    }
    println!(
        "{:<16} {:<16} {:<10} {:>8} {:>9} {:>10} {:>7}",
        "device", "plugin", "version", "pid", "restarts", "requests", "waiting"
    );
    for d in &s.devices {
        let pid = d.pid.map_or_else(|| "-".into(), |p| p.to_string());
        let waiting = d.sent.saturating_sub(d.completed);
        println!(
            "{:<16} {:<16} {:<10} {:>8} {:>9} {:>10} {:>7}",
            d.name, d.plugin, d.version, pid, d.restarts, d.completed, waiting
        );
    }
}

/// The machines' sockets, in the folders where lock files may lie.
fn sockets() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in reprise_child::runtime_folders() {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        all.extend(entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with(SUFFIX)));
    }
    all.sort();
    all
}

fn find(wanted: Option<&str>) -> Result<PathBuf> {
    let mut fitting = Vec::new();
    for socket in sockets() {
        let uuid = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fits = match wanted {
            None => ask(&socket, &Command::Status).is_ok(),
            Some(w) if uuid.starts_with(w) => true,
            Some(w) => matches!(ask(&socket, &Command::Status), Ok(Answer::Status(s)) if s.machine == w),
        };
        if fits {
            fitting.push(socket);
        }
    }
    match fitting.len() {
        0 => bail!("no such machine runs; `vmctl list` shows those of this user"),
        1 => Ok(fitting.remove(0)),
        n => bail!("{n} machines run; say which with --machine, `vmctl list` shows them"),
    }
}

fn ask(path: &Path, command: &Command) -> Result<Answer> {
    let at = || format!("{}", path.display());
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?).with_context(at)?;
    write(&fd, &serde_json::to_vec(command)?).with_context(at)?;
    let mut packet = vec![0; MAX_PACKET];
    let n = read(&fd, &mut packet).with_context(at)?;
    serde_json::from_slice(&packet[..n]).context("the machine's answer; it may have ended")
}
