//! Loops of VFP arithmetic, compiled and interpreted: what is known of FPSCR and held in host registers goes from block to block, while operands turn
//! denormal, tiny, infinite or undefined in some round, FPSCR is read and written, loads abort or meet a device, and interrupts and stops
//! come at any instruction.
#![cfg(target_arch = "x86_64")]

#[path = "../../interp/tests/support/mod.rs"]
mod support;

use reprise_arm::engine::{Budget, Engine};
use reprise_interp::Interp;
use reprise_jit::Jit;
use reprise_jit::emit::Features;
use support::{CODE, DATA, MMIO, Machine, RAM, RAM_SIZE};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, n: u32) -> u32 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

/// Rounds of the outer loop, each with an FPSCR of its own.
const OUTER: u32 = 12;
/// Rounds of the inner one.
const INNER: u32 = 24;
const A: u32 = DATA;
const B: u32 = DATA + 0x2000;
const MODES: u32 = DATA + 0x4000;
const OUT: u32 = DATA + 0x5000;
/// Where results and what was read of FPSCR end, at the latest.
const END: u32 = DATA + 0x9000;
const VECTORS: u32 = RAM + 0x10_0000 - 0x1000;

const ODD: &[u64] = &[
    0,
    1 << 63,
    1,
    0x000f_ffff_ffff_ffff,
    0x8000_0000_0000_0123,
    0x0010_0000_0000_0000,
    0x0010_0000_0000_0001,
    0x0020_0000_0000_0000,
    0x1ff0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_1234,
    0x7ff0_0000_0000_0001,
    0x3ff0_0000_0000_0000,
];
const ODD_SINGLES: &[u32] = &[
    0,
    1 << 31,
    1,
    0x007f_ffff,
    0x8000_0123,
    0x0080_0000,
    0x0080_0001,
    0x0100_0000,
    0x1f80_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_1234,
    0x7f80_0001,
    0x3f80_0000,
];

/// A number: ordinary, but one in `rare` odd.
fn number(r: &mut Rng, dp: bool, rare: u32) -> u64 {
    match (dp, r.below(rare)) {
        (true, 0) => r.pick(ODD),
        (true, _) => u64::from(0x3fe0_0000 + r.below(0x20_0000)) << 32 | u64::from(r.next()),
        (false, 0) => u64::from(r.pick(ODD_SINGLES)) | u64::from(r.pick(ODD_SINGLES)) << 32,
        (false, _) => u64::from(0x3f00_0000 + r.below(0x100_0000)) | u64::from(0x3f00_0000 + r.below(0x100_0000)) << 32,
    }
}

/// One VFP register number (0-5) in the place of d, n or m.
fn reg(n: u32, low: u32, high: u32, dp: bool) -> u32 {
    if dp { (n & 15) << low | (n >> 4) << high } else { (n >> 1) << low | (n & 1) << high }
}

fn arithmetic(r: &mut Rng, dp: bool) -> u32 {
    let ops = [
        0xee30_0a00, // VADD
        0xee30_0a40, // VSUB
        0xee20_0a00, // VMUL
        0xee20_0a40, // VNMUL
        0xee00_0a00, // VMLA
        0xee00_0a00,
        0xee00_0a40, // VMLS
        0xee10_0a00, // VNMLS
        0xee10_0a40, // VNMLA
        0xee80_0a00, // VDIV
        0xeea0_0a00, // VFMA
        0xeea0_0a40, // VFMS
    ];
    let any = |r: &mut Rng| r.below(6);
    let (d, n, m) = (reg(any(r), 12, 22, dp), reg(any(r), 16, 7, dp), reg(any(r), 0, 5, dp));
    let sz = u32::from(dp) << 8;
    match r.below(16) {
        0 => 0xeeb1_0ac0 | d | m | sz,                                      // VSQRT
        1 => r.pick(&[0xeeb4_0a40, 0xeeb4_0ac0]) | d | m | sz,              // VCMP
        2 => r.pick(&[0xeeb0_0a40, 0xeeb0_0ac0, 0xeeb1_0a40]) | d | m | sz, // VMOV, VABS, VNEG
        3 => r.pick(&[0xeebd_0ac0, 0xeeb8_0ac0]) | d | m | sz,              // VCVT, to and from integers
        _ => r.pick(&ops) | d | n | m | sz,
    }
}

