//! The network cards under the kernel's own drivers: a lease, ping, and TCP in both directions, by a network in user mode.

use reprise_tests::network::{Board, Host};
use reprise_tests::{Rig, Run, prefix};

/// Bytes that go each way.
const SIZE: usize = 2 << 20;

fn replays(rig: &Rig, run: &Run) {
    rig.replay(&run.recording, &[]).exact(run);
    rig.replay(&run.recording, &["--cpu-only"]).exact(run);
    for seed in ["1", "2"] {
        rig.replay(&run.recording, &["--jitter", seed]).exact(run);
    }
}

/// Records the guest's work over `card`, the machine's `device`, and replays it.
fn works(rig: &Rig, board: &Board, card: &str, device: &str) -> Run {
    let host = Host::new(rig, SIZE);
    let mut c = host.machine(rig, board, &format!("run=net card={card}"));
    c.arg("--net").arg(format!("{device}=user,dns=none"));
    let run = rig.record("net", c);
    host.check(&run, "");
    replays(rig, &run);
    run
}

#[test]
fn the_lan9118_carries_a_lease_pings_and_connections() {
    let rig = Rig::new();
    works(&rig, &Board::A15("machines/vexpress.ron".into()), "lan", "eth0");
}

#[test]
fn the_lan9118_of_the_other_board_does_too() {
    let rig = Rig::new();
    works(&rig, &Board::A9, "lan", "eth0");
}

#[test]
fn virtio_net_carries_a_lease_pings_and_connections() {
    let rig = Rig::new();
    let board = prefix().join("share/reprise/configs/machines/vexpress.ron");
    let config = rig.path("machine.ron");
    std::fs::write(&config, xtask::torture::with_network(&board).expect("a board")).expect("written");
    works(&rig, &Board::A15(config), "virtio", "net0");
}
