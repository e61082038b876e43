use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, MemoryDisk, Plugin};
use reprise_device::hostile;

use super::*;

const ME: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const BROADCAST: [u8; 6] = [0xff; 6];

struct Card {
    device: Instance,
    queue: Vec<u32>,
    line: bool,
    sent: Vec<Vec<u8>>,
    now: VTime,
    due: Option<VTime>,
}

impl Card {
    fn new() -> Self {
        let device = Plugin::of::<Lan9118>().create("()").unwrap();
        let (queue, sent) = (Vec::new(), Vec::new());
        let mut card = Self { device, queue, line: false, sent, now: VTime(0), due: None };
        card.step(Event::Reset);
        card
    }

    /// As Linux sets it up.
    fn up() -> Self {
        let mut c = Self::new();
        c.write(reg::HW_CFG, 0x0005_0000);
        c.write(reg::IRQ_CFG, 10 << 24 | 0x111);
        c.write(reg::FIFO_INT, 0xff00_0000);
        c.write(reg::INT_EN, int::RX_STATUS_LEVEL | int::TX_AVAILABLE);
        c.csr_write(1, mac_cr::TX | mac_cr::RX | 1 << 20);
        c.write(reg::TX_CFG, tx_cfg::ON);
        c.write(reg::RX_CFG, 2 << 8);
        c
    }

    fn step(&mut self, event: Event<'_>) -> u32 {
        let Self { device, queue, line, sent, now, due } = self;
        let mut reply = 0;
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => reply = value as u32,
            Effect::Line { level, .. } => *line = level,
            Effect::HostOut { data, .. } => sent.push(data.to_vec()),
            Effect::Queue { values, .. } => queue.extend(values),
            Effect::QueueClear { .. } => queue.clear(),
            Effect::Arm { at, .. } => *due = Some(at),
            Effect::Disarm { .. } => *due = None,
            _ => {}
        };
        device.step(*now, event, &mut effect).unwrap();
        reply
    }

    fn read(&mut self, offset: u64) -> u32 {
        self.step(Event::Read { tag: 0, offset, size: 4 })
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.step(Event::Write { tag: 0, offset, size: 4, value: value.into() });
    }

    fn csr_read(&mut self, index: u32) -> u32 {
        self.write(reg::MAC_CSR_CMD, BUSY | CSR_READ | index);
        assert_eq!(self.read(reg::MAC_CSR_CMD) & BUSY, 0);
        self.read(reg::MAC_CSR_DATA)
    }

    fn csr_write(&mut self, index: u32, value: u32) {
        self.write(reg::MAC_CSR_DATA, value);
        self.write(reg::MAC_CSR_CMD, BUSY | index);
    }

    fn phy(&mut self, register: u32) -> u32 {
        self.csr_write(6, 1 << 11 | register << 6 | 1);
        self.csr_read(7)
    }

    fn phy_write(&mut self, register: u32, value: u32) {
        self.csr_write(7, value);
        self.csr_write(6, 1 << 11 | register << 6 | 3);
    }

    /// Whether it interrupts, as [`Self::up`] sets the pin up.
    fn active(&self) -> bool {
        self.line
    }

    fn host(&mut self, frame: &[u8]) {
        self.step(Event::Host { port: 0, data: frame });
    }

    /// The next received frame, as Linux reads it: with two bytes in front of it, its check sequence cut off.
    fn take(&mut self) -> Vec<u8> {
        let status = self.read(reg::RX_STATUS);
        let len = (status >> 16 & 0x3fff) as usize;
        let words = (len + 2).div_ceil(4);
        let bytes: Vec<u8> = self.queue.drain(..words).flat_map(u32::to_le_bytes).collect();
        self.step(Event::Popped { queue: 0, count: words as u32 });
        let (frame, check) = bytes[2..2 + len].split_at(len - 4);
        assert_eq!(check, crc32(frame).to_le_bytes());
        frame.to_vec()
    }

    fn send(&mut self, frame: &[u8], offset: u32, tag: u32) {
        self.write(reg::TX_DATA, offset << 16 | 3 << 12 | frame.len() as u32);
        self.write(reg::TX_DATA, tag << 16 | frame.len() as u32);
        let mut bytes = vec![0xee; offset as usize];
        bytes.extend(frame);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0xee);
        bytes.chunks(4).for_each(|c| self.write(reg::TX_DATA, u32::from_le_bytes(c.try_into().unwrap())));
    }
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut f = [to, OTHER].concat();
    f.extend([0x08, 0]);
    f.extend((0..len - 14).map(|i| (i * 7) as u8));
    f
}

