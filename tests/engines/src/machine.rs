//! The machine that a case runs on.

use crate::case::{CODE, Case, DATA, L2, MMIO, RAM, RAM_SIZE, VECTORS};
use crate::source::Source;
use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam};
use reprise_arm::engine::{Budget, Engine, StopReason};
use reprise_arm::models::Model;
use reprise_arm::psr::Mode;
use reprise_arm::state::Cpu;
use reprise_arm::statehash::hash_cpu;

/// A bus that answers everywhere but at `0x2000_0000`-`0x2fff_ffff`. Reads give something else each time; accesses to the upper half of a page
/// ask to leave the engine. A write at offset 0x20 sets the IRQ (bit 0) and FIQ (bit 1) lines, a write at 0x30 lowers both.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Devices {
    accesses: u64,
    /// Of all accesses, in order.
    hash: u64,
    irq: bool,
    fiq: bool,
}

impl Devices {
    fn note(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<u64, BusFault> {
        if pa >> 28 == 2 {
            return Err(BusFault);
        }
        self.accesses += 1;
        for v in [at.icount, u64::from(at.pc), u64::from(at.secure), pa, size.into(), value] {
            self.hash = (self.hash ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        Ok(self.hash)
    }
}

impl Bus for Devices {
    fn read(&mut self, at: At, pa: u64, size: u8) -> Result<(u64, After), BusFault> {
        let mut value = self.note(at, pa, size, 0)?;
        if size < 8 {
            value &= (1 << (8 * size)) - 1;
        }
        Ok((value, After { exit: pa & 0x800 != 0, wrote: false }))
    }

    fn write(&mut self, at: At, pa: u64, size: u8, value: u64) -> Result<After, BusFault> {
        let mask = if size < 8 { (1 << (8 * size)) - 1 } else { u64::MAX };
        self.note(at, pa, size, value & mask)?;
        match pa & 0xfff {
            0x20 => (self.irq, self.fiq) = (value & 1 != 0, value & 2 != 0),
            0x30 => (self.irq, self.fiq) = (false, false),
            _ => return Ok(After { exit: pa & 0x800 != 0, wrote: false }),
        }
        Ok(After { exit: true, wrote: false })
    }

    fn vtime(&self, icount: u64) -> u64 {
        icount * 3
    }

    fn lines(&self) -> (bool, bool) {
        (self.irq, self.fiq)
    }
}

/// Tables of the TLB are 8 MiB of untouched zeros each. The C library would after the first case take such blocks from its heap instead of
/// from fresh mappings, and clear them by hand, which takes longer than the case.
fn keep_tables_mapped() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: a tuning knob of the allocator.
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    });
}

/// A core, RAM and bus set up for a case.
pub struct Machine {
    cpu: Cpu,
    ram: GuestRam,
    bus: Devices,
    length: u64,
    _memory: Box<[u64]>,
}

impl Machine {
    /// The machine at the start of `case`.
    pub fn new(case: &Case) -> Self {
        keep_tables_mapped();
        let mut memory = vec![0u64; RAM_SIZE as usize / 8 + 512].into_boxed_slice();
        let host = memory.as_mut_ptr().cast::<u8>();
        let pad = host.align_offset(4096);
        assert!(pad < 4096, "memory can be aligned");
        // SAFETY: the box has a page to spare, lives as long as the machine and is touched through `ram` only.
        let ram = unsafe { GuestRam::new(host.add(pad), RAM.into(), RAM_SIZE.into()) };
        let model = if case.a9 {
            Model::cortex_a9(0, 1, 0x2c00_0000)
        } else {
            Model::cortex_a15(0, 1, 0x2c00_0000, 62_500_000)
        };
        let mut m = Self { cpu: Cpu::new(model), ram, bus: Devices::default(), length: case.length, _memory: memory };
        m.fill(case);
        m.core(case);
        m
    }

