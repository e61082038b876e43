//! A machine for tests: RAM, a bus that records what it sees, and a core with the MMU on.
#![allow(dead_code, missing_docs, unreachable_pub)]

use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_interp::Interp;

/// RAM base and size.
pub const RAM: u32 = 0x8000_0000;
pub const RAM_SIZE: usize = 8 << 20;
/// An MMIO page of the test bus: reads give offset + 0x100, writes are recorded.
pub const MMIO: u32 = 0x1000_0000;
/// Accesses at this offset and above ask to leave the engine.
pub const MMIO_EXIT: u32 = 0x800;
/// Where nothing answers.
pub const HOLE: u32 = 0x2000_0000;
/// Level 1 table, and where programs start by default.
const TABLE: u32 = RAM + 0x4000;
pub const CODE: u32 = RAM + 0x1_0000;
pub const DATA: u32 = RAM + 0x10_0000;

#[derive(Default)]
pub struct TestBus {
    pub log: Vec<(u64, u32, u64, Option<u64>)>,
    pub irq: bool,
    pub fiq: bool,
}

impl Bus for TestBus {
    fn read(&mut self, at: At, pa: u64, _size: u8) -> Result<(u64, After), BusFault> {
        if pa >= u64::from(HOLE) {
            return Err(BusFault);
        }
        self.log.push((at.icount, at.pc, pa, None));
        Ok(((pa & 0xfff) + 0x100, After { exit: pa & 0xfff >= u64::from(MMIO_EXIT), wrote: false }))
    }

    fn write(&mut self, at: At, pa: u64, _size: u8, value: u64) -> Result<After, BusFault> {
        if pa >= u64::from(HOLE) {
            return Err(BusFault);
        }
        self.log.push((at.icount, at.pc, pa, Some(value)));
        Ok(After { exit: pa & 0xfff >= u64::from(MMIO_EXIT), wrote: false })
    }

    fn vtime(&self, icount: u64) -> u64 {
        icount
    }

    fn lines(&self) -> (bool, bool) {
        (self.irq, self.fiq)
    }
}

pub struct Machine {
    pub cpu: Cpu,
    pub ram: GuestRam,
    pub bus: TestBus,
    pub engine: Interp,
    _mem: Box<[u64]>,
}

impl Machine {
    /// A core in Supervisor mode with `program` at [`CODE`] and the MMU on: RAM is Normal and flat, MMIO and the hole are Device.
    pub fn new(program: &[u32]) -> Self {
        let mut m = Self::flat(program);
        for mb in 0..(RAM_SIZE >> 20) as u32 {
            // Section, Normal write-back, full access, domain 0.
            let va = RAM + (mb << 20);
            m.write32(TABLE + (va >> 20) * 4, va | 0x1_1c0e);
        }
        for va in [MMIO, HOLE] {
            m.write32(TABLE + (va >> 20) * 4, va | 0xc06);
        }
        m.cpu.cp15.ttbr0 = [TABLE.into(); 2];
        m.cpu.cp15.dacr = [1; 2];
        m.cpu.cp15.sctlr = [m.cpu.cp15.sctlr[0] | 1; 2];
        // Vectors out of the way of the program, in RAM.
        m.cpu.cp15.vbar = [RAM + 0x10_0000 - 0x1000; 2];
        m.cpu.update_context();
        m
    }

    /// As [`Self::new`], but with the MMU off.
    pub fn flat(program: &[u32]) -> Self {
        let mut mem = vec![0u64; RAM_SIZE / 8].into_boxed_slice();
        // SAFETY: the box lives as long as the machine and is never touched but through `ram`.
        let ram = unsafe { GuestRam::new(mem.as_mut_ptr().cast(), RAM.into(), RAM_SIZE as u64) };
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 100_000_000));
        cpu.regs[15] = CODE;
        cpu.regs[13] = RAM + 0x8_0000;
        let m = Machine { cpu, ram, bus: TestBus::default(), engine: Interp::new(), _mem: mem };
        for (i, w) in program.iter().enumerate() {
            m.write32(CODE + 4 * i as u32, *w);
        }
        m
    }

    /// As [`Self::new`], with Thumb code given as halfwords.
    pub fn thumb(program: &[u16]) -> Self {
        let mut m = Self::new(&[]);
        for (i, h) in program.iter().enumerate() {
            m.ram.write(u64::from(CODE) + 2 * i as u64, &h.to_le_bytes()).expect("in RAM");
        }
        m.cpu.t = true;
        m
    }

    pub fn write32(&self, at: u32, v: u32) {
        self.ram.write(at.into(), &v.to_le_bytes()).expect("in RAM");
    }

    pub fn read32(&self, at: u32) -> u32 {
        let mut b = [0; 4];
        self.ram.read(at.into(), &mut b).expect("in RAM");
        u32::from_le_bytes(b)
    }

    pub fn run(&mut self, budget: u64) -> StopReason {
        self.engine.run(&mut self.cpu, &self.ram, &mut self.bus, Budget::exactly(budget))
    }

    /// Runs one instruction a call.
    pub fn steps(&mut self, n: u64) {
        for _ in 0..n {
            self.run(1);
        }
    }

    /// What a guest can see, for comparisons.
    pub fn visible(&self) -> (Vec<u32>, u32, u64, u64, u64) {
        let c = &self.cpu;
        (c.regs[..16].to_vec(), c.cpsr(), c.icount, c.epoch, c.epoch_start)
    }
}
