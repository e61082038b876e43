//! NOR flash with the common flash interface and Intel's command set: one or two chips of 16 data lines side by side on the bus.
//!
//! What it holds lies on the device's disk, byte for byte as the CPU reads it, and stays there. Where the disk ends, and without one, it is erased at the
//! machine's start and at each reset, and what is programmed there is a part of the device's state. A disk that is read-only is a flash whose
//! write protection is on.
//!
//! Programming and erasing take no time, so a chip is always ready, and there is nothing to suspend. Bits are only ever cleared by programming, as in silicon. A lane of the bus
//! that is written reaches its chip whether or not the other is; what is written by bytes has ones in the other byte.
//!
//! Each access is one to the device: nothing is executed from here, and reading much of it is slow (`docs/devices.md`).

mod spec;
mod state;

use reprise_device::spec::PluginSpec;
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, export_device};
use serde::Deserialize;

use spec::{BLOCK, BUFFER_WORDS, MANUFACTURER, command, device_id, query, status};
pub use state::{Chip, State, StateV1, View, Waits};

export_device!(Flash);

/// The only disk.
const DISK: u32 = 0;
/// What is kept together of a flash beyond its disk.
const PAGE: u64 = 4096;
/// Pages that are kept at most: what one saved state can hold with ease.
const VOLATILE_PAGES: usize = 8192;

/// The flash's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of the bank: a power of two from 256 KiB to 256 MiB.
    pub size: u64,
    /// Chips of 16 bits side by side: 1 or 2.
    pub chips: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { size: 64 << 20, chips: 2 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if !self.size.is_power_of_two() || !(256 << 10..=256 << 20).contains(&self.size) {
            return Err(ConfigError::new(format!("size: {} is not a power of two from 256 KiB to 256 MiB", self.size)));
        }
        if !matches!(self.chips, 1 | 2) {
            return Err(ConfigError::new(format!("chips: {} is not 1 or 2", self.chips)));
        }
        Ok(())
    }

    /// Bytes of a chip.
    pub(crate) fn chip_size(&self) -> u64 {
        self.size / u64::from(self.chips.max(1))
    }
}

/// The device.
#[derive(Debug)]
pub struct Flash {
    cfg: Config,
    s: StateV1,
}

impl Device for Flash {
    const KIND: &'static str = "cfi-flash";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> PluginSpec {
        // A wrong size is the config's mistake, which `new` reports.
        let window = cfg.size.clamp(4, 256 << 20) & !3;
        PluginSpec::new(Self::KIND, env!("CARGO_PKG_VERSION"), window).disk("flash")
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new(cfg) })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        match event {
            Event::Reset => self.s = StateV1::new(&self.cfg),
            Event::Read { tag, offset, size } => {
                let value = self.read(offset, size, fx);
                fx.reply(tag, value);
            }
            Event::Write { offset, size, value, .. } => self.write(offset, size, value, fx),
            Event::Line { .. }
            | Event::Timer(_)
            | Event::DmaDone { .. }
            | Event::Host { .. }
            | Event::Popped { .. } => {}
        }
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

impl Flash {
    /// The chip that has the halfword at `offset` of the bank, and where in the chip.
    fn place(&self, offset: u64) -> (usize, u64) {
        let (half, chips) = (offset / 2, u64::from(self.cfg.chips));
        ((half % chips) as usize, half / chips * 2)
    }

    /// Where byte `at` of a chip is in the bank.
    fn offset(&self, chip: usize, at: u64) -> u64 {
        (at / 2 * u64::from(self.cfg.chips) + chip as u64) * 2
    }

    fn read(&self, offset: u64, size: u8, fx: &mut Effects<'_>) -> u64 {
        if size == 1 {
            return u64::from(self.halfword(offset & !1, fx)) >> (8 * (offset & 1)) & 0xff;
        }
        (0..u64::from(size) / 2).fold(0, |all, i| all | u64::from(self.halfword(offset + 2 * i, fx)) << (16 * i))
    }

