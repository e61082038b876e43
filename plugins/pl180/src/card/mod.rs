//! An SD memory card in SD mode (SD Physical Layer Simplified Specification 3.01; sections are of that).
//!
//! It is as fast as the controller wants it: it is never busy. What it stores lies on the device's disk, so an erased block reads as zeros.

pub(crate) mod regs;

use reprise_device::{Effects, RestoreError};
use serde::{Deserialize, Serialize};

use crate::spec::DISK;
use regs::{BLOCK, Geometry};

/// The card status, as R1 has it (4.10.1).
mod status {
    pub(super) const OUT_OF_RANGE: u32 = 1 << 31;
    pub(super) const ADDRESS_ERROR: u32 = 1 << 30;
    pub(super) const BLOCK_LEN_ERROR: u32 = 1 << 29;
    pub(super) const ERASE_SEQ_ERROR: u32 = 1 << 28;
    pub(super) const ERASE_PARAM: u32 = 1 << 27;
    pub(super) const WP_VIOLATION: u32 = 1 << 26;
    pub(super) const ILLEGAL_COMMAND: u32 = 1 << 22;
    pub(super) const ERASE_RESET: u32 = 1 << 13;
    pub(super) const READY_FOR_DATA: u32 = 1 << 8;
    pub(super) const APP_CMD: u32 = 1 << 5;
    /// Those that stay until they were reported.
    pub(super) const ERRORS: u32 = 0xffff_e000;
}

/// Operation conditions (5.1).
mod ocr {
    /// 2.7 to 3.6 V.
    pub(super) const WINDOW: u32 = 0x00ff_8000;
    /// In an argument: the host knows high capacity. In an answer: the card has it.
    pub(super) const CAPACITY: u32 = 1 << 30;
    /// The card has started.
    pub(super) const POWER_UP: u32 = 1 << 31;
}

/// The longest data of a command that is not the card's memory.
const LONGEST: usize = 64;

/// The card's state (4.1, table 4-1); the numbers are those of CURRENT_STATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Mode {
    #[default]
    Idle = 0,
    Ready = 1,
    Identification = 2,
    Standby = 3,
    Transfer = 4,
    SendingData = 5,
    ReceiveData = 6,
    /// Until the power goes.
    Inactive = 15,
}

/// What goes over the data lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Data {
    #[default]
    None,
    /// A register, from this byte on.
    Register { bytes: Vec<u8>, at: u32 },
    /// Memory to the host: the next byte, the bytes that are left of its block, and the blocks behind that, if they are counted.
    Read { at: u64, left: u32, blocks: Option<u32> },
    /// Memory from the host: the next block, and how many there will be, if they are counted.
    Write { at: u64, blocks: Option<u32> },
}

/// A card's answer to a command (4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 32 bits: R1, R6, R7.
    Short(u32),
    /// The same without a check sum: R3.
    Unchecked(u32),
    /// 128 bits: R2.
    Long([u8; 16]),
    /// The command has no answer, or the card gives none.
    Nothing,
}

/// The state of the card in the slot. Without one it stays as it is after power-on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Card {
    mode: Mode,
    rca: u16,
    /// The last relative address that was given.
    last_rca: u16,
    /// CMD8 was heard.
    knows_voltage: bool,
    /// The next command is an application command.
    app: bool,
    /// Errors that were not reported yet.
    errors: u32,
    block_len: u32,
    /// CMD23's number, for the next command.
    count: Option<u32>,
    /// The blocks that CMD32 and CMD33 named.
    erase: (Option<u64>, Option<u64>),
    /// Blocks written by the last write.
    written: u32,
    wide: bool,
    data: Data,
}

/// What the slot's card is, which does not change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medium {
    pub(crate) geometry: Geometry,
    pub(crate) protected: bool,
    pub(crate) serial: u32,
}

impl Card {
    /// A card that has just got power.
    pub(crate) fn new() -> Self {
        Self { block_len: BLOCK as u32, ..Self::default() }
    }

