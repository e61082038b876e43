//! `manifest.ron`.
//!
//! Two lines of it never change, whatever the version: the first says that this is a recording's manifest, the last holds
//! the BLAKE3 of every byte before it. Between them stands one RON value. Its `format` field is looked at before the rest.

use crate::{
    Error, FORMAT, Fault, MANIFEST_FILE, Place, Result,
    wire::{hex, unhex},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest manifest that is read.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;
const FIRST_LINE: &str = "// Reprise recording manifest\n";
/// The version that disks and swaps came with.
const DISKS_SINCE: Version = Version { major: 1, minor: 1 };
const SIGNATURE: &str = "// blake3: ";

/// A format version. Another major is another format; a newer minor only adds what an older reader may pass over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
}

impl Version {
    /// True if it may hold things that this build does not know and may pass over.
    pub(crate) fn is_newer_minor(self) -> bool {
        self > FORMAT && self.major == FORMAT.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An ID register of the guest's CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRegister {
    /// Its architectural name, such as `MIDR`.
    pub name: String,
    /// What the guest reads.
    pub value: u64,
}

/// Deviations of the recording machine that the replaying one must show too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quirks {
    /// One bit for each.
    pub bits: u64,
    /// Names of the bits that are set, lowest first.
    pub names: Vec<String>,
}

impl Quirks {
    /// What devices read from guest memory is recorded as bytes, not as a hash. Since format 1.1.
    pub const DMA_READS: u64 = 1 << 0;

    const NAMES: [(u64, &'static str); 1] = [(Quirks::DMA_READS, "dma-reads")];

    /// These bits with their names.
    pub fn of(bits: u64) -> Quirks {
        let names = Quirks::NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned());
        Quirks { bits, names: names.collect() }
    }
}

/// A file that the machine was booted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it was: `kernel`, `dtb`, `initrd` ...
    pub name: String,
    /// BLAKE3 of its bytes, 64 hex digits: its file's name in `inputs/`.
    pub hash: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A device plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// The device that it was loaded for.
    pub device: String,
    /// BLAKE3 of the library's bytes: its file's name in `inputs/`.
    pub hash: String,
    /// Its size in bytes.
    pub size: u64,
    /// Plugin ABI version.
    pub abi: u32,
    /// The plugin's kind, such as `pl011`.
    pub kind: String,
    /// Its register spec, as the SDK serializes it; hex in the file.
    #[serde(with = "hex_text")]
    pub spec: Vec<u8>,
}

/// A disk of a device at the machine's start. Since format 1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// The device.
    pub device: String,
    /// Which disk of it, from 0.
    pub disk: u32,
    /// Where its image was: an absolute path.
    pub name: String,
    /// How the image holds the disk: `raw`, `qcow2`.
    pub format: String,
    /// The disk's size in bytes.
    pub size: u64,
    /// BLAKE3 of what the guest finds on it, 64 hex digits.
    pub hash: String,
    /// What the guest could do: `writable`, `read-only`, `snapshot`.
    pub mode: String,
    /// What the guest finds on it lies in `inputs/`, byte for byte.
    pub stored: bool,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// Journal entries. One stream.
    Journal,
    /// The final record. One stream.
    Final,
    /// Requests of a channel.
    Requests,
    /// Effects of a channel.
    Effects,
    /// Output to the host of a channel.
    Output,
    /// Plugins that took the place of others while the machine ran. One stream. Since format 1.1.
    Swaps,
}

impl StreamKind {
    const ALL: [StreamKind; 6] = [
        StreamKind::Journal,
        StreamKind::Final,
        StreamKind::Requests,
        StreamKind::Effects,
        StreamKind::Output,
        StreamKind::Swaps,
    ];

    /// There is at most one such stream, of no channel.
    fn is_alone(self) -> bool {
        matches!(self, StreamKind::Journal | StreamKind::Final | StreamKind::Swaps)
    }

    /// Its name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            StreamKind::Journal => "journal",
            StreamKind::Final => "final",
            StreamKind::Requests => "requests",
            StreamKind::Effects => "effects",
            StreamKind::Output => "output",
            StreamKind::Swaps => "swaps",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<StreamKind> {
        StreamKind::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// A stream: one section of each chunk that has records for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its number in the chunks.
    pub id: u32,
    /// Name of a [`StreamKind`]; text, so that a newer minor may add one.
    pub kind: String,
    /// Its channel; 0 for journal, final and swaps.
    pub channel: u16,
    /// The channel's name: that of the device. Empty for journal, final and swaps.
    pub name: String,
}

impl Stream {
    /// Its kind, if this build knows it.
    pub fn known_kind(&self) -> Option<StreamKind> {
        StreamKind::from_name(&self.kind)
    }

