//! Which lines of the instruction tables were translated, and what micro-ops they become: for `cargo xtask coverage isa`.
//!
//! Counting happens at translation, never at execution, and only after [`start`]; without it a translation pays one load.

use crate::decode::{A32, Line, Space, T16, T32};
use crate::ir::{HELPERS, Op, SYS_FNS, Uop};
use crate::psr::Mode;
use crate::state::Cpu;
use crate::translate::{BlockMode, translate};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The encoding spaces, in the order of the counters.
pub const SPACES: [&Space; 3] = [&A32, &T32, &T16];

/// A counter for each line of each space, once somebody wants to know.
static COUNTS: OnceLock<[Vec<AtomicU32>; 3]> = OnceLock::new();

/// Translations of a line, by space and name.
pub type Counts = BTreeMap<(String, String), u32>;

/// Counts from now on, in every core of this process.
pub fn start() {
    COUNTS.get_or_init(|| SPACES.map(|s| s.lines.iter().map(|_| AtomicU32::new(0)).collect()));
}

/// Notes that `line` of `space` was translated.
#[inline]
pub(crate) fn note(space: &'static Space, line: &'static Line) {
    if let Some(counts) = COUNTS.get() {
        count(counts, space, line);
    }
}

#[cold]
fn count(counts: &[Vec<AtomicU32>; 3], space: &'static Space, line: &'static Line) {
    let s = SPACES.iter().position(|s| std::ptr::eq(*s, space));
    let l = space.lines.iter().position(|l| std::ptr::eq(l, line));
    if let (Some(s), Some(l)) = (s, l) {
        // Wrapping would make a line look unreached.
        let _ = counts[s][l].fetch_update(Relaxed, Relaxed, |n| n.checked_add(1));
    }
}

/// The counts since [`start`]; empty without it.
pub fn counts() -> Counts {
    let Some(counts) = COUNTS.get() else { return Counts::new() };
    let mut out = Counts::new();
    for (space, counts) in SPACES.iter().zip(counts) {
        for (line, n) in space.lines.iter().zip(counts) {
            out.insert((space.name.into(), line.name.into()), n.load(Relaxed));
        }
    }
    out
}

/// [`counts`] as text: `space line count`, one a line.
pub fn report() -> String {
    counts().iter().map(|((space, line), n)| format!("{space} {line} {n}\n")).collect()
}

/// Reads what [`report`] has written. `None` if it is something else.
pub fn parse(text: &str) -> Option<Counts> {
    text.lines()
        .map(|l| {
            let mut words = l.split(' ');
            let (space, line, n) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            words.next().is_none().then(|| ((space.to_owned(), line.to_owned()), n))
        })
        .collect()
}

/// What a line becomes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Emitted {
    /// A micro-op that is no call, by name.
    Op(String),
    /// A call of a helper: [`crate::ir::HelperId`] and name.
    Helper(u16, &'static str),
    /// A call of a system function, likewise.
    System(u16, &'static str),
}

/// How many words [`emits`] looks at for a line.
const SAMPLES: u32 = 400;

/// The micro-ops that words of a line become, and the helpers and system functions that those call: a fixed sample of words, in privileged
/// mode with everything enabled, unconditional where there is a choice.
pub fn emits(space: &'static Space, line: &'static Line) -> BTreeSet<Emitted> {
    let mode = everything(space);
    let mut out = BTreeSet::new();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..SAMPLES {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (free, width) = ((x >> 32) as u32 & !line.mask, if space.name == "t16" { 0xffff } else { !0 });
        let mut w = (line.value | free) & width;
        if space.name == "a32" && line.conditional {
            w = w & 0x0fff_ffff | 0xe000_0000;
        }
        if !space.lookup(w).is_some_and(|l| std::ptr::eq(l, line)) {
            continue;
        }
        let bytes = match space.name {
            "a32" => w.to_le_bytes().to_vec(),
            "t16" => (w as u16).to_le_bytes().to_vec(),
            _ => [(w >> 16) as u16, w as u16].map(u16::to_le_bytes).concat(),
        };
        let block = translate(mode, 0x8000, &bytes, 1).expect("one whole instruction");
        // UNPREDICTABLE ones say nothing about the line.
        if block.uops.iter().all(|u| u.op != Op::Undef) {
            out.extend(block.uops.iter().map(emitted));
        }
    }
    if out.is_empty() {
        out.insert(Emitted::Op("Undef".into()));
    }
    out
}

/// A block mode in which nothing is UNDEFINED that needn't be.
fn everything(space: &Space) -> BlockMode {
    let mut cpu = Cpu::new(crate::models::Model::cortex_a15(0, 1, 0, 1));
    cpu.set_mode(Mode::Svc);
    cpu.cp15.cpacr = 0x00f0_0000;
    cpu.fpexc = crate::state::FPEXC_EN;
    cpu.t = space.name != "a32";
    BlockMode::of(&cpu)
}

fn emitted(u: &Uop) -> Emitted {
    let (group, index) = ((u.aux >> 8) as usize, (u.aux & 0xff) as usize);
    match u.op {
        Op::Helper | Op::HelperK => Emitted::Helper(u.aux as u16, HELPERS[group][index].name),
        Op::Sys => Emitted::System(u.aux as u16, SYS_FNS[group][index].name),
        op => Emitted::Op(format!("{op:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_translated_and_reads_it_back() {
        start();
        let key = ("a32".to_owned(), "clz".to_owned());
        let before = counts()[&key];
        // clz r0, r1
        translate(everything(&A32), 0, &0xe16f_0f11u32.to_le_bytes(), 1).unwrap();
        assert!(counts()[&key] > before, "other tests may translate too");
        let text = report();
        assert_eq!(parse(&text).unwrap().len(), SPACES.iter().map(|s| s.lines.len()).sum::<usize>());
        assert_eq!(parse("a32 clz x"), None);
        assert_eq!(parse("a32 clz 1 2"), None);
    }

    #[test]
    fn names_what_a_line_becomes() {
        let line = |space: &'static Space, name: &str| space.lines.iter().find(|l| l.name == name).unwrap();
        let op = |name: &str| Emitted::Op(name.into());
        assert!(emits(&A32, line(&A32, "movw")).contains(&op("MovImm")));
        assert!(emits(&T32, line(&T32, "mcr")).iter().any(|e| matches!(e, Emitted::System(_, "mcr"))));
        assert!(emits(&T16, line(&T16, "svc")).contains(&op("Svc")));
        assert_eq!(emits(&A32, line(&A32, "eret")), [op("Undef")].into());
        assert!(emits(&A32, line(&A32, "vadd")).iter().any(|e| matches!(e, Emitted::Helper(..))));
    }

    /// Every line translates, in every sample, and has a name for what it does.
    #[test]
    fn every_line_becomes_something() {
        for space in SPACES {
            for line in space.lines {
                assert!(!emits(space, line).is_empty());
            }
        }
    }
}
