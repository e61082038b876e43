//! The ports at work: each test attaches the ends in threads, each with a mapping of its own, as processes do.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::talk::{bytes, done, run};
use common::{config, fresh_name, small_channel, small_control};
use rand::{Rng as _, SeedableRng as _};
use reprise_channel::{
    Abort, ChannelSegment, CloseReason, CpuControl, CpuPort, DaemonControl, DevicePort, Doorbell, EndReason, Event,
    JournalEntry, Position, Problem, Request, Role, Sent, SpinPolicy, TapPort, Waited, wait_many,
};

#[test]
fn conversation_asleep() {
    run(false, SpinPolicy::SLEEP, 2000);
}

#[test]
fn conversation_spinning() {
    run(false, SpinPolicy { limit: Duration::from_micros(100), only_active: true }, 5000);
}

#[test]
fn conversation_tapped() {
    run(true, SpinPolicy::SLEEP, 2000);
    run(true, SpinPolicy { limit: Duration::from_micros(20), only_active: false }, 5000);
}

#[test]
fn arena_data_of_every_length_arrives() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    for len in 0..=256 {
        let data = bytes(len as u64, len);
        assert!(cpu.try_send(0, &Request::Host { port: 9, data: &data }).unwrap().is_some());
        let message = device.try_request().unwrap().unwrap();
        assert_eq!(message.request, Request::Host { port: 9, data: &data });
        device.complete().unwrap();
    }
    let error = cpu.try_send(0, &Request::Host { port: 9, data: &[0; 257] }).unwrap_err();
    assert_eq!(error.problem, Problem::TooLong { len: 257, max: 256 });
}

#[test]
fn a_slot_is_free_only_when_peer_and_tap_are_past_it() {
    let channel = small_channel(true);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    let mut tap = TapPort::attach(channel.name()).unwrap();
    let request = Request::Write { offset: 0, size: 4, value: 7, posted: true };
    let mut fill = || std::iter::from_fn(|| cpu.try_send(0, &request).unwrap()).count();
    assert_eq!(fill(), 8);
    while device.try_request().unwrap().is_some() {}
    device.complete().unwrap();
    assert_eq!(fill(), 0, "the tap has committed nothing");
    for _ in 0..8 {
        tap.next_request().unwrap().unwrap();
    }
    assert_eq!(fill(), 0, "taken is not committed");
    tap.commit_requests(3).unwrap();
    assert_eq!(fill(), 3);
    tap.commit().unwrap();
    assert_eq!(fill(), 5, "the peer has the three new ones still");
    assert_eq!(tap.commit_requests(12).unwrap_err().problem, Problem::Misuse("committed a message that was not taken"));
}

#[test]
fn a_blocked_sender_wakes_a_tap_that_waits_for_more() {
    let channel = small_channel(true);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    let mut tap = TapPort::attach(channel.name()).unwrap();
    let data = [1; 200];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut seen = 0;
            while seen < 3 {
                // The arena has room for one message at a time, so eight will never be there.
                let waited = wait_many(&[tap.on_requests(8)], &SpinPolicy::SLEEP, &Abort::NEVER).unwrap();
                assert_eq!(waited, Waited::Ready);
                while tap.next_request().unwrap().is_some() {
                    seen += 1;
                }
                tap.commit().unwrap();
                if seen == 2 {
                    break;
                }
            }
        });
        for _ in 0..3 {
            done(cpu.send(0, &Request::Host { port: 0, data: &data }, &Abort::NEVER).unwrap());
            device.try_request().unwrap().unwrap();
            device.complete().unwrap();
        }
    });
}

#[test]
fn peeking_takes_nothing() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    cpu.try_send(5, &Request::Reset).unwrap().unwrap();
    assert!(cpu.peek_event().unwrap().is_none());
    device.try_request().unwrap().unwrap();
    device.try_emit(0, &Event::HostOffer { port: 1, data: b"k" }).unwrap().unwrap();
    device.try_emit(0, &Event::SetLine { pin: 2, level: true }).unwrap().unwrap();
    assert!(!cpu.device_passed(0).unwrap());
    device.complete().unwrap();
    assert!(cpu.device_passed(0).unwrap());
    for _ in 0..2 {
        assert_eq!(cpu.peek_event().unwrap().unwrap().event, Event::HostOffer { port: 1, data: b"k" });
    }
    assert!(cpu.on_event().ready());
    assert_eq!(cpu.wait_passed(0, &Abort::NEVER).unwrap(), Sent::Done(0));
    assert_eq!(cpu.try_event().unwrap().unwrap().effect, None);
    let line = cpu.try_event().unwrap().unwrap();
    assert_eq!((line.event, line.effect, line.seq), (Event::SetLine { pin: 2, level: true }, Some(0), 1));
    assert!(cpu.try_event().unwrap().is_none() && cpu.drained().unwrap());
}

