@ smp: a bare-metal ARMv7-A program for several cores on the Versatile Express memory map.
@
@ All cores start here and tell themselves apart by MPIDR. They count together with LDREX and STREX and under a lock that sleeps in WFE, pass a
@ token round in software interrupts, change a mapping that all of them use, and tell how many instructions each has run. Then core 0 waits for
@ keys, whose interrupts go to the last core. What is printed depends on the order in which the cores ran, to the instruction.
@
@ Keys:  q  power off;  anything else: prints it with the counters, and gives the other cores work
@
@ Build: `cargo xtask hello`. Manuals: ARM DDI 0406C, ARM IHI 0048B (GICv2), DDI 0183G (PL011), DUI 0447 (system registers).

        .syntax unified
        .arch   armv7-a
        .arch_extension idiv
        .arm

        .equ    SYSREG,   0x1c010000
        .equ    UART,     0x1c090000
        .equ    GICD,     0x2c001000
        .equ    GICC,     0x2c002000
        .equ    L1,       0x80004000          @ 16 KiB, first-level table
        .equ    BSS,      0x80040000          @ variables; RAM is zero at the start
        .equ    SP_TOP,   0x80100000          @ 4 KiB of stack for each core, downwards
        .equ    PAGE_A,   0x80200000          @ two sections that ALIAS leads to by turns
        .equ    PAGE_B,   0x80300000
        .equ    ALIAS,    0x90000000

        .equ    UART_ID,  37                  @ UART0, SPI 5
        .equ    ATOMIC,   5000                @ increments of each core
        .equ    LOCKED,   2000
        .equ    ROUNDS,   50                  @ of the token
        .equ    FLIPS,    10                  @ of the mapping

        @ Variables, as offsets from BSS. Those of each core are words at the offset plus 4 times its number.
        .equ    V_GO,     0
        .equ    V_ARRIVED, 4
        .equ    V_ATOMIC, 8
        .equ    V_LOCK,   12
        .equ    V_LOCKED, 16
        .equ    V_ORDER,  20
        .equ    V_HEAD,   24
        .equ    V_TAIL,   28
        .equ    V_WORK,   32
        .equ    V_FAILS,  64                  @ STREX that failed
        .equ    V_TOKEN,  80
        .equ    V_CYCLES, 96
        .equ    V_RING,   256                 @ 256 bytes of received characters

        @ Everywhere: r8 = BSS, r9 = this core's number, r10 = number of cores, r11 = arrivals that open the next barrier.
        .text
        .global _start
