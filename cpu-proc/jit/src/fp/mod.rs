//! Inline code for VFP and Advanced SIMD.
//!
//! The translator makes a call of a helper of almost every such instruction ([`reprise_arm::fp`]). Here each of those helpers that is
//! worth it has a *lowering*: host code with exactly the same effect on the extension registers and FPSCR.
//!
//! # Floating point
//! The hot path is the host's operation and a proof that its result is the architected one with no flag to set: FPSCR rounds to nearest,
//! does not flush to zero (VFP; Advanced SIMD always flushes), IXC is set already, and the result is normal and well above the smallest
//! normal ("sure", see [`reprise_arm::fp::ops`]). Under flush-to-zero the operands must not be denormal either. Out of line there is a second look:
//!
//! - at zeros: exact ones go back to the hot path;
//! - for VFP under flush-to-zero (programs built with `-ffast-math`): operands that are not denormal go back to the hot path;
//! - for VFP while IXC is clear: a result that is proven exact sets no flag;
//! - for SIMD while IXC is clear: the host's sticky inexact flag, cleared before and looked at after, proves the same.
//!
//! All else calls the helper with the untouched operands. So nothing of the host shows.
//!
//! # What is known of FPSCR
//! A block is compiled twice. In its general form FPSCR is looked at by each instruction anew: the helper that serves the odd case comes back to the
//! straight run, with IXC set or not. The other one looks once, before its first instruction, at whether FPSCR is as [`Mode`] says, and goes to the
//! general form if not. It stays so to the end of the block and beyond: the modes change with VMSR alone, which ends its block, and nothing
//! else clears IXC. So blocks that follow need not look at all. Under flush-to-zero operands have a look of their own, unless they are known: no
//! result is denormal there.

use std::sync::LazyLock;

use dynasmrt::DynamicLabel;
use reprise_arm::fp::fpscr::Fpscr;
use reprise_arm::fp::vfp_helpers::GROUP;
use reprise_arm::ir::{HELPERS, HelperId, Op, Uop};
use reprise_arm::state::{Cpu, FPEXC_EN};

use crate::emit::{Emitter, ext, fpscr};

pub use cache::Held;
pub use fuse::Moves;

/// Assembles for x86-64 into the emitter.
macro_rules! x {
    ($e:expr; $($t:tt)*) => {
        {
            #[allow(unused_imports)]
            use dynasmrt::{DynasmApi as _, DynasmLabelApi as _};
            dynasmrt::dynasm!($e.asm ; .arch x64 ; $($t)*);
        }
    };
}

/// Assembles one of several instructions, by lane size (log2 of bytes): two names for 16 and 32 bits, three for 8 to 32 (or, with `..`,
/// for 16 to 64), four for 8 to 64.
macro_rules! lanes {
    ($e:expr, $z:expr; .. $w:ident $d:ident $q:ident; $($t:tt)*) => {
        match $z { 1 => { x!($e; $w $($t)*) } 2 => { x!($e; $d $($t)*) } _ => { x!($e; $q $($t)*) } }
    };
    ($e:expr, $z:expr; $b:ident $w:ident $d:ident $q:ident; $($t:tt)*) => {
        match $z { 0 => { x!($e; $b $($t)*) } 1 => { x!($e; $w $($t)*) } 2 => { x!($e; $d $($t)*) } _ => { x!($e; $q $($t)*) } }
    };
    ($e:expr, $z:expr; $b:ident $w:ident $d:ident; $($t:tt)*) => {
        match $z { 0 => { x!($e; $b $($t)*) } 1 => { x!($e; $w $($t)*) } _ => { x!($e; $d $($t)*) } }
    };
    ($e:expr, $z:expr; $w:ident $d:ident; $($t:tt)*) => {
        if $z == 1 { x!($e; $w $($t)*) } else { x!($e; $d $($t)*) }
    };
}

/// Assembles the single- or double-precision instruction.
macro_rules! fp {
    ($e:expr, $p:expr; $s:ident / $d:ident $($t:tt)*) => {
        if $p.dp { x!($e; $d $($t)*) } else { x!($e; $s $($t)*) }
    };
}

/// The same with register `n` as the last operand: the copy that is held, or memory.
macro_rules! fp_of {
    ($e:expr, $p:expr, $n:expr; $s:ident / $d:ident $($x:tt)*) => {
        if let Some(k) = $p.held($e, $n) {
            fp!($e, $p; $s / $d $($x)*, Rx(k))
        } else {
            fp!($e, $p; $s / $d $($x)*, [rbp + $p.at($n)])
        }
    };
}

