//! Slots of the request and event rings, and their typed forms.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::error::Problem;

/// Size of a slot in bytes.
pub const SLOT_BYTES: usize = 64;
/// `flags` bit of a `Write`: nobody waits for it, and no `Ack` answers it.
pub const FLAG_POSTED: u16 = 1;

/// One message of a request or event ring, as it lies in shared memory and in recordings. Little-endian.
///
/// Messages with data (`Host`, `DmaDone`, `Burst`, `Dma`, `HostOut`, `HostOffer`, `Fault`) carry up to 8 bytes in `inline`, with their
/// number in `size`; longer data lies in the ring's arena, and `size` and `inline` are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// Number in its ring, from 0.
    pub seq: u64,
    /// Events: the request's `seq` that caused it. Requests: 0.
    pub cause: u64,
    /// Requests: guest time in ns. Events: the argument of `Arm`, else 0.
    pub vtime: u64,
    /// A [`RequestKind`] or an [`EventKind`].
    pub kind: u8,
    /// Access size in bytes, or length of inline data.
    pub size: u8,
    /// [`FLAG_POSTED`].
    pub flags: u16,
    /// Pin, timer number or tag.
    pub arg: u32,
    /// Register offset, or port.
    pub offset: u64,
    /// Data.
    pub value: u64,
    /// Offset of the bulk data in the arena, in bytes; a multiple of 8.
    pub arena_off: u32,
    /// Length of the bulk data in bytes; 0 if none.
    pub arena_len: u32,
    /// Small payload.
    pub inline: [u8; 8],
}

const _: () = assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == 8);

impl Slot {
    /// The slot as eight little-endian words.
    #[inline]
    #[must_use]
    pub fn to_words(&self) -> [u64; 8] {
        transmute!(*self)
    }

    /// A slot from eight little-endian words.
    #[inline]
    #[must_use]
    pub fn from_words(words: [u64; 8]) -> Self {
        transmute!(words)
    }

    /// Where in the arena its bulk data lies, and how long that is.
    pub(crate) fn extent(&self) -> (u64, u64) {
        (self.arena_off.into(), self.arena_len.into())
    }

    /// Puts `data` inline, or leaves it for the arena. `arena_off` is the ring's business.
    fn set_data(&mut self, data: &[u8]) {
        if data.len() <= 8 {
            self.size = data.len() as u8;
            self.inline[..data.len()].copy_from_slice(data);
        } else {
            self.arena_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        }
    }

    /// The message's data: inline bytes, or `arena`, the bytes that were copied for it.
    fn data<'a>(&'a self, arena: &'a [u8]) -> Result<&'a [u8], Problem> {
        if self.arena_len != 0 {
            // The short form is the only one for short data: one message, one encoding.
            if self.arena_len <= 8 || arena.len() != self.arena_len as usize {
                return Err(self.wrong_field());
            }
            return Ok(arena);
        }
        self.inline.get(..usize::from(self.size)).ok_or_else(|| self.wrong_size())
    }

    fn wrong_field(&self) -> Problem {
        Problem::Field { seq: self.seq, kind: self.kind }
    }

    fn wrong_size(&self) -> Problem {
        Problem::Size { seq: self.seq, kind: self.kind, size: self.size }
    }

    fn access_size(&self) -> Result<u8, Problem> {
        if matches!(self.size, 1 | 2 | 4 | 8) { Ok(self.size) } else { Err(self.wrong_size()) }
    }

    fn level(&self) -> Result<bool, Problem> {
        match self.value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong_field()),
        }
    }

    /// Checks that `self` is exactly what encoding the parsed message gives, so that no unused field carries anything.
    fn expect_canonical(&self, mut canonical: Slot) -> Result<(), Problem> {
        canonical.seq = self.seq;
        canonical.cause = self.cause;
        canonical.arena_off = if self.arena_len == 0 { 0 } else { self.arena_off };
        if canonical == *self { Ok(()) } else { Err(self.wrong_field()) }
    }
}

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// Every kind, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl TryFrom<u8> for $name {
            type Error = u8;

            /// # Errors
            /// The byte itself if it names no kind.
            fn try_from(byte: u8) -> Result<Self, u8> {
                match byte { $($value => Ok(Self::$variant),)* _ => Err(byte) }
            }
        }
    };
}
pub(crate) use kinds;

kinds! {
    /// Kinds of a request.
    RequestKind {
        Reset = 1,
        Read = 2,
        Write = 3,
        Line = 4,
        Timer = 5,
        DmaDone = 6,
        Host = 7,
        Popped = 8,
        Burst = 9,
    }
}

