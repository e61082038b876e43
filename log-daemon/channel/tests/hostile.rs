//! Ends of a channel against a peer that writes nonsense, with seeded random steps.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::hostile::{Bytes, channel, control, parse};
use common::{fresh_name, small_channel};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use reprise_channel::ring::Space;
use reprise_channel::{Abort, CpuPort, DevicePort, Event, Problem, Request, Role, Segment, TapPort};

/// Runs `rounds` rounds of random steps, each from a seed that a failure names.
fn rounds(first_seed: u64, rounds: u64, steps: usize, mut run: impl FnMut(&mut Bytes<'_>)) {
    for seed in first_seed..first_seed + rounds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let bytes = (0..steps).map(|_| rng.random()).collect::<Vec<u8>>();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut Bytes(&bytes))));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn a_hostile_device() {
    rounds(1, 400, 3000, |bytes| channel(&fresh_name(), Role::Device, bytes));
}

#[test]
fn a_hostile_cpu() {
    rounds(10_001, 400, 3000, |bytes| channel(&fresh_name(), Role::Cpu, bytes));
}

#[test]
fn a_hostile_tap() {
    rounds(20_001, 200, 3000, |bytes| channel(&fresh_name(), Role::Daemon, bytes));
}

#[test]
fn hostile_ends_of_the_control_segment() {
    rounds(30_001, 200, 3000, |bytes| control(&fresh_name(), Role::Cpu, bytes));
    rounds(40_001, 200, 3000, |bytes| control(&fresh_name(), Role::Daemon, bytes));
}

#[test]
fn random_slots_and_entries() {
    rounds(50_001, 2000, 64 * 40, |bytes| {
        for (index, chunk) in bytes.0.chunks(64 + 16).enumerate() {
            // Mostly zeros with a plausible kind, as pure noise is refused at its first field.
            let mut chunk = chunk.to_vec();
            let keep = chunk[0];
            for (place, byte) in chunk.iter_mut().enumerate() {
                if index % 4 != 0 && place != 24 && keep.wrapping_mul(place as u8 | 1) % 16 != 0 {
                    *byte = 0;
                }
            }
            if index % 2 == 0 {
                chunk[24] = [1, 2, 3, 4, 5, 6, 7, 8, 0x81, 0x83, 0x85, 0x87, 0xC0, 0xC1, 0xC2][usize::from(keep) % 15];
            }
            parse(&chunk);
        }
    });
}

