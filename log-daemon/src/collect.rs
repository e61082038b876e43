//! Recording: gathers what the rings brought and cuts it into causally closed chunks.

use std::collections::VecDeque;

use reprise_channel::fold;
use reprise_recording::{Chunk, Entry, MAX_CHUNK_RECORDS, Message, Output, Swap, journal};
use thiserror::Error;

use crate::staging::Item;

/// The rings contradict the journal: a peer rewrote a slot after it was read, or skipped one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("channel {channel}: {what}")]
pub(crate) struct Mismatch {
    /// Channel number.
    pub(crate) channel: u16,
    /// What does not fit.
    pub(crate) what: String,
}

/// An effect as it is recorded, and the checksum of what the ring held.
#[derive(Debug)]
struct Effect {
    message: Message,
    checksum: u64,
}

/// What one channel brought and no chunk holds yet.
#[derive(Debug, Default)]
struct Pending {
    requests: VecDeque<Message>,
    effects: VecDeque<Effect>,
    output: Vec<Output>,
    /// How far it has come.
    at: ChannelBase,
}

/// How far a channel has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelBase {
    /// Requests taken from the ring.
    pub(crate) requests: u64,
    /// Events taken from the ring, and how many of them were effects.
    pub(crate) events: u64,
    pub(crate) effects: u64,
    /// Requests and effects put into chunks, and the rolling hash over the effects.
    pub(crate) requests_done: u64,
    pub(crate) effects_done: u64,
    pub(crate) hash: u64,
}

/// How far a recording has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    /// Chunks written.
    pub(crate) chunks: u64,
    /// Records that are in them; see [`Collector::records`].
    pub(crate) records: u64,
    /// Journal entries taken from the ring.
    pub(crate) journal: u64,
    /// By channel.
    pub(crate) channels: Vec<ChannelBase>,
}

/// What the rings brought since the last chunk.
#[derive(Debug)]
pub(crate) struct Collector {
    journal: Vec<Entry>,
    /// The complete progress groups in it.
    groups: VecDeque<Group>,
    /// The marks of the group that is still coming in.
    coming: Vec<Entry>,
    missing_marks: u64,
    channels: Vec<Pending>,
    swaps: Vec<Swap>,
    /// Journal entries taken.
    taken: u64,
    bytes: usize,
    records: u64,
    /// Most records of a chunk.
    pub(crate) limit: usize,
}

/// A complete progress group: up to here a chunk can be cut.
#[derive(Debug)]
struct Group {
    /// Journal entries up to and with it.
    end: usize,
    marks: Vec<Entry>,
}

/// An upper bound on the memory that one pending record takes, to bound the collector's memory.
const RECORD_BYTES: usize = 128;

