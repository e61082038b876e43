use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

const BOARD: &str = "(targets: [sii9022(at: 0x39), registers(at: 0x60)])";

/// A controller that moves the lines bit by bit, as Linux's i2c-algo-bit does.
struct Master {
    device: Instance,
}

impl Master {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<VersatileI2c>().create(config).unwrap();
        let mut master = Self { device };
        master.step(Event::Reset);
        master.set(line::ALL);
        master
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let mut replied = 0;
        let mut effect = |e: Effect<'_>| {
            if let Effect::Reply { value, .. } = e {
                replied = value;
            }
        };
        self.device.step(VTime(0), event, &mut effect).unwrap();
        replied
    }

    fn set(&mut self, lines: u8) {
        self.step(Event::Write { tag: 0, offset: reg::CONTROL, size: 4, value: lines.into() });
    }

    fn clear(&mut self, lines: u8) {
        self.step(Event::Write { tag: 0, offset: reg::CONTROLC, size: 4, value: lines.into() });
    }

    fn lines(&mut self) -> u8 {
        self.step(Event::Read { tag: 0, offset: reg::CONTROL, size: 4 }) as u8
    }

    fn start(&mut self) {
        self.set(line::SDA);
        self.set(line::SCL);
        assert_eq!(self.lines(), line::ALL, "the bus is free");
        self.clear(line::SDA);
        self.clear(line::SCL);
    }

    fn stop(&mut self) {
        self.clear(line::SDA);
        self.set(line::SCL);
        self.set(line::SDA);
        assert_eq!(self.lines(), line::ALL);
    }

    /// One clock; the bit that was on the data line.
    fn bit(&mut self, bit: bool) -> bool {
        if bit {
            self.set(line::SDA)
        } else {
            self.clear(line::SDA)
        }
        self.set(line::SCL);
        let got = self.lines() & line::SDA != 0;
        self.clear(line::SCL);
        got
    }

    /// Sends a byte; whether it was acknowledged.
    fn send(&mut self, byte: u8) -> bool {
        for i in (0..8).rev() {
            let bit = byte >> i & 1 != 0;
            assert_eq!(self.bit(bit), bit);
        }
        !self.bit(true)
    }

    fn receive(&mut self, more: bool) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
        self.bit(!more);
        byte
    }

    fn write(&mut self, at: u8, bytes: &[u8]) -> bool {
        self.start();
        let taken = self.send(at << 1) && bytes.iter().all(|&b| self.send(b));
        self.stop();
        taken
    }

    /// Reads registers: the pointer, a repeated start, and `n` bytes.
    fn read(&mut self, at: u8, pointer: u8, n: usize) -> Option<Vec<u8>> {
        self.start();
        let found = self.send(at << 1) && self.send(pointer);
        if found {
            self.start();
            assert!(self.send(at << 1 | 1));
        }
        let got = found.then(|| (0..n).map(|i| self.receive(i + 1 < n)).collect());
        self.stop();
        got
    }
}

