//! A viewer as it stands in RFC 6143, written without a look at the server: what the server sends has to make sense to others.

use std::io::{self, Read, Write};

use flate2::{Decompress, FlushDecompress};

/// A connection to a server.
pub struct Viewer<S> {
    pub stream: S,
    pub width: usize,
    pub height: usize,
    pub name: String,
    /// What is shown: red, green, blue.
    pub pixels: Vec<[u8; 3]>,
    /// Rectangles that came, by encoding.
    pub rectangles: Vec<i32>,
    zlib: Decompress,
    zrle: Decompress,
}

fn bad<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what.into()))
}

impl<S: Read + Write> Viewer<S> {
    /// Connects, with this version and the standard pixel format: 32 bits, little-endian, red from bit 16 on.
    pub fn connect(mut stream: S, version: &[u8; 12]) -> io::Result<Self> {
        let mut buffer = [0; 24];
        stream.read_exact(&mut buffer[..12])?;
        if &buffer[..12] != b"RFB 003.008\n" {
            return bad("no RFB server");
        }
        stream.write_all(version)?;
        match version {
            b"RFB 003.003\n" => {
                stream.read_exact(&mut buffer[..4])?;
                assert_eq!(buffer[..4], [0, 0, 0, 1]);
            }
            _ => {
                stream.read_exact(&mut buffer[..2])?;
                assert_eq!(buffer[..2], [1, 1], "one security type: none");
                stream.write_all(&[1])?;
                if version == b"RFB 003.008\n" {
                    stream.read_exact(&mut buffer[..4])?;
                    assert_eq!(buffer[..4], [0; 4], "the security handshake went well");
                }
            }
        }
        stream.write_all(&[1])?;
        stream.read_exact(&mut buffer)?;
        let half = |at: usize| usize::from(u16::from_be_bytes([buffer[at], buffer[at + 1]]));
        let (width, height) = (half(0), half(2));
        assert_eq!(buffer[4..17], [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0]);
        let mut name = vec![0; half(22)];
        stream.read_exact(&mut name)?;
        Ok(Self {
            stream,
            width,
            height,
            name: String::from_utf8_lossy(&name).into_owned(),
            pixels: vec![[0; 3]; width * height],
            rectangles: Vec::new(),
            zlib: Decompress::new(true),
            zrle: Decompress::new(true),
        })
    }

    pub fn set_encodings(&mut self, encodings: &[i32]) -> io::Result<()> {
        let mut message = vec![2, 0];
        message.extend((encodings.len() as u16).to_be_bytes());
        encodings.iter().for_each(|e| message.extend(e.to_be_bytes()));
        self.stream.write_all(&message)
    }

    pub fn key(&mut self, symbol: u32, down: bool) -> io::Result<()> {
        let mut message = vec![4, down.into(), 0, 0];
        message.extend(symbol.to_be_bytes());
        self.stream.write_all(&message)
    }

    pub fn pointer(&mut self, buttons: u8, x: u16, y: u16) -> io::Result<()> {
        let mut message = vec![5, buttons];
        message.extend(x.to_be_bytes());
        message.extend(y.to_be_bytes());
        self.stream.write_all(&message)
    }

