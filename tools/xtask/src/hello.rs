//! Assembles the programs for ARM that the repository carries as images: the bare-metal guests `hello`, `smp` and `psci`, and the oracle's harness for qemu-arm.

use crate::paths;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cross compiler that assembles and links it.
pub const CC: &str = "arm-linux-gnueabihf-gcc";

/// The image that the repository carries, so that nobody needs the cross compiler to run it.
pub fn image() -> PathBuf {
    paths::root().join("configs/images/hello.elf")
}

/// Assembles and links `tests/guests/hello/hello.S` to `out`.
///
/// # Errors
/// No cross compiler, or it refuses the source.
pub fn build(out: &Path) -> Result<()> {
    assemble("tests/guests/hello/hello.S", 0x8001_0000, out)
}

/// The image for the virt board that the repository carries.
pub fn psci_image() -> PathBuf {
    paths::root().join("configs/images/psci.elf")
}

/// Assembles and links `tests/guests/psci/psci.S` to `out`.
///
/// # Errors
/// As [`build`].
pub fn build_psci(out: &Path) -> Result<()> {
    assemble("tests/guests/psci/psci.S", 0x4010_0000, out)
}

/// Assembles all images anew, in place.
///
/// # Errors
/// As [`build`].
pub fn build_all() -> Result<()> {
    build(&image())?;
    build_psci(&psci_image())?;
    assemble("tests/guests/smp/smp.S", 0x8001_0000, &paths::root().join("configs/images/smp.elf"))?;
    assemble("tests/oracle/harness/harness.S", 0x8040_0000, &paths::root().join("tests/oracle/harness/harness.elf"))
}

fn assemble(source: &str, at: u32, out: &Path) -> Result<()> {
    ensure!(paths::tool(CC).is_some(), "assembling {source} needs {CC}: install the package gcc-arm-linux-gnueabihf");
    let status = Command::new(CC)
        .args(["-nostdlib", "-static"])
        .arg(format!("-Wl,-Ttext={at:#x},--build-id=none,-n,-s,-e,_start,-z,noexecstack"))
        .arg("-o")
        .arg(out)
        .arg(paths::root().join(source))
        .status()
        .with_context(|| format!("starting {CC}"))?;
    ensure!(status.success(), "{CC} refused {source} ({status})");
    Ok(())
}

/// The bytes that a loader of `elf` puts into memory: address and content of its first loadable segment.
///
/// # Errors
/// Not a 32-bit little-endian ELF file with such a segment.
pub fn segment(elf: &[u8]) -> Result<(u32, &[u8])> {
    let word = |at: usize| elf.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    ensure!(elf.starts_with(b"\x7fELF\x01\x01"), "not a 32-bit little-endian ELF file");
    let headers = word(28).context("cut short")? as usize;
    let (kind, offset, addr, size) = (
        word(headers),
        word(headers + 4),
        word(headers + 12).context("cut short")?,
        word(headers + 16).context("cut short")?,
    );
    ensure!(kind == Some(1), "the first program header is not PT_LOAD");
    let offset = offset.context("cut short")? as usize;
    let bytes = elf.get(offset..offset + size as usize).context("the segment leaves the file")?;
    Ok((addr, bytes))
}
