//! What the LAN9118 looks like from outside (SMSC LAN9118 datasheet, revision 1.5).

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register};

use crate::Lan9118;

/// Register offsets (table 5-1).
pub(crate) mod reg {
    /// Eight words that all lead to the receive data FIFO.
    pub(crate) const RX_DATA: u64 = 0x00;
    pub(crate) const RX_DATA_END: u64 = 0x20;
    /// Eight words that all lead to the transmit data FIFO.
    pub(crate) const TX_DATA: u64 = 0x20;
    pub(crate) const TX_DATA_END: u64 = 0x40;
    pub(crate) const RX_STATUS: u64 = 0x40;
    pub(crate) const RX_STATUS_PEEK: u64 = 0x44;
    pub(crate) const TX_STATUS: u64 = 0x48;
    pub(crate) const TX_STATUS_PEEK: u64 = 0x4c;
    pub(crate) const IRQ_CFG: u64 = 0x54;
    pub(crate) const INT_STS: u64 = 0x58;
    pub(crate) const INT_EN: u64 = 0x5c;
    pub(crate) const FIFO_INT: u64 = 0x68;
    pub(crate) const RX_CFG: u64 = 0x6c;
    pub(crate) const TX_CFG: u64 = 0x70;
    pub(crate) const HW_CFG: u64 = 0x74;
    pub(crate) const RX_DP_CTRL: u64 = 0x78;
    pub(crate) const RX_FIFO_INF: u64 = 0x7c;
    pub(crate) const TX_FIFO_INF: u64 = 0x80;
    pub(crate) const PMT_CTRL: u64 = 0x84;
    pub(crate) const GPIO_CFG: u64 = 0x88;
    pub(crate) const GPT_CFG: u64 = 0x8c;
    pub(crate) const GPT_CNT: u64 = 0x90;
    pub(crate) const WORD_SWAP: u64 = 0x98;
    pub(crate) const RX_DROP: u64 = 0xa0;
    pub(crate) const MAC_CSR_CMD: u64 = 0xa4;
    pub(crate) const MAC_CSR_DATA: u64 = 0xa8;
    pub(crate) const AFC_CFG: u64 = 0xac;
    pub(crate) const E2P_CMD: u64 = 0xb0;
    pub(crate) const E2P_DATA: u64 = 0xb4;
}

/// IRQ_CFG (5.3.2).
pub(crate) mod irq_cfg {
    pub(crate) const INT: u32 = 1 << 12;
    pub(crate) const ENABLE: u32 = 1 << 8;
    pub(crate) const POLARITY: u32 = 1 << 4;
    pub(crate) const TYPE: u32 = 1;
    pub(crate) const WRITABLE: u32 = 0xff00_0111;
}

/// INT_STS and INT_EN (5.3.3, 5.3.4).
pub(crate) mod int {
    pub(crate) const SOFTWARE: u32 = 1 << 31;
    pub(crate) const TX_STOPPED: u32 = 1 << 25;
    pub(crate) const RX_STOPPED: u32 = 1 << 24;
    pub(crate) const TX_COMPLETE: u32 = 1 << 21;
    pub(crate) const TIMER: u32 = 1 << 19;
    pub(crate) const PHY: u32 = 1 << 18;
    pub(crate) const TX_ERROR: u32 = 1 << 13;
    pub(crate) const TX_AVAILABLE: u32 = 1 << 9;
    pub(crate) const TX_STATUS_FULL: u32 = 1 << 8;
    pub(crate) const TX_STATUS_LEVEL: u32 = 1 << 7;
    pub(crate) const RX_DROPPED: u32 = 1 << 6;
    pub(crate) const RX_STATUS_LEVEL: u32 = 1 << 3;
    pub(crate) const ALL: u32 = 0x83bf_7fdf;
}

/// RX_CFG (5.3.7).
pub(crate) mod rx_cfg {
    pub(crate) const DUMP: u32 = 1 << 15;
    pub(crate) const WRITABLE: u32 = 0xcfff_1f00;
}

/// TX_CFG (5.3.8).
pub(crate) mod tx_cfg {
    pub(crate) const STATUS_DUMP: u32 = 1 << 15;
    pub(crate) const DATA_DUMP: u32 = 1 << 14;
    /// Status words that find no room are left out.
    pub(crate) const ALLOW_OVERRUN: u32 = 1 << 2;
    pub(crate) const ON: u32 = 1 << 1;
    pub(crate) const STOP: u32 = 1;
}

