//! A hostile guest of the SD card and its controller: commands, transfers, words of data.

#![no_main]

use plugin_pl180::Pl180;
use reprise_device::host::{MemoryDisk, Plugin};

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    let disk = MemoryDisk { data: vec![0xa5; 1 << 15], read_only: false, flushes: 0 };
    reprise_device::hostile::drive(&Plugin::of::<Pl180>(), "(fifo: 128)", disk, script);
});
