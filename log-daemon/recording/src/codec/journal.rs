//! The journal.

use crate::{
    record::{Entry, Position, journal},
    wire::{Cursor, Decoded, get_column, get_narrow_column, put_column, put_varint, unzigzag, zigzag},
};
use std::collections::BTreeMap;

/// How a field of an entry is predicted from the entries of the same kind before it.
#[derive(Clone, Copy)]
enum Predict {
    /// Not at all.
    Raw,
    /// It grows: difference to the last one.
    Delta,
    /// It grows evenly: difference of differences.
    Even,
    /// Difference to the last one on the same channel.
    ChannelDelta,
    /// A hash that often stays: exclusive-or with the last one.
    Hash,
    /// A hash that often stays, of a channel.
    ChannelHash,
    /// Guest time: grows as the first field (icount) does.
    Time,
}

/// The fields of an entry as they are coded: an anchor's `a` is two things, pc and cpsr. The cpsr is rotated so that its
/// busy ends, NZCV and the mode, lie side by side in a small number.
fn split(e: &Entry) -> [u64; 5] {
    if e.kind == journal::ANCHOR {
        [e.a >> 32, u64::from((e.a as u32).rotate_left(4)), e.b, e.c, e.d]
    } else {
        [e.a, 0, e.b, e.c, e.d]
    }
}

/// Inverse of [`split`].
fn join(e: &mut Entry, f: [u64; 5]) {
    e.a = if e.kind == journal::ANCHOR { f[0] << 32 | u64::from((f[1] as u32).rotate_right(4)) } else { f[0] };
    [e.b, e.c, e.d] = [f[2], f[3], f[4]];
}

/// The predictions for a kind, in the order of [`split`].
fn plan(kind: u8) -> [Predict; 5] {
    use Predict::*;
    match kind {
        journal::CONSUMED => [ChannelDelta, Raw, Raw, Raw, Raw],
        journal::HOST => [ChannelDelta, Raw, Raw, Raw, Raw],
        journal::ANCHOR => [Raw, Raw, Raw, Even, Raw],
        journal::PROGRESS => [Delta, Raw, Time, Raw, Raw],
        journal::MARK => [ChannelDelta, Raw, ChannelDelta, ChannelHash, Hash],
        _ => [Raw; 5],
    }
}

/// What a prediction looks back on. One for each column.
#[derive(Default)]
struct Past {
    last: u64,
    step: u64,
    first_field: u64,
    by_channel: BTreeMap<u16, u64>,
}

impl Past {
    fn predict(&self, how: Predict, channel: u16, first_field: u64) -> u64 {
        match how {
            Predict::Raw => 0,
            Predict::Delta | Predict::Hash => self.last,
            Predict::Even => self.last.wrapping_add(self.step),
            Predict::ChannelDelta | Predict::ChannelHash => self.by_channel.get(&channel).copied().unwrap_or(0),
            Predict::Time => self.last.wrapping_add(first_field.wrapping_sub(self.first_field)),
        }
    }

    fn seen(&mut self, how: Predict, channel: u16, first_field: u64, v: u64) {
        self.step = v.wrapping_sub(self.last);
        self.last = v;
        self.first_field = first_field;
        if matches!(how, Predict::ChannelDelta | Predict::ChannelHash) {
            self.by_channel.insert(channel, v);
        }
    }

    fn encode(&mut self, how: Predict, channel: u16, first_field: u64, v: u64) -> u64 {
        let p = self.predict(how, channel, first_field);
        self.seen(how, channel, first_field, v);
        match how {
            Predict::Raw | Predict::Hash | Predict::ChannelHash => v ^ p,
            _ => zigzag(v.wrapping_sub(p)),
        }
    }

    fn decode(&mut self, how: Predict, channel: u16, first_field: u64, coded: u64) -> u64 {
        let p = self.predict(how, channel, first_field);
        let v = match how {
            Predict::Raw | Predict::Hash | Predict::ChannelHash => coded ^ p,
            _ => p.wrapping_add(unzigzag(coded)),
        };
        self.seen(how, channel, first_field, v);
        v
    }
}

