//! `--set PATH=VALUE`: changes a value of a machine file's text before it is read, so that every value of every machine file can be changed, plugin
//! configurations included.
//!
//! A path names keys from the outside in, joined by dots; an element of a list by its number from 0, or by its `name`. What is not there yet is added, as a
//! file may leave out most of what it can say. Whether a key means anything is decided when the text is read.

use std::ops::Range;

use ron::value::RawValue;

use crate::dup::{skip_blank, skip_token};
use crate::source::{ConfigError, Edit, Source};

/// What one `--set` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    path: Vec<String>,
    value: String,
    /// The whole of it, for messages.
    text: String,
}

/// Reads `PATH=VALUE`. A value that is no RON, such as `1GiB` or a path of a file, is taken as text.
///
/// # Errors
/// What is wrong with it and what to do, in words.
pub fn parse_set(text: &str) -> Result<Assignment, String> {
    let (path, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; say PATH=VALUE"))?;
    let path: Vec<String> = path.split('.').map(|p| p.trim().to_owned()).collect();
    if path.iter().any(String::is_empty) {
        return Err(format!("`{text}` has an empty name in its path; say it as memory.size or devices.uart0.config"));
    }
    let value = value.trim();
    if value.is_empty() {
        return Err(format!("`{text}` has no value"));
    }
    let ron = crate::source::options().from_str::<&RawValue>(value).is_ok();
    let value = if ron { value.to_owned() } else { quoted(value) };
    Ok(Assignment { path, value, text: text.to_owned() })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// One element of a struct, map or list.
#[derive(Debug)]
struct Item {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// A struct, map or list.
#[derive(Debug)]
struct Group {
    open: u8,
    /// Behind the opening bracket.
    inside: usize,
    items: Vec<Item>,
}

/// What is in the value that stands at `span`; none if it has no brackets.
fn group(text: &str, span: &Range<usize>) -> Option<Group> {
    let bytes = &text.as_bytes()[..span.end];
    let mut at = skip_blank(bytes, span.start, span.end);
    if at < span.end && skip_token(bytes, at).is_some() {
        return None;
    }
    while at < span.end && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
        at += 1;
    }
    at = skip_blank(bytes, at, span.end);
    let open = *bytes.get(at).filter(|b| matches!(b, b'(' | b'[' | b'{'))?;
    let inside = at + 1;
    Some(Group { open, inside, items: items(bytes, inside, open != b'[') })
}

/// The elements from `at` up to the bracket that closes.
fn items(bytes: &[u8], mut at: usize, keys: bool) -> Vec<Item> {
    let mut all = Vec::new();
    loop {
        at = skip_blank(bytes, at, bytes.len());
        if at >= bytes.len() || matches!(bytes[at], b')' | b']' | b'}') {
            return all;
        }
        let (start, mut depth, mut key, mut end) = (at, 0_usize, None, at);
        while at < bytes.len() {
            let blank = skip_blank(bytes, at, bytes.len());
            if blank > at {
                at = blank;
                continue;
            }
            if let Some(next) = skip_token(bytes, at) {
                (at, end) = (next, next);
                continue;
            }
            match bytes[at] {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' if depth == 0 => break,
                b')' | b']' | b'}' => depth -= 1,
                b',' if depth == 0 => break,
                b':' if depth == 0 && keys && key.is_none() => key = Some(start..end),
                _ => {}
            }
            at += 1;
            end = at;
        }
        let value = key.as_ref().map_or(start, |_| skip_blank(bytes, colon_end(bytes, &key, end), end));
        all.push(Item { key, value: value..end });
        if bytes.get(at) != Some(&b',') {
            return all;
        }
        at += 1;
    }
}

/// Behind the colon that follows a key.
fn colon_end(bytes: &[u8], key: &Option<Range<usize>>, end: usize) -> usize {
    let from = key.as_ref().map_or(end, |k| k.end);
    skip_blank(bytes, from, end) + 1
}

/// A key as it is meant: without its quotes.
fn plain(text: &str) -> &str {
    let text = text.strip_prefix("r#").unwrap_or(text);
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

impl Group {
    /// What its elements are called.
    fn names(&self, text: &str) -> Vec<String> {
        let name = |(n, item): (usize, &Item)| match &item.key {
            Some(key) => plain(&text[key.clone()]).to_owned(),
            None => named(text, &item.value).unwrap_or_else(|| n.to_string()),
        };
        self.items.iter().enumerate().map(name).collect()
    }

    /// Its element with this name, or number.
    fn find(&self, text: &str, name: &str) -> Option<&Item> {
        let number = || self.items.get(name.parse::<usize>().ok()?).filter(|item| item.key.is_none());
        let by_name = self.names(text).iter().position(|n| n == name).map(|i| &self.items[i]);
        by_name.or_else(number)
    }
}

/// The `name` of a struct in a list.
fn named(text: &str, span: &Range<usize>) -> Option<String> {
    let group = group(text, span)?;
    let item = group.items.iter().find(|i| i.key.clone().is_some_and(|k| &text[k] == "name"))?;
    let value = &text[item.value.clone()];
    value.starts_with('"').then(|| plain(value).to_owned())
}

impl Source {
    /// Changes a value.
    ///
    /// # Errors
    /// The path leads into something that has no parts, or to no element of a list.
    pub fn set(&mut self, assignment: &Assignment) -> Result<(), ConfigError> {
        let Assignment { path, value, text: whole } = assignment;
        let failed = |what: String, fix: String| {
            Err(ConfigError { file: format!("--set {whole}").into(), line: 0, column: 0, what, fix })
        };
        let text = self.text();
        let mut span = 0..text.len();
        for (n, name) in path.iter().enumerate() {
            let so_far = || if n == 0 { "the machine".to_owned() } else { format!("`{}`", path[..n].join(".")) };
            let Some(group) = group(text, &span) else {
                let here = text[span].to_owned();
                let what = format!("{} is {here} and has nothing in it", so_far());
                return failed(what, format!("give all of it: --set {}=...", path[..n].join(".")));
            };
            if let Some(item) = group.find(text, name) {
                span = item.value.clone();
                continue;
            }
            if group.open == b'[' {
                let there = group.names(text).join(", ");
                let what = format!("{} has no `{name}`", so_far());
                return failed(what, format!("there are: {there}"));
            }
            let key = if is_word(name) { name.clone() } else { quoted(name) };
            let rest = path[n + 1..].iter().rev().fold(value.clone(), |inner, key| format!("({key}: {inner})"));
            let added = format!("{key}: {rest}{}", if group.items.is_empty() { "" } else { ", " });
            self.edit(Edit { start: group.inside, old: 0, new: added.len(), from: whole.clone() }, &added);
            return Ok(());
        }
        // A word for what is text now can only be meant as text.
        let value = match text[span.clone()].starts_with(['"', 'r'])
            && is_word(value)
            && !value.starts_with(|c: char| c.is_ascii_digit())
        {
            true if text[span.clone()].ends_with(['"', '#']) => quoted(value),
            _ => value.clone(),
        };
        let edit = Edit { start: span.start, old: span.len(), new: value.len(), from: whole.clone() };
        self.edit(edit, &value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"// A machine.
(
    name: "m", // its name
    memory: (base: 0x80000000, size: "16M"),
    boot: linux(append: "quiet, (really)", machine_id: 1),
    devices: [
        (name: "uart0", plugin: "pl011", lines: { "irq": spi(5) }, config: (clock: 24),),
        (plugin: "sp804", name: "timer"), // no config
    ],
    bus: [],
)
"#;

    fn set(text: &str, assignment: &str) -> Result<String, String> {
        let mut source = Source::new("m.ron", text.as_bytes().to_vec()).unwrap();
        source.set(&parse_set(assignment).unwrap()).map_err(|e| e.to_string())?;
        Ok(source.text().to_owned())
    }

    #[test]
    fn values_are_replaced_where_they_stand() {
        for (assignment, from, to) in [
            ("name=other", "\"m\"", "\"other\""),
            ("memory.size=1GiB", "\"16M\"", "\"1GiB\""),
            ("memory.size=0x100000", "\"16M\"", "0x100000"),
            ("memory.base = 0", "0x80000000", "0"),
            ("boot.append=a \"b\" c", "\"quiet, (really)\"", "\"a \\\"b\\\" c\""),
            ("boot=image(file: \"x\")", "linux(append: \"quiet, (really)\", machine_id: 1)", "image(file: \"x\")"),
            ("devices.uart0.lines.irq=spi(7)", "spi(5)", "spi(7)"),
            ("devices.0.config.clock=48", "24", "48"),
            ("devices.timer.plugin=sp805", "\"sp804\"", "\"sp805\""),
            ("devices.1.name=\"t\"", "\"timer\"", "\"t\""),
        ] {
            assert_eq!(set(TEXT, assignment), Ok(TEXT.replacen(from, to, 1)), "{assignment}");
        }
    }

    #[test]
    fn what_is_not_there_is_added() {
        for (assignment, at, added) in [
            ("clock.mode=warp", "(\n    name: \"m\"", "clock: (mode: warp), "),
            ("memory.aliases=[]", "(base:", "aliases: [], "),
            ("devices.timer.config.hz=1", "(plugin: \"sp804\"", "config: (hz: 1), "),
            ("devices.uart0.lines.rx-dma=spi(1)", "{ \"irq\"", "\"rx-dma\": spi(1), "),
        ] {
            let expected = TEXT.replacen(at, &format!("{}{added}{}", &at[..1], &at[1..]), 1);
            assert_eq!(set(TEXT, assignment), Ok(expected), "{assignment}");
        }
        assert_eq!(set("()", "a.b=1"), Ok("(a: (b: 1))".into()));
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for (assignment, says) in [
            (
                "memory.size.unit=1",
                "--set memory.size.unit=1: `memory.size` is \"16M\" and has nothing in it; give all of it: --set memory.size=...",
            ),
            ("devices.uart9.at=1", "`devices` has no `uart9`; there are: uart0, timer"),
            ("devices.2.at=1", "`devices` has no `2`; there are: uart0, timer"),
            ("name.x=1", "`name` is \"m\" and has nothing in it"),
        ] {
            let error = set(TEXT, assignment).unwrap_err();
            assert!(error.contains(says), "{assignment}: {error}");
        }
        for (text, says) in [
            ("memory.size", "`memory.size` has no `=`"),
            ("memory..size=1", "has an empty name in its path"),
            ("=1", "has an empty name in its path"),
            ("memory.size=", "`memory.size=` has no value"),
        ] {
            let error = parse_set(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn errors_point_into_the_file_as_it_is() {
        let mut source = Source::new("m.ron", TEXT.as_bytes().to_vec()).unwrap();
        source.set(&parse_set("name=a_much_longer_name").unwrap()).unwrap();
        source.set(&parse_set("memory.size=1").unwrap()).unwrap();
        let at = |what: &str| source.error(source.text().find(what).unwrap(), "what", "fix").to_string();
        assert_eq!(at("base:"), "m.ron:4:14: what; fix");
        assert_eq!(at("boot:"), "m.ron:5:5: what; fix");
        assert_eq!(at("much"), "--set name=a_much_longer_name: what; fix");
        assert_eq!(at("1),"), "--set memory.size=1: what; fix");
    }

    #[test]
    fn no_text_makes_it_fall() {
        for text in ["", "(", "((((", "(a", "(a:", "(a: \"", "[,]", "(a: /*", "{\"a\": r#\"}", "(a: 'b)"] {
            for assignment in ["a=1", "a.b=1", "0.a=1"] {
                // Whatever it says.
                let _ = set(text, assignment);
            }
        }
    }
}
