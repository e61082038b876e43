//! What the DMA-330 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register, primecell_ids};

use crate::{Config, Pl330};

/// Register offsets (TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const INTEN: u64 = 0x020;
    pub(crate) const EVENT_RIS: u64 = 0x024;
    pub(crate) const INTMIS: u64 = 0x028;
    pub(crate) const INTCLR: u64 = 0x02c;
    pub(crate) const FSRD: u64 = 0x030;
    pub(crate) const FSRC: u64 = 0x034;
    pub(crate) const FTRD: u64 = 0x038;
    /// FTR0; the other channels' follow.
    pub(crate) const FTR: u64 = 0x040;
    /// CSR0, with CPC0 behind it; the other channels' follow 8 bytes apart.
    pub(crate) const CSR: u64 = 0x100;
    pub(crate) const CPC: u64 = 0x104;
    /// SAR0; DAR0, CCR0, LC0_0 and LC1_0 follow, and the other channels' 0x20 bytes apart.
    pub(crate) const SAR: u64 = 0x400;
    pub(crate) const DBGCMD: u64 = 0xd04;
    pub(crate) const DBGINST0: u64 = 0xd08;
    pub(crate) const DBGINST1: u64 = 0xd0c;
    pub(crate) const CR0: u64 = 0xe00;
}

/// Channels at most.
pub(crate) const CHANNELS: usize = 8;

/// Indices of the shadows.
pub(crate) mod shadow {
    use super::CHANNELS;

    pub(crate) const INTEN: u16 = 0;
    pub(crate) const EVENT_RIS: u16 = 1;
    pub(crate) const INTMIS: u16 = 2;
    pub(crate) const FSRD: u16 = 3;
    pub(crate) const FSRC: u16 = 4;
    pub(crate) const FTRD: u16 = 5;
    /// FTR0 to FTR7, then CSR0 to CSR7, then CPC0 to CPC7.
    pub(crate) const FTR: u16 = 6;
    pub(crate) const CSR: u16 = FTR + CHANNELS as u16;
    pub(crate) const CPC: u16 = CSR + CHANNELS as u16;
}

/// Output pins.
pub(crate) mod output {
    /// irq_abort: some thread has a fault.
    pub(crate) const ABORT: u32 = 0;
    /// irq[0]; the others follow.
    pub(crate) const IRQ0: u32 = 1;
}

/// Bits of FTRD and FTRn (TRM 3.3.9, 3.3.10).
pub(crate) mod fault {
    /// An instruction that is none.
    pub(crate) const UNDEF_INSTR: u32 = 1;
    /// An instruction with an operand that this configuration does not have.
    pub(crate) const OPERAND_INVALID: u32 = 1 << 1;
    /// The memory answered the fetch of an instruction with an error.
    pub(crate) const INSTR_FETCH_ERR: u32 = 1 << 16;
    /// The instruction came from the debug interface.
    pub(crate) const DBG_INSTR: u32 = 1 << 30;
}

/// CSRn (TRM 3.3.11).
pub(crate) mod csr {
    pub(crate) const FAULTING: u32 = 0xf;
    /// The channel is in the Non-secure state.
    pub(crate) const CNS: u32 = 1 << 21;
}

/// CCRn after reset: one beat of one byte each way.
const CCR_RESET: u64 = 0x0080_0200;

/// CR0 (TRM 3.3.20): peripheral requests, and the numbers of channels, requests and events less one.
fn cr0(cfg: &Config) -> u64 {
    let requests = u64::from(cfg.requests);
    let has = u64::from(requests > 0);
    has | u64::from(cfg.channels - 1) << 4 | requests.saturating_sub(1) << 12 | u64::from(cfg.events - 1) << 17
}

/// CRD (TRM 3.3.25): 64-bit bus, 8 reads and 8 writes at a time, queues of 8, a buffer of 256 words.
const CRD: u64 = 0x3 | 7 << 4 | 7 << 8 | 7 << 12 | 7 << 16 | 255 << 20;

