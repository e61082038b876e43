//! The ends of a channel.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::checksum::content_checksum;
use crate::error::{ChannelError, CloseReason, Problem, RingName};
use crate::jitter;
use crate::layout::{
    ATTACHED, ChannelConfig, ChannelLayout, LEFT, Links, POISONED, attach_channel, close, create_channel,
};
use crate::message::{Event, EventKind, Request, Slot};
use crate::ring::{Blocked, Producer, Push, Reader, Side, Space, Target};
use crate::segment::{Region, Role, Segment, SegmentError, unlink};
use crate::wait::{Abort, Company, Interest, SpinPolicy, Waited, wait_many, wait_one};

/// How many messages everybody has sent, taken and committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    /// Requests that cpu-proc has sent.
    pub sent: u64,
    /// Requests that the device has completed.
    pub completed: u64,
    /// Events that the device has emitted.
    pub emitted: u64,
    /// Events that cpu-proc has taken.
    pub consumed: u64,
    /// Requests and events that the log daemon has committed, if there is one.
    pub tapped: Option<(u64, u64)>,
}

/// A channel as its maker, the supervisor, holds it. Dropping it removes its name; attached processes keep the memory.
#[derive(Debug)]
pub struct ChannelSegment {
    name: String,
    segment: Segment,
    futexes: Vec<usize>,
    states: [usize; 3],
    /// The words that say how many requests were sent and are done, how many events were sent and taken.
    cursors: [[usize; 2]; 2],
    /// Those of the log daemon: requests and events.
    taps: Option<[usize; 2]>,
    regions: Vec<Region>,
}

impl ChannelSegment {
    /// Makes a channel.
    ///
    /// # Errors
    /// If the sizes are out of range, the name is taken, or there is no room in shared memory.
    pub fn create(name: &str, config: &ChannelConfig) -> Result<Self, SegmentError> {
        let (segment, layout) = create_channel(name, config)?;
        let futexes = layout.links(config, layout.cpu_state, Vec::new()).futexes;
        let states = [layout.cpu_state, layout.device_state, layout.daemon_state];
        let (requests, events) = (&layout.requests, &layout.events);
        let cursors = [[requests.produced, requests.peer], [events.produced, events.peer]];
        let taps = requests.tap.zip(events.tap).map(|(r, e)| [r, e]);
        Ok(Self { name: name.to_owned(), segment, futexes, states, cursors, taps, regions: layout.regions })
    }

    /// The segment's name, for the processes that attach it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which pages belong to whom.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Ends the channel: every wait on it, now or later, returns [`Problem::Closed`]. A second reason replaces the first.
    pub fn close(&self, reason: CloseReason) {
        close(&self.segment, &self.futexes, reason as u32);
    }

    /// How many requests cpu-proc has sent, and how many the device has completed. Both are the word of a process that may be a liar.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let [sent, done] = self.cursors[0];
        (self.segment.word(sent).load(Ordering::Acquire), self.segment.word(done).load(Ordering::Acquire))
    }

    /// How far everybody is. All of it is the word of processes that may be liars.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        let word = |at: usize| self.segment.word(at).load(Ordering::Acquire);
        let ([sent, completed], [emitted, consumed]) = (self.cursors[0], self.cursors[1]);
        Cursors {
            sent: word(sent),
            completed: word(completed),
            emitted: word(emitted),
            consumed: word(consumed),
            tapped: self.taps.map(|[requests, events]| (word(requests), word(events))),
        }
    }

    /// Who met a wrong value on this channel: cpu-proc, the device, the log daemon.
    #[must_use]
    pub fn poisoned_by(&self) -> Option<Role> {
        let roles = [Role::Cpu, Role::Device, Role::Daemon];
        let poisoned = |&(_, &word): &(Role, &usize)| self.segment.word(word).load(Ordering::Acquire) == POISONED;
        roles.into_iter().zip(&self.states).find(poisoned).map(|(role, _)| role)
    }
}

impl Drop for ChannelSegment {
    fn drop(&mut self) {
        // The next start sweeps what stays: there is nobody left to tell.
        drop(unlink(&self.name));
    }
}

