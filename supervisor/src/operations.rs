//! What operators may ask of a running machine (`vmctl`): each command, and its answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use reprise_channel::ControlSegment;
use reprise_child::control::{Description, DiskMode, StopReason, ToChild};
use reprise_child::operator::{Answer, Command, DeviceStateTree, DeviceStatus, DiskStatus, NetStatus, Status};
use reprise_machine::ClockMode;

use super::{Log, Role, Session};
use crate::net::Net;
use crate::plugins::PluginFile;
use crate::record::NewRecording;

/// How long a device may take to answer a question.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What is known of the questions that were asked of the machine's processes.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// What a device was asked, to be asked again of a process that takes the place of one that died.
    of_device: Option<(usize, ToChild)>,
    /// What it answered.
    pub(super) description: Option<Description>,
    pub(super) counters: Option<Vec<(String, u64)>>,
    /// A network's process has taken a forward.
    pub(super) forwarded: bool,
    /// The CPU was told to pause.
    pausing: bool,
    /// It rests: instructions and guest time in ns.
    paused: Option<(u64, u64)>,
    /// How an operator wants the machine to end.
    pub(super) end: Option<StopReason>,
    /// Devices whose cable was touched, and whether it is in.
    cables: BTreeMap<usize, bool>,
}

impl Questions {
    /// The CPU says that it rests.
    pub(super) fn rests(&mut self, icount: u64, vtime: u64) {
        // It may say so when nobody wants it any more.
        self.paused = self.pausing.then_some((icount, vtime));
    }

    /// The devices whose cables are out.
    pub(super) fn unplugged(&self) -> Vec<usize> {
        self.cables.iter().filter(|(_, up)| !**up).map(|(device, _)| *device).collect()
    }

    /// The machine rests, or is about to: nobody is to wonder that it makes no progress.
    pub(super) fn pausing(&self) -> bool {
        self.pausing
    }
}

fn failed(error: impl Into<String>) -> Answer {
    Answer::Failed { error: error.into() }
}

