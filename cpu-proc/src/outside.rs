//! The outside world of the run loop: the control socket, the status page, and sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use reprise_arm::cores::Cores;
use reprise_channel::{Abort, Doorbell, EndReason, Interest, SpinPolicy, Status, StatusWriter, wait_many};
use reprise_child::Control;
use reprise_child::control::{FromChild, StopReason, ToChild};

use crate::board::Board;
use crate::channel_port::ChannelPort;
use crate::link::Link;
use crate::runner::{Host, Order};

/// What the status page says while the machine runs, and while it is paused.
const PHASE_RUNNING: u64 = 0;
/// See [`PHASE_RUNNING`].
const PHASE_PAUSED: u64 = 1;

/// How [`Signals::stop`] is meant.
const AS_STOPPED: u8 = 0;
const AS_RESET: u8 = 1;
const AS_POWEROFF: u8 = 2;

/// What the control thread tells the rest of the process.
#[derive(Debug, Default)]
pub struct Signals {
    /// The machine is to run.
    pub go: AtomicBool,
    /// The machine is to stop.
    pub stop: AtomicBool,
    /// And so it is to end.
    stop_as: AtomicU8,
    /// The machine is to pause.
    pub pause: AtomicBool,
    /// The process is to exit.
    pub exit: AtomicBool,
    /// How many devices are about to be gone ([`Board::doomed`]).
    pub doomed: Arc<AtomicU32>,
    /// Rings at each change.
    pub bell: Doorbell,
}

/// Starts the thread that reads the control socket. A lost supervisor ends the process.
pub fn listen(mut control: Control) -> Result<Arc<Signals>> {
    let signals = Arc::new(Signals::default());
    let shared = Arc::clone(&signals);
    let body = move || loop {
        let (flag, value) = match control.receive() {
            Ok(ToChild::Go) => (&shared.go, true),
            Ok(ToChild::Stop(reason)) => {
                let way = match reason {
                    StopReason::User | StopReason::ChildDied | StopReason::Log => AS_STOPPED,
                    StopReason::Reset => AS_RESET,
                    StopReason::Poweroff => AS_POWEROFF,
                };
                shared.stop_as.store(way, Ordering::SeqCst);
                (&shared.stop, true)
            }
            Ok(ToChild::Pause) => (&shared.pause, true),
            Ok(ToChild::Resume) => (&shared.pause, false),
            Ok(ToChild::Exit) => (&shared.exit, true),
            Ok(ToChild::Doomed) => {
                shared.doomed.fetch_add(1, Ordering::SeqCst);
                shared.bell.ring();
                continue;
            }
            Ok(other) => {
                tracing::warn!("the supervisor said {other:?}, which is not for the CPU process");
                continue;
            }
            Err(_) => std::process::exit(1),
        };
        flag.store(value, Ordering::SeqCst);
        shared.bell.ring();
    };
    std::thread::Builder::new().name("control".into()).spawn(body).context("starting the control thread")?;
    Ok(signals)
}

impl Signals {
    /// What the machine is to do.
    fn order(&self) -> Order {
        if self.stop.load(Ordering::SeqCst) {
            return Order::End(match self.stop_as.load(Ordering::SeqCst) {
                AS_RESET => EndReason::Reboot,
                AS_POWEROFF => EndReason::PowerOff,
                _ => EndReason::Stopped,
            });
        }
        if self.pause.load(Ordering::SeqCst) { Order::Pause } else { Order::Run }
    }

    /// Waits until `flag` is set.
    pub fn wait_for(&self, flag: &AtomicBool) -> Result<()> {
        while !flag.load(Ordering::SeqCst) {
            self.wait(Abort::default())?;
        }
        Ok(())
    }

    /// The same, and does `meanwhile` each `time` at the least.
    pub fn wait_for_doing(&self, flag: &AtomicBool, time: Duration, mut meanwhile: impl FnMut()) -> Result<()> {
        while !flag.load(Ordering::SeqCst) {
            meanwhile();
            self.wait(Abort::after(time))?;
        }
        Ok(())
    }

    fn wait(&self, until: Abort<'_>) -> Result<()> {
        wait_many(&[], &SpinPolicy::SLEEP, &until.or_rung(&self.bell)).context("waiting for the supervisor")?;
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

impl Outside {
    /// Says what the user is to know of devices.
    pub fn pass_on(&mut self, notes: &mut Vec<String>) -> Result<()> {
        for text in notes.drain(..) {
            self.control.send(&FromChild::Note { text })?;
        }
        Ok(())
    }

    fn show(&mut self, cores: &Cores, vtime: u64, phase: u64) {
        self.beats += 1;
        if let Some(s) = &self.status {
            let (heartbeat, icount, epoch) = (self.beats, cores.cpu().icount, cores.cpu().epoch);
            s.set(&Status { heartbeat, icount, vtime, epoch, active: u64::MAX, phase });
        }
    }
}

impl Host<ChannelPort> for Outside {
    fn tell(&mut self, notes: &mut Vec<String>) -> Result<()> {
        self.pass_on(notes)
    }

    fn look(&mut self, cores: &Cores, vtime: u64) -> Result<Order> {
        self.show(cores, vtime, PHASE_RUNNING);
        self.note(cores)?;
        Ok(self.signals.order())
    }

    fn pause(&mut self, cores: &Cores, vtime: u64) -> Result<()> {
        self.show(cores, vtime, PHASE_PAUSED);
        self.control.send(&FromChild::Paused { icount: cores.cpu().icount, vtime })?;
        while self.signals.order() == Order::Pause {
            wait_many(&[], &SpinPolicy::SLEEP, &Abort::default().or_rung(&self.signals.bell)).context("pausing")?;
        }
        self.show(cores, vtime, PHASE_RUNNING);
        Ok(())
    }

    fn sleep(&mut self, board: &Board<ChannelPort>, limit: Option<Duration>) -> Result<()> {
        let all = board.doomed.load(Ordering::Relaxed) > 0;
        let wanted = |l: &&Link<ChannelPort>| (l.has_backend || all) && !l.is_gone();
        let interests: Vec<Interest<'_>> =
            board.links.iter().filter(wanted).map(|l| l.port.channel().on_event()).collect();
        let abort = Abort::default().or_rung(&self.signals.bell);
        let abort = match limit {
            Some(t) => abort.or_after(t),
            None => abort,
        };
        wait_many(&interests, &SpinPolicy::SLEEP, &abort).context("sleeping while the guest idles")?;
        Ok(())
    }
}
