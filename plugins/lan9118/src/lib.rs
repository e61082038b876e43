//! The LAN9118, a 10/100 Ethernet controller on a bus of 32 bits, as its datasheet (SMSC, revision 1.5) describes it, with its PHY and an EEPROM that holds its address.
//!
//! Frames are sent and received in no guest time, and the wire is up while its cable is plugged in. What is received lies in a queue of the CPU's process ahead of the reads of the data FIFO; what is
//! to be sent is written without waiting. A frame that is sent in a loop (of the MAC or of the PHY) is there at the next access to any register but a FIFO.
//! While the receiver is off, or has no room, the wire holds frames back, as far as its other end does.
//!
//! Not modelled: wake-up frames and power states, flow control, VLAN tags, GPIO, the other byte order, early receive, errors of frames.

mod mac;
mod spec;
mod state;

use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime, bus, export_device};
use serde::Deserialize;

pub use mac::Mac;
use mac::{Match, crc32};
use spec::{
    BUSY, CABLE, CSR_READ, FAST_FORWARD, IRQ, PMT_READY, PMT_WRITABLE, QUEUE, TIMER, TIMER_ENABLE, WIRE, hw_cfg, int,
    irq_cfg, mac_cr, reg, rx_cfg, rx_status, shadow, tx, tx_cfg,
};
pub use state::{Feed, Frame, State, StateV1};

export_device!(Lan9118);

/// Bytes of the longest frame that is taken from the guest: two buffers of the largest size.
const LONGEST: usize = 4096;
/// Status words that a status FIFO holds: 512 bytes of transmission's; of reception's as many are used.
const STATUSES: usize = 128;
/// Bytes of the shortest frame, without its check sequence.
const SHORTEST: usize = 60;
/// Bytes of the longest packet that the receiver makes room for.
const LARGEST: usize = 1536;
/// Nanoseconds of a tick of the general purpose timer.
const GPT_TICK: u64 = 100_000;

/// The controller's place in a machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address in the EEPROM, as `52:54:00:12:34:57`.
    pub mac: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { mac: "52:54:00:12:34:57".into() }
    }
}

impl Config {
    fn address(&self) -> Result<[u8; 6], ConfigError> {
        let bytes: Option<Vec<u8>> =
            self.mac.split(':').map(|b| u8::from_str_radix(b, 16).ok().filter(|_| b.len() == 2)).collect();
        let address: Option<[u8; 6]> = bytes.and_then(|b| b.try_into().ok());
        match address {
            Some(a) if a[0] & 1 == 0 => Ok(a),
            Some(_) => Err(ConfigError::new(format!("mac: {} is the address of a group", self.mac))),
            None => Err(ConfigError::new(format!("mac: {:?} is no address such as \"52:54:00:12:34:57\"", self.mac))),
        }
    }
}

/// KiB of the transmit FIFOs (5.3.9): 2 to 14.
fn tx_kib(hw_cfg: u32) -> u32 {
    (hw_cfg >> 16 & 0xf).clamp(2, 14)
}

/// Bytes of the transmit data FIFO (table 3-8).
fn tx_room(hw_cfg: u32) -> u32 {
    tx_kib(hw_cfg) * 1024 - 512
}

/// Words of the receive data FIFO (table 3-8): the rest of 16 KiB without a sixteenth for status words.
fn rx_words(hw_cfg: u32) -> usize {
    ((16 - tx_kib(hw_cfg)) * 960 / 4) as usize
}

fn hw_cfg_possible(value: u32) -> bool {
    value & !hw_cfg::WRITABLE == hw_cfg::WIDE
}

/// The device.
#[derive(Debug)]
pub struct Lan9118 {
    address: [u8; 6],
    s: StateV1,
}

impl Device for Lan9118 {
    const KIND: &'static str = "lan9118";
    type Config = Config;
    type State = State;

    fn spec(_: &Config) -> reprise_device::spec::PluginSpec {
        spec::spec()
    }