/// What all ports have: who they are, and whether they still trust the other side.
#[derive(Debug)]
pub(crate) struct Life {
    segment: Segment,
    links: Links,
    fault: OnceLock<ChannelError>,
    /// Another process has this end: nobody is told when this one goes.
    silent: bool,
}

impl Life {
    pub(crate) fn new(segment: Segment, links: Links) -> Self {
        segment.word(links.own).store(ATTACHED, Ordering::Release);
        Self { segment, links, fault: OnceLock::new(), silent: false }
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<(), ChannelError> {
        match self.fault.get() {
            None => Ok(()),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// The error for a problem; a wrong value poisons the port.
    #[cold]
    pub(crate) fn fail(&self, ring: RingName, problem: Problem) -> ChannelError {
        let error = self.links.error(ring, problem);
        if !problem.is_end() && self.fault.set(error.clone()).is_ok() {
            self.links.announce(&self.segment, POISONED);
        }
        error
    }

    pub(crate) fn interest<'a>(&'a self, target: Target<'a, Segment>, ring: RingName) -> Interest<'a> {
        Interest { target, links: &self.links, ring }
    }

    pub(crate) fn closed(&self) -> Option<usize> {
        Some(self.links.closed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.links.channel
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.fault.get().is_none() && !self.silent {
            self.links.announce(&self.segment, LEFT);
        }
    }
}

/// A reading end that keeps a copy of the slot at hand.
#[derive(Debug)]
struct Inbox {
    reader: Reader<Segment>,
    slot: Slot,
    arena: Vec<u8>,
    /// The copy was looked at, but not taken.
    held: bool,
}

impl Inbox {
    fn new(reader: Reader<Segment>) -> Self {
        Self { reader, slot: Slot::default(), arena: Vec::new(), held: false }
    }

    /// Copies the next slot and its arena bytes, once, unless it is at hand already.
    #[inline]
    fn fetch(&mut self) -> Result<bool, Problem> {
        if self.held {
            return Ok(true);
        }
        let mut words = [0; 8];
        if !self.reader.read(&mut words)? {
            return Ok(false);
        }
        self.slot = Slot::from_words(words);
        if self.slot.arena_len != 0 || !self.arena.is_empty() {
            let Slot { seq, arena_off, arena_len, .. } = self.slot;
            let off = if arena_len == 0 { 0 } else { u64::from(arena_off) };
            self.reader.read_arena(seq, off, u64::from(arena_len), &mut self.arena)?;
        }
        self.held = true;
        Ok(true)
    }

    /// Whether there is a message, going by its slot alone.
    #[inline]
    fn poll(&self) -> bool {
        self.held || self.reader.poll()
    }

    /// Number of messages taken.
    #[inline]
    fn taken(&self) -> u64 {
        self.reader.taken() - u64::from(self.held)
    }

    /// Whether there is a message not yet taken.
    fn pending(&mut self) -> Result<bool, Problem> {
        Ok(self.held || self.reader.poll() || self.reader.available()?)
    }

    /// What a wait for `more` messages beyond those taken looks at.
    fn target(&self, more: u64, closed: Option<usize>) -> Target<'_, Segment> {
        Target { pressure: None, ..self.reader.target(more - u64::from(self.held), closed) }
    }
}

/// A request as a reader took it.
#[derive(Clone, Copy, Debug)]
pub struct RequestMsg<'a> {
    /// Its number on the channel.
    pub seq: u64,
    /// Guest time in ns.
    pub vtime: u64,
    /// What is asked.
    pub request: Request<'a>,
    /// The slot, as copied.
    pub slot: &'a Slot,
    /// The arena bytes that it names, as copied; empty if none.
    pub arena: &'a [u8],
}

impl RequestMsg<'_> {
    /// See [`content_checksum`].
    #[must_use]
    pub fn checksum(&self) -> u64 {
        content_checksum(self.slot, self.arena)
    }
}

/// An event as a reader took it.
#[derive(Clone, Copy, Debug)]
pub struct EventMsg<'a> {
    /// Its number in the event ring. Side messages count here, so it depends on host timing: never record it as an order.
    pub seq: u64,
    /// The request that caused it.
    pub cause: u64,
    /// Its effect number on the channel; none for a side message.
    pub effect: Option<u64>,
    /// What happened.
    pub event: Event<'a>,
    /// The slot, as copied.
    pub slot: &'a Slot,
    /// The arena bytes that it names, as copied; empty if none.
    pub arena: &'a [u8],
}

