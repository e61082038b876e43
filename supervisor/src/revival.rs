//! Devices that come back: a process that was killed gets a successor, and a plugin is replaced under the running guest.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reprise_child::control::{Blame, ESTATE_BYTES, SwapNote, ToChild, Way};
use reprise_device::spec::PluginSpec;
use reprise_recording::store_input;

use super::{Log, Role, Session};
use crate::failure::Failure;
use crate::images;
use crate::outcome::Recovery;
use crate::plugins::PluginFile;

/// Deaths in a row, without anything done between, after which a process has no more successors.
const HOPELESS: u32 = 5;
/// The pause before the second attempt in a row; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(10);
/// A network's or display's process that lived for so long was of use.
const USEFUL: Duration = Duration::from_secs(1);
/// The most recoveries that are kept for the report.
const MAX_RECOVERIES: usize = 100_000;
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
            Role::Device(device) => Some(self.channels[device].progress().1),
            _ => None,
        };
        let deaths = self.deaths.entry(role).or_default();
        let useful = match done {
            Some(completed) => completed > std::mem::replace(&mut deaths.completed, completed),
            None => deaths.began.is_some_and(|began| began.elapsed() >= USEFUL),
        };
        deaths.in_vain = if useful { 1 } else { deaths.in_vain + 1 };
        if deaths.in_vain > HOPELESS {
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
            Role::Device(device) => self.launch_device(device, way)?,
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
        if self.setup.console() == Some(device) {
            self.guest.repeat();
        }
        self.people.repeat(device);
        if let Some(line) = self.lines.get_mut(device).and_then(Option::as_mut) {
            line.repeat();
        }
        self.brief_device(device);
        if self.saving {
            self.send(role, &ToChild::Save);
        }
        Ok(())
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
    pub(crate) fn swap(&mut self, device: usize, plugin: Rc<PluginFile>) -> Result<Swapped, String> {
        let name = self.setup.machine.devices[device].name.clone();
        if !self.running || self.trouble.is_some() {
            return Err("the machine is not running".into());
        }
        let old = std::mem::replace(&mut self.plugins[device], plugin.clone());
        let result = self.try_swap(device).map_err(|why| format!("{name} keeps its plugin: {why}"));
        if result.is_err() {
            self.plugins[device] = old;
        }
        result
    }

    fn try_swap(&mut self, device: usize) -> Result<Swapped, String> {
        self.swap = Swap { of: Some(device), ..Swap::default() };
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
        let began = Instant::now();
        self.send(Role::Device(device), &ToChild::Yield);
        self.swap_until(deadline, "come to rest", |s| s.swap.yielded.is_some())?;
        self.send(Role::Standby(device), &ToChild::Go);
        self.swap_until(deadline, "take over", |s| s.swap.took)?;
        let request = self.swap.yielded.expect("waited for");
        self.note_swap(device, request, deadline)?;
        self.send(Role::Standby(device), &ToChild::Go);
        Ok(Swapped { request, pause: began.elapsed() })
    }

    /// Puts the new plugin into the recording, if there is one, before it serves.
    fn note_swap(&mut self, device: usize, request: u64, deadline: Instant) -> Result<(), String> {
        let Log::Record(recording) = &self.setup.log else { return Ok(()) };
        let plugin = &self.plugins[device];
        let version = self.ready_of(Role::Standby(device)).and_then(|r| r.plugin.as_ref()).map(|p| p.version.clone());
        store_input(&recording.dir, &plugin.bytes).map_err(|e| format!("the recording: {e}"))?;
        let note = SwapNote {
            channel: device as u16,
            request,
            hash: *blake3::hash(&plugin.bytes).as_bytes(),
            name: plugin.origin.clone(),
            version: version.unwrap_or_default(),
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
