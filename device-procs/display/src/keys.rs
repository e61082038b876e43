//! Keys, in the terms of Linux's evdev (`linux/input-event-codes.h`), as the guest's keyboards and mice take them; and what people and viewers call them.
//!
//! Letters and signs are those of a US keyboard.

/// `EV_SYN`, `EV_KEY` and `EV_REL`.
mod kind {
    pub(super) const SYN: u16 = 0;
    pub(super) const KEY: u16 = 1;
    pub(super) const REL: u16 = 2;
}

/// The power key, which is none of the keyboard's.
pub const POWER: u16 = 116;
/// The largest code of a key.
pub const LAST: u16 = 0x2ff;
const LEFT_SHIFT: u16 = 42;
const BTN_LEFT: u16 = 0x110;
const BTN_RIGHT: u16 = 0x111;
const BTN_MIDDLE: u16 = 0x112;
const REL_X: u16 = 0;
const REL_Y: u16 = 1;
const REL_WHEEL: u16 = 8;

/// An event as the devices' ports take it: type and code (u16), value (i32), little-endian.
#[must_use]
fn event(kind: u16, code: u16, value: i32) -> [u8; 8] {
    let ([k0, k1], [c0, c1]) = (kind.to_le_bytes(), code.to_le_bytes());
    let [v0, v1, v2, v3] = value.to_le_bytes();
    [k0, k1, c0, c1, v0, v1, v2, v3]
}

/// A key goes down or up.
#[must_use]
pub fn key(code: u16, down: bool) -> [u8; 8] {
    event(kind::KEY, code, down.into())
}

/// Keys that are pressed one after the other, and let go in the opposite order.
#[must_use]
pub fn chord(codes: &[u16]) -> Vec<u8> {
    let down = codes.iter().map(|&code| key(code, true));
    let up = codes.iter().rev().map(|&code| key(code, false));
    down.chain(up).flatten().collect()
}

