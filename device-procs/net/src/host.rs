//! What the network needs of its host: sockets that never block.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A socket of the host: numbers that the network gives, each one once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What has become possible at a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There may be something to read, or an end or an error.
    pub read: bool,
    /// There may be room to write, or a connection was made or refused.
    pub write: bool,
}

/// The host's sockets. Every call returns at once; what can't be done now is [`io::ErrorKind::WouldBlock`].
///
/// Readiness is told by edges: after a call said `WouldBlock`, the owner calls [`crate::Network::ready`] once that may have changed.
pub trait Host {
    /// Begins a TCP connection; true if it is made already. Else readiness to write says that [`Host::connected`] knows more.
    ///
    /// # Errors
    /// It is refused, or can't be.
    fn connect(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<bool>;

    /// How a connection that was begun has come out; `WouldBlock` if that is not known yet.
    ///
    /// # Errors
    /// It was refused, or can't be.
    fn connected(&mut self, id: SocketId) -> io::Result<()>;

    /// Takes a connection that has come in at the forward with this index; its peer.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or no descriptor for it.
    fn accept(&mut self, forward: usize, id: SocketId) -> io::Result<SocketAddrV4>;

    /// Makes a UDP socket that is connected to `to`.
    ///
    /// # Errors
    /// The host has no way there.
    fn open_datagrams(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<()>;

    /// Makes a socket that sends ICMP echo requests and receives the replies to them, both from their ICMP header on.
    ///
    /// # Errors
    /// The host does not let this user ping, or has no way there.
    fn open_echo(&mut self, id: SocketId, to: Ipv4Addr) -> io::Result<()>;

    /// Reads bytes, or one datagram. Of a stream, 0 bytes are its end.
    ///
    /// # Errors
    /// As the system has them.
    fn read(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes bytes, or one datagram.
    ///
    /// # Errors
    /// As the system has them.
    fn write(&mut self, id: SocketId, data: &[u8]) -> io::Result<usize>;

    /// Ends the stream of written bytes.
    fn shutdown(&mut self, id: SocketId);

    /// Closes a socket; with `abort` a connection's peer sees that it was reset.
    fn close(&mut self, id: SocketId, abort: bool);

    /// Reads a datagram that has come in at the forward with this index.
    ///
    /// # Errors
    /// There is none (`WouldBlock`).
    fn receive_from(&mut self, forward: usize, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)>;

    /// Sends a datagram from the forward with this index.
    ///
    /// # Errors
    /// As the system has them.
    fn send_to(&mut self, forward: usize, data: &[u8], to: SocketAddrV4) -> io::Result<()>;
}
