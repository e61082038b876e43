//! The emitter: an assembler, the register convention, and code that is put out of line.
//!
//! # Registers of compiled code
//! | host | what |
//! |---|---|
//! | `rbp` | [`Cpu`] |
//! | `rbx` | the current load table of the MMU |
//! | `r15` | budget left |
//! | `rsi rdi r8 r9 r10 r11 r12 r13 r14` | guest r0-r5, r12, sp, lr (`regs`) |
//! | `rdx` | first temporary of the micro-ops |
//! | `rax rcx`, `xmm0`-`xmm7` | scratch |
//! | `xmm8`-`xmm15` | copies of VFP registers, see [`crate::fp::Held`] |
//!
//! MXCSR is the default in compiled code: all exceptions masked, round to nearest, no flush to zero. Its flags mean nothing, but inside one
//! instruction's code that has cleared them first.

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm, x64::X64Relocation};
use reprise_arm::state::{Cpu, HostState};

use crate::fp::{Held, Mode};

/// The assembler.
pub type Asm = VecAssembler<X64Relocation>;

/// What the host's CPU can do beyond x86-64-v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// SSE4.1 and before.
    pub sse41: bool,
    /// AVX2 and BMI2.
    pub avx2: bool,
    /// FMA3.
    pub fma: bool,
}

impl Features {
    /// Those of this host.
    pub fn detect() -> Self {
        Self {
            sse41: is_x86_feature_detected!("sse4.1"),
            avx2: is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2"),
            fma: is_x86_feature_detected!("fma"),
        }
    }

    /// None: the path for the plainest host, for tests.
    pub fn none() -> Self {
        Self { sse41: false, avx2: false, fma: false }
    }
}

/// Code to be placed behind the hot code.
type Cold = Box<dyn FnOnce(&mut Emitter)>;

/// An assembler with a list of out-of-line code.
pub struct Emitter {
    /// The assembler.
    pub asm: Asm,
    /// What the host can do.
    pub features: Features,
    /// Host address of the code that calls a helper.
    pub helper: u64,
    /// `eax` holds this slot's value as long as nothing is emitted behind this offset.
    pub(crate) eax: Option<(usize, u8)>,
    /// What is known of FPSCR.
    pub fpscr: Option<Mode>,
    /// Results of VFP instructions in xmm8 and up. Whatever changes extension registers or calls must say so here.
    pub held: Held,
    cold: Vec<Cold>,
    pool: Vec<(u128, DynamicLabel)>,
}

impl Emitter {
    /// An empty one, for code that will lie at host address `base`.
    pub fn new(base: usize, features: Features) -> Self {
        Self {
            asm: VecAssembler::new(base),
            features,
            helper: 0,
            eax: None,
            fpscr: None,
            held: Held::default(),
            cold: Vec::new(),
            pool: Vec::new(),
        }
    }

    /// A label that can be jumped to before it is placed.
    pub fn label(&mut self) -> DynamicLabel {
        self.asm.new_dynamic_label()
    }

    /// Defers code: `f` emits it behind everything hot. It begins with a label that hot code jumps to and ends with a jump.
    pub fn cold(&mut self, f: impl FnOnce(&mut Emitter) + 'static) {
        self.cold.push(Box::new(f));
    }

    /// A constant in memory behind the code: the operand is `[=>label]`. It need not be aligned.
    pub fn constant(&mut self, v: u128) -> DynamicLabel {
        if let Some(&(_, l)) = self.pool.iter().find(|&&(x, _)| x == v) {
            return l;
        }
        let l = self.label();
        self.pool.push((v, l));
        l
    }

    /// Emits all deferred code, what that defers, and the constants.
    pub fn finish_cold(&mut self) {
        // Nothing is known out of line.
        self.held.clear();
        while !self.cold.is_empty() {
            for f in std::mem::take(&mut self.cold) {
                f(self);
            }
        }
        for (v, l) in std::mem::take(&mut self.pool) {
            dynasm!(self.asm ; .arch x64 ; .align 16 ; =>l ; .bytes v.to_le_bytes().iter());
        }
    }

    /// Places `label` here.
    pub fn place(&mut self, label: DynamicLabel) {
        self.eax = None;
        dynasm!(self.asm ; .arch x64 ; =>label);
    }
}

/// Offset of a slot of the register space from `rbp`.
pub fn slot(s: u8) -> i32 {
    (std::mem::offset_of!(Cpu, regs) + 4 * usize::from(s)) as i32
}

/// Offset of word `w` (0-63) of the extension registers from `rbp`.
pub fn ext(w: u32) -> i32 {
    assert!(w < 64, "64 extension words");
    (std::mem::offset_of!(Cpu, ext) + 4 * w as usize) as i32
}

/// Offset from `rbp` of a word for the host's MXCSR.
pub fn mxcsr() -> i32 {
    (std::mem::offset_of!(Cpu, host) + std::mem::offset_of!(HostState, mxcsr)) as i32
}

/// Offset of FPSCR from `rbp`.
pub fn fpscr() -> i32 {
    std::mem::offset_of!(Cpu, fpscr) as i32
}
