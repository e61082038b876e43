//! The multimedia card interface (PrimeCell MCI PL180), as ARM DDI 0172 (the TRM) describes it, with an SD memory card in its slot.
//!
//! The card is as large as the disk behind it: up to 2 GiB a standard capacity card, above that a high capacity one. Without a disk the slot is empty.
//! The outputs `present` and `protected` are the slot's switches.
//!
//! Commands and data take no guest time. Data goes through the FIFO a word at a time, as on the board, but few of the words wait for
//! this device: what the card sends lies in a queue of the CPU's process ahead of the reads, and what is sent to the card is written without waiting.
//! The card's side of the FIFO works in whole blocks when data is sent: MCIDataCnt and MCIFifoCnt step by a block, and the FIFO is always empty.
//! A transfer that ends with a word that was written makes its interrupt fall at the next access to another register, as such writes lower no line.
//!
//! Not modelled: the DMA interface, MultiMediaCard streams, the response of a card to a command with a bad check sum, which can't happen here.

mod card;
mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

use card::regs::Geometry;
use card::{Answer, Medium};
pub use card::{Card, Mode};
use spec::{DISK, QUEUE, TIMEOUT, clock, command, datactrl, output, power, reg, shadow, status};
pub use state::{Path, State, StateV1};

export_device!(Pl180);

/// Bytes of the longest block (TRM 3.3.9).
const LONGEST_BLOCK: usize = 2048;

/// The interface's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Words in the FIFO: 16, or 128 as on the Versatile Express, whose revision says so in the identification registers.
    pub fifo: u32,
    /// MCLK in Hz, 1 to 1 000 000 000; it times how long the controller waits for data.
    pub clock_hz: u64,
    /// The card's serial number.
    pub serial: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { fifo: 16, clock_hz: 24_000_000, serial: 1 }
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if !matches!(self.fifo, 16 | 128) {
            return Err(ConfigError::new(format!("fifo: {} is not 16 or 128", self.fifo)));
        }
        if !(1..=1_000_000_000).contains(&self.clock_hz) {
            return Err(ConfigError::new(format!("clock_hz: {} is not in 1..=1000000000", self.clock_hz)));
        }
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Pl180 {
    cfg: Config,
    s: StateV1,
}

impl Device for Pl180 {
    const KIND: &'static str = "pl180";
    type Config = Config;
    type State = State;

