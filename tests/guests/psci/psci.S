@ psci: a bare-metal ARMv7-A program for the virt board's memory map, which asks the board's firmware for all that it knows.
@
@ It runs wherever in RAM it is put, with the MMU off, and says on the PL011 what came of each step, one line each. Then it waits for a key:
@   q  SYSTEM_OFF        r  SYSTEM_RESET        s  CPU_SUSPEND until the timer's interrupt line is up, then the next key
@   anything else: prints it
@
@ Build: `cargo xtask hello` (arm-linux-gnueabihf-gcc). Manuals: ARM DEN 0022D (PSCI), DDI 0183G (PL011), DDI 0406C (generic timer), IHI 0048B (GICv2).

        .syntax unified
        .arch   armv7-a
        .arch_extension virt
        .arm

        .equ    UART,     0x09000000
        .equ    GICD,     0x08000000
        .equ    GICC,     0x08010000
        .equ    VIRTIO,   0x0a000000
        .equ    STACK,    0x40004000          @ core 0's; core 1's lies above it
        .equ    TIMER_ID, 27                  @ virtual timer

        .equ    VERSION,  0x84000000
        .equ    SUSPEND,  0x84000001
        .equ    CPU_OFF,  0x84000002
        .equ    CPU_ON,   0x84000003
        .equ    AFFINITY, 0x84000004
        .equ    MIGRATE,  0x84000006
        .equ    OFF,      0x84000008
        .equ    RESET,    0x84000009
        .equ    FEATURES, 0x8400000a

        @ Prints a text and r0 in hexadecimal.
        .macro  say text
        bl      report
        .asciz  "\text"
        .balign 4
        .endm

        @ Calls the firmware: r0 is the function, r1 to r3 are set.
        .macro  firmware function
        ldr     r0, =\function
        hvc     #0
        .endm

        .text
        .global _start
_start: ldr     sp, =STACK
        mov     r10, r2                       @ the device tree, where there is one
        ldr     r1, =UART
        ldr     r2, =0x301                    @ UARTEN, TXE, RXE
        str     r2, [r1, #0x30]
        say     "r0 "
        cmp     r10, #0
        ldrne   r0, [r10]
        moveq   r0, #0
        say     "device tree "
        firmware VERSION
        say     "version "
        firmware MIGRATE
        say     "migrate "
        ldr     r1, =CPU_ON
        firmware FEATURES
        say     "features on "
        ldr     r1, =0xc4000003
        firmware FEATURES
        say     "features on64 "
        ldr     r0, =0x8400001f
        hvc     #0
        say     "unknown "
        ldr     r0, =VIRTIO
        ldr     r0, [r0]
        say     "slot magic "
        ldr     r0, =VIRTIO + 31 * 0x200 + 4
        ldr     r0, [r0]
        say     "slot version "
        ldr     r0, =VIRTIO + 31 * 0x200 + 8
        ldr     r0, [r0]
        say     "slot device "

        @ The other core, twice: it must come out of reset each time.
        mov     r5, #2
again:  mov     r1, #1
        mov     r2, #0
        firmware AFFINITY
        say     "core 1 "
        mov     r1, #1
        adr     r2, second
        mov     r3, r5
        firmware CPU_ON
        say     "on "
        cmp     r0, #0
        bne     single
        mov     r1, #1
        adr     r2, second
        firmware CPU_ON
        say     "on again "
1:      mov     r1, #1
        mov     r2, #0
        firmware AFFINITY
        cmp     r0, #1                        @ it goes off when it is done
        wfene
        bne     1b
        subs    r5, r5, #1
        bne     again
single: mov     r1, #3
        adr     r2, second
        firmware CPU_ON
        say     "no such core "

        @ The timer's line wakes a suspended core, masked or not.
        ldr     r0, =GICD
        mov     r1, #1
        str     r1, [r0]
        mov     r1, #1 << TIMER_ID
        str     r1, [r0, #0x100]
        ldr     r0, =GICC
        mov     r1, #0xff
        str     r1, [r0, #4]
        mov     r1, #1
        str     r1, [r0]
        mov     r0, #0
        say     "READY "

keys:   ldr     r1, =UART
        ldr     r0, [r1, #0x18]
        tst     r0, #0x10                     @ RXFE
        bne     keys
        ldr     r0, [r1]
        cmp     r0, #'q'
        beq     off
        cmp     r0, #'r'
        beq     reset
        cmp     r0, #'s'
        beq     sleep
        say     "key "
        b       keys

off:    firmware OFF
        say     "still on "
reset:  firmware RESET
        say     "still here "

sleep:  mrrc    p15, 1, r6, r7, c14           @ CNTVCT
        ldr     r0, =62500                    @ a millisecond
        mcr     p15, 0, r0, c14, c3, 0        @ CNTV_TVAL
        mov     r0, #1
        mcr     p15, 0, r0, c14, c3, 1        @ CNTV_CTL
        mov     r1, #0
        firmware SUSPEND
        mov     r4, r0
        mov     r0, #0
        mcr     p15, 0, r0, c14, c3, 1
        mrrc    p15, 1, r8, r9, c14
        sub     r8, r8, r6
        mov     r0, r4
        say     "suspended "
        mov     r0, r8
        say     "ticks "
        b       keys
        .ltorg

        @ Core 1: says what it was given and whether it is out of reset, in the state that PSCI promises, and goes off again.
second: ldr     sp, =STACK + 0x1000
        mov     r9, r0
        say     "context "
        mrc     p15, 0, r0, c0, c0, 5
        say     "mpidr "
        mrs     r0, cpsr
        say     "cpsr "
        mrc     p15, 0, r0, c13, c0, 2        @ TPIDRURW, which it sets: 0 each time
        say     "tpidr "
        mcr     p15, 0, r9, c13, c0, 2
        firmware CPU_OFF
        say     "not off "
1:      b       1b
        .ltorg

        @ Prints the text behind the call, r0 in hexadecimal and the end of a line. Keeps all registers.
report: push    {r0-r4, lr}
        ldr     r1, =UART
        ldr     r2, [sp, #20]
1:      ldrb    r3, [r2], #1
        cmp     r3, #0
        strne   r3, [r1]
        bne     1b
        add     r2, r2, #3
        bic     r2, r2, #3
        str     r2, [sp, #20]
        mov     r4, #8
2:      ror     r0, r0, #28
        and     r3, r0, #15
        cmp     r3, #10
        addlo   r3, r3, #'0'
        addhs   r3, r3, #'a' - 10
        str     r3, [r1]
        subs    r4, r4, #1
        bne     2b
        mov     r3, #'\r'
        str     r3, [r1]
        mov     r3, #'\n'
        str     r3, [r1]
        pop     {r0-r4, pc}
        .ltorg
