//! A conversation between cpu-proc and a device, read along by a tap or not, that checks itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reprise_channel::{Abort, CpuPort, DevicePort, Event, Request, Role, Sent, SpinPolicy, TapPort, wait_many};

use super::small_channel;

/// Bytes that tell their number and length.
pub(crate) fn bytes(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|index| (number as usize * 31 + index * 7) as u8).collect()
}

pub(crate) fn done(sent: Sent) -> u64 {
    match sent {
        Sent::Done(seq) => seq,
        other => panic!("not sent: {other:?}"),
    }
}

/// A device that answers everything: a read with its offset plus one, host input with the same bytes as output.
fn serve(mut port: DevicePort) -> u64 {
    let mut served = 0;
    loop {
        let message = match port.next_request(&Abort::NEVER) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => {
                assert!(error.is_end(), "{error}");
                return served;
            }
        };
        let (seq, synchronous) = (message.seq, message.request.is_synchronous());
        let data = message.request.data().to_vec();
        let answer = match message.request {
            Request::Read { offset, .. } => Event::Reply { value: offset + 1 },
            _ => Event::Ack,
        };
        if !data.is_empty() {
            port.emit(seq, &Event::HostOut { port: 0, data: &data }, &Abort::NEVER).unwrap();
        }
        if synchronous {
            port.emit(seq, &answer, &Abort::NEVER).unwrap();
        } else {
            port.emit(seq, &Event::Publish { reg: 1, value: seq }, &Abort::NEVER).unwrap();
        }
        port.complete().unwrap();
        served += 1;
    }
}

/// Reads along, commits in batches, and returns the checksums of requests and events.
fn tap(mut port: TapPort, stop: &AtomicBool) -> (Vec<u64>, Vec<u64>) {
    let (mut requests, mut events) = (Vec::new(), Vec::new());
    loop {
        let last = stop.load(Ordering::Acquire);
        while let Some(message) = port.next_request().unwrap() {
            requests.push(message.checksum());
        }
        while let Some(message) = port.next_event().unwrap() {
            events.push(message.checksum());
        }
        port.commit().unwrap();
        if last {
            return (requests, events);
        }
        let abort = Abort::after(Duration::from_millis(5)).or_stop(stop);
        wait_many(&[port.on_requests(4), port.on_events(4)], &SpinPolicy::SLEEP, &abort).unwrap();
    }
}

/// Runs `rounds` mixed requests through a channel and returns checksums of what was sent and what was received.
fn converse(cpu: &mut CpuPort, rounds: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let data = bytes(round, (round % 120) as usize);
        let request = match round % 4 {
            0 => Request::Read { offset: round, size: 4 },
            1 => Request::Write { offset: round, size: 2, value: round & 0xFFFF, posted: true },
            2 => Request::Host { port: 0, data: &data },
            _ => Request::Write { offset: round, size: 8, value: round, posted: false },
        };
        sent.push(reprise_channel::content_checksum(
            &request.to_slot(round * 10),
            if data.len() > 8 { request.data() } else { &[] },
        ));
        let seq = loop {
            match cpu.send(round * 10, &request, &Abort::NEVER).unwrap() {
                Sent::Done(seq) => break seq,
                Sent::EventPending => received.push(cpu.try_event().unwrap().unwrap().checksum()),
                Sent::Ended(how) => panic!("nobody ends this wait, but {how:?}"),
            }
        };
        while request.is_synchronous() {
            let message = cpu.wait_event(&Abort::NEVER).unwrap().unwrap();
            received.push(message.checksum());
            match message.event {
                Event::Reply { value } => assert_eq!((message.cause, value), (seq, round + 1)),
                Event::Ack => assert_eq!(message.cause, seq),
                Event::HostOut { data: echoed, .. } => {
                    assert_eq!((message.cause, echoed, message.effect), (seq, data.as_slice(), None));
                    continue;
                }
                _ => continue,
            }
            break;
        }
    }
    while !cpu.drained().unwrap() {
        if let Some(message) = cpu.try_event().unwrap() {
            received.push(message.checksum());
        }
    }
    (sent, received)
}

/// One conversation, checked from all sides.
pub(crate) fn run(tapped: bool, spin: SpinPolicy, rounds: u64) {
    let channel = small_channel(tapped);
    let mut cpu = CpuPort::attach(channel.name()).unwrap();
    let mut device = DevicePort::attach(channel.name(), Role::Device).unwrap();
    cpu.set_spin(spin);
    device.set_spin(spin);
    cpu.set_active(true);
    assert_eq!((cpu.id(), cpu.name(), device.name()), (3, "uart0", "uart0"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let taps = tapped.then(|| {
            let port = TapPort::attach(channel.name()).unwrap();
            scope.spawn(|| tap(port, &stop))
        });
        let served = scope.spawn(move || serve(device));
        let (sent, received) = converse(&mut cpu, rounds);
        assert_eq!(cpu.effects_taken(), rounds);
        drop(cpu);
        assert_eq!(served.join().unwrap(), rounds);
        stop.store(true, Ordering::Release);
        if let Some(taps) = taps {
            assert_eq!(taps.join().unwrap(), (sent, received), "the tap sees what the ends see, in the same order");
        }
    });
}
