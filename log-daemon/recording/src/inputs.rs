//! `inputs/`: files under the hash of their bytes.

use crate::{Error, Fault, INPUTS_DIR, Place, Result, manifest::is_hash};
use std::{
    fs::{self, File},
    io::{Read, Write},
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
