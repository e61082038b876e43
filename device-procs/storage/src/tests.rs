//! Disks against a model: the bytes that were written, in a vector.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use reprise_child::control::DiskMode;
use reprise_machine::DiskFormat;

use crate::crash;
use crate::testing::{Cluster, Qcow2Builder, Rig, again, check_qcow2, damage, fuzz_qcow2, memfd};
use crate::{BLOCK, Disk, DiskFile, Finished, Flush, StorageError, image_hash, write_layer};

/// What a disk should be.
#[derive(Clone)]
struct Model {
    bytes: Vec<u8>,
    changed: Vec<bool>,
}

impl Model {
    fn new(bytes: Vec<u8>) -> Self {
        let changed = vec![false; bytes.len().div_ceil(BLOCK as usize)];
        Self { bytes, changed }
    }

    fn change(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        let blocks = at / BLOCK as usize..(at + data.len()).div_ceil(BLOCK as usize);
        self.changed[blocks].fill(true);
    }
}

/// A range of the disk, often aligned, often short.
fn range(rng: &mut SmallRng, size: usize) -> (usize, usize) {
    let align = [1, 512, 4096, 65536][rng.random_range(0..4)];
    let at = rng.random_range(0..size) / align * align;
    let most = if rng.random_ratio(1, 10) { size } else { 20_000 };
    let len = (rng.random_range(0..most) / align * align + usize::from(align > 1) * align).min(size - at).max(1);
    (at, len)
}

fn random_bytes(rng: &mut SmallRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Does random things to both.
fn drive(rng: &mut SmallRng, disk: &mut Disk, model: &mut Model, steps: usize) {
    let size = model.bytes.len();
    for _ in 0..steps {
        let (at, len) = range(rng, size);
        match rng.random_range(0..8) {
            0..=2 if !disk.read_only() => {
                let data = random_bytes(rng, len);
                disk.write(at as u64, &data).unwrap();
                model.change(at, &data);
            }
            3 if !disk.read_only() => {
                disk.discard(at as u64, len as u64).unwrap();
                model.change(at, &vec![0; len]);
            }
            4 => assert_eq!(disk.flush().unwrap(), Flush::Done),
            5 => {
                let blocks = at / BLOCK as usize..(at + len).div_ceil(BLOCK as usize);
                assert_eq!(disk.unchanged(at as u64, len as u64), !model.changed[blocks].contains(&true));
            }
            _ => {
                let mut read = vec![0xa5; len];
                disk.read(at as u64, &mut read).unwrap();
                assert!(read == model.bytes[at..at + len], "{len} bytes at {at}");
            }
        }
    }
}

fn whole(disk: &mut Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len() as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// A disk that is used, closed and opened again.
fn check(rng: &mut SmallRng, rig: &Rig, contents: Vec<u8>, snapshot_of: &[u8]) {
    let mut disk = Disk::open(rig.files()).unwrap();
    assert_eq!(disk.len(), contents.len() as u64);
    assert!(disk.unchanged(0, disk.len()));
    let mut model = Model::new(contents);
    assert!(whole(&mut disk) == model.bytes);
    drive(rng, &mut disk, &mut model, 300);
    assert!(whole(&mut disk) == model.bytes);
    let _ = disk.flush().unwrap();
    drop(disk);
    if rig.mode == DiskMode::Writable {
        assert!(whole(&mut Disk::open(rig.files()).unwrap()) == model.bytes, "what was written is there");
    } else {
        let mut file = vec![0; snapshot_of.len()];
        rig.images[0].0.read_exact_at(&mut file, 0).unwrap();
        assert!(file == snapshot_of, "the image is as it was");
    }
}

const MODES: [DiskMode; 3] = [DiskMode::Writable, DiskMode::ReadOnly, DiskMode::Snapshot];

#[test]
fn raw_images_are_their_bytes() {
    for seed in 0..30 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 700, 4096, 9 * 4096 + 512, 300_000][rng.random_range(0..5)];
        let mut contents = random_bytes(&mut rng, len);
        let image = contents.clone();
        contents.resize(len.next_multiple_of(512), 0);
        let mode = MODES[seed as usize % 3];
        let rig = Rig::new(vec![(memfd(&image), DiskFormat::Raw)], contents.len() as u64, mode);
        check(&mut rng, &rig, contents, &image);
    }
}

