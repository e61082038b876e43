//! The networks of devices: what `--net` says, what has to be opened for it, and the process that does it.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, getsockname, socketpair};
use reprise_child::control::{
    BackendProcStart, BackendRole, Common, NetForward, NetProtocol, NetReach, NetStart, Start, ToChild,
};
use reprise_machine::{Backend, Machine};

use crate::children::{Descriptors, Running};
use crate::failure::Failure;
use crate::leftovers;

/// The program that plays a network.
pub(crate) const PROGRAM: &str = "backend-proc";
/// The most forwards of a network: each is a descriptor that its process inherits.
const MAX_FORWARDS: usize = 12;
/// The longest name of a network interface (`IFNAMSIZ` less its end).
const MAX_INTERFACE: usize = 15;
const DNS_PORT: u16 = 53;

/// What one `--net` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetArg {
    device: String,
    spec: NetSpec,
}

/// What a device's network is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NetSpec {
    /// In user mode.
    User(UserSpec),
    /// This tap interface of the host.
    Tap(String),
    /// No cable.
    None,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UserSpec {
    reach: NetReach,
    resolver: Resolver,
    forwards: Vec<ForwardSpec>,
}

/// Who answers DNS queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Resolver {
    /// Whom the host asks, if the guest may.
    #[default]
    Host,
    At(SocketAddrV4),
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForwardSpec {
    protocol: NetProtocol,
    from: SocketAddrV4,
    to: SocketAddrV4,
}

/// Reads `NAME=user[,OPTION]...`, `NAME=tap:IFNAME` or `NAME=none`.
///
/// # Errors
/// What is wrong with it and what to do, in words.
pub(crate) fn parse(text: &str) -> Result<NetArg, String> {
    const FORMS: &str = "say NAME=user, NAME=tap:IFNAME or NAME=none";
    let (device, net) = text
        .split_once('=')
        .filter(|(n, _)| !n.is_empty())
        .ok_or_else(|| format!("`{text}` names no device; {FORMS}"))?;
    let (kind, options) = net.split_once(',').map_or((net, None), |(kind, options)| (kind, Some(options)));
    let spec = match (kind, kind.strip_prefix("tap:"), options) {
        ("user", _, options) => NetSpec::User(user(options)?),
        ("none", _, None) => NetSpec::None,
        (_, Some(name), None) if !name.is_empty() && name.len() <= MAX_INTERFACE && !name.contains(['/', '\0']) => {
            NetSpec::Tap(name.to_owned())
        }
        (_, Some(name), None) => return Err(format!("`{name}` is no network interface; give its name, such as tap0")),
        ("none", _, Some(_)) | (_, Some(_), Some(_)) => {
            return Err(format!("`{kind}` takes no options; leave them out"));
        }
        _ => return Err(format!("`{kind}` is no network; {FORMS}")),
    };
    Ok(NetArg { device: device.to_owned(), spec })
}

fn user(options: Option<&str>) -> Result<UserSpec, String> {
    let mut spec = UserSpec::default();
    for option in options.iter().flat_map(|o| o.split(',')) {
        match option.split_once('=') {
            Some(("hostfwd", forward)) => spec.forwards.push(parse_forward(forward)?),
            Some(("reach", "loopback")) => spec.reach = NetReach::Loopback,
            Some(("reach", "all")) => spec.reach = NetReach::All,
            Some(("reach", other)) => return Err(format!("`{other}` is no reach; say loopback or all")),
            Some(("dns", "none")) => spec.resolver = Resolver::None,
            Some(("dns", at)) => spec.resolver = Resolver::At(name_server(at)?),
            _ => return Err(format!("`{option}` is no option of a user network; there are hostfwd=, reach= and dns=")),
        }
    }
    if spec.forwards.len() > MAX_FORWARDS {
        return Err(format!("{} forwards are too many; give at most {MAX_FORWARDS}", spec.forwards.len()));
    }
    Ok(spec)
}

fn name_server(text: &str) -> Result<SocketAddrV4, String> {
    let at = text.parse().or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, DNS_PORT)));
    at.ok().filter(|at| at.port() != 0).ok_or_else(|| {
        format!("`{text}` is no name server; give an IPv4 address, and a port if it is not 53, or say dns=none")
    })
}

