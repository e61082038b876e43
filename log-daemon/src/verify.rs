//! Replaying: what the recording says each channel carries, against what it does carry.

use std::collections::VecDeque;

use reprise_recording::dma::{DIGEST, REFERENCES};
use reprise_recording::{ChannelRecords, Message, message};

use crate::transfer::in_form_of;

/// A channel did not carry what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Channel number.
    pub channel: usize,
    /// `request` or `effect`, and its number.
    pub what: String,
    /// From the recording.
    pub expected: String,
    /// From the replay.
    pub actual: String,
}

/// What the recording still has for one channel.
#[derive(Debug, Default)]
pub struct Expected {
    /// Requests, in order.
    pub requests: VecDeque<Message>,
    /// Effects, in order. In an absent replay they are sent; else compared.
    pub effects: VecDeque<Message>,
    /// Bytes for each port's backend.
    pub output: VecDeque<reprise_recording::Output>,
    /// Requests that were seen and were right.
    pub seen_requests: u64,
    /// Effects that were seen and were right.
    pub seen_effects: u64,
    /// The recording has no more.
    pub complete: bool,
}

impl Expected {
    /// Adds a chunk's records.
    pub fn add(&mut self, r: ChannelRecords) {
        self.requests.extend(r.requests);
        self.effects.extend(r.effects);
        self.output.extend(r.output);
    }

    /// Compares a request that cpu-proc sent. `Ok(false)`: the recording ended before it; nothing can be said.
    ///
    /// # Errors
    /// What differs.
    pub fn request(&mut self, channel: usize, got: Message) -> Result<bool, Difference> {
        let Some(want) = self.requests.pop_front() else { return Ok(false) };
        compare(channel, "request", &want, got)?;
        self.seen_requests += 1;
        Ok(true)
    }

    /// Compares an effect of a device. `Ok(false)`: the recording ended before it.
    ///
    /// # Errors
    /// What differs.
    pub fn effect(&mut self, channel: usize, got: Message) -> Result<bool, Difference> {
        let Some(want) = self.effects.pop_front() else { return Ok(false) };
        compare(channel, "effect", &want, got)?;
        self.seen_effects += 1;
        Ok(true)
    }
}

/// Compares by what was recorded: a reference or a hash stands for the bytes.
fn compare(channel: usize, kind: &str, want: &Message, got: Message) -> Result<(), Difference> {
    let got = in_form_of(want, got);
    if *want == got {
        return Ok(());
    }
    let (mut expected, mut actual) = (show(want), show(&got));
    if expected == actual {
        let at = want.data.iter().zip(&got.data).position(|(a, b)| a != b);
        let note = match at {
            Some(at) if want.flags & (REFERENCES | DIGEST) == 0 => format!(", with other bytes from {at} on"),
            _ => ", with other bytes".into(),
        };
        expected.push_str(" as recorded");
        actual.push_str(&note);
    }
    Err(Difference { channel, what: format!("{kind} {}", want.number), expected, actual })
}

/// A message for people.
pub fn show(m: &Message) -> String {
    let mut s = format!("{} offset {:#x} size {} value {:#x}", message::name(m.kind), m.offset, m.size, m.value);
    for (name, v) in [
        ("arg", u64::from(m.arg)),
        ("cause", m.cause),
        ("vtime", m.vtime),
        ("flags", u64::from(m.flags)),
        ("bytes", m.data.len() as u64),
    ] {
        if v != 0 {
            s.push_str(&format!(" {name} {v}"));
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: u64) -> Message {
        Message { number: 3, kind: message::REPLY, value, ..Message::default() }
    }

    #[test]
    fn a_changed_value_is_shown_with_both_sides() {
        let mut e = Expected::default();
        e.add(ChannelRecords { effects: vec![read(1), read(2)], ..ChannelRecords::default() });
        assert_eq!(e.effect(0, read(1)), Ok(true));
        let d = e.effect(0, read(5)).unwrap_err();
        assert_eq!(d.what, "effect 3");
        assert!(d.expected.contains("value 0x2") && d.actual.contains("value 0x5"));
        assert_eq!(e.effect(0, read(5)), Ok(false), "the recording is at its end");
    }

    #[test]
    fn transfers_are_compared_by_reference_and_by_hash() {
        let m = crate::transfer::tests::disk_read(0, 4096, 8192);
        let packed = crate::transfer::pack(m.clone(), |_, _| true);
        let mut e = Expected::default();
        e.add(ChannelRecords { effects: vec![packed.clone(), packed], ..ChannelRecords::default() });
        assert_eq!(e.effect(0, m.clone()), Ok(true));
        let mut other = m;
        let middle = other.data.len() / 2;
        other.data[middle] ^= 1;
        assert!(e.effect(0, other).unwrap_err().actual.contains("other bytes"));
        let done = |b: u8| Message { kind: message::DMA_DONE, data: vec![b; 500], ..Message::default() };
        let hash = crate::transfer::hash_read(done(1));
        e.add(ChannelRecords { requests: vec![hash.clone(), hash], ..ChannelRecords::default() });
        assert_eq!(e.request(0, done(1)), Ok(true));
        assert!(e.request(0, done(2)).is_err());
    }
}
