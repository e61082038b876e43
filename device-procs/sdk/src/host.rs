//! A plugin as its host sees it: loaded, called, and every value that comes out of it checked.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use crate::abi::{
    REPRISE_ABI_VERSION, REPRISE_ACCESS_READ_ONLY, REPRISE_ACCESS_READ_WRITE, REPRISE_ACCESS_WRITE_ONLY,
    REPRISE_EVENT_DMA_DONE, REPRISE_EVENT_HOST, REPRISE_EVENT_LINE, REPRISE_EVENT_POPPED, REPRISE_EVENT_READ,
    REPRISE_EVENT_RESET, REPRISE_EVENT_TIMER, REPRISE_EVENT_WRITE, REPRISE_FRAMING_BYTES, REPRISE_FRAMING_PACKETS,
    REPRISE_NO_DISK, REPRISE_NO_MEDIUM, REPRISE_PORT_BOTH, REPRISE_PORT_IN, REPRISE_PORT_OUT, REPRISE_READ_CLOCK,
    REPRISE_READ_CONST, REPRISE_READ_QUEUE, REPRISE_READ_SHADOW, REPRISE_READ_SYNC, REPRISE_WRITE_FIFO,
    REPRISE_WRITE_POSTED, REPRISE_WRITE_STORED, REPRISE_WRITE_SYNC, RepriseDmaRead, RepriseDmaWrite, RepriseEffects,
    RepriseError, RepriseEvent, RepriseRegister, RepriseSink, RepriseSpec, RepriseVtable,
};
use crate::device::{ConfigError, Device, DmaRange, Event, VTime};
use crate::dma::{self, Origin};
use crate::glue::{bytes_of, slice_of, vtable_of};
use crate::spec::{
    Access, Direction, Framing, PluginSpec, Port, Queue, ReadPolicy, Register, Shadow, WritePolicy, limits,
};

/// Largest saved state, in bytes.
pub const MAX_STATE: usize = 64 << 20;
/// Largest error text of a plugin, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Largest number of effects of one step.
pub const MAX_EFFECTS: usize = 4096;
/// Largest output on a port in one step, in bytes.
pub const MAX_HOST_OUT: usize = 1 << 20;

/// An effect of a step, checked against the device's spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The answer to the read of this step.
    Reply {
        /// The read's tag.
        tag: u64,
        /// The value.
        value: u64,
    },
    /// An output pin's new level.
    Line {
        /// Index of the pin.
        pin: u32,
        /// Its level.
        level: bool,
    },
    /// A timer is set.
    Arm {
        /// The timer.
        id: u32,
        /// Guest time.
        at: VTime,
    },
    /// A timer is stopped.
    Disarm {
        /// The timer.
        id: u32,
    },
    /// A DMA request, within [`crate::dma::check`]'s limits.
    Dma {
        /// Names it in its completion.
        tag: u64,
        /// What to read.
        reads: &'a [DmaRange],
        /// What to write.
        writes: &'a [dma::Write<'a>],
    },
    /// A shadow's new value.
    Publish {
        /// Index of the shadow.
        shadow: u16,
        /// Its value.
        value: u64,
    },
    /// Bytes to the outside.
    HostOut {
        /// Index of the port.
        port: u32,
        /// The bytes.
        data: &'a [u8],
    },
    /// How many more bytes of host input the device can take.
    HostWant {
        /// Index of the port.
        port: u32,
        /// Bytes, or packets.
        bytes: u64,
    },
    /// Values at the end of a queue.
    Queue {
        /// Index of the queue.
        queue: u16,
        /// The values.
        values: &'a [u32],
    },
    /// A queue holds nothing any more.
    QueueClear {
        /// Index of the queue.
        queue: u16,
    },
}

/// The disks of a device, as its host has them. Ranges are checked before anything here is called.
pub trait Disks {
    /// Bytes, a multiple of 512; `None` without a medium. Always the same.
    fn size(&self, disk: u32) -> Option<u64>;
    /// Whether it can't be written.
    fn read_only(&self, disk: u32) -> bool;
    /// Reads.
    ///
    /// # Errors
    /// The host can't; the text says why. That is nothing that the guest may see, as a replay could not repeat it.
    fn read(&mut self, disk: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String>;
    /// Writes.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&mut self, disk: u32, offset: u64, data: &[u8]) -> Result<(), String>;
    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn discard(&mut self, disk: u32, offset: u64, len: u64) -> Result<(), String>;
    /// What was written is to survive a crash of the host.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn flush(&mut self, disk: u32) -> Result<(), String>;
    /// Whether the range is as it was in the image when the machine started.
    fn unchanged(&self, disk: u32, offset: u64, len: u64) -> bool;
}

/// No medium in any disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDisks;

impl Disks for NoDisks {
    fn size(&self, _: u32) -> Option<u64> {
        None
    }
    fn read_only(&self, _: u32) -> bool {
        true
    }
    fn read(&mut self, _: u32, _: u64, _: &mut [u8]) -> Result<(), String> {
        Err("there is no disk".into())
    }
    fn write(&mut self, _: u32, _: u64, _: &[u8]) -> Result<(), String> {
        Err("there is no disk".into())
    }
    fn discard(&mut self, _: u32, _: u64, _: u64) -> Result<(), String> {
        Err("there is no disk".into())
    }
    fn flush(&mut self, _: u32) -> Result<(), String> {
        Ok(())
    }
    fn unchanged(&self, _: u32, _: u64, _: u64) -> bool {
        false
    }
}

/// One disk in memory, for tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDisk {
    /// What is on it: a multiple of 512 bytes.
    pub data: Vec<u8>,
    /// It can't be written.
    pub read_only: bool,
    /// How often it was flushed.
    pub flushes: u64,
}

