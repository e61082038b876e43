//! Datagrams that the guest sends in fragments, put together again (RFC 791 3.2).

use std::net::Ipv4Addr;

use crate::limits;
use crate::wire::{IP, Ipv4, write_ipv4};

/// What fragments of one datagram have in common.
type Key = (Ipv4Addr, Ipv4Addr, u8, u16);

/// The largest payload of a datagram.
const MAX: usize = 65535 - IP;
/// Pieces of eight bytes in it.
const PIECES: usize = MAX.div_ceil(8);

/// A datagram that is not whole yet.
#[derive(Debug)]
struct Partial {
    key: Key,
    /// When it began, in microseconds.
    since: u64,
    /// The packet, with room for a header.
    packet: Vec<u8>,
    /// Which pieces of eight bytes are there.
    have: Vec<u64>,
    /// How many of them.
    pieces: usize,
    /// The payload's length, once the last fragment is there.
    len: Option<usize>,
}

/// The datagrams that are not whole yet, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    partial: Vec<Partial>,
}

impl Fragments {
    /// Takes a fragment; gives the packet that it makes whole.
    pub(crate) fn add(&mut self, now: u64, ip: &Ipv4<'_>) -> Option<Vec<u8>> {
        let payload = ip.payload();
        let end = ip.offset + payload.len();
        // Only the last fragment may have a length that is no multiple of eight.
        if payload.is_empty() || end > MAX || (ip.more && payload.len() % 8 != 0) {
            return None;
        }
        self.partial.retain(|p| now < p.since + limits::FRAGMENT_TIME);
        let key = (ip.src, ip.dst, ip.protocol, ip.ident);
        let at = match self.partial.iter().position(|p| p.key == key) {
            Some(at) => at,
            None => {
                if self.partial.len() >= limits::PARTIAL {
                    self.partial.remove(0);
                }
                let (packet, have) = (vec![0; IP], vec![0; PIECES.div_ceil(64)]);
                self.partial.push(Partial { key, since: now, packet, have, pieces: 0, len: None });
                self.partial.len() - 1
            }
        };
        if !self.partial[at].put(ip.offset, payload, ip.more) {
            self.partial.remove(at);
            return None;
        }
        self.partial[at].whole().then(|| self.partial.remove(at).finish())
    }
}

impl Partial {
    /// False if the fragment contradicts the others.
    fn put(&mut self, offset: usize, payload: &[u8], more: bool) -> bool {
        let end = offset + payload.len();
        let before = self.packet.len() - IP;
        match self.len {
            Some(len) if end > len || (!more && end != len) => return false,
            None if !more && before > end => return false,
            None if !more => self.len = Some(end),
            _ => {}
        }
        self.packet.resize(IP + before.max(end), 0);
        self.packet[IP + offset..IP + end].copy_from_slice(payload);
        for piece in offset / 8..end.div_ceil(8) {
            let bit = 1 << (piece % 64);
            self.pieces += usize::from(self.have[piece / 64] & bit == 0);
            self.have[piece / 64] |= bit;
        }
        true
    }

    fn whole(&self) -> bool {
        self.len.is_some_and(|len| self.pieces == len.div_ceil(8))
    }

    fn finish(mut self) -> Vec<u8> {
        let (src, dst, protocol, ident) = self.key;
        write_ipv4(&mut self.packet, src, dst, protocol, ident, 0);
        self.packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

    fn fragment(ident: u16, data: &[u8], offset: usize, end: usize) -> Vec<u8> {
        let piece = &data[offset..end];
        let mut packet = vec![0; IP];
        packet.extend_from_slice(piece);
        let more = if end < data.len() { 0x2000 } else { 0 };
        write_ipv4(&mut packet, FROM, TO, 17, ident, (offset / 8) as u16 | more);
        packet
    }

    #[test]
    fn in_any_order_twice_and_overlapping() {
        let data: Vec<u8> = (0..5000u32).map(|i| (i * 7 / 3) as u8).collect();
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 1, 0, 3]] {
            let mut fragments = Fragments::default();
            let cuts = [(0, 1480), (1400, 2960), (2960, 4440), (4440, 5000)];
            let mut whole = None;
            for n in order.into_iter().chain([2]) {
                let (offset, end) = cuts[n];
                let bytes = fragment(9, &data, offset, end);
                whole = fragments.add(0, &Ipv4::parse(&bytes).unwrap()).or(whole);
            }
            let whole = whole.expect("all of it was there");
            assert_eq!(Ipv4::parse(&whole).unwrap().payload(), data);
        }
    }

    #[test]
    fn old_and_too_many_ones_go() {
        let data = vec![5; 100];
        let mut fragments = Fragments::default();
        for ident in 0..100 {
            let bytes = fragment(ident, &data, 0, 48);
            assert!(fragments.add(0, &Ipv4::parse(&bytes).unwrap()).is_none());
        }
        assert_eq!(fragments.partial.len(), limits::PARTIAL);
        let rest = |ident| fragment(ident, &data, 48, 100);
        assert!(fragments.add(1, &Ipv4::parse(&rest(99)).unwrap()).is_some());
        assert!(fragments.add(1, &Ipv4::parse(&rest(1)).unwrap()).is_none());
        assert!(fragments.add(limits::FRAGMENT_TIME, &Ipv4::parse(&rest(98)).unwrap()).is_none());
    }

    #[test]
    fn nothing_grows_beyond_a_datagram() {
        let data = vec![5; 66000];
        let mut fragments = Fragments::default();
        let bytes = fragment(1, &data, 65504, 65528);
        assert!(fragments.add(0, &Ipv4::parse(&bytes).unwrap()).is_none());
        assert!(fragments.partial.is_empty());
    }
}
