//! `supervisor --config ...`: a machine from its file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use reprise_child::control::{EndReason, Mode, StopReason};
use reprise_machine::lookup::{Layout, xdg_config};
use reprise_machine::{ClockMode, ConfigError, Machine, Overrides, Source, Spans, resolve};
use reprise_storage::DEFAULT_SLOTS;

use crate::cli::{Reboot, RunArgs};
use crate::failure::{Failure, code};
use crate::images::{BootFiles, BootImage};
use crate::session::{self, Log, Setup};
use crate::signals::EndSignals;
use crate::terminal::{self, Terminal, say};
use crate::{disks, leftovers, line, net, plugins, record};

pub(crate) fn main(args: &RunArgs) -> Result<u8, Failure> {
    if let Some(to) = &args.dump_dtb {
        return dump_dtb(args, to);
    }
    leftovers::sweep();
    let mut signals = EndSignals::new().context("signals")?;
    let mut terminal = None;
    let mut kept = Kept::default();
    for n in 1.. {
        let mut setup = prepare(args, n, std::mem::take(&mut kept))?;
        if let (Log::Record(new), true) = (&setup.log, n > 1) {
            say(&format!("the machine starts anew, in a new recording: {}", new.dir.display()));
        }
        let input = setup.machine.devices.iter().any(|d| d.backend == reprise_machine::Backend::Console);
        let terminal = match &mut terminal {
            Some(terminal) => terminal,
            None => terminal.insert(Terminal::new(input).context("the terminal's raw mode")?),
        };
        let outcome = session::run(&mut setup, terminal, &mut signals)?;
        if let Some(path) = &args.common.report {
            outcome.report(path)?;
        }
        let asked = outcome.asked == Some(StopReason::Reset);
        let again = (asked || args.reboot == Reboot::Restart)
            && outcome.cpu.as_ref().is_some_and(|c| c.reason == EndReason::Reset);
        let unplugged = outcome.unplugged.clone();
        let code = outcome.conclude()?;
        if !again || outcome.ended_by_user || signals.take() > 0 {
            return Ok(code);
        }
        kept = Kept { disks: disks::left(setup.disks)?, nets: Some(setup.nets), unplugged };
        leftovers::sweep();
    }
    Ok(code::OK)
}

/// `--dump-dtb`: writes what the kernel would find at r2.
fn dump_dtb(args: &RunArgs, to: &Path) -> Result<u8, Failure> {
    let (machine, spans) = machine(args, &session::layout()?)?;
    let plan = BootFiles::read(&machine, &spans)?.plan(&machine).map_err(|e| spans.boot(&e))?;
    let Some(dtb) = plan.dtb() else {
        return Err(Failure::usage("--dump-dtb: this machine boots a bare-metal image, which gets no device tree"));
    };
    let bytes = match to.extension().is_some_and(|e| e == "dts") {
        true => reprise_machine::boot::text(dtb).map_err(|e| spans.boot(&e))?.into_bytes(),
        false => dtb.to_vec(),
    };
    std::fs::write(to, bytes).with_context(|| format!("can't write {}", to.display()))?;
    Ok(code::OK)
}

/// The machine that the command line asks for.
fn machine(args: &RunArgs, layout: &Layout) -> Result<(Machine, Spans), Failure> {
    let path = find_config(args.config.as_deref().unwrap_or(Path::new("")), layout)?;
    let bytes = std::fs::read(&path)
        .map_err(|e| Failure::config(format!("{}: {e}; give a machine file that can be read", path.display())))?;
    let overrides = Overrides {
        cpus: args.cpus,
        quantum: None,
        memory: args.memory,
        kernel: args.kernel.clone(),
        dtb: args.dtb.clone(),
        initrd: args.initrd.clone(),
        append: args.append.clone(),
        disks: args.disk.clone(),
        display: args.display.is_on(),
        clock: args.clock.map(Into::into),
        default_clock: Some(if terminal::interactive() { ClockMode::Realtime } else { ClockMode::Warp }),
    };
    let mut source = Source::new(&path, bytes)?;
    for assignment in &args.set {
        source.set(assignment)?;
    }
    let mut resolved = resolve(source, &overrides)?;
    line::assign(&mut resolved.machine, &args.serial)?;
    Ok((resolved.machine, resolved.spans))
}

/// What of one life of a machine is there in the next.
#[derive(Default)]
struct Kept {
    /// What was written beside the images of its disks.
    disks: Vec<Option<disks::Left>>,
    /// Its networks, with the ports that they forward.
    nets: Option<Vec<Option<net::Net>>>,
    /// The devices whose cables are out.
    unplugged: Vec<usize>,
}

/// Everything for the `n`th life of the machine, from 1.
fn prepare(args: &RunArgs, n: usize, kept: Kept) -> Result<Setup, Failure> {
    let engine = args.common.engine()?;
    let layout = session::layout()?;
    let (mut machine, spans) = machine(args, &layout)?;
    let files = BootFiles::read(&machine, &spans)?;
    let plan = files.plan(&machine).map_err(|e| spans.boot(&e))?;
    let plugins = plugins::find(&machine, &spans, &layout)?;
    let uuid = leftovers::new_uuid().context("/dev/urandom")?;
    let mut disks = disks::open_all(&mut machine, Some(&spans), Mode::Plain, Some(DEFAULT_SLOTS))?;
    disks::inherit(&mut disks, kept.disks);
    let nets = kept.nets.map_or_else(|| net::open_all(&machine, &args.net), Ok)?;
    let listener = args.display.listen().map_err(Failure::usage)?;
    let lines = line::open_all(&machine, &args.serial, n == 1)?;
    let (mode, log) = match &args.record {
        None => (Mode::Plain, Log::None),
        Some(dir) => {
            let new = record::begin(dir.as_deref(), n, &machine, &uuid, &files, &plugins)?;
            let new = new.with_disks(&machine, &disks, args.store_disks)?.with_dma_reads(args.log_dma_reads);
            (Mode::Record, Log::Record(new))
        }
    };
    Ok(Setup {
        mode,
        engine,
        perf_map: args.common.perf_map,
        boot: BootImage::new(&plan)?,
        machine,
        spans: Some(spans),
        uuid,
        plugins,
        swaps: Vec::new(),
        disks,
        nets,
        unplugged: kept.unplugged,
        listener,
        screendump: args.common.screendump.clone(),
        lines,
        log,
        log_dma_reads: args.log_dma_reads,
        stop_at: args.common.stop_at,
        jitter: args.common.jitter,
        layout,
    })
}

/// The first place that has the file.
fn find_config(given: &Path, layout: &Layout) -> Result<PathBuf, Failure> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let xdg = xdg_config(var("XDG_CONFIG_HOME").as_deref(), var("HOME").as_deref());
    let places = layout.config(given, xdg.as_deref());
    if let Some(found) = places.iter().find(|p| p.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    let what = "there is no such machine file".to_owned();
    Err(ConfigError {
        file: given.to_owned(),
        line: 0,
        column: 0,
        what,
        fix: format!("looked for {}", looked.join(", ")),
    }
    .into())
}
