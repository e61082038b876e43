//! Chunks: the envelope (header, checks, compression) and the sections in it.

use crate::{
    Error, Fault, Place, Result, Stream, StreamKind, Version,
    codec::{
        MAX_DETAIL, decode_end, decode_journal, decode_messages, decode_output, decode_swaps, encode_end,
        encode_journal, encode_messages, encode_output, encode_swaps,
    },
    record::Chunk,
    segment,
    wire::{Bad, Cursor, Decoded, put_varint},
};

/// Size of a chunk's header.
pub const CHUNK_HEADER_BYTES: usize = 60;
/// Largest payload of a chunk, before and after compression. A reader allocates no more than this for one.
pub const MAX_CHUNK_BYTES: usize = 64 << 20;
/// Most records of all kinds in one chunk.
pub const MAX_CHUNK_RECORDS: usize = 1 << 18;

const MAGIC: [u8; 4] = *b"RpCk";
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;

/// What a chunk's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) version: Version,
    pub(crate) codec: u8,
    pub(crate) seq: u32,
    pub(crate) raw_len: u32,
    pub(crate) stored_len: u32,
    pub(crate) payload_crc: u32,
    /// BLAKE3 of the chunk before, header and payload; of the manifest for chunk 0.
    pub(crate) chain: [u8; 32],
}

impl ChunkHeader {
    fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut h = Vec::with_capacity(CHUNK_HEADER_BYTES);
        h.extend_from_slice(&MAGIC);
        h.extend_from_slice(&[self.version.major, self.version.minor, self.codec, 0]);
        for v in [self.seq, self.raw_len, self.stored_len, self.payload_crc] {
            h.extend_from_slice(&v.to_le_bytes());
        }
        h.extend_from_slice(&self.chain);
        h.extend_from_slice(&crc32fast::hash(&h).to_le_bytes());
        let mut a = [0; CHUNK_HEADER_BYTES];
        a.copy_from_slice(&h);
        a
    }

    /// Checks everything that the header can be checked for by itself.
    pub(crate) fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Decoded<ChunkHeader> {
        let (body, crc) = bytes.split_at(CHUNK_HEADER_BYTES - 4);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(Bad("the chunk header's checksum does not match"));
        }
        let mut r = Cursor::new(body);
        if r.array()? != MAGIC {
            return Err(Bad("no chunk begins here"));
        }
        let version = Version { major: r.u8()?, minor: r.u8()? };
        let (codec, reserved) = (r.u8()?, r.u8()?);
        let (seq, raw_len, stored_len, payload_crc) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        let chain = r.array()?;
        if reserved != 0 || !matches!(codec, CODEC_RAW | CODEC_ZSTD) {
            return Err(Bad("the chunk is stored in an unknown way"));
        }
        if raw_len as usize > MAX_CHUNK_BYTES || stored_len > raw_len || (codec == CODEC_RAW && stored_len != raw_len) {
            return Err(Bad("the chunk's lengths are impossible"));
        }
        Ok(ChunkHeader { version, codec, seq, raw_len, stored_len, payload_crc, chain })
    }

    /// Checks the stored payload and unpacks it.
    pub(crate) fn unpack(&self, stored: &[u8]) -> Decoded<Vec<u8>> {
        if crc32fast::hash(stored) != self.payload_crc {
            return Err(Bad("the chunk's checksum does not match"));
        }
        if self.codec == CODEC_RAW {
            return Ok(stored.to_vec());
        }
        let raw =
            zstd::bulk::decompress(stored, self.raw_len as usize).map_err(|_| Bad("the chunk can't be unpacked"))?;
        if raw.len() == self.raw_len as usize { Ok(raw) } else { Err(Bad("the chunk unpacks to another length")) }
    }
}

/// A chunk as it lies in a segment, and its hash, which the next one carries.
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) chain: [u8; 32],
}

/// Packs a payload into a chunk.
pub(crate) fn seal(payload: &[u8], version: Version, seq: u32, chain: [u8; 32], level: i32) -> Result<Sealed> {
    if payload.len() > MAX_CHUNK_BYTES {
        return Err(Error::Invalid(format!(
            "a chunk of {} bytes, the limit is {MAX_CHUNK_BYTES}; cut chunks more often",
            payload.len()
        )));
    }
    let packed = (level != 0).then(|| zstd::bulk::compress(payload, level).ok()).flatten();
    let packed = packed.filter(|p| p.len() < payload.len());
    let (codec, stored) = packed.as_deref().map_or((CODEC_RAW, payload), |p| (CODEC_ZSTD, p));
    let header = ChunkHeader {
        version,
        codec,
        seq,
        raw_len: payload.len() as u32,
        stored_len: stored.len() as u32,
        payload_crc: crc32fast::hash(stored),
        chain,
    };
    let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES + stored.len());
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(stored);
    let chain = *blake3::hash(&bytes).as_bytes();
    Ok(Sealed { bytes, chain })
}

/// Bytes that one stream takes in a chunk, before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionSize {
    /// The stream.
    pub stream: u32,
    /// Its bytes.
    pub bytes: u64,
}

