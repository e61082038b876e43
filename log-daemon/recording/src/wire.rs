//! Bytes, varints and columns of integers.

/// Why some bytes could not be decoded. Becomes a [`Fault`](crate::Fault) once the place is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

/// Decoder result.
pub(crate) type Decoded<T> = Result<T, Bad>;

/// Appends `v` as LEB128: seven bits a byte, least significant first, high bit set on all but the last.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Bytes that [`put_varint`] takes for `v`.
pub(crate) fn varint_len(v: u64) -> usize {
    ((64 - (v | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Maps a wrapping difference to a small number when it is near zero on either side.
pub(crate) fn zigzag(d: u64) -> u64 {
    (d << 1) ^ (((d as i64) >> 63) as u64)
}

/// Inverse of [`zigzag`].
pub(crate) fn unzigzag(z: u64) -> u64 {
    (z >> 1) ^ (z & 1).wrapping_neg()
}

/// Reads a byte slice from front to back; every read is checked.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Bad("ends in the middle of a record"))?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut a = [0; N];
        a.copy_from_slice(self.bytes(N)?);
        Ok(a)
    }

    pub(crate) fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Decoded<u64> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.u8()?;
            let bits = u64::from(b & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            v |= bits << shift;
            if b & 0x80 == 0 {
                return Ok(v);
            }
        }
        Err(Bad("a number is longer than 64 bits"))
    }

    /// A varint that must not exceed `max`.
    pub(crate) fn bounded(&mut self, max: usize, what: &'static str) -> Decoded<usize> {
        usize::try_from(self.varint()?).ok().filter(|&n| n <= max).ok_or(Bad(what))
    }

    /// Refuses bytes behind the last thing that was expected.
    pub(crate) fn finish(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Bad("has bytes behind its last record")) }
    }
}

// How a column of n integers is stored: the low nibble of its first byte. The high nibble is width - 1 where a width is used.
const ZERO: u8 = 0; // all zero, nothing follows
const SAME: u8 = 1; // all the same, one varint follows
const VARINT: u8 = 2; // n varints
const FIXED: u8 = 3; // n little-endian numbers of `width` bytes
const SPARSE: u8 = 4; // bitmap of the non-zero ones (bit i of byte i/8), then those, `width` bytes each

/// Appends `vals` in the smallest of the five layouts. The reader must know how many they are.
pub(crate) fn put_column(out: &mut Vec<u8>, vals: &[u64]) {
    let first = vals.first().copied().unwrap_or(0);
    let widest = vals.iter().fold(0, |a, v| a | v);
    let width = ((64 - widest.leading_zeros()) as usize).div_ceil(8);
    // A single hash is shorter as it is than as a varint.
    if vals.iter().all(|&v| v == first) && varint_len(first) <= (vals.len() * width).max(1) {
        out.push(if first == 0 { ZERO } else { SAME });
        if first != 0 {
            put_varint(out, first);
        }
        return;
    }
    let set = vals.iter().filter(|&&v| v != 0).count();
    let fixed = vals.len() * width;
    let sparse = vals.len().div_ceil(8) + set * width;
    let varint: usize = vals.iter().map(|&v| varint_len(v)).sum();
    let tag = |mode: u8| mode | ((width as u8 - 1) << 4);
    // On a tie the fixed layout wins: bytes stay bytes, so that text in a column looks to zstd like the same text elsewhere.
    if fixed <= varint && fixed <= sparse {
        out.push(tag(FIXED));
        vals.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()[..width]));
    } else if varint <= sparse {
        out.push(VARINT);
        vals.iter().for_each(|&v| put_varint(out, v));
    } else {
        out.push(tag(SPARSE));
        for group in vals.chunks(8) {
            out.push(group.iter().enumerate().fold(0, |b, (i, &v)| b | (u8::from(v != 0) << i)));
        }
        vals.iter().filter(|&&v| v != 0).for_each(|v| out.extend_from_slice(&v.to_le_bytes()[..width]));
    }
}

