use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

struct Timer {
    device: Instance,
    now: VTime,
    irq: bool,
    armed: [Option<VTime>; 2],
}

impl Timer {
    fn new() -> Self {
        let mut timer =
            Self { device: Plugin::of::<Sp804>().create("()").unwrap(), now: VTime(0), irq: false, armed: [None; 2] };
        timer.step(Event::Reset);
        timer
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, now, irq, armed } = self;
        let mut replied = 0;
        if let Event::Timer(id) = event {
            armed[id as usize] = None;
        }
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { pin: 0, level } => *irq = level,
            Effect::Arm { id, at } => armed[id as usize] = Some(at),
            Effect::Disarm { id } => armed[id as usize] = None,
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

    /// Goes to `us` microseconds and fires the timers on the way.
    fn at(&mut self, us: u64) {
        let end = VTime(us * 1000);
        while let Some((at, id)) = (0..2).filter_map(|i| self.armed[i].map(|at| (at, i as u32))).min() {
            if at > end {
                break;
            }
            self.now = at;
            self.step(Event::Timer(id));
        }
        self.now = end;
    }
}

const WIDE_PERIODIC_INT: u64 = 0xe2;

#[test]
fn conforms() {
    let plugin = Plugin::of::<Sp804>();
    Suite::new(&plugin, "()").values(&[0xe2, 0xa2, 0xa3, 0xe6, 0x80, 1, 100]).seeds(60).check();
    Suite::new(&plugin, "(clock_hz: (24000000, 32768))").values(&[0xe2, 0xe3, 5]).check();
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(clock_hz: (0, 1))", "(refclk_hz: 2000000000)", "(hz: 1)"] {
        assert!(Plugin::of::<Sp804>().create(config).is_err(), "{config}");
    }
}

#[test]
fn reset_values() {
    let mut t = Timer::new();
    let values: Vec<_> = (0..7).map(|i| t.read(0x20 + 4 * i)).collect();
    assert_eq!(values, [0, 0xffff_ffff, 0x20, 0, 0, 0, 0]);
}

#[test]
fn a_periodic_timer_interrupts_at_its_interval() {
    let mut t = Timer::new();
    t.write(reg::LOAD, 10_000);
    t.write(reg::CONTROL, WIDE_PERIODIC_INT);
    t.at(4_000);
    assert_eq!(t.read(reg::VALUE), 6_000);
    t.at(9_999);
    assert!(!t.irq);
    t.at(10_000);
    assert!(t.irq);
    assert_eq!((t.read(reg::RIS), t.read(reg::MIS), t.read(reg::VALUE)), (1, 1, 10_000));
    t.write(reg::INTCLR, 0);
    assert!(!t.irq);
    assert_eq!(t.armed[0], Some(VTime(20_000_000)));
    // An interrupt that is not cleared needs no more timers, and the next comes in phase.
    t.at(77_000);
    assert_eq!(t.read(reg::VALUE), 3_000);
    t.write(reg::INTCLR, 0);
    assert_eq!(t.armed[0], Some(VTime(80_000_000)));
}

#[test]
fn a_one_shot_timer_halts_at_zero() {
    let mut t = Timer::new();
    t.write(0x20 + reg::CONTROL, 0xa3);
    t.write(0x20 + reg::LOAD, 500);
    t.at(500);
    assert!(t.irq);
    t.write(0x20 + reg::INTCLR, 1);
    t.at(1_000_000);
    assert_eq!((t.read(0x20 + reg::VALUE), t.read(0x20 + reg::RIS)), (0, 0));
    assert_eq!(t.armed, [None, None]);
    t.write(0x20 + reg::LOAD, 3);
    t.at(1_000_003);
    assert!(t.irq, "a load starts it again");
}

#[test]
fn a_free_running_timer_wraps() {
    let mut t = Timer::new();
    t.write(reg::CONTROL, 0x80);
    t.write(reg::LOAD, 5);
    t.at(5);
    assert_eq!((t.read(reg::VALUE), t.read(reg::RIS)), (0, 1));
    t.at(6);
    assert_eq!(t.read(reg::VALUE), 0xffff, "16 bits");
    t.write(reg::CONTROL, 0x82);
    t.write(reg::LOAD, 0);
    t.at(7);
    assert_eq!(t.read(reg::VALUE), 0xffff_ffff, "32 bits");
    assert!(!t.irq, "the interrupt is not enabled");
}

#[test]
fn prescalers_and_clock_selection() {
    let mut t = Timer::new();
    t.write(reg::CONTROL, 0x80 | 0x2 | 0x4);
    t.write(reg::LOAD, 1000);
    t.at(16 * 10 + 15);
    assert_eq!(t.read(reg::VALUE), 990);
    t.write(reg::CONTROL, 0x80 | 0x2 | 0x8);
    t.at(175 + 256 * 3);
    assert_eq!(t.read(reg::VALUE), 987);
    t.write(reg::CONTROL, 0x80 | 0x2);
    t.step(Event::Line { pin: 0, level: true });
    let before = t.read(reg::VALUE);
    t.at(943 + 1_000_000);
    let counted = before.wrapping_sub(t.read(reg::VALUE)) & 0xffff_ffff;
    assert!((32_767..=32_769).contains(&counted), "{counted} counts of 32768 Hz in a second");
}

#[test]
fn the_background_load_waits_for_the_end_of_the_count() {
    let mut t = Timer::new();
    t.write(reg::LOAD, 100);
    t.write(reg::CONTROL, WIDE_PERIODIC_INT);
    t.at(40);
    t.write(reg::BGLOAD, 1000);
    assert_eq!((t.read(reg::VALUE), t.read(reg::LOAD)), (60, 1000));
    t.at(100);
    assert_eq!(t.read(reg::VALUE), 1000);
    t.write(reg::CONTROL, 0);
    t.at(5000);
    assert_eq!(t.read(reg::VALUE), 1000 & 0xffff, "a disabled timer stands still");
}