kinds! {
    /// Kinds of an event. Below `0xC0` they are *effects*, from there on *side messages*, which change nothing in the guest.
    EventKind {
        Reply = 0x81,
        Ack = 0x82,
        SetLine = 0x83,
        Publish = 0x84,
        Arm = 0x85,
        Disarm = 0x86,
        Dma = 0x87,
        Queue = 0x88,
        QueueClear = 0x89,
        Gone = 0x8a,
        HostOut = 0xC0,
        HostOffer = 0xC1,
        Fault = 0xC2,
    }
}

impl EventKind {
    /// Whether this kind is an effect: it takes a number, and its consumption has a position.
    #[inline]
    #[must_use]
    pub const fn is_effect(self) -> bool {
        (self as u8) < 0xC0
    }
}

/// What cpu-proc asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Back to the reset state.
    Reset,
    /// A load from a register.
    Read {
        /// Register offset in bytes.
        offset: u64,
        /// Access size in bytes: 1, 2, 4 or 8.
        size: u8,
    },
    /// A store to a register.
    Write {
        /// Register offset in bytes.
        offset: u64,
        /// Access size in bytes: 1, 2, 4 or 8.
        size: u8,
        /// The data; bits above `size` bytes are 0.
        value: u64,
        /// Nobody waits for it, and no `Ack` answers it.
        posted: bool,
    },
    /// An input line of the device changed.
    Line {
        /// The device's input pin.
        pin: u32,
        /// Its new level.
        level: bool,
    },
    /// A timer that the device armed is due.
    Timer {
        /// The timer's number.
        id: u32,
    },
    /// A DMA that the device asked for is complete.
    DmaDone {
        /// The device's tag of it.
        tag: u32,
        /// What was read from guest memory.
        data: &'a [u8],
    },
    /// Host input, admitted by cpu-proc.
    Host {
        /// The device's host port.
        port: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// The CPU has taken values from a queue.
    Popped {
        /// The queue's index.
        queue: u32,
        /// How many.
        count: u32,
    },
    /// Posted stores to one register, one after the other. The message's guest time is that of the first.
    Burst {
        /// Register offset in bytes.
        offset: u64,
        /// Access size in bytes: 1, 2 or 4.
        size: u8,
        /// The stores, in the form of [`burst`].
        data: &'a [u8],
    },
}

/// What the bytes of a [`Request::Burst`] are: for each store eight of them, little-endian: the guest time since the store before (u32, ns), and the data
/// (u32; bits above the access size are 0).
pub mod burst {
    use super::mask;

    /// Bytes of a store.
    const STORE: usize = 8;
    /// Most stores in a message.
    pub const MAX_STORES: usize = 64;

    /// Adds a store.
    #[inline]
    pub fn push(data: &mut Vec<u8>, since: u32, value: u32) {
        data.extend_from_slice(&(u64::from(value) << 32 | u64::from(since)).to_le_bytes());
    }

    /// The stores of a message that begins at `vtime`: the guest time of each, and its data.
    pub fn stores(vtime: u64, data: &[u8]) -> impl Iterator<Item = (u64, u32)> + '_ {
        data.chunks_exact(STORE).scan(vtime, |now, bytes| {
            let word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            *now = now.saturating_add(word & 0xffff_ffff);
            Some((*now, (word >> 32) as u32))
        })
    }

    /// Whether `data` can be the stores of a message: the first at the message's own time, none wider than `size`.
    #[must_use]
    pub fn is_sound(size: u8, data: &[u8]) -> bool {
        matches!(size, 1 | 2 | 4)
            && !data.is_empty()
            && data.len() % STORE == 0
            && data.len() <= MAX_STORES * STORE
            && data[..4] == [0; 4]
            && stores(0, data).all(|(_, value)| u64::from(value) <= mask(size))
    }
}

const fn mask(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (size * 8)) - 1 }
}

