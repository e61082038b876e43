//! A disk of a device.

use std::os::fd::OwnedFd;

use reprise_child::control::{DiskMode, DiskStart, Fd};
use reprise_machine::DiskFormat;

use crate::base::{BLOCK, Base};
use crate::bits;
use crate::error::StorageError;
use crate::file::DiskFile;
use crate::image::Image;
use crate::journal::{Journal, Memory};
use crate::memory::Words;

/// The open files of a disk, before anything in them is looked at.
#[derive(Debug)]
pub struct DiskFiles {
    pub(crate) name: String,
    pub(crate) images: Vec<(DiskFile, DiskFormat)>,
    pub(crate) mode: DiskMode,
    pub(crate) overlay: Option<DiskFile>,
    pub(crate) journal: Option<Memory>,
}

impl DiskFiles {
    /// The files of a disk that is only looked at: the image, then what it is based on.
    pub fn to_read(name: &str, images: Vec<(DiskFile, DiskFormat)>) -> Self {
        Self { name: name.to_owned(), images, mode: DiskMode::ReadOnly, overlay: None, journal: None }
    }

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
        let journal = start.journal.map(|j| {
            let file = DiskFile::new(own(j.fd), format!("{} (journal)", start.name));
            Memory::map(&file, j.slots)
        });
        if images.is_empty() || images[..images.len() - 1].iter().any(|(_, format)| *format == DiskFormat::Raw) {
            return Err(wrong("names no images that fit together"));
        }
        if overlay.is_some() != (start.mode == DiskMode::Snapshot) {
            return Err(wrong("has no overlay where one is wanted"));
        }
        Ok(Self { name: start.name.clone(), images, mode: start.mode, overlay, journal: journal.transpose()? })
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
    journal: Option<Journal>,
    /// With a journal: the blocks that changed, what it holds included.
    changed: Vec<u64>,
}

impl Disk {
    /// Opens a disk at the machine's start.
    ///
    /// # Errors
    /// An image is not what it should be, or can't be read; or the journal is not empty.
    pub fn open(files: DiskFiles) -> Result<Self, StorageError> {
        Self::start(files, Journal::create)
    }

    /// Opens a disk whose process has died, as it was when the checkpoint `generation` was taken; 0 is the machine's start. What belongs to
    /// that checkpoint is folded into the image, what came later is forgotten. May be repeated if it fails, or if the process dies in it.
    ///
    /// # Errors
    /// As for [`Disk::open`]; or the journal is damaged, or the host fails.
    pub fn recover(files: DiskFiles, generation: u64) -> Result<Self, StorageError> {
        let recover = |name: &str, memory, size| Journal::recover(name, memory, size, generation);
        let mut disk = Self::start(files, recover)?;
        if let Some(journal) = &mut disk.journal {
            journal.release(&mut disk.base, generation)?;
            // Nobody knows how much of what the dead process has written is durable.
            disk.base.sync_all()?;
            let words = disk.changed.len();
            disk.changed.copy_from_slice(&disk.base.changed[..words]);
        }
        Ok(disk)
    }

    fn start(
        files: DiskFiles,
        journal: impl FnOnce(&str, Memory, u64) -> Result<Journal, StorageError>,
    ) -> Result<Self, StorageError> {
        let writable = files.mode == DiskMode::Writable;
        let image = Image::open(files.images, writable)?;
        let size = image.size();
        let words = bits::words(size.div_ceil(BLOCK));
        let mut disk = Self {
            name: files.name,
            mode: files.mode,
            size,
            base: Base::new(image, writable, files.overlay, Words::Own(Vec::new())),
            journal: None,
            changed: Vec::new(),
        };
        match files.journal {
            None => disk.base.changed = Words::Own(vec![0; words]),
            Some(mut memory) => {
                let Some(shared) = memory.changed.take().filter(|m| m.words() >= words) else {
                    let what = "it is too small for the disk".into();
                    return Err(StorageError::Journal { name: disk.name, what });
                };
                disk.base.changed = Words::Shared(shared);
                disk.journal = Some(journal(&disk.name, memory, size)?);
                disk.changed = vec![0; words];
            }
        }
        Ok(disk)
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
        match &self.journal {
            None => self.base.read(buf, offset),
            Some(journal) => journal.read(&mut self.base, buf, offset),
        }
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
        match &mut self.journal {
            None => self.base.write(data, offset)?,
            Some(journal) => journal.write(&mut self.base, offset, data)?,
        }
        self.mark(offset, data.len() as u64);
        Ok(())
    }

