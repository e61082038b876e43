//! Requests and effects of a channel.

use super::output::take;
use crate::{
    record::{Message, message},
    wire::{Cursor, Decoded, get_column, get_narrow_column, put_column, put_varint, unzigzag, zigzag},
};

/// Values are stored register by register: what was written to the data register of a UART is then one run of text.
fn by_register(kinds: &[u64], offsets: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by_key(|&i| (kinds[i], offsets[i]));
    order
}

/// What a message's guest time is measured from. Only requests and Arm carry one; anything else predicts 0.
#[derive(Default)]
struct Clock {
    last: u64,
}

impl Clock {
    fn base(&self, kind: u64) -> u64 {
        let timed = message::is_request(kind as u8) || kind == u64::from(message::ARM);
        if timed { self.last } else { 0 }
    }

    fn encode(&mut self, kind: u64, vtime: u64) -> u64 {
        let d = zigzag(vtime.wrapping_sub(self.base(kind)));
        self.seen(kind, vtime);
        d
    }

    fn decode(&mut self, kind: u64, d: u64) -> u64 {
        let vtime = self.base(kind).wrapping_add(unzigzag(d));
        self.seen(kind, vtime);
        vtime
    }

    fn seen(&mut self, kind: u64, vtime: u64) {
        if message::is_request(kind as u8) || kind == u64::from(message::ARM) {
            self.last = vtime;
        }
    }
}

/// Differences to `step` more than the one before, the first to 0.
fn deltas(vals: impl Iterator<Item = u64>, step: u64) -> Vec<u64> {
    let mut expect = 0u64;
    vals.map(|v| {
        let d = zigzag(v.wrapping_sub(expect));
        expect = v.wrapping_add(step);
        d
    })
    .collect()
}

fn undeltas(col: Vec<u64>, step: u64) -> Vec<u64> {
    let mut expect = 0u64;
    col.into_iter()
        .map(|d| {
            let v = expect.wrapping_add(unzigzag(d));
            expect = v.wrapping_add(step);
            v
        })
        .collect()
}

pub(crate) fn encode_messages(out: &mut Vec<u8>, list: &[Message]) {
    let column = |f: &dyn Fn(&Message) -> u64| list.iter().map(f).collect::<Vec<u64>>();
    let kinds = column(&|m| u64::from(m.kind));
    let offsets = column(&|m| m.offset);
    let mut clock = Clock::default();
    put_varint(out, list.len() as u64);
    put_column(out, &kinds);
    put_column(out, &offsets);
    put_column(out, &deltas(list.iter().map(|m| m.number), 1));
    put_column(out, &deltas(list.iter().map(|m| m.cause), 0));
    put_column(out, &list.iter().map(|m| clock.encode(u64::from(m.kind), m.vtime)).collect::<Vec<_>>());
    put_column(out, &column(&|m| u64::from(m.size)));
    put_column(out, &column(&|m| u64::from(m.flags)));
    put_column(out, &column(&|m| u64::from(m.arg)));
    put_column(out, &by_register(&kinds, &offsets).into_iter().map(|i| list[i].value).collect::<Vec<_>>());
    put_column(out, &column(&|m| u64::from_le_bytes(m.inline)));
    put_column(out, &column(&|m| m.data.len() as u64));
    list.iter().for_each(|m| out.extend_from_slice(&m.data));
}

pub(crate) fn decode_messages(bytes: &[u8], max: usize) -> Decoded<Vec<Message>> {
    let mut r = Cursor::new(bytes);
    let n = r.bounded(max, "more messages than a chunk may hold")?;
    let kinds = get_narrow_column(&mut r, n, 0xff, "a message kind is too large")?;
    let offsets = get_column(&mut r, n)?;
    let numbers = undeltas(get_column(&mut r, n)?, 1);
    let causes = undeltas(get_column(&mut r, n)?, 0);
    let times = get_column(&mut r, n)?;
    let sizes = get_narrow_column(&mut r, n, 0xff, "an access size is too large")?;
    let flags = get_narrow_column(&mut r, n, 0xffff, "message flags are too large")?;
    let args = get_narrow_column(&mut r, n, 0xffff_ffff, "a message argument is too large")?;
    let values = get_column(&mut r, n)?;
    let inlines = get_column(&mut r, n)?;
    let lens = get_column(&mut r, n)?;
    let mut clock = Clock::default();
    let mut list = Vec::with_capacity(n);
    for i in 0..n {
        list.push(Message {
            number: numbers[i],
            cause: causes[i],
            vtime: clock.decode(kinds[i], times[i]),
            kind: kinds[i] as u8,
            size: sizes[i] as u8,
            flags: flags[i] as u16,
            arg: args[i] as u32,
            offset: offsets[i],
            value: 0,
            inline: inlines[i].to_le_bytes(),
            data: take(&mut r, lens[i])?,
        });
    }
    for (i, v) in by_register(&kinds, &offsets).into_iter().zip(values) {
        list[i].value = v;
    }
    r.finish()?;
    Ok(list)
}
