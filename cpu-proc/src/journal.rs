//! What the run loop writes while recording and reads while replaying.

use anyhow::Result;
use reprise_arm::state::Position;
use reprise_channel::EndReason;

/// How far one channel had come at a progress mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Requests sent.
    pub requests: u64,
    /// Effects consumed.
    pub effects: u64,
    /// Rolling hash of the consumed effects.
    pub hash: u64,
}

/// A register anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Instructions retired.
    pub icount: u64,
    /// Next instruction.
    pub pc: u32,
    /// Status register.
    pub cpsr: u32,
    /// Hash of all registers (`reprise_arm::statehash`).
    pub regs: u64,
    /// Rolling hash of all that was consumed from devices and served locally.
    pub io: u64,
}

/// One entry of the journal: what happened at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub pos: Position,
    /// What.
    pub what: What,
}

/// See [`Entry`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An effect was consumed that nothing waited for.
    Consumed {
        /// The device.
        device: usize,
        /// The effect's number on its channel.
        effect: u64,
        /// [`reprise_channel::content_checksum`] of it.
        check: u64,
    },
    /// Host input was admitted.
    Host {
        /// The device.
        device: usize,
        /// The number of the request that carried it.
        request: u64,
        /// The device's port.
        port: u64,
        /// The bytes. The journal ring does not carry them: the request does.
        data: Vec<u8>,
    },
    /// Guest time passed without an instruction. 0 means: up to the next deadline.
    Warp {
        /// How much, in ns.
        ns: u64,
    },
    /// Registers, for verification.
    Anchor(Anchor),
    /// How far everything had come.
    Progress {
        /// Instructions retired.
        icount: u64,
        /// Guest time.
        vtime: u64,
        /// One per channel.
        marks: Vec<Mark>,
    },
    /// The end, after a last progress entry.
    End {
        /// Why.
        reason: EndReason,
        /// Instructions retired.
        icount: u64,
        /// Guest time.
        vtime: u64,
        /// See docs/state-hash.md.
        state_hash: [u8; 32],
    },
}

/// Where a recording's entries go.
pub trait Journal {
    /// Appends an entry; waits for room.
    fn put(&mut self, entry: &Entry) -> Result<()>;
}

/// Where a replay's entries come from.
pub trait Script {
    /// The next entry; waits for it. `None` after the last one.
    fn next(&mut self) -> Result<Option<Entry>>;
}
