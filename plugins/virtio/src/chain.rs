//! Descriptor chains (VIRTIO 1.2, 2.7.5).

use serde::{Deserialize, Serialize};

use crate::{Bad, MAX_SIZE};

/// Bytes of a descriptor.
pub(crate) const DESC: usize = 16;
/// Most descriptors of a chain with its indirect table.
pub const MAX_CHAIN: usize = MAX_SIZE as usize;

/// Bits of a descriptor's flags.
mod flag {
    pub(super) const NEXT: u16 = 1;
    pub(super) const WRITE: u16 = 1 << 1;
    pub(super) const INDIRECT: u16 = 1 << 2;
}

/// A buffer: part of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buf {
    /// Its guest physical address.
    pub addr: u64,
    /// Its length in bytes, not 0.
    pub len: u32,
}

/// A chain as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    /// What the device may read.
    pub(crate) reads: Vec<Buf>,
    /// What the device may write.
    pub(crate) writes: Vec<Buf>,
    /// An indirect table at the end whose descriptors follow: address and length.
    pub(crate) table: Option<Buf>,
}

/// Why a chain can't be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It leads out of the part of the table that is at hand.
    Beyond,
    Bad(Bad),
}

fn bad<T>(why: &'static str) -> Result<T, Stop> {
    Err(Stop::Bad(Bad(why)))
}

struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

fn desc(table: &[u8], i: usize) -> Option<Desc> {
    let d = table.get(i * DESC..(i + 1) * DESC)?;
    Some(Desc {
        addr: u64::from_le_bytes(d[0..8].try_into().expect("8 bytes")),
        len: u32::from_le_bytes(d[8..12].try_into().expect("4 bytes")),
        flags: u16::from_le_bytes(d[12..14].try_into().expect("2 bytes")),
        next: u16::from_le_bytes(d[14..16].try_into().expect("2 bytes")),
    })
}

impl Chain {
    /// Follows the chain at `head` of a queue with `size` entries, of whose table the first descriptors are in `table`.
    pub(crate) fn follow(table: &[u8], size: u16, head: u16, indirect: bool) -> Result<Self, Stop> {
        let mut chain = Self { head, ..Self::default() };
        let mut at = head;
        for _ in 0..size {
            if at >= size {
                return bad("a descriptor that the queue does not have");
            }
            let d = desc(table, at.into()).ok_or(Stop::Beyond)?;
            if d.flags & flag::INDIRECT != 0 {
                if !indirect || d.flags & flag::NEXT != 0 {
                    return bad("an indirect descriptor where none is allowed");
                }
                if d.len == 0 || d.len as usize % DESC != 0 || d.len as usize / DESC > MAX_CHAIN {
                    return bad("an indirect table of an impossible length");
                }
                if d.addr.checked_add(d.len.into()).is_none() {
                    return bad("an indirect table beyond the end of memory");
                }
                chain.table = Some(Buf { addr: d.addr, len: d.len });
                return Ok(chain);
            }
            chain.push(&d)?;
            if d.flags & flag::NEXT == 0 {
                return chain.whole();
            }
            at = d.next;
        }
        bad("a chain of descriptors that does not end")
    }

    /// Follows the indirect table, which is now at hand.
    pub(crate) fn follow_table(mut self, table: &[u8]) -> Result<Self, Stop> {
        self.table = None;
        let n = table.len() / DESC;
        let mut at = 0;
        for _ in 0..n {
            let Some(d) = desc(table, at) else { return bad("a descriptor that the indirect table does not have") };
            if d.flags & flag::INDIRECT != 0 {
                return bad("an indirect descriptor in an indirect table");
            }
            self.push(&d)?;
            if d.flags & flag::NEXT == 0 {
                return self.whole();
            }
            at = d.next.into();
        }
        bad("a chain of descriptors that does not end")
    }

