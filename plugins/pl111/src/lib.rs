//! The colour LCD controller (PL111, or its elder the PL110), as ARM DDI 0293 and DDI 0161 (the TRMs) describe it.
//!
//! The picture lies in guest memory. This device never reads it: it says over its port where it is and how its bytes are pixels
//! ([`reprise_device::screen`]), and whoever shows the screen reads it there. A screen is on while LcdEn and LcdPwr are set.
//!
//! Frames go by in guest time, from the pixel clock of the config: a frame begins with its vertical synchronisation, when the base address is
//! taken over and LNBU comes; VCOMP comes where LcdVComp says. With both masked nothing happens at a frame's end and an idle machine stays idle; LCDRIS is worked out when it is
//! read. What is shown changes with the write of LCDUPBASE, not at the frame's end after it.
//!
//! Not modelled: the hardware cursor (its registers are stored), the grey scaler of STN panels and their second panel, FIFO underflow and bus errors, the bits of
//! the palette's intensity.

mod frame;
mod spec;
mod state;

use reprise_device::screen::{self, Field, Frame, Mode, check_clock};
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use spec::{BASE_MASK, BYPASS, CURSOR_MASKS, TIMING0_MASK, TIMING2_MASK, TIMING3_MASK};
use spec::{control, int, output, port, reg, shadow, timer};
pub use state::{Cursor, State, StateV1};

export_device!(Pl111);

/// Which of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// With 5:6:5 and 4:4:4 pixels and a cursor.
    #[default]
    Pl111,
    /// Without, and with two registers in each other's place.
    Pl110,
}

/// The device's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `pl111` or `pl110`.
    pub model: Model,
    /// CLCDCLK in Hz, 1 MHz to 1 GHz. It is a board's oscillator, which a driver may set; here it stays as it is, and only the length of a frame depends on it.
    pub clock_hz: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { model: Model::Pl111, clock_hz: 25_000_000 }
    }
}

/// The device.
#[derive(Debug)]
pub struct Pl111 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl111 {
    const KIND: &'static str = "pl111";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg.model)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        check_clock(cfg.clock_hz)?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new() })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Read { tag, offset, size } => {
                let value = self.read(now, bus::word(offset));
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                let (word, value) = (bus::word(offset), bus::write_lanes(offset, size, value));
                if self.is_table(word) {
                    self.write_table(word, value, fx);
                } else {
                    self.change(now, fx, |s| s.write(now, word, value));
                }
            }
            Event::Reset => self.change(now, fx, |s| s.s = StateV1::new()),
            Event::Timer(_) => self.show(now, fx),
            Event::Line { .. } | Event::DmaDone { .. } | Event::Host { .. } | Event::Popped { .. } => {}
        }
    }

    fn save(&self) -> State {
        State::V1(Box::new(self.s.clone()))
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        check_clock(cfg.clock_hz).map_err(|e| RestoreError(e.message))?;
        s.check()?;
        Ok(Self { cfg: cfg.clone(), s: *s })
    }
}

impl Pl111 {
    /// Where CONTROL and IMSC are on this model, as if it were a PL111.
    fn place(&self, word: u64) -> u64 {
        match (self.cfg.model, word) {
            (Model::Pl110, reg::CONTROL) => reg::IMSC,
            (Model::Pl110, reg::IMSC) => reg::CONTROL,
            (_, word) => word,
        }
    }

    /// Palette and cursor, which nothing else depends on.
    fn is_table(&self, word: u64) -> bool {
        word >= reg::PALETTE
    }

    fn read(&self, now: VTime, word: u64) -> u32 {
        let s = &self.s;
        match self.place(word) {
            reg::TIMING0..=reg::TIMING3 => s.timing[(word / 4) as usize],
            reg::UPBASE => s.upbase,
            reg::LPBASE => s.lpbase,
            reg::CONTROL => s.control,
            reg::IMSC => s.imsc.into(),
            reg::RIS => self.raw(now).into(),
            reg::MIS => (self.raw(now) & s.imsc).into(),
            reg::UPCURR => self.current(now, s.upbase),
            reg::LPCURR => self.current(now, s.lpbase),
            _ => self.table(word).copied().unwrap_or(0),
        }
    }

