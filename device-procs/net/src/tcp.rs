//! TCP connections: smoltcp on the guest's side, a socket of the host on the other, and bytes between their buffers.
//!
//! A guest's SYN is answered once the host's connection is made, so that a refusal is a refusal. Each connection has an interface of smoltcp's
//! of its own, which sees no other packets than that connection's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddrV4;

use crate::conn::{Conn, Step};
use crate::host::{Host, Ready, SocketId};
use crate::wire::{ACK, IP, Ipv4, PROTOCOL_TCP, RST, SYN, Segment, UNREACHABLE_HOST};
use crate::{Core, GATEWAY, limits, wire};

/// How long the host may take to make a connection, in microseconds.
const CONNECT_TIME: u64 = 75_000_000;
/// The first port that stands for a peer whose own one is taken.
const FIRST_PORT: u16 = 49152;

/// Guest's end, other end as the guest sees it.
type Key = (SocketAddrV4, SocketAddrV4);

#[derive(Debug)]
enum Stage {
    /// The host is connecting; the guest's SYN waits.
    Connecting { syn: Vec<u8>, until: u64 },
    /// smoltcp speaks to the guest.
    Open(Box<Conn>),
    /// The guest has left in good order; the host takes the rest of what it sent.
    Draining { rest: Vec<u8>, at: usize },
}

#[derive(Debug)]
struct Flow {
    key: Key,
    stage: Stage,
    deadline: Option<u64>,
    /// It stands in `Tcp::waiting`.
    waits: bool,
    half_open: bool,
}

/// What is to become of a flow.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It waits for the guest, the host, or this time.
    Wait(Option<u64>),
    /// It has more to do than fits now.
    GoOn,
    /// It is over; true if the host's peer is to see a reset.
    Over(bool),
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    flows: BTreeMap<SocketId, Flow>,
    by_key: BTreeMap<Key, SocketId>,
    deadlines: BTreeSet<(u64, SocketId)>,
    /// Those that had more to do than there was room for.
    waiting: VecDeque<SocketId>,
    half_open: usize,
    /// Forwards where connections wait until there is room for them.
    held: BTreeSet<usize>,
}

impl Tcp {
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Do any wait for room?
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a packet of the guest.
    pub(crate) fn receive<H: Host>(&mut self, core: &mut Core<H>, ip: &Ipv4<'_>) {
        let Some(segment) = Segment::parse(ip.src, ip.dst, ip.payload()) else { return };
        let key = (SocketAddrV4::new(ip.src, segment.src), SocketAddrV4::new(ip.dst, segment.dst));
        let opens = segment.has(SYN) && !segment.has(ACK) && !segment.has(RST);
        let Some(&id) = self.by_key.get(&key) else {
            if opens {
                self.open(core, key, ip, &segment);
            } else {
                refuse(core, key, &segment);
            }
            return;
        };
        let flow = self.flows.get_mut(&id).expect("it is in the index");
        match &mut flow.stage {
            Stage::Connecting { .. } if segment.has(RST) => self.finish(core, id, true),
            Stage::Connecting { syn, .. } if opens => *syn = ip.bytes.to_vec(),
            Stage::Connecting { .. } => {}
            // The guest has begun anew with the same ports: the old connection is none any more.
            Stage::Open(conn) if opens && conn.is_stale(segment.seq) => {
                self.finish(core, id, true);
                self.open(core, key, ip, &segment);
            }
            Stage::Open(conn) => {
                conn.receive(&mut core.link, ip, &segment);
                self.run(core, id);
            }
            Stage::Draining { .. } => refuse(core, key, &segment),
        }
    }

