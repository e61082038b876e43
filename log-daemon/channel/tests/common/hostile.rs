//! A peer that writes anything into the pages it owns, while honest ends run. The seeded test and the fuzz target share it: both turn
//! bytes into steps, and every step must end in a result or an error, never in a panic or outside the segment.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reprise_channel::ring::Space;
use reprise_channel::{
    Abort, ChannelConfig, ChannelError, ChannelSegment, ControlConfig, ControlSegment, CpuControl, CpuPort,
    DaemonControl, DevicePort, EndReason, Event, JournalEntry, Position, Request, Role, Segment, Sent, SpinPolicy,
    TapPort, wait_many,
};

/// Steps as bytes; zeros when they run out.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % limit.max(1)
    }
}

/// The hostile process: the words that it may write.
struct Hostile {
    raw: Segment,
    /// First pages of each of its regions: cursors, wake words, state.
    cursors: Vec<usize>,
    /// All other words: slots and arenas.
    bulk: Vec<std::ops::Range<usize>>,
}

impl Hostile {
    fn new(name: &str, regions: &[reprise_channel::segment::Region], role: Role) -> Self {
        let raw = Segment::attach(name).unwrap();
        raw.protect(name, regions, role).unwrap();
        let mut own = regions.iter().filter(|region| role.owns(region.owner));
        let first = own.next().unwrap().start / 8;
        let mut cursors = (0..128).map(|word| first + word).collect::<Vec<_>>();
        // The words in use are a few: hit them often.
        let used = (0..8).flat_map(|line| [first + line * 16, first + line * 16 + 1]).collect::<Vec<_>>();
        for _ in 0..32 {
            cursors.extend(&used);
        }
        let bulk = own.map(|region| region.start / 8..(region.start + region.len) / 8).collect();
        Self { raw, cursors, bulk }
    }

    /// Writes one word: a value near the old one, a value like those that honest ends write, or any.
    fn write(&self, bytes: &mut Bytes<'_>) {
        let kind = bytes.byte();
        let index = if kind & 1 == 0 || self.bulk.is_empty() {
            self.cursors[bytes.below(self.cursors.len())]
        } else {
            let range = &self.bulk[bytes.below(self.bulk.len())];
            // Mostly the first slots and bytes, which are in use.
            let span = if kind & 2 == 0 { 64.min(range.len()) } else { range.len() };
            range.start + bytes.below(span)
        };
        let word = self.raw.word(index);
        let old = word.load(Ordering::Relaxed);
        let value = match (kind >> 2) % 8 {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => old.wrapping_add(u64::from(bytes.byte())),
            3 => u64::from(bytes.byte()),
            4 => old ^ (1 << (bytes.byte() % 64)),
            5 => u64::MAX - u64::from(bytes.byte()),
            6 => u64::from(bytes.byte()) << 32 | u64::from(bytes.byte()) << 8,
            _ => bytes.word(),
        };
        word.store(value, Ordering::Release);
    }

    /// Fills a slot as an honest end would, but for what the bytes say, and moves the producer's cursor past it.
    fn publish(&self, bytes: &mut Bytes<'_>, slots: u64) {
        let Some(ring) = self.bulk.first() else { return };
        let cursor = self.raw.word(self.cursors[0]);
        let seq = cursor.load(Ordering::Relaxed);
        let first = ring.start + ((seq % slots) * 8) as usize;
        let kinds = [1, 2, 3, 4, 5, 6, 7, 8, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0xC0, 0xC1, 0xC2];
        let kind = kinds[bytes.below(kinds.len())];
        let size = [0, 1, 2, 4, 8, bytes.byte()][bytes.below(6)];
        let values = [
            seq,
            u64::from(bytes.byte() & 7),
            0,
            kind | u64::from(size) << 8 | u64::from(bytes.byte() & 1) << 16,
            u64::from(bytes.byte() & 1),
            u64::from(bytes.byte() & 1),
            u64::from(bytes.byte() & 0xF8) | u64::from(bytes.byte()) << 32,
            0,
        ];
        for (index, value) in values.into_iter().enumerate().rev() {
            self.raw.word(first + index).store(value, Ordering::Release);
        }
        cursor.store(seq.wrapping_add(1), Ordering::Release);
    }

