//! One TCP connection with the guest, spoken by smoltcp.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::net::SocketAddrV4;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::host::{Host, Ready, SocketId};
use crate::limits;
use crate::link::Link;
use crate::wire::{self, ACK, FIN, IP, Ipv4, MTU, PSH, RST, SYN, Segment};

/// Segments that a connection sends in one turn.
const TURN: usize = 64;
/// How long the guest may take while the connection is made.
const HANDSHAKE_TIME: Duration = Duration::from_secs(75);
/// How long the guest may be silent when it has been asked, in microseconds.
const SILENCE: u64 = 15 * 60 * 1_000_000;
/// When the guest is asked whether it is there, in microseconds: its window is closed, or all is quiet.
const ASK_BLOCKED: u64 = 1_000_000;
const ASK_IDLE: u64 = 10 * 60 * 1_000_000;
/// When smoltcp is made to send again what the guest has not acknowledged, in microseconds. In some states it forgets its own timer.
const RESEND: u64 = 3_000_000;
/// smoltcp says "now" where nothing can be done now; then it is asked again after so many microseconds.
const PAUSE: u64 = 1000;
/// In TIME-WAIT nothing but its own end is left to do once that is further away than this, in microseconds.
const NEARLY_CLOSED: u64 = 1_000_000;

/// What is to become of a connection.
#[derive(Debug)]
pub(crate) enum Step {
    /// It waits for the guest, the host, or this time.
    Wait(Option<u64>),
    /// It has more to send than fits now.
    GoOn,
    /// It was broken off by one side.
    Over,
    /// Both sides have ended; these bytes are still for the host.
    Left(Vec<u8>),
}

/// One connection.
pub(crate) struct Conn {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: WireState,
    /// The guest's first sequence number, if it made the connection.
    first: Option<u32>,
    /// It was made.
    made: bool,
    /// The guest has said that it sends no more.
    guest_ended: bool,
    /// The host sends no more.
    host_ended: bool,
    /// The host has been told that the guest sends no more.
    told_host: bool,
    /// What the host's socket was last known to be ready for.
    host: Ready,
    /// Guest's end, other end.
    ends: Option<(SocketAddrV4, SocketAddrV4)>,
    /// When the guest was last heard of, when it last acknowledged anything new, and when it was last asked or sent something again.
    heard: u64,
    progress: u64,
    asked: u64,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.sockets.get::<Socket<'_>>(self.handle).state();
        f.debug_struct("Conn").field("state", &state).field("host", &self.host).finish_non_exhaustive()
    }
}

/// What is known of segments that went by.
#[derive(Debug, Default)]
struct WireState {
    /// What was last acknowledged to the guest, and the window that it was offered. smoltcp counts on nobody going beyond it.
    offer: Option<(u32, u16)>,
    /// What the guest has acknowledged, and where what was sent to it ends.
    flying: Option<(u32, u32)>,
    /// The window that the guest offers, as it stands in its segments.
    window: u16,
    /// There was no room for a segment.
    starved: bool,
}

/// smoltcp's view of the wire: at most one packet from the guest, and so many to it.
struct Wire<'a> {
    packet: Option<&'a [u8]>,
    link: &'a mut Link,
    state: &'a mut WireState,
    budget: usize,
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Rx<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Tx<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        let packet = self.packet.take()?;
        Some((Rx(packet), Tx { link: self.link, state: self.state }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        if self.budget == 0 || !self.link.room() {
            self.state.starved = true;
            return None;
        }
        self.budget -= 1;
        Some(Tx { link: self.link, state: self.state })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // Checked and made here.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct Rx<'a>(&'a [u8]);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Tx<'a> {
    link: &'a mut Link,
    state: &'a mut WireState,
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let state = self.state;
        self.link.send(len, |packet| {
            let result = f(packet);
            wire::seal_ipv4(packet);
            wire::seal_tcp(packet);
            if let Some(segment) = Segment::read(&packet[IP..]) {
                state.sends(&segment);
            }
            result
        })
    }
}

impl WireState {
    /// Notes a segment to the guest.
    fn sends(&mut self, segment: &Segment) {
        let controls = u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
        let end = segment.seq.wrapping_add(segment.len as u32).wrapping_add(controls);
        if segment.has(RST) {
            return;
        }
        if segment.has(ACK) {
            self.offer = Some((segment.ack, segment.window));
        }
        let (_, sent) = self.flying.get_or_insert((segment.seq, end));
        if is_before(*sent, end) {
            *sent = end;
        }
    }

    /// Notes a segment of the guest; true if it acknowledges anything new.
    fn receives(&mut self, segment: &Segment) -> bool {
        let Some((acked, sent)) = self.flying.as_mut().filter(|_| segment.has(ACK)) else { return false };
        self.window = segment.window;
        let new = is_before(*acked, segment.ack) && !is_before(*sent, segment.ack);
        if new {
            *acked = segment.ack;
        }
        new
    }

    fn is_flying(&self) -> bool {
        self.flying.is_some_and(|(acked, sent)| acked != sent)
    }

