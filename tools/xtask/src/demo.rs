//! `cargo xtask demo`: boot, record, replay, and say what came of it.

use crate::console::Console;
use crate::guest::{self, Guest};
use crate::{install, paths};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Keeps a hung machine from hanging the demo; nothing is measured by it.
const GUARD: Duration = Duration::from_secs(1200);

/// What is typed into the Linux guest's shell.
pub const COMMANDS: &[&str] = &[
    "uname -a",
    "date",
    "cat /proc/uptime",
    "cat /proc/interrupts",
    "dd if=/dev/urandom bs=32 count=1 2>/dev/null | md5sum",
    "poweroff -f",
];

/// The kernel's command line in demo, tests and benchmarks.
pub const APPEND: &str = "console=ttyAMA0 maxcpus=1 quiet";

/// The arguments that boot the Linux guest on the Versatile Express.
pub fn linux_args(guest: &Guest, append: &str) -> Vec<String> {
    machine_args("machines/vexpress.ron", guest, &guest.dtb, append)
}

/// The same for the board with a Cortex-A9.
pub fn linux_a9_args(guest: &Guest, append: &str) -> Vec<String> {
    machine_args("machines/vexpress-a9.ron", guest, &guest.dtb_a9, append)
}

fn machine_args(config: &str, guest: &Guest, dtb: &PathBuf, append: &str) -> Vec<String> {
    let mut args: Vec<String> = vec!["--config".into(), config.into()];
    for (flag, path) in [("--kernel", &guest.kernel), ("--dtb", dtb), ("--initrd", &guest.initrd)] {
        args.push(flag.into());
        args.push(path.display().to_string());
    }
    args.extend(["--append".into(), append.into()]);
    args
}

/// A machine's report file.
///
/// # Errors
/// It is not there or no JSON.
pub fn report(path: &Path) -> Result<serde_json::Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading the report {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Runs the demonstration.
///
/// # Errors
/// Anything that fails; a replay that is not exact is a failure.
pub fn demo() -> Result<()> {
    let prefix = install::stage()?;
    let dir = paths::target_dir().join("demo");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let guest = if guest::possible() {
        Some(guest::ensure(&guest::default_dir(), false)?)
    } else {
        eprintln!(
            "demo: no apt here, so no Linux guest: running the built-in bare-metal guest instead (configs/machines/hello.ron)"
        );
        None
    };
    let supervisor = prefix.join("bin/supervisor");
    let recording = dir.join("recording");
    let record_report = record(&supervisor, guest.as_ref(), &recording, &dir.join("record.json"))?;
    let replay_report = replay(&supervisor, &recording, &dir.join("replay.json"))?;
    print_results(&record_report, &replay_report, &recording)
}

fn record(supervisor: &Path, guest: Option<&Guest>, recording: &Path, report_file: &Path) -> Result<serde_json::Value> {
    let mut c = Command::new(supervisor);
    match guest {
        Some(g) => c.args(linux_args(g, APPEND)),
        None => c.args(["--config", "machines/hello.ron"]),
    };
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(report_file);
    eprintln!("demo: {c:?}");
    let mut console = Console::start(&mut c, true)?;
    if guest.is_some() {
        console.expect("GUEST READY", GUARD)?;
        for command in COMMANDS {
            console.expect("# ", GUARD)?;
            console.send(format!("{command}\n"))?;
        }
    } else {
        console.expect("READY", GUARD)?;
        console.send("hibwmq")?;
    }
    let ended = console.wait(GUARD)?;
    ensure!(ended.status.success(), "recording ended with {}:\n{}", ended.status, ended.stderr);
    report(report_file)
}

fn replay(supervisor: &Path, recording: &Path, report_file: &Path) -> Result<serde_json::Value> {
    let mut c = Command::new(supervisor);
    c.arg("replay").arg(recording).arg("--report").arg(report_file);
    eprintln!("\ndemo: {c:?}");
    let console = Console::start(&mut c, true)?;
    let ended = console.wait(GUARD)?;
    if !ended.status.success() {
        bail!("the replay ended with {}:\n{}", ended.status, ended.stderr);
    }
    report(report_file)
}

fn print_results(rec: &serde_json::Value, rep: &serde_json::Value, recording: &Path) -> Result<()> {
    let number = |v: &serde_json::Value, k: &str| v[k].as_f64().unwrap_or(f64::NAN);
    let text = |v: &serde_json::Value, k: &str| v[k].as_str().unwrap_or("?").to_owned();
    println!("\n  verdict        {}", text(rep, "verdict"));
    println!("  instructions   {} recorded, {} replayed", rec["instructions"], rep["instructions"]);
    println!("  state hash     {}", text(rep, "state_hash"));
    println!(
        "  console        {} bytes, the same in both: {}",
        rec["console_bytes"],
        rec["console_hash"] == rep["console_hash"]
    );
    println!("  log            {} bytes for {} events", rec["log_bytes"], rec["events"]);
    println!(
        "  wall time      {:.1} s recording, {:.1} s replay",
        number(rec, "wall_seconds"),
        number(rep, "wall_seconds")
    );
    println!(
        "  CPU time       {:.1} s recording, {:.1} s replay",
        number(rec, "cpu_seconds"),
        number(rep, "cpu_seconds")
    );
    println!("  guest time     {:.3} s", number(rec, "guest_ns") / 1e9);
    println!(
        "  speed          {:.0} million instructions a CPU second",
        number(rec, "instructions") / 1e6 / number(rec, "cpu_seconds")
    );
    println!(
        "  recording      {} ({} KB with kernel, initramfs and plugins)",
        recording.display(),
        size(recording)? / 1024
    );
    ensure!(text(rep, "verdict") == "exact", "the replay is not exact");
    for key in ["instructions", "state_hash", "device_hash", "console_hash", "console_bytes"] {
        ensure!(rec[key] == rep[key], "{key} differs: {} recorded, {} replayed", rec[key], rep[key]);
    }
    Ok(())
}

/// Bytes in a folder.
fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

/// The supervisor of a staged build.
pub fn supervisor() -> PathBuf {
    paths::target_dir().join("stage/bin/supervisor")
}
