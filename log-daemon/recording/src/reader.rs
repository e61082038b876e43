//! Reading a recording, finished or not.

use crate::{
    CHUNK_HEADER_BYTES, Error, Fault, INDEX_FILE, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, Place, Result,
    SEGMENT_HEADER_BYTES, SEGMENTS_DIR, SectionSize, Version,
    chunk::{self, ChunkHeader},
    index::{Index, IndexEntry},
    inputs::read_input,
    medium,
    record::{Chunk, End, Swap},
    segment::{self, SegmentHeader},
};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// With a final record: it was closed properly.
    Complete(End),
    /// Without one, in the given segment at the given offset, where its last whole chunk ends. All before that is good.
    Truncated {
        /// Segment number.
        segment: u32,
        /// Byte offset.
        offset: u64,
    },
    /// Not yet: it is still being written. The place is as for `Truncated`.
    Live {
        /// Segment number.
        segment: u32,
        /// Byte offset.
        offset: u64,
    },
    /// At a byte that is not as it was written. All before the named chunk is good.
    Corrupt(Fault),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Status::Complete(_) => write!(f, "complete"),
            Status::Truncated { segment, offset } => {
                write!(f, "truncated: whole up to {}, offset {offset}", segment::file_name(*segment))
            }
            Status::Live { .. } => write!(f, "live: still being written"),
            Status::Corrupt(fault) => write!(f, "corrupt: {fault}"),
        }
    }
}

/// What is known of a chunk besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its number.
    pub seq: u64,
    /// Its segment.
    pub segment: u32,
    /// Where its header begins.
    pub offset: u64,
    /// Bytes of header and stored payload.
    pub stored_bytes: u64,
    /// Bytes of the payload before compression.
    pub raw_bytes: u64,
    /// Bytes of the payload by stream.
    pub sections: Vec<SectionSize>,
}

/// Where the last whole chunk of a recording ends.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: u32,
    /// 0: not even the segment's header is whole.
    pub(crate) offset: u64,
    pub(crate) chain: [u8; 32],
    pub(crate) entries: Vec<IndexEntry>,
    pub(crate) last: Option<Chunk>,
    /// It has its final record.
    pub(crate) complete: bool,
}

/// A recording that is open for reading.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
    manifest: Manifest,
    manifest_hash: [u8; 32],
}

impl Recording {
    /// Opens the recording in a directory: reads and checks its manifest. It may still be written to.
    ///
    /// # Errors
    /// [`Error::NotARecording`], [`Error::Version`], [`Error::Corrupt`] (the manifest), [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Recording> {
        let path = dir.join(MANIFEST_FILE);
        let not = |why: &str| Error::NotARecording { path: dir.to_owned(), why: why.into() };
        let bytes = match read_limited(&path, MAX_MANIFEST_BYTES + 1) {
            Err(_) if !dir.exists() => return Err(not("it does not exist")),
            Err(_) if !dir.is_dir() => return Err(not("it is not a directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not("it has no manifest")),
            other => other.map_err(Error::io("read", &path))?,
        };
        let manifest = Manifest::parse(&bytes)?;
        Ok(Recording { dir: dir.to_owned(), manifest, manifest_hash: *blake3::hash(&bytes).as_bytes() })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file of an input or plugin in the recording, by hash. Not checked; see [`read_input`](Recording::read_input).
    pub fn input_path(&self, hash: &str) -> PathBuf {
        crate::inputs::input_path(&self.dir, hash)
    }

    /// The bytes of an input or plugin by hash, checked.
    ///
    /// # Errors
    /// As [`read_input`](crate::read_input).
    pub fn read_input(&self, hash: &str) -> Result<Vec<u8>> {
        read_input(&self.dir, hash)
    }

    /// True while the recording is being written by a process of this host.
    pub fn is_live(&self) -> bool {
        medium::is_live(&self.dir.join(MANIFEST_FILE))
    }

    /// Its chunks from the first. At the end of a live recording the iterator gives `None`, and when asked again later,
    /// what has been written since.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            recording: self,
            segment: 0,
            file: None,
            offset: 0,
            seq: 0,
            chain: self.manifest_hash,
            info: None,
            end: None,
            fault: None,
        }
    }

