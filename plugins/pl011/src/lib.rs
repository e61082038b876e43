//! The PrimeCell UART (PL011), as ARM DDI 0183 (the TRM) describes it.
//!
//! Where this UART differs from silicon, it is so that no byte is ever lost and few events are needed:
//!
//! - The transmitter drains at once, so a write of the data register changes no flag. It transmits even if the UART is not enabled, whole
//!   bytes whatever the word length, and asks no CTS. Back-pressure is the channel's ring.
//! - The line waits: host input stays on the line (`wire`) while the receiver is off or its FIFO is full. What is in the FIFO when the
//!   FIFOs are disabled goes back onto the line. So overrun happens in loopback only. A receiver that was just enabled gets its first
//!   character one character time later, as drivers discard what they find in the FIFO when they start.
//! - In loopback, a character reaches the receiver at the next tick of a clock with the period of one character.
//! - Reads of the masked interrupt status are synchronous, as drivers read the raw one, and each published register costs an event.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{Cr, Int, input, output, reg, shadow, timer};
pub use state::{State, StateV1};

export_device!(Pl011);

/// Characters that can be on the line.
const WIRE: usize = 4096;
/// Of these, kept for port [`spec::port::LINE`].
const WIRE_LINE: usize = 256;
/// Bits of a character on the line: start, eight data, stop.
const CHARACTER_BITS: u64 = 10;
/// Receive timeout in bits (TRM 2.8.2).
const TIMEOUT_BITS: u64 = 32;

/// The UART's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Depth of the FIFOs: 16 (r1p4 and before) or 32 (r1p5). It also sets the revision in the identification registers.
    pub fifo: u32,
    /// UARTCLK in Hz, 1 to 1 000 000 000; gives the bit time.
    pub clock_hz: u64,
    /// Whether the separate interrupt outputs (`rx`, `tx`, `rt`, `ms`, `err`) exist beside the combined `irq`. Each costs events.
    pub separate_irqs: bool,
    /// The modem inputs that are active from the start.
    pub modem: Modem,
}

/// Levels of the modem inputs before anything drives them; true is active (the pin itself is active low).
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Modem {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Data carrier detect.
    pub dcd: bool,
    /// Ring indicator.
    pub ri: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { fifo: 16, clock_hz: 24_000_000, separate_irqs: false, modem: Modem::default() }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if !matches!(self.fifo, 16 | 32) {
            return Err(ConfigError::new(format!("fifo: {} is not 16 or 32", self.fifo)));
        }
        if !(1..=1_000_000_000).contains(&self.clock_hz) {
            return Err(ConfigError::new(format!("clock_hz: {} is not in 1..=1000000000", self.clock_hz)));
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Pl011 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl011 {
    const KIND: &'static str = "pl011";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(&cfg.modem) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(&self.cfg.modem),
            Event::Read { tag, offset, size } => {
                let value = self.read(now, bus::word(offset), fx);
                fx.reply(tag, bus::read_lanes(offset, size, value));
                if bus::word(offset) != reg::DR {
                    return; // nothing has changed
                }
            }
            Event::Write { offset, size, value, .. } => {
                self.write(now, bus::word(offset), bus::write_lanes(offset, size, value), fx);
            }
            Event::Line { pin, level } => self.modem_input(pin, level),
            Event::Timer(timer::TIMEOUT) if !self.s.rx.is_empty() => self.s.ris |= Int::RT,
            Event::Timer(timer::START) => self.start_receiver(now, fx),
            Event::Timer(timer::LOOP) => self.loop_tick(now, fx),
            Event::Host { port, data } => self.host(now, port, data, fx),
            Event::Timer(_) | Event::DmaDone { .. } | Event::Popped { .. } => {}
        }
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(Box::new(self.s.clone()))
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        cfg.check().map_err(|e| RestoreError(e.message))?;
        s.check(cfg)?;
        Ok(Self { cfg: cfg.clone(), s: *s })
    }
}

