//! What is written is what is read.

mod common;

use common::{chunk, end, files, manifest, record, small};
use proptest::prelude::*;
use reprise_recording::*;
use std::fs;

#[test]
fn a_complete_recording_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 5);
    let r = Recording::open(dir.path()).unwrap();
    assert_eq!(*r.manifest(), manifest(dir.path()));
    let mut chunks: Vec<Chunk> = r.chunks().map(Result::unwrap).collect();
    assert_eq!(chunks.pop().unwrap().end, Some(end(5)));
    assert_eq!(chunks, (0..5).map(chunk).collect::<Vec<_>>());
    assert_eq!(r.status().unwrap(), Status::Complete(end(5)));
    assert!(r.segment_bytes().unwrap().len() > 1, "the test is to cross segments");
    assert_eq!(fs::read(r.input_path(&r.manifest().inputs[0].hash)).unwrap(), b"not much of a kernel");
    let report = verify(dir.path()).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.chunks, report.inputs), (6, 2));
}

#[test]
fn equal_inputs_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let a = store_input(dir.path(), b"same").unwrap();
    fs::write(dir.path().join("f"), b"same").unwrap();
    assert_eq!(store_input_file(dir.path(), &dir.path().join("f")).unwrap(), a);
    assert_eq!(fs::read_dir(dir.path().join(INPUTS_DIR)).unwrap().count(), 1);
    assert_eq!(read_input(dir.path(), &a.hash).unwrap(), b"same");
    // A damaged one is replaced when the right bytes come again.
    fs::write(dir.path().join(INPUTS_DIR).join(&a.hash), b"sane").unwrap();
    assert!(read_input(dir.path(), &a.hash).is_err());
    store_input(dir.path(), b"same").unwrap();
    assert_eq!(read_input(dir.path(), &a.hash).unwrap(), b"same");
    assert!(read_input(dir.path(), "../f").is_err(), "a hash is no path");
}

#[test]
fn a_recording_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 1);
    let before = fs::read(dir.path().join(MANIFEST_FILE)).unwrap();
    let again = Writer::create(dir.path(), &manifest(dir.path()), small());
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    assert_eq!(fs::read(dir.path().join(MANIFEST_FILE)).unwrap(), before);
}

#[test]
fn no_temporary_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 3);
    assert!(files(dir.path()).iter().all(|f| !f.contains("tmp")), "{:?}", files(dir.path()));
}

#[test]
fn chunks_can_be_read_from_any_index_entry() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 5);
    let r = Recording::open(dir.path()).unwrap();
    let (index, fault) = r.index().unwrap();
    assert_eq!((index.len(), fault), (6, None));
    for (n, entry) in index.iter().enumerate().take(5) {
        assert_eq!(entry.icount, 1_000_000 * (n as u64 + 1));
        let rest: Vec<Chunk> = r.chunks_from(n as u64, entry).unwrap().map(Result::unwrap).collect();
        assert_eq!(rest.len(), 6 - n);
        assert_eq!(rest[0], chunk(n as u64));
    }
}

#[test]
fn what_breaks_a_rule_is_refused_and_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
    let mut stray = Chunk::default();
    stray.channel(9).output.push(Output { port: 0, data: vec![1] });
    assert!(matches!(writer.append(&stray), Err(Error::Invalid(_))));
    let many = Chunk { journal: vec![Entry::default(); MAX_CHUNK_RECORDS + 1], ..Chunk::default() };
    assert!(matches!(writer.append(&many), Err(Error::Invalid(_))));
    let mut large = Chunk::default();
    large.channel(0).output.push(Output { port: 0, data: vec![1; MAX_CHUNK_BYTES] });
    assert!(matches!(writer.append(&large), Err(Error::Invalid(_))));
    assert_eq!(writer.append(&chunk(0)).unwrap().seq, 0);
    writer.finish(&end(1)).unwrap();
    assert!(verify(dir.path()).unwrap().is_good());
}

fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0u64..200, any::<u64>()]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let at = (any_u64(), any_u64(), any::<u32>()).prop_map(|(epoch, count, idle)| Position { epoch, count, idle });
    let abcd = [any_u64(), any_u64(), any_u64(), any_u64()];
    (any_u64(), at, prop_oneof![0u8..10, any::<u8>()], prop_oneof![0u16..3, any::<u16>()], abcd)
        .prop_map(|(seq, at, kind, channel, [a, b, c, d])| Entry { seq, at, kind, channel, a, b, c, d })
}

fn any_message() -> impl Strategy<Value = Message> {
    let kind = prop_oneof![1u8..8, 0x81u8..0x88, any::<u8>()];
    let small = (kind, any::<u8>(), any::<u16>(), any::<u32>(), any::<[u8; 8]>());
    ((any_u64(), any_u64(), any_u64(), any_u64(), any_u64()), small, prop::collection::vec(any::<u8>(), 0..20))
        .prop_map(|((number, cause, vtime, offset, value), (kind, size, flags, arg, inline), data)| Message {
            number,
            cause,
            vtime,
            kind,
            size,
            flags,
            arg,
            offset,
            value,
            inline,
            data,
        })
}

fn any_channel() -> impl Strategy<Value = ChannelRecords> {
    let output = (any_u64(), prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(port, data)| Output { port, data });
    let messages = || prop::collection::vec(any_message(), 0..20);
    (messages(), messages(), prop::collection::vec(output, 0..5))
        .prop_map(|(requests, effects, output)| ChannelRecords { requests, effects, output })
}