    fn table(&self, word: u64) -> Option<&u32> {
        let n = |from: u64| ((word - from) / 4) as usize;
        match word {
            reg::PALETTE..reg::PALETTE_END => self.s.palette.get(n(reg::PALETTE)),
            _ if self.cfg.model == Model::Pl110 => None,
            reg::CURSOR_IMAGE..reg::CURSOR_IMAGE_END => self.s.cursor.image.get(n(reg::CURSOR_IMAGE)),
            reg::CURSOR.. => self.s.cursor.controls.get(n(reg::CURSOR)),
            _ => None,
        }
    }

    fn write_table(&mut self, word: u64, value: u32, fx: &mut Effects<'_>) {
        let n = |from: u64| ((word - from) / 4) as usize;
        match word {
            reg::PALETTE..reg::PALETTE_END => {
                self.s.palette[n(reg::PALETTE)] = value;
                if self.mode().is_some_and(|m| m.is_indexed()) {
                    let colours = self.two_colours(value);
                    fx.host_out(port::SCREEN, &screen::colours_message(2 * n(reg::PALETTE) as u16, &colours));
                }
            }
            _ if self.cfg.model == Model::Pl110 => {}
            reg::CURSOR_IMAGE..reg::CURSOR_IMAGE_END => self.s.cursor.image[n(reg::CURSOR_IMAGE)] = value,
            reg::CURSOR.. => {
                if let Some(control) = self.s.cursor.controls.get_mut(n(reg::CURSOR)) {
                    *control = value & CURSOR_MASKS[n(reg::CURSOR)];
                }
            }
            _ => {}
        }
    }

    /// Does something that may change what the outside sees, and shows it.
    fn change(&mut self, now: VTime, fx: &mut Effects<'_>, act: impl FnOnce(&mut Self)) {
        let bgr = |s: &StateV1| s.control & control::BGR;
        let (mode, order) = (self.mode(), bgr(&self.s));
        act(self);
        let after = self.mode();
        screen::describe(fx, port::SCREEN, mode, after, || self.colours());
        let indexed = |m: Option<Mode>| m.is_some_and(|m| m.is_indexed());
        if order != bgr(&self.s) && indexed(mode) && indexed(after) {
            fx.host_out(port::SCREEN, &screen::colours_message(0, &self.colours()));
        }
        self.show(now, fx);
    }

    /// A write of what a register has already changes nothing, whenever it comes.
    fn write(&mut self, now: VTime, word: u64, value: u32) {
        match self.place(word) {
            reg::TIMING0..=reg::TIMING3 => {
                let n = (word / 4) as usize;
                let value = value & [TIMING0_MASK, u32::MAX, TIMING2_MASK, TIMING3_MASK][n];
                if self.s.timing[n] != value {
                    self.look(now);
                    (self.s.timing[n], self.s.began) = (value, now);
                }
            }
            reg::UPBASE => self.s.upbase = value & BASE_MASK,
            reg::LPBASE => self.s.lpbase = value & BASE_MASK,
            reg::CONTROL => {
                let change = self.s.control ^ value & control::MASK;
                if change != 0 {
                    self.look(now);
                    self.s.control ^= change;
                }
                if change & control::ENABLE != 0 {
                    self.s.began = now;
                }
            }
            reg::IMSC => self.s.imsc = value as u8 & int::MASK,
            reg::ICR => {
                self.look(now);
                self.s.ris &= !(value as u8);
            }
            _ => {}
        }
    }

    /// How frames go by; none while the controller is off.
    fn frame(&self) -> Option<Frame> {
        let divided = self.s.timing[2] & BYPASS == 0;
        let frame = || frame::of(&self.s.timing, self.cfg.clock_hz, divided);
        (self.s.control & control::ENABLE != 0).then(frame)
    }

    /// When in a frame VCOMP comes, in lines from its beginning (TRM 3.3.7, LcdVComp).
    fn compare(&self) -> u8 {
        (self.s.control >> control::VCOMP_SHIFT & 3) as u8
    }

    /// LCDRIS.
    fn raw(&self, now: VTime) -> u8 {
        let Some(frame) = self.frame() else { return self.s.ris };
        let come = |at: u64| frame.next(self.s.began, at, self.s.seen) <= now;
        let bit = |set: bool, bit: u8| u8::from(set) * bit;
        self.s.ris | bit(come(0), int::LNBU) | bit(come(frame::compare_ns(&frame, self.compare())), int::VCOMP)
    }

