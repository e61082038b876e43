//! The control socket: whole messages over a `SOCK_SEQPACKET` pair.
//!
//! A message is postcard bytes. It travels as packets of at most 32 KiB, the first of which begins with the message's length (u32, little-endian):
//! a socket takes no packet that is larger than its buffer.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, send, sendmsg,
    socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::control::{FromChild, PluginInfo, Ready, ToChild};

/// A child's control socket.
pub const CONTROL_FD: RawFd = 3;
/// The largest message.
pub const MAX_MESSAGE: usize = 64 << 20;
/// The largest packet.
const PACKET: usize = 32 << 10;
/// How long the rest of a message may take once it has begun.
const REST: Duration = Duration::from_secs(30);

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The other end is gone.
    #[error("the control socket is closed: the process at its other end is gone")]
    Closed,
    /// The other end sends what is no message.
    #[error("the control socket's other end sent nonsense: {0}")]
    Nonsense(String),
    /// A message is too large.
    #[error("a control message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// The system refuses.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for ControlError {
    fn from(e: Errno) -> Self {
        match e {
            Errno::EPIPE | Errno::ECONNRESET => Self::Closed,
            e => Self::Io(e.into()),
        }
    }
}

/// A connected pair, both ends closed on exec: (supervisor's end, child's end).
///
/// # Errors
/// The system has no more descriptors.
pub fn pair() -> io::Result<(Peer, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Peer { fd: ours, partial: None }, theirs))
}