/// `PROTOCOL:[ADDRESS]:PORT-[ADDRESS]:PORT`, as QEMU has it; but on the host's side only loopback is meant if no address is given.
fn parse_forward(text: &str) -> Result<ForwardSpec, String> {
    let bad = |what: &str| format!("`{text}` is no forward: {what}; say it as tcp:127.0.0.1:2222-:22");
    let (protocol, ends) = text.split_once(':').ok_or_else(|| bad("it has no protocol"))?;
    let protocol = match protocol {
        "tcp" => NetProtocol::Tcp,
        "udp" => NetProtocol::Udp,
        other => return Err(bad(&format!("`{other}` is neither tcp nor udp"))),
    };
    let (from, to) = ends.split_once('-').ok_or_else(|| bad("it leads nowhere"))?;
    let end = |text: &str, default: Ipv4Addr| {
        let (ip, port) = text.rsplit_once(':')?;
        let ip = if ip.is_empty() { default } else { ip.parse().ok()? };
        Some(SocketAddrV4::new(ip, port.parse().ok().filter(|port| *port != 0)?))
    };
    let from = end(from, Ipv4Addr::LOCALHOST)
        .ok_or_else(|| bad(&format!("`{from}` is no IPv4 address and port of this host")))?;
    let to = end(to, reprise_net::FIRST_GUEST)
        .filter(|to| reprise_net::is_guest(*to.ip()))
        .ok_or_else(|| bad(&format!("`{to}` is no address and port of a guest in 10.0.2.0/24")))?;
    Ok(ForwardSpec { protocol, from, to })
}

/// A device's network, with what had to be opened for it.
#[derive(Debug)]
pub(crate) enum Net {
    /// In user mode.
    User(UserNet),
    /// A tap interface.
    Tap(OwnedFd),
}

/// A network in user mode, before it has a process.
#[derive(Debug)]
pub(crate) struct UserNet {
    reach: NetReach,
    resolver: Option<SocketAddrV4>,
    /// Grows while the machine runs.
    forwards: RefCell<Vec<(NetProtocol, OwnedFd, SocketAddrV4)>>,
}

/// The networks of all devices, in the machine's order. A device with `backend: net` of which the command line says nothing has one in user mode
/// without forwards.
pub(crate) fn open_all(machine: &Machine, args: &[NetArg]) -> Result<Vec<Option<Net>>, Failure> {
    for (n, arg) in args.iter().enumerate() {
        let name = &arg.device;
        let with_net: Vec<&str> =
            machine.devices.iter().filter(|d| d.backend == Backend::Net).map(|d| d.name.as_str()).collect();
        if !with_net.contains(&name.as_str()) {
            let fix = match with_net.as_slice() {
                [] => "none of this machine's has one".to_owned(),
                names => format!("give one of {}", names.join(", ")),
            };
            return Err(Failure::usage(format!(
                "--net {name}=...: there is no device {name} with `backend: net`; {fix}"
            )));
        }
        if args[..n].iter().any(|a| a.device == *name) {
            let text = format!("--net {name}=...: {name} has a network already; give one --net for each device");
            return Err(Failure::usage(text));
        }
    }
    let user = NetSpec::User(UserSpec::default());
    let net = |device: &reprise_machine::Device| match device.backend {
        Backend::Net => {
            let spec = args.iter().find(|a| a.device == device.name).map_or(&user, |a| &a.spec);
            open(spec).map_err(|text| Failure::usage(format!("--net {}=...: {text}", device.name)))
        }
        _ => Ok(None),
    };
    machine.devices.iter().map(net).collect()
}

