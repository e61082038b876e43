//! Guest code to host code, for the shapes that matter: golden files, to be looked at when they change. What the micro-ops are stands in
//! those of `reprise-arm`. After a change that is wanted: `INSTA_UPDATE=always cargo test -p reprise-jit --test host_code`.
#![cfg(target_arch = "x86_64")]

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter, OpKind, Register, SymbolResolver,
    SymbolResult,
};
use reprise_arm::ir::{FIRST_TEMP, SINK, ZERO};
use reprise_arm::translate::{BlockMode, translate};
use reprise_jit::emit::{Features, ext, fpscr, slot};
use reprise_jit::flags::{self, Recipe};
use reprise_jit::fp::{Held, Mode};
use reprise_jit::lower::{Context, Entry, compile};
use reprise_jit::thunks::Thunks;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Where the code is said to lie.
const BASE: u64 = 0x1000_0000;
/// What the block is said to be called.
const BLOCK: u64 = 0x2000_0000;
const THUNKS: Thunks =
    Thunks { enter: 0x0f00_0000, exit: 0x0f00_0100, step: 0x0f00_0200, resume: 0x0f00_0300, helper: 0x0f00_0400 };
/// Everything that decides the code is fixed, so that every host makes the same.
const FEATURES: Features = Features { sse41: true, avx2: true, fma: true };

fn mode(thumb: bool) -> BlockMode {
    BlockMode {
        thumb,
        it: 0,
        big_endian: false,
        privileged: true,
        vfp_access: true,
        simd_enabled: true,
        d32_enabled: true,
        vfp_vectors: false,
        ..BlockMode::of(&reprise_arm::state::Cpu::new(reprise_arm::models::Model::cortex_a15(0, 1, 0x2c00_0000, 1)))
    }
}

fn a32(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    host(false, &bytes)
}

fn thumb(halves: &[u16]) -> String {
    let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
    host(true, &bytes)
}

fn host(thumb: bool, bytes: &[u8]) -> String {
    form(thumb, bytes, Entry::default(), None)
}

/// A form that takes something for granted.
fn form(thumb: bool, bytes: &[u8], entry: Entry, otherwise: Option<u64>) -> String {
    let block = translate(mode(thumb), 0x8000, bytes, 64).expect("whole instructions");
    let out = compile(Context {
        block: &block,
        code: BLOCK,
        thumb,
        privileged: true,
        mode: 0,
        body: 0,
        entry,
        otherwise,
        thunks: &THUNKS,
        base: BASE as usize,
        features: FEATURES,
    });
    listing(&out.bytes)
}

/// Names for addresses: offsets from `rbp`, shared code, labels; host addresses of helpers and tables differ from run to run.
struct Names {
    labels: BTreeMap<u64, usize>,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        operand: u32,
        _: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        let memory = instruction.op_kind(operand) == OpKind::Memory;
        let name = match (memory, instruction.memory_base(), address) {
            (true, Register::RBP, _) => field(address as i32)?,
            (_, _, a) if self.labels.contains_key(&a) => format!("L{}", self.labels[&a]),
            (_, _, a) if a == THUNKS.exit => "exit".into(),
            (_, _, a) if a == THUNKS.step => "step".into(),
            (_, _, a) if a == THUNKS.resume => "resume".into(),
            (_, _, a) if a == THUNKS.helper => "helper".into(),
            (_, _, a) if a == BLOCK => "block".into(),
            (true, Register::RIP, _) => "constant".into(),
            (_, _, a) if a >> 32 != 0 && a >> 40 != 0xff_ffff => "host".into(),
            _ => return None,
        };
        Some(SymbolResult::with_string(address, name))
    }
}

