//! Compares two outcomes, and knows where Unicorn is wrong.

use crate::case::{CPSR_MASK, Case, DATA, DATA_SIZE, Ending, Isa, Outcome};
use reprise_arm::decode::{A32, Space, T16, T32, disassemble_a32, disassemble_thumb};

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

/// CPSR.IT.
const IT: u32 = 0x0600_fc00;

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
    match judge(case, ours, theirs) {
        Verdict::Different(how) => excuse(case).map_or(Verdict::Different(how), Verdict::Skipped),
        other => other,
    }
}

/// Why a difference of any kind says nothing about us.
fn excuse(case: &Case) -> Option<&'static str> {
    let named = |i: usize, start: &str| line_name(case, i).is_some_and(|n| n.starts_with(start));
    let in_it = |i: usize| (i.saturating_sub(4)..i).any(|j| case.width[j] == 2 && named(j, "it"));
    if case.isa == Isa::T32 && (0..case.code.len()).any(|i| named(i, "mrc") && in_it(i)) {
        // Behind the read Unicorn goes on with a wrong IT state: what it does then depends on that.
        return Some("IT state behind a system register read");
    }
    let sizes = |kind: &str| (0..case.code.len()).filter_map(|i| exclusive(case, i, kind)).collect::<Vec<_>>();
    let (loads, stores) = (sizes("ldrex"), sizes("strex"));
    if loads.iter().any(|l| stores.iter().any(|s| s != l)) {
        // Whether a store-exclusive of another size passes is the implementation's choice (A3.4.5); Unicorn looks at the address and the value.
        return Some("exclusives of two sizes");
    }
    None
}

/// The size, as the letter of the mnemonic, of the exclusive access that instruction `i` is, if it is one of `kind`.
fn exclusive(case: &Case, i: usize, kind: &str) -> Option<char> {
    line_name(case, i).filter(|n| n.starts_with(kind))?;
    let text = match case.isa {
        Isa::A32 => disassemble_a32(case.code[i]),
        Isa::T32 => disassemble_thumb(case.code[i], 14),
    }?;
    let mnemonic = text.split(' ').next()?.strip_prefix(kind)?;
    // Behind it comes a condition of two letters, or none.
    Some(if mnemonic.len() % 2 == 1 { mnemonic.chars().next()? } else { 'w' })
}

/// What is known without an oracle.
pub fn foregone(case: &Case, ours: &Outcome) -> Option<Verdict> {
    if let Ending::Other(what @ "panicked") = ours.ending {
        return Some(Verdict::Different(format!("ours {what}")));
    }
    if let Some(why) = (0..case.code.len()).find_map(|i| unknown(case, i)) {
        return Some(Verdict::Skipped(why));
    }
    (ours.ending == Ending::Other("waits") && case.loops).then_some(Verdict::Skipped("a loop without end"))
}

fn judge(case: &Case, ours: &Outcome, theirs: &Outcome) -> Verdict {
    if let Some(verdict) = foregone(case, ours) {
        return verdict;
    }
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
    if matches!(ours.ending, Ending::DataAbort { .. }) && a.regs[15] != b.regs[15] {
        // After a store that faults, Unicorn runs on to the end of what it has translated; in an IT block it loses its place.
        return Verdict::Skipped("the oracle went on after an abort");
    }
    let only_it = diff.len() == 1 && (a.cpsr ^ b.cpsr) & CPSR_MASK & !IT == 0 && a.cpsr != b.cpsr;
    if only_it && (0..case.code.len()).any(|i| line_name(case, i).is_some_and(|n| n.starts_with("mrc"))) {
        // Behind a read of a system register that ends its translation, Unicorn shows the IT state of before.
        return Verdict::Skipped("IT state behind a system register read");
    }
    if faulted && diff.len() == 1 && ours.data != theirs.data && crosses(ours) {
        return Verdict::Skipped("partial transfer before an abort");
    }
    if faulted && multiple(case, ours) {
        // An aborted load or store multiple may have moved some of its words (ARM DDI 0406C B1.9.8); ours moves none.
        return Verdict::Skipped("partial transfer before an abort");
    }
    Verdict::Different(diff.join("\n"))
}

