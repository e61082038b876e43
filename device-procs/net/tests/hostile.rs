//! No bytes of a guest make the network panic or exceed its limits.

mod common;

use common::hostile::{Bytes, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[test]
fn any_steps_of_guest_and_peers() {
    let rounds = std::env::var("REPRISE_NET_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    for seed in 1..=rounds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let len = rng.random_range(100..20_000);
        let bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut Bytes(&bytes))));
        assert!(result.is_ok(), "seed {seed}");
    }
}
