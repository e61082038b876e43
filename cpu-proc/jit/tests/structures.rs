//! Element and structure loads and stores, and moves of extension registers, compiled and interpreted: the same registers, memory and aborts, at all
//! alignments, over the ends of pages, and where nothing is mapped.
#![cfg(target_arch = "x86_64")]

#[path = "../../interp/tests/support/mod.rs"]
mod support;

use reprise_arm::engine::{Budget, Engine};
use reprise_interp::Interp;
use reprise_jit::Jit;
use reprise_jit::emit::Features;
use support::{CODE, DATA, HOLE, MMIO, Machine, RAM, RAM_SIZE};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }
}

/// An instruction that moves extension registers; its base register is r0 to r3.
fn instruction(r: &mut Rng) -> u32 {
    let d = (r.below(2) << 22) | (r.below(16) << 12);
    let base = r.below(4) << 16;
    let load = r.below(2) << 21;
    let rm = [15, 13, 5][r.below(3) as usize];
    match r.below(6) {
        // VLD1 to VLD4, VST1 to VST4 of multiple structures.
        0..=2 => 0xf400_0000 | d | base | load | r.below(11) << 8 | r.below(16) << 4 | rm,
        // VLDM, VSTM of doubles.
        3 => 0xec80_0b00 | d | base | (load >> 1) | (1 + r.below(8)) * 2,
        // VMOV, VABS, VNEG of doubles and singles.
        4 => {
            0xeeb0_0a40
                | d
                | r.below(3) << 7 & 0x80
                | r.below(2) << 16
                | r.below(2) << 8
                | r.below(2) << 5
                | r.below(16)
        }
        // VMOV (immediate) and its kin.
        _ => {
            0xf280_0010
                | d
                | r.below(16) << 8
                | r.below(2) << 6
                | r.below(2) << 5
                | r.below(2) << 24
                | r.below(8) << 16
                | r.below(16)
        }
    }
}

/// An address at which the instruction may go wrong in its own way.
fn address(r: &mut Rng) -> u32 {
    match r.below(13) {
        8 => MMIO + 0x7f0 + r.below(32),
        9 => 0x3000_0000 - r.below(40),
        0..=2 => DATA + 16 * r.below(16),
        3 => DATA + r.below(256),
        4 | 5 => DATA + 0x1000 - r.below(40),
        6 => DATA + 0x1000 - 8 * r.below(5),
        7 => HOLE + 0x1000 - r.below(40),
        // The last mapped page.
        _ => RAM + RAM_SIZE as u32 - r.below(40),
    }
}

/// VFP arithmetic on a few registers, and what goes between: loads, moves, compares; some of it conditional.
fn arithmetic(r: &mut Rng) -> u32 {
    let (d, n, m) = (r.below(4) << 12, r.below(4) << 16, r.below(4));
    let extra = r.below(2) << 22 | r.below(2) << 7 | r.below(2) << 5;
    let extra = if r.below(4) == 0 { extra } else { 0 };
    let pick = |r: &mut Rng, of: &[u32]| of[r.below(of.len() as u32) as usize];
    let word = match r.below(13) {
        // VADD, VSUB, VMUL, VNMUL, VMLA, VMLS, VNMLS, VNMLA, VDIV, VFMA.
        0..=5 => {
            let ops = [
                0x0e30_0a00,
                0x0e30_0a40,
                0x0e20_0a00,
                0x0e20_0a40,
                0x0e00_0a00,
                0x0e00_0a40,
                0x0e10_0a00,
                0x0e10_0a40,
                0x0e80_0a00,
                0x0ea0_0a00,
            ];
            pick(r, &ops) | d | n | m | extra | r.below(2) << 8
        }
        // VSQRT, VCVT, VCMP, VMRS.
        6 => {
            pick(
                r,
                &[
                    0x0eb1_0ac0,
                    0x0eb1_0bc0,
                    0x0eb7_0ac0,
                    0x0eb7_0bc0,
                    0x0eb8_0bc0,
                    0x0eb8_0ac0,
                    0x0ebd_0bc0,
                    0x0ebc_0ac0,
                ],
            ) | d
                | m
        }
        7 => pick(r, &[0x0eb4_0b40, 0x0eb4_0ac0, 0x0eb5_0b40]) | d | m,
        8 => 0x0ef1_fa10,
        // VMOV between core and single, VLDR, VSTR.
        9 | 12 => pick(r, &[0x0e00_6a10, 0x0e00_6a10, 0x0e10_6a10]) | n,
        10 => pick(r, &[0x0d90_0b00, 0x0d80_0b00, 0x0d90_0a00, 0x0d80_0a00]) | n | d | r.below(4),
        // LDR, STR, CMP.
        _ => pick(r, &[0x0590_6000, 0x0580_6000, 0x0150_0006]) | n,
    };
    let cond = if r.below(16) == 0 { pick(r, &[0x0, 0x1, 0xc, 0xd, 0x8, 0x4]) } else { 0xe };
    word | cond << 28
}

