//! What is said about a difference.

use crate::ram::Shadow;
use reprise_arm::bus::GuestRam;
use reprise_arm::decode::{disassemble_a32, disassemble_thumb, is_wide};
use reprise_arm::state::Cpu;
use reprise_arm::statehash::CpuState;
use reprise_arm::translate::{BlockMode, translate};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Most instructions of the last block that are shown.
const SHOWN: usize = 64;
/// Most jumps that are shown.
const JUMPS: usize = 20;

/// An instruction as it was fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pc: u32,
    mode: BlockMode,
    bytes: [u8; 4],
    /// 2 or 4; 0 if it could not be fetched.
    size: u32,
}

impl Step {
    /// The instruction that `cpu` runs next.
    pub(crate) fn next(cpu: &Cpu, ram: &GuestRam) -> Self {
        let mut s = Self { pc: cpu.regs[15], mode: BlockMode::of(cpu), bytes: [0; 4], size: 0 };
        let mut have = 0;
        for (i, half) in s.bytes.chunks_exact_mut(2).enumerate() {
            let pa = cpu.peek_address(ram, s.pc.wrapping_add(2 * i as u32));
            if pa.and_then(|pa| ram.read(pa, half)).is_none() {
                break;
            }
            have += 2;
        }
        let first = u16::from_le_bytes([s.bytes[0], s.bytes[1]]);
        let want = if s.mode.thumb && !is_wide(first) { 2 } else { 4 };
        s.size = if have >= want { want } else { 0 };
        s
    }

    fn text(&self) -> String {
        let [a, b, c, d] = self.bytes;
        let (first, second) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let (word, text) = match (self.size, self.mode.thumb) {
            (0, _) => return format!("{:#010x}  (can't be fetched)", self.pc),
            (_, false) => {
                let w = u32::from_le_bytes(self.bytes);
                (format!("{w:08x}"), disassemble_a32(w))
            }
            (2, true) => (format!("{first:04x}    "), disassemble_thumb(first.into(), self.cond())),
            _ => {
                let w = u32::from(first) << 16 | u32::from(second);
                (format!("{w:08x}"), disassemble_thumb(w, self.cond()))
            }
        };
        format!("{:#010x}  {word}  {}", self.pc, text.unwrap_or_else(|| "(no table line)".into()))
    }

    fn cond(&self) -> u8 {
        if self.mode.it & 15 != 0 { self.mode.it >> 4 } else { 14 }
    }
}

/// Where the difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// After so many instructions of the run.
    After(u64),
    /// All instructions of the run are alike; what differs comes before the next one retires.
    BeforeNext,
    /// The subject did not do it again.
    Unknown,
}

/// A difference, complete.
pub(crate) struct Report {
    /// Subject and reference.
    pub(crate) names: (&'static str, &'static str),
    /// Before the run.
    pub(crate) before: CpuState,
    /// The subject's core where it differs.
    pub(crate) subject: CpuState,
    /// The reference's.
    pub(crate) reference: CpuState,
    /// What was wrong with bus accesses.
    pub(crate) wrong: Option<String>,
    /// A byte of RAM that differs: address, subject's, reference's.
    pub(crate) ram: Option<(u64, u8, u8)>,
    /// The reference's instructions with the state after each.
    pub(crate) steps: Vec<(Step, CpuState)>,
    pub(crate) place: Place,
    /// Where the two stood after the run as it was first made.
    pub(crate) ended: (u32, u32),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, reference) = self.names;
        let from = self.before.icount();
        match self.place {
            Place::After(k) => writeln!(f, "{subject} and {reference} differ after instruction {}", from + k - 1)?,
            Place::BeforeNext => writeln!(
                f,
                "{subject} and {reference} differ in an exception or interrupt between instructions {} and {}",
                from + self.steps.len() as u64 - u64::from(!self.steps.is_empty()),
                from + self.steps.len() as u64
            )?,
            Place::Unknown => writeln!(
                f,
                "{subject} and {reference} differ after a run of {} instructions from instruction {from} on; run again from there, \
                 {subject} does not show it, so it depends on what its caches held, or on a store that it made earlier",
                self.steps.len()
            )?,
        }
        if let Some((last, _)) = self.steps.last() {
            writeln!(f, "  {}", last.text())?;
        }
        let ended = self.ended;
        writeln!(
            f,
            "  (run as it was first made: instructions {from} on, from pc {:#010x}; {subject} ended at {:#010x}, {reference} at {:#010x})",
            self.before.pc(),
            ended.0,
            ended.1
        )?;
        if let Some(wrong) = &self.wrong {
            writeln!(f, "{wrong}")?;
        }
        if let Some((pa, a, b)) = self.ram {
            writeln!(f, "RAM at {pa:#010x}: {subject} {a:#04x}, {reference} {b:#04x}")?;
        }
        let differing = self.table(f)?;
        self.jumps(f)?;
        self.block(f, &differing)
    }
}

impl Report {
    fn before_last(&self) -> &CpuState {
        match self.steps.len() {
            n if n >= 2 && self.place != Place::Unknown => &self.steps[n - 2].1,
            _ => &self.before,
        }
    }

