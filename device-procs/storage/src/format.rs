//! Which format an image has, and what its header says.

use std::path::Path;

use reprise_machine::DiskFormat;

use crate::error::{Action, StorageError};
use crate::file::DiskFile;

/// How a qcow2 image begins.
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The largest disk, in bytes: 8 TiB. What is kept for each block of it must fit into a sandboxed process.
pub const MAX_DISK: u64 = 8 << 40;
/// The smallest unit of a disk, in bytes.
pub const SECTOR: u64 = 512;
/// The most entries of an L1 table: 32 MiB of them, which is what others allow too.
const MAX_L1_ENTRIES: u32 = 4 << 20;
/// The most bytes of a refcount table, likewise.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Type of the header extension that names the backing file's format (qcow2 specification, "Header extensions").
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// What a qcow2 header says that matters before the image is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Info {
    /// Bytes of the disk that the guest sees.
    pub size: u64,
    /// The file that holds what this one does not.
    pub backing: Option<Backing>,
}

/// A backing file, as a header names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Its name, relative to the folder of the image that names it.
    pub file: String,
    /// Its format, if the header says so.
    pub format: Option<DiskFormat>,
}

fn image_error<T>(file: &DiskFile, what: impl Into<String>, fix: impl Into<String>) -> Result<T, StorageError> {
    Err(StorageError::Image { name: file.name().to_owned(), what: what.into(), fix: fix.into() })
}

/// Finds an image's format. A format that is given is taken as it is. Otherwise the first bytes and the file's name must agree: whoever writes a raw
/// disk could make it begin like a qcow2 image that names any file of the host as its backing file.
///
/// # Errors
/// The file can't be read, or the format must be given.
pub fn detect(file: &DiskFile, given: Option<DiskFormat>) -> Result<DiskFormat, StorageError> {
    let mut start = [0; 4];
    file.read(&mut start, 0).map_err(file.failed(Action::Read, 0))?;
    let begins = start == MAGIC;
    let extension = Path::new(file.name()).extension().and_then(|e| e.to_str()).unwrap_or("");
    let named = ["qcow2", "qcow"].iter().any(|e| extension.eq_ignore_ascii_case(e));
    match (given, begins, named) {
        (Some(DiskFormat::Qcow2), false, _) => {
            image_error(file, "this is no qcow2 image", "say format=raw if it is a raw one")
        }
        (Some(format), ..) => Ok(format),
        (None, true, true) => Ok(DiskFormat::Qcow2),
        (None, false, false) => Ok(DiskFormat::Raw),
        (None, true, false) => image_error(
            file,
            "it begins like a qcow2 image, but a guest that had it as a raw disk may have written that",
            "say format=raw if a guest has used it so, format=qcow2 if you know that it is one",
        ),
        (None, false, true) => image_error(
            file,
            "it is called a qcow2 image, but does not begin like one",
            "say format=raw if it is a raw image",
        ),
    }
}

/// Big-endian numbers in a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }
}

/// Reads and checks a qcow2 header (qcow2 specification, "Header"): what is refused here need not be survived by anything else.
///
/// # Errors
/// The file can't be read, is no qcow2 image, or is one that can't be used.
pub fn qcow2_info(file: &DiskFile, writable: bool) -> Result<Qcow2Info, StorageError> {
    let mut header = [0; 112];
    file.read(&mut header, 0).map_err(file.failed(Action::Read, 0))?;
    let fields = Fields(&header);
    if header[..4] != MAGIC {
        return image_error(file, "this is no qcow2 image", "say format=raw if it is a raw one");
    }
    let version = fields.u32(4);
    if !(2..=3).contains(&version) {
        let fix = "convert it with `qemu-img convert -O qcow2`";
        return image_error(file, format!("qcow2 version {version} is not supported"), fix);
    }
    let cluster_bits = fields.u32(20);
    if !(9..=21).contains(&cluster_bits) {
        return damaged(file, format!("clusters of 2^{cluster_bits} bytes are impossible"));
    }
    check_features(file, &fields, version)?;
    let size = fields.u64(24);
    if size == 0 || size > MAX_DISK || size % SECTOR != 0 {
        let fix = "resize it with `qemu-img resize`";
        let what = format!("a disk of {size} bytes is impossible here: a multiple of 512 up to {} TiB", MAX_DISK >> 40);
        return image_error(file, what, fix);
    }
    check_tables(file, &fields, cluster_bits, size)?;
    if writable {
        check_refcounts(file, &fields, cluster_bits)?;
    }
    if writable && fields.u32(60) != 0 {
        let fix = "use it with snapshot=on, or copy it with `qemu-img convert`";
        return image_error(file, "it has internal snapshots, so it can't be written", fix);
    }
    Ok(Qcow2Info { size, backing: backing(file, &fields, version, cluster_bits)? })
}

fn damaged<T>(file: &DiskFile, what: String) -> Result<T, StorageError> {
    image_error(file, what, "the image is damaged: look at it with `qemu-img check`, or take a copy")
}

