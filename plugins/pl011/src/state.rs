//! The PL011's saved state.

use std::collections::VecDeque;

use reprise_device::RestoreError;
use serde::{Deserialize, Serialize};

use crate::spec::{Cr, Int, input};
use crate::{Config, Modem, WIRE};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// Version 1. Registers are named as in the manual, without their prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) rsr: u32,
    pub(crate) ilpr: u32,
    pub(crate) ibrd: u32,
    pub(crate) fbrd: u32,
    pub(crate) lcrh: u32,
    pub(crate) cr: u32,
    pub(crate) ifls: u32,
    pub(crate) imsc: u32,
    pub(crate) ris: u32,
    pub(crate) dmacr: u32,
    /// Active modem inputs, a bit for each input pin.
    pub(crate) modem: u32,
    /// The receive FIFO, in the layout of UARTDR.
    pub(crate) rx: VecDeque<u16>,
    /// Characters on the line, in the layout of UARTDR.
    pub(crate) wire: VecDeque<u16>,
    /// Characters sent in loopback that have not arrived yet.
    pub(crate) looped: VecDeque<u8>,
    /// The next character that is received carries the overrun bit.
    pub(crate) overrun: bool,
    /// The receiver was just enabled: nothing arrives before the timer.
    pub(crate) starting: bool,
    /// The current break has arrived in loopback.
    pub(crate) break_sent: bool,
}

impl StateV1 {
    pub(crate) fn new(modem: &Modem) -> Self {
        let pins = [(input::CTS, modem.cts), (input::DSR, modem.dsr), (input::DCD, modem.dcd), (input::RI, modem.ri)];
        Self {
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcrh: 0,
            cr: Cr::RESET,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
            modem: pins.iter().fold(0, |all, &(pin, active)| all | u32::from(active) << pin),
            rx: VecDeque::new(),
            wire: VecDeque::new(),
            looped: VecDeque::new(),
            overrun: false,
            starting: false,
            break_sent: false,
        }
    }

    pub(crate) fn fifos_on(&self) -> bool {
        self.lcrh & 1 << 4 != 0
    }

    pub(crate) fn check(&self, cfg: &Config) -> Result<(), RestoreError> {
        let fits = |value: u32, mask: u32, what| RestoreError::check(value & !mask == 0, what);
        fits(self.rsr, 0xf, "UARTRSR")?;
        fits(self.ilpr, 0xff, "UARTILPR")?;
        fits(self.ibrd, 0xffff, "UARTIBRD")?;
        fits(self.fbrd, 0x3f, "UARTFBRD")?;
        fits(self.lcrh, 0xff, "UARTLCR_H")?;
        fits(self.cr, Cr::MASK, "UARTCR")?;
        fits(self.ifls, 0x3f, "UARTIFLS")?;
        fits(self.imsc, Int::ALL, "UARTIMSC")?;
        fits(self.ris, Int::ALL, "UARTRIS")?;
        fits(self.dmacr, 7, "UARTDMACR")?;
        fits(self.modem, 0xf, "modem inputs")?;
        let depth = if self.fifos_on() { cfg.fifo as usize } else { 1 };
        RestoreError::check(self.rx.len() <= depth, "more in the receive FIFO than it holds")?;
        // What returns from the FIFO to the line may exceed its usual limit.
        RestoreError::check(self.wire.len() <= WIRE + cfg.fifo as usize, "more on the line than it holds")?;
        RestoreError::check(self.looped.len() <= cfg.fifo as usize, "more in the transmit FIFO than it holds")?;
        RestoreError::check(self.rx.iter().chain(&self.wire).all(|c| c >> 12 == 0), "a character of more than 12 bits")
    }
}
