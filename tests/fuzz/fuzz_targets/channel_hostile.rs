//! Honest ends of a channel against a peer whose every step comes from the fuzzer.
#![no_main]

#[path = "../../../log-daemon/channel/tests/common/hostile.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod hostile;

use reprise_channel::Role;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let name = format!("reprise-fuzz-{}", std::process::id());
    let mut steps = hostile::Bytes(rest);
    match first % 5 {
        0 => hostile::channel(&name, Role::Device, &mut steps),
        1 => hostile::channel(&name, Role::Cpu, &mut steps),
        2 => hostile::channel(&name, Role::Daemon, &mut steps),
        3 => hostile::control(&name, Role::Cpu, &mut steps),
        _ => hostile::control(&name, Role::Daemon, &mut steps),
    }
});
