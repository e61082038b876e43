//! Engines against each other, on guests that nobody would write: random bytes as code, in random modes, with page tables that map devices as
//! code and code in several places, with exception handlers, interrupts, and stores that hit the code that runs.
//!
//! A [`Case`] comes from a seed or from a fuzzer's bytes. [`judge`] runs it under the subject in one go and in lockstep with the reference, and
//! on the reference one instruction at a time; all must end in the same state. Whatever the guest does, the host must not crash.

pub mod case;
pub mod decoder;
pub mod machine;
pub mod source;

use case::Case;
use machine::Machine;
use reprise_arm::engine::Engine;
use reprise_interp::Interp;
use reprise_lockstep::{Config, Lockstep};

/// Makes an engine.
pub type Make = fn() -> Box<dyn Engine>;

/// The engines that are judged, by name. The interpreter is among them: run in one go, it is compared with itself in single steps.
pub fn subjects() -> Vec<(&'static str, Make)> {
    let interp: (_, Make) = ("interp", || Box::new(Interp::new()));
    #[cfg(target_arch = "x86_64")]
    {
        use reprise_jit::{Jit, emit::Features};
        vec![
            interp,
            // Compiles what it meets for the first time.
            ("jit", || Box::new(Jit::with(Features::detect(), 0).expect("memory for code"))),
            ("jit without AVX2", || Box::new(Jit::with(Features::none(), 0).expect("memory for code"))),
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![interp]
}

/// Runs `case` under the subject and under the reference, the interpreter in single steps.
///
/// # Errors
/// A text of what differs.
pub fn judge(make: Make, case: &Case) -> Result<(), String> {
    let mut reference = Machine::new(case);
    reference.run(&mut Interp::new(), 1);
    // In one go, so that compiled blocks run into each other as they do in earnest.
    let mut whole = Machine::new(case);
    whole.run(make().as_mut(), u64::MAX);
    if let Some(text) = reference.difference(&whole) {
        // Lockstep finds the place, if the way the run is cut does not matter.
        return Err(format!("in one go: {text}\n{}", lockstep(make, case).err().unwrap_or_default()));
    }
    lockstep(make, case)
}

/// The lockstep engine on `case`.
fn lockstep(make: Make, case: &Case) -> Result<(), String> {
    let mut m = Machine::new(case);
    let config = Config { seed: case.seed, longest: 300, all_ram_every: 2000 };
    let mut engine = Lockstep::new(make(), Interp::new(), config);
    m.run(&mut engine, u64::MAX);
    match engine.mismatch() {
        Some(text) => Err(format!("in lockstep: {text}")),
        None => engine.check_ram(m.ram()),
    }
}
