//! Devices that come back: a process that was killed gets a successor, and a plugin is replaced under the running guest.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use reprise_child::control::{Blame, ESTATE_BYTES, Mode, SwapNote, ToChild, Way};
use reprise_device::spec::PluginSpec;
use reprise_machine::Restart;
use reprise_recording::store_input;

use super::{Log, Role, Session};
use crate::children::Exit;
use crate::failure::Failure;
use crate::images;
use crate::line::Line;
use crate::outcome::Recovery;
use crate::plugins::PluginFile;
use crate::terminal::say;

/// Deaths in a row, without anything done between, after which a process has no more successors.
const HOPELESS: u32 = 5;
/// The same for one that came to no end with a request.
const ENDLESS: u32 = 1;
/// The pause before the second attempt in a row; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(10);
/// A network's or display's process that lived for so long was of use.
const USEFUL: Duration = Duration::from_secs(1);
/// The most recoveries that are kept for the report.
const MAX_RECOVERIES: usize = 100_000;
/// The longest configuration that a swap may give: what a recording takes.
const MAX_CONFIG: usize = 4096;
/// How long a new plugin may take to load and to take over.
const SWAP_TIME: Duration = Duration::from_secs(10);

/// What a device's processes share, one after the other.
#[derive(Debug)]
pub(super) struct Estate {
    memory: OwnedFd,
}

impl Estate {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { memory: images::zeroed("reprise-estate", ESTATE_BYTES)? })
    }

    pub(super) fn memory(&self) -> &OwnedFd {
        &self.memory
    }
}

/// What is known of the processes that have played a role and died.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// Successors so far.
    pub(super) revived: u64,
    /// What the last one said before it died.
    pub(super) words: Option<String>,
    /// Deaths since anything was done.
    in_vain: u32,
    /// Requests completed when the last one died.
    completed: u64,
    /// When the last one was started.
    began: Option<Instant>,
    /// When the next one is to be started.
    due: Option<Instant>,
    /// Since when nobody plays the role.
    missed: Option<Instant>,
    /// The last deaths, as many as a limit counts.
    times: VecDeque<Instant>,
    /// The last one came to no end with a request.
    pub(super) endless: bool,
    /// The device can't come back.
    grave: Option<Grave>,
}

impl Deaths {
    /// Counts a death; whether there may be a successor yet.
    fn allowed(&mut self, policy: Restart) -> bool {
        if self.grave.is_some() {
            return true;
        }
        match policy {
            Restart::Always => true,
            Restart::Never => false,
            Restart::Limit(n, seconds) => {
                let now = Instant::now();
                self.times.push_back(now);
                let window = Duration::from_secs(seconds.into());
                while self.times.front().is_some_and(|t| now.duration_since(*t) > window) {
                    self.times.pop_front();
                }
                self.times.len() as u64 <= u64::from(n)
            }
        }
    }
}

/// What is known of what stands in for a device that can't come back.
#[derive(Debug, Default)]
struct Grave {
    /// It does without the plugin.
    bare: bool,
    /// It has said from which request on.
    ready: bool,
    /// It was told to go.
    serves: bool,
}

/// How a plugin was replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swapped {
    /// The first request that the new plugin serves.
    pub(crate) request: u64,
    /// How long the device answered nothing.
    pub(crate) pause: Duration,
}

/// How far a swap has come.
#[derive(Debug, Default)]
pub(super) struct Swap {
    /// The old process rests; the next request.
    pub(super) yielded: Option<u64>,
    /// The new process serves.
    pub(super) took: bool,
    /// What went wrong.
    pub(super) failed: Option<String>,
    /// The device, while its plugin is being replaced.
    pub(super) of: Option<usize>,
    /// Its new configuration, if it gets one.
    config: Option<String>,
    /// The process that had yielded died.
    pub(super) orphaned: bool,
}

