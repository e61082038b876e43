//! A plugin as its host sees it: loaded, called, and every value that comes out of it checked.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use crate::abi::{
    REPRISE_ABI_VERSION, REPRISE_ACCESS_READ_ONLY, REPRISE_ACCESS_READ_WRITE, REPRISE_ACCESS_WRITE_ONLY,
    REPRISE_EVENT_DMA_DONE, REPRISE_EVENT_HOST, REPRISE_EVENT_LINE, REPRISE_EVENT_READ, REPRISE_EVENT_RESET,
    REPRISE_EVENT_TIMER, REPRISE_EVENT_WRITE, REPRISE_PORT_BOTH, REPRISE_PORT_IN, REPRISE_PORT_OUT, REPRISE_READ_CLOCK,
    REPRISE_READ_CONST, REPRISE_READ_SHADOW, REPRISE_READ_SYNC, REPRISE_WRITE_POSTED, REPRISE_WRITE_STORED,
    REPRISE_WRITE_SYNC, RepriseDmaRead, RepriseDmaWrite, RepriseEffects, RepriseError, RepriseEvent, RepriseRegister,
    RepriseSink, RepriseSpec, RepriseVtable,
};
use crate::device::{ConfigError, Device, DmaRange, DmaWrite, Event, VTime};
use crate::glue::{bytes_of, slice_of, vtable_of};
use crate::spec::{Access, Direction, PluginSpec, Port, ReadPolicy, Register, Shadow, WritePolicy, limits};

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
        writes: &'a [DmaWrite<'a>],
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
        /// Bytes.
        bytes: u64,
    },
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
        same_size("RepriseVtable", head[1], size_of::<RepriseVtable>())?;
        // SAFETY: promised by the caller, as version and size are ours.
        let table = unsafe { table.read_unaligned() };
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
        let mut made = Instance { table: self.table, raw, spec: PluginSpec::new(&self.kind, "0", 4), fault: None };
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
    let (registers, shadows, ports) = unsafe {
        (
            list("registers", spec.registers, spec.register_count, limits::REGISTERS)?,
            list("shadows", spec.shadows, spec.shadow_count, limits::SHADOWS)?,
            list("ports", spec.ports, spec.port_count, limits::PORTS)?,
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
        out.ports.push(Port { name: name("port", p.name)?, direction });
    }
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
        other => return Err(format!("register {name} has read policy {other}")),
    };
    let write = match r.write_policy {
        REPRISE_WRITE_SYNC => WritePolicy::Sync,
        REPRISE_WRITE_STORED => WritePolicy::Stored,
        REPRISE_WRITE_POSTED => {
            // SAFETY: promised by the caller.
            let shadows = unsafe { list("shadows of a write", r.shadows, r.shadow_count, limits::SHADOWS) }?;
            WritePolicy::Posted { shadows: shadows.to_vec() }
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
}

impl Instance {
    /// What the device is. It does not change.
    #[must_use]
    pub fn spec(&self) -> &PluginSpec {
        &self.spec
    }

    /// Hands the device an event and passes its effects to `out`, in order, each of them checked. A read's reply comes exactly once.
    ///
    /// # Errors
    /// If the device panicked or did what its spec does not allow, now or earlier. Effects until then have been passed on.
    pub fn step(&mut self, now: VTime, event: Event<'_>, out: &mut dyn FnMut(Effect<'_>)) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut gate = Gate { out, spec: &self.spec, event, fault: None, replied: false, effects: 0 };
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
        // SAFETY: a sound vtable; the arguments are valid during the call.
        let code = unsafe { (self.table.save)(self.raw.as_ptr(), &raw const sink) };
        if code != 0 {
            return Err(Fault(format!("saving failed with {code}")));
        }
        if state.len() > MAX_STATE {
            return Err(Fault(format!("the state has more than {MAX_STATE} bytes")));
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
        Event::Host { port, data } => {
            RepriseEvent { kind: REPRISE_EVENT_HOST, offset: port.into(), data: bytes_of(data), ..none }
        }
    }
}

/// Stands between a plugin's effects and their consumer during one step.
struct Gate<'a> {
    out: &'a mut dyn FnMut(Effect<'_>),
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
        }
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
            // SAFETY: see `on_reply`.
            let data_of = |w: &RepriseDmaWrite| unsafe { slice_of(w.data) };
            let writes: Vec<_> = writes.iter().map(|w| DmaWrite { addr: w.addr, data: data_of(w) }).collect();
            gate.pass(Effect::Dma { tag, reads: &reads, writes: &writes });
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

unsafe extern "C" fn on_fault(ctx: *mut c_void, data: *const u8, len: usize) {
    // SAFETY: see `on_reply`.
    let (gate, data) = unsafe { (gate(ctx), slice_of(crate::abi::RepriseBytes { data, len })) };
    gate.refuse(String::from_utf8_lossy(&data[..data.len().min(MAX_TEXT)]).into_owned());
}