    /// Whether a saved state can be that of a card.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check((1..=BLOCK as u32).contains(&self.block_len), "the card's block length")?;
        RestoreError::check(self.errors & !status::ERRORS == 0, "the card's status")?;
        let possible = match &self.data {
            Data::Register { bytes, at } => bytes.len() <= LONGEST && (*at as usize) < bytes.len(),
            Data::Read { left, .. } => (1..=BLOCK as u32).contains(left),
            Data::Write { at, blocks } => at % BLOCK == 0 && *blocks != Some(0),
            Data::None => true,
        };
        RestoreError::check(possible, "the card's data transfer")?;
        let sends = matches!(self.data, Data::Register { .. } | Data::Read { .. });
        RestoreError::check(sends == (self.mode == Mode::SendingData), "the card sends in its data state")?;
        let receives = matches!(self.data, Data::Write { .. });
        RestoreError::check(receives == (self.mode == Mode::ReceiveData), "the card receives in its receive state")
    }

    /// Takes a command.
    pub(crate) fn command(&mut self, index: u8, argument: u32, medium: &Medium, fx: &mut Effects<'_>) -> Answer {
        if self.mode == Mode::Inactive {
            return Answer::Nothing;
        }
        let app = std::mem::take(&mut self.app);
        let count = if matches!(index, 18 | 25) && !app { self.count.take() } else { None };
        if index != 13 && !app {
            self.count = None;
        }
        // A sequence of erase commands is broken by any other (4.3.5).
        if self.erase != (None, None) && !matches!((app, index), (false, 13 | 32 | 33 | 38)) {
            self.erase = (None, None);
            self.errors |= status::ERASE_RESET;
        }
        let answer = match (app, index) {
            (true, 6 | 13 | 22 | 23 | 41 | 42 | 51) => self.app_command(index, argument, medium),
            _ => self.plain_command(index, argument, count, medium, fx),
        };
        answer.unwrap_or_else(|| {
            self.errors |= status::ILLEGAL_COMMAND;
            Answer::Nothing
        })
    }

    /// R1: the state is that before the command, errors are reported once.
    fn r1(&mut self, before: Mode) -> Option<Answer> {
        let app = if self.app { status::APP_CMD } else { 0 };
        let errors = std::mem::take(&mut self.errors);
        Some(Answer::Short(errors | (before as u32) << 9 | status::READY_FOR_DATA | app))
    }

    /// `None` is a command that the card does not know, or not in this state.
    fn plain_command(
        &mut self,
        index: u8,
        argument: u32,
        count: Option<u32>,
        medium: &Medium,
        fx: &mut Effects<'_>,
    ) -> Option<Answer> {
        let before = self.mode;
        let addressed = (argument >> 16) as u16 == self.rca;
        match (index, before) {
            // A reset keeps nothing but the last address, so that the next one is another.
            (0, _) => {
                *self = Self { last_rca: self.last_rca, ..Self::new() };
                return Some(Answer::Nothing);
            }
            (2, Mode::Ready) => {
                self.mode = Mode::Identification;
                return Some(Answer::Long(regs::cid(medium.serial)));
            }
            (3, Mode::Identification | Mode::Standby) => return Some(self.publish_address()),
            (4, Mode::Standby) => return Some(Answer::Nothing),
            (6, Mode::Transfer) => self.send(switch(argument).to_vec()),
            (7, Mode::Standby) if addressed => self.mode = Mode::Transfer,
            (7, Mode::Transfer | Mode::SendingData) if !addressed => {
                (self.mode, self.data) = (Mode::Standby, Data::None);
                return Some(Answer::Nothing);
            }
            (7, Mode::Standby) => return Some(Answer::Nothing),
            (8, Mode::Idle) if argument >> 8 & 0xf == 1 => {
                self.knows_voltage = true;
                return Some(Answer::Short(argument & 0xfff));
            }
            (9 | 10 | 13 | 15, Mode::Standby | Mode::Transfer | Mode::SendingData | Mode::ReceiveData)
                if !addressed =>
            {
                return Some(Answer::Nothing);
            }
            (9, Mode::Standby) => return Some(Answer::Long(medium.geometry.csd(medium.protected))),
            (10, Mode::Standby) => return Some(Answer::Long(regs::cid(medium.serial))),
            (12, Mode::SendingData | Mode::ReceiveData) => (self.mode, self.data) = (Mode::Transfer, Data::None),
            (13, Mode::Standby | Mode::Transfer | Mode::SendingData | Mode::ReceiveData) => {}
            (15, Mode::Standby | Mode::Transfer | Mode::SendingData | Mode::ReceiveData) => {
                (self.mode, self.data) = (Mode::Inactive, Data::None);
                return Some(Answer::Nothing);
            }
            (16, Mode::Transfer) => match argument {
                1..=512 if !medium.geometry.high => self.block_len = argument,
                512 => {}
                _ => self.errors |= status::BLOCK_LEN_ERROR,
            },
            (17, Mode::Transfer) => self.read(argument, Some(1), medium),
            (18, Mode::Transfer) => self.read(argument, count, medium),
            (23, Mode::Transfer) => self.count = Some(argument).filter(|n| *n > 0),
            (24, Mode::Transfer) => self.write(argument, Some(1), medium),
            (25, Mode::Transfer) => self.write(argument, count, medium),
            (32, Mode::Transfer) => self.erase.0 = self.erase_block(argument, medium),
            (33, Mode::Transfer) => self.erase.1 = self.erase_block(argument, medium),
            (38, Mode::Transfer) => self.erase(medium, fx),
            (55, Mode::Idle) if argument >> 16 != 0 => return Some(Answer::Nothing),
            (55, Mode::Idle) => self.app = true,
            (55, Mode::Standby | Mode::Transfer | Mode::SendingData | Mode::ReceiveData) if addressed => {
                self.app = true;
            }
            (55, Mode::Standby | Mode::Transfer) => return Some(Answer::Nothing),
            _ => return None,
        }
        self.r1(before)
    }

    /// Application-specific commands (4.3.9), which CMD55 announced.
    fn app_command(&mut self, index: u8, argument: u32, medium: &Medium) -> Option<Answer> {
        let before = self.mode;
        match (index, before) {
            (41, Mode::Idle) => return Some(self.start(argument, medium)),
            (6, Mode::Transfer) if argument & !2 == 0 => self.wide = argument & 3 == 2,
            (13, Mode::Transfer) => self.send(regs::sd_status(self.wide).to_vec()),
            (22, Mode::Transfer) => self.send(self.written.to_be_bytes().to_vec()),
            // Blocks to be erased beforehand, and the pull-up of the card's detection: neither shows.
            (23 | 42, Mode::Transfer) => {}
            (51, Mode::Transfer) => self.send(regs::SCR.to_vec()),
            _ => return None,
        }
        let answer = self.r1(before)?;
        let Answer::Short(r1) = answer else { return Some(answer) };
        Some(Answer::Short(r1 | status::APP_CMD))
    }

    /// ACMD41 (4.2.3.1). A host that does not know high capacity waits for such a card in vain.
    fn start(&mut self, argument: u32, medium: &Medium) -> Answer {
        let high = medium.geometry.high;
        let mut answer = ocr::WINDOW;
        let host_knows = self.knows_voltage && argument & ocr::CAPACITY != 0;
        if argument & ocr::WINDOW != 0 && (!high || host_knows) {
            self.mode = Mode::Ready;
            answer |= ocr::POWER_UP | if high { ocr::CAPACITY } else { 0 };
        }
        Answer::Unchecked(answer)
    }

    /// CMD3: R6 with a new relative address (4.9.5).
    fn publish_address(&mut self) -> Answer {
        let before = self.mode;
        self.last_rca = self.last_rca.checked_add(1).unwrap_or(1);
        (self.rca, self.mode) = (self.last_rca, Mode::Standby);
        let errors = std::mem::take(&mut self.errors);
        let short = errors >> 8 & 0xc000 | errors >> 6 & 0x2000 | (before as u32) << 9 | status::READY_FOR_DATA;
        Answer::Short(u32::from(self.rca) << 16 | short)
    }

    fn send(&mut self, bytes: Vec<u8>) {
        (self.mode, self.data) = (Mode::SendingData, Data::Register { bytes, at: 0 });
    }

    /// The byte that an argument names.
    fn place(argument: u32, medium: &Medium) -> u64 {
        if medium.geometry.high { u64::from(argument) * BLOCK } else { argument.into() }
    }

    fn read(&mut self, argument: u32, blocks: Option<u32>, medium: &Medium) {
        let (at, left) = (Self::place(argument, medium), self.block_len);
        if at + u64::from(left) > medium.geometry.blocks * BLOCK {
            self.errors |= status::OUT_OF_RANGE;
        } else if at % BLOCK + u64::from(left) > BLOCK {
            // READ_BLK_MISALIGN is 0.
            self.errors |= status::ADDRESS_ERROR;
        } else {
            self.mode = Mode::SendingData;
            self.data = Data::Read { at, left, blocks: blocks.map(|n| n - 1) };
        }
    }

    fn write(&mut self, argument: u32, blocks: Option<u32>, medium: &Medium) {
        let at = Self::place(argument, medium);
        if medium.protected {
            self.errors |= status::WP_VIOLATION;
        } else if at + BLOCK > medium.geometry.blocks * BLOCK {
            self.errors |= status::OUT_OF_RANGE;
        } else if u64::from(self.block_len) != BLOCK {
            // WRITE_BL_PARTIAL is 0.
            self.errors |= status::BLOCK_LEN_ERROR;
        } else if at % BLOCK != 0 {
            self.errors |= status::ADDRESS_ERROR;
        } else {
            (self.mode, self.written) = (Mode::ReceiveData, 0);
            self.data = Data::Write { at, blocks };
        }
    }

    fn erase_block(&mut self, argument: u32, medium: &Medium) -> Option<u64> {
        let block = Self::place(argument, medium) / BLOCK;
        if block >= medium.geometry.blocks {
            self.errors |= status::OUT_OF_RANGE;
        }
        Some(block).filter(|b| *b < medium.geometry.blocks)
    }

    /// CMD38: from the first named block to the last (4.3.5).
    fn erase(&mut self, medium: &Medium, fx: &mut Effects<'_>) {
        match std::mem::take(&mut self.erase) {
            (Some(first), Some(last)) if first <= last => {
                if medium.protected {
                    self.errors |= status::WP_VIOLATION;
                } else {
                    fx.disk_discard(DISK, first * BLOCK, (last + 1 - first) * BLOCK);
                }
            }
            (Some(_), Some(_)) => self.errors |= status::ERASE_PARAM,
            _ => self.errors |= status::ERASE_SEQ_ERROR,
        }
    }

    /// Sends the next bytes to the host: fills `out` as far as it can and says how far.
    pub(crate) fn pull(&mut self, out: &mut [u8], medium: &Medium, fx: &mut Effects<'_>) -> usize {
        match &mut self.data {
            Data::Register { bytes, at } => {
                let rest = &bytes[*at as usize..];
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                *at += n as u32;
                if *at as usize == bytes.len() {
                    self.done();
                }
                n
            }
            Data::Read { .. } => self.pull_memory(out, medium, fx),
            Data::Write { .. } | Data::None => 0,
        }
    }

    fn pull_memory(&mut self, out: &mut [u8], medium: &Medium, fx: &mut Effects<'_>) -> usize {
        let size = medium.geometry.blocks * BLOCK;
        let mut done = 0;
        while let Data::Read { at, left, blocks } = &mut self.data {
            let n = (*left as usize).min(out.len() - done);
            if n == 0 {
                break;
            }
            if at.checked_add(n as u64).is_none_or(|end| end > size) {
                // Reading on beyond the end: the card sends no more, and says so when it is asked.
                self.errors |= status::OUT_OF_RANGE;
                break;
            }
            fx.disk_read(DISK, *at, &mut out[done..done + n]);
            done += n;
            *at += n as u64;
            *left -= n as u32;
            if *left == 0 {
                *left = self.block_len;
                match blocks {
                    Some(0) => self.done(),
                    Some(n) => *n -= 1,
                    None => {}
                }
            }
        }
        done
    }

    /// Takes a block from the host; whether the card acknowledges it.
    pub(crate) fn push(&mut self, block: &[u8], medium: &Medium, fx: &mut Effects<'_>) -> bool {
        let Data::Write { at, blocks } = &mut self.data else { return false };
        if block.len() as u64 != BLOCK || medium.protected {
            return false;
        }
        if at.checked_add(BLOCK).is_none_or(|end| end > medium.geometry.blocks * BLOCK) {
            self.errors |= status::OUT_OF_RANGE;
            return false;
        }
        fx.disk_write(DISK, *at, block);
        *at += BLOCK;
        self.written = self.written.saturating_add(1);
        if let Some(n) = blocks {
            *n -= 1;
            if *n == 0 {
                self.done();
            }
        }
        true
    }

    fn done(&mut self) {
        (self.mode, self.data) = (Mode::Transfer, Data::None);
    }
}

/// The answer to CMD6 (4.3.10): 100 mA, and in group 1 default and high speed. A function that is not there is answered with 15.
fn switch(argument: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[1] = 100;
    for group in 0..6 {
        let supported: u16 = if group == 0 { 0x8003 } else { 0x8001 };
        let at = 12 - 2 * group;
        bytes[at..at + 2].copy_from_slice(&supported.to_be_bytes());
        let wanted = argument >> (4 * group) & 0xf;
        let chosen = match wanted {
            15 => 0,
            n if supported >> n & 1 == 1 => n as u8,
            _ => 15,
        };
        bytes[16 - group / 2] |= chosen << (4 * (group % 2));
    }
    bytes
}
