//! The channel layer of Reprise: shared-memory rings that join the processes of one machine.
//!
//! A channel is one segment of shared memory with two single-producer rings of 64-byte slots (requests from cpu-proc to a
//! device-proc, events back) and an arena of bulk bytes for each. Every cursor lies on a page that only its owner maps
//! writable. A ring has up to two readers, the peer and the log daemon's tap; a slot is free when both are past it.
//! `docs/channels.md` describes layout, protocol and proofs.
//!
//! Nothing that a peer writes is trusted: a reader copies a slot and its arena bytes exactly once, then checks them.
//! A wrong value is a [`ChannelError`] that poisons the port which met it; it is never a panic or a wild access.
//!
//! * [`ChannelSegment`], [`ControlSegment`]: the supervisor's side: create, close, unlink.
//! * [`CpuPort`], [`DevicePort`], [`TapPort`]: the ends of a channel.
//! * [`CpuControl`], [`DaemonControl`]: journal, script and status between cpu-proc and the log daemon.
//! * [`Slot`], [`Request`], [`Event`], [`Entry`], [`JournalEntry`]: what travels.
//! * [`Abort`], [`Doorbell`], [`SpinPolicy`], [`wait_many`]: how an end waits.
//! * [`jitter`]: seeded delays for determinism tests.

#[cfg(not(target_endian = "little"))]
compile_error!("slots are little-endian words in shared memory: this host needs a byte-swapping port first");

mod channel;
mod checksum;
mod control;
mod entry;
mod error;
pub mod jitter;
mod layout;
mod message;
pub mod ring;
pub mod segment;
mod wait;

pub use channel::{ChannelSegment, CpuPort, Cursors, DevicePort, EventMsg, RequestMsg, Sent, TapPort};
pub use checksum::{CHECKSUM_SEED, Checksum, content_checksum, fold};
pub use control::{
    ControlSegment, CpuControl, DaemonControl, EntryMsg, JournalReader, JournalWriter, ScriptReader, ScriptWriter,
    Status, StatusReader, StatusWriter,
};
pub use entry::{ENTRY_BYTES, EndReason, Entry, EntryKind, JournalEntry, Position};
pub use error::{ChannelError, CloseReason, Problem, RingName};
pub use layout::{ChannelConfig, ControlConfig, MAX_ARENA_BYTES, MAX_SLOTS};
pub use message::{Event, EventKind, FLAG_POSTED, Request, RequestKind, SLOT_BYTES, Slot, burst};
pub use segment::{Role, Segment, SegmentError, SharedMem};
pub use wait::{Abort, Doorbell, Interest, SpinPolicy, Waited, wait_many};
