//! Any bytes as the recorded form of a transfer: an error or a result, never a panic, and what is read is written back as the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reprise_recording::fuzz_dma(data);
});
