//! Loads and stores (ARM DDI 0406C A5.2.8, A5.3, A5.5, A6.3.5-A6.3.10).

use super::Builder;
use super::alu::{Shift, shifted};
use crate::decode::{Dual, DualReg, Excl, Mem, MemReg, Multi, Operand, Reg, Returns, StoreReturn};
use crate::ir::{Hint, MemKind, Op, PC_SLOT, SINK, Size};
use crate::sysop::id;

/// Addressing mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// `[rn, off]`.
    Offset,
    /// `[rn, off]!`.
    Pre,
    /// `[rn], off`.
    Post,
}

/// From the P and W bits.
pub fn indexing(p: u32, w: u32) -> Indexing {
    match (p, w) {
        (0, _) => Indexing::Post,
        (_, 0) => Indexing::Offset,
        _ => Indexing::Pre,
    }
}

/// A constant offset with its addressing mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Off {
    /// Bytes.
    pub off: i32,
    /// How it is applied.
    pub mode: Indexing,
}

/// An offset from P, U, W and its absolute value.
pub fn off(p: u32, u: u32, w: u32, imm: u32) -> Off {
    Off { off: if u == 0 { (imm as i32).wrapping_neg() } else { imm as i32 }, mode: indexing(p, w) }
}

/// A plain positive offset.
pub fn up(imm: u32) -> Off {
    Off { off: imm as i32, mode: Indexing::Offset }
}

impl Operand for Off {
    fn asm(&self, out: &mut String) {
        let o = self.off;
        out.push_str(&match self.mode {
            Indexing::Offset if o == 0 => "]".to_string(),
            Indexing::Offset => format!(", #{o}]"),
            Indexing::Pre => format!(", #{o}]!"),
            Indexing::Post => format!("], #{o}"),
        });
    }
}

/// A register offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegOff {
    /// The register.
    pub rm: Reg,
    /// It is subtracted.
    pub sub: bool,
    /// How it is shifted.
    pub sh: Shift,
    /// How it is applied.
    pub mode: Indexing,
}

/// A register offset from P, U, W, the register and its shift.
pub fn reg_off(p: u32, u: u32, w: u32, rm: u32, sh: Shift) -> RegOff {
    RegOff { rm: Reg(rm as u8), sub: u == 0, sh, mode: indexing(p, w) }
}

impl Operand for RegOff {
    fn asm(&self, out: &mut String) {
        let mut r = String::new();
        self.rm.asm(&mut r);
        self.sh.asm(&mut r);
        let sign = if self.sub { "-" } else { "" };
        out.push_str(&match self.mode {
            Indexing::Offset => format!(", {sign}{r}]"),
            Indexing::Pre => format!(", {sign}{r}]!"),
            Indexing::Post => format!("], {sign}{r}"),
        });
    }
}

impl Operand for MemKind {
    fn asm(&self, out: &mut String) {
        if self.signed {
            out.push('s');
        }
        out.push_str(["b", "h", "", "d"][self.size as usize]);
        if self.user {
            out.push('t');
        }
    }
}

/// A plain word.
pub const WORD: MemKind = MemKind::new(Size::Word);
/// A plain byte.
pub const BYTE: MemKind = MemKind::new(Size::Byte);
/// A plain halfword.
pub const HALF: MemKind = MemKind::new(Size::Half);

/// Byte if `b`, else word.
pub fn word_or_byte(b: u32) -> MemKind {
    if b != 0 { BYTE } else { WORD }
}

/// Word or byte with the T forms of A32: P clear and W set means User rights.
pub fn a32_kind(b: u32, p: u32, w: u32) -> MemKind {
    word_or_byte(b).user(p == 0 && w == 1)
}

/// The kinds of the extra loads and stores by their S and H bits (A5.2.8), with the T forms.
pub fn extra_kind(s: u32, h: u32, p: u32, w: u32) -> MemKind {
    (if h != 0 { HALF } else { BYTE }).signed(s != 0).user(p == 0 && w == 1)
}

/// The slot of the base register; r15 is the aligned PC.
fn base(b: &mut Builder, rn: Reg) -> u8 {
    if rn.0 == 15 { b.imm(b.pc_aligned()) } else { rn.0 }
}

/// Whether the registers of a single load or store with writeback make it UNPREDICTABLE.
fn bad_writeback(load: bool, rt: Reg, rn: Reg, mode: Indexing) -> bool {
    mode != Indexing::Offset && (rn.0 == 15 || load && rn == rt)
}

