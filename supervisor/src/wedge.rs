//! Processes that live and do nothing, with work waiting: they are treated as dead.
//!
//! A loaded host makes everything slow, so what counts is not how long an answer takes, but that the process had its chance: it is stopped, it sleeps, or it has
//! used seconds of CPU time on one request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reprise_child::control::Mode;

use super::{Role, Session};
use crate::children::{Activity, State};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);
/// How long a process may be stopped with work waiting.
const STOPPED: Duration = Duration::from_secs(1);
/// CPU time that a device may use for one request.
const CPU: Duration = Duration::from_secs(2);

/// What is known of processes that have work waiting.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next: Option<Instant>,
    waits: BTreeMap<Role, Wait>,
}

/// A process that has not come further since.
#[derive(Debug)]
struct Wait {
    /// What changes when it does something, or has something to do.
    mark: (i32, Load, u64, u64),
    since: Instant,
    /// Its CPU time then.
    cpu: Duration,
    /// It has slept at every look since, and was not held up.
    asleep: Instant,
}

/// Whether there is work for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    None,
    /// Nobody knows: it may come from outside.
    Maybe,
    Waiting,
}

/// Whether there is work for a process, and what changes when it does some.
struct Work {
    load: Load,
    mark: (u64, u64),
    /// It can't go on before somebody else does.
    held_up: bool,
}

impl Load {
    fn of(waiting: bool) -> Self {
        if waiting { Self::Waiting } else { Self::None }
    }
}

impl Session<'_> {
    /// When to look next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.watch.next.filter(|_| self.running && !self.leaving && self.trouble.is_none())
    }

    /// Looks, if it is time, and puts down what does nothing.
    pub(super) fn look_for_wedged(&mut self) {
        let now = Instant::now();
        if !self.running || self.leaving || self.trouble.is_some() || self.watch.next.is_some_and(|at| at > now) {
            return;
        }
        self.watch.next = Some(now + LOOK);
        for at in 0..self.children.len() {
            let (role, child) = &self.children[at];
            let (role, pid) = (*role, child.pid());
            let Some(work) = self.work_of(role).filter(|w| w.load != Load::None && child.exit().is_none()) else {
                self.watch.waits.remove(&role);
                continue;
            };
            let Some(activity) = child.activity() else { continue };
            let mark = (pid, work.load, work.mark.0, work.mark.1);
            let fresh = || Wait { mark, since: now, cpu: activity.cpu, asleep: now };
            let wait = self.watch.waits.entry(role).or_insert_with(fresh);
            if wait.mark != mark {
                *wait = fresh();
                continue;
            }
            // The log daemon may take a second to let it go on: from then on its sleep counts.
            if activity.state != State::Sleeping || work.held_up {
                wait.asleep = now;
            }
            let patience = Duration::from_millis(self.setup.machine.limits.reply_timeout_ms.into());
            if let Some(why) = wait.verdict(role, &activity, now, patience) {
                self.put_down(at, &why, activity.state == State::Running);
            }
        }
    }

    /// What a process has to do, if that can be told.
    fn work_of(&self, role: Role) -> Option<Work> {
        match role {
            Role::Device(device) => {
                let c = self.channels[device].cursors();
                let held_up = c.emitted > c.consumed || c.tapped.is_some_and(|(_, events)| c.emitted > events);
                let load = match c.sent > c.completed {
                    true => Load::Waiting,
                    false if self.host_input(device) => Load::Maybe,
                    false => Load::None,
                };
                Some(Work { load, mark: (c.completed, c.emitted), held_up })
            }
            Role::Log if self.setup.mode == Mode::Record => {
                let all = self.channels.iter().map(|c| c.cursors());
                let waiting = all.into_iter().any(|c| c.tapped.is_some_and(|t| c.sent > t.0 || c.emitted > t.1));
                // It takes messages in batches, so sleep means nothing.
                Some(Work { load: Load::of(waiting), mark: (self.keeper.taken(), 0), held_up: true })
            }
            Role::Net(device) => {
                let fd = self.links[device].as_ref()?.network()?;
                let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                let waiting = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
                Some(Work { load: Load::of(waiting), mark: (0, 0), held_up: true })
            }
            _ => None,
        }
    }

    fn put_down(&mut self, at: usize, why: &str, endless: bool) {
        let (role, child) = &self.children[at];
        let (role, text) = (*role, format!("the process of {} {why}", child.name));
        tracing::info!("{text}: killed");
        self.watch.waits.remove(&role);
        match role {
            Role::Log => {
                self.keeper.words = Some(text);
                self.children[at].1.put_down();
            }
            _ => {
                self.last_words(role, text);
                self.deaths.entry(role).or_default().endless = endless;
            }
        }
    }
}

impl Wait {
    /// Why a process is as good as dead, if it is.
    fn verdict(&self, role: Role, now: &Activity, at: Instant, patience: Duration) -> Option<String> {
        let (waited, used) = (at.duration_since(self.since), now.cpu.saturating_sub(self.cpu));
        let tenths = |d: Duration| format!("{:.1} s", d.as_secs_f64());
        if now.state == State::Stopped && waited >= STOPPED.min(patience) {
            return Some(format!("was stopped for {} with work waiting", tenths(waited)));
        }
        if !matches!(role, Role::Device(_)) || self.mark.1 != Load::Waiting {
            return None;
        }
        if used >= CPU.min(patience) {
            return Some(format!("has used {} of CPU time on one request", tenths(used)));
        }
        let slept = at.duration_since(self.asleep);
        (slept >= patience).then(|| format!("slept for {} with a request waiting", tenths(slept)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_its_chance_is_put_down_and_what_is_only_slow_is_not() {
        let began = Instant::now();
        let patience = Duration::from_secs(10);
        let wait = |asleep: Instant| Wait {
            mark: (1, Load::Waiting, 2, 3),
            since: began,
            cpu: Duration::from_secs(5),
            asleep,
        };
        let after = |secs, cpu_ms, state, asleep, role| {
            let activity = Activity { state, cpu: Duration::from_secs(5) + Duration::from_millis(cpu_ms) };
            let now = began + Duration::from_secs(secs);
            wait(if asleep { began } else { now }).verdict(role, &activity, now, patience).is_some()
        };
        let device = Role::Device(0);
        assert!(after(1, 0, State::Stopped, false, device), "stopped");
        assert!(!after(0, 0, State::Stopped, false, device), "not for long");
        assert!(after(1, 0, State::Stopped, false, Role::Log) && after(1, 0, State::Stopped, false, Role::Net(0)));
        assert!(after(3, 2000, State::Running, false, device), "two seconds of CPU");
        assert!(!after(3600, 1999, State::Running, false, device), "a starved process is not wedged");
        assert!(!after(3600, 0, State::Waiting, false, device), "nor one that waits for a disk");
        assert!(after(10, 0, State::Sleeping, true, device), "asleep all the time");
        assert!(!after(9, 0, State::Sleeping, true, device) && !after(3600, 0, State::Sleeping, false, device));
        assert!(!after(3600, 9000, State::Sleeping, true, Role::Log), "that of a daemon says nothing");
        let idle = Wait { mark: (1, Load::Maybe, 2, 3), since: began, cpu: Duration::ZERO, asleep: began };
        let spent = Activity { state: State::Running, cpu: Duration::from_secs(9) };
        assert_eq!(
            idle.verdict(device, &spent, began + patience, patience),
            None,
            "it has nothing to do that is known"
        );
    }
}
