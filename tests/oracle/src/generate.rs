//! Makes cases: instructions drawn from the decoder's tables, registers and memory that provoke.

use crate::case::{CODE, CODE_SIZE, Case, DATA, DATA_SIZE, Isa, MAX_LEN, State};
use crate::compare::ignored_bits;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reprise_arm::decode::{A32, Line, Space, T16, T32};

/// Which instructions a run draws.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Only lines whose name contains one of these; empty for all.
    pub only: Vec<String>,
    /// Percentage of instructions that are random words instead of table lines.
    pub wild: u32,
    /// Cases of one instruction only.
    pub single: bool,
}

/// The generator: which lines there are, by instruction set.
pub struct Generator {
    seed: u64,
    choice: Choice,
    a32: Vec<&'static Line>,
    t32: Vec<&'static Line>,
    t16: Vec<&'static Line>,
}

/// Words that break things: extremes, and floating-point oddities.
const WORDS: &[u32] = &[
    0,
    1,
    2,
    3,
    31,
    32,
    33,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_fffe,
    0xffff_ffff,
    0x3f80_0000,
    0xbf80_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0x0000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x4f00_0000,
    0xcf00_0000,
    0x4effffff,
    0x4f80_0000,
    0x3300_0000,
    0x477f_e000,
    0x3880_0000,
    0x0101_0101,
    0x7f7f_7f7f,
    0x8080_8080,
    0x5555_5555,
    0xaaaa_aaaa,
];

/// The same for double precision.
const DOUBLES: &[u64] = &[
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x41df_ffff_ffc0_0000,
    0x41e0_0000_0000_0000,
    0xc1e0_0000_0000_0000,
    0x41ef_ffff_ffe0_0000,
    0x36a0_0000_0000_0000,
    0x47ef_ffff_e000_0000,
    0x3810_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x4000_0000_0000_0000,
    0x4330_0000_0000_0001,
];

/// Instructions that a case in User mode can't compare: they wait, or show what differs between cores by intent.
///
/// So do the transfers of the debug communication channel (`*_dbgdtr`), which Unicorn has not.
///
/// IT is added by hand, as the first of several: alone it has no effect that Unicorn, which never stops after it, could show.
const LEFT_OUT: &[&str] = &["wfi", "wfe", "sev", "yield", "dbg", "hvc", "smc", "it"];

impl Generator {
    /// A generator for `seed`.
    ///
    /// # Panics
    /// If the choice leaves no instruction.
    pub fn new(seed: u64, choice: Choice) -> Self {
        let pick = |s: &'static Space| -> Vec<&'static Line> {
            s.lines
                .iter()
                .filter(|l| choice.only.is_empty() || choice.only.iter().any(|o| l.name.contains(o.as_str())))
                .filter(|l| !LEFT_OUT.contains(&l.name) && !l.name.contains("_dbgdtr"))
                .collect()
        };
        let g = Self { seed, a32: pick(&A32), t32: pick(&T32), t16: pick(&T16), choice };
        assert!(!(g.a32.is_empty() && g.t32.is_empty() && g.t16.is_empty()), "no instruction has such a name");
        g
    }