    /// Takes note of what has happened until now.
    fn look(&mut self, now: VTime) {
        (self.s.ris, self.s.seen) = (self.raw(now), now);
    }

    /// When the next interrupt comes that is not masked and not there yet.
    fn due(&self, now: VTime) -> Option<VTime> {
        let frame = self.frame()?;
        let wanted = self.s.imsc & !self.raw(now);
        let next = |at| frame.next(self.s.began, at, now);
        let base = (wanted & int::LNBU != 0).then(|| next(0));
        let compare = (wanted & int::VCOMP != 0).then(|| next(frame::compare_ns(&frame, self.compare())));
        base.into_iter().chain(compare).min()
    }

    /// The address that is being read for the panel.
    fn current(&self, now: VTime, base: u32) -> u32 {
        let (Some(frame), Some(mode)) = (self.frame(), self.mode()) else { return base };
        base.wrapping_add(frame.line(now.since(self.s.began)).wrapping_mul(mode.pitch))
    }

    /// What the screen shows; none while it is off.
    fn mode(&self) -> Option<Mode> {
        let s = &self.s;
        if s.control & (control::ENABLE | control::POWER) != control::ENABLE | control::POWER {
            return None;
        }
        let panels = if s.control & control::DUAL != 0 && s.control & control::TFT == 0 { 2 } else { 1 };
        let (bits, rgb) = self.pixels();
        let width = (16 * ((s.timing[0] >> 2 & 0x3f) + 1)) as u16;
        let mode = Mode {
            width,
            height: ((s.timing[1] & 0x3ff) + 1) as u16 * panels,
            base: s.upbase.into(),
            bits,
            word_reversed: s.control & control::BEBO != 0,
            byte_reversed: s.control & control::BEPO != 0,
            rgb,
            ..Mode::default()
        };
        Some(Mode { pitch: mode.line_bytes() as u32, ..mode })
    }

    /// Bits of a pixel, and where its colours are (TRM 2.3.4 and 3.3.7, LcdBpp and BGR).
    fn pixels(&self) -> (u8, [Field; 3]) {
        let from = |widths: [u8; 3]| {
            let shifts = [0, widths[0], widths[0] + widths[1]];
            [0, 1, 2].map(|i| Field { shift: shifts[i], bits: widths[i] })
        };
        let new = self.cfg.model == Model::Pl111;
        let (bits, mut rgb) = match self.s.control >> control::BPP_SHIFT & 7 {
            n @ 0..=3 => (1 << n, <[Field; 3]>::default()),
            5 => (32, from([8, 8, 8])),
            6 if new => (16, from([5, 6, 5])),
            7 if new => (16, from([4, 4, 4])),
            // Also what the PL110 leaves undefined.
            _ => (16, from([5, 5, 5])),
        };
        if self.s.control & control::BGR != 0 {
            rgb.swap(0, 2);
        }
        (bits, rgb)
    }

    fn colours(&self) -> Vec<[u8; 3]> {
        self.s.palette.iter().flat_map(|&word| self.two_colours(word)).collect()
    }

    /// The colours of a word of the palette (TRM 3.3.13): 5 bits each of red, green and blue from the lowest up, twice; red and blue change places
    /// on their way out if BGR says so.
    fn two_colours(&self, word: u32) -> [[u8; 3]; 2] {
        let five = |at: u32| ((word >> at & 0x1f) * 255 / 31) as u8;
        let swap = self.s.control & control::BGR != 0;
        [0, 16].map(|half| {
            let [r, g, b] = [five(half), five(half + 5), five(half + 10)];
            if swap { [b, g, r] } else { [r, g, b] }
        })
    }

    fn show(&self, now: VTime, fx: &mut Effects<'_>) {
        let s = &self.s;
        for (i, value) in s.timing.iter().enumerate() {
            fx.publish(shadow::TIMING0 + i as u16, u64::from(*value));
        }
        fx.publish(shadow::UPBASE, s.upbase.into());
        fx.publish(shadow::LPBASE, s.lpbase.into());
        fx.publish(shadow::CONTROL, s.control.into());
        fx.publish(shadow::IMSC, s.imsc.into());
        fx.line(output::IRQ, self.raw(now) & s.imsc != 0);
        fx.timer(timer::FRAME, self.due(now));
    }
}

#[cfg(test)]
mod tests;
