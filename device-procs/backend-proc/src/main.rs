//! `backend-proc`: what a device's host side does that a device-proc may not do, as it takes sockets. It is started by `supervisor`, never by hand.
//!
//! It plays a user-mode network, or shows the machine's screens.
//!
//! It makes what it needs, locks itself in, says that it is ready, and then works from one `epoll` loop: on what the supervisor says, on the
//! device's end of a pair of sockets, and on its own sockets. It holds no state that a guest could not lose: when it is killed and started again,
//! the guest's connections are gone, and nothing else.

mod display;
mod net;
mod sockets;

use std::process::ExitCode;

use reprise_child::control::{BackendRole, Start};

fn main() -> ExitCode {
    reprise_child::run("backend-proc", |child| {
        let Start::BackendProc(start) = child.start.clone() else {
            anyhow::bail!("this is backend-proc, not what it is started as")
        };
        match start.role {
            BackendRole::Net(start) => net::run(child, &start),
            BackendRole::Display(start) => display::run(child, &start),
        }
    })
}