    fn new(cfg: &Config) -> Result<Self, ConfigError> {
        let address = cfg.address()?;
        Ok(Self { address, s: StateV1::new(address) })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        let mut posted = false;
        match event {
            Event::Reset => self.s = StateV1::new(self.address),
            Event::Read { tag, offset, size } => {
                let value = self.read(now, bus::word(offset), fx);
                fx.reply(tag, bus::read_lanes(offset, size, value));
            }
            Event::Write { offset, size, value, .. } => {
                let (word, value) = (bus::word(offset), bus::write_lanes(offset, size, value));
                posted = (reg::TX_DATA..reg::TX_DATA_END).contains(&word);
                if posted {
                    self.feed(value, fx);
                } else {
                    self.write(now, word, value, fx);
                }
            }
            Event::Host { port: CABLE, data } => data.iter().for_each(|&byte| self.s.mac.plug(byte != 0)),
            Event::Host { data, .. } => self.receive(data, fx),
            Event::Popped { count, .. } => self.taken(count),
            Event::Timer(_) => {
                self.s.int_sts |= int::TIMER;
                self.s.gpt_due = Some(now.after((u64::from(self.s.gpt_cfg & 0xffff) + 1) * GPT_TICK));
            }
            Event::Line { .. } | Event::DmaDone { .. } => {}
        }
        if !posted {
            while let Some(frame) = self.s.looped.pop_front() {
                self.receive(&frame, fx);
            }
        }
        self.show(posted, fx);
    }

    fn save(&self) -> State {
        State::V1(Box::new(self.s.clone()))
    }

    fn restore(cfg: &Config, State::V1(s): State) -> Result<Self, RestoreError> {
        let address = cfg.address().map_err(|e| RestoreError(e.message))?;
        s.check()?;
        Ok(Self { address, s: *s })
    }
}

impl Lan9118 {
    fn read(&mut self, now: VTime, word: u64, fx: &mut Effects<'_>) -> u32 {
        match word {
            reg::RX_DATA..reg::RX_DATA_END => self.pop(fx),
            reg::RX_STATUS => match self.s.rx_status.pop_front() {
                Some((status, words)) => {
                    // What of the packet before was not read stays in front of it, as in the FIFO itself.
                    self.s.head += words;
                    status
                }
                None => 0,
            },
            reg::RX_STATUS_PEEK => self.s.rx_status.front().map_or(0, |s| s.0),
            reg::TX_STATUS => {
                let status = self.s.tx_status.pop_front().unwrap_or(0);
                self.transmit(fx);
                status
            }
            reg::TX_STATUS_PEEK => self.s.tx_status.front().copied().unwrap_or(0),
            reg::IRQ_CFG => self.irq_cfg(),
            reg::INT_STS => self.s.int_sts,
            reg::INT_EN => self.s.int_en,
            reg::FIFO_INT => self.s.fifo_int,
            reg::RX_CFG => self.s.rx_cfg,
            reg::TX_CFG => self.s.tx_cfg,
            reg::HW_CFG => self.s.hw_cfg,
            reg::RX_FIFO_INF => self.rx_inf(),
            reg::TX_FIFO_INF => self.tx_inf(),
            reg::PMT_CTRL => self.s.pmt_ctrl | PMT_READY,
            reg::GPIO_CFG => self.s.gpio_cfg,
            reg::GPT_CFG => self.s.gpt_cfg,
            reg::GPT_CNT => {
                self.s.gpt_due.map_or(self.s.gpt_cfg & 0xffff, |due| (due.since(now) / GPT_TICK) as u32 & 0xffff)
            }
            reg::WORD_SWAP => self.s.word_swap,
            reg::RX_DROP => std::mem::take(&mut self.s.rx_drop),
            reg::MAC_CSR_CMD => self.s.csr_cmd,
            reg::MAC_CSR_DATA => self.s.csr_data,
            reg::AFC_CFG => self.s.afc_cfg,
            reg::E2P_CMD => self.s.mac.e2p_cmd(),
            reg::E2P_DATA => self.s.mac.e2p_data(),
            _ => 0,
        }
    }

