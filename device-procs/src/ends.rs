//! The host's ends of a device's ports.

use reprise_backends::{Backend, Output};
use reprise_device::spec::{Framing, PluginSpec};
use serde::{Deserialize, Serialize};

use crate::estate::{Estate, Offer};

/// The host's end of a port.
#[derive(Debug)]
pub(crate) struct End {
    /// The plugin's port.
    pub(crate) port: u32,
    pub(crate) backend: Box<dyn Backend>,
    /// The borders between its messages matter.
    packets: bool,
    /// Output that went to it, in bytes.
    sent: u64,
    /// Input that was offered: bytes, or packets.
    offered: u64,
    /// Input that has come back as requests, likewise.
    consumed: u64,
    /// There may be input to offer.
    pub(crate) may_offer: bool,
}

/// What is saved of it at a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EndState {
    port: u32,
    /// Input that the device has taken: bytes, or packets.
    consumed: u64,
    /// Output that went to the end.
    sent: u64,
    /// Output that was recorded, but that nobody outside has taken.
    unwritten: Vec<u8>,
}

impl End {
    pub(crate) fn new(port: u32, backend: Box<dyn Backend>, spec: &PluginSpec) -> Self {
        let packets = spec.ports.get(port as usize).is_some_and(|p| p.framing == Framing::Packets);
        Self { port, backend, packets, sent: 0, offered: 0, consumed: 0, may_offer: true }
    }

    /// How much input this is: bytes, or a packet.
    fn units(&self, data: &[u8]) -> u64 {
        if self.packets { 1 } else { data.len() as u64 }
    }

    /// How much can be read at once when the device wants so much; none if what was offered suffices.
    pub(crate) fn room(&self, want: u64, most: usize) -> Option<usize> {
        // What was offered and has not come back as requests is on its way.
        let room = want.saturating_add(self.consumed).saturating_sub(self.offered);
        match room {
            0 => None,
            _ if self.packets => Some(most),
            _ => Some(usize::try_from(room).unwrap_or(most).min(most)),
        }
    }

    /// This input is about to be offered.
    pub(crate) fn offer(&self, input: &[u8]) -> Offer {
        Offer { port: self.port, total: self.offered + self.units(input) }
    }

    /// So much was offered.
    pub(crate) fn offered(&mut self, total: u64) {
        self.offered = total;
    }

    /// Input has come back as a request.
    pub(crate) fn consume(&mut self, input: &[u8]) {
        self.consumed += self.units(input);
    }

    /// Takes output; what an earlier process has written already is left out.
    pub(crate) fn put(&mut self, data: &[u8], estate: Option<&Estate>) -> Output {
        let written = self.written(estate).saturating_sub(self.sent);
        let (old, new) = data.split_at((written as usize).min(data.len()));
        if !old.is_empty() {
            self.backend.skip(old.len() as u64);
        }
        self.sent += data.len() as u64;
        let how = self.backend.write(new);
        self.note_written(estate);
        how
    }

    /// Writes what is left of earlier output, without waiting.
    pub(crate) fn flush(&mut self, estate: Option<&Estate>) -> Output {
        let how = self.backend.flush();
        self.note_written(estate);
        how
    }

    /// Bytes of output that the outside has taken, as far as the books know.
    fn written(&self, estate: Option<&Estate>) -> u64 {
        estate.map_or_else(|| self.taken(), |e| e.written(self.port))
    }

    /// Bytes of output that the outside has from this process and those before it.
    fn taken(&self) -> u64 {
        self.sent - self.backend.pending() as u64
    }

    fn note_written(&self, estate: Option<&Estate>) {
        if let Some(estate) = estate {
            // A successor repeats output that was written already: it writes nothing then, and the number stands.
            estate.set_written(self.port, self.taken().max(estate.written(self.port)));
        }
    }

    /// What a successor needs of it.
    pub(crate) fn save(&self) -> EndState {
        let unwritten = self.backend.unwritten().to_vec();
        EndState { port: self.port, consumed: self.consumed, sent: self.sent, unwritten }
    }

    /// Goes on from the last checkpoint, if there was one, by the books.
    pub(crate) fn resume(&mut self, saved: Option<&[EndState]>, estate: &Estate) {
        self.offered = estate.offered(self.port);
        // Input that is kept was taken, too.
        let kept = estate.input().filter(|(port, _)| *port == self.port).map_or(0, |(_, kept)| kept.len() as u64);
        let saved = saved.into_iter().flatten().find(|saved| saved.port == self.port);
        let (consumed, sent, unwritten) = saved.map_or((0, 0, &[][..]), |s| (s.consumed, s.sent, &s.unwritten));
        (self.consumed, self.sent) = (consumed, sent);
        // What was taken outside since is known.
        let taken = estate.written(self.port).saturating_sub(sent - unwritten.len() as u64);
        let rest = unwritten.get(taken as usize..).unwrap_or_default();
        self.backend.resume(self.offered + kept, sent - rest.len() as u64);
        self.backend.write(rest);
        self.note_written(Some(estate));
    }
}
