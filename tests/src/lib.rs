//! What the whole-machine tests share: a folder of their own, the staged supervisor, a guest, processes.
//!
//! The tests run the machine as a user does, from outside. They wait for what must happen; a guard only keeps a hung machine from
//! hanging the suite.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use xtask::console::{Console, Ended};
use xtask::guest::Guest;

pub use xtask::process;

pub mod network;

/// How long anything may take before it counts as hung.
pub const GUARD: Duration = Duration::from_secs(180);
/// The same for a whole Linux boot, on a busy machine.
pub const LONG_GUARD: Duration = Duration::from_secs(900);

/// Exit codes (DESIGN section 7).
pub mod exit {
    /// Ended well; a replay matched.
    pub const OK: i32 = 0;
    /// Wrong command line.
    pub const USAGE: i32 = 2;
    /// Bad configuration.
    pub const CONFIG: i32 = 3;
    /// Bad recording.
    pub const RECORDING: i32 = 4;
    /// The replay diverged.
    pub const DIVERGED: i32 = 5;
    /// A child died for good.
    pub const CHILD: i32 = 6;
}

/// The staged build: `REPRISE_PREFIX`, which `cargo xtask test` sets; else it is built here.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| match std::env::var_os("REPRISE_PREFIX") {
        Some(p) => PathBuf::from(p),
        None => xtask::install::stage()
            .unwrap_or_else(|e| panic!("the machine does not build ({e:#}); `cargo xtask test` does it all")),
    })
}

/// The newer version of a plugin.
///
/// # Panics
/// If it does not build.
pub fn newer_plugin(name: &str) -> PathBuf {
    xtask::install::newer_plugin(name).unwrap_or_else(|e| panic!("{e:#}"))
}

/// Whether `cargo xtask test --slow` runs.
pub fn slow() -> bool {
    std::env::var_os("REPRISE_SLOW").is_some()
}

/// The Linux guest; made if it is not cached yet.
///
/// # Panics
/// If this system can't make it.
pub fn guest() -> &'static Guest {
    static GUEST: OnceLock<Guest> = OnceLock::new();
    GUEST.get_or_init(|| {
        let dir = std::env::var_os("REPRISE_GUEST").map_or_else(xtask::guest::default_dir, PathBuf::from);
        xtask::guest::ensure(&dir, false).unwrap_or_else(|e| {
            panic!("this test boots Linux and there is no guest: {e:#}. `cargo xtask guest` makes it")
        })
    })
}

/// A test's own folder: recordings, runtime files and configuration of its machines, apart from those of other tests.
pub struct Rig {
    dir: TempDir,
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// An empty folder.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("reprise-test-").tempdir().expect("a temporary folder");
        for d in ["recordings", "run", "config", "data"] {
            fs::create_dir(dir.path().join(d)).expect("a folder");
        }
        Self { dir }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program of the staged build, in this rig's environment.
    pub fn program(&self, name: &str) -> Command {
        let mut c = Command::new(prefix().join("bin").join(name));
        c.env("REPRISE_DIR", self.path("recordings"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env_remove("RUST_LOG")
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.dir.path());
        c
    }

    /// The supervisor.
    pub fn supervisor(&self) -> Command {
        self.program("supervisor")
    }

    /// The bare-metal machine.
    pub fn hello(&self) -> Command {
        let mut c = self.supervisor();
        c.args(["--config", "machines/hello.ron", "--clock", "warp"]);
        c
    }

    /// Linux on the Versatile Express.
    pub fn linux(&self, append: &str) -> Command {
        self.linux_of(guest(), append)
    }

    /// The same, with the modules for disks, cards, networks and file systems.
    pub fn linux_virtio(&self, append: &str) -> Command {
        let guest = guest();
        self.linux_of(&Guest { initrd: guest.virtio_initrd.clone(), ..guest.clone() }, append)
    }

    /// The kernel with long translation descriptors on the same board.
    pub fn linux_lpae(&self, append: &str) -> Command {
        let guest = xtask::guest::ensure_lpae(&guest().dir)
            .unwrap_or_else(|e| panic!("no kernel with LPAE: {e:#}. `cargo xtask guest --lpae` makes it"));
        let kernel = guest.kernel_lpae.clone().expect("it was just made");
        self.linux_of(&Guest { kernel, ..guest }, append)
    }

    /// Linux on the Versatile Express with a Cortex-A9.
    pub fn linux_a9(&self, append: &str) -> Command {
        self.linux_a9_of(guest(), append)
    }

    /// The same, with the modules for disks, cards, networks and file systems.
    pub fn linux_a9_virtio(&self, append: &str) -> Command {
        let guest = guest();
        self.linux_a9_of(&Guest { initrd: guest.virtio_initrd.clone(), ..guest.clone() }, append)
    }

    fn linux_a9_of(&self, guest: &Guest, append: &str) -> Command {
        let mut c = self.supervisor();
        c.args(xtask::demo::linux_a9_args(guest, append)).args(["--clock", "warp"]);
        c
    }

    /// A disk image in which every word differs.
    pub fn image(&self, name: &str, bytes: usize) -> PathBuf {
        let data: Vec<u8> = (0..bytes / 4).flat_map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        let path = self.path(name);
        fs::write(&path, data).expect("written");
        path
    }

    /// Records a machine that ends by itself.
    pub fn record(&self, name: &str, mut c: Command) -> Run {
        let (recording, report) = (self.path(name), self.path(&format!("{name}.json")));
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.close_input();
        Run::new(recording, console.wait(LONG_GUARD).expect("it powers off"), &report).ended(exit::OK)
    }

    fn linux_of(&self, guest: &Guest, append: &str) -> Command {
        let mut c = self.supervisor();
        c.args(xtask::demo::linux_args(guest, &format!("{} {append}", xtask::demo::APPEND))).args(["--clock", "warp"]);
        c
    }

    /// Records hello: types `keys` once it is ready, and waits for its end (so `keys` ends with `q`).
    pub fn record_hello(&self, name: &str, keys: &str) -> Run {
        let recording = self.path(name);
        let report = self.path(&format!("{name}.json"));
        let mut c = self.hello();
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("READY", GUARD).expect("hello is ready");
        console.send(keys).expect("type");
        Run::new(recording, console.wait(GUARD).expect("hello ends"), &report).ended(exit::OK)
    }

    /// Replays a recording.
    pub fn replay(&self, recording: &Path, args: &[&str]) -> Run {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let report = self.path(&format!("replay-{}.json", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let mut c = self.supervisor();
        c.arg("replay").arg(recording).args(args).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.close_input();
        Run::new(recording.to_owned(), console.wait(LONG_GUARD).expect("the replay ends"), &report)
    }

    /// `vmctl` of this rig's machine: this user may have others, which are found too.
    pub fn operator(&self, args: &[&str]) -> Command {
        let sockets = fs::read_dir(self.path("run/reprise")).into_iter().flatten().flatten();
        let mut uuids = sockets.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".sock")?.to_owned()));
        let mut c = self.program("vmctl");
        c.arg("--machine").arg(uuids.next().unwrap_or_else(|| "none".into())).args(args);
        c
    }

