//! A hundred megabytes each way: exact, and no more memory than a connection has.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::host::{BUFFER, Memory, Port};
use common::world::World;
use reprise_net::{Config, GATEWAY};

const TOTAL: usize = 100_000_000;
/// A connection's buffers on both sides, frames on their way, and what the test itself holds.
const MEMORY: usize = 4 << 20;

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's allocator, and the counters are no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Byte `n` of the stream.
fn byte(n: usize) -> u8 {
    (n.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

fn fill(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(byte).collect()
}

fn check(got: &mut usize, data: &[u8]) {
    for (n, b) in data.iter().enumerate() {
        assert!(*b == byte(*got + n), "byte {} is wrong", *got + n);
    }
    *got += data.len();
}

#[test]
fn a_hundred_megabytes_each_way() {
    let mut world = World::new(Config::default(), Memory::with_ports(&[(80, Port::Open)]));
    world.configure();
    world.card_room = 64;
    let guest = world.connect((GATEWAY, 80), 50000);
    world.run_for(1000);
    let id = world.host.streams()[0];
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let (mut out, mut out_got, mut back, mut back_got) = (0, 0, 0, 0);
    world.until(100_000, |w| {
        let socket = w.socket(guest);
        while out < TOTAL && socket.can_send() {
            out += socket.send_slice(&fill(out, (TOTAL - out).min(16 << 10))).unwrap();
        }
        while socket.can_recv() {
            socket.recv(|data| (data.len(), check(&mut back_got, data))).unwrap();
        }
        let mut state = w.host.state();
        let room = BUFFER - state.stream(id).output.len();
        if back < TOTAL && room > BUFFER / 2 {
            back += state.write(id, &fill(back, room.min(TOTAL - back)));
        }
        if !state.stream(id).input.is_empty() {
            check(&mut out_got, &state.read(id));
        }
        out_got == TOTAL && back_got == TOTAL
    });
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(most < MEMORY, "{most} bytes more than before");
    assert_eq!(world.net.counts().dropped, 0);
}
