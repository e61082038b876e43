//! What compiled code calls.

use reprise_arm::ir::{HELPERS, Op};
use reprise_arm::state::Cpu;
use reprise_interp::cache::{Code, CodePtr};
use reprise_interp::exec::{Next, Run};
use std::ptr::NonNull;

/// One run of the engine, as compiled code hands it on.
pub(crate) struct Frame<'a> {
    /// The interpreter's part.
    pub(crate) run: Run<'a>,
    /// How it left.
    pub(crate) next: Next,
}

/// The block behind a pointer that compiled code carries.
fn code(c: *mut Code) -> CodePtr {
    NonNull::new(c).expect("compiled code names its block")
}

/// Executes micro-op `at` of `c`; 1 if compiled code must be left.
///
/// # Safety
/// Called by compiled code alone: `frame` and `c` are those of the run in progress, and the guest's registers are in memory.
pub(crate) unsafe extern "C" fn step(frame: *mut Frame<'_>, c: *mut Code, at: u32, remaining: i64) -> u32 {
    // SAFETY: the caller's promise; the engine touches the frame only while no compiled code runs.
    let frame = unsafe { &mut *frame };
    let cpu = frame.run.cpu();
    cpu.flags = cpu.host.unpack();
    // Nobody looks at it after a step that stays: to copy it would wait for the stores of its parts.
    let next = frame.run.step(code(c), at as usize, remaining);
    if next != Next::Stepped {
        frame.next = next;
        return 1;
    }
    let cpu = frame.run.cpu();
    cpu.host.pack(cpu.flags);
    0
}

/// Runs `c` from micro-op `at` to its end.
///
/// # Safety
/// As for [`step`].
pub(crate) unsafe extern "C" fn resume(frame: *mut Frame<'_>, c: *mut Code, at: u32, remaining: i64) {
    // SAFETY: as in `step`.
    let frame = unsafe { &mut *frame };
    let cpu = frame.run.cpu();
    cpu.flags = cpu.host.unpack();
    frame.next = frame.run.resume(code(c), at as usize, remaining);
}

/// Calls the helper that a micro-op, packed in two words, names, and gives its result.
///
/// # Safety
/// Called by compiled code alone, with the core it runs.
pub(crate) unsafe extern "C" fn helper(cpu: *mut Cpu, uop: u64, aux: u32) -> u32 {
    // SAFETY: the caller's promise; nothing else borrows the core while compiled code runs.
    let cpu = unsafe { &mut *cpu };
    let byte = |n: u32| (uop >> (8 * n)) as u8;
    let (d, a, b, imm) = (byte(1), byte(2), byte(3), (uop >> 32) as u32);
    let f = HELPERS[aux as usize >> 8][aux as usize & 0xff].f;
    let v = if byte(0) == Op::HelperK as u8 {
        f(cpu, imm, a.into(), b.into())
    } else {
        let (x, y) = (cpu.regs[usize::from(a)], cpu.regs[usize::from(b)]);
        f(cpu, x, y, imm)
    };
    cpu.regs[usize::from(d)] = v;
    v
}
