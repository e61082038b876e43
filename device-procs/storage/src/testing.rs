//! What tests and fuzz targets share: images made by hand, from the specification, and files in memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use reprise_child::control::DiskMode;
use reprise_machine::DiskFormat;

use crate::base::BLOCK;
use crate::disk::{Disk, DiskFiles};
use crate::file::DiskFile;
use crate::image::look;
use crate::journal::{Memory, journal_size};

/// A memfd with these bytes.
pub fn memfd(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("reprise-disk-test", MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
    file.write_all(bytes).expect("a memfd takes that");
    file
}

/// A memfd of so many zeros.
pub fn zeros(len: u64) -> File {
    let file = memfd(&[]);
    file.set_len(len).expect("a memfd takes that");
    file
}

/// Another descriptor of the file.
pub fn again(file: &File) -> OwnedFd {
    file.try_clone().expect("dup").into()
}

/// The files of a disk for a test.
#[derive(Debug)]
pub struct Rig {
    /// The image and what it is based on.
    pub images: Vec<(File, DiskFormat)>,
    /// How it is used.
    pub mode: DiskMode,
    /// The overlay, if the mode is `Snapshot`.
    pub overlay: Option<File>,
    /// The journal and its slots.
    pub journal: Option<(File, u32)>,
}

impl Rig {
    /// Files for a disk of `size` bytes.
    pub fn new(images: Vec<(File, DiskFormat)>, size: u64, mode: DiskMode) -> Self {
        let overlay = (mode == DiskMode::Snapshot).then(|| zeros(size.next_multiple_of(BLOCK)));
        Self { images, mode, overlay, journal: None }
    }

    /// The same with a journal.
    #[must_use]
    pub fn with_journal(mut self, size: u64, slots: u32) -> Self {
        self.journal = Some((zeros(journal_size(size, slots)), slots));
        self
    }

    /// The files, as a new process gets them.
    pub fn files(&self) -> DiskFiles {
        let image = |(i, (file, format)): (usize, &(File, DiskFormat))| {
            (DiskFile::new(again(file), format!("test{i}")), *format)
        };
        DiskFiles {
            name: "test".into(),
            images: self.images.iter().enumerate().map(image).collect(),
            mode: self.mode,
            overlay: self.overlay.as_ref().map(|f| DiskFile::new(again(f), "overlay")),
            journal: self.journal.as_ref().map(|(file, slots)| {
                Memory::map(&DiskFile::new(again(file), "journal"), *slots)
                    .expect("the journal is as long as it should be")
            }),
        }
    }
}

/// How a cluster of a [`Qcow2Builder`]'s image is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Not at all: it is zero, or what the backing file says.
    Absent,
    /// As it is.
    Plain,
    /// As zeros, by a flag (version 3).
    Zero,
    /// Compressed (deflate, in stored blocks).
    Compressed,
}

/// Makes qcow2 images, by the specification.
#[derive(Clone, Debug)]
pub struct Qcow2Builder {
    /// 2 or 3.
    pub version: u32,
    /// Clusters have 2 to the power of that many bytes.
    pub cluster_bits: u32,
    /// Name and format of the backing file.
    pub backing: Option<(String, Option<&'static str>)>,
}

impl Qcow2Builder {
    /// An image of a disk with these contents, each cluster held as `how` says. Refcounts are 16 bits wide.
    pub fn build(&self, disk: &[u8], how: impl Fn(usize) -> Cluster) -> Vec<u8> {
        let cluster = 1usize << self.cluster_bits;
        let per_l2 = cluster / 8;
        let clusters = disk.len().div_ceil(cluster);
        let l2_count = clusters.div_ceil(per_l2);
        let l1_clusters = (l2_count * 8).div_ceil(cluster);
        // Header, refcount table, refcount blocks, L1, L2 tables, data.
        let most = 2 + l1_clusters + l2_count + 2 * clusters + 64;
        let blocks = most.div_ceil(cluster / 2) + 1;
        let (l1_at, l2_at) = (2 + blocks, 2 + blocks + l1_clusters);
        let mut file = vec![0; (l2_at + l2_count) * cluster];
        for (i, contents) in disk.chunks(cluster).enumerate() {
            let entry = self.add_cluster(&mut file, contents, how(i));
            put64(&mut file, (l2_at + i / per_l2) * cluster + i % per_l2 * 8, entry);
        }
        file.resize(file.len().next_multiple_of(cluster), 0);
        for i in 0..l2_count {
            put64(&mut file, l1_at * cluster + i * 8, ((l2_at + i) * cluster) as u64 | 1 << 63);
        }
        for i in 0..blocks {
            put64(&mut file, cluster + i * 8, ((2 + i) * cluster) as u64);
        }
        for i in 0..file.len() / cluster {
            file[2 * cluster + i * 2 + 1] = 1;
        }
        self.header(&mut file, disk.len() as u64, l2_count as u32, (l1_at * cluster) as u64);
        file
    }

