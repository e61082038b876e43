//! Serial lines other than the console, and further ports of devices: they lead to a socket, a pipe or a file.
//!
//! They are held here, as the console is: what a killed process has read or written there nobody could know. An outside that does not read never holds up
//! the guest: of what it does not take, the oldest is lost (a recording has it all).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::poll::PollFlags;
use nix::sys::stat::Mode;
use reprise_machine::{Backend, Machine};

use crate::failure::Failure;
use crate::sender::Sender;
use crate::stream::{self, Drain};
use crate::terminal::say;

/// Input that waits for the guest.
const MAX_INPUT: usize = 4096;
/// Output that waits for the outside.
const MAX_OUTPUT: usize = 1 << 20;

/// Where a serial port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Nowhere.
    Null,
    /// A Unix socket on which the supervisor listens; one peer at a time.
    Unix(PathBuf),
    /// Two named pipes, `PATH.in` to the guest and `PATH.out` from it; they are made if they are not there.
    Pipe(PathBuf),
    /// A file that gets the output.
    File(PathBuf),
}

/// What one `--serial` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SerialArg {
    pub(crate) device: String,
    /// The port's name in the plugin's spec; none: the port that the device's backend is joined to.
    pub(crate) port: Option<String>,
    pub(crate) to: Outside,
}

impl SerialArg {
    /// As it was given.
    fn name(&self) -> String {
        name_of(&self.device, self.port.as_deref())
    }
}

fn name_of(device: &str, port: Option<&str>) -> String {
    port.map_or_else(|| device.to_owned(), |port| format!("{device}.{port}"))
}

/// Reads `NAME=unix:PATH|pipe:PATH|file:PATH|null`, where NAME is a device or, with a dot between, a device and a port.
///
/// # Errors
/// What is wrong with it and what to do, in words.
pub(crate) fn parse(text: &str) -> Result<SerialArg, String> {
    const FORMS: &str =
        "say NAME=unix:PATH, NAME=pipe:PATH, NAME=file:PATH or NAME=null, where NAME is a device, or DEVICE.PORT";
    // A port's name may have the sign, too.
    let leads = |(i, _): &(usize, &str)| {
        let to = &text[i + 1..];
        to == "null" || ["unix:", "pipe:", "file:"].iter().any(|kind| to.starts_with(kind))
    };
    let split = text.match_indices('=').find(leads).or_else(|| text.match_indices('=').next());
    let (name, to) = split
        .map(|(i, _)| (&text[..i], &text[i + 1..]))
        .filter(|(name, _)| !name.is_empty() && !name.starts_with('.'))
        .ok_or_else(|| format!("`{text}` names no device; {FORMS}"))?;
    let (device, port) = match name.split_once('.') {
        None => (name, None),
        Some((device, "")) => return Err(format!("`{device}.` names no port; {FORMS}")),
        Some((device, port)) => (device, Some(port.to_owned())),
    };
    let to = match to.split_once(':') {
        None if to == "null" => Outside::Null,
        Some((kind @ ("unix" | "pipe" | "file"), "")) => return Err(format!("`{kind}:` has no path; {FORMS}")),
        Some(("unix", path)) => Outside::Unix(path.into()),
        Some(("pipe", path)) => Outside::Pipe(path.into()),
        Some(("file", path)) => Outside::File(path.into()),
        _ => return Err(format!("`{to}` is nowhere that a serial port can lead; {FORMS}")),
    };
    Ok(SerialArg { device: device.to_owned(), port, to })
}

/// Gives the devices that `--serial` names the backend for it. Which further ports a device has, its plugin knows: of a port that it has not, its process will say so.
///
/// # Errors
/// There is no such device, or it has no serial line.
pub(crate) fn assign(machine: &mut Machine, args: &[SerialArg]) -> Result<(), Failure> {
    let serial = |b: Backend| matches!(b, Backend::Console | Backend::Null | Backend::Serial);
    for (n, arg) in args.iter().enumerate() {
        let name = &arg.device;
        let all = machine.devices.iter().filter(|d| arg.port.is_some() || serial(d.backend));
        let all: Vec<&str> = all.map(|d| d.name.as_str()).collect();
        let what = if arg.port.is_some() { "" } else { " with a serial line" };
        let text = match args[..n].iter().any(|a| a.name() == arg.name()) {
            true => Some(format!("{} is given twice; give one --serial for each device and port", arg.name())),
            false if all.contains(&name.as_str()) => None,
            false => Some(match all.as_slice() {
                [] => format!("there is no device{what} in this machine"),
                names => format!("there is no device {name}{what}; give one of {}", names.join(", ")),
            }),
        };
        if let Some(text) = text {
            return Err(Failure::usage(format!("--serial {}=...: {text}", arg.name())));
        }
        if arg.port.is_none() {
            let device = machine.devices.iter_mut().find(|d| d.name == *name).expect("looked for above");
            device.backend = if arg.to == Outside::Null { Backend::Null } else { Backend::Serial };
        }
    }
    Ok(())
}

