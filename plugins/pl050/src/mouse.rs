//! A PS/2 mouse (IBM Personal System/2 Hardware Interface Technical Reference, "Mouse") that becomes an IntelliMouse (wheel) or an IntelliMouse
//! Explorer (wheel and five buttons) when a driver sets the sample rates that ask for it.
//!
//! It sends a packet when something has changed, and no more of them than its sample rate allows. A count of the host's is a count
//! of the mouse's, whatever its resolution.

use std::collections::VecDeque;

use reprise_device::{RestoreError, VTime};
use serde::{Deserialize, Serialize};

use crate::event::{InputEvent, btn, ev, rel};

/// What the host says.
mod command {
    pub(super) const SCALE_1: u8 = 0xe6;
    pub(super) const SCALE_2: u8 = 0xe7;
    pub(super) const RESOLUTION: u8 = 0xe8;
    pub(super) const STATUS: u8 = 0xe9;
    pub(super) const STREAM: u8 = 0xea;
    pub(super) const READ: u8 = 0xeb;
    pub(super) const UNWRAP: u8 = 0xec;
    pub(super) const WRAP: u8 = 0xee;
    pub(super) const REMOTE: u8 = 0xf0;
    pub(super) const IDENTIFY: u8 = 0xf2;
    pub(super) const RATE: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DISABLE: u8 = 0xf5;
    pub(super) const DEFAULTS: u8 = 0xf6;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// What the mouse says.
mod reply {
    pub(super) const PASSED: u8 = 0xaa;
    pub(super) const ACK: u8 = 0xfa;
    /// Not understood.
    pub(super) const RESEND: u8 = 0xfe;
}

/// Identifications: which mouse it has become.
mod id {
    pub(super) const STANDARD: u8 = 0;
    pub(super) const WHEEL: u8 = 3;
    pub(super) const EXPLORER: u8 = 4;
}

/// Sample rates that there are, in Hz.
const RATES: [u8; 7] = [10, 20, 40, 60, 80, 100, 200];
/// Movements with different buttons that can wait.
const MOVES: usize = 64;
/// Events that are asked for at a time, when the half of the queue that they can fill is free.
const EVENTS: usize = MOVES / 2;
/// The most that one packet can say in a direction.
const FARTHEST: i32 = 255;
/// The most that a movement can grow to.
const LIMIT: i32 = 0x7fff;
/// Buttons: left, right, middle, side, extra.
const BUTTONS: u8 = 0x1f;

/// Movement, and the buttons after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    x: i32,
    /// Growing downwards.
    y: i32,
    /// Growing away from the user.
    wheel: i32,
    buttons: u8,
}

impl Move {
    /// Adds a movement; the buttons are the new ones.
    fn add(&mut self, other: Self) {
        let sum = |a: i32, b: i32| a.saturating_add(b).clamp(-LIMIT, LIMIT);
        *self = Self {
            x: sum(self.x, other.x),
            y: sum(self.y, other.y),
            wheel: sum(self.wheel, other.wheel),
            buttons: other.buttons,
        };
    }

    /// No movement, with the same buttons.
    fn none(self) -> Self {
        Self { buttons: self.buttons, ..Self::default() }
    }

    fn possible(&self) -> bool {
        let limit = -LIMIT..=LIMIT;
        self.buttons & !BUTTONS == 0 && [self.x, self.y, self.wheel].iter().all(|v| limit.contains(v))
    }
}

/// The mouse's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mouse {
    id: u8,
    /// The last sample rates that were set, the newest last.
    knock: [u8; 3],
    rate: u8,
    /// 0 to 3, for 1, 2, 4 and 8 counts a millimetre.
    resolution: u8,
    double: bool,
    reporting: bool,
    remote: bool,
    wrap: bool,
    /// The command whose parameter comes next.
    expects: Option<u8>,
    /// Bytes to be sent: an answer or a packet.
    out: VecDeque<u8>,
    /// The last answer or packet, to be sent again when the host asks.
    last: Vec<u8>,
    /// What has come since the last report.
    current: Move,
    /// The buttons as of the last report.
    reported: u8,
    moves: VecDeque<Move>,
    /// Not before this time may the next packet be made.
    pause: Option<VTime>,
}

