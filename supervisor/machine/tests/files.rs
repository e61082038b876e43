//! The machine files of the repository, and every way a machine file can be wrong.

use std::path::{Path, PathBuf};

use reprise_machine::{
    Backend, Boot, ClockMode, ConfigError, CpuModel, Disk, DiskFormat, LineTarget, Machine, Overrides, Pin, Pins, Psci,
    Resolved, Source, Wire, WireTarget, parse_disk, resolve,
};

/// A small machine, one part a line, so that a changed line's number is known.
const GOOD: &str = r#"(
    name: "test",
    cpu: (model: "cortex-a15", periphbase: 0x2c000000),
    memory: (base: 0x80000000, size: "64M"),
    clock: (mode: warp, ns_per_insn: (1, 1)),
    gic: (dist: 0x1000, cpu: 0x2000, spis: 64),
    boot: linux(kernel: "zImage", dtb: "a.dtb", append: "x"),
    devices: [
        (name: "uart0", plugin: "pl011", at: 0x1c090000, size: 0x1000, lines: {"irq": spi(5)}, backend: console),
        (name: "timer", plugin: "sp804", at: 0x1c110000, size: 0x1000, lines: {0: device("uart0", "cts")}, config: (hz: 1, m: {1: 2})),
    ],
    bus: [(at: 0x10000000, size: 0x10000000)],
    limits: (arena: "64K"),
)
"#;

fn read(text: &str) -> Result<Resolved, ConfigError> {
    resolve(Source::new("dir/m.ron", text.as_bytes().to_vec())?, &Overrides::default())
}

/// Changes the good machine, which must then fail at this place with words that hold these.
fn fails(from: &str, to: &str, at: (usize, usize), what: &str) {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} is not unique");
    let text = GOOD.replace(from, to);
    let error = read(&text).expect_err(to);
    let printed = error.to_string();
    assert_eq!((error.line, error.column), at, "{to}: {printed}");
    assert!(printed.starts_with(&format!("dir/m.ron:{}:{}: ", at.0, at.1)), "{printed}");
    assert!(printed.contains(what), "{to}: {printed}");
    assert!(!error.fix.is_empty(), "{printed}");
}

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/machines").join(file)
}

fn open(file: &str, overrides: &Overrides) -> Resolved {
    let path = repository(file);
    let bytes = std::fs::read(&path).unwrap();
    resolve(Source::new(path, bytes).unwrap(), overrides).map_err(|e| e.to_string()).unwrap()
}

fn linux() -> Overrides {
    Overrides { kernel: Some("zImage".into()), dtb: Some("a.dtb".into()), ..Overrides::default() }
}

