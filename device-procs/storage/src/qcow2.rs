//! qcow2 images and their backing chains, by way of `imago`.

use std::fmt;
use std::io;
use std::sync::Arc;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Storage};
use reprise_machine::DiskFormat;

use crate::error::{Action, StorageError};
use crate::file::DiskFile;
use crate::format::qcow2_info;

/// A file as `imago` wants it. It opens nothing: all it has was given to it.
struct Layer {
    file: Arc<DiskFile>,
    helper: CommonStorageHelper,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.file, f)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.name())
    }
}

impl Storage for Layer {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut piece in bufv.into_inner() {
            self.file.read(&mut piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        for piece in bufv.into_inner() {
            self.file.write(&piece, offset)?;
            offset = offset.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.zero(offset, length)
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.zero(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    fn resize(&self, _: u64, _: PreallocateMode) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open qcow2 image.
pub(crate) struct Qcow2Image {
    access: FormatAccess<Layer>,
    file: Arc<DiskFile>,
    /// Bytes of the disk.
    pub(crate) size: u64,
}

impl fmt::Debug for Qcow2Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2Image").field("file", &self.file).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Qcow2Image {
    /// Opens an image and the files that it is based on, in the order in which they name each other.
    pub(crate) fn open(chain: Vec<(DiskFile, DiskFormat)>, writable: bool) -> Result<Self, StorageError> {
        let chain: Vec<(Arc<DiskFile>, DiskFormat)> =
            chain.into_iter().map(|(f, format)| (Arc::new(f), format)).collect();
        let top = Arc::clone(&chain[0].0);
        let size = check_chain(&chain, writable)?;
        let mut below: Option<FormatAccess<Layer>> = None;
        for (i, (file, format)) in chain.iter().enumerate().rev() {
            let layer = Layer { file: Arc::clone(file), helper: CommonStorageHelper::default() };
            let gate = DenyImplicitOpenGate::default();
            let opened = match format {
                DiskFormat::Raw => Raw::builder(layer).write(false).open(gate).map(FormatAccess::new),
                DiskFormat::Qcow2 => {
                    let image = Qcow2::builder(layer).write(writable && i == 0).backing(below.take()).data_file(None);
                    image.open(gate).map(FormatAccess::new)
                }
            };
            below = Some(opened.map_err(|e| StorageError::Image {
                name: file.name().to_owned(),
                what: e.to_string(),
                fix: "look at the image with `qemu-img check`".into(),
            })?);
        }
        Ok(Self { access: below.expect("the chain has an image"), file: top, size })
    }

    fn failed(&self, what: Action, offset: u64) -> impl FnOnce(io::Error) -> StorageError + '_ {
        move |e| match e.raw_os_error() {
            Some(_) => self.file.failed(what, offset)(e),
            None => StorageError::Image {
                name: self.file.name().to_owned(),
                what: format!("{what} at {offset} of the disk: {e}"),
                fix: "look at the image with `qemu-img check`".into(),
            },
        }
    }

    pub(crate) fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.access.read(buf, offset).map_err(self.failed(Action::Read, offset))
    }

    pub(crate) fn write(&mut self, data: &[u8], offset: u64) -> Result<(), StorageError> {
        self.access.write(data, offset).map_err(self.failed(Action::Write, offset))
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) -> Result<(), StorageError> {
        match self.access.discard_to_zero(offset, len) {
            // Version 2 has no zero clusters.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.write_zeros(offset, len),
            other => other.map_err(self.failed(Action::Zero, offset)),
        }
    }

    fn write_zeros(&mut self, mut offset: u64, mut len: u64) -> Result<(), StorageError> {
        let zeros = vec![0; len.min(1 << 20) as usize];
        while len > 0 {
            let n = len.min(zeros.len() as u64);
            self.write(&zeros[..n as usize], offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }

    /// Writes the tables to the file.
    pub(crate) fn settle(&mut self) -> Result<(), StorageError> {
        self.access.flush().map_err(self.failed(Action::Write, 0))
    }

    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.settle()?;
        self.access.sync().map_err(self.failed(Action::Sync, 0))
    }
}

/// Each image of a chain but the last must be based on the next; gives the first one's size.
fn check_chain(chain: &[(Arc<DiskFile>, DiskFormat)], writable: bool) -> Result<u64, StorageError> {
    let mut size = 0;
    for (i, (file, format)) in chain.iter().enumerate() {
        let based = match format {
            DiskFormat::Raw => false,
            DiskFormat::Qcow2 => {
                let info = qcow2_info(file, writable && i == 0)?;
                if i == 0 {
                    size = info.size;
                }
                info.backing.is_some()
            }
        };
        if based != (i + 1 < chain.len()) {
            return Err(StorageError::Image {
                name: file.name().to_owned(),
                what: "it is not based on what it was when it was looked at".into(),
                fix: "see that nobody else changes the image".into(),
            });
        }
    }
    Ok(size)
}
