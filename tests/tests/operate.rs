//! Operators' commands on running machines: `vmctl`. Nothing of them shows in the guest that should not, and each recording that was made under them replays
//! exactly.

use reprise_tests::process::{children, signal};
use reprise_tests::{GUARD, LONG_GUARD, Rig, Run, exit, guest, prefix};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use xtask::console::Console;
use xtask::guest::Guest;

/// Its answer, whatever it is.
fn vmctl(rig: &Rig, args: &[&str]) -> Value {
    let out = rig.output(rig.operator(args).arg("--json"));
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("vmctl {args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// The same, which must be answered so.
fn answered(rig: &Rig, args: &[&str], answer: &str) -> Value {
    let value = vmctl(rig, args);
    assert_eq!(value["answer"], answer, "vmctl {args:?}: {value}");
    value
}

/// What a command that must fail says.
fn fails(rig: &Rig, args: &[&str]) -> String {
    answered(rig, args, "failed")["error"].as_str().expect("text").to_owned()
}

fn device<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["devices"].as_array().expect("devices");
    all.iter().find(|d| d["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// Starts a machine that is recorded.
fn start(rig: &Rig, name: &str, mut c: Command) -> Console {
    c.arg(format!("--record={}", rig.path(name).display())).arg("--report").arg(rig.path(&format!("{name}.json")));
    Console::start(&mut c, false).expect("start")
}

/// Waits for its end.
fn end(rig: &Rig, name: &str, console: Console) -> Run {
    let ended = console.wait(LONG_GUARD).expect("it ends");
    let report = xtask::demo::report(&rig.path(&format!("{name}.json"))).unwrap_or_default();
    Run { recording: rig.path(name), ended, report }
}

fn replays(rig: &Rig, run: &Run) {
    let replay = rig.replay(&run.recording, &["--jitter", "5"]).exact(run);
    assert_eq!(replay.report["device_hash"], run.report["device_hash"]);
    rig.replay(&run.recording, &["--cpu-only"]).exact(run);
}

#[test]
fn a_paused_machine_stands_still_and_goes_on() {
    let rig = Rig::new();
    let mut console = start(&rig, "pause", rig.hello());
    console.expect("READY", GUARD).expect("ready");
    assert!(fails(&rig, &["resume"]).contains("not paused"));
    // The guest waits for a key, then it is in the midst of its output.
    for round in 0..4 {
        if round > 0 {
            console.send("l").expect("typed");
        }
        let paused = answered(&rig, &["pause"], "paused");
        console.send("k").expect("typed");
        // While it rests, its devices answer, and one even gets a new plugin.
        answered(&rig, &["device-state", "uart0"], "device-state");
        let plugin = prefix().join("lib/reprise/plugins/libplugin_pl011.so");
        answered(&rig, &["swap", "uart0", &plugin.display().to_string()], "swapped");
        for _ in 0..2 {
            let status = answered(&rig, &["status"], "status");
            assert_eq!(status["state"], "paused");
            assert_eq!((&status["instructions"], &status["guest_ns"]), (&paused["instructions"], &paused["guest_ns"]));
        }
        // Once more changes nothing.
        assert_eq!(vmctl(&rig, &["pause"]), paused);
        answered(&rig, &["resume"], "done");
        if round > 0 {
            console.expect("line 199", GUARD).expect("the last line");
        }
        console.expect("key", GUARD).expect("the key arrives");
    }
    assert_eq!(answered(&rig, &["status"], "status")["state"], "running");
    console.send("q").expect("typed");
    let run = end(&rig, "pause", console).ended(exit::OK);
    replays(&rig, &run);
}

/// Guest time follows the host's clock, but not through a pause; and a machine that rests can be ended.
#[test]
fn a_paused_machine_can_be_ended() {
    let rig = Rig::new();
    let mut c = rig.supervisor();
    c.args(["--config", "machines/hello.ron", "--clock", "realtime"]);
    let mut console = start(&rig, "ended", c);
    console.expect("READY", GUARD).expect("ready");
    answered(&rig, &["pause"], "paused");
    answered(&rig, &["resume"], "done");
    let paused = answered(&rig, &["pause"], "paused");
    answered(&rig, &["quit"], "done");
    let run = end(&rig, "ended", console).ended(exit::OK);
    assert_eq!(run.report["instructions"], paused["instructions"], "not one more");
    assert_eq!(run.report["end"], "stopped");
    replays(&rig, &run);
}

/// A replay rests like any machine, with devices and without, and its devices may even die meanwhile: it is exact all the same.
#[test]
fn a_replay_is_paused_and_goes_on() {
    let rig = Rig::new();
    // Enough to do that there is always something left to be stopped in.
    let run = rig.record("work", rig.linux(&format!("run={}", vec!["hash"; 50].join(","))));
    let plugin = prefix().join("lib/reprise/plugins/libplugin_pl011.so").display().to_string();
    for (mode, how) in [("verify", &[][..]), ("absent", &["--cpu-only"])] {
        let mut c = rig.supervisor();
        let report = rig.path("paused.json");
        c.arg("replay").arg(&run.recording).args(how).args(["--jitter", "7"]).arg("--report").arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        for _ in 0..2 {
            console.expect("RUN hash BEGIN", LONG_GUARD).expect("it gets there");
            let paused = answered(&rig, &["pause"], "paused");
            if how.is_empty() {
                for child in children(console.pid()).into_iter().filter(|c| c.name == "device-proc") {
                    signal(child.pid, nix::sys::signal::Signal::SIGKILL);
                }
                // Each device has a process again that answers.
                answered(&rig, &["device-state", "uart0"], "device-state");
            }
            for _ in 0..2 {
                let status = answered(&rig, &["status"], "status");
                assert_eq!((&status["state"], &status["mode"]), (&"paused".into(), &mode.into()), "{status}");
                let key = ["instructions", "guest_ns"];
                assert_eq!(key.map(|k| status[k].clone()), key.map(|k| paused[k].clone()));
            }
            assert!(fails(&rig, &["swap", "uart0", &plugin]).contains("replay"));
            answered(&rig, &["resume"], "done");
            assert!(fails(&rig, &["resume"]).contains("not paused"));
        }
        let ended = console.wait(LONG_GUARD).expect("it ends");
        let report = xtask::demo::report(&report).expect("a report");
        Run { recording: run.recording.clone(), ended, report }.exact(&run);
    }
}

#[test]
fn a_reset_starts_the_machine_anew() {
    let rig = Rig::new();
    let mut console = start(&rig, "reset", rig.hello());
    console.expect("READY", GUARD).expect("ready");
    console.send("h").expect("typed");
    console.expect("key", GUARD).expect("echoed");
    let before = answered(&rig, &["status"], "status");
    // A recording of another day.
    fs::create_dir(rig.path("reset-2")).expect("made");
    fs::write(rig.path("reset-2").join("manifest.ron"), "").expect("written");
    for n in 0..2 {
        answered(&rig, &["reset"], "done");
        console.expect("READY", GUARD).unwrap_or_else(|e| panic!("ready once more, {n}: {e:#}"));
    }
    let after = answered(&rig, &["status"], "status");
    assert_ne!(before["uuid"], after["uuid"]);
    assert!(after["recording"].as_str().is_some_and(|dir| dir.ends_with("reset-4")), "{after}");
    console.send("q").expect("typed");
    let run = end(&rig, "reset", console).ended(exit::OK);
    assert!(run.ended.stderr.contains("the machine was reset after"), "{}", run.ended.stderr);
    let said = run.ended.stderr.lines().filter(|l| l.contains("anew, in a new recording")).collect::<Vec<_>>();
    assert!(said.len() == 2 && said[0].ends_with("reset-3") && said[1].ends_with("reset-4"), "{said:?}");
    assert_eq!(run.report["end"], "poweroff");
    assert_eq!(fs::read(rig.path("reset-2").join("manifest.ron")).expect("there"), b"");
    // The first life ends with a reset at an exact place, the last one is whole.
    for (name, keys, ends) in [("reset", 1, "reset"), ("reset-3", 0, "reset"), ("reset-4", 0, "poweroff")] {
        for more in [&[][..], &["--cpu-only"]] {
            let replay = rig.replay(&rig.path(name), more).ended(exit::OK);
            assert_eq!((&replay.report["verdict"], &replay.report["end"]), (&"exact".into(), &ends.into()), "{name}");
            assert_eq!(replay.ended.text().matches("key").count(), keys, "{name}: {}", replay.ended.text());
        }
    }
}

#[test]
fn a_machine_without_a_power_key_is_switched_off() {
    let rig = Rig::new();
    for (name, args) in [("key", &["poweroff"][..]), ("force", &["poweroff", "--force"])] {
        let mut console = start(&rig, name, rig.hello());
        console.expect("READY", GUARD).expect("ready");
        answered(&rig, args, "done");
        let run = end(&rig, name, console).ended(exit::OK);
        assert!(run.ended.stderr.contains("the machine was switched off after"), "{}", run.ended.stderr);
        assert_eq!(run.report["end"], "poweroff");
        replays(&rig, &run);
    }
}

fn virt(rig: &Rig) -> Command {
    let mut c = rig.supervisor();
    c.args(["--config", "machines/virt.ron", "--clock", "warp", "--kernel"]).arg(&guest().kernel);
    c.arg("--initrd").arg(&guest().initrd);
    c
}

/// The kernel's own `gpio-keys` driver sees the key, and what waits for it switches the guest off.
#[test]
fn the_power_key_asks_the_guest() {
    let rig = Rig::new();
    let mut console = start(&rig, "power", virt(&rig));
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    // Two events: the key, and the end of what belongs together.
    console.send("modprobe evdev; echo wait''ing; dd if=/dev/input/event0 bs=16 count=2 of=/event; hexdump -C /event; poweroff -f\n").expect("typed");
    console.expect("waiting", GUARD).expect("it waits");
    let asked = answered(&rig, &["poweroff"], "asked");
    assert!(asked["by"].as_str().is_some_and(|by| by.contains("power key")), "{asked}");
    let run = end(&rig, "power", console).ended(exit::OK);
    assert_eq!(run.report["end"], "poweroff");
    // EV_KEY 1, KEY_POWER 116, pressed 1.
    assert!(run.ended.text().contains("01 00 74 00 01 00 00 00"), "{}", run.ended.text());
    replays(&rig, &run);
}

#[test]
fn a_device_s_state_is_readable() {
    let rig = Rig::new();
    let mut console = start(&rig, "state", rig.hello());
    console.expect("READY", GUARD).expect("ready");
    let first = answered(&rig, &["device-state", "uart0"], "device-state");
    assert_eq!((&first["plugin"], &first["device"]), (&"pl011".into(), &"uart0".into()));
    let state = &first["state"];
    assert!(state["state"].is_object() && state["lines"].is_object() && state["shadows"].is_object(), "{first}");
    assert!(
        state["lines"]["irq"].is_boolean() && state["shadows"].as_object().is_some_and(|s| !s.is_empty()),
        "{first}"
    );
    // Looked at twice it is the same, down to the hash: looking changes nothing.
    assert_eq!(vmctl(&rig, &["device-state", "uart0"]), first);
    console.send("h").expect("typed");
    console.expect("key", GUARD).expect("echoed");
    let second = answered(&rig, &["device-state", "uart0"], "device-state");
    assert_ne!(second["request"], first["request"], "it has served since");
    assert!(fails(&rig, &["device-state", "uart9"]).contains("no device \"uart9\""));
    let text = rig.output(&mut rig.operator(&["device-state", "sysreg"])).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("sysreg: vexpress-sysreg") && text.contains("  state:"), "{text}");
    console.send("q").expect("typed");
    let run = end(&rig, "state", console).ended(exit::OK);
    replays(&rig, &run);
}

#[test]
fn status_and_top_tell_what_goes_on() {
    let rig = Rig::new();
    // Without a recording, too.
    for record in [false, true] {
        let mut console = if record {
            start(&rig, "top", rig.hello())
        } else {
            Console::start(&mut rig.hello(), false).expect("start")
        };
        console.expect("READY", GUARD).expect("ready");
        let status = answered(&rig, &["status"], "status");
        assert_eq!((&status["machine"], &status["cpu"]), (&"hello".into(), &"cortex-a15".into()));
        assert_eq!((&status["memory"], &status["state"]), (&(16_u64 << 20).into(), &"running".into()));
        assert!(status["instructions"].as_u64().is_some_and(|n| n > 0), "{status}");
        assert_eq!(status["log_bytes"].is_u64(), record, "{status}");
        assert_eq!(device(&status, "uart0")["backend"], "console");
        let sent = device(&status, "uart0")["sent"].as_u64().expect("a number");
        let top = vmctl(&rig, &["top", "--interval", "0.1"]);
        assert_eq!(top["machine"], "hello");
        assert_eq!(device(&top, "uart0")["total"].as_u64(), Some(sent), "nothing was typed");
        let once = rig.output(&mut rig.operator(&["top", "--once", "--interval", "0.1"])).stdout;
        let once = String::from_utf8_lossy(&once).into_owned();
        assert!(once.contains("MIPS") && once.contains("requests/s") && once.contains("uart0"), "{once}");
        let listed = || {
            let list = rig.output(rig.program("vmctl").arg("list")).stdout;
            String::from_utf8_lossy(&list).contains(status["uuid"].as_str().expect("text"))
        };
        assert!(listed());
        console.send("q").expect("typed");
        console.wait(GUARD).expect("it ends");
        assert!(!listed(), "it is gone");
    }
}

#[test]
fn disks_are_listed_with_what_was_done() {
    let rig = Rig::new();
    let image = rig.path("disk.img");
    fs::write(&image, vec![0x5a; 1 << 20]).expect("written");
    let mut c = rig.linux_virtio("");
    c.arg("--disk").arg(format!("blk0={},snapshot=on", image.display()));
    let mut console = start(&rig, "disk", c);
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    console
        .send("modprobe virtio_mmio; modprobe virtio_blk; dd if=/dev/vda of=/dev/null bs=64k; echo do''ne\n")
        .expect("typed");
    console.expect("done", GUARD).expect("read");
    let disks = answered(&rig, &["disk"], "disk");
    let disk = &disks["disks"][0];
    assert_eq!((&disk["device"], &disk["mode"], &disk["format"]), (&"blk0".into(), &"snapshot".into(), &"raw".into()));
    assert_eq!(disk["size"], 1 << 20);
    let counters = disk["counters"].as_array().expect("counters");
    let counter = |name: &str| counters.iter().find(|c| c[0] == name).and_then(|c| c[1].as_u64()).expect("a counter");
    assert!(counter("bytes-read") >= 1 << 20 && counter("bytes-written") == 0, "{disks}");
    console.send("poweroff -f\n").expect("typed");
    let run = end(&rig, "disk", console).ended(exit::OK);
    rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
}

/// The board is reset, and its disk keeps what the guest wrote beside the image; the image is as it was. Each recording replays by itself, without the image.
#[test]
fn a_disk_keeps_what_the_guest_wrote_over_a_reset() {
    let rig = Rig::new();
    let image = rig.path("disk.img");
    fs::write(&image, vec![1; 1 << 20]).expect("written");
    let mut c = rig.linux_virtio("");
    // Not even small images are stored in the recordings by themselves.
    c.arg("--disk").arg(format!("blk0={},snapshot=on", image.display())).args(["--store-disks", "0"]);
    let mut console = start(&rig, "kept", c);
    for life in 0..3 {
        console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
        let write =
            format!("echo wrote in {life} | dd of=/dev/vda bs=512 seek={} conv=sync,fsync 2>/dev/null", 9 * life);
        console
            .send(format!(
                "modprobe virtio_mmio; modprobe virtio_blk; {write}; strings /dev/vda | cut -c1-20; md5sum /dev/vda; echo do''ne {life}\n"
            ))
            .expect("typed");
        console.expect(&format!("done {life}"), GUARD).expect("written");
        let disks = answered(&rig, &["disk"], "disk");
        assert_eq!(disks["disks"][0]["format"], "raw", "{disks}");
        if life < 2 {
            answered(&rig, &["reset"], "done");
        }
    }
    console.send("poweroff -f\n").expect("typed");
    let run = end(&rig, "kept", console).ended(exit::OK);
    let text = run.ended.text();
    for (what, times) in [("wrote in 0", 3), ("wrote in 1", 2), ("wrote in 2", 1)] {
        assert_eq!(text.lines().filter(|l| l.trim_end().ends_with(what)).count(), times, "{what}: {text}");
    }
    assert!(fs::read(&image).expect("there").iter().all(|&b| b == 1), "the image is as it was");
    // What the first life began with is in the image, what the later ones did in their recordings.
    for (name, more) in [("kept", &[][..]), ("kept-2", &[]), ("kept-3", &["--cpu-only"])] {
        let replay = rig.replay(&rig.path(name), more).ended(exit::OK);
        assert_eq!(replay.report["verdict"], "exact", "{name} {more:?}");
        assert!(replay.ended.text().contains("wrote in 0"), "{name}: {}", replay.ended.text());
        let _ = fs::remove_file(&image);
    }
}

/// The board with a network card in the first virtio slot.
fn virt_with_net(rig: &Rig) -> Command {
    let original = fs::read_to_string(prefix().join("share/reprise/configs/machines/virt.ron")).expect("installed");
    let card = "devices: [(name: \"eth0\", plugin: \"virtio-net\", at: 0x0a000000, size: 0x200, \
                lines: { \"irq\": spi(16) }, dma: ram, backend: net),";
    let path = rig.path("net.ron");
    fs::write(&path, original.replacen("devices: [", card, 1)).expect("written");
    let mut c = rig.supervisor();
    // A guest that waits for packets must not jump ahead.
    c.arg("--config").arg(path).args(["--clock", "realtime", "--kernel"]).arg(&guest().kernel);
    c.arg("--initrd").arg(&guest().virtio_initrd);
    c
}

/// A server on this host's loopback that greets whoever comes.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            // Whoever came may be gone. Who is not must not be reset before it has read: all that it says is taken.
            std::thread::spawn(move || {
                let said = peer.write_all(b"greetings\n").and_then(|()| peer.shutdown(Shutdown::Write));
                said.and_then(|()| std::io::copy(&mut peer, &mut std::io::sink()))
            });
        }
    });
    port
}