    /// Its chunks from the one that an index entry names on. That chunk's own link to what comes before it is not checked.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no such chunk, [`Error::Io`].
    pub fn chunks_from(&self, seq: u64, at: &IndexEntry) -> Result<Chunks<'_>> {
        let name = segment::file_name(at.segment);
        let path = self.dir.join(&name);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut header = [0; CHUNK_HEADER_BYTES];
        let place = Place::chunk(name, at.offset, seq);
        let missing = |_| Fault::new(place.clone(), "no chunk is there, though the index says so");
        file.read_exact_at(&mut header, at.offset).map_err(missing)?;
        let header = ChunkHeader::decode(&header).map_err(|b| Fault::new(place.clone(), b.0))?;
        let chain = header.chain;
        let (segment, offset) = (at.segment, at.offset);
        Ok(Chunks { segment, file: Some(file), offset, seq, chain, ..self.chunks() })
    }

    /// Reads everything and says how it ends. This takes as long as reading the recording does.
    ///
    /// # Errors
    /// [`Error::Io`] only: what is wrong with the recording is in the answer.
    pub fn status(&self) -> Result<Status> {
        let mut chunks = self.chunks();
        for chunk in &mut chunks {
            match chunk {
                Ok(_) | Err(Error::Corrupt(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(chunks.status())
    }

    /// Every plugin that took the place of another, in order. Reads the whole recording, as far as it is good.
    ///
    /// # Errors
    /// [`Error::Io`] only.
    pub fn swaps(&self) -> Result<Vec<Swap>> {
        let mut all = Vec::new();
        if self.manifest.stream(crate::StreamKind::Swaps, 0).is_none() {
            return Ok(all);
        }
        for chunk in self.chunks() {
            match chunk {
                // One that was said twice, as its first daemon died, may stand twice.
                Ok(chunk) => chunk.swaps.into_iter().for_each(|s| {
                    if !all.contains(&s) {
                        all.push(s);
                    }
                }),
                Err(Error::Corrupt(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(all)
    }

    /// The index: from its file if that is good and reaches to the end, else made by reading the recording. The fault says why the
    /// file was of no use; a recording that was not closed properly may have none, which is no fault.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn index(&self) -> Result<(Vec<IndexEntry>, Option<Fault>)> {
        let fault = match self.index_file()? {
            Ok(Some(index)) if self.reaches_end(&index) => return Ok((index.entries, None)),
            Ok(_) => None,
            Err(fault) => Some(fault),
        };
        let mut entries = Vec::new();
        let mut chunks = self.chunks();
        while let Some(chunk) = chunks.next() {
            let (Ok(chunk), Some(info)) = (chunk, chunks.info()) else { break };
            entries.push(index_entry(entries.last(), &chunk, info));
        }
        Ok((entries, fault))
    }

    /// The index file: `Ok(Ok(None))` if there is none.
    pub(crate) fn index_file(&self) -> Result<Result<Option<Index>, Fault>> {
        let path = self.dir.join(INDEX_FILE);
        let room = self.segment_bytes()?.iter().sum::<u64>() / CHUNK_HEADER_BYTES as u64;
        let bytes = match read_limited(&path, (64 + room as usize).saturating_mul(100)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            other => other.map_err(Error::io("read", &path))?,
        };
        Ok(Index::decode(&bytes, room as usize).map(Some).map_err(|b| Fault::new(Place::file(INDEX_FILE), b.0)))
    }

    fn reaches_end(&self, index: &Index) -> bool {
        let end = index.entries.last().map(|e| (e.segment, e.offset + e.bytes));
        let sizes = self.segment_bytes().unwrap_or_default();
        end == sizes.len().checked_sub(1).map(|last| (last as u32, sizes[last]))
    }

    /// Where a writer would go on. Reads the chunks that the index does not list, and the last of those that it does.
    pub(crate) fn tail(&self) -> Result<Tail> {
        let listed = match self.index_file()? {
            Ok(Some(index)) => index.entries,
            Ok(None) | Err(_) => Vec::new(),
        };
        // An index that does not fit is no reason to give up what the segments hold.
        let from_index = listed.split_last().and_then(|(last, before)| {
            let chunks = self.chunks_from(before.len() as u64, last).ok()?;
            self.walk(chunks, before.to_vec()).ok().filter(|tail| tail.last.is_some())
        });
        match from_index {
            Some(tail) => Ok(tail),
            None => self.walk(self.chunks(), Vec::new()),
        }
    }

    fn walk(&self, mut chunks: Chunks<'_>, mut entries: Vec<IndexEntry>) -> Result<Tail> {
        let mut last = None;
        while let Some(chunk) = chunks.next() {
            let chunk = chunk?;
            if let Some(info) = chunks.info() {
                entries.push(index_entry(entries.last(), &chunk, info));
            }
            last = Some(chunk);
        }
        let complete = chunks.end.is_some();
        Ok(Tail { segment: chunks.segment, offset: chunks.offset, chain: chunks.chain, entries, last, complete })
    }

    /// Sizes of the segment files, from 0 up to the first that is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn segment_bytes(&self) -> Result<Vec<u64>> {
        let mut sizes = Vec::new();
        loop {
            let path = self.dir.join(segment::file_name(sizes.len() as u32));
            match fs::metadata(&path) {
                Ok(m) => sizes.push(m.len()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(sizes),
                Err(e) => return Err(Error::io("look at", path)(e)),
            }
        }
    }

    /// Size of the index file, 0 if there is none.
    pub fn index_bytes(&self) -> u64 {
        fs::metadata(self.dir.join(INDEX_FILE)).map_or(0, |m| m.len())
    }

    /// The highest segment number in the folder.
    fn last_segment(&self) -> Result<Option<u32>> {
        let folder = self.dir.join(SEGMENTS_DIR);
        let list = match fs::read_dir(&folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("list", &folder))?,
        };
        Ok(list.flatten().filter_map(|f| segment::parse_name(f.file_name().to_str()?)).max())
    }
}

/// The index entry of a chunk.
pub(crate) fn index_entry(last: Option<&IndexEntry>, chunk: &Chunk, info: &ChunkInfo) -> IndexEntry {
    let last = last.copied().unwrap_or_default();
    let (at, icount, vtime) = chunk.reaches().unwrap_or((last.at, last.icount, last.vtime));
    IndexEntry { segment: info.segment, offset: info.offset, bytes: info.stored_bytes, at, icount, vtime }
}

/// Reads at most `limit` bytes of a file.
fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The chunks of a recording, in order, each checked against its CRC, its hash chain and the format's rules. Ends at the last
/// whole chunk, or with one error. See [`Recording::chunks`].
#[derive(Debug)]
pub struct Chunks<'a> {
    recording: &'a Recording,
    segment: u32,
    file: Option<File>,
    /// Where the next chunk begins; 0 if the segment's header has not been read.
    offset: u64,
    seq: u64,
    chain: [u8; 32],
    info: Option<ChunkInfo>,
    end: Option<End>,
    fault: Option<Fault>,
}

/// What a step found.
enum Step {
    Chunk(Box<Chunk>),
    /// Not (yet) there.
    Nothing,
    /// Went on to the next thing in the recording.
    Again,
}

impl Chunks<'_> {
    /// About the chunk that was given last.
    pub fn info(&self) -> Option<&ChunkInfo> {
        self.info.as_ref()
    }

    /// Hash of the chunk that was given last.
    pub(crate) fn chain_hash(&self) -> [u8; 32] {
        self.chain
    }

    /// How the recording ends, as far as it was read; meaningful once the iterator has given `None`.
    pub fn status(&self) -> Status {
        let (segment, offset) = (self.segment, self.offset);
        match (&self.fault, &self.end) {
            (Some(f), _) => Status::Corrupt(f.clone()),
            (None, Some(e)) => Status::Complete(e.clone()),
            (None, None) if self.recording.is_live() => Status::Live { segment, offset },
            (None, None) => Status::Truncated { segment, offset },
        }
    }

    fn file_name(&self) -> String {
        segment::file_name(self.segment)
    }

    fn chunk_fault(&self, what: impl Into<String>) -> Error {
        Fault::new(Place::chunk(self.file_name(), self.offset, self.seq), what).into()
    }

    fn header_fault(&self, what: impl Into<String>) -> Error {
        Fault::new(Place::at(self.file_name(), 0), what).into()
    }

    fn step(&mut self) -> Result<Step> {
        let Some(len) = self.segment_len()? else { return self.no_segment() };
        if self.offset == 0 { self.segment_header(len) } else { self.next_chunk(len) }
    }

    /// The present segment's size; opens it if need be. `None` if there is no such file.
    fn segment_len(&mut self) -> Result<Option<u64>> {
        let path = self.recording.dir.join(self.file_name());
        if self.file.is_none() {
            match File::open(&path) {
                Ok(f) => self.file = Some(f),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::io("open", path)(e)),
            }
        }
        let file = self.file.as_ref().map(File::metadata).transpose();
        Ok(file.map_err(Error::io("look at", path))?.map(|m| m.len()))
    }

    /// A segment that is missing is the recording's end, unless there are later ones.
    fn no_segment(&self) -> Result<Step> {
        match self.recording.last_segment()? {
            Some(last) if last > self.segment => {
                Err(Fault::new(Place::file(self.file_name()), "missing, though there are later segments").into())
            }
            _ => Ok(Step::Nothing),
        }
    }

    /// True if the present segment is not the last: then it must be whole.
    fn has_successor(&self) -> Result<bool> {
        Ok(self.recording.last_segment()?.is_some_and(|last| last > self.segment))
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let path = self.recording.dir.join(self.file_name());
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound.into());
        file.and_then(|f| f.read_exact_at(into, offset)).map_err(Error::io("read", path))
    }

    /// What is behind `offset` is no whole thing. That is the end of a recording that was cut off there, or is still growing.
    fn partial(&mut self, len: u64, what: &str) -> Result<Step> {
        if !self.has_successor()? {
            return Ok(Step::Nothing);
        }
        // The writer may have finished this segment, and begun the next, between the looks at them.
        match self.segment_len()? {
            Some(now) if now > len || (now > 0 && now == self.offset) => Ok(Step::Again),
            _ if self.offset == 0 => Err(self.header_fault(what)),
            _ => Err(self.chunk_fault(what)),
        }
    }

    fn segment_header(&mut self, len: u64) -> Result<Step> {
        if len < SEGMENT_HEADER_BYTES as u64 {
            return self.partial(len, "the segment is cut off in its header, though there are later ones");
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        self.read(0, &mut bytes)?;
        let h = SegmentHeader::decode(&bytes).map_err(|b| self.header_fault(b.0))?;
        self.check_version(h.version).map_err(|what| self.header_fault(what))?;
        if h.number != self.segment || u64::from(h.first_chunk) != self.seq {
            return Err(self.header_fault("the segment belongs to another place of the recording"));
        }
        if h.chain != self.chain {
            let what = if self.segment == 0 {
                "the segment belongs to another manifest, or the manifest was replaced"
            } else {
                "the segment does not follow the chunk before it"
            };
            return Err(self.header_fault(what));
        }
        self.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Step::Again)
    }

    fn check_version(&self, found: Version) -> Result<(), String> {
        let ours = self.recording.manifest.format;
        if found == ours { Ok(()) } else { Err(format!("is of format {found}, but the manifest of {ours}")) }
    }

    fn next_chunk(&mut self, len: u64) -> Result<Step> {
        let rest = len.saturating_sub(self.offset);
        if self.end.is_some() {
            return self.after_end(rest);
        }
        if rest == 0 && self.has_successor()? {
            if self.segment_len()? != Some(len) {
                return Ok(Step::Again);
            }
            (self.segment, self.file, self.offset) = (self.segment + 1, None, 0);
            return Ok(Step::Again);
        }
        if rest < CHUNK_HEADER_BYTES as u64 {
            return self.partial(len, "the segment is cut off, though there are later ones");
        }
        let mut bytes = vec![0; CHUNK_HEADER_BYTES];
        self.read(self.offset, &mut bytes)?;
        let header = bytes.first_chunk().map(ChunkHeader::decode);
        let header = header.ok_or_else(|| self.chunk_fault("too short"))?.map_err(|b| self.chunk_fault(b.0))?;
        self.check_header(&header)?;
        let size = CHUNK_HEADER_BYTES as u64 + u64::from(header.stored_len);
        if rest < size {
            return self.partial(len, "the segment is cut off, though there are later ones");
        }
        bytes.resize(size as usize, 0);
        self.read(self.offset, &mut bytes)?;
        self.take(&header, &bytes).map(|c| Step::Chunk(Box::new(c)))
    }

    fn check_header(&self, h: &ChunkHeader) -> Result<()> {
        self.check_version(h.version).map_err(|what| self.chunk_fault(what))?;
        if u64::from(h.seq) != self.seq {
            return Err(self.chunk_fault(format!("chunk {} stands where chunk {} belongs", h.seq, self.seq)));
        }
        if h.chain != self.chain {
            return Err(self.chunk_fault("the chunk does not follow the one before it"));
        }
        Ok(())
    }

    /// Decodes a whole chunk and moves on.
    fn take(&mut self, header: &ChunkHeader, bytes: &[u8]) -> Result<Chunk> {
        let recording = self.recording;
        let (chunk, sections) = header
            .unpack(&bytes[CHUNK_HEADER_BYTES..])
            .and_then(|p| chunk::decode_payload(&p, header.seq, &recording.manifest.streams, recording.manifest.format))
            .map_err(|b| self.chunk_fault(b.0))?;
        self.info = Some(ChunkInfo {
            seq: self.seq,
            segment: self.segment,
            offset: self.offset,
            stored_bytes: bytes.len() as u64,
            raw_bytes: u64::from(header.raw_len),
            sections,
        });
        self.chain = *blake3::hash(bytes).as_bytes();
        self.offset += bytes.len() as u64;
        self.seq += 1;
        self.end = chunk.end.clone();
        Ok(chunk)
    }

    /// Behind the final record there must be nothing.
    fn after_end(&self, rest: u64) -> Result<Step> {
        if rest != 0 {
            return Err(self.chunk_fault("there are bytes behind the final record"));
        }
        match self.recording.last_segment()? {
            Some(last) if last > self.segment => {
                Err(Fault::new(Place::file(segment::file_name(last)), "a segment behind the final record").into())
            }
            _ => Ok(Step::Nothing),
        }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        loop {
            if self.fault.is_some() {
                return None;
            }
            match self.step() {
                Ok(Step::Chunk(chunk)) => return Some(Ok(*chunk)),
                Ok(Step::Nothing) => return None,
                Ok(Step::Again) => {}
                Err(e) => {
                    // An I/O error is not the recording's fault, but reading on would only repeat it.
                    let other = || Fault::new(Place::at(self.file_name(), self.offset), e.to_string());
                    self.fault = Some(e.fault().cloned().unwrap_or_else(other));
                    return Some(Err(e));
                }
            }
        }
    }
}
