//! Any bytes as a qcow2 image, and good images with any damage: an error or a result, never a panic, a hang or endless memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    reprise_storage::testing::fuzz(data);
});
