//! What the engine promises: exact stops, exact positions, precise exceptions, and code that changes under its feet.

mod support;

use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::psr::Mode;
use support::{CODE, DATA, HOLE, MMIO, MMIO_EXIT, Machine, RAM};

/// `b .`
const HANG: u32 = 0xeaff_fffe;

#[test]
fn a_budget_is_exact() {
    // add r0, r0, #1 ; add r1, r1, #2 ; b .-8
    let mut m = Machine::new(&[0xe280_0001, 0xe281_1002, 0xeaff_fffc]);
    assert_eq!(m.run(10), StopReason::Budget);
    assert_eq!((m.cpu.icount, m.cpu.regs[0], m.cpu.regs[1], m.cpu.regs[15]), (10, 4, 6, CODE + 4));
    assert_eq!(m.run(0), StopReason::Budget);
    assert_eq!(m.cpu.icount, 10);
}

#[test]
fn a_budget_may_be_without_end() {
    // nop ; wfi
    let mut m = Machine::new(&[0xe320_f000, 0xe320_f003]);
    assert_eq!(m.run(u64::MAX), StopReason::Wait);
    assert_eq!(m.cpu.icount, 2);
}

#[test]
fn mmio_begins_an_epoch_at_its_instruction() {
    // nop ; ldr r1, [r0, #4] ; nop ; str r1, [r0, #8] ; b .
    let mut m = Machine::new(&[0xe320_f000, 0xe590_1004, 0xe320_f000, 0xe580_1008, HANG]);
    m.cpu.regs[0] = MMIO;
    m.run(10);
    let page = u64::from(MMIO);
    assert_eq!(m.bus.log, [(1, CODE + 4, page + 4, None), (3, CODE + 12, page + 8, Some(0x104))]);
    assert_eq!((m.cpu.epoch, m.cpu.epoch_start, m.cpu.pos().count), (2, 4, 6));
}

#[test]
fn an_access_that_asks_leaves_right_after_its_instruction() {
    // ldr r1, [r0], #4 ; mov r0, #0 ; b .
    let mut m = Machine::new(&[0xe490_1004, 0xe3a0_0000, HANG]);
    m.cpu.regs[0] = MMIO + MMIO_EXIT;
    assert_eq!(m.run(100), StopReason::Exit);
    assert_eq!((m.cpu.icount, m.cpu.regs[15], m.cpu.regs[0]), (1, CODE + 4, MMIO + MMIO_EXIT + 4));
    assert_eq!((m.cpu.epoch, m.cpu.epoch_start), (1, 1));
    assert_eq!(m.run(5), StopReason::Budget);
    assert_eq!((m.cpu.icount, m.cpu.regs[0]), (6, 0));
}

#[test]
fn a_call_of_the_firmware_retires_and_leaves() {
    use reprise_arm::psci::Conduit;
    // add r1, r1, #1 ; hvc #0 or smc #0 ; add r1, r1, #1 ; b .
    for (word, by) in [(0xe140_0070, Conduit::Hvc), (0xe160_0070, Conduit::Smc)] {
        let mut m = Machine::new(&[0xe281_1001, word, 0xe281_1001, HANG]);
        m.cpu.firmware = Some(by);
        // Also where the budget ends with it.
        assert_eq!(m.run(if by == Conduit::Hvc { 100 } else { 2 }), StopReason::Exit, "{by:?}");
        assert_eq!((m.cpu.icount, m.cpu.regs[15], m.cpu.regs[1]), (2, CODE + 8, 1), "{by:?}");
        assert_eq!((m.cpu.epoch, m.cpu.mode, m.cpu.called), (0, Mode::Svc, true), "{by:?}");
        m.cpu.called = false;
        assert_eq!(m.run(3), StopReason::Budget);
        assert_eq!((m.cpu.regs[1], m.cpu.called), (2, false));
    }
    // The other instruction does what it does without firmware, and User mode can't call.
    let mut m = Machine::new(&[0xe140_0070]);
    m.cpu.firmware = Some(Conduit::Smc);
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.called), (Mode::Und, false));
    let mut m = Machine::new(&[0xe160_0070]);
    m.cpu.firmware = Some(Conduit::Hvc);
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.called), (Mode::Mon, false));
    for (word, by) in [(0xe140_0070, Conduit::Hvc), (0xe160_0070, Conduit::Smc)] {
        let mut m = Machine::new(&[word]);
        m.cpu.firmware = Some(by);
        m.cpu.set_mode(Mode::Usr);
        m.run(1);
        assert_eq!((m.cpu.mode, m.cpu.called), (Mode::Und, false), "{by:?}");
    }
}

