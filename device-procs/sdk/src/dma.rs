//! How a [`Effects::dma`](crate::Effects::dma) request is laid out in a channel's arena, and the limits on it.
//!
//! Little-endian: `tag: u64`, `reads: u32`, `writes: u32`, then `addr: u64, len: u64` of each read, then `addr: u64, len: u64, origin: u64` of each
//! write, then the bytes of all writes, one after the other. The origin is that of [`Origin::to_bits`], or all ones.

use crate::device::DmaRange;

/// Ranges of each direction in one request.
pub const MAX_RANGES: usize = 1024;
/// Bytes of each direction in one request.
pub const MAX_BYTES: u64 = 1 << 20;

const HEADER: usize = 16;
const READ: usize = 16;
const WRITE: usize = 24;
const NO_ORIGIN: u64 = u64::MAX;

/// Where bytes stand in the image that a disk was made of, in which they were not changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which disk of the device.
    pub disk: u32,
    /// First byte.
    pub offset: u64,
}

impl Origin {
    /// The disk in the highest byte, the offset in the others; `None` if they don't fit.
    #[must_use]
    pub fn to_bits(self) -> Option<u64> {
        (self.disk < 255 && self.offset < 1 << 56).then_some(u64::from(self.disk) << 56 | self.offset)
    }

    /// The reverse of [`Self::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != NO_ORIGIN).then_some(Self { disk: (bits >> 56) as u32, offset: bits & ((1 << 56) - 1) })
    }
}

/// A range to write, with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// First guest physical address.
    pub addr: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// Where they come from, if that is known.
    pub origin: Option<Origin>,
}

/// A decoded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Names it in its completion.
    pub tag: u64,
    /// What to read, in order.
    pub reads: Vec<DmaRange>,
    /// What to write, in order.
    pub writes: Vec<Write<'a>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// More than [`MAX_RANGES`] or [`MAX_BYTES`] in one direction.
    #[error("a DMA request of more than {MAX_RANGES} ranges or {MAX_BYTES} bytes in one direction")]
    TooLarge,
    /// The bytes end early, or too late.
    #[error("a DMA request whose length does not match its ranges")]
    Length,
    /// A range that runs past the end of the address space.
    #[error("a DMA range that wraps round the end of the address space")]
    Wraps,
}

/// Checks the limits.
///
/// # Errors
/// If the request is too large or a range wraps.
pub fn check(reads: &[DmaRange], writes: &[Write<'_>]) -> Result<(), DmaError> {
    let writes = writes.iter().map(|w| DmaRange { addr: w.addr, len: w.data.len() as u64 });
    check_ranges(reads.iter().copied(), writes)
}

/// Checks the limits, before the bytes of the writes are at hand.
///
/// # Errors
/// If the request is too large or a range wraps.
pub fn check_ranges(
    reads: impl ExactSizeIterator<Item = DmaRange>,
    writes: impl ExactSizeIterator<Item = DmaRange>,
) -> Result<(), DmaError> {
    if reads.len() > MAX_RANGES || writes.len() > MAX_RANGES {
        return Err(DmaError::TooLarge);
    }
    let mut sums = [0u64; 2];
    let ranges = reads.map(|r| (0, r.addr, r.len)).chain(writes.map(|w| (1, w.addr, w.len)));
    for (direction, addr, len) in ranges {
        addr.checked_add(len).ok_or(DmaError::Wraps)?;
        sums[direction] = sums[direction].checked_add(len).filter(|&s| s <= MAX_BYTES).ok_or(DmaError::TooLarge)?;
    }
    Ok(())
}

/// Lays a request out.
///
/// # Errors
/// As [`check`].
pub fn encode(tag: u64, reads: &[DmaRange], writes: &[Write<'_>]) -> Result<Vec<u8>, DmaError> {
    check(reads, writes)?;
    let bytes: usize = writes.iter().map(|w| w.data.len()).sum();
    let mut out = Vec::with_capacity(HEADER + READ * reads.len() + WRITE * writes.len() + bytes);
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&(reads.len() as u32).to_le_bytes());
    out.extend_from_slice(&(writes.len() as u32).to_le_bytes());
    for r in reads {
        out.extend_from_slice(&r.addr.to_le_bytes());
        out.extend_from_slice(&r.len.to_le_bytes());
    }
    for w in writes {
        out.extend_from_slice(&w.addr.to_le_bytes());
        out.extend_from_slice(&(w.data.len() as u64).to_le_bytes());
        out.extend_from_slice(&w.origin.and_then(Origin::to_bits).unwrap_or(NO_ORIGIN).to_le_bytes());
    }
    writes.iter().for_each(|w| out.extend_from_slice(w.data));
    Ok(out)
}

/// Reads a request back. The bytes come from an untrusted process.
///
/// # Errors
/// If they are not what [`encode`] makes.
pub fn decode(bytes: &[u8]) -> Result<Request<'_>, DmaError> {
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(DmaError::Length)?;
    let u64_at = |b: &[u8], i: usize| u64::from_le_bytes(b[i..i + 8].try_into().expect("8 bytes"));
    let counts = u64_at(header, 8);
    let (n_reads, n_writes) = ((counts & 0xffff_ffff) as usize, (counts >> 32) as usize);
    if n_reads > MAX_RANGES || n_writes > MAX_RANGES {
        return Err(DmaError::TooLarge);
    }
    let (read_table, rest) = rest.split_at_checked(n_reads * READ).ok_or(DmaError::Length)?;
    let (write_table, mut data) = rest.split_at_checked(n_writes * WRITE).ok_or(DmaError::Length)?;
    let reads: Vec<_> =
        read_table.chunks_exact(READ).map(|c| DmaRange { addr: u64_at(c, 0), len: u64_at(c, 8) }).collect();
    let mut writes = Vec::with_capacity(n_writes);
    for c in write_table.chunks_exact(WRITE) {
        let len = usize::try_from(u64_at(c, 8)).map_err(|_| DmaError::TooLarge)?;
        let (head, tail) = data.split_at_checked(len).ok_or(DmaError::Length)?;
        writes.push(Write { addr: u64_at(c, 0), data: head, origin: Origin::from_bits(u64_at(c, 16)) });
        data = tail;
    }
    if !data.is_empty() {
        return Err(DmaError::Length);
    }
    check(&reads, &writes)?;
    Ok(Request { tag: u64_at(header, 0), reads, writes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let reads = [DmaRange { addr: 0x8000_0000, len: 4096 }, DmaRange { addr: 1, len: 0 }];
        let origin = Some(Origin { disk: 3, offset: 0x1234_5678_9a00 });
        let writes = [Write { addr: 5, data: b"abc", origin }, Write { addr: 0x1_0000_0000, data: b"", origin: None }];
        let bytes = encode(77, &reads, &writes).unwrap();
        let back = decode(&bytes).unwrap();
        assert_eq!(back, Request { tag: 77, reads: reads.to_vec(), writes: writes.to_vec() });
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode(&[bytes.as_slice(), b"x"].concat()), Err(DmaError::Length));
    }

    #[test]
    fn limits_hold_both_ways() {
        let far = [DmaRange { addr: u64::MAX, len: 2 }];
        assert_eq!(encode(0, &far, &[]), Err(DmaError::Wraps));
        let large = [DmaRange { addr: 0, len: MAX_BYTES }, DmaRange { addr: 0, len: 1 }];
        assert_eq!(encode(0, &large, &[]), Err(DmaError::TooLarge));
        let mut bytes = encode(0, &[], &[]).unwrap();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(DmaError::TooLarge));
    }
}
