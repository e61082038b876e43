//! What lies where in a segment. `docs/channels.md` has the same as a table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{ChannelError, Problem, RingName};
use crate::ring::{AWAKE, Ring, Space, UNFILLED};
use crate::segment::{Region, Role, Segment, SegmentError, page_size};

/// The most slots a ring may have.
pub const MAX_SLOTS: u32 = 1 << 16;
/// The most bytes an arena may have.
pub const MAX_ARENA_BYTES: u32 = 64 << 20;

/// `Reprise` and a NUL, little-endian.
const MAGIC: u64 = u64::from_le_bytes(*b"Reprise\0");
/// Version of the layout, and whether it is a channel (0) or a control segment (1) in the upper half.
const VERSION: u64 = 3;
const CONTROL: u64 = 1 << 32;

/// Values of an owner's state word.
pub(crate) const ATTACHED: u64 = 1;
/// The owner left in good order. Anything from here on means that nothing more will come.
pub(crate) const LEFT: u64 = 2;
/// The owner met a wrong value and gave the channel up.
pub(crate) const POISONED: u64 = 3;

/// Words of a cache-line pair: neighbours are prefetched together, so what different processes write lies this far apart.
const LINE: usize = 16;
/// Words of the header in the supervisor's page.
const NAME_WORD: usize = 16;
const NAME_WORDS: usize = 8;
const CLOSED_WORD: usize = 4 * LINE;

/// Sizes of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The channel's number in its machine.
    pub id: u16,
    /// The device's name in the machine description, at most 64 bytes of UTF-8; longer ones are cut. For messages only.
    pub name: String,
    /// Slots in the request ring: a power of two from 2 to [`MAX_SLOTS`].
    pub request_slots: u32,
    /// Slots in the event ring: likewise.
    pub event_slots: u32,
    /// Bytes in the request arena: a multiple of 64 from 64 to [`MAX_ARENA_BYTES`]. No message may carry more.
    pub request_arena: u32,
    /// Bytes in the event arena: likewise.
    pub event_arena: u32,
    /// Whether the log daemon reads along: no slot is reused before it committed it.
    pub tap: bool,
}

impl ChannelConfig {
    /// The default sizes: 4096 slots and 256 KiB of arena each way.
    #[must_use]
    pub fn new(id: u16, name: &str, tap: bool) -> Self {
        Self {
            id,
            name: name.to_owned(),
            request_slots: 4096,
            event_slots: 4096,
            request_arena: 256 << 10,
            event_arena: 256 << 10,
            tap,
        }
    }
}

/// Sizes of the control segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// Entries in the journal ring: a power of two from 2 to [`MAX_SLOTS`].
    pub journal_slots: u32,
    /// Entries in the script ring: likewise.
    pub script_slots: u32,
    /// Bytes in the script arena: a multiple of 64 from 64 to [`MAX_ARENA_BYTES`].
    pub script_arena: u32,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { journal_slots: 16384, script_slots: 4096, script_arena: 256 << 10 }
    }
}

/// The words through which the ends of a channel tell each other about life and death.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// The channel's name, for errors.
    pub(crate) channel: Arc<str>,
    /// Its number.
    pub(crate) id: u16,
    /// The supervisor's word: 0 while open, else a close reason.
    pub(crate) closed: usize,
    /// The own state word.
    pub(crate) own: usize,
    /// State words of those without whom waiting makes no sense.
    pub(crate) peers: Vec<usize>,
    /// Every word that anybody sleeps on.
    pub(crate) futexes: Vec<usize>,
}

impl Links {
    pub(crate) fn error(&self, ring: RingName, problem: Problem) -> ChannelError {
        ChannelError { channel: self.channel.clone(), ring, problem }
    }

    /// Announces a new state of this end and wakes everybody to see it.
    pub(crate) fn announce(&self, space: &Segment, state: u64) {
        space.word(self.own).store(state, Ordering::Release);
        Segment::fence();
        for &word in &self.futexes {
            space.wake(word);
        }
    }
}

/// Hands out whole pages, one owner after the other.
struct Pages {
    page: usize,
    next: usize,
    regions: Vec<Region>,
}

impl Pages {
    fn new() -> Self {
        Self { page: page_size(), next: 0, regions: Vec::new() }
    }

