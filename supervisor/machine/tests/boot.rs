//! Boot images laid out in memory, and device trees patched.

use fdt::Fdt;
use reprise_machine::boot::{BootError, Images, Part, Plan, generate, plan, text, trim};
use reprise_machine::{Machine, Overrides, Source, resolve};
use vm_fdt::{FdtReserveEntry, FdtWriter};

fn machine(boot: &str, memory: &str) -> Machine {
    let text = format!(
        r#"(name: "t", cpu: (model: "cortex-a15", periphbase: 0x2c000000), memory: (base: 0x80000000, size: "{memory}"),
            gic: (dist: 0x1000, cpu: 0x2000, spis: 32), boot: {boot})"#
    );
    resolve(Source::new("m.ron", text.into_bytes()).unwrap(), &Overrides::default())
        .map_err(|e| e.to_string())
        .unwrap()
        .machine
}

fn linux(memory: &str) -> Machine {
    machine(r#"linux(kernel: "k", dtb: "d", append: "console=ttyAMA0")"#, memory)
}

/// Something with a zImage's header.
fn zimage(len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len];
    bytes[0x24..0x28].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
    bytes[0x28..0x2c].copy_from_slice(&0_u32.to_le_bytes());
    bytes[0x2c..0x30].copy_from_slice(&(len as u32).to_le_bytes());
    bytes
}

/// A small tree of the shape of vexpress-v2p-ca15-tc1's: two cells each, phandles, interrupt maps, nested buses, reserved memory.
fn board(cells: u32, with_memory: bool) -> Vec<u8> {
    let mut w = FdtWriter::new_with_mem_reserv(&[FdtReserveEntry::new(0x8100_0000, 0x1000).unwrap()]).unwrap();
    w.set_boot_cpuid_phys(0);
    let root = w.begin_node("").unwrap();
    w.property_string("model", "V2P-CA15").unwrap();
    w.property_u32("interrupt-parent", 1).unwrap();
    w.property_u32("#address-cells", cells).unwrap();
    w.property_u32("#size-cells", cells).unwrap();
    let chosen = w.begin_node("chosen").unwrap();
    w.property_string("bootargs", "old").unwrap();
    w.property_string("stdout-path", "serial0").unwrap();
    w.property_array_u64("linux,initrd-start", &[7]).unwrap();
    w.end_node(chosen).unwrap();
    let memory = |w: &mut FdtWriter, name: &str| {
        let node = w.begin_node(name).unwrap();
        w.property_string("device_type", "memory").unwrap();
        w.property_array_u64("reg", &[0x8000_0000, 0x4000_0000]).unwrap();
        w.end_node(node).unwrap();
    };
    if with_memory {
        memory(&mut w, "memory@80000000");
        memory(&mut w, "memory@880000000");
    }
    let gic = w.begin_node("interrupt-controller@2c001000").unwrap();
    w.property_null("interrupt-controller").unwrap();
    w.property_phandle(1).unwrap();
    w.end_node(gic).unwrap();
    let bus = w.begin_node("bus@8000000").unwrap();
    w.property_array_u32("interrupt-map", &[0, 0, 1, 0, 0, 4]).unwrap();
    let uart = w.begin_node("serial@90000").unwrap();
    w.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()]).unwrap();
    w.end_node(uart).unwrap();
    w.end_node(bus).unwrap();
    w.end_node(root).unwrap();
    w.finish().unwrap()
}

fn boot(machine: &Machine, dtb: &[u8], initrd: Option<&[u8]>) -> Result<Plan, BootError> {
    let kernel = zimage(0x50_1234);
    plan(machine, &Images { kernel: &kernel, dtb, initrd })
}

