//! What a guest wrote beside an image, as one more image on top of it: so a disk with an overlay goes into the machine's next life.
//!
//! The image is qcow2, version 3, with clusters of 16 KiB and refcounts of 16 bits (qcow2 specification, "Header", "Host cluster management",
//! "Cluster mapping"): header, refcount table and blocks, L1 table, L2 tables, data, all without gaps.

use reprise_machine::DiskFormat;

use crate::base::{BLOCK, Base};
use crate::bits;
use crate::error::{Action, StorageError};
use crate::file::DiskFile;
use crate::image::Image;
use crate::journal::bits_at;
use crate::memory::Words;

const CLUSTER_BITS: u32 = 14;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table of 8-byte entries that fills a cluster, and refcounts in one.
const PER_TABLE: u64 = CLUSTER / 8;
const PER_COUNTS: u64 = CLUSTER / 2;
const BLOCKS: u64 = CLUSTER / BLOCK;
/// In an L1 or L2 entry: nothing else refers to it.
const COPIED: u64 = 1 << 63;
/// Behind the header: how the image below is called. It is never looked up.
const BELOW: &[u8] = b"below";
const HEADER: u64 = 104;

/// A disk with an overlay, whose process has finished it ([`Disk::finish`](crate::Disk::finish)) and is gone.
#[derive(Debug)]
pub struct Finished {
    /// The image, then what it is based on. If `before` has any bit set, the first is a layer that [`write_layer`] has made, and stays behind.
    pub images: Vec<(DiskFile, DiskFormat)>,
    /// The overlay.
    pub overlay: DiskFile,
    /// The journal's file and its slots.
    pub journal: (DiskFile, u32),
    /// The blocks that earlier layers hold; empty: there is none.
    pub before: Vec<u64>,
}

/// Writes what was written to a disk, in this life of the machine and in those before, to `to`, an empty file, as a qcow2 image to be put on top of the
/// images that the machine has had from its first life on. Gives a bit for each block of 4 KiB that it holds; none: nothing was written.
///
/// # Errors
/// The host fails.
pub fn write_layer(disk: Finished, to: &DiskFile) -> Result<Option<Vec<u64>>, StorageError> {
    let image = Image::open(disk.images, false)?;
    let size = image.size();
    let (journal, slots) = disk.journal;
    let changed = changed(&journal, slots, size)?;
    let mut all = changed.clone();
    all.iter_mut().zip(&disk.before).for_each(|(word, before)| *word |= before);
    if all.iter().all(|word| *word == 0) {
        return Ok(None);
    }
    let mut contents = Base::new(image, false, Some(disk.overlay), Words::Own(changed));
    Plan::new(size, &all).write(&mut contents, to)?;
    Ok(Some(all))
}

/// Which blocks of the disk are in its overlay, as the journal's memory says; see the layout there.
fn changed(journal: &DiskFile, slots: u32, size: u64) -> Result<Vec<u64>, StorageError> {
    let blocks = size.div_ceil(BLOCK);
    let mut bytes = vec![0; bits::words(blocks) * 8];
    let at = bits_at(slots);
    journal.read(&mut bytes, at).map_err(journal.failed(Action::Read, at))?;
    let mut words: Vec<u64> =
        bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes"))).collect();
    // What the process has set behind the disk's end means nothing.
    if let Some(last) = words.last_mut().filter(|_| blocks % 64 != 0) {
        *last &= (1 << (blocks % 64)) - 1;
    }
    Ok(words)
}

/// Where everything of the image lies, in clusters.
struct Plan {
    size: u64,
    /// The disk's clusters that it holds.
    held: Vec<u64>,
    count_table: u64,
    count_blocks: u64,
    l1: u64,
    /// The L2 tables that are there, by their number.
    l2: Vec<u64>,
}