/// A message that has begun and is not whole yet.
#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    total: usize,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Peer {
    fd: OwnedFd,
    partial: Option<Partial>,
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Peer {
    /// Sends a message. Waits while the child's buffer is full, but no more than 30 s.
    ///
    /// # Errors
    /// The child is gone, or doesn't read.
    pub fn send(&self, message: &ToChild) -> Result<(), ControlError> {
        send_message(self.fd.as_fd(), message)
    }

    /// Sends a message with a descriptor, of which the child gets a copy ([`Control::try_receive_with`]). The message must be a small one.
    ///
    /// # Errors
    /// The child is gone, or doesn't read.
    pub fn send_with(&self, message: &ToChild, fd: BorrowedFd<'_>) -> Result<(), ControlError> {
        let packet = encode(message)?;
        if packet.len() > PACKET {
            return Err(ControlError::TooLarge(packet.len()));
        }
        let deadline = Instant::now() + REST;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let fds = [fd.as_raw_fd()];
        loop {
            let (data, control) = ([IoSlice::new(&packet)], [ControlMessage::ScmRights(&fds)]);
            match sendmsg::<()>(self.fd.as_raw_fd(), &data, &control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait(self.fd.as_fd(), PollFlags::POLLOUT, deadline)?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes the next message if a whole one is there; never waits.
    ///
    /// # Errors
    /// The child is gone, or sends nonsense. Messages that were sent before come first.
    pub fn try_receive(&mut self) -> Result<Option<FromChild>, ControlError> {
        loop {
            let Some(packet) = receive_packet(self.fd.as_fd(), MsgFlags::MSG_DONTWAIT)? else { return Ok(None) };
            if let Some(bytes) = add(&mut self.partial, &packet)? {
                return decode(&bytes).map(Some);
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As [`Peer::try_receive`]; also if none came until `deadline`.
    pub fn receive_until(&mut self, deadline: Instant) -> Result<FromChild, ControlError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            wait(self.fd.as_fd(), PollFlags::POLLIN, deadline)?;
        }
    }
}

/// A child's end.
#[derive(Debug)]
pub struct Control {
    fd: OwnedFd,
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Control {
    /// Takes the inherited descriptor.
    ///
    /// # Errors
    /// It is no socket: the program was not started by a supervisor.
    pub(crate) fn inherited() -> io::Result<Self> {
        nix::sys::socket::getsockopt(&borrow(CONTROL_FD), nix::sys::socket::sockopt::SockType)?;
        // SAFETY: the supervisor gave this process descriptor 3 for exactly this, it is open (the call above), and `run` calls this once.
        let fd = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        Ok(Self { fd })
    }

    /// Another handle on the same socket, for a thread that only reads or only writes.
    ///
    /// # Errors
    /// The system has no more descriptors. Ask before the sandbox is entered.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// The descriptor's number, for a poll loop.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn send(&self, message: &FromChild) -> Result<(), ControlError> {
        send_message(self.fd.as_fd(), message)
    }

    /// Sends [`FromChild::Ready`].
    ///
    /// # Errors
    /// As [`Control::send`].
    pub fn ready(&self, spec: Vec<u8>, plugin: Option<PluginInfo>) -> Result<(), ControlError> {
        self.send(&FromChild::Ready(Ready { spec, plugin, id_registers: Vec::new() }))
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// The supervisor is gone ([`ControlError::Closed`]): exit at once.
    pub fn receive(&mut self) -> Result<ToChild, ControlError> {
        let mut partial = None;
        loop {
            let packet = receive_packet(self.fd.as_fd(), MsgFlags::empty())?;
            if let Some(bytes) = add(&mut partial, &packet.unwrap_or_default())? {
                return decode(&bytes);
            }
        }
    }

    /// Takes the next message if one is there, and the descriptor that came with it ([`Peer::send_with`]). Only for children to which no large messages are sent.
    ///
    /// # Errors
    /// As [`Control::receive`].
    pub fn try_receive_with(&mut self) -> Result<Option<(ToChild, Option<OwnedFd>)>, ControlError> {
        let mut buffer = vec![0; PACKET];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut data = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (n, fd) = match recvmsg::<()>(self.fd.as_raw_fd(), &mut data, Some(&mut space), flags) {
            Ok(message) => {
                let rights = message.cmsgs()?.find_map(|c| match c {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                // SAFETY: the kernel has just made it for this process; there is room for one only.
                (message.bytes, rights.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if n == 0 {
            return Err(ControlError::Closed);
        }
        match add(&mut None, &buffer[..n])? {
            Some(bytes) => Ok(Some((decode(&bytes)?, fd))),
            None => {
                Err(ControlError::Nonsense("a message in several packets, which this process does not take".into()))
            }
        }
    }

    /// Takes the next message if one is there.
    ///
    /// # Errors
    /// As [`Control::receive`].
    pub fn try_receive(&mut self) -> Result<Option<ToChild>, ControlError> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => self.receive().map(Some),
            Err(e) => Err(e.into()),
        }
    }
}

fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only lent to calls that report a closed descriptor as an error.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> Result<(), ControlError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    }
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, flags)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A message behind its length.
fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, ControlError> {
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(|e| ControlError::Nonsense(e.to_string()))?;
    let len = bytes.len() - 4;
    if len > MAX_MESSAGE {
        return Err(ControlError::TooLarge(len));
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

fn send_message<M: Serialize>(fd: BorrowedFd<'_>, message: &M) -> Result<(), ControlError> {
    let bytes = encode(message)?;
    let deadline = Instant::now() + REST;
    for packet in bytes.chunks(PACKET) {
        loop {
            match send(fd.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait(fd, PollFlags::POLLOUT, deadline)?,
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// A packet; none if there is none and `flags` say not to wait.
fn receive_packet(fd: BorrowedFd<'_>, flags: MsgFlags) -> Result<Option<Vec<u8>>, ControlError> {
    let mut buffer = vec![0; PACKET];
    loop {
        match recv(fd.as_raw_fd(), &mut buffer, flags) {
            Ok(0) => return Err(ControlError::Closed),
            Ok(n) => {
                buffer.truncate(n);
                return Ok(Some(buffer));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Adds a packet to the message that is being received; gives the message once it is whole.
fn add(partial: &mut Option<Partial>, packet: &[u8]) -> Result<Option<Vec<u8>>, ControlError> {
    let bytes = match partial {
        Some(p) => {
            p.bytes.extend_from_slice(packet);
            p
        }
        None => {
            let Some((len, rest)) = packet.split_first_chunk::<4>() else {
                return Err(ControlError::Nonsense("a packet of less than four bytes".into()));
            };
            let total = u32::from_le_bytes(*len) as usize;
            if total > MAX_MESSAGE {
                return Err(ControlError::TooLarge(total));
            }
            partial.insert(Partial { bytes: rest.to_vec(), total })
        }
    };
    if bytes.bytes.len() > bytes.total {
        return Err(ControlError::Nonsense("a message is longer than it says".into()));
    }
    if bytes.bytes.len() < bytes.total {
        return Ok(None);
    }
    Ok(partial.take().map(|p| p.bytes))
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, ControlError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(ControlError::Nonsense("bytes are left over".into())),
        Err(e) => Err(ControlError::Nonsense(e.to_string())),
    }
}
