//! The tutorials' code, as it stands on their pages, is built and run.

use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_tests::{GUARD, Rig, Run, exit};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::console::Console;
use xtask::paths;

/// Writes the files of a page into a folder: each block of code behind a comment `file: NAME`.
fn extract(page: &str, to: &Path) {
    let text = fs::read_to_string(paths::root().join("docs").join(page)).expect("a page");
    for part in text.split("<!-- file: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```").expect("a block follows");
        let (_, rest) = rest.split_once('\n').expect("the block's language");
        let (code, _) = rest.split_once("```").expect("the block ends");
        fs::write(to.join(name), code).expect("written");
    }
}

fn run(c: &mut Command) {
    let out = c.output().unwrap_or_else(|e| panic!("{c:?}: {e}"));
    assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The plugin as its page builds it, in Rust; a folder with it.
fn in_rust(rig: &Rig) -> PathBuf {
    let dir = rig.path("rust");
    fs::create_dir_all(dir.join("src")).expect("a folder");
    extract("tutorial-plugin.md", &dir);
    fs::rename(dir.join("lib.rs"), dir.join("src/lib.rs")).expect("its place");
    let sdk = paths::root().join("device-procs/sdk");
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).expect("written");
    fs::write(dir.join("Cargo.toml"), manifest.replace("\"SDK\"", &format!("{sdk:?}"))).expect("written");
    // What the repository is built with, as there may be no network.
    fs::copy(paths::root().join("Cargo.lock"), dir.join("Cargo.lock")).expect("a copy");
    let target = paths::target_dir().join("tutorial");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo.args(["build", "--release", "--offline", "--target-dir"]).arg(&target).current_dir(&dir));
    target.join("release")
}

/// The same in C; with another way to count, if `count` is not empty.
fn in_c(rig: &Rig, name: &str, count: &str) -> PathBuf {
    let dir = rig.path(name);
    fs::create_dir_all(&dir).expect("a folder");
    extract("tutorial-plugin.md", &dir);
    if !count.is_empty() {
        let code = fs::read_to_string(dir.join("metronome.c")).expect("extracted");
        assert!(code.contains("m->beats++"), "it counts as it did");
        fs::write(dir.join("metronome.c"), code.replace("m->beats++", count)).expect("written");
    }
    let mut cc = Command::new("cc");
    cc.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O2",
        "-shared",
        "-fPIC",
        "-Wno-missing-field-initializers",
        "-I",
    ]);
    cc.arg(paths::root().join("device-procs/sdk/include")).args(["-o", "libplugin_metronome.so", "metronome.c"]);
    run(cc.current_dir(&dir));
    dir
}

/// Lines of a block that say something.
fn lines(path: &Path) -> usize {
    let text = fs::read_to_string(path).expect("extracted");
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//") && !l.starts_with("/*")).count()
}

/// The board's program, if the tool for it is there.
fn program(board: &Path) -> bool {
    let Some(gcc) = paths::tool(xtask::hello::CC) else {
        eprintln!("skipped: the program needs {}", xtask::hello::CC);
        return false;
    };
    let flags =
        ["-nostdlib", "-static", "-Wl,-Ttext=0x80010000,-e,_start,-n,--build-id=none", "-o", "beats.elf", "beats.S"];
    run(Command::new(gcc).args(flags).current_dir(board));
    true
}

#[test]
fn the_tutorials_work() {
    let rig = Rig::new();
    let board = rig.path("board");
    fs::create_dir_all(&board).expect("a folder");
    extract("tutorial-board.md", &board);
    let runs = program(&board);
    for (language, plugins) in [("rust", in_rust(&rig)), ("c", in_c(&rig, "c", ""))] {
        let file = plugins.join("libplugin_metronome.so");
        // SAFETY: it was just built from this repository's own pages.
        let plugin = unsafe { Plugin::load(&file) }.expect("a plugin");
        let report = Suite::new(&plugin, "()").seeds(20).check();
        assert!(report.reads > 1000, "{language}: {report:?}");
        if !runs {
            continue;
        }
        let (recording, report) = (rig.path(&format!("{language}.rec")), rig.path(&format!("{language}.json")));
        let mut c = rig.supervisor();
        c.arg("--config").arg(board.join("board.ron")).env("REPRISE_PLUGINS", &plugins);
        c.args(["--clock", "warp"]).arg(format!("--record={}", recording.display())).arg("--report").arg(&report);
        let ended = Console::start(&mut c, false).expect("start").wait(GUARD).expect("it ends");
        let report = xtask::demo::report(&report).unwrap_or_default();
        let run = Run { recording, ended, report }.ended(exit::OK);
        assert_eq!(run.ended.text(), "1234\n", "{language}");
        assert_eq!(run.report["guest_ns"].as_u64().expect("a number") / 1_000_000, 1000, "four beats take a second");
        // The recording holds the plugin.
        rig.replay(&run.recording, &[]).exact(&run);
        rig.replay(&run.recording, &["--cpu-only"]).exact(&run);
        if language == "c" {
            continue;
        }
        // The other language's does the same on what was recorded for this one; one that counts otherwise does not.
        let (good, wrong) = (in_c(&rig, "c", ""), in_c(&rig, "wrong", "m->beats += 2"));
        for (plugins, code) in [(&plugins, exit::OK), (&good, exit::OK), (&wrong, exit::DIVERGED)] {
            let mut alone = rig.program("reprise-log");
            alone.arg("replay-device").arg(&run.recording).arg("metronome").arg("--plugin");
            let out = rig.output(alone.arg(plugins.join("libplugin_metronome.so")));
            let (text, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert_eq!(out.status.code(), Some(code), "{}: {text}{said}", plugins.display());
            assert_eq!(text.contains("recorded:"), code == exit::DIVERGED, "{text}");
        }
    }
    // As long as the page says that it is.
    for file in ["rust/src/lib.rs", "c/metronome.c"] {
        let n = lines(&rig.path(file));
        assert!(n <= 70, "{file} has {n} lines");
    }
}
