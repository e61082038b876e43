//! What is in memory before the first instruction, and what is in the registers.
//!
//! Linux is booted as `Documentation/arch/arm/booting.rst` of the kernel asks: MMU and caches off, all interrupts masked, SVC mode, r0 = 0,
//! r1 = machine number, r2 = address of the device tree. The places are those that are safe for a zImage that unpacks itself to the start of
//! RAM: the kernel at RAM + 64 KiB, the initial RAM disk from the middle of RAM (128 MiB at most), the device tree behind it.

mod elf;
mod fdt;
mod generate;
mod panel;
mod secondary;

pub use fdt::{text, trim};
pub use generate::generate;
pub(crate) use generate::unbound;

use crate::machine::{Boot, Device, ImageBoot, LineTarget, LinuxBoot, Machine};

/// The most bytes a device tree may have, before and after patching.
pub const MAX_DTB: usize = 2 << 20;
/// What the patched device tree and the initial RAM disk are aligned to.
const ALIGN: u64 = 64 << 10;
/// Where a zImage goes, from the RAM's base.
const KERNEL_OFFSET: u64 = 0x1_0000;
/// Where code without any header goes: TEXT_OFFSET of the kernel.
const CODE_OFFSET: u64 = 0x8000;
const ELF_MAGIC: &[u8] = b"\x7fELF";
/// The initial RAM disk goes to the middle of RAM, but no further up than this: the kernel finds it in low memory.
const INITRD_OFFSET: u64 = 128 << 20;
/// CPSR at the start: SVC mode, A, I and F masked, A32, little-endian.
const CPSR: u32 = 0x1d3;
/// CPSR.T.
const CPSR_T: u32 = 1 << 5;

/// The bytes of the images that a machine's [`Boot`] names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Images<'a> {
    /// The kernel, or the bare-metal image.
    pub kernel: &'a [u8],
    /// The device tree blob.
    pub dtb: &'a [u8],
    /// The initial RAM disk, if there is one.
    pub initrd: Option<&'a [u8]>,
}

/// Memory contents and initial registers. All other registers and all other RAM are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What lies where: (guest physical address, bytes), apart from each other and inside RAM.
    pub loads: Vec<(u64, Vec<u8>)>,
    /// Initial registers of core 0.
    pub regs: InitialRegs,
    /// Those of the other cores, where they are on at the start (no `cpu.psci`). Under Linux they start in a few instructions of their own at the start of RAM, in which they wait to be
    /// released; a bare-metal image gets all cores at its entry, as a reset would bring them, and tells them apart by MPIDR.
    pub secondary: InitialRegs,
}

impl Plan {
    /// The device tree that a kernel gets.
    pub fn dtb(&self) -> Option<&[u8]> {
        let at = u64::from(self.regs.r[2]);
        self.loads.iter().find(|(a, _)| at != 0 && *a == at).map(|(_, bytes)| bytes.as_slice())
    }
}

/// The CPU's registers at the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InitialRegs {
    /// r0 to r2; the others are zero.
    pub r: [u32; 3],
    /// Address of the first instruction, bit 0 clear.
    pub pc: u32,
    /// SVC mode, A, I and F masked, T as the entry says.
    pub cpsr: u32,
    /// The CPU starts in Secure state (SCR.NS = 0), which it has only with the Security Extensions.
    pub secure: bool,
}

/// The part of a boot that is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel or bare-metal image.
    Kernel,
    /// The device tree.
    Dtb,
    /// The initial RAM disk.
    Initrd,
    /// The kernel's command line.
    Append,
    /// The RAM, which is too small.
    Memory,
}

/// Why a machine can't boot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct BootError {
    /// What it is about.
    pub part: Part,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

pub(crate) fn error<T>(part: Part, what: impl Into<String>, fix: impl Into<String>) -> Result<T, BootError> {
    Err(BootError { part, what: what.into(), fix: fix.into() })
}

