//! The worked example of `docs/recording-format.md` is a recording that this build makes, byte for byte.

use reprise_recording::*;
use std::{fs, path::Path};

const PAGE: &str = include_str!("../../../docs/recording-format.md");
const OLD_PAGE: &str = include_str!("old/1.0.md");

/// One letter written to one UART, then the end.
fn record(dir: &Path) {
    let dtb = store_input(dir, b"example\n").unwrap();
    let manifest = Manifest {
        id_registers: vec![IdRegister { name: "MIDR".into(), value: 0x412f_c0f1 }],
        machine: "(name: \"example\")".into(),
        inputs: vec![Input { name: "dtb".into(), hash: dtb.hash, size: dtb.size }],
        ..testing::manifest(&[(0, "uart0")])
    };
    let mut writer = Writer::create(dir, &manifest, WriterOptions { level: 0, ..WriterOptions::default() }).unwrap();
    let mut chunk = Chunk::default();
    let at = Position { epoch: 2, count: 40, idle: 0 };
    let entry = |seq, kind, [a, b, c, d]: [u64; 4]| Entry { seq, at, kind, channel: 0, a, b, c, d };
    chunk.journal = vec![
        entry(0, journal::ANCHOR, [0xc010_0000_6000_0013, 0x8877_6655_4433_2211, 1000, 0]),
        entry(1, journal::PROGRESS, [1000, 1000, 1, 0]),
        entry(2, journal::MARK, [2, 1, 0, 0]),
    ];
    let uart = chunk.channel(0);
    let write =
        Message { number: 0, kind: message::WRITE, size: 4, flags: 1, value: 0x48, vtime: 900, ..Message::default() };
    let read = Message { number: 1, kind: message::READ, size: 4, offset: 0x18, vtime: 950, ..Message::default() };
    uart.requests = vec![write, read];
    uart.effects = vec![Message { cause: 1, kind: message::REPLY, value: 0x90, ..Message::default() }];
    uart.output = vec![Output { port: 0, data: b"H".to_vec() }];
    writer.append(&chunk).unwrap();
    let hash = |of: &str| *blake3::hash(of.as_bytes()).as_bytes();
    let end = End {
        reason: 1,
        detail: "off".into(),
        at,
        icount: 1000,
        vtime: 1000,
        state_hash: hash("state"),
        device_hash: hash("devices"),
        console_hash: hash("H"),
        console_bytes: 1,
    };
    writer.finish(&end).unwrap();
}

/// The fenced block of a page that follows a line which is just the file's name in backquotes.
fn block(page: &'static str, name: &str) -> &'static str {
    let heading = format!("\n`{name}`\n\n```");
    let start = page.find(&heading).unwrap_or_else(|| panic!("the page shows no {name}")) + heading.len();
    let start = start + page[start..].find('\n').unwrap() + 1;
    let len = page[start..].find("```").unwrap();
    &page[start..start + len]
}

/// The bytes of a hexdump: each line is offset, bytes, `|`, explanation. The offsets must be right too.
fn hexdump(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let (left, explanation) = line.split_once('|').unwrap_or_else(|| panic!("no explanation: {line}"));
        assert!(!explanation.trim().is_empty(), "no explanation: {line}");
        let mut words = left.split_whitespace();
        let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        assert_eq!(offset, bytes.len(), "a wrong offset: {line}");
        bytes.extend(words.map(|w| u8::from_str_radix(w, 16).unwrap()));
    }
    bytes
}

#[test]
fn the_page_shows_what_the_code_writes() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path());
    assert!(verify(dir.path()).unwrap().is_good());
    assert_eq!(block(PAGE, MANIFEST_FILE), fs::read_to_string(dir.path().join(MANIFEST_FILE)).unwrap());
    for name in ["segments/00000000.seg", INDEX_FILE] {
        let bytes = fs::read(dir.path().join(name)).unwrap();
        assert_eq!(hexdump(block(PAGE, name)), bytes, "{name} is {bytes:02x?}");
    }
}

#[test]
fn the_page_names_every_limit_and_version() {
    for fact in [
        format!("format {FORMAT}"),
        format!("{SEGMENT_HEADER_BYTES} bytes"),
        format!("{CHUNK_HEADER_BYTES} bytes"),
        format!("{} MiB", MAX_CHUNK_BYTES >> 20),
        format!("{} MiB", MAX_MANIFEST_BYTES >> 20),
        format!("{MAX_CHUNK_RECORDS} records"),
    ] {
        assert!(PAGE.contains(&fact), "the page does not say `{fact}`");
    }
}

#[test]
fn a_recording_of_format_1_0_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(SEGMENTS_DIR)).unwrap();
    store_input(dir.path(), b"example\n").unwrap();
    fs::write(dir.path().join(MANIFEST_FILE), block(OLD_PAGE, MANIFEST_FILE)).unwrap();
    for name in ["segments/00000000.seg", INDEX_FILE] {
        fs::write(dir.path().join(name), hexdump(block(OLD_PAGE, name))).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    assert!(report.is_good(), "{report:?}");
    let old = Recording::open(dir.path()).unwrap();
    assert_eq!(old.manifest().format, Version { major: 1, minor: 0 });
    assert!(old.manifest().disks.is_empty() && old.swaps().unwrap().is_empty());
    // The same records as in a recording of today.
    let new = tempfile::tempdir().unwrap();
    record(new.path());
    let chunks = |r: &Recording| r.chunks().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(chunks(&old), chunks(&Recording::open(new.path()).unwrap()));
    // Nobody adds to it, and it can't have what came later.
    assert!(matches!(Writer::resume(dir.path(), WriterOptions::default()), Err(Error::Invalid(_))));
    testing::edit_manifest(new.path(), |text| text.replacen("minor: 1", "minor: 0", 1)).unwrap();
    assert!(Recording::open(new.path()).unwrap_err().to_string().contains("format 1.1"));
}