    fn add_cluster(&self, file: &mut Vec<u8>, contents: &[u8], how: Cluster) -> u64 {
        let cluster = 1usize << self.cluster_bits;
        match how {
            Cluster::Absent => 0,
            Cluster::Zero => 1,
            Cluster::Plain => {
                let at = file.len().next_multiple_of(cluster);
                file.resize(at, 0);
                file.extend_from_slice(contents);
                file.resize(at + cluster, 0);
                at as u64 | 1 << 63
            }
            Cluster::Compressed => {
                // One to a cluster, so that each is referred to once.
                let at = file.len().next_multiple_of(cluster);
                file.resize(at, 0);
                let mut whole = contents.to_vec();
                whole.resize(cluster, 0);
                for (i, piece) in whole.chunks(0xffff).enumerate() {
                    let last = (i + 1) * 0xffff >= whole.len();
                    let len = piece.len() as u16;
                    file.push(last.into());
                    file.extend_from_slice(&len.to_le_bytes());
                    file.extend_from_slice(&(!len).to_le_bytes());
                    file.extend_from_slice(piece);
                }
                let sectors = (file.len() - 1) / 512 - at / 512;
                1 << 62 | (sectors as u64) << (62 - (self.cluster_bits - 8)) | at as u64
            }
        }
    }

