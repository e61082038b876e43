//! How long lines and frames take, and what of a frame is when.

use reprise_device::VTime;

/// The timing of frames, as the timing registers have it (TRM 3.3.2 to 3.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    line_ns: u64,
    sync: u64,
    back: u64,
    active: u64,
    front: u64,
}

impl Frame {
    pub(crate) fn new(timing: &[u32; 4], clock_hz: u32, divided: bool) -> Self {
        let field = |n: usize, at: u32, mask: u32| u64::from(timing[n] >> at & mask);
        let pixels = 16 * (field(0, 2, 0x3f) + 1) + field(0, 8, 0xff) + field(0, 16, 0xff) + field(0, 24, 0xff) + 3;
        // PCD, in two parts: CLCP is CLCDCLK / (PCD + 2).
        let divisor = match divided {
            true => (field(2, 27, 0x1f) << 5 | field(2, 0, 0x1f)) + 2,
            false => 1,
        };
        Self {
            line_ns: (pixels * divisor * 1_000_000_000 / u64::from(clock_hz)).max(1),
            sync: field(1, 10, 0x3f) + 1,
            back: field(1, 24, 0xff),
            active: field(1, 0, 0x3ff) + 1,
            front: field(1, 16, 0xff),
        }
    }

    fn lines(&self) -> u64 {
        self.sync + self.back + self.active + self.front
    }

    /// When in a frame the vertical compare interrupt comes: at the start of synchronisation, back porch, picture or front porch.
    pub(crate) fn compare_ns(&self, compare: u8) -> u64 {
        let lines = [0, self.sync, self.sync + self.back, self.sync + self.back + self.active];
        lines[usize::from(compare & 3)] * self.line_ns
    }

    /// The first instant after `after` that lies `at` ns behind a frame's beginning, if frames began at `began`. The very first beginning is no
    /// event: nothing was shown before.
    pub(crate) fn next(&self, began: VTime, at: u64, after: VTime) -> VTime {
        let length = self.lines() * self.line_ns;
        let first = if at == 0 { length } else { at };
        let past = after.since(began);
        if past < first {
            return began.after(first);
        }
        began.after(first.saturating_add(((past - first) / length + 1).saturating_mul(length)))
    }

    /// The line of the picture that is shown `ns` after a frame's beginning; the first one outside of it.
    pub(crate) fn line(&self, ns: u64) -> u32 {
        let line = ns / self.line_ns % self.lines();
        let first = self.sync + self.back;
        if (first..first + self.active).contains(&line) { (line - first) as u32 } else { 0 }
    }
}
