//! The high-definition LCD controller of the V2P-CA15 tile (HDLCD), as ARM DUI 0604 describes it.
//!
//! As the `pl111` it reads no memory: it says over its port where the picture is and how its bytes are pixels ([`reprise_device::screen`]). Frames go by in
//! guest time, from the pixel clock of the config; with all interrupts masked nothing happens at a frame's end.
//!
//! Not modelled: pixels of big-endian order, lines from the bottom up (a negative pitch), default colours where no bits are selected, bus errors and
//! underruns, polarities and bus options (stored).

mod spec;
mod state;

use reprise_device::screen::{self, Field, Frame, MAX_SIDE, Mode, check_clock};
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{ENABLE, KEPT, MASK_SHADOW, VERSION, int, kept, reg};
pub use state::{State, StateV1};

export_device!(Hdlcd);

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The pixel clock in Hz, 1 MHz to 1 GHz. It is a board's oscillator, which a driver may set; here it stays as it is, and only the length of a frame depends
    /// on it.
    pub clock_hz: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { clock_hz: 65_000_000 }
    }
}

/// The device.
#[derive(Debug)]
pub struct Hdlcd {
    cfg: Config,
    s: StateV1,
}

impl Device for Hdlcd {
    const KIND: &'static str = "hdlcd";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        check_clock(cfg.clock_hz)?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new() })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        let before = self.mode();
        match event {
            Event::Read { tag, offset, size } => {
                let value = self.read(now, bus::word(offset));
                return fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                self.write(now, bus::word(offset), bus::write_lanes(offset, size, value));
            }
            Event::Reset => self.s = StateV1::new(),
            Event::Timer(_) => {}
            Event::Line { .. } | Event::DmaDone { .. } | Event::Host { .. } | Event::Popped { .. } => return,
        }
        screen::describe(fx, spec::SCREEN, before, self.mode(), Vec::new);
        self.show(now, fx);
    }

    fn save(&self) -> State {
        State::V1(self.s.clone())
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        check_clock(cfg.clock_hz).map_err(|e| RestoreError(e.message))?;
        s.check()?;
        Ok(Self { cfg: cfg.clone(), s })
    }
}

impl Hdlcd {
    fn read(&self, now: VTime, word: u64) -> u32 {
        match word {
            reg::VERSION => VERSION,
            reg::INT_RAWSTAT => self.raw(now).into(),
            reg::INT_MASK => self.s.mask.into(),
            reg::INT_STATUS => (self.raw(now) & self.s.mask).into(),
            _ => KEPT.iter().position(|k| k.1 == word).map_or(0, |i| self.s.kept[i]),
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32) {
        match word {
            reg::INT_RAWSTAT => self.s.raw |= value as u8 & int::MASK,
            reg::INT_CLEAR => {
                self.look(now);
                self.s.raw &= !(value as u8);
            }
            reg::INT_MASK => self.s.mask = value as u8 & int::MASK,
            _ => {
                let Some(i) = KEPT.iter().position(|k| k.1 == word) else { return };
                let value = value & KEPT[i].2;
                // A write of what a register has already changes nothing, whenever it comes.
                if self.s.kept[i] == value {
                    return;
                }
                if (kept::V_SYNC..=kept::H_FRONT).contains(&i) || i == kept::COMMAND {
                    self.look(now);
                    self.s.began = now;
                }
                self.s.kept[i] = value;
            }
        }
    }

    /// How frames go by; none while the controller is off.
    fn frame(&self) -> Option<Frame> {
        let field = |i: usize| u64::from(self.s.kept[i]) + 1;
        let pixels: u64 = (kept::H_SYNC..=kept::H_FRONT).map(field).sum();
        let frame = || Frame {
            line_ns: (pixels * 1_000_000_000 / u64::from(self.cfg.clock_hz)).max(1),
            sync: field(kept::V_SYNC),
            back: field(kept::V_SYNC + 1),
            active: field(kept::V_DATA),
            front: field(kept::V_DATA + 1),
        };
        (self.s.kept[kept::COMMAND] & ENABLE != 0).then(frame)
    }

    /// INT_RAWSTAT.
    fn raw(&self, now: VTime) -> u8 {
        let Some(frame) = self.frame() else { return self.s.raw };
        let come = |at: u64| frame.next(self.s.began, at, self.s.seen) <= now;
        let bit = |set: bool, bit: u8| u8::from(set) * bit;
        self.s.raw | bit(come(0), int::VSYNC) | bit(come(frame.picture_end()), int::DMA_END)
    }

    /// Takes note of what has happened until now.
    fn look(&mut self, now: VTime) {
        (self.s.raw, self.s.seen) = (self.raw(now), now);
    }

    /// When the next interrupt comes that is not masked and not there yet.
    fn due(&self, now: VTime) -> Option<VTime> {
        let frame = self.frame()?;
        let wanted = self.s.mask & !self.raw(now);
        let next = |at| frame.next(self.s.began, at, now);
        let sync = (wanted & int::VSYNC != 0).then(|| next(0));
        let end = (wanted & int::DMA_END != 0).then(|| next(frame.picture_end()));
        sync.into_iter().chain(end).min()
    }

    /// What the screen shows; none while it is off, or larger than any screen.
    fn mode(&self) -> Option<Mode> {
        let k = &self.s.kept;
        let side = |i: usize| u16::try_from(k[i] + 1).ok().filter(|n| *n <= MAX_SIDE);
        if k[kept::COMMAND] & ENABLE == 0 {
            return None;
        }
        let field = |select: u32| {
            let (shift, bits) = ((select & 0x1f) as u8, (select >> 8 & 0xf) as u8);
            // What reaches beyond the pixel, or has more bits than a colour, is none.
            if bits <= 8 && shift + bits <= 32 { Field { shift, bits } } else { Field::default() }
        };
        let mode = Mode {
            width: side(kept::H_DATA)?,
            height: side(kept::V_DATA)?,
            base: k[kept::BASE].into(),
            bits: 8 * ((k[kept::FORMAT] >> 3 & 3) as u8 + 1),
            rgb: [0, 1, 2].map(|i| field(k[kept::RED + i])),
            ..Mode::default()
        };
        let line = u32::from(mode.width) * u32::from(mode.bits / 8);
        let pitch = k[kept::PITCH];
        Some(Mode { pitch: if pitch > line && pitch <= 1 << 16 { pitch } else { line }, ..mode })
    }

    fn show(&self, now: VTime, fx: &mut Effects<'_>) {
        for (i, value) in self.s.kept.iter().enumerate() {
            fx.publish(i as u16, u64::from(*value));
        }
        fx.publish(MASK_SHADOW, self.s.mask.into());
        fx.line(spec::IRQ, self.raw(now) & self.s.mask != 0);
        fx.timer(spec::FRAME, self.due(now));
    }
}

#[cfg(test)]
mod tests;