/// A cable is pulled and plugged in, and a port is forwarded, while the guest runs.
#[test]
fn a_network_is_operated() {
    let rig = Rig::new();
    let mut console = start(&rig, "net", virt_with_net(&rig));
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    let mut shell = |command: &str, says: &str| {
        console.send(format!("{command}\n")).expect("typed");
        console.expect(says, GUARD).unwrap_or_else(|e| panic!("{command}: {e}"));
    };
    let host = greeter();
    let up = "modprobe virtio_mmio; modprobe virtio_net; busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; echo up''up";
    shell(up, "upup");
    shell(&greeted(host), "greetings is over");
    shell(&carrier(1), "carrier is 1");
    answered(&rig, &["net", "down", "eth0"], "done");
    shell(&carrier(0), "carrier is 0");
    shell(&format!("busybox nc -w 1 10.0.2.2 {host} < /dev/zero || echo a''lone"), "alone");
    let down = answered(&rig, &["net"], "net");
    assert_eq!((&down["networks"][0]["kind"], &down["networks"][0]["up"]), (&"user".into(), &false.into()), "{down}");
    // It stays out when the device's process dies.
    for child in children(console_pid(&rig)).into_iter().filter(|c| c.name == "device-proc") {
        signal(child.pid, nix::sys::signal::Signal::SIGKILL);
    }
    shell(&format!("busybox nc -w 1 10.0.2.2 {host} < /dev/zero || echo still''alone"), "stillalone");
    shell(&carrier(0), "carrier is 0");
    answered(&rig, &["net", "up", "eth0"], "done");
    shell(&carrier(1), "carrier is 1");
    shell(&greeted(host), "greetings is over");
    let port = free_port();
    let forward = format!("tcp:127.0.0.1:{port}-:7");
    answered(&rig, &["net", "forward", "eth0", &forward], "done");
    assert!(fails(&rig, &["net", "forward", "eth0", &forward]).contains("give another port"));
    assert!(fails(&rig, &["net", "forward", "eth0", "tcp:7"]).contains("is no forward"));
    let up = answered(&rig, &["net"], "net");
    assert_eq!(up["networks"][0]["forwards"][0], format!("tcp:127.0.0.1:{port}-10.0.2.15:7"), "{up}");
    shell("while true; do busybox nc -l -p 7 -e cat; done & echo lis''tens", "listens");
    assert_eq!(echoed(port), "to the guest and back\n");
    console.send("poweroff -f\n").expect("typed");
    let run = end(&rig, "net", console).ended(exit::OK);
    replays(&rig, &run);
}

