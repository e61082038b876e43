//! The guest's console on a real terminal: raw mode, Ctrl-a keys, and the terminal as it was afterwards.

use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use reprise_tests::{GUARD, Rig, exit};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A machine on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    slave: File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(c: &mut Command) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
        let copy = |f: &File| Stdio::from(f.try_clone().expect("a copy"));
        let (keys, slave) = (File::from(master), File::from(slave));
        let child = c.stdin(copy(&slave)).stdout(copy(&slave)).stderr(copy(&slave)).spawn().expect("start");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (keys.try_clone().expect("a copy"), seen.clone());
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buf) {
                into.lock().expect("held briefly").extend_from_slice(&buf[..n]);
            }
        });
        Self { child, keys, slave, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("held briefly")).into_owned()
    }

    fn expect(&self, what: &str) {
        let until = Instant::now() + GUARD;
        while !self.text().contains(what) {
            assert!(Instant::now() < until, "waiting for {what:?}: {}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("typed");
    }

    fn raw(&self) -> bool {
        !tcgetattr(self.slave.as_fd())
            .expect("a terminal")
            .local_flags
            .intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end: {}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[test]
fn keys_go_to_the_guest_and_ctrl_a_x_quits() {
    let rig = Rig::new();
    let mut c = rig.hello();
    c.arg(format!("--record={}", rig.path("r").display()));
    let mut t = Terminal::start(&mut c);
    assert!(!t.raw(), "a fresh terminal is not raw");
    t.expect("READY");
    assert!(t.raw(), "the guest gets every key");
    t.type_keys(b"k");
    t.expect("key k at ");
    // Ctrl-c is the guest's too.
    t.type_keys(b"\x03");
    t.expect("key \x03 at ");
    t.type_keys(b"\x01h");
    t.expect("Ctrl-a x");
    // Twice Ctrl-a is one for the guest.
    t.type_keys(b"\x01\x01");
    t.expect("key \x01 at ");
    t.type_keys(b"\x01x");
    assert_eq!(t.wait(), Some(exit::OK), "{}", t.text());
    assert!(!t.raw(), "the terminal is as it was");
    let replay = rig.replay(&rig.path("r"), &[]).ended(exit::OK);
    assert!(replay.ended.text().contains("key k at "), "{}", replay.ended.text());
}

#[test]
fn the_terminal_is_restored_when_the_guest_powers_off_and_when_a_signal_comes() {
    let rig = Rig::new();
    let mut t = Terminal::start(&mut rig.hello());
    t.expect("READY");
    t.type_keys(b"q");
    assert_eq!(t.wait(), Some(exit::OK), "{}", t.text());
    assert!(!t.raw());

    let mut t = Terminal::start(&mut rig.hello());
    t.expect("READY");
    assert!(t.raw());
    reprise_tests::process::signal(t.child.id(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(t.wait(), Some(exit::OK), "{}", t.text());
    assert!(!t.raw());
}
