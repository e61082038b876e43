//! From instructions to micro-ops: the [`Builder`] that semantic functions emit to, and the translation of a block.
//!
//! The three encoding spaces share the semantic functions in the modules below; each is written once.

use std::cell::Cell;
use std::mem::replace;

use crate::decode::{A32, Reg, T16, T32, is_wide};
use crate::ir::{Block, FIRST_TEMP, HelperId, Hint, Insn, MAX_INSNS, MemKind, Op, PC_SLOT, SINK, Size, Uop, ZERO};
use crate::state::Cpu;

pub mod alu;
pub mod branch;
pub mod helpers;
pub mod media;
pub mod mem;
pub mod mul;
pub mod neon;
pub mod system;
pub mod vfp;

/// What the translation of an instruction depends on besides its bytes: with the address, the key of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockMode {
    /// Thumb state.
    pub thumb: bool,
    /// CPSR.IT at the first instruction.
    pub it: u8,
    /// CPSR.E.
    pub big_endian: bool,
    /// PL1.
    pub privileged: bool,
    /// CPACR (and NSACR) let this mode use coprocessors 10 and 11.
    pub vfp_access: bool,
    /// CPACR.ASEDIS is clear.
    pub simd_enabled: bool,
    /// D16 to D31 may be used: CPACR.D32DIS is clear.
    pub d32_enabled: bool,
    /// FPSCR.LEN or STRIDE is not 0: VFP data processing takes UNDEF on a core without short vectors.
    pub vfp_vectors: bool,
    /// The core has SDIV, UDIV and the fused multiply-accumulates (Cortex-A15), not just ARMv7-A with VFPv3 (Cortex-A9).
    pub extended: bool,
}

impl BlockMode {
    /// The mode that `cpu` is in now.
    pub fn of(cpu: &Cpu) -> Self {
        let vfp_access = cpu.cp10_allowed();
        let cpacr = cpu.cp15.cpacr;
        Self {
            thumb: cpu.t,
            it: cpu.it,
            big_endian: cpu.e,
            privileged: cpu.is_privileged(),
            vfp_access,
            simd_enabled: cpacr & 1 << 31 == 0,
            d32_enabled: cpacr & 1 << 30 == 0,
            vfp_vectors: cpu.fpscr & 0x0037_0000 != 0,
            extended: cpu.model.extended(),
        }
    }

    /// Packed for keys; distinct modes of one core give distinct values below 2^15. `extended` is not in it: the cores of a machine are of
    /// one model.
    pub fn pack(self) -> u32 {
        u32::from(self.it)
            | u32::from(self.thumb) << 8
            | u32::from(self.big_endian) << 9
            | u32::from(self.privileged) << 10
            | u32::from(self.vfp_access) << 11
            | u32::from(self.simd_enabled) << 12
            | u32::from(self.d32_enabled) << 13
            | u32::from(self.vfp_vectors) << 14
    }
}

/// Emits the micro-ops of one block.
pub struct Builder {
    mode: BlockMode,
    base: u32,
    pc: u32,
    size: u32,
    it: u8,
    cond: u8,
    word: u32,
    temp: u8,
    skip: Option<usize>,
    /// Instructions from here on run with FPEXC.EN set.
    fp_is_on: bool,
    ended: bool,
    out: Block,
}

impl Builder {
    /// An empty block at virtual address `pc`.
    pub fn new(mode: BlockMode, pc: u32) -> Self {
        let (uops, insn_of, insns) = SCRATCH.take();
        let out = Block { pc, uops, insn_of, insns, exits: [None; 2], len: 0, unknown: Vec::new() };
        let mut b = Self {
            mode,
            base: pc,
            pc,
            size: 4,
            it: mode.it,
            cond: 14,
            word: 0,
            temp: FIRST_TEMP,
            skip: None,
            fp_is_on: false,
            ended: false,
            out,
        };
        if mode.it != 0 {
            // Inside a block the side table knows the IT state; the CPU's own is 0 unless something has to see it.
            b.out.uops.push(Uop { op: Op::SetIt, d: SINK, a: 0, b: 0, imm: 0, aux: 0 });
            b.out.insn_of.push(0);
        }
        b
    }

