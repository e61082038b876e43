//! Runs many cases and collects what they say.

use crate::case::{Case, Ending, Isa, Outcome};
use crate::compare::{Verdict, compare, foregone, line_name};
use crate::generate::{Choice, Generator};
use crate::ours::{Ours, Which};
use crate::unicorn::Uc;
use anyhow::Result;
use reprise_arm::decode;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most failures that are described.
const MAX_FAILURES: usize = 25;

/// How often a long run says how far it is, in seconds.
const REPORT_SECONDS: u64 = 30;

/// What a run of cases says.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that ran.
    pub cases: u64,
    /// Cases that were compared and equal.
    pub same: u64,
    /// Cases that could not be compared, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Cases that differ.
    pub failed: u64,
    /// Descriptions of the first failures, one for each first instruction's name.
    pub failures: Vec<String>,
    /// Table lines that ran to their end in a single-instruction case.
    pub covered: BTreeSet<(bool, &'static str)>,
    /// Table lines that were UNPREDICTABLE, with how often.
    pub unpredictable: BTreeMap<&'static str, u64>,
    /// Encodings without a table line that the oracle executes: an example of each, by their fixed-looking bits.
    pub missing: BTreeMap<String, u64>,
    seen: BTreeMap<String, u32>,
}

impl Report {
    /// Adds another run's report.
    pub fn merge(&mut self, other: Report) {
        self.cases += other.cases;
        self.same += other.same;
        self.failed += other.failed;
        other.skipped.into_iter().for_each(|(k, v)| *self.skipped.entry(k).or_default() += v);
        other.unpredictable.into_iter().for_each(|(k, v)| *self.unpredictable.entry(k).or_default() += v);
        other.missing.into_iter().for_each(|(k, v)| *self.missing.entry(k).or_default() += v);
        self.failures.extend(other.failures);
        self.covered.extend(other.covered);
    }

    /// One paragraph for people.
    pub fn summary(&self) -> String {
        let mut s = format!("{} cases: {} same, {} different", self.cases, self.same, self.failed);
        for (reason, n) in &self.skipped {
            let _ = write!(s, ", {n} skipped ({reason})");
        }
        let _ = write!(s, "; {} encodings ran", self.covered.len());
        s
    }
}

/// A generator, our CPU on one engine or several, and Unicorn.
pub struct Session {
    generator: Generator,
    ours: Vec<Ours>,
    unicorn: Uc,
    seed: u64,
    /// Cases that have run.
    done: Arc<AtomicU64>,
}

impl Session {
    /// A session for `seed`.
    ///
    /// # Errors
    /// Unicorn can't be started.
    pub fn new(seed: u64, choice: Choice, engines: &[Which]) -> Result<Self> {
        let ours = engines.iter().map(|w| Ours::new(*w)).collect();
        Ok(Self { generator: Generator::new(seed, choice), ours, unicorn: Uc::new()?, seed, done: Arc::default() })
    }

