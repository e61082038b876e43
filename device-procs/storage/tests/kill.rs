//! A real process in the sandbox that uses a disk and is killed at any moment, again and again.
//!
//! The process is this test program again, told by the environment what to do. It writes down on a pipe which state it has saved, as a device sends its
//! state to the supervisor; what is in the pipe outlives it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use reprise_child::control::{DiskImage, DiskJournal, DiskMode, DiskStart};
use reprise_child::sandbox::{Policy, Role, Stage, enter};
use reprise_machine::DiskFormat;
use reprise_storage::testing::{Cluster, Qcow2Builder, check_qcow2, memfd, zeros};
use reprise_storage::{Disk, DiskFiles, Flush, journal_size};

const JOB: &str = "REPRISE_TEST_DISK";
const SIZE: usize = 600_064;
const OPS: u64 = 3000;
const SLOTS: u32 = 256;
/// Where the process finds its descriptors: out of the way of those that starting it takes.
const IMAGE: i32 = 200;
const BELOW: i32 = 201;
const OVERLAY: i32 = 202;
const JOURNAL: i32 = 203;
const PIPE: i32 = 204;

/// What request number `n` does: where, and what it writes; nothing is a discard.
fn op(n: u64) -> (usize, Vec<u8>, bool) {
    let mut rng = SmallRng::seed_from_u64(n);
    let at = rng.random_range(0..SIZE);
    let mut data = vec![0; rng.random_range(1..=30_000.min(SIZE - at))];
    let discard = rng.random_ratio(1, 6);
    if !discard {
        rng.fill_bytes(&mut data);
    }
    (at, data, discard)
}

fn start(format: DiskFormat, mode: DiskMode) -> DiskStart {
    let image = |fd, format| DiskImage { fd, name: format!("image {fd}"), format };
    let mut images = vec![image(IMAGE, format)];
    if format == DiskFormat::Qcow2 {
        images.push(image(BELOW, DiskFormat::Raw));
    }
    DiskStart {
        name: "disk".into(),
        images,
        mode,
        overlay: (mode == DiskMode::Snapshot).then_some(OVERLAY),
        journal: Some(DiskJournal { fd: JOURNAL, slots: SLOTS }),
    }
}

fn kind(number: usize) -> (DiskFormat, DiskMode) {
    [
        (DiskFormat::Raw, DiskMode::Writable),
        (DiskFormat::Qcow2, DiskMode::Writable),
        (DiskFormat::Raw, DiskMode::Snapshot),
    ][number]
}

/// The process's side; nothing if this is an ordinary run of the tests. The generation is the number of requests that were worked off.
#[test]
fn inside() {
    let Ok(job) = std::env::var(JOB) else { return };
    let (number, generation) = job.split_once(' ').unwrap();
    let (format, mode) = kind(number.parse().unwrap());
    let start = start(format, mode);
    // SAFETY: the parent has put each descriptor there for this process alone.
    let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    let mut pipe = File::from(own(PIPE));
    let files = DiskFiles::new(&start, own).unwrap();
    let policy = Policy { role: Role::Device, address_space: 4 << 30, descriptors: 512, disk: start.files() };
    enter(Stage::Attached, &policy).unwrap();
    enter(Stage::Loaded, &policy).unwrap();
    let mut done: u64 = generation.parse().unwrap();
    // Of a journal that nobody has touched it makes a new one.
    let mut disk = Disk::recover(files, done).unwrap();
    while done < OPS {
        let (at, data, discard) = op(done);
        if discard {
            disk.discard(at as u64, data.len() as u64).unwrap();
        } else {
            disk.write(at as u64, &data).unwrap();
        }
        done += 1;
        let durable = done % 40 != 0 || disk.flush().unwrap() == Flush::Done;
        if disk.wants_checkpoint() || !durable || disk.room() < 64 || done == OPS {
            disk.checkpoint(done).unwrap();
            pipe.write_all(&done.to_le_bytes()).unwrap();
            disk.release(done).unwrap();
        }
    }
    disk.finish().unwrap();
    pipe.write_all(&u64::MAX.to_le_bytes()).unwrap();
    // SAFETY: ends the process without the test harness's own clean-up, which the sandbox need not allow.
    unsafe { libc::_exit(0) };
}