impl<'a> Request<'a> {
    /// The request's kind.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Reset => RequestKind::Reset,
            Self::Read { .. } => RequestKind::Read,
            Self::Write { .. } => RequestKind::Write,
            Self::Line { .. } => RequestKind::Line,
            Self::Timer { .. } => RequestKind::Timer,
            Self::DmaDone { .. } => RequestKind::DmaDone,
            Self::Host { .. } => RequestKind::Host,
            Self::Popped { .. } => RequestKind::Popped,
            Self::Burst { .. } => RequestKind::Burst,
        }
    }

    /// Whether the device answers it with a `Reply` or an `Ack`: all do but posted writes.
    #[inline]
    #[must_use]
    pub const fn is_synchronous(&self) -> bool {
        !matches!(self, Self::Write { posted: true, .. } | Self::Burst { .. })
    }

    /// The bytes it carries; empty if none.
    #[inline]
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        match self {
            Self::DmaDone { data, .. } | Self::Host { data, .. } | Self::Burst { data, .. } => data,
            _ => &[],
        }
    }

    /// Encodes it, without `seq` and `arena_off`, which the ring fills in. `vtime` is the guest time in ns.
    #[inline]
    #[must_use]
    pub fn to_slot(&self, vtime: u64) -> Slot {
        let mut slot = Slot { vtime, kind: self.kind() as u8, ..Slot::default() };
        match *self {
            Self::Reset => {}
            Self::Read { offset, size } => (slot.offset, slot.size) = (offset, size),
            Self::Write { offset, size, value, posted } => {
                (slot.offset, slot.size, slot.value) = (offset, size, value & mask(size));
                slot.flags = if posted { FLAG_POSTED } else { 0 };
            }
            Self::Line { pin, level } => (slot.arg, slot.value) = (pin, u64::from(level)),
            Self::Timer { id } => slot.arg = id,
            Self::DmaDone { tag, data } => {
                slot.arg = tag;
                slot.set_data(data);
            }
            Self::Host { port, data } => {
                slot.offset = port;
                slot.set_data(data);
            }
            Self::Popped { queue, count } => (slot.arg, slot.value) = (queue, count.into()),
            Self::Burst { offset, size, data } => {
                (slot.offset, slot.arg) = (offset, size.into());
                slot.set_data(data);
            }
        }
        slot
    }

    /// Decodes and checks a slot. `arena` holds the bytes that `arena_off` and `arena_len` name, already copied.
    ///
    /// # Errors
    /// A [`Problem`] that names what no correct cpu-proc would have sent.
    #[inline]
    pub fn parse(slot: &'a Slot, arena: &'a [u8]) -> Result<Self, Problem> {
        let kind = RequestKind::try_from(slot.kind).map_err(|kind| Problem::Kind { seq: slot.seq, kind })?;
        let request = match kind {
            RequestKind::Reset => Self::Reset,
            RequestKind::Read => Self::Read { offset: slot.offset, size: slot.access_size()? },
            RequestKind::Write => Self::Write {
                offset: slot.offset,
                size: slot.access_size()?,
                value: slot.value,
                posted: slot.flags & FLAG_POSTED != 0,
            },
            RequestKind::Line => Self::Line { pin: slot.arg, level: slot.level()? },
            RequestKind::Timer => Self::Timer { id: slot.arg },
            RequestKind::DmaDone => Self::DmaDone { tag: slot.arg, data: slot.data(arena)? },
            RequestKind::Host => Self::Host { port: slot.offset, data: slot.data(arena)? },
            RequestKind::Popped => {
                let count = u32::try_from(slot.value).map_err(|_| slot.wrong_field())?;
                Self::Popped { queue: slot.arg, count }
            }
            RequestKind::Burst => {
                let (size, data) = (slot.arg as u8, slot.data(arena)?);
                if slot.arg > 4 || !burst::is_sound(size, data) {
                    return Err(slot.wrong_field());
                }
                Self::Burst { offset: slot.offset, size, data }
            }
        };
        if slot.cause != 0 {
            return Err(slot.wrong_field());
        }
        slot.expect_canonical(request.to_slot(slot.vtime))?;
        Ok(request)
    }
}

