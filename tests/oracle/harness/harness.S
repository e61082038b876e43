@ Runs cases under qemu-arm: for each record of the table it restores the data window, loads all registers, jumps to the case, takes all
@ registers back and writes them and the data window to its standard output. The case ends with a branch to `back`, in A32 state.
@
@ Record (words): entry, r0-r14, flags (APSR), FPSCR, d0-d31. The table begins with the number of records.
@ Output of a case (words): r0-r14, CPSR, FPSCR, d0-d31, then the data window.
@
@ Built by `cargo xtask hello`; the addresses must be those of qemu.rs.

        .syntax unified
        .arch   armv7-a
        .fpu    neon-vfpv4
        .arm
        .equ    DATA,     0x80060000
        .equ    DATA_SIZE, 0x2000
        .equ    PRISTINE, 0x80410000
        .equ    OUT,      0x80420000
        .equ    TABLE,    0x80500000
        .equ    RECORD,   82 * 4

        .text
        .global _start
        @ The two entries stand at fixed places: start, and back from a case.
_start: b       first
back:   str     r0, r0_slot
        mrs     r0, cpsr
        str     r0, cpsr_slot
        ldr     r0, =OUT + 4
        stm     r0, {r1-r14}
        ldr     r1, r0_slot
        str     r1, [r0, #-4]
        ldr     r1, cpsr_slot
        str     r1, [r0, #(14 * 4)]
        vmrs    r1, fpscr
        str     r1, [r0, #(15 * 4)]
        add     r0, r0, #(16 * 4)
        vstm    r0!, {d0-d15}
        vstm    r0, {d16-d31}
        ldr     r1, =OUT
        mov     r2, #(81 * 4)
        bl      write
        ldr     r1, =DATA
        ldr     r2, =DATA_SIZE
        bl      write
next:   ldr     r9, left
        subs    r9, r9, #1
        bmi     exit
        str     r9, left
        @ The data window as it was.
        ldr     r0, =PRISTINE
        ldr     r1, =DATA
        ldr     r2, =DATA + DATA_SIZE
1:      ldm     r0!, {r3-r8}
        ldm     r0!, {r11, r12}
        stm     r1!, {r3-r8}
        stm     r1!, {r11, r12}
        cmp     r1, r2
        blo     1b
        ldr     lr, record
        add     r0, lr, #RECORD
        str     r0, record
        ldr     r0, [lr]
        str     r0, entry
        add     r0, lr, #(18 * 4)
        vldm    r0!, {d0-d15}
        vldm    r0, {d16-d31}
        ldr     r0, [lr, #(17 * 4)]
        vmsr    fpscr, r0
        ldr     r0, [lr, #(16 * 4)]
        msr     cpsr_fs, r0
        ldmib   lr, {r0-r14}
        ldr     pc, entry
first:  ldr     r0, =TABLE
        ldr     r1, [r0], #4
        str     r1, left
        str     r0, record
        b       next
        @ Writes r2 bytes at r1, all of them.
write:  mov     r0, #1
        mov     r7, #4
        svc     #0
        cmp     r0, #0
        ble     exit
        add     r1, r1, r0
        subs    r2, r2, r0
        bne     write
        bx      lr
exit:   mov     r0, #0
        mov     r7, #1
        svc     #0
r0_slot:   .word 0
cpsr_slot: .word 0
left:      .word 0
record:    .word 0
entry:     .word 0
        .ltorg
