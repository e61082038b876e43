//! The network as a guest with a whole TCP/IP stack sees it, under a simulated clock.

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};

use common::host::{BUFFER, Memory, Port};
use common::raw;
use common::world::{Faults, World};
use reprise_net::{Config, FIRST_GUEST, Forward, GATEWAY, NAMESERVER, Network, Protocol, Reach, limits};
use smoltcp::socket::{dhcpv4, dns, icmp, tcp, udp};
use smoltcp::wire::{DnsQueryType, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpAddress, IpEndpoint, Ipv4Packet};

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5353);

fn world(config: Config, ports: &[(u16, Port)]) -> World {
    let mut world = World::new(config, Memory::with_ports(ports));
    world.configure();
    world
}

fn pattern(len: usize, salt: u32) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 11) as u8).collect()
}

#[test]
fn dhcp_gives_the_addresses_that_qemu_gives() {
    let mut world = World::new(Config::default(), Memory::default());
    let dhcp = world.sockets.add(dhcpv4::Socket::new());
    let mut given = None;
    world.until(5, |w| {
        if let Some(dhcpv4::Event::Configured(config)) = w.sockets.get_mut::<dhcpv4::Socket<'_>>(dhcp).poll() {
            let dns: Vec<_> = config.dns_servers.iter().copied().collect();
            let address = config.address;
            given = Some((address.to_string(), config.router, dns, config.server.identifier));
            w.guest.update_ip_addrs(|list| list.push(address.into()).unwrap());
        }
        given.is_some()
    });
    let expected = ("10.0.2.15/24".to_owned(), Some(GATEWAY), vec![NAMESERVER], GATEWAY);
    assert_eq!(given, Some(expected));
    // It renews its lease after half of it.
    world.trace = Some(Vec::new());
    world.run_for(50_000 * 1_000_000);
    let acks = world.trace.unwrap().iter().filter(|f| f.len() > 284 && f[284] == 5).count();
    assert_eq!(acks, 1);
}

fn ping(world: &mut World, to: Ipv4Addr, data: &[u8]) -> Option<Vec<u8>> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = world.sockets.add(icmp::Socket::new(buffer(), buffer()));
    let socket = world.sockets.get_mut::<icmp::Socket<'_>>(handle);
    socket.bind(icmp::Endpoint::Ident(0x1234)).unwrap();
    let request = Icmpv4Repr::EchoRequest { ident: 0x1234, seq_no: 9, data };
    let bytes = socket.send(request.buffer_len(), to.into()).unwrap();
    request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &smoltcp::phy::ChecksumCapabilities::default());
    world.run_for(2_000_000);
    let socket = world.sockets.get_mut::<icmp::Socket<'_>>(handle);
    let (reply, from) = socket.recv().ok()?;
    assert_eq!(from, IpAddress::from(to));
    let packet = Icmpv4Packet::new_checked(reply).unwrap();
    match Icmpv4Repr::parse(&packet, &smoltcp::phy::ChecksumCapabilities::default()).unwrap() {
        Icmpv4Repr::EchoReply { ident: 0x1234, seq_no: 9, data } => Some(data.to_vec()),
        other => panic!("{other:?}"),
    }
}

/// The reasons of the ICMP messages that say what did not arrive, and where that was to go.
fn unreachable(trace: &[Vec<u8>]) -> Vec<(Icmpv4DstUnreachable, Ipv4Addr)> {
    let ip = trace.iter().filter(|f| f[12..14] == [8, 0] && f[23] == 1);
    ip.filter_map(|frame| {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum() && packet.verify_checksum());
        match Icmpv4Repr::parse(&message, &smoltcp::phy::ChecksumCapabilities::ignored()) {
            // smoltcp reads the quoted packet as if it were whole, so its place is looked at here.
            _ if message.msg_type() == smoltcp::wire::Icmpv4Message::DstUnreachable => {
                let quoted = Ipv4Packet::new_unchecked(&message.data()[..20]);
                Some((Icmpv4DstUnreachable::from(message.msg_code()), quoted.dst_addr()))
            }
            _ => None,
        }
    })
    .collect()
}

#[test]
fn ping_reaches_the_gateway_and_no_further() {
    let mut world = world(Config::default(), &[]);
    let data = pattern(1000, 1);
    assert_eq!(ping(&mut world, GATEWAY, &data), Some(data));
    assert_eq!(ping(&mut world, NAMESERVER, b""), Some(Vec::new()));
    world.trace = Some(Vec::new());
    assert_eq!(ping(&mut world, ELSEWHERE, b"x"), None);
    assert_eq!(unreachable(world.trace.as_ref().unwrap()), [(Icmpv4DstUnreachable::CommProhibited, ELSEWHERE)]);
}