impl EventMsg<'_> {
    /// See [`content_checksum`].
    #[must_use]
    pub fn checksum(&self) -> u64 {
        content_checksum(self.slot, self.arena)
    }
}

/// The event at hand in an inbox.
#[inline]
fn view_event<'a>(life: &'a Life, inbox: &'a Inbox, effects: u64) -> Result<EventMsg<'a>, ChannelError> {
    let (slot, arena) = (&inbox.slot, inbox.arena.as_slice());
    let event = Event::parse(slot, arena).map_err(|problem| life.fail(RingName::Events, problem))?;
    let effect = event.is_effect().then_some(effects);
    Ok(EventMsg { seq: slot.seq, cause: slot.cause, effect, event, slot, arena })
}

/// The request at hand in an inbox.
#[inline]
fn view_request<'a>(life: &'a Life, inbox: &'a Inbox) -> Result<RequestMsg<'a>, ChannelError> {
    let (slot, arena) = (&inbox.slot, inbox.arena.as_slice());
    let request = Request::parse(slot, arena).map_err(|problem| life.fail(RingName::Requests, problem))?;
    Ok(RequestMsg { seq: slot.seq, vtime: slot.vtime, request, slot, arena })
}

/// Counts the event at hand if it is an effect.
fn count_effect(inbox: &Inbox, effects: &mut u64) {
    *effects += u64::from(inbox.slot.kind < 0xC0);
}

#[inline]
fn push_slot(ring: &mut Producer<Segment>, slot: &Slot, data: &[u8], posted: bool) -> Result<Push, Problem> {
    jitter::point();
    let arena = if slot.arena_len == 0 { &[] } else { data };
    if arena.len() as u64 > ring.arena_bytes() {
        return Err(Problem::TooLong { len: data.len() as u64, max: ring.arena_bytes() });
    }
    if posted {
        ring.post(&mut slot.to_words(), arena, |words, off| words[6] |= off)
    } else {
        ring.push(&mut slot.to_words(), arena, |words, off| words[6] |= off)
    }
}

/// How a step of cpu-proc ended that may have to wait for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Sent, with this number; or the device is past that number.
    Done(u64),
    /// It cannot be done yet, and there is an event to take first: the device may be waiting for room in the event ring. Where
    /// that happens depends on host timing, so an effect taken because of it is journaled.
    EventPending,
    /// The wait was given up.
    Ended(Waited),
}

/// cpu-proc's end of a channel.
#[derive(Debug)]
pub struct CpuPort {
    requests: Producer<Segment>,
    events: Inbox,
    effects: u64,
    ahead: bool,
    spin: SpinPolicy,
    active: usize,
    company: Company,
    config: ChannelConfig,
    life: Life,
}