impl MemoryDisk {
    fn range(&mut self, offset: u64, len: u64) -> &mut [u8] {
        &mut self.data[offset as usize..(offset + len) as usize]
    }
}

impl Disks for MemoryDisk {
    fn size(&self, disk: u32) -> Option<u64> {
        (disk == 0).then_some(self.data.len() as u64)
    }
    fn read_only(&self, _: u32) -> bool {
        self.read_only
    }
    fn read(&mut self, _: u32, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        buffer.copy_from_slice(self.range(offset, buffer.len() as u64));
        Ok(())
    }
    fn write(&mut self, _: u32, offset: u64, data: &[u8]) -> Result<(), String> {
        self.range(offset, data.len() as u64).copy_from_slice(data);
        Ok(())
    }
    fn discard(&mut self, _: u32, offset: u64, len: u64) -> Result<(), String> {
        self.range(offset, len).fill(0);
        Ok(())
    }
    fn flush(&mut self, _: u32) -> Result<(), String> {
        self.flushes += 1;
        Ok(())
    }
    fn unchanged(&self, _: u32, _: u64, _: u64) -> bool {
        false
    }
}

/// A device that did what it may not, or panicked. It is dead from then on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device fault: {0}")]
pub struct Fault(pub String);

/// Why a plugin cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The dynamic linker refuses the file.
    #[error("{path} is not a plugin that can be loaded: {why}")]
    Open {
        /// The file.
        path: String,
        /// The linker's words.
        why: String,
    },
    /// The shared object has no entry point.
    #[error("{path} is a shared object, but exports no `reprise_plugin`: it is not a Reprise plugin")]
    NoEntry {
        /// The file.
        path: String,
    },
    /// The entry point returned null.
    #[error("the plugin's entry point returned no vtable")]
    NoTable,
    /// Another version of the ABI.
    #[error(
        "the plugin was built for version {found} of the plugin ABI, this host has version {expected}: rebuild the plugin"
    )]
    AbiVersion {
        /// The plugin's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A structure of another size.
    #[error(
        "the plugin says that its {what} has {found} bytes, this host's has {expected}: rebuild the plugin with this host's header"
    )]
    Size {
        /// Which structure.
        what: &'static str,
        /// The plugin's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A name that is none.
    #[error("the plugin's kind is not 1..=64 lower-case letters, digits and dashes")]
    Kind,
}

/// Why a device cannot be made or restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// The plugin refuses the config or the state.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The plugin describes itself wrongly.
    #[error("{0}; this is a bug of the plugin")]
    Spec(String),
}

/// A usable plugin. Its code stays in memory for good.
#[derive(Debug, Clone)]
pub struct Plugin {
    table: RepriseVtable,
    kind: String,
}

impl Plugin {
    /// The plugin made of a Rust device in this very program.
    #[must_use]
    pub fn of<D: Device>() -> Self {
        // SAFETY: the glue's table is sound and lives forever.
        unsafe { Self::from_table(vtable_of::<D>()) }.expect("the glue's own table")
    }