#[test]
fn conforms() {
    for config in ["()", BOARD, "(targets: [edid(at: 0x50), sii9022(at: 0x39, monitor: none)])"] {
        Suite::new(&Plugin::of::<VersatileI2c>(), config).values(&[1, 2, 3]).seeds(40).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    let edid = |change: usize| {
        let mut bytes = edid::builtin();
        bytes[change] ^= 1;
        bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let hex = |digits: &str| format!("(targets: [edid(at: 0x50, monitor: hex(\"{digits}\"))])");
    for config in [
        "(targets: [registers(at: 0x07)])",
        "(targets: [registers(at: 0x78)])",
        "(targets: [registers(at: 0x50), edid(at: 0x50)])",
        "(targets: [registers(at: 0x50, size: 1)])",
        "(targets: [eeprom(at: 0x50)])",
        &hex("00"),
        &hex(&"x".repeat(256)),
        &hex(&edid(0)),
        &hex(&edid(127)),
        &format!("(targets: [{}])", "registers(at: 9),".repeat(17)),
    ] {
        assert!(Plugin::of::<VersatileI2c>().create(config).is_err(), "{config}");
    }
    let good = edid::builtin().iter().map(|b| format!("{b:02X} ")).collect::<String>();
    assert!(Plugin::of::<VersatileI2c>().create(&hex(&good)).is_ok());
}

#[test]
fn lines_are_open_drain() {
    let mut m = Master::new("()");
    assert_eq!(m.lines(), 3);
    m.clear(line::SCL);
    assert_eq!(m.lines(), 2);
    m.clear(line::SDA);
    m.set(line::SCL);
    assert_eq!(m.lines(), 1);
    m.step(Event::Reset);
    assert_eq!(m.lines(), 3);
}

#[test]
fn nobody_answers_at_an_empty_address() {
    let mut m = Master::new(BOARD);
    let found: Vec<u8> = (0..0x80).filter(|&at| m.write(at, &[])).collect();
    assert_eq!(found, [0x39, 0x60]);
    assert_eq!(m.read(0x50, 0, 1), None, "the display data channel is not connected");
}

#[test]
fn registers_are_written_and_read_in_a_row() {
    let mut m = Master::new(BOARD);
    assert!(m.write(0x60, &[0xfe, 1, 2, 3]));
    assert_eq!(m.read(0x60, 0xfe, 4), Some(vec![1, 2, 3, 0]));
    assert!(m.write(0x60, &[0x10]));
    m.start();
    assert!(m.send(0x60 << 1 | 1), "a read goes on where the pointer is");
    assert_eq!(m.receive(false), 0);
    m.stop();
    m.step(Event::Reset);
    assert_eq!(m.read(0x60, 0xfe, 1), Some(vec![0]));
}

#[test]
fn a_transfer_can_be_broken_off_anywhere() {
    for clocks in 0..40 {
        let mut m = Master::new(BOARD);
        m.start();
        for i in 0..clocks {
            m.bit(0x72c5_1abd_0f00_u64 >> (i % 48) & 1 != 0);
        }
        // Clocks until the data line is free, and a stop: the recovery of UM10204, 3.1.16.
        m.set(line::SDA);
        let stuck = (0..9).take_while(|_| m.lines() & line::SDA == 0 && !m.bit(true)).count();
        assert!(stuck < 9, "{clocks}");
        m.stop();
        assert_eq!(m.read(0x39, 0x1b, 1), Some(vec![0xb0]), "{clocks}");
    }
}

/// The steps of Linux's sii902x: TPI mode, identification, interrupts, EDID.
#[test]
fn the_transmitter_leads_to_the_monitor() {
    let mut m = Master::new(BOARD);
    assert!(m.write(0x39, &[0xc7, 0]));
    assert_eq!(m.read(0x39, 0x1b, 4), Some(vec![0xb0, 0x02, 0x03, 0x00]));
    assert!(m.write(0x39, &[0x1b, 0xff]));
    assert_eq!(m.read(0x39, 0x1b, 1), Some(vec![0xb0]));
    assert_eq!(m.read(0x39, 0x3d, 1), Some(vec![0x0f]));
    assert!(m.write(0x39, &[0x3d, 0x0f]));
    assert_eq!(m.read(0x39, 0x3d, 1), Some(vec![0x0c]), "events are cleared, the monitor stays");
    assert!(m.write(0x39, &[0x1a, 0x14]));
    assert_eq!(m.read(0x39, 0x1a, 1), Some(vec![0x16]), "granted");
    assert_eq!(m.read(0x50, 0, 1), None);
    assert!(m.write(0x39, &[0x1a, 0x16]));
    let edid = m.read(0x50, 0, 256).unwrap();
    assert_eq!(edid[..128], edid::builtin());
    assert_eq!(edid[128..], edid::builtin(), "the memory ends");
    assert!(!m.write(0x50, &[0, 1]), "and can't be written");
    assert_eq!(m.read(0x50, 126, 2), Some(vec![0, edid[127]]));
    assert!(m.write(0x39, &[0x1a, 0x10]));
    assert_eq!((m.read(0x39, 0x1a, 1), m.read(0x50, 0, 1)), (Some(vec![0x10]), None));
}

#[test]
fn without_a_monitor_there_is_no_edid() {
    let mut m = Master::new("(targets: [sii9022(at: 0x39, monitor: none)])");
    assert_eq!(m.read(0x39, 0x3d, 1), Some(vec![0]));
    assert!(m.write(0x39, &[0x1a, 0x06]));
    assert_eq!(m.read(0x50, 0, 1), None);
}

#[test]
fn the_monitor_has_1024_by_768_pixels() {
    let e = edid::builtin();
    assert_eq!(edid::sum(&e), 0);
    let d = &e[54..72];
    let low_high = |low: u8, high: u8| u32::from(low) | u32::from(high) << 8;
    let clock = 10_000 * low_high(d[0], d[1]);
    let (width, blank_x) = (low_high(d[2], d[4] >> 4), low_high(d[3], d[4] & 15));
    let (height, blank_y) = (low_high(d[5], d[7] >> 4), low_high(d[6], d[7] & 15));
    assert_eq!((width, height), (1024, 768));
    assert_eq!(clock / ((width + blank_x) * (height + blank_y)), 60);
    assert_eq!((u32::from(e[38]) + 31) * 8, width);
}
