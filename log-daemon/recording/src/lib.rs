//! The on-disk format of a Reprise recording.
//!
//! A recording is a directory:
//!
//! | path | what |
//! |---|---|
//! | `manifest.ron` | what was recorded: machine, engine, inputs, plugins, streams; signed by its own last line |
//! | `inputs/<blake3>` | kernel, device tree, initrd, plugins ...; each file's name is the hash of its bytes |
//! | `segments/00000000.seg` ... | append-only files of self-delimiting chunks |
//! | `index` | where each chunk is and what guest time it reaches; can be rebuilt from the segments |
//!
//! [`Writer`] makes one, [`Recording`] reads one (also while it is still being written), [`verify`](fn@verify) checks every
//! byte. The layout is described to the byte in `docs/recording-format.md`, whose worked example is checked by a test of
//! this crate.
//!
//! The crate knows no channel, process, clock or thread: its records are plain structs that mirror the slots of
//! `docs/design.md`, and all it does to the world is file I/O.

mod chunk;
mod codec;
pub mod dma;
mod error;
mod index;
mod inputs;
mod manifest;
mod medium;
mod pack;
mod place;
mod reader;
mod record;
mod segment;
pub mod testing;
mod verify;
mod wire;
mod writer;

pub use chunk::{CHUNK_HEADER_BYTES, MAX_CHUNK_BYTES, MAX_CHUNK_RECORDS, SectionSize};
pub use error::{Error, Fault, Place, Result};
pub use index::IndexEntry;
pub use inputs::{InputRef, hash_file, read_input, store_image, store_input, store_input_file};
pub use manifest::{
    DiskImage, IdRegister, Input, MAX_MANIFEST_BYTES, Manifest, Plugin, Quirks, Stream, StreamKind, Version,
};
pub use medium::{DirMedium, Medium};
pub use pack::{Packed, fuzz_pack, is_packed, pack, unpack};
pub use place::{latest, recording_name, recordings_root, resolve, set_latest, utc_text};
pub use reader::{ChunkInfo, Chunks, Recording, Status};
pub use record::{ChannelRecords, Chunk, End, Entry, Message, Output, Position, Swap, journal, message};
pub use segment::SEGMENT_HEADER_BYTES;
pub use verify::{VerifyReport, verify};
pub use writer::{Appended, Resumed, Sync, Writer, WriterOptions};

/// The version that this build writes, and the newest major that it reads.
pub const FORMAT: Version = Version { major: 1, minor: 1 };

/// The manifest's file name in a recording.
pub const MANIFEST_FILE: &str = "manifest.ron";
/// The index's file name in a recording.
pub const INDEX_FILE: &str = "index";
/// The folder of the content-addressed inputs.
pub const INPUTS_DIR: &str = "inputs";
/// The folder of the segments.
pub const SEGMENTS_DIR: &str = "segments";

/// Bytes that the segments of a recording have so far, which may be still being written.
///
/// # Errors
/// The folder can't be read.
pub fn segment_bytes(dir: &std::path::Path) -> std::io::Result<u64> {
    let sizes = std::fs::read_dir(dir.join(SEGMENTS_DIR))?.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}

/// Fuzz entry: decodes `payload` as an uncompressed chunk payload of a recording with two channels, and throws the
/// result away. It must return for every input, in bounded memory.
pub fn fuzz_chunk_payload(payload: &[u8]) {
    let streams = Manifest::standard_streams(&[(0, "fuzz0"), (1, "fuzz1")]);
    let _unused = chunk::decode_payload(payload, 0, &streams, FORMAT);
}

/// Fuzz entry: reads `file` as a whole segment file behind a manifest with hash `chain`, chunk after chunk.
pub fn fuzz_segment(file: &[u8], chain: [u8; 32]) {
    let streams = Manifest::standard_streams(&[(0, "fuzz0"), (1, "fuzz1")]);
    let _unused = chunk::decode_segment(file, chain, &streams);
}

/// Fuzz entry: parses `bytes` as a `manifest.ron`, first as it is, then with a right signature appended so that the
/// parser behind it is reached.
pub fn fuzz_manifest(bytes: &[u8]) {
    let _unused = Manifest::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _unused = Manifest::parse(manifest::sign(text).as_bytes());
    }
}

/// Fuzz entry: parses `bytes` as an `index` file.
pub fn fuzz_index(bytes: &[u8]) {
    let _unused = index::Index::decode(bytes, 1 << 16);
}

/// Fuzz entry: reads `bytes` as the recorded form of a transfer; what is read, written again, must give the same bytes.
///
/// # Panics
/// If it does not.
pub fn fuzz_dma(bytes: &[u8]) {
    if let Ok(packed) = dma::Packed::decode(bytes) {
        assert_eq!(dma::Packed::decode(&packed.encode()), Ok(packed), "a transfer that is read back as another");
    }
}
