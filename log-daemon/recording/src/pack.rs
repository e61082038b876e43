//! A recording as one portable file: a tar archive of its directory, compressed as one zstd frame.
//!
//! `manifest.ron` comes first, then `index`, the segments and the inputs, each by name; owners, dates and modes are the same for all, so that a
//! recording always gives the same bytes. What the manifest only names, such as a large disk's image, is put among the inputs under its hash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::manifest::is_hash;
use crate::{Error, Fault, INDEX_FILE, INPUTS_DIR, MANIFEST_FILE, Place, Recording, Result, SEGMENTS_DIR};

/// How hard zstd tries. The segments are compressed already; kernels, plugins and disks are not.
const LEVEL: i32 = 10;
/// What a zstd frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most files of a packed recording.
const MAX_FILES: usize = 1 << 20;
/// What zeros are left out by when a file is unpacked.
const BLOCK: usize = 4096;

/// What was packed or unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// Bytes of the packed file.
    pub packed: u64,
}

/// True if this is a file that could be a packed recording.
pub fn is_packed(path: &Path) -> bool {
    let mut magic = [0; 4];
    path.is_file() && File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == MAGIC
}

/// Packs a recording into `to`, which must not exist yet. `more`: files for inputs that are not in the recording's directory, by their hash.
///
/// # Errors
/// [`Error::Io`]; [`Error::Corrupt`] if an input is missing. The caller checks the rest with [`crate::verify`](fn@crate::verify).
pub fn pack(recording: &Recording, more: &BTreeMap<String, PathBuf>, to: &Path) -> Result<Packed> {
    let files = files(recording, more)?;
    let out = File::create_new(to).map_err(Error::io("create", to))?;
    let done = write_archive(&files, out, to);
    if done.is_err() {
        let _best_effort = fs::remove_file(to);
    }
    done
}

/// The files of a recording by their names in the archive, in its order.
fn files(recording: &Recording, more: &BTreeMap<String, PathBuf>) -> Result<Vec<(String, PathBuf)>> {
    let dir = recording.dir();
    let mut all = vec![(MANIFEST_FILE.to_owned(), dir.join(MANIFEST_FILE))];
    if dir.join(INDEX_FILE).exists() {
        all.push((INDEX_FILE.to_owned(), dir.join(INDEX_FILE)));
    }
    let folder = dir.join(SEGMENTS_DIR);
    let entries = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", &folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        segments.push((format!("{SEGMENTS_DIR}/{name}"), path));
    }
    segments.sort();
    all.extend(segments);
    let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
    let named = recording.manifest().files().map(|(_, hash, _)| hash.to_owned());
    let swapped = recording.swaps()?.into_iter().map(|s| s.input());
    for hash in named.chain(swapped) {
        inputs.insert(hash.clone(), recording.input_path(&hash));
    }
    for disk in &recording.manifest().disks {
        inputs.insert(disk.hash.clone(), recording.input_path(&disk.hash));
    }
    inputs.extend(more.iter().map(|(hash, path)| (hash.clone(), path.clone())));
    for (hash, path) in inputs {
        let name = format!("{INPUTS_DIR}/{hash}");
        if !path.is_file() {
            return Err(Fault::new(Place::file(name), "missing").into());
        }
        all.push((name, path));
    }
    Ok(all)
}

fn write_archive(files: &[(String, PathBuf)], out: File, to: &Path) -> Result<Packed> {
    let failed = || Error::io("write", to);
    let mut encoder = zstd::Encoder::new(BufWriter::new(out), LEVEL).map_err(failed())?;
    encoder.include_checksum(true).map_err(failed())?;
    let mut archive = tar::Builder::new(encoder);
    let mut done = Packed::default();
    for (name, path) in files {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("look at", path))?.len();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, BufReader::new(file.take(size))).map_err(failed())?;
        done.files += 1;
        done.bytes += size;
    }
    let buffered = archive.into_inner().and_then(zstd::Encoder::finish).map_err(failed())?;
    let out = buffered.into_inner().map_err(|e| failed()(e.into_error()))?;
    out.sync_all().map_err(failed())?;
    done.packed = out.metadata().map_err(failed())?.len();
    Ok(done)
}

