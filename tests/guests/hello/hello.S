@ hello: a bare-metal ARMv7-A program for the Versatile Express memory map.
@
@ It switches the MMU on, takes every kind of exception, counts timer interrupts in WFI, talks through the PL011 and powers the board
@ off through the system registers. What it prints holds counter values, so that a replay which is off by one instruction prints
@ something else. It stands in for Linux where no Linux guest can be had, and gives the fast whole-machine tests something to run.
@
@ Commands, one character each on the console:
@   q  power off                     r  reboot
@   b  busy loop with interrupts     w  sleep 100 timer ticks in WFI
@   m  read a device counter often   l  print 200 long lines
@   s  run the self-tests again      x  take a data abort that nobody expects (prints PANIC and stops in WFI)
@   anything else: prints it with the counter
@
@ Build: `cargo xtask hello` (arm-linux-gnueabihf-gcc). Manuals: ARM DDI 0406C, ARM IHI 0048B (GICv2), DDI 0183G (PL011),
@ DUI 0447 (motherboard's system registers).

        .syntax unified
        .arch   armv7-a
        .arch_extension idiv
        .fpu    neon-vfpv4
        .arm

        .equ    SYSREG,   0x1c010000
        .equ    UART,     0x1c090000
        .equ    GICD,     0x2c001000
        .equ    GICC,     0x2c002000
        .equ    L1,       0x80004000          @ 16 KiB, first-level table
        .equ    L2,       0x80008000          @ 1 KiB, one second-level table
        .equ    BSS,      0x80040000          @ variables, cleared at start
        .equ    BSS_END,  0x80041000
        .equ    PAGE,     0x80050000          @ a page to map twice
        .equ    SP_SVC,   0x80100000
        .equ    HOLE,     0x60000000          @ nothing is mapped here
        .equ    ALIAS,    0x90000000          @ where PAGE is mapped again

        .equ    TIMER_ID, 27                  @ virtual timer, PPI
        .equ    UART_ID,  37                  @ UART0, SPI 5

        @ Variables, as offsets from BSS.
        .equ    V_TICKS,  0
        .equ    V_HASH,   4
        .equ    V_HEAD,   8
        .equ    V_TAIL,   12
        .equ    V_SEEN,   16                  @ exceptions that were expected and came
        .equ    V_EXPECT, 20                  @ exception that is expected now, 0 if none
        .equ    V_CHARS,  24
        .equ    V_STEP,   28                  @ timer ticks between two interrupts
        .equ    V_LEFT,   32                  @ interrupts until the timer stops itself
        .equ    V_FSR,    36
        .equ    V_FAR,    40
        .equ    V_LOCK,   44
        .equ    V_RING,   256                 @ 256 bytes of received characters

        .text
        .global _start
_start: cpsid   aif, #19
        ldr     sp, =SP_SVC
        ldr     r0, =BSS
        ldr     r1, =BSS_END
        mov     r2, #0
1:      str     r2, [r0], #4
        cmp     r0, r1
        blo     1b
        ldr     r0, =BSS
        ldr     r1, =0x811c9dc5
        str     r1, [r0, #V_HASH]
        ldr     r0, =vectors
        mcr     p15, 0, r0, c12, c0, 0        @ VBAR
        bl      mmu_on
        mrc     p15, 0, r0, c1, c0, 2         @ CPACR: full access to CP10 and CP11
        orr     r0, r0, #(0xf << 20)
        mcr     p15, 0, r0, c1, c0, 2
        isb
        mov     r0, #(1 << 30)                @ FPEXC.EN
        vmsr    fpexc, r0
        bl      uart_init
        bl      gic_init
        ldr     r0, =s_hello
        bl      puts
        mrc     p15, 0, r0, c0, c0, 0         @ MIDR
        bl      puthex
        bl      newline
        bl      selftest
        cpsie   i

        @ Ten ticks, and some work between them, so that each interrupt falls on another instruction.
        mov     r0, #10
        bl      timer_start
        mov     r5, #0
2:      ldr     r6, =BSS
        ldr     r0, [r6, #V_TICKS]
        cmp     r0, r5
        beq     3f
        mov     r5, r0
        ldr     r0, =s_tick
        bl      puts
        mov     r0, r5
        bl      putdec
        ldr     r0, =s_at
        bl      puts
        bl      counter
        bl      puthex
        bl      newline
        cmp     r5, #10
        bhs     4f
3:      mov     r0, #500
        bl      spin
        bl      wait_irq
        b       2b

4:      ldr     r0, =s_ready
        bl      puts
loop:   bl      getc
        mov     r4, r0
        bl      mix
        cmp     r4, #'q'
        beq     cmd_q
        cmp     r4, #'r'
        beq     cmd_r
        cmp     r4, #'x'
        beq     cmd_x
        adr     lr, loop
        cmp     r4, #'b'
        beq     cmd_b
        cmp     r4, #'w'
        beq     cmd_w
        cmp     r4, #'m'
        beq     cmd_m
        cmp     r4, #'l'
        beq     cmd_l
        cmp     r4, #'s'
        beq     selftest
        cmp     r4, #10
        beq     loop
        cmp     r4, #13
        beq     loop
        @ Echo, with the counter: the guest's own view of when the key came.
        ldr     r0, =s_key
        bl      puts
        mov     r0, r4
        bl      putc
        ldr     r0, =s_at
        bl      puts
        bl      counter
        bl      puthex
        bl      newline
        b       loop

cmd_b:  push    {r4, lr}
        ldr     r0, =s_busy
        bl      puts
        mov     r0, #20
        bl      timer_start
        ldr     r0, =300000
        bl      spin
        bl      mix
        bl      puthex
        bl      newline
        pop     {r4, pc}

cmd_w:  push    {r4, lr}
        ldr     r0, =s_wait
        bl      puts
        mov     r0, #100
        bl      timer_start
1:      bl      wait_irq
        ldr     r0, =BSS
        ldr     r1, [r0, #V_LEFT]
        cmp     r1, #0
        bne     1b
        bl      counter
        bl      puthex
        bl      newline
        pop     {r4, pc}

cmd_m:  push    {r4-r6, lr}
        ldr     r0, =s_mmio
        bl      puts
        ldr     r5, =SYSREG
        ldr     r6, =5000
1:      ldr     r0, [r5, #0x5c]               @ SYS_24MHZ
        bl      mix
        subs    r6, r6, #1
        bne     1b
        ldr     r1, =BSS
        ldr     r0, [r1, #V_HASH]
        bl      puthex
        bl      newline
        pop     {r4-r6, pc}

cmd_l:  push    {r4, lr}
        mov     r4, #0
1:      ldr     r0, =s_line
        bl      puts
        mov     r0, r4
        bl      putdec
        ldr     r0, =s_lorem
        bl      puts
        add     r4, r4, #1
        cmp     r4, #200
        blo     1b
        pop     {r4, pc}

cmd_x:  ldr     r0, =HOLE
        ldr     r0, [r0]                      @ nobody expects this one
        b       loop

cmd_q:  ldr     r0, =s_bye
        bl      report
        mov     r0, #8                        @ shutdown
        b       sys_cfg
cmd_r:  ldr     r0, =s_again
        bl      report
        mov     r0, #9                        @ reboot
sys_cfg:
        ldr     r1, =SYSREG
        mov     r2, #0
        str     r2, [r1, #0xa8]               @ SYS_CFGSTAT
        str     r2, [r1, #0xa0]               @ SYS_CFGDATA
        lsl     r0, r0, #20
        orr     r0, r0, #0xc0000000           @ start, write
        str     r0, [r1, #0xa4]               @ SYS_CFGCTRL
1:      wfi
        b       1b

        @ Prints r0 (a text), then characters, ticks and hash.
report: push    {r4, lr}
        ldr     r4, =BSS
        bl      puts
        ldr     r0, [r4, #V_CHARS]
        bl      putdec
        ldr     r0, =s_ticks
        bl      puts
        ldr     r0, [r4, #V_TICKS]
        bl      putdec
        ldr     r0, =s_hash
        bl      puts
        ldr     r0, [r4, #V_HASH]
        bl      puthex
        bl      newline
        pop     {r4, pc}

@ ---- self-tests: each prints one letter, upper case if it passed ----------------------------------------------------

selftest:
        push    {r4-r8, lr}
        ldr     r8, =BSS
        ldr     r0, =s_self
        bl      puts
        @ SVC: the handler adds one to V_SEEN.
        mov     r0, #1
        bl      expect
        svc     #0x42
        mov     r0, #'s'
        bl      verdict
        @ Undefined instruction, A32 and T32.
        mov     r0, #2
        bl      expect
        udf     #7
        mov     r0, #'u'
        bl      verdict
        mov     r0, #2
        bl      expect
        blx     t_undef
        mov     r0, #'t'
        bl      verdict
        @ Data abort: section translation fault, DFSR 5, DFAR the address.
        mov     r0, #3
        bl      expect
        ldr     r4, =HOLE + 0x124
        ldr     r0, [r4]
        ldr     r1, [r8, #V_FSR]
        ldr     r2, [r8, #V_FAR]
        cmp     r1, #5
        cmpeq   r2, r4
        mov     r0, #'d'
        bl      verdict_if
        @ A store there: the same with WnR.
        mov     r0, #3
        bl      expect
        str     r0, [r4, #4]
        ldr     r1, [r8, #V_FSR]
        ldr     r2, [r8, #V_FAR]
        add     r3, r4, #4
        ldr     r5, =0x805
        cmp     r1, r5
        cmpeq   r2, r3
        mov     r0, #'w'
        bl      verdict_if
        @ Unaligned LDR works, unaligned LDRD does not (DFSR 1).
        ldr     r4, =PAGE
        ldr     r0, =0x44332211
        ldr     r1, =0x88776655
        stm     r4, {r0, r1}
        ldr     r2, [r4, #1]
        ldr     r3, =0x55443322
        cmp     r2, r3
        mov     r0, #'l'
        bl      verdict_now
        mov     r0, #3
        bl      expect
        add     r1, r4, #2
        ldrd    r2, r3, [r1]
        ldr     r1, [r8, #V_FSR]
        cmp     r1, #1
        mov     r0, #'a'
        bl      verdict_if
        @ The same page through a second mapping of 4 KiB.
        ldr     r5, =ALIAS
        ldr     r0, [r5, #4]
        ldr     r1, =0x88776655
        cmp     r0, r1
        mov     r0, #'m'
        bl      verdict_now
        @ The page after it is read-only: permission fault on a page, DFSR 0x80f.
        mov     r0, #3
        bl      expect
        add     r5, r5, #4096
        ldr     r1, [r5]
        str     r1, [r5]
        ldr     r1, [r8, #V_FSR]
        ldr     r2, =0x80f
        cmp     r1, r2
        mov     r0, #'p'
        bl      verdict_if
        @ Prefetch abort: a jump to where nothing is.
        mov     r0, #4
        bl      expect
        ldr     r4, =HOLE
        blx     r4
        ldr     r1, [r8, #V_FSR]
        cmp     r1, #5
        mov     r0, #'i'
        bl      verdict_if
        @ Exclusives.
        add     r4, r8, #V_LOCK
        mov     r1, #77
        ldrex   r0, [r4]
        strex   r2, r1, [r4]
        strex   r3, r0, [r4]
        ldr     r5, [r4]
        cmp     r2, #0
        cmpeq   r3, #1
        cmpeq   r5, #77
        mov     r0, #'x'
        bl      verdict_now
        @ Division, long multiply, saturation.
        ldr     r0, =1000003
        mov     r1, #997
        udiv    r2, r0, r1
        mls     r3, r2, r1, r0
        umull   r4, r5, r0, r0
        mov     r6, #0x7fffffff
        qadd    r6, r6, r0
        movw    r12, #1003
        cmp     r2, r12
        cmpeq   r3, #12
        cmpeq   r5, #232
        mvneq   r6, r6
        cmpeq   r6, #0x80000000
        mov     r0, #'n'
        bl      verdict_now
        @ VFP: sqrt(2) in double precision; NEON: a dot product.
        vmov.f64 d0, #2.0
        vsqrt.f64 d1, d0
        vmov    r0, r1, d1
        ldr     r2, =0x667f3bcd
        ldr     r3, =0x3ff6a09e
        cmp     r0, r2
        cmpeq   r1, r3
        mov     r0, #'f'
        bl      verdict_now
        vmov.i32 q8, #3
        vmov.i32 q9, #5
        vmul.i32 q10, q8, q9
        vpadd.i32 d20, d20, d21
        vpadd.i32 d20, d20, d20
        vmov.32 r0, d20[0]
        cmp     r0, #60
        mov     r0, #'v'
        bl      verdict_now
        @ Thumb-2 with an IT block and a table branch.
        mov     r0, #2
        blx     t_code
        cmp     r0, #30
        mov     r0, #'k'
        bl      verdict_now
        bl      newline
        pop     {r4-r8, pc}

        @ Says that exception r0 is expected.
expect: ldr     r1, =BSS
        str     r0, [r1, #V_EXPECT]
        mov     r0, #0
        str     r0, [r1, #V_SEEN]
        bx      lr
        @ Prints r0, upper case if the flags say equal and the expected exception came once.
verdict_if:
        bne     1f
verdict:
        ldr     r1, =BSS
        ldr     r2, [r1, #V_SEEN]
        mov     r3, #0
        str     r3, [r1, #V_EXPECT]
        cmp     r2, #1
        @ Prints r0, upper case if the flags say equal.
verdict_now:
        subeq   r0, r0, #32
1:      b       putc

        .thumb
        .thumb_func
t_undef:
        udf     #9
        bx      lr
        .balign 4
        .thumb_func
t_code: tbb     [pc, r0]
5:      .byte   (6f - 5b) / 2, (7f - 5b) / 2, (8f - 5b) / 2, 0
6:      movs    r0, #10
        bx      lr
7:      movs    r0, #20
        bx      lr
8:      cmp     r0, #2
        itte    eq
        moveq   r0, #30
        addeq.w r0, r0, #0
        movne   r0, #0
        bx      lr
        .balign 4
        .arm

@ ---- exceptions -------------------------------------------------------------------------------------------------------

        .balign 32
vectors:
        b       panic_any
        b       v_undef
        b       v_svc
        b       v_pabt
        b       v_dabt
        b       panic_any
        b       v_irq
        b       panic_any

v_svc:  push    {r0-r3, r12, lr}
        mov     r0, #1
        bl      seen
        ldm     sp!, {r0-r3, r12, pc}^
        @ The others have stacks of their own only for as long as SRS needs: they store the return state on the SVC stack.
v_undef:
        srsdb   sp!, #19
        cps     #19
        push    {r0-r3, r12, lr}
        mov     r0, #2
        bl      seen
        pop     {r0-r3, r12, lr}
        rfeia   sp!
v_pabt: sub     lr, lr, #4
        srsdb   sp!, #19
        cps     #19
        push    {r0-r3, r12, lr}
        mrc     p15, 0, r1, c5, c0, 1         @ IFSR
        ldr     r2, =BSS
        str     r1, [r2, #V_FSR]
        mov     r0, #4
        bl      seen
        pop     {r0-r3, r12, lr}
        str     lr, [sp]                      @ go back to the caller, not to the hole
        rfeia   sp!
v_dabt: sub     lr, lr, #4                    @ the instruction after the one that faulted
        srsdb   sp!, #19
        cps     #19
        push    {r0-r3, r12, lr}
        mrc     p15, 0, r1, c5, c0, 0         @ DFSR
        mrc     p15, 0, r3, c6, c0, 0         @ DFAR
        ldr     r2, =BSS
        str     r1, [r2, #V_FSR]
        str     r3, [r2, #V_FAR]
        mov     r0, #3
        bl      seen
        pop     {r0-r3, r12, lr}
        rfeia   sp!

        @ Exception r0 came: counts it if it was expected.
seen:   ldr     r2, =BSS
        ldr     r1, [r2, #V_EXPECT]
        cmp     r0, r1
        bne     panic
        ldr     r1, [r2, #V_SEEN]
        add     r1, r1, #1
        str     r1, [r2, #V_SEEN]
        bx      lr

panic_any:
        cps     #19
        mov     r0, #9
panic:  cpsid   aif
        mov     r4, r0
        ldr     r0, =s_panic
        bl      puts
        mov     r0, r4
        bl      putdec
        bl      newline
1:      wfi
        b       1b

v_irq:  sub     lr, lr, #4
        srsdb   sp!, #19
        cps     #19
        push    {r0-r5, r12, lr}
        ldr     r4, =GICC
        ldr     r5, [r4, #0x0c]               @ GICC_IAR
        ubfx    r0, r5, #0, #10
        cmp     r0, #TIMER_ID
        bleq    irq_timer
        ubfx    r0, r5, #0, #10
        cmp     r0, #UART_ID
        bleq    irq_uart
        str     r5, [r4, #0x10]               @ GICC_EOIR
        pop     {r0-r5, r12, lr}
        rfeia   sp!

irq_timer:
        ldr     r2, =BSS
        ldr     r0, [r2, #V_TICKS]
        add     r0, r0, #1
        str     r0, [r2, #V_TICKS]
        ldr     r0, [r2, #V_LEFT]
        subs    r0, r0, #1
        str     r0, [r2, #V_LEFT]
        bne     timer_next
        mov     r1, #0
        mcr     p15, 0, r1, c14, c3, 1        @ CNTV_CTL = 0: the timer sleeps until the next command
        isb
        bx      lr

irq_uart:
        ldr     r0, =UART
        ldr     r1, =BSS
        mov     r2, #0x50
        str     r2, [r0, #0x44]               @ ICR: receive and timeout; before the FIFO is read, so that none is lost
1:      ldr     r2, [r0, #0x18]               @ FR.RXFE
        tst     r2, #0x10
        bxne    lr
        ldr     r2, [r0, #0]                  @ DR
        ldr     r3, [r1, #V_HEAD]
        and     r12, r3, #255
        add     r12, r12, r1
        strb    r2, [r12, #V_RING]
        add     r3, r3, #1
        str     r3, [r1, #V_HEAD]
        b       1b

@ ---- timer, interrupt controller, MMU, UART --------------------------------------------------------------------------

        @ Starts the timer for r0 interrupts, the first one step from now.
timer_start:
        ldr     r2, =BSS
        str     r0, [r2, #V_LEFT]
        mrrc    p15, 1, r0, r1, c14           @ CNTVCT
        ldr     r3, [r2, #V_STEP]
        adds    r0, r0, r3
        adc     r1, r1, #0
        mcrr    p15, 3, r0, r1, c14           @ CNTV_CVAL
        mov     r0, #1
        mcr     p15, 0, r0, c14, c3, 1        @ CNTV_CTL.ENABLE
        isb
        bx      lr
        @ Moves the compare value on by one step.
timer_next:
        mrrc    p15, 3, r0, r1, c14
        ldr     r3, [r2, #V_STEP]
        adds    r0, r0, r3
        adc     r1, r1, #0
        mcrr    p15, 3, r0, r1, c14
        isb
        bx      lr
        @ r0 = low word of the counter.
counter:
        isb
        mrrc    p15, 1, r0, r1, c14
        bx      lr

gic_init:
        ldr     r0, =GICD
        mov     r1, #0
        str     r1, [r0]                      @ GICD_CTLR
        mov     r1, #(1 << TIMER_ID)
        str     r1, [r0, #0x100]              @ GICD_ISENABLER0
        mov     r1, #(1 << (UART_ID - 32))
        str     r1, [r0, #0x104]
        mov     r1, #0x80
        strb    r1, [r0, #(0x400 + TIMER_ID)] @ GICD_IPRIORITYR
        strb    r1, [r0, #(0x400 + UART_ID)]
        mov     r1, #1
        add     r2, r0, #0x800
        strb    r1, [r2, #UART_ID]            @ GICD_ITARGETSR: this core
        str     r1, [r0]
        ldr     r0, =GICC
        mov     r1, #0xf0
        str     r1, [r0, #4]                  @ GICC_PMR
        mov     r1, #1
        str     r1, [r0]                      @ GICC_CTLR
        mrc     p15, 0, r0, c14, c0, 0        @ CNTFRQ; 100 interrupts a second
        mov     r1, #100
        udiv    r0, r0, r1
        cmp     r0, #0
        ldreq   r0, =240000                   @ nobody set it
        ldr     r1, =BSS
        str     r0, [r1, #V_STEP]
        bx      lr

mmu_on: ldr     r0, =L1
        mov     r1, #0
        mov     r2, #4096
1:      str     r1, [r0], #4                  @ nothing mapped
        subs    r2, r2, #1
        bne     1b
        ldr     r0, =L1
        ldr     r1, =0x80011c0e               @ RAM: normal, write-back, shareable, full access
        mov     r2, #16
        add     r3, r0, #(0x800 << 2)
2:      str     r1, [r3], #4
        add     r1, r1, #0x100000
        subs    r2, r2, #1
        bne     2b
        ldr     r1, =0x1c000c16               @ motherboard: device, never executed
        str     r1, [r0, #(0x1c0 << 2)]
        ldr     r1, =0x2c000c16               @ GIC
        str     r1, [r0, #(0x2c0 << 2)]
        ldr     r1, =L2 + 1                   @ ALIAS: second-level table
        add     r3, r0, #(0x900 << 2)
        str     r1, [r3]
        ldr     r3, =L2
        mov     r1, #0
        mov     r2, #256
3:      str     r1, [r3], #4
        subs    r2, r2, #1
        bne     3b
        ldr     r3, =L2
        ldr     r1, =PAGE + 0x47e             @ small page, full access
        str     r1, [r3]
        ldr     r1, =PAGE + 0x65e             @ the same, read-only for all but user: AP = 101
        str     r1, [r3, #4]
        dsb
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
        mrc     p15, 0, r1, c1, c0, 0         @ SCTLR: M, C, Z, I; not A
        orr     r1, r1, #0x1800
        orr     r1, r1, #5
        bic     r1, r1, #2
        mcr     p15, 0, r1, c1, c0, 0
        isb
        bx      lr

uart_init:
        ldr     r0, =UART
        mov     r1, #0
        str     r1, [r0, #0x30]               @ CR: off
        mov     r1, #13
        str     r1, [r0, #0x24]               @ IBRD, FBRD: 115200 of 24 MHz
        mov     r1, #1
        str     r1, [r0, #0x28]
        mov     r1, #0x70
        str     r1, [r0, #0x2c]               @ LCR_H: 8 bits, FIFOs
        mov     r1, #0
        str     r1, [r0, #0x34]               @ IFLS: receive at 1/8
        ldr     r1, =0x7ff
        str     r1, [r0, #0x44]               @ ICR
        mov     r1, #0x50
        str     r1, [r0, #0x38]               @ IMSC: receive and timeout
        ldr     r1, =0x301
        str     r1, [r0, #0x30]               @ CR: UART, transmitter, receiver on
        b       irq_uart                      @ take what came before the interrupt was on

@ ---- small things -----------------------------------------------------------------------------------------------------

        @ Sleeps until an interrupt, unless the timer has stopped already.
wait_irq:
        cpsid   i
        ldr     r0, =BSS
        ldr     r1, [r0, #V_LEFT]
        cmp     r1, #0
        beq     1f
        wfi
1:      cpsie   i
        isb
        bx      lr

        @ r0 = next character; sleeps until there is one.
getc:   ldr     r2, =BSS
1:      cpsid   i
        ldr     r1, [r2, #V_HEAD]
        ldr     r3, [r2, #V_TAIL]
        cmp     r1, r3
        bne     2f
        wfi
        cpsie   i
        isb
        b       1b
2:      and     r1, r3, #255
        add     r1, r1, r2
        ldrb    r0, [r1, #V_RING]
        add     r3, r3, #1
        str     r3, [r2, #V_TAIL]
        ldr     r1, [r2, #V_CHARS]
        add     r1, r1, #1
        str     r1, [r2, #V_CHARS]
        cpsie   i
        bx      lr

        @ Works r0 rounds; r0 = a checksum.
spin:   mov     r1, #1
        mov     r3, r0
1:      eor     r1, r1, r1, lsl #13
        eor     r1, r1, r1, lsr #17
        eor     r1, r1, r1, lsl #5
        add     r1, r1, r3
        subs    r3, r3, #1
        bne     1b
        mov     r0, r1
        bx      lr

        @ Mixes r0 into the hash; keeps r0.
mix:    ldr     r1, =BSS
        ldr     r2, [r1, #V_HASH]
        eor     r2, r2, r0
        ldr     r3, =16777619
        mul     r2, r2, r3
        str     r2, [r1, #V_HASH]
        bx      lr

newline:
        mov     r0, #10
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

puts:   push    {r4, lr}
        mov     r4, r0
1:      ldrb    r0, [r4], #1
        cmp     r0, #0
        popeq   {r4, pc}
        bl      putc
        b       1b

puthex: push    {r4, r5, lr}
        mov     r4, r0
        mov     r5, #28
1:      lsr     r0, r4, r5
        and     r0, r0, #15
        cmp     r0, #10
        addlo   r0, r0, #'0'
        addhs   r0, r0, #('a' - 10)
        bl      putc
        subs    r5, r5, #4
        bpl     1b
        pop     {r4, r5, pc}

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

        .ltorg
s_hello: .asciz "Hello from the bare metal, MIDR "
s_self:  .asciz "self-tests (upper case passed): "
s_tick:  .asciz "tick "
s_at:    .asciz " at "
s_ready: .asciz "READY: q quits\n"
s_key:   .asciz "key "
s_busy:  .asciz "busy "
s_wait:  .asciz "slept until "
s_mmio:  .asciz "counter hash "
s_line:  .asciz "line "
s_lorem: .asciz ": sphinx of black quartz, judge my vow 0123456789 ABCDEFGHIJKLMNOP\n"
s_bye:   .asciz "bye, chars "
s_again: .asciz "again, chars "
s_ticks: .asciz " ticks "
s_hash:  .asciz " hash "
s_panic: .asciz "PANIC "
         .balign 4
