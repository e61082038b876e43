//! What identifies a disk: its contents.

use crate::disk::{Disk, DiskFiles};
use crate::error::StorageError;

/// How much is read at a time.
const PIECE: u64 = 1 << 20;

/// BLAKE3 of a disk's contents as the guest sees them at the machine's start: whatever the image's format, and whatever it is based on. Files that
/// are written meanwhile give no hash of anything. `progress` hears how many bytes of how many are done.
///
/// # Errors
/// An image is not what it should be, or can't be read.
pub fn image_hash(files: DiskFiles, mut progress: impl FnMut(u64, u64)) -> Result<[u8; 32], StorageError> {
    let mut disk = Disk::open(files)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE as usize]);
    let mut at = 0;
    while at < disk.len() {
        progress(at, disk.len());
        let piece = &mut buffer[..PIECE.min(disk.len() - at) as usize];
        disk.read(at, piece)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    progress(at, at);
    Ok(*hasher.finalize().as_bytes())
}
