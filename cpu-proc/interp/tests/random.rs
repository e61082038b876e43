//! Random programs: running them in one go, in random slices and one instruction at a time gives the same machine. Because a block of one
//! instruction leaves the optimizer nothing to do, this compares optimized blocks with unoptimized ones as well.

mod support;

use proptest::prelude::*;
use support::{CODE, DATA, Machine};

/// A small generator of instructions that keep a program inside its own code and data.
#[derive(Clone, Copy, Debug)]
struct Seed(u64);

impl Seed {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    /// r0-r7; r8 and r9 are data pointers that only writeback forms move, a little.
    fn reg(&mut self) -> u32 {
        self.below(8)
    }

    fn cond(&mut self) -> u32 {
        if self.below(3) == 0 { self.below(14) << 28 } else { 0xe000_0000 }
    }
}

/// One A32 instruction at index `at` of `len`.
fn a32(s: &mut Seed, at: u32, len: u32) -> u32 {
    let c = s.cond();
    let (d, n, m, base) = (s.reg(), s.reg(), s.reg(), 8 + s.below(2));
    match s.below(16) {
        // Data processing, all operations, sometimes with flags; compares need S.
        0..=3 => c | 0x0200_0000 | s.below(8) << 21 | s.below(2) << 20 | n << 16 | d << 12 | s.below(4096),
        4 | 5 => c | s.below(8) << 21 | s.below(2) << 20 | n << 16 | d << 12 | s.below(32) << 7 | s.below(4) << 5 | m,
        6 => c | (8 + s.below(4)) << 21 | 1 << 20 | n << 16 | s.below(32) << 7 | s.below(4) << 5 | m,
        7 => {
            c | (12 + s.below(4)) << 21
                | s.below(2) << 20
                | n << 16
                | d << 12
                | s.reg() << 8
                | s.below(4) << 5
                | 1 << 4
                | m
        }
        8 => c | 0x0000_0090 | s.below(2) << 20 | d << 16 | s.reg() << 8 | m,
        // Loads and stores of words and bytes, halves, doubles.
        9 | 10 => c | 0x0580_0000 | s.below(2) << 22 | s.below(2) << 20 | base << 16 | d << 12 | s.below(1024),
        11 => c | 0x01c0_00b0 | s.below(2) << 20 | base << 16 | d << 12 | s.below(16) << 8 | s.below(16),
        // LDM, STM.
        12 => c | 0x0880_0000 | s.below(2) << 20 | base << 16 | 1 << d | 1 << n | 1 << m,
        13 => c | 0x0328_f000 | s.below(16) << 28 >> 28 << 4 | s.below(16),
        14 => c | 0x06ef_0070 | d << 12 | m,
        // Branches anywhere in the program.
        _ => {
            let to = s.below(len) as i32 - at as i32 - 2;
            c | 0x0a00_0000 | to as u32 & 0x00ff_ffff
        }
    }
}

/// One T16 instruction, or an IT block of them.
fn t16(s: &mut Seed, out: &mut Vec<u16>, len: u32) {
    let (d, n, m) = (s.reg() as u16, s.reg() as u16, s.reg() as u16);
    match s.below(12) {
        0 => out.push(s.below(0x1800) as u16 & !0x0700 | d),
        1 => out.push(0x1800 | (s.below(4) as u16) << 9 | m << 6 | n << 3 | d),
        2 => out.push(0x2000 | (s.below(4) as u16) << 11 | d << 8 | s.below(256) as u16),
        3..=5 => out.push(0x4000 | (s.below(16) as u16) << 6 | m << 3 | d),
        6 => out.push(0xb200 | (s.below(4) as u16) << 6 | m << 3 | d),
        7 => {
            // IT with up to four instructions of data processing.
            let (cond, mask) = (s.below(14) as u16, 1 + s.below(15) as u16);
            out.push(0xbf00 | cond << 4 | mask);
            for _ in 0..4 - mask.trailing_zeros() {
                out.push(0x2000 | (s.below(4) as u16) << 11 | (s.reg() as u16) << 8 | s.below(256) as u16);
            }
        }
        // Stack accesses: sp stays put.
        8 => out.push(0x9000 | (s.below(2) as u16) << 11 | d << 8 | s.below(64) as u16),
        9 => out.push(0xba00 | [0u16, 1, 3][s.below(3) as usize] << 6 | m << 3 | d),
        10 => {
            let to = (s.below(len) as i32 - out.len() as i32 - 2).clamp(-126, 126);
            out.push(0xd000 | (s.below(14) as u16) << 8 | to as u16 & 0xff);
        }
        _ => out.push(0x4600 | (m << 3) | d),
    }
}

fn prepare(m: &mut Machine, s: &mut Seed) {
    for r in 0..8 {
        m.cpu.regs[r] = s.next() ^ s.next() << 7;
    }
    // Some of them with big-endian data, some in User mode.
    m.cpu.e = s.below(4) == 0;
    if s.below(3) == 0 {
        m.cpu.set_mode(reprise_arm::psr::Mode::Usr);
    }
    (m.cpu.regs[8], m.cpu.regs[9], m.cpu.regs[13]) = (DATA, DATA + 0xf00, DATA + 0x2000);
    for i in 0..0x800 {
        m.write32(DATA + 4 * i, s.next());
    }
}

fn a32_machine(seed: u64) -> Machine {
    let mut s = Seed(seed);
    let len = 8 + s.below(120);
    let mut program: Vec<u32> = (0..len).map(|i| a32(&mut s, i, len)).collect();
    // Back to the start.
    program.push(0xea00_0000 | (-(len as i32) - 2) as u32 & 0x00ff_ffff);
    let mut m = Machine::new(&program);
    prepare(&mut m, &mut s);
    m
}

fn thumb_machine(seed: u64) -> Machine {
    let mut s = Seed(seed);
    let len = 8 + s.below(100);
    let mut program = Vec::new();
    while program.len() < len as usize {
        t16(&mut s, &mut program, len);
    }
    program.push(0xe000 | (-(program.len() as i32) - 2) as u16 & 0x7ff);
    let mut m = Machine::thumb(&program);
    prepare(&mut m, &mut s);
    m
}

fn memory(m: &Machine) -> Vec<u8> {
    let mut v = vec![0; 0x4000];
    m.ram.read(u64::from(DATA) - 0x1000, &mut v).expect("in RAM");
    v
}

fn same_however_sliced(make: fn(u64) -> Machine, seed: u64, n: u64, slices: u64) {
    let mut whole = make(seed);
    whole.run(n);
    let mut single = make(seed);
    single.steps(n);
    let mut sliced = make(seed);
    let mut s = Seed(slices);
    while sliced.cpu.icount < n {
        let left = n - sliced.cpu.icount;
        sliced.run(left.min(1 + u64::from(s.below(70))));
    }
    assert_eq!(whole.cpu.icount, n);
    for other in [&single, &sliced] {
        assert_eq!(whole.visible(), other.visible(), "seed {seed}, code at {CODE:#x}");
        assert!(memory(&whole) == memory(other), "memory differs, seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a32_programs_do_not_depend_on_slicing(seed: u64, slices: u64, n in 1u64..3000) {
        same_however_sliced(a32_machine, seed, n, slices);
    }

    #[test]
    fn thumb_programs_do_not_depend_on_slicing(seed: u64, slices: u64, n in 1u64..3000) {
        same_however_sliced(thumb_machine, seed, n, slices);
    }
}