#[test]
fn conforms() {
    let values = [
        0x111,
        0x0005_0000,
        0xffff_ffff,
        BUSY | 1,
        BUSY | CSR_READ | 1,
        BUSY | 6,
        0x0014_000c,
        2,
        0x200,
        0x3000 | 60,
        60,
        0x8765_4321,
        FAST_FORWARD,
        TIMER_ENABLE | 3,
        0x8001_0000,
    ]
    .map(u64::from);
    Suite::new(&Plugin::of::<Lan9118>(), "()").values(&values).check();
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(mac: \"\")", "(mac: \"01:00:00:00:00:00\")", "(mac: \"52:54:00:12:34\")", "(id: 1)"] {
        assert!(Plugin::of::<Lan9118>().create(config).is_err(), "{config}");
    }
}

#[test]
fn it_says_what_it_is() {
    let mut c = Card::new();
    assert!(c.line, "an open drain output, pulled up");
    assert_eq!((c.read(0x50), c.read(0x64)), (0x0118_0001, 0x8765_4321));
    assert_eq!((c.read(reg::HW_CFG), c.read(reg::TX_FIFO_INF), c.read(reg::PMT_CTRL)), (0x0005_0004, 4608, 1));
    assert_eq!((c.csr_read(3), c.csr_read(2)), (0x1200_5452, 0x5734));
    assert_eq!((c.phy(2), c.phy(3)), (7, 0xc0d1));
    assert_eq!(c.phy(1) & 0x24, 0x24, "link and negotiation");
    c.now = VTime(1_000_000_000);
    assert_eq!(c.read(0x9c), 25_000_000);
}

#[test]
fn frames_arrive() {
    let mut c = Card::up();
    assert!(!c.line);
    assert!(c.device.want(0) > 1);
    let frames = [frame(ME, 60), frame(BROADCAST, 1514), frame(ME, 61), frame(ME, 64)];
    frames.iter().for_each(|f| c.host(f));
    assert!(c.line);
    assert_eq!(c.read(reg::RX_FIFO_INF) >> 16, 4);
    assert_eq!(c.read(reg::RX_STATUS_PEEK), 64 << 16 | rx_status::ETHERNET_TYPE);
    assert!(frames.iter().all(|f| c.take() == *f));
    assert_eq!(c.read(reg::RX_FIFO_INF), 0);
    assert!(c.line, "until it is cleared");
    c.write(reg::INT_STS, int::RX_STATUS_LEVEL);
    assert!(!c.line);
    // A short one is filled up.
    c.host(&frame(ME, 20));
    assert_eq!(c.take().len(), 60);
}

#[test]
fn frames_for_others_are_left_out() {
    let mut c = Card::up();
    c.host(&frame(OTHER, 60));
    c.host(&frame([1, 0, 0x5e, 0, 0, 1], 60));
    assert_eq!(c.read(reg::RX_FIFO_INF), 0);
    let cr = c.csr_read(1);
    c.csr_write(1, cr | mac_cr::PROMISCUOUS);
    c.host(&frame(OTHER, 60));
    assert_ne!(c.read(reg::RX_STATUS_PEEK) & rx_status::FILTERED, 0);
    c.write(reg::RX_CFG, rx_cfg::DUMP | 2 << 8);
    // The hash of a group's address, as drivers work it out: the upper six bits of the check sum of it, most significant bit first.
    let group = [1, 0, 0x5e, 0, 0, 1];
    let mut crc = !0u32;
    for byte in group {
        for i in 0..8 {
            let feedback = (crc >> 31) ^ u32::from(byte >> i & 1);
            crc = crc << 1 ^ if feedback != 0 { 0x04c1_1db7 } else { 0 };
        }
    }
    let hash = crc >> 26;
    c.csr_write(1, cr | mac_cr::HASH_PERFECT);
    c.csr_write(if hash >= 32 { 4 } else { 5 }, 1 << (hash & 31));
    c.host(&frame(group, 60));
    c.host(&frame([1, 0, 0x5e, 0, 0, 99], 60));
    assert_eq!(c.read(reg::RX_FIFO_INF) >> 16, 1);
    assert_eq!(c.take()[..6], group);
    c.csr_write(1, cr & !mac_cr::RX);
    assert_ne!(c.read(reg::INT_STS) & int::RX_STOPPED, 0);
    assert_eq!(c.device.want(0), 0);
}

