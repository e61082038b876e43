//! `cargo xtask test`: everything that proves the project, and a count at the end.

use crate::{guest, install, paths};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Running totals.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    broken: Vec<String>,
}

/// Crates whose tests need something special and run as steps of their own.
const APART: &[&str] = &["reprise-tests", "reprise-oracle"];

/// Runs all tests; `slow` adds the long versions.
///
/// # Errors
/// A test or check failed.
pub fn test(slow: bool) -> Result<()> {
    let mut tally = Tally::default();
    lint_into(&mut tally)?;
    unit(&mut tally)?;
    fuzz(&mut tally)?;
    oracle(&mut tally, slow)?;
    machines(&mut tally, slow)?;
    finish(&tally)
}

/// Formatting and clippy only.
///
/// # Errors
/// One of them complains.
pub fn lint() -> Result<()> {
    let mut tally = Tally::default();
    lint_into(&mut tally)?;
    finish(&tally)
}

fn finish(tally: &Tally) -> Result<()> {
    for b in &tally.broken {
        println!("FAILED: {b}");
    }
    if tally.skipped > 0 {
        println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    } else {
        println!("{} passed, {} failed", tally.passed, tally.failed);
    }
    if tally.failed > 0 {
        bail!("{} checks failed", tally.failed);
    }
    Ok(())
}

fn lint_into(tally: &mut Tally) -> Result<()> {
    check(tally, "formatting", install::cargo().args(["fmt", "--all", "--check"]))?;
    // Release, like everything else here: one build of every dependency is enough.
    let mut clippy = install::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--release", "--quiet", "--", "-D", "warnings"]);
    check(tally, "clippy", &mut clippy)
}

fn unit(tally: &mut Tally) -> Result<()> {
    let mut c = install::cargo();
    c.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    for name in APART {
        c.args(["--exclude", name]);
    }
    cargo_test(tally, "unit tests", &mut c)
}

/// The fuzz targets compile. What they do runs with seeds among the unit tests; fuzzing itself needs a nightly compiler.
fn fuzz(tally: &mut Tally) -> Result<()> {
    let mut c = install::cargo();
    c.args(["check", "--quiet", "--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir"])
        .arg(paths::target_dir().join("fuzz"));
    check(tally, "fuzz targets", &mut c)
}

/// A long run of the oracle.
///
/// # Errors
/// If it can't be run, or if cases differ.
pub fn oracle_run(cases: u64, seed: u64, engine: &str) -> Result<()> {
    let mut c = install::cargo();
    c.args(["run", "--release", "-p", "reprise-oracle", "--", "--engine", engine]);
    c.args(["--cases", &cases.to_string(), "--seed", &seed.to_string()]);
    anyhow::ensure!(c.status().context("starting the oracle")?.success(), "cases differ, or the oracle could not run");
    Ok(())
}

fn oracle(tally: &mut Tally, slow: bool) -> Result<()> {
    let mut c = install::cargo();
    c.args(["test", "--release", "-p", "reprise-oracle", "--no-fail-fast"]);
    if slow {
        c.env("REPRISE_SLOW", "1");
    }
    cargo_test(tally, "oracle tests", &mut c)
}

fn machines(tally: &mut Tally, slow: bool) -> Result<()> {
    let prefix = match install::stage() {
        Ok(p) => p,
        Err(e) => {
            println!("{e:#}");
            tally.failed += 1;
            tally.broken.push("building the machine".into());
            return Ok(());
        }
    };
    let mut c = install::cargo();
    c.args(["test", "--release", "-p", "reprise-tests", "--no-fail-fast", "--", "--test-threads=2"]);
    c.env("REPRISE_PREFIX", prefix);
    match guest::ensure_lpae(&guest::default_dir()) {
        Ok(g) => {
            c.env("REPRISE_GUEST", g.dir);
        }
        Err(e) => println!("no Linux guest: {e:#}"),
    }
    if slow {
        c.env("REPRISE_SLOW", "1");
    }
    cargo_test(tally, "whole-machine tests", &mut c)
}

/// A command that counts as one check.
fn check(tally: &mut Tally, what: &str, c: &mut Command) -> Result<()> {
    println!("==> {what}");
    let start = Instant::now();
    let ok = c.status().with_context(|| format!("starting {:?}", c.get_program()))?.success();
    println!("==> {what}: {} in {:.0} s", if ok { "good" } else { "FAILED" }, start.elapsed().as_secs_f64());
    if ok {
        tally.passed += 1;
    } else {
        tally.failed += 1;
        tally.broken.push(what.to_owned());
    }
    Ok(())
}

/// A `cargo test` whose result lines are added up.
fn cargo_test(tally: &mut Tally, what: &str, c: &mut Command) -> Result<()> {
    println!("==> {what}");
    let start = Instant::now();
    let mut child = c.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {:?}", c.get_program()))?;
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line?;
        if let Some((p, f, s)) = totals(&line) {
            passed += p;
            failed += f;
            tally.skipped += s;
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            tally.broken.push(format!("{what}: {name}"));
        }
        println!("{line}");
        std::io::stdout().flush()?;
    }
    let status = child.wait()?;
    if !status.success() && failed == 0 {
        // It did not even build, or a test took the process down.
        failed = 1;
        tally.broken.push(format!("{what}: {status}"));
    }
    println!(
        "==> {what}: {passed} passed, {failed} failed in {:.0} s [target {}]",
        start.elapsed().as_secs_f64(),
        paths::target_dir().display()
    );
    tally.passed += passed;
    tally.failed += failed;
    Ok(())
}

/// Passed, failed and ignored of a line `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn totals(line: &str) -> Option<(u64, u64, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| rest.split("; ").find_map(|p| p.strip_suffix(word)?.trim().parse().ok());
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::totals;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(totals(line), Some((3, 2, 1)));
        assert_eq!(totals("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured"), Some((0, 0, 0)));
        assert_eq!(totals("running 3 tests"), None);
    }
}
