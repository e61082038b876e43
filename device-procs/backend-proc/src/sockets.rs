//! The host's sockets, as the network wants them: never blocking, watched by edges.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn, accept4, connect, getpeername,
    getsockopt, recv, recvfrom, send, sendto, setsockopt, shutdown, socket, sockopt,
};
use reprise_net::{Host, SocketId};

/// The sockets of one network.
#[derive(Debug)]
pub(crate) struct Sockets<'a> {
    epoll: &'a Epoll,
    open: BTreeMap<SocketId, OwnedFd>,
    /// Those that listen, or receive from anyone.
    forwards: Vec<OwnedFd>,
}

/// What all sockets here are.
const FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

fn edges() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET
}

fn of(at: SocketAddrV4) -> SockaddrIn {
    SockaddrIn::from(at)
}

impl<'a> Sockets<'a> {
    /// Sockets whose events go to `epoll`, each with its id as data.
    pub(crate) fn new(epoll: &'a Epoll, forwards: Vec<OwnedFd>) -> Self {
        Self { epoll, open: BTreeMap::new(), forwards }
    }

    /// How many forwards there are: the index of the next one.
    pub(crate) fn forwards(&self) -> usize {
        self.forwards.len()
    }

    /// Adds the socket of a forward.
    pub(crate) fn add_forward(&mut self, socket: OwnedFd) {
        self.forwards.push(socket);
    }

    fn get(&self, id: SocketId) -> io::Result<&OwnedFd> {
        self.open.get(&id).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Watches a socket and keeps it.
    fn keep(&mut self, id: SocketId, socket: OwnedFd) -> io::Result<()> {
        self.epoll.add(&socket, EpollEvent::new(edges(), id.0))?;
        self.open.insert(id, socket);
        Ok(())
    }
}

impl Host for Sockets<'_> {
    fn connect(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<bool> {
        let new = socket(AddressFamily::Inet, SockType::Stream, FLAGS, None)?;
        setsockopt(&new, sockopt::TcpNoDelay, &true)?;
        // Watched only now: a socket that has not begun to connect counts as one that was hung up.
        let made = match connect(new.as_raw_fd(), &of(to)) {
            Ok(()) => true,
            Err(Errno::EINPROGRESS) => false,
            Err(e) => return Err(e.into()),
        };
        self.keep(id, new)?;
        Ok(made)
    }

    fn connected(&mut self, id: SocketId) -> io::Result<()> {
        let socket = self.get(id)?;
        match getsockopt(socket, sockopt::SocketError)? {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        match getpeername::<SockaddrIn>(socket.as_raw_fd()) {
            Ok(_) => Ok(()),
            Err(Errno::ENOTCONN) => Err(ErrorKind::WouldBlock.into()),
            Err(e) => Err(e.into()),
        }
    }

    fn accept(&mut self, forward: usize, id: SocketId) -> io::Result<SocketAddrV4> {
        let fd = accept4(self.forwards[forward].as_raw_fd(), FLAGS)?;
        // SAFETY: the kernel has just made it.
        let new = unsafe { OwnedFd::from_raw_fd(fd) };
        let peer = match getpeername::<SockaddrIn>(fd) {
            Ok(peer) => SocketAddrV4::new(peer.ip(), peer.port()),
            Err(Errno::ENOTCONN) => return Err(ErrorKind::ConnectionAborted.into()),
            Err(e) => return Err(e.into()),
        };
        setsockopt(&new, sockopt::TcpNoDelay, &true)?;
        self.keep(id, new)?;
        Ok(peer)
    }

    fn open_datagrams(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<()> {
        let new = socket(AddressFamily::Inet, SockType::Datagram, FLAGS, None)?;
        connect(new.as_raw_fd(), &of(to))?;
        self.keep(id, new)
    }

    fn open_echo(&mut self, id: SocketId, to: Ipv4Addr) -> io::Result<()> {
        let new = socket(AddressFamily::Inet, SockType::Datagram, FLAGS, SockProtocol::Icmp)?;
        connect(new.as_raw_fd(), &of(SocketAddrV4::new(to, 0)))?;
        self.keep(id, new)
    }

    fn read(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.get(id)?.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
    }

    fn write(&mut self, id: SocketId, data: &[u8]) -> io::Result<usize> {
        Ok(send(self.get(id)?.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?)
    }

    fn shutdown(&mut self, id: SocketId) {
        if let Some(socket) = self.open.get(&id) {
            // That the peer is gone shows when it is read from or written to.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
        }
    }

    fn close(&mut self, id: SocketId, abort: bool) {
        let Some(socket) = self.open.remove(&id) else { return };
        if abort {
            // Closing a connection that may not linger resets it. On a socket of datagrams this is refused, or nothing.
            let _ = setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
        }
        // With its only descriptor a socket leaves the epoll too.
        drop(socket);
    }

    fn receive_from(&mut self, forward: usize, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        let (n, from) = recvfrom::<SockaddrIn>(self.forwards[forward].as_raw_fd(), buffer)?;
        let from = from.ok_or(ErrorKind::InvalidData)?;
        Ok((n, SocketAddrV4::new(from.ip(), from.port())))
    }

    fn send_to(&mut self, forward: usize, data: &[u8], to: SocketAddrV4) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendto(self.forwards[forward].as_raw_fd(), data, &of(to), flags)?;
        Ok(())
    }
}
