//! What the PL180 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register, primecell_ids};

use crate::{Config, Pl180};

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const POWER: u64 = 0x00;
    pub(crate) const CLOCK: u64 = 0x04;
    pub(crate) const ARGUMENT: u64 = 0x08;
    pub(crate) const COMMAND: u64 = 0x0c;
    pub(crate) const RESPCMD: u64 = 0x10;
    pub(crate) const RESPONSE0: u64 = 0x14;
    pub(crate) const RESPONSE1: u64 = 0x18;
    pub(crate) const RESPONSE2: u64 = 0x1c;
    pub(crate) const RESPONSE3: u64 = 0x20;
    pub(crate) const DATATIMER: u64 = 0x24;
    pub(crate) const DATALENGTH: u64 = 0x28;
    pub(crate) const DATACTRL: u64 = 0x2c;
    pub(crate) const DATACNT: u64 = 0x30;
    pub(crate) const STATUS: u64 = 0x34;
    pub(crate) const CLEAR: u64 = 0x38;
    pub(crate) const MASK0: u64 = 0x3c;
    pub(crate) const MASK1: u64 = 0x40;
    pub(crate) const SELECT: u64 = 0x44;
    pub(crate) const FIFOCNT: u64 = 0x48;
    /// The first of sixteen words that all lead to the FIFO.
    pub(crate) const FIFO: u64 = 0x80;
    pub(crate) const FIFO_END: u64 = 0xc0;
}

/// MCIPower (TRM 3.3.1).
pub(crate) mod power {
    /// What the two lowest bits say when the card has no power.
    pub(crate) const OFF: u32 = 0;
    pub(crate) const CTRL: u32 = 3;
    pub(crate) const ON: u32 = 3;
    pub(crate) const MASK: u32 = 0xff;
}

/// MCIClock (TRM 3.3.2).
pub(crate) mod clock {
    pub(crate) const DIV: u32 = 0xff;
    pub(crate) const ENABLE: u32 = 1 << 8;
    pub(crate) const BYPASS: u32 = 1 << 10;
    pub(crate) const MASK: u32 = 0xfff;
}

/// MCICommand (TRM 3.3.4).
pub(crate) mod command {
    pub(crate) const INDEX: u32 = 0x3f;
    pub(crate) const RESPONSE: u32 = 1 << 6;
    pub(crate) const LONG: u32 = 1 << 7;
    pub(crate) const ENABLE: u32 = 1 << 10;
    pub(crate) const MASK: u32 = 0x7ff;
}

/// MCIDataCtrl (TRM 3.3.9).
pub(crate) mod datactrl {
    pub(crate) const ENABLE: u32 = 1;
    /// From the card to the controller.
    pub(crate) const FROM_CARD: u32 = 1 << 1;
    /// A stream without blocks.
    pub(crate) const STREAM: u32 = 1 << 2;
    pub(crate) const MASK: u32 = 0xff;
}

/// MCIStatus (TRM 3.3.11).
pub(crate) mod status {
    pub(crate) const CMD_CRC_FAIL: u32 = 1;
    pub(crate) const DATA_CRC_FAIL: u32 = 1 << 1;
    pub(crate) const CMD_TIMEOUT: u32 = 1 << 2;
    pub(crate) const DATA_TIMEOUT: u32 = 1 << 3;
    pub(crate) const CMD_RESP_END: u32 = 1 << 6;
    pub(crate) const CMD_SENT: u32 = 1 << 7;
    pub(crate) const DATA_END: u32 = 1 << 8;
    pub(crate) const DATA_BLOCK_END: u32 = 1 << 10;
    /// What MCIClear clears.
    pub(crate) const STATIC: u32 = 0x7ff;
    pub(crate) const TX_ACTIVE: u32 = 1 << 12;
    pub(crate) const RX_ACTIVE: u32 = 1 << 13;
    pub(crate) const TX_FIFO_HALF_EMPTY: u32 = 1 << 14;
    pub(crate) const RX_FIFO_HALF_FULL: u32 = 1 << 15;
    pub(crate) const RX_FIFO_FULL: u32 = 1 << 17;
    pub(crate) const TX_FIFO_EMPTY: u32 = 1 << 18;
    pub(crate) const RX_FIFO_EMPTY: u32 = 1 << 19;
    pub(crate) const RX_DATA_AVAILABLE: u32 = 1 << 21;
    pub(crate) const ALL: u32 = 0x3f_ffff;
}

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const POWER: u16 = 0;
    pub(crate) const CLOCK: u16 = 1;
    pub(crate) const ARGUMENT: u16 = 2;
    pub(crate) const COMMAND: u16 = 3;
    pub(crate) const RESPCMD: u16 = 4;
    pub(crate) const RESPONSE0: u16 = 5;
    pub(crate) const RESPONSE1: u16 = 6;
    pub(crate) const RESPONSE2: u16 = 7;
    pub(crate) const RESPONSE3: u16 = 8;
    pub(crate) const DATATIMER: u16 = 9;
    pub(crate) const DATALENGTH: u16 = 10;
    pub(crate) const DATACTRL: u16 = 11;
    pub(crate) const STATUS: u16 = 12;
    pub(crate) const MASK0: u16 = 13;
    pub(crate) const MASK1: u16 = 14;
    pub(crate) const SELECT: u16 = 15;
    pub(crate) const FIFOCNT: u16 = 16;
}

