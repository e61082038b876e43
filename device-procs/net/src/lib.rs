//! A network for a guest, in user mode: Ethernet frames in, Ethernet frames out, and sockets of the host behind it.
//!
//! The guest sees 10.0.2.0/24 as QEMU's users know it: itself at 10.0.2.15 (by DHCP), a gateway at 10.0.2.2, a name server at 10.0.2.3. The
//! gateway's ports are those of the host's loopback. What else can be reached is a matter of [`Reach`].
//!
//! [`Network`] has no thread, no clock and no socket of its own: its owner brings frames, the time, and sockets behind [`Host`]. The same calls
//! with the same answers give the same frames. The owner
//!
//! - gives it each frame of the guest with [`Network::receive`],
//! - tells it with [`Network::ready`] and [`Network::forward_ready`] which sockets have become ready,
//! - calls [`Network::poll`] when the time of [`Network::deadline`] has come,
//! - and after any of these takes frames with [`Network::front`] and [`Network::pop`] for as long as the guest takes them. When the guest
//!   takes none, connections wait with what they have; nothing of them is lost.
//!
//! Every number that a guest or a peer could drive up has a limit ([`limits`]). A guest's bytes are checked where they are read, and none of
//! them can make this crate panic.

mod conn;
mod dhcp;
mod dns;
mod fragments;
mod host;
mod link;
mod tcp;
mod udp;
mod wire;

use std::net::{Ipv4Addr, SocketAddrV4};

pub use crate::host::{Host, Ready, SocketId};

use crate::dhcp::Dhcp;
use crate::fragments::Fragments;
use crate::link::Link;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::wire::Ipv4;

/// The gateway: the host itself, as the guest sees it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server.
pub const NAMESERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The guest; the addresses after it go to stations behind a bridge in the guest.
pub const FIRST_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The network's mask.
pub const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// When so few frames wait for the guest, those connections go on that waited for room.
const LOW: usize = 31;
/// The port of DNS.
const DNS_PORT: u16 = 53;
/// The largest Ethernet frame, without its check sequence.
pub const MAX_FRAME: usize = wire::ETHERNET + wire::MTU;

/// The limits on what a guest or a peer can drive up.
pub mod limits {
    /// Frames that wait for the guest; at so many, connections wait.
    pub const FRAMES: usize = 256;
    /// More frames that may wait when they are answers, which can't wait elsewhere; then answers are lost.
    pub const ANSWERS: usize = 64;
    /// TCP connections, those that are not made yet included. A guest's further ones are refused, the host's wait.
    pub const CONNECTIONS: usize = 256;
    /// TCP connections that are not made yet. A guest's further ones get no answer for now, the host's wait.
    pub const HALF_OPEN: usize = 64;
    /// Bytes on their way from the guest to the host, for each TCP connection. TCP's window without scaling holds no more.
    pub const TO_HOST: usize = 65535;
    /// Bytes on their way from the host to the guest, for each TCP connection.
    pub const TO_GUEST: usize = 256 << 10;
    /// UDP flows (and those of ICMP echo). For another one, the one that would end first goes.
    pub const UDP_FLOWS: usize = 256;
    /// Flows of the name server among them.
    pub const DNS_FLOWS: usize = 64;
    /// DNS queries of one flow that are remembered until they are answered.
    pub const DNS_PENDING: usize = 8;
    /// Peers of UDP forwards. For another one, the one used longest ago goes.
    pub const FORWARD_PEERS: usize = 256;
    /// Datagrams of the guest that are there in part.
    pub const PARTIAL: usize = 16;
    /// How long the rest of a datagram is waited for, in microseconds.
    pub const FRAGMENT_TIME: u64 = 15_000_000;
    /// Stations behind the guest's network card.
    pub const STATIONS: usize = 16;
    /// Frames that wait until it is known who has an address.
    pub const UNADDRESSED: usize = 16;
}

/// Which destinations the guest reaches, besides the gateway and the name server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// None: TCP is refused by a reset, all else by ICMP.
    #[default]
    Loopback,
    /// All that the host reaches, but for its own loopback by that name, multicast and broadcast.
    All,
}

/// A protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What comes in at a port of the host goes on to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where to: an address in 10.0.2.0/24.
    pub to: SocketAddrV4,
}

/// How a network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the guest reaches.
    pub reach: Reach,
    /// Who answers DNS queries; without one each gets SERVFAIL.
    pub resolver: Option<SocketAddrV4>,
    /// The forwards; a [`Host`] knows them by their index.
    pub forwards: Vec<Forward>,
    /// From this come TCP's first sequence numbers.
    pub seed: u64,
}

/// Why a network can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A forward leads to no guest.
    #[error(
        "a forward can't lead to {0}: give an address of a guest in 10.0.2.0/24, such as 10.0.2.15, and a port from 1"
    )]
    Forward(SocketAddrV4),
}

