//! Micro-ops: what every instruction is translated to, and what every engine executes.
//!
//! # The machine
//! A block is a straight run of at most 64 instructions in one page, translated to [`Uop`]s of fixed size. Operands `d`, `a` and `b` index one
//! register space, [`crate::state::Cpu::regs`]: 0-14 are r0-r14, [`PC_SLOT`] (15) takes a PC that an instruction loads, [`FIRST_TEMP`] and up are temporaries
//! that live inside one *instruction*. [`SINK`] is a slot whose value nobody reads, [`ZERO`]
//! one that is always 0. Flags are in [`crate::state::Flags`], a word each.
//! PC, IT state and the instruction count are not touched on the way: a side table ([`Block::insn_of`], [`Block::insns`]) gives them for any micro-op.
//!
//! # Rules for semantic functions
//! - A micro-op that can fault (loads, stores, `Sys`) must come before any write of a guest register or flag by the same instruction,
//!   except for the destination of that load itself. So an abort needs no undo.
//! - A temporary holds a value only within its instruction.
//! - Skips go forward and stay inside one instruction.
//! - An instruction that can change the block key (mode, endianness, VFP enable, translation regime) ends its block with [`Op::Leave`] or
//!   [`Op::LeavePc`].
//!
//! # Helpers
//! What is too rare or too big for a micro-op is a function: [`Op::Helper`] calls `fn(&mut Cpu, u32, u32, u32) -> u32` on two register values and a
//! constant, [`Op::HelperK`] on three constants (register numbers, usually), and puts the result in `d`. They are listed in the const tables
//! [`HELPERS`] (one slice a group) and named by [`HelperId`], so that a JIT can call them by address. A helper neither touches memory nor
//! raises an exception; it may read and write any state of [`Cpu`] other than what selects the block key. [`Op::Sys`] calls a [`SysFn`], which gets the
//! bus and memory as well and may raise an exception.
//!
//! # How floating point adds to this
//! Table lines go to `isa/vfp.decode` and `isa/neon.decode` (`spaces a32 t32` makes both forms from the A32 pattern), semantic functions to
//! `translate/vfp.rs` and `translate/neon.rs`, helper functions to `fp/`, listed in its group tables. A semantic function calls
//! [`crate::translate::Builder::need_vfp`] or `need_simd` first. Data moves between temporaries and the extension registers with [`Op::ExtGet`] and [`Op::ExtSet`] (word numbers as in
//! [`Cpu::ext`]); loads and stores of consecutive words use [`Op::LdmExt`] and [`Op::StmExt`].

use crate::state::{Cpu, REG_SPACE};
use crate::sysop::SysFn;

pub mod opt;

/// Slot 15: where a load leaves a new PC until the branch that follows takes it.
pub const PC_SLOT: u8 = 15;
/// First temporary.
pub const FIRST_TEMP: u8 = 16;
/// Result slot of what has no result.
pub const SINK: u8 = (REG_SPACE - 1) as u8;
/// A slot that is always 0: the base of absolute addresses. Nothing writes it.
pub const ZERO: u8 = SINK - 1;
/// Most instructions in one block.
pub const MAX_INSNS: usize = 64;

