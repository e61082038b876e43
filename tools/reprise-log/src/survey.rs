//! One pass over a recording, counting.

use anyhow::Result;
use reprise_channel::burst;
use reprise_recording::{Chunk, Error, Position, Recording, Status, journal, message};
use std::collections::BTreeMap;

/// How a register was used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Register {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// Its share of the requests' bytes before compression.
    pub(crate) bytes: f64,
}

/// A stream's size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamSize {
    /// Before compression.
    pub(crate) raw: u64,
    /// Its share of what is stored, as if all streams of a chunk packed equally well.
    pub(crate) stored: f64,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) chunks: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) index_bytes: u64,
    pub(crate) at: Position,
    pub(crate) icount: u64,
    pub(crate) vtime: u64,
    pub(crate) streams: BTreeMap<u32, StreamSize>,
    /// By channel and register offset.
    pub(crate) registers: BTreeMap<(u16, u64), Register>,
    /// By kind.
    pub(crate) journal: BTreeMap<u8, u64>,
    /// By kind.
    pub(crate) messages: BTreeMap<u8, u64>,
    pub(crate) input_bytes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) status: Option<Status>,
}

impl Survey {
    /// Segments and index.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.segment_bytes + self.index_bytes
    }

    /// Journal entries and messages.
    pub(crate) fn events(&self) -> u64 {
        self.journal.values().sum::<u64>() + self.messages.values().sum::<u64>()
    }

    /// Anchors in the journal.
    pub(crate) fn anchors(&self) -> u64 {
        self.journal.get(&journal::ANCHOR).copied().unwrap_or(0)
    }

    /// How the recording ends.
    pub(crate) fn status(&self) -> Result<&Status> {
        self.status.as_ref().ok_or_else(|| anyhow::anyhow!("the recording was not read to its end"))
    }

    /// Reads everything. What is wrong is in the status.
    pub(crate) fn of(recording: &Recording) -> Result<Survey> {
        let sizes = recording.segment_bytes()?;
        let mut s = Survey {
            segment_bytes: sizes.iter().sum(),
            segments: sizes.len() as u64,
            index_bytes: recording.index_bytes(),
            ..Survey::default()
        };
        let mut chunks = recording.chunks();
        while let Some(chunk) = chunks.next() {
            match (chunk, chunks.info()) {
                (Ok(chunk), Some(info)) => {
                    s.stored_bytes += info.stored_bytes;
                    s.raw_bytes += info.raw_bytes;
                    for section in &info.sections {
                        let size = s.streams.entry(section.stream).or_default();
                        size.raw += section.bytes;
                        size.stored += section.bytes as f64 * info.stored_bytes as f64 / info.raw_bytes.max(1) as f64;
                    }
                    s.count(&chunk);
                }
                (Err(Error::Corrupt(_)), _) | (Ok(_), None) => {}
                (Err(e), _) => return Err(e.into()),
            }
        }
        s.status = Some(chunks.status());
        s.share_bytes(recording);
        Ok(s)
    }

    fn count(&mut self, chunk: &Chunk) {
        self.chunks += 1;
        if let Some((at, icount, vtime)) = chunk.reaches() {
            (self.at, self.icount, self.vtime) = (at, icount, vtime);
        }
        for e in &chunk.journal {
            *self.journal.entry(e.kind).or_default() += 1;
        }
        for (&channel, records) in &chunk.channels {
            for m in records.requests.iter().chain(&records.effects) {
                *self.messages.entry(m.kind).or_default() += 1;
                match m.kind {
                    message::READ => self.registers.entry((channel, m.offset)).or_default().reads += 1,
                    message::WRITE => self.registers.entry((channel, m.offset)).or_default().writes += 1,
                    message::BURST => {
                        let stores = burst::stores(0, m.payload()).count() as u64;
                        self.registers.entry((channel, m.offset)).or_default().writes += stores;
                    }
                    message::HOST => self.input_bytes += m.payload().len() as u64,
                    _ => {}
                }
            }
            self.output_bytes += records.output.iter().map(|o| o.data.len() as u64).sum::<u64>();
        }
    }

    /// Gives each register its share of its channel's request bytes, by number of accesses.
    fn share_bytes(&mut self, recording: &Recording) {
        let mut accesses: BTreeMap<u16, u64> = BTreeMap::new();
        for (&(channel, _), r) in &self.registers {
            *accesses.entry(channel).or_default() += r.reads + r.writes;
        }
        for (&(channel, _), r) in &mut self.registers {
            let stream = recording.manifest().stream(reprise_recording::StreamKind::Requests, channel);
            let raw = stream.and_then(|s| self.streams.get(&s.id)).map_or(0, |s| s.raw);
            r.bytes = raw as f64 * (r.reads + r.writes) as f64 / accesses[&channel].max(1) as f64;
        }
    }
}
