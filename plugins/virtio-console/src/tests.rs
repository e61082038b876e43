use reprise_device::Event;
use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_virtio::testing::{Rig, Rng, hostile};

use super::*;

const ALL: u64 = u64::MAX;

struct Guest {
    r: Rig,
    at: u64,
}

impl Guest {
    fn new(config: &str, mask: u64, queues: usize) -> Self {
        let mut r = Rig::new::<Virtio<Console>>(config, Vec::new());
        r.bring_up(mask, &vec![8; queues]);
        let at = r.alloc(4096, 64);
        Self { r, at }
    }

    fn control(&mut self, port: u32, event: u16, value: u16) {
        let m = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        self.r.poke(self.at, &m);
        self.r.add(3, &[(self.at, 8, false)]);
        self.r.kick(3);
        assert_eq!(self.r.used(3).len(), 1);
    }

    /// Gives `n` buffers for control messages; what came into them.
    fn heard(&mut self, n: u64) -> Vec<(u32, u16, u16, String)> {
        for i in 0..n {
            self.r.add(2, &[(self.at + 1024 + 128 * i, 128, true)]);
        }
        self.r.kick(2);
        let used = self.r.used(2);
        let message = |(i, u): (usize, &(u32, u32))| {
            let m = self.r.peek(self.at + 1024 + 128 * i as u64, u.1 as usize);
            let word = |i: usize| u16::from_le_bytes([m[i], m[i + 1]]);
            let port = u32::from_le_bytes(m[0..4].try_into().unwrap());
            (port, word(4), word(6), String::from_utf8(m[8..].to_vec()).unwrap())
        };
        used.iter().enumerate().map(message).collect()
    }
}

#[test]
fn conforms() {
    let values = [0, 1, 2, 3, 7, 11, 15, 64, 0x8000_0000, 0x8000_1000];
    for config in ["()", "(legacy: true, queue_size: 2)", "(ports: [\"a\", \"b.c\"])"] {
        Suite::new(&Plugin::of::<Virtio<Console>>(), config).values(&values).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(ports: [\"a\", \"a\"])", "(ports: [\"console\"])", "(ports: [\"a/b\"])", "(ports: [\"\"])"] {
        let e = Plugin::of::<Virtio<Console>>().create(config).unwrap_err().to_string();
        assert!(e.starts_with("ports"), "{config}: {e}");
    }
}

#[test]
fn ports_introduce_themselves() {
    let mut g = Guest::new("(ports: [\"org.example.0\"])", ALL, 6);
    assert_eq!(g.r.config(4, 4), 2);
    g.control(0, event::DEVICE_READY, 1);
    let added = |port| (port, event::DEVICE_ADD, 1, String::new());
    assert_eq!(g.heard(2), [added(0), added(1)]);
    g.control(0, event::PORT_READY, 1);
    g.control(1, event::PORT_READY, 1);
    let open = |port| (port, event::PORT_OPEN, 1, String::new());
    let name = (1, event::PORT_NAME, 1, "org.example.0".to_owned());
    assert_eq!(g.heard(4), [(0, event::CONSOLE_PORT, 1, String::new()), open(0), name, open(1)]);
    // Bytes both ways on both.
    for (port, rx, tx) in [(0, 0, 1), (1, 4, 5)] {
        g.r.out.clear();
        g.r.poke(g.at, b"hello");
        g.r.add(tx, &[(g.at, 2, false), (g.at + 2, 3, false)]);
        g.r.kick(tx);
        assert_eq!(g.r.out.iter().flat_map(|o| o.1.clone()).collect::<Vec<_>>(), b"hello");
        assert!(g.r.out.iter().all(|o| o.0 == port));
        g.r.add(rx, &[(g.at + 64, 4, true)]);
        g.r.add(rx, &[(g.at + 68, 8, true)]);
        g.r.kick(rx);
        assert_eq!(g.r.device.want(port), 0, "nobody has it open");
        g.control(port, event::PORT_OPEN, 1);
        assert_eq!(g.r.device.want(port), 12);
        g.r.step(Event::Host { port, data: b"goodbye" });
        assert_eq!(g.r.used(rx).iter().map(|u| u.1).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(g.r.peek(g.at + 64, 7), b"goodbye");
        assert_eq!(g.r.device.want(port), 0);
    }
}

#[test]
fn a_driver_without_multiport_has_a_console() {
    let mut g = Guest::new("()", !feature::MULTIPORT, 2);
    g.r.add(0, &[(g.at, 100, true)]);
    g.r.kick(0);
    assert_eq!(g.r.device.want(0), 100);
    g.r.step(Event::Host { port: 0, data: b"x" });
    assert_eq!(g.r.used(0), [(0, 1)]);
    // 5.3.4: even before there are queues.
    g.r.write(reprise_virtio::regs::reg::STATUS, 0);
    g.r.write(0x108, u32::from(b'!'));
    assert_eq!(g.r.out, [(0, b"!".to_vec())]);
}

#[test]
fn nonsense_asks_for_a_reset() {
    let mut g = Guest::new("()", ALL, 4);
    g.r.add(2, &[(g.at, 4, true)]);
    g.r.kick(2);
    assert!(!g.r.needs_reset());
    let m = [0u8, 0, 0, 0, 0, 0, 1, 0];
    g.r.poke(g.at, &m);
    g.r.add(3, &[(g.at, 8, false)]);
    g.r.kick(3);
    assert!(g.r.needs_reset(), "a buffer too small for a control message");
    let mut g = Guest::new("()", ALL, 4);
    g.r.add(3, &[(g.at, 7, false)]);
    g.r.kick(3);
    assert!(g.r.needs_reset());
}

#[test]
fn hostile_drivers() {
    let mut worked = 0;
    for seed in 0..500 {
        let mut rng = Rng(seed);
        let script: Vec<u8> = (0..400).map(|_| rng.next() as u8).collect();
        worked += u32::from(hostile::<Virtio<Console>>("(ports: [\"a\"])", &[4; 6], &script));
    }
    assert!(worked > 100, "only {worked} scripts made a request");
}
