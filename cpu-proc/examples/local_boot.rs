//! Boots a machine in one process, devices and all: for profiles and for looking at the CPU without its surroundings.
//!
//! `local_boot MACHINE.ron PLUGIN_DIR [--kernel F] [--dtb F] [--initrd F] [--append S] [--cpus N] [--quantum N] [--engine E] [--stop-at N]
//! [--until TEXT] [--type TEXT] [--coverage FILE] [--disk NAME=FILE]`
//!
//! A disk is read into memory, and what the guest writes to it is lost.
//!
//! `--coverage` writes how often each line of the instruction tables was translated.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cpu_proc::assemble::{self, Attached};
use cpu_proc::board::Board;
use cpu_proc::local::LocalPort;
use cpu_proc::ram::Ram;
use cpu_proc::runner::{Host, Mode, Order, Policy, Runner};
use reprise_arm::bus::GuestRam;
use reprise_arm::cores::Cores;
use reprise_arm::engine::Engine;
use reprise_device::host::Plugin;
use reprise_interp::Interp;
use reprise_lockstep::{Config, Lockstep};
use reprise_machine::boot::{Images, plan};
use reprise_machine::{Overrides, Pins, Source, resolve};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let config = PathBuf::from(args.next().context("MACHINE.ron is missing")?);
    let plugins = PathBuf::from(args.next().context("PLUGIN_DIR is missing")?);
    let mut options = BTreeMap::new();
    while let (Some(k), Some(v)) = (args.next(), args.next()) {
        options.insert(k, v);
    }
    let path = |k: &str| options.get(k).map(PathBuf::from);
    let overrides = Overrides {
        kernel: path("--kernel"),
        dtb: path("--dtb"),
        initrd: path("--initrd"),
        append: options.get("--append").cloned(),
        cpus: options.get("--cpus").map(|n| n.parse()).transpose()?,
        quantum: options.get("--quantum").map(|n| n.parse()).transpose()?,
        ..Overrides::default()
    };
    if options.contains_key("--coverage") {
        reprise_arm::coverage::start();
    }
    let source = Source::new(&config, std::fs::read(&config)?)?;
    let machine = resolve(source, &overrides)?.machine;
    let read = |p: Option<PathBuf>| p.map(|p| std::fs::read(&p).with_context(|| p.display().to_string())).transpose();
    let (kernel, dtb, initrd) = (
        read(path("--kernel"))?.unwrap_or_default(),
        read(path("--dtb"))?.unwrap_or_default(),
        read(path("--initrd"))?,
    );
    let boot = plan(&machine, &Images { kernel: &kernel, dtb: &dtb, initrd: initrd.as_deref() })?;

    let ram = Ram::new(machine.memory.base, machine.memory.size)?;
    for (at, bytes) in &boot.loads {
        ram.view().write(*at, bytes).context("a boot image lies outside RAM")?;
    }
    let mut cores = assemble::cores(&machine, &boot.regs, &boot.secondary)?;
    let mut board = board(&machine, ram.view(), &plugins)?;
    if let Some((name, file)) = options.get("--disk").and_then(|d| d.split_once('=')) {
        let link = board.links.iter_mut().find(|l| l.name == name).with_context(|| format!("no device {name}"))?;
        link.port.disk.data = std::fs::read(file)?;
    }
    board.reset_devices()?;

    let mut engine: Box<dyn Engine> = match options.get("--engine").map(String::as_str) {
        None | Some("interp") => Box::new(Interp::new()),
        #[cfg(target_arch = "x86_64")]
        Some("jit") => {
            let threshold: u32 = options.get("--threshold").map_or(Ok(10), |s| s.parse())?;
            let mut jit = reprise_jit::Jit::with(reprise_jit::emit::Features::detect(), threshold)?;
            if options.contains_key("--perf-map") {
                jit.map_for_perf()?;
            }
            Box::new(jit)
        }
        #[cfg(target_arch = "x86_64")]
        Some("lockstep") => Box::new(Lockstep::new(reprise_jit::Jit::new()?, Interp::new(), Config::default())),
        Some(other) => bail!("--engine {other}: there are interp, jit and lockstep"),
    };
    let stop: u64 = options.get("--stop-at").map_or(Ok(u64::MAX), |s| s.parse())?;
    let until = options.get("--until").map(|s| s.as_bytes().to_vec());
    // The register hash every 2 M instructions, to find where two engines part.
    let mut hashes = options.get("--hashes").map(std::fs::File::create).transpose()?;
    let step: u64 = options.get("--step").map_or(Ok(2_000_000), |s| s.parse())?;
    let started = Instant::now();
    let mut shown = vec![0; board.links.len()];
    let mut typed = false;
    loop {
        let policy = Policy { stop_at: Some(stop.min(cores.cpu().icount + step)), ..Policy::default() };
        let outcome = Runner::new(
            &mut cores,
            ram.view(),
            engine.as_mut(),
            &mut board,
            &mut Quiet::default(),
            Mode::Plain,
            policy,
        )
        .run()?;
        if let Some(f) = &mut hashes {
            writeln!(f, "{} {:016x} {:#x}", cores.cpu().icount, cores.register_hash(), cores.cpu().regs[15])?;
        }
        for (link, at) in board.links.iter().zip(&mut shown) {
            std::io::stdout().write_all(&link.port.output[*at..])?;
            *at = link.port.output.len();
        }
        std::io::stdout().flush()?;
        let seen =
            until.as_ref().is_some_and(|u| board.links.iter().any(|l| l.port.output.windows(u.len()).any(|w| w == u)));
        if let (true, false, Some(text)) = (seen, typed, options.get("--type")) {
            let text = text.replace("\\n", "\n");
            let Some(uart) = board.links.iter_mut().find(|l| l.has_backend) else { continue };
            uart.port.type_in(text.as_bytes());
            typed = true;
            continue;
        }
        let cpu = cores.cpu();
        if outcome.reason != reprise_channel::EndReason::Limit || cpu.icount >= stop || seen && !typed {
            let secs = started.elapsed().as_secs_f64();
            if let Some(file) = options.get("--coverage") {
                std::fs::write(file, reprise_arm::coverage::report())?;
            }
            eprintln!(
                "{:?} after {} instructions, {secs:.2} s, {:.1} MIPS, {} accesses",
                outcome.reason,
                cpu.icount,
                cpu.icount as f64 / secs / 1e6,
                board.accesses
            );
            eprintln!("engine: {:?}", engine.figures());
            eprintln!("pc {:#x} cpsr {:#x}", cpu.regs[15], cpu.cpsr());
            if let Some(text) = &cpu.halt {
                eprintln!("halted: {text}");
            }
            eprintln!(
                "regs {:x?} ext {:x?} it {} q {} ge {:x} spsr {:x}",
                &cpu.regs[..16],
                &cpu.ext[..4],
                cpu.it,
                cpu.q,
                cpu.ge,
                cpu.spsr()
            );
            eprintln!("register hash {:016x}", cores.register_hash());
            if let (Some(at), Some(file)) = (options.get("--dump"), options.get("--dump-to")) {
                let at = u32::from_str_radix(at, 16)?;
                let pa = cpu.peek_address(ram.view(), at).context("nothing is mapped there")?;
                let mut bytes = vec![0; 4096 - (pa as usize & 0xfff)];
                ram.view().read(pa, &mut bytes).context("not RAM")?;
                std::fs::write(file, bytes)?;
            }
            for n in &cpu.undef_notes {
                eprintln!("undefined: {n:x?}");
            }
            return Ok(());
        }
    }
}