mod cache;
mod convert;
mod exact;
mod fuse;
mod moves;
mod prim;
mod scalar;
mod shift;
mod vector_float;
mod vector_int;
pub mod wants;

/// What FPSCR says where it is known: to nearest, IXC set, and this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No flush-to-zero.
    Gradual,
    /// Flush-to-zero.
    Flush,
}

impl Mode {
    /// The bits of FPSCR that it is about.
    pub const MASK: u32 = Fpscr::RMODE | Fpscr::FZ | Fpscr::IXC;

    /// The mode of a program that runs with this FPSCR, should IXC be or become set; `None` if it does not round to nearest.
    pub fn of(fpscr: u32) -> Option<Self> {
        match fpscr & (Fpscr::RMODE | Fpscr::FZ) {
            0 => Some(Self::Gradual),
            Fpscr::FZ => Some(Self::Flush),
            _ => None,
        }
    }

    /// The value of [`Self::MASK`]'s bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Gradual => Fpscr::IXC,
            Self::Flush => Fpscr::IXC | Fpscr::FZ,
        }
    }
}

/// Jumps to `other`, a host address, unless FPSCR is as `mode` says and FPEXC.EN is set. Spoils `eax`.
pub(crate) fn expect(e: &mut Emitter, mode: Mode, other: u64) {
    let fpexc = std::mem::offset_of!(Cpu, fpexc) as i32;
    x!(e; test DWORD [rbp + fpexc], FPEXC_EN as i32 ; jz extern other as usize);
    x!(e; mov eax, Mode::MASK as i32 ; and eax, [rbp + fpscr()] ; cmp eax, mode.bits() as i32 ; jne extern other as usize);
}

/// Emits a complete call of the helper of a micro-op. It may clobber rax, rcx and all of xmm, and keeps all else.
pub type Call = fn(&mut Emitter, &Uop);

/// A micro-op on its way through a lowering.
#[derive(Clone, Copy)]
struct Ctx {
    u: Uop,
    call: Call,
    /// Unpacked register numbers of Advanced SIMD.
    d: u32,
    n: u32,
    m: u32,
    /// Two doublewords.
    q: bool,
    /// Shift amount, lane, or what the row says.
    b: u32,
    /// What to reload after a call.
    held: Held,
}

impl Ctx {
    fn new(u: &Uop, call: Call) -> Self {
        let byte = |at: u32| u.imm >> at & 0xff;
        Self { u: *u, call, d: byte(0), n: byte(8), m: byte(16), q: u.a == 2, b: u.b.into(), held: Held::default() }
    }

    /// No odd register in a quadword operation. The translator sees to it; lowerings that read all before they write rely on it.
    fn aligned(&self) -> bool {
        !self.q || (self.d | self.n | self.m) & 1 == 0
    }

    /// Loads D or Q register `r`; the high half is zero for a D.
    fn load(&self, e: &mut Emitter, x: u8, r: u32) {
        if self.q { load_q(e, x, r) } else { load_d(e, x, r) }
    }

    /// Stores D or Q register `r`.
    fn store(&self, e: &mut Emitter, x: u8, r: u32) {
        if self.q { store_q(e, x, r) } else { store_d(e, x, r) }
    }

    /// The same, for code out of line, behind the instruction's effect on what is held.
    fn after(&self, e: &Emitter) -> Self {
        Self { held: e.held, ..*self }
    }

    /// Out of line: at `entry` calls the helper and goes on at `done`.
    fn helper_at(&self, e: &mut Emitter, entry: DynamicLabel, done: DynamicLabel) {
        let c = self.after(e);
        e.cold(move |e| {
            e.place(entry);
            c.helper(e, done);
        });
    }

    /// Calls the helper and jumps to `done`.
    fn helper(&self, e: &mut Emitter, done: DynamicLabel) {
        (self.call)(e, &self.u);
        self.held.reload(e);
        x!(e; jmp =>done);
    }
}

fn load_d(e: &mut Emitter, x: u8, r: u32) {
    x!(e; movq Rx(x), QWORD [rbp + ext(2 * r)]);
}

