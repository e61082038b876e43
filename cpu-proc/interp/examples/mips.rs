//! Guest instructions per second on small kernels of the kind an operating system runs: `cargo run --release --example mips -p reprise-interp`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::{DATA, Machine};

/// (name, program); each runs for ever.
const PROGRAMS: &[(&str, &[u32])] = &[
    // r0 counts down, a byte is cleared every r1 bytes.
    (
        "sieve",
        &[
            0xe59f0028, 0xe3a01003, 0xe0802001, 0xe2803a01, 0xe3a04000, 0xe5c24000, 0xe0822001, 0xe1520003, 0x3afffffb,
            0xe2811002, 0xe3510020, 0x3afffff5, 0xeafffff3, DATA,
        ],
    ),
    // Words copied with LDMIA/STMIA, 32 bytes at a time.
    (
        "memcpy",
        &[
            0xe59f0020, 0xe2801a10, 0xe3a02c10, 0xe8b000f8, 0xe8a100f8, 0xe2522001, 0x1afffffb, 0xeafffff7, 0xe1a00000,
            0xe1a00000, DATA,
        ],
    ),
    // Loads, adds, stores a word at a time with a compare.
    (
        "words",
        &[
            0xe59f0028, 0xe3a02b01, 0xe3a05000, 0xe4904004, 0xe0855004, 0xe3140001, 0x12855001, 0xe5005004, 0xe2522001,
            0x1afffff8, 0xeafffff4, 0xe1a00000, DATA,
        ],
    ),
    // Calls of a leaf that pushes and pops.
    ("calls", &[0xe3a00000, 0xeb000000, 0xeafffffd, 0xe92d4030, 0xe1a04000, 0xe2844001, 0xe1a00004, 0xe8bd8030]),
];

fn main() {
    for (name, program) in PROGRAMS {
        let mut m = Machine::new(program);
        m.run(1_000_000);
        let (n, t) = (200_000_000u64, Instant::now());
        m.run(n);
        let s = t.elapsed().as_secs_f64();
        println!(
            "{name:8} {:7.1} MIPS  (pc {:#x}, {} blocks)",
            n as f64 / s / 1e6,
            m.cpu.regs[15],
            m.engine.blocks_made()
        );
    }
}