    /// Takes a plugin's vtable.
    ///
    /// # Errors
    /// If it is of another ABI.
    ///
    /// # Safety
    /// `table` is null, or points to at least two `u32` and, if these are this ABI's version and size, to a sound vtable that lives forever.
    pub unsafe fn from_table(table: *const RepriseVtable) -> Result<Self, LoadError> {
        if table.is_null() {
            return Err(LoadError::NoTable);
        }
        // SAFETY: two u32 are there in any case; nothing else is looked at before they are found right.
        let head = unsafe { table.cast::<[u32; 2]>().read_unaligned() };
        if head[0] != REPRISE_ABI_VERSION {
            return Err(LoadError::AbiVersion { found: head[0], expected: REPRISE_ABI_VERSION });
        }
        let size = head[1] as usize;
        if size != std::mem::offset_of!(RepriseVtable, describe) {
            same_size("RepriseVtable", head[1], size_of::<RepriseVtable>())?;
        }
        let mut ours = std::mem::MaybeUninit::<RepriseVtable>::zeroed();
        // SAFETY: promised by the caller, as the version is ours and the table has `size` bytes: all of it, or all but the last field, which may be
        // zero (none). The others were written by the plugin.
        let table = unsafe {
            ours.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(table.cast::<u8>(), size);
            ours.assume_init()
        };
        same_size("RepriseEvent", table.event_size, size_of::<RepriseEvent>())?;
        same_size("RepriseEffects", table.effects_size, size_of::<RepriseEffects>())?;
        same_size("RepriseSpec", table.spec_size, size_of::<RepriseSpec>())?;
        same_size("RepriseRegister", table.register_size, size_of::<RepriseRegister>())?;
        // SAFETY: a sound vtable's kind is NUL-terminated.
        let kind = unsafe { text(table.kind, limits::NAME) }.ok_or(LoadError::Kind)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if kind.is_empty() || !kind.chars().all(plain) {
            return Err(LoadError::Kind);
        }
        Ok(Self { table, kind })
    }

    /// Loads a plugin from a file; it is never unloaded.
    ///
    /// # Errors
    /// If the file is no plugin of this ABI.
    ///
    /// # Safety
    /// Loading runs the file's code in this process. The caller has done what it can to make that harmless.
    #[cfg(feature = "loader")]
    pub unsafe fn load(path: &std::path::Path) -> Result<Self, LoadError> {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        let name = || path.display().to_string();
        // SAFETY: promised by the caller.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| LoadError::Open { path: name(), why: e.to_string() })?;
        // SAFETY: the name fixes the function's type.
        let entry = unsafe { library.get::<crate::abi::ReprisePluginFn>(b"reprise_plugin\0") }
            .map(|symbol| *symbol)
            .map_err(|_| LoadError::NoEntry { path: name() });
        // Never unloaded: a device's threads, destructors and function pointers may outlive any owner.
        std::mem::forget(library);
        // SAFETY: the entry point takes nothing and returns the vtable.
        unsafe { Self::from_table(entry?()) }
    }

    /// The plugin's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Makes a device from the text of a config.
    ///
    /// # Errors
    /// If the plugin refuses the config, with the place in its text, or its spec is wrong.
    pub fn create(&self, config: &str) -> Result<Instance, MakeError> {
        // SAFETY: a sound vtable; the arguments are valid during the call.
        self.make(|error| unsafe { (self.table.create)(bytes_of(config.as_bytes()), error) })
    }

    /// Makes a device with a saved state.
    ///
    /// # Errors
    /// If the plugin refuses the config or the state, or its spec is wrong.
    pub fn restore(&self, config: &str, state: &[u8]) -> Result<Instance, MakeError> {
        // SAFETY: a sound vtable; the arguments are valid during the call.
        self.make(|error| unsafe { (self.table.restore)(bytes_of(config.as_bytes()), bytes_of(state), error) })
    }

    fn make(&self, maker: impl FnOnce(*mut RepriseError) -> *mut c_void) -> Result<Instance, MakeError> {
        let mut buffer = vec![0u8; MAX_TEXT];
        let mut error =
            RepriseError { line: 0, column: 0, text: buffer.as_mut_ptr(), capacity: buffer.len(), length: 0 };
        let Some(raw) = NonNull::new(maker(&raw mut error)) else {
            let text = String::from_utf8_lossy(&buffer[..error.length.min(MAX_TEXT)]);
            let message = if text.is_empty() { format!("{} gives no reason", self.kind) } else { text.into_owned() };
            return Err(ConfigError { message, at: (error.line, error.column) }.into());
        };
        let mut made = Instance {
            table: self.table,
            raw,
            spec: PluginSpec::new(&self.kind, "0", 4),
            fault: None,
            bulk: Vec::new(),
        };
        // SAFETY: a sound vtable's spec is valid as long as the device.
        let spec = unsafe { (self.table.spec)(raw.as_ptr()).as_ref().map(|s| read_spec(&self.kind, s)) };
        made.spec = spec.unwrap_or_else(|| Err("it has no spec".into())).map_err(MakeError::Spec)?;
        made.spec.check().map_err(|e| MakeError::Spec(e.to_string()))?;
        Ok(made)
    }
}

fn same_size(what: &'static str, found: u32, expected: usize) -> Result<(), LoadError> {
    let expected = expected as u32;
    if found == expected { Ok(()) } else { Err(LoadError::Size { what, found, expected }) }
}

/// A NUL-terminated text of at most `limit` bytes.
///
/// # Safety
/// `p` is null or points to a NUL-terminated text.
unsafe fn text(p: *const c_char, limit: usize) -> Option<String> {
    if p.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(p) };
    (text.to_bytes().len() <= limit).then(|| text.to_string_lossy().into_owned())
}

