//! Checking every byte of a recording.

use crate::{
    Error, Fault, INDEX_FILE, INPUTS_DIR, Place, Recording, Result, Status,
    index::{Index, IndexEntry},
    inputs::check_input,
    manifest::is_hash,
    reader::index_entry,
};
use std::{collections::BTreeSet, fs, path::Path};

/// What [`verify`](fn@verify) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Everything that is wrong, in the order manifest, segments, index, inputs.
    pub faults: Vec<Fault>,
    /// How the recording ends; `None` if its manifest can't be read.
    pub status: Option<Status>,
    /// Good chunks.
    pub chunks: u64,
    /// Content-addressed files that were checked.
    pub inputs: u64,
}

impl VerifyReport {
    /// True if every byte is as it was written and the recording was closed properly, or is still being written.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty() && matches!(self.status, Some(Status::Complete(_) | Status::Live { .. }))
    }
}

/// Checks every byte of the recording in `dir`.
///
/// # Errors
/// [`Error::Io`], and [`Error::NotARecording`] and [`Error::Version`] if there is nothing that could be checked. What is
/// wrong with the recording is in the report.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    let recording = match Recording::open(dir) {
        Err(Error::Corrupt(fault)) => {
            return Ok(VerifyReport { faults: vec![fault], status: None, chunks: 0, inputs: 0 });
        }
        other => other?,
    };
    let (entries, chain, status) = read_all(&recording)?;
    let mut faults = Vec::new();
    if let Status::Corrupt(fault) = &status {
        faults.push(fault.clone());
    }
    let complete = matches!(status, Status::Complete(_));
    // Of a live recording the index may be replaced while the segments are being read: it is checked when all is still.
    if !matches!(status, Status::Live { .. }) {
        faults.extend(check_index(&recording, &entries, chain, complete)?);
    }
    let inputs = check_inputs(&recording, &mut faults)?;
    Ok(VerifyReport { faults, status: Some(status), chunks: entries.len() as u64, inputs })
}

/// Reads all chunks; returns what the index should say of them.
fn read_all(recording: &Recording) -> Result<(Vec<IndexEntry>, Vec<[u8; 32]>, Status)> {
    let mut chunks = recording.chunks();
    let (mut entries, mut chain) = (Vec::new(), Vec::new());
    while let Some(chunk) = chunks.next() {
        match (chunk, chunks.info()) {
            (Ok(chunk), Some(info)) => {
                entries.push(index_entry(entries.last(), &chunk, info));
                chain.push(chunks.chain_hash());
            }
            (Err(Error::Corrupt(_)), _) | (Ok(_), None) => {}
            (Err(e), _) => return Err(e),
        }
    }
    Ok((entries, chain, chunks.status()))
}

/// Compares the index file with what the chunks say. It is written at the end of each segment and of the recording, so that of
/// a complete one must be complete, and any other a beginning of what is there.
fn check_index(
    recording: &Recording,
    entries: &[IndexEntry],
    chain: Vec<[u8; 32]>,
    complete: bool,
) -> Result<Option<Fault>> {
    let fault = |what: String| Some(Fault::new(Place::file(INDEX_FILE), what));
    let index: Index = match recording.index_file()? {
        Err(f) => return Ok(Some(f)),
        Ok(None) => {
            return Ok(if complete { fault("missing; the recording can be read without it".into()) } else { None });
        }
        Ok(Some(index)) => index,
    };
    if index.version != recording.manifest().format {
        return Ok(fault(format!(
            "is of format {}, but the manifest of {}",
            index.version,
            recording.manifest().format
        )));
    }
    let pairs = index.entries.iter().zip(entries).position(|(a, b)| a != b);
    if let Some(i) = pairs {
        return Ok(fault(format!("its entry for chunk {i} is not what the chunk says")));
    }
    let n = index.entries.len();
    if n > entries.len() || (complete && n < entries.len()) {
        return Ok(fault(format!("lists {n} chunks, {} can be read", entries.len())));
    }
    if n > 0 && chain[n - 1] != index.chain {
        return Ok(fault(format!("its hash of chunk {} is not the chunk's", n - 1)));
    }
    Ok(None)
}

/// Checks every file that the manifest names, and every other in `inputs/` that bears a hash as its name.
fn check_inputs(recording: &Recording, faults: &mut Vec<Fault>) -> Result<u64> {
    let folder = recording.dir().join(INPUTS_DIR);
    let mut hashes: BTreeSet<String> = recording.manifest().files().map(|(_, hash, _)| hash.to_owned()).collect();
    if folder.is_dir() {
        let list = fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
        hashes.extend(list.flatten().filter_map(|f| f.file_name().into_string().ok()).filter(|n| is_hash(n)));
    }
    for hash in &hashes {
        match check_input(recording.dir(), hash) {
            Ok(size) => faults.extend(wrong_size(recording, hash, size)),
            Err(Error::Corrupt(fault)) => faults.push(fault),
            Err(e) => return Err(e),
        }
    }
    Ok(hashes.len() as u64)
}

/// A manifest that names a size other than the file's.
fn wrong_size(recording: &Recording, hash: &str, size: u64) -> Option<Fault> {
    let (what, _, said) = recording.manifest().files().find(|&(_, h, said)| h == hash && said != size)?;
    let what = format!("{what} has {size} bytes, the manifest says {said}");
    Some(Fault::new(Place::file(format!("{INPUTS_DIR}/{hash}")), what))
}
