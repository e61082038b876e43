//! Every message survives its encoding, and the checksum sees every change.

use proptest::prelude::*;
use reprise_channel::{
    EndReason, Entry, EntryKind, Event, EventKind, JournalEntry, Position, Problem, Request, RequestKind, Slot,
    content_checksum,
};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..10), proptest::collection::vec(any::<u8>(), 0..300)]
}

fn size() -> impl Strategy<Value = u8> {
    prop_oneof![Just(1), Just(2), Just(4), Just(8)]
}

/// What the arena holds for a message with this data.
fn in_arena<'a>(slot: &Slot, data: &'a [u8]) -> &'a [u8] {
    if slot.arena_len == 0 { &[] } else { data }
}

fn request<'a>(kind: RequestKind, n: [u64; 3], size: u8, flag: bool, data: &'a [u8]) -> Request<'a> {
    match kind {
        RequestKind::Reset => Request::Reset,
        RequestKind::Read => Request::Read { offset: n[0], size },
        RequestKind::Write => {
            Request::Write { offset: n[0], size, value: n[1] & (u64::MAX >> (64 - 8 * u32::from(size))), posted: flag }
        }
        RequestKind::Line => Request::Line { pin: n[0] as u32, level: flag },
        RequestKind::Timer => Request::Timer { id: n[0] as u32 },
        RequestKind::DmaDone => Request::DmaDone { tag: n[0] as u32, data },
        RequestKind::Host => Request::Host { port: n[0], data },
        RequestKind::Popped => Request::Popped { queue: n[0] as u32, count: n[1] as u32 },
        RequestKind::Burst => {
            Request::Burst { offset: n[0], size: size.min(4), data: if flag { &STORES[..8] } else { &STORES } }
        }
    }
}

/// Stores of a byte each.
const STORES: [u8; 24] = [0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 255, 0, 0, 0];

fn event<'a>(kind: EventKind, n: [u64; 3], flag: bool, data: &'a [u8]) -> Event<'a> {
    match kind {
        EventKind::Reply => Event::Reply { value: n[0] },
        EventKind::Ack => Event::Ack,
        EventKind::SetLine => Event::SetLine { pin: n[0] as u32, level: flag },
        EventKind::Publish => Event::Publish { reg: n[0], value: n[1] },
        EventKind::Arm => Event::Arm { id: n[0] as u32, vtime: n[1] },
        EventKind::Disarm => Event::Disarm { id: n[0] as u32 },
        EventKind::Dma => Event::Dma { tag: n[0] as u32, data },
        EventKind::Queue => Event::Queue { queue: n[0] as u32, data },
        EventKind::QueueClear => Event::QueueClear { queue: n[0] as u32 },
        EventKind::Gone => Event::Gone,
        EventKind::HostOut => Event::HostOut { port: n[0], data },
        EventKind::HostOffer => Event::HostOffer { port: n[0], data },
        EventKind::Fault => Event::Fault { code: n[0] as u32, data },
    }
}

fn entry(kind: EntryKind, n: [u64; 3], channel: u16, reason: EndReason) -> JournalEntry {
    match kind {
        EntryKind::Consumed => JournalEntry::Consumed { channel, effect: n[0], checksum: n[1] },
        EntryKind::Host => JournalEntry::Host { channel, request: n[0], data: (n[1], n[2]), port: n[0] ^ n[1] },
        EntryKind::Warp => JournalEntry::Warp { ns: n[0] },
        EntryKind::Anchor => {
            JournalEntry::Anchor { pc: n[0] as u32, cpsr: n[1] as u32, registers: n[2], icount: n[0], consumed: n[1] }
        }
        EntryKind::Progress => JournalEntry::Progress { icount: n[0], vtime: n[1], marks: n[2] },
        EntryKind::Mark => {
            JournalEntry::Mark { channel, requests: n[0], effects: n[1], consumed: n[2], local: n[0] ^ n[2] }
        }
        EntryKind::End => JournalEntry::End { reason, icount: n[0], vtime: n[1] },
        EntryKind::EndHash => {
            JournalEntry::EndHash { state_hash: std::array::from_fn(|i| n[i % 3].to_le_bytes()[i / 4]) }
        }
        EntryKind::Cut => JournalEntry::Cut,
    }
}