/// Unpacks a recording into `dir`, which must be new or empty. What is in it is not checked: [`crate::verify`](fn@crate::verify) does that.
///
/// # Errors
/// [`Error::NotARecording`] if the file is no packed recording, or cut short; [`Error::Io`].
pub fn unpack(from: &Path, dir: &Path) -> Result<Packed> {
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::Exists { path: dir.to_owned() });
    }
    let file = File::open(from).map_err(Error::io("open", from))?;
    let packed = file.metadata().map_err(Error::io("look at", from))?.len();
    let bad = |why: String| Error::NotARecording { path: from.to_owned(), why };
    let mut done = Packed { packed, ..Packed::default() };
    read_archive(BufReader::new(file), &mut |name, size, bytes| {
        let path = dir.join(name);
        let folder = path.parent().expect("a file in a folder");
        fs::create_dir_all(folder)?;
        done.files += 1;
        done.bytes += size;
        write_sparse(bytes, size, &path)
    })
    .map_err(|e| bad(format!("it can't be unpacked: {e}")))?;
    if !dir.join(MANIFEST_FILE).is_file() {
        return Err(bad("no manifest is packed in it".into()));
    }
    Ok(done)
}

/// Calls `each` with the name, size and bytes of every file of an archive. Names are those that a recording has, and no others.
fn read_archive(
    packed: impl io::BufRead,
    each: &mut dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut archive = tar::Archive::new(zstd::Decoder::with_buffer(packed)?);
    for (n, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| bad("a name is no text"))?;
        if n >= MAX_FILES {
            return Err(bad("it has too many files"));
        }
        if entry.header().entry_type() != tar::EntryType::Regular || !belongs(&name) {
            return Err(bad(&format!("{name:?} does not belong in a recording")));
        }
        let size = entry.size();
        each(&name, size, &mut entry)?;
    }
    // Behind the archive's end stands the frame's, with its checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Is that the name of a recording's file?
fn belongs(name: &str) -> bool {
    match name.split_once('/') {
        None => name == MANIFEST_FILE || name == INDEX_FILE,
        Some((SEGMENTS_DIR, file)) => {
            file.strip_suffix(".seg").is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_digit()))
        }
        Some((INPUTS_DIR, file)) => is_hash(file),
        Some(_) => false,
    }
}

/// Writes a file, with holes where there are zeros.
fn write_sparse(from: &mut dyn Read, size: u64, to: &Path) -> io::Result<()> {
    let mut out = File::create_new(to)?;
    let mut buffer = vec![0; 64 * BLOCK];
    let mut at = 0;
    while at < size {
        let n = (size - at).min(buffer.len() as u64) as usize;
        from.read_exact(&mut buffer[..n])?;
        for (i, block) in buffer[..n].chunks(BLOCK).enumerate() {
            if block.iter().any(|&b| b != 0) {
                out.seek(SeekFrom::Start(at + (i * BLOCK) as u64))?;
                out.write_all(block)?;
            }
        }
        at += n as u64;
    }
    out.set_len(size)
}

