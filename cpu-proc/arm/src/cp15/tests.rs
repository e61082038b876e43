use super::*;
use crate::bus::{After, At, BusFault};
use crate::mmu::View;
use crate::psr::Mode;

/// A bus with nothing on it; guest time is 10 ns per instruction, the IRQ line is high.
struct Empty;

impl Bus for Empty {
    fn read(&mut self, _: At, _: u64, _: u8) -> Result<(u64, After), BusFault> {
        Err(BusFault)
    }

    fn write(&mut self, _: At, _: u64, _: u8, _: u64) -> Result<After, BusFault> {
        Err(BusFault)
    }

    fn vtime(&self, icount: u64) -> u64 {
        icount * 10
    }

    fn lines(&self) -> (bool, bool) {
        (true, false)
    }
}

struct Rig {
    cpu: Cpu,
    ram: GuestRam,
    _mem: Vec<u64>,
}

impl Rig {
    fn new() -> Rig {
        let mut mem = vec![0u64; 0x1_0000 / 8];
        // SAFETY: `_mem` keeps the allocation.
        let ram = unsafe { GuestRam::new(mem.as_mut_ptr().cast(), 0x8000_0000, 0x1_0000) };
        Rig { cpu: Cpu::new(Model::cortex_a15(0, 2, 0x2c00_0000, 100_000_000)), ram, _mem: mem }
    }

    fn mrc(&mut self, name: &str) -> Result<u64, Undefined> {
        read(&mut self.cpu, &self.ram, &mut Empty, encoding(name))
    }

    fn mcr(&mut self, name: &str, v: u64) -> Result<SysAfter, Undefined> {
        write(&mut self.cpu, &self.ram, &mut Empty, encoding(name), v)
    }
}

fn encoding(name: &str) -> SysReg {
    lines().find(|l| l.name == name).unwrap_or_else(|| panic!("no {name}")).reg
}

#[test]
fn table_has_no_doubles_and_finds_itself() {
    let (a15, a9) = (Model::cortex_a15(0, 1, 0, 1), Model::cortex_a9(0, 1, 0));
    for l in lines() {
        let found = [&a15, &a9].map(|m| find(m, l.reg).map(|l| l.name));
        assert!(found.iter().flatten().all(|n| *n == l.name), "{}", l.name);
        assert!(found.iter().any(Option::is_some), "{}", l.name);
    }
    for m in [&a15, &a9] {
        assert!(find(m, SysReg::new(15, 0, 11, 0, 1)).is_none());
        assert!(find(m, SysReg::new(15, 4, 0, 0, 0)).is_none(), "VPIDR: no Virtualization Extensions");
        assert!(find(m, SysReg::wide(15, 4, 14)).is_none(), "CNTVOFF");
    }
}

/// What Linux's start-up code for Cortex-A9 reads and writes (proc-v7.S, cacheinfo, hw_breakpoint.c, suspend), and what must not be there.
#[test]
fn cortex_a9() {
    let mut rig = Rig::new();
    rig.cpu = Cpu::new(Model::cortex_a9(2, 4, 0x1e00_0000));
    for (name, value) in [
        ("MIDR", 0x410f_c090),
        ("MPIDR", 0x8000_0002),
        ("CTR", 0x8003_8003),
        ("ID_PFR0", 0x1131),
        ("ID_PFR1", 0x11),
        ("ID_DFR0", 0x0001_0444),
        ("ID_MMFR0", 0x0010_0103),
        ("ID_MMFR3", 0x2111),
        ("ID_ISAR0", 0x0010_1111),
        ("ID_ISAR4", 0x0011_1142),
        ("ID_ISAR5", 0),
        ("CLIDR", 0x0920_0003),
        ("CCSIDR", 0x701f_e019),
        ("DBGDIDR", 0x3514_1000),
        ("CBAR", 0x1e00_0000),
        ("SCTLR", 0x00c5_0078),
        ("PMCR", 0x4109_3000),
        ("PLEIDR", 0),
        ("TLB entry PA", 0),
    ] {
        assert_eq!(rig.mrc(name), Ok(value), "{name}");
    }
    for name in
        ["CNTFRQ", "CNTPCT", "PMCEID0", "PMOVSSET", "AMAIR0", "L2CTLR", "L2ACTLR", "DBGDSCRext", "DBGBVR0", "DBGOSLSR"]
    {
        assert_eq!(rig.mrc(name), Err(Undefined), "{name}");
    }
    assert_eq!(read(&mut rig.cpu, &rig.ram, &mut Empty, SysReg::wide(15, 0, 2)), Err(Undefined), "TTBR0 as 64 bits");
    for (name, written, reads) in [
        ("ACTLR", 0xffff_ffff, 0x3cf),
        ("ACTLR", 0x41, 0x41),
        ("Diagnostic", 0x0040_1040, 0x0040_1040),
        ("Power control", 0xffff_ffff, 0x701),
        ("TLB lockdown", 0xffff_ffff, 0x3000_0001),
        ("TTBCR", 0x8000_0001, 1),
        // CP15BEN and the bits that came with the Virtualization Extensions are fixed.
        ("SCTLR", 0xffff_ffff, 0x72c5_7c7f),
        ("SCTLR", 0, 0x00c5_0078),
    ] {
        rig.mcr(name, written).unwrap();
        assert_eq!(rig.mrc(name), Ok(reads), "{name} after {written:#x}");
    }
    assert_eq!(rig.cpu.halt, None);
    let a15 = Rig::new();
    let own = |m: &Model| ["Diagnostic", "Power control", "NEON busy"].map(|n| find(m, encoding(n)).is_some());
    assert_eq!((own(&rig.cpu.model), own(&a15.cpu.model)), ([true; 3], [false; 3]));
}