/// The descriptors of one process, and its life; gives what it wrote to the pipe.
fn live(number: usize, generation: u64, files: &[(&File, i32)], time: Duration) -> Vec<u64> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut reader = File::from(reader);
    let far = |fd: BorrowedFd<'_>| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(300)).unwrap();
    let mut numbers: Vec<(i32, i32)> = files.iter().map(|(file, to)| (far(file.as_fd()), *to)).collect();
    numbers.push((far(writer.as_fd()), PIPE));
    drop(writer);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "inside", "--nocapture"]).env(JOB, format!("{number} {generation}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let places = numbers.clone();
    // SAFETY: dup2 takes numbers only.
    let dup2 = |&(from, to): &(i32, i32)| nix::errno::Errno::result(unsafe { libc::dup2(from, to) }).map(drop);
    let place = move || Ok(places.iter().try_for_each(dup2)?);
    // SAFETY: dup2 is async-signal-safe.
    unsafe { command.pre_exec(place) };
    let mut child = command.spawn().unwrap();
    // SAFETY: made above, and not used any more.
    numbers.iter().for_each(|(from, _)| drop(unsafe { OwnedFd::from_raw_fd(*from) }));
    std::thread::sleep(time);
    // It may have ended, or not have begun: any moment is as good as another.
    let _ = child.kill();
    child.wait().unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
}

fn contents_after(ops: u64, before: &[u8]) -> Vec<u8> {
    let mut bytes = before.to_vec();
    (0..ops).map(op).for_each(|(at, data, _)| bytes[at..at + data.len()].copy_from_slice(&data));
    bytes
}

fn kill_until_done(number: usize) {
    let (format, mode) = kind(number);
    let mut rng = SmallRng::seed_from_u64(number as u64);
    let mut before = vec![0; SIZE];
    rng.fill_bytes(&mut before);
    let below = memfd(&before);
    let image = match format {
        DiskFormat::Raw => before.clone(),
        DiskFormat::Qcow2 => {
            let builder = Qcow2Builder { version: 3, cluster_bits: 12, backing: Some(("below".into(), None)) };
            builder.build(&before, |i| if i % 2 == 0 { Cluster::Absent } else { Cluster::Compressed })
        }
    };
    let image = memfd(&image);
    let (overlay, journal) = (zeros(SIZE.next_multiple_of(4096) as u64), zeros(journal_size(SIZE as u64, SLOTS)));
    let files = [(&image, IMAGE), (&below, BELOW), (&overlay, OVERLAY), (&journal, JOURNAL)];
    let mut saved = 0;
    for attempt in 0.. {
        assert!(attempt < 10_000, "it never ends");
        // The longer it takes, the longer the process may live.
        let time = Duration::from_micros(rng.random_range(0..4000 + 400 * attempt));
        let said = live(number, saved, &files, time);
        if said.last() == Some(&u64::MAX) {
            break;
        }
        saved = said.last().copied().unwrap_or(saved);
        if format == DiskFormat::Qcow2 {
            let mut bytes = vec![0; image.metadata().unwrap().len() as usize];
            image.read_exact_at(&mut bytes, 0).unwrap();
            check_qcow2(&bytes).unwrap();
        }
    }
    // What a new process finds is what was written, each request once and in order.
    let dup = |fd: i32| -> OwnedFd {
        let file = files.iter().find(|(_, number)| *number == fd).unwrap().0;
        file.try_clone().unwrap().into()
    };
    let mut disk = Disk::recover(DiskFiles::new(&start(format, mode), dup).unwrap(), OPS).unwrap();
    let mut bytes = vec![0; SIZE];
    disk.read(0, &mut bytes).unwrap();
    assert!(bytes == contents_after(OPS, &before));
}

#[test]
fn a_raw_disk_survives_kill_9() {
    kill_until_done(0);
}

#[test]
fn a_qcow2_disk_survives_kill_9() {
    kill_until_done(1);
}

#[test]
fn an_overlay_survives_kill_9() {
    kill_until_done(2);
}
