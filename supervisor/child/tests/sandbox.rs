//! The sandbox from inside: a child process enters it and tries things.
//!
//! Each try runs in a process of its own: this test program again, told by the environment what to try.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reprise_child::control::FromChild;
use reprise_child::sandbox::{Policy, Role, Stage, VIOLATION_EXIT, enter};
use reprise_child::{CONTROL_FD, Peer, pair, syscall_name};

const TRY: &str = "REPRISE_TEST_TRY";
const DIR: &str = "REPRISE_TEST_DIR";
const HOLE: usize = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;

/// What a try came to.
#[derive(Debug, PartialEq)]
enum Came {
    /// It was allowed, and did what it should.
    Done,
    /// It was forbidden: the system call's name.
    Forbidden(String),
    /// The system refused it.
    Refused,
    /// The process ended in another way.
    Otherwise(String),
}

fn policy(role: &str, fds: &Prepared) -> Policy {
    let dir = std::env::var(DIR).unwrap_or_else(|_| "/nonexistent".into());
    let disk = match role {
        "disk" | "read-disk" | "display" => vec![(fds.file.as_raw_fd(), role == "disk")],
        _ => Vec::new(),
    };
    let role = match role {
        "cpu" => Role::Cpu,
        "device" | "disk" | "read-disk" => Role::Device,
        "log" => Role::Log { dir, write: true },
        "read-log" => Role::Log { dir, write: false },
        "net" => Role::Net,
        "display" => Role::Display,
        other => panic!("no role {other}"),
    };
    Policy { role, address_space: 8 << 30, descriptors: 64, disk }
}

/// Starts a child that enters stage `Attached` (and `Loaded`, if the try's name ends in `!`) and then makes the try.
fn attempt(role: &str, what: &str, dir: &str) -> Came {
    let (mut peer, theirs): (Peer, OwnedFd) = pair().unwrap();
    let number = nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "inside", "--nocapture"]).env(TRY, format!("{role} {what}")).env(DIR, dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    // SAFETY: dup2 takes numbers only.
    let place = move || match nix::errno::Errno::result(unsafe { libc::dup2(number, CONTROL_FD) }) {
        Ok(_) => Ok(()),
        Err(e) => Err(e.into()),
    };
    // SAFETY: dup2 is async-signal-safe.
    unsafe { command.pre_exec(place) };
    let mut child = command.spawn().unwrap();
    let exit = child.wait().unwrap();
    drop(theirs);
    // SAFETY: made above, and not used any more.
    unsafe { libc::close(number) };
    match exit.code() {
        Some(0) => Came::Done,
        Some(10) => Came::Refused,
        Some(VIOLATION_EXIT) => match peer.receive_until(Instant::now() + Duration::from_secs(10)) {
            Ok(FromChild::Violation { syscall }) => {
                Came::Forbidden(syscall_name(syscall.into()).split(' ').next().unwrap().to_owned())
            }
            other => Came::Otherwise(format!("{other:?}")),
        },
        _ => Came::Otherwise(format!("{exit}")),
    }
}

/// The child's side; nothing if this is an ordinary run of the tests.
#[test]
fn inside() {
    let Ok(job) = std::env::var(TRY) else { return };
    let (role, what) = job.split_once(' ').unwrap();
    let (what, both) = what.strip_suffix('!').map_or((what, false), |w| (w, true));
    let fds = Prepared::new();
    let policy = policy(role, &fds);
    enter(Stage::Attached, &policy).unwrap();
    if both {
        enter(Stage::Loaded, &policy).unwrap();
    }
    let code = match make(what, &fds) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{what}: {e}");
            10
        }
    };
    // SAFETY: ends the process without the test harness's own clean-up, which the sandbox need not allow.
    unsafe { libc::_exit(code) };
}

/// What a child has open when it enters its sandbox.
struct Prepared {
    file: File,
    other: File,
    socket: std::os::unix::net::UnixDatagram,
    listener: std::net::TcpListener,
    port: u16,
    unbound: OwnedFd,
}

impl Prepared {
    fn new() -> Self {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        files.iter().for_each(|file| file.write_all_at(b"text", 0).unwrap());
        let [file, other] = files;
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let unbound = inet(libc::SOCK_STREAM, 0).unwrap();
        Self { file, other, socket, listener, port, unbound }
    }
}

/// A socket of IPv4.
fn inet(kind: libc::c_int, protocol: libc::c_int) -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd.into())?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_long) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A system call with up to four arguments.
fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> std::io::Result<()> {
    // SAFETY: the tries below pass numbers, or memory that is theirs.
    check(unsafe { libc::syscall(number, a, b, c, d) })
}

fn map(length: usize, protection: libc::c_int, flags: libc::c_int, fd: i32) -> std::io::Result<usize> {
    // SAFETY: a new mapping, away from all others.
    match unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) } {
        libc::MAP_FAILED => Err(std::io::Error::last_os_error()),
        at => Ok(at as usize),
    }
}