    // ----- what is being translated -----

    /// The mode of the block.
    pub fn mode(&self) -> BlockMode {
        self.mode
    }

    /// Address of this instruction.
    pub fn pc(&self) -> u32 {
        self.pc
    }

    /// Address of the next instruction.
    pub fn next_pc(&self) -> u32 {
        self.pc.wrapping_add(self.size)
    }

    /// What reading r15 gives: this instruction's address + 8 (A32) or + 4 (Thumb).
    pub fn pc_value(&self) -> u32 {
        self.pc.wrapping_add(if self.mode.thumb { 4 } else { 8 })
    }

    /// `Align(PC, 4)`, the base of literal loads and ADR.
    pub fn pc_aligned(&self) -> u32 {
        self.pc_value() & !3
    }

    /// The encoding.
    pub fn word(&self) -> u32 {
        self.word
    }

    /// Whether this instruction stands in an IT block.
    pub fn in_it(&self) -> bool {
        self.it & 15 != 0
    }

    /// Whether it stands in an IT block, but not last.
    pub fn in_it_not_last(&self) -> bool {
        self.it & 7 != 0
    }

    /// The condition of this instruction (14 if unconditional).
    pub fn cond(&self) -> u8 {
        self.cond
    }

    /// Sets the IT state for the instructions that follow (the IT instruction).
    pub fn start_it(&mut self, it: u8) {
        // `advance` shifts after this instruction, so what it starts from is one step back: kept apart as a fresh state.
        self.it = it;
    }

    /// Whether an instruction has ended the block.
    pub fn ended(&self) -> bool {
        self.ended
    }

    // ----- operands -----

    /// A fresh temporary of this instruction.
    pub fn temp(&mut self) -> u8 {
        assert!(self.temp < ZERO, "an instruction uses too many temporaries");
        self.temp += 1;
        self.temp - 1
    }

    /// How many temporaries are in use, for [`Self::release`].
    pub fn mark(&self) -> u8 {
        self.temp
    }

    /// Gives back the temporaries made since `mark`: their values are not wanted any more.
    pub fn release(&mut self, mark: u8) {
        self.temp = mark;
    }

    /// A temporary holding `v`.
    pub fn imm(&mut self, v: u32) -> u8 {
        let t = self.temp();
        self.mov_imm(t, v);
        t
    }

    /// The slot to read register `r` from; r15 reads as the PC value.
    pub fn reg(&mut self, r: Reg) -> u8 {
        if r.0 == 15 { self.imm(self.pc_value()) } else { r.0 }
    }

    // ----- emission -----

    /// Emits one micro-op.
    pub fn emit(&mut self, op: Op, d: u8, a: u8, b: u8, imm: u32, aux: u32) {
        self.out.uops.push(Uop { op, d, a, b, imm, aux });
        self.out.insn_of.push(self.out.insns.len().saturating_sub(1) as u8);
    }

    /// `d = imm`.
    pub fn mov_imm(&mut self, d: u8, imm: u32) {
        self.emit(Op::MovImm, d, 0, 0, imm, 0);
    }

    /// `d = R[a]`.
    pub fn mov(&mut self, d: u8, a: u8) {
        if d != a {
            self.emit(Op::Mov, d, a, 0, 0, 0);
        }
    }

    /// A micro-op of two slots.
    pub fn op3(&mut self, op: Op, d: u8, a: u8, b: u8) {
        self.emit(op, d, a, b, 0, 0);
    }

    /// A micro-op of a slot and a constant.
    pub fn op_imm(&mut self, op: Op, d: u8, a: u8, imm: u32) {
        self.emit(op, d, a, 0, imm, 0);
    }