impl Mouse {
    /// After power-on: the self-test has passed, which it says, with its identification.
    pub(crate) fn new() -> Self {
        Self {
            id: id::STANDARD,
            knock: [0; 3],
            rate: 100,
            resolution: 2,
            double: false,
            reporting: false,
            remote: false,
            wrap: false,
            expects: None,
            out: [reply::PASSED, id::STANDARD].into(),
            last: Vec::new(),
            current: Move::default(),
            reported: 0,
            moves: VecDeque::new(),
            pause: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        RestoreError::check(matches!(self.id, id::STANDARD | id::WHEEL | id::EXPLORER), "an identification")?;
        RestoreError::check(RATES.contains(&self.rate), "a sample rate")?;
        RestoreError::check(self.resolution < 4, "a resolution")?;
        let parameter = [None, Some(command::RESOLUTION), Some(command::RATE)];
        RestoreError::check(parameter.contains(&self.expects), "a command that has no parameter")?;
        RestoreError::check(self.out.len() <= 5 && self.last.len() <= 5, "a message that is too long")?;
        let possible = self.moves.iter().chain([&self.current]).all(Move::possible);
        RestoreError::check(possible && self.reported & !BUTTONS == 0, "a movement that there can't be")?;
        RestoreError::check(self.moves.len() <= MOVES, "more movements than there is room for")
    }

    /// The byte that it would send.
    pub(crate) fn byte(&self) -> Option<u8> {
        self.out.front().copied()
    }

    /// That byte was sent.
    pub(crate) fn sent(&mut self) {
        self.out.pop_front();
    }

    /// Nobody listens: what there is to send is lost.
    pub(crate) fn discard(&mut self) {
        self.out.clear();
        self.moves.clear();
        self.pause = None;
    }

    fn say(&mut self, message: &[u8]) {
        self.out = message.iter().copied().collect();
        self.last = message.to_vec();
    }

    /// A byte from the host, which cuts off what the mouse was about to say.
    pub(crate) fn command(&mut self, byte: u8) {
        self.out.clear();
        if self.wrap && !matches!(byte, command::UNWRAP | command::RESET) {
            return self.out.push_back(byte);
        }
        match self.expects.take() {
            Some(command) => self.parameter(command, byte),
            None => self.start(byte),
        }
    }

    fn start(&mut self, byte: u8) {
        match byte {
            command::RESOLUTION | command::RATE => self.expects = Some(byte),
            command::SCALE_1 | command::SCALE_2 => self.double = byte == command::SCALE_2,
            command::STATUS => return self.say(&[reply::ACK, self.status(), self.resolution, self.rate]),
            command::STREAM | command::REMOTE => {
                self.remote = byte == command::REMOTE;
                self.moves.clear();
            }
            command::READ => {
                let message: Vec<u8> = [reply::ACK].into_iter().chain(self.packet()).collect();
                return self.say(&message);
            }
            command::WRAP | command::UNWRAP => self.wrap = byte == command::WRAP,
            command::IDENTIFY => return self.say(&[reply::ACK, self.id]),
            command::ENABLE | command::DISABLE => {
                self.reporting = byte == command::ENABLE;
                self.moves.clear();
            }
            command::DEFAULTS => self.defaults(),
            command::RESEND => return self.out.extend(&self.last),
            command::RESET => {
                *self = Self { current: self.current, reported: self.reported, ..Self::new() };
                return self.say(&[reply::ACK, reply::PASSED, id::STANDARD]);
            }
            _ => return self.out.push_back(reply::RESEND),
        }
        self.say(&[reply::ACK]);
    }

    fn parameter(&mut self, command: u8, value: u8) {
        match command {
            command::RESOLUTION if value < 4 => self.resolution = value,
            command::RATE if RATES.contains(&value) => self.set_rate(value),
            _ => return self.out.push_back(reply::RESEND),
        }
        self.moves.clear();
        self.say(&[reply::ACK]);
    }

    /// Three rates in a row turn it into another mouse.
    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        self.knock = [self.knock[1], self.knock[2], rate];
        match (self.knock, self.id) {
            ([200, 100, 80], id::STANDARD) => self.id = id::WHEEL,
            ([200, 200, 80], id::STANDARD | id::WHEEL) => self.id = id::EXPLORER,
            _ => {}
        }
    }

    fn defaults(&mut self) {
        (self.rate, self.resolution) = (100, 2);
        (self.double, self.reporting, self.remote) = (false, false, false);
        self.moves.clear();
    }

