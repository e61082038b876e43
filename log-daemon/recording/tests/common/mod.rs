//! A small recording to try things on.

#![allow(dead_code, reason = "each test file uses a part of it")]

use reprise_recording::*;
use std::{fs, path::Path};

/// The machine's UUID in all of these tests.
pub(crate) const UUID: &str = "1a2b3c4d-0000-4000-8000-00000000cafe";

/// A manifest with two channels, one input and one plugin, all stored in `dir`.
pub(crate) fn manifest(dir: &Path) -> Manifest {
    let kernel = store_input(dir, b"not much of a kernel").unwrap();
    let plugin = store_input(dir, b"not much of a plugin").unwrap();
    Manifest {
        format: FORMAT,
        uuid: UUID.into(),
        created: "2026-11-22T18:30:00Z".into(),
        reprise: "0.1.0".into(),
        engine: "interp".into(),
        host_cpu: "a \"quoted\" CPU".into(),
        id_registers: vec![IdRegister { name: "MIDR".into(), value: 0x412f_c0f1 }],
        uncounted: vec![],
        quirks: Quirks { bits: 1, names: vec!["secure-boot".into()] },
        machine: "(\n    name: \"vexpress\",\n)\n".into(),
        inputs: vec![Input { name: "kernel".into(), hash: kernel.hash, size: kernel.size }],
        plugins: vec![Plugin {
            device: "uart0".into(),
            hash: plugin.hash,
            size: plugin.size,
            abi: 1,
            kind: "pl011".into(),
            spec: vec![0, 1, 0xfe],
        }],
        disks: Vec::new(),
        streams: Manifest::standard_streams(&[(0, "uart0"), (3, "rtc")]),
    }
}

/// A message.
pub(crate) fn message(number: u64, kind: u8, offset: u64, value: u64, vtime: u64) -> Message {
    Message { number, kind, offset, value, vtime, size: 4, ..Message::default() }
}

/// Chunk `n` of a made-up run: some text to a UART, a read of a clock, a key, an anchor and a progress group.
pub(crate) fn chunk(n: u64) -> Chunk {
    let mut chunk = Chunk { seq: n, ..Chunk::default() };
    let text = format!("line {n} of the console\n");
    let base = n * 100;
    let uart = chunk.channel(0);
    for (i, b) in text.bytes().enumerate() {
        let mut m = message(base + i as u64, message::WRITE, 0, u64::from(b), 1_000_000 * n + 50 * i as u64);
        m.flags = 1;
        uart.requests.push(m);
    }
    let mut key = message(base + text.len() as u64, message::HOST, 0, 0, 1_000_000 * n + 5000);
    key.data = b"ls\r".to_vec();
    uart.requests.push(key);
    let cause = base + text.len() as u64;
    uart.effects.push(Message { cause, arg: 2, ..message(2 * n, message::SET_LINE, 0, 1, 0) });
    uart.effects.push(Message { cause, ..message(2 * n + 1, message::ACK, 0, 0, 0) });
    uart.output.push(Output { port: 0, data: text.into_bytes() });
    chunk.channel(3).requests.push(message(n, message::READ, 0, 0, 1_000_000 * n + 6000));
    chunk.channel(3).effects.push(Message { cause: n, ..message(n, message::REPLY, 0, 1_795_372_200, 0) });
    let at = |count| Position { epoch: 30 * (n + 1), count, idle: 0 };
    let icount = 1_000_000 * (n + 1);
    let entry =
        |i: u64, at, kind, channel, [a, b, c, d]: [u64; 4]| Entry { seq: 6 * n + i, at, kind, channel, a, b, c, d };
    chunk.journal = vec![
        entry(0, at(10), journal::HOST, 0, [cause, 0, 0, 0]),
        entry(1, at(20), journal::CONSUMED, 0, [2 * n, 0x0123_4567_89ab_cdef, 0, 0]),
        entry(2, at(500), journal::ANCHOR, 0, [0xc010_1234_6000_0013, 0xfeed_face_0000_0000 + n, icount - 10, 77 * n]),
        entry(3, at(510), journal::PROGRESS, 0, [icount, icount, 2, 0]),
        entry(4, at(510), journal::MARK, 0, [cause + 1, 2 * n + 2, 0x1111_2222_3333_4444u64.wrapping_mul(n + 1), 5]),
        entry(5, at(510), journal::MARK, 3, [n + 1, n + 1, 0, 5]),
    ];
    chunk
}

/// A final record.
pub(crate) fn end(chunks: u64) -> End {
    End {
        reason: 1,
        detail: "power off".into(),
        at: Position { epoch: 30 * chunks, count: 510, idle: 0 },
        icount: 1_000_000 * chunks,
        vtime: 1_000_000 * chunks,
        state_hash: [0xaa; 32],
        device_hash: [0xbb; 32],
        console_hash: [0xcc; 32],
        console_bytes: 22 * chunks,
    }
}

/// Small segments: about two chunks each.
pub(crate) fn small() -> WriterOptions {
    WriterOptions { segment_bytes: 600, ..WriterOptions::default() }
}

/// A complete recording of so many chunks and a final one.
pub(crate) fn record(dir: &Path, chunks: u64) {
    let mut writer = Writer::create(dir, &manifest(dir), small()).unwrap();
    for n in 0..chunks {
        assert_eq!(writer.append(&chunk(n)).unwrap().seq, n);
    }
    let bytes = writer.finish(&end(chunks)).unwrap();
    let r = Recording::open(dir).unwrap();
    assert_eq!(bytes, r.segment_bytes().unwrap().iter().sum::<u64>() + r.index_bytes());
}

/// All files of a recording, relative, sorted.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut list = Vec::new();
    for folder in ["", INPUTS_DIR, SEGMENTS_DIR] {
        for f in fs::read_dir(dir.join(folder)).unwrap().map(Result::unwrap) {
            if f.file_type().unwrap().is_file() {
                let name = f.file_name().into_string().unwrap();
                list.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
    }
    list.sort();
    list
}
