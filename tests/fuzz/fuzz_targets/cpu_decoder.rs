//! Any bytes in any mode translate to micro-ops that keep the rules.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((mode, code)) = bytes.split_first_chunk::<4>() else { return };
    if code.len() >= 2 {
        reprise_engines::decoder::check(u32::from_le_bytes(*mode), &code[..code.len().min(4096) & !1]);
    }
});
