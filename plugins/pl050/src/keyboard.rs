//! A PS/2 keyboard with scan code sets 1 and 2 (IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard").
//!
//! Set 3 and its commands (0xf7 to 0xfd) are answered with "resend", as is anything that is no command.

use std::collections::VecDeque;

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::event::{InputEvent, ev, key, led};
use crate::scancode::{self, held};

/// What the host says.
mod command {
    pub(super) const LEDS: u8 = 0xed;
    pub(super) const ECHO: u8 = 0xee;
    pub(super) const SCAN_SET: u8 = 0xf0;
    pub(super) const IDENTIFY: u8 = 0xf2;
    pub(super) const TYPEMATIC: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DISABLE: u8 = 0xf5;
    pub(super) const DEFAULTS: u8 = 0xf6;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// What the keyboard says.
mod reply {
    pub(super) const PASSED: u8 = 0xaa;
    pub(super) const ECHO: u8 = 0xee;
    pub(super) const ACK: u8 = 0xfa;
    pub(super) const RESEND: u8 = 0xfe;
    /// An MF2 keyboard.
    pub(super) const ID: [u8; 2] = [0xab, 0x83];
}

/// Scan codes that can wait.
const CODES: usize = 128;
/// Events that are asked for at a time, when the half of the queue that they can fill is free.
const EVENTS: usize = CODES / 2 / scancode::LONGEST;
/// Repeat 10.9 times a second, after 500 ms.
const TYPEMATIC: u8 = 0x2b;

/// A key that is held down and repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repeat {
    code: u16,
    at: VTime,
}

/// The keyboard's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keyboard {
    /// Scan code set, 1 or 2.
    set: u8,
    /// Bits 0 to 2: Scroll, Num and Caps Lock.
    leds: u8,
    /// The LEDs as the outside was told.
    shown: u8,
    typematic: u8,
    scanning: bool,
    /// The command whose parameter comes next.
    expects: Option<u8>,
    /// The answer to the last command.
    replies: VecDeque<u8>,
    codes: VecDeque<u8>,
    /// The last byte that was sent.
    last: u8,
    /// Modifier keys that are held down.
    held: u8,
    repeat: Option<Repeat>,
}

