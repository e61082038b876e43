//! Every inline form of a VFP or Advanced SIMD helper against the helper itself: same extension registers, same FPSCR, and no register
//! touched that compiled code must keep. `REPRISE_FP_TEST_RUNS` gives the number of operand sets for each piece of code.
#![cfg(target_arch = "x86_64")]

use std::cell::Cell;

use dynasmrt::mmap::{ExecutableBuffer, MutableBuffer};
use dynasmrt::{DynasmApi, dynasm};
use reprise_arm::fp::simd_helpers::{Misc, pack};
use reprise_arm::fp::vfp_helpers::Vfp;
use reprise_arm::ir::{FIRST_TEMP, HELPERS, HelperId, Op, SINK, Uop};
use reprise_arm::models::Model;
use reprise_arm::state::Cpu;
use reprise_jit::emit::{Emitter, Features};
use reprise_jit::fp::{Mode, Moves, known, lower, lower_value};

// ---- a source of numbers ------------------------------------------------------------------------------------------------------

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u32) -> u32 {
        (self.next() >> 32) as u32 % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

const SINGLES: &[u32] = &[
    0,
    1,
    2,
    0x007f_ffff,
    0x0080_0000,
    0x0080_0001,
    0x0100_0000,
    0x00ff_ffff,
    0x0180_0000,
    0x3f00_0000,
    0x3effffff,
    0x3f80_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0x4000_0000,
    0x4040_0000,
    0x4b00_0000,
    0x4b7f_ffff,
    0x4f00_0000,
    0x4eff_ffff,
    0x4f80_0000,
    0x4f7f_ffff,
    0x1f80_0000,
    0x2000_0000,
    0x2080_0001,
    0x5f00_0000,
    0x7e80_0000,
    0x7f00_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0x7fc0_0000,
    0x7fc0_1234,
    0x7f80_0001,
    0x7fbf_ffff,
    0x3fc0_0000,
    0x4020_0000,
];
const DOUBLES: &[u64] = &[
    0,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x0010_0000_0000_0001,
    0x0020_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0x3ff0_0000_0000_0001,
    0x3fef_ffff_ffff_ffff,
    0x4000_0000_0000_0000,
    0x4008_0000_0000_0000,
    0x41df_ffff_ffc0_0000,
    0x41e0_0000_0000_0000,
    0x41e0_0000_0020_0000,
    0x41ef_ffff_ffe0_0000,
    0x41ef_ffff_fff0_0000,
    0x41f0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0x4004_0000_0000_0000,
    0x1ff0_0000_0000_0000,
    0x2000_0000_0000_0001,
    0x5fe0_0000_0000_0000,
    0x7fe0_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff8_0000_1234_5678,
    0x7ff0_0000_0000_0001,
    0x47ef_ffff_e000_0000,
    0x47ef_ffff_f000_0000,
    0x3810_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x4330_0000_0000_0000,
];
const EDGES: &[u32] = &[
    0,
    u32::MAX,
    0x8080_8080,
    0x7f7f_7f7f,
    0x8000_8000,
    0x7fff_7fff,
    0x8000_0000,
    0x7fff_ffff,
    0x0101_0101,
    0x00ff_00ff,
    0x0001_0001,
    1,
    0x00ff_8000,
    0x0708_090f,
    0x1011_1718,
    0x1f20_21ff,
];

/// Fills the extension registers with values of one kind, or of all.
fn fill(r: &mut Rng, words: &mut [u32; 64]) {
    let kind = r.below(8);
    for pair in words.chunks_exact_mut(2) {
        let mut v = r.next();
        let kind = if kind > 5 { r.below(6) } else { kind };
        let sign = r.next();
        match kind {
            0 => {}
            1 => v = u64::from(r.pick(SINGLES)) | u64::from(r.pick(SINGLES)) << 32 | sign & 0x8000_0000_8000_0000,
            2 => v = r.pick(DOUBLES) | sign & 1 << 63,
            3 => v = u64::from(r.pick(EDGES)) | u64::from(r.pick(EDGES)) << 32,
            // Floats near one another, with few or many bits.
            4 => {
                let one = |r: &mut Rng, x: u64| {
                    (x as u32 & 0x80ff_ffff & r.pick(&[0xffff_ffff, 0xff00_0000, 0x81f0_0000])) + 0x3f00_0000
                };
                v = u64::from(one(r, v)) | u64::from(one(r, v >> 32)) << 32;
            }
            _ => v = (v & 0x801f_ffff_ffff_ffff & r.pick(&[u64::MAX, 0xffff_ff00_0000_0000])) + 0x3fe0_0000_0000_0000,
        }
        pair[0] = v as u32;
        pair[1] = (v >> 32) as u32;
    }
}

fn any_fpscr(r: &mut Rng) -> u32 {
    const FREE: u32 = 0xf7c0_009f;
    match r.below(8) {
        // What Linux programs have most of the time.
        0..=4 => r.next() as u32 & 0xf800_008f | 0x10,
        5 => r.next() as u32 & 0xf600_008f,
        _ => r.next() as u32 & FREE,
    }
}

// ---- running a piece of code --------------------------------------------------------------------------------------------------

thread_local! {
    /// Calls of helpers by the code under test.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Runs the helper of a micro-op.
extern "C" fn shim(cpu: *mut Cpu, aux: u32, imm: u32, a: u32, b: u32) -> u32 {
    CALLS.set(CALLS.get() + 1);
    // SAFETY: the code under test passes the Cpu it was given, which nobody else uses meanwhile.
    helper(unsafe { &mut *cpu }, aux, imm, a, b)
}

fn helper(cpu: &mut Cpu, aux: u32, imm: u32, a: u32, b: u32) -> u32 {
    (HELPERS[aux as usize >> 8][aux as usize & 0xff].f)(cpu, imm, a, b)
}

/// A call that keeps what must be kept and destroys all that may be.
fn call(e: &mut Emitter, u: &Uop) {
    let f = shim as *const () as i64;
    dynasm!(e.asm
        ; .arch x64
        ; push rdx ; push rsi ; push rdi ; push r8 ; push r9 ; push r10 ; push r11
        ; mov rax, rsp ; and rsp, -16 ; push rax ; push rax
        ; mov rdi, rbp ; mov esi, u.aux as i32 ; mov edx, u.imm as i32 ; mov ecx, u.a.into() ; mov r8d, u.b.into()
        ; mov rax, QWORD f ; call rax
        ; pop rcx ; mov rsp, rcx
        ; pop r11 ; pop r10 ; pop r9 ; pop r8 ; pop rdi ; pop rsi ; pop rdx
        ; mov ecx, 0x1234_5678
        ; pcmpeqd xmm0, xmm0 ; pcmpeqd xmm1, xmm1 ; pcmpeqd xmm2, xmm2 ; pcmpeqd xmm3, xmm3
        ; pcmpeqd xmm4, xmm4 ; pcmpeqd xmm5, xmm5 ; pcmpeqd xmm6, xmm6 ; pcmpeqd xmm7, xmm7
        ; pcmpeqd xmm8, xmm8 ; pcmpeqd xmm9, xmm9 ; pcmpeqd xmm10, xmm10 ; pcmpeqd xmm11, xmm11
        ; pcmpeqd xmm12, xmm12 ; pcmpeqd xmm13, xmm13 ; pcmpeqd xmm14, xmm14 ; pcmpeqd xmm15, xmm15
    );
}

/// What a piece of code leaves: `eax`, and the registers that it must keep.
type Out = [u64; 14];

const PATTERN: i64 = 0x1111_2222_3333_4400;

struct Code {
    buffer: ExecutableBuffer,
    /// Bytes of the hot path.
    hot: usize,
}

impl Code {
    /// The inline form of `u` between a prologue and an epilogue, and its length on the hot path; `None` if there is none.
    fn new(u: &Uop, features: Features) -> Option<Self> {
        Self::of(features, |e| if u.op == Op::Helper { lower_value(e, u) } else { lower(e, u, call) })
    }

    /// What `f` emits between a prologue and an epilogue.
    fn of(features: Features, f: impl FnOnce(&mut Emitter) -> bool) -> Option<Self> {
        let mut e = Emitter::new(0, features);
        dynasm!(e.asm
            ; .arch x64
            ; push rbp ; push rbx ; push r12 ; push r13 ; push r14 ; push r15 ; push rsi
            ; mov rbp, rdi
            ; mov eax, edx
            ; mov rbx, QWORD PATTERN + 1 ; mov rdx, QWORD PATTERN + 2 ; mov rsi, QWORD PATTERN + 3 ; mov rdi, QWORD PATTERN + 4
            ; mov r8, QWORD PATTERN + 5 ; mov r9, QWORD PATTERN + 6 ; mov r10, QWORD PATTERN + 7 ; mov r11, QWORD PATTERN + 8
            ; mov r12, QWORD PATTERN + 9 ; mov r13, QWORD PATTERN + 10 ; mov r14, QWORD PATTERN + 11 ; mov r15, QWORD PATTERN + 12
        );
        let start = e.asm.offset().0;
        let inline = f(&mut e);
        let hot = e.asm.offset().0 - start;
        if !inline {
            assert_eq!(hot, 0, "code without a lowering");
            return None;
        }
        dynasm!(e.asm
            ; .arch x64
            ; mov rcx, [rsp]
            ; mov [rcx], eax
            ; mov [rcx + 8], rbx ; mov [rcx + 16], rdx ; mov [rcx + 24], rsi ; mov [rcx + 32], rdi
            ; mov [rcx + 40], r8 ; mov [rcx + 48], r9 ; mov [rcx + 56], r10 ; mov [rcx + 64], r11
            ; mov [rcx + 72], r12 ; mov [rcx + 80], r13 ; mov [rcx + 88], r14 ; mov [rcx + 96], r15 ; mov [rcx + 104], rbp
            ; pop rsi ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbx ; pop rbp ; ret
        );
        e.finish_cold();
        let bytes = e.asm.finalize().expect("all labels are placed");
        let mut b = MutableBuffer::new(bytes.len()).expect("memory");
        b.set_len(bytes.len());
        b.copy_from_slice(&bytes);
        Some(Self { buffer: b.make_exec().expect("executable memory"), hot })
    }

    fn run(&self, cpu: &mut Cpu, eax: u32) -> u32 {
        // SAFETY: the buffer begins with a function of this type, which keeps to the C calling convention.
        let f: extern "C" fn(*mut Cpu, *mut Out, u32) = unsafe { std::mem::transmute(self.buffer.as_ptr()) };
        let mut out: Out = [0; 14];
        f(cpu, &mut out, eax);
        for (i, v) in out[1..13].iter().enumerate() {
            assert_eq!(*v, PATTERN as u64 + 1 + i as u64, "register {i} of those to be kept");
        }
        assert_eq!(out[13], cpu as *mut Cpu as u64, "rbp");
        out[0] as u32
    }
}

fn features() -> Vec<Features> {
    let all = Features::detect();
    let none = Features::none();
    let mut v = vec![none, all];
    if all.sse41 && all != none {
        v.push(Features { sse41: true, ..none });
    }
    v
}

/// `fpscr` with the bits that are known.
fn known_fpscr(mode: Option<Mode>, fpscr: u32) -> u32 {
    mode.map_or(fpscr, |m| fpscr & !Mode::MASK | m.bits())
}

/// Runs code and helper on `runs` operand sets. `mode`: what the code takes for granted.
fn compare(u: &Uop, code: &Code, r: &mut Rng, (runs, mode): (u32, Option<Mode>), cpus: &mut [Cpu; 2]) {
    for _ in 0..runs {
        let mut words = [0; 64];
        fill(r, &mut words);
        if r.below(16) == 0 {
            // Opposites, for exact cancellation.
            let (a, b) = (2 * r.below(32) as usize, 2 * r.below(32) as usize);
            (words[a], words[a + 1]) = (words[b] ^ 0x8000_0000, words[b + 1] ^ 0x8000_0000);
        }
        let (fpscr, value) = (known_fpscr(mode, any_fpscr(r)), r.next() as u32);
        for c in cpus.iter_mut() {
            c.ext = words;
            c.fpscr = fpscr;
            c.regs[3] = value;
        }
        let [x, y] = cpus;
        let got = code.run(x, value);
        let want = if u.op == Op::Helper {
            helper(y, u.aux, value, value, u.imm)
        } else {
            helper(y, u.aux, u.imm, u.a.into(), u.b.into())
        };
        let name = HELPERS[u.aux as usize >> 8][u.aux as usize & 0xff].name;
        for w in 0..64 {
            assert_eq!(
                x.ext[w], y.ext[w],
                "{name} {u}: word {w} {:#x} for {:#x}; before {words:x?}, FPSCR {fpscr:#x}",
                x.ext[w], y.ext[w]
            );
        }
        assert_eq!(
            x.fpscr, y.fpscr,
            "{name} {u}: FPSCR {:#x} for {:#x}, before {fpscr:#x} {words:x?}",
            x.fpscr, y.fpscr
        );
        if u.aux == u32::from(Misc::InterleavedWord.id(0).0) {
            assert_eq!(got, want, "{name} {u}: the result");
        }
    }
}

// ---- micro-ops ----------------------------------------------------------------------------------------------------------------

fn uop(aux: u32, imm: u32, a: u32, b: u32) -> Uop {
    Uop { op: Op::HelperK, d: SINK, a: a as u8, b: b as u8, imm, aux }
}

/// Three register numbers, often the same, from `of` numbers in steps of `step`.
fn three(r: &mut Rng, of: u32, step: u32) -> [u32; 3] {
    let v: [u32; 3] = std::array::from_fn(|_| r.below(of / step) * step);
    match r.below(6) {
        0 => [v[0], v[0], v[0]],
        1 => [v[0], v[0], v[2]],
        2 => [v[0], v[1], v[0]],
        3 => [v[0], v[1], v[1]],
        _ => v,
    }
}

/// A micro-op with helper `aux` such as the translator makes.
fn any_uop(r: &mut Rng, aux: u32) -> Uop {
    let name = HELPERS[aux as usize >> 8][aux as usize & 0xff].name;
    match aux >> 8 {
        1 => {
            let [d, n, m] = three(r, 32, 1);
            if name.starts_with("vfp.Fix") { uop(aux, d, r.below(33), 0) } else { uop(aux, d, n, m) }
        }
        2 | 3 => any_lanes(r, aux, name),
        _ => any_misc(r, aux, name),
    }
}

fn any_lanes(r: &mut Rng, aux: u32, name: &str) -> Uop {
    let z = aux & 3;
    let width = 8 << z;
    let q = r.below(2);
    let row_name = name.split('.').nth(1).expect("simd.Row.size");
    let pairs = ["Padd", "PmaxS", "PmaxU", "PminS", "PminU"].contains(&row_name);
    let q = if pairs { 0 } else { q };
    let same = aux >> 8 == 2;
    let mut regs = three(r, 32, 1 + q);
    if !same {
        // Quadwords where the row has them: even.
        let starts = |p: &[&str]| p.iter().any(|p| row_name.starts_with(p));
        let long = starts(&["Addl", "Subl", "Abdl", "Abal", "Mull", "Mlal", "Mlsl", "Qdm", "Shll"]);
        let wide = starts(&["Addw", "Subw"]);
        let narrow = row_name.ends_with("hn") || row_name.contains("hrn") || row_name.contains("hrun");
        regs = three(r, 32, 1);
        let even = |v: &mut u32, yes: bool| *v &= !u32::from(yes);
        even(&mut regs[0], long || wide || q == 1 && !narrow);
        even(&mut regs[1], wide || narrow || q == 1 && !long);
        even(&mut regs[2], narrow || q == 1 && !long && !wide);
    }
    let by = row_name.contains("By");
    if by {
        regs[2] = r.below(if z == 1 { 8 } else { 16 });
    }
    let lane = if z == 2 { 0x80 | r.below(2) } else { r.below(4) };
    let b = if by {
        lane
    } else if same {
        0
    } else {
        match row_name {
            "Shl" | "Sli" | "QshlS" | "QshlU" | "Qshlu" => r.below(width),
            "ShllS" | "ShllU" => r.below(width + 1),
            s if s.starts_with('Q') => r.below(width + 1),
            _ => 1 + r.below(width),
        }
    };
    uop(aux, pack(regs[0], regs[1], regs[2]), 1 + q, b)
}

fn any_misc(r: &mut Rng, aux: u32, name: &str) -> Uop {
    let name = &name["simd.".len()..];
    let id = aux & 0xff;
    if let Some(s) = ["Deinterleave", "InterleavedWord"].iter().position(|s| *s == name) {
        let (elements, rows, step) =
            r.pick(&[(2, 1, 1), (2, 1, 2), (2, 2, 2), (3, 1, 1), (3, 1, 2), (4, 1, 1), (4, 1, 2)]);
        let d = r.below(32 - (rows - 1) - (elements - 1) * step);
        let word = if s == 1 { r.below(2 * rows * elements) } else { 0 };
        return uop(aux, pack(d, step, rows) | word << 24, elements, r.below(3));
    }
    let d_only = ["Tbl", "Tbx", "FPadd", "FPmax", "FPmin"].contains(&name);
    let q = if d_only { 0 } else { r.below(2) };
    let mut regs = three(r, 32, 1 + q);
    if name.starts_with("Movn") {
        regs = three(r, 32, 2);
        regs[0] |= r.below(2);
    }
    let (mut a, mut b) = (1 + q, 0);
    match name {
        "Tbl" | "Tbx" => {
            a = 1 + r.below(4);
            regs[1] = r.below(33 - a);
        }
        "Ext" => b = r.below(8 << q),
        "Dup8" | "Dup16" | "Dup32" => {
            b = r.below(8 >> (id - u32::from(Misc::Dup8.id(0).0 & 0xff)));
            regs[2] |= r.below(2);
        }
        "FMulBy" | "FMlaBy" | "FMlsBy" => {
            b = 0x80 | r.below(2);
            regs[2] = r.below(16);
        }
        s if s.starts_with("Cvt") => b = r.below(33) * r.below(2),
        _ => {}
    }
    uop(aux, pack(regs[0], regs[1], regs[2]), a, b)
}

fn cpu() -> Cpu {
    Cpu::new(Model::cortex_a15(0, 1, 0x2c00_0000, 24_000_000))
}

fn runs() -> u32 {
    std::env::var("REPRISE_FP_TEST_RUNS").ok().and_then(|s| s.parse().ok()).unwrap_or(24)
}

fn known_helpers() -> Vec<u32> {
    let all = HELPERS.iter().enumerate().flat_map(|(g, h)| (0..h.len()).map(move |i| (g << 8 | i) as u32));
    all.filter(|&aux| known(HelperId(aux as u16))).collect()
}

#[test]
fn inline_code_does_what_helpers_do() {
    let mut cpus = [cpu(), cpu()];
    let mut r = Rng(1);
    let known = known_helpers();
    assert!(known.len() > 350, "only {} helpers have inline forms", known.len());
    for features in features() {
        for &aux in &known {
            let mut inline = 0;
            for _ in 0..8 {
                let u = any_uop(&mut r, aux);
                for mode in [None, Some(Mode::Gradual), Some(Mode::Flush)] {
                    let code = Code::of(features, |e| {
                        e.fpscr = mode;
                        lower(e, &u, call)
                    });
                    if let Some(code) = code {
                        inline += 1;
                        compare(&u, &code, &mut r, (runs(), mode), &mut cpus);
                    }
                }
            }
            let name = HELPERS[aux as usize >> 8][aux as usize & 0xff].name;
            assert!(inline > 0 || features != Features::detect(), "{name} has no inline form");
        }
    }
}

#[test]
fn elements_from_core_registers() {
    let mut cpus = [cpu(), cpu()];
    let mut r = Rng(2);
    for features in features() {
        for _ in 0..100 {
            let z = r.below(3);
            let set = pack(r.below(32), r.below(8 >> z), z);
            let dup = pack(2 * r.below(16), 1 + r.below(2), z);
            for (id, imm) in [(Misc::SetElement, set), (Misc::DupCore, dup)] {
                let u = Uop { op: Op::Helper, d: SINK, a: 3, b: 3, imm, aux: id.id(0).0.into() };
                let code = Code::new(&u, features).expect("an inline form");
                compare(&u, &code, &mut r, (4, None), &mut cpus);
            }
        }
    }
}

/// Positive normal numbers between 0.5 and 2, and zeros if `zeros`.
fn ordinary(r: &mut Rng, words: &mut [u32; 64], double: bool, zeros: bool) {
    for pair in words.chunks_exact_mut(2) {
        let v = r.next();
        let one = |x: u64| (x as u32 & 0x00ff_ffff) + 0x3f00_0000;
        let v = match (double, zeros && r.below(3) == 0) {
            (_, true) => 0,
            (true, _) => (v & 0x001f_ffff_ffff_ffff) + 0x3fe0_0000_0000_0000,
            _ => u64::from(one(v)) | u64::from(one(v >> 32)) << 32,
        };
        (pair[0], pair[1]) = (v as u32, (v >> 32) as u32);
    }
}

#[test]
fn ordinary_numbers_need_no_helper() {
    let mut cpu = cpu();
    let mut r = Rng(3);
    let (first, last) = (u32::from(Misc::FAdd.id(0).0), u32::from(Misc::CvtToU32.id(0).0));
    for aux in known_helpers() {
        if aux >> 8 != 1 && !(first..=last).contains(&aux) {
            continue;
        }
        let name = HELPERS[aux as usize >> 8][aux as usize & 0xff].name;
        let double = name.starts_with("vfp.") && (name.ends_with('D') || name.starts_with("vfp.DoubleTo"));
        for _ in 0..8 {
            let mut u = any_uop(&mut r, aux);
            if name.contains("Fix") {
                u.a &= 7;
            } else if name.contains("Cvt") {
                u.b &= 7;
            }
            let Some(code) = Code::new(&u, Features::detect()) else { continue };
            // A quotient by zero and an unsigned number from 2^31 on are the helper's.
            let zeros = !name.contains("Div");
            for fpscr in [0x10, 0x0100_0010, 0x10, 0x0100_0010] {
                ordinary(&mut r, &mut cpu.ext, double, zeros);
                cpu.fpscr = fpscr;
                let before = CALLS.get();
                code.run(&mut cpu, 0);
                assert_eq!(CALLS.get(), before, "{name} {u} called its helper");
            }
        }
    }
}

#[test]
fn odd_numbers_go_to_the_helper() {
    let mut cpu = cpu();
    let (vadd, fadd) = (u32::from(Vfp::AddD.id(0).0), u32::from(Misc::FAdd.id(0).0));
    for (u, words, fpscr, calls) in [
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 0, 0x3ff0_0000], 0x10, 0),
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 0, 0x3ff0_0000], 0, 0),
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 1, 0x3fe0_0000], 0, 1),
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 0, 0x3ff0_0000], 0x0040_0010, 1),
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 0, 0x3ff0_0000], 0x0100_0010, 0),
        (uop(vadd, 4, 5, 6), [1, 0, 0, 0x3ff0_0000], 0x0100_0010, 1),
        (uop(vadd, 4, 5, 6), [0, 0, 0, 0x3ff0_0000], 0x0100_0010, 0),
        (uop(vadd, 4, 5, 6), [1, 0, 0, 0x3ff0_0000], 0x10, 0),
        (uop(vadd, 4, 5, 6), [0, 0x7ff8_0000, 0, 0x3ff0_0000], 0x10, 1),
        (uop(vadd, 4, 5, 6), [0, 0x3ff0_0000, 0, 0xbff0_0000], 0x10, 0),
        (uop(fadd, pack(4, 5, 6), 1, 0), [0x3f80_0000, 0, 0, 0x3f80_0000], 0x0140_0010, 0),
        (uop(fadd, pack(4, 5, 6), 1, 0), [0x3f80_0000, 0, 0, 1], 0x10, 1),
        (uop(fadd, pack(4, 5, 6), 1, 0), [0x3f80_0000, 0, 0, 0x3f80_0000], 0, 0),
        (uop(fadd, pack(4, 5, 6), 1, 0), [0x3f80_0000, 0, 0x3080_0000, 0], 0, 1),
        (uop(fadd, pack(4, 5, 6), 1, 0), [0x3f80_0000, 0, 0x3080_0000, 0], 0x10, 0),
    ] {
        cpu.ext[10..14].copy_from_slice(&words);
        cpu.fpscr = fpscr;
        let before = CALLS.get();
        Code::new(&u, Features::detect()).expect("an inline form").run(&mut cpu, 0);
        assert_eq!(CALLS.get() - before, calls, "{u} {words:x?} {fpscr:#x}");
    }
}

