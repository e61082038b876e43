//! Disks and recordings: what a recording says of them, and where a replay finds them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use reprise_child::control::{DiskMode, Mode};
use reprise_machine::{Disk, DiskFormat, Machine};
use reprise_recording::{DiskImage, Recording, store_image};
use reprise_storage::StorageError;

use crate::disks::OpenDisk;
use crate::failure::Failure;
use crate::terminal::say;

/// From so many bytes on the user hears that a disk is read.
const LONG: u64 = 1 << 30;

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn mode_name(mode: DiskMode) -> &'static str {
    match mode {
        DiskMode::Writable => "writable",
        DiskMode::ReadOnly => "read-only",
        DiskMode::Snapshot => "snapshot",
    }
}

/// The names of a machine's devices.
pub(crate) fn names(machine: &Machine) -> Vec<&str> {
    machine.devices.iter().map(|d| d.name.as_str()).collect()
}

/// Hashes the disks, and stores those in the recording whose images take no more than `limit` bytes of the host's disk, or that no file holds.
pub(crate) fn record(
    dir: &Path,
    devices: &[&str],
    disks: &[Option<OpenDisk>],
    limit: u64,
) -> Result<Vec<DiskImage>, Failure> {
    let mut all = Vec::new();
    for (&device, disk) in devices.iter().zip(disks) {
        let Some(disk) = disk else { continue };
        let stored = disk.is_inherited() || disk.allocated().context("looking at a disk's image")? <= limit;
        let (size, hash) = if stored { store(dir, disk)? } else { hash(device, disk)? };
        all.push(DiskImage {
            device: device.to_owned(),
            disk: 0,
            name: disk.image().name().to_owned(),
            format: if disk.format().0 == DiskFormat::Raw { "raw" } else { "qcow2" }.into(),
            size,
            hash,
            mode: mode_name(disk.mode()).into(),
            stored,
        });
    }
    Ok(all)
}

fn store(dir: &Path, disk: &OpenDisk) -> Result<(u64, String), Failure> {
    let failed = |e: StorageError| Failure::config(e.to_string());
    let mut contents = reprise_storage::Disk::open(disk.to_read()?).map_err(failed)?;
    let size = contents.len();
    let original = (disk.format() == (DiskFormat::Raw, true)).then(|| std::os::fd::AsFd::as_fd(disk.image()));
    let read = |at, to: &mut [u8]| contents.read(at, to).map_err(std::io::Error::other);
    let stored = store_image(dir, size, original, read)?;
    Ok((stored.size, stored.hash))
}

fn hash(device: &str, disk: &OpenDisk) -> Result<(u64, String), Failure> {
    let (mut size, mut told) = (0, false);
    let hash = disk.hash(|_, of| {
        if of >= LONG && !std::mem::replace(&mut told, true) {
            say(&format!("{device}: reading the disk, {} MiB, to know it again", of >> 20));
        }
        size = of;
    })?;
    Ok((size, hex(&hash)))
}

/// Says where a replay finds each recorded disk: in the recording, in the file that the user gives for it, or where it was.
pub(crate) fn find(
    recording: &Recording,
    machine: &mut Machine,
    given: &[(String, Disk)],
    mode: Mode,
) -> Result<(), Failure> {
    if let Some((name, _)) =
        given.iter().find(|(name, _)| machine.devices.iter().all(|d| d.name != *name || d.disk.is_none()))
    {
        return Err(Failure::usage(format!("--disk {name}: the recorded machine has no device {name} with a disk")));
    }
    for device in &mut machine.devices {
        let recorded = recording.manifest().disks.iter().find(|d| d.device == device.name);
        if recorded.is_none() && mode == Mode::Absent {
            // All its bytes are in the log.
            device.disk = None;
        }
        let Some(disk) = &mut device.disk else { continue };
        if let Some((_, other)) = given.iter().find(|(name, _)| *name == device.name) {
            (disk.file, disk.format) = (other.file.clone(), other.format);
        } else if let Some(d) = recorded.filter(|d| d.stored || recording.input_path(&d.hash).is_file()) {
            (disk.file, disk.format) = (recording.input_path(&d.hash), Some(DiskFormat::Raw));
        }
    }
    Ok(())
}

