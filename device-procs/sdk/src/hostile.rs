//! A guest and a host that do what bytes say: the step from a fuzzer's input, or from a seeded generator's, to a device's events.
//!
//! Unlike the sequences of [`conformance`](crate::conformance), which cover what every device must do, these reach deep into one device: the bytes
//! decide everything, so a fuzzer that sees which code they reach learns its protocol.

use std::collections::VecDeque;

use crate::device::{Event, VTime};
use crate::host::{Effect, Instance, MemoryDisk, Plugin};
use crate::spec::{Framing, ReadPolicy};

/// Events in one sequence, whatever the bytes ask for.
const MOST: usize = 20_000;
/// Bytes of memory that answer DMA reads; what lies elsewhere reads as zeros.
const ANSWER: usize = 1 << 16;

/// What came of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Driven {
    /// Events that the device took.
    pub events: usize,
    /// Values that it had ready in its queues.
    pub queued: usize,
    /// Bytes that it sent to the outside.
    pub sent: usize,
    /// Timers that went off.
    pub timers: usize,
}

/// The bytes of a script, each used once; zeros when they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn take(&mut self, n: usize) -> &[u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }
}

/// The device, and what cpu-proc and its backend know of it.
struct World {
    device: Instance,
    disk: MemoryDisk,
    now: VTime,
    timers: Vec<Option<VTime>>,
    queues: Vec<usize>,
    transfers: VecDeque<(u64, usize)>,
    done: Driven,
}

impl World {
    fn step(&mut self, event: Event<'_>) -> u64 {
        let Self { device, disk, now, timers, queues, transfers, done } = self;
        match event {
            Event::Timer(id) => timers[id as usize] = None,
            Event::Popped { queue, count } => queues[usize::from(queue)] -= count as usize,
            Event::Read { offset, size, .. } => {
                if let ReadPolicy::Queue(i) = device.spec().read_policy(offset, size) {
                    let held = &mut queues[usize::from(i)];
                    *held = held.saturating_sub(1);
                }
            }
            _ => {}
        }
        let mut reply = 0;
        let result = device.step_with(*now, event, disk, &mut |e| match e {
            Effect::Reply { value, .. } => reply = value,
            Effect::Arm { id, at } => timers[id as usize] = Some(at),
            Effect::Disarm { id } => timers[id as usize] = None,
            Effect::Queue { queue, values } => {
                queues[usize::from(queue)] += values.len();
                done.queued += values.len();
            }
            Effect::QueueClear { queue } => queues[usize::from(queue)] = 0,
            Effect::HostOut { data, .. } => done.sent += data.len(),
            Effect::Dma { tag, reads, .. } => {
                transfers.push_back((tag, reads.iter().map(|r| r.len as usize).sum()));
            }
            _ => {}
        });
        done.events += 1;
        if let Err(e) = result {
            panic!("{event:x?}: {e}");
        }
        reply
    }

    /// Transfers that were asked for; the memory holds the same everywhere.
    fn transfer(&mut self, fill: u8) {
        for _ in 0..64 {
            let Some((tag, len)) = self.transfers.pop_front() else { return };
            let data = vec![fill; len.min(ANSWER)];
            let data: Vec<u8> = data.into_iter().chain(std::iter::repeat(0)).take(len).collect();
            self.step(Event::DmaDone { tag, data: &data });
        }
        self.transfers.clear();
    }

    /// The next timer comes, if one is armed.
    fn wait(&mut self) {
        let armed = self.timers.iter().enumerate().filter_map(|(id, at)| Some(((*at)?, id as u32)));
        if let Some((at, id)) = armed.min() {
            self.now = self.now.max(at);
            self.done.timers += 1;
            self.step(Event::Timer(id));
        }
    }
}

/// Drives a new device with what `bytes` say. At the end it is saved, restored and saved again.
///
/// # Panics
/// If the device does what its spec forbids or panics, or if a state that it saved comes back as another. That is what this is for.
pub fn drive(plugin: &Plugin, config: &str, disk: MemoryDisk, bytes: &[u8]) -> Driven {
    let device = plugin.create(config).expect("a good config");
    let spec = device.spec().clone();
    let (timers, queues) = (vec![None; spec.timers as usize], vec![0; spec.queues.len()]);
    let (transfers, done) = (VecDeque::new(), Driven::default());
    let mut w = World { device, disk, now: VTime(0), timers, queues, transfers, done };
    let mut script = Script(bytes);
    w.step(Event::Reset);
    while !script.0.is_empty() && w.done.events < MOST {
        let op = script.byte();
        let register = script.byte();
        let (mut offset, mut size) = (u64::from(register) * 4 % spec.window, 4);
        if let Some(r) = spec.registers.get(usize::from(register)) {
            offset = r.offset;
            if !r.takes(4) {
                size = r.span() as u8;
            }
        }
        match op % 10 {
            0..=3 => {
                w.step(Event::Write { tag: 0, offset, size, value: script.word().into() });
            }
            // The same small value often, as a FIFO is fed; a byte of the script is enough.
            4 => {
                let (times, value) = (script.byte(), script.byte());
                for _ in 0..=times {
                    w.step(Event::Write { tag: 0, offset, size, value: value.into() });
                }
            }
            5 => {
                w.step(Event::Read { tag: 0, offset, size });
            }
            6 => {
                let (at, size) = (u64::from(script.word()) % spec.window, 1 << (op >> 4 & 3));
                let (offset, value) = (at & !(u64::from(size) - 1), u64::from(script.byte()));
                if op >> 6 & 1 == 0 {
                    w.step(Event::Read { tag: 0, offset, size });
                } else {
                    w.step(Event::Write { tag: 0, offset, size, value });
                }
            }
            7 => {
                let queue = usize::from(register) % w.queues.len().max(1);
                let held = w.queues.get(queue).copied().unwrap_or(0);
                let count = (usize::from(script.byte()) + 1).min(held);
                if count > 0 {
                    w.step(Event::Popped { queue: queue as u16, count: count as u32 });
                }
            }
            8 => w.wait(),
            _ => input(&mut w, register, &mut script),
        }
        w.transfer(register);
    }
    let state = w.device.save().expect("a device that can be saved");
    let copy = plugin.restore(config, &state).expect("a state that it saved itself");
    assert_eq!(copy.save().expect("the copy too"), state, "a restored device is another one");
    w.done
}

/// Input on a port, as much as the device wants.
fn input(w: &mut World, port: u8, script: &mut Script<'_>) {
    let spec = w.device.spec();
    if spec.ports.is_empty() {
        return;
    }
    let port = usize::from(port) % spec.ports.len();
    let packets = spec.ports[port].framing == Framing::Packets;
    let want = w.device.want(port as u32);
    let len = usize::from(u16::from_le_bytes([script.byte(), script.byte()])) % 2048;
    let most = if packets { 2048 } else { want as usize };
    let mut data = script.take(len.min(most)).to_vec();
    if packets {
        // Long packets from short scripts.
        data.resize(len, 0x5a);
    }
    if want > 0 && !data.is_empty() {
        w.step(Event::Host { port: port as u32, data: &data });
    }
}

/// A seeded script, for tests that run on every machine.
#[must_use]
pub fn script(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len).map(|_| (next() >> 32) as u8).collect()
}