/// Values that Linux's start-up code decides by (proc-v7.S, cacheinfo, hw_breakpoint.c, arch_timer).
#[test]
fn identification() {
    let mut rig = Rig::new();
    for (name, value) in [
        ("MIDR", 0x414f_c0f0),
        ("CTR", 0x8444_c004),
        ("MPIDR", 0x8000_0000),
        ("TLBTR", 0),
        ("ID_MMFR0", 0x1020_1105),
        ("CLIDR", 0x0a20_0023),
        ("DBGDIDR", 0x3515_f021),
        ("CBAR", 0x2c00_0000),
        ("L2CTLR", 0x0100_0000),
        ("SCTLR", 0x00c5_0078),
        ("CNTFRQ", 100_000_000),
        ("ISR", 0x80),
    ] {
        assert_eq!(rig.mrc(name), Ok(value), "{name}");
    }
    assert_eq!(rig.mrc("ID_PFR1").unwrap() >> 12 & 0xf, 0, "no Virtualization Extensions");
    for (sel, value) in [(0, 0x701f_e00a), (1, 0x201f_e00a), (2, 0x711f_e07a), (3, 0)] {
        rig.mcr("CSSELR", sel).unwrap();
        assert_eq!(rig.mrc("CCSIDR"), Ok(value));
    }
    let reserved = SysReg::new(15, 0, 0, 5, 3);
    assert_eq!(read(&mut rig.cpu, &rig.ram, &mut Empty, reserved), Ok(0));
    assert!(rig.mcr("MIDR", 0).is_err());
}

#[test]
fn rights_of_user_mode() {
    let mut rig = Rig::new();
    rig.mcr("TPIDRURO", 77).unwrap();
    rig.cpu.set_mode(Mode::Usr);
    assert_eq!(rig.mrc("TPIDRURO"), Ok(77));
    assert!(rig.mcr("TPIDRURO", 1).is_err());
    assert!(rig.mcr("TPIDRURW", 5).is_ok());
    for name in ["SCTLR", "TTBR0", "TPIDRPRW", "MIDR", "PMCCNTR", "CNTPCT", "CNTVCT", "CNTV_CTL", "CNTFRQ"] {
        assert!(rig.mrc(name).is_err(), "{name}");
    }
    for name in ["TLBIALL", "DCCISW", "ICIALLU"] {
        assert!(rig.mcr(name, 0).is_err(), "{name}");
    }
    for name in ["CP15ISB", "CP15DSB", "CP15DMB"] {
        assert!(rig.mcr(name, 0).is_ok(), "{name}");
        assert!(rig.mrc(name).is_err(), "{name} can't be read");
    }
    assert_eq!(rig.mrc("DBGDSCRint"), Ok(0));
    rig.cpu.set_mode(Mode::Svc);
    rig.mcr("DBGDSCRext", u64::from(cp14::DSCR_UDCCDIS)).unwrap();
    rig.mcr("CNTKCTL", 0b10).unwrap();
    rig.mcr("PMUSERENR", 1).unwrap();
    rig.mcr("SCTLR", 0).unwrap();
    rig.cpu.set_mode(Mode::Usr);
    assert!(rig.mrc("DBGDSCRint").is_err());
    assert!(rig.mrc("CNTVCT").is_ok() && rig.mrc("CNTFRQ").is_ok() && rig.mrc("CNTPCT").is_err());
    assert!(rig.mrc("PMCCNTR").is_ok() && rig.mrc("PMINTENSET").is_err());
    assert!(rig.mcr("CP15ISB", 0).is_err(), "SCTLR.CP15BEN is clear");
}

