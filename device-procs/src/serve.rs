//! The main loop: requests to the device, its effects to the channel, its output and input through the ends of its ports.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reprise_backends::{Input, Output};
use reprise_channel::{Abort, ChannelError, DevicePort, Event as Message, Request, RequestMsg, burst};
use reprise_child::Control;
use reprise_child::control::{Blame, Description, DeviceState, FromChild, ToChild, Way};
use reprise_device::host::{Effect, Fault, Instance, Plugin};
use reprise_device::spec::Framing;
use reprise_device::{Event, VTime, dma};
use serde::{Deserialize, Serialize};

use crate::ends::{End, EndState};
use crate::estate::{Counts, Estate, MAX_INPUT, Offer};
use crate::gone::Gone;
use crate::media::Media;
use crate::output::StreamHash;

use crate::watch::{self, CONTROL, Watcher};

/// Exit code after a fault of the plugin.
pub(crate) const FAULT_EXIT: i32 = 70;
/// The code of a `Fault` message: the plugin panicked or broke its own spec.
const FAULT_CODE: u32 = 1;
/// The port that the device's backend is joined to. Its end is the first one.
pub(crate) const BACKEND_PORT: u32 = 0;
/// The name of the port on which a device is told whether its cable is plugged in: a byte, 1 or 0. It comes unasked.
pub(crate) const CABLE_PORT: &str = "cable";
/// Output is passed on when so many bytes have come together, or the device is idle.
const BATCH: usize = 4096;
/// Output that may wait for slow readers, on all ports together, before the device waits too.
const MAX_PENDING: usize = 16 << 20;
/// How long a reader of the output may take at the end of a machine.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a full channel may hold up the last messages at the end of a machine.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// Why the loop ends.
#[derive(Debug)]
enum Stop {
    /// The supervisor said so.
    Exit,
    /// The device is gone from this request on.
    Gone(u64),
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
    /// Posted writes: offset and size.
    Burst(u64, u8),
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
            Request::Burst { offset, size, data: bytes } => {
                data.extend_from_slice(bytes);
                Self::Burst(offset, size)
            }
        }
    }

    /// Whether it gets no answer.
    fn is_posted(&self) -> bool {
        matches!(self, Self::Plain(_, true) | Self::Burst(..))
    }

    fn event<'a>(&'a self, data: &'a [u8]) -> Event<'a> {
        match *self {
            Self::Plain(event, _) => event,
            Self::DmaDone(tag) => Event::DmaDone { tag, data },
            Self::Host(port) => Event::Host { port, data },
            Self::Burst(..) => unreachable!("a burst is taken apart"),
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

/// A device's plugin, and those that take over from it in a replay.
pub(crate) struct Plugins {
    /// The one that serves.
    pub(crate) plugin: Plugin,
    /// Those to come, the next one last.
    pub(crate) later: Vec<Later>,
    /// The device's configuration.
    pub(crate) config: String,
}

/// A plugin that takes over in a replay.
pub(crate) struct Later {
    /// The first request that it serves.
    pub(crate) from: u64,
    /// None: from there on the device is gone.
    pub(crate) plugin: Option<Plugin>,
    /// The device's configuration from there on, if it is another.
    pub(crate) config: Option<String>,
}

/// What is saved at a checkpoint, between two requests.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    /// The plugin's state.
    device: Vec<u8>,
    /// Effects that the device has had.
    effects: u64,
    output: Output0,
    ends: Vec<EndState>,
    /// Plugins that have taken over in a replay.
    swaps: u64,
}

/// How much output there was on all ports, and its hash.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Output0 {
    hash: StreamHash,
    /// All of it, in bytes.
    bytes: u64,
}

/// What a process is set up with.
pub(crate) struct Parts {
    /// The device's name.
    pub(crate) name: String,
    pub(crate) port: DevicePort,
    pub(crate) device: Instance,
    pub(crate) plugins: Plugins,
    pub(crate) disks: Media,
    pub(crate) estate: Option<Estate>,
    /// That of the backend's port, then any others; the watcher has them in this order.
    pub(crate) ends: Vec<End>,
    pub(crate) control: Control,
    pub(crate) watch: Watcher,
    /// A process that takes the place of this one when it fails does what is left to do.
    pub(crate) replaceable: bool,
}