/// # Safety
/// `p` points to `n` elements, or `n` is 0.
unsafe fn list<'a, T>(what: &str, p: *const T, n: u32, limit: usize) -> Result<&'a [T], String> {
    if n as usize > limit {
        return Err(format!("it has {n} {what}, at most {limit} are allowed"));
    }
    if n == 0 {
        return Ok(&[]);
    }
    if p.is_null() {
        return Err(format!("its list of {what} is null"));
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(p, n as usize) })
}

/// # Safety
/// `spec` and all that it points to are valid.
unsafe fn read_spec(kind: &str, spec: &RepriseSpec) -> Result<PluginSpec, String> {
    let name = |what: &str, p: *const c_char| {
        // SAFETY: promised by the caller.
        unsafe { text(p, limits::NAME) }
            .ok_or_else(|| format!("a {what} without a name of at most {} bytes", limits::NAME))
    };
    let names = |what: &str, p, n| -> Result<Vec<String>, String> {
        // SAFETY: promised by the caller.
        unsafe { list(what, p, n, limits::PINS) }?.iter().map(|&p| name(what, p)).collect()
    };
    let mut out = PluginSpec::new(kind, &name("version", spec.version)?, spec.window);
    // SAFETY: promised by the caller.
    let (registers, shadows, ports, queues) = unsafe {
        (
            list("registers", spec.registers, spec.register_count, limits::REGISTERS)?,
            list("shadows", spec.shadows, spec.shadow_count, limits::SHADOWS)?,
            list("ports", spec.ports, spec.port_count, limits::PORTS)?,
            list("queues", spec.queues, spec.queue_count, limits::QUEUES)?,
        )
    };
    for r in registers {
        // SAFETY: promised by the caller.
        out.registers.push(unsafe { read_register(name("register", r.name)?, r) }?);
    }
    for s in shadows {
        out.shadows.push(Shadow { name: name("shadow", s.name)?, reset: s.reset });
    }
    for p in ports {
        let direction = match p.direction {
            REPRISE_PORT_IN => Direction::In,
            REPRISE_PORT_OUT => Direction::Out,
            REPRISE_PORT_BOTH => Direction::Both,
            other => return Err(format!("a port of direction {other}")),
        };
        let framing = match p.framing {
            REPRISE_FRAMING_BYTES => Framing::Bytes,
            REPRISE_FRAMING_PACKETS => Framing::Packets,
            other => return Err(format!("a port of framing {other}")),
        };
        out.ports.push(Port { name: name("port", p.name)?, direction, framing });
    }
    for q in queues {
        out.queues.push(Queue { name: name("queue", q.name)?, depth: q.depth });
    }
    out.disks = names("disks", spec.disks, spec.disk_count)?;
    out.inputs = names("input pins", spec.inputs, spec.input_count)?;
    out.outputs = names("output pins", spec.outputs, spec.output_count)?;
    out.timers = spec.timer_count;
    Ok(out)
}

/// # Safety
/// `r` and all that it points to are valid.
unsafe fn read_register(name: String, r: &RepriseRegister) -> Result<Register, String> {
    let access = match r.access {
        REPRISE_ACCESS_READ_WRITE => Access::ReadWrite,
        REPRISE_ACCESS_READ_ONLY => Access::ReadOnly,
        REPRISE_ACCESS_WRITE_ONLY => Access::WriteOnly,
        other => return Err(format!("register {name} has access {other}")),
    };
    let read = match r.read_policy {
        REPRISE_READ_SYNC => ReadPolicy::Sync,
        REPRISE_READ_SHADOW => ReadPolicy::Shadow(
            u16::try_from(r.read_arg).map_err(|_| format!("register {name}: shadow {}", r.read_arg))?,
        ),
        REPRISE_READ_CONST => ReadPolicy::Const(r.read_arg),
        REPRISE_READ_CLOCK => ReadPolicy::Clock { hz: r.read_arg },
        REPRISE_READ_QUEUE => {
            ReadPolicy::Queue(u16::try_from(r.read_arg).map_err(|_| format!("register {name}: queue {}", r.read_arg))?)
        }
        other => return Err(format!("register {name} has read policy {other}")),
    };
    let write = match r.write_policy {
        REPRISE_WRITE_SYNC => WritePolicy::Sync,
        REPRISE_WRITE_STORED => WritePolicy::Stored,
        policy @ (REPRISE_WRITE_POSTED | REPRISE_WRITE_FIFO) => {
            // SAFETY: promised by the caller.
            let shadows = unsafe { list("shadows of a write", r.shadows, r.shadow_count, limits::SHADOWS) }?.to_vec();
            if policy == REPRISE_WRITE_FIFO { WritePolicy::Fifo { shadows } } else { WritePolicy::Posted { shadows } }
        }
        other => return Err(format!("register {name} has write policy {other}")),
    };
    // SAFETY: promised by the caller.
    let section = if r.section.is_null() { Some(String::new()) } else { unsafe { text(r.section, limits::SECTION) } };
    let section = section.ok_or_else(|| format!("register {name}: its section is too long"))?;
    Ok(Register { name, offset: r.offset, sizes: r.sizes, reset: r.reset, access, read, write, section })
}