/// The two loops. r0 and r1 lead through the operands, r2 through results, r3 ends the inner loop, r4 splits it, r6 counts the outer one, r7 leads
/// through values for FPSCR, r8 is scratch.
fn program(r: &mut Rng, dp: bool, b: u32) -> Vec<u32> {
    let size = if dp { 8 } else { 4 };
    let sz = u32::from(dp) << 8;
    let words = if dp { 2 } else { 1 };
    let set = |n: u32, v: u32| {
        let half = |v: u32| v >> 12 << 16 & 0xf_0000 | v & 0xfff;
        [0xe300_0000 | n << 12 | half(v & 0xffff), 0xe340_0000 | n << 12 | half(v >> 16)]
    };
    let mut w = Vec::new();
    w.extend([set(2, OUT), set(6, OUTER), set(7, MODES)].concat());
    let outer = w.len();
    w.extend([set(0, A), set(1, b), set(3, A + INNER * size), set(4, A + r.below(INNER) * size)].concat());
    w.extend([0xe497_8004, 0xeee1_8a10]); // ldr r8, [r7], #4 ; vmsr fpscr, r8
    if r.below(2) == 0 {
        w.push(0xeeb0_0a00 | r.below(16) << 16 | reg(r.below(6), 12, 22, dp) | sz); // vmov d, #1.0 or so
    }
    if dp && r.below(2) == 0 {
        w.push(0xf280_0010 | reg(r.below(6), 12, 22, dp)); // vmov.i32 d, #0
    }
    let inner = w.len();
    let compare = r.below(3);
    w.push(0xecb0_0a00 | reg(r.below(6), 12, 22, dp) | sz | words); // vldmia r0!, {d}
    if compare == 0 {
        w.push(0xe150_0003); // cmp r0, r3
    }
    w.push(0xecb1_0a00 | reg(r.below(6), 12, 22, dp) | sz | words); // vldmia r1!, {d}
    (0..1 + r.below(4)).for_each(|_| w.push(arithmetic(r, dp)));
    if compare == 1 {
        w.push(0xe150_0003);
    }
    match r.below(5) {
        0 => w.push(0xeca2_0a00 | reg(r.below(6), 12, 22, dp) | sz | words), // vstmia r2!, {d}
        1 => w.extend([0xeef1_8a10, 0xe482_8004, 0xe482_8004]),              // vmrs r8, fpscr ; str r8, [r2], #4, twice
        2 if compare == 2 => w.extend([0xe150_0004, 0x1a00_0000, arithmetic(r, dp)]), // cmp r0, r4 ; bne over one
        3 => w.push(0x0e30_0a00 | arithmetic(r, dp) & 0x00ff_ffff),          // one under EQ
        _ => {}
    }
    (0..r.below(3)).for_each(|_| w.push(arithmetic(r, dp)));
    if compare == 2 {
        w.push(0xe150_0003);
    }
    let back = |from: usize, to: usize| (to as i32 - from as i32 - 2) as u32 & 0xff_ffff;
    w.push(0x1a00_0000 | back(w.len(), inner)); // bne
    w.extend([0xeef1_8a10, 0xe482_8004, 0xe482_8004]);
    w.push(0xeca2_0a00 | sz | words);
    w.push(0xe256_6001); // subs r6, r6, #1
    w.push(0x1a00_0000 | back(w.len(), outer));
    w.push(0xeaff_fffe);
    w
}

fn machine(words: &[u32], dp: bool, rare: u32, r: &mut Rng) -> Machine {
    let mut m = Machine::new(words);
    for at in [A, B, RAM + RAM_SIZE as u32 - 0x100] {
        for i in 0..0x20 {
            let v = number(r, dp, rare);
            m.write32(at + 8 * i, v as u32);
            m.write32(at + 8 * i + 4, (v >> 32) as u32);
        }
    }
    for i in 0..OUTER {
        // Mostly what programs run with; also flags that are clear, other rounding modes, default NaNs.
        let usual = r.pick(&[0x10, 0x0100_0010, 0x10, 0x0100_0010, 0, 0x0100_0000]);
        let odd = if r.below(4) == 0 { r.next() & 0x03c0_009f } else { 0 };
        m.write32(MODES + 4 * i, usual ^ odd);
    }
    // What aborts is skipped; an interrupt does nothing.
    m.write32(VECTORS + 4, 0xe1b0_f00e);
    m.write32(VECTORS + 0x10, 0xe25e_f004);
    m.write32(VECTORS + 0x18, 0xe25e_f004);
    m.cpu.i = false;
    m.cpu.ext = std::array::from_fn(|i| (number(r, dp, 8) >> (32 * (i & 1))) as u32);
    m.cpu.cp15.cpacr = 0xf << 20;
    m.cpu.fpexc = 1 << 30;
    m.cpu.update_context();
    m
}

