//! A card's registers (SD Physical Layer Simplified Specification 3.01, chapter 5), which follow from its size.

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 512;
/// The largest standard capacity card; above it a card is a high capacity one and addressed by blocks.
const STANDARD: u64 = 2 << 30;
/// What a high capacity card's size is counted in.
const UNIT: u64 = 512 << 10;
/// The largest size that the registers can say: 2^22 units.
const LARGEST: u64 = UNIT << 22;
/// Command classes: basic, block read, block write, erase, application-specific, switch.
const CLASSES: u32 = 0x535;

/// The card's memory as it describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Blocks of 512 bytes. What the image has beyond them can't be reached.
    pub(crate) blocks: u64,
    /// Addressed by blocks.
    pub(crate) high: bool,
    /// log2 of the bytes of a block as the CSD says them: larger than 9 only to express sizes above 1 GiB.
    block_log: u32,
    /// C_SIZE.
    size: u32,
    /// C_SIZE_MULT.
    multiplier: u32,
}

impl Geometry {
    /// That of an image of `len` bytes: the largest size not above it that the registers can say; `None` if there is none.
    pub(crate) fn of(len: u64) -> Option<Self> {
        if len > STANDARD {
            let units = len.min(LARGEST) / UNIT;
            let size = units as u32 - 1;
            return Some(Self { blocks: units * (UNIT / BLOCK), high: true, block_log: 9, size, multiplier: 0 });
        }
        let blocks = len / BLOCK;
        // 4096 << 10 blocks of 512 bytes are 2 GiB.
        let shift = (2..=10).find(|s| blocks >> s <= 4096)?;
        let units = blocks >> shift;
        let (multiplier, block_log) = if shift > 9 { (7, 10) } else { (shift - 2, 9) };
        let size = (units as u32).checked_sub(1)?;
        Some(Self { blocks: units << shift, high: false, block_log, size, multiplier })
    }

    /// The card-specific data (5.3). `protected` sets the temporary write protection.
    pub(crate) fn csd(&self, protected: bool) -> [u8; 16] {
        let mut r = Bits::default();
        r.set(127, 126, self.high.into());
        r.set(119, 112, 0x0e); // TAAC: 1 ms
        r.set(103, 96, 0x32); // TRAN_SPEED: 25 MHz
        r.set(95, 84, CLASSES);
        r.set(83, 80, self.block_log);
        r.set(79, 79, (!self.high).into()); // READ_BL_PARTIAL
        if self.high {
            r.set(69, 48, self.size);
        } else {
            r.set(73, 62, self.size);
            for low in [59, 56, 53, 50] {
                r.set(low + 2, low, 6); // currents: 60 or 80 mA
            }
            r.set(49, 47, self.multiplier);
        }
        r.set(46, 46, 1); // ERASE_BLK_EN: single blocks
        r.set(45, 39, 0x7f); // SECTOR_SIZE
        r.set(28, 26, 2); // R2W_FACTOR
        r.set(25, 22, self.block_log);
        r.set(12, 12, protected.into());
        r.sealed()
    }
}

/// The card's identification (5.2).
pub(crate) fn cid(serial: u32) -> [u8; 16] {
    let mut r = Bits::default();
    // Manufacturer and application are nobody's.
    r.set(119, 104, u32::from(u16::from_be_bytes(*b"RP")));
    for (i, c) in b"CARD1".iter().enumerate() {
        let low = 96 - 8 * i as u32;
        r.set(low + 7, low, u32::from(*c));
    }
    r.set(63, 56, 0x10); // revision 1.0
    r.set(55, 24, serial);
    r.set(19, 8, 20 << 4 | 1); // January 2020
    r.sealed()
}

/// The SD configuration register (5.6): version 3.0x, erased bytes are 0, one or four data lines, CMD23.
pub(crate) const SCR: [u8; 8] = [0x02, 0x05, 0x80, 0x02, 0, 0, 0, 0];

/// The SD status (4.10.2): nothing but the bus width is said.
pub(crate) fn sd_status(wide: bool) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = u8::from(wide) << 7;
    bytes
}

/// A register of 128 bits.
#[derive(Default)]
struct Bits(u128);

impl Bits {
    fn set(&mut self, high: u32, low: u32, value: u32) {
        debug_assert!(u64::from(value) < 1 << (high - low + 1));
        self.0 |= u128::from(value) << low;
    }

    /// With its check sum and the stop bit.
    fn sealed(self) -> [u8; 16] {
        let mut bytes = self.0.to_be_bytes();
        bytes[15] = crc7(&bytes[..15]) << 1 | 1;
        bytes
    }
}

/// The check sum of commands and registers: x^7 + x^3 + 1 (4.5).
fn crc7(bytes: &[u8]) -> u8 {
    let mut crc = 0u8;
    for byte in bytes {
        for i in (0..8).rev() {
            let feedback = (byte >> i & 1) ^ (crc >> 6 & 1);
            crc = (crc << 1 & 0x7f) ^ feedback * 0x09;
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_sums() {
        // The examples of 4.5: CMD0, CMD17 and the answer to CMD17.
        assert_eq!(crc7(&[0x40, 0, 0, 0, 0]), 0b100_1010);
        assert_eq!(crc7(&[0x51, 0, 0, 0, 0]), 0b010_1010);
        assert_eq!(crc7(&[0x11, 0, 0, 0x09, 0]), 0b011_0011);
    }

    /// What a driver makes of the CSD (5.3.2, 5.3.3).
    fn bytes(csd: [u8; 16]) -> u64 {
        let word = u128::from_be_bytes(csd);
        let field = |high: u32, low: u32| (word >> low) as u64 & ((1 << (high - low + 1)) - 1);
        match field(127, 126) {
            0 => (field(73, 62) + 1) << (field(49, 47) + 2) << field(83, 80),
            _ => (field(69, 48) + 1) * UNIT,
        }
    }

    #[test]
    fn sizes() {
        let mib = 1 << 20;
        for len in
            [2048, 2560, 4096 * 2048, 16 * mib, 17 * mib + 512, 1023 * mib, 1024 * mib, 1024 * mib + 4096, 2048 * mib]
        {
            let g = Geometry::of(len).unwrap();
            assert_eq!((bytes(g.csd(false)), g.high), (g.blocks * BLOCK, false), "{len}");
            assert!(g.blocks * BLOCK <= len && len - g.blocks * BLOCK < len / 2048 + 2048, "{len}: {g:?}");
        }
        for len in [2048 * mib + 512, 4096 * mib, 5 << 40] {
            let g = Geometry::of(len).unwrap();
            assert_eq!((bytes(g.csd(true)), g.high), (g.blocks * BLOCK, true), "{len}");
            assert!(g.blocks * BLOCK <= len && (len - g.blocks * BLOCK < UNIT || len > LARGEST), "{len}: {g:?}");
        }
        assert_eq!(Geometry::of(1536), None);
        assert_eq!(Geometry::of(0), None);
    }
}
