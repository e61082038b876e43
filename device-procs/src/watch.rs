//! The thread that waits for descriptors, so that the main thread can wait for its channel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use nix::sys::eventfd::{EfdFlags, EventFd};
use reprise_channel::Doorbell;
use reprise_device::spec::limits;

/// The control socket has a message.
pub(crate) const CONTROL: u64 = 1;
/// The most descriptors: the control socket's, and two of each port's end.
const MAX_FDS: usize = 1 + 2 * limits::PORTS;

/// The `n`th end has input.
pub(crate) const fn input(n: usize) -> u64 {
    2 << (2 * n)
}

/// The `n`th end can write.
pub(crate) const fn output(n: usize) -> u64 {
    4 << (2 * n)
}

#[derive(Debug)]
struct Shared {
    bell: Doorbell,
    /// What the main thread waits for. A thing that is ready is taken out, so that it is not seen again before it is dealt with.
    wanted: AtomicU64,
    /// What is ready.
    ready: AtomicU64,
    /// Gets the thread out of `poll` when `wanted` has grown.
    wake: EventFd,
    /// The descriptor of each bit, or -1.
    fds: Vec<RawFd>,
}

/// The main thread's handle.
#[derive(Clone, Debug)]
pub(crate) struct Watcher(Arc<Shared>);

impl Watcher {
    /// Starts the thread for the control socket and the ends, each with descriptors for input and output. It allocates nothing, and ends with the process.
    pub(crate) fn start(control: RawFd, ends: &[(Option<RawFd>, Option<RawFd>)]) -> io::Result<Self> {
        assert!(ends.len() <= limits::PORTS, "a port has one end");
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let ends = ends.iter().flat_map(|(input, output)| [input, output]).map(|fd| fd.unwrap_or(-1));
        let shared = Arc::new(Shared {
            bell: Doorbell::new(),
            wanted: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            wake,
            fds: [control].into_iter().chain(ends).collect(),
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
    pub(crate) fn want(&self, what: u64) {
        if self.0.wanted.fetch_or(what, Ordering::SeqCst) & what != what {
            // It can only fail when the counter is full, and then the thread is awake.
            let _ = self.0.wake.write(1);
        }
    }

    /// What became ready since the last call.
    #[inline]
    pub(crate) fn take_ready(&self) -> u64 {
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
    fn poll(&self, wanted: u64) -> u64 {
        // `poll` ignores a negative descriptor.
        let mut fds = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 1 + MAX_FDS];
        let fds = &mut fds[..1 + self.fds.len()];
        (fds[0].fd, fds[0].events) = (self.wake.as_raw_fd(), libc::POLLIN);
        for (i, fd) in self.fds.iter().enumerate().filter(|(i, _)| wanted >> i & 1 == 1) {
            // The control socket and then, in turn, inputs and outputs.
            let writes = i > 0 && i % 2 == 0;
            (fds[1 + i].fd, fds[1 + i].events) = (*fd, if writes { libc::POLLOUT } else { libc::POLLIN });
        }
        // SAFETY: the array is valid for its length during the call.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if n < 0 {
            return 0;
        }
        if fds[0].revents != 0 {
            // Resets the counter; it may have been reset already.
            let _ = self.wake.read();
        }
        fds[1..].iter().enumerate().filter(|(_, fd)| fd.revents != 0).fold(0, |all, (i, _)| all | 1 << i)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::unistd::{pipe, write};

    use super::*;

    /// What is ready, when something is.
    fn next(watcher: &Watcher) -> u64 {
        loop {
            match watcher.take_ready() {
                0 => std::thread::sleep(Duration::from_millis(1)),
                ready => return ready,
            }
        }
    }

    #[test]
    fn the_ends_of_all_ports_are_told_apart() {
        let pipes: Vec<_> = (0..limits::PORTS).map(|_| (pipe().unwrap(), pipe().unwrap())).collect();
        let control = pipe().unwrap();
        let fds = pipes.iter().map(|(from, to)| (Some(from.0.as_raw_fd()), Some(to.1.as_raw_fd())));
        let watcher = Watcher::start(control.0.as_raw_fd(), &fds.collect::<Vec<_>>()).unwrap();
        let mut seen = 0;
        for (n, (from, _)) in pipes.iter().enumerate() {
            watcher.want(CONTROL | input(n));
            write(&from.1, b"x").unwrap();
            assert_eq!(next(&watcher), input(n));
            watcher.want(output(n));
            assert_eq!(next(&watcher), output(n));
            seen |= input(n) | output(n);
        }
        assert_eq!((seen.count_ones() as usize, seen & CONTROL), (2 * limits::PORTS, 0));
        write(&control.1, b"x").unwrap();
        assert_eq!(next(&watcher), CONTROL);
    }
}
