//! Puts a Rust [`Device`] behind the C ABI.
//!
//! The saved state of such a plugin is, in postcard's encoding, its kind, what [`Effects`] remembers, and [`Device::State`].

use std::collections::VecDeque;
use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::abi::{
    REPRISE_ABI_VERSION, REPRISE_ACCESS_READ_ONLY, REPRISE_ACCESS_READ_WRITE, REPRISE_ACCESS_WRITE_ONLY,
    REPRISE_EVENT_DMA_DONE, REPRISE_EVENT_HOST, REPRISE_EVENT_LINE, REPRISE_EVENT_POPPED, REPRISE_EVENT_READ,
    REPRISE_EVENT_RESET, REPRISE_EVENT_TIMER, REPRISE_EVENT_WRITE, REPRISE_FRAMING_BYTES, REPRISE_FRAMING_PACKETS,
    REPRISE_NO_DISK, REPRISE_NO_MEDIUM, REPRISE_PORT_BOTH, REPRISE_PORT_IN, REPRISE_PORT_OUT, REPRISE_READ_CLOCK,
    REPRISE_READ_CONST, REPRISE_READ_QUEUE, REPRISE_READ_SHADOW, REPRISE_READ_SYNC, REPRISE_WRITE_FIFO,
    REPRISE_WRITE_POSTED, REPRISE_WRITE_STORED, REPRISE_WRITE_SYNC, RepriseBytes, RepriseDmaRead, RepriseDmaWrite,
    RepriseEffects, RepriseError, RepriseEvent, ReprisePort, RepriseQueue, RepriseRegister, RepriseShadow, RepriseSink,
    RepriseSpec, RepriseVtable,
};
use crate::describe::{self, Named};
use crate::device::{ConfigError, Device, DmaData, DmaRange, DmaWrite, Effects, Event, RestoreError, VTime};
use crate::spec::{Access, Direction, Framing, PluginSpec, Port, ReadPolicy, Register, WritePolicy};

/// Where the effects of a step go.
pub(crate) trait Sink {
    fn reply(&mut self, tag: u64, value: u64);
    fn line(&mut self, pin: u32, level: bool);
    fn arm(&mut self, id: u32, at: VTime);
    fn disarm(&mut self, id: u32);
    fn dma(&mut self, tag: u64, reads: &[DmaRange], writes: &[DmaWrite<'_>]);
    fn publish(&mut self, shadow: u16, value: u64);
    fn host_out(&mut self, port: u32, data: &[u8]);
    fn host_want(&mut self, port: u32, bytes: u64);
    fn queue(&mut self, queue: u16, values: &[u32]);
    fn queue_clear(&mut self, queue: u16);
    fn disk_len(&self, disk: u32) -> Option<u64>;
    fn disk_read_only(&self, disk: u32) -> bool;
    fn disk_read(&mut self, disk: u32, offset: u64, buffer: &mut [u8]);
    fn disk_write(&mut self, disk: u32, offset: u64, data: &[u8]);
    fn disk_discard(&mut self, disk: u32, offset: u64, len: u64);
    fn disk_flush(&mut self, disk: u32);
}

/// What a device has last stated, so that only changes become events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outputs {
    pub(crate) shadows: Vec<u64>,
    pub(crate) lines: Vec<bool>,
    pub(crate) timers: Vec<Option<VTime>>,
    pub(crate) wants: Vec<u64>,
    /// What each queue holds, and its depth.
    pub(crate) queues: Vec<(VecDeque<u32>, u32)>,
}

impl Outputs {
    fn of(spec: &PluginSpec) -> Self {
        Self {
            shadows: spec.shadows.iter().map(|s| s.reset).collect(),
            lines: vec![false; spec.outputs.len()],
            timers: vec![None; spec.timers as usize],
            wants: vec![0; spec.ports.len()],
            queues: spec.queues.iter().map(|q| (VecDeque::new(), q.depth)).collect(),
        }
    }