proptest! {
    #[test]
    fn requests_round_trip(n: [u64; 3], size in size(), flag: bool, data in bytes(), vtime: u64, off: u32) {
        for &kind in RequestKind::ALL {
            let request = request(kind, n, size, flag, &data);
            let data = request.data();
            let mut slot = request.to_slot(vtime);
            slot.seq = n[2];
            if slot.arena_len != 0 {
                slot.arena_off = off;
            }
            prop_assert_eq!(Slot::from_words(slot.to_words()), slot);
            prop_assert_eq!(Request::parse(&slot, in_arena(&slot, data)), Ok(request));
            prop_assert!(Event::parse(&slot, in_arena(&slot, data)).is_err());
            // A field that the kind does not use, or uses otherwise, must not pass unnoticed.
            for index in 1..8 {
                let mut words = slot.to_words();
                words[index] ^= 1 << (n[0] % 64);
                let changed = Slot::from_words(words);
                if let Ok(parsed) = Request::parse(&changed, in_arena(&slot, data)) {
                    prop_assert!(parsed != request || matches!(index, 2 | 6));
                }
            }
        }
    }

    #[test]
    fn events_round_trip(n: [u64; 3], flag: bool, data in bytes(), cause: u64, off: u32) {
        for &kind in EventKind::ALL {
            let event = event(kind, n, flag, &data);
            let mut slot = event.to_slot(cause);
            slot.seq = n[2];
            if slot.arena_len != 0 {
                slot.arena_off = off;
            }
            prop_assert_eq!(Event::parse(&slot, in_arena(&slot, &data)), Ok(event));
            prop_assert_eq!(event.is_effect(), (slot.kind) < 0xC0);
            prop_assert!(Request::parse(&slot, in_arena(&slot, &data)).is_err());
        }
    }

    #[test]
    fn entries_round_trip(n: [u64; 3], channel: u16, epoch: u64, count: u64, idle: u32, reason in 0..EndReason::ALL.len()) {
        let at = Position { epoch, count, idle };
        for &kind in EntryKind::ALL {
            let typed = entry(kind, n, channel, EndReason::ALL[reason]);
            let raw = Entry { seq: n[0], ..typed.to_entry(at) };
            prop_assert_eq!(Entry::from_words(raw.to_words()), raw);
            prop_assert_eq!(JournalEntry::parse(&raw), Ok(typed));
            prop_assert_eq!(raw.position(), at);
            let padded = Entry { pad: 1, ..raw };
            prop_assert!(JournalEntry::parse(&padded).is_err());
        }
    }

    #[test]
    fn checksums_see_every_change(words: [u64; 8], data in bytes(), flip in 0..448_usize, byte: usize) {
        let slot = Slot::from_words(words);
        let sum = content_checksum(&slot, &data);
        let mut changed = words;
        // Not `seq` (word 0), and `arena_off` and `arena_len` (word 6) only as the length of the data.
        let word = [1, 2, 3, 4, 5, 7][flip / 64 % 6];
        changed[word] ^= 1 << (flip % 64);
        prop_assert_ne!(content_checksum(&Slot::from_words(changed), &data), sum);
        changed = words;
        changed[0] ^= 1;
        changed[6] ^= 8;
        prop_assert_eq!(content_checksum(&Slot::from_words(changed), &data), sum);
        let mut other = data.clone();
        other.push(0);
        prop_assert_ne!(content_checksum(&slot, &other), sum);
        if !data.is_empty() {
            let mut other = data.clone();
            other[byte % data.len()] ^= 0x10;
            prop_assert_ne!(content_checksum(&slot, &other), sum);
        }
    }
}

