//! A Cortex-A9 machine without any device, from its description: private timer, interrupts, watchdog and L2 controller through the run loop.

use std::time::Duration;

use anyhow::Result;
use cpu_proc::assemble;
use cpu_proc::board::Board;
use cpu_proc::local::LocalPort;
use cpu_proc::ram::Ram;
use cpu_proc::runner::{Host, Mode, Order, Outcome, Policy, Runner};
use reprise_arm::bus::{At, Bus};
use reprise_arm::cores::Cores;
use reprise_arm::engine::Engine;
use reprise_channel::EndReason;
use reprise_interp::Interp;
use reprise_machine::boot::{Images, plan};
use reprise_machine::{Overrides, Source, resolve};

const RAM: u64 = 0x6000_0000;
const PRIVATE: u64 = 0x1e00_0000;

/// The GIC has four interfaces, as the board's; one instruction takes 1 ns, a tick of PERIPHCLK 10 ns.
const MACHINE: &str = r#"(
    name: "a9",
    cpu: (model: "cortex-a9", periphbase: 0x1e000000, timer_hz: 100_000_000),
    memory: (base: 0x60000000, size: "1M"),
    clock: (mode: warp),
    gic: (dist: 0x1000, cpu: 0x100, cpu_size: 0x100, spis: 64, interfaces: 4),
    l2: (at: 0x1e00a000, way_size: "64K"),
    boot: image(file: "none"),
)"#;

/// MMU off. Starts the private timer with a period of 1000 ticks; its interrupt's handler stores the counter at RAM + 0x1000. The first five
/// interrupts are waited for in WFI, the others come while the core runs.
#[rustfmt::skip]
const GUEST: &[u32] = &[
    0xea00_0008, // 00 b start
    0xea00_0005, // 04 b undef
    0xeaff_fffe, // 08 b .
    0xeaff_fffe, // 0c b .
    0xeaff_fffe, // 10 b .
    0xe320_f000, // 14 nop
    0xea00_001a, // 18 b irq
    0xe320_f000, // 1c nop
    0xe286_6001, // 20 undef: add r6, r6, #1
    0xe1b0_f00e, // 24 movs pc, lr
    0xee9f_7f10, // 28 start: mrc p15, 4, r7, c15, c0, 0 (CBAR)
    0xee10_0fb0, // 2c mrc p15, 0, r0, c0, c0, 5 (MPIDR)
    0xe3a0_5206, // 30 mov r5, #0x60000000
    0xee0c_5f10, // 34 mcr p15, 0, r5, c12, c0, 0 (VBAR)
    0xe738_f717, // 38 udiv r8, r7, r7: UNDEFINED
    0xe3a0_00ff, // 3c mov r0, #255
    0xe587_0104, // 40 str r0, [r7, #0x104] (GICC_PMR)
    0xe3a0_0001, // 44 mov r0, #1
    0xe587_0100, // 48 str r0, [r7, #0x100] (GICC_CTLR)
    0xe287_8a01, // 4c add r8, r7, #0x1000
    0xe588_0000, // 50 str r0, [r8] (GICD_CTLR)
    0xe3a0_0202, // 54 mov r0, #0x20000000
    0xe588_0100, // 58 str r0, [r8, #0x100] (GICD_ISENABLER0)
    0xe300_03e7, // 5c movw r0, #999
    0xe587_0600, // 60 str r0, [r7, #0x600] (load)
    0xe3a0_0007, // 64 mov r0, #7
    0xe587_0608, // 68 str r0, [r7, #0x608] (control)
    0xf108_0080, // 6c cpsie i
    0xe354_0005, // 70 cmp r4, #5
    0x3320_f003, // 74 wfilo
    0x3aff_fffc, // 78 blo 70
    0xe354_0009, // 7c cmp r4, #9
    0x3aff_fffd, // 80 blo 7c
    0xeaff_fffe, // 84 b .
    0xe597_010c, // 88 irq: ldr r0, [r7, #0x10c] (GICC_IAR)
    0xe597_1604, // 8c ldr r1, [r7, #0x604] (counter)
    0xe3a0_2001, // 90 mov r2, #1
    0xe587_260c, // 94 str r2, [r7, #0x60c] (status)
    0xe285_3a01, // 98 add r3, r5, #0x1000
    0xe783_1104, // 9c str r1, [r3, r4, lsl #2]
    0xe284_4001, // a0 add r4, r4, #1
    0xe587_0110, // a4 str r0, [r7, #0x110] (GICC_EOIR)
    0xe25e_f004, // a8 subs pc, lr, #4
];

struct Nobody;

impl<P> Host<P> for Nobody {
    fn look(&mut self, _: &Cores, _: u64) -> Result<Order> {
        Ok(Order::Run)
    }

    fn sleep(&mut self, _: &Board<P>, _: Option<Duration>) -> Result<()> {
        panic!("there is always a deadline")
    }
}

struct Rig {
    ram: Ram,
    cores: Cores,
    board: Board<LocalPort>,
    engine: Box<dyn Engine>,
}

impl Rig {
    fn new(engine: Box<dyn Engine>) -> Rig {
        let source = Source::new("a9.ron", MACHINE.as_bytes().to_vec()).unwrap();
        let machine = resolve(source, &Overrides::default()).map_err(|e| e.to_string()).unwrap().machine;
        let code: Vec<u8> = GUEST.iter().flat_map(|w| w.to_le_bytes()).collect();
        let boot = plan(&machine, &Images { kernel: &code, ..Images::default() }).unwrap();
        let ram = Ram::new(RAM, machine.memory.size).unwrap();
        boot.loads.iter().for_each(|(at, bytes)| ram.view().write(*at, bytes).unwrap());
        let cores = assemble::cores(&machine, &boot.regs, &boot.secondary).unwrap();
        let board = assemble::board(&machine, ram.view(), &[], vec![]).unwrap();
        Rig { ram, cores, board, engine }
    }