    fn halfword(&self, offset: u64, fx: &mut Effects<'_>) -> u16 {
        let (n, at) = self.place(offset);
        let chip = &self.s.chips[n];
        match chip.view {
            View::Array => {
                let mut bytes = [0; 2];
                self.load(offset, &mut bytes, fx);
                u16::from_le_bytes(bytes)
            }
            View::Status => chip.status.into(),
            View::Query => query(self.cfg.chip_size(), at / 2 & 0xff).into(),
            View::Id => match at / 2 % (BLOCK / 2) {
                0 => MANUFACTURER,
                1 => device_id(self.cfg.chip_size()),
                2 => {
                    let block = (at / BLOCK) as u32;
                    u16::from(chip.locked.contains(&block)) | u16::from(chip.down.contains(&block)) << 1
                }
                _ => 0,
            },
        }
    }

    fn write(&mut self, offset: u64, size: u8, value: u64, fx: &mut Effects<'_>) {
        if size == 1 {
            let shift = 8 * (offset & 1);
            let lane = !(0xff_u16 << shift) | (value as u16 & 0xff) << shift;
            return self.cycle(offset & !1, lane, fx);
        }
        for i in 0..u64::from(size) / 2 {
            self.cycle(offset + 2 * i, (value >> (16 * i)) as u16, fx);
        }
    }

    /// A write cycle of one chip.
    fn cycle(&mut self, offset: u64, value: u16, fx: &mut Effects<'_>) {
        let (n, at) = self.place(offset);
        let block = (at / BLOCK) as u32;
        let byte = value as u8;
        let chip = &mut self.s.chips[n];
        match std::mem::take(&mut chip.waits) {
            Waits::Command => self.command(n, at, byte),
            Waits::Word => self.program(n, &[(at, value)], fx),
            Waits::Erase if byte == command::CONFIRM => self.erase(n, block, fx),
            Waits::Lock if byte == command::LOCK_BLOCK => drop(chip.locked.insert(block)),
            Waits::Lock if byte == command::LOCK_DOWN => {
                chip.locked.insert(block);
                chip.down.insert(block);
            }
            Waits::Lock if byte == command::CONFIRM => {
                if !chip.down.contains(&block) {
                    chip.locked.remove(&block);
                }
            }
            Waits::Count(first) if usize::from(value) < BUFFER_WORDS => {
                chip.buffer.clear();
                chip.waits = Waits::Data(first, byte + 1);
            }
            Waits::Data(first, left) => {
                chip.buffer.push((at, value));
                chip.waits = if left > 1 { Waits::Data(first, left - 1) } else { Waits::Buffer };
                // The words must lie in the block that the command named.
                if at / BLOCK != first / BLOCK {
                    chip.fail(status::SEQUENCE);
                }
            }
            Waits::Buffer if byte == command::CONFIRM => {
                let words = std::mem::take(&mut chip.buffer);
                self.program(n, &words, fx);
            }
            Waits::Erase | Waits::Lock | Waits::Count(_) | Waits::Buffer => chip.fail(status::SEQUENCE),
        }
    }

    fn command(&mut self, n: usize, at: u64, byte: u8) {
        let chip = &mut self.s.chips[n];
        (chip.view, chip.waits) = match byte {
            command::READ_ARRAY => (View::Array, Waits::Command),
            command::READ_ID => (View::Id, Waits::Command),
            command::QUERY => (View::Query, Waits::Command),
            command::READ_STATUS => (View::Status, Waits::Command),
            command::CLEAR_STATUS => {
                chip.status &= !status::CLEARABLE;
                (chip.view, Waits::Command)
            }
            command::PROGRAM | command::PROGRAM_ALT => (View::Status, Waits::Word),
            command::ERASE => (View::Status, Waits::Erase),
            command::LOCK => (View::Status, Waits::Lock),
            command::BUFFER => (View::Status, Waits::Count(at)),
            // There is never anything to suspend or to resume.
            command::SUSPEND | command::CONFIRM => (View::Status, Waits::Command),
            _ => (chip.view, Waits::Command),
        };
    }