#[test]
fn a_core_without_security_has_no_monitor() {
    let mut m = Machine::new(&[0xe160_0070]);
    m.cpu = reprise_arm::state::Cpu::new(m.cpu.model.clone().without_security());
    m.cpu.regs[15] = CODE;
    m.cpu.cp15.vbar = [RAM + 0x10_0000 - 0x1000; 2];
    assert!(!m.cpu.is_secure());
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Und, "SMC");
    m.cpu.write_cpsr(0x1d6, 3, false);
    assert_eq!(m.cpu.mode, Mode::Und, "Monitor mode is reserved");
    m.cpu.write_cpsr(0x13, 3, false);
    m.cpu.write_cpsr(0x1d3, 3, false);
    assert!(m.cpu.a && m.cpu.i && m.cpu.f, "it masks what it likes");
}

#[test]
fn a_load_of_the_pc_from_a_device_leaves_after_the_jump() {
    // ldr pc, [r0]
    let mut m = Machine::new(&[0xe590_f000]);
    m.cpu.regs[0] = MMIO + MMIO_EXIT;
    assert_eq!(m.run(100), StopReason::Exit);
    assert_eq!((m.cpu.icount, m.cpu.regs[15]), (1, MMIO_EXIT + 0x100));
}

#[test]
fn an_aborting_instruction_neither_retires_nor_begins_an_epoch() {
    // add r2, r2, #1 ; ldr r1, [r0, #4]!
    let mut m = Machine::new(&[0xe282_2001, 0xe5b0_1004]);
    m.cpu.regs[0] = HOLE;
    m.run(1);
    let before = m.cpu.cpsr();
    assert_eq!(m.run(0), StopReason::Budget);
    // One step takes the abort and runs the first instruction of the vector, a zero word (andeq).
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Abt);
    assert_eq!((m.cpu.icount, m.cpu.epoch, m.cpu.regs[0]), (2, 0, HOLE));
    assert_eq!(m.cpu.regs[14], CODE + 4 + 8);
    assert_eq!(m.cpu.spsr(), before);
    assert_eq!(m.cpu.cp15.dfar[0], HOLE + 4);
    assert_eq!(m.cpu.cp15.dfsr[0] & 0x40f, 0x008, "synchronous external abort");
}

#[test]
fn a_multiple_load_into_an_unmapped_page_changes_nothing() {
    // ldmia r0!, {r1, r2, r3}
    let mut m = Machine::new(&[0xe8b0_000e]);
    let end = RAM + (8 << 20);
    m.cpu.regs[0] = end - 4;
    m.cpu.regs[1] = 77;
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Abt);
    assert_eq!((m.cpu.regs[0], m.cpu.regs[1]), (end - 4, 77));
    assert_eq!(m.cpu.cp15.dfar[0], end, "the address of the part that failed");
    assert_eq!(m.cpu.cp15.dfsr[0] & 0xf, 5, "translation fault of a section");
}

#[test]
fn a_multiple_store_probes_both_pages_first() {
    // stmia r0, {r1, r2}
    let mut m = Machine::new(&[0xe880_0006]);
    let end = RAM + (8 << 20);
    m.write32(end - 4, 5);
    (m.cpu.regs[0], m.cpu.regs[1], m.cpu.regs[2]) = (end - 4, 1, 2);
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Abt);
    assert_eq!(m.read32(end - 4), 5);
    assert_eq!(m.cpu.cp15.dfsr[0] & 0x80f, 0x805, "a write");
}

#[test]
fn unaligned_words_may_cross_pages_but_not_multiples() {
    // ldr r1, [r0] ; ldmia r0, {r2, r3}
    let mut m = Machine::new(&[0xe590_1000, 0xe890_000c]);
    let at = DATA + 0xffe;
    m.write32(DATA + 0xffc, 0x4433_2211);
    m.write32(DATA + 0x1000, 0x8877_6655);
    m.cpu.regs[0] = at;
    m.run(1);
    assert_eq!(m.cpu.regs[1], 0x6655_4433);
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.cp15.dfar[0], m.cpu.cp15.dfsr[0] & 0x40f), (Mode::Abt, at, 1));
}

#[test]
fn unaligned_accesses_fault_while_the_mmu_is_off() {
    // ldr r1, [r0]
    let mut m = Machine::flat(&[0xe590_1000]);
    m.cpu.cp15.vbar = [RAM; 2];
    m.cpu.regs[0] = DATA + 1;
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.cp15.dfsr[0] & 0x40f), (Mode::Abt, 1));
}