impl Pl011 {
    /// Characters that the receive FIFO holds: one if the FIFOs are off (TRM 3.3.7, FEN).
    fn depth(&self) -> usize {
        if self.s.fifos_on() { self.cfg.fifo as usize } else { 1 }
    }

    /// Characters in the receive FIFO that raise the receive interrupt (TRM 3.3.9). Reserved selections act as the last.
    fn rx_level(&self) -> usize {
        const EIGHTHS: [usize; 8] = [1, 2, 4, 6, 7, 7, 7, 7];
        if self.s.fifos_on() { self.depth() * EIGHTHS[(self.s.ifls >> 3 & 7) as usize] / 8 } else { 1 }
    }

    fn receiver_on(&self) -> bool {
        self.s.cr & Cr::UARTEN != 0 && self.s.cr & Cr::RXE != 0
    }

    fn loopback(&self) -> bool {
        self.s.cr & Cr::LBE != 0
    }

    /// Nanoseconds of `bits` bits on the line (TRM 3.3.6): the divisor is in 64ths, and one bit takes 16 times it. 115200 baud if unset.
    fn bits_ns(&self, bits: u64) -> u64 {
        match u64::from(self.s.ibrd) * 64 + u64::from(self.s.fbrd) {
            0 => bits * 1_000_000_000 / 115_200,
            divisor => (bits * divisor * 250_000_000 / self.cfg.clock_hz).max(1),
        }
    }

