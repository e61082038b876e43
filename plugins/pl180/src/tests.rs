use reprise_device::conformance::Suite;
use reprise_device::host::{Disks, Effect, Instance, MemoryDisk, Plugin};
use reprise_device::hostile;

use super::*;

const RESPONSE: u32 = command::RESPONSE | command::ENABLE;
const LONG: u32 = RESPONSE | command::LONG;

/// A disk; or with `sparse` one of so many bytes whose blocks tell their numbers.
struct Slot {
    data: Vec<u8>,
    read_only: bool,
    sparse: u64,
}

impl Disks for Slot {
    fn size(&self, _: u32) -> Option<u64> {
        Some(self.sparse.max(self.data.len() as u64)).filter(|n| *n > 0)
    }
    fn read_only(&self, _: u32) -> bool {
        self.read_only
    }
    fn read(&mut self, _: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        if self.sparse > 0 {
            buffer.chunks_mut(4).for_each(|c| c.copy_from_slice(&((offset / 512) as u32).to_le_bytes()[..c.len()]));
        } else {
            buffer.copy_from_slice(&self.data[offset as usize..][..buffer.len()]);
        }
        Ok(())
    }
    fn write(&mut self, _: u32, offset: u64, data: &[u8]) -> Result<(), String> {
        self.data[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
    fn discard(&mut self, _: u32, offset: u64, len: u64) -> Result<(), String> {
        self.data[offset as usize..][..len as usize].fill(0);
        Ok(())
    }
    fn flush(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }
    fn unchanged(&self, _: u32, _: u64, _: u64) -> bool {
        false
    }
}

/// A driver, and what cpu-proc keeps of the device: the queue and the lines.
struct Host {
    device: Instance,
    disk: Slot,
    queue: Vec<u32>,
    lines: [bool; 4],
    armed: Option<VTime>,
    now: VTime,
    rca: u32,
}

impl Host {
    fn new(config: &str, disk: Vec<u8>, read_only: bool) -> Self {
        Self::with(config, Slot { data: disk, read_only, sparse: 0 })
    }

    fn with(config: &str, disk: Slot) -> Self {
        let device = Plugin::of::<Pl180>().create(config).unwrap();
        let mut host = Self { device, disk, queue: Vec::new(), lines: [false; 4], armed: None, now: VTime(0), rca: 0 };
        host.step(Event::Reset);
        host.write(reg::POWER, 0x83);
        host.write(reg::CLOCK, 0x1ff);
        host
    }

    fn step(&mut self, event: Event<'_>) -> u32 {
        let Self { device, disk, queue, lines, armed, now, .. } = self;
        let mut reply = 0;
        device
            .step_with(*now, event, disk, &mut |e| match e {
                Effect::Reply { value, .. } => reply = value as u32,
                Effect::Line { pin, level } => lines[pin as usize] = level,
                Effect::Queue { values, .. } => queue.extend(values),
                Effect::QueueClear { .. } => queue.clear(),
                Effect::Arm { at, .. } => *armed = Some(at),
                Effect::Disarm { .. } => *armed = None,
                _ => {}
            })
            .unwrap();
        reply
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.step(Event::Write { tag: 0, offset, size: 4, value: value.into() });
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.step(Event::Read { tag: 0, offset, size: 4 })
    }

    fn status(&mut self) -> u32 {
        self.read(reg::STATUS)
    }

    /// Sends a command; the static status bits that it set.
    fn send(&mut self, index: u32, argument: u32, flags: u32) -> u32 {
        self.write(reg::CLEAR, status::STATIC);
        self.write(reg::ARGUMENT, argument);
        self.write(reg::COMMAND, index | flags);
        self.status() & (status::CMD_CRC_FAIL | status::CMD_TIMEOUT | status::CMD_RESP_END | status::CMD_SENT)
    }

    /// Sends a command that is answered with R1; the answer.
    fn r1(&mut self, index: u32, argument: u32) -> u32 {
        assert_eq!(self.send(index, argument, RESPONSE), status::CMD_RESP_END, "CMD{index}");
        assert_eq!(self.read(reg::RESPCMD), index);
        self.read(reg::RESPONSE0)
    }

    fn long(&mut self, index: u32, argument: u32) -> u128 {
        assert_eq!(self.send(index, argument, LONG), status::CMD_RESP_END, "CMD{index}");
        (0..4).fold(0, |all, i| all << 32 | u128::from(self.read(reg::RESPONSE0 + 4 * i)))
    }

    /// Brings the card to its transfer state, as drivers do; its operation conditions.
    fn bring_up(&mut self) -> u32 {
        self.send(0, 0, command::ENABLE);
        assert_eq!(self.r1(8, 0x1aa), 0x1aa);
        self.r1(55, 0);
        assert_eq!(self.send(41, 0x4030_0000, RESPONSE), status::CMD_CRC_FAIL, "no check sum");
        let ocr = self.read(reg::RESPONSE0);
        self.long(2, 0);
        self.rca = self.r1(3, 0) & 0xffff_0000;
        assert_ne!(self.rca, 0);
        assert_eq!(self.r1(7, self.rca) >> 9 & 0xf, Mode::Standby as u32);
        ocr
    }

    fn start(&mut self, len: u32, block_log: u32, from_card: bool) {
        self.write(reg::DATATIMER, 0x1000);
        self.write(reg::DATALENGTH, len);
        self.write(reg::DATACTRL, 1 | u32::from(from_card) << 1 | block_log << 4);
    }

    /// Reads what the controller has, as Linux does; the queue is told of in pieces.
    fn drain(&mut self, len: u32, pieces: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut remain = len;
        while remain > 0 && self.status() & status::RX_DATA_AVAILABLE != 0 {
            let there = remain - 4 * self.read(reg::FIFOCNT).min(remain / 4);
            assert_eq!(there.div_ceil(4) as usize, self.queue.len().min(there.div_ceil(4) as usize), "FIFOCNT");
            let n = (there.div_ceil(4) as usize).clamp(1, pieces).min(self.queue.len());
            let words: Vec<u32> = self.queue.drain(..n).collect();
            out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
            self.step(Event::Popped { queue: 0, count: n as u32 });
            remain = remain.saturating_sub(4 * n as u32);
        }
        out.truncate(len as usize);
        out
    }

    fn fetch(&mut self, len: u32, block_log: u32, index: u32, argument: u32) -> Vec<u8> {
        self.start(len, block_log, true);
        self.r1(index, argument);
        let data = self.drain(len, 1000);
        assert_eq!(data.len(), len as usize, "CMD{index} gives {len} bytes");
        assert_ne!(self.status() & status::DATA_END, 0);
        assert_eq!(self.status() & status::RX_ACTIVE, 0);
        data
    }

    fn store(&mut self, index: u32, argument: u32, data: &[u8]) {
        self.r1(index, argument);
        self.start(data.len() as u32, 9, false);
        for word in data.chunks(4) {
            self.write(reg::FIFO, u32::from_le_bytes(word.try_into().unwrap()));
        }
    }
}

fn image(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
}

fn host() -> Host {
    let mut host = Host::new("(fifo: 128)", image(1 << 20), false);
    host.bring_up();
    host
}

#[test]
fn conforms() {
    // Commands with their flags, the power and the clock on, transfers in both directions.
    let commands = (0..64u64).flat_map(|i| [i | 0x440, i | 0x4c0, i | 0x400]);
    let values: Vec<u64> =
        commands.chain([0x83, 0x1ff, 0x1_0000, 0x93, 0x91, 512, 64, 8, 0x1aa, 0x4030_0000, 0x3f_ffff]).collect();
    for config in ["()", "(fifo: 128, clock_hz: 1, serial: 77)"] {
        Suite::new(&Plugin::of::<Pl180>(), config).values(&values).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(fifo: 32)", "(clock_hz: 0)", "(serial: -1)", "(card: 1)"] {
        assert!(Plugin::of::<Pl180>().create(config).is_err(), "{config}");
    }
}

#[test]
fn an_empty_slot() {
    let mut h = Host::new("()", Vec::new(), false);
    assert_eq!(h.lines, [false; 4]);
    assert_eq!(h.send(0, 0, command::ENABLE), status::CMD_SENT);
    assert_eq!(h.send(8, 0x1aa, RESPONSE), status::CMD_TIMEOUT);
    h.start(512, 9, true);
    let due = h.armed.expect("it waits");
    // 4096 periods of 24 MHz / 512.
    assert_eq!(due.0, 4096 * 512 * 1000 / 24);
    h.now = due;
    h.write(reg::MASK0, status::DATA_TIMEOUT);
    assert!(!h.lines[0]);
    h.step(Event::Timer(0));
    assert!(h.lines[0]);
    assert_eq!(h.status() & (status::DATA_TIMEOUT | status::RX_ACTIVE), status::DATA_TIMEOUT);
    h.write(reg::CLEAR, status::DATA_TIMEOUT);
    assert!(!h.lines[0]);
}

#[test]
fn a_card_says_what_it_is() {
    let mut h = Host::new("()", image(1 << 20), true);
    assert_eq!(h.lines[2..], [true, true]);
    assert_eq!(h.bring_up(), 0x80ff_8000);
    h.send(7, 0, command::ENABLE);
    let (csd, cid) = (h.long(9, h.rca), h.long(10, h.rca));
    assert_eq!(csd >> 126, 0);
    assert_eq!((csd >> 62 & 0xfff) + 1 << (csd >> 47 & 7) + 2, 2048, "blocks");
    assert_eq!(csd >> 12 & 1, 1, "protected");
    assert_eq!(cid >> 104 & 0xffff, 0x5250);
    h.r1(7, h.rca);
    assert_ne!(h.r1(55, h.rca) & 1 << 5, 0);
    assert_eq!(h.fetch(8, 3, 51, 0), card::regs::SCR);
    h.r1(55, h.rca);
    assert_eq!(h.r1(6, 2) >> 5 & 1, 1, "an application command");
    h.r1(55, h.rca);
    assert_eq!(h.fetch(64, 6, 13, 0)[..2], [0x80, 0], "four data lines");
    let switch = h.fetch(64, 6, 6, 0x00ff_fff1);
    assert_eq!((switch[13], switch[16]), (3, 1), "high speed");
    assert_eq!(h.fetch(64, 6, 6, 0x00ff_fff5)[16], 15, "no such mode");
    // A long answer to a command that waits for a short one, and no such command.
    h.send(7, 0, command::ENABLE);
    assert_eq!(h.send(9, h.rca, RESPONSE), status::CMD_CRC_FAIL);
    assert_eq!(h.send(60, 0, RESPONSE), status::CMD_TIMEOUT);
    assert_ne!(h.r1(13, h.rca) & 1 << 22, 0, "illegal command");
    assert_eq!(h.r1(13, h.rca) & 1 << 22, 0, "said once");
}

#[test]
fn a_large_card_is_addressed_by_blocks() {
    let slot = || Slot { data: Vec::new(), read_only: false, sparse: 3 << 30 };
    let mut h = Host::with("(fifo: 128)", slot());
    assert_eq!(h.bring_up(), 0xc0ff_8000);
    assert_eq!(h.fetch(512, 9, 17, 5_000_000), 5_000_000u32.to_le_bytes().repeat(128));
    assert_eq!(h.r1(17, (3 << 21) - 1) & 1 << 31, 0);
    h.r1(12, 0);
    assert_ne!(h.r1(17, 3 << 21) & 1 << 31, 0, "beyond the end");
    assert_ne!(h.r1(16, 10) & 1 << 29, 0, "its blocks have one length");
    // To a host that does not know such cards it never starts.
    let mut h = Host::with("()", slot());
    h.send(0, 0, command::ENABLE);
    h.r1(8, 0x1aa);
    h.r1(55, 0);
    h.send(41, 0x0030_0000, RESPONSE);
    assert_eq!(h.read(reg::RESPONSE0), 0x00ff_8000);
}

#[test]
fn reads() {
    let all = image(1 << 20);
    for (config, pieces) in [("()", 1000), ("(fifo: 128)", 1000), ("(fifo: 128)", 3), ("()", 1)] {
        let mut h = Host::new(config, all.clone(), false);
        h.bring_up();
        assert_eq!(h.fetch(512, 9, 17, 512), &all[512..1024]);
        assert_eq!(h.r1(13, h.rca) >> 9 & 0xf, Mode::Transfer as u32);
        // Open-ended: until it is stopped.
        h.start(0x8000, 9, true);
        h.r1(18, 0x1_0000);
        assert_eq!(h.drain(0x8000, pieces), &all[0x1_0000..0x1_8000]);
        assert_eq!(h.r1(12, 0) >> 9 & 0xf, Mode::SendingData as u32);
        // Counted.
        h.r1(23, 16);
        assert_eq!(h.fetch(0x2000, 9, 18, 0), &all[..0x2000]);
        assert_eq!(h.r1(13, h.rca) >> 9 & 0xf, Mode::Transfer as u32);
        // Small pieces.
        h.r1(16, 10);
        assert_eq!(h.fetch(10, 0, 17, 100), &all[100..110]);
        assert_ne!(h.r1(17, 510) & 1 << 30, 0, "across a border");
        assert_ne!(h.r1(17, 1 << 20) & 1 << 31, 0, "beyond the end");
    }
}

#[test]
fn a_read_beyond_the_end_times_out() {
    let mut h = host();
    h.start(2048, 9, true);
    h.r1(18, (1 << 20) - 512);
    assert_eq!(h.drain(512, 1000).len(), 512);
    h.now = h.armed.expect("the controller waits");
    h.step(Event::Timer(0));
    assert_ne!(h.status() & status::DATA_TIMEOUT, 0);
    assert_ne!(h.r1(12, 0) & 1 << 31, 0, "out of range");
}

#[test]
fn other_ways_to_read_the_fifo() {
    let mut h = host();
    h.start(512, 9, true);
    h.r1(17, 0);
    let all = image(512);
    let word = |i: usize| u32::from_le_bytes(all[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!(h.read(reg::FIFO + 0x3c), word(0));
    assert_eq!(h.step(Event::Read { tag: 0, offset: reg::FIFO + 1, size: 1 }), word(1) >> 8 & 0xff);
    assert_eq!(h.queue.len(), 126);
    assert_eq!(h.queue[0], word(2));
    h.write(reg::DATACTRL, 0);
    assert!(h.queue.is_empty());
    assert_eq!(h.read(reg::FIFO), 0);
}

#[test]
fn writes() {
    let mut h = host();
    let data: Vec<u8> = (0..2048).map(|i| (i * 5) as u8).collect();
    h.store(24, 512, &data[..512]);
    assert_eq!(h.disk.data[512..1024], data[..512]);
    assert_eq!(
        h.status() & (status::DATA_END | status::DATA_BLOCK_END | status::TX_ACTIVE),
        status::DATA_END | status::DATA_BLOCK_END
    );
    h.store(25, 4096, &data);
    assert_eq!(h.disk.data[4096..6144], data);
    h.r1(12, 0);
    assert_eq!(h.fetch_app(4, 2, 22), 4u32.to_be_bytes(), "blocks");
    h.r1(23, 4);
    h.store(25, 8192, &data);
    assert_eq!(h.disk.data[8192..10240], data);
    assert_eq!(h.r1(13, h.rca) >> 9 & 0xf, Mode::Transfer as u32, "counted");
    // Beyond the end.
    h.store(25, (1 << 20) - 512, &data[..1024]);
    assert_ne!(h.status() & status::DATA_CRC_FAIL, 0);
    assert_ne!(h.r1(12, 0) & 1 << 31, 0);
}

impl Host {
    fn fetch_app(&mut self, len: u32, block_log: u32, index: u32) -> Vec<u8> {
        self.r1(55, self.rca);
        self.fetch(len, block_log, index, 0)
    }
}

#[test]
fn a_protected_card_is_not_written() {
    let mut h = Host::new("()", image(1 << 20), true);
    h.bring_up();
    assert_ne!(h.r1(24, 0) & 1 << 26, 0);
    h.start(512, 9, false);
    (0..128).for_each(|_| h.write(reg::FIFO, 0));
    assert_ne!(h.status() & status::DATA_CRC_FAIL, 0);
    h.r1(32, 0);
    h.r1(33, 0);
    assert_ne!(h.r1(38, 0) & 1 << 26, 0);
    assert_eq!(h.disk.data, image(1 << 20));
}

#[test]
fn erases() {
    let mut h = host();
    h.r1(32, 1024);
    h.r1(33, 2048);
    h.r1(38, 0);
    assert_eq!(h.disk.data[1024..2560], [0; 1536]);
    assert_eq!(h.disk.data[2560..], image(1 << 20)[2560..]);
    assert_ne!(h.r1(38, 0) & 1 << 28, 0, "no sequence");
    h.r1(32, 4096);
    h.r1(33, 0);
    assert_ne!(h.r1(38, 0) & 1 << 27, 0, "wrong order");
    assert_eq!(h.r1(32, 0) >> 9 & 0xf, Mode::Transfer as u32);
    assert_ne!(h.r1(16, 512) & 1 << 13, 0, "broken by another command");
    assert_ne!(h.r1(33, 1 << 20) & 1 << 31, 0, "beyond the end");
}

#[test]
fn a_word_that_ends_a_transfer_lowers_no_line() {
    let mut h = host();
    h.write(reg::MASK1, status::TX_FIFO_HALF_EMPTY);
    h.r1(24, 0);
    h.start(512, 9, false);
    assert!(h.lines[1]);
    (0..128).for_each(|_| h.write(reg::FIFO, 1));
    assert!(h.lines[1]);
    assert_eq!(h.status() & status::TX_FIFO_HALF_EMPTY, 0);
    h.write(reg::MASK1, 0);
    assert!(!h.lines[1]);
}

#[test]
fn the_state_of_a_card_ends_with_its_power() {
    let mut h = host();
    h.write(reg::POWER, 0);
    assert_eq!(h.send(13, h.rca, RESPONSE), status::CMD_TIMEOUT);
    h.write(reg::POWER, 0x83);
    assert_eq!(h.send(13, h.rca, RESPONSE), status::CMD_TIMEOUT);
    h.bring_up();
    h.send(15, h.rca, command::ENABLE);
    assert_eq!(h.send(0, 0, command::ENABLE), status::CMD_SENT);
    assert_eq!(h.send(8, 0x1aa, RESPONSE), status::CMD_TIMEOUT, "inactive");
}

#[test]
fn hostile_guests() {
    let plugin = Plugin::of::<Pl180>();
    let (mut queued, mut timers) = (0, 0);
    for seed in 0..200u64 {
        // A card in its transfer state, then whatever comes.
        let mut bytes = opening();
        bytes.extend(hostile::script(seed, 600));
        let disk = MemoryDisk { data: image(1 << 15), read_only: seed % 4 == 3, flushes: 0 };
        let done = hostile::drive(&plugin, "(fifo: 128)", disk, &bytes);
        (queued, timers) = (queued + done.queued, timers + done.timers);
    }
    assert!(queued > 1000 && timers > 10, "only {queued} words came, and {timers} timers");
}

/// The script that brings a card to its transfer state and reads a block.
fn opening() -> Vec<u8> {
    let spec = spec::spec(&Config::default());
    let at = |offset: u64| spec.registers.iter().position(|r| r.offset == offset).unwrap() as u8;
    let mut bytes = Vec::new();
    let mut write = |offset: u64, value: u32| bytes.extend([&[0, at(offset)], &value.to_le_bytes()[..]].concat());
    write(reg::POWER, 0x83);
    write(reg::CLOCK, 0x1ff);
    write(reg::DATATIMER, 0x1000);
    for (index, argument, flags) in [
        (0, 0, 0x400),
        (8, 0x1aa, 0x440),
        (55, 0, 0x440),
        (41, 0x4030_0000, 0x440),
        (2, 0, 0x4c0),
        (3, 0, 0x440),
        (7, 0x1_0000, 0x440),
    ] {
        write(reg::ARGUMENT, argument);
        write(reg::COMMAND, index | flags);
    }
    write(reg::DATALENGTH, 512);
    write(reg::DATACTRL, 0x93);
    write(reg::ARGUMENT, 0);
    write(reg::COMMAND, 17 | 0x440);
    bytes
}