fn open(spec: &NetSpec) -> Result<Option<Net>, String> {
    Ok(match spec {
        NetSpec::None => None,
        NetSpec::Tap(name) => Some(Net::Tap(open_tap(name).map_err(|e| {
            format!("the tap interface {name}: {e}; make it with `ip tuntap add mode tap user $USER name {name}`")
        })?)),
        NetSpec::User(spec) => {
            let forwards = spec.forwards.iter().map(|f| Ok((f.protocol, bind(f)?, f.to)));
            Some(Net::User(UserNet {
                reach: spec.reach,
                resolver: match spec.resolver {
                    Resolver::Host => {
                        host_resolver(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), spec.reach)
                    }
                    Resolver::At(at) => Some(at),
                    Resolver::None => None,
                },
                forwards: RefCell::new(forwards.collect::<Result<_, String>>()?),
            }))
        }
    })
}

/// Whom the host asks first, of those that the guest may ask too: on loopback, unless it reaches all.
fn host_resolver(resolv_conf: &str, reach: NetReach) -> Option<SocketAddrV4> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") { words.next()?.parse::<Ipv4Addr>().ok() } else { None }
    });
    let mut usable = servers.filter(|ip| ip.is_loopback() || reach == NetReach::All);
    usable.next().map(|ip| SocketAddrV4::new(ip, DNS_PORT))
}

/// A forward's socket.
fn bind(forward: &ForwardSpec) -> Result<OwnedFd, String> {
    let from = forward.from;
    let socket = match forward.protocol {
        NetProtocol::Tcp => TcpListener::bind(from).and_then(|s| s.set_nonblocking(true).map(|()| OwnedFd::from(s))),
        NetProtocol::Udp => UdpSocket::bind(from).and_then(|s| s.set_nonblocking(true).map(|()| OwnedFd::from(s))),
    };
    socket.map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => format!("{from}: {e}; give another port, or end what uses this one"),
        io::ErrorKind::PermissionDenied => format!("{from}: {e}; give a port from 1024"),
        _ => format!("{from}: {e}; give an address and port of this host"),
    })
}

/// A tap interface: each read and each write is an Ethernet frame.
fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: the struct is plain data, all zero is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes an ifreq, which this is.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    nix::errno::Errno::result(result)?;
    Ok(tun.into())
}

/// A device's wire. Both ends of it are kept here, so that it outlives the processes at either end.
#[derive(Debug)]
pub(crate) struct Link {
    /// The device's end: packets.
    device: OwnedFd,
    /// The network's end, if a process plays it.
    network: Option<OwnedFd>,
}

impl Net {
    /// Makes the device's wire. A network in user mode then wants [`UserNet::start`].
    pub(crate) fn connect(&self) -> io::Result<Link> {
        match self {
            Self::Tap(tap) => Ok(Link { device: tap.try_clone()?, network: None }),
            Self::User(_) => {
                let flags = SockFlag::SOCK_CLOEXEC;
                let (device, network) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
                Ok(Link { device, network: Some(network) })
            }
        }
    }
}

impl Link {
    /// The network's end, if a process plays it.
    pub(crate) fn network(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(AsFd::as_fd)
    }

