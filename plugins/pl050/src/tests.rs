use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;
use crate::event::{InputEvent, ev};

/// A driver at the registers, and a person at the keys.
struct Kmi {
    device: Instance,
    now: VTime,
    irq: bool,
    timers: [Option<VTime>; 2],
    want: u64,
    out: Vec<u8>,
}

impl Kmi {
    fn new(config: &str) -> Self {
        let device = Plugin::of::<Pl050>().create(config).unwrap();
        let mut kmi = Self { device, now: VTime(0), irq: false, timers: [None; 2], want: 0, out: Vec::new() };
        kmi.step(Event::Reset);
        kmi
    }

    /// As Linux's driver starts it.
    fn started(config: &str) -> Self {
        let mut kmi = Self::new(config);
        kmi.write(reg::CLKDIV, 2);
        kmi.write(reg::CR, cr::EN);
        kmi.write(reg::CR, cr::EN | cr::RXINTREN);
        kmi
    }

    fn step(&mut self, event: Event<'_>) -> u8 {
        let Self { device, now, irq, timers, want, out } = self;
        let mut replied = 0;
        if let Event::Timer(id) = event {
            timers[id as usize] = None;
        }
        let mut effect = |e: Effect<'_>| match e {
            Effect::Reply { value, .. } => replied = value as u8,
            Effect::Line { level, .. } => *irq = level,
            Effect::Arm { id, at } => timers[id as usize] = Some(at),
            Effect::Disarm { id } => timers[id as usize] = None,
            Effect::HostWant { bytes, .. } => *want = bytes,
            Effect::HostOut { data, .. } => out.extend(data),
            _ => {}
        };
        device.step(*now, event, &mut effect).unwrap();
        replied
    }

    fn read(&mut self, offset: u64) -> u8 {
        self.step(Event::Read { tag: 0, offset, size: 1 })
    }

    fn write(&mut self, offset: u64, value: u8) {
        self.step(Event::Write { tag: 0, offset, size: 1, value: value.into() });
    }

    /// Goes to the next timer, if it comes within `ms`.
    fn next_timer(&mut self, ms: u64) -> bool {
        let due = (0..2).filter_map(|id| self.timers[id].map(|at| (at, id as u32))).min();
        let Some((at, id)) = due.filter(|d| d.0 <= self.now.after(ms * 1_000_000)) else { return false };
        self.now = self.now.max(at);
        self.step(Event::Timer(id));
        true
    }

    /// Takes what arrives within `ms`, as an interrupt handler does.
    fn receive(&mut self, ms: u64) -> Vec<u8> {
        let end = self.now.after(ms * 1_000_000);
        let mut got = Vec::new();
        while self.next_timer(end.since(self.now) / 1_000_000) {
            while self.read(reg::IIR) & iir::RX != 0 {
                assert!(self.irq && self.read(reg::STAT) & stat::RXFULL != 0);
                got.push(self.read(reg::DATA));
            }
            assert!(!self.irq);
        }
        self.now = self.now.max(end);
        got
    }

    /// Sends bytes one by one; what is answered to all of them.
    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        for &byte in bytes {
            assert_ne!(self.read(reg::STAT) & stat::TXEMPTY, 0);
            self.write(reg::DATA, byte);
            assert_eq!(self.read(reg::STAT) & (stat::TXEMPTY | stat::TXBUSY), stat::TXBUSY);
            got.extend(self.receive(8));
        }
        got
    }

    fn input(&mut self, events: &[(u16, u16, i32)]) {
        let data: Vec<u8> =
            events.iter().flat_map(|&(kind, code, value)| InputEvent { kind, code, value }.bytes()).collect();
        assert!(self.want >= data.len() as u64, "{} wanted, {} given", self.want, data.len());
        self.step(Event::Host { port: port::EVENTS, data: &data });
    }

    fn key(&mut self, code: u16, value: i32) {
        self.input(&[(ev::KEY, code, value), (ev::SYN, 0, 0)]);
    }

    /// What a key sends when it is pressed, and when it is released.
    fn stroke(&mut self, code: u16) -> (Vec<u8>, Vec<u8>) {
        self.key(code, 1);
        let down = self.receive(20);
        self.key(code, 0);
        (down, self.receive(20))
    }
}

const MOUSE: &str = "(device: mouse)";

