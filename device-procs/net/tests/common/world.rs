//! A guest, the network and a host under one simulated clock.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_net::{Config, FIRST_GUEST, GATEWAY, Network};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::host::Memory;

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// A network card: frames that came, frames to send.
#[derive(Debug, Default)]
pub(crate) struct Card {
    pub(crate) rx: VecDeque<Vec<u8>>,
    pub(crate) tx: VecDeque<Vec<u8>>,
}

impl Device for Card {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Rx(frame), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub(crate) struct Rx(Vec<u8>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

/// What may go wrong on the wire, in per cent of frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    /// Frames that come late, by up to 5 ms.
    pub(crate) late: u32,
}

/// A wire with faults.
struct Wire {
    faults: Faults,
    rng: SmallRng,
    /// Late frames, with the time of their arrival.
    late: Vec<(u64, Vec<u8>)>,
}

impl Wire {
    fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, rng: SmallRng::seed_from_u64(seed), late: Vec::new() }
    }

    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }

    /// What arrives now if this frame is sent.
    fn pass(&mut self, now: u64, frame: &[u8], mut arrives: impl FnMut(&[u8])) {
        let copies = if self.chance(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(self.faults.lost) {
                continue;
            }
            if self.chance(self.faults.late) {
                let delay = self.rng.random_range(0..5000);
                self.late.push((now + delay, frame.to_vec()));
            } else {
                arrives(frame);
            }
        }
    }

    /// What was late and arrives by now.
    fn arrived(&mut self, now: u64) -> Vec<Vec<u8>> {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        let mut due: Vec<(u64, Vec<u8>)> = due;
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, frame)| frame).collect()
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) net: Network<Memory>,
    pub(crate) host: Memory,
    pub(crate) card: Card,
    pub(crate) guest: Interface,
    pub(crate) sockets: SocketSet<'static>,
    /// Frames that the guest's card takes before it has been looked at.
    pub(crate) card_room: usize,
    to_guest: Wire,
    from_guest: Wire,
    /// The frames that went to the guest, if they are wanted.
    pub(crate) trace: Option<Vec<Vec<u8>>>,
}

impl World {
    pub(crate) fn new(config: Config, host: Memory) -> Self {
        Self::with_faults(config, host, Faults::default(), 0)
    }

    pub(crate) fn with_faults(config: Config, host: Memory, faults: Faults, seed: u64) -> Self {
        host.state().forwards.resize_with(config.forwards.len(), Default::default);
        let mut card = Card::default();
        let mut of_guest = smoltcp::iface::Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        of_guest.random_seed = seed ^ 77;
        let guest = Interface::new(of_guest, &mut card, Instant::ZERO);
        Self {
            now: 0,
            net: Network::new(config, host.clone()).unwrap(),
            host,
            card,
            guest,
            sockets: SocketSet::new(Vec::new()),
            card_room: usize::MAX,
            to_guest: Wire::new(faults, seed),
            from_guest: Wire::new(faults, seed ^ 0x5555),
            trace: None,
        }
    }

    /// The guest has its usual address, as if it were configured by hand.
    pub(crate) fn configure(&mut self) {
        self.guest.update_ip_addrs(|list| list.push(IpCidr::new(FIRST_GUEST.into(), 24)).unwrap());
        self.guest.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::from_micros(self.now as i64)
    }

    /// A frame of the guest, past its stack.
    pub(crate) fn send_raw(&mut self, frame: &[u8]) {
        self.net.receive(self.now, frame);
    }

    /// Lets everything happen that can happen now; true if anything did.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        let now = self.now;
        while self.guest.poll(self.instant(), &mut self.card, &mut self.sockets)
            == smoltcp::iface::PollResult::SocketStateChanged
        {
            moved = true;
        }
        for frame in self.from_guest.arrived(now) {
            self.net.receive(now, &frame);
        }
        while let Some(frame) = self.card.tx.pop_front() {
            moved = true;
            let net = &mut self.net;
            self.from_guest.pass(now, &frame, |frame| net.receive(now, frame));
        }
        for (id, ready) in self.host.take_events() {
            self.net.ready(now, id, ready);
            moved = true;
        }
        let forwards = std::mem::take(&mut self.host.state().forward_events);
        for forward in forwards {
            self.net.forward_ready(now, forward);
            moved = true;
        }
        if self.net.deadline().is_some_and(|at| at <= now) {
            self.net.poll(now);
            moved = true;
        }
        moved | self.deliver()
    }

    fn deliver(&mut self) -> bool {
        let mut moved = false;
        for frame in self.to_guest.arrived(self.now) {
            self.card.rx.push_back(frame);
            moved = true;
        }
        while self.card.rx.len() < self.card_room {
            let Some(frame) = self.net.front() else { break };
            assert!((60..=1514).contains(&frame.len()), "a frame of {} bytes", frame.len());
            if let Some(trace) = &mut self.trace {
                trace.push(frame.to_vec());
            }
            let card = &mut self.card;
            self.to_guest.pass(self.now, frame, |frame| card.rx.push_back(frame.to_vec()));
            self.net.pop(self.now);
            moved = true;
        }
        moved
    }

    /// Lets the clock go on to the next thing that will happen.
    pub(crate) fn sleep(&mut self, limit: u64) {
        let guest = self.guest.poll_at(self.instant(), &self.sockets).map(|at| at.total_micros() as u64);
        let late = self.to_guest.late.iter().chain(&self.from_guest.late).map(|(at, _)| *at).min();
        let next = [guest, self.net.deadline(), late].into_iter().flatten().min();
        self.now = next.unwrap_or(limit).min(limit).max(self.now + 1);
    }

    /// Runs until `done`, at most for so many simulated seconds.
    pub(crate) fn until(&mut self, seconds: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = self.now + seconds * 1_000_000;
        while !done(self) {
            assert!(self.now < limit, "it did not come about in {seconds} s: {:?} {:?}", self.net, self.sockets);
            if !self.step() {
                self.sleep(limit);
            }
        }
    }

    /// Runs for a simulated time.
    pub(crate) fn run_for(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            if !self.step() {
                self.sleep(end);
            }
        }
    }

    /// A TCP socket in the guest.
    pub(crate) fn tcp(&mut self) -> SocketHandle {
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(65536), buffer(65536));
        socket.set_congestion_control(smoltcp::socket::tcp::CongestionControl::None);
        self.sockets.add(socket)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// The guest connects.
    pub(crate) fn connect(&mut self, to: (Ipv4Addr, u16), from: u16) -> SocketHandle {
        let handle = self.tcp();
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.guest.context(), to, from).unwrap();
        handle
    }
}