    /// The guest wants a connection.
    fn open<H: Host>(&mut self, core: &mut Core<H>, key: Key, ip: &Ipv4<'_>, segment: &Segment) {
        if self.half_open >= limits::HALF_OPEN {
            return;
        }
        let outside = core.outside(key.1).filter(|_| self.flows.len() < limits::CONNECTIONS);
        let Some(outside) = outside else { return refuse(core, key, segment) };
        let id = core.new_id();
        match core.host.connect(id, outside) {
            Ok(made) => {
                let until = core.link.now() + CONNECT_TIME;
                self.add(id, key, Stage::Connecting { syn: ip.bytes.to_vec(), until });
                if made { self.connected(core, id) } else { self.set(id, Some(until)) }
            }
            Err(e) => {
                core.host.close(id, true);
                fail(core, key, ip.bytes, &e);
            }
        }
    }

    fn add(&mut self, id: SocketId, key: Key, stage: Stage) {
        self.by_key.insert(key, id);
        self.flows.insert(id, Flow { key, stage, deadline: None, waits: false, half_open: true });
        self.half_open += 1;
    }

    /// The host's connection is made: the guest gets its answer.
    fn connected<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        let seed = core.config.seed;
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Stage::Connecting { syn, .. } = &mut flow.stage else { return };
        let syn = std::mem::take(syn);
        let mut conn = Box::new(Conn::listen(seed ^ id.0, core.link.now(), flow.key.1));
        if let Some((ip, segment)) = parse(&syn) {
            conn.receive(&mut core.link, &ip, &segment);
        }
        flow.stage = Stage::Open(conn);
        self.run(core, id);
    }

    /// Takes connections that have come in for the guest.
    pub(crate) fn accept<H: Host>(&mut self, core: &mut Core<H>, forward: usize) {
        loop {
            if self.flows.len() >= limits::CONNECTIONS || self.half_open >= limits::HALF_OPEN {
                self.held.insert(forward);
                return;
            }
            let id = core.new_id();
            let guest = core.config.forwards[forward].to;
            match core.host.accept(forward, id) {
                Ok(peer) => {
                    let Some(other) = self.free_port(guest, Core::<H>::inside(peer)) else {
                        core.host.close(id, true);
                        continue;
                    };
                    let conn = Conn::connect(core.config.seed ^ id.0, core.link.now(), guest, other);
                    self.add(id, (guest, other), Stage::Open(Box::new(conn)));
                    self.run(core, id);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // The peer has gone again.
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                // No descriptor for it: once another connection has ended there is one.
                Err(_) => {
                    self.held.insert(forward);
                    return;
                }
            }
        }
    }

    /// The peer's address for the guest, with another port if this one is taken.
    fn free_port(&self, guest: SocketAddrV4, peer: SocketAddrV4) -> Option<SocketAddrV4> {
        let ports = std::iter::once(peer.port()).chain(FIRST_PORT..=u16::MAX);
        let all = ports.map(|port| SocketAddrV4::new(*peer.ip(), port));
        all.into_iter().find(|other| other.port() != 0 && !self.by_key.contains_key(&(guest, *other)))
    }

    /// A socket has become ready; false if it is none of these.
    pub(crate) fn ready<H: Host>(&mut self, core: &mut Core<H>, id: SocketId, ready: Ready) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        match &mut flow.stage {
            Stage::Connecting { syn, .. } => match core.host.connected(id) {
                Ok(()) => self.connected(core, id),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => {
                    let (key, syn) = (flow.key, std::mem::take(syn));
                    self.finish(core, id, true);
                    fail(core, key, &syn, &e);
                }
            },
            Stage::Open(conn) => {
                conn.host_ready(ready);
                self.run(core, id);
            }
            Stage::Draining { .. } => self.run(core, id),
        }
        true
    }

    /// Does what is due.
    pub(crate) fn poll<H: Host>(&mut self, core: &mut Core<H>) {
        let now = core.link.now();
        // What becomes due meanwhile waits for the next call.
        let due: Vec<SocketId> = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            match self.flows.get(&id).map(|f| &f.stage) {
                Some(Stage::Connecting { syn, until }) if *until <= now => {
                    let (key, syn) = (self.flows[&id].key, syn.clone());
                    self.finish(core, id, true);
                    fail(core, key, &syn, &ErrorKind::TimedOut.into());
                }
                _ => self.run(core, id),
            }
        }
    }

    /// There is room again: those that wait for it go on, each in its turn.
    pub(crate) fn go_on<H: Host>(&mut self, core: &mut Core<H>) {
        for _ in 0..self.waiting.len() {
            if !core.link.room() {
                break;
            }
            let Some(id) = self.waiting.pop_front() else { break };
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.waits = false;
                self.run(core, id);
            }
        }
    }

    /// Lets a flow do what it can.
    fn run<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let next = flow.run(core, id);
        if let Stage::Open(conn) = &flow.stage {
            if flow.half_open && conn.is_made() {
                flow.half_open = false;
                self.half_open -= 1;
            }
        }
        match next {
            Next::Wait(deadline) => self.set(id, deadline),
            Next::GoOn => {
                if !std::mem::replace(&mut flow.waits, true) {
                    self.waiting.push_back(id);
                }
                self.set(id, None);
            }
            Next::Over(abort) => self.finish(core, id, abort),
        }
    }

    /// Sets when a flow is to run again.
    fn set(&mut self, id: SocketId, deadline: Option<u64>) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.deadline == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut flow.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(deadline.map(|at| (at, id)));
    }

    /// Forgets a flow, and lets those in that waited for room.
    fn finish<H: Host>(&mut self, core: &mut Core<H>, id: SocketId, abort: bool) {
        self.set(id, None);
        let Some(flow) = self.flows.remove(&id) else { return };
        self.by_key.remove(&flow.key);
        self.half_open -= usize::from(flow.half_open);
        core.host.close(id, abort);
        for forward in std::mem::take(&mut self.held) {
            self.accept(core, forward);
        }
    }
}

