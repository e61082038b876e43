//! The bare-metal machine: it runs, what it prints is right, and a replay is the same to the instruction.

use reprise_tests::{GUARD, Rig, exit};
use std::time::Duration;
use xtask::console::Console;

/// Everything the guest can do: echo, busy loop with interrupts, sleep, device reads, output, self-tests.
const ALL: &str = "hiabwmwlsbmzq";

#[test]
fn guest_passes_its_self_tests() {
    let rig = Rig::new();
    let run = rig.record_hello("r", "q");
    let text = run.ended.text();
    assert!(text.contains("MIDR 414fc0f0"), "{text}");
    assert!(text.contains("self-tests (upper case passed): SUTDWLAMPIXNFVK\r\n"), "{text}");
    assert!(text.contains("tick 10 at ") && text.contains("bye, chars 1 ticks 10 hash "), "{text}");
}

#[test]
fn replay_is_exact_with_and_without_devices() {
    let rig = Rig::new();
    let recorded = rig.record_hello("r", ALL);
    assert_eq!(recorded.field("verdict"), "recorded");
    let verified = rig.replay(&recorded.recording, &[]).exact(&recorded);
    assert_eq!(verified.report["device_hash"], recorded.report["device_hash"]);
    rig.replay(&recorded.recording, &["--cpu-only"]).exact(&recorded);
    // A replay changes nothing in the recording.
    rig.replay(&recorded.recording, &[]).exact(&recorded);
}

#[test]
fn keys_that_come_at_odd_times_come_at_the_same_instruction() {
    let rig = Rig::new();
    let recording = rig.path("r");
    let mut c = rig.hello();
    c.arg(format!("--record={}", recording.display()));
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    for (i, key) in "abbcwdmebf".bytes().enumerate() {
        console.send([key]).expect("type");
        // The guest is busy, asleep or waiting when the next key comes.
        std::thread::sleep(Duration::from_millis(i as u64 % 4 * 3));
    }
    console.send("q").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    for args in [&[][..], &["--cpu-only"]] {
        let replay = rig.replay(&recording, args).ended(exit::OK);
        assert_eq!(replay.ended.text(), ended.text());
        assert_eq!(replay.field("verdict"), "exact");
    }
}

#[test]
fn jitter_in_every_process_changes_no_replay() {
    let rig = Rig::new();
    let recorded = rig.record_hello("r", ALL);
    let seeds = if reprise_tests::slow() { 20 } else { 3 };
    for seed in 1..=seeds {
        let seed = seed.to_string();
        rig.replay(&recorded.recording, &["--jitter", &seed]).exact(&recorded);
        rig.replay(&recorded.recording, &["--cpu-only", "--jitter", &seed]).exact(&recorded);
    }
}

#[test]
fn jitter_while_recording_changes_no_replay() {
    let rig = Rig::new();
    for seed in 1..=3 {
        let recording = rig.path(&format!("r{seed}"));
        let report = rig.path(&format!("r{seed}.json"));
        let mut c = rig.hello();
        c.arg(format!("--record={}", recording.display()))
            .args(["--jitter", &seed.to_string(), "--report"])
            .arg(&report);
        let mut console = Console::start(&mut c, false).expect("start");
        console.expect("READY", GUARD).expect("ready");
        console.send(ALL).expect("type");
        let ended = console.wait(GUARD).expect("ends");
        assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
        let report = xtask::demo::report(&report).expect("a report");
        let replay = rig.replay(&recording, &[]).ended(exit::OK);
        assert_eq!(replay.report["state_hash"], report["state_hash"]);
        assert_eq!(replay.report["instructions"], report["instructions"]);
        assert_eq!(replay.ended.text(), ended.text());
    }
}

#[test]
fn without_recording_it_runs_the_same_program() {
    let rig = Rig::new();
    let report = rig.path("plain.json");
    let mut c = rig.hello();
    c.arg("--report").arg(&report);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    console.send("bwq").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    assert!(ended.text().contains("bye, chars 3 ticks "), "{}", ended.text());
    let report = xtask::demo::report(&report).expect("a report");
    assert!(report["instructions"].as_u64().is_some_and(|n| n > 1_000_000));
    assert!(
        std::fs::read_dir(rig.path("recordings")).expect("the folder").next().is_none(),
        "nothing was to be recorded"
    );
}

#[test]
fn reboot_ends_the_machine_or_restarts_it() {
    let rig = Rig::new();
    let mut console = Console::start(&mut rig.hello(), false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    console.send("r").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    assert_eq!(ended.text().matches("READY").count(), 1);

    let mut c = rig.hello();
    c.args(["--reboot", "restart"]);
    let mut console = Console::start(&mut c, false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    console.send("r").expect("type");
    console.expect("again, chars 1", GUARD).expect("it says goodbye");
    console.expect("READY", GUARD).expect("it starts again");
    console.send("q").expect("type");
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
}

#[test]
fn end_of_input_does_not_end_the_machine() {
    let rig = Rig::new();
    let mut console = Console::start(&mut rig.hello(), false).expect("start");
    console.expect("READY", GUARD).expect("ready");
    console.send("bq").expect("type");
    console.close_input();
    let ended = console.wait(GUARD).expect("ends");
    assert_eq!(ended.status.code(), Some(exit::OK), "{}", ended.stderr);
    assert!(ended.text().contains("bye, chars 2"), "{}", ended.text());
}

#[test]
fn the_embedded_image_is_what_the_source_says() {
    if xtask::paths::tool(xtask::hello::CC).is_none() {
        panic!("comparing the image with its source needs {}; .ci/run installs it", xtask::hello::CC);
    }
    let rig = Rig::new();
    let out = rig.path("hello.elf");
    xtask::hello::build(&out).expect("it assembles");
    let (made, kept) = (std::fs::read(out).expect("made"), std::fs::read(xtask::hello::image()).expect("kept"));
    assert_eq!(
        xtask::hello::segment(&made).expect("ELF"),
        xtask::hello::segment(&kept).expect("ELF"),
        "run `cargo xtask hello`"
    );
}
