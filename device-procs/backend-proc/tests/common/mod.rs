//! A backend-proc with a network, started as the supervisor starts it, and a guest with a whole TCP/IP stack at the other end.
#![allow(dead_code, reason = "the tests and the benchmark each use their own part")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use reprise_child::control::{
    BackendProcStart, BackendRole, Common, FromChild, Mode, NetForward, NetReach, NetStart, Start, ToChild,
};
use reprise_child::{Peer, pair};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as Time;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};

/// No wait is longer.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
pub(crate) const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);

/// A descriptor that a child inherits, above the ones that have fixed numbers.
pub(crate) fn inheritable(fd: impl AsFd) -> OwnedFd {
    let raw = fcntl(fd, FcntlArg::F_DUPFD(64)).unwrap();
    // SAFETY: the number was just made for us.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// The process, and what the supervisor has of it.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) peer: Peer,
    /// The device's end of the pair, as the supervisor keeps it.
    pub(crate) frames: OwnedFd,
}

impl Process {
    pub(crate) fn start(program: &Path, forwards: Vec<NetForward>) -> Self {
        let (frames, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let theirs = inheritable(theirs);
        let (mut peer, control) = pair().unwrap();
        let control = inheritable(control);
        let raw: RawFd = control.as_raw_fd();
        let mut command = Command::new(program);
        // SAFETY: dup2 is async-signal-safe, and both numbers are valid there.
        unsafe {
            command
                .pre_exec(move || if libc::dup2(raw, 3) == 3 { Ok(()) } else { Err(std::io::Error::last_os_error()) });
        }
        let child = command.spawn().unwrap();
        let common = Common { name: "eth0 net".into(), log_filter: "warn".into(), jitter: None, mode: Mode::Plain };
        let net = NetStart { frames: theirs.as_raw_fd(), reach: NetReach::Loopback, resolver: None, forwards, seed: 1 };
        let start = BackendProcStart { common, role: BackendRole::Net(net) };
        peer.send(&ToChild::Start(Box::new(Start::BackendProc(start)))).unwrap();
        let answer = peer.receive_until(Instant::now() + LONG).unwrap();
        assert!(matches!(answer, FromChild::Ready(_)), "{answer:?}");
        peer.send(&ToChild::Go).unwrap();
        Self { child, peer, frames }
    }

    pub(crate) fn exit(mut self) -> ExitStatus {
        self.peer.send(&ToChild::Exit).unwrap();
        self.child.wait().unwrap()
    }
}

/// The guest's network card: the device's end of the pair.
pub(crate) struct Card(pub(crate) OwnedFd);

pub(crate) struct Rx(Vec<u8>);
pub(crate) struct Tx<'a>(&'a OwnedFd);

impl Device for Card {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Time) -> Option<(Rx, Tx<'_>)> {
        let mut frame = vec![0; 2000];
        let n = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT).ok().filter(|n| *n > 0)?;
        frame.truncate(n);
        Some((Rx(frame), Tx(&self.0)))
    }

    fn transmit(&mut self, _: Time) -> Option<Tx<'_>> {
        let mut room = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        (poll(&mut room, PollTimeout::ZERO) == Ok(1)).then_some(Tx(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // What does not fit is lost, as on any network.
        let _ = send(self.0.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT);
        result
    }
}

/// The guest.
pub(crate) struct Guest {
    pub(crate) card: Card,
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    began: Instant,
}

impl Guest {
    pub(crate) fn new(frames: &OwnedFd) -> Self {
        let mut card = Card(frames.try_clone().unwrap());
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56])));
        let mut interface = Interface::new(config, &mut card, Time::ZERO);
        interface.update_ip_addrs(|list| list.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Self { card, interface, sockets: SocketSet::new(Vec::new()), began: Instant::now() }
    }

    fn now(&self) -> Time {
        Time::from_micros(self.began.elapsed().as_micros() as i64)
    }

    pub(crate) fn poll(&mut self) {
        let now = self.now();
        self.interface.poll(now, &mut self.card, &mut self.sockets);
    }

    /// Polls until `done`, and waits for frames in between.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = Instant::now() + LONG;
        loop {
            self.poll();
            if done(self) {
                return;
            }
            assert!(Instant::now() < limit, "{what} did not happen");
            let now = self.now();
            let delay = self.interface.poll_delay(now, &self.sockets).map_or(5, |d| d.total_millis().min(5));
            let mut ready = [PollFd::new(self.card.0.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::from(delay as u8));
        }
    }

    pub(crate) fn tcp(&mut self, size: usize) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; size]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    pub(crate) fn connect(&mut self, port: u16, from: u16) -> SocketHandle {
        let handle = self.tcp(1 << 18);
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.interface.context(), (GATEWAY, port), from).unwrap();
        handle
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }
}
