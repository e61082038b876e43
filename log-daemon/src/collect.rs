//! Recording: gathers what the rings brought and cuts it into causally closed chunks.

use std::collections::VecDeque;

use reprise_recording::{Chunk, Entry, Message, Output, journal};
use thiserror::Error;

/// The rings contradict the journal: a peer rewrote a slot after it was read, or skipped one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("channel {channel}: {what}")]
pub(crate) struct Mismatch {
    /// Channel number.
    pub(crate) channel: u16,
    /// What does not fit.
    pub(crate) what: String,
}

/// What one channel brought and no chunk holds yet.
#[derive(Debug, Default)]
struct Pending {
    requests: VecDeque<Message>,
    effects: VecDeque<Message>,
    output: Vec<Output>,
    /// Effects put into chunks so far, and the rolling hash over them.
    effects_done: u64,
    requests_done: u64,
    hash: u64,
}

/// What the rings brought since the last chunk.
#[derive(Debug)]
pub(crate) struct Collector {
    journal: Vec<Entry>,
    /// Journal entries up to and with the last complete progress group.
    closed: usize,
    /// The marks of that group, and of the group that is still coming in.
    marks: Vec<Entry>,
    coming: Vec<Entry>,
    missing_marks: u64,
    channels: Vec<Pending>,
    bytes: usize,
    records: u64,
}

/// An upper bound on the memory that one pending record takes, to bound the collector's memory.
const RECORD_BYTES: usize = 128;

impl Collector {
    /// A collector for `channels` channels.
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            journal: Vec::new(),
            closed: 0,
            marks: Vec::new(),
            coming: Vec::new(),
            missing_marks: 0,
            channels: (0..channels).map(|_| Pending::default()).collect(),
            bytes: 0,
            records: 0,
        }
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
        self.closed > 0
    }

    /// Takes the next journal entry.
    pub(crate) fn journal(&mut self, e: Entry) {
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
            self.closed = self.journal.len();
            if e.kind != journal::END_HASH {
                self.marks = std::mem::take(&mut self.coming);
            }
        }
    }

    /// Takes the next request of a channel.
    pub(crate) fn request(&mut self, channel: usize, m: Message) {
        self.bytes += RECORD_BYTES + m.data.len();
        self.records += 1;
        self.channels[channel].requests.push_back(m);
    }

    /// Takes the next effect of a channel.
    pub(crate) fn effect(&mut self, channel: usize, m: Message) {
        self.bytes += RECORD_BYTES + m.data.len();
        self.records += 1;
        self.channels[channel].effects.push_back(m);
    }

    /// Takes bytes that a device sent to its backend; neighbours on one port are joined.
    pub(crate) fn output(&mut self, channel: usize, port: u64, data: &[u8]) {
        self.bytes += data.len();
        let out = &mut self.channels[channel].output;
        match out.last_mut() {
            Some(last) if last.port == port => last.data.extend_from_slice(data),
            _ => out.push(Output { port, data: data.to_vec() }),
        }
    }

    /// Cuts a chunk at the last complete progress group: the journal up to it, and of each channel what its marks name.
    ///
    /// # Errors
    /// [`Mismatch`] if a channel did not bring what the journal says was sent or consumed, or something else.
    pub(crate) fn cut(&mut self) -> Result<Option<Chunk>, Mismatch> {
        if self.closed == 0 {
            return Ok(None);
        }
        let mut chunk = Chunk { journal: self.journal.drain(..self.closed).collect(), ..Chunk::default() };
        self.closed = 0;
        for mark in std::mem::take(&mut self.marks) {
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
        self.bytes = self.journal.len() * RECORD_BYTES + self.channels.iter().map(Pending::bytes).sum::<usize>();
        Ok(Some(chunk))
    }
}

impl Pending {
    fn bytes(&self) -> usize {
        (self.requests.len() + self.effects.len()) * RECORD_BYTES
            + self.output.iter().map(|o| o.data.len()).sum::<usize>()
    }

    /// Everything up to a mark.
    fn take(&mut self, mark: &Entry) -> Result<reprise_recording::ChannelRecords, Mismatch> {
        let short = |what: &str, want: u64, have: u64| Mismatch {
            channel: mark.channel,
            what: format!("the journal names {want} {what}, the ring brought {have}"),
        };
        let requests = mark.a.wrapping_sub(self.requests_done);
        if requests > self.requests.len() as u64 {
            return Err(short("requests", mark.a, self.requests_done + self.requests.len() as u64));
        }
        let effects = mark.b.wrapping_sub(self.effects_done);
        if effects > self.effects.len() as u64 {
            return Err(short("effects", mark.b, self.effects_done + self.effects.len() as u64));
        }
        self.requests_done = mark.a;
        self.effects_done = mark.b;
        let records = reprise_recording::ChannelRecords {
            requests: self.requests.drain(..requests as usize).collect(),
            effects: self.effects.drain(..effects as usize).collect(),
            output: std::mem::take(&mut self.output),
        };
        for e in &records.effects {
            self.hash = crate::convert::roll(self.hash, e);
        }
        if self.hash != mark.c {
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

    fn request(number: u64) -> Message {
        Message { number, kind: message::READ, size: 4, ..Message::default() }
    }

    #[test]
    fn a_chunk_holds_exactly_what_its_marks_name() {
        let mut c = Collector::new(2);
        for i in 0..5 {
            c.request(0, request(i));
            c.effect(0, effect(i, i * 3));
        }
        c.request(1, request(0));
        assert_eq!(c.cut().unwrap(), None, "no progress group yet");
        let hash = (0..3).fold(0, |h, i| crate::convert::roll(h, &effect(i, i * 3)));
        c.journal(entry(journal::WARP, 0, 7, 0, 0));
        c.journal(entry(journal::PROGRESS, 0, 100, 100, 2));
        c.journal(entry(journal::MARK, 0, 4, 3, hash));
        assert!(!c.can_cut(), "a mark is missing");
        c.journal(entry(journal::MARK, 1, 0, 0, 0));
        c.journal(entry(journal::WARP, 0, 8, 0, 0));
        let chunk = c.cut().unwrap().expect("closed");
        assert_eq!(chunk.journal.len(), 4);
        assert_eq!(chunk.channels[&0].requests.len(), 4);
        assert_eq!(chunk.channels[&0].effects.len(), 3);
        assert!(!chunk.channels.contains_key(&1));
        assert_eq!(c.cut().unwrap(), None);
    }

    #[test]
    fn a_rewritten_slot_is_noticed() {
        let mut c = Collector::new(1);
        c.request(0, request(0));
        c.effect(0, effect(0, 1));
        c.journal(entry(journal::PROGRESS, 0, 1, 1, 1));
        c.journal(entry(journal::MARK, 0, 1, 1, crate::convert::roll(0, &effect(0, 2))));
        assert!(c.cut().unwrap_err().what.contains("rewrote"));
    }

    #[test]
    fn a_missing_message_is_noticed() {
        let mut c = Collector::new(1);
        c.journal(entry(journal::PROGRESS, 0, 1, 1, 1));
        c.journal(entry(journal::MARK, 0, 1, 0, 0));
        assert!(c.cut().unwrap_err().what.contains("1 requests"));
    }
}
