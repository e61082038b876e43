//! Bytes from a device to the host.

use crate::{
    record::Output,
    wire::{Bad, Cursor, Decoded, get_column, put_column, put_varint},
};

pub(crate) fn encode_output(out: &mut Vec<u8>, list: &[Output]) {
    put_varint(out, list.len() as u64);
    put_column(out, &list.iter().map(|o| o.port).collect::<Vec<_>>());
    put_column(out, &list.iter().map(|o| o.data.len() as u64).collect::<Vec<_>>());
    list.iter().for_each(|o| out.extend_from_slice(&o.data));
}

pub(crate) fn decode_output(bytes: &[u8], max: usize) -> Decoded<Vec<Output>> {
    let mut r = Cursor::new(bytes);
    let n = r.bounded(max, "more outputs than a chunk may hold")?;
    let ports = get_column(&mut r, n)?;
    let lens = get_column(&mut r, n)?;
    let list = ports.into_iter().zip(lens).map(|(port, len)| Ok(Output { port, data: take(&mut r, len)? })).collect();
    r.finish()?;
    list
}

/// Takes `len` bytes; only what is there is ever allocated.
pub(crate) fn take(r: &mut Cursor<'_>, len: u64) -> Decoded<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Bad("a payload is longer than its chunk"))?;
    Ok(r.bytes(len)?.to_vec())
}
