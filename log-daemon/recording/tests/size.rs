//! What a quiet Linux boot costs: a made-up one with the numbers of a real one.

mod common;

use common::{end, manifest, message};
use reprise_recording::*;

/// A generator of numbers without a pattern (SplitMix64): hashes, and the entropy of a guest's addresses and times.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A boot: the guest's state between chunks.
struct Boot {
    noise: Noise,
    seq: u64,
    icount: u64,
    epoch: u64,
    /// Requests and effects so far, of the four channels.
    sent: [u64; 4],
    consumed: [u64; 4],
    rolling: [u64; 4],
    clock: u64,
}

const LINES: [&str; 6] = [
    "[    0.000000] Booting Linux on physical CPU 0x0\r\n",
    "[    0.000000] Linux version 6.1.0-armmp (gcc-12) #1 SMP\r\n",
    "[    0.412345] clocksource: Switched to clocksource arch_sys_counter\r\n",
    "[    1.073211] NET: Registered PF_INET6 protocol family\r\n",
    "[    1.223344] Run /init as init process\r\n",
    "GUEST READY\r\n",
];

impl Boot {
    fn entry(&mut self, list: &mut Vec<Entry>, kind: u8, channel: u16, [a, b, c, d]: [u64; 4]) {
        let at = Position { epoch: self.epoch, count: self.icount % 9_000_000, idle: 0 };
        list.push(Entry { seq: self.seq, at, kind, channel, a, b, c, d });
        self.seq += 1;
    }

    /// One synchronous or posted access, with its effects.
    fn access(&mut self, chunk: &mut Chunk, ch: u16, kind: u8, offset: u64, value: u64, posted: bool) {
        let i = usize::from(ch);
        self.icount += 60 + self.noise.below(900);
        self.epoch += 1 + self.noise.below(3);
        let mut m = message(self.sent[i], kind, offset, value, self.icount);
        m.flags = u16::from(posted);
        chunk.channel(ch).requests.push(m);
        if !posted {
            let reply = if kind == message::READ { message::REPLY } else { message::ACK };
            let value = if kind == message::READ { self.noise.below(256) } else { 0 };
            chunk
                .channel(ch)
                .effects
                .push(Message { cause: self.sent[i], ..message(self.consumed[i], reply, 0, value, 0) });
            self.consumed[i] += 1;
        }
        self.sent[i] += 1;
        self.rolling[i] = self.noise.next();
    }

    /// A progress group with a mark for each channel, and sometimes an anchor.
    fn progress(&mut self, chunk: &mut Chunk, anchors: u64) {
        let mut list = std::mem::take(&mut chunk.journal);
        for _ in 0..anchors {
            self.icount += 9_000_000 + self.noise.below(1_000_000);
            self.epoch += self.noise.below(40);
            let pc = 0xc010_0000 + (self.noise.below(1 << 20) << 2);
            let cpsr = [0x6000_0013, 0x2000_0013, 0x8000_0013, 0x6000_0093, 0x0000_0010][self.noise.below(5) as usize];
            let fields = [pc << 32 | cpsr, self.noise.next(), self.icount, self.noise.next()];
            self.entry(&mut list, journal::ANCHOR, 0, fields);
        }
        self.clock = self.noise.next();
        let icount = self.icount;
        self.entry(&mut list, journal::PROGRESS, 0, [icount, icount, 4, 0]);
        for i in 0..4u16 {
            let k = usize::from(i);
            let fields = [self.sent[k], self.consumed[k], self.rolling[k], self.clock];
            self.entry(&mut list, journal::MARK, i, fields);
        }
        chunk.journal = list;
    }
}

/// 350 progress groups and 350 anchors; 1700 requests on the UART, 100 on each of three more; 60 chunks.
fn boot(dir: &std::path::Path) -> (u64, u64, u64) {
    let mut m = manifest(dir);
    m.streams = Manifest::standard_streams(&[(0, "uart0"), (1, "sysreg"), (2, "sp804"), (3, "rtc")]);
    let mut writer = Writer::create(dir, &m, WriterOptions::default()).unwrap();
    let mut b = Boot {
        noise: Noise(1),
        seq: 0,
        icount: 0,
        epoch: 0,
        sent: [0; 4],
        consumed: [0; 4],
        rolling: [0; 4],
        clock: 0,
    };
    let text: Vec<u8> = LINES.iter().cycle().flat_map(|l| l.bytes()).take(1500).collect();
    let mut printed = text.iter();
    for n in 0..60u64 {
        let mut chunk = Chunk::default();
        for _ in 0..6 {
            let line: Vec<u8> = printed.by_ref().take(5).copied().collect();
            for &byte in &line {
                b.access(&mut chunk, 0, message::WRITE, 0, u64::from(byte), true);
            }
            chunk.channel(0).output.push(Output { port: 0, data: line });
            b.access(&mut chunk, 0, message::WRITE, 0x38, 0x50, false);
            if n < 50 {
                b.access(&mut chunk, 1 + (b.seq % 3) as u16, message::READ, 4 * (n % 8), 0, false);
            }
            b.progress(&mut chunk, 1);
        }
        chunk.channels.values_mut().for_each(|c| c.output.retain(|o| !o.data.is_empty()));
        writer.append(&chunk).unwrap();
    }
    let bytes = writer.finish(&end(1)).unwrap();
    (bytes, b.sent.iter().sum(), b.seq)
}

#[test]
fn a_quiet_boot_fits_in_64_kib() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, requests, entries) = boot(dir.path());
    assert!(verify(dir.path()).unwrap().is_good());
    println!("{bytes} bytes for {requests} requests and {entries} journal entries");
    assert!(requests > 2000 && entries > 2000);
    assert!(bytes <= 46 << 10, "{bytes} bytes");
}
