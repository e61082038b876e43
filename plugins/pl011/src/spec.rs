//! What the PL011 looks like from outside: registers, pins, ports, and how cpu-proc may access them.

use reprise_device::spec::{Direction, PluginSpec, Register, primecell_ids};

use crate::{Config, Pl011};
use reprise_device::Device;

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const DR: u64 = 0x00;
    pub(crate) const RSR: u64 = 0x04;
    pub(crate) const FR: u64 = 0x18;
    pub(crate) const ILPR: u64 = 0x20;
    pub(crate) const IBRD: u64 = 0x24;
    pub(crate) const FBRD: u64 = 0x28;
    pub(crate) const LCRH: u64 = 0x2c;
    pub(crate) const CR: u64 = 0x30;
    pub(crate) const IFLS: u64 = 0x34;
    pub(crate) const IMSC: u64 = 0x38;
    pub(crate) const RIS: u64 = 0x3c;
    pub(crate) const MIS: u64 = 0x40;
    pub(crate) const ICR: u64 = 0x44;
    pub(crate) const DMACR: u64 = 0x48;
}

/// Bits of the control register (TRM 3.3.8).
pub(crate) struct Cr;

impl Cr {
    pub(crate) const UARTEN: u32 = 1;
    pub(crate) const LBE: u32 = 1 << 7;
    pub(crate) const RXE: u32 = 1 << 9;
    pub(crate) const DTR: u32 = 1 << 10;
    pub(crate) const RTS: u32 = 1 << 11;
    pub(crate) const OUT1: u32 = 1 << 12;
    pub(crate) const OUT2: u32 = 1 << 13;
    /// The bits that exist.
    pub(crate) const MASK: u32 = 0xff87;
    /// Receiver and transmitter enabled, UART off.
    pub(crate) const RESET: u32 = 0x300;
}

/// Bits of the interrupt registers (TRM 3.3.10).
pub(crate) struct Int;

impl Int {
    pub(crate) const RI: u32 = 1;
    pub(crate) const CTS: u32 = 1 << 1;
    pub(crate) const DCD: u32 = 1 << 2;
    pub(crate) const DSR: u32 = 1 << 3;
    pub(crate) const RX: u32 = 1 << 4;
    pub(crate) const TX: u32 = 1 << 5;
    pub(crate) const RT: u32 = 1 << 6;
    pub(crate) const FE: u32 = 1 << 7;
    pub(crate) const PE: u32 = 1 << 8;
    pub(crate) const BE: u32 = 1 << 9;
    pub(crate) const OE: u32 = 1 << 10;
    pub(crate) const ALL: u32 = 0x7ff;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const FR: u16 = 0;
    pub(crate) const RIS: u16 = 1;
    pub(crate) const RSR: u16 = 2;
    pub(crate) const ILPR: u16 = 3;
    pub(crate) const IBRD: u16 = 4;
    pub(crate) const FBRD: u16 = 5;
    pub(crate) const LCRH: u16 = 6;
    pub(crate) const CR: u16 = 7;
    pub(crate) const IFLS: u16 = 8;
    pub(crate) const IMSC: u16 = 9;
    pub(crate) const DMACR: u16 = 10;
}

/// Input pins, which are also the modem bits of UARTFR but for RI.
pub(crate) mod input {
    pub(crate) const CTS: u32 = 0;
    pub(crate) const DSR: u32 = 1;
    pub(crate) const DCD: u32 = 2;
    pub(crate) const RI: u32 = 3;
}

/// Output pins (TRM 2.8).
pub(crate) mod output {
    use super::Int;

    pub(crate) const IRQ: u32 = 0;
    /// The separate interrupt outputs and the interrupts of each.
    pub(crate) const SEPARATE: [(u32, u32); 5] = [
        (1, Int::RX),
        (2, Int::TX),
        (3, Int::RT),
        (4, Int::RI | Int::CTS | Int::DCD | Int::DSR),
        (5, Int::FE | Int::PE | Int::BE | Int::OE),
    ];
}

/// Ports.
pub(crate) mod port {
    /// The serial line: bytes.
    pub(crate) const CONSOLE: u32 = 0;
    /// Characters with error bits, as 16-bit little-endian words in UARTDR's layout: for fault injection.
    pub(crate) const LINE: u32 = 1;
}