    /// Number of the first word of fresh pages of `bytes` bytes.
    fn take(&mut self, owner: Role, bytes: usize) -> usize {
        let (start, len) = (self.next, bytes.next_multiple_of(self.page));
        self.next += len;
        self.regions.push(Region { owner, start, len });
        start / 8
    }
}

/// Layout of a channel's segment.
#[derive(Clone, Debug)]
pub(crate) struct ChannelLayout {
    pub(crate) requests: Ring,
    pub(crate) events: Ring,
    pub(crate) cpu_state: usize,
    pub(crate) device_state: usize,
    pub(crate) daemon_state: usize,
    /// Not 0 while cpu-proc uses this channel more than any other.
    pub(crate) active: usize,
    /// The host core on which cpu-proc last began to wait, plus one; 0 while unknown.
    pub(crate) cpu_core: usize,
    /// The same of the device.
    pub(crate) device_core: usize,
    pub(crate) regions: Vec<Region>,
    pub(crate) bytes: usize,
}

impl ChannelLayout {
    pub(crate) fn new(config: &ChannelConfig) -> Result<Self, SegmentError> {
        for slots in [config.request_slots, config.event_slots] {
            check_slots(slots)?;
        }
        for arena in [config.request_arena, config.event_arena] {
            check_arena(arena)?;
        }
        let mut pages = Pages::new();
        pages.take(Role::Supervisor, 4096);
        let cpu = pages.take(Role::Cpu, 4096);
        let request_slots = pages.take(Role::Cpu, config.request_slots as usize * 64);
        let request_arena = pages.take(Role::Cpu, config.request_arena as usize);
        let device = pages.take(Role::Device, 4096);
        let event_slots = pages.take(Role::Device, config.event_slots as usize * 64);
        let event_arena = pages.take(Role::Device, config.event_arena as usize);
        let daemon = pages.take(Role::Daemon, 4096);
        let requests = Ring {
            produced: cpu,
            space_peer_wake: cpu + LINE,
            space_tap_wake: cpu + LINE + 1,
            tap_bell: cpu + LINE + 2,
            peer: device + 2 * LINE,
            peer_wake: device + 3 * LINE,
            tap: config.tap.then_some(daemon),
            tap_wake: daemon + LINE,
            slots: request_slots,
            capacity: u64::from(config.request_slots),
            arena: request_arena,
            arena_bytes: u64::from(config.request_arena),
        };
        let events = Ring {
            produced: device,
            space_peer_wake: device + LINE,
            space_tap_wake: device + LINE + 1,
            tap_bell: device + LINE + 2,
            peer: cpu + 2 * LINE,
            peer_wake: cpu + 3 * LINE,
            tap: config.tap.then_some(daemon + 2 * LINE),
            tap_wake: daemon + 3 * LINE,
            slots: event_slots,
            capacity: u64::from(config.event_slots),
            arena: event_arena,
            arena_bytes: u64::from(config.event_arena),
        };
        Ok(Self {
            requests,
            events,
            cpu_state: cpu + 4 * LINE,
            active: cpu + 5 * LINE,
            cpu_core: cpu + 6 * LINE,
            device_core: device + 5 * LINE,
            device_state: device + 4 * LINE,
            daemon_state: daemon + 4 * LINE,
            bytes: pages.next,
            regions: pages.regions,
        })
    }

    pub(crate) fn links(&self, config: &ChannelConfig, own: usize, peers: Vec<usize>) -> Links {
        let (r, e) = (&self.requests, &self.events);
        let mut futexes = vec![r.produced, r.peer, r.tap_bell, e.produced, e.peer, e.tap_bell];
        futexes.extend(r.tap.into_iter().chain(e.tap));
        Links { channel: config.name.as_str().into(), id: config.id, closed: CLOSED_WORD, own, peers, futexes }
    }
}

/// Layout of the control segment.
#[derive(Clone, Debug)]
pub(crate) struct ControlLayout {
    pub(crate) journal: Ring,
    pub(crate) script: Ring,
    pub(crate) cpu_state: usize,
    pub(crate) daemon_state: usize,
    /// First of the status words.
    pub(crate) status: usize,
    pub(crate) regions: Vec<Region>,
    pub(crate) bytes: usize,
}

