//! Frames and packets as bytes: reading them with every check, and making them.
//!
//! Ethernet II, ARP (RFC 826), IPv4 (RFC 791), ICMP (RFC 792), UDP (RFC 768), and of TCP (RFC 9293) what is looked at on the way to smoltcp.

use std::net::{Ipv4Addr, SocketAddrV4};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    pub(crate) const BROADCAST: Self = Self([0xff; 6]);

    /// An address that one station can have.
    pub(crate) fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// The largest IPv4 packet on the wire.
pub(crate) const MTU: usize = 1500;
/// The smallest frame without its check sequence; shorter ones are padded.
pub(crate) const MIN_FRAME: usize = 60;
/// Bytes of an IPv4 header without options.
pub(crate) const IP: usize = 20;
/// Bytes of an ICMP echo's, and of a UDP header.
pub(crate) const ICMP: usize = 8;
pub(crate) const UDP: usize = 8;

pub(crate) const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_ARP: u16 = 0x0806;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;

pub(crate) const ICMP_ECHO_REPLY: u8 = 0;
pub(crate) const ICMP_UNREACHABLE: u8 = 3;
pub(crate) const ICMP_ECHO: u8 = 8;

/// Codes of [`ICMP_UNREACHABLE`] (RFC 792, RFC 1812 5.2.7.1).
pub(crate) const UNREACHABLE_HOST: u8 = 1;
pub(crate) const UNREACHABLE_PROTOCOL: u8 = 2;
pub(crate) const UNREACHABLE_PORT: u8 = 3;
pub(crate) const UNREACHABLE_PROHIBITED: u8 = 13;

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(be32(bytes, at))
}

pub(crate) fn mac(bytes: &[u8], at: usize) -> Mac {
    Mac(bytes[at..at + 6].try_into().expect("six bytes"))
}

/// Adds bytes to a sum of 16-bit words (RFC 1071). An odd last byte counts as a word's upper half.
fn sum(mut total: u64, data: &[u8]) -> u64 {
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_be_bytes(word.try_into().expect("four bytes")));
    }
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    total + u64::from(u32::from_be_bytes(last))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// The checksum of RFC 1071: over correct data that holds its own, this is 0.
pub(crate) fn checksum(data: &[u8]) -> u16 {
    !fold(sum(0, data))
}

/// The checksum of TCP and UDP, over their pseudo header too.
fn transport_checksum(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, data: &[u8]) -> u16 {
    let pseudo = u64::from(u32::from(src)) + u64::from(u32::from(dst)) + u64::from(protocol) + data.len() as u64;
    !fold(sum(pseudo, data))
}

/// An IPv4 packet, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ipv4<'a> {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) ident: u16,
    /// Where the payload belongs in the datagram.
    pub(crate) offset: usize,
    /// More fragments follow.
    pub(crate) more: bool,
    /// The packet, padding removed.
    pub(crate) bytes: &'a [u8],
    /// Bytes of the header.
    pub(crate) header: usize,
}

impl<'a> Ipv4<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < IP || bytes[0] >> 4 != 4 {
            return None;
        }
        let header = usize::from(bytes[0] & 0xf) * 4;
        let total = usize::from(be16(bytes, 2));
        if header < IP || total < header || bytes.len() < total || checksum(&bytes[..header]) != 0 {
            return None;
        }
        let fragment = be16(bytes, 6);
        Some(Self {
            src: address(bytes, 12),
            dst: address(bytes, 16),
            protocol: bytes[9],
            ident: be16(bytes, 4),
            offset: usize::from(fragment & 0x1fff) * 8,
            more: fragment & 0x2000 != 0,
            bytes: &bytes[..total],
            header,
        })
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.more || self.offset > 0
    }
}

/// Writes an IPv4 header without options over the start of `packet`, whose length is the packet's.
pub(crate) fn write_ipv4(packet: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ident: u16, fragment: u16) {
    let total = packet.len() as u16;
    packet[..IP].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&ident.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    seal_ipv4(packet);
}

/// Puts the header's checksum in place.
pub(crate) fn seal_ipv4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP datagram, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Udp<'a> {
    pub(crate) src: SocketAddrV4,
    pub(crate) dst: SocketAddrV4,
    pub(crate) data: &'a [u8],
}

impl<'a> Udp<'a> {
    pub(crate) fn parse(src: Ipv4Addr, dst: Ipv4Addr, bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < UDP {
            return None;
        }
        let len = usize::from(be16(bytes, 4));
        if len < UDP || bytes.len() < len {
            return None;
        }
        let bytes = &bytes[..len];
        // RFC 768: no checksum is sent as 0.
        if be16(bytes, 6) != 0 && transport_checksum(src, dst, PROTOCOL_UDP, bytes) != 0 {
            return None;
        }
        let (from, to) = (be16(bytes, 0), be16(bytes, 2));
        (to != 0).then(|| Self {
            src: SocketAddrV4::new(src, from),
            dst: SocketAddrV4::new(dst, to),
            data: &bytes[UDP..],
        })
    }
}

