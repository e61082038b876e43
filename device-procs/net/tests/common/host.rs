//! A host made of memory. What its programs do is up to the test, which shares it with the network.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use reprise_net::{Host, Ready, SocketId};

/// What a socket's buffers hold.
pub(crate) const BUFFER: usize = 100_000;

/// What a port does when it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Open,
    /// It answers later.
    Slow,
    Refuses,
    Unreachable,
}

/// A TCP connection, as a program of the host has it.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) to: Option<SocketAddrV4>,
    /// None while it is not known.
    pub(crate) made: Option<Result<(), ErrorKind>>,
    /// From the program, not yet read by the network.
    pub(crate) output: VecDeque<u8>,
    /// The program has closed its side.
    pub(crate) ended: bool,
    /// To the program, not yet read by it.
    pub(crate) input: VecDeque<u8>,
    /// The network has ended its side.
    pub(crate) shut: bool,
    /// The program has reset the connection.
    pub(crate) reset: bool,
    /// The network has closed the socket; true if by a reset.
    pub(crate) closed: Option<bool>,
}

/// A UDP or echo socket, as the network has made it.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) to: Option<SocketAddrV4>,
    pub(crate) echo: bool,
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) arriving: VecDeque<Result<Vec<u8>, ErrorKind>>,
    pub(crate) closed: bool,
}

/// What has come in at a forward.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) connections: VecDeque<SocketAddrV4>,
    pub(crate) datagrams: VecDeque<(Vec<u8>, SocketAddrV4)>,
    pub(crate) answers: Vec<(Vec<u8>, SocketAddrV4)>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// TCP ports; all others refuse.
    pub(crate) ports: BTreeMap<u16, Port>,
    pub(crate) streams: BTreeMap<SocketId, Stream>,
    pub(crate) datagrams: BTreeMap<SocketId, Datagrams>,
    pub(crate) forwards: Vec<Incoming>,
    pub(crate) may_ping: bool,
    events: Vec<(SocketId, Ready)>,
    pub(crate) forward_events: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(pub(crate) Rc<RefCell<State>>);

const READ: Ready = Ready { read: true, write: false };
const WRITE: Ready = Ready { read: false, write: true };

impl Memory {
    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// A host with open TCP ports.
    pub(crate) fn with_ports(ports: &[(u16, Port)]) -> Self {
        let memory = Self::default();
        memory.state().ports = ports.iter().copied().collect();
        memory
    }

    pub(crate) fn take_events(&self) -> Vec<(SocketId, Ready)> {
        std::mem::take(&mut self.state().events)
    }

    /// The sockets of TCP connections, in the order in which they were made.
    pub(crate) fn streams(&self) -> Vec<SocketId> {
        self.state().streams.keys().copied().collect()
    }
}

impl State {
    pub(crate) fn stream(&mut self, id: SocketId) -> &mut Stream {
        self.streams.get_mut(&id).expect("there is such a stream")
    }

    /// The program writes; how much of it fits.
    pub(crate) fn write(&mut self, id: SocketId, data: &[u8]) -> usize {
        let stream = self.stream(id);
        let n = data.len().min(BUFFER - stream.output.len());
        stream.output.extend(&data[..n]);
        self.events.push((id, READ));
        n
    }

    /// The program reads what there is.
    pub(crate) fn read(&mut self, id: SocketId) -> Vec<u8> {
        let data: Vec<u8> = self.stream(id).input.drain(..).collect();
        self.events.push((id, WRITE));
        data
    }

    pub(crate) fn end(&mut self, id: SocketId) {
        self.stream(id).ended = true;
        self.events.push((id, READ));
    }

    pub(crate) fn reset(&mut self, id: SocketId) {
        self.stream(id).reset = true;
        self.events.push((id, Ready { read: true, write: true }));
    }

    pub(crate) fn make(&mut self, id: SocketId, result: Result<(), ErrorKind>) {
        self.stream(id).made = Some(result);
        self.events.push((id, Ready { read: true, write: true }));
    }

    pub(crate) fn arrive(&mut self, id: SocketId, datagram: Result<&[u8], ErrorKind>) {
        let datagrams = self.datagrams.get_mut(&id).expect("there is such a socket");
        datagrams.arriving.push_back(datagram.map(<[u8]>::to_vec));
        self.events.push((id, READ));
    }

