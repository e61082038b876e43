//! Cut, flipped, foreign, unfinished and hostile recordings.

mod common;

use common::{chunk, end, files, manifest, message, record, small};
use proptest::prelude::*;
use reprise_recording::*;
use std::{
    cell::Cell,
    fs, io,
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// All that can be read, and how it ends.
fn read(dir: &Path) -> (Vec<Chunk>, Status) {
    let r = Recording::open(dir).unwrap();
    let mut chunks = r.chunks();
    let good = chunks.by_ref().map_while(Result::ok).collect();
    (good, chunks.status())
}

/// Changes a byte in place; to write whole files anew would wait for the disk each time.
fn put_byte(path: &Path, at: usize, byte: u8) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(&[byte], at as u64).unwrap();
}

/// Where each chunk ends: (segment file, offset of its start, offset of its end).
fn extents(dir: &Path) -> Vec<(String, u64, u64)> {
    let r = Recording::open(dir).unwrap();
    let mut chunks = r.chunks();
    let mut list = Vec::new();
    while let Some(c) = chunks.next() {
        c.unwrap();
        let i = chunks.info().unwrap();
        list.push((format!("segments/{:08}.seg", i.segment), i.offset, i.offset + i.stored_bytes));
    }
    list
}

#[test]
fn cut_at_every_byte_it_reads_up_to_the_last_whole_chunk() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    fs::remove_file(dir.path().join(INDEX_FILE)).unwrap();
    let extents = extents(dir.path());
    let whole = read(dir.path()).0;
    let mut segments: Vec<String> = extents.iter().map(|e| e.0.clone()).collect();
    segments.dedup();
    assert!(segments.len() >= 2);
    // As a killed writer leaves it: the later segments are not there, the last is cut.
    while let Some(name) = segments.pop() {
        let path = dir.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        for cut in (0..bytes.len() as u64).rev() {
            fs::File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let kept = extents.iter().filter(|e| e.0 < name || (e.0 == name && e.2 <= cut)).count();
            let boundary = extents.iter().filter(|e| e.0 == name && e.2 <= cut).map(|e| e.2).max();
            let offset =
                boundary.unwrap_or(if cut < SEGMENT_HEADER_BYTES as u64 { 0 } else { SEGMENT_HEADER_BYTES as u64 });
            let (chunks, status) = read(dir.path());
            assert_eq!(chunks, whole[..kept], "cut {name} at {cut}");
            assert_eq!(status, Status::Truncated { segment: segments.len() as u32, offset }, "cut {name} at {cut}");
            assert!(!verify(dir.path()).unwrap().is_good());
        }
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(read(dir.path()).1, Status::Truncated { segment: 0, offset: 0 });
}

#[test]
fn a_cut_inside_the_recording_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    let first = dir.path().join("segments/00000000.seg");
    let bytes = fs::read(&first).unwrap();
    for cut in (0..bytes.len() as u64).rev() {
        fs::File::options().write(true).open(&first).unwrap().set_len(cut).unwrap();
        let Status::Corrupt(fault) = read(dir.path()).1 else { panic!("cut at {cut} was not seen") };
        // Cut between two chunks, the next segment shows it.
        assert!(fault.place.file == "segments/00000000.seg" || fault.place.offset == Some(0), "{fault}");
    }
    fs::remove_file(&first).unwrap();
    let Status::Corrupt(fault) = read(dir.path()).1 else { panic!("a missing segment was not seen") };
    assert_eq!(fault.place.file, "segments/00000000.seg");
}