#[test]
fn waits_end_when_told_to() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let _device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    assert!(cpu.wait_event(&Abort::after(Duration::from_millis(1))).unwrap().is_none());
    let stop = AtomicBool::new(true);
    assert!(cpu.wait_event(&Abort::NEVER.or_stop(&stop)).unwrap().is_none());
    let bell = Doorbell::new();
    std::thread::scope(|scope| {
        scope.spawn(|| bell.ring());
        assert!(cpu.wait_event(&Abort::NEVER.or_rung(&bell)).unwrap().is_none());
        assert!(!bell.take(), "the wait has taken the ring");
    });
    for _ in 0..8 {
        done(cpu.send(0, &Request::Reset, &Abort::NEVER).unwrap());
    }
    let sent = cpu.send(0, &Request::Reset, &Abort::after(Duration::from_millis(1))).unwrap();
    assert_eq!(sent, Sent::Ended(Waited::TimedOut));
}

#[test]
fn closing_wakes_everybody() {
    let channel = small_channel(true);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    let tap = TapPort::attach(channel.name()).unwrap();
    std::thread::scope(|scope| {
        let ends = [
            scope.spawn(move || cpu.wait_event(&Abort::NEVER).map(|_| ()).unwrap_err()),
            scope.spawn(move || device.next_request(&Abort::NEVER).map(|_| ()).unwrap_err()),
            scope.spawn(move || wait_many(&[tap.on_events(5)], &SpinPolicy::SLEEP, &Abort::NEVER).unwrap_err()),
        ];
        channel.close(CloseReason::PeerDied);
        for end in ends {
            let error = end.join().unwrap();
            // Who wakes late may find that another one has left already.
            assert!(error.is_end(), "{error}");
        }
    });
    let mut late = CpuPort::attach(channel.name()).unwrap();
    let error = late.wait_event(&Abort::NEVER).map(|_| ()).unwrap_err();
    assert_eq!(error.problem, Problem::Closed(CloseReason::PeerDied));
    assert_eq!(error.to_string(), "channel uart0, event ring: closed: a process at its other end died");
}

#[test]
fn what_was_said_before_leaving_is_still_heard() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    cpu.try_send(0, &Request::Reset).unwrap();
    device.try_request().unwrap().unwrap();
    device.try_emit(0, &Event::Ack).unwrap();
    drop(device);
    assert_eq!(cpu.wait_event(&Abort::NEVER).unwrap().unwrap().event, Event::Ack);
    assert_eq!(cpu.wait_event(&Abort::NEVER).map(|_| ()).unwrap_err().problem, Problem::PeerLeft);
}

#[test]
fn the_daemon_in_the_devices_place_runs_ahead() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut daemon = DevicePort::attach(channel.name(), Role::DaemonAsDevice).unwrap();
    for cause in 0..8 {
        daemon.try_emit(cause, &Event::Reply { value: cause }).unwrap().unwrap();
    }
    assert!(daemon.try_emit(8, &Event::Ack).unwrap().is_none());
    assert!(!daemon.on_room().ready());
    assert!(cpu.peek_event().unwrap().is_some());
    for cause in 0..8 {
        let seq = done(cpu.send(0, &Request::Read { offset: 0, size: 1 }, &Abort::NEVER).unwrap());
        assert_eq!(seq, cause);
        let reply = cpu.wait_event(&Abort::NEVER).unwrap().unwrap();
        assert_eq!((reply.cause, reply.event), (cause, Event::Reply { value: cause }));
    }
    assert!(daemon.on_room().ready());
    assert!(daemon.try_emit(8, &Event::Ack).unwrap().is_some());
    let early = cpu.try_event().unwrap_err();
    assert_eq!(early.problem, Problem::Cause { seq: 8, cause: 8, sent: 8 });
}

#[test]
fn a_port_goes_on_where_its_predecessor_stopped() {
    let channel = small_channel(false);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    let data = bytes(1, 100);
    for _ in 0..2 {
        cpu.try_send(0, &Request::Host { port: 0, data: &data }).unwrap().unwrap();
    }
    device.try_request().unwrap().unwrap();
    device.complete().unwrap();
    drop((cpu, device));
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    assert_eq!((cpu.requests_sent(), device.requests_taken()), (2, 1));
    assert!(cpu.try_send(0, &Request::Host { port: 0, data: &data }).unwrap().is_none(), "old bytes are still read");
    assert_eq!(device.try_request().unwrap().unwrap().request.data(), data);
    device.complete().unwrap();
    assert_eq!(cpu.try_send(0, &Request::Host { port: 0, data: &data }).unwrap(), Some(2));
    assert_eq!(device.try_request().unwrap().unwrap().request.data(), data);
}

