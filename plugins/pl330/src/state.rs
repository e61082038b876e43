//! The DMA-330's saved state.

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::spec::{CHANNELS, csr, fault};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// Version 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    /// Events that are interrupts.
    pub(crate) inten: u32,
    /// Events that were signalled: interrupts, and those that a thread could wait for.
    pub(crate) signalled: u32,
    /// FTRD.
    pub(crate) manager: u32,
    /// FTRn; not 0 while the channel has a fault.
    pub(crate) faults: [u32; CHANNELS],
    /// CSRn.
    pub(crate) status: [u32; CHANNELS],
    /// CPCn.
    pub(crate) pc: [u32; CHANNELS],
    /// DBGINST0 and DBGINST1.
    pub(crate) debug: [u32; 2],
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self {
            inten: 0,
            signalled: 0,
            manager: 0,
            faults: [0; CHANNELS],
            status: [0; CHANNELS],
            pc: [0; CHANNELS],
            debug: [0; 2],
        }
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        RestoreError::check(self.signalled & !cfg.event_mask() == 0, "an event that there is not")?;
        let manager = fault::DBG_INSTR | fault::UNDEF_INSTR | fault::OPERAND_INVALID;
        RestoreError::check(self.manager & !manager == 0, "FTRD")?;
        for (n, (&fault, &status)) in self.faults.iter().zip(&self.status).enumerate() {
            RestoreError::check(n < cfg.channels.into() || fault == 0, "a fault of a channel that there is not")?;
            let states = if fault == 0 { [0, 0] } else { [csr::FAULTING, csr::FAULTING | csr::CNS] };
            RestoreError::check(states.contains(&status), "CSR")?;
        }
        Ok(())
    }
}
