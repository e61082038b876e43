//! Answers as text.

use std::fmt::Write;

use reprise_child::operator::{Answer, DeviceStateTree, DiskStatus, NetStatus, Status};
use serde_json::Value;

/// An answer, for people; whole lines.
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Status(s) => status(s),
        Answer::Swapped { request, pause_us, version } => {
            format!("version {version} serves from request {request} on; the device rested for {pause_us} us\n")
        }
        Answer::Paused { instructions, guest_ns } => {
            format!(
                "paused after {instructions} instructions, {} s of guest time; `vmctl resume` goes on\n",
                seconds(*guest_ns)
            )
        }
        Answer::Asked { by } => {
            format!("asked the guest by {by}; `vmctl poweroff --force` does not ask\n")
        }
        Answer::DeviceState(state) => device_state(state),
        Answer::Net { networks } => networks.iter().map(network).collect(),
        Answer::Disk { disks } => disks.iter().map(disk).collect(),
        Answer::Done => String::new(),
        Answer::Failed { error } => format!("{error}\n"),
    }
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

/// A number of bytes in the unit that fits.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

fn status(s: &Status) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all");
    line(format!("{} ({}), {}, mode {}, engine {}", s.machine, s.uuid, s.state, s.mode, s.engine));
    line(format!("{} x {}, {} of RAM, clock {}, supervisor {}", s.cores, s.cpu, bytes(s.memory), s.clock, s.pid));
    if let (Some(n), Some(ns)) = (s.instructions, s.guest_ns) {
        let wall = s.wall_ms as f64 / 1000.0;
        line(format!("{n} instructions, {} s of guest time, {wall:.3} s of wall time", seconds(ns)));
    }
    if let Some(recording) = &s.recording {
        let size = s.log_bytes.map_or_else(String::new, |n| format!(" ({} of log)", bytes(n)));
        line(format!("recording: {recording}{size}"));
    }
    let number = |pid: Option<i32>| pid.map_or_else(|| "-".into(), |p| p.to_string());
    line(format!("cpu {}, log {} ({} restarts)", number(s.cpu_pid), number(s.log_pid), s.log_restarts));
    line(format!(
        "{:<16} {:<16} {:<10} {:>10} {:<8} {:>8} {:>8} {:>12} {:>7}",
        "device", "plugin", "version", "at", "backend", "pid", "restarts", "requests", "waiting"
    ));
    for d in &s.devices {
        let waiting = d.sent.saturating_sub(d.completed);
        line(format!(
            "{:<16} {:<16} {:<10} {:>#10x} {:<8} {:>8} {:>8} {:>12} {:>7}",
            d.name,
            d.plugin,
            d.version,
            d.at,
            d.backend,
            if d.gone { "gone".to_owned() } else { number(d.pid) },
            d.restarts,
            d.completed,
            waiting
        ));
        if !d.ports.is_empty() {
            line(format!("{:<16} leads out on {}", "", d.ports.join(", ")));
        }
    }
    out
}

fn device_state(s: &DeviceStateTree) -> String {
    let mut out = format!(
        "{}: {} {}, before request {}; {} of state, BLAKE3 {}\n",
        s.device,
        s.plugin,
        s.version,
        s.request,
        bytes(s.bytes),
        s.hash
    );
    match &s.state {
        Some(state) => tree(&mut out, state, 1),
        None => out.push_str("  its plugin does not describe its state\n"),
    }
    out
}

/// Is it shown on the line of its name?
fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.iter().all(|v| !v.is_object() && !v.is_array()),
        _ => true,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Number(n) => match n.as_u64() {
            Some(n) if n > 9 => format!("{n} ({n:#x})"),
            _ => n.to_string(),
        },
        Value::Array(list) => list.iter().map(short).collect::<Vec<_>>().join(" "),
        Value::Object(_) => "-".into(),
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) => value.to_string(),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as an indented tree.
fn tree(out: &mut String, value: &Value, depth: usize) {
    let mut branch = |name: &str, value: &Value| {
        let indent = "  ".repeat(depth);
        if is_short(value) {
            writeln!(out, "{indent}{name}: {}", plain(value)).expect("a String takes all");
        } else {
            writeln!(out, "{indent}{name}:").expect("a String takes all");
            tree(out, value, depth + 1);
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| branch(name, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, value)| branch(&format!("[{n}]"), value)),
        other => branch("value", other),
    }
}

fn counters(out: &mut String, counters: &[(String, u64)]) {
    if !counters.is_empty() {
        let all: Vec<String> = counters.iter().map(|(name, n)| format!("{name} {n}")).collect();
        writeln!(out, "  {}", all.join(", ")).expect("a String takes all");
    }
}

fn network(n: &NetStatus) -> String {
    let mut out = format!("{}: {}, {}\n", n.device, n.kind, if n.up { "up" } else { "down" });
    for forward in &n.forwards {
        writeln!(out, "  forward {forward}").expect("a String takes all");
    }
    counters(&mut out, &n.counters);
    out
}

fn disk(d: &DiskStatus) -> String {
    let mut out = format!(
        "{}: {}, {}, {} ({} on the host's disk)\n",
        d.device,
        d.format,
        d.mode,
        bytes(d.size),
        bytes(d.allocated)
    );
    for (n, file) in d.files.iter().enumerate() {
        let what = if n == 0 { "image" } else { "based on" };
        writeln!(out, "  {what} {file}").expect("a String takes all");
    }
    counters(&mut out, &d.counters);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_a_tree() {
        let state = DeviceStateTree {
            device: "uart0".into(),
            plugin: "pl011".into(),
            version: "1".into(),
            request: 7,
            bytes: 2048,
            hash: "00".into(),
            state: serde_json::from_str(
                r#"{"state":{"V1":{"fifo":[1,2],"cr":769,"none":null,"on":true}},"queues":{}}"#,
            )
            .ok(),
        };
        let expected = "uart0: pl011 1, before request 7; 2.0 KiB of state, BLAKE3 00\n  queues: -\n  state:\n    V1:\n      \
                        cr: 769 (0x301)\n      fifo: 1 2\n      none: none\n      on: true\n";
        assert_eq!(answer(&Answer::DeviceState(state)), expected);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([0, 1536, 5 << 20, 3 << 30].map(bytes), ["0 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
        assert_eq!(seconds(1_234_567_890), "1.234");
    }
}