impl Collector {
    /// A collector for `channels` channels.
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            journal: Vec::new(),
            groups: VecDeque::new(),
            coming: Vec::new(),
            missing_marks: 0,
            channels: (0..channels).map(|_| Pending::default()).collect(),
            swaps: Vec::new(),
            taken: 0,
            bytes: 0,
            records: 0,
            limit: MAX_CHUNK_RECORDS,
        }
    }

    /// With chunks of at most `limit` records: for tests that are to see many of them.
    pub(crate) fn limited(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// A collector that goes on from where another was.
    pub(crate) fn resume(base: Base, items: Vec<Item>) -> Self {
        let mut c = Self::new(0);
        (c.taken, c.records) = (base.journal, base.records);
        c.channels = base.channels.into_iter().map(|at| Pending { at, ..Pending::default() }).collect();
        items.into_iter().for_each(|item| c.take(item));
        c
    }

    /// Where it is, after `chunks` chunks, without what waits for one.
    pub(crate) fn base(&self, chunks: u64) -> Base {
        let waiting = |p: &Pending| p.requests.len() + p.effects.len();
        let journal = self.journal.iter().filter(|e| !matches!(e.kind, journal::PROGRESS | journal::MARK)).count();
        let waiting = journal + self.channels.iter().map(waiting).sum::<usize>();
        let channels = self.channels.iter().map(|p| p.at.clone()).collect();
        Base { chunks, records: self.records - waiting as u64, journal: self.taken, channels }
    }

    /// What waits for a chunk.
    pub(crate) fn waiting(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.journal.iter().map(|e| Item::Journal(*e)).collect();
        for (c, p) in self.channels.iter().enumerate() {
            let c = c as u16;
            items.extend(p.requests.iter().map(|m| Item::Request(c, m.clone())));
            // They are known to be taken already.
            items.extend(p.effects.iter().map(|e| Item::Effect(c, 0, e.checksum, e.message.clone())));
            items.extend(p.output.iter().map(|o| Item::Output(c, 0, o.port, o.data.clone())));
        }
        items.extend(self.swaps.iter().cloned().map(Item::Swap));
        items
    }

    /// How far the journal was taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How far a channel was taken.
    pub(crate) fn channel(&self, channel: usize) -> &ChannelBase {
        &self.channels[channel].at
    }

    /// Takes whatever it is.
    pub(crate) fn take(&mut self, item: Item) {
        match item {
            Item::Journal(e) => self.journal(e),
            Item::Request(c, m) => self.request(c.into(), m),
            Item::Effect(c, seq, checksum, m) => {
                self.event(c.into(), seq);
                self.effect(c.into(), m, checksum);
            }
            Item::Output(c, seq, port, data) => {
                self.event(c.into(), seq);
                self.output(c.into(), port, &data);
            }
            Item::Side(c, seq) => self.event(c.into(), seq),
            // The supervisor may say it to one daemon and, when that has died, to the next.
            Item::Swap(s) if self.swaps.contains(&s) => {}
            Item::Swap(s) => self.swaps.push(s),
        }
    }

    fn event(&mut self, channel: usize, seq: u64) {
        let at = &mut self.channels[channel].at;
        at.events = at.events.max(seq + 1);
    }

    /// About how many bytes of memory wait for a chunk.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Records seen so far: requests, effects and journal entries (marks not counted).
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Whether a chunk can be cut.
    pub(crate) fn can_cut(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Takes the next journal entry.
    fn journal(&mut self, e: Entry) {
        self.taken = self.taken.max(e.seq + 1);
        self.bytes += RECORD_BYTES;
        match e.kind {
            journal::PROGRESS => {
                self.coming.clear();
                self.missing_marks = e.c;
            }
            journal::MARK => {
                self.coming.push(e);
                self.missing_marks = self.missing_marks.saturating_sub(1);
            }
            _ => self.records += 1,
        }
        let closes = match e.kind {
            journal::PROGRESS | journal::MARK => self.missing_marks == 0,
            // The end follows its progress group without anything between.
            journal::END_HASH => true,
            _ => false,
        };
        self.journal.push(e);
        if closes {
            let end = self.journal.len();
            match self.groups.back_mut() {
                Some(last) if e.kind == journal::END_HASH => last.end = end,
                _ => self.groups.push_back(Group { end, marks: std::mem::take(&mut self.coming) }),
            }
        }
    }

    /// Takes the next request of a channel.
    fn request(&mut self, channel: usize, m: Message) {
        self.bytes += RECORD_BYTES + m.data.len();
        self.records += 1;
        let p = &mut self.channels[channel];
        p.at.requests = p.at.requests.max(m.number + 1);
        p.requests.push_back(m);
    }

    /// Takes the next effect of a channel.
    fn effect(&mut self, channel: usize, m: Message, checksum: u64) {
        self.bytes += RECORD_BYTES + m.data.len();
        self.records += 1;
        let p = &mut self.channels[channel];
        p.at.effects = p.at.effects.max(m.number + 1);
        p.effects.push_back(Effect { message: m, checksum });
    }

    /// Takes bytes that a device sent to its backend; neighbours on one port are joined.
    fn output(&mut self, channel: usize, port: u64, data: &[u8]) {
        self.bytes += data.len();
        let out = &mut self.channels[channel].output;
        match out.last_mut() {
            Some(last) if last.port == port => last.data.extend_from_slice(data),
            _ => out.push(Output { port, data: data.to_vec() }),
        }
    }

    /// Bytes of output that wait for a chunk.
    pub(crate) fn output_bytes(&self) -> usize {
        self.channels.iter().flat_map(|c| &c.output).map(|o| o.data.len()).sum()
    }

    /// Cuts at the last complete progress group up to which one chunk can hold everything: the journal up to it, and of each channel what its marks
    /// name. If even the first group is too large, its effects and output go ahead in chunks of their own. Empty if there is no complete group.
    /// What is cut depends on nothing but what was taken.
    ///
    /// # Errors
    /// [`Mismatch`] if a channel did not bring what the journal says was sent or consumed, or something else.
    pub(crate) fn cut(&mut self) -> Result<Vec<Chunk>, Mismatch> {
        let fits = self.groups.iter().rposition(|g| self.size(g) <= self.limit).unwrap_or(0);
        let Some(Group { end, marks }) = self.groups.drain(..self.groups.len().min(fits + 1)).next_back() else {
            return Ok(Vec::new());
        };
        self.groups.iter_mut().for_each(|g| g.end -= end);
        let journal = self.journal.drain(..end).collect();
        let mut chunk = Chunk { journal, swaps: std::mem::take(&mut self.swaps), ..Chunk::default() };
        for mark in marks {
            let Some(p) = self.channels.get_mut(usize::from(mark.channel)) else {
                return Err(Mismatch {
                    channel: mark.channel,
                    what: "the journal names a channel that does not exist".into(),
                });
            };
            let records = p.take(&mark)?;
            if !records.is_empty() {
                *chunk.channel(mark.channel) = records;
            }
        }
        // A group without marks is the end, whose marks are in an earlier chunk already: output may have come since.
        for (c, p) in self.channels.iter_mut().enumerate().filter(|(_, p)| !p.output.is_empty()) {
            chunk.channel(c as u16).output = std::mem::take(&mut p.output);
        }
        self.bytes = self.journal.len() * RECORD_BYTES + self.channels.iter().map(Pending::bytes).sum::<usize>();
        Ok(chunk.into_pieces(self.limit))
    }

    /// How many records a chunk has that is cut at a group.
    fn size(&self, group: &Group) -> usize {
        let of = |mark: &Entry| {
            let p = self.channels.get(usize::from(mark.channel))?;
            let (requests, effects) = (mark.a.wrapping_sub(p.at.requests_done), mark.b.wrapping_sub(p.at.effects_done));
            Some(usize::try_from(requests.saturating_add(effects)).unwrap_or(usize::MAX))
        };
        let output: usize = self.channels.iter().map(|p| p.output.len()).sum();
        let messages = group.marks.iter().filter_map(of).fold(0, usize::saturating_add);
        (group.end + self.swaps.len() + output).saturating_add(messages)
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        let data = self.requests.iter().map(|m| m.data.len()).sum::<usize>()
            + self.effects.iter().map(|e| e.message.data.len()).sum::<usize>();
        (self.requests.len() + self.effects.len()) * RECORD_BYTES
            + data
            + self.output.iter().map(|o| o.data.len()).sum::<usize>()
    }

    /// Everything up to a mark.
    fn take(&mut self, mark: &Entry) -> Result<reprise_recording::ChannelRecords, Mismatch> {
        let short = |what: &str, want: u64, have: u64| Mismatch {
            channel: mark.channel,
            what: format!("the journal names {want} {what}, the ring brought {have}"),
        };
        let requests = mark.a.wrapping_sub(self.at.requests_done);
        if requests > self.requests.len() as u64 {
            return Err(short("requests", mark.a, self.at.requests_done + self.requests.len() as u64));
        }
        let effects = mark.b.wrapping_sub(self.at.effects_done);
        if effects > self.effects.len() as u64 {
            return Err(short("effects", mark.b, self.at.effects_done + self.effects.len() as u64));
        }
        self.at.requests_done = mark.a;
        self.at.effects_done = mark.b;
        let mut records = reprise_recording::ChannelRecords {
            requests: self.requests.drain(..requests as usize).collect(),
            effects: Vec::with_capacity(effects as usize),
            output: std::mem::take(&mut self.output),
        };
        for e in self.effects.drain(..effects as usize) {
            self.at.hash = fold(self.at.hash, e.checksum);
            records.effects.push(e.message);
        }
        if self.at.hash != mark.c {
            let what =
                "what the CPU process consumed is not what the ring holds: the device process rewrote a slot".into();
            return Err(Mismatch { channel: mark.channel, what });
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reprise_recording::message;

    fn entry(kind: u8, channel: u16, a: u64, b: u64, c: u64) -> Entry {
        Entry { kind, channel, a, b, c, ..Entry::default() }
    }

    fn effect(number: u64, value: u64) -> Message {
        Message { number, cause: number, kind: message::REPLY, value, ..Message::default() }
    }

    /// The rolling hash over effects.
    fn roll(hash: u64, m: &Message) -> u64 {
        fold(hash, crate::convert::checksum(m))
    }

    fn put(c: &mut Collector, channel: u16, m: Message) {
        let checksum = crate::convert::checksum(&m);
        c.take(Item::Effect(channel, 2 * m.number, checksum, m));
    }

    fn request(number: u64) -> Message {
        Message { number, kind: message::READ, size: 4, ..Message::default() }
    }

    #[test]
    fn a_chunk_holds_exactly_what_its_marks_name() {
        let mut c = Collector::new(2);
        for i in 0..5 {
            c.request(0, request(i));
            put(&mut c, 0, effect(i, i * 3));
        }
        c.request(1, request(0));
        assert_eq!(c.cut().unwrap(), [], "no progress group yet");
        let hash = (0..3).fold(0, |h, i| roll(h, &effect(i, i * 3)));
        c.journal(entry(journal::WARP, 0, 7, 0, 0));
        c.journal(entry(journal::PROGRESS, 0, 100, 100, 2));
        c.journal(entry(journal::MARK, 0, 4, 3, hash));
        assert!(!c.can_cut(), "a mark is missing");
        c.journal(entry(journal::MARK, 1, 0, 0, 0));
        c.journal(entry(journal::WARP, 0, 8, 0, 0));
        let chunk = c.cut().unwrap().pop().expect("closed");
        assert_eq!(chunk.journal.len(), 4);
        assert_eq!(chunk.channels[&0].requests.len(), 4);
        assert_eq!(chunk.channels[&0].effects.len(), 3);
        assert!(!chunk.channels.contains_key(&1));
        assert_eq!(c.cut().unwrap(), []);
    }

    #[test]
    fn a_rewritten_slot_is_noticed() {
        let mut c = Collector::new(1);
        c.request(0, request(0));
        put(&mut c, 0, effect(0, 1));
        c.journal(entry(journal::PROGRESS, 0, 1, 1, 1));
        c.journal(entry(journal::MARK, 0, 1, 1, roll(0, &effect(0, 2))));
        assert!(c.cut().unwrap_err().what.contains("rewrote"));
    }

    #[test]
    fn a_missing_message_is_noticed() {
        let mut c = Collector::new(1);
        c.journal(entry(journal::PROGRESS, 0, 1, 1, 1));
        c.journal(entry(journal::MARK, 0, 1, 0, 0));
        assert!(c.cut().unwrap_err().what.contains("1 requests"));
    }

    /// Two groups that fit, of which one chunk can't hold both, and one that is too large by itself.
    #[test]
    fn a_flood_is_cut_into_chunks_that_hold_it() {
        let mut c = Collector::new(2).limited(20);
        for i in 0..3 {
            c.request(0, request(i));
        }
        (0..70).for_each(|i| put(&mut c, 0, effect(i, i)));
        c.take(Item::Output(1, 0, 0, b"said".to_vec()));
        for (requests, effects) in [(1, 8), (2, 16), (3, 70)] {
            let hash = (0..effects).fold(0, |h, i| roll(h, &effect(i, i)));
            c.journal(entry(journal::PROGRESS, 0, effects, effects, 2));
            c.journal(entry(journal::MARK, 0, requests, effects, hash));
            c.journal(entry(journal::MARK, 1, 0, 0, 0));
        }
        let mut all = Vec::new();
        while c.can_cut() {
            all.extend(c.cut().unwrap());
        }
        assert!(all.iter().all(|k| k.records() <= 20), "{:?}", all.iter().map(Chunk::records).collect::<Vec<_>>());
        let groups = |k: &Chunk| k.journal.iter().filter(|e| e.kind == journal::PROGRESS).count();
        assert_eq!(all.iter().map(groups).collect::<Vec<_>>(), [1, 1, 0, 0, 1]);
        let of = |k: &Chunk| k.channels.get(&0).map_or(Vec::new(), |r| r.effects.clone());
        assert_eq!(all.iter().flat_map(of).collect::<Vec<_>>(), (0..70).map(|i| effect(i, i)).collect::<Vec<_>>());
        // What is asked of a device stands with the journal, which names it.
        assert_eq!(all[4].channels[&0].requests, [request(2)]);
        assert_eq!(all[0].channels[&1].output[0].data, b"said");
    }

    /// The CPU's last marks are in a chunk; then a device says something more, and the end comes.
    #[test]
    fn output_behind_the_last_marks_comes_with_the_end() {
        let mut c = Collector::new(1);
        c.journal(entry(journal::PROGRESS, 0, 1, 1, 1));
        c.journal(entry(journal::MARK, 0, 0, 0, 0));
        assert_eq!(c.cut().unwrap().len(), 1);
        c.take(Item::Output(0, 0, 0, b"late".to_vec()));
        c.journal(entry(journal::END, 0, 1, 1, 1));
        c.journal(entry(journal::END_HASH, 0, 1, 1, 1));
        assert_eq!(c.cut().unwrap()[0].channels[&0].output[0].data, b"late");
        assert_eq!(c.output_bytes(), 0);
    }

    #[test]
    fn what_waits_and_the_base_make_the_same_collector() {
        let mut c = Collector::new(2);
        let swap = Swap { channel: 1, request: 3, name: "a".into(), ..Swap::default() };
        let group = |c: &mut Collector, requests: u64, effects: u64| {
            let hash = (0..effects).fold(0, |h, i| roll(h, &effect(i, i)));
            c.take(Item::Journal(Entry { seq: c.taken(), ..entry(journal::PROGRESS, 0, 100, 100, 1) }));
            c.take(Item::Journal(Entry { seq: c.taken(), ..entry(journal::MARK, 0, requests, effects, hash) }));
        };
        for i in 0..6 {
            c.request(0, request(i));
            put(&mut c, 0, effect(i, i));
            c.take(Item::Output(0, 2 * i + 1, 0, vec![i as u8; 3]));
        }
        c.take(Item::Swap(swap.clone()));
        c.take(Item::Swap(swap));
        for (requests, effects) in [(2, 1), (6, 5)] {
            group(&mut c, requests, effects);
            c.take(Item::Journal(Entry { seq: c.taken(), ..entry(journal::WARP, 0, 7, 0, 0) }));
            let mut again = Collector::resume(c.base(4), c.waiting());
            assert_eq!((again.base(4), again.waiting()), (c.base(4), c.waiting()));
            assert_eq!(again.records(), c.records());
            let chunk = c.cut().unwrap();
            assert_eq!(again.cut().unwrap(), chunk);
            assert_eq!(again.waiting(), c.waiting());
            assert_eq!(chunk[0].swaps.len(), usize::from(requests == 2));
        }
        assert_eq!(c.channel(0), &ChannelBase { requests: 6, events: 12, effects: 6, ..c.channel(0).clone() });
    }
}