/// The abort was at the end of the data window: an unaligned store may have written the bytes before it.
fn crosses(ours: &Outcome) -> bool {
    matches!(ours.ending, Ending::DataAbort { addr, .. } if addr.wrapping_sub(DATA) > DATA_SIZE - 8 && addr.wrapping_sub(DATA) < DATA_SIZE + 8)
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
    let (pc, other) = (ours.state.regs[15], theirs.state.regs[15]);
    if ours.ending == Ending::Done && ours.state.cpsr & 0x20 == 0 && pc ^ other == 2 && here.is_none() {
        // A branch to A32 code at a halfword address: UNPREDICTABLE (BXWritePC, A2.3.2).
        return Some(Verdict::Skipped("branch to a halfword of A32"));
    }
    let refused = |at: u32| -> Option<Verdict> {
        let i = case.index_at(at)?;
        if ignored_bits(space(case, i), case.code[i]) != 0 {
            return Some(Verdict::Skipped("should-be bits"));
        }
        strict(case, i).map(Verdict::Skipped)
    };
    match (ours.ending, theirs.ending) {
        // Each stopped at an instruction that the other let pass.
        (Ending::Undefined, Ending::Undefined) if pc != other && refused(other).is_some() => {
            if let Some(v) = refused(other) {
                return Some(v);
            }
        }
        (Ending::Undefined, Ending::Undefined) if pc != other && name.is_some() => {
            return Some(Verdict::Skipped("unpredictable"));
        }
        (a, b) if a == b => return None,
        // Unicorn has already looked at where a branch leads.
        (Ending::Done, Ending::PrefetchAbort) if ours.state.regs[15] == theirs.state.regs[15] && here.is_none() => {
            return None;
        }
        (Ending::DataAbort { alignment: true, .. }, e)
            if !matches!(e, Ending::DataAbort { alignment: true, .. }) && name.is_some_and(must_be_aligned) =>
        {
            return Some(Verdict::Skipped("alignment fault that Unicorn does not know"));
        }
        (Ending::DataAbort { alignment: true, .. }, Ending::DataAbort { alignment: true, .. }) => return None,
        // Whether a store-exclusive whose monitor is open looks at its address at all is the implementation's choice (A3.4.5).
        (Ending::DataAbort { .. }, e)
            if (pc != other || e == Ending::Done) && name.is_some_and(|n| n.starts_with("strex")) =>
        {
            return Some(Verdict::Skipped("store-exclusive that fails"));
        }
        // Which of several words is touched first is the implementation's choice; the page must be the same.
        (Ending::DataAbort { addr: x, .. }, Ending::DataAbort { addr: y, alignment: false })
            if x & !0xfff == y & !0xfff || name.is_some_and(must_be_aligned) =>
        {
            return None;
        }
        (Ending::Undefined, e) if e != Ending::Undefined => {
            return Some(match (here, name) {
                // The table has it and the function says UNDEF: UNPREDICTABLE operands.
                (Some(_), Some(_)) => Verdict::Skipped("unpredictable"),
                // Whether an undefined instruction whose condition fails is a NOP is the implementation's choice (A4.1.1 of the manual).
                (Some(i), None) if case.isa == Isa::A32 && case.code[i] >> 28 < 14 => {
                    Verdict::Skipped("undefined, and its condition fails")
                }
                (Some(_), None) => Verdict::Skipped("no table line"),
                (None, _) => Verdict::Different(format!("ours: undefined outside the case, oracle: {e:?}")),
            });
        }
        (_, Ending::Undefined) => {
            if let Some(v) = refused(other) {
                return Some(v);
            }
        }
        _ => {}
    }
    let (a, b) = (ours.state.regs[15], theirs.state.regs[15]);
    Some(Verdict::Different(format!(
        "ours ends with {:?} at {a:08x}, oracle with {:?} at {b:08x}",
        ours.ending, theirs.ending
    )))
}

/// UNPREDICTABLE operands that we let run and an oracle refuses.
fn strict(case: &Case, i: usize) -> Option<&'static str> {
    let name = line_name(case, i)?;
    let refused = ["ldm", "stm", "mrc", "mcr", "mrrc", "mcrr", "hint", "ldc", "stc", "strex", "ldrex"];
    refused.iter().any(|r| name.starts_with(r)).then_some("the oracle refuses")
}

/// Instructions whose result the architecture leaves UNKNOWN, or that wait.
fn unknown(case: &Case, i: usize) -> Option<&'static str> {
    let (w, name) = (case.code[i], line_name(case, i)?);
    let d = w >> 12 & 15 | w >> 18 & 16;
    let m = w & 15 | w >> 1 & 16;
    match name {
        // A8.8.420 and on: d == m.
        "vuzp" | "vzip" | "vtrn" if d == m => Some("unknown result"),
        // Loads and stores of the User bank in User mode: UNPREDICTABLE.
        "ldm_user" | "stm_user" => Some("unknown result"),
        // LDRD (register) whose index is also loaded (A8.8.74); STRD may.
        "ldrd_reg" if [w >> 12 & 15, (w >> 12 & 15) + 1].contains(&(w & 15)) => Some("unknown result"),
        // SSAT16 and USAT16 with should-be-zero bits set look like a shift by 32.
        "ssat" | "usat" if case.width[i] == 4 && case.isa == Isa::T32 && w >> 21 & 1 == 1 && w & 0x70c0 == 0 => {
            Some("should-be bits")
        }
        // "The fixed-point to floating-point operation uses the Round to Nearest rounding mode" (A8.8.308); the oracles take FPSCR's.
        "vcvt_fixed"
            if w >> 18 & 1 == 0 && (case.state.fpscr >> 22 & 3 != 0 || case.names.iter().any(|n| n == "vmsr")) =>
        {
            Some("rounding of VCVT from fixed point")
        }
        // MSR to E in User mode: `CPSR<9> = value<9>; // E bit is user-writable` (B1.3.3); the oracles leave it alone.
        "msr_imm" | "msr_reg" | "msr" if w >> 17 & 1 == 1 || case.isa == Isa::T32 && w >> 9 & 1 == 1 => {
            Some("MSR to E")
        }
        // WFE, WFI, SEV and YIELD: Unicorn stops at some of them.
        "hint" => Some("a hint"),
        // SP or PC in a T32 store multiple, SP in a load multiple.
        "stmia" | "stmdb" | "ldmia" | "ldmdb"
            if case.width[i] == 4 && (w >> 13 & 1 == 1 || name.starts_with('s') && w >> 15 & 1 == 1) =>
        {
            Some("unknown result")
        }
        _ => None,
    }
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
