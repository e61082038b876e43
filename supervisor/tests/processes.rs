//! The supervisor and its processes, with stand-ins for the children (`examples/fake_child.rs`): ends of every kind, and nothing left behind.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A folder with a supervisor, stand-ins for its children, a plugin and a machine.
struct Stage {
    dir: tempfile::TempDir,
}

const MACHINE: &str = r#"(
    name: "fake",
    cpu: (model: "cortex-a15", periphbase: 0x2c000000),
    memory: (base: 0x80000000, size: "1M"),
    gic: (dist: 0x1000, cpu: 0x2000, spis: 32),
    boot: image(file: "image.bin"),
    devices: [
        (name: "uart0", plugin: "fake", at: 0x1c090000, size: 0x1000, lines: {"irq": spi(5)}, backend: console, config: (x: 1)),
        (name: "timer", plugin: "fake", at: 0x1c110000, size: 0x1000),
    ],
)
"#;

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Path::new(env!("CARGO_BIN_EXE_supervisor"));
        let fake = supervisor.parent().unwrap().join("examples/fake_child");
        let place = |from: &Path, name: &str| std::fs::copy(from, dir.path().join(name)).map(drop).unwrap();
        place(supervisor, "supervisor");
        for name in ["cpu-proc", "device-proc", "log-daemon", "backend-proc"] {
            place(&fake, name);
        }
        std::fs::write(dir.path().join("libplugin_fake.so"), "bytes of a plugin\n").unwrap();
        std::fs::write(dir.path().join("image.bin"), "code").unwrap();
        std::fs::write(dir.path().join("m.ron"), MACHINE).unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, orders: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("supervisor"));
        command.args(args).current_dir(self.dir.path()).env("REPRISE_FAKE", orders);
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("REPRISE_DIR", self.path("recordings"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, orders: &str, args: &[&str]) -> Ended {
        Ended::of(self.command(orders, args).output().unwrap())
    }

    /// Nothing of any machine of this stage is left.
    fn assert_clean(&self) {
        let locks: Vec<_> = std::fs::read_dir(self.path("run")).unwrap().flatten().collect();
        let left = locks.iter().flat_map(|e| std::fs::read_dir(e.path()).unwrap().flatten()).count();
        assert_eq!(left, 0, "lock files are left");
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// The command lines of the processes that run a program of this stage.
    fn processes(&self) -> Vec<String> {
        let ours = |p: &std::fs::DirEntry| {
            std::fs::read_link(p.path().join("exe")).is_ok_and(|e| e.starts_with(self.dir.path()))
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(ours).map(|p| p.path().display().to_string()).collect()
    }

    /// The segments that this stage's lock files name.
    fn segments(&self) -> Vec<PathBuf> {
        let folder = self.path("run/reprise");
        let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
        let text: String = files.flatten().map(|f| std::fs::read_to_string(f.path()).unwrap_or_default()).collect();
        text.lines().map(|l| Path::new("/dev/shm").join(l)).filter(|p| p.exists()).collect()
    }
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn assert(&self, code: i32, err: &str) {
        assert!(self.code == Some(code) && self.err.contains(err), "expected {code} and `{err}`: {self:#?}");
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Reads until the text has come.
fn read_until(from: &mut (impl Read + AsFd), text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        // A terminal that this process has open as well does not end with the machine.
        let there = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], PollTimeout::from(30_000_u16)).unwrap();
        let n = if there == 1 { from.read(&mut byte).unwrap_or(0) } else { 0 };
        assert_eq!(n, 1, "only {:?} came", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn a_machine_runs_and_ends() {
    let stage = Stage::new();
    let ended = stage.run("", &["--config", "m.ron", "--report", "report.json"]);
    ended.assert(0, "the guest powered off after 1234 instructions");
    assert_eq!(ended.out, "plugin bytes of a plugin\n");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(stage.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["verdict"], "ran");
    assert_eq!((&report["instructions"], &report["guest_ns"]), (&1234.into(), &1_500_000_000.into()));
    assert_eq!(report["state_hash"], "77".repeat(32));
    assert_eq!(report["console_bytes"], 25);
    assert!(report["cpu_seconds"].as_f64().unwrap() > 0.0 && report["recording"].is_null());
    stage.assert_clean();
}

#[test]
fn a_recording_holds_all_that_its_replay_needs() {
    let stage = Stage::new();
    stage.run("", &["--config", "m.ron", "--record=rec", "--report", "a.json"]).assert(0, "recorded 99 bytes in ");
    for gone in ["m.ron", "image.bin", "libplugin_fake.so"] {
        std::fs::remove_file(stage.path(gone)).unwrap();
    }
    for args in [&["replay", "--report", "b.json"][..], &["replay", "rec", "--cpu-only", "--report", "c.json"]] {
        let ended = stage.run("", args);
        ended.assert(0, "replay: exact, 1234 instructions\n");
        assert_eq!(ended.out.is_empty(), args.contains(&"--cpu-only"), "the stand-in for log-daemon prints nothing");
    }
    let report = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(stage.path(name)).unwrap()).unwrap()
    };
    let (a, b, c) = (report("a.json"), report("b.json"), report("c.json"));
    assert_eq!((&a["verdict"], &b["verdict"], &c["verdict"]), (&"recorded".into(), &"exact".into(), &"exact".into()));
    for key in ["instructions", "state_hash", "device_hash", "console_hash", "console_bytes", "guest_ns", "recording"] {
        assert_eq!(a[key], b[key], "{key}");
        assert!(key == "device_hash" || a[key] == c[key], "{key}");
    }
    assert!(c["device_hash"].is_null());
    stage.run("", &["--config", "m.ron"]).assert(3, "there is no such machine file");
    stage.assert_clean();
}

#[test]
fn a_replay_that_differs_is_told() {
    let stage = Stage::new();
    stage.run("", &["--config", "m.ron", "--record=rec"]).assert(0, "");
    stage.run("cpu=other", &["replay", "rec"]).assert(5, "state hash at the end: recorded 7777");
    stage.run("uart0=other", &["replay", "rec"]).assert(5, "device hash at the end");
    stage.run("cpu=diverge", &["replay", "rec", "--cpu-only"]).assert(5, "expected 1, actual 2");
    let ended = stage.run("", &["--config", "m.ron", "--record=rec"]);
    ended.assert(2, "the directory is not empty");
    stage.assert_clean();
}

#[test]
fn a_child_that_dies_again_and_again() {
    let stage = Stage::new();
    let all = "--config m.ron --record";
    let args: Vec<&str> = all.split(' ').collect();
    let gone = |orders: &str, says: &[&str]| {
        let mut child = stage.command(orders, &args).spawn().unwrap();
        let said = read_until(child.stderr.as_mut().unwrap(), "; the machine goes on");
        assert!(says.iter().all(|s| said.contains(s)), "{orders}: {said}");
        signal(&child, Signal::SIGTERM);
        Ended::of(child.wait_with_output().unwrap()).assert(0, "the machine was ended");
    };
    let six = "6 deaths without a completed request: the guest finds nothing in the place of";
    gone("cpu=wait,uart0=abort", &["the process of uart0 was killed by SIGABRT unexpectedly", six]);
    gone("cpu=wait,timer=exit", &["the process of timer exited with 3 unexpectedly", six]);
    gone("cpu=wait,timer=open", &["timer made a system call that its sandbox forbids: openat (", six]);
    // Not even what would stand in for it lives.
    stage
        .run("cpu=wait,uart0=mortal", &args)
        .assert(6, "the process of uart0 was killed by SIGABRT unexpectedly; the recording ");
    stage.run("cpu=panic", &args).assert(6, "cpu: internal error: panicked at");
    stage.run("cpu=wait,log=fail", &args).assert(6, "the process of log exited with 1 again and again: told to fail");
    stage.assert_clean();
}

#[test]
fn a_child_that_is_killed_ends_the_machine() {
    let stage = Stage::new();
    let child = stage.command("cpu=wait", &["--config", "m.ron"]).spawn().unwrap();
    let victim = || {
        stage
            .processes()
            .into_iter()
            .find(|p| std::fs::read(Path::new(p).join("cmdline")).is_ok_and(|c| c.starts_with(b"cpu-proc [cpu]")))
    };
    let mut found = None;
    wait_for("the start of cpu", || {
        found = victim();
        found.is_some()
    });
    let pid: i32 = found.unwrap().rsplit('/').next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    Ended::of(child.wait_with_output().unwrap()).assert(6, "cpu was killed by SIGKILL");
    stage.assert_clean();
}

#[test]
fn a_full_disk_ends_the_machine() {
    let stage = Stage::new();
    let ended = stage.run("cpu=wait,log=full", &["--config", "m.ron", "--record=rec"]);
    ended.assert(1, "could not be completed: no space left on device; what was written is good");
    stage.assert_clean();
}

#[test]
fn signals_end_the_machine_in_good_order() {
    let stage = Stage::new();
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut child = stage.command("cpu=wait", &["--config", "m.ron", "--record"]).spawn().unwrap();
        read_until(child.stdout.as_mut().unwrap(), "plugin");
        assert_eq!(stage.segments().len(), 3);
        signal(&child, which);
        Ended::of(child.wait_with_output().unwrap()).assert(0, "the machine was ended after 1234 instructions");
        stage.assert_clean();
    }
}

#[test]
fn a_second_signal_ends_what_does_not_listen() {
    let stage = Stage::new();
    let mut child = stage.command("cpu=deaf", &["--config", "m.ron"]).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "plugin");
    signal(&child, Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, Signal::SIGINT);
    Ended::of(child.wait_with_output().unwrap()).assert(6, "ended by force");
    stage.assert_clean();
}

