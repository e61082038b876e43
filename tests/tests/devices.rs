//! The small devices of the board with the real guest's own drivers: keyboard, mouse, I2C, DMA controller.

use std::time::Duration;

use reprise_tests::{LONG_GUARD, Rig, Run, exit, guest, prefix};
use xtask::console::Console;

/// The Versatile Express with some text of its machine file changed, and a run of it that is recorded.
fn record(rig: &Rig, changes: &[(&str, &str)], append: &str) -> (Console, Box<dyn FnOnce(Console) -> Run>) {
    let mut text = std::fs::read_to_string(prefix().join("share/reprise/configs/machines/vexpress.ron")).expect("read");
    for (from, to) in changes {
        assert!(text.contains(from), "the machine file does not say {from}");
        text = text.replace(from, to);
    }
    let machine = rig.path("board.ron");
    std::fs::write(&machine, text).expect("written");
    let mut args = xtask::demo::linux_args(guest(), &format!("{} {append}", xtask::demo::APPEND));
    args[1] = machine.display().to_string();
    let (recording, report) = (rig.path("board"), rig.path("board.json"));
    let mut c = rig.supervisor();
    c.args(args).args(["--clock", "warp"]);
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let console = Console::start(&mut c, false).expect("start");
    let end = move |console: Console| {
        let ended = console.wait(LONG_GUARD).expect("it powers off");
        let report = xtask::demo::report(&report).expect("a report");
        Run { recording, ended, report }.ended(exit::OK)
    };
    (console, Box::new(end))
}

#[test]
fn the_kernels_own_drivers_find_them() {
    let rig = Rig::new();
    // The monitor on the bus itself, as without a program for it nothing asks the transmitter for its display data channel.
    let monitor = [("sii9022(at: 0x39)", "sii9022(at: 0x39), edid(at: 0x50)")];
    let (console, end) = record(&rig, &monitor, "run=input,i2c,log");
    let run = end(console);
    let text = run.ended.text();
    for what in [
        "N: Name=\"AT Raw Set 2 keyboard\"",
        "N: Name=\"ImExPS/2 Generic Explorer Mouse\"",
        "Versatile I2C adapter",
        "00000000  00 ff ff ff ff ff ff 00  4a 13 00 04 01 00 00 00",
        "dma-pl330 7ffb0000.dma: Loaded driver for PL330 DMAC-341330",
        "Num_Chans-8 Num_Peri-0 Num_Events-4",
        "kmi-pl050",
    ] {
        assert!(text.contains(what), "{what:?} is not in {text}");
    }
    for what in ["failed with error", "timeout", "timed out", "nobody cared", "modprobe:"] {
        let lines: Vec<&str> = text.lines().filter(|l| l.contains(what) && !l.contains("clcd-pl11x")).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
    rig.replay(&run.recording, &[]).exact(&run);
}

/// An event of a key for the keyboard's port: type, code and value.
fn key(code: u8, value: u8) -> [u8; 8] {
    [1, 0, code, 0, value, 0, 0, 0]
}

#[test]
fn a_key_reaches_the_kernel_and_its_led_comes_back() {
    let rig = Rig::new();
    // The keyboard's port where else the console is.
    let keyboard = [
        ("lines: { \"irq\": spi(5) }, backend: console", "lines: { \"irq\": spi(5) }, backend: null"),
        ("backend: keyboard", "backend: console"),
    ];
    let (mut console, end) = record(&rig, &keyboard, "mods=ambakmi sysrq_always_enabled=1");
    // What is typed before there is a driver is lost, so Num Lock is pressed until its LED changes.
    let (num_lock, tries) = ([key(69, 1), key(69, 0)].concat(), LONG_GUARD.as_secs());
    let lit = (0..tries).any(|_| {
        console.send(&num_lock).expect("typed");
        console.expect("\x11\0\0\0\x01\0\0\0", Duration::from_secs(1)).is_ok()
    });
    assert!(lit, "the LED stays dark: {}", console.messages());
    // Alt+SysRq+O: the kernel itself powers off.
    console.send([key(56, 1), key(99, 1), key(24, 1), key(24, 0), key(99, 0), key(56, 0)].concat()).expect("typed");
    let run = end(console);
    rig.replay(&run.recording, &[]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}
