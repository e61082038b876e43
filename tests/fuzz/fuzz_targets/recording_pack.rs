//! Any bytes as a packed recording: an error or a result, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reprise_recording::fuzz_pack(data);
});
