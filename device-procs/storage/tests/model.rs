//! Disks against a model: the bytes that were written, in a vector.

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use reprise_child::control::DiskMode;
use reprise_machine::DiskFormat;
use reprise_storage::testing::{Cluster, Qcow2Builder, Rig, memfd};
use reprise_storage::{BLOCK, Disk, Flush};

/// What a disk should be.
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
        std::os::unix::fs::FileExt::read_exact_at(&rig.images[0].0, &mut file, 0).unwrap();
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

#[test]
fn qcow2_images_are_what_their_tables_say() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = [512, 9 * 4096 + 512, 300_032, 1 << 20][rng.random_range(0..4)];
        let mut contents = random_bytes(&mut rng, len);
        let builder = Qcow2Builder {
            version: rng.random_range(2..4),
            cluster_bits: rng.random_range(9..17),
            backing: rng.random_ratio(1, 3).then(|| ("below".into(), None)),
        };
        // What lies below may be shorter or longer, and end in the middle of a sector.
        let below = random_bytes(&mut rng, 200_001);
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
        let rig = Rig::new(images, len as u64, MODES[rng.random_range(0..3)]);
        check(&mut rng, &rig, contents, &image);
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
