//! The network cards under the kernel's own drivers: a lease, ping, and TCP in both directions, by a network in user mode.

use reprise_tests::{Rig, Run, guest, md5, prefix};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use xtask::guest::Guest;

/// Bytes that go each way.
const SIZE: usize = 2 << 20;

/// A listener on this host's loopback, and what is done with those who come.
fn listen(act: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&act));
    port
}

/// The host's side of the work: one port gives the data, the other one takes it and answers with its sum.
struct Host {
    get: u16,
    put: u16,
    sum: String,
}

impl Host {
    fn new(rig: &Rig) -> Self {
        let file = rig.image("sent.bin", SIZE);
        let (data, sum) = (std::fs::read(&file).expect("readable"), md5(&file));
        let get = listen(move |mut guest| {
            let _ = guest.write_all(&data);
            let _ = guest.shutdown(Shutdown::Write);
            let _ = guest.read_to_end(&mut Vec::new());
        });
        let taken = rig.path("taken.bin");
        let put = listen(move |mut guest| {
            let mut data = Vec::new();
            let _ = guest.read_to_end(&mut data);
            std::fs::write(&taken, data).expect("written");
            let _ = guest.write_all(md5(&taken).as_bytes());
        });
        Self { get, put, sum }
    }

    /// Boots Linux on a machine file with this card.
    fn machine(&self, rig: &Rig, config: &Path, card: &str, device: &str) -> Command {
        let guest = Guest { initrd: guest().virtio_initrd.clone(), ..guest().clone() };
        let append = format!("{} run=net card={card} get={} put={}", xtask::demo::APPEND, self.get, self.put);
        let mut args = xtask::demo::linux_args(&guest, &append);
        args[1] = config.display().to_string();
        let mut c = rig.supervisor();
        c.args(args).args(["--clock", "realtime", "--net"]).arg(format!("{device}=user,dns=none"));
        c
    }

    fn check(&self, run: &Run) {
        let text = run.ended.text();
        assert!(text.contains("lease inet addr:10.0.2.15"), "{text}");
        assert!(text.contains("10 packets transmitted, 10 packets received"), "{text}");
        assert!(text.contains(&format!("{}  g", self.sum)), "what came is what was sent: {text}");
        assert!(text.contains(&format!("put {}", self.sum)), "what was sent has arrived: {text}");
    }
}

fn replays(rig: &Rig, run: &Run) {
    rig.replay(&run.recording, &[]).exact(run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(run);
    for seed in ["1", "2"] {
        rig.replay(&run.recording, &["--jitter", seed]).exact(run);
    }
}

#[test]
fn the_lan9118_carries_a_lease_pings_and_connections() {
    let rig = Rig::new();
    let host = Host::new(&rig);
    let run = rig.record("lan", host.machine(&rig, Path::new("machines/vexpress.ron"), "lan", "eth0"));
    host.check(&run);
    replays(&rig, &run);
}

#[test]
fn virtio_net_carries_a_lease_pings_and_connections() {
    let rig = Rig::new();
    let host = Host::new(&rig);
    let board = prefix().join("share/reprise/configs/machines/vexpress.ron");
    let config = rig.path("machine.ron");
    std::fs::write(&config, xtask::torture::with_network(&board).expect("a board")).expect("written");
    let run = rig.record("virtio", host.machine(&rig, &config, "virtio", "net0"));
    host.check(&run);
    replays(&rig, &run);
}
