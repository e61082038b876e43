//! Finds keys that stand twice in one struct or map, anywhere in a RON text, plugin configurations included: `ron` itself lets
//! them pass in maps, and in raw values it never looks.
//!
//! This is a scanner of brackets, strings and comments, not a parser: what it can't make out it leaves to the parser's own message.

use crate::source::{ConfigError, Source};

/// How deep brackets may nest.
const MAX_DEPTH: usize = 64;

/// One open bracket.
struct Frame {
    open: u8,
    /// Where the item begins that is being read.
    item: usize,
    keys: Vec<(String, usize)>,
}

/// Fails with the place of the second of two equal keys, or of a bracket that nests too deeply.
pub(crate) fn check(source: &Source) -> Result<(), ConfigError> {
    let text = source.text();
    let bytes = text.as_bytes();
    let mut frames = vec![Frame { open: 0, item: 0, keys: Vec::new() }];
    let mut at = 0;
    while at < bytes.len() {
        if let Some(next) = skip_token(bytes, at) {
            at = next;
            continue;
        }
        let depth = frames.len();
        let top = frames.last_mut().expect("the outermost frame is never closed");
        match bytes[at] {
            open @ (b'(' | b'[' | b'{') => {
                if depth > MAX_DEPTH {
                    return Err(source.error(
                        at,
                        "brackets nest too deeply",
                        format!("at most {MAX_DEPTH} levels are allowed"),
                    ));
                }
                frames.push(Frame { open, item: at + 1, keys: Vec::new() });
            }
            b')' | b']' | b'}' if depth > 1 => drop(frames.pop()),
            b',' => top.item = at + 1,
            b':' if top.open != b'[' && top.open != 0 => key(source, top, at)?,
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// A key ends at `colon`: is it new?
fn key(source: &Source, frame: &mut Frame, colon: usize) -> Result<(), ConfigError> {
    let text = source.text();
    let start = skip_blank(text.as_bytes(), frame.item, colon);
    let written = text[start..colon].trim_end();
    // Two spellings of one key (0x10 and 16, "a" and r"a") are the same key.
    let word = !written.starts_with(|c: char| c.is_ascii_digit())
        && written.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let plain = match ron::from_str::<ron::Value>(written) {
        Ok(value) if !word => format!("{value:?}"),
        _ => written.strip_prefix("r#").unwrap_or(written).to_owned(),
    };
    if let Some((_, first)) = frame.keys.iter().find(|(k, _)| *k == plain) {
        let (line, column) = source.place(*first).unwrap_or((0, 0));
        return Err(source.error(
            start,
            format!("key `{written}` stands here twice"),
            format!("it is already at {line}:{column}, remove one"),
        ));
    }
    frame.keys.push((plain, start));
    frame.item = colon + 1;
    Ok(())
}

/// The first byte from `at` that is neither blank nor in a comment, at most `end`.
pub(crate) fn skip_blank(bytes: &[u8], mut at: usize, end: usize) -> usize {
    while at < end {
        if bytes[at].is_ascii_whitespace() {
            at += 1;
        } else if let Some(next) = comment(bytes, at) {
            at = next;
        } else {
            break;
        }
    }
    at.min(end)
}

/// If a comment, string or character begins at `at`: where it ends.
pub(crate) fn skip_token(bytes: &[u8], at: usize) -> Option<usize> {
    comment(bytes, at).or_else(|| raw_string(bytes, at)).or_else(|| quoted(bytes, at))
}

fn comment(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at..].starts_with(b"//") {
        return Some(bytes[at..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n));
    }
    if !bytes[at..].starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut here) = (1, at + 2);
    while here < bytes.len() && depth > 0 {
        match &bytes[here..] {
            [b'*', b'/', ..] => (depth, here) = (depth - 1, here + 2),
            [b'/', b'*', ..] => (depth, here) = (depth + 1, here + 2),
            _ => here += 1,
        }
    }
    Some(here)
}

/// `r"..."`, `r#"..."#` and so on. A word that merely ends in `r` begins none.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if bytes[at] != b'r' || (at > 0 && word(bytes[at - 1]) && bytes[at - 1] != b'b') {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &bytes[open + 1..];
    Some(body.windows(close.len()).position(|w| w == close).map_or(bytes.len(), |n| open + 1 + n + close.len()))
}

fn quoted(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = bytes[at];
    if quote != b'"' && quote != b'\'' {
        return None;
    }
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b if b == quote => return Some(here + 1),
            // A character literal is short and on one line; anything else that looks like one is no literal.
            b'\n' if quote == b'\'' => return None,
            _ => here += 1,
        }
    }
    Some(bytes.len())
}