/// The hot path of what benchmarks spend their time in stays short, in bytes of code.
#[test]
fn hot_paths_are_short() {
    let q = pack(0, 2, 4);
    for (aux, imm, a, b, most) in [
        (Vfp::AddD.id(0), 0, 1, 2, 80),
        (Vfp::MlaD.id(0), 0, 1, 2, 110),
        (Misc::FAdd.id(0), q, 2, 0, 150),
        (Misc::FMla.id(0), q, 2, 0, 230),
        (Misc::Eor.id(0), q, 2, 0, 40),
    ] {
        let code = Code::new(&uop(aux.0.into(), imm, a, b), Features::detect()).expect("an inline form");
        assert!(code.hot <= most, "helper {:#x} takes {} bytes", aux.0, code.hot);
    }
}

/// The instruction's micro-ops for a move of `words` words, `op` on each or on the last.
fn word_moves(r: &mut Rng) -> Vec<Uop> {
    let u = |op, d, a, imm| Uop { op, d, a, b: 0, imm, aux: 0 };
    let words = r.pick(&[1, 2, 2, 3, 4, 4]);
    let (from, to) = (r.below(60), r.below(60));
    let from = if r.below(3) == 0 { to } else { from };
    let (constant, kind) = (r.below(3) == 0, r.below(5));
    let mut v = Vec::new();
    let mut t = FIRST_TEMP;
    for i in 0..words {
        if constant {
            if i == 0 || r.below(2) == 0 {
                t += 1;
                let imm = r.pick(&[0, u32::MAX, 0x3ff0_0000, 1, 0x8000_0000]);
                v.push(u(Op::MovImm, t, 0, imm));
            }
        } else {
            t += 1;
            v.push(u(Op::ExtGet, t, 0, from + i));
            let last = i + 1 == words;
            let op = match kind {
                0 if last => Some((Op::EorImm, 0x8000_0000)),
                1 if last => Some((Op::AndImm, 0x7fff_ffff)),
                2 => Some((Op::OrrImm, 0x1234_0000)),
                3 => Some((Op::AndImm, r.next() as u32)),
                _ => None,
            };
            if let Some((op, imm)) = op {
                t += 1;
                v.push(u(op, t, t - 1, imm));
            }
        }
        v.push(u(Op::ExtSet, SINK, t, to + i));
    }
    v
}

