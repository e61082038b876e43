//! Recordings that are cut, flipped, altered or foreign: detected, named, never misread.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_recording::testing;
use reprise_tests::{Rig, Run, exit, files};
use std::fs;
use std::path::{Path, PathBuf};

fn recorded(rig: &Rig) -> Run {
    rig.record_hello("r", "abwlmsbq")
}

/// The file that holds most of the chunks.
fn segment(recording: &Path) -> PathBuf {
    let mut all: Vec<PathBuf> = files(&recording.join("segments"));
    all.sort_by_key(|p| fs::metadata(p).map_or(0, |m| m.len()));
    all.pop().expect("a recording has a segment")
}

#[test]
fn cut_anywhere_it_replays_up_to_the_last_whole_chunk() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    let size = fs::metadata(segment(&whole.recording)).expect("a file").len();
    let mut rng = SmallRng::seed_from_u64(7);
    let mut cuts: Vec<u64> = (0..10).map(|_| rng.random_range(0..size)).collect();
    cuts.extend([size - 1, size / 2]);
    for (i, cut) in cuts.into_iter().enumerate() {
        let copy = rig.copy(&whole.recording, &format!("cut{i}"));
        let file = fs::OpenOptions::new().write(true).open(segment(&copy)).expect("a file");
        file.set_len(cut).expect("cut");
        let run = rig.replay(&copy, &["--cpu-only"]);
        let code = run.ended.status.code();
        if code == Some(exit::RECORDING) {
            // Nothing whole is left.
            assert!(!run.ended.stderr.is_empty(), "cut at {cut}: it says why");
            continue;
        }
        assert_eq!(code, Some(exit::OK), "cut at {cut}: {}", run.ended.stderr);
        assert!(
            whole.ended.text().starts_with(&run.ended.text()),
            "cut at {cut}: the console shows a beginning of what it showed"
        );
        assert!(run.report["instructions"].as_u64() <= whole.report["instructions"].as_u64());
        assert!(
            run.ended.stderr.contains("cut") || run.ended.stderr.contains("incomplete"),
            "cut at {cut} is told: {}",
            run.ended.stderr
        );
    }
}

#[test]
fn any_flipped_bit_is_detected() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    let mut rng = SmallRng::seed_from_u64(11);
    for path in files(&whole.recording) {
        let name = path.strip_prefix(&whole.recording).expect("below").to_owned();
        let size = fs::metadata(&path).expect("a file").len();
        if size == 0 {
            continue;
        }
        for i in 0..6 {
            let (at, bit) = (rng.random_range(0..size) as usize, rng.random_range(0..8));
            let copy = rig.copy(&whole.recording, "flipped");
            let mut bytes = fs::read(copy.join(&name)).expect("a file");
            bytes[at] ^= 1 << bit;
            fs::write(copy.join(&name), bytes).expect("written");
            let out = rig.output(rig.program("reprise-log").arg("verify").arg(&copy));
            let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert_eq!(
                out.status.code(),
                Some(exit::RECORDING),
                "{} byte {at} bit {bit} ({i}) is not noticed: {text}",
                name.display()
            );
            let file = name.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&file), "the place is named: {} in {text}", name.display());
            fs::remove_dir_all(copy).expect("removed");
        }
    }
}

#[test]
fn a_flipped_bit_never_gives_another_replay() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    let mut rng = SmallRng::seed_from_u64(13);
    for i in 0..6 {
        let copy = rig.copy(&whole.recording, &format!("flip{i}"));
        let file = segment(&copy);
        let mut bytes = fs::read(&file).expect("a file");
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        fs::write(&file, bytes).expect("written");
        let run = rig.replay(&copy, &["--cpu-only"]);
        // A fault in the last chunk's tail can't be told from a cut; all else is a bad recording.
        assert!(
            matches!(run.ended.status.code(), Some(exit::OK | exit::RECORDING)),
            "byte {at}: {}: {}",
            run.ended.status,
            run.ended.stderr
        );
        assert!(whole.ended.text().starts_with(&run.ended.text()), "byte {at}: the console shows something else");
    }
}

