//! Results and flags of data processing against values worked out from the manual's pseudocode in wide arithmetic.

mod support;

use support::{CODE, Machine};

const VALUES: [u32; 9] = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fffe, 0xffff_ffff, 0x1234_5678];

/// AddWithCarry (ARM DDI 0406C A2.2.1): result and NZCV.
fn add_with_carry(x: u32, y: u32, c: u32) -> (u32, u32) {
    let unsigned = u64::from(x) + u64::from(y) + u64::from(c);
    let signed = i64::from(x as i32) + i64::from(y as i32) + i64::from(c);
    let v = unsigned as u32;
    let flags = (v >> 31) << 3
        | u32::from(v == 0) << 2
        | u32::from(unsigned != u64::from(v)) << 1
        | u32::from(signed != i64::from(v as i32));
    (v, flags)
}

/// A machine that runs one instruction at a time; each word has an address of its own, so blocks are made once.
struct Probe {
    m: Machine,
    words: Vec<u32>,
}

impl Probe {
    fn new() -> Self {
        Self { m: Machine::new(&[]), words: Vec::new() }
    }

    /// Runs `word` on r1, r2 with the given flags; gives r0 and the flags after it.
    fn run(&mut self, word: u32, r1: u32, r2: u32, nzcv: u32) -> (u32, u32) {
        let m = &mut self.m;
        let at = self.words.iter().position(|w| *w == word).unwrap_or_else(|| {
            m.write32(CODE + 8 * self.words.len() as u32, word);
            m.write32(CODE + 8 * self.words.len() as u32 + 4, 0xe7f0_00f0);
            self.words.push(word);
            self.words.len() - 1
        });
        (m.cpu.regs[0], m.cpu.regs[1], m.cpu.regs[2], m.cpu.regs[15]) = (0, r1, r2, CODE + 8 * at as u32);
        m.cpu.set_cpsr(m.cpu.cpsr() & 0x0fff_ffff | nzcv << 28);
        m.run(1);
        (m.cpu.regs[0], m.cpu.cpsr() >> 28)
    }
}

#[test]
fn additions_and_subtractions() {
    let mut p = Probe::new();
    for x in VALUES {
        for y in VALUES {
            for c in [0, 1] {
                let cases = [
                    (0xe091_0002, add_with_carry(x, y, 0)),
                    (0xe051_0002, add_with_carry(x, !y, 1)),
                    (0xe071_0002, add_with_carry(!x, y, 1)),
                    (0xe0b1_0002, add_with_carry(x, y, c)),
                    (0xe0d1_0002, add_with_carry(x, !y, c)),
                    (0xe0f1_0002, add_with_carry(!x, y, c)),
                ];
                for (word, want) in cases {
                    assert_eq!(p.run(word, x, y, c << 1), want, "{word:#x} {x:#x} {y:#x} C={c}");
                }
                let (_, flags) = p.run(0xe151_0002, x, y, 0);
                assert_eq!(flags, add_with_carry(x, !y, 1).1, "cmp {x:#x} {y:#x}");
                let (_, flags) = p.run(0xe171_0002, x, y, 0);
                assert_eq!(flags, add_with_carry(x, y, 0).1, "cmn {x:#x} {y:#x}");
            }
        }
    }
}

/// Shift_C (A2.2.1) of a register by a register's low byte: bit by bit.
fn shift_c(kind: u32, v: u32, n: u32, mut c: u32) -> (u32, u32) {
    let mut v = v;
    for _ in 0..n {
        match kind {
            0 => (c, v) = (v >> 31, v << 1),
            1 => (c, v) = (v & 1, v >> 1),
            2 => (c, v) = (v & 1, (v as i32 >> 1) as u32),
            _ => (c, v) = (v & 1, v.rotate_right(1)),
        }
    }
    (v, c)
}

