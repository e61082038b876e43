//! The keyboard and mouse interface (PL050 KMI), as ARM DDI 0143 (the TRM) describes it, with a PS/2 keyboard or mouse at its other end.
//!
//! A byte takes as long on the wire as at the usual 12.5 kHz: 11 bits from the device, and the request to send before them and the
//! acknowledgement after them from the host. While KMIDATA holds a byte that was not read, and while KMICR forces the clock low, the device
//! waits. While the controller is off, the device sends into the void: nothing that was typed before a driver came is there for it. The two
//! lines themselves show only what KMICR forces on them, not the bits that pass. KMICLKDIV is stored, and times nothing that software can see.
//! The keyboard's self-test takes no time.
//!
//! # Input
//!
//! Port 0 takes events of 8 bytes, in the terms of Linux's evdev: type (u16), code (u16), value (i32), all little-endian.
//!
//! | type | code | value | who takes it |
//! |---|---|---|---|
//! | `EV_KEY` (1) | a key, e.g. `KEY_A` (30) | 1 pressed, 0 released, 2 repeated | keyboard |
//! | `EV_KEY` (1) | `BTN_LEFT` (0x110) to `BTN_EXTRA` (0x114) | 1 or 0 | mouse |
//! | `EV_REL` (2) | `REL_X` (0), `REL_Y` (1), `REL_WHEEL` (8) | counts; y grows downwards, the wheel away from the user | mouse |
//! | `EV_SYN` (0) | `SYN_REPORT` (0) | | mouse: what has come since the last one is one movement |
//!
//! Anything else is left out, as is a key that no PS/2 keyboard has. The port never wants more than the device has room for
//! ([`Effects::host_want`]), so no key and no button is lost on the way. Out of the port come events too: `EV_LED` (0x11) with `LED_NUML`
//! (0), `LED_CAPSL` (1) or `LED_SCROLLL` (2) and 1 or 0, when the guest switches an LED of the keyboard.

mod event;
mod keyboard;
mod mouse;
mod scancode;
mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

pub use event::Events;
pub use keyboard::Keyboard;
pub use mouse::Mouse;
use spec::{CLKDIV_MASK, cr, iir, output, port, reg, shadow, stat, timer};
pub use state::{Ps2, State, StateV1, Wire};

export_device!(Pl050);

/// What is plugged in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// A keyboard with scan code sets 1 and 2.
    #[default]
    Keyboard,
    /// A mouse with wheel and five buttons, which is a standard mouse until a driver finds out.
    Mouse,
}

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `keyboard` or `mouse`.
    pub device: Model,
    /// Whether a key that is held down is repeated by the keyboard, in guest time. Else it is repeated by events of value 2.
    pub typematic: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { device: Model::Keyboard, typematic: true }
    }
}

/// A byte from the device: start bit, 8 data bits, parity and stop bit, 80 us each.
const TO_HOST_NS: u64 = 11 * 80_000;
/// A byte from the host: the clock held low for 100 us, 11 bits, and the device's acknowledgement.
const TO_DEVICE_NS: u64 = 100_000 + 12 * 80_000;

/// The device.
#[derive(Debug)]
pub struct Pl050 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl050 {
    const KIND: &'static str = "pl050";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(cfg) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(&self.cfg),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value.into()));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(bus::word(offset), bus::write_lanes(offset, size, value) as u8);
            }
            Event::Timer(timer::WIRE) => self.arrive(),
            Event::Timer(_) => self.tick(now),
            Event::Host { data, .. } => self.host(now, data),
            Event::Line { .. } | Event::DmaDone { .. } | Event::Popped { .. } => {}
        }
        self.next(now);
        self.show(fx);
    }

    fn save(&self) -> State {
        State::V1(Box::new(self.s.clone()))
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        s.check(cfg)?;
        Ok(Self { cfg: cfg.clone(), s: *s })
    }
}

impl Pl050 {
    fn read(&mut self, word: u64) -> u8 {
        match word {
            reg::CR => self.s.cr,
            reg::STAT => self.stat(),
            reg::DATA => {
                self.s.rx_full = false;
                self.s.rx
            }
            reg::CLKDIV => self.s.clkdiv,
            reg::IIR => self.iir(),
            _ => 0,
        }
    }

    fn write(&mut self, word: u64, value: u8) {
        match word {
            reg::CR => {
                self.s.cr = value & cr::MASK;
                if !self.clocked() {
                    // A byte that is cut off is sent again.
                    if let Wire::ToDevice(byte, _) = self.s.wire {
                        self.s.tx = Some(byte);
                    }
                    self.s.wire = Wire::Idle;
                }
            }
            // What is written while a byte is being sent is lost: KMISTAT said so.
            reg::DATA if !self.sending() => self.s.tx = Some(value),
            reg::CLKDIV => self.s.clkdiv = value & CLKDIV_MASK,
            _ => {}
        }
    }

