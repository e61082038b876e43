//! Guest code to micro-ops, for the shapes that matter: golden files, to be looked at when they change.

use reprise_arm::translate::{BlockMode, translate};

fn mode(thumb: bool, it: u8) -> BlockMode {
    BlockMode {
        thumb,
        it,
        big_endian: false,
        privileged: true,
        vfp_access: true,
        simd_enabled: true,
        d32_enabled: true,
        vfp_vectors: false,
        extended: true,
    }
}

fn a32(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    translate(mode(false, 0), 0x8000, &bytes, 64).expect("whole instructions").to_string()
}

fn thumb(halves: &[u16], it: u8) -> String {
    let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
    translate(mode(true, it), 0x8000, &bytes, 64).expect("whole instructions").to_string()
}

#[test]
fn function_prologue_and_epilogue() {
    // push {r4, lr} ; sub sp, sp, #8 ; add sp, sp, #8 ; pop {r4, pc}
    insta::assert_snapshot!(a32(&[0xe92d_4010, 0xe24d_d008, 0xe28d_d008, 0xe8bd_8010]));
}

#[test]
fn compare_and_branch_keeps_its_flags() {
    // subs r0, r0, #1 ; cmp r0, #3 ; bne .-8: the first flags are dead, the second live at the exits
    insta::assert_snapshot!(a32(&[0xe250_0001, 0xe350_0003, 0x1aff_fffc]));
}

#[test]
fn flags_before_an_access_stay() {
    // subs r0, r0, #1 ; ldr r1, [r2] ; cmp r0, #3 ; b .
    insta::assert_snapshot!(a32(&[0xe250_0001, 0xe592_1000, 0xe350_0003, 0xeaff_fffe]));
}

#[test]
fn literal_loads_have_absolute_addresses() {
    // ldr r0, [pc, #16] ; ldr r1, [pc, #-8] ; add r2, pc, #4 ; bx lr
    insta::assert_snapshot!(a32(&[0xe59f_0010, 0xe51f_1008, 0xe28f_2004, 0xe12f_ff1e]));
}

#[test]
fn addressing_modes_write_back_after_the_access() {
    // ldr r0, [r1], #4 ; str r0, [r1, #-4]! ; ldr r2, [r3, r4, lsl #2] ; ldr r2, [r3], -r4 ; b .
    insta::assert_snapshot!(a32(&[0xe491_0004, 0xe521_0004, 0xe793_2104, 0xe613_2004, 0xeaff_fffe]));
}

#[test]
fn conditional_instructions_skip() {
    // ldreq r0, [r1] ; popne {pc} ; bhi .
    insta::assert_snapshot!(a32(&[0x0591_0000, 0x18bd_8000, 0x8aff_fffe]));
}

#[test]
fn an_it_block_is_static() {
    // cmp r0, #0 ; itte ne ; addne r0, #1 ; ldrne r1, [r2] ; moveq r0, #5 ; bx lr
    insta::assert_snapshot!(thumb(&[0x2800, 0xbf1a, 0x3001, 0x6811, 0x2005, 0x4770], 0));
}

#[test]
fn a_block_can_start_inside_an_it_block() {
    // ldrne r1, [r2] ; moveq r0, #5 ; bx lr, entered with IT = 0001:1010 -> second instruction
    insta::assert_snapshot!(thumb(&[0x6811, 0x2005, 0x4770], 0x14));
}

#[test]
fn system_instructions() {
    // mrc p15, 0, r0, c1, c0, 0 ; msr cpsr_c, r1 ; cpsid i ; movs pc, lr
    insta::assert_snapshot!(a32(&[0xee11_0f10, 0xe121_f001, 0xf10c_0080, 0xe1b0_f00e]));
}

#[test]
fn moves_of_constants_fold() {
    // movw r0, #0x5678 ; movt r0, #0x1234 ; ldr r1, [r0, #4] ; add r2, r0, r0 ; b .
    insta::assert_snapshot!(a32(&[0xe305_0678, 0xe341_0234, 0xe590_1004, 0xe080_2000, 0xeaff_fffe]));
}