/// A device made by a plugin.
#[derive(Debug)]
pub struct Instance {
    table: RepriseVtable,
    raw: NonNull<c_void>,
    spec: PluginSpec,
    fault: Option<Fault>,
    /// Bytes on their way from a disk to guest RAM; kept for its memory.
    bulk: Vec<u8>,
}

impl Instance {
    /// What the device is. It does not change.
    #[must_use]
    pub fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    /// As [`Self::step_with`], for a device without disks.
    ///
    /// # Errors
    /// As [`Self::step_with`].
    pub fn step(&mut self, now: VTime, event: Event<'_>, out: &mut dyn FnMut(Effect<'_>)) -> Result<(), Fault> {
        self.step_with(now, event, &mut NoDisks, out)
    }

    /// Hands the device an event and passes its effects to `out`, in order, each of them checked. A read's reply comes exactly once.
    ///
    /// # Errors
    /// If the device panicked or did what its spec does not allow, now or earlier, or the host can't read or write a disk. Effects until then have been passed on.
    pub fn step_with(
        &mut self,
        now: VTime,
        event: Event<'_>,
        disks: &mut dyn Disks,
        out: &mut dyn FnMut(Effect<'_>),
    ) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let bulk = &mut self.bulk;
        let mut gate = Gate { out, disks, bulk, spec: &self.spec, event, fault: None, replied: false, effects: 0 };
        let effects = gate.table();
        let raw_event = raw_event(event);
        // SAFETY: a sound vtable; the arguments are valid during the call.
        let code = unsafe { (self.table.step)(self.raw.as_ptr(), now.0, &raw const raw_event, &raw const effects) };
        if code != 0 {
            gate.refuse(format!("the plugin returned {code}"));
        } else if matches!(event, Event::Read { .. }) && !gate.replied {
            gate.refuse(format!("no reply to {event:?}"));
        }
        self.fault = gate.fault.map(Fault);
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// The device's whole state. The same state gives the same bytes.
    ///
    /// # Errors
    /// If the device is dead or its state is larger than [`MAX_STATE`].
    pub fn save(&self) -> Result<Vec<u8>, Fault> {
        self.write_out("saving", self.table.save)
    }

    /// The device's state as JSON text, for people; none if the plugin does not describe it.
    ///
    /// # Errors
    /// If the device is dead, or what it writes is larger than [`MAX_STATE`] or no UTF-8 text.
    pub fn describe(&self) -> Result<Option<String>, Fault> {
        let Some(describe) = self.table.describe else { return Ok(None) };
        let text = self.write_out("describing the state", describe)?;
        String::from_utf8(text).map(Some).map_err(|_| Fault("its state's description is no UTF-8 text".into()))
    }

    /// Calls one of the plugin's functions that write bytes.
    fn write_out(
        &self,
        what: &str,
        function: unsafe extern "C" fn(*const c_void, *const RepriseSink) -> i32,
    ) -> Result<Vec<u8>, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        unsafe extern "C" fn write(ctx: *mut c_void, data: *const u8, len: usize) {
            // SAFETY: `ctx` is the vector below; the plugin's bytes are valid during the call.
            let (state, data) =
                unsafe { (&mut *ctx.cast::<Vec<u8>>(), slice_of(crate::abi::RepriseBytes { data, len })) };
            // One byte over the limit is enough to see that it was crossed.
            let room = (MAX_STATE + 1).saturating_sub(state.len());
            state.extend_from_slice(&data[..data.len().min(room)]);
        }
        let mut state = Vec::new();
        let sink = RepriseSink { ctx: (&raw mut state).cast(), write };
        // SAFETY: a function of a sound vtable; the arguments are valid during the call.
        let code = unsafe { function(self.raw.as_ptr(), &raw const sink) };
        if code != 0 {
            return Err(Fault(format!("{what} failed with {code}")));
        }
        if state.len() > MAX_STATE {
            return Err(Fault(format!("{what}: the state has more than {MAX_STATE} bytes")));
        }
        Ok(state)
    }

    /// How many more bytes of host input the device can take on `port`.
    #[must_use]
    pub fn want(&self, port: u32) -> u64 {
        if self.fault.is_some() || port as usize >= self.spec.ports.len() {
            return 0;
        }
        // SAFETY: a sound vtable.
        unsafe { (self.table.want)(self.raw.as_ptr(), port) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the device was made by this vtable and is not used again.
        unsafe { (self.table.destroy)(self.raw.as_ptr()) }
    }
}

