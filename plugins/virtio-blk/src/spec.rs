//! The block device's numbers (VIRTIO 1.2, 5.2).

/// Feature bits (5.2.3).
pub(crate) mod feature {
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
    pub(crate) const CONFIG_WCE: u64 = 1 << 11;
    pub(crate) const MQ: u64 = 1 << 12;
    pub(crate) const DISCARD: u64 = 1 << 13;
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
pub(crate) mod request {
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    pub(crate) const DISCARD: u32 = 11;
    pub(crate) const WRITE_ZEROES: u32 = 13;
}

/// The last byte of a request (5.2.6).
pub(crate) mod outcome {
    pub(crate) const OK: u8 = 0;
    pub(crate) const IOERR: u8 = 1;
    pub(crate) const UNSUPP: u8 = 2;
}

/// Bytes of a sector, whatever `blk_size` says.
pub(crate) const SECTOR: u64 = 512;
/// Bytes before a request's data: type, reserved, sector.
pub(crate) const HEADER: u64 = 16;
/// Bytes of a device's ID.
pub(crate) const ID: usize = 20;
/// Bytes of a range to discard or to fill with zeros: sector, number, flags.
pub(crate) const RANGE: u64 = 16;
/// Ranges in one request to discard. With more, what one step changes on the disk could be more than its host keeps a journal for.
pub(crate) const MAX_RANGES: u32 = 1;
/// Entries of a queue, for the same reason.
pub(crate) const MAX_QUEUE: u16 = 256;
/// Sectors in one of them.
pub(crate) const MAX_SECTORS: u32 = 1 << 22;
/// The flag of a range to be filled with zeros: it may be given back.
pub(crate) const UNMAP: u32 = 1;
/// Where `writeback` is in the configuration (5.2.4).
pub(crate) const WRITEBACK: u64 = 32;
