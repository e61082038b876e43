//! What people see and do: the wires to displays, keyboards, mice and power keys, and the process that shows the screens.
//!
//! A display says over its wire where its picture is; the last it said is kept here, for a process that shows it, which may be killed and have a successor at any
//! time, or begin late. What people do goes over the wires of the other devices, from viewers and from operators alike.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use reprise_backends::stream;
use reprise_child::control::{
    BackendProcStart, BackendRole, BackendStart, DisplayStart, InputTarget, LogConsole, Mode, Start, ToChild,
};
use reprise_child::operator::Answer;
use reprise_device::screen::Screen;
use reprise_display::keys;
use reprise_machine::Backend;

use super::{Role, Session};
use crate::children::{Descriptors, Running};
use crate::failure::Failure;
use crate::net;
use crate::sender::Sender;
use crate::terminal::say;

/// The most that waits for a device, in bytes. What is too much for it is lost.
const MAX_PENDING: usize = 64 << 10;
/// How long the process that shows screens may take to start, and to take a picture.
const SHOT_TIME: Duration = Duration::from_secs(20);
/// The pin of the power key.
const POWER_PIN: u8 = 3;

/// A device's wire to people.
#[derive(Debug)]
struct Wire {
    backend: Backend,
    input: Sender,
    /// Input that was not sent yet.
    pending: VecDeque<u8>,
    output: Option<File>,
    /// Output comes in packets, from a device's process; else as it is, from the log daemon.
    packets: bool,
    /// Bytes of output that were taken.
    taken: u64,
    /// The ends for the device's process, whichever it is.
    theirs_in: Option<OwnedFd>,
    theirs_out: OwnedFd,
    screen: Screen,
    /// The process that shows it has not been told yet.
    news: bool,
}