    fn enabled(&self) -> bool {
        self.s.cr & cr::EN != 0
    }

    /// The clock can run.
    fn clocked(&self) -> bool {
        self.enabled() && self.s.cr & cr::FKMIC == 0
    }

    /// A byte is to be sent, or on its way.
    fn sending(&self) -> bool {
        self.s.tx.is_some() || matches!(self.s.wire, Wire::ToDevice(..))
    }

    /// What is on the wire has come to its end.
    fn arrive(&mut self) {
        match std::mem::replace(&mut self.s.wire, Wire::Idle) {
            Wire::Idle => {}
            Wire::ToHost(byte, _) => {
                (self.s.rx, self.s.rx_full, self.s.parity) = (byte, true, byte.count_ones() % 2 == 0);
                match &mut self.s.device {
                    Ps2::Keyboard(k) => k.sent(),
                    Ps2::Mouse(m) => m.sent(),
                }
            }
            Wire::ToDevice(byte, _) => match &mut self.s.device {
                Ps2::Keyboard(k) => k.command(byte),
                Ps2::Mouse(m) => m.command(byte),
            },
        }
    }

    fn tick(&mut self, now: VTime) {
        if let Ps2::Keyboard(k) = &mut self.s.device {
            k.repeat(now);
        }
    }

    fn host(&mut self, now: VTime, data: &[u8]) {
        let typematic = self.cfg.typematic;
        let device = &mut self.s.device;
        self.s.events.feed(data, |event| match device {
            Ps2::Keyboard(k) => k.event(now, event, typematic),
            Ps2::Mouse(m) => m.event(event),
        });
    }

    /// Puts the next byte on the wire, if there is one and it may go.
    fn next(&mut self, now: VTime) {
        if let Ps2::Mouse(m) = &mut self.s.device {
            m.sample(now);
        }
        if !self.enabled() {
            match &mut self.s.device {
                Ps2::Keyboard(k) => k.discard(),
                Ps2::Mouse(m) => m.discard(),
            }
        }
        if self.s.wire != Wire::Idle || !self.clocked() {
            return;
        }
        if let Some(byte) = self.s.tx.take() {
            self.s.wire = Wire::ToDevice(byte, now.after(TO_DEVICE_NS));
        } else if !self.s.rx_full {
            let byte = match &self.s.device {
                Ps2::Keyboard(k) => k.byte(),
                Ps2::Mouse(m) => m.byte(),
            };
            if let Some(byte) = byte {
                self.s.wire = Wire::ToHost(byte, now.after(TO_HOST_NS));
            }
        }
    }

    fn stat(&self) -> u8 {
        let bit = |set: bool, bit: u8| u8::from(set) * bit;
        let sending = self.sending();
        bit(self.s.cr & cr::FKMID == 0, stat::KMID)
            | bit(self.s.cr & cr::FKMIC == 0, stat::KMIC)
            | bit(self.s.parity, stat::RXPARITY)
            | bit(matches!(self.s.wire, Wire::ToHost(..)), stat::RXBUSY)
            | bit(self.s.rx_full, stat::RXFULL)
            | bit(sending, stat::TXBUSY)
            | bit(!sending, stat::TXEMPTY)
    }

    fn iir(&self) -> u8 {
        let rx = self.s.rx_full && self.s.cr & cr::RXINTREN != 0;
        let tx = !self.sending() && self.s.cr & cr::TXINTREN != 0;
        u8::from(rx) * iir::RX | u8::from(tx) * iir::TX
    }

    fn show(&mut self, fx: &mut Effects<'_>) {
        fx.publish(shadow::CR, self.s.cr.into());
        fx.publish(shadow::STAT, self.stat().into());
        fx.publish(shadow::CLKDIV, self.s.clkdiv.into());
        fx.publish(shadow::IIR, self.iir().into());
        fx.line(output::IRQ, self.iir() != 0);
        fx.timer(timer::WIRE, self.s.wire.until());
        let (due, room) = match &mut self.s.device {
            Ps2::Keyboard(k) => {
                k.lights(|event| fx.host_out(port::EVENTS, &event.bytes()));
                (k.due(), k.room())
            }
            Ps2::Mouse(m) => (m.due(), m.room()),
        };
        fx.timer(timer::DEVICE, due);
        fx.host_want(port::EVENTS, if room > 0 { self.s.events.bytes(room) } else { 0 });
    }
}

#[cfg(test)]
mod tests;
