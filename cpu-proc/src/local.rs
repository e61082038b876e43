//! A device in this process behind the [`Port`] interface: for tests and profiles of the machine without its processes.

use std::collections::VecDeque;

use reprise_channel::{Event, Request, content_checksum};
use reprise_device::VTime;
use reprise_device::host::{Effect as DeviceEffect, Instance};

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

/// The device's own form of a request.
fn event<'a>(seq: u64, r: &Request<'a>) -> reprise_device::Event<'a> {
    use reprise_device::Event as E;
    match *r {
        Request::Reset => E::Reset,
        Request::Read { offset, size } => E::Read { tag: seq, offset, size },
        Request::Write { offset, size, value, .. } => E::Write { tag: seq, offset, size, value },
        Request::Line { pin, level } => E::Line { pin, level },
        Request::Timer { id } => E::Timer(id),
        Request::DmaDone { tag, data } => E::DmaDone { tag: u64::from(tag), data },
        Request::Host { port, data } => E::Host { port: port as u32, data },
    }
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
            queue.push_back(Incoming::Effect { cause: seq, effect, check: content_checksum(&e.to_slot(seq), &[]) });
        };
        let mut replied = false;
        let result = self.device.step(VTime(vtime), event(seq, &request), &mut |e| match e {
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
            DeviceEffect::HostWant { .. } | DeviceEffect::Dma { .. } => {}
        });
        result.map_err(|e| PortError::Bad { channel: self.name.clone(), what: e.to_string() })?;
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
