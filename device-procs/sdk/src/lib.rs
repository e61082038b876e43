//! The device SDK of Reprise.
//!
//! A device is a pure step function: the same state and the same events give the same state and the same effects. It has no
//! clock, no thread, no file and no randomness; guest time comes in with each event. A device implements [`Device`], describes
//! its registers with a [`spec::PluginSpec`], and is made into a plugin (a shared object) by [`export_device!`].
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the trait, its events and effects |
//! | [`bus`] | accesses of any size to 32-bit registers |
//! | [`screen`] | what a display says of its screen, and how its pixels are read |
//! | [`spec`] | the static description of a device: registers and how they are accessed, pins, ports |
//! | [`describe`] | a saved state as JSON text, for people |
//! | [`dma`] | how vectored DMA is laid out in a channel's arena |
//! | [`abi`] | the C ABI between a plugin and its host, from which the C header is generated |
//! | [`glue`] | a Rust [`Device`] behind that ABI |
//! | [`host`] | the other side: a plugin as its host sees it, with every value checked |
//! | [`conformance`] | the tests that every plugin must pass |
//! | [`hostile`] | a guest and a host that do what a fuzzer's bytes say |

pub mod abi;
pub mod bus;
pub mod conformance;
pub mod describe;
pub mod device;
pub mod dma;
pub mod glue;
pub mod host;
pub mod hostile;
pub mod screen;
pub mod spec;

pub use device::{ConfigError, Device, Effects, Event, RestoreError, VTime};
pub use serde;

/// The plugin guide: its example is compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/plugins.md")]
struct PluginGuide;
