//! Packets: one by one to and from a descriptor that keeps their boundaries, such as one end of a `SOCK_SEQPACKET` pair or a tap device.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};

use crate::{Backend, Input, Output};

/// The largest packet.
const LARGEST: usize = 65535;
/// Packets that wait for a slow reader; further ones are lost, as on any network.
const QUEUE: usize = 256;

/// A descriptor where each read and each write is a packet.
#[derive(Debug)]
pub struct Packets {
    /// None once the other side is gone.
    fd: Option<OwnedFd>,
    /// A packet that was read and did not fit into the room that there was.
    held: Option<Vec<u8>>,
    buffer: Vec<u8>,
    queue: VecDeque<Vec<u8>>,
    dropped: u64,
    /// The cable is plugged in.
    up: bool,
    /// Packets and bytes that came in and were taken, and that went out.
    received: (u64, u64),
    sent: (u64, u64),
}

impl Packets {
    /// Packets over this descriptor, which is made non-blocking, for all who share it.
    ///
    /// # Errors
    /// The system refuses that.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            fd: Some(fd),
            held: None,
            buffer: vec![0; LARGEST],
            queue: VecDeque::new(),
            dropped: 0,
            up: true,
            received: (0, 0),
            sent: (0, 0),
        })
    }

    /// Packets of output that were lost, as the queue was full or the other side did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next packet that has come in.
    fn receive(&mut self) -> Result<&[u8], Errno> {
        let fd = self.fd.as_ref().ok_or(Errno::EPIPE)?;
        let n = read(fd, &mut self.buffer)?;
        // The other side is gone: no network sends an empty packet.
        if n == 0 { Err(Errno::EPIPE) } else { Ok(&self.buffer[..n]) }
    }

    /// Throws away what has come in.
    fn discard(&mut self) {
        self.dropped += u64::from(self.held.take().is_some());
        loop {
            match self.receive() {
                Ok(_) => self.dropped += 1,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.fd = None;
                    return;
                }
            }
        }
    }

    /// Writes one packet; false if it must wait.
    fn send(&mut self, packet: &[u8]) -> bool {
        let Some(fd) = &self.fd else {
            self.dropped += 1;
            return true;
        };
        loop {
            match write(fd, packet) {
                Ok(_) => {
                    self.sent = (self.sent.0 + 1, self.sent.1 + packet.len() as u64);
                    return true;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                // A tap that is down, or nobody at the other end.
                Err(_) => {
                    self.dropped += 1;
                    return true;
                }
            }
        }
    }
}

impl Backend for Packets {
    fn input_fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn output_fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Adds exactly one packet if one is there and fits; one that does not fit is kept until it does.
    fn read(&mut self, room: usize, buffer: &mut Vec<u8>) -> Input {
        // What nobody has room for stays where it is.
        if room == 0 {
            return Input::Nothing;
        }
        if !self.up {
            self.discard();
            return if self.fd.is_some() { Input::Nothing } else { Input::End };
        }
        if let Some(packet) = self.held.take_if(|packet| packet.len() <= room) {
            buffer.extend_from_slice(&packet);
            self.received = (self.received.0 + 1, self.received.1 + packet.len() as u64);
            return Input::Bytes(packet.len());
        }
        if self.held.is_some() {
            return Input::Nothing;
        }
        match self.receive() {
            Ok(packet) if packet.len() <= room => {
                buffer.extend_from_slice(packet);
                let len = packet.len();
                self.received = (self.received.0 + 1, self.received.1 + len as u64);
                Input::Bytes(len)
            }
            Ok(packet) => {
                self.held = Some(packet.to_vec());
                Input::Nothing
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Input::Nothing,
            Err(_) => {
                self.fd = None;
                Input::End
            }
        }
    }

    /// Takes one packet.
    fn write(&mut self, data: &[u8]) -> Output {
        if data.is_empty() || data.len() > LARGEST || !self.up {
            self.dropped += 1;
        } else if self.queue.is_empty() && self.send(data) {
            // It is on its way.
        } else if self.queue.len() < QUEUE {
            self.queue.push_back(data.to_vec());
        } else {
            self.dropped += 1;
        }
        self.flush()
    }

    fn flush(&mut self) -> Output {
        while let Some(packet) = self.queue.pop_front() {
            if !self.send(&packet) {
                self.queue.push_front(packet);
                return Output::Blocked;
            }
        }
        Output::Done
    }

    fn pending(&self) -> usize {
        self.queue.iter().map(Vec::len).sum()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("received-packets", self.received.0),
            ("received-bytes", self.received.1),
            ("sent-packets", self.sent.0),
            ("sent-bytes", self.sent.1),
            ("dropped-packets", self.dropped),
        ]
    }

