//! `reprise-log verify`.

use crate::show;
use anyhow::Result;
use reprise_recording::{Status, VerifyReport, verify};
use serde_json::json;
use std::{io::Write, path::Path};

pub(crate) fn run(dir: &Path, as_json: bool, out: &mut dyn Write) -> Result<bool> {
    let report = verify(dir)?;
    let good = report.is_good();
    if as_json {
        let faults: Vec<_> = report.faults.iter().map(show::fault).collect();
        let state = report.status.as_ref().map(show::status);
        let all = json!({
            "recording": dir, "good": good, "state": state, "faults": faults, "chunks": report.chunks, "inputs": report.inputs,
        });
        writeln!(out, "{all:#}")?;
    } else {
        text(dir, &report, out)?;
    }
    Ok(good)
}

fn text(dir: &Path, report: &VerifyReport, out: &mut dyn Write) -> Result<()> {
    match report.faults.split_first() {
        Some((first, rest)) => {
            writeln!(out, "bad: {first}")?;
            for fault in rest {
                writeln!(out, "also: {fault}")?;
            }
        }
        None if report.is_good() => writeln!(out, "good: {}", dir.display())?,
        None => {}
    }
    match &report.status {
        Some(Status::Complete(_) | Status::Corrupt(_)) | None => {}
        Some(other) => writeln!(out, "{other}")?,
    }
    writeln!(out, "{} good chunks, {} input files", report.chunks, report.inputs)?;
    Ok(())
}