fn raw_event(event: Event<'_>) -> RepriseEvent {
    let none = RepriseEvent { kind: 0, size: 0, tag: 0, offset: 0, value: 0, arg: 0, reserved: 0, data: bytes_of(&[]) };
    match event {
        Event::Reset => RepriseEvent { kind: REPRISE_EVENT_RESET, ..none },
        Event::Read { tag, offset, size } => {
            RepriseEvent { kind: REPRISE_EVENT_READ, tag, offset, size: size.into(), ..none }
        }
        Event::Write { tag, offset, size, value } => {
            RepriseEvent { kind: REPRISE_EVENT_WRITE, tag, offset, size: size.into(), value, ..none }
        }
        Event::Line { pin, level } => RepriseEvent { kind: REPRISE_EVENT_LINE, arg: pin, value: level.into(), ..none },
        Event::Timer(id) => RepriseEvent { kind: REPRISE_EVENT_TIMER, arg: id, ..none },
        Event::DmaDone { tag, data } => {
            RepriseEvent { kind: REPRISE_EVENT_DMA_DONE, tag, data: bytes_of(data), ..none }
        }
        Event::Popped { queue, count } => {
            RepriseEvent { kind: REPRISE_EVENT_POPPED, arg: queue.into(), value: count.into(), ..none }
        }
        Event::Host { port, data } => {
            RepriseEvent { kind: REPRISE_EVENT_HOST, offset: port.into(), data: bytes_of(data), ..none }
        }
    }
}

/// Stands between a plugin's effects and their consumer during one step.
struct Gate<'a> {
    out: &'a mut dyn FnMut(Effect<'_>),
    disks: &'a mut dyn Disks,
    bulk: &'a mut Vec<u8>,
    spec: &'a PluginSpec,
    event: Event<'a>,
    fault: Option<String>,
    replied: bool,
    effects: usize,
}

