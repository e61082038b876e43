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
pub mod operator;
pub mod sandbox;
mod socket;
mod startup;
mod syscalls;

pub use socket::{CONTROL_FD, Control, ControlError, MAX_MESSAGE, Peer, pair};
pub use startup::{Child, ConfigFault, PluginFault, PortFault, run};
pub use syscalls::{Syscall, syscall_name};

/// Where a user's machines keep their lock files and sockets, best first: `$XDG_RUNTIME_DIR/reprise`, and `reprise-<uid>` in the temp folder.
#[must_use]
pub fn runtime_folders() -> Vec<std::path::PathBuf> {
    use std::path::PathBuf;
    let uid = nix::unistd::getuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
    let temp = std::env::temp_dir().join(format!("reprise-{uid}"));
    runtime.map(|r| r.join("reprise")).into_iter().chain([temp]).collect()
}