/// A qcow2 image of a disk of `len` bytes, with whatever such an image can have, and the disk's contents.
fn random_qcow2(rng: &mut SmallRng, len: usize) -> (Vec<(File, DiskFormat)>, Vec<u8>) {
    let mut contents = random_bytes(rng, len);
    let builder = Qcow2Builder {
        version: rng.random_range(2..4),
        cluster_bits: rng.random_range(9..17),
        backing: rng.random_ratio(1, 3).then(|| ("below".into(), None)),
    };
    // What lies below may be shorter or longer, and end in the middle of a sector.
    let below = random_bytes(rng, 200_001);
    let cluster = 1 << builder.cluster_bits;
    let kinds: Vec<Cluster> = (0..len.div_ceil(cluster))
        .map(|_| match rng.random_range(0..5) {
            0 => Cluster::Absent,
            1 if builder.version == 3 => Cluster::Zero,
            2 => Cluster::Compressed,
            _ => Cluster::Plain,
        })
        .collect();
    let image = builder.build(&contents, |i| kinds[i]);
    for (i, piece) in contents.chunks_mut(cluster).enumerate() {
        match kinds[i] {
            Cluster::Absent if builder.backing.is_some() => {
                let rest = below.get(i * cluster..).unwrap_or(&[]);
                let n = rest.len().min(piece.len());
                piece[..n].copy_from_slice(&rest[..n]);
                piece[n..].fill(0);
            }
            Cluster::Absent | Cluster::Zero => piece.fill(0),
            Cluster::Plain | Cluster::Compressed => {}
        }
    }
    let mut images = vec![(memfd(&image), DiskFormat::Qcow2)];
    if builder.backing.is_some() {
        images.push((memfd(&below), DiskFormat::Raw));
    }
    (images, contents)
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn qcow2_images_are_what_their_tables_say() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 9 * 4096 + 512, 300_032, 1 << 20][rng.random_range(0..4)];
        let (images, contents) = random_qcow2(&mut rng, len);
        let image = bytes_of(&images[0].0);
        check_qcow2(&image).unwrap();
        let rig = Rig::new(images, len as u64, MODES[rng.random_range(0..3)]);
        check(&mut rng, &rig, contents, &image);
        check_qcow2(&bytes_of(&rig.images[0].0)).unwrap();
    }
}

#[test]
fn what_is_not_on_the_disk_is_an_error() {
    let rig = Rig::new(vec![(memfd(&[1; 1024]), DiskFormat::Raw)], 1024, DiskMode::ReadOnly);
    let mut disk = Disk::open(rig.files()).unwrap();
    for (at, len) in [(0, 1025), (1024, 1), (u64::MAX, 2), (513, 512)] {
        assert!(disk.read(at, &mut vec![0; len]).unwrap_err().to_string().contains("are not on a disk of 1024 bytes"));
        assert!(!disk.unchanged(at, len as u64));
    }
    disk.read(1024, &mut []).unwrap();
    assert!(disk.write(0, &[1]).unwrap_err().to_string().contains("read-only"));
    assert!(disk.discard(0, 1).unwrap_err().to_string().contains("read-only"));
}

/// Something that a device does to its disk.
#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Discard(usize, usize),
    Read(usize, usize),
    Flush,
}

impl Op {
    fn random(rng: &mut SmallRng, size: usize) -> Self {
        let (at, len) = range(rng, size);
        match rng.random_range(0..8) {
            0..=3 => Self::Write(at, random_bytes(rng, len)),
            4 => Self::Discard(at, len),
            5 => Self::Flush,
            _ => Self::Read(at, len),
        }
    }