    /// Guest RAM.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    fn put(&self, at: u32, w: u32) {
        self.ram.write(at.into(), &w.to_le_bytes()).expect("in RAM");
    }

    fn fill(&self, case: &Case) {
        let mut s = Source::seeded(case.data);
        let mut page = [0; 0x4000];
        page.chunks_exact_mut(4).for_each(|w| w.copy_from_slice(&s.word().to_le_bytes()));
        self.ram.write(DATA.into(), &page).expect("in RAM");
        self.ram.write(CODE.into(), &case.code).expect("in RAM");
        self.vectors();
        self.tables(case.tables);
    }

    /// Handlers that come back behind the instruction that trapped, so that the guest goes on.
    fn vectors(&self) {
        let code = [
            0xe1a0_0000, // reset: as good as a NOP, falls into the next
            0xe1b0_f00e, // undefined: movs pc, lr
            0xe1b0_f00e, // SVC
            0xe1b0_f00e, // prefetch abort: lr is the address + 4
            0xe25e_f004, // data abort: subs pc, lr, #4
            0xe1b0_f00e, // unused
            0xe59f_d020, // IRQ: ldr sp, [pc, #32] (at +0x40)
            0xe59f_d01c, // FIQ and IRQ: ldr sp, [pc, #28] (at +0x40)
            0xe58d_e030, // str lr, [sp, #0x30]: lowers the lines
            0xe25e_f004, // subs pc, lr, #4
        ];
        code.iter().enumerate().for_each(|(i, w)| self.put(VECTORS + 4 * i as u32, *w));
        self.put(VECTORS + 0x40, MMIO);
    }

    /// RAM page by page at its own address, with random rights here and there; sections that show RAM and devices elsewhere, as code too.
    fn tables(&self, seed: u64) {
        let mut s = Source::seeded(seed);
        // The low RAM holds the tables themselves: 16 KiB of first level, read-only for nobody.
        let mut kinds = [0u32; 32];
        for k in &mut kinds {
            let attributes =
                s.pick(&[0x1_1c0e, 0x1_0c0e, 0x0c06, 0x0c12, 0x1_1c1e, 0x9c0e, 0x040e, 0x0c02, 0x2_1c0e, 0x1_1dee]);
            let base = s.pick(&[RAM, RAM, MMIO, 0x2000_0000, 0x9000_0000]);
            *k = if s.one_in(4) { s.word() & !3 } else { base | attributes };
        }
        for i in 0..4096u32 {
            self.put(RAM + 4 * i, kinds[(i.wrapping_mul(0x9e37_79b1) >> 27) as usize]);
        }
        self.put(RAM + 4 * (RAM >> 20), L2 | 1);
        self.put(RAM + 4 * (MMIO >> 20), MMIO | s.pick(&[0xc06, 0xc16, 0x1_1c0e, 0xc02]));
        for page in 0..256u32 {
            let plain = (RAM + page * 0x1000) | 0x47e;
            let odd = s.pick(&[0x43e, 0x47f, 0x45e, 0x67e, 0x41e, 0x472, 0xc7e, 0x00, 0x45f]);
            let away = (RAM + s.below(RAM_SIZE >> 12) * 0x1000) | 0x47e;
            let entry = match s.below(40) {
                0..=2 if page > 8 => plain & !0xfff | odd,
                3 | 4 if page > 8 => away,
                _ => plain,
            };
            self.put(L2 + 4 * page, entry);
        }
    }

    fn core(&mut self, case: &Case) {
        let c = &mut self.cpu;
        c.set_cpsr(case.cpsr);
        let modes = [Mode::Usr, Mode::Fiq, Mode::Irq, Mode::Svc, Mode::Abt, Mode::Und, Mode::Mon];
        for (i, m) in modes.into_iter().enumerate() {
            c.set_reg_of(m, 13, case.stacks[i]);
            c.banked.spsr[m.bank()] = if m == Mode::Usr { 0 } else { case.spsr[i] };
        }
        c.regs[..16].copy_from_slice(&case.regs);
        c.ext = case.ext;
        c.fpscr = case.fpscr;
        c.fpexc = if case.vfp { 1 << 30 } else { 0 };
        c.cp15.cpacr = if case.vfp { 0xf << 20 } else { 0 };
        c.cp15.nsacr = if case.vfp { 0xc00 } else { 0 };
        c.cp15.sctlr = [case.sctlr; 2];
        c.cp15.ttbr0 = [RAM.into(); 2];
        c.cp15.dacr = [case.dacr; 2];
        c.cp15.vbar = [VECTORS; 2];
        c.cp15.mvbar = VECTORS;
        c.cp15.scr = case.scr | case.tables as u32 & 1 & case.scr >> 1;
        c.update_context();
    }

    /// Runs the case to its end, at most `step` instructions in one call of the engine. A core that waits is woken by an interrupt.
    pub fn run(&mut self, engine: &mut dyn Engine, step: u64) {
        let mut woken = 0;
        while self.cpu.icount < self.length {
            let n = step.min(self.length - self.cpu.icount);
            match engine.run(&mut self.cpu, &self.ram, &mut self.bus, Budget::exactly(n)) {
                StopReason::Budget | StopReason::Exit => {}
                StopReason::Wait if woken < 50 => {
                    woken += 1;
                    self.bus.irq = true;
                }
                StopReason::Wait | StopReason::Halt => return,
            }
        }
    }

    /// What differs between this machine and another that ran the same case.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (a, b) = (&self.cpu, &other.cpu);
        let bytes = |c: &Cpu| {
            let mut v = Vec::new();
            hash_cpu(c, &mut |b| v.extend_from_slice(b));
            v
        };
        if a.halt.is_some() != b.halt.is_some() {
            return Some(format!("halted: {:?}, but {:?}", a.halt, b.halt));
        }
        if self.bus != other.bus {
            return Some(format!("bus: {:?}, but {:?}", self.bus, other.bus));
        }
        if bytes(a) != bytes(b) {
            return Some(format!("core: {:x?}\nbut {:x?}", a.save(), b.save()));
        }
        let mut page = [[0; 0x1000]; 2];
        (0..RAM_SIZE).step_by(0x1000).find_map(|at| {
            let pa = u64::from(RAM + at);
            self.ram.read(pa, &mut page[0]).expect("in RAM");
            other.ram.read(pa, &mut page[1]).expect("in RAM");
            let i = (0..0x1000).find(|&i| page[0][i] != page[1][i])?;
            Some(format!("RAM at {:#x}: {:#x}, but {:#x}", pa + i as u64, page[0][i], page[1][i]))
        })
    }

    /// Instructions retired, MMIO accesses, and whether the core ended in another mode than User, for statistics.
    pub fn summary(&self) -> (u64, u64, bool) {
        (self.cpu.icount, self.bus.accesses, self.cpu.mode != Mode::Usr)
    }
}
