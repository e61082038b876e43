//! Accesses of any size to a peripheral of 32-bit registers, as an APB behind a bridge does them.
//!
//! The APB has no byte strobes (ARM IHI 0024B): the peripheral sees the whole word that the access lies in. So a narrow read takes
//! its lanes from the whole register, and a narrow write writes the whole register, with zeros in the other lanes. An access of
//! 8 bytes reaches the first of its two words only, as no master on such a bus makes one.

use crate::spec::truncate;

/// The offset of the register in which an access at `offset` lies.
#[must_use]
pub fn word(offset: u64) -> u64 {
    offset & !3
}

/// What a read of `size` bytes at `offset` gives when the register at [`word`]`(offset)` holds `register`.
#[must_use]
pub fn read_lanes(offset: u64, size: u8, register: u32) -> u64 {
    truncate(u64::from(register) >> (8 * (offset & 3)), size)
}

/// What the register at [`word`]`(offset)` sees when `size` bytes of `value` are written at `offset`.
#[must_use]
pub fn write_lanes(offset: u64, size: u8, value: u64) -> u32 {
    (truncate(value, size.min(4)) << (8 * (offset & 3))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes() {
        assert_eq!(read_lanes(4, 4, 0x1234_5678), 0x1234_5678);
        assert_eq!(read_lanes(5, 1, 0x1234_5678), 0x56);
        assert_eq!(read_lanes(6, 2, 0x1234_5678), 0x1234);
        assert_eq!(read_lanes(0, 8, 0xffff_ffff), 0xffff_ffff);
        assert_eq!(write_lanes(4, 4, 0x1234_5678), 0x1234_5678);
        assert_eq!(write_lanes(6, 2, 0xfff_abcd), 0xabcd_0000);
        assert_eq!(write_lanes(0, 8, 0x1_0000_0002), 2);
        assert_eq!(word(0xffe), 0xffc);
    }
}
