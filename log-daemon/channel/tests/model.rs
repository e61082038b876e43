//! Model checks of the ring protocol: loom runs the code of `ring.rs` through every interleaving (up to a number of preemptions) and
//! every value that the memory model lets a load return.
//!
//! Each property is checked twice: with the protocol as it is, where no run may fail, and with one safety net cut, where some run
//! must fail. The second shows that the model would notice.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Condvar, Mutex};
use reprise_channel::ring::{
    AWAKE, Blocked, Producer, Push, Reader, Ring, Side, Space, UNFILLED, Watch, Word, sleep_until,
};

/// One safety net to cut.
trait Cut: 'static {
    const PUBLISH: Ordering = Ordering::Release;
    const FENCE: bool = true;
    const TAP_GATES: bool = true;
    const ARENA_GATES: bool = true;
    const RAISES_BELL: bool = true;
}

struct Nothing;
impl Cut for Nothing {}

struct Publication;
impl Cut for Publication {
    const PUBLISH: Ordering = Ordering::Relaxed;
}

struct Fence;
impl Cut for Fence {
    const FENCE: bool = false;
}

struct TapGate;
impl Cut for TapGate {
    const TAP_GATES: bool = false;
}

struct ArenaGate;
impl Cut for ArenaGate {
    const ARENA_GATES: bool = false;
}

struct Bell;
impl Cut for Bell {
    const RAISES_BELL: bool = false;
}

struct Cell(AtomicU64);

impl Word for Cell {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
}

/// Words of the model's space: cursors, wake words and the bell, slots of two words (number, payload), two arena words.
const PRODUCED: usize = 0;
const PEER: usize = 1;
const TAP: usize = 2;
const WAKES: usize = 3;
const BELL: usize = 7;
const SLOTS: usize = 8;
const CAPACITY: usize = 2;
const ARENA: usize = SLOTS + 2 * CAPACITY;
const WORDS: usize = ARENA + 2;

struct Memory {
    words: Vec<Cell>,
    /// The kernel's list of sleepers, with the words that each watches, and the lock of it.
    sleepers: Mutex<Vec<(Vec<usize>, Arc<Condvar>)>>,
}

/// Memory in which loom sees every access.
struct Model<C>(Arc<Memory>, PhantomData<C>);

impl<C> Clone for Model<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<C: Cut> Model<C> {
    fn new() -> Self {
        let initial = |index| match index {
            BELL => 0,
            WAKES..SLOTS => AWAKE,
            SLOTS..ARENA if (index - SLOTS) % 2 == 0 => UNFILLED,
            _ => 0,
        };
        let words = (0..WORDS).map(|index| Cell(AtomicU64::new(initial(index)))).collect();
        Self(Arc::new(Memory { words, sleepers: Mutex::new(Vec::new()) }), PhantomData)
    }
}

impl<C: Cut> Space for Model<C> {
    type Word = Cell;
    const SLOT_WORDS: usize = 2;
    const PUBLISH: Ordering = C::PUBLISH;
    const TAP_GATES: bool = C::TAP_GATES;
    const ARENA_GATES: bool = C::ARENA_GATES;
    const RAISES_BELL: bool = C::RAISES_BELL;

    fn words(&self, start: usize, len: usize) -> &[Cell] {
        &self.0.words[start..start + len]
    }

    fn fence() {
        if C::FENCE {
            fence(Ordering::SeqCst);
        }
    }

    fn wake(&self, index: usize) {
        let mut sleepers = self.0.sleepers.lock().unwrap();
        sleepers.retain(|(words, bed)| {
            let woken = words.contains(&index);
            if woken {
                bed.notify_one();
            }
            !woken
        });
    }

