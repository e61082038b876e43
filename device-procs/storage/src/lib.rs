//! The host side of a disk: images in raw and qcow2, written to, read only, or with a copy-on-write overlay in memory.
//!
//! A device reads and writes its disk synchronously inside a step. What it reads is a function of the image at the machine's start and of what it has
//! written since, so a disk is part of the device's deterministic state. Nothing here opens a file: the supervisor has done that, and the process that
//! runs this may not.

mod base;
mod bits;
mod crash;
mod disk;
mod error;
mod file;
mod format;
mod hash;
mod image;
mod journal;
mod layer;
mod memory;
mod qcow2;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use base::BLOCK;
pub use disk::{Disk, DiskFiles, Flush};
pub use error::{Action, StorageError};
pub use file::DiskFile;
pub use format::{Backing, MAX_DISK, Qcow2Info, SECTOR, detect, qcow2_info};
pub use hash::image_hash;
pub use image::look;
pub use journal::{DEFAULT_SLOTS, SLOTS, journal_size};
pub use layer::{Finished, write_layer};
