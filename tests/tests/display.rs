//! The screen, the keyboard and the mouse with the real guest's own drivers: what the kernel draws is what viewers and picture files show, what people
//! type arrives, and all of it replays.

use nix::sys::signal::Signal;
use reprise_tests::process::{children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, guest, slow};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::console::Console;

#[path = "../../device-procs/display/tests/common/viewer.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with tests that use all of it")]
mod viewer;
use viewer::Viewer;

/// Runs `vmctl`, which must succeed.
fn vmctl(rig: &Rig, args: &[&str]) {
    let out = rig.output(&mut rig.operator(args));
    assert!(out.status.success(), "vmctl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A picture file: width and pixels.
fn png(path: &Path) -> (usize, Vec<[u8; 3]>) {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut bytes).expect("pixels");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.width as usize, bytes.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect())
}

/// A machine with a screen, recorded, at its shell's prompt.
struct Machine<'a> {
    rig: &'a Rig,
    console: Console,
    recording: PathBuf,
    report: PathBuf,
}

impl<'a> Machine<'a> {
    fn start(rig: &'a Rig, mut c: Command, name: &str, display: &str) -> Self {
        let (recording, report) = (rig.path(name), rig.path(&format!("{name}.json")));
        c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        c.args(["--display", display, "--screendump"]).arg(rig.path(&format!("{name}.png")));
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("GUEST READY", LONG_GUARD).expect("it boots");
        // What is typed before the shell has the terminal may be lost.
        console.expect("# ", LONG_GUARD).expect("a prompt");
        Self { rig, console, recording, report }
    }

    /// Runs a command in the guest, until it has said something.
    fn run(&mut self, command: &str, says: &str) {
        self.console.send(format!("{command}\n")).expect("typed");
        self.console.expect(says, LONG_GUARD).expect("it runs");
    }

    fn end(mut self) -> Run {
        self.console.send("poweroff -f\n").expect("typed");
        let ended = self.console.wait(LONG_GUARD).expect("it powers off");
        let report = xtask::demo::report(&self.report).expect("a report");
        Run { recording: self.recording, ended, report }.ended(exit::OK)
    }

    /// Ends the machine and replays it, with and without devices: exact, and with the same picture at the end.
    fn end_and_replay(self) -> Run {
        let rig = self.rig;
        let run = self.end();
        let last = fs::read(run.recording.with_extension("png")).expect("the last picture");
        for (n, how) in [&[][..], &["--cpu-only"]].into_iter().enumerate() {
            let picture = rig.path(&format!("replay{n}.png"));
            let args = [how, &["--screendump", picture.to_str().expect("text")]].concat();
            rig.replay(&run.recording, &args).exact(&run);
            assert!(fs::read(&picture).expect("a picture") == last, "the replay {how:?} shows another picture");
        }
        run
    }
}

/// What the guest draws: all bytes of the screen are 0xf8. In 5:6:5 pixels these are 31 of red, 7 of green and 24 of blue.
const DRAW: &str = "echo 0 > /sys/class/graphics/fbcon/cursor_blink; cat /proc/fb; head -c 2000000 /dev/zero | tr '\\0' '\\370' > /dev/fb0; echo DRA''WN";
const DRAWN: [u8; 3] = [255, 28, 197];
/// Lines at the top where the kernel's console may have its cursor.
const CURSOR: usize = 32;

fn shows_what_was_drawn(width: usize, pixels: &[[u8; 3]]) {
    let other = pixels[CURSOR * width..].iter().position(|p| *p != DRAWN);
    assert_eq!(other.map(|at| (at % width, CURSOR + at / width, pixels[at + CURSOR * width])), None);
}

