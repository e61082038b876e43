//! Seeded delays. Host timing must never change a replay; tests turn this on in every process to shake timing hard.
//!
//! Off, a [`point`] is one predictable branch. On, each thread draws from its own generator, derived from the seed, and
//! at each point does nothing, spins, yields or sleeps.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

static ENABLED: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Turns delays on with a seed, or off with 0. Processes of one machine get different seeds, e.g. by adding their number.
pub fn enable(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    ENABLED.store(seed != 0, Ordering::Relaxed);
}

/// Whether delays are on.
#[must_use]
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// A place where a delay may happen.
#[inline(always)]
pub fn point() {
    if ENABLED.load(Ordering::Relaxed) {
        delay();
    }
}

/// The finaliser of splitmix64.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cold]
fn delay() {
    let draw = STATE.with(|state| {
        let mut now = state.get();
        if now == 0 {
            now = mix(SEED.load(Ordering::Relaxed) ^ THREADS.fetch_add(1, Ordering::Relaxed).rotate_left(32)) | 1;
        }
        now = now.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state.set(now);
        mix(now)
    });
    // Mostly nothing, so that a test stays fast; now and then long enough for every other process to run far ahead.
    match draw % 1024 {
        0..=1 => std::thread::sleep(Duration::from_micros(200 + (draw >> 32) % 2000)),
        2..=9 => std::thread::sleep(Duration::from_micros(1 + (draw >> 32) % 50)),
        10..=41 => std::thread::yield_now(),
        42..=191 => {
            for _ in 0..(draw >> 32) % 400 {
                std::hint::spin_loop();
            }
        }
        _ => {}
    }
}
