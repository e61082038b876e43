//! A guest, and peers on the host's side, whose every step comes from given bytes: from seeds in a test, from a fuzzer in `tests/fuzz`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};

use reprise_net::{Config, FIRST_GUEST, Forward, GATEWAY, MAX_FRAME, NAMESERVER, Network, Protocol, Reach, limits};

use super::host::{Memory, Port};
use super::raw::{self, Seen};

/// Bytes that decide; zeroes once they are used up.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Up to so many bytes: a few of their own, repeated.
    fn data(&mut self, most: usize) -> Vec<u8> {
        let len = usize::from(self.word()) % (most + 1);
        let pattern = [self.byte(), self.byte(), self.byte()];
        let own: Vec<u8> = (0..len.min(24)).map(|_| self.byte()).collect();
        own.into_iter().chain(pattern.into_iter().cycle()).take(len).collect()
    }
}

struct Guest {
    net: Network<Memory>,
    host: Memory,
    now: u64,
    seen: BTreeMap<(u16, u16), Seen>,
}

const PORTS: [u16; 5] = [80, 81, 82, 83, 53];
const OTHERS: [Ipv4Addr; 6] = [
    GATEWAY,
    NAMESERVER,
    Ipv4Addr::new(192, 0, 2, 7),
    Ipv4Addr::new(10, 0, 2, 255),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::LOCALHOST,
];

/// Runs a network through all the steps.
pub(crate) fn run(bytes: &mut Bytes<'_>) {
    let first = bytes.byte();
    let forward = |protocol| Forward { protocol, to: SocketAddrV4::new(FIRST_GUEST, 22) };
    let config = Config {
        reach: if first & 1 == 0 { Reach::Loopback } else { Reach::All },
        resolver: (first & 2 == 0).then_some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53)),
        forwards: vec![forward(Protocol::Tcp), forward(Protocol::Udp)],
        seed: first.into(),
    };
    let ports = [(80, Port::Open), (81, Port::Slow), (82, Port::Refuses), (83, Port::Unreachable), (53, Port::Open)];
    let host = Memory::with_ports(&ports);
    host.state().forwards.resize_with(2, Default::default);
    host.state().may_ping = first & 4 == 0;
    let mut guest = Guest { net: Network::new(config, host.clone()).unwrap(), host, now: 0, seen: BTreeMap::new() };
    while !bytes.0.is_empty() {
        guest.step(bytes);
        guest.check();
    }
}