impl Keyboard {
    /// After power-on: the self-test has passed, which it says.
    pub(crate) fn new() -> Self {
        Self {
            set: 2,
            leds: 0,
            shown: 0,
            typematic: TYPEMATIC,
            scanning: true,
            expects: None,
            replies: [reply::PASSED].into(),
            codes: VecDeque::new(),
            last: 0,
            held: 0,
            repeat: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(matches!(self.set, 1 | 2), "a scan code set")?;
        RestoreError::check((self.leds | self.shown) & !7 == 0, "an LED that there is not")?;
        RestoreError::check(self.typematic < 0x80, "the typematic rate")?;
        RestoreError::check(self.held & !held::ALL == 0, "a modifier that there is not")?;
        let parameter = [None, Some(command::LEDS), Some(command::SCAN_SET), Some(command::TYPEMATIC)];
        RestoreError::check(parameter.contains(&self.expects), "a command that has no parameter")?;
        RestoreError::check(self.replies.len() <= 3, "a reply that is too long")?;
        RestoreError::check(self.codes.len() <= CODES, "more scan codes than there is room for")
    }

    /// The byte that it would send.
    pub(crate) fn byte(&self) -> Option<u8> {
        self.replies.front().or(self.codes.front()).copied()
    }

    /// That byte was sent.
    pub(crate) fn sent(&mut self) {
        if let Some(byte) = self.replies.pop_front().or_else(|| self.codes.pop_front()) {
            self.last = byte;
        }
    }

    /// Nobody listens: what there is to send is lost.
    pub(crate) fn discard(&mut self) {
        self.replies.clear();
        self.codes.clear();
        self.repeat = None;
    }

    /// A byte from the host. A new command cuts off the answer to the one before.
    pub(crate) fn command(&mut self, byte: u8) {
        self.replies.clear();
        match self.expects.take() {
            Some(command) if byte < 0x80 => self.parameter(command, byte),
            _ => self.start(byte),
        }
    }

    fn start(&mut self, byte: u8) {
        match byte {
            command::LEDS | command::SCAN_SET | command::TYPEMATIC => self.expects = Some(byte),
            command::ECHO => return self.replies.push_back(reply::ECHO),
            command::IDENTIFY => return self.replies.extend([reply::ACK, reply::ID[0], reply::ID[1]]),
            command::ENABLE => {
                self.codes.clear();
                self.scanning = true;
            }
            command::DISABLE => {
                self.defaults();
                self.scanning = false;
            }
            command::DEFAULTS => self.defaults(),
            command::RESEND => return self.replies.push_back(self.last),
            command::RESET => {
                let (shown, held) = (self.shown, self.held);
                *self = Self { shown, held, ..Self::new() };
                return self.replies.push_front(reply::ACK);
            }
            _ => return self.replies.push_back(reply::RESEND),
        }
        self.replies.push_back(reply::ACK);
    }

    fn parameter(&mut self, command: u8, value: u8) {
        match (command, value) {
            (command::LEDS, _) => self.leds = value & 7,
            (command::TYPEMATIC, _) => self.typematic = value,
            (_, 0) => return self.replies.extend([reply::ACK, self.set]),
            (_, 1 | 2) => {
                self.codes.clear();
                self.set = value;
            }
            _ => return self.replies.push_back(reply::RESEND),
        }
        self.replies.push_back(reply::ACK);
    }

    fn defaults(&mut self) {
        (self.set, self.typematic, self.repeat) = (2, TYPEMATIC, None);
        self.codes.clear();
    }

    /// An event from the host. `typematic`: held keys are repeated here, so those of the host are left out.
    pub(crate) fn event(&mut self, now: VTime, event: InputEvent, typematic: bool) {
        let repeated = event.value == 2;
        if event.kind != ev::KEY || repeated && typematic {
            return;
        }
        let down = event.value != 0;
        let modifier = scancode::modifier(event.code);
        self.held = if down { self.held | modifier } else { self.held & !modifier };
        if self.repeat.is_some_and(|r| down || r.code == event.code) {
            self.repeat = None;
        }
        if !self.scanning {
            return;
        }
        if self.send(event.code, down) && down && typematic && event.code != key::PAUSE {
            let delay = 250_000_000 * (1 + u64::from(self.typematic >> 5 & 3));
            self.repeat = Some(Repeat { code: event.code, at: now.after(delay) });
        }
    }

    /// Queues a key's scan codes; whether it has any.
    fn send(&mut self, code: u16, down: bool) -> bool {
        let bytes = scancode::bytes(self.set, code, down, self.held);
        if self.codes.len() + bytes.len() <= CODES {
            self.codes.extend(&bytes);
        }
        !bytes.is_empty()
    }

    /// Time to repeat the key that is held, unless what was typed before still waits.
    pub(crate) fn repeat(&mut self, now: VTime) {
        let Some(Repeat { code, at }) = self.repeat else { return };
        if now < at {
            return;
        }
        if self.codes.is_empty() {
            self.send(code, true);
        }
        // (8 + A) * 2^B / 240 s, where A is bits 2:0 and B bits 4:3.
        let (a, b) = (u64::from(self.typematic & 7), self.typematic >> 3 & 3);
        let period = ((8 + a) << b) * 1_000_000_000 / 240;
        self.repeat = Some(Repeat { code, at: now.after(period) });
    }

    /// When [`Self::repeat`] is to be called.
    pub(crate) fn due(&self) -> Option<VTime> {
        self.repeat.map(|r| r.at)
    }

    /// How many events it can take.
    pub(crate) fn room(&self) -> usize {
        if self.codes.len() <= CODES / 2 { EVENTS } else { 0 }
    }

    /// Tells the outside of LEDs that have changed.
    pub(crate) fn lights(&mut self, mut tell: impl FnMut(InputEvent)) {
        let changed = self.leds ^ self.shown;
        for (bit, code) in [led::SCROLL, led::NUM, led::CAPS].into_iter().enumerate() {
            if changed >> bit & 1 != 0 {
                tell(InputEvent { kind: ev::LED, code, value: i32::from(self.leds >> bit & 1) });
            }
        }
        self.shown = self.leds;
    }
}