fn interpret(uops: &[Uop], cpu: &mut Cpu) {
    for u in uops {
        let (d, a) = (usize::from(u.d), usize::from(u.a));
        match u.op {
            Op::MovImm => cpu.regs[d] = u.imm,
            Op::ExtGet => cpu.regs[d] = cpu.ext[u.imm as usize],
            Op::ExtSet => cpu.ext[u.imm as usize] = cpu.regs[a],
            Op::AndImm => cpu.regs[d] = cpu.regs[a] & u.imm,
            Op::OrrImm => cpu.regs[d] = cpu.regs[a] | u.imm,
            Op::EorImm => cpu.regs[d] = cpu.regs[a] ^ u.imm,
            _ => unreachable!("no such move"),
        }
    }
}

#[test]
fn moves_of_words_become_moves_of_registers() {
    let (mut x, mut y) = (cpu(), cpu());
    let mut r = Rng(4);
    let mut fused = 0;
    for _ in 0..2000 {
        let uops = word_moves(&mut r);
        let Some(moves) = Moves::find(&uops) else { continue };
        let n = moves.len;
        let code = Code::of(Features::none(), |e| {
            moves.emit(e);
            true
        });
        let code = code.expect("moves");
        fused += usize::from(n == uops.len());
        fill(&mut r, &mut x.ext);
        y.ext = x.ext;
        code.run(&mut x, 0);
        interpret(&uops[..n], &mut y);
        assert_eq!(x.ext, y.ext, "{uops:?}");
    }
    assert!(fused > 1000, "{fused}");
}

