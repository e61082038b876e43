//! Plugins that took the place of others.

use super::end::MAX_DETAIL;
use crate::{
    record::Swap,
    wire::{Bad, Cursor, Decoded, get_column, get_narrow_column, put_column, put_varint},
};

pub(crate) fn encode_swaps(out: &mut Vec<u8>, list: &[Swap]) {
    let column = |f: &dyn Fn(&Swap) -> u64| list.iter().map(f).collect::<Vec<u64>>();
    put_varint(out, list.len() as u64);
    put_column(out, &column(&|s| u64::from(s.channel)));
    put_column(out, &column(&|s| s.request));
    put_column(out, &column(&|s| s.name.len() as u64));
    put_column(out, &column(&|s| s.version.len() as u64));
    for s in list {
        out.extend_from_slice(&s.hash);
        out.extend_from_slice(s.name.as_bytes());
        out.extend_from_slice(s.version.as_bytes());
    }
}

pub(crate) fn decode_swaps(bytes: &[u8], max: usize) -> Decoded<Vec<Swap>> {
    let mut r = Cursor::new(bytes);
    let n = r.bounded(max, "more swaps than a chunk may hold")?;
    let channels = get_narrow_column(&mut r, n, 0xffff, "a channel number is too large")?;
    let requests = get_column(&mut r, n)?;
    let names = get_narrow_column(&mut r, n, MAX_DETAIL as u64, "a plugin's name is too long")?;
    let versions = get_narrow_column(&mut r, n, MAX_DETAIL as u64, "a plugin's version is too long")?;
    let mut list = Vec::new();
    for i in 0..n {
        let hash = r.array()?;
        let mut text = |len: u64| {
            let bytes = r.bytes(len as usize)?;
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Bad("a plugin's name is no UTF-8"))
        };
        let (name, version) = (text(names[i])?, text(versions[i])?);
        list.push(Swap { channel: channels[i] as u16, request: requests[i], hash, name, version });
    }
    r.finish()?;
    Ok(list)
}
