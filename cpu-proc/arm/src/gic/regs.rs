//! Register offsets and fields (ARM IHI 0048B tables 4-1 and 4-2).

/// Size of the Distributor's register block.
pub const DIST_SIZE: u64 = 0x1000;
/// Size of a CPU interface's register block.
pub const CPU_SIZE: u64 = 0x2000;

pub(super) const GICD_CTLR: u32 = 0x000;
pub(super) const GICD_TYPER: u32 = 0x004;
pub(super) const GICD_IIDR: u32 = 0x008;
pub(super) const GICD_IGROUPR: u32 = 0x080;
pub(super) const GICD_ISENABLER: u32 = 0x100;
pub(super) const GICD_ICENABLER: u32 = 0x180;
pub(super) const GICD_ISPENDR: u32 = 0x200;
pub(super) const GICD_ICPENDR: u32 = 0x280;
pub(super) const GICD_ISACTIVER: u32 = 0x300;
pub(super) const GICD_ICACTIVER: u32 = 0x380;
pub(super) const GICD_IPRIORITYR: u32 = 0x400;
pub(super) const GICD_ITARGETSR: u32 = 0x800;
pub(super) const GICD_ICFGR: u32 = 0xc00;
/// Cortex-A15: levels of the PPIs, then of the SPIs (TRM DDI 0438 8.3.1).
pub(super) const GICD_PPISR: u32 = 0xd00;
pub(super) const GICD_SGIR: u32 = 0xf00;
pub(super) const GICD_CPENDSGIR: u32 = 0xf10;
pub(super) const GICD_SPENDSGIR: u32 = 0xf20;
pub(super) const GICD_PIDR4: u32 = 0xfd0;

/// Peripheral and component ID from 0xfd0: PIDR4-7, PIDR0-3 (GICv2), CIDR0-3.
pub(super) const DIST_ID: [u8; 12] = [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];

pub(super) const GICC_CTLR: u32 = 0x00;
pub(super) const GICC_PMR: u32 = 0x04;
pub(super) const GICC_BPR: u32 = 0x08;
pub(super) const GICC_IAR: u32 = 0x0c;
pub(super) const GICC_EOIR: u32 = 0x10;
pub(super) const GICC_RPR: u32 = 0x14;
pub(super) const GICC_HPPIR: u32 = 0x18;
pub(super) const GICC_ABPR: u32 = 0x1c;
pub(super) const GICC_AIAR: u32 = 0x20;
pub(super) const GICC_AEOIR: u32 = 0x24;
pub(super) const GICC_AHPPIR: u32 = 0x28;
pub(super) const GICC_APR: u32 = 0xd0;
pub(super) const GICC_NSAPR: u32 = 0xe0;
pub(super) const GICC_IIDR: u32 = 0xfc;
pub(super) const GICC_DIR: u32 = 0x1000;

pub(super) const CTLR_GRP0: u32 = 1 << 0;
pub(super) const CTLR_GRP1: u32 = 1 << 1;
pub(super) const CTLR_ACKCTL: u32 = 1 << 2;
pub(super) const CTLR_FIQEN: u32 = 1 << 3;
pub(super) const CTLR_CBPR: u32 = 1 << 4;
pub(super) const CTLR_EOIMODE_S: u32 = 1 << 9;
pub(super) const CTLR_EOIMODE_NS: u32 = 1 << 10;
/// Bits of GICC_CTLR, Secure view.
pub(super) const CTLR_WRITABLE: u32 = 0x7ff;
/// Bypass-disable bits of Group 1, at 8:7 in the Secure view and at 6:5 in the Non-secure one.
pub(super) const CTLR_BYPASS1: u32 = 3 << 7;
