//! Files that become memory: boot images, plugins, guest RAM. All of it travels to the children as sealed memfds.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_child::control::BootLoad;
use reprise_machine::boot::{self, Images, InitialRegs, Plan};
use reprise_machine::{Boot, ConfigError, Machine, Spans};

/// The largest boot image.
const MAX_IMAGE: u64 = 1 << 30;

/// The bytes of a machine's boot images, with their names in a recording.
#[derive(Debug, Default)]
pub(crate) struct BootFiles {
    /// (name, bytes): `kernel`, `dtb`, `initrd`.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl BootFiles {
    /// Reads what a machine's `boot` names.
    pub(crate) fn read(machine: &Machine, spans: &Spans) -> Result<Self, ConfigError> {
        let mut files = Vec::new();
        match &machine.boot {
            Boot::Linux(linux) => {
                files.push(("kernel".into(), read(&linux.kernel).map_err(|e| spans.kernel(e, FIX))?));
                // A recording holds the tree as it is then, so that a replay needs neither the generator nor the trimming.
                let dtb = match &linux.dtb {
                    Some(path) => {
                        let given = read(path).map_err(|e| spans.dtb(e, FIX))?;
                        boot::trim(&given, machine.cpu.count)
                    }
                    None => boot::generate(machine),
                };
                files.push(("dtb".into(), dtb.map_err(|e| spans.boot(&e))?));
                if let Some(initrd) = &linux.initrd {
                    files.push(("initrd".into(), read(initrd).map_err(|e| spans.initrd(e, FIX))?));
                }
            }
            Boot::Image(image) => files.push(("kernel".into(), read(&image.file).map_err(|e| spans.kernel(e, FIX))?)),
        }
        Ok(Self { files })
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Lays them out.
    pub(crate) fn plan(&self, machine: &Machine) -> Result<Plan, boot::BootError> {
        let none = &[][..];
        let images = Images {
            kernel: self.get("kernel").unwrap_or(none),
            dtb: self.get("dtb").unwrap_or(none),
            initrd: self.get("initrd"),
        };
        boot::plan(machine, &images)
    }
}

const FIX: &str = "give a file that can be read";

/// Reads a file that should be a regular one.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let why = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(why)?;
    let meta = file.metadata().map_err(why)?;
    if !meta.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if meta.len() > MAX_IMAGE {
        return Err(format!("{} is larger than 1 GiB", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE).read_to_end(&mut bytes).map_err(why)?;
    Ok(bytes)
}

/// What lies in RAM at the start, in a memfd.
#[derive(Debug)]
pub(crate) struct BootImage {
    fd: OwnedFd,
    /// What goes where.
    pub(crate) loads: Vec<BootLoad>,
    /// Initial registers of core 0.
    pub(crate) regs: InitialRegs,
    /// Those of the other cores.
    pub(crate) secondary: InitialRegs,
}

impl AsFd for BootImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl BootImage {
    pub(crate) fn new(plan: &Plan) -> anyhow::Result<Self> {
        let pieces: Vec<&[u8]> = plan.loads.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let fd = sealed("reprise-boot", &pieces)?;
        let mut offset = 0;
        let load = |(at, bytes): &(u64, Vec<u8>)| {
            let len = bytes.len() as u64;
            offset += len;
            BootLoad { at: *at, offset: offset - len, len }
        };
        Ok(Self { fd, loads: plan.loads.iter().map(load).collect(), regs: plan.regs, secondary: plan.secondary })
    }
}

/// A memfd with these bytes, which nobody can change any more.
pub(crate) fn sealed(name: &str, pieces: &[&[u8]]) -> anyhow::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).context("memfd_create")?;
    let mut file = File::from(fd);
    for piece in pieces {
        file.write_all(piece).context("writing a memfd: is there enough memory?")?;
    }
    // Whoever inherits it has this same offset.
    file.rewind().context("rewinding a memfd")?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("sealing a memfd")?;
    Ok(file.into())
}

/// Guest RAM: zeroed, of a fixed size.
pub(crate) fn guest_ram(bytes: u64) -> anyhow::Result<OwnedFd> {
    zeroed("reprise-ram", bytes).context("the guest's RAM")
}

/// A memfd of zeros, of a fixed size.
pub(crate) fn zeroed(name: &str, bytes: u64) -> anyhow::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).context("memfd_create")?;
    nix::unistd::ftruncate(&fd, bytes as i64).context("sizing a memfd")?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).context("sealing a memfd")?;
    Ok(fd)
}