    pub(crate) fn is(&self, kind: StreamKind, channel: u16) -> bool {
        self.kind == kind.name() && self.channel == channel
    }
}

/// What was recorded, and all that a replay needs to know besides the streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the whole recording's format.
    pub format: Version,
    /// The machine's UUID, 36 characters in lower case.
    pub uuid: String,
    /// When the recording began, UTC, such as `2026-11-22T18:30:00Z`.
    pub created: String,
    /// Version of the Reprise that made it.
    pub reprise: String,
    /// Engine that ran the guest.
    pub engine: String,
    /// The host's CPU, in the words of the host.
    pub host_cpu: String,
    /// The ID registers that the guest saw.
    pub id_registers: Vec<IdRegister>,
    /// Classes of instructions that the engine did not count; none for the interpreter.
    pub uncounted: Vec<String>,
    /// Deviations.
    pub quirks: Quirks,
    /// The whole resolved machine description, RON text; opaque here.
    pub machine: String,
    /// Boot inputs.
    pub inputs: Vec<Input>,
    /// Plugins, one for each device.
    pub plugins: Vec<Plugin>,
    /// The devices' disks. Since format 1.1.
    #[serde(default)]
    pub disks: Vec<DiskImage>,
    /// The streams of the chunks.
    pub streams: Vec<Stream>,
}

impl Manifest {
    /// The streams of a machine with these channels (number, name): journal 0, final 1, three for each channel, and swaps.
    pub fn standard_streams(channels: &[(u16, &str)]) -> Vec<Stream> {
        let one = |id, kind: StreamKind, channel, name: &str| Stream {
            id,
            kind: kind.name().into(),
            channel,
            name: name.into(),
        };
        let mut list = vec![one(0, StreamKind::Journal, 0, ""), one(1, StreamKind::Final, 0, "")];
        for &(channel, name) in channels {
            for kind in [StreamKind::Requests, StreamKind::Effects, StreamKind::Output] {
                list.push(one(list.len() as u32, kind, channel, name));
            }
        }
        list.push(one(list.len() as u32, StreamKind::Swaps, 0, ""));
        list
    }

    /// The stream of a kind and channel.
    pub fn stream(&self, kind: StreamKind, channel: u16) -> Option<&Stream> {
        self.streams.iter().find(|s| s.is(kind, channel))
    }

    /// The name of a channel, if the manifest lists it.
    pub fn channel_name(&self, channel: u16) -> Option<&str> {
        self.streams.iter().find(|s| s.channel == channel && !s.name.is_empty()).map(|s| s.name.as_str())
    }

    /// Every content-addressed file that the manifest names: (what, hash, size).
    pub fn files(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let inputs = self.inputs.iter().map(|i| (i.name.as_str(), i.hash.as_str(), i.size));
        let plugins = self.plugins.iter().map(|p| (p.device.as_str(), p.hash.as_str(), p.size));
        let disks = self.disks.iter().filter(|d| d.stored).map(|d| (d.device.as_str(), d.hash.as_str(), d.size));
        inputs.chain(plugins).chain(disks)
    }