_start: cpsid   aif, #19
        mrc     p15, 0, r9, c0, c0, 5         @ MPIDR
        and     r9, r9, #3
        ldr     sp, =SP_TOP
        sub     sp, sp, r9, lsl #12
        ldr     r8, =BSS
        mov     r11, #0
        ldr     r0, =GICD
        ldr     r10, [r0, #4]                 @ GICD_TYPER
        ubfx    r10, r10, #5, #3
        add     r10, r10, #1
        ldr     r0, =vectors
        mcr     p15, 0, r0, c12, c0, 0        @ VBAR
        cmp     r9, #0
        bne     1f
        bl      tables
        bl      uart_init
        bl      gicd_init
        ldr     r0, =s_hello
        bl      puts
        mov     r0, #1
        str     r0, [r8, #V_GO]
        dsb
        sev
        b       2f
1:      ldr     r0, [r8, #V_GO]
        cmp     r0, #0
        wfeeq
        beq     1b
2:      bl      mmu_on
        bl      gicc_init
        mov     r0, #1 << 31
        mcr     p15, 0, r0, c9, c12, 1        @ PMCNTENSET: the cycle counter
        mov     r0, #5
        mcr     p15, 0, r0, c9, c12, 0        @ PMCR: on, from zero
        isb
        cpsie   i
        bl      barrier

        @ Count together.
        ldr     r4, =ATOMIC
        bl      count
        add     r0, r8, #V_FAILS
        str     r7, [r0, r9, lsl #2]
        bl      barrier

        @ Count under a lock, and note the order of the cores.
        ldr     r4, =LOCKED
1:      bl      lock
        ldr     r0, [r8, #V_LOCKED]
        mov     r1, #20
2:      subs    r1, r1, #1                    @ long enough to be caught in it at the end of a turn
        bne     2b
        add     r0, r0, #1
        str     r0, [r8, #V_LOCKED]
        ldr     r0, [r8, #V_ORDER]
        ldr     r1, =16777619
        eor     r0, r0, r9
        mul     r0, r0, r1
        str     r0, [r8, #V_ORDER]
        bl      unlock
        subs    r4, r4, #1
        bne     1b
        bl      barrier

        @ Pass a token round.
        mov     r4, #1
1:      cmp     r9, #0
        bleq    pass
        add     r5, r8, #V_TOKEN
2:      cpsid   i
        ldr     r0, [r5, r9, lsl #2]
        cmp     r0, r4
        bhs     3f
        wfi
        cpsie   i
        isb
        b       2b
3:      cpsie   i
        cmp     r9, #0
        blne    pass
        add     r4, r4, #1
        cmp     r4, #ROUNDS
        bls     1b
        bl      barrier

        @ Change a mapping under everybody's feet.
        ldr     r5, =ALIAS
        mov     r4, #FLIPS
1:      and     r0, r4, #1
        ldr     r1, =PAGE_A + 0x11c0e
        cmp     r0, #0
        addne   r1, r1, #0x100000
        cmp     r9, #0
        bne     2f
        ldr     r2, =L1 + (0x900 << 2)
        str     r1, [r2]
        dsb
        mcr     p15, 0, r5, c8, c3, 3         @ TLBIMVAAIS
        dsb
        isb
2:      bl      barrier
        ldr     r0, [r5]                      @ each section holds its own address
        lsr     r0, r0, #20
        cmp     r0, r1, lsr #20
        mov     r0, #1
        bne     panic
        bl      barrier
        subs    r4, r4, #1
        bne     1b

        mrc     p15, 0, r1, c9, c13, 0        @ PMCCNTR
        add     r0, r8, #V_CYCLES
        str     r1, [r0, r9, lsl #2]
        bl      barrier
        cmp     r9, #0
        bne     worker

        ldr     r0, =s_cores
        mov     r1, r10
        bl      value
        ldr     r0, =s_atomic
        ldr     r1, [r8, #V_ATOMIC]
        bl      value
        ldr     r0, =s_locked
        ldr     r1, [r8, #V_LOCKED]
        bl      value
        ldr     r0, =s_order
        ldr     r1, [r8, #V_ORDER]
        bl      value
        ldr     r0, =s_fails
        add     r5, r8, #V_FAILS
        bl      each
        ldr     r0, =s_tokens
        add     r5, r8, #V_TOKEN
        bl      each
        ldr     r0, =s_cycles
        add     r5, r8, #V_CYCLES
        bl      each
        ldr     r0, =s_ready
        bl      puts

keys:   bl      getc
        mov     r4, r0
        cmp     r4, #'q'
        beq     off
        ldr     r0, =s_key
        bl      puts
        mov     r0, r4
        bl      putc
        mrrc    p15, 1, r1, r2, c14           @ CNTVCT
        ldr     r0, =s_at
        bl      value
        ldr     r0, =s_atomic
        ldr     r1, [r8, #V_ATOMIC]
        bl      value
        mov     r0, #10
        bl      putc
        ldr     r0, [r8, #V_WORK]
        add     r0, r0, #1
        str     r0, [r8, #V_WORK]
        ldr     r1, =(1 << 24) | 3            @ GICD_SGIR: SGI 3 to all others
        bl      sgi
        b       keys

off:    ldr     r0, =s_bye
        ldr     r1, [r8, #V_ATOMIC]
        bl      value
        mov     r0, #10
        bl      putc
        ldr     r1, =SYSREG
        mov     r2, #0
        str     r2, [r1, #0xa8]               @ SYS_CFGSTAT
        str     r2, [r1, #0xa0]               @ SYS_CFGDATA
        ldr     r0, =0xc0800000               @ start, write, shutdown
        str     r0, [r1, #0xa4]               @ SYS_CFGCTRL
1:      wfi
        b       1b

        @ The other cores: counts for each key, and sleep.
worker: mov     r6, #0
1:      cpsid   i
        ldr     r0, [r8, #V_WORK]
        cmp     r0, r6
        bne     2f
        wfi
        cpsie   i
        isb
        b       1b
2:      cpsie   i
        add     r6, r6, #1
        ldr     r4, =40000
        bl      count
        b       1b

        @ Adds 1 to V_ATOMIC r4 times; r7 = how often STREX failed.
count:  add     r0, r8, #V_ATOMIC
        mov     r7, #0
1:      ldrex   r1, [r0]
        add     r1, r1, #1
        strex   r2, r1, [r0]
        cmp     r2, #0
        addne   r7, r7, #1
        bne     1b
        subs    r4, r4, #1
        bne     1b
        bx      lr

lock:   add     r0, r8, #V_LOCK
        mov     r3, #1
1:      ldrex   r1, [r0]
        cmp     r1, #0
        wfene
        bne     1b
        strex   r1, r3, [r0]
        cmp     r1, #0
        bne     1b
        dmb
        bx      lr
unlock: dmb
        mov     r1, #0
        str     r1, [r8, #V_LOCK]
        dsb
        sev
        bx      lr

        @ Waits until all cores are here. Keeps r1.
barrier:
        add     r11, r11, r10
        add     r0, r8, #V_ARRIVED
1:      ldrex   r2, [r0]
        add     r2, r2, #1
        strex   r3, r2, [r0]
        cmp     r3, #0
        bne     1b
        dsb
        sev
2:      ldr     r2, [r0]
        cmp     r2, r11
        bxhs    lr
        wfe
        b       2b

        @ Passes the token to the next core: SGI 1.
pass:   add     r0, r9, #1
        cmp     r0, r10
        movhs   r0, #0
        mov     r1, #1 << 16
        lsl     r1, r1, r0
        orr     r1, r1, #1
sgi:    dsb
        ldr     r0, =GICD
        str     r1, [r0, #0xf00]
        bx      lr

@ ---- exceptions -------------------------------------------------------------------------------------------------------

        .balign 32
vectors:
        b       panic_any
        b       panic_any
        b       panic_any
        b       panic_any
        b       panic_any
        b       panic_any
        b       v_irq
        b       panic_any

panic_any:
        mov     r0, #9
panic:  cpsid   aif, #19
        mov     r1, r0
        ldr     r0, =s_panic
        bl      value
1:      wfi
        b       1b

v_irq:  sub     lr, lr, #4
        srsdb   sp!, #19
        cps     #19
        push    {r0-r5, r12, lr}
        ldr     r4, =GICC
        ldr     r5, [r4, #0x0c]               @ GICC_IAR
        ubfx    r0, r5, #0, #10
        ldr     r1, =BSS
        mrc     p15, 0, r3, c0, c0, 5
        and     r3, r3, #3
        cmp     r0, #1
        beq     1f
        ldr     r2, =UART_ID
        cmp     r0, r2
        beq     4f
        cmp     r0, #4                        @ SGIs 2 and 3 only wake
        blo     3f
        mov     r0, #2
        b       panic
        @ The token, from the core before this one.
1:      ubfx    r0, r5, #10, #3
        add     r0, r0, #1
        ldr     r2, =GICD
        ldr     r2, [r2, #4]
        ubfx    r2, r2, #5, #3
        cmp     r0, r2
        movhi   r0, #0
        cmp     r0, r3
        mov     r0, #3
        bne     panic
        add     r1, r1, #V_TOKEN
        ldr     r0, [r1, r3, lsl #2]
        add     r0, r0, #1
        str     r0, [r1, r3, lsl #2]
3:      str     r5, [r4, #0x10]               @ GICC_EOIR
        pop     {r0-r5, r12, lr}
        rfeia   sp!
        @ Characters: into the ring, and wake core 0.
4:      ldr     r0, =UART
        mov     r2, #0x50
        str     r2, [r0, #0x44]               @ ICR: before the FIFO is read, so that none is lost
5:      ldr     r2, [r0, #0x18]               @ FR.RXFE
        tst     r2, #0x10
        bne     6f
        ldr     r2, [r0, #0]                  @ DR
        ldr     r3, [r1, #V_HEAD]
        and     r12, r3, #255
        add     r12, r12, r1
        strb    r2, [r12, #V_RING]
        add     r3, r3, #1
        str     r3, [r1, #V_HEAD]
        b       5b
6:      ldr     r1, =(1 << 16) | 2
        bl      sgi
        b       3b

@ ---- interrupt controller, MMU, UART ----------------------------------------------------------------------------------

gicd_init:
        ldr     r0, =GICD
        mov     r1, #(1 << (UART_ID - 32))
        str     r1, [r0, #0x104]              @ GICD_ISENABLER1
        mov     r1, #0x80
        add     r2, r0, #0x400
        strb    r1, [r2, #UART_ID]            @ GICD_IPRIORITYR
        mov     r1, #1
        sub     r2, r10, #1
        lsl     r1, r1, r2
        add     r2, r0, #0x800
        strb    r1, [r2, #UART_ID]            @ GICD_ITARGETSR: the last core
        mov     r1, #1
        str     r1, [r0]
        bx      lr
gicc_init:
        ldr     r0, =GICC
        mov     r1, #0xf0
        str     r1, [r0, #4]                  @ GICC_PMR
        mov     r1, #1
        str     r1, [r0]                      @ GICC_CTLR
        bx      lr

tables: ldr     r0, =L1
        ldr     r1, =0x80011c0e               @ RAM: normal, write-back, shareable, full access
        mov     r2, #16
        add     r3, r0, #(0x800 << 2)
1:      str     r1, [r3], #4
        add     r1, r1, #0x100000
        subs    r2, r2, #1
        bne     1b
        ldr     r1, =0x1c000c16               @ motherboard: device, never executed
        str     r1, [r0, #(0x1c0 << 2)]
        ldr     r1, =0x2c000c16               @ GIC
        str     r1, [r0, #(0x2c0 << 2)]
        ldr     r1, =PAGE_A
        str     r1, [r1]
        ldr     r1, =PAGE_B
        str     r1, [r1]
        bx      lr
mmu_on: ldr     r0, =L1
        mov     r1, #0
        mcr     p15, 0, r1, c2, c0, 2         @ TTBCR
        orr     r1, r0, #0x4a                 @ walks: inner and outer write-back, shareable
        mcr     p15, 0, r1, c2, c0, 0         @ TTBR0
        mov     r1, #1
        mcr     p15, 0, r1, c3, c0, 0         @ DACR: client of domain 0
        mcr     p15, 0, r1, c8, c7, 0         @ TLBIALL
        mcr     p15, 0, r1, c7, c5, 0         @ ICIALLU
        dsb
        isb
        mrc     p15, 0, r1, c1, c0, 1         @ ACTLR.SMP
        orr     r1, r1, #0x40
        mcr     p15, 0, r1, c1, c0, 1
        mrc     p15, 0, r1, c1, c0, 0         @ SCTLR: M, C, Z, I; not A
        orr     r1, r1, #0x1800
        orr     r1, r1, #5
        bic     r1, r1, #2
        mcr     p15, 0, r1, c1, c0, 0
        isb
        bx      lr

uart_init:
        ldr     r0, =UART
        mov     r1, #13
        str     r1, [r0, #0x24]               @ IBRD, FBRD: 115200 of 24 MHz
        mov     r1, #1
        str     r1, [r0, #0x28]
        mov     r1, #0x70
        str     r1, [r0, #0x2c]               @ LCR_H: 8 bits, FIFOs
        mov     r1, #0
        str     r1, [r0, #0x34]               @ IFLS: receive at 1/8
        mov     r1, #0x50
        str     r1, [r0, #0x38]               @ IMSC: receive and timeout
        ldr     r1, =0x301
        str     r1, [r0, #0x30]               @ CR: UART, transmitter, receiver on
        bx      lr

@ ---- small things -----------------------------------------------------------------------------------------------------

        @ r0 = next character; sleeps until there is one.
getc:   cpsid   i
        ldr     r1, [r8, #V_HEAD]
        ldr     r3, [r8, #V_TAIL]
        cmp     r1, r3
        bne     2f
        wfi
        cpsie   i
        isb
        b       getc
2:      and     r1, r3, #255
        add     r1, r1, r8
        ldrb    r0, [r1, #V_RING]
        add     r3, r3, #1
        str     r3, [r8, #V_TAIL]
        cpsie   i
        bx      lr

        @ Prints the text r0 and then the number r1.
value:  push    {r4, lr}
        mov     r4, r1
        bl      puts
        mov     r0, r4
        pop     {r4, lr}
putdec: push    {r4, lr}
        sub     sp, sp, #16
        mov     r4, sp
        mov     r1, #10
1:      udiv    r2, r0, r1
        mls     r3, r2, r1, r0
        add     r3, r3, #'0'
        strb    r3, [r4], #1
        movs    r0, r2
        bne     1b
2:      ldrb    r0, [r4, #-1]!
        bl      putc
        cmp     r4, sp
        bne     2b
        add     sp, sp, #16
        pop     {r4, pc}

        @ Prints the text r0 and then the words of all cores from r5 on.
each:   push    {r4, lr}
        bl      puts
        mov     r4, #0
1:      ldr     r0, =s_space
        ldr     r1, [r5, r4, lsl #2]
        bl      value
        add     r4, r4, #1
        cmp     r4, r10
        blo     1b
        pop     {r4, pc}

puts:   push    {r4, lr}
        mov     r4, r0
1:      ldrb    r0, [r4], #1
        cmp     r0, #0
        popeq   {r4, pc}
        bl      putc
        b       1b

        @ Prints the character r0 (LF as CR LF). Changes r0-r3.
putc:   ldr     r1, =UART
        cmp     r0, #10
        bne     1f
        mov     r3, #13
2:      ldr     r2, [r1, #0x18]
        tst     r2, #0x20                     @ FR.TXFF
        bne     2b
        str     r3, [r1]
1:      ldr     r2, [r1, #0x18]
        tst     r2, #0x20
        bne     1b
        str     r0, [r1]
        bx      lr

        .ltorg
s_hello:  .asciz "Hello from core 0\n"
s_cores:  .asciz "cores "
s_atomic: .asciz " atomic "
s_locked: .asciz " locked "
s_order:  .asciz " order "
s_fails:  .asciz " fails"
s_tokens: .asciz " tokens"
s_cycles: .asciz " cycles"
s_space:  .asciz " "
s_ready:  .asciz "\nREADY\n"
s_key:    .asciz "key "
s_at:     .asciz " at "
s_bye:    .asciz "bye, atomic "
s_panic:  .asciz "\nPANIC "
