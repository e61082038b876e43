//! An image of whatever format: what was there at the machine's start, and what is written to for good.

use reprise_machine::DiskFormat;

use crate::error::{Action, StorageError};
use crate::file::DiskFile;
use crate::format::{Backing, MAX_DISK, SECTOR, qcow2_info};
use crate::qcow2::Qcow2Image;

/// An open image.
#[derive(Debug)]
pub(crate) enum Image {
    /// The disk's bytes, as they are.
    Raw(RawImage),
    /// qcow2.
    Qcow2(Box<Qcow2Image>),
}

/// A raw image.
#[derive(Debug)]
pub(crate) struct RawImage {
    file: DiskFile,
    size: u64,
}

impl Image {
    /// Opens a chain of files, the image first.
    pub(crate) fn open(mut chain: Vec<(DiskFile, DiskFormat)>, writable: bool) -> Result<Self, StorageError> {
        assert!(!chain.is_empty(), "a disk has an image");
        if chain[0].1 == DiskFormat::Qcow2 {
            return Ok(Self::Qcow2(Box::new(Qcow2Image::open(chain, writable)?)));
        }
        assert!(chain.len() == 1, "a raw image is based on nothing");
        let (file, _) = chain.remove(0);
        let size = raw_size(&file)?;
        Ok(Self::Raw(RawImage { file, size }))
    }

    /// Bytes of the disk.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Raw(raw) => raw.size,
            Self::Qcow2(image) => image.size,
        }
    }

    #[inline]
    pub(crate) fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), StorageError> {
        match self {
            Self::Raw(RawImage { file, .. }) => file.read(buf, offset).map_err(file.failed(Action::Read, offset)),
            Self::Qcow2(image) => image.read(buf, offset),
        }
    }

    #[inline]
    pub(crate) fn write(&mut self, data: &[u8], offset: u64) -> Result<(), StorageError> {
        match self {
            Self::Raw(RawImage { file, .. }) => file.write(data, offset).map_err(file.failed(Action::Write, offset)),
            Self::Qcow2(image) => image.write(data, offset),
        }
    }

    /// Makes a range read as zeros.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> Result<(), StorageError> {
        match self {
            Self::Raw(RawImage { file, .. }) => file.zero(offset, len).map_err(file.failed(Action::Zero, offset)),
            Self::Qcow2(image) => image.zero(offset, len),
        }
    }

    /// Hands everything to the host's kernel: the process may die from here on.
    pub(crate) fn settle(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Qcow2(image) => image.settle(),
        }
    }

    /// Makes everything durable.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        match self {
            Self::Raw(RawImage { file, .. }) => file.sync().map_err(file.failed(Action::Sync, 0)),
            Self::Qcow2(image) => image.sync(),
        }
    }
}

/// Bytes of the disk that an image holds, and what it is based on. Looks at the beginning of the file only.
///
/// # Errors
/// The file can't be read, or is no such image.
pub fn look(file: &DiskFile, format: DiskFormat, writable: bool) -> Result<(u64, Option<Backing>), StorageError> {
    match format {
        DiskFormat::Raw => Ok((raw_size(file)?, None)),
        DiskFormat::Qcow2 => qcow2_info(file, writable).map(|info| (info.size, info.backing)),
    }
}

/// Bytes of the disk that a raw image holds: its last sector may be cut short.
fn raw_size(file: &DiskFile) -> Result<u64, StorageError> {
    let bytes = file.size().map_err(file.failed(Action::Size, 0))?;
    if bytes == 0 || bytes > MAX_DISK {
        return Err(StorageError::Image {
            name: file.name().to_owned(),
            what: format!("a disk of {bytes} bytes is impossible: 1 byte to {} TiB", MAX_DISK >> 40),
            fix: "make it with `truncate -s SIZE`".into(),
        });
    }
    Ok(bytes.next_multiple_of(SECTOR))
}
