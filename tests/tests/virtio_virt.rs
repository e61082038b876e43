//! Virtio's console and entropy source in slots of the `virt` board, under the kernel's own drivers.

use nix::sys::signal::Signal;
use reprise_tests::process::{children, signal, wait_for};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, guest, md5, prefix};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use xtask::console::Console;

/// Bytes that go each way over the console.
const SENT: usize = 64 << 10;

/// The board with both in its first slots.
fn board(rig: &Rig) -> Command {
    let original = fs::read_to_string(prefix().join("share/reprise/configs/machines/virt.ron")).expect("installed");
    let devices = r#"devices: [
        (
            name: "con0", plugin: "virtio-console", at: 0x0a000000, size: 0x200, lines: { "irq": spi(16) }, dma: ram,
            backend: serial, config: (ports: ["org.reprise.0"]),
        ),
        (
            name: "rng0", plugin: "virtio-rng", at: 0x0a000200, size: 0x200, lines: { "irq": spi(17) }, dma: ram,
            backend: random,
        ),"#;
    let path = rig.path("board.ron");
    fs::write(&path, original.replacen("devices: [", devices, 1)).expect("written");
    let mut c = rig.supervisor();
    c.arg("--config").arg(path).args(["--clock", "warp", "--kernel"]).arg(&guest().kernel);
    c.arg("--initrd").arg(&guest().virtio_initrd);
    c.args(["--append", "console=ttyAMA0 quiet mods=virtio_mmio,virtio_console,virtio_rng"]);
    c
}

/// The device's process is killed; another one takes its place.
fn kill(console: &Console, device: &str) {
    let process = || children(console.pid()).into_iter().find(|c| c.command.contains(device)).map(|c| c.pid);
    let old = process().expect("it runs");
    signal(old, Signal::SIGKILL);
    wait_for("another in its place", GUARD, || process().is_some_and(|new| new != old));
}

/// Sends a file through the guest: it keeps what comes, shows its sum, and sends it back.
fn there_and_back(console: &mut Console, peer: &mut UnixStream, file: &Path, round: usize) {
    let open = "exec 3<>/dev/hvc0; stty -F /dev/hvc0 raw -echo; echo open >&3";
    let work = format!("head -c {SENT} <&3 > got; echo got-{round} $(md5sum < got); cat got >&3; exec 3>&-");
    console.send(format!("({open}; {work}; echo back-''{round})\n")).expect("typed");
    // What comes before the guest has set its terminal would be echoed and changed.
    let mut ready = [0; 5];
    peer.read_exact(&mut ready).expect("it is open");
    assert_eq!(&ready, b"open\n");
    let data = fs::read(file).expect("readable");
    let mut writer = peer.try_clone().expect("a socket");
    let sent = data.clone();
    let sender = std::thread::spawn(move || writer.write_all(&sent).expect("sent"));
    console.expect(&format!("got-{round} {}", md5(file)), GUARD).expect("all of it has come");
    sender.join().expect("sent");
    let mut back = vec![0; SENT];
    peer.read_exact(&mut back).expect("it comes back");
    assert!(back == data, "what comes back is what was sent");
    console.expect(&format!("back-{round}"), GUARD).expect("done");
}

