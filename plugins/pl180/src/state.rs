//! The saved state: the controller's registers, what is in its FIFO, and the card.

use std::collections::VecDeque;

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::card::Card;
use crate::spec::{clock, command, datactrl, power, status};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// The data path (TRM 2.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Path {
    /// Nothing is transferred.
    #[default]
    Idle,
    /// From the card.
    Receive,
    /// To the card.
    Send,
}

/// Version 1. Registers are named as in the manual, without their prefix.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) power: u32,
    pub(crate) clock: u32,
    pub(crate) argument: u32,
    pub(crate) command: u32,
    pub(crate) respcmd: u32,
    pub(crate) response: [u32; 4],
    pub(crate) datatimer: u32,
    pub(crate) datalength: u32,
    pub(crate) datactrl: u32,
    /// The bits that MCIClear clears.
    pub(crate) status: u32,
    pub(crate) mask: [u32; 2],
    pub(crate) select: u32,
    pub(crate) path: Path,
    /// Bytes that the card has still to send or to get.
    pub(crate) left: u32,
    /// Words that were received and not read.
    pub(crate) fifo: VecDeque<u32>,
    /// Bytes that make no word, receiving, or no block, sending.
    pub(crate) part: Vec<u8>,
    /// When the controller gives up waiting for the card.
    pub(crate) deadline: Option<VTime>,
    /// Levels of the two interrupt outputs.
    pub(crate) lines: [bool; 2],
    pub(crate) card: Card,
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self { card: Card::new(), ..Self::default() }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        let fits = |value: u32, bits: u32, what| RestoreError::check(value & !bits == 0, what);
        fits(self.power, power::MASK, "MCIPower")?;
        fits(self.clock, clock::MASK, "MCIClock")?;
        fits(self.command, command::MASK, "MCICommand")?;
        fits(self.respcmd, 0x3f, "MCIRespCmd")?;
        fits(self.datalength, 0xffff, "MCIDataLength")?;
        fits(self.datactrl, datactrl::MASK, "MCIDataCtrl")?;
        fits(self.status, status::STATIC, "MCIStatus")?;
        fits(self.mask[0] | self.mask[1], status::ALL, "MCIMask")?;
        fits(self.select, 0xf, "MCISelect")?;
        RestoreError::check(self.left <= 0xffff, "the data counter")?;
        RestoreError::check(self.fifo.len() <= cfg.fifo as usize, "more words than the FIFO holds")?;
        let (part, waits) = match self.path {
            Path::Idle => (0, false),
            Path::Receive => (3, true),
            Path::Send => (crate::LONGEST_BLOCK - 1, false),
        };
        RestoreError::check(self.part.len() <= part, "bytes that belong to no transfer")?;
        RestoreError::check(
            self.path != Path::Send || self.part.len() < self.left as usize,
            "more bytes than are sent",
        )?;
        RestoreError::check(self.path == Path::Receive || self.fifo.is_empty(), "words that belong to no transfer")?;
        RestoreError::check(waits || self.deadline.is_none(), "a deadline without a transfer")?;
        self.card.check()
    }
}