fn any_chunk() -> impl Strategy<Value = Chunk> {
    (prop::collection::vec(any_entry(), 0..40), any_channel(), any_channel()).prop_map(|(journal, a, b)| {
        let channels = [(0, a), (3, b)].into_iter().filter(|(_, c)| !c.is_empty()).collect();
        Chunk { seq: 0, journal, channels, swaps: Vec::new(), end: None }
    })
}

fn any_end() -> impl Strategy<Value = End> {
    let hashes = [any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>()];
    (any::<u32>(), ".{0,40}", any_entry(), hashes).prop_map(
        |(reason, detail, e, [state_hash, device_hash, console_hash])| End {
            reason,
            detail,
            at: e.at,
            icount: e.a,
            vtime: e.b,
            state_hash,
            device_hash,
            console_hash,
            console_bytes: e.c,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_records_roundtrip(chunks in prop::collection::vec(any_chunk(), 0..4), end in any_end()) {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
        for c in &chunks {
            writer.append(c).unwrap();
        }
        writer.finish(&end).unwrap();
        let r = Recording::open(dir.path()).unwrap();
        let mut read: Vec<Chunk> = r.chunks().map(Result::unwrap).collect();
        prop_assert_eq!(read.pop().unwrap().end, Some(end));
        for (n, (a, b)) in read.into_iter().zip(chunks).enumerate() {
            prop_assert_eq!(a, Chunk { seq: n as u64, ..b });
        }
        prop_assert!(verify(dir.path()).unwrap().is_good());
    }

    #[test]
    fn any_manifest_roundtrips(texts in prop::collection::vec("\\PC{0,12}|[\\n\\r\\t\"#\\\\]{0,6}", 9), spec: Vec<u8>, n: u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut m = manifest(dir.path());
        [&mut m.created, &mut m.reprise, &mut m.engine, &mut m.host_cpu, &mut m.machine].into_iter().zip(&texts)
            .for_each(|(field, t)| field.clone_from(t));
        m.id_registers[0] = IdRegister { name: texts[5].clone(), value: n };
        m.uncounted.push(texts[6].clone());
        m.inputs[0].name.clone_from(&texts[7]);
        m.plugins[0].kind.clone_from(&texts[8]);
        m.plugins[0].spec = spec;
        m.quirks.bits = n;
        prop_assert_eq!(Manifest::parse(m.to_text().unwrap().as_bytes()).unwrap(), m);
    }
}

#[test]
fn swaps_are_known_up_front() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), &manifest(dir.path()), small()).unwrap();
    let swap = |request, name: &str| Swap {
        channel: 3,
        request,
        hash: *blake3::hash(name.as_bytes()).as_bytes(),
        name: name.into(),
        version: "1.1.0".into(),
        config: None,
    };
    let with = |config: &str, swap| Swap { config: Some(config.into()), ..swap };
    let swaps = [
        swap(7, "a.so"),
        swap(9, "b.so"),
        with("(fifo: 16)", swap(300, "")),
        swap(301, "c.so"),
        with("", swap(302, "c.so")),
    ];
    writer.append(&Chunk { swaps: swaps[..2].to_vec(), ..chunk(0) }).unwrap();
    writer.append(&chunk(1)).unwrap();
    writer.append(&Chunk { swaps: swaps[2..].to_vec(), ..chunk(2) }).unwrap();
    let long = Chunk { swaps: vec![swap(1, &"x".repeat(4097))], ..Chunk::default() };
    assert!(matches!(writer.append(&long), Err(Error::Invalid(_))));
    let long = Chunk { swaps: vec![with(&"x".repeat(4097), swap(1, "a.so"))], ..Chunk::default() };
    assert!(matches!(writer.append(&long), Err(Error::Invalid(_))));
    writer.finish(&end(3)).unwrap();
    let r = Recording::open(dir.path()).unwrap();
    assert_eq!(r.swaps().unwrap(), swaps);
    assert_eq!(swaps[0].input(), blake3::hash(b"a.so").to_hex().as_str());
    assert!(verify(dir.path()).unwrap().is_good());
}

#[test]
fn images_keep_their_holes_and_their_hash() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(b"first", 5000).unwrap();
    file.write_all_at(b"last", (40 << 20) + 17).unwrap();
    file.set_len((64 << 20) + 512).unwrap();
    let file = fs::File::open(&path).unwrap();
    let size = file.metadata().unwrap().len();
    let store = |original| store_image(dir.path(), size, original, |at, to| file.read_exact_at(to, at)).unwrap();
    let stored = store(None);
    assert_eq!(stored, hash_file(&path).unwrap());
    assert_eq!(stored.size, (64 << 20) + 512);
    assert_eq!(stored.hash, blake3::hash(&fs::read(&path).unwrap()).to_hex().as_str());
    let copy = dir.path().join(INPUTS_DIR).join(&stored.hash);
    assert!(fs::read(&copy).unwrap() == fs::read(&path).unwrap());
    assert!(copy.metadata().unwrap().blocks() <= path.metadata().unwrap().blocks() + 64, "the copy has holes");
    assert_eq!(store(Some(std::os::fd::AsFd::as_fd(&file))), stored, "a second time is no error");
}
