//! Two engines that agree, and several that do not.

use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_interp::Interp;
use reprise_lockstep::{Config, Lockstep};

const RAM: u32 = 0x8000_0000;
const RAM_SIZE: usize = 1 << 20;
const CODE: u32 = RAM + 0x1_0000;
const DATA: u32 = RAM + 0x2_0000;
const MMIO: u32 = 0x1000_0000;

/// Reads count up, so that a second read of the same register gives something else. A write of 3 raises the IRQ line, of 4 lowers it.
#[derive(Default)]
struct TestBus {
    reads: u64,
    writes: u64,
    irq: bool,
}

impl Bus for TestBus {
    fn read(&mut self, _: At, pa: u64, _: u8) -> Result<(u64, After), BusFault> {
        if pa < u64::from(MMIO) {
            return Err(BusFault);
        }
        self.reads += 1;
        Ok((self.reads, After { exit: pa & 4 != 0, wrote: false }))
    }

    fn write(&mut self, _: At, pa: u64, _: u8, value: u64) -> Result<After, BusFault> {
        if pa < u64::from(MMIO) {
            return Err(BusFault);
        }
        self.writes += 1;
        match value {
            3 => self.irq = true,
            4 => self.irq = false,
            _ => {}
        }
        Ok(After { exit: value == 3 || value == 4, wrote: false })
    }

    fn vtime(&self, icount: u64) -> u64 {
        icount
    }

    fn lines(&self) -> (bool, bool) {
        (self.irq, false)
    }
}

struct Machine {
    cpu: Cpu,
    ram: GuestRam,
    bus: TestBus,
    _mem: Box<[u64]>,
}

/// r4 counts, r5 points to data, r6 to MMIO:
///
/// ```text
/// loop: adds  r0, r0, r4
///       eor   r1, r1, r0, ror #7
///       and   r2, r1, #0xff0
///       str   r0, [r5, r2]
///       ldr   r3, [r5, r2]
///       add   r1, r1, r3
///       ldr   r7, [r6]          @ a read that counts
///       add   r1, r1, r7
///       push  {r0, r1}
///       pop   {r0, r1}
///       mov   r8, #3
///       cmp   r4, #0x100
///       streq r8, [r6, #4]      @ raises IRQ, once
///       cmp   r4, #0x200
///       nopeq
///       add   r4, r4, #1
///       b     loop
/// ```
const PROGRAM: &[u32] = &[
    0xe090_0004,
    0xe021_13e0,
    0xe201_2eff,
    0xe785_0002,
    0xe795_3002,
    0xe081_1003,
    0xe596_7000,
    0xe081_1007,
    0xe92d_0003,
    0xe8bd_0003,
    0xe3a0_8003,
    0xe354_0c01,
    0x0586_8004,
    0xe354_0c02,
    0x0320_f000,
    0xe284_4001,
    0xeaff_ffee,
];

fn machine() -> Machine {
    let mut mem = vec![0u64; RAM_SIZE / 8 + 512].into_boxed_slice();
    let host = mem.as_mut_ptr().cast::<u8>();
    let pad = host.align_offset(4096);
    // SAFETY: the box lives as long as the machine, has a page to spare and is never touched but through `ram`.
    let ram = unsafe { GuestRam::new(host.add(pad), RAM.into(), RAM_SIZE as u64) };
    let put = |at: u32, w: u32| ram.write(at.into(), &w.to_le_bytes()).expect("in RAM");
    PROGRAM.iter().enumerate().for_each(|(i, w)| put(CODE + 4 * i as u32, *w));
    // The IRQ vector: lower the line (mov r9, #4; str r9, [r6, #4]), return (subs pc, lr, #4).
    [0xe3a0_9004, 0xe586_9004, 0xe25e_f004].iter().enumerate().for_each(|(i, w)| put(RAM + 0x18 + 4 * i as u32, *w));
    let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 100_000_000));
    cpu.cp15.vbar = [RAM; 2];
    cpu.regs[15] = CODE;
    (cpu.regs[5], cpu.regs[6], cpu.regs[13]) = (DATA, MMIO, DATA + 0x8000);
    cpu.i = false;
    Machine { cpu, ram, bus: TestBus::default(), _mem: mem }
}

/// What a broken engine does wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// Flips a bit of a register.
    Register(usize),
    /// Flips a bit of the byte at an address.
    Memory(u32),
    /// Reads a register of the bus once more.
    Access,
}

/// The interpreter, but for one fault after instruction `at` (counted from 0), however the run is cut.
struct Broken {
    inner: Interp,
    at: u64,
    fault: Fault,
}

impl Engine for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn run(&mut self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus, budget: Budget) -> StopReason {
        let (start, hit) = (cpu.icount, self.at + 1);
        while cpu.icount - start < budget.limit {
            let left = budget.limit - (cpu.icount - start);
            let n = if cpu.icount < hit { left.min(hit - cpu.icount) } else { left };
            let before = cpu.icount;
            let stop = self.inner.run(cpu, ram, bus, Budget::exactly(n));
            if before < hit && cpu.icount == hit {
                self.strike(cpu, ram, bus);
            }
            if stop != StopReason::Budget {
                return stop;
            }
        }
        StopReason::Budget
    }

    fn flush(&mut self) {
        self.inner.flush();
    }
}

impl Broken {
    fn strike(&self, cpu: &mut Cpu, ram: &GuestRam, bus: &mut dyn Bus) {
        match self.fault {
            Fault::Register(n) => cpu.regs[n] ^= 0x10,
            Fault::Memory(at) => {
                let mut b = [0];
                ram.read(at.into(), &mut b).expect("in RAM");
                ram.write(at.into(), &[b[0] ^ 1]).expect("in RAM");
            }
            Fault::Access => {
                let at = At { icount: cpu.icount, pc: 0, secure: true };
                bus.read(at, u64::from(MMIO) + 8, 4).expect("answered");
            }
        }
    }
}

