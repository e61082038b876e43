//! Frames made byte by byte, past any stack.

use std::net::Ipv4Addr;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A frame to the gateway.
pub(crate) fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x55, 0x0a, 0, 2, 2];
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// An IPv4 packet; `fragment` is the word of flags and offset.
pub(crate) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = !sum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    ethernet(0x0800, &packet)
}

/// A TCP or UDP payload whose checksum is at `at`.
pub(crate) fn transport(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, at: usize, payload: &mut [u8]) -> Vec<u8> {
    let pseudo = [u32::from(from), u32::from(to)].map(|a| (a >> 16) + (a & 0xffff)).iter().sum::<u32>();
    let sum = !sum(payload, pseudo + u32::from(protocol) + payload.len() as u32);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ipv4(from, to, protocol, 0x4000, payload)
}

/// A TCP segment; the options are whole words.
#[allow(clippy::too_many_arguments, reason = "these are a segment's fields")]
pub(crate) fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&from.1.to_be_bytes());
    segment.extend_from_slice(&to.1.to_be_bytes());
    segment.extend_from_slice(&seq.to_be_bytes());
    segment.extend_from_slice(&ack.to_be_bytes());
    segment.extend_from_slice(&[((20 + options.len()) * 4) as u8, flags]);
    segment.extend_from_slice(&window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(options);
    segment.extend_from_slice(data);
    transport(from.0, to.0, 6, 16, &mut segment)
}

/// What a segment to the guest says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Guest's and other port.
    pub(crate) ports: (u16, u16),
    /// Where its data ends.
    pub(crate) next: u32,
    pub(crate) acknowledged: u32,
    pub(crate) window: u16,
}

impl Seen {
    /// None if it is no TCP segment.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        if frame[12..14] != [8, 0] {
            return None;
        }
        let packet = &frame[14..];
        assert_eq!(sum(&packet[..20], 0), 0xffff, "the header's checksum");
        if packet[9] != 6 {
            return None;
        }
        let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let word = |at: usize| u16::from_be_bytes([packet[20 + at], packet[21 + at]]);
        let long = |at| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        let data = len - 20 - usize::from(packet[32] >> 4) * 4;
        let controls = u32::from(packet[33] & FIN != 0) + u32::from(packet[33] & SYN != 0);
        let next = long(4).wrapping_add(data as u32).wrapping_add(controls);
        Some(Self { ports: (word(2), word(0)), next, acknowledged: long(8), window: word(14) })
    }
}

/// The sum of RFC 1071.
pub(crate) fn sum(data: &[u8], start: u32) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
    let mut total = data.chunks(2).map(word).sum::<u32>() + start;
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}
