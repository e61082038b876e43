//! The ends of several ports: each has its own bytes, and none is lost or doubled when the process is killed.

mod common;

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{LONG, compile, inheritable, packets, spawn, wait};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use reprise_backends::stream;
use reprise_channel::segment::segment_name;
use reprise_channel::{Abort, ChannelConfig, ChannelSegment, CpuPort, Event, Request, Sent, TapPort};
use reprise_child::control::{
    BackendStart, Blame, Common, DeviceStart, DeviceState, ESTATE_BYTES, FromChild, Mode, PortEnd, Start, ToChild, Way,
};
use reprise_child::{Peer, pair};

const OPEN: u64 = 0x00;
const SAY: u64 = 0x04;
/// The byte ports of the plugin, the backend's first.
const PORTS: [&str; 3] = ["main", "left", "org.right"];
/// Input that is sent once more to a new process: more than one can have taken without a note, and than can wait here.
const RECENT: usize = 64 << 10;

/// What is outside of a port.
struct Outside {
    input: File,
    output: File,
    /// The process's ends.
    theirs: (OwnedFd, OwnedFd),
    /// On their way in.
    packets: VecDeque<Vec<u8>>,
    sent: Vec<u8>,
    got: Vec<u8>,
}

impl Outside {
    fn new() -> Self {
        let ((input, input_read), (output, output_write)) = (packets(), packets());
        for ours in [&input, &output] {
            fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        let theirs = (inheritable(input_read), inheritable(output_write));
        let packets = VecDeque::new();
        Self { input: input.into(), output: output.into(), theirs, packets, sent: Vec::new(), got: Vec::new() }
    }

    fn send(&mut self, data: &[u8]) {
        for piece in data.chunks(stream::PIECE) {
            self.packets.push_back(stream::packet(self.sent.len() as u64, piece));
            self.sent.extend(piece);
        }
        self.work();
    }

    /// A new process is there.
    fn repeat(&mut self) {
        let start = self.sent.len().saturating_sub(RECENT);
        let again = self.sent[start..].chunks(stream::PIECE).enumerate();
        let again = again.map(|(i, piece)| stream::packet((start + i * stream::PIECE) as u64, piece));
        // What was not sent yet is part of it.
        self.packets = again.collect();
        self.work();
    }

    /// Gives and takes what there is, without waiting.
    fn work(&mut self) {
        while self.packets.front().is_some_and(|packet| self.input.write_all(packet).is_ok()) {
            self.packets.pop_front();
        }
        let mut packet = [0; stream::HEADER + stream::PIECE];
        while let Ok(n) = self.output.read(&mut packet) {
            let at = u64::from_le_bytes(packet[..stream::HEADER].try_into().unwrap());
            assert!(at <= self.got.len() as u64, "a gap between {} and {at}", self.got.len());
            self.got.extend(stream::new_part(&packet[..n], self.got.len() as u64).unwrap_or_default());
        }
    }
}

/// A device with the other ends of all that it holds, which outlive its processes.
struct Machine {
    plugin: PathBuf,
    estate: OwnedFd,
    child: Child,
    peer: Peer,
    // Before the segment: a port is gone before its channel is.
    cpu: CpuPort,
    tap: TapPort,
    segment: ChannelSegment,
    ports: Vec<Outside>,
    now: u64,
    /// Input that was offered and not delivered, and all that was delivered, by port.
    offers: VecDeque<(usize, Vec<u8>)>,
    delivered: Vec<Vec<u8>>,
    /// Output on the record: by port, and all.
    recorded: Vec<Vec<u8>>,
    record: Vec<u8>,
}

/// What a process says when it has been started for these ports.
fn launch(
    plugin: &Path,
    segment: &str,
    estate: &OwnedFd,
    ports: &[Outside],
    names: &[&str],
    way: Way,
) -> (Child, Peer, FromChild) {
    let (mut peer, theirs) = pair().unwrap();
    let (plugin_fd, estate) = (inheritable(File::open(plugin).unwrap()), inheritable(estate));
    let child = spawn(&inheritable(theirs));
    let end = |(name, port): (&&str, &Outside)| PortEnd {
        port: (*name).into(),
        input: port.theirs.0.as_raw_fd(),
        output: port.theirs.1.as_raw_fd(),
    };
    let start = DeviceStart {
        common: Common { name: "dev0".into(), log_filter: "warn".into(), jitter: None, mode: Mode::Record },
        channel: 0,
        segment: segment.into(),
        plugin: plugin_fd.as_raw_fd(),
        plugin_file: plugin.display().to_string(),
        kind: "ports".into(),
        window: 0x1000,
        config: "()".into(),
        backend: BackendStart::Console {
            input: Some(ports[0].theirs.0.as_raw_fd()),
            output: ports[0].theirs.1.as_raw_fd(),
        },
        ends: names.iter().zip(&ports[1..]).map(end).collect(),
        disk: None,
        estate: Some(estate.as_raw_fd()),
        way,
        swaps: Vec::new(),
    };
    peer.send(&ToChild::Start(Box::new(Start::Device(start)))).unwrap();
    let answer = peer.receive_until(Instant::now() + LONG).unwrap();
    (child, peer, answer)
}

/// Memory that outlives a device's processes.
fn estate() -> OwnedFd {
    let name = CString::new("estate").unwrap();
    let fd = nix::sys::memfd::memfd_create(name.as_c_str(), nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, ESTATE_BYTES as i64).unwrap();
    fd
}

fn segment() -> ChannelSegment {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = segment_name(&format!("portstest{}", std::process::id()), NUMBER.fetch_add(1, Ordering::SeqCst));
    ChannelSegment::create(&name, &ChannelConfig::new(0, "dev0", true)).unwrap()
}

impl Machine {
    fn new(plugin: PathBuf) -> Self {
        let (estate, segment) = (estate(), segment());
        let ports: Vec<Outside> = PORTS.iter().map(|_| Outside::new()).collect();
        let (child, peer, answer) = launch(&plugin, segment.name(), &estate, &ports, &PORTS[1..], Way::Fresh);
        assert!(matches!(answer, FromChild::Ready(_)), "{answer:?}");
        let (cpu, tap) = (CpuPort::attach(segment.name()).unwrap(), TapPort::attach(segment.name()).unwrap());
        peer.send(&ToChild::Go).unwrap();
        let none = || vec![Vec::new(); PORTS.len()];
        Self {
            plugin,
            estate,
            child,
            peer,
            cpu,
            tap,
            segment,
            ports,
            now: 0,
            offers: VecDeque::new(),
            delivered: none(),
            recorded: none(),
            record: Vec::new(),
        }
    }