#[test]
fn the_kernel_draws_and_replays_show_the_same() {
    let rig = Rig::new();
    let mut machine = Machine::start(&rig, rig.linux("vt.global_cursor_default=0"), "a15", "headless");
    let dark = rig.path("dark.png");
    vmctl(&rig, &["screendump", dark.to_str().expect("text")]);
    machine.run(DRAW, "CLCD FB");
    machine.console.expect("DRAWN", LONG_GUARD).expect("it draws");
    let file = rig.path("drawn.png");
    vmctl(&rig, &["screendump", file.to_str().expect("text"), "clcd"]);
    let (width, pixels) = png(&file);
    assert_eq!((width, pixels.len()), (640, 640 * 480));
    shows_what_was_drawn(width, &pixels);
    let (_, before) = png(&dark);
    assert!(before.len() == pixels.len() && before != pixels);
    // What can't be: no such device, no such folder.
    for args in [["screendump", "/no/such/folder/x.png", "clcd"], ["screendump", "x.png", "uart0"]] {
        assert!(!rig.output(&mut rig.operator(&args)).status.success(), "{args:?}");
    }
    // The process that takes pictures is killed: there is another one for the next.
    let shower = children(machine.console.pid()).into_iter().find(|c| c.command.contains("display")).expect("it runs");
    signal(shower.pid, Signal::SIGKILL);
    vmctl(&rig, &["screendump", file.to_str().expect("text")]);
    assert!(png(&file) == (width, pixels));
    machine.end_and_replay();
}

#[test]
fn the_other_board_has_its_display_on_the_tile() {
    let rig = Rig::new();
    let mut machine = Machine::start(
        &rig,
        rig.linux_a9(&format!("{} vt.global_cursor_default=0", xtask::demo::APPEND)),
        "a9",
        "headless",
    );
    machine.run(DRAW, "DRAWN");
    let file = rig.path("drawn.png");
    vmctl(&rig, &["screendump", file.to_str().expect("text")]);
    let (width, pixels) = png(&file);
    assert_eq!((width, pixels.len()), (800, 800 * 600));
    shows_what_was_drawn(width, &pixels);
    machine.end_and_replay();
}

/// What evdev says of an event: type, code, value, as `hexdump` shows the bytes behind the time.
fn evdev(kind: u8, code: u16, value: i32) -> String {
    let bytes = [&[kind, 0][..], &code.to_le_bytes(), &value.to_le_bytes()].concat();
    bytes.iter().map(|b| format!(" {b:02x}")).collect()
}

/// Starts to show the events of an input device.
fn listen(machine: &mut Machine<'_>, what: &str, says: &str) {
    let dump = "hexdump -v -e '16/1 \" %02x\" \"\\n\"'";
    let find = format!("grep -l '{what}' /sys/class/input/event*/device/name | cut -d/ -f5");
    let wait = format!("while [ -z \"$({find})\" ]; do sleep 0.1; done");
    machine.run(
        &format!("{wait}; {dump} < /dev/input/$({find}) & sleep 0.2; echo LISTENS-''{says}"),
        &format!("LISTENS-{says}"),
    );
}

