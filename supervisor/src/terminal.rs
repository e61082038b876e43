//! The terminal: raw mode while a guest has it, the escape key, and the bytes between it and the guest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use reprise_backends::stream;

use crate::sender::Sender;

/// The terminal's mode before it was made raw; none while it isn't.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// `Ctrl-a`.
const ESCAPE: u8 = 1;

const HELP: &str = "\
Ctrl-a x       end the machine (a recording is completed)
Ctrl-a h       this help
Ctrl-a Ctrl-a  send Ctrl-a to the guest";

/// A message for the user, on stderr.
pub(crate) fn say(text: &str) {
    let raw = BEFORE.lock().is_ok_and(|before| before.is_some());
    let mut err = io::stderr().lock();
    for line in text.lines() {
        // A raw terminal doesn't return the carriage by itself. Nobody is left to tell if stderr is gone.
        let _ = if raw { write!(err, "\rsupervisor: {line}\r\n") } else { writeln!(err, "supervisor: {line}") };
    }
}

/// Where `tracing` writes.
pub(crate) fn stderr() -> impl Write {
    struct Raw;
    impl Write for Raw {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let raw = BEFORE.lock().is_ok_and(|before| before.is_some());
            let mut err = io::stderr().lock();
            match raw {
                true => err.write_all(&String::from_utf8_lossy(bytes).replace('\n', "\r\n").into_bytes())?,
                false => err.write_all(bytes)?,
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            io::stderr().flush()
        }
    }
    Raw
}

/// Gives the terminal back before a panic's message.
pub(crate) fn restore_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        default(info);
    }));
}

fn restore() {
    // A poisoned lock still holds the mode.
    let mut before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(mode) = before.take() {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &mode);
    }
}

/// Raw mode of stdin; dropping it restores what was.
#[derive(Debug)]
struct RawMode;

impl RawMode {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        *BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        let guard = Self;
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(guard)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Are stdin and stdout a terminal that this process may use?
pub(crate) fn interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && foreground()
}

/// Is this process in the terminal's foreground? A terminal that doesn't control this session has no job control to care about.
fn foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).map_or(true, |group| group == nix::unistd::getpgrp())
}

/// What the user asks the supervisor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `Ctrl-a x`.
    Quit,
    /// `Ctrl-a h`.
    Help,
}

/// Tells the escape sequences from the guest's bytes.
#[derive(Debug, Default)]
struct EscapeFilter {
    escaped: bool,
}

impl EscapeFilter {
    fn feed(&mut self, bytes: &[u8], guest: &mut VecDeque<u8>) -> Vec<Request> {
        let mut requests = Vec::new();
        for &byte in bytes {
            match (std::mem::take(&mut self.escaped), byte) {
                (false, ESCAPE) => self.escaped = true,
                // A guest that takes nothing must not keep `Ctrl-a x` from being seen: what is too much for it is lost.
                (false, byte) | (true, byte @ ESCAPE) if guest.len() < MAX_PENDING => guest.push_back(byte),
                (true, b'x' | b'X') => requests.push(Request::Quit),
                (true, b'h' | b'H' | b'?') => requests.push(Request::Help),
                _ => {}
            }
        }
        requests
    }
}

/// The user's end of the console. It outlives a machine that is restarted.
#[derive(Debug)]
pub(crate) struct Terminal {
    raw: Option<RawMode>,
    filter: EscapeFilter,
    /// Bytes that the guest's console hasn't taken yet.
    pending: VecDeque<u8>,
    /// stdin may still give something.
    open: bool,
}

/// The most input that waits for the guest.
const MAX_PENDING: usize = 4096;

impl Terminal {
    /// `input`: the guest takes input. A terminal then gets raw.
    pub(crate) fn new(input: bool) -> io::Result<Self> {
        let raw = if input && interactive() { Some(RawMode::enter()?) } else { None };
        // A terminal in the background would stop the process at the first read.
        let open = input && (foreground() || !io::stdin().is_terminal());
        Ok(Self { raw, filter: EscapeFilter::default(), pending: VecDeque::new(), open })
    }

    /// Does it make sense to poll stdin? `taken`: the guest still has a console to take it. A raw terminal is always read, for its escape key.
    pub(crate) fn wants_input(&self, taken: bool) -> bool {
        self.open && (self.raw.is_some() || taken && self.pending.len() < MAX_PENDING)
    }

    /// Is there anything for the guest?
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// No more input will come, and none waits.
    pub(crate) fn exhausted(&self) -> bool {
        !self.open && self.pending.is_empty()
    }

    /// Reads what stdin has.
    pub(crate) fn read_input(&mut self) -> Vec<Request> {
        let mut buffer = [0; 1024];
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => self.open = false,
            Ok(n) if self.raw.is_some() => {
                let requests = self.filter.feed(&buffer[..n], &mut self.pending);
                if requests.contains(&Request::Help) {
                    say(HELP);
                }
                return requests;
            }
            Ok(n) => self.pending.extend(&buffer[..n]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.open = false,
        }
        Vec::new()
    }
}

