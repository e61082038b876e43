use reprise_device::Event;
use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_virtio::testing::{Rig, Rng as Chance, hostile};

use super::*;

#[test]
fn conforms() {
    let values = [0, 1, 2, 3, 7, 11, 15, 64, 0x8000_0000, 0x8000_1000];
    for config in ["()", "(legacy: true, queue_size: 1)"] {
        Suite::new(&Plugin::of::<Virtio<Rng>>(), config).values(&values).check();
    }
}

#[test]
fn bytes_come_when_a_buffer_waits() {
    let mut r = Rig::new::<Virtio<Rng>>("()", Vec::new());
    r.bring_up(u64::MAX, &[8]);
    assert_eq!(r.device.want(0), 0);
    let at = r.alloc(64, 64);
    r.add(0, &[(at, 40, true)]);
    r.add(0, &[(at + 40, 24, true)]);
    r.kick(0);
    assert_eq!((r.device.want(0), r.used(0).len()), (64, 0));
    let data: Vec<u8> = (1..=50).collect();
    r.step(Event::Host { port: 0, data: &data });
    assert_eq!(r.used(0), [(0, 40), (1, 10)]);
    assert!(r.line);
    assert_eq!(r.peek(at, 50), data);
    assert_eq!(r.device.want(0), 0);
    // A reset forgets the buffers.
    r.add(0, &[(at, 40, true)]);
    r.kick(0);
    assert_eq!(r.device.want(0), 40);
    r.write(reprise_virtio::regs::reg::STATUS, 0);
    assert_eq!(r.device.want(0), 0);
    r.bring_up(u64::MAX, &[8]);
    r.add(0, &[(at, 40, false)]);
    r.kick(0);
    assert!(r.needs_reset());
}

#[test]
fn hostile_drivers() {
    let mut worked = 0;
    for seed in 0..500 {
        let mut rng = Chance(seed);
        let script: Vec<u8> = (0..300).map(|_| rng.next() as u8).collect();
        worked += u32::from(hostile::<Virtio<Rng>>("()", &[8], &script));
    }
    assert!(worked > 100, "only {worked} scripts made a request");
}