    /// Clears the bits of words that are zero in theirs.
    fn program(&mut self, n: usize, words: &[(u64, u16)], fx: &mut Effects<'_>) {
        for &(at, word) in words {
            let offset = self.offset(n, at);
            if !self.may_change(n, at, fx) {
                return self.s.chips[n].fail(status::PROGRAM_ERROR | status::LOCKED);
            }
            let mut bytes = [0; 2];
            self.load(offset, &mut bytes, fx);
            let new = (u16::from_le_bytes(bytes) & word).to_le_bytes();
            if new != bytes && !self.store(offset, &new, fx) {
                return self.s.chips[n].fail(status::PROGRAM_ERROR);
            }
        }
    }

    /// Sets all bits of a chip's block. In the bank its words alternate with those of the other chip.
    fn erase(&mut self, n: usize, block: u32, fx: &mut Effects<'_>) {
        let chips = self.cfg.chips as usize;
        let at = u64::from(block) * BLOCK;
        if !self.may_change(n, at, fx) {
            return self.s.chips[n].fail(status::ERASE_ERROR | status::LOCKED);
        }
        let first = self.offset(0, at);
        let mut page = vec![0; PAGE as usize];
        for offset in (first..first + BLOCK * chips as u64).step_by(PAGE as usize) {
            self.load(offset, &mut page, fx);
            let before = page.clone();
            page.chunks_exact_mut(2).skip(n).step_by(chips).for_each(|half| half.fill(0xff));
            // To erase takes no room that the page did not have before.
            if page != before && !self.store(offset, &page, fx) {
                return self.s.chips[n].fail(status::ERASE_ERROR);
            }
        }
    }

    fn may_change(&self, n: usize, at: u64, fx: &Effects<'_>) -> bool {
        let protected = fx.disk_len(DISK).is_some_and(|len| len > 0) && fx.disk_read_only(DISK);
        !protected && !self.s.chips[n].locked.contains(&((at / BLOCK) as u32))
    }

    /// Bytes of the bank that the disk has.
    fn on_disk(&self, fx: &Effects<'_>) -> u64 {
        fx.disk_len(DISK).unwrap_or(0).min(self.cfg.size)
    }

    /// Reads bytes of one page.
    fn load(&self, offset: u64, bytes: &mut [u8], fx: &mut Effects<'_>) {
        let there = self.on_disk(fx).saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (disk, rest) = bytes.split_at_mut(there);
        if !disk.is_empty() {
            fx.disk_read(DISK, offset, disk);
        }
        let at = offset + there as u64;
        match self.s.pages.get(&((at / PAGE) as u32)) {
            Some(page) => rest.copy_from_slice(&page[(at % PAGE) as usize..][..rest.len()]),
            None => rest.fill(0xff),
        }
    }

    /// Writes bytes of one page; whether there was room for them.
    fn store(&mut self, offset: u64, bytes: &[u8], fx: &mut Effects<'_>) -> bool {
        let there = self.on_disk(fx).saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (disk, rest) = bytes.split_at(there);
        if !disk.is_empty() {
            fx.disk_write(DISK, offset, disk);
        }
        if rest.is_empty() {
            return true;
        }
        let at = offset + there as u64;
        let number = (at / PAGE) as u32;
        if !self.s.pages.contains_key(&number) && self.s.pages.len() >= VOLATILE_PAGES {
            return false;
        }
        let page = self.s.pages.entry(number).or_insert_with(|| vec![0xff; PAGE as usize]);
        page[(at % PAGE) as usize..][..rest.len()].copy_from_slice(rest);
        if page.iter().all(|b| *b == 0xff) {
            self.s.pages.remove(&number);
        }
        true
    }
}

impl Chip {
    fn fail(&mut self, bits: u8) {
        self.status |= bits;
        self.waits = Waits::Command;
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests;