    /// Asks for an update, and takes it.
    pub fn update(&mut self, incremental: bool) -> io::Result<()> {
        let mut message = vec![3, incremental.into(), 0, 0, 0, 0];
        message.extend((self.width as u16).to_be_bytes());
        message.extend((self.height as u16).to_be_bytes());
        self.stream.write_all(&message)?;
        let [kind, _, high, low] = self.take()?;
        if kind != 0 {
            return bad(format!("message {kind}"));
        }
        for _ in 0..u16::from_be_bytes([high, low]) {
            let head: [u8; 12] = self.take()?;
            let half = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
            let encoding = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
            self.rectangles.push(encoding);
            self.rectangle(half(0), half(2), half(4), half(6), encoding)?;
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn put(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        assert!(x < self.width && y < self.height, "a pixel outside of the screen");
        self.pixels[y * self.width + x] = rgb;
    }

    fn rectangle(&mut self, x: usize, y: usize, width: usize, height: usize, encoding: i32) -> io::Result<()> {
        match encoding {
            0 => {
                let data = self.bytes(width * height * 4)?;
                self.raw(x, y, width, &data);
            }
            5 => self.hextile(x, y, width, height)?,
            6 => {
                let data = self.inflated(false, width * height * 4)?;
                self.raw(x, y, width, &data);
            }
            16 => self.zrle(x, y, width, height)?,
            -223 => {
                (self.width, self.height) = (width, height);
                self.pixels = vec![[0; 3]; width * height];
            }
            -258 => {}
            other => return bad(format!("encoding {other}")),
        }
        Ok(())
    }

    fn raw(&mut self, x: usize, y: usize, width: usize, data: &[u8]) {
        for (i, p) in data.chunks_exact(4).enumerate() {
            self.put(x + i % width, y + i / width, [p[2], p[1], p[0]]);
        }
    }

    fn pixel(&mut self) -> io::Result<[u8; 3]> {
        self.take::<4>().map(|[b, g, r, _]| [r, g, b])
    }

    fn hextile(&mut self, x: usize, y: usize, width: usize, height: usize) -> io::Result<()> {
        let (mut background, mut foreground) = ([0; 3], [0; 3]);
        for ty in (y..y + height).step_by(16) {
            for tx in (x..x + width).step_by(16) {
                let (w, h) = (16.min(x + width - tx), 16.min(y + height - ty));
                let [flags] = self.take()?;
                if flags & 1 != 0 {
                    let data = self.bytes(w * h * 4)?;
                    self.raw(tx, ty, w, &data);
                    continue;
                }
                if flags & 2 != 0 {
                    background = self.pixel()?;
                }
                if flags & 4 != 0 {
                    foreground = self.pixel()?;
                }
                (0..w * h).for_each(|i| self.put(tx + i % w, ty + i / w, background));
                let [count] = if flags & 8 != 0 { self.take()? } else { [0] };
                for _ in 0..count {
                    let colour = if flags & 16 != 0 { self.pixel()? } else { foreground };
                    let [at, size] = self.take()?;
                    let (sw, sh) = (usize::from(size >> 4) + 1, usize::from(size & 15) + 1);
                    for i in 0..sw * sh {
                        self.put(tx + usize::from(at >> 4) + i % sw, ty + usize::from(at & 15) + i / sw, colour);
                    }
                }
            }
        }
        Ok(())
    }

    /// Data with its length before it, unpacked; at most so many bytes, and all that was packed.
    fn inflated(&mut self, zrle: bool, most: usize) -> io::Result<Vec<u8>> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        let packed = self.bytes(length)?;
        let stream = if zrle { &mut self.zrle } else { &mut self.zlib };
        let before = stream.total_in();
        let mut out = Vec::with_capacity(most + 64);
        stream.decompress_vec(&packed, &mut out, FlushDecompress::Sync)?;
        assert_eq!((stream.total_in() - before) as usize, length, "all of it can be unpacked at once");
        Ok(out)
    }

    fn zrle(&mut self, x: usize, y: usize, width: usize, height: usize) -> io::Result<()> {
        let data = self.inflated(true, width * height * 4 + 1000)?;
        let mut data = data.as_slice();
        let pixel = |data: &mut &[u8]| {
            let (p, rest) = data.split_at(3);
            *data = rest;
            [p[2], p[1], p[0]]
        };
        for ty in (y..y + height).step_by(64) {
            for tx in (x..x + width).step_by(64) {
                let (w, h) = (64.min(x + width - tx), 64.min(y + height - ty));
                let (kind, rest) = data.split_first().expect("a tile");
                data = rest;
                match kind {
                    0 => (0..w * h).for_each(|i| {
                        let rgb = pixel(&mut data);
                        self.put(tx + i % w, ty + i / w, rgb);
                    }),
                    1..=16 => {
                        let palette: Vec<[u8; 3]> = (0..*kind).map(|_| pixel(&mut data)).collect();
                        let bits = match palette.len() {
                            1 => 0,
                            2 => 1,
                            3 | 4 => 2,
                            _ => 4,
                        };
                        let line = (w * bits).div_ceil(8);
                        for i in 0..w * h {
                            let index = match bits {
                                0 => 0,
                                bits => {
                                    let bit = i % w * bits;
                                    let byte = data[i / w * line + bit / 8];
                                    usize::from(byte >> (8 - bits - bit % 8) & ((1 << bits) - 1))
                                }
                            };
                            self.put(tx + i % w, ty + i / w, palette[index]);
                        }
                        data = &data[line * h..];
                    }
                    other => return bad(format!("ZRLE tile {other}")),
                }
            }
        }
        assert!(data.is_empty(), "no bytes are left over");
        Ok(())
    }
}
