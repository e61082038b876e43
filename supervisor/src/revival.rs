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
use crate::plugins::PluginFile;

/// Deaths in a row, without a request completed between them, after which a device is given up.
const HOPELESS: u32 = 5;
/// The pause before the second attempt in a row; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a new plugin may take to load and to take over.
const SWAP_TIME: Duration = Duration::from_secs(10);

/// What a device's processes share, one after the other.
#[derive(Debug)]
pub(super) struct Estate {
    memory: OwnedFd,
    /// Deaths since a request was completed.
    in_vain: u32,
    /// Requests completed when it last died.
    completed: u64,
    /// Successors so far.
    pub(super) revived: u64,
}

impl Estate {
    pub(super) fn new() -> anyhow::Result<Self> {
        let memory = images::zeroed("reprise-estate", ESTATE_BYTES)?;
        Ok(Self { memory, in_vain: 0, completed: 0, revived: 0 })
    }

    pub(super) fn memory(&self) -> &OwnedFd {
        &self.memory
    }
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
}

impl Session<'_> {
    /// Gives a device whose process has died a new one. False if it is to stay dead.
    pub(super) fn revive(&mut self, device: usize) -> Result<bool, Failure> {
        if self.leaving || self.trouble.is_some() {
            return Ok(false);
        }
        let completed = self.channels[device].progress().1;
        let estate = &mut self.estates[device];
        estate.in_vain = if completed > estate.completed { 1 } else { estate.in_vain + 1 };
        estate.completed = completed;
        if estate.in_vain > HOPELESS {
            return Ok(false);
        }
        if estate.in_vain > 1 {
            std::thread::sleep(PAUSE * (1 << (estate.in_vain - 2)));
        }
        estate.revived += 1;
        tracing::info!("{}: a successor takes over", self.setup.machine.devices[device].name);
        // Before the machine runs there is nothing to go on with.
        let way = if self.running { Way::Successor } else { Way::Fresh };
        let new = self.launch_device(device, way)?;
        let at = self.place(Role::Device(device)).expect("every device has a place");
        let old = std::mem::replace(&mut self.children[at].1, new);
        self.past_cpu_seconds += old.exit().map_or(0.0, |e| e.cpu_seconds);
        (self.ready[at], self.states[at]) = (None, None);
        if self.setup.console() == Some(device) {
            self.guest.repeat();
        }
        if self.saving {
            self.send(Role::Device(device), &ToChild::Save);
        }
        Ok(true)
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
        self.swap = Swap::default();
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
                // It has nothing any more that anybody needs.
                let _ = self.children[at].1.send(&ToChild::Exit);
                Ok(swapped)
            }
            Err(why) => {
                self.children[at].0 = Role::Retired;
                self.children[at].1.kill();
                if self.swap.yielded.is_some() {
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