/// What a micro-op does. `d`, `a`, `b` name slots; `R[x]` is a slot's value. "Flags" are N, Z, C, V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Nothing.
    Nop,
    /// `d = imm`.
    MovImm,
    /// `d = R[a]`.
    Mov,
    /// `d = !R[a]`.
    Mvn,
    /// `d = R[a] + R[b]`.
    Add,
    /// `d = R[a] + imm`.
    AddImm,
    /// `d = R[a] + (R[b] << imm)`, imm 0-31.
    AddLsl,
    /// `d = R[a] - R[b]`.
    Sub,
    /// `d = imm - R[a]`.
    RsbImm,
    /// `d = R[a] + R[b] + C`.
    Adc,
    /// `d = R[a] - R[b] - !C`.
    Sbc,
    /// `d = R[a] & R[b]`.
    And,
    /// `d = R[a] & imm`.
    AndImm,
    /// `d = R[a] | R[b]`.
    Orr,
    /// `d = R[a] | imm`.
    OrrImm,
    /// `d = R[a] | (R[b] << imm)`, imm 0-31.
    OrrLsl,
    /// `d = R[a] ^ R[b]`.
    Eor,
    /// `d = R[a] ^ imm`.
    EorImm,
    /// `d = R[a] & !R[b]`.
    Bic,
    /// `d = R[a] + R[b]`, all flags.
    AddS,
    /// `d = R[a] + imm`, all flags.
    AddSImm,
    /// `d = R[a] - R[b]`, all flags (C is NOT borrow).
    SubS,
    /// `d = R[a] - imm`, all flags.
    SubSImm,
    /// `d = R[a] + R[b] + C`, all flags.
    AdcS,
    /// `d = R[a] - R[b] - !C`, all flags.
    SbcS,
    /// Flags of `R[a] - R[b]`.
    Cmp,
    /// Flags of `R[a] - imm`.
    CmpImm,
    /// N, Z of `R[a] & R[b]`.
    Tst,
    /// N, Z of `R[a] & imm`.
    TstImm,
    /// N, Z of `R[a]`.
    SetNz,
    /// C = imm (0 or 1).
    SetC,
    /// C = bit `imm` of `R[a]`.
    SetCBit,
    /// N, Z of the 64-bit value `R[b]:R[a]`.
    SetNz64,
    /// `d = R[a] << imm`, imm 0-31.
    LslImm,
    /// `d = R[a] >> imm`, imm 0-31.
    LsrImm,
    /// `d = R[a] >> imm` (arithmetic), imm 0-31.
    AsrImm,
    /// `d = R[a]` rotated right by imm, 0-31.
    RorImm,
    /// `d = C:R[a] >> 1`: rotate right with extend.
    Rrx,
    /// `d = R[a] << (R[b] & 0xff)`, 0 from 32 on.
    Lsl,
    /// `d = R[a] >> (R[b] & 0xff)`, 0 from 32 on.
    Lsr,
    /// `d = R[a] >> (R[b] & 0xff)` arithmetic, all sign bits from 32 on.
    Asr,
    /// `d = R[a]` rotated right by `R[b] & 31`.
    Ror,
    /// `d = R[a]` shifted as imm says (0 LSL, 1 LSR, 2 ASR, 3 ROR) by `R[b] & 0xff`; C is the carry out, unchanged for amount 0.
    ShiftC,
    /// `d = R[a] * R[b]`, low half.
    Mul,
    /// `R[imm]:d = R[a] * R[b]`, unsigned; `imm` is the slot of the high half (written last).
    Umull,
    /// `R[imm]:d = R[a] * R[b]`, signed.
    Smull,
    /// `d = R[a] / R[b]`, unsigned, 0 if R[b] is 0.
    Udiv,
    /// `d = R[a] / R[b]`, signed, 0 if R[b] is 0, wraps.
    Sdiv,
    /// `d` = leading zeros of `R[a]`.
    Clz,
    /// `d = R[a]` with its bits reversed.
    Rbit,
    /// `d = R[a]` with its bytes reversed.
    Rev,
    /// `d = R[a]` with the bytes of each half reversed.
    Rev16,
    /// `d` = sign-extended low half of `R[a]` with its bytes reversed.
    Revsh,
    /// `d` = sign-extended low byte of `R[a]`.
    Sxtb,
    /// `d` = sign-extended low half of `R[a]`.
    Sxth,
    /// `d = (R[a] >> imm) & aux`.
    Ubfx,
    /// `d` = the `aux` bits of `R[a]` from bit `imm` on, sign-extended.
    Sbfx,
    /// `d = (R[a] & !aux) | ((R[b] << imm) & aux)`.
    Bfi,
    /// `d` = word at `R[a] + imm`. Unaligned allowed unless SCTLR.A or the memory type says no; so for all `Ld`/`St` below.
    Ld32,
    /// `d` = halfword at `R[a] + imm`, zero-extended.
    Ld16,
    /// `d` = halfword at `R[a] + imm`, sign-extended.
    Ld16s,
    /// `d` = byte at `R[a] + imm`, zero-extended.
    Ld8,
    /// `d` = byte at `R[a] + imm`, sign-extended.
    Ld8s,
    /// `d` = word at `R[a] + (R[b] << imm)`.
    Ld32R,
    /// `d` = halfword at `R[a] + (R[b] << imm)`, zero-extended.
    Ld16R,
    /// `d` = halfword at `R[a] + (R[b] << imm)`, sign-extended.
    Ld16sR,
    /// `d` = byte at `R[a] + (R[b] << imm)`, zero-extended.
    Ld8R,
    /// `d` = byte at `R[a] + (R[b] << imm)`, sign-extended.
    Ld8sR,
    /// Word `R[d]` to `R[a] + imm`.
    St32,
    /// Halfword `R[d]` to `R[a] + imm`.
    St16,
    /// Byte `R[d]` to `R[a] + imm`.
    St8,
    /// Word `R[d]` to `R[a] + (R[b] << imm)`.
    St32R,
    /// Halfword `R[d]` to `R[a] + (R[b] << imm)`.
    St16R,
    /// Byte `R[d]` to `R[a] + (R[b] << imm)`.
    St8R,
    /// `d` = value at `R[a] + imm`, as [`MemKind`] in `aux` says; a doubleword's high word goes to slot `b`.
    LdX,
    /// `R[d]` (high word `R[b]`) to `R[a] + imm`, as [`MemKind`] in `aux` says.
    StX,
    /// Loads the slots in the mask `imm` (bit n is slot n, `b` of them) from ascending words from `R[a] + aux` on. All or nothing: an abort changes
    /// no slot.
    Ldm,
    /// Stores the slots in the mask `imm` (`b` of them) to ascending words from `R[a] + aux` on. Bit 15 stores slot 15. Both pages are probed before the first store.
    Stm,
    /// Loads `b` words from `R[a] + aux` on into `ext[imm..]`. All or nothing.
    LdmExt,
    /// Stores `b` words from `ext[imm..]` to `R[a] + aux` on.
    StmExt,
    /// `d = ext[imm]`.
    ExtGet,
    /// `ext[imm] = R[a]`.
    ExtSet,
    /// `d` (and `b` for a doubleword) = value at `R[a] + imm`, exclusive; `aux` is a [`MemKind`].
    Ldrex,
    /// Stores slots `imm & 0xff` (and `imm >> 8` for a doubleword) to `R[a]` if the monitor holds; `d` = 0 if stored, 1 if not; `aux` is a [`MemKind`].
    Strex,
    /// Opens the local exclusive monitor.
    Clrex,
    /// Undefined-instruction exception at this instruction unless FPEXC.EN is set. `imm` is the encoding.
    NeedFp,
    /// Skips the next `imm` micro-ops unless condition `d` (0-13) holds.
    SkipUnless,
    /// `d = helper aux (R[a], R[b], imm)`.
    Helper,
    /// `d = helper aux (imm, a, b)` with constant `a` and `b`.
    HelperK,
    /// `d = system function aux (R[a], R[b], imm)`; may raise an exception or ask to leave the engine after this instruction.
    Sys,
    /// Ends the block: go to exit `imm`, a known address in the same state.
    Jump,
    /// Ends the block: exit 0 if condition `d` holds, else exit 1.
    JumpIf,
    /// Ends the block: exit 0 if `R[a] == 0`, else exit 1.
    JumpIfZero,
    /// Ends the block: exit 0 if `R[a] != 0`, else exit 1.
    JumpIfNotZero,
    /// Ends the block: `BXWritePC(R[a])`: bit 0 selects Thumb. `d` is a [`Hint`].
    JumpReg,
    /// Ends the block: `BranchWritePC(R[a])`: the instruction set stays. `d` is a [`Hint`].
    JumpRegSame,
    /// Ends the block: go to `imm` through the dispatcher, which looks at the mode, pending interrupts and requests to stop again.
    Leave,
    /// Ends the block: as `Leave`, with PC and state already set by the `Sys` before it.
    LeavePc,
    /// Sets the IT state to `imm` for whatever looks at the CPSR next.
    SetIt,
    /// Ends the block: undefined-instruction exception at this instruction (it does not retire). `imm` is the encoding.
    Undef,
    /// Ends the block: SVC. `imm` is the address of the next instruction.
    Svc,
    /// Ends the block: SMC. `imm` is the address of the next instruction.
    Smc,
    /// Ends the block: BKPT: a prefetch abort of the debug class.
    Bkpt,
    /// Ends the block: WFI; `imm` is the address of the next instruction.
    Wfi,
    /// Ends the block: WFE; `imm` is the address of the next instruction.
    Wfe,
    /// Stops the engine's loop before the instruction at `imm`. Engines append it; no semantic function emits it.
    Stop,
}