/// A UDP datagram as the payload of IPv4.
pub(crate) fn udp(src: SocketAddrV4, dst: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UDP + data.len());
    bytes.extend_from_slice(&src.port().to_be_bytes());
    bytes.extend_from_slice(&dst.port().to_be_bytes());
    bytes.extend_from_slice(&((UDP + data.len()) as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(data);
    // A checksum of 0 is sent as its other form.
    let sum = match transport_checksum(*src.ip(), *dst.ip(), PROTOCOL_UDP, &bytes) {
        0 => 0xffff,
        n => n,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Puts the checksum of an ICMP message in place.
pub(crate) fn seal_icmp(message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The message that says why a packet goes no further (RFC 792: its header and eight bytes).
pub(crate) fn unreachable(code: u8, packet: &[u8]) -> Vec<u8> {
    let header = usize::from(packet[0] & 0xf) * 4;
    let mut message = vec![ICMP_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..packet.len().min(header + 8)]);
    seal_icmp(&mut message);
    message
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Bytes of a TCP header without options.
pub(crate) const TCP: usize = 20;

/// What is looked at of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) src: u16,
    pub(crate) dst: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Bytes of the header.
    pub(crate) header: usize,
    /// Bytes of data.
    pub(crate) len: usize,
}

impl Segment {
    /// A segment whose checksum is right.
    pub(crate) fn parse(src: Ipv4Addr, dst: Ipv4Addr, bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).filter(|_| transport_checksum(src, dst, PROTOCOL_TCP, bytes) == 0)
    }

    /// A segment whose checksum is not looked at.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < TCP {
            return None;
        }
        let header = usize::from(bytes[12] >> 4) * 4;
        if header < TCP || bytes.len() < header {
            return None;
        }
        let (src, dst) = (be16(bytes, 0), be16(bytes, 2));
        (src != 0 && dst != 0).then(|| Self {
            src,
            dst,
            seq: be32(bytes, 4),
            ack: be32(bytes, 8),
            flags: bytes[13],
            window: be16(bytes, 14),
            header,
            len: bytes.len() - header,
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Puts the checksum of the TCP segment in an IPv4 packet in place.
pub(crate) fn seal_tcp(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0xf) * 4;
    let (src, dst) = (address(packet, 12), address(packet, 16));
    let segment = &mut packet[header..];
    segment[16..18].fill(0);
    let sum = transport_checksum(src, dst, PROTOCOL_TCP, segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// The reset that answers a segment without a connection (RFC 9293 3.10.7.1).
pub(crate) fn reset(segment: &Segment) -> [u8; TCP] {
    let mut bytes = [0; TCP];
    bytes[0..2].copy_from_slice(&segment.dst.to_be_bytes());
    bytes[2..4].copy_from_slice(&segment.src.to_be_bytes());
    bytes[12] = 5 << 4;
    if segment.has(ACK) {
        bytes[4..8].copy_from_slice(&segment.ack.to_be_bytes());
        bytes[13] = RST;
    } else {
        let controls = u32::from(segment.has(SYN)) + u32::from(segment.has(FIN));
        let next = segment.seq.wrapping_add(segment.len as u32).wrapping_add(controls);
        bytes[8..12].copy_from_slice(&next.to_be_bytes());
        bytes[13] = RST | ACK;
    }
    bytes
}

/// A packet that acknowledges, and carries nothing.
pub(crate) fn acknowledgement(from: SocketAddrV4, to: SocketAddrV4, seq: u32, ack: u32, window: u16) -> [u8; IP + TCP] {
    let mut packet = [0; IP + TCP];
    write_ipv4(&mut packet, *from.ip(), *to.ip(), PROTOCOL_TCP, 0, 0x4000);
    let segment = &mut packet[IP..];
    segment[0..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    (segment[12], segment[13]) = (5 << 4, ACK);
    segment[14..16].copy_from_slice(&window.to_be_bytes());
    seal_tcp(&mut packet);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_rfc_1071() {
        // The example of section 3.
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&data), !0xddf2);
        assert_eq!(checksum(&data[..7]), !fold(0x0001 + 0xf203 + 0xf4f5 + 0xf600));
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    fn a_datagram_is_read_as_it_was_made() {
        let (a, b) = (SocketAddrV4::new([10, 0, 2, 15].into(), 7), SocketAddrV4::new([10, 0, 2, 2].into(), 9));
        let bytes = udp(a, b, b"hello");
        let read = Udp::parse(*a.ip(), *b.ip(), &bytes).unwrap();
        assert_eq!((read.src, read.dst, read.data), (a, b, &b"hello"[..]));
        assert!(Udp::parse(*a.ip(), Ipv4Addr::LOCALHOST, &bytes).is_none(), "the addresses count too");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Udp::parse(*a.ip(), *b.ip(), &bad).is_none(), "byte {at}");
        }
        assert!(Udp::parse(*a.ip(), *b.ip(), &bytes[..7]).is_none());
    }

    #[test]
    fn a_packet_is_checked() {
        let mut packet = [0; IP + 3];
        write_ipv4(&mut packet, Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2), PROTOCOL_UDP, 77, 0x2001);
        let mut padded = packet.to_vec();
        padded.extend_from_slice(&[9; 20]);
        let read = Ipv4::parse(&padded).unwrap();
        assert_eq!((read.payload().len(), read.ident, read.offset, read.more), (3, 77, 8, true));
        assert!(Ipv4::parse(&packet[..22]).is_none());
        for at in 0..IP {
            let mut bad = padded.clone();
            bad[at] ^= 0x04;
            assert!(Ipv4::parse(&bad).is_none(), "byte {at}");
        }
    }
}
