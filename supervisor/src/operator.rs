//! The socket at which operators' programs ask a running machine for things (see [`reprise_child::operator`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen, socket, sockopt,
};
use nix::unistd::{read, write};
use reprise_child::operator::{Answer, Command, MAX_PACKET};

/// Operators at once.
const MAX_CLIENTS: usize = 8;

/// The socket, and who is connected to it. Dropping it removes its name.
#[derive(Debug)]
pub(crate) struct Operators {
    listener: OwnedFd,
    path: PathBuf,
    clients: Vec<OwnedFd>,
}

impl Operators {
    /// Listens at this path, in a folder of the user's own.
    pub(crate) fn listen(path: &Path) -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).context("a socket")?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?).with_context(|| path.display().to_string())?;
        let it = Self { listener, path: path.to_owned(), clients: Vec::new() };
        listen(&it.listener, Backlog::new(MAX_CLIENTS as i32)?).context("listen")?;
        Ok(it)
    }

    /// What to poll for reading.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(AsFd::as_fd))
    }

    /// The next command that has come, and from whom.
    pub(crate) fn next(&mut self) -> Option<(usize, Result<Command, String>)> {
        self.accept();
        let mut packet = vec![0; MAX_PACKET];
        let mut i = 0;
        while i < self.clients.len() {
            match read(&self.clients[i], &mut packet) {
                Ok(n) if n > 0 => {
                    let command = serde_json::from_slice(&packet[..n]);
                    return Some((i, command.map_err(|e| format!("this is no command: {e}"))));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => i += 1,
                _ => drop(self.clients.remove(i)),
            }
        }
        None
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), flags) {
            // SAFETY: accept has just made it, and nobody else knows it.
            let client = unsafe { OwnedFd::from_raw_fd(fd) };
            let own = nix::unistd::getuid().as_raw();
            let peer = getsockopt(&client, sockopt::PeerCredentials).map(|c| c.uid());
            if peer == Ok(own) && self.clients.len() < MAX_CLIENTS {
                self.clients.push(client);
            }
        }
    }

    /// Answers. Who doesn't take the answer gets none.
    pub(crate) fn answer(&mut self, client: usize, answer: &Answer) {
        let Some(fd) = self.clients.get(client) else { return };
        match serde_json::to_vec(answer) {
            Ok(bytes) => match write(fd, &bytes) {
                Ok(_) => {}
                Err(e) => tracing::debug!("an operator does not take an answer: {e}"),
            },
            Err(e) => tracing::debug!("an answer: {e}"),
        }
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::debug!("{}: {e}", self.path.display());
            }
        }
    }
}
