//! A random guest: code, memory, registers and system state.

use crate::source::Source;
use reprise_arm::decode::{A32, Line, Space, T16, T32};

/// RAM of a case.
pub const RAM: u32 = 0x8000_0000;
/// Its size.
pub const RAM_SIZE: u32 = 0x4_0000;
/// Second-level tables.
pub const L2: u32 = RAM + 0x4000;
/// Exception vectors and handlers.
pub const VECTORS: u32 = RAM + 0x8000;
/// Where the guest starts: in the middle of [`CODE_SIZE`] bytes of code.
pub const CODE: u32 = RAM + 0x1_0000;
/// Bytes of code: more than a page, so that runs cross from one to the next.
pub const CODE_SIZE: u32 = 0x2000;
/// Data, and everything else.
pub const DATA: u32 = RAM + 0x2_0000;
/// A page of device registers; see [`crate::machine`].
pub const MMIO: u32 = 0x1000_0000;

/// A guest, complete.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it was made from; 0 for a fuzzer's bytes.
    pub seed: u64,
    /// Code at [`CODE`], with what surrounds it.
    pub code: Vec<u8>,
    /// r0-r14 and the PC.
    pub regs: [u32; 16],
    /// CPSR at the start.
    pub cpsr: u32,
    /// sp of every bank, and a value for every SPSR.
    pub stacks: [u32; 8],
    /// SPSRs.
    pub spsr: [u32; 8],
    /// Extension registers.
    pub ext: [u32; 64],
    /// FPSCR.
    pub fpscr: u32,
    /// VFP is on.
    pub vfp: bool,
    /// SCTLR.
    pub sctlr: u32,
    /// SCR.
    pub scr: u32,
    /// DACR.
    pub dacr: u32,
    /// Attributes of first-level entries and pages come from this.
    pub tables: u64,
    /// Seed of what lies in RAM elsewhere.
    pub data: u64,
    /// How many instructions are run.
    pub length: u64,
    /// A Cortex-A9 instead of an A15.
    pub a9: bool,
}

/// Floating-point values that provoke, as words.
const FLOATS: &[u32] = &[
    0,
    0x8000_0000,
    1,
    0x007f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0x4f00_0000,
    0xcf00_0000,
    0x3ff0_0000,
    0x7ff0_0000,
    0x7ff8_0000,
    0x0010_0000,
    0x41e0_0000,
];

impl Case {
    /// The guest of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut s = Source::seeded(seed);
        let (thumb, tame) = (s.one_in(2), !s.one_in(3));
        let code = code(&mut s, thumb, tame);
        let mut case = Self { seed, ..Self::with(&mut s, thumb, code) };
        if tame {
            // Pointers that nothing but writeback changes.
            for (i, r) in case.regs[8..13].iter_mut().enumerate() {
                *r = DATA + 0x800 + 0x300 * i as u32 + (s.below(0x80) & if s.one_in(4) { !0 } else { !7 });
            }
            (case.regs[15], case.vfp) = (CODE, !s.one_in(20));
        }
        case
    }

    /// The guest that a fuzzer's bytes describe: the state, then code for as long as they last, over and over.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (state, rest) = bytes.split_at(bytes.len().min(256));
        let mut s = Source::bytes(state);
        let thumb = s.one_in(2);
        let mut code = Vec::with_capacity(CODE_SIZE as usize);
        while code.len() < CODE_SIZE as usize {
            match rest {
                [] => code.extend_from_slice(&s.word().to_le_bytes()),
                _ => code.extend_from_slice(&rest[..rest.len().min(CODE_SIZE as usize - code.len())]),
            }
        }
        code.truncate(CODE_SIZE as usize);
        Self::with(&mut s, thumb, code)
    }

    fn with(s: &mut Source<'_>, thumb: bool, code: Vec<u8>) -> Self {
        let mode = s.pick(&[0x10, 0x10, 0x13, 0x13, 0x1f, 0x11, 0x12, 0x17, 0x1b, 0x16]);
        let flags = s.word() & 0xf80f_0000;
        let rare = |s: &mut Source<'_>, n, bits: u32| if s.one_in(n) { bits } else { 0 };
        let it = if thumb && s.one_in(8) { s.word() & 0x0600_fc00 } else { 0 };
        let masks = s.word() & 0x1c0;
        let cpsr = flags | it | rare(s, 6, 0x200) | masks | u32::from(thumb) << 5 | mode;
        let mmu = !s.one_in(4);
        let sctlr = 0x00c5_1878
            | u32::from(mmu)
            | rare(s, 10, 2)
            | rare(s, 16, 1 << 25)
            | rare(s, 16, 1 << 30)
            | rare(s, 16, 1 << 28)
            | rare(s, 16, 1 << 29)
            | rare(s, 16, 1 << 19);
        let mut regs = [0; 16];
        regs.iter_mut().for_each(|r| *r = value(s));
        regs[13] = DATA + 0x800 + (s.below(0x1000) & !7);
        // Mostly the start of the code, so that there is some to run.
        regs[15] = CODE + if s.one_in(2) { 0 } else { s.below(CODE_SIZE / 2) & if thumb { !1 } else { !3 } };
        if s.one_in(40) {
            regs[15] = value(s) & if thumb { !1 } else { !3 };
        }
        let mut stacks = [0; 8];
        stacks.iter_mut().for_each(|r| *r = DATA + (s.below(0x3000) & !7));
        let mut spsr = [0; 8];
        spsr.iter_mut().for_each(|r| *r = s.word() & !0x1f | s.pick(&[0x10, 0x13, 0x1f, 0x12, 0x17]));
        let mut ext = [0; 64];
        ext.iter_mut().for_each(|r| *r = if s.one_in(2) { s.pick(FLOATS) } else { s.word() });
        let mut fpscr = s.word() & 0xf000_0000;
        if s.one_in(3) {
            fpscr |= s.word() & 0x0fc0_009f;
        }
        fpscr |= rare(s, 30, 0x0001_0000);
        Self {
            seed: 0,
            code,
            regs,
            cpsr,
            stacks,
            spsr,
            ext,
            fpscr,
            vfp: !s.one_in(5),
            sctlr,
            scr: if s.one_in(5) { s.word() & 0x3e } else { 0 },
            dacr: if s.one_in(6) { s.word() } else { 1 },
            tables: u64::from(s.word()) << 32 | u64::from(s.word()),
            data: u64::from(s.word()),
            length: 200 + u64::from(s.below(3000)),
            a9: s.one_in(6),
        }
    }
}