#[test]
fn a_value_that_is_used_again_is_not_fused_away() {
    let u = |op, d, a, imm| Uop { op, d, a, b: 0, imm, aux: 0 };
    let (t, s) = (FIRST_TEMP, FIRST_TEMP + 1);
    let moves = [u(Op::ExtGet, t, 0, 4), u(Op::ExtSet, SINK, t, 8), u(Op::ExtGet, s, 0, 5), u(Op::ExtSet, SINK, s, 9)];
    let mut more = moves.to_vec();
    more.push(u(Op::St32, t, 0, 0));
    let len = |uops: &[Uop]| Moves::find(uops).map_or(0, |m| m.len);
    assert_eq!(len(&moves), 4);
    assert_eq!(len(&more), 0);
    assert_eq!(len(&moves[..2]), 0);
    // The second word comes from where the first one went.
    let overlap =
        [u(Op::ExtGet, t, 0, 4), u(Op::ExtSet, SINK, t, 5), u(Op::ExtGet, s, 0, 5), u(Op::ExtSet, SINK, s, 6)];
    assert_eq!(len(&overlap), 0);
    // A core register is no temporary.
    assert_eq!(
        len(&[u(Op::MovImm, 3, 0, 4), u(Op::ExtSet, SINK, 3, 8), u(Op::MovImm, 3, 0, 4), u(Op::ExtSet, SINK, 3, 9)]),
        0
    );
}

