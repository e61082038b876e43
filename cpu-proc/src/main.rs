//! The CPU process of a machine: it owns guest RAM, runs the engine, and talks to the devices over their channels.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cpu_proc::assemble::{self, Attached};
use cpu_proc::board::Board;
use cpu_proc::channel_port::ChannelPort;
use cpu_proc::outside::{Outside, Signals, listen};
use cpu_proc::port::{Port, PortError};
use cpu_proc::ram::Ram;
use cpu_proc::rings::{RingJournal, RingScript, Stopped};
use cpu_proc::runner::{Divergence, Mode as RunMode, Outcome, Policy, Runner};
use reprise_arm::cores::Cores;
use reprise_arm::engine::Engine;
use reprise_channel::{CpuControl, CpuPort, EndReason, jitter};
use reprise_child::Child;
use reprise_child::control::{self, CpuFinished, CpuStart, FromChild, Mode, Ready, Start};
use reprise_child::sandbox::{Stage, enter};
use reprise_device::spec::PluginSpec;
use reprise_interp::Interp;
use reprise_lockstep::{Config, Lockstep};

fn main() -> ExitCode {
    reprise_child::run("cpu-proc", body)
}

/// Everything that the process holds while the machine runs.
struct Machine {
    start: CpuStart,
    ram: Ram,
    cores: Cores,
    board: Board<ChannelPort>,
    /// Not dropped: freeing a hundred thousand blocks takes longer than the end of the process.
    engine: ManuallyDrop<Box<dyn Engine>>,
    rings: Option<CpuControl>,
}

/// Keeps what was freed for the next blocks, and lets tables grow by moving pages: the allocator's own habit of giving memory back and copying
/// tables costs a boot thousands of page faults.
#[cfg(target_env = "gnu")]
fn tune_allocator() {
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 1 << 20), (libc::M_TRIM_THRESHOLD, 256 << 20), (libc::M_TOP_PAD, 1 << 20)]
    {
        // SAFETY: sets a number of the allocator; no other thread runs yet. A refusal leaves the default.
        unsafe { libc::mallopt(what, bytes) };
    }
}

#[cfg(not(target_env = "gnu"))]
fn tune_allocator() {}

fn body(child: Child) -> Result<()> {
    tune_allocator();
    let policy = child.policy();
    let Start::Cpu(start) = child.start else { bail!("the start message is not for the CPU process") };
    if let Some(seed) = start.common.jitter {
        jitter::enable(seed);
    }
    let mut machine = Machine::new(start)?;
    enter(Stage::Attached, &policy)?;
    // The second stage allows no new threads.
    let signals = listen(child.control.try_clone()?)?;
    enter(Stage::Loaded, &policy)?;
    let id_registers = machine.cores.cpu().model.id_registers().into_iter().map(|(n, v)| (n, u64::from(v))).collect();
    child.control.send(&FromChild::Ready(Ready { id_registers, ..Ready::default() }))?;
    signals.wait_for(&signals.go)?;
    let finished = machine.run(&signals, &child.control)?;
    child.control.send(&FromChild::Finished(finished))?;
    machine.outlast_devices(&signals)
}

