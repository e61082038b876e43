//! What a chunk holds, decoded.

use std::collections::BTreeMap;

/// A point in the guest's execution, see "Position" in `docs/design.md`. Totally ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Retired instructions so far that made an MMIO access.
    pub epoch: u64,
    /// Instructions retired since the one that began the epoch.
    pub count: u64,
    /// Warps since the last retired instruction.
    pub idle: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.epoch, self.count)?;
        if self.idle != 0 { write!(f, ".{}", self.idle) } else { Ok(()) }
    }
}

/// One journal entry: the fields of the channel crate's `Entry`, in plain form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Number in the journal, from 0.
    pub seq: u64,
    /// Where it happened.
    pub at: Position,
    /// What happened: one of [`journal`].
    pub kind: u8,
    /// On which channel, 0 where it means nothing.
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

/// One slot of a channel and its bulk bytes: a request, or an effect. The fields of the channel crate's `Slot`, in plain form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Requests: number in the request ring. Effects: effect number (side messages take none). Both from 0.
    pub number: u64,
    /// Effects: the request that caused it. Requests: 0.
    pub cause: u64,
    /// Guest time in ns. Effects: 0, or the argument of Arm.
    pub vtime: u64,
    /// One of [`message`].
    pub kind: u8,
    /// Access size in bytes.
    pub size: u8,
    /// Flags: 1 POSTED; and of recorded forms [`REFERENCES`](crate::dma::REFERENCES) and [`DIGEST`](crate::dma::DIGEST).
    pub flags: u16,
    /// Pin or timer.
    pub arg: u32,
    /// Register offset, or port.
    pub offset: u64,
    /// Data.
    pub value: u64,
    /// Small payload.
    pub inline: [u8; 8],
    /// Bulk payload: the arena's bytes (host input, DMA).
    pub data: Vec<u8>,
}

impl Message {
    /// The bytes that it carries: `data`, or the first `size` of `inline` (at most 8 bytes stand there).
    pub fn payload(&self) -> &[u8] {
        if self.data.is_empty() { &self.inline[..usize::from(self.size).min(self.inline.len())] } else { &self.data }
    }
}

/// Bytes that a device sent to its backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The device's port.
    pub port: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What one channel carried in one chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelRecords {
    /// cpu to device, in ring order.
    pub requests: Vec<Message>,
    /// Device to cpu, in effect order.
    pub effects: Vec<Message>,
    /// Device to the host, in ring order.
    pub output: Vec<Output>,
}

impl ChannelRecords {
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.effects.is_empty() && self.output.is_empty()
    }
}

/// How the machine ended: the last record of a recording that was closed properly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Why; the numbers are cpu-proc's.
    pub reason: u32,
    /// The same for people, at most 4096 bytes.
    pub detail: String,
    /// Where.
    pub at: Position,
    /// Instructions retired in all.
    pub icount: u64,
    /// Guest time, ns.
    pub vtime: u64,
    /// BLAKE3 of guest RAM and CPU state.
    pub state_hash: [u8; 32],
    /// BLAKE3 of the devices' saved states.
    pub device_hash: [u8; 32],
    /// BLAKE3 of what the console printed.
    pub console_hash: [u8; 32],
    /// How many bytes the console printed.
    pub console_bytes: u64,
}

/// A plugin that took the place of another while the machine ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// The device's channel.
    pub channel: u16,
    /// Number of the first request that the new plugin served.
    pub request: u64,
    /// BLAKE3 of the new plugin's library: its file's name in `inputs/` once written as hex.
    pub hash: [u8; 32],
    /// What the plugin's file was called, at most 4096 bytes.
    pub name: String,
    /// The version that the plugin gives itself, at most 4096 bytes.
    pub version: String,
    /// The configuration that the device has from there on, at most 4096 bytes; none: it keeps the one that it has.
    pub config: Option<String>,
}

impl Swap {
    /// The hash as the name of a file in `inputs/`.
    pub fn input(&self) -> String {
        crate::wire::hex(&self.hash)
    }
}

/// Everything between two progress groups of the journal, causally closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Its number, from 0. Set by the reader; the writer numbers chunks itself.
    pub seq: u64,
    /// Journal entries.
    pub journal: Vec<Entry>,
    /// By channel.
    pub channels: BTreeMap<u16, ChannelRecords>,
    /// Plugins that were swapped.
    pub swaps: Vec<Swap>,
    /// The final record; in the last chunk only.
    pub end: Option<End>,
}

impl Chunk {
    /// The records of a channel, made if there are none yet.
    pub fn channel(&mut self, channel: u16) -> &mut ChannelRecords {
        self.channels.entry(channel).or_default()
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.journal.is_empty()
            && self.end.is_none()
            && self.swaps.is_empty()
            && self.channels.values().all(ChannelRecords::is_empty)
    }

    /// Records in it, of all kinds: what [`MAX_CHUNK_RECORDS`](crate::MAX_CHUNK_RECORDS) limits.
    pub fn records(&self) -> usize {
        let of = |c: &ChannelRecords| c.requests.len() + c.effects.len() + c.output.len();
        self.journal.len() + self.swaps.len() + self.channels.values().map(of).sum::<usize>()
    }