#[test]
fn security_states() {
    let mut rig = Rig::new();
    rig.mcr("VBAR", 0x1000).unwrap();
    rig.mcr("NSACR", !0).unwrap();
    rig.cpu.set_mode(Mode::Mon);
    let after = rig.mcr("SCR", 1).unwrap();
    assert!(after.context);
    assert_eq!(rig.mrc("VBAR"), Ok(0x1000), "Monitor mode is Secure");
    rig.cpu.set_mode(Mode::Svc);
    assert!(!rig.cpu.is_secure());
    assert_eq!(rig.mrc("VBAR"), Ok(0));
    rig.mcr("VBAR", 0x2000).unwrap();
    assert!(rig.mrc("SCR").is_err() && rig.mrc("MVBAR").is_err());
    assert!(rig.mcr("NSACR", 0).is_err());
    assert_eq!(rig.mrc("NSACR"), Ok(0x0017_8c00));
    rig.cpu.set_mode(Mode::Mon);
    rig.mcr("SCR", 0).unwrap();
    assert_eq!(rig.mrc("VBAR"), Ok(0x1000));
}

#[test]
fn writable_bits() {
    let mut rig = Rig::new();
    rig.mcr("SCTLR", 0xffff_ffff).unwrap();
    let set = rig.mrc("SCTLR").unwrap();
    rig.mcr("SCTLR", 0).unwrap();
    let clear = rig.mrc("SCTLR").unwrap();
    assert_eq!((set, clear), (0x72dd_3c7f, 0x00c5_0058));
    rig.mcr("CPACR", 0xffff_ffff).unwrap();
    assert_eq!(rig.mrc("CPACR"), Ok(0xc0f0_0000));
    rig.mcr("VBAR", 0xffff_ffff).unwrap();
    assert_eq!(rig.mrc("VBAR"), Ok(0xffff_ffe0));
    rig.mcr("TTBCR", 0x7fff_ffff).unwrap();
    assert_eq!(rig.mrc("TTBCR"), Ok(0x37));
    rig.mcr("FCSEIDR", !0).unwrap();
    assert_eq!(rig.mrc("FCSEIDR"), Ok(0));
}

#[test]
fn vfp_access() {
    let mut rig = Rig::new();
    assert!(!rig.cpu.cp10_allowed());
    rig.mcr("CPACR", 1 << 20 | 1 << 22).unwrap();
    assert!(rig.cpu.cp10_allowed() && !rig.cpu.vfp_enabled());
    rig.cpu.fpexc = 1 << 30;
    assert!(rig.cpu.vfp_enabled() && rig.cpu.neon_enabled());
    rig.cpu.set_mode(Mode::Usr);
    assert!(!rig.cpu.cp10_allowed(), "privileged only");
    rig.cpu.set_mode(Mode::Svc);
    rig.mcr("CPACR", 0x80f0_0000).unwrap();
    assert!(rig.cpu.vfp_enabled() && !rig.cpu.neon_enabled(), "ASEDIS");
    rig.cpu.set_mode(Mode::Usr);
    assert!(rig.cpu.vfp_enabled());
}

#[test]
fn timer_registers() {
    let mut rig = Rig::new();
    rig.cpu.icount = 1000; // 10 us: 1000 ticks at 100 MHz
    assert_eq!(rig.mrc("CNTVCT"), Ok(1000));
    let after = rig.mcr("CNTV_TVAL", 500).unwrap();
    assert!(after.exit, "the deadline may have moved");
    rig.mcr("CNTV_CTL", 1).unwrap();
    assert_eq!(rig.mrc("CNTV_CVAL"), Ok(1500));
    assert_eq!(rig.cpu.timer.deadline(10_000), Some(15_000));
    rig.cpu.icount = 1500;
    assert_eq!(rig.mrc("CNTV_CTL"), Ok(5));
    rig.mcr("CNTP_CVAL", 0x1_0000_0001).unwrap();
    assert_eq!(rig.mrc("CNTP_TVAL"), Ok((0x1_0000_0001u64 - 1500) & 0xffff_ffff));
}

