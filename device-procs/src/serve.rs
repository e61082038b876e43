//! The main loop: requests to the device, its effects to the channel, its output and input through the backend.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reprise_backends::{Backend, Input, Output};
use reprise_channel::{Abort, ChannelError, DevicePort, Event as Message, Request, RequestMsg};
use reprise_child::Control;
use reprise_child::control::{Blame, DeviceState, FromChild, ToChild};
use reprise_device::host::{Effect, Fault, Instance};
use reprise_device::{Event, VTime, dma};

use crate::watch::{CONTROL, INPUT, OUTPUT, Watcher};

/// Exit code after a fault of the plugin.
pub(crate) const FAULT_EXIT: i32 = 70;
/// The code of a `Fault` message: the plugin panicked or broke its own spec.
const FAULT_CODE: u32 = 1;
/// The port that the backend is joined to.
const BACKEND_PORT: u32 = 0;
/// Output is passed on when so many bytes have come together, or the device is idle.
const BATCH: usize = 4096;
/// Output that may wait for a slow reader before the device waits too.
const MAX_PENDING: usize = 16 << 20;
/// Input is offered in pieces of at most so many bytes.
const PIECE: usize = 4096;
/// How long a reader of the output may take at the end of a machine.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a full channel may hold up the last messages at the end of a machine.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// Why the loop ends.
#[derive(Debug)]
enum Stop {
    /// The supervisor said so.
    Exit,
    /// Something is wrong.
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Error(e.into())
    }
}

/// A request, copied out of the channel; bulk data is in [`Server::data`].
#[derive(Debug, Clone, Copy)]
struct Taken {
    seq: u64,
    now: VTime,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Everything without bulk data; true if it is a posted write.
    Plain(Event<'static>, bool),
    DmaDone(u64),
    Host(u32),
}

impl What {
    /// Copies a request; its bulk data goes to `data`.
    fn of(request: &Request<'_>, seq: u64, data: &mut Vec<u8>) -> Self {
        data.clear();
        match *request {
            Request::Reset => Self::Plain(Event::Reset, false),
            Request::Read { offset, size } => Self::Plain(Event::Read { tag: seq, offset, size }, false),
            Request::Write { offset, size, value, posted } => {
                Self::Plain(Event::Write { tag: seq, offset, size, value }, posted)
            }
            Request::Line { pin, level } => Self::Plain(Event::Line { pin, level }, false),
            Request::Timer { id } => Self::Plain(Event::Timer(id), false),
            Request::Popped { queue, count } => {
                Self::Plain(Event::Popped { queue: u16::try_from(queue).unwrap_or(u16::MAX), count }, false)
            }
            Request::DmaDone { tag, data: bytes } => {
                data.extend_from_slice(bytes);
                Self::DmaDone(tag.into())
            }
            Request::Host { port, data: bytes } => {
                data.extend_from_slice(bytes);
                Self::Host(u32::try_from(port).unwrap_or(u32::MAX))
            }
        }
    }

