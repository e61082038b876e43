//! The machine files of the repository, and every way a machine file can be wrong.

use std::path::Path;

use reprise_machine::{Backend, Boot, ClockMode, LineTarget, Machine, Overrides, Pin, Source, resolve};

fn vexpress() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/machines/vexpress.ron")).unwrap()
}

fn overrides() -> Overrides {
    Overrides { kernel: Some("zImage".into()), dtb: Some("a.dtb".into()), ..Overrides::default() }
}

#[test]
fn vexpress_resolves() {
    let source = Source::new("machines/vexpress.ron", vexpress().into_bytes()).unwrap();
    let machine = resolve(source, &overrides()).map_err(|e| e.to_string()).unwrap().machine;
    assert_eq!(machine.devices.len(), 10);
    assert_eq!(machine.memory.size, 512 << 20);
    assert_eq!(machine.gic_dist(), (0x2c00_1000, 0x1000));
    let uart = &machine.devices[machine.device_index("uart0").unwrap()];
    assert_eq!((uart.at, uart.backend), (0x1c09_0000, Backend::Console));
    assert_eq!((&uart.lines[0].pin, &uart.lines[0].to), (&Pin::Name("irq".into()), &LineTarget::Spi(5)));
    assert_eq!(machine.clock.mode, ClockMode::Warp);
    assert!(matches!(&machine.boot, Boot::Linux(l) if l.append == "console=ttyAMA0 maxcpus=1"));
    assert_eq!(Machine::from_text(&machine.to_text()).unwrap(), machine);
}
