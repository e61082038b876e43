use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_device::screen::testing::Rig;

use super::*;

/// 640x480 with 96 + 48 + 16 pixels and 2 + 33 + 10 lines of blanking, undivided.
fn vga(lcd: &mut Rig) {
    lcd.write(reg::TIMING0, 47 << 24 | 15 << 16 | 95 << 8 | (640 / 16 - 1) << 2);
    lcd.write(reg::TIMING1, 33 << 24 | 10 << 16 | 1 << 10 | 479);
    lcd.write(reg::TIMING2, BYPASS.into());
    lcd.write(reg::UPBASE, 0x8100_0007);
}

fn on(lcd: &mut Rig, bits: u32) {
    lcd.write(reg::CONTROL, (bits | control::ENABLE | control::POWER | control::TFT).into());
}

/// 800 x 525 pixels at 40 ns.
const LINE: u64 = 800 * 40;
const FRAME: u64 = 525 * LINE;

#[test]
fn conforms() {
    for config in ["()", "(model: pl110, clock_hz: 1000000)", "(clock_hz: 65000000)"] {
        Suite::new(&Plugin::of::<Pl111>(), config).values(&[0x83b, 0x837, 0xc, 4, 8, BYPASS.into()]).seeds(8).check();
    }
}

#[test]
fn wrong_configs_are_refused() {
    for config in ["(clock_hz: 0)", "(clock_hz: 999_999)", "(model: pl112)", "(clock: 1)"] {
        assert!(Plugin::of::<Pl111>().create(config).is_err(), "{config}");
    }
}

#[test]
fn says_what_the_screen_is() {
    let mut lcd = Rig::new::<Pl111>("()");
    vga(&mut lcd);
    assert_eq!(lcd.said, 0, "it is off");
    on(&mut lcd, 6 << control::BPP_SHIFT);
    let rgb = [(0, 5), (5, 6), (11, 5)].map(|(shift, bits)| Field { shift, bits });
    let vga = Mode { width: 640, height: 480, pitch: 1280, base: 0x8100_0000, bits: 16, rgb, ..Mode::default() };
    assert_eq!(lcd.screen.mode, vga);
    let said = lcd.said;
    on(&mut lcd, 6 << control::BPP_SHIFT);
    assert_eq!(lcd.said, said, "nothing new");
    on(&mut lcd, 6 << control::BPP_SHIFT | control::BGR);
    assert_eq!(lcd.screen.mode, Mode { rgb: [rgb[2], rgb[1], rgb[0]], ..vga });
    lcd.write(reg::UPBASE, 0x8200_0000);
    assert_eq!(lcd.screen.mode.base, 0x8200_0000);
    on(&mut lcd, 5 << control::BPP_SHIFT | control::BEBO);
    assert_eq!((lcd.screen.mode.bits, lcd.screen.mode.pitch, lcd.screen.mode.word_reversed), (32, 2560, true));
    lcd.write(reg::CONTROL, control::ENABLE.into());
    assert!(lcd.screen.mode.off, "no power");
    on(&mut lcd, 0);
    lcd.step(Event::Reset);
    assert!(lcd.screen.mode.off);
}

#[test]
fn colours_of_the_palette() {
    let mut lcd = Rig::new::<Pl111>("()");
    vga(&mut lcd);
    lcd.write(reg::PALETTE + 4, 0x7c00_03e0);
    on(&mut lcd, 3 << control::BPP_SHIFT);
    let line = |lcd: &Rig| {
        let mut out = Vec::new();
        lcd.screen.line(&[2, 3, 1, 0], &mut out);
        out
    };
    assert_eq!(line(&lcd), [[0, 255, 0], [0, 0, 255], [0; 3], [0; 3]]);
    lcd.write(reg::PALETTE, 0x001f_0000);
    assert_eq!(line(&lcd), [[0, 255, 0], [0, 0, 255], [255, 0, 0], [0; 3]]);
    on(&mut lcd, 3 << control::BPP_SHIFT | control::BGR);
    assert_eq!(line(&lcd), [[0, 255, 0], [255, 0, 0], [0, 0, 255], [0; 3]]);
    assert_eq!(lcd.read(reg::PALETTE + 4), 0x7c00_03e0);
}

