//! What a display device says of its screen: where the picture lies in guest memory and how its bytes are pixels.
//!
//! A display has a port 0 of bytes, over which these messages go whenever something changes; never the pixels themselves, which whoever shows
//! the screen reads out of guest memory. Each begins with a kind (u8), a zero and the length of what follows (u16); all numbers are little-endian.
//!
//! | kind | what follows |
//! |---|---|
//! | 1, mode | width, height (u16), bytes from line to line (u32), address of the first line (u64), bits of a pixel (u8), flags (u8: 1 off, 2 pixels of a word in reverse order, 4 pixels of a byte in reverse order), red, green, blue: position of the lowest bit and number of bits (u8 each) |
//! | 2, colours | index of the first one (u16), then red, green, blue (u8) of each |
//!
//! A screen that was never described is off and has no size.

use crate::ConfigError;
use crate::device::{Effects, VTime};

pub mod testing;

/// Most pixels of a line, and lines.
pub const MAX_SIDE: u16 = 4096;
/// Most colours of a palette.
pub const MAX_COLOURS: usize = 256;

const MODE: u8 = 1;
const COLOURS: u8 = 2;
const HEADER: usize = 4;
const MODE_BYTES: usize = 24;
const OFF: u8 = 1;
const WORD_REVERSED: u8 = 2;
const BYTE_REVERSED: u8 = 4;

/// Checks `clock_hz` of a display's config, its pixel clock: 1 MHz to 1 GHz.
///
/// # Errors
/// It is another.
pub fn check_clock(hz: u32) -> Result<(), ConfigError> {
    match hz {
        1_000_000..=1_000_000_000 => Ok(()),
        hz => Err(ConfigError::new(format!("clock_hz: {hz} is not in 1_000_000..=1_000_000_000"))),
    }
}

/// Where a colour stands in a pixel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Field {
    /// Its lowest bit.
    pub shift: u8,
    /// How many bits it has, 0 to 8.
    pub bits: u8,
}

impl Field {
    /// The colour of a pixel, spread over 0 to 255.
    fn of(self, pixel: u32) -> u8 {
        match self.bits {
            0 => 0,
            bits => {
                let max = (1_u32 << bits) - 1;
                ((pixel >> self.shift & max) * 255 / max) as u8
            }
        }
    }
}

/// Where the picture is and how to read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// Pixels of a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Guest physical address of the first line.
    pub base: u64,
    /// Bits of a pixel: 1, 2, 4, 8, 16, 24 or 32. One of up to 8 is an index of the palette, unless `rgb` says where its colours are.
    pub bits: u8,
    /// Nothing is shown.
    pub off: bool,
    /// The first pixel of a 32-bit word (1 to 16 bits a pixel: its first byte or half-word) stands in its highest bits.
    pub word_reversed: bool,
    /// The first pixel of a byte stands in its highest bits.
    pub byte_reversed: bool,
    /// Red, green and blue, if the pixel itself has them.
    pub rgb: [Field; 3],
}

