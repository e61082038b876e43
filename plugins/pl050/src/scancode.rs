//! Scan codes of the keys (Microsoft, "Keyboard Scan Code Specification", 1.3a, and the AT keyboard's sets 1 and 2).

use crate::event::key;

/// Keys that are held and change what others send.
pub(crate) mod held {
    pub(crate) const CTRL: u8 = 3;
    pub(crate) const SHIFT: u8 = 3 << 2;
    pub(crate) const ALT: u8 = 3 << 4;
    pub(crate) const ALL: u8 = 0x3f;
}

/// The bit of a key among those that are held.
pub(crate) fn modifier(code: u16) -> u8 {
    match code {
        key::LEFT_CTRL => 1,
        key::RIGHT_CTRL => 1 << 1,
        key::LEFT_SHIFT => 1 << 2,
        key::RIGHT_SHIFT => 1 << 3,
        key::LEFT_ALT => 1 << 4,
        key::RIGHT_ALT => 1 << 5,
        _ => 0,
    }
}

/// Set 2 of the keys with the evdev codes 0 to 88; 0 where there is none. In set 1 such a key's code is its evdev code.
const PLAIN: [u8; 89] = [
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, // 0: Esc 1 2 3 4 5 6 7 8
    0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d, 0x15, 0x1d, 0x24, 0x2d, // 10: 9 0 - = Backspace Tab Q W E R
    0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, // 20: T Y U I O P [ ] Enter Ctrl
    0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, // 30: A S D F G H J K L ;
    0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a, 0x32, 0x31, // 40: ' ` Shift \ Z X C V B N
    0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, // 50: M , . / Shift KP* Alt Space Caps F1
    0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, // 60: F2 to F10, Num Lock
    0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69, // 70: Scroll Lock, KP7 8 9 - 4 5 6 + 1
    0x72, 0x7a, 0x70, 0x71, 0x00, 0x00, 0x61, 0x78, 0x07, // 80: KP2 3 0 ., the 102nd key, F11, F12
];

/// Other keys: evdev code, set 2, set 1.
const MORE: [(u16, u8, u8); 20] = [
    (85, 0x5f, 0x76),  // Zenkaku/Hankaku
    (89, 0x51, 0x73),  // Ro
    (92, 0x64, 0x79),  // Henkan
    (93, 0x13, 0x70),  // Katakana/Hiragana
    (94, 0x67, 0x7b),  // Muhenkan
    (117, 0x0f, 0x59), // KP=
    (121, 0x6d, 0x7e), // KP,
    (124, 0x6a, 0x7d), // Yen
    (183, 0x08, 0x64), // F13 to F23
    (184, 0x10, 0x65),
    (185, 0x18, 0x66),
    (186, 0x20, 0x67),
    (187, 0x28, 0x68),
    (188, 0x30, 0x69),
    (189, 0x38, 0x6a),
    (190, 0x40, 0x6b),
    (191, 0x48, 0x6c),
    (192, 0x50, 0x6d),
    (193, 0x57, 0x6e),
    (84, 0x84, 0x54), // Alt+SysRq as a key of its own
];

