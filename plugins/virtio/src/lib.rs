//! Virtio devices behind the memory-mapped transport, as the OASIS specification "Virtual I/O Device (VIRTIO) Version 1.2" describes them;
//! with `legacy: true` as its section 4.2.4 does, for kernels that know no other.
//!
//! A kind of device implements [`Class`]; [`Virtio`] makes a plugin of it. What they share is here: the transport's registers ([`regs`]), and split
//! virtqueues ([`queue`]) over DMA.
//!
//! A guest writes QueueNotify and waits, as that register is synchronous, and all transfers that follow are carried out before its store has retired.
//! What counts is therefore how few transfers it takes, not that they overlap: one for a queue's rings (with the part of the descriptor table that is
//! likely to be needed), one for indirect tables if the guest uses them, one for all that is to be read, and one that writes data, used ring and all, and sees
//! whether the guest has made more available.
//!
//! All that comes from the guest is checked. A chain that no driver may make sets DEVICE_NEEDS_RESET (2.1.1) and stops the device until the driver
//! resets it. An address that is not RAM is another matter: the device doesn't know where RAM is, so the machine ends with an error that names it.

use reprise_device::spec::PluginSpec;
use reprise_device::{ConfigError, Device, Effects, Event, RestoreError, VTime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

pub mod chain;
mod core;
pub mod queue;
pub mod regs;
#[cfg(feature = "testing")]
pub mod testing;

pub use crate::chain::{Buf, MAX_CHAIN};
pub use crate::core::{Core, Side};
pub use crate::queue::{Answer, Data, Job, Next, Part};

/// Most queues of a device.
pub const MAX_QUEUES: usize = 64;
/// Most entries of a queue.
pub const MAX_SIZE: u16 = 1024;

/// Feature bits that belong to no kind of device (6).
pub mod feature {
    /// VIRTIO_F_NOTIFY_ON_EMPTY is not offered; VIRTIO_F_ANY_LAYOUT: the device makes nothing of how a message is cut into buffers. Legacy only, and a
    /// matter of course since.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// VIRTIO_F_INDIRECT_DESC (2.7.5.3).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX (2.7.7, 2.7.10).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
}

/// What a driver did that no driver may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad(pub &'static str);

/// What every kind of device says of itself in its config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Version 1 of the register layout (4.2.4) and what belongs to it.
    pub legacy: bool,
    /// Whether indirect descriptors are offered.
    pub indirect: bool,
    /// Most entries of each queue: powers of two up to [`MAX_SIZE`].
    pub queues: Vec<u16>,
}

impl Shape {
    /// Checks the limits.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.queues.is_empty() || self.queues.len() > MAX_QUEUES {
            return Err(ConfigError::new(format!("{} queues are not in 1..={MAX_QUEUES}", self.queues.len())));
        }
        match self.queues.iter().find(|&&n| !n.is_power_of_two() || n > MAX_SIZE) {
            Some(n) => Err(ConfigError::new(format!("queue_size: {n} is not a power of two up to {MAX_SIZE}"))),
            None => Ok(()),
        }
    }
}