    fn event<'a>(&'a self, data: &'a [u8]) -> Event<'a> {
        match *self {
            Self::Plain(event, _) => event,
            Self::DmaDone(tag) => Event::DmaDone { tag, data },
            Self::Host(port) => Event::Host { port, data },
        }
    }
}

/// What a step wants sent.
#[derive(Debug)]
enum Emit {
    Plain(Message<'static>),
    Dma(u32, Vec<u8>),
    Queue(u32, Vec<u8>),
}

/// The process once it is set up.
pub(crate) struct Server {
    name: String,
    port: DevicePort,
    device: Instance,
    backend: Box<dyn Backend>,
    control: Control,
    watch: Watcher,
    /// Bulk data of the request at hand.
    data: Vec<u8>,
    effects: Vec<Emit>,
    /// Output that was not passed on yet, and its port.
    out: Vec<u8>,
    out_port: u32,
    out_hash: blake3::Hasher,
    out_bytes: u64,
    /// Input that was offered and has not come back as a request.
    in_flight: u64,
    /// There may be input to offer.
    may_offer: bool,
    /// Number of the last request that was taken.
    last: u64,
    /// The channel has ended, or the machine has: no more requests.
    over: bool,
    /// The supervisor wants the state.
    save: bool,
}

impl Server {
    pub(crate) fn new(
        name: String,
        port: DevicePort,
        device: Instance,
        backend: Box<dyn Backend>,
        control: Control,
        watch: Watcher,
    ) -> Self {
        Self {
            name,
            port,
            device,
            backend,
            control,
            watch,
            data: Vec::new(),
            effects: Vec::new(),
            out: Vec::new(),
            out_port: BACKEND_PORT,
            out_hash: blake3::Hasher::new(),
            out_bytes: 0,
            in_flight: 0,
            may_offer: true,
            last: 0,
            over: false,
            save: false,
        }
    }

    /// Serves until the supervisor says `Exit`.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        match self.serve() {
            Ok(()) | Err(Stop::Exit) => Ok(()),
            Err(Stop::Error(e)) => match e.downcast::<Fault>() {
                Ok(fault) => self.die(&fault),
                Err(e) => Err(e),
            },
        }
    }

    fn serve(&mut self) -> Result<(), Stop> {
        loop {
            match self.control.receive()? {
                ToChild::Go => break,
                other => self.obey(other)?,
            }
            if self.save {
                self.answer_save()?;
            }
        }
        self.watch.want(CONTROL);
        while !self.over {
            self.attend()?;
            if self.save {
                self.answer_save()?;
            } else if let Err(e) = self.turn() {
                self.forgive(e)?;
            }
        }
        loop {
            if std::mem::take(&mut self.save) {
                self.send_state()?;
            }
            let message = self.control.receive()?;
            self.obey(message)?;
        }
    }

    /// The ordinary end of the channel is no error: the supervisor knows, and says what to do.
    fn forgive(&mut self, stop: Stop) -> Result<(), Stop> {
        match stop {
            Stop::Error(e) if e.downcast_ref::<ChannelError>().is_some_and(ChannelError::is_end) => {
                tracing::debug!("{}: {e}", self.name);
                self.over = true;
                // What the device said before is still good.
                self.flush()
            }
            other => Err(other),
        }
    }

    /// Takes what there is to take, or waits for it.
    fn turn(&mut self) -> Result<(), Stop> {
        if let Some(taken) = Self::copy(self.port.try_request()?, &mut self.data) {
            return self.step(taken);
        }
        self.offer()?;
        // While output waits to be passed on, wait no longer than it pays to spin: a driver that writes byte by byte is soon back.
        let idle = Abort::NEVER.or_rung(self.watch.bell());
        let abort = if self.out.is_empty() { idle } else { Abort::at(Instant::now()) };
        match Self::copy(self.port.next_request(&abort)?, &mut self.data) {
            Some(taken) => self.step(taken),
            None => self.flush(),
        }
    }

    fn copy(msg: Option<RequestMsg<'_>>, data: &mut Vec<u8>) -> Option<Taken> {
        msg.map(|m| Taken { seq: m.seq, now: VTime(m.vtime), what: What::of(&m.request, m.seq, data) })
    }

