//! The tool as a user meets it.

use reprise_recording::*;
use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output as Ran, Stdio},
};

fn tool(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_reprise-log"));
    c.args(args).env_remove("REPRISE_DIR").env("XDG_DATA_HOME", "/nonexistent");
    c
}

fn run(args: &[&str]) -> Ran {
    tool(args).output().unwrap()
}

fn out(r: &Ran) -> String {
    String::from_utf8(r.stdout.clone()).unwrap()
}

/// A recording of `chunks` chunks: each writes a letter to a UART, reads a clock, and has an anchor and a progress group.
fn record(dir: &Path, chunks: u64) {
    let kernel = store_input(dir, b"kernel").unwrap();
    let manifest = Manifest {
        id_registers: vec![IdRegister { name: "MIDR".into(), value: 0x412f_c0f1 }],
        inputs: vec![Input { name: "kernel".into(), hash: kernel.hash, size: kernel.size }],
        ..testing::manifest(&[(0, "uart0"), (1, "rtc")])
    };
    let mut w = Writer::create(dir, &manifest, WriterOptions::default()).unwrap();
    for n in 0..chunks {
        let mut c = Chunk::default();
        let write = Message {
            number: n,
            kind: message::WRITE,
            size: 4,
            flags: 1,
            value: 0x41,
            vtime: 10 * n,
            ..Message::default()
        };
        c.channel(0).requests.push(write);
        c.channel(0).output.push(Output { port: 0, data: b"A".to_vec() });
        c.channel(1).requests.push(Message {
            number: n,
            kind: message::READ,
            size: 4,
            offset: 0x0c,
            ..Message::default()
        });
        c.channel(1).effects.push(Message {
            number: n,
            cause: n,
            kind: message::REPLY,
            value: 99,
            ..Message::default()
        });
        let at = Position { epoch: 2 * (n + 1), count: 5, idle: 0 };
        let icount = 500_000_000 * (n + 1);
        let anchor = Entry {
            seq: 2 * n,
            at,
            kind: journal::ANCHOR,
            a: 0xc000_0010_6000_0013,
            b: 7,
            c: icount,
            ..Entry::default()
        };
        let progress = Entry { seq: 2 * n + 1, at, kind: journal::PROGRESS, a: icount, b: icount, ..Entry::default() };
        c.journal = vec![anchor, progress];
        w.append(&c).unwrap();
    }
    let at = Position { epoch: 2 * chunks, count: 5, idle: 0 };
    let (icount, vtime) = (500_000_000 * chunks, 500_000_000 * chunks);
    w.finish(&End { detail: "power off".into(), at, icount, vtime, console_bytes: chunks, ..End::default() }).unwrap();
}

#[test]
fn info_tells_people_and_programs() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    let d = dir.path().to_str().unwrap();
    let r = run(&["info", d]);
    assert!(r.status.success(), "{r:?}");
    for part in ["complete", "2 000 000 000 instructions", "2.000000 s of guest time", "power off", "kernel", "interp"]
    {
        assert!(out(&r).contains(part), "no `{part}` in {}", out(&r));
    }
    let json: serde_json::Value = serde_json::from_slice(&run(&["info", d, "--json"]).stdout).unwrap();
    assert_eq!(json["instructions"], 2_000_000_000u64);
    assert_eq!(json["state"]["status"], "complete");
    assert_eq!(json["end"]["console_bytes"], 4);
    assert_eq!(json["manifest"]["engine"], "interp");
}