#[test]
fn code_that_rewrites_the_next_instruction_runs_the_new_one() {
    // str r1, [r0] ; mov r2, #1 (rewritten to mov r2, #2) ; b .
    let mut m = Machine::new(&[0xe580_1000, 0xe3a0_2001, HANG]);
    m.cpu.regs[0] = CODE + 4;
    m.cpu.regs[1] = 0xe3a0_2002;
    m.run(3);
    assert_eq!((m.cpu.regs[2], m.cpu.icount), (2, 3));
}

#[test]
fn data_beside_code_does_not_throw_the_code_away() {
    // loop: str r1, [r0] ; add r1, r1, #1 ; b loop
    let mut m = Machine::new(&[0xe580_1000, 0xe281_1001, 0xeaff_fffc]);
    m.cpu.regs[0] = CODE + 0x400;
    m.run(300);
    let made = m.engine.blocks_made();
    assert!(made <= 4, "{made} blocks");
    assert_eq!(m.read32(CODE + 0x400), 99);
    // After many such stores the page is given up once, made anew, and the result stays right.
    m.run(3000);
    assert_eq!(m.read32(CODE + 0x400), 1099);
}

#[test]
fn patched_loops_always_run_what_is_in_memory() {
    // loop: add r2, r2, #k (k counts up) ; ldr r3, [r0] ; add r3, r3, #1 ; str r3, [r0] ; b loop
    let mut m = Machine::new(&[0xe282_2000, 0xe590_3000, 0xe283_3001, 0xe580_3000, 0xeaff_fffa]);
    m.cpu.regs[0] = CODE;
    m.run(5 * 100);
    assert_eq!(m.cpu.regs[2], (0..100).sum::<u32>());
}

#[test]
fn an_abort_inside_an_it_block_saves_the_it_state() {
    // cmp r0, r0 ; itte eq ; addeq r1, #1 ; ldreq r2, [r3] ; addne r4, #1
    let mut m = Machine::thumb(&[0x4280, 0xbf06, 0x3101, 0x681a, 0x3401]);
    m.cpu.regs[3] = HOLE;
    m.run(3);
    assert_eq!(m.cpu.regs[1], 1);
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Abt);
    let spsr = m.cpu.spsr();
    let it = spsr >> 25 & 3 | (spsr >> 10 & 0x3f) << 2;
    // `itte eq` is firstcond 0000, mask 0110; after one step of ITAdvance 0000:1100.
    assert_eq!((it, m.cpu.it, m.cpu.icount), (0x0c, 0, 4));
    assert_eq!(m.cpu.regs[14], CODE + 6 + 8);
}

#[test]
fn stops_inside_an_it_block_resume_in_it() {
    // cmp r0, #1 ; ite eq ; moveq r1, #1 ; movne r1, #2 ; b .
    let program = [0x2801, 0xbf0c, 0x2101, 0x2102, 0xe7fe];
    for first in 0..5 {
        let mut m = Machine::thumb(&program);
        m.run(first);
        m.run(5 - first);
        assert_eq!((m.cpu.regs[1], m.cpu.it, m.cpu.icount), (2, 0, 5), "stopped after {first}");
    }
}

#[test]
fn svc_retires_then_enters() {
    // svc #1 in an IT block, not last: itt al-like eq
    let mut m = Machine::thumb(&[0x4280, 0xbf04, 0xdf01, 0x3101]);
    m.run(3);
    assert_eq!((m.cpu.mode, m.cpu.icount, m.cpu.regs[14]), (Mode::Svc, 3, CODE + 6));
    let spsr = m.cpu.banked.spsr[Mode::Svc.bank()];
    assert_eq!(spsr >> 25 & 3 | (spsr >> 10 & 0x3f) << 2, 0x08, "IT goes on at the next instruction");
}

#[test]
fn undefined_and_breakpoints_do_not_retire() {
    for (word, mode, lr) in [(0xe7f0_00f0, Mode::Und, 4), (0xe120_0070, Mode::Abt, 4)] {
        let mut m = Machine::new(&[word]);
        m.run(1);
        assert_eq!((m.cpu.mode, m.cpu.icount, m.cpu.regs[14]), (mode, 1, CODE + lr), "{word:#x}");
    }
}

