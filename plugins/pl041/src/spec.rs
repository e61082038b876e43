//! What the PL041 looks like from outside.

use reprise_device::Device;
use reprise_device::spec::{PluginSpec, Register, primecell_ids};

use crate::Pl041;

/// A channel's receive and transmit control and interrupt enable registers, and the distance between two channels.
pub(crate) const CHANNEL: [(&str, u64); 3] = [("RXCR", 0x00), ("TXCR", 0x04), ("IE", 0x10)];
pub(crate) const STRIDE: u64 = 0x14;
/// Channels.
pub(crate) const CHANNELS: u64 = 4;

/// Registers of the whole that hold what is written: name, offset, bits.
pub(crate) const WHOLE: [(&str, u64, u32); 4] =
    [("SLIEN", 0x70, 0xff), ("MAINCR", 0x78, 0x7ff), ("RESET", 0x7c, 1), ("SYNC", 0x80, 1)];

/// Status of a channel without samples: receive FIFO empty, transmit FIFO half empty and empty.
const IDLE: u64 = 0xb;
/// SLFR without an access to the codec: the slots' transmit registers are empty.
const SLOTS: u64 = 1 << 11 | 1 << 9 | 1 << 7;

/// The registers that hold what is written, in the order of their shadows: name, offset, bits.
pub(crate) fn stored() -> Vec<(String, u64, u32)> {
    let channel = |n: u64| {
        let bits = |name: &str| if name == "IE" { 0x7f } else { u32::MAX };
        CHANNEL.map(|(name, offset)| (format!("AACI{name}{}", n + 1), STRIDE * n + offset, bits(name)))
    };
    let whole = WHOLE.map(|(name, offset, bits)| (format!("AACI{name}"), offset, bits));
    (0..CHANNELS).flat_map(channel).chain(whole).collect()
}

pub(crate) fn spec() -> PluginSpec {
    let fixed = |name: String, offset, value| Register::ro(&name, offset, value, "DDI 0173 3.3").constant();
    let mut registers = Vec::new();
    let mut shadows = Vec::new();
    for (i, (name, offset, _)) in stored().into_iter().enumerate() {
        let i = i as u16;
        registers.push(Register::rw(&name, offset, 0, "DDI 0173 3.3").shadow(i).posted(&[i]));
        shadows.push(name);
    }
    for n in 0..CHANNELS {
        registers.push(fixed(format!("AACISR{}", n + 1), STRIDE * n + 0x08, IDLE));
        registers.push(fixed(format!("AACIISR{}", n + 1), STRIDE * n + 0x0c, 0));
        let fifo = 0x90 + 0x20 * n;
        for i in 0..8 {
            let name = format!("AACIDR{}_{i}", n + 1);
            registers.push(Register::wo(&name, fifo + 4 * i, "DDI 0173 3.3").posted(&[]));
        }
    }
    for (name, offset) in [("SL1", 0x50), ("SL2", 0x58), ("SL12", 0x60)] {
        registers.push(fixed(format!("AACI{name}RX"), offset, 0));
        registers.push(Register::wo(&format!("AACI{name}TX"), offset + 4, "DDI 0173 3.3").posted(&[]));
    }
    registers.extend([
        fixed("AACISLFR".into(), 0x68, SLOTS),
        fixed("AACISLISTAT".into(), 0x6c, 0),
        Register::wo("AACIINTCLR", 0x74, "DDI 0173 3.3").posted(&[]),
        fixed("AACIALLINTS".into(), 0x84, 0),
        fixed("AACIMAINFR".into(), 0x88, 0),
    ]);
    PluginSpec::new(Pl041::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers(registers)
        .registers(primecell_ids("AACI", [0x41, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1], "DDI 0173 3.3"))
        .shadows(&shadows.iter().map(|name| (name.as_str(), 0)).collect::<Vec<_>>())
        .outputs(&["irq"])
}