    /// The packet without what the guest may not send yet.
    fn within_window<'a>(&self, ip: &Ipv4<'a>, segment: &Segment) -> Cow<'a, [u8]> {
        let edge = self.offer.map(|(acked, window)| acked.wrapping_add(window.into()));
        let room = edge.map_or(0, |edge| edge.wrapping_sub(segment.seq) as i32).max(0) as usize;
        if segment.len <= room {
            return Cow::Borrowed(ip.bytes);
        }
        let len = ip.header + segment.header + room;
        let mut packet = ip.bytes[..len].to_vec();
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[ip.header + 13] &= !(FIN | PSH);
        Cow::Owned(packet)
    }
}

/// The order of sequence numbers (RFC 9293 3.4).
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(now as i64)
}

fn endpoint(at: SocketAddrV4) -> IpEndpoint {
    IpEndpoint::new((*at.ip()).into(), at.port())
}

impl Conn {
    /// For a connection that the guest makes to `other`: the SYN comes next.
    pub(crate) fn listen(seed: u64, now: u64, other: SocketAddrV4) -> Self {
        let mut conn = Self::new(seed, now, other);
        let at = endpoint(other);
        let listens = conn.socket().listen(IpListenEndpoint { addr: Some(at.addr), port: at.port });
        listens.expect("the socket is new, and a segment's port is not 0");
        conn
    }

    /// Makes a connection to the guest, from `other`.
    pub(crate) fn connect(seed: u64, now: u64, guest: SocketAddrV4, other: SocketAddrV4) -> Self {
        let mut conn = Self::new(seed, now, other);
        let socket = conn.sockets.get_mut::<Socket<'_>>(conn.handle);
        let connects = socket.connect(conn.interface.context(), endpoint(guest), endpoint(other));
        connects.expect("the socket is new, and no address or port is 0");
        conn
    }