impl Mode {
    /// As a message.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER + MODE_BYTES] {
        let flag = |set: bool, flag: u8| u8::from(set) * flag;
        let flags =
            flag(self.off, OFF) | flag(self.word_reversed, WORD_REVERSED) | flag(self.byte_reversed, BYTE_REVERSED);
        let mut out = [0; HEADER + MODE_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&[MODE, 0]);
        put(&(MODE_BYTES as u16).to_le_bytes());
        put(&self.width.to_le_bytes());
        put(&self.height.to_le_bytes());
        put(&self.pitch.to_le_bytes());
        put(&self.base.to_le_bytes());
        put(&[self.bits, flags]);
        self.rgb.iter().for_each(|f| put(&[f.shift, f.bits]));
        out
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let body: &[u8; MODE_BYTES] = body.try_into().ok()?;
        let half = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
        let field = |at: usize| Field { shift: body[at], bits: body[at + 1] };
        let mode = Self {
            width: half(0),
            height: half(2),
            pitch: u32::from(half(4)) | u32::from(half(6)) << 16,
            base: u64::from_le_bytes(body[8..16].try_into().expect("8 bytes")),
            bits: body[16],
            off: body[17] & OFF != 0,
            word_reversed: body[17] & WORD_REVERSED != 0,
            byte_reversed: body[17] & BYTE_REVERSED != 0,
            rgb: [field(18), field(20), field(22)],
        };
        mode.possible().then_some(mode)
    }

    fn possible(&self) -> bool {
        let field = |f: &Field| f.bits <= 8 && f.shift + f.bits <= 32;
        let sides = self.width <= MAX_SIDE && self.height <= MAX_SIDE;
        let shifts = self.rgb.iter().all(|f| f.shift <= 32);
        sides && matches!(self.bits, 1 | 2 | 4 | 8 | 16 | 24 | 32) && shifts && self.rgb.iter().all(field)
    }

    /// Whether pixels are indices of the palette.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.bits <= 8 && self.rgb.iter().all(|f| f.bits == 0)
    }

    /// Bytes of a line that hold its pixels, in whole words.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        (usize::from(self.width) * usize::from(self.bits)).div_ceil(32) * 4
    }
}

/// How frames go by: lines of a vertical synchronisation, a back porch, the picture and a front porch, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// How long a line takes, in ns; not 0.
    pub line_ns: u64,
    /// Lines of the synchronisation, with which a frame begins.
    pub sync: u64,
    /// Lines of the back porch.
    pub back: u64,
    /// Lines of the picture; not 0.
    pub active: u64,
    /// Lines of the front porch.
    pub front: u64,
}

impl Frame {
    fn lines(&self) -> u64 {
        self.sync + self.back + self.active + self.front
    }

    /// When in a frame the picture ends, in ns.
    #[must_use]
    pub fn picture_end(&self) -> u64 {
        (self.sync + self.back + self.active) * self.line_ns
    }

    /// The first instant after `after` that lies `at` ns behind a frame's beginning, if frames began at `began`. The very first beginning is no
    /// event: nothing was shown before.
    #[must_use]
    pub fn next(&self, began: VTime, at: u64, after: VTime) -> VTime {
        let length = self.lines() * self.line_ns;
        let first = if at == 0 { length } else { at };
        let past = after.since(began);
        if past < first {
            return began.after(first);
        }
        began.after(first.saturating_add(((past - first) / length + 1).saturating_mul(length)))
    }

    /// The line of the picture that is shown `ns` after a frame's beginning; the first one outside of it.
    #[must_use]
    pub fn line(&self, ns: u64) -> u32 {
        let line = ns / self.line_ns % self.lines();
        let first = self.sync + self.back;
        if (first..first + self.active).contains(&line) { (line - first) as u32 } else { 0 }
    }
}

/// Says how the screen is now, where it was something else before; `None` is off. `colours` are wanted only if pixels have become indices.
pub fn describe(
    fx: &mut Effects<'_>,
    port: u32,
    before: Option<Mode>,
    now: Option<Mode>,
    colours: impl Fn() -> Vec<[u8; 3]>,
) {
    match (before, now) {
        _ if before == now => {}
        (_, Some(mode)) => {
            fx.host_out(port, &mode.to_bytes());
            if mode.is_indexed() && !before.is_some_and(|b| b.is_indexed()) {
                fx.host_out(port, &colours_message(0, &colours()));
            }
        }
        (Some(mode), None) => fx.host_out(port, &Mode { off: true, ..mode }.to_bytes()),
        (None, None) => {}
    }
}

/// Some colours of the palette as a message.
#[must_use]
pub fn colours_message(first: u16, colours: &[[u8; 3]]) -> Vec<u8> {
    let length = (2 + colours.len() * 3) as u16;
    let mut out = vec![COLOURS, 0];
    out.extend(length.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(colours.iter().flatten());
    out
}

/// A screen as its device has described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// Where the picture is and how to read it.
    pub mode: Mode,
    palette: Vec<[u8; 3]>,
    /// The beginning of a message.
    part: Vec<u8>,
}

