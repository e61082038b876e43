//! Between what travels in the rings and what stands in recordings: the same fields in plain form.

use reprise_channel::{Entry as RingEntry, Slot};
use reprise_recording::{Entry, Message, Position};

/// A slot and its arena bytes as a record. `number` is the request's or effect's number.
pub fn message(slot: &Slot, data: &[u8], number: u64) -> Message {
    Message {
        number,
        cause: slot.cause,
        vtime: slot.vtime,
        kind: slot.kind,
        size: slot.size,
        flags: slot.flags,
        arg: slot.arg,
        offset: slot.offset,
        value: slot.value,
        inline: slot.inline,
        data: data.to_vec(),
    }
}

/// A record as a slot, without its place in a ring and arena.
pub fn slot(m: &Message) -> Slot {
    Slot {
        seq: 0,
        cause: m.cause,
        vtime: m.vtime,
        kind: m.kind,
        size: m.size,
        flags: m.flags,
        arg: m.arg,
        offset: m.offset,
        value: m.value,
        arena_off: 0,
        arena_len: u32::try_from(m.data.len()).expect("arena data is bounded"),
        inline: m.inline,
    }
}

/// The checksum of a message's content, as cpu-proc makes it. Not of a message in a recorded form.
#[cfg(test)]
pub fn checksum(m: &Message) -> u64 {
    reprise_channel::content_checksum(&slot(m), &m.data)
}

/// A journal entry as a record.
pub fn record(e: &RingEntry) -> Entry {
    Entry {
        seq: e.seq,
        at: Position { epoch: e.epoch, count: e.count, idle: e.idle },
        kind: e.kind,
        channel: e.channel,
        a: e.a,
        b: e.b,
        c: e.c,
        d: e.d,
    }
}

/// A record as a script entry; the ring numbers it.
pub fn script(e: &Entry) -> RingEntry {
    let Position { epoch, count, idle } = e.at;
    RingEntry { seq: 0, epoch, count, idle, kind: e.kind, pad: 0, channel: e.channel, a: e.a, b: e.b, c: e.c, d: e.d }
}
