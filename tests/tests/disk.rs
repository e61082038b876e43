//! A full disk while recording.

use nix::sys::resource::{Resource, setrlimit};
use reprise_tests::{GUARD, Rig, exit};
use std::os::unix::process::CommandExt;
use xtask::console::Console;

#[test]
fn a_full_disk_is_a_clear_error_and_what_was_written_stays_good() {
    let rig = Rig::new();
    // What a recording of this program takes; then one that may not grow to that size.
    let whole = rig.record_hello("whole", &"bml".repeat(30).chars().chain(['q']).collect::<String>());
    let largest = reprise_tests::files(&whole.recording.join("segments"))
        .iter()
        .map(|p| p.metadata().expect("a file").len())
        .max();
    let limit = largest.expect("a segment") / 2;
    let mut c = rig.hello();
    c.arg(format!("--record={}", rig.path("full").display()));
    // SAFETY: setrlimit is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        c.pre_exec(move || {
            setrlimit(Resource::RLIMIT_FSIZE, limit, limit)?;
            // As on a full disk, the write fails; the signal that goes with this limit is not wanted.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    // It may end before it has read all this.
    let _ = console.send("bml".repeat(30));
    let _ = console.send("q");
    let ended = console.wait(GUARD).expect("the machine ends");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("full") || ended.stderr.contains("write"), "it says what failed: {}", ended.stderr);
    let run = rig.replay(&rig.path("full"), &["--cpu-only"]).ended(exit::OK);
    assert!(whole.ended.text().starts_with("Hello") && run.ended.text().starts_with("Hello"));
}