impl Machine {
    fn new(start: CpuStart) -> Result<Self> {
        let m = &start.machine;
        // SAFETY: the supervisor made this descriptor for this process and names it once; nothing else here owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(start.ram) };
        let ram = Ram::of(fd, m.memory.base, m.memory.size)?.with_aliases(&assemble::aliases(m));
        load(&ram, &start)?;
        let cores = assemble::cores(m, &start.regs, &start.secondary)?;
        // While the machine lives, the supervisor puts down what does not answer, and another answers.
        let grace = if start.common.mode.is_replay() { Duration::ZERO } else { Duration::from_secs(60) };
        let timeout = Duration::from_millis(u64::from(m.limits.reply_timeout_ms)) + grace;
        let mut devices = Vec::new();
        for c in &start.channels {
            let port = CpuPort::attach(&c.segment).with_context(|| format!("attaching channel {:?}", c.name))?;
            let spec =
                PluginSpec::from_bytes(&c.spec).map_err(|e| anyhow!("the register spec of {:?}: {e}", c.name))?;
            devices.push(Attached {
                port: ChannelPort::new(port, timeout, start.common.mode == Mode::Absent),
                spec,
                host_input: c.host_input,
            });
        }
        let board = assemble::board(m, ram.view(), &start.wires, devices)?;
        let rings = start
            .control_segment
            .as_deref()
            .map(CpuControl::attach)
            .transpose()
            .context("attaching the control segment")?;
        let engine: Box<dyn Engine> = match start.engine {
            control::Engine::Interp => Box::new(Interp::new()),
            #[cfg(target_arch = "x86_64")]
            control::Engine::Jit => {
                let mut jit = reprise_jit::Jit::new()?;
                if start.perf_map {
                    jit.map_for_perf().context("--perf-map: making the map in /tmp")?;
                }
                Box::new(jit)
            }
            #[cfg(target_arch = "x86_64")]
            control::Engine::Lockstep => {
                let seed = start.common.jitter.unwrap_or_default();
                let config = Config { seed, ..Config::default() };
                Box::new(Lockstep::new(reprise_jit::Jit::new()?, Interp::new(), config))
            }
            #[cfg(not(target_arch = "x86_64"))]
            other => anyhow::bail!("--engine {other} needs an x86-64 host"),
        };
        Ok(Self { start, ram, cores, board, engine: ManuallyDrop::new(engine), rings })
    }

    /// Runs the machine to its end and says how it ended.
    fn run(&mut self, signals: &Arc<Signals>, control: &reprise_child::Control) -> Result<CpuFinished> {
        let m = &self.start.machine;
        let mode = self.start.common.mode;
        let policy = Policy {
            idle: assemble::idle_mode(m),
            anchor_every: m.limits.anchor_every,
            stop_at: self.start.stop_at,
            jitter: self.start.common.jitter,
            ..Policy::default()
        };
        let (mut journal, mut script, status) = match self.rings.take() {
            None => (None, None, None),
            Some(r) if mode == Mode::Plain => (None, None, Some(r.status)),
            Some(r) => {
                let replay = mode.is_replay();
                let script = replay.then(|| RingScript::new(r.script, &signals.stop, &signals.bell));
                ((!replay).then_some(RingJournal(r.journal)), script, Some(r.status))
            }
        };
        let run_mode = match (&mut journal, &mut script) {
            (Some(j), _) => RunMode::Record(j),
            (_, Some(s)) => RunMode::Replay(s),
            _ => RunMode::Plain,
        };
        let mut outside = Outside::new(Arc::clone(signals), control.try_clone()?, status);
        self.board.doomed = Arc::clone(&signals.doomed);
        let ram = *self.ram.view();
        let mut finished = None;
        let (result, pos) = {
            let mut runner = Runner::new(
                &mut self.cores,
                &ram,
                self.engine.as_mut(),
                &mut self.board,
                &mut outside,
                run_mode,
                policy,
            );
            let result = runner.power_on().and_then(|()| runner.run());
            if let Ok(outcome) = &result {
                let hash = state_hash(&self.ram, runner.cores, runner.board)?;
                runner.put_end(outcome, hash)?;
                finished = Some(ended(outcome, hash, mode));
            }
            (result.map(drop), runner.position())
        };
        outside.note(&self.cores)?;
        outside.pass_on(&mut self.board.notes)?;
        if let Some(f) = finished {
            let figures = self.figures();
            return self.judged(CpuFinished { figures, ..f }, control);
        }
        let error = result.expect_err("a run without an outcome has an error");
        let (reason, text) = self.explain(&error, control)?;
        let state_hash = state_hash(&self.ram, &mut self.cores, &self.board)?;
        Ok(CpuFinished {
            reason,
            text,
            position: (pos.epoch, pos.count, pos.idle),
            icount: self.cores.cpu().icount,
            vtime: self.board.clock.vtime(self.cores.cpu().icount),
            state_hash,
            expected_hash: None,
            figures: self.figures(),
        })
    }

    /// Keeps the channels open until the devices are done with what the guest sent last: their output to the recording goes through rings in
    /// which this process must make room, and a device whose peer has left says nothing more.
    fn outlast_devices(&mut self, signals: &Signals) -> Result<()> {
        let links = &mut self.board.links;
        links.iter_mut().for_each(|link| link.port.rest());
        signals.wait_for_doing(&signals.exit, Duration::from_millis(1), || {
            links.iter_mut().for_each(|link| link.port.discard());
        })
    }