/// The checksum is part of the recording format: these values, computed by another implementation of its definition, never change
/// within a format version.
#[test]
fn the_checksum_is_pinned() {
    assert_eq!(content_checksum(&Slot::default(), &[]), 0xF79A_E072_28CD_90AF);
    let slot = Event::SetLine { pin: 1, level: true }.to_slot(5);
    assert_eq!(content_checksum(&slot, &[]), 0x0490_7EC8_EF68_02D0);
    assert_eq!(content_checksum(&slot, b"twelve bytes"), 0x0EDA_90BA_3AAE_007D);
}

#[test]
fn wrong_fields_are_refused() {
    let write = Request::Write { offset: 4, size: 2, value: 0xABCD, posted: true }.to_slot(9);
    let parse = |slot: Slot| Request::parse(&slot, &[]).map(|_| ()).unwrap_err();
    assert_eq!(parse(Slot { size: 3, ..write }), Problem::Size { seq: 0, kind: 3, size: 3 });
    assert_eq!(parse(Slot { flags: 3, ..write }), Problem::Field { seq: 0, kind: 3 });
    assert_eq!(parse(Slot { value: 0x1_0000, ..write }), Problem::Field { seq: 0, kind: 3 });
    assert_eq!(parse(Slot { cause: 1, ..write }), Problem::Field { seq: 0, kind: 3 });
    assert_eq!(parse(Slot { kind: 10, ..write }), Problem::Kind { seq: 0, kind: 10 });
    let burst = |size, data: &[u8]| Request::Burst { offset: 4, size, data }.to_slot(0);
    for (size, data) in [(8, &STORES[..8]), (3, &STORES[..8]), (1, &STORES[16..]), (1, &[]), (1, &STORES[..7])] {
        assert_eq!(parse(burst(size, data)), Problem::Field { seq: 0, kind: 9 }, "{size} {data:?}");
    }
    assert_eq!(parse(burst(1, &[0, 0, 0, 0, 0, 1, 0, 0])), Problem::Field { seq: 0, kind: 9 }, "wider than its size");
    let line = Slot { value: 2, ..Request::Line { pin: 0, level: true }.to_slot(0) };
    assert_eq!(parse(line), Problem::Field { seq: 0, kind: 4 });
    let host = Request::Host { port: 0, data: b"abc" }.to_slot(0);
    assert_eq!(parse(Slot { size: 2, ..host }), Problem::Field { seq: 0, kind: 7 });
    assert_eq!(parse(Slot { size: 9, ..host }), Problem::Size { seq: 0, kind: 7, size: 9 });
    assert_eq!(parse(Slot { arena_off: 8, ..host }), Problem::Field { seq: 0, kind: 7 });
    // Data that would fit inline has no second form in the arena.
    let short = Slot { size: 0, inline: [0; 8], arena_len: 3, ..host };
    assert_eq!(Request::parse(&short, b"abc"), Err(Problem::Field { seq: 0, kind: 7 }));
    let arm = Event::Ack.to_slot(0);
    assert_eq!(Event::parse(&Slot { vtime: 1, ..arm }, &[]), Err(Problem::Field { seq: 0, kind: 0x82 }));
    let end = JournalEntry::End { reason: EndReason::Dead, icount: 0, vtime: 0 }.to_entry(Position::default());
    assert!(
        JournalEntry::parse(&Entry { a: 0, ..end }).is_err()
            && JournalEntry::parse(&Entry { a: 1 << 32, ..end }).is_err()
    );
}

#[test]
fn positions_are_ordered_by_epoch_then_count_then_idle() {
    let at = |epoch, count, idle| Position { epoch, count, idle };
    assert!(at(1, 0, 0) > at(0, 9, 9) && at(1, 2, 0) > at(1, 1, 9) && at(1, 1, 2) > at(1, 1, 1));
    assert_eq!(at(3, 4, 5).to_string(), "(3, 4, 5)");
}