/// Asks for a stop when the guest sleeps for good.
#[derive(Default)]
struct Quiet {
    asleep: bool,
}

impl<P> Host<P> for Quiet {
    fn look(&mut self, _: &Cores, _: u64) -> Result<Order> {
        Ok(if self.asleep { Order::End(reprise_channel::EndReason::Stopped) } else { Order::Run })
    }

    fn sleep(&mut self, _: &Board<P>, limit: Option<Duration>) -> Result<()> {
        self.asleep = limit.is_none();
        Ok(())
    }
}

fn board(machine: &reprise_machine::Machine, ram: &GuestRam, dir: &Path) -> Result<Board<LocalPort>> {
    let (mut attached, mut pins) = (Vec::new(), Vec::new());
    for d in &machine.devices {
        let file = dir.join(format!("libplugin_{}.so", d.plugin.replace('-', "_")));
        // SAFETY: the file is a plugin that this workspace has built.
        let plugin = unsafe { Plugin::load(&file) }.with_context(|| file.display().to_string())?;
        let device = plugin.create(&d.config).map_err(|e| anyhow!("{}: {e}", d.name))?;
        let spec = device.spec().clone();
        pins.push(Pins { outputs: spec.outputs.clone(), inputs: spec.inputs.clone() });
        let host_input = d.backend == reprise_machine::Backend::Console;
        attached.push(Attached { port: LocalPort::new(&d.name, device), spec, host_input });
    }
    let wires = machine.wire(&pins, None).map_err(|e| anyhow!(e))?;
    assemble::board(machine, ram, &wires, attached)
}