    /// Another process takes the place of the one that is killed now, or was.
    fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        wait(&mut self.child);
        let (plugin, segment) = (&self.plugin, self.segment.name());
        let (child, mut peer, answer) = launch(plugin, segment, &self.estate, &self.ports, &PORTS[1..], Way::Successor);
        assert!(matches!(answer, FromChild::Ready(_)), "{answer:?}");
        self.ports.iter_mut().for_each(Outside::repeat);
        let took = peer.receive_until(Instant::now() + LONG).unwrap();
        assert!(matches!(took, FromChild::Took), "{took:?}");
        (self.child, self.peer) = (child, peer);
    }

    /// Takes what the device and its ports have said.
    fn look(&mut self) {
        while let Some(message) = self.cpu.try_event().unwrap() {
            if let Event::HostOffer { port, data } = message.event {
                self.offers.push_back((port as usize, data.to_vec()));
            }
        }
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(message) = self.tap.next_event().unwrap() {
            if let Event::HostOut { port, data } = message.event {
                self.recorded[port as usize].extend(data);
                self.record.extend(data);
            }
        }
        while self.tap.next_request().unwrap().is_some() {}
        self.tap.commit().unwrap();
        self.ports.iter_mut().for_each(Outside::work);
    }

    fn send(&mut self, request: &Request<'_>) -> u64 {
        self.now += 100;
        loop {
            match self.cpu.send(self.now, request, &Abort::after(LONG)).unwrap() {
                Sent::Done(seq) => return seq,
                Sent::EventPending => self.look(),
                Sent::Ended(how) => panic!("{how:?}"),
            }
        }
    }

    /// Waits for the answer to the request under way.
    fn answered(&mut self) -> u64 {
        let until = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < until, "no answer");
            if let Some(message) = self.cpu.wait_event(&Abort::after(Duration::from_millis(10))).unwrap() {
                match message.event {
                    Event::Reply { value } => return value,
                    Event::Ack => return 0,
                    Event::HostOffer { port, data } => self.offers.push_back((port as usize, data.to_vec())),
                    _ => {}
                }
            }
            self.listen();
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> u64 {
        self.send(request);
        self.answered()
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.ask(&Request::Write { offset, size: 4, value, posted: false });
    }

    /// Delivers the oldest offer, as far as sending it; false if there is none.
    fn deliver(&mut self) -> bool {
        self.look();
        let Some((port, data)) = self.offers.pop_front() else { return false };
        self.send(&Request::Host { port: port as u64, data: &data });
        self.delivered[port].extend(data);
        true
    }