/// The lines of all devices. A file begins empty with the machine's first start, and goes on after a reset.
///
/// # Errors
/// A socket, pipe or file that can't be opened.
pub(crate) fn open_all(machine: &Machine, args: &[SerialArg], first: bool) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (i, device) in machine.devices.iter().enumerate() {
        let of_device = || args.iter().filter(|a| a.device == device.name);
        let mut open = |port: Option<&str>, to: &Outside| {
            let name = name_of(&device.name, port);
            let line = Line::open(i, &device.name, port, to, first);
            lines.push(line.map_err(|e| Failure::usage(format!("--serial {name}=...: {e}")))?);
            Ok::<_, Failure>(())
        };
        if device.backend == Backend::Serial {
            open(None, of_device().find(|a| a.port.is_none()).map_or(&Outside::Null, |a| &a.to))?;
        }
        for arg in of_device() {
            if let Some(port) = &arg.port {
                open(Some(port), &arg.to)?;
            }
        }
    }
    Ok(lines)
}

/// The outside, open.
#[derive(Debug)]
enum End {
    Null,
    Unix { listener: UnixListener, path: PathBuf, peer: Option<UnixStream> },
    Pipe { input: File, output: File },
    File(File),
}

/// A device's line. Both ends of it are kept here, so that it outlives the device's processes.
#[derive(Debug)]
pub(crate) struct Line {
    /// The device's index in the machine.
    pub(crate) device: usize,
    /// The port's name; none: that of the device's backend.
    pub(crate) port: Option<String>,
    name: String,
    /// Its file is yet to be emptied.
    fresh: bool,
    feed: Sender,
    drain: Drain,
    /// The device's ends.
    theirs: (OwnedFd, OwnedFd),
    end: End,
    /// For the guest.
    pending: VecDeque<u8>,
    /// From the guest.
    waiting: VecDeque<u8>,
    /// Some of that was lost; it was said.
    lost: bool,
}

/// Adds the path to an error.
fn at(path: &Path, fix: &'static str) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |e| io::Error::new(e.kind(), format!("{path}: {e}; {fix}"))
}

/// A named pipe, open in both directions, so that it has no end before the machine ends.
fn fifo(path: &Path) -> io::Result<File> {
    const FIX: &str = "give the path of two named pipes without their .in and .out, or of none";
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(e) => return Err(at(path, FIX)(e.into())),
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(at(path, FIX))?;
    match file.metadata()?.file_type().is_fifo() {
        true => Ok(file),
        false => Err(at(path, FIX)(io::Error::other("it is no pipe"))),
    }
}

impl End {
    fn open(to: &Outside) -> io::Result<Self> {
        Ok(match to {
            Outside::Null => Self::Null,
            Outside::Unix(path) => {
                let fix = "give a path where there is nothing, in a folder that this user can write to";
                let listener = UnixListener::bind(path).map_err(at(path, fix))?;
                listener.set_nonblocking(true)?;
                Self::Unix { listener, path: path.clone(), peer: None }
            }
            Outside::Pipe(path) => {
                let with = |suffix: &str| {
                    let mut name = path.as_os_str().to_owned();
                    name.push(suffix);
                    PathBuf::from(name)
                };
                Self::Pipe { input: fifo(&with(".in"))?, output: fifo(&with(".out"))? }
            }
            Outside::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Self::File(file.map_err(at(path, "give a file that this user can write"))?)
            }
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            if let Err(e) = std::fs::remove_file(&*path) {
                tracing::debug!("{}: {e}", path.display());
            }
        }
    }
}

impl Line {
    fn open(device: usize, name: &str, port: Option<&str>, to: &Outside, fresh: bool) -> io::Result<Self> {
        let end = End::open(to)?;
        let ((feed, input), (drain, output)) = (stream::pair()?, stream::pair()?);
        Ok(Self {
            device,
            port: port.map(str::to_owned),
            name: name_of(name, port),
            fresh,
            feed: Sender::new(Some(feed)),
            drain: Drain::new(drain),
            theirs: (input, output),
            end,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            lost: false,
        })
    }