    /// The file's text, signature and all.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the manifest breaks a rule that a reader would refuse it for.
    pub fn to_text(&self) -> Result<String> {
        self.check().map_err(|why| Error::Invalid(format!("the manifest is wrong: {why}")))?;
        let pretty = ron::ser::PrettyConfig::new().new_line("\n").escape_strings(false);
        let body = ron::ser::to_string_pretty(self, pretty)
            .map_err(|e| Error::Invalid(format!("the manifest can't be written as RON: {e}")))?;
        let text = sign(&format!("{FIRST_LINE}{body}\n"));
        if text.len() > MAX_MANIFEST_BYTES {
            return Err(Error::Invalid(format!(
                "a manifest of {} bytes, the limit is {MAX_MANIFEST_BYTES}",
                text.len()
            )));
        }
        Ok(text)
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a byte of it is not as it was written or a rule is broken, [`Error::Version`] if this build
    /// can't read that version.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let bad = |what: String| Error::from(Fault::new(Place::file(MANIFEST_FILE), what));
        let body = check_signature(bytes).map_err(|what| bad(what.into()))?;
        let spanned = |e: ron::error::SpannedError| {
            let what = format!("line {}, column {}: {}", e.span.start.line, e.span.start.col, e.code);
            bad(what)
        };
        /// The one field that every version has.
        #[derive(Deserialize)]
        struct Probe {
            format: Version,
        }
        let found = ron::from_str::<Probe>(body).map_err(spanned)?.format;
        check_version(found, MANIFEST_FILE)?;
        let mut unknown = None;
        let mut de = ron::Deserializer::from_str(body).map_err(spanned)?;
        let manifest: Manifest = serde_ignored::deserialize(&mut de, |path| unknown = Some(path.to_string()))
            .map_err(|code| spanned(de.span_error(code)))?;
        de.end().map_err(|code| spanned(de.span_error(code)))?;
        if let Some(field) = unknown.filter(|_| !found.is_newer_minor()) {
            return Err(bad(format!("the field `{field}` does not belong to format {found}")));
        }
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// The rules that RON can't express.
    fn check(&self) -> Result<(), String> {
        if !is_uuid(&self.uuid) {
            return Err(format!("`{}` is no UUID in lower case", self.uuid));
        }
        if let Some((what, hash, _)) = self.files().find(|(_, hash, _)| !is_hash(hash)) {
            return Err(format!("the hash `{hash}` of {what} is no BLAKE3 hash (64 hex digits)"));
        }
        if let Some(d) = self.disks.iter().find(|d| !is_hash(&d.hash)) {
            return Err(format!("the hash `{}` of {}'s disk is no BLAKE3 hash (64 hex digits)", d.hash, d.device));
        }
        unique("disk", self.disks.iter().map(|d| format!("{} {}", d.device, d.disk)))?;
        if self.format < DISKS_SINCE && (!self.disks.is_empty() || self.stream(StreamKind::Swaps, 0).is_some()) {
            return Err(format!("disks and swaps belong to format {DISKS_SINCE}, not to {}", self.format));
        }
        unique("ID register", self.id_registers.iter().map(|r| &r.name))?;
        unique("input", self.inputs.iter().map(|i| &i.name))?;
        unique("plugin for device", self.plugins.iter().map(|p| &p.device))?;
        unique("stream", self.streams.iter().map(|s| s.id))?;
        unique("stream of kind and channel", self.streams.iter().map(|s| format!("{} {}", s.kind, s.channel)))?;
        let strange = self.streams.iter().find(|s| s.known_kind().is_none());
        if let Some(s) = strange.filter(|_| !self.format.is_newer_minor()) {
            return Err(format!("stream {} is of the unknown kind `{}`", s.id, s.kind));
        }
        let alone = |s: &Stream| s.known_kind().is_some_and(StreamKind::is_alone);
        if let Some(s) = self.streams.iter().find(|s| alone(s) && s.channel != 0) {
            return Err(format!("stream {} is of kind {} and so belongs to no channel, but names one", s.id, s.kind));
        }
        for kind in [StreamKind::Journal, StreamKind::Final] {
            if self.stream(kind, 0).is_none() {
                return Err(format!("there is no {} stream", kind.name()));
            }
        }
        Ok(())
    }
}

/// Refuses a version that this build can't read.
pub(crate) fn check_version(found: Version, file: &str) -> Result<()> {
    if found.major == FORMAT.major {
        return Ok(());
    }
    Err(Error::Version { file: file.into(), found, supported: FORMAT.major })
}

/// Appends the signature line. `text` must end in a new line.
pub(crate) fn sign(text: &str) -> String {
    format!("{text}{SIGNATURE}{}\n", blake3::hash(text.as_bytes()).to_hex())
}

/// Checks first and last line; returns the text without the last.
fn check_signature(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err("larger than a manifest may be");
    }
    if !bytes.starts_with(FIRST_LINE.as_bytes()) {
        return Err("does not begin as a recording's manifest does");
    }
    let tail = SIGNATURE.len() + 64 + 1;
    let (body, line) = bytes.split_at_checked(bytes.len().saturating_sub(tail)).ok_or("too short")?;
    let hash = line
        .strip_prefix(SIGNATURE.as_bytes())
        .and_then(|l| l.strip_suffix(b"\n"))
        .ok_or("does not end in its checksum line: cut off, or edited by hand")?;
    if blake3::hash(body).to_hex().as_bytes() != hash {
        return Err("its checksum does not match: a byte of it was changed");
    }
    std::str::from_utf8(body).map_err(|_| "is no UTF-8 text")
}

fn is_uuid(s: &str) -> bool {
    let shape = |(i, b): (usize, u8)| match i {
        8 | 13 | 18 | 23 => b == b'-',
        _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
    };
    s.len() == 36 && s.bytes().enumerate().all(shape)
}

/// True for 64 lower-case hex digits: also what keeps a hash from being a path.
pub(crate) fn is_hash(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn unique<T: Ord + fmt::Display>(what: &str, keys: impl Iterator<Item = T>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for k in keys {
        if seen.contains(&k) {
            return Err(format!("there are two entries for {what} `{k}`"));
        }
        seen.insert(k);
    }
    Ok(())
}

/// Bytes as hex text.
mod hex_text {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(bytes))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        unhex(&text).ok_or_else(|| serde::de::Error::custom("not an even number of lower-case hex digits"))
    }
}
