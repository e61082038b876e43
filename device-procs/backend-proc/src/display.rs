//! The machine's screens for people: a VNC server for viewers, pictures for files; and what viewers' users do, for the guest's keyboard and mouse.
//!
//! Guest memory is read by offset from a descriptor that can do nothing else, and only while somebody looks. What is read may be half drawn, as on any screen; the guest
//! can't tell.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, send};
use nix::sys::uio::pread;
use reprise_child::control::{DisplayStart, Fd, FromChild, InputTarget, ToChild};
use reprise_child::sandbox::{self, Stage};
use reprise_child::{Child, Control};
use reprise_display::keys::{self, Pointer};
use reprise_display::picture::View;
use reprise_display::rfb::{Event, Session};

const CONTROL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
/// Events that are taken at once.
const EVENTS: usize = 16;
/// Viewers at once.
const MAX_VIEWERS: usize = 8;
/// Between two looks at a picture that changes, and at one that does not.
const SOON: Duration = Duration::from_millis(33);
const LATER: Duration = Duration::from_millis(132);
/// The screen that viewers see: the first one that shows something.
fn watched(screens: &mut [View]) -> Option<&mut View> {
    let on = screens.iter().position(View::is_on).unwrap_or(0);
    screens.get_mut(on)
}

/// Bytes that are read from a viewer at once.
const PIECE: usize = 4096;

/// A viewer's connection.
#[derive(Debug)]
struct Viewer {
    socket: OwnedFd,
    session: Session,
    pointer: Pointer,
    /// It takes nothing at the moment.
    blocked: bool,
    /// The epoll tells when it does again.
    watched: bool,
}

/// Guest memory, to be looked at.
#[derive(Debug)]
struct Memory {
    ram: OwnedFd,
    base: u64,
    size: u64,
}

struct Server {
    control: Control,
    listener: Option<OwnedFd>,
    memory: Memory,
    screens: Vec<View>,
    viewers: BTreeMap<u64, Viewer>,
    next_viewer: u64,
    title: String,
    /// What viewers do reaches the guest.
    input: bool,
    /// When the picture is looked at next, if somebody waits for it.
    due: Instant,
    pause: Duration,
}

/// Shows the screens until the supervisor ends it.
///
/// # Errors
/// The system refuses what is needed at the start.
pub(crate) fn run(child: Child, start: &DisplayStart) -> anyhow::Result<()> {
    // SAFETY: the supervisor gave this process the descriptors for exactly this, and the start message is used once.
    let own = |fd: Fd| unsafe { OwnedFd::from_raw_fd(fd) };
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll")?;
    epoll.add(&child.control, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL)).context("epoll")?;
    let listener = start.listener.map(own);
    if let Some(listener) = &listener {
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER)).context("epoll")?;
    }
    let memory = Memory { ram: own(start.ram), base: start.ram_base, size: start.ram_size };
    let mut screens = Vec::new();
    for described in &start.screens {
        let mut view = View::default();
        view.describe(described);
        screens.push(view);
    }
    sandbox::enter(Stage::Attached, &child.policy())?;
    sandbox::enter(Stage::Loaded, &child.policy())?;
    child.control.ready(Vec::new(), None)?;
    let server = Server {
        control: child.control,
        listener,
        memory,
        screens,
        viewers: BTreeMap::new(),
        next_viewer: 0,
        title: start.title.clone(),
        input: start.input,
        due: Instant::now(),
        pause: SOON,
    };
    server.serve(&epoll)
}

