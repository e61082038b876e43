//! Any bytes as part of a recording: an error or a result, never a panic, and memory stays bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reprise_recording::fuzz_manifest(data);
});
