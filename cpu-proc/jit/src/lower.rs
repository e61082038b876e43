//! From micro-ops to host code: the driver, and what all lowerings share.
//!
//! Micro-ops are lowered one by one, in order. Hot code is emitted in line; what is rare goes behind the block (`Emitter::cold`). An operation without a
//! lowering of its own is *stepped*: the interpreter executes it on the state in memory, between a save and a reload of the registers.

mod alu;
mod flow;
mod mem;
mod structures;
mod system;

use crate::emit::{Emitter, Features};
use crate::flags::{CV, Carry, Copies, FlagState, InHost, Recipe, at};
use crate::fp::{Held, Mode};
use crate::thunks::Thunks;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use reprise_arm::fp::vfp_helpers::GROUP as VFP;
use reprise_arm::ir::opt::effects;
use reprise_arm::ir::{Block, Op, SINK, Uop};

/// The code of a block.
pub struct Compiled {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// For each exit, where it can be joined, as offsets from the first byte.
    pub sites: [Site; 2],
}

/// A jump of compiled code that can be led elsewhere. Offsets; 0: there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Site {
    /// The 32-bit displacement of the jump.
    pub jump: u32,
    /// Where it leads at first: code that puts flags in memory, if they are not there, and goes on to the engine.
    pub stub: u32,
    /// The displacement of the jump to the engine there; may be led to another block, too.
    pub second: u32,
    /// Where that one leads at first.
    pub leave: u32,
    /// The 32-bit constant that the fetch table's entry of the target is compared with, if the target lies in another page.
    pub guard: u32,
    /// The flags are not in memory at `jump`; a block that follows must know that they are to be had so. (`None` with code in the stub that saves
    /// them: they are where no other block can find them.)
    pub flags: Option<Recipe>,
    /// They are in memory.
    pub saved: bool,
    /// What is known of FPSCR there.
    pub fpscr: Option<Mode>,
    /// VFP registers that host registers hold there.
    pub held: Held,
}

/// What a compiled form of a block takes for granted on entry. The default is what can be entered from anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where the flags are, if not in memory.
    pub flags: Option<Recipe>,
    /// What is known of FPSCR.
    pub fpscr: Option<Mode>,
    /// VFP registers that host registers hold, as well as memory.
    pub held: Held,
}

/// Most micro-ops of a block that gets a form only to pass a recipe on.
const PASSED_ON: usize = 8;

/// Whether a block gains if it is entered with the flags in `recipe` instead of in memory: they die before the recipe does, or it is still good at the
/// end and goes on to the next block.
pub fn gains(block: &Block, recipe: Recipe) -> bool {
    let need = needs(block);
    let (mut now, mut copies) = (recipe, Copies::default());
    for (i, u) in block.uops.iter().enumerate() {
        if need[i] == 0 {
            return true;
        }
        if matches!(u.op, Op::Sys | Op::Ldrex | Op::Strex | Op::SkipUnless | Op::SetC | Op::SetCBit | Op::ShiftC) {
            return false;
        }
        if u.op.ends_block() {
            // A form of a long block costs more than it saves.
            return now == recipe
                && i < PASSED_ON
                && matches!(u.op, Op::Jump | Op::JumpIf | Op::JumpIfZero | Op::JumpIfNotZero);
        }
        let writes = writes(u);
        if need[i + 1] != 0 {
            for s in (0..64u8).filter(|s| writes >> s & 1 == 1) {
                let Some(r) = now.after(u, s, &copies) else { return false };
                now = r;
            }
        }
        copies.after(u, writes);
    }
    false
}

/// The slots that `u` writes, or may write.
fn writes(u: &Uop) -> u64 {
    match u.op {
        Op::Helper | Op::Sys => u64::MAX,
        Op::HelperK if !crate::fp::keeps_flags(u) => u64::MAX,
        Op::LdX | Op::Ldrex => effects(u).defs | 1 << u.b,
        _ => effects(u).defs,
    }
}