/// Is this address in the guest's network?
pub(crate) fn in_network(ip: Ipv4Addr) -> bool {
    u32::from(ip) & u32::from(NETMASK) == u32::from(GATEWAY) & u32::from(NETMASK)
}

/// Can a guest have this address?
#[must_use]
pub fn is_guest(ip: Ipv4Addr) -> bool {
    in_network(ip) && ip != GATEWAY && ip != NAMESERVER && !matches!(ip.octets()[3], 0 | 255)
}

/// How much has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames from the guest.
    pub received: u64,
    /// Frames to the guest that were lost for want of room.
    pub dropped: u64,
    /// TCP connections that are there now.
    pub connections: usize,
    /// UDP and ICMP flows that are there now.
    pub flows: usize,
    /// Frames that wait for the guest.
    pub queued: usize,
}

/// What every part of the network works with.
#[derive(Debug)]
pub(crate) struct Core<H> {
    pub(crate) link: Link,
    pub(crate) host: H,
    pub(crate) config: Config,
    next_id: u64,
}

impl<H: Host> Core<H> {
    pub(crate) fn new_id(&mut self) -> SocketId {
        self.next_id += 1;
        SocketId(self.next_id)
    }

    /// Where on the host a destination of the guest lies; none if the guest may not go there.
    pub(crate) fn outside(&self, to: SocketAddrV4) -> Option<SocketAddrV4> {
        let ip = *to.ip();
        if ip == GATEWAY {
            return Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, to.port()));
        }
        if ip == NAMESERVER {
            return self.config.resolver.filter(|_| to.port() == DNS_PORT);
        }
        (self.config.reach == Reach::All && is_outside(ip)).then_some(to)
    }

    /// The address that the guest sees for a peer on the host's side.
    pub(crate) fn inside(peer: SocketAddrV4) -> SocketAddrV4 {
        if peer.ip().is_loopback() { SocketAddrV4::new(GATEWAY, peer.port()) } else { peer }
    }

    /// Says why a packet of the guest goes no further.
    pub(crate) fn refuse(&mut self, code: u8, packet: &[u8]) {
        let (from, to) = (wire::address(packet, 12), wire::address(packet, 16));
        // The name server and the gateway speak for themselves, the gateway also for what lies behind it.
        let speaker = if to == NAMESERVER { NAMESERVER } else { GATEWAY };
        let message = wire::unreachable(code, packet);
        self.link.send_payload(speaker, from, wire::PROTOCOL_ICMP, &message);
    }
}

/// An address that a host may know a way to, other than its own.
fn is_outside(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    !(in_network(ip) || first == 0 || ip.is_loopback() || first >= 224)
}

/// The network.
#[derive(Debug)]
pub struct Network<H> {
    core: Core<H>,
    tcp: Tcp,
    udp: Udp,
    dhcp: Dhcp,
    fragments: Fragments,
    received: u64,
}

impl<H: Host> Network<H> {
    /// A network over these sockets.
    ///
    /// # Errors
    /// A forward leads to no guest.
    pub fn new(config: Config, host: H) -> Result<Self, ConfigError> {
        if let Some(bad) = config.forwards.iter().find(|f| !is_guest(*f.to.ip()) || f.to.port() == 0) {
            return Err(ConfigError::Forward(bad.to));
        }
        Ok(Self {
            core: Core { link: Link::default(), host, config, next_id: 0 },
            tcp: Tcp::default(),
            udp: Udp::default(),
            dhcp: Dhcp::default(),
            fragments: Fragments::default(),
            received: 0,
        })
    }

    /// Adds a forward, which the [`Host`] knows already; its index follows that of the last one.
    ///
    /// # Errors
    /// It leads to no guest.
    pub fn add_forward(&mut self, forward: Forward) -> Result<(), ConfigError> {
        if !is_guest(*forward.to.ip()) || forward.to.port() == 0 {
            return Err(ConfigError::Forward(forward.to));
        }
        self.core.config.forwards.push(forward);
        Ok(())
    }

    /// Takes a frame of the guest, whatever it is. `now` is in microseconds from any start; it never goes back.
    pub fn receive(&mut self, now: u64, frame: &[u8]) {
        self.core.link.set_now(now);
        self.received += 1;
        if frame.len() < wire::ETHERNET || frame.len() > MAX_FRAME || !link::is_for_us(wire::mac(frame, 0)) {
            return;
        }
        match wire::be16(frame, 12) {
            wire::TYPE_ARP => self.core.link.arp(&frame[wire::ETHERNET..]),
            wire::TYPE_IPV4 => self.receive_ipv4(wire::mac(frame, 6), &frame[wire::ETHERNET..]),
            _ => {}
        }
    }