    /// One request: the device's step, its effects, then the answer.
    fn step(&mut self, taken: Taken) -> Result<(), Stop> {
        self.last = taken.seq;
        if let What::Host(port) = taken.what {
            if port == BACKEND_PORT {
                self.in_flight = self.in_flight.saturating_sub(self.data.len() as u64);
            }
            self.may_offer = true;
        }
        let answer = self.run_device(taken)?;
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects {
            match effect {
                Emit::Plain(message) => self.emit(taken.seq, message)?,
                Emit::Dma(tag, data) => self.emit(taken.seq, &Message::Dma { tag: *tag, data })?,
                Emit::Queue(queue, data) => self.emit(taken.seq, &Message::Queue { queue: *queue, data })?,
            }
        }
        self.effects = effects;
        if let Some(answer) = answer {
            self.emit(taken.seq, &answer)?;
        }
        self.port.complete()?;
        if self.out.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Lets the device take its step; gives the answer to the request, if it gets one.
    fn run_device(&mut self, taken: Taken) -> Result<Option<Message<'static>>, Stop> {
        let Self { device, data, effects, out, out_port, may_offer, .. } = self;
        effects.clear();
        let mut answer = match taken.what {
            What::Plain(_, true) => None,
            _ => Some(Message::Ack),
        };
        // Output to several ports in one step is rare: it is kept apart and passed on after it.
        let mut elsewhere = Vec::new();
        let result = device.step(taken.now, taken.what.event(data), &mut |effect| match effect {
            Effect::Reply { value, .. } => answer = Some(Message::Reply { value }),
            Effect::Line { pin, level } => effects.push(Emit::Plain(Message::SetLine { pin, level })),
            Effect::Arm { id, at } => effects.push(Emit::Plain(Message::Arm { id, vtime: at.0 })),
            Effect::Disarm { id } => effects.push(Emit::Plain(Message::Disarm { id })),
            Effect::Publish { shadow, value } => {
                effects.push(Emit::Plain(Message::Publish { reg: shadow.into(), value }));
            }
            Effect::Dma { tag, reads, writes } => {
                let bytes = dma::encode(tag, reads, writes).expect("the host side has checked the limits");
                effects.push(Emit::Dma(tag as u32, bytes));
            }
            Effect::Queue { queue, values } => {
                effects.push(Emit::Queue(queue.into(), values.iter().flat_map(|v| v.to_le_bytes()).collect()));
            }
            Effect::QueueClear { queue } => effects.push(Emit::Plain(Message::QueueClear { queue: queue.into() })),
            Effect::HostOut { port, data } if port == *out_port => out.extend_from_slice(data),
            Effect::HostOut { port, data } => elsewhere.push((port, data.to_vec())),
            Effect::HostWant { .. } => *may_offer = true,
        });
        for (port, bytes) in elsewhere {
            self.flush()?;
            self.out_port = port;
            self.out.extend_from_slice(&bytes);
        }
        result?;
        Ok(answer)
    }

    /// Sends a message, however long that takes; the supervisor is heard meanwhile.
    fn emit(&mut self, cause: u64, message: &Message<'_>) -> Result<(), Stop> {
        let mut given_up = None;
        loop {
            if self.port.try_emit(cause, message)?.is_some() {
                return Ok(());
            }
            let mut abort = Abort::NEVER.or_rung(self.watch.bell());
            if self.save {
                // Nobody may be there to make room.
                let until = *given_up.get_or_insert_with(|| Instant::now() + LAST_MESSAGES);
                if Instant::now() >= until {
                    tracing::warn!("{}: the channel is full at the end; the last messages are lost", self.name);
                    return Ok(());
                }
                abort = abort.or_after(until - Instant::now());
            }
            if self.port.emit(cause, message, &abort)?.is_some() {
                return Ok(());
            }
            self.attend()?;
        }
    }