/// Positions: epochs as differences; counts as differences inside an epoch, else from 0; idle likewise at one (epoch, count).
fn code_position(last: Position, at: Position) -> [u64; 3] {
    let count = if at.epoch == last.epoch { last.count } else { 0 };
    let idle = if (at.epoch, at.count) == (last.epoch, last.count) { u64::from(last.idle) } else { 0 };
    [
        zigzag(at.epoch.wrapping_sub(last.epoch)),
        zigzag(at.count.wrapping_sub(count)),
        u64::from((u64::from(at.idle)).wrapping_sub(idle) as u32),
    ]
}

/// Inverse of [`code_position`].
fn decode_position(last: Position, coded: [u64; 3]) -> Position {
    let epoch = last.epoch.wrapping_add(unzigzag(coded[0]));
    let base = if epoch == last.epoch { last.count } else { 0 };
    let count = base.wrapping_add(unzigzag(coded[1]));
    let base = if (epoch, count) == (last.epoch, last.count) { last.idle } else { 0 };
    Position { epoch, count, idle: base.wrapping_add(coded[2] as u32) }
}

/// Which entries are of which kind, kinds ascending.
fn by_kind(list: &[Entry]) -> BTreeMap<u8, Vec<usize>> {
    let mut kinds: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (i, e) in list.iter().enumerate() {
        kinds.entry(e.kind).or_default().push(i);
    }
    kinds
}

pub(crate) fn encode_journal(out: &mut Vec<u8>, list: &[Entry]) {
    let mut last = Position::default();
    let mut expect = 0u64;
    let mut seqs = Vec::with_capacity(list.len());
    let mut places = [const { Vec::new() }; 3];
    for e in list {
        seqs.push(zigzag(e.seq.wrapping_sub(expect)));
        expect = e.seq.wrapping_add(1);
        for (col, v) in places.iter_mut().zip(code_position(last, e.at)) {
            col.push(v);
        }
        last = e.at;
    }
    put_varint(out, list.len() as u64);
    put_column(out, &list.iter().map(|e| u64::from(e.kind)).collect::<Vec<_>>());
    put_column(out, &list.iter().map(|e| u64::from(e.channel)).collect::<Vec<_>>());
    put_column(out, &seqs);
    places.iter().for_each(|col| put_column(out, col));
    for (kind, which) in by_kind(list) {
        for (field, how) in plan(kind).into_iter().enumerate() {
            let mut past = Past::default();
            let coded = which.iter().map(|&i| {
                let f = split(&list[i]);
                past.encode(how, list[i].channel, f[0], f[field])
            });
            put_column(out, &coded.collect::<Vec<_>>());
        }
    }
}

pub(crate) fn decode_journal(bytes: &[u8], max: usize) -> Decoded<Vec<Entry>> {
    let mut r = Cursor::new(bytes);
    let n = r.bounded(max, "more journal entries than a chunk may hold")?;
    let kinds = get_narrow_column(&mut r, n, 0xff, "a journal kind is too large")?;
    let channels = get_narrow_column(&mut r, n, 0xffff, "a channel number is too large")?;
    let seqs = get_column(&mut r, n)?;
    let epochs = get_column(&mut r, n)?;
    let counts = get_column(&mut r, n)?;
    let idles = get_narrow_column(&mut r, n, 0xffff_ffff, "an idle count is too large")?;
    let mut list = Vec::with_capacity(n);
    let mut last = Position::default();
    let mut expect = 0u64;
    for i in 0..n {
        let seq = expect.wrapping_add(unzigzag(seqs[i]));
        expect = seq.wrapping_add(1);
        last = decode_position(last, [epochs[i], counts[i], idles[i]]);
        list.push(Entry { seq, at: last, kind: kinds[i] as u8, channel: channels[i] as u16, ..Entry::default() });
    }
    for (kind, which) in by_kind(&list) {
        let mut fields = vec![[0u64; 5]; which.len()];
        for (field, how) in plan(kind).into_iter().enumerate() {
            let mut past = Past::default();
            for (k, coded) in get_column(&mut r, which.len())?.into_iter().enumerate() {
                // The first field predicts others, so while it is being decoded itself it predicts nothing.
                let first = fields[k][0];
                fields[k][field] = past.decode(how, list[which[k]].channel, first, coded);
            }
        }
        for (&i, f) in which.iter().zip(fields) {
            join(&mut list[i], f);
        }
    }
    r.finish()?;
    Ok(list)
}
