//! `supervisor replay`: a machine from a recording, which holds all that it needs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use reprise_child::control::Mode;
use reprise_machine::{Boot, Machine};
use reprise_recording::{Manifest, Recording};
use reprise_storage::DEFAULT_SLOTS;

use crate::cli::ReplayArgs;
use crate::failure::Failure;
use crate::images::{BootFiles, BootImage};
use crate::plugins::PluginFile;
use crate::session::{self, LaterPlugin, Log, Setup};
use crate::signals::EndSignals;
use crate::terminal::Terminal;
use crate::{disk_record, disks, leftovers};

pub(crate) fn main(args: &ReplayArgs) -> Result<u8, Failure> {
    leftovers::sweep();
    // Kept until the replay is over.
    let (dir, _unpacked) = find(args)?;
    let mut setup = prepare(args, &dir)?;
    let mut signals = EndSignals::new().context("signals")?;
    let mut terminal = Terminal::new(false).context("the terminal")?;
    let outcome = session::run(&mut setup, &mut terminal, &mut signals)?;
    if let Some(path) = &args.common.report {
        outcome.report(path)?;
    }
    outcome.conclude()
}

/// The recording's directory; of a packed one, a directory that is gone when the second value is dropped.
fn find(args: &ReplayArgs) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let dir = reprise_recording::resolve(args.dir.as_deref())?;
    if !reprise_recording::is_packed(&dir) {
        return Ok((dir, None));
    }
    // Where recordings are there is room for one.
    let root = reprise_recording::recordings_root();
    std::fs::create_dir_all(&root).with_context(|| format!("can't make {}", root.display()))?;
    let unpacked = tempfile::Builder::new().prefix(".unpacked-").tempdir_in(&root);
    let unpacked = unpacked.with_context(|| format!("can't make a directory in {}", root.display()))?;
    reprise_recording::unpack(&dir, unpacked.path())?;
    Ok((unpacked.path().to_owned(), Some(unpacked)))
}

fn prepare(args: &ReplayArgs, dir: &Path) -> Result<Setup, Failure> {
    let recording = Recording::open(dir)?;
    let manifest = recording.manifest();
    let bad = |what: String| Failure::recording(format!("{}: {what}", dir.display()));
    let mut machine = Machine::from_text(&manifest.machine).map_err(bad)?;
    check_plugins(manifest, &machine).map_err(bad)?;
    let mut files = BootFiles::default();
    for input in &manifest.inputs {
        files.files.push((input.name.clone(), recording.read_input(&input.hash)?));
    }
    // A recording that lost its initrd must not boot without one.
    let initrd = matches!(&machine.boot, Boot::Linux(linux) if linux.initrd.is_some());
    if initrd && !files.files.iter().any(|(name, _)| name == "initrd") {
        return Err(bad("the manifest names no initrd, but the machine has one".into()));
    }
    let plan = files.plan(&machine).map_err(|e| bad(format!("its boot images don't fit its machine: {e}")))?;
    let mode = if args.cpu_only { Mode::Absent } else { Mode::Verify };
    let mut plugins = Vec::new();
    if mode.has_devices() {
        for plugin in &manifest.plugins {
            let origin = format!("{} in the recording", recording.input_path(&plugin.hash).display());
            plugins.push(PluginFile::new(origin, recording.read_input(&plugin.hash)?)?);
        }
    }
    let swaps = if mode.has_devices() { swaps(&recording, &machine)? } else { Vec::new() };
    disk_record::find(&recording, &mut machine, &args.disk, mode)?;
    let disks = disks::open_all(&mut machine, None, mode, Some(DEFAULT_SLOTS))?;
    disk_record::check(&recording, &disk_record::names(&machine), &disks)?;
    Ok(Setup {
        mode,
        engine: args.common.engine()?,
        perf_map: args.common.perf_map,
        boot: BootImage::new(&plan)?,
        machine,
        spans: None,
        uuid: leftovers::new_uuid().context("/dev/urandom")?,
        plugins,
        swaps,
        disks,
        nets: Vec::new(),
        unplugged: Vec::new(),
        listener: args.display.listen().map_err(Failure::usage)?,
        screendump: args.common.screendump.clone(),
        lines: Vec::new(),
        log: Log::Replay {
            dir: dir.canonicalize().with_context(|| dir.display().to_string())?,
            specs: manifest.plugins.iter().map(|p| p.spec.clone()).collect(),
            id_registers: manifest.id_registers.iter().map(|r| (r.name.clone(), r.value)).collect(),
        },
        log_dma_reads: false,
        stop_at: args.common.stop_at,
        jitter: args.common.jitter,
        layout: session::layout()?,
    })
}

/// The plugins that were swapped in, for each device in the machine's order.
fn swaps(recording: &Recording, machine: &Machine) -> Result<Vec<Vec<LaterPlugin>>, Failure> {
    let mut all = vec![Vec::new(); machine.devices.len()];
    for swap in recording.swaps()? {
        let Some(list) = all.get_mut(usize::from(swap.channel)) else {
            let dir = recording.dir().display();
            return Err(Failure::recording(format!(
                "{dir}: it swaps a plugin of a device that its machine does not have"
            )));
        };
        // Without a plugin the device is gone from there on.
        let plugin = match swap.hash == [0; 32] {
            true => None,
            false => Some(PluginFile::new(swap.name.clone(), recording.read_input(&swap.input())?)?),
        };
        list.push(LaterPlugin { request: swap.request, plugin, config: swap.config });
    }
    Ok(all)
}

/// One plugin for each device, in the machine's order.
fn check_plugins(manifest: &Manifest, machine: &Machine) -> Result<(), String> {
    let devices: Vec<&str> = machine.devices.iter().map(|d| d.name.as_str()).collect();
    let plugins: Vec<&str> = manifest.plugins.iter().map(|p| p.device.as_str()).collect();
    if devices == plugins {
        return Ok(());
    }
    Err(format!("the manifest has plugins for {plugins:?}, but the machine has the devices {devices:?}"))
}