impl Op {
    /// Whether it ends a block: nothing behind it runs unless something skips to there.
    pub fn ends_block(self) -> bool {
        use Op::*;
        matches!(
            self,
            Jump | JumpIf
                | JumpIfZero
                | JumpIfNotZero
                | JumpReg
                | JumpRegSame
                | Leave
                | LeavePc
                | Undef
                | Svc
                | Smc
                | Bkpt
                | Wfi
                | Wfe
                | Stop
        )
    }
}

/// Branch hints in `d` of an indirect jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hint {
    /// Nothing known.
    None,
    /// A call: LR was set.
    Call,
    /// A return.
    Return,
}

/// One micro-op: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Uop {
    /// What to do.
    pub op: Op,
    /// Destination slot (source of stores).
    pub d: u8,
    /// First operand slot.
    pub a: u8,
    /// Second operand slot.
    pub b: u8,
    /// First constant.
    pub imm: u32,
    /// Second constant.
    pub aux: u32,
}

/// Access size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Dword,
}

/// A load or store of the general form, packed in `aux` of [`Op::LdX`], [`Op::StX`], [`Op::Ldrex`], [`Op::Strex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemKind {
    /// Access size.
    pub size: Size,
    /// Sign-extend.
    pub signed: bool,
    /// With user permissions whatever the mode (LDRT and so on).
    pub user: bool,
    /// Alignment that is required always, as log2 of bytes; 0: the natural one and only where SCTLR.A or the memory type asks for it.
    pub align: u8,
    /// The natural alignment, as log2 of bytes: that of `size`, or less where an access carries several elements (VLD1 and so on).
    pub natural: u8,
}