/// What a device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Answers a `Read`.
    Reply {
        /// The data read.
        value: u64,
    },
    /// Answers every other synchronous request.
    Ack,
    /// An output line changed.
    SetLine {
        /// The device's output pin.
        pin: u32,
        /// Its new level.
        level: bool,
    },
    /// A shadowed register has a new value.
    Publish {
        /// The shadow's index.
        reg: u64,
        /// Its value.
        value: u64,
    },
    /// Sets a deadline; one that the timer already has is replaced.
    Arm {
        /// The timer's number.
        id: u32,
        /// When it is due, guest time in ns.
        vtime: u64,
    },
    /// Takes a deadline back.
    Disarm {
        /// The timer's number.
        id: u32,
    },
    /// Asks for a transfer from or to guest memory.
    Dma {
        /// The device's tag of it.
        tag: u32,
        /// The vectored ranges and the bytes to write, in the SDK's encoding.
        data: &'a [u8],
    },
    /// Values at the end of a queue, from which reads of a register are answered.
    Queue {
        /// The queue's index.
        queue: u32,
        /// The values, four bytes each, little-endian.
        data: &'a [u8],
    },
    /// A queue holds nothing any more.
    QueueClear {
        /// The queue's index.
        queue: u32,
    },
    /// The device is gone for good: from here on nothing answers at its addresses, its lines are low, its timers never fire.
    Gone,
    /// Output for the host.
    HostOut {
        /// The device's host port.
        port: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// A backend offers host input.
    HostOffer {
        /// The device's host port.
        port: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// The device failed and takes no more requests.
    Fault {
        /// A code of the host process.
        code: u32,
        /// What happened, UTF-8 (not checked here).
        data: &'a [u8],
    },
}

impl<'a> Event<'a> {
    /// The event's kind.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Reply { .. } => EventKind::Reply,
            Self::Ack => EventKind::Ack,
            Self::SetLine { .. } => EventKind::SetLine,
            Self::Publish { .. } => EventKind::Publish,
            Self::Arm { .. } => EventKind::Arm,
            Self::Disarm { .. } => EventKind::Disarm,
            Self::Dma { .. } => EventKind::Dma,
            Self::Queue { .. } => EventKind::Queue,
            Self::QueueClear { .. } => EventKind::QueueClear,
            Self::Gone => EventKind::Gone,
            Self::HostOut { .. } => EventKind::HostOut,
            Self::HostOffer { .. } => EventKind::HostOffer,
            Self::Fault { .. } => EventKind::Fault,
        }
    }

    /// Whether it is an effect (see [`EventKind::is_effect`]).
    #[inline]
    #[must_use]
    pub const fn is_effect(&self) -> bool {
        self.kind().is_effect()
    }

    /// The bytes it carries; empty if none.
    #[inline]
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        match self {
            Self::Dma { data, .. }
            | Self::Queue { data, .. }
            | Self::HostOut { data, .. }
            | Self::HostOffer { data, .. }
            | Self::Fault { data, .. } => data,
            _ => &[],
        }
    }

    /// Encodes it, without `seq` and `arena_off`, which the ring fills in. `cause` is the `seq` of the request that caused it.
    #[inline]
    #[must_use]
    pub fn to_slot(&self, cause: u64) -> Slot {
        let mut slot = Slot { cause, kind: self.kind() as u8, ..Slot::default() };
        match *self {
            Self::Reply { value } => slot.value = value,
            Self::Ack | Self::Gone => {}
            Self::SetLine { pin, level } => (slot.arg, slot.value) = (pin, u64::from(level)),
            Self::Publish { reg, value } => (slot.offset, slot.value) = (reg, value),
            Self::Arm { id, vtime } => (slot.arg, slot.vtime) = (id, vtime),
            Self::Disarm { id } => slot.arg = id,
            Self::QueueClear { queue } => slot.arg = queue,
            Self::Dma { tag: arg, data } | Self::Queue { queue: arg, data } | Self::Fault { code: arg, data } => {
                slot.arg = arg;
                slot.set_data(data);
            }
            Self::HostOut { port, data } | Self::HostOffer { port, data } => {
                slot.offset = port;
                slot.set_data(data);
            }
        }
        slot
    }

    /// Decodes and checks a slot. `arena` holds the bytes that `arena_off` and `arena_len` name, already copied.
    ///
    /// # Errors
    /// A [`Problem`] that names what no correct device-proc would have sent.
    #[inline]
    pub fn parse(slot: &'a Slot, arena: &'a [u8]) -> Result<Self, Problem> {
        let kind = EventKind::try_from(slot.kind).map_err(|kind| Problem::Kind { seq: slot.seq, kind })?;
        let event = match kind {
            EventKind::Reply => Self::Reply { value: slot.value },
            EventKind::Ack => Self::Ack,
            EventKind::SetLine => Self::SetLine { pin: slot.arg, level: slot.level()? },
            EventKind::Publish => Self::Publish { reg: slot.offset, value: slot.value },
            EventKind::Arm => Self::Arm { id: slot.arg, vtime: slot.vtime },
            EventKind::Disarm => Self::Disarm { id: slot.arg },
            EventKind::Dma => Self::Dma { tag: slot.arg, data: slot.data(arena)? },
            EventKind::Queue => Self::Queue { queue: slot.arg, data: slot.data(arena)? },
            EventKind::QueueClear => Self::QueueClear { queue: slot.arg },
            EventKind::Gone => Self::Gone,
            EventKind::HostOut => Self::HostOut { port: slot.offset, data: slot.data(arena)? },
            EventKind::HostOffer => Self::HostOffer { port: slot.offset, data: slot.data(arena)? },
            EventKind::Fault => Self::Fault { code: slot.arg, data: slot.data(arena)? },
        };
        slot.expect_canonical(event.to_slot(slot.cause))?;
        Ok(event)
    }
}