    /// Like the kernel: compares under the lock of the list. It never times out, so a lost wake is a deadlock, which loom reports.
    fn sleep(watches: &[Watch<'_, Self>], _extra: Option<(&AtomicU32, u32)>, _limit: Option<Duration>) {
        let space = watches[0].0;
        let mut sleepers = space.0.sleepers.lock().unwrap();
        if watches.iter().all(|&(_, index, value)| space.word(index).load(Ordering::Relaxed) as u32 == value) {
            let bed = Arc::new(Condvar::new());
            sleepers.push((watches.iter().map(|&(_, index, _)| index).collect(), bed.clone()));
            drop(bed.wait(sleepers).unwrap());
        }
    }
}

/// With `slots` of the two slots in use.
fn ring(tap: bool, slots: u64) -> Ring {
    Ring {
        produced: PRODUCED,
        peer: PEER,
        tap: tap.then_some(TAP),
        peer_wake: WAKES,
        tap_wake: WAKES + 1,
        space_peer_wake: WAKES + 2,
        space_tap_wake: WAKES + 3,
        tap_bell: BELL,
        slots: SLOTS,
        capacity: slots,
        arena: ARENA,
        arena_bytes: 16,
    }
}

fn no_limit() -> Result<Option<Duration>, ()> {
    Ok(None)
}

/// Publishes `count` slots whose payload tells their number; sleeps when there is no room.
fn produce<C: Cut>(mut producer: Producer<Model<C>>, count: u64) {
    for number in 0..count {
        while let Push::Blocked(blocked) = producer.push(&mut [0, payload(number)], &[], |_, _| {}).unwrap() {
            wait_for_room(&producer, blocked);
        }
    }
}

fn wait_for_room<C: Cut>(producer: &Producer<Model<C>>, blocked: Blocked) {
    let target = producer.target(blocked, None);
    sleep_until(&[target], None, || producer.kick(blocked.side), no_limit).unwrap();
}

fn payload(number: u64) -> u64 {
    0x1000 + number
}

/// Takes `count` slots in order, checks each, and frees it; sleeps when there is none.
fn consume<C: Cut>(mut reader: Reader<Model<C>>, count: u64) {
    for number in 0..count {
        let mut slot = [0; 2];
        while !reader.read(&mut slot).expect("the other side is honest") {
            sleep_until(&[reader.target(1, None)], None, || {}, no_limit).unwrap();
        }
        assert_eq!(slot, [number, payload(number)], "a slot was read before it was written, or after it was reused");
        reader.release(number + 1).unwrap();
    }
}

/// Runs a model. At most `preemptions` forced switches: bugs of such protocols show with two or three.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Runs a model that must fail.
fn must_fail(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failed = catch_unwind(AssertUnwindSafe(|| check(preemptions, model))).is_err();
    std::panic::set_hook(hook);
    assert!(failed, "the model does not notice that a safety net is cut");
}

/// One producer, one peer. Wraps the ring, so both sides sleep and both wake.
fn peers<C: Cut>(count: u64) -> impl Fn() + Send + Sync + 'static {
    move || {
        let space = Model::<C>::new();
        let producer = Producer::new(space.clone(), ring(false, 2)).unwrap();
        let reader = Reader::new(space, ring(false, 2), Side::Peer).unwrap();
        let thread = loom::thread::spawn(move || consume(reader, count));
        produce(producer, count);
        thread.join().unwrap();
    }
}

/// One producer that posts, and settles at the end and before it waits; one peer.
fn posted<C: Cut>(count: u64, settles: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let space = Model::<C>::new();
        let mut producer = Producer::new(space.clone(), ring(false, 2)).unwrap();
        let reader = Reader::new(space, ring(false, 2), Side::Peer).unwrap();
        let thread = loom::thread::spawn(move || consume(reader, count));
        for number in 0..count {
            while let Push::Blocked(blocked) = producer.post(&mut [0, payload(number)], &[], |_, _| {}).unwrap() {
                producer.settle();
                wait_for_room(&producer, blocked);
            }
        }
        if settles {
            producer.settle();
        }
        thread.join().unwrap();
    }
}

/// One producer, a peer and a tap.
fn tapped<C: Cut>(slots: u64, count: u64) -> impl Fn() + Send + Sync + 'static {
    move || {
        let space = Model::<C>::new();
        let producer = Producer::new(space.clone(), ring(true, slots)).unwrap();
        let readers = [Side::Peer, Side::Tap].map(|side| {
            let reader = Reader::new(space.clone(), ring(true, slots), side).unwrap();
            loom::thread::spawn(move || consume(reader, count))
        });
        produce(producer, count);
        for reader in readers {
            reader.join().unwrap();
        }
    }
}

