//! The C ABI between a plugin and its host. `include/reprise_device.h` is generated from this file.
//!
//! A plugin is a shared object that exports one function, `reprise_plugin`, which returns its [`RepriseVtable`]. The host calls its functions
//! from one thread. No exception, panic or `longjmp` may cross the boundary in either direction.

use std::ffi::{c_char, c_void};

/// Version of this ABI: a host takes a plugin of exactly its own version.
pub const REPRISE_ABI_VERSION: u32 = 2;

/// Event kind: back to the state of a new device.
pub const REPRISE_EVENT_RESET: u32 = 1;
/// Event kind: read `size` bytes at `offset`; the device calls `reply` with `tag` once.
pub const REPRISE_EVENT_READ: u32 = 2;
/// Event kind: write the low `size` bytes of `value` at `offset`.
pub const REPRISE_EVENT_WRITE: u32 = 3;
/// Event kind: input pin `arg` has the level `value` (0 or 1).
pub const REPRISE_EVENT_LINE: u32 = 4;
/// Event kind: timer `arg` has come and is no longer armed.
pub const REPRISE_EVENT_TIMER: u32 = 5;
/// Event kind: the DMA request `tag` is done; `data` holds the bytes of all its read ranges.
pub const REPRISE_EVENT_DMA_DONE: u32 = 6;
/// Event kind: the bytes `data` came in on port `offset`.
pub const REPRISE_EVENT_HOST: u32 = 7;
/// Event kind: the CPU took `value` values, at least 1, from queue `arg`.
pub const REPRISE_EVENT_POPPED: u32 = 8;

/// Length of a disk that has no medium.
pub const REPRISE_NO_MEDIUM: u64 = u64::MAX;
/// No disk: the bytes of a DMA write come from the device.
pub const REPRISE_NO_DISK: u32 = u32::MAX;

/// Register access: reads and writes.
pub const REPRISE_ACCESS_READ_WRITE: u8 = 0;
/// Register access: reads; writes do nothing.
pub const REPRISE_ACCESS_READ_ONLY: u8 = 1;
/// Register access: writes; reads give 0.
pub const REPRISE_ACCESS_WRITE_ONLY: u8 = 2;

/// Read policy: the device is asked.
pub const REPRISE_READ_SYNC: u8 = 0;
/// Read policy: the last published value of shadow `read_arg`.
pub const REPRISE_READ_SHADOW: u8 = 1;
/// Read policy: always `read_arg`.
pub const REPRISE_READ_CONST: u8 = 2;
/// Read policy: ticks of a clock of `read_arg` Hz since guest time 0.
pub const REPRISE_READ_CLOCK: u8 = 3;
/// Read policy: the first value of queue `read_arg`. cpu-proc takes it by itself as long as the queue holds one, so the device sees a read only when
/// the queue is empty.
pub const REPRISE_READ_QUEUE: u8 = 4;

/// Write policy: the CPU waits for the device.
pub const REPRISE_WRITE_SYNC: u8 = 0;
/// Write policy: the CPU goes on; the write changes no shadow but those named, lowers no line, and arms and disarms no timer.
pub const REPRISE_WRITE_POSTED: u8 = 1;
/// Write policy: the CPU waits for the device; but a write of the value that the register's shadow (its read policy) already has does nothing
/// at all, so the device does not even see it.
pub const REPRISE_WRITE_STORED: u8 = 2;
/// Write policy: as `REPRISE_WRITE_POSTED`, for a register that drivers write many times in a row. What is written within a short time is sent
/// together; the device sees each write by itself, at its own time, and in order with everything else.
pub const REPRISE_WRITE_FIFO: u8 = 3;

/// Port direction: from the outside to the device.
pub const REPRISE_PORT_IN: u32 = 1;
/// Port direction: from the device to the outside.
pub const REPRISE_PORT_OUT: u32 = 2;
/// Port direction: both.
pub const REPRISE_PORT_BOTH: u32 = 3;

/// Port framing: a stream of bytes.
pub const REPRISE_FRAMING_BYTES: u32 = 0;
/// Port framing: each message is a packet; wants are counted in packets.
pub const REPRISE_FRAMING_PACKETS: u32 = 1;

/// Bytes that belong to the caller and are valid during the call.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseBytes {
    /// First byte; may be null if `len` is 0.
    pub data: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Where a function writes its output: `write` may be called any number of times; the pieces are joined.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseSink {
    /// To be handed to `write`.
    pub ctx: *mut c_void,
    /// Takes the next piece.
    pub write: unsafe extern "C" fn(ctx: *mut c_void, data: *const u8, len: usize),
}