/// A kind of virtio device.
pub trait Class: Sized + Debug + 'static {
    /// The plugin's name.
    const KIND: &'static str;
    /// The device type (5).
    const ID: u32;
    /// Whether the device-specific configuration changes by itself, as its cable is plugged and pulled.
    const CHANGES: bool = false;
    /// The `config` value of the machine file.
    type Config: DeserializeOwned + Clone + Debug;
    /// What it keeps of a chain between two transfers.
    type Task: Serialize + DeserializeOwned + Clone + Debug + Default + PartialEq;
    /// What it keeps besides; the same rules as for [`Device::State`].
    type State: Serialize + DeserializeOwned;

    /// Queues and transport.
    fn shape(cfg: &Self::Config) -> Shape;

    /// Adds disks and ports to the plugin's spec.
    fn extend(cfg: &Self::Config, spec: PluginSpec) -> PluginSpec;

    /// Makes the device.
    ///
    /// # Errors
    /// If `cfg` makes no sense.
    fn new(cfg: &Self::Config) -> Result<Self, ConfigError>;

    /// The features of this kind of device that are offered.
    fn features(&self, fx: &Effects<'_>) -> u64;

    /// The device-specific configuration (4.2.2), as it is now.
    fn config(&self, features: u64, fx: &Effects<'_>) -> Vec<u8>;

    /// The driver writes `size` bytes at `offset` of the device-specific configuration.
    fn write_config(&mut self, offset: u64, size: u8, value: u64, fx: &mut Effects<'_>) {
        let _ = (offset, size, value, fx);
    }

    /// The driver has reset the device.
    fn reset(&mut self);

    /// What of a new chain is to be read, in bytes from its beginning: all of it, or as much as makes sense.
    ///
    /// # Errors
    /// A chain that no driver may make.
    fn admit(&mut self, queue: usize, job: &Job<Self::Task>) -> Result<u64, Bad>;

    /// The next bytes that were read from a chain.
    ///
    /// # Errors
    /// Something that no driver may send.
    fn take(
        &mut self,
        queue: usize,
        job: &mut Job<Self::Task>,
        piece: &[u8],
        side: Side,
        fx: &mut Effects<'_>,
    ) -> Result<(), Bad>;

    /// All that was to be read of a chain has been taken: what becomes of it.
    ///
    /// # Errors
    /// Something that no driver may send.
    fn answer(
        &mut self,
        queue: usize,
        job: &mut Job<Self::Task>,
        side: Side,
        fx: &mut Effects<'_>,
    ) -> Result<Next, Bad>;

    /// Input from the outside.
    fn host(&mut self, port: u32, data: &[u8]) {
        let _ = (port, data);
    }

    /// Whether its cable is plugged in. With [`CHANGES`](Self::CHANGES) a change of this is one of the configuration.
    fn cable(&self) -> bool {
        true
    }

    /// Its cable is as it is at the machine's start, or in a saved state; [`reset`](Self::reset) leaves it as it is.
    fn set_cable(&mut self, plugged: bool) {
        let _ = plugged;
    }

    /// Called after each event when no transfer is under way: finishes chains that are held ([`Core::finish`]), says what input is wanted.
    ///
    /// # Errors
    /// Something that no driver may do.
    fn settle(&mut self, core: &mut Core<Self::Task>, fx: &mut Effects<'_>) -> Result<(), Bad> {
        let _ = (core, fx);
        Ok(())
    }

    /// The state besides queues and registers.
    fn save(&self) -> Self::State;

    /// Takes over a saved state. Any decodable value can come.
    ///
    /// # Errors
    /// If it is impossible.
    fn restore(&mut self, state: Self::State) -> Result<(), RestoreError>;
}

/// A virtio device.
#[derive(Debug)]
pub struct Virtio<C: Class> {
    shape: Shape,
    core: Core<C::Task>,
    class: C,
    /// How often the configuration has changed by itself, modulo 2^32 (ConfigGeneration, 4.2.2).
    generation: u32,
}

/// The saved state; a variant for each version of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum State<C: Class> {
    /// The first: transport and queues, then what the kind of device keeps.
    V1(Box<Core<C::Task>>, C::State),
    /// The same, how often the configuration has changed by itself, and whether the cable is plugged in. Saved where that is not 0 and `true`.
    V2(Box<Core<C::Task>>, C::State, u32, bool),
}

impl<C: Class> Device for Virtio<C> {
    const KIND: &'static str = C::KIND;
    type Config = C::Config;
    type State = State<C>;

    fn spec(cfg: &C::Config) -> PluginSpec {
        C::extend(cfg, regs::spec(C::KIND, C::ID, C::shape(cfg).legacy, C::CHANGES))
    }

    fn new(cfg: &C::Config) -> Result<Self, ConfigError> {
        let shape = C::shape(cfg);
        shape.check()?;
        Ok(Self { core: Core::new(&shape), class: C::new(cfg)?, shape, generation: 0 })
    }

