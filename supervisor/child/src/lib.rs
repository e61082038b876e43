//! What every child process of a machine shares: the control socket and its messages, the start-up, the sandbox.
//!
//! A child's `main` is:
//!
//! ```no_run
//! use reprise_child::control::{Start, ToChild};
//!
//! fn main() -> std::process::ExitCode {
//!     reprise_child::run("device-proc", |mut child| {
//!         let Start::Device(start) = child.start.clone() else { anyhow::bail!("this is device-proc") };
//!         // attach the channel's segment, then:
//!         reprise_child::sandbox::enter(reprise_child::sandbox::Stage::Attached, &child.policy())?;
//!         // load the plugin, then:
//!         reprise_child::sandbox::enter(reprise_child::sandbox::Stage::Loaded, &child.policy())?;
//!         # let (spec, plugin) = (Vec::new(), None);
//!         child.control.ready(spec, plugin)?;
//!         loop {
//!             match child.control.receive()? {
//!                 ToChild::Exit => return Ok(()),
//!                 _ => { /* Go, Stop, Save ... */ }
//!             }
//!         }
//!     })
//! }
//! ```

pub mod control;
pub mod sandbox;
mod socket;
mod startup;
mod syscalls;

pub use socket::{CONTROL_FD, Control, ControlError, MAX_MESSAGE, Peer, pair};
pub use startup::{Child, ConfigFault, PluginFault, run};
pub use syscalls::{Syscall, syscall_name};