    /// A result in a fresh temporary.
    pub fn t3(&mut self, op: Op, a: u8, b: u8) -> u8 {
        let t = self.temp();
        self.op3(op, t, a, b);
        t
    }

    /// A result in a fresh temporary.
    pub fn t_imm(&mut self, op: Op, a: u8, imm: u32) -> u8 {
        let t = self.temp();
        self.op_imm(op, t, a, imm);
        t
    }

    /// `d = helper(R[a], R[b], imm)`.
    pub fn helper(&mut self, id: HelperId, d: u8, a: u8, b: u8, imm: u32) {
        self.emit(Op::Helper, d, a, b, imm, id.0.into());
    }

    /// `d = helper(imm, a, b)`, all constants; `d` may be [`SINK`].
    pub fn helper_k(&mut self, id: HelperId, d: u8, imm: u32, a: u8, b: u8) {
        self.emit(Op::HelperK, d, a, b, imm, id.0.into());
    }

    /// `d = system function(R[a], R[b], imm)`. It must come before any write of guest state by this instruction.
    pub fn sys(&mut self, id: HelperId, d: u8, a: u8, b: u8, imm: u32) {
        self.emit(Op::Sys, d, a, b, imm, id.0.into());
    }

    /// Puts `src` in register `r` as a data-processing result: for r15 it is a branch (ARM DDI 0406C A2.3.1 ALUWritePC).
    pub fn set_reg(&mut self, r: Reg, src: u8) {
        if r.0 == 15 { self.alu_write_pc(src) } else { self.mov(r.0, src) }
    }

    /// The slot to compute a data-processing result into; give it to [`Self::finish`] afterwards.
    pub fn dest(&mut self, r: Reg) -> u8 {
        if r.0 == 15 { self.temp() } else { r.0 }
    }

    /// Completes a result in a slot that [`Self::dest`] gave.
    pub fn finish(&mut self, r: Reg, slot: u8) {
        if r.0 == 15 {
            self.alu_write_pc(slot);
        }
    }

    // ----- memory -----

    /// Loads from `R[base] + off` to slot `d`.
    pub fn load(&mut self, kind: MemKind, d: u8, base: u8, off: u32) {
        let plain = !kind.user && kind.align == 0;
        match (kind.size, kind.signed) {
            (Size::Word, _) if plain => self.op_imm(Op::Ld32, d, base, off),
            (Size::Half, false) if plain => self.op_imm(Op::Ld16, d, base, off),
            (Size::Half, true) if plain => self.op_imm(Op::Ld16s, d, base, off),
            (Size::Byte, false) if plain => self.op_imm(Op::Ld8, d, base, off),
            (Size::Byte, true) if plain => self.op_imm(Op::Ld8s, d, base, off),
            _ => self.emit(Op::LdX, d, base, SINK, off, kind.pack()),
        }
        self.swap_loaded(kind, d);
    }

    /// Loads from `R[base] + (R[index] << shift)` to slot `d`.
    pub fn load_indexed(&mut self, kind: MemKind, d: u8, base: u8, index: u8, shift: u32) {
        if kind.user || kind.align != 0 || kind.size == Size::Dword {
            let t = self.temp();
            self.emit(Op::AddLsl, t, base, index, shift, 0);
            return self.load(kind, d, t, 0);
        }
        let op = match (kind.size, kind.signed) {
            (Size::Half, false) => Op::Ld16R,
            (Size::Half, true) => Op::Ld16sR,
            (Size::Byte, false) => Op::Ld8R,
            (Size::Byte, true) => Op::Ld8sR,
            _ => Op::Ld32R,
        };
        self.emit(op, d, base, index, shift, 0);
        self.swap_loaded(kind, d);
    }

    /// Loads two words from `R[base] + off`; word alignment is required.
    pub fn load_dual(&mut self, d: u8, d2: u8, base: u8, off: u32) {
        self.emit(Op::LdX, d, base, d2, off, MemKind::new(Size::Dword).aligned(2).pack());
        if self.mode.big_endian {
            self.op3(Op::Rev, d, d, 0);
            self.op3(Op::Rev, d2, d2, 0);
        }
    }

