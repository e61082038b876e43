//! What the tests of the process share.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

/// No wait in these tests is longer.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Compiles a plugin in C.
pub(crate) fn compile(dir: &Path, source: &Path, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = dir.join(name);
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(cc);
    command.args(["-std=c11", "-O1", "-shared", "-fPIC", "-I"]).arg(root.join("sdk/include")).arg("-o").arg(&out);
    assert!(command.arg(root.join(source)).status().unwrap().success());
    out
}

/// A descriptor that a child inherits, above the ones that have fixed numbers.
pub(crate) fn inheritable(fd: impl AsFd) -> OwnedFd {
    let raw = fcntl(fd, FcntlArg::F_DUPFD(64)).unwrap();
    // SAFETY: the number was just made for us.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// A packet socket; the process's end doesn't block.
pub(crate) fn packets() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    fcntl(&theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    (ours, theirs)
}

/// The process, with its end of the control socket.
pub(crate) fn spawn(control: &OwnedFd) -> Child {
    let raw: RawFd = control.as_raw_fd();
    let mut command = Command::new(env!("CARGO_BIN_EXE_device-proc"));
    // SAFETY: dup2 is async-signal-safe, and both numbers are valid there.
    unsafe {
        command.pre_exec(move || if libc::dup2(raw, 3) == 3 { Ok(()) } else { Err(std::io::Error::last_os_error()) });
    }
    command.spawn().unwrap()
}

/// Waits for the process's end.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}