/// What hw_breakpoint.c does on a v7.1 debug core: it must end with monitor mode on and working breakpoint registers.
#[test]
fn debug_probe_of_linux() {
    let mut rig = Rig::new();
    let didr = rig.mrc("DBGDIDR").unwrap();
    assert_eq!((didr >> 16 & 0xf, didr >> 24 & 0xf, didr >> 28), (5, 5, 3), "v7.1, 6 breakpoints, 4 watchpoints");
    assert_eq!(rig.mrc("DBGPRSR").unwrap() & 1, 1, "powered");
    assert_eq!(rig.mrc("DBGOSDLR").unwrap() & 1, 0);
    rig.mcr("DBGOSLAR", 0xc5ac_ce55).unwrap();
    assert_eq!(rig.mrc("DBGOSLSR").unwrap() & 2, 2);
    rig.mcr("DBGOSLAR", 0).unwrap();
    assert_eq!(rig.mrc("DBGOSLSR").unwrap() & 2, 0);
    rig.mcr("DBGVCR", 0).unwrap();
    rig.mcr("DBGDSCRext", 1 << 15).unwrap();
    assert_eq!(rig.mrc("DBGDSCRint").unwrap() >> 15 & 1, 1, "MDBGen");
    let control = 0xff << 5 | 3 << 3 | 2 << 1;
    rig.mcr("DBGWCR0", control).unwrap();
    assert_eq!(rig.mrc("DBGWCR0"), Ok(control), "watchpoints of eight bytes");
}

/// A one-section address space, its invalidation by register, and by a change of the regime.
#[test]
fn tlb_operations() {
    let mut rig = Rig::new();
    let va = 0x0010_0000u32;
    let section = |pa: u32| pa | 3 << 10 | 3 << 2 | 2 | 1 << 17;
    rig.ram.write(0x8000_4000 + 4, &section(0x8000_0000).to_le_bytes()).unwrap();
    rig.mcr("TTBR0", 0x8000_4000).unwrap();
    rig.mcr("DACR", 1).unwrap();
    rig.mcr("CONTEXTIDR", 0x1_2305).unwrap();
    assert!(rig.mcr("SCTLR", 0x00c5_0079).unwrap().context);
    let operations: [(&str, u64); 7] = [
        ("TLBIALL", 0),
        ("TLBIALLIS", 0),
        ("TLBIMVA", u64::from(va) | 5),
        ("TLBIMVAAIS", u64::from(va)),
        ("TLBIASID", 5),
        ("DTLBIMVA", u64::from(va) | 5),
        ("PRRR, MAIR0", 0x1234),
    ];
    for (name, value) in operations {
        rig.cpu.translate(&rig.ram, va, crate::mmu::Access::Read, View::Current).unwrap();
        assert_ne!(rig.cpu.mmu.read_addend(va), 0);
        for (other, v) in
            [("TLBIMVA", u64::from(va) | 6), ("TLBIASID", 6), ("TTBR0", 0x8000_4000), ("PRRR, MAIR0", 0x9_8aa4)]
        {
            if other != name && (other != "PRRR, MAIR0") {
                rig.mcr(other, v).unwrap();
            }
        }
        assert_ne!(rig.cpu.mmu.read_addend(va), 0, "before {name}");
        rig.mcr(name, value).unwrap();
        assert_eq!(rig.cpu.mmu.read_addend(va), 0, "{name}");
    }
    rig.mcr("ATS1CPW", u64::from(va | 0x4321)).unwrap();
    assert_eq!(rig.mrc("PAR").unwrap() & 0xffff_f001, 0x8000_4000);
    rig.mcr("ATS1CUR", 0x4000_0000).unwrap();
    assert_eq!(rig.mrc("PAR"), Ok(0b00101 << 1 | 1), "translation fault, first level");
}