    /// The device's end.
    pub(crate) fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl UserNet {
    /// Opens a port of this host for one more forward, as `hostfwd=` says it, and tells the process that plays the network.
    ///
    /// # Errors
    /// What is wrong with it and what to do, in words.
    pub(crate) fn add(&self, forward: &str, process: &Running) -> Result<(), String> {
        let forward = parse_forward(forward)?;
        if self.forwards.borrow().len() >= MAX_FORWARDS {
            return Err(format!("there are {MAX_FORWARDS} forwards already, and no more are possible"));
        }
        let socket = bind(&forward)?;
        let message = ToChild::Forward { protocol: forward.protocol, to: forward.to };
        process.send_with(&message, socket.as_fd()).map_err(|e| format!("the network's process: {e}"))?;
        self.forwards.borrow_mut().push((forward.protocol, socket, forward.to));
        Ok(())
    }

    /// The ports of this host that lead to the guest, as `hostfwd=` says them.
    pub(crate) fn forwards(&self) -> Vec<String> {
        let forward = |(protocol, socket, to): &(NetProtocol, OwnedFd, SocketAddrV4)| {
            let from = getsockname::<SockaddrIn>(socket.as_raw_fd()).map(SocketAddrV4::from);
            let from = from.map_or_else(|_| "?".to_owned(), |from| from.to_string());
            format!("{}:{from}-{to}", format!("{protocol:?}").to_lowercase())
        };
        self.forwards.borrow().iter().map(forward).collect()
    }

    /// Starts the process that plays the network; again after it has died, if need be: then the guest's connections are gone.
    pub(crate) fn start(&self, link: &Link, program: &Path, common: Common) -> anyhow::Result<Running> {
        let mut descriptors = Descriptors::default();
        let network = link.network.as_ref().context("a tap needs no process")?;
        let frames = descriptors.add(network.as_fd()).context("dup")?;
        let mut forwards = Vec::new();
        for (protocol, socket, to) in &*self.forwards.borrow() {
            let socket = descriptors.add(socket.as_fd()).context("dup")?;
            forwards.push(NetForward { protocol: *protocol, socket, to: *to });
        }
        let seed = leftovers::random().context("/dev/urandom")?;
        let net = NetStart { frames, reach: self.reach, resolver: self.resolver, forwards, seed };
        let child = Running::spawn(program, &common.name, descriptors)?;
        child
            .start(Start::BackendProc(BackendProcStart { common, role: BackendRole::Net(net) }))
            .context("the start message")?;
        Ok(child)
    }
}

#[cfg(test)]
mod tests {
    use reprise_backends::{Backend as _, Input, Packets};

    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn what_can_be_said() {
        let user = |spec| Ok(NetArg { device: "eth0".into(), spec: NetSpec::User(spec) });
        let forward = |protocol, from, to| ForwardSpec { protocol, from: at(from), to: at(to) };
        assert_eq!(parse("eth0=user"), user(UserSpec::default()));
        let text = "eth0=user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::69-10.0.2.16:69,reach=all,dns=127.0.0.53";
        let forwards = vec![
            forward(NetProtocol::Tcp, "127.0.0.1:2222", "10.0.2.15:22"),
            forward(NetProtocol::Udp, "127.0.0.1:69", "10.0.2.16:69"),
        ];
        let resolver = Resolver::At(at("127.0.0.53:53"));
        assert_eq!(parse(text), user(UserSpec { reach: NetReach::All, resolver, forwards }));
        let none = UserSpec { resolver: Resolver::None, ..UserSpec::default() };
        assert_eq!(parse("eth0=user,dns=none,reach=loopback"), user(none));
        let tap = NetSpec::Tap("tap0".into());
        assert_eq!(parse("net-1=tap:tap0"), Ok(NetArg { device: "net-1".into(), spec: tap }));
        assert_eq!(parse("eth0=none"), Ok(NetArg { device: "eth0".into(), spec: NetSpec::None }));
    }

