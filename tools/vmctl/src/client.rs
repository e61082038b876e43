//! The machines' sockets.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{read, write};
use reprise_child::operator::{Answer, Command, MAX_ANSWER, MAX_PACKET, SUFFIX};

/// The machines' sockets, in the folders where lock files may lie.
pub(crate) fn sockets() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in reprise_child::runtime_folders() {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        all.extend(entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with(SUFFIX)));
    }
    all.sort();
    all
}

/// The socket of the machine that the user means.
///
/// # Errors
/// There is none, or there are several.
pub(crate) fn find(wanted: Option<&str>) -> Result<PathBuf> {
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

/// Asks a machine, and waits for its answer.
///
/// # Errors
/// The machine is gone.
pub(crate) fn ask(path: &Path, command: &Command) -> Result<Answer> {
    let at = || format!("{}", path.display());
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?).with_context(at)?;
    write(&fd, &serde_json::to_vec(command)?).with_context(at)?;
    let mut answer = Vec::new();
    let mut packet = vec![0; MAX_PACKET];
    // A packet that is full is followed by another.
    loop {
        let n = read(&fd, &mut packet).with_context(at)?;
        answer.extend_from_slice(&packet[..n]);
        if n < MAX_PACKET {
            break;
        }
        if answer.len() > MAX_ANSWER + MAX_PACKET {
            bail!("{}: the answer does not end", path.display());
        }
    }
    if answer.is_empty() {
        bail!("the machine has ended before it answered");
    }
    serde_json::from_slice(&answer).context("the machine's answer; is it of another version of Reprise?")
}
