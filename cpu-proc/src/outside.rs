//! The outside world of the run loop: the control socket, the status page, and sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use reprise_arm::cores::Cores;
use reprise_channel::{Abort, Doorbell, Interest, SpinPolicy, Status, StatusWriter, wait_many};
use reprise_child::Control;
use reprise_child::control::{FromChild, ToChild};

use crate::board::Board;
use crate::channel_port::ChannelPort;
use crate::runner::Host;

/// What the control thread tells the rest of the process.
#[derive(Debug, Default)]
pub struct Signals {
    /// The machine is to run.
    pub go: AtomicBool,
    /// The machine is to stop.
    pub stop: AtomicBool,
    /// The process is to exit.
    pub exit: AtomicBool,
    /// Rings at each change.
    pub bell: Doorbell,
}

/// Starts the thread that reads the control socket. A lost supervisor ends the process.
pub fn listen(mut control: Control) -> Result<Arc<Signals>> {
    let signals = Arc::new(Signals::default());
    let shared = Arc::clone(&signals);
    let body = move || loop {
        let flag = match control.receive() {
            Ok(ToChild::Go) => &shared.go,
            Ok(ToChild::Stop(_)) => &shared.stop,
            Ok(ToChild::Exit) => &shared.exit,
            Ok(other) => {
                tracing::warn!("the supervisor said {other:?}, which is not for the CPU process");
                continue;
            }
            Err(_) => std::process::exit(1),
        };
        flag.store(true, Ordering::SeqCst);
        shared.bell.ring();
    };
    std::thread::Builder::new().name("control".into()).spawn(body).context("starting the control thread")?;
    Ok(signals)
}

impl Signals {
    /// Waits until `flag` is set.
    pub fn wait_for(&self, flag: &AtomicBool) -> Result<()> {
        while !flag.load(Ordering::SeqCst) {
            wait_many(&[], &SpinPolicy::SLEEP, &Abort::default().or_rung(&self.bell))
                .context("waiting for the supervisor")?;
        }
        Ok(())
    }
}

/// See [`Host`].
pub struct Outside {
    signals: Arc<Signals>,
    control: Control,
    status: Option<StatusWriter>,
    beats: u64,
    /// How many of each core's encodings were named.
    noted: Vec<usize>,
}

impl Outside {
    /// `status` is there when the machine has a control segment.
    pub fn new(signals: Arc<Signals>, control: Control, status: Option<StatusWriter>) -> Self {
        Self { signals, control, status, beats: 0, noted: Vec::new() }
    }

    /// Names each encoding that took UNDEF because this CPU lacks it, once for each core that met it.
    pub fn note(&mut self, cores: &Cores) -> Result<()> {
        self.noted.resize(cores.len(), 0);
        for (i, (cpu, noted)) in cores.all().iter().zip(&mut self.noted).enumerate() {
            for n in cpu.undef_notes.iter().skip(*noted) {
                let set = if n.thumb { "T32" } else { "A32" };
                let core = if cores.len() > 1 { format!(" on core {i}") } else { String::new() };
                let text = format!(
                    "instruction {:#010x} ({set}) at {:#010x}{core} is not implemented and was undefined to the guest",
                    n.opcode, n.pc
                );
                self.control.send(&FromChild::Note { text })?;
            }
            *noted = cpu.undef_notes.len();
        }
        Ok(())
    }
}

impl Host<ChannelPort> for Outside {
    fn look(&mut self, cores: &Cores, vtime: u64) -> Result<bool> {
        self.beats += 1;
        if let Some(s) = &self.status {
            let (heartbeat, icount, epoch) = (self.beats, cores.cpu().icount, cores.cpu().epoch);
            s.set(&Status { heartbeat, icount, vtime, epoch, active: u64::MAX, phase: 0 });
        }
        self.note(cores)?;
        Ok(self.signals.stop.load(Ordering::SeqCst))
    }

    fn sleep(&mut self, board: &Board<ChannelPort>, limit: Option<Duration>) -> Result<()> {
        let interests: Vec<Interest<'_>> =
            board.links.iter().filter(|l| l.has_backend).map(|l| l.port.channel().on_event()).collect();
        let abort = Abort::default().or_rung(&self.signals.bell);
        let abort = match limit {
            Some(t) => abort.or_after(t),
            None => abort,
        };
        wait_many(&interests, &SpinPolicy::SLEEP, &abort).context("sleeping while the guest idles")?;
        Ok(())
    }
}
