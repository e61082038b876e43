//! A machine's lock file: it names what the machine leaves in `/dev/shm` should its supervisor be killed, so that the next start can sweep it.
//!
//! The file lies in `$XDG_RUNTIME_DIR/reprise`, else in `reprise-<uid>` in the temp folder, and is locked as long as its machine lives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use reprise_child::operator::SUFFIX;
use reprise_child::runtime_folders;

/// The most bytes of a lock file that are looked at.
const MAX_LOCK_FILE: u64 = 64 << 10;

/// A living machine's lock file. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct MachineLock {
    path: PathBuf,
    _lock: Flock<File>,
}

impl MachineLock {
    /// Makes the lock file of a machine that will have these segments.
    pub(crate) fn create(uuid: &str, segments: &[String]) -> anyhow::Result<Self> {
        let folder = runtime_folders()
            .into_iter()
            .find(|f| usable(f))
            .context("no folder for the lock file: set XDG_RUNTIME_DIR or TMPDIR to one that you own")?;
        let path = folder.join(format!("{uuid}.lock"));
        let temp = folder.join(format!(".{uuid}.new"));
        let at = || format!("{}", path.display());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temp).with_context(at)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e).with_context(at)?;
        // Whole and locked before a sweeper can see it.
        writeln!(lock, "{}", segments.join("\n")).with_context(at)?;
        fs::rename(&temp, &path).with_context(at)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where the machine's socket for operators is to lie.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.with_extension(SUFFIX.trim_start_matches('.'))
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        // What can't be removed is swept by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder if need be; one that somebody else owns is not used.
fn usable(folder: &Path) -> bool {
    let made = fs::DirBuilder::new().mode(0o700).create(folder);
    let owner = fs::symlink_metadata(folder).is_ok_and(|m| m.is_dir() && m.uid() == nix::unistd::getuid().as_raw());
    owner && (made.is_ok() || made.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists))
}

/// Removes what dead supervisors have left. Whatever goes wrong is not worth failing for.
pub(crate) fn sweep() {
    for folder in runtime_folders() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "lock")) {
            sweep_one(&path);
        }
    }
    sweep_unnamed(Path::new("/dev/shm"), UNNAMED_AGE);
}

/// How old a segment must be that no lock file names before it counts as left over.
const UNNAMED_AGE: Duration = Duration::from_secs(60);

/// Removes segments of this user that no lock file names and no process has mapped. `$XDG_RUNTIME_DIR` is emptied when its user logs out, and the
/// lock file of a machine that was killed goes with it. A living supervisor has its segments mapped.
fn sweep_unnamed(folder: &Path, age: Duration) {
    let uid = nix::unistd::getuid().as_raw();
    let old = |m: &fs::Metadata| m.uid() == uid && m.modified().is_ok_and(|t| t.elapsed().is_ok_and(|e| e >= age));
    let Ok(entries) = fs::read_dir(folder) else { return };
    let ours = entries.flatten().filter(|e| e.metadata().is_ok_and(|m| m.is_file() && old(&m)));
    let mut names: Vec<String> =
        ours.filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_segment(n)).collect();
    if names.is_empty() {
        return;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for maps in processes.flatten().filter_map(|p| fs::read_to_string(p.path().join("maps")).ok()) {
        names.retain(|n| !maps.contains(n.as_str()));
    }
    for name in names {
        tracing::debug!("swept the segment {name}, which nobody uses");
        // Somebody else may have been faster.
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Is this the name of a machine's segment: `reprise-<uuid>-<number>`?
fn is_segment(name: &str) -> bool {
    let Some((uuid, number)) = name.strip_prefix("reprise-").and_then(|rest| rest.rsplit_once('-')) else {
        return false;
    };
    let hex = uuid.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-');
    uuid.len() == 36 && hex && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

fn sweep_one(path: &Path) {
    let Ok(file) = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path) else { return };
    // A lock that can't be had is a machine that lives.
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return };
    let mut text = String::new();
    if (&*lock).take(MAX_LOCK_FILE).read_to_string(&mut text).is_err() {
        return;
    }
    let mut swept = 0;
    for name in text.lines().filter(|l| !l.is_empty()) {
        // Names that are no segment's are refused there.
        swept += usize::from(reprise_channel::segment::unlink(name).unwrap_or(false));
    }
    let _ = fs::remove_file(path.with_extension(SUFFIX.trim_start_matches('.')));
    tracing::debug!("swept {swept} segments of a dead machine, {}", path.display());
    // Still locked, so nobody else takes the name meanwhile.
    let _ = fs::remove_file(path);
}

/// A random number.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A new random UUID (RFC 9562, version 4).
pub(crate) fn new_uuid() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4_and_differ() {
        let (a, b) = (new_uuid().unwrap(), new_uuid().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
        assert!(matches!(&a[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn a_dead_machines_segments_are_swept_and_a_living_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let uuid = new_uuid().unwrap();
        let name = reprise_channel::segment::segment_name(&uuid, 0);
        let shm = Path::new("/dev/shm").join(&name);
        fs::write(&shm, b"left").unwrap();
        let path = folder.path().join("a.lock");
        fs::write(&path, format!("../etc/passwd\n{name}\n")).unwrap();
        let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        sweep_one(&path);
        assert!(shm.exists() && path.exists());
        drop(held);
        sweep_one(&path);
        assert!(!shm.exists() && !path.exists());
    }

    #[test]
    fn a_segment_that_nobody_names_or_maps_is_swept_once_it_is_old() {
        let uuid = new_uuid().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = folder.path().join(name);
            fs::write(&path, b"left").unwrap();
            path
        };
        let (left, mapped, foreign) =
            (make(format!("reprise-{uuid}-0")), make(format!("reprise-{uuid}-12")), make("reprise-notes-1".into()));
        let file = File::options().read(true).write(true).open(&mapped).unwrap();
        let length = std::num::NonZeroUsize::new(4).unwrap();
        let (read, shared) = (nix::sys::mman::ProtFlags::PROT_READ, nix::sys::mman::MapFlags::MAP_SHARED);
        // SAFETY: a new read-only mapping that nothing looks at; it lasts as long as the process.
        unsafe { nix::sys::mman::mmap(None, length, read, shared, &file, 0) }.unwrap();
        sweep_unnamed(folder.path(), Duration::from_secs(60));
        assert!(left.exists(), "it is young");
        sweep_unnamed(folder.path(), Duration::ZERO);
        assert!(!left.exists() && mapped.exists() && foreign.exists());
    }
}