fn store_d(e: &mut Emitter, x: u8, r: u32) {
    x!(e; movq QWORD [rbp + ext(2 * r)], Rx(x));
}

fn load_q(e: &mut Emitter, x: u8, r: u32) {
    x!(e; movups Rx(x), [rbp + ext(2 * r)]);
}

fn store_q(e: &mut Emitter, x: u8, r: u32) {
    x!(e; movups [rbp + ext(2 * r)], Rx(x));
}

/// Jumps to `slow` unless FPSCR lets VFP arithmetic take the host's result as it is: to nearest, no flush-to-zero, IXC set.
fn check_vfp(e: &mut Emitter, slow: DynamicLabel) {
    x!(e; mov eax, Mode::MASK as i32 ; and eax, [rbp + fpscr()] ; cmp eax, Fpscr::IXC as i32 ; jne =>slow);
}

/// Jumps to `slow` if denormal operands are flushed to zero.
fn check_fz(e: &mut Emitter, slow: DynamicLabel) {
    x!(e; test BYTE [rbp + fpscr() + 3], (Fpscr::FZ >> 24) as i8 ; jnz =>slow);
}

/// Jumps to `no` unless IXC is set.
fn check_ixc(e: &mut Emitter, no: DynamicLabel) {
    if e.fpscr.is_some() {
        return;
    }
    x!(e; test BYTE [rbp + fpscr()], Fpscr::IXC as i8 ; jz =>no);
}

/// Emits one helper's effect, or says that it can't.
type Lowering = Box<dyn Fn(&mut Emitter, &Ctx) -> bool + Send + Sync>;

/// The lowerings by helper id.
struct Table {
    lowerings: Vec<Option<Lowering>>,
    /// Which of them look at FPSCR.
    looks: Vec<bool>,
    /// Those that are put now do.
    looking: bool,
}

impl Table {
    fn put(&mut self, id: HelperId, f: impl Fn(&mut Emitter, &Ctx) -> bool + Send + Sync + 'static) {
        let i = usize::from(id.0);
        assert!(self.lowerings[i].is_none(), "helper {:#x} has two lowerings", id.0);
        self.lowerings[i] = Some(Box::new(f));
        self.looks[i] = self.looking;
    }

    fn get(&self, u: &Uop) -> Option<&Lowering> {
        self.lowerings.get(u.aux as usize)?.as_ref()
    }

    /// Whether the lowering of a helper looks at FPSCR.
    fn looks(&self, u: &Uop) -> bool {
        self.looks.get(u.aux as usize).is_some_and(|l| *l)
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let n = HELPERS.len() * 256;
    let mut t = Table { lowerings: (0..n).map(|_| None).collect(), looks: vec![false; n], looking: true };
    scalar::register(&mut t);
    convert::register(&mut t);
    vector_float::register(&mut t);
    t.looking = false;
    vector_int::register(&mut t);
    shift::register(&mut t);
    moves::register(&mut t);
    t
});

/// Emits the effect of the helper call `u` ([`Op::HelperK`]) inline, with `call` for cases that need the helper after all; it emits
/// nothing and returns false if there is no inline form.
///
/// A helper with a result (`InterleavedWord`) leaves it in `eax`, like one that was called.
pub fn lower(e: &mut Emitter, u: &Uop, call: Call) -> bool {
    if u.aux >> 8 != u32::from(GROUP) {
        e.held.clear();
    }
    let done = u.op == Op::HelperK && TABLE.get(u).is_some_and(|f| f(e, &Ctx::new(u, call)));
    if !done {
        // The caller calls.
        e.held.clear();
    }
    done
}

/// As [`lower`] for a helper on a register value ([`Op::Helper`]): the code expects `R[u.a]` in `eax`. No such helper has a result.
pub fn lower_value(e: &mut Emitter, u: &Uop) -> bool {
    e.held.clear();
    u.op == Op::Helper && moves::lower_value(e, u)
}

/// Whether `u` is a helper's call that neither reads nor writes the flags and always comes back: no operation of [`lower`]'s can fault.
pub fn keeps_flags(u: &Uop) -> bool {
    u.op == Op::HelperK && TABLE.get(u).is_some()
}

/// Whether [`lower`] has a form for a helper on some host; for tests and statistics.
pub fn known(id: HelperId) -> bool {
    TABLE.lowerings.get(usize::from(id.0)).is_some_and(Option::is_some)
}
