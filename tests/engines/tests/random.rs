//! Random guests: every engine does the same with them, and none crashes. `REPRISE_SLOW` runs a hundred times as many.

use reprise_engines::case::Case;
use reprise_engines::machine::Machine;
use reprise_engines::{decoder, judge, subjects};
use reprise_interp::Interp;

fn many(n: u64) -> u64 {
    let slow = std::env::var_os("REPRISE_SLOW").is_some();
    std::env::var("REPRISE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(if slow { 100 * n } else { n })
}

/// The first seed: another run of cases for whoever looks for more.
fn first() -> u64 {
    std::env::var("REPRISE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn any_bytes_translate_in_any_mode() {
    (0..many(30_000)).for_each(|n| decoder::seeded(first() + n));
}

#[test]
fn engines_agree_on_random_guests() {
    for (name, make) in subjects() {
        for seed in first()..first() + many(600) {
            let case = Case::generate(seed);
            // For a run that does not live to say where it died.
            if std::env::var_os("REPRISE_TRACE").is_some() {
                eprintln!("{name}, seed {seed}");
            }
            let judged = std::panic::catch_unwind(|| judge(make, &case));
            let text = match judged {
                Ok(Ok(())) => continue,
                Ok(Err(text)) => text,
                Err(_) => "it panicked".into(),
            };
            panic!("{name}, seed {seed} (REPRISE_SEED={seed} REPRISE_CASES=1 repeats it): {text}");
        }
    }
}

#[test]
fn engines_agree_on_bytes() {
    let mut s = reprise_engines::source::Source::seeded(99);
    for (name, make) in subjects() {
        for n in 0..many(300) {
            let bytes: Vec<u8> = (0..64 + s.below(100)).flat_map(|_| s.word().to_le_bytes()).collect();
            if let Err(text) = judge(make, &Case::from_bytes(&bytes)) {
                panic!("{name}, bytes number {n}: {text}");
            }
        }
    }
}

/// Seeds that have shown something.
const SHOWN: &[u64] = &[
    // A stop of the engine's own choice right behind an exception, where a replay would have stopped before it.
    103_852, // A jump to address 2 in ARM state met the empty entry of the table of jump targets.
    500_175,
];

#[test]
fn seeds_that_once_failed() {
    for (name, make) in subjects() {
        for seed in SHOWN {
            judge(make, &Case::generate(*seed)).unwrap_or_else(|text| panic!("{name}, seed {seed}: {text}"));
        }
    }
}

/// Cases that all stop at once would prove nothing.
#[test]
fn random_guests_run() {
    let (mut retired, mut touched, mut long) = (0, 0, 0);
    for seed in 0..200 {
        let mut m = Machine::new(&Case::generate(seed));
        m.run(&mut Interp::new(), u64::MAX);
        let (icount, accesses, _) = m.summary();
        retired += icount;
        touched += u64::from(accesses > 0);
        long += u64::from(icount >= 200);
    }
    println!("{retired} instructions, {touched} guests touch devices, {long} run to the end");
    assert!(retired > 200 * 400 && touched > 40 && long > 120, "{retired} {touched} {long}");
}

/// A judge of compiled code must see some.
#[cfg(target_arch = "x86_64")]
#[test]
fn random_guests_get_compiled() {
    let (mut translated, mut compiled) = (0, 0);
    for seed in 0..100 {
        let mut jit = reprise_jit::Jit::with(reprise_jit::emit::Features::detect(), 0).expect("memory for code");
        Machine::new(&Case::generate(seed)).run(&mut jit, u64::MAX);
        translated += jit.stats().translated;
        compiled += jit.stats().compiled;
    }
    println!("{compiled} blocks compiled of {translated}");
    assert!(compiled > 500, "{compiled}");
}
