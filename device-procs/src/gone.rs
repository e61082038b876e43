//! What answers in the place of a device that can't come back. cpu-proc is told that the device is gone ([`Message::Gone`]) and asks it nothing more; what it has asked
//! before is answered by zeros.

use reprise_channel::{Abort, ChannelError, DevicePort, Event as Message, Request};
use reprise_child::Control;
use reprise_child::control::{DeviceState, FromChild, ToChild};

use crate::estate::{Counts, Estate};
use crate::watch::{CONTROL, Watcher};

/// The stand-in.
pub(crate) struct Gone {
    pub(crate) port: DevicePort,
    pub(crate) estate: Option<Estate>,
    /// The supervisor is to hear of it first; in a replay the recording has it already.
    pub(crate) asks: bool,
    pub(crate) control: Control,
    pub(crate) watch: Watcher,
    /// What is true of the ring.
    pub(crate) counts: Counts,
    /// The first request that finds no device.
    pub(crate) from: u64,
    /// Bytes of output that there were, and their hash.
    pub(crate) output: (u64, [u8; 32]),
    /// The supervisor wants the state.
    pub(crate) save: bool,
}

/// What the supervisor wants.
enum Next {
    Serve,
    Exit,
}

impl Gone {
    /// Takes over without the plugin.
    pub(crate) fn bare(
        mut port: DevicePort,
        mut estate: Estate,
        control: Control,
        watch: Watcher,
    ) -> anyhow::Result<Self> {
        port.succeed()?;
        estate.take_over(port.events_emitted())?;
        let counts = estate.counts();
        let done = port.requests_taken();
        let from = estate.gone_at().unwrap_or(done);
        let output = (0, *blake3::hash(b"").as_bytes());
        Ok(Self { port, estate: Some(estate), asks: true, control, watch, counts, from, output, save: false })
    }

    /// Answers until the supervisor says `Exit`.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        self.port.stand_by();
        if let Some(estate) = &self.estate {
            // Whoever comes after this one, it stays that request.
            estate.set_gone_at(self.from);
        }
        if self.asks {
            self.control.send(&FromChild::Yielded { request: self.from })?;
            if matches!(self.await_go()?, Next::Exit) {
                return Ok(());
            }
        }
        self.watch.want(CONTROL);
        let mut over = match self.announce() {
            Err(e) if e.downcast_ref::<ChannelError>().is_some_and(ChannelError::is_end) => true,
            other => other.map(|()| false)?,
        };
        loop {
            if matches!(self.attend()?, Next::Exit) {
                return Ok(());
            }
            if std::mem::take(&mut self.save) {
                // What the CPU has asked and not waited for is nobody's business any more.
                let state = DeviceState { state: Vec::new(), output_bytes: self.output.0, output_hash: self.output.1 };
                self.control.send(&FromChild::State(state))?;
            }
            if over {
                let message = self.control.receive()?;
                if matches!(self.obey(message)?, Next::Exit) {
                    return Ok(());
                }
                continue;
            }
            match self.turn(&Abort::NEVER.or_rung(self.watch.clone().bell())) {
                Ok(_) => {}
                // The end of the channel: the supervisor says what is to be.
                Err(e) if e.downcast_ref::<ChannelError>().is_some_and(ChannelError::is_end) => over = true,
                Err(e) => return Err(e),
            }
        }
    }

    /// One request, if there is one before the wait is given up.
    fn turn(&mut self, abort: &Abort<'_>) -> anyhow::Result<bool> {
        let Some(m) = self.port.next_request(abort)? else { return Ok(false) };
        let (seq, request) = (m.seq, m.request);
        let answer = match request {
            Request::Read { .. } => Some(Message::Reply { value: 0 }),
            r if r.is_synchronous() => Some(Message::Ack),
            _ => None,
        };
        if let Some(answer) = answer.filter(|_| seq >= self.counts.answered) {
            self.emit(seq, &answer, Counts { effects: self.counts.effects + 1, answered: seq + 1, ..self.counts })?;
        }
        self.port.complete()?;
        Ok(true)
    }

    /// Caused by the first request that finds no device, which may not have been made: so nobody who waits for an earlier one takes it.
    fn announce(&mut self) -> anyhow::Result<()> {
        if self.counts.gone == 1 {
            return Ok(());
        }
        self.emit(self.from, &Message::Gone, Counts { effects: self.counts.effects + 1, gone: 1, ..self.counts })
    }

    fn emit(&mut self, cause: u64, message: &Message<'_>, then: Counts) -> anyhow::Result<()> {
        if let Some(estate) = &mut self.estate {
            estate.intend(self.port.events_emitted(), then, None);
        }
        let watch = self.watch.clone();
        while self.port.emit(cause, message, &Abort::NEVER.or_rung(watch.bell()))?.is_none() {
            if matches!(self.attend()?, Next::Exit) {
                // Nobody is there any more.
                std::process::exit(0);
            }
        }
        self.counts = then;
        if let Some(estate) = &mut self.estate {
            estate.done(then, None);
        }
        Ok(())
    }

    fn await_go(&mut self) -> anyhow::Result<Next> {
        loop {
            match self.control.receive()? {
                ToChild::Go => return Ok(Next::Serve),
                other => {
                    if matches!(self.obey(other)?, Next::Exit) {
                        return Ok(Next::Exit);
                    }
                }
            }
        }
    }

    fn attend(&mut self) -> anyhow::Result<Next> {
        if self.watch.take_ready() & CONTROL != 0 {
            while let Some(message) = self.control.try_receive()? {
                if matches!(self.obey(message)?, Next::Exit) {
                    return Ok(Next::Exit);
                }
            }
            self.watch.want(CONTROL);
        }
        Ok(Next::Serve)
    }

    fn obey(&mut self, message: ToChild) -> anyhow::Result<Next> {
        match message {
            ToChild::Exit => return Ok(Next::Exit),
            ToChild::Save => self.save = true,
            // Said again to one that takes the place of another.
            ToChild::Go => {}
            // Whoever asks for more hears from the supervisor that the device is gone.
            other => tracing::debug!("what stands in for a device takes no {other:?}"),
        }
        Ok(Next::Serve)
    }
}