/// Keys whose codes come after 0xe0: evdev code, set 2, set 1.
const EXTENDED: [(u16, u8, u8); 37] = [
    (96, 0x5a, 0x1c),  // KP Enter
    (97, 0x14, 0x1d),  // right Ctrl
    (98, 0x4a, 0x35),  // KP/
    (100, 0x11, 0x38), // right Alt
    (102, 0x6c, 0x47), // Home
    (103, 0x75, 0x48), // up
    (104, 0x7d, 0x49), // Page Up
    (105, 0x6b, 0x4b), // left
    (106, 0x74, 0x4d), // right
    (107, 0x69, 0x4f), // End
    (108, 0x72, 0x50), // down
    (109, 0x7a, 0x51), // Page Down
    (110, 0x70, 0x52), // Insert
    (111, 0x71, 0x53), // Delete
    (113, 0x23, 0x20), // mute
    (114, 0x21, 0x2e), // volume down
    (115, 0x32, 0x30), // volume up
    (116, 0x37, 0x5e), // power
    (125, 0x1f, 0x5b), // left GUI
    (126, 0x27, 0x5c), // right GUI
    (127, 0x2f, 0x5d), // menu
    (128, 0x28, 0x68), // browser: stop
    (140, 0x2b, 0x21), // calculator
    (142, 0x3f, 0x5f), // sleep
    (143, 0x5e, 0x63), // wake
    (155, 0x48, 0x6c), // mail
    (156, 0x18, 0x66), // bookmarks
    (157, 0x40, 0x6b), // computer
    (158, 0x38, 0x6a), // back
    (159, 0x30, 0x69), // forward
    (163, 0x4d, 0x19), // next track
    (164, 0x34, 0x22), // play
    (165, 0x15, 0x10), // previous track
    (166, 0x3b, 0x24), // stop
    (172, 0x3a, 0x32), // home page
    (173, 0x20, 0x67), // refresh
    (217, 0x10, 0x65), // search
];

/// The most bytes that one event makes.
pub(crate) const LONGEST: usize = 8;

/// What a key that goes down (or up) sends in scan code set `set` (1 or 2), with the modifiers `held`. Nothing for a key that there is not.
pub(crate) fn bytes(set: u8, code: u16, down: bool, held: u8) -> Vec<u8> {
    match code {
        key::PAUSE => pause(set, down, held),
        key::SYSRQ => print_screen(set, down, held),
        _ => {
            let mut all = Vec::new();
            if let Some((extended, two, one)) = find(code) {
                push(&mut all, set, extended, two, one, down);
            }
            all
        }
    }
}

/// Whether it comes after 0xe0, and its codes in set 2 and set 1.
fn find(code: u16) -> Option<(bool, u8, u8)> {
    if let Some(&two) = PLAIN.get(usize::from(code)).filter(|&&two| two != 0) {
        return Some((false, two, code as u8));
    }
    let among = |list: &[(u16, u8, u8)]| list.iter().find(|k| k.0 == code).map(|k| (k.1, k.2));
    let more = among(&MORE).map(|(two, one)| (false, two, one));
    more.or_else(|| among(&EXTENDED).map(|(two, one)| (true, two, one)))
}

/// One code: in set 2 a release has 0xf0 before it, in set 1 its top bit is set.
fn push(all: &mut Vec<u8>, set: u8, extended: bool, two: u8, one: u8, down: bool) {
    if extended {
        all.push(0xe0);
    }
    match (set, down) {
        (1, true) => all.push(one),
        (1, false) => all.push(one | 0x80),
        (_, true) => all.push(two),
        (_, false) => all.extend([0xf0, two]),
    }
}

/// Print Screen sends a shift with it, unless one of Ctrl, Shift and Alt is held; with Alt it is SysRq.
fn print_screen(set: u8, down: bool, held: u8) -> Vec<u8> {
    let mut all = Vec::new();
    if held & held::ALT != 0 {
        push(&mut all, set, false, 0x84, 0x54, down);
        return all;
    }
    let shift = held & (held::CTRL | held::SHIFT) == 0;
    if shift && down {
        push(&mut all, set, true, 0x12, 0x2a, down);
    }
    push(&mut all, set, true, 0x7c, 0x37, down);
    if shift && !down {
        push(&mut all, set, true, 0x12, 0x2a, down);
    }
    all
}

/// Pause is released as soon as it is pressed, and with Ctrl it is Break.
fn pause(set: u8, down: bool, held: u8) -> Vec<u8> {
    match (down, held & held::CTRL != 0, set) {
        (false, ..) => Vec::new(),
        (true, true, 1) => vec![0xe0, 0x46, 0xe0, 0xc6],
        (true, true, _) => vec![0xe0, 0x7e, 0xe0, 0xf0, 0x7e],
        (true, false, 1) => vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
        (true, false, _) => vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
    }
}