    fn figures(&self) -> Vec<(String, u64)> {
        self.engine.figures().into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
    }

    /// A machine that has died says why; one whose engines differ has diverged.
    fn judged(&self, mut f: CpuFinished, control: &reprise_child::Control) -> Result<CpuFinished> {
        if let Some(text) = self.engine.mismatch() {
            control.send(&FromChild::Diverged { text: text.to_owned() })?;
            (f.reason, f.text) = (control::EndReason::Diverged, text.to_owned());
        } else if f.reason == control::EndReason::Dead {
            f.text = halted(&self.cores);
        }
        Ok(f)
    }

    /// What an error of the run loop means for the machine. Errors that mean nothing of this kind are passed on.
    fn explain(&self, error: &anyhow::Error, control: &reprise_child::Control) -> Result<(control::EndReason, String)> {
        if let Some(d) = error.downcast_ref::<Divergence>() {
            let mut text = d.to_string();
            text.push_str("\n  last accesses:");
            for a in self.board.trail() {
                text.push_str(&format!("\n    {a}"));
            }
            control.send(&FromChild::Diverged { text: text.clone() })?;
            return Ok((control::EndReason::Diverged, text));
        }
        if error.is::<Stopped>() {
            return Ok((control::EndReason::Stopped, String::new()));
        }
        if error.is::<PortError>() || error.is::<reprise_channel::ChannelError>() {
            return Ok((control::EndReason::Channel, format!("{error:#}")));
        }
        bail!("{error:#}")
    }
}

/// How a run that came to its end is reported.
fn ended(o: &Outcome, state_hash: [u8; 32], mode: Mode) -> CpuFinished {
    use control::EndReason as R;
    let reason = match o.reason {
        _ if o.cut => R::LogEnd,
        EndReason::PowerOff => R::Poweroff,
        EndReason::Reboot => R::Reset,
        EndReason::Stopped => R::Stopped,
        EndReason::Limit => R::StopAt,
        EndReason::Dead | EndReason::DeviceFault | EndReason::Panic | EndReason::Internal => R::Dead,
    };
    let expected_hash = if mode.is_replay() { o.recorded_hash } else { None };
    let position = (o.pos.epoch, o.pos.count, o.pos.idle);
    CpuFinished {
        reason,
        text: String::new(),
        position,
        icount: o.icount,
        vtime: o.vtime,
        state_hash,
        expected_hash,
        figures: Vec::new(),
    }
}

/// Puts the boot images into RAM.
fn load(ram: &Ram, start: &CpuStart) -> Result<()> {
    // SAFETY: the supervisor made this descriptor for this process and names it once; nothing else here owns it.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(start.boot.fd) });
    for l in &start.boot.loads {
        let mut bytes = vec![0; usize::try_from(l.len)?];
        file.read_exact_at(&mut bytes, l.offset)
            .with_context(|| format!("reading boot memory (fd {})", file.as_raw_fd()))?;
        ram.view().write(l.at, &bytes).with_context(|| format!("{} bytes at {:#x} lie outside RAM", l.len, l.at))?;
    }
    Ok(())
}

/// Why a core can't go on, for the user; empty if none has said so.
fn halted(cores: &Cores) -> String {
    match (&cores.cpu().halt, cores.len()) {
        (None, _) => String::new(),
        (Some(why), 1) => why.clone(),
        (Some(why), _) => format!("core {}: {why}", cores.current()),
    }
}

/// BLAKE3 over guest RAM and the state of cores and board, in the layout of docs/state-hash.md.
fn state_hash(ram: &Ram, cores: &mut Cores, board: &Board<ChannelPort>) -> Result<[u8; 32]> {
    let mut h = blake3::Hasher::new();
    ram.for_each_piece(&mut |at, bytes| {
        h.update(&at.to_le_bytes()).update(bytes);
    })?;
    cores.hash(&mut |b| {
        h.update(b);
    });
    board.hash(cores.cpu().icount, &mut |b| {
        h.update(b);
    });
    Ok(*h.finalize().as_bytes())
}
