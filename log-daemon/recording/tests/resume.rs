//! A recording whose writer has died is gone on with, as if nothing had happened.

mod common;

use common::{chunk, end, files, manifest, record, small};
use reprise_recording::*;
use std::{fs, path::Path};

/// Every file and its bytes.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    files(dir).into_iter().map(|f| (f.clone(), fs::read(dir.join(f)).unwrap())).collect()
}

/// Goes on with what is there, up to `chunks` chunks and the end.
fn complete(dir: &Path, chunks: u64) {
    let (mut writer, resumed) = Writer::resume(dir, small()).unwrap();
    let have = writer.chunks();
    if resumed.complete {
        assert_eq!(resumed.last.unwrap().end, Some(end(chunks)));
        writer.close().unwrap();
        return;
    }
    assert_eq!(resumed.last, have.checked_sub(1).map(chunk));
    for n in have..chunks {
        writer.append(&chunk(n)).unwrap();
    }
    writer.finish(&end(chunks)).unwrap();
}

#[test]
fn killed_at_every_byte_it_ends_as_one_that_was_not() {
    let whole = tempfile::tempdir().unwrap();
    record(whole.path(), 5);
    let want = contents(whole.path());
    let segments: Vec<_> = want.iter().filter(|(f, _)| f.ends_with(".seg")).collect();
    assert!(segments.len() >= 3);
    for (n, (name, bytes)) in segments.iter().enumerate() {
        for cut in (0..=bytes.len()).step_by(7) {
            let dir = tempfile::tempdir().unwrap();
            manifest(dir.path());
            fs::create_dir(dir.path().join(SEGMENTS_DIR)).unwrap();
            fs::copy(whole.path().join(MANIFEST_FILE), dir.path().join(MANIFEST_FILE)).unwrap();
            for (earlier, bytes) in &segments[..n] {
                fs::write(dir.path().join(earlier), bytes).unwrap();
            }
            fs::write(dir.path().join(name), &bytes[..cut]).unwrap();
            if cut % 2 == 1 {
                // An index that is not true any more: of another recording, or garbage.
                fs::write(dir.path().join(INDEX_FILE), if cut % 3 == 0 { &want[0].1[..] } else { b"?" }).unwrap();
            }
            complete(dir.path(), 5);
            assert!(contents(dir.path()) == want, "{name} cut at {cut}");
            assert!(verify(dir.path()).unwrap().is_good());
        }
    }
}

#[test]
fn one_with_its_index_of_earlier_segments_is_gone_on_with() {
    let whole = tempfile::tempdir().unwrap();
    record(whole.path(), 5);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
    for n in 0..4 {
        writer.append(&chunk(n)).unwrap();
    }
    assert!(dir.path().join(INDEX_FILE).exists(), "a segment was finished");
    assert!(Writer::resume(dir.path(), small()).is_err(), "a live one is left alone");
    drop(writer);
    complete(dir.path(), 5);
    assert!(contents(dir.path()) == contents(whole.path()));
}

#[test]
fn a_damaged_one_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 5);
    fs::remove_file(dir.path().join(INDEX_FILE)).unwrap();
    let first = dir.path().join("segments/00000000.seg");
    let mut bytes = fs::read(&first).unwrap();
    bytes[SEGMENT_HEADER_BYTES + CHUNK_HEADER_BYTES + 3] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let before = contents(dir.path());
    assert!(matches!(Writer::resume(dir.path(), small()), Err(Error::Corrupt(_))));
    assert!(contents(dir.path()) == before);
}