    /// Stores slot `s` to `R[base] + off`.
    pub fn store(&mut self, kind: MemKind, s: u8, base: u8, off: u32) {
        let s = self.swap_for_store(kind, s);
        let plain = !kind.user && kind.align == 0;
        match kind.size {
            Size::Word if plain => self.op_imm(Op::St32, s, base, off),
            Size::Half if plain => self.op_imm(Op::St16, s, base, off),
            Size::Byte if plain => self.op_imm(Op::St8, s, base, off),
            _ => self.emit(Op::StX, s, base, s, off, kind.pack()),
        }
    }

    /// Stores slot `s` to `R[base] + (R[index] << shift)`.
    pub fn store_indexed(&mut self, kind: MemKind, s: u8, base: u8, index: u8, shift: u32) {
        if kind.user || kind.align != 0 || kind.size == Size::Dword {
            let t = self.temp();
            self.emit(Op::AddLsl, t, base, index, shift, 0);
            return self.store(kind, s, t, 0);
        }
        let s = self.swap_for_store(kind, s);
        let op = match kind.size {
            Size::Half => Op::St16R,
            Size::Byte => Op::St8R,
            _ => Op::St32R,
        };
        self.emit(op, s, base, index, shift, 0);
    }

    /// Stores two words to `R[base] + off`; word alignment is required.
    pub fn store_dual(&mut self, s: u8, s2: u8, base: u8, off: u32) {
        let kind = MemKind::new(Size::Dword).aligned(2);
        let (s, s2) = (self.swap_for_store(kind, s), self.swap_for_store(kind, s2));
        self.emit(Op::StX, s, base, s2, off, kind.pack());
    }

    /// Loads the slots of `mask` from ascending words at `R[base] + off`; word alignment is required.
    pub fn load_multiple(&mut self, mask: u16, base: u8, off: u32) {
        self.emit(Op::Ldm, SINK, base, mask.count_ones() as u8, mask.into(), off);
        if self.mode.big_endian {
            for r in (0..16).filter(|r| mask >> r & 1 == 1) {
                self.op3(Op::Rev, r, r, 0);
            }
        }
    }

    /// Stores the slots of `mask` to ascending words at `R[base] + off`; word alignment is required. For slot 15 the caller puts a value in [`PC_SLOT`].
    pub fn store_multiple(&mut self, mask: u16, base: u8, off: u32) {
        if !self.mode.big_endian {
            return self.emit(Op::Stm, SINK, base, mask.count_ones() as u8, mask.into(), off);
        }
        // Probe and alignment are those of the whole, so the words must still go in one micro-op: swap into place, store, swap back.
        let regs = || (0..16).filter(|r| mask >> r & 1 == 1);
        let safe = self.temp();
        self.mov(safe, base);
        let keep: Vec<u8> = regs().map(|_| self.temp()).collect();
        for (r, k) in regs().zip(&keep) {
            self.op3(Op::Rev, *k, r, 0);
        }
        self.emit(
            Op::StX,
            keep[0],
            safe,
            keep.get(1).copied().unwrap_or(SINK),
            off,
            MemKind::new(Size::Word).aligned(2).pack(),
        );
        for (i, k) in keep.iter().enumerate().skip(1) {
            let off = off.wrapping_add(4 * i as u32);
            self.emit(Op::StX, *k, safe, SINK, off, MemKind::new(Size::Word).aligned(2).pack());
        }
    }

