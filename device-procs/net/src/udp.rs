//! UDP, and ICMP echo to other hosts: a connected socket of the host for each pair of ends, so that only the guest's own peers can answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddrV4;

use crate::host::{Host, SocketId};
use crate::wire::{
    self, ICMP, ICMP_ECHO_REPLY, Ipv4, PROTOCOL_ICMP, PROTOCOL_UDP, UNREACHABLE_HOST, UNREACHABLE_PORT,
    UNREACHABLE_PROHIBITED, Udp as Datagram,
};
use crate::{Core, DNS_PORT, NAMESERVER, dns, limits};

/// How long a flow lives after its last datagram, in microseconds.
const DATAGRAM_TIME: u64 = 120_000_000;
const ECHO_TIME: u64 = 10_000_000;
/// How long an answer of the name server may take, in microseconds.
const DNS_TIME: u64 = 5_000_000;
/// Datagrams that a flow passes on in one turn.
const TURN: usize = 32;
/// The largest datagram.
const LARGEST: usize = 65535;
/// Bytes of a packet that are kept to say that it did not arrive: the longest header and eight bytes.
const HEAD: usize = 68;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Datagrams,
    /// To the name server.
    Names,
    /// ICMP echo; the guest's port is the identifier.
    Echo,
}

impl Kind {
    fn lives(self) -> u64 {
        match self {
            Self::Datagrams => DATAGRAM_TIME,
            Self::Names => DNS_TIME,
            Self::Echo => ECHO_TIME,
        }
    }
}

/// Guest's end, other end as the guest sees it.
type Ends = (SocketAddrV4, SocketAddrV4);
type Key = (Kind, Ends);

#[derive(Debug)]
struct Flow {
    key: Key,
    /// The head of the packet that was sent last.
    head: Vec<u8>,
    /// Queries without an answer: number, and what is said if none comes.
    queries: VecDeque<(u16, Vec<u8>)>,
    ends: u64,
    /// It stands in `Udp::waiting`.
    waits: bool,
}

/// A peer that has sent something to a forward.
#[derive(Debug)]
struct Peer {
    forward: usize,
    at: SocketAddrV4,
    ends: u64,
}

/// All flows.
#[derive(Default)]
pub(crate) struct Udp {
    flows: BTreeMap<SocketId, Flow>,
    by_key: BTreeMap<Key, SocketId>,
    ends: BTreeSet<(u64, SocketId)>,
    waiting: VecDeque<SocketId>,
    names: usize,
    peers: BTreeMap<Ends, Peer>,
    peer_ends: BTreeSet<(u64, Ends)>,
    /// Forwards that had more than there was room for.
    held: BTreeSet<usize>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Udp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Udp").field("flows", &self.flows).field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl Udp {
    pub(crate) fn len(&self) -> usize {
        self.flows.len() + self.peers.len()
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        let flows = self.ends.first().map(|(at, _)| *at);
        let peers = self.peer_ends.first().map(|(at, _)| *at);
        flows.into_iter().chain(peers).min()
    }

    /// Do any wait for room?
    pub(crate) fn waits(&self) -> bool {
        !(self.waiting.is_empty() && self.held.is_empty())
    }

    /// Takes a datagram of the guest.
    pub(crate) fn receive<H: Host>(&mut self, core: &mut Core<H>, ip: &Ipv4<'_>, datagram: &Datagram<'_>) {
        let ends = (datagram.src, datagram.dst);
        if let Some(peer) = self.peers.get(&ends) {
            let (forward, at) = (peer.forward, peer.at);
            // What can't be sent now is lost, as on any network.
            let _ = core.host.send_to(forward, datagram.data, at);
            self.note_peer(core.link.now(), ends, forward, at);
            return;
        }
        let names = *datagram.dst.ip() == NAMESERVER && datagram.dst.port() == DNS_PORT;
        let kind = if names { Kind::Names } else { Kind::Datagrams };
        let Some(id) = self.find(core, (kind, ends), ip) else {
            if let Some(failure) = dns::failure(datagram.data).filter(|_| names) {
                send(core, (kind, ends), &failure);
            }
            return;
        };
        if names {
            self.remember(id, datagram.data);
        }
        self.send(core, id, datagram.data);
    }

    /// Takes an ICMP echo request to another host.
    pub(crate) fn echo<H: Host>(&mut self, core: &mut Core<H>, ip: &Ipv4<'_>) {
        let message = ip.payload();
        let ends = (SocketAddrV4::new(ip.src, wire::be16(message, 4)), SocketAddrV4::new(ip.dst, 0));
        if let Some(id) = self.find(core, (Kind::Echo, ends), ip) {
            self.send(core, id, message);
        }
    }