    /// The device's ends: for its input and its output.
    pub(crate) fn device(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.theirs.0.as_fd(), self.theirs.1.as_fd())
    }

    /// What `--serial` calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// May anything come from outside?
    pub(crate) fn has_input(&self) -> bool {
        matches!(self.end, End::Unix { .. } | End::Pipe { .. })
    }

    /// The machine starts: nothing of an earlier one is to be left in a file. Not before, as a machine that can't start must not cost the user one.
    ///
    /// # Errors
    /// The file can't be emptied.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        match &self.end {
            End::File(file) if std::mem::take(&mut self.fresh) && file.metadata()?.is_file() => file.set_len(0),
            _ => Ok(()),
        }
    }

    /// A new process serves the device.
    pub(crate) fn repeat(&mut self) {
        self.feed.repeat();
    }

    /// What to poll for.
    pub(crate) fn descriptors(&self) -> Vec<(RawFd, PollFlags)> {
        let mut all = Vec::new();
        let mut add = |fd: BorrowedFd<'_>, flags| all.push((fd.as_raw_fd(), flags));
        if let Some(fd) = self.feed.fd().filter(|_| !self.pending.is_empty() || self.feed.repeats()) {
            add(fd, PollFlags::POLLOUT);
        }
        if let Some(fd) = self.drain.source() {
            add(fd, PollFlags::POLLIN);
        }
        let (reads, writes) = (self.pending.len() < MAX_INPUT, !self.waiting.is_empty());
        match &self.end {
            End::Null | End::File(_) => {}
            End::Unix { listener, peer: None, .. } => add(listener.as_fd(), PollFlags::POLLIN),
            End::Unix { peer: Some(peer), .. } => {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLIN, reads);
                flags.set(PollFlags::POLLOUT, writes);
                if !flags.is_empty() {
                    add(peer.as_fd(), flags);
                }
            }
            End::Pipe { input, output } => {
                if reads {
                    add(input.as_fd(), PollFlags::POLLIN);
                }
                if writes {
                    add(output.as_fd(), PollFlags::POLLOUT);
                }
            }
        }
        all
    }

    /// Passes on what there is, in both directions, without waiting.
    pub(crate) fn work(&mut self) {
        self.read_outside();
        self.feed.send(&mut self.pending);
        // Some pieces at once, but not so many that others wait.
        for _ in 0..64 {
            let Some(data) = self.drain.next() else { break };
            if !matches!(self.end, End::Null | End::Unix { peer: None, .. }) {
                self.waiting.extend(data);
            }
        }
        self.write_outside();
        if self.waiting.len() > MAX_OUTPUT {
            self.waiting.drain(..self.waiting.len() - MAX_OUTPUT);
            if !std::mem::replace(&mut self.lost, true) {
                say(&format!("{}: nobody reads what it sends; the oldest of it is lost there", self.name));
            }
        }
    }

    fn read_outside(&mut self) {
        if let End::Unix { listener, peer: peer @ None, .. } = &mut self.end {
            *peer = listener.accept().ok().map(|(stream, _)| stream);
            // Without that it would stop the whole machine when it does not read.
            if peer.as_ref().is_some_and(|p| p.set_nonblocking(true).is_err()) {
                *peer = None;
            }
        }
        let room = MAX_INPUT - self.pending.len();
        let mut buffer = [0; MAX_INPUT];
        let result = match &mut self.end {
            End::Unix { peer: Some(peer), .. } if room > 0 => peer.read(&mut buffer[..room]),
            End::Pipe { input, .. } if room > 0 => input.read(&mut buffer[..room]),
            _ => return,
        };
        match result {
            Ok(0) => self.hang_up(),
            Ok(n) => self.pending.extend(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.hang_up(),
        }
    }

    fn write_outside(&mut self) {
        while !self.waiting.is_empty() {
            let (bytes, _) = self.waiting.as_slices();
            let result = match &mut self.end {
                End::Unix { peer: Some(peer), .. } => peer.write(bytes),
                End::Pipe { output, .. } => output.write(bytes),
                End::File(file) => file.write(bytes),
                End::Null | End::Unix { peer: None, .. } => Ok(bytes.len()),
            };
            match result {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    if matches!(self.end, End::File(_)) {
                        say(&format!(
                            "{}: its file can't be written: {e}; the rest of its output is lost there",
                            self.name
                        ));
                        self.end = End::Null;
                    }
                    self.hang_up();
                }
            }
        }
    }

    /// The peer is gone; another may come.
    fn hang_up(&mut self) {
        if let End::Unix { peer, .. } = &mut self.end {
            *peer = None;
        }
        self.waiting.clear();
    }

    /// At the machine's end: the last of the output.
    pub(crate) fn finish(&mut self) {
        while let Some(data) = self.drain.next() {
            self.waiting.extend(data);
        }
        self.write_outside();
    }
}

#[cfg(test)]
mod tests {
    use reprise_backends::{Backend as _, Input, Stream};