    /// Case number `n`.
    pub fn case(&self, n: u64) -> Case {
        let mut rng = SmallRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
        let thumb = match (self.a32.is_empty(), self.t32.is_empty() && self.t16.is_empty()) {
            (false, false) => rng.random_bool(0.5),
            (no_arm, _) => no_arm,
        };
        let len = if self.choice.single || rng.random_bool(0.6) { 1 } else { rng.random_range(2..=MAX_LEN) };
        // 64 bytes a case, in order, so that oracles see fresh addresses for a long time.
        let at = CODE + 64 * (n % u64::from(CODE_SIZE / 64)) as u32;
        let mut case = Case {
            isa: if thumb { Isa::T32 } else { Isa::A32 },
            code: Vec::new(),
            width: Vec::new(),
            at,
            state: state(&mut rng, at, thumb),
            data_seed: rng.random(),
            loops: false,
            names: Vec::new(),
        };
        if n % 8 == 7 && self.choice.wild < 100 && !self.choice.single {
            self.looping(&mut rng, &mut case);
            return case;
        }
        for _ in 0..len {
            self.instruction(&mut rng, &mut case, len > 1);
        }
        if thumb && len > 1 && rng.random_bool(0.3) {
            // Begin inside nothing: IT blocks come from the IT instruction itself.
            let it = 0xbf00 | rng.random_range(0..14) << 4 | rng.random_range(1..16);
            case.code.insert(0, it);
            case.width.insert(0, 2);
            case.names.insert(0, "it".into());
            case.code.truncate(MAX_LEN);
            case.width.truncate(MAX_LEN);
            case.names.truncate(MAX_LEN);
        }
        case
    }

    /// A loop of a few rounds with branches forward in it, so that blocks are entered again and from several places: a counter that is seldom
    /// anything else's destination, and all instructions that do not jump.
    fn looping(&self, rng: &mut SmallRng, case: &mut Case) {
        let counter = rng.random_range(0..8);
        case.state.regs[counter as usize] = rng.random_range(2..7);
        for _ in 0..rng.random_range(2..=6) {
            self.instruction(rng, case, true);
        }
        // A branch over one instruction or two, where no IT block is in the way.
        let at = rng.random_range(0..case.code.len() - 1);
        let over = (at + rng.random_range(1..3)).min(case.code.len());
        let skipped: u32 = case.width[at..over].iter().map(|w| u32::from(*w)).sum();
        let condition = rng.random_range(0..14);
        let (word, width) = match case.isa {
            Isa::A32 => (condition << 28 | 0x0a00_0000 | (skipped / 4).wrapping_sub(1) & 0x00ff_ffff, 4),
            Isa::T32 => (0xd000 | condition << 8 | (skipped / 2).wrapping_sub(1) & 0xff, 2),
        };
        insert(case, at, word, width, "b");
        let down = match case.isa {
            Isa::A32 => (0xe250_0001 | counter << 16 | counter << 12, 4),
            Isa::T32 => (0x3801 | counter << 8, 2),
        };
        insert(case, case.code.len(), down.0, down.1, "subs");
        let back = case.len();
        let (word, width) = match case.isa {
            Isa::A32 => (0x1a00_0000 | ((back + 8) / 4).wrapping_neg() & 0x00ff_ffff, 4),
            Isa::T32 => (0xd100 | ((back + 4) / 2).wrapping_neg() & 0xff, 2),
        };
        insert(case, case.code.len(), word, width, "bne");
        case.loops = true;
    }

    fn instruction(&self, rng: &mut SmallRng, case: &mut Case, straight: bool) {
        for _ in 0..100 {
            let (word, width, name) = self.draw(rng, case.isa);
            if straight && (jumps(case.isa, word, width, &name) || LEFT_OUT.contains(&name.as_str())) {
                continue;
            }
            case.code.push(word);
            case.width.push(width);
            case.names.push(name);
            return;
        }
        // Nothing but jumps in the choice.
        let (word, width, name) = self.draw(rng, case.isa);
        case.code.push(word);
        case.width.push(width);
        case.names.push(name);
    }