    /// Loads `count` words of extension registers from `ext[first]` on; `double` if they are doublewords (their word order follows the endianness).
    pub fn load_ext(&mut self, first: u32, count: u8, base: u8, off: u32, double: bool) {
        self.emit(Op::LdmExt, SINK, base, count, first, off);
        if !self.mode.big_endian {
            return;
        }
        for w in first..first + u32::from(count) {
            let t = self.t_imm(Op::ExtGet, 0, w);
            self.op3(Op::Rev, t, t, 0);
            self.op_imm(Op::ExtSet, SINK, t, w);
            self.temp -= 1;
        }
        for w in (first..first + u32::from(count)).step_by(2).filter(|_| double) {
            let (lo, hi) = (self.t_imm(Op::ExtGet, 0, w), self.t_imm(Op::ExtGet, 0, w + 1));
            self.op_imm(Op::ExtSet, SINK, lo, w + 1);
            self.op_imm(Op::ExtSet, SINK, hi, w);
            self.temp -= 2;
        }
    }

    /// Stores `count` words of extension registers from `ext[first]` on.
    pub fn store_ext(&mut self, first: u32, count: u8, base: u8, off: u32, double: bool) {
        if !self.mode.big_endian {
            return self.emit(Op::StmExt, SINK, base, count, first, off);
        }
        for i in 0..u32::from(count) {
            let t = self.t_imm(Op::ExtGet, 0, first + if double { i ^ 1 } else { i });
            self.op3(Op::Rev, t, t, 0);
            self.emit(Op::StX, t, base, SINK, off.wrapping_add(4 * i), MemKind::new(Size::Word).aligned(2).pack());
            self.temp -= 1;
        }
    }

    fn swap_loaded(&mut self, kind: MemKind, d: u8) {
        if self.mode.big_endian {
            match (kind.size, kind.signed) {
                (Size::Word, _) => self.op3(Op::Rev, d, d, 0),
                (Size::Half, false) => {
                    self.op3(Op::Rev, d, d, 0);
                    self.op_imm(Op::LsrImm, d, d, 16);
                }
                (Size::Half, true) => self.op3(Op::Revsh, d, d, 0),
                _ => {}
            }
        }
    }

    fn swap_for_store(&mut self, kind: MemKind, s: u8) -> u8 {
        if !self.mode.big_endian {
            return s;
        }
        match kind.size {
            Size::Byte => s,
            Size::Half => self.t3(Op::Rev16, s, 0),
            Size::Word | Size::Dword => self.t3(Op::Rev, s, 0),
        }
    }

    // ----- control flow -----

    /// Branches to the known address `target` in the same instruction set.
    pub fn branch(&mut self, target: u32) {
        self.set_it_after();
        self.out.exits[0] = Some(target);
        self.emit(Op::Jump, SINK, 0, 0, 0, 0);
        self.ended = true;
    }

    /// Branches to `target` if `op` ([`Op::JumpIf`] and its like; `d` is a condition, `a` a slot) says so.
    pub fn branch_if(&mut self, op: Op, d: u8, a: u8, target: u32) {
        self.out.exits = [Some(target), Some(self.next_pc())];
        self.emit(op, d, a, 0, 0, 0);
        self.ended = true;
    }

    /// BXWritePC(R[src]).
    pub fn bx(&mut self, src: u8, hint: Hint) {
        self.set_it_after();
        self.emit(Op::JumpReg, hint as u8, src, 0, 0, 0);
        self.ended = true;
    }

    /// BranchWritePC(R[src]).
    pub fn branch_reg(&mut self, src: u8, hint: Hint) {
        self.set_it_after();
        self.emit(Op::JumpRegSame, hint as u8, src, 0, 0, 0);
        self.ended = true;
    }

    /// ALUWritePC(R[src]): interworks in ARM state only.
    pub fn alu_write_pc(&mut self, src: u8) {
        if self.mode.thumb { self.branch_reg(src, Hint::None) } else { self.bx(src, Hint::None) }
    }

    /// Ends the block and continues with the next instruction through the dispatcher, because state that a block depends on may have changed.
    pub fn leave(&mut self) {
        self.set_it_after();
        let next = self.next_pc();
        self.emit(Op::Leave, SINK, 0, 0, next, 0);
        self.ended = true;
    }

    /// Ends the block where a system function has set the PC.
    pub fn leave_pc(&mut self) {
        self.emit(Op::LeavePc, SINK, 0, 0, 0, 0);
        self.ended = true;
    }