/// What a lowering knows besides the micro-ops.
pub struct Context<'a> {
    /// The block.
    pub block: &'a Block,
    /// Address of what the engine calls the block.
    pub code: u64,
    /// Its mode has T set.
    pub thumb: bool,
    /// It runs at PL1.
    pub privileged: bool,
    /// The number that the engine gave to the mode, in bits 31:28.
    pub mode: u32,
    /// The number of this compiled form.
    pub body: u32,
    /// What it takes for granted.
    pub entry: Entry,
    /// It looks at FPSCR first, and goes to this host address unless that is as `entry` says.
    pub otherwise: Option<u64>,
    /// Shared code.
    pub thunks: &'a Thunks,
    /// Host address at which the code will lie.
    pub base: usize,
    /// The host.
    pub features: Features,
}

/// A skip that is under way.
struct Join {
    /// Index of the micro-op at which the two ways meet.
    at: usize,
    label: DynamicLabel,
    state: FlagState,
    /// The body writes flags.
    writes_flags: bool,
}

/// The way of an exit to the engine.
#[derive(Clone, Copy)]
struct Stub {
    /// Where it begins.
    save: DynamicLabel,
    /// Behind its jump.
    second: DynamicLabel,
    /// Where that leads.
    leave: DynamicLabel,
}

/// One block being compiled.
struct Lower<'a> {
    e: Emitter,
    cx: Context<'a>,
    /// Flags needed on entry to each micro-op.
    need: Vec<u8>,
    f: FlagState,
    joins: Vec<Join>,
    /// Continues the block with the interpreter's help; `eax` is the micro-op.
    step: DynamicLabel,
    /// Ends the block with the interpreter's help; `eax` is the micro-op.
    resume: DynamicLabel,
    /// Leaves to the engine; `eax` is the reason.
    exit: DynamicLabel,
    sites: [Site; 2],
    stubs: [Option<Stub>; 2],
    /// The micro-op that is lowered, unless it is under a condition.
    now: Option<Uop>,
    /// Registers that are equal.
    copies: Copies,
    /// Micro-ops before this one were lowered together with an earlier one.
    done: usize,
}

/// Stands for an operation that nothing is known of.
const NOTHING: Uop = Uop { op: Op::Nop, d: SINK, a: 0, b: 0, imm: 0, aux: 0 };

/// Compiles a block.
pub fn compile(cx: Context<'_>) -> Compiled {
    let mut e = Emitter::new(cx.base, cx.features);
    e.helper = cx.thunks.helper;
    let (step, resume, exit) = (e.label(), e.label(), e.label());
    (e.fpscr, e.held) = (cx.entry.fpscr, cx.entry.held);
    let (need, flags) = (needs(cx.block), cx.entry.flags);
    let mut l = Lower {
        e,
        cx,
        need,
        f: match flags {
            None => FlagState::MEMORY,
            Some(r) => FlagState::later(r),
        },
        joins: Vec::new(),
        step,
        resume,
        exit,
        sites: [Site::default(); 2],
        stubs: [None; 2],
        now: None,
        copies: Copies::default(),
        done: 0,
    };
    l.block();
    let Lower { mut e, mut sites, stubs, .. } = l;
    for (site, stub) in sites.iter_mut().zip(stubs) {
        let Some(stub) = stub else { continue };
        let at = |label| e.asm.labels().resolve_dynamic(label).expect("stubs are placed").0 as u32;
        (site.stub, site.second, site.leave) = (at(stub.save), at(stub.second) - 4, at(stub.leave));
    }
    Compiled { bytes: e.asm.take().expect("all labels are placed"), sites }
}

/// Flags that are needed on entry to each micro-op: by a later reader, by an exit, or by the end of the block.
fn needs(block: &Block) -> Vec<u8> {
    let n = block.uops.len();
    let mut need = vec![15; n + 1];
    for i in (0..n).rev() {
        let u = &block.uops[i];
        let mut flags = need[i + 1];
        if u.op == Op::SkipUnless {
            flags |= need[(i + 1 + u.imm as usize).min(n)];
        }
        if !crate::fp::keeps_flags(u) {
            let e = effects(u);
            flags = flags & !e.fdef | e.fuse;
            if e.barrier {
                flags = 15;
            }
        }
        need[i] = flags;
    }
    need
}