/// Records to payload: a section for each stream that has any, in the order journal, channels, swaps, final.
pub(crate) fn encode_payload(chunk: &Chunk, streams: &[Stream]) -> Result<Vec<u8>> {
    if chunk.records() > MAX_CHUNK_RECORDS {
        return Err(Error::Invalid(format!(
            "a chunk of {} records, the limit is {MAX_CHUNK_RECORDS}; cut chunks more often",
            chunk.records()
        )));
    }
    let id = |kind: StreamKind, channel: u16| {
        streams.iter().find(|s| s.is(kind, channel)).map(|s| s.id).ok_or_else(|| {
            Error::Invalid(format!(
                "a record of channel {channel}, but the manifest lists no {} stream for it",
                kind.name()
            ))
        })
    };
    let mut out = Vec::new();
    let mut section = |id: u32, body: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        body(&mut bytes);
        put_varint(&mut out, u64::from(id));
        put_varint(&mut out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    };
    if !chunk.journal.is_empty() {
        section(id(StreamKind::Journal, 0)?, &|b| encode_journal(b, &chunk.journal));
    }
    for (&ch, c) in &chunk.channels {
        if !c.requests.is_empty() {
            section(id(StreamKind::Requests, ch)?, &|b| encode_messages(b, &c.requests));
        }
        if !c.effects.is_empty() {
            section(id(StreamKind::Effects, ch)?, &|b| encode_messages(b, &c.effects));
        }
        if !c.output.is_empty() {
            section(id(StreamKind::Output, ch)?, &|b| encode_output(b, &c.output));
        }
    }
    if !chunk.swaps.is_empty() {
        let longest = |s: &crate::Swap| s.name.len().max(s.version.len()).max(s.config.as_ref().map_or(0, String::len));
        if chunk.swaps.iter().any(|s| longest(s) > MAX_DETAIL) {
            return Err(Error::Invalid("a plugin's name, version or configuration is longer than 4096 bytes".into()));
        }
        section(id(StreamKind::Swaps, 0)?, &|b| encode_swaps(b, &chunk.swaps));
    }
    if let Some(e) = &chunk.end {
        if e.detail.len() > MAX_DETAIL {
            return Err(Error::Invalid("the final record's text is longer than 4096 bytes".into()));
        }
        section(id(StreamKind::Final, 0)?, &|b| encode_end(b, e));
    }
    Ok(out)
}

/// Payload to records. `version` is the recording's: a newer minor may have streams that this build does not know, and
/// those are passed over.
pub(crate) fn decode_payload(
    payload: &[u8],
    seq: u32,
    streams: &[Stream],
    version: Version,
) -> Decoded<(Chunk, Vec<SectionSize>)> {
    let mut r = Cursor::new(payload);
    let mut chunk = Chunk { seq: u64::from(seq), ..Chunk::default() };
    let mut sizes = Vec::new();
    while !r.is_empty() {
        let id = r.varint()?;
        let len = r.bounded(MAX_CHUNK_BYTES, "a section is longer than a chunk may be")?;
        let body = r.bytes(len)?;
        let stream = streams
            .iter()
            .find(|s| u64::from(s.id) == id)
            .ok_or(Bad("a section of a stream that the manifest does not list"))?;
        if sizes.iter().any(|s: &SectionSize| s.stream == stream.id) {
            return Err(Bad("two sections of one stream"));
        }
        sizes.push(SectionSize { stream: stream.id, bytes: len as u64 });
        let budget = MAX_CHUNK_RECORDS - chunk.records();
        match stream.known_kind() {
            Some(StreamKind::Journal) => chunk.journal = decode_journal(body, budget)?,
            Some(StreamKind::Requests) => chunk.channel(stream.channel).requests = decode_messages(body, budget)?,
            Some(StreamKind::Effects) => chunk.channel(stream.channel).effects = decode_messages(body, budget)?,
            Some(StreamKind::Output) => chunk.channel(stream.channel).output = decode_output(body, budget)?,
            Some(StreamKind::Swaps) => chunk.swaps = decode_swaps(body, budget)?,
            Some(StreamKind::Final) => chunk.end = Some(decode_end(body)?),
            None if version.is_newer_minor() => {}
            None => return Err(Bad("a section of an unknown kind of stream")),
        }
    }
    Ok((chunk, sizes))
}

/// Reads a whole segment from memory; for the fuzzer, the real reader works on files.
pub(crate) fn decode_segment(file: &[u8], mut chain: [u8; 32], streams: &[Stream]) -> Result<Vec<Chunk>> {
    let bad = |offset: usize, b: Bad| Error::from(Fault::new(Place::at("segment", offset as u64), b.0));
    let mut chunks = Vec::new();
    let Some(header) = file.first_chunk() else { return Ok(chunks) };
    segment::SegmentHeader::decode(header).map_err(|b| bad(0, b))?;
    let mut at = crate::SEGMENT_HEADER_BYTES;
    while let Some(header) = file[at..].first_chunk() {
        let h = ChunkHeader::decode(header).map_err(|b| bad(at, b))?;
        let end = at + CHUNK_HEADER_BYTES + h.stored_len as usize;
        let Some(stored) = file.get(at + CHUNK_HEADER_BYTES..end) else { break };
        if h.chain != chain {
            return Err(bad(at, Bad("the chunk does not follow the one before it")));
        }
        chain = *blake3::hash(&file[at..end]).as_bytes();
        let payload = h.unpack(stored).map_err(|b| bad(at, b))?;
        chunks.push(decode_payload(&payload, h.seq, streams, h.version).map_err(|b| bad(at, b))?.0);
        at = end;
    }
    Ok(chunks)
}