/// The process once it is set up.
pub(crate) struct Server {
    name: String,
    port: DevicePort,
    device: Instance,
    plugins: Plugins,
    /// Plugins that have taken over.
    swaps: u64,
    disks: Media,
    estate: Option<Estate>,
    /// What is true of the ring, if there is no estate to keep it.
    counts: Counts,
    /// Effects that the device has had. Fewer than were emitted while a successor repeats what the dead process did.
    made: u64,
    ends: Vec<End>,
    control: Control,
    watch: Watcher,
    /// Bulk data of the request at hand.
    data: Vec<u8>,
    effects: Vec<Emit>,
    /// Output that was not passed on yet, and its port.
    out: Vec<u8>,
    out_port: u32,
    output: Output0,
    /// The ports of packets, a bit each.
    packets: u32,
    /// There may be input to offer, at one of the ends that say so.
    may_offer: bool,
    /// Number of the last request that was taken.
    last: u64,
    /// The channel has ended, or the machine has: no more requests.
    over: bool,
    /// The supervisor wants the state.
    save: bool,
    /// The supervisor wants this process to make way.
    make_way: bool,
    replaceable: bool,
    /// The supervisor wants to know what the state is.
    describe: bool,
    /// The port on which the device is told of its cable, if it has one, and what it is to be told.
    cable_port: Option<u32>,
    cable: Option<bool>,
}