    /// Runs the cases `from..from + count`.
    ///
    /// # Errors
    /// Unicorn failed in a way that is no result.
    pub fn run(&mut self, from: u64, count: u64) -> Result<Report> {
        let mut report = Report::default();
        for n in from..from + count {
            let case = self.generator.case(n);
            let all = self.ours(&case);
            for (i, (which, ours, verdict)) in self.verdicts(&case, all)?.into_iter().enumerate() {
                // What the first engine says is counted; of the others only that it is different.
                let mut other = Report::default();
                self.count(if i == 0 { &mut report } else { &mut other }, n, &case, which, &ours, verdict);
                report.failed += other.failed;
                report.failures.extend(other.failures);
                report.failures.truncate(MAX_FAILURES);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(report)
    }

    /// Asks Unicorn, if that has a say.
    fn verdicts(&mut self, case: &Case, all: Vec<(Which, Outcome)>) -> Result<Vec<(Which, Outcome, Verdict)>> {
        let known: Vec<_> = all.iter().map(|(_, ours)| foregone(case, ours)).collect();
        if known.iter().all(Option::is_some) {
            // It has nothing to add, and a loop without end would take it long.
            return Ok(all.into_iter().zip(known.into_iter().flatten()).map(|((w, o), v)| (w, o, v)).collect());
        }
        let mut theirs = self.unicorn.run(case)?;
        if all.iter().any(|(_, ours)| matches!(compare(case, ours, &theirs), Verdict::Different(_))) {
            // Once in some ten thousand jumps Unicorn does not stop after one instruction, as it has linked it to what an earlier
            // case left at the target. A fresh one has the last word.
            self.unicorn = Uc::new()?;
            theirs = self.unicorn.run(case)?;
        }
        let judged = all.into_iter().map(|(which, ours)| {
            let verdict = compare(case, &ours, &theirs);
            (which, ours, verdict)
        });
        Ok(judged.collect())
    }

    /// Runs one case and describes it.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn show(&mut self, n: u64) -> Result<String> {
        let case = self.generator.case(n);
        let theirs = self.unicorn.run(&case)?;
        let (_, ours) = self.ours(&case).swap_remove(0);
        let verdict = compare(&case, &ours, &theirs);
        Ok(format!(
            "{}before:\n{}ours: {:?}\n{}oracle: {:?}\n{}{verdict:?}",
            listing(&case),
            case.state,
            ours.ending,
            ours.state,
            theirs.ending,
            theirs.state
        ))
    }

    /// What each of our engines makes of a case.
    fn ours(&mut self, case: &Case) -> Vec<(Which, Outcome)> {
        let mut known = None;
        let run = |ours: &mut Ours| {
            // A guest must not be able to stop the CPU process, whatever it executes: a panic is a failure like any other.
            let outcome = catch_unwind(AssertUnwindSafe(|| ours.run(case, known))).unwrap_or_else(|_| {
                *ours = ours.anew();
                Outcome { ending: Ending::Other("panicked"), state: case.state.clone(), data: Vec::new(), retired: 0 }
            });
            if case.loops && outcome.ending == Ending::Done {
                // The others run as many instructions in one go.
                known = Some(outcome.retired);
            }
            (ours.which(), outcome)
        };
        self.ours.iter_mut().map(run).collect()
    }

    fn count(&self, report: &mut Report, n: u64, case: &Case, which: Which, ours: &Outcome, verdict: Verdict) {
        report.cases += 1;
        let name = line_name(case, 0);
        if let (1, Ending::Done, Some(name)) = (case.code.len(), ours.ending, name) {
            report.covered.insert((case.isa == Isa::A32, name));
        }
        match verdict {
            Verdict::Same => report.same += 1,
            Verdict::Skipped(why) => {
                *report.skipped.entry(why).or_default() += 1;
                let at = case.index_at(ours.state.regs[15]).unwrap_or(0);
                match why {
                    "unpredictable" => {
                        *report.unpredictable.entry(line_name(case, at).unwrap_or("?")).or_default() += 1
                    }
                    "no table line" => *report.missing.entry(shape(case, at)).or_default() += 1,
                    _ => {}
                }
            }
            Verdict::Different(how) => {
                report.failed += 1;
                let key = case.names.join(" ");
                let times = report.seen.entry(key).or_default();
                *times += 1;
                if *times <= 2 && report.failures.len() < MAX_FAILURES {
                    report.failures.push(format!("{which:?}, seed {} case {n}:\n{}{how}\n", self.seed, listing(case)));
                }
            }
        }
    }
}

/// The opcode bits of an encoding, without registers, for grouping.
fn shape(case: &Case, i: usize) -> String {
    match (case.isa, case.width[i]) {
        (Isa::A32, _) => format!(
            "a32 {:08x}",
            case.code[i] & 0x0ff0_0ff0 | if case.code[i] >> 28 == 15 { 15 << 28 } else { 14 << 28 }
        ),
        (_, 4) => format!("t32 {:08x}", case.code[i] & 0xfff0_0ff0),
        _ => format!("t16 {:04x}", case.code[i] & 0xffc0),
    }
}

/// The instructions of a case with their text.
pub fn listing(case: &Case) -> String {
    let mut s = String::new();
    let mut at = case.at;
    for i in 0..case.code.len() {
        let text = match case.isa {
            Isa::A32 => decode::disassemble_a32(case.code[i]),
            Isa::T32 => decode::disassemble_thumb(case.code[i], 14),
        };
        let text = text.unwrap_or_else(|| "(no table line)".into());
        let isa = if case.isa == Isa::A32 { "A32" } else { "T32" };
        let _ = writeln!(
            s,
            "  {at:08x} {isa} {:08x} {text}    [{}]",
            case.code[i],
            case.names.get(i).map_or("", String::as_str)
        );
        at += u32::from(case.width[i]);
    }
    s
}

/// Runs `count` cases on `threads` threads. A long run says on standard error how far it is.
///
/// # Errors
/// As [`Session::run`].
pub fn run_parallel(seed: u64, choice: &Choice, engines: &[Which], count: u64, threads: u64) -> Result<Report> {
    let share = count.div_ceil(threads);
    let done = Arc::new(AtomicU64::new(0));
    let reports = std::thread::scope(|s| {
        let handles: Vec<_> = (0..threads)
            .map(|t| {
                let (choice, done) = (choice.clone(), Arc::clone(&done));
                s.spawn(move || {
                    let mut session = Session { done, ..Session::new(seed, choice, engines)? };
                    session.run(t * share, share.min(count.saturating_sub(t * share)))
                })
            })
            .collect();
        let mut tenths = 0_u64;
        while !handles.iter().all(|h| h.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            tenths += 1;
            if tenths % (10 * REPORT_SECONDS) == 0 {
                eprintln!("{} of {count} cases", done.load(Ordering::Relaxed));
            }
        }
        handles.into_iter().map(|h| h.join().expect("a runner panicked")).collect::<Vec<_>>()
    });
    let mut all = Report::default();
    for r in reports {
        all.merge(r?);
    }
    Ok(all)
}