    /// What came in while the cable was out is not there when it is in again.
    fn set_link(&mut self, up: bool) {
        if up && !self.up {
            self.discard();
        }
        self.up = up;
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

    use super::*;

    fn pair() -> (Packets, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Packets::new(ours).unwrap(), theirs)
    }

    fn give(to: &OwnedFd, packet: &[u8]) {
        assert_eq!(send(to.as_raw_fd(), packet, MsgFlags::empty()), Ok(packet.len()));
    }

    #[test]
    fn each_read_is_one_packet_that_fits() {
        let (mut packets, other) = pair();
        let mut buffer = Vec::new();
        assert_eq!(packets.read(1514, &mut buffer), Input::Nothing);
        give(&other, &[1; 60]);
        give(&other, &[2; 1514]);
        give(&other, &[3; 9]);
        assert_eq!(packets.read(0, &mut buffer), Input::Nothing);
        assert_eq!(packets.read(1514, &mut buffer), Input::Bytes(60));
        assert_eq!(buffer, [1; 60]);
        // The next one does not fit: it waits, and none overtakes it.
        assert_eq!(packets.read(1513, &mut buffer), Input::Nothing);
        assert_eq!(packets.read(100, &mut buffer), Input::Nothing);
        assert_eq!(packets.read(0, &mut buffer), Input::Nothing);
        assert_eq!(packets.read(1514, &mut buffer), Input::Bytes(1514));
        assert_eq!(buffer[60..], [2; 1514]);
        assert_eq!(packets.read(9, &mut buffer), Input::Bytes(9));
        assert_eq!(packets.read(9, &mut buffer), Input::Nothing);
        drop(other);
        assert_eq!(packets.read(9, &mut buffer), Input::End);
        assert_eq!((packets.input_fd(), packets.read(9, &mut buffer)), (None, Input::End));
    }

    #[test]
    fn packets_wait_in_order_and_those_beyond_are_lost() {
        let (mut packets, other) = pair();
        let mut sent = 0_u32;
        let mut packet = [0; 1500];
        while packets.dropped() < 10 {
            packet[..4].copy_from_slice(&sent.to_le_bytes());
            packets.write(&packet);
            sent += 1;
        }
        assert_eq!(packets.pending(), QUEUE * packet.len());
        assert_eq!(packets.flush(), Output::Blocked);
        let mut got = 0;
        let mut room = [0; 2000];
        loop {
            let state = packets.flush();
            match recv(other.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Ok(n) => {
                    assert_eq!((n, &room[..4]), (1500, &u32::to_le_bytes(got)[..]));
                    got += 1;
                }
                Err(_) => {
                    assert_eq!(state, Output::Done);
                    break;
                }
            }
        }
        assert_eq!(got, sent - 10, "the first ones, all of them");
        assert_eq!((packets.pending(), packets.write(&packet)), (0, Output::Done));
    }

    #[test]
    fn a_cable_that_is_out_carries_nothing() {
        let (mut packets, other) = pair();
        let (mut buffer, mut room) = (Vec::new(), [0; 100]);
        give(&other, &[1; 60]);
        assert_eq!(packets.read(50, &mut buffer), Input::Nothing, "it is held, as it does not fit");
        packets.set_link(false);
        give(&other, &[2; 60]);
        assert_eq!((packets.read(100, &mut buffer), packets.write(&[3; 60])), (Input::Nothing, Output::Done));
        give(&other, &[4; 60]);
        packets.set_link(true);
        assert_eq!(packets.read(100, &mut buffer), Input::Nothing, "what came before it was plugged in again is lost");
        give(&other, &[5; 60]);
        assert_eq!((packets.read(100, &mut buffer), buffer), (Input::Bytes(60), vec![5; 60]));
        packets.write(&[6; 40]);
        assert_eq!((recv(other.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT), room[0]), (Ok(40), 6));
        let names = ["received-packets", "received-bytes", "sent-packets", "sent-bytes", "dropped-packets"];
        assert_eq!(packets.counters(), names.into_iter().zip([1, 60, 1, 40, 4]).collect::<Vec<_>>());
    }

    #[test]
    fn what_nobody_takes_is_lost() {
        let (mut packets, other) = pair();
        drop(other);
        // As in a child process, where this is an error and no signal (`reprise_child::run`).
        // SAFETY: ignoring a signal installs no handler.
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn) }
            .unwrap();
        assert_eq!(packets.write(&[1; 60]), Output::Done);
        assert_eq!(packets.write(&[]), Output::Done);
        assert_eq!(packets.write(&[1; LARGEST + 1]), Output::Done);
        assert_eq!((packets.dropped(), packets.pending()), (3, 0));
    }
}