impl Guest {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 16 {
            0 => {
                let frame = bytes.data(MAX_FRAME + 10);
                self.net.receive(self.now, &frame);
            }
            1 => {
                let body = bytes.data(1500);
                let kind = if bytes.byte() & 1 == 0 { 0x0800 } else { 0x0806 };
                self.send(&raw::ethernet(kind, &body));
            }
            2 => self.packet(bytes),
            3..=8 => self.segment(bytes),
            9 => self.datagram(bytes),
            10 => self.echo(bytes),
            11 | 12 => self.host_step(bytes),
            13 | 14 => {
                let frames = bytes.below(100);
                self.take(frames);
            }
            _ => {
                self.now += [0, 100, 10_000, 1_000_000, 100_000_000][bytes.below(5)];
                self.net.poll(self.now);
            }
        }
    }

    /// What must hold whatever happened.
    fn check(&mut self) {
        let counts = self.net.counts();
        assert!(counts.connections <= limits::CONNECTIONS);
        assert!(counts.flows <= limits::UDP_FLOWS + limits::FORWARD_PEERS);
        assert!(counts.queued <= limits::FRAMES + limits::ANSWERS);
        let open = self.host.state().streams.values().filter(|s| s.closed.is_none()).count();
        assert_eq!(open, counts.connections, "each connection has its socket");
    }

    fn send(&mut self, frame: &[u8]) {
        self.net.receive(self.now, frame);
    }

    /// Any payload, fragments too.
    fn packet(&mut self, bytes: &mut Bytes<'_>) {
        let from = [FIRST_GUEST, Ipv4Addr::new(10, 0, 2, 77), Ipv4Addr::UNSPECIFIED, GATEWAY][bytes.below(4)];
        let to = OTHERS[bytes.below(OTHERS.len())];
        let protocol = [1, 6, 17, 2][bytes.below(4)];
        let fragment = if bytes.byte() & 1 == 0 { 0 } else { bytes.word() & 0x20ff };
        let payload = bytes.data(1480);
        self.send(&raw::ipv4(from, to, protocol, fragment, &payload));
    }

    /// A TCP segment that is right or nearly so.
    fn segment(&mut self, bytes: &mut Bytes<'_>) {
        let to = OTHERS[bytes.below(3)];
        let (port, other) = if bytes.byte() % 8 == 0 {
            (22, 40000 + u16::from(bytes.byte() % 4))
        } else {
            (1000 + u16::from(bytes.byte() % 6), PORTS[bytes.below(PORTS.len())])
        };
        let seen = self.seen.get(&(port, other)).copied().unwrap_or_default();
        let near = |bytes: &mut Bytes<'_>| match bytes.byte() {
            0..=159 => 0,
            160..=199 => u32::from(bytes.byte()),
            200..=239 => u32::from(bytes.byte()).wrapping_neg(),
            _ => u32::from(bytes.word()) << bytes.below(17),
        };
        let flags = match bytes.byte() {
            0..=59 => 0x02,
            60..=159 => 0x10,
            160..=179 => 0x12,
            180..=209 => 0x11,
            210..=229 => 0x14,
            _ => bytes.byte(),
        };
        let beyond = if bytes.byte() % 4 == 0 { u32::from(seen.window) } else { 0 };
        let seq = seen.acknowledged.wrapping_add(beyond).wrapping_add(near(bytes));
        let ack = seen.next.wrapping_add(near(bytes));
        let window = bytes.word();
        let options: Vec<u8> = (0..bytes.below(11) * 4).map(|_| bytes.byte()).collect();
        let data = bytes.data(1480 - 20 - options.len());
        self.send(&raw::tcp((FIRST_GUEST, port), (to, other), seq, ack, flags, window, &options, &data));
    }

    fn datagram(&mut self, bytes: &mut Bytes<'_>) {
        let (from, to) = match bytes.below(4) {
            0 => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
            _ => (FIRST_GUEST, OTHERS[bytes.below(3)]),
        };
        let port = [67, 53, 9, bytes.word()][bytes.below(4)];
        let mut data = bytes.data(1400);
        if port == 67 && bytes.byte() % 4 != 0 {
            // As good as DHCP, up to the options.
            data.resize(240.max(data.len()), 0);
            data[..3].copy_from_slice(&[1, 1, 6]);
            data[28] &= 0xfe;
            data[236..240].copy_from_slice(&[99, 130, 83, 99]);
        }
        let mut datagram = Vec::new();
        datagram.extend_from_slice(&(68 + u16::from(bytes.byte())).to_be_bytes());
        datagram.extend_from_slice(&port.to_be_bytes());
        datagram.extend_from_slice(&(8 + data.len() as u16).to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(&data);
        self.send(&raw::transport(from, to, 17, 6, &mut datagram));
    }

    fn echo(&mut self, bytes: &mut Bytes<'_>) {
        let mut message = vec![8, 0, 0, 0, 0, bytes.byte() % 4, 0, 1];
        message.extend_from_slice(&bytes.data(1400));
        let sum = !raw::sum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send(&raw::ipv4(FIRST_GUEST, OTHERS[bytes.below(OTHERS.len())], 1, 0, &message));
    }

    /// Something happens on the host.
    fn host_step(&mut self, bytes: &mut Bytes<'_>) {
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40000 + u16::from(bytes.byte() % 4));
        let open: Vec<_> =
            self.host.state().streams.iter().filter(|(_, s)| s.closed.is_none()).map(|(id, _)| *id).collect();
        let sockets: Vec<_> =
            self.host.state().datagrams.iter().filter(|(_, d)| !d.closed).map(|(id, _)| *id).collect();
        let what = bytes.byte() % 10;
        let mut state = self.host.state();
        match what {
            0 => state.come_in(0, peer),
            1 => state.come_in_datagram(1, &bytes.data(9000), peer),
            2 | 3 if !sockets.is_empty() => {
                let id = sockets[bytes.below(sockets.len())];
                let data = bytes.data(9000);
                state.arrive(id, if what == 2 { Ok(&data) } else { Err(ErrorKind::ConnectionRefused) });
            }
            _ if open.is_empty() => {}
            4..=6 => {
                let id = open[bytes.below(open.len())];
                state.write(id, &bytes.data(30_000));
            }
            7 => drop(state.read(open[bytes.below(open.len())])),
            8 => {
                let id = open[bytes.below(open.len())];
                match bytes.byte() % 3 {
                    0 => state.reset(id),
                    _ => state.end(id),
                }
            }
            _ => {
                let id = open[bytes.below(open.len())];
                if state.stream(id).made.is_none() {
                    let refused = bytes.byte() & 1 == 0;
                    state.make(id, if refused { Err(ErrorKind::ConnectionRefused) } else { Ok(()) });
                }
            }
        }
        drop(state);
        let forwards = std::mem::take(&mut self.host.state().forward_events);
        for forward in forwards {
            self.net.forward_ready(self.now, forward);
        }
        for (id, ready) in self.host.take_events() {
            self.net.ready(self.now, id, ready);
        }
    }

    /// The guest takes some frames, and looks at them.
    fn take(&mut self, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.net.front() else { break };
            assert!((60..=MAX_FRAME).contains(&frame.len()));
            if let Some(seen) = Seen::of(frame) {
                self.seen.insert(seen.ports, seen);
            }
            self.net.pop(self.now);
        }
    }
}
