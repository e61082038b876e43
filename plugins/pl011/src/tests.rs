use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};
use reprise_device::spec::ReadPolicy;

use super::*;

/// A UART with what the rest of the machine knows of it.
struct Uart {
    device: Instance,
    now: VTime,
    out: Vec<u8>,
    irq: bool,
    timers: [Option<VTime>; 3],
    events: usize,
    want: u64,
}

impl Uart {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Pl011>().create(config).unwrap();
        let mut uart =
            Self { device, now: VTime(0), out: Vec::new(), irq: false, timers: [None; 3], events: 0, want: 0 };
        uart.step(Event::Reset);
        uart
    }

    /// As Linux sets it up: 115200 baud, FIFOs, receive interrupts.
    fn started() -> Self {
        let mut uart = Self::new("()");
        uart.write(reg::IBRD, 13);
        uart.write(reg::FBRD, 1);
        uart.write(reg::LCRH, 0x70);
        uart.write(reg::CR, 0x301);
        uart.write(reg::IMSC, Int::RX | Int::RT);
        uart.pass(200_000);
        uart
    }

    fn step(&mut self, event: Event<'_>) -> Option<u64> {
        let Self { device, now, out, irq, timers, events, want } = self;
        let mut replied = None;
        if let Event::Timer(id) = event {
            timers[id as usize] = None;
        }
        device
            .step(*now, event, &mut |e| {
                *events += usize::from(!matches!(e, Effect::HostWant { .. } | Effect::HostOut { .. }));
                match e {
                    Effect::Reply { value, .. } => replied = Some(value),
                    Effect::Line { pin: 0, level } => *irq = level,
                    Effect::HostOut { data, .. } => out.extend_from_slice(data),
                    Effect::Arm { id, at } => timers[id as usize] = Some(at),
                    Effect::Disarm { id } => timers[id as usize] = None,
                    Effect::HostWant { port: 0, bytes } => *want = bytes,
                    _ => {}
                }
            })
            .unwrap();
        replied
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.step(Event::Read { tag: 1, offset, size: 4 }).unwrap() as u32
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.step(Event::Write { tag: 1, offset, size: 4, value: value.into() });
    }

    fn input(&mut self, data: &[u8]) {
        self.step(Event::Host { port: 0, data });
    }

    /// Lets time pass and fires what comes due.
    fn pass(&mut self, ns: u64) {
        let end = self.now.after(ns);
        while let Some((at, id)) = (0..3).filter_map(|i| self.timers[i].map(|at| (at, i as u32))).min() {
            if at > end {
                break;
            }
            self.now = at;
            self.step(Event::Timer(id));
        }
        self.now = end;
    }

    fn flags(&mut self) -> u32 {
        self.read(reg::FR)
    }
}

const RXFE: u32 = 1 << 4;
const RXFF: u32 = 1 << 6;

#[test]
fn conforms() {
    let plugin = Plugin::of::<Pl011>();
    let report = Suite::new(&plugin, "()").values(&[0x301, 0x381, 0x70, 0x7ff]).seeds(60).check();
    assert!(report.reads > 10_000, "{report:?}");
    let other = "(fifo: 32, separate_irqs: true, clock_hz: 48000000, modem: (cts: true, dcd: true))";
    Suite::new(&plugin, other).values(&[0x301, 0x381, 0x70, 0x7ff]).check();
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(fifo: 8)", "(clock_hz: 0)", "(fifo: 16, fifo: 16)", "(speed: 3)", "(modem: (cts: 1))"] {
        assert!(Plugin::of::<Pl011>().create(config).is_err(), "{config}");
    }
}

#[test]
fn identification_tells_the_fifo_depth() {
    let uart = Uart::new("()");
    let ids: Vec<_> = (0..8).map(|i| uart.device.spec().read_policy(0xfe0 + 4 * i, 4)).collect();
    let expected = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1].map(ReadPolicy::Const);
    assert_eq!(ids, expected);
    let deep = Uart::new("(fifo: 32)");
    assert_eq!(deep.device.spec().read_policy(0xfe8, 4), ReadPolicy::Const(0x34));
}

#[test]
fn output_goes_out_at_once_and_polled_output_makes_one_event() {
    let mut uart = Uart::new("()");
    let events = uart.events;
    for &b in b"Hello, world\n" {
        uart.write(reg::DR, b.into());
        assert_eq!(uart.flags() & 0xf8, 0x90);
    }
    assert_eq!(uart.out, b"Hello, world\n");
    let reads = b"Hello, world\n".len();
    assert_eq!(uart.events - events - reads, 1, "only UARTRIS changes, once");
    assert!(!uart.irq);
}