impl ControlLayout {
    pub(crate) fn new(config: &ControlConfig) -> Result<Self, SegmentError> {
        for slots in [config.journal_slots, config.script_slots] {
            check_slots(slots)?;
        }
        check_arena(config.script_arena)?;
        let mut pages = Pages::new();
        pages.take(Role::Supervisor, 4096);
        let cpu = pages.take(Role::Cpu, 4096);
        let journal_slots = pages.take(Role::Cpu, config.journal_slots as usize * 64);
        let daemon = pages.take(Role::Daemon, 4096);
        let script_slots = pages.take(Role::Daemon, config.script_slots as usize * 64);
        let script_arena = pages.take(Role::Daemon, config.script_arena as usize);
        let journal = Ring {
            produced: cpu,
            space_peer_wake: cpu + LINE,
            space_tap_wake: cpu + LINE + 1,
            tap_bell: cpu + LINE + 2,
            peer: daemon + 2 * LINE,
            peer_wake: daemon + 3 * LINE,
            tap: None,
            tap_wake: daemon + 3 * LINE + 1,
            slots: journal_slots,
            capacity: u64::from(config.journal_slots),
            arena: journal_slots,
            arena_bytes: 0,
        };
        let script = Ring {
            produced: daemon,
            space_peer_wake: daemon + LINE,
            space_tap_wake: daemon + LINE + 1,
            tap_bell: daemon + LINE + 2,
            peer: cpu + 2 * LINE,
            peer_wake: cpu + 3 * LINE,
            tap: None,
            tap_wake: cpu + 3 * LINE + 1,
            slots: script_slots,
            capacity: u64::from(config.script_slots),
            arena: script_arena,
            arena_bytes: u64::from(config.script_arena),
        };
        Ok(Self {
            journal,
            script,
            cpu_state: cpu + 4 * LINE,
            status: cpu + 6 * LINE,
            daemon_state: daemon + 4 * LINE,
            bytes: pages.next,
            regions: pages.regions,
        })
    }

    pub(crate) fn links(&self, own: usize, peers: Vec<usize>) -> Links {
        let futexes = vec![self.journal.produced, self.journal.peer, self.script.produced, self.script.peer];
        Links { channel: "control".into(), id: u16::MAX, closed: CLOSED_WORD, own, peers, futexes }
    }
}

fn check_slots(slots: u32) -> Result<(), SegmentError> {
    if slots.is_power_of_two() && (2..=MAX_SLOTS).contains(&slots) {
        Ok(())
    } else {
        Err(SegmentError::Config("a ring has a power of two of slots, from 2 to 65536"))
    }
}

fn check_arena(bytes: u32) -> Result<(), SegmentError> {
    if bytes % 64 == 0 && (64..=MAX_ARENA_BYTES).contains(&bytes) {
        Ok(())
    } else {
        Err(SegmentError::Config("an arena has a multiple of 64 bytes, from 64 to 64 MiB"))
    }
}

