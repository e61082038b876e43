//! A full disk while recording.

use reprise_tests::{GUARD, Rig, exit, files};
use std::path::Path;
use std::process::Command;
use xtask::console::Console;

/// What the guest is told to do: enough for a log of several pages.
const WORK: &str = "bml";
const ROUNDS: usize = 120;

/// A file system's pages.
const PAGE: u64 = 4096;

/// Mounts a file system of `$1` bytes at `$2`, runs the rest there, and takes a copy of what it wrote to `$3`: the mount is this process's own.
const SCRIPT: &str = r#"
size=$1 disk=$2 copy=$3; shift 3
mount -t tmpfs -o size="$size" tmpfs "$disk" || exit 99
"$@"; code=$?
cp -r "$disk/r" "$copy"
exit $code
"#;

fn pages(path: &Path) -> u64 {
    files(path).iter().map(|p| p.metadata().expect("a file").len().div_ceil(PAGE)).sum()
}

#[test]
fn a_full_disk_is_a_clear_error_and_what_was_written_stays_good() {
    let rig = Rig::new();
    let whole = rig.record_hello("whole", &format!("{}q", WORK.repeat(ROUNDS)));
    let log = pages(&whole.recording.join("segments"));
    assert!(log >= 3, "the log takes {log} pages, too few for this test");
    // Room for everything but the last pages of the log.
    let size = (pages(&whole.recording.join("inputs")) + 4 + log / 2) * PAGE;
    let disk = rig.path("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let machine = rig.hello();
    let mut c = Command::new("unshare");
    c.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"])
        .arg(size.to_string())
        .arg(&disk)
        .arg(rig.path("full"));
    c.arg(machine.get_program()).args(machine.get_args()).arg(format!("--record={}", disk.join("r").display()));
    for (name, value) in machine.get_envs() {
        match value {
            Some(v) => c.env(name, v),
            None => c.env_remove(name),
        };
    }
    if let Some(dir) = machine.get_current_dir() {
        c.current_dir(dir);
    }
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    // It may end before it has read all this.
    let _ = console.send(WORK.repeat(2 * ROUNDS));
    let _ = console.send("q");
    let ended = console.wait(GUARD).expect("the machine ends");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("No space left") || ended.stderr.contains("full"),
        "it says what failed: {}",
        ended.stderr
    );
    let run = rig.replay(&rig.path("full"), &["--cpu-only"]).ended(exit::OK);
    assert!(whole.ended.text().starts_with("Hello") && run.ended.text().starts_with("Hello"));
}
