//! What the tests of this crate share: a host made of memory, a guest that is a whole TCP/IP stack, and a simulated clock.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod host;
pub(crate) mod hostile;
pub(crate) mod raw;
pub(crate) mod world;