    pub(crate) fn come_in(&mut self, forward: usize, peer: SocketAddrV4) {
        self.forwards[forward].connections.push_back(peer);
        self.forward_events.push(forward);
    }

    pub(crate) fn come_in_datagram(&mut self, forward: usize, data: &[u8], peer: SocketAddrV4) {
        self.forwards[forward].datagrams.push_back((data.to_vec(), peer));
        self.forward_events.push(forward);
    }
}

impl Host for Memory {
    fn connect(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<bool> {
        let mut state = self.state();
        let port = state.ports.get(&to.port()).copied().unwrap_or(Port::Refuses);
        let made = match port {
            Port::Open => Some(Ok(())),
            Port::Slow => None,
            Port::Refuses => return Err(ErrorKind::ConnectionRefused.into()),
            Port::Unreachable => return Err(ErrorKind::HostUnreachable.into()),
        };
        state.streams.insert(id, Stream { to: Some(to), made, ..Stream::default() });
        Ok(made.is_some())
    }

    fn connected(&mut self, id: SocketId) -> io::Result<()> {
        match self.state().stream(id).made {
            None => Err(ErrorKind::WouldBlock.into()),
            Some(result) => result.map_err(Into::into),
        }
    }

    fn accept(&mut self, forward: usize, id: SocketId) -> io::Result<SocketAddrV4> {
        let mut state = self.state();
        let peer = state.forwards[forward].connections.pop_front().ok_or(ErrorKind::WouldBlock)?;
        state.streams.insert(id, Stream { to: Some(peer), made: Some(Ok(())), ..Stream::default() });
        Ok(peer)
    }

    fn open_datagrams(&mut self, id: SocketId, to: SocketAddrV4) -> io::Result<()> {
        self.state().datagrams.insert(id, Datagrams { to: Some(to), ..Datagrams::default() });
        Ok(())
    }

    fn open_echo(&mut self, id: SocketId, to: Ipv4Addr) -> io::Result<()> {
        let mut state = self.state();
        if !state.may_ping {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let to = Some(SocketAddrV4::new(to, 0));
        state.datagrams.insert(id, Datagrams { to, echo: true, ..Datagrams::default() });
        Ok(())
    }

    fn read(&mut self, id: SocketId, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if let Some(datagrams) = state.datagrams.get_mut(&id) {
            let data = datagrams.arriving.pop_front().ok_or(ErrorKind::WouldBlock)??;
            let n = data.len().min(buffer.len());
            buffer[..n].copy_from_slice(&data[..n]);
            return Ok(n);
        }
        let stream = state.stream(id);
        assert_eq!(stream.made, Some(Ok(())), "it is read before it is made");
        assert!(stream.closed.is_none() && !buffer.is_empty());
        if stream.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let n = buffer.len().min(stream.output.len());
        if n == 0 && !stream.ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        for (at, byte) in buffer.iter_mut().zip(stream.output.drain(..n)) {
            *at = byte;
        }
        Ok(n)
    }

    fn write(&mut self, id: SocketId, data: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if let Some(datagrams) = state.datagrams.get_mut(&id) {
            datagrams.sent.push(data.to_vec());
            return Ok(data.len());
        }
        let stream = state.stream(id);
        assert!(stream.closed.is_none() && !stream.shut);
        if stream.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let n = data.len().min(BUFFER - stream.input.len());
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        stream.input.extend(&data[..n]);
        Ok(n)
    }

    fn shutdown(&mut self, id: SocketId) {
        let mut state = self.state();
        let stream = state.stream(id);
        assert!(!stream.shut && stream.closed.is_none());
        stream.shut = true;
    }

    fn close(&mut self, id: SocketId, abort: bool) {
        let mut state = self.state();
        if let Some(datagrams) = state.datagrams.get_mut(&id) {
            assert!(!datagrams.closed);
            datagrams.closed = true;
        } else if let Some(stream) = state.streams.get_mut(&id) {
            assert!(stream.closed.is_none());
            stream.closed = Some(abort);
        }
    }

    fn receive_from(&mut self, forward: usize, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        let (data, peer) = self.state().forwards[forward].datagrams.pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..data.len()].copy_from_slice(&data);
        Ok((data.len(), peer))
    }

    fn send_to(&mut self, forward: usize, data: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.state().forwards[forward].answers.push((data.to_vec(), to));
        Ok(())
    }
}
