//! A disk of a device.

use std::os::fd::OwnedFd;

use reprise_child::control::{DiskMode, DiskStart, Fd};
use reprise_machine::DiskFormat;

use crate::base::{BLOCK, Base};
use crate::bits;
use crate::error::StorageError;
use crate::file::DiskFile;
use crate::image::Image;
use crate::memory::Words;

/// The open files of a disk, before anything in them is looked at.
#[derive(Debug)]
pub struct DiskFiles {
    pub(crate) name: String,
    pub(crate) images: Vec<(DiskFile, DiskFormat)>,
    pub(crate) mode: DiskMode,
    pub(crate) overlay: Option<DiskFile>,
}

impl DiskFiles {
    /// Takes the descriptors that a start message names; `own` makes them this process's own. To be called before the sandbox, as it maps the
    /// journal; everything else happens in it.
    ///
    /// # Errors
    /// The message makes no sense, or the journal can't be mapped.
    pub fn new(start: &DiskStart, own: impl Fn(Fd) -> OwnedFd) -> Result<Self, StorageError> {
        let wrong = |what: &str| StorageError::Image {
            name: start.name.clone(),
            what: format!("the start message {what}"),
            fix: "this is a fault of the supervisor".into(),
        };
        let images: Vec<_> = start.images.iter().map(|i| (DiskFile::new(own(i.fd), &i.name), i.format)).collect();
        let overlay = start.overlay.map(|fd| DiskFile::new(own(fd), format!("{} (overlay)", start.name)));
        if images.is_empty() || images[..images.len() - 1].iter().any(|(_, format)| *format == DiskFormat::Raw) {
            return Err(wrong("names no images that fit together"));
        }
        if overlay.is_some() != (start.mode == DiskMode::Snapshot) {
            return Err(wrong("has no overlay where one is wanted"));
        }
        Ok(Self { name: start.name.clone(), images, mode: start.mode, overlay })
    }
}

/// Whether what a guest wants to be durable is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flush {
    /// It is.
    Done,
    /// It will be once a checkpoint is taken and released; take one soon.
    NeedsCheckpoint,
}

/// A disk of a device: a function of the image at the machine's start and of what the device has written since.
///
/// Offsets and lengths are in bytes, of any alignment. A device must check what its guest asks for: a range beyond the end, or a write to a
/// read-only disk, is an error of the device.
#[derive(Debug)]
pub struct Disk {
    name: String,
    mode: DiskMode,
    size: u64,
    base: Base,
}

impl Disk {
    /// Opens a disk at the machine's start.
    ///
    /// # Errors
    /// An image is not what it should be, or can't be read.
    pub fn open(files: DiskFiles) -> Result<Self, StorageError> {
        let image = Image::open(files.images, files.mode == DiskMode::Writable)?;
        let size = image.size();
        let changed = Words::Own(vec![0; bits::words(size.div_ceil(BLOCK))]);
        let base = Base::new(image, files.overlay, changed);
        Ok(Self { name: files.name, mode: files.mode, size, base })
    }

    /// Its size in bytes, a multiple of 512; never 0. A raw image's tail is padded with zeros.
    #[allow(clippy::len_without_is_empty, reason = "no disk is empty")]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// It can't be written.
    pub fn read_only(&self) -> bool {
        self.mode == DiskMode::ReadOnly
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(StorageError::OutOfRange { name: self.name.clone(), offset, len, size: self.size });
        }
        Ok(())
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        if self.read_only() {
            return Err(StorageError::ReadOnly { name: self.name.clone() });
        }
        self.check(offset, len)
    }

    /// Reads.
    ///
    /// # Errors
    /// The range is not on the disk, or the host fails.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), StorageError> {
        self.check(offset, buf.len() as u64)?;
        self.base.read(buf, offset)
    }

    /// Writes.
    ///
    /// # Errors
    /// The range is not on the disk, the disk is read-only, or the host fails.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.check_write(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        self.base.write(data, offset)
    }

    /// Gives a range back: it reads as zeros from then on.
    ///
    /// # Errors
    /// As for [`Disk::write`].
    pub fn discard(&mut self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.check_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.base.zero(offset, len)
    }

    /// Makes what was written durable, as far as it lives longer than the machine.
    ///
    /// # Errors
    /// The host fails.
    pub fn flush(&mut self) -> Result<Flush, StorageError> {
        self.base.sync()?;
        Ok(Flush::Done)
    }

    /// All of the range is still as in the image at the machine's start: none of its 4 KiB blocks was written or discarded since. A function of
    /// what the device did, like the contents. A range that is not on the disk counts as changed.
    pub fn unchanged(&self, offset: u64, len: u64) -> bool {
        if self.check(offset, len).is_err() {
            return false;
        }
        let first = offset / BLOCK;
        len == 0 || bits::none(&self.base.changed, first, (offset + len).div_ceil(BLOCK) - first)
    }
}