    fn fits(&self, spec: &PluginSpec) -> bool {
        let like = Self::of(spec);
        let depths = |o: &Self| o.queues.iter().map(|q| q.1).collect::<Vec<_>>();
        (self.shadows.len(), self.lines.len(), self.timers.len(), self.wants.len())
            == (like.shadows.len(), like.lines.len(), like.timers.len(), like.wants.len())
            && depths(self) == depths(&like)
            && self.queues.iter().all(|(held, depth)| held.len() <= *depth as usize)
    }
}

#[derive(Serialize, Deserialize)]
struct Saved<S> {
    kind: String,
    outputs: Outputs,
    state: S,
}

/// A device with what belongs to it.
struct Instance<D> {
    device: D,
    spec: PluginSpec,
    outputs: Outputs,
    c_spec: CSpec,
    dead: bool,
}

impl<D: Device> Instance<D> {
    fn assemble(device: D, spec: PluginSpec, outputs: Outputs) -> Self {
        let c_spec = CSpec::of(&spec);
        Self { device, spec, outputs, c_spec, dead: false }
    }

    fn create(config: &[u8]) -> Result<Self, ConfigError> {
        let (cfg, spec) = configure::<D>(config)?;
        let outputs = Outputs::of(&spec);
        Ok(Self::assemble(D::new(&cfg)?, spec, outputs))
    }

    fn restore(config: &[u8], state: &[u8]) -> Result<Self, ConfigError> {
        let (cfg, spec) = configure::<D>(config)?;
        let fail = |what: String| ConfigError::new(format!("cannot restore the state of {}: {what}", D::KIND));
        let saved = postcard::from_bytes::<Saved<D::State>>(state);
        let saved = saved.map_err(|e| fail(format!("{e}; was it saved by another version of the plugin?")))?;
        if saved.kind != D::KIND {
            return Err(fail(format!("it is that of a {:?}", saved.kind.chars().take(64).collect::<String>())));
        }
        if !saved.outputs.fits(&spec) {
            return Err(fail("it was saved with another config".into()));
        }
        let device = D::restore(&cfg, saved.state).map_err(|RestoreError(e)| fail(e))?;
        Ok(Self::assemble(device, spec, saved.outputs))
    }

    fn save(&self) -> Vec<u8> {
        let saved = Saved { kind: D::KIND.to_owned(), outputs: self.outputs.clone(), state: self.device.save() };
        postcard::to_stdvec(&saved).expect("a state that postcard can encode")
    }

    /// The state and what the device has last stated, by the names that its spec gives.
    fn describe(&self) -> Result<String, describe::Failed> {
        #[derive(Serialize)]
        struct Description<'a, S> {
            state: S,
            lines: Named<'a, bool>,
            shadows: Named<'a, u64>,
            timers: &'a [Option<VTime>],
            wants: Named<'a, u64>,
            queues: Named<'a, &'a VecDeque<u32>>,
        }
        let (spec, outputs) = (&self.spec, &self.outputs);
        let shadows = spec.shadows.iter().map(|s| s.name.as_str()).zip(outputs.shadows.iter().copied());
        let queues = spec.queues.iter().map(|q| q.name.as_str()).zip(outputs.queues.iter().map(|(held, _)| held));
        describe::json(&Description {
            state: self.device.save(),
            lines: Named(spec.outputs.iter().map(String::as_str).zip(outputs.lines.iter().copied()).collect()),
            shadows: Named(shadows.collect()),
            timers: &outputs.timers,
            wants: Named(spec.ports.iter().map(|p| p.name.as_str()).zip(outputs.wants.iter().copied()).collect()),
            queues: Named(queues.collect()),
        })
    }

    fn step(&mut self, now: VTime, event: Event<'_>, sink: &mut dyn Sink) {
        if !self.meaningful(now, event) {
            if let Event::Read { tag, .. } = event {
                sink.reply(tag, 0);
            }
            return;
        }
        if let Event::Read { tag, offset, size } = event {
            // A constant or a clock: answered here, so that the spec is the only place that says it.
            if let Some(value) = self.spec.read_policy(offset, size).value(now, size) {
                sink.reply(tag, value);
                return;
            }
        }
        let restate_wants = matches!(event, Event::Host { .. });
        let mut event = event;
        let mut fx = Effects { sink, outputs: &mut self.outputs, restate_wants };
        match event {
            Event::Popped { queue, count } => drop(fx.outputs.queues[usize::from(queue)].0.drain(..count as usize)),
            // What was queued was not known to the CPU when it asked.
            Event::Read { tag, offset, size } => {
                if let ReadPolicy::Queue(queue) = self.spec.read_policy(offset, size) {
                    if let Some(value) = fx.outputs.queues[usize::from(queue)].0.pop_front() {
                        fx.reply(tag, value.into());
                        event = Event::Popped { queue, count: 1 };
                    }
                }
            }
            Event::Reset => all_off(&self.spec, &mut fx),
            Event::Timer(id) => fx.outputs.timers[id as usize] = None,
            _ => {}
        }
        self.device.step(now, event, &mut fx);
    }

