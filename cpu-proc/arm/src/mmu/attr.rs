//! Memory region attributes of short descriptors (ARM DDI 0406C B3.8.2 without, B3.8.3 with TEX remap) and of long ones (B3.8.5).

use super::MemType;

/// Attributes of a mapping. Only the type matters to execution; the rest is what PAR shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Memory type.
    pub mem: MemType,
    /// Inner cacheability: 0 non-cacheable, 1 write-back write-allocate, 2 write-through, 3 write-back no write-allocate.
    pub inner: u8,
    /// Outer cacheability, coded as `inner`.
    pub outer: u8,
    /// Shareable.
    pub shareable: bool,
    /// Not outer shareable.
    pub nos: bool,
    /// Long format: the byte of MAIR and SH, as PAR shows them.
    pub long: (u8, u8),
}

impl Attr {
    /// Strongly-ordered memory: also what data accesses see while the MMU is off (B3.2.1).
    pub const STRONGLY_ORDERED: Attr =
        Attr { mem: MemType::StronglyOrdered, inner: 0, outer: 0, shareable: true, nos: false, long: (0, 0) };

    const fn device(shareable: bool) -> Attr {
        Attr { mem: MemType::Device, inner: 0, outer: 0, shareable, nos: false, long: (0, 0) }
    }

    const fn normal(outer: u8, inner: u8, shareable: bool) -> Attr {
        Attr { mem: MemType::Normal, inner, outer, shareable, nos: false, long: (0, 0) }
    }

    /// TEX\[2:0\], C, B and S without TEX remap (table B3-10). Reserved encodings, UNPREDICTABLE, are the strictest type:
    /// Strongly-ordered. The IMPLEMENTATION DEFINED one is Normal, write-back write-allocate.
    pub fn plain(tex: u32, c: bool, b: bool, s: bool) -> Attr {
        let cb = u8::from(c) << 1 | u8::from(b);
        match (tex, cb) {
            (0, 0) => Attr::STRONGLY_ORDERED,
            (0, 1) => Attr::device(true),
            (0, _) => Attr::normal(cb, cb, s),
            (1, 0) => Attr::normal(0, 0, s),
            (1, 1) => Attr::STRONGLY_ORDERED,
            (1, _) => Attr::normal(1, 1, s),
            (2, 0) => Attr::device(false),
            (2 | 3, _) => Attr::STRONGLY_ORDERED,
            _ => Attr::normal((tex & 3) as u8, cb, s),
        }
    }

    /// TEX\[0\], C, B and S through PRRR and NMRR (table B3-12).
    pub fn remapped(tex: u32, c: bool, b: bool, s: bool, prrr: u32, nmrr: u32) -> Attr {
        let n = (tex & 1) << 2 | u32::from(c) << 1 | u32::from(b);
        let nos = prrr >> (24 + n) & 1 != 0;
        let bit = |s0: u32| prrr >> (s0 + u32::from(s)) & 1 != 0;
        match prrr >> (2 * n) & 3 {
            1 => Attr { nos, ..Attr::device(bit(16)) },
            2 => {
                let inner = (nmrr >> (2 * n) & 3) as u8;
                let outer = (nmrr >> (2 * n + 16) & 3) as u8;
                Attr { nos, ..Attr::normal(outer, inner, bit(18)) }
            }
            _ => Attr::STRONGLY_ORDERED,
        }
    }

    /// A byte of MAIR0 or MAIR1 and SH (B4.1.104, B3.8.5). Reserved encodings, UNPREDICTABLE, are Strongly-ordered where the outer half
    /// says Device, and Normal otherwise.
    pub fn long(mair: u8, sh: u8) -> Attr {
        let cacheability = |half: u8| match half {
            // Transient or not: write-through 00RW and 10RW, write-back 01RW and 11RW; RW = 0b01 or 0b11 allocates on a write.
            0 | 4 => 0,
            h if h & 4 == 0 => 2,
            h => {
                if h & 1 != 0 {
                    1
                } else {
                    3
                }
            }
        };
        let attr = match (mair >> 4, mair & 0xf) {
            (0, 4) => Attr::device(true),
            (0, _) => Attr::STRONGLY_ORDERED,
            (outer, inner) => Attr::normal(cacheability(outer), cacheability(inner), sh & 2 != 0),
        };
        Attr { nos: sh == 3, long: (mair, sh), ..attr }
    }

    /// The attribute fields of the 64-bit PAR after a successful translation: ATTR and SH (B4.1.112).
    pub fn long_par_bits(&self) -> u64 {
        u64::from(self.long.0) << 56 | u64::from(self.long.1) << 7
    }

    /// The attribute bits of PAR after a successful translation: NOS, SH, Inner, Outer (B4.1.112).
    pub fn par_bits(&self) -> u32 {
        let inner = match self.mem {
            MemType::StronglyOrdered => 1,
            MemType::Device => 3,
            MemType::Normal if self.inner == 0 => 0,
            MemType::Normal => 4 | u32::from(self.inner),
        };
        u32::from(self.nos) << 10 | u32::from(self.shareable) << 7 | inner << 4 | u32::from(self.outer) << 2
    }
}