/// HW_CFG (5.3.9).
pub(crate) mod hw_cfg {
    pub(crate) const SOFT_RESET: u32 = 1;
    /// The bus is 32 bits wide.
    pub(crate) const WIDE: u32 = 1 << 2;
    pub(crate) const WRITABLE: u32 = 0x001f_0000;
    /// 5 KiB of transmit FIFO.
    pub(crate) const RESET: u32 = 0x0005_0000 | WIDE;
}

/// FIFO_INT after a reset (5.3.6): 0x48 times 64 bytes free.
pub(crate) const FIFO_INT_RESET: u32 = 0x4800_0000;
/// RX_DP_CTRL: throw away the packet at the head of the FIFO (5.3.10).
pub(crate) const FAST_FORWARD: u32 = 1 << 31;
/// PMT_CTRL (5.3.13): the device is awake.
pub(crate) const PMT_READY: u32 = 1;
pub(crate) const PMT_WRITABLE: u32 = 0x330e;
/// GPT_CFG (5.3.15).
pub(crate) const TIMER_ENABLE: u32 = 1 << 29;
/// MAC_CSR_CMD and E2P_CMD: start; the former also: read.
pub(crate) const BUSY: u32 = 1 << 31;
pub(crate) const CSR_READ: u32 = 1 << 30;
/// E2P_CMD (5.3.23): the address was read from the EEPROM.
pub(crate) const MAC_LOADED: u32 = 1 << 8;

/// MAC_CR (5.4.1).
pub(crate) mod mac_cr {
    pub(crate) const LOOPBACK: u32 = 1 << 21;
    pub(crate) const ALL_MULTICAST: u32 = 1 << 19;
    pub(crate) const PROMISCUOUS: u32 = 1 << 18;
    pub(crate) const INVERSE: u32 = 1 << 17;
    pub(crate) const HASH_ONLY: u32 = 1 << 15;
    pub(crate) const HASH_PERFECT: u32 = 1 << 13;
    pub(crate) const NO_BROADCAST: u32 = 1 << 11;
    pub(crate) const TX: u32 = 1 << 3;
    pub(crate) const RX: u32 = 1 << 2;
    pub(crate) const WRITABLE: u32 = 0x80ff_ebfc & !(1 << 22);
}

/// Words of a command to transmit (3.12.2).
pub(crate) mod tx {
    pub(crate) const ON_COMPLETION: u32 = 1 << 31;
    pub(crate) const FIRST: u32 = 1 << 13;
    pub(crate) const LAST: u32 = 1 << 12;
    pub(crate) const SIZE: u32 = 0x7ff;
    /// In the second word: leave short frames short.
    pub(crate) const NO_PADDING: u32 = 1 << 12;
}

/// A received packet's status (3.13.3).
pub(crate) mod rx_status {
    pub(crate) const BROADCAST: u32 = 1 << 13;
    pub(crate) const MULTICAST: u32 = 1 << 10;
    pub(crate) const ETHERNET_TYPE: u32 = 1 << 5;
    pub(crate) const FILTERED: u32 = 1 << 30;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const IRQ_CFG: u16 = 0;
    pub(crate) const INT_STS: u16 = 1;
    pub(crate) const INT_EN: u16 = 2;
    pub(crate) const FIFO_INT: u16 = 3;
    pub(crate) const RX_CFG: u16 = 4;
    pub(crate) const TX_CFG: u16 = 5;
    pub(crate) const HW_CFG: u16 = 6;
    pub(crate) const RX_FIFO_INF: u16 = 7;
    pub(crate) const TX_FIFO_INF: u16 = 8;
    pub(crate) const MAC_CSR_CMD: u16 = 9;
    pub(crate) const MAC_CSR_DATA: u16 = 10;
}

/// The only output pin.
pub(crate) const IRQ: u32 = 0;
/// The wire, and the port on which it hears of its cable.
pub(crate) const WIRE: u32 = 0;
pub(crate) const CABLE: u32 = 1;
/// The general purpose timer.
pub(crate) const TIMER: u32 = 0;
/// The receive data FIFO, whose words are there before they are asked for.
pub(crate) const QUEUE: u16 = 0;
/// Words that the receive data FIFO has at most: with the smallest transmit FIFO.
pub(crate) const MOST_WORDS: u32 = 3600;