#[test]
fn every_flipped_bit_is_detected_and_placed() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 2);
    let extents = extents(dir.path());
    let mut flips = 0;
    for name in files(dir.path()) {
        let path = dir.path().join(&name);
        let good = fs::read(&path).unwrap();
        for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            put_byte(&path, at, good[at] ^ 1 << bit);
            let report = verify(dir.path()).unwrap();
            assert!(!report.is_good(), "bit {bit} of byte {at} of {name} was not seen");
            let place = &report.faults[0].place;
            assert_eq!(place.file, name, "bit {bit} of byte {at}: {place}");
            if name.starts_with("segments") {
                let hit = extents.iter().position(|e| e.0 == name && (e.1..e.2).contains(&(at as u64)));
                assert_eq!(place.chunk, hit.map(|c| c as u64), "bit {bit} of byte {at} of {name}: {place}");
                assert_eq!(place.offset, Some(hit.map_or(0, |c| extents[c].1)), "bit {bit} of byte {at} of {name}");
            }
            put_byte(&path, at, good[at]);
            flips += 1;
        }
    }
    assert!(flips > 10_000, "{flips}");
    assert!(verify(dir.path()).unwrap().is_good());
}

#[test]
fn a_changed_byte_never_changes_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 3);
    let whole = read(dir.path()).0;
    for name in files(dir.path()).into_iter().filter(|n| n.starts_with("segments")) {
        let path = dir.path().join(&name);
        let good = fs::read(&path).unwrap();
        for (at, &byte) in good.iter().enumerate() {
            put_byte(&path, at, byte.wrapping_add(0x5b));
            let (chunks, status) = read(dir.path());
            assert_eq!(chunks, whole[..chunks.len()]);
            assert!(matches!(status, Status::Corrupt(_)), "byte {at} of {name}: {status:?}");
            put_byte(&path, at, byte);
        }
    }
}

#[test]
fn a_bad_index_is_reported_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 3);
    let r = Recording::open(dir.path()).unwrap();
    let (good, _) = r.index().unwrap();
    let path = dir.path().join(INDEX_FILE);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (index, fault) = r.index().unwrap();
    assert_eq!(index, good);
    assert_eq!(fault.unwrap().place.file, INDEX_FILE);
    fs::remove_file(&path).unwrap();
    assert_eq!(r.index().unwrap(), (good, None));
    assert_eq!(verify(dir.path()).unwrap().faults[0].place.file, INDEX_FILE);
    // An index of another recording of the same shape: its entries fit, its hash does not.
    let other = tempfile::tempdir().unwrap();
    record(other.path(), 3);
    testing::edit(other.path(), |c| c.journal.iter_mut().for_each(|e| e.d ^= u64::from(e.kind == journal::ANCHOR)))
        .unwrap();
    fs::copy(other.path().join(INDEX_FILE), &path).unwrap();
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.faults[0].place.file, INDEX_FILE, "{report:?}");
}

#[test]
fn bytes_and_segments_behind_the_end_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 1);
    let path = dir.path().join("segments/00000000.seg");
    let good = fs::read(&path).unwrap();
    fs::write(&path, [&good[..], &[0]].concat()).unwrap();
    assert!(matches!(read(dir.path()).1, Status::Corrupt(f) if f.place.offset == Some(good.len() as u64)));
    fs::write(&path, &good).unwrap();
    fs::write(dir.path().join("segments/00000001.seg"), b"").unwrap();
    assert!(matches!(read(dir.path()).1, Status::Corrupt(f) if f.place.file == "segments/00000001.seg"));
}

#[test]
fn a_segment_or_manifest_of_another_recording_is_noticed() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    record(a.path(), 4);
    record(b.path(), 4);
    testing::edit(b.path(), |c| c.channel(0).requests.iter_mut().take(1).for_each(|m| m.value = 7)).unwrap();
    fs::copy(b.path().join("segments/00000001.seg"), a.path().join("segments/00000001.seg")).unwrap();
    assert!(matches!(read(a.path()).1, Status::Corrupt(f) if f.place == Place::at("segments/00000001.seg", 0)));
    testing::edit_manifest(b.path(), |text| text.replace("vexpress", "vexprezz")).unwrap();
    assert!(verify(b.path()).unwrap().is_good());
    fs::copy(b.path().join(MANIFEST_FILE), a.path().join(MANIFEST_FILE)).unwrap();
    assert!(matches!(read(a.path()).1, Status::Corrupt(f) if f.place == Place::at("segments/00000000.seg", 0)));
}

