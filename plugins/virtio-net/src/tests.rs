use reprise_device::Event;
use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_virtio::regs::{interrupt, reg};
use reprise_virtio::testing::{Piece, Rig, Rng, hostile};

use super::*;

const ALL: u64 = u64::MAX;

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect()
}

fn rig(config: &str, mask: u64) -> Rig {
    let mut r = Rig::new::<Virtio<Net>>(config, Vec::new());
    r.bring_up(mask, &[16, 16]);
    r
}

#[test]
fn conforms() {
    let values = [0, 1, 2, 3, 7, 11, 15, 64, 0x8000_0000, 0x8000_1000];
    for config in ["()", "(legacy: true, queue_size: 2)", "(mtu: 9000, link: false)"] {
        Suite::new(&Plugin::of::<Virtio<Net>>(), config).values(&values).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(mac: \"52:54:00\")", "(mac: \"53:54:00:12:34:56\")", "(mac: \"+1:54:00:12:34:56\")", "(mtu: 60)"] {
        assert!(Plugin::of::<Virtio<Net>>().create(config).is_err(), "{config}");
    }
}

#[test]
fn it_says_what_it_is() {
    let mut r = rig("(mac: \"02:00:00:00:00:07\")", ALL);
    assert_eq!((r.config(0, 1), r.config(5, 1), r.config(6, 2), r.config(10, 2)), (2, 7, 1, 1500));
}

#[test]
fn frames_go_out_whole() {
    let mut r = rig("()", ALL);
    let at = r.alloc(8192, 64);
    let sent = frame(1514, 3);
    r.poke(at + 12, &sent);
    r.add(1, &[(at, 12, false), (at + 12, 1514, false)]);
    r.add(1, &[(at, 12 + 60, false)]);
    // Too long and too short.
    r.add(1, &[(at, 12 + 1519, false)]);
    r.add(1, &[(at, 12 + 13, false)]);
    r.kick(1);
    assert_eq!(r.used(1).len(), 4);
    assert_eq!(r.out, [(0, sent.clone()), (0, sent[..60].to_vec())]);
    r.add(1, &[(at, 9, false)]);
    r.kick(1);
    assert!(r.needs_reset());
}

#[test]
fn frames_come_into_merged_buffers() {
    let mut r = rig("()", ALL);
    assert_eq!(r.device.want(0), 0);
    let at = r.alloc(16 * 1024, 64);
    let buffers: Vec<Piece> = (0..6).map(|i| (at + i * 1024, 700, true)).collect();
    buffers.iter().for_each(|b| {
        r.add(0, &[*b]);
    });
    r.kick(0);
    assert_eq!(r.device.want(0), 2);
    assert_eq!(r.avail_event(0), 6);
    let sent = frame(1500, 9);
    r.step(Event::Host { port: 0, data: &sent });
    assert!(r.line);
    assert_eq!(r.used(0), [(0, 700), (1, 700), (2, 112)]);
    assert_eq!(r.peek(at + 10, 2), [3, 0]);
    let got = [r.peek(at + 12, 688), r.peek(at + 1024, 700), r.peek(at + 2048, 112)].concat();
    assert_eq!(got, sent);
    assert_eq!(r.device.want(0), 1);
    r.step(Event::Host { port: 0, data: &sent[..60] });
    assert_eq!(r.used(0), [(3, 72)]);
    assert_eq!(r.peek(at + 3072 + 10, 2), [1, 0]);
    assert_eq!(r.device.want(0), 0);
}

#[test]
fn without_merging_a_frame_takes_one_buffer() {
    let mut r = rig("()", !feature::MRG_RXBUF);
    let at = r.alloc(8192, 64);
    for i in 0..2 {
        r.add(0, &[(at + i * 2048, 12, true), (at + i * 2048 + 12, 1514, true)]);
    }
    r.kick(0);
    assert_eq!(r.device.want(0), 2);
    let sent = frame(1514, 1);
    r.step(Event::Host { port: 0, data: &sent });
    assert_eq!(r.used(0), [(0, 1526)]);
    assert_eq!((r.peek(at + 10, 2), r.peek(at + 12, 1514)), (&[1, 0][..], &sent[..]));
    // One that the driver made too small: the frame is lost, the buffer stays.
    r.step(Event::Host { port: 0, data: &frame(1518, 1) });
    assert_eq!((r.used(0).len(), r.device.want(0)), (0, 1));
}

#[test]
fn a_link_that_is_down_carries_nothing() {
    let mut r = rig("(link: false)", ALL);
    let at = r.alloc(4096, 64);
    r.add(0, &[(at, 2048, true)]);
    r.kick(0);
    r.add(1, &[(at, 100, false)]);
    r.kick(1);
    assert_eq!((r.used(1).len(), r.out.len(), r.device.want(0)), (1, 0, 0));
}

#[test]
fn hostile_drivers() {
    let mut worked = 0;
    for seed in 0..500 {
        let mut rng = Rng(seed);
        let script: Vec<u8> = (0..400).map(|_| rng.next() as u8).collect();
        worked += u32::from(hostile::<Virtio<Net>>("()", &[8, 8], &script));
    }
    assert!(worked > 100, "only {worked} scripts made a request");
}

/// The driver sees the cable: the status bit, an interrupt for it, and a new generation; and it stays as it is when the driver resets the device.
#[test]
fn a_cable_that_is_pulled_is_seen() {
    let mut r = rig("()", ALL);
    let at = r.alloc(8192, 64);
    r.add(0, &[(at, 4096, true)]);
    r.kick(0);
    r.acknowledge();
    let generation = r.read(reg::CONFIG_GENERATION);
    assert_eq!((r.config(6, 2), r.device.want(WIRE), r.device.want(CABLE)), (1, 1, 1));
    // To be told what it knows is nothing.
    r.step(Event::Host { port: CABLE, data: &[1] });
    assert!(!r.line);
    r.step(Event::Host { port: CABLE, data: &[0] });
    assert_eq!((r.line, r.acknowledge(), r.line), (true, interrupt::CONFIG, false));
    assert_eq!((r.config(6, 2), r.device.want(WIRE)), (0, 0));
    assert_ne!(r.read(reg::CONFIG_GENERATION), generation);
    r.add(1, &[(at + 4096, 100, false)]);
    r.kick(1);
    assert_eq!((r.used(1).len(), r.out.len()), (1, 0), "it is sent to nobody");
    r.write(reg::STATUS, 0);
    assert_eq!((r.line, r.config(6, 2)), (false, 0));
    r.step(Event::Host { port: CABLE, data: &[1] });
    assert_eq!((r.line, r.config(6, 2)), (false, 1), "nobody is there to be told");
}