impl CpuPort {
    /// Attaches cpu-proc to a channel.
    ///
    /// # Errors
    /// If there is no such segment, or it makes no sense.
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        let (segment, layout, config) = attach_channel(name, Role::Cpu)?;
        let mut peers = vec![layout.device_state];
        if config.tap {
            peers.push(layout.daemon_state);
        }
        let links = layout.links(&config, layout.cpu_state, peers);
        let life = Life::new(segment.clone(), links);
        let requests = Producer::new(segment.clone(), layout.requests).map_err(|p| life.fail(RingName::Requests, p))?;
        let events = Reader::new(segment, layout.events, Side::Peer).map_err(|p| life.fail(RingName::Events, p))?;
        let events = Inbox::new(events);
        Ok(Self {
            requests,
            events,
            effects: 0,
            ahead: false,
            spin: SpinPolicy::cpu(),
            active: layout.active,
            company: Company { active: None, own: layout.cpu_core, other: layout.device_core },
            config,
            life,
        })
    }

    /// Lets effects come before the requests that cause them: in a replay without devices the daemon runs ahead.
    pub fn set_ahead(&mut self, ahead: bool) {
        self.ahead = ahead;
    }

    /// The channel's number in its machine.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.life.links.id
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.life.name()
    }

    /// The channel's sizes.
    #[must_use]
    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Sets how long waits on this port spin.
    pub fn set_spin(&mut self, spin: SpinPolicy) {
        self.spin = spin;
    }

    /// Says whether this channel is the one in use: only the device of an active channel spins. cpu-proc keeps at most one active.
    pub fn set_active(&self, active: bool) {
        self.life.segment.word(self.active).store(u64::from(active), Ordering::Relaxed);
    }

    /// Number of requests sent, which is the number of the next one.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.requests.produced()
    }

    /// Number of effects taken.
    #[must_use]
    pub fn effects_taken(&self) -> u64 {
        self.effects
    }

    /// Sends a request if there is room. `vtime` is the guest time in ns.
    ///
    /// # Errors
    /// If the other side wrote nonsense, or the data is longer than the arena.
    #[inline]
    pub fn try_send(&mut self, vtime: u64, request: &Request<'_>) -> Result<Option<u64>, ChannelError> {
        Ok(match self.push(vtime, request)? {
            Push::Done(seq) => Some(seq),
            Push::Blocked(_) => None,
        })
    }

    #[inline]
    fn push(&mut self, vtime: u64, request: &Request<'_>) -> Result<Push, ChannelError> {
        self.life.check()?;
        let pushed = push_slot(&mut self.requests, &request.to_slot(vtime), request.data(), !request.is_synchronous());
        pushed.map_err(|problem| self.life.fail(RingName::Requests, problem))
    }

    /// Sends a request; waits for room if there is none. `vtime` is the guest time in ns.
    ///
    /// # Errors
    /// If the channel ended, the other side wrote nonsense, or the data is longer than the arena.
    #[inline]
    pub fn send(&mut self, vtime: u64, request: &Request<'_>, abort: &Abort<'_>) -> Result<Sent, ChannelError> {
        loop {
            let blocked = match self.push(vtime, request)? {
                Push::Done(seq) => return Ok(Sent::Done(seq)),
                Push::Blocked(blocked) => blocked,
            };
            if let Some(outcome) = self.wait_requests(blocked, abort)? {
                return Ok(outcome);
            }
        }
    }

    /// Waits until a reader of the request ring is far enough (none) or anything else ends the wait.
    #[cold]
    fn wait_requests(&mut self, blocked: Blocked, abort: &Abort<'_>) -> Result<Option<Sent>, ChannelError> {
        self.settle();
        if self.has_event()? {
            return Ok(Some(Sent::EventPending));
        }
        let closed = self.life.closed();
        let space = self.life.interest(self.requests.target(blocked, closed), RingName::Requests);
        let event = self.on_event();
        if blocked.side == Side::Tap {
            // The daemon may be asleep until there is more to fetch.
            return match wait_one(space, &SpinPolicy::SLEEP, None, abort, || self.requests.kick(Side::Tap))? {
                Waited::Ready => Ok(None),
                ended => Ok(Some(Sent::Ended(ended))),
            };
        }
        match wait_many(&[space, event], &self.spin, abort)? {
            Waited::Ready => Ok(None),
            ended => Ok(Some(Sent::Ended(ended))),
        }
    }

    /// Requests that wait for no answer are published without a fence, so a device that is about to sleep may miss one. To be called before long
    /// after such a request; each wait of this port, and each request with an answer, does it too.
    #[inline]
    pub fn settle(&mut self) {
        self.requests.settle();
    }

    /// Whether the device is done with request `seq` (and with all before): its effects are in the event ring.
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    #[inline]
    pub fn device_passed(&mut self, seq: u64) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.settle();
        match self.requests.peer_passed() {
            Ok(passed) => Ok(passed > seq),
            Err(problem) => Err(self.life.fail(RingName::Requests, problem)),
        }
    }

    /// Waits until the device is done with request `seq`. Returns [`Sent::EventPending`] when there is an event to take first.
    ///
    /// # Errors
    /// If the channel ended or the other side wrote nonsense.
    pub fn wait_passed(&mut self, seq: u64, abort: &Abort<'_>) -> Result<Sent, ChannelError> {
        loop {
            if self.device_passed(seq)? {
                return Ok(Sent::Done(seq));
            }
            if let Some(outcome) = self.wait_requests(Blocked { side: Side::Peer, until: seq + 1 }, abort)? {
                return Ok(outcome);
            }
        }
    }

    /// Whether there is an event to take.
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    pub fn has_event(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.events.pending().map_err(|problem| self.life.fail(RingName::Events, problem))
    }

    /// Whether the device is done with every request and every event was taken.
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    pub fn drained(&mut self) -> Result<bool, ChannelError> {
        let sent = self.requests_sent();
        Ok((sent == 0 || self.device_passed(sent - 1)?) && !self.has_event()?)
    }

    #[inline]
    fn fetch(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.events.fetch().map_err(|problem| self.life.fail(RingName::Events, problem))
    }

    /// The next event without taking it.
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    pub fn peek_event(&mut self) -> Result<Option<EventMsg<'_>>, ChannelError> {
        if !self.fetch()? {
            return Ok(None);
        }
        view_event(&self.life, &self.events, self.effects).map(Some)
    }

    /// Takes the next event, if there is one.
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    #[inline]
    pub fn try_event(&mut self) -> Result<Option<EventMsg<'_>>, ChannelError> {
        if !self.fetch()? {
            return Ok(None);
        }
        jitter::point();
        let Slot { seq, cause, kind, .. } = self.events.slot;
        let (sent, number) = (self.requests.produced(), self.effects);
        // That the device is gone comes before the first request that finds none.
        let early = self.ahead || kind == EventKind::Gone as u8;
        if kind < 0xC0 && cause >= sent && !early {
            return Err(self.life.fail(RingName::Events, Problem::Cause { seq, cause, sent }));
        }
        self.events.held = false;
        count_effect(&self.events, &mut self.effects);
        let taken = self.events.reader.taken();
        self.events.reader.release(taken).map_err(|problem| self.life.fail(RingName::Events, problem))?;
        view_event(&self.life, &self.events, number).map(Some)
    }

    /// Takes the next event; waits for one. None if the wait was given up.
    ///
    /// # Errors
    /// If the channel ended or the other side wrote nonsense.
    #[inline]
    pub fn wait_event(&mut self, abort: &Abort<'_>) -> Result<Option<EventMsg<'_>>, ChannelError> {
        self.life.check()?;
        self.settle();
        if !self.events.poll()
            && wait_one(self.on_event(), &self.spin, Some(&self.company), abort, || {})? != Waited::Ready
        {
            return Ok(None);
        }
        self.try_event()
    }

    /// For [`wait_many`]: there is an event to take.
    #[must_use]
    pub fn on_event(&self) -> Interest<'_> {
        self.life.interest(self.events.target(1, self.life.closed()), RingName::Events)
    }
}

