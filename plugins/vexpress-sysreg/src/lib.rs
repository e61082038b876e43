//! The system registers of the Versatile Express motherboard (V2M-P1), as ARM DUI 0447 (its manual) describes them.
//!
//! Beside identification, switches, LEDs, flags and two free-running counters, it is the way to the board's microcontroller: SYS_CFGCTRL
//! starts a command to a device on one of the boards, which here is complete at once. Shutdown and reboot are output pins, which stay
//! high until the device itself is reset. Oscillators and voltages can be set and read back; nothing else follows from them.

mod config;
mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};

pub use config::{Config, Site, Value};
use spec::{cfgctrl, cfgstat, function, input, misc, output, reg, shadow};
pub use state::{State, StateV1};

export_device!(Sysreg);

/// What unlocks the lock register.
const UNLOCK: u32 = 0xa05f;

/// The device.
#[derive(Debug)]
pub struct Sysreg {
    cfg: Config,
    s: StateV1,
}

impl Device for Sysreg {
    const KIND: &'static str = "vexpress-sysreg";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(cfg) })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(&self.cfg),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Line { pin: input::CARD_PRESENT, level } => self.s.mci = self.s.mci & !1 | u32::from(level),
            Event::Line { level, .. } => self.s.mci = self.s.mci & !2 | u32::from(level) << 1,
            Event::Timer(_) | Event::DmaDone { .. } | Event::Host { .. } | Event::Popped { .. } => {}
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

impl Sysreg {
    /// Registers that hold what was written, and their bits.
    fn stored(&mut self, word: u64) -> Option<(&mut u32, u32)> {
        Some(match word {
            reg::LED => (&mut self.s.led, 0xff),
            reg::FLASH => (&mut self.s.flash, 1),
            reg::CFGSW => (&mut self.s.cfgsw, 0xff),
            reg::MISC => (&mut self.s.misc, misc::WRITABLE),
            reg::DMA => (&mut self.s.dma, u32::MAX),
            reg::CFGDATA => (&mut self.s.cfgdata, u32::MAX),
            reg::CFGSTAT => (&mut self.s.cfgstat, 3),
            _ => return None,
        })
    }

    fn read(&self, word: u64) -> u32 {
        match word {
            reg::LED => self.s.led,
            reg::LOCK => self.lock(),
            reg::FLAGS => self.s.flags,
            reg::NVFLAGS => self.s.nvflags,
            reg::MCI => self.s.mci,
            reg::FLASH => self.s.flash,
            reg::CFGSW => self.s.cfgsw,
            reg::MISC => self.s.misc,
            reg::DMA => self.s.dma,
            reg::CFGDATA => self.s.cfgdata,
            reg::CFGCTRL => self.s.cfgctrl,
            reg::CFGSTAT => self.s.cfgstat,
            _ => 0,
        }
    }

    /// SYS_LOCK: what was written, and whether that leaves it locked.
    fn lock(&self) -> u32 {
        self.s.lock | u32::from(self.s.lock != UNLOCK) << 16
    }

    fn write(&mut self, word: u64, value: u32) {
        match word {
            reg::LOCK => self.s.lock = value & 0xffff,
            reg::FLAGS => self.s.flags |= value,
            reg::FLAGSCLR => self.s.flags &= !value,
            reg::NVFLAGS => self.s.nvflags |= value,
            reg::NVFLAGSCLR => self.s.nvflags &= !value,
            reg::CFGCTRL => self.command(value),
            _ => {
                if let Some((register, bits)) = self.stored(word) {
                    *register = value & bits | *register & !bits;
                }
            }
        }
    }

    /// A command to the board's microcontroller (DUI 0447 4.3.16). The start bit clears as it is complete.
    fn command(&mut self, value: u32) {
        self.s.cfgctrl = value & !cfgctrl::START;
        if value & cfgctrl::START == 0 {
            return;
        }
        let done = self.execute(value & cfgctrl::ADDRESS, value & cfgctrl::WRITE != 0);
        self.s.cfgstat = cfgstat::COMPLETE | if done { 0 } else { cfgstat::ERROR };
    }

    /// Reads or writes the device at `address`, by way of SYS_CFGDATA; whether there is one that can.
    fn execute(&mut self, address: u32, write: bool) -> bool {
        let function = address >> 20 & 0x3f;
        match (function, write) {
            (function::SHUTDOWN, true) => self.s.poweroff = true,
            (function::REBOOT | function::RESET, true) => self.s.reset = true,
            (function::OSC | function::VOLT | function::MUXFPGA | function::DVIMODE | function::SCC, true) => {
                let Ok(i) = self.s.values.binary_search_by_key(&address, |v| v.0) else { return false };
                self.s.values[i].1 = self.s.cfgdata;
            }
            (_, true) => return false,
            (_, false) => {
                let Ok(i) = self.s.values.binary_search_by_key(&address, |v| v.0) else { return false };
                self.s.cfgdata = self.s.values[i].1;
            }
        }
        true
    }

    fn show(&self, fx: &mut Effects<'_>) {
        for (index, value) in [
            (shadow::LED, self.s.led),
            (shadow::LOCK, self.lock()),
            (shadow::FLAGS, self.s.flags),
            (shadow::NVFLAGS, self.s.nvflags),
            (shadow::MCI, self.s.mci),
            (shadow::FLASH, self.s.flash),
            (shadow::CFGSW, self.s.cfgsw),
            (shadow::MISC, self.s.misc),
            (shadow::DMA, self.s.dma),
            (shadow::CFGDATA, self.s.cfgdata),
            (shadow::CFGCTRL, self.s.cfgctrl),
            (shadow::CFGSTAT, self.s.cfgstat),
        ] {
            fx.publish(index, value.into());
        }
        fx.line(output::POWEROFF, self.s.poweroff);
        fx.line(output::RESET, self.s.reset);
    }
}

#[cfg(test)]
mod tests;