#[test]
fn ping_reaches_all_if_host_and_config_allow_it() {
    let config = Config { reach: Reach::All, ..Config::default() };
    let mut world = world(config, &[]);
    world.trace = Some(Vec::new());
    assert_eq!(ping(&mut world, ELSEWHERE, b"x"), None);
    assert_eq!(unreachable(world.trace.as_ref().unwrap()), [(Icmpv4DstUnreachable::HostUnreachable, ELSEWHERE)]);
    world.host.state().may_ping = true;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = world.sockets.add(icmp::Socket::new(buffer(), buffer()));
    let socket = world.sockets.get_mut::<icmp::Socket<'_>>(handle);
    socket.bind(icmp::Endpoint::Ident(7)).unwrap();
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"hello" };
    let bytes = socket.send(request.buffer_len(), ELSEWHERE.into()).unwrap();
    request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &smoltcp::phy::ChecksumCapabilities::default());
    world.run_for(1000);
    // As the system's socket does: another identifier.
    let (id, mut reply) = {
        let state = world.host.state();
        let (id, socket) = state.datagrams.iter().next().unwrap();
        assert!(socket.echo && socket.to == Some(SocketAddrV4::new(ELSEWHERE, 0)));
        (*id, socket.sent[0].clone())
    };
    (reply[0], reply[4]) = (0, 0xee);
    world.host.state().arrive(id, Ok(&reply));
    world.run_for(1000);
    let (bytes, from) = world.sockets.get_mut::<icmp::Socket<'_>>(handle).recv().unwrap();
    assert_eq!(from, IpAddress::from(ELSEWHERE));
    let reply = Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: b"hello" };
    let packet = Icmpv4Packet::new_checked(bytes).unwrap();
    assert_eq!(Icmpv4Repr::parse(&packet, &smoltcp::phy::ChecksumCapabilities::default()), Ok(reply));
}

fn query(world: &mut World) -> Result<Vec<IpAddress>, dns::GetQueryResultError> {
    let handle = world.sockets.add(dns::Socket::new(&[NAMESERVER.into()], Vec::new()));
    let socket = world.sockets.get_mut::<dns::Socket<'_>>(handle);
    let query = socket.start_query(world.guest.context(), "example.test", DnsQueryType::A).unwrap();
    let mut result = Err(dns::GetQueryResultError::Pending);
    world.until(60, |w| {
        // The host's resolver, if it has heard of anything.
        let (mut state, mut answers) = (w.host.state(), Vec::new());
        for (id, socket) in &mut state.datagrams {
            for query in socket.sent.drain(..) {
                assert_eq!(socket.to, Some(RESOLVER));
                answers.push((*id, answer(&query)));
            }
        }
        for (id, answer) in answers {
            state.arrive(id, Ok(&answer));
        }
        drop(state);
        result = w.sockets.get_mut::<dns::Socket<'_>>(handle).get_query_result(query).map(|list| list.to_vec());
        result != Err(dns::GetQueryResultError::Pending)
    });
    result
}

/// 198.51.100.9 to whatever was asked.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 9]);
    answer
}

#[test]
fn names_are_looked_up_where_the_config_says() {
    let config = Config { resolver: Some(RESOLVER), ..Config::default() };
    let mut with = world(config, &[]);
    assert_eq!(query(&mut with), Ok(vec![IpAddress::v4(198, 51, 100, 9)]));
    let mut without = world(Config::default(), &[]);
    assert_eq!(query(&mut without), Err(dns::GetQueryResultError::Failed));
    assert!(without.now < 1_000_000, "the failure is said at once");
}

/// A query past the guest's stack, and the answers to it.
fn raw_query(world: &mut World, number: u16) -> udp_answers::Answers {
    let mut query = vec![0; 12];
    query[..2].copy_from_slice(&number.to_be_bytes());
    (query[2], query[5]) = (1, 1);
    query.extend_from_slice(b"\x01a\x00\x00\x01\x00\x01");
    udp_answers::Answers::of(world, SocketAddrV4::new(NAMESERVER, 53), &query)
}

/// UDP sockets of the guest.
mod udp_answers {
    use super::*;

    pub(crate) struct Answers {
        pub(crate) handle: smoltcp::iface::SocketHandle,
    }