#[test]
fn an_altered_reply_diverges() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    for (name, args) in [("verified", &[][..]), ("alone", &["--cpu-only"])] {
        let copy = rig.copy(&whole.recording, name);
        // The guest's own view: the character `a` becomes `c` on its way through the UART's data register.
        let mut done = false;
        testing::edit(&copy, |chunk| {
            for records in chunk.channels.values_mut() {
                for e in &mut records.effects {
                    if !done && e.kind == reprise_recording::message::REPLY && e.value & 0xff == u64::from(b'a') {
                        e.value ^= 2;
                        done = true;
                    }
                }
            }
        })
        .expect("the recording can be edited");
        assert!(done, "the recording holds the character that was typed");
        let check = rig.output(rig.program("reprise-log").arg("verify").arg(&copy));
        assert!(
            check.status.success(),
            "the edit has repaired every checksum: {}",
            String::from_utf8_lossy(&check.stderr)
        );
        let run = rig.replay(&copy, args).ended(exit::DIVERGED);
        assert!(run.ended.stderr.contains("expected") && run.ended.stderr.contains("actual"), "{}", run.ended.stderr);
        assert_eq!(run.report["verdict"], "diverged");
    }
}

#[test]
fn an_altered_request_diverges() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    let copy = rig.copy(&whole.recording, "altered");
    let mut done = false;
    testing::edit(&copy, |chunk| {
        for records in chunk.channels.values_mut() {
            for r in &mut records.requests {
                // Writes to the UART's data register are recorded together: for each its time and its value.
                if !done && r.kind == reprise_recording::message::BURST && r.data.get(4) == Some(&b'H') {
                    r.data[4] = b'J';
                    done = true;
                }
            }
        }
    })
    .expect("the recording can be edited");
    assert!(done, "the recording holds the first character printed");
    rig.replay(&copy, &["--cpu-only"]).ended(exit::DIVERGED);
    rig.replay(&copy, &[]).ended(exit::DIVERGED);
}

#[test]
fn another_version_is_refused() {
    let rig = Rig::new();
    let whole = recorded(&rig);
    for version in ["(major: 99, minor: 0)", "(major: 0, minor: 0)"] {
        let copy = rig.copy(&whole.recording, "version");
        testing::edit_manifest(&copy, |text| {
            let start = text.find("format:").expect("the manifest names its format");
            let end = start + text[start..].find(')').expect("a version") + 1;
            format!("{}format: {version}{}", &text[..start], &text[end..])
        })
        .expect("edited");
        let run = rig.replay(&copy, &[]).ended(exit::RECORDING);
        assert!(run.ended.stderr.contains("version") || run.ended.stderr.contains("format"), "{}", run.ended.stderr);
        fs::remove_dir_all(copy).expect("removed");
    }
}

#[test]
fn random_bytes_are_no_recording() {
    let rig = Rig::new();
    let mut noise = vec![0u8; 1 << 20];
    SmallRng::seed_from_u64(17).fill(&mut noise[..]);
    fs::write(rig.path("noise"), &noise).expect("written");
    rig.replay(&rig.path("noise"), &[]).ended(exit::RECORDING);
    rig.replay(&rig.path("nothing-there"), &[]).ended(exit::RECORDING);
    fs::create_dir(rig.path("empty")).expect("a folder");
    rig.replay(&rig.path("empty"), &[]).ended(exit::RECORDING);
    let whole = recorded(&rig);
    for name in files(&whole.recording) {
        let name = name.strip_prefix(&whole.recording).expect("below");
        let copy = rig.copy(&whole.recording, "noisy");
        fs::write(copy.join(name), &noise).expect("written");
        let out = rig.output(rig.program("reprise-log").arg("verify").arg(&copy));
        assert_eq!(out.status.code(), Some(exit::RECORDING), "{}", name.display());
        let run = rig.replay(&copy, &["--cpu-only"]);
        assert!(
            matches!(run.ended.status.code(), Some(exit::OK | exit::RECORDING)),
            "{}: {}",
            name.display(),
            run.ended.stderr
        );
        assert!(whole.ended.text().starts_with(&run.ended.text()), "{}", name.display());
        fs::remove_dir_all(copy).expect("removed");
    }
}