/// Where a function says what was wrong: UTF-8 text in a buffer of the host.
#[derive(Debug)]
#[repr(C)]
pub struct RepriseError {
    /// Out: line in the config's text, from 1; 0 if no place is meant.
    pub line: u32,
    /// Out: column, from 1; 0 if no place is meant.
    pub column: u32,
    /// In: the buffer.
    pub text: *mut u8,
    /// In: its size in bytes.
    pub capacity: usize,
    /// Out: bytes written, at most `capacity`.
    pub length: usize,
}

/// One register.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseRegister {
    /// Name in the manual; 1..=64 printable ASCII characters.
    pub name: *const c_char,
    /// Where the manual describes it; at most 128 bytes. May be null.
    pub section: *const c_char,
    /// Byte offset in the window.
    pub offset: u64,
    /// Value after reset.
    pub reset: u64,
    /// Argument of the read policy: shadow, constant or Hz.
    pub read_arg: u64,
    /// The shadows that a posted write may change.
    pub shadows: *const u16,
    /// How many.
    pub shadow_count: u32,
    /// Access sizes for which the policies hold: sum of 1, 2, 4 and 8.
    pub sizes: u8,
    /// `REPRISE_ACCESS_*`.
    pub access: u8,
    /// `REPRISE_READ_*`.
    pub read_policy: u8,
    /// `REPRISE_WRITE_*`.
    pub write_policy: u8,
}

/// A value that the device publishes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseShadow {
    /// Its name.
    pub name: *const c_char,
    /// Its value until the device publishes another.
    pub reset: u64,
}

/// A connection to a backend.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ReprisePort {
    /// Its name.
    pub name: *const c_char,
    /// `REPRISE_PORT_*`.
    pub direction: u32,
    /// `REPRISE_FRAMING_*`.
    pub framing: u32,
}

/// A queue of values for a register.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseQueue {
    /// Its name.
    pub name: *const c_char,
    /// Most values that it holds.
    pub depth: u32,
}

/// Describes a device. Strings end with a NUL; all of it stays valid as long as the device lives.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseSpec {
    /// The plugin's version, for people; 1..=64 printable ASCII characters.
    pub version: *const c_char,
    /// Bytes of address space; a multiple of 4.
    pub window: u64,
    /// Registers by ascending offset.
    pub registers: *const RepriseRegister,
    /// Shadows.
    pub shadows: *const RepriseShadow,
    /// Names of the input pins.
    pub inputs: *const *const c_char,
    /// Names of the output pins.
    pub outputs: *const *const c_char,
    /// Ports.
    pub ports: *const ReprisePort,
    /// Queues.
    pub queues: *const RepriseQueue,
    /// Names of the disks.
    pub disks: *const *const c_char,
    /// Number of registers.
    pub register_count: u32,
    /// Number of shadows.
    pub shadow_count: u32,
    /// Number of input pins.
    pub input_count: u32,
    /// Number of output pins.
    pub output_count: u32,
    /// Number of ports.
    pub port_count: u32,
    /// Number of timers.
    pub timer_count: u32,
    /// Number of queues.
    pub queue_count: u32,
    /// Number of disks.
    pub disk_count: u32,
}

/// What happens to a device. Fields that a kind does not use are 0.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseEvent {
    /// `REPRISE_EVENT_*`.
    pub kind: u32,
    /// Bytes of a register access: 1, 2, 4 or 8.
    pub size: u32,
    /// Names a read or a DMA request.
    pub tag: u64,
    /// Register offset, or port.
    pub offset: u64,
    /// Data written, or level.
    pub value: u64,
    /// Pin or timer.
    pub arg: u32,
    /// 0.
    pub reserved: u32,
    /// Bulk data, valid during the call.
    pub data: RepriseBytes,
}

/// A range of guest physical addresses to read.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseDmaRead {
    /// First address.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

/// Bytes to write to guest RAM.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseDmaWrite {
    /// First address.
    pub addr: u64,
    /// The bytes. From a disk, only their number counts.
    pub data: RepriseBytes,
    /// The first byte on the disk.
    pub offset: u64,
    /// The disk that the bytes come from, as it is at this moment, or `REPRISE_NO_DISK`.
    pub disk: u32,
    /// 0.
    pub reserved: u32,
}

