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
    if list.iter().any(|s| s.config.is_some()) {
        put_column(out, &column(&|s| s.config.as_ref().map_or(0, |c| c.len() as u64 + 1)));
        list.iter().flat_map(|s| &s.config).for_each(|c| out.extend_from_slice(c.as_bytes()));
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
        let (name, version) = (get_text(&mut r, names[i])?, get_text(&mut r, versions[i])?);
        list.push(Swap { channel: channels[i] as u16, request: requests[i], hash, name, version, config: None });
    }
    if !r.is_empty() {
        let configs = get_narrow_column(&mut r, n, MAX_DETAIL as u64 + 1, "a plugin's configuration is too long")?;
        if configs.iter().all(|&len| len == 0) {
            return Err(Bad("configurations of plugins where there are none"));
        }
        for (swap, len) in list.iter_mut().zip(configs) {
            swap.config = len.checked_sub(1).map(|len| get_text(&mut r, len)).transpose()?;
        }
    }
    r.finish()?;
    Ok(list)
}

fn get_text(r: &mut Cursor<'_>, len: u64) -> Decoded<String> {
    let bytes = r.bytes(len as usize)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Bad("what is said of a plugin is no UTF-8"))
}