#[test]
fn frames_interrupt_when_wanted() {
    let mut lcd = Rig::new::<Pl111>("()");
    vga(&mut lcd);
    on(&mut lcd, 5 << control::BPP_SHIFT | 3 << control::VCOMP_SHIFT);
    assert_eq!((lcd.read(reg::RIS), lcd.armed), (0, None));
    lcd.pass(FRAME - 1);
    assert_eq!(lcd.read(reg::RIS), int::VCOMP.into(), "the front porch has begun, the next frame has not");
    lcd.pass(1);
    assert_eq!(lcd.read(reg::RIS), u64::from(int::LNBU | int::VCOMP));
    assert_eq!((lcd.read(reg::MIS), lcd.irq, lcd.armed), (0, false, None), "all masked: no timer");
    lcd.write(reg::IMSC, int::LNBU.into());
    assert!(lcd.irq);
    lcd.write(reg::ICR, int::LNBU.into());
    assert_eq!((lcd.irq, lcd.armed), (false, Some(VTime(2 * FRAME))));
    lcd.pass(FRAME);
    assert_eq!((lcd.irq, lcd.read(reg::MIS), lcd.armed), (true, int::LNBU.into(), None));
    // The picture ends 515 lines after the frame's beginning.
    lcd.write(reg::IMSC, int::VCOMP.into());
    lcd.write(reg::ICR, int::VCOMP.into());
    assert_eq!((lcd.irq, lcd.armed), (false, Some(VTime(2 * FRAME + 515 * LINE))));
    lcd.write(reg::CONTROL, 0);
    assert_eq!(lcd.armed, None);
    lcd.pass(10 * FRAME);
    assert_eq!(lcd.read(reg::RIS), int::LNBU.into(), "what came before it was switched off");
}

#[test]
fn current_address_follows_the_picture() {
    let mut lcd = Rig::new::<Pl111>("()");
    vga(&mut lcd);
    on(&mut lcd, 5 << control::BPP_SHIFT);
    assert_eq!(lcd.read(reg::UPCURR), 0x8100_0000);
    lcd.pass((2 + 33 + 7) * LINE);
    assert_eq!(lcd.read(reg::UPCURR), 0x8100_0000 + 7 * 640 * 4);
}

#[test]
fn the_elder_has_two_registers_swapped() {
    let mut lcd = Rig::new::<Pl111>("(model: pl110)");
    vga(&mut lcd);
    lcd.write(reg::IMSC, u64::from(control::ENABLE | control::POWER | 6 << control::BPP_SHIFT));
    assert_eq!((lcd.screen.mode.off, lcd.screen.mode.bits, lcd.screen.mode.rgb[1].bits), (false, 16, 5));
    assert_eq!(lcd.read(reg::IMSC) & 1, 1);
    lcd.write(reg::CONTROL, 0xc);
    assert_eq!((lcd.read(reg::CONTROL), lcd.armed.is_some()), (0xc, true));
    lcd.write(reg::CURSOR, 1);
    assert_eq!(lcd.read(reg::CURSOR), 0);
}

#[test]
fn the_cursor_is_stored() {
    let mut lcd = Rig::new::<Pl111>("()");
    lcd.write(reg::CURSOR, 0xffff_ffff);
    lcd.write(reg::CURSOR + 0x20, 3);
    lcd.write(reg::CURSOR_IMAGE + 8, 0x1234_5678);
    assert_eq!([reg::CURSOR, reg::CURSOR + 0x20, reg::CURSOR_IMAGE + 8].map(|at| lcd.read(at)), [0x31, 1, 0x1234_5678]);
}