impl Plan {
    fn new(size: u64, blocks: &[u64]) -> Self {
        let block_count = size.div_ceil(BLOCK);
        let holds = |c: &u64| {
            let first = c * BLOCKS;
            !bits::none(blocks, first, BLOCKS.min(block_count - first))
        };
        let held: Vec<u64> = (0..size.div_ceil(CLUSTER)).filter(holds).collect();
        let mut l2: Vec<u64> = held.iter().map(|c| c / PER_TABLE).collect();
        l2.dedup();
        let l1 = size.div_ceil(CLUSTER * PER_TABLE).div_ceil(PER_TABLE);
        let rest = 1 + l1 + l2.len() as u64 + held.len() as u64;
        let (mut count_table, mut count_blocks) = (1, 1);
        while count_blocks * PER_COUNTS < rest + count_table + count_blocks {
            count_blocks += 1;
            count_table = count_blocks.div_ceil(PER_TABLE);
        }
        Self { size, held, count_table, count_blocks, l1, l2 }
    }

    fn l1_at(&self) -> u64 {
        1 + self.count_table + self.count_blocks
    }

    fn l2_at(&self) -> u64 {
        self.l1_at() + self.l1
    }

    fn data_at(&self) -> u64 {
        self.l2_at() + self.l2.len() as u64
    }

    fn write(&self, contents: &mut Base, to: &DiskFile) -> Result<(), StorageError> {
        let put = |data: &[u8], at: u64| to.write(data, at).map_err(to.failed(Action::Write, at));
        put(&self.header(), 0)?;
        let table = |entries: &mut dyn Iterator<Item = u64>| entries.flat_map(u64::to_be_bytes).collect::<Vec<u8>>();
        let offset = |cluster: u64| cluster * CLUSTER;
        let first_block = 1 + self.count_table;
        put(&table(&mut (0..self.count_blocks).map(|i| offset(first_block + i))), offset(1))?;
        let clusters = (self.data_at() + self.held.len() as u64) as usize;
        put(&[0, 1].repeat(clusters), offset(first_block))?;
        for (i, number) in self.l2.iter().enumerate() {
            let entry = (offset(self.l2_at() + i as u64) | COPIED).to_be_bytes();
            put(&entry, offset(self.l1_at()) + number * 8)?;
        }
        let (mut place, mut piece) = (self.data_at(), vec![0; CLUSTER as usize]);
        for (i, number) in self.l2.iter().enumerate() {
            let mut entries = vec![0; PER_TABLE as usize];
            let from = self.held.partition_point(|c| c / PER_TABLE < *number);
            for cluster in self.held[from..].iter().take_while(|c| *c / PER_TABLE == *number) {
                entries[(cluster % PER_TABLE) as usize] = offset(place) | COPIED;
                let there = (self.size - offset(*cluster)).min(CLUSTER) as usize;
                contents.read(&mut piece[..there], offset(*cluster))?;
                piece[there..].fill(0);
                put(&piece, offset(place))?;
                place += 1;
            }
            put(&table(&mut entries.into_iter()), offset(self.l2_at() + i as u64))?;
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; CLUSTER as usize];
        let mut put = |at: u64, bytes: &[u8]| header[at as usize..][..bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb");
        let words: [(u64, u64); 7] = [
            (4, 3),
            (16, BELOW.len() as u64),
            (20, CLUSTER_BITS.into()),
            (36, self.size.div_ceil(CLUSTER * PER_TABLE)),
            (56, self.count_table),
            (96, 4),
            (100, HEADER),
        ];
        words.iter().for_each(|(at, value)| put(*at, &(*value as u32).to_be_bytes()));
        // An end of the header's extensions (8 zeros) stands before the name.
        let longs = [(8, HEADER + 8), (24, self.size), (40, self.l1_at() * CLUSTER), (48, CLUSTER)];
        longs.iter().for_each(|(at, value)| put(*at, &value.to_be_bytes()));
        put(HEADER + 8, BELOW);
        header
    }
}