/// Changes the protection of a new page.
fn protect(from: libc::c_int, to: libc::c_int) -> std::io::Result<()> {
    let page = map(4096, from, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    call(libc::SYS_mprotect, page, 4096, to as usize, 0)
}

fn make(what: &str, fds: &Prepared) -> std::io::Result<()> {
    let dir = std::env::var(DIR).unwrap_or_default();
    let dir = std::path::Path::new(&dir);
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let (read, write, exec) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    let file = fds.file.as_raw_fd();
    let parent = std::os::unix::process::parent_id() as usize;
    match what {
        "ordinary" => ordinary(),
        "read-file" => File::open("/proc/self/maps").map(drop),
        "write-file" => File::create("/tmp/reprise-sandbox-test").map(drop),
        "write-in-dir" => write_in(dir),
        "read-in-dir" => {
            let mut text = String::new();
            File::open(dir.join("there"))?.read_to_string(&mut text)?;
            std::fs::read_dir(dir)?.next().unwrap().map(drop)
        }
        "thread" => std::thread::Builder::new().spawn(|| ()).map(|t| t.join().unwrap()),
        "socket" => std::net::UdpSocket::bind("127.0.0.1:0").map(drop),
        "tcp" => tcp(&fds.listener, fds.port),
        "udp" => inet(libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0).map(drop),
        // Whether this user may ping is the system's matter.
        "echo" => match inet(libc::SOCK_DGRAM, libc::IPPROTO_ICMP) {
            Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => Err(e),
            _ => Ok(()),
        },
        "raw" => inet(libc::SOCK_RAW, libc::IPPROTO_ICMP).map(drop),
        "sctp" => inet(libc::SOCK_STREAM, libc::IPPROTO_SCTP).map(drop),
        "ipv6" => call(libc::SYS_socket, libc::AF_INET6 as usize, libc::SOCK_STREAM as usize, 0, 0),
        "unix" => call(libc::SYS_socket, libc::AF_UNIX as usize, libc::SOCK_STREAM as usize, 0, 0),
        "netlink" => call(libc::SYS_socket, libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, 0, 0),
        "packet" => call(libc::SYS_socket, libc::AF_PACKET as usize, libc::SOCK_RAW as usize, 0, 0),
        // Nobody has come; that it is asked for at all is what counts.
        "accept" => match call(libc::SYS_accept4, usize::MAX, 0, 0, 0) {
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => Ok(()),
            other => other,
        },
        "listen" => call(libc::SYS_listen, fds.unbound.as_raw_fd() as usize, 1, 0, 0),
        "set-mark" => {
            nix::sys::socket::setsockopt(&fds.unbound, nix::sys::socket::sockopt::Mark, &1).map_err(Into::into)
        }
        "connect" => call(libc::SYS_connect, fds.socket.as_raw_fd() as usize, c"/x".as_ptr() as usize, 2, 0),
        "send-to" => fds.socket.send_to(b"x", "/tmp/nobody").map(drop),
        "ptrace" => call(libc::SYS_ptrace, libc::PTRACE_TRACEME as usize, 0, 0, 0),
        "kill-parent" => call(libc::SYS_kill, parent, 0, 0, 0),
        "tgkill-parent" => call(libc::SYS_tgkill, parent, parent, 0, 0),
        // SAFETY: the new process, if there is one, ends at once.
        "fork" => match unsafe { libc::fork() } {
            // SAFETY: as above.
            0 => unsafe { libc::_exit(0) },
            n => check(n.into()),
        },
        "exec" => call(libc::SYS_execve, c"/bin/true".as_ptr() as usize, 0, 0, 0),
        "truncate" => fds.file.set_len(0),
        "allocate" => call(libc::SYS_fallocate, file as usize, 0, 0, 4096),
        "hole" => call(libc::SYS_fallocate, file as usize, HOLE, 0, 4096),
        "read-at" => fds.file.read_exact_at(&mut [0; 2], 0),
        "write-at" => fds.file.write_all_at(b"xy", 0),
        "sync" => fds.file.sync_data(),
        "read-other" => fds.other.read_exact_at(&mut [0; 2], 0),
        "write-other" => fds.other.write_all_at(b"xy", 0),
        "memfd" => call(libc::SYS_memfd_create, c"x".as_ptr() as usize, 0, 0, 0),
        "raise-limits" => {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 64, 64).map_err(Into::into)
        }
        "type-for-the-user" => call(libc::SYS_ioctl, 0, libc::TIOCSTI as usize, c"x".as_ptr() as usize, 0),
        "map-shared" => map(4096, read | write, libc::MAP_SHARED, file).map(drop),
        "map-writable-code" => map(4096, read | write | exec, anonymous, -1).map(drop),
        "map-code" => map(4096, read | exec, anonymous, -1).map(drop),
        "make-code" => protect(read | write, read | exec),
        "make-writable" => protect(read, read | write),
        "make-read-only" => protect(read | write, read),
        "punch-hole" => {
            let page = map(4096, read | write, anonymous, -1)?;
            call(libc::SYS_madvise, page, 4096, libc::MADV_REMOVE as usize, 0)
        }
        "load-library" => {
            // SAFETY: libm's constructors do nothing that could matter here.
            let handle = unsafe { libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW) };
            if handle.is_null() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }
        }
        "new-filter" => call(libc::SYS_seccomp, 0, 0, 0, 0),
        other => panic!("no try {other}"),
    }
}

