//! For tests: the manifest of a recording that says little, and recordings that were changed by somebody who knows the format.

use crate::{
    Error, FORMAT, Fault, INDEX_FILE, MANIFEST_FILE, Manifest, Place, Quirks, Recording, Result, SEGMENTS_DIR,
    chunk::{encode_payload, seal},
    index::Index,
    manifest,
    reader::index_entry,
    record::Chunk,
    segment::{self, SegmentHeader},
};
use std::{collections::BTreeMap, fs, path::Path};

/// The manifest of a machine with these devices, by the numbers of their channels, and nothing else.
#[must_use]
pub fn manifest(channels: &[(u16, &str)]) -> Manifest {
    Manifest {
        format: FORMAT,
        uuid: "1a2b3c4d-0000-4000-8000-00000000cafe".into(),
        created: "2026-11-22T18:30:00Z".into(),
        reprise: "0.1.0".into(),
        engine: "interp".into(),
        host_cpu: "some CPU".into(),
        id_registers: vec![],
        uncounted: vec![],
        quirks: Quirks::default(),
        machine: "()".into(),
        inputs: vec![],
        plugins: vec![],
        disks: vec![],
        streams: Manifest::standard_streams(channels),
    }
}

/// Reads every chunk of the recording in `dir`, lets `edit` change its records, and writes all of it back with right
/// lengths, CRCs, hash chain and index. A reader finds nothing wrong with the result; only a replay can.
///
/// # Errors
/// Those of reading and writing.
pub fn edit(dir: &Path, mut edit: impl FnMut(&mut Chunk)) -> Result<()> {
    rewrite(dir, |text| text, &mut edit)
}

/// As [`edit`], but changes the text of the manifest (without its signature line, which is made anew). The result
/// may be a manifest that no reader takes.
///
/// # Errors
/// Those of reading and writing.
pub fn edit_manifest(dir: &Path, edit: impl FnOnce(String) -> String) -> Result<()> {
    rewrite(dir, edit, &mut |_| ())
}

fn rewrite(dir: &Path, text: impl FnOnce(String) -> String, edit: &mut dyn FnMut(&mut Chunk)) -> Result<()> {
    let recording = Recording::open(dir)?;
    let path = dir.join(MANIFEST_FILE);
    let old = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let body = old.rfind("// blake3: ").map_or("", |at| &old[..at]);
    let manifest = manifest::sign(&text(body.to_owned()));
    let mut chain = *blake3::hash(manifest.as_bytes()).as_bytes();
    let mut files: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut entries = Vec::new();
    let mut chunks = recording.chunks();
    while let Some(chunk) = chunks.next() {
        let mut chunk = chunk?;
        let missing = || Fault::new(Place::file(SEGMENTS_DIR), "a chunk without a place");
        let mut info = chunks.info().ok_or_else(missing)?.clone();
        edit(&mut chunk);
        let first = SegmentHeader { version: FORMAT, number: info.segment, first_chunk: info.seq as u32, chain };
        let file = files.entry(info.segment).or_insert_with(|| first.encode().to_vec());
        let payload = encode_payload(&chunk, &recording.manifest().streams)?;
        let sealed = seal(&payload, FORMAT, info.seq as u32, chain, 3)?;
        (info.offset, info.stored_bytes) = (file.len() as u64, sealed.bytes.len() as u64);
        file.extend_from_slice(&sealed.bytes);
        chain = sealed.chain;
        entries.push(index_entry(entries.last(), &chunk, &info));
    }
    for (number, bytes) in files {
        put(&dir.join(segment::file_name(number)), &bytes)?;
    }
    put(&dir.join(INDEX_FILE), &Index::new(chain, entries).encode())?;
    put(&path, manifest.as_bytes())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}