/// A register's value: pointers to data, code, tables and devices, small numbers, extremes, anything.
fn value(s: &mut Source<'_>) -> u32 {
    match s.below(12) {
        0..=3 => DATA + s.below(0x4000),
        4 | 5 => DATA + (s.below(0x4000) & !7),
        6 => CODE + s.below(CODE_SIZE),
        7 => MMIO + (s.below(0x1000) & !3),
        8 => s.below(64),
        9 => s.pick(&[0, 1, !0, 0x8000_0000, 0x7fff_ffff, 0xff, 0xffff, RAM, RAM + RAM_SIZE - 2, L2, VECTORS]),
        10 => DATA + 0x1000 * s.below(4) - s.below(16),
        _ => s.word(),
    }
}

/// Code: mostly table lines with random operands, branches within itself, data pointers, and random words.
///
/// A tame program goes on for long: it hardly has system instructions, and its loads and stores go through r8-r12, which little else writes.
fn code(s: &mut Source<'_>, thumb: bool, tame: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(CODE_SIZE as usize + 4);
    // A short program over and over gets hot; a long one fills caches.
    let unit = s.pick(&[48, 128, 512, CODE_SIZE]);
    // Wild words: none, some or all.
    let wild = if tame { 0 } else { s.pick(&[0, 3, 20, 100]) };
    // Few kinds of instructions make denser cases than all of them.
    let lines = [choice(s, &A32, tame), choice(s, &T32, tame), choice(s, &T16, tame)];
    let one = |s: &mut Source<'_>, space, i: usize| match instruction(s, space, &lines[i], wild) {
        (Some(line), w) if tame => tamed(s, space, line, w),
        (_, w) => w,
    };
    while out.len() < unit as usize {
        if thumb && s.one_in(12) {
            put16(&mut out, 0xbf00 | s.below(15) << 4 | 1 + s.below(15));
        }
        let (at, branch) = (out.len() as u32, s.one_in(9));
        match (thumb, branch) {
            (false, true) => put32(&mut out, a32_branch(s, at, unit)),
            (true, true) => t16_branch(s, &mut out, unit),
            (false, false) => put32(&mut out, one(s, &A32, 0)),
            (true, false) if s.one_in(2) => put16(&mut out, one(s, &T16, 2)),
            (true, false) => {
                let w = one(s, &T32, 1);
                put16(&mut out, w >> 16);
                put16(&mut out, w);
            }
        }
    }
    // The end leads back to the start.
    let end = out.len() as u32;
    if thumb {
        put16(&mut out, 0xe000 | (end + 4).wrapping_neg() >> 1 & 0x7ff);
    } else {
        put32(&mut out, 0xea00_0000 | (end + 8).wrapping_neg() >> 2 & 0x00ff_ffff);
    }
    let once = out.clone();
    while out.len() < CODE_SIZE as usize {
        out.extend_from_slice(&once);
    }
    out.truncate(CODE_SIZE as usize);
    out
}

fn put16(out: &mut Vec<u8>, h: u32) {
    out.extend_from_slice(&(h as u16).to_le_bytes());
}

fn put32(out: &mut Vec<u8>, w: u32) {
    out.extend_from_slice(&w.to_le_bytes());
}