    /// Whether the device has what the event speaks of. A host sends no other; but nothing that it sends may break a device.
    fn meaningful(&self, now: VTime, event: Event<'_>) -> bool {
        match event {
            Event::Read { offset, size, .. } | Event::Write { offset, size, .. } => {
                matches!(size, 1 | 2 | 4 | 8) && offset < self.spec.window && offset % u64::from(size) == 0
            }
            Event::Line { pin, .. } => (pin as usize) < self.spec.inputs.len(),
            Event::Timer(id) => self.outputs.timers.get(id as usize).is_some_and(|t| t.is_some_and(|at| at <= now)),
            Event::Host { port, .. } => (port as usize) < self.spec.ports.len(),
            Event::Popped { queue, count } => {
                let held = self.outputs.queues.get(usize::from(queue)).map_or(0, |q| q.0.len());
                count > 0 && count as usize <= held
            }
            Event::Reset | Event::DmaDone { .. } => true,
        }
    }
}

/// After a reset all lines are low, all timers off and all shadows at their reset values, before the device says otherwise.
fn all_off(spec: &PluginSpec, fx: &mut Effects<'_>) {
    (0..spec.outputs.len()).for_each(|pin| fx.line(pin as u32, false));
    (0..spec.timers).for_each(|id| fx.disarm(id));
    spec.shadows.iter().enumerate().for_each(|(i, s)| fx.publish(i as u16, s.reset));
    (0..spec.ports.len()).for_each(|port| fx.host_want(port as u32, 0));
    (0..spec.queues.len()).for_each(|queue| fx.queue_clear(queue as u16));
}

fn configure<D: Device>(config: &[u8]) -> Result<(D::Config, PluginSpec), ConfigError> {
    let text = std::str::from_utf8(config).map_err(|_| ConfigError::new("the config is not UTF-8 text"))?;
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let cfg = options.from_str(text).map_err(|e| ConfigError {
        message: format!("config of {}: {}", D::KIND, e.code),
        at: (e.span.start.line as u32, e.span.start.col as u32),
    })?;
    let spec = D::spec(&cfg);
    let spec_error = |e: &dyn std::fmt::Display| ConfigError::new(format!("{e}; this is a bug of the plugin"));
    spec.check().map_err(|e| spec_error(&e))?;
    if spec.kind != D::KIND {
        return Err(spec_error(&format_args!("its spec calls {} {:?}", D::KIND, spec.kind)));
    }
    Ok((cfg, spec))
}

/// A [`PluginSpec`] in the ABI's layout, with all that it points to.
struct CSpec {
    flat: RepriseSpec,
    // The heap memory that `flat` points into: it stays where it is when the vectors move.
    _text: Vec<CString>,
    _registers: Vec<RepriseRegister>,
    _shadow_lists: Vec<Vec<u16>>,
    _shadows: Vec<RepriseShadow>,
    _pins: [Vec<*const c_char>; 2],
    _ports: Vec<ReprisePort>,
    _queues: Vec<RepriseQueue>,
    _disks: Vec<*const c_char>,
}