/// Timers.
pub(crate) mod timer {
    /// Receive timeout.
    pub(crate) const TIMEOUT: u32 = 0;
    /// The first character after the receiver was enabled.
    pub(crate) const START: u32 = 1;
    /// A character time in loopback.
    pub(crate) const LOOP: u32 = 2;
}

/// UARTFR after reset: both FIFOs empty, and the modem inputs of the config.
pub(crate) fn reset_flags(cfg: &Config) -> u64 {
    let m = cfg.modem;
    0x90 | u64::from(m.cts) | u64::from(m.dsr) << 1 | u64::from(m.dcd) << 2 | u64::from(m.ri) << 8
}

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let rw = |name, offset, reset, section| Register::rw(name, offset, reset, section).sizes(7);
    let ro = |name, offset, reset, section| Register::ro(name, offset, reset, section).sizes(7);
    // Side effects: a read of the data register takes a character. A write can raise the transmit interrupt, once until it is cleared.
    let data = rw("UARTDR", reg::DR, 0, "DDI 0183 3.3.1").fifo(&[shadow::RIS]);
    let fr = reset_flags(cfg);
    let registers = [
        data,
        rw("UARTRSR", reg::RSR, 0, "DDI 0183 3.3.2").shadow(shadow::RSR).posted(&[shadow::RSR]),
        ro("UARTFR", reg::FR, fr, "DDI 0183 3.3.3").shadow(shadow::FR),
        rw("UARTILPR", reg::ILPR, 0, "DDI 0183 3.3.4").shadow(shadow::ILPR).posted(&[shadow::ILPR]),
        rw("UARTIBRD", reg::IBRD, 0, "DDI 0183 3.3.5").shadow(shadow::IBRD).posted(&[shadow::IBRD]),
        rw("UARTFBRD", reg::FBRD, 0, "DDI 0183 3.3.6").shadow(shadow::FBRD).posted(&[shadow::FBRD]),
        rw("UARTLCR_H", reg::LCRH, 0, "DDI 0183 3.3.7").shadow(shadow::LCRH),
        rw("UARTCR", reg::CR, Cr::RESET.into(), "DDI 0183 3.3.8").shadow(shadow::CR),
        rw("UARTIFLS", reg::IFLS, 0x12, "DDI 0183 3.3.9").shadow(shadow::IFLS).posted(&[shadow::IFLS]),
        rw("UARTIMSC", reg::IMSC, 0, "DDI 0183 3.3.10").shadow(shadow::IMSC).stored(),
        ro("UARTRIS", reg::RIS, 0, "DDI 0183 3.3.11").shadow(shadow::RIS),
        ro("UARTMIS", reg::MIS, 0, "DDI 0183 3.3.12"),
        Register::wo("UARTICR", reg::ICR, "DDI 0183 3.3.13").sizes(7),
        rw("UARTDMACR", reg::DMACR, 0, "DDI 0183 3.3.14").shadow(shadow::DMACR).posted(&[shadow::DMACR]),
    ];
    // The revision's high digit tells drivers the depth of the FIFOs: r1p5 has 32.
    let revision = if cfg.fifo == 32 { 0x34 } else { 0x14 };
    let ids = [0x11, 0x10, revision, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
    let outputs: &[&str] = if cfg.separate_irqs { &["irq", "rx", "tx", "rt", "ms", "err"] } else { &["irq"] };
    PluginSpec::new(Pl011::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers(registers)
        .registers(primecell_ids("UART", ids, "DDI 0183 3.3.15"))
        .shadows(&[
            ("UARTFR", fr),
            ("UARTRIS", 0),
            ("UARTRSR", 0),
            ("UARTILPR", 0),
            ("UARTIBRD", 0),
            ("UARTFBRD", 0),
            ("UARTLCR_H", 0),
            ("UARTCR", Cr::RESET.into()),
            ("UARTIFLS", 0x12),
            ("UARTIMSC", 0),
            ("UARTDMACR", 0),
        ])
        .inputs(&["cts", "dsr", "dcd", "ri"])
        .outputs(outputs)
        .port("console", Direction::Both)
        .port("line", Direction::In)
        .timers(3)
}