/// A connection with itself.
fn tcp(listener: &std::net::TcpListener, port: u16) -> std::io::Result<()> {
    let at = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, port);
    let socket = inet(libc::SOCK_STREAM, 0)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &at)?;
    nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SocketError)?;
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let other = nix::sys::socket::accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made it.
    let mut other = unsafe { std::net::TcpStream::from_raw_fd(other) };
    other.set_nodelay(true)?;
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    other.read_to_string(&mut text)?;
    assert_eq!(text, "hello");
    Ok(())
}

fn write_in(dir: &std::path::Path) -> std::io::Result<()> {
    let path = dir.join("new");
    File::create(&path)?.write_all(b"x")?;
    std::fs::rename(&path, path.with_extension("done"))?;
    std::fs::create_dir(path.with_extension("dir"))?;
    std::fs::read(path.with_extension("done")).map(drop)
}

/// What every child does all the time.
fn ordinary() -> std::io::Result<()> {
    let memory: Vec<Vec<u8>> = (0..64).map(|n| vec![n; 1 << 20]).collect();
    assert_eq!(memory.iter().map(|m| u32::from(m[77])).sum::<u32>(), 63 * 32);
    let mut growing = Vec::new();
    for n in 0..200_000_u64 {
        growing.push(n);
    }
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(began.elapsed() >= Duration::from_millis(2));
    std::thread::yield_now();
    let map: std::collections::HashMap<u64, u64> = growing.iter().map(|n| (*n, n * n)).collect();
    assert_eq!(map[&1000], 1_000_000);
    let word = std::sync::atomic::AtomicU32::new(1);
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // A time limit of 1 ms, so that the wait ends with an error of its own.
    let wait = call(libc::SYS_futex, word.as_ptr() as usize, libc::FUTEX_WAIT as usize, 1, (&raw const time) as usize);
    assert_eq!(wait.unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    Ok(())
}

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("there"), "text").unwrap();
    dir
}

fn forbidden(role: &str, what: &str, syscalls: &[&str]) {
    let dir = dir();
    match attempt(role, what, dir.path().to_str().unwrap()) {
        Came::Forbidden(name) if syscalls.contains(&name.as_str()) => {}
        other => panic!("{role} {what}: {other:?}"),
    }
}

fn allowed(role: &str, what: &str) {
    let dir = dir();
    assert_eq!(attempt(role, what, dir.path().to_str().unwrap()), Came::Done, "{role} {what}");
}

#[test]
fn ordinary_work_is_allowed() {
    for role in ["cpu", "device", "log", "read-log", "net", "display"] {
        allowed(role, "ordinary");
        allowed(role, "ordinary!");
        allowed(role, "make-read-only!");
    }
}

#[test]
fn nobody_leaves_the_sandbox() {
    let tries: [(&str, &[&str]); 16] = [
        ("socket", &["socket"]),
        ("connect", &["connect"]),
        ("send-to", &["sendto"]),
        ("ptrace", &["ptrace"]),
        ("kill-parent", &["kill"]),
        ("tgkill-parent", &["tgkill"]),
        ("exec", &["execve"]),
        ("truncate", &["ftruncate"]),
        ("allocate", &["fallocate"]),
        ("memfd", &["memfd_create"]),
        ("raise-limits", &["prlimit64"]),
        ("type-for-the-user", &["ioctl"]),
        ("map-shared", &["mmap"]),
        ("map-writable-code", &["mmap"]),
        ("make-code", &["mprotect"]),
        ("punch-hole", &["madvise"]),
    ];
    for (what, syscalls) in tries {
        for role in ["cpu", "device", "log"] {
            forbidden(role, what, syscalls);
        }
        forbidden("device", &format!("{what}!"), syscalls);
    }
    forbidden("device", "fork", &["clone", "fork"]);
    forbidden("cpu", "fork", &["clone", "fork"]);
}