    impl Answers {
        pub(crate) fn of(world: &mut World, to: SocketAddrV4, data: &[u8]) -> Self {
            let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 400], vec![0; 200_000]);
            let handle = world.sockets.add(udp::Socket::new(buffer(), buffer()));
            let port = 20000 + world.sockets.iter().count() as u16;
            world.sockets.get_mut::<udp::Socket<'_>>(handle).bind(port).unwrap();
            let answers = Self { handle };
            answers.send(world, to, data);
            answers
        }

        pub(crate) fn send(&self, world: &mut World, to: SocketAddrV4, data: &[u8]) {
            let to = IpEndpoint::new((*to.ip()).into(), to.port());
            world.sockets.get_mut::<udp::Socket<'_>>(self.handle).send_slice(data, to).unwrap();
            world.run_for(10);
        }

        pub(crate) fn take(&self, world: &mut World) -> Vec<(Vec<u8>, IpEndpoint)> {
            let socket = world.sockets.get_mut::<udp::Socket<'_>>(self.handle);
            std::iter::from_fn(|| socket.recv().ok().map(|(data, from)| (data.to_vec(), from.endpoint))).collect()
        }
    }
}

#[test]
fn a_resolver_that_is_not_there_or_silent_is_a_failed_server() {
    let config = Config { resolver: Some(RESOLVER), ..Config::default() };
    let mut world = world(config, &[]);
    let failure = |number: u16| {
        let mut bytes = vec![0, 0, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(b"\x01a\x00\x00\x01\x00\x01");
        vec![(bytes, IpEndpoint::new(NAMESERVER.into(), 53))]
    };
    let refused = raw_query(&mut world, 1);
    let id = *world.host.state().datagrams.keys().next().unwrap();
    world.host.state().arrive(id, Err(ErrorKind::ConnectionRefused));
    world.run_for(10);
    assert_eq!(refused.take(&mut world), failure(1));
    let silent = raw_query(&mut world, 2);
    world.run_for(4_900_000);
    assert_eq!(silent.take(&mut world), []);
    world.run_for(200_000);
    assert_eq!(silent.take(&mut world), failure(2));
    // More queries than may be pending are answered all the same.
    let many: Vec<_> = (0..100).map(|n| raw_query(&mut world, n)).collect();
    assert_eq!(world.net.counts().flows, limits::DNS_FLOWS);
    let failed = many.iter().filter(|q| !q.take(&mut world).is_empty()).count();
    assert_eq!(failed, 100 - limits::DNS_FLOWS);
    world.run_for(6_000_000);
    assert_eq!(world.net.counts().flows, 0);
    assert!(world.host.state().datagrams.values().all(|d| d.closed));
}

/// The guest sends `out` and the host's program `back`, each then ends its side; both get all of it.
fn exchange(world: &mut World, out: &[u8], back: &[u8]) {
    let guest = world.connect((GATEWAY, 80), 50000);
    let (mut sent, mut got) = (0, Vec::new());
    let (mut host_sent, mut host_got) = (0, Vec::new());
    let mut host_ended = false;
    world.until(600, |w| {
        let socket = w.socket(guest);
        if socket.can_send() && sent < out.len() {
            sent += socket.send_slice(&out[sent..]).unwrap();
            if sent == out.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|data| (data.len(), got.extend_from_slice(data))).unwrap();
        }
        let Some(id) = w.host.streams().first().copied() else { return false };
        let mut state = w.host.state();
        if state.stream(id).closed.is_none() {
            if host_sent < back.len() && state.stream(id).output.len() < BUFFER {
                host_sent += state.write(id, &back[host_sent..]);
            }
            // The guest ends first: smoltcp, which plays it, may forget to send again what was lost when the other side has ended.
            if host_sent == back.len() && state.stream(id).shut && !host_ended {
                host_ended = true;
                state.end(id);
            }
        }
        if !state.stream(id).input.is_empty() {
            host_got.extend(state.read(id));
        }
        state.stream(id).closed.is_some() && state.stream(id).input.is_empty()
    });
    assert!(host_got == out, "{} of {} bytes to the host", host_got.len(), out.len());
    world.until(60, |w| {
        let socket = w.socket(guest);
        while socket.can_recv() {
            socket.recv(|data| (data.len(), got.extend_from_slice(data))).unwrap();
        }
        !socket.may_recv()
    });
    assert!(got == back, "{} of {} bytes to the guest", got.len(), back.len());
    let id = world.host.streams()[0];
    let mut state = world.host.state();
    let stream = state.stream(id);
    assert_eq!((stream.to, stream.closed), (Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)), Some(false)));
}

