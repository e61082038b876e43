//! One viewer's connection, the server's side: the remote framebuffer protocol, versions 3.3, 3.7 and 3.8 (RFC 6143; what it doesn't have, the
//! community's "The RFB Protocol").
//!
//! Bytes of the viewer go in, bytes for the viewer and [`Event`]s come out; whoever holds the socket moves them. A viewer asks for each update, and
//! gets one when the picture has changed: of the tiles that differ from what it was sent last.

mod encode;
mod pixels;

use crate::picture::Picture;
use encode::{Encoder, Encoding};
use pixels::PixelFormat;

/// Why a connection must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RfbError {
    /// It speaks another protocol.
    #[error("the viewer speaks no version of RFB that this server knows")]
    Version,
    /// It wants authentication, or another kind of it than there is.
    #[error("the viewer asks for security type {0}; there is only 1, none")]
    Security(u8),
    /// A message of a kind that does not exist, or was not agreed on.
    #[error("the viewer sends a message of kind {0}, which was not agreed on")]
    Message(u8),
    /// Pixels as nobody has them.
    #[error("the viewer asks for an impossible pixel format")]
    PixelFormat,
    /// A message that is too long.
    #[error("the viewer sends a message of {0} bytes")]
    TooLong(usize),
}

/// What a viewer's user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A key, by its symbol (X's `keysymdef.h`).
    Key {
        /// Down, else up.
        down: bool,
        /// The symbol.
        symbol: u32,
        /// The scan code, if the viewer knows it ([`crate::keys::of_scan_code`]).
        scan_code: Option<u32>,
    },
    /// The pointer is here.
    Pointer {
        /// Buttons that are down, from bit 0: left, middle, right, wheel up, wheel down.
        buttons: u8,
        /// Pixels from the left.
        x: u16,
        /// Lines from the top.
        y: u16,
    },
}

/// The longest text that a viewer's clipboard may send; it is thrown away.
const MAX_TEXT: usize = 1 << 20;
/// The most encodings that a viewer may name.
const MAX_ENCODINGS: usize = 1024;
const SECURITY_NONE: u8 = 1;
/// Pseudo-encodings.
const DESKTOP_SIZE: i32 = -223;
const EXTENDED_KEYS: i32 = -258;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Version,
    Security { minor: u8 },
    Init,
    Running,
}

/// What a viewer has asked for and not got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Changes,
    Everything,
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    name: String,
    /// Bytes of a message that is not whole.
    input: Vec<u8>,
    /// Bytes of a text that are still to be thrown away.
    skip: usize,
    output: Vec<u8>,
    encoder: Encoder,
    encoding: Encoding,
    resizable: bool,
    extended_keys: bool,
    /// The viewer was told that it may send them.
    extended_told: bool,
    wanted: Wanted,
    /// What the viewer shows.
    shown: Picture,
}

impl Session {
    /// A viewer has connected to a screen of this size.
    #[must_use]
    pub fn new(name: &str, width: usize, height: usize) -> Self {
        Self {
            state: State::Version,
            name: name.to_owned(),
            input: Vec::new(),
            skip: 0,
            output: b"RFB 003.008\n".to_vec(),
            encoder: Encoder::new(),
            encoding: Encoding::Raw,
            resizable: false,
            extended_keys: false,
            extended_told: false,
            wanted: Wanted::Nothing,
            shown: Picture::black(width, height),
        }
    }

