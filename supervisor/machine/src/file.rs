//! The machine file as it is written. What can be wrong in itself is kept as a raw value, so that an error can point at it.

use std::path::PathBuf;

use ron::value::RawValue;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Machine")]
pub(crate) struct File<'a> {
    #[serde(borrow)]
    pub(crate) name: &'a RawValue,
    #[serde(borrow)]
    pub(crate) cpu: CpuFile<'a>,
    #[serde(borrow)]
    pub(crate) memory: MemoryFile<'a>,
    #[serde(borrow, default)]
    pub(crate) clock: Option<ClockFile<'a>>,
    #[serde(borrow)]
    pub(crate) gic: GicFile<'a>,
    #[serde(borrow, default)]
    pub(crate) l2: Option<L2File<'a>>,
    #[serde(borrow)]
    pub(crate) boot: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) devices: Vec<DeviceFile<'a>>,
    #[serde(borrow, default)]
    pub(crate) bus: Vec<RangeFile<'a>>,
    #[serde(borrow, default)]
    pub(crate) limits: Option<LimitsFile<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Cpu")]
pub(crate) struct CpuFile<'a> {
    #[serde(borrow)]
    pub(crate) model: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) count: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) quantum: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) periphbase: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) timer_hz: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) pmu_spi: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) pmu_ppi: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) security: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) psci: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Memory")]
pub(crate) struct MemoryFile<'a> {
    #[serde(borrow)]
    pub(crate) base: &'a RawValue,
    #[serde(borrow)]
    pub(crate) size: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) aliases: Vec<AliasFile<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Alias")]
pub(crate) struct AliasFile<'a> {
    #[serde(borrow)]
    pub(crate) at: &'a RawValue,
    #[serde(borrow)]
    pub(crate) size: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) offset: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Clock")]
pub(crate) struct ClockFile<'a> {
    #[serde(borrow, default)]
    pub(crate) mode: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) ns_per_insn: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Gic")]
pub(crate) struct GicFile<'a> {
    #[serde(borrow)]
    pub(crate) dist: &'a RawValue,
    #[serde(borrow)]
    pub(crate) cpu: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) cpu_size: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) spis: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) interfaces: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "L2")]
pub(crate) struct L2File<'a> {
    #[serde(borrow)]
    pub(crate) at: &'a RawValue,
    #[serde(borrow)]
    pub(crate) way_size: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) ways: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename = "Boot", rename_all = "snake_case")]
pub(crate) enum BootFile<'a> {
    #[serde(borrow)]
    Linux(LinuxFile<'a>),
    #[serde(borrow)]
    Image(ImageFile<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "linux")]
pub(crate) struct LinuxFile<'a> {
    #[serde(borrow, default)]
    pub(crate) kernel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) dtb: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) initrd: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) append: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) machine_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) release: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "image")]
pub(crate) struct ImageFile<'a> {
    #[serde(borrow)]
    pub(crate) file: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) load: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) entry: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Device")]
pub(crate) struct DeviceFile<'a> {
    #[serde(borrow)]
    pub(crate) name: &'a RawValue,
    #[serde(borrow)]
    pub(crate) plugin: &'a RawValue,
    #[serde(borrow)]
    pub(crate) at: &'a RawValue,
    #[serde(borrow)]
    pub(crate) size: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) config: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) lines: LinesFile<'a>,
    #[serde(borrow, default)]
    pub(crate) backend: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) restart: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) dma: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) disk: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) panel: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Disk")]
pub(crate) struct DiskFile<'a> {
    #[serde(borrow)]
    pub(crate) file: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) format: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) snapshot: bool,
    #[serde(default)]
    pub(crate) readonly: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Range")]
pub(crate) struct RangeFile<'a> {
    #[serde(borrow)]
    pub(crate) at: &'a RawValue,
    #[serde(borrow)]
    pub(crate) size: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) words: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) every: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Limits")]
pub(crate) struct LimitsFile<'a> {
    #[serde(borrow, default)]
    pub(crate) request_slots: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) event_slots: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) arena: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) reply_timeout_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) anchor_every: Option<&'a RawValue>,
}

/// `lines: { "irq": spi(5), 1: reset }`, in the file's order. Keys that stand twice were refused before.
#[derive(Default)]
pub(crate) struct LinesFile<'a>(pub(crate) Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for LinesFile<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Lines;
        impl<'de> Visitor<'de> for Lines {
            type Value = LinesFile<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of pins to what they drive, such as {\"irq\": spi(5)}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut lines = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    lines.push(entry);
                }
                Ok(LinesFile(lines))
            }
        }
        d.deserialize_map(Lines)
    }
}

/// A pin as written: a name or a number.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum PinFile {
    Number(u16),
    Name(String),
}

/// What a pin drives, as written: `spi(5)`, `poweroff`, `reset`, `device("name", "pin")`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetFile {
    Spi(u32),
    Poweroff,
    Reset,
    Device(String, PinFile),
}

/// A size as written: a number of bytes, or text with a suffix such as "512M".
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum SizeFile {
    Bytes(u64),
    Text(String),
}

/// A path as written.
pub(crate) type PathText = PathBuf;