impl CSpec {
    fn of(spec: &PluginSpec) -> Self {
        let mut text = Vec::new();
        let mut intern = |s: &str| {
            text.push(CString::new(s.replace('\0', "")).expect("a text without NUL"));
            text.last().expect("just pushed").as_ptr()
        };
        let mut shadow_lists = Vec::new();
        let registers: Vec<_> = spec.registers.iter().map(|r| c_register(r, &mut intern, &mut shadow_lists)).collect();
        let shadows: Vec<_> =
            spec.shadows.iter().map(|s| RepriseShadow { name: intern(&s.name), reset: s.reset }).collect();
        let pins = [&spec.inputs, &spec.outputs].map(|names| names.iter().map(|n| intern(n)).collect::<Vec<_>>());
        let ports: Vec<_> = spec.ports.iter().map(|p| c_port(intern(&p.name), p)).collect();
        let queues: Vec<_> =
            spec.queues.iter().map(|q| RepriseQueue { name: intern(&q.name), depth: q.depth }).collect();
        let disks: Vec<_> = spec.disks.iter().map(|name| intern(name)).collect();
        let flat = RepriseSpec {
            version: intern(&spec.version),
            window: spec.window,
            registers: registers.as_ptr(),
            shadows: shadows.as_ptr(),
            inputs: pins[0].as_ptr(),
            outputs: pins[1].as_ptr(),
            ports: ports.as_ptr(),
            queues: queues.as_ptr(),
            disks: disks.as_ptr(),
            register_count: registers.len() as u32,
            shadow_count: shadows.len() as u32,
            input_count: pins[0].len() as u32,
            output_count: pins[1].len() as u32,
            port_count: ports.len() as u32,
            timer_count: spec.timers,
            queue_count: queues.len() as u32,
            disk_count: disks.len() as u32,
        };
        Self {
            flat,
            _text: text,
            _registers: registers,
            _shadow_lists: shadow_lists,
            _shadows: shadows,
            _pins: pins,
            _ports: ports,
            _queues: queues,
            _disks: disks,
        }
    }
}

fn c_port(name: *const c_char, port: &Port) -> ReprisePort {
    let framing = match port.framing {
        Framing::Bytes => REPRISE_FRAMING_BYTES,
        Framing::Packets => REPRISE_FRAMING_PACKETS,
    };
    let direction = match port.direction {
        Direction::In => REPRISE_PORT_IN,
        Direction::Out => REPRISE_PORT_OUT,
        Direction::Both => REPRISE_PORT_BOTH,
    };
    ReprisePort { name, direction, framing }
}

fn c_register(
    r: &Register,
    intern: &mut impl FnMut(&str) -> *const c_char,
    shadow_lists: &mut Vec<Vec<u16>>,
) -> RepriseRegister {
    let (read_policy, read_arg) = match r.read {
        ReadPolicy::Sync => (REPRISE_READ_SYNC, 0),
        ReadPolicy::Shadow(i) => (REPRISE_READ_SHADOW, u64::from(i)),
        ReadPolicy::Const(v) => (REPRISE_READ_CONST, v),
        ReadPolicy::Clock { hz } => (REPRISE_READ_CLOCK, hz),
        ReadPolicy::Queue(i) => (REPRISE_READ_QUEUE, u64::from(i)),
    };
    let (write_policy, shadows) = match &r.write {
        WritePolicy::Sync => (REPRISE_WRITE_SYNC, Vec::new()),
        WritePolicy::Posted { shadows } => (REPRISE_WRITE_POSTED, shadows.clone()),
        WritePolicy::Stored => (REPRISE_WRITE_STORED, Vec::new()),
        WritePolicy::Fifo { shadows } => (REPRISE_WRITE_FIFO, shadows.clone()),
    };
    let access = match r.access {
        Access::ReadWrite => REPRISE_ACCESS_READ_WRITE,
        Access::ReadOnly => REPRISE_ACCESS_READ_ONLY,
        Access::WriteOnly => REPRISE_ACCESS_WRITE_ONLY,
    };
    let flat = RepriseRegister {
        name: intern(&r.name),
        section: intern(&r.section),
        offset: r.offset,
        reset: r.reset,
        read_arg,
        shadows: shadows.as_ptr(),
        shadow_count: shadows.len() as u32,
        sizes: r.sizes,
        access,
        read_policy,
        write_policy,
    };
    shadow_lists.push(shadows);
    flat
}

/// The host's callback table as a [`Sink`].
struct HostTable<'a>(&'a RepriseEffects);

