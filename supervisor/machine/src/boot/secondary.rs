//! What the cores other than the first do until Linux wants them, on boards whose firmware leaves them waiting for an address in a register
//! (SYS_FLAGS of the Versatile Express, DUI 0447 4.3.7).

/// How much of RAM's start is kept from the kernel for it: a page.
pub(super) const RESERVED: u64 = 4 << 10;

/// The code. `interface` is the GIC's CPU interface, `release` the register.
///
/// ```text
///         ldr   r0, gicc
///         mov   r1, #0xff
///         str   r1, [r0, #4]      @ GICC_PMR: let every priority through
///         mov   r1, #1
///         str   r1, [r0]          @ GICC_CTLR: signal Group 0
///         ldr   r0, flags
/// wait:   wfi                     @ the kernel writes the address, then sends a software interrupt
///         ldr   r1, [r0]
///         cmp   r1, #0
///         beq   wait
///         bx    r1
/// gicc:   .word interface
/// flags:  .word release
/// ```
pub(super) fn stub(interface: u32, release: u32) -> Vec<u8> {
    let words = [
        0xe59f_0024,
        0xe3a0_10ff,
        0xe580_1004,
        0xe3a0_1001,
        0xe580_1000,
        0xe59f_0014,
        0xe320_f003,
        0xe590_1000,
        0xe351_0000,
        0x0aff_fffb,
        0xe12f_ff11,
        interface,
        release,
    ];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}