#[test]
fn other_versions_are_refused_or_read() {
    let open = |from: &str, to: &str| {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), 1);
        testing::edit_manifest(dir.path(), |text| {
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1)
        })
        .unwrap();
        Recording::open(dir.path()).map(|r| r.manifest().clone())
    };
    for major in [0, 2, 255] {
        let e = open("major: 1", &format!("major: {major}")).unwrap_err();
        assert!(matches!(e, Error::Version { found, .. } if found.major == major), "{e}");
        assert!(e.to_string().contains(&format!("{major}.1")) && e.to_string().contains("1.x"), "{e}");
    }
    // Another major may be another text altogether, behind its version.
    let e = open("major: 1,\n        minor: 1,\n    ),", "major: 3, minor: 1), novel: [1, 2], ").unwrap_err();
    assert!(matches!(e, Error::Version { .. }), "{e}");
    // A newer minor adds fields that can be passed over; a field that this version should know can't.
    let newer = open("minor: 1,\n    ),", "minor: 7), novel: Some([1, 2]), ").unwrap();
    assert_eq!(newer.format, Version { major: 1, minor: 7 });
    let e = open("    uuid:", "    novel: 1, uuid:").unwrap_err();
    assert!(e.to_string().contains("novel"), "{e}");
}

#[test]
fn a_chunk_of_another_version_than_its_manifest_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 1);
    testing::edit_manifest(dir.path(), |text| text.replacen("minor: 1", "minor: 2", 1)).unwrap();
    let Status::Corrupt(fault) = read(dir.path()).1 else { panic!("not seen") };
    assert!(fault.what.contains("1.1") && fault.what.contains("1.2"), "{fault}");
}

#[test]
fn manifests_that_break_a_rule_are_refused() {
    let refused = |from: &str, to: &str, why: &str| {
        let dir = tempfile::tempdir().unwrap();
        record(dir.path(), 1);
        testing::edit_manifest(dir.path(), |text| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1)
        })
        .unwrap();
        let e = Recording::open(dir.path()).unwrap_err();
        assert!(e.is_bad_recording() && e.to_string().contains(why), "{e}");
    };
    refused("    engine:", "    uuid: \"x\", engine:", "duplicate field named `uuid`");
    refused("    engine: \"interp\",\n", "", "engine");
    refused("value: 1093648625,\n", "value: 1093648625, value: 1,\n", "duplicate field named `value`");
    refused("    ],\n)\n", "    ],\n) trailing\n", "line ");
    refused("name: \"MIDR\"", "name: 5", "line ");
    refused("id: 3,", "id: 2,", "two entries for stream `2`");
    refused("kind: \"effects\"", "kind: \"requests\"", "two entries for stream of kind and channel");
    refused("kind: \"effects\"", "kind: \"defects\"", "unknown kind `defects`");
    refused("kind: \"journal\",\n            channel: 0", "kind: \"output\", channel: 9", "no journal stream");
    refused("kind: \"final\",\n            channel: 0", "kind: \"final\", channel: 1", "belongs to no channel");
    refused(common::UUID, "../../../etc/passwd", "no UUID");
    refused("hash: \"", "hash: \"../", "no BLAKE3 hash");
    refused("spec: \"", "spec: \"0", "hex digits");
}

#[test]
fn what_is_no_recording_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let why = |p: &Path| Recording::open(p).unwrap_err().to_string();
    assert!(why(&dir.path().join("gone")).contains("does not exist"));
    assert!(why(dir.path()).contains("no manifest"));
    fs::write(dir.path().join("file"), [0; 9]).unwrap();
    assert!(why(&dir.path().join("file")).contains("not a directory"));
}

/// Bytes without a pattern.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_mebibyte_of_random_bytes_is_a_clear_error() {
    let noise = noise(1, 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(MANIFEST_FILE), &noise).unwrap();
    let e = Recording::open(dir.path()).unwrap_err();
    assert!(e.is_bad_recording() && e.to_string().contains("does not begin as a recording's manifest"), "{e}");
    fs::remove_file(dir.path().join(MANIFEST_FILE)).unwrap();
    record(dir.path(), 1);
    fs::write(dir.path().join("segments/00000000.seg"), &noise).unwrap();
    assert!(matches!(read(dir.path()).1, Status::Corrupt(f) if f.place == Place::at("segments/00000000.seg", 0)));
    fs::write(dir.path().join(INDEX_FILE), &noise).unwrap();
    assert_eq!(verify(dir.path()).unwrap().faults.len(), 2);
}

