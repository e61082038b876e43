//! Bad input from the user: refused with a place, a reason and what to do, exit code 3 (or 2 for the command line).

use rand::{Rng, SeedableRng};
use reprise_tests::{Rig, exit, guest, prefix};
use std::fs;
use std::process::{Command, Output};

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Runs the supervisor and checks that it refuses, saying all of `says`.
fn refused(rig: &Rig, args: &[&str], code: i32, says: &[&str]) {
    let out = rig.output(rig.supervisor().args(args));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    for s in says {
        assert!(text(&out).contains(s), "{args:?} says {s:?}: {}", text(&out));
    }
    assert!(out.stdout.is_empty(), "messages go to stderr");
    assert!(!text(&out).contains("panicked"), "{}", text(&out));
}

/// hello's description with one change, as a file of the rig.
fn hello_with(rig: &Rig, name: &str, from: &str, to: &str) -> String {
    let original = fs::read_to_string(prefix().join("share/reprise/configs/machines/hello.ron")).expect("installed");
    assert!(original.contains(from), "hello.ron holds {from:?}");
    fs::create_dir_all(rig.path("machines")).expect("a folder");
    fs::create_dir_all(rig.path("images")).expect("a folder");
    fs::copy(prefix().join("share/reprise/configs/images/hello.elf"), rig.path("images/hello.elf")).expect("installed");
    let path = rig.path(&format!("machines/{name}.ron"));
    fs::write(&path, original.replacen(from, to, 1)).expect("written");
    path.display().to_string()
}

#[test]
fn wrong_command_lines() {
    let rig = Rig::new();
    refused(&rig, &["--no-such-flag"], exit::USAGE, &["--no-such-flag"]);
    refused(&rig, &["--config", "machines/hello.ron", "--engine", "quantum"], exit::USAGE, &["quantum"]);
    refused(&rig, &["--config", "machines/hello.ron", "--clock", "sometimes"], exit::USAGE, &["sometimes"]);
    refused(&rig, &["--config", "machines/no-such.ron"], exit::CONFIG, &["no-such.ron"]);
}

#[test]
fn wrong_machine_files_name_the_place() {
    let rig = Rig::new();
    let cases = [
        ("unknown-key", "name: \"hello\",", "name: \"hello\", colour: \"red\",", "colour"),
        ("duplicate-key", "name: \"hello\",", "name: \"hello\", name: \"again\",", "name"),
        ("overlap", "at: 0x1c090000", "at: 0x1c010800", "overlap"),
        ("no-plugin", "plugin: \"pl011\"", "plugin: \"pl999\"", "pl999"),
        ("no-image", "../images/hello.elf", "../images/nothing.elf", "nothing.elf"),
        ("impossible-size", "size: \"16M\"", "size: \"16Q\"", "16Q"),
        ("huge", "size: \"16M\"", "size: \"900000G\"", "4 GiB"),
        ("bad-model", "cortex-a15", "cortex-z80", "cortex-z80"),
        ("syntax", "memory: (", "memory: ((", ""),
    ];
    for (name, from, to, says) in cases {
        let path = hello_with(&rig, name, from, to);
        let out = rig.output(rig.supervisor().args(["--config", &path]));
        assert_eq!(out.status.code(), Some(exit::CONFIG), "{name}: {}", text(&out));
        assert!(text(&out).contains(says), "{name} says {says:?}: {}", text(&out));
        // file:line:column
        let place = text(&out).lines().any(|l| {
            l.find(&format!("{name}.ron:")).is_some_and(|at| {
                let mut rest = l[at + name.len() + 5..].split(|c: char| !c.is_ascii_digit());
                rest.next().is_some_and(|n| !n.is_empty()) && rest.next().is_some_and(|n| !n.is_empty())
            })
        });
        assert!(place, "{name} is named with line and column: {}", text(&out));
    }
}

#[test]
fn random_bytes_as_machine_file() {
    let rig = Rig::new();
    let mut noise = vec![0u8; 1 << 20];
    rand::rngs::SmallRng::seed_from_u64(3).fill(&mut noise[..]);
    fs::write(rig.path("noise.ron"), &noise).expect("written");
    refused(&rig, &["--config", rig.path("noise.ron").to_str().expect("text")], exit::CONFIG, &["noise.ron"]);
    fs::write(rig.path("deep.ron"), "(".repeat(1 << 20)).expect("written");
    refused(&rig, &["--config", rig.path("deep.ron").to_str().expect("text")], exit::CONFIG, &["deep.ron"]);
}

#[test]
fn wrong_boot_images() {
    let rig = Rig::new();
    let g = guest();
    let path = |p: &std::path::Path| p.display().to_string();
    let base = ["--config", "machines/vexpress.ron"];
    let with = |kernel: &str, dtb: &str, initrd: &str| -> Vec<String> {
        let mut v: Vec<String> = base.iter().map(|s| (*s).to_owned()).collect();
        v.extend(["--kernel", kernel, "--dtb", dtb, "--initrd", initrd].map(str::to_owned));
        v
    };
    let run = |args: Vec<String>, says: &str| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refused(&rig, &args, exit::CONFIG, &[says]);
    };
    run(with(&path(&g.kernel), &path(&g.dtb), "/no/such/initrd"), "/no/such/initrd");
    run(with(&path(&g.kernel), &path(&g.dtb), "/tmp"), "/tmp");
    fs::write(rig.path("text"), "this is no kernel\n".repeat(100)).expect("written");
    run(with(&path(&rig.path("text")), &path(&g.dtb), &path(&g.initrd)), "zImage");
    run(with(&path(&g.kernel), &path(&rig.path("text")), &path(&g.initrd)), "device tree");
    fs::write(rig.path("empty"), "").expect("written");
    run(with(&path(&rig.path("empty")), &path(&g.dtb), &path(&g.initrd)), "it is empty");
}

#[test]
fn wrong_plugins() {
    let rig = Rig::new();
    let staged = rig.path("prefix");
    reprise_tests::copy_tree(prefix(), &staged);
    let plugin = staged.join("lib/reprise/plugins/libplugin_pl011.so");
    let run = || {
        rig.output(
            Command::new(staged.join("bin/supervisor"))
                .args(["--config", "machines/hello.ron"])
                .env("XDG_RUNTIME_DIR", rig.path("run")),
        )
    };
    let mut noise = vec![0u8; 1 << 20];
    rand::rngs::SmallRng::seed_from_u64(5).fill(&mut noise[..]);
    fs::write(&plugin, &noise).expect("written");
    let out = run();
    assert_eq!(out.status.code(), Some(exit::CONFIG), "random bytes: {}", text(&out));
    assert!(text(&out).contains("libplugin_pl011.so") || text(&out).contains("pl011"), "{}", text(&out));
    // A plugin of another ABI version: the SDK's plugin in C, compiled for a version that is not ours.
    let sdk = xtask::paths::root().join("device-procs/sdk");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-DTOY_ABI_VERSION=99", "-I"])
        .arg(sdk.join("include"))
        .arg("-o")
        .arg(&plugin)
        .arg(sdk.join("tests/c/toy.c"));
    assert!(cc.status().expect("a C compiler").success());
    let out = run();
    assert_eq!(out.status.code(), Some(exit::CONFIG), "another ABI: {}", text(&out));
    assert!(text(&out).to_lowercase().contains("abi"), "{}", text(&out));
}