    /// The most of `Disk::room` that it takes.
    fn room(&self) -> u64 {
        match self {
            Self::Write(_, data) => data.len() as u64 / BLOCK + 2,
            Self::Discard(..) => 3,
            Self::Read(..) | Self::Flush => 0,
        }
    }

    fn apply(&self, disk: &mut Disk, model: &mut Model) -> Result<bool, StorageError> {
        match self {
            Self::Write(at, data) => {
                disk.write(*at as u64, data)?;
                model.change(*at, data);
            }
            Self::Discard(at, len) => {
                disk.discard(*at as u64, *len as u64)?;
                model.change(*at, &vec![0; *len]);
            }
            Self::Read(at, len) => {
                let mut read = vec![0xa5; *len];
                disk.read(*at as u64, &mut read)?;
                assert!(read == model.bytes[*at..*at + *len], "{len} bytes at {at}");
                let blocks = at / BLOCK as usize..(at + len).div_ceil(BLOCK as usize);
                assert_eq!(disk.unchanged(*at as u64, *len as u64), !model.changed[blocks].contains(&true));
            }
            Self::Flush => return Ok(disk.flush()? == Flush::NeedsCheckpoint),
        }
        Ok(false)
    }
}

/// A saved state: what the supervisor has of a device.
#[derive(Clone)]
struct Saved {
    generation: u64,
    /// How many requests the device had worked off.
    done: usize,
    model: Model,
}

/// A device that is killed now and then, and its supervisor.
struct Machine<'a> {
    rig: &'a Rig,
    rng: SmallRng,
    ops: Vec<Op>,
    /// What the supervisor has.
    saved: Saved,
    /// How often the device was killed.
    kills: usize,
}

impl Machine<'_> {
    /// Lets the device live until it is done or killed.
    fn live(&mut self, mut disk: Disk) -> Result<Disk, StorageError> {
        let mut now = self.saved.clone();
        let mut sent: Vec<Saved> = Vec::new();
        while now.done < self.ops.len() || !sent.is_empty() {
            let want = disk.wants_checkpoint();
            let next = self.ops.get(now.done);
            let full = next.is_some_and(|op| op.room() > disk.room());
            let rests = full || want && self.rng.random_ratio(1, 3) || self.rng.random_ratio(1, 10);
            if let Some(op) = next.filter(|_| !rests) {
                let needs = op.apply(&mut disk, &mut now.model)?;
                assert!(!needs || disk.wants_checkpoint() || !sent.is_empty());
                now.done += 1;
            } else if (sent.is_empty() || !full && self.rng.random_ratio(1, 2)) && sent.len() < 8 && next.is_some() {
                now.generation += 1;
                disk.checkpoint(now.generation)?;
                sent.push(now.clone());
            } else if !sent.is_empty() {
                // The supervisor may hear of several at once.
                let n = self.rng.random_range(1..=sent.len());
                self.saved = sent.drain(..n).next_back().unwrap();
                // And it may be killed before it hears that the supervisor has.
                disk.release(self.saved.generation)?;
            }
        }
        assert!(whole(&mut disk) == now.model.bytes);
        // Nobody recovers a disk after this, unless nothing is left to be folded.
        now.generation += 1;
        disk.checkpoint(now.generation)?;
        self.saved = now;
        disk.finish()?;
        Ok(disk)
    }

    fn run(&mut self, deadly: bool) {
        let mut start = Disk::open(self.rig.files());
        loop {
            let fuse = (self.rng.random_range(1..self.fuse()), self.rng.random());
            crash::set_fuse(deadly.then_some(fuse));
            let outcome = start.and_then(|disk| self.live(disk));
            match outcome {
                Ok(_) => break,
                Err(e) => assert!(crash::is_dead(), "{e}"),
            }
            // Nothing of it is left but what others hold.
            crash::set_fuse(None);
            if self.rig.images[0].1 == DiskFormat::Qcow2 {
                check_qcow2(&bytes_of(&self.rig.images[0].0)).unwrap();
            }
            self.kills += 1;
            // The first attempts may be killed too.
            crash::set_fuse(self.rng.random_ratio(1, 2).then_some((self.rng.random_range(1..40), self.rng.random())));
            start = Disk::recover(self.rig.files(), self.saved.generation);
            if start.is_err() {
                assert!(crash::is_dead(), "{start:?}");
                crash::set_fuse(None);
                start = Disk::recover(self.rig.files(), self.saved.generation);
            }
            crash::set_fuse(None);
            let disk = start.as_mut().unwrap();
            assert!(whole(disk) == self.saved.model.bytes, "the disk is as it was when the state was saved");
            for (block, changed) in self.saved.model.changed.iter().enumerate() {
                let at = block as u64 * BLOCK;
                assert_eq!(disk.unchanged(at, BLOCK.min(disk.len() - at)), !changed);
            }
        }
        crash::set_fuse(None);
    }

    /// Longer and longer lives, so that the end is reached.
    fn fuse(&self) -> u64 {
        30 * (1 + self.kills as u64)
    }
}

