//! Devices that turn against the machine: it ends cleanly, or carries on without them; nothing of ours crashes.

use nix::sys::signal::Signal;
use reprise_tests::process::signal;
use reprise_tests::{GUARD, Rig, Run, copy_tree, exit, prefix};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use xtask::console::{Console, Ended};

/// A copy of the staged build, to be tampered with.
fn staged(rig: &Rig) -> PathBuf {
    let to = rig.path("prefix");
    copy_tree(prefix(), &to);
    // A device that never answers is given up sooner than by default.
    let machine = to.join("share/reprise/configs/machines/hello.ron");
    let text = fs::read_to_string(&machine).expect("installed");
    assert!(!text.contains("limits:"), "hello has default limits");
    let end = text.rfind(')').expect("a machine");
    fs::write(&machine, format!("{}    limits: (reply_timeout_ms: 1500),\n)\n", &text[..end])).expect("written");
    to
}

/// A clean end: an exit code of the table, no panic, no signal.
fn clean(what: &str, ended: &Ended) {
    let code = ended.status.code();
    assert!(
        code.is_some_and(|c| [exit::OK, exit::CONFIG, exit::CHILD].contains(&c)),
        "{what}: {}: {}",
        ended.status,
        ended.stderr
    );
    for bad in ["panicked", "internal error", "SIGBUS", "SIGABRT"] {
        assert!(!ended.stderr.contains(bad), "{what}: {}", ended.stderr);
    }
    assert!(!ended.stderr.is_empty() || code == Some(exit::OK), "{what}: it says why");
}

#[test]
fn a_device_process_that_writes_nonsense_into_its_channel() {
    let rig = Rig::new();
    let staged = staged(&rig);
    let libexec = staged.join("libexec/reprise");
    fs::rename(libexec.join("device-proc"), libexec.join("device-proc.real")).expect("renamed");
    fs::copy(env!("CARGO_BIN_EXE_hostile-device"), libexec.join("device-proc")).expect("copied");
    for seed in 1..=6 {
        let recording = rig.path(&format!("r{seed}"));
        let mut c = Command::new(staged.join("bin/supervisor"));
        c.args(["--config", "machines/hello.ron", "--clock", "warp"])
            .arg(format!("--record={}", recording.display()))
            .env("XDG_RUNTIME_DIR", rig.path("run"))
            .env("HOSTILE_SEED", seed.to_string());
        let mut console = Console::start(&mut c, false).expect("start");
        console.close_input();
        let ended = console.wait(GUARD).expect("the machine ends");
        clean(&format!("seed {seed}"), &ended);
        let info = rig.output(rig.program("reprise-log").arg("verify").arg(&recording));
        assert!(
            matches!(info.status.code(), Some(exit::OK | exit::RECORDING)),
            "the recording is read or refused: {}",
            String::from_utf8_lossy(&info.stderr)
        );
    }
}

/// A staged build whose system registers are the plugin that breaks `rule`.
fn with_hostile_plugin(rig: &Rig, rule: &str) -> PathBuf {
    let staged = staged(rig);
    // A device that is gone reads as zero here.
    let machine = staged.join("share/reprise/configs/machines/hello.ron");
    let text = fs::read_to_string(&machine).expect("installed");
    let bus = "    bus: [(at: 0x1c000000, size: 0x1000000)],\n    devices: [";
    fs::write(&machine, text.replace("    devices: [", bus)).expect("written");
    let plugin = staged.join("lib/reprise/plugins/libplugin_vexpress_sysreg.so");
    let root = xtask::paths::root();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-I"]).arg(root.join("device-procs/sdk/include")).arg(format!("-D{rule}"));
    cc.arg("-o").arg(&plugin).arg(root.join("tests/guests/plugins/hostile.c"));
    assert!(cc.status().expect("a C compiler").success(), "{rule} compiles");
    staged
}

