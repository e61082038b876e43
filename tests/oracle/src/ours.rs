//! Runs a case on one of our own engines.

use crate::case::{
    CODE, CODE_SIZE, Case, DATA, DATA_SIZE, Ending, FILLER, Isa, Outcome, RAM, RAM_SIZE, SLOT, State, VECTORS,
};
use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::models::Model;
use reprise_arm::psr::Mode;
use reprise_arm::state::Cpu;

/// First-level table.
const L1: u32 = RAM;
/// Second-level table of the first megabyte of RAM.
const L2: u32 = RAM + 0x4000;

/// A bus on which nothing answers.
struct NoBus;

impl Bus for NoBus {
    fn read(&mut self, _at: At, _pa: u64, _size: u8) -> Result<(u64, After), BusFault> {
        Err(BusFault)
    }
    fn write(&mut self, _at: At, _pa: u64, _size: u8, _value: u64) -> Result<After, BusFault> {
        Err(BusFault)
    }
    fn vtime(&self, icount: u64) -> u64 {
        icount
    }
    fn lines(&self) -> (bool, bool) {
        (false, false)
    }
}

/// Which of our engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The interpreter.
    Interp,
    /// The compiled engine; it compiles every block when it meets it first.
    #[cfg(target_arch = "x86_64")]
    Jit,
    /// The compiled engine on a host without AVX2.
    #[cfg(target_arch = "x86_64")]
    JitPlain,
}

impl Which {
    fn make(self) -> Box<dyn Engine> {
        #[cfg(target_arch = "x86_64")]
        use reprise_jit::{Jit, emit::Features};
        match self {
            Which::Interp => Box::new(reprise_interp::Interp::new()),
            #[cfg(target_arch = "x86_64")]
            Which::Jit => Box::new(Jit::with(Features::detect(), 0).expect("memory for code")),
            #[cfg(target_arch = "x86_64")]
            Which::JitPlain => Box::new(Jit::with(Features::none(), 0).expect("memory for code")),
        }
    }
}

/// Most instructions of a case with branches. Unicorn stops at a thousand.
const LONGEST: u64 = 900;

/// Our CPU with the case's memory map.
pub struct Ours {
    memory: Box<[u64]>,
    ram: GuestRam,
    cpu: Cpu,
    engine: Box<dyn Engine>,
    which: Which,
    last_at: u32,
}

