//! Replaying: what the recording says each channel carries, against what it does carry.

use std::collections::VecDeque;

use reprise_recording::{ChannelRecords, Message, message};

/// A channel did not carry what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Channel number.
    pub(crate) channel: usize,
    /// `request` or `effect`, and its number.
    pub(crate) what: String,
    /// From the recording.
    pub(crate) expected: String,
    /// From the replay.
    pub(crate) actual: String,
}

/// What the recording still has for one channel.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    requests: VecDeque<Message>,
    /// Effects, in order. In an absent replay they are sent; else compared.
    pub(crate) effects: VecDeque<Message>,
    /// Bytes for each port's backend.
    pub(crate) output: VecDeque<reprise_recording::Output>,
    /// Requests that were seen and were right.
    pub(crate) seen_requests: u64,
    /// Effects that were seen and were right.
    pub(crate) seen_effects: u64,
    /// The recording has no more.
    pub(crate) complete: bool,
}

impl Expected {
    /// Adds a chunk's records.
    pub(crate) fn add(&mut self, r: ChannelRecords) {
        self.requests.extend(r.requests);
        self.effects.extend(r.effects);
        self.output.extend(r.output);
    }

    /// Compares a request that cpu-proc sent. `Ok(false)`: the recording ended before it; nothing can be said.
    pub(crate) fn request(&mut self, channel: usize, got: &Message) -> Result<bool, Difference> {
        let Some(want) = self.requests.pop_front() else { return Ok(false) };
        compare(channel, "request", &want, got)?;
        self.seen_requests += 1;
        Ok(true)
    }

    /// Compares an effect of a device. `Ok(false)`: the recording ended before it.
    pub(crate) fn effect(&mut self, channel: usize, got: &Message) -> Result<bool, Difference> {
        let Some(want) = self.effects.pop_front() else { return Ok(false) };
        compare(channel, "effect", &want, got)?;
        self.seen_effects += 1;
        Ok(true)
    }
}

fn compare(channel: usize, kind: &str, want: &Message, got: &Message) -> Result<(), Difference> {
    if want == got {
        return Ok(());
    }
    Err(Difference { channel, what: format!("{kind} {}", want.number), expected: show(want), actual: show(got) })
}

/// A message for people.
pub(crate) fn show(m: &Message) -> String {
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
        assert_eq!(e.effect(0, &read(1)), Ok(true));
        let d = e.effect(0, &read(5)).unwrap_err();
        assert_eq!(d.what, "effect 3");
        assert!(d.expected.contains("value 0x2") && d.actual.contains("value 0x5"));
        assert_eq!(e.effect(0, &read(5)), Ok(false), "the recording is at its end");
    }
}