/// A segment of a file system that runs full.
#[derive(Debug)]
struct SmallDisk {
    dir: DirMedium,
    room: Rc<Cell<usize>>,
}

impl Medium for SmallDisk {
    fn begin(&mut self, manifest: &[u8]) -> io::Result<()> {
        self.take(manifest.len()).and_then(|n| if n < manifest.len() { Err(full()) } else { self.dir.begin(manifest) })
    }

    fn old_segment(&mut self, _: &str, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn new_segment(&mut self, name: &str) -> io::Result<()> {
        self.dir.new_segment(name)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let n = self.take(bytes.len())?;
        self.dir.append(&bytes[..n])?;
        if n < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let n = self.take(bytes.len())?;
        if n < bytes.len() { Err(full()) } else { self.dir.replace(name, bytes) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dir.sync()
    }
}

impl SmallDisk {
    fn take(&self, want: usize) -> io::Result<usize> {
        let n = want.min(self.room.get());
        self.room.set(self.room.get() - n);
        Ok(n)
    }
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

#[test]
fn a_full_disk_is_a_clear_error_and_what_was_written_stays_good() {
    let plan = tempfile::tempdir().unwrap();
    record(plan.path(), 3);
    let whole = read(plan.path()).0;
    let segments: u64 = Recording::open(plan.path()).unwrap().segment_bytes().unwrap().iter().sum();
    let manifest_bytes = fs::metadata(plan.path().join(MANIFEST_FILE)).unwrap().len() as usize;
    // Every byte matters where chunks are written; of the manifest, some.
    let in_manifest = (0..manifest_bytes).step_by(97);
    for room in in_manifest.chain(manifest_bytes..manifest_bytes + segments as usize + 200) {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(dir.path());
        let disk = SmallDisk { dir: DirMedium::new(dir.path()), room: Rc::new(Cell::new(room)) };
        let mut written = 0;
        let run = Writer::begin(disk, &manifest, small()).and_then(|mut w| {
            for n in 0..3 {
                let done = w.append(&chunk(n));
                if done.is_err() {
                    // Nothing can be added behind the hole, even if there is room again.
                    assert!(matches!(w.append(&chunk(n)), Err(Error::Ended { chunks }) if chunks == written as u64));
                }
                done?;
                written += 1;
            }
            w.finish(&end(3))
        });
        let error = match run {
            Ok(_) => return assert!(room > manifest_bytes + segments as usize),
            Err(e) => e.to_string(),
        };
        assert!(error.contains("No space left") && error.contains("stays good"), "{error}");
        if room >= manifest_bytes {
            let (chunks, status) = read(dir.path());
            assert!(chunks.len() >= written, "{room}: {error}");
            assert_eq!(chunks, whole[..chunks.len()]);
            assert!(matches!(status, Status::Truncated { .. } | Status::Complete(_)), "{room}: {status:?}");
        }
    }
    panic!("the disk was never large enough");
}

#[test]
fn a_folder_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = manifest(dir.path());
    fs::create_dir(dir.path().join(SEGMENTS_DIR)).unwrap();
    let mut disk = DirMedium::new(dir.path());
    disk.begin(manifest.to_text().unwrap().as_bytes()).unwrap();
    assert!(disk.append(b"x").is_err(), "no segment yet");
    fs::remove_dir(dir.path().join(SEGMENTS_DIR)).unwrap();
    assert_eq!(disk.new_segment("segments/00000000.seg").unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Raises a flag when it goes.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn it_can_be_read_while_it_is_being_written() {
    const CHUNKS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
    assert!(matches!(read(dir.path()), (c, Status::Live { segment: 0, offset: 64 }) if c.is_empty()));
    let finished = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            let r = Recording::open(dir.path()).unwrap();
            let mut chunks = r.chunks();
            let mut seen = 0;
            loop {
                let last_look = finished.load(Ordering::Acquire);
                for c in chunks.by_ref() {
                    let c = c.unwrap();
                    if c.end.is_none() {
                        assert_eq!(c, chunk(seen));
                        seen += 1;
                    }
                }
                match chunks.status() {
                    Status::Complete(e) => break assert_eq!((e, seen), (end(CHUNKS), CHUNKS)),
                    Status::Live { .. } => {}
                    // The lock is let go of a moment after the last chunk is written.
                    other => assert!(!last_look, "{other:?}"),
                }
                assert!(!last_look, "the reader never saw the end");
                thread::yield_now();
            }
        });
        // However the writer ends, the reader must not wait for more.
        let _at_the_end = Raise(&finished);
        for n in 0..CHUNKS {
            writer.append(&chunk(n)).unwrap();
        }
        writer.finish(&end(CHUNKS)).unwrap();
    });
    assert!(verify(dir.path()).unwrap().is_good());
}