/// Goes from the guest to the [`greeter`] and back. The connection is over before that is said: pulled out from under it, the cable would leave it waiting for a quarter of
/// an hour.
fn greeted(host: u16) -> String {
    format!("said=$(busybox nc -w 30 10.0.2.2 {host} < /dev/zero); echo $said is 'over'")
}

/// Waits in the guest until its driver says whether there is a carrier.
fn carrier(up: u8) -> String {
    format!("until [ $(cat /sys/class/net/eth0/carrier) = {up} ]; do sleep 0.1; done; echo carrier 'is' {up}")
}

/// The Versatile Express' own card: its driver looks at the PHY, and the kernel says what it sees.
#[test]
fn the_guest_sees_its_cable_in_the_phy() {
    let rig = Rig::new();
    let with_modules = Guest { initrd: guest().virtio_initrd.clone(), ..guest().clone() };
    let mut c = rig.supervisor();
    c.args(xtask::demo::linux_args(&with_modules, xtask::demo::APPEND));
    c.args(["--clock", "realtime", "--net", "eth0=user,dns=none"]);
    let mut console = start(&rig, "phy", c);
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    let mut shell = |command: &str, says: &str| {
        console.send(format!("{command}\n")).expect("typed");
        console.expect(says, GUARD).unwrap_or_else(|e| panic!("{command}: {e}"));
    };
    let up = "modprobe smsc; modprobe smsc911x; busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up; echo up''up";
    shell(up, "upup");
    let host = greeter();
    for _ in 0..2 {
        shell(&carrier(1), "carrier is 1");
        shell(&greeted(host), "greetings is over");
        answered(&rig, &["net", "down", "eth0"], "done");
        shell(&carrier(0), "carrier is 0");
        answered(&rig, &["net", "up", "eth0"], "done");
    }
    shell(&carrier(1), "carrier is 1");
    // Pulled, and the device's process dies: its successor knows, and so does the guest.
    answered(&rig, &["net", "down", "eth0"], "done");
    for child in children(console_pid(&rig)).into_iter().filter(|c| c.name == "device-proc") {
        signal(child.pid, nix::sys::signal::Signal::SIGKILL);
    }
    shell(&carrier(0), "carrier is 0");
    // The board is reset: its cable is still out, and its network forwards what it did.
    let forward = format!("tcp:127.0.0.1:{}-10.0.2.15:7", free_port());
    answered(&rig, &["net", "forward", "eth0", &forward], "done");
    answered(&rig, &["reset"], "done");
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots again");
    let nets = answered(&rig, &["net"], "net");
    assert_eq!((&nets["networks"][0]["up"], &nets["networks"][0]["forwards"][0]), (&false.into(), &forward.into()));
    let mut shell = |command: &str, says: &str| {
        console.send(format!("{command}\n")).expect("typed");
        console.expect(says, GUARD).unwrap_or_else(|e| panic!("{command}: {e}"));
    };
    shell(up, "upup");
    shell(&carrier(0), "carrier is 0");
    answered(&rig, &["net", "up", "eth0"], "done");
    shell(&carrier(1), "carrier is 1");
    shell("poweroff -f", "Power down");
    let run = end(&rig, "phy", console).ended(exit::OK);
    for more in [&[][..], &["--cpu-only"]] {
        // The console shows both lives, a replay one.
        let second = rig.replay(&rig.path("phy-2"), more).ended(exit::OK);
        assert_eq!(
            (&second.report["verdict"], &second.report["state_hash"]),
            (&"exact".into(), &run.report["state_hash"])
        );
        let first = rig.replay(&rig.path("phy"), more).ended(exit::OK);
        assert_eq!((&first.report["verdict"], &first.report["end"]), (&"exact".into(), &"reset".into()));
    }
}