    /// The first byte of the status: bits 6 remote, 5 reporting, 4 scaling, 2 to 0 left, middle and right button.
    fn status(&self) -> u8 {
        let b = self.current.buttons;
        u8::from(self.remote) << 6
            | u8::from(self.reporting) << 5
            | u8::from(self.double) << 4
            | (b & 1) << 2
            | (b >> 2 & 1) << 1
            | b >> 1 & 1
    }

    /// An event from the host.
    pub(crate) fn event(&mut self, event: InputEvent) {
        let mut m = self.current.none();
        match (event.kind, event.code) {
            (ev::KEY, code @ btn::LEFT..=btn::EXTRA) => {
                let bit = 1 << (code - btn::LEFT);
                m.buttons = if event.value != 0 { m.buttons | bit } else { m.buttons & !bit };
            }
            (ev::REL, rel::X) => m.x = event.value,
            (ev::REL, rel::Y) => m.y = event.value,
            (ev::REL, rel::WHEEL) => m.wheel = event.value,
            (ev::SYN, 0) => return self.report(),
            _ => return,
        }
        self.current.add(m);
    }

    /// What has come is one movement. If it leaves the buttons as they are, it is part of the one before.
    fn report(&mut self) {
        let new = self.current;
        self.current = new.none();
        if !self.reporting && !self.remote {
            return;
        }
        let room = self.moves.len() < MOVES;
        match self.moves.back_mut() {
            Some(last) if last.buttons == new.buttons => last.add(new),
            None if new == new.none() && new.buttons == self.reported => {}
            _ if room => self.moves.push_back(new),
            _ => {}
        }
        self.reported = new.buttons;
    }

    /// Makes a packet of what waits, if there is something and it is time.
    pub(crate) fn sample(&mut self, now: VTime) {
        if self.pause.is_some_and(|at| at <= now) {
            self.pause = None;
        }
        let may = self.reporting && !self.remote && !self.wrap && self.expects.is_none();
        if may && self.out.is_empty() && self.pause.is_none() && !self.moves.is_empty() {
            let packet = self.packet();
            self.say(&packet);
            self.pause = Some(now.after(1_000_000_000 / u64::from(self.rate)));
        }
    }

    /// When [`Self::sample`] has something to do.
    pub(crate) fn due(&self) -> Option<VTime> {
        self.pause.filter(|_| !self.moves.is_empty())
    }

    /// Takes as much of the first movement as a packet holds.
    fn packet(&mut self) -> Vec<u8> {
        let first = self.moves.front().copied().unwrap_or(self.current.none());
        let (x, y) = (first.x.clamp(-FARTHEST, FARTHEST), first.y.clamp(-FARTHEST, FARTHEST));
        let wheel = match self.id {
            id::STANDARD => first.wheel,
            id::WHEEL => first.wheel.clamp(-127, 127),
            _ => first.wheel.clamp(-7, 7),
        };
        let rest = Move { x: first.x - x, y: first.y - y, wheel: first.wheel - wheel, buttons: first.buttons };
        if rest == first.none() {
            self.moves.pop_front();
        } else if let Some(front) = self.moves.front_mut() {
            *front = rest;
        }
        self.encode(Move { x: self.scale(x), y: -self.scale(y), wheel: -wheel, buttons: first.buttons })
    }

    /// Scaling 2:1: small movements become smaller, large ones twice as large; in stream mode only.
    fn scale(&self, count: i32) -> i32 {
        if !self.double || self.remote {
            return count;
        }
        let small = [0, 1, 1, 3, 6, 9].get(count.unsigned_abs() as usize).copied();
        small.map_or(2 * count, |s| s * count.signum()).clamp(-FARTHEST, FARTHEST)
    }

    /// A packet of 3 or 4 bytes; y grows upwards, the wheel towards the user.
    fn encode(&self, m: Move) -> Vec<u8> {
        let flags = m.buttons & 7 | 1 << 3 | u8::from(m.x < 0) << 4 | u8::from(m.y < 0) << 5;
        let mut packet = vec![flags, m.x as u8, m.y as u8];
        match self.id {
            id::STANDARD => {}
            id::WHEEL => packet.push(m.wheel as u8),
            _ => packet.push(m.wheel as u8 & 0xf | (m.buttons >> 3) << 4),
        }
        packet
    }

    /// How many events it can take.
    pub(crate) fn room(&self) -> usize {
        if self.moves.len() <= MOVES / 2 { EVENTS } else { 0 }
    }
}