#[test]
fn tcp_is_exact_both_ways() {
    let mut world = world(Config::default(), &[(80, Port::Open)]);
    exchange(&mut world, &pattern(3_000_000, 1), &pattern(2_000_000, 2));
    assert_eq!(world.net.counts().connections, 0);
}

#[test]
fn tcp_is_exact_over_a_bad_wire() {
    for seed in 0..12 {
        let faults = Faults { lost: 3, doubled: 3, late: 10 };
        let host = Memory::with_ports(&[(80, Port::Open)]);
        let mut world = World::with_faults(Config { seed, ..Config::default() }, host, faults, seed);
        world.configure();
        exchange(&mut world, &pattern(300_000, 1), &pattern(300_000, 2));
    }
}

#[test]
fn the_same_steps_give_the_same_frames() {
    let run = |seed| {
        let faults = Faults { lost: 2, doubled: 2, late: 5 };
        let host = Memory::with_ports(&[(80, Port::Open)]);
        let mut world = World::with_faults(Config { seed, ..Config::default() }, host, faults, 3);
        world.configure();
        world.trace = Some(Vec::new());
        exchange(&mut world, &pattern(100_000, 1), &pattern(100_000, 2));
        world.trace.unwrap()
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2), "the first sequence numbers come from the seed");
}

#[test]
fn a_connection_is_answered_once_the_hosts_is_made() {
    let mut world = world(Config::default(), &[(81, Port::Slow)]);
    let guest = world.connect((GATEWAY, 81), 50000);
    world.run_for(5_000_000);
    assert_eq!(world.socket(guest).state(), tcp::State::SynSent);
    assert_eq!(world.host.streams().len(), 1, "the guest has asked several times, the host once");
    let id = world.host.streams()[0];
    world.host.state().make(id, Ok(()));
    world.run_for(1000);
    assert_eq!(world.socket(guest).state(), tcp::State::Established);
    let refused = world.connect((GATEWAY, 81), 50001);
    world.run_for(1000);
    let id = world.host.streams()[1];
    world.host.state().make(id, Err(ErrorKind::ConnectionRefused));
    world.run_for(1000);
    assert_eq!(world.socket(refused).state(), tcp::State::Closed);
}

#[test]
fn what_may_not_be_reached_is_refused() {
    let mut world = world(Config::default(), &[(80, Port::Open), (83, Port::Unreachable)]);
    world.trace = Some(Vec::new());
    for (n, to) in [(ELSEWHERE, 80), (GATEWAY, 9), (NAMESERVER, 53), (GATEWAY, 83)].into_iter().enumerate() {
        let guest = world.connect(to, 50000 + n as u16);
        world.run_for(3_000_000);
        assert_eq!(world.socket(guest).state(), tcp::State::Closed, "{to:?}");
    }
    assert!(world.host.streams().is_empty());
    for to in [(ELSEWHERE, 9), (NAMESERVER, 9), (Ipv4Addr::new(10, 0, 2, 99), 9)] {
        udp_answers::Answers::of(&mut world, SocketAddrV4::new(to.0, to.1), b"x");
    }
    assert!(world.host.state().datagrams.is_empty());
    let expected = [
        (Icmpv4DstUnreachable::CommProhibited, ELSEWHERE),
        (Icmpv4DstUnreachable::PortUnreachable, NAMESERVER),
        (Icmpv4DstUnreachable::CommProhibited, Ipv4Addr::new(10, 0, 2, 99)),
    ];
    // The guest has to ask who the last one is; nobody answers.
    let reasons = unreachable(world.trace.as_ref().unwrap());
    assert_eq!(reasons, expected[..reasons.len()]);
    assert!(reasons.len() >= 2);
}

#[test]
fn with_reach_all_the_rest_of_the_world_is_there() {
    let config = Config { reach: Reach::All, ..Config::default() };
    let mut world = world(config, &[(80, Port::Open), (83, Port::Unreachable)]);
    world.trace = Some(Vec::new());
    let guest = world.connect((ELSEWHERE, 80), 50000);
    world.connect((ELSEWHERE, 83), 50001);
    world.run_for(10_000);
    assert_eq!(world.socket(guest).state(), tcp::State::Established);
    let id = world.host.streams()[0];
    assert_eq!(world.host.state().stream(id).to, Some(SocketAddrV4::new(ELSEWHERE, 80)));
    assert_eq!(unreachable(world.trace.as_ref().unwrap())[0], (Icmpv4DstUnreachable::HostUnreachable, ELSEWHERE));
    let answers = udp_answers::Answers::of(&mut world, SocketAddrV4::new(ELSEWHERE, 7), b"ping");
    let id = *world.host.state().datagrams.keys().next().unwrap();
    world.host.state().arrive(id, Ok(b"pong"));
    world.run_for(10);
    assert_eq!(answers.take(&mut world), [(b"pong".to_vec(), IpEndpoint::new(ELSEWHERE.into(), 7))]);
}