    /// Chunks of at most `limit` records that say the same. In one that has more, effects and output, as many as need be, go ahead in chunks of their own;
    /// the last has the rest, with the journal that tells what became of them. (Journal, requests and swaps stay together, however many they are.)
    pub fn into_pieces(mut self, limit: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        while let Some(over) = self.records().checked_sub(limit).filter(|over| *over > 0) {
            let mut room = over.min(limit);
            let mut piece = Self::default();
            for (c, r) in &mut self.channels {
                let (effects, output) =
                    (r.effects.len().min(room), r.output.len().min(room - r.effects.len().min(room)));
                room -= effects + output;
                let moved = ChannelRecords {
                    requests: Vec::new(),
                    effects: r.effects.drain(..effects).collect(),
                    output: r.output.drain(..output).collect(),
                };
                if !moved.is_empty() {
                    piece.channels.insert(*c, moved);
                }
            }
            self.channels.retain(|_, r| !r.is_empty());
            if piece.is_empty() {
                break;
            }
            pieces.push(piece);
        }
        pieces.push(self);
        pieces
    }

    /// How far it reaches: position, icount and vtime of its last Progress or End entry, or of the final record.
    pub fn reaches(&self) -> Option<(Position, u64, u64)> {
        if let Some(e) = &self.end {
            return Some((e.at, e.icount, e.vtime));
        }
        self.journal.iter().rev().find_map(|e| match e.kind {
            journal::PROGRESS => Some((e.at, e.a, e.b)),
            journal::END => Some((e.at, e.b, e.c)),
            _ => None,
        })
    }
}

/// Kinds of journal entries; `docs/design.md`, "Channels".
pub mod journal {
    /// An effect was consumed outside a wait: `a` effect number, `b` checksum.
    pub const CONSUMED: u8 = 1;
    /// Host input was admitted: `a` request number.
    pub const HOST: u8 = 2;
    /// Guest time jumped: `a` ns.
    pub const WARP: u8 = 3;
    /// Registers: `a` pc and cpsr, `b` register hash, `c` icount, `d` rolling hash.
    pub const ANCHOR: u8 = 4;
    /// Progress: `a` icount, `b` vtime, `c` marks that follow.
    pub const PROGRESS: u8 = 5;
    /// Progress of a channel: `a` requests sent, `b` effects consumed, `c` and `d` rolling hashes.
    pub const MARK: u8 = 6;
    /// The end: `a` reason, `b` icount, `c` vtime.
    pub const END: u8 = 7;
    /// State hash, 32 bytes in `a`..`d`.
    pub const END_HASH: u8 = 8;

    /// A kind's name for people, `?` if unknown.
    pub fn name(kind: u8) -> &'static str {
        match kind {
            CONSUMED => "consumed",
            HOST => "host",
            WARP => "warp",
            ANCHOR => "anchor",
            PROGRESS => "progress",
            MARK => "mark",
            END => "end",
            END_HASH => "end-hash",
            _ => "?",
        }
    }
}

/// Kinds of channel messages; `docs/design.md`, "Channels".
pub mod message {
    /// Request: the device is reset.
    pub const RESET: u8 = 1;
    /// Request: a register is read.
    pub const READ: u8 = 2;
    /// Request: a register is written.
    pub const WRITE: u8 = 3;
    /// Request: an input pin changed.
    pub const LINE: u8 = 4;
    /// Request: a timer is due.
    pub const TIMER: u8 = 5;
    /// Request: a DMA is done.
    pub const DMA_DONE: u8 = 6;
    /// Request: input from the host.
    pub const HOST: u8 = 7;
    /// Request: the CPU took values from a queue.
    pub const POPPED: u8 = 8;
    /// Request: a register is written several times.
    pub const BURST: u8 = 9;
    /// Effect: the answer to a read.
    pub const REPLY: u8 = 0x81;
    /// Effect: the answer to any other synchronous request.
    pub const ACK: u8 = 0x82;
    /// Effect: an output line changes.
    pub const SET_LINE: u8 = 0x83;
    /// Effect: a shadow register changes.
    pub const PUBLISH: u8 = 0x84;
    /// Effect: a timer is set.
    pub const ARM: u8 = 0x85;
    /// Effect: a timer is stopped.
    pub const DISARM: u8 = 0x86;
    /// Effect: a DMA is wanted.
    pub const DMA: u8 = 0x87;
    /// Effect: values at the end of a queue.
    pub const QUEUE: u8 = 0x88;
    /// Effect: a queue is empty.
    pub const QUEUE_CLEAR: u8 = 0x89;
    /// The device is gone for good.
    pub const GONE: u8 = 0x8a;

    /// True of requests, false of effects and side messages.
    pub fn is_request(kind: u8) -> bool {
        kind < 0x80
    }

    /// A kind's name for people, `?` if unknown.
    pub fn name(kind: u8) -> &'static str {
        match kind {
            RESET => "reset",
            READ => "read",
            WRITE => "write",
            LINE => "line",
            TIMER => "timer",
            DMA_DONE => "dma-done",
            HOST => "host",
            POPPED => "popped",
            BURST => "burst",
            REPLY => "reply",
            ACK => "ack",
            SET_LINE => "set-line",
            PUBLISH => "publish",
            ARM => "arm",
            DISARM => "disarm",
            DMA => "dma",
            QUEUE => "queue",
            QUEUE_CLEAR => "queue-clear",
            GONE => "gone",
            _ => "?",
        }
    }
}
