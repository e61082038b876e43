//! What the project's chores are made of; the whole-machine tests use it too.

pub mod cpio;
pub mod guest;
pub mod hello;
pub mod paths;
