//! `reprise-log info`.

use crate::{
    show::{self, bytes, grouped, hex, time},
    survey::Survey,
};
use anyhow::Result;
use reprise_recording::{End, Manifest, Recording, Status};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn run(r: &Recording, as_json: bool, out: &mut dyn Write) -> Result<bool> {
    let s = Survey::of(r)?;
    let status = s.status()?;
    if as_json {
        writeln!(out, "{:#}", to_json(r, &s, status))?;
    } else {
        manifest(r, out)?;
        run_summary(&s, status, out)?;
    }
    Ok(!matches!(status, Status::Corrupt(_)))
}

fn manifest(r: &Recording, out: &mut dyn Write) -> Result<()> {
    let m = r.manifest();
    writeln!(out, "recording   {}", r.dir().display())?;
    writeln!(out, "uuid        {}", m.uuid)?;
    writeln!(out, "created     {} by Reprise {}, format {}", m.created, m.reprise, m.format)?;
    writeln!(out, "engine      {}, on {}", m.engine, m.host_cpu)?;
    let counting =
        if m.uncounted.is_empty() { "every instruction".into() } else { format!("all but {}", m.uncounted.join(", ")) };
    writeln!(out, "counts      {counting}")?;
    let quirks =
        if m.quirks.bits == 0 { "none".into() } else { format!("{:#x} {}", m.quirks.bits, m.quirks.names.join(", ")) };
    writeln!(out, "quirks      {quirks}")?;
    for i in &m.inputs {
        writeln!(out, "input       {:<12} {:.16}  {}", i.name, i.hash, bytes(i.size))?;
    }
    for p in &m.plugins {
        writeln!(out, "plugin      {:<12} {:.16}  {}, ABI {}", p.device, p.hash, p.kind, p.abi)?;
    }
    for d in &m.disks {
        let place = if d.stored { "in the recording".to_owned() } else { format!("at {}", d.name) };
        writeln!(
            out,
            "disk        {:<12} {:.16}  {}, {}, {}, {place}",
            d.device,
            d.hash,
            bytes(d.size),
            d.format,
            d.mode
        )?;
    }
    for id in &m.id_registers {
        writeln!(out, "register    {:<12} {:#010x}", id.name, id.value)?;
    }
    Ok(())
}

fn run_summary(s: &Survey, status: &Status, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "state       {status}")?;
    writeln!(
        out,
        "length      {} instructions, {} of guest time, up to position {}",
        grouped(s.icount),
        time(s.vtime),
        s.at
    )?;
    writeln!(out, "events      {} ({} anchors)", grouped(s.events()), grouped(s.anchors()))?;
    writeln!(out, "host        {} in, {} out", bytes(s.input_bytes), bytes(s.output_bytes))?;
    let files = if s.segments == 1 { "segment" } else { "segments" };
    writeln!(
        out,
        "log         {}: {} chunks in {} {files}, index {}",
        bytes(s.log_bytes()),
        s.chunks,
        s.segments,
        bytes(s.index_bytes)
    )?;
    if let Status::Complete(e) = status {
        end(e, out)?;
    }
    Ok(())
}

fn end(e: &End, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "end         {} (reason {})", e.detail, e.reason)?;
    writeln!(out, "state hash  {}", hex(&e.state_hash))?;
    writeln!(out, "devices     {}", hex(&e.device_hash))?;
    writeln!(out, "console     {}, {}", hex(&e.console_hash), bytes(e.console_bytes))?;
    Ok(())
}

/// The final record as JSON.
pub(crate) fn end_json(e: &End) -> Value {
    json!({
        "reason": e.reason, "detail": e.detail, "position": e.at.to_string(), "epoch": e.at.epoch, "count": e.at.count,
        "idle": e.at.idle, "instructions": e.icount, "guest_ns": e.vtime, "state_hash": hex(&e.state_hash),
        "device_hash": hex(&e.device_hash), "console_hash": hex(&e.console_hash), "console_bytes": e.console_bytes,
    })
}

fn manifest_json(m: &Manifest) -> Value {
    let inputs: Vec<Value> =
        m.inputs.iter().map(|i| json!({ "name": i.name, "hash": i.hash, "size": i.size })).collect();
    let plugins = m
        .plugins
        .iter()
        .map(|p| json!({ "device": p.device, "hash": p.hash, "size": p.size, "abi": p.abi, "kind": p.kind }));
    let disks = m.disks.iter().map(|d| {
        json!({
            "device": d.device, "disk": d.disk, "name": d.name, "format": d.format, "size": d.size, "hash": d.hash,
            "mode": d.mode, "stored": d.stored,
        })
    });
    let disks: Vec<Value> = disks.collect();
    let ids: Vec<Value> = m.id_registers.iter().map(|i| json!({ "name": i.name, "value": i.value })).collect();
    json!({
        "format": m.format.to_string(), "uuid": m.uuid, "created": m.created, "reprise": m.reprise, "engine": m.engine,
        "host_cpu": m.host_cpu, "uncounted": m.uncounted, "quirks": m.quirks.bits, "quirk_names": m.quirks.names,
        "machine": m.machine, "inputs": inputs, "plugins": plugins.collect::<Vec<_>>(), "disks": disks, "id_registers": ids,
    })
}

fn to_json(r: &Recording, s: &Survey, status: &Status) -> Value {
    let end = if let Status::Complete(e) = status { end_json(e) } else { Value::Null };
    json!({
        "recording": r.dir(), "manifest": manifest_json(r.manifest()), "state": show::status(status), "end": end,
        "instructions": s.icount, "guest_ns": s.vtime, "position": s.at.to_string(), "events": s.events(),
        "anchors": s.anchors(), "input_bytes": s.input_bytes, "output_bytes": s.output_bytes, "chunks": s.chunks,
        "segments": s.segments, "log_bytes": s.log_bytes(), "index_bytes": s.index_bytes,
    })
}