/// Loads or stores `rt`; gives true if the PC was loaded into its slot.
fn transfer(b: &mut Builder, load: bool, kind: MemKind, rt: Reg, at: u8, off: u32) {
    if load {
        b.load(kind, rt.0, at, off);
    } else {
        let s = b.reg(rt);
        b.store(kind, s, at, off);
    }
}

/// After a load: the branch, if the PC was loaded. A pop of the PC is a return.
fn branch_if_pc(b: &mut Builder, load: bool, rt: Reg, rn: Reg) {
    if load && rt.0 == 15 {
        b.bx(PC_SLOT, if rn.0 == 13 { Hint::Return } else { Hint::None });
    }
}

/// One load or store with a constant offset.
pub fn mem(b: &mut Builder, x: &Mem) {
    if bad_writeback(x.load, x.rt, x.rn, x.off.mode) || x.rt.0 == 15 && x.kind.size != Size::Word {
        return b.unpredictable();
    }
    let n = base(b, x.rn);
    let o = x.off.off as u32;
    let at = if x.off.mode == Indexing::Post { 0 } else { o };
    transfer(b, x.load, x.kind, x.rt, n, at);
    if x.off.mode != Indexing::Offset {
        b.op_imm(Op::AddImm, n, n, o);
    }
    branch_if_pc(b, x.load, x.rt, x.rn);
}

/// One load or store with a register offset.
pub fn mem_reg(b: &mut Builder, x: &MemReg) {
    let o = x.off;
    if bad_writeback(x.load, x.rt, x.rn, o.mode) || o.rm.0 == 15 || x.rt.0 == 15 && x.kind.size != Size::Word {
        return b.unpredictable();
    }
    let n = base(b, x.rn);
    if let (Indexing::Offset, false, Shift::Lsl(k)) = (o.mode, o.sub, o.sh) {
        if x.load {
            b.load_indexed(x.kind, x.rt.0, n, o.rm.0, k);
        } else {
            let s = b.reg(x.rt);
            b.store_indexed(x.kind, s, n, o.rm.0, k);
        }
        return branch_if_pc(b, x.load, x.rt, x.rn);
    }
    let m = shifted(b, o.rm, o.sh);
    let sum = b.t3(if o.sub { Op::Sub } else { Op::Add }, n, m);
    transfer(b, x.load, x.kind, x.rt, if o.mode == Indexing::Post { n } else { sum }, 0);
    if o.mode != Indexing::Offset {
        b.mov(n, sum);
    }
    branch_if_pc(b, x.load, x.rt, x.rn);
}

/// A preload: a hint without effect here.
pub fn preload(_b: &mut Builder, _x: &crate::decode::Nothing) {}

fn dual(b: &mut Builder, load: bool, (rt, rt2): (Reg, Reg), at: u8, off: u32) {
    if load {
        b.load_dual(rt.0, rt2.0, at, off);
    } else {
        b.store_dual(rt.0, rt2.0, at, off);
    }
}

fn bad_dual(b: &Builder, load: bool, rt: Reg, rt2: Reg, rn: Reg, mode: Indexing) -> bool {
    let odd = !b.mode().thumb && rt.0 & 1 != 0;
    let same = load && rt == rt2;
    let wb = mode != Indexing::Offset && (rn.0 == 15 || load && (rn == rt || rn == rt2));
    odd || rt.0 == 15 || rt2.0 == 15 || same || wb
}

/// LDRD, STRD with a constant offset.
pub fn mem_dual(b: &mut Builder, x: &Dual) {
    if bad_dual(b, x.load, x.rt, x.rt2, x.rn, x.off.mode) {
        return b.unpredictable();
    }
    let n = base(b, x.rn);
    let o = x.off.off as u32;
    dual(b, x.load, (x.rt, x.rt2), n, if x.off.mode == Indexing::Post { 0 } else { o });
    if x.off.mode != Indexing::Offset {
        b.op_imm(Op::AddImm, n, n, o);
    }
}

