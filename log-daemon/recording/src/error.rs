//! What can be wrong, and where.

use crate::Version;
use std::{fmt, io, path::PathBuf};

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in a recording something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the recording's directory, for example `segments/00000000.seg`.
    pub file: String,
    /// Byte offset in that file of the smallest thing known to be wrong: a chunk's start, a header's start. `None`: the file as a whole.
    pub offset: Option<u64>,
    /// Number of the chunk that is wrong, if it is a chunk.
    pub chunk: Option<u64>,
}

impl Place {
    /// A whole file.
    pub fn file(file: impl Into<String>) -> Place {
        Place { file: file.into(), offset: None, chunk: None }
    }

    /// A place in a file.
    pub fn at(file: impl Into<String>, offset: u64) -> Place {
        Place { file: file.into(), offset: Some(offset), chunk: None }
    }

    /// A chunk that starts at `offset`.
    pub fn chunk(file: impl Into<String>, offset: u64, chunk: u64) -> Place {
        Place { file: file.into(), offset: Some(offset), chunk: Some(chunk) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(o) = self.offset {
            write!(f, ", offset {o}")?;
        }
        if let Some(c) = self.chunk {
            write!(f, " (chunk {c})")?;
        }
        Ok(())
    }
}

/// Something in a recording that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong there, for people.
    pub what: String,
}

impl Fault {
    /// A fault.
    pub fn new(place: Place, what: impl Into<String>) -> Fault {
        Fault { place, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Why a recording could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to read, or to do something with a file.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing failed. The recording is good up to the last whole chunk.
    #[error(
        "cannot write {file} of the recording: {source}; what was written before stays good ({chunks} whole chunks); \
         free some space, or record to another place with --record=DIR"
    )]
    Write {
        /// The file, relative to the recording.
        file: String,
        /// Whole chunks that are in the recording.
        chunks: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A write failed earlier; nothing can be added any more.
    #[error("the recording ended at chunk {chunks} because an earlier write failed; nothing can be added to it")]
    Ended {
        /// Whole chunks that are in the recording.
        chunks: u64,
    },
    /// Some byte is not as it was written.
    #[error("bad recording: {0}")]
    Corrupt(Fault),
    /// The recording is of a version that this build can't read.
    #[error(
        "{file} is of recording format {found}, this build reads {supported}.x only; use the Reprise version that made it \
         (manifest.ron names it)"
    )]
    Version {
        /// The file that says so.
        file: String,
        /// What it says.
        found: Version,
        /// What this build reads: its own major version.
        supported: u8,
    },
    /// That is no recording at all.
    #[error("{} is no recording: {why}; give the directory that holds {}", path.display(), crate::MANIFEST_FILE)]
    NotARecording {
        /// What was given.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The directory holds a recording already.
    #[error("{} holds a recording already; give another directory, or remove it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// What the caller wants to write breaks a rule of the format.
    #[error("can't be recorded: {0}")]
    Invalid(String),
    /// A recording was asked for without a name, and there is none.
    #[error("no recording found: {} does not exist; record one with --record, or give a directory", path.display())]
    NoLatest {
        /// The link that is missing.
        path: PathBuf,
    },
}

impl Error {
    /// For `map_err` on an I/O result.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { doing, path, source }
    }

    /// The fault, if that is what it is.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Corrupt(f) => Some(f),
            _ => None,
        }
    }

    /// True if the recording is to blame (exit code 4), false if the system or the caller is.
    pub fn is_bad_recording(&self) -> bool {
        matches!(self, Error::Corrupt(_) | Error::Version { .. } | Error::NotARecording { .. })
    }
}

impl From<Fault> for Error {
    fn from(f: Fault) -> Error {
        Error::Corrupt(f)
    }
}