/// What the guest behind a port of this host sends back. Before its program listens it refuses.
fn echoed(port: u16) -> String {
    let until = std::time::Instant::now() + GUARD;
    loop {
        let mut peer = TcpStream::connect(("127.0.0.1", port)).expect("the network takes it");
        peer.set_read_timeout(Some(GUARD)).expect("a socket");
        let mut line = String::new();
        let answer =
            peer.write_all(b"to the guest and back\n").and_then(|()| BufReader::new(&peer).read_line(&mut line));
        if answer.is_ok_and(|n| n > 0) {
            return line;
        }
        assert!(std::time::Instant::now() < until, "the guest does not listen");
    }
}

fn console_pid(rig: &Rig) -> u32 {
    answered(rig, &["status"], "status")["pid"].as_u64().expect("a number") as u32
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn wait_for(path: &Path) {
    let until = std::time::Instant::now() + GUARD;
    while !path.exists() {
        assert!(std::time::Instant::now() < until, "{} does not come", path.display());
        std::thread::yield_now();
    }
}

/// Three serial ports besides the console: a socket, two pipes, a file. Their devices are killed between, and lose nothing.
#[test]
fn serial_lines_lead_out() {
    let rig = Rig::new();
    let (socket, pipe, file) = (rig.path("socket"), rig.path("pipe"), rig.path("file"));
    let mut c = rig.linux("");
    for (name, kind, path) in [("uart1", "unix", &socket), ("uart2", "pipe", &pipe), ("uart3", "file", &file)] {
        c.arg("--serial").arg(format!("{name}={kind}:{}", path.display()));
    }
    let mut console = start(&rig, "serial", c);
    wait_for(&socket);
    console.expect("GUEST READY", LONG_GUARD).expect("Linux boots");
    let mut peer = UnixStream::connect(&socket).expect("connected");
    peer.set_read_timeout(Some(GUARD)).expect("a socket");
    let mut to_pipe = fs::OpenOptions::new().write(true).open(pipe.with_extension("in")).expect("a pipe");
    let mut from_pipe = fs::OpenOptions::new().read(true).write(true).open(pipe.with_extension("out")).expect("a pipe");
    for round in 0..2 {
        let (a, b) = (format!("socket {round}\n"), format!("pipe {round}\n"));
        // What comes in before the port is open the driver throws away, so the guest says when it is. Echo is off: what comes back is what was read.
        let port = |n: u32| {
            let tty = format!("/dev/ttyAMA{n}");
            format!(
                "(exec 3<>{tty}; stty -F {tty} -echo -onlcr; echo r >&3; head -n 1 <&3 > /in{n}; cat /in{n} >&3; sleep 1)"
            )
        };
        let file = format!("stty -F /dev/ttyAMA3 -onlcr; echo file {round} > /dev/ttyAMA3");
        console.send(format!("{} & {} & {file}; wait; echo ro''und {round}\n", port(1), port(2))).expect("typed");
        for from in [&mut peer as &mut dyn Read, &mut from_pipe] {
            let mut ready = [0; 2];
            from.read_exact(&mut ready).expect("it is open");
            assert_eq!(&ready, b"r\n");
        }
        for child in children(console.pid()).into_iter().filter(|c| round == 1 && c.name == "device-proc") {
            signal(child.pid, nix::sys::signal::Signal::SIGKILL);
        }
        peer.write_all(a.as_bytes()).expect("sent");
        to_pipe.write_all(b.as_bytes()).expect("sent");
        for (from, sent) in [(&mut peer as &mut dyn Read, a), (&mut from_pipe, b)] {
            let mut got = vec![0; sent.len()];
            from.read_exact(&mut got).expect("it comes back");
            assert_eq!(String::from_utf8_lossy(&got), sent);
        }
        console.expect(&format!("round {round}"), GUARD).expect("done");
    }
    console.send("poweroff -f\n").expect("typed");
    let run = end(&rig, "serial", console).ended(exit::OK);
    assert_eq!(fs::read_to_string(&file).expect("written"), "file 0\nfile 1\n");
    assert!(!socket.exists());
    replays(&rig, &run);
    // A machine whose only console leads elsewhere.
    let (name, file) = ("elsewhere", rig.path("elsewhere.txt"));
    let mut c = rig.hello();
    c.arg("--serial").arg(format!("uart0=file:{}", file.display()));
    let console = start(&rig, name, c);
    wait_for(&file);
    while !fs::read_to_string(&file).expect("readable").contains("READY") {
        std::thread::yield_now();
    }
    answered(&rig, &["poweroff"], "done");
    let run = end(&rig, name, console).ended(exit::OK);
    replays(&rig, &run);
    let refused = |arg: &str| {
        let out = rig.output(rig.hello().args(["--serial", arg]));
        assert_eq!(out.status.code(), Some(exit::USAGE), "{arg}");
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(refused("uart9=null").contains("give one of uart0"));
    assert!(refused("sysreg=null").contains("give one of uart0"));
    assert!(
        refused(&format!("uart0=unix:{}/no/such", rig.path("").display()))
            .contains("give a path where there is nothing")
    );
}
