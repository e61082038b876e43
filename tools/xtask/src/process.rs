//! Looking at a machine's processes from outside, through `/proc`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// A child of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its number.
    pub pid: u32,
    /// Its program's name, cut to 15 characters by the kernel.
    pub name: String,
    /// Its command line, as text.
    pub command: String,
}

/// The children of process `pid`, threads' children included.
pub fn children(pid: u32) -> Vec<Child> {
    let mut all = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return all };
    for task in tasks.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(list.split_whitespace().filter_map(|p| child(p.parse().ok()?)));
    }
    all.sort_by_key(|c| c.pid);
    all
}

fn child(pid: u32) -> Option<Child> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(Child { pid, name, command: String::from_utf8_lossy(&command).replace('\0', " ") })
}

/// Whether a process is there and no zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit(')').next().is_some_and(|r| r.trim_start().starts_with('Z')))
}

/// Sends a signal to one process of ours.
///
/// # Panics
/// If it is gone.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap_or_else(|e| panic!("signalling {pid}: {e}"));
}

/// Waits until `ready` says yes.
///
/// # Panics
/// If it does not within `guard`.
pub fn wait_for(what: &str, guard: Duration, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + guard;
    while !ready() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Names in `/dev/shm` that belong to Reprise.
pub fn segments() -> Vec<String> {
    let all =
        fs::read_dir("/dev/shm").map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect());
    let all: Vec<String> = all.unwrap_or_default();
    all.into_iter().filter(|n| n.starts_with("reprise-")).collect()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// KiB of memory that are a process's own: its heap and stacks.
pub fn own_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
