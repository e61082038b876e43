//! The wire to the guest: frames on their way to it, and who has which address there.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use crate::wire::{self, ETHERNET, IP, MIN_FRAME, MTU, Mac};
use crate::{GATEWAY, NAMESERVER, in_network, limits};

/// The gateway's and the name server's Ethernet addresses: those that QEMU's user network has.
const GATEWAY_MAC: Mac = Mac([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);
const NAMESERVER_MAC: Mac = Mac([0x52, 0x55, 0x0a, 0x00, 0x02, 0x03]);
/// An address is asked for no more often than that, in microseconds.
const ASK_AGAIN: u64 = 1_000_000;
/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP: usize = 28;
/// What an ARP packet for IPv4 over Ethernet begins with, up to its operation.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// Is this frame for one of the stations that this network plays?
pub(crate) fn is_for_us(to: Mac) -> bool {
    [GATEWAY_MAC, NAMESERVER_MAC, Mac::BROADCAST].contains(&to)
}

/// A packet that waits until the guest says who has its address.
struct Waiting {
    to: Ipv4Addr,
    frame: Vec<u8>,
}

/// The wire.
#[derive(Default)]
pub(crate) struct Link {
    /// Frames for the guest, the oldest first.
    queue: VecDeque<Vec<u8>>,
    /// Empty buffers.
    pool: Vec<Vec<u8>>,
    /// Who has which address, the one heard of longest ago first.
    neighbors: VecDeque<(Ipv4Addr, Mac)>,
    waiting: VecDeque<Waiting>,
    /// The last question, and when it was asked.
    asked: Option<(Ipv4Addr, u64)>,
    ident: u16,
    now: u64,
    /// Frames that were lost for want of room.
    pub(crate) dropped: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("queued", &self.queue.len())
            .field("neighbors", &self.neighbors)
            .field("waiting", &self.waiting.len())
            .field("now", &self.now)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Microseconds since the network's start.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Is there room for what can wait? Answers that can't have some room more.
    pub(crate) fn room(&self) -> bool {
        self.queue.len() < limits::FRAMES
    }

    /// Frames that wait for the guest.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next frame for the guest.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.queue.front().map(Vec::as_slice)
    }

    /// The next frame is with the guest.
    pub(crate) fn pop(&mut self) {
        if let Some(frame) = self.queue.pop_front() {
            self.recycle(frame);
        }
    }

    fn recycle(&mut self, frame: Vec<u8>) {
        if self.pool.len() < limits::FRAMES {
            self.pool.push(frame);
        }
    }

    fn push(&mut self, mut frame: Vec<u8>) {
        if self.queue.len() >= limits::FRAMES + limits::ANSWERS {
            self.dropped += 1;
            self.recycle(frame);
            return;
        }
        if frame.len() < MIN_FRAME {
            frame.resize(MIN_FRAME, 0);
        }
        self.queue.push_back(frame);
    }

    /// Sends an IPv4 packet of `len` bytes that `fill` writes; it goes to the address that stands in it.
    pub(crate) fn send<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!((IP..=MTU).contains(&len), "a packet fits on the wire");
        let mut frame = self.pool.pop().unwrap_or_default();
        frame.clear();
        frame.resize(ETHERNET + len, 0);
        let result = fill(&mut frame[ETHERNET..]);
        let (from, to) = (wire::address(&frame, ETHERNET + 12), wire::address(&frame, ETHERNET + 16));
        match self.neighbors.iter().find(|(ip, _)| *ip == to) {
            Some(&(_, mac)) => self.push(addressed(frame, from, mac)),
            None => self.wait_for(to, frame),
        }
        result
    }

    /// Sends what IPv4 carries, in fragments if it does not fit into one packet.
    pub(crate) fn send_payload(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) {
        const PIECE: usize = (MTU - IP) & !7;
        self.ident = self.ident.wrapping_add(1);
        let ident = self.ident;
        let last = payload.len().saturating_sub(1) / PIECE;
        for n in 0..=last {
            let at = n * PIECE;
            let piece = &payload[at..payload.len().min(at + PIECE)];
            let fragment = (at / 8) as u16 | if n < last { 0x2000 } else { 0 };
            self.send(IP + piece.len(), |packet| {
                packet[IP..].copy_from_slice(piece);
                wire::write_ipv4(packet, from, to, protocol, ident, fragment);
            });
        }
    }

    /// Sends what IPv4 carries to a station that may not know its own address yet.
    pub(crate) fn send_to_station(&mut self, to_mac: Mac, to: Ipv4Addr, protocol: u8, payload: &[u8]) {
        self.ident = self.ident.wrapping_add(1);
        let mut frame = vec![0; ETHERNET + IP];
        frame.extend_from_slice(payload);
        wire::write_ipv4(&mut frame[ETHERNET..], GATEWAY, to, protocol, self.ident, 0);
        self.push(addressed(frame, GATEWAY, to_mac));
    }

    /// Keeps a frame until its address is known, and asks for that.
    fn wait_for(&mut self, to: Ipv4Addr, frame: Vec<u8>) {
        if self.waiting.len() >= limits::UNADDRESSED {
            self.dropped += 1;
            let old = self.waiting.pop_front().expect("it is not empty");
            self.recycle(old.frame);
        }
        self.waiting.push_back(Waiting { to, frame });
        let recent = self.asked.is_some_and(|(ip, at)| ip == to && self.now < at + ASK_AGAIN);
        if !recent {
            self.asked = Some((to, self.now));
            self.push(arp(ARP_REQUEST, GATEWAY_MAC, GATEWAY, Mac([0; 6]), to, Mac::BROADCAST));
        }
    }

    /// Notes who has an address, and sends what waited for that.
    pub(crate) fn learn(&mut self, ip: Ipv4Addr, mac: Mac) {
        if !in_network(ip) || ip == GATEWAY || ip == NAMESERVER || ip.octets()[3] == 255 || !mac.is_station() {
            return;
        }
        match self.neighbors.iter_mut().find(|(known, _)| *known == ip) {
            Some((_, old)) => *old = mac,
            None => {
                if self.neighbors.len() >= limits::STATIONS {
                    self.neighbors.pop_front();
                }
                self.neighbors.push_back((ip, mac));
            }
        }
        if self.waiting.iter().any(|w| w.to == ip) {
            for w in std::mem::take(&mut self.waiting) {
                if w.to == ip {
                    let from = wire::address(&w.frame, ETHERNET + 12);
                    self.push(addressed(w.frame, from, mac));
                } else {
                    self.waiting.push_back(w);
                }
            }
        }
    }

    /// Takes an ARP packet.
    pub(crate) fn arp(&mut self, packet: &[u8]) {
        if packet.len() < ARP || packet[..6] != ARP_KIND {
            return;
        }
        let (sender, ip) = (wire::mac(packet, 8), wire::address(packet, 14));
        let wanted = wire::address(packet, 24);
        self.learn(ip, sender);
        let mine = match wanted {
            GATEWAY => GATEWAY_MAC,
            NAMESERVER => NAMESERVER_MAC,
            _ => return,
        };
        if wire::be16(packet, 6) == ARP_REQUEST && sender.is_station() {
            self.push(arp(ARP_REPLY, mine, wanted, sender, ip, sender));
        }
    }
}

/// Puts the Ethernet header in place.
fn addressed(mut frame: Vec<u8>, from: Ipv4Addr, to: Mac) -> Vec<u8> {
    let mine = if from == NAMESERVER { NAMESERVER_MAC } else { GATEWAY_MAC };
    write_ethernet(&mut frame, mine, to, wire::TYPE_IPV4);
    frame
}

fn write_ethernet(frame: &mut [u8], from: Mac, to: Mac, kind: u16) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
}

fn arp(operation: u16, from: Mac, from_ip: Ipv4Addr, to: Mac, to_ip: Ipv4Addr, station: Mac) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET];
    write_ethernet(&mut frame, from, station, wire::TYPE_ARP);
    frame.extend_from_slice(&ARP_KIND);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&from_ip.octets());
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&to_ip.octets());
    frame
}