#[test]
fn a_writer_can_take_over_the_manifest_that_is_meant_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = manifest(dir.path());
    let adopt = |m: &Manifest| Writer::begin(DirMedium::adopt(dir.path()), m, small());
    assert!(adopt(&manifest).is_err(), "there is none yet");
    fs::create_dir(dir.path().join(SEGMENTS_DIR)).unwrap();
    fs::write(dir.path().join(MANIFEST_FILE), manifest.to_text().unwrap()).unwrap();
    let mut writer = adopt(&manifest).unwrap();
    assert!(adopt(&manifest).is_err(), "two writers");
    writer.append(&chunk(0)).unwrap();
    assert!(matches!(read(dir.path()).1, Status::Live { .. }));
    writer.finish(&end(1)).unwrap();
    assert!(verify(dir.path()).unwrap().is_good());
    manifest.engine = "other".into();
    assert!(adopt(&manifest).unwrap_err().to_string().contains("another one"));
}

#[test]
fn a_writer_that_is_gone_leaves_a_truncated_recording() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
    writer.append(&chunk(0)).unwrap();
    assert!(verify(dir.path()).unwrap().is_good(), "live");
    drop(writer);
    let (chunks, status) = read(dir.path());
    assert_eq!(chunks, [chunk(0)]);
    assert!(matches!(status, Status::Truncated { segment: 0, .. }));
    assert!(!verify(dir.path()).unwrap().is_good());
}

#[test]
fn a_repaired_forgery_is_readable_and_only_a_replay_can_tell() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 4);
    testing::edit(dir.path(), |c| {
        if let Some(m) = c.channels.get_mut(&3).and_then(|ch| ch.effects.first_mut()).filter(|_| c.seq == 2) {
            m.value += 1;
        }
    })
    .unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.is_good(), "{report:?}");
    let chunks = read(dir.path()).0;
    assert_eq!(chunks[2].channels[&3].effects[0].value, 1_795_372_201);
    assert_eq!(chunks[1], chunk(1));
}

#[test]
fn hostile_counts_cost_no_memory() {
    // A section that claims 2^60 messages, or a column of 2^18 with payloads that are not there.
    for claim in [1u64 << 60, 1 << 18, (1 << 18) + 1] {
        let mut payload = vec![2];
        let mut body = Vec::new();
        let mut v = claim;
        while v >= 0x80 {
            body.push(v as u8 | 0x80);
            v >>= 7;
        }
        body.push(v as u8);
        body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0x03]);
        payload.push(body.len() as u8);
        payload.extend_from_slice(&body);
        fuzz_chunk_payload(&payload);
    }
    assert_eq!(message(1, 2, 3, 4, 5).size, 4);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, section in prop::collection::vec(0u8..8, 0..200)) {
        fuzz_chunk_payload(&bytes);
        fuzz_chunk_payload(&section);
        fuzz_segment(&bytes, [0; 32]);
        fuzz_manifest(&bytes);
        fuzz_index(&bytes);
    }
}