impl Default for Screen {
    fn default() -> Self {
        let mode = Mode { off: true, bits: 32, ..Mode::default() };
        Self { mode, palette: vec![[0; 3]; MAX_COLOURS], part: Vec::new() }
    }
}

impl Screen {
    /// Takes what came from the device, however it was cut; true if something has changed. Nonsense is left out: the bytes are an untrusted peer's.
    pub fn feed(&mut self, data: &[u8]) -> bool {
        let before = (self.mode, self.palette.clone());
        self.part.extend_from_slice(data);
        let bytes = std::mem::take(&mut self.part);
        let mut rest = bytes.as_slice();
        while let Some((head, tail)) = rest.split_at_checked(HEADER) {
            let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let Some((body, next)) = tail.split_at_checked(length) else { break };
            self.message(head[0], body);
            rest = next;
        }
        self.part = rest.to_vec();
        before != (self.mode, self.palette.clone())
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.split_at_checked(2)) {
            (MODE, _) => {
                if let Some(mode) = Mode::parse(body) {
                    self.mode = mode;
                }
            }
            (COLOURS, Some((first, colours))) => {
                let first = usize::from(u16::from_le_bytes([first[0], first[1]]));
                for (i, rgb) in colours.chunks_exact(3).enumerate() {
                    if let Some(colour) = self.palette.get_mut(first + i) {
                        *colour = [rgb[0], rgb[1], rgb[2]];
                    }
                }
            }
            _ => {}
        }
    }

    /// All of it as messages, for another [`Screen`] to be fed with.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.mode.to_bytes().to_vec();
        if self.mode.is_indexed() {
            out.extend(colours_message(0, &self.palette));
        }
        out
    }

    /// The pixels of a line as red, green and blue, added to `out`, out of its bytes in guest memory, of which there are [`Mode::line_bytes`].
    pub fn line(&self, bytes: &[u8], out: &mut Vec<[u8; 3]>) {
        let m = &self.mode;
        let width = usize::from(m.width);
        if m.bits == 24 {
            let pixel = |p: &[u8]| self.colour(u32::from_le_bytes([p[0], p[1], p[2], 0]));
            out.extend(bytes.chunks_exact(3).take(width).map(pixel));
            return;
        }
        let bits = usize::from(m.bits);
        let per_word = 32 / bits;
        let mask = u32::MAX >> (32 - bits);
        for (n, word) in bytes.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes(word.try_into().expect("4 bytes"));
            for i in 0..per_word.min(width.saturating_sub(n * per_word)) {
                out.push(self.colour(word >> self.place(i, bits) & mask));
            }
        }
    }

    /// Where pixel `i` of a word has its lowest bit.
    fn place(&self, i: usize, bits: usize) -> usize {
        let m = &self.mode;
        if bits >= 8 {
            let last = 32 / bits - 1;
            return bits * if m.word_reversed { last - i } else { i };
        }
        let per_byte = 8 / bits;
        let (byte, inside) = (i / per_byte, i % per_byte);
        let byte = if m.word_reversed { 3 - byte } else { byte };
        byte * 8 + bits * if m.byte_reversed { per_byte - 1 - inside } else { inside }
    }

    fn colour(&self, pixel: u32) -> [u8; 3] {
        match self.mode.is_indexed() {
            true => self.palette[pixel as usize],
            false => self.mode.rgb.map(|f| f.of(pixel)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(mode: Mode) -> Screen {
        let mut screen = Screen::default();
        assert!(screen.feed(&mode.to_bytes()));
        assert_eq!(screen.mode, mode);
        screen
    }

    fn line(screen: &Screen, bytes: &[u8]) -> Vec<[u8; 3]> {
        let mut out = Vec::new();
        screen.line(bytes, &mut out);
        out
    }

    const RGB565: [Field; 3] = [Field { shift: 0, bits: 5 }, Field { shift: 5, bits: 6 }, Field { shift: 11, bits: 5 }];

    #[test]
    fn direct_colours() {
        let mode = Mode { width: 3, height: 1, pitch: 8, base: 0x8000_0000, bits: 16, rgb: RGB565, ..Mode::default() };
        let bytes = [0x1f, 0x00, 0xe0, 0x07, 0x00, 0xf8, 0xff, 0xff];
        assert_eq!(mode.line_bytes(), 8);
        assert_eq!(line(&screen(mode), &bytes), [[255, 0, 0], [0, 255, 0], [0, 0, 255]]);
        let reversed = Mode { word_reversed: true, ..mode };
        assert_eq!(line(&screen(reversed), &bytes), [[0, 255, 0], [255, 0, 0], [255, 255, 255]]);
        let rgb = [16, 8, 0].map(|shift| Field { shift, bits: 8 });
        let mode = Mode { bits: 32, rgb, width: 1, ..mode };
        assert_eq!(line(&screen(mode), &[3, 2, 1, 9]), [[1, 2, 3]]);
        let rgb = [(5, 3), (2, 3), (0, 2)].map(|(shift, bits)| Field { shift, bits });
        let mode8 = Mode { bits: 8, rgb, width: 2, ..mode };
        assert_eq!(line(&screen(mode8), &[0xe0, 0x1f, 0, 0]), [[255, 0, 0], [0, 255, 255]]);
        let mode = Mode { bits: 24, width: 2, ..mode };
        assert_eq!(
            (mode.line_bytes(), line(&screen(mode), &[3, 2, 1, 6, 5, 4, 0, 0])),
            (8, vec![[1, 2, 3], [4, 5, 6]])
        );
    }

    #[test]
    fn indices_in_both_orders() {
        let mode = Mode { width: 8, height: 1, pitch: 4, bits: 4, ..Mode::default() };
        let mut screen = screen(mode);
        let colours: Vec<[u8; 3]> = (0..16).map(|n| [n, 0, 100 + n]).collect();
        // In two parts, cut in the middle.
        let message = colours_message(0, &colours);
        assert!(!screen.feed(&message[..9]));
        assert!(screen.feed(&message[9..]));
        let reds = |s: &Screen| line(s, &[0x21, 0x43, 0x65, 0x87]).iter().map(|c| c[0]).collect::<Vec<_>>();
        assert_eq!(reds(&screen), [1, 2, 3, 4, 5, 6, 7, 8]);
        screen.mode.byte_reversed = true;
        assert_eq!(reds(&screen), [2, 1, 4, 3, 6, 5, 8, 7]);
        screen.mode.word_reversed = true;
        assert_eq!(reds(&screen), [8, 7, 6, 5, 4, 3, 2, 1]);
        let mut copy = Screen::default();
        copy.feed(&screen.to_bytes());
        assert_eq!(copy, screen);
        screen.mode = Mode { bits: 1, width: 9, word_reversed: false, byte_reversed: false, ..screen.mode };
        assert_eq!(reds(&screen), [1, 0, 0, 0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut screen = Screen::default();
        let good = Mode { width: 1, height: 1, pitch: 4, bits: 32, ..Mode::default() };
        let wide = Mode { width: MAX_SIDE + 1, ..good };
        let field = Mode { rgb: [Field { shift: 255, bits: 8 }; 3], ..good };
        for bad in [wide, Mode { bits: 7, ..good }, field] {
            assert!(!screen.feed(&bad.to_bytes()));
        }
        assert!(!screen.feed(&[9, 0, 1, 0, 7]));
        assert!(!screen.feed(&colours_message(250, &[[0; 3]; 90])));
        assert!(!screen.feed(&[MODE, 0, 0, 0, COLOURS, 0, 1, 0, 7]));
        assert!(screen.feed(&good.to_bytes()));
    }
}
