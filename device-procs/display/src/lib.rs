//! Screens, keyboards and mice as people have them: what a screen shows as a picture, the server's side of the remote framebuffer protocol, and keys.
//!
//! | module | what |
//! |---|---|
//! | [`picture`] | a screen's pixels, out of guest memory, and as a PNG file |
//! | [`rfb`] | one viewer's connection: bytes in and out, no socket |
//! | [`keys`] | keys by name, as text, as a viewer's key symbols; events for the guest's keyboard and mouse |
//!
//! All of it is pure: no thread, clock, socket or file.

pub mod keys;
pub mod picture;
pub mod rfb;
