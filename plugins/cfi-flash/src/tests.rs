use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, MemoryDisk, Plugin};
use reprise_device::hostile;

use super::*;

const SMALL: &str = "(size: 1048576)";
/// Bytes of a block of two chips.
const PAIR: u64 = 2 * BLOCK;

struct Bank {
    device: Instance,
    disk: MemoryDisk,
}

impl Bank {
    fn new(config: &str, disk: Vec<u8>, read_only: bool) -> Self {
        let device = Plugin::of::<Flash>().create(config).unwrap();
        let mut bank = Self { device, disk: MemoryDisk { data: disk, read_only, flushes: 0 } };
        bank.step(Event::Reset);
        bank
    }

    fn step(&mut self, event: Event<'_>) -> u64 {
        let mut reply = 0;
        let Self { device, disk } = self;
        let mut effect = |e: Effect<'_>| {
            if let Effect::Reply { value, .. } = e {
                reply = value;
            }
        };
        device.step_with(VTime(0), event, disk, &mut effect).unwrap();
        reply
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.step(Event::Read { tag: 0, offset, size: 4 }) as u32
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.step(Event::Write { tag: 0, offset, size: 4, value: value.into() });
    }

    /// A command to both chips.
    fn both(&mut self, offset: u64, command: u8) {
        self.write(offset, u32::from(command) * 0x1_0001);
    }

    fn status(&mut self, offset: u64) -> u32 {
        self.both(offset, command::READ_STATUS);
        let status = self.read(offset);
        self.both(offset, command::CLEAR_STATUS);
        self.both(offset, command::READ_ARRAY);
        status
    }

    fn program(&mut self, offset: u64, value: u32) -> u32 {
        self.both(offset, command::PROGRAM);
        self.write(offset, value);
        self.status(offset)
    }

    fn erase(&mut self, offset: u64) -> u32 {
        self.both(offset, command::ERASE);
        self.both(offset, command::CONFIRM);
        self.status(offset)
    }
}

const READY: u32 = 0x80_0080;

#[test]
fn conforms() {
    let values: Vec<u64> = [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff, 0x01, 0x2f, 0x0f]
        .map(|v| v * 0x1_0001)
        .into();
    for config in ["(size: 262144)", "(size: 262144, chips: 1)"] {
        Suite::new(&Plugin::of::<Flash>(), config).values(&values).seeds(12).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(size: 1000000)", "(size: 131072)", "(size: 536870912)", "(chips: 4)", "(block: 1)"] {
        assert!(Plugin::of::<Flash>().create(config).is_err(), "{config}");
    }
}

#[test]
fn it_says_what_it_is() {
    let mut b = Bank::new("()", Vec::new(), false);
    assert_eq!(b.device.spec().window, 64 << 20);
    b.both(0x55 * 4, command::QUERY);
    let byte = |b: &mut Bank, at: u64| {
        let both = b.read(4 * at);
        assert_eq!(both >> 16, both & 0xffff, "both chips");
        both as u8
    };
    let table: Vec<u8> = (0x10..0x40).map(|at| byte(&mut b, at)).collect();
    assert_eq!(&table[..3], b"QRY");
    assert_eq!(table[3..5], [1, 0], "the command set");
    assert_eq!(1u64 << table[0x17], 32 << 20, "bytes of a chip");
    let blocks = u64::from(table[0x1d]) + u64::from(table[0x1e]) * 256 + 1;
    let size = (u64::from(table[0x1f]) + u64::from(table[0x20]) * 256) * 256;
    assert_eq!((blocks * size, size), (32 << 20, BLOCK));
    let ext = usize::from(table[5]) - 0x10;
    assert_eq!(&table[ext..ext + 5], b"PRI11");
    b.both(0, command::READ_ID);
    assert_eq!((b.read(0), b.read(4), b.read(8)), (0x89_0089, 0x1d_001d, 0));
    b.both(0, command::READ_ARRAY);
    assert_eq!(b.read(0), u32::MAX, "erased");
}

#[test]
fn programs_and_erases() {
    for disk in [Vec::new(), vec![0xff; 1 << 20], vec![0xff; (PAIR / 2) as usize]] {
        let mut b = Bank::new(SMALL, disk, false);
        assert_eq!(b.program(0x100, 0x1234_5678), READY);
        assert_eq!(b.program(PAIR, 0), READY);
        assert_eq!(b.read(0x100), 0x1234_5678);
        assert_eq!(b.step(Event::Read { tag: 0, offset: 0x101, size: 1 }), 0x56);
        assert_eq!(b.step(Event::Read { tag: 0, offset: 0x100, size: 8 }), 0xffff_ffff_1234_5678);
        assert_eq!(b.program(0x100, 0x0f0f_ffff), READY);
        assert_eq!(b.read(0x100), 0x0204_5678, "bits are only cleared");
        assert_eq!(b.erase(0x3_0000), READY);
        assert_eq!((b.read(0x100), b.read(PAIR)), (u32::MAX, 0));
    }
}