fn check_features(file: &DiskFile, fields: &Fields<'_>, version: u32) -> Result<(), StorageError> {
    if fields.u32(32) != 0 {
        let fix = "decrypt it with `qemu-img convert`";
        return image_error(file, "encrypted images are not supported", fix);
    }
    if version < 3 {
        return Ok(());
    }
    let fix = "convert it with `qemu-img convert -O qcow2`";
    let repair = "repair it with `qemu-img check -r all`";
    match fields.u64(72) {
        0 => Ok(()),
        n if n & 2 != 0 => image_error(file, "it is marked as corrupt", repair),
        n if n & 1 != 0 => image_error(file, "it was not closed properly", repair),
        n if n & 4 != 0 => image_error(file, "images with an external data file are not supported", fix),
        n if n & 8 != 0 => image_error(file, "only zlib compression is supported", fix),
        n if n & 16 != 0 => image_error(file, "images with extended L2 entries are not supported", fix),
        n => image_error(file, format!("it needs unknown features ({n:#x})"), fix),
    }
}

fn check_tables(file: &DiskFile, fields: &Fields<'_>, cluster_bits: u32, size: u64) -> Result<(), StorageError> {
    // An L2 table is a cluster of 8-byte entries, each of which maps a cluster.
    let needed = size.div_ceil(1 << (2 * cluster_bits - 3));
    let entries = fields.u32(36);
    if entries > MAX_L1_ENTRIES || u64::from(entries) < needed {
        return damaged(file, format!("an L1 table of {entries} entries is impossible"));
    }
    let refcount_table = u64::from(fields.u32(56)) << cluster_bits;
    if refcount_table > MAX_REFCOUNT_TABLE {
        return damaged(file, format!("a refcount table of {refcount_table} bytes is impossible"));
    }
    let end = file.size().map_err(file.failed(Action::Size, 0))?;
    for (name, offset, bytes) in
        [("L1", fields.u64(40), u64::from(entries) * 8), ("refcount", fields.u64(48), refcount_table)]
    {
        // The last cluster of a file need not be whole.
        let last = offset.checked_add(bytes).and_then(|to| to.checked_sub(1 << cluster_bits));
        if offset % (1 << cluster_bits) != 0 || offset > end || last.is_some_and(|to| to > end) {
            return damaged(file, format!("its {name} table can't lie at {offset:#x}"));
        }
    }
    Ok(())
}

/// Whoever looks for a free cluster looks through all refcount blocks, so there may not be many more of them than the file needs, nor fewer.
fn check_refcounts(file: &DiskFile, fields: &Fields<'_>, cluster_bits: u32) -> Result<(), StorageError> {
    let (at, bytes) = (fields.u64(48), u64::from(fields.u32(56)) << cluster_bits);
    let mut table = vec![0; bytes as usize];
    file.read(&mut table, at).map_err(file.failed(Action::Read, at))?;
    let order = if fields.u32(4) < 3 { 4 } else { fields.u32(96) };
    if order > 6 {
        return damaged(file, format!("refcounts of 2^{order} bits are impossible"));
    }
    // Bytes of the file that a block of refcounts covers.
    let covered = 1u64 << (2 * cluster_bits + 3 - order);
    let end = file.size().map_err(file.failed(Action::Size, 0))?;
    let is_used = |entry: &[u8]| entry.iter().any(|&b| b != 0);
    let last = table.chunks_exact(8).rposition(is_used).unwrap_or(0) as u64;
    if last > 4 * (end / covered) + 64 {
        return damaged(file, "it counts clusters that it does not have".into());
    }
    // Where a block is missing, one is made, for which one before may have to be made.
    let needed = end.div_ceil(covered) as usize;
    if table.len() / 8 < needed || !table.chunks_exact(8).take(needed).all(is_used) {
        return damaged(file, "it has clusters that it does not count".into());
    }
    Ok(())
}

fn backing(
    file: &DiskFile,
    fields: &Fields<'_>,
    version: u32,
    cluster_bits: u32,
) -> Result<Option<Backing>, StorageError> {
    let (offset, length) = (fields.u64(8), fields.u32(16));
    if offset == 0 {
        return Ok(None);
    }
    let cluster = 1u64 << cluster_bits;
    if length == 0 || length > 1023 || offset.checked_add(length.into()).is_none_or(|end| end > cluster) {
        return damaged(file, "the name of its backing file is impossible".into());
    }
    let mut name = vec![0; length as usize];
    file.read(&mut name, offset).map_err(file.failed(Action::Read, offset))?;
    let Ok(name) = String::from_utf8(name) else {
        return damaged(file, "the name of its backing file is no text".into());
    };
    let format = if version < 3 { None } else { backing_format(file, fields, cluster)? };
    Ok(Some(Backing { file: name, format }))
}

/// The format that a header extension names.
fn backing_format(file: &DiskFile, fields: &Fields<'_>, cluster: u64) -> Result<Option<DiskFormat>, StorageError> {
    let mut at = u64::from(fields.u32(100));
    // Each takes 8 bytes at least, so this ends.
    while at + 8 <= cluster {
        let mut extension = [0; 16];
        file.read(&mut extension, at).map_err(file.failed(Action::Read, at))?;
        let (kind, length) = (Fields(&extension).u32(0), Fields(&extension).u32(4));
        if kind == 0 {
            break;
        }
        if kind == BACKING_FORMAT {
            return match (length, &extension[8..]) {
                (3, [b'r', b'a', b'w', ..]) => Ok(Some(DiskFormat::Raw)),
                (5, [b'q', b'c', b'o', b'w', b'2', ..]) => Ok(Some(DiskFormat::Qcow2)),
                _ => image_error(
                    file,
                    "its backing file has a format that is not supported",
                    "convert the backing file to raw or qcow2, and rebase with `qemu-img rebase`",
                ),
            };
        }
        at += 8 + u64::from(length).next_multiple_of(8);
    }
    Ok(None)
}
