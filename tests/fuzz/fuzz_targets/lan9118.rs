//! A hostile guest and a hostile wire of the Ethernet controller: registers, words of commands and of frames, frames from outside.

#![no_main]

use plugin_lan9118::Lan9118;
use reprise_device::host::{MemoryDisk, Plugin};

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    reprise_device::hostile::drive(&Plugin::of::<Lan9118>(), "()", MemoryDisk::default(), script);
});
