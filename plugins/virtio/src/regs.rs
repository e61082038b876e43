//! The registers of the memory-mapped transport (VIRTIO 1.2, 4.2.2; of its first version, 4.2.4).

use reprise_device::spec::{PluginSpec, Register};

/// Register offsets.
pub mod reg {
    /// "virt".
    pub const MAGIC: u64 = 0x000;
    /// 2, or 1 of the legacy interface.
    pub const VERSION: u64 = 0x004;
    /// The device type.
    pub const DEVICE_ID: u64 = 0x008;
    /// Whose device it is.
    pub const VENDOR_ID: u64 = 0x00c;
    /// 32 features that the device offers.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Which 32.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// 32 features that the driver takes.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Which 32.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Legacy: bytes of a page of QueuePFN.
    pub const GUEST_PAGE_SIZE: u64 = 0x028;
    /// Which queue the following are about.
    pub const QUEUE_SEL: u64 = 0x030;
    /// Most entries of the queue; 0 if there is none.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// Its entries.
    pub const QUEUE_NUM: u64 = 0x038;
    /// Legacy: alignment of its used ring.
    pub const QUEUE_ALIGN: u64 = 0x03c;
    /// Legacy: its first page.
    pub const QUEUE_PFN: u64 = 0x040;
    /// It is in use.
    pub const QUEUE_READY: u64 = 0x044;
    /// Which queue has something new.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// Why the line is high.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// What of that has been dealt with.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Device status (2.1).
    pub const STATUS: u64 = 0x070;
    /// Addresses of the queue's three parts, each in two halves.
    pub const QUEUE_DESC: u64 = 0x080;
    /// The available ring.
    pub const QUEUE_DRIVER: u64 = 0x090;
    /// The used ring.
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    /// Which shared memory region; there is none.
    pub const SHM_SEL: u64 = 0x0ac;
    /// Its length, which is all ones.
    pub const SHM_LEN: u64 = 0x0b0;
    /// Its base, likewise.
    pub const SHM_BASE: u64 = 0x0b8;
    /// Changes with the device-specific configuration.
    pub const CONFIG_GENERATION: u64 = 0x0fc;
}

/// Where the device-specific configuration begins.
pub const CONFIG: u64 = 0x100;
/// Bytes of address space, as device trees give such a device.
pub const WINDOW: u64 = 0x200;

/// Indices of the shadows.
pub(crate) mod shadow {
    pub(crate) const INTERRUPT_STATUS: u16 = 0;
    pub(crate) const STATUS: u16 = 1;
}

/// The output pin.
pub(crate) const IRQ: u32 = 0;

/// Bits of InterruptStatus.
pub mod interrupt {
    /// The device has used a buffer.
    pub const USED: u32 = 1;
    /// The configuration, or the device's own part of the status, has changed.
    pub const CONFIG: u32 = 1 << 1;
}

/// Bits of the device status (2.1).
pub mod status {
    /// A guest has seen the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// And has a driver for it.
    pub const DRIVER: u32 = 1 << 1;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 1 << 2;
    /// The features are agreed upon.
    pub const FEATURES_OK: u32 = 1 << 3;
    /// The device can't go on.
    pub const NEEDS_RESET: u32 = 1 << 6;
    /// The driver has given up.
    pub const FAILED: u32 = 1 << 7;
}

/// The transport's part of a device's spec.
///
/// `changes`: the device's configuration changes by itself.
pub(crate) fn spec(kind: &str, id: u32, legacy: bool, changes: bool) -> PluginSpec {
    let fixed = |name: &str, offset, value| Register::ro(name, offset, value, "4.2.2").constant();
    // What only sets something up has no effect until QueueReady or the status is written.
    let set = |name: &str, offset, section| Register::wo(name, offset, section).posted(&[]);
    let mut registers = vec![
        fixed("MagicValue", reg::MAGIC, u32::from_le_bytes(*b"virt").into()),
        fixed("Version", reg::VERSION, if legacy { 1 } else { 2 }),
        fixed("DeviceID", reg::DEVICE_ID, id.into()),
        fixed("VendorID", reg::VENDOR_ID, u32::from_le_bytes(*b"RPRS").into()),
        Register::ro("DeviceFeatures", reg::DEVICE_FEATURES, 0, "4.2.2"),
        set("DeviceFeaturesSel", reg::DEVICE_FEATURES_SEL, "4.2.2"),
        set("DriverFeatures", reg::DRIVER_FEATURES, "4.2.2"),
        set("DriverFeaturesSel", reg::DRIVER_FEATURES_SEL, "4.2.2"),
        set("QueueSel", reg::QUEUE_SEL, "4.2.2"),
        Register::ro("QueueNumMax", reg::QUEUE_NUM_MAX, 0, "4.2.2"),
        set("QueueNum", reg::QUEUE_NUM, "4.2.2"),
        Register::wo("QueueNotify", reg::QUEUE_NOTIFY, "4.2.2"),
        Register::ro("InterruptStatus", reg::INTERRUPT_STATUS, 0, "4.2.2").shadow(shadow::INTERRUPT_STATUS),
        Register::wo("InterruptACK", reg::INTERRUPT_ACK, "4.2.2"),
        Register::rw("Status", reg::STATUS, 0, "4.2.2").shadow(shadow::STATUS),
    ];
    if legacy {
        registers.extend([
            set("GuestPageSize", reg::GUEST_PAGE_SIZE, "4.2.4"),
            set("QueueAlign", reg::QUEUE_ALIGN, "4.2.4"),
            Register::rw("QueuePFN", reg::QUEUE_PFN, 0, "4.2.4"),
        ]);
    } else {
        registers.push(Register::rw("QueueReady", reg::QUEUE_READY, 0, "4.2.2"));
        for (name, offset) in
            [("QueueDesc", reg::QUEUE_DESC), ("QueueDriver", reg::QUEUE_DRIVER), ("QueueDevice", reg::QUEUE_DEVICE)]
        {
            registers.push(set(&format!("{name}Low"), offset, "4.2.2"));
            registers.push(set(&format!("{name}High"), offset + 4, "4.2.2"));
        }
        registers.push(set("SHMSel", reg::SHM_SEL, "4.2.2"));
        for (name, offset) in [("SHMLen", reg::SHM_LEN), ("SHMBase", reg::SHM_BASE)] {
            registers.push(fixed(&format!("{name}Low"), offset, 0xffff_ffff));
            registers.push(fixed(&format!("{name}High"), offset + 4, 0xffff_ffff));
        }
        registers.push(match changes {
            true => Register::ro("ConfigGeneration", reg::CONFIG_GENERATION, 0, "4.2.2"),
            false => fixed("ConfigGeneration", reg::CONFIG_GENERATION, 0),
        });
    }
    PluginSpec::new(kind, env!("CARGO_PKG_VERSION"), WINDOW)
        .registers(registers)
        .shadows(&[("InterruptStatus", 0), ("Status", 0)])
        .outputs(&["irq"])
}
