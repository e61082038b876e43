use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};
use reprise_device::spec::ReadPolicy;

use super::*;

struct Board {
    device: Instance,
    lines: [bool; 2],
    now: VTime,
}

impl Board {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Sysreg>().create(config).unwrap();
        Self { device, lines: [false; 2], now: VTime(0) }
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, lines, now } = self;
        let mut replied = 0;
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { pin, level } => lines[pin as usize] = level,
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

    /// A command as the kernel gives it; the data, or none after an error.
    fn command(&mut self, write: Option<u32>, function: u32, site: u32, device: u32) -> Option<u32> {
        self.write(reg::CFGDATA, write.unwrap_or(0xdead_beef).into());
        self.write(reg::CFGSTAT, 0);
        let command = 1 << 31 | u32::from(write.is_some()) << 30 | function << 20 | site << 16 | device;
        self.write(reg::CFGCTRL, command.into());
        assert_eq!(self.read(reg::CFGCTRL) >> 31, 0, "the start bit clears");
        match self.read(reg::CFGSTAT) {
            1 => Some(self.read(reg::CFGDATA) as u32),
            3 => None,
            other => panic!("SYS_CFGSTAT is {other:#x}"),
        }
    }
}

#[test]
fn conforms() {
    let commands = [0xc010_0000, 0xc011_0004, 0x8011_0004, 0xc080_0000, 0xc090_0000, 0x80d1_0001, 0xa05f];
    Suite::new(&Plugin::of::<Sysreg>(), "()").values(&commands).check();
    let other = "(id: 5, switches: 3, cfgsw: 7, master_site: 2, sites: [(site: 2, osc: [(1, 9)])])";
    Suite::new(&Plugin::of::<Sysreg>(), other).values(&commands).check();
}

#[test]
fn wrong_configs_are_refused() {
    for (config, word) in [
        ("(master_site: 3)", "master_site"),
        ("(sites: [(site: 4)])", "at most 3"),
        ("(sites: [(osc: [(4096, 1)])])", "4095"),
        ("(sites: [(osc: [(1, 1), (1, 2)])])", "twice"),
        ("(sites: [(oscillators: [])])", "oscillators"),
        ("(switches: 256)", ""),
    ] {
        let error = Plugin::of::<Sysreg>().create(config).unwrap_err().to_string();
        assert!(error.contains(word), "{config}: {error}");
    }
}

#[test]
fn identification_and_counters() {
    let mut b = Board::new("(switches: 0x5a)");
    assert_eq!((b.read(0), b.read(4), b.read(0x84)), (0x1190_f500, 0x5a, 0x1400_0237));
    b.now = VTime(1_500_000_000);
    assert_eq!((b.read(0x24), b.read(0x5c)), (150, 36_000_000));
    b.now = VTime(180_000_000_000);
    assert_eq!(b.read(0x5c), 4_320_000_000 & 0xffff_ffff);
    assert_eq!(b.device.spec().read_policy(0x5c, 4), ReadPolicy::Clock { hz: 24_000_000 });
}

#[test]
fn flags_are_set_and_cleared_apart() {
    let mut b = Board::new("()");
    b.write(0x30, 0xf0);
    b.write(0x34, 0x30);
    b.write(0x38, 1);
    assert_eq!((b.read(0x30), b.read(0x34), b.read(0x38)), (0xc0, 0, 1));
    b.write(0x3c, 1);
    assert_eq!(b.read(0x38), 0);
    b.write(reg::LED, 0x1ff);
    assert_eq!(b.read(reg::LED), 0xff);
    b.step(Event::Line { pin: 0, level: true });
    b.step(Event::Line { pin: 1, level: true });
    assert_eq!(b.read(reg::MCI), 3);
    assert_eq!(b.read(reg::LOCK), 0x1_0000);
    b.write(reg::LOCK, UNLOCK.into());
    assert_eq!(b.read(reg::LOCK), 0xa05f);
}

#[test]
fn oscillators_and_sensors() {
    let mut b = Board::new("()");
    assert_eq!(b.command(None, 1, 0, 2), Some(24_000_000));
    assert_eq!(b.command(None, 1, 1, 5), Some(23_750_000));
    assert_eq!(b.command(Some(65_000_000), 1, 1, 5), Some(65_000_000));
    assert_eq!(b.command(None, 1, 1, 5), Some(65_000_000));
    assert_eq!(b.command(None, 2, 1, 0), Some(900_000));
    assert_eq!(b.command(None, 13, 1, 1), Some(0));
    assert_eq!(b.command(None, 1, 2, 0), None, "there is no board in site 2");
    assert_eq!(b.command(Some(1), 4, 1, 0), None, "a temperature cannot be set");
    b.step(Event::Reset);
    assert_eq!(b.command(None, 1, 1, 5), Some(23_750_000));
}

#[test]
fn shutdown_and_reboot() {
    let mut b = Board::new("()");
    assert_eq!(b.command(None, 8, 0, 0), None);
    assert_eq!(b.lines, [false, false]);
    b.command(Some(0), 8, 0, 0).unwrap();
    assert_eq!(b.lines, [true, false]);
    b.command(Some(0), 9, 0, 0).unwrap();
    assert_eq!(b.lines, [true, true]);
    b.step(Event::Reset);
    assert_eq!(b.lines, [false, false]);
    b.command(Some(0), 5, 0, 0).unwrap();
    assert_eq!(b.lines, [false, true]);
}
