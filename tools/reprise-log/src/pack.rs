//! `reprise-log pack` and `unpack`: a recording as one file that needs nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use reprise_machine::DiskFormat;
use reprise_recording::{DiskImage, Packed, Recording, Status, pack, resolve, store_image, unpack, verify};
use reprise_storage::{Disk, DiskFile, DiskFiles, detect, look};

use crate::Usage;

/// The most files of a chain in which each is based on the next.
const MAX_CHAIN: usize = 8;

/// What to pack.
#[derive(clap::Args, Debug)]
pub(crate) struct PackArgs {
    /// The recording: a directory, or a name in the recordings' folder. Default: the latest
    pub(crate) dir: Option<PathBuf>,
    /// The file to make [default: the recording's name with `.reprise`, here]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where a copy of a disk is as it was when recorded, if it is neither in the recording nor where it was. May be given for several devices
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_disk)]
    pub(crate) disk: Vec<(String, PathBuf)>,
    /// Write JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to unpack.
#[derive(clap::Args, Debug)]
pub(crate) struct UnpackArgs {
    /// The packed recording
    pub(crate) file: PathBuf,
    /// The directory to make [default: the file's name without its end, here]
    pub(crate) dir: Option<PathBuf>,
    /// Write JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_disk(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or_else(|| format!("`{text}` names no file; say NAME=FILE"))?;
    Ok((name.to_owned(), file.into()))
}

/// Packs a recording, once all of it was checked.
pub(crate) fn run(args: &PackArgs, out: &mut dyn Write) -> Result<bool> {
    let dir = resolve(args.dir.as_deref())?;
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    let recording = Recording::open(&dir)?;
    let report = verify(&dir)?;
    if let Some(fault) = report.faults.first() {
        return Err(reprise_recording::Error::Corrupt(fault.clone()).into());
    }
    if matches!(report.status, Some(Status::Live { .. })) {
        return Err(Usage("the recording is still being written; end its machine first".into()).into());
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.reprise")));
    // Beside the file that is made, as it has room for them.
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let more = tempfile::Builder::new().prefix(".reprise-pack-").tempdir_in(folder);
    let more = more.with_context(|| folder.display().to_string())?;
    let disks = gather(&recording, args, more.path())?;
    let packed = pack(&recording, &disks, &output)?;
    say(&packed, &output, "packed", args.json, out)?;
    Ok(true)
}

/// Copies of the disks that the recording only names, as the guest found them.
fn gather(recording: &Recording, args: &PackArgs, into: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let disks = &recording.manifest().disks;
    if let Some((name, _)) = args.disk.iter().find(|(name, _)| disks.iter().all(|d| d.device != *name)) {
        return Err(Usage(format!("--disk {name}=...: the recording has no disk of {name}")).into());
    }
    let mut all = BTreeMap::new();
    for d in disks {
        if recording.input_path(&d.hash).is_file() || all.contains_key(&d.hash) {
            continue;
        }
        let given = args.disk.iter().find(|(name, _)| *name == d.device).map(|(_, file)| file.as_path());
        let stored = copy(d, given.unwrap_or(Path::new(&d.name)), into)?;
        all.insert(d.hash.clone(), stored);
    }
    Ok(all)
}

/// A copy of one disk, which must be the recorded one.
fn copy(d: &DiskImage, image: &Path, into: &Path) -> Result<PathBuf> {
    let fix = || format!("give a copy of it as it was when recorded with --disk {}=FILE", d.device);
    let mut files = Vec::new();
    let raw = image == Path::new(&d.name) && d.format == "raw";
    let (mut path, mut known) = (image.to_owned(), raw.then_some(DiskFormat::Raw));
    // An image may be based on another, that on a third.
    for _ in 0..MAX_CHAIN {
        let file = fs::File::open(&path).with_context(|| format!("the disk image {}; {}", path.display(), fix()))?;
        let file = DiskFile::new(file.into(), path.display().to_string());
        let format = detect(&file, known)?;
        let (_, backing) = look(&file, format, false)?;
        files.push((file, format));
        let Some(backing) = backing else { break };
        let file = backing.file.strip_prefix("file:").unwrap_or(&backing.file).to_owned();
        (path, known) = (path.parent().unwrap_or(Path::new("")).join(file), backing.format);
    }
    let mut disk = Disk::open(DiskFiles::to_read(&d.device, files))?;
    let size = disk.len();
    let stored = store_image(into, size, None, |at, to| disk.read(at, to).map_err(std::io::Error::other))?;
    if (stored.size, &stored.hash) != (d.size, &d.hash) {
        bail!("{}: the disk image {} does not hold what was recorded; {}", d.device, image.display(), fix());
    }
    Ok(into.join(reprise_recording::INPUTS_DIR).join(stored.hash))
}

/// Unpacks a recording and checks all of it; true if it is good.
pub(crate) fn unpack_run(args: &UnpackArgs, out: &mut dyn Write) -> Result<bool> {
    let name = args.file.file_stem().context("a packed recording has a name")?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    let packed = unpack(&args.file, &dir)?;
    let report = verify(&dir)?;
    if let Some(fault) = report.faults.first() {
        return Err(reprise_recording::Error::Corrupt(fault.clone()).into());
    }
    say(&packed, &dir, "unpacked", args.json, out)?;
    Ok(true)
}

fn say(packed: &Packed, to: &Path, done: &str, json: bool, out: &mut dyn Write) -> Result<()> {
    let Packed { files, bytes, packed } = *packed;
    if json {
        let value = serde_json::json!({ "to": to, "files": files, "bytes": bytes, "packed_bytes": packed });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "{done} {files} files, {bytes} bytes ({packed} packed): {}", to.display())?;
    }
    Ok(())
}
