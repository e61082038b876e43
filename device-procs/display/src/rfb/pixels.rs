//! Pixels as a viewer wants them (RFC 6143, 7.4).

/// A pixel format with its colours in the pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PixelFormat {
    bytes: u8,
    depth: u8,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

impl Default for PixelFormat {
    fn default() -> Self {
        Self { bytes: 4, depth: 24, big_endian: false, max: [255; 3], shift: [16, 8, 0] }
    }
}

/// 8 bits: three of red, three of green, two of blue.
const EIGHT_BITS: PixelFormat = PixelFormat { bytes: 1, depth: 8, big_endian: false, max: [7, 7, 3], shift: [5, 2, 0] };

impl PixelFormat {
    /// As ServerInit has it.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let [r, g, b] = self.max.map(u16::to_be_bytes);
        let [rs, gs, bs] = self.shift;
        let big = u8::from(self.big_endian);
        [self.bytes * 8, self.depth, big, 1, r[0], r[1], g[0], g[1], b[0], b[1], rs, gs, bs, 0, 0, 0]
    }

    /// As SetPixelFormat has it; true: the viewer wants a map of colours and takes indices.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, bool)> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let bits = bytes[0];
        if !matches!(bits, 8 | 16 | 32) || bytes[1] == 0 || bytes[1] > bits {
            return None;
        }
        if bytes[3] == 0 {
            return (bits == 8).then_some((EIGHT_BITS, true));
        }
        let max = [4, 6, 8].map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let shift = [bytes[10], bytes[11], bytes[12]];
        let fits = |(max, shift): (&u16, &u8)| {
            max.wrapping_add(1) & max == 0 && u32::from(*shift) + (16 - max.leading_zeros()) <= u32::from(bits)
        };
        let format = Self { bytes: bits / 8, depth: bytes[1], big_endian: bytes[2] != 0, max, shift };
        max.iter().zip(&shift).all(fits).then_some((format, false))
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes.into()
    }

    fn value(self, rgb: [u8; 3]) -> u32 {
        let part = |i: usize| (u32::from(rgb[i]) * u32::from(self.max[i]) + 127) / 255 << self.shift[i];
        part(0) | part(1) | part(2)
    }

    /// Adds a pixel.
    #[inline]
    pub(super) fn put(self, rgb: [u8; 3], out: &mut Vec<u8>) {
        let value = self.value(rgb);
        match self.bytes {
            4 if self.big_endian => out.extend(value.to_be_bytes()),
            4 => out.extend(value.to_le_bytes()),
            2 if self.big_endian => out.extend((value as u16).to_be_bytes()),
            2 => out.extend((value as u16).to_le_bytes()),
            _ => out.push(value as u8),
        }
    }

    /// Adds a pixel as ZRLE has it (7.7.5, CPIXEL): of four bytes the one that holds no colour is left out.
    pub(super) fn put_compressed(self, rgb: [u8; 3], out: &mut Vec<u8>) {
        let low = (0..3).all(|i| u32::from(self.shift[i]) + (16 - self.max[i].leading_zeros()) <= 24);
        let high = self.shift.iter().all(|s| *s >= 8);
        if self.bytes != 4 || self.depth > 24 || !(low || high) {
            return self.put(rgb, out);
        }
        let bytes = match self.big_endian {
            true => self.value(rgb).to_be_bytes(),
            false => self.value(rgb).to_le_bytes(),
        };
        out.extend_from_slice(if low == self.big_endian { &bytes[1..] } else { &bytes[..3] });
    }
}

/// SetColourMapEntries (7.6.2) for viewers that take indices: the colours of [`EIGHT_BITS`].
pub(super) fn colour_map() -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 1, 0];
    for n in 0..256_u32 {
        for i in 0..3 {
            let max = u32::from(EIGHT_BITS.max[i]);
            let value = (n >> EIGHT_BITS.shift[i] & max) * 65535 / max;
            out.extend((value as u16).to_be_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let put = |format: PixelFormat, rgb| {
            let (mut whole, mut compressed) = (Vec::new(), Vec::new());
            format.put(rgb, &mut whole);
            format.put_compressed(rgb, &mut compressed);
            (whole, compressed)
        };
        let standard = PixelFormat::default();
        assert_eq!(PixelFormat::parse(&standard.to_bytes()), Some((standard, false)));
        assert_eq!(put(standard, [1, 2, 3]), (vec![3, 2, 1, 0], vec![3, 2, 1]));
        let big = PixelFormat { big_endian: true, ..standard };
        assert_eq!(put(big, [1, 2, 3]), (vec![0, 1, 2, 3], vec![1, 2, 3]));
        let high = PixelFormat { shift: [24, 16, 8], ..standard };
        assert_eq!(put(high, [1, 2, 3]), (vec![0, 3, 2, 1], vec![3, 2, 1]));
        let high = PixelFormat { big_endian: true, ..high };
        assert_eq!(put(high, [1, 2, 3]), (vec![1, 2, 3, 0], vec![1, 2, 3]));
        let rgb565 = PixelFormat { bytes: 2, depth: 16, max: [31, 63, 31], shift: [11, 5, 0], ..standard };
        assert_eq!(put(rgb565, [255, 0, 255]), (vec![0x1f, 0xf8], vec![0x1f, 0xf8]));
        assert_eq!(put(EIGHT_BITS, [255, 0, 255]), (vec![0xe3], vec![0xe3]));
        let mut bytes = standard.to_bytes();
        bytes[4..6].fill(0xfe);
        assert_eq!(PixelFormat::parse(&bytes), None, "not a power of two less one");
        for (at, value) in [(0, 24), (0, 0), (1, 0), (1, 33), (10, 25)] {
            let mut bytes = standard.to_bytes();
            bytes[at] = value;
            assert_eq!(PixelFormat::parse(&bytes), None, "{at}: {value}");
        }
        let map = colour_map();
        assert_eq!((map.len(), &map[6 + 6 * 0xe3..6 + 6 * 0xe4]), (6 + 6 * 256, &[255, 255, 0, 0, 255, 255][..]));
    }
}
