//! What has changed, and how it is sent: raw, hextile, zlib and ZRLE (RFC 6143, 7.7; zlib is the community's number 6).

use flate2::{Compress, Compression, FlushCompress};

use super::pixels::PixelFormat;
use crate::picture::Picture;

/// A rectangle of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Side of the tiles that are compared, and of ZRLE's.
const TILE: usize = 64;
/// Side of hextile's tiles.
const HEXTILE: usize = 16;

/// Where `new` differs from `old`: rows of tiles, as long as they are. All of it if there is no old one.
pub(super) fn changes(new: &Picture, old: Option<&Picture>) -> Vec<Area> {
    let (width, height) = (new.width, new.height());
    let mut areas = Vec::new();
    for y in (0..height).step_by(TILE) {
        let rows = TILE.min(height - y);
        let mut open: Option<Area> = None;
        for x in (0..width).step_by(TILE) {
            let columns = TILE.min(width - x);
            let same = |old: &Picture| (y..y + rows).all(|y| new.line(y, x, columns) == old.line(y, x, columns));
            if old.is_some_and(same) {
                areas.extend(open.take());
                continue;
            }
            open.get_or_insert(Area { x, y, width: 0, height: rows }).width += columns;
        }
        areas.extend(open);
    }
    areas
}

/// How pixels are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Hextile,
    Zlib,
    Zrle,
}

impl Encoding {
    pub(super) fn of(number: i32) -> Option<Self> {
        [Self::Raw, Self::Hextile, Self::Zlib, Self::Zrle].into_iter().find(|e| e.number() == number)
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Self::Raw => 0,
            Self::Hextile => 5,
            Self::Zlib => 6,
            Self::Zrle => 16,
        }
    }
}

/// What encodings carry on from one rectangle to the next.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) format: PixelFormat,
    /// One stream each, for the life of the connection.
    zlib: Compress,
    zrle: Compress,
    scratch: Vec<u8>,
    /// The viewer shows nothing that is known.
    forgot: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let stream = || Compress::new(Compression::fast(), true);
        Self { format: PixelFormat::default(), zlib: stream(), zrle: stream(), scratch: Vec::new(), forgot: true }
    }

    /// The viewer's screen has a new size.
    pub(super) fn forget(&mut self) {
        self.forgot = true;
    }

    pub(super) fn forgot(&self) -> bool {
        self.forgot
    }

    /// Adds a rectangle's pixels.
    pub(super) fn encode(&mut self, encoding: Encoding, picture: &Picture, area: &Area, out: &mut Vec<u8>) {
        self.forgot = false;
        let format = self.format;
        self.scratch.clear();
        match encoding {
            Encoding::Raw => raw(format, picture, area, out),
            Encoding::Hextile => hextile(format, picture, area, out),
            Encoding::Zlib => {
                raw(format, picture, area, &mut self.scratch);
                deflate(&mut self.zlib, &self.scratch, out);
            }
            Encoding::Zrle => {
                zrle(format, picture, area, &mut self.scratch);
                deflate(&mut self.zrle, &self.scratch, out);
            }
        }
    }
}

fn raw(format: PixelFormat, picture: &Picture, area: &Area, out: &mut Vec<u8>) {
    out.reserve(area.width * area.height * format.bytes());
    for y in area.y..area.y + area.height {
        picture.line(y, area.x, area.width).iter().for_each(|&rgb| format.put(rgb, out));
    }
}