/// What lies at an offset from `rbp`.
fn field(offset: i32) -> Option<String> {
    if (slot(0)..slot(SINK) + 4).contains(&offset) {
        let n = ((offset - slot(0)) / 4) as u8;
        return Some(match n {
            SINK => "sink".into(),
            ZERO => "zero".into(),
            15 => "pc".into(),
            n if n >= FIRST_TEMP => format!("t{}", n - FIRST_TEMP),
            n => format!("r{n}"),
        });
    }
    if (ext(0)..ext(63) + 4).contains(&offset) {
        return Some(format!("ext{}", (offset - ext(0)) / 4));
    }
    let at = offset - i32::from(flags::at());
    if offset == fpscr() {
        Some("fpscr".into())
    } else if (0..4).contains(&at) {
        Some(["v", "nz", "c", "nzcv3"][at as usize].into())
    } else {
        Some("cpu".into())
    }
}

/// What can be reached from the first byte, in order of addresses; constants behind the code are not code.
fn listing(bytes: &[u8]) -> String {
    let (mut seen, mut open, mut targets) = (BTreeMap::new(), vec![BASE], BTreeSet::new());
    let inside = |a: u64| (BASE..BASE + bytes.len() as u64).contains(&a);
    while let Some(at) = open.pop() {
        if !inside(at) || seen.contains_key(&at) {
            continue;
        }
        let code = &bytes[(at - BASE) as usize..];
        let i = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
        assert!(!i.is_invalid(), "no instruction at {at:#x}");
        let near = matches!(i.op0_kind(), OpKind::NearBranch64);
        if near && inside(i.near_branch_target()) {
            targets.insert(i.near_branch_target());
            open.push(i.near_branch_target());
        }
        if !matches!(i.mnemonic(), Mnemonic::Jmp | Mnemonic::Ret | Mnemonic::Ud2) {
            open.push(i.next_ip());
        }
        seen.insert(at, i);
    }
    let labels: BTreeMap<u64, usize> = targets.iter().enumerate().map(|(n, a)| (*a, n)).collect();
    let mut formatter = NasmFormatter::with_options(Some(Box::new(Names { labels: labels.clone() })), None);
    formatter.options_mut().set_show_symbol_address(false);
    let mut text = String::new();
    for (at, i) in &seen {
        if let Some(n) = labels.get(at) {
            let _ = writeln!(text, "L{n}:");
        }
        let mut line = String::new();
        formatter.format(i, &mut line);
        let _ = writeln!(text, "    {line}");
    }
    let _ = writeln!(text, "{} instructions", seen.len());
    text
}

macro_rules! golden {
    ($($name:ident: $make:expr;)*) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!($make);
            }
        )*
    };
}

golden! {
    // adds r0, r0, r1 ; adc r2, r2, r3 ; subs r4, r4, #1 ; b .
    alu_with_flags: a32(&[0xe090_0001, 0xe0a2_2003, 0xe254_4001, 0xeaff_fffe]);
    // cmp r0, #3 ; bhi .+16
    compare_and_branch: a32(&[0xe350_0003, 0x8a00_0002]);
    // ldr r0, [r1, #4] ; strb r0, [r2, r3] ; ldrh r7, [r1], #2 ; b .
    loads_and_stores: a32(&[0xe591_0004, 0xe7c2_0003, 0xe0d1_70b2, 0xeaff_fffe]);
    // push {r4, r5, lr} ; pop {r4, r5, pc}
    push_and_pop: a32(&[0xe92d_4030, 0xe8bd_8030]);
    // ldm r0!, {r4-r7} ; stm r1!, {r4-r7} ; b .
    load_and_store_multiple: a32(&[0xe8b0_00f0, 0xe8a1_00f0, 0xeaff_fffe]);
    // cmp r0, r1 ; movlt r0, r1 ; addeq r2, r2, #1 ; ldrne r3, [r4] ; b .
    conditional_execution: a32(&[0xe150_0001, 0xb1a0_0001, 0x0282_2001, 0x1594_3000, 0xeaff_fffe]);
    // cmp r0, #0 ; ite ne ; movne r1, #1 ; moveq r1, #2 ; b .
    it_block: thumb(&[0x2800, 0xbf14, 0x2101, 0x2102, 0xe7fe]);
    // bl .+0x100
    call: a32(&[0xeb00_003e]);
    // bx lr
    return_by_register: a32(&[0xe12f_ff1e]);
    // vadd.f64 d0, d1, d2 ; vmla.f32 s0, s1, s2 ; b .
    vfp_add_and_multiply_add: a32(&[0xee31_0b02, 0xee00_0a81, 0xeaff_fffe]);
    // vadd.i32 q0, q1, q2 ; vadd.f32 q3, q0, q1 ; b .
    simd_add: a32(&[0xf222_0844, 0xf200_6d42, 0xeaff_fffe]);
    // ldrex r1, [r0] ; add r1, r1, #1 ; strex r2, r1, [r0] ; cmp r2, #0 ; bne .-16
    exclusive_loop: a32(&[0xe190_1f9f, 0xe281_1001, 0xe180_2f91, 0xe352_0000, 0x1aff_fffa]);
    // b .
    self_jump: a32(&[0xeaff_fffe]);
    // mrc p15, 0, r0, c13, c0, 3 ; mcr p15, 0, r0, c3, c0, 0 ; b .
    system_registers: a32(&[0xee1d_0f70, 0xee03_0f10, 0xeaff_fffe]);
    // subs r0, r0, #1 ; bne .-4
    countdown_loop: a32(&[0xe250_0001, 0x1aff_fffd]);
}