/// How a run is cut.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// Not at all.
    Whole,
    /// Anywhere.
    Anywhere,
    /// Anywhere, with an interrupt.
    Interrupts,
}

fn run(m: &mut Machine, e: &mut dyn Engine, n: u64) {
    let end = m.cpu.icount + n;
    while m.cpu.icount < end {
        let left = Budget::exactly(end - m.cpu.icount);
        e.run(&mut m.cpu, &m.ram, &mut m.bus, left);
        assert!(m.cpu.halt.is_none(), "{:?}", m.cpu.halt);
    }
}

fn judge(seed: u64, features: Features) -> u64 {
    let mut r = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 77);
    let dp = r.below(4) != 0;
    // The second operand: RAM, the end of RAM, a device.
    let b = r.pick(&[B, B, B, RAM + RAM_SIZE as u32 - 0x60, MMIO + 0x7c0]);
    let words = program(&mut r, dp, b);
    let rare = r.pick(&[2, 8, 40, 1000]);
    let cut = r.pick(&[Cut::Whole, Cut::Anywhere, Cut::Interrupts]);
    let data = r.next().into();
    let (mut x, mut y) = (machine(&words, dp, rare, &mut Rng(data)), machine(&words, dp, rare, &mut Rng(data)));
    let (mut jit, mut interp) = (Jit::with(features, 0).expect("memory for code"), Interp::new());
    let last = CODE + 4 * (words.len() as u32 - 1);
    while y.cpu.regs[15] != last {
        assert!(y.cpu.icount < 1_000_000, "seed {seed}: it never ends, {:x?}: {words:x?}", y.cpu.regs);
        let n = if cut == Cut::Whole { 100_000 } else { 1 + u64::from(r.below(60)) };
        for (m, e) in [(&mut x, &mut jit as &mut dyn Engine), (&mut y, &mut interp)] {
            run(m, e, n);
            if cut == Cut::Interrupts {
                m.bus.irq = true;
                run(m, e, 1);
                m.bus.irq = false;
                // Back from the handler.
                run(m, e, 1);
            }
        }
        assert_eq!(x.visible(), y.visible(), "seed {seed}: {words:x?}");
        assert_eq!(x.cpu.ext, y.cpu.ext, "seed {seed}: {words:x?}");
        assert_eq!(x.cpu.fpscr, y.cpu.fpscr, "seed {seed}: {words:x?}");
        assert_eq!((x.cpu.cp15.dfar, x.cpu.cp15.dfsr), (y.cpu.cp15.dfar, y.cpu.cp15.dfsr), "seed {seed}");
    }
    assert!(y.cpu.regs[2] <= END, "results stay where they are looked for");
    for at in (OUT..END).step_by(4) {
        assert_eq!(x.read32(at), y.read32(at), "seed {seed}: results at {at:#x}, {words:x?}");
    }
    assert_eq!(x.bus.log, y.bus.log, "seed {seed}: device");
    jit.stats().compiled
}

/// `REPRISE_CASES` gives their number, `REPRISE_SEED` the first.
#[test]
fn compiled_loops_do_what_interpreted_ones_do() {
    let from = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (first, cases): (u64, u64) = (from("REPRISE_SEED", 0), from("REPRISE_CASES", 240));
    let mut compiled = 0;
    for seed in first..first + cases {
        let features = if seed % 4 == 3 { Features::none() } else { Features::detect() };
        compiled += judge(seed, features);
    }
    // The general form, the one that looks first, and at least one that knows.
    assert!(compiled > 6 * cases, "{compiled} forms in {cases} cases");
}