/// Runs a device to its end, whatever happens to it; says how often it was killed.
fn survive(seed: u64, rig: &Rig, contents: Vec<u8>, deadly: bool) -> usize {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let ops = (0..150).map(|_| Op::random(&mut rng, contents.len())).collect();
    let image = bytes_of(&rig.images[0].0);
    let saved = Saved { generation: 0, done: 0, model: Model::new(contents) };
    let mut machine = Machine { rig, rng, ops, saved, kills: 0 };
    machine.run(deadly);
    let after = bytes_of(&rig.images[0].0);
    if rig.mode == DiskMode::Writable {
        let images = rig.images.iter().map(|(file, format)| (file.try_clone().unwrap(), *format)).collect();
        let rig = Rig::new(images, 0, DiskMode::ReadOnly);
        assert!(whole(&mut Disk::open(rig.files()).unwrap()) == machine.saved.model.bytes, "seed {seed}");
    } else {
        assert!(after == image, "the image is as it was");
    }
    machine.kills
}

const WRITING: [DiskMode; 2] = [DiskMode::Writable, DiskMode::Snapshot];

#[test]
fn a_killed_device_finds_its_raw_disk_as_its_state_was_saved() {
    let mut kills = 0;
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 700, 9 * 4096 + 512, 300_000][rng.random_range(0..4)];
        let mut contents = random_bytes(&mut rng, len);
        let image = memfd(&contents);
        contents.resize(len.next_multiple_of(512), 0);
        let size = contents.len() as u64;
        let rig = Rig::new(vec![(image, DiskFormat::Raw)], size, WRITING[seed as usize % 2]);
        let rig = rig.with_journal(size, [80, 200, 1000][rng.random_range(0..3)]);
        kills += survive(seed, &rig, contents, seed % 8 > 1);
    }
    assert!(kills > 500, "{kills}");
}

#[test]
fn a_killed_device_finds_its_qcow2_disk_as_its_state_was_saved() {
    let mut kills = 0;
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 9 * 4096 + 512, 300_032][rng.random_range(0..3)];
        let (images, contents) = random_qcow2(&mut rng, len);
        let rig = Rig::new(images, len as u64, WRITING[usize::from(seed % 5 == 0)]);
        let rig = rig.with_journal(len as u64, [80, 200, 1000][rng.random_range(0..3)]);
        kills += survive(seed, &rig, contents, seed % 8 > 1);
    }
    assert!(kills > 500, "{kills}");
}

#[test]
fn damaged_qcow2_images_are_refused_or_used_but_never_a_panic() {
    for seed in 0..1000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 9 * 4096 + 512, 300_032][rng.random_range(0..3)];
        let (images, _) = random_qcow2(&mut rng, len);
        let mut image = bytes_of(&images[0].0);
        damage(&mut image, || rng.random());
        fuzz_qcow2(&image);
    }
}

