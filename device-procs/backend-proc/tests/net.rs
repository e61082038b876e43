//! The process itself: started as the supervisor starts it, with a guest at its frames and programs at its sockets, all on loopback.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use common::{GATEWAY, GUEST, Guest, LONG, Process, inheritable};
use reprise_child::control::{NetForward, NetProtocol};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpEndpoint};

fn start(forwards: Vec<NetForward>) -> Process {
    Process::start(Path::new(env!("CARGO_BIN_EXE_backend-proc")), forwards)
}

/// A TCP server that sends back what it gets, connection by connection.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// Sends all of `data` to an echo server, and gets it back.
fn echo(guest: &mut Guest, port: u16, from: u16, data: &[u8]) {
    let handle = guest.connect(port, from);
    let (mut sent, mut got) = (0, Vec::new());
    guest.until("the echo", |g| {
        let socket = g.socket(handle);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got.len() == data.len() && !socket.may_recv()
    });
    assert!(got == data);
}

#[test]
fn a_guest_talks_to_a_server_on_loopback() {
    let process = start(Vec::new());
    let mut guest = Guest::new(&process.frames);
    let port = echo_server();
    echo(&mut guest, port, 50000, &pattern(5_000_000));
    for n in 1..20 {
        echo(&mut guest, port, 50000 + n, &pattern(1000));
    }
    assert!(process.exit().success());
}

#[test]
fn what_is_closed_is_refused() {
    let process = start(Vec::new());
    let mut guest = Guest::new(&process.frames);
    // Bound and closed again: a port where nobody is.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = guest.connect(closed, 50000);
    guest.until("the refusal", |g| g.socket(refused).state() == tcp::State::Closed);
    let handle = guest.tcp(4096);
    let socket = guest.sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(guest.interface.context(), (Ipv4Addr::new(192, 0, 2, 1), 80), 50001).unwrap();
    guest.until("the refusal of another host", |g| g.socket(handle).state() == tcp::State::Closed);
    assert!(process.exit().success());
}

#[test]
fn ping_and_udp() {
    let process = start(Vec::new());
    let mut guest = Guest::new(&process.frames);
    let icmp_buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let ping = guest.sockets.add(icmp::Socket::new(icmp_buffer(), icmp_buffer()));
    let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(ping);
    socket.bind(icmp::Endpoint::Ident(7)).unwrap();
    let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: b"hello" };
    let bytes = socket.send(request.buffer_len(), GATEWAY.into()).unwrap();
    request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &smoltcp::phy::ChecksumCapabilities::default());
    guest.until("the echo", |g| g.sockets.get_mut::<icmp::Socket<'_>>(ping).can_recv());

    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let port = server.local_addr().unwrap().port();
    let udp_buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let handle = guest.sockets.add(udp::Socket::new(udp_buffer(), udp_buffer()));
    let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
    socket.bind(5000).unwrap();
    socket.send_slice(b"to the host", IpEndpoint::new(GATEWAY.into(), port)).unwrap();
    let server = thread::spawn(move || {
        let mut buffer = [0; 100];
        let (n, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"to the host");
        server.send_to(b"to the guest", from).unwrap();
    });
    guest.until("the answer", |g| g.sockets.get_mut::<udp::Socket<'_>>(handle).can_recv());
    let (data, from) = guest.sockets.get_mut::<udp::Socket<'_>>(handle).recv().unwrap();
    assert_eq!((data, from.endpoint), (&b"to the guest"[..], IpEndpoint::new(GATEWAY.into(), port)));
    server.join().unwrap();
    assert!(process.exit().success());
}

#[test]
fn forwards_lead_to_the_guest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let (tcp_at, udp_at) = (listener.local_addr().unwrap(), datagrams.local_addr().unwrap());
    let (listener, datagrams) = (inheritable(&listener), inheritable(&datagrams));
    let forward = |protocol, socket: &std::os::fd::OwnedFd, port| NetForward {
        protocol,
        socket: socket.as_raw_fd(),
        to: SocketAddrV4::new(GUEST, port),
    };
    let process = start(vec![forward(NetProtocol::Tcp, &listener, 22), forward(NetProtocol::Udp, &datagrams, 69)]);
    let mut guest = Guest::new(&process.frames);
    let handle = guest.tcp(65536);
    guest.socket(handle).listen(22).unwrap();
    let udp_buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let files = guest.sockets.add(udp::Socket::new(udp_buffer(), udp_buffer()));
    guest.sockets.get_mut::<udp::Socket<'_>>(files).bind(69).unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(tcp_at).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(b"login").unwrap();
        let mut banner = [0; 7];
        stream.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"welcome");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.send_to(b"get", udp_at).unwrap();
        let mut answer = [0; 10];
        let (n, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..n], from), (&b"file"[..], udp_at));
    });
    let mut welcomed = false;
    guest.until("both clients", |g| {
        let socket = g.socket(handle);
        if !welcomed && socket.recv_queue() == 5 {
            welcomed = true;
            socket.send_slice(b"welcome").unwrap();
        }
        let socket = g.sockets.get_mut::<udp::Socket<'_>>(files);
        if let Ok((data, from)) = socket.recv() {
            assert_eq!(data, b"get");
            socket.send_slice(b"file", from.endpoint).unwrap();
        }
        client.is_finished()
    });
    client.join().unwrap();
    assert!(process.exit().success());
}

#[test]
fn a_device_process_may_be_replaced() {
    let process = start(Vec::new());
    let port = echo_server();
    let mut guest = Guest::new(&process.frames);
    let handle = guest.connect(port, 50000);
    guest.until("the connection", |g| g.socket(handle).may_send());
    let data = pattern(100_000);
    let sent = guest.socket(handle).send_slice(&data).unwrap();
    guest.poll();
    // The device's end is closed, and the supervisor's copy of it keeps the pair alive.
    let again = process.frames.try_clone().unwrap();
    drop(std::mem::replace(&mut guest.card.0, again));
    let mut got = Vec::new();
    guest.until("the rest", |g| {
        let socket = g.socket(handle);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got.len() == sent
    });
    assert!(got == data[..sent]);
    assert!(process.exit().success());
}

#[test]
fn without_a_device_it_waits_for_its_end() {
    let mut process = start(Vec::new());
    // Both copies of the device's end are gone.
    let (one, _other) = nix::unistd::pipe().unwrap();
    drop(std::mem::replace(&mut process.frames, one));
    assert!(process.child.try_wait().unwrap().is_none());
    assert!(process.exit().success());
}

#[test]
fn it_is_locked_in_and_ends_with_its_supervisor() {
    let mut process = start(Vec::new());
    let stat = format!("/proc/{}/status", process.child.id());
    let status = std::fs::read_to_string(&stat).unwrap();
    assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{status}");
    let mut guest = Guest::new(&process.frames);
    let port = echo_server();
    echo(&mut guest, port, 50000, b"x");
    drop(process.peer);
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
}