impl Ours {
    /// A Cortex-A15 in User mode, MMU on, VFP on.
    pub fn new(which: Which) -> Self {
        let mut memory = vec![0u64; RAM_SIZE as usize / 8 + 512].into_boxed_slice();
        let base = memory.as_mut_ptr().cast::<u8>();
        let pad = base.align_offset(4096);
        assert!(pad < 4096, "memory can be aligned");
        // SAFETY: the slice has a page more than RAM, lives as long as `Ours` and is only touched through `ram` from here on.
        let ram = unsafe { GuestRam::new(base.add(pad), u64::from(RAM), u64::from(RAM_SIZE)) };
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 62_500_000));
        page_tables(&ram);
        for slot in (0..u64::from(CODE_SIZE)).step_by(SLOT) {
            ram.write(u64::from(CODE) + slot, &FILLER).expect("in RAM");
        }
        system_registers(&mut cpu);
        Self { memory, ram, cpu, engine: which.make(), which, last_at: 0 }
    }

    /// Which engine it is.
    pub fn which(&self) -> Which {
        self.which
    }

    /// The same engine, new.
    pub fn anew(&self) -> Self {
        Self::new(self.which)
    }

    /// Runs `case` to its end; `budget` says where that is, if it is known already.
    pub fn run(&mut self, case: &Case, budget: Option<u64>) -> Outcome {
        if case.at <= self.last_at {
            self.engine.flush();
        }
        self.last_at = case.at;
        let mut data = vec![0; DATA_SIZE as usize];
        case.data(&mut data);
        self.ram.write(u64::from(DATA), &data).expect("in RAM");
        self.ram.write(u64::from(case.at), &case.bytes()).expect("in RAM");
        self.load(&case.state);
        let start = self.cpu.icount;
        let stop = match budget {
            Some(n) => self.go(n),
            None if case.loops => self.until_it_ends(case),
            None => self.go(case.code.len() as u64),
        };
        let retired = self.cpu.icount - start;
        self.ram.read(u64::from(DATA), &mut data).expect("in RAM");
        self.ram.write(u64::from(case.at), &FILLER).expect("in RAM");
        let (ending, state) = self.unload(case.isa, stop);
        Outcome { ending, state, data, retired }
    }

    fn go(&mut self, n: u64) -> StopReason {
        self.engine.run(&mut self.cpu, &self.ram, &mut NoBus, Budget::exactly(n))
    }

    /// One instruction at a time until the case is left.
    fn until_it_ends(&mut self, case: &Case) -> StopReason {
        let inside = case.at..case.at + case.len();
        for _ in 0..LONGEST {
            let stop = self.go(1);
            if stop != StopReason::Budget || self.cpu.mode != Mode::Usr || !inside.contains(&self.cpu.regs[15]) {
                return stop;
            }
        }
        StopReason::Wait
    }

    fn load(&mut self, s: &State) {
        let cpu = &mut self.cpu;
        cpu.set_cpsr(s.cpsr);
        cpu.regs[..16].copy_from_slice(&s.regs);
        for (i, d) in s.d.iter().enumerate() {
            cpu.ext[2 * i] = *d as u32;
            cpu.ext[2 * i + 1] = (*d >> 32) as u32;
        }
        cpu.fpscr = s.fpscr;
        cpu.excl = Default::default();
        cpu.event = false;
        cpu.waiting = false;
        cpu.halt = None;
    }

    /// The User-mode view of where the core stands, and the exception that took it away from there.
    fn unload(&self, _isa: Isa, stop: StopReason) -> (Ending, State) {
        let cpu = &self.cpu;
        let mut d = [0; 32];
        d.iter_mut()
            .enumerate()
            .for_each(|(i, d)| *d = u64::from(cpu.ext[2 * i]) | u64::from(cpu.ext[2 * i + 1]) << 32);
        let mut state = State { regs: [0; 16], cpsr: cpu.cpsr(), d, fpscr: cpu.fpscr };
        state.regs.copy_from_slice(&cpu.regs[..16]);
        if cpu.mode == Mode::Usr {
            let ending = match stop {
                StopReason::Budget => Ending::Done,
                StopReason::Exit => Ending::Other("left early"),
                StopReason::Wait => Ending::Other("waits"),
                StopReason::Halt => Ending::Other("halted"),
            };
            return (ending, state);
        }
        for n in 0..15 {
            state.regs[n] = cpu.reg_of(Mode::Usr, n);
        }
        let lr = cpu.reg_of(cpu.mode, 14);
        state.cpsr = cpu.spsr();
        let thumb = state.cpsr & 0x20 != 0;
        let (ending, back) = match (cpu.mode, cpu.regs[15] & 0x1c) {
            (Mode::Und, _) => (Ending::Undefined, if thumb { 2 } else { 4 }),
            (Mode::Svc, _) => (Ending::Svc, 0),
            (Mode::Abt, 0x0c) => (Ending::PrefetchAbort, 4),
            (Mode::Abt, _) => {
                let alignment = cpu.cp15.dfsr[0] & 0x40f == 1;
                (Ending::DataAbort { addr: cpu.cp15.dfar[0], alignment }, 8)
            }
            _ => (Ending::Other("another mode"), 0),
        };
        state.regs[15] = lr.wrapping_sub(back);
        (ending, state)
    }

    /// The memory's size, so that the field is what keeps it alive.
    pub fn bytes(&self) -> usize {
        self.memory.len() * 8
    }
}

/// MMU on with our tables, domain 0 a client, vectors in place, VFP on.
fn system_registers(cpu: &mut Cpu) {
    let c = &mut cpu.cp15;
    c.sctlr[0] |= 1;
    c.ttbr0[0] = u64::from(L1);
    c.dacr[0] = 1;
    c.vbar[0] = VECTORS;
    c.cpacr |= 0xf << 20;
    cpu.fpexc = 1 << 30;
    cpu.update_context();
}

/// Short descriptors: vectors for us alone, code read-only, data read-write and not executable, nothing else.
fn page_tables(ram: &GuestRam) {
    let put = |pa: u32, v: u32| ram.write(u64::from(pa), &v.to_le_bytes()).expect("in RAM");
    put(L1 + (RAM >> 20) * 4, L2 | 1);
    // Small pages, normal write-back memory (TEX 001, C, B), shareable: ARM DDI 0406C B3.5.1.
    let page =
        |va: u32, ap: u32, xn: u32| put(L2 + (va >> 12 & 0xff) * 4, va | 0x44e | (ap & 3) << 4 | (ap >> 2) << 9 | xn);
    page(VECTORS, 0b001, 0);
    (0..CODE_SIZE / 4096).for_each(|i| page(CODE + i * 4096, 0b111, 0));
    (0..DATA_SIZE / 4096).for_each(|i| page(DATA + i * 4096, 0b011, 1));
    // Every vector is a branch to itself.
    (0..8).for_each(|i| put(VECTORS + i * 4, 0xeaff_fffe));
}
