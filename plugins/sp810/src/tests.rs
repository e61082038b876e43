use reprise_device::conformance::Suite;
use reprise_device::host::{Effect, Instance, Plugin};

use super::*;

fn step(device: &mut Instance, event: Event<'_>) -> (u64, Vec<(u32, bool)>) {
    let (mut replied, mut lines) = (0, Vec::new());
    let mut effect = |e: Effect<'_>| match e {
        Effect::Reply { value, .. } => replied = value,
        Effect::Line { pin, level } => lines.push((pin, level)),
        _ => {}
    };
    device.step(VTime(0), event, &mut effect).unwrap();
    (replied, lines)
}

fn read(device: &mut Instance, offset: u64) -> u64 {
    step(device, Event::Read { tag: 0, offset, size: 4 }).0
}

fn write(device: &mut Instance, offset: u64, value: u64) -> Vec<(u32, bool)> {
    step(device, Event::Write { tag: 0, offset, size: 4, value }).1
}

#[test]
fn conforms() {
    Suite::new(&Plugin::of::<Sp810>(), "()").check();
    Suite::new(&Plugin::of::<Sp810>(), "(sysid: (1, 2, 3, 4))").seeds(4).check();
    assert!(Plugin::of::<Sp810>().create("(sysid: (1, 2, 3, 256))").is_err());
}

#[test]
fn timers_count_the_reference_clock_until_told_otherwise() {
    let mut d = Plugin::of::<Sp810>().create("()").unwrap();
    let (_, lines) = step(&mut d, Event::Reset);
    assert_eq!(lines, [(0, true), (1, true), (2, true), (3, true)]);
    assert_eq!(read(&mut d, reg::CTRL), 9);
    assert_eq!(write(&mut d, reg::CTRL, 1 << 15 | 1 << 19 | 4), [(0, false), (2, false)]);
    assert_eq!(read(&mut d, reg::CTRL), 1 << 15 | 1 << 19 | 4 | 4 << 3);
    assert_eq!(write(&mut d, reg::CTRL, 1 << 19), [(0, true)]);
}

#[test]
fn peripheral_clocks_are_set_and_cleared() {
    let mut d = Plugin::of::<Sp810>().create("()").unwrap();
    write(&mut d, reg::PEREN0, 0xf0);
    write(&mut d, reg::PERDIS0, 0x30);
    write(&mut d, reg::PEREN1, 0x1);
    assert_eq!((read(&mut d, reg::PERCLKEN0), read(&mut d, reg::PERSTAT1)), (0xc0, 1));
    write(&mut d, 0x1c, 0x1234_5678);
    assert_eq!(read(&mut d, 0x1c), 0x1234_5678);
    assert_eq!((read(&mut d, 0xfe0), read(&mut d, 0xfe4)), (0x10, 0x18));
}