/// Reads a column of `n` integers. `n` must have been checked against the chunk's limit by the caller.
pub(crate) fn get_column(r: &mut Cursor<'_>, n: usize) -> Decoded<Vec<u64>> {
    let tag = r.u8()?;
    let width = usize::from(tag >> 4) + 1;
    let number = |b: &[u8]| {
        let mut a = [0; 8];
        a[..width].copy_from_slice(b);
        u64::from_le_bytes(a)
    };
    let mode = tag & 0xf;
    if width > 8 || (!matches!(mode, FIXED | SPARSE) && width != 1) {
        return Err(Bad("a column has an impossible width"));
    }
    match mode {
        ZERO => Ok(vec![0; n]),
        SAME => Ok(vec![r.varint()?; n]),
        VARINT => (0..n).map(|_| r.varint()).collect(),
        FIXED => Ok(r.bytes(n.saturating_mul(width))?.chunks_exact(width).map(number).collect()),
        SPARSE => {
            let map = r.bytes(n.div_ceil(8))?;
            (0..n).map(|i| if map[i / 8] >> (i % 8) & 1 == 1 { Ok(number(r.bytes(width)?)) } else { Ok(0) }).collect()
        }
        _ => Err(Bad("a column is of an unknown layout")),
    }
}

/// Like [`get_column`], each value at most `max`.
pub(crate) fn get_narrow_column(r: &mut Cursor<'_>, n: usize, max: u64, what: &'static str) -> Decoded<Vec<u64>> {
    let col = get_column(r, n)?;
    if col.iter().any(|&v| v > max) { Err(Bad(what)) } else { Ok(col) }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _infallible = write!(s, "{b:02x}");
        s
    })
}

/// Inverse of [`hex`]; accepts lower case only, so that a byte string has one text.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() % 2 != 0 {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roundtrip(vals: &[u64]) -> usize {
        let mut out = Vec::new();
        put_column(&mut out, vals);
        let mut r = Cursor::new(&out);
        assert_eq!(get_column(&mut r, vals.len()).unwrap(), vals);
        r.finish().unwrap();
        out.len()
    }

    #[test]
    fn each_layout_is_chosen_and_read_back() {
        assert_eq!(roundtrip(&[]), 1);
        assert_eq!(roundtrip(&[0; 100]), 1);
        assert_eq!(roundtrip(&[300; 100]), 3);
        assert_eq!(roundtrip(&[1, 2, 3, 4]), 5, "fixed, one byte each");
        assert_eq!(roundtrip(&[1, 2, 300, 4]), 6, "varints");
        let mut hashes = [0u64; 64];
        hashes[7] = u64::MAX;
        assert_eq!(roundtrip(&hashes), 1 + 8 + 8, "sparse");
        assert_eq!(roundtrip(&[u64::MAX, 0x0123_4567_89ab_cdef]), 17, "fixed, eight bytes each");
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let mut longest = Vec::new();
        put_varint(&mut longest, u64::MAX);
        assert_eq!(longest.len(), 10);
        assert_eq!(Cursor::new(&longest).varint(), Ok(u64::MAX));
        longest[9] = 2;
        assert!(Cursor::new(&longest).varint().is_err());
        assert!(Cursor::new(&[0x80; 11]).varint().is_err());
        assert!(Cursor::new(&[0x80]).varint().is_err());
    }

    proptest! {
        #[test]
        fn columns_roundtrip(vals in prop::collection::vec(prop_oneof![Just(0u64), 0u64..300, any::<u64>()], 0..200)) {
            roundtrip(&vals);
        }

        #[test]
        fn zigzag_roundtrips(v: u64) {
            prop_assert_eq!(unzigzag(zigzag(v)), v);
        }

        #[test]
        fn varint_len_is_right(v: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            prop_assert_eq!(out.len(), varint_len(v));
        }

        #[test]
        fn hex_roundtrips(b: Vec<u8>) {
            prop_assert_eq!(unhex(&hex(&b)), Some(b));
        }

        #[test]
        fn random_bytes_are_no_danger(b: Vec<u8>, n in 0usize..1000) {
            if let Ok(col) = get_column(&mut Cursor::new(&b), n) {
                prop_assert_eq!(col.len(), n);
            }
        }
    }
}
