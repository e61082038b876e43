//! Conversations under seeded delays. A binary of its own: delays are on or off for a whole process.

mod common;

use std::time::Duration;

use common::talk::run;
use reprise_channel::{SpinPolicy, jitter};

#[test]
fn delays_change_nothing_that_is_said() {
    assert!(!jitter::enabled());
    for seed in 1..=8 {
        jitter::enable(seed);
        assert!(jitter::enabled());
        run(seed % 2 == 0, SpinPolicy::SLEEP, 200);
        run(seed % 3 == 0, SpinPolicy { limit: Duration::from_micros(20), only_active: seed % 5 == 0 }, 200);
    }
    jitter::enable(0);
    assert!(!jitter::enabled());
}
