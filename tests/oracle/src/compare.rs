//! Compares two outcomes, and knows where Unicorn is wrong.

use crate::case::{CPSR_MASK, Case, Ending, Isa, Outcome};
use reprise_arm::decode::{A32, Space, T16, T32};

/// What a comparison says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Equal.
    Same,
    /// Not comparable, for this reason.
    Skipped(&'static str),
    /// Different, and how.
    Different(String),
}

/// The encoding space of instruction `i` of `case`.
pub fn space(case: &Case, i: usize) -> &'static Space {
    match (case.isa, case.width[i]) {
        (Isa::A32, _) => &A32,
        (Isa::T32, 4) => &T32,
        _ => &T16,
    }
}

/// The name of the table line that decodes instruction `i` of `case`.
pub fn line_name(case: &Case, i: usize) -> Option<&'static str> {
    space(case, i).lookup(case.code[i]).map(|l| l.name)
}

/// Instructions that fault on an unaligned address whatever SCTLR.A says (ARM DDI 0406C A3.2.1). Unicorn lets them pass.
fn must_be_aligned(name: &str) -> bool {
    [
        "ldm", "stm", "ldrd", "strd", "ldrex", "strex", "ldrexd", "strexd", "vldr", "vstr", "vldm", "vstm", "vld",
        "vst", "push", "pop", "rfe", "srs", "swp", "vpush", "vpop",
    ]
    .iter()
    .any(|p| name.starts_with(p))
}

/// Compares what we made of `case` with what an oracle made of it.
pub fn compare(case: &Case, ours: &Outcome, theirs: &Outcome) -> Verdict {
    if let Some(v) = endings(case, ours, theirs) {
        return v;
    }
    let (a, b) = (&ours.state, &theirs.state);
    let mut diff = Vec::new();
    let faulted = ours.ending != Ending::Done;
    for i in 0..16 {
        if a.regs[i] != b.regs[i] {
            diff.push(format!("r{i}: ours {:08x}, oracle {:08x}", a.regs[i], b.regs[i]));
        }
    }
    if (a.cpsr ^ b.cpsr) & CPSR_MASK != 0 {
        diff.push(format!("cpsr: ours {:08x}, oracle {:08x}", a.cpsr & CPSR_MASK, b.cpsr & CPSR_MASK));
    }
    if a.fpscr != b.fpscr {
        diff.push(format!("fpscr: ours {:08x}, oracle {:08x}", a.fpscr, b.fpscr));
    }
    for i in 0..32 {
        if a.d[i] != b.d[i] {
            diff.push(format!("d{i}: ours {:016x}, oracle {:016x}", a.d[i], b.d[i]));
        }
    }
    if let Some(at) = ours.data.iter().zip(&theirs.data).position(|(x, y)| x != y) {
        diff.push(format!("data at +{at:#x}: ours {:02x}, oracle {:02x}", ours.data[at], theirs.data[at]));
    }
    if diff.is_empty() {
        return Verdict::Same;
    }
    if faulted && multiple(case, ours) {
        // An aborted load or store multiple may have moved some of its words (ARM DDI 0406C B1.9.8); ours moves none.
        return Verdict::Skipped("partial transfer before an abort");
    }
    Verdict::Different(diff.join("\n"))
}

/// The instruction that ended the case moves more than one word.
fn multiple(case: &Case, ours: &Outcome) -> bool {
    let name = case.index_at(ours.state.regs[15]).and_then(|i| line_name(case, i)).unwrap_or("");
    matches!(ours.ending, Ending::DataAbort { .. }) && must_be_aligned(name)
}

/// Compares how the case ended; `None` if the states are to be compared.
fn endings(case: &Case, ours: &Outcome, theirs: &Outcome) -> Option<Verdict> {
    let here = case.index_at(ours.state.regs[15]);
    let name = here.and_then(|i| line_name(case, i));
    match (ours.ending, theirs.ending) {
        (a, b) if a == b => return None,
        // Unicorn has already looked at where a branch leads.
        (Ending::Done, Ending::PrefetchAbort) if ours.state.regs[15] == theirs.state.regs[15] && here.is_none() => return None,
        (Ending::DataAbort { alignment: true, .. }, e) if !matches!(e, Ending::DataAbort { alignment: true, .. }) => {
            if name.is_some_and(must_be_aligned) {
                return Some(Verdict::Skipped("alignment fault that Unicorn does not know"));
            }
        }
        (Ending::DataAbort { addr: x, .. }, Ending::DataAbort { addr: y, alignment: false }) => {
            // Which of several words is touched first is the implementation's choice; the page must be the same.
            if x & !0xfff == y & !0xfff || name.is_some_and(must_be_aligned) {
                return None;
            }
        }
        (Ending::Undefined, e) if e != Ending::Undefined => {
            return Some(match (here, name) {
                // The table has it and the function says UNDEF: UNPREDICTABLE operands.
                (Some(_), Some(_)) => Verdict::Skipped("unpredictable"),
                // Whether an undefined instruction whose condition fails is a NOP is the implementation's choice (A4.1.1 of the manual).
                (Some(i), None) if case.isa == Isa::A32 && case.code[i] >> 28 < 14 => Verdict::Skipped("undefined, and its condition fails"),
                (Some(_), None) => Verdict::Skipped("no table line"),
                (None, _) => Verdict::Different(format!("ours: undefined outside the case, oracle: {e:?}")),
            });
        }
        (_, Ending::Undefined) => {
            let there = case.index_at(theirs.state.regs[15]);
            if let Some(i) = there {
                if ignored_bits(space(case, i), case.code[i]) != 0 {
                    return Some(Verdict::Skipped("should-be bits"));
                }
                if let Some(why) = strict(case, i) {
                    return Some(Verdict::Skipped(why));
                }
            }
        }
        _ => {}
    }
    Some(Verdict::Different(format!("ours ends with {:?}, oracle with {:?}", ours.ending, theirs.ending)))
}

/// UNPREDICTABLE operands that we let run and an oracle refuses.
fn strict(case: &Case, i: usize) -> Option<&'static str> {
    let name = line_name(case, i)?;
    let refused = ["ldm", "stm", "mrc", "mcr", "mrrc", "mcrr", "hint", "ldc", "stc"];
    refused.iter().any(|r| name.starts_with(r)).then_some("the oracle refuses")
}

/// Bits of instruction `w` that neither select its table line nor show in its text: should-be-zero and should-be-one bits, mostly.
pub fn ignored_bits(space: &'static Space, w: u32) -> u32 {
    let Some(line) = space.lookup(w) else { return 0 };
    let text = line.disassemble(w, "");
    let width = if space.name == "t16" { 16 } else { 32 };
    let top = if space.name == "a32" && line.conditional { 28 } else { width };
    (0..top)
        .map(|i| 1 << i)
        .filter(|b| line.mask & b == 0)
        .filter(|b| space.lookup(w ^ b).is_some_and(|l| l.name == line.name) && line.disassemble(w ^ b, "") == text)
        .sum()
}