#[test]
fn unknown_encodings_are_named_once() {
    let mut m = Machine::new(&[0xe7f0_0030, HANG]);
    // The vector is a loop back to the program: ldr-free, so jump there by hand.
    for _ in 0..3 {
        m.cpu.regs[15] = CODE;
        m.run(1);
    }
    assert_eq!(m.cpu.undef_notes.len(), 1);
    assert_eq!((m.cpu.undef_notes[0].pc, m.cpu.undef_notes[0].opcode), (CODE, 0xe7f0_0030));
}

#[test]
fn wfi_retires_and_waits_until_a_line_rises_masked_or_not() {
    // wfi ; mov r0, #1 ; b .
    let mut m = Machine::new(&[0xe320_f003, 0xe3a0_0001, HANG]);
    assert_eq!(m.run(10), StopReason::Wait);
    assert_eq!((m.cpu.icount, m.cpu.regs[15]), (1, CODE + 4));
    assert_eq!(m.run(10), StopReason::Wait);
    assert_eq!(m.cpu.icount, 1);
    m.bus.irq = true;
    assert_eq!(m.run(3), StopReason::Budget);
    assert_eq!((m.cpu.regs[0], m.cpu.icount, m.cpu.mode), (1, 4, Mode::Svc));
}

#[test]
fn wfe_takes_the_event_and_never_waits() {
    // sev ; wfe ; wfe
    let mut m = Machine::new(&[0xe320_f004, 0xe320_f002, 0xe320_f002, HANG]);
    m.run(1);
    assert!(m.cpu.event);
    m.run(1);
    assert!(!m.cpu.event);
    assert_eq!(m.run(3), StopReason::Budget);
    assert_eq!((m.cpu.icount, m.cpu.waiting), (5, false));
}

#[test]
fn wfe_without_an_event_ends_the_turn_where_cores_share_the_machine() {
    // sev ; wfe ; wfe ; mov r0, #1
    let mut m = Machine::new(&[0xe320_f004, 0xe320_f002, 0xe320_f002, 0xe3a0_0001, HANG]);
    m.cpu.shares = true;
    assert_eq!(m.run(10), StopReason::Exit);
    assert_eq!((m.cpu.icount, m.cpu.regs[15], m.cpu.waiting), (3, CODE + 12, false));
    assert!(m.cpu.take_yield() && m.cpu.sev);
    assert_eq!(m.run(2), StopReason::Budget);
    assert!(!m.cpu.take_yield());
    assert_eq!((m.cpu.icount, m.cpu.regs[0]), (5, 1));
}

#[test]
fn interrupts_are_taken_on_entry_and_when_unmasked() {
    // nop ; cpsie i ; mov r0, #1
    let mut m = Machine::new(&[0xe320_f000, 0xf108_0080, 0xe3a0_0001, HANG]);
    m.bus.irq = true;
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Svc);
    m.run(1);
    // Unmasked: the interrupt goes before the next instruction, at the next look at the latest.
    m.run(0);
    assert_eq!((m.cpu.mode, m.cpu.icount, m.cpu.regs[14]), (Mode::Irq, 2, CODE + 8 + 4));
    let mut m = Machine::new(&[0xe320_f000, 0xf108_0080, 0xe3a0_0001, HANG]);
    m.bus.irq = true;
    m.run(3);
    assert_eq!((m.cpu.mode, m.cpu.icount, m.cpu.regs[14], m.cpu.regs[0]), (Mode::Irq, 3, CODE + 8 + 4, 0));
}

#[test]
fn exclusives_pass_once_and_only_where_they_were_loaded() {
    // ldrex r1, [r0] ; strex r2, r3, [r0] ; strex r4, r3, [r0] ; ldrex r1, [r0] ; strex r5, r3, [r6]
    let mut m = Machine::new(&[0xe190_1f9f, 0xe180_2f93, 0xe180_4f93, 0xe190_1f9f, 0xe186_5f93, HANG]);
    (m.cpu.regs[0], m.cpu.regs[3], m.cpu.regs[6]) = (DATA, 9, DATA + 8);
    m.run(5);
    assert_eq!([m.cpu.regs[2], m.cpu.regs[4], m.cpu.regs[5]], [0, 1, 1]);
    assert_eq!((m.read32(DATA), m.read32(DATA + 8)), (9, 0));
}

#[test]
fn exclusives_see_one_address_through_slow_and_fast_paths() {
    // The store goes through the slow path because its page holds code; the load through the fast one.
    let mut m = Machine::new(&[0xe190_1f9f, 0xe180_2f93, HANG]);
    (m.cpu.regs[0], m.cpu.regs[3]) = (CODE + 0x800, 9);
    m.run(2);
    assert_eq!((m.cpu.regs[2], m.read32(CODE + 0x800)), (0, 9));
}

