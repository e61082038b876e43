//! A screen's pixels.

use reprise_device::screen::Screen;

/// Pixels of a screen, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a line.
    pub width: usize,
    /// Red, green and blue of each pixel.
    pub pixels: Vec<[u8; 3]>,
}

/// What a screen shows that has no size yet.
const NOTHING: (usize, usize) = (640, 480);

impl Picture {
    /// A black picture.
    #[must_use]
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, pixels: vec![[0; 3]; width * height] }
    }

    /// Lines.
    #[must_use]
    pub fn height(&self) -> usize {
        self.pixels.len().checked_div(self.width).unwrap_or(0)
    }

    /// The pixels of a line from `x` on.
    #[must_use]
    pub fn line(&self, y: usize, x: usize, width: usize) -> &[[u8; 3]] {
        &self.pixels[y * self.width + x..][..width]
    }

    /// The picture with another size: cut off, or with black beside and below it.
    #[must_use]
    pub fn sized(&self, width: usize, height: usize) -> Self {
        let mut new = Self::black(width, height);
        let common = width.min(self.width);
        for y in 0..height.min(self.height()) {
            new.pixels[y * width..][..common].copy_from_slice(self.line(y, 0, common));
        }
        new
    }

    /// As a PNG file.
    ///
    /// # Errors
    /// It has no pixels, or too many.
    pub fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width as u32, self.height() as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(self.pixels.as_flattened())?;
        writer.finish()?;
        Ok(out)
    }
}

/// What a screen shows, made anew only when something has changed.
#[derive(Debug, Default)]
pub struct View {
    screen: Screen,
    bytes: Vec<u8>,
    buffer: Vec<u8>,
    picture: Option<Picture>,
}

impl View {
    /// The device has described its screen.
    pub fn describe(&mut self, bytes: &[u8]) {
        if self.screen.feed(bytes) {
            self.picture = None;
        }
    }

    /// Whether the screen shows anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.screen.mode.off
    }

    /// The picture as it is now. `read` fills a buffer with guest memory from an address on, and says how much of it is memory.
    pub fn look(&mut self, read: impl FnOnce(u64, &mut [u8]) -> usize) -> &Picture {
        let mode = self.screen.mode;
        if mode.off || mode.width == 0 || mode.height == 0 {
            let (width, height) = match (usize::from(mode.width), usize::from(mode.height)) {
                (0, _) | (_, 0) => NOTHING,
                size => size,
            };
            return self.picture.get_or_insert_with(|| Picture::black(width, height));
        }
        let (pitch, line, height) = (mode.pitch as usize, mode.line_bytes(), usize::from(mode.height));
        // What a display says is checked for its size only: lines that overlap are as good as any.
        let length = (pitch * (height - 1)).min(MAX_BYTES) + line;
        self.buffer.resize(length, 0);
        let got = read(mode.base, &mut self.buffer).min(length);
        self.buffer[got..].fill(0);
        if self.picture.is_none() || self.bytes != self.buffer {
            std::mem::swap(&mut self.bytes, &mut self.buffer);
            let mut pixels = Vec::with_capacity(usize::from(mode.width) * height);
            for y in 0..height {
                let end = pixels.len() + usize::from(mode.width);
                let bytes = self.bytes.get(y * pitch..y * pitch + line).unwrap_or_default();
                self.screen.line(bytes, &mut pixels);
                pixels.resize(end, [0; 3]);
            }
            self.picture = Some(Picture { width: mode.width.into(), pixels });
        }
        self.picture.as_ref().expect("just made")
    }
}

/// Most bytes of a picture that are looked at.
const MAX_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use reprise_device::screen::{Field, Mode};

    use super::*;

    fn mode() -> Mode {
        let rgb = [16, 8, 0].map(|shift| Field { shift, bits: 8 });
        Mode { width: 2, height: 2, pitch: 16, base: 0x8000_0000, bits: 32, rgb, ..Mode::default() }
    }

    #[test]
    fn looks_at_memory() {
        let mut view = View::default();
        let black = |view: &mut View| view.look(|_, _| unreachable!("there is nothing to be seen")).clone();
        assert_eq!(black(&mut view), Picture::black(640, 480));
        view.describe(&mode().to_bytes());
        let memory = |at: u64, buffer: &mut [u8]| {
            assert_eq!((at, buffer.len()), (0x8000_0000, 24));
            buffer.iter_mut().zip(1..).for_each(|(b, n)| *b = n);
            buffer.len()
        };
        let want = Picture { width: 2, pixels: vec![[3, 2, 1], [7, 6, 5], [19, 18, 17], [23, 22, 21]] };
        assert_eq!(*view.look(memory), want);
        assert_eq!(*view.look(memory), want);
        // The second line is no memory.
        let mut want = want;
        want.pixels[2..].fill([0; 3]);
        assert_eq!(*view.look(|at, buffer| memory(at, buffer) - 8), want);
        view.describe(&Mode { off: true, ..mode() }.to_bytes());
        assert_eq!(black(&mut view), Picture::black(2, 2));
        view.describe(&Mode { width: 4096, height: 4096, pitch: u32::MAX, ..mode() }.to_bytes());
        assert_eq!(view.look(|_, _| 0).height(), 4096);
    }

    #[test]
    fn a_png_file_has_the_pixels() {
        let picture = Picture { width: 3, pixels: (0..6).map(|n| [n, 100, 200 + n]).collect() };
        let bytes = picture.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = [0; 18];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (3, 2));
        assert_eq!(pixels, picture.pixels.as_flattened());
        assert_eq!(picture.sized(2, 3).pixels[2..], [[3, 100, 203], [4, 100, 204], [0; 3], [0; 3]]);
        assert!(Picture::default().to_png().is_err());
    }
}
