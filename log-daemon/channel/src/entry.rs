//! Entries of the journal and script rings, and their typed form.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::error::Problem;
use crate::message::kinds;

/// Size of an entry in bytes.
pub const ENTRY_BYTES: usize = 64;

/// A point in the guest's run. See docs/design.md, "Time and position". Totally ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of retired instructions that made an MMIO access.
    pub epoch: u64,
    /// Instructions retired since the one that began the epoch.
    pub count: u64,
    /// Warps taken since the last retired instruction.
    pub idle: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.epoch, self.count, self.idle)
    }
}

/// One entry of the journal or script ring, as it lies in shared memory. Little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// Number in its ring, from 0.
    pub seq: u64,
    /// The position's epoch.
    pub epoch: u64,
    /// The position's count.
    pub count: u64,
    /// The position's idle.
    pub idle: u32,
    /// An [`EntryKind`].
    pub kind: u8,
    /// 0.
    pub pad: u8,
    /// Number of the channel, where the kind has one, else 0.
    pub channel: u16,
    /// First argument.
    pub a: u64,
    /// Second argument.
    pub b: u64,
    /// Third argument.
    pub c: u64,
    /// Fourth argument.
    pub d: u64,
}

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES && align_of::<Entry>() == 8);

impl Entry {
    /// The entry as eight little-endian words.
    #[inline]
    #[must_use]
    pub fn to_words(&self) -> [u64; 8] {
        transmute!(*self)
    }

    /// An entry from eight little-endian words.
    #[inline]
    #[must_use]
    pub fn from_words(words: [u64; 8]) -> Self {
        transmute!(words)
    }

    /// Its position.
    #[inline]
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, count: self.count, idle: self.idle }
    }
}

kinds! {
    /// Kinds of an entry.
    EntryKind {
        Consumed = 1,
        Host = 2,
        Warp = 3,
        Anchor = 4,
        Progress = 5,
        Mark = 6,
        End = 7,
        EndHash = 8,
        Cut = 9,
    }
}

kinds! {
    /// Why a run ended: argument `a` of `End`.
    EndReason {
        /// The guest switched itself off.
        PowerOff = 1,
        /// The guest asked for a reset.
        Reboot = 2,
        /// The user, or a signal, stopped the machine.
        Stopped = 3,
        /// A limit given by the user (instructions, guest time) was reached.
        Limit = 4,
        /// The guest can never go on: WFI with nothing that could wake it.
        Dead = 5,
        /// A device or its process failed.
        DeviceFault = 6,
        /// The guest reported a panic.
        Panic = 7,
        /// The machine met a condition that it cannot go on from.
        Internal = 8,
    }
}

/// The typed form of an [`Entry`], without its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalEntry {
    /// An effect took effect at this position.
    Consumed {
        /// The channel's number.
        channel: u16,
        /// How many effects came before on that channel.
        effect: u64,
        /// [`content_checksum`](crate::content_checksum) of the message as consumed.
        checksum: u64,
    },
    /// Host input was admitted.
    Host {
        /// The channel's number.
        channel: u16,
        /// `seq` of the `Host` request that carried it.
        request: u64,
        /// Script ring: where the bytes lie in the arena (offset, length in bytes), and the device's port. Journal ring: zeros.
        data: (u64, u64),
        /// Script ring: the device's host port. Journal ring: 0.
        port: u64,
    },
    /// Idle time was skipped or slept.
    Warp {
        /// By how much guest time grew, in ns.
        ns: u64,
    },
    /// A check of the CPU's state.
    Anchor {
        /// Program counter.
        pc: u32,
        /// CPSR.
        cpsr: u32,
        /// Hash of the registers.
        registers: u64,
        /// Retired instructions.
        icount: u64,
        /// Rolling hash of everything consumed.
        consumed: u64,
    },
    /// Everything up to here may be written as one causally closed chunk.
    Progress {
        /// Retired instructions.
        icount: u64,
        /// Guest time in ns.
        vtime: u64,
        /// Number of `Mark` entries that follow.
        marks: u64,
    },
    /// How far one channel was at the last `Progress`.
    Mark {
        /// The channel's number.
        channel: u16,
        /// Requests sent.
        requests: u64,
        /// Effects consumed.
        effects: u64,
        /// Rolling hash of what was consumed on that channel.
        consumed: u64,
        /// Hash of accesses to GIC and timers.
        local: u64,
    },
    /// The run ended.
    End {
        /// Why.
        reason: EndReason,
        /// Retired instructions.
        icount: u64,
        /// Guest time in ns.
        vtime: u64,
    },
    /// Follows `End`: the hash of the machine's state.
    EndHash {
        /// BLAKE3 of RAM and CPU state.
        state_hash: [u8; 32],
    },
    /// Script ring only: the recording was cut short; it has nothing after the entry before.
    Cut,
}

