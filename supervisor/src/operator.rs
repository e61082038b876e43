//! The socket at which operators' programs ask a running machine for things (see [`reprise_child::operator`]).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen, send, socket,
    sockopt,
};
use nix::unistd::read;
use reprise_child::operator::{Answer, Command, MAX_ANSWER, MAX_PACKET};

/// Operators at once.
const MAX_CLIENTS: usize = 8;

/// Who is connected.
#[derive(Debug)]
struct Client {
    /// Names it for good, as its place in the list does not.
    id: u64,
    fd: OwnedFd,
    /// Packets of answers that it has not taken yet.
    waiting: VecDeque<Vec<u8>>,
}

impl Client {
    /// Sends what it takes; false if it is gone.
    fn flush(&mut self) -> bool {
        while let Some(packet) = self.waiting.front() {
            match send(self.fd.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(e) => {
                    tracing::debug!("an operator does not take an answer: {e}");
                    return false;
                }
            }
        }
        true
    }
}

/// The socket, and who is connected to it. Dropping it removes its name.
#[derive(Debug)]
pub(crate) struct Operators {
    listener: OwnedFd,
    path: PathBuf,
    clients: Vec<Client>,
    next_id: u64,
}

impl Operators {
    /// Listens at this path, in a folder of the user's own.
    pub(crate) fn listen(path: &Path) -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).context("a socket")?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?).with_context(|| path.display().to_string())?;
        let it = Self { listener, path: path.to_owned(), clients: Vec::new(), next_id: 0 };
        listen(&it.listener, Backlog::new(MAX_CLIENTS as i32)?).context("listen")?;
        Ok(it)
    }

    /// What to poll for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let client = |c: &'_ Client| match c.waiting.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let clients = self.clients.iter().map(move |c| (c.fd.as_fd(), client(c)));
        std::iter::once((self.listener.as_fd(), PollFlags::POLLIN)).chain(clients)
    }

    /// The next command that has come, and from whom.
    pub(crate) fn next(&mut self) -> Option<(u64, Result<Command, String>)> {
        self.accept();
        self.clients.retain_mut(Client::flush);
        let mut packet = vec![0; MAX_PACKET];
        let mut i = 0;
        while i < self.clients.len() {
            match read(&self.clients[i].fd, &mut packet) {
                Ok(n) if n > 0 => {
                    let command = serde_json::from_slice(&packet[..n]);
                    return Some((self.clients[i].id, command.map_err(|e| format!("this is no command: {e}"))));
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
                self.next_id += 1;
                self.clients.push(Client { id: self.next_id, fd: client, waiting: VecDeque::new() });
            }
        }
    }

    /// Answers. Who is gone gets none.
    pub(crate) fn answer(&mut self, client: u64, answer: &Answer) {
        let Some(client) = self.clients.iter_mut().find(|c| c.id == client) else { return };
        let bytes = serde_json::to_vec(answer).map_err(|e| e.to_string()).and_then(|bytes| match bytes.len() {
            0..=MAX_ANSWER => Ok(bytes),
            n => Err(format!("the answer has {n} bytes")),
        });
        let mut bytes =
            bytes.unwrap_or_else(|error| serde_json::to_vec(&Answer::Failed { error }).expect("text is plain data"));
        // A packet that is full is followed by another.
        if bytes.len() % MAX_PACKET == 0 {
            bytes.push(b' ');
        }
        client.waiting.extend(bytes.chunks(MAX_PACKET).map(<[u8]>::to_vec));
        client.flush();
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        // The last answers are short, and who asked waits for them.
        self.clients.retain_mut(Client::flush);
        if let Err(e) = std::fs::remove_file(&self.path) {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::debug!("{}: {e}", self.path.display());
            }
        }
    }
}