    fn write(&mut self, now: VTime, word: u64, value: u32, fx: &mut Effects<'_>) {
        match word {
            reg::IRQ_CFG => self.s.irq_cfg = value & irq_cfg::WRITABLE,
            reg::INT_STS => self.s.int_sts &= !value,
            reg::INT_EN => {
                // The software interrupt comes when it is enabled (5.3.4).
                if value & !self.s.int_en & int::SOFTWARE != 0 {
                    self.s.int_sts |= int::SOFTWARE;
                }
                self.s.int_en = value & int::ALL;
            }
            reg::FIFO_INT => self.s.fifo_int = value & 0xffff_00ff,
            reg::RX_CFG => {
                self.s.rx_cfg = value & rx_cfg::WRITABLE;
                if value & rx_cfg::DUMP != 0 {
                    self.dump(fx);
                }
            }
            reg::TX_CFG => self.write_tx_cfg(value, fx),
            reg::HW_CFG => {
                if value & hw_cfg::SOFT_RESET != 0 {
                    self.soft_reset(fx);
                } else {
                    self.s.hw_cfg = value & hw_cfg::WRITABLE | hw_cfg::WIDE;
                    // The FIFOs are where they were not before: what was in them is lost.
                    self.dump(fx);
                }
            }
            reg::RX_DP_CTRL if value & FAST_FORWARD != 0 => self.fast_forward(fx),
            reg::PMT_CTRL => self.s.pmt_ctrl = value & PMT_WRITABLE,
            reg::GPIO_CFG => self.s.gpio_cfg = value,
            reg::GPT_CFG => {
                self.s.gpt_cfg = value & (TIMER_ENABLE | 0xffff);
                let period = (u64::from(value & 0xffff) + 1) * GPT_TICK;
                self.s.gpt_due = (value & TIMER_ENABLE != 0).then(|| now.after(period));
            }
            reg::WORD_SWAP => self.s.word_swap = value,
            reg::MAC_CSR_CMD => self.write_csr(value, fx),
            reg::MAC_CSR_DATA => self.s.csr_data = value,
            reg::AFC_CFG => self.s.afc_cfg = value,
            reg::E2P_CMD => self.s.mac.eeprom(value),
            reg::E2P_DATA => self.s.mac.set_e2p_data(value),
            _ => {}
        }
    }

    /// A soft reset (3.11.2): everything but what the EEPROM holds, and the polarity of the pin.
    fn soft_reset(&mut self, fx: &mut Effects<'_>) {
        let (mut mac, line) = (self.s.mac.clone(), self.s.line);
        mac.reset();
        let kept = self.s.irq_cfg & (irq_cfg::POLARITY | irq_cfg::TYPE);
        self.s = StateV1 { mac, line, irq_cfg: kept, ..StateV1::new(self.address) };
        fx.queue_clear(QUEUE);
    }

    fn write_tx_cfg(&mut self, value: u32, fx: &mut Effects<'_>) {
        self.s.tx_cfg = value & (tx_cfg::ALLOW_OVERRUN | tx_cfg::ON);
        if value & tx_cfg::STOP != 0 {
            self.s.tx_cfg &= !tx_cfg::ON;
            self.s.int_sts |= int::TX_STOPPED;
        }
        if value & tx_cfg::DATA_DUMP != 0 {
            (self.s.feed, self.s.frame) = (Feed::CommandA, Vec::new());
            self.s.sending.clear();
        }
        if value & tx_cfg::STATUS_DUMP != 0 {
            self.s.tx_status.clear();
        }
        self.transmit(fx);
    }

    /// Access to the MAC's registers (5.3.20), done at once.
    fn write_csr(&mut self, value: u32, fx: &mut Effects<'_>) {
        self.s.csr_cmd = value & (CSR_READ | 0xff);
        if value & BUSY == 0 {
            return;
        }
        if value & CSR_READ != 0 {
            self.s.csr_data = self.s.mac.read(value & 0xff);
            return;
        }
        let before = self.s.mac.control();
        self.s.mac.write(value & 0xff, self.s.csr_data);
        let stopped = before & !self.s.mac.control();
        if stopped & mac_cr::RX != 0 {
            self.s.int_sts |= int::RX_STOPPED;
        }
        if stopped & mac_cr::TX != 0 {
            self.s.int_sts |= int::TX_STOPPED;
        }
        self.transmit(fx);
    }

    /// Throws away everything that was received.
    fn dump(&mut self, fx: &mut Effects<'_>) {
        self.s.rx.clear();
        self.s.rx_status.clear();
        self.s.head = 0;
        fx.queue_clear(QUEUE);
    }

    /// Throws away what is left of the packet whose status was read (3.13.1.1).
    fn fast_forward(&mut self, fx: &mut Effects<'_>) {
        let words = std::mem::take(&mut self.s.head) as usize;
        drop(self.s.rx.drain(..words.min(self.s.rx.len())));
        self.refill(fx);
    }

    fn refill(&mut self, fx: &mut Effects<'_>) {
        fx.queue_clear(QUEUE);
        let all: Vec<u32> = self.s.rx.iter().copied().collect();
        fx.queue(QUEUE, &all);
    }

    /// Words of the data FIFO were read: first of the packet whose status was read, then of those behind it.
    fn taken(&mut self, count: u32) {
        let mut count = count.min(self.s.rx.len() as u32);
        drop(self.s.rx.drain(..count as usize));
        let of_head = count.min(self.s.head);
        self.s.head -= of_head;
        count -= of_head;
        for (_, words) in &mut self.s.rx_status {
            let n = count.min(*words);
            *words -= n;
            count -= n;
        }
    }

