//! Vectors through an engine: a guest loop that loads operands and FPSCR, computes, and stores the result and FPSCR.

use crate::{Input, Op};
use reprise_arm::bus::{After, At, Bus, BusFault, GuestRam};
use reprise_arm::engine::{Budget, Engine};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;

const RAM: u32 = 0x8000_0000;
const RAM_SIZE: usize = 4 << 20;
const TABLE: u32 = RAM + 0x4000;
const CODE: u32 = RAM + 0x1_0000;
const INPUT: u32 = RAM + 0x10_0000;
const OUTPUT: u32 = RAM + 0x30_0000;
/// Vectors in one go.
const BATCH: usize = 0x8000;
/// Instructions of one round of the loop.
const ROUND: u64 = 13;

struct NoBus;

impl Bus for NoBus {
    fn read(&mut self, _: At, _: u64, _: u8) -> Result<(u64, After), BusFault> {
        Err(BusFault)
    }
    fn write(&mut self, _: At, _: u64, _: u8, _: u64) -> Result<After, BusFault> {
        Err(BusFault)
    }
    fn vtime(&self, icount: u64) -> u64 {
        icount
    }
    fn lines(&self) -> (bool, bool) {
        (false, false)
    }
}

/// The A32 encoding of `op`: operands in d0, d1, d2 (s0, s2, s4), the result in d2 (s4).
fn encoding(op: Op, double: bool) -> u32 {
    let sz = u32::from(double) << 8;
    match op {
        Op::Add => 0xee30_2a01 | sz,
        Op::Sub => 0xee30_2a41 | sz,
        Op::Mul => 0xee20_2a01 | sz,
        Op::Div => 0xee80_2a01 | sz,
        Op::Sqrt => 0xeeb1_2ac0 | sz,
        Op::Fma => 0xeea0_2a01 | sz,
        Op::Fms => 0xeea0_2a41 | sz,
        Op::Cmp => 0xeeb4_0a41 | sz,
        Op::Cmpe => 0xeeb4_0ac1 | sz,
        Op::Convert => 0xeeb7_2ac0 | sz,
        Op::ToInt { unsigned, chop } => 0xeebd_2a40 ^ u32::from(unsigned) << 16 | u32::from(chop) << 7 | sz,
        Op::FromInt { unsigned } => 0xeeb8_2ac0 ^ u32::from(unsigned) << 7 | sz,
        Op::ToHalf => 0xeeb3_2a40,
        Op::FromHalf => 0xeeb2_2a40,
    }
}

/// A guest that computes with `instruction`.
pub struct Guest {
    cpu: Cpu,
    ram: GuestRam,
    engine: Box<dyn Engine>,
    _memory: Box<[u64]>,
}

impl Guest {
    /// A guest for one operation.
    pub fn new(engine: Box<dyn Engine>, op: Op, double: bool) -> Self {
        Self::with(engine, encoding(op, double))
    }

    /// A guest for an instruction that computes d2 from d0, d1 and d2.
    pub fn with(engine: Box<dyn Engine>, instruction: u32) -> Self {
        let mut memory = vec![0u64; RAM_SIZE / 8 + 512].into_boxed_slice();
        let host = memory.as_mut_ptr().cast::<u8>();
        let pad = host.align_offset(4096);
        assert!(pad < 4096, "memory can be aligned");
        // SAFETY: the box has a page to spare, lives as long as the guest and is touched through `ram` only.
        let ram = unsafe { GuestRam::new(host.add(pad), RAM.into(), RAM_SIZE as u64) };
        let put = |at: u32, w: u32| ram.write(at.into(), &w.to_le_bytes()).expect("in RAM");
        for mb in 0..(RAM_SIZE >> 20) as u32 {
            let va = RAM + (mb << 20);
            put(TABLE + (va >> 20) * 4, va | 0x1_1c0e);
        }
        let code = [
            0xed90_0b00, // vldr d0, [r0]
            0xed90_1b02, // vldr d1, [r0, #8]
            0xed90_2b04, // vldr d2, [r0, #16]
            0xe590_3018, // ldr r3, [r0, #24]
            0xeee1_3a10, // vmsr fpscr, r3
            instruction,
            0xeef1_3a10, // vmrs r3, fpscr
            0xed81_2b00, // vstr d2, [r1]
            0xe581_3008, // str r3, [r1, #8]
            0xe280_0020, // add r0, r0, #32
            0xe281_1010, // add r1, r1, #16
            0xe252_2001, // subs r2, r2, #1
            0x1aff_fff2, // bne back to the first
            0xeaff_fffe, // b .
        ];
        code.iter().enumerate().for_each(|(i, w)| put(CODE + 4 * i as u32, *w));
        let mut cpu = Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 62_500_000));
        cpu.cp15.ttbr0 = [TABLE.into(); 2];
        cpu.cp15.dacr = [1; 2];
        cpu.cp15.sctlr[0] |= 1;
        cpu.cp15.cpacr = 0xf << 20;
        cpu.fpexc = 1 << 30;
        cpu.update_context();
        Self { cpu, ram, engine, _memory: memory }
    }

    /// Results and FPSCR after each.
    pub fn run(&mut self, inputs: &[Input]) -> Vec<(u64, u32)> {
        inputs.chunks(BATCH).flat_map(|batch| self.batch(batch)).collect()
    }

    fn batch(&mut self, inputs: &[Input]) -> Vec<(u64, u32)> {
        let mut bytes = Vec::with_capacity(inputs.len() * 32);
        for i in inputs {
            i.x.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            bytes.extend_from_slice(&u64::from(i.fpscr).to_le_bytes());
        }
        self.ram.write(INPUT.into(), &bytes).expect("in RAM");
        self.cpu.regs[15] = CODE;
        (self.cpu.regs[0], self.cpu.regs[1], self.cpu.regs[2]) = (INPUT, OUTPUT, inputs.len() as u32);
        let want = self.cpu.icount + ROUND * inputs.len() as u64;
        while self.cpu.icount < want {
            let left = Budget::exactly(want - self.cpu.icount);
            self.engine.run(&mut self.cpu, &self.ram, &mut NoBus, left);
            assert!(self.cpu.halt.is_none(), "{:?}", self.cpu.halt);
        }
        assert_eq!(self.cpu.regs[15], CODE + 4 * ROUND as u32, "the loop has ended");
        let mut out = vec![0; inputs.len() * 16];
        self.ram.read(OUTPUT.into(), &mut out).expect("in RAM");
        let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
        out.chunks_exact(16).map(|r| (word(&r[..8]), word(&r[8..]) as u32)).collect()
    }
}
