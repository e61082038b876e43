//! A hostile guest of a NOR flash: commands in any order, on one chip or both.

#![no_main]

use plugin_cfi_flash::Flash;
use reprise_device::host::{MemoryDisk, Plugin};

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    let disk = MemoryDisk { data: vec![0xff; 1 << 17], read_only: false, flushes: 0 };
    reprise_device::hostile::drive(&Plugin::of::<Flash>(), "(size: 262144)", disk, script);
});