/// The lines that a case draws from: all, or a dozen.
fn choice(s: &mut Source<'_>, space: &'static Space, tame: bool) -> Vec<&'static Line> {
    let all: Vec<_> = space.lines.iter().filter(|l| !tame || is_tame(l)).collect();
    if s.one_in(2) {
        return all;
    }
    (0..12).map(|_| s.pick(&all)).collect()
}

/// What leads away, or needs a system around it.
fn is_tame(line: &Line) -> bool {
    let away = [
        "b", "bl", "blx", "bx", "bxj", "cb", "tb", "svc", "udf", "bkpt", "smc", "hvc", "rfe", "srs", "msr", "cps",
        "mcr", "mrc", "mrrc", "cdp", "ldc", "stc", "setend", "wf", "it", "eret", "subs_pc", "ldm_user", "stm_user",
        "vmsr", "undef",
    ];
    let starts = |p: &str| match p.len() {
        // Whole names: BIC and BFI are no branches.
        0..=3 => line.name == p || line.name.starts_with(&format!("{p}_")),
        _ => line.name.starts_with(p),
    };
    !away.iter().any(|p| starts(p)) && !["cbz", "cbnz", "tbb", "tbh", "wfi", "wfe"].contains(&line.name)
}

/// `w` with a base register among r8-r12, where it is a load or store of the wide spaces, and a destination that is none of them.
fn tamed(s: &mut Source<'_>, space: &'static Space, line: &Line, w: u32) -> u32 {
    if space.name == "t16" || s.one_in(60) {
        return w;
    }
    let memory = ["ld", "st", "vld", "vst", "pl"].iter().any(|p| line.name.starts_with(p));
    let mut t = w;
    if memory {
        t = t & !0x000f_0000 | (8 + s.below(5)) << 16;
        if space.name == "a32" && w >> 26 & 3 == 1 {
            // A small offset, mostly without writeback.
            t &= !0xc00;
            if !s.one_in(6) {
                t = t & !(1 << 21) | 1 << 24;
            }
        }
    }
    // Destinations are r0-r7.
    t &= !0x8000;
    if space.name == "t32" {
        t &= !0x0800;
    }
    if line.matches(t) && space.lookup(t).is_some_and(|l| l.name == line.name) { t } else { w }
}

fn instruction(
    s: &mut Source<'_>,
    space: &'static Space,
    lines: &[&'static Line],
    wild: u32,
) -> (Option<&'static Line>, u32) {
    if s.below(100) < wild {
        return (None, s.word());
    }
    for _ in 0..8 {
        let line = s.pick(lines);
        let mut w = s.word() & !line.mask | line.value;
        if space.name == "a32" && line.conditional && !s.one_in(4) {
            w = w & 0x0fff_ffff | 0xe000_0000;
        }
        // Mostly r0-r7 where there may be registers: r13 and r15 lead away.
        if s.one_in(2) && space.name != "t16" {
            w &= !(0x0008_8000 & !line.mask);
        }
        if line.matches(w) {
            return (Some(line), w);
        }
    }
    (None, if space.name == "t16" { 0xbf00 } else { 0xf3af_8000 })
}

/// A branch somewhere in the unit; seldom a call, or one through a register.
fn a32_branch(s: &mut Source<'_>, at: u32, unit: u32) -> u32 {
    let to = s.below(unit / 4) as i32 - at as i32 / 4 - 2;
    let cond = if s.one_in(3) { 14 } else { s.below(14) };
    match s.below(8) {
        0 => 0xeb00_0000 | to as u32 & 0x00ff_ffff,
        1 => s.pick(&[0xe12f_ff1e, 0xe12f_ff3e, 0xe1a0_f00e]),
        2 => 0xfa00_0000 | s.below(2) << 24 | to as u32 & 0x00ff_ffff,
        _ => cond << 28 | 0x0a00_0000 | to as u32 & 0x00ff_ffff,
    }
}

fn t16_branch(s: &mut Source<'_>, out: &mut Vec<u8>, unit: u32) {
    let to = s.below(unit / 2) as i32 - out.len() as i32 / 2 - 2;
    match s.below(6) {
        0 => {
            let cbz = 0xb100 | s.below(8) | s.below(32) << 3;
            put16(out, s.pick(&[0x4770, 0x47f0, cbz]));
        }
        1 => {
            // BL: J1 and J2 are set for short distances of either sign, as S is their inverse's inverse.
            let (sign, off) = (u32::from(to < 0), to as u32);
            put16(out, 0xf000 | sign << 10 | off >> 11 & 0x3ff);
            put16(out, 0xf800 | off & 0x7ff);
        }
        2 => put16(out, 0xe000 | to.clamp(-1024, 1023) as u32 & 0x7ff),
        _ => put16(out, 0xd000 | s.below(14) << 8 | to.clamp(-128, 127) as u32 & 0xff),
    }
}