/// Lays out the images. The same machine and images always give the same plan.
///
/// # Errors
/// An image is not what it should be, or RAM can't hold them all.
pub fn plan(machine: &Machine, images: &Images<'_>) -> Result<Plan, BootError> {
    match &machine.boot {
        Boot::Linux(linux) => plan_linux(machine, linux, images),
        Boot::Image(image) => plan_image(machine, image, images.kernel),
    }
}

fn align_up(at: u64) -> u64 {
    at.next_multiple_of(ALIGN)
}

/// Is this a zImage (`Documentation/arch/arm/booting.rst`; the header is in `arch/arm/boot/compressed/head.S`)?
fn is_zimage(kernel: &[u8]) -> bool {
    word(kernel, 0x24) == Some(0x016f_2818)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes")))
}

const KERNEL_FIX: &str = "give a 32-bit ARM zImage, as arch/arm/boot/zImage of a kernel build or /boot/vmlinuz-* of an armhf system, an ELF file or code";

/// A zImage has to be whole.
fn check_zimage(kernel: &[u8]) -> Result<(), BootError> {
    let (start, end) = (word(kernel, 0x28).unwrap_or(0), word(kernel, 0x2c).unwrap_or(0));
    let size = end.wrapping_sub(start) as usize;
    if end < start || kernel.len() < size {
        let what = format!("the zImage is cut short: it has {} bytes and says {size}", kernel.len());
        return error(Part::Kernel, what, KERNEL_FIX);
    }
    Ok(())
}

/// Any bytes can be code; these are surely something else.
fn check_code(kernel: &[u8]) -> Result<(), BootError> {
    let looks = match kernel {
        [] => "it is empty",
        [0x27, 0x05, 0x19, 0x56, ..] => "it is a U-Boot image",
        [0x1f, 0x8b, ..] => "it is a gzip file",
        _ if kernel.get(0x38..0x3c) == Some(b"ARM\x64") => "it is a 64-bit ARM image",
        _ if kernel.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => "it is text",
        _ => return Ok(()),
    };
    error(Part::Kernel, format!("the kernel is no zImage: {looks}"), KERNEL_FIX)
}

/// What goes into memory, and the entry, bit 0 set for Thumb.
type Placed = (Vec<(u64, Vec<u8>)>, u64);

/// Where a kernel goes. A zImage unpacks itself from where it is; an ELF file says it itself; plain code goes where an uncompressed kernel
/// (`arch/arm/boot/Image`) expects to be.
fn place_kernel(base: u64, kernel: &[u8]) -> Result<Placed, BootError> {
    if is_zimage(kernel) {
        check_zimage(kernel)?;
        let at = base + KERNEL_OFFSET;
        return Ok((vec![(at, kernel.to_vec())], at));
    }
    if kernel.starts_with(ELF_MAGIC) {
        return elf::segments(kernel);
    }
    check_code(kernel)?;
    let at = base + CODE_OFFSET;
    Ok((vec![(at, kernel.to_vec())], at))
}

/// Sorts loads by address. They lie in RAM, apart from each other, and the entry too.
fn check_placed(machine: &Machine, (loads, entry): &mut Placed) -> Result<(), BootError> {
    let (base, end) = (machine.memory.base, machine.memory.base + machine.memory.size);
    let fix = || format!("RAM lies at {base:#x} to {:#x}", end - 1);
    for (at, bytes) in &*loads {
        if *at < base || at.checked_add(bytes.len() as u64).is_none_or(|e| e > end) {
            let what = format!("the image has {} bytes for {at:#x}, which is not all RAM", bytes.len());
            return error(Part::Kernel, what, fix());
        }
    }
    loads.sort_by_key(|(at, _)| *at);
    if loads.windows(2).any(|w| w[0].0 + w[0].1.len() as u64 > w[1].0) {
        return error(Part::Kernel, "the image's segments overlap", "link it again");
    }
    if *entry < base || *entry >= end {
        return error(Part::Kernel, format!("the entry {entry:#x} is not in RAM"), fix());
    }
    Ok(())
}