pub(crate) fn spec() -> PluginSpec {
    let rw =
        |name, offset, reset: u32, shadow, section| Register::rw(name, offset, reset.into(), section).shadow(shadow);
    let plain = |name, offset, reset: u32, section| Register::rw(name, offset, reset.into(), section);
    let ro = |name, offset, section| Register::ro(name, offset, 0, section);
    let rx = |i: u64| {
        let r = Register::ro(&format!("RX_DATA_FIFO{i}"), reg::RX_DATA + 4 * i, 0, "5.1");
        if i == 0 { r.queue(QUEUE) } else { r }
    };
    // A word of a frame is not waited for: what it changes is the room that is left, and what an interrupt tells.
    let tx = |i: u64| {
        Register::wo(&format!("TX_DATA_FIFO{i}"), reg::TX_DATA + 4 * i, "5.1").fifo(&[
            shadow::INT_STS,
            shadow::TX_FIFO_INF,
            shadow::IRQ_CFG,
        ])
    };
    let tx_inf = crate::tx_room(hw_cfg::RESET);
    PluginSpec::new(Lan9118::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers((0..8).map(rx))
        .registers((0..8).map(tx))
        .registers([
            ro("RX_STATUS_FIFO", reg::RX_STATUS, "5.2"),
            ro("RX_STATUS_FIFO_PEEK", reg::RX_STATUS_PEEK, "5.2"),
            ro("TX_STATUS_FIFO", reg::TX_STATUS, "5.2"),
            ro("TX_STATUS_FIFO_PEEK", reg::TX_STATUS_PEEK, "5.2"),
            Register::ro("ID_REV", 0x50, 0x0118_0001, "5.3.1").constant(),
            rw("IRQ_CFG", reg::IRQ_CFG, 0, shadow::IRQ_CFG, "5.3.2"),
            rw("INT_STS", reg::INT_STS, 0, shadow::INT_STS, "5.3.3"),
            rw("INT_EN", reg::INT_EN, 0, shadow::INT_EN, "5.3.4"),
            Register::ro("BYTE_TEST", 0x64, 0x8765_4321, "5.3.5").constant(),
            rw("FIFO_INT", reg::FIFO_INT, FIFO_INT_RESET, shadow::FIFO_INT, "5.3.6"),
            rw("RX_CFG", reg::RX_CFG, 0, shadow::RX_CFG, "5.3.7"),
            rw("TX_CFG", reg::TX_CFG, 0, shadow::TX_CFG, "5.3.8"),
            rw("HW_CFG", reg::HW_CFG, hw_cfg::RESET, shadow::HW_CFG, "5.3.9"),
            plain("RX_DP_CTRL", reg::RX_DP_CTRL, 0, "5.3.10"),
            ro("RX_FIFO_INF", reg::RX_FIFO_INF, "5.3.11").shadow(shadow::RX_FIFO_INF),
            Register::ro("TX_FIFO_INF", reg::TX_FIFO_INF, tx_inf.into(), "5.3.12").shadow(shadow::TX_FIFO_INF),
            plain("PMT_CTRL", reg::PMT_CTRL, PMT_READY, "5.3.13"),
            plain("GPIO_CFG", reg::GPIO_CFG, 0, "5.3.14"),
            plain("GPT_CFG", reg::GPT_CFG, 0xffff, "5.3.15"),
            ro("GPT_CNT", reg::GPT_CNT, "5.3.16"),
            plain("WORD_SWAP", reg::WORD_SWAP, 0, "5.3.17"),
            ro("FREE_RUN", 0x9c, "5.3.18").clock(25_000_000),
            ro("RX_DROP", reg::RX_DROP, "5.3.19"),
            rw("MAC_CSR_CMD", reg::MAC_CSR_CMD, 0, shadow::MAC_CSR_CMD, "5.3.20"),
            rw("MAC_CSR_DATA", reg::MAC_CSR_DATA, 0, shadow::MAC_CSR_DATA, "5.3.21"),
            plain("AFC_CFG", reg::AFC_CFG, 0, "5.3.22"),
            plain("E2P_CMD", reg::E2P_CMD, MAC_LOADED, "5.3.23"),
            plain("E2P_DATA", reg::E2P_DATA, 0, "5.3.24"),
        ])
        .shadows(&[
            ("IRQ_CFG", 0),
            ("INT_STS", 0),
            ("INT_EN", 0),
            ("FIFO_INT", FIFO_INT_RESET.into()),
            ("RX_CFG", 0),
            ("TX_CFG", 0),
            ("HW_CFG", hw_cfg::RESET.into()),
            ("RX_FIFO_INF", 0),
            ("TX_FIFO_INF", tx_inf.into()),
            ("MAC_CSR_CMD", 0),
            ("MAC_CSR_DATA", 0),
        ])
        .outputs(&["irq"])
        .packets("wire", Direction::Both)
        .port("cable", Direction::In)
        .queue("RX_DATA_FIFO", MOST_WORDS)
        .timers(1)
}