    fn draw(&self, rng: &mut SmallRng, isa: Isa) -> (u32, u8, String) {
        let (space, lines, width) = match isa {
            Isa::A32 => (&A32, &self.a32, 4),
            Isa::T32 if self.t32.is_empty() || (!self.t16.is_empty() && rng.random_bool(0.4)) => (&T16, &self.t16, 2),
            Isa::T32 => (&T32, &self.t32, 4),
        };
        if rng.random_range(0..100) < self.choice.wild {
            return wild(rng, isa);
        }
        let line = lines.choose(rng).expect("not empty");
        for _ in 0..64 {
            let mut w = fill(rng, line.mask, line.value) & if width == 2 { 0xffff } else { !0 };
            w = should_be(rng, space, w);
            if isa == Isa::A32 && line.conditional {
                // Mostly AL: a failed condition tests little.
                w = w & 0x0fff_ffff | if rng.random_bool(0.7) { 0xe } else { rng.random_range(0..15) } << 28;
            }
            if line.matches(w) && space.lookup(w).is_some_and(|l| l.name == line.name) {
                return (w, width, line.name.to_owned());
            }
        }
        wild(rng, isa)
    }
}

fn insert(case: &mut Case, at: usize, word: u32, width: u8, name: &str) {
    case.code.insert(at, word);
    case.width.insert(at, width);
    case.names.insert(at, name.into());
}

/// Random bits outside `mask`; register-like nibbles repeat a small set more often than chance would.
fn fill(rng: &mut SmallRng, mask: u32, value: u32) -> u32 {
    let mut w: u32 = rng.random();
    if rng.random_bool(0.15) {
        w &= rng.random::<u32>();
    }
    if rng.random_bool(0.2) {
        // Make two register fields equal.
        let (a, b) = (4 * rng.random_range(0..5), 4 * rng.random_range(0..5));
        w = w & !(15 << a) | (w >> b & 15) << a;
    }
    w & !mask | value & mask
}

/// Gives each run of bits that the decoder ignores one value, mostly: oracles refuse should-be bits that are wrong.
fn should_be(rng: &mut SmallRng, space: &'static Space, w: u32) -> u32 {
    let ignored = ignored_bits(space, w);
    if ignored == 0 || rng.random_bool(0.05) {
        return w;
    }
    let (mut out, mut ones) = (w & !ignored, false);
    for i in 0..32 {
        let starts = i == 0 || ignored >> (i - 1) & 1 == 0 || i % 4 == 0;
        if ignored >> i & 1 == 1 {
            if starts {
                ones = rng.random_bool(0.5);
            }
            out |= u32::from(ones) << i;
        }
    }
    out
}

fn wild(rng: &mut SmallRng, isa: Isa) -> (u32, u8, String) {
    let w: u32 = rng.random();
    match isa {
        Isa::A32 => (if rng.random_bool(0.7) { w & 0x0fff_ffff | 0xe000_0000 } else { w }, 4, "wild".into()),
        Isa::T32 if rng.random_bool(0.3) => {
            let h = w & 0xffff;
            // Not the first half of a wide instruction.
            let h = if h >> 11 >= 0x1d { h & 0xdfff } else { h };
            (if h >> 8 == 0xbf { 0xbf00 } else { h }, 2, "wild".into())
        }
        Isa::T32 => {
            (w | 0xe800_0000 | [0x0800_0000, 0x1000_0000, 0x1800_0000][rng.random_range(0..3)], 4, "wild".into())
        }
    }
}

/// Whether an instruction can write the PC: such a one stands alone in its case.
fn jumps(isa: Isa, w: u32, width: u8, name: &str) -> bool {
    let name_says =
        ["b", "bl", "blx", "bx", "bxj", "cbz", "cbnz", "tbb", "tbh", "svc", "udf", "bkpt", "it", "rfe", "wild"]
            .iter()
            .any(|n| name == *n || name.starts_with(&format!("{n}_")));
    if name_says {
        return true;
    }
    match (isa, width) {
        // Rd = PC in data processing and loads (bits 15:12), or a list with PC.
        (Isa::A32, _) => match w >> 25 & 7 {
            0..=3 => w >> 12 & 15 == 15 || w >> 16 & 15 == 15,
            4 => w >> 15 & 1 == 1,
            5 => w >> 28 != 15,
            _ => false,
        },
        (_, 4) => match w >> 25 & 3 {
            0 => w >> 15 & 1 == 1 || w >> 12 & 15 == 15 || w >> 8 & 15 == 15,
            1 | 2 if w >> 27 == 0x1e => w >> 15 & 1 == 1 || w >> 8 & 15 == 15,
            _ => w >> 12 & 15 == 15 && w >> 26 & 1 == 0,
        },
        // T16: high-register operations on PC, POP with PC, branches, SVC.
        _ => {
            (w >> 10 == 0x11 && (w & 0x87 == 0x87 || w >> 8 == 0x47))
                || w >> 8 == 0xbd
                || w >> 12 == 0xd
                || w >> 11 == 0x1c
                || (w >> 12 == 0xb && w & 0x500 == 0x100)
                || w >> 8 == 0xbf && w & 15 != 0
        }
    }
}