#[test]
fn udp_goes_both_ways_and_its_flows_end() {
    let mut world = world(Config::default(), &[]);
    world.trace = Some(Vec::new());
    let to = SocketAddrV4::new(GATEWAY, 7);
    let answers = udp_answers::Answers::of(&mut world, to, b"one");
    answers.send(&mut world, to, b"");
    let id = *world.host.state().datagrams.keys().next().unwrap();
    {
        let mut state = world.host.state();
        let socket = &state.datagrams[&id];
        assert_eq!(socket.to, Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7)));
        assert_eq!(socket.sent, [b"one".to_vec(), Vec::new()]);
        state.arrive(id, Ok(b""));
        state.arrive(id, Ok(&[7; 1472]));
    }
    world.run_for(10);
    let from = IpEndpoint::new(GATEWAY.into(), 7);
    assert_eq!(answers.take(&mut world), [(Vec::new(), from), (vec![7; 1472], from)]);
    world.host.state().arrive(id, Err(ErrorKind::ConnectionRefused));
    world.run_for(119_000_000);
    assert_eq!(unreachable(world.trace.as_ref().unwrap()), [(Icmpv4DstUnreachable::PortUnreachable, GATEWAY)]);
    assert_eq!(world.net.counts().flows, 1);
    world.run_for(2_000_000);
    assert_eq!(world.net.counts().flows, 0);
    assert!(world.host.state().datagrams[&id].closed);
}

#[test]
fn large_datagrams_travel_in_fragments() {
    let mut world = world(Config::default(), &[]);
    let data = pattern(9000, 5);
    let mut datagram = vec![0x4e, 0x20, 0, 7];
    datagram.extend_from_slice(&(8 + data.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(&data);
    let pieces: Vec<_> = datagram.chunks(1480).enumerate().collect();
    for &(n, piece) in pieces.iter().rev() {
        let more = if n + 1 < pieces.len() { 0x2000 } else { 0 };
        let frame = raw::ipv4(FIRST_GUEST, GATEWAY, 17, (n * 185) as u16 | more, piece);
        world.send_raw(&frame);
    }
    let id = *world.host.state().datagrams.keys().next().expect("the datagram is whole");
    assert!(world.host.state().datagrams[&id].sent == [data.clone()]);
    world.host.state().arrive(id, Ok(&data));
    world.trace = Some(Vec::new());
    world.run_for(10);
    let mut back = Vec::new();
    for frame in world.trace.unwrap() {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.frag_offset()), back.len());
        back.extend_from_slice(packet.payload());
        assert_eq!(packet.more_frags(), back.len() < 9008);
    }
    assert_eq!(back[..6], [0, 7, 0x4e, 0x20, 0x23, 0x30]);
    assert!(back[8..] == data);
}

fn forwards(protocol: Protocol) -> Config {
    Config { forwards: vec![Forward { protocol, to: SocketAddrV4::new(FIRST_GUEST, 22) }], ..Config::default() }
}

#[test]
fn a_forward_leads_to_the_guest() {
    let mut world = world(forwards(Protocol::Tcp), &[]);
    let (one, two) = (world.tcp(), world.tcp());
    for handle in [one, two] {
        world.socket(handle).listen(22).unwrap();
    }
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40000);
    // Two peers with one port: each is a connection of its own for the guest.
    world.host.state().come_in(0, peer);
    world.host.state().come_in(0, SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 40000));
    world.run_for(10_000);
    let remote = |w: &mut World, handle| w.socket(handle).remote_endpoint().unwrap();
    let remotes = [remote(&mut world, one), remote(&mut world, two)];
    assert!(remotes.contains(&IpEndpoint::new(GATEWAY.into(), 40000)));
    assert!(remotes.contains(&IpEndpoint::new(GATEWAY.into(), 49152)));
    let ids = world.host.streams();
    world.host.state().write(ids[0], b"hello");
    world.run_for(10_000);
    let first = if remotes[0].port == 40000 { one } else { two };
    world.socket(first).recv(|data| (data.len(), assert_eq!(data, b"hello"))).unwrap();
    world.socket(first).send_slice(b"world").unwrap();
    world.socket(first).close();
    world.run_for(100_000);
    assert_eq!(world.host.state().read(ids[0]), b"world");
    world.host.state().end(ids[0]);
    world.run_for(1_000_000);
    assert_eq!(world.host.state().stream(ids[0]).closed, Some(false));
}