    use super::*;

    #[test]
    fn what_can_be_said() {
        let arg = |to| Ok(SerialArg { device: "uart1".into(), port: None, to });
        assert_eq!(parse("uart1=null"), arg(Outside::Null));
        assert_eq!(parse("uart1=unix:/tmp/a=b:c"), arg(Outside::Unix("/tmp/a=b:c".into())));
        assert_eq!(parse("uart1=pipe:p"), arg(Outside::Pipe("p".into())));
        assert_eq!(parse("uart1=file:out.txt"), arg(Outside::File("out.txt".into())));
        let port = |port: &str, to| Ok(SerialArg { device: "con0".into(), port: Some(port.into()), to });
        assert_eq!(parse("con0.org.reprise.0=pipe:p"), port("org.reprise.0", Outside::Pipe("p".into())));
        assert_eq!(parse("con0.a=b=file:c=null"), port("a=b", Outside::File("c=null".into())));
        assert_eq!(parse("con0.=a==null"), port("=a=", Outside::Null));
        for (text, says) in [
            ("uart1", "`uart1` names no device; say NAME=unix:PATH"),
            ("=null", "`=null` names no device"),
            (".log=null", "`.log=null` names no device"),
            ("con0.=null", "`con0.` names no port"),
            ("con0.log=tcp:1", "`tcp:1` is nowhere"),
            ("uart1=unix:", "`unix:` has no path"),
            ("uart1=tcp:1", "`tcp:1` is nowhere that a serial port can lead"),
            ("uart1=unix", "`unix` is nowhere"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    /// The line of a device with one port.
    fn open(name: &str, to: &Outside) -> io::Result<Line> {
        Line::open(0, name, None, to, true)
    }

    /// A device's backend at the other end of a line.
    fn device(line: &Line) -> Stream {
        let (input, output) = line.device();
        Stream::new(Some(input.try_clone_to_owned().unwrap()), output.try_clone_to_owned().unwrap())
    }

    #[test]
    fn a_socket_s_peers_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uart1");
        let mut line = open("uart1", &Outside::Unix(path.clone())).unwrap();
        assert!(open("uart2", &Outside::Unix(path.clone())).is_err(), "it is taken");
        let mut device = device(&line);
        device.write(b"nobody hears this");
        line.work();
        for text in ["one", "two"] {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.write_all(text.as_bytes()).unwrap();
            line.work();
            let mut got = Vec::new();
            assert_eq!((device.read(10, &mut got), got.as_slice()), (Input::Bytes(3), text.as_bytes()));
            device.write(text.as_bytes());
            line.work();
            let mut answer = [0; 3];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, text.as_bytes());
            drop(peer);
            line.work();
        }
        drop(line);
        assert!(!path.exists());
    }

    #[test]
    fn an_outside_that_does_not_read_loses_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let mut line = open("uart1", &Outside::Pipe(path.clone())).unwrap();
        let mut device = device(&line);
        let mut sent = 0_u64;
        while sent < 3 << 20 {
            let bytes: Vec<u8> = (sent..sent + 4096).map(|n| (n / 4096) as u8).collect();
            device.write(&bytes);
            line.work();
            device.flush();
            sent += 4096;
        }
        line.work();
        assert!(line.lost && line.waiting.len() <= MAX_OUTPUT);
        assert_eq!(line.waiting.back(), Some(&((sent / 4096 - 1) as u8)), "the newest is there");
        let mut other = OpenOptions::new().write(true).open(path.with_extension("in")).unwrap();
        other.write_all(b"x").unwrap();
        line.work();
        let mut got = Vec::new();
        assert_eq!((device.read(10, &mut got), got.as_slice()), (Input::Bytes(1), &b"x"[..]));
        // What was there already is used; what is none is refused.
        drop(line);
        open("uart1", &Outside::Pipe(path)).unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(plain.with_extension("in"), "").unwrap();
        assert!(open("uart1", &Outside::Pipe(plain)).unwrap_err().to_string().contains("it is no pipe"));
    }

    #[test]
    fn a_file_gets_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "of an earlier machine").unwrap();
        let mut line = open("uart1", &Outside::File(path.clone())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"of an earlier machine", "it has not started");
        line.begin().unwrap();
        let mut device = device(&line);
        device.write(b"first ");
        line.work();
        device.write(b"last");
        line.finish();
        assert_eq!(std::fs::read(&path).unwrap(), b"first last");
        drop(line);
        // After a reset of the machine.
        let mut line = Line::open(0, "uart1", None, &Outside::File(path.clone()), false).unwrap();
        line.begin().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first last");
        assert!(open("uart1", &Outside::File(dir.path().to_owned())).is_err());
    }
}
