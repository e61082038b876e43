//! A map of compiled code for `perf`.

use reprise_arm::ir::Block;
use std::fs::File;
use std::io::{BufWriter, Result, Write};

/// The map: a line a block.
pub(crate) struct PerfMap(BufWriter<File>);

impl PerfMap {
    /// Makes the file where `perf` looks for it.
    pub(crate) fn new() -> Result<Self> {
        let path = format!("/tmp/perf-{}.map", std::process::id());
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Adds a block; a line that can't be written is lost.
    pub(crate) fn add(&mut self, entry: u64, len: usize, block: &Block) {
        let _ = writeln!(self.0, "{entry:x} {len:x} guest_{:08x}_{}", block.pc, block.insns.len());
        let _ = self.0.flush();
    }
}
