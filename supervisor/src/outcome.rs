//! What came of a machine: for the user, and for `--report`.

use std::path::Path;

use anyhow::Context;
use reprise_child::control::{CpuFinished, EndReason, Engine, LogFinished, Mode, StopReason};
use serde::Serialize;

use crate::failure::{Failure, code};

/// What came of a machine.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) mode: Mode,
    pub(crate) engine: Engine,
    /// How the CPU ended, if it could say.
    pub(crate) cpu: Option<CpuFinished>,
    /// How the log ended, if there was one and it could say.
    pub(crate) log: Option<LogFinished>,
    /// BLAKE3 over the devices' saved states.
    pub(crate) device_hash: Option<[u8; 32]>,
    /// BLAKE3 and size of the console's output.
    pub(crate) console: Option<([u8; 32], u64)>,
    /// What a child said about a divergence.
    pub(crate) diverged: Option<String>,
    /// Why the recording could not go on.
    pub(crate) log_failure: Option<String>,
    /// Which child died, and how.
    pub(crate) casualty: Option<String>,
    /// The recording.
    pub(crate) recording: Option<String>,
    /// The user has asked for the end, maybe when the machine had ended already.
    pub(crate) ended_by_user: bool,
    /// Processes that died and had successors, in order.
    pub(crate) recoveries: Vec<Recovery>,
    /// How an operator has ended the machine.
    pub(crate) asked: Option<StopReason>,
    /// The devices whose cables are out.
    pub(crate) unplugged: Vec<usize>,
    pub(crate) wall_seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// A process that died and had a successor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Recovery {
    /// Its name in messages: the device's, `log`, or such as `eth0 net`.
    pub(crate) process: String,
    /// From the time its death was noticed until its successor did its work, in microseconds.
    pub(crate) us: u64,
}

/// The JSON object of `--report`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// `ran` (no recording), `recorded`, `exact`, `diverged`; `failed` if a process died or the recording could not be completed.
    verdict: &'static str,
    /// Why the machine ended.
    end: &'static str,
    instructions: u64,
    state_hash: Option<String>,
    device_hash: Option<String>,
    console_hash: Option<String>,
    console_bytes: u64,
    events: u64,
    log_bytes: u64,
    wall_seconds: f64,
    cpu_seconds: f64,
    guest_ns: u64,
    engine: String,
    engine_figures: std::collections::BTreeMap<&'a str, u64>,
    recording: Option<&'a str>,
    recoveries: &'a [Recovery],
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// How a machine's end is called.
fn end_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Poweroff => "poweroff",
        EndReason::Reset => "reset",
        EndReason::Stopped => "stopped",
        EndReason::StopAt => "stop-at",
        EndReason::LogEnd => "log-end",
        EndReason::Diverged => "diverged",
        EndReason::Channel => "channel",
        EndReason::Dead => "dead",
    }
}

impl Outcome {
    /// The verdict on a replay: what did not match, if anything.
    fn mismatch(&self) -> Option<String> {
        if let Some(text) = self.diverged.as_ref().or(self.log.as_ref().and_then(|l| l.divergence.as_ref())) {
            return Some(text.clone());
        }
        let cpu = self.cpu.as_ref()?;
        if cpu.reason == EndReason::Diverged {
            return Some(cpu.text.clone());
        }
        let differs = |what: &str, expected: &[u8; 32], actual: &[u8; 32]| {
            (expected != actual)
                .then(|| format!("{what} at the end: recorded {}, replayed {}", hex(expected), hex(actual)))
        };
        if let Some(expected) = &cpu.expected_hash {
            if let Some(text) = differs("state hash", expected, &cpu.state_hash) {
                return Some(text);
            }
        }
        let recorded = self.log.as_ref()?.recorded.as_ref()?;
        // A replay that the user stopped ended somewhere else.
        if cpu.icount != recorded.icount {
            return None;
        }
        // Zeros: a device had died, so nobody could be asked.
        let known = |hash: &[u8; 32]| *hash != [0; 32];
        let console = self.console.filter(|_| known(&recorded.console_hash)).and_then(|(hash, bytes)| {
            let text = differs("console hash", &recorded.console_hash, &hash)?;
            Some(format!("{text}; {} bytes, now {bytes}", recorded.console_bytes))
        });
        let devices = || {
            self.device_hash
                .filter(|_| known(&recorded.device_hash))
                .and_then(|hash| differs("device hash", &recorded.device_hash, &hash))
        };
        differs("state hash", &recorded.state_hash, &cpu.state_hash).or(console).or_else(devices)
    }

    /// Why the recording is not complete.
    fn recording_failure(&self) -> Option<&str> {
        self.log_failure.as_deref().or(self.log.as_ref().and_then(|l| l.failure.as_deref()))
    }

