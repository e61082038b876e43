use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

struct Dma {
    device: Instance,
    /// `abort`, then the interrupts.
    lines: Vec<bool>,
}

impl Dma {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Pl330>().create(config).unwrap();
        let lines = vec![false; device.spec().outputs.len()];
        let mut dma = Self { device, lines };
        dma.step(Event::Reset);
        dma
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, lines } = self;
        let mut replied = 0;
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value,
            Effect::Line { pin, level } => lines[pin as usize] = level,
            _ => {}
        };
        device.step(VTime(0), event, &mut effect).unwrap();
        replied
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.step(Event::Read { tag: 0, offset, size: 4 })
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.step(Event::Write { tag: 0, offset, size: 4, value });
    }

    /// Gives an instruction to the manager, or to a channel.
    fn debug(&mut self, bytes: [u8; 2], operand: u32, channel: Option<u8>) {
        let thread = channel.map_or(0, |n| u64::from(n) << 8 | 1);
        self.write(reg::DBGINST0, u64::from(bytes[1]) << 24 | u64::from(bytes[0]) << 16 | thread);
        self.write(reg::DBGINST1, operand.into());
        self.write(reg::DBGCMD, 0);
    }
}

#[test]
fn conforms() {
    let values = [0, 0x00a0_0000, 0x03a2_0000, 0x0001_0301, 0x0001_0000, 0x1834_0000, 0xffff];
    for config in ["()", "(channels: 1, events: 32, requests: 32, revision: 0)"] {
        Suite::new(&Plugin::of::<Pl330>(), config).values(&values).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(channels: 0)", "(channels: 9)", "(events: 0)", "(events: 33)", "(requests: 33)", "(revision: 4)"] {
        assert!(Plugin::of::<Pl330>().create(config).is_err(), "{config}");
    }
}

/// What Linux's driver reads, and how it takes it apart.
#[test]
fn configuration() {
    let mut d = Dma::new("(channels: 6, events: 12, requests: 20)");
    let cr0 = d.read(reg::CR0);
    assert_eq!((cr0 & 7, (cr0 >> 4 & 7) + 1, (cr0 >> 12 & 0x1f) + 1, (cr0 >> 17 & 0x1f) + 1), (1, 6, 20, 12));
    let crd = d.read(0xe14);
    assert_eq!((8 * (1 << (crd & 7)), (crd >> 20) + 1), (64, 256));
    let id = (0..4).fold(0, |id, i| id | d.read(0xfe0 + 4 * i) << (8 * i));
    assert_eq!(id, 0x0034_1330);
    assert_eq!((d.read(0xd00), d.read(reg::SAR + 0x20 + 8)), (0, 0x0080_0200));
    assert_eq!(Dma::new("()").read(reg::CR0), 7 << 4 | 3 << 17);
}

#[test]
fn a_channel_that_starts_has_a_fault() {
    let mut d = Dma::new("()");
    d.debug([0xa2, 3], 0x8123_4560, None);
    assert_eq!((d.read(reg::CSR + 24), d.read(reg::CPC + 24)), (0x20_000f, 0x8123_4560));
    assert_eq!((d.read(reg::FSRC), d.read(reg::FTR + 12), d.read(reg::FSRD)), (8, 1 << 16, 0));
    assert!(d.lines[0]);
    d.debug([0xa0, 3], 0x1000, None);
    assert_eq!(d.read(reg::CPC + 24), 0x8123_4560, "it is not Stopped");
    d.debug([0xa0, 0], 0x1000, None);
    assert_eq!((d.read(reg::CSR), d.read(reg::FSRC)), (0xf, 9));
    d.debug([0x01, 0], 0, Some(3));
    assert_eq!((d.read(reg::FSRC), d.read(reg::CSR + 24), d.lines[0]), (1, 0, true));
    d.debug([0x01, 0], 0, Some(0));
    assert_eq!((d.read(reg::FSRC), d.read(reg::FTR), d.lines[0]), (0, 0, false));
    d.debug([0xa0, 0], 0x2000, None);
    d.step(Event::Reset);
    assert_eq!((d.read(reg::FSRC), d.lines[0]), (0, false));
}

#[test]
fn events_are_interrupts_if_they_are_enabled() {
    let mut d = Dma::new("()");
    d.write(reg::INTEN, 2);
    d.debug([0x34, 1 << 3], 0, None);
    d.debug([0x34, 2 << 3], 0, Some(0));
    assert_eq!((d.read(reg::EVENT_RIS), d.read(reg::INTMIS)), (6, 2));
    assert_eq!(d.lines, [false, false, true, false, false]);
    d.write(reg::INTCLR, 0xff);
    assert_eq!((d.read(reg::EVENT_RIS), d.read(reg::INTMIS), d.lines[2]), (4, 0, false));
}

#[test]
fn what_the_debug_interface_does_not_know_is_a_fault_of_the_manager() {
    for (bytes, channel, kind) in [
        ([0x18, 0], None, 1),
        ([0xa0, 0], Some(0), 1),
        ([0x34, 4 << 3], None, 2),
        ([0xa0, 5], None, 2),
        ([0x01, 0], Some(5), 2),
    ] {
        let mut d = Dma::new("(channels: 5)");
        d.debug(bytes, 0, channel);
        assert_eq!((d.read(reg::FSRD), d.read(reg::FTRD)), (1, 1 << 30 | kind), "{bytes:x?}");
        assert!(d.lines[0]);
        d.debug([0x01, 0], 0, None);
        assert_eq!((d.read(reg::FSRD), d.lines[0]), (0, false));
    }
}