#[test]
fn a_forward_without_a_listener_is_reset_and_without_a_guest_times_out() {
    let mut there = world(forwards(Protocol::Tcp), &[]);
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40000);
    there.host.state().come_in(0, peer);
    there.run_for(10_000);
    let id = there.host.streams()[0];
    assert_eq!(there.host.state().stream(id).closed, Some(true));
    let mut nobody = World::new(forwards(Protocol::Tcp), Memory::default());
    nobody.host.state().come_in(0, peer);
    nobody.run_for(70_000_000);
    let id = nobody.host.streams()[0];
    assert_eq!(nobody.host.state().stream(id).closed, None, "the guest may still be starting");
    nobody.run_for(10_000_000);
    assert_eq!(nobody.host.state().stream(id).closed, Some(true));
}

#[test]
fn a_udp_forward_leads_to_the_guest_and_back() {
    let mut world = world(forwards(Protocol::Udp), &[]);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = world.sockets.add(udp::Socket::new(buffer(), buffer()));
    world.sockets.get_mut::<udp::Socket<'_>>(handle).bind(22).unwrap();
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40000);
    world.host.state().come_in_datagram(0, b"hello", peer);
    world.run_for(10_000);
    let socket = world.sockets.get_mut::<udp::Socket<'_>>(handle);
    let (data, from) = socket.recv().map(|(data, from)| (data.to_vec(), from.endpoint)).unwrap();
    assert_eq!((data.as_slice(), from), (&b"hello"[..], IpEndpoint::new(GATEWAY.into(), 40000)));
    socket.send_slice(b"world", from).unwrap();
    world.run_for(10_000);
    assert_eq!(world.host.state().forwards[0].answers, [(b"world".to_vec(), peer)]);
    assert!(world.host.state().datagrams.is_empty(), "the answer goes out of the forward's own socket");
    // More peers than are remembered.
    for port in 1..=1000 {
        world.host.state().come_in_datagram(0, b"x", SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        world.run_for(1);
    }
    assert_eq!(world.net.counts().flows, limits::FORWARD_PEERS);
}

#[test]
fn a_forward_to_nobody_is_refused_at_the_start() {
    for to in ["10.0.2.2:22", "10.0.2.3:22", "10.0.3.15:22", "10.0.2.255:22", "10.0.2.15:0"] {
        let config = Config {
            forwards: vec![Forward { protocol: Protocol::Tcp, to: to.parse().unwrap() }],
            ..Config::default()
        };
        assert!(Network::new(config, Memory::default()).is_err(), "{to}");
    }
}

#[test]
fn resets_pass_through_both_ways() {
    let mut world = world(Config::default(), &[(80, Port::Open)]);
    let (one, two) = (world.connect((GATEWAY, 80), 50000), world.connect((GATEWAY, 80), 50001));
    world.run_for(1000);
    world.socket(one).abort();
    let ids = world.host.streams();
    world.host.state().reset(ids[1]);
    world.run_for(1000);
    assert_eq!(world.host.state().stream(ids[0]).closed, Some(true));
    assert_eq!(world.host.state().stream(ids[1]).closed, Some(true));
    assert_eq!(world.socket(two).state(), tcp::State::Closed);
    assert_eq!(world.net.counts().connections, 0);
}

#[test]
fn a_guest_that_starts_anew_with_the_same_ports_gets_a_new_connection() {
    let mut world = world(Config::default(), &[(80, Port::Open)]);
    let one = world.connect((GATEWAY, 80), 50000);
    world.run_for(1000);
    // It forgets all of it, without a word.
    world.sockets.remove(one);
    let two = world.connect((GATEWAY, 80), 50000);
    world.run_for(1000);
    assert_eq!(world.socket(two).state(), tcp::State::Established);
    let ids = world.host.streams();
    assert_eq!(ids.len(), 2);
    assert_eq!(world.host.state().stream(ids[0]).closed, Some(true));
    assert_eq!(world.host.state().stream(ids[1]).closed, None);
}