    fn verdict(&self) -> &'static str {
        match self.mode {
            _ if self.casualty.is_some() || self.cpu.is_none() => "failed",
            Mode::Plain => "ran",
            Mode::Record if self.recording_failure().is_some() => "failed",
            Mode::Record => "recorded",
            Mode::Verify | Mode::Absent if self.mismatch().is_some() => "diverged",
            Mode::Verify | Mode::Absent => "exact",
        }
    }

    /// Writes the report.
    pub(crate) fn report(&self, path: &Path) -> anyhow::Result<()> {
        let cpu = self.cpu.as_ref();
        let report = Report {
            verdict: self.verdict(),
            end: cpu.map_or("failed", |c| end_name(c.reason)),
            instructions: cpu.map_or(0, |c| c.icount),
            state_hash: cpu.map(|c| hex(&c.state_hash)),
            device_hash: self.device_hash.as_ref().map(hex),
            console_hash: self.console.as_ref().map(|(hash, _)| hex(hash)),
            console_bytes: self.console.map_or(0, |(_, bytes)| bytes),
            events: self.log.as_ref().map_or(0, |l| l.events),
            log_bytes: self.log.as_ref().map_or(0, |l| l.bytes),
            wall_seconds: self.wall_seconds,
            cpu_seconds: self.cpu_seconds,
            guest_ns: cpu.map_or(0, |c| c.vtime),
            engine: self.engine.to_string(),
            engine_figures: cpu
                .map_or_else(Default::default, |c| c.figures.iter().map(|(name, n)| (name.as_str(), *n)).collect()),
            recording: self.recording.as_deref(),
            recoveries: &self.recoveries,
        };
        let text = serde_json::to_string_pretty(&report).context("the report")?;
        std::fs::write(path, text + "\n").with_context(|| format!("can't write the report to {}", path.display()))
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn conclude(&self) -> Result<u8, Failure> {
        if let Some(text) = &self.casualty {
            let kept = match (self.mode, &self.recording) {
                (Mode::Record, Some(dir)) => format!("; the recording {dir} is good up to its last whole chunk"),
                _ => String::new(),
            };
            return Err(Failure::child(format!("{text}{kept}")));
        }
        let Some(cpu) = &self.cpu else { return Err(Failure::child("the CPU process ended without saying why")) };
        let text = match self.mode {
            Mode::Plain => self.how_it_ended(cpu),
            Mode::Record => self.conclude_recording(cpu)?,
            Mode::Verify | Mode::Absent => return self.conclude_replay(cpu),
        };
        crate::terminal::say(&text);
        Ok(code::OK)
    }

    fn conclude_recording(&self, cpu: &CpuFinished) -> Result<String, Failure> {
        let dir = self.recording.as_deref().unwrap_or_default();
        if let Some(why) = self.recording_failure() {
            return Err(
                anyhow::anyhow!("the recording {dir} could not be completed: {why}; what was written is good").into()
            );
        }
        let bytes = self.log.as_ref().map_or(0, |l| l.bytes);
        Ok(format!("{}\nrecorded {bytes} bytes in {dir}", self.how_it_ended(cpu)))
    }

    fn conclude_replay(&self, cpu: &CpuFinished) -> Result<u8, Failure> {
        if let Some(text) = self.mismatch() {
            crate::terminal::say(&format!(
                "replay: diverged at {} instructions, position {}\n{text}",
                cpu.icount,
                position(cpu)
            ));
            return Ok(code::DIVERGED);
        }
        let cut = match &self.log {
            Some(log) if log.cut => " (the recording was cut off: this is up to its last whole chunk)",
            _ if cpu.reason == EndReason::Stopped => " (stopped before the end)",
            _ => "",
        };
        crate::terminal::say(&format!("replay: exact, {} instructions{cut}", cpu.icount));
        Ok(code::OK)
    }

    fn how_it_ended(&self, cpu: &CpuFinished) -> String {
        let how = match cpu.reason {
            EndReason::Poweroff if self.asked == Some(StopReason::Poweroff) => "the machine was switched off",
            EndReason::Reset if self.asked == Some(StopReason::Reset) => "the machine was reset",
            EndReason::Poweroff => "the guest powered off",
            EndReason::Reset => "the guest rebooted",
            EndReason::Stopped => "the machine was ended",
            EndReason::StopAt => "the machine reached the instruction it was to stop at",
            EndReason::LogEnd => "the log ended",
            EndReason::Diverged => "the machine diverged",
            EndReason::Channel => "a channel broke",
            EndReason::Dead => "the CPU can never go on",
        };
        let more = if cpu.text.is_empty() { String::new() } else { format!(": {}", cpu.text) };
        format!("{how} after {} instructions, {:.3} s of guest time{more}", cpu.icount, cpu.vtime as f64 / 1e9)
    }
}

fn position(cpu: &CpuFinished) -> String {
    let (epoch, count, idle) = cpu.position;
    format!("({epoch}, {count}, {idle})")
}