/// Fuzz entry: reads `bytes` as a packed recording, and throws away what is in it.
pub fn fuzz_pack(bytes: &[u8]) {
    let _unused = read_archive(bytes, &mut |_, _, data| {
        // A frame of some bytes may stand for a great many.
        io::copy(&mut data.take(1 << 20), &mut io::sink()).map(drop)
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::{DiskImage, End, Input, Manifest, Status, Writer, WriterOptions, store_input, verify};

    /// A recording whose disk lies elsewhere, and the disk.
    fn record(dir: &Path) -> PathBuf {
        let kernel = store_input(dir, b"kernel").unwrap();
        let disk = dir.with_extension("img");
        let mut contents = vec![0; 1 << 20];
        contents[0x8_0000] = 7;
        fs::write(&disk, &contents).unwrap();
        let manifest = Manifest {
            inputs: vec![Input { name: "kernel".into(), hash: kernel.hash, size: kernel.size }],
            disks: vec![DiskImage {
                device: "sd0".into(),
                disk: 0,
                name: disk.display().to_string(),
                format: "raw".into(),
                size: 1 << 20,
                hash: blake3::hash(&contents).to_hex().to_string(),
                mode: "read-only".into(),
                stored: false,
            }],
            ..crate::testing::manifest(&[])
        };
        let writer = Writer::create(dir, &manifest, WriterOptions::default()).unwrap();
        writer.finish(&End::default()).unwrap();
        disk
    }

    fn names(dir: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { all.extend(names(&path)) } else { all.push(path) }
        }
        all.sort();
        all
    }

    #[test]
    fn what_is_packed_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let disk = record(&at("r"));
        let recording = Recording::open(&at("r")).unwrap();
        let hash = recording.manifest().disks[0].hash.clone();
        let e = pack(&recording, &BTreeMap::new(), &at("none")).unwrap_err().to_string();
        assert!(e.contains(&format!("inputs/{hash}")) && !at("none").exists(), "{e}");
        let more = BTreeMap::from([(hash.clone(), disk)]);
        let packed = pack(&recording, &more, &at("packed")).unwrap();
        assert!(is_packed(&at("packed")) && !is_packed(&at("r")));
        assert!(packed.packed < 4096 && packed.bytes > 1 << 20, "{packed:?}");
        // The same again gives the same bytes, and nothing is overwritten.
        pack(&recording, &more, &at("again")).unwrap();
        assert_eq!(fs::read(at("packed")).unwrap(), fs::read(at("again")).unwrap());
        assert!(pack(&recording, &more, &at("again")).is_err());
        assert_eq!(unpack(&at("packed"), &at("out")).unwrap(), packed);
        assert!(matches!(unpack(&at("packed"), &at("out")), Err(Error::Exists { .. })));
        for path in names(&at("r")) {
            let name = path.strip_prefix(at("r")).unwrap();
            assert!(fs::read(&path).unwrap() == fs::read(at("out").join(name)).unwrap(), "{}", name.display());
        }
        let image = at("out").join(INPUTS_DIR).join(hash);
        assert!(image.metadata().unwrap().blocks() * 512 < 64 << 10, "zeros are holes");
        let report = verify(&at("out")).unwrap();
        assert!(report.is_good() && matches!(report.status, Some(Status::Complete(_))), "{report:?}");
    }

    #[test]
    fn what_is_no_packed_recording_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let disk = record(&at("r"));
        let recording = Recording::open(&at("r")).unwrap();
        let more = BTreeMap::from([(recording.manifest().disks[0].hash.clone(), disk)]);
        pack(&recording, &more, &at("packed")).unwrap();
        let good = fs::read(at("packed")).unwrap();
        for cut in [0, 3, good.len() / 2, good.len() - 1] {
            fs::write(at("cut"), &good[..cut]).unwrap();
            let to = at(&format!("cut{cut}"));
            assert!(matches!(unpack(&at("cut"), &to), Err(Error::NotARecording { .. })), "{cut}");
        }
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 4;
        fs::write(at("flipped"), flipped).unwrap();
        assert!(unpack(&at("flipped"), &at("f")).is_err());
        for name in ["../x", "/x", "inputs/x", "segments/0.seg", "segments/../../x.seg", "inputs/../manifest.ron", "x"]
        {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            // Past the checks that the library itself makes.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
            fs::write(at("evil"), archive.into_inner().unwrap().finish().unwrap()).unwrap();
            let e = unpack(&at("evil"), &at("e")).unwrap_err().to_string();
            assert!(e.contains("does not belong in a recording"), "{name}: {e}");
            assert!(!at("e").exists() && !at("x").exists(), "{name}");
        }
        fuzz_pack(&good);
        assert!(!is_packed(&at("none")));
    }
}
