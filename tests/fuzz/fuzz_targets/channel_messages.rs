//! Any 64 bytes as a slot and as an entry, the rest as its arena bytes.
#![no_main]

#[path = "../../../log-daemon/channel/tests/common/hostile.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::parse(bytes));
