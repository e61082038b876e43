//! What the PL110 and PL111 look like from outside.

use reprise_device::Device;
use reprise_device::spec::{Direction, PluginSpec, Register, primecell_ids};

use crate::{Model, Pl111};

/// Register offsets (PL111 TRM table 3-1). On the PL110 CONTROL and IMSC change places (PL110 TRM table 3-1).
pub(crate) mod reg {
    pub(crate) const TIMING0: u64 = 0x000;
    pub(crate) const TIMING1: u64 = 0x004;
    pub(crate) const TIMING2: u64 = 0x008;
    pub(crate) const TIMING3: u64 = 0x00c;
    pub(crate) const UPBASE: u64 = 0x010;
    pub(crate) const LPBASE: u64 = 0x014;
    pub(crate) const CONTROL: u64 = 0x018;
    pub(crate) const IMSC: u64 = 0x01c;
    pub(crate) const RIS: u64 = 0x020;
    pub(crate) const MIS: u64 = 0x024;
    pub(crate) const ICR: u64 = 0x028;
    pub(crate) const UPCURR: u64 = 0x02c;
    pub(crate) const LPCURR: u64 = 0x030;
    pub(crate) const PALETTE: u64 = 0x200;
    pub(crate) const PALETTE_END: u64 = 0x400;
    /// PL111: the cursor's image.
    pub(crate) const CURSOR_IMAGE: u64 = 0x800;
    pub(crate) const CURSOR_IMAGE_END: u64 = 0xc00;
    /// PL111: the cursor's controls.
    pub(crate) const CURSOR: u64 = 0xc00;
}

/// LCDTiming0 (TRM 3.3.2).
pub(crate) const TIMING0_MASK: u32 = 0xffff_fffc;
/// LCDTiming2 (TRM 3.3.4).
pub(crate) const TIMING2_MASK: u32 = 0xffff_ffff;
/// LCDTiming2.BCD: the pixel clock is not divided.
pub(crate) const BYPASS: u32 = 1 << 26;
/// LCDTiming3 (TRM 3.3.5).
pub(crate) const TIMING3_MASK: u32 = 0x1_007f;
/// LCDUPBASE, LCDLPBASE (TRM 3.3.6).
pub(crate) const BASE_MASK: u32 = 0xffff_fff8;

/// LCDControl (TRM 3.3.7).
pub(crate) mod control {
    pub(crate) const ENABLE: u32 = 1;
    pub(crate) const BPP_SHIFT: u32 = 1;
    pub(crate) const TFT: u32 = 1 << 5;
    pub(crate) const DUAL: u32 = 1 << 7;
    pub(crate) const BGR: u32 = 1 << 8;
    pub(crate) const BEBO: u32 = 1 << 9;
    pub(crate) const BEPO: u32 = 1 << 10;
    pub(crate) const POWER: u32 = 1 << 11;
    pub(crate) const VCOMP_SHIFT: u32 = 12;
    /// The bits that exist.
    pub(crate) const MASK: u32 = 0x1_3fff;
}

/// Interrupts (TRM 3.3.8).
pub(crate) mod int {
    /// The base address was taken over: a frame begins.
    pub(crate) const LNBU: u8 = 1 << 2;
    /// The frame has come to the place that LcdVComp says.
    pub(crate) const VCOMP: u8 = 1 << 3;
    /// All that exist: FIFO underflow and bus error besides, which never happen here.
    pub(crate) const MASK: u8 = 0x1e;
}

/// Masks of the cursor's controls from [`reg::CURSOR`] on (PL111 TRM 3.3.15 to 3.3.21).
pub(crate) const CURSOR_MASKS: [u32; 9] = [0x31, 0x3, 0xff_ffff, 0xff_ffff, 0x3ff_03ff, 0x3f3f, 0, 0, 1];
/// Their names, where there is a register.
const CURSOR_NAMES: [(&str, usize); 7] = [
    ("ClcdCrsrCtrl", 0),
    ("ClcdCrsrConfig", 1),
    ("ClcdCrsrPalette0", 2),
    ("ClcdCrsrPalette1", 3),
    ("ClcdCrsrXY", 4),
    ("ClcdCrsrClip", 5),
    ("ClcdCrsrIMSC", 8),
];

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const TIMING0: u16 = 0;
    pub(crate) const UPBASE: u16 = 4;
    pub(crate) const LPBASE: u16 = 5;
    pub(crate) const CONTROL: u16 = 6;
    pub(crate) const IMSC: u16 = 7;
}

