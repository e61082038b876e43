//! Child processes: started with their descriptors in place, watched through pidfds, and gone with this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reprise_child::control::{Blame, Fd, FromChild, Start, ToChild};
use reprise_child::sandbox::VIOLATION_EXIT;
use reprise_child::{CONTROL_FD, ControlError, Peer};

/// What a child's exit says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    status: libc::c_int,
    /// CPU time of the process, in seconds.
    pub(crate) cpu_seconds: f64,
}

impl Exit {
    /// Somebody else ended it.
    pub(crate) fn killed(self) -> bool {
        libc::WIFSIGNALED(self.status) && libc::WTERMSIG(self.status) == libc::SIGKILL
    }

    pub(crate) fn success(self) -> bool {
        libc::WIFEXITED(self.status) && libc::WEXITSTATUS(self.status) == 0
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if libc::WIFSIGNALED(self.status) {
            let number = libc::WTERMSIG(self.status);
            match Signal::try_from(number) {
                Ok(signal) => write!(f, "was killed by {}", signal.as_str()),
                Err(_) => write!(f, "was killed by signal {number}"),
            }
        } else {
            match libc::WEXITSTATUS(self.status) {
                VIOLATION_EXIT => f.write_str("made a system call that its sandbox forbids"),
                code => write!(f, "exited with {code}"),
            }
        }
    }
}

/// A descriptor to be inherited: which, and under which number.
#[derive(Debug)]
pub(crate) struct Inherited {
    from: OwnedFd,
    to: Fd,
}

/// The descriptors of a child, numbered from 4 on.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    list: Vec<Inherited>,
}

impl Descriptors {
    /// Adds one; its number in the child.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>) -> io::Result<Fd> {
        assert!(self.list.len() < MAX_INHERITED, "a child inherits few descriptors");
        // Out of the way of the numbers that the child will use.
        let from = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100))?;
        let to = CONTROL_FD + 1 + self.list.len() as Fd;
        // SAFETY: fcntl has just made it, and nobody else knows it.
        self.list.push(Inherited { from: unsafe { OwnedFd::from_raw_fd(from) }, to });
        Ok(to)
    }
}

/// Occupies the numbers that descriptors get in a child. `Command` has a pipe of its own on which it hears that exec failed; with these
/// numbers taken it gets a higher one, and `dup2` in the child doesn't close it.
pub(crate) fn reserve_numbers() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    loop {
        let fd = nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(CONTROL_FD))?;
        if fd > CONTROL_FD + MAX_INHERITED as Fd {
            // SAFETY: fcntl has just made it, and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            return Ok(());
        }
    }
}

/// How long a killed process may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// The most descriptors that a child inherits besides the control socket.
const MAX_INHERITED: usize = 80;

/// What a process is doing, by its main thread's word (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs, or would.
    Running,
    /// It waits for something that will come by itself, such as a disk.
    Waiting,
    /// It sleeps until something happens.
    Sleeping,
    /// A signal or a debugger holds it.
    Stopped,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activity {
    pub(crate) state: State,
    /// CPU time of all its threads.
    pub(crate) cpu: Duration,
}

impl Activity {
    fn parse(stat: &str) -> Option<Self> {
        // The name before may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = match fields.next()? {
            "R" => State::Running,
            "S" | "I" => State::Sleeping,
            "T" | "t" => State::Stopped,
            _ => State::Waiting,
        };
        // Fields 14 and 15, counted from the number; these begin with field 3.
        let ticks: u64 = [fields.nth(10)?, fields.next()?].iter().filter_map(|t| t.parse::<u64>().ok()).sum();
        Some(Self { state, cpu: Duration::from_millis(ticks * 1000 / TICKS) })
    }
}

/// USER_HZ, in which Linux gives CPU time.
const TICKS: u64 = 100;

/// A running child.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its name in messages.
    pub(crate) name: String,
    pid: Pid,
    pidfd: OwnedFd,
    peer: Peer,
    /// The socket gave an end or an error; what was said before is read.
    closed: bool,
    exit: Option<Exit>,
}