    /// Delivers input until all these ports have sent back what went in.
    fn settle(&mut self, ports: &[usize]) {
        let until = Instant::now() + LONG;
        while ports.iter().any(|&p| self.ports[p].got.len() < self.delivered[p].len().max(self.ports[p].sent.len())) {
            let state = || self.ports.iter().map(|p| (p.sent.len(), p.got.len())).collect::<Vec<_>>();
            assert!(Instant::now() < until, "sent and got: {:?}", state());
            if self.deliver() {
                self.answered();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn save(&mut self) -> DeviceState {
        self.peer.send(&ToChild::Save).unwrap();
        let answer = self.peer.receive_until(Instant::now() + LONG).unwrap();
        self.listen();
        match answer {
            FromChild::State(state) => state,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plugin(dir: &Path) -> PathBuf {
    compile(dir, Path::new("tests/c/ports.c"), "libports.so")
}

/// `n` bytes of a stream that says where each of them stands.
fn bytes(port: usize, from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|i| (i * 7 + i / 251 + port * 90) as u8).collect()
}

#[test]
fn a_port_that_takes_nothing_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = Machine::new(plugin(dir.path()));
    m.ask(&Request::Reset);
    for port in 0..3 {
        m.ports[port].send(&bytes(port, 0, 10_000));
    }
    std::thread::sleep(Duration::from_millis(20));
    m.look();
    assert!(m.offers.is_empty(), "nobody wants anything");
    m.write(OPEN, 0b101);
    m.settle(&[0, 2]);
    assert!(m.delivered[1].is_empty() && m.ports[1].got.is_empty());
    m.write(OPEN, 0b010);
    m.ports[0].send(b"closed again");
    m.settle(&[1]);
    std::thread::sleep(Duration::from_millis(20));
    m.look();
    assert!(m.offers.iter().all(|(port, data)| *port != 1 && data.len() <= 1000), "what was wanted before it closed");
    for port in 0..3 {
        assert!(m.ports[port].got == bytes(port, 0, 10_000), "port {port}");
    }
}

#[test]
fn output_to_several_ports_in_one_step_is_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = Machine::new(plugin(dir.path()));
    m.ask(&Request::Reset);
    for byte in 0..200 {
        m.write(SAY, byte);
        if byte % 7 == 0 {
            // Then it was passed on, else it may have been.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let state = m.save();
    let order: Vec<u8> = (0..200).flat_map(|byte| [byte; 3]).collect();
    assert!(m.record == order, "{:?}", m.record);
    assert_eq!((state.output_bytes, state.output_hash), (600, *blake3::hash(&order).as_bytes()));
    for port in 0..3 {
        assert!(m.recorded[port] == m.ports[port].got && m.ports[port].got.len() == 200, "port {port}");
    }
}

/// Wherever the process is killed: each port's bytes come in and go out once, and the recording has the same.
#[test]
fn ports_outlive_their_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut m = Machine::new(plugin(dir.path()));
    m.ask(&Request::Reset);
    m.write(OPEN, 0b111);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    for round in 0..60 {
        for port in 0..3 {
            let (from, n) = (m.ports[port].sent.len(), below(3000) as usize);
            m.ports[port].send(&bytes(port, from, n));
        }
        for _ in 0..below(6) {
            if m.deliver() {
                m.answered();
            }
        }
        // In the middle of a step, of input, of output, or of nothing.
        let under_way = round % 2 == 0 && m.deliver();
        let pause = Duration::from_micros(below(400));
        let until = Instant::now() + pause;
        while Instant::now() < until {}
        m.kill();
        if under_way {
            m.answered();
        }
        if round % 8 == 7 {
            // So that streams do not come far apart, and sockets have room.
            m.settle(&[0, 1, 2]);
        }
    }
    m.settle(&[0, 1, 2]);
    let total: usize = m.ports.iter().map(|p| p.sent.len()).sum();
    assert_eq!(m.ask(&Request::Read { offset: OPEN, size: 4 }), total as u64);
    let state = m.save();
    for port in 0..3 {
        let p = &m.ports[port];
        assert!(p.sent == m.delivered[port] && p.sent == p.got && p.sent == m.recorded[port], "port {port}");
    }
    assert_eq!((state.output_bytes, state.output_hash), (total as u64, *blake3::hash(&m.record).as_bytes()));
}

#[test]
fn a_name_that_is_no_port_s_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = plugin(dir.path());
    let ports: Vec<Outside> = (0..2).map(|_| Outside::new()).collect();
    for (name, says) in [
        ("nothing", "dev0 has no port nothing; the ports of dev0 that can lead out so are left, org.right"),
        ("main", "main is where dev0 itself leads; say dev0=..."),
        ("frames", "the port frames of dev0 takes no plain bytes"),
    ] {
        let segment = segment();
        let (mut child, _peer, answer) = launch(&plugin, segment.name(), &estate(), &ports, &[name], Way::Fresh);
        assert!(!wait(&mut child).success());
        match answer {
            FromChild::Fatal { text, blame: Blame::Port } => assert!(text.contains(says), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