/// Adds compressed data with its length before it; all of it can be unpacked by then.
fn deflate(stream: &mut Compress, data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let before = stream.total_in();
    loop {
        out.reserve(data.len() / 2 + 1024);
        let done = (stream.total_in() - before) as usize;
        // The only error there is comes of a stream that was finished, which these never are.
        let _ = stream.compress_vec(&data[done..], out, FlushCompress::Sync);
        if (stream.total_in() - before) as usize == data.len() && out.len() < out.capacity() {
            break;
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// The tiles of an area, row by row.
fn tiles(area: &Area, side: usize) -> impl Iterator<Item = Area> {
    let Area { x, y, width, height } = *area;
    (0..height).step_by(side).flat_map(move |dy| {
        (0..width).step_by(side).map(move |dx| Area {
            x: x + dx,
            y: y + dy,
            width: side.min(width - dx),
            height: side.min(height - dy),
        })
    })
}

/// The colours of a tile in the order in which they come, if there are no more than `most`.
fn colours(picture: &Picture, tile: &Area, most: usize) -> Option<Vec<[u8; 3]>> {
    let mut all: Vec<[u8; 3]> = Vec::new();
    for y in tile.y..tile.y + tile.height {
        for rgb in picture.line(y, tile.x, tile.width) {
            if all.last() != Some(rgb) && !all.contains(rgb) {
                if all.len() == most {
                    return None;
                }
                all.push(*rgb);
            }
        }
    }
    Some(all)
}

/// Hextile (7.7.4): tiles of one colour, of two as runs on a ground, else raw.
fn hextile(format: PixelFormat, picture: &Picture, area: &Area, out: &mut Vec<u8>) {
    const RAW: u8 = 1;
    const BACKGROUND: u8 = 2;
    const FOREGROUND: u8 = 4;
    const SUBRECTS: u8 = 8;
    for tile in tiles(area, HEXTILE) {
        match colours(picture, &tile, 2).as_deref() {
            Some([one]) => {
                out.push(BACKGROUND);
                format.put(*one, out);
            }
            Some([ground, figure]) => {
                let runs = runs(picture, &tile, *figure);
                // At most 128 runs of two bytes: no more than 256 pixels of a byte.
                out.push(BACKGROUND | FOREGROUND | SUBRECTS);
                format.put(*ground, out);
                format.put(*figure, out);
                out.push(runs.len() as u8);
                for (x, y, width) in runs {
                    out.extend([(x << 4 | y) as u8, ((width - 1) << 4) as u8]);
                }
            }
            _ => {
                out.push(RAW);
                raw(format, picture, &tile, out);
            }
        }
    }
}

/// Runs of a colour in a tile, from its corner: (x, y, width).
fn runs(picture: &Picture, tile: &Area, colour: [u8; 3]) -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    for y in 0..tile.height {
        let mut x = 0;
        for run in picture.line(tile.y + y, tile.x, tile.width).chunk_by(|a, b| a == b) {
            if run[0] == colour {
                all.push((x, y, run.len()));
            }
            x += run.len();
        }
    }
    all
}

/// ZRLE (7.7.6): tiles of one colour, packed palettes of up to 16, else raw.
fn zrle(format: PixelFormat, picture: &Picture, area: &Area, out: &mut Vec<u8>) {
    for tile in tiles(area, TILE) {
        let palette = colours(picture, &tile, 16);
        let lines = (tile.y..tile.y + tile.height).map(|y| picture.line(y, tile.x, tile.width));
        match palette {
            Some(palette) => {
                out.push(palette.len() as u8);
                palette.iter().for_each(|&rgb| format.put_compressed(rgb, out));
                let bits = match palette.len() {
                    0 | 1 => continue,
                    2 => 1,
                    3 | 4 => 2,
                    _ => 4,
                };
                lines.for_each(|line| pack(line, &palette, bits, out));
            }
            None => {
                out.push(0);
                lines.flatten().for_each(|&rgb| format.put_compressed(rgb, out));
            }
        }
    }
}

/// Indices of a line, the first one in the highest bits, in whole bytes.
fn pack(line: &[[u8; 3]], palette: &[[u8; 3]], bits: usize, out: &mut Vec<u8>) {
    for some in line.chunks(8 / bits) {
        let index = |rgb| palette.iter().position(|p| p == rgb).unwrap_or(0) as u8;
        let byte = some.iter().enumerate().fold(0, |byte, (i, rgb)| byte | index(rgb) << (8 - bits * (i + 1)));
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_by_tiles() {
        let old = Picture::black(200, 100);
        let mut new = old.clone();
        assert_eq!(changes(&new, Some(&old)), []);
        let area = |x, y, width, height| Area { x, y, width, height };
        assert_eq!(changes(&new, None), [area(0, 0, 200, 64), area(0, 64, 200, 36)]);
        for (x, y) in [(0, 0), (63, 0), (64, 5), (199, 99)] {
            new.pixels[y * 200 + x] = [1, 1, 1];
        }
        assert_eq!(changes(&new, Some(&old)), [area(0, 0, 128, 64), area(192, 64, 8, 36)]);
        assert_eq!(changes(&Picture::default(), None), []);
    }
}