fn word(rng: &mut SmallRng) -> u32 {
    match rng.random_range(0..10) {
        0..=2 => *WORDS.choose(rng).expect("not empty"),
        3 => rng.random::<u32>() >> rng.random_range(0..32),
        4 => rng.random_range(0..64),
        5 => DATA + rng.random_range(0..DATA_SIZE),
        6 => (DATA + rng.random_range(0..DATA_SIZE)) & !7,
        7 => [DATA, DATA + DATA_SIZE, DATA + 0x1000][rng.random_range(0..3)]
            .wrapping_add(rng.random_range(0..32))
            .wrapping_sub(16),
        _ => rng.random(),
    }
}

fn double(rng: &mut SmallRng) -> u64 {
    match rng.random_range(0..8) {
        0 | 1 => *DOUBLES.choose(rng).expect("not empty"),
        // A double of a moderate exponent, a pair of floats of moderate exponents.
        2 => rng.random::<u64>() & 0x800f_ffff_ffff_ffff | rng.random_range(0x3d0..0x430u64) << 52,
        3 => {
            let float = |rng: &mut SmallRng| rng.random::<u32>() & 0x807f_ffff | rng.random_range(100..156) << 23;
            u64::from(float(rng)) << 32 | u64::from(float(rng))
        }
        4 => {
            u64::from(*WORDS.choose(rng).expect("not empty")) << 32 | u64::from(*WORDS.choose(rng).expect("not empty"))
        }
        _ => rng.random(),
    }
}

fn state(rng: &mut SmallRng, at: u32, thumb: bool) -> State {
    let mut regs = [0; 16];
    // Half of the cases keep every register near the data window, so that memory instructions reach it.
    let near = rng.random_bool(0.5);
    for r in &mut regs {
        *r = if near && rng.random_bool(0.7) {
            let unaligned = if rng.random_bool(0.8) { !3 } else { !0 };
            DATA + (rng.random_range(64..DATA_SIZE - 64) & unaligned)
        } else {
            word(rng)
        };
    }
    if near {
        // Index registers: small.
        regs[rng.random_range(0..15)] = rng.random_range(0..64);
        regs[rng.random_range(0..15)] = rng.random_range(0..32) * 4;
    }
    regs[15] = at;
    let flags = rng.random_range(0..16u32) << 28 | rng.random_range(0..2u32) << 27 | rng.random_range(0..16u32) << 16;
    let cpsr = flags | 0x10 | if thumb { 0x20 } else { 0 };
    let mut d = [0; 32];
    d.iter_mut().for_each(|x| *x = double(rng));
    // NZCV, rounding mode, DN, FZ, and seldom cumulative flags, stride and length.
    let mut fpscr = rng.random_range(0..16u32) << 28;
    if rng.random_bool(0.3) {
        fpscr |= rng.random_range(0..8u32) << 22 | rng.random_range(0..4u32) << 24;
    }
    if rng.random_bool(0.1) {
        fpscr |= rng.random_range(0..2u32) << 27 | rng.random::<u32>() & 0x9f;
    }
    State { regs, cpsr, d, fpscr }
}