#[test]
fn one_chip_alone() {
    let mut b = Bank::new(SMALL, vec![0; 1 << 20], false);
    let half = |b: &mut Bank, offset, value: u16| b.step(Event::Write { tag: 0, offset, size: 2, value: value.into() });
    half(&mut b, 2, 0x20);
    half(&mut b, 2, 0xd0);
    half(&mut b, 2, 0xff);
    assert_eq!((b.read(0), b.read(PAIR - 4), b.read(PAIR)), (0xffff_0000, 0xffff_0000, 0));
    let mut single = Bank::new("(size: 262144, chips: 1)", vec![0; 1 << 18], false);
    single.write(0, 0x70_0070);
    assert_eq!(single.read(0), READY, "both halves are the chip's");
    for value in [0x20, 0xd0, 0xff] {
        half(&mut single, 0, value);
    }
    assert_eq!((single.read(BLOCK - 4), single.read(BLOCK)), (u32::MAX, 0));
}

#[test]
fn the_write_buffer() {
    let mut b = Bank::new(SMALL, Vec::new(), false);
    b.both(0x40, command::BUFFER);
    assert_eq!(b.read(0x40), READY, "the buffer is free");
    b.both(0x40, 15);
    (0..16).for_each(|i| b.write(0x40 + 4 * i, 0x1_0001 * i as u32));
    b.both(0x40, command::CONFIRM);
    assert_eq!(b.status(0x40), READY);
    assert!((0..16).all(|i| b.read(0x40 + 4 * i) == 0x1_0001 * i as u32));
    // Too many words; words of another block; no confirmation.
    let wrong = READY | 0x30_0030;
    b.both(0, command::BUFFER);
    b.both(0, 16);
    assert_eq!(b.status(0), wrong);
    b.both(0, command::BUFFER);
    b.both(0, 0);
    b.write(PAIR, 0);
    assert_eq!(b.status(0), wrong);
    b.both(0, command::BUFFER);
    b.both(0, 0);
    b.write(0, 0);
    b.both(0, command::READ_ARRAY);
    assert_eq!(b.status(0), wrong);
    assert_eq!((b.read(0), b.read(PAIR)), (u32::MAX, u32::MAX));
    b.both(0, command::ERASE);
    b.both(0, command::READ_ARRAY);
    assert_eq!(b.status(0), wrong, "an erase that is not confirmed");
}

#[test]
fn locks() {
    let mut b = Bank::new(SMALL, Vec::new(), false);
    let lock = |b: &mut Bank, at, second| {
        b.both(at, command::LOCK);
        b.both(at, second);
        assert_eq!(b.status(at), READY);
    };
    lock(&mut b, PAIR, command::LOCK_BLOCK);
    b.both(0, command::READ_ID);
    assert_eq!((b.read(8), b.read(PAIR + 8)), (0, 0x1_0001));
    assert_eq!(b.program(PAIR, 0), READY | 0x12_0012);
    assert_eq!(b.erase(PAIR), READY | 0x22_0022);
    assert_eq!(b.read(PAIR), u32::MAX);
    lock(&mut b, PAIR, command::CONFIRM);
    assert_eq!(b.program(PAIR, 0), READY);
    lock(&mut b, PAIR, command::LOCK_DOWN);
    lock(&mut b, PAIR, command::CONFIRM);
    assert_eq!(b.erase(PAIR), READY | 0x22_0022, "locked down");
    b.step(Event::Reset);
    assert_eq!(b.erase(PAIR), READY);
}

#[test]
fn a_protected_flash() {
    let mut b = Bank::new(SMALL, vec![0x55; 1 << 20], true);
    assert_eq!(b.program(0, 0), READY | 0x12_0012);
    assert_eq!(b.erase(0), READY | 0x22_0022);
    assert_eq!(b.disk.data, vec![0x55; 1 << 20]);
}

#[test]
fn what_is_on_the_disk_stays() {
    let mut b = Bank::new(SMALL, vec![0xff; 1 << 20], false);
    b.program(0x40, 0xaabb_ccdd);
    assert_eq!(b.disk.data[0x40..0x44], [0xdd, 0xcc, 0xbb, 0xaa]);
    b.step(Event::Reset);
    assert_eq!(b.read(0x40), 0xaabb_ccdd);
    let mut volatile = Bank::new(SMALL, Vec::new(), false);
    volatile.program(0x40, 0);
    volatile.step(Event::Reset);
    assert_eq!(volatile.read(0x40), u32::MAX);
}

#[test]
fn hostile_guests() {
    for seed in 0..200 {
        let disk = MemoryDisk { data: vec![0xff; 1 << 17], read_only: seed % 5 == 4, flushes: 0 };
        // Commands more often than chance would.
        let commands = [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff, 0x01, 0x2f, 0x03];
        let noise = hostile::script(seed, 600);
        let bytes: Vec<u8> = noise
            .chunks_exact(4)
            .flat_map(|c| {
                let value = commands[usize::from(c[0]) % commands.len()];
                [0, c[1] & 7, value, 0, value, if c[2] == 0 { c[3] } else { 0 }]
            })
            .collect();
        let done = hostile::drive(&Plugin::of::<Flash>(), "(size: 262144)", disk, &bytes);
        assert!(done.events > 100);
    }
}
