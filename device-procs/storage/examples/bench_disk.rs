//! What a disk costs, in CPU time: sequential and random reads and writes, for each kind of disk, with and without a journal.
//!
//! `cargo run --release -p reprise-storage --example bench_disk [FOLDER]`. The image lies in FOLDER (default: the temporary folder); in one that is kept
//! in memory what is measured is the code, not the drive.

use std::fs::File;

use nix::time::{ClockId, clock_gettime};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_child::control::DiskMode;
use reprise_machine::DiskFormat;
use reprise_storage::testing::{Cluster, Qcow2Builder, Rig};
use reprise_storage::{DEFAULT_SLOTS, Disk};

const SIZE: u64 = 256 << 20;

/// What a device's owner does between two steps.
fn between(disk: &mut Disk, generation: &mut u64) {
    if disk.wants_checkpoint() {
        *generation += 1;
        disk.checkpoint(*generation).expect("a checkpoint");
        disk.release(*generation).expect("the image takes it");
    }
}

/// CPU time of this process, the kernel's included: other programs don't change it much.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every process has that clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// MB/s and microseconds a call, of `count` calls of `len` bytes.
fn measure(disk: &mut Disk, generation: &mut u64, len: usize, count: u64, random: bool, write: bool) -> (f64, f64) {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut buffer = vec![0x5a; len];
    let places = SIZE / len as u64;
    let began = cpu_seconds();
    for i in 0..count {
        let at = if random { rng.random_range(0..places) } else { i % places } * len as u64;
        if write {
            disk.write(at, &buffer).expect("a write");
            between(disk, generation);
        } else {
            disk.read(at, &mut buffer).expect("a read");
        }
    }
    let seconds = cpu_seconds() - began;
    ((len as u64 * count) as f64 / seconds / 1e6, seconds * 1e6 / count as f64)
}

fn image(folder: &std::path::Path, format: DiskFormat) -> File {
    let contents = vec![0xa5; SIZE as usize];
    let bytes = match format {
        DiskFormat::Raw => contents,
        DiskFormat::Qcow2 => {
            Qcow2Builder { version: 3, cluster_bits: 16, backing: None }.build(&contents, |_| Cluster::Plain)
        }
    };
    let file = tempfile::tempfile_in(folder).expect("the folder can be written");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("there is room for the image");
    file
}

fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    println!(
        "{:<28}{:>22}{:>22}{:>18}{:>18}",
        "", "read 64 KiB, seq", "write 64 KiB, seq", "read 4 KiB", "write 4 KiB"
    );
    for (format, mode, journal) in [
        (DiskFormat::Raw, DiskMode::Writable, false),
        (DiskFormat::Raw, DiskMode::Writable, true),
        (DiskFormat::Raw, DiskMode::Snapshot, false),
        (DiskFormat::Raw, DiskMode::Snapshot, true),
        (DiskFormat::Qcow2, DiskMode::Writable, false),
        (DiskFormat::Qcow2, DiskMode::Writable, true),
    ] {
        let mut rig = Rig::new(vec![(image(&folder, format), format)], SIZE, mode);
        if journal {
            rig = rig.with_journal(SIZE, DEFAULT_SLOTS);
        }
        let mut disk = Disk::open(rig.files()).expect("the image is good");
        let mut generation = 0;
        let sequential = |(mb, us): (f64, f64)| format!("{mb:.0} MB/s {us:.1} us");
        let random = |(_, us): (f64, f64)| format!("{us:.2} us");
        // The first round makes pages, which later ones find.
        measure(&mut disk, &mut generation, 64 << 10, SIZE >> 16, false, true);
        let read = measure(&mut disk, &mut generation, 64 << 10, SIZE >> 14, false, false);
        let write = measure(&mut disk, &mut generation, 64 << 10, SIZE >> 14, false, true);
        let read4 = measure(&mut disk, &mut generation, 4 << 10, 200_000, true, false);
        let write4 = measure(&mut disk, &mut generation, 4 << 10, 200_000, true, true);
        let name = format!("{format:?} {mode:?}{}", if journal { ", journal" } else { "" });
        let (r, w) = (sequential(read), sequential(write));
        println!("{name:<28}{r:>22}{w:>22}{:>18}{:>18}", random(read4), random(write4));
    }
}
