//! Linear passes over a block's micro-ops.

use super::Block;

/// Runs all passes.
pub fn optimize(_block: &mut Block) {}
