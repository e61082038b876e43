use reprise_device::conformance::Suite;
use reprise_device::host::Plugin;
use reprise_device::screen::testing::Rig;

use super::*;

/// 640x480 of 32 bits, as the kernel's driver sets XRGB8888.
fn vga(lcd: &mut Rig) {
    let vertical = [2, 33, 480, 10].into_iter().zip((0x200..).step_by(4));
    let horizontal = [96, 48, 640, 16].into_iter().zip((0x210..).step_by(4));
    vertical.chain(horizontal).for_each(|(n, at)| lcd.write(at, n - 1));
    let rest = [(0x100, 0x8100_0000), (0x10c, 2560), (0x240, 3 << 3), (0x244, 0x810), (0x248, 0x808), (0x24c, 0x800)];
    rest.into_iter().for_each(|(at, value)| lcd.write(at, value));
}

/// 800 x 525 pixels at 40 ns.
const LINE: u64 = 800 * 40;
const FRAME: u64 = 525 * LINE;

#[test]
fn conforms() {
    Suite::new(&Plugin::of::<Hdlcd>(), "()").values(&[1, 0x18, 0x810, 5]).seeds(20).check();
    for config in ["(clock_hz: 0)", "(clock: 1)"] {
        assert!(Plugin::of::<Hdlcd>().create(config).is_err(), "{config}");
    }
}

#[test]
fn says_what_the_screen_is() {
    let mut lcd = Rig::new::<Hdlcd>("(clock_hz: 25000000)");
    assert_eq!(lcd.read(reg::VERSION), 0x1cdc_0000);
    vga(&mut lcd);
    assert!(lcd.screen.mode.off);
    lcd.write(reg::COMMAND, 1);
    let rgb = [16, 8, 0].map(|shift| Field { shift, bits: 8 });
    let vga = Mode { width: 640, height: 480, pitch: 2560, base: 0x8100_0000, bits: 32, rgb, ..Mode::default() };
    assert_eq!(lcd.screen.mode, vga);
    lcd.write(0x10c, 4096);
    lcd.write(reg::FB_BASE, 0x8200_0007);
    assert_eq!((lcd.screen.mode.pitch, lcd.screen.mode.base), (4096, 0x8200_0000));
    // 3:3:2 in a byte, and a pitch that no memory has.
    for (at, value) in [(0x240, 0), (0x244, 0x305), (0x248, 0x302), (0x24c, 0x200), (0x10c, 0xffff_f000)] {
        lcd.write(at, value);
    }
    let mut line = Vec::new();
    lcd.screen.line(&[0xe3, 0x1c], &mut line);
    assert_eq!((lcd.screen.mode.bits, lcd.screen.mode.pitch), (8, 640));
    assert!(!lcd.screen.mode.is_indexed());
    lcd.write(reg::COMMAND, 0);
    assert!(lcd.screen.mode.off);
}

#[test]
fn frames_interrupt_when_wanted() {
    let mut lcd = Rig::new::<Hdlcd>("(clock_hz: 25000000)");
    vga(&mut lcd);
    lcd.write(reg::COMMAND, 1);
    lcd.pass(515 * LINE);
    assert_eq!((lcd.read(reg::INT_RAWSTAT), lcd.read(reg::INT_STATUS), lcd.armed), (int::DMA_END.into(), 0, None));
    lcd.write(reg::INT_MASK, int::VSYNC.into());
    assert_eq!((lcd.irq, lcd.armed), (false, Some(VTime(FRAME))));
    lcd.pass(FRAME);
    assert_eq!((lcd.irq, lcd.read(reg::INT_STATUS)), (true, int::VSYNC.into()));
    lcd.write(reg::INT_CLEAR, 0xf);
    assert_eq!((lcd.irq, lcd.armed), (false, Some(VTime(2 * FRAME))));
    // What software sets is there too.
    lcd.write(reg::INT_MASK, 0xf);
    lcd.write(reg::INT_RAWSTAT, 8);
    assert_eq!((lcd.irq, lcd.read(reg::INT_STATUS)), (true, 8));
}
