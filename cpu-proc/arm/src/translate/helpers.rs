//! Pure helpers of the integer instruction set.

use crate::ir::Helper;

/// Group 0 of [`crate::ir::HELPERS`].
pub const HELPERS: &[Helper] = &[];