impl Session<'_> {
    /// Does what operators have asked for.
    pub(super) fn serve_operators(&mut self) {
        while let Some((client, command)) = self.asked.pop_front() {
            let answer = match command {
                Ok(command) => self.operate(command),
                Err(error) => failed(error),
            };
            if let Some(operators) = &mut self.operators {
                operators.answer(client, &answer);
            }
        }
    }

    fn operate(&mut self, command: Command) -> Answer {
        let result = match command {
            Command::Screendump { file, device } => self.screendump(device.as_deref(), &file).map(|()| Answer::Done),
            Command::SendKey { keys } => return self.send_keys(&keys),
            Command::Status => return Answer::Status(self.status()),
            Command::Quit => {
                self.ends += 1;
                return Answer::Done;
            }
            Command::Swap { device, plugin, config } => self.swap_named(&device, &plugin, config),
            Command::Pause => self.pause(),
            Command::Resume => self.resume(),
            Command::Reset => self.end_as(StopReason::Reset),
            Command::Poweroff { force: true } => self.end_as(StopReason::Poweroff),
            Command::Poweroff { force: false } => self.power_key(),
            Command::DeviceState { device } => self.device_state(&device),
            Command::Net => self.networks(),
            Command::NetLink { device, up } => self.plug(&device, up),
            Command::NetForward { device, forward } => self.forward(&device, &forward),
            Command::Disk => self.disks(),
        };
        result.unwrap_or_else(failed)
    }

    /// The device with this name.
    fn device_named(&self, name: &str) -> Result<usize, String> {
        let machine = &self.setup.machine;
        machine.device_index(name).ok_or_else(|| format!("there is no device {name:?}; `vmctl status` lists them"))
    }

    /// Waits until something has come about. False if it has not in time, or the machine ends.
    fn wait_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + time;
        while !done(self) {
            let over = self.trouble.is_some() || self.cpu_finished.is_some() || self.ends > 0;
            if over || Instant::now() >= deadline || self.step(Some(deadline)).is_err() {
                return false;
            }
        }
        true
    }

    fn swap_named(&mut self, device: &str, plugin: &Path, config: Option<String>) -> Result<Answer, String> {
        let i = self.device_named(device)?;
        self.live("it has the plugins of the recording")?;
        let file = PluginFile::read(plugin).map_err(|e| format!("{e:#}"))?;
        let swapped = self.swap(i, file, config)?;
        Ok(Answer::Swapped {
            request: swapped.request,
            pause_us: swapped.pause.as_micros() as u64,
            version: self.plugin_version(i),
        })
    }

    /// Refuses what would change a replay.
    fn live(&self, why: &str) -> Result<(), String> {
        if self.setup.mode.is_replay() { Err(format!("this is a replay: {why}")) } else { Ok(()) }
    }

    /// How long the CPU may take to come to rest: a device may be about to answer it.
    fn patience(&self) -> Duration {
        Duration::from_millis(u64::from(self.setup.machine.limits.reply_timeout_ms)) + ANSWER_TIME
    }

    fn pause(&mut self) -> Result<Answer, String> {
        self.questions.pausing = true;
        self.send(Role::Cpu, &ToChild::Pause);
        if !self.wait_until(self.patience(), |s| s.questions.paused.is_some()) {
            self.questions.pausing = false;
            self.send(Role::Cpu, &ToChild::Resume);
            return Err("the CPU does not come to rest: the machine is ending, or a device keeps it waiting".into());
        }
        let (instructions, guest_ns) = self.questions.paused.expect("waited for");
        Ok(Answer::Paused { instructions, guest_ns })
    }

    fn resume(&mut self) -> Result<Answer, String> {
        if !self.questions.pausing {
            return Err("it is not paused".into());
        }
        (self.questions.pausing, self.questions.paused) = (false, None);
        self.send(Role::Cpu, &ToChild::Resume);
        Ok(Answer::Done)
    }

    fn end_as(&mut self, reason: StopReason) -> Result<Answer, String> {
        self.live("it ends where the recording ends; `vmctl quit` stops it here")?;
        self.questions.end.get_or_insert(reason);
        Ok(Answer::Done)
    }

    /// Presses and releases the power key, or switches the machine off if it has none.
    fn power_key(&mut self) -> Result<Answer, String> {
        self.live("the guest does what it did when it was recorded; `vmctl quit` stops it here")?;
        if self.people.power_key() {
            Ok(Answer::Asked { by: "its power key".into() })
        } else {
            self.end_as(StopReason::Poweroff)
        }
    }

    /// Asks a device's process, and whoever takes its place.
    fn ask_device(&mut self, device: usize, question: &ToChild, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        if !self.setup.mode.has_devices() {
            return Err("this is a replay without devices: the log stands in for them".into());
        }
        if self.is_gone(device) {
            let name = &self.setup.machine.devices[device].name;
            return Err(format!("{name} is gone: its process could not come back. End the machine and start it"));
        }
        self.questions.of_device = Some((device, question.clone()));
        self.send(Role::Device(device), question);
        let answered = self.wait_until(ANSWER_TIME, done);
        self.questions.of_device = None;
        let name = &self.setup.machine.devices[device].name;
        if answered { Ok(()) } else { Err(format!("{name} does not answer: it is busy, or the machine is ending")) }
    }

    /// A device has a new process: it is told what the old one knew, and asked what that was asked.
    pub(super) fn brief_device(&mut self, device: usize) {
        // The dead one may not have passed on what it was told last.
        if let Some(&up) = self.questions.cables.get(&device) {
            self.send(Role::Device(device), &ToChild::Link { up });
        }
        if let Some((_, question)) = self.questions.of_device.clone().filter(|(d, _)| *d == device) {
            self.send(Role::Device(device), &question);
        }
    }

    fn device_state(&mut self, device: &str) -> Result<Answer, String> {
        let i = self.device_named(device)?;
        self.questions.description = None;
        self.ask_device(i, &ToChild::Describe, |s| s.questions.description.is_some())?;
        let d = self.questions.description.take().expect("waited for");
        let state = d.text.map(|text| serde_json::from_str(&text)).transpose();
        let state = state.map_err(|e| format!("its plugin's description of the state is no JSON: {e}"))?;
        Ok(Answer::DeviceState(DeviceStateTree {
            device: device.to_owned(),
            plugin: self.setup.machine.devices[i].plugin.clone(),
            version: self.plugin_version(i),
            request: d.request,
            bytes: d.bytes,
            hash: d.hash.iter().map(|b| format!("{b:02x}")).collect(),
            state,
        }))
    }

    /// What a device's process has counted; nothing if it does not answer.
    fn counters(&mut self, device: usize) -> Vec<(String, u64)> {
        self.questions.counters = None;
        if !self.setup.mode.has_devices()
            || self.ask_device(device, &ToChild::Count, |s| s.questions.counters.is_some()).is_err()
        {
            return Vec::new();
        }
        self.questions.counters.take().unwrap_or_default()
    }

    /// The devices with a network.
    fn with_net(&self) -> Vec<usize> {
        let devices = self.setup.machine.devices.iter().enumerate();
        devices.filter(|(_, d)| d.backend == reprise_machine::Backend::Net).map(|(i, _)| i).collect()
    }

    fn networks(&mut self) -> Result<Answer, String> {
        let mut networks = Vec::new();
        for i in self.with_net() {
            let counters = self.counters(i);
            let net = self.setup.nets.get(i).and_then(Option::as_ref);
            networks.push(NetStatus {
                device: self.setup.machine.devices[i].name.clone(),
                kind: match net {
                    Some(Net::User(_)) => "user",
                    Some(Net::Tap(_)) => "tap",
                    None => "none",
                }
                .into(),
                up: net.is_some() && self.questions.cables.get(&i) != Some(&false),
                forwards: match net {
                    Some(Net::User(user)) => user.forwards(),
                    _ => Vec::new(),
                },
                counters,
            });
        }
        Ok(Answer::Net { networks })
    }

    /// The device with this name, which must have a network.
    fn net_named(&self, device: &str) -> Result<usize, String> {
        let i = self.device_named(device)?;
        self.live("the network is in the recording")?;
        match self.setup.nets.get(i) {
            Some(Some(_)) => Ok(i),
            _ => Err(format!("{device} has no network; `vmctl net` shows those that have")),
        }
    }

    /// Pulls a device's cable.
    pub(super) fn pull(&mut self, device: usize) {
        self.questions.cables.insert(device, false);
        self.send(Role::Device(device), &ToChild::Link { up: false });
    }

    fn plug(&mut self, device: &str, up: bool) -> Result<Answer, String> {
        let i = self.net_named(device)?;
        self.questions.cables.insert(i, up);
        self.send(Role::Device(i), &ToChild::Link { up });
        // Its answer comes behind: it has done it.
        self.counters(i);
        Ok(Answer::Done)
    }

    fn forward(&mut self, device: &str, forward: &str) -> Result<Answer, String> {
        let i = self.net_named(device)?;
        let (Some(Net::User(user)), Some(at)) = (&self.setup.nets[i], self.place(Role::Net(i))) else {
            return Err(format!("{device} has no network in user mode: only that forwards ports"));
        };
        self.questions.forwarded = false;
        user.add(forward, &self.children[at].1)?;
        match self.wait_until(ANSWER_TIME, |s| s.questions.forwarded) {
            true => Ok(Answer::Done),
            false => Err("the network's process does not answer".into()),
        }
    }

    fn disks(&mut self) -> Result<Answer, String> {
        let mut disks = Vec::new();
        for i in 0..self.setup.disks.len() {
            if self.setup.disks[i].is_none() {
                continue;
            }
            let counters = self.counters(i);
            let disk = self.setup.disks[i].as_ref().expect("looked at above");
            disks.push(DiskStatus {
                device: self.setup.machine.devices[i].name.clone(),
                files: disk.files().map(str::to_owned).collect(),
                format: format!("{:?}", disk.format().0).to_lowercase(),
                mode: match disk.mode() {
                    DiskMode::Writable => "writable",
                    DiskMode::ReadOnly => "read-only",
                    DiskMode::Snapshot => "snapshot",
                }
                .into(),
                size: disk.size(),
                allocated: disk.allocated().unwrap_or_default(),
                counters,
            });
        }
        Ok(Answer::Disk { disks })
    }

    fn plugin_version(&self, device: usize) -> String {
        let info = self.ready_of(Role::Device(device)).and_then(|r| r.plugin.as_ref());
        info.map_or_else(String::new, |p| p.version.clone())
    }

    fn pid(&self, role: Role) -> Option<i32> {
        self.place(role).map(|p| self.children[p].1.pid())
    }

    fn status(&self) -> Status {
        let status = self.control.as_ref().map(ControlSegment::status);
        let machine = &self.setup.machine;
        let dir = match &self.setup.log {
            Log::None => None,
            Log::Record(NewRecording { dir, .. }) | Log::Replay { dir, .. } => Some(dir),
        };
        let state = match (self.stop_reason(), self.questions.paused) {
            (Some(_), _) => "ending",
            (None, Some(_)) => "paused",
            (None, None) if self.questions.pausing() => "pausing",
            (None, None) => "running",
        };
        Status {
            machine: machine.name.clone(),
            uuid: self.setup.uuid.clone(),
            pid: std::process::id(),
            mode: format!("{:?}", self.setup.mode).to_lowercase(),
            engine: self.setup.engine.to_string(),
            state: state.into(),
            cpu: machine.cpu.model.to_string(),
            cores: machine.cpu.count,
            memory: machine.memory.size,
            clock: match machine.clock.mode {
                ClockMode::Warp => "warp",
                ClockMode::Realtime => "realtime",
            }
            .into(),
            wall_ms: self.began.elapsed().as_millis() as u64,
            instructions: status.map(|s| s.icount),
            guest_ns: status.map(|s| s.vtime),
            cpu_pid: self.pid(Role::Cpu),
            log_pid: self.pid(Role::Log),
            log_restarts: self.keeper.revived,
            recording: dir.map(|d| d.display().to_string()),
            log_bytes: dir.and_then(|d| reprise_recording::segment_bytes(d).ok()),
            devices: (0..machine.devices.len()).map(|i| self.device_status(i)).collect(),
        }
    }

    fn device_status(&self, i: usize) -> DeviceStatus {
        let d = &self.setup.machine.devices[i];
        let (sent, completed) = self.channels[i].progress();
        DeviceStatus {
            name: d.name.clone(),
            plugin: d.plugin.clone(),
            version: self.plugin_version(i),
            at: d.at,
            size: d.size,
            backend: format!("{:?}", d.backend).to_lowercase(),
            ports: self.lines.iter().filter(|line| line.device == i).filter_map(|line| line.port.clone()).collect(),
            pid: self.pid(Role::Device(i)),
            gone: self.is_gone(i),
            restarts: self.deaths.get(&Role::Device(i)).map_or(0, |d| d.revived),
            sent,
            completed,
        }
    }
}