#[test]
fn the_transmit_interrupt_follows_a_write() {
    let mut uart = Uart::new("()");
    uart.write(reg::IMSC, Int::TX);
    assert!(!uart.irq, "no interrupt before anything was sent (TRM 2.8.3)");
    uart.write(reg::DR, 0x41);
    assert!(uart.irq);
    assert_eq!(uart.read(reg::MIS), Int::TX);
    uart.write(reg::ICR, Int::TX);
    assert!(!uart.irq);
    uart.write(reg::DR, 0x42);
    assert!(uart.irq);
    uart.write(reg::IMSC, 0);
    assert!(!uart.irq);
    assert_eq!(uart.read(reg::RIS), Int::TX);
}

#[test]
fn a_single_character_raises_the_timeout_interrupt() {
    let mut uart = Uart::started();
    uart.input(b"x");
    assert!(!uart.irq);
    assert_eq!(uart.flags() & (RXFE | RXFF), 0);
    // 24 MHz / (16 * (13 + 1/64)) is 115 246 baud: 32 bits take 277 us.
    uart.pass(277_000);
    assert!(!uart.irq);
    uart.pass(1_000);
    assert!(uart.irq);
    assert_eq!(uart.read(reg::MIS), Int::RT);
    assert_eq!(uart.read(reg::DR), u32::from(b'x'));
    assert!(!uart.irq);
    assert_eq!(uart.flags() & RXFE, RXFE);
    assert_eq!(uart.timers[timer::TIMEOUT as usize], None);
}

#[test]
fn receive_levels() {
    for (selection, level) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14)] {
        let mut uart = Uart::started();
        uart.write(reg::IFLS, selection << 3);
        uart.input(&vec![b'a'; level - 1]);
        assert!(!uart.irq, "{level}");
        uart.input(b"b");
        assert_eq!(uart.read(reg::MIS), Int::RX, "{level}");
        uart.read(reg::DR);
        assert!(!uart.irq, "below the level again");
    }
}

#[test]
fn more_input_than_the_fifo_holds_waits_on_the_line() {
    let mut uart = Uart::started();
    let text: Vec<u8> = (0..3000u32).map(|i| (i * 7) as u8).collect();
    assert!(uart.want >= 3000);
    uart.input(&text);
    assert_eq!(uart.want, 0, "more than half full");
    assert_eq!(uart.flags() & RXFF, RXFF);
    let mut got = Vec::new();
    while uart.flags() & RXFE == 0 {
        got.push(uart.read(reg::DR) as u8);
    }
    assert_eq!(got, text);
    assert!(uart.want > 3000);
    assert_eq!(uart.read(reg::RIS) & Int::OE, 0);
}

#[test]
fn no_character_is_lost_when_a_driver_starts() {
    let mut uart = Uart::new("()");
    uart.input(b"early");
    assert_eq!(uart.flags() & RXFE, RXFE, "the UART is not enabled");
    uart.write(reg::CR, 0x301);
    assert_eq!(uart.flags() & RXFE, RXFE, "drivers discard what they find now");
    uart.pass(100_000);
    assert_eq!(uart.flags() & RXFE, 0);
    uart.write(reg::LCRH, 0x10);
    uart.write(reg::LCRH, 0x00);
    uart.write(reg::LCRH, 0x10);
    let got: Vec<u8> = (0..5).map(|_| uart.read(reg::DR) as u8).collect();
    assert_eq!(got, b"early");
    assert_eq!(uart.read(reg::DR), 0);
}

#[test]
fn without_fifos_one_character_is_enough() {
    let mut uart = Uart::started();
    uart.write(reg::LCRH, 0x60);
    uart.input(b"ab");
    assert_eq!(uart.read(reg::MIS), Int::RX);
    assert_eq!(uart.flags() & RXFF, RXFF);
    assert_eq!(uart.read(reg::DR), u32::from(b'a'));
    assert!(uart.irq, "the next one has arrived");
    assert_eq!(uart.read(reg::DR), u32::from(b'b'));
    assert!(!uart.irq);
}

