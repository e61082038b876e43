//! What the board needs of a channel, so that the machine runs the same over shared memory and, in tests, over a device in this process.

use reprise_channel::Request;
use thiserror::Error;

/// What a device does to the guest. Consumed in order at exact positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An output pin takes a level.
    Line {
        /// Output pin.
        pin: u32,
        /// New level.
        level: bool,
    },
    /// A shadowed register takes a value.
    Publish {
        /// Index of the shadow.
        shadow: u32,
        /// New value.
        value: u64,
    },
    /// A timer is to fire at a guest time.
    Arm {
        /// The device's own number for it.
        id: u32,
        /// When, in ns of guest time.
        vtime: u64,
    },
    /// A timer is not to fire.
    Disarm {
        /// The device's own number for it.
        id: u32,
    },
    /// Answer to a read.
    Reply {
        /// The register's value.
        value: u64,
    },
    /// Answer to any other synchronous request.
    Ack,
    /// A transfer from and to RAM.
    Dma {
        /// The device's tag of it.
        tag: u32,
        /// In the encoding of [`reprise_device::dma`].
        data: Vec<u8>,
    },
    /// Values at the end of a queue.
    Queue {
        /// Index of the queue.
        queue: u32,
        /// The values.
        values: Vec<u32>,
    },
    /// A queue holds nothing any more.
    QueueClear {
        /// Index of the queue.
        queue: u32,
    },
    /// The device is gone for good.
    Gone,
}

/// One message from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Something that changes the guest.
    Effect {
        /// Sequence number of the request that caused it.
        cause: u64,
        /// What it does.
        effect: Effect,
        /// [`reprise_channel::content_checksum`] of the message.
        check: u64,
    },
    /// Host input that waits to be admitted.
    Offer {
        /// The device's port.
        port: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A message that is for others (console output for the log).
    Side,
    /// The device gave up; the text says why.
    Fault(String),
}

/// A channel failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// The other side is gone, or the supervisor closed the channel.
    #[error("channel {channel}: closed")]
    Closed {
        /// The device's name.
        channel: String,
    },
    /// The other side wrote something that makes no sense.
    #[error("channel {channel}: {what}")]
    Bad {
        /// The device's name.
        channel: String,
        /// What was wrong.
        what: String,
    },
    /// The other side did not answer in time.
    #[error("channel {channel}: no answer within {seconds} s")]
    Timeout {
        /// The device's name.
        channel: String,
        /// How long was waited.
        seconds: u64,
    },
}

/// cpu-proc's end of one channel.
pub trait Port {
    /// Sends a request that happens at guest time `vtime`; waits for room. Returns the request's sequence number.
    ///
    /// # Errors
    /// [`PortError`] when the channel ended.
    fn send(&mut self, vtime: u64, request: Request<'_>) -> Result<u64, PortError>;

    /// Takes the next message, if there is one and `accept` wants it. A message that is not wanted stays.
    ///
    /// # Errors
    /// [`PortError`] when the channel ended or holds nonsense.
    fn next_if(&mut self, accept: &mut dyn FnMut(&Incoming) -> bool) -> Result<Option<Incoming>, PortError>;

    /// Makes sure that the device does not sleep over a request that waits for no answer. To be called before long after one.
    fn settle(&mut self) {}

    /// Nothing will be asked of this device for a while: it need not spin.
    fn rest(&mut self) {}

    /// Waits until [`Port::next_if`] may have something new.
    ///
    /// # Errors
    /// [`PortError`] when the channel ended or nothing came for too long.
    fn wait(&mut self) -> Result<(), PortError>;

    /// Whether the device has finished the request with this number.
    ///
    /// # Errors
    /// [`PortError`] when the channel ended or its cursors make no sense.
    fn passed(&mut self, seq: u64) -> Result<bool, PortError>;

    /// Waits until the device has finished the request with this number; its effects are in the ring then.
    ///
    /// # Errors
    /// [`PortError`] when the channel ended or the device took too long.
    fn wait_passed(&mut self, seq: u64) -> Result<(), PortError>;
}
