//! The disk of a device, as its plugin uses it.

use anyhow::Context;
use reprise_device::host::Disks;
use reprise_storage::{Disk, DiskFiles, Flush, StorageError};

/// Blocks of 4 KiB that one request may need room for: a DMA transfer of 1 MiB at any offset, and discards.
const LONGEST: u64 = 1024;

/// What lies in the drive.
#[derive(Debug, Default)]
pub(crate) struct Media {
    /// Not looked at yet.
    files: Option<DiskFiles>,
    disk: Option<Disk>,
    done: Done,
}

/// What was done with it.
#[derive(Debug, Default)]
struct Done {
    reads: u64,
    bytes_read: u64,
    writes: u64,
    bytes_written: u64,
    discards: u64,
    flushes: u64,
}

impl Media {
    pub(crate) fn new(files: Option<DiskFiles>) -> Self {
        Self { files, ..Self::default() }
    }

    /// Opens the disk at the machine's start.
    pub(crate) fn open(&mut self) -> anyhow::Result<()> {
        self.disk = self.files.take().map(Disk::open).transpose()?;
        Ok(())
    }

    /// Opens the disk as it was at that checkpoint.
    pub(crate) fn recover(&mut self, generation: u64) -> anyhow::Result<()> {
        self.disk = self.files.take().map(|files| Disk::recover(files, generation)).transpose().context("recovery")?;
        Ok(())
    }

    /// A checkpoint is taken: everything up to now belongs to it.
    pub(crate) fn checkpoint(&mut self, generation: u64) -> Result<(), StorageError> {
        self.disk.as_mut().map_or(Ok(()), |d| d.checkpoint(generation))
    }

    /// The checkpoint is safe.
    pub(crate) fn release(&mut self, generation: u64) -> Result<(), StorageError> {
        self.disk.as_mut().map_or(Ok(()), |d| d.release(generation))
    }

    /// The machine has ended.
    pub(crate) fn finish(&mut self) -> Result<(), StorageError> {
        self.disk.as_mut().map_or(Ok(()), Disk::finish)
    }

    /// A checkpoint should be taken soon.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::wants_checkpoint)
    }

    /// A checkpoint must be taken before the next request.
    pub(crate) fn is_short(&self) -> bool {
        self.disk.as_ref().is_some_and(|d| d.room() < LONGEST)
    }

    /// What was done with the disk so far, by name; nothing if there is none.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let Done { reads, bytes_read, writes, bytes_written, discards, flushes } = self.done;
        if self.disk.is_none() {
            return Vec::new();
        }
        vec![
            ("reads", reads),
            ("bytes-read", bytes_read),
            ("writes", writes),
            ("bytes-written", bytes_written),
            ("discards", discards),
            ("flushes", flushes),
        ]
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Disk) -> Result<T, StorageError>) -> Result<T, String> {
        let disk = self.disk.as_mut().ok_or("there is no medium")?;
        act(disk).map_err(|e| e.to_string())
    }
}

/// A device process has one disk at most: the first.
impl Disks for Media {
    fn size(&self, disk: u32) -> Option<u64> {
        self.disk.as_ref().filter(|_| disk == 0).map(Disk::len)
    }

    fn read_only(&self, _: u32) -> bool {
        self.disk.as_ref().is_none_or(Disk::read_only)
    }

    fn read(&mut self, _: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        self.done.reads += 1;
        self.done.bytes_read += buffer.len() as u64;
        self.with(|d| d.read(offset, buffer))
    }

    fn write(&mut self, _: u32, offset: u64, data: &[u8]) -> Result<(), String> {
        self.done.writes += 1;
        self.done.bytes_written += data.len() as u64;
        self.with(|d| d.write(offset, data))
    }

    fn discard(&mut self, _: u32, offset: u64, len: u64) -> Result<(), String> {
        self.done.discards += 1;
        self.with(|d| d.discard(offset, len))
    }

    fn flush(&mut self, _: u32) -> Result<(), String> {
        self.done.flushes += 1;
        // A checkpoint that is needed is taken behind the request: `wants_checkpoint` says so.
        self.with(Disk::flush).map(|_: Flush| ())
    }

    fn unchanged(&self, _: u32, offset: u64, len: u64) -> bool {
        self.disk.as_ref().is_some_and(|d| d.unchanged(offset, len))
    }
}