#[test]
fn a_full_fifo_drops() {
    let mut c = Card::up();
    let want = c.device.want(0);
    (0..want).for_each(|_| c.host(&frame(ME, 1514)));
    assert_eq!(c.device.want(0), 0);
    assert_eq!(c.read(reg::RX_DROP), 0, "as many as were wanted fit");
    (0..2).for_each(|_| c.host(&frame(ME, 1514)));
    assert_eq!(c.read(reg::RX_DROP), 2);
    assert_eq!(c.read(reg::RX_DROP), 0);
    (0..want).for_each(|_| assert_eq!(c.take().len(), 1514));
    // What is not read is thrown away on command.
    c.host(&frame(ME, 100));
    c.host(&frame(ME, 200));
    c.read(reg::RX_STATUS);
    c.write(reg::RX_DP_CTRL, FAST_FORWARD);
    assert_eq!(c.take().len(), 200);
}

#[test]
fn frames_leave() {
    let mut c = Card::up();
    for (len, offset) in [(60, 0), (1514, 2), (61, 3), (62, 1)] {
        let f = frame(OTHER, len);
        c.send(&f, offset, len as u32);
        assert_eq!(c.sent.pop().as_deref(), Some(&f[..]));
        assert_eq!(c.read(reg::TX_STATUS), (len as u32) << 16);
    }
    c.send(&frame(OTHER, 20), 0, 0);
    assert_eq!(c.sent.pop().unwrap().len(), 60, "filled up");
    // In two buffers, the first of which ends on a border of 16 bytes.
    let f = frame(OTHER, 90);
    c.write(reg::TX_DATA, 1 << 24 | 1 << 16 | tx::FIRST | 40);
    c.write(reg::TX_DATA, 90);
    let mut bytes = vec![0];
    bytes.extend(&f[..40]);
    bytes.resize(48, 0);
    bytes.chunks(4).for_each(|b| c.write(reg::TX_DATA, u32::from_le_bytes(b.try_into().unwrap())));
    assert!(c.sent.is_empty());
    c.write(reg::TX_DATA, tx::ON_COMPLETION | tx::LAST | 50);
    c.write(reg::TX_DATA, 90);
    let mut rest = f[40..].to_vec();
    rest.resize(52, 0);
    rest.chunks(4).for_each(|b| c.write(reg::TX_DATA, u32::from_le_bytes(b.try_into().unwrap())));
    assert_eq!(c.sent.pop(), Some(f));
    assert_ne!(c.read(reg::INT_STS) & int::TX_COMPLETE, 0);
}

#[test]
fn what_can_not_be_sent_waits() {
    let mut c = Card::up();
    c.write(reg::TX_CFG, 0);
    c.send(&frame(OTHER, 100), 0, 1);
    assert!(c.sent.is_empty());
    assert_eq!(c.read(reg::TX_FIFO_INF), 4608 - 108);
    c.write(reg::TX_CFG, tx_cfg::ON);
    assert_eq!(c.sent.len(), 1);
    assert_eq!(c.read(reg::TX_FIFO_INF), 1 << 16 | 4608);
    // Without room for its status a frame waits, too.
    (0..130).for_each(|i| c.send(&frame(OTHER, 60), 0, i));
    assert_eq!(c.sent.len(), 128);
    assert_eq!(c.read(reg::TX_STATUS), 1 << 16);
    assert_eq!(c.sent.len(), 129);
}

#[test]
fn a_loop_of_the_phy() {
    let mut c = Card::up();
    c.csr_write(7, 0x4100);
    c.csr_write(6, 1 << 11 | 3);
    let f = frame(BROADCAST, 64);
    c.send(&f, 0, 5);
    assert!(c.sent.is_empty());
    assert_eq!(c.read(reg::TX_STATUS), 5 << 16);
    assert_eq!(c.take(), f);
}

#[test]
fn interrupts() {
    let mut c = Card::up();
    c.write(reg::INT_EN, int::SOFTWARE);
    assert!(c.line);
    assert_ne!(c.read(reg::IRQ_CFG) & irq_cfg::INT, 0);
    c.write(reg::INT_STS, int::SOFTWARE);
    assert!(!c.line);
    c.write(reg::IRQ_CFG, irq_cfg::ENABLE);
    assert!(c.line, "active low, idle");
    c.write(reg::INT_EN, int::TX_AVAILABLE);
    c.write(reg::FIFO_INT, 0x3200_0000);
    assert!(!c.line, "active low, active");
    c.write(reg::GPT_CFG, TIMER_ENABLE | 9);
    assert_eq!(c.due, Some(VTime(1_000_000)));
    c.now = VTime(500_000);
    assert_eq!(c.read(reg::GPT_CNT), 5);
    c.now = VTime(1_000_000);
    c.step(Event::Timer(0));
    assert_ne!(c.read(reg::INT_STS) & int::TIMER, 0);
    assert_eq!(c.due, Some(VTime(2_000_000)));
}

