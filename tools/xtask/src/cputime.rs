//! CPU time of a process and all that descend from it, while they run.

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;

/// User and system time, in seconds, that `root` and its living descendants have used; descendants that have ended are not in it.
///
/// It comes from the processes' CPU clocks, which count nanoseconds; the ticks in `/proc/PID/stat` are too coarse for short work.
///
/// # Errors
/// `/proc` can't be read, or `root` is gone.
pub fn of_tree(root: u32) -> Result<f64> {
    let mut sum = of_process(root).with_context(|| format!("process {root} has no CPU clock any more"))?;
    let children = children()?;
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            // It may have ended since /proc was read.
            sum += of_process(child).unwrap_or(0.0);
            open.push(child);
        }
    }
    Ok(sum)
}

fn of_process(pid: u32) -> Option<f64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    let t = clock_gettime(clock).ok()?;
    Some(t.tv_sec() as f64 + t.tv_nsec() as f64 / 1e9)
}

/// Parent -> children, of all processes.
fn children() -> Result<HashMap<u32, Vec<u32>>> {
    let mut map: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything; after it come the state and the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        if let Some(parent) = parent {
            map.entry(parent).or_default().push(pid);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_time_of_a_grandchild_counts() {
        // The shell gives what runs in the background no standard input: it would end at once.
        let work = "exec 3<&0; (i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done; echo done; read x <&3) & wait";
        let mut c = Command::new("sh");
        let mut child =
            c.args(["-c", work]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell can be started");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("the shell says so");
        assert_eq!(line, "done\n");
        let (tree, top) = (of_tree(child.id()).expect("alive"), of_process(child.id()).expect("alive"));
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(tree > top, "tree {tree} s, its root alone {top} s");
    }
}