/// The device's end of a channel: device-proc, or in a replay without devices the log daemon.
#[derive(Debug)]
pub struct DevicePort {
    requests: Inbox,
    events: Producer<Segment>,
    effects: u64,
    spin: SpinPolicy,
    company: Company,
    config: ChannelConfig,
    life: Life,
}

impl DevicePort {
    /// Attaches device-proc ([`Role::Device`]) or the log daemon ([`Role::DaemonAsDevice`]) to a channel.
    ///
    /// # Errors
    /// If there is no such segment, it makes no sense, or the role is another one.
    pub fn attach(name: &str, role: Role) -> Result<Self, SegmentError> {
        if !matches!(role, Role::Device | Role::DaemonAsDevice) {
            return Err(SegmentError::Config("a device port is attached as Device or DaemonAsDevice"));
        }
        let (segment, layout, config) = attach_channel(name, role)?;
        let mut peers = vec![layout.cpu_state];
        if config.tap && role == Role::Device {
            peers.push(layout.daemon_state);
        }
        let links = layout.links(&config, layout.device_state, peers);
        let life = Life::new(segment.clone(), links);
        let spin = if role == Role::Device { SpinPolicy::device() } else { SpinPolicy::SLEEP };
        let events = Producer::new(segment.clone(), layout.events).map_err(|p| life.fail(RingName::Events, p))?;
        let requests =
            Reader::new(segment, layout.requests, Side::Peer).map_err(|p| life.fail(RingName::Requests, p))?;
        let company = Company { active: Some(layout.active), own: layout.device_core, other: layout.cpu_core };
        Ok(Self { requests: Inbox::new(requests), events, effects: 0, spin, company, config, life })
    }

