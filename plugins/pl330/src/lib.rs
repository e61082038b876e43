//! The DMA controller DMA-330 (PL330), as ARM DDI 0424 (the TRM) describes it, as far as drivers probe it.
//!
//! Identification, configuration, events, interrupts and the debug interface are there. The program of a channel is not carried out: the
//! controller has no way to memory, so a channel that DMAGO starts gets an error for the fetch of its first instruction, is then Faulting,
//! and raises `abort`, as the TRM (2.8) says of such an error. DMAKILL brings it back to Stopped. Of what the debug interface may be given,
//! DMAGO, DMAKILL and DMASEV are known, and anything else is an undefined instruction of the manager.

mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{CHANNELS, csr, fault, output, reg, shadow};
pub use state::{State, StateV1};

export_device!(Pl330);

/// The controller's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Channels, 1 to 8.
    pub channels: u8,
    /// Events, each with an interrupt output, 1 to 32.
    pub events: u8,
    /// Peripheral requests, 0 to 32.
    pub requests: u8,
    /// 0 to 3 for r0p0, r1p0, r1p1 and r1p2.
    pub revision: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self { channels: 8, events: 4, requests: 0, revision: 3 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        for (name, value, least, most) in [
            ("channels", self.channels, 1, CHANNELS as u8),
            ("events", self.events, 1, 32),
            ("requests", self.requests, 0, 32),
            ("revision", self.revision, 0, 3),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::new(format!("{name}: {value} is not in {least}..={most}")));
            }
        }
        Ok(())
    }

    /// The config, or the default if it is one that `check` refuses: its spec is asked for first.
    fn sane(&self) -> Self {
        if self.check().is_ok() { self.clone() } else { Self::default() }
    }

    fn event_mask(&self) -> u32 {
        u32::MAX >> (32 - self.events)
    }
}

/// Instructions (TRM chapter 4).
mod instruction {
    pub(super) const DMAKILL: u8 = 0x01;
    pub(super) const DMASEV: u8 = 0x34;
    /// Bit 1 is the channel's security state.
    pub(super) const DMAGO: u8 = 0xa0;
    pub(super) const DMAGO_NS: u8 = 0xa2;
}

/// The device.
#[derive(Debug)]
pub struct Pl330 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl330 {
    const KIND: &'static str = "pl330";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(&cfg.sane())
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new() })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(),
            Event::Read { tag, offset, size } => {
                let value = self.read(bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Line { .. }
            | Event::Timer(_)
            | Event::DmaDone { .. }
            | Event::Popped { .. }
            | Event::Host { .. } => {}
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

impl Pl330 {
    fn read(&self, word: u64) -> u32 {
        let channel = |first: u64, stride: u64| ((word - first) / stride) as usize;
        match word {
            reg::INTEN => self.s.inten,
            reg::EVENT_RIS => self.s.signalled,
            reg::INTMIS => self.interrupts(),
            reg::FSRD => u32::from(self.s.manager != 0),
            reg::FSRC => self.faulting(),
            reg::FTRD => self.s.manager,
            reg::FTR..0x060 => self.s.faults[channel(reg::FTR, 4)],
            reg::CSR..0x140 if word & 4 == 0 => self.s.status[channel(reg::CSR, 8)],
            reg::CSR..0x140 => self.s.pc[channel(reg::CPC, 8)],
            _ => 0,
        }
    }

    fn write(&mut self, word: u64, value: u32) {
        match word {
            reg::INTEN => {
                // An event that becomes none of the interrupts any more loses its interrupt.
                self.s.signalled &= !(self.s.inten & !value);
                self.s.inten = value;
            }
            reg::INTCLR => self.s.signalled &= !(value & self.s.inten),
            reg::DBGINST0 => self.s.debug[0] = value,
            reg::DBGINST1 => self.s.debug[1] = value,
            reg::DBGCMD if value & 3 == 0 => self.debug(),
            _ => {}
        }
    }

    /// Carries out the instruction in the debug registers (TRM 3.3.17 to 3.3.19).
    fn debug(&mut self) {
        let [control, operand] = self.s.debug;
        let bytes = [(control >> 16) as u8, (control >> 24) as u8];
        let thread = if control & 1 != 0 { Some((control >> 8 & 7) as usize) } else { None };
        if thread.is_some_and(|n| n >= self.cfg.channels.into()) {
            return self.manager_fault(fault::OPERAND_INVALID);
        }
        match (bytes[0], thread) {
            (instruction::DMAKILL, Some(n)) => self.kill(n),
            (instruction::DMAKILL, None) => self.s.manager = 0,
            (instruction::DMASEV, _) => self.signal(bytes[1] >> 3),
            (instruction::DMAGO | instruction::DMAGO_NS, None) => {
                self.go(usize::from(bytes[1] & 7), operand, bytes[0] == instruction::DMAGO_NS);
            }
            _ => self.manager_fault(fault::UNDEF_INSTR),
        }
    }

    fn manager_fault(&mut self, kind: u32) {
        self.s.manager |= kind | fault::DBG_INSTR;
    }

    fn kill(&mut self, n: usize) {
        (self.s.faults[n], self.s.status[n]) = (0, 0);
    }

    /// DMASEV: an interrupt if INTEN says so, else an event, for which nobody waits.
    fn signal(&mut self, event: u8) {
        if event >= self.cfg.events {
            return self.manager_fault(fault::OPERAND_INVALID);
        }
        self.s.signalled |= 1 << event;
    }

    /// DMAGO: the channel starts, and its first fetch fails. A channel that is not Stopped takes no notice.
    fn go(&mut self, n: usize, pc: u32, non_secure: bool) {
        if n >= self.cfg.channels.into() {
            return self.manager_fault(fault::OPERAND_INVALID);
        }
        if self.s.status[n] == 0 {
            self.s.pc[n] = pc;
            self.s.status[n] = csr::FAULTING | if non_secure { csr::CNS } else { 0 };
            self.s.faults[n] = fault::INSTR_FETCH_ERR;
        }
    }

    /// INTMIS.
    fn interrupts(&self) -> u32 {
        self.s.signalled & self.s.inten
    }

    /// FSRC.
    fn faulting(&self) -> u32 {
        self.s.faults.iter().enumerate().fold(0, |all, (n, &f)| all | u32::from(f != 0) << n)
    }

    fn show(&self, fx: &mut Effects<'_>) {
        for (index, value) in [
            (shadow::INTEN, self.s.inten),
            (shadow::EVENT_RIS, self.s.signalled),
            (shadow::INTMIS, self.interrupts()),
            (shadow::FSRD, u32::from(self.s.manager != 0)),
            (shadow::FSRC, self.faulting()),
            (shadow::FTRD, self.s.manager),
        ] {
            fx.publish(index, value.into());
        }
        for (first, values) in [(shadow::FTR, &self.s.faults), (shadow::CSR, &self.s.status), (shadow::CPC, &self.s.pc)]
        {
            for (n, &value) in values.iter().enumerate() {
                fx.publish(first + n as u16, value.into());
            }
        }
        fx.line(output::ABORT, self.s.manager != 0 || self.faulting() != 0);
        for event in 0..u32::from(self.cfg.events) {
            fx.line(output::IRQ0 + event, self.interrupts() >> event & 1 != 0);
        }
    }
}

#[cfg(test)]
mod tests;
