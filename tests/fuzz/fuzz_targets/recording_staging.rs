//! Any bytes as what a dead log-daemon left in its staging memory: an error or items, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    log_daemon::fuzz_staging(data);
});