    fn step(&mut self, _: VTime, event: Event<'_>, fx: &mut Effects<'_>) {
        if !matches!(event, Event::DmaDone { .. }) {
            self.core.outside_event();
        }
        let result = match event {
            Event::Reset => {
                self.core = Core::new(&self.shape);
                self.class.reset();
                self.class.set_cable(true);
                self.generation = 0;
                Ok(())
            }
            Event::Read { tag, offset, size } => {
                let value = self.read(offset, size, fx);
                fx.reply(tag, value);
                Ok(())
            }
            Event::Write { offset, size, value, .. } => self.write(offset, size, value, fx),
            Event::DmaDone { tag, data } => self.core.done(tag, data, &mut self.class, fx),
            Event::Host { port, data } => {
                let before = self.class.cable();
                self.class.host(port, data);
                if C::CHANGES && self.class.cable() != before {
                    self.generation = self.generation.wrapping_add(1);
                    self.core.config_changed();
                }
                Ok(())
            }
            Event::Line { .. } | Event::Timer(_) | Event::Popped { .. } => Ok(()),
        };
        let result = result.and_then(|()| self.core.advance(&mut self.class, fx));
        if result.is_err() {
            self.core.fail();
            // What the device wants of the outside is nothing any more.
            let _ = self.class.settle(&mut self.core, fx);
        }
        self.core.show(fx);
    }

    fn save(&self) -> State<C> {
        let (core, class) = (Box::new(self.core.clone()), self.class.save());
        match (self.generation, self.class.cable()) {
            (0, true) => State::V1(core, class),
            (generation, cable) => State::V2(core, class, generation, cable),
        }
    }

    fn restore(cfg: &C::Config, state: State<C>) -> Result<Self, RestoreError> {
        let (core, class, generation, cable) = match state {
            State::V1(core, class) => (core, class, 0, true),
            State::V2(core, class, generation, cable) => (core, class, generation, cable),
        };
        RestoreError::check(C::CHANGES || (generation, cable) == (0, true), "a cable that the device does not have")?;
        RestoreError::check(
            (generation, cable) != (0, false),
            "a cable that is out though it was in and never touched",
        )?;
        let mut new = Self::new(cfg).map_err(|e| RestoreError(e.message))?;
        core.check(&new.shape)?;
        new.core = *core;
        new.class.restore(class)?;
        new.class.set_cable(cable);
        new.generation = generation;
        Ok(new)
    }
}

impl<C: Class> Virtio<C> {
    fn read(&self, offset: u64, size: u8, fx: &Effects<'_>) -> u64 {
        if let Some(at) = offset.checked_sub(regs::CONFIG) {
            let config = self.class.config(self.core.side().features, fx);
            let bytes = config.get(at as usize..).unwrap_or(&[]);
            return bytes.iter().take(size.into()).rev().fold(0, |all, &b| all << 8 | u64::from(b));
        }
        // 4.2.2.2: control registers are accessed whole.
        match (size, offset) {
            (4, regs::reg::CONFIG_GENERATION) if !self.shape.legacy => self.generation.into(),
            (4, _) => self.core.read_register(offset, self.offered(fx)).into(),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, size: u8, value: u64, fx: &mut Effects<'_>) -> Result<(), Bad> {
        if let Some(at) = offset.checked_sub(regs::CONFIG) {
            self.class.write_config(at, size, value, fx);
            return Ok(());
        }
        if size != 4 {
            return Ok(());
        }
        let offered = self.offered(fx);
        let reset = self.core.write_register(offset, value as u32, offered)?;
        if reset {
            self.class.reset();
        }
        Ok(())
    }

    fn offered(&self, fx: &Effects<'_>) -> u64 {
        let transport = if self.shape.legacy { feature::ANY_LAYOUT } else { feature::VERSION_1 };
        let indirect = if self.shape.indirect { feature::INDIRECT_DESC } else { 0 };
        self.class.features(fx) | transport | indirect | feature::EVENT_IDX
    }
}
