//! The coverage page of the instruction tables: `isa_coverage RANDOM DIRECT BOOT`, each a file of counts as `reprise_arm::coverage` writes them.
//! Fails if no test reaches some line. `cargo xtask coverage isa` runs it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reprise_arm::coverage::{Counts, Emitted, SPACES, emits, parse};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut file = |what: &str| -> Result<Counts> {
        let name = args.next().with_context(|| format!("the file of counts of {what} is missing"))?;
        let text = std::fs::read_to_string(&name).with_context(|| format!("reading {name}"))?;
        parse(&text).with_context(|| format!("{name} holds no counts"))
    };
    let (random, direct, boot) = (file("the random tests")?, file("the direct tests")?, file("the boot")?);
    println!(
        "# Instruction tables\n\nMade by `cargo xtask coverage isa`: which lines the random programs of `tests/oracle` reach, which the direct \
         tests of `cpu-proc/interp/tests/lines.rs`, and which a boot of Debian's armmp kernel to its shell; and how a line runs in compiled \
         code:\nnative, or with calls of helpers and system functions, or by leaving it (`leaves`: the engine takes over, for an exception or \
         a wait).\nA line stands for many forms; what is listed is what some of them need (`exception_return`, say: the forms with S that write the PC).\n\n| set | line | random | direct | boot | in compiled code |\n|---|---|---|---|---|---|"
    );
    let (mut lines, mut booted, mut unreached) = (0, 0, Vec::new());
    for space in SPACES {
        for line in space.lines {
            let key = (space.name.to_owned(), line.name.to_owned());
            let mark = |c: &Counts| c.get(&key).is_some_and(|n| *n > 0);
            let (r, d, b) = (mark(&random), mark(&direct), mark(&boot));
            lines += 1;
            booted += u32::from(b);
            if !r && !d {
                unreached.push(format!("{} {}", space.name, line.name));
            }
            let yes = |on| if on { "yes" } else { "" };
            let how = compiled(&emits(space, line));
            println!("| {} | {} | {} | {} | {} | {how} |", space.name, line.name, yes(r), yes(d), yes(b));
        }
    }
    println!("\n{lines} lines; {} reached by tests, {booted} by the boot.", lines - unreached.len());
    ensure!(unreached.is_empty(), "no test reaches: {}", unreached.join(", "));
    Ok(())
}

/// How compiled code runs what a line emits.
fn compiled(emits: &BTreeSet<Emitted>) -> String {
    const LEAVES: [&str; 7] = ["Undef", "Svc", "Smc", "Bkpt", "Wfi", "Wfe", "Leave"];
    let mut parts: Vec<String> = emits
        .iter()
        .filter_map(|e| match e {
            Emitted::Op(name) => LEAVES.contains(&name.as_str()).then(|| format!("leaves: {name}")),
            Emitted::Helper(id, _) if inline(*id) => None,
            Emitted::Helper(_, name) => Some(format!("calls {name}")),
            Emitted::System(_, name) => Some(format!("calls {name}")),
        })
        .collect();
    parts.dedup();
    if parts.is_empty() { "native".into() } else { parts.join(", ") }
}

#[cfg(target_arch = "x86_64")]
fn inline(id: u16) -> bool {
    reprise_jit::fp::known(reprise_arm::ir::HelperId(id))
}

#[cfg(not(target_arch = "x86_64"))]
fn inline(_: u16) -> bool {
    false
}