    #[test]
    fn what_can_t_be_said() {
        let many = format!("eth0=user{}", ",hostfwd=tcp::1000-:22".repeat(13));
        for (text, says) in [
            ("eth0", "`eth0` names no device; say NAME=user, NAME=tap:IFNAME or NAME=none"),
            ("=user", "`=user` names no device; say"),
            ("eth0=slirp", "`slirp` is no network; say NAME=user"),
            ("eth0=", "`` is no network; say NAME=user"),
            ("eth0=none,reach=all", "`none` takes no options; leave them out"),
            ("eth0=tap:tap0,script=no", "`tap:tap0` takes no options; leave them out"),
            ("eth0=tap:", "`` is no network interface; give its name, such as tap0"),
            ("eth0=tap:sixteen-letters-", "`sixteen-letters-` is no network interface; give its name"),
            (
                "eth0=user,restrict=on",
                "`restrict=on` is no option of a user network; there are hostfwd=, reach= and dns=",
            ),
            ("eth0=user,", "`` is no option of a user network"),
            ("eth0=user,reach=lan", "`lan` is no reach; say loopback or all"),
            ("eth0=user,dns=::1", "`::1` is no name server; give an IPv4 address"),
            ("eth0=user,dns=127.0.0.1:0", "`127.0.0.1:0` is no name server"),
            ("eth0=user,hostfwd=2222", "`2222` is no forward: it has no protocol; say it as tcp:127.0.0.1:2222-:22"),
            ("eth0=user,hostfwd=sctp::1-:2", "`sctp` is neither tcp nor udp; say"),
            ("eth0=user,hostfwd=tcp::2222", "it leads nowhere; say"),
            ("eth0=user,hostfwd=tcp:localhost:1-:2", "`localhost:1` is no IPv4 address and port of this host; say"),
            ("eth0=user,hostfwd=tcp::0-:2", "`:0` is no IPv4 address and port of this host; say"),
            ("eth0=user,hostfwd=tcp::70000-:2", "`:70000` is no IPv4 address and port"),
            ("eth0=user,hostfwd=tcp::1-:", "`:` is no address and port of a guest in 10.0.2.0/24; say"),
            ("eth0=user,hostfwd=tcp::1-10.0.2.2:22", "`10.0.2.2:22` is no address and port of a guest"),
            ("eth0=user,hostfwd=tcp::1-192.168.0.2:22", "`192.168.0.2:22` is no address and port of a guest"),
            (&many, "13 forwards are too many; give at most 12"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_hosts_resolver_is_asked_if_the_guest_may() {
        let text = "# comment\nsearch example.test\nnameserver 192.0.2.1\n nameserver  ::1\nnameserver 127.0.0.53 x\n";
        assert_eq!(host_resolver(text, NetReach::Loopback), Some(at("127.0.0.53:53")));
        assert_eq!(host_resolver(text, NetReach::All), Some(at("192.0.2.1:53")));
        assert_eq!(host_resolver("nameserver 192.0.2.1\n", NetReach::Loopback), None);
        assert_eq!(host_resolver("nameserver\nnameserver x", NetReach::All), None);
    }

    #[test]
    fn a_port_in_use_is_said() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(from) = held.local_addr().unwrap() else { panic!("it is IPv4") };
        let spec = ForwardSpec { protocol: NetProtocol::Tcp, from, to: at("10.0.2.15:22") };
        let text = bind(&spec).unwrap_err();
        assert!(
            text.starts_with(&from.to_string()) && text.ends_with("; give another port, or end what uses this one")
        );
        bind(&ForwardSpec { protocol: NetProtocol::Udp, ..spec }).unwrap();
    }

    /// Sets an interface's address and brings it up.
    fn configure(name: &str, ip: Ipv4Addr) {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // SAFETY: the struct is plain data, all zero is a valid value of it.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: both are 16 bytes of plain data.
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
        let call = |number, request: &mut libc::ifreq| {
            // SAFETY: the kernel reads an ifreq, which this is.
            let result = unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(request)) };
            nix::errno::Errno::result(result).unwrap();
        };
        call(libc::SIOCSIFADDR, &mut request);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        call(libc::SIOCSIFFLAGS, &mut request);
    }

    #[test]
    fn a_tap_takes_and_gives_frames() {
        let body = || {
            // In a network of its own, where nothing leads outside.
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                eprintln!("skipped: this user can't make a network namespace");
                return;
            }
            let tap = match open_tap("reprise0") {
                Ok(tap) => tap,
                Err(e) => {
                    eprintln!("skipped: no tap interfaces here: {e}");
                    return;
                }
            };
            let link = Net::Tap(tap).connect().unwrap();
            let mut packets = Packets::new(link.device().try_clone_to_owned().unwrap()).unwrap();
            packets.write(&[0; 60]);
            assert_eq!(packets.dropped(), 1, "the interface is down");
            configure("reprise0", Ipv4Addr::new(10, 9, 9, 1));
            // Who has 10.9.9.1? Tell 10.9.9.2.
            let mut request = vec![0xff; 6];
            request.extend_from_slice(&[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 9, 9, 2]);
            request.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 9, 9, 1]);
            packets.write(&request);
            let mut frame = Vec::new();
            // The host has more to say on a new interface than the answer.
            while frame.get(12..22) != Some(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]) {
                frame.clear();
                if packets.read(2000, &mut frame) == Input::Nothing {
                    std::thread::yield_now();
                }
            }
            assert_eq!(frame[28..32], [10, 9, 9, 1]);
        };
        std::thread::spawn(body).join().unwrap();
    }
}
