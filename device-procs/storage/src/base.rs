//! Where writes go for good: into the image, or beside it.

use crate::bits;
use crate::error::{Action, StorageError};
use crate::file::DiskFile;
use crate::image::Image;
use crate::memory::Words;

/// The unit in which changes are counted and journaled, in bytes.
pub const BLOCK: u64 = 4096;

/// The disk without its journal.
#[derive(Debug)]
pub(crate) struct Base {
    image: Image,
    /// Blocks that are no longer as in the image at the machine's start.
    pub(crate) changed: Words,
    /// `snapshot=on`: the blocks that changed, at their places.
    overlay: Option<DiskFile>,
    /// Writes go to the image.
    writable: bool,
    /// The image has what is not durable yet.
    dirty: bool,
    scratch: Box<[u8]>,
}

impl Base {
    pub(crate) fn new(image: Image, writable: bool, overlay: Option<DiskFile>, changed: Words) -> Self {
        Self { image, changed, overlay, writable, dirty: false, scratch: vec![0; BLOCK as usize].into() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.image.size()
    }

    /// Reads; the range lies on the disk.
    pub(crate) fn read(&mut self, mut buf: &mut [u8], mut offset: u64) -> Result<(), StorageError> {
        let Some(overlay) = &self.overlay else { return self.image.read(buf, offset) };
        while !buf.is_empty() {
            let end = (offset + buf.len() as u64).div_ceil(BLOCK);
            let first = offset / BLOCK;
            let run = (first + bits::run(&self.changed, first, end - first)) * BLOCK - offset;
            let (piece, rest) = buf.split_at_mut((buf.len() as u64).min(run) as usize);
            if bits::has(&self.changed, first) {
                overlay.read(piece, offset).map_err(overlay.failed(Action::Read, offset))?;
            } else {
                self.image.read(piece, offset)?;
            }
            offset += piece.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    /// Writes; the range lies on the disk.
    pub(crate) fn write(&mut self, data: &[u8], offset: u64) -> Result<(), StorageError> {
        self.prepare(offset, data.len() as u64)?;
        match &self.overlay {
            None => self.image.write(data, offset)?,
            Some(overlay) => overlay.write(data, offset).map_err(overlay.failed(Action::Write, offset))?,
        }
        self.mark(offset, data.len() as u64);
        Ok(())
    }

    /// Makes a range read as zeros; it lies on the disk.
    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.prepare(offset, len)?;
        match &self.overlay {
            None => self.image.zero(offset, len)?,
            Some(overlay) => overlay.zero(offset, len).map_err(overlay.failed(Action::Zero, offset))?,
        }
        self.mark(offset, len);
        Ok(())
    }

    /// Blocks of the overlay that a change leaves in part as they were must be there as a whole.
    fn prepare(&mut self, offset: u64, len: u64) -> Result<(), StorageError> {
        let end = offset + len;
        if self.overlay.is_none() || len == 0 {
            return Ok(());
        }
        if offset % BLOCK != 0 {
            self.copy_up(offset / BLOCK)?;
        }
        if end % BLOCK != 0 && end != self.size() {
            self.copy_up(end / BLOCK)?;
        }
        Ok(())
    }

    fn copy_up(&mut self, block: u64) -> Result<(), StorageError> {
        let Some(overlay) = self.overlay.as_ref().filter(|_| !bits::has(&self.changed, block)) else { return Ok(()) };
        let at = block * BLOCK;
        let piece = &mut self.scratch[..(self.image.size() - at).min(BLOCK) as usize];
        self.image.read(piece, at)?;
        overlay.write(piece, at).map_err(overlay.failed(Action::Write, at))?;
        bits::set(&mut self.changed, block, 1);
        Ok(())
    }

    /// What is written to the overlay counts only from here on.
    fn mark(&mut self, offset: u64, len: u64) {
        let first = offset / BLOCK;
        bits::set(&mut self.changed, first, (offset + len).div_ceil(BLOCK) - first);
        self.dirty = true;
    }

    /// Hands everything to the host's kernel: the process may die from here on.
    pub(crate) fn settle(&mut self) -> Result<(), StorageError> {
        if self.writable { self.image.settle() } else { Ok(()) }
    }

    /// Makes everything durable, whoever wrote it.
    pub(crate) fn sync_all(&mut self) -> Result<(), StorageError> {
        self.dirty = self.writable;
        self.sync()
    }

    /// Makes everything durable that should be.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if self.writable && self.dirty {
            self.image.sync()?;
        }
        self.dirty = false;
        Ok(())
    }
}