    /// The states side by side; differing fields are marked. Gives their names.
    fn table(&self, f: &mut fmt::Formatter<'_>) -> Result<BTreeSet<String>, fmt::Error> {
        let (before, a, b) = (fields(self.before_last()), fields(&self.subject), fields(&self.reference));
        let differs = |i: usize| a.get(i) != b.get(i);
        // The counters in the state are brought up to date whenever an engine likes; only what they stand for is compared.
        let counters = |name: &str| name.starts_with("cp15.pmu");
        let only_counters = (0..a.len()).all(|i| !differs(i) || counters(&a[i].0));
        writeln!(f, "    {:18} {:>18} {:>18} {:>18}", "", "before", self.names.1, self.names.0)?;
        let mut names = BTreeSet::new();
        for (i, (name, value)) in a.iter().enumerate() {
            let marked = differs(i) && (only_counters || !counters(name));
            if marked {
                names.insert(name.clone());
            }
            if marked || is_register(name) {
                let get = |v: &[(String, String)]| v.get(i).map_or(String::new(), |x| x.1.clone());
                let mark = if marked { "*" } else { " " };
                writeln!(f, "  {mark} {name:18} {:>18} {:>18} {value:>18}", get(&before), get(&b))?;
            }
        }
        Ok(names)
    }

    /// The last places where the reference left a straight line: branches, exceptions and returns.
    fn jumps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jump = |w: &&[(Step, CpuState)]| w[0].0.pc.wrapping_add(w[0].0.size) != w[1].0.pc;
        let mut last: Vec<_> = self.steps.windows(2).filter(jump).rev().take(JUMPS).collect();
        last.reverse();
        writeln!(f, "the last jumps of {}:", self.names.1)?;
        for w in last {
            let icount = w[0].1.icount().wrapping_sub(1);
            let level = if w[1].0.mode.privileged { "PL1" } else { "PL0" };
            writeln!(f, "  {icount}: {:48} -> {:#010x} {level}", w[0].0.text(), w[1].0.pc)?;
        }
        Ok(())
    }

    /// The straight run of instructions that ends at the difference, with what each changed of the differing fields, and its micro-ops.
    fn block(&self, f: &mut fmt::Formatter<'_>, differing: &BTreeSet<String>) -> fmt::Result {
        let n = self.steps.len();
        if n == 0 {
            return Ok(());
        }
        let mut first = n - 1;
        while first > 0 && n - first < SHOWN {
            let (prev, here) = (self.steps[first - 1].0, self.steps[first].0);
            if prev.pc.wrapping_add(prev.size) != here.pc || prev.mode.thumb != here.mode.thumb {
                break;
            }
            first -= 1;
        }
        writeln!(f, "the instructions up to there, and what they changed of that in {}:", self.names.1)?;
        for i in first..n {
            let before = if i == 0 { &self.before } else { &self.steps[i - 1].1 };
            let changed = changed(before, &self.steps[i].1, differing);
            writeln!(f, "  {:60} {}", self.steps[i].0.text(), changed.join(" "))?;
        }
        let start = self.steps[first].0;
        let bytes: Vec<u8> =
            self.steps[first..].iter().flat_map(|(s, _)| s.bytes[..s.size as usize].to_vec()).collect();
        if let Some(block) = translate(start.mode, start.pc, &bytes, n - first) {
            writeln!(f, "their micro-ops:\n{block}")?;
        }
        Ok(())
    }
}

fn changed(before: &CpuState, after: &CpuState, among: &BTreeSet<String>) -> Vec<String> {
    let (a, b) = (fields(before), fields(after));
    a.iter().zip(&b).filter(|(x, y)| x != y && among.contains(&x.0)).map(|(x, _)| x.0.clone()).collect()
}

/// Shown whether it differs or not.
fn is_register(name: &str) -> bool {
    name.strip_prefix('r').is_some_and(|n| n.parse::<u32>().is_ok()) || ["cpsr", "fpscr", "icount"].contains(&name)
}

/// A saved core as names and values.
fn fields(s: &CpuState) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let value = serde_json::to_value(s).expect("plain data");
    flatten("", &value, &mut out);
    out
}

fn flatten(name: &str, v: &Value, out: &mut Vec<(String, String)>) {
    match v {
        Value::Object(map) => {
            for (k, v) in map {
                let name = if name.is_empty() { k.clone() } else { format!("{name}.{k}") };
                flatten(&name, v, out);
            }
        }
        Value::Array(list) => {
            for (i, v) in list.iter().enumerate() {
                let name = match name {
                    "regs" => format!("r{i}"),
                    "ext" => format!("d{}[{}]", i / 2, i % 2),
                    _ => format!("{name}[{i}]"),
                };
                flatten(&name, v, out);
            }
        }
        Value::Number(n) => {
            let text = n.as_u64().map_or(n.to_string(), |n| if name == "icount" { n.to_string() } else { hex(n) });
            out.push((name.into(), text));
        }
        other => out.push((name.into(), other.to_string())),
    }
}

fn hex(n: u64) -> String {
    let mut s = String::new();
    let _ = if n >> 32 == 0 { write!(s, "{n:08x}") } else { write!(s, "{n:016x}") };
    s
}

/// A byte of both memories.
pub(crate) fn bytes_at(pa: u64, ram: &GuestRam, shadow: &Shadow) -> (u64, u8, u8) {
    let get = |ram: &GuestRam| {
        let mut b = [0];
        ram.read(pa, &mut b).map_or(0, |()| b[0])
    };
    (pa, get(ram), get(shadow.view()))
}

/// Says that RAM differs where the reference did not store; `within` is the instruction count and how many may have passed since.
pub(crate) fn elsewhere(
    subject: &str,
    reference: &str,
    pa: u64,
    ram: &GuestRam,
    shadow: &Shadow,
    within: Option<(u64, u64)>,
) -> String {
    let (_, a, b) = bytes_at(pa, ram, shadow);
    let mut text = format!(
        "RAM at {pa:#010x} differs where {reference} stored nothing in the last run: {subject} {a:#04x}, {reference} {b:#04x}"
    );
    if let Some((icount, every)) = within {
        let _ = write!(
            text,
            "; {subject} has written there since instruction {} (all RAM is compared every {every} instructions)",
            icount.saturating_sub(every)
        );
    }
    text
}