fn run(engine: &mut dyn Engine, m: &mut Machine, n: u64) -> StopReason {
    loop {
        let left = n.saturating_sub(m.cpu.icount);
        match engine.run(&mut m.cpu, &m.ram, &mut m.bus, Budget::exactly(left)) {
            StopReason::Exit if m.cpu.icount < n => {}
            other => return other,
        }
    }
}

#[test]
fn engines_that_agree_run_to_the_end_and_change_nothing() {
    let (mut m, mut alone) = (machine(), machine());
    let mut engine = Lockstep::new(Interp::new(), Interp::new(), Config { all_ram_every: 10_000, ..Config::default() });
    run(&mut engine, &mut m, 100_000);
    assert_eq!(engine.mismatch(), None);
    engine.check_ram(&m.ram).expect("RAM is the same");
    assert!(engine.runs() > 50, "many short runs: {}", engine.runs());
    run(&mut Interp::new(), &mut alone, 100_000);
    assert_eq!(m.cpu.save(), alone.cpu.save());
    assert_eq!((m.bus.reads, m.bus.writes), (alone.bus.reads, alone.bus.writes), "no access was made twice");
    assert!(m.bus.writes >= 2, "the interrupt was taken");
}

#[test]
fn the_first_differing_instruction_is_named() {
    // With several seeds, so that the fault lies in runs of all lengths.
    for (seed, at) in [(1, 0), (2, 17), (3, 4711), (4, 33_333), (5, 60_000)] {
        let mut m = machine();
        let broken = Broken { inner: Interp::new(), at, fault: Fault::Register(1) };
        let mut engine = Lockstep::new(broken, Interp::new(), Config { seed, ..Config::default() });
        assert_eq!(run(&mut engine, &mut m, 100_000), StopReason::Halt);
        let text = engine.mismatch().expect("caught").to_owned();
        assert!(text.starts_with(&format!("broken and interp differ after instruction {at}\n")), "{text}");
        assert!(text.contains("* r1 ") && !text.contains("* r0 "), "{text}");
        assert_eq!(m.cpu.halt.as_ref(), Some(&text));
        assert_eq!(run(&mut engine, &mut m, 100_000), StopReason::Halt, "and it stays so");
    }
}

#[test]
fn the_report_shows_instruction_states_and_micro_ops() {
    let mut m = machine();
    // Instruction 17 * 3 + 4 is the load of the fourth round.
    let broken = Broken { inner: Interp::new(), at: 17 * 3 + 4, fault: Fault::Register(3) };
    let mut engine = Lockstep::new(broken, Interp::new(), Config::default());
    run(&mut engine, &mut m, 1000);
    let text = engine.mismatch().expect("caught");
    assert!(text.contains("0x80010010  e7953002  ldr r3, [r5, r2]"), "{text}");
    assert!(text.contains("Ld32R r3, r5, r2"), "{text}");
}

#[test]
fn a_wrong_store_is_found() {
    let mut m = machine();
    // Instruction 3 of each round stores into the page at DATA, never to its last byte. In round 256 the handler adds 3, later.
    let broken = Broken { inner: Interp::new(), at: 17 * 100 + 3, fault: Fault::Memory(DATA + 0xfff) };
    let mut engine = Lockstep::new(broken, Interp::new(), Config::default());
    assert_eq!(run(&mut engine, &mut m, 100_000), StopReason::Halt);
    let text = engine.mismatch().expect("caught");
    assert!(text.contains("after instruction 1703\n") && text.contains("RAM at 0x80020fff"), "{text}");
}

#[test]
fn a_stray_store_is_found_when_all_ram_is_compared() {
    let mut m = machine();
    let broken = Broken { inner: Interp::new(), at: 5000, fault: Fault::Memory(RAM + 0x8_0123) };
    let config = Config { all_ram_every: 10_000, ..Config::default() };
    let mut engine = Lockstep::new(broken, Interp::new(), config);
    assert_eq!(run(&mut engine, &mut m, 100_000), StopReason::Halt);
    let text = engine.mismatch().expect("caught");
    assert!(text.contains("RAM at 0x80080123 differs"), "{text}");
    assert!(m.cpu.icount < 5000 + 10_000 + 2064, "within the interval");
}

#[test]
fn an_access_too_many_is_found() {
    let mut m = machine();
    let broken = Broken { inner: Interp::new(), at: 777, fault: Fault::Access };
    let mut engine = Lockstep::new(broken, Interp::new(), Config::default());
    assert_eq!(run(&mut engine, &mut m, 100_000), StopReason::Halt);
    let text = engine.mismatch().expect("caught");
    assert!(text.contains("differ after instruction 777\n") && text.contains("access"), "{text}");
}

#[test]
fn changes_from_outside_are_followed() {
    let mut m = machine();
    let mut engine = Lockstep::new(Interp::new(), Interp::new(), Config { all_ram_every: 1000, ..Config::default() });
    run(&mut engine, &mut m, 10_000);
    // A debugger changes registers, and a device RAM.
    m.cpu.regs[4] = 77;
    m.cpu.note_warp();
    m.ram.write(u64::from(DATA) + 0x100, &[0xab; 32]).expect("in RAM");
    engine.flush();
    run(&mut engine, &mut m, 30_000);
    assert_eq!(engine.mismatch(), None);
    engine.check_ram(&m.ram).expect("RAM is the same");
}
