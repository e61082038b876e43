//! A flash chip's numbers: commands, status bits, and its tables (Common Flash Interface, JEDEC JESD68.01 and JEP137; Intel's basic command set, AP-646).

/// The first cycle of a command, in the low byte of a chip's lane.
pub(crate) mod command {
    pub(crate) const PROGRAM_ALT: u8 = 0x10;
    pub(crate) const ERASE: u8 = 0x20;
    pub(crate) const PROGRAM: u8 = 0x40;
    pub(crate) const CLEAR_STATUS: u8 = 0x50;
    pub(crate) const LOCK: u8 = 0x60;
    pub(crate) const READ_STATUS: u8 = 0x70;
    pub(crate) const READ_ID: u8 = 0x90;
    pub(crate) const QUERY: u8 = 0x98;
    pub(crate) const SUSPEND: u8 = 0xb0;
    /// Also the second cycle of an erase, a buffered program, an unlock.
    pub(crate) const CONFIRM: u8 = 0xd0;
    pub(crate) const BUFFER: u8 = 0xe8;
    pub(crate) const READ_ARRAY: u8 = 0xff;
    /// Second cycles of a lock command.
    pub(crate) const LOCK_BLOCK: u8 = 0x01;
    pub(crate) const LOCK_DOWN: u8 = 0x2f;
}

/// The status register.
pub(crate) mod status {
    pub(crate) const READY: u8 = 1 << 7;
    pub(crate) const ERASE_ERROR: u8 = 1 << 5;
    pub(crate) const PROGRAM_ERROR: u8 = 1 << 4;
    /// The block is locked, or the medium can't be written.
    pub(crate) const LOCKED: u8 = 1 << 1;
    /// Both errors: the sequence of commands was wrong.
    pub(crate) const SEQUENCE: u8 = ERASE_ERROR | PROGRAM_ERROR;
    pub(crate) const CLEARABLE: u8 = SEQUENCE | LOCKED;
}

/// Words of a chip's write buffer, log2 of its bytes.
pub(crate) const BUFFER_WORDS: usize = 16;
const BUFFER_LOG: u8 = 5;
/// Bytes of an erase block of a chip.
pub(crate) const BLOCK: u64 = 128 << 10;
/// The manufacturer's number: Intel.
pub(crate) const MANUFACTURER: u16 = 0x89;

/// The device's number by its size: the uniform-block family of this manufacturer.
pub(crate) fn device_id(size: u64) -> u16 {
    match size >> 20 {
        0..=4 => 0x16,
        5..=8 => 0x17,
        9..=16 => 0x18,
        17..=32 => 0x1d,
        _ => 0x1e,
    }
}

/// What the query shows at a word's address, for a chip of `size` bytes.
pub(crate) fn query(size: u64, word: u64) -> u8 {
    let blocks = (size / BLOCK - 1).to_le_bytes();
    let unit = (BLOCK / 256).to_le_bytes();
    match word {
        0x10..=0x12 => b"QRY"[word as usize - 0x10],
        // The primary command set, and where its table is.
        0x13 => 0x01,
        0x15 => 0x31,
        // Supply: 2.7 to 3.6 V, none for programming.
        0x1b => 0x27,
        0x1c => 0x36,
        // Typical times: 2^7 us for a word and a buffer, 2^10 ms for a block; at most 2^4 times that.
        0x1f | 0x20 => 0x07,
        0x21 => 0x0a,
        0x23..=0x25 => 0x04,
        0x27 => size.trailing_zeros() as u8,
        // Sixteen data lines.
        0x28 => 0x01,
        0x2a => BUFFER_LOG,
        // One region of equal blocks.
        0x2c => 0x01,
        0x2d => blocks[0],
        0x2e => blocks[1],
        0x2f => unit[0],
        0x30 => unit[1],
        // The primary command set's own table, version 1.1: single blocks are locked and unlocked at once.
        0x31..=0x35 => b"PRI11"[word as usize - 0x31],
        0x36 => 1 << 5,
        // A block has a lock bit; 3.3 V.
        0x3b => 0x01,
        0x3d => 0x33,
        _ => 0,
    }
}