/// Registers at an entry whose bit 0 says Thumb.
fn registers(machine: &Machine, r: [u32; 3], entry: u64) -> InitialRegs {
    let cpsr = if entry & 1 == 1 { CPSR | CPSR_T } else { CPSR };
    InitialRegs { r, pc: entry as u32 & !1, cpsr, secure: machine.cpu.security }
}

fn plan_linux(machine: &Machine, linux: &LinuxBoot, images: &Images<'_>) -> Result<Plan, BootError> {
    let (base, size) = (machine.memory.base, machine.memory.size);
    let end = base + size;
    let mut placed = place_kernel(base, images.kernel)?;
    let kernel_end = placed.0.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(base);
    let initrd_at = align_up((base + (size / 2).min(INITRD_OFFSET)).max(kernel_end));
    let initrd_end = initrd_at + images.initrd.map_or(0, |i| i.len() as u64);
    let dtb_at = align_up(initrd_end);
    let change = fdt::Change {
        memory: (base, size),
        reserve: linux.release.map(|_| (base, secondary::RESERVED)),
        bootargs: (!linux.append.is_empty()).then_some(linux.append.as_str()),
        initrd: images.initrd.map(|_| (initrd_at, initrd_end)),
        virtio: virtio_devices(machine),
        panels: machine.devices.iter().filter_map(|d| Some((d.at, d.panel?))).collect(),
    };
    let dtb = fdt::patch(images.dtb, &change)?;
    // An image that names its own places may lie outside RAM for more reasons than RAM's size.
    if images.kernel.starts_with(ELF_MAGIC) {
        check_placed(machine, &mut placed)?;
    }
    if dtb_at + dtb.len() as u64 > end {
        let need = (dtb_at + dtb.len() as u64 - base).next_multiple_of(1 << 20) >> 20;
        return error(
            Part::Memory,
            format!("RAM of {} MiB can't hold the boot images", size >> 20),
            format!("give at least {} MiB", need.max(16)),
        );
    }
    let (mut loads, entry) = placed;
    if linux.release.is_some() && loads.iter().any(|(at, _)| *at < base + secondary::RESERVED) {
        let what = format!("the kernel lies on the first {} bytes of RAM", secondary::RESERVED);
        return error(Part::Kernel, what, "the other cores wait there: link it elsewhere, or take one core");
    }
    let stub = linux.release.map(|at| (base, secondary::stub(machine.gic_cpu().0 as u32, at as u32)));
    loads.splice(0..0, stub);
    loads.extend(images.initrd.map(|i| (initrd_at, i.to_vec())));
    loads.push((dtb_at, dtb));
    let regs = registers(machine, [0, linux.machine_id, dtb_at as u32], entry);
    let secondary = registers(machine, [0; 3], base);
    Ok(Plan { loads, regs, secondary })
}

/// The virtio devices of a machine: (first address, size, SPI).
fn virtio_devices(machine: &Machine) -> Vec<(u64, u64, u32)> {
    let place = |d: &Device| {
        let spi = d.lines.iter().find_map(|l| match l.to {
            LineTarget::Spi(n) => Some(n),
            _ => None,
        });
        Some((d.at, d.size, spi?))
    };
    machine.devices.iter().filter(|d| d.plugin.starts_with("virtio-")).filter_map(place).collect()
}

fn plan_image(machine: &Machine, image: &ImageBoot, bytes: &[u8]) -> Result<Plan, BootError> {
    let mut placed = if bytes.starts_with(ELF_MAGIC) {
        if image.load.is_some() {
            return error(Part::Kernel, "the image is an ELF file, which says itself where it goes", "remove `load`");
        }
        elf::segments(bytes)?
    } else if bytes.is_empty() {
        return error(Part::Kernel, "the image is empty", "give an ELF file or raw code");
    } else {
        let at = image.load.unwrap_or(machine.memory.base);
        (vec![(at, bytes.to_vec())], at)
    };
    placed.1 = image.entry.unwrap_or(placed.1);
    check_placed(machine, &mut placed)?;
    let (loads, entry) = placed;
    let regs = registers(machine, [0; 3], entry);
    Ok(Plan { loads, regs, secondary: regs })
}