impl Gate<'_> {
    fn refuse(&mut self, what: String) {
        self.fault.get_or_insert(what);
    }

    /// Passes an effect on, or makes it a fault.
    fn pass(&mut self, effect: Effect<'_>) {
        if self.fault.is_some() {
            return;
        }
        self.effects += 1;
        match self.check(effect) {
            Ok(()) => (self.out)(effect),
            Err(why) => self.refuse(format!("{why}, in {:.80?}", self.event)),
        }
    }

    fn check(&mut self, effect: Effect<'_>) -> Result<(), String> {
        let within = |what: &str, i: u64, n: usize| {
            if i < n as u64 { Ok(()) } else { Err(format!("{what} {i} of {n}")) }
        };
        if self.effects > MAX_EFFECTS {
            return Err(format!("more than {MAX_EFFECTS} effects"));
        }
        let posted = match self.event {
            Event::Write { offset, size, .. } => self.spec.posted(offset, size),
            _ => None,
        };
        let not_posted = |what: &str| match posted {
            None => Ok(()),
            Some(_) => Err(format!("a posted write {what}")),
        };
        match effect {
            Effect::Reply { tag, .. } => {
                let asked = matches!(self.event, Event::Read { tag: t, .. } if t == tag);
                if !asked || std::mem::replace(&mut self.replied, true) {
                    return Err(format!("a reply to {tag} that nobody waits for"));
                }
                Ok(())
            }
            Effect::Line { pin, level } => {
                within("output pin", pin.into(), self.spec.outputs.len())?;
                if level { Ok(()) } else { not_posted("that lowers a line") }
            }
            Effect::Arm { id, .. } | Effect::Disarm { id } => {
                within("timer", id.into(), self.spec.timers as usize)?;
                not_posted("that arms or disarms a timer")
            }
            Effect::Dma { tag, reads, writes } => {
                within("DMA tag", tag, 1 << 32)?;
                crate::dma::check(reads, writes).map_err(|e| e.to_string())
            }
            Effect::Publish { shadow, .. } => {
                within("shadow", shadow.into(), self.spec.shadows.len())?;
                if posted.is_some_and(|may| !may.contains(&shadow)) {
                    return Err(format!("a posted write that changes shadow {shadow}, which it does not declare"));
                }
                Ok(())
            }
            Effect::HostOut { port, data } => {
                within("port", port.into(), self.spec.ports.len())?;
                let size = data.len();
                if size > MAX_HOST_OUT { Err(format!("{size} bytes of output at once")) } else { Ok(()) }
            }
            Effect::HostWant { port, .. } => within("port", port.into(), self.spec.ports.len()),
            Effect::Queue { queue, values } => {
                not_posted("that fills a queue")?;
                within("queue", queue.into(), self.spec.queues.len())?;
                let (n, depth) = (values.len(), self.spec.queues[usize::from(queue)].depth);
                if n == 0 || n > depth as usize {
                    return Err(format!("{n} values for queue {queue}, which holds {depth}"));
                }
                match self.event {
                    // Nobody could say whether they come before or after the answer.
                    Event::Read { offset, size, .. }
                        if !self.replied && self.spec.read_policy(offset, size) == ReadPolicy::Queue(queue) =>
                    {
                        Err(format!("values for queue {queue} in a read of it"))
                    }
                    _ => Ok(()),
                }
            }
            Effect::QueueClear { queue } => {
                not_posted("that clears a queue")?;
                within("queue", queue.into(), self.spec.queues.len())
            }
        }
    }

    /// Checks a range of a disk, and does something with it.
    fn disk(
        &mut self,
        disk: u32,
        offset: u64,
        len: u64,
        writes: bool,
        act: impl FnOnce(&mut dyn Disks) -> Result<(), String>,
    ) -> bool {
        let known = (disk as usize) < self.spec.disks.len();
        let size = if known { self.disks.size(disk) } else { None };
        let result = match size {
            None => Err(format!("an access to disk {disk}, which has no medium")),
            Some(size) if offset.checked_add(len).is_none_or(|end| end > size) => {
                Err(format!("{len} bytes at {offset} of disk {disk}, which has {size}"))
            }
            Some(_) if writes && self.disks.read_only(disk) => {
                Err(format!("a write to disk {disk}, which is read-only"))
            }
            Some(_) => act(self.disks),
        };
        let good = result.is_ok() && self.fault.is_none();
        if let Err(why) = result {
            self.refuse(format!("{why}, in {:.80?}", self.event));
        }
        good
    }

    /// A DMA request in the device's words: fetches what comes from disks.
    fn dma(&mut self, tag: u64, reads: &[DmaRange], writes: &[RepriseDmaWrite]) {
        let ranges = writes.iter().map(|w| DmaRange { addr: w.addr, len: w.data.len as u64 });
        if let Err(e) = dma::check_ranges(reads.iter().copied(), ranges) {
            return self.refuse(format!("{e}, in {:.80?}", self.event));
        }
        let mut bulk = std::mem::take(self.bulk);
        let of_disks = writes.iter().filter(|w| w.disk != REPRISE_NO_DISK).map(|w| w.data.len).sum();
        if bulk.len() < of_disks {
            bulk.resize(of_disks, 0);
        }
        let mut rest = bulk.as_mut_slice();
        let mut list = Vec::with_capacity(writes.len());
        for w in writes {
            if w.disk == REPRISE_NO_DISK {
                // SAFETY: the plugin's bytes are valid during its call, by the ABI's rules.
                list.push(dma::Write { addr: w.addr, data: unsafe { slice_of(w.data) }, origin: None });
                continue;
            }
            let (head, tail) = rest.split_at_mut(w.data.len);
            rest = tail;
            let len = head.len() as u64;
            if !self.disk(w.disk, w.offset, len, false, |disks| disks.read(w.disk, w.offset, head)) {
                break;
            }
            let origin =
                self.disks.unchanged(w.disk, w.offset, len).then_some(Origin { disk: w.disk, offset: w.offset });
            list.push(dma::Write { addr: w.addr, data: head, origin });
        }
        self.pass(Effect::Dma { tag, reads, writes: &list });
        *self.bulk = bulk;
    }

    /// The callback table whose context is this gate.
    fn table(&mut self) -> RepriseEffects {
        RepriseEffects {
            ctx: (&raw mut *self).cast(),
            reply: on_reply,
            line: on_line,
            arm: on_arm,
            disarm: on_disarm,
            dma: on_dma,
            publish: on_publish,
            host_out: on_host_out,
            host_want: on_host_want,
            queue: on_queue,
            queue_clear: on_queue_clear,
            disk_len: on_disk_len,
            disk_read_only: on_disk_read_only,
            disk_read: on_disk_read,
            disk_write: on_disk_write,
            disk_discard: on_disk_discard,
            disk_flush: on_disk_flush,
            fault: on_fault,
        }
    }
}

/// # Safety
/// `ctx` is the gate of the running step.
unsafe fn gate<'a>(ctx: *mut c_void) -> &'a mut Gate<'a> {
    // SAFETY: promised by the caller; the plugin's call ends before the step does.
    unsafe { &mut *ctx.cast::<Gate<'a>>() }
}

// The callbacks: their context is the gate, and slices are valid during the call, by the ABI's rules.

unsafe extern "C" fn on_reply(ctx: *mut c_void, tag: u64, value: u64) {
    // SAFETY: by the ABI's rules, here and below.
    unsafe { gate(ctx) }.pass(Effect::Reply { tag, value });
}

unsafe extern "C" fn on_line(ctx: *mut c_void, pin: u32, level: bool) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::Line { pin, level });
}

unsafe extern "C" fn on_arm(ctx: *mut c_void, id: u32, at: u64) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::Arm { id, at: VTime(at) });
}

unsafe extern "C" fn on_disarm(ctx: *mut c_void, id: u32) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::Disarm { id });
}

