use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_virtio::regs::{interrupt, reg, status};
use reprise_virtio::testing::{BASE, Piece, Rig, Rng, descriptor, hostile};

use super::*;

const ALL: u64 = u64::MAX;
/// Without EVENT_IDX and indirect descriptors.
const PLAIN: u64 = !(3 << 28);

fn image(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
}

fn rig(config: &str) -> Rig {
    Rig::new::<Virtio<Blk>>(config, image(4096))
}

fn header(rig: &mut Rig, kind: u32, sector: u64) -> u64 {
    let at = rig.alloc(16, 16);
    rig.poke(at, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
    at
}

/// A request with these data pieces, in a chain or in a table; where its status will be.
fn request(rig: &mut Rig, kind: u32, sector: u64, data: &[Piece], indirect: bool) -> u64 {
    let head = header(rig, kind, sector);
    let status = rig.alloc(1, 1);
    rig.poke(status, &[0xee]);
    let pieces = [&[(head, 16, false)], data, &[(status, 1, true)]].concat();
    if indirect {
        rig.add_indirect(0, &pieces)
    } else {
        rig.add(0, &pieces)
    };
    status
}

/// The same, carried out: status and the length in the used ring. What is too long for a chain goes into a table.
fn run(rig: &mut Rig, kind: u32, sector: u64, data: &[Piece]) -> (u8, u32) {
    let status = request(rig, kind, sector, data, data.len() > 200);
    rig.kick(0);
    let used = rig.used(0);
    assert_eq!(used.len(), 1, "{used:?}");
    assert!(rig.line);
    assert_eq!(rig.acknowledge(), interrupt::USED);
    assert!(!rig.line);
    (rig.peek(status, 1)[0], used[0].1)
}

#[test]
fn conforms() {
    let values = [0, 1, 2, 3, 7, 11, 15, 64, 0x8000_0000, 0x8000_1000, 0xffff_ffff];
    let plugin = Plugin::of::<Virtio<Blk>>();
    for config in
        ["()", "(legacy: true)", "(queues: 4, queue_size: 1, serial: \"x\", blk_size: 4096, physical_block: 4096)"]
    {
        Suite::new(&plugin, config).values(&values).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in [
        "(serial: \"123456789012345678901\")",
        "(blk_size: 1000)",
        "(blk_size: 131072, physical_block: 131072)",
        "(physical_block: 256)",
        "(opt_io_size: 100)",
        "(seg_max: 0)",
        "(queue_size: 100)",
        "(queue_size: 512)",
        "(queues: 9)",
    ] {
        let e = Plugin::of::<Virtio<Blk>>().create(config).unwrap_err().to_string();
        assert!(e.contains(config[1..].split(':').next().unwrap()), "{config}: {e}");
    }
}

#[test]
fn it_says_what_it_is() {
    let mut r = rig("(serial: \"abc\", blk_size: 4096, physical_block: 16384, opt_io_size: 65536)");
    assert_eq!(r.read(reg::MAGIC), 0x7472_6976);
    assert_eq!((r.read(reg::VERSION), r.read(reg::DEVICE_ID)), (2, 2));
    let features = r.offered();
    assert_eq!(features >> 32, 1, "VERSION_1 and nothing else");
    assert_eq!(features & feature::RO, 0);
    assert_eq!(r.config(0, 8), 4096, "sectors");
    assert_eq!(r.config(0, 4), 4096);
    assert_eq!((r.config(12, 4), r.config(20, 4)), (254, 4096));
    assert_eq!((r.config(24, 1), r.config(26, 2), r.config(28, 4)), (2, 1, 16));
    assert_eq!((r.config(36, 4), r.config(40, 4), r.config(44, 4)), (MAX_SECTORS.into(), MAX_RANGES.into(), 8));
    assert_eq!(r.config(60, 4), 0, "beyond the end");
    r.disk.read_only = true;
    assert_eq!(r.offered() & (feature::RO | feature::DISCARD | feature::WRITE_ZEROES), feature::RO);
    let mut none = Rig::new::<Virtio<Blk>>("()", Vec::new());
    assert_eq!(none.config(0, 8), 0);
    none.bring_up(ALL, &[8]);
    let at = none.alloc(512, 512);
    assert_eq!(run(&mut none, request::IN, 0, &[(at, 512, true)]).0, outcome::IOERR);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut r = rig("()");
    for bits in [1u64 << 34 | 1 << 32, 0, 1 << 32 | 1] {
        r.write(reg::STATUS, 0);
        r.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for i in [0, 1] {
            r.write(reg::DRIVER_FEATURES_SEL, i);
            r.write(reg::DRIVER_FEATURES, (bits >> (32 * i)) as u32);
        }
        r.write(reg::STATUS, 0xb);
        assert_eq!(r.read(reg::STATUS), 3, "{bits:#x}");
    }
}

#[test]
fn reads_and_writes() {
    for mask in [ALL, PLAIN] {
        let mut r = rig("()");
        r.bring_up(mask, &[64]);
        let at = r.alloc(8192, 512);
        // Two pieces that don't lie side by side, in an order of their own.
        assert_eq!(run(&mut r, request::IN, 3, &[(at + 4096, 512, true), (at, 1024, true)]), (outcome::OK, 1537));
        assert_eq!(r.peek(at + 4096, 512), &image(4096)[3 * 512..4 * 512]);
        assert_eq!(r.peek(at, 1024), &image(4096)[4 * 512..6 * 512]);
        let data: Vec<u8> = (0..2048).map(|i| (i * 3) as u8).collect();
        r.poke(at, &data);
        assert_eq!(run(&mut r, request::OUT, 4092, &[(at, 1000, false), (at + 1000, 1048, false)]), (outcome::OK, 1));
        assert_eq!(&r.disk.data[4092 * 512..], data);
        assert_eq!(r.disk.flushes, 0);
        assert_eq!(run(&mut r, request::FLUSH, 0, &[]).0, outcome::OK);
        assert_eq!(r.disk.flushes, 1);
        // Beyond the end, half a sector, far beyond.
        for (sector, len) in [(4093, 2048), (0, 100), (u64::MAX, 512), (u64::MAX / 512, 512)] {
            assert_eq!(run(&mut r, request::IN, sector, &[(at, len, true)]).0, outcome::IOERR);
            assert_eq!(run(&mut r, request::OUT, sector, &[(at, len, false)]).0, outcome::IOERR);
        }
        assert_eq!(&r.disk.data[4092 * 512..], data);
        assert_eq!(run(&mut r, 77, 0, &[(at, 512, true)]).0, outcome::UNSUPP);
        assert!(r.outside.is_none() && !r.needs_reset());
    }
}

#[test]
fn a_read_takes_few_transfers() {
    let mut r = rig("()");
    r.bring_up(ALL, &[256]);
    let at = r.alloc(4096, 4096);
    for (indirect, most) in [(false, 3), (true, 4)] {
        let before = r.transfers;
        request(&mut r, request::IN, 0, &[(at, 4096, true)], indirect);
        r.kick(0);
        assert_eq!(r.used(0).len(), 1);
        assert_eq!(r.transfers - before, most);
    }
    // Ten requests at once take no more.
    let before = r.transfers;
    for i in 0..10 {
        request(&mut r, request::IN, i, &[(at, 512, true)], true);
    }
    r.kick(0);
    assert_eq!(r.used(0).len(), 10);
    assert_eq!(r.transfers - before, 4);
}

#[test]
fn a_large_request_is_cut() {
    let mut r = rig("(seg_max: 1022)");
    r.bring_up(ALL, &[256]);
    let len = 2 << 20;
    let at = r.alloc(len, 4096);
    // One piece of 2 MiB; then 512 pieces of 4 KiB that no two lie side by side.
    assert_eq!(run(&mut r, request::IN, 0, &[(at, len as u32, true)]), (outcome::OK, len as u32 + 1));
    assert_eq!(r.peek(at, len), &r.disk.data[..]);
    let scattered: Vec<Piece> = (0..512u64).map(|i| (at + (i * 77 % 512) * 4096, 4096, false)).collect();
    let expected: Vec<u8> = scattered.iter().flat_map(|p| r.peek(p.0, 4096).to_vec()).collect();
    assert_eq!(run(&mut r, request::OUT, 0, &scattered).0, outcome::OK);
    assert!(r.disk.data == expected);
    // A thousand tiny pieces behind each other; the ranges' limit cuts.
    let tiny: Vec<Piece> = (0..1020u64).map(|i| (at + i * 1024, if i < 1000 { 512 } else { 0 }, true)).collect();
    assert_eq!(run(&mut r, request::IN, 8, &tiny).0, outcome::OK);
    assert_eq!(r.peek(at + 999 * 1024, 512), &expected[(8 + 999) * 512..(9 + 999) * 512]);
}

#[test]
fn a_header_may_be_cut_anyhow() {
    let mut r = rig("()");
    r.bring_up(ALL, &[64]);
    let head = header(&mut r, request::OUT, 5);
    let at = r.alloc(2048, 512);
    r.poke(at, &[7; 512]);
    let mut pieces: Vec<Piece> = (0..16).map(|i| (head + i, 1, false)).collect();
    // They would be joined if they stood side by side.
    let copy = r.alloc(64, 16);
    for i in 0..16u64 {
        let byte = r.peek(head + i, 1)[0];
        r.poke(copy + 2 * i, &[byte]);
        pieces[i as usize].0 = copy + 2 * i;
    }
    pieces.extend([(at, 512, false), (at + 1024, 1, true)]);
    r.add(0, &pieces);
    r.kick(0);
    assert_eq!((r.used(0).len(), r.peek(at + 1024, 1)[0]), (1, outcome::OK));
    assert_eq!(r.disk.data[5 * 512..6 * 512], [7; 512]);
}

#[test]
fn id_discard_and_zeroes() {
    let mut r = rig("(serial: \"reprise-0\")");
    r.bring_up(ALL, &[64]);
    let at = r.alloc(4096, 512);
    assert_eq!(run(&mut r, request::GET_ID, 0, &[(at, 20, true)]), (outcome::OK, 21));
    assert_eq!(r.peek(at, 20), b"reprise-0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(run(&mut r, request::GET_ID, 0, &[(at, 7, true)]), (outcome::OK, 8));
    let range =
        |sector: u64, n: u32, flags: u32| [&sector.to_le_bytes()[..], &n.to_le_bytes(), &flags.to_le_bytes()].concat();
    let clear = |r: &mut Rig, kind, ranges: &[Vec<u8>]| {
        let bytes = ranges.concat();
        r.poke(at, &bytes);
        run(r, kind, 0, &[(at, bytes.len() as u32, false)]).0
    };
    assert_eq!(clear(&mut r, request::DISCARD, &[range(1, 2, 0)]), outcome::OK);
    assert_eq!(clear(&mut r, request::DISCARD, &[range(9, 1, 0), range(11, 1, 0)]), outcome::IOERR, "one at a time");
    assert_eq!(r.disk.data[512..1536], [0; 1024]);
    assert_ne!(r.disk.data[1536..2048], [0; 512]);
    assert_eq!(clear(&mut r, request::WRITE_ZEROES, &[range(3, 1, 1)]), outcome::OK);
    assert_eq!(r.disk.data[1536..2048], [0; 512]);
    let before = r.disk.clone();
    assert_eq!(clear(&mut r, request::DISCARD, &[range(20, 1, 1)]), outcome::UNSUPP);
    assert_eq!(clear(&mut r, request::WRITE_ZEROES, &[range(20, 1, 2)]), outcome::UNSUPP);
    assert_eq!(clear(&mut r, request::DISCARD, &[range(4096, 1, 0)]), outcome::IOERR);
    assert_eq!(clear(&mut r, request::DISCARD, &[vec![0; 15]]), outcome::IOERR);
    assert_eq!(r.disk, before);
    r.disk.read_only = true;
    assert_eq!(clear(&mut r, request::DISCARD, &[range(20, 1, 0)]), outcome::IOERR);
    assert_eq!(run(&mut r, request::OUT, 0, &[(at, 512, false)]).0, outcome::IOERR);
}

#[test]
fn without_a_cache_each_write_is_flushed() {
    let mut r = rig("()");
    let at = r.alloc(512, 512);
    r.free = BASE + 0x10_0000;
    r.bring_up(!feature::FLUSH, &[8]);
    assert_eq!(run(&mut r, request::OUT, 0, &[(at, 512, false)]).0, outcome::OK);
    assert_eq!(r.disk.flushes, 1);
    r.bring_up(ALL, &[8]);
    assert_eq!(r.config(32, 1), 1);
    assert_eq!(run(&mut r, request::OUT, 0, &[(at, 512, false)]).0, outcome::OK);
    assert_eq!(r.disk.flushes, 1);
    r.step(reprise_device::Event::Write { tag: 0, offset: 0x120, size: 1, value: 0 });
    assert_eq!(r.config(32, 1), 0);
    assert_eq!(run(&mut r, request::OUT, 0, &[(at, 512, false)]).0, outcome::OK);
    assert_eq!(r.disk.flushes, 2);
}

#[test]
fn interrupts_come_as_the_driver_wants_them() {
    let mut r = rig("()");
    r.bring_up(ALL, &[64]);
    let at = r.alloc(512, 512);
    let event = r.rings[0].avail + 4 + 2 * 64;
    // With EVENT_IDX: only when the third is used.
    r.poke(event, &2u16.to_le_bytes());
    for expected in [false, false, true] {
        request(&mut r, request::IN, 0, &[(at, 512, true)], false);
        r.kick(0);
        assert_eq!(r.line, expected);
    }
    assert_eq!(r.avail_event(0), 3);
    // Without it: not while the flag is set.
    r.bring_up(PLAIN, &[64]);
    assert!(!r.line);
    let flags = r.rings[0].avail;
    r.poke(flags, &[1, 0]);
    request(&mut r, request::IN, 0, &[(at, 512, true)], false);
    r.kick(0);
    assert_eq!((r.used(0).len(), r.line), (1, false));
    r.poke(flags, &[0, 0]);
    request(&mut r, request::IN, 0, &[(at, 512, true)], false);
    r.kick(0);
    assert!(r.line);
}

#[test]
fn rings_wrap_and_indices_too() {
    let mut r = rig("()");
    r.bring_up(ALL, &[8]);
    let at = r.alloc(512, 512);
    let (head, status) = (header(&mut r, request::IN, 9), r.alloc(1, 1));
    for i in 0..70_000u32 {
        r.add(0, &[(head, 16, false), (at, 512, true), (status, 1, true)]);
        if i % 2 == 1 {
            r.kick(0);
            let used = r.used(0);
            assert_eq!(used.len(), 2, "{i}");
        }
    }
    assert_eq!(r.peek(at, 512), &image(4096)[9 * 512..10 * 512]);
}

#[test]
fn a_queue_that_is_stopped_forgets() {
    let mut r = rig("()");
    r.bring_up(ALL, &[8]);
    r.write(reg::QUEUE_SEL, 0);
    r.write(reg::QUEUE_READY, 0);
    assert_eq!(r.read(reg::QUEUE_READY), 0);
    let at = r.alloc(512, 512);
    request(&mut r, request::IN, 0, &[(at, 512, true)], false);
    let before = r.transfers;
    r.kick(0);
    r.kick(7);
    assert_eq!(r.transfers, before);
    r.write(reg::QUEUE_SEL, 3);
    assert_eq!((r.read(reg::QUEUE_NUM_MAX), r.read(reg::QUEUE_READY)), (0, 0));
}

#[test]
fn bad_rings_ask_for_a_reset() {
    let at = BASE + 0x20_0000;
    let bad = |what: &str, mut act: Box<dyn FnMut(&mut Rig)>| {
        let mut r = rig("()");
        r.bring_up(ALL, &[16]);
        act(&mut r);
        r.kick(0);
        assert!(r.needs_reset() && r.outside.is_none(), "{what}");
        assert!(r.read(reg::INTERRUPT_STATUS) & interrupt::CONFIG != 0, "{what}");
        assert!(r.line, "{what}");
        // Dead until it is reset, and then as new.
        let before = r.transfers;
        r.kick(0);
        assert_eq!(r.transfers, before, "{what}");
        r.bring_up(ALL, &[16]);
        assert_eq!(run(&mut r, request::IN, 0, &[(at, 512, true)]).0, outcome::OK, "{what}");
    };
    bad("an index that jumps", Box::new(|r| r.poke(r.rings[0].avail + 2, &17u16.to_le_bytes())));
    bad(
        "a head that is none",
        Box::new(|r| {
            r.poke(r.rings[0].avail + 4, &16u16.to_le_bytes());
            r.poke(r.rings[0].avail + 2, &1u16.to_le_bytes());
        }),
    );
    bad(
        "no status",
        Box::new(move |r| {
            r.add(0, &[(at, 16, false)]);
        }),
    );
    bad(
        "no header",
        Box::new(move |r| {
            r.add(0, &[(at, 512, true)]);
        }),
    );
    bad(
        "a short header",
        Box::new(move |r| {
            r.add(0, &[(at, 15, false), (at, 1, true)]);
        }),
    );
    bad(
        "a buffer past the end",
        Box::new(|r| {
            r.add(0, &[(u64::MAX - 5, 16, false), (BASE, 1, true)]);
        }),
    );
    bad(
        "a loop",
        Box::new(|r| {
            let d = descriptor(BASE, 16, 1, 0);
            let table = r.rings[0].desc;
            r.poke(table, &d);
            r.poke(r.rings[0].avail + 2, &1u16.to_le_bytes());
        }),
    );
    bad(
        "a ring that feeds itself",
        Box::new(move |r| {
            // What is read from the disk covers the ring's index: the next transfer finds new chains.
            let ring = r.rings[0];
            let mut forged = vec![0; 512];
            forged[2..4].copy_from_slice(&0x11u16.to_le_bytes());
            r.disk.data[..512].copy_from_slice(&forged);
            let data = [(ring.avail, 512, true), (BASE + 0x40_0000, 3 << 19, true)];
            request(r, request::IN, 0, &data, false);
        }),
    );
}

#[test]
fn an_address_outside_of_memory_is_the_machines_matter() {
    let mut r = rig("()");
    r.bring_up(ALL, &[16]);
    let head = header(&mut r, request::IN, 0);
    r.add(0, &[(head, 16, false), (0x1000, 512, true), (head, 1, true)]);
    r.kick(0);
    assert_eq!(r.outside, Some((0x1000, 512)));
}

#[test]
fn legacy() {
    let mut r = rig("(legacy: true)");
    assert_eq!(r.read(reg::VERSION), 1);
    assert_eq!(r.offered() >> 32, 0);
    r.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
    r.write(reg::DRIVER_FEATURES, u32::MAX);
    r.write(reg::GUEST_PAGE_SIZE, 4096);
    let ring = r.ring(64);
    r.write(reg::QUEUE_SEL, 0);
    assert_eq!(r.read(reg::QUEUE_NUM_MAX), 256);
    r.write(reg::QUEUE_NUM, 64);
    r.write(reg::QUEUE_ALIGN, 4096);
    r.write(reg::QUEUE_PFN, (ring.desc / 4096) as u32);
    assert_eq!(u64::from(r.read(reg::QUEUE_PFN)), ring.desc / 4096);
    let at = r.alloc(1024, 512);
    // Before DRIVER_OK, as old drivers do.
    assert_eq!(run(&mut r, request::IN, 1, &[(at, 1024, true)]).0, outcome::OK);
    assert_eq!(r.peek(at, 1024), &image(4096)[512..1536]);
    r.write(reg::STATUS, 7);
    assert_eq!(run(&mut r, request::FLUSH, 0, &[]).0, outcome::OK);
    r.write(reg::QUEUE_PFN, 0);
    assert_eq!(r.read(reg::QUEUE_PFN), 0);
}

#[test]
fn hostile_drivers() {
    let mut worked = 0;
    for seed in 0..1000 {
        let mut rng = Rng(seed);
        let script: Vec<u8> = (0..400).map(|_| rng.next() as u8).collect();
        let config = ["()", "(queues: 2)"][seed as usize % 2];
        worked += u32::from(hostile::<Virtio<Blk>>(config, &[8, 4][..=seed as usize % 2], &script));
    }
    assert!(worked > 100, "only {worked} scripts made a request");
}