/// Small whole numbers set no flag and need no helper, whether or not IXC is set.
#[test]
fn whole_numbers_need_no_helper() {
    let mut cpu = cpu();
    let mut r = Rng(5);
    for aux in known_helpers().into_iter().filter(|aux| aux >> 8 == 1) {
        let name = HELPERS[1][aux as usize & 0xff].name;
        if ["Fma", "Fms", "Fnm", "Sqrt", "Div", "Fix"].iter().any(|s| name["vfp.".len()..].starts_with(s)) {
            continue;
        }
        let double = name.ends_with('D') && !name.contains("From") || name.starts_with("vfp.DoubleTo");
        for _ in 0..16 {
            let u = any_uop(&mut r, aux);
            let code = Code::new(&u, Features::none()).expect("an inline form");
            for pair in cpu.ext.chunks_exact_mut(2) {
                let v = [r.below(200), r.below(200)];
                if name.contains("From") {
                    pair.copy_from_slice(&v);
                } else if double {
                    let v = f64::from(v[0]).to_bits();
                    pair.copy_from_slice(&[v as u32, (v >> 32) as u32]);
                } else {
                    pair.copy_from_slice(&v.map(|v| (v as f32).to_bits()));
                }
            }
            cpu.fpscr = 0;
            let before = CALLS.get();
            code.run(&mut cpu, 0);
            assert_eq!((CALLS.get() - before, cpu.fpscr & 0x9f), (0, 0), "{name} {u}");
        }
    }
}