#[test]
fn a_disk_has_one_hash_in_every_format() {
    let mut rng = SmallRng::seed_from_u64(9);
    let (images, contents) = random_qcow2(&mut rng, 3 << 20);
    let expected = *blake3::hash(&contents).as_bytes();
    let mut heard = Vec::new();
    let hash = image_hash(Rig::new(images, 0, DiskMode::ReadOnly).files(), |done, all| heard.push((done, all)));
    assert_eq!(hash.unwrap(), expected);
    assert_eq!(heard, [(0, 3 << 20), (1 << 20, 3 << 20), (2 << 20, 3 << 20), (3 << 20, 3 << 20)]);
    let raw = Rig::new(vec![(memfd(&contents), DiskFormat::Raw)], 0, DiskMode::ReadOnly);
    assert_eq!(image_hash(raw.files(), |_, _| ()).unwrap(), expected);
}

/// What a machine's life leaves of a disk with an overlay, for the next life: a layer and the blocks in it.
fn left(rig: Rig, before: Vec<u64>) -> Option<(File, Vec<u64>)> {
    let layer = memfd(&[]);
    let (journal, slots) = rig.journal.expect("it has one");
    let image = |(file, format): (File, DiskFormat)| (DiskFile::new(file.into(), "image"), format);
    let finished = Finished {
        images: rig.images.into_iter().map(image).collect(),
        overlay: DiskFile::new(rig.overlay.expect("it has one").into(), "overlay"),
        journal: (DiskFile::new(journal.into(), "journal"), slots),
        before,
    };
    let blocks = write_layer(finished, &DiskFile::new(again(&layer), "layer")).unwrap()?;
    check_qcow2(&bytes_of(&layer)).unwrap();
    Some((layer, blocks))
}

/// A machine that starts anew finds on its disk what it wrote in all lives before, and the image is as it was.
#[test]
fn what_was_written_beside_an_image_goes_into_the_next_life() {
    for seed in 0..12 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // One block that is cut short, some, and more than one table of the layer maps.
        let size = [1536, 70_144, 5 << 20, 40 << 20][seed as usize % 4];
        let contents = random_bytes(&mut rng, size);
        let (image, format) = match seed % 3 {
            0 => (contents.clone(), DiskFormat::Raw),
            _ => {
                let builder = Qcow2Builder { version: 3, cluster_bits: 12, backing: None };
                (builder.build(&contents, |_| Cluster::Plain), DiskFormat::Qcow2)
            }
        };
        let (file, mut bytes) = (memfd(&image), contents);
        let mut last: Option<(File, Vec<u64>)> = None;
        for life in 0..5 {
            let mut images = vec![(File::from(again(&file)), format)];
            let mut before = Vec::new();
            if let Some((layer, blocks)) = last.take() {
                images.insert(0, (layer, DiskFormat::Qcow2));
                before = blocks;
            }
            let rig = Rig::new(images, size as u64, DiskMode::Snapshot).with_journal(size as u64, 1 << 18);
            let mut disk = Disk::open(rig.files()).unwrap();
            let mut model = Model::new(bytes);
            assert!(whole(&mut disk) == model.bytes, "seed {seed}, life {life}");
            assert!(disk.unchanged(0, disk.len()), "it is what the recording of this life begins with");
            // Lives in which nothing is written: the first, and one behind others.
            if life != 0 && life != 3 {
                drive(&mut rng, &mut disk, &mut model, 40);
            }
            disk.finish().unwrap();
            drop(disk);
            bytes = model.bytes;
            last = left(rig, before);
            assert_eq!(last.is_some(), life > 0, "seed {seed}, life {life}");
        }
        assert!(bytes_of(&file) == image, "the image is as it was");
    }
}
