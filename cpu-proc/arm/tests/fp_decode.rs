//! Which floating-point and Advanced SIMD instructions may run when, and that any encoding translates in any mode.

use reprise_arm::decode::{A32, T32};
use reprise_arm::ir::{Block, Op};
use reprise_arm::translate::{BlockMode, translate};

const VADD_F32: u32 = 0xee30_0a01; // vadd.f32 s0, s0, s2
const VADD_F64: u32 = 0xee30_0b01; // vadd.f64 d0, d0, d1
const VADD_F64_HIGH: u32 = 0xee30_0b21; // vadd.f64 d0, d0, d17
const VADD_I8: u32 = 0xf200_0801; // vadd.i8 d0, d0, d1
const VADD_I8_HIGH: u32 = 0xf200_0821; // vadd.i8 d0, d0, d17
const VLD1: u32 = 0xf420_070f; // vld1.8 {d0}, [r0]
const VMOV_LANE_8: u32 = 0xee40_0b10; // vmov.8 d0[0], r0
const VMOV_LANE_32: u32 = 0xee00_0b10; // vmov.32 d0[0], r0
const VDUP_CORE: u32 = 0xee80_0b10; // vdup.32 d0, r0
const VCMP: u32 = 0xeeb4_0a41; // vcmp.f32 s0, s2
const VCVT: u32 = 0xeebd_0ac1; // vcvt.s32.f32 s0, s2
const VLDR: u32 = 0xed90_0b00; // vldr d0, [r0]
const VMOV_CORE: u32 = 0xee00_0a10; // vmov s0, r0
const VMOV_REG: u32 = 0xeeb0_0a41; // vmov.f32 s0, s2
const VMRS_FPSCR: u32 = 0xeef1_0a10; // vmrs r0, fpscr
const VMRS_FPEXC: u32 = 0xeef8_0a10; // vmrs r0, fpexc
const VMRS_FPSID: u32 = 0xeef0_0a10; // vmrs r0, fpsid
const VMSR_FPSCR: u32 = 0xeee1_0a10; // vmsr fpscr, r0
const VMSR_FPEXC: u32 = 0xeee8_0a10; // vmsr fpexc, r0

fn on() -> BlockMode {
    BlockMode {
        thumb: false,
        it: 0,
        big_endian: false,
        privileged: true,
        vfp_access: true,
        simd_enabled: true,
        d32_enabled: true,
        vfp_vectors: false,
        extended: true,
    }
}

fn block(mode: BlockMode, w: u32) -> Block {
    let w = if mode.thumb { w.rotate_left(16) } else { w };
    translate(mode, 0x8000, &w.to_le_bytes(), 1).expect("one whole instruction")
}

fn undefined(mode: BlockMode, w: u32) -> bool {
    let b = block(mode, w);
    assert!(b.unknown.is_empty(), "{w:08x} has a table line");
    b.uops.iter().any(|u| u.op == Op::Undef)
}

#[test]
fn everything_runs_when_all_is_on() {
    let all = [
        VADD_F32,
        VADD_F64,
        VADD_F64_HIGH,
        VADD_I8,
        VADD_I8_HIGH,
        VLD1,
        VMOV_LANE_8,
        VMOV_LANE_32,
        VDUP_CORE,
        VCMP,
        VCVT,
        VLDR,
        VMOV_CORE,
        VMOV_REG,
        VMRS_FPSCR,
        VMRS_FPEXC,
        VMRS_FPSID,
        VMSR_FPSCR,
        VMSR_FPEXC,
    ];
    for w in all {
        assert!(!undefined(on(), w), "{w:08x}");
    }
}

#[test]
fn fpexc_gates_all_but_the_system_registers() {
    let looks = |w| block(on(), w).uops.iter().any(|u| u.op == Op::NeedFp && u.imm == w);
    for w in [VADD_F32, VADD_I8, VLD1, VLDR, VMOV_CORE, VDUP_CORE, VMRS_FPSCR, VMSR_FPSCR] {
        assert!(looks(w), "{w:08x}");
    }
    // A lazy kernel turns the unit on through these.
    for w in [VMRS_FPEXC, VMRS_FPSID, VMSR_FPEXC] {
        assert!(!looks(w), "{w:08x}");
    }
}

#[test]
fn fpexc_is_looked_at_once_where_no_condition_is_in_the_way() {
    let looks = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let b = translate(on(), 0x8000, &bytes, 8).expect("whole instructions");
        assert_eq!(b.insns.len(), words.len());
        b.uops.iter().filter(|u| u.op == Op::NeedFp).count()
    };
    let if_equal = VADD_F32 & 0x0fff_ffff;
    assert_eq!(looks(&[VADD_F32, VLDR, VADD_F64]), 1);
    assert_eq!(looks(&[VADD_F32, if_equal, VLDR]), 1);
    assert_eq!(looks(&[if_equal, VLDR, VADD_F32]), 2, "the first look may be skipped");
}

#[test]
fn user_mode_reaches_no_system_register_but_fpscr() {
    let user = BlockMode { privileged: false, ..on() };
    for w in [VMRS_FPEXC, VMRS_FPSID, VMSR_FPEXC] {
        assert!(undefined(user, w), "{w:08x}");
    }
    assert!(!undefined(user, VMRS_FPSCR) && !undefined(user, VMSR_FPSCR));
}

