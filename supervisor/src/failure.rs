//! What ends the supervisor with another code than 0.

use reprise_machine::ConfigError;

/// The exit codes, as the design page lists them.
pub(crate) mod code {
    /// All went well; a replay matched.
    pub(crate) const OK: u8 = 0;
    /// Something is wrong inside, or the system refuses.
    pub(crate) const INTERNAL: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// The machine file or an image is wrong.
    pub(crate) const CONFIG: u8 = 3;
    /// The recording is wrong.
    pub(crate) const RECORDING: u8 = 4;
    /// The replay diverged.
    pub(crate) const DIVERGED: u8 = 5;
    /// A child died for good.
    pub(crate) const CHILD: u8 = 6;
}

/// An error and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: code::USAGE, text: text.into() }
    }

    pub(crate) fn config(text: impl Into<String>) -> Self {
        Self { code: code::CONFIG, text: text.into() }
    }

    pub(crate) fn recording(text: impl Into<String>) -> Self {
        Self { code: code::RECORDING, text: text.into() }
    }

    pub(crate) fn child(text: impl Into<String>) -> Self {
        Self { code: code::CHILD, text: text.into() }
    }

    /// No failure: the user wants it so.
    pub(crate) fn ended(text: impl Into<String>) -> Self {
        Self { code: code::OK, text: text.into() }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self { code: code::INTERNAL, text: format!("{e:#}") }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Self::config(e.to_string())
    }
}

impl From<reprise_recording::Error> for Failure {
    fn from(e: reprise_recording::Error) -> Self {
        use reprise_recording::Error;
        let code = match &e {
            e if e.is_bad_recording() => code::RECORDING,
            Error::NoLatest { .. } => code::RECORDING,
            Error::Exists { .. } => code::USAGE,
            _ => code::INTERNAL,
        };
        Self { code, text: e.to_string() }
    }
}
