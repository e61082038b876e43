//! The VNC server against a viewer, and a display's description of its screen, that come from the fuzzer.
#![no_main]

#[path = "../../../device-procs/display/tests/common/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::run(bytes));
