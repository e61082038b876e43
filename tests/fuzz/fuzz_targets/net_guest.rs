//! The user-mode network against a guest, and peers on the host's side, whose every step comes from the fuzzer.
#![no_main]

#[path = "../../../device-procs/net/tests/common/host.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod host;
#[path = "../../../device-procs/net/tests/common/hostile.rs"]
mod hostile;
#[path = "../../../device-procs/net/tests/common/raw.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod raw;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::run(&mut hostile::Bytes(bytes)));