    fn act(&self, bytes: &mut Bytes<'_>) {
        if bytes.byte() % 3 == 0 { self.publish(bytes, SLOTS) } else { self.write(bytes) }
    }
}

const SLOTS: u64 = 8;
const ARENA: u32 = 256;

/// After an error that is no ordinary end, a port says the same for ever.
fn checked<T>(result: Result<T, ChannelError>, first: &mut Option<ChannelError>) {
    match (result, first) {
        (Err(error), first @ None) if !error.is_end() => *first = Some(error),
        (Err(error), Some(first)) if !error.is_end() => assert_eq!(&error, first),
        (Ok(_), Some(first)) => panic!("a port went on after {first}"),
        _ => {}
    }
}

/// Gives up at once instead of waiting.
fn at_once() -> Abort<'static> {
    Abort::after(Duration::ZERO)
}

fn request<'a>(bytes: &mut Bytes<'_>, data: &'a [u8]) -> Request<'a> {
    let data = &data[..bytes.below(data.len())];
    match bytes.byte() % 4 {
        0 => Request::Read { offset: 4, size: 4 },
        1 => Request::Write { offset: 4, size: 4, value: 3, posted: true },
        2 => Request::Host { port: 1, data },
        _ => Request::DmaDone { tag: 2, data },
    }
}

fn event<'a>(bytes: &mut Bytes<'_>, data: &'a [u8]) -> Event<'a> {
    let data = &data[..bytes.below(data.len())];
    match bytes.byte() % 4 {
        0 => Event::Reply { value: 4 },
        1 => Event::Publish { reg: 0, value: 4 },
        2 => Event::HostOut { port: 1, data },
        _ => Event::Dma { tag: 2, data },
    }
}

fn cpu_step(port: &mut CpuPort, bytes: &mut Bytes<'_>, error: &mut Option<ChannelError>) {
    let data = [0x55; ARENA as usize];
    match bytes.byte() % 8 {
        0 | 1 => {
            checked(port.send(7, &request(bytes, &data), &at_once()).map(|sent| matches!(sent, Sent::Done(_))), error)
        }
        2 => checked(port.peek_event().map(|_| ()), error),
        3 | 4 => checked(port.try_event().map(|_| ()), error),
        5 => checked(port.wait_event(&at_once()).map(|_| ()), error),
        6 => checked(port.device_passed(bytes.word() & 15), error),
        _ => checked(port.drained(), error),
    }
}

fn device_step(port: &mut DevicePort, bytes: &mut Bytes<'_>, error: &mut Option<ChannelError>) {
    let data = [0xAA; ARENA as usize];
    match bytes.byte() % 4 {
        0 => checked(port.next_request(&at_once()).map(|_| ()), error),
        1 => checked(port.try_request().map(|_| ()), error),
        2 => checked(port.emit(u64::from(bytes.byte()), &event(bytes, &data), &at_once()).map(|_| ()), error),
        _ => checked(port.complete(), error),
    }
}

fn tap_step(port: &mut TapPort, bytes: &mut Bytes<'_>, error: &mut Option<ChannelError>) {
    match bytes.byte() % 6 {
        0 => checked(port.next_request().map(|_| ()), error),
        1 => checked(port.next_event().map(|_| ()), error),
        2 => checked(port.peek_request().map(|_| ()), error),
        3 => checked(port.peek_event().map(|_| ()), error),
        4 => {
            let interests = [port.on_requests(u64::from(bytes.byte())), port.on_events(2)];
            // An end of the channel is fine, and there is no other error here.
            let _ = wait_many(&interests, &SpinPolicy::SLEEP, &at_once());
        }
        _ => checked(port.commit(), error),
    }
}