/// Compares the disks that were found with those that were recorded.
pub(crate) fn check(recording: &Recording, devices: &[&str], disks: &[Option<OpenDisk>]) -> Result<(), Failure> {
    for d in &recording.manifest().disks {
        let place = devices.iter().position(|device| *device == d.device);
        let Some(disk) = place.and_then(|i| disks[i].as_ref()) else {
            return Err(Failure::recording(format!(
                "the manifest has a disk of {}, but the machine has none",
                d.device
            )));
        };
        let (size, hash) = hash(&d.device, disk)?;
        if (size, &hash) != (d.size, &d.hash) {
            let file = PathBuf::from(disk.image().name());
            let fix = if file == recording.input_path(&d.hash) {
                "see `reprise-log verify`".to_owned()
            } else {
                format!("give a copy of {} as it was when recorded with --disk {}=FILE", d.name, d.device)
            };
            return Err(Failure::recording(format!(
                "{}: the disk image {} does not hold what was recorded; {fix}",
                d.device,
                file.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use reprise_recording::{INPUTS_DIR, Manifest, Quirks, Writer, WriterOptions, verify};
    use reprise_storage::testing::{Cluster, Qcow2Builder};

    use super::*;

    fn manifest(disks: Vec<DiskImage>) -> Manifest {
        Manifest { disks, quirks: Quirks::of(Quirks::DMA_READS), ..reprise_recording::testing::manifest(&[]) }
    }

    #[test]
    fn a_disk_is_stored_or_named_and_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let contents: Vec<u8> = (0..64u32 << 10).map(|i| if i < 40 << 10 { (i >> 3) as u8 } else { 0 }).collect();
        let raw = folder.path().join("a.img");
        std::fs::write(&raw, &contents).unwrap();
        let qcow2 = folder.path().join("b.qcow2");
        let builder = Qcow2Builder { version: 3, cluster_bits: 12, backing: Some(("a.img".into(), Some("raw"))) };
        std::fs::write(&qcow2, builder.build(&contents, |_| Cluster::Absent)).unwrap();
        let open = || {
            vec![
                None,
                Some(OpenDisk::for_test("sd", &format!("{},snapshot", raw.display()))),
                Some(OpenDisk::for_test("hd", &format!("{},snapshot", qcow2.display()))),
            ]
        };
        let names = ["uart0", "sd", "hd"];
        for limit in [1 << 20, 0] {
            let dir = tempfile::tempdir().unwrap();
            let disks = record(dir.path(), &names, &open(), limit).unwrap();
            let hash = blake3::hash(&contents).to_hex().to_string();
            assert_eq!(disks.len(), 2);
            for (d, format) in disks.iter().zip(["raw", "qcow2"]) {
                assert_eq!((&d.hash, d.size, d.stored, d.mode.as_str()), (&hash, 64 << 10, limit > 0, "snapshot"));
                assert_eq!(d.format, format);
            }
            let copy = dir.path().join(INPUTS_DIR).join(&hash);
            assert_eq!(copy.exists(), limit > 0);
            if limit > 0 {
                assert!(std::fs::read(&copy).unwrap() == contents);
                assert!(copy.metadata().unwrap().blocks() * 512 < 64 << 10, "zeros are holes");
            }
            Writer::create(dir.path(), &manifest(disks), WriterOptions::default()).unwrap().close().unwrap();
            let recording = Recording::open(dir.path()).unwrap();
            assert!(verify(dir.path()).unwrap().faults.is_empty());
            check(&recording, &names, &open()).unwrap();
            let other = folder.path().join("other.img");
            std::fs::write(&other, &contents[..60 << 10]).unwrap();
            let wrong = vec![None, Some(OpenDisk::for_test("sd", &format!("{},snapshot", other.display()))), None];
            let e = format!("{:?}", check(&recording, &names, &wrong).unwrap_err());
            assert!(e.contains("other.img does not hold what was recorded") && e.contains("--disk sd=FILE"), "{e}");
            assert!(check(&recording, &names[..1], &wrong[..1]).is_err(), "no such device");
        }
    }
}