    fn receive_ipv4(&mut self, from: wire::Mac, bytes: &[u8]) {
        let Some(ip) = Ipv4::parse(bytes) else { return };
        if ip.dst == Ipv4Addr::BROADCAST || ip.src.is_unspecified() {
            self.receive_dhcp(&ip);
            return;
        }
        // Nobody else can be behind the guest's network card.
        if !is_guest(ip.src) {
            return;
        }
        self.core.link.learn(ip.src, from);
        if !ip.is_fragment() {
            self.receive_packet(&ip);
        } else if let Some(whole) = self.fragments.add(self.core.link.now(), &ip) {
            self.receive_packet(&Ipv4::parse(&whole).expect("it was put together so"));
        }
    }

    fn receive_dhcp(&mut self, ip: &Ipv4<'_>) {
        if ip.protocol != wire::PROTOCOL_UDP || ip.is_fragment() {
            return;
        }
        let Some(datagram) = wire::Udp::parse(ip.src, ip.dst, ip.payload()) else { return };
        if datagram.dst.port() == dhcp::SERVER_PORT {
            self.dhcp.message(&mut self.core.link, datagram.data);
        }
    }

    /// Takes a whole packet from a guest's own address.
    fn receive_packet(&mut self, ip: &Ipv4<'_>) {
        let broadcast = in_network(ip.dst) && matches!(ip.dst.octets()[3], 0 | 255);
        if broadcast || ip.dst.octets()[0] >= 224 {
            return;
        }
        match ip.protocol {
            wire::PROTOCOL_TCP => self.tcp.receive(&mut self.core, ip),
            wire::PROTOCOL_UDP => {
                let Some(datagram) = wire::Udp::parse(ip.src, ip.dst, ip.payload()) else { return };
                if ip.dst == GATEWAY && datagram.dst.port() == dhcp::SERVER_PORT {
                    self.dhcp.message(&mut self.core.link, datagram.data);
                } else {
                    self.udp.receive(&mut self.core, ip, &datagram);
                }
            }
            wire::PROTOCOL_ICMP => self.receive_icmp(ip),
            _ => self.core.refuse(wire::UNREACHABLE_PROTOCOL, ip.bytes),
        }
    }

    fn receive_icmp(&mut self, ip: &Ipv4<'_>) {
        let message = ip.payload();
        if message.len() < wire::ICMP || message[..2] != [wire::ICMP_ECHO, 0] || wire::checksum(message) != 0 {
            return;
        }
        if ip.dst == GATEWAY || ip.dst == NAMESERVER {
            let mut reply = message.to_vec();
            reply[0] = wire::ICMP_ECHO_REPLY;
            wire::seal_icmp(&mut reply);
            self.core.link.send_payload(ip.dst, ip.src, wire::PROTOCOL_ICMP, &reply);
        } else {
            self.udp.echo(&mut self.core, ip);
        }
    }

    /// A socket has become ready. One that is closed already is passed over.
    pub fn ready(&mut self, now: u64, id: SocketId, ready: Ready) {
        self.core.link.set_now(now);
        if !self.tcp.ready(&mut self.core, id, ready) && ready.read {
            self.udp.ready(&mut self.core, id);
        }
    }

    /// Something has come in at the forward with this index.
    pub fn forward_ready(&mut self, now: u64, forward: usize) {
        self.core.link.set_now(now);
        match self.core.config.forwards.get(forward).map(|f| f.protocol) {
            Some(Protocol::Tcp) => self.tcp.accept(&mut self.core, forward),
            Some(Protocol::Udp) => self.udp.forward_ready(&mut self.core, forward),
            None => {}
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: u64) {
        self.core.link.set_now(now);
        self.tcp.poll(&mut self.core);
        self.udp.poll(&mut self.core);
        self.go_on();
    }

    /// Lets those go on that waited for room.
    fn go_on(&mut self) {
        if self.core.link.queued() <= LOW {
            self.tcp.go_on(&mut self.core);
            self.udp.go_on(&mut self.core);
        }
    }

    /// When [`Network::poll`] is to be called next; none if only frames and sockets can bring something new.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.core.link.queued() <= LOW && (self.tcp.waits() || self.udp.waits()) {
            return Some(self.core.link.now());
        }
        [self.tcp.deadline(), self.udp.deadline()].into_iter().flatten().min()
    }

    /// The next frame for the guest.
    #[must_use]
    pub fn front(&self) -> Option<&[u8]> {
        self.core.link.front()
    }

    /// The guest has taken the frame that [`Network::front`] gave, so there is room for more.
    pub fn pop(&mut self, now: u64) {
        self.core.link.set_now(now);
        self.core.link.pop();
        self.go_on();
    }

    /// How much there is now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            received: self.received,
            dropped: self.core.link.dropped,
            connections: self.tcp.len(),
            flows: self.udp.len(),
            queued: self.core.link.queued(),
        }
    }

    /// The host's sockets.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.core.host
    }
}