#[test]
fn keys_and_the_mouse_arrive() {
    let rig = Rig::new();
    let socket = rig.path("vnc");
    let c = rig.linux("mods=ambakmi,psmouse,evdev vt.global_cursor_default=0");
    let mut machine = Machine::start(&rig, c, "keys", &format!("vnc=unix:{}", socket.display()));
    listen(&mut machine, "keyboard", "KEYS");
    listen(&mut machine, "Mouse", "MOVES");
    vmctl(&rig, &["send-key", "shift-a", "--text", "b"]);
    for (code, down) in [(42, 1), (30, 1), (30, 0), (42, 0), (48, 1), (48, 0)] {
        machine.console.expect(&evdev(1, code, down), GUARD).expect("the key arrives");
    }
    let mut viewer = Viewer::connect(UnixStream::connect(&socket).expect("a server"), b"RFB 003.008\n").expect("RFB");
    assert_eq!((viewer.width, viewer.height, viewer.name.as_str()), (640, 480, "vexpress-a15"));
    viewer.set_encodings(&[16, 5, 0, -223]).expect("sent");
    viewer.update(false).expect("an update");
    for down in [true, false] {
        viewer.key(0xff0d, down).expect("sent");
        machine.console.expect(&evdev(1, 28, down.into()), GUARD).expect("the key arrives");
    }
    viewer.pointer(0, 100, 100).expect("sent");
    viewer.pointer(0, 103, 95).expect("sent");
    machine.console.expect(&evdev(2, 0, 3), GUARD).expect("the mouse moves");
    machine.console.expect(&evdev(2, 1, -5), GUARD).expect("the mouse moves");
    viewer.pointer(1, 103, 95).expect("sent");
    machine.console.expect(&evdev(1, 0x110, 1), GUARD).expect("its button is down");
    // The processes of display, screen, keyboard and mouse are killed: guest and people go on.
    let killed: Vec<_> = children(machine.console.pid())
        .into_iter()
        .filter(|c| ["[display]", "[clcd]", "[keyboard]", "[mouse]"].iter().any(|name| c.command.contains(name)))
        .collect();
    assert_eq!(killed.len(), 4, "{killed:?}");
    killed.iter().for_each(|c| signal(c.pid, Signal::SIGKILL));
    vmctl(&rig, &["send-key", "c"]);
    machine.console.expect(&evdev(1, 46, 0), GUARD).expect("a key arrives");
    machine.run(DRAW, "DRAWN");
    // Viewers come again to the same place.
    let mut viewer = None;
    wait_for("the display to come back", GUARD, || {
        viewer = UnixStream::connect(&socket).ok().and_then(|s| Viewer::connect(s, b"RFB 003.003\n").ok());
        viewer.is_some()
    });
    let mut viewer = viewer.expect("connected");
    viewer.set_encodings(&[5]).expect("sent");
    viewer.update(false).expect("an update");
    shows_what_was_drawn(viewer.width, &viewer.pixels);
    viewer.key(0x64, true).expect("sent");
    machine.console.expect(&evdev(1, 32, 1), GUARD).expect("a key arrives");
    viewer.key(0x64, false).expect("sent");
    machine.console.expect(&evdev(1, 32, 0), GUARD).expect("a key arrives");
    let run = machine.end_and_replay();
    for seed in 1..=if slow() { 10 } else { 1 } {
        let seed = seed.to_string();
        rig.replay(&run.recording, &["--jitter", &seed]).exact(&run);
        rig.replay(&run.recording, &["--cpu-only", "--jitter", &seed]).exact(&run);
    }
    // A viewer of a replay looks on; nothing else is to be seen here, as a replay is soon over.
    assert!(!socket.exists(), "the socket goes with its machine");
}

#[test]
fn the_power_key_of_the_virt_board_arrives() {
    let rig = Rig::new();
    let mut c = rig.supervisor();
    c.args(["--config", "machines/virt.ron", "--clock", "warp", "--kernel"]).arg(&guest().kernel);
    c.arg("--initrd").arg(&guest().initrd).args(["--append", "console=ttyAMA0 quiet mods=evdev"]);
    let recording = rig.path("virt");
    let report = rig.path("virt.json");
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let console = Console::start(&mut c, false).expect("start");
    let mut machine = Machine { rig: &rig, console, recording, report };
    machine.console.expect("GUEST READY", LONG_GUARD).expect("it boots");
    machine.console.expect("# ", LONG_GUARD).expect("a prompt");
    listen(&mut machine, "gpio-keys", "POWER");
    vmctl(&rig, &["send-key", "power"]);
    machine.console.expect(&evdev(1, 116, 1), GUARD).expect("the key is down");
    machine.console.expect(&evdev(1, 116, 0), GUARD).expect("the key is up");
    // This board has no other keys, and no screen.
    for args in [["send-key", "a"], ["screendump", "x.png"]] {
        assert!(!rig.output(&mut rig.operator(&args)).status.success(), "{args:?}");
    }
    let run = machine.end();
    rig.replay(&run.recording, &["--jitter", "3"]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}