#[test]
fn who_reads_slowly_gets_all_of_it() {
    let mut world = world(Config::default(), &[(80, Port::Open)]);
    let guest = world.connect((GATEWAY, 80), 50000);
    world.run_for(1000);
    let id = world.host.streams()[0];
    // The host ends its side, the guest sends more than fits anywhere, and ends its own; then nobody reads for a long time.
    world.host.state().end(id);
    world.run_for(1000);
    let data = pattern(BUFFER + 100_000, 3);
    let mut sent = 0;
    world.until(10, |w| {
        let socket = w.socket(guest);
        if socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        sent >= BUFFER + 90_000
    });
    world.run_for(300_000_000);
    let mut got = Vec::new();
    let mut ended = false;
    world.until(100, |w| {
        let socket = w.socket(guest);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        if sent == data.len() && !ended {
            ended = true;
            socket.close();
        }
        // Once, and not all.
        if got.is_empty() {
            got.extend(w.host.state().read(id));
        }
        ended && matches!(w.socket(guest).state(), tcp::State::Closed | tcp::State::TimeWait)
    });
    // The guest is through; the host has not read the rest yet.
    world.run_for(60_000_000);
    world.until(100, |w| {
        let mut state = w.host.state();
        if !state.stream(id).input.is_empty() {
            got.extend(state.read(id));
        }
        state.stream(id).closed.is_some() && state.stream(id).input.is_empty()
    });
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    assert_eq!(world.host.state().stream(id).closed, Some(false));
}

#[test]
fn a_guest_that_takes_nothing_holds_the_host_up_and_loses_nothing() {
    let mut world = world(Config::default(), &[(80, Port::Open)]);
    let guests: Vec<_> = (0..3).map(|n| world.connect((GATEWAY, 80), 50000 + n)).collect();
    world.run_for(1000);
    // The card takes nothing any more.
    world.card_room = 0;
    let ids = world.host.streams();
    let data = pattern(3_000_000, 4);
    let mut written = vec![0; ids.len()];
    let feed = |w: &mut World, written: &mut [usize]| {
        for (&id, at) in ids.iter().zip(written) {
            if *at < data.len() && w.host.state().stream(id).output.len() < BUFFER {
                *at += w.host.state().write(id, &data[*at..]);
            }
        }
    };
    for _ in 0..1000 {
        feed(&mut world, &mut written);
        world.step();
    }
    world.run_for(5_000_000);
    assert!(world.net.counts().queued <= limits::FRAMES);
    assert!(written.iter().all(|n| *n <= BUFFER * 2 + limits::TO_GUEST), "{written:?}");
    world.card_room = 8;
    let mut got = vec![Vec::new(); guests.len()];
    world.until(600, |w| {
        feed(w, &mut written);
        for (handle, got) in guests.iter().zip(&mut got) {
            let socket = w.socket(*handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
            }
        }
        got.iter().all(|g| g.len() >= data.len())
    });
    assert!(got.iter().all(|g| *g == data));
    assert_eq!(world.net.counts().dropped, 0);
}

#[test]
fn a_guest_with_a_closed_window_is_asked_again() {
    // Every fifth frame is lost, so the guest's word that its window is open again may be too.
    for seed in 0..8 {
        let faults = Faults { lost: 20, doubled: 0, late: 0 };
        let host = Memory::with_ports(&[(80, Port::Open)]);
        let mut world = World::with_faults(Config::default(), host, faults, seed);
        world.configure();
        let guest = world.connect((GATEWAY, 80), 50000);
        world.until(60, |w| w.socket(guest).state() == tcp::State::Established && w.host.streams().len() == 1);
        let id = world.host.streams()[0];
        let data = pattern(200_000, 4);
        let (mut at, mut got) = (0, Vec::new());
        world.until(600, |w| {
            if at < data.len() && w.host.state().stream(id).output.len() < BUFFER {
                at += w.host.state().write(id, &data[at..]);
            }
            // It reads only once its buffer is full.
            let left = data.len() - got.len();
            let socket = w.socket(guest);
            if socket.recv_queue() >= left.min(65536) {
                while socket.can_recv() {
                    socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
                }
            }
            got.len() == data.len()
        });
        assert!(got == data);
    }
}