/// The reader is slow, as cpu-proc is in a replay, and the writer dies again and again: each successor knows which bytes are still read, and which are not.
#[test]
fn a_successor_finds_the_room_that_there_is() {
    const LONGEST: usize = 40;
    for seed in 0..50 {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let channel = small_channel(false);
        let mut cpu = CpuPort::attach(channel.name()).unwrap();
        let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
        cpu.try_send(0, &Request::Read { offset: 0, size: 4 }).unwrap().unwrap();
        let mut under_way: VecDeque<Vec<u8>> = VecDeque::new();
        for step in 0..2000 {
            match rng.random_range(0..4) {
                0 => device.succeed().unwrap(),
                1 => {
                    let Some(data) = under_way.pop_front() else { continue };
                    let event = cpu.try_event().unwrap().expect("it was sent");
                    assert_eq!(event.event, Event::HostOut { port: 0, data: &data }, "seed {seed}, step {step}");
                }
                _ => {
                    let data = bytes(step, rng.random_range(0..=LONGEST));
                    let in_arena = |data: &Vec<u8>| if data.len() > 8 { data.len().next_multiple_of(8) } else { 0 };
                    let taken = under_way.iter().map(in_arena).sum::<usize>();
                    // At the arena's end there may be a gap where the longest did not fit.
                    let must = under_way.len() < 8 && taken + LONGEST + in_arena(&data) <= 256;
                    match device.try_emit(0, &Event::HostOut { port: 0, data: &data }).unwrap() {
                        Some(_) => under_way.push_back(data),
                        None => assert!(
                            !must,
                            "seed {seed}, step {step}: {taken} bytes are read, no room for {}",
                            data.len()
                        ),
                    }
                }
            }
        }
    }
}

#[test]
fn a_tap_that_was_killed_has_a_successor() {
    let (channel, segment) = (small_channel(true), small_control());
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    let mut journal = CpuControl::attach(segment.name()).unwrap().journal;
    let at = Position::default();
    for n in 0..3 {
        done(cpu.send(n, &Request::Host { port: n, data: &bytes(n, 20) }, &Abort::NEVER).unwrap());
        assert!(device.try_request().unwrap().is_some());
        device.emit(n, &Event::HostOut { port: n, data: &bytes(n, 20) }, &Abort::NEVER).unwrap();
        device.emit(n, &Event::Ack, &Abort::NEVER).unwrap().unwrap();
        device.complete().unwrap();
        journal.push(at, &JournalEntry::Warp { ns: n }, &Abort::NEVER).unwrap().unwrap();
    }
    let (mut tap, mut control) =
        (TapPort::attach(channel.name()).unwrap(), DaemonControl::attach(segment.name()).unwrap());
    for _ in 0..3 {
        assert!(tap.next_request().unwrap().is_some() && tap.next_event().unwrap().is_some());
        assert!(control.journal.try_next().unwrap().is_some());
    }
    tap.commit_requests(1).unwrap();
    tap.commit_events(2).unwrap();
    control.journal.commit(2).unwrap();
    // As a kill leaves them: nobody says that he left.
    std::mem::forget((tap, control));
    let mut tap = TapPort::attach(channel.name()).unwrap();
    let mut control = DaemonControl::attach(segment.name()).unwrap();
    let m = tap.next_request().unwrap().unwrap();
    assert_eq!((m.seq, m.request), (1, Request::Host { port: 1, data: &bytes(1, 20) }));
    assert_eq!(tap.next_event().unwrap().unwrap().seq, 2);
    assert_eq!(control.journal.try_next().unwrap().unwrap().entry, JournalEntry::Warp { ns: 2 });
    assert!(control.journal.try_next().unwrap().is_none());
    // And the others go on.
    let sent = cpu.send(9, &Request::Read { offset: 0, size: 4 }, &Abort::NEVER).unwrap();
    assert_eq!(done(sent), 3);
    while tap.next_request().unwrap().is_some() {}
    assert_eq!(tap.requests_taken(), 4);
}