#[test]
fn conforms() {
    let keyboard = [0xed, 0xf0, 0xf3, 0xf4, 0xf5, 0xf2, 0xff, 0xfe, 0xee, 0, 1, 2, 7, 0x04, 0x14, 0x1c];
    let mouse = [0xf4, 0xf3, 200, 100, 80, 0xe8, 3, 0xf2, 0xf0, 0xeb, 0xea, 0xe7, 0xee, 0xec, 0xff, 0x14];
    for (config, values) in [("()", keyboard), ("(typematic: false)", keyboard), (MOUSE, mouse)] {
        Suite::new(&Plugin::of::<Pl050>(), config).values(&values).seeds(60).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(device: joystick)", "(typematic: 1)", "(keyboard: true)"] {
        assert!(Plugin::of::<Pl050>().create(config).is_err(), "{config}");
    }
}

#[test]
fn a_byte_takes_its_time_on_the_wire() {
    let mut k = Kmi::started("()");
    assert_eq!(k.read(reg::STAT), 0x43);
    k.write(reg::DATA, 0xee);
    assert_eq!((k.read(reg::STAT), k.timers[0]), (0x23, Some(VTime(1_060_000))));
    k.write(reg::DATA, 0xff);
    assert!(k.next_timer(2));
    assert_eq!(k.read(reg::STAT), 0x4b, "the echo is on its way");
    assert_eq!(k.timers[0], Some(VTime(1_060_000 + 880_000)));
    assert!(k.next_timer(1));
    assert_eq!((k.read(reg::STAT), k.irq), (0x57, true), "0xee has an even number of ones, so its parity bit is set");
    assert_eq!((k.read(reg::DATA), k.irq, k.read(reg::STAT)), (0xee, false, 0x47));
    assert_eq!(k.receive(50), [], "what was written while a byte was being sent is lost");
}

#[test]
fn interrupts_are_enabled_one_by_one() {
    let mut k = Kmi::new("()");
    k.write(reg::CR, cr::EN | cr::TXINTREN);
    assert_eq!((k.read(reg::IIR), k.irq), (iir::TX, true));
    k.write(reg::DATA, 0xee);
    assert_eq!((k.read(reg::IIR), k.irq), (0, false));
    assert!(k.next_timer(2) && k.next_timer(2));
    assert_eq!((k.read(reg::IIR), k.irq), (iir::TX, true));
    k.write(reg::CR, cr::EN | cr::RXINTREN);
    assert_eq!((k.read(reg::IIR), k.irq), (iir::RX, true));
    k.write(reg::CR, cr::EN);
    assert_eq!((k.read(reg::IIR), k.irq, k.read(reg::STAT) & stat::RXFULL), (0, false, stat::RXFULL));
}

#[test]
fn the_device_waits_until_its_byte_is_read_and_while_the_clock_is_low() {
    let mut k = Kmi::started("()");
    k.key(30, 1);
    k.key(30, 0);
    assert!(k.next_timer(2));
    assert_eq!(k.timers[0], None, "0x1c was not read");
    assert_eq!(k.read(reg::DATA), 0x1c);
    assert!(k.timers[0].is_some());
    k.write(reg::CR, cr::EN | cr::RXINTREN | cr::FKMIC | cr::FKMID);
    assert_eq!((k.read(reg::STAT), k.timers[0]), (stat::TXEMPTY, None), "0xf0 is cut off");
    k.write(reg::CR, cr::EN | cr::RXINTREN);
    assert_eq!(k.receive(5), [0xf0, 0x1c], "and sent again");
    // The same for a byte from the host.
    k.write(reg::DATA, 0xee);
    k.write(reg::CR, cr::EN | cr::RXINTREN | cr::FKMIC);
    assert_eq!(k.read(reg::STAT) & stat::TXBUSY, stat::TXBUSY);
    k.write(reg::CR, cr::EN | cr::RXINTREN);
    assert_eq!(k.receive(5), [0xee]);
}

#[test]
fn what_comes_before_the_driver_is_lost() {
    let mut k = Kmi::new("()");
    for _ in 0..100 {
        k.key(30, 1);
        k.key(30, 0);
    }
    k.write(reg::CR, cr::EN | cr::RXINTREN);
    assert_eq!(k.receive(20), []);
    k.key(48, 1);
    assert_eq!(k.receive(20), [0x32]);
}

