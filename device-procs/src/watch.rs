//! The thread that waits for descriptors, so that the main thread can wait for its channel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use nix::sys::eventfd::{EfdFlags, EventFd};
use reprise_channel::Doorbell;

/// The control socket has a message.
pub(crate) const CONTROL: u32 = 1;
/// The backend has input.
pub(crate) const INPUT: u32 = 2;
/// The backend can write.
pub(crate) const OUTPUT: u32 = 4;

#[derive(Debug)]
struct Shared {
    bell: Doorbell,
    /// What the main thread waits for. A thing that is ready is taken out, so that it is not seen again before it is dealt with.
    wanted: AtomicU32,
    /// What is ready.
    ready: AtomicU32,
    /// Gets the thread out of `poll` when `wanted` has grown.
    wake: EventFd,
    fds: [RawFd; 3],
}

/// The main thread's handle.
#[derive(Clone, Debug)]
pub(crate) struct Watcher(Arc<Shared>);

impl Watcher {
    /// Starts the thread. It allocates nothing, and ends with the process.
    pub(crate) fn start(control: RawFd, input: Option<RawFd>, output: Option<RawFd>) -> io::Result<Self> {
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared {
            bell: Doorbell::new(),
            wanted: AtomicU32::new(0),
            ready: AtomicU32::new(0),
            wake,
            fds: [control, input.unwrap_or(-1), output.unwrap_or(-1)],
        });
        let theirs = shared.clone();
        // What the runtime does when a thread starts, the sandbox denies: it is over before this returns.
        let started = Arc::new(Barrier::new(2));
        let start = started.clone();
        std::thread::Builder::new().name("watch".into()).stack_size(64 << 10).spawn(move || {
            start.wait();
            theirs.run();
        })?;
        started.wait();
        Ok(Self(shared))
    }

    /// The bell that rings when something is ready.
    pub(crate) fn bell(&self) -> &Doorbell {
        &self.0.bell
    }

    /// Waits for these too.
    pub(crate) fn want(&self, what: u32) {
        if self.0.wanted.fetch_or(what, Ordering::SeqCst) & what != what {
            // It can only fail when the counter is full, and then the thread is awake.
            let _ = self.0.wake.write(1);
        }
    }

    /// What became ready since the last call.
    #[inline]
    pub(crate) fn take_ready(&self) -> u32 {
        if self.0.ready.load(Ordering::Relaxed) == 0 { 0 } else { self.0.ready.swap(0, Ordering::SeqCst) }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let wanted = self.wanted.load(Ordering::SeqCst);
            let ready = self.poll(wanted);
            if ready != 0 {
                self.wanted.fetch_and(!ready, Ordering::SeqCst);
                self.ready.fetch_or(ready, Ordering::SeqCst);
                self.bell.ring();
            }
        }
    }

    /// Waits until one of the wanted descriptors is ready, or is closed or broken, or something else is wanted.
    fn poll(&self, wanted: u32) -> u32 {
        let slot = |i: usize, bit: u32, events| {
            // `poll` ignores a negative descriptor.
            let fd = if wanted & bit != 0 { self.fds[i] } else { -1 };
            libc::pollfd { fd, events, revents: 0 }
        };
        let wake = libc::pollfd { fd: self.wake.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds =
            [wake, slot(0, CONTROL, libc::POLLIN), slot(1, INPUT, libc::POLLIN), slot(2, OUTPUT, libc::POLLOUT)];
        // SAFETY: the array is valid for its length during the call.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if n < 0 {
            return 0;
        }
        if fds[0].revents != 0 {
            // Resets the counter; it may have been reset already.
            let _ = self.wake.read();
        }
        let bits = [CONTROL, INPUT, OUTPUT];
        fds[1..].iter().zip(bits).filter(|(fd, _)| fd.revents != 0).fold(0, |all, (_, bit)| all | bit)
    }
}
