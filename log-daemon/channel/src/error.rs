//! What can go wrong on a channel.

use std::fmt;
use std::sync::Arc;

/// One of the rings of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingName {
    /// cpu-proc to device-proc.
    Requests,
    /// device-proc to cpu-proc.
    Events,
    /// cpu-proc to the log daemon.
    Journal,
    /// The log daemon to cpu-proc, in replay.
    Script,
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "request ring",
            Self::Events => "event ring",
            Self::Journal => "journal ring",
            Self::Script => "script ring",
        })
    }
}

/// Why the supervisor closed a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseReason {
    /// The machine ends.
    Stop = 1,
    /// The process at the other end is gone.
    PeerDied = 2,
    /// A process of the machine met a wrong value on this channel.
    Poisoned = 3,
}

impl CloseReason {
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        match word as u32 {
            0 => None,
            1 => Some(Self::Stop),
            3 => Some(Self::Poisoned),
            _ => Some(Self::PeerDied),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "the machine ends",
            Self::PeerDied => "a process at its other end died",
            Self::Poisoned => "a process found a wrong value on it",
        })
    }
}

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A cursor went back, which its owner never does.
    #[error("the {cursor} cursor went back from {was} to {is}")]
    Backwards {
        /// Which cursor: `producer`, `peer` or `tap`.
        cursor: &'static str,
        /// Its value when last read.
        was: u64,
        /// Its value now.
        is: u64,
    },
    /// A cursor lies beyond what its ring allows.
    #[error("the {cursor} cursor is {is}, but at most {limit} is possible")]
    Beyond {
        /// Which cursor: `producer`, `peer` or `tap`.
        cursor: &'static str,
        /// Its value.
        is: u64,
        /// The largest value that makes sense.
        limit: u64,
    },
    /// A slot carries another sequence number than its place in the ring.
    #[error("slot {expected} carries sequence number {found}")]
    Sequence {
        /// The slot's number by its place.
        expected: u64,
        /// The number found in it.
        found: u64,
    },
    /// The kind byte names no message of this ring.
    #[error("slot {seq} has kind {kind:#04x}, which this ring does not carry")]
    Kind {
        /// The slot's number.
        seq: u64,
        /// The kind byte.
        kind: u8,
    },
    /// An access size that is not 1, 2, 4 or 8, or inline data longer than 8 bytes.
    #[error("slot {seq} of kind {kind:#04x} has size {size}, which that kind does not allow")]
    Size {
        /// The slot's number.
        seq: u64,
        /// The kind byte.
        kind: u8,
        /// The size byte.
        size: u8,
    },
    /// A field has a value that this kind does not allow (a field it does not use must be 0).
    #[error(
        "slot {seq} of kind {kind:#04x} has a wrong value in a field that this kind does not use, or out of its range"
    )]
    Field {
        /// The slot's number.
        seq: u64,
        /// The kind byte.
        kind: u8,
    },
    /// The slot names arena bytes outside the ring's arena, or not 8-byte aligned.
    #[error(
        "slot {seq} names arena bytes {off}..+{len}, but the arena has {arena} bytes and offsets are multiples of 8"
    )]
    ArenaRange {
        /// The slot's number.
        seq: u64,
        /// Offset into the arena in bytes.
        off: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the arena in bytes.
        arena: u64,
    },
    /// An effect names a request as its cause that was not sent yet.
    #[error("event {seq} is caused by request {cause}, but only {sent} were sent")]
    Cause {
        /// The event's number.
        seq: u64,
        /// The request that it names.
        cause: u64,
        /// Number of requests sent.
        sent: u64,
    },
    /// A message carries more bytes than the ring's arena holds.
    #[error("a message carries {len} bytes, but the arena holds {max}: split it, or give the channel a larger arena")]
    TooLong {
        /// Length of the payload in bytes.
        len: u64,
        /// Size of the arena in bytes.
        max: u64,
    },
    /// The supervisor closed the channel.
    #[error("closed: {0}")]
    Closed(CloseReason),
    /// The process at the other end left the channel, or found a wrong value on it and gave up.
    #[error("the other end left the channel")]
    PeerLeft,
    /// This side used the port in a way that its documentation forbids.
    #[error("port misused: {0}")]
    Misuse(&'static str),
}

impl Problem {
    /// Whether this is the ordinary end of a channel, not a wrong value.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::PeerLeft)
    }
}

/// An error of one channel. The port that returned it is poisoned: each later call returns the same error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel {channel}, {ring}: {problem}")]
pub struct ChannelError {
    /// The channel's name in the machine description, `control` for journal and script.
    pub channel: Arc<str>,
    /// The ring on which it was met.
    pub ring: RingName,
    /// What was wrong.
    pub problem: Problem,
}

impl ChannelError {
    /// Whether this is the ordinary end of a channel, not a wrong value.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.problem.is_end()
    }
}