/// `s += a[i] * b[i]` in double precision: the form that looks at FPSCR, and the one for the next rounds under flush-to-zero, with the sum in a host
/// register.
#[test]
fn vfp_loop() {
    // vldr d17, [r3] ; add r3, #1280 ; vldmia r2!, {d18} ; vmla.f64 d16, d18, d17 ; cmp r1, r2 ; bne back
    let words = [0xedd3_1b00u32, 0xe283_3c05, 0xecf2_2b02, 0xee42_0ba1, 0xe151_0002, 0x1aff_fff9];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let looks = Entry { fpscr: Some(Mode::Gradual), ..Entry::default() };
    let mut held = Held::default();
    held.hold(32, true, true);
    let knows = Entry { flags: Some(Recipe::Cmp(1, 2)), fpscr: Some(Mode::Flush), held };
    insta::assert_snapshot!(format!(
        "looks:\n{}\nknows:\n{}",
        form(false, &bytes, looks, Some(BASE + 0x1000)),
        form(false, &bytes, knows, None)
    ));
}

/// A recipe outlives changes of its operands: the pointer moves on, and the list's element is copied before it is overwritten.
#[test]
fn recipes_that_change() {
    let flags = |r| Entry { flags: Some(r), ..Entry::default() };
    let of = |words: &[u32], r| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        form(false, &bytes, flags(r), None)
    };
    // ldr r2, [r1], #4 ; ldr r3, [r0] ; cmp r1, r5 ; bne back
    let pointer = of(&[0xe491_2004, 0xe590_3000, 0xe151_0005, 0x1aff_fffb], Recipe::Cmp(1, 5));
    // mov r2, r1 ; ldr r1, [r2] ; str r4, [r2] ; cmp r1, #0 ; bne back
    let list = of(&[0xe1a0_2001, 0xe592_1000, 0xe582_4000, 0xe351_0000, 0x1aff_fffa], Recipe::CmpImm(1, 0));
    insta::assert_snapshot!(format!("pointer:\n{pointer}\nlist:\n{list}"));
}

/// `subs; umulls; ldrhls`: the comparison is made again for C, but its Z is not the one wanted.
#[test]
fn flags_of_two_operations() {
    insta::assert_snapshot!(a32(&[0xe05b_44ed, 0xe09a_2891, 0x9058_85ba]));
}

/// `adcs; movs; sbc`: to save N and Z costs EFLAGS, so the carry comes from memory.
#[test]
fn carry_behind_a_test() {
    insta::assert_snapshot!(thumb(&[0x4153, 0x2260, 0xf160, 0x0343, 0xde00]));
}