impl JournalEntry {
    /// The entry's kind.
    #[must_use]
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::Consumed { .. } => EntryKind::Consumed,
            Self::Host { .. } => EntryKind::Host,
            Self::Warp { .. } => EntryKind::Warp,
            Self::Anchor { .. } => EntryKind::Anchor,
            Self::Progress { .. } => EntryKind::Progress,
            Self::Mark { .. } => EntryKind::Mark,
            Self::End { .. } => EntryKind::End,
            Self::EndHash { .. } => EntryKind::EndHash,
            Self::Cut => EntryKind::Cut,
        }
    }

    /// Encodes it, without `seq`, which the ring fills in.
    #[must_use]
    pub fn to_entry(&self, at: Position) -> Entry {
        let (channel, [a, b, c, d]) = match *self {
            Self::Consumed { channel, effect, checksum } => (channel, [effect, checksum, 0, 0]),
            Self::Host { channel, request, data, port } => (channel, [request, port, data.0, data.1]),
            Self::Warp { ns } => (0, [ns, 0, 0, 0]),
            Self::Anchor { pc, cpsr, registers, icount, consumed } => {
                (0, [u64::from(pc) << 32 | u64::from(cpsr), registers, icount, consumed])
            }
            Self::Progress { icount, vtime, marks } => (0, [icount, vtime, marks, 0]),
            Self::Mark { channel, requests, effects, consumed, local } => {
                (channel, [requests, effects, consumed, local])
            }
            Self::End { reason, icount, vtime } => (0, [reason as u64, icount, vtime, 0]),
            Self::EndHash { state_hash } => (0, transmute!(state_hash)),
            Self::Cut => (0, [0; 4]),
        };
        let Position { epoch, count, idle } = at;
        Entry { seq: 0, epoch, count, idle, kind: self.kind() as u8, pad: 0, channel, a, b, c, d }
    }

    /// Decodes and checks an entry. Ranges in the arena are the ring's business.
    ///
    /// # Errors
    /// A [`Problem`] that names what no correct writer would have sent.
    pub fn parse(entry: &Entry) -> Result<Self, Problem> {
        let wrong = Problem::Field { seq: entry.seq, kind: entry.kind };
        let &Entry { channel, a, b, c, d, .. } = entry;
        let kind = EntryKind::try_from(entry.kind).map_err(|kind| Problem::Kind { seq: entry.seq, kind })?;
        let parsed = match kind {
            EntryKind::Consumed => Self::Consumed { channel, effect: a, checksum: b },
            EntryKind::Host => Self::Host { channel, request: a, data: (c, d), port: b },
            EntryKind::Warp => Self::Warp { ns: a },
            EntryKind::Anchor => {
                Self::Anchor { pc: (a >> 32) as u32, cpsr: a as u32, registers: b, icount: c, consumed: d }
            }
            EntryKind::Progress => Self::Progress { icount: a, vtime: b, marks: c },
            EntryKind::Mark => Self::Mark { channel, requests: a, effects: b, consumed: c, local: d },
            EntryKind::End => {
                let reason = u8::try_from(a).ok().and_then(|byte| EndReason::try_from(byte).ok()).ok_or(wrong)?;
                Self::End { reason, icount: b, vtime: c }
            }
            EntryKind::EndHash => Self::EndHash { state_hash: transmute!([a, b, c, d]) },
            EntryKind::Cut => Self::Cut,
        };
        let canonical = Entry { seq: entry.seq, ..parsed.to_entry(entry.position()) };
        if canonical == *entry { Ok(parsed) } else { Err(wrong) }
    }
}
