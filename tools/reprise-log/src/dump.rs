//! `reprise-log dump`.

use crate::{
    DumpArgs, Usage, info,
    show::{self, hex, text},
};
use anyhow::Result;
use reprise_channel::burst;
use reprise_recording::{
    Chunk, Chunks, Entry, Error, Manifest, Message, Output, Recording, Status, StreamKind, dma, journal, message,
};
use serde_json::{Value, json};
use std::io::{self, Write};

pub(crate) fn run(r: &Recording, args: &DumpArgs, out: &mut dyn Write) -> Result<bool> {
    let filter = Filter::new(r.manifest(), args.stream.as_deref())?;
    if args.from > args.to {
        return Err(Usage(format!("--from {} is behind --to {}", args.from, args.to)).into());
    }
    let mut dump = Dump { manifest: r.manifest(), filter, json: args.which.json, out };
    let mut chunks = start(r, args.from)?;
    let status = loop {
        match chunks.next() {
            None => break chunks.status(),
            Some(Err(Error::Corrupt(_))) => {}
            Some(chunk) => {
                let chunk = chunk?;
                if chunk.seq > args.to {
                    return Ok(true);
                }
                if chunk.seq >= args.from {
                    dump.chunk(&chunk)?;
                }
            }
        }
    };
    if !matches!(status, Status::Complete(_)) {
        dump.out.flush()?;
        writeln!(io::stderr(), "reprise-log: {status}")?;
    }
    Ok(!matches!(status, Status::Corrupt(_)))
}

/// Chunks from the wanted one on, by the index if there is a good one.
fn start(r: &Recording, from: u64) -> Result<Chunks<'_>> {
    if from == 0 {
        return Ok(r.chunks());
    }
    let (index, _) = r.index()?;
    let entry = usize::try_from(from).ok().and_then(|i| index.get(i));
    Ok(entry.and_then(|e| r.chunks_from(from, e).ok()).unwrap_or_else(|| r.chunks()))
}

/// Which streams to show.
struct Filter {
    /// Ids; `None` for all.
    ids: Option<Vec<u32>>,
}

impl Filter {
    fn new(m: &Manifest, wanted: Option<&str>) -> Result<Filter> {
        let Some(wanted) = wanted else { return Ok(Filter { ids: None }) };
        let fits = |s: &&reprise_recording::Stream| show::stream(m, s.id) == wanted || s.name == wanted;
        let ids: Vec<u32> = m.streams.iter().filter(fits).map(|s| s.id).collect();
        if ids.is_empty() {
            let known: Vec<String> = m.streams.iter().map(|s| show::stream(m, s.id)).collect();
            return Err(Usage(format!("no stream `{wanted}`; there are {}", known.join(", "))).into());
        }
        Ok(Filter { ids: Some(ids) })
    }

    fn wants(&self, m: &Manifest, kind: StreamKind, channel: u16) -> bool {
        let Some(ids) = &self.ids else { return true };
        m.stream(kind, channel).is_some_and(|s| ids.contains(&s.id))
    }
}

struct Dump<'a> {
    manifest: &'a Manifest,
    filter: Filter,
    json: bool,
    out: &'a mut dyn Write,
}