impl Flow {
    fn run<H: Host>(&mut self, core: &mut Core<H>, id: SocketId) -> Next {
        let step = match &mut self.stage {
            Stage::Connecting { until, .. } => return Next::Wait(Some(*until)),
            Stage::Draining { rest, at } => return drain(&mut core.host, id, rest, at),
            Stage::Open(conn) => conn.run(&mut core.link, &mut core.host, id),
        };
        match step {
            Step::Wait(deadline) => Next::Wait(deadline),
            Step::GoOn => Next::GoOn,
            Step::Over => Next::Over(true),
            Step::Left(rest) => {
                self.stage = Stage::Draining { rest, at: 0 };
                self.run(core, id)
            }
        }
    }
}

/// Gives the host the last bytes of a guest that has left.
fn drain<H: Host>(host: &mut H, id: SocketId, rest: &[u8], at: &mut usize) -> Next {
    while *at < rest.len() {
        match host.write(id, &rest[*at..]) {
            Ok(n) if n > 0 => *at += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Next::Over(true),
            _ => return Next::Wait(None),
        }
    }
    Next::Over(false)
}

fn parse(packet: &[u8]) -> Option<(Ipv4<'_>, Segment)> {
    let ip = Ipv4::parse(packet)?;
    Some((ip, Segment::read(ip.payload())?))
}

/// Answers a segment that belongs to no connection.
fn refuse<H: Host>(core: &mut Core<H>, key: Key, segment: &Segment) {
    if segment.has(RST) {
        return;
    }
    let bytes = wire::reset(segment);
    core.link.send(IP + bytes.len(), |packet| {
        packet[IP..].copy_from_slice(&bytes);
        wire::write_ipv4(packet, *key.1.ip(), *key.0.ip(), PROTOCOL_TCP, 0, 0x4000);
        wire::seal_tcp(packet);
    });
}

/// Tells the guest why its connection was not made.
fn fail<H: Host>(core: &mut Core<H>, key: Key, syn: &[u8], error: &io::Error) {
    let unreachable =
        matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::TimedOut);
    match parse(syn) {
        // The gateway itself is always there.
        Some(_) if unreachable && *key.1.ip() != GATEWAY => core.refuse(UNREACHABLE_HOST, syn),
        Some((_, segment)) => refuse(core, key, &segment),
        None => {}
    }
}