#[test]
fn the_eeprom_and_a_soft_reset() {
    let mut c = Card::up();
    let command = |c: &mut Card, n: u32, at: u32| c.write(reg::E2P_CMD, BUSY | n << 28 | at);
    command(&mut c, 0, 1);
    assert_eq!(c.read(reg::E2P_DATA), 0x52);
    c.write(reg::E2P_DATA, 0x56);
    command(&mut c, 3, 1);
    command(&mut c, 0, 1);
    assert_eq!(c.read(reg::E2P_DATA), 0x52, "not enabled");
    command(&mut c, 2, 0);
    c.write(reg::E2P_DATA, 0x56);
    command(&mut c, 3, 1);
    c.csr_write(3, 0);
    c.write(reg::HW_CFG, hw_cfg::SOFT_RESET);
    assert_eq!(c.read(reg::HW_CFG), hw_cfg::RESET);
    assert_eq!(c.csr_read(3), 0x1200_5456, "loaded again");
    assert_ne!(c.read(reg::E2P_CMD) & spec::MAC_LOADED, 0);
}

#[test]
fn hostile_guests() {
    let plugin = Plugin::of::<Lan9118>();
    let (mut sent, mut queued) = (0, 0);
    for seed in 0..200 {
        let mut bytes = opening();
        bytes.extend(hostile::script(seed, 1500));
        let done = hostile::drive(&plugin, "()", MemoryDisk::default(), &bytes);
        (sent, queued) = (sent + done.sent, queued + done.queued);
    }
    assert!(sent > 100 && queued > 100, "only {sent} bytes were sent, {queued} words came");
}

/// A script that switches everything on, with promiscuous reception.
fn opening() -> Vec<u8> {
    let spec = spec::spec();
    let at = |offset: u64| spec.registers.iter().position(|r| r.offset == offset).unwrap() as u8;
    let mut bytes = Vec::new();
    let mut write = |offset: u64, value: u32| bytes.extend([&[0, at(offset)], &value.to_le_bytes()[..]].concat());
    write(reg::MAC_CSR_DATA, mac_cr::TX | mac_cr::RX | mac_cr::PROMISCUOUS);
    write(reg::MAC_CSR_CMD, BUSY | 1);
    write(reg::TX_CFG, tx_cfg::ON);
    write(reg::TX_DATA, 3 << 12 | 16);
    write(reg::TX_DATA, 16);
    (0..4).for_each(|i| write(reg::TX_DATA, i));
    bytes
}

/// The driver sees the cable in the PHY: link, negotiation, what its partner can, energy on the wire; and by an interrupt, if it wants one.
#[test]
fn a_cable_that_is_pulled_is_seen() {
    let mut c = Card::up();
    c.phy_write(30, 0xd0);
    c.write(reg::INT_EN, int::PHY);
    assert_eq!((c.phy(1), c.phy(5), c.phy(17) & 2, c.active()), (0x782d, 0x41e1, 2, false));
    c.step(Event::Host { port: CABLE, data: &[1] });
    assert!(!c.active(), "to be told what it knows is nothing");
    c.step(Event::Host { port: CABLE, data: &[0] });
    assert!(c.active());
    c.write(reg::INT_STS, int::PHY);
    assert!(c.active(), "it holds until the PHY is asked");
    assert_eq!((c.phy(29), c.active(), c.phy(29)), (1 << 4, false, 0));
    assert_eq!((c.phy(1), c.phy(5), c.phy(17) & 2, c.device.want(WIRE)), (0x7809, 0, 0, 0));
    // Neither reset plugs it in.
    c.phy_write(0, 1 << 15);
    assert_eq!(c.phy(1), 0x7809);
    c.write(reg::HW_CFG, hw_cfg::SOFT_RESET);
    assert_eq!(c.phy(1), 0x7809);
    c.csr_write(1, mac_cr::TX | mac_cr::RX);
    c.phy_write(30, 0x40);
    c.write(reg::INT_EN, int::PHY);
    c.write(reg::IRQ_CFG, 0x111);
    c.step(Event::Host { port: CABLE, data: &[1] });
    assert!(c.active());
    assert_eq!((c.phy(29), c.phy(1)), (1 << 7 | 1 << 6, 0x782d));
    assert!(c.device.want(WIRE) > 0);
    // Out and in between two looks: it is shown once.
    c.step(Event::Host { port: CABLE, data: &[0] });
    c.step(Event::Host { port: CABLE, data: &[1] });
    assert_eq!((c.phy(1), c.phy(1)), (0x7829, 0x782d));
}