/// LDRD, STRD with a register offset.
pub fn mem_dual_reg(b: &mut Builder, x: &DualReg) {
    let o = x.off;
    let clash = x.load && (o.rm == x.rt || o.rm == x.rt2);
    if bad_dual(b, x.load, x.rt, x.rt2, x.rn, o.mode) || o.rm.0 == 15 || clash {
        return b.unpredictable();
    }
    let n = base(b, x.rn);
    let sum = b.t3(if o.sub { Op::Sub } else { Op::Add }, n, o.rm.0);
    dual(b, x.load, (x.rt, x.rt2), if o.mode == Indexing::Post { n } else { sum }, 0);
    if o.mode != Indexing::Offset {
        b.mov(n, sum);
    }
}

/// A register list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List(pub u32);

impl Operand for List {
    fn asm(&self, out: &mut String) {
        out.push('{');
        let mut sep = "";
        for r in (0..16u8).filter(|r| self.0 >> r & 1 == 1) {
            out.push_str(sep);
            Reg(r).asm(out);
            sep = ", ";
        }
        out.push('}');
    }
}

/// Which way a multiple transfer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Addresses go up from the base.
    pub up: bool,
    /// The base itself is not accessed.
    pub before: bool,
}

/// From the P and U bits.
pub fn way(p: u32, u: u32) -> Way {
    Way { up: u != 0, before: p != 0 }
}

impl Way {
    /// Offset of the lowest word from the base, for `n` words.
    fn start(self, n: u32) -> u32 {
        match (self.up, self.before) {
            (true, before) => 4 * u32::from(before),
            (false, before) => (4 * n).wrapping_neg().wrapping_add(4 * u32::from(!before)),
        }
    }

    /// What writeback adds to the base.
    fn step(self, n: u32) -> u32 {
        if self.up { 4 * n } else { (4 * n).wrapping_neg() }
    }
}

impl Operand for Way {
    fn asm(&self, out: &mut String) {
        out.push(if self.up { 'i' } else { 'd' });
        out.push(if self.before { 'b' } else { 'a' });
    }
}

/// LDM, STM, PUSH, POP.
pub fn mem_multi(b: &mut Builder, x: &Multi) {
    let list = x.list.0 & 0xffff;
    let n = list.count_ones();
    let in_list = list >> x.rn.0 & 1 == 1;
    if n == 0 || x.rn.0 == 15 || x.load && x.wb && in_list {
        return b.unpredictable();
    }
    let (start, step) = (x.way.start(n), x.way.step(n));
    if x.load {
        b.load_multiple(list as u16, x.rn.0, start);
    } else {
        if list >> 15 == 1 {
            let pc = b.pc_value();
            b.mov_imm(PC_SLOT, pc);
        }
        b.store_multiple(list as u16, x.rn.0, start);
    }
    if x.wb {
        b.op_imm(Op::AddImm, x.rn.0, x.rn.0, step);
    }
    if x.load && list >> 15 == 1 {
        b.bx(PC_SLOT, if x.rn.0 == 13 { Hint::Return } else { Hint::None });
    }
}

/// LDM and STM with `^`: User registers, or an exception return (B9.3.4-B9.3.6, B9.3.17).
pub fn mem_multi_user(b: &mut Builder, x: &Multi) {
    let list = x.list.0 & 0xffff;
    let n = list.count_ones();
    if n == 0 || x.rn.0 == 15 {
        return b.unpredictable();
    }
    if x.load && list >> 15 == 1 {
        if x.wb && list >> x.rn.0 & 1 == 1 {
            return b.unpredictable();
        }
        b.load_multiple(list as u16, x.rn.0, x.way.start(n));
        if x.wb {
            b.op_imm(Op::AddImm, x.rn.0, x.rn.0, x.way.step(n));
        }
        b.sys(id::EXCEPTION_RETURN, SINK, PC_SLOT, SINK, 0);
        return b.leave_pc();
    }
    if x.wb {
        return b.unpredictable();
    }
    let at = b.t_imm(Op::AddImm, x.rn.0, x.way.start(n));
    if x.load {
        b.sys(id::LDM_USER, SINK, at, SINK, list);
    } else {
        let pc = b.imm(b.pc_value());
        b.sys(id::STM_USER, SINK, at, pc, list);
    }
}

/// SRS.
pub fn store_return(b: &mut Builder, x: &StoreReturn) {
    let (start, step) = (x.way.start(2) & 0xff, x.way.step(2) & 0xff);
    let imm = x.mode | start << 8 | u32::from(x.wb) << 16 | step << 24;
    b.sys(id::SRS, SINK, SINK, SINK, imm);
}

