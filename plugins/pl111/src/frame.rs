//! How long lines and frames take, and what of a frame is when.

use reprise_device::screen::Frame;

/// The timing of frames, as the timing registers have it (TRM 3.3.2 to 3.3.4).
pub(crate) fn of(timing: &[u32; 4], clock_hz: u32, divided: bool) -> Frame {
    let field = |n: usize, at: u32, mask: u32| u64::from(timing[n] >> at & mask);
    let pixels = 16 * (field(0, 2, 0x3f) + 1) + field(0, 8, 0xff) + field(0, 16, 0xff) + field(0, 24, 0xff) + 3;
    // PCD, in two parts: CLCP is CLCDCLK / (PCD + 2).
    let divisor = match divided {
        true => (field(2, 27, 0x1f) << 5 | field(2, 0, 0x1f)) + 2,
        false => 1,
    };
    Frame {
        line_ns: (pixels * divisor * 1_000_000_000 / u64::from(clock_hz)).max(1),
        sync: field(1, 10, 0x3f) + 1,
        back: field(1, 24, 0xff),
        active: field(1, 0, 0x3ff) + 1,
        front: field(1, 16, 0xff),
    }
}

/// When in a frame the vertical compare interrupt comes: at the start of synchronisation, back porch, picture or front porch.
pub(crate) fn compare_ns(frame: &Frame, compare: u8) -> u64 {
    let lines = [0, frame.sync, frame.sync + frame.back, frame.sync + frame.back + frame.active];
    lines[usize::from(compare & 3)] * frame.line_ns
}