/// Results are held in host registers from one instruction to the next: runs of instructions on a few registers, with helpers called in
/// between.
#[test]
fn runs_of_instructions_do_what_helpers_do() {
    let (mut x, mut y) = (cpu(), cpu());
    let mut r = Rng(6);
    let known = known_helpers();
    let vfp: Vec<u32> = known.iter().copied().filter(|aux| aux >> 8 == 1).collect();
    for n in 0..600 {
        let uops: Vec<Uop> = (0..12)
            .map(|_| {
                let other = r.below(12) == 0;
                let aux = if other { r.pick(&known) } else { r.pick(&vfp) };
                let mut u = any_uop(&mut r, aux);
                if aux >> 8 == 1 && !HELPERS[1][aux as usize & 0xff].name.starts_with("vfp.Fix") {
                    // Few registers, so that each result is soon used.
                    (u.imm, u.a, u.b) = (r.below(6), r.below(6) as u8, r.below(6) as u8);
                }
                u
            })
            .collect();
        let features = if n % 2 == 0 { Features::detect() } else { Features::none() };
        // What may be known of FPSCR beforehand.
        let mode = [None, Some(Mode::Gradual), Some(Mode::Flush)][n / 2 % 3];
        let code = Code::of(features, |e| {
            e.fpscr = mode;
            for u in &uops {
                if !lower(e, u, call) {
                    call(e, u);
                }
            }
            true
        });
        let code = code.expect("code");
        for _ in 0..20 {
            let fpscr = known_fpscr(mode, if r.below(4) == 0 { any_fpscr(&mut r) } else { 0x10 });
            if r.below(2) == 0 {
                fill(&mut r, &mut x.ext);
            } else {
                let double = r.below(2) == 0;
                ordinary(&mut r, &mut x.ext, double, true);
            }
            (x.fpscr, y.fpscr, y.ext) = (fpscr, fpscr, x.ext);
            code.run(&mut x, 0);
            for u in &uops {
                helper(&mut y, u.aux, u.imm, u.a.into(), u.b.into());
            }
            assert_eq!((x.ext, x.fpscr), (y.ext, y.fpscr), "{uops:?}");
        }
    }
}