#[test]
fn dump_shows_every_record_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    let d = dir.path().to_str().unwrap();
    let all = out(&run(&["dump", d]));
    for part in [
        "write     +0x000/4 = 0x41 at 30 ns flags 0x1",
        "= 0x63 for 3",
        "pc c0000010, cpsr 60000013",
        "\"A\"",
        "power off",
    ] {
        assert!(all.contains(part), "no `{part}` in {all}");
    }
    let lines = |args: &[&str]| {
        let r = run(&[&["dump", d, "--json"], args].concat());
        assert!(r.status.success(), "{r:?}");
        out(&r).lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]).len(), 4 * 6 + 1);
    assert_eq!(lines(&["--stream", "uart0"]).len(), 8);
    let some = lines(&["--stream", "rtc.effects", "--from", "1", "--to", "2"]);
    assert_eq!(some.iter().map(|v| v["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(some[0]["value"], 99);
    let r = run(&["dump", d, "--stream", "uart9"]);
    assert_eq!(r.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&r.stderr).contains("uart0.requests"));
    assert_eq!(run(&["dump", d, "--from", "2", "--to", "1"]).status.code(), Some(2));
}

#[test]
fn verify_names_the_place_and_ends_with_4() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    let d = dir.path().to_str().unwrap();
    let r = run(&["verify", d]);
    assert!(r.status.success() && out(&r).starts_with("good: "), "{r:?}");
    let segment = dir.path().join("segments/00000000.seg");
    let good = fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[64 + 60] ^= 1;
    fs::write(&segment, &bad).unwrap();
    let r = run(&["verify", d]);
    assert_eq!(r.status.code(), Some(4));
    assert!(out(&r).starts_with("bad: segments/00000000.seg, offset 64 (chunk 0): "), "{r:?}");
    let json: serde_json::Value = serde_json::from_slice(&run(&["verify", d, "--json"]).stdout).unwrap();
    assert_eq!((&json["good"], &json["faults"][0]["offset"]), (&false.into(), &64.into()));
    for args in [["info", d], ["stat", d], ["dump", d]] {
        assert_eq!(run(&args).status.code(), Some(4), "{args:?}");
    }
    fs::write(&segment, &good[..good.len() - 1]).unwrap();
    let r = run(&["verify", d]);
    assert_eq!(r.status.code(), Some(4));
    assert!(out(&r).contains("truncated: whole up to segments/00000000.seg, offset"), "{r:?}");
    let r = run(&["dump", d]);
    assert!(r.status.success(), "a cut recording can be read: {r:?}");
    assert!(String::from_utf8_lossy(&r.stderr).contains("truncated"), "{r:?}");
}

#[test]
fn stat_counts() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    let d = dir.path().to_str().unwrap();
    let text = out(&run(&["stat", d]));
    assert!(text.contains("uart0+0x000") && text.contains("rtc.effects") && text.contains("10.0 a second"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&run(&["stat", d, "--json"]).stdout).unwrap();
    assert_eq!(json["anchors"], 4);
    assert_eq!(json["events"], 20);
    assert_eq!(json["registers"][1]["reads"], 4);
    let on_disk = fs::metadata(dir.path().join("segments/00000000.seg")).unwrap().len()
        + fs::metadata(dir.path().join("index")).unwrap().len();
    assert_eq!(json["log_bytes"], on_disk);
}

#[test]
fn the_latest_recording_is_the_default() {
    let root = tempfile::tempdir().unwrap();
    let r = tool(&["info"]).env("REPRISE_DIR", root.path()).output().unwrap();
    assert_eq!(r.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&r.stderr).contains("no recording found"), "{r:?}");
    record(&root.path().join("one"), 1);
    set_latest(root.path(), &root.path().join("one")).unwrap();
    for args in [&["info"][..], &["info", "one"]] {
        let r = tool(args).env("REPRISE_DIR", root.path()).output().unwrap();
        assert!(r.status.success() && out(&r).contains("500 000 000 instructions"), "{r:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_what_is_no_recording_with_4() {
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(run(&["info", "--frob"]).status.code(), Some(2));
    let r = run(&["info", "/nonexistent/recording"]);
    assert_eq!(r.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&r.stderr).contains("does not exist"), "{r:?}");
}

#[test]
fn a_broken_pipe_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 3000);
    let mut child =
        tool(&["dump", dir.path().to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"chunk");
    drop(pipe);
    let r = child.wait_with_output().unwrap();
    assert!(r.status.success() && r.stderr.is_empty(), "{r:?}");
}