    fn header(&self, file: &mut [u8], size: u64, l1_entries: u32, l1_at: u64) {
        let cluster = 1u64 << self.cluster_bits;
        file[..4].copy_from_slice(b"QFI\xfb");
        put32(file, 4, self.version);
        put32(file, 20, self.cluster_bits);
        put64(file, 24, size);
        put32(file, 36, l1_entries);
        put64(file, 40, l1_at);
        put64(file, 48, cluster);
        put32(file, 56, 1);
        let mut at = 72;
        if self.version >= 3 {
            put32(file, 96, 4);
            put32(file, 100, 104);
            at = 104;
        }
        if let Some((name, format)) = &self.backing {
            if let (Some(format), 3..) = (format, self.version) {
                put32(file, at, 0xe279_2aca);
                put32(file, at + 4, format.len() as u32);
                file[at + 8..at + 8 + format.len()].copy_from_slice(format.as_bytes());
                at += 8 + format.len().next_multiple_of(8);
            }
            at += 8;
            put64(file, 8, at as u64);
            put32(file, 16, name.len() as u32);
            file[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
    }
}

fn put32(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put64(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

fn get64(file: &[u8], at: usize) -> u64 {
    file.get(at..at + 8).map_or(0, |b| u64::from_be_bytes(b.try_into().expect("eight bytes")))
}

/// Looks at a qcow2 image with refcounts of 16 bits as a repair program does: each cluster that is used is counted, and no two uses share one.
/// Clusters that are counted but not used are only wasted.
///
/// # Errors
/// What is wrong.
pub fn check_qcow2(file: &[u8]) -> Result<(), String> {
    let bits = u32::from_be_bytes(file[20..24].try_into().expect("four bytes"));
    let l1_entries = u32::from_be_bytes(file[36..40].try_into().expect("four bytes")) as usize;
    let reftable_clusters = u32::from_be_bytes(file[56..60].try_into().expect("four bytes")) as usize;
    let cluster = 1usize << bits;
    let (l1_at, reftable_at) = (get64(file, 40) as usize, get64(file, 48) as usize);
    let mut used = std::collections::BTreeMap::new();
    let mut at = |offset: u64, what: String| match used.insert(offset >> bits, what.clone()) {
        None => Ok(()),
        Some(other) => Err(format!("cluster at {offset:#x} is {other} and {what}")),
    };
    at(0, "the header".into())?;
    for i in 0..(l1_entries * 8).div_ceil(cluster) {
        at((l1_at + i * cluster) as u64, format!("L1 {i}"))?;
    }
    let mut blocks = Vec::new();
    for i in 0..reftable_clusters * cluster / 8 {
        if i % (cluster / 8) == 0 {
            at((reftable_at + i * 8) as u64, format!("refcount table {i}"))?;
        }
        let block = get64(file, reftable_at + i * 8);
        blocks.push(block);
        if block != 0 {
            at(block, format!("refcount block {i}"))?;
        }
    }
    for i in 0..l1_entries {
        let l2 = get64(file, l1_at + i * 8) & 0x00ff_ffff_ffff_fe00;
        if l2 == 0 {
            continue;
        }
        at(l2, format!("L2 {i}"))?;
        for j in 0..cluster / 8 {
            let entry = get64(file, l2 as usize + j * 8);
            let host = entry & 0x00ff_ffff_ffff_fe00;
            if entry >> 62 & 1 != 0 {
                let width = 62 - (bits - 8);
                let (start, more) = (entry & ((1 << width) - 1), entry >> width & ((1 << (bits - 8)) - 1));
                for c in start >> bits..=((start & !511) + more * 512) >> bits {
                    at(c << bits, format!("compressed {i}.{j}"))?;
                }
            } else if host != 0 {
                at(host, format!("data {i}.{j}"))?;
            }
        }
    }
    for (number, what) in used {
        let block = blocks.get(number as usize / (cluster / 2)).copied().unwrap_or(0);
        let entry = block as usize + number as usize % (cluster / 2) * 2;
        if block == 0 || file.get(entry..entry + 2).is_none_or(|b| b == [0, 0]) {
            return Err(format!("{what} is not counted"));
        }
    }
    Ok(())
}

/// Uses any bytes as a qcow2 image in every way: an error or a result, never a panic.
pub fn fuzz_qcow2(image: &[u8]) {
    for mode in [DiskMode::ReadOnly, DiskMode::Snapshot, DiskMode::Writable] {
        let file = memfd(image);
        let top = DiskFile::new(again(&file), "fuzz.qcow2");
        let Ok((size, backing)) = look(&top, DiskFormat::Qcow2, mode == DiskMode::Writable) else { continue };
        let mut images = vec![(file, DiskFormat::Qcow2)];
        if backing.is_some() {
            images.push((memfd(&[0x55; 70_000]), DiskFormat::Raw));
        }
        let mut rig = Rig::new(images, size, mode);
        if mode == DiskMode::Writable {
            rig = rig.with_journal(size, 64);
        }
        let Ok(mut disk) = Disk::open(rig.files()) else { continue };
        // An error in one place says nothing of the others.
        let mut buffer = vec![0; 20_000];
        for i in 0..24 {
            let at = if i % 2 == 0 { size / 24 * i } else { i * 3000 }.min(size);
            let piece = &mut buffer[..(size - at).min(20_000) as usize];
            let _ = disk.read(at, piece);
            if mode != DiskMode::ReadOnly {
                let _ = disk.write(at, piece);
                let _ = disk.discard(at / 2, (size - at / 2).min(100_000));
                let _ = disk.flush();
                let _ = disk.checkpoint(i + 1);
                let _ = disk.release(i + 1);
            }
        }
        let _ = disk.finish();
    }
}

/// Damages an image: bytes, whole fields, what is taken for a table's entry, its length. `numbers` gives random ones.
pub fn damage(image: &mut Vec<u8>, mut number: impl FnMut() -> u64) {
    for _ in 0..1 + number() % 4 {
        let len = image.len() as u64;
        // The header and the tables behind it are worth more than the data.
        let region = [112, 112, 8192, 70_000, len][(number() % 5) as usize].min(len);
        let at = (number() % region.max(1)) as usize;
        let field = at & !7;
        let interesting =
            [0, 1, 0x200, 0x1_0000, 1 << 31, 1 << 62, 1 << 63, u64::MAX, number(), number() % (2 * len + 1) & !0x1ff];
        let value = interesting[(number() % 10) as usize];
        match number() % 8 {
            0 => image[at] = number() as u8,
            1 => image[at] ^= 1 << (number() % 8),
            2 if field + 8 <= image.len() => put32(image, field + 4, value as u32),
            3 if field + 8 <= image.len() => put32(image, field, value as u32),
            4 => image.truncate(at.max(1)),
            5 if field + 8 <= image.len() => {
                let other = get64(image, (number() % len) as usize & !7);
                put64(image, field, other);
            }
            _ if field + 8 <= image.len() => put64(image, field, value),
            _ => {}
        }
    }
}

/// Takes bytes as a qcow2 image if they begin like one, else as the numbers by which a good one is damaged.
pub fn fuzz(data: &[u8]) {
    if data.starts_with(b"QFI\xfb") {
        return fuzz_qcow2(data);
    }
    let mut numbers = data.chunks(4).map(|c| c.iter().fold(0, |n, &b| n << 16 | u64::from(b) * 0x101));
    let mut number = || numbers.next().unwrap_or(0);
    let builder = Qcow2Builder {
        version: 2 + (number() % 2) as u32,
        cluster_bits: 9 + (number() % 6) as u32,
        backing: (number() % 2 == 0).then(|| ("below".into(), None)),
    };
    let kinds = [Cluster::Absent, Cluster::Plain, Cluster::Compressed];
    let salt = number() as usize;
    let mut image = builder.build(&[0x33; 70_144], |i| kinds[(i ^ salt) % 3]);
    damage(&mut image, number);
    fuzz_qcow2(&image);
}
