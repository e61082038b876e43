//! What the network costs: a ping's round trip through the process, and TCP through it to an echo server on loopback. Build `backend-proc` first:
//! it is looked for beside the examples' folder.

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::{Guest, Process};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::AsFd;

const PINGS: usize = 20_000;
const BYTES: usize = 200_000_000;

fn main() {
    let exe = std::env::current_exe().expect("this program has a place");
    let program = exe.parent().and_then(|p| p.parent()).expect("it is in target/PROFILE/examples").join("backend-proc");
    assert!(program.is_file(), "build backend-proc first: {}", program.display());
    ping(&Process::start(&program, Vec::new()));
    let process = Process::start(&program, Vec::new());
    to_host(&process);
    from_host(&process);
}

fn checksum(data: &[u8]) -> [u8; 2] {
    let mut sum: u32 = data.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An echo request of 56 bytes, as `ping` sends it.
fn request() -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, 1];
    icmp.extend((0..56).map(|n| n as u8));
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, (20 + icmp.len()) as u8, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut frame = vec![0x52, 0x55, 0x0a, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0];
    frame.extend(ip);
    frame.extend(icmp);
    frame
}

fn ping(process: &Process) {
    let frame = request();
    let mut buffer = [0; 2000];
    let mut times: Vec<Duration> = (0..PINGS)
        .map(|_| {
            let began = Instant::now();
            send(process.frames.as_raw_fd(), &frame, MsgFlags::empty()).expect("the process is there");
            let mut ready = [PollFd::new(process.frames.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::NONE).expect("poll");
            let n = recv(process.frames.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
            assert_eq!((n, buffer[34]), (frame.len(), 0), "an echo reply");
            began.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[(PINGS - 1) * percent / 100].as_secs_f64() * 1e6;
    println!("ping: median {:.1} us, 10 % below {:.1} us, 90 % below {:.1} us", at(50), at(10), at(90));
    println!(
        "      CPU time of backend-proc for each: {:.1} us, system calls included",
        busy(process) * 1e6 / PINGS as f64
    );
}

/// CPU time of the process, in seconds.
fn busy(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", process.child.id())).unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

fn rate(what: &str, began: Instant, busy: f64) {
    let megabytes = BYTES as f64 / 1e6;
    let (wall, cpu) = (megabytes / began.elapsed().as_secs_f64(), megabytes / busy);
    println!("TCP {what}: {wall:.0} MB/s; {cpu:.0} MB for each second of CPU time of backend-proc");
}

fn to_host(process: &Process) {
    let mut guest = Guest::new(&process.frames);
    let (listener, port) = listen();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().expect("the guest connects").0;
        let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            got += n;
        }
        got
    });
    let data = vec![7; 1 << 16];
    let handle = guest.connect(port, 50000);
    let (began, before, mut sent) = (Instant::now(), busy(process), 0);
    guest.until("the transfer", |g| {
        let socket = g.socket(handle);
        while sent < BYTES && socket.can_send() {
            sent += socket.send_slice(&data[..data.len().min(BYTES - sent)]).expect("it is open");
        }
        if sent == BYTES {
            socket.close();
        }
        server.is_finished()
    });
    assert_eq!(server.join().expect("the server"), BYTES);
    rate("from the guest", began, busy(process) - before);
}

fn from_host(process: &Process) {
    let mut guest = Guest::new(&process.frames);
    let (listener, port) = listen();
    std::thread::spawn(move || {
        let mut stream = listener.accept().expect("the guest connects").0;
        let data = vec![7; 1 << 16];
        let mut left = BYTES;
        while left > 0 {
            let n = left.min(data.len());
            stream.write_all(&data[..n]).expect("the guest reads");
            left -= n;
        }
    });
    let handle = guest.connect(port, 50001);
    let (began, before, mut got) = (Instant::now(), busy(process), 0);
    guest.until("the transfer", |g| {
        let socket = g.socket(handle);
        while socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).expect("it is open");
        }
        got == BYTES
    });
    rate("to the guest", began, busy(process) - before);
}