#[test]
fn a_size_has_a_unit() {
    let sizes = [("1", 1), ("4K", 4 << 10), ("512MiB", 512 << 20), ("1GiB", 1 << 30), ("0x10M", 16 << 20)];
    for (text, bytes) in sizes {
        assert_eq!(reprise_machine::parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["1iB", "1B", "GiB", "1TiB", ""] {
        assert!(reprise_machine::parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn vexpress_is_the_board_that_its_device_tree_describes() {
    let machine = open("vexpress.ron", &linux()).machine;
    assert_eq!(machine.memory.size, 512 << 20);
    assert_eq!(machine.cpu.pmu_spi, Some(68), "arm-pmu of the device tree");
    assert_eq!((machine.gic_dist(), machine.gic_cpu()), ((0x2c00_1000, 0x1000), (0x2c00_2000, 0x2000)));
    let spi = |name: &str| {
        let device = &machine.devices[machine.device_index(name).unwrap()];
        let spi = device.lines.iter().find_map(|l| match l.to {
            LineTarget::Spi(n) => Some(n),
            _ => None,
        });
        (device.at, spi)
    };
    assert_eq!(spi("sysreg"), (0x1c01_0000, None));
    assert_eq!(spi("sysctl"), (0x1c02_0000, None));
    for n in 0..4 {
        assert_eq!(spi(&format!("uart{n}")), (0x1c09_0000 + u64::from(n) * 0x1_0000, Some(5 + n)));
    }
    assert_eq!(spi("watchdog"), (0x1c0f_0000, Some(0)));
    assert_eq!(spi("timer01"), (0x1c11_0000, Some(2)));
    assert_eq!(spi("timer23"), (0x1c12_0000, Some(3)));
    assert_eq!(spi("rtc"), (0x1c17_0000, Some(4)));
    assert_eq!((spi("aaci"), spi("i2c-pcie")), ((0x1c04_0000, Some(11)), (0x1c03_0000, None)));
    assert_eq!((spi("keyboard"), spi("mouse")), ((0x1c06_0000, Some(12)), (0x1c07_0000, Some(13))));
    assert_eq!((spi("clcd"), spi("hdlcd")), ((0x1c1f_0000, Some(14)), (0x2b00_0000, Some(85))));
    assert_eq!(spi("blk0"), (0x1c13_0000, Some(42)), "which no device tree names");
    assert_eq!((spi("tile-watchdog"), spi("dma")), ((0x2b06_0000, Some(98)), (0x7ffb_0000, Some(92))));
    assert_eq!(machine.clock.mode, ClockMode::Warp);
    assert!(matches!(&machine.boot, Boot::Linux(l) if l.append == "console=ttyAMA0" && l.initrd.is_none()));
}

#[test]
fn vexpress_a9_is_the_board_that_its_device_tree_describes() {
    let machine = open("vexpress-a9.ron", &linux()).machine;
    assert_eq!((machine.cpu.model, machine.memory.base), (CpuModel::CortexA9, 0x6000_0000));
    assert_eq!((machine.gic_dist(), machine.gic_cpu()), ((0x1e00_1000, 0x1000), (0x1e00_0100, 0x100)));
    assert!(machine.private().map(|(_, at, _)| at).eq([0x1e00_0000, 0x1e00_0200, 0x1e00_0600]));
    assert_eq!(machine.l2(), Some((0x1e00_a000, 0x1000)));
    let devices = [
        ("sysreg", 0x1000_0000, None),
        ("sysctl", 0x1000_1000, None),
        ("i2c-pcie", 0x1000_2000, None),
        ("sd0", 0x1000_5000, Some(9)),
        ("eth0", 0x4e00_0000, Some(15)),
        ("flash0", 0x4000_0000, None),
        ("flash1", 0x4400_0000, None),
        ("aaci", 0x1000_4000, Some(11)),
        ("keyboard", 0x1000_6000, Some(12)),
        ("mouse", 0x1000_7000, Some(13)),
        ("uart0", 0x1000_9000, Some(5)),
        ("uart1", 0x1000_a000, Some(6)),
        ("uart2", 0x1000_b000, Some(7)),
        ("uart3", 0x1000_c000, Some(8)),
        ("watchdog", 0x1000_f000, Some(0)),
        ("timer01", 0x1001_1000, Some(2)),
        ("timer23", 0x1001_2000, Some(3)),
        ("i2c-dvi", 0x1001_6000, None),
        ("rtc", 0x1001_7000, Some(4)),
        ("mb-clcd", 0x1001_f000, Some(14)),
        ("clcd", 0x1002_0000, Some(44)),
        ("tile-timer", 0x100e_4000, Some(48)),
        ("tile-watchdog", 0x100e_5000, Some(51)),
    ];
    assert_eq!(machine.devices.len(), devices.len());
    for (name, at, spi) in devices {
        let device = &machine.devices[machine.device_index(name).unwrap()];
        let found = device.lines.iter().find_map(|l| match l.to {
            LineTarget::Spi(n) => Some(n),
            _ => None,
        });
        assert_eq!((device.at, found), (at, spi), "{name}");
    }
    let a15 = open("vexpress.ron", &linux()).machine;
    assert_eq!((a15.private().count(), a15.l2()), (0, None));
    let old = a15.to_text().replace("    l2: None,\n", "").replace("        quantum: 0,\n", "");
    assert!(!old.contains("l2") && !old.contains("quantum"), "{old}");
    assert_eq!(
        Machine::from_text(&old).unwrap(),
        a15,
        "recordings from before the cache and several cores stay readable"
    );
}

#[test]
fn a_machine_survives_its_text() {
    for machine in [
        open("vexpress.ron", &linux()).machine,
        open("vexpress-a9.ron", &linux()).machine,
        open("hello.ron", &Overrides::default()).machine,
        read(GOOD).unwrap().machine,
    ] {
        assert_eq!(Machine::from_text(&machine.to_text()).unwrap(), machine);
    }
}

#[test]
fn a_machine_text_is_checked_like_a_file() {
    let text = read(GOOD).unwrap().machine.to_text();
    assert!(Machine::from_text(&text.replace("67108864", "67108863")).unwrap_err().contains("impossible"));
    assert!(Machine::from_text(&text.replace("name: \"timer\"", "name: \"uart0\"")).is_err());
    assert!(Machine::from_text(&text.replacen("name", "nome", 1)).is_err());
    assert!(Machine::from_text("").is_err());
}

#[test]
fn the_hello_image_fits_its_machine() {
    let machine = open("hello.ron", &Overrides::default()).machine;
    let Boot::Image(image) = &machine.boot else { panic!("hello boots an image") };
    let bytes = std::fs::read(&image.file).unwrap();
    let images = reprise_machine::boot::Images { kernel: &bytes, ..Default::default() };
    let plan = reprise_machine::boot::plan(&machine, &images).unwrap();
    assert_eq!(plan.regs.pc, 0x8001_0000);
}

#[test]
fn the_good_machine_is_good() {
    let machine = read(GOOD).map_err(|e| e.to_string()).unwrap().machine;
    assert_eq!(machine.devices[0].backend, Backend::Console);
    assert_eq!(machine.devices[1].config, "(hz: 1, m: {1: 2})");
    assert_eq!(machine.devices[0].config, "()");
    assert_eq!(machine.devices[1].lines[0].pin, Pin::Number(0));
    assert_eq!(machine.limits.arena, 64 << 10);
    let Boot::Linux(boot) = &machine.boot else { panic!("it boots Linux") };
    assert_eq!(boot.kernel, Path::new("dir/zImage"), "paths are relative to the file");
}

#[test]
fn the_command_line_goes_before_the_file() {
    let over = Overrides {
        memory: Some(128 << 20),
        kernel: Some("k".into()),
        initrd: Some("i".into()),
        append: Some("y".into()),
        clock: Some(ClockMode::Realtime),
        ..Overrides::default()
    };
    let machine = resolve(Source::new("dir/m.ron", GOOD.into()).unwrap(), &over).unwrap().machine;
    assert_eq!((machine.memory.size, machine.clock.mode), (128 << 20, ClockMode::Realtime));
    let Boot::Linux(boot) = &machine.boot else { panic!("it boots Linux") };
    assert_eq!((boot.kernel.to_str(), boot.append.as_str()), (Some("k"), "y"));
    let over = Overrides { memory: Some(1), ..Overrides::default() };
    let error = resolve(Source::new("dir/m.ron", GOOD.into()).unwrap(), &over).unwrap_err();
    assert!(error.to_string().starts_with("--memory: RAM of 1 bytes is impossible; "), "{error}");
}

#[test]
fn a_device_has_a_disk() {
    let with = |disk: &str, given: &[&str]| {
        let text = GOOD.replacen("plugin: \"", &format!("disk: {disk}, plugin: \""), 1);
        let disks = given.iter().map(|d| parse_disk(d).unwrap()).collect();
        let over = Overrides { disks, ..Overrides::default() };
        resolve(Source::new("dir/m.ron", text.into()).unwrap(), &over)
            .map(|r| r.machine.devices.into_iter().map(|d| (d.name, d.disk)).collect::<Vec<_>>())
            .map_err(|e| e.to_string())
    };
    let disks = with("(file: \"a.img\", format: qcow2, snapshot: true)", &[]).unwrap();
    let name = disks[0].0.clone();
    let disk = Disk { file: "dir/a.img".into(), format: Some(DiskFormat::Qcow2), snapshot: true, readonly: false };
    assert_eq!(disks[0].1, Some(disk));
    assert_eq!(disks[1].1, None);
    let disks = with("(file: \"a.img\")", &[&format!("{name}=b,,c.img,readonly")]).unwrap();
    assert_eq!(disks[0].1, Some(Disk { file: "b,c.img".into(), format: None, snapshot: false, readonly: true }));
    for (disk, given, error) in [
        ("(file: \"a\", size: 3)", "", "dir/m.ron:"),
        ("(file: \"a\", format: vmdk)", "", "dir/m.ron:"),
        ("(file: \"a\", readonly: true, snapshot: true)", "", "the disk is read-only and has `snapshot`; leave"),
        ("(file: \"a\")", "nobody=x", "--disk: the machine has no device \"nobody\"; its devices are: "),
    ] {
        let given: Vec<&str> = [given].into_iter().filter(|g| !g.is_empty()).collect();
        let text = with(disk, &given).unwrap_err();
        assert!(text.contains(error), "{text}");
    }
    let twice = format!("{name}=x");
    let error = with("(file: \"a\")", &[&twice, &twice]).unwrap_err();
    assert!(error.contains("is given two disks; leave one of them out"), "{error}");
    for text in ["sd", "sd=", "sd=,readonly", "sd=x,size=3", "sd=x,"] {
        parse_disk(text).unwrap_err();
    }
    // A manifest of before has no such key.
    let machine = resolve(Source::new("m.ron", GOOD.into()).unwrap(), &Overrides::default()).unwrap().machine;
    let text = machine.to_text();
    let old: String = text.lines().filter(|l| l.trim() != "disk: None,").map(|l| format!("{l}\n")).collect();
    assert_ne!(text.trim_end(), old.trim_end());
    assert_eq!(Machine::from_text(&old).unwrap(), machine);
}

#[test]
fn several_cores() {
    let with = |cpu: &str, boot: &str, over: &Overrides| {
        let text = GOOD.replace("(model: \"cortex-a15\",", &format!("(model: \"cortex-a15\", {cpu}"));
        let text = text.replace("append: \"x\"", &format!("append: \"x\"{boot}"));
        resolve(Source::new("m.ron", text.into()).unwrap(), over).map(|r| r.machine)
    };
    let none = Overrides::default();
    let release = ", release: 0x1c010030";
    let one = with("quantum: 500,", release, &none).unwrap();
    let Boot::Linux(boot) = &one.boot else { panic!("it boots Linux") };
    assert_eq!((one.cpu.count, one.cpu.quantum, boot.release), (1, 0, None), "one core takes no turns");
    let two = with("count: 2,", release, &none).unwrap();
    let Boot::Linux(boot) = &two.boot else { panic!("it boots Linux") };
    assert_eq!((two.cpu.quantum, two.gic.interfaces, boot.release), (32_768, 2, Some(0x1c01_0030)));
    assert_eq!(Machine::from_text(&two.to_text()).unwrap(), two);
    let four = Overrides { cpus: Some(4), ..Overrides::default() };
    assert_eq!(with("count: 2, quantum: 500,", release, &four).unwrap().cpu.count, 4);
    for (cpu, boot, over, says) in [
        ("count: 5,", release, &none, "5 cores; give 1 to 4"),
        ("count: 0,", release, &none, "0 cores"),
        ("count: 2,", "", &none, "release: ADDRESS"),
        ("count: 2,", ", release: 0x1c010031", &none, "can't be released at 0x1c010031"),
        ("count: 2,", ", release: 0x80000000", &none, "can't be released at 0x80000000"),
        ("count: 2, quantum: 255,", release, &none, "a core's turn has 255 instructions"),
        ("", release, &Overrides { cpus: Some(9), ..Overrides::default() }, "--cpus: the machine has 9 cores"),
    ] {
        let error = with(cpu, boot, over).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn unknown_and_missing_keys() {
    fails("base: 0x80000000,", "bass: 0x80000000,", (4, 14), "`bass`");
    fails("    clock:", "    clack:", (5, 5), "`clack`");
    fails("size: 0x1000, lines: {\"irq\"", "size: 0x1000, wires: {\"irq\"", (9, 72), "`wires`");
    fails("mode: warp", "mode: wrap", (5, 19), "`wrap`");
    fails("boot: linux", "boot: minix", (7, 11), "`minix`");
    fails("spi(5)", "sgi(5)", (9, 87), "`sgi`");
    fails("backend: console", "backend: consol", (9, 105), "`consol`");
    fails("\"cortex-a15\"", "\"cortex-a51\"", (3, 18), "cortex-a51");
    fails(", spis: 64)", ")", (6, 36), "spis");
    fails("kernel: \"zImage\", ", "", (7, 11), "--kernel");
}

#[test]
fn keys_that_stand_twice() {
    fails(
        "    clock:",
        "    memory: (base: 0, size: 1),\n    clock:",
        (5, 5),
        "`memory` stands here twice; it is already at 4:5",
    );
    fails("spis: 64", "spis: 64, dist: 1", (6, 48), "`dist`");
    fails("{\"irq\": spi(5)}", "{\"irq\": spi(5), r\"irq\": spi(6)}", (9, 95), "`r\"irq\"`");
    fails("{1: 2}", "{1: 2, 0x1: 3}", (10, 134), "`0x1` stands here twice");
    fails("(hz: 1,", "(hz: 1, hz: 2,", (10, 124), "`hz`");
    fails("(hz: 1,", "(hz: 1, /* , hz: 2 */ \n hz : 2,", (11, 2), "`hz`");
}

#[test]
fn impossible_sizes() {
    fails("\"64M\"", "\"64Q\"", (4, 38), "`64Q` is no size");
    fails("\"64M\"", "0", (4, 38), "RAM of 0 bytes");
    fails("\"64M\"", "-5", (4, 38), "no size");
    fails("\"64M\"", "1000", (4, 38), "multiple of 64 KiB");
    fails("\"64M\"", "\"4G\"", (4, 38), "at most 2048 MiB");
    fails("\"64M\"", "\"17179869184G\"", (4, 38), "too large");
    fails("base: 0x80000000", "base: 0x80000001", (4, 20), "can't begin");
    fails("size: 0x1000, lines: {\"irq\"", "size: 0, lines: {\"irq\"", (9, 64), "impossible");
    fails("size: 0x1000, lines: {0:", "size: 0x1001, lines: {0:", (10, 64), "impossible");
    fails("at: 0x1c110000", "at: 0xfffff004", (10, 46), "can't lie");
    fails("spis: 64", "spis: 65", (6, 44), "65 SPIs");
    fails("spis: 64", "spis: 64, interfaces: 0", (6, 60), "0 CPU interfaces");
    fails("spis: 64", "spis: 64, interfaces: 9", (6, 60), "9 CPU interfaces");
    fails("dist: 0x1000", "dist: 0x10", (6, 17), "GIC can't lie");
    fails("(1, 1)", "(1, 0)", (5, 38), "1/0 ns");
    fails("\"64K\"", "\"65K\"", (13, 21), "arena");
    fails("size: 0x10000000)", "size: 0x10000001)", (12, 16), "bus range");
}

#[test]
fn private_peripherals_and_the_l2_cache() {
    let l2 = |text: &str| format!("spis: 64),\n    l2: ({text})");
    fails("spis: 64)", &l2("at: 0x1e00a010, way_size: \"64K\""), (7, 14), "no such L2 cache");
    fails("spis: 64)", &l2("at: 0x1e00a000, way_size: \"48K\""), (7, 14), "no such L2 cache");
    fails("spis: 64)", &l2("at: 0x1e00a000, way_size: \"1M\""), (7, 14), "no such L2 cache");
    fails("spis: 64)", &l2("at: 0x1e00a000, way_size: \"64K\", ways: 4"), (7, 14), "no such L2 cache");
    fails("spis: 64)", &l2("at: 0x1c090000, way_size: \"64K\""), (10, 46), "overlaps the L2 cache controller");
    fails(
        "\"cortex-a15\", periphbase: 0x2c000000",
        "\"cortex-a9\", periphbase: 0x1c090000",
        (9, 46),
        "overlaps the SCU",
    );
}

#[test]
fn virt_is_laid_out_as_everybody_expects() {
    let only_kernel = || Overrides { kernel: Some("zImage".into()), ..Overrides::default() };
    let machine = open("virt.ron", &only_kernel()).machine;
    assert_eq!((machine.gic_dist().0, machine.gic_cpu().0), (0x0800_0000, 0x0801_0000));
    assert_eq!((machine.cpu.security, machine.cpu.psci), (false, Some(Psci::Hvc)));
    let Boot::Linux(linux) = &machine.boot else { panic!("Linux") };
    assert_eq!(linux.dtb, None, "it is made");
    let places: Vec<(u64, &LineTarget)> =
        machine.devices.iter().filter_map(|d| Some((d.at, &d.lines.first()?.to))).collect();
    assert_eq!(
        places,
        [(0x0900_0000, &LineTarget::Spi(1)), (0x0901_0000, &LineTarget::Spi(2)), (0x0903_0000, &LineTarget::Spi(7))]
    );
    let slots = machine.bus.last().unwrap();
    assert_eq!((slots.at, slots.size, slots.every), (0x0a00_0000, 32 * 0x200, Some(0x200)));
    assert_eq!(slots.words, [(0, u32::from_le_bytes(*b"virt")), (4, 2)]);
    assert_eq!(Machine::from_text(&machine.to_text()).unwrap(), machine);
    let all = open("virt.ron", &Overrides { cpus: Some(4), memory: Some(3 << 30), ..only_kernel() }).machine;
    assert_eq!((all.cpu.count, all.gic.interfaces, all.memory.size), (4, 4, 3 << 30));
    let given = open("virt.ron", &Overrides { dtb: Some("a.dtb".into()), ..only_kernel() }).machine;
    let Boot::Linux(linux) = &given.boot else { panic!("Linux") };
    assert_eq!(linux.dtb.as_deref(), Some(Path::new("a.dtb")));
}

/// A recording of the time when every machine had a device tree of its own names it without `Some`.
#[test]
fn a_machine_of_an_older_recording_is_read() {
    let machine = read(GOOD).unwrap().machine;
    let new = machine.to_text();
    let old = new.replace("dtb: Some(\"dir/a.dtb\")", "dtb: \"dir/a.dtb\"");
    assert_ne!(old, new);
    let added = ["security: true,", "psci: None,", "pmu_ppi: None,", "words: [],", "every: None,"];
    let old: Vec<&str> = old.lines().filter(|l| !added.contains(&l.trim())).collect();
    assert_eq!(old.len(), new.lines().count() - added.len());
    assert_eq!(Machine::from_text(&old.join("\n")).unwrap(), machine);
}

#[test]
fn device_trees_and_firmware() {
    assert!(read(&GOOD.replace(", dtb: \"a.dtb\"", "")).is_ok(), "all of it can be shown");
    let unknown = GOOD.replace(", dtb: \"a.dtb\"", "").replace("sp804", "sp810");
    let error = read(&unknown).unwrap_err().to_string();
    assert!(
        error.contains("m.ron:7:11: the machine has no device tree, and none is made for plugin \"sp810\""),
        "{error}"
    );
    let made = GOOD.replace("dtb: \"a.dtb\"", "dtb: generated");
    let Boot::Linux(linux) = read(&made).unwrap().machine.boot else { panic!("Linux") };
    assert_eq!(linux.dtb, None);
    let cpu = "periphbase: 0x2c000000";
    fails(cpu, "periphbase: 0x2c000000, count: 2", (7, 11), "or `cpu.psci`");
    assert!(read(&GOOD.replace(cpu, "periphbase: 0x2c000000, count: 2, psci: smc")).is_ok());
    fails(cpu, "periphbase: 0x2c000000, psci: hvd", (3, 62), "");
    fails(cpu, "periphbase: 0x2c000000, pmu_ppi: 11", (3, 65), "can't have PPI 11");
    fails(cpu, "periphbase: 0x2c000000, pmu_ppi: 7, pmu_spi: 7", (3, 65), "two interrupts");
    let bus = "size: 0x10000000)";
    fails(bus, "size: 0x10000000, every: 0x300)", (12, 16), "every 0x300");
    fails(bus, "size: 0x10000000, every: 0x100, words: [(0x100, 1)])", (12, 16), "impossible");
    fails(bus, "size: 0x10000000, words: [(2, 1)])", (12, 16), "impossible");
    fails(bus, "size: 0x10000000, words: [(4, 1), (4, 2)])", (12, 16), "given twice");
}

#[test]
fn ranges_that_overlap() {
    fails("at: 0x1c110000", "at: 0x1c090ffc", (10, 46), "overlaps \"uart0\" (0x1c090000..=0x1c090fff)");
    fails("at: 0x1c110000", "at: 0x83fffffc", (10, 46), "overlaps RAM");
    fails("at: 0x1c110000", "at: 0x2c001800", (10, 46), "overlaps the GIC distributor");
    fails("at: 0x1c110000", "at: 0x2c003ffc", (10, 46), "overlaps the GIC CPU interface");
    fails("cpu: 0x2000", "cpu: 0x1800", (6, 30), "overlaps the GIC distributor");
    fails("bus: [(at: 0x10000000", "bus: [(at: 0x78000000", (12, 16), "overlaps RAM");
    fails("size: \"64M\"", "size: \"64M\", aliases: [(at: 0x82000000, size: \"64M\")]", (4, 60), "overlaps RAM");
    fails("size: \"64M\"", "size: \"64M\", aliases: [(at: 0, size: \"128M\")]", (4, 60), "more than there is");
}

#[test]
fn names_pins_and_targets() {
    fails("name: \"timer\"", "name: \"uart0\"", (10, 16), "two devices are called \"uart0\"");
    fails("name: \"timer\"", "name: \"Timer!\"", (10, 16), "no device name");
    fails("plugin: \"sp804\"", "plugin: \"../x\"", (10, 33), "no plugin name");
    fails("spi(5)", "spi(64)", (9, 87), "no SPI 64");
    fails("periphbase: 0x2c000000", "periphbase: 0x2c000000, pmu_spi: 64", (3, 65), "no SPI 64");
    fails("periphbase: 0x2c000000", "periphbase: 0x2c000000, pmu_spi: 5", (3, 65), "\"uart0\" drives");
    fails("device(\"uart0\"", "device(\"uart1\"", (10, 83), "no device \"uart1\"; the devices are: uart0, timer");
    fails("{0: device", "{-1: device", (10, 80), "no pin");
    fails("config: (hz", "backend: console, config: (hz", (10, 117), "\"uart0\" has the console already");
}

#[test]
fn what_is_no_ron() {
    fails("devices: [", "devices: {", (8, 13), "");
    fails("name: \"test\",", "name: \"test,", (3, 19), "");
    let error = read(&GOOD[..GOOD.len() - 3]).unwrap_err();
    assert!(error.line >= 13, "{error}");
    assert_eq!(read("").unwrap_err().line, 1);
    let deep = format!("({}", "[".repeat(100_000));
    assert!(read(&deep).unwrap_err().to_string().contains("nest too deeply"));
}

#[test]
fn bytes_that_are_no_text() {
    let error = Source::new("m.ron", b"(\n  name: \"\xff\"".to_vec()).unwrap_err();
    assert_eq!(error.to_string().split("; ").next(), Some("m.ron:2:10: this is no UTF-8 text"));
    assert!(Source::new("m.ron", vec![b' '; (1 << 20) + 1]).is_err());
}

/// xorshift64*: the same bytes each time.
fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_mebibyte_of_noise_is_an_error() {
    assert!(Source::new("m.ron", noise(1 << 20, 1)).is_err());
    // The same as text, and out of RON's own characters, so that the scanner and the parser get to work.
    for seed in 1..20 {
        let ascii: Vec<u8> = noise(1 << 16, seed).iter().map(|b| b & 0x7f).collect();
        assert!(resolve(Source::new("m.ron", ascii).unwrap(), &Overrides::default()).is_err());
        let words = b"([{}]):,\"'r#/*\n 0x1ab_";
        let ron: Vec<u8> = noise(1 << 14, seed).iter().map(|b| words[*b as usize % words.len()]).collect();
        assert!(resolve(Source::new("m.ron", ron).unwrap(), &Overrides::default()).is_err());
    }
}

#[test]
fn no_changed_byte_makes_it_panic() {
    for at in 0..GOOD.len() {
        for byte in [b'(', b')', b'"', b',', b'0', b'x', b' ', b'{', b'/', b'*', b':', b'\''] {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            // An error or not: the place must be inside the text.
            if let Err(e) = resolve(Source::new("m.ron", text).unwrap(), &Overrides::default()) {
                assert!(e.line >= 1 && e.line <= 16 && e.column >= 1, "{e}");
            }
        }
    }
}

#[test]
fn pins_are_bound_by_name_and_number() {
    let Resolved { machine, spans } = read(GOOD).unwrap();
    let pins = |outputs: &[&str], inputs: &[&str]| Pins {
        outputs: outputs.iter().map(|s| s.to_string()).collect(),
        inputs: inputs.iter().map(|s| s.to_string()).collect(),
    };
    let good = [pins(&["dma", "irq"], &["cts"]), pins(&["irq"], &[])];
    let wires = machine.wire(&good, Some(&spans)).unwrap();
    let uart = Wire { device: 0, pin: 1, to: WireTarget::Spi(5) };
    let timer = Wire { device: 1, pin: 0, to: WireTarget::Device { device: 0, pin: 0 } };
    assert_eq!(wires, [uart, timer]);
    let error = machine.wire(&[pins(&["dma"], &["cts"]), pins(&["irq"], &[])], Some(&spans)).unwrap_err();
    assert_eq!(error, "dir/m.ron:9:80: \"uart0\" has no output pin \"irq\"; its output pins are: dma");
    let error = machine.wire(&[pins(&["irq"], &[]), pins(&["irq"], &[])], Some(&spans)).unwrap_err();
    assert_eq!(error, "dir/m.ron:10:83: \"uart0\" has no input pins; remove the line");
    let error = machine.wire(&[pins(&["irq"], &["cts"]), pins(&[], &[])], None).unwrap_err();
    assert_eq!(error, "\"timer\" has no output pins; remove the line");
}

#[test]
fn errors_that_show_later_point_into_the_file() {
    let Resolved { spans, .. } = read(GOOD).unwrap();
    assert!(spans.kernel("x", "y").to_string().starts_with("dir/m.ron:7:25: x; y"));
    assert!(spans.plugin(1, "x", "y").to_string().starts_with("dir/m.ron:10:33: "));
    assert!(spans.config(1, Some((1, 6)), "x").to_string().starts_with("dir/m.ron:10:121: x"));
    assert!(spans.config(1, None, "x").to_string().starts_with("dir/m.ron:10:116: x"));
    let Resolved { spans, .. } = resolve(Source::new("dir/m.ron", GOOD.into()).unwrap(), &linux()).unwrap();
    assert_eq!(spans.kernel("x", "y").to_string(), "--kernel: x; y");
}
