//! The final record.

use crate::{
    record::{End, Position},
    wire::{Bad, Cursor, Decoded, put_varint},
};

/// Longest [`End::detail`].
pub(crate) const MAX_DETAIL: usize = 4096;

pub(crate) fn encode_end(out: &mut Vec<u8>, e: &End) {
    for v in [
        u64::from(e.reason),
        e.at.epoch,
        e.at.count,
        u64::from(e.at.idle),
        e.icount,
        e.vtime,
        e.console_bytes,
        e.detail.len() as u64,
    ] {
        put_varint(out, v);
    }
    out.extend_from_slice(e.detail.as_bytes());
    for h in [&e.state_hash, &e.device_hash, &e.console_hash] {
        out.extend_from_slice(h);
    }
}

pub(crate) fn decode_end(bytes: &[u8]) -> Decoded<End> {
    let mut r = Cursor::new(bytes);
    let narrow = |v: u64| u32::try_from(v).map_err(|_| Bad("a number of the final record is too large"));
    let reason = narrow(r.varint()?)?;
    let (epoch, count) = (r.varint()?, r.varint()?);
    let idle = narrow(r.varint()?)?;
    let (icount, vtime, console_bytes) = (r.varint()?, r.varint()?, r.varint()?);
    let detail = r.bounded(MAX_DETAIL, "the final record's text is too long").and_then(|n| r.bytes(n))?;
    let detail = std::str::from_utf8(detail).map_err(|_| Bad("the final record's text is no UTF-8"))?.to_owned();
    let (state_hash, device_hash, console_hash) = (r.array()?, r.array()?, r.array()?);
    r.finish()?;
    let at = Position { epoch, count, idle };
    Ok(End { reason, detail, at, icount, vtime, state_hash, device_hash, console_hash, console_bytes })
}