    fn read(&mut self, now: VTime, word: u64, fx: &mut Effects<'_>) -> u32 {
        match word {
            reg::DR => self.pop(now, fx),
            reg::RSR => self.s.rsr,
            reg::FR => self.flags(),
            reg::ILPR => self.s.ilpr,
            reg::IBRD => self.s.ibrd,
            reg::FBRD => self.s.fbrd,
            reg::LCRH => self.s.lcrh,
            reg::CR => self.s.cr,
            reg::IFLS => self.s.ifls,
            reg::IMSC => self.s.imsc,
            reg::RIS => self.s.ris,
            reg::MIS => self.s.ris & self.s.imsc,
            reg::DMACR => self.s.dmacr,
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32, fx: &mut Effects<'_>) {
        match word {
            reg::DR => self.transmit(value as u8, fx),
            reg::RSR => self.s.rsr = 0,
            reg::ILPR => self.s.ilpr = value & 0xff,
            reg::IBRD => self.s.ibrd = value & 0xffff,
            reg::FBRD => self.s.fbrd = value & 0x3f,
            reg::LCRH => self.write_lcrh(now, value & 0xff, fx),
            reg::CR => self.write_cr(now, value & Cr::MASK, fx),
            reg::IFLS => self.s.ifls = value & 0x3f,
            reg::IMSC => self.s.imsc = value & Int::ALL,
            reg::ICR => {
                self.s.ris &= !value;
                if value & Int::RT != 0 {
                    fx.disarm(timer::TIMEOUT);
                }
            }
            reg::DMACR => self.s.dmacr = value & 7,
            _ => {}
        }
    }

    /// Sends a character (TRM 3.3.1). It leaves at once, so the transmit FIFO passes its trigger level on the way down.
    fn transmit(&mut self, byte: u8, fx: &mut Effects<'_>) {
        if !self.loopback() {
            fx.host_out(spec::port::CONSOLE, &[byte]);
        } else if self.s.looped.len() < self.cfg.fifo as usize {
            self.s.looped.push_back(byte);
        }
        self.s.ris |= Int::TX;
    }

    /// Takes a character from the receive FIFO (TRM 3.3.1, 3.3.2).
    fn pop(&mut self, now: VTime, fx: &mut Effects<'_>) -> u32 {
        let Some(c) = self.s.rx.pop_front() else { return 0 };
        self.s.rsr = u32::from(c >> 8) | (self.s.rsr & 8);
        self.refill(now, fx);
        if self.s.rx.len() < self.rx_level() {
            self.s.ris &= !Int::RX;
        }
        if self.s.rx.is_empty() {
            self.s.ris &= !Int::RT;
            fx.disarm(timer::TIMEOUT);
        }
        u32::from(c)
    }

    /// A character arrives in the receive FIFO, which has room.
    fn push(&mut self, now: VTime, c: u16, fx: &mut Effects<'_>) {
        let c = if std::mem::take(&mut self.s.overrun) { c | 1 << 11 } else { c };
        self.s.rx.push_back(c);
        if self.s.rx.len() >= self.rx_level() {
            self.s.ris |= Int::RX;
        }
        let errors = [(8, Int::FE), (9, Int::PE), (10, Int::BE)];
        self.s.ris |= errors.iter().filter(|(bit, _)| c >> bit & 1 != 0).fold(0, |all, (_, int)| all | int);
        let timeout = self.bits_ns(TIMEOUT_BITS);
        fx.arm(timer::TIMEOUT, now.after(timeout));
    }

    /// Moves characters from the line into the receive FIFO while it has room.
    fn refill(&mut self, now: VTime, fx: &mut Effects<'_>) {
        if !self.receiver_on() || self.loopback() || self.s.starting {
            return;
        }
        while self.s.rx.len() < self.depth() {
            let Some(c) = self.s.wire.pop_front() else { break };
            self.push(now, c, fx);
        }
    }

    fn start_receiver(&mut self, now: VTime, fx: &mut Effects<'_>) {
        self.s.starting = false;
        self.refill(now, fx);
    }

    fn write_cr(&mut self, now: VTime, value: u32, fx: &mut Effects<'_>) {
        let (was_on, was_looped, modem) = (self.receiver_on(), self.loopback(), self.modem());
        self.s.cr = value;
        self.modem_changed(modem);
        let character = self.bits_ns(CHARACTER_BITS);
        if self.receiver_on() && (!was_on || was_looped && !self.loopback()) {
            self.s.starting = true;
            fx.arm(timer::START, now.after(character));
        } else if !self.receiver_on() {
            self.s.starting = false;
            fx.disarm(timer::START);
        }
        if self.loopback() && !was_looped {
            fx.arm(timer::LOOP, now.after(character));
        } else if !self.loopback() {
            self.s.looped.clear();
            self.s.break_sent = false;
            fx.disarm(timer::LOOP);
        }
    }

    fn write_lcrh(&mut self, now: VTime, value: u32, fx: &mut Effects<'_>) {
        let toggles_fifos = (value ^ self.s.lcrh) & 1 << 4 != 0;
        self.s.lcrh = value;
        if toggles_fifos {
            // What was received goes back onto the line, so that it is not lost.
            while let Some(c) = self.s.rx.pop_back() {
                self.s.wire.push_front(c);
            }
            self.s.ris &= !(Int::RX | Int::RT);
            fx.disarm(timer::TIMEOUT);
            self.refill(now, fx);
        }
    }

    /// A character time has passed in loopback: what was sent arrives (TRM 2.4.6), a break too (TRM 3.3.7, BRK).
    fn loop_tick(&mut self, now: VTime, fx: &mut Effects<'_>) {
        if !self.loopback() {
            return;
        }
        let breaking = self.s.lcrh & 1 != 0;
        let arrived = if breaking && !self.s.break_sent { Some(1 << 10 | 1 << 8) } else { None };
        self.s.break_sent = breaking;
        let arrived = arrived.or_else(|| self.s.looped.pop_front().map(u16::from));
        if let Some(c) = arrived.filter(|_| self.receiver_on()) {
            if self.s.rx.len() < self.depth() {
                self.push(now, c, fx);
            } else {
                self.s.overrun = true;
                self.s.rsr |= 8;
                self.s.ris |= Int::OE;
            }
        }
        let character = self.bits_ns(CHARACTER_BITS);
        fx.arm(timer::LOOP, now.after(character));
    }

    /// Host input: bytes, or on the second port characters with error bits, as 16-bit words in UARTDR's layout.
    fn host(&mut self, now: VTime, port: u32, data: &[u8], fx: &mut Effects<'_>) {
        let room = WIRE - self.s.wire.len().min(WIRE);
        match port {
            spec::port::CONSOLE => self.s.wire.extend(data.iter().take(room).map(|&b| u16::from(b))),
            _ => {
                let words = data.chunks_exact(2).map(|w| u16::from_le_bytes([w[0], w[1]]) & 0x7ff);
                self.s.wire.extend(words.take(room));
            }
        }
        self.refill(now, fx);
    }

    /// The modem inputs as flags: in loopback they follow the outputs (TRM 3.3.8, LBE).
    fn modem(&self) -> u32 {
        if !self.loopback() {
            return self.s.modem;
        }
        let pairs = [(Cr::RTS, input::CTS), (Cr::DTR, input::DSR), (Cr::OUT1, input::DCD), (Cr::OUT2, input::RI)];
        pairs.iter().filter(|(out, _)| self.s.cr & out != 0).fold(0, |all, (_, pin)| all | 1 << pin)
    }

    fn modem_input(&mut self, pin: u32, level: bool) {
        let before = self.modem();
        self.s.modem = self.s.modem & !(1 << pin) | u32::from(level) << pin;
        self.modem_changed(before);
    }

    /// Raises the modem interrupts of the inputs that differ from `before` (TRM 3.3.11).
    fn modem_changed(&mut self, before: u32) {
        let changed = before ^ self.modem();
        let ints = [(input::RI, Int::RI), (input::CTS, Int::CTS), (input::DCD, Int::DCD), (input::DSR, Int::DSR)];
        self.s.ris |= ints.iter().filter(|(pin, _)| changed >> pin & 1 != 0).fold(0, |all, (_, int)| all | int);
    }

    /// UARTFR (TRM 3.3.3). The transmit FIFO is always empty and the UART never busy.
    fn flags(&self) -> u32 {
        let modem = self.modem();
        let ri = modem >> input::RI & 1;
        (modem & 7)
            | u32::from(self.s.rx.is_empty()) << 4
            | u32::from(self.s.rx.len() >= self.depth()) << 6
            | 1 << 7
            | ri << 8
    }

    /// States all that the world sees.
    fn show(&self, fx: &mut Effects<'_>) {
        let s = &self.s;
        fx.publish(shadow::FR, self.flags().into());
        fx.publish(shadow::RIS, s.ris.into());
        for (index, value) in [
            (shadow::RSR, s.rsr),
            (shadow::ILPR, s.ilpr),
            (shadow::IBRD, s.ibrd),
            (shadow::FBRD, s.fbrd),
            (shadow::LCRH, s.lcrh),
            (shadow::CR, s.cr),
            (shadow::IFLS, s.ifls),
            (shadow::IMSC, s.imsc),
            (shadow::DMACR, s.dmacr),
        ] {
            fx.publish(index, value.into());
        }
        let active = s.ris & s.imsc;
        fx.line(output::IRQ, active != 0);
        if self.cfg.separate_irqs {
            for (pin, ints) in output::SEPARATE {
                fx.line(pin, active & ints != 0);
            }
        }
        // Asking in large steps keeps the number of offers small.
        let room = WIRE - s.wire.len().min(WIRE);
        let open = room >= WIRE / 2;
        fx.host_want(spec::port::CONSOLE, if open { (room - WIRE_LINE) as u64 } else { 0 });
        fx.host_want(spec::port::LINE, if open { 2 * WIRE_LINE as u64 } else { 0 });
    }
}

#[cfg(test)]
mod tests;