/// The host's functions, valid during one `step`. A device calls them only when something changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseEffects {
    /// To be handed to every function.
    pub ctx: *mut c_void,
    /// Answers the read `tag`: exactly once in its step.
    pub reply: unsafe extern "C" fn(ctx: *mut c_void, tag: u64, value: u64),
    /// Drives output pin `pin`.
    pub line: unsafe extern "C" fn(ctx: *mut c_void, pin: u32, level: bool),
    /// Sets timer `id` to guest time `at` (ns); replaces its earlier setting.
    pub arm: unsafe extern "C" fn(ctx: *mut c_void, id: u32, at: u64),
    /// Stops timer `id`.
    pub disarm: unsafe extern "C" fn(ctx: *mut c_void, id: u32),
    /// Asks for a DMA transfer; `tag` is below 2^32.
    pub dma: unsafe extern "C" fn(
        ctx: *mut c_void,
        tag: u64,
        reads: *const RepriseDmaRead,
        read_count: usize,
        writes: *const RepriseDmaWrite,
        write_count: usize,
    ),
    /// Publishes the value of shadow `shadow`.
    pub publish: unsafe extern "C" fn(ctx: *mut c_void, shadow: u16, value: u64),
    /// Sends bytes out on port `port`.
    pub host_out: unsafe extern "C" fn(ctx: *mut c_void, port: u32, data: *const u8, len: usize),
    /// States how many more bytes (or packets) the device can take on port `port` after this step.
    pub host_want: unsafe extern "C" fn(ctx: *mut c_void, port: u32, bytes: u64),
    /// Appends values to queue `queue`. Not in the step of a read of its register.
    pub queue: unsafe extern "C" fn(ctx: *mut c_void, queue: u16, values: *const u32, count: usize),
    /// Throws away what queue `queue` holds.
    pub queue_clear: unsafe extern "C" fn(ctx: *mut c_void, queue: u16),
    /// The size of disk `disk`, a multiple of 512, or `REPRISE_NO_MEDIUM`.
    pub disk_len: unsafe extern "C" fn(ctx: *mut c_void, disk: u32) -> u64,
    /// Whether disk `disk` can't be written.
    pub disk_read_only: unsafe extern "C" fn(ctx: *mut c_void, disk: u32) -> bool,
    /// Reads from disk `disk`.
    pub disk_read: unsafe extern "C" fn(ctx: *mut c_void, disk: u32, offset: u64, data: *mut u8, len: usize),
    /// Writes to disk `disk`.
    pub disk_write: unsafe extern "C" fn(ctx: *mut c_void, disk: u32, offset: u64, data: *const u8, len: usize),
    /// Makes a range of disk `disk` read as zeros.
    pub disk_discard: unsafe extern "C" fn(ctx: *mut c_void, disk: u32, offset: u64, len: u64),
    /// What was written to disk `disk` is to survive a crash of the host.
    pub disk_flush: unsafe extern "C" fn(ctx: *mut c_void, disk: u32),
    /// Says why `step` is about to fail: UTF-8 text.
    pub fault: unsafe extern "C" fn(ctx: *mut c_void, text: *const u8, len: usize),
}

/// What a plugin is: its functions. No field may be null but `describe`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RepriseVtable {
    /// `REPRISE_ABI_VERSION`.
    pub abi_version: u32,
    /// `sizeof(RepriseVtable)`.
    pub vtable_size: u32,
    /// `sizeof(RepriseEvent)`.
    pub event_size: u32,
    /// `sizeof(RepriseEffects)`.
    pub effects_size: u32,
    /// `sizeof(RepriseSpec)`.
    pub spec_size: u32,
    /// `sizeof(RepriseRegister)`.
    pub register_size: u32,
    /// The plugin's kind: lower-case letters, digits and dashes, NUL-terminated.
    pub kind: *const c_char,
    /// Makes a device from the text of the machine file's `config` value (RON); null and `error` if that is no good.
    pub create: unsafe extern "C" fn(config: RepriseBytes, error: *mut RepriseError) -> *mut c_void,
    /// Makes a device with a saved state; null and `error` if that is impossible. The bytes can be anything.
    pub restore:
        unsafe extern "C" fn(config: RepriseBytes, state: RepriseBytes, error: *mut RepriseError) -> *mut c_void,
    /// Ends a device.
    pub destroy: unsafe extern "C" fn(device: *mut c_void),
    /// Describes a device.
    pub spec: unsafe extern "C" fn(device: *const c_void) -> *const RepriseSpec,
    /// Takes an event at guest time `now` (ns); 0, or another value after a fault, from which on the device is dead.
    pub step: unsafe extern "C" fn(
        device: *mut c_void,
        now: u64,
        event: *const RepriseEvent,
        effects: *const RepriseEffects,
    ) -> i32,
    /// Writes the device's whole state; 0 if that worked. The same state gives the same bytes.
    pub save: unsafe extern "C" fn(device: *const c_void, out: *const RepriseSink) -> i32,
    /// How many bytes of host input the device can take on `port` now, as `host_want` last said.
    pub want: unsafe extern "C" fn(device: *const c_void, port: u32) -> u64,
    /// Writes the device's state as JSON text, for people; 0 if that worked. Nothing reads it back. May be null; a table that ends before this field is
    /// good as well.
    pub describe: Option<unsafe extern "C" fn(device: *const c_void, out: *const RepriseSink) -> i32>,
}

/// The type of the function `reprise_plugin`.
pub type ReprisePluginFn = unsafe extern "C" fn() -> *const RepriseVtable;
