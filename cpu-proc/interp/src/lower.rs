//! Micro-ops as the loop runs them: conditions become part of the operation, and frequent pairs become one.

use reprise_arm::ir::{Block, HELPERS, Op, SYS_FNS, Uop, ZERO};
use reprise_arm::state::REG_SPACE;

macro_rules! operations {
    (plain: $($plain:ident)*; cond: $($jump:ident $skip:ident $cond:literal)*; fused: $($(#[$doc:meta])* $fused:ident)*) => {
        /// An operation of the loop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(clippy::enum_variant_names)]
        pub(crate) enum X {
            $($plain,)*
            $($jump, $skip,)*
            $($(#[$doc])* $fused,)*
        }

        fn plain(op: Op, d: u8) -> X {
            match (op, d) {
                $((Op::$plain, _) => X::$plain,)*
                $((Op::JumpIf, $cond) => X::$jump, (Op::SkipUnless, $cond) => X::$skip,)*
                (Op::JumpIf | Op::SkipUnless, _) => panic!("a condition is below 14"),
            }
        }
    };
}

operations! {
    plain: Nop MovImm Mov Mvn Add AddImm AddLsl Sub RsbImm Adc Sbc And AndImm Orr OrrImm OrrLsl Eor EorImm Bic AddS AddSImm SubS SubSImm AdcS SbcS
        Cmp CmpImm Tst TstImm SetNz SetC SetCBit SetNz64 LslImm LsrImm AsrImm RorImm Rrx Lsl Lsr Asr Ror ShiftC Mul Umull Smull Udiv Sdiv Clz Rbit Rev
        Rev16 Revsh Sxtb Sxth Ubfx Sbfx Bfi Ld32 Ld16 Ld16s Ld8 Ld8s Ld32R Ld16R Ld16sR Ld8R Ld8sR St32 St16 St8 St32R St16R St8R LdX StX Ldm Stm
        LdmExt StmExt ExtGet ExtSet Ldrex Strex Clrex NeedFp Helper HelperK Sys Jump JumpIfZero JumpIfNotZero JumpReg JumpRegSame Leave LeavePc SetIt Undef Svc
        Smc Bkpt Wfi Wfe Stop;
    cond: JumpEq SkipEq 0 JumpNe SkipNe 1 JumpCs SkipCs 2 JumpCc SkipCc 3 JumpMi SkipMi 4 JumpPl SkipPl 5 JumpVs SkipVs 6 JumpVc SkipVc 7
        JumpHi SkipHi 8 JumpLs SkipLs 9 JumpGe SkipGe 10 JumpLt SkipLt 11 JumpGt SkipGt 12 JumpLe SkipLe 13;
    fused:
}

/// One operation with its operands: [`Uop`] with the operation replaced.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct XUop {
    pub(crate) op: X,
    pub(crate) d: u8,
    pub(crate) a: u8,
    pub(crate) b: u8,
    pub(crate) imm: u32,
    pub(crate) aux: u32,
}

impl XUop {
    /// One micro-op.
    pub(crate) fn new(u: Uop) -> Self {
        Self { op: plain(u.op, u.d), d: u.d, a: u.a, b: u.b, imm: u.imm, aux: u.aux }
    }
}

/// The loop's form of a block, one to one with its micro-ops, after checking everything that the loop relies on without checking:
/// slots are inside the register space, skips and exits inside the block, helpers exist, and the last operation ends the block.
pub(crate) fn lower(block: &Block) -> Box<[XUop]> {
    let n = block.uops.len();
    assert!(n == block.insn_of.len() && n > 0, "the side table covers the block");
    for (i, u) in block.uops.iter().enumerate() {
        verify(block, i, u);
    }
    assert!(block.uops[n - 1].op.ends_block(), "the last micro-op ends the block");
    block.uops.iter().map(|u| XUop::new(*u)).collect()
}

fn verify(block: &Block, i: usize, u: &Uop) {
    let slot = |s: u32| assert!((s as usize) < REG_SPACE, "a slot is out of range in {u:?}");
    slot(u.d.into());
    // `HelperK` holds constants there.
    if u.op != Op::HelperK {
        slot(u.a.into());
        slot(u.b.into());
    }
    assert!(u.d != ZERO || matches!(u.op, Op::SkipUnless | Op::JumpIf), "nothing writes the zero slot: {u:?}");
    assert!(usize::from(block.insn_of[i]) < block.insns.len(), "every micro-op belongs to an instruction");
    match u.op {
        Op::SkipUnless => assert!(u.d < 14 && i + 1 + (u.imm as usize) < block.uops.len(), "a skip stays in its block"),
        Op::Umull | Op::Smull => slot(u.imm),
        Op::Strex => {
            slot(u.imm & 0xff);
            slot(u.imm >> 8);
        }
        Op::Jump => assert!(u.imm < 2 && block.exits[u.imm as usize].is_some(), "an exit has a target"),
        Op::JumpIf | Op::JumpIfZero | Op::JumpIfNotZero => {
            assert!(u.d < 14 && block.exits.iter().all(Option::is_some), "both exits have targets");
        }
        Op::Helper | Op::HelperK => {
            assert!(
                HELPERS.get(u.aux as usize >> 8).is_some_and(|g| g.len() > u.aux as usize & 0xff),
                "no helper {}",
                u.aux
            );
        }
        Op::Sys => {
            assert!(
                SYS_FNS.get(u.aux as usize >> 8).is_some_and(|g| g.len() > u.aux as usize & 0xff),
                "no function {}",
                u.aux
            );
        }
        Op::Ldm | Op::Stm => {
            assert!(u.imm < 1 << 16 && u.imm != 0 && u.imm.count_ones() == u.b.into(), "a list of slots")
        }
        Op::LdmExt | Op::StmExt => assert!(u.b > 0 && u.imm as usize + usize::from(u.b) <= 64, "64 extension words"),
        Op::ExtGet | Op::ExtSet => assert!(u.imm < 64, "64 extension words"),
        Op::SetCBit
        | Op::LslImm
        | Op::LsrImm
        | Op::AsrImm
        | Op::RorImm
        | Op::AddLsl
        | Op::OrrLsl
        | Op::Ubfx
        | Op::Bfi => {
            assert!(u.imm < 32, "a shift is below 32");
        }
        Op::Sbfx => assert!(u.imm < 32 && (1..=32).contains(&(u.imm + u.aux)), "a field lies in a word"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reprise_arm::translate::{BlockMode, translate};

    /// Whatever the bytes are: they translate without a panic, in every mode, and the result passes `verify`.
    #[test]
    fn any_bytes_translate() {
        let mut x = 0x1234_5678_9abc_def0u64;
        let mut next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 32) as u32
        };
        for i in 0..40_000u32 {
            let mut bytes = [0u8; 64];
            for c in bytes.chunks_mut(4) {
                // Half of the words are in the SIMD and unconditional spaces, which need more operands.
                let w = if next() & 1 == 0 { next() } else { next() | 0xe000_0000 };
                let w = if i & 1 == 0 { w } else { w.rotate_right(16) };
                c.copy_from_slice(&w.to_le_bytes());
            }
            let mode = BlockMode {
                thumb: i & 1 != 0,
                it: if i & 7 == 1 { next() as u8 } else { 0 },
                big_endian: i & 2 != 0,
                privileged: i & 4 != 0,
                vfp_access: i & 0x30 != 0,
                simd_enabled: i & 0x300 != 0,
                d32_enabled: i & 0x400 == 0,
                vfp_vectors: i & 0x1800 == 0,
                extended: i & 0x2000 == 0,
            };
            let block = translate(mode, 0x8000, &bytes, 16).expect("whole instructions");
            assert_eq!(lower(&block).len(), block.uops.len());
            assert!(block.insns.len() <= 16);
        }
    }
}
