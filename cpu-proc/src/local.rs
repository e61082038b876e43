//! A device in this process behind the [`Port`] interface: for tests and profiles of the machine without its processes.

use std::collections::VecDeque;

use reprise_channel::{Event, Request, burst, content_checksum};
use reprise_device::host::{Effect as DeviceEffect, Instance, MemoryDisk};
use reprise_device::{VTime, dma};

use crate::port::{Effect, Incoming, Port, PortError};

/// A device in this process.
pub struct LocalPort {
    name: String,
    device: Instance,
    queue: VecDeque<Incoming>,
    sent: u64,
    /// Everything that the device sent to its backend.
    pub output: Vec<u8>,
    /// Host input that the device has not asked for yet.
    input: VecDeque<u8>,
    offered: u64,
    /// Its disk.
    pub disk: MemoryDisk,
}

impl LocalPort {
    /// Wraps a device.
    pub fn new(name: &str, device: Instance) -> Self {
        Self {
            name: name.into(),
            device,
            queue: VecDeque::new(),
            sent: 0,
            output: Vec::new(),
            input: VecDeque::new(),
            offered: 0,
            disk: MemoryDisk::default(),
        }
    }

    /// Bytes for port 0, offered as the device asks for them.
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        self.offer();
    }

    fn offer(&mut self) {
        let room = self.device.want(0).saturating_sub(self.offered) as usize;
        let n = room.min(self.input.len());
        if n > 0 {
            self.offered += n as u64;
            let data = self.input.drain(..n).collect();
            self.queue.push_back(Incoming::Offer { port: 0, data });
        }
    }
}

/// The device's own form of a request, with the guest time of each step.
fn events<'a>(seq: u64, vtime: u64, r: &Request<'a>) -> Vec<(u64, reprise_device::Event<'a>)> {
    use reprise_device::Event as E;
    let one = match *r {
        Request::Burst { offset, size, data } => {
            let write = |(now, value): (u64, u32)| (now, E::Write { tag: seq, offset, size, value: value.into() });
            return burst::stores(vtime, data).map(write).collect();
        }
        Request::Reset => E::Reset,
        Request::Read { offset, size } => E::Read { tag: seq, offset, size },
        Request::Write { offset, size, value, .. } => E::Write { tag: seq, offset, size, value },
        Request::Line { pin, level } => E::Line { pin, level },
        Request::Timer { id } => E::Timer(id),
        Request::DmaDone { tag, data } => E::DmaDone { tag: u64::from(tag), data },
        Request::Host { port, data } => E::Host { port: port as u32, data },
        Request::Popped { queue, count } => E::Popped { queue: queue as u16, count },
    };
    vec![(vtime, one)]
}

impl Port for LocalPort {
    fn send(&mut self, vtime: u64, request: Request<'_>) -> Result<u64, PortError> {
        let seq = self.sent;
        self.sent += 1;
        if let Request::Host { data, .. } = request {
            self.offered -= data.len() as u64;
        }
        let (queue, output) = (&mut self.queue, &mut self.output);
        let mut put = |effect: Effect, e: Event<'_>| {
            let data = e.data();
            let arena = if data.len() > 8 { data } else { &[] };
            queue.push_back(Incoming::Effect { cause: seq, effect, check: content_checksum(&e.to_slot(seq), arena) });
        };
        let mut replied = false;
        let mut said = |e: DeviceEffect<'_>| match e {
            DeviceEffect::Reply { value, .. } => {
                replied = true;
                put(Effect::Reply { value }, Event::Reply { value });
            }
            DeviceEffect::Line { pin, level } => put(Effect::Line { pin, level }, Event::SetLine { pin, level }),
            DeviceEffect::Arm { id, at } => put(Effect::Arm { id, vtime: at.0 }, Event::Arm { id, vtime: at.0 }),
            DeviceEffect::Disarm { id } => put(Effect::Disarm { id }, Event::Disarm { id }),
            DeviceEffect::Publish { shadow, value } => {
                put(
                    Effect::Publish { shadow: u32::from(shadow), value },
                    Event::Publish { reg: u64::from(shadow), value },
                );
            }
            DeviceEffect::HostOut { data, .. } => output.extend_from_slice(data),
            DeviceEffect::Dma { tag, reads, writes } => {
                let data = dma::encode(tag, reads, writes).expect("the host side has checked the limits");
                let tag = tag as u32;
                put(Effect::Dma { tag, data: data.clone() }, Event::Dma { tag, data: &data });
            }
            DeviceEffect::Queue { queue, values } => {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let queue = u32::from(queue);
                put(Effect::Queue { queue, values: values.to_vec() }, Event::Queue { queue, data: &data });
            }
            DeviceEffect::QueueClear { queue } => {
                let queue = u32::from(queue);
                put(Effect::QueueClear { queue }, Event::QueueClear { queue });
            }
            DeviceEffect::HostWant { .. } => {}
        };
        for (now, event) in events(seq, vtime, &request) {
            let result = self.device.step_with(VTime(now), event, &mut self.disk, &mut said);
            result.map_err(|e| PortError::Bad { channel: self.name.clone(), what: e.to_string() })?;
        }
        if request.is_synchronous() && !replied {
            put(Effect::Ack, Event::Ack);
        }
        self.offer();
        Ok(seq)
    }

    fn next_if(&mut self, accept: &mut dyn FnMut(&Incoming) -> bool) -> Result<Option<Incoming>, PortError> {
        match self.queue.front() {
            Some(m) if accept(m) => Ok(self.queue.pop_front()),
            _ => Ok(None),
        }
    }

    fn wait(&mut self) -> Result<(), PortError> {
        if self.queue.is_empty() {
            return Err(PortError::Timeout { channel: self.name.clone(), seconds: 0 });
        }
        Ok(())
    }

    fn passed(&mut self, _: u64) -> Result<bool, PortError> {
        Ok(true)
    }

    fn wait_passed(&mut self, _: u64) -> Result<(), PortError> {
        Ok(())
    }
}
