//! RAM that is seen at a second physical address, compiled and interpreted: fetches, loads, stores, patched code, exclusives and table walks are all of one
//! memory.
#![cfg(target_arch = "x86_64")]

#[path = "../../interp/tests/support/mod.rs"]
mod support;

use reprise_arm::bus::RamAlias;
use reprise_arm::engine::{Budget, Engine};
use reprise_interp::Interp;
use reprise_jit::Jit;
use support::{CODE, DATA, Machine, RAM};

/// Where the first two megabytes of RAM are seen once more.
const ALIAS: u32 = 0x1800_0000;

/// The same byte of RAM by way of the alias.
const fn other(at: u32) -> u32 {
    at - RAM + ALIAS
}

/// Runs a program, under each engine, with the MMU off and on (flat, RAM and alias Normal), and checks what becomes of it. `start` is where it is entered.
fn each(program: &[u32], start: u32, set_up: impl Fn(&mut Machine), instructions: u64, check: impl Fn(&Machine, &str)) {
    for mmu in [false, true] {
        let engines: [(&str, Box<dyn Engine>); 2] =
            [("interp", Box::new(Interp::new())), ("jit", Box::new(Jit::new().expect("a compiler")))];
        for (name, mut engine) in engines {
            let mut m = if mmu { Machine::new(program) } else { Machine::flat(program) };
            m.ram = m.ram.with_aliases(&[RamAlias { at: ALIAS.into(), size: 2 << 20, offset: 0 }]);
            for mb in 0..2 {
                let va = ALIAS + (mb << 20);
                m.write32(RAM + 0x4000 + (va >> 20) * 4, va | 0x1_1c0e);
            }
            m.cpu.regs[15] = start;
            set_up(&mut m);
            engine.run(&mut m.cpu, &m.ram, &mut m.bus, Budget::exactly(instructions));
            assert_eq!(m.cpu.icount, instructions, "{name}, MMU {mmu}");
            assert!(m.bus.log.is_empty(), "{name}, MMU {mmu}: {:?}", m.bus.log);
            check(&m, &format!("{name}, MMU {mmu}"));
        }
    }
}

/// loop: add r2, r2, #k (k counts up) ; ldr r3, [r0] ; add r3, r3, #1 ; str r3, [r0] ; b loop
const PATCHED: &[u32] = &[0xe282_2000, 0xe590_3000, 0xe283_3001, 0xe580_3000, 0xeaff_fffa];

#[test]
fn code_is_patched_from_either_side() {
    for (run_at, patch_at) in [(CODE, CODE), (CODE, other(CODE)), (other(CODE), CODE), (other(CODE), other(CODE))] {
        let check = |m: &Machine, how: &str| {
            assert_eq!(m.cpu.regs[2], (0..100).sum::<u32>(), "{how}: run at {run_at:#x}, patched at {patch_at:#x}");
        };
        each(PATCHED, run_at, |m| m.cpu.regs[0] = patch_at, 5 * 100, check);
    }
}

/// loop: ldr r2, [r0] ; add r2, r2, #1 ; str r2, [r1] ; b loop
#[test]
fn what_is_stored_at_one_is_loaded_at_the_other() {
    for (load, store) in [(DATA, other(DATA)), (other(DATA), DATA)] {
        let set_up = |m: &mut Machine| (m.cpu.regs[0], m.cpu.regs[1]) = (load, store);
        let check = |m: &Machine, how: &str| assert_eq!((m.read32(DATA), m.read32(other(DATA))), (50, 50), "{how}");
        each(&[0xe590_2000, 0xe282_2001, 0xe581_2000, 0xeaff_fffb], CODE, set_up, 4 * 50, check);
    }
}

/// loop: ldrex r2, [r0] ; add r2, r2, #1 ; strex r3, r2, [r1] ; add r4, r4, r3 ; b loop
#[test]
fn exclusives_are_of_one_memory() {
    let set_up = |m: &mut Machine| (m.cpu.regs[0], m.cpu.regs[1]) = (DATA, other(DATA));
    let check = |m: &Machine, how: &str| assert_eq!((m.read32(DATA), m.cpu.regs[4]), (20, 0), "{how}");
    each(&[0xe190_2f9f, 0xe282_2001, 0xe181_3f92, 0xe084_4003, 0xeaff_fffa], CODE, set_up, 5 * 20, check);
}

/// The tables themselves lie at the alias; a table entry that is stored at the other side counts at the next walk.
#[test]
fn tables_are_walked_at_the_alias() {
    // str r1, [r0] (maps what nothing was mapped to) ; mcr p15, 0, r0, c8, c7, 0 (TLBIALL) ; ldr r2, [r3] ; b .
    let program = [0xe580_1000, 0xee08_0f17, 0xe593_2000, 0xeaff_fffe];
    let set_up = |m: &mut Machine| {
        m.cpu.cp15.ttbr0 = [other(RAM + 0x4000).into(); 2];
        m.write32(DATA + 8, 77);
        let va = 0x3000_0000;
        m.cpu.regs[0] = RAM + 0x4000 + (va >> 20) * 4;
        m.cpu.regs[1] = (other(DATA) & 0xfff0_0000) | 0x1_1c0e;
        // With the MMU off the alias itself.
        let on = m.cpu.cp15.sctlr[0] & 1 != 0;
        m.cpu.regs[3] = if on { va + (DATA & 0xf_ffff) + 8 } else { other(DATA) + 8 };
    };
    each(&program, CODE, set_up, 5, |m, how| assert_eq!(m.cpu.regs[2], 77, "{how}"));
}

#[test]
fn an_access_that_leaves_the_alias_leaves_ram() {
    let m = Machine::new(&[]);
    let ram = m.ram.with_aliases(&[RamAlias { at: ALIAS.into(), size: 1 << 20, offset: 1 << 20 }]);
    let (at, end) = (u64::from(ALIAS), u64::from(ALIAS) + (1 << 20));
    assert_eq!(ram.host(at, 1 << 20), ram.host(u64::from(RAM) + (1 << 20), 1));
    assert_eq!((ram.host(at, (1 << 20) + 1), ram.host(end, 1), ram.host(end - 1, 2)), (None, None, None));
    assert_eq!((ram.canonical(at + 5), ram.canonical(end)), (u64::from(RAM) + (1 << 20) + 5, end));
}
