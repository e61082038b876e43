//! `inputs/`: files under the hash of their bytes.

use crate::{Error, Fault, INPUTS_DIR, Place, Result, manifest::is_hash};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRef {
    /// BLAKE3 of its bytes, 64 hex digits.
    pub hash: String,
    /// Its size.
    pub size: u64,
}

/// A name that no other writer uses: of this process and the next number.
pub(crate) fn temp_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".tmp-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Stores bytes in the recording at `dir`, which is made if need be. Bytes that are there already are not written again.
///
/// # Errors
/// [`Error::Io`] if the system refuses; nothing half-written stays under a hash's name.
pub fn store_input(dir: &Path, bytes: &[u8]) -> Result<InputRef> {
    store(dir, &mut &*bytes)
}

/// Stores a copy of the file `from`, in pieces, so its size does not matter.
///
/// # Errors
/// As [`store_input`].
pub fn store_input_file(dir: &Path, from: &Path) -> Result<InputRef> {
    let mut file = File::open(from).map_err(Error::io("open", from))?;
    store(dir, &mut file)
}

fn store(dir: &Path, from: &mut dyn Read) -> Result<InputRef> {
    let folder = dir.join(INPUTS_DIR);
    fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
    let temp = folder.join(temp_name());
    let done = copy_hashed(from, &temp).and_then(|input| {
        let to = folder.join(&input.hash);
        // An equal file that is there is kept; one that is damaged is replaced by this good one.
        if fs::metadata(&to).is_ok_and(|m| m.len() == input.size) && read_input(dir, &input.hash).is_ok() {
            fs::remove_file(&temp).map_err(Error::io("remove", &temp))?;
        } else {
            fs::rename(&temp, &to).map_err(Error::io("rename to", &to))?;
        }
        Ok(input)
    });
    if done.is_err() {
        let _best_effort = fs::remove_file(&temp);
    }
    done
}

/// The BLAKE3 of a file's bytes as 64 hex digits, and its size. A hole costs no reading, but is hashed like the zeros that it stands for.
///
/// # Errors
/// [`Error::Io`].
pub fn hash_file(path: &Path) -> Result<InputRef> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("look at", path))?.len();
    let mut hasher = blake3::Hasher::new();
    each_piece(&file, size, |piece| {
        hasher.update(piece);
    })
    .map_err(Error::io("read", path))?;
    Ok(InputRef { hash: hasher.finalize().to_hex().to_string(), size })
}

/// Stores the contents of a disk of `size` bytes: shared with `original`, the raw image, where the file system can do that, else as `read` gives them
/// (offset, buffer), with holes where there are zeros.
///
/// # Errors
/// As [`store_input`].
pub fn store_image(
    dir: &Path,
    size: u64,
    original: Option<BorrowedFd<'_>>,
    read: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> Result<InputRef> {
    let folder = dir.join(INPUTS_DIR);
    fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
    let temp = folder.join(temp_name());
    let done = copy_image(&temp, size, original, read).and_then(|()| {
        let input = hash_file(&temp)?;
        let to = folder.join(&input.hash);
        fs::rename(&temp, &to).map_err(Error::io("rename to", &to))?;
        Ok(input)
    });
    if done.is_err() {
        let _best_effort = fs::remove_file(&temp);
    }
    done
}

fn copy_image(
    to: &Path,
    size: u64,
    original: Option<BorrowedFd<'_>>,
    mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> Result<()> {
    let out = File::options().read(true).write(true).create_new(true).open(to).map_err(Error::io("create", to))?;
    let shared = original.is_some_and(|from| reflink(&out, from));
    let mut copy = || {
        let mut buffer = vec![0; 1 << 20];
        for at in (0..size).step_by(buffer.len()) {
            let piece = &mut buffer[..(size - at).min(1 << 20) as usize];
            read(at, piece)?;
            for (i, block) in piece.chunks(4096).enumerate() {
                if block.iter().any(|&b| b != 0) {
                    out.write_all_at(block, at + 4096 * i as u64)?;
                }
            }
        }
        Ok(())
    };
    let copied = if shared { Ok(()) } else { copy() };
    copied.and_then(|()| out.set_len(size)).map_err(Error::io("copy an image to", to))
}

/// `FICLONE` of `linux/fs.h`; false if the file system can't.
fn reflink(to: &File, from: BorrowedFd<'_>) -> bool {
    nix::ioctl_write_int!(ficlone, 0x94, 9);
    // SAFETY: the call takes two descriptors, which are open.
    unsafe { ficlone(to.as_raw_fd(), from.as_raw_fd() as nix::sys::ioctl::ioctl_param_type) }.is_ok()
}

/// Calls `f` for every piece of a file in order; holes are not read.
fn each_piece(file: &File, size: u64, mut f: impl FnMut(&[u8])) -> std::io::Result<()> {
    use nix::unistd::{Whence, lseek};
    let mut buffer = vec![0; 256 << 10];
    let zeros = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        // Where holes are unknown to the file system, everything is data.
        let data = match lseek(file, at as i64, Whence::SeekData) {
            Ok(data) => (data as u64).min(size),
            Err(nix::errno::Errno::ENXIO) => size,
            Err(_) => at,
        };
        while at < data {
            let n = (data - at).min(zeros.len() as u64);
            f(&zeros[..n as usize]);
            at += n;
        }
        let hole = lseek(file, at as i64, Whence::SeekHole).map_or(size, |h| (h as u64).min(size));
        let end = if hole > at { hole } else { size };
        while at < end {
            let n = (end - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..n], at)?;
            f(&buffer[..n]);
            at += n as u64;
        }
    }
    Ok(())
}

fn copy_hashed(from: &mut dyn Read, to: &Path) -> Result<InputRef> {
    let mut out = File::options().write(true).create_new(true).open(to).map_err(Error::io("create", to))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io("read the original of", to)(e)),
        };
        hasher.update(&buffer[..n]);
        out.write_all(&buffer[..n]).map_err(Error::io("write", to))?;
        size += n as u64;
    }
    Ok(InputRef { hash: hasher.finalize().to_hex().to_string(), size })
}

/// Checks a stored file against its name, in pieces; its size.
pub(crate) fn check_input(dir: &Path, hash: &str) -> Result<u64> {
    let place = || Place::file(format!("{INPUTS_DIR}/{hash}"));
    let path = input_path(dir, hash);
    if !path.exists() {
        return Err(Fault::new(place(), "missing").into());
    }
    let found = hash_file(&path)?;
    if found.hash != hash {
        return Err(Fault::new(place(), "its bytes don't match its name: a byte of it was changed").into());
    }
    Ok(found.size)
}

/// The file of a hash.
pub(crate) fn input_path(dir: &Path, hash: &str) -> PathBuf {
    dir.join(INPUTS_DIR).join(hash)
}

/// Reads a stored file and checks it against its name.
///
/// # Errors
/// [`Error::Corrupt`] if it is missing or other bytes than were stored, [`Error::Io`] if the system refuses.
pub fn read_input(dir: &Path, hash: &str) -> Result<Vec<u8>> {
    let place = || Place::file(format!("{INPUTS_DIR}/{hash}"));
    if !is_hash(hash) {
        return Err(Error::Invalid(format!("`{hash}` is no BLAKE3 hash")));
    }
    let path = input_path(dir, hash);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Fault::new(place(), "missing").into()),
        other => other.map_err(Error::io("read", &path))?,
    };
    if blake3::hash(&bytes).to_hex().as_str() != hash {
        return Err(Fault::new(place(), "its bytes don't match its name: a byte of it was changed").into());
    }
    Ok(bytes)
}