#[test]
fn journal_and_script() {
    let control = small_control();
    let mut cpu = CpuControl::attach(control.name()).unwrap();
    let mut daemon = DaemonControl::attach(control.name()).unwrap();
    let entries = [
        JournalEntry::Consumed { channel: 4, effect: 10, checksum: 0x1234_5678_9ABC_DEF0 },
        JournalEntry::Host { channel: 4, request: 3, data: (0, 0), port: 0 },
        JournalEntry::Warp { ns: 77 },
        JournalEntry::Anchor { pc: 0x8000_8000, cpsr: 0x6000_01D3, registers: 1, icount: 2, consumed: 3 },
        JournalEntry::Progress { icount: 5, vtime: 6, marks: 1 },
        JournalEntry::Mark { channel: 4, requests: 1, effects: 2, consumed: 3, local: 4 },
        JournalEntry::End { reason: EndReason::PowerOff, icount: 8, vtime: 9 },
        JournalEntry::EndHash { state_hash: std::array::from_fn(|index| index as u8) },
    ];
    let at = |number: u64| Position { epoch: number, count: 2 * number, idle: number as u32 % 3 };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..80 {
                let entry = &entries[number as usize % 8];
                assert_eq!(cpu.journal.push(at(number), entry, &Abort::NEVER).unwrap(), Some(number));
            }
            for number in 0..80 {
                let message = cpu.script.wait_next(&Abort::NEVER).unwrap().unwrap();
                let bytes = bytes(number, number as usize);
                assert_eq!((message.seq, message.at, message.bytes), (number, at(number), bytes.as_slice()));
                assert!(matches!(message.entry, JournalEntry::Host { channel: 2, port: 5, request, .. } if request == number));
            }
            cpu.status.set(&reprise_channel::Status { icount: 80, active: 1, ..Default::default() });
        });
        for number in 0..80 {
            while daemon.journal.peek().unwrap().is_none() {
                wait_many(&[daemon.journal.on_entries(1)], &SpinPolicy::SLEEP, &Abort::NEVER).unwrap();
            }
            let message = daemon.journal.try_next().unwrap().unwrap();
            assert_eq!((message.seq, message.at, message.entry), (number, at(number), entries[number as usize % 8]));
            daemon.journal.commit(number + 1).unwrap();
        }
        for number in 0..80 {
            let entry = JournalEntry::Host { channel: 2, request: number, data: (0, 0), port: 5 };
            let pushed = daemon.script.push(at(number), &entry, &bytes(number, number as usize), &Abort::NEVER);
            assert_eq!(pushed.unwrap(), Some(number));
        }
    });
    assert_eq!((control.status().icount, daemon.status.get().active), (80, 1));
}

#[test]
fn one_of_two_ends_of_a_process_may_go() {
    let control = small_control();
    let mut cpu = CpuControl::attach(control.name()).unwrap();
    let DaemonControl { mut journal, script, .. } = DaemonControl::attach(control.name()).unwrap();
    drop(script);
    for number in 0..20 {
        cpu.journal.push(Position::default(), &JournalEntry::Warp { ns: 1 }, &Abort::NEVER).unwrap().unwrap();
        journal.try_next().unwrap().unwrap();
        journal.commit(number + 1).unwrap();
    }
    let timeout = Abort::after(Duration::from_millis(1));
    assert!(cpu.script.wait_next(&timeout).unwrap().is_none());
    drop(journal);
    assert_eq!(cpu.script.wait_next(&timeout).map(|_| ()).unwrap_err().problem, Problem::PeerLeft);
}

#[test]
fn waiting_for_many_channels() {
    // With more than the kernel watches at once it works too, only slower.
    for count in [20, 60] {
        many(count);
    }
}

fn many(count: usize) {
    let channels = (0..count).map(|_| small_channel(false)).collect::<Vec<_>>();
    let mut cpus = channels.iter().map(|channel| CpuPort::attach(channel.name()).unwrap()).collect::<Vec<_>>();
    let mut devices =
        channels.iter().map(|channel| DevicePort::attach(channel.name(), Role::Device).unwrap()).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for device in devices.iter_mut().rev() {
                std::thread::sleep(Duration::from_millis(1));
                device.try_emit(0, &Event::HostOffer { port: 0, data: b"x" }).unwrap().unwrap();
            }
        });
        let mut seen = 0;
        while seen < channels.len() {
            let interests = cpus.iter().map(CpuPort::on_event).collect::<Vec<_>>();
            assert_eq!(wait_many(&interests, &SpinPolicy::SLEEP, &Abort::NEVER).unwrap(), Waited::Ready);
            drop(interests);
            seen += cpus.iter_mut().filter_map(|cpu| cpu.try_event().unwrap().map(|_| ())).count();
        }
    });
}

#[test]
fn default_sizes_work() {
    let channel = ChannelSegment::create(&fresh_name(), &config(true)).unwrap();
    let cpu = CpuPort::attach(channel.name()).unwrap();
    assert_eq!(cpu.config(), &config(true));
}
