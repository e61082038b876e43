//! The recorded forms of transfers between devices and guest memory. Since format 1.1.
//!
//! A device's transfer carries all bytes that it writes to guest memory. Those that stand in the image of a disk are recorded as a reference to
//! it: a message with flag [`REFERENCES`], whose payload is a [`Packed`]. What a device reads from guest memory is a function of what the guest did,
//! so a message with flag [`DIGEST`] holds a hash of it only, with the number of bytes as its value.

use crate::wire::{Bad, Cursor, get_column, get_narrow_column, put_column, put_varint, unzigzag, zigzag};

/// Flag of a DMA effect: its payload is a [`Packed`].
pub const REFERENCES: u16 = 1 << 1;
/// Flag of a DMA-done request: its payload is a [`Digest`] of the bytes, and their number stands in its value.
pub const DIGEST: u16 = 1 << 2;
/// Most ranges in each direction of one transfer.
pub const MAX_RANGES: usize = 1024;

/// The first 16 bytes of the BLAKE3 of bytes that are not recorded.
pub type Digest = [u8; 16];

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    finish(&blake3::hash(bytes))
}

/// The digest that a hash makes.
pub fn finish(hash: &blake3::Hash) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash.as_bytes()[..16]);
    digest
}

/// Bytes to be written to guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// First guest physical address.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
    /// Where they come from.
    pub from: Source,
}

/// Where the bytes of a [`Write`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the image of the device's disk: the disk's number in the highest byte, the offset in the others.
    Image(u64),
    /// They are recorded.
    Bytes(Vec<u8>),
}

/// A transfer, with references in place of the bytes that stand in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The device's tag of it.
    pub tag: u64,
    /// Ranges to read: address and length.
    pub reads: Vec<(u64, u64)>,
    /// Ranges to write.
    pub writes: Vec<Write>,
    /// Of all bytes that are referenced, one after the other.
    pub digest: Digest,
}

/// Distances to where the range before ended.
fn distances(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<u64> {
    let mut expected = 0u64;
    ranges
        .map(|(start, len)| {
            let d = zigzag(start.wrapping_sub(expected));
            expected = start.wrapping_add(len);
            d
        })
        .collect()
}

/// The reverse of [`distances`].
fn starts(distances: Vec<u64>, lens: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut expected = 0u64;
    distances
        .into_iter()
        .zip(lens)
        .map(|(d, len)| {
            let start = expected.wrapping_add(unzigzag(d));
            expected = start.wrapping_add(len);
            start
        })
        .collect()
}

impl Packed {
    /// The payload that stands in the recording.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.tag);
        put_varint(&mut out, self.reads.len() as u64);
        put_varint(&mut out, self.writes.len() as u64);
        put_column(&mut out, &distances(self.reads.iter().copied()));
        put_column(&mut out, &self.reads.iter().map(|r| r.1).collect::<Vec<_>>());
        put_column(&mut out, &distances(self.writes.iter().map(|w| (w.addr, w.len))));
        put_column(&mut out, &self.writes.iter().map(|w| w.len).collect::<Vec<_>>());
        let referenced = |w: &Write| match w.from {
            Source::Image(origin) => Some((origin, w.len)),
            Source::Bytes(_) => None,
        };
        put_column(&mut out, &self.writes.iter().map(|w| referenced(w).is_some().into()).collect::<Vec<_>>());
        put_column(&mut out, &distances(self.writes.iter().filter_map(referenced)));
        out.extend_from_slice(&self.digest);
        for w in &self.writes {
            if let Source::Bytes(bytes) = &w.from {
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Packed, &'static str> {
        decode(payload).map_err(|Bad(what)| what)
    }
}

fn decode(payload: &[u8]) -> Result<Packed, Bad> {
    let mut r = Cursor::new(payload);
    let tag = r.varint()?;
    let many = "a transfer has more ranges than it may have";
    let (n_reads, n_writes) = (r.bounded(MAX_RANGES, many)?, r.bounded(MAX_RANGES, many)?);
    let (read_distances, read_lens) = (get_column(&mut r, n_reads)?, get_column(&mut r, n_reads)?);
    let (write_distances, lens) = (get_column(&mut r, n_writes)?, get_column(&mut r, n_writes)?);
    let referenced = get_narrow_column(&mut r, n_writes, 1, "a transfer's range is neither bytes nor reference")?;
    let in_image = || lens.iter().zip(&referenced).filter(|(_, r)| **r == 1).map(|(len, _)| *len);
    let origin_distances = get_column(&mut r, in_image().count())?;
    let digest = r.array()?;
    let mut origins = starts(origin_distances, in_image()).into_iter();
    let mut writes = Vec::with_capacity(n_writes);
    for (i, addr) in starts(write_distances, lens.iter().copied()).into_iter().enumerate() {
        let from = match (referenced[i] == 1).then(|| origins.next()).flatten() {
            Some(origin) => Source::Image(origin),
            None => Source::Bytes(crate::codec::take(&mut r, lens[i])?),
        };
        writes.push(Write { addr, len: lens[i], from });
    }
    r.finish()?;
    let reads = starts(read_distances, read_lens.iter().copied()).into_iter().zip(read_lens).collect();
    Ok(Packed { tag, reads, writes, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `docs/recording-format.md`: a page from a disk's first MiB and a status byte.
    fn example() -> Packed {
        let page = Write { addr: 0x8000_0000, len: 4096, from: Source::Image(0x10_0000) };
        let status = Write { addr: 0x8000_1000, len: 1, from: Source::Bytes(vec![0x5a]) };
        Packed { tag: 7, reads: vec![], writes: vec![page, status], digest: *b"0123456789abcdef" }
    }

    #[test]
    fn the_page_shows_the_bytes_of_a_transfer() {
        let bytes = example().encode();
        let shown = "07 00 02 00 00 02 80 80 80 80 10 00 02 80 20 01 03 01 00 23 00 00 20";
        let hex: Vec<String> = bytes[..bytes.len() - 17].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex.join(" "), shown);
        assert!(include_str!("../../../docs/recording-format.md").contains(shown), "the page shows other bytes");
        assert_eq!(&bytes[bytes.len() - 17..], b"0123456789abcdef\x5a");
        assert_eq!(Packed::decode(&bytes), Ok(example()));
        for cut in 0..bytes.len() {
            assert!(Packed::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Packed::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_contiguous_read_takes_few_bytes() {
        let write = |i: u64| Write { addr: 0x8000_0000 + 4096 * i, len: 4096, from: Source::Image(4096 * i) };
        let packed = Packed { writes: (0..256).map(write).collect(), ..Packed::default() };
        let bytes = packed.encode();
        assert_eq!(Packed::decode(&bytes), Ok(packed));
        assert!(bytes.len() < 128, "{} bytes for a MiB", bytes.len());
    }

    #[test]
    fn damaged_payloads_are_refused_or_read() {
        let bytes = example().encode();
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[i] ^= 1 << bit;
                crate::fuzz_dma(&bad);
            }
        }
        assert!(Packed::decode(&[0xff; 64]).is_err());
    }
}
