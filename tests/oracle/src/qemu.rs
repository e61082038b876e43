//! Runs cases under `qemu-arm`, in batches: one ELF file holds a small harness, the cases and their registers.
//!
//! Only cases that end without an exception can be compared, and that touch nothing but registers and the data window. Our own CPU is
//! run first and tells which these are.

use crate::case::{CODE, CODE_SIZE, Case, DATA, DATA_SIZE, Ending, FILLER, Isa, Outcome, SLOT, State};
use crate::compare::{Verdict, compare, line_name};
use crate::generate::{Choice, Generator};
use crate::ours::{Ours, Which};
use crate::run::{Report, listing};
use crate::unicorn::Uc;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The harness, assembled from `harness/harness.S`.
const HARNESS: &[u8] = include_bytes!("../harness/harness.elf");
const HARNESS_AT: u32 = 0x8040_0000;
/// Where a case jumps when it is done.
const BACK: u32 = HARNESS_AT + 4;
const PRISTINE: u32 = 0x8041_0000;
const TABLE: u32 = 0x8050_0000;
/// Words of registers that a case writes out.
const OUT_WORDS: usize = 81;
/// Cases in one file: each has 64 bytes of the code window.
const BATCH: usize = (CODE_SIZE / 64) as usize;

/// `qemu-arm` on `PATH`.
pub fn find() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join("qemu-arm")).find(|p| p.is_file())
}

/// Compares cases `0..count` of `seed`.
///
/// # Errors
/// qemu-arm can't be run.
pub fn run(qemu: &Path, which: Which, seed: u64, choice: &Choice, count: u64) -> Result<Report> {
    let (mut ours, mut unicorn) = (Ours::new(which), Uc::new()?);
    // Only what Unicorn runs too: qemu-arm refuses the same wrong should-be bits, and each refusal costs a start.
    run_with(qemu, seed, choice, count, |case| {
        let outcome = ours.run(case, None);
        if outcome.ending == Ending::Done && unicorn.run(case).is_ok_and(|o| o.ending != Ending::Done) {
            return Outcome { ending: Ending::Other("refused by the other oracle"), ..outcome };
        }
        outcome
    })
}

/// The same with another CPU in our place.
///
/// # Errors
/// qemu-arm can't be run.
pub fn run_with(
    qemu: &Path,
    seed: u64,
    choice: &Choice,
    count: u64,
    mut ours: impl FnMut(&Case) -> Outcome,
) -> Result<Report> {
    let generator = Generator::new(seed, choice.clone());
    let mut report = Report::default();
    let mut batch = Vec::new();
    for n in 0..count {
        let mut case = generator.case(n);
        case.data_seed = seed;
        case.at = CODE + 64 * batch.len() as u32;
        case.state.regs[15] = case.at;
        // The FPSCR's reserved and exception-enable bits read as zero on both.
        let outcome = ours(&case);
        if comparable(&case, &outcome) {
            batch.push((n, case, outcome));
        } else {
            *report.skipped.entry("not for qemu-arm").or_default() += 1;
        }
        report.cases += 1;
        if batch.len() == BATCH || n + 1 == count {
            judge(qemu, seed, &batch, &mut report)?;
            batch.clear();
        }
    }
    Ok(report)
}

/// Straight on to the end, no PC-relative data, nothing whose result is a matter of the machine around.
fn comparable(case: &Case, ours: &Outcome) -> bool {
    let machine = ["ex", "mrc", "mcr", "mrrc", "mcrr", "setend", "cps", "wild", "pld", "pli", "swp"];
    let names = (0..case.code.len()).map(|i| line_name(case, i).unwrap_or("wild"));
    ours.ending == Ending::Done
        && ours.state.regs[15] == case.at + case.len()
        && ours.state.cpsr & 0x0600_fe00 == 0
        && !listing(case).contains("pc")
        && names.into_iter().all(|n| !machine.iter().any(|m| n.contains(m)))
}

/// Runs a batch; where qemu-arm dies in a case, it is started again with those after it.
fn judge(qemu: &Path, seed: u64, mut batch: &[(u64, Case, Outcome)], report: &mut Report) -> Result<()> {
    while !batch.is_empty() {
        let (outcomes, status) = execute(qemu, seed, batch)?;
        for ((n, case, ours), theirs) in batch.iter().zip(&outcomes) {
            let mut verdict = compare(case, ours, theirs);
            if matches!(verdict, Verdict::Different(_)) {
                // It may have read the code of another case: alone it can't.
                if let [alone] = &execute(qemu, seed, &[(*n, case.clone(), ours.clone())])?.0[..] {
                    verdict = compare(case, ours, alone);
                }
            }
            match verdict {
                Verdict::Same => report.same += 1,
                Verdict::Skipped(why) => *report.skipped.entry(why).or_default() += 1,
                Verdict::Different(how) => {
                    fail(report, format!("seed {seed} case {n} (qemu):\n{}{how}\n", listing(case)))
                }
            }
        }
        let Some((n, case, _)) = batch.get(outcomes.len()) else { break };
        fail(
            report,
            format!("seed {seed} case {n} (qemu): qemu-arm ended in it ({status}), ours went on\n{}", listing(case)),
        );
        batch = &batch[outcomes.len() + 1..];
    }
    Ok(())
}