impl Sink for HostTable<'_> {
    fn reply(&mut self, tag: u64, value: u64) {
        // SAFETY: here and below: the host's functions take its own `ctx`, and any slices only during the call.
        unsafe { (self.0.reply)(self.0.ctx, tag, value) }
    }
    fn line(&mut self, pin: u32, level: bool) {
        // SAFETY: see `reply`.
        unsafe { (self.0.line)(self.0.ctx, pin, level) }
    }
    fn arm(&mut self, id: u32, at: VTime) {
        // SAFETY: see `reply`.
        unsafe { (self.0.arm)(self.0.ctx, id, at.0) }
    }
    fn disarm(&mut self, id: u32) {
        // SAFETY: see `reply`.
        unsafe { (self.0.disarm)(self.0.ctx, id) }
    }
    fn dma(&mut self, tag: u64, reads: &[DmaRange], writes: &[DmaWrite<'_>]) {
        let reads: Vec<_> = reads.iter().map(|r| RepriseDmaRead { addr: r.addr, len: r.len }).collect();
        let writes: Vec<_> = writes.iter().map(c_dma_write).collect();
        // SAFETY: see `reply`.
        unsafe { (self.0.dma)(self.0.ctx, tag, reads.as_ptr(), reads.len(), writes.as_ptr(), writes.len()) }
    }
    fn publish(&mut self, shadow: u16, value: u64) {
        // SAFETY: see `reply`.
        unsafe { (self.0.publish)(self.0.ctx, shadow, value) }
    }
    fn host_out(&mut self, port: u32, data: &[u8]) {
        // SAFETY: see `reply`.
        unsafe { (self.0.host_out)(self.0.ctx, port, data.as_ptr(), data.len()) }
    }
    fn host_want(&mut self, port: u32, bytes: u64) {
        // SAFETY: see `reply`.
        unsafe { (self.0.host_want)(self.0.ctx, port, bytes) }
    }
    fn queue(&mut self, queue: u16, values: &[u32]) {
        // SAFETY: see `reply`.
        unsafe { (self.0.queue)(self.0.ctx, queue, values.as_ptr(), values.len()) }
    }
    fn queue_clear(&mut self, queue: u16) {
        // SAFETY: see `reply`.
        unsafe { (self.0.queue_clear)(self.0.ctx, queue) }
    }
    fn disk_len(&self, disk: u32) -> Option<u64> {
        // SAFETY: see `reply`.
        let len = unsafe { (self.0.disk_len)(self.0.ctx, disk) };
        (len != REPRISE_NO_MEDIUM).then_some(len)
    }
    fn disk_read_only(&self, disk: u32) -> bool {
        // SAFETY: see `reply`.
        unsafe { (self.0.disk_read_only)(self.0.ctx, disk) }
    }
    fn disk_read(&mut self, disk: u32, offset: u64, buffer: &mut [u8]) {
        // SAFETY: see `reply`.
        unsafe { (self.0.disk_read)(self.0.ctx, disk, offset, buffer.as_mut_ptr(), buffer.len()) }
    }
    fn disk_write(&mut self, disk: u32, offset: u64, data: &[u8]) {
        // SAFETY: see `reply`.
        unsafe { (self.0.disk_write)(self.0.ctx, disk, offset, data.as_ptr(), data.len()) }
    }
    fn disk_discard(&mut self, disk: u32, offset: u64, len: u64) {
        // SAFETY: see `reply`.
        unsafe { (self.0.disk_discard)(self.0.ctx, disk, offset, len) }
    }
    fn disk_flush(&mut self, disk: u32) {
        // SAFETY: see `reply`.
        unsafe { (self.0.disk_flush)(self.0.ctx, disk) }
    }
}

fn c_dma_write(w: &DmaWrite<'_>) -> RepriseDmaWrite {
    let (data, disk, offset) = match w.data {
        DmaData::Bytes(data) => (bytes_of(data), REPRISE_NO_DISK, 0),
        DmaData::Disk { disk, offset, len } => {
            (RepriseBytes { data: std::ptr::null(), len: usize::try_from(len).unwrap_or(usize::MAX) }, disk, offset)
        }
    };
    RepriseDmaWrite { addr: w.addr, data, offset, disk, reserved: 0 }
}

pub(crate) fn bytes_of(data: &[u8]) -> RepriseBytes {
    RepriseBytes { data: data.as_ptr(), len: data.len() }
}

/// # Safety
/// `bytes` is what [`bytes_of`] made of a slice that lives as long as `'a`, or a C caller's equivalent.
pub(crate) unsafe fn slice_of<'a>(bytes: RepriseBytes) -> &'a [u8] {
    if bytes.data.is_null() || bytes.len == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(bytes.data, bytes.len) }
}