    /// The flow for a packet; none if it may not be, or can't, which the guest is told (but for the name server's).
    fn find<H: Host>(&mut self, core: &mut Core<H>, key: Key, ip: &Ipv4<'_>) -> Option<SocketId> {
        let head = &ip.bytes[..ip.bytes.len().min(HEAD)];
        if let Some(&id) = self.by_key.get(&key) {
            let flow = self.flows.get_mut(&id).expect("it is in the index");
            flow.head.clear();
            flow.head.extend_from_slice(head);
            self.touch(core.link.now(), id);
            return Some(id);
        }
        let (kind, (_, to)) = key;
        let Some(outside) = core.outside(to) else {
            match kind {
                Kind::Names => {}
                _ if *to.ip() == NAMESERVER => core.refuse(UNREACHABLE_PORT, head),
                _ => core.refuse(UNREACHABLE_PROHIBITED, head),
            }
            return None;
        };
        if kind == Kind::Names && self.names >= limits::DNS_FLOWS {
            return None;
        }
        if self.flows.len() >= limits::UDP_FLOWS {
            let (_, oldest) = *self.ends.first().expect("each flow has an end");
            self.finish(core, oldest);
        }
        let id = core.new_id();
        let opened = match kind {
            Kind::Echo => core.host.open_echo(id, *outside.ip()),
            _ => core.host.open_datagrams(id, outside),
        };
        if opened.is_err() {
            core.host.close(id, false);
            if kind != Kind::Names {
                core.refuse(UNREACHABLE_HOST, head);
            }
            return None;
        }
        self.names += usize::from(kind == Kind::Names);
        self.by_key.insert(key, id);
        let flow = Flow { key, head: head.to_vec(), queries: VecDeque::new(), ends: 0, waits: false };
        self.flows.insert(id, flow);
        self.touch(core.link.now(), id);
        Some(id)
    }

    /// A flow was used: it lives on.
    fn touch(&mut self, now: u64, id: SocketId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        self.ends.remove(&(flow.ends, id));
        flow.ends = now + flow.key.0.lives();
        self.ends.insert((flow.ends, id));
    }

    /// Remembers a query until it is answered.
    fn remember(&mut self, id: SocketId, query: &[u8]) {
        let (Some(flow), Some(number)) = (self.flows.get_mut(&id), dns::number(query)) else { return };
        flow.queries.retain(|(n, _)| *n != number);
        if flow.queries.len() >= limits::DNS_PENDING {
            flow.queries.pop_front();
        }
        flow.queries.extend(dns::failure(query).map(|failure| (number, failure)));
    }

