//! A network in user mode between a device's frames and sockets of the host.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv, send};
use reprise_child::control::{Fd, FromChild, NetProtocol, NetReach, NetStart, ToChild};
use reprise_child::sandbox::{self, Stage};
use reprise_child::{Child, Control, ControlError};
use reprise_net::{Config, Forward, MAX_FRAME, Network, Protocol, Reach, Ready, SocketId};

use crate::sockets::Sockets;

/// Data of the events that are no socket's of the network.
const CONTROL: u64 = u64::MAX;
const FRAMES: u64 = u64::MAX - 1;
/// The first forward's; the others follow.
const FORWARDS: u64 = 1 << 62;
/// Events that are taken at once.
const EVENTS: usize = 64;
/// Frames that are taken from the guest, and given to it, before anything else is looked at.
const TURN: usize = 64;

/// The device's end of the pair is not ours to count on: while a device-proc is replaced it is quiet, and that is all.
#[derive(Debug)]
struct Frames {
    fd: OwnedFd,
    /// There may be frames.
    read: bool,
    /// There may be room.
    write: bool,
}

struct Server<'a> {
    net: Network<Sockets<'a>>,
    frames: Frames,
    control: Control,
    began: Instant,
    buffer: Vec<u8>,
}

/// Runs the network until the supervisor ends it.
///
/// # Errors
/// The system refuses what the network needs at its start.
pub(crate) fn run(child: Child, start: &NetStart) -> anyhow::Result<()> {
    // SAFETY: the supervisor gave this process the descriptors for exactly this, and the start message is used once.
    let own = |fd: Fd| unsafe { OwnedFd::from_raw_fd(fd) };
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
    let frames = Frames { fd: own(start.frames), read: true, write: true };
    let forwards: Vec<OwnedFd> = start.forwards.iter().map(|f| own(f.socket)).collect();
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    watch(&epoll, child.control.as_fd(), EpollFlags::EPOLLIN, CONTROL)?;
    watch(&epoll, frames.fd.as_fd(), edges | EpollFlags::EPOLLOUT, FRAMES)?;
    for (n, forward) in forwards.iter().enumerate() {
        watch(&epoll, forward.as_fd(), edges, FORWARDS + n as u64)?;
    }
    let net = Network::new(config(start), Sockets::new(&epoll, forwards))?;
    sandbox::enter(Stage::Attached, &child.policy())?;
    sandbox::enter(Stage::Loaded, &child.policy())?;
    child.control.ready(Vec::new(), None)?;
    let buffer = vec![0; MAX_FRAME + 1];
    Server { net, frames, control: child.control, began: Instant::now(), buffer }.serve(&epoll)
}

fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, flags: EpollFlags, data: u64) -> anyhow::Result<()> {
    epoll.add(fd, EpollEvent::new(flags, data)).context("epoll")
}

fn of(protocol: NetProtocol) -> Protocol {
    match protocol {
        NetProtocol::Tcp => Protocol::Tcp,
        NetProtocol::Udp => Protocol::Udp,
    }
}

fn config(start: &NetStart) -> Config {
    let forward = |f: &reprise_child::control::NetForward| Forward { protocol: of(f.protocol), to: f.to };
    Config {
        reach: match start.reach {
            NetReach::Loopback => Reach::Loopback,
            NetReach::All => Reach::All,
        },
        resolver: start.resolver,
        forwards: start.forwards.iter().map(forward).collect(),
        seed: start.seed,
    }
}

impl Server<'_> {
    fn serve(mut self, epoll: &Epoll) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(e).context("epoll"),
            };
            for event in &events[..count] {
                if self.event(epoll, event.data(), event.events())? {
                    return Ok(());
                }
            }
            self.receive();
            let now = self.now();
            if self.net.deadline().is_some_and(|at| at <= now) {
                self.net.poll(now);
            }
            self.send();
        }
    }

    /// Microseconds since the start.
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// How long nothing has to be done unless something comes.
    fn timeout(&self) -> EpollTimeout {
        if self.frames.read || (self.frames.write && self.net.front().is_some()) {
            return EpollTimeout::ZERO;
        }
        match self.net.deadline() {
            None => EpollTimeout::NONE,
            // Rounded up, so that it is due then.
            Some(at) => {
                let left = at.saturating_sub(self.now()).div_ceil(1000);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        }
    }

    /// Deals with an event; true if this is the end.
    fn event(&mut self, epoll: &Epoll, data: u64, flags: EpollFlags) -> anyhow::Result<bool> {
        let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let read = broken || flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP);
        let write = broken || flags.contains(EpollFlags::EPOLLOUT);
        match data {
            CONTROL => return self.obey(epoll),
            FRAMES => {
                self.frames.read |= read;
                self.frames.write |= write;
            }
            FORWARDS.. => self.net.forward_ready(self.now(), (data - FORWARDS) as usize),
            id => self.net.ready(self.now(), SocketId(id), Ready { read, write }),
        }
        Ok(false)
    }

    /// Does what the supervisor says; true if that is to exit.
    fn obey(&mut self, epoll: &Epoll) -> anyhow::Result<bool> {
        match self.control.try_receive_with() {
            Ok(Some((ToChild::Exit, _))) => Ok(true),
            Ok(Some((ToChild::Go, _)) | None) => Ok(false),
            Ok(Some((ToChild::Forward { protocol, to }, Some(socket)))) => {
                self.net.add_forward(Forward { protocol: of(protocol), to })?;
                let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                watch(epoll, socket.as_fd(), edges, FORWARDS + self.net.host_mut().forwards() as u64)?;
                self.net.host_mut().add_forward(socket);
                self.control.send(&FromChild::Forwarded)?;
                Ok(false)
            }
            Ok(Some((other, _))) => anyhow::bail!("a backend-proc takes no {other:?}"),
            Err(ControlError::Closed) => Err(ControlError::Closed.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes frames of the guest.
    fn receive(&mut self) {
        for _ in 0..TURN {
            if !self.frames.read {
                return;
            }
            match recv(self.frames.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(n) if n > 0 => {
                    let now = self.now();
                    self.net.receive(now, &self.buffer[..n]);
                }
                Err(Errno::EINTR) => {}
                // Nothing now, or nobody has the other end any more: then the supervisor says soon what is to be.
                _ => self.frames.read = false,
            }
        }
    }

    /// Gives the guest frames.
    fn send(&mut self) {
        for _ in 0..TURN {
            if !self.frames.write {
                return;
            }
            let Some(frame) = self.net.front() else { return };
            match send(self.frames.fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.frames.write = false,
                // Nobody has the other end any more: the frame is lost, as on a wire that leads nowhere.
                _ => {
                    let now = self.now();
                    self.net.pop(now);
                }
            }
        }
    }
}