#[test]
fn error_bits_come_with_their_character() {
    let mut uart = Uart::started();
    uart.write(reg::IMSC, Int::ALL);
    let words = [0x141u16, 0x242, 0x400, 0x43].map(u16::to_le_bytes).concat();
    uart.step(Event::Host { port: 1, data: &words });
    assert_eq!(uart.read(reg::RIS), Int::FE | Int::PE | Int::BE);
    assert_eq!(uart.read(reg::DR), 0x141);
    assert_eq!(uart.read(reg::RSR), 1);
    assert_eq!(uart.read(reg::DR), 0x242);
    assert_eq!(uart.read(reg::RSR), 2);
    assert_eq!(uart.read(reg::DR), 0x400);
    assert_eq!(uart.read(reg::RSR), 4);
    uart.write(reg::RSR, 0);
    assert_eq!(uart.read(reg::DR), 0x43);
    assert_eq!(uart.read(reg::RSR), 0);
    uart.write(reg::ICR, Int::ALL);
    assert!(!uart.irq);
}

#[test]
fn loopback_returns_what_is_sent_and_overruns() {
    let mut uart = Uart::started();
    uart.write(reg::CR, 0x381);
    for b in 0..20 {
        uart.write(reg::DR, b);
        uart.pass(90_000);
    }
    assert_eq!(uart.out, b"", "nothing leaves");
    assert_ne!(uart.read(reg::RIS) & Int::OE, 0);
    assert_eq!(uart.read(reg::RSR), 8);
    let got: Vec<u32> = (0..16).map(|_| uart.read(reg::DR)).collect();
    assert_eq!(got, (0..16).collect::<Vec<_>>());
    uart.write(reg::RSR, 0);
    uart.write(reg::DR, 0x55);
    uart.pass(90_000);
    assert_eq!(uart.read(reg::DR), 0x855, "the next character carries the overrun bit");
    uart.write(reg::LCRH, 0x71);
    uart.pass(400_000);
    assert_eq!(uart.read(reg::DR), 0x500, "a break arrives once, as a framing error too");
    assert_eq!(uart.flags() & RXFE, RXFE);
    uart.write(reg::CR, 0x301);
    assert_eq!(uart.timers[timer::LOOP as usize], None);
}

#[test]
fn modem_inputs() {
    let mut uart = Uart::new("(modem: (dcd: true))");
    assert_eq!(uart.flags(), 0x94);
    uart.write(reg::IMSC, Int::CTS | Int::RI);
    uart.step(Event::Line { pin: input::CTS, level: true });
    assert!(uart.irq);
    assert_eq!(uart.flags(), 0x95);
    uart.write(reg::ICR, Int::CTS);
    assert!(!uart.irq);
    uart.step(Event::Line { pin: input::RI, level: true });
    assert_eq!(uart.read(reg::MIS), Int::RI);
    assert_eq!(uart.flags(), 0x195);
    // In loopback the inputs follow the outputs.
    uart.write(reg::CR, Cr::LBE | Cr::RTS | Cr::OUT2);
    assert_eq!(uart.flags(), 0x191);
}

#[test]
fn separate_outputs() {
    let spec = Plugin::of::<Pl011>().create("(separate_irqs: true)").unwrap().spec().clone();
    assert_eq!(spec.outputs, ["irq", "rx", "tx", "rt", "ms", "err"]);
    let mut device = Plugin::of::<Pl011>().create("(separate_irqs: true)").unwrap();
    let mut lines = Vec::new();
    let mut run = |event| {
        device.step(VTime(0), event, &mut |e| {
            if let Effect::Line { pin, level } = e {
                lines.push((pin, level));
            }
        })
    };
    run(Event::Write { tag: 0, offset: reg::IMSC, size: 4, value: Int::TX.into() }).unwrap();
    run(Event::Write { tag: 0, offset: reg::DR, size: 1, value: 65 }).unwrap();
    assert_eq!(lines, [(0, true), (2, true)]);
}

#[test]
fn narrow_accesses() {
    let mut uart = Uart::started();
    uart.input(b"q");
    assert_eq!(uart.step(Event::Read { tag: 0, offset: reg::DR, size: 2 }), Some(u64::from(b'q')));
    uart.step(Event::Write { tag: 0, offset: reg::DR, size: 1, value: 0x5a });
    assert_eq!(uart.out, b"Z");
    assert_eq!(uart.step(Event::Read { tag: 0, offset: reg::CR + 1, size: 1 }), Some(3));
}
