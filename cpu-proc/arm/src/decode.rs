//! The decoder: tables that the build script makes from `isa/*.decode` (format: `docs/isa-tables.md`), and the lookup.

use crate::translate::Builder;

/// A general-purpose register number in an instruction, 0-15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(pub u8);

/// How an operand prints in assembler syntax.
pub trait Operand {
    /// Appends the operand to `out`.
    fn asm(&self, out: &mut String);
}

impl Operand for Reg {
    fn asm(&self, out: &mut String) {
        match self.0 {
            13 => out.push_str("sp"),
            14 => out.push_str("lr"),
            15 => out.push_str("pc"),
            n => {
                out.push('r');
                out.push_str(&n.to_string());
            }
        }
    }
}

impl Operand for u32 {
    fn asm(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
}

impl Operand for i32 {
    fn asm(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
}

impl Operand for u8 {
    fn asm(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
}

/// One line of a table.
pub struct Line {
    /// Name of the instruction and encoding, unique in its space.
    pub name: &'static str,
    /// Bits that must equal `value`.
    pub mask: u32,
    /// What they must equal.
    pub value: u32,
    /// Whether the instruction has a condition (A32: a condition field; T32 and T16: it obeys the IT block).
    pub conditional: bool,
    check: fn(u32) -> bool,
    run: fn(u32, &mut Builder),
    asm: fn(u32, &str, &mut String),
}

impl Line {
    /// Whether this line decodes `w`, all constraints included.
    pub fn matches(&self, w: u32) -> bool {
        w & self.mask == self.value && (self.check)(w)
    }

    /// Emits the micro-ops of `w` by calling the line's semantic function.
    pub fn translate(&self, w: u32, b: &mut Builder) {
        (self.run)(w, b);
    }

    /// The assembler text of `w`; `cond` is the condition suffix to print.
    pub fn disassemble(&self, w: u32, cond: &str) -> String {
        let mut s = String::new();
        (self.asm)(w, cond, &mut s);
        s
    }
}

/// One encoding space.
pub struct Space {
    /// `a32`, `t32` or `t16`.
    pub name: &'static str,
    /// All lines; in a group, the earlier one wins.
    pub lines: &'static [Line],
    index: &'static [u16],
    list: &'static [u16],
    key: fn(u32) -> usize,
}

impl Space {
    /// The line that decodes `w`, if any.
    pub fn lookup(&self, w: u32) -> Option<&'static Line> {
        let k = (self.key)(w);
        let bucket = &self.list[usize::from(self.index[k])..usize::from(self.index[k + 1])];
        bucket.iter().map(|&i| &self.lines[usize::from(i)]).find(|l| l.matches(w))
    }
}

/// What the tables cover: the space and name of every line, in table order. Tests and the oracle count against it.
pub fn coverage() -> impl Iterator<Item = (&'static str, &'static str)> {
    [&A32, &T32, &T16].into_iter().flat_map(|s| s.lines.iter().map(|l| (s.name, l.name)))
}

/// The name of a condition as an assembler suffix; `al` is empty.
pub fn cond_suffix(cond: u8) -> &'static str {
    const NAMES: [&str; 16] =
        ["eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "", ""];
    NAMES[usize::from(cond & 15)]
}

/// Whether the first halfword of a Thumb instruction says that a second one follows (ARM DDI 0406C A6.1).
pub fn is_wide(hw1: u16) -> bool {
    hw1 >> 11 >= 0b11101
}

/// Disassembles one A32 instruction, or `None` if no table line matches.
pub fn disassemble_a32(w: u32) -> Option<String> {
    Some(A32.lookup(w)?.disassemble(w, cond_suffix((w >> 28) as u8)))
}

/// Disassembles one Thumb instruction: 16-bit ones in the low half with the upper half 0, wide ones as `hw1 << 16 | hw2`.
pub fn disassemble_thumb(w: u32, cond: u8) -> Option<String> {
    let space = if w >> 16 == 0 { &T16 } else { &T32 };
    Some(space.lookup(w)?.disassemble(w, cond_suffix(cond)))
}

include!(concat!(env!("OUT_DIR"), "/isa.rs"));