pub(crate) fn spec(cfg: &Config) -> PluginSpec {
    let shown = |name: &str, offset, shadow: u16, section| Register::ro(name, offset, 0, section).shadow(shadow);
    let fixed = |name: &str, offset, value, section| Register::ro(name, offset, value, section).constant();
    let mut registers = vec![
        // The manager is stopped, and in the Secure state.
        fixed("DSR", 0x000, 0, "DDI 0424 3.3.1"),
        fixed("DPC", 0x004, 0, "DDI 0424 3.3.2"),
        Register::rw("INTEN", reg::INTEN, 0, "DDI 0424 3.3.3").shadow(shadow::INTEN).stored(),
        shown("INT_EVENT_RIS", reg::EVENT_RIS, shadow::EVENT_RIS, "DDI 0424 3.3.4"),
        shown("INTMIS", reg::INTMIS, shadow::INTMIS, "DDI 0424 3.3.5"),
        Register::wo("INTCLR", reg::INTCLR, "DDI 0424 3.3.6"),
        shown("FSRD", reg::FSRD, shadow::FSRD, "DDI 0424 3.3.7"),
        shown("FSRC", reg::FSRC, shadow::FSRC, "DDI 0424 3.3.8"),
        shown("FTRD", reg::FTRD, shadow::FTRD, "DDI 0424 3.3.9"),
        // A debug command is done at once.
        fixed("DBGSTATUS", 0xd00, 0, "DDI 0424 3.3.16"),
        Register::wo("DBGCMD", reg::DBGCMD, "DDI 0424 3.3.17"),
        Register::wo("DBGINST0", reg::DBGINST0, "DDI 0424 3.3.18").posted(&[]),
        Register::wo("DBGINST1", reg::DBGINST1, "DDI 0424 3.3.19").posted(&[]),
        fixed("CR0", reg::CR0, cr0(cfg), "DDI 0424 3.3.20"),
        // An instruction cache of 32 lines of 16 bytes.
        fixed("CR1", 0xe04, 31 << 4 | 4, "DDI 0424 3.3.21"),
        fixed("CR2", 0xe08, 0, "DDI 0424 3.3.22"),
        fixed("CR3", 0xe0c, 0, "DDI 0424 3.3.23"),
        fixed("CR4", 0xe10, 0, "DDI 0424 3.3.24"),
        fixed("CRD", 0xe14, CRD, "DDI 0424 3.3.25"),
        fixed("WD", 0xe80, 0, "DDI 0424 3.3.26"),
    ];
    let mut shadows: Vec<String> =
        ["INTEN", "INT_EVENT_RIS", "INTMIS", "FSRD", "FSRC", "FTRD"].map(String::from).to_vec();
    for (name, offset, stride, first, section) in [
        ("FTR", reg::FTR, 4, shadow::FTR, "DDI 0424 3.3.10"),
        ("CSR", reg::CSR, 8, shadow::CSR, "DDI 0424 3.3.11"),
        ("CPC", reg::CPC, 8, shadow::CPC, "DDI 0424 3.3.12"),
    ] {
        for n in 0..CHANNELS {
            let name = format!("{name}{n}");
            registers.push(shown(&name, offset + stride * n as u64, first + n as u16, section));
            shadows.push(name);
        }
    }
    // No channel gets as far as its first instruction, so these stay as they are after reset.
    for n in 0..u64::from(cfg.channels) {
        let at = reg::SAR + 0x20 * n;
        for (i, (name, reset)) in
            [("SAR", 0), ("DAR", 0), ("CCR", CCR_RESET), ("LC0_", 0), ("LC1_", 0)].into_iter().enumerate()
        {
            registers.push(fixed(&format!("{name}{n}"), at + 4 * i as u64, reset, "DDI 0424 3.3.13 to 3.3.15"));
        }
    }
    let ids = [0x30, 0x13, cfg.revision << 4 | 4, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
    let outputs: Vec<String> =
        ["abort".to_owned()].into_iter().chain((0..cfg.events).map(|n| format!("irq{n}"))).collect();
    PluginSpec::new(Pl330::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers(registers)
        .registers(primecell_ids("", ids, "DDI 0424 3.3.27"))
        .shadows(&shadows.iter().map(|name| (name.as_str(), 0)).collect::<Vec<_>>())
        .outputs(&outputs.iter().map(String::as_str).collect::<Vec<_>>())
}
