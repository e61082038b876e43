use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

struct Dog {
    device: Instance,
    now: VTime,
    lines: [bool; 2],
    armed: Option<VTime>,
}

impl Dog {
    fn new() -> Self {
        let device = Plugin::of::<Sp805>().create("(clock_hz: 1000)").unwrap();
        let mut dog = Self { device, now: VTime(0), lines: [false; 2], armed: None };
        dog.step(Event::Reset);
        dog
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, now, lines, armed } = self;
        let mut replied = 0;
        if let Event::Timer(_) = event {
            *armed = None;
        }
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { pin, level } => lines[pin as usize] = level,
            Effect::Arm { at, .. } => *armed = Some(at),
            Effect::Disarm { .. } => *armed = None,
            _ => {}
        };
        device.step(*now, event, &mut effect).unwrap();
        replied
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.step(Event::Read { tag: 0, offset, size: 4 })
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.step(Event::Write { tag: 0, offset, size: 4, value });
    }

    fn at(&mut self, ms: u64) {
        let end = VTime(ms * 1_000_000);
        while let Some(at) = self.armed.filter(|&at| at <= end) {
            self.now = at;
            self.step(Event::Timer(0));
        }
        self.now = end;
    }
}

#[test]
fn conforms() {
    let values = [u64::from(UNLOCK), 1, 2, 3, 50];
    Suite::new(&Plugin::of::<Sp805>(), "()").values(&values).seeds(60).check();
    Suite::new(&Plugin::of::<Sp805>(), "(clock_hz: 1000000000)").values(&values).check();
}

#[test]
fn wrong_configs_are_refused() {
    assert!(Plugin::of::<Sp805>().create("(clock_hz: 0)").is_err());
    assert!(Plugin::of::<Sp805>().create("(hz: 5)").is_err());
}

#[test]
fn it_interrupts_then_resets() {
    let mut dog = Dog::new();
    dog.write(reg::LOAD, 99);
    dog.write(reg::CONTROL, 3);
    dog.at(60);
    assert_eq!(dog.read(reg::VALUE), 39);
    assert_eq!(dog.lines, [false, false]);
    dog.at(99);
    assert_eq!(dog.lines, [true, false]);
    assert_eq!((dog.read(reg::RIS), dog.read(reg::MIS), dog.read(reg::VALUE)), (1, 1, 0));
    dog.at(198);
    assert_eq!(dog.lines, [true, false]);
    dog.at(199);
    assert_eq!(dog.lines, [true, true]);
    dog.step(Event::Reset);
    assert_eq!((dog.lines, dog.armed), ([false, false], None));
}

#[test]
fn a_fed_dog_does_not_bite() {
    let mut dog = Dog::new();
    dog.write(reg::LOAD, 99);
    dog.write(reg::CONTROL, 3);
    for i in 1..20 {
        dog.at(i * 120);
        assert!(dog.lines[0]);
        dog.write(reg::INTCLR, 1);
        assert_eq!((dog.lines, dog.read(reg::VALUE)), ([false, false], 99));
    }
}

#[test]
fn the_lock_keeps_registers_from_change() {
    let mut dog = Dog::new();
    dog.write(reg::LOCK, 0);
    assert_eq!(dog.read(reg::LOCK), 1);
    dog.write(reg::LOAD, 5);
    dog.write(reg::CONTROL, 1);
    assert_eq!((dog.read(reg::LOAD), dog.read(reg::CONTROL)), (0xffff_ffff, 0));
    dog.write(reg::LOCK, UNLOCK.into());
    assert_eq!(dog.read(reg::LOCK), 0);
    dog.write(reg::LOAD, 5);
    assert_eq!(dog.read(reg::LOAD), 5);
}

#[test]
fn without_the_reset_enable_it_only_interrupts() {
    let mut dog = Dog::new();
    dog.write(reg::LOAD, 9);
    dog.write(reg::CONTROL, 1);
    dog.at(500);
    assert_eq!((dog.lines, dog.armed), ([true, false], None));
    dog.write(reg::CONTROL, 0);
    assert_eq!(dog.lines, [false, false]);
    assert_eq!(dog.read(reg::RIS), 1);
}
