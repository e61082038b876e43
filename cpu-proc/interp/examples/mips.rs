//! Guest instructions per second on small kernels of the kind an operating system runs: `cargo run --release --example mips -p reprise-interp`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;
use support::Machine;

/// (name, program); each runs for ever.
const PROGRAMS: &[(&str, &[u32])] = &[
    // A sieve of Eratosthenes over 8 KiB: byte stores, compares, short loops.
    (
        "sieve",
        &[
            0xe59f_004c,
            0xe3a0_1000,
            0xe3a0_2a02,
            0xe7c0_1002,
            0xe252_2001,
            0x5aff_fffc,
            0xe3a0_3002,
            0xe7d0_4003,
            0xe354_0000,
            0x1a00_0006,
            0xe083_5003,
            0xe3a0_6001,
            0xe355_0a02,
            0xaa00_0002,
            0xe7c0_6005,
            0xe085_5003,
            0xeaff_fffa,
            0xe283_3001,
            0xe353_005c,
            0xbaff_fff2,
            0xeaff_ffea,
            0x8010_0000,
        ],
    ),
    // 8 KiB copied with LDMIA and STMIA, 32 bytes at a time.
    (
        "memcpy",
        &[
            0xe59f_0018,
            0xe280_1801,
            0xe3a0_2c01,
            0xe8b0_13f8,
            0xe8a1_13f8,
            0xe252_2001,
            0x1aff_fffb,
            0xeaff_fff7,
            0x8010_0000,
        ],
    ),
    // Words summed and stored back, with a conditional instruction.
    (
        "words",
        &[
            0xe59f_0024,
            0xe3a0_2a01,
            0xe3a0_5000,
            0xe490_4004,
            0xe085_5004,
            0xe314_0001,
            0x1285_5001,
            0xe500_5004,
            0xe252_2001,
            0x1aff_fff8,
            0xeaff_fff4,
            0x8010_0000,
        ],
    ),
    // Calls of a leaf that pushes and pops.
    (
        "calls",
        &[
            0xe3a0_0000,
            0xeb00_0002,
            0xe350_0ffa,
            0xbaff_fffc,
            0xeaff_fffa,
            0xe92d_4030,
            0xe1a0_4000,
            0xe284_4001,
            0xe1a0_0004,
            0xe8bd_8030,
        ],
    ),
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