/// A device that rewrites everything it owns as fast as it can, beside an honest cpu-proc and tap: nothing panics or hangs.
#[test]
fn a_device_that_writes_while_others_read() {
    for seed in 0..40 {
        let channel = small_channel(true);
        let raw = Segment::attach(channel.name()).unwrap();
        raw.protect(channel.name(), channel.regions(), Role::Device).unwrap();
        let own = channel.regions().iter().filter(|region| region.owner == Role::Device).collect::<Vec<_>>();
        let mut cpu = CpuPort::attach(channel.name()).unwrap();
        let mut tap = TapPort::attach(channel.name()).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = SmallRng::seed_from_u64(seed);
                while !stop.load(Ordering::Relaxed) {
                    let region = own[rng.random_range(0..own.len())];
                    let index = region.start / 8 + rng.random_range(0..128.min(region.len / 8));
                    let value = if rng.random_bool(0.7) { rng.random_range(0..16) } else { rng.random() };
                    raw.word(index).store(value, Ordering::Relaxed);
                }
            });
            for _ in 0..200 {
                let abort = Abort::after(Duration::from_micros(20));
                let sent = cpu.send(0, &Request::Read { offset: 0, size: 4 }, &abort).map(|_| ());
                let got = cpu.wait_event(&abort).map(|_| ());
                let tapped = tap.next_event().map(|_| ()).and_then(|()| tap.commit());
                if sent.and(got).and(tapped).is_err_and(|error| !error.is_end()) {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// Each wrong value gives its own error, names the channel, and ends the port.
#[test]
fn wrong_values_are_named() {
    let attack = |write: &dyn Fn(&Segment, usize, usize)| {
        let channel = small_channel(false);
        let mut cpu = CpuPort::attach(channel.name()).unwrap();
        let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
        cpu.try_send(0, &Request::Reset).unwrap();
        for _ in 0..2 {
            device.try_emit(0, &Event::SetLine { pin: 0, level: true }).unwrap();
        }
        cpu.try_event().unwrap().unwrap();
        let mut own = channel.regions().iter().filter(|region| region.owner == Role::Device);
        let (page, slots) = (own.next().unwrap().start / 8, own.next().unwrap().start / 8);
        write(&Segment::attach(channel.name()).unwrap(), page, slots);
        // Waits look at the slot before they look at the cursor, polls at the cursor when the slot is not there.
        let first = match cpu.try_event().map(|_| ()) {
            Ok(()) => cpu.try_event().map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(cpu.try_event().map(|_| ()).unwrap_err(), first, "poisoned");
        assert_eq!(cpu.try_send(0, &Request::Reset).unwrap_err(), first, "poisoned");
        assert_eq!(channel.poisoned_by(), Some(Role::Cpu));
        assert_eq!(device.next_request(&Abort::NEVER).map(|_| ()), Ok(()), "what was sent before is still there");
        device.complete().unwrap();
        assert_eq!(device.next_request(&Abort::NEVER).map(|_| ()).unwrap_err().problem, Problem::PeerLeft);
        assert!(first.to_string().starts_with("channel uart0, event ring: "), "{first}");
        first.problem
    };
    let put = |segment: &Segment, word: usize, value: u64| segment.word(word).store(value, Ordering::Release);
    assert_eq!(
        attack(&|s, page, _| put(s, page, 1 << 40)),
        Problem::Beyond { cursor: "producer", is: 1 << 40, limit: 10 }
    );
    assert_eq!(attack(&|s, _, slots| put(s, slots + 8, 5)), Problem::Sequence { expected: 1, found: 5 });
    assert_eq!(attack(&|s, _, slots| put(s, slots + 11, 0x02)), Problem::Kind { seq: 1, kind: 2 });
    assert_eq!(attack(&|s, _, slots| put(s, slots + 13, 2)), Problem::Field { seq: 1, kind: 0x83 });
    assert_eq!(attack(&|s, _, slots| put(s, slots + 15, 2)), Problem::Field { seq: 1, kind: 0x83 });
    assert_eq!(attack(&|s, _, slots| put(s, slots + 9, 3)), Problem::Cause { seq: 1, cause: 3, sent: 1 });
    let range = |off: u64, len: u64| attack(&move |s, _, slots| put(s, slots + 14, off | len << 32));
    assert_eq!(range(8, 249), Problem::ArenaRange { seq: 1, off: 8, len: 249, arena: 256 });
    assert_eq!(range(4, 9), Problem::ArenaRange { seq: 1, off: 4, len: 9, arena: 256 });
    assert_eq!(
        range(0xFFFF_FFF8, 0xFFFF_FFFF),
        Problem::ArenaRange { seq: 1, off: 0xFFFF_FFF8, len: 0xFFFF_FFFF, arena: 256 }
    );
    assert_eq!(range(0, 9), Problem::Field { seq: 1, kind: 0x83 });
}

#[test]
fn a_cursor_that_goes_back_is_named() {
    let channel = small_channel(true);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    device.try_emit(0, &Event::HostOffer { port: 0, data: b"a" }).unwrap();
    cpu.try_event().unwrap().unwrap();
    assert!(cpu.try_event().unwrap().is_none());
    let mut own = channel.regions().iter().filter(|region| region.owner == Role::Device);
    let raw = Segment::attach(channel.name()).unwrap();
    raw.word(own.next().unwrap().start / 8).store(0, Ordering::Release);
    let error = cpu.try_event().map(|_| ()).unwrap_err();
    assert_eq!(error.problem, Problem::Backwards { cursor: "producer", was: 1, is: 0 });
    assert_eq!(error.to_string(), "channel uart0, event ring: the producer cursor went back from 1 to 0");
    // The same for a reader's cursor, as its producer sees it.
    let tap = channel.regions().iter().find(|region| region.owner == Role::Daemon).unwrap().start / 8;
    raw.word(tap + 32).store(9, Ordering::Release);
    for _ in 0..8 {
        let Ok(emitted) = device.try_emit(0, &Event::HostOffer { port: 0, data: b"a" }) else { break };
        assert!(emitted.is_some());
    }
    let error = device.try_emit(0, &Event::Ack).map(|_| ()).unwrap_err();
    assert!(matches!(error.problem, Problem::Beyond { cursor: "tap", is: 9, .. }), "{error}");
}
