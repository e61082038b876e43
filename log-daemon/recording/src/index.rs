//! `index`: where the chunks are. Everything in it can be found out from the segments.

use crate::{
    FORMAT, Version,
    record::Position,
    wire::{Bad, Cursor, Decoded, get_column, put_column, unzigzag, zigzag},
};

const MAGIC: [u8; 8] = *b"RpIndex\0";

/// Where a chunk is, and how far the recording reaches with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexEntry {
    /// Segment number.
    pub segment: u32,
    /// Byte offset of the chunk's header.
    pub offset: u64,
    /// Bytes of header and payload.
    pub bytes: u64,
    /// Position of the last Progress group up to the chunk's end.
    pub at: Position,
    /// Instructions retired by then.
    pub icount: u64,
    /// Guest time by then, ns.
    pub vtime: u64,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) version: Version,
    /// Hash of the last chunk, so that the last one too is protected by more than its CRC.
    pub(crate) chain: [u8; 32],
    /// By chunk number.
    pub(crate) entries: Vec<IndexEntry>,
}

/// Field `i` of an entry, as columns.
fn fields(e: &IndexEntry) -> [u64; 8] {
    [u64::from(e.segment), e.offset, e.bytes, e.at.epoch, e.at.count, u64::from(e.at.idle), e.icount, e.vtime]
}

impl Index {
    pub(crate) fn new(chain: [u8; 32], entries: Vec<IndexEntry>) -> Index {
        Index { version: FORMAT, chain, entries }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.version.major, self.version.minor, 0, 0]);
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.chain);
        for i in 0..8 {
            let mut last = 0u64;
            let column = self.entries.iter().map(|e| {
                let v = fields(e)[i];
                let d = zigzag(v.wrapping_sub(last));
                last = v;
                d
            });
            put_column(&mut out, &column.collect::<Vec<_>>());
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// `max` is how many chunks there can be at most, by the size of the segments.
    pub(crate) fn decode(bytes: &[u8], max: usize) -> Decoded<Index> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Bad("too short"))?;
        if *crc != crc32fast::hash(body).to_le_bytes() {
            return Err(Bad("its checksum does not match"));
        }
        let mut r = Cursor::new(body);
        if r.array()? != MAGIC {
            return Err(Bad("the file is no index"));
        }
        let version = Version { major: r.u8()?, minor: r.u8()? };
        if version.major != FORMAT.major || r.array()? != [0; 2] {
            return Err(Bad("the index is of another version"));
        }
        let n = r.u32()? as usize;
        let chain = r.array()?;
        if n > max {
            return Err(Bad("the index lists more chunks than the segments have room for"));
        }
        let mut columns = Vec::with_capacity(8);
        for _ in 0..8 {
            let mut last = 0u64;
            let deltas = get_column(&mut r, n)?;
            columns.push(
                deltas
                    .into_iter()
                    .map(|d| {
                        last = last.wrapping_add(unzigzag(d));
                        last
                    })
                    .collect::<Vec<_>>(),
            );
        }
        r.finish()?;
        let narrow = |v: u64| u32::try_from(v).map_err(|_| Bad("a number of the index is too large"));
        let entry = |i: usize| {
            Ok(IndexEntry {
                segment: narrow(columns[0][i])?,
                offset: columns[1][i],
                bytes: columns[2][i],
                at: Position { epoch: columns[3][i], count: columns[4][i], idle: narrow(columns[5][i])? },
                icount: columns[6][i],
                vtime: columns[7][i],
            })
        };
        Ok(Index { version, chain, entries: (0..n).map(entry).collect::<Decoded<_>>()? })
    }
}