#[test]
fn wide_thumb_instructions_may_cross_a_page() {
    let mut m = Machine::thumb(&[]);
    // movw r0, #0xabcd at the last halfword of a page, then b .
    for (at, h) in [(0xffe, 0xf64a_u16), (0x1000, 0x30cd), (0x1002, 0xe7fe)] {
        m.ram.write(u64::from(CODE) + at, &h.to_le_bytes()).expect("in RAM");
    }
    m.cpu.regs[15] = CODE + 0xffe;
    m.run(2);
    assert_eq!((m.cpu.regs[0], m.cpu.regs[15], m.cpu.icount), (0xabcd, CODE + 0x1002, 2));
    // The second half changes: the new one runs.
    m.ram.write(u64::from(CODE) + 0x1000, &0x30ceu16.to_le_bytes()).expect("in RAM");
    m.engine = reprise_interp::Interp::new();
    m.cpu.regs[15] = CODE + 0xffe;
    m.run(1);
    assert_eq!(m.cpu.regs[0], 0xabce);
}

#[test]
fn big_endian_data_is_swapped() {
    // setend be ; ldr r1, [r0] ; ldrh r2, [r0] ; ldmia r0, {r3, r4} ; stmia r5, {r3, r4} ; strh r2, [r5, #8] ; setend le
    let mut m = Machine::new(&[
        0xf101_0200,
        0xe590_1000,
        0xe1d0_20b0,
        0xe890_0018,
        0xe885_0018,
        0xe1c5_20b8,
        0xf101_0000,
        HANG,
    ]);
    m.write32(DATA, 0x1122_3344);
    m.write32(DATA + 4, 0x5566_7788);
    (m.cpu.regs[0], m.cpu.regs[5]) = (DATA, DATA + 0x100);
    m.run(7);
    assert_eq!(m.cpu.regs[1..5], [0x4433_2211, 0x4433, 0x4433_2211, 0x8877_6655]);
    assert_eq!(
        (m.read32(DATA + 0x100), m.read32(DATA + 0x104), m.read32(DATA + 0x108)),
        (0x1122_3344, 0x5566_7788, 0x3344)
    );
    assert!(!m.cpu.e);
}

#[test]
fn exception_returns_restore_the_mode() {
    // movs pc, lr in Svc mode, to User Thumb code: movs r0, #5 ; b .
    let mut m = Machine::new(&[0xe1b0_f00e]);
    m.ram.write(u64::from(CODE) + 0x100, &[0x05, 0x20, 0xfe, 0xe7]).expect("in RAM");
    m.cpu.regs[14] = CODE + 0x100;
    m.cpu.set_spsr(0x30);
    m.run(3);
    assert_eq!((m.cpu.mode, m.cpu.t, m.cpu.regs[0], m.cpu.regs[15]), (Mode::Usr, true, 5, CODE + 0x102));
}

#[test]
fn ldm_of_user_registers_reaches_the_user_bank() {
    // ldmia r0, {r13, r14}^
    let mut m = Machine::new(&[0xe8d0_6000, HANG]);
    m.write32(DATA, 11);
    m.write32(DATA + 4, 12);
    m.cpu.regs[0] = DATA;
    let sp = m.cpu.regs[13];
    m.run(1);
    assert_eq!((m.cpu.reg_of(Mode::Usr, 13), m.cpu.reg_of(Mode::Usr, 14), m.cpu.regs[13]), (11, 12, sp));
}

#[test]
fn a_stop_of_its_own_choice_is_never_right_behind_an_exception() {
    // nop ; udf: the vector page holds a long run of NOPs, which does not fit into what is left.
    let program = [0xe320_f000, 0xe7f0_00f0];
    for enough in 1..40 {
        let mut m = Machine::new(&program);
        let vectors = RAM + 0x10_0000 - 0x1000;
        (0..100).for_each(|i| m.write32(vectors + 4 * i, 0xe320_f000));
        m.engine.run(&mut m.cpu, &m.ram, &mut m.bus, Budget { limit: 1000, enough });
        let mut exact = Machine::new(&program);
        (0..100).for_each(|i| exact.write32(vectors + 4 * i, 0xe320_f000));
        exact.run(m.cpu.icount);
        assert_eq!(m.visible(), exact.visible(), "enough {enough}");
    }
}
