use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

struct Clock {
    device: Instance,
    irq: bool,
    armed: Option<VTime>,
}

impl Clock {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Pl031>().create(config).unwrap();
        let mut clock = Self { device, irq: false, armed: None };
        clock.step(0, Event::Reset);
        clock
    }

    fn step(&mut self, second: u64, event: Event<'_>) -> u64 {
        let Self { device, irq, armed } = self;
        let mut replied = 0;
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { level, .. } => *irq = level,
            Effect::Arm { at, .. } => *armed = Some(at),
            Effect::Disarm { .. } => *armed = None,
            _ => {}
        };
        device.step(VTime(second * 1_000_000_000), event, &mut effect).unwrap();
        replied
    }

    fn read(&mut self, second: u64, offset: u64) -> u64 {
        self.step(second, Event::Read { tag: 0, offset, size: 4 })
    }

    fn write(&mut self, second: u64, offset: u64, value: u64) {
        self.step(second, Event::Write { tag: 0, offset, size: 4, value });
    }
}

#[test]
fn conforms() {
    Suite::new(&Plugin::of::<Pl031>(), "()").seeds(60).values(&[1, 2, 100]).check();
    Suite::new(&Plugin::of::<Pl031>(), "(base: fixed(4294967290))").values(&[1, 0]).check();
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(base: fixed)", "(base: fixed(-1))", "(base: fixed(4294967296))", "(base: now)", "(start: 1)"] {
        assert!(Plugin::of::<Pl031>().create(config).is_err(), "{config}");
    }
}

#[test]
fn a_fixed_date() {
    let mut c = Clock::new("(base: fixed(1700000000))");
    assert_eq!(c.device.want(0), 0);
    assert_eq!(c.read(0, reg::DR), 1_700_000_000);
    assert_eq!(c.read(61, reg::DR), 1_700_000_061);
    c.write(100, reg::LR, 5);
    assert_eq!((c.read(107, reg::DR), c.read(107, reg::LR), c.read(107, reg::CR)), (12, 5, 1));
}

#[test]
fn the_hosts_date() {
    let mut c = Clock::new("()");
    assert_eq!(c.device.want(0), 8);
    assert_eq!(c.read(3, reg::DR), 3);
    let date = 1_800_000_000u64.to_le_bytes();
    c.step(10, Event::Host { port: 0, data: &date[..3] });
    assert_eq!(c.device.want(0), 5);
    c.step(10, Event::Host { port: 0, data: &date[3..] });
    assert_eq!(c.device.want(0), 0);
    assert_eq!(c.read(15, reg::DR), 1_800_000_005);
    c.step(20, Event::Reset);
    assert_eq!(c.device.want(0), 8, "after a reset it asks again");
    c.write(21, reg::LR, 77);
    assert_eq!(c.device.want(0), 0, "the guest has set the date");
}

#[test]
fn the_alarm() {
    let mut c = Clock::new("(base: fixed(1000))");
    c.write(0, reg::MR, 1060);
    assert_eq!(c.armed, None, "nobody waits for it");
    c.write(0, reg::IMSC, 1);
    assert_eq!(c.armed, Some(VTime(60_000_000_000)));
    c.step(60, Event::Timer(0));
    assert!(c.irq);
    assert_eq!((c.read(61, reg::RIS), c.read(61, reg::MIS)), (1, 1));
    c.write(61, reg::ICR, 1);
    assert!(!c.irq);
    c.write(70, reg::IMSC, 0);
    c.write(70, reg::MR, 1080);
    assert_eq!((c.read(79, reg::RIS), c.read(80, reg::RIS), c.read(80, reg::MIS)), (0, 1, 0));
    c.write(90, reg::MR, 1090);
    c.write(90, reg::IMSC, 1);
    assert!(c.irq, "a match with the present date");
}