/// Words 0.. of the supervisor's page.
fn write_header(segment: &Segment, kind: u64, sizes: &[u64], name: &str, wakes: &[&Ring]) {
    let put = |word: usize, value| segment.word(word).store(value, Ordering::Relaxed);
    put(1, VERSION | kind);
    put(2, segment.bytes() as u64);
    put(3, page_size() as u64);
    for (index, &size) in sizes.iter().enumerate() {
        put(4 + index, size);
    }
    let mut bytes = [0; NAME_WORDS * 8];
    let len = (0..=name.len().min(bytes.len())).rev().find(|&len| name.is_char_boundary(len)).unwrap_or(0);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    for (index, chunk) in bytes.chunks_exact(8).enumerate() {
        put(NAME_WORD + index, chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    }
    for ring in wakes {
        for word in [ring.peer_wake, ring.tap_wake, ring.space_peer_wake, ring.space_tap_wake] {
            put(word, AWAKE);
        }
        for slot in 0..ring.capacity as usize {
            put(ring.slots + slot * 8, UNFILLED);
        }
    }
    segment.word(0).store(MAGIC, Ordering::Release);
}

/// Attaches a segment and checks its header.
fn attach(name: &str, kind: u64) -> Result<Segment, SegmentError> {
    let segment = Segment::attach(name)?;
    check_header(&segment, name, kind)?;
    Ok(segment)
}

fn check_header(segment: &Segment, name: &str, kind: u64) -> Result<(), SegmentError> {
    let get = |word: usize| segment.word(word).load(Ordering::Acquire);
    let wrong = |why| Err(SegmentError::Format { name: name.to_owned(), why });
    if get(0) != MAGIC {
        return wrong("it is no segment of a machine");
    }
    if get(1) != VERSION | kind {
        return wrong("it is of another kind or version: all programs of a machine must come from the same build");
    }
    if get(2) != segment.bytes() as u64 || get(3) != page_size() as u64 {
        return wrong("its size is not the one in its header");
    }
    Ok(())
}

fn size_at(segment: &Segment, word: usize) -> u32 {
    // A value too large for its range is refused with the layout.
    u32::try_from(segment.word(word).load(Ordering::Relaxed)).unwrap_or(u32::MAX)
}

pub(crate) fn create_channel(name: &str, config: &ChannelConfig) -> Result<(Segment, ChannelLayout), SegmentError> {
    let layout = ChannelLayout::new(config)?;
    let segment = Segment::create(name, layout.bytes)?;
    let sizes = [config.request_slots, config.event_slots, config.request_arena, config.event_arena].map(u64::from);
    let sizes = [sizes[0], sizes[1], sizes[2], sizes[3], u64::from(config.tap), u64::from(config.id)];
    write_header(&segment, 0, &sizes, &config.name, &[&layout.requests, &layout.events]);
    segment.protect(name, &layout.regions, Role::Supervisor).inspect_err(|_| drop(crate::segment::unlink(name)))?;
    Ok((segment, layout))
}

pub(crate) fn attach_channel(name: &str, role: Role) -> Result<(Segment, ChannelLayout, ChannelConfig), SegmentError> {
    let segment = attach(name, 0)?;
    let mut bytes = Vec::with_capacity(NAME_WORDS * 8);
    for word in segment.words(NAME_WORD, NAME_WORDS) {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let config = ChannelConfig {
        id: size_at(&segment, 9) as u16,
        name: String::from_utf8_lossy(&bytes[..len]).into_owned(),
        request_slots: size_at(&segment, 4),
        event_slots: size_at(&segment, 5),
        request_arena: size_at(&segment, 6),
        event_arena: size_at(&segment, 7),
        tap: size_at(&segment, 8) != 0,
    };
    let layout = ChannelLayout::new(&config)?;
    if layout.bytes != segment.bytes() {
        return Err(SegmentError::Format { name: name.to_owned(), why: "its rings do not fill it" });
    }
    segment.protect(name, &layout.regions, role)?;
    Ok((segment, layout, config))
}

pub(crate) fn create_control(name: &str, config: &ControlConfig) -> Result<(Segment, ControlLayout), SegmentError> {
    let layout = ControlLayout::new(config)?;
    let segment = Segment::create(name, layout.bytes)?;
    let sizes = [config.journal_slots, config.script_slots, config.script_arena].map(u64::from);
    write_header(&segment, CONTROL, &sizes, "control", &[&layout.journal, &layout.script]);
    segment.protect(name, &layout.regions, Role::Supervisor).inspect_err(|_| drop(crate::segment::unlink(name)))?;
    Ok((segment, layout))
}

pub(crate) fn attach_control(name: &str, role: Role) -> Result<(Segment, ControlLayout), SegmentError> {
    let segment = attach(name, CONTROL)?;
    let config = ControlConfig {
        journal_slots: size_at(&segment, 4),
        script_slots: size_at(&segment, 5),
        script_arena: size_at(&segment, 6),
    };
    let layout = ControlLayout::new(&config)?;
    if layout.bytes != segment.bytes() {
        return Err(SegmentError::Format { name: name.to_owned(), why: "its rings do not fill it" });
    }
    segment.protect(name, &layout.regions, role)?;
    Ok((segment, layout))
}

/// Closes a segment: nobody waits on it any more.
pub(crate) fn close(segment: &Segment, futexes: &[usize], reason: u32) {
    segment.word(CLOSED_WORD).store(u64::from(reason), Ordering::Release);
    Segment::fence();
    segment.wake(CLOSED_WORD);
    for &word in futexes {
        segment.wake(word);
    }
}