    fn push(&mut self, d: &Desc) -> Result<(), Stop> {
        if d.flags & flag::WRITE == 0 && !self.writes.is_empty() {
            return bad("a buffer to read behind one to write");
        }
        if d.addr.checked_add(d.len.into()).is_none() {
            return bad("a buffer beyond the end of memory");
        }
        if self.reads.len() + self.writes.len() >= MAX_CHAIN {
            return bad("a chain of too many descriptors");
        }
        let list = if d.flags & flag::WRITE == 0 { &mut self.reads } else { &mut self.writes };
        let buf = Buf { addr: d.addr, len: d.len };
        match list.last_mut() {
            _ if d.len == 0 => {}
            // Pages that lie side by side make one range.
            Some(last) if last.addr + u64::from(last.len) == d.addr && last.len.checked_add(d.len).is_some() => {
                last.len += d.len;
            }
            _ => list.push(buf),
        }
        Ok(())
    }

    fn whole(self) -> Result<Self, Stop> {
        // 2.7.4: a chain has at most 2^32 bytes.
        if sum(&self.reads) + sum(&self.writes) > u64::from(u32::MAX) {
            return bad("a chain of more than 4 GiB");
        }
        Ok(self)
    }
}

/// Bytes of all buffers.
#[must_use]
pub fn sum(bufs: &[Buf]) -> u64 {
    bufs.iter().map(|b| u64::from(b.len)).sum()
}

/// The guest memory behind `len` bytes from byte `at` of `bufs`, one range after the other, as far as it reaches.
pub(crate) fn ranges(bufs: &[Buf], at: u64, len: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let (mut skip, mut left) = (at, len);
    bufs.iter().filter_map(move |b| {
        let whole = u64::from(b.len);
        let from = skip.min(whole);
        skip -= from;
        let n = (whole - from).min(left);
        left -= n;
        (n > 0).then_some((b.addr + from, n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(descs: &[(u64, u32, u16, u16)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (addr, len, flags, next) in descs {
            out.extend_from_slice(&addr.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&flags.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
        }
        out
    }

    #[test]
    fn a_chain_is_followed_and_neighbours_are_joined() {
        let t =
            table(&[(0x100, 16, 1, 2), (0, 0, 0, 0), (0x1000, 4096, 3, 3), (0x2000, 4096, 3, 1), (0x9000, 1, 2, 0)]);
        let mut t4 = t.clone();
        t4[16..32].copy_from_slice(&table(&[(0x9000, 1, 2, 0)]));
        let c = Chain::follow(&t4, 8, 0, false).unwrap();
        assert_eq!(c.reads, [Buf { addr: 0x100, len: 16 }]);
        assert_eq!(c.writes, [Buf { addr: 0x1000, len: 8192 }, Buf { addr: 0x9000, len: 1 }]);
        let r: Vec<_> = ranges(&c.writes, 8190, 3).collect();
        assert_eq!(r, [(0x2ffe, 2), (0x9000, 1)]);
        assert_eq!(Chain::follow(&t[..32], 8, 0, false), Err(Stop::Beyond));
    }

    #[test]
    fn bad_chains_are_refused() {
        let refused = |descs: &[(u64, u32, u16, u16)], size| {
            matches!(Chain::follow(&table(descs), size, 0, true), Err(Stop::Bad(_)))
        };
        assert!(refused(&[(0, 1, 1, 1), (0, 1, 1, 0)], 2), "a loop");
        assert!(refused(&[(0, 1, 1, 9)], 2), "out of the queue");
        assert!(refused(&[(0, 1, 3, 1), (0, 1, 0, 0)], 2), "read behind write");
        assert!(refused(&[(u64::MAX, 2, 0, 0)], 2), "wraps");
        assert!(refused(&[(0, 16, 5, 1), (0, 1, 0, 0)], 2), "indirect and next");
        assert!(refused(&[(0, 17, 4, 0)], 2), "half a descriptor");
        assert!(refused(&[(0, 0, 4, 0)], 2), "no descriptor");
        assert!(refused(&[(0, u32::MAX, 3, 1), (0, u32::MAX, 2, 0)], 2), "too many bytes");
        let inner = |descs: &[(u64, u32, u16, u16)]| Chain::default().follow_table(&table(descs));
        assert!(inner(&[(0, 16, 4, 0)]).is_err(), "a table in a table");
        assert!(inner(&[(0, 16, 1, 0)]).is_err(), "a loop");
        assert!(inner(&[(0, 16, 1, 7)]).is_err(), "out of the table");
    }
}