fn cells(plan: &Plan, tree: &Fdt<'_>, name: &str) -> u64 {
    let value = tree.find_node("/chosen").unwrap().property(name).unwrap().value;
    assert!(plan.loads.len() == 3);
    value.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

#[test]
fn linux_is_placed_and_told_where_everything_is() {
    let initrd = vec![0x5a; 0x12_3457];
    let plan = boot(&linux("512M"), &board(2, true), Some(&initrd)).unwrap();
    let at: Vec<u64> = plan.loads.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [0x8001_0000, 0x8800_0000, 0x8813_0000]);
    assert_eq!(plan.loads[1].1, initrd);
    assert_eq!(
        (plan.regs.r, plan.regs.pc, plan.regs.cpsr, plan.regs.secure),
        ([0, u32::MAX, 0x8813_0000], 0x8001_0000, 0x1d3, true)
    );
    let tree = Fdt::new(&plan.loads[2].1).unwrap();
    let memory: Vec<(usize, usize)> =
        tree.memory().regions().map(|r| (r.starting_address as usize, r.size.unwrap())).collect();
    assert_eq!(memory, [(0x8000_0000, 512 << 20)]);
    assert_eq!(tree.all_nodes().filter(|c| c.name.starts_with("memory")).count(), 1);
    assert_eq!(tree.chosen().bootargs(), Some("console=ttyAMA0"));
    assert_eq!(cells(&plan, &tree, "linux,initrd-start"), 0x8800_0000);
    assert_eq!(cells(&plan, &tree, "linux,initrd-end"), 0x8800_0000 + initrd.len() as u64);
}

#[test]
fn the_rest_of_the_tree_stays() {
    let old = board(2, true);
    let plan = boot(&linux("512M"), &old, None).unwrap();
    let new = Fdt::new(&plan.loads[1].1).unwrap();
    assert!(new.find_node("/chosen").unwrap().property("linux,initrd-start").is_none(), "there is no initrd");
    assert_eq!(new.find_node("/chosen").unwrap().property("stdout-path").unwrap().as_str(), Some("serial0"));
    assert_eq!(new.find_phandle(1).unwrap().name, "interrupt-controller@2c001000");
    let reservations: Vec<(usize, usize)> =
        new.memory_reservations().map(|r| (r.address() as usize, r.size())).collect();
    assert_eq!(reservations, [(0x8100_0000, 0x1000)]);
    let old = Fdt::new(&old).unwrap();
    let value = |t: &Fdt<'_>, path: &str, name: &str| t.find_node(path).unwrap().property(name).unwrap().value.to_vec();
    for (path, name) in [("/bus@8000000", "interrupt-map"), ("/bus@8000000/serial@90000", "compatible")] {
        assert_eq!(value(&new, path, name), value(&old, path, name));
    }
}

