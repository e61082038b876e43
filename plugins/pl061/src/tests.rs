use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

struct Gpio {
    device: Instance,
    now: VTime,
    lines: [bool; 9],
    armed: Option<VTime>,
    want: u64,
}

impl Gpio {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Pl061>().create(config).unwrap();
        let mut gpio = Self { device, now: VTime(0), lines: [false; 9], armed: None, want: 0 };
        gpio.step(Event::Reset);
        gpio
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, now, lines, armed, want } = self;
        let mut replied = 0;
        if let Event::Timer(_) = event {
            *armed = None;
        }
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { pin, level } => lines[pin as usize] = level,
            Effect::Arm { at, .. } => *armed = Some(at),
            Effect::Disarm { .. } => *armed = None,
            Effect::HostWant { bytes, .. } => *want = bytes,
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

    fn pin(&mut self, pin: u32, level: bool) {
        self.step(Event::Line { pin, level });
    }

    fn press(&mut self, data: &[u8]) {
        assert!(self.want >= data.len() as u64);
        self.step(Event::Host { port: port::KEYS, data });
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now.after(ms * 1_000_000);
        while let Some(at) = self.armed.filter(|&at| at <= end) {
            self.now = at;
            self.step(Event::Timer(0));
        }
        self.now = end;
    }
}

#[test]
fn conforms() {
    for config in ["()", "(pull: 0x81, hold_ms: 1)", "(hold_ms: 0)"] {
        Suite::new(&Plugin::of::<Pl061>(), config).values(&[0, 0xff, 0x0f, 1]).seeds(40).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(pull: 256)", "(hold_ms: 10001)", "(pulls: 1)"] {
        assert!(Plugin::of::<Pl061>().create(config).is_err(), "{config}");
    }
}

#[test]
fn the_address_masks_the_data() {
    let mut g = Gpio::new("()");
    g.write(reg::DIR, 0xff);
    g.write(0x0f << 2, 0xff);
    assert_eq!((g.read(reg::DATA), g.read(0x03 << 2), g.read(0)), (0x0f, 0x03, 0));
    // The example of TRM 3.3.1.
    g.write(0x098, 0xfb);
    assert_eq!(g.read(reg::DATA), 0x2b);
    assert_eq!(g.lines, [false, true, true, false, true, false, true, false, false]);
    // As the Linux driver does it: one pin, a byte.
    g.step(Event::Write { tag: 0, offset: 1 << 9, size: 1, value: 0x80 });
    assert_eq!(g.step(Event::Read { tag: 0, offset: 1 << 9, size: 1 }), 0x80);
}

#[test]
fn inputs_outputs_and_the_alternate_function() {
    let mut g = Gpio::new("(pull: 0x01)");
    assert_eq!((g.read(reg::DATA), g.lines[1]), (1, true));
    g.pin(0, false);
    g.pin(7, true);
    assert_eq!(g.read(reg::DATA), 0x80);
    g.write(reg::DATA, 0x7f);
    assert_eq!(g.read(reg::DATA), 0x80, "inputs");
    g.write(reg::DIR, 0x81);
    assert_eq!((g.read(reg::DATA), g.lines[8], g.lines[1]), (1, false, true));
    g.write(reg::AFSEL, 0x81);
    assert_eq!((g.read(reg::DATA), g.lines[1]), (0x80, true));
    g.step(Event::Reset);
    assert_eq!((g.read(reg::DATA), g.read(reg::DIR), g.read(reg::AFSEL)), (1, 0, 0));
}

#[test]
fn edges_are_kept_and_cleared() {
    let mut g = Gpio::new("()");
    g.write(reg::IEV, 0x02);
    g.write(reg::IBE, 0x04);
    for pin in 0..4 {
        g.pin(pin, true);
    }
    assert_eq!((g.read(reg::RIS), g.read(reg::MIS), g.lines[0]), (0x06, 0, false));
    g.write(reg::IE, 0x0f);
    assert!(g.lines[0]);
    g.write(reg::IC, 0xff);
    assert_eq!((g.read(reg::RIS), g.lines[0]), (0, false));
    for pin in 0..4 {
        g.pin(pin, false);
    }
    assert_eq!((g.read(reg::RIS), g.read(reg::MIS)), (0x0d, 0x0d), "falling, but for pin 1");
}

#[test]
fn levels_last_as_long_as_the_pin_does() {
    let mut g = Gpio::new("()");
    g.write(reg::IEV, 0x01);
    g.write(reg::IS, 0x03);
    g.write(reg::IE, 0x01);
    assert_eq!((g.read(reg::RIS), g.lines[0]), (0x02, false), "pin 1 detects low");
    g.pin(0, true);
    g.write(reg::IC, 0xff);
    assert_eq!((g.read(reg::MIS), g.lines[0]), (1, true));
    g.pin(0, false);
    assert!(!g.lines[0]);
}

#[test]
fn a_key_is_held_for_a_while() {
    let mut g = Gpio::new("()");
    g.write(reg::IBE, 0x08);
    g.write(reg::IE, 0x08);
    g.press(&[3, 1, 3]);
    g.press(&[0, 9, 1, 3, 1, 3, 0]);
    assert_eq!((g.read(reg::DATA), g.lines[0]), (8, true));
    g.write(reg::IC, 8);
    g.pass(99);
    assert_eq!((g.read(reg::DATA), g.lines[0]), (8, false));
    g.pass(1);
    assert_eq!((g.read(reg::DATA), g.lines[0]), (0, true));
    g.pass(100);
    assert_eq!(g.read(reg::DATA), 8);
    g.pass(100);
    assert_eq!(g.read(reg::DATA), 0);
    g.pass(100);
    assert_eq!(g.armed, None);
}

#[test]
fn no_more_is_wanted_than_can_wait() {
    let mut g = Gpio::new("()");
    let mut sent = 0;
    while g.want > 0 {
        let data: Vec<u8> =
            (0..g.want).map(|i| if (sent + i) % 2 == 0 { 5 } else { u8::from((sent + i) % 4 == 1) }).collect();
        sent += g.want;
        g.press(&data);
    }
    assert!(sent >= 32 && sent <= 2 * KEYS as u64 + 2, "{sent}");
    let mut changes = 1;
    while g.armed.is_some() {
        let before = g.read(reg::DATA);
        g.pass(100);
        changes += u64::from(g.read(reg::DATA) != before);
    }
    assert_eq!(changes, sent / 2);
    assert!(g.want > 0);
}