    /// Ends the block with `op`, one of `Svc`, `Smc`, `Wfi`, `Wfe`: the next instruction's address goes with it.
    pub fn end_with(&mut self, op: Op) {
        self.set_it_after();
        let next = self.next_pc();
        self.emit(op, SINK, 0, 0, next, 0);
        self.ended = true;
    }

    /// Takes the undefined-instruction exception.
    pub fn undef(&mut self) {
        let w = self.word;
        self.emit(Op::Undef, SINK, 0, 0, w, 0);
        self.ended = true;
    }

    /// What every UNPREDICTABLE instruction does here: UNDEF, and it is named once in the log. This is one of the choices that the architecture
    /// leaves open, it is the same on every host, and it shows a wrong program at once. Table lines keep out of this
    /// where a real core's behaviour is relied on by common software.
    pub fn unpredictable(&mut self) {
        self.unknown();
    }

    /// Takes UNDEF for an encoding that no line has, and names it in the log.
    pub fn unknown(&mut self) {
        self.out.unknown.push((self.pc, self.word));
        self.undef();
    }

    /// Checks that VFP instructions may run: CPACR at translation, where it emits UNDEF and gives `false` if they may not; FPEXC.EN when they do run.
    /// Systems that switch VFP state lazily clear EN for every process that uses none, so it is not in the block's key: all code would be
    /// translated twice.
    pub fn need_vfp(&mut self) -> bool {
        self.need_fp(self.mode.vfp_access)
    }

    /// As [`Self::need_vfp`] for Advanced SIMD instructions.
    pub fn need_simd(&mut self) -> bool {
        self.need_fp(self.mode.vfp_access && self.mode.simd_enabled)
    }

    fn need_fp(&mut self, access: bool) -> bool {
        if !access {
            self.undef();
        } else if !self.fp_is_on {
            let w = self.word;
            self.emit(Op::NeedFp, SINK, 0, 0, w, 0);
            // What changes EN ends its block, so one look is enough, unless a condition may skip it.
            self.fp_is_on = self.skip.is_none();
        }
        access
    }

    /// Checks that the mode has access to coprocessors 10 and 11, whatever FPEXC.EN says (VMRS and VMSR of FPEXC, FPSID, MVFRn).
    pub fn need_vfp_access(&mut self) -> bool {
        if !self.mode.vfp_access {
            self.undef();
        }
        self.mode.vfp_access
    }

    /// Checks that the core has SDIV, UDIV and the fused multiply-accumulates; emits UNDEF and gives `false` if not.
    pub fn need_extended(&mut self) -> bool {
        if !self.mode.extended {
            self.undef();
        }
        self.mode.extended
    }

    /// The IT state after this instruction.
    fn it_after(&self) -> u8 {
        if self.it & 7 == 0 { 0 } else { self.it & 0xe0 | (self.it << 1) & 0x1f }
    }

    fn set_it_after(&mut self) {
        let it = self.it_after();
        if it != 0 {
            self.emit(Op::SetIt, SINK, 0, 0, it.into(), 0);
        }
    }

    // ----- the block -----

    fn instruction(&mut self, word: u32, size: u32) {
        (self.word, self.size, self.temp) = (word, size, FIRST_TEMP);
        let (space, cond) = match (self.mode.thumb, size) {
            (false, _) => (&A32, (word >> 28) as u8),
            (true, 2) => (&T16, if self.in_it() { self.it >> 4 } else { 14 }),
            (true, _) => (&T32, if self.in_it() { self.it >> 4 } else { 14 }),
        };
        let line = space.lookup(word);
        self.cond = if line.is_some_and(|l| l.conditional) { cond.min(14) } else { 14 };
        self.out.insns.push(Insn {
            offset: self.pc.wrapping_sub(self.base) as u16,
            first: self.out.uops.len() as u16,
            it: self.it,
            size: size as u8,
        });
        if self.out.insns.len() == 1 {
            self.out.insns[0].first = 0;
        }
        self.skip = None;
        if self.cond < 14 {
            self.skip = Some(self.out.uops.len());
            self.emit(Op::SkipUnless, self.cond, 0, 0, 0, 0);
        }
        let was_it = self.it;
        match line {
            Some(l) => {
                crate::coverage::note(space, l);
                l.translate(word, self);
            }
            None => self.unknown(),
        }
        self.close_skip();
        if self.it == was_it {
            self.it = self.it_after();
        }
        self.pc = self.next_pc();
    }