/// TTBCR.EAE changes the format of TTBCR, TTBR0/1, MAIR and PAR.
#[test]
fn long_descriptors() {
    let mut rig = Rig::new();
    let ttbr = |n: u32| SysReg::wide(15, n, 2);
    // A 1 GiB block over all of RAM at 0x40000000.
    rig.ram.write(0x8000_4008, &(0x8000_0000u64 | 1 << 10 | 1 << 2 | 1).to_le_bytes()).unwrap();
    rig.mcr("TTBCR", 1 << 31 | 0x7fff_ffff).unwrap();
    assert_eq!(rig.mrc("TTBCR"), Ok(0xbfc7_3f87));
    assert!(rig.mcr("TTBCR", 1 << 31).unwrap().context);
    rig.mcr("PRRR, MAIR0", 0x00ff_ff00).unwrap();
    assert_eq!(rig.mrc("PRRR, MAIR0"), Ok(0x00ff_ff00));
    let asid = 0x42u64 << 48;
    let after = write(&mut rig.cpu, &rig.ram, &mut Empty, ttbr(0), asid | 0x8000_4000).unwrap();
    assert!(after.context, "the ASID may have changed");
    assert_eq!(read(&mut rig.cpu, &rig.ram, &mut Empty, ttbr(0)), Ok(asid | 0x8000_4000));
    assert_eq!(rig.mrc("TTBR0"), Ok(0x8000_4000));
    assert_eq!(rig.cpu.cp15.asid(0), 0x42);
    write(&mut rig.cpu, &rig.ram, &mut Empty, ttbr(1), !0).unwrap();
    assert_eq!(rig.cpu.cp15.ttbr1[0], 0x00ff_00ff_ffff_ffff);
    rig.mcr("SCTLR", 0x00c5_0079).unwrap();
    rig.mcr("ATS1CPW", 0x4000_1234).unwrap();
    let par = read(&mut rig.cpu, &rig.ram, &mut Empty, SysReg::wide(15, 0, 7)).unwrap();
    assert_eq!(par, 0xff << 56 | 0x8000_1000 | 1 << 11);
    rig.mcr("ATS1CUR", 0x4000_1234).unwrap();
    assert_eq!(rig.mrc("PAR"), Ok(0b001101 << 1 | 1 << 11 | 1), "permission fault, first level");
    // Back to short descriptors: nothing of the long format's fields can be set.
    rig.mcr("TTBCR", 0x7fff_ffff).unwrap();
    assert_eq!(rig.mrc("TTBCR"), Ok(0x37));
    // A core without the extension has no EAE.
    rig.cpu.model.id_mmfr[0] = 0x0010_0103;
    rig.mcr("TTBCR", 1 << 31).unwrap();
    assert_eq!(rig.mrc("TTBCR"), Ok(0));
}

/// `docs/coverage/system-registers.md` is what the table says. To write it anew: `BLESS=1 cargo test -p reprise-arm coverage`.
#[test]
fn coverage_page() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/coverage/system-registers.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, coverage()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page == coverage(), "docs/coverage/system-registers.md is out of date: run this test with BLESS=1");
}

#[test]
fn inner_shareable_maintenance_reaches_the_other_cores() {
    let mut rig = Rig::new();
    let va = 0x10_0000u32;
    rig.ram
        .write(0x8000_4000 + u64::from(va >> 20) * 4, &(0x8000_0000u32 | 1 << 17 | 3 << 10 | 0xe).to_le_bytes())
        .unwrap();
    rig.mcr("TTBR0", 0x8000_4000).unwrap();
    rig.mcr("DACR", 1).unwrap();
    rig.mcr("SCTLR", 0x00c5_0079).unwrap();
    rig.cpu.mmu.set_cores(2);
    let on = |rig: &mut Rig, core: u32| {
        rig.cpu.model.mpidr = 0x8000_0000 | core;
        rig.cpu.update_context();
    };
    for (name, operand, everywhere) in [
        ("TLBIALL", 0, false),
        ("DTLBIASID", 0, false),
        ("TLBIMVA", va, false),
        ("TLBIMVAA", va, false),
        ("TLBIALLIS", 0, true),
        ("TLBIASIDIS", 0, true),
        ("TLBIMVAIS", va, true),
        ("TLBIMVAAIS", va, true),
    ] {
        for core in [1, 0] {
            on(&mut rig, core);
            rig.cpu.translate(&rig.ram, va, crate::mmu::Access::Read, View::Current).unwrap();
            assert_ne!(rig.cpu.mmu.read_addend(va), 0);
        }
        rig.mcr(name, operand.into()).unwrap();
        assert_eq!(rig.cpu.mmu.read_addend(va), 0, "{name}");
        on(&mut rig, 1);
        assert_eq!(rig.cpu.mmu.read_addend(va) == 0, everywhere, "{name}");
        on(&mut rig, 0);
    }
}