    /// Leaves this end to the process that has it, until [`Self::take_charge`]: the others are not told if this port goes.
    pub fn stand_by(&mut self) {
        self.life.silent = true;
    }

    /// The reverse of [`Self::stand_by`].
    pub fn take_charge(&mut self) {
        self.life.silent = false;
    }

    /// Goes on where another process left this end, which died or rests: at its cursors as they are now. The request that was not completed is
    /// taken again; how many of its effects were emitted is for the caller to know.
    ///
    /// # Errors
    /// If the cursors make no sense.
    pub fn succeed(&mut self) -> Result<(), ChannelError> {
        let segment = self.life.segment.clone();
        let (events, requests) = (self.events.ring().clone(), self.requests.reader.ring().clone());
        let extent = |words: &[u64]| Slot::from_words(words.try_into().expect("a slot's words")).extent();
        self.events =
            Producer::succeed(segment.clone(), events, extent).map_err(|p| self.life.fail(RingName::Events, p))?;
        let reader =
            Reader::succeed(segment, requests, Side::Peer).map_err(|p| self.life.fail(RingName::Requests, p))?;
        self.requests = Inbox::new(reader);
        Ok(())
    }

    /// Number of events emitted, on this ring by whichever process.
    #[must_use]
    pub fn events_emitted(&self) -> u64 {
        self.events.produced()
    }

    /// The channel's number in its machine.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.life.links.id
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.life.name()
    }

    /// The channel's sizes.
    #[must_use]
    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Sets how long waits on this port spin.
    pub fn set_spin(&mut self, spin: SpinPolicy) {
        self.spin = spin;
    }

    /// Number of requests taken.
    #[must_use]
    pub fn requests_taken(&self) -> u64 {
        self.requests.taken()
    }

    /// Number of effects emitted.
    #[must_use]
    pub fn effects_emitted(&self) -> u64 {
        self.effects
    }

    #[inline]
    fn fetch(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.requests.fetch().map_err(|problem| self.life.fail(RingName::Requests, problem))
    }

    /// Takes the next request, if there is one. It counts as done only after [`Self::complete`].
    ///
    /// # Errors
    /// If the other side wrote nonsense.
    #[inline]
    pub fn try_request(&mut self) -> Result<Option<RequestMsg<'_>>, ChannelError> {
        if !self.fetch()? {
            return Ok(None);
        }
        jitter::point();
        self.requests.held = false;
        view_request(&self.life, &self.requests).map(Some)
    }

    /// Takes the next request; waits for one. None if the wait was given up. It counts as done only after [`Self::complete`].
    ///
    /// # Errors
    /// If the channel ended or the other side wrote nonsense.
    #[inline]
    pub fn next_request(&mut self, abort: &Abort<'_>) -> Result<Option<RequestMsg<'_>>, ChannelError> {
        self.life.check()?;
        let company = Some(&self.company);
        if !self.requests.poll() && wait_one(self.on_request(), &self.spin, company, abort, || {})? != Waited::Ready {
            return Ok(None);
        }
        self.try_request()
    }

    /// Says that every request taken so far is done, all its events emitted: the device's cursor passes them.
    ///
    /// # Errors
    /// If the port is poisoned.
    #[inline]
    pub fn complete(&mut self) -> Result<(), ChannelError> {
        self.life.check()?;
        jitter::point();
        let taken = self.requests.taken();
        self.requests.reader.release(taken).map_err(|problem| self.life.fail(RingName::Requests, problem))
    }

    #[inline]
    fn push(&mut self, cause: u64, event: &Event<'_>) -> Result<Push, ChannelError> {
        self.life.check()?;
        let pushed = push_slot(&mut self.events, &event.to_slot(cause), event.data(), false);
        let pushed = pushed.map_err(|problem| self.life.fail(RingName::Events, problem))?;
        if matches!(pushed, Push::Done(_)) {
            self.effects += u64::from(event.is_effect());
        }
        Ok(pushed)
    }

    /// Emits an event if there is room. `cause` is the number of the request that caused it.
    ///
    /// # Errors
    /// If the other side wrote nonsense, or the data is longer than the arena.
    #[inline]
    pub fn try_emit(&mut self, cause: u64, event: &Event<'_>) -> Result<Option<u64>, ChannelError> {
        Ok(match self.push(cause, event)? {
            Push::Done(seq) => Some(seq),
            Push::Blocked(_) => None,
        })
    }

    /// Emits an event; waits for room if there is none. None if the wait was given up, and the event not emitted.
    ///
    /// # Errors
    /// If the channel ended, the other side wrote nonsense, or the data is longer than the arena.
    #[inline]
    pub fn emit(&mut self, cause: u64, event: &Event<'_>, abort: &Abort<'_>) -> Result<Option<u64>, ChannelError> {
        loop {
            let blocked = match self.push(cause, event)? {
                Push::Done(seq) => return Ok(Some(seq)),
                Push::Blocked(blocked) => blocked,
            };
            let interest = self.life.interest(self.events.target(blocked, self.life.closed()), RingName::Events);
            let kick = || self.events.kick(blocked.side);
            if wait_one(interest, &SpinPolicy::SLEEP, None, abort, kick)? != Waited::Ready {
                return Ok(None);
            }
        }
    }

    /// For [`wait_many`]: there is a request to take.
    #[must_use]
    pub fn on_request(&self) -> Interest<'_> {
        self.life.interest(self.requests.target(1, self.life.closed()), RingName::Requests)
    }

    /// For [`wait_many`]: cpu-proc took another event, so that one more slot is free than when [`Self::try_emit`] last looked.
    #[must_use]
    pub fn on_room(&self) -> Interest<'_> {
        let until = self.events.peer_seen() + 1;
        let target = self.events.target(Blocked { side: Side::Peer, until }, self.life.closed());
        self.life.interest(target, RingName::Events)
    }
}

