//! A machine file's text, and errors that point into it.

use std::path::{Path, PathBuf};

use ron::extensions::Extensions;
use ron::value::RawValue;
use serde::Deserialize;

/// The most bytes a machine file may have.
pub(crate) const MAX_FILE: usize = 1 << 20;

fn place(file: &Path, line: usize, column: usize) -> String {
    match line {
        0 => file.display().to_string(),
        _ => format!("{}:{line}:{column}", file.display()),
    }
}

/// What is wrong with a machine file, where, and what to do. Prints `file:line:column: what; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}; {fix}", place(file, *line, *column))]
pub struct ConfigError {
    /// The file, or the command line's option that is to blame.
    pub file: PathBuf,
    /// Line, from 1; 0 for an option.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// A change of a machine file's text.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// Where it begins.
    pub(crate) start: usize,
    /// Bytes that were there.
    pub(crate) old: usize,
    /// Bytes that are there now.
    pub(crate) new: usize,
    /// The `--set` that it comes from.
    pub(crate) from: String,
}

/// A machine file: its path (for messages) and its text.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    /// The text as it is in the file.
    original: String,
    /// What was changed, in order.
    edits: Vec<Edit>,
}

impl Source {
    /// Takes a file's bytes.
    ///
    /// # Errors
    /// The file is larger than 1 MiB or no UTF-8 text.
    pub fn new(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, ConfigError> {
        let path = path.into();
        if bytes.len() > MAX_FILE {
            let what = format!("the file has {} bytes", bytes.len());
            return Err(ConfigError {
                file: path,
                line: 1,
                column: 1,
                what,
                fix: "a machine file has at most 1 MiB".into(),
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { path, original: text.clone(), text, edits: Vec::new() }),
            Err(e) => {
                let good = e.utf8_error().valid_up_to();
                let bytes = e.into_bytes();
                let text = String::from_utf8_lossy(&bytes[..good]).into_owned();
                let source = Self { path, original: text.clone(), text, edits: Vec::new() };
                Err(source.error(
                    good,
                    "this is no UTF-8 text",
                    "a machine file is RON: see configs/machines/vexpress.ron",
                ))
            }
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An error at a byte offset of the text (one past the end counts as the end).
    pub fn error(&self, offset: usize, what: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        let (file, (line, column)) = match self.place(offset) {
            Ok(place) => (self.path.clone(), place),
            Err(edit) => (format!("--set {}", edit.from).into(), (0, 0)),
        };
        ConfigError { file, line, column, what: what.into(), fix: fix.into() }
    }

    /// Changes the text.
    pub(crate) fn edit(&mut self, edit: Edit, new: &str) {
        self.text.replace_range(edit.start..edit.start + edit.old, new);
        self.edits.push(edit);
    }

    /// Line and column in the file of what is at an offset of the changed text; or the change that it comes from.
    pub(crate) fn place(&self, mut offset: usize) -> Result<(usize, usize), &Edit> {
        for edit in self.edits.iter().rev() {
            if (edit.start..edit.start + edit.new).contains(&offset) {
                return Err(edit);
            }
            if offset >= edit.start {
                offset = offset - edit.new + edit.old;
            }
        }
        Ok(line_column(&self.original, offset))
    }

    /// Line and column in the changed text, both from 1, the column in characters.
    fn line_column(&self, offset: usize) -> (usize, usize) {
        line_column(&self.text, offset)
    }

    fn offset_of(&self, line: usize, column: usize) -> usize {
        let start = if line <= 1 {
            0
        } else {
            self.text.match_indices('\n').nth(line - 2).map_or(self.text.len(), |(at, _)| at + 1)
        };
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
    }

    /// The byte offset at which a raw value of this text begins, whitespace and comments before it not counted.
    pub(crate) fn offset(&self, raw: &RawValue) -> usize {
        let inner = raw.trim().get_ron().as_ptr() as usize;
        inner.wrapping_sub(self.text.as_ptr() as usize).min(self.text.len())
    }

    /// Parses the whole text.
    pub(crate) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ConfigError> {
        options().from_str(&self.text).map_err(|e| self.ron_error(0, &e))
    }

    /// Parses a raw value of this text.
    pub(crate) fn value<'a, T: Deserialize<'a>>(&'a self, raw: &'a RawValue) -> Result<T, ConfigError> {
        let raw = raw.trim();
        options().from_str(raw.get_ron()).map_err(|e| self.ron_error(self.offset(raw), &e))
    }

    /// Makes an error of the text that begins at `base` into one of the whole text.
    fn ron_error(&self, base: usize, error: &ron::error::SpannedError) -> ConfigError {
        let (line, column) = self.line_column(base);
        let at = error.span.start;
        let offset = match at.line {
            0 | 1 => self.offset_of(line, column + at.col.saturating_sub(1)),
            n => self.offset_of(line + n - 1, at.col),
        };
        let end = self.offset_of_end(base, error).max(offset);
        let (offset, what, fix) = self.refine(base, offset, end, &error.code);
        self.error(offset, what, fix)
    }

    fn offset_of_end(&self, base: usize, error: &ron::error::SpannedError) -> usize {
        let (line, column) = self.line_column(base);
        match error.span.end.line {
            0 | 1 => self.offset_of(line, column + error.span.end.col.saturating_sub(1)),
            n => self.offset_of(line + n - 1, error.span.end.col),
        }
    }

    /// `ron` stops behind the word it dislikes; point at the word itself, and say what would be right.
    fn refine(&self, base: usize, offset: usize, end: usize, code: &ron::Error) -> (usize, String, String) {
        let names = |expected: &[&str]| format!("it is one of: {}", expected.join(", "));
        let (word, what, fix) = match code {
            ron::Error::NoSuchStructField { expected, found, .. } => {
                (found.as_str(), format!("`{found}` is no key here"), names(expected))
            }
            ron::Error::NoSuchEnumVariant { expected, found, .. } => {
                (found.as_str(), format!("`{found}` is nothing that can stand here"), names(expected))
            }
            ron::Error::DuplicateStructField { field, .. } => {
                (*field, code.to_string(), "remove one of the two".to_owned())
            }
            ron::Error::MissingStructField { field, .. } => {
                ("", format!("`{field}` is missing"), format!("add `{field}: ...` here"))
            }
            ron::Error::Eof => ("", "the file ends too early".to_owned(), "close what is open".to_owned()),
            _ => ("", code.to_string(), "a machine file is RON: see configs/machines/vexpress.ron".to_owned()),
        };
        if word.is_empty() {
            return (offset, what, fix);
        }
        let found = self.text[base..end].rfind(word).map_or(offset, |at| base + at);
        (found, what, fix)
    }
}

/// Line and column, both from 1, the column in characters.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before[before.rfind('\n').map_or(0, |n| n + 1)..].chars().count() + 1;
    (line, column)
}

/// How a machine file is read: an optional value may be written without `Some`, and `linux(append: ...)` without a second pair of brackets.
pub(crate) fn options() -> ron::Options {
    let extensions = Extensions::IMPLICIT_SOME | Extensions::UNWRAP_VARIANT_NEWTYPES;
    ron::Options::default().with_default_extension(extensions).with_recursion_limit(64)
}
