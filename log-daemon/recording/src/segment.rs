//! Segment files: their names and headers.

use crate::{
    SEGMENTS_DIR, Version,
    wire::{Bad, Cursor, Decoded},
};

/// Size of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"RpSegmnt";

/// A segment's file, relative to the recording.
pub(crate) fn file_name(number: u32) -> String {
    format!("{SEGMENTS_DIR}/{number:08}.seg")
}

/// The number in a segment's file name (without folder).
pub(crate) fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg").filter(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: Version,
    pub(crate) number: u32,
    /// Number of the first chunk in it.
    pub(crate) first_chunk: u32,
    /// Hash of the chunk before that; of the manifest in segment 0.
    pub(crate) chain: [u8; 32],
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut h = [0; SEGMENT_HEADER_BYTES];
        h[..8].copy_from_slice(&MAGIC);
        h[8..10].copy_from_slice(&[self.version.major, self.version.minor]);
        h[12..16].copy_from_slice(&self.number.to_le_bytes());
        h[16..20].copy_from_slice(&self.first_chunk.to_le_bytes());
        h[20..52].copy_from_slice(&self.chain);
        let crc = crc32fast::hash(&h[..60]);
        h[60..].copy_from_slice(&crc.to_le_bytes());
        h
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Decoded<SegmentHeader> {
        if bytes[60..] != crc32fast::hash(&bytes[..60]).to_le_bytes() {
            return Err(Bad("the segment header's checksum does not match"));
        }
        let mut r = Cursor::new(bytes);
        if r.array()? != MAGIC {
            return Err(Bad("the file is no segment"));
        }
        let version = Version { major: r.u8()?, minor: r.u8()? };
        let reserved: [u8; 2] = r.array()?;
        let (number, first_chunk, chain) = (r.u32()?, r.u32()?, r.array()?);
        if reserved != [0; 2] || r.u64()? != 0 {
            return Err(Bad("the segment header has unknown fields"));
        }
        Ok(SegmentHeader { version, number, first_chunk, chain })
    }
}