impl Running {
    /// Starts a program, without a start message yet.
    pub(crate) fn spawn(program: &Path, name: &str, descriptors: Descriptors) -> anyhow::Result<Self> {
        let (peer, theirs) = reprise_child::pair().context("socketpair")?;
        let mut inherit: Vec<(OwnedFd, RawFd)> = descriptors.list.into_iter().map(|d| (d.from, d.to)).collect();
        let control = nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100)).context("dup")?;
        // SAFETY: fcntl has just made it, and nobody else knows it.
        inherit.push((unsafe { OwnedFd::from_raw_fd(control) }, CONTROL_FD));
        let numbers: Vec<(RawFd, RawFd)> = inherit.iter().map(|(from, to)| (from.as_raw_fd(), *to)).collect();
        let parent = std::process::id();
        let mut command = Command::new(program);
        command.arg0(format!("{} [{name}]", program.file_name().unwrap_or_default().to_string_lossy()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec only async-signal-safe system calls are made, on memory that was allocated before.
        unsafe { command.pre_exec(move || prepare(&numbers, parent)) };
        let child = command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        let pid = Pid::from_raw(child.id() as i32);
        let pidfd =
            pidfd_open(pid).inspect_err(|_| kill(pid, Signal::SIGKILL).unwrap_or_default()).context("pidfd_open")?;
        Ok(Self { name: name.to_owned(), pid, pidfd, peer, closed: false, exit: None })
    }

    /// Its number, for people.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends the start message.
    pub(crate) fn start(&self, start: Start) -> Result<(), ControlError> {
        self.send(&ToChild::Start(Box::new(start)))
    }

    /// Sends a message with a descriptor.
    pub(crate) fn send_with(&self, message: &ToChild, fd: BorrowedFd<'_>) -> Result<(), ControlError> {
        self.peer.send_with(message, fd)
    }

    /// Sends a message. That the child is gone is no error: its exit says so.
    pub(crate) fn send(&self, message: &ToChild) -> Result<(), ControlError> {
        match self.peer.send(message) {
            Err(ControlError::Closed) => Ok(()),
            other => other,
        }
    }

    /// The next message, if one is there. A child that sends nonsense gets no more hearing.
    pub(crate) fn receive(&mut self) -> Option<FromChild> {
        if self.closed {
            return None;
        }
        match self.peer.try_receive() {
            Ok(message) => message,
            Err(ControlError::Closed) => {
                self.closed = true;
                None
            }
            Err(e) => {
                self.closed = true;
                Some(FromChild::Fatal { text: format!("{}: {e}", self.name), blame: Blame::Other })
            }
        }
    }

    /// What to poll: the socket as long as it is open, and the pidfd as long as the process lives.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let socket = (!self.closed).then(|| self.peer.as_fd());
        let process = self.exit.is_none().then(|| self.pidfd.as_fd());
        socket.into_iter().chain(process)
    }

    /// What it is doing, unless it is gone.
    pub(crate) fn activity(&self) -> Option<Activity> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        Activity::parse(&stat)
    }

    /// How it ended, if it did.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Looks whether it has ended; true if that is news.
    pub(crate) fn reap(&mut self) -> bool {
        if self.exit.is_some() {
            return false;
        }
        self.exit = wait4(self.pid);
        self.exit.is_some()
    }

    /// Kills it, if it lives, and does not wait for that.
    pub(crate) fn put_down(&self) {
        if self.exit.is_none() {
            // Not waited for yet, so the number is still its own.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Kills it, if it lives, and waits for that; not for ever, as a debugger may hold what is dead.
    pub(crate) fn kill(&mut self) {
        if self.exit.is_none() {
            self.put_down();
            let deadline = Instant::now() + KILL_TIME;
            while !self.reap() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child, before exec.
fn prepare(numbers: &[(RawFd, RawFd)], parent: u32) -> io::Result<()> {
    // SAFETY: all calls are async-signal-safe and take numbers only.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() as u32 != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
        for &(from, to) in numbers {
            if libc::dup2(from, to) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made it; it is closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// How the child ended, if it did.
fn wait4(pid: Pid) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: all zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals.
        match unsafe { libc::wait4(pid.as_raw(), &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 => return None,
            n if n > 0 => return Some(Exit { status, cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime) }),
            _ if Errno::last() == Errno::EINTR => {}
            // No such child: somebody else has waited for it.
            _ => return Some(Exit { status: libc::SIGKILL, cpu_seconds: 0.0 }),
        }
    }
}

fn seconds(t: libc::timeval) -> f64 {
    t.tv_sec as f64 + t.tv_usec as f64 / 1e6
}

/// CPU time of this process, in seconds.
pub(crate) fn own_cpu_seconds() -> f64 {
    // SAFETY: all zero is a valid rusage, and the pointer is to a local.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