/// One producer, one peer, messages with arena bytes of which one, or one and a half, fit at a time.
fn arena<C: Cut>(lengths: &'static [usize]) -> impl Fn() + Send + Sync + 'static {
    move || {
        let space = Model::<C>::new();
        let mut producer = Producer::new(space.clone(), ring(false, 2)).unwrap();
        let mut reader = Reader::new(space, ring(false, 2), Side::Peer).unwrap();
        let thread = loom::thread::spawn(move || {
            let mut bytes = Vec::new();
            for (number, &len) in lengths.iter().enumerate() {
                let mut slot = [0; 2];
                while !reader.read(&mut slot).expect("the other side is honest") {
                    sleep_until(&[reader.target(1, None)], None, || {}, no_limit).unwrap();
                }
                reader.read_arena(slot[0], slot[1], len as u64, &mut bytes).unwrap();
                assert_eq!(bytes, vec![number as u8 + 1; len], "arena bytes were reused too early");
                reader.release(number as u64 + 1).unwrap();
            }
        });
        for (number, &len) in lengths.iter().enumerate() {
            let bytes = vec![number as u8 + 1; len];
            while let Push::Blocked(blocked) = producer.push(&mut [0, 0], &bytes, |slot, off| slot[1] = off).unwrap() {
                wait_for_room(&producer, blocked);
            }
        }
        thread.join().unwrap();
    }
}

/// A tap that waits for two slots, and a producer whose arena is full after one: the producer's need ends the tap's wait.
fn pressure<C: Cut>() {
    let space = Model::<C>::new();
    let mut producer = Producer::new(space.clone(), ring(true, 2)).unwrap();
    let mut peer = Reader::new(space.clone(), ring(true, 2), Side::Peer).unwrap();
    let mut tap = Reader::new(space, ring(true, 2), Side::Tap).unwrap();
    let thread = loom::thread::spawn(move || {
        let mut slot = [0; 2];
        sleep_until(&[tap.target(2, None)], None, || {}, no_limit).unwrap();
        while tap.read(&mut slot).unwrap() {}
        tap.release(tap.taken()).unwrap();
        tap.taken()
    });
    for number in 0..2 {
        while let Push::Blocked(blocked) = producer.push(&mut [0, 0], &[7; 16], |slot, off| slot[1] = off).unwrap() {
            assert_eq!((number, blocked), (1, Blocked { side: Side::Tap, until: 1 }));
            wait_for_room(&producer, blocked);
        }
        assert!(peer.read(&mut [0; 2]).unwrap());
        peer.release(number + 1).unwrap();
    }
    assert!(thread.join().unwrap() >= 1);
}

#[test]
fn published_slots_are_whole_and_no_wake_is_lost() {
    check(3, peers::<Nothing>(3));
}

#[test]
fn a_relaxed_publish_is_noticed() {
    must_fail(3, peers::<Publication>(3));
}

#[test]
fn a_missing_fence_is_noticed() {
    must_fail(3, peers::<Fence>(3));
}

#[test]
fn no_wake_for_a_posted_slot_is_lost() {
    check(2, posted::<Nothing>(3, true));
}

#[test]
fn a_missing_settle_is_noticed() {
    must_fail(3, posted::<Nothing>(3, false));
}

#[test]
fn no_slot_is_reused_before_both_readers_are_past() {
    check(2, tapped::<Nothing>(1, 2));
}

#[test]
fn a_missing_tap_gate_is_noticed() {
    must_fail(2, tapped::<TapGate>(1, 2));
}

#[test]
fn arena_bytes_are_not_reused_early() {
    check(2, arena::<Nothing>(&[16, 8]));
    check(2, arena::<Nothing>(&[8, 16]));
}

#[test]
fn a_missing_arena_gate_is_noticed() {
    must_fail(2, arena::<ArenaGate>(&[16, 8]));
}

#[test]
fn a_blocked_producer_reaches_a_tap_that_waits_for_more() {
    check(3, pressure::<Nothing>);
}

#[test]
fn a_missing_fence_under_pressure_is_noticed() {
    must_fail(3, pressure::<Fence>);
}

#[test]
fn a_bell_that_is_not_raised_is_noticed() {
    must_fail(3, pressure::<Bell>);
    must_fail(2, tapped::<Bell>(1, 2));
}

/// Like [`check`], with as much of a model too large to exhaust as a minute allows.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_duration = Some(Duration::from_secs(60));
    builder.check(model);
}

#[test]
#[ignore = "takes minutes; part of the slow tests"]
fn slow_longer_runs() {
    explore(4, peers::<Nothing>(3));
    explore(3, peers::<Nothing>(5));
    explore(3, posted::<Nothing>(5, true));
    explore(3, arena::<Nothing>(&[16, 8, 16]));
    explore(3, arena::<Nothing>(&[8, 16, 8]));
    explore(2, tapped::<Nothing>(2, 3));
    explore(3, tapped::<Nothing>(1, 2));
}
