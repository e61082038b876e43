//! Devices that turn against the machine: it ends cleanly, or carries on without them; nothing of ours crashes.

use reprise_tests::{GUARD, Rig, copy_tree, exit, prefix};
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
    for bad in ["panicked", "internal error", "SIGSEGV", "SIGBUS", "SIGABRT"] {
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

#[test]
fn a_plugin_that_breaks_every_rule_of_its_abi() {
    let include = xtask::paths::root().join("device-procs/sdk/include");
    // Each build of the plugin breaks one rule when the guest first touches it.
    let rules = [
        "NO_REPLY",
        "TWO_REPLIES",
        "WRONG_TAG",
        "WILD_PIN",
        "WILD_TIMER",
        "WILD_SHADOW",
        "WILD_PORT",
        "HUGE_OUTPUT",
        "FAIL",
        "CRASH",
        "EXIT",
        "OPEN",
    ];
    for rule in rules {
        let rig = Rig::new();
        let staged = staged(&rig);
        let plugin = staged.join("lib/reprise/plugins/libplugin_vexpress_sysreg.so");
        let source = xtask::paths::root().join("tests/guests/plugins/hostile.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-I"])
            .arg(&include)
            .arg(format!("-D{rule}"))
            .arg("-o")
            .arg(&plugin)
            .arg(&source);
        assert!(cc.status().expect("a C compiler").success(), "{rule} compiles");
        let mut c = Command::new(staged.join("bin/supervisor"));
        c.args(["--config", "machines/hello.ron", "--clock", "warp"]).env("XDG_RUNTIME_DIR", rig.path("run"));
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("READY", GUARD).unwrap_or_else(|e| panic!("{rule}: {e:#}"));
        // `m` reads the device, `q` writes to it.
        let _ = console.send("mq");
        let ended = console.wait(GUARD).unwrap_or_else(|e| panic!("{rule}: {e:#}"));
        clean(rule, &ended);
        assert_eq!(ended.status.code(), Some(exit::CHILD), "{rule}: {}", ended.stderr);
        assert!(ended.stderr.contains("sysreg"), "{rule}: the device is named: {}", ended.stderr);
    }
}