/// Runs these cases in one process; gives the outcomes that it lived to write.
fn execute(qemu: &Path, seed: u64, batch: &[(u64, Case, Outcome)]) -> Result<(Vec<Outcome>, std::process::ExitStatus)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("cases");
    std::fs::write(&file, elf(seed, batch)?)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700))?;
    let mut command = Command::new(qemu);
    command.args(["-cpu", "cortex-a15"]).arg(&file);
    let out = command.output().with_context(|| format!("starting {}", qemu.display()))?;
    let raw = out.stdout.chunks_exact(OUT_WORDS * 4 + DATA_SIZE as usize);
    Ok((batch.iter().zip(raw).map(|((_, case, ours), raw)| outcome(case, raw, ours)).collect(), out.status))
}

fn fail(report: &mut Report, text: String) {
    report.failed += 1;
    if report.failures.len() < 25 {
        report.failures.push(text);
    }
}

fn outcome(case: &Case, raw: &[u8], ours: &Outcome) -> Outcome {
    let word = |i: usize| u32::from_le_bytes(raw[i * 4..i * 4 + 4].try_into().expect("four bytes"));
    let mut regs = [0; 16];
    (0..15).for_each(|i| regs[i] = word(i));
    regs[15] = ours.state.regs[15];
    let mut d = [0; 32];
    d.iter_mut().enumerate().for_each(|(i, d)| *d = u64::from(word(17 + 2 * i)) | u64::from(word(18 + 2 * i)) << 32);
    // The harness has left Thumb state to save the registers.
    let t = if case.isa == Isa::T32 { 0x20 } else { 0 };
    let state = State { regs, cpsr: word(15) & 0xf80f_0000 | 0x10 | t, fpscr: word(16), d };
    Outcome { ending: Ending::Done, state, data: raw[OUT_WORDS * 4..].to_vec(), retired: 0 }
}

/// One segment of the file.
struct Segment {
    at: u32,
    data: Vec<u8>,
}

fn elf(seed: u64, batch: &[(u64, Case, Outcome)]) -> Result<Vec<u8>> {
    ensure!(HARNESS.len() > 0x80, "the harness is there");
    let mut code = FILLER.repeat(CODE_SIZE as usize / SLOT);
    let mut table = (batch.len() as u32).to_le_bytes().to_vec();
    for (_, case, _) in batch {
        let mut bytes = case.bytes();
        way_back(case, &mut bytes);
        let at = (case.at - CODE) as usize;
        ensure!(bytes.len() <= 64, "a case and its way back fit into its slot");
        code[at..at + bytes.len()].copy_from_slice(&bytes);
        let s = &case.state;
        let mut put = |w: u32| table.extend_from_slice(&w.to_le_bytes());
        put(case.at | u32::from(case.isa == Isa::T32));
        s.regs[..15].iter().for_each(|r| put(*r));
        put(s.cpsr & 0xf80f_0000);
        put(s.fpscr);
        s.d.iter().for_each(|d| {
            put(*d as u32);
            put((*d >> 32) as u32);
        });
    }
    let mut pristine = vec![0; DATA_SIZE as usize];
    let mut first = batch[0].1.clone();
    first.data_seed = seed;
    first.data(&mut pristine);
    let offset = u32::from_le_bytes(HARNESS[56..60].try_into().expect("four bytes")) as usize;
    let mut segments = vec![
        Segment { at: CODE, data: code },
        Segment { at: DATA, data: pristine.clone() },
        Segment { at: HARNESS_AT, data: HARNESS[offset..].to_vec() },
        // Pristine data, then the page that results are put in.
        Segment { at: PRISTINE, data: pristine },
        Segment { at: PRISTINE + 0x1_0000, data: vec![0; 0x1000] },
        Segment { at: TABLE, data: table },
    ];
    segments.iter_mut().for_each(|s| s.data.resize(s.data.len().next_multiple_of(4096), 0));
    Ok(file(&segments))
}

/// Appends a jump to [`BACK`] to a case, in A32 state.
fn way_back(case: &Case, bytes: &mut Vec<u8>) {
    if case.isa == Isa::T32 {
        if bytes.len() % 4 == 2 {
            bytes.extend_from_slice(&0xbf00u16.to_le_bytes());
        }
        // bx pc; nop
        bytes.extend_from_slice(&0x4778u16.to_le_bytes());
        bytes.extend_from_slice(&0x46c0u16.to_le_bytes());
    }
    let from = case.at + bytes.len() as u32 + 8;
    let branch = 0xea00_0000 | (BACK.wrapping_sub(from) >> 2 & 0x00ff_ffff);
    bytes.extend_from_slice(&branch.to_le_bytes());
}

/// A static ARM executable of these segments.
fn file(segments: &[Segment]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| out.write_all(bytes).expect("a vector takes all");
    put(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&2u16.to_le_bytes());
    put(&40u16.to_le_bytes());
    for w in [1, HARNESS_AT, 52, 0, 0x0500_0400] {
        put(&u32::to_le_bytes(w));
    }
    for h in [52u16, 32, segments.len() as u16, 0, 0, 0] {
        put(&h.to_le_bytes());
    }
    let mut offset = 4096u32;
    for s in segments {
        let size = s.data.len() as u32;
        for w in [1, offset, s.at, s.at, size, size, 7, 4096] {
            put(&u32::to_le_bytes(w));
        }
        offset += size;
    }
    out.resize(4096, 0);
    segments.iter().for_each(|s| out.extend_from_slice(&s.data));
    out
}