    fn spec(cfg: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec(cfg)
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        cfg.check()?;
        Ok(Self { cfg: cfg.clone(), s: StateV1::new() })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        let mut posted = false;
        match event {
            Event::Reset => self.s = StateV1::new(),
            Event::Read { tag, offset, size } => {
                let word = bus::word(offset);
                let value = if is_fifo(word) { self.take(now, fx) } else { self.read(word) };
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                let (word, value) = (bus::word(offset), bus::write_lanes(offset, size, value));
                posted = is_fifo(word);
                if posted {
                    self.feed(value, fx);
                } else {
                    self.write(now, word, value, fx);
                }
            }
            Event::Popped { count, .. } => {
                let taken = (count as usize).min(self.s.fifo.len());
                drop(self.s.fifo.drain(..taken));
                self.receive(now, fx);
            }
            Event::Timer(_) => {
                self.s.status |= status::DATA_TIMEOUT;
                self.stop(fx);
            }
            Event::Line { .. } | Event::DmaDone { .. } | Event::Host { .. } => {}
        }
        self.show(posted, fx);
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

fn is_fifo(word: u64) -> bool {
    (reg::FIFO..reg::FIFO_END).contains(&word)
}

impl Pl180 {
    /// What is in the slot.
    fn medium(&self, fx: &Effects<'_>) -> Option<Medium> {
        let geometry = Geometry::of(fx.disk_len(DISK)?)?;
        Some(Medium { geometry, protected: fx.disk_read_only(DISK), serial: self.cfg.serial })
    }

    fn read(&self, word: u64) -> u32 {
        match word {
            reg::POWER => self.s.power,
            reg::CLOCK => self.s.clock,
            reg::ARGUMENT => self.s.argument,
            reg::COMMAND => self.s.command,
            reg::RESPCMD => self.s.respcmd,
            reg::RESPONSE0 => self.s.response[0],
            reg::RESPONSE1 => self.s.response[1],
            reg::RESPONSE2 => self.s.response[2],
            reg::RESPONSE3 => self.s.response[3],
            reg::DATATIMER => self.s.datatimer,
            reg::DATALENGTH => self.s.datalength,
            reg::DATACTRL => self.s.datactrl,
            reg::DATACNT => self.s.left,
            reg::STATUS => self.status(),
            reg::MASK0 => self.s.mask[0],
            reg::MASK1 => self.s.mask[1],
            reg::SELECT => self.s.select,
            reg::FIFOCNT => self.fifo_count(),
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32, fx: &mut Effects<'_>) {
        match word {
            reg::POWER => {
                self.s.power = value & power::MASK;
                if value & power::CTRL == power::OFF {
                    self.s.card = Card::new();
                }
            }
            reg::CLOCK => self.s.clock = value & clock::MASK,
            reg::ARGUMENT => self.s.argument = value,
            reg::COMMAND => {
                self.s.command = value & command::MASK;
                if value & command::ENABLE != 0 {
                    self.command(fx);
                    self.receive(now, fx);
                }
            }
            reg::DATATIMER => self.s.datatimer = value,
            reg::DATALENGTH => self.s.datalength = value & 0xffff,
            reg::DATACTRL => {
                self.s.datactrl = value & datactrl::MASK;
                self.stop(fx);
                if value & datactrl::ENABLE != 0 {
                    self.start(now, fx);
                }
            }
            reg::CLEAR => self.s.status &= !value,
            reg::MASK0 => self.s.mask[0] = value & status::ALL,
            reg::MASK1 => self.s.mask[1] = value & status::ALL,
            reg::SELECT => self.s.select = value & 0xf,
            _ => {}
        }
    }

    /// The command path (TRM 2.3.3): the card answers at once, or never.
    fn command(&mut self, fx: &mut Effects<'_>) {
        let value = self.s.command;
        let index = (value & command::INDEX) as u8;
        let powered = self.s.power & power::CTRL == power::ON && self.s.clock & clock::ENABLE != 0;
        let answer = match self.medium(fx).filter(|_| powered) {
            Some(medium) => self.s.card.command(index, self.s.argument, &medium, fx),
            None => Answer::Nothing,
        };
        if value & command::RESPONSE == 0 {
            self.s.status |= status::CMD_SENT;
            return;
        }
        // A response of another length than the controller waits for fails its check sum.
        self.s.status |= match (answer, value & command::LONG != 0) {
            (Answer::Nothing, _) => status::CMD_TIMEOUT,
            (Answer::Short(value), false) => {
                self.s.response[0] = value;
                self.s.respcmd = index.into();
                status::CMD_RESP_END
            }
            (Answer::Unchecked(value), false) => {
                self.s.response[0] = value;
                self.s.respcmd = 0x3f;
                status::CMD_CRC_FAIL
            }
            (Answer::Long(bytes), true) => {
                for (word, bytes) in self.s.response.iter_mut().zip(bytes.chunks_exact(4)) {
                    *word = u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
                }
                // The stop bit is not a part of it (TRM 3.3.6).
                self.s.response[3] &= !1;
                self.s.respcmd = 0x3f;
                status::CMD_RESP_END
            }
            _ => status::CMD_CRC_FAIL,
        };
    }

    /// The data path becomes active (TRM 2.3.4).
    fn start(&mut self, now: VTime, fx: &mut Effects<'_>) {
        self.s.left = self.s.datalength;
        if self.s.left == 0 {
            self.s.status |= status::DATA_END;
        } else if self.s.datactrl & datactrl::FROM_CARD != 0 {
            self.s.path = Path::Receive;
            self.receive(now, fx);
        } else {
            self.s.path = Path::Send;
        }
    }

    /// The data path becomes idle; what is in the FIFO is lost.
    fn stop(&mut self, fx: &mut Effects<'_>) {
        self.s.path = Path::Idle;
        self.s.part.clear();
        self.s.fifo.clear();
        self.s.deadline = None;
        fx.queue_clear(QUEUE);
    }

    /// Bytes of a block of this transfer.
    fn block(&self) -> u32 {
        if self.s.datactrl & datactrl::STREAM != 0 {
            return LONGEST_BLOCK as u32;
        }
        1 << (self.s.datactrl >> 4).min(LONGEST_BLOCK.trailing_zeros())
    }

    /// Fills the FIFO with what the card sends. It always does at once, so after each word that was read the FIFO is as full as it can be.
    fn receive(&mut self, now: VTime, fx: &mut Effects<'_>) {
        if self.s.path != Path::Receive {
            return;
        }
        let before = self.s.fifo.len();
        let room = (4 * (self.cfg.fifo as usize - before)).saturating_sub(self.s.part.len());
        let wanted = room.min(self.s.left as usize);
        let medium = self.medium(fx);
        let had = self.s.part.len();
        self.s.part.resize(had + wanted, 0);
        let got = match &medium {
            Some(medium) => self.s.card.pull(&mut self.s.part[had..], medium, fx),
            None => 0,
        };
        self.s.part.truncate(had + got);
        self.count(got as u32);
        let ended = self.s.left == 0;
        let whole = if ended { self.s.part.len() } else { self.s.part.len() & !3 };
        let words: Vec<u32> = self.s.part[..whole]
            .chunks(4)
            .map(|c| c.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
            .collect();
        drop(self.s.part.drain(..whole));
        self.s.fifo.extend(&words);
        fx.queue(QUEUE, &words);
        if ended && self.s.fifo.is_empty() {
            self.s.path = Path::Idle;
        }
        // It waits for a card that has less to say than is expected.
        let waits = got < wanted && !ended;
        self.s.deadline = if waits { self.s.deadline.or_else(|| Some(now.after(self.patience()))) } else { None };
    }

    /// Bytes have come from the card or gone to it.
    fn count(&mut self, bytes: u32) {
        if bytes == 0 {
            return;
        }
        let (block, done) = (self.block(), self.s.datalength.saturating_sub(self.s.left));
        self.s.left -= bytes;
        if (done + bytes) / block > done / block {
            self.s.status |= status::DATA_BLOCK_END;
        }
        if self.s.left == 0 {
            self.s.status |= status::DATA_END;
        }
    }

    /// Nanoseconds that the controller waits for data (TRM 3.3.7): the data timer counts the card's clock.
    fn patience(&self) -> u64 {
        let divider = match self.s.clock {
            c if c & clock::BYPASS != 0 => 1,
            c => 2 * (u128::from(c & clock::DIV) + 1),
        };
        let ns = u128::from(self.s.datatimer) * divider * 1_000_000_000 / u128::from(self.cfg.clock_hz);
        u64::try_from(ns).unwrap_or(u64::MAX).max(1)
    }

    /// A read of the FIFO that the queue does not answer: of a byte, of another of its addresses, or when it is empty.
    fn take(&mut self, now: VTime, fx: &mut Effects<'_>) -> u32 {
        let Some(word) = self.s.fifo.pop_front() else { return 0 };
        fx.queue_clear(QUEUE);
        let rest: Vec<u32> = self.s.fifo.iter().copied().collect();
        fx.queue(QUEUE, &rest);
        self.receive(now, fx);
        word
    }

    /// A word for the card. The card takes it when the block is whole.
    fn feed(&mut self, value: u32, fx: &mut Effects<'_>) {
        if self.s.path != Path::Send {
            return;
        }
        let room = (self.s.left as usize - self.s.part.len()).min(4);
        self.s.part.extend_from_slice(&value.to_le_bytes()[..room]);
        while self.s.path == Path::Send && self.s.part.len() as u32 >= self.block().min(self.s.left) {
            let block = self.block().min(self.s.left);
            let medium = self.medium(fx);
            let piece = &self.s.part[..block as usize];
            let taken = medium.is_some_and(|m| self.s.card.push(piece, &m, fx));
            drop(self.s.part.drain(..block as usize));
            if taken {
                self.count(block);
            } else {
                // The card has not acknowledged the block.
                self.s.status |= status::DATA_CRC_FAIL;
            }
            if !taken || self.s.left == 0 {
                self.s.path = Path::Idle;
                self.s.part.clear();
            }
        }
    }

    /// Words that have still to pass between card and FIFO.
    fn fifo_count(&self) -> u32 {
        self.s.left.div_ceil(4)
    }

    fn status(&self) -> u32 {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let (held, depth) = (self.s.fifo.len(), self.cfg.fifo as usize);
        self.s.status
            | match self.s.path {
                Path::Idle => 0,
                Path::Send => status::TX_ACTIVE | status::TX_FIFO_HALF_EMPTY | status::TX_FIFO_EMPTY,
                Path::Receive => {
                    status::RX_ACTIVE
                        | bit(held >= depth / 2, status::RX_FIFO_HALF_FULL)
                        | bit(held == depth, status::RX_FIFO_FULL)
                        | bit(held == 0, status::RX_FIFO_EMPTY)
                        | bit(held > 0, status::RX_DATA_AVAILABLE)
                }
            }
    }

    /// States all that the world sees. A posted write lowers no line.
    fn show(&mut self, posted: bool, fx: &mut Effects<'_>) {
        let seen = self.status();
        for (level, mask) in self.s.lines.iter_mut().zip(self.s.mask) {
            *level = seen & mask != 0 || posted && *level;
        }
        fx.line(output::IRQ0, self.s.lines[0]);
        fx.line(output::IRQ1, self.s.lines[1]);
        fx.publish(shadow::STATUS, seen.into());
        fx.publish(shadow::FIFOCNT, self.fifo_count().into());
        if posted {
            return;
        }
        let s = &self.s;
        for (index, value) in [
            (shadow::POWER, s.power),
            (shadow::CLOCK, s.clock),
            (shadow::ARGUMENT, s.argument),
            (shadow::COMMAND, s.command),
            (shadow::RESPCMD, s.respcmd),
            (shadow::RESPONSE0, s.response[0]),
            (shadow::RESPONSE1, s.response[1]),
            (shadow::RESPONSE2, s.response[2]),
            (shadow::RESPONSE3, s.response[3]),
            (shadow::DATATIMER, s.datatimer),
            (shadow::DATALENGTH, s.datalength),
            (shadow::DATACTRL, s.datactrl),
            (shadow::MASK0, s.mask[0]),
            (shadow::MASK1, s.mask[1]),
            (shadow::SELECT, s.select),
        ] {
            fx.publish(index, value.into());
        }
        let medium = self.medium(fx);
        fx.line(output::PRESENT, medium.is_some());
        fx.line(output::PROTECTED, medium.is_some_and(|m| m.protected));
        fx.timer(TIMEOUT, self.s.deadline);
    }
}

#[cfg(test)]
mod tests;