impl MemKind {
    /// A plain access of `size`.
    pub const fn new(size: Size) -> Self {
        Self { size, signed: false, user: false, align: 0, natural: size as u8 }
    }

    /// The same, but with a required alignment of `1 << log2` bytes.
    pub const fn aligned(mut self, log2: u8) -> Self {
        self.align = log2;
        self
    }

    /// The same, sign-extending if `signed`.
    pub const fn signed(mut self, signed: bool) -> Self {
        self.signed = signed;
        self
    }

    /// The same, with user permissions if `user`.
    pub const fn user(mut self, user: bool) -> Self {
        self.user = user;
        self
    }

    /// The same, made of elements of `1 << log2` bytes: that is its natural alignment.
    pub const fn elements(mut self, log2: u8) -> Self {
        self.natural = log2;
        self
    }

    /// As a word for `aux`.
    pub const fn pack(self) -> u32 {
        self.size as u32
            | (self.signed as u32) << 2
            | (self.user as u32) << 3
            | (self.align as u32) << 4
            | (self.natural as u32) << 8
    }

    /// From `aux`.
    pub const fn unpack(w: u32) -> Self {
        let size = match w & 3 {
            0 => Size::Byte,
            1 => Size::Half,
            2 => Size::Word,
            _ => Size::Dword,
        };
        Self { size, signed: w & 4 != 0, user: w & 8 != 0, align: (w >> 4 & 15) as u8, natural: (w >> 8 & 3) as u8 }
    }