/// Output pins.
pub(crate) mod output {
    /// CLCDINTR: any of the interrupts.
    pub(crate) const IRQ: u32 = 0;
}

/// Ports.
pub(crate) mod port {
    /// What the screen is: messages as [`reprise_device::screen`] has them.
    pub(crate) const SCREEN: u32 = 0;
}

/// Timers.
pub(crate) mod timer {
    /// An interrupt that is not masked is due.
    pub(crate) const FRAME: u32 = 0;
}

pub(crate) fn spec(model: Model) -> PluginSpec {
    let kept = |name, offset, shadow, section| Register::rw(name, offset, 0, section).shadow(shadow).stored();
    let mut swapped = [
        kept("LCDControl", reg::CONTROL, shadow::CONTROL, "DDI 0293 3.3.7"),
        kept("LCDIMSC", reg::IMSC, shadow::IMSC, "DDI 0293 3.3.8"),
    ];
    if model == Model::Pl110 {
        (swapped[0].offset, swapped[1].offset) = (reg::IMSC, reg::CONTROL);
        swapped.reverse();
    }
    let base = |name, offset, shadow: u16| Register::rw(name, offset, 0, "DDI 0293 3.3.6").shadow(shadow).stored();
    let mut spec = PluginSpec::new(Pl111::KIND, env!("CARGO_PKG_VERSION"), 0x1000)
        .registers([
            kept("LCDTiming0", reg::TIMING0, shadow::TIMING0, "DDI 0293 3.3.2"),
            kept("LCDTiming1", reg::TIMING1, shadow::TIMING0 + 1, "DDI 0293 3.3.3"),
            kept("LCDTiming2", reg::TIMING2, shadow::TIMING0 + 2, "DDI 0293 3.3.4"),
            kept("LCDTiming3", reg::TIMING3, shadow::TIMING0 + 3, "DDI 0293 3.3.5"),
            base("LCDUPBASE", reg::UPBASE, shadow::UPBASE),
            base("LCDLPBASE", reg::LPBASE, shadow::LPBASE),
        ])
        .registers(swapped)
        .registers([
            // They depend on the time.
            Register::ro("LCDRIS", reg::RIS, 0, "DDI 0293 3.3.9"),
            Register::ro("LCDMIS", reg::MIS, 0, "DDI 0293 3.3.10"),
            Register::wo("LCDICR", reg::ICR, "DDI 0293 3.3.11"),
            Register::ro("LCDUPCURR", reg::UPCURR, 0, "DDI 0293 3.3.12"),
            Register::ro("LCDLPCURR", reg::LPCURR, 0, "DDI 0293 3.3.12"),
        ])
        .registers((reg::PALETTE..reg::PALETTE_END).step_by(4).map(|at| {
            let name = format!("LCDPalette{}", (at - reg::PALETTE) / 4);
            Register::rw(&name, at, 0, "DDI 0293 3.3.13").posted(&[])
        }));
    let ids = match model {
        Model::Pl110 => [0x10, 0x11, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1],
        Model::Pl111 => {
            spec = spec
                .registers((reg::CURSOR_IMAGE..reg::CURSOR_IMAGE_END).step_by(4).map(|at| {
                    let name = format!("CursorImage{}", (at - reg::CURSOR_IMAGE) / 4);
                    Register::rw(&name, at, 0, "DDI 0293 3.3.14").posted(&[])
                }))
                .registers(CURSOR_NAMES.iter().map(|&(name, i)| {
                    Register::rw(name, reg::CURSOR + 4 * i as u64, 0, "DDI 0293 3.3.15").posted(&[])
                }));
            [0x11, 0x11, 0x24, 0x00, 0x0d, 0xf0, 0x05, 0xb1]
        }
    };
    spec.registers(primecell_ids("CLCD", ids, "DDI 0293 3.3.25"))
        .shadows(&[
            ("LCDTiming0", 0),
            ("LCDTiming1", 0),
            ("LCDTiming2", 0),
            ("LCDTiming3", 0),
            ("LCDUPBASE", 0),
            ("LCDLPBASE", 0),
            ("LCDControl", 0),
            ("LCDIMSC", 0),
        ])
        .outputs(&["irq"])
        .port("screen", Direction::Out)
        .timers(1)
}
