//! The saved state: registers, what is in the FIFOs, the command to transmit that is under way.

use std::collections::VecDeque;

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::mac::Mac;
use crate::spec::{FIFO_INT_RESET, int, irq_cfg, rx_cfg};
use crate::{LONGEST, STATUSES, rx_words, tx_room};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// What the next word for the transmit FIFO is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Feed {
    /// The first word of a command.
    #[default]
    CommandA,
    /// Its second; the first was this.
    CommandB(u32),
    /// Data: bytes to be skipped, bytes that count, words behind them; the two words of the command.
    Data {
        /// Bytes before the data.
        skip: u32,
        /// Bytes of data.
        left: u32,
        /// Words that follow the data.
        padding: u32,
        /// The first word of the command.
        a: u32,
        /// The second.
        b: u32,
    },
}

/// A frame that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tag: u16,
    /// An interrupt when it is gone.
    pub(crate) tells: bool,
}

/// Version 1. Registers are named as in the datasheet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) irq_cfg: u32,
    pub(crate) int_sts: u32,
    pub(crate) int_en: u32,
    pub(crate) fifo_int: u32,
    pub(crate) rx_cfg: u32,
    pub(crate) tx_cfg: u32,
    pub(crate) hw_cfg: u32,
    pub(crate) pmt_ctrl: u32,
    pub(crate) gpio_cfg: u32,
    pub(crate) gpt_cfg: u32,
    pub(crate) gpt_due: Option<VTime>,
    pub(crate) word_swap: u32,
    pub(crate) rx_drop: u32,
    pub(crate) csr_cmd: u32,
    pub(crate) csr_data: u32,
    pub(crate) afc_cfg: u32,
    pub(crate) mac: Mac,
    /// The receive data FIFO.
    pub(crate) rx: VecDeque<u32>,
    /// Status words of received packets, and each packet's words in the data FIFO.
    pub(crate) rx_status: VecDeque<(u32, u32)>,
    /// Words of the packet whose status was read that are still in the data FIFO.
    pub(crate) head: u32,
    pub(crate) feed: Feed,
    /// The frame that is being put together.
    pub(crate) frame: Vec<u8>,
    pub(crate) sending: VecDeque<Frame>,
    /// Frames that were sent in a loop and are to come back.
    pub(crate) looped: VecDeque<Vec<u8>>,
    pub(crate) tx_status: VecDeque<u32>,
    /// The pin's level.
    pub(crate) line: bool,
}

impl StateV1 {
    pub(crate) fn new(address: [u8; 6]) -> Self {
        Self {
            irq_cfg: 0,
            int_sts: 0,
            int_en: 0,
            fifo_int: FIFO_INT_RESET,
            rx_cfg: 0,
            tx_cfg: 0,
            hw_cfg: crate::spec::hw_cfg::RESET,
            pmt_ctrl: 0,
            gpio_cfg: 0,
            gpt_cfg: 0xffff,
            gpt_due: None,
            word_swap: 0,
            rx_drop: 0,
            csr_cmd: 0,
            csr_data: 0,
            afc_cfg: 0,
            mac: Mac::new(address),
            rx: VecDeque::new(),
            rx_status: VecDeque::new(),
            head: 0,
            feed: Feed::CommandA,
            frame: Vec::new(),
            sending: VecDeque::new(),
            looped: VecDeque::new(),
            tx_status: VecDeque::new(),
            line: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let good = |holds: bool, what| RestoreError::check(holds, what);
        good(self.irq_cfg & !irq_cfg::WRITABLE == 0, "IRQ_CFG")?;
        good((self.int_sts | self.int_en) & !int::ALL == 0, "INT_STS or INT_EN")?;
        good(self.rx_cfg & !rx_cfg::WRITABLE == 0, "RX_CFG")?;
        good(crate::hw_cfg_possible(self.hw_cfg), "HW_CFG")?;
        good(self.mac.check(), "the MAC")?;
        good(self.rx.len() <= rx_words(self.hw_cfg), "the receive data FIFO")?;
        good(self.rx_status.len() <= STATUSES && self.tx_status.len() <= STATUSES, "a status FIFO")?;
        let words = self.rx_status.iter().fold(u64::from(self.head), |n, s| n + u64::from(s.1));
        good(words == self.rx.len() as u64, "packets that are not what the FIFO holds")?;
        good(self.frame.len() <= LONGEST, "a frame that is too long")?;
        let frames = self.sending.iter().map(|f| &f.bytes).chain(&self.looped);
        good(frames.clone().all(|f| f.len() <= LONGEST), "a frame that is too long")?;
        good(frames.count() <= 3 * STATUSES, "more frames than the FIFO holds")?;
        good(self.used() <= tx_room(u32::MAX) as usize + LONGEST, "the transmit FIFO")?;
        match self.feed {
            Feed::Data { skip, left, padding, .. } => {
                good(skip < 32 && left <= crate::spec::tx::SIZE && padding <= 8, "a command to transmit")
            }
            Feed::CommandA | Feed::CommandB(_) => Ok(()),
        }
    }

    /// Bytes of the transmit data FIFO that are taken.
    pub(crate) fn used(&self) -> usize {
        self.frame.len() + self.sending.iter().map(|f| f.bytes.len() + 8).sum::<usize>()
    }
}
