//! The beginning of a recording: its directory, its inputs, its manifest. log-daemon does the rest.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use anyhow::Context;
use reprise_child::control::{Engine, Ready};
use reprise_machine::Machine;
use reprise_recording::{
    DirMedium, DiskImage, FORMAT, INPUTS_DIR, IdRegister, Input, MANIFEST_FILE, Manifest, Medium, Plugin, Quirks,
    store_input,
};

use crate::disk_record;
use crate::disks::OpenDisk;
use crate::failure::Failure;
use crate::images::BootFiles;
use crate::plugins::PluginFile;

/// A recording that is about to begin.
#[derive(Debug)]
pub(crate) struct NewRecording {
    /// Its directory, absolute.
    pub(crate) dir: PathBuf,
    inputs: Vec<Input>,
    plugins: Vec<reprise_recording::InputRef>,
    disks: Vec<DiskImage>,
    quirks: u64,
}

/// Makes the directory and stores the inputs. `given` is the user's directory, which must be new or empty; the `n`th run of a machine that is
/// restarted (from 1) gets one of its own beside it, `DIR-n` or the next one that is free.
pub(crate) fn begin(
    given: Option<&Path>,
    n: usize,
    machine: &Machine,
    uuid: &str,
    files: &BootFiles,
    plugins: &[Rc<PluginFile>],
) -> Result<NewRecording, Failure> {
    let root = reprise_recording::recordings_root();
    let dir = match (given, n) {
        (None, _) => root.join(reprise_recording::recording_name(&machine.name, SystemTime::now(), uuid)),
        (Some(dir), 1) => dir.to_owned(),
        (Some(dir), n) => beside(dir, n),
    };
    if is_taken(&dir) {
        return Err(Failure::usage(format!(
            "{}: the directory is not empty; give a new one with --record=DIR",
            dir.display()
        )));
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("can't make the recording's directory {}", dir.display()))?;
    let dir = dir.canonicalize().with_context(|| format!("{}", dir.display()))?;
    let mut recording = NewRecording { dir, inputs: Vec::new(), plugins: Vec::new(), disks: Vec::new(), quirks: 0 };
    for (name, bytes) in &files.files {
        let stored = store_input(&recording.dir, bytes)?;
        recording.inputs.push(Input { name: name.clone(), hash: stored.hash, size: stored.size });
    }
    recording.plugins = plugins.iter().map(|p| store_input(&recording.dir, &p.bytes)).collect::<Result<_, _>>()?;
    Ok(recording)
}

/// Whether there is something in a directory.
fn is_taken(dir: &Path) -> bool {
    dir.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

/// The first of `DIR-n`, `DIR-n+1` ... that is free.
fn beside(dir: &Path, n: usize) -> PathBuf {
    let numbered = |n: usize| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    };
    (n..).map(numbered).find(|dir| !is_taken(dir) && !dir.is_file()).expect("numbers do not end")
}

impl NewRecording {
    /// Notes the disks, and stores those in the recording whose images take no more than `limit` bytes.
    pub(crate) fn with_disks(
        mut self,
        machine: &Machine,
        disks: &[Option<OpenDisk>],
        limit: u64,
    ) -> Result<Self, Failure> {
        self.disks = disk_record::record(&self.dir, &disk_record::names(machine), disks, limit)?;
        Ok(self)
    }

    /// Whether what devices read from guest memory is recorded with its bytes.
    pub(crate) fn with_dma_reads(mut self, yes: bool) -> Self {
        self.quirks |= if yes { Quirks::DMA_READS } else { 0 };
        self
    }

    /// Writes the manifest, from what the children say of themselves; log-daemon goes on from there.
    pub(crate) fn write_manifest(
        &self,
        machine: &Machine,
        uuid: &str,
        engine: Engine,
        cpu: &Ready,
        devices: &[Ready],
    ) -> Result<(), Failure> {
        let channels: Vec<(u16, &str)> =
            machine.devices.iter().enumerate().map(|(i, d)| (i as u16, d.name.as_str())).collect();
        let plugin =
            |((device, stored), ready): ((&reprise_machine::Device, &reprise_recording::InputRef), &Ready)| Plugin {
                device: device.name.clone(),
                hash: stored.hash.clone(),
                size: stored.size,
                abi: ready.plugin.as_ref().map_or(0, |p| p.abi),
                kind: ready.plugin.as_ref().map_or_else(String::new, |p| p.kind.clone()),
                spec: ready.spec.clone(),
            };
        let manifest = Manifest {
            format: FORMAT,
            uuid: uuid.to_owned(),
            created: reprise_recording::utc_text(SystemTime::now()),
            reprise: env!("CARGO_PKG_VERSION").to_owned(),
            engine: engine.to_string(),
            host_cpu: host_cpu(),
            id_registers: cpu
                .id_registers
                .iter()
                .map(|(name, value)| IdRegister { name: name.clone(), value: *value })
                .collect(),
            uncounted: Vec::new(),
            quirks: Quirks::of(self.quirks),
            machine: machine.to_text(),
            inputs: self.inputs.clone(),
            plugins: machine.devices.iter().zip(&self.plugins).zip(devices).map(plugin).collect(),
            disks: self.disks.clone(),
            streams: Manifest::standard_streams(&channels),
        };
        let text = manifest.to_text()?;
        let begun = DirMedium::new(&self.dir).begin(text.as_bytes());
        begun.with_context(|| format!("can't write the manifest of {}", self.dir.display()))?;
        // A convenience: a recording without the link is as good.
        if let Err(e) = reprise_recording::set_latest(&reprise_recording::recordings_root(), &self.dir) {
            tracing::warn!("{e}");
        }
        Ok(())
    }
}

impl Drop for NewRecording {
    /// A machine that never began leaves no recording.
    fn drop(&mut self) {
        if !self.dir.join(MANIFEST_FILE).exists() {
            let _ = std::fs::remove_dir_all(self.dir.join(INPUTS_DIR));
            // Only if it is empty.
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// The host's CPU in its own words.
fn host_cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|l| l.starts_with("model name") || l.starts_with("Model")).and_then(|l| l.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