/// The commands of Linux's atkbd, in its order.
#[test]
fn keyboard_commands() {
    let mut k = Kmi::started("()");
    assert_eq!(k.send(&[0xf2]), [0xfa, 0xab, 0x83]);
    assert_eq!(k.send(&[0xf5]), [0xfa]);
    k.key(30, 1);
    assert_eq!(k.receive(600), [], "disabled");
    assert_eq!(k.send(&[0xed, 0x02, 0xf3, 0x00, 0xf4]), [0xfa; 5]);
    assert_eq!(k.out, InputEvent { kind: ev::LED, code: 0, value: 1 }.bytes(), "Num Lock");
    assert_eq!(k.stroke(30), (vec![0x1c], vec![0xf0, 0x1c]));
    assert_eq!(k.send(&[0xff]), [0xfa, 0xaa]);
    assert_eq!(k.out[8..], InputEvent { kind: ev::LED, code: 0, value: 0 }.bytes());
    assert_eq!(k.send(&[0xee]), [0xee]);
    assert_eq!(k.send(&[0xfe]), [0xee], "the last byte again");
    assert_eq!(k.send(&[0xf0, 0x00]), [0xfa, 0xfa, 2]);
    assert_eq!(k.send(&[0xf0, 0x03]), [0xfa, 0xfe], "there is no set 3");
    for unknown in [0x00, 0x55, 0xe8, 0xef, 0xf1, 0xf8, 0xfd] {
        assert_eq!(k.send(&[unknown]), [0xfe], "{unknown:x}");
    }
    assert_eq!(k.send(&[0xed, 0xf2]), [0xfa, 0xfa, 0xab, 0x83], "a command where a parameter should be");
    assert_eq!(k.send(&[0x01]), [0xfe], "which is not waited for any more");
}

#[test]
fn scan_codes() {
    let mut k = Kmi::started("()");
    for (code, down, up) in [
        (1, &[0x76][..], &[0xf0, 0x76][..]),
        (2, &[0x16], &[0xf0, 0x16]),
        (65, &[0x83], &[0xf0, 0x83]),
        (88, &[0x07], &[0xf0, 0x07]),
        (86, &[0x61], &[0xf0, 0x61]),
        (103, &[0xe0, 0x75], &[0xe0, 0xf0, 0x75]),
        (97, &[0xe0, 0x14], &[0xe0, 0xf0, 0x14]),
        (99, &[0xe0, 0x12, 0xe0, 0x7c], &[0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12]),
        (119, &[0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77], &[]),
        (84, &[0x84], &[0xf0, 0x84]),
        (0, &[], &[]),
        (240, &[], &[]),
        (0xffff, &[], &[]),
    ] {
        assert_eq!(k.stroke(code), (down.to_vec(), up.to_vec()), "{code}");
    }
    assert_eq!(k.send(&[0xf0, 1]), [0xfa, 0xfa]);
    for (code, down, up) in [
        (30, &[0x1e][..], &[0x9e][..]),
        (103, &[0xe0, 0x48], &[0xe0, 0xc8]),
        (99, &[0xe0, 0x2a, 0xe0, 0x37], &[0xe0, 0xb7, 0xe0, 0xaa]),
        (119, &[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5], &[]),
    ] {
        assert_eq!(k.stroke(code), (down.to_vec(), up.to_vec()), "{code}");
    }
}

#[test]
fn modifiers_change_two_keys() {
    let mut k = Kmi::started("(typematic: false)");
    k.key(29, 1);
    assert_eq!(k.receive(10), [0x14]);
    assert_eq!(k.stroke(119).0, [0xe0, 0x7e, 0xe0, 0xf0, 0x7e], "Break");
    assert_eq!(k.stroke(99), (vec![0xe0, 0x7c], vec![0xe0, 0xf0, 0x7c]));
    k.key(29, 0);
    k.key(100, 1);
    assert_eq!(k.receive(10), [0xf0, 0x14, 0xe0, 0x11]);
    assert_eq!(k.stroke(99), (vec![0x84], vec![0xf0, 0x84]), "SysRq");
}