#[test]
fn a_killed_supervisor_takes_its_children_along_and_is_swept_up_after() {
    let stage = Stage::new();
    let mut child = stage.command("cpu=wait", &["--config", "m.ron", "--record"]).spawn().unwrap();
    read_until(child.stdout.as_mut().unwrap(), "plugin");
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    wait_for("the children's end", || stage.processes().is_empty());
    let segments = stage.segments();
    assert_eq!(segments.len(), 3);
    stage.run("", &["replay", "nothing"]).assert(4, "nothing");
    assert!(segments.iter().all(|s| !s.exists()));
    stage.assert_clean();
}

#[test]
fn input_from_a_pipe_reaches_the_guest_and_its_end_changes_nothing() {
    let stage = Stage::new();
    let mut child = stage.command("cpu=wait,uart0=echo", &["--config", "m.ron"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\x01x\x03hi and more").unwrap();
    read_until(child.stdout.as_mut().unwrap(), "got \x01x\x03hi");
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "the end of stdin is not the machine's");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reboot_ends_or_starts_anew() {
    let stage = Stage::new();
    stage.run("cpu=reset", &["--config", "m.ron"]).assert(0, "the guest rebooted");
    let mut child =
        stage.command("cpu=reset", &["--config", "m.ron", "--record=rec", "--reboot", "restart"]).spawn().unwrap();
    wait_for("the third life", || stage.path("rec-3/manifest.ron").exists());
    signal(&child, Signal::SIGTERM);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    child.wait().unwrap();
    assert!(err.contains("starts anew, in a new recording: ") && err.contains("rec-2"), "{err}");
    stage.run("cpu=reset", &["replay", "rec-2"]).assert(0, "exact");
}

#[test]
fn what_a_device_says_at_its_start_points_into_the_file() {
    let stage = Stage::new();
    stage.run("uart0=bad-config", &["--config", "m.ron"]).assert(3, "m.ron:8:122: uart0: no such baud rate; ");
    stage
        .run("timer=bad-plugin", &["--config", "m.ron"])
        .assert(3, "m.ron:9:33: timer: the plugin has ABI version 99; ");
    stage.run("", &["--config", "m.ron", "--kernel", "none"]).assert(3, "--kernel: none: No such file");
    std::fs::write(stage.path("m.ron"), MACHINE.replace("\"irq\"", "\"irk\"")).unwrap();
    stage
        .run("", &["--config", "m.ron"])
        .assert(3, "m.ron:8:79: \"uart0\" has no output pin \"irk\"; its output pins are: irq");
    std::fs::remove_file(stage.path("libplugin_fake.so")).unwrap();
    stage
        .run("", &["--config", "m.ron"])
        .assert(3, "m.ron:8:33: there is no plugin \"fake\"; build or install it: looked for ");
    std::fs::remove_file(stage.path("image.bin")).unwrap();
    stage.run("", &["--config", "m.ron"]).assert(3, "m.ron:6:23: image.bin: No such file");
    std::fs::create_dir(stage.path("image.bin")).unwrap();
    stage.run("", &["--config", "m.ron"]).assert(3, "image.bin is no file");
    stage.assert_clean();
}

#[test]
fn usage() {
    let stage = Stage::new();
    stage.run("", &[]).assert(2, "--config");
    stage.run("", &["--config", "m.ron", "--memory", "12Q"]).assert(2, "is no size");
    stage.run("", &["--config", "m.ron", "--engine", "tcg"]).assert(2, "--engine");
    stage.run("", &["replay", "--kernel", "x"]).assert(2, "--kernel");
    stage.run("", &["replay"]).assert(4, "no recording found");
}

#[test]
fn the_terminal_is_raw_while_the_guest_has_it() {
    let stage = Stage::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let mut command = stage.command("cpu=wait,uart0=echo", &["--config", "m.ron"]);
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    command.stdin(end()).stdout(end()).stderr(Stdio::piped());
    // SAFETY: both calls are async-signal-safe; 0 is the new terminal by then.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    let mode = || nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let raw = || !mode().local_flags.contains(nix::sys::termios::LocalFlags::ICANON);
    wait_for("raw mode", raw);
    let mut master = std::fs::File::from(pty.master.as_fd().try_clone_to_owned().unwrap());
    master.write_all(b"\x01\x01\x03ab\x1a").unwrap();
    read_until(&mut master, "got \x01\x03ab\x1a");
    assert!(raw());
    master.write_all(b"\x01h\x01x").unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    ended.assert(0, "the machine was ended");
    assert!(ended.err.contains("Ctrl-a x"), "{ended:?}");
    assert_eq!(mode(), before);
    stage.assert_clean();
}

#[test]
fn a_network_has_a_process_that_is_watched() {
    let stage = Stage::new();
    let text = MACHINE.replace("at: 0x1c110000, size: 0x1000", "at: 0x1c110000, size: 0x1000, backend: net");
    std::fs::write(stage.path("m.ron"), text).unwrap();
    let run = |orders: &str, net: &[&str]| stage.run(orders, &[&["--config", "m.ron"], net].concat());
    run("", &[]).assert(0, "");
    // One that never lives for long is given up; the machine is not.
    let without = |orders: &str, net: &[&str], says: &str| {
        let mut child = stage.command(orders, &[&["--config", "m.ron"], net].concat()).spawn().unwrap();
        let said = read_until(child.stderr.as_mut().unwrap(), "is without a network from now on");
        assert!(said.contains(says), "{said}");
        signal(&child, Signal::SIGTERM);
        Ended::of(child.wait_with_output().unwrap()).assert(0, "the machine was ended");
    };
    without("timer net=abort,cpu=wait", &[], "the process of timer net was killed by SIGABRT");
    without("timer net=open,cpu=wait", &["--net", "timer=user,reach=all,dns=none"], "timer net made a system call");
    // Without a network there is no process that could do as it is told.
    run("timer net=abort", &["--net", "timer=none"]).assert(0, "");
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("timer=user,hostfwd=tcp:{}-:22", held.local_addr().unwrap());
    run("", &["--net", &forward]).assert(2, "; give another port, or end what uses this one");
    run("", &["--net", "uart0=user"]).assert(2, "there is no device uart0 with `backend: net`; give one of timer");
    run("", &["--net", "timer=user", "--net", "timer=none"]).assert(2, "timer has a network already");
    run("", &["--net", "timer=lan"]).assert(2, "`lan` is no network; say NAME=user, NAME=tap:IFNAME or NAME=none");
    run("", &["--record", "--net", "timer=user"]).assert(0, "");
    run("timer net=abort", &["--net", "timer=none"]).assert(0, "");
    let replay = stage.run("timer net=abort", &["replay"]);
    assert!(!replay.err.contains("timer net"), "a replay has no network: {replay:#?}");
    stage.assert_clean();
}
