//! `--report`, and `reprise-log` with `--json`: what programs read.

use reprise_tests::{Rig, Run, exit};
use serde_json::Value;

fn check(run: &Run, verdict: &str) {
    let r = &run.report;
    assert_eq!(r["verdict"], verdict);
    for key in ["state_hash", "device_hash", "console_hash"] {
        let hash = r[key].as_str().unwrap_or_else(|| panic!("{key} is text: {r}"));
        assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{key}: {hash}");
    }
    for key in ["instructions", "console_bytes", "events", "log_bytes", "guest_ns"] {
        assert!(r[key].is_u64(), "{key} is a whole number: {r}");
    }
    for key in ["wall_seconds", "cpu_seconds"] {
        assert!(r[key].as_f64().is_some_and(|s| s > 0.0), "{key} is positive: {r}");
    }
    let jit = cfg!(target_arch = "x86_64");
    assert_eq!(r["engine"], if jit { "jit" } else { "interp" });
    assert_eq!(r["engine_figures"]["blocks_translated"].as_u64().is_some_and(|n| n > 0), jit, "{r}");
    assert_eq!(r["recording"].as_str().map(std::path::Path::new), Some(run.recording.as_path()));
    assert_eq!(r["console_bytes"].as_u64(), Some(run.ended.stdout.len() as u64));
}

#[test]
fn report_has_every_field() {
    let rig = Rig::new();
    let recorded = rig.record_hello("r", "abwq");
    check(&recorded, "recorded");
    assert!(recorded.report["log_bytes"].as_u64().is_some_and(|n| n > 100));
    assert!(
        recorded.report["guest_ns"].as_u64() >= recorded.report["instructions"].as_u64(),
        "one instruction takes 1 ns or more"
    );
    check(&rig.replay(&recorded.recording, &[]), "exact");
}

#[test]
fn latest_is_replayed_by_default() {
    let rig = Rig::new();
    let mut c = rig.hello();
    c.arg("--record");
    let mut console = xtask::console::Console::start(&mut c, false).expect("start");
    console.expect("READY", reprise_tests::GUARD).expect("ready");
    console.send("abq").expect("type");
    let ended = console.wait(reprise_tests::GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    let replay = rig.output(rig.supervisor().arg("replay"));
    assert_eq!(replay.status.code(), Some(exit::OK), "{}", String::from_utf8_lossy(&replay.stderr));
    assert_eq!(replay.stdout, ended.stdout);
}

fn log_json(rig: &Rig, verb: &str, recording: &std::path::Path) -> Value {
    let out = rig.output(rig.program("reprise-log").arg(verb).arg(recording).arg("--json"));
    assert!(out.status.success(), "reprise-log {verb}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(text.lines().next().unwrap_or(""))
        .or_else(|_| serde_json::from_str(&text))
        .unwrap_or_else(|e| panic!("{verb}: {e}: {text}"))
}

#[test]
fn reprise_log_reads_a_recording() {
    let rig = Rig::new();
    let recorded = rig.record_hello("r", "abwq");
    for verb in ["info", "verify", "stat", "dump"] {
        let json = log_json(&rig, verb, &recorded.recording);
        assert!(json.is_object() || json.is_array(), "{verb}: {json}");
        let text = rig.output(rig.program("reprise-log").arg(verb).arg(&recorded.recording));
        assert!(text.status.success() && !text.stdout.is_empty(), "{verb} for people");
    }
}