impl Server {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, mut port, device, plugins, disks, estate, ends, control, watch, replaceable } = parts;
        if replaceable {
            // Nobody is to think that this end of the channel is left.
            port.stand_by();
        }
        let cable_port = device.spec().ports.iter().position(|p| p.name == CABLE_PORT).map(|i| i as u32);
        let ports = device.spec().ports.iter().enumerate();
        let packets = ports.filter(|(_, p)| p.framing == Framing::Packets).fold(0, |mask, (i, _)| mask | 1 << i);
        Self {
            name,
            port,
            device,
            plugins,
            swaps: 0,
            disks,
            estate,
            counts: Counts::default(),
            made: 0,
            ends,
            control,
            watch,
            data: Vec::new(),
            effects: Vec::new(),
            out: Vec::new(),
            out_port: BACKEND_PORT,
            output: Output0::default(),
            packets,
            may_offer: true,
            last: 0,
            over: false,
            save: false,
            make_way: false,
            replaceable,
            describe: false,
            cable_port,
            cable: None,
        }
    }

    /// Serves until the supervisor says `Exit`.
    pub(crate) fn run(mut self, way: Way) -> anyhow::Result<()> {
        match self.serve(way) {
            Ok(()) | Err(Stop::Exit) => Ok(()),
            Err(Stop::Gone(from)) => self.leave(from),
            Err(Stop::Error(e)) => match e.downcast::<Fault>() {
                Ok(fault) => self.die(&fault),
                Err(e) => Err(e),
            },
        }
    }

    fn serve(&mut self, way: Way) -> Result<(), Stop> {
        if matches!(way, Way::Fresh | Way::Standby) {
            self.await_go()?;
        }
        match way {
            Way::Fresh => {
                if let Some(estate) = &mut self.estate {
                    estate.begin();
                }
            }
            Way::Successor => {
                self.succeed()?;
                self.control.send(&FromChild::Took)?;
            }
            Way::Gone { .. } => {
                self.succeed()?;
                return Err(Stop::Gone(self.last_rites()?));
            }
            Way::Standby => {
                self.succeed()?;
                self.control.send(&FromChild::Took)?;
                // The recording is told first.
                self.await_go()?;
            }
        }
        self.watch.want(CONTROL);
        while !self.over {
            self.attend()?;
            let next = self.port.requests_taken();
            if !self.plugins.later.is_empty() && self.is_gone_at(next) {
                self.flush()?;
                // A stand-in before this one may have taken more.
                return Err(Stop::Gone(self.estate.as_ref().and_then(Estate::gone_at).unwrap_or(next)));
            }
            if self.save {
                self.answer_save()?;
            } else if self.make_way {
                self.stand_aside()?;
            } else if std::mem::take(&mut self.describe) {
                self.send_description()?;
            } else if let Some(up) = self.cable.take() {
                if let Err(e) = self.tell_cable(up) {
                    self.forgive(e)?;
                }
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

    fn await_go(&mut self) -> Result<(), Stop> {
        loop {
            match self.control.receive()? {
                ToChild::Go => return Ok(()),
                other => self.obey(other)?,
            }
            if self.save {
                self.answer_save()?;
            }
        }
    }

    /// Goes on where another process was: from the last checkpoint, over the requests since, to the place where it stopped.
    fn succeed(&mut self) -> Result<(), Stop> {
        self.port.succeed()?;
        // If this fails, the one that yielded goes on.
        self.port.stand_by();
        let estate = self.estate.as_mut().expect("a successor has an estate");
        estate.take_over(self.port.events_emitted())?;
        self.counts = estate.counts();
        let saved: Option<Checkpoint> = match estate.saved()? {
            Some(bytes) => Some(postcard::from_bytes(bytes)?),
            None => None,
        };
        let (generation, requests) = (estate.generation(), estate.requests()?);
        if let Some(saved) = &saved {
            for _ in 0..saved.swaps {
                self.next_plugin()?;
            }
            self.device = self.plugins.plugin.restore(&self.plugins.config, &saved.device)?;
            (self.made, self.output) = (saved.effects, saved.output.clone());
        }
        if let Some(estate) = &self.estate {
            let saved = saved.as_ref().map(|saved| saved.ends.as_slice());
            self.ends.iter_mut().for_each(|end| end.resume(saved, estate));
        }
        // Last, as it changes what the one that yielded would go on with.
        self.disks.recover(generation)?;
        // One that stood in for a device that is gone may have taken more.
        let gone = self.estate.as_ref().and_then(Estate::gone_at).unwrap_or(u64::MAX);
        let done = self.port.requests_taken().min(gone);
        for (slot, arena) in requests.iter().filter(|(slot, _)| slot.seq < done) {
            let request = Request::parse(slot, arena).map_err(|p| anyhow::anyhow!("a logged request: {p}"))?;
            let what = What::of(&request, slot.seq, &mut self.data);
            self.step(Taken { seq: slot.seq, now: VTime(slot.vtime), what }, true)?;
        }
        if let Some((port, input)) = self.estate.as_ref().and_then(Estate::input) {
            let end = self.ends.iter().position(|end| end.port == port);
            self.offer_now(
                end.ok_or_else(|| anyhow::anyhow!("there is input for port {port}, which leads nowhere"))?,
                &input,
            )?;
        }
        if !self.replaceable {
            self.port.take_charge();
        }
        Ok(())
    }

    /// The next plugin, of a replay, serves from now on; the caller gives it the state.
    fn next_plugin(&mut self) -> Result<(), Stop> {
        let missing = || anyhow::anyhow!("a plugin is missing");
        let next = self.plugins.later.pop().ok_or_else(missing)?;
        self.plugins.plugin = next.plugin.ok_or_else(missing)?;
        if let Some(config) = next.config {
            self.plugins.config = config;
        }
        self.swaps += 1;
        Ok(())
    }

    /// The device can't come back. If something of the request under way is out already, the rest of it follows; gives the first request that finds no device.
    fn last_rites(&mut self) -> Result<u64, Stop> {
        let request = self.port.requests_taken();
        if let Some(gone) = self.estate.as_ref().and_then(Estate::gone_at) {
            return Ok(gone);
        }
        self.flush()?;
        if self.counts.effects > self.made || self.counts.logged > self.output.bytes {
            let Some(taken) = Self::copy(self.port.try_request()?, &mut self.estate, &mut self.data) else {
                return Err(anyhow::anyhow!("the estate has effects of a request that is not there").into());
            };
            self.request(taken)?;
            self.flush()?;
            return Ok(request + 1);
        }
        Ok(request)
    }

    /// Leaves what is left to do to the stand-in.
    fn leave(mut self, from: u64) -> anyhow::Result<()> {
        self.flush_ends();
        let output = (self.output.bytes, self.output.hash.finish());
        let Self { port, estate, control, watch, counts, save, replaceable, .. } = self;
        Gone { port, estate, asks: replaceable, control, watch, counts, from, output, save }.run()
    }

    /// In a replay: the device is gone from the next request on.
    fn is_gone_at(&self, request: u64) -> bool {
        self.plugins.later.last().is_some_and(|next| next.plugin.is_none() && next.from <= request)
    }

    /// Saves everything that a successor needs, and forgets what it need not repeat.
    fn checkpoint(&mut self) -> Result<(), Stop> {
        self.flush()?;
        let Some(estate) = &mut self.estate else { return Ok(()) };
        let checkpoint = Checkpoint {
            device: self.device.save()?,
            effects: self.made,
            output: self.output.clone(),
            ends: self.ends.iter().map(End::save).collect(),
            swaps: self.swaps,
        };
        self.disks.checkpoint(estate.generation() + 1)?;
        let generation = estate.save(&postcard::to_stdvec(&checkpoint)?)?;
        self.disks.release(generation)?;
        Ok(())
    }

    /// Leaves everything to another process, and waits what becomes of that.
    fn stand_aside(&mut self) -> Result<(), Stop> {
        self.make_way = false;
        self.checkpoint()?;
        self.finish_output(Duration::from_millis(10))?;
        self.control.send(&FromChild::Yielded { request: self.port.requests_taken() })?;
        loop {
            match self.control.receive()? {
                ToChild::Resume => return Ok(()),
                // Nobody is to think that this end of the channel is left.
                ToChild::Exit => std::process::exit(0),
                other => self.obey(other)?,
            }
        }
    }

    /// The ordinary end of the channel is no error: the supervisor knows, and says what to do.
    fn forgive(&mut self, stop: Stop) -> Result<(), Stop> {
        match stop {
            Stop::Error(e) if e.downcast_ref::<ChannelError>().is_some_and(ChannelError::is_end) => {
                tracing::debug!("{}: {e}", self.name);
                // What the device said before is still good, and the log daemon may be there yet.
                let said = self.flush();
                self.over = true;
                match said {
                    Err(Stop::Error(e)) if e.downcast_ref::<ChannelError>().is_some_and(ChannelError::is_end) => Ok(()),
                    other => other,
                }
            }
            other => Err(other),
        }
    }

    /// Takes what there is to take, or waits for it.
    fn turn(&mut self) -> Result<(), Stop> {
        if self.disks.is_short() {
            self.checkpoint()?;
        }
        if let Some(taken) = Self::copy(self.port.try_request()?, &mut self.estate, &mut self.data) {
            return self.request(taken);
        }
        self.offer()?;
        // While output waits to be passed on, wait no longer than it pays to spin: a driver that writes byte by byte is soon back.
        let idle = Abort::NEVER.or_rung(self.watch.bell());
        let abort = if self.out.is_empty() { idle } else { Abort::at(Instant::now()) };
        match Self::copy(self.port.next_request(&abort)?, &mut self.estate, &mut self.data) {
            Some(taken) => self.request(taken),
            None => self.flush(),
        }
    }

    /// Copies a request out of the channel, and into the estate.
    fn copy(msg: Option<RequestMsg<'_>>, estate: &mut Option<Estate>, data: &mut Vec<u8>) -> Option<Taken> {
        let m = msg?;
        if let Some(estate) = estate.as_mut().filter(|e| !e.has_request(m.seq)) {
            estate.log(m.slot, m.arena);
        }
        Some(Taken { seq: m.seq, now: VTime(m.vtime), what: What::of(&m.request, m.seq, data) })
    }

    /// One request that the channel had.
    fn request(&mut self, taken: Taken) -> Result<(), Stop> {
        self.step(taken, false)?;
        self.port.complete()?;
        if self.estate.as_ref().is_some_and(Estate::is_due) || self.disks.wants_checkpoint() {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// The device's step, its effects, then the answer. `again`: all of them are in the ring already.
    fn step(&mut self, taken: Taken, again: bool) -> Result<(), Stop> {
        self.last = taken.seq;
        while self.plugins.later.last().is_some_and(|next| next.from <= taken.seq) {
            let state = self.device.save()?;
            self.next_plugin()?;
            self.device = self.plugins.plugin.restore(&self.plugins.config, &state)?;
        }
        if let What::Host(port) = taken.what {
            if let Some(end) = self.ends.iter_mut().find(|end| end.port == port) {
                end.consume(&self.data);
                (end.may_offer, self.may_offer) = (true, true);
            }
        }
        self.effects.clear();
        let answer = match taken.what {
            What::Burst(offset, size) => {
                self.run_burst(taken, offset, size)?;
                None
            }
            _ => self.run_device(taken)?,
        };
        let effects = std::mem::take(&mut self.effects);
        if again {
            self.made += effects.len() as u64 + u64::from(answer.is_some());
        } else {
            for effect in &effects {
                match effect {
                    Emit::Plain(message) => self.effect(taken.seq, message)?,
                    Emit::Dma(tag, data) => self.effect(taken.seq, &Message::Dma { tag: *tag, data })?,
                    Emit::Queue(queue, data) => self.effect(taken.seq, &Message::Queue { queue: *queue, data })?,
                }
            }
            if let Some(answer) = answer {
                self.answer(taken.seq, &answer)?;
            }
        }
        self.effects = effects;
        if self.out.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Emits an effect, unless a process before this one has done that.
    #[inline]
    fn effect(&mut self, cause: u64, message: &Message<'_>) -> Result<(), Stop> {
        let number = self.made;
        self.made += 1;
        if number < self.counts.effects {
            return Ok(());
        }
        self.emit(cause, message, Counts { effects: number + 1, ..self.counts }, None)
    }

    /// The answer to a request, likewise.
    #[inline]
    fn answer(&mut self, request: u64, message: &Message<'_>) -> Result<(), Stop> {
        let number = self.made;
        self.made += 1;
        if number < self.counts.effects {
            return Ok(());
        }
        let then = Counts { effects: number + 1, answered: request + 1, ..self.counts };
        self.emit(request, message, then, None)
    }

    /// The writes of a burst, one after the other.
    fn run_burst(&mut self, taken: Taken, offset: u64, size: u8) -> Result<(), Stop> {
        let data = std::mem::take(&mut self.data);
        for (now, value) in burst::stores(taken.now.0, &data) {
            let write = Event::Write { tag: taken.seq, offset, size, value: value.into() };
            self.run_device(Taken { now: VTime(now), what: What::Plain(write, true), ..taken })?;
        }
        self.data = data;
        Ok(())
    }

    /// Lets the device take its step; gives the answer to the request, if it gets one.
    fn run_device(&mut self, taken: Taken) -> Result<Option<Message<'static>>, Stop> {
        let Self { device, disks, data, effects, out, out_port, ends, may_offer, packets, .. } = self;
        let is_packet = |port: u32| *packets >> port & 1 == 1;
        let before = out.len();
        let mut answer = if taken.what.is_posted() { None } else { Some(Message::Ack) };
        // Output to several ports in one step is rare: from the first byte for another port on it is kept apart, in order, and passed on after the step.
        let mut elsewhere = Vec::new();
        let result = device.step_with(taken.now, taken.what.event(data), disks, &mut |effect| match effect {
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
            Effect::HostOut { port, data } if port == *out_port && !is_packet(port) && elsewhere.is_empty() => {
                out.extend_from_slice(data);
            }
            Effect::HostOut { port, data } => elsewhere.push((port, data.to_vec())),
            Effect::HostWant { port, .. } => {
                if let Some(end) = ends.iter_mut().find(|end| end.port == port) {
                    (end.may_offer, *may_offer) = (true, true);
                }
            }
        });
        if result.is_err() {
            // It has not happened.
            self.out.truncate(before);
            result?;
        }
        for (port, bytes) in elsewhere {
            self.flush()?;
            self.out_port = port;
            self.out.extend_from_slice(&bytes);
            if self.packets >> port & 1 == 1 {
                self.flush()?;
            }
        }
        Ok(answer)
    }

    /// Sends a message, however long that takes; the supervisor is heard meanwhile. Behind it `then` is true, and `offer` made.
    fn emit(&mut self, cause: u64, message: &Message<'_>, then: Counts, offer: Option<Offer>) -> Result<(), Stop> {
        let mut given_up = None;
        if let Some(estate) = &mut self.estate {
            estate.intend(self.port.events_emitted(), then, offer);
        }
        loop {
            if self.port.try_emit(cause, message)?.is_some() {
                self.emitted(then, offer);
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
                self.emitted(then, offer);
                return Ok(());
            }
            self.attend()?;
        }
    }

    #[inline]
    fn emitted(&mut self, then: Counts, offer: Option<Offer>) {
        self.counts = then;
        if let Some(estate) = &mut self.estate {
            estate.done(then, offer);
        }
        if let Some(offer) = offer {
            self.ends.iter_mut().filter(|end| end.port == offer.port).for_each(|end| end.offered(offer.total));
        }
    }

    /// Writes output that waits, as far as that goes.
    fn flush_ends(&mut self) {
        (0..self.ends.len()).for_each(|n| self.flush_end(n));
    }

    fn flush_end(&mut self, n: usize) {
        if self.ends[n].flush(self.estate.as_ref()) == Output::Blocked {
            self.watch.want(watch::output(n));
        }
    }

    /// Bytes of output that wait for the outside.
    fn pending(&self) -> usize {
        self.ends.iter().map(|end| end.backend.pending()).sum()
    }

    /// Passes output on: to its port's end if there is one, and to the recording if there is one.
    fn flush(&mut self) -> Result<(), Stop> {
        if self.out.is_empty() {
            return Ok(());
        }
        let data = std::mem::take(&mut self.out);
        let port = std::mem::replace(&mut self.out_port, BACKEND_PORT);
        self.output.hash.update(&data);
        if let Some(n) = self.ends.iter().position(|end| end.port == port) {
            if self.ends[n].put(&data, self.estate.as_ref()) == Output::Blocked {
                self.watch.want(watch::output(n));
            }
        }
        let known = self.counts.logged.saturating_sub(self.output.bytes);
        let unlogged = &data[(known as usize).min(data.len())..];
        self.output.bytes += data.len() as u64;
        if self.port.config().tap && !self.over {
            for piece in unlogged.chunks(BATCH) {
                let then = Counts { logged: self.counts.logged + piece.len() as u64, ..self.counts };
                self.emit(self.last, &Message::HostOut { port: port.into(), data: piece }, then, None)?;
            }
        }
        while self.pending() > MAX_PENDING && !self.save && !self.over {
            self.wait_for_output(Duration::from_millis(100))?;
        }
        // Keeps the memory.
        self.out = data;
        self.out.clear();
        Ok(())
    }

    /// Waits until an end can write what waits for it, at most `time`, and writes.
    fn wait_for_output(&mut self, time: Duration) -> Result<(), Stop> {
        let waiting =
            self.ends.iter().filter(|end| end.backend.pending() > 0).filter_map(|end| end.backend.output_fd());
        // SAFETY: the backends keep their descriptors open during the call.
        let waiting = waiting.map(|fd| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) });
        let mut fds: Vec<PollFd<'_>> = waiting.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)).collect();
        if fds.is_empty() {
            return Ok(());
        }
        // Whatever the outcome is, writing tells.
        let _ = poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        self.flush_ends();
        self.attend()
    }

    /// Gives the readers of the output some time to take it, with a look at what else there is after each `pause`.
    fn finish_output(&mut self, pause: Duration) -> Result<(), Stop> {
        let until = Instant::now() + LAST_OUTPUT;
        self.flush_ends();
        while self.pending() > 0 && Instant::now() < until {
            self.wait_for_output(pause)?;
        }
        Ok(())
    }

    /// Offers input, as much as the device wants on each port: one that wants none holds up no other.
    fn offer(&mut self) -> Result<(), Stop> {
        while std::mem::take(&mut self.may_offer) {
            for n in 0..self.ends.len() {
                if std::mem::take(&mut self.ends[n].may_offer) {
                    self.offer_from(n)?;
                }
            }
        }
        Ok(())
    }

    fn offer_from(&mut self, n: usize) -> Result<(), Stop> {
        let end = &mut self.ends[n];
        let Some(room) = end.room(self.device.want(end.port), MAX_INPUT) else { return Ok(()) };
        let mut input = Vec::new();
        match end.backend.read(room, &mut input) {
            Input::Bytes(_) => {
                (end.may_offer, self.may_offer) = (true, true);
                if let Some(estate) = &mut self.estate {
                    estate.keep_input(end.port, &input);
                }
                self.offer_now(n, &input)?;
            }
            Input::Nothing if end.backend.input_fd().is_some() => self.watch.want(watch::input(n)),
            Input::Nothing | Input::End => {}
        }
        Ok(())
    }

    fn offer_now(&mut self, n: usize, input: &[u8]) -> Result<(), Stop> {
        let offer = self.ends[n].offer(input);
        let then = Counts { input: 0, ..self.counts };
        self.emit(self.last, &Message::HostOffer { port: offer.port.into(), data: input }, then, Some(offer))
    }

    /// Tells the device whether its cable is plugged in, by way of cpu-proc as all input. To say it twice is no harm, so there are no books of it.
    fn tell_cable(&mut self, up: bool) -> Result<(), Stop> {
        let Some(port) = self.cable_port else { return Ok(()) };
        self.emit(self.last, &Message::HostOffer { port: port.into(), data: &[up.into()] }, self.counts, None)
    }

    /// Deals with what the other thread saw.
    #[inline]
    fn attend(&mut self) -> Result<(), Stop> {
        let ready = self.watch.take_ready();
        if ready == 0 {
            return Ok(());
        }
        for n in 0..self.ends.len() {
            if ready & watch::input(n) != 0 {
                (self.ends[n].may_offer, self.may_offer) = (true, true);
            }
            if ready & watch::output(n) != 0 {
                self.flush_end(n);
            }
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
            ToChild::Yield => {
                self.make_way = true;
                Ok(())
            }
            ToChild::Describe => {
                self.describe = true;
                Ok(())
            }
            ToChild::Count => {
                let counters = self.ends[0].backend.counters().into_iter().chain(self.disks.counters());
                let counters = counters.map(|(name, n)| (name.to_owned(), n)).collect();
                Ok(self.control.send(&FromChild::Counters { counters })?)
            }
            ToChild::Link { up } => {
                self.ends[0].backend.set_link(up);
                // Said between two requests: here a message may be half sent.
                self.cable = Some(up);
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
        while let Some(taken) = Self::copy(self.port.try_request()?, &mut self.estate, &mut self.data) {
            self.request(taken)?;
        }
        self.flush()
    }

    fn send_state(&mut self) -> Result<(), Stop> {
        // However the channel ended: what the guest wrote belongs into the image.
        self.disks.finish()?;
        self.finish_output(Duration::from_millis(100))?;
        let state = self.device.save()?;
        let (output_bytes, output_hash) = (self.output.bytes, self.output.hash.finish());
        self.control.send(&FromChild::State(DeviceState { state, output_bytes, output_hash }))?;
        Ok(())
    }

    /// Says what state the device is in, between two requests: only looked at.
    fn send_description(&mut self) -> Result<(), Stop> {
        let state = self.device.save()?;
        let (bytes, hash) = (state.len() as u64, *blake3::hash(&state).as_bytes());
        let description =
            Description { request: self.port.requests_taken(), bytes, hash, text: self.device.describe()? };
        self.control.send(&FromChild::Described(description))?;
        Ok(())
    }

    /// The plugin failed: everyone is told whom that concerns, and the process ends with a code of its own.
    fn die(mut self, fault: &Fault) -> ! {
        // What the device said before is still good. Nobody is left to be told if this fails.
        let _ = self.flush();
        self.flush_ends();
        let text = format!("{}: {fault}", self.name);
        if !self.replaceable {
            let _ = self.port.try_emit(self.last, &Message::Fault { code: FAULT_CODE, data: text.as_bytes() });
        }
        let _ = self.control.send(&FromChild::Fatal { text, blame: Blame::Plugin });
        drop(self.port);
        std::process::exit(FAULT_EXIT)
    }
}
