//! What a block wants to know of VFP registers and FPSCR on entry.

use reprise_arm::fp::vfp_helpers::{GROUP, Vfp};
use reprise_arm::ir::{Block, Op, Uop};

use super::cache::Scalar;
use super::{Held, TABLE};

/// Whether a block has operations whose lowering looks at FPSCR.
pub fn looks_at_fpscr(block: &Block) -> bool {
    block.uops.iter().any(|u| u.op == Op::HelperK && TABLE.looks(u))
}

/// What of `held` a block reads before it writes it.
pub fn of(block: &Block, held: &Held) -> Held {
    let (mut wanted, mut gone) = (Vec::new(), Vec::new());
    for u in &block.uops {
        let Some(reads) = reads(u) else { break };
        wanted.extend(reads.into_iter().filter(|s| !gone.iter().any(|&(word, count)| s.overlaps(word, count))));
        gone.extend(writes(u));
    }
    let mut held = held.for_next();
    held.keep(|s| wanted.contains(&s));
    held
}

/// The scalars that `u` takes from host registers; `None` if all of them are lost there.
fn reads(u: &Uop) -> Option<Vec<Scalar>> {
    let all = |dp: bool, registers: &[u32]| {
        Some(registers.iter().map(|n| Scalar { word: if dp { 2 * n } else { *n }, dp }).collect())
    };
    let (d, a, b) = (u.imm, u32::from(u.a), u32::from(u.b));
    match u.op {
        Op::StmExt => Some(transferred(u).into_iter().collect()),
        Op::HelperK if u.aux >> 8 == u32::from(GROUP) => {
            let id = (u.aux & 0xff) as u8;
            let upto = |last: Vfp| id <= last as u8;
            // Single and double precision alternate.
            let dp = id & 1 != 0;
            match () {
                () if upto(Vfp::DivD) => all(dp, &[a, b]),
                () if upto(Vfp::FnmsD) => all(dp, &[d, a, b]),
                () if upto(Vfp::SqrtD) => all(dp, &[a]),
                () if upto(Vfp::CmpeD) => all(dp, &[d, a]),
                () if upto(Vfp::CmpeZeroD) => all(dp, &[d]),
                () if id == Vfp::SingleToDouble as u8 => all(false, &[a]),
                () if id == Vfp::DoubleToSingle as u8 => all(true, &[a]),
                () if id >= Vfp::ToS32S as u8 && upto(Vfp::ToU32RzD) => all((id - Vfp::ToS32S as u8) & 1 != 0, &[a]),
                () => Some(Vec::new()),
            }
        }
        Op::HelperK | Op::Helper | Op::Sys | Op::SkipUnless => None,
        _ => Some(Vec::new()),
    }
}

/// The extension words that `u` writes for sure: the first and how many.
fn writes(u: &Uop) -> Option<(u32, u32)> {
    match u.op {
        Op::LdmExt => Some((u.imm, u.b.into())),
        Op::ExtSet => Some((u.imm, 1)),
        Op::HelperK if u.aux >> 8 == u32::from(GROUP) => {
            let id = (u.aux & 0xff) as u8;
            let arithmetic = id <= Vfp::SqrtD as u8;
            let double = id & 1 != 0 && arithmetic || id == Vfp::SingleToDouble as u8;
            match double {
                true => Some((2 * u.imm, 2)),
                false if arithmetic || id == Vfp::DoubleToSingle as u8 => Some((u.imm, 1)),
                false => None,
            }
        }
        _ => None,
    }
}

/// The one scalar that a VLDR or VSTR transfers.
pub fn transferred(u: &Uop) -> Option<Scalar> {
    match u.b {
        1 => Some(Scalar { word: u.imm, dp: false }),
        2 if u.imm % 2 == 0 => Some(Scalar { word: u.imm, dp: true }),
        _ => None,
    }
}