    /// Passes output on: to the backend, and to the recording if there is one.
    fn flush(&mut self) -> Result<(), Stop> {
        if self.out.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.out);
        let port = std::mem::replace(&mut self.out_port, BACKEND_PORT);
        self.out_hash.update(&data);
        self.out_bytes += data.len() as u64;
        if port == BACKEND_PORT && self.backend.write(&data) == Output::Blocked {
            self.watch.want(OUTPUT);
        }
        if self.port.config().tap && !self.over {
            for piece in data.chunks(BATCH) {
                self.emit(self.last, &Message::HostOut { port: port.into(), data: piece })?;
            }
        }
        while self.backend.pending() > MAX_PENDING && !self.save && !self.over {
            self.wait_for_output(Duration::from_millis(100))?;
        }
        // Keeps the memory.
        self.out = data;
        self.out.clear();
        Ok(())
    }

    /// Waits until the backend can write, at most `time`, and writes.
    fn wait_for_output(&mut self, time: Duration) -> Result<(), Stop> {
        let Some(fd) = self.backend.output_fd() else { return Ok(()) };
        // SAFETY: the backend keeps the descriptor open during the call.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // Whatever the outcome is, writing tells.
        let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout);
        self.backend.flush();
        self.attend()
    }

    /// Offers input, as much as the device wants.
    fn offer(&mut self) -> Result<(), Stop> {
        while std::mem::take(&mut self.may_offer) {
            let room = self.device.want(BACKEND_PORT).saturating_sub(self.in_flight);
            if room == 0 {
                break;
            }
            let mut input = Vec::new();
            match self.backend.read(usize::try_from(room).unwrap_or(PIECE).min(PIECE), &mut input) {
                Input::Bytes(n) => {
                    self.in_flight += n as u64;
                    self.may_offer = true;
                    self.emit(self.last, &Message::HostOffer { port: BACKEND_PORT.into(), data: &input })?;
                }
                Input::Nothing if self.backend.input_fd().is_some() => self.watch.want(INPUT),
                Input::Nothing | Input::End => {}
            }
        }
        Ok(())
    }

    /// Deals with what the other thread saw.
    #[inline]
    fn attend(&mut self) -> Result<(), Stop> {
        let ready = self.watch.take_ready();
        if ready == 0 {
            return Ok(());
        }
        self.may_offer |= ready & INPUT != 0;
        if ready & OUTPUT != 0 && self.backend.flush() == Output::Blocked {
            self.watch.want(OUTPUT);
        }
        if ready & CONTROL != 0 {
            while let Some(message) = self.control.try_receive()? {
                self.obey(message)?;
            }
            self.watch.want(CONTROL);
        }
        Ok(())
    }

    fn obey(&mut self, message: ToChild) -> Result<(), Stop> {
        match message {
            ToChild::Exit => Err(Stop::Exit),
            ToChild::Save => {
                self.save = true;
                Ok(())
            }
            other => Err(anyhow::anyhow!("a device-proc takes no {other:?}").into()),
        }
    }

    /// The guest runs no more: works off what is left, then says what state the device is in.
    fn answer_save(&mut self) -> Result<(), Stop> {
        if let Err(e) = self.work_off() {
            self.forgive(e)?;
        }
        self.save = false;
        self.send_state()
    }

    fn work_off(&mut self) -> Result<(), Stop> {
        while let Some(taken) = Self::copy(self.port.try_request()?, &mut self.data) {
            self.step(taken)?;
        }
        self.flush()
    }

    fn send_state(&mut self) -> Result<(), Stop> {
        let until = Instant::now() + LAST_OUTPUT;
        while self.backend.flush() == Output::Blocked && Instant::now() < until {
            self.wait_for_output(Duration::from_millis(100))?;
        }
        let state = self.device.save()?;
        let output_hash = *self.out_hash.finalize().as_bytes();
        self.control.send(&FromChild::State(DeviceState { state, output_bytes: self.out_bytes, output_hash }))?;
        Ok(())
    }

    /// The plugin failed: everyone is told, and the process ends with a code of its own.
    fn die(mut self, fault: &Fault) -> ! {
        // What the device said before is still good. Nobody is left to be told if this fails.
        let _ = self.flush();
        self.backend.flush();
        let text = format!("{}: {fault}", self.name);
        let _ = self.port.try_emit(self.last, &Message::Fault { code: FAULT_CODE, data: text.as_bytes() });
        let _ = self.control.send(&FromChild::Fatal { text, blame: Blame::Plugin });
        drop(self.port);
        std::process::exit(FAULT_EXIT)
    }
}