/// RFE.
pub fn return_from_exception(b: &mut Builder, x: &Returns) {
    if x.rn.0 == 15 || b.in_it_not_last() {
        return b.unpredictable();
    }
    let at = b.t_imm(Op::AddImm, x.rn.0, x.way.start(2));
    let new = b.t_imm(Op::AddImm, x.rn.0, x.way.step(2));
    let wb = if x.wb { u32::from(x.rn.0) + 1 } else { 0 };
    b.sys(id::RFE, SINK, at, new, wb);
    b.leave_pc();
}

/// The access size of an exclusive by its two-bit field: word, doubleword, byte, halfword.
pub fn excl_size(n: u32) -> MemKind {
    MemKind::new([Size::Word, Size::Dword, Size::Byte, Size::Half][n as usize & 3])
}

/// LDREX and its kin.
pub fn load_excl(b: &mut Builder, x: &Excl) {
    let double = x.kind.size == Size::Dword;
    if x.rt.0 == 15 || x.rn.0 == 15 || double && (x.rt2.0 == 15 || !b.mode().thumb && x.rt.0 & 1 == 1) {
        return b.unpredictable();
    }
    b.emit(Op::Ldrex, x.rt.0, x.rn.0, if double { x.rt2.0 } else { SINK }, x.off, x.kind.pack());
    if b.mode().big_endian {
        swap(b, x.kind.size, x.rt.0, x.rt.0);
        if double {
            b.op3(Op::Rev, x.rt2.0, x.rt2.0, 0);
        }
    }
}

/// STREX and its kin.
pub fn store_excl(b: &mut Builder, x: &Excl) {
    let double = x.kind.size == Size::Dword;
    let clash = x.rd == x.rn || x.rd == x.rt || double && x.rd == x.rt2;
    let bad =
        x.rt.0 == 15 || x.rn.0 == 15 || x.rd.0 == 15 || double && (x.rt2.0 == 15 || !b.mode().thumb && x.rt.0 & 1 == 1);
    if clash || bad {
        return b.unpredictable();
    }
    let at = if x.off == 0 { x.rn.0 } else { b.t_imm(Op::AddImm, x.rn.0, x.off) };
    let (mut lo, mut hi) = (x.rt.0, if double { x.rt2.0 } else { SINK });
    if b.mode().big_endian {
        let t = b.temp();
        swap(b, x.kind.size, t, lo);
        lo = t;
        hi = if double { b.t3(Op::Rev, hi, 0) } else { hi };
    }
    b.emit(Op::Strex, x.rd.0, at, 0, u32::from(lo) | u32::from(hi) << 8, x.kind.pack());
}

fn swap(b: &mut Builder, size: Size, d: u8, a: u8) {
    match size {
        Size::Byte => b.mov(d, a),
        Size::Half => b.op3(Op::Rev16, d, a, 0),
        _ => b.op3(Op::Rev, d, a, 0),
    }
}

/// The kinds of T32 single transfers by their size and sign fields.
pub fn t32_kind(size: u32, signed: u32) -> MemKind {
    MemKind::new([Size::Byte, Size::Half, Size::Word, Size::Word][size as usize & 3]).signed(signed != 0)
}

/// The register list of a T32 STM, whose bits 15 and 13 are should-be-zero: `l` is bit 14 and bits 12:0.
pub fn t32_stm_list(l: u32) -> List {
    List((l >> 13 & 1) << 14 | l & 0x1fff)
}

/// A load that may branch must be last in an IT block.
pub fn mem_last(b: &mut Builder, x: &Mem) {
    if x.rt.0 == 15 && b.in_it_not_last() {
        return b.unpredictable();
    }
    mem(b, x);
}

/// As [`mem_last`], for POP.
pub fn mem_multi_last(b: &mut Builder, x: &Multi) {
    if x.list.0 >> 15 == 1 && b.in_it_not_last() {
        return b.unpredictable();
    }
    mem_multi(b, x);
}

/// T32 LDM, STM: no sp in the list of a load, not both lr and pc, at least two registers.
pub fn mem_multi_thumb(b: &mut Builder, x: &Multi) {
    let l = x.list.0;
    if l.count_ones() < 2 || l >> 13 & 1 == 1 || l >> 14 == 3 || !x.load && x.wb && l >> x.rn.0 & 1 == 1 {
        return b.unpredictable();
    }
    mem_multi_last(b, x);
}
