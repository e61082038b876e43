//! The table lines that random programs in User mode can't reach, or only as UNDEFINED, one by one. `cargo xtask coverage isa` counts what these
//! tests translate: with `REPRISE_ISA_COVERAGE` set they append it to that file.

mod support;

use reprise_arm::coverage;
use reprise_arm::psr::Mode;
use std::io::Write;
use support::{CODE, DATA, Machine};

const SCTLR_SW: u32 = 1 << 10;
const UDCCDIS: u32 = 1 << 12;

/// One instruction in both instruction sets, whose words are alike: the machine after it.
fn both(word: u32, setup: impl Fn(&mut Machine), check: impl Fn(&mut Machine, &str)) {
    for thumb in [false, true] {
        let mut m =
            if thumb { Machine::thumb(&[(word >> 16) as u16, word as u16, 0xe7fe]) } else { Machine::new(&[word]) };
        setup(&mut m);
        m.run(1);
        check(&mut m, &format!("{word:#x}, thumb {thumb}"));
    }
}

fn undefined(word: u32, arm: bool, thumb: bool) {
    for t in [false, true] {
        if !(if t { thumb } else { arm }) {
            continue;
        }
        let mut m = if t { Machine::thumb(&[(word >> 16) as u16, word as u16]) } else { Machine::new(&[word]) };
        m.run(1);
        assert_eq!(m.cpu.mode, Mode::Und, "{word:#x}, thumb {t}");
        assert!(m.cpu.undef_notes.is_empty(), "{word:#x} is UNDEFINED on purpose");
    }
}

/// LDC and STC of coprocessor 14, register 5, in every addressing mode: STC stores 0, as nobody has written DBGDTRRXint.
#[test]
fn debug_communication_channel() {
    // (word, address accessed, r1 after it), r1 being DATA + 0x100.
    let base = DATA + 0x100;
    let table = [
        (0xed91_5e02u32, base + 8, base),
        (0xed11_5e02, base - 8, base),
        (0xedb1_5e02, base + 8, base + 8),
        (0xed31_5e02, base - 8, base - 8),
        (0xecb1_5e02, base, base + 8),
        (0xec31_5e02, base, base - 8),
        (0xec91_5e02, base, base),
    ];
    for (load, at, after) in table {
        let store = load & !(1 << 20);
        let prepare = |m: &mut Machine| {
            m.cpu.regs[1] = base;
            m.write32(at, 0x1234_5678);
        };
        both(store, prepare, |m, what| {
            assert_eq!((m.cpu.mode, m.cpu.regs[1], m.read32(at)), (Mode::Svc, after, 0), "{what}");
        });
        both(load, prepare, |m, what| {
            assert_eq!((m.cpu.mode, m.cpu.regs[1], m.read32(at)), (Mode::Svc, after, 0x1234_5678), "{what}");
        });
        let refused = |m: &mut Machine| {
            prepare(m);
            m.cpu.set_mode(Mode::Usr);
            m.cpu.cp15.debug.dscr = UDCCDIS;
        };
        both(store, refused, |m, what| assert_eq!((m.cpu.mode, m.read32(at)), (Mode::Und, 0x1234_5678), "{what}"));
        let unaligned = |m: &mut Machine| m.cpu.regs[1] = base + 1;
        both(load, unaligned, |m, what| assert_eq!((m.cpu.mode, m.cpu.regs[1]), (Mode::Abt, base + 1), "{what}"));
    }
}

#[test]
fn swp_by_sctlr() {
    // swp r0, r2, [r1] ; swpb r3, r4, [r1]
    let program = [0xe101_0092, 0xe141_3094];
    let mut m = Machine::new(&program);
    let setup = |m: &mut Machine| {
        m.write32(DATA, 0x1122_3344);
        (m.cpu.regs[1], m.cpu.regs[2], m.cpu.regs[4]) = (DATA, 0xaabb_ccdd, 0x99);
    };
    setup(&mut m);
    m.run(1);
    assert_eq!(m.cpu.mode, Mode::Und, "SCTLR.SW is clear out of reset");
    let mut m = Machine::new(&program);
    setup(&mut m);
    m.cpu.cp15.sctlr[0] |= SCTLR_SW;
    m.run(2);
    assert_eq!((m.cpu.regs[0], m.cpu.regs[3], m.read32(DATA)), (0x1122_3344, 0xdd, 0xaabb_cc99));
    let mut m = Machine::new(&program);
    setup(&mut m);
    m.cpu.cp15.sctlr[0] |= SCTLR_SW;
    m.cpu.e = true;
    m.run(1);
    assert_eq!((m.cpu.regs[0], m.read32(DATA)), (0x4433_2211, 0xddcc_bbaa), "big-endian data");
    m.cpu.regs[15] = CODE;
    m.cpu.regs[1] = DATA + 2;
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.cp15.dfar[0]), (Mode::Abt, DATA + 2), "alignment");
}

#[test]
fn what_is_undefined_on_purpose() {
    // Banked MRS and MSR, ERET and HVC: no Virtualization Extensions.
    for word in [0xe101_0200, 0xe121_f200, 0xe160_006e, 0xe140_0070] {
        undefined(word, true, false);
    }
    // The same in Thumb; ENTERX.
    for word in [0xf3e0_8020, 0xf380_8020, 0xf7e0_8000, 0xf3bf_8f1f] {
        undefined(word, false, true);
    }
    // Coprocessors that aren't there, operations of 14, LDC of another register of 14, the second coprocessor space.
    for word in [0xee00_0000, 0xee11_0910, 0xec41_0c00, 0xed91_0002, 0xee00_0e00, 0xed91_4e02, 0xec91_4e02, 0xecb1_4e02]
    {
        undefined(word, true, true);
    }
    for word in [0xed91_0802, 0xed91_0c02, 0xee00_0800, 0xee00_0c00, 0xfd91_5e02, 0xfe00_0000] {
        undefined(word, true, true);
    }
}

#[test]
fn leavex_does_nothing() {
    let mut m = Machine::thumb(&[0xf3bf, 0x8f0f, 0xe7fe]);
    m.run(1);
    assert_eq!((m.cpu.regs[15], m.cpu.mode, m.cpu.t), (CODE + 4, Mode::Svc, true));
}

#[test]
fn smc_in_thumb() {
    let mut m = Machine::thumb(&[0xf7f0, 0x8000]);
    m.run(1);
    assert_eq!((m.cpu.mode, m.cpu.regs[14]), (Mode::Mon, CODE + 4));
}

/// Runs last by its name: counts everything of this file again, so that the order of the tests does not matter.
#[test]
fn zz_coverage() {
    let Some(file) = std::env::var_os("REPRISE_ISA_COVERAGE") else { return };
    coverage::start();
    debug_communication_channel();
    swp_by_sctlr();
    what_is_undefined_on_purpose();
    leavex_does_nothing();
    smc_in_thumb();
    let mut out = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the coverage file");
    out.write_all(coverage::report().as_bytes()).expect("written");
}