/// A row of keys: the code of its first one, and the characters without and with shift.
const ROWS: &[(u16, &str, &str)] = &[
    (2, "1234567890-=", "!@#$%^&*()_+"),
    (16, "qwertyuiop[]", "QWERTYUIOP{}"),
    (30, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (43, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (57, " ", " "),
    (28, "\n", "\r"),
    (15, "\t", "\t"),
];

/// The key that makes a character, and whether with shift.
#[must_use]
pub fn of_char(c: char) -> Option<(u16, bool)> {
    let place = |row: &str| row.chars().position(|r| r == c).map(|n| n as u16);
    let plain = ROWS.iter().find_map(|(first, row, _)| Some((first + place(row)?, false)));
    plain.or_else(|| ROWS.iter().find_map(|(first, _, row)| Some((first + place(row)?, c != '\r'))))
}

/// Text as it is typed; the first character that no key makes, if there is one.
///
/// # Errors
/// That character.
pub fn text(text: &str) -> Result<Vec<Vec<u16>>, char> {
    let typed = |c| match of_char(c) {
        Some((code, true)) => Ok(vec![LEFT_SHIFT, code]),
        Some((code, false)) => Ok(vec![code]),
        None => Err(c),
    };
    text.chars().map(typed).collect()
}

/// Keys that have names: what people call them, the key symbols of X (`keysymdef.h`), the code.
const NAMED: &[(&[&str], &[u32], u16)] = &[
    (&["esc", "escape"], &[0xff1b], 1),
    (&["backspace"], &[0xff08], 14),
    (&["tab"], &[0xff09, 0xfe20], 15),
    (&["enter", "ret", "return"], &[0xff0d], 28),
    (&["ctrl", "control"], &[0xffe3], 29),
    (&["shift"], &[0xffe1], LEFT_SHIFT),
    (&["shift_r"], &[0xffe2], 54),
    (&["kp_multiply"], &[0xffaa], 55),
    (&["alt"], &[0xffe9, 0xffe7], 56),
    (&["space", "spc"], &[], 57),
    (&["minus"], &[], 12),
    (&["caps_lock"], &[0xffe5], 58),
    (&["f1"], &[0xffbe], 59),
    (&["f2"], &[0xffbf], 60),
    (&["f3"], &[0xffc0], 61),
    (&["f4"], &[0xffc1], 62),
    (&["f5"], &[0xffc2], 63),
    (&["f6"], &[0xffc3], 64),
    (&["f7"], &[0xffc4], 65),
    (&["f8"], &[0xffc5], 66),
    (&["f9"], &[0xffc6], 67),
    (&["f10"], &[0xffc7], 68),
    (&["num_lock"], &[0xff7f], 69),
    (&["scroll_lock"], &[0xff14], 70),
    (&["kp_7"], &[0xffb7, 0xff95], 71),
    (&["kp_8"], &[0xffb8, 0xff97], 72),
    (&["kp_9"], &[0xffb9, 0xff9a], 73),
    (&["kp_subtract"], &[0xffad], 74),
    (&["kp_4"], &[0xffb4, 0xff96], 75),
    (&["kp_5"], &[0xffb5, 0xff9d], 76),
    (&["kp_6"], &[0xffb6, 0xff98], 77),
    (&["kp_add"], &[0xffab], 78),
    (&["kp_1"], &[0xffb1, 0xff9c], 79),
    (&["kp_2"], &[0xffb2, 0xff99], 80),
    (&["kp_3"], &[0xffb3, 0xff9b], 81),
    (&["kp_0"], &[0xffb0, 0xff9e], 82),
    (&["kp_decimal"], &[0xffae, 0xff9f], 83),
    (&["less"], &[], 86),
    (&["f11"], &[0xffc8], 87),
    (&["f12"], &[0xffc9], 88),
    (&["kp_enter"], &[0xff8d], 96),
    (&["ctrl_r"], &[0xffe4], 97),
    (&["kp_divide"], &[0xffaf], 98),
    (&["print", "sysrq"], &[0xff61, 0xff15], 99),
    (&["alt_r", "altgr"], &[0xffea, 0xffe8, 0xfe03], 100),
    (&["home"], &[0xff50], 102),
    (&["up"], &[0xff52], 103),
    (&["pgup"], &[0xff55], 104),
    (&["left"], &[0xff51], 105),
    (&["right"], &[0xff53], 106),
    (&["end"], &[0xff57], 107),
    (&["down"], &[0xff54], 108),
    (&["pgdn"], &[0xff56], 109),
    (&["insert"], &[0xff63], 110),
    (&["delete", "del"], &[0xffff], 111),
    (&["power"], &[], POWER),
    (&["pause"], &[0xff13, 0xff6b], 119),
    (&["meta", "super"], &[0xffeb], 125),
    (&["meta_r", "super_r"], &[0xffec], 126),
    (&["menu", "compose"], &[0xff67], 127),
];

/// Keys by their names, with dashes between those that are held together: `ctrl-alt-delete`, `a`, `shift-f1`, `minus`.
///
/// # Errors
/// The name that is none.
pub fn named(keys: &str) -> Result<Vec<u16>, String> {
    let one = |name: &str| {
        let lower = name.to_lowercase();
        let named = NAMED.iter().find(|(names, ..)| names.contains(&lower.as_str())).map(|n| n.2);
        let mut chars = lower.chars();
        let sign = chars.next().filter(|_| chars.next().is_none()).and_then(of_char);
        named.or_else(|| sign.filter(|(_, shift)| !shift).map(|(code, _)| code)).ok_or_else(|| name.to_owned())
    };
    if keys == "-" {
        return one(keys).map(|code| vec![code]);
    }
    keys.split('-').map(one).collect()
}

/// The key for a viewer's key symbol. A viewer sends the character that its own keyboard makes, and shift as a key of its own.
#[must_use]
pub fn of_symbol(symbol: u32) -> Option<u16> {
    let named = NAMED.iter().find(|(_, symbols, _)| symbols.contains(&symbol)).map(|n| n.2);
    let latin = || char::from_u32(symbol).filter(|_| (0x20..0x7f).contains(&symbol)).and_then(of_char);
    named.or_else(|| latin().map(|(code, _)| code))
}

/// The key for a scan code of a PC's keyboard (set 1, as XT keyboards have it; 0x80 is set for those with the prefix 0xe0), which some viewers
/// know and which says more than a symbol.
#[must_use]
pub fn of_scan_code(code: u32) -> Option<u16> {
    const PREFIXED: &[(u16, u16)] = &[
        (0x1c, 96),
        (0x1d, 97),
        (0x35, 98),
        (0x37, 99),
        (0x38, 100),
        (0x46, 119),
        (0x47, 102),
        (0x48, 103),
        (0x49, 104),
        (0x4b, 105),
        (0x4d, 106),
        (0x4f, 107),
        (0x50, 108),
        (0x51, 109),
        (0x52, 110),
        (0x53, 111),
        (0x5b, 125),
        (0x5c, 126),
        (0x5d, 127),
    ];
    match code {
        // evdev's first codes are these.
        0x01..=0x53 | 0x56..=0x58 => Some(code as u16),
        0x80..=0xff => PREFIXED.iter().find(|(scan, _)| u32::from(*scan) == code & 0x7f).map(|(_, key)| *key),
        _ => None,
    }
}

/// A viewer's pointer, which has a place, as a mouse, which only moves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pointer {
    at: Option<(u16, u16)>,
    buttons: u8,
}

impl Pointer {
    /// The pointer is here now, with these buttons down (bits 0 to 2: left, middle, right; 3 and 4: a notch of the wheel up or down): the mouse's
    /// events.
    pub fn events(&mut self, buttons: u8, x: u16, y: u16) -> Vec<u8> {
        let mut events = Vec::new();
        let (old_x, old_y) = self.at.replace((x, y)).unwrap_or((x, y));
        for (axis, from, to) in [(REL_X, old_x, x), (REL_Y, old_y, y)] {
            if from != to {
                events.push(event(kind::REL, axis, i32::from(to) - i32::from(from)));
            }
        }
        let changed = buttons ^ std::mem::replace(&mut self.buttons, buttons);
        for (bit, code) in [(0, BTN_LEFT), (1, BTN_MIDDLE), (2, BTN_RIGHT)] {
            if changed >> bit & 1 == 1 {
                events.push(key(code, buttons >> bit & 1 == 1));
            }
        }
        for (bit, notches) in [(3, 1), (4, -1)] {
            if (changed & buttons) >> bit & 1 == 1 {
                events.push(event(kind::REL, REL_WHEEL, notches));
            }
        }
        if !events.is_empty() {
            events.push(event(kind::SYN, 0, 0));
        }
        events.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_text() {
        assert_eq!(named("ctrl-alt-delete"), Ok(vec![29, 56, 111]));
        assert_eq!(named("a"), Ok(vec![30]));
        assert_eq!(named("Shift-F1"), Ok(vec![42, 59]));
        assert_eq!(named("-"), Ok(vec![12]));
        assert_eq!(named("minus"), Ok(vec![12]));
        assert_eq!(named("ctrl-/"), Ok(vec![29, 53]));
        for wrong in ["", "ctrl-", "ctrl-alt-no", "!", "é"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
        assert_eq!(text("aZ !\n"), Ok(vec![vec![30], vec![42, 44], vec![57], vec![42, 2], vec![28]]));
        assert_eq!(text("no ü"), Err('ü'));
        let whole = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
        assert!(text(whole).is_ok());
        assert_eq!(chord(&[29, 30]), [key(29, true), key(30, true), key(30, false), key(29, false)].concat());
    }

    #[test]
    fn what_viewers_send() {
        assert_eq!(
            [0x61, 0x41, 0x40, 0x20, 0xff0d, 0xffff, 0x7e].map(of_symbol),
            [30, 30, 3, 57, 28, 111, 41].map(Some)
        );
        assert_eq!([0, 0xa0, 0xfffe, u32::MAX].map(of_symbol), [None; 4]);
        assert_eq!([0x1e, 0x58, 0xd3, 0x9d].map(of_scan_code), [30, 88, 111, 97].map(Some));
        assert_eq!([0, 0x54, 0x59, 0x80, 0x100, u32::MAX].map(of_scan_code), [None; 6]);
        let mut keys: Vec<u16> = NAMED.iter().map(|n| n.2).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), NAMED.len(), "no key twice");
    }

    #[test]
    fn a_pointer_moves_a_mouse() {
        let mut pointer = Pointer::default();
        let syn = event(0, 0, 0);
        assert_eq!(pointer.events(0, 100, 100), [0; 0], "where it comes from nobody knows");
        assert_eq!(pointer.events(0, 103, 90), [event(2, 0, 3), event(2, 1, -10), syn].concat());
        assert_eq!(pointer.events(5, 103, 90), [key(0x110, true), key(0x111, true), syn].concat());
        assert_eq!(pointer.events(4, 103, 90), [key(0x110, false), syn].concat());
        assert_eq!(pointer.events(12, 103, 90), [event(2, 8, 1), syn].concat());
        assert_eq!(pointer.events(20, 103, 90), [event(2, 8, -1), syn].concat());
        assert_eq!(pointer.events(0, 103, 90), [key(0x111, false), syn].concat());
    }
}