#[test]
fn a_network_has_sockets_of_ipv4_and_nothing_else() {
    for stage in ["", "!"] {
        for what in ["tcp", "udp", "echo"] {
            allowed("net", &format!("{what}{stage}"));
        }
        for what in ["raw", "sctp", "ipv6", "unix", "netlink", "packet"] {
            forbidden("net", &format!("{what}{stage}"), &["socket"]);
            forbidden("device", &format!("{what}{stage}"), &["socket"]);
        }
        // `socket` is one that is bound.
        forbidden("net", &format!("socket{stage}"), &["bind"]);
        forbidden("net", &format!("listen{stage}"), &["listen"]);
        forbidden("net", &format!("set-mark{stage}"), &["setsockopt"]);
        forbidden("net", &format!("read-file{stage}"), &["openat"]);
        forbidden("net", &format!("write-file{stage}"), &["openat"]);
        for (what, syscall) in [("exec", "execve"), ("ptrace", "ptrace"), ("memfd", "memfd_create")] {
            forbidden("net", &format!("{what}{stage}"), &[syscall]);
        }
        forbidden("net", &format!("kill-parent{stage}"), &["kill"]);
    }
    forbidden("net", "map-code!", &["mmap"]);
    forbidden("net", "make-code!", &["mprotect"]);
    forbidden("net", "fork!", &["clone", "fork"]);
    forbidden("net", "thread!", &["mprotect", "clone"]);
}

#[test]
fn a_display_takes_viewers_and_reads_memory() {
    for stage in ["", "!"] {
        allowed("display", &format!("accept{stage}"));
        allowed("display", &format!("read-at{stage}"));
        for what in ["tcp", "udp", "unix"] {
            forbidden("display", &format!("{what}{stage}"), &["socket"]);
        }
        forbidden("display", &format!("connect{stage}"), &["connect"]);
        forbidden("display", &format!("listen{stage}"), &["listen"]);
        forbidden("display", &format!("write-at{stage}"), &["pwrite64"]);
        forbidden("display", &format!("read-other{stage}"), &["pread64"]);
        forbidden("display", &format!("map-shared{stage}"), &["mmap"]);
        forbidden("display", &format!("read-file{stage}"), &["openat"]);
    }
}

#[test]
fn files_are_for_those_who_need_them() {
    forbidden("cpu", "read-file", &["openat"]);
    forbidden("cpu", "write-file", &["openat"]);
    allowed("device", "read-file");
    forbidden("device", "write-file", &["openat"]);
    forbidden("device", "read-file!", &["openat"]);
    for stage in ["", "!"] {
        allowed("log", &format!("write-in-dir{stage}"));
        allowed("log", &format!("read-in-dir{stage}"));
        allowed("read-log", &format!("read-in-dir{stage}"));
        forbidden("read-log", &format!("write-in-dir{stage}"), &["openat"]);
    }
}

#[test]
fn a_disk_is_reached_by_offset_and_nothing_else_is() {
    for what in ["read-at!", "write-at!", "sync!", "hole!"] {
        allowed("disk", what);
    }
    allowed("read-disk", "read-at!");
    for (what, syscall) in [("write-at!", "pwrite64"), ("sync!", "fdatasync"), ("hole!", "fallocate")] {
        forbidden("read-disk", what, &[syscall]);
        forbidden("device", what, &[syscall]);
    }
    forbidden("device", "read-at!", &["pread64"]);
    forbidden("disk", "read-other!", &["pread64"]);
    forbidden("disk", "write-other!", &["pwrite64"]);
    forbidden("disk", "allocate!", &["fallocate"]);
    forbidden("disk", "truncate!", &["ftruncate"]);
    // The loader reads files too.
    allowed("disk", "read-other");
    forbidden("disk", "write-other", &["pwrite64"]);
}

#[test]
fn landlock_keeps_the_log_to_its_directory() {
    // SAFETY: asks for a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version < 1 {
        eprintln!("skipped: this kernel has no landlock");
        return;
    }
    let dir = dir();
    let dir = dir.path().to_str().unwrap();
    assert_eq!(attempt("log", "write-file", dir), Came::Refused);
    assert_eq!(attempt("log", "read-file!", dir), Came::Refused);
    assert_eq!(attempt("read-log", "read-file", dir), Came::Refused);
}

#[test]
fn code_and_threads_come_before_the_second_stage() {
    allowed("device", "load-library");
    forbidden("device", "load-library!", &["openat"]);
    forbidden("device", "map-code!", &["mmap"]);
    forbidden("cpu", "map-code", &["mmap"]);
    allowed("cpu", "thread");
    allowed("log", "thread");
    forbidden("device", "thread", &["mprotect", "clone"]);
    forbidden("cpu", "thread!", &["mprotect", "clone"]);
    forbidden("device", "make-writable", &["mprotect"]);
    forbidden("cpu", "make-writable!", &["mprotect"]);
    forbidden("log", "make-writable!", &["mprotect"]);
    forbidden("device", "new-filter!", &["seccomp"]);
}
