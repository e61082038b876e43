//! The DHCP server (RFC 2131, options of RFC 2132), and BOOTP (RFC 951) for clients that know no more.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::link::Link;
use crate::wire::{self, Mac, PROTOCOL_UDP};
use crate::{FIRST_GUEST, GATEWAY, NAMESERVER, NETMASK, limits};

pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// How long a lease lasts, in seconds.
const LEASE: u32 = 86400;

/// Offsets in a message.
const CIADDR: usize = 12;
const YIADDR: usize = 16;
const SIADDR: usize = 20;
const GIADDR: usize = 24;
const CHADDR: usize = 28;
const COOKIE: usize = 236;
const OPTIONS: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// RFC 951: a client may count on a message of this size.
const MIN_MESSAGE: usize = 300;
const BROADCAST: u8 = 0x80;

const OPTION_MASK: u8 = 1;
const OPTION_ROUTER: u8 = 3;
const OPTION_DNS: u8 = 6;
const OPTION_REQUESTED: u8 = 50;
const OPTION_LEASE: u8 = 51;
const OPTION_TYPE: u8 = 53;
const OPTION_SERVER: u8 = 54;
const OPTION_END: u8 = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

/// What is looked at of a request.
struct Request<'a> {
    bytes: &'a [u8],
    mac: Mac,
    client: Ipv4Addr,
    /// None in BOOTP.
    kind: Option<u8>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        // A request, from Ethernet.
        if bytes.len() < OPTIONS || bytes[..3] != [1, 1, 6] {
            return None;
        }
        let mut request = Self {
            bytes,
            mac: wire::mac(bytes, CHADDR),
            client: wire::address(bytes, CIADDR),
            kind: None,
            requested: None,
            server: None,
        };
        if !request.mac.is_station() {
            return None;
        }
        if bytes[COOKIE..OPTIONS] != MAGIC {
            return Some(request);
        }
        let mut rest = &bytes[OPTIONS..];
        while let [kind, tail @ ..] = rest {
            match (*kind, tail) {
                (0, _) => rest = tail,
                (OPTION_END, _) => break,
                (_, [len, tail @ ..]) if tail.len() >= usize::from(*len) => {
                    let (data, next) = tail.split_at(usize::from(*len));
                    request.option(*kind, data);
                    rest = next;
                }
                // It is cut off.
                _ => return None,
            }
        }
        Some(request)
    }

    fn option(&mut self, kind: u8, data: &[u8]) {
        let address = || <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        match kind {
            OPTION_TYPE if data.len() == 1 => self.kind = Some(data[0]),
            OPTION_REQUESTED => self.requested = address(),
            OPTION_SERVER => self.server = address(),
            _ => {}
        }
    }
}

/// The leases: who has had which address.
#[derive(Debug, Default)]
pub(crate) struct Dhcp {
    /// Station n has the address `FIRST_GUEST + n`.
    stations: Vec<Mac>,
    /// The station that gives its address away next if there are too many.
    next: usize,
}

impl Dhcp {
    /// The address of a station.
    fn lease(&mut self, mac: Mac) -> Ipv4Addr {
        let n = self.stations.iter().position(|m| *m == mac).unwrap_or_else(|| {
            if self.stations.len() < limits::STATIONS {
                self.stations.push(mac);
                return self.stations.len() - 1;
            }
            let n = self.next;
            self.next = (n + 1) % limits::STATIONS;
            self.stations[n] = mac;
            n
        });
        Ipv4Addr::from(u32::from(FIRST_GUEST) + n as u32)
    }

    /// Takes a message to the server's port.
    pub(crate) fn message(&mut self, link: &mut Link, bytes: &[u8]) {
        let Some(request) = Request::parse(bytes) else { return };
        let lease = self.lease(request.mac);
        let reply = match request.kind {
            None => None,
            Some(DISCOVER) => Some(OFFER),
            // Another server's offer was taken.
            Some(REQUEST) if request.server.is_some_and(|s| s != GATEWAY) => return,
            Some(REQUEST) if request.requested.unwrap_or(request.client) == lease => Some(ACK),
            Some(REQUEST) => Some(NAK),
            Some(INFORM) => Some(ACK),
            Some(_) => return,
        };
        answer(link, &request, reply, lease);
    }
}

fn answer(link: &mut Link, request: &Request<'_>, kind: Option<u8>, lease: Ipv4Addr) {
    let inform = request.kind == Some(INFORM);
    let mut reply = vec![0; OPTIONS];
    // Transaction, flags, relay and hardware address are the request's.
    reply[..CIADDR].copy_from_slice(&request.bytes[..CIADDR]);
    reply[GIADDR..CHADDR + 16].copy_from_slice(&request.bytes[GIADDR..CHADDR + 16]);
    (reply[0], reply[3]) = (2, 0);
    reply[COOKIE..OPTIONS].copy_from_slice(&MAGIC);
    if kind != Some(NAK) {
        if inform || kind == Some(ACK) {
            reply[CIADDR..YIADDR].copy_from_slice(&request.client.octets());
        }
        if !inform {
            reply[YIADDR..SIADDR].copy_from_slice(&lease.octets());
        }
        reply[SIADDR..GIADDR].copy_from_slice(&GATEWAY.octets());
    }
    add_options(&mut reply, kind, inform);
    let (station, to) = if kind == Some(NAK) || (request.client.is_unspecified() && request.bytes[10] & BROADCAST != 0)
    {
        (Mac::BROADCAST, Ipv4Addr::BROADCAST)
    } else if request.client.is_unspecified() {
        (request.mac, lease)
    } else {
        (request.mac, request.client)
    };
    let payload = wire::udp(SocketAddrV4::new(GATEWAY, SERVER_PORT), SocketAddrV4::new(to, CLIENT_PORT), &reply);
    link.send_to_station(station, to, PROTOCOL_UDP, &payload);
}

fn add_options(reply: &mut Vec<u8>, kind: Option<u8>, inform: bool) {
    let mut option = |kind: u8, data: &[u8]| {
        reply.extend_from_slice(&[kind, data.len() as u8]);
        reply.extend_from_slice(data);
    };
    if let Some(kind) = kind {
        option(OPTION_TYPE, &[kind]);
        option(OPTION_SERVER, &GATEWAY.octets());
    }
    if kind != Some(NAK) {
        if kind.is_some() && !inform {
            option(OPTION_LEASE, &LEASE.to_be_bytes());
        }
        option(OPTION_MASK, &NETMASK.octets());
        option(OPTION_ROUTER, &GATEWAY.octets());
        option(OPTION_DNS, &NAMESERVER.octets());
    }
    reply.push(OPTION_END);
    if reply.len() < MIN_MESSAGE {
        reply.resize(MIN_MESSAGE, 0);
    }
}
