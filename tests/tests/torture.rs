//! Processes of a machine are killed at seeded moments while Linux works with a disk and a network: see `xtask::torture`.

use reprise_tests::{Rig, guest, prefix, slow};
use xtask::torture::{Rack, Tally};

/// 20 kills, 200 if there is time.
#[test]
fn killed_processes_change_nothing() {
    let rig = Rig::new();
    let rack = Rack::new(prefix(), guest(), &rig.path("torture")).expect("prepared");
    let calm = rack.calm().unwrap_or_else(|e| panic!("an undisturbed life: {e:#}"));
    let mut tally = Tally::default();
    let kills = if slow() { 200 } else { 20 };
    while tally.killed() < kills {
        let seed = 100 + tally.lives as u64;
        let wanted = (kills - tally.killed()).min(40);
        rack.life(&calm, seed, wanted, &mut tally).unwrap_or_else(|e| panic!("seed {seed}: {e:#}"));
    }
    assert!(tally.recoveries.values().map(Vec::len).sum::<usize>() > 0, "successors were needed: {tally:?}");
}