#[test]
fn a_console_with_a_port_and_an_entropy_source() {
    let rig = Rig::new();
    let (socket, recording, report) = (rig.path("hvc"), rig.path("virtio"), rig.path("virtio.json"));
    let file = rig.image("sent.bin", SENT);
    let mut c = board(&rig);
    c.arg("--serial").arg(format!("con0=unix:{}", socket.display()));
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.expect("# ", LONG_GUARD).expect("a prompt");
    let mut peer = UnixStream::connect(&socket).expect("connected");
    peer.set_read_timeout(Some(GUARD)).expect("a socket");
    let shell = |console: &mut Console, command: &str, says: &str| {
        console.send(format!("{command}\n")).expect("typed");
        console.expect(says, GUARD).unwrap_or_else(|e| panic!("{command}: {e:#}"));
    };
    shell(&mut console, "cd /tmp; grep -l org.reprise.0 /sys/class/virtio-ports/*/name", "/vport0p1/name");
    shell(&mut console, "echo to the host > /dev/vport0p1; echo writ''ten $?", "written 0");
    shell(&mut console, "echo rng $(cat /sys/class/misc/hw_random/rng_current)", "rng virtio_rng.0");
    for round in 0..2 {
        there_and_back(&mut console, &mut peer, &file, round);
        // The driver asks for 64 bytes at a time.
        let random = "dd if=/dev/hwrng bs=64 count=32 2>/dev/null | tee random | wc -c; echo sum''-$(md5sum < random)";
        shell(&mut console, random, "2048");
        console.expect("sum-", GUARD).expect("a sum");
        if round == 0 {
            for device in ["[con0]", "[rng0]"] {
                kill(&console, device);
            }
        }
    }
    console.send("cat /proc/interrupts; poweroff -f\n").expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    let text = run.ended.text();
    let sums: Vec<&str> = text.lines().filter_map(|l| l.trim().strip_prefix("sum-")).collect();
    assert!(sums.len() == 2 && sums[0] != sums[1], "what is random is so each time: {text}");
    // The replays show the same sums, so they have the same bytes.
    let replay = rig.replay(&run.recording, &["--jitter", "1"]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only", "--jitter", "2"]).exact(&run);
}

/// The board whose console has further ports: one on a socket that the guest sends back, one to a file, one that the guest does not open at first.
fn ports(rig: &Rig) -> Command {
    let mut c = board(rig);
    c.args(["--set", r#"devices.con0.config=(ports: ["org.reprise.echo", "log", "idle"])"#]);
    c
}

/// Ports besides the console lead out. Their process is killed between lines and in the middle of a stream, its plugin is replaced, and nothing is lost or comes twice.
#[test]
fn further_ports_lead_out() {
    let rig = Rig::new();
    let (socket, idle, file) = (rig.path("echo"), rig.path("idle"), rig.path("log.txt"));
    fs::write(&file, "of another machine").expect("written");
    let out = rig.output(ports(&rig).args(["--serial", &format!("con0.nope=file:{}", file.display())]));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(exit::USAGE), "{said}");
    assert!(said.contains("con0 has no port nope") && said.contains("org.reprise.echo, log, idle"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("readable"), "of another machine", "no machine has started");

    let (recording, report) = (rig.path("ports"), rig.path("ports.json"));
    let mut c = ports(&rig);
    for (port, kind, path) in [("org.reprise.echo", "unix", &socket), ("log", "file", &file), ("idle", "unix", &idle)] {
        c.arg("--serial").arg(format!("con0.{port}={kind}:{}", path.display()));
    }
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console.expect("# ", LONG_GUARD).expect("a prompt");
    let status = rig.vmctl(&["status"]);
    let con0 =
        status["devices"].as_array().expect("devices").iter().find(|d| d["name"] == "con0").expect("it is there");
    assert_eq!(con0["ports"], serde_json::json!(["org.reprise.echo", "log", "idle"]));
    let connect = |path: &Path| {
        let peer = UnixStream::connect(path).expect("connected");
        peer.set_read_timeout(Some(GUARD)).expect("a socket");
        peer
    };
    let (mut peer, mut sleeper) = (connect(&socket), connect(&idle));
    // More than the guest's driver has buffers for, and in packets that these are no multiple of.
    let unread = fs::read(rig.image("unread", 700_000)).expect("readable");
    sleeper.write_all(&unread[..1000]).expect("sent");
    console.send("(exec 3<>/dev/vport0p1; echo open >&3; exec tee /dev/vport0p2 <&3 >&3) &\n").expect("typed");
    let mut ready = [0; 5];
    peer.read_exact(&mut ready).expect("it is open");
    assert_eq!(&ready, b"open\n");
    let mut sent = Vec::new();
    for n in 0..12 {
        let line = format!("line {n} of the host\n");
        peer.write_all(line.as_bytes()).expect("sent");
        if n % 3 == 1 {
            // With the line on its way.
            kill(&console, "[con0]");
        }
        let mut back = vec![0; line.len()];
        peer.read_exact(&mut back).expect("it comes back");
        assert_eq!(String::from_utf8_lossy(&back), line);
        sent.extend_from_slice(line.as_bytes());
        if n % 3 == 2 {
            kill(&console, "[con0]");
        }
    }
    let bulk = fs::read(rig.image("bulk.bin", SENT)).expect("readable");
    let (mut writer, data) = (peer.try_clone().expect("a socket"), bulk.clone());
    let sender = std::thread::spawn(move || writer.write_all(&data).expect("sent"));
    let plugin = prefix().join("lib/reprise/plugins/libplugin_virtio_console.so").display().to_string();
    let swap = || rig.vmctl(&["swap", "con0", &plugin])["answer"].as_str().map_or_else(String::new, str::to_owned);
    let mut back = Vec::new();
    for part in bulk.chunks(SENT / 8) {
        let mut piece = vec![0; part.len()];
        peer.read_exact(&mut piece).expect("it comes back");
        back.extend(piece);
        match back.len() * 8 / SENT {
            // The plugin takes the place of itself.
            n if n % 2 == 1 => assert_eq!(swap(), "swapped"),
            n if n < 8 => kill(&console, "[con0]"),
            _ => {}
        }
    }
    sender.join().expect("sent");
    assert!(back == bulk, "what comes back is what was sent");
    sent.extend(bulk);
    // Now the guest opens the port that it left alone, and does not read: all is full, and the device's process holds more than it is asked for.
    let rest = unread[1000..].to_vec();
    let sender = std::thread::spawn(move || sleeper.write_all(&rest).expect("sent"));
    console.send("exec 5</dev/vport0p3; echo ope''ned\n").expect("typed");
    console.expect("opened", GUARD).expect("it is open");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(swap(), "swapped");
    console
        .send(format!("head -c {} <&5 > /tmp/idle; echo sum''-$(md5sum < /tmp/idle)\n", unread.len()))
        .expect("typed");
    console.expect(&format!("sum-{}", md5(&rig.path("unread"))), GUARD).expect("all of it was kept");
    sender.join().expect("sent");
    console.send("kill $!; poweroff -f\n").expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    assert!(fs::read(&file).expect("readable") == sent, "the file has what the guest wrote to that port, once");
    assert!(!socket.exists() && !idle.exists());
    let replay = rig.replay(&run.recording, &["--jitter", "3"]).exact(&run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// A console with a further port: the terminal shows the console alone, in the run and in both kinds of replay.
#[test]
fn the_terminal_shows_no_further_ports() {
    let rig = Rig::new();
    let (socket, recording, report) = (rig.path("shell"), rig.path("console"), rig.path("console.json"));
    let mut c = ports(&rig);
    c.args(["--set", "devices.uart0.backend=serial", "--set", "devices.con0.backend=console"]);
    c.arg("--serial").arg(format!("uart0=unix:{}", socket.display()));
    c.arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
    let console = Console::start(&mut c, false).expect("start");
    wait_for("the socket", GUARD, || socket.exists());
    let mut shell = UnixStream::connect(&socket).expect("connected");
    shell.set_read_timeout(Some(LONG_GUARD)).expect("a socket");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("GUEST READY") {
        let mut piece = [0; 4096];
        let n = shell.read(&mut piece).expect("Linux boots");
        assert!(n > 0, "the machine has ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..n]);
    }
    let work = "for n in 1 2 3; do echo terminal $n > /dev/hvc0; echo port $n > /dev/vport0p2; done; poweroff -f\n";
    shell.write_all(work.as_bytes()).expect("typed");
    let ended = console.wait(LONG_GUARD).expect("it powers off");
    let report = xtask::demo::report(&report).expect("a report");
    let run = Run { recording, ended, report }.ended(exit::OK);
    assert_eq!(run.ended.text().replace('\r', ""), "terminal 1\nterminal 2\nterminal 3\n");
    rig.replay(&run.recording, &["--jitter", "4"]).exact(&run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}
