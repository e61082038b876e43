//! What can go wrong with a disk.

use std::io;

/// Why a disk can't do what its device wants. None of these is the guest's business: a recording could not repeat them. The device's owner waits
/// until the host is well again, or ends the machine.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The host failed.
    #[error("disk image {name}: {what} at byte {offset}: {source}; {}", advice(.source, *.what))]
    Host {
        /// The file's name.
        name: String,
        /// What was tried.
        what: Action,
        /// Where in the file.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// The image is not what it should be.
    #[error("disk image {name}: {what}; {fix}")]
    Image {
        /// The file's name.
        name: String,
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The journal is not what it should be: only a fault of this program, or of the host's memory, makes it so.
    #[error("disk {name}: its journal is damaged ({what}); start the machine anew")]
    Journal {
        /// The disk's name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The device wrote more than the journal holds without a checkpoint: its owner must look at `Disk::room`.
    #[error("disk {name}: its journal is full; make it larger, or take checkpoints more often")]
    JournalFull {
        /// The disk's name.
        name: String,
    },
    /// The device asked for what the disk does not have.
    #[error(
        "disk {name}: bytes {offset}..+{len} are not on a disk of {size} bytes: the device must check what the guest asks for"
    )]
    OutOfRange {
        /// The disk's name.
        name: String,
        /// The first byte that was asked for.
        offset: u64,
        /// How many.
        len: u64,
        /// Bytes of the disk.
        size: u64,
    },
    /// The device wrote to a disk that says it is read-only.
    #[error("disk {name} is read-only: the device must check that before it writes")]
    ReadOnly {
        /// The disk's name.
        name: String,
    },
}

/// What was tried on a host's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making zeros.
    Zero,
    /// Making durable.
    Sync,
    /// Asking for its size.
    Size,
    /// Mapping into memory.
    Map,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "it can't be read",
            Self::Write => "it can't be written",
            Self::Zero => "zeros can't be written",
            Self::Sync => "it can't be made durable",
            Self::Size => "its size can't be found",
            Self::Map => "it can't be mapped",
        })
    }
}

/// What the user can do about it.
fn advice(error: &io::Error, what: Action) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on the file system that holds it",
        Some(libc::EIO) => "the host's drive has failed: see the host's log, and bring the image back from a copy",
        Some(libc::EFBIG) => "the host's file system takes no file as large as that: move the image to another one",
        Some(libc::ENOMEM) => "free some of the host's memory",
        _ if what == Action::Read => "see that the file is whole and can be read",
        _ => "see that the file is there and can be written",
    }
}