impl Lower<'_> {
    fn block(&mut self) {
        self.head();
        for i in 0..self.cx.block.uops.len() {
            self.join(i);
            if i < self.done {
                continue;
            }
            self.f.forget(self.need[i]);
            let rest = self.rest(i);
            if let Some(moves) = crate::fp::Moves::find(rest) {
                self.clobber();
                moves.emit(&mut self.e);
                self.done = i + moves.len;
                continue;
            }
            if let Some((s, n)) = structures::Structure::find(rest) {
                self.e.held.clear();
                (self.now, self.copies) = (None, Copies::default());
                self.structure(i, n, &s);
                self.done = i + n;
                continue;
            }
            let u = self.cx.block.uops[i];
            self.hold(&u);
            self.now = Some(u).filter(|_| self.joins.is_empty());
            self.uop(i, &u);
            self.copies.after(&u, writes(&u));
        }
        self.tail();
    }

    /// Before `u`: forgets the VFP registers that it changes or whose host registers it may spoil. What is lowered without calls spoils none, accesses
    /// reload out of line ([`Self::cold_step`]), and what is stepped sees to it itself.
    fn hold(&mut self, u: &Uop) {
        let held = &mut self.e.held;
        match u.op {
            Op::ExtSet => held.forget(u.imm, 1),
            // Their lowerings see to it themselves.
            Op::LdmExt => {}
            Op::HelperK if u.aux >> 8 == u32::from(VFP) => {}
            Op::Helper | Op::HelperK => held.clear(),
            Op::Sys => {
                held.clear();
                // VMSR, for one.
                self.e.fpscr = None;
            }
            _ => {}
        }
    }

    /// The micro-ops from `i` on inside its instruction and the innermost skip.
    fn rest(&self, i: usize) -> &[Uop] {
        let b = self.cx.block;
        let same = b.insn_of[i..].iter().take_while(|n| **n == b.insn_of[i]).count();
        let end = self.joins.last().map_or(i + same, |j| j.at.min(i + same));
        &b.uops[i..end]
    }

    /// Takes the block's instructions from the budget.
    fn head(&mut self) {
        if let (Some(other), Some(mode)) = (self.cx.otherwise, self.cx.entry.fpscr) {
            self.clobber();
            crate::fp::expect(&mut self.e, mode, other);
        }
        let n = self.cx.block.insns.len() as i32;
        let (cold, exit, mut f) = (self.e.label(), self.exit, self.f);
        dynasm!(self.e.asm ; .arch x64 ; sub r15, n ; js =>cold);
        self.e.cold(move |e| {
            e.place(cold);
            f.save(e);
            dynasm!(e.asm ; .arch x64 ; mov eax, crate::thunks::BUDGET as i32 ; jmp =>exit);
        });
    }

    /// Shared ends, and everything cold.
    fn tail(&mut self) {
        self.e.finish_cold();
        let (step, resume, exit) = (self.step, self.resume, self.exit);
        let (code, t) = (self.cx.code as i64, self.cx.thunks);
        dynasm!(self.e.asm
            ; .arch x64
            ; =>step
            ; mov rcx, QWORD code
            ; jmp extern t.step as usize
            ; =>resume
            ; mov rcx, QWORD code
            ; jmp extern t.resume as usize
            ; =>exit
            ; mov rcx, QWORD code
            ; jmp extern t.exit as usize
        );
    }

    /// Ends the skips that end here.
    fn join(&mut self, i: usize) {
        while self.joins.last().is_some_and(|j| j.at == i) {
            let j = self.joins.pop().expect("just seen");
            self.copies = Copies::default();
            self.e.held.clear();
            let falls = !self.cx.block.uops[i - 1].op.ends_block();
            if falls && j.writes_flags {
                self.f.save(&mut self.e);
            }
            self.e.place(j.label);
            let mut other = j.state;
            other.forget(self.need[i]);
            self.f.forget(self.need[i]);
            self.f = if falls { self.f.meet(other) } else { other };
        }
    }

    // ----- what lowerings call -----

    /// EFLAGS will be lost.
    fn clobber(&mut self) {
        self.f.clobber(&mut self.e);
    }

    /// `d` will be written.
    fn writes(&mut self, d: u8) {
        if d != SINK {
            let now = self.now.unwrap_or(NOTHING);
            self.f.will_write(&mut self.e, d, &now, &self.copies);
        }
    }

    /// The interpreter executes micro-op `i`.
    fn stepped(&mut self, i: usize) {
        self.e.held.clear();
        self.f.save(&mut self.e);
        self.f = FlagState::MEMORY;
        let step = self.step;
        dynasm!(self.e.asm ; .arch x64 ; mov eax, i as i32 ; call =>step);
    }

    /// EFLAGS will be lost. Out of line: the interpreter executes micro-op `i`; `entry` leads there, `back` is where to go on.
    fn cold_step(&mut self, i: usize, entry: DynamicLabel, back: DynamicLabel) {
        self.clobber();
        let (mut f, step, held) = (self.f, self.step, self.e.held);
        self.e.cold(move |e| {
            e.place(entry);
            f.save(e);
            dynasm!(e.asm ; .arch x64 ; mov eax, i as i32 ; call =>step);
            held.reload(e);
            dynasm!(e.asm ; .arch x64 ; jmp =>back);
        });
    }

    // ----- conditions -----

    /// Emits a jump to `to` if condition `cond` (0-13) is what `want` says.
    fn jump_cond(&mut self, cond: u8, want: bool, to: DynamicLabel) {
        let cc = self.host_cond(if want { cond } else { cond ^ 1 });
        self.jcc(cc, to);
    }

    /// Makes EFLAGS such that the host's condition that it gives holds iff `cond` (0-13) does. EFLAGS may change, but what they are known to hold
    /// stays known. Spoils `eax`.
    fn host_cond(&mut self, cond: u8) -> u8 {
        let nz_only = matches!(cond, 0 | 1 | 4 | 5);
        let (c_only, v_only) = (matches!(cond, 2 | 3), matches!(cond, 6 | 7));
        let have = |h: Option<InHost>| {
            h.is_some_and(|h| if nz_only { h.nz } else { h.cv.is_some() && (h.nz || c_only || v_only) })
        };
        // What EFLAGS hold may do; else a recipe; else memory.
        if !have(self.f.host) {
            if nz_only && let Some(r) = self.f.nz {
                self.clobber();
                r.emit(&mut self.e);
                self.f.host = Some(InHost { nz: true, cv: None });
            } else if let (Some(r), None, false) = (self.f.full, self.f.nz, self.f.mem_nz) {
                self.clobber();
                let c = r.emit(&mut self.e);
                self.f.host = Some(InHost { nz: true, cv: Some(c) });
            }
        }
        if !have(self.f.host) {
            self.f.save(&mut self.e);
            self.f.host = None;
            return self.memory_cond(cond);
        }
        let direct = self.f.host.and_then(|h| h.cv) == Some(Carry::Direct);
        if matches!(cond, 8 | 9) && direct {
            dynasm!(self.e.asm ; .arch x64 ; cmc);
            if let Some(h) = &mut self.f.host {
                h.cv = Some(Carry::Borrow);
            }
        }
        match cond {
            2 | 3 => 2 | u8::from(direct == (cond == 3)),
            c => [4, 5, 0, 0, 8, 9, 0, 1, 7, 6, 13, 12, 15, 14][usize::from(c)],
        }
    }

    /// The same with the flags in memory; spoils EFLAGS.
    fn memory_cond(&mut self, cond: u8) -> u8 {
        let f = at();
        let a = &mut self.e.asm;
        match cond {
            0 | 1 => dynasm!(a ; .arch x64 ; test BYTE [BYTE rbp + f + 1], 0x40),
            2 | 3 => dynasm!(a ; .arch x64 ; cmp BYTE [BYTE rbp + f + 2], 0),
            4 | 5 => dynasm!(a ; .arch x64 ; test BYTE [BYTE rbp + f + 1], -128),
            6 | 7 => dynasm!(a ; .arch x64 ; cmp BYTE [BYTE rbp + f], 0),
            8 | 9 => {
                dynasm!(a ; .arch x64
                    ; movzx eax, BYTE [BYTE rbp + f + 1] ; shr eax, 6 ; and eax, 1 ; cmp BYTE [BYTE rbp + f + 2], al);
            }
            _ => dynasm!(a ; .arch x64 ; mov eax, [BYTE rbp + f] ; add al, 0x7f ; sahf),
        }
        match cond {
            0..=7 => 5 - (cond & 1),
            c => [7, 6, 13, 12, 15, 14][usize::from(c) - 8],
        }
    }

    /// A jump on a condition of the host.
    fn jcc(&mut self, cc: u8, to: DynamicLabel) {
        let a = &mut self.e.asm;
        match cc {
            0 => dynasm!(a ; .arch x64 ; jo =>to),
            1 => dynasm!(a ; .arch x64 ; jno =>to),
            2 => dynasm!(a ; .arch x64 ; jb =>to),
            3 => dynasm!(a ; .arch x64 ; jae =>to),
            4 => dynasm!(a ; .arch x64 ; je =>to),
            5 => dynasm!(a ; .arch x64 ; jne =>to),
            6 => dynasm!(a ; .arch x64 ; jbe =>to),
            7 => dynasm!(a ; .arch x64 ; ja =>to),
            8 => dynasm!(a ; .arch x64 ; js =>to),
            9 => dynasm!(a ; .arch x64 ; jns =>to),
            12 => dynasm!(a ; .arch x64 ; jl =>to),
            13 => dynasm!(a ; .arch x64 ; jge =>to),
            14 => dynasm!(a ; .arch x64 ; jle =>to),
            15 => dynasm!(a ; .arch x64 ; jg =>to),
            _ => panic!("parity is no condition of the guest's"),
        }
    }

    /// Host register `d` = host register `s` if `cc` holds.
    fn cmov(&mut self, cc: u8, d: u8, s: u8) {
        let (rex, modrm) = (0x40 | (d >> 3) << 2 | s >> 3, 0xc0 | (d & 7) << 3 | s & 7);
        dynasm!(self.e.asm ; .arch x64 ; .bytes [rex, 0x0f, 0x40 | cc, modrm]);
    }

    /// The guest's C in the host's carry for operation `i`, as `want` says; spoils `eax`. The other EFLAGS are lost.
    fn carry_in(&mut self, i: usize, want: Carry) {
        if let Some(InHost { cv: Some(c), .. }) = self.f.host {
            // What is dead behind this operation need not survive it.
            self.f.forget(self.need[i + 1]);
            if !self.f.recoverable() {
                self.f.save(&mut self.e);
            }
            // To save N and Z may have taken EFLAGS; then C is in memory.
            if self.f.host.is_some_and(|h| h.cv == Some(c)) {
                if c != want {
                    dynasm!(self.e.asm ; .arch x64 ; cmc);
                }
                self.f.host = None;
                return;
            }
        }
        self.clobber();
        self.f.save(&mut self.e);
        self.f.host = None;
        let f = at();
        match want {
            Carry::Direct => dynasm!(self.e.asm ; .arch x64 ; mov al, [BYTE rbp + f + 2] ; add al, -1),
            Carry::Borrow => dynasm!(self.e.asm ; .arch x64 ; cmp BYTE [BYTE rbp + f + 2], 1),
        }
    }

    /// An operation has set all flags in EFLAGS.
    fn set_all(&mut self, carry: Carry, recipe: Option<Recipe>) {
        self.f = FlagState::set(carry, recipe);
    }

    /// Called before operation `i`, which sets N and Z alone: C and V are put where they survive, what N and Z were is dead.
    fn before_nz(&mut self, i: usize) {
        if self.need[i + 1] & CV == 0 {
            self.f.mem_cv = true;
            self.f.full = None;
        }
        self.f.mem_nz = true;
        self.f.nz = None;
        self.f.host = self.f.host.filter(|h| h.cv.is_some()).map(|h| InHost { nz: false, ..h });
    }

    /// An operation has set N and Z in EFLAGS, and there is no other way to have them.
    fn set_nz(&mut self) {
        let kept = self.f;
        self.f =
            FlagState { mem_nz: false, mem_cv: true, host: Some(InHost { nz: true, cv: None }), full: None, nz: None };
        self.f.save(&mut self.e);
        self.f = FlagState { mem_nz: true, host: self.f.host, ..kept };
    }
}