#[test]
fn each_code_is_the_code_of_one_key() {
    let mut seen = std::collections::BTreeMap::new();
    for set in [1, 2] {
        seen.clear();
        for code in (0..768).filter(|&c| c != 84) {
            let bytes = scancode::bytes(set, code, true, 0);
            assert!(bytes.len() <= scancode::LONGEST);
            if !bytes.is_empty() {
                assert_eq!(seen.insert(bytes, code), None, "set {set}, key {code}");
            }
        }
        assert_eq!(seen.len(), 86 + 19 + 37 + 2, "set {set}");
    }
}

#[test]
fn a_held_key_repeats() {
    let mut k = Kmi::started("()");
    k.key(30, 1);
    k.key(30, 2);
    assert_eq!(k.receive(490), [0x1c], "the keyboard's own repetition counts");
    let codes = k.receive(1010);
    assert_eq!(codes, [0x1c; 11], "10.9 a second");
    k.key(48, 1);
    assert_eq!(k.receive(10), [0x32], "another key takes over");
    k.key(30, 0);
    assert_eq!(k.receive(980).len(), 2 + 6);
    k.key(48, 0);
    assert_eq!(k.receive(2000), [0xf0, 0x32]);
    assert_eq!(k.send(&[0xf3, 0x00]), [0xfa, 0xfa]);
    k.key(30, 1);
    assert_eq!(k.receive(1250).len(), 1 + 30, "after 250 ms, 30 a second");
    k.step(Event::Reset);
    assert_eq!((k.timers[1], k.irq), (None, false));
}

#[test]
fn the_host_may_repeat_instead() {
    let mut k = Kmi::started("(typematic: false)");
    k.key(30, 1);
    assert_eq!(k.receive(2000), [0x1c]);
    k.key(30, 2);
    assert_eq!(k.receive(2000), [0x1c]);
}

#[test]
fn no_key_is_lost_when_nobody_reads() {
    let mut k = Kmi::started("()");
    let mut sent = 0;
    while k.want >= 8 {
        k.input(&[(ev::KEY, 99, i32::from(sent % 2 == 0))]);
        sent += 1;
    }
    assert_eq!((k.want, sent % 2), (0, 0), "no room, and the key is up");
    let got = k.receive(400);
    let full: Vec<u8> = (0..sent).flat_map(|i| scancode::bytes(2, 99, i % 2 == 0, 0)).collect();
    assert_eq!(got, full);
    assert!(k.want > 0);
}

#[test]
fn input_comes_in_any_pieces() {
    let mut k = Kmi::started("()");
    let bytes: Vec<u8> = [(ev::KEY, 30, 1), (ev::KEY, 30, 0)]
        .iter()
        .flat_map(|&(kind, code, value)| InputEvent { kind, code, value }.bytes())
        .collect();
    let whole = k.want;
    k.step(Event::Host { port: 0, data: &bytes[..3] });
    assert_eq!(k.want, whole - 3);
    k.step(Event::Host { port: 0, data: &bytes[3..13] });
    k.step(Event::Host { port: 0, data: &bytes[13..] });
    assert_eq!(k.receive(20), [0x1c, 0xf0, 0x1c]);
}

#[test]
fn an_answer_goes_before_scan_codes() {
    let mut k = Kmi::started("()");
    k.key(103, 1);
    k.write(reg::DATA, 0xee);
    assert_eq!(k.receive(20), [0xe0, 0xee, 0x75]);
}

#[test]
fn mouse_commands() {
    let mut m = Kmi::started(MOUSE);
    assert_eq!(m.send(&[0xf2]), [0xfa, 0x00]);
    assert_eq!(m.send(&[0xf6]), [0xfa]);
    assert_eq!(m.send(&[0xe9]), [0xfa, 0x00, 0x02, 100]);
    assert_eq!(m.send(&[0xe8, 3, 0xe7, 0xf3, 40, 0xf0, 0xf4]), [0xfa; 7]);
    m.key(0x110, 1);
    m.key(0x111, 1);
    assert_eq!(m.send(&[0xe9]), [0xfa, 0x75, 0x03, 40]);
    assert_eq!(m.send(&[0xe8, 4, 0xf3, 41]), [0xfa, 0xfe, 0xfa, 0xfe]);
    assert_eq!(m.send(&[0xee]), [0xfa]);
    assert_eq!(m.send(&[0xf4, 0x12, 0xfe]), [0xf4, 0x12, 0xfe], "wrapped");
    assert_eq!(m.send(&[0xec]), [0xfa]);
    assert_eq!(m.send(&[0x00, 0xf7, 0xe5]), [0xfe; 3]);
    assert_eq!(m.send(&[0xff]), [0xfa, 0xaa, 0x00]);
    assert_eq!(m.send(&[0xfe]), [0xfa, 0xaa, 0x00], "the last message again");
    assert_eq!(m.send(&[0xe9]), [0xfa, 0x05, 0x02, 100], "the buttons are still down");
}