/// Makes an [`Event`] of the ABI's event; `None` if it has no known kind.
///
/// # Safety
/// `ev.data` is valid as long as `ev`.
unsafe fn event_of(ev: &RepriseEvent) -> Option<Event<'_>> {
    // SAFETY: promised by the caller.
    let data = unsafe { slice_of(ev.data) };
    let size = u8::try_from(ev.size).unwrap_or(0);
    Some(match ev.kind {
        REPRISE_EVENT_RESET => Event::Reset,
        REPRISE_EVENT_READ => Event::Read { tag: ev.tag, offset: ev.offset, size },
        REPRISE_EVENT_WRITE => {
            Event::Write { tag: ev.tag, offset: ev.offset, size, value: crate::spec::truncate(ev.value, size.max(1)) }
        }
        REPRISE_EVENT_LINE => Event::Line { pin: ev.arg, level: ev.value != 0 },
        REPRISE_EVENT_TIMER => Event::Timer(ev.arg),
        REPRISE_EVENT_DMA_DONE => Event::DmaDone { tag: ev.tag, data },
        REPRISE_EVENT_POPPED => Event::Popped {
            queue: u16::try_from(ev.arg).unwrap_or(u16::MAX),
            count: u32::try_from(ev.value).unwrap_or(u32::MAX),
        },
        REPRISE_EVENT_HOST => Event::Host { port: u32::try_from(ev.offset).unwrap_or(u32::MAX), data },
        _ => return None,
    })
}

/// The text of a caught panic.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}

/// # Safety
/// `out` is null or points to a [`RepriseError`] of the host.
unsafe fn report(out: *mut RepriseError, error: &ConfigError) {
    // SAFETY: promised by the caller.
    let Some(out) = (unsafe { out.as_mut() }) else { return };
    (out.line, out.column) = error.at;
    let mut n = error.message.len().min(out.capacity);
    while !error.message.is_char_boundary(n) {
        n -= 1;
    }
    out.length = n;
    // SAFETY: `text` has room for `capacity` bytes, and n is no more.
    unsafe { std::ptr::copy_nonoverlapping(error.message.as_ptr(), out.text, n) };
}

/// Runs a maker behind the panic boundary and boxes what it makes.
///
/// # Safety
/// As [`report`].
unsafe fn make<D: Device>(
    error: *mut RepriseError,
    maker: impl FnOnce() -> Result<Instance<D>, ConfigError>,
) -> *mut c_void {
    let made = catch_unwind(AssertUnwindSafe(maker))
        .unwrap_or_else(|p| Err(ConfigError::new(format!("{} panicked: {}", D::KIND, panic_text(&*p)))));
    match made {
        Ok(instance) => Box::into_raw(Box::new(instance)).cast(),
        Err(e) => {
            // SAFETY: promised by the caller.
            unsafe { report(error, &e) };
            std::ptr::null_mut()
        }
    }
}

/// The ABI's functions for one device type.
struct Table<D>(std::marker::PhantomData<D>);

impl<D: Device> Table<D> {
    const KIND: [c_char; 65] = {
        let (from, mut to, mut i) = (D::KIND.as_bytes(), [0; 65], 0);
        assert!(from.len() <= 64, "a plugin's kind has at most 64 bytes");
        while i < from.len() {
            to[i] = from[i] as c_char;
            i += 1;
        }
        to
    };

    const TABLE: RepriseVtable = RepriseVtable {
        abi_version: REPRISE_ABI_VERSION,
        vtable_size: size_of::<RepriseVtable>() as u32,
        event_size: size_of::<RepriseEvent>() as u32,
        effects_size: size_of::<RepriseEffects>() as u32,
        spec_size: size_of::<RepriseSpec>() as u32,
        register_size: size_of::<RepriseRegister>() as u32,
        kind: (&raw const Self::KIND_STATIC[0]),
        create: Self::create,
        restore: Self::restore,
        destroy: Self::destroy,
        spec: Self::spec,
        step: Self::step,
        save: Self::save,
        want: Self::want,
        describe: Some(Self::describe),
    };

    const KIND_STATIC: &'static [c_char; 65] = &Self::KIND;

