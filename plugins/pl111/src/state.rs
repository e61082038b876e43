//! The saved state.

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::spec::{BASE_MASK, CURSOR_MASKS, TIMING0_MASK, TIMING2_MASK, TIMING3_MASK, control, int, reg};

/// The saved state; a variant for each version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum State {
    /// The first.
    V1(Box<StateV1>),
}

/// Words of the palette, two colours each.
pub(crate) const PALETTE_WORDS: usize = ((reg::PALETTE_END - reg::PALETTE) / 4) as usize;
/// Words of the cursor's image.
pub(crate) const IMAGE_WORDS: usize = ((reg::CURSOR_IMAGE_END - reg::CURSOR_IMAGE) / 4) as usize;

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateV1 {
    pub(crate) timing: [u32; 4],
    pub(crate) upbase: u32,
    pub(crate) lpbase: u32,
    pub(crate) control: u32,
    pub(crate) imsc: u8,
    /// Interrupts that have come until `seen`.
    pub(crate) ris: u8,
    /// Up to here (included) the frame's events were looked at.
    pub(crate) seen: VTime,
    /// When the first frame began, since the controller was switched on or its timing changed.
    pub(crate) began: VTime,
    pub(crate) palette: Vec<u32>,
    /// PL111: the cursor, which is stored and not shown.
    pub(crate) cursor: Cursor,
}

/// The registers of the hardware cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub(crate) image: Vec<u32>,
    pub(crate) controls: [u32; 9],
}

impl StateV1 {
    pub(crate) fn new() -> Self {
        Self {
            timing: [0; 4],
            upbase: 0,
            lpbase: 0,
            control: 0,
            imsc: 0,
            ris: 0,
            seen: VTime(0),
            began: VTime(0),
            palette: vec![0; PALETTE_WORDS],
            cursor: Cursor { image: vec![0; IMAGE_WORDS], controls: [0; 9] },
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let Self { timing, upbase, lpbase, control, imsc, ris, seen, began, palette, cursor } = self;
        let masks = [TIMING0_MASK, u32::MAX, TIMING2_MASK, TIMING3_MASK];
        RestoreError::check(timing.iter().zip(masks).all(|(t, mask)| t & !mask == 0), "a timing register")?;
        RestoreError::check((upbase | lpbase) & !BASE_MASK == 0, "a base address")?;
        RestoreError::check(control & !control::MASK == 0, "LCDControl")?;
        RestoreError::check(imsc & !int::MASK == 0 && ris & !(int::LNBU | int::VCOMP) == 0, "an interrupt")?;
        RestoreError::check(began <= seen, "a frame that begins in the future")?;
        RestoreError::check(palette.len() == PALETTE_WORDS, "the palette's length")?;
        let controls = cursor.controls.iter().zip(CURSOR_MASKS).all(|(c, mask)| c & !mask == 0);
        RestoreError::check(controls && cursor.image.len() == IMAGE_WORDS, "the cursor")
    }
}