#[test]
fn the_right_sample_rates_find_wheel_and_buttons() {
    let mut m = Kmi::started(MOUSE);
    assert_eq!(m.send(&[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2]), [[0xfa; 7].to_vec(), vec![4]].concat());
    assert_eq!(m.send(&[0xff, 0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2])[9..], [0xfa, 3]);
    assert_eq!(m.send(&[0xf4]), [0xfa]);
    m.input(&[(ev::REL, 8, 1), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(20), [0x08, 0, 0, 0xff], "away from the user");
    assert_eq!(m.send(&[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2, 0xf4])[7..], [4, 0xfa]);
    m.input(&[(ev::REL, 8, -10), (ev::KEY, 0x113, 1), (ev::KEY, 0x114, 1), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(40), [0x08, 0, 0, 0x37, 0x08, 0, 0, 0x33], "ten notches are 7 and 3");
}

#[test]
fn movements_are_packets() {
    let mut m = Kmi::started(MOUSE);
    m.input(&[(ev::REL, 0, 5), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(20), [], "reporting is off");
    assert_eq!(m.send(&[0xf4]), [0xfa]);
    m.input(&[(ev::REL, 0, 3), (ev::REL, 1, 4), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(20), [0x28, 3, 0xfc]);
    m.input(&[(ev::REL, 0, -1), (ev::KEY, 0x112, 1), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(20), [0x1c, 0xff, 0]);
    m.input(&[(ev::REL, 0, 600), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(50), [0x0c, 255, 0, 0x0c, 255, 0, 0x0c, 90, 0]);
    assert_eq!(m.send(&[0xe7]), [0xfa]);
    for (count, shown) in [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (200, 255)] {
        m.input(&[(ev::REL, 0, count), (ev::SYN, 0, 0)]);
        assert_eq!(m.receive(20), [0x0c, shown, 0], "{count}");
    }
}

#[test]
fn the_sample_rate_limits_the_packets_and_no_click_is_lost() {
    let mut m = Kmi::started(MOUSE);
    assert_eq!(m.send(&[0xf3, 10, 0xf4]), [0xfa; 3]);
    m.key(0x110, 1);
    m.key(0x110, 0);
    m.input(&[(ev::REL, 0, 1), (ev::SYN, 0, 0), (ev::REL, 0, 2), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(99), [0x09, 0, 0]);
    assert_eq!(m.receive(10), [0x08, 3, 0]);
    assert_eq!(m.receive(500), []);
    assert_eq!(m.timers, [None, None]);
    let mut clicks = 0;
    while m.want > 0 {
        m.key(0x110, i32::from(clicks % 2 == 0));
        clicks += 1;
    }
    let packets = m.receive(100 * u64::from(clicks as u32 + 1));
    assert_eq!(packets.len(), 3 * clicks);
    assert!(packets.chunks(3).enumerate().all(|(i, p)| p == [if i % 2 == 0 { 9 } else { 8 }, 0, 0]));
}

#[test]
fn remote_mode_answers_when_asked() {
    let mut m = Kmi::started(MOUSE);
    assert_eq!(m.send(&[0xf0]), [0xfa]);
    m.input(&[(ev::REL, 0, 7), (ev::SYN, 0, 0)]);
    assert_eq!(m.receive(200), []);
    assert_eq!(m.send(&[0xeb]), [0xfa, 0x08, 7, 0]);
    assert_eq!(m.send(&[0xeb]), [0xfa, 0x08, 0, 0]);
    assert_eq!(m.send(&[0xfe]), [0xfa, 0x08, 0, 0]);
}

#[test]
fn a_command_cuts_off_a_packet() {
    let mut m = Kmi::started(MOUSE);
    m.send(&[0xf4]);
    m.input(&[(ev::REL, 0, 7), (ev::SYN, 0, 0)]);
    m.write(reg::DATA, 0xe9);
    assert_eq!(m.receive(20), [0x08, 0xfa, 0x20, 0x02, 100]);
}