#[test]
fn virtio_devices_are_added_once() {
    let boot_line = r#"linux(kernel: "k", dtb: "d"), devices: [(name: "disk", plugin: "virtio-blk", at: 0x1c130000, size: 0x200, lines: {"irq": spi(9)})]"#;
    let machine = machine(boot_line, "64M");
    for cells in [1, 2] {
        let once = boot(&machine, &board(cells, true), None).unwrap();
        let tree = Fdt::new(&once.loads[1].1).unwrap();
        let node = tree.find_node("/virtio@1c130000").unwrap();
        assert_eq!(node.property("compatible").unwrap().as_str(), Some("virtio,mmio"));
        let value = |name: &str| {
            node.property(name)
                .unwrap()
                .value
                .chunks(4)
                .map(|c| u32::from_be_bytes(c.try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        let reg: &[u32] = if cells == 1 { &[0x1c13_0000, 0x200] } else { &[0, 0x1c13_0000, 0, 0x200] };
        assert_eq!((&*value("reg"), &*value("interrupts")), (reg, &[0, 9, 4][..]));
        assert_eq!(boot(&machine, &once.loads[1].1, None).unwrap(), once, "a tree that has the node keeps it");
    }
}

/// A board whose display lies two buses deep, the second one with chip selects, and leads to a transmitter.
fn board_with_display() -> Vec<u8> {
    let mut w = FdtWriter::new().unwrap();
    let root = w.begin_node("").unwrap();
    w.property_u32("#address-cells", 2).unwrap();
    w.property_u32("#size-cells", 2).unwrap();
    let bus = w.begin_node("bus@8000000").unwrap();
    w.property_u32("#address-cells", 2).unwrap();
    w.property_u32("#size-cells", 1).unwrap();
    w.property_array_u32("ranges", &[0, 0, 0, 0x0800_0000, 0x0400_0000, 3, 0, 0, 0x1c00_0000, 0x0400_0000]).unwrap();
    let fpga = w.begin_node("iofpga-bus@300000000").unwrap();
    w.property_u32("#address-cells", 1).unwrap();
    w.property_u32("#size-cells", 1).unwrap();
    w.property_array_u32("ranges", &[0, 3, 0, 0x20_0000]).unwrap();
    for (name, at) in [("clcd@1e0000", 0x1e_0000), ("clcd@1f0000", 0x1f_0000)] {
        let clcd = w.begin_node(name).unwrap();
        w.property_array_u32("reg", &[at, 0x1000]).unwrap();
        w.property_u32("memory-region", 2).unwrap();
        let port = w.begin_node("port").unwrap();
        let endpoint = w.begin_node("endpoint").unwrap();
        w.property_u32("remote-endpoint", 3).unwrap();
        w.property_phandle(at).unwrap();
        for node in [endpoint, port, clcd] {
            w.end_node(node).unwrap();
        }
    }
    for node in [fpga, bus, root] {
        w.end_node(node).unwrap();
    }
    w.finish().unwrap()
}

#[test]
fn a_display_leads_to_its_panel() {
    let boot_line = r#"linux(kernel: "k", dtb: "d"), devices: [(name: "clcd", plugin: "pl111", at: 0x1c1f0000, size: 0x1000, backend: display, panel: (width: 640, height: 480))]"#;
    let plain = machine(boot_line, "64M");
    assert_eq!(plain.devices[0].panel, None, "only if a screen was asked for");
    let text = |machine: &Machine| text(&boot(machine, &board_with_display(), None).unwrap().loads[1].1).unwrap();
    assert!(!text(&plain).contains("panel"));
    let mut shown = plain.clone();
    shown.devices[0].panel = Some(reprise_machine::Panel { width: 640, height: 480 });
    let once = boot(&shown, &board_with_display(), None).unwrap();
    let tree = Fdt::new(&once.loads[1].1).unwrap();
    let cell = |path: &str, name: &str| {
        let value = tree.find_node(path).unwrap().property(name)?.value;
        Some(u32::from_be_bytes(value.try_into().unwrap()))
    };
    let clcd = "/bus@8000000/iofpga-bus@300000000/clcd@1f0000";
    let panel = "/panel-1c1f0000";
    assert_eq!(tree.find_node(panel).unwrap().property("compatible").unwrap().as_str(), Some("panel-dpi"));
    let ends = [format!("{clcd}/port/endpoint"), format!("{panel}/port/endpoint")];
    for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        assert_eq!(cell(from, "remote-endpoint"), cell(to, "phandle"));
    }
    assert_ne!(cell(&ends[1], "phandle"), Some(0x1e_0000), "a phandle of its own");
    assert_eq!(cell(clcd, "memory-region"), None);
    let other = "/bus@8000000/iofpga-bus@300000000/clcd@1e0000";
    assert_eq!(
        (cell(other, "memory-region"), cell(&format!("{other}/port/endpoint"), "remote-endpoint")),
        (Some(2), Some(3))
    );
    let timing = format!("{panel}/panel-timing");
    assert_eq!((cell(&timing, "hactive"), cell(&timing, "vback-porch")), (Some(640), Some(33)));
    assert_eq!(boot(&shown, &once.loads[1].1, None).unwrap(), once, "a tree that has the panel keeps it");
}

#[test]
fn patching_twice_is_patching_once() {
    let once = boot(&linux("512M"), &board(2, true), None).unwrap();
    let twice = boot(&linux("512M"), &once.loads[1].1, None).unwrap();
    assert_eq!(once, twice);
}

#[test]
fn trees_with_one_cell_and_without_memory_or_bootargs() {
    let plan = boot(&linux("64M"), &board(1, false), Some(b"x")).unwrap();
    let tree = Fdt::new(&plan.loads[2].1).unwrap();
    let memory = tree.find_node("/memory@80000000").unwrap();
    assert_eq!(memory.property("reg").unwrap().value, [0x80, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(cells(&plan, &tree, "linux,initrd-end"), 0x8200_0001);
    let plain = machine(r#"linux(kernel: "k", dtb: "d")"#, "64M");
    let plan = boot(&plain, &board(2, true), None).unwrap();
    assert_eq!(
        Fdt::new(&plan.loads[1].1).unwrap().chosen().bootargs(),
        Some("old"),
        "an empty --append keeps the tree's"
    );
}

#[test]
fn what_is_no_kernel() {
    let bad = |kernel: &[u8]| {
        let error = plan(&linux("64M"), &Images { kernel, dtb: &board(2, true), initrd: None }).unwrap_err();
        assert_eq!(error.part, Part::Kernel);
        error.to_string()
    };
    assert!(bad(b"").contains("it is empty"));
    assert!(bad(b"\x7fELF and more").contains("the ELF file is damaged"));
    assert!(bad(b"some words\n").contains("it is text"));
    assert!(bad(&[0x27, 0x05, 0x19, 0x56, 0]).contains("U-Boot"));
    assert!(bad(&[0x1f, 0x8b, 8]).contains("gzip"));
    assert!(bad(&zimage(4096)[..4000]).contains("cut short"));
}

#[test]
fn kernels_that_are_no_zimage() {
    let m = linux("64M");
    let plan = |kernel: &[u8]| plan(&m, &Images { kernel, dtb: &board(2, true), initrd: Some(b"x") });
    let code = plan(&[0; 4096]).unwrap();
    assert_eq!((code.loads[0].0, code.regs.pc), (0x8000_8000, 0x8000_8000), "where arch/arm/boot/Image expects to be");
    assert_eq!(code.regs.r[1..], [u32::MAX, code.loads[2].0 as u32]);
    assert_eq!(code.dtb(), Some(code.loads[2].1.as_slice()));
    let far = plan(&elf(0x83ff_0000, 0x83ff_0001)).unwrap_err();
    assert_eq!(far.part, Part::Memory, "nothing fits behind it");
    let thumb = plan(&elf(0x8280_0000, 0x8280_0001)).unwrap();
    assert_eq!(thumb.loads[0], (0x8280_0000, b"code\0\0\0\0".to_vec()));
    assert_eq!(thumb.loads[1].0, 0x8281_0000, "the RAM disk goes behind it");
    assert_eq!((thumb.regs.pc, thumb.regs.cpsr), (0x8280_0000, 0x1f3));
    let outside = plan(&elf(0x7000_0000, 0x7000_0000)).unwrap_err();
    assert_eq!(outside.part, Part::Kernel);
    assert!(outside.to_string().contains("not all RAM"), "{outside}");
}

/// The tree of `machines/virt.ron`, as a kernel gets it.
fn virt(cpus: u32, change: impl Fn(&str) -> String) -> Plan {
    let text = change(include_str!("../../../configs/machines/virt.ron"));
    let over = Overrides {
        kernel: Some("k".into()),
        initrd: Some("i".into()),
        append: Some("quiet".into()),
        cpus: Some(cpus),
        ..Overrides::default()
    };
    let machine = resolve(Source::new("virt.ron", text.into_bytes()).unwrap(), &over).unwrap().machine;
    let dtb = generate(&machine).unwrap();
    plan(&machine, &Images { kernel: &zimage(0x1000), dtb: &dtb, initrd: Some(&[1; 1000]) }).unwrap()
}

#[test]
fn a_tree_from_the_description() {
    let two = virt(2, str::to_owned);
    assert!(!two.regs.secure, "there is no Secure state");
    insta::assert_snapshot!(text(two.dtb().unwrap()).unwrap());
    // What another writer and another reader make of it.
    let tree = Fdt::new(two.dtb().unwrap()).unwrap();
    assert_eq!(tree.cpus().count(), 2);
    assert_eq!(tree.chosen().stdout().unwrap().name, "serial@9000000");
    assert_eq!(tree.memory().regions().next().unwrap().size, Some(512 << 20));
}

#[test]
fn a_tree_shows_what_is_connected() {
    let device = r#"devices: [
        (name: "second", plugin: "pl011", at: 0x09040000, size: 0x1000, lines: { 0: spi(8) }),
        (name: "disk", plugin: "virtio-blk", at: 0x0a003e00, size: 0x200, lines: { "irq": spi(47) }),
        (name: "other", plugin: "who-knows", at: 0x09050000, size: 0x1000, lines: { "irq": spi(9) }),"#;
    let plan = virt(1, |t| {
        t.replace("devices: [", device).replace("psci: hvc", "psci: smc").replace("pmu_ppi: 7", "pmu_spi: 100")
    });
    let text = text(plan.dtb().unwrap()).unwrap();
    for what in [
        "serial0 = \"/serial@9000000\";\n\t\tserial1 = \"/serial@9040000\";",
        "virtio@a003e00 {\n\t\tcompatible = \"virtio,mmio\";\n\t\treg = <0x0 0xa003e00 0x0 0x200>;\n\t\tinterrupts = <0x0 0x2f 0x4>;\n\t\tdma-coherent;",
        "reg = <0x0 0x9040000 0x0 0x1000>;\n\t\tinterrupts = <0x0 0x8 0x4>;",
        "method = \"smc\";",
        "interrupts = <0x0 0x64 0x4>;\n\t\tinterrupt-affinity = <0x10>;",
    ] {
        assert!(text.contains(what), "{what} is not in {text}");
    }
    assert!(!text.contains("9050000"), "nobody knows what that is");
}

#[test]
fn cores_that_are_left_out_are_no_cores_for_a_kernel() {
    let given = {
        let mut w = FdtWriter::new().unwrap();
        let root = w.begin_node("").unwrap();
        w.property_u32("#address-cells", 1).unwrap();
        w.property_u32("#size-cells", 1).unwrap();
        let cpus = w.begin_node("cpus").unwrap();
        for n in 0..4 {
            let cpu = w.begin_node(&format!("cpu@{n}")).unwrap();
            w.property_string("device_type", "cpu").unwrap();
            w.property_u32("reg", n).unwrap();
            w.property_phandle(n + 1).unwrap();
            w.end_node(cpu).unwrap();
        }
        w.end_node(cpus).unwrap();
        let pmu = w.begin_node("pmu").unwrap();
        w.property_array_u32("interrupt-affinity", &[1, 2, 3, 4]).unwrap();
        w.end_node(pmu).unwrap();
        w.end_node(root).unwrap();
        w.finish().unwrap()
    };
    assert_eq!(trim(&given, 4).unwrap(), given, "all are there: nothing is touched");
    let two = trim(&given, 2).unwrap();
    let tree = Fdt::new(&two).unwrap();
    assert_eq!(tree.find_node("/cpus").unwrap().children().filter(|c| c.name.starts_with("cpu@")).count(), 2);
    let gone = tree.find_phandle(3).expect("others may still refer to it");
    assert_eq!((gone.name, gone.property("device_type").is_none()), ("absent-cpu@2", true));
    assert_eq!(gone.property("status").unwrap().as_str(), Some("disabled"));
    assert_eq!(trim(&two, 2).unwrap(), two, "trimming twice is trimming once");
    assert_eq!(trim(b"no tree", 1).unwrap_err().part, Part::Dtb);
    assert_eq!(trim(&board(2, true), 1).unwrap(), board(2, true), "it names no cores");
}

#[test]
fn memory_that_is_too_small() {
    let error = boot(&linux("4M"), &board(2, true), None).unwrap_err();
    assert_eq!(error.part, Part::Memory);
    assert!(error.to_string().contains("4 MiB can't hold the boot images; give at least 16 MiB"), "{error}");
    let error = boot(&linux("64M"), &board(2, true), Some(&vec![0; 40 << 20])).unwrap_err();
    assert!(error.fix.contains("at least 73 MiB"), "{error}");
}

#[test]
fn damaged_trees_are_errors() {
    let good = board(2, true);
    let machine = linux("64M");
    let kernel = zimage(0x1000);
    let boot = |dtb: &[u8]| plan(&machine, &Images { kernel: &kernel, dtb, initrd: None });
    let bad = |dtb: &[u8]| assert_eq!(boot(dtb).unwrap_err().part, Part::Dtb);
    bad(b"");
    bad(b"\xd0\x0d\xfe\xed");
    bad(&[0; 64]);
    for len in 1..good.len() {
        bad(&good[..len]);
    }
    bad(&vec![0; 3 << 20]);
    // Any changed byte: an error or another tree, but no panic and nothing beyond RAM.
    for at in 0..good.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut dtb = good.clone();
            dtb[at] ^= bit;
            if let Ok(plan) = boot(&dtb) {
                assert!(
                    plan.loads.iter().all(|(at, bytes)| *at >= 0x8000_0000 && at + bytes.len() as u64 <= 0x8400_0000)
                );
            }
        }
    }
}

/// An ELF file with one segment of four bytes for `paddr`, eight in memory.
fn elf(paddr: u32, entry: u32) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x01\x01\x01".to_vec();
    bytes.resize(16, 0);
    let half = |v: u16| v.to_le_bytes().to_vec();
    let word = |v: u32| v.to_le_bytes().to_vec();
    for part in [half(2), half(40), word(1), word(entry), word(52), word(0), word(0x500_0200)] {
        bytes.extend(part);
    }
    for part in [52, 32, 1, 40, 0, 0] {
        bytes.extend(half(part));
    }
    for part in [1, 84, 0xc000_0000, paddr, 4, 8, 5, 4] {
        bytes.extend(word(part));
    }
    bytes.extend(b"code");
    bytes
}

#[test]
fn bare_metal_images() {
    let raw = machine(r#"image(file: "i")"#, "1M");
    let get = |m: &Machine, bytes: &[u8]| plan(m, &Images { kernel: bytes, ..Images::default() });
    let plan = get(&raw, b"code").unwrap();
    assert_eq!(plan.loads, [(0x8000_0000, b"code".to_vec())]);
    assert_eq!((plan.regs.pc, plan.regs.cpsr, plan.regs.r), (0x8000_0000, 0x1d3, [0; 3]));
    let placed = machine(r#"image(file: "i", load: 0x80008000, entry: 0x80008001)"#, "1M");
    let plan = get(&placed, b"code").unwrap();
    assert_eq!((plan.loads[0].0, plan.regs.pc, plan.regs.cpsr), (0x8000_8000, 0x8000_8000, 0x1f3), "bit 0 says Thumb");
    let plan = get(&raw, &elf(0x8002_0000, 0x8002_0004)).unwrap();
    assert_eq!(plan.loads, [(0x8002_0000, b"code\0\0\0\0".to_vec())]);
    assert_eq!(plan.regs.pc, 0x8002_0004);
    let bad = |m: &Machine, bytes: &[u8]| get(m, bytes).unwrap_err().to_string();
    assert!(bad(&raw, b"").contains("empty"));
    assert!(bad(&placed, &elf(0x8002_0000, 0x8002_0000)).contains("remove `load`"));
    assert!(bad(&raw, &elf(0x7fff_fffc, 0x8000_0000)).contains("not all RAM"));
    assert!(bad(&raw, &elf(0x800f_fffc, 0x8000_0000)).contains("not all RAM"));
    assert!(bad(&raw, &elf(0x8002_0000, 0)).contains("entry"));
    assert!(bad(&raw, &vec![0; (1 << 20) + 1]).contains("not all RAM"));
    let good = elf(0x8002_0000, 0x8002_0000);
    for len in 4..good.len() {
        assert!(get(&raw, &good[..len]).is_err());
    }
}

#[test]
fn further_cores_wait_in_ram_that_the_kernel_leaves_alone() {
    let text = r#"(name: "t", cpu: (model: "cortex-a15", count: 2, periphbase: 0x2c000000), memory: (base: 0x80000000, size: "64M"),
        gic: (dist: 0x1000, cpu: 0x2000, spis: 32), boot: linux(kernel: "k", dtb: "d", release: 0x1c010030))"#;
    let smp = resolve(Source::new("m.ron", text.into()).unwrap(), &Overrides::default()).unwrap().machine;
    let plan = boot(&smp, &board(2, true), None).unwrap();
    let (at, stub) = &plan.loads[0];
    assert_eq!((*at, plan.secondary.pc, plan.secondary.cpsr), (0x8000_0000, 0x8000_0000, 0x1d3));
    let words: Vec<u32> = stub.chunks(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
    assert_eq!(words[11..], [0x2c00_2000, 0x1c01_0030], "the GIC's CPU interface and the register to look at");
    let tree = Fdt::new(&plan.loads[2].1).unwrap();
    let kept: Vec<(usize, usize)> = tree.memory_reservations().map(|r| (r.address() as usize, r.size())).collect();
    assert_eq!(kept, [(0x8100_0000, 0x1000), (0x8000_0000, 0x1000)]);
    let again = boot(&smp, &plan.loads[2].1, None).unwrap();
    assert_eq!(again, plan, "patching twice is patching once");
    let alone = boot(&linux("64M"), &board(2, true), None).unwrap();
    assert_eq!(alone.loads.len(), 2, "a single core needs nothing of it");
}

#[test]
fn a_bare_metal_image_gets_every_core_at_its_entry() {
    let m = machine(r#"image(file: "i", entry: 0x80000101)"#, "16M");
    let plan = plan(&m, &Images { kernel: &[0; 0x200], ..Images::default() }).unwrap();
    assert_eq!(plan.secondary, plan.regs);
    assert_eq!((plan.regs.pc, plan.regs.cpsr), (0x8000_0100, 0x1f3));
}
