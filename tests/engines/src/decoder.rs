//! The decoder and translator on any bytes.

use crate::source::Source;
use reprise_arm::decode::{disassemble_a32, disassemble_thumb};
use reprise_arm::ir::{FIRST_TEMP, MAX_INSNS, PC_SLOT};
use reprise_arm::translate::{BlockMode, translate};

/// A mode from 16 bits.
pub fn mode(bits: u32) -> BlockMode {
    BlockMode {
        thumb: bits & 0x100 != 0,
        // A32 has no IT state.
        it: if bits & 0x100 != 0 { bits as u8 } else { 0 },
        big_endian: bits & 0x200 != 0,
        privileged: bits & 0x400 != 0,
        vfp_access: bits & 0x800 != 0,
        simd_enabled: bits & 0x2000 != 0,
        d32_enabled: bits & 0x4000 != 0,
        vfp_vectors: bits & 0x8000 != 0,
        ..BlockMode::of(&core())
    }
}

fn core() -> reprise_arm::state::Cpu {
    reprise_arm::state::Cpu::new(reprise_arm::models::Model::cortex_a15(0, 1, 0x2c00_0000, 1))
}

/// Translates `code` at an address of `bits`' choice and checks what every engine relies on.
///
/// # Panics
/// If a rule of micro-ops is broken.
pub fn check(bits: u32, code: &[u8]) {
    let mode = mode(bits);
    let pc = (bits & 0xffff_0000).wrapping_add(0x4000) & if mode.thumb { !1 } else { !3 };
    for w in code.chunks_exact(4) {
        let w = u32::from_le_bytes(w.try_into().expect("four bytes"));
        // The text is for people, but it must not panic either.
        let _ = if mode.thumb { disassemble_thumb(w, 14) } else { disassemble_a32(w) };
    }
    let Some(block) = translate(mode, pc, code, MAX_INSNS) else {
        assert!(code.len() < 4, "a whole instruction translates");
        return;
    };
    assert!(!block.insns.is_empty() && block.insns.len() <= MAX_INSNS, "{block}");
    assert_eq!(block.uops.len(), block.insn_of.len(), "{block}");
    assert!(block.len as usize <= code.len() && block.len >= 2, "{block}");
    assert!(block.insn_of.windows(2).all(|w| w[0] <= w[1]), "instructions in order\n{block}");
    for i in 0..block.insns.len() {
        let insn = block.insns[i];
        assert!(u32::from(insn.offset) + u32::from(insn.size) <= block.len, "{block}");
        assert!(usize::from(insn.first) <= block.uops.len(), "{block}");
    }
    assert!(u32::from(PC_SLOT) < u32::from(FIRST_TEMP));
    // It translates the same again.
    assert_eq!(translate(mode, pc, code, MAX_INSNS).as_ref(), Some(&block));
    // And it prints.
    assert!(block.to_string().contains("exits"));
}

/// The check on what a seed makes.
pub fn seeded(seed: u64) {
    let mut s = Source::seeded(seed);
    let bits = s.word();
    let n = 1 + s.below(64) as usize;
    let code: Vec<u8> = (0..n).flat_map(|_| s.word().to_le_bytes()).collect();
    check(bits, &code);
}