    /// Ends a conditional instruction: the skip lands behind it, and if it ended the block, on a jump to the next instruction.
    fn close_skip(&mut self) {
        let Some(at) = self.skip else { return };
        let n = self.out.uops.len() - at - 1;
        if self.ended && n == 1 && self.out.uops[at + 1].op == Op::Jump {
            self.out.exits[1] = Some(self.next_pc());
            self.out.uops.truncate(at);
            self.out.insn_of.truncate(at);
            let c = self.cond;
            return self.emit(Op::JumpIf, c, 0, 0, 0, 0);
        }
        self.out.uops[at].imm = n as u32;
        if self.ended {
            self.set_it_after();
            self.out.exits[1] = Some(self.next_pc());
            self.emit(Op::Jump, SINK, 0, 0, 1, 0);
        }
    }

    fn finish_block(mut self) -> Block {
        self.out.len = self.pc.wrapping_sub(self.base);
        if !self.ended {
            // `it` is already that of the next instruction.
            if self.it != 0 {
                let it = self.it.into();
                self.emit(Op::SetIt, SINK, 0, 0, it, 0);
            }
            self.out.exits[0] = Some(self.pc);
            self.emit(Op::Jump, SINK, 0, 0, 0, 0);
        }
        crate::ir::opt::optimize(&mut self.out);
        let Block { uops, insn_of, insns, .. } = &mut self.out;
        let exact = (uops.clone(), insn_of.clone(), insns.clone());
        SCRATCH.set((emptied(uops, exact.0), emptied(insn_of, exact.1), emptied(insns, exact.2)));
        self.out
    }
}

/// Puts `exact` in the list's place and gives the list back, empty.
fn emptied<T>(list: &mut Vec<T>, exact: Vec<T>) -> Vec<T> {
    let mut list = replace(list, exact);
    list.clear();
    list
}

thread_local! {
    /// Room for a block's lists while it is made: blocks live long, so what they keep is cut to its size.
    static SCRATCH: Cell<(Vec<Uop>, Vec<u8>, Vec<Insn>)> = const { Cell::new((Vec::new(), Vec::new(), Vec::new())) };
}

/// Translates a block of at most `max` instructions at `pc`. `code` holds the bytes from `pc` to the end of its page, plus the two bytes after
/// that if the first instruction crosses the page. `None` if the first instruction is not whole in `code`.
pub fn translate(mode: BlockMode, pc: u32, code: &[u8], max: usize) -> Option<Block> {
    let mut b = Builder::new(mode, pc);
    let mut at = 0;
    while !b.ended && b.out.insns.len() < max.clamp(1, MAX_INSNS) {
        let half = |i: usize| Some(u16::from_le_bytes([*code.get(i)?, *code.get(i + 1)?]));
        let (word, size) = match (mode.thumb, half(at), half(at + 2)) {
            (false, Some(lo), Some(hi)) => (u32::from(hi) << 16 | u32::from(lo), 4),
            (true, Some(h), _) if !is_wide(h) => (h.into(), 2),
            (true, Some(h), Some(l)) => (u32::from(h) << 16 | u32::from(l), 4),
            _ => break,
        };
        b.instruction(word, size);
        at += size as usize;
    }
    (!b.out.insns.is_empty()).then(|| b.finish_block())
}

/// Whether slot `s` is a guest register.
pub fn is_guest(s: u8) -> bool {
    s < PC_SLOT
}