    // The functions below are called by a host that keeps to the ABI: pointers are valid for the call, `device` came from `create` or
    // `restore` and is used by one thread at a time.

    unsafe extern "C" fn create(config: RepriseBytes, error: *mut RepriseError) -> *mut c_void {
        // SAFETY: the host keeps to the ABI.
        unsafe { make::<D>(error, || Instance::create(slice_of(config))) }
    }

    unsafe extern "C" fn restore(config: RepriseBytes, state: RepriseBytes, error: *mut RepriseError) -> *mut c_void {
        // SAFETY: the host keeps to the ABI.
        unsafe { make::<D>(error, || Instance::restore(slice_of(config), slice_of(state))) }
    }

    unsafe extern "C" fn destroy(device: *mut c_void) {
        // SAFETY: `device` was boxed by `make` and is not used again. A panic in a destructor ends there.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(device.cast::<Instance<D>>()) })));
    }

    unsafe extern "C" fn spec(device: *const c_void) -> *const RepriseSpec {
        // SAFETY: the host keeps to the ABI.
        unsafe { &raw const (*device.cast::<Instance<D>>()).c_spec.flat }
    }

    unsafe extern "C" fn step(
        device: *mut c_void,
        now: u64,
        event: *const RepriseEvent,
        effects: *const RepriseEffects,
    ) -> i32 {
        // SAFETY: the host keeps to the ABI.
        let (instance, event, effects) = unsafe { (&mut *device.cast::<Instance<D>>(), &*event, &*effects) };
        let fault = |text: &str| {
            // SAFETY: the host's function, with its own context.
            unsafe { (effects.fault)(effects.ctx, text.as_ptr(), text.len()) };
            1
        };
        if instance.dead {
            return fault("the device is dead after an earlier fault");
        }
        // SAFETY: the event's data is valid during the call.
        let Some(event) = (unsafe { event_of(event) }) else { return 0 };
        let run = AssertUnwindSafe(|| instance.step(VTime(now), event, &mut HostTable(effects)));
        match catch_unwind(run) {
            Ok(()) => 0,
            Err(payload) => {
                instance.dead = true;
                fault(&format!("{} panicked in {event:.80?}: {}", D::KIND, panic_text(&*payload)))
            }
        }
    }

    unsafe extern "C" fn save(device: *const c_void, out: *const RepriseSink) -> i32 {
        // SAFETY: the host keeps to the ABI.
        let (instance, out) = unsafe { (&*device.cast::<Instance<D>>(), &*out) };
        if instance.dead {
            return 1;
        }
        let Ok(bytes) = catch_unwind(AssertUnwindSafe(|| instance.save())) else { return 1 };
        // SAFETY: the host's function, with its own context.
        unsafe { (out.write)(out.ctx, bytes.as_ptr(), bytes.len()) };
        0
    }

    unsafe extern "C" fn describe(device: *const c_void, out: *const RepriseSink) -> i32 {
        // SAFETY: the host keeps to the ABI.
        let (instance, out) = unsafe { (&*device.cast::<Instance<D>>(), &*out) };
        if instance.dead {
            return 1;
        }
        let Ok(Ok(text)) = catch_unwind(AssertUnwindSafe(|| instance.describe())) else { return 1 };
        // SAFETY: the host's function, with its own context.
        unsafe { (out.write)(out.ctx, text.as_ptr(), text.len()) };
        0
    }

    unsafe extern "C" fn want(device: *const c_void, port: u32) -> u64 {
        // SAFETY: the host keeps to the ABI.
        let instance = unsafe { &*device.cast::<Instance<D>>() };
        instance.outputs.wants.get(port as usize).copied().unwrap_or(0)
    }
}

/// The vtable of a device type.
#[must_use]
pub fn vtable_of<D: Device>() -> &'static RepriseVtable {
    &Table::<D>::TABLE
}

/// Exports a [`Device`] as this shared object's plugin.
#[macro_export]
macro_rules! export_device {
    ($device:ty) => {
        /// The plugin's entry point.
        #[allow(unsafe_code, reason = "the one exported symbol of a plugin")]
        #[unsafe(no_mangle)]
        pub extern "C" fn reprise_plugin() -> *const $crate::abi::RepriseVtable {
            $crate::glue::vtable_of::<$device>()
        }
    };
}