impl Wire {
    fn new(backend: Backend, mode: Mode) -> io::Result<Self> {
        let pair = || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        };
        let (output, theirs_out) = if mode.has_devices() { pair()? } else { nix::unistd::pipe2(OFlag::O_CLOEXEC)? };
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (ours, theirs_in) = match backend {
            Backend::Display => (None, None),
            _ => pair().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
        };
        Ok(Self {
            backend,
            input: Sender::new(ours),
            pending: VecDeque::new(),
            output: Some(output.into()),
            packets: mode.has_devices(),
            taken: 0,
            theirs_in,
            theirs_out,
            screen: Screen::default(),
            news: false,
        })
    }

    fn takes(&self, to: InputTarget) -> bool {
        matches!(
            (self.backend, to),
            (Backend::Keyboard, InputTarget::Keyboard)
                | (Backend::Mouse, InputTarget::Mouse)
                | (Backend::PowerKey, InputTarget::PowerKey)
        )
    }

    /// Takes all output that there is. What keyboards say of their LEDs nobody wants to know.
    fn read(&mut self) {
        let mut buffer = [0; stream::HEADER + stream::PIECE];
        while let Some(output) = &mut self.output {
            match output.read(&mut buffer) {
                Ok(n) if n > 0 => {
                    let data = match self.packets {
                        true => stream::new_part(&buffer[..n], self.taken).unwrap_or_default(),
                        false => &buffer[..n],
                    };
                    self.taken += data.len() as u64;
                    if self.backend == Backend::Display {
                        self.news |= self.screen.feed(data);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.output = None,
            }
        }
    }
}

/// The process that shows the screens.
#[derive(Debug, Default)]
struct Shower {
    /// It has not answered the last it was told of a screen.
    busy: bool,
    /// The picture that it was asked for.
    shot: Option<Result<Vec<u8>, String>>,
}

/// All of it for one machine.
#[derive(Debug, Default)]
pub(super) struct People {
    /// In the machine's order of devices.
    wires: Vec<Option<Wire>>,
    /// Guest memory, to be read.
    ram: Option<OwnedFd>,
    shower: Shower,
}

impl People {
    /// Lays the wire of the next device.
    pub(super) fn lay(&mut self, backend: Backend, mode: Mode) -> io::Result<()> {
        let wanted = match backend {
            Backend::Display => true,
            Backend::Keyboard | Backend::Mouse | Backend::PowerKey => !mode.is_replay(),
            _ => false,
        };
        self.wires.push(if wanted { Some(Wire::new(backend, mode)?) } else { None });
        Ok(())
    }

    /// What a device's process gets of its wire.
    pub(super) fn backend(&self, device: usize, descriptors: &mut Descriptors) -> io::Result<BackendStart> {
        let Some(wire) = self.wires.get(device).and_then(Option::as_ref) else { return Ok(BackendStart::Null) };
        let input = wire.theirs_in.as_ref().map(|fd| descriptors.add(fd.as_fd())).transpose()?;
        Ok(BackendStart::Console { input, output: descriptors.add(wire.theirs_out.as_fd())? })
    }

    /// The log daemon's ends of the displays' wires, in a replay without devices.
    pub(super) fn log_screens(&self, descriptors: &mut Descriptors) -> io::Result<Vec<LogConsole>> {
        let wires = self.wires.iter().enumerate().filter_map(|(i, wire)| Some((i, wire.as_ref()?)));
        let screen = |(i, wire): (usize, &Wire)| {
            Ok(LogConsole { channel: i as u16, output: descriptors.add(wire.theirs_out.as_fd())? })
        };
        wires.map(screen).collect()
    }

    /// Another process serves the device.
    pub(super) fn repeat(&mut self, device: usize) {
        if let Some(wire) = &mut self.wires[device] {
            wire.input.repeat();
        }
    }

    /// Keeps a way to look at guest memory, if there is a screen whose picture lies there.
    pub(super) fn keep_ram(&mut self, ram: BorrowedFd<'_>) -> io::Result<()> {
        if self.displays().next().is_some() {
            // Opened anew, as a descriptor's mode is that of its file: nothing can be written or mapped for writing through this one.
            let path = format!("/proc/self/fd/{}", ram.as_raw_fd());
            self.ram = Some(File::open(path)?.into());
        }
        Ok(())
    }

    fn displays(&self) -> impl Iterator<Item = (usize, &Wire)> {
        let wires = self.wires.iter().enumerate().filter_map(|(i, wire)| Some((i, wire.as_ref()?)));
        wires.filter(|(_, wire)| wire.backend == Backend::Display)
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.wires.iter().flatten().flat_map(|wire| {
            let waits = wire.input.repeats() || !wire.pending.is_empty();
            let input = wire.input.fd().filter(|_| waits).map(|fd| (fd, PollFlags::POLLOUT));
            let output = wire.output.as_ref().map(|file| (file.as_fd(), PollFlags::POLLIN));
            input.into_iter().chain(output)
        })
    }

    /// Takes and hands on what there is.
    pub(super) fn serve(&mut self) {
        for wire in self.wires.iter_mut().flatten() {
            wire.read();
            if wire.input.repeats() || !wire.pending.is_empty() {
                wire.input.send(&mut wire.pending);
            }
        }
    }

    /// Presses the power key, and lets it go. False if there is none.
    pub(super) fn power_key(&mut self) -> bool {
        self.act(InputTarget::PowerKey, &[POWER_PIN, 1, POWER_PIN, 0])
    }

    /// Somebody does something; false if the machine has no such device.
    pub(super) fn act(&mut self, to: InputTarget, events: &[u8]) -> bool {
        let mut any = false;
        for wire in self.wires.iter_mut().flatten().filter(|w| w.takes(to)) {
            any = true;
            if wire.pending.len() + events.len() <= MAX_PENDING {
                wire.pending.extend(events);
            }
        }
        any
    }

    /// The process that shows the screens has said that it knows a screen now.
    pub(super) fn shown(&mut self) {
        self.shower.busy = false;
    }

    /// It has taken a picture, or could not.
    pub(super) fn shot(&mut self, shot: Result<Vec<u8>, String>) {
        self.shower.shot = Some(shot);
    }
}

impl Session<'_> {
    /// Starts the process that shows the screens.
    pub(super) fn start_display(&mut self) -> Result<(), Failure> {
        let child = self.launch_display()?;
        self.adopt(Role::Display, child);
        Ok(())
    }

    pub(super) fn launch_display(&mut self) -> Result<Running, Failure> {
        let setup = self.setup;
        let mut descriptors = Descriptors::default();
        let ram = self.people.ram.as_ref().context("the machine has no display")?;
        let ram = descriptors.add(ram.as_fd()).context("dup")?;
        let listener = setup.listener.as_ref().map(|l| descriptors.add(l.as_fd())).transpose().context("dup")?;
        let start = DisplayStart {
            listener,
            screens: self.people.displays().map(|(_, wire)| wire.screen.to_bytes()).collect(),
            ram,
            ram_base: setup.machine.memory.base,
            ram_size: setup.machine.memory.size,
            input: !setup.mode.is_replay(),
            title: setup.machine.name.clone(),
        };
        self.people.wires.iter_mut().flatten().for_each(|w| w.news = false);
        // Whoever waits for a picture of the one before hears that there is none.
        self.people.shower = Shower { busy: false, shot: self.people.shower.shot.take() };
        let common = setup.common("display", usize::MAX);
        let start = Start::BackendProc(BackendProcStart { common, role: BackendRole::Display(start) });
        self.launch(net::PROGRAM, "display", descriptors, start)
    }

    /// Tells it what has changed, one screen at a time: a process that doesn't listen can't hold anybody up.
    pub(super) fn tell_display(&mut self) {
        if self.people.shower.busy || self.ready_of(Role::Display).is_none() {
            return;
        }
        let news = self.people.displays().position(|(_, wire)| wire.news);
        let Some(screen) = news else { return };
        let wire = self.people.wires.iter_mut().flatten().filter(|w| w.backend == Backend::Display).nth(screen);
        let Some(wire) = wire else { return };
        wire.news = false;
        let described = wire.screen.to_bytes();
        self.people.shower.busy = true;
        self.send(Role::Display, &ToChild::Screen { screen: screen as u16, described });
    }

    /// It has died: viewers connect anew to another one.
    pub(super) fn display_died(&mut self, place: usize, how: &str) {
        // Whoever waits for a picture gets none.
        self.people.shot(Err(format!("the process that takes pictures {how}")));
        let viewers = self.setup.listener.is_some();
        if viewers && self.plan_successor(Role::Display) {
            return;
        }
        if viewers && !self.leaving && self.trouble.is_none() {
            say("the process of display dies again and again: the screen is not shown any more, the machine goes on");
        }
        self.children[place].0 = Role::Retired;
    }

    /// Writes what a screen shows to a file.
    ///
    /// # Errors
    /// Why there is no picture, and what to do.
    pub(super) fn screendump(&mut self, device: Option<&str>, file: &Path) -> Result<(), String> {
        let machine = &self.setup.machine;
        let names: Vec<&str> = self.people.displays().map(|(i, _)| machine.devices[i].name.as_str()).collect();
        let screen = match device {
            _ if names.is_empty() => return Err("the machine has no display".into()),
            None => 0,
            Some(name) => names
                .iter()
                .position(|n| *n == name)
                .ok_or_else(|| format!("there is no display {name:?}; the machine has {}", names.join(", ")))?,
        };
        let deadline = Instant::now() + SHOT_TIME;
        self.people.shower.shot = None;
        if self.place(Role::Display).is_none() {
            self.start_display().map_err(|e| e.to_string())?;
        }
        self.people.serve();
        self.shot_until(deadline, |s| s.alive(Role::Display) && s.ready_of(Role::Display).is_some())?;
        while self.people.displays().any(|(_, wire)| wire.news) || self.people.shower.busy {
            self.tell_display();
            self.shot_until(deadline, |s| !s.people.shower.busy)?;
        }
        self.send(Role::Display, &ToChild::Shoot { screen: screen as u16 });
        self.shot_until(deadline, |s| s.people.shower.shot.is_some())?;
        let png = self.people.shower.shot.take().expect("waited for")?;
        write_file(file, &png).map_err(|e| format!("{}: {e}; give a file that can be written", file.display()))
    }

    fn shot_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        while !done(self) {
            if let Some(Err(why)) = self.people.shower.shot.take_if(|shot| shot.is_err()) {
                return Err(why);
            }
            if Instant::now() >= deadline {
                return Err(format!("there was no picture within {} s", SHOT_TIME.as_secs()));
            }
            self.step(Some(deadline)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Presses keys for an operator, and lets them go.
    pub(super) fn send_keys(&mut self, chords: &[Vec<u16>]) -> Answer {
        let failed = |error: &str| Answer::Failed { error: error.to_owned() };
        if self.setup.mode.is_replay() {
            return failed("this is a replay: its keys are in the recording");
        }
        if chords.iter().flatten().any(|code| *code > keys::LAST) {
            return failed("there is no such key");
        }
        for chord in chords {
            let power = chord.as_slice() == [keys::POWER];
            let done = match power {
                true => self.people.power_key(),
                false => self.people.act(InputTarget::Keyboard, &keys::chord(chord)),
            };
            match (done, power) {
                (true, _) => {}
                (false, true) => return failed("the machine has no power key"),
                (false, false) => return failed("the machine has no keyboard"),
            }
        }
        Answer::Done
    }
}

/// Writes a file that is whole or not there.
fn write_file(to: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, to)
}