/// A long program with new bases every few instructions, and its end.
fn program(r: &mut Rng, kind: fn(&mut Rng) -> u32) -> Vec<u32> {
    let mut words = Vec::new();
    for _ in 0..120 {
        for n in 0..4 {
            let a = address(r);
            let half = |v: u32| v >> 12 << 16 & 0xf_0000 | v & 0xfff;
            // MOVW, MOVT.
            words.extend([0xe300_0000 | n << 12 | half(a & 0xffff), 0xe340_0000 | n << 12 | half(a >> 16)]);
        }
        // Numbers of moderate size again, also in r6 as a single.
        words.extend([0xe300_6000 | r.below(0x1000), 0xe344_6000 | r.below(0x80)]);
        words.extend((0..4).map(|d| 0xeeb0_0b00 | (6 + r.below(2)) << 16 | d << 12 | r.below(16)));
        let n = if r.below(2) == 0 { 5 } else { 14 };
        words.extend((0..n).map(|_| kind(r)));
    }
    words.push(0xeaff_fffe);
    words
}

fn machine(words: &[u32], r: &mut Rng) -> Machine {
    let mut m = Machine::new(words);
    for i in 0..0x900 {
        m.write32(DATA + 4 * i, 0x3f00_0000 + r.below(0x0100_0000));
    }
    // Undefined instructions and aborts go on behind the instruction.
    let vectors = m.cpu.cp15.vbar[0];
    m.write32(vectors + 4, 0xe1b0_f00e);
    m.write32(vectors + 0x10, 0xe25e_f004);
    m.cpu.regs[5] = 24;
    // Numbers between 0.5 and 2 in D0 to D3 (and S0 to S6), now as words of doubles, now as singles.
    m.cpu.ext = std::array::from_fn(|i| match i {
        1 | 3 | 5 | 7 => 0x3fe0_0000 + r.below(0x20_0000),
        _ => r.next(),
    });
    m.cpu.fpscr = 0x10;
    m.cpu.cp15.cpacr = 0xf << 20;
    m.cpu.fpexc = 1 << 30;
    m.cpu.update_context();
    m
}

fn run(m: &mut Machine, e: &mut dyn Engine, n: u64) {
    let end = m.cpu.icount + n;
    while m.cpu.icount < end {
        let left = Budget::exactly(end - m.cpu.icount);
        e.run(&mut m.cpu, &m.ram, &mut m.bus, left);
    }
}

#[test]
fn compiled_moves_do_what_interpreted_ones_do() {
    both(instruction);
}

#[test]
fn compiled_arithmetic_does_what_interpreted_does() {
    both(arithmetic);
}

/// Runs programs of such instructions compiled and interpreted.
fn both(kind: fn(&mut Rng) -> u32) {
    for features in [Features::detect(), Features::none()] {
        for case in 0..10 {
            let words = program(&mut Rng(case), kind);
            let (mut x, mut y) = (machine(&words, &mut Rng(!case)), machine(&words, &mut Rng(!case)));
            let (mut jit, mut interp) = (Jit::with(features, 0).expect("memory for code"), Interp::new());
            let mut aborts = 0;
            while y.cpu.regs[15] != CODE + 4 * (words.len() as u32 - 1) {
                let at = y.cpu.regs[15];
                run(&mut x, &mut jit, 250);
                run(&mut y, &mut interp, 250);
                aborts += u32::from(y.cpu.cp15.dfar[0] != 0);
                assert_eq!(x.visible(), y.visible(), "case {case} after {at:#x}");
                assert_eq!(x.cpu.ext, y.cpu.ext, "case {case} after {at:#x}");
                assert_eq!(
                    (x.cpu.cp15.dfar, x.cpu.cp15.dfsr),
                    (y.cpu.cp15.dfar, y.cpu.cp15.dfsr),
                    "case {case} after {at:#x}"
                );
            }
            assert!(aborts > 0, "nothing aborted");
            for i in 0..0x900 {
                assert_eq!(x.read32(DATA + 4 * i), y.read32(DATA + 4 * i), "case {case}: memory at {i}");
            }
            assert!(jit.stats().compiled > 15, "{:?}", jit.stats());
        }
    }
}