    fn send<H: Host>(&mut self, core: &mut Core<H>, id: SocketId, data: &[u8]) {
        // The first error may be of a datagram before this one.
        for _ in 0..2 {
            match core.host.write(id, data) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => self.refused(core, id, UNREACHABLE_PORT),
                // What can't be sent now is lost, as on any network.
                _ => break,
            }
        }
    }

    /// Nobody is there: the guest is told.
    fn refused<H: Host>(&mut self, core: &mut Core<H>, id: SocketId, code: u8) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.key.0 == Kind::Names {
            for (_, failure) in std::mem::take(&mut flow.queries) {
                send(core, flow.key, &failure);
            }
        } else if !flow.head.is_empty() {
            // Once for each packet.
            core.refuse(code, &std::mem::take(&mut flow.head));
        }
    }

    /// A socket has become ready to read.
    pub(crate) fn ready<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        if self.flows.contains_key(&id) {
            self.run(core, id);
        }
    }

    fn run<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        let mut buffer = self.take_buffer();
        let mut turn = 0;
        while turn < TURN && core.link.room() {
            turn += 1;
            match core.host.read(id, &mut buffer) {
                Ok(n) => self.arrived(core, id, &mut buffer[..n]),
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionRefused => self.refused(core, id, UNREACHABLE_PORT),
                    ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                        self.refused(core, id, UNREACHABLE_HOST);
                    }
                    _ => {
                        self.buffer = buffer;
                        return;
                    }
                },
            }
        }
        self.buffer = buffer;
        if let Some(flow) = self.flows.get_mut(&id).filter(|f| !f.waits) {
            flow.waits = true;
            self.waiting.push_back(id);
        }
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(LARGEST, 0);
        buffer
    }

    /// Passes on what has come for the guest.
    fn arrived<H: Host>(&mut self, core: &mut Core<H>, id: SocketId, data: &mut [u8]) {
        self.touch(core.link.now(), id);
        let Some(flow) = self.flows.get_mut(&id) else { return };
        match flow.key.0 {
            Kind::Datagrams => {}
            Kind::Names => {
                if let Some(number) = dns::number(data) {
                    flow.queries.retain(|(n, _)| *n != number);
                }
            }
            Kind::Echo => {
                if data.len() < ICMP || data[0] != ICMP_ECHO_REPLY {
                    return;
                }
                // The host's socket has an identifier of its own.
                data[4..6].copy_from_slice(&flow.key.1.0.port().to_be_bytes());
                wire::seal_icmp(data);
            }
        }
        send(core, flow.key, data);
    }

    /// Something has come in at a forward.
    pub(crate) fn forward_ready<H: Host>(&mut self, core: &mut Core<H>, forward: usize) {
        let mut buffer = self.take_buffer();
        let mut turn = 0;
        let mut more = true;
        while more && turn < TURN && core.link.room() {
            turn += 1;
            match core.host.receive_from(forward, &mut buffer) {
                Ok((n, peer)) => {
                    let ends = (core.config.forwards[forward].to, Core::<H>::inside(peer));
                    self.note_peer(core.link.now(), ends, forward, peer);
                    send(core, (Kind::Datagrams, ends), &buffer[..n]);
                }
                // An answer of the guest met nobody.
                Err(e) => more = matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused),
            }
        }
        self.buffer = buffer;
        if more {
            self.held.insert(forward);
        }
    }

    /// Notes whom the guest's answers are for.
    fn note_peer(&mut self, now: u64, ends: Ends, forward: usize, at: SocketAddrV4) {
        let peer = Peer { forward, at, ends: now + DATAGRAM_TIME };
        self.peer_ends.insert((peer.ends, ends));
        if let Some(old) = self.peers.insert(ends, peer) {
            if old.ends != now + DATAGRAM_TIME {
                self.peer_ends.remove(&(old.ends, ends));
            }
        } else if self.peers.len() > limits::FORWARD_PEERS {
            if let Some((_, oldest)) = self.peer_ends.pop_first() {
                self.peers.remove(&oldest);
            }
        }
    }

    /// There is room again: those that wait for it go on, each in its turn.
    pub(crate) fn go_on<H: Host>(&mut self, core: &mut Core<H>) {
        for _ in 0..self.waiting.len() {
            if !core.link.room() {
                return;
            }
            let Some(id) = self.waiting.pop_front() else { break };
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.waits = false;
                self.run(core, id);
            }
        }
        for forward in std::mem::take(&mut self.held) {
            self.forward_ready(core, forward);
        }
    }

    /// Does what is due.
    pub(crate) fn poll<H: Host>(&mut self, core: &mut Core<H>) {
        let now = core.link.now();
        while let Some(&(at, id)) = self.ends.first() {
            if at > now {
                break;
            }
            // Queries that nobody has answered.
            self.refused_names(core, id);
            self.finish(core, id);
        }
        while let Some(&(at, ends)) = self.peer_ends.first() {
            if at > now {
                break;
            }
            self.peer_ends.pop_first();
            self.peers.remove(&ends);
        }
    }

    fn refused_names<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        if self.flows.get(&id).is_some_and(|f| f.key.0 == Kind::Names) {
            self.refused(core, id, UNREACHABLE_PORT);
        }
    }

    fn finish<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        let Some(flow) = self.flows.remove(&id) else { return };
        self.by_key.remove(&flow.key);
        self.ends.remove(&(flow.ends, id));
        self.names -= usize::from(flow.key.0 == Kind::Names);
        core.host.close(id, false);
    }
}

/// Sends a datagram to the guest.
fn send<H: Host>(core: &mut Core<H>, (kind, (guest, other)): Key, data: &[u8]) {
    match kind {
        Kind::Echo => core.link.send_payload(*other.ip(), *guest.ip(), PROTOCOL_ICMP, data),
        // A datagram that fits into no IPv4 packet came from nowhere.
        _ if data.len() > LARGEST - wire::IP - wire::UDP => {}
        _ => core.link.send_payload(*other.ip(), *guest.ip(), PROTOCOL_UDP, &wire::udp(other, guest, data)),
    }
}