    /// Bytes for the viewer; whoever sends some of them takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether the viewer waits for an update.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.wanted != Wanted::Nothing
    }

    /// Takes bytes of the viewer.
    ///
    /// # Errors
    /// The viewer breaks the protocol: the connection must end.
    pub fn feed(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), RfbError> {
        let skipped = self.skip.min(data.len());
        self.skip -= skipped;
        self.input.extend_from_slice(&data[skipped..]);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while self.skip == 0 {
            match self.message(rest, events)? {
                0 => break,
                n => rest = &rest[n..],
            }
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
        }
        self.input = rest.to_vec();
        Ok(())
    }

    /// Takes one message; how many bytes it had, 0 if it is not whole.
    fn message(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<usize, RfbError> {
        match self.state {
            State::Version => self.version(data),
            State::Security { minor } => {
                let Some(&kind) = data.first() else { return Ok(0) };
                if kind != SECURITY_NONE {
                    return Err(RfbError::Security(kind));
                }
                if minor >= 8 {
                    self.output.extend([0; 4]);
                }
                self.state = State::Init;
                Ok(1)
            }
            State::Init => {
                if data.is_empty() {
                    return Ok(0);
                }
                self.init();
                Ok(1)
            }
            State::Running => self.request(data, events),
        }
    }

    /// ProtocolVersion (7.1.1), and what follows it.
    fn version(&mut self, data: &[u8]) -> Result<usize, RfbError> {
        let Some(version) = data.first_chunk::<12>() else { return Ok(0) };
        let minor = match version {
            b"RFB 003.008\n" => 8,
            b"RFB 003.007\n" => 7,
            // Later ones of that branch, and others' own, are to be taken as 3.3.
            [b'R', b'F', b'B', b' ', b'0', b'0', b'3', b'.', .., b'\n'] => 3,
            _ => return Err(RfbError::Version),
        };
        if minor >= 7 {
            self.output.extend([1, SECURITY_NONE]);
            self.state = State::Security { minor };
        } else {
            self.output.extend([0, 0, 0, SECURITY_NONE]);
            self.state = State::Init;
        }
        Ok(version.len())
    }

    /// ServerInit (7.3.2).
    fn init(&mut self) {
        let (width, height) = (self.shown.width as u16, self.shown.height() as u16);
        self.output.extend(width.to_be_bytes());
        self.output.extend(height.to_be_bytes());
        self.output.extend(PixelFormat::default().to_bytes());
        self.output.extend((self.name.len() as u32).to_be_bytes());
        self.output.extend(self.name.as_bytes());
        self.state = State::Running;
    }

    /// A message of the viewer (7.5).
    fn request(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<usize, RfbError> {
        let half = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let Some(&kind) = data.first() else { return Ok(0) };
        let length = match kind {
            0 => 20,
            2 if data.len() >= 4 => 4 + 4 * usize::from(half(2)),
            2 => 4,
            3 => 10,
            4 => 8,
            5 => 6,
            6 => 8,
            255 if self.extended_told => 12,
            other => return Err(RfbError::Message(other)),
        };
        if length > 4 + 4 * MAX_ENCODINGS {
            return Err(RfbError::TooLong(length));
        }
        if data.len() < length {
            return Ok(0);
        }
        match kind {
            0 => self.set_pixel_format(&data[4..20])?,
            2 => self.set_encodings(&data[4..length]),
            3 => self.want(data[1] != 0),
            4 => events.push(Event::Key { down: data[1] != 0, symbol: word(4), scan_code: None }),
            5 => events.push(Event::Pointer { buttons: data[1], x: half(2), y: half(4) }),
            6 => {
                // A length below zero is one of the extended clipboard, which was not agreed on.
                self.skip = word(4) as usize;
                if self.skip > MAX_TEXT {
                    return Err(RfbError::TooLong(self.skip));
                }
            }
            _ if data[1] == 0 => {
                events.push(Event::Key { down: half(2) != 0, symbol: word(4), scan_code: Some(word(8)) });
            }
            _ => return Err(RfbError::Message(kind)),
        }
        Ok(length)
    }

    fn set_pixel_format(&mut self, bytes: &[u8]) -> Result<(), RfbError> {
        let (format, mapped) = PixelFormat::parse(bytes).ok_or(RfbError::PixelFormat)?;
        self.encoder.format = format;
        if mapped {
            self.output.extend(pixels::colour_map());
        }
        // What it shows may be of other colours now.
        self.wanted = self.wanted.max(Wanted::Everything, Wanted::Nothing);
        Ok(())
    }

    fn set_encodings(&mut self, list: &[u8]) {
        let named: Vec<i32> =
            list.chunks_exact(4).map(|c| i32::from_be_bytes(c.try_into().expect("4 bytes"))).collect();
        self.encoding = named.iter().find_map(|&n| Encoding::of(n)).unwrap_or(Encoding::Raw);
        self.resizable = named.contains(&DESKTOP_SIZE);
        self.extended_keys = named.contains(&EXTENDED_KEYS);
    }

    fn want(&mut self, changes: bool) {
        let new = if changes { Wanted::Changes } else { Wanted::Everything };
        self.wanted = self.wanted.max(new, Wanted::Changes);
    }

    /// The screen shows this now: sends what has changed, if the viewer waits for it. True if something was sent.
    pub fn update(&mut self, picture: &Picture) -> bool {
        if self.wanted == Wanted::Nothing || self.state != State::Running {
            return false;
        }
        if self.extended_keys && !self.extended_told {
            self.extended_told = true;
            self.begin_update(1);
            self.rectangle(0, 0, 0, 0, EXTENDED_KEYS);
            self.wanted = Wanted::Nothing;
            // Nothing was said of the picture: at its next request the viewer gets it.
            return true;
        }
        let size = |p: &Picture| (p.width, p.height());
        if size(picture) != size(&self.shown) && self.resizable {
            let (width, height) = size(picture);
            self.begin_update(1);
            self.rectangle(0, 0, width, height, DESKTOP_SIZE);
            // Black is as good as unknown: all of it is sent at the next request, which has to ask for everything.
            self.shown = Picture::black(width, height);
            self.encoder.forget();
            self.wanted = Wanted::Nothing;
            return true;
        }
        let fitted;
        let picture = if size(picture) == size(&self.shown) {
            picture
        } else {
            fitted = picture.sized(self.shown.width, self.shown.height());
            &fitted
        };
        let all = self.wanted == Wanted::Everything || self.encoder.forgot();
        let areas = encode::changes(picture, (!all).then_some(&self.shown));
        if areas.is_empty() {
            return false;
        }
        self.begin_update(areas.len() as u16);
        for area in &areas {
            self.rectangle(area.x, area.y, area.width, area.height, self.encoding.number());
            self.encoder.encode(self.encoding, picture, area, &mut self.output);
        }
        self.shown.clone_from(picture);
        self.wanted = Wanted::Nothing;
        true
    }

    /// FramebufferUpdate (7.6.1).
    fn begin_update(&mut self, rectangles: u16) {
        self.output.extend([0, 0]);
        self.output.extend(rectangles.to_be_bytes());
    }

    fn rectangle(&mut self, x: usize, y: usize, width: usize, height: usize, encoding: i32) {
        for number in [x, y, width, height] {
            self.output.extend((number as u16).to_be_bytes());
        }
        self.output.extend(encoding.to_be_bytes());
    }
}

impl Wanted {
    /// The greater of what was and what comes; but nothing stays nothing if `floor` says so.
    fn max(self, new: Self, floor: Self) -> Self {
        match (self, new) {
            (Self::Nothing, _) if floor == Self::Nothing => Self::Nothing,
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (_, new) => new,
        }
    }
}
