//! The CPU process of a machine.
fn main() {}
