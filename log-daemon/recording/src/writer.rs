//! Writing a recording.

use crate::{
    CHUNK_HEADER_BYTES, DirMedium, Error, FORMAT, INDEX_FILE, MANIFEST_FILE, Manifest, Medium, Recording, Result,
    SEGMENT_HEADER_BYTES, chunk,
    index::{Index, IndexEntry},
    record::{Chunk, End},
    segment::{self, SegmentHeader},
};
use std::{fs, io, path::Path};

/// When the writer waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Never: what was written survives the process, not the host.
    #[default]
    Never,
    /// Once, in [`Writer::finish`].
    AtEnd,
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// A segment that has grown to this many bytes is the last of its chunks; the next goes to a new one.
    pub segment_bytes: u64,
    /// zstd level, 1..=19; 0 stores chunks as they are.
    pub level: i32,
    /// When to wait for the disk.
    pub sync: Sync,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions { segment_bytes: 64 << 20, level: 3, sync: Sync::Never }
    }
}

/// What [`Writer::append`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The chunk's number.
    pub seq: u64,
    /// Its bytes before compression.
    pub raw_bytes: u64,
    /// Its bytes in the segment, header included.
    pub stored_bytes: u64,
}

/// Writes a recording, chunk by chunk. A chunk is in the recording when [`append`](Writer::append) has returned, and a
/// reader sees it from then on. After an error nothing more can be written; what was written before stays good, and a
/// part of a chunk that may lie behind it is passed over by readers.
#[derive(Debug)]
pub struct Writer<M: Medium = DirMedium> {
    medium: M,
    manifest: Manifest,
    options: WriterOptions,
    chain: [u8; 32],
    segment: u32,
    /// Bytes in the present segment; 0 if it has no file yet.
    filled: u64,
    /// Bytes in the segments before.
    before: u64,
    index: Vec<IndexEntry>,
    index_bytes: u64,
    failed: bool,
}

impl Writer<DirMedium> {
    /// Begins a recording in `dir`, which is made if need be and may hold `inputs/` already.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a recording in it, [`Error::Invalid`] if the manifest breaks a rule,
    /// [`Error::Write`] if the system refuses.
    pub fn create(dir: &Path, manifest: &Manifest, options: WriterOptions) -> Result<Writer> {
        Writer::begin(DirMedium::new(dir), manifest, options).map_err(|e| match e {
            Error::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Error::Exists { path: dir.to_owned() }
            }
            e => e,
        })
    }
}

/// How far a recording had come that is gone on with.
#[derive(Debug)]
pub struct Resumed {
    /// Its last whole chunk.
    pub last: Option<Chunk>,
    /// It was closed properly: nothing can be added to it.
    pub complete: bool,
    /// Bytes behind the last whole chunk that were cut off.
    pub cut_off: u64,
}

impl Writer<DirMedium> {
    /// Goes on with a recording whose writer has died: behind its last whole chunk. Part of a chunk that lies behind it is cut off. Needs the
    /// right to truncate its last segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is damaged, [`Error::Io`], [`Error::Write`] if it is being written by another, or the system refuses.
    pub fn resume(dir: &Path, options: WriterOptions) -> Result<(Writer, Resumed)> {
        let recording = Recording::open(dir)?;
        let text = fs::read(dir.join(MANIFEST_FILE)).map_err(Error::io("read", dir.join(MANIFEST_FILE)))?;
        let failed = |file: &str, chunks: usize| {
            let file = file.to_owned();
            move |source| Error::Write { file, chunks: chunks as u64, source }
        };
        // The lock first: nobody else may be at it.
        let mut medium = DirMedium::adopt(dir);
        medium.begin(&text).map_err(failed(MANIFEST_FILE, 0))?;
        let manifest = recording.manifest().clone();
        if manifest.format != FORMAT {
            return Err(Error::Invalid(format!(
                "this build writes format {FORMAT}, the recording is {}",
                manifest.format
            )));
        }
        let tail = recording.tail()?;
        let sizes = recording.segment_bytes()?;
        let mut writer = Writer {
            medium,
            manifest,
            options,
            chain: tail.chain,
            segment: tail.segment,
            filled: tail.offset,
            before: sizes.iter().take(tail.segment as usize).sum(),
            index: tail.entries,
            index_bytes: recording.index_bytes(),
            failed: false,
        };
        let cut_off = sizes.get(tail.segment as usize).map_or(0, |size| size - tail.offset.min(*size));
        let name = segment::file_name(writer.segment);
        if sizes.len() <= tail.segment as usize {
            writer.open_segment()?;
        } else {
            writer.medium.old_segment(&name, tail.offset).map_err(failed(&name, writer.index.len()))?;
            if tail.offset == 0 {
                writer.put_header()?;
            }
        }
        Ok((writer, Resumed { last: tail.last, complete: tail.complete, cut_off }))
    }
}

