//! `reprise-log stat`.

use crate::{
    show::{self, bytes, grouped, ratio, time},
    survey::Survey,
};
use anyhow::Result;
use reprise_recording::{Recording, Status, journal, message};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn run(r: &Recording, as_json: bool, out: &mut dyn Write) -> Result<bool> {
    let s = Survey::of(r)?;
    let status = s.status()?;
    if as_json {
        writeln!(out, "{:#}", to_json(r, &s, status))?;
    } else {
        totals(&s, status, out)?;
        streams(r, &s, out)?;
        registers(r, &s, out)?;
        kinds(&s, out)?;
    }
    Ok(!matches!(status, Status::Corrupt(_)))
}

/// Events in a second of guest time.
fn rate(events: u64, vtime: u64) -> f64 {
    ratio(events, vtime) * 1e9
}

fn totals(s: &Survey, status: &Status, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "state       {status}")?;
    writeln!(
        out,
        "log         {}: segments {}, index {}",
        bytes(s.log_bytes()),
        bytes(s.segment_bytes),
        bytes(s.index_bytes)
    )?;
    let (raw, stored) = (bytes(s.raw_bytes), bytes(s.stored_bytes));
    writeln!(
        out,
        "chunks      {}: {raw} packed into {stored}, {:.2} : 1",
        s.chunks,
        ratio(s.raw_bytes, s.stored_bytes)
    )?;
    writeln!(out, "guest       {} instructions, {}", grouped(s.icount), time(s.vtime))?;
    let (events, anchors) = (s.events(), s.anchors());
    writeln!(out, "events      {}, {:.1} a second of guest time", grouped(events), rate(events, s.vtime))?;
    writeln!(out, "per event   {:.2} bytes", ratio(s.log_bytes(), events))?;
    let apart = s.icount.checked_div(anchors).unwrap_or(0);
    writeln!(out, "anchors     {}, one in {} instructions", grouped(anchors), grouped(apart))?;
    Ok(())
}

fn streams(r: &Recording, s: &Survey, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\n{:<28} {:>12} {:>14}", "stream", "bytes", "about, packed")?;
    for (&id, size) in &s.streams {
        writeln!(out, "{:<28} {:>12} {:>14.0}", show::stream(r.manifest(), id), size.raw, size.stored)?;
    }
    Ok(())
}

fn registers(r: &Recording, s: &Survey, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\n{:<28} {:>10} {:>10} {:>14}", "register", "reads", "writes", "about bytes")?;
    for (&(channel, offset), u) in &s.registers {
        let name = format!("{}+{offset:#05x}", show::channel(r.manifest(), channel));
        writeln!(out, "{name:<28} {:>10} {:>10} {:>14.0}", u.reads, u.writes, u.bytes)?;
    }
    Ok(())
}

fn kinds(s: &Survey, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\n{:<28} {:>10}", "record", "number")?;
    for (&kind, n) in &s.journal {
        writeln!(out, "{:<28} {n:>10}", format!("journal {} ({kind})", journal::name(kind)))?;
    }
    for (&kind, n) in &s.messages {
        writeln!(out, "{:<28} {n:>10}", format!("message {} ({kind:#04x})", message::name(kind)))?;
    }
    Ok(())
}

fn to_json(r: &Recording, s: &Survey, status: &Status) -> Value {
    let m = r.manifest();
    let streams = s.streams.iter().map(|(&id, size)| {
        json!({ "id": id, "name": show::stream(m, id), "raw_bytes": size.raw, "stored_bytes_about": size.stored.round() })
    });
    let registers = s.registers.iter().map(|(&(channel, offset), u)| {
        json!({
            "channel": channel, "device": show::channel(m, channel), "offset": offset, "reads": u.reads, "writes": u.writes,
            "raw_bytes_about": u.bytes.round(),
        })
    });
    let journal = s.journal.iter().map(|(&k, n)| json!({ "kind": k, "name": journal::name(k), "number": n }));
    let messages = s.messages.iter().map(|(&k, n)| json!({ "kind": k, "name": message::name(k), "number": n }));
    json!({
        "recording": r.dir(), "state": show::status(status), "log_bytes": s.log_bytes(), "segment_bytes": s.segment_bytes,
        "index_bytes": s.index_bytes, "chunks": s.chunks, "raw_bytes": s.raw_bytes, "stored_bytes": s.stored_bytes,
        "ratio": ratio(s.raw_bytes, s.stored_bytes), "instructions": s.icount, "guest_ns": s.vtime, "events": s.events(),
        "events_per_guest_second": rate(s.events(), s.vtime), "anchors": s.anchors(),
        "streams": streams.collect::<Vec<_>>(), "registers": registers.collect::<Vec<_>>(),
        "journal": journal.collect::<Vec<_>>(), "messages": messages.collect::<Vec<_>>(),
    })
}
