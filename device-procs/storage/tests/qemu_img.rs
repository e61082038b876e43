//! qcow2 judged by the program that defines it: images that `qemu-img` made are read, and images that a disk wrote are checked by it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use reprise_child::control::DiskMode;
use reprise_machine::DiskFormat;
use reprise_storage::Disk;
use reprise_storage::testing::Rig;

const SIZE: usize = 3 << 20;

/// `qemu-img` on `PATH`; without it the tests say so and end.
fn qemu_img() -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join("qemu-img")).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no qemu-img (Debian's package is qemu-utils)");
    }
    found
}

struct Bench {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Self> {
        Some(Self { program: qemu_img()?, dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) {
        let out = Command::new(&self.program).args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn open(&self, chain: &[(&str, DiskFormat)], mode: DiskMode) -> Rig {
        let open = |name: &Path| File::options().read(true).write(mode == DiskMode::Writable).open(name).unwrap();
        Rig::new(chain.iter().map(|(name, format)| (open(&self.path(name)), *format)).collect(), SIZE as u64, mode)
    }

    /// What `qemu-img` finds in an image.
    fn contents(&self, name: &str) -> Vec<u8> {
        self.run(&["convert", "-f", "qcow2", "-O", "raw", name, "out.raw"]);
        fs::read(self.path("out.raw")).unwrap()
    }
}

/// Stretches of noise, of one byte, and of nothing.
fn contents(rng: &mut SmallRng) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    for piece in bytes.chunks_mut(50_000) {
        match rng.random_range(0..3) {
            0 => rng.fill_bytes(piece),
            1 => piece.fill(rng.random()),
            _ => {}
        }
    }
    bytes
}

fn whole(disk: &mut Disk) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// Writes and discards at random, in the disk and in what it should hold.
fn drive(rng: &mut SmallRng, disk: &mut Disk, model: &mut [u8]) {
    for _ in 0..200 {
        let at = rng.random_range(0..SIZE / 512) * 512;
        let len = (rng.random_range(1..200) * 512).min(SIZE - at);
        if rng.random_ratio(1, 5) {
            disk.discard(at as u64, len as u64).unwrap();
            model[at..at + len].fill(0);
        } else {
            rng.fill_bytes(&mut model[at..at + len]);
            disk.write(at as u64, &model[at..at + len]).unwrap();
        }
    }
}

const KINDS: [&[&str]; 6] = [
    &["-o", "compat=0.10"],
    &["-o", "compat=1.1,cluster_size=4k"],
    &["-o", "compat=1.1,cluster_size=2M"],
    &["-o", "compat=1.1,refcount_bits=64"],
    &["-o", "compat=1.1,preallocation=metadata"],
    &["-c", "-o", "compat=1.1"],
];

#[test]
fn images_of_qemu_img_are_read_and_what_is_written_it_finds_whole() {
    let Some(bench) = Bench::new() else { return };
    for (seed, kind) in (0..).zip(KINDS) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut model = contents(&mut rng);
        fs::write(bench.path("in.raw"), &model).unwrap();
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(kind);
        args.extend(["in.raw", "disk.qcow2"]);
        bench.run(&args);
        let rig = bench.open(&[("disk.qcow2", DiskFormat::Qcow2)], DiskMode::Writable);
        let mut disk = Disk::open(rig.files()).unwrap();
        assert!(whole(&mut disk) == model, "{kind:?}");
        drive(&mut rng, &mut disk, &mut model);
        disk.finish().unwrap();
        drop(disk);
        bench.run(&["check", "-f", "qcow2", "disk.qcow2"]);
        assert!(bench.contents("disk.qcow2") == model, "{kind:?}");
    }
}

#[test]
fn chains_of_images_are_read_through_and_written_at_the_top() {
    let Some(bench) = Bench::new() else { return };
    let mut rng = SmallRng::seed_from_u64(7);
    let mut model = contents(&mut rng);
    fs::write(bench.path("base.raw"), &model).unwrap();
    bench.run(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "middle.qcow2"]);
    bench.run(&["create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2"]);
    let below = [("middle.qcow2", DiskFormat::Qcow2), ("base.raw", DiskFormat::Raw)];
    let base = fs::read(bench.path("base.raw")).unwrap();
    {
        let mut disk = Disk::open(bench.open(&below, DiskMode::Writable).files()).unwrap();
        drive(&mut rng, &mut disk, &mut model);
        disk.finish().unwrap();
    }
    let chain = [("top.qcow2", DiskFormat::Qcow2), below[0], below[1]];
    {
        let mut disk = Disk::open(bench.open(&chain, DiskMode::Writable).files()).unwrap();
        assert!(whole(&mut disk) == model);
        drive(&mut rng, &mut disk, &mut model);
        disk.finish().unwrap();
    }
    for name in ["middle.qcow2", "top.qcow2"] {
        bench.run(&["check", "-f", "qcow2", name]);
    }
    assert!(bench.contents("top.qcow2") == model);
    assert!(fs::read(bench.path("base.raw")).unwrap() == base);
    let top = fs::read(bench.path("top.qcow2")).unwrap();
    let mut disk = Disk::open(bench.open(&chain, DiskMode::Snapshot).files()).unwrap();
    let mut scratch = model.clone();
    drive(&mut rng, &mut disk, &mut scratch);
    assert!(whole(&mut disk) == scratch);
    disk.finish().unwrap();
    assert!(fs::read(bench.path("top.qcow2")).unwrap() == top, "a snapshot leaves the image as it was");
}