impl<M: Medium> Writer<M> {
    /// Begins a recording on any medium.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn begin(mut medium: M, manifest: &Manifest, options: WriterOptions) -> Result<Writer<M>> {
        if manifest.format != FORMAT {
            return Err(Error::Invalid(format!(
                "this build writes format {FORMAT}, the manifest says {}",
                manifest.format
            )));
        }
        let text = manifest.to_text()?;
        medium.begin(text.as_bytes()).map_err(|source| Error::Write {
            file: MANIFEST_FILE.into(),
            chunks: 0,
            source,
        })?;
        let chain = *blake3::hash(text.as_bytes()).as_bytes();
        let mut writer = Writer {
            medium,
            manifest: manifest.clone(),
            options,
            chain,
            segment: 0,
            filled: 0,
            before: 0,
            index: Vec::new(),
            index_bytes: 0,
            failed: false,
        };
        writer.open_segment()?;
        Ok(writer)
    }

    /// Chunks written.
    pub fn chunks(&self) -> u64 {
        self.index.len() as u64
    }

    /// Bytes of segments and index so far.
    pub fn bytes(&self) -> u64 {
        self.before + self.filled + self.index_bytes
    }

    /// Appends a chunk. Its `seq` is ignored.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is larger than a chunk may be or names a channel that the manifest does not list: then
    /// nothing happened, and the caller may go on. [`Error::Write`] if the system refuses, and [`Error::Ended`] ever after.
    pub fn append(&mut self, chunk: &Chunk) -> Result<Appended> {
        let seq = u32::try_from(self.index.len())
            .map_err(|_| Error::Invalid("more than 2^32 chunks in a recording".into()))?;
        if self.failed {
            return Err(Error::Ended { chunks: self.chunks() });
        }
        let payload = chunk::encode_payload(chunk, &self.manifest.streams)?;
        let sealed = chunk::seal(&payload, FORMAT, seq, self.chain, self.options.level)?;
        if self.filled >= self.options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64 + 1) {
            self.next_segment()?;
        }
        let offset = self.filled;
        self.put(&sealed.bytes)?;
        self.chain = sealed.chain;
        let last = self.index.last().copied().unwrap_or_default();
        let (at, icount, vtime) = chunk.reaches().unwrap_or((last.at, last.icount, last.vtime));
        let bytes = sealed.bytes.len() as u64;
        self.index.push(IndexEntry { segment: self.segment, offset, bytes, at, icount, vtime });
        Ok(Appended { seq: u64::from(seq), raw_bytes: payload.len() as u64, stored_bytes: bytes })
    }

    /// Writes what [`finish`](Writer::finish) writes behind the final record, for a recording that has it already.
    ///
    /// # Errors
    /// As [`append`](Writer::append).
    pub fn close(mut self) -> Result<u64> {
        self.write_index()?;
        Ok(self.bytes())
    }

    /// Appends the final record in a chunk of its own, writes the index, and closes the recording. Returns the bytes of
    /// segments and index.
    ///
    /// # Errors
    /// As [`append`](Writer::append).
    pub fn finish(mut self, end: &End) -> Result<u64> {
        self.append(&Chunk { end: Some(end.clone()), ..Chunk::default() })?;
        self.write_index()?;
        if self.options.sync == Sync::AtEnd {
            let synced = self.medium.sync();
            self.checked(&segment::file_name(self.segment), synced)?;
        }
        Ok(self.bytes())
    }

    fn open_segment(&mut self) -> Result<()> {
        let name = segment::file_name(self.segment);
        let made = self.medium.new_segment(&name);
        self.checked(&name, made)?;
        self.put_header()
    }

    fn put_header(&mut self) -> Result<()> {
        let first_chunk = self.index.len() as u32;
        let header = SegmentHeader { version: FORMAT, number: self.segment, first_chunk, chain: self.chain };
        self.put(&header.encode())
    }

    fn next_segment(&mut self) -> Result<()> {
        if self.options.sync == Sync::AtEnd {
            let synced = self.medium.sync();
            self.checked(&segment::file_name(self.segment), synced)?;
        }
        self.write_index()?;
        self.before += self.filled;
        self.filled = 0;
        self.segment += 1;
        self.open_segment()
    }

    fn write_index(&mut self) -> Result<()> {
        let bytes = Index::new(self.chain, self.index.clone()).encode();
        let written = self.medium.replace(INDEX_FILE, &bytes);
        self.checked(INDEX_FILE, written)?;
        self.index_bytes = bytes.len() as u64;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.medium.append(bytes);
        self.checked(&segment::file_name(self.segment), written)?;
        self.filled += bytes.len() as u64;
        Ok(())
    }

    fn checked(&mut self, file: &str, result: io::Result<()>) -> Result<()> {
        result.map_err(|source| {
            self.failed = true;
            Error::Write { file: file.into(), chunks: self.chunks(), source }
        })
    }
}

/// A chunk's cost besides its records.
const _: () = assert!(CHUNK_HEADER_BYTES <= 64);