#[test]
fn shifts_by_registers_with_carry() {
    let mut p = Probe::new();
    for kind in 0..4 {
        for v in VALUES {
            for n in [0, 1, 7, 31, 32, 33, 63, 64, 255, 256, 0xffff_ff01] {
                for c in [0, 1] {
                    let (want, carry) = shift_c(kind, v, n & 0xff, c);
                    let flags = (want >> 31) << 3 | u32::from(want == 0) << 2 | carry << 1 | 1;
                    // movs r0, r1, <shift> r2 with V set, which stays.
                    assert_eq!(
                        p.run(0xe1b0_0211 | kind << 5, v, n, c << 1 | 1),
                        (want, flags),
                        "kind {kind} {v:#x} by {n:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn shifts_by_constants_with_carry() {
    let mut p = Probe::new();
    for kind in 0..4u32 {
        for imm in 0..32u32 {
            for v in VALUES {
                for c in [0, 1] {
                    let (want, carry) = match (kind, imm) {
                        (0, 0) => (v, c),
                        (3, 0) => (v >> 1 | c << 31, v & 1),
                        (1 | 2, 0) => shift_c(kind, v, 32, c),
                        (k, n) => shift_c(k, v, n, c),
                    };
                    let flags = (want >> 31) << 3 | u32::from(want == 0) << 2 | carry << 1;
                    assert_eq!(
                        p.run(0xe1b0_0001 | imm << 7 | kind << 5, v, 0, c << 1),
                        (want, flags),
                        "kind {kind} #{imm} {v:#x}"
                    );
                }
            }
        }
    }
}

#[test]
fn conditions() {
    let mut p = Probe::new();
    // mov<c> r0, r1 for every condition and every state of the flags.
    for cond in 0..14u32 {
        for nzcv in 0..16u32 {
            let (n, z, c, v) = (nzcv >> 3 & 1, nzcv >> 2 & 1, nzcv >> 1 & 1, nzcv & 1);
            let base = match cond >> 1 {
                0 => z == 1,
                1 => c == 1,
                2 => n == 1,
                3 => v == 1,
                4 => c == 1 && z == 0,
                5 => n == v,
                _ => n == v && z == 0,
            };
            let want = if base != (cond & 1 == 1) { 7 } else { 0 };
            assert_eq!(p.run(cond << 28 | 0x01a0_0001, 7, 0, nzcv), (want, nzcv), "condition {cond}, flags {nzcv:04b}");
            // The same as a branch: b<c> .+8.
            p.run(cond << 28 | 0x0a00_0000, 0, 0, nzcv);
            let taken = p.m.cpu.regs[15] & 7 == 0;
            assert_eq!(taken, want == 7, "branch, condition {cond}, flags {nzcv:04b}");
        }
    }
}

#[test]
fn saturation_sets_q_and_keeps_the_flags() {
    for (word, x, y, want, q) in [
        (0xe102_0051u32, 0x7fff_ffff, 1, 0x7fff_ffff, 1),
        (0xe122_0051, 0x8000_0000, 1, 0x8000_0000, 1),
        (0xe102_0051, 5, 6, 11, 0),
        // ssat r0, #8, r1 ; usat r0, #8, r1
        (0xe6a7_0011, 200, 0, 127, 1),
        (0xe6e8_0011, 0xffff_ffff, 0, 0, 1),
    ] {
        let mut m = Machine::new(&[word]);
        (m.cpu.regs[1], m.cpu.regs[2]) = (x, y);
        m.run(1);
        assert_eq!((m.cpu.regs[0], m.cpu.q), (want, q), "{word:#x}");
    }
}

#[test]
fn parallel_arithmetic_sets_ge_and_sel_reads_it() {
    // uadd8 r0, r1, r2 ; sel r3, r1, r2 ; ssub16 r4, r1, r2
    let mut m = Machine::new(&[0xe651_0f92, 0xe681_3fb2, 0xe611_4f72]);
    (m.cpu.regs[1], m.cpu.regs[2]) = (0xff01_80ff, 0x0101_8001);
    m.run(2);
    assert_eq!((m.cpu.regs[0], m.cpu.ge, m.cpu.regs[3]), (0x0002_0000, 0b1011, 0xff01_80ff));
    m.run(1);
    assert_eq!((m.cpu.regs[4], m.cpu.ge), (0xfe00_00fe, 0b0011));
}