/// The log daemon's tap of a channel: reads both rings, and frees what it committed.
#[derive(Debug)]
pub struct TapPort {
    requests: Inbox,
    events: Inbox,
    effects: u64,
    config: ChannelConfig,
    life: Life,
}

impl TapPort {
    /// Attaches the log daemon to a channel that was made with a tap.
    ///
    /// # Errors
    /// If there is no such segment, or it makes no sense, or has no tap.
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        let (segment, layout, config) = attach_channel(name, Role::Daemon)?;
        let ChannelLayout { ref requests, ref events, daemon_state, .. } = layout;
        // The tap outlives both ends, so as to lose nothing: only the supervisor ends its waits.
        let life = Life::new(segment.clone(), layout.links(&config, daemon_state, Vec::new()));
        let requests =
            Reader::new(segment.clone(), requests.clone(), Side::Tap).map_err(|p| life.fail(RingName::Requests, p))?;
        let events = Reader::new(segment, events.clone(), Side::Tap).map_err(|p| life.fail(RingName::Events, p))?;
        Ok(Self { requests: Inbox::new(requests), events: Inbox::new(events), effects: 0, config, life })
    }

    /// The channel's number in its machine.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.life.links.id
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.life.name()
    }

    /// The channel's sizes.
    #[must_use]
    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Number of requests taken.
    #[must_use]
    pub fn requests_taken(&self) -> u64 {
        self.requests.taken()
    }

    /// Number of events taken, side messages included.
    #[must_use]
    pub fn events_taken(&self) -> u64 {
        self.events.taken()
    }

    /// Number of effects taken.
    #[must_use]
    pub fn effects_taken(&self) -> u64 {
        self.effects
    }

    fn fetch_request(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.requests.fetch().map_err(|problem| self.life.fail(RingName::Requests, problem))
    }

    fn fetch_event(&mut self) -> Result<bool, ChannelError> {
        self.life.check()?;
        self.events.fetch().map_err(|problem| self.life.fail(RingName::Events, problem))
    }

    /// The next request without taking it.
    ///
    /// # Errors
    /// If cpu-proc wrote nonsense.
    pub fn peek_request(&mut self) -> Result<Option<RequestMsg<'_>>, ChannelError> {
        if !self.fetch_request()? {
            return Ok(None);
        }
        view_request(&self.life, &self.requests).map(Some)
    }

    /// Takes the next request, if there is one. It stays occupied until committed.
    ///
    /// # Errors
    /// If cpu-proc wrote nonsense.
    pub fn next_request(&mut self) -> Result<Option<RequestMsg<'_>>, ChannelError> {
        if !self.fetch_request()? {
            return Ok(None);
        }
        jitter::point();
        self.requests.held = false;
        view_request(&self.life, &self.requests).map(Some)
    }

    /// The next event without taking it.
    ///
    /// # Errors
    /// If the device wrote nonsense.
    pub fn peek_event(&mut self) -> Result<Option<EventMsg<'_>>, ChannelError> {
        if !self.fetch_event()? {
            return Ok(None);
        }
        view_event(&self.life, &self.events, self.effects).map(Some)
    }

    /// Takes the next event, if there is one. It stays occupied until committed.
    ///
    /// # Errors
    /// If the device wrote nonsense.
    pub fn next_event(&mut self) -> Result<Option<EventMsg<'_>>, ChannelError> {
        if !self.fetch_event()? {
            return Ok(None);
        }
        jitter::point();
        self.events.held = false;
        let number = self.effects;
        count_effect(&self.events, &mut self.effects);
        view_event(&self.life, &self.events, number).map(Some)
    }

    /// Commits every request numbered below `upto`: it is safe elsewhere, and its slot may be reused.
    ///
    /// # Errors
    /// [`Problem::Misuse`] if it was not taken yet.
    pub fn commit_requests(&mut self, upto: u64) -> Result<(), ChannelError> {
        commit(&self.life, &mut self.requests, RingName::Requests, upto)
    }

    /// Commits every event whose `seq` is below `upto`: it is safe elsewhere, and its slot may be reused.
    ///
    /// # Errors
    /// [`Problem::Misuse`] if it was not taken yet.
    pub fn commit_events(&mut self, upto: u64) -> Result<(), ChannelError> {
        commit(&self.life, &mut self.events, RingName::Events, upto)
    }

    /// Commits everything taken.
    ///
    /// # Errors
    /// If the port is poisoned.
    pub fn commit(&mut self) -> Result<(), ChannelError> {
        self.commit_requests(self.requests.taken())?;
        self.commit_events(self.events.taken())
    }

    /// Whether one of the producers is blocked until this tap commits.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.requests.reader.pressed() || self.events.reader.pressed()
    }

    /// For [`wait_many`]: there are `more` requests (at least 1) to take, or cpu-proc is blocked until some are committed.
    #[must_use]
    pub fn on_requests(&self, more: u64) -> Interest<'_> {
        tap_interest(&self.life, &self.requests, RingName::Requests, more)
    }

    /// For [`wait_many`]: there are `more` events (at least 1) to take, or the device is blocked until some are committed.
    #[must_use]
    pub fn on_events(&self, more: u64) -> Interest<'_> {
        tap_interest(&self.life, &self.events, RingName::Events, more)
    }
}

fn tap_interest<'a>(life: &'a Life, inbox: &'a Inbox, ring: RingName, more: u64) -> Interest<'a> {
    // Who slept until a ring is full would hold its producer up.
    let more = more.min(inbox.reader.ring().capacity / 2).max(1) - u64::from(inbox.held);
    life.interest(inbox.reader.target(more, life.closed()), ring)
}

fn commit(life: &Life, inbox: &mut Inbox, ring: RingName, upto: u64) -> Result<(), ChannelError> {
    life.check()?;
    jitter::point();
    let result = if upto > inbox.taken() {
        Err(Problem::Misuse("committed a message that was not taken"))
    } else {
        inbox.reader.release(upto)
    };
    result.map_err(|problem| life.fail(ring, problem))
}