    /// `vmctl` of the machine of this rig; its answer.
    ///
    /// # Panics
    /// If it is no JSON.
    pub fn vmctl(&self, args: &[&str]) -> Value {
        let out = self.output(self.operator(args).arg("--json"));
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("vmctl {args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// Runs a command to its end.
    pub fn output(&self, c: &mut Command) -> Output {
        c.stdin(std::process::Stdio::null()).output().unwrap_or_else(|e| panic!("{c:?}: {e}"))
    }

    /// A copy of a recording, to be damaged.
    pub fn copy(&self, recording: &Path, name: &str) -> PathBuf {
        let to = self.path(name);
        copy_tree(recording, &to);
        to
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// Its recording.
    pub recording: PathBuf,
    /// What it left.
    pub ended: Ended,
    /// Its report, `Null` if it wrote none.
    pub report: Value,
}

impl Run {
    fn new(recording: PathBuf, ended: Ended, report: &Path) -> Self {
        let report = xtask::demo::report(report).unwrap_or(Value::Null);
        Self { recording, ended, report }
    }

    /// Checks the exit code.
    ///
    /// # Panics
    /// If it is another, with all that the run said.
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(
            self.ended.status.code(),
            Some(code),
            "the run ended with {} instead of {code}; it said\n{}\nand its console\n{}",
            self.ended.status,
            self.ended.stderr,
            self.ended.text()
        );
        self
    }

    /// Checks that this replay is exact and the same as `recorded`.
    ///
    /// # Panics
    /// If it is not.
    pub fn exact(self, recorded: &Run) -> Self {
        let run = self.ended(exit::OK);
        assert_eq!(run.report["verdict"], "exact", "{}", run.ended.stderr);
        for key in ["instructions", "state_hash", "console_hash", "console_bytes", "guest_ns"] {
            assert_eq!(run.report[key], recorded.report[key], "{key} differs");
        }
        assert_eq!(run.ended.text(), recorded.ended.text(), "the console shows something else");
        run
    }

    /// A field of the report as text.
    pub fn field(&self, name: &str) -> &str {
        self.report[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.report))
    }
}

/// The MD5 sum of a file, as `md5sum` prints it.
///
/// # Panics
/// If there is no such file, or no such program.
pub fn md5(path: &Path) -> String {
    let out = Command::new("md5sum").arg(path).output().expect("md5sum");
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().expect("a sum").to_owned()
}

/// Copies a folder.
///
/// # Panics
/// If it can't.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// All files of a folder and those in it, sorted.
///
/// # Panics
/// If it can't be read.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.is_symlink() {
            all.push(path);
        }
    }
    all.sort();
    all
}