unsafe extern "C" fn on_dma(
    ctx: *mut c_void,
    tag: u64,
    reads: *const RepriseDmaRead,
    read_count: usize,
    writes: *const RepriseDmaWrite,
    write_count: usize,
) {
    // SAFETY: see `on_reply`.
    let gate = unsafe { gate(ctx) };
    let (n, m) = (u32::try_from(read_count).unwrap_or(u32::MAX), u32::try_from(write_count).unwrap_or(u32::MAX));
    // SAFETY: see `on_reply`.
    let lists = unsafe {
        list("DMA reads", reads, n, crate::dma::MAX_RANGES)
            .and_then(|r| list("DMA writes", writes, m, crate::dma::MAX_RANGES).map(|w| (r, w)))
    };
    match lists {
        Ok((reads, writes)) => {
            let reads: Vec<_> = reads.iter().map(|r| DmaRange { addr: r.addr, len: r.len }).collect();
            gate.dma(tag, &reads, writes);
        }
        Err(why) => gate.refuse(why),
    }
}

unsafe extern "C" fn on_publish(ctx: *mut c_void, shadow: u16, value: u64) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::Publish { shadow, value });
}

unsafe extern "C" fn on_host_out(ctx: *mut c_void, port: u32, data: *const u8, len: usize) {
    // SAFETY: see `on_reply`.
    let (gate, data) = unsafe { (gate(ctx), slice_of(crate::abi::RepriseBytes { data, len })) };
    gate.pass(Effect::HostOut { port, data });
}

unsafe extern "C" fn on_host_want(ctx: *mut c_void, port: u32, bytes: u64) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::HostWant { port, bytes });
}

unsafe extern "C" fn on_queue(ctx: *mut c_void, queue: u16, values: *const u32, count: usize) {
    // SAFETY: see `on_reply`.
    let gate = unsafe { gate(ctx) };
    let n = u32::try_from(count).unwrap_or(u32::MAX);
    // SAFETY: see `on_reply`.
    match unsafe { list("values of a queue", values, n, limits::QUEUE_DEPTH as usize) } {
        Ok(values) => gate.pass(Effect::Queue { queue, values }),
        Err(why) => gate.refuse(why),
    }
}

unsafe extern "C" fn on_queue_clear(ctx: *mut c_void, queue: u16) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.pass(Effect::QueueClear { queue });
}

unsafe extern "C" fn on_disk_len(ctx: *mut c_void, disk: u32) -> u64 {
    // SAFETY: see `on_reply`.
    let gate = unsafe { gate(ctx) };
    let known = (disk as usize) < gate.spec.disks.len();
    known.then(|| gate.disks.size(disk)).flatten().unwrap_or(REPRISE_NO_MEDIUM)
}

unsafe extern "C" fn on_disk_read_only(ctx: *mut c_void, disk: u32) -> bool {
    // SAFETY: see `on_reply`.
    let gate = unsafe { gate(ctx) };
    (disk as usize) >= gate.spec.disks.len() || gate.disks.read_only(disk)
}

unsafe extern "C" fn on_disk_read(ctx: *mut c_void, disk: u32, offset: u64, data: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: see `on_reply`; the buffer is the plugin's, and has `len` bytes.
    let (gate, buffer) = unsafe { (gate(ctx), std::slice::from_raw_parts_mut(data, len)) };
    if !gate.disk(disk, offset, len as u64, false, |disks| disks.read(disk, offset, buffer)) {
        // SAFETY: as above. The device goes on to the end of its step, which has failed already.
        unsafe { std::ptr::write_bytes(data, 0, len) };
    }
}

unsafe extern "C" fn on_disk_write(ctx: *mut c_void, disk: u32, offset: u64, data: *const u8, len: usize) {
    // SAFETY: see `on_reply`.
    let (gate, data) = unsafe { (gate(ctx), slice_of(crate::abi::RepriseBytes { data, len })) };
    gate.disk(disk, offset, len as u64, true, |disks| disks.write(disk, offset, data));
}

unsafe extern "C" fn on_disk_discard(ctx: *mut c_void, disk: u32, offset: u64, len: u64) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.disk(disk, offset, len, true, |disks| disks.discard(disk, offset, len));
}

unsafe extern "C" fn on_disk_flush(ctx: *mut c_void, disk: u32) {
    // SAFETY: see `on_reply`.
    unsafe { gate(ctx) }.disk(disk, 0, 0, false, |disks| disks.flush(disk));
}

unsafe extern "C" fn on_fault(ctx: *mut c_void, data: *const u8, len: usize) {
    // SAFETY: see `on_reply`.
    let (gate, data) = unsafe { (gate(ctx), slice_of(crate::abi::RepriseBytes { data, len })) };
    gate.refuse(String::from_utf8_lossy(&data[..data.len().min(MAX_TEXT)]).into_owned());
}