    fn new(seed: u64, now: u64, other: SocketAddrV4) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now;
        let mut nowhere = Link::default();
        let mut wire = Wire { packet: None, link: &mut nowhere, state: &mut WireState::default(), budget: 0 };
        let mut interface = Interface::new(config, &mut wire, instant(now));
        // Everybody is in reach: there is only the guest.
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new((*other.ip()).into(), 0)).expect("there is room for one");
        });
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(limits::TO_HOST), buffer(limits::TO_GUEST));
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(HANDSHAKE_TIME));
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let host = Ready { read: true, write: true };
        Self {
            interface,
            sockets,
            handle,
            wire: WireState::default(),
            first: None,
            made: false,
            guest_ended: false,
            host_ended: false,
            told_host: false,
            host,
            ends: None,
            heard: now,
            progress: now,
            asked: now,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Was it made?
    pub(crate) fn is_made(&self) -> bool {
        self.made
    }

    /// Does a SYN with this sequence number begin another connection?
    pub(crate) fn is_stale(&self, seq: u32) -> bool {
        self.first.is_some_and(|first| first != seq) || (self.first.is_none() && self.made)
    }

    /// The host's socket has become ready.
    pub(crate) fn host_ready(&mut self, ready: Ready) {
        self.host.read |= ready.read;
        self.host.write |= ready.write;
    }

    /// Takes a packet of the guest; [`Conn::run`] follows.
    pub(crate) fn receive(&mut self, link: &mut Link, ip: &Ipv4<'_>, segment: &Segment) {
        let opens = segment.has(SYN) && !segment.has(ACK);
        if opens && self.socket().state() == State::Listen {
            self.first = Some(segment.seq);
        }
        let now = link.now();
        let at = |ip, port| SocketAddrV4::new(ip, port);
        self.ends = Some((at(ip.src, segment.src), at(ip.dst, segment.dst)));
        self.heard = now;
        if self.wire.receives(segment) {
            self.progress = now;
        }
        let packet = self.wire.within_window(ip, segment);
        self.hand_over(link, &packet);
    }

    /// Gives smoltcp a packet.
    fn hand_over(&mut self, link: &mut Link, packet: &[u8]) {
        let now = instant(link.now());
        let mut wire = Wire { packet: Some(packet), link, state: &mut self.wire, budget: 0 };
        self.interface.poll_ingress_single(now, &mut wire, &mut self.sockets);
    }

    /// Sends and passes on what can be.
    pub(crate) fn run<H: Host>(&mut self, link: &mut Link, host: &mut H, id: SocketId) -> Step {
        let mut budget = TURN;
        let flew = self.wire.is_flying();
        self.ask(link);
        loop {
            let sent = self.send(link, &mut budget);
            self.note_state();
            let moved = match self.made {
                true => self.give_host(host, id) | self.take_from_host(host, id),
                false => false,
            };
            if self.wire.starved || !(sent || moved) {
                break;
            }
        }
        if !flew {
            self.progress = link.now();
        }
        self.outcome(link)
    }

    /// When a silent guest is to be asked whether it is there, or what it has not acknowledged is to be sent again.
    fn ask_at(&self) -> Option<u64> {
        let socket = self.sockets.get::<Socket<'_>>(self.handle);
        if !self.made || matches!(socket.state(), State::Closed | State::TimeWait) {
            return None;
        }
        Some(if self.wire.is_flying() {
            self.progress.max(self.asked) + RESEND
        } else if socket.send_queue() > 0 {
            self.asked.max(self.progress) + ASK_BLOCKED
        } else {
            self.heard.max(self.asked) + ASK_IDLE
        })
    }

    /// Asks a silent guest whether it is there, or sends again what it has not acknowledged.
    fn ask(&mut self, link: &mut Link) {
        let now = link.now();
        let Some((guest, other)) = self.ends.filter(|_| self.ask_at().is_some_and(|at| at <= now)) else { return };
        let (Some((acked, _)), Some((ack, window))) = (self.wire.flying, self.wire.offer) else { return };
        if now >= self.heard + SILENCE {
            return self.break_off();
        }
        self.asked = now;
        if self.wire.is_flying() {
            // Three repeated acknowledgements, after two that begin the count anew, make it send again (RFC 5681 3.2).
            for n in 0..5 {
                let window = if n == 0 { self.wire.window ^ 1 } else { self.wire.window };
                self.hand_over(link, &wire::acknowledgement(guest, other, ack, acked, window));
            }
        } else {
            // As Linux asks: with a number that was acknowledged, and nothing.
            let packet = wire::acknowledgement(other, guest, acked.wrapping_sub(1), ack, window);
            link.send(packet.len(), |room| room.copy_from_slice(&packet));
        }
    }

    /// Lets smoltcp send; true if it sent anything.
    fn send(&mut self, link: &mut Link, budget: &mut usize) -> bool {
        let now = instant(link.now());
        let mut wire = Wire { packet: None, link, state: &mut self.wire, budget: *budget };
        wire.state.starved = false;
        let mut sent = false;
        while self.interface.poll_egress(now, &mut wire, &mut self.sockets) == PollResult::SocketStateChanged {
            sent = true;
        }
        *budget = wire.budget;
        sent
    }

    /// Notes what the states that smoltcp went through say.
    fn note_state(&mut self) {
        let state = self.socket().state();
        let open = !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived);
        if open && !self.made {
            self.made = true;
            // smoltcp would count the time in which there was nothing to say.
            self.socket().set_timeout(None);
        }
        self.guest_ended |= matches!(state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
    }

    /// Passes on what the guest has sent; true if anything was.
    fn give_host<H: Host>(&mut self, host: &mut H, id: SocketId) -> bool {
        let mut moved = false;
        while self.host.write && self.socket().can_recv() {
            let result = self.socket().recv(|bytes| match host.write(id, bytes) {
                Ok(n) => (n, Ok(n)),
                Err(e) => (0, Err(e.kind())),
            });
            match result.expect("there is something to receive") {
                Ok(n) if n > 0 => moved = true,
                Err(ErrorKind::Interrupted) => {}
                Ok(_) | Err(ErrorKind::WouldBlock) => self.host.write = false,
                // Nobody takes it any more.
                Err(_) => {
                    self.break_off();
                    return true;
                }
            }
        }
        if self.guest_ended && !self.told_host && !self.socket().can_recv() {
            self.told_host = true;
            host.shutdown(id);
        }
        moved
    }

    /// Takes what the host has for the guest; true if anything was.
    fn take_from_host<H: Host>(&mut self, host: &mut H, id: SocketId) -> bool {
        let mut moved = false;
        while self.host.read && !self.host_ended && self.socket().can_send() {
            let result = self.socket().send(|room| match host.read(id, room) {
                Ok(n) => (n, Ok(n)),
                Err(e) => (0, Err(e.kind())),
            });
            match result.expect("there is room to send") {
                Ok(0) => {
                    self.host_ended = true;
                    self.socket().close();
                    moved = true;
                }
                Ok(_) => moved = true,
                Err(ErrorKind::Interrupted) => {}
                Err(ErrorKind::WouldBlock) => self.host.read = false,
                Err(_) => {
                    self.break_off();
                    return true;
                }
            }
        }
        moved
    }

    /// The host's peer is gone: the guest gets a reset.
    fn break_off(&mut self) {
        self.socket().abort();
        (self.host, self.host_ended) = (Ready::default(), false);
    }

    fn outcome(&mut self, link: &Link) -> Step {
        let now = link.now();
        let deadline = self.interface.poll_at(instant(now), &self.sockets).map(|at| at.total_micros() as u64);
        if self.wire.starved {
            return Step::GoOn;
        }
        match self.socket().state() {
            // smoltcp goes back to listening when the guest resets a connection that was not made yet.
            State::Listen => Step::Over,
            State::Closed if deadline.is_none() => self.end(),
            State::TimeWait if deadline.is_none_or(|at| at > now + NEARLY_CLOSED) => self.end(),
            _ => Step::Wait(deadline.into_iter().chain(self.ask_at()).min().map(|at| at.max(now + PAUSE))),
        }
    }

    /// smoltcp has no more to say.
    fn end(&mut self) -> Step {
        if !(self.guest_ended && self.host_ended) {
            return Step::Over;
        }
        let mut rest = vec![0; self.socket().recv_queue()];
        let len = self.socket().recv_slice(&mut rest).unwrap_or(0);
        rest.truncate(len);
        Step::Left(rest)
    }
}
