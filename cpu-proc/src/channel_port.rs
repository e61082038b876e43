//! [`Port`] over a real channel.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use reprise_channel::{Abort, ChannelError, CpuPort, Event, EventMsg, Request, Sent, SpinPolicy};

use crate::port::{Effect, Incoming, Port, PortError};

/// Most events that are kept here because the device could not go on while its event ring was full. A device has no more unanswered
/// requests than its ring has slots, so more means that it floods.
const MAX_KEPT: usize = 1 << 18;

/// cpu-proc's end of a channel.
pub struct ChannelPort {
    port: CpuPort,
    /// Taken from the ring to let the device go on, not consumed yet: ring order is kept, positions are not touched.
    kept: VecDeque<Incoming>,
    timeout: Duration,
    /// When the wait for the present answer began, so that a device can't stretch it with other messages.
    waiting_since: Option<Instant>,
    active: bool,
}

impl ChannelPort {
    /// Wraps a port. `timeout` is how long a device may take to answer. `ahead`: the log daemon stands in for the device
    /// and sends effects before their causes.
    pub fn new(mut port: CpuPort, timeout: Duration, ahead: bool) -> Self {
        port.set_spin(SpinPolicy::cpu());
        port.set_ahead(ahead);
        Self { port, kept: VecDeque::new(), timeout, waiting_since: None, active: false }
    }

    /// The channel itself, for waits on several.
    pub fn channel(&self) -> &CpuPort {
        &self.port
    }

    /// Drops what the device has sent: the guest runs no more, and only the log daemon still wants it.
    pub fn discard(&mut self) {
        while let Ok(Some(_)) = self.port.try_event() {}
    }

    fn error(&self, e: &ChannelError) -> PortError {
        let channel = self.port.name().to_owned();
        if e.is_end() { PortError::Closed { channel } } else { PortError::Bad { channel, what: e.to_string() } }
    }

    fn timed_out(&self) -> PortError {
        PortError::Timeout { channel: self.port.name().to_owned(), seconds: self.timeout.as_secs() }
    }

    /// Moves every event from the ring to `kept`.
    fn keep_all(&mut self) -> Result<(), PortError> {
        loop {
            let message = match self.port.try_event() {
                Ok(None) => return Ok(()),
                Ok(Some(m)) => incoming(&m),
                Err(e) => return Err(self.error(&e)),
            };
            self.kept.push_back(message);
            if self.kept.len() > MAX_KEPT {
                let what = format!("more than {MAX_KEPT} events wait: the device floods its ring");
                return Err(PortError::Bad { channel: self.port.name().to_owned(), what });
            }
        }
    }
}

/// An event in the form that links take.
fn incoming(m: &EventMsg<'_>) -> Incoming {
    let effect = match m.event {
        Event::Reply { value } => Effect::Reply { value },
        Event::Ack => Effect::Ack,
        Event::SetLine { pin, level } => Effect::Line { pin, level },
        Event::Publish { reg, value } => Effect::Publish { shadow: u32::try_from(reg).unwrap_or(u32::MAX), value },
        Event::Arm { id, vtime } => Effect::Arm { id, vtime },
        Event::Disarm { id } => Effect::Disarm { id },
        Event::HostOffer { port, data } => return Incoming::Offer { port, data: data.to_vec() },
        Event::HostOut { .. } => return Incoming::Side,
        Event::Fault { data, .. } => return Incoming::Fault(String::from_utf8_lossy(data).into_owned()),
        Event::Dma { tag, data } => Effect::Dma { tag, data: data.to_vec() },
        Event::Queue { queue, data } => match queue_values(data) {
            Some(values) => Effect::Queue { queue, values },
            None => return Incoming::Fault("values of a queue that are not whole words".into()),
        },
        Event::QueueClear { queue } => Effect::QueueClear { queue },
        Event::Gone => Effect::Gone,
    };
    Incoming::Effect { cause: m.cause, effect, check: m.checksum() }
}

/// The values of a message for a queue; none if they are not whole words.
fn queue_values(data: &[u8]) -> Option<Vec<u32>> {
    let words = data.chunks_exact(4);
    words.remainder().is_empty().then(|| words.map(|w| u32::from_le_bytes(w.try_into().expect("4 bytes"))).collect())
}

impl Port for ChannelPort {
    #[inline]
    fn send(&mut self, vtime: u64, request: Request<'_>) -> Result<u64, PortError> {
        if !self.active {
            self.active = true;
            self.port.set_active(true);
        }
        self.waiting_since = None;
        match self.port.try_send(vtime, &request) {
            Ok(Some(seq)) => return Ok(seq),
            Ok(None) => {}
            Err(e) => return Err(self.error(&e)),
        }
        loop {
            match self.port.send(vtime, &request, &Abort::after(self.timeout)) {
                Ok(Sent::Done(seq)) => return Ok(seq),
                Ok(Sent::EventPending) => self.keep_all()?,
                Ok(Sent::Ended(_)) => return Err(self.timed_out()),
                Err(e) => return Err(self.error(&e)),
            }
        }
    }

    #[inline]
    fn next_if(&mut self, accept: &mut dyn FnMut(&Incoming) -> bool) -> Result<Option<Incoming>, PortError> {
        if self.kept.is_empty() {
            let message = match self.port.try_event() {
                Ok(None) => return Ok(None),
                Ok(Some(m)) => incoming(&m),
                Err(e) => return Err(self.error(&e)),
            };
            if accept(&message) {
                return Ok(Some(message));
            }
            self.kept.push_back(message);
            return Ok(None);
        }
        match self.kept.front() {
            Some(m) if accept(m) => Ok(self.kept.pop_front()),
            _ => Ok(None),
        }
    }

    fn wait(&mut self) -> Result<(), PortError> {
        if !self.kept.is_empty() {
            // It was looked at and not wanted: it belongs to a later request, and what was waited for can't come any more.
            let what = "an answer is missing: the device went on to a later request".into();
            return Err(PortError::Bad { channel: self.port.name().to_owned(), what });
        }
        if self.waiting_since.get_or_insert_with(Instant::now).elapsed() > self.timeout {
            return Err(self.timed_out());
        }
        let message = match self.port.wait_event(&Abort::after(self.timeout)) {
            Ok(Some(m)) => incoming(&m),
            Ok(None) => return Err(self.timed_out()),
            Err(e) => return Err(self.error(&e)),
        };
        self.kept.push_back(message);
        Ok(())
    }

    #[inline]
    fn settle(&mut self) {
        self.port.settle();
    }

    fn rest(&mut self) {
        self.port.settle();
        if self.active {
            self.active = false;
            self.port.set_active(false);
        }
    }

    #[inline]
    fn passed(&mut self, seq: u64) -> Result<bool, PortError> {
        self.port.device_passed(seq).map_err(|e| self.error(&e))
    }

    fn wait_passed(&mut self, seq: u64) -> Result<(), PortError> {
        loop {
            match self.port.wait_passed(seq, &Abort::after(self.timeout)) {
                Ok(Sent::Done(_)) => return Ok(()),
                Ok(Sent::EventPending) => self.keep_all()?,
                Ok(Sent::Ended(_)) => return Err(self.timed_out()),
                Err(e) => return Err(self.error(&e)),
            }
        }
    }
}