    fn run_to(&mut self, icount: u64) -> Outcome {
        let policy = Policy { stop_at: Some(icount), ..Policy::default() };
        let engine = self.engine.as_mut();
        Runner::new(&mut self.cores, self.ram.view(), engine, &mut self.board, &mut Nobody, Mode::Plain, policy)
            .run()
            .unwrap()
    }

    fn hash(&mut self) -> blake3::Hash {
        let mut h = blake3::Hasher::new();
        self.ram.for_each_piece(&mut |at, b| _ = h.update(&at.to_le_bytes()).update(b)).unwrap();
        self.cores.hash(&mut |b| _ = h.update(b));
        self.board.hash(self.cores.cpu().icount, &mut |b| _ = h.update(b));
        h.finalize()
    }

    fn write(&mut self, pa: u64, value: u64) -> bool {
        let at = At { icount: self.cores.cpu().icount, pc: 0, secure: true };
        self.board.write(at, pa, 4, value).unwrap().exit
    }

    fn read(&mut self, pa: u64, size: u8) -> u64 {
        let at = At { icount: self.cores.cpu().icount, pc: 0, secure: true };
        self.board.read(at, pa, size).unwrap().0
    }
}

const END: u64 = 60_000;

#[test]
fn the_private_timer_interrupts_at_exact_instructions() {
    let mut rig = Rig::new(Box::new(Interp::new()));
    let outcome = rig.run_to(END);
    assert_eq!((outcome.reason, outcome.icount), (EndReason::Limit, END));
    let cpu = rig.cores.cpu();
    assert_eq!((cpu.regs[6], cpu.regs[7]), (1, PRIVATE as u32), "one UNDEF, and CBAR");
    // The timer was started by the 20th instruction, at 19 ns: its ticks are those at 10 ns and on, so the first event is 999 ticks later.
    let first = 10 + 9_990;
    let events = (outcome.vtime - first) / 10_000 + 1;
    assert!(events >= 9 && u64::from(cpu.regs[4]) == events, "{} of {events}", cpu.regs[4]);
    assert!(rig.board.clock.warped() > 4 * 9_900, "five of them came to an idle core");
    let mut counters = [0xff; 4 * 9];
    rig.ram.view().write(RAM + 0x1000 + 4 * 9, &[0xff; 4]).unwrap();
    rig.ram.view().read(RAM + 0x1000, &mut counters).unwrap();
    // A tick is ten instructions long: the handler's second one sees the tick of the event.
    assert_eq!(counters, [0; 4 * 9]);
}

#[test]
fn any_slices_and_any_engine_give_the_same_machine() {
    let mut whole = Rig::new(Box::new(Interp::new()));
    whole.run_to(END);
    let hash = whole.hash();
    let mut pieces = Rig::new(Box::new(Interp::new()));
    let mut at = 0;
    for i in 0.. {
        at = (at + 1 + i % 777).min(END);
        pieces.run_to(at);
        if at == END {
            break;
        }
    }
    assert_eq!(pieces.hash(), hash, "stopped on the way");
    #[cfg(target_arch = "x86_64")]
    {
        let mut compiled = Rig::new(Box::new(reprise_jit::Jit::new().unwrap()));
        compiled.run_to(END);
        assert_eq!(compiled.hash(), hash, "the compiled engine");
    }
}

#[test]
fn a_watchdog_that_runs_out_resets_the_machine() {
    let mut rig = Rig::new(Box::new(Interp::new()));
    rig.run_to(5);
    assert!(
        rig.write(PRIVATE + 0x620, 500),
        "a write of a timer's register leaves the engine: a deadline may have changed"
    );
    assert!(rig.write(PRIVATE + 0x628, 0b1001));
    let outcome = rig.run_to(END);
    assert_eq!((outcome.reason, outcome.vtime), (EndReason::Reboot, 5_000));
}

#[test]
fn accesses_of_all_sizes_reach_the_registers() {
    let mut rig = Rig::new(Box::new(Interp::new()));
    assert_eq!(rig.read(PRIVATE + 4, 4), 0x110, "SCU configuration: one core");
    assert_eq!(rig.read(PRIVATE + 5, 1), 1);
    rig.write(PRIVATE + 0x200, 0x89ab_cdef);
    rig.write(PRIVATE + 0x204, 0x0123_4567);
    assert_eq!(rig.read(PRIVATE + 0x200, 8), 0x0123_4567_89ab_cdef);
    let l2 = PRIVATE + 0xa000;
    assert_eq!(
        (rig.read(l2, 8), rig.read(l2 + 0x104, 4), rig.read(l2 + 0x106, 2)),
        (0x1c30_0300_4100_00c8, 0x0206_0000, 0x206)
    );
    assert!(!rig.write(l2 + 0x730, 0), "cache maintenance does not leave the engine");
    rig.write(l2 + 0x100, 1);
    assert_eq!(rig.read(l2 + 0x100, 1), 1);
    let at = At { icount: 0, pc: 0, secure: true };
    assert!(
        rig.board.read(at, PRIVATE + 0x300, 4).is_err(),
        "reserved (TRM table 1-3), and no bus range covers it here"
    );
}