/// Output pins.
pub(crate) mod output {
    /// MCIINTR0.
    pub(crate) const IRQ0: u32 = 0;
    /// MCIINTR1.
    pub(crate) const IRQ1: u32 = 1;
    /// The slot's switch: a card is in it.
    pub(crate) const PRESENT: u32 = 2;
    /// The slot's other switch: the card is write-protected.
    pub(crate) const PROTECTED: u32 = 3;
}

/// The receive FIFO, whose words are there before they are asked for.
pub(crate) const QUEUE: u16 = 0;
/// The card's memory.
pub(crate) const DISK: u32 = 0;
/// The card sends no data.
pub(crate) const TIMEOUT: u32 = 0;

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let ro = |name, offset, shadow, section| Register::ro(name, offset, 0, section).sizes(7).shadow(shadow);
    // A write can lower an interrupt line or move the card, so the CPU waits for it; to repeat it does nothing.
    let stored =
        |name, offset, shadow, section| Register::rw(name, offset, 0, section).sizes(7).shadow(shadow).stored();
    let acts = |name, offset, shadow, section| Register::rw(name, offset, 0, section).sizes(7).shadow(shadow);
    // A word of data changes no more than the status, and that seldom: its writes follow each other without waiting.
    let fifo = |i: u64| {
        let name = format!("MCIFIFO{i}");
        let r = Register::rw(&name, reg::FIFO + 4 * i, 0, "DDI 0172 3.3.16").fifo(&[shadow::STATUS, shadow::FIFOCNT]);
        if i == 0 { r.queue(QUEUE) } else { r }
    };
    let revision = if cfg.fifo > 16 { 0x01 } else { 0x00 };
    PluginSpec::new(Pl180::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            stored("MCIPower", reg::POWER, shadow::POWER, "DDI 0172 3.3.1"),
            stored("MCIClock", reg::CLOCK, shadow::CLOCK, "DDI 0172 3.3.2"),
            stored("MCIArgument", reg::ARGUMENT, shadow::ARGUMENT, "DDI 0172 3.3.3"),
            acts("MCICommand", reg::COMMAND, shadow::COMMAND, "DDI 0172 3.3.4"),
            ro("MCIRespCmd", reg::RESPCMD, shadow::RESPCMD, "DDI 0172 3.3.5"),
            ro("MCIResponse0", reg::RESPONSE0, shadow::RESPONSE0, "DDI 0172 3.3.6"),
            ro("MCIResponse1", reg::RESPONSE1, shadow::RESPONSE1, "DDI 0172 3.3.6"),
            ro("MCIResponse2", reg::RESPONSE2, shadow::RESPONSE2, "DDI 0172 3.3.6"),
            ro("MCIResponse3", reg::RESPONSE3, shadow::RESPONSE3, "DDI 0172 3.3.6"),
            stored("MCIDataTimer", reg::DATATIMER, shadow::DATATIMER, "DDI 0172 3.3.7"),
            stored("MCIDataLength", reg::DATALENGTH, shadow::DATALENGTH, "DDI 0172 3.3.8"),
            acts("MCIDataCtrl", reg::DATACTRL, shadow::DATACTRL, "DDI 0172 3.3.9"),
            // Read by nobody who is in a hurry, and changed by each word.
            Register::ro("MCIDataCnt", reg::DATACNT, 0, "DDI 0172 3.3.10").sizes(7),
            ro("MCIStatus", reg::STATUS, shadow::STATUS, "DDI 0172 3.3.11"),
            Register::wo("MCIClear", reg::CLEAR, "DDI 0172 3.3.12").sizes(7),
            stored("MCIMask0", reg::MASK0, shadow::MASK0, "DDI 0172 3.3.13"),
            stored("MCIMask1", reg::MASK1, shadow::MASK1, "DDI 0172 3.3.13"),
            stored("MCISelect", reg::SELECT, shadow::SELECT, "DDI 0172 3.3.14"),
            ro("MCIFifoCnt", reg::FIFOCNT, shadow::FIFOCNT, "DDI 0172 3.3.15"),
        ])
        .registers((0..16).map(fifo))
        .registers(primecell_ids("MCI", [0x80, 0x11, 0x04, revision, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0172 3.3.17"))
        .shadows(&[
            ("MCIPower", 0),
            ("MCIClock", 0),
            ("MCIArgument", 0),
            ("MCICommand", 0),
            ("MCIRespCmd", 0),
            ("MCIResponse0", 0),
            ("MCIResponse1", 0),
            ("MCIResponse2", 0),
            ("MCIResponse3", 0),
            ("MCIDataTimer", 0),
            ("MCIDataLength", 0),
            ("MCIDataCtrl", 0),
            ("MCIStatus", 0),
            ("MCIMask0", 0),
            ("MCIMask1", 0),
            ("MCISelect", 0),
            ("MCIFifoCnt", 0),
        ])
        .outputs(&["irq0", "irq1", "present", "protected"])
        .queue("MCIFIFO", cfg.fifo)
        .disk("card")
        .timers(1)
}
