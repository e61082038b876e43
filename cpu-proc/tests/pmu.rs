//! The performance monitors' overflow interrupt: at the very instruction, through the GIC, whatever the filters and the slices.

use std::time::Duration;

use anyhow::Result;
use cpu_proc::board::Board;
use cpu_proc::clock::Clock;
use cpu_proc::local::LocalPort;
use cpu_proc::ram::Ram;
use cpu_proc::runner::{Host, Mode as RunMode, Order, Policy, Runner};
use reprise_arm::cores::Cores;
use reprise_arm::gic::{Gic, GicConfig};
use reprise_arm::models::Model;
use reprise_arm::pmu::PmuReg;
use reprise_arm::psr::Mode;
use reprise_arm::state::Cpu;
use reprise_interp::Interp;

const RAM: u64 = 0x8000_0000;
const CODE: u32 = RAM as u32 + 0x1000;
const VECTORS: u32 = RAM as u32 + 0x2000;
/// The SPI of the Versatile Express, and its GIC ID.
const SPI: u32 = 68;
const ID: u32 = 32 + SPI;
const EVENT_INSTRUCTION: u32 = 0x08;
const NOT_PL1: u32 = 1 << 31;

const NOP: u32 = 0xe320_f000;
const HANG: u32 = 0xeaff_fffe;
const SVC: u32 = 0xef00_0000;
/// `movs pc, lr`
const RETURN: u32 = 0xe1b0_f00e;

struct Quiet;

impl<P> Host<P> for Quiet {
    fn look(&mut self, _: &Cores, _: u64) -> Result<Order> {
        Ok(Order::Run)
    }

    fn sleep(&mut self, _: &Board<P>, _: Option<Duration>) -> Result<()> {
        Ok(())
    }
}

/// A core with `program`, vectors that hang but for SVC, and a counter of executed instructions `left` before its overflow.
fn machine(program: &[u32], filter: u32, left: u32) -> (Cores, Ram, Board<LocalPort>) {
    let ram = Ram::new(RAM, 1 << 20).unwrap();
    let put = |at: u32, word: u32| ram.view().write(at.into(), &word.to_le_bytes()).unwrap();
    for (i, word) in program.iter().enumerate() {
        put(CODE + 4 * i as u32, *word);
    }
    for vector in 0..8 {
        put(VECTORS + 4 * vector, if vector == 2 { RETURN } else { HANG });
    }
    let mut gic = Gic::new(GicConfig::cortex_a15(1, 128));
    gic.dist_write(0, true, 0x000, 4, 3);
    gic.dist_write(0, true, 0x100 + ID / 32 * 4, 4, 1 << (ID % 32));
    gic.dist_write(0, true, 0x800 + ID, 1, 1);
    gic.cpu_write(0, true, 0x000, 4, 3);
    gic.cpu_write(0, true, 0x004, 4, 0xff);
    let mut board = Board::new(Clock::new(1, 1), gic, Vec::new(), Vec::new(), Vec::new());
    board.pmu_spi = Some(SPI);
    let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 62_500_000));
    cpu.cp15.vbar[0] = VECTORS;
    cpu.regs[15] = CODE;
    cpu.set_cpsr(Mode::Usr as u32);
    let model = cpu.model.clone();
    for (reg, value) in [
        (PmuReg::EvTyper, filter | EVENT_INSTRUCTION),
        (PmuReg::EvCntr, left.wrapping_neg()),
        (PmuReg::CntenSet, 1),
        (PmuReg::IntenSet, 1),
        (PmuReg::Cr, 1),
    ] {
        cpu.cp15.pmu.write(&model, 0, reg, value);
    }
    (Cores::from(cpu), ram, board)
}

fn run(cores: &mut Cores, ram: &Ram, board: &mut Board<LocalPort>, stop_at: u64, slice: u64) {
    let policy = Policy { stop_at: Some(stop_at), slice, ..Policy::default() };
    let mut engine = Interp::new();
    Runner::new(cores, ram.view(), &mut engine, board, &mut Quiet, RunMode::Plain, policy).run().unwrap();
}

#[test]
fn the_interrupt_comes_at_the_instruction_that_overflows() {
    for left in [1, 2, 77, 1000] {
        for slice in [1, 64, 4096] {
            let (mut cores, ram, mut board) = machine(&[NOP; 900], 0, left);
            run(&mut cores, &ram, &mut board, u64::from(left), slice);
            assert_eq!(cores.cpu().mode, Mode::Usr, "not before");
            run(&mut cores, &ram, &mut board, u64::from(left) + 1, slice);
            assert_eq!(cores.cpu().mode, Mode::Irq, "left {left}");
            // Behind the program are zero words (andeq), so `left` may be more than its length.
            assert_eq!(cores.cpu().regs[14] - 4, CODE + 4 * left, "left {left}");
        }
    }
}

/// The counter leaves out PL1. `nop; svc; nop; b .-8` runs three instructions at PL0 (SVC is one of them) and one at PL1 a round.
#[test]
fn filters_move_the_place() {
    for (left, icount) in [(1u64, 1), (2, 2), (3, 4), (4, 5), (5, 6), (100, 133)] {
        for slice in [1, 4096] {
            let program = [NOP, SVC, 0xeaff_fffc];
            let (mut cores, ram, mut board) = machine(&program, NOT_PL1, left as u32);
            run(&mut cores, &ram, &mut board, icount, slice);
            assert_ne!(cores.cpu().mode, Mode::Irq, "left {left}");
            // One more: the interrupt is taken, and the vector's first instruction runs.
            cores.cpu_mut().i = false;
            run(&mut cores, &ram, &mut board, icount + 1, slice);
            assert_eq!(cores.cpu().mode, Mode::Irq, "left {left}");
        }
    }
}

#[test]
fn a_board_without_the_wire_has_no_interrupt() {
    let (mut cores, ram, mut board) = machine(&[NOP, HANG], 0, 10);
    board.pmu_spi = None;
    run(&mut cores, &ram, &mut board, 100, 4096);
    assert_eq!((cores.cpu().mode, cores.cpu().icount), (Mode::Usr, 100));
    assert!(cores.cpu().cp15.pmu.interrupt(100), "the request is there");
}