#[test]
fn cpacr_gates_everything() {
    let none = BlockMode { vfp_access: false, ..on() };
    for w in [VADD_F32, VADD_I8, VLDR, VMRS_FPSCR, VMRS_FPEXC, VMSR_FPEXC, VMRS_FPSID] {
        assert!(undefined(none, w), "{w:08x}");
    }
    let no_simd = BlockMode { simd_enabled: false, ..on() };
    for w in [VADD_I8, VLD1, VMOV_LANE_8, VDUP_CORE] {
        assert!(undefined(no_simd, w), "{w:08x}");
    }
    for w in [VADD_F64, VADD_F64_HIGH, VMOV_LANE_32, VLDR, VMRS_FPSCR] {
        assert!(!undefined(no_simd, w), "{w:08x}");
    }
    let d16 = BlockMode { d32_enabled: false, ..on() };
    assert!(undefined(d16, VADD_F64_HIGH) && undefined(d16, VADD_I8_HIGH));
    assert!(!undefined(d16, VADD_F64) && !undefined(d16, VADD_I8) && !undefined(d16, VADD_F32));
}

/// Cortex-A9 has VFPv3, Advanced SIMDv1 and no divider (TRM DDI 0388 table 4-21 on, ID_ISAR0 and MVFR1).
#[test]
fn a_core_without_the_extensions_has_no_divide_and_no_fused_arithmetic() {
    let a9 = BlockMode { extended: false, ..on() };
    let a9_thumb = BlockMode { thumb: true, ..a9 };
    // sdiv, udiv, vfma.f32, vfma.f64, vfms.f32, vfnma.f32, vfnms.f64, and vfma.f32 q, vfms.f32 d of Advanced SIMD.
    let a32 = [
        0xe711_f211,
        0xe731_f211,
        0xeea0_0a20,
        0xeea0_0b00,
        0xeea0_0a60,
        0xee90_0a60,
        0xee90_0b00,
        0xf200_0c50,
        0xf220_0c10,
    ];
    for w in a32 {
        assert!(undefined(a9, w) && !undefined(on(), w), "{w:08x}");
    }
    for w in [0xfb91_f0f2, 0xfbb1_f0f2, 0xeea0_0a20, 0xef00_0c50] {
        assert!(undefined(a9_thumb, w) && !undefined(BlockMode { thumb: true, ..on() }, w), "T32 {w:08x}");
    }
    // vmla.f32, vcvtb.f32.f16, vcvt.f16.f32 of Advanced SIMD, smlad: these it has.
    for w in [0xee00_0a20, 0xeeb2_0a60, 0xf3b6_0602, 0xe700_3211] {
        assert!(!undefined(a9, w), "{w:08x}");
    }
}

#[test]
fn short_vectors_are_undefined_where_they_would_be_vectors() {
    let vectors = BlockMode { vfp_vectors: true, ..on() };
    for w in [VADD_F32, VADD_F64, VMOV_REG] {
        assert!(undefined(vectors, w), "{w:08x}");
    }
    for w in [VCMP, VCVT, VLDR, VMOV_CORE, VADD_I8, VMSR_FPSCR] {
        assert!(!undefined(vectors, w), "{w:08x}");
    }
}

#[test]
fn writes_that_change_the_block_key_end_the_block() {
    for w in [VMSR_FPSCR, VMSR_FPEXC] {
        let code: Vec<u8> = [w, VADD_F32].iter().flat_map(|w| w.to_le_bytes()).collect();
        let b = translate(on(), 0x8000, &code, 2).expect("translates");
        assert_eq!(b.insns.len(), 1);
        assert!(b.uops.iter().any(|u| u.op == Op::Leave));
    }
}

/// The T32 form of an A32 word of these spaces (ARM DDI 0406C A7.4, A7.7, A6.3.18).
fn to_t32(w: u32) -> u32 {
    match w >> 24 {
        0xf2 | 0xf3 => 0xef00_0000 | (w & 0x0100_0000) << 4 | w & 0x00ff_ffff,
        0xf4 => 0xf900_0000 | w & 0x00ff_ffff,
        _ => w,
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A word of the VFP and Advanced SIMD spaces.
    fn word(&mut self) -> u32 {
        let w = self.next();
        match self.next() % 3 {
            0 => 0xf200_0000 | w & 0x01ff_ffff,
            1 => 0xf400_0000 | w & 0x00ef_ffff,
            _ => 0xec00_0a00 | w & 0x02ff_f1ff,
        }
    }
}

#[test]
fn both_instruction_sets_decode_alike() {
    let mut rng = Rng(21);
    let mut hits = 0;
    for _ in 0..200_000 {
        let w = rng.word();
        let (a, t) = (A32.lookup(w).map(|l| l.name), T32.lookup(to_t32(w)).map(|l| l.name));
        assert_eq!(a, t, "{w:08x}");
        hits += u32::from(a.is_some());
    }
    assert!(hits > 50_000, "{hits} words hit a line");
}

#[test]
fn any_word_translates_in_any_mode() {
    let mut rng = Rng(22);
    for _ in 0..200_000 {
        let (w, k) = (rng.word(), rng.next());
        let bit = |i: u32| k >> i & 1 == 1;
        let mode = BlockMode {
            thumb: bit(0),
            it: 0,
            big_endian: bit(1),
            privileged: bit(2),
            vfp_access: !bit(3) || bit(8),
            simd_enabled: !bit(5) || bit(10),
            d32_enabled: bit(6),
            vfp_vectors: bit(7) && bit(11),
            extended: bit(12),
        };
        let b = block(mode, if mode.thumb { to_t32(w) } else { w });
        assert_eq!(b.insns.len(), 1);
    }
}