/// Records hello with a plugin that breaks `rule`, lets the guest read its device and then talk; gives how it ended.
fn record_with(rig: &Rig, staged: &std::path::Path, rule: &str) -> Run {
    let (recording, report) = (rig.path("r"), rig.path("r.json"));
    let mut c = Command::new(staged.join("bin/supervisor"));
    c.args(["--config", "machines/hello.ron", "--clock", "warp"])
        .env("XDG_RUNTIME_DIR", rig.path("run"))
        .current_dir(rig.path(""));
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).unwrap_or_else(|e| panic!("{rule}: {e:#}"));
    // `m` reads the device, `l` says two hundred lines. A machine that ends instead does not read that.
    let _ = console.send("ml");
    if console.expect("line 199", GUARD).is_ok() {
        signal(console.pid(), Signal::SIGTERM);
    }
    let ended = console.wait(GUARD).unwrap_or_else(|e| panic!("{rule}: {e:#}"));
    clean(rule, &ended);
    Run { recording, ended, report: xtask::demo::report(&report).unwrap_or_default() }
}

/// What a plugin does, and what the user is told of it. Each build of the plugin does one of these when the guest first touches it.
const FATAL: &[(&str, &str)] = &[
    ("NO_REPLY", ""),
    ("TWO_REPLIES", ""),
    ("WRONG_TAG", ""),
    ("WILD_PIN", ""),
    ("WILD_TIMER", ""),
    ("WILD_SHADOW", ""),
    ("WILD_PORT", ""),
    ("HUGE_OUTPUT", ""),
    ("FAIL", ""),
    ("CRASH", ""),
    ("EXIT", "exited with 0"),
    ("OPEN", "open"),
    ("CONNECT", "socket"),
    ("PTRACE", "ptrace"),
    ("SIGNAL", "kill"),
    ("PEEK", "process_vm_readv"),
    ("MAP", "mmap"),
    ("TRUNCATE", "ftruncate"),
    ("DMA", "it asks for DMA, which its machine does not grant"),
    ("LOOP", "of CPU time on one request"),
    ("SLEEP", "with a request waiting"),
];

/// The device dies, is tried again, and is given up; the machine goes on without it, says why, and its recording is exact.
#[test]
fn a_plugin_that_breaks_a_rule_dies_alone() {
    for (rule, says) in FATAL {
        let rig = Rig::new();
        let run = record_with(&rig, &with_hostile_plugin(&rig, rule), rule).ended(exit::OK);
        let said = &run.ended.stderr;
        assert!(said.contains("sysreg") && said.contains("guest finds nothing in"), "{rule}: it is said: {said}");
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{rule}: the reason is said: {said}");
        assert_eq!(run.field("verdict"), "recorded", "{rule}");
        let replay = rig.replay(&run.recording, &[]).exact(&run);
        assert_eq!(replay.report["device_hash"], run.report["device_hash"], "{rule}");
        rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
    }
}

/// A flood within the limits of the ABI is only slow: 300,000 effects in a thousand instructions, more than a chunk holds.
#[test]
fn a_plugin_that_floods_its_ring_holds_nobody_up() {
    let rig = Rig::new();
    let run = record_with(&rig, &with_hostile_plugin(&rig, "FLOOD"), "FLOOD").ended(exit::OK);
    assert!(!run.ended.stderr.contains("finds nothing"), "{}", run.ended.stderr);
    assert_eq!(run.field("verdict"), "recorded", "{}", run.ended.stderr);
    let info = rig.output(rig.program("reprise-log").args(["stat", "--json"]).arg(&run.recording));
    let stat: serde_json::Value = serde_json::from_slice(&info.stdout).expect("JSON");
    let messages: u64 = stat["messages"].as_array().expect("a list").iter().filter_map(|m| m["number"].as_u64()).sum();
    assert!(messages > 300_000, "the flood is in the recording: {messages}");
    rig.replay(&run.recording, &[]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// A plugin that changes what it has said ends the machine, in good order and with a reason: nobody can tell any more what was true. What was recorded before is good.
#[test]
fn a_plugin_that_rewrites_what_was_read_is_caught() {
    let rig = Rig::new();
    let run = record_with(&rig, &with_hostile_plugin(&rig, "REWRITE"), "REWRITE").ended(exit::CHILD);
    assert!(run.ended.stderr.contains("sysreg"), "the device is named: {}", run.ended.stderr);
    let replay = rig.replay(&run.recording, &["--cpu-only"]);
    assert!(replay.ended.status.success(), "good as far as it goes: {}", replay.ended.stderr);
}