#[test]
fn connections_are_limited() {
    let mut world = world(Config::default(), &[(80, Port::Open), (81, Port::Slow)]);
    world.trace = Some(Vec::new());
    // More that are never made than may be.
    for n in 0..100 {
        world.connect((GATEWAY, 81), 40000 + n);
    }
    world.run_for(1000);
    assert_eq!(world.net.counts().connections, limits::HALF_OPEN);
    let late = world.connect((GATEWAY, 80), 50000);
    world.run_for(1000);
    assert_eq!(world.socket(late).state(), tcp::State::SynSent, "no answer for now");
    for id in world.host.streams() {
        world.host.state().make(id, Err(ErrorKind::ConnectionRefused));
    }
    world.run_for(3_000_000);
    assert_eq!(world.socket(late).state(), tcp::State::Established);
    // And of those that are made.
    let all: Vec<_> = (0..300).map(|n| world.connect((GATEWAY, 80), 51000 + n)).collect();
    world.run_for(30_000_000);
    let made = all.iter().filter(|h| world.sockets.get::<tcp::Socket<'_>>(**h).may_send()).count();
    assert!(made >= limits::CONNECTIONS - limits::HALF_OPEN, "{made}");
    assert!(world.net.counts().connections <= limits::CONNECTIONS);
}

#[test]
fn connections_to_a_forward_wait_for_room() {
    let mut world = world(forwards(Protocol::Tcp), &[]);
    // The guest listens nowhere yet, and does not even answer.
    world.card_room = 0;
    for n in 0..100 {
        world.host.state().come_in(0, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1000 + n));
    }
    world.run_for(1000);
    assert_eq!(world.net.counts().connections, limits::HALF_OPEN);
    assert_eq!(world.host.state().forwards[0].connections.len(), 100 - limits::HALF_OPEN);
    world.card_room = usize::MAX;
    world.run_for(10_000_000);
    let state = world.host.state();
    assert!(state.forwards[0].connections.is_empty());
    assert!(state.streams.len() == 100 && state.streams.values().all(|s| s.closed == Some(true)));
}

#[test]
fn udp_flows_are_limited() {
    let mut world = world(Config::default(), &[]);
    let answers = udp_answers::Answers::of(&mut world, SocketAddrV4::new(GATEWAY, 1), b"x");
    for port in 2..=400 {
        answers.send(&mut world, SocketAddrV4::new(GATEWAY, port), b"x");
    }
    assert_eq!(world.net.counts().flows, limits::UDP_FLOWS);
    let open = world.host.state().datagrams.values().filter(|d| !d.closed).count();
    assert_eq!(open, limits::UDP_FLOWS);
}

#[test]
fn data_beyond_the_window_is_left_out() {
    let mut world = World::new(Config::default(), Memory::with_ports(&[(80, Port::Open)]));
    let segment = |w: &mut World, seq: u32, ack: u32, flags: u8, data: &[u8]| {
        let frame = raw::tcp((FIRST_GUEST, 50000), (GATEWAY, 80), seq, ack, flags, 65535, &[], data);
        w.send_raw(&frame);
        let mut last = None;
        while let Some(frame) = w.net.front() {
            last = raw::Seen::of(frame).or(last);
            w.net.pop(w.now);
        }
        last
    };
    let mut seen = segment(&mut world, 999, 0, raw::SYN, b"").expect("an answer");
    let next = seen.next;
    // Until the host's buffer is full and the window is nearly closed.
    let mut seq = 1000_u32;
    while seq + 1460 <= 1000 + (BUFFER + limits::TO_HOST) as u32 {
        seen = segment(&mut world, seq, next, raw::ACK, &[1; 1460]).unwrap_or(seen);
        seq += 1460;
        world.now += 20_000;
        world.net.poll(world.now);
    }
    while let Some(frame) = world.net.front() {
        seen = raw::Seen::of(frame).unwrap_or(seen);
        world.net.pop(world.now);
    }
    let edge = seen.acknowledged + u32::from(seen.window);
    assert_eq!(edge - 1000, (BUFFER + limits::TO_HOST) as u32);
    // A little of it is read, which is not worth an announcement; then comes more than was offered.
    let id = world.host.streams()[0];
    world.host.state().stream(id).input.drain(..100);
    world.net.ready(world.now, id, reprise_net::Ready { read: false, write: true });
    assert!(world.net.front().is_none(), "no new window");
    let room = edge - seq;
    let last = segment(&mut world, seq, next, raw::ACK, &vec![2; room as usize + 50]);
    world.now += 20_000;
    world.net.poll(world.now);
    let seen = world.net.front().and_then(raw::Seen::of).or(last).expect("an acknowledgement");
    assert_eq!(seen.acknowledged, edge, "what was offered was taken, and no more");
}
