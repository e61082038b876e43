//! Numbers and names for people.

use reprise_recording::{Manifest, Status};
use serde_json::{Value, json};

/// `1234567` as `1 234 567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(c);
    }
    text
}

/// Bytes, with a unit that fits.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} bytes"),
        10_000..10_000_000 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / (1024.0 * 1024.0)),
    }
}

/// Guest time, from ns.
pub(crate) fn time(ns: u64) -> String {
    format!("{}.{:06} s", ns / 1_000_000_000, ns % 1_000_000_000 / 1000)
}

/// `a` of `b`, as a factor.
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes as text with escapes, cut when long.
pub(crate) fn text(bytes: &[u8]) -> String {
    const MOST: usize = 80;
    let shown: String = bytes.iter().take(MOST).flat_map(|b| b.escape_ascii()).map(char::from).collect();
    if bytes.len() > MOST { format!("\"{shown}\"... ({} bytes)", bytes.len()) } else { format!("\"{shown}\"") }
}

/// A channel's name.
pub(crate) fn channel(m: &Manifest, channel: u16) -> String {
    m.channel_name(channel).map_or_else(|| format!("channel{channel}"), str::to_owned)
}

/// A stream's name: `journal`, `uart0.requests`.
pub(crate) fn stream(m: &Manifest, id: u32) -> String {
    match m.streams.iter().find(|s| s.id == id) {
        Some(s) if s.name.is_empty() => s.kind.clone(),
        Some(s) => format!("{}.{}", s.name, s.kind),
        None => format!("stream{id}"),
    }
}

/// A status as JSON.
pub(crate) fn status(status: &Status) -> Value {
    match status {
        Status::Complete(_) => json!({ "status": "complete" }),
        Status::Truncated { segment, offset } => json!({ "status": "truncated", "segment": segment, "offset": offset }),
        Status::Live { segment, offset } => json!({ "status": "live", "segment": segment, "offset": offset }),
        Status::Corrupt(f) => json!({ "status": "corrupt", "fault": fault(f) }),
    }
}

/// A fault as JSON.
pub(crate) fn fault(f: &reprise_recording::Fault) -> Value {
    json!({ "file": f.place.file, "offset": f.place.offset, "chunk": f.place.chunk, "what": f.what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1 000");
        assert_eq!(grouped(12_345_678), "12 345 678");
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(time(1_234_567_890), "1.234567 s");
        assert_eq!(bytes(9999), "9999 bytes");
        assert_eq!(bytes(20_480), "20.0 KiB");
        assert_eq!(text(b"a\r\n\xff"), r#""a\r\n\xff""#);
        assert!(text(&[b'x'; 100]).ends_with("(100 bytes)"));
    }
}