    /// Address bits that must be 0 whatever the memory type and SCTLR.A say.
    pub const fn required_mask(self) -> u32 {
        (1 << self.align) - 1
    }

    /// Bytes accessed.
    pub const fn bytes(self) -> u32 {
        1 << self.size as u32
    }
}

/// A pure helper: see the module's text.
pub type HelperFn = fn(&mut Cpu, u32, u32, u32) -> u32;

/// Names an entry of [`HELPERS`] or [`SYS_FNS`]: group in bits 15:8, number in 7:0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelperId(pub u16);

impl HelperId {
    /// Entry `index` of group `group`.
    pub const fn new(group: u8, index: u8) -> Self {
        Self((group as u16) << 8 | index as u16)
    }
}

/// A named helper.
pub struct Helper {
    /// For dumps.
    pub name: &'static str,
    /// The function.
    pub f: HelperFn,
}

/// A named system function.
pub struct SysHelper {
    /// For dumps.
    pub name: &'static str,
    /// The function.
    pub f: SysFn,
}

/// All helpers by group: 0 integer, 1 VFP, 2 to 4 Advanced SIMD.
pub static HELPERS: [&[Helper]; 5] = [
    crate::translate::helpers::HELPERS,
    crate::fp::vfp_helpers::HELPERS,
    crate::fp::simd_helpers::SAME_HELPERS,
    crate::fp::simd_helpers::SHAPE_HELPERS,
    crate::fp::simd_helpers::MISC_HELPERS,
];

/// All system functions by group: 0 integer and system, 1 VFP.
pub static SYS_FNS: [&[SysHelper]; 2] = [crate::sysop::SYS_FNS, crate::fp::vfp_helpers::SYS_FNS];

/// What the side table knows of one instruction of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Its address minus the block's.
    pub offset: u16,
    /// Index of its first micro-op.
    pub first: u16,
    /// IT state (CPSR.IT) before it.
    pub it: u8,
    /// Size in bytes, 2 or 4.
    pub size: u8,
}

/// A translated block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Virtual address of the first instruction.
    pub pc: u32,
    /// The micro-ops; the last one always ends the block.
    pub uops: Vec<Uop>,
    /// For each micro-op, the number of its instruction.
    pub insn_of: Vec<u8>,
    /// The instructions.
    pub insns: Vec<Insn>,
    /// Known successors, for `Jump`, `JumpIf` and their like.
    pub exits: [Option<u32>; 2],
    /// Bytes of guest code covered.
    pub len: u32,
    /// Instructions that no table line matched: (address, encoding).
    pub unknown: Vec<(u32, u32)>,
}

impl std::fmt::Display for Block {
    /// One line an instruction, one a micro-op: for golden files and people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = usize::MAX;
        for (u, i) in self.uops.iter().zip(&self.insn_of) {
            let i = usize::from(*i);
            if i != shown {
                let insn = &self.insns[i];
                writeln!(f, "+{:#04x} ({}, IT {:#04x})", insn.offset, insn.size, insn.it)?;
                shown = i;
            }
            writeln!(f, "    {u}")?;
        }
        writeln!(f, "exits {:x?}", self.exits)
    }
}

impl std::fmt::Display for Uop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slot = |s: u8| match s {
            SINK => "-".to_string(),
            ZERO => "zero".to_string(),
            PC_SLOT => "pc".to_string(),
            s if s >= FIRST_TEMP => format!("t{}", s - FIRST_TEMP),
            s => format!("r{s}"),
        };
        let (d, a, b) = (slot(self.d), slot(self.a), slot(self.b));
        write!(f, "{:?} {d}, {a}, {b}, {:#x}, {:#x}", self.op, self.imm, self.aux)
    }
}