impl Dump<'_> {
    fn chunk(&mut self, c: &Chunk) -> Result<()> {
        if !self.json {
            let reaches = c.reaches().map_or(String::new(), |(at, icount, vtime)| {
                format!(" up to {at}, icount {icount}, {}", show::time(vtime))
            });
            writeln!(self.out, "chunk {}{reaches}", c.seq)?;
        }
        if self.filter.wants(self.manifest, StreamKind::Journal, 0) {
            c.journal.iter().try_for_each(|e| self.entry(c.seq, e))?;
        }
        for (&ch, records) in &c.channels {
            if self.filter.wants(self.manifest, StreamKind::Requests, ch) {
                records.requests.iter().try_for_each(|m| self.message(c.seq, ch, "requests", m))?;
            }
            if self.filter.wants(self.manifest, StreamKind::Effects, ch) {
                records.effects.iter().try_for_each(|m| self.message(c.seq, ch, "effects", m))?;
            }
            if self.filter.wants(self.manifest, StreamKind::Output, ch) {
                records.output.iter().try_for_each(|o| self.output(c.seq, ch, o))?;
            }
        }
        if self.filter.wants(self.manifest, StreamKind::Swaps, 0) {
            for s in &c.swaps {
                let channel = show::channel(self.manifest, s.channel);
                let config = s.config.as_ref().map_or_else(String::new, |c| format!(", config {c}"));
                let line = format!(
                    "{channel} from request {} on: {} {}, {:.16}{config}",
                    s.request,
                    s.name,
                    s.version,
                    s.input()
                );
                self.line(c.seq, "swaps", &line, || {
                    json!({
                        "channel": s.channel, "request": s.request, "hash": s.input(), "name": s.name,
                        "version": s.version, "config": s.config,
                    })
                })?;
            }
        }
        match &c.end {
            Some(e) if self.filter.wants(self.manifest, StreamKind::Final, 0) => {
                let line = format!("{} {} (reason {}), state {}", e.at, e.detail, e.reason, hex(&e.state_hash));
                self.line(c.seq, "final", &line, || info::end_json(e))
            }
            _ => Ok(()),
        }
    }

    /// One record: a line of text, or one JSON object on a line.
    fn line(&mut self, chunk: u64, stream: &str, text: &str, value: impl FnOnce() -> Value) -> Result<()> {
        if self.json {
            let mut value = value();
            value["chunk"] = chunk.into();
            value["stream"] = stream.into();
            writeln!(self.out, "{value}")?;
        } else {
            writeln!(self.out, "  {stream:<16} {text}")?;
        }
        Ok(())
    }

    fn entry(&mut self, chunk: u64, e: &Entry) -> Result<()> {
        let line = format!("{:>6} {:<14} {:<9} {}", e.seq, e.at.to_string(), journal::name(e.kind), self.arguments(e));
        self.line(chunk, "journal", &line, || {
            json!({
                "seq": e.seq, "epoch": e.at.epoch, "count": e.at.count, "idle": e.at.idle, "kind": e.kind,
                "name": journal::name(e.kind), "channel": e.channel, "a": e.a, "b": e.b, "c": e.c, "d": e.d,
            })
        })
    }

    /// An entry's arguments, by what they mean.
    fn arguments(&self, e: &Entry) -> String {
        let channel = show::channel(self.manifest, e.channel);
        match e.kind {
            journal::CONSUMED => format!("{channel} effect {}, checksum {:016x}", e.a, e.b),
            journal::HOST => format!("{channel} request {}", e.a),
            journal::WARP => format!("{} ns", e.a),
            journal::ANCHOR => {
                let (pc, cpsr) = (e.a >> 32, e.a as u32);
                format!("pc {pc:08x}, cpsr {cpsr:08x}, registers {:016x}, icount {}, consumed {:016x}", e.b, e.c, e.d)
            }
            journal::PROGRESS => format!("icount {}, vtime {}, {} marks", e.a, e.b, e.c),
            journal::MARK => {
                format!("{channel} {} requests, {} effects, consumed {:016x}, timers {:016x}", e.a, e.b, e.c, e.d)
            }
            journal::END => format!("reason {}, icount {}, vtime {}", e.a, e.b, e.c),
            journal::END_HASH => [e.a, e.b, e.c, e.d].iter().map(|v| hex(&v.to_le_bytes())).collect(),
            _ => format!("kind {} {channel} {:#x} {:#x} {:#x} {:#x}", e.kind, e.a, e.b, e.c, e.d),
        }
    }

    fn message(&mut self, chunk: u64, channel: u16, stream: &str, m: &Message) -> Result<()> {
        let name = format!("{}.{stream}", show::channel(self.manifest, channel));
        let line = format!("{:>6} {:<9} {}", m.number, message::name(m.kind), fields(m));
        self.line(chunk, &name, &line, || {
            json!({
                "channel": channel, "number": m.number, "cause": m.cause, "vtime": m.vtime, "kind": m.kind,
                "name": message::name(m.kind), "size": m.size, "flags": m.flags, "arg": m.arg, "offset": m.offset,
                "value": m.value, "inline": hex(&m.inline), "data": hex(&m.data),
            })
        })
    }

    fn output(&mut self, chunk: u64, channel: u16, o: &Output) -> Result<()> {
        let name = format!("{}.output", show::channel(self.manifest, channel));
        let line = format!("port {} {}", o.port, text(&o.data));
        self.line(chunk, &name, &line, || json!({ "channel": channel, "port": o.port, "data": hex(&o.data) }))
    }
}

/// A transfer's ranges, and where the bytes come from.
fn transfer(p: &dma::Packed) -> String {
    let mut text = String::new();
    for (addr, len) in &p.reads {
        text += &format!(" read {addr:#x}+{len}");
    }
    for w in &p.writes {
        text += &format!(" write {:#x}+{}", w.addr, w.len);
        match &w.from {
            dma::Source::Image(bits) => text += &format!(" from disk {} at {}", bits >> 56, bits & ((1 << 56) - 1)),
            dma::Source::Bytes(bytes) => text += &format!(" {}", show::text(bytes)),
        }
    }
    text
}

/// The fields of a message that say something.
fn fields(m: &Message) -> String {
    let mut text = match m.kind {
        message::READ => format!("+{:#05x}/{}", m.offset, m.size),
        message::WRITE => format!("+{:#05x}/{} = {:#x}", m.offset, m.size, m.value),
        message::LINE | message::SET_LINE => format!("pin {} = {}", m.arg, m.value),
        message::REPLY => format!("= {:#x}", m.value),
        message::PUBLISH => format!("+{:#05x} = {:#x}", m.offset, m.value),
        message::TIMER | message::DISARM => format!("timer {}", m.arg),
        message::ARM => format!("timer {} at {} ns", m.arg, m.vtime),
        message::HOST => format!("port {}", m.offset),
        message::POPPED => format!("queue {} by {}", m.arg, m.value),
        message::BURST => {
            let values: Vec<String> = burst::stores(0, m.payload()).map(|(_, v)| format!("{v:#x}")).collect();
            format!("+{:#05x} = {}", m.offset, values.join(" "))
        }
        message::QUEUE | message::QUEUE_CLEAR => format!("queue {}", m.arg),
        message::DMA_DONE if m.flags & dma::DIGEST != 0 => format!("tag {}, hash of {} bytes", m.arg, m.value),
        message::DMA | message::DMA_DONE => format!("tag {}", m.arg),
        message::RESET | message::ACK => String::new(),
        k => format!("kind {k:#x} arg {} +{:#x} = {:#x}", m.arg, m.offset, m.value),
    };
    if message::is_request(m.kind) {
        text += &format!(" at {} ns", m.vtime);
    } else {
        text += &format!(" for {}", m.cause);
    }
    if m.flags != 0 {
        text += &format!(" flags {:#x}", m.flags);
    }
    if m.inline != [0; 8] {
        text += &format!(" inline {}", hex(&m.inline));
    }
    if m.flags & dma::REFERENCES != 0 {
        text += &dma::Packed::decode(&m.data).map_or_else(|e| format!(" ({e})"), |p| transfer(&p));
    } else if !m.data.is_empty() {
        text += &format!(" {}", show::text(&m.data));
    }
    text.trim_start().to_owned()
}
