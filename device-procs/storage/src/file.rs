//! A file of the host that was opened by somebody else.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::crash;
use crate::error::{Action, StorageError};

/// How much is written at a time where zeros can't be had otherwise.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An inherited file, read and written by offset.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    name: String,
}

impl DiskFile {
    /// Takes a descriptor; `name` is what messages call the file.
    pub fn new(fd: OwnedFd, name: impl Into<String>) -> Self {
        Self { file: fd.into(), name: name.into() }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Wraps an error of the host.
    pub(crate) fn failed(&self, what: Action, offset: u64) -> impl FnOnce(io::Error) -> StorageError + '_ {
        move |source| StorageError::Host { name: self.name.clone(), what, offset, source }
    }

    /// Its size in bytes; a block device has one too.
    pub(crate) fn size(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// Reads; what lies beyond the end of the file is zero.
    pub(crate) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.file.read_at(buf, offset) {
                Ok(0) => {
                    buf.fill(0);
                    return Ok(());
                }
                Ok(n) => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes; a file that ends before grows.
    pub(crate) fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let whole = crash::file_write(offset, data.len());
        self.file.write_all_at(&data[..whole], offset)?;
        crash::check(whole < data.len())
    }

    /// Makes a range read as zeros, and gives its space back if the file system can do that. The file does not grow.
    pub(crate) fn zero(&self, mut offset: u64, len: u64) -> io::Result<()> {
        crash::check(crash::file_write(offset, 1) < 1)?;
        if len == 0 || self.punch(offset, len)? {
            return Ok(());
        }
        let end = self.size()?.min(offset.saturating_add(len));
        while offset < end {
            let n = (end - offset).min(ZEROS.len() as u64);
            self.write(&ZEROS[..n as usize], offset)?;
            offset += n;
        }
        Ok(())
    }

    /// Makes a hole, if the file system has them.
    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        loop {
            // SAFETY: the call takes numbers only.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset as i64, len as i64) } == 0 {
                return Ok(true);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => return Ok(false),
                _ => return Err(error),
            }
        }
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        crash::check(crash::file_write(0, 1) < 1)?;
        self.file.sync_data()
    }
}