    /// A read of the data FIFO that the queue does not answer: of a byte, of another of its addresses, or when it is empty.
    fn pop(&mut self, fx: &mut Effects<'_>) -> u32 {
        let Some(&word) = self.s.rx.front() else { return 0 };
        self.taken(1);
        self.refill(fx);
        word
    }

    /// Words that a packet of `len` bytes takes, its check sequence included (3.13.2).
    fn words(&self, len: usize) -> usize {
        let offset = (self.s.rx_cfg >> 8 & 0x1f) as usize;
        let unit = match self.s.rx_cfg >> 30 {
            0 => 4,
            1 => 16,
            _ => 32,
        };
        (offset + len).div_ceil(unit) * unit / 4
    }

    /// A frame from the wire.
    fn receive(&mut self, frame: &[u8], fx: &mut Effects<'_>) {
        if self.s.mac.control() & mac_cr::RX == 0 || frame.len() < 14 || frame.len() > LARGEST {
            return;
        }
        let matched = self.s.mac.accepts(frame);
        if matched == Match::No {
            return;
        }
        let mut bytes = frame.to_vec();
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes.extend(crc32(&bytes).to_le_bytes());
        let words = self.words(bytes.len());
        if self.s.rx.len() + words > rx_words(self.s.hw_cfg) || self.s.rx_status.len() >= STATUSES {
            self.s.rx_drop = self.s.rx_drop.saturating_add(1);
            self.s.int_sts |= int::RX_DROPPED;
            return;
        }
        let mut status = (bytes.len() as u32) << 16;
        status |= match (matched, frame[0] & 1 != 0) {
            (Match::Promiscuous, _) => rx_status::FILTERED,
            (_, true) if frame[..6] == [0xff; 6] => rx_status::BROADCAST,
            (_, true) => rx_status::MULTICAST,
            _ => 0,
        };
        if u16::from_be_bytes([frame[12], frame[13]]) >= 0x600 {
            status |= rx_status::ETHERNET_TYPE;
        }
        let offset = (self.s.rx_cfg >> 8 & 0x1f) as usize;
        let mut padded = vec![0; offset];
        padded.extend(bytes);
        padded.resize(4 * words, 0);
        let values: Vec<u32> =
            padded.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("4 bytes"))).collect();
        self.s.rx.extend(&values);
        self.s.rx_status.push_back((status, words as u32));
        fx.queue(QUEUE, &values);
    }

    /// A word for the transmit data FIFO (3.12).
    fn feed(&mut self, value: u32, fx: &mut Effects<'_>) {
        match self.s.feed {
            Feed::CommandA => self.s.feed = Feed::CommandB(value),
            Feed::CommandB(a) => {
                if a & tx::FIRST != 0 {
                    self.s.frame.clear();
                }
                let (skip, left) = (a >> 16 & 0x1f, a & tx::SIZE);
                let unit = match a >> 24 & 3 {
                    0 => 4,
                    1 => 16,
                    _ => 32,
                };
                let words = (skip + left).div_ceil(4);
                let padding = (skip + left).div_ceil(unit) * unit / 4 - words;
                self.s.feed = Feed::Data { skip, left, padding, a, b: value };
                if words + padding == 0 {
                    self.buffer_done(a, value, fx);
                }
            }
            Feed::Data { mut skip, mut left, mut padding, a, b } => {
                if skip + left == 0 {
                    padding -= padding.min(1);
                } else {
                    for byte in value.to_le_bytes() {
                        if skip > 0 {
                            skip -= 1;
                        } else if left > 0 {
                            left -= 1;
                            if self.s.frame.len() < LONGEST {
                                self.s.frame.push(byte);
                            }
                        }
                    }
                }
                self.s.feed = Feed::Data { skip, left, padding, a, b };
                if skip + left + padding == 0 {
                    self.buffer_done(a, b, fx);
                }
            }
        }
    }

    /// A buffer is whole; if it is its frame's last, the frame is.
    fn buffer_done(&mut self, a: u32, b: u32, fx: &mut Effects<'_>) {
        self.s.feed = Feed::CommandA;
        if a & tx::LAST == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.s.frame);
        if b & tx::NO_PADDING == 0 {
            bytes.resize(bytes.len().max(SHORTEST), 0);
        }
        if self.s.used() + bytes.len() + 8 > tx_room(self.s.hw_cfg) as usize {
            // More than the driver was told that there is room for.
            self.s.int_sts |= int::TX_ERROR;
            return;
        }
        self.s.sending.push_back(Frame { bytes, tag: (b >> 16) as u16, tells: a & tx::ON_COMPLETION != 0 });
        self.transmit(fx);
    }

    /// Sends what can be sent.
    fn transmit(&mut self, fx: &mut Effects<'_>) {
        let on = self.s.tx_cfg & tx_cfg::ON != 0 && self.s.mac.control() & mac_cr::TX != 0;
        while on && (self.s.tx_status.len() < STATUSES || self.s.tx_cfg & tx_cfg::ALLOW_OVERRUN != 0) {
            let Some(frame) = self.s.sending.pop_front() else { return };
            if self.s.mac.loops() {
                if self.s.looped.len() < STATUSES {
                    self.s.looped.push_back(frame.bytes);
                }
            } else if self.s.mac.plugged() {
                fx.host_out(WIRE, &frame.bytes);
            }
            if self.s.tx_status.len() < STATUSES {
                self.s.tx_status.push_back(u32::from(frame.tag) << 16);
            }
            if frame.tells {
                self.s.int_sts |= int::TX_COMPLETE;
            }
        }
    }

    fn irq_cfg(&self) -> u32 {
        let active = self.s.int_sts & self.s.int_en != 0;
        self.s.irq_cfg | if active { irq_cfg::INT } else { 0 }
    }

    fn rx_inf(&self) -> u32 {
        (self.s.rx_status.len() as u32) << 16 | 4 * self.s.rx.len() as u32
    }

    fn tx_inf(&self) -> u32 {
        (self.s.tx_status.len() as u32) << 16 | tx_room(self.s.hw_cfg).saturating_sub(self.s.used() as u32)
    }

    /// Interrupts that come while something holds (5.3.3, 5.3.6).
    fn levels(&mut self) {
        let [rx_level, _, tx_level, available] = self.s.fifo_int.to_le_bytes();
        let free = self.tx_inf() & 0xffff;
        let phy = self.s.mac.phy_interrupts();
        // It is as long as the PHY wants something, whoever clears it.
        self.s.int_sts = self.s.int_sts & !int::PHY | if phy { int::PHY } else { 0 };
        let mut set = |holds: bool, bit: u32| self.s.int_sts |= if holds { bit } else { 0 };
        let (rx, tx) = (self.s.rx_status.len(), self.s.tx_status.len());
        set(rx > usize::from(rx_level), int::RX_STATUS_LEVEL);
        set(tx > usize::from(tx_level), int::TX_STATUS_LEVEL);
        set(tx >= STATUSES, int::TX_STATUS_FULL);
        set(free > 64 * u32::from(available), int::TX_AVAILABLE);
    }

    /// States all that the world sees. A posted write lowers no line.
    fn show(&mut self, posted: bool, fx: &mut Effects<'_>) {
        self.levels();
        let active = self.s.int_sts & self.s.int_en != 0 && self.s.irq_cfg & irq_cfg::ENABLE != 0;
        // Active low, unless it is a push-pull output that is told otherwise (5.3.2).
        let both = irq_cfg::POLARITY | irq_cfg::TYPE;
        let level = active == (self.s.irq_cfg & both == both);
        self.s.line = level || posted && self.s.line;
        fx.line(IRQ, self.s.line);
        fx.publish(shadow::INT_STS, self.s.int_sts.into());
        fx.publish(shadow::TX_FIFO_INF, self.tx_inf().into());
        fx.publish(shadow::IRQ_CFG, self.irq_cfg().into());
        if posted {
            return;
        }
        for (index, value) in [
            (shadow::INT_EN, self.s.int_en),
            (shadow::FIFO_INT, self.s.fifo_int),
            (shadow::RX_CFG, self.s.rx_cfg),
            (shadow::TX_CFG, self.s.tx_cfg),
            (shadow::HW_CFG, self.s.hw_cfg),
            (shadow::RX_FIFO_INF, self.rx_inf()),
            (shadow::MAC_CSR_CMD, self.s.csr_cmd),
            (shadow::MAC_CSR_DATA, self.s.csr_data),
        ] {
            fx.publish(index, value.into());
        }
        fx.timer(TIMER, self.s.gpt_due);
        let on = self.s.mac.control() & mac_cr::RX != 0 && self.s.mac.plugged();
        let free = (rx_words(self.s.hw_cfg) - self.s.rx.len()) / self.words(LARGEST + 4);
        let statuses = STATUSES - self.s.rx_status.len();
        fx.host_want(WIRE, if on { free.min(statuses) as u64 } else { 0 });
        fx.host_want(CABLE, 1);
    }
}

#[cfg(test)]
mod tests;