/// Runs a channel with one hostile process: `role` is the role of that.
pub(crate) fn channel(name: &str, role: Role, bytes: &mut Bytes<'_>) {
    let (slots, arena) = (SLOTS as u32, ARENA);
    let config = ChannelConfig {
        request_slots: slots,
        event_slots: slots,
        request_arena: arena,
        event_arena: arena,
        ..ChannelConfig::new(1, "hostile", true)
    };
    let channel = ChannelSegment::create(name, &config).unwrap();
    let hostile = Hostile::new(name, channel.regions(), role);
    let mut cpu = (role != Role::Cpu).then(|| CpuPort::attach(name).unwrap());
    let mut device = (role != Role::Device).then(|| DevicePort::attach(name, Role::Device).unwrap());
    let mut tap = (role != Role::Daemon).then(|| TapPort::attach(name).unwrap());
    let mut errors = [None, None, None];
    while !bytes.0.is_empty() {
        match (bytes.byte() % 4, &mut cpu, &mut device, &mut tap) {
            (0, Some(cpu), _, _) => cpu_step(cpu, bytes, &mut errors[0]),
            (1, _, Some(device), _) => device_step(device, bytes, &mut errors[1]),
            (2, _, _, Some(tap)) => tap_step(tap, bytes, &mut errors[2]),
            _ => hostile.act(bytes),
        }
    }
    // Who comes back to what the hostile process left must not fall over it either.
    drop((cpu, device, tap));
    let _ = (CpuPort::attach(name), DevicePort::attach(name, Role::Device), TapPort::attach(name));
}

/// Runs a control segment with one hostile process.
pub(crate) fn control(name: &str, role: Role, bytes: &mut Bytes<'_>) {
    let config = ControlConfig { journal_slots: SLOTS as u32, script_slots: SLOTS as u32, script_arena: ARENA };
    let control = ControlSegment::create(name, &config).unwrap();
    let hostile = Hostile::new(name, control.regions(), role);
    let mut cpu = (role != Role::Cpu).then(|| CpuControl::attach(name).unwrap());
    let mut daemon = (role != Role::Daemon).then(|| DaemonControl::attach(name).unwrap());
    let mut error = None;
    let (at, end) = (Position::default(), JournalEntry::End { reason: EndReason::Stopped, icount: 1, vtime: 2 });
    while !bytes.0.is_empty() {
        match (bytes.byte() % 3, &mut cpu, &mut daemon) {
            (0, Some(cpu), _) => match bytes.byte() % 3 {
                0 => checked(cpu.journal.push(at, &end, &at_once()).map(|_| ()), &mut error),
                1 => checked(cpu.script.wait_peek(&at_once()).map(|_| ()), &mut error),
                _ => checked(cpu.script.try_next().map(|_| ()), &mut error),
            },
            (1, _, Some(daemon)) => match bytes.byte() % 4 {
                0 => checked(daemon.journal.try_next().map(|_| ()), &mut error),
                1 => checked(daemon.journal.commit(daemon.journal.taken()), &mut error),
                2 => checked(daemon.journal.peek().map(|_| ()), &mut error),
                _ => {
                    let host = JournalEntry::Host { channel: 0, request: 1, data: (0, 0), port: 0 };
                    let data = vec![1; bytes.below(ARENA as usize)];
                    checked(daemon.script.push(at, &host, &data, &at_once()).map(|_| ()), &mut error);
                }
            },
            _ => hostile.act(bytes),
        }
    }
}

/// Parses anything; what is accepted must be what its encoding says.
pub(crate) fn parse(bytes: &[u8]) {
    use reprise_channel::{ENTRY_BYTES, Entry, SLOT_BYTES, Slot};
    const { assert!(SLOT_BYTES == ENTRY_BYTES) };
    let Some((head, arena)) = bytes.split_at_checked(SLOT_BYTES) else { return };
    let words: [u64; 8] =
        std::array::from_fn(|index| u64::from_le_bytes(std::array::from_fn(|byte| head[index * 8 + byte])));
    let slot = Slot::from_words(words);
    assert_eq!(slot.to_words(), words);
    let blank = |encoded: Slot| Slot { seq: slot.seq, arena_off: slot.arena_off, ..encoded };
    if let Ok(request) = Request::parse(&slot, arena) {
        assert_eq!(blank(request.to_slot(slot.vtime)), slot);
    }
    if let Ok(event) = Event::parse(&slot, arena) {
        assert_eq!(blank(event.to_slot(slot.cause)), slot);
    }
    let entry = Entry::from_words(words);
    if let Ok(parsed) = JournalEntry::parse(&entry) {
        assert_eq!(Entry { seq: entry.seq, ..parsed.to_entry(entry.position()) }, entry);
    }
}