/// The guest's end of the console: packet sockets to and from the device's process (see [`reprise_backends::stream`]), which may be killed and have a
/// successor at any time; or, for a replay without devices, a pipe from the log daemon.
#[derive(Debug)]
pub(crate) struct GuestConsole {
    input: Sender,
    output: Option<File>,
    /// Output comes in packets.
    packets: bool,
    /// Bytes of output that were passed on.
    shown: u64,
    /// stdout takes nothing at the moment.
    blocked: bool,
}

/// The ends of the console that the device's process gets.
#[derive(Debug)]
pub(crate) struct ChildConsole {
    /// Bytes from the user; none in a replay.
    pub(crate) input: Option<OwnedFd>,
    /// Bytes to the user.
    pub(crate) output: OwnedFd,
}

/// Makes the console's ends. stdin and stdout stay this process's own: whoever has a terminal's descriptor can read the user's keys, and what a killed process has
/// written to a pipe nobody knows. `device`: the other end is a device's process, not the log daemon.
pub(crate) fn console(input: bool, device: bool) -> io::Result<(GuestConsole, ChildConsole)> {
    let mut ours = GuestConsole { input: Sender::default(), output: None, packets: device, shown: 0, blocked: false };
    let pair = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
    };
    let mut theirs = None;
    if input {
        let (mine, other) = pair()?;
        ours.input = Sender::new(Some(mine));
        theirs = Some(other);
    }
    let (mine, output) = if device { pair()? } else { nix::unistd::pipe2(OFlag::O_CLOEXEC)? };
    fcntl(&mine, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    ours.output = Some(mine.into());
    Ok((ours, ChildConsole { input: theirs, output }))
}

impl GuestConsole {
    /// The descriptor that takes the guest's input, if it is open.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.fd()
    }

    /// What to wait for before [`Self::read_output`] is called again: output to read, or stdout to take it.
    pub(crate) fn output(&self) -> Option<(RawFd, PollFlags)> {
        let output = self.output.as_ref()?;
        Some(match self.blocked {
            true => (io::stdout().as_raw_fd(), PollFlags::POLLOUT),
            false => (output.as_raw_fd(), PollFlags::POLLIN),
        })
    }

    /// A new process serves the console: it gets the last of the input once more.
    pub(crate) fn repeat(&mut self) {
        self.input.repeat();
    }

    /// Is there input to be sent once more?
    pub(crate) fn repeats(&self) -> bool {
        self.input.repeats()
    }

    /// Hands on what input waits.
    pub(crate) fn write_input(&mut self, terminal: &mut Terminal) {
        self.input.send(&mut terminal.pending);
        if terminal.exhausted() && !self.input.repeats() {
            self.input.close();
        }
    }

    /// Passes a piece of the guest's output on to stdout, if stdout takes it. Returns whether there was any.
    pub(crate) fn read_output(&mut self) -> bool {
        let Some(output) = &mut self.output else { return false };
        let stdout = io::stdout();
        // A pipe that is ready takes a piece without blocking (POSIX: `PIPE_BUF`).
        let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        self.blocked = matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0));
        if self.blocked {
            return false;
        }
        let mut buffer = [0; stream::HEADER + stream::PIECE];
        let room = if self.packets { buffer.len() } else { stream::PIECE };
        match output.read(&mut buffer[..room]) {
            Ok(0) => self.output = None,
            Ok(n) => {
                let data = match self.packets {
                    true => stream::new_part(&buffer[..n], self.shown).unwrap_or_default(),
                    false => &buffer[..n],
                };
                self.shown += data.len() as u64;
                let mut out = stdout.lock();
                // The guest goes on if the terminal is gone; SIGHUP ends the machine then.
                let _ = out.write_all(data).and_then(|()| out.flush());
                return true;
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.output = None,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(filter: &mut EscapeFilter, bytes: &[u8]) -> (Vec<u8>, Vec<Request>) {
        let mut guest = VecDeque::new();
        let requests = filter.feed(bytes, &mut guest);
        (guest.into(), requests)
    }

    #[test]
    fn escape_sequences_are_told_from_the_guests_bytes() {
        let mut filter = EscapeFilter::default();
        assert_eq!(feed(&mut filter, b"ab\x01\x01c"), (b"ab\x01c".to_vec(), vec![]));
        assert_eq!(feed(&mut filter, b"\x01"), (vec![], vec![]));
        assert_eq!(feed(&mut filter, b"xd"), (b"d".to_vec(), vec![Request::Quit]));
        assert_eq!(feed(&mut filter, b"\x01h\x01q\x03"), (b"\x03".to_vec(), vec![Request::Help]));
    }

    #[test]
    fn waiting_input_is_bounded() {
        let mut terminal =
            Terminal { raw: None, filter: EscapeFilter::default(), pending: VecDeque::new(), open: true };
        assert!(terminal.wants_input(true) && !terminal.wants_input(false));
        terminal.pending.extend(vec![0; MAX_PENDING]);
        assert!(!terminal.wants_input(true) && terminal.has_pending() && !terminal.exhausted());
        let mut guest = VecDeque::from(vec![0; MAX_PENDING]);
        assert_eq!(EscapeFilter::default().feed(b"a\x01x", &mut guest), [Request::Quit]);
        assert_eq!(guest.len(), MAX_PENDING);
    }
}
