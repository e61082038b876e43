//! The debug registers of CP14 (ARM DDI 0406C part C), as far as software that runs on the core looks at them.

use serde::{Deserialize, Serialize};

/// State of the CP14 debug registers. Breakpoints and watchpoints can be read back but never match: halting debug is not modelled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Debug {
    /// DBGDSCR: the bits that software can write.
    pub dscr: u32,
    /// DBGVCR.
    pub vcr: u32,
    /// DBGBVR0-5.
    pub bvr: [u32; 6],
    /// DBGBCR0-5.
    pub bcr: [u32; 6],
    /// DBGBXVR of the two context-aware breakpoints.
    pub bxvr: [u32; 2],
    /// DBGWVR0-3.
    pub wvr: [u32; 4],
    /// DBGWCR0-3.
    pub wcr: [u32; 4],
    /// OS Lock is set.
    pub os_lock: bool,
    /// OS Double Lock is set.
    pub os_dlock: bool,
    /// DBGCLAIMSET/CLR.
    pub claim: u32,
    /// DBGPRCR.
    pub prcr: u32,
}