    fn mark(&mut self, offset: u64, len: u64) {
        if self.journal.is_some() {
            let first = offset / BLOCK;
            bits::set(&mut self.changed, first, (offset + len).div_ceil(BLOCK) - first);
        }
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
        match &mut self.journal {
            None => self.base.zero(offset, len)?,
            Some(journal) => journal.discard(&mut self.base, offset, len)?,
        }
        self.mark(offset, len);
        Ok(())
    }

    /// The guest wants what it has written to be durable.
    ///
    /// # Errors
    /// The host fails.
    pub fn flush(&mut self) -> Result<Flush, StorageError> {
        if self.mode != DiskMode::Writable {
            return Ok(Flush::Done);
        }
        if self.journal.as_mut().is_some_and(Journal::flush) {
            return Ok(Flush::NeedsCheckpoint);
        }
        self.base.sync()?;
        Ok(Flush::Done)
    }

    /// A checkpoint should be taken soon: a guest waits for durable data, or the journal fills up.
    pub fn wants_checkpoint(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::wants_checkpoint)
    }

    /// How many blocks of 4 KiB can be written before the journal is full; a discard counts as three. The owner gives the device no request that
    /// may need more, but takes a checkpoint and waits until it can be released.
    pub fn room(&self) -> u64 {
        self.journal.as_ref().map_or(u64::MAX, Journal::room)
    }

    /// The device's state is being saved under this number, greater than all before: what was written up to now belongs to it. The state must be
    /// taken at the same point between two steps.
    ///
    /// # Errors
    /// The number does not rise, or too many checkpoints wait for their release.
    pub fn checkpoint(&mut self, generation: u64) -> Result<(), StorageError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.seal(generation))
    }

    /// The saved state of this number, and so every one before, is where it outlives the process: from now on no older one is asked for. What belongs
    /// to them goes to its place. May be repeated if it fails.
    ///
    /// # Errors
    /// The host fails.
    pub fn release(&mut self, generation: u64) -> Result<(), StorageError> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.release(&mut self.base, generation))
    }

    /// The machine has ended: everything goes to its place, and in the image becomes durable. May be repeated if it fails. After this has begun, the only state
    /// that [`Disk::recover`] can go back to is that of the last write.
    ///
    /// # Errors
    /// The host fails.
    pub fn finish(&mut self) -> Result<(), StorageError> {
        if let Some(journal) = self.journal.as_mut().filter(|j| !j.is_empty()) {
            if journal.has_open() {
                // Those that wait for their release make room for one more.
                journal.release(&mut self.base, u64::MAX)?;
                journal.seal(journal.generation() + 1)?;
            }
            journal.release(&mut self.base, u64::MAX)?;
        }
        self.base.sync()
    }

    /// All of the range is still as in the image at the machine's start: none of its 4 KiB blocks was written or discarded since. A function of
    /// what the device did, like the contents. A range that is not on the disk counts as changed.
    pub fn unchanged(&self, offset: u64, len: u64) -> bool {
        if self.check(offset, len).is_err() {
            return false;
        }
        let first = offset / BLOCK;
        let changed: &[u64] = if self.journal.is_some() { &self.changed } else { &self.base.changed };
        len == 0 || bits::none(changed, first, (offset + len).div_ceil(BLOCK) - first)
    }
}