impl Session<'_> {
    /// Whether a process of this role that dies now has a successor. In a replay only one that was killed has: what a plugin does there, it does again.
    pub(super) fn may_succeed(&self, role: Role) -> bool {
        let kind = matches!(role, Role::Device(_) | Role::Net(_));
        kind && self.running && !self.leaving && self.trouble.is_none() && !self.setup.mode.is_replay()
    }

    /// What a process says of its own end. If it does not mean that, it is helped.
    pub(super) fn last_words(&mut self, role: Role, text: String) {
        tracing::debug!("{text}");
        self.deaths.entry(role).or_default().words.get_or_insert(text);
        if let Some(at) = self.place(role) {
            self.children[at].1.put_down();
        }
    }

    /// Nobody plays this role from now on.
    pub(super) fn missed(&mut self, role: Role) {
        self.deaths.entry(role).or_default().missed.get_or_insert_with(Instant::now);
    }

    /// Somebody plays it again.
    pub(super) fn recovered(&mut self, role: Role) {
        let Some(since) = self.deaths.get_mut(&role).and_then(|d| d.missed.take()) else { return };
        let process = self.place(role).map_or_else(String::new, |at| self.children[at].1.name.clone());
        if self.recoveries.len() < MAX_RECOVERIES {
            self.recoveries.push(Recovery { process, us: since.elapsed().as_micros() as u64 });
        }
    }

    /// The process of a device, a network or the display has died: sets the time for its successor. False if it is to have none.
    pub(super) fn plan_successor(&mut self, role: Role) -> bool {
        if self.leaving || self.trouble.is_some() {
            return false;
        }
        let done = match role {
            Role::Device(device) => Some(self.channels[device].progress()),
            _ => None,
        };
        let killed = self
            .place(role)
            .is_some_and(|at| self.ready[at].is_some() && self.children[at].1.exit().is_some_and(Exit::killed));
        let policy = match role {
            // Which death was the last one, a replay knows from the recording.
            Role::Device(device) if !self.setup.mode.is_replay() => self.setup.machine.devices[device].restart,
            _ => Restart::Always,
        };
        let deaths = self.deaths.entry(role).or_default();
        if !deaths.allowed(policy) {
            return false;
        }
        let mut stood_in = false;
        if let Some(grave) = &mut deaths.grave {
            // What breaks with the plugin may do without.
            grave.bare |= !grave.ready;
            stood_in = std::mem::take(&mut grave.ready) && deaths.began.is_some_and(|b| b.elapsed() >= USEFUL);
            grave.serves = false;
        }
        let useful = match done {
            // With nothing to do it has lived in vain only if it never got to serve.
            Some((sent, completed)) => {
                completed > std::mem::replace(&mut deaths.completed, completed)
                    || sent == completed && deaths.missed.is_none()
            }
            // What it did is not known. One that was ready, and was killed from outside, did not fail. One that failed and said so was killed from here.
            None => killed && deaths.words.is_none() || deaths.began.is_some_and(|began| began.elapsed() >= USEFUL),
        };
        deaths.in_vain = if useful || stood_in { 1 } else { deaths.in_vain + 1 };
        // One that ran for ever will do so again, and each time takes long.
        if deaths.in_vain > if std::mem::take(&mut deaths.endless) { ENDLESS } else { HOPELESS } {
            return false;
        }
        let pause = if deaths.in_vain > 1 { PAUSE * (1 << (deaths.in_vain - 2)) } else { Duration::ZERO };
        let now = Instant::now();
        deaths.missed.get_or_insert(now);
        match role {
            // The one that is to take its place is under way: it is known soon whether there is need of another.
            Role::Device(device) if self.swap.of == Some(device) && self.swap.yielded.is_some() => {
                self.swap.orphaned = true;
            }
            _ => {
                if matches!(role, Role::Device(device) if self.swap.of == Some(device)) {
                    self.swap.failed.get_or_insert_with(|| "its process died".into());
                }
                deaths.due = Some(now + pause);
            }
        }
        true
    }

    /// When the next successor is due.
    pub(super) fn next_successor(&self) -> Option<Instant> {
        self.deaths.values().filter_map(|d| d.due).min()
    }

    /// Starts the successors that are due.
    pub(super) fn start_successors(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let due: Vec<Role> =
            self.deaths.iter().filter(|(_, d)| d.due.is_some_and(|at| at <= now)).map(|(r, _)| *r).collect();
        for role in due {
            self.deaths.entry(role).or_default().due = None;
            if !self.leaving && self.trouble.is_none() {
                self.succeed(role)?;
            }
        }
        Ok(())
    }

    fn succeed(&mut self, role: Role) -> Result<(), Failure> {
        // Before the machine runs there is nothing to go on with.
        let way = if self.running { Way::Successor } else { Way::Fresh };
        let new = match role {
            Role::Device(device) => {
                if let Some(disk) = self.setup.disks[device].as_ref().filter(|_| way == Way::Fresh) {
                    disk.forget().context("the disk's journal")?;
                }
                let grave = self.deaths.get(&role).and_then(|d| d.grave.as_ref());
                let way = grave.map_or(way, |g| Way::Gone { plugin: !g.bare });
                self.launch_device(device, way)?
            }
            Role::Net(device) => self.launch_net(device)?,
            Role::Display => self.launch_display()?,
            _ => unreachable!("{role:?} has no successors of this kind"),
        };
        tracing::info!("{}: a successor takes over", new.name);
        let at = self.place(role).expect("it was played before");
        let old = std::mem::replace(&mut self.children[at].1, new);
        self.past_cpu_seconds += old.exit().map_or(0.0, |e| e.cpu_seconds);
        (self.ready[at], self.states[at]) = (None, None);
        let deaths = self.deaths.entry(role).or_default();
        (deaths.words, deaths.began) = (None, Some(Instant::now()));
        deaths.revived += 1;
        let Role::Device(device) = role else {
            self.send(role, &ToChild::Go);
            return Ok(());
        };
        self.repeat_input(device);
        self.brief_device(device);
        if self.saving {
            self.send(role, &ToChild::Save);
        }
        Ok(())
    }

    /// A new process serves the device: what the one before it had read and not passed on, it gets once more.
    fn repeat_input(&mut self, device: usize) {
        if self.setup.console() == Some(device) {
            self.guest.repeat();
        }
        self.people.repeat(device);
        self.lines.iter_mut().filter(|line| line.device == device).for_each(Line::repeat);
    }

    /// Whether the guest finds nothing in a device's place.
    pub(super) fn is_gone(&self, device: usize) -> bool {
        self.deaths.get(&Role::Device(device)).is_some_and(|d| d.grave.is_some())
    }

    /// Whether nobody knows what a device that is gone had put out last.
    pub(super) fn is_bare(&self, device: usize) -> bool {
        self.deaths.get(&Role::Device(device)).and_then(|d| d.grave.as_ref()).is_some_and(|g| g.bare)
    }

    /// A device that can't come back is as unplugged to the guest, and the machine goes on. False if that can't be done either.
    pub(super) fn give_up(&mut self, device: usize, how: &str) -> bool {
        let role = Role::Device(device);
        if !self.may_succeed(role) || self.is_gone(device) {
            return false;
        }
        let name = &self.setup.machine.devices[device].name;
        let deaths = self.deaths.entry(role).or_default();
        let why = match (self.setup.machine.devices[device].restart, deaths.words.take()) {
            (Restart::Never, words) => format!("{}, and it is not to be restarted", words.as_deref().unwrap_or(how)),
            (Restart::Limit(n, seconds), words) if deaths.times.len() as u64 > u64::from(n) => {
                let times = deaths.times.len();
                format!("{}: {times} deaths within {seconds} s, {n} are allowed", words.as_deref().unwrap_or(how))
            }
            (_, words) => {
                let times = deaths.in_vain;
                format!("{}: {times} deaths without a completed request", words.as_deref().unwrap_or(how))
            }
        };
        say(&format!(
            "{why}: the guest finds nothing in the place of {name} from now on, as if it were unplugged; the machine goes on. To have {name} again, end the machine and start it"
        ));
        deaths.grave = Some(Grave::default());
        (deaths.in_vain, deaths.due) = (0, Some(Instant::now()));
        deaths.missed.get_or_insert_with(Instant::now);
        self.send(Role::Cpu, &ToChild::Doomed);
        true
    }

    /// What stands in for the device is ready, from this request on. The recording is told first.
    pub(super) fn bury(&mut self, device: usize, request: u64) {
        if let Some(grave) = self.deaths.entry(Role::Device(device)).or_default().grave.as_mut() {
            grave.ready = true;
        }
        if self.setup.mode != Mode::Record {
            return self.buried(device);
        }
        let note = SwapNote {
            channel: device as u16,
            request,
            hash: [0; 32],
            name: String::new(),
            version: String::new(),
            config: None,
        };
        self.keeper.swaps.push(note.clone());
        self.send(Role::Log, &ToChild::Swapped(note));
    }

    /// The recording has it: what stands in for the device can tell the CPU.
    pub(super) fn buried(&mut self, device: usize) {
        let role = Role::Device(device);
        let Some(grave) = self.deaths.get_mut(&role).and_then(|d| d.grave.as_mut()) else { return };
        if grave.ready && !std::mem::replace(&mut grave.serves, true) {
            self.send(role, &ToChild::Go);
            self.recovered(role);
        }
    }

    /// Forgets processes that have made way and are gone.
    pub(super) fn forget_retired(&mut self) {
        for at in (0..self.children.len()).rev() {
            let (role, child) = &self.children[at];
            if let Some(exit) = child.exit().filter(|_| *role == Role::Retired) {
                self.past_cpu_seconds += exit.cpu_seconds;
                self.children.remove(at);
                self.ready.remove(at);
                self.states.remove(at);
            }
        }
    }

    /// Replaces a device's plugin while the machine runs. If the new one can't load, restore the state or answer in time, the old one stays.
    ///
    /// # Errors
    /// Why the old plugin is still in service, for the user.
    pub(crate) fn swap(
        &mut self,
        device: usize,
        plugin: Rc<PluginFile>,
        config: Option<String>,
    ) -> Result<Swapped, String> {
        let name = self.setup.machine.devices[device].name.clone();
        if !self.running || self.trouble.is_some() {
            return Err("the machine is not running".into());
        }
        if self.is_gone(device) {
            return Err(format!("{name} is gone: the guest finds nothing in its place. End the machine and start it"));
        }
        if config.as_ref().is_some_and(|c| c.len() > MAX_CONFIG) {
            return Err(format!("a configuration has at most {MAX_CONFIG} bytes"));
        }
        let before = (self.plugins[device].clone(), self.configs[device].clone());
        self.plugins[device] = plugin;
        if let Some(config) = &config {
            self.configs[device].clone_from(config);
        }
        let result = self.try_swap(device, config).map_err(|why| format!("{name} keeps its plugin: {why}"));
        if result.is_err() {
            (self.plugins[device], self.configs[device]) = before;
        }
        result
    }

    fn try_swap(&mut self, device: usize, config: Option<String>) -> Result<Swapped, String> {
        self.swap = Swap { of: Some(device), config, ..Swap::default() };
        let result = self.try_change(device);
        let orphaned = self.swap.orphaned;
        self.swap = Swap::default();
        if result.is_err() && orphaned {
            self.deaths.entry(Role::Device(device)).or_default().due = Some(Instant::now());
        }
        result
    }

    fn try_change(&mut self, device: usize) -> Result<Swapped, String> {
        let standby = self.launch_device(device, Way::Standby).map_err(|e| e.to_string())?;
        self.children.push((Role::Standby(device), standby));
        self.ready.push(None);
        self.states.push(None);
        let result = self.change_over(device);
        let at = self.place(Role::Standby(device)).expect("pushed above");
        match result {
            Ok(swapped) => {
                let old = self.place(Role::Device(device)).expect("every device has a place");
                self.children.swap(old, at);
                self.ready.swap(old, at);
                (self.children[old].0, self.children[at].0) = (Role::Device(device), Role::Retired);
                self.repeat_input(device);
                self.brief_device(device);
                // It has nothing any more that anybody needs.
                let _ = self.children[at].1.send(&ToChild::Exit);
                if let Some(deaths) = self.deaths.get_mut(&Role::Device(device)) {
                    deaths.missed = None;
                }
                Ok(swapped)
            }
            Err(why) => {
                self.children[at].0 = Role::Retired;
                self.children[at].1.kill();
                if self.swap.yielded.is_some() && !self.swap.orphaned {
                    self.send(Role::Device(device), &ToChild::Resume);
                }
                Err(why)
            }
        }
    }

    fn change_over(&mut self, device: usize) -> Result<Swapped, String> {
        let deadline = Instant::now() + SWAP_TIME;
        self.swap_until(deadline, "load", |s| s.ready_of(Role::Standby(device)).is_some())?;
        let spec = |role| {
            let ready = self.ready_of(role).ok_or("it does not say what it is")?;
            PluginSpec::from_bytes(&ready.spec).map_err(|e| e.to_string())
        };
        let (old, new) = (self.spec_in_force(device)?, spec(Role::Standby(device))?);
        if (PluginSpec { version: old.version.clone(), ..new.clone() }) != old {
            return Err(
                "the new plugin's registers, pins or ports are not those that the machine was built with".into()
            );
        }
        // What takes long comes before the pause.
        let hash = self.store_plugin(device)?;
        let began = Instant::now();
        self.send(Role::Device(device), &ToChild::Yield);
        self.swap_until(deadline, "come to rest", |s| s.swap.yielded.is_some())?;
        self.send(Role::Standby(device), &ToChild::Go);
        self.swap_until(deadline, "take over", |s| s.swap.took)?;
        let request = self.swap.yielded.expect("waited for");
        if let Some(hash) = hash {
            self.note_swap(device, request, hash, deadline)?;
        }
        self.send(Role::Standby(device), &ToChild::Go);
        Ok(Swapped { request, pause: began.elapsed() })
    }

    /// Puts the new plugin's file into the recording, if there is one; its hash.
    fn store_plugin(&self, device: usize) -> Result<Option<[u8; 32]>, String> {
        let Log::Record(recording) = &self.setup.log else { return Ok(None) };
        let bytes = &self.plugins[device].bytes;
        store_input(&recording.dir, bytes).map_err(|e| format!("the recording: {e}"))?;
        Ok(Some(*blake3::hash(bytes).as_bytes()))
    }

    /// Puts the change to the new plugin into the recording, before it serves.
    fn note_swap(&mut self, device: usize, request: u64, hash: [u8; 32], deadline: Instant) -> Result<(), String> {
        let plugin = &self.plugins[device];
        let version = self.ready_of(Role::Standby(device)).and_then(|r| r.plugin.as_ref()).map(|p| p.version.clone());
        let note = SwapNote {
            channel: device as u16,
            request,
            hash,
            name: plugin.origin.clone(),
            version: version.unwrap_or_default(),
            config: self.swap.config.clone(),
        };
        // It is said again to a daemon that takes the place of one that died.
        self.keeper.swaps.push(note.clone());
        self.send(Role::Log, &ToChild::Swapped(note));
        self.swap_until(deadline, "get into the recording", |s| s.keeper.swaps.is_empty())
    }

    /// The spec that cpu-proc goes by.
    fn spec_in_force(&self, device: usize) -> Result<PluginSpec, String> {
        PluginSpec::from_bytes(&self.specs[device]).map_err(|e| e.to_string())
    }

    fn swap_until(&mut self, deadline: Instant, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        while !done(self) {
            if let Some(why) = self.swap.failed.take() {
                return Err(why);
            }
            if self.trouble.is_some() || self.cpu_finished.is_some() {
                return Err("the machine ended".into());
            }
            if Instant::now() >= deadline {
                return Err(format!("it did not {what} within {} s", SWAP_TIME.as_secs()));
            }
            self.step(Some(deadline)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// What a process said that is about to take over.
    pub(super) fn standby_failed(&mut self, text: String, _: Blame) {
        self.swap.failed.get_or_insert(text);
    }

    /// The memory that a device's processes hand on.
    pub(super) fn estate_fd(&self, device: usize) -> std::os::fd::BorrowedFd<'_> {
        self.estates[device].memory().as_fd()
    }
}