impl Memory {
    /// Fills a buffer with memory from an address on; how much of it there was.
    fn read(&self, at: u64, buffer: &mut [u8]) -> usize {
        let Some(offset) = at.checked_sub(self.base).filter(|o| *o < self.size) else { return 0 };
        let mut got = 0;
        while got < buffer.len() {
            match pread(&self.ram, &mut buffer[got..], (offset + got as u64) as i64) {
                Ok(n) if n > 0 => got += n,
                Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        got
    }
}

impl Server {
    fn serve(mut self, epoll: &Epoll) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(e) => return Err(e).context("epoll"),
            };
            for event in &events[..count] {
                match event.data() {
                    CONTROL => {
                        if self.obey()? {
                            return Ok(());
                        }
                    }
                    LISTENER => self.accept(epoll),
                    id => self.hear(id, event.events())?,
                }
            }
            self.update();
            self.flush(epoll);
        }
    }

    /// Somebody waits for an update and could take it.
    fn is_watched(&self) -> bool {
        self.viewers.values().any(|v| v.session.waits() && !v.blocked)
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.is_watched() {
            return EpollTimeout::NONE;
        }
        let left = self.due.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    /// Does what the supervisor says; true if that is to exit.
    fn obey(&mut self) -> anyhow::Result<bool> {
        match self.control.try_receive()? {
            Some(ToChild::Exit) => return Ok(true),
            Some(ToChild::Go) | None => {}
            Some(ToChild::Screen { screen, described }) => {
                if let Some(view) = self.screens.get_mut(usize::from(screen)) {
                    view.describe(&described);
                    self.pause = SOON;
                }
                self.control.send(&FromChild::Shown)?;
            }
            Some(ToChild::Shoot { screen }) => {
                let memory = &self.memory;
                let shot = match self.screens.get_mut(usize::from(screen)) {
                    Some(view) => view.look(|at, buffer| memory.read(at, buffer)).to_png().map_err(|e| e.to_string()),
                    None => Err("there is no such screen".into()),
                };
                self.control.send(&FromChild::Shot { shot })?;
            }
            Some(other) => anyhow::bail!("a display takes no {other:?}"),
        }
        Ok(false)
    }

    fn accept(&mut self, epoll: &Epoll) {
        let Some(listener) = &self.listener else { return };
        let Ok(fd) = accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) else { return };
        // SAFETY: accept has just made it, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let id = self.next_viewer;
        if self.viewers.len() >= MAX_VIEWERS || epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, id)).is_err() {
            return;
        }
        self.next_viewer += 1;
        let memory = &self.memory;
        let Some(view) = watched(&mut self.screens) else { return };
        let picture = view.look(|at, buffer| memory.read(at, buffer));
        let session = Session::new(&self.title, picture.width, picture.height());
        self.viewers
            .insert(id, Viewer { socket, session, pointer: Pointer::default(), blocked: false, watched: false });
    }

    /// A viewer has said something, can take something, or is gone.
    fn hear(&mut self, id: u64, flags: EpollFlags) -> anyhow::Result<()> {
        let Some(viewer) = self.viewers.get_mut(&id) else { return Ok(()) };
        if flags.contains(EpollFlags::EPOLLOUT) {
            viewer.blocked = false;
        }
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return Ok(());
        }
        let mut buffer = [0; PIECE];
        let mut events = Vec::new();
        let gone = match nix::unistd::read(&viewer.socket, &mut buffer) {
            Ok(n) if n > 0 => match viewer.session.feed(&buffer[..n], &mut events) {
                Ok(()) => false,
                Err(e) => {
                    tracing::info!("a viewer is sent away: {e}");
                    true
                }
            },
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            _ => true,
        };
        for event in events {
            self.act(id, event)?;
        }
        if gone {
            self.viewers.remove(&id);
        }
        Ok(())
    }

    /// Passes on what a viewer's user has done.
    fn act(&mut self, id: u64, event: Event) -> anyhow::Result<()> {
        let Some(viewer) = self.viewers.get_mut(&id).filter(|_| self.input) else { return Ok(()) };
        self.pause = SOON;
        let (to, events) = match event {
            Event::Key { down, symbol, scan_code } => {
                let code = scan_code.and_then(keys::of_scan_code).or_else(|| keys::of_symbol(symbol));
                (InputTarget::Keyboard, code.map(|code| keys::key(code, down).to_vec()).unwrap_or_default())
            }
            Event::Pointer { buttons, x, y } => (InputTarget::Mouse, viewer.pointer.events(buttons, x, y)),
        };
        if !events.is_empty() {
            self.control.send(&FromChild::Input { to, events })?;
        }
        Ok(())
    }

    /// Looks at the picture if it is time to, and gives the viewers that wait what has changed.
    fn update(&mut self) {
        let now = Instant::now();
        if !self.is_watched() || now < self.due {
            return;
        }
        let memory = &self.memory;
        let Some(view) = watched(&mut self.screens) else { return };
        let picture = view.look(|at, buffer| memory.read(at, buffer));
        let mut any = false;
        for viewer in self.viewers.values_mut().filter(|v| !v.blocked) {
            any |= viewer.session.update(picture);
        }
        self.pause = if any { SOON } else { (self.pause * 2).min(LATER) };
        self.due = now + self.pause;
    }

    /// Sends what there is to send.
    fn flush(&mut self, epoll: &Epoll) {
        self.viewers.retain(|&id, viewer| {
            while !viewer.blocked && !viewer.session.output().is_empty() {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                match send(viewer.socket.as_raw_fd(), viewer.session.output(), flags) {
                    Ok(n) => drop(viewer.session.output().drain(..n)),
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => viewer.blocked = true,
                    Err(_) => return false,
                }
            }
            let changed = std::mem::replace(&mut viewer.watched, viewer.blocked) != viewer.blocked;
            let out = if viewer.blocked { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            !changed || epoll.modify(&viewer.socket, &mut EpollEvent::new(EpollFlags::EPOLLIN | out, id)).is_ok()
        });
    }
}
